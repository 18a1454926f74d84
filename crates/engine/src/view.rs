//! What the engine shows of its objects: snapshots, never live references.
//!
//! The server turns them into Docker's JSON. Times are nanoseconds since the
//! Unix epoch; 0 means never.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use bytes::Bytes;
use capsa_oci::{Digest, ImageConfig};
use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, ExecSpec, Port};

/// Where a container is in its life (design: Creating, Created, Running, Paused, Stopped, Removing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its files are being made.
    Creating,
    /// It can be started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended; it waits for the restart policy's next try when `restarting` says so.
    Stopped,
    /// Its files are being removed.
    Removing,
}

/// A container at one moment.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// 64 hex digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// As asked for.
    pub spec: ContainerSpec,
    /// With the image's defaults merged in.
    pub resolved: Resolved,
    /// The image's id (the digest of its config).
    pub image_id: Digest,
    /// When it was created.
    pub created_ns: i64,
    /// Where it is in its life.
    pub phase: Phase,
    /// The restart policy is about to start it again.
    pub restarting: bool,
    /// Pid on the host, 0 when not running.
    pub pid: u32,
    /// Last exit code.
    pub exit_code: i32,
    /// The last exit was by the OOM killer.
    pub oom_killed: bool,
    /// Why the last start failed.
    pub error: String,
    /// Last start.
    pub started_ns: i64,
    /// Last end.
    pub finished_ns: i64,
    /// Starts by the restart policy.
    pub restart_count: u32,
    /// Network attachments, the first is the one that published ports use.
    pub endpoints: Vec<EndpointView>,
    /// Published ports as bound.
    pub ports: Vec<PortBinding>,
    /// Mounts as made.
    pub mounts: Vec<MountView>,
    /// json-file log, empty when the driver keeps none.
    pub log_path: PathBuf,
    /// First host uid of the container's id range; absent in the host's user namespace.
    pub id_range: Option<u32>,
    /// hosts, hostname and resolv.conf on the host.
    pub files: NetworkFiles,
    /// Ids of running execs.
    pub exec_ids: Vec<String>,
    /// Bytes of the writable layer and of everything, when asked for.
    pub size: Option<SizeView>,
}

/// The spec after the image's defaults: what will run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolved {
    /// Program.
    pub path: String,
    /// Arguments after the program.
    pub args: Vec<String>,
    /// Merged environment.
    pub env: Vec<String>,
    /// Merged entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Merged command.
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: String,
    /// `user[:group]`.
    pub user: String,
    /// Image labels under the request's.
    pub labels: BTreeMap<String, String>,
    /// Image's and request's.
    pub exposed: Vec<Port>,
    /// Volume paths of image and request.
    pub volumes: Vec<String>,
    /// Signal number.
    pub stop_signal: i32,
    /// Host name.
    pub hostname: String,
}

/// Files that the network side provides.
#[derive(Clone, Debug, Default)]
pub struct NetworkFiles {
    /// /etc/hosts
    pub hosts: PathBuf,
    /// /etc/hostname
    pub hostname: PathBuf,
    /// /etc/resolv.conf
    pub resolv_conf: PathBuf,
}

/// One attachment to one network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointView {
    /// Network's name.
    pub network: String,
    /// Network's id.
    pub network_id: String,
    /// Endpoint's id.
    pub id: String,
    /// Address, absent while not running.
    pub ipv4: Option<Ipv4Addr>,
    /// Prefix length of the network.
    pub prefix: u8,
    /// Gateway.
    pub gateway: Option<Ipv4Addr>,
    /// `02:42:…`
    pub mac: String,
    /// Other names.
    pub aliases: Vec<String>,
}

/// A published port as bound.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortBinding {
    /// Container's port.
    pub port: Port,
    /// Host address (0.0.0.0 for every address).
    pub host_ip: IpAddr,
    /// Host port.
    pub host_port: u16,
}

/// A mount as made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountView {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// Volume name, empty otherwise.
    pub name: String,
    /// Host path.
    pub source: String,
    /// Container path.
    pub target: String,
    /// Writable.
    pub read_write: bool,
    /// `rprivate`, …
    pub propagation: String,
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SizeView {
    /// Writable layer.
    pub writable: u64,
    /// Writable layer and image.
    pub total: u64,
}

/// An image at one moment.
#[derive(Clone, Debug)]
pub struct ImageView {
    /// Image id: the digest of its config.
    pub id: Digest,
    /// `name:tag`, familiar form.
    pub tags: Vec<String>,
    /// `name@sha256:…`, familiar form.
    pub digests: Vec<String>,
    /// The config.
    pub config: ImageConfig,
    /// Bytes unpacked.
    pub size: u64,
    /// Containers that use it.
    pub containers: usize,
    /// When it was last tagged.
    pub last_tagged_ns: i64,
    /// Parent image id, where known.
    pub parent: Option<Digest>,
}

/// An exec at one moment.
#[derive(Clone, Debug)]
pub struct ExecView {
    /// 64 hex digits.
    pub id: String,
    /// Its container's id.
    pub container: String,
    /// As asked for.
    pub spec: ExecSpec,
    /// Runs now.
    pub running: bool,
    /// Absent until it has ended.
    pub exit_code: Option<i32>,
    /// Host pid, 0 before its start.
    pub pid: u32,
}

/// A volume at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeView {
    /// Name.
    pub name: String,
    /// Where its files are.
    pub mountpoint: PathBuf,
    /// Creation.
    pub created_ns: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Made without a name.
    pub anonymous: bool,
}

/// A network at one moment.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// Name.
    pub name: String,
    /// 64 hex digits.
    pub id: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Subnet in CIDR form, absent for host and none.
    pub subnet: Option<String>,
    /// Gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Bridge device.
    pub bridge: Option<String>,
    /// No way out.
    pub internal: bool,
    /// Creation.
    pub created_ns: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Attached containers: id, name, endpoint.
    pub containers: Vec<(String, String, EndpointView)>,
}

/// How a container ended.
#[derive(Clone, Debug)]
pub struct ExitView {
    /// Exit code as Docker's: 128+n for signal n.
    pub code: i32,
    /// Why the wait could not be ended as asked; an exit is no error.
    pub error: Option<String>,
}

/// Something that happened, as `docker events` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `volume`, `network`, `daemon`.
    pub kind: String,
    /// `create`, `start`, `die`, …
    pub action: String,
    /// Object's id or name.
    pub id: String,
    /// Attributes (name, image, exitCode, labels …).
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time_ns: i64,
}

/// A change in a container's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Content or attributes differ.
    Modified,
    /// New.
    Added,
    /// Gone.
    Deleted,
}

/// Metadata of one path in a container (`docker cp`).
#[derive(Clone, Debug)]
pub struct PathStat {
    /// Base name.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// st_mode.
    pub mode: u32,
    /// Modification time.
    pub mtime_ns: i64,
    /// Target of a symbolic link.
    pub link_target: String,
}

/// Bytes that arrive over time, produced by a blocking task; dropping it stops the producer.
pub type ByteStream = tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>;

/// Bytes that a client uploads, read by a blocking task.
pub type ByteSource = Box<dyn std::io::Read + Send>;

/// One line of progress of a load, import or pull; the server renders it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Layer or image, empty for a plain line.
    pub id: String,
    /// What goes on, such as `Loading layer`.
    pub status: String,
    /// Bytes so far and in all, when counted.
    pub counted: Option<(u64, u64)>,
    /// A line of plain output (`Loaded image: x`), when it is one.
    pub stream: Option<String>,
    /// What was pushed, when that is told.
    pub pushed: Option<PushedView>,
}

/// An image that a registry has now.
#[derive(Clone, Debug)]
pub struct PushedView {
    /// Its tag there.
    pub tag: String,
    /// Of its manifest.
    pub digest: capsa_oci::Digest,
    /// Bytes of its manifest.
    pub size: u64,
}

/// Where progress goes.
pub type ProgressSink = tokio::sync::mpsc::UnboundedSender<Progress>;

/// What a registry has for a reference.
#[derive(Clone, Debug)]
pub struct DistributionView {
    /// Of the manifest, or of the index if there is one.
    pub descriptor: capsa_oci::Descriptor,
    /// Those that it is for.
    pub platforms: Vec<capsa_oci::Platform>,
}
