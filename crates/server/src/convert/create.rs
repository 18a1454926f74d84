//! A create body as a container spec.

use capsa_api::types::{Config, CreateRequest, HealthConfig, HostConfig};
use capsa_engine::spec::{ContainerSpec, LogSpec, ProcessSpec, RestartPolicy};

use super::network::Joins;
use super::{echo, mounts, network, resources, security, signal};
use crate::error::{ApiError, Result};

const MILLISECOND: i64 = 1_000_000;

/// What a create body asks for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The container.
    pub(crate) spec: ContainerSpec,
    /// Further networks to join.
    pub(crate) joins: Joins,
    /// What is not done as asked.
    pub(crate) warnings: Vec<String>,
}

/// Reads a create body; `name` is the query's, empty for none.
pub(crate) fn plan(request: &CreateRequest, name: &str, cpus: usize) -> Result<Plan> {
    let (config, host) = (&request.config, &request.host_config);
    if config.image.is_empty() {
        return bad("no image specified");
    }
    check_config(config)?;
    check_host(host)?;
    let restart = resources::restart_policy(&host.restart_policy)?;
    if host.auto_remove && restart != RestartPolicy::No {
        return bad("can't create 'AutoRemove' container with restart policy");
    }
    let (network, joins) = network::spec(request)?;
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let spec = ContainerSpec {
        name: checked_name(name)?,
        image: config.image.clone(),
        process: process(config, host)?,
        hostname: text(&config.hostname),
        domainname: text(&config.domainname),
        labels: config.labels.clone(),
        annotations: host.annotations.clone(),
        stop_signal: signal::optional(&config.stop_signal)?,
        stop_timeout_s: config.stop_timeout,
        auto_remove: host.auto_remove,
        restart,
        mounts: mounts::mounts(host)?,
        anonymous_volumes: config
            .volumes
            .iter()
            .flatten()
            .map(|(path, _)| mounts::clean(path))
            .collect(),
        volumes_from: mounts::volumes_from(host)?,
        network,
        security: security::security(host)?,
        resources: resources::resources(host, cpus)?,
        log: log(host)?,
        shm_size: u64::try_from(host.shm_size).ok().filter(|size| *size > 0),
        init: host.init.unwrap_or(false),
        sysctls: host.sysctls.clone(),
        devices: security::devices(host)?,
        device_rules: security::device_rules(host)?,
        echo: echo::keep(request),
    };
    Ok(Plan { spec, joins, warnings: warnings(request) })
}

/// Checks a name; a leading slash is cut, nothing is no name.
pub(crate) fn checked_name(name: &str) -> Result<Option<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    let bare = name.strip_prefix('/').unwrap_or(name);
    let word = |b: u8| b.is_ascii_alphanumeric();
    let valid = bare.len() >= 2
        && bare.bytes().next().is_some_and(word)
        && bare.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'));
    if valid {
        return Ok(Some(bare.to_owned()));
    }
    bad(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
}

fn process(config: &Config, host: &HostConfig) -> Result<ProcessSpec> {
    Ok(ProcessSpec {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone().unwrap_or_default(),
        working_dir: (!config.working_dir.is_empty()).then(|| config.working_dir.clone()),
        user: config.user.clone(),
        group_add: host.group_add.clone().unwrap_or_default(),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        console_size: console_size(&host.console_size)?,
    })
}

/// Rows and columns; nothing, or zeros, for none.
pub(crate) fn console_size(size: &[u32]) -> Result<Option<(u16, u16)>> {
    match size {
        [] | [0, _] | [_, 0] => Ok(None),
        [rows, columns] => match (u16::try_from(*rows), u16::try_from(*columns)) {
            (Ok(rows), Ok(columns)) => Ok(Some((rows, columns))),
            _ => bad("invalid console size: too large"),
        },
        _ => bad("invalid console size: want rows and columns"),
    }
}

/// Refuses environment variables without a name.
pub(crate) fn check_env(env: &[String]) -> Result<()> {
    match env.iter().find(|var| var.is_empty() || var.starts_with('=') || var.contains('\0')) {
        Some(var) => bad(format!("invalid environment variable: {var}")),
        None => Ok(()),
    }
}

fn check_config(config: &Config) -> Result<()> {
    check_env(config.env.as_deref().unwrap_or_default())?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return bad(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    let nul = |words: &Option<Vec<String>>| words.iter().flatten().any(|word| word.contains('\0'));
    if nul(&config.cmd) || nul(&config.entrypoint) {
        return bad("invalid command: contains a NUL byte");
    }
    config.healthcheck.as_ref().map_or(Ok(()), check_health)
}

fn check_health(health: &HealthConfig) -> Result<()> {
    for (value, name) in [
        (health.interval, "Interval"),
        (health.timeout, "Timeout"),
        (health.start_period, "StartPeriod"),
        (health.start_interval, "StartInterval"),
    ] {
        if value != 0 && value < MILLISECOND {
            return bad(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if health.retries < 0 {
        return bad("Retries in Healthcheck cannot be negative");
    }
    match health.test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => bad(format!("Unknown type {other:?} in Healthcheck")),
    }
}

fn check_host(host: &HostConfig) -> Result<()> {
    if host.shm_size < 0 {
        return bad("SHM size can not be less than 0");
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return bad(format!("invalid isolation '{}' on linux", host.isolation));
    }
    if !matches!(host.runtime.as_str(), "" | "runc" | "capsa" | "io.containerd.runc.v2") {
        return bad(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    if !host.storage_opt.is_empty() {
        return bad("storage options of a single container are not supported");
    }
    Ok(())
}

fn log(host: &HostConfig) -> Result<LogSpec> {
    const JSON_FILE: &[&str] = &[
        "max-file",
        "max-size",
        "compress",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
        "mode",
        "max-buffer-size",
    ];
    const LOCAL: &[&str] = &["max-file", "max-size", "compress", "mode", "max-buffer-size"];
    let driver = host.log_config.kind.as_str();
    let known = match driver {
        "" | "json-file" => JSON_FILE,
        "local" => LOCAL,
        "none" => &[],
        other => return bad(format!("logger: no log driver named '{other}' is registered")),
    };
    let options = &host.log_config.config;
    match options.keys().find(|key| driver != "none" && !known.contains(&key.as_str())) {
        Some(key) => {
            let driver = if driver.is_empty() { "json-file" } else { driver };
            bad(format!("unknown log opt '{key}' for {driver} log driver"))
        }
        None => Ok(LogSpec { driver: driver.to_owned(), options: options.clone() }),
    }
}

fn warnings(request: &CreateRequest) -> Vec<String> {
    let host = &request.host_config;
    let mut warnings = resources::ignored(host);
    let endpoints = request.networking_config.endpoints_config.values();
    let linked = |links: &Option<Vec<String>>| links.as_ref().is_some_and(|l| !l.is_empty());
    if linked(&host.links) || endpoints.into_iter().any(|endpoint| linked(&endpoint.links)) {
        warnings.push(
            "Links are not made: containers on the same user-defined network find each other by \
             name."
                .to_owned(),
        );
    }
    warnings
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(ApiError::bad_request(message))
}

#[cfg(test)]
mod tests {
    use capsa_engine::spec::{MountKind, NamespaceMode, NetworkMode, SeccompSpec};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const RUN_IT: &str = include_str!("../../tests/fixtures/run_it.json");
    const CREATE_ALL: &str = include_str!("../../tests/fixtures/create_all.json");

    fn request(json: &str) -> CreateRequest {
        CreateRequest::from_slice(json.as_bytes()).unwrap()
    }

    fn refusal(json: &str) -> String {
        plan(&request(json), "", 2).unwrap_err().message
    }

    #[test]
    fn the_body_of_an_interactive_run_is_read() {
        let Plan { spec, joins, warnings } = plan(&request(RUN_IT), "/nn", 2).unwrap();
        assert!(joins.is_empty() && warnings.is_empty());
        assert_eq!((spec.name.as_deref(), spec.image.as_str()), (Some("nn"), "busybox"));
        let process = &spec.process;
        assert_eq!(
            (process.cmd.as_deref(), &process.entrypoint),
            (Some(&["sh".to_owned()][..]), &None)
        );
        assert!(process.tty && process.open_stdin && process.stdin_once);
        assert_eq!(spec.network.mode, NetworkMode::Default);
        let published = &spec.network.published[0];
        assert_eq!(
            (published.port.number, published.host_port, published.host_ip),
            (80, 8080, None)
        );
        assert_eq!(spec.restart, RestartPolicy::No);
        assert_eq!((spec.resources.memory, spec.resources.memory_swappiness), (None, None));
        assert_eq!((spec.shm_size, spec.stop_signal, spec.stop_timeout_s), (None, None, None));
        assert!(matches!(spec.security.seccomp, SeccompSpec::Default));
        assert_eq!(spec.security.masked_paths, None);
    }

    #[test]
    fn a_body_with_everything_is_read() {
        let mut request = request(CREATE_ALL);
        request.host_config.device_requests = None;
        let Plan { spec, warnings, .. } = plan(&request, "", 2).unwrap();
        assert_eq!(warnings.len(), 1, "links are warned about");
        assert_eq!(spec.stop_signal, Some(1));
        assert_eq!((spec.stop_timeout_s, spec.restart), (Some(3), RestartPolicy::OnFailure(3)));
        assert_eq!(spec.network.mode, NetworkMode::Named("foo".into()));
        assert_eq!(spec.network.ipv4, Some([1, 2, 3, 4].into()));
        assert_eq!(
            (spec.network.aliases.as_slice(), spec.network.publish_all),
            (&["al".to_owned()][..], true)
        );
        assert_eq!(spec.network.exposed.len(), 2);
        assert_eq!(spec.security.pid, NamespaceMode::Host);
        assert_eq!(spec.security.user, NamespaceMode::Host);
        assert!(spec.security.privileged && spec.security.no_new_privileges && spec.init);
        assert_eq!(spec.security.masked_paths, Some(Vec::new()));
        assert!(matches!(spec.mounts[0].kind, MountKind::Bind { create: false, .. }));
        assert!(spec.mounts[0].read_only);
        assert!(
            matches!(&spec.mounts[1].kind, MountKind::Tmpfs { options } if options == "size=67108864")
        );
        assert_eq!(spec.resources.nano_cpus, Some(1_500_000_000));
        assert_eq!((spec.resources.ulimits[0].soft, spec.resources.ulimits[0].hard), (10, 20));
        assert_eq!((spec.shm_size, spec.resources.oom_score_adj), (Some(1 << 30), Some(5)));
        assert_eq!(spec.volumes_from, ["q:ro"]);
    }

    #[test]
    fn refusals_have_dockers_texts() {
        for (json, text) in [
            (r#"{}"#, "no image specified"),
            (
                r#"{"Image":"x","HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}"#,
                "can't create 'AutoRemove' container with restart policy",
            ),
            (r#"{"Image":"x","StopSignal":"FOO"}"#, "invalid signal: FOO"),
            (r#"{"Image":"x","Env":["=a"]}"#, "invalid environment variable: =a"),
            (
                r#"{"Image":"x","WorkingDir":"a"}"#,
                "the working directory 'a' is invalid, it needs to be an absolute path",
            ),
            (
                r#"{"Image":"x","Healthcheck":{"Interval":5}}"#,
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (
                r#"{"Image":"x","HostConfig":{"Runtime":"kata"}}"#,
                "unknown or invalid runtime name: kata",
            ),
            (
                r#"{"Image":"x","HostConfig":{"LogConfig":{"Type":"syslog"}}}"#,
                "logger: no log driver named 'syslog' is registered",
            ),
            (
                r#"{"Image":"x","HostConfig":{"LogConfig":{"Config":{"a":"b"}}}}"#,
                "unknown log opt 'a' for json-file log driver",
            ),
            (
                r#"{"Image":"x","HostConfig":{"DeviceRequests":[{"Capabilities":[["gpu"]]}]}}"#,
                "could not select device driver \"\" with capabilities: [[gpu]]",
            ),
        ] {
            assert_eq!(refusal(json), text);
        }
        let name = plan(&request(r#"{"Image":"x"}"#), "a b", 2).unwrap_err();
        assert_eq!(
            name.message,
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn nulls_everywhere_are_the_zero_values() {
        let mut body: Value = serde_json::from_str(RUN_IT).unwrap();
        let nulled = |object: &mut Value| {
            for (key, value) in object.as_object_mut().unwrap() {
                if !matches!(key.as_str(), "HostConfig" | "Image") {
                    *value = Value::Null;
                }
            }
        };
        nulled(&mut body["HostConfig"]);
        nulled(&mut body);
        assert!(plan(&CreateRequest::from_value(body).unwrap(), "", 2).is_ok());
    }

    /// JSON of any shape, with words that mean something here.
    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("host"),
            Just("container:"),
            Just("a:b:c"),
            Just("/a:/b:ro"),
            Just("80/tcp"),
            Just("1-"),
            Just("seccomp={"),
            Just(""),
            Just("é\0"),
            Just("bind"),
            Just("-1"),
            Just("99999999999999999999"),
            Just("CAP_"),
            Just("no-new-privileges:"),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(any_key(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A key that some part of a create body has, or any other.
    fn any_key() -> impl Strategy<Value = String> {
        let bodies: Vec<Value> =
            [RUN_IT, CREATE_ALL].map(|text| serde_json::from_str(text).unwrap()).into();
        let mut known = Vec::new();
        for body in &bodies {
            known.extend(body.as_object().unwrap().keys().cloned());
            known.extend(body["HostConfig"].as_object().unwrap().keys().cloned());
        }
        known.extend(["Type", "Source", "Target", "80/tcp", "/x"].map(str::to_owned));
        prop_oneof![proptest::sample::select(known), ".{0,6}"]
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(
            host in btree_map(any_key(), any_json(), 0..6),
            config in btree_map(any_key(), any_json(), 0..6),
            name in ".{0,8}",
        ) {
            let mut body = Value::Object(config.into_iter().collect());
            body["Image"] = "x".into();
            body["HostConfig"] = Value::Object(host.into_iter().collect());
            if let Ok(request) = CreateRequest::from_value(body) {
                let _ = plan(&request, &name, 2);
            }
        }
    }
}
