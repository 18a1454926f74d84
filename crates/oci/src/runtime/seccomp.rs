//! `linux.seccomp` of a runtime spec: a syscall filter as rules by name.
//!
//! Names and architectures stay text: which of them exist depends on the machine,
//! and an unknown one is no error.

use serde::{Deserialize, Serialize};

use super::nullable;

/// A syscall filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// For a syscall that no rule matches.
    pub default_action: SeccompAction,
    /// errno (or trace message) of the default action; EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`; the machine's own when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub flags: Vec<String>,
    /// Socket of the agent that gets the notify descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// Text for that agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// The rules.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub syscalls: Vec<SyscallRule>,
}

/// What to do about some syscalls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    /// Syscall names.
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// What to do.
    pub action: SeccompAction,
    /// errno (or trace message); EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions that must all hold; with the same argument twice, one of them must.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub args: Vec<Arg>,
}

/// A condition on one argument, always on all of its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// 0 to 5.
    pub index: u32,
    /// What to compare with; the mask of `MaskedEq`.
    pub value: u64,
    /// What the masked argument must equal, for `MaskedEq`.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Op,
}

/// Comparisons, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// `!=`
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    /// `<`
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    /// `<=`
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    /// `==`
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    /// `>=`
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    /// `>`
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// `arg & value == value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

/// What the kernel does with a syscall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeccompAction {
    /// Kill the thread (the specification's `SCMP_ACT_KILL` is this).
    #[serde(rename = "SCMP_ACT_KILL_THREAD", alias = "SCMP_ACT_KILL")]
    KillThread,
    /// Kill the process.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Fail with an errno.
    #[default]
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Ask the tracer.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// Let it pass.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Let it pass and log it.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Ask the agent behind `listener_path`.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}
