//! What a client sent, kept beside the spec to be shown again by inspect: the host
//! config as Docker would complete it, and the few config fields that the spec has
//! no place for. Only what differs from the zero value is stored.

use std::collections::BTreeMap;

use capsa_api::json;
use capsa_api::types::{CreateRequest, EndpointSettings, HealthConfig, HostConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const SHM_DEFAULT: i64 = 64 << 20;

/// What Docker hides in `/proc` and `/sys` by default.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The kept parts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Echo {
    pub(crate) host: Map<String, Value>,
    pub(crate) endpoints: BTreeMap<String, EndpointSettings>,
    pub(crate) attach: [bool; 3],
    pub(crate) stop_signal: String,
    pub(crate) health: Option<HealthConfig>,
    pub(crate) shell: Option<Vec<String>>,
    pub(crate) mac: String,
}

/// Makes the echo of a create body.
pub(crate) fn keep(request: &CreateRequest) -> Value {
    let config = &request.config;
    let echo = Echo {
        host: trimmed(&completed(&request.host_config)),
        endpoints: request.networking_config.endpoints_config.clone(),
        attach: [config.attach_stdin, config.attach_stdout, config.attach_stderr],
        stop_signal: config.stop_signal.clone(),
        health: config.healthcheck.clone(),
        shell: config.shell.clone(),
        mac: config.mac_address.clone(),
    };
    serde_json::to_value(echo).unwrap_or_default()
}

/// Reads it back; an unreadable one is empty.
pub(crate) fn read(echo: &Value) -> Echo {
    Echo::deserialize(echo).unwrap_or_default()
}

impl Echo {
    /// The host config as inspect shows it.
    pub(crate) fn host_config(&self) -> HostConfig {
        let value = Value::Object(self.host.clone());
        let mut host: HostConfig = json::from_value(value).unwrap_or_default();
        if host.console_size.is_empty() {
            host.console_size = vec![0, 0];
        }
        if !host.privileged {
            let list = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
            host.masked_paths.get_or_insert_with(|| list(&MASKED_PATHS));
            host.readonly_paths.get_or_insert_with(|| list(&READ_ONLY_PATHS));
        }
        host
    }
}

/// Fills in the defaults that Docker shows.
fn completed(host: &HostConfig) -> HostConfig {
    let mut host = host.clone();
    let default = |text: &mut String, value: &str| {
        if text.is_empty() {
            value.clone_into(text);
        }
    };
    if host.network_mode == "default" {
        host.network_mode.clear();
    }
    default(&mut host.network_mode, super::network::BRIDGE);
    default(&mut host.restart_policy.name, "no");
    default(&mut host.ipc_mode, "private");
    default(&mut host.cgroupns_mode, "private");
    default(&mut host.runtime, "capsa");
    default(&mut host.log_config.kind, "json-file");
    if host.shm_size == 0 {
        host.shm_size = SHM_DEFAULT;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    host.memory_swappiness = host.memory_swappiness.filter(|value| *value >= 0);
    host.pids_limit = host.pids_limit.filter(|limit| *limit != 0);
    host
}

fn trimmed(host: &HostConfig) -> Map<String, Value> {
    let Ok(Value::Object(mut map)) = serde_json::to_value(host) else { return Map::new() };
    let empty_means_something = ["MaskedPaths", "ReadonlyPaths"];
    map.retain(|key, value| match value {
        Value::Null => false,
        Value::Bool(b) => *b || key == "Init" || key == "OomKillDisable",
        Value::Number(n) => n.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty() || empty_means_something.contains(&key.as_str()),
        Value::Object(object) => !object.is_empty(),
    });
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_comes_back_with_dockers_defaults() {
        let body = br#"{"Image":"x","AttachStdout":true,"StopSignal":"HUP","HostConfig":{
            "Binds":["/a:/b"],"Memory":67108864,"MemorySwappiness":-1,"Init":false,"Dns":[],"ReadonlyPaths":[]}}"#;
        let value = keep(&CreateRequest::from_slice(body).unwrap());
        let echo = read(&value);
        let host = echo.host_config();
        assert_eq!(host.binds, Some(vec!["/a:/b".to_owned()]));
        assert_eq!(
            (host.memory, host.memory_swap, host.memory_swappiness),
            (64 << 20, 128 << 20, None)
        );
        assert_eq!((host.init, host.shm_size), (Some(false), SHM_DEFAULT));
        assert_eq!(host.restart_policy.name, "no");
        assert_eq!((host.network_mode.as_str(), host.ipc_mode.as_str()), ("bridge", "private"));
        assert_eq!(host.masked_paths.map(|paths| paths.len()), Some(MASKED_PATHS.len()));
        assert_eq!(host.readonly_paths, Some(Vec::new()), "an empty list hides nothing");
        assert_eq!((echo.attach, echo.stop_signal.as_str()), ([false, true, false], "HUP"));
        assert!(value["host"].as_object().is_some_and(|map| map.len() < 15), "{value}");
        assert_eq!(read(&Value::Null).host_config().console_size, [0, 0]);
    }
}
