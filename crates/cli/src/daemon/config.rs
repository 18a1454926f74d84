//! The daemon's settings: flags, and the file with dockerd's keys.
//!
//! What both set is refused, as dockerd refuses it: nobody should have to guess
//! which one holds. An unknown key is an error that names it; a known key that
//! asks for what capsa does anyway is accepted, one that asks for something else
//! is refused with the reason.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use capsa_server::{EngineConfig, ImageStoreMark};
use serde_json::{Map, Value};
use tracing::Level;

use crate::create::map;
use crate::failure::{Failure, Result};
use crate::flags::values::{parse_duration, parse_size};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::session::DEFAULT_SOCKET;

const CONFIG_FILE: &str = "/etc/capsa/daemon.json";
const DATA_ROOT: &str = "/var/lib/capsa";
const EXEC_ROOT: &str = "/run/capsa";
const IMAGE_IDLE: &str = "10m";

/// `capsa daemon`.
pub(super) static DAEMON: Command = Command {
    names: &["daemon"],
    usage: "[OPTIONS]",
    about: "Serve the Docker Engine API from this host",
    flags: &[&[
        Flag::switch("background", "Started by a verb: leave its session and say when ready")
            .hide(),
        Flag::text("bip", "Address and prefix of the default bridge, such as 172.17.0.1/16"),
        Flag::text("config-file", "File with more settings (default /etc/capsa/daemon.json)"),
        Flag::text(
            "data-root",
            "Where images, containers and volumes are (default /var/lib/capsa)",
        )
        .short('g'),
        Flag::switch("debug", "Log more").short('D'),
        Flag::list("dns", "Name server for containers"),
        Flag::text("exec-root", "Where the state of running containers is (default /run/capsa)"),
        Flag::list("host", "Socket to listen on, unix:///path or tcp:// on loopback").short('H'),
        Flag::text(
            "image-store-idle",
            "How long an image must not have been used before it may go (default 10m)",
        ),
        Flag::text(
            "image-store-max",
            "Size, such as 20g, above which unused images go, the longest unused first (default none)",
        ),
        Flag::list(
            "insecure-registry",
            "Registry, HOST[:PORT], or network, whose certificate need not be good",
        ),
        Flag::list("label", "Label of this daemon, KEY=VALUE"),
        Flag::switch("live-restore", "Accepted: containers always outlive the daemon"),
        Flag::text("log-driver", "Log driver for containers that name none (default json-file)"),
        Flag::text("log-level", "Least level to log: debug, info, warn, error, fatal").short('l'),
        Flag::list("log-opt", "Option of that log driver, KEY=VALUE"),
        Flag::text("pidfile", "File to write the daemon's pid into").short('p'),
        Flag::list(
            "registry-mirror",
            "Base URL to try before a registry: URL for Docker Hub, NAME=URL for another, *=URL for all",
        ),
        Flag::switch("validate", "Check the settings and end"),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |_, _| Box::pin(async { Ok(0) }),
};

/// Keys of the file and the flags they equal.
const KEYS: [(&str, &str); 17] = [
    ("bip", "bip"),
    ("data-root", "data-root"),
    ("graph", "data-root"),
    ("debug", "debug"),
    ("dns", "dns"),
    ("exec-root", "exec-root"),
    ("hosts", "host"),
    ("image-store-idle", "image-store-idle"),
    ("image-store-max", "image-store-max"),
    ("insecure-registries", "insecure-registry"),
    ("labels", "label"),
    ("log-driver", "log-driver"),
    ("log-level", "log-level"),
    ("log-opts", "log-opt"),
    ("pidfile", "pidfile"),
    ("registry-mirrors", "registry-mirror"),
    ("live-restore", "live-restore"),
];

/// Keys whose only value here is the one that capsa has anyway.
const FIXED: [(&str, &str); 7] = [
    ("iptables", "true"),
    ("ip-masq", "true"),
    ("ip-forward", "true"),
    ("userland-proxy", "false"),
    ("experimental", "false"),
    ("storage-driver", "overlay2"),
    ("live-restore", "true"),
];

/// Keys that change nothing that capsa promises.
const HARMLESS: [&str; 6] = [
    "features",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "shutdown-timeout",
    "raw-logs",
];

/// What the daemon is to do.
#[derive(Debug)]
pub(super) struct Settings {
    /// For the engine.
    pub(super) engine: EngineConfig,
    /// Sockets.
    pub(super) hosts: Vec<String>,
    /// File for the pid.
    pub(super) pid_file: Option<PathBuf>,
    /// Least level to log.
    pub(super) log_level: Level,
    /// Started by a verb.
    pub(super) background: bool,
}

impl Settings {
    /// Reads flags and file.
    pub(super) fn read(flags: &Matches) -> Result<Self> {
        let path = flags.text("config-file").unwrap_or(CONFIG_FILE);
        let file = read_file(path, flags.given("config-file"))?;
        let wrong = |why: String| {
            Failure::said(format!("unable to configure the daemon with file {path}: {why}"))
        };
        check_conflicts(&file, flags).map_err(&wrong)?;
        let merged = merge(&file, flags).map_err(&wrong)?;
        let level = match merged.flag("debug") {
            true => "debug",
            false => merged.text("log-level").unwrap_or("info"),
        };
        let hosts = match merged.list("host") {
            hosts if hosts.is_empty() => vec![format!("unix://{DEFAULT_SOCKET}")],
            hosts => hosts.into_iter().map(str::to_owned).collect(),
        };
        Ok(Self {
            engine: engine(&merged)?,
            hosts,
            pid_file: merged.text("pidfile").map(PathBuf::from),
            log_level: log_level(level)?,
            background: flags.flag("background"),
        })
    }
}

fn engine(merged: &Matches) -> Result<EngineConfig> {
    let folder = |flag, default: &str| {
        let text = merged.text(flag).filter(|text| !text.is_empty()).unwrap_or(default);
        std::path::absolute(text).map_err(|error| Failure::io("resolve", text, &error))
    };
    let dns = merged
        .list("dns")
        .into_iter()
        .map(|text| {
            text.parse::<IpAddr>()
                .map_err(|_| Failure::said(format!("{text} is not an ip address")))
        })
        .collect::<Result<Vec<_>>>()?;
    let log_options: BTreeMap<String, String> = map(&merged.list("log-opt"));
    Ok(EngineConfig {
        data_root: folder("data-root", DATA_ROOT)?,
        exec_root: folder("exec-root", EXEC_ROOT)?,
        bip: merged.text("bip").filter(|text| !text.is_empty()).map(str::to_owned),
        labels: merged.list("label").into_iter().map(str::to_owned).collect(),
        log_driver: merged.text("log-driver").unwrap_or("json-file").to_owned(),
        log_options,
        dns,
        insecure_registries: merged
            .list("insecure-registry")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        registry_mirrors: mirrors(&merged.list("registry-mirror"))?,
        image_store: image_store(merged)?,
    })
}

/// Off without a size, or with the size 0.
fn image_store(merged: &Matches) -> Result<Option<ImageStoreMark>> {
    let wrong = |flag: &str, why: String| Failure::said(format!("invalid {flag}: {why}"));
    let text = merged.text("image-store-max").unwrap_or("0");
    let max = parse_size(text).map_err(|why| wrong("image-store-max", why))?;
    let text = merged.text("image-store-idle").unwrap_or(IMAGE_IDLE);
    let idle_ns = parse_duration(text).map_err(|why| wrong("image-store-idle", why))?;
    if idle_ns < 0 {
        return Err(wrong("image-store-idle", format!("{text} is negative")));
    }
    let max_bytes = u64::try_from(max).ok().filter(|max| *max > 0);
    Ok(max_bytes.map(|max_bytes| ImageStoreMark { max_bytes, idle_ns }))
}

/// `URL` means Docker Hub, `NAME=URL` another registry or a pattern of them.
fn mirrors(list: &[&str]) -> Result<Vec<(String, Vec<String>)>> {
    let mut mirrors: Vec<(String, Vec<String>)> = Vec::new();
    for text in list {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (name, url),
            _ => ("docker.io", *text),
        };
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(str::is_empty) || name.is_empty() {
            let why = "want http://HOST or https://HOST";
            return Err(Failure::said(format!("invalid mirror: {text:?}: {why}")));
        }
        match mirrors.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.to_owned()),
            None => mirrors.push((name.to_owned(), vec![url.to_owned()])),
        }
    }
    Ok(mirrors)
}

fn log_level(text: &str) -> Result<Level> {
    match text {
        "debug" => Ok(Level::DEBUG),
        "info" => Ok(Level::INFO),
        "warn" => Ok(Level::WARN),
        "error" | "fatal" => Ok(Level::ERROR),
        other => Err(Failure::said(format!("invalid logging level: {other}"))),
    }
}

/// The file; only one that was asked for must exist.
fn read_file(path: &str, asked: bool) -> Result<Map<String, Value>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if !asked && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Map::new());
        }
        Err(error) => return Err(Failure::io("open", path, &error)),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::said(format!("unable to configure the daemon with file {path}: {error}"))
    })
}

/// dockerd's words for a setting that stands in both places, and for unknown keys.
fn check_conflicts(file: &Map<String, Value>, flags: &Matches) -> Result<(), String> {
    let unknown: Vec<&str> = file
        .keys()
        .map(String::as_str)
        .filter(|key| {
            !(KEYS.iter().any(|(known, _)| known == key)
                || FIXED.iter().any(|(known, _)| known == key)
                || HARMLESS.contains(key))
        })
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        ));
    }
    for (key, only) in FIXED {
        if let Some(value) = file.get(key)
            && plain(value) != only
            && key != "live-restore"
        {
            return Err(format!("{key} can only be {only} here, not {value}"));
        }
    }
    let both: Vec<String> = KEYS
        .iter()
        .filter(|(key, flag)| file.contains_key(*key) && flags.given(flag))
        .map(|(key, flag)| {
            let flags = flags.list(flag).join(", ");
            format!("{key}: (from flag: {flags}, from file: {})", plain(&file[*key]))
        })
        .collect();
    match both.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            both.join(", ")
        )),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Flags, and what the file adds to them.
fn merge(file: &Map<String, Value>, flags: &Matches) -> Result<Matches, String> {
    let mut merged = Matches::default();
    for (key, flag) in KEYS {
        for value in flags.list(flag) {
            if key != "graph" {
                merged.push(flag, value);
            }
        }
        match file.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                for item in items {
                    let text =
                        item.as_str().ok_or_else(|| format!("{key}: want a list of texts"))?;
                    merged.push(flag, text);
                }
            }
            Some(Value::Object(entries)) => {
                for (name, value) in entries {
                    merged.push(flag, &format!("{name}={}", plain(value)));
                }
            }
            Some(value) => merged.push(flag, &plain(value)),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Stop, parse};

    fn settings(file: &str, words: &[&str]) -> Result<Settings, String> {
        let folder = tempfile();
        let path = folder.join("daemon.json");
        std::fs::write(&path, file).map_err(|error| error.to_string())?;
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        words.push(format!("--config-file={}", path.display()));
        let parsed = parse(&DAEMON, "daemon", &words).map_err(|stop| match stop {
            Stop::Help => "help".to_owned(),
            Stop::Wrong(failure) => failure.text,
        })?;
        let settings = Settings::read(&parsed).map_err(|failure| failure.text);
        let _ = std::fs::remove_dir_all(folder);
        settings
    }

    fn tempfile() -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("capsa-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn flags_and_file_add_up() {
        let settings = settings(
            r#"{"hosts":["unix:///a"],"labels":["x=y"],"log-opts":{"max-size":"1m"},"debug":true,"data-root":"/d"}"#,
            &["--bip", "10.0.0.1/24", "-p", "/run/x.pid"],
        )
        .unwrap();
        assert_eq!(settings.hosts, ["unix:///a"]);
        assert_eq!(settings.engine.data_root, PathBuf::from("/d"));
        assert_eq!(settings.engine.bip.as_deref(), Some("10.0.0.1/24"));
        assert_eq!(settings.engine.log_options["max-size"], "1m");
        assert_eq!(settings.log_level, Level::DEBUG);
        assert_eq!(settings.pid_file, Some(PathBuf::from("/run/x.pid")));
    }

    #[test]
    fn old_images_go_only_when_a_size_is_set() {
        assert_eq!(settings("{}", &[]).unwrap().engine.image_store, None);
        assert_eq!(settings("{}", &["--image-store-max", "0"]).unwrap().engine.image_store, None);
        let set = settings(r#"{"image-store-max":"20g"}"#, &["--image-store-idle=1h"]).unwrap();
        let mark = ImageStoreMark { max_bytes: 20 << 30, idle_ns: 3_600_000_000_000 };
        assert_eq!(set.engine.image_store, Some(mark));
        for bad in ["--image-store-max=x", "--image-store-idle=-1s"] {
            assert!(
                settings("{}", &[bad]).unwrap_err().starts_with("invalid image-store-"),
                "{bad}"
            );
        }
    }

    #[test]
    fn mirrors_are_for_docker_hub_or_for_whom_they_name() {
        let list = ["https://a", "r.example=http://b/x", "https://c", "*=https://d?x=y"];
        let found = mirrors(&list).unwrap();
        let of = |name: &str, urls: &[&str]| {
            (name.to_owned(), urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
        };
        let wanted = [
            of("docker.io", &["https://a", "https://c"]),
            of("r.example", &["http://b/x"]),
            of("*", &["https://d?x=y"]),
        ];
        assert_eq!(found, wanted);
        for bad in ["a", "x=a", "=https://a", "https://"] {
            assert!(mirrors(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_stands_twice_or_is_unknown_is_refused() {
        let twice = settings(r#"{"data-root":"/a"}"#, &["--data-root", "/b"]).unwrap_err();
        assert!(
            twice.ends_with("specified both as a flag and in the configuration file: data-root: (from flag: /b, from file: /a)"),
            "{twice}"
        );
        let unknown = settings(r#"{"data-rot":"/a"}"#, &[]).unwrap_err();
        assert!(unknown.ends_with("don't match any configuration option: data-rot"), "{unknown}");
        let other = settings(r#"{"iptables":false}"#, &[]).unwrap_err();
        assert!(other.contains("iptables can only be true here, not false"), "{other}");
        assert!(
            settings("{", &[]).unwrap_err().contains("unable to configure the daemon with file")
        );
        assert!(settings("{}", &["--nope"]).unwrap_err().starts_with("unknown flag: --nope"));
    }
}
