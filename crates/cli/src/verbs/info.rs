//! `info` and `version`: what this client and its daemon are.

use std::fmt::Write as _;
use std::rc::Rc;

use capsa_api::types::SystemInfo;
use capsa_api::{Payload, Version};
use hyper::Method;

use super::Outcome;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{self, row};
use crate::output::units::binary_size;
use crate::output::{line, note, out};
use crate::session::Session;
use crate::template::Value;

const FORMAT: &[Flag] = &[Flag::text("format", "json, or a template").short('f')];

/// `capsa info`.
pub(crate) static INFO: Command = Command {
    names: &["system info", "info"],
    usage: "[OPTIONS]",
    about: "Show what the daemon and its host are",
    flags: &[FORMAT],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(info(session, matches)),
};

/// `capsa version`.
pub(crate) static VERSION: Command = Command {
    names: &["version"],
    usage: "[OPTIONS]",
    about: "Show the versions of client and daemon",
    flags: &[FORMAT],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(version(session, matches)),
};

async fn ask(session: &Session, path: &str) -> Result<Value> {
    let bytes = session.client()?.bytes(Method::GET, path, Payload::Empty).await?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::said(error.to_string()))
}

fn client_version(session: &Session) -> Value {
    let context =
        session.globals.context.clone().or_else(|| session.config().current_context.clone());
    row(vec![
        ("Version", env!("CARGO_PKG_VERSION").into()),
        ("ApiVersion", Version::MAX.to_string().into()),
        ("DefaultAPIVersion", Version::MAX.to_string().into()),
        ("Os", std::env::consts::OS.into()),
        ("Arch", go_architecture().into()),
        ("Context", context.unwrap_or_else(|| "default".to_owned()).into()),
    ])
}

/// Go's name for what we run on.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn version(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = client_version(&session);
    let server = ask(&session, "/version").await;
    if let Err(failure) = &server
        && failure.remedy.is_some()
        && session.is_default_daemon()
        && rustix::process::geteuid().is_root()
    {
        return server.map(|_| 0);
    }
    let known = server.as_ref().map_or(Value::Null, Value::clone);
    if let Some(asked) = matches.text("format") {
        let both = row(vec![("Client", client), ("Server", known)]);
        line(&format::one(&both, asked)?);
    } else {
        let mut text = section("Client:", &client);
        if server.is_ok() {
            text.push('\n');
            text.push_str(&section("Server:", &known));
        }
        out(text.as_bytes());
    }
    match server {
        Ok(_) => Ok(0),
        Err(failure) => Err(failure),
    }
}

fn section(title: &str, value: &Value) -> String {
    let mut text = format!("{title}\n");
    let min = match value.str("MinAPIVersion") {
        "" => String::new(),
        min => format!(" (minimum version {min})"),
    };
    for (label, shown) in [
        ("Version", value.str("Version").to_owned()),
        ("API version", format!("{}{min}", value.str("ApiVersion"))),
        ("Git commit", value.str("GitCommit").to_owned()),
        ("Built", value.str("BuildTime").to_owned()),
        ("OS/Arch", format!("{}/{}", value.str("Os"), value.str("Arch"))),
        ("Kernel", value.str("KernelVersion").to_owned()),
        ("Context", value.str("Context").to_owned()),
    ] {
        if !shown.is_empty() {
            let _ = writeln!(text, " {:<18} {shown}", format!("{label}:"));
        }
    }
    text
}

async fn info(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let raw = ask(&session, "/info").await?;
    if let Some(asked) = matches.text("format") {
        line(&format::one(&with_client(&session, raw), asked)?);
        return Ok(0);
    }
    let shown: SystemInfo =
        serde_json::from_str(&raw.json()).map_err(|error| Failure::said(error.to_string()))?;
    let mut text = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: {}\n\nServer:\n",
        env!("CARGO_PKG_VERSION"),
        client_version(&session).str("Context"),
        session.globals.debug
    );
    write_counts(&mut text, &shown);
    write_engine(&mut text, &shown);
    write_host(&mut text, &shown);
    out(text.as_bytes());
    for warning in shown.warnings.unwrap_or_default() {
        note(&warning);
    }
    Ok(0)
}

fn with_client(session: &Session, raw: Value) -> Value {
    let mut entries = raw.entries().to_vec();
    let client = row(vec![
        ("Debug", session.globals.debug.into()),
        ("Version", env!("CARGO_PKG_VERSION").into()),
        ("Context", client_version(session).str("Context").into()),
    ]);
    entries.push(("ClientInfo".to_owned(), client));
    Value::Map(entries)
}

fn write_counts(text: &mut String, info: &SystemInfo) {
    let _ = writeln!(
        text,
        " Containers: {}\n  Running: {}\n  Paused: {}\n  Stopped: {}\n Images: {}",
        info.containers,
        info.containers_running,
        info.containers_paused,
        info.containers_stopped,
        info.images
    );
}

fn write_engine(text: &mut String, info: &SystemInfo) {
    let _ = writeln!(
        text,
        " Server Version: {}\n Storage Driver: {}",
        info.server_version, info.driver
    );
    for [key, value] in &info.driver_status {
        let _ = writeln!(text, "  {key}: {value}");
    }
    let _ = writeln!(
        text,
        " Logging Driver: {}\n Cgroup Driver: {}\n Cgroup Version: {}",
        info.logging_driver, info.cgroup_driver, info.cgroup_version
    );
    let _ = writeln!(
        text,
        " Plugins:\n  Volume: {}\n  Network: {}\n  Log: {}",
        info.plugins.volume.join(" "),
        info.plugins.network.join(" "),
        info.plugins.log.join(" ")
    );
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    let _ = writeln!(
        text,
        " Runtimes: {}\n Default Runtime: {}\n Init Binary: {}\n Security Options:",
        runtimes.join(" "),
        info.default_runtime,
        info.init_binary
    );
    for option in &info.security_options {
        for (at, part) in option.split(',').enumerate() {
            let shown = part
                .split_once('=')
                .map_or(part, |(key, value)| if key == "name" { value } else { part });
            let _ = writeln!(
                text,
                "{}{}",
                if at == 0 { "  " } else { "   " },
                shown.replace('=', ": ")
            );
        }
    }
}

fn write_host(text: &mut String, info: &SystemInfo) {
    let _ = writeln!(
        text,
        " Kernel Version: {}\n Operating System: {}\n OSType: {}\n Architecture: {}\n CPUs: {}\n Total Memory: {}\n Name: {}\n ID: {}\n Docker Root Dir: {}\n Debug Mode: {}\n Experimental: {}",
        info.kernel_version,
        info.operating_system,
        info.os_type,
        info.architecture,
        info.ncpu,
        binary_size(info.mem_total as f64),
        info.name,
        info.id,
        info.docker_root_dir,
        info.debug,
        info.experimental_build
    );
    if !info.labels.is_empty() {
        let _ = writeln!(text, " Labels:");
        for label in &info.labels {
            let _ = writeln!(text, "  {label}");
        }
    }
    let _ = writeln!(text, " Live Restore Enabled: {}", info.live_restore_enabled);
}
