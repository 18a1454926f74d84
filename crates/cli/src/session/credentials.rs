//! Logins at registries: kept by a credential helper if the configuration file names one
//! (`credHelpers` for one registry, `credsStore` for all), else in the file itself.
//!
//! A helper is a program `docker-credential-NAME` with the verbs get, store and erase
//! that speaks JSON over its standard streams (docker-credential-helpers, README).

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::config::ConfigFile;
use crate::failure::{Failure, Result};

/// The user that a helper gives for a token.
const TOKEN_USER: &str = "<token>";

/// What proves who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// User and password.
    Password(String, String),
    /// What a registry gave instead of them.
    Token(String),
}

/// Where a login was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// With a helper.
    ByHelper,
    /// In the file, as good as readable.
    InFile,
}

impl Secret {
    /// As the API takes it.
    pub(crate) fn to_json(&self, key: &str) -> Value {
        match self {
            Self::Password(user, password) => {
                json!({ "username": user, "password": password, "serveraddress": key })
            }
            Self::Token(token) => json!({ "identitytoken": token, "serveraddress": key }),
        }
    }
}

/// The login at the registry with this key in the file.
pub(crate) fn find(config: &ConfigFile, key: &str) -> Option<Secret> {
    match helper(config, key) {
        Some(name) => ask(&name, key),
        None => in_file(config, key),
    }
}

/// Keeps a login.
///
/// # Errors
/// The helper fails, or the file can't be written.
pub(crate) fn store(config: &ConfigFile, key: &str, secret: &Secret) -> Result<Kept> {
    let Some(name) = helper(config, key) else {
        let entry = match secret {
            Secret::Password(user, password) => {
                json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
            }
            Secret::Token(token) => json!({ "identitytoken": token }),
        };
        set(config, key, Some(entry))?;
        return Ok(Kept::InFile);
    };
    let (user, secret) = match secret {
        Secret::Password(user, password) => (user.as_str(), password),
        Secret::Token(token) => (TOKEN_USER, token),
    };
    let order = json!({ "ServerURL": key, "Username": user, "Secret": secret });
    run(&name, "store", &order.to_string())?;
    // So that it is known which registries there are logins for.
    set(config, key, Some(json!({})))?;
    Ok(Kept::ByHelper)
}

/// Forgets a login; false when there was none.
///
/// # Errors
/// As [`store`].
pub(crate) fn erase(config: &ConfigFile, key: &str) -> Result<bool> {
    let known = config.raw.get("auths").and_then(|auths| auths.get(key)).is_some();
    if let Some(name) = helper(config, key) {
        if !known && ask(&name, key).is_none() {
            return Ok(false);
        }
        run(&name, "erase", key)?;
    }
    if known {
        set(config, key, None)?;
    }
    Ok(known || helper(config, key).is_some())
}

fn helper(config: &ConfigFile, key: &str) -> Option<String> {
    let own = config.raw.get("credHelpers").and_then(|helpers| helpers.get(key));
    let name = own.or_else(|| config.raw.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| format!("docker-credential-{name}"))
}

/// One without a login there says so by failing.
fn ask(name: &str, key: &str) -> Option<Secret> {
    let answer: Value = serde_json::from_slice(&run(name, "get", key).ok()?).ok()?;
    let text = |field: &str| answer.get(field).and_then(Value::as_str).map(str::to_owned);
    let (user, secret) = (text("Username")?, text("Secret")?);
    match user.as_str() {
        TOKEN_USER => Some(Secret::Token(secret)),
        _ => Some(Secret::Password(user, secret)),
    }
}

fn run(name: &str, verb: &str, input: &str) -> Result<Vec<u8>> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::said(format!("credential helper {name} {verb}: {why}"))
    };
    let mut helper = Command::new(name)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = helper.stdin.take() {
        // One that does not read to the end says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = helper.wait_with_output().map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Err(failed(&said.trim()))
}

fn in_file(config: &ConfigFile, key: &str) -> Option<Secret> {
    let entry = config.raw.get("auths")?.get(key)?;
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    if !text("identitytoken").is_empty() {
        return Some(Secret::Token(text("identitytoken").to_owned()));
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let password = password.trim_end_matches('\0');
    Some(Secret::Password(user.to_owned(), password.to_owned()))
}

/// Writes or removes the file's entry for a registry.
fn set(config: &ConfigFile, key: &str, entry: Option<Value>) -> Result<()> {
    let auths = config.raw.get("auths").and_then(Value::as_object);
    let mut auths: Map<String, Value> = auths.cloned().unwrap_or_default();
    match entry {
        Some(entry) => auths.insert(key.to_owned(), entry),
        None => auths.remove(key),
    };
    config.set("auths", Some(Value::Object(auths)))
}
