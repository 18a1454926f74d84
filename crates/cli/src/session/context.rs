//! Docker's contexts: named daemons in `<config>/contexts/meta/<sha256 of the name>/meta.json`.
//!
//! `default` is not stored: it is the host's own daemon.

use std::fs;
use std::path::PathBuf;

use capsa_api::Endpoint;
use serde_json::{Value, json};

use super::config::{ConfigFile, write_private};
use super::endpoint::{DEFAULT_SOCKET, parse_host};
use crate::failure::{Failure, Result};

/// A named daemon.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Name.
    pub(crate) name: String,
    /// What its maker says of it.
    pub(crate) description: String,
    /// Where the daemon is, as written.
    pub(crate) host: String,
    /// The stored file.
    pub(crate) raw: Value,
}

/// Where the context's daemon is.
pub(crate) fn endpoint(config: &ConfigFile, name: &str) -> Result<Endpoint> {
    parse_host(&find(config, name)?.host)
}

/// The context of this name.
pub(crate) fn find(config: &ConfigFile, name: &str) -> Result<Context> {
    if name == "default" {
        return Ok(default());
    }
    let missing = || {
        Failure::said(format!(
            "context {name:?}: context not found: open {}: no such file or directory",
            file(config, name).display()
        ))
    };
    let bytes = fs::read(file(config, name)).map_err(|_| missing())?;
    read(&bytes).ok_or_else(|| Failure::said(format!("context {name:?}: its file is malformed")))
}

/// Every context, `default` first, then by name.
pub(crate) fn list(config: &ConfigFile) -> Vec<Context> {
    let folders = fs::read_dir(config.directory.join("contexts/meta")).into_iter().flatten();
    let mut contexts: Vec<Context> = folders
        .flatten()
        .filter_map(|entry| read(&fs::read(entry.path().join("meta.json")).ok()?))
        .collect();
    contexts.sort_by(|a, b| a.name.cmp(&b.name));
    contexts.insert(0, default());
    contexts
}

/// Stores a context; one of this name must not be there unless `replace`.
pub(crate) fn store(
    config: &ConfigFile,
    name: &str,
    description: &str,
    host: &str,
    replace: bool,
) -> Result<()> {
    let valid = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c));
    if name == "default" || !valid {
        return Err(Failure::said(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )));
    }
    parse_host(host)?;
    if !replace && file(config, name).exists() {
        return Err(Failure::said(format!("context {name:?} already exists")));
    }
    let metadata = match description {
        "" => json!({}),
        text => json!({ "Description": text }),
    };
    let meta = json!({
        "Name": name,
        "Metadata": metadata,
        "Endpoints": { "docker": { "Host": host, "SkipTLSVerify": false } },
    });
    write_private(&file(config, name), meta.to_string().as_bytes())
}

/// Removes a context.
pub(crate) fn remove(config: &ConfigFile, name: &str) -> Result<()> {
    find(config, name)?;
    let file = file(config, name);
    let folder = file.parent().unwrap_or(&file);
    fs::remove_dir_all(folder)
        .map_err(|error| Failure::io("remove", &folder.to_string_lossy(), &error))
}

fn default() -> Context {
    let host = format!("unix://{DEFAULT_SOCKET}");
    let raw = json!({
        "Name": "default",
        "Metadata": {},
        "Endpoints": { "docker": { "Host": host, "SkipTLSVerify": false } },
    });
    Context {
        name: "default".to_owned(),
        description: "The daemon of this host".to_owned(),
        host,
        raw,
    }
}

fn file(config: &ConfigFile, name: &str) -> PathBuf {
    use sha2::Digest;
    let digest: String =
        sha2::Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    config.directory.join("contexts/meta").join(digest).join("meta.json")
}

fn read(bytes: &[u8]) -> Option<Context> {
    let raw: Value = serde_json::from_slice(bytes).ok()?;
    let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    Some(Context {
        name: raw.get("Name")?.as_str()?.to_owned(),
        description: text("/Metadata/Description").to_owned(),
        host: text("/Endpoints/docker/Host").to_owned(),
        raw: raw.clone(),
    })
}
