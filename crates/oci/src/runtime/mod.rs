//! The OCI runtime specification's `config.json` (1.2 and later) as plain data.
//!
//! Lenient on purpose: unknown fields are ignored, an absent or `null` list is an
//! empty one, and what the specification calls optional is an `Option`. Whoever
//! acts on a value checks it; nothing is checked here beyond its type.
//! Serialising leaves out what is empty, so that a round trip stays short.

mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use linux::{
    Device, IdMapping, Linux, Namespace, NamespaceKind, Personality, TimeOffset, TimeOffsets,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoPriority, IoPriorityClass, Process, Rlimit,
    Scheduler, User,
};
pub use resources::{
    BlockIo, Cpu, DeviceRule, DeviceThrottle, DeviceWeight, HugepageLimit, InterfacePriority,
    Memory, NetworkClass, Pids, Rdma, Resources,
};
pub use seccomp::{Arg, Op, Seccomp, SeccompAction, SyscallRule};

/// A whole `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeSpec {
    /// Version of the specification that the document follows.
    pub oci_version: String,
    /// What runs; absent only in a container that is never started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name in the container's UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name in the container's UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, made in this order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    /// Programs to run at points of the container's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free text about the container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// The root file system of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: String,
    /// Mounted read-only inside.
    #[serde(skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// One mount inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// File system type; `bind` or none for a bind mount.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Device, or the bind's path on the host (relative to the bundle).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// fstab-style options.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub options: Vec<String>,
    /// Own uid mapping of an idmapped mount; the container's when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    /// Own gid mapping of an idmapped mount; the container's when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs run at points of the container's life, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// After the namespaces exist, before the root is switched; in the runtime's namespaces (deprecated).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub prestart: Vec<Hook>,
    /// As `prestart`, right after it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before the root is switched.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub create_container: Vec<Hook>,
    /// In the container, just before the user's program.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub start_container: Vec<Hook>,
    /// After the user's program runs; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub poststart: Vec<Hook>,
    /// After the container is deleted; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub poststop: Vec<Hook>,
}

/// One program of a hook list; it gets the container's state on its stdin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path.
    pub path: String,
    /// argv including argv[0]; the path alone when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// The whole environment.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Seconds after which it is killed and counts as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// The container's state as hooks and `state` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`; runtimes add `paused`.
    pub status: String,
    /// Process id on the host; absent or 0 once stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// As in the config.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// Takes `null` for the default value.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// For `skip_serializing_if`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_unknown_fields_and_absence_are_accepted() {
        let text = r#"{"ociVersion":"1.2.0","process":{"cwd":"/","args":null,"new":1,
            "user":{"uid":1,"gid":2,"additionalGids":[3],"umask":18}},
            "mounts":null,"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/n"}],
            "resources":{"memory":{"limit":-1},"unified":{"a":"b"}},"future":{}}}"#;
        let spec: RuntimeSpec = serde_json::from_str(text).unwrap();
        let process = spec.process.as_ref().unwrap();
        assert_eq!(process.user.additional_gids, [3]);
        assert_eq!(process.user.umask, Some(18));
        assert!(process.args.is_empty());
        let linux = spec.linux.as_ref().unwrap();
        assert_eq!(linux.namespaces[1].kind, NamespaceKind::Network);
        assert_eq!(linux.resources.as_ref().unwrap().memory.as_ref().unwrap().limit, Some(-1));
        let again: RuntimeSpec =
            serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(spec, again);
    }

    #[test]
    fn an_unknown_namespace_is_an_error() {
        assert!(serde_json::from_str::<Namespace>(r#"{"type":"astral"}"#).is_err());
    }

    #[test]
    fn an_empty_spec_serialises_to_its_version_only() {
        let spec = RuntimeSpec { oci_version: "1.2.0".into(), ..RuntimeSpec::default() };
        assert_eq!(serde_json::to_string(&spec).unwrap(), r#"{"ociVersion":"1.2.0"}"#);
    }
}
