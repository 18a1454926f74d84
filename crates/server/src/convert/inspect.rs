//! A container as inspect shows it.

use std::collections::BTreeMap;

use capsa_api::Version;
use capsa_api::types::{
    Config, ContainerInspect, ContainerState, DriverData, Empty, EndpointSettings, HostConfig,
    MountPoint, NetworkSettings, PortBinding, PortMap, RestartPolicy as WirePolicy, Set,
};
use capsa_engine::spec::{NetworkMode, RestartPolicy};
use capsa_engine::view::{ContainerView, MountView, Phase};

use super::echo::{self, Echo};
use super::network::BRIDGE;
use super::volume::path;
use super::{network, ports};
use crate::time;

/// What holds the layers.
pub(crate) const GRAPH_DRIVER: &str = "overlayfs";
const SIGTERM: i32 = 15;

/// Everything about one container.
pub(crate) fn inspect(view: &ContainerView, version: Version) -> ContainerInspect {
    let echo = echo::read(&view.spec.echo);
    ContainerInspect {
        id: view.id.clone(),
        created: time::rfc3339(view.created_ns),
        path: view.resolved.path.clone(),
        args: view.resolved.args.clone(),
        state: state(view),
        image: view.image_id.to_string(),
        resolv_conf_path: path(&view.files.resolv_conf),
        hostname_path: path(&view.files.hostname),
        hosts_path: path(&view.files.hosts),
        log_path: path(&view.log_path),
        name: format!("/{}", view.name),
        restart_count: i64::from(view.restart_count),
        driver: GRAPH_DRIVER.to_owned(),
        platform: "linux".to_owned(),
        app_armor_profile: view.spec.security.apparmor.clone().unwrap_or_default(),
        exec_ids: (!view.exec_ids.is_empty()).then(|| view.exec_ids.clone()),
        host_config: host_config(view, &echo),
        graph_driver: DriverData { data: None, name: GRAPH_DRIVER.to_owned() },
        size_rw: view.size.map(|size| signed(size.writable)),
        size_root_fs: view.size.map(|size| signed(size.total)),
        mounts: view.mounts.iter().map(mount).collect(),
        config: config(view, &echo),
        network_settings: network_settings(view, &echo, version),
        ..ContainerInspect::default()
    }
}

/// Docker's one word for where a container is.
pub(crate) fn status(view: &ContainerView) -> &'static str {
    match view.phase {
        Phase::Creating | Phase::Created => "created",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Stopped if view.restarting => "restarting",
        Phase::Stopped if view.started_ns == 0 => "created",
        Phase::Stopped => "exited",
        Phase::Removing => "removing",
    }
}

/// Whether it runs in Docker's sense, which includes paused and restarting.
pub(crate) fn runs(view: &ContainerView) -> bool {
    matches!(view.phase, Phase::Running | Phase::Paused) || view.restarting
}

/// A mount as shown.
pub(crate) fn mount(view: &MountView) -> MountPoint {
    let volume = view.kind == "volume";
    MountPoint {
        kind: view.kind.clone(),
        name: view.name.clone(),
        source: view.source.clone(),
        destination: view.target.clone(),
        driver: if volume { "local".to_owned() } else { String::new() },
        mode: if view.read_write { String::new() } else { "ro".to_owned() },
        rw: view.read_write,
        propagation: view.propagation.clone(),
    }
}

/// Its networks by name.
pub(crate) fn networks(
    view: &ContainerView,
    asked: &BTreeMap<String, EndpointSettings>,
    version: Version,
) -> BTreeMap<String, EndpointSettings> {
    let mut networks = BTreeMap::new();
    for endpoint in &view.endpoints {
        let name = endpoint.network.as_str();
        let asked = asked.get(name).or_else(|| asked.get("default").filter(|_| name == BRIDGE));
        let mut shown = network::endpoint(endpoint, asked, &view.name, &view.id);
        if !version.at_least(45) && name != BRIDGE {
            let short = view.id.get(..12).unwrap_or(&view.id).to_owned();
            shown.aliases.get_or_insert_default().push(short);
        }
        networks.insert(endpoint.network.clone(), shown);
    }
    let named = match view.spec.network.mode {
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
        _ => return networks,
    };
    networks.entry(named.to_owned()).or_default();
    networks
}

fn state(view: &ContainerView) -> ContainerState {
    ContainerState {
        status: status(view).to_owned(),
        running: runs(view),
        paused: view.phase == Phase::Paused,
        restarting: view.restarting,
        oom_killed: view.oom_killed,
        dead: false,
        pid: view.pid,
        exit_code: view.exit_code,
        error: view.error.clone(),
        started_at: time::rfc3339(view.started_ns),
        finished_at: time::rfc3339(view.finished_ns),
        health: None,
    }
}

fn host_config(view: &ContainerView, echo: &Echo) -> HostConfig {
    let mut host = echo.host_config();
    // What an update may have changed since.
    let limits = &view.spec.resources;
    let number = |value: Option<u64>| value.map_or(0, signed);
    host.memory = number(limits.memory);
    host.memory_swap = limits.memory_swap.unwrap_or(0);
    host.memory_reservation = number(limits.memory_reservation);
    host.nano_cpus = number(limits.nano_cpus);
    host.cpu_shares = number(limits.cpu_shares);
    host.cpu_period = number(limits.cpu_period);
    host.cpu_quota = limits.cpu_quota.unwrap_or(0);
    host.cpuset_cpus = limits.cpuset_cpus.clone().unwrap_or_default();
    host.cpuset_mems = limits.cpuset_mems.clone().unwrap_or_default();
    host.pids_limit = limits.pids;
    host.blkio_weight = limits.blkio_weight.unwrap_or(0);
    host.restart_policy = restart_policy(view.spec.restart);
    host
}

fn restart_policy(policy: RestartPolicy) -> WirePolicy {
    let (name, count) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", i64::from(count)),
    };
    WirePolicy { name: name.to_owned(), maximum_retry_count: count }
}

fn config(view: &ContainerView, echo: &Echo) -> Config {
    let (spec, resolved) = (&view.spec, &view.resolved);
    let set = |keys: Vec<String>| keys.into_iter().map(|key| (key, Empty {})).collect::<Set>();
    let volumes = set(resolved.volumes.clone());
    let [attach_stdin, attach_stdout, attach_stderr] = echo.attach;
    let stop_signal = match (echo.stop_signal.as_str(), resolved.stop_signal) {
        ("", 0 | SIGTERM) => String::new(),
        ("", number) => capsa_oci::signal::name(number),
        (text, _) => text.to_owned(),
    };
    Config {
        hostname: resolved.hostname.clone(),
        domainname: spec.domainname.clone().unwrap_or_default(),
        user: resolved.user.clone(),
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports: set(resolved.exposed.iter().map(|port| ports::text(*port)).collect()),
        tty: spec.process.tty,
        open_stdin: spec.process.open_stdin,
        stdin_once: spec.process.stdin_once,
        env: Some(resolved.env.clone()),
        cmd: resolved.cmd.clone(),
        healthcheck: echo.health.clone(),
        image: spec.image.clone(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: match (&spec.process.working_dir, resolved.working_dir.as_str()) {
            (None, "/") => String::new(),
            (_, directory) => directory.to_owned(),
        },
        entrypoint: resolved.entrypoint.clone(),
        mac_address: echo.mac.clone(),
        labels: resolved.labels.clone(),
        stop_signal,
        stop_timeout: spec.stop_timeout_s,
        shell: echo.shell.clone(),
        ..Config::default()
    }
}

fn network_settings(view: &ContainerView, echo: &Echo, version: Version) -> NetworkSettings {
    let networks = networks(view, &echo.endpoints, version);
    let bridge = networks.get(BRIDGE).cloned().unwrap_or_default();
    let runs = matches!(view.phase, Phase::Running | Phase::Paused);
    NetworkSettings {
        sandbox_id: if runs { view.id.clone() } else { String::new() },
        sandbox_key: if runs { format!("/proc/{}/ns/net", view.pid) } else { String::new() },
        ports: if runs { port_map(view) } else { PortMap::new() },
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        mac_address: bridge.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

/// Every exposed port; `null` for those that aren't published.
fn port_map(view: &ContainerView) -> PortMap {
    let mut map: PortMap =
        view.resolved.exposed.iter().map(|port| (ports::text(*port), None)).collect();
    for bound in &view.ports {
        map.entry(ports::text(bound.port)).or_default().get_or_insert_default().push(PortBinding {
            host_ip: bound.host_ip.to_string(),
            host_port: bound.host_port.to_string(),
        });
    }
    map
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use capsa_api::types::CreateRequest;
    use capsa_engine::spec::{Port, Protocol};
    use capsa_engine::view::{self, EndpointView, NetworkFiles, Resolved};
    use capsa_oci::Digest;
    use serde_json::{Value, json};

    use super::*;
    use crate::convert::create;

    const NS: i64 = 1_000_000_000;

    /// A container of the recorded interactive run, in `phase`.
    pub(crate) fn view(phase: Phase) -> ContainerView {
        let body = include_bytes!("../../tests/fixtures/run_it.json");
        let plan = create::plan(&CreateRequest::from_slice(body).unwrap(), "", 2).unwrap();
        let runs = phase == Phase::Running;
        let port = |number| Port { number, protocol: Protocol::Tcp };
        ContainerView {
            id: "0123456789abcdef".repeat(4),
            name: "web".to_owned(),
            resolved: Resolved {
                path: "sh".to_owned(),
                args: vec!["-c".to_owned(), "echo hi".to_owned()],
                env: vec!["PATH=/bin".to_owned()],
                cmd: plan.spec.process.cmd.clone(),
                working_dir: "/".to_owned(),
                stop_signal: 3,
                hostname: "0123456789ab".to_owned(),
                exposed: vec![port(80), port(90)],
                ..Resolved::default()
            },
            spec: plan.spec,
            image_id: Digest::sha256(b"image"),
            created_ns: NS,
            phase,
            restarting: false,
            pid: if runs { 7 } else { 0 },
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_ns: if runs { 2 * NS } else { 0 },
            finished_ns: 0,
            restart_count: 0,
            endpoints: vec![EndpointView {
                network: BRIDGE.to_owned(),
                network_id: "n".repeat(64),
                id: "e".repeat(64),
                ipv4: runs.then(|| [172, 17, 0, 2].into()),
                prefix: 16,
                gateway: Some([172, 17, 0, 1].into()),
                mac: "02:42:ac:11:00:02".to_owned(),
                aliases: Vec::new(),
            }],
            ports: vec![view::PortBinding {
                port: port(80),
                host_ip: [0, 0, 0, 0].into(),
                host_port: 8080,
            }],
            mounts: Vec::new(),
            log_path: "/log".into(),
            id_range: None,
            files: NetworkFiles::default(),
            exec_ids: Vec::new(),
            size: None,
        }
    }

    fn shown(phase: Phase) -> Value {
        serde_json::to_value(inspect(&view(phase), Version::MAX)).unwrap()
    }

    #[test]
    fn empty_values_are_what_docker_sends() {
        let value = shown(Phase::Created);
        for (pointer, wanted) in [
            ("/Mounts", json!([])),
            ("/ExecIDs", json!(null)),
            ("/Config/Entrypoint", json!(null)),
            ("/Config/Volumes", json!(null)),
            ("/Config/OnBuild", json!(null)),
            ("/Config/Labels", json!({})),
            ("/Config/StopSignal", json!("SIGQUIT")),
            ("/NetworkSettings/Ports", json!({})),
            ("/NetworkSettings/Networks/bridge/IPAMConfig", json!(null)),
            ("/NetworkSettings/Networks/bridge/IPAddress", json!("")),
            ("/State/StartedAt", json!("0001-01-01T00:00:00Z")),
            ("/State/Status", json!("created")),
            ("/HostConfig/Binds", json!(null)),
            ("/HostConfig/PidsLimit", json!(null)),
            ("/HostConfig/MemorySwappiness", json!(null)),
            ("/HostConfig/ConsoleSize", json!([0, 0])),
            ("/HostConfig/NetworkMode", json!("bridge")),
            ("/HostConfig/ShmSize", json!(67_108_864)),
            ("/GraphDriver", json!({"Data": null, "Name": "overlayfs"})),
            ("/Name", json!("/web")),
        ] {
            assert_eq!(value.pointer(pointer), Some(&wanted), "{pointer}");
        }
        for absent in ["/SizeRw", "/State/Health", "/Config/Shell", "/Config/Healthcheck"] {
            assert_eq!(value.pointer(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_running_container_shows_its_ports_and_addresses() {
        let value = shown(Phase::Running);
        let ports = json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": null});
        assert_eq!(value["NetworkSettings"]["Ports"], ports);
        assert_eq!(value["NetworkSettings"]["IPAddress"], "172.17.0.2");
        assert_eq!(value["NetworkSettings"]["Networks"]["bridge"]["IPPrefixLen"], 16);
        assert_eq!(value["State"]["StartedAt"], "1970-01-01T00:00:02Z");
        assert_eq!((&value["State"]["Running"], &value["State"]["Pid"]), (&json!(true), &json!(7)));
    }

    #[test]
    fn every_field_of_dockers_inspect_is_there() {
        let value = shown(Phase::Running);
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "AppArmorProfile",
                "Args",
                "Config",
                "Created",
                "Driver",
                "ExecIDs",
                "GraphDriver",
                "HostConfig",
                "HostnamePath",
                "HostsPath",
                "Id",
                "Image",
                "LogPath",
                "MountLabel",
                "Mounts",
                "Name",
                "NetworkSettings",
                "Path",
                "Platform",
                "ProcessLabel",
                "ResolvConfPath",
                "RestartCount",
                "State",
            ]
        );
    }
}
