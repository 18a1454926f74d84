//! From the flags of `run` and `create` to the body of `POST /containers/create`.
//!
//! The body equals the one that Docker's own command line sends for the same
//! flags, which the fixtures under tests/fixtures hold it to. What a daemon can
//! judge better (does the image exist, is the network there) is left to it.

mod devices;
mod env;
pub(crate) mod flags;
mod mounts;
mod network;
mod ports;
pub(crate) mod resources;

use std::path::Path;

use capsa_api::Endpoint;
use capsa_api::types::{
    Config, CreateRequest, HealthConfig, HostConfig, LogConfig, NetworkingConfig,
};

pub(crate) use env::{labels, map, variables};

use crate::failure::{Failure, Result};
use crate::flags::Matches;

/// The body for these flags and arguments (image, command …).
pub(crate) fn body(matches: &Matches, endpoint: &Endpoint) -> Result<CreateRequest> {
    let mut request = CreateRequest {
        config: config(matches)?,
        host_config: HostConfig::default(),
        networking_config: NetworkingConfig::default(),
    };
    let host = &mut request.host_config;
    resources::fill_changeable(matches, host)?;
    resources::fill_fixed(matches, host)?;
    fill_lifetime(matches, host)?;
    fill_security(matches, host)?;
    fill_storage(matches, host, &mut request.config, endpoint)?;
    network::fill(matches, host, &mut request.networking_config)?;
    let (exposed, bindings) = ports::read(matches)?;
    request.config.exposed_ports = exposed;
    host.port_bindings = bindings;
    host.publish_all_ports = matches.flag("publish-all");
    (host.devices, host.device_requests) = devices::read(matches)?;
    host.device_cgroup_rules = list_or_none(matches, "device-cgroup-rule");
    Ok(request)
}

/// The values of a list flag, `null` on the wire when there are none.
fn list_or_none(matches: &Matches, flag: &str) -> Option<Vec<String>> {
    let list = matches.list(flag);
    (!list.is_empty()).then(|| list.into_iter().map(str::to_owned).collect())
}

fn text(matches: &Matches, flag: &str) -> String {
    matches.text_or_empty(flag).to_owned()
}

fn config(matches: &Matches) -> Result<Config> {
    let (image, command) = matches.args.split_first().ok_or_else(|| Failure::said("no image"))?;
    let attached = |stream: &str| {
        matches.list("attach").iter().any(|wanted| wanted.eq_ignore_ascii_case(stream))
    };
    let interactive = matches.flag("interactive");
    let (detach, chosen) = (matches.flag("detach"), matches.given("attach"));
    let attach_stdin = !detach && (attached("stdin") || interactive);
    let env = variables(matches)?;
    Ok(Config {
        hostname: text(matches, "hostname"),
        domainname: text(matches, "domainname"),
        user: text(matches, "user"),
        attach_stdin,
        attach_stdout: !detach && (!chosen || attached("stdout")),
        attach_stderr: !detach && (!chosen || attached("stderr")),
        tty: matches.flag("tty"),
        open_stdin: interactive,
        stdin_once: interactive && attach_stdin,
        env: (!env.is_empty()).then_some(env),
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        healthcheck: health(matches)?,
        image: image.clone(),
        working_dir: text(matches, "workdir"),
        entrypoint: matches.text("entrypoint").map(|program| vec![program.to_owned()]),
        labels: labels(matches)?,
        stop_signal: text(matches, "stop-signal"),
        stop_timeout: matches.int("stop-timeout"),
        ..Config::default()
    })
}

fn health(matches: &Matches) -> Result<Option<HealthConfig>> {
    let durations =
        ["health-interval", "health-timeout", "health-start-period", "health-start-interval"];
    let any =
        durations.iter().chain(&["health-cmd", "health-retries"]).any(|flag| matches.given(flag));
    if matches.flag("no-healthcheck") {
        if any {
            return Err(Failure::said("--no-healthcheck conflicts with --health-* options"));
        }
        let test = vec!["NONE".to_owned()];
        return Ok(Some(HealthConfig { test, ..HealthConfig::default() }));
    }
    if !any {
        return Ok(None);
    }
    for flag in durations.iter().chain(&["health-retries"]) {
        let value = matches.duration(flag).or_else(|| matches.int(flag));
        if value.is_some_and(|value| value < 0) {
            return Err(Failure::said(format!("--{flag} cannot be negative")));
        }
    }
    let span = |flag| matches.duration(flag).unwrap_or(0);
    Ok(Some(HealthConfig {
        test: matches
            .text("health-cmd")
            .map(|command| vec!["CMD-SHELL".to_owned(), command.to_owned()])
            .unwrap_or_default(),
        interval: span("health-interval"),
        timeout: span("health-timeout"),
        start_period: span("health-start-period"),
        start_interval: span("health-start-interval"),
        retries: matches.int("health-retries").unwrap_or(0),
    }))
}

fn fill_lifetime(matches: &Matches, host: &mut HostConfig) -> Result<()> {
    host.auto_remove = matches.flag("rm");
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
    if host.auto_remove && host.restart_policy.name != "no" {
        return Err(Failure::said("conflicting options: cannot specify both --restart and --rm"));
    }
    let config = map(&matches.list("log-opt"));
    let kind = text(matches, "log-driver");
    if kind == "none" && !config.is_empty() {
        return Err(Failure::said(format!("invalid logging opts for driver {kind}")));
    }
    host.log_config = LogConfig { kind, config };
    host.annotations = map(&matches.list("annotation"));
    host.init = matches.switch("init");
    host.runtime = text(matches, "runtime");
    host.isolation = text(matches, "isolation");
    host.container_id_file = text(matches, "cidfile");
    host.console_size = vec![0, 0];
    Ok(())
}

fn fill_security(matches: &Matches, host: &mut HostConfig) -> Result<()> {
    host.cap_add = capabilities(&matches.list("cap-add"));
    host.cap_drop = capabilities(&matches.list("cap-drop"));
    host.group_add = list_or_none(matches, "group-add");
    host.privileged = matches.flag("privileged");
    host.ipc_mode = text(matches, "ipc");
    host.pid_mode = mode(matches, "pid", "PID", |mode| {
        matches!(mode, "" | "host")
            || mode.strip_prefix("container:").is_some_and(|c| !c.is_empty())
    })?;
    host.uts_mode = mode(matches, "uts", "UTS", |mode| matches!(mode, "" | "host"))?;
    host.userns_mode =
        mode(matches, "userns", "USER", |mode| matches!(mode, "" | "host" | "private"))?;
    host.cgroupns_mode =
        mode(matches, "cgroupns", "CGROUP", |mode| matches!(mode, "" | "host" | "private"))?;
    host.sysctls = map(&matches.list("sysctl"));
    let options = security_options(matches)?;
    if let Some(options) = options {
        let (system_paths, rest): (Vec<String>, Vec<String>) =
            options.into_iter().partition(|option| option == "systempaths=unconfined");
        if !system_paths.is_empty() {
            host.masked_paths = Some(Vec::new());
            host.readonly_paths = Some(Vec::new());
        }
        host.security_opt = Some(rest);
    }
    Ok(())
}

fn mode(matches: &Matches, flag: &str, word: &str, valid: fn(&str) -> bool) -> Result<String> {
    let mode = text(matches, flag);
    match valid(&mode) {
        true => Ok(mode),
        false => Err(Failure::said(format!("--{flag}: invalid {word} mode"))),
    }
}

/// Upper case, with `CAP_`, each once and in order; `ALL` stands for all.
fn capabilities(names: &[&str]) -> Option<Vec<String>> {
    let mut names: Vec<String> = names
        .iter()
        .map(|name| name.trim().to_uppercase())
        .map(|name| match name.as_str() {
            "ALL" => name,
            _ if name.starts_with("CAP_") => name,
            _ => format!("CAP_{name}"),
        })
        .collect();
    names.sort();
    names.dedup();
    (!names.is_empty()).then_some(names)
}

/// Checks the options and puts the text of a seccomp profile in the place of its path.
fn security_options(matches: &Matches) -> Result<Option<Vec<String>>> {
    let Some(options) = list_or_none(matches, "security-opt") else { return Ok(None) };
    let read = |option: String| {
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        let Some((key, value)) = pair else {
            return match option.as_str() {
                "no-new-privileges" => Ok(option),
                _ => Err(Failure::said(format!("Invalid --security-opt: {option:?}"))),
            };
        };
        if key != "seccomp" || matches!(value, "unconfined" | "builtin") {
            return Ok(option);
        }
        let profile = std::fs::read(value).map_err(|error| {
            let why = Failure::io("open", value, &error).text;
            Failure::said(format!("opening seccomp profile ({value}) failed: {why}"))
        })?;
        let profile: serde_json::Value = serde_json::from_slice(&profile).map_err(|error| {
            Failure::said(format!("compacting json for seccomp profile ({value}) failed: {error}"))
        })?;
        Ok(format!("seccomp={profile}"))
    };
    options.into_iter().map(read).collect::<Result<Vec<_>>>().map(Some)
}

fn fill_storage(
    matches: &Matches,
    host: &mut HostConfig,
    config: &mut Config,
    endpoint: &Endpoint,
) -> Result<()> {
    let (binds, anonymous) = mounts::volumes(matches)?;
    host.binds = (!binds.is_empty()).then_some(binds);
    config.volumes = Some(anonymous.into_iter().map(|path| (path, Default::default())).collect());
    host.mounts = mounts::mounts(matches)?;
    host.tmpfs = mounts::tmpfs(matches);
    host.readonly_rootfs = matches.flag("read-only");
    host.storage_opt = map(&matches.list("storage-opt"));
    host.volume_driver = text(matches, "volume-driver");
    host.volumes_from = list_or_none(matches, "volumes-from");
    if matches.flag("use-api-socket") {
        match endpoint {
            Endpoint::Unix(path) => host.mounts.push(mounts::api_socket(Path::new(path))),
            Endpoint::Tcp(_) => {
                return Err(Failure::said(
                    "flag --use-api-socket can only be used with a daemon on a unix:// socket",
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::flags::{Stop, parse};
    use crate::verbs::find;

    /// What a case of the fixture shows: the body, or the first line of the error.
    fn ours(args: &[String]) -> Result<Value, String> {
        let first_line =
            |failure: Failure| failure.text.lines().next().unwrap_or_default().to_owned();
        let found = find(args).map_err(first_line)?;
        let matches =
            parse(found.command, &found.name, &args[found.used..]).map_err(|stop| match stop {
                Stop::Help => "help".to_owned(),
                Stop::Wrong(failure) => first_line(failure),
            })?;
        let endpoint = Endpoint::Unix("/capsa.sock".into());
        let body = body(&matches, &endpoint)
            .map_err(|failure| first_line(failure.of_run(&found.name, 125)))?;
        serde_json::to_value(body).map_err(|error| error.to_string())
    }

    /// Leaves out what means nothing: null, empty lists and maps.
    fn normal(value: Value) -> Value {
        match value {
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (key, normal(value)))
                .filter(|(_, value)| {
                    !matches!(value, Value::Null)
                        && *value != serde_json::json!([])
                        && *value != serde_json::json!({})
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Array(items) => items.into_iter().map(normal).collect::<Vec<_>>().into(),
            other => other,
        }
    }

    /// Bodies and errors of Docker's command line 28.2.2 for the same words.
    #[test]
    fn bodies_equal_those_of_the_docker_command_line() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let text = std::fs::read_to_string(folder.join("create.json")).unwrap();
        let text = text.replace("@FIXTURES@", folder.to_str().unwrap());
        let text = text.replace("@CWD@", std::env::current_dir().unwrap().to_str().unwrap());
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        let mut wrong = Vec::new();
        for case in &cases {
            let args: Vec<String> = serde_json::from_value(case["args"].clone()).unwrap();
            let want = match case.get("body") {
                Some(body) => Ok(normal(body.clone())),
                None => Err(case["error"].as_str().unwrap().to_owned()),
            };
            let got = ours(&args).map(normal);
            if got != want {
                wrong.push(format!("{}\n  want {want:?}\n  got  {got:?}", args.join(" ")));
            }
        }
        assert!(cases.len() > 100, "the fixture is not empty");
        assert!(
            wrong.is_empty(),
            "{} of {} differ:\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n")
        );
    }
}
