//! What is kept of a container: one versioned record, stored as JSON.
//!
//! Never a wire type: the server converts the view made from it. A field is only
//! ever added with a default, so that an older record stays readable.

use std::path::PathBuf;

use capsa_oci::Digest;
use capsa_runtime::protocol::ExitRecord;
use serde::{Deserialize, Serialize};

use crate::network::Attachment;
use crate::spec::ContainerSpec;
use crate::view::{
    ContainerView, EndpointView, MountView, NetworkFiles, Phase, PortBinding, Resolved,
};

/// The layout of [`Record`]; raised when a field changes its meaning.
pub(crate) const VERSION: u32 = 1;

/// A container as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`VERSION`] at writing.
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// Image id.
    pub image: Digest,
    /// Creation.
    pub created_ns: i64,
    /// As asked for.
    pub spec: ContainerSpec,
    /// With the image's defaults.
    pub resolved: Resolved,
    /// Mounts as made at creation.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// First host id of its range.
    #[serde(default)]
    pub id_range: Option<u32>,
    /// What changes while it lives.
    pub live: Live,
}

/// What a start has taken of the host. Its monitor keeps it until the record says it too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    endpoints: Vec<EndpointView>,
    ports: Vec<PortBinding>,
}

/// The part of a record that changes with the container's life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Live {
    /// Where it is in its life.
    pub phase: Phase,
    /// Pid on the host, 0 when not running.
    #[serde(default)]
    pub pid: u32,
    /// Last exit code.
    #[serde(default)]
    pub exit_code: i32,
    /// The OOM killer ended it.
    #[serde(default)]
    pub oom_killed: bool,
    /// Why the last start failed.
    #[serde(default)]
    pub error: String,
    /// Last start.
    #[serde(default)]
    pub started_ns: i64,
    /// Last end.
    #[serde(default)]
    pub finished_ns: i64,
    /// Starts by the restart policy since the user's last start.
    #[serde(default)]
    pub restart_count: u32,
    /// The restart policy will start it again.
    #[serde(default)]
    pub restarting: bool,
    /// The user asked for its end, so the restart policy rests.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// Network attachments while it runs.
    #[serde(default)]
    pub endpoints: Vec<EndpointView>,
    /// Published ports while it runs.
    #[serde(default)]
    pub ports: Vec<PortBinding>,
}

/// A mount with its place on the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// How it is shown.
    pub view: MountView,
    /// Which file system it is.
    pub kind: MountSource,
}

/// What a mount shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MountSource {
    /// A path of the host (also a volume's).
    Bind {
        /// What is mounted below it too.
        recursive: bool,
    },
    /// Memory.
    Tmpfs {
        /// Mount options.
        options: String,
    },
}

impl Record {
    /// Volumes it uses, by name.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().map(|m| m.view.name.as_str()).filter(|name| !name.is_empty())
    }

    /// What callers see, given where its files are.
    pub(crate) fn view(&self, places: Places, exec_ids: Vec<String>) -> ContainerView {
        let live = &self.live;
        ContainerView {
            id: self.id.clone(),
            name: self.name.clone(),
            spec: self.spec.clone(),
            resolved: self.resolved.clone(),
            image_id: self.image.clone(),
            created_ns: self.created_ns,
            phase: live.phase,
            restarting: live.restarting,
            pid: live.pid,
            exit_code: live.exit_code,
            oom_killed: live.oom_killed,
            error: live.error.clone(),
            started_ns: live.started_ns,
            finished_ns: live.finished_ns,
            restart_count: live.restart_count,
            endpoints: live.endpoints.clone(),
            ports: live.ports.clone(),
            mounts: self.mounts.iter().map(|mount| mount.view.clone()).collect(),
            log_path: places.log,
            id_range: self.id_range,
            files: places.files,
            exec_ids,
            size: None,
        }
    }
}

impl Live {
    /// Its program runs since `at_ns`.
    pub(crate) fn begin(&mut self, pid: u32, at_ns: i64, note: Note) {
        self.phase = Phase::Running;
        self.pid = pid;
        self.started_ns = at_ns;
        self.exit_code = 0;
        self.oom_killed = false;
        self.error.clear();
        self.restarting = false;
        self.stopped_by_user = false;
        self.endpoints = note.endpoints;
        self.ports = note.ports;
    }

    /// Its program has ended.
    pub(crate) fn end(&mut self, exit: &ExitRecord) {
        self.phase = Phase::Stopped;
        self.pid = 0;
        self.exit_code = exit.code;
        self.oom_killed = exit.oom_killed;
        self.finished_ns = exit.finished_ns;
        self.endpoints.clear();
        self.ports.clear();
    }
}

impl Note {
    /// What a container has of the network.
    pub(crate) fn of(attachment: Option<&Attachment>) -> Self {
        attachment.map_or_else(Self::default, |attachment| Self {
            endpoints: attachment.endpoints(),
            ports: attachment.ports(),
        })
    }

    /// For its monitor to keep.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As its monitor kept it; nothing of what can't be read.
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            phase: Phase::Created,
            pid: 0,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_ns: 0,
            finished_ns: 0,
            restart_count: 0,
            restarting: false,
            stopped_by_user: false,
            endpoints: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// Where a container's own files are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// json-file log; empty when the driver keeps none.
    pub log: PathBuf,
    /// hosts, hostname, resolv.conf.
    pub files: NetworkFiles,
}
