//! The runtime's `config.json` for a container, from what was asked and what was found.
//!
//! Pure: whoever calls has looked up ids, made mounts and chosen namespaces.

mod defaults;
pub(crate) mod limits;
pub(crate) mod user;

use std::collections::BTreeMap;

use capsa_oci::runtime::{
    Capabilities, ConsoleSize, IdMapping, Linux, Mount, Namespace, NamespaceKind, Process, Root,
    RuntimeSpec, User,
};
use capsa_sys::caps::{self, CapSet};

use crate::container::record::{MountSource, Record};
use crate::instance::RANGE_LEN;
use crate::spec::{ContainerSpec, NamespaceMode, NetworkMode, SecuritySpec};
use crate::view::NetworkFiles;
use crate::{Error, Result};
use user::Identity;

const OCI_VERSION: &str = "1.2.0";

/// What was found for a container that is about to start.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// Its record.
    pub record: &'a Record,
    /// Who it runs as.
    pub identity: Identity,
    /// Its cgroup.
    pub cgroup: String,
    /// Namespaces of other containers to join, by kind: `/proc/PID/ns/…`.
    pub joined: BTreeMap<NamespaceKind, String>,
    /// Whether it has a user namespace of its own.
    pub own_users: bool,
    /// hosts, hostname and resolv.conf, where it has a network side of its own.
    pub files: Option<NetworkFiles>,
    /// Capabilities, computed by [`capabilities`].
    pub capabilities: Vec<String>,
}

/// Builds the document.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<RuntimeSpec> {
    let record = inputs.record;
    let spec = &record.spec;
    let own_uts = inputs.has_own(NamespaceKind::Uts, &spec.security.uts);
    Ok(RuntimeSpec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(process(inputs)?),
        root: Some(Root { path: "rootfs".to_owned(), readonly: spec.security.read_only_rootfs }),
        hostname: own_uts.then(|| record.resolved.hostname.clone()),
        domainname: if own_uts { spec.domainname.clone().filter(|d| !d.is_empty()) } else { None },
        mounts: mounts(inputs),
        hooks: None,
        annotations: spec.annotations.clone(),
        linux: Some(linux(inputs)?),
    })
}

/// The capabilities of a container: Docker's default, plus and minus what was asked.
///
/// # Errors
/// `InvalidInput` for a name that is none.
pub(crate) fn capabilities(security: &SecuritySpec) -> Result<Vec<String>> {
    // Nobody can give what the engine itself does not have.
    let all = CapSet::NAMED.intersection(caps::bounding()?);
    if security.privileged {
        return Ok(all.names());
    }
    let (add, add_all) = chosen(&security.cap_add)?;
    let (drop, drop_all) = chosen(&security.cap_drop)?;
    let base = match (add_all, drop_all) {
        (true, _) => all,
        (false, true) => CapSet::EMPTY,
        (false, false) => {
            let default = defaults::CAPABILITIES.iter().filter_map(|name| CapSet::parse(name));
            default.fold(CapSet::EMPTY, CapSet::union)
        }
    };
    Ok(base.without(drop).union(add).names())
}

/// The named capabilities, and whether `ALL` is among the names.
fn chosen(names: &[String]) -> Result<(CapSet, bool)> {
    let mut set = CapSet::EMPTY;
    let mut all = false;
    for name in names {
        if name.eq_ignore_ascii_case("all") {
            all = true;
            continue;
        }
        let one = CapSet::parse(&name.to_ascii_uppercase()).ok_or_else(|| {
            Error::invalid(format!("invalid capability: \"{name}\""))
                .with_hint("capabilities(7) lists them; the names are written with or without CAP_")
        })?;
        set = set.union(one);
    }
    Ok((set, all))
}

fn process(inputs: &Inputs<'_>) -> Result<Process> {
    let record = inputs.record;
    let (spec, resolved) = (&record.spec, &record.resolved);
    let mut args = vec![resolved.path.clone()];
    args.extend(resolved.args.iter().cloned());
    Ok(Process {
        terminal: spec.process.tty,
        console_size: spec.process.console_size.map(console_size),
        user: os_user(&inputs.identity),
        args,
        env: environment(&resolved.env, inputs, &resolved.hostname),
        cwd: resolved.working_dir.clone(),
        capabilities: Some(capability_sets(&inputs.capabilities, inputs.identity.uid)),
        rlimits: limits::rlimits(&spec.resources)?,
        no_new_privileges: spec.security.no_new_privileges,
        apparmor_profile: spec.security.apparmor.clone().filter(|p| p != "unconfined"),
        oom_score_adj: spec.resources.oom_score_adj,
        ..Process::default()
    })
}

/// The process of an exec, with the container's environment under its own.
pub(crate) fn exec_process(
    record: &Record,
    exec: &crate::spec::ExecSpec,
    identity: &Identity,
    capabilities: &[String],
) -> Process {
    let mut env = record.resolved.env.clone();
    for var in &exec.env {
        let key = var.split('=').next().unwrap_or_default();
        env.retain(|have| have.split('=').next() != Some(key));
        env.push(var.clone());
    }
    add_variable(&mut env, "HOME", &identity.home);
    if exec.tty {
        add_variable(&mut env, "TERM", "xterm");
    }
    let cwd = exec.working_dir.clone().filter(|dir| !dir.is_empty());
    Process {
        terminal: exec.tty,
        console_size: exec.console_size.map(console_size),
        user: os_user(identity),
        args: exec.cmd.clone(),
        env,
        cwd: cwd.unwrap_or_else(|| record.resolved.working_dir.clone()),
        capabilities: Some(capability_sets(capabilities, identity.uid)),
        no_new_privileges: record.spec.security.no_new_privileges && !exec.privileged,
        apparmor_profile: record.spec.security.apparmor.clone().filter(|p| p != "unconfined"),
        ..Process::default()
    }
}

fn console_size((rows, columns): (u16, u16)) -> ConsoleSize {
    ConsoleSize { height: rows.into(), width: columns.into() }
}

fn os_user(identity: &Identity) -> User {
    User {
        uid: identity.uid,
        gid: identity.gid,
        additional_gids: identity.groups.clone(),
        ..User::default()
    }
}

/// Only root has them in force; others have the bound. Inheritable stays empty
/// (CVE-2022-29162).
fn capability_sets(names: &[String], uid: u32) -> Capabilities {
    let in_force = if uid == 0 { names.to_vec() } else { Vec::new() };
    Capabilities {
        bounding: names.to_vec(),
        effective: in_force.clone(),
        permitted: in_force,
        ..Capabilities::default()
    }
}

fn environment(env: &[String], inputs: &Inputs<'_>, hostname: &str) -> Vec<String> {
    let mut env = env.to_vec();
    if !env.iter().any(|var| var.starts_with("HOSTNAME=")) {
        let at = env.iter().position(|var| var.starts_with("PATH=")).map_or(0, |at| at + 1);
        env.insert(at, format!("HOSTNAME={hostname}"));
    }
    if inputs.record.spec.process.tty {
        add_variable(&mut env, "TERM", "xterm");
    }
    add_variable(&mut env, "HOME", &inputs.identity.home);
    env
}

fn add_variable(env: &mut Vec<String>, key: &str, value: &str) {
    if !env.iter().any(|var| var.split('=').next() == Some(key)) {
        env.push(format!("{key}={value}"));
    }
}

fn mounts(inputs: &Inputs<'_>) -> Vec<Mount> {
    let record = inputs.record;
    let security = &record.spec.security;
    let own_cgroup = security.cgroup != NamespaceMode::Host || security.privileged;
    let mut mounts = defaults::mounts(record.spec.shm_size, security.privileged, own_cgroup);
    if security.ipc == NamespaceMode::Host {
        mounts.retain(|mount| !matches!(mount.destination.as_str(), "/dev/shm" | "/dev/mqueue"));
        mounts.push(bind("/dev/shm", "/dev/shm", &["rbind", "rprivate"], false));
        mounts.push(bind("/dev/mqueue", "/dev/mqueue", &["rbind", "rprivate"], false));
    }
    let idmap = inputs.own_users;
    if let Some(files) = &inputs.files {
        for (target, source) in [
            ("/etc/resolv.conf", &files.resolv_conf),
            ("/etc/hostname", &files.hostname),
            ("/etc/hosts", &files.hosts),
        ] {
            let mode = if security.read_only_rootfs { "ro" } else { "rw" };
            mounts.push(bind(
                target,
                &source.display().to_string(),
                &["bind", "rprivate", mode],
                idmap,
            ));
        }
    }
    for mount in &record.mounts {
        mounts.retain(|default| default.destination != mount.view.target);
        mounts.push(match &mount.kind {
            MountSource::Bind { recursive } => {
                let how = if *recursive { "rbind" } else { "bind" };
                let mode = if mount.view.read_write { "rw" } else { "ro" };
                let propagation = match mount.view.propagation.as_str() {
                    "" => "rprivate",
                    chosen => chosen,
                };
                bind(&mount.view.target, &mount.view.source, &[how, propagation, mode], idmap)
            }
            MountSource::Tmpfs { options } => tmpfs(&mount.view.target, options),
        });
    }
    mounts
}

fn bind(target: &str, source: &str, options: &[&str], idmap: bool) -> Mount {
    let mut mount = defaults::mount(target, "bind", source, options);
    if idmap {
        mount.options.push("idmap".to_owned());
    }
    mount
}

fn tmpfs(target: &str, options: &str) -> Mount {
    let mut mount = defaults::mount(target, "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let opposite = format!("no{option}");
        mount.options.retain(|have| *have != opposite);
        mount.options.push(option.to_owned());
    }
    mount
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux> {
    let record = inputs.record;
    let (spec, security) = (&record.spec, &record.spec.security);
    let paths = |chosen: &Option<Vec<String>>, default: &[&str]| match chosen {
        Some(paths) => paths.clone(),
        None if security.privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let mapping = |host_id| vec![IdMapping { container_id: 0, host_id, size: RANGE_LEN }];
    let mappings = record.id_range.filter(|_| inputs.own_users).map(mapping).unwrap_or_default();
    let shared = spec.mounts.iter().find_map(|mount| match &mount.kind {
        crate::spec::MountKind::Bind { propagation: Some(p), .. } if p.contains("shared") => {
            Some("rshared")
        }
        crate::spec::MountKind::Bind { propagation: Some(p), .. } if p.contains("slave") => {
            Some("rslave")
        }
        _ => None,
    });
    Ok(Linux {
        namespaces: namespaces(inputs),
        uid_mappings: mappings.clone(),
        gid_mappings: mappings,
        devices: limits::devices(spec)?,
        cgroups_path: Some(inputs.cgroup.clone()),
        resources: Some(limits::resources(spec)?),
        rootfs_propagation: shared.map(str::to_owned),
        sysctl: sysctls(inputs, spec),
        masked_paths: paths(&security.masked_paths, &defaults::MASKED),
        readonly_paths: paths(&security.read_only_paths, &defaults::READ_ONLY),
        ..Linux::default()
    })
}

fn namespaces(inputs: &Inputs<'_>) -> Vec<Namespace> {
    let spec = &inputs.record.spec;
    let security = &spec.security;
    let network = match spec.network.mode {
        NetworkMode::Host => NamespaceMode::Host,
        _ => NamespaceMode::Private,
    };
    let private = NamespaceMode::Private;
    let mut wanted = vec![
        (NamespaceKind::Mount, &private),
        (NamespaceKind::Pid, &security.pid),
        (NamespaceKind::Ipc, &security.ipc),
        (NamespaceKind::Uts, &security.uts),
        (NamespaceKind::Network, &network),
    ];
    if !security.privileged {
        wanted.push((NamespaceKind::Cgroup, &security.cgroup));
    }
    if inputs.own_users || inputs.joined.contains_key(&NamespaceKind::User) {
        wanted.push((NamespaceKind::User, &private));
    }
    wanted
        .into_iter()
        .filter(|(_, mode)| **mode != NamespaceMode::Host)
        .map(|(kind, _)| Namespace { kind, path: inputs.joined.get(&kind).cloned() })
        .collect()
}

/// Docker opens low ports and ping to everybody inside a network namespace of its own.
fn sysctls(inputs: &Inputs<'_>, spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    let own_network = spec.network.mode != NetworkMode::Host
        && !inputs.joined.contains_key(&NamespaceKind::Network);
    if own_network {
        // Beyond the mapped ids the kernel refuses the range (EINVAL).
        let last = if inputs.own_users { RANGE_LEN - 1 } else { i32::MAX.cast_unsigned() };
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last}"));
    }
    sysctls.extend(spec.sysctls.clone());
    sysctls
}

impl Inputs<'_> {
    fn has_own(&self, kind: NamespaceKind, mode: &NamespaceMode) -> bool {
        *mode != NamespaceMode::Host && !self.joined.contains_key(&kind)
    }
}
