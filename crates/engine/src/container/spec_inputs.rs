//! What a start or an exec needs to know: looked up, then turned into the runtime's
//! spec by `oci_spec`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use capsa_oci::runtime::{NamespaceKind, Process, RuntimeSpec};
use capsa_runtime::seccomp::{self, Facts};

use super::fs_view;
use super::isolation::{self, UserNamespace};
use super::phase;
use super::record::Record;
use crate::network::{Attachment, files};
use crate::oci_spec::user::{Identity, identify};
use crate::oci_spec::{self, Inputs};
use crate::spec::{ExecSpec, NamespaceMode, NetworkMode, SeccompSpec};
use crate::view::NetworkFiles;
use crate::world::World;
use crate::{Error, Result};

/// Everything for a start.
pub(crate) struct Gathered {
    /// The document.
    pub spec: RuntimeSpec,
    /// Layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Compiled syscall filter.
    pub seccomp: Option<Vec<u8>>,
}

/// Everything for an exec.
pub(crate) struct GatheredExec {
    /// The process.
    pub process: Process,
    /// Compiled syscall filter.
    pub seccomp: Option<Vec<u8>>,
}

/// Looks up what a start needs.
pub(crate) fn gather(
    world: &World,
    record: &Record,
    attachment: Option<&Attachment>,
) -> Result<Gathered> {
    let layers = world.lowers(record)?;
    let user = &record.resolved.user;
    let identity = who(world, record, &layers, user, &record.spec.process.group_add)?;
    let capabilities = oci_spec::capabilities(&record.spec.security)?;
    let seccomp = filter(world, record, &capabilities, record.spec.security.privileged)?;
    let inputs = Inputs {
        record,
        identity,
        cgroup: world.cgroup_path(record),
        joined: joined(world, record)?,
        own_users: isolation::user_namespace(&record.spec) == UserNamespace::Own,
        files: network_files(world, record, attachment)?,
        capabilities,
    };
    Ok(Gathered { spec: oci_spec::build(&inputs)?, layers, seccomp })
}

/// Looks up what an exec needs.
pub(crate) fn for_exec(world: &World, record: &Record, exec: &ExecSpec) -> Result<GatheredExec> {
    let layers = world.lowers(record)?;
    let user = if exec.user.is_empty() { &record.resolved.user } else { &exec.user };
    let identity = who(world, record, &layers, user, &record.spec.process.group_add)?;
    let mut security = record.spec.security.clone();
    security.privileged |= exec.privileged;
    let capabilities = oci_spec::capabilities(&security)?;
    let seccomp = filter(world, record, &capabilities, security.privileged)?;
    let process = oci_spec::exec_process(record, exec, &identity, &capabilities);
    Ok(GatheredExec { process, seccomp })
}

/// Who the container's own process runs as.
pub(crate) fn identity(world: &World, record: &Record) -> Result<Identity> {
    let layers = world.lowers(record)?;
    who(world, record, &layers, &record.resolved.user, &[])
}

fn who(
    world: &World,
    record: &Record,
    layers: &[PathBuf],
    user: &str,
    extra: &[String],
) -> Result<Identity> {
    let upper = world.store.container_dir(&record.id)?.join("rootfs/upper");
    let stack: Vec<PathBuf> = std::iter::once(upper).chain(layers.iter().cloned()).collect();
    let passwd = fs_view::read_text(&stack, "etc/passwd");
    let group = fs_view::read_text(&stack, "etc/group");
    identify(user, extra, &passwd, &group)
}

/// The filter as the kernel takes it; none when unconfined or privileged.
fn filter(
    world: &World,
    record: &Record,
    capabilities: &[String],
    privileged: bool,
) -> Result<Option<Vec<u8>>> {
    if privileged {
        return Ok(None);
    }
    let text = match &record.spec.security.seccomp {
        SeccompSpec::Unconfined => return Ok(None),
        SeccompSpec::Default => return world.filters.docker_default(capabilities).map(Some),
        SeccompSpec::Profile(text) => text,
    };
    let profile = seccomp::from_docker_json(text, Facts::here(capabilities))
        .map_err(|error| Error::invalid(format!("decoding seccomp profile failed: {error}")))?;
    let compiled = seccomp::compile(&profile)
        .map_err(|error| Error::invalid(format!("seccomp profile: {error}")))?;
    Ok(Some(compiled))
}

/// The namespaces of other containers that this one joins.
fn joined(world: &World, record: &Record) -> Result<BTreeMap<NamespaceKind, String>> {
    let spec = &record.spec;
    let mut joined = BTreeMap::new();
    let mut join = |kind: NamespaceKind, file: &str, key: &str, what: &str| -> Result<()> {
        let other = running(world, record, key, what)?;
        joined.insert(kind, format!("/proc/{}/ns/{file}", other.live.pid));
        Ok(())
    };
    for (mode, kind, file, what) in [
        (&spec.security.pid, NamespaceKind::Pid, "pid", "PID"),
        (&spec.security.ipc, NamespaceKind::Ipc, "ipc", "IPC"),
    ] {
        if let NamespaceMode::Container(key) = mode {
            join(kind, file, key, what)?;
        }
    }
    if let NetworkMode::Container(key) = &spec.network.mode {
        join(NamespaceKind::Network, "net", key, "network")?;
        // Its host name is part of its network identity.
        join(NamespaceKind::Uts, "uts", key, "network")?;
    }
    if let UserNamespace::Join(key) = isolation::user_namespace(spec) {
        let other = running(world, record, &key, "user")?;
        if other.id_range.is_some() {
            joined.insert(NamespaceKind::User, format!("/proc/{}/ns/user", other.live.pid));
        }
    }
    Ok(joined)
}

fn running(world: &World, record: &Record, key: &str, what: &str) -> Result<Arc<Record>> {
    let other = world.registry.find(key)?.record();
    if other.id == record.id {
        return Err(Error::invalid(format!("a container can't join its own {what} namespace")));
    }
    phase::must_run(other.live.phase, &other.id).map_err(|_| {
        Error::conflict(format!(
            "cannot join {what} namespace of a non running container: {}",
            other.id
        ))
    })?;
    Ok(other)
}

/// Writes hosts, hostname and resolv.conf; those of another container where its network
/// is joined.
fn network_files(
    world: &World,
    record: &Record,
    attachment: Option<&Attachment>,
) -> Result<Option<NetworkFiles>> {
    if let NetworkMode::Container(key) = &record.spec.network.mode {
        let other = world.registry.find(key)?.record();
        return Ok(Some(world.places(&other).files));
    }
    let places = world.places(record).files;
    files::write(&places, record, attachment, &world.config)?;
    Ok(Some(places))
}
