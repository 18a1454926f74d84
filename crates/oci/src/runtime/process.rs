//! `process` of a runtime spec: program, identity, limits and scheduling.

use serde::{Deserialize, Serialize};

use super::{is_false, nullable};

/// A process in a container: the main one or an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// A pseudo-terminal on stdin, stdout and stderr.
    #[serde(skip_serializing_if = "is_false")]
    pub terminal: bool,
    /// Initial size of the terminal, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    pub user: User,
    /// argv; the first is looked up in PATH when it has no slash.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// `KEY=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Absolute working directory inside the container.
    pub cwd: String,
    /// Capability sets; all empty when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub rlimits: Vec<Rlimit>,
    /// Set no_new_privs.
    #[serde(skip_serializing_if = "is_false")]
    pub no_new_privileges: bool,
    /// AppArmor profile to exec into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// SELinux label to exec into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// I/O scheduling class and priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPU scheduling policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// CPUs of an exec before and after it joins the cgroup.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// Ids inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// File mode creation mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
    /// Not used on Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// The five capability sets, names with `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Upper bound of what exec can give.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    /// What is in force.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub effective: Vec<String>,
    /// What is kept over exec of a file with inheritable capabilities.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    /// What may be put in force.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    /// What exec of any file keeps.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the kernel enforces; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Ceiling of the soft limit.
    pub hard: u64,
}

/// I/O scheduling of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// Class.
    pub class: IoPriorityClass,
    /// 0 (highest) to 7.
    #[serde(default)]
    pub priority: i32,
}

/// I/O scheduling classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoPriorityClass {
    /// Real time.
    #[serde(rename = "IOPRIO_CLASS_RT")]
    RealTime,
    /// Best effort.
    #[serde(rename = "IOPRIO_CLASS_BE")]
    BestEffort,
    /// Only when nobody else wants the disk.
    #[serde(rename = "IOPRIO_CLASS_IDLE")]
    Idle,
}

/// CPU scheduling of a process, as sched_setattr(2) takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_OTHER`, `SCHED_FIFO`, …
    pub policy: String,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// `SCHED_FLAG_…`
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub flags: Vec<String>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<u64>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
}

/// CPUs of an exec, as lists like `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Before it joins the container's cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// After that.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}
