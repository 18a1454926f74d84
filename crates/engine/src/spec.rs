//! What a user asked for, as the engine understands it: the validated domain
//! shape between Docker's wire JSON (the `server` crate converts) and the kernel.
//!
//! Records on disk embed these types, so a field is only ever added with
//! `#[serde(default)]`. No Docker JSON name is known here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A container as asked for, before the image's defaults are merged in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The wanted name without a leading slash; a name is made up when absent.
    pub name: Option<String>,
    /// The image as the user wrote it.
    pub image: String,
    /// What runs and how.
    pub process: ProcessSpec,
    /// The container's own host name; the short id when absent.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// User labels; never read as control keys.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations, shown and passed on, never acted on.
    pub annotations: BTreeMap<String, String>,
    /// Signal number that asks the process to end; SIGTERM when absent.
    pub stop_signal: Option<i32>,
    /// Seconds between the stop signal and SIGKILL; 10 when absent, negative waits for ever.
    pub stop_timeout_s: Option<i64>,
    /// Remove the container when it stops.
    pub auto_remove: bool,
    /// What to do when it exits.
    pub restart: RestartPolicy,
    /// Mounts of every kind, in the order asked for.
    pub mounts: Vec<MountSpec>,
    /// Paths that get an anonymous volume (from the request; the image's are added at create).
    pub anonymous_volumes: Vec<String>,
    /// Names of containers to take the mounts of, each with an optional `:ro`.
    pub volumes_from: Vec<String>,
    /// Network side.
    pub network: NetworkSpec,
    /// Isolation and privilege.
    pub security: SecuritySpec,
    /// Limits.
    pub resources: Resources,
    /// Where the output goes.
    pub log: LogSpec,
    /// Bytes of /dev/shm; 64 MiB when absent.
    pub shm_size: Option<u64>,
    /// Run a tiny init as pid 1.
    pub init: bool,
    /// Kernel parameters to set in the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Devices of the host to give.
    pub devices: Vec<DeviceSpec>,
    /// Extra device cgroup rules, such as `c 10:200 rwm`.
    pub device_rules: Vec<String>,
    /// What the client sent, kept only to be shown again by inspect; the engine never reads it.
    pub echo: serde_json::Value,
}

/// The main process and its standard streams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Replaces the image's entrypoint; `Some([])` or `Some([""])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub cmd: Option<Vec<String>>,
    /// `KEY=VALUE`, or `KEY` to remove one of the image's.
    pub env: Vec<String>,
    /// Working directory inside the container.
    pub working_dir: Option<String>,
    /// `user[:group]`, names or numbers; the image's when empty.
    pub user: String,
    /// Extra groups, names or numbers.
    pub group_add: Vec<String>,
    /// A pseudo-terminal instead of three pipes.
    pub tty: bool,
    /// Keep stdin open even when nobody is attached.
    pub open_stdin: bool,
    /// Close stdin after the first attached client has left.
    pub stdin_once: bool,
    /// Initial terminal size: rows, columns.
    pub console_size: Option<(u16, u16)>,
}

/// When a stopped container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Always, also when the daemon starts.
    Always,
    /// Always, unless the user stopped it.
    UnlessStopped,
    /// On a non-zero exit, at most so many times in a row (0: no bound).
    OnFailure(u32),
}

/// One mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountSpec {
    /// Which kind.
    pub kind: MountKind,
    /// Absolute path inside the container.
    pub target: String,
    /// Read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// The kinds of mount and what each needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute host path.
        source: String,
        /// Make the host directory when it is missing (`-v` does, `--mount` does not).
        create: bool,
        /// `rprivate` (default), `rslave`, `rshared`, …
        propagation: Option<String>,
        /// Also what is mounted below.
        recursive: bool,
    },
    /// A volume; anonymous when it has no name.
    Volume {
        /// Name, or none for an anonymous one.
        name: Option<String>,
        /// Do not copy what the image has at the target into an empty volume.
        no_copy: bool,
        /// Sub directory of the volume.
        subpath: Option<String>,
        /// Driver options for a volume that is made now.
        options: BTreeMap<String, String>,
        /// Labels for a volume that is made now.
        labels: BTreeMap<String, String>,
    },
    /// Memory.
    Tmpfs {
        /// Mount options such as `size=64m,mode=1777`.
        options: String,
    },
}

/// Networks, names and ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// Which network namespace and network.
    pub mode: NetworkMode,
    /// Ports the container says it serves, `80/tcp`.
    pub exposed: Vec<Port>,
    /// Ports published on the host.
    pub published: Vec<PublishSpec>,
    /// Publish every exposed port on a free host port.
    pub publish_all: bool,
    /// Name servers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// resolv.conf options.
    pub dns_options: Vec<String>,
    /// `name:ip` lines for /etc/hosts (`host-gateway` allowed as the ip).
    pub extra_hosts: Vec<String>,
    /// Other names of this container on its network.
    pub aliases: Vec<String>,
    /// A fixed IPv4 address.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// A fixed MAC address.
    pub mac: Option<String>,
}

/// Where a container's network comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Default,
    /// A network by name or id.
    Named(String),
    /// The host's own stack.
    Host,
    /// Loopback only.
    None,
    /// Another container's stack.
    Container(String),
}

/// Transport protocols that can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A port to publish.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishSpec {
    /// The container's port.
    pub port: Port,
    /// Host address; every address when absent.
    pub host_ip: Option<IpAddr>,
    /// First host port; 0 takes a free one.
    pub host_port: u16,
    /// Last host port of a range to choose from; equals `host_port` for a single port.
    pub host_port_end: u16,
}

/// Isolation and privilege.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SecuritySpec {
    /// All capabilities and devices, no masks, the host's user namespace.
    pub privileged: bool,
    /// Capabilities to add, upper case with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Which seccomp profile.
    pub seccomp: SeccompSpec,
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// AppArmor profile name.
    pub apparmor: Option<String>,
    /// Read-only root.
    pub read_only_rootfs: bool,
    /// Paths hidden; the default list when absent.
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only; the default list when absent.
    pub read_only_paths: Option<Vec<String>>,
    /// pid namespace.
    pub pid: NamespaceMode,
    /// ipc namespace.
    pub ipc: NamespaceMode,
    /// uts namespace.
    pub uts: NamespaceMode,
    /// user namespace.
    pub user: NamespaceMode,
    /// cgroup namespace.
    pub cgroup: NamespaceMode,
}

/// One namespace: own, the host's, or another container's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container.
    Container(String),
}

/// The seccomp profile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum SeccompSpec {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// Limits; absent means unlimited or the kernel's default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 unlimited.
    pub memory_swap: Option<i64>,
    /// Bytes, soft limit.
    pub memory_reservation: Option<u64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// 10^-9 cpus.
    pub nano_cpus: Option<u64>,
    /// Relative weight, 1024 is one.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds per period; -1 unlimited.
    pub cpu_quota: Option<i64>,
    /// Cpus, as `0-1,3`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; 0 or negative is unlimited.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Do not kill when out of memory (v1 only).
    pub oom_kill_disable: bool,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// rlimits.
    pub ulimits: Vec<Ulimit>,
    /// Parent cgroup.
    pub cgroup_parent: Option<String>,
}

/// One rlimit; -1 is unlimited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`, such as `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// Where standard output and error go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// `json-file` (default when empty), `local`, `none`.
    pub driver: String,
    /// Driver options such as `max-size`.
    pub options: BTreeMap<String, String>,
}

/// A device of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Host path.
    pub host_path: String,
    /// Container path.
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// A further process in a running container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Command and arguments, not empty.
    pub cmd: Vec<String>,
    /// Extra environment.
    pub env: Vec<String>,
    /// `user[:group]`; the container's when empty.
    pub user: String,
    /// Working directory; the container's when absent.
    pub working_dir: Option<String>,
    /// A pseudo-terminal.
    pub tty: bool,
    /// Give it a stdin.
    pub attach_stdin: bool,
    /// Give back its stdout.
    pub attach_stdout: bool,
    /// Give back its stderr.
    pub attach_stderr: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Initial terminal size: rows, columns.
    pub console_size: Option<(u16, u16)>,
    /// Keys that detach, as the client wrote them.
    pub detach_keys: Option<String>,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}
