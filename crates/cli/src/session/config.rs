//! The user's configuration file, `~/.docker/config.json`: what we read of it, and
//! how one key is changed without touching the rest.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

/// What verbs use of the file.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    /// The folder it is in.
    pub(crate) directory: PathBuf,
    /// `currentContext`.
    pub(crate) current_context: Option<String>,
    /// `detachKeys`.
    pub(crate) detach_keys: Option<String>,
    /// `HttpHeaders`.
    pub(crate) headers: BTreeMap<String, String>,
    /// The whole file.
    pub(crate) raw: Map<String, Value>,
}

impl ConfigFile {
    /// Reads it; a file that isn't there or isn't JSON counts as empty.
    pub(crate) fn load(directory: Option<&str>) -> Self {
        let directory = directory.map_or_else(default_directory, PathBuf::from);
        let raw = fs::read(directory.join("config.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok())
            .unwrap_or_default();
        let text = |key: &str| {
            raw.get(key).and_then(Value::as_str).filter(|v| !v.is_empty()).map(str::to_owned)
        };
        Self {
            current_context: text("currentContext").filter(|name| name != "default"),
            detach_keys: text("detachKeys"),
            headers: texts(raw.get("HttpHeaders")),
            directory,
            raw,
        }
    }

    /// A format such as `psFormat`, for when no `--format` is given.
    pub(crate) fn format(&self, key: &str) -> Option<&str> {
        self.raw.get(key).and_then(Value::as_str)
    }

    /// `proxies.default` as variables for a container, in upper and lower case.
    pub(crate) fn proxy_variables(&self, host: &str) -> Vec<(String, String)> {
        let Some(proxies) = self.raw.get("proxies") else { return Vec::new() };
        let Some(proxy) = proxies.get(host).or_else(|| proxies.get("default")) else {
            return Vec::new();
        };
        [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ]
        .into_iter()
        .filter_map(|(key, name)| Some((name, proxy.get(key)?.as_str()?)))
        .flat_map(|(name, value)| {
            [(name.to_owned(), value.to_owned()), (name.to_lowercase(), value.to_owned())]
        })
        .collect()
    }

    /// Sets a key, or removes it, and writes the file back.
    pub(crate) fn set(&self, key: &str, value: Option<Value>) -> Result<()> {
        let mut raw = self.raw.clone();
        match value {
            Some(value) => raw.insert(key.to_owned(), value),
            None => raw.remove(key),
        };
        let path = self.directory.join("config.json");
        let text = serde_json::to_string_pretty(&raw).unwrap_or_default();
        write_private(&path, text.as_bytes())
    }
}

/// Writes a file that only its owner may read: beside it first, then in its place.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |call: &'static str| {
        move |error: std::io::Error| Failure::io(call, &path.to_string_lossy(), &error)
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("mkdir"))?;
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("open"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&beside, path).map_err(failed("rename"))
}

fn default_directory() -> PathBuf {
    if let Some(directory) = env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        return directory.into();
    }
    PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".docker")
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
