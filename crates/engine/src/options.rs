//! Parameters of operations: what a caller may choose, with the defaults Docker has.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use capsa_image::registry::Credentials;
use capsa_oci::{Platform, Reference};

/// Where an engine lives and what its network is.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Permanent state; one daemon at a time.
    pub data_root: PathBuf,
    /// State that is gone after a reboot: sockets, monitors.
    pub exec_root: PathBuf,
    /// Address and prefix of the default bridge, such as `172.17.0.1/16`; chosen when absent.
    pub bip: Option<String>,
    /// Labels of this engine, shown by info.
    pub labels: Vec<String>,
    /// Log driver for containers that name none.
    pub log_driver: String,
    /// Its options.
    pub log_options: BTreeMap<String, String>,
    /// Name servers for containers that name none.
    pub dns: Vec<std::net::IpAddr>,
    /// Registries (`host[:port]`) and networks whose certificate need not be good, and which
    /// may be spoken to without TLS. Loopback always may.
    pub insecure_registries: Vec<String>,
    /// Registries and the base URLs tried before them, in order: a name, `*.example.com`, or
    /// `*` for all.
    pub registry_mirrors: Vec<(String, Vec<String>)>,
    /// When old images make room for new ones; never when absent.
    pub image_store: Option<ImageStoreMark>,
}

/// How large the store of images may get, and what may go then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageStoreMark {
    /// Bytes of blobs and layers.
    pub max_bytes: u64,
    /// Nanoseconds for which an image must not have been used.
    pub idle_ns: i64,
}

/// What to fetch from or send to a registry, and who asks.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// The image; without tag and digest, every tag of the repository.
    pub reference: Reference,
    /// The platform; this machine's when absent.
    pub platform: Option<Platform>,
    /// Who asks.
    pub credentials: Option<Credentials>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Not running now or later.
    #[default]
    NotRunning,
    /// The next exit, also when it does not run yet.
    NextExit,
    /// Its removal.
    Removed,
}

/// Which streams an attached client wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachOptions {
    /// Feed stdin.
    pub stdin: bool,
    /// See stdout.
    pub stdout: bool,
    /// See stderr.
    pub stderr: bool,
    /// Stay for what comes; without it only `logs` are shown.
    pub stream: bool,
    /// First show what was logged.
    pub logs: bool,
}

/// An attached client's end: raw bytes for a terminal, Docker's 8-byte frames otherwise.
#[derive(Debug)]
pub struct AttachStream {
    /// Raw bytes.
    pub tty: bool,
    /// Output comes out, stdin goes in; shutting down the write half ends stdin.
    pub io: crate::exec_io::Io,
}

/// Which log lines to show and how.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// stdout's lines.
    pub stdout: bool,
    /// stderr's lines.
    pub stderr: bool,
    /// Go on until the container ends.
    pub follow: bool,
    /// Only lines from this time on; 0 is the beginning.
    pub since_ns: i64,
    /// Only lines up to this time; 0 is for ever.
    pub until_ns: i64,
    /// Put the time in front.
    pub timestamps: bool,
    /// Put the attributes chosen by the log options in front.
    pub details: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
}

/// What commit makes of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// `name[:tag]` for the new image.
    pub reference: Option<String>,
    /// Author.
    pub author: String,
    /// Message.
    pub message: String,
    /// Dockerfile instructions applied to the config.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

/// A container just created.
#[derive(Clone, Debug)]
pub struct Created {
    /// 64 hex digits.
    pub id: String,
    /// What was not done as asked.
    pub warnings: Vec<String>,
}

/// A volume to create.
#[derive(Clone, Debug, Default)]
pub struct VolumeRequest {
    /// Name; made up when empty.
    pub name: String,
    /// Driver, `local` or empty.
    pub driver: String,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A network to create.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    /// Name.
    pub name: String,
    /// Driver, `bridge` or empty.
    pub driver: String,
    /// Subnet in CIDR form; chosen when absent.
    pub subnet: Option<String>,
    /// Gateway; the first address when absent.
    pub gateway: Option<String>,
    /// No way out.
    pub internal: bool,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// How a container joins a network.
#[derive(Clone, Debug, Default)]
pub struct ConnectRequest {
    /// A fixed address.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// Other names.
    pub aliases: Vec<String>,
}

/// What a prune took away.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Ids or names.
    pub removed: Vec<String>,
    /// Bytes given back.
    pub bytes: u64,
}

impl FromIterator<(String, u64)> for Pruned {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(items: I) -> Self {
        let mut pruned = Self::default();
        for (name, bytes) in items {
            pruned.removed.push(name);
            pruned.bytes += bytes;
        }
        pruned
    }
}

/// Facts about the engine and its host.
#[derive(Clone, Debug, Default)]
pub struct InfoView {
    /// Stable id of this engine.
    pub id: String,
    /// Containers by phase: running, paused, stopped (created and stopped ones).
    pub containers: (usize, usize, usize),
    /// Images.
    pub images: usize,
    /// Permanent state.
    pub data_root: PathBuf,
    /// `uname -r`.
    pub kernel: String,
    /// PRETTY_NAME of the host.
    pub operating_system: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Online cpus.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Host name.
    pub name: String,
    /// Labels of this engine.
    pub labels: Vec<String>,
    /// Log driver for containers that name none.
    pub log_driver: String,
    /// Whether containers get their own user namespace.
    pub user_namespaces: bool,
    /// Things the user should know.
    pub warnings: Vec<String>,
}
