//! Syscall filters: from a profile by name to a program for the kernel.
//!
//! What overlapping rules mean: a rule without conditions decides its call, and the
//! first such rule counts; otherwise the first rule whose conditions hold decides; no
//! rule means the default action. A rule that says what the default says has no effect.
//! A call that is newer than every name in the profile answers ENOSYS instead of a
//! forbidding default, so that programs fall back to an older one, and an x32 call
//! always answers ENOSYS. A call by an architecture that the profile doesn't list kills
//! the process.

mod arch;
mod docker;
mod names;
mod program;
#[cfg(test)]
mod tests;

use capsa_oci::runtime::{Seccomp, SeccompAction, SyscallRule};
use capsa_sys::seccomp::{Flags, MAX_INSTRUCTIONS};

use crate::{Error, Result};
use arch::Arch;
use program::{Alternative, Condition, Section, Verdict};

pub use docker::{Facts, docker_default, from_docker_json};

const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const MAX_ERRNO: u32 = 4095;

/// The program for `profile`: `sock_filter` records for [`capsa_sys::seccomp::load`].
pub fn compile(profile: &Seccomp) -> Result<Vec<u8>> {
    let default = return_value(profile.default_action, profile.default_errno_ret)?;
    let sections: Vec<_> = architectures(profile)
        .into_iter()
        .map(|arch| section(profile, arch, default))
        .collect::<Result<_>>()?;
    let program = program::assemble(&sections, KILL_PROCESS);
    match program.len() / 8 {
        0..=MAX_INSTRUCTIONS => Ok(program),
        many => Err(invalid(format!("{many} instructions; the kernel takes {MAX_INSTRUCTIONS}"))),
    }
}

/// The load options that `profile` asks for.
pub fn flags(profile: &Seccomp) -> Result<Flags> {
    let mut flags = Flags { new_listener: profile.listener_path.is_some(), ..Flags::default() };
    for name in &profile.flags {
        match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => flags.tsync = true,
            "SECCOMP_FILTER_FLAG_LOG" => flags.log = true,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags.spec_allow = true,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => flags.wait_killable = true,
            other => return Err(invalid(format!("flag {other:?} is not known"))),
        }
    }
    Ok(flags)
}

/// The native architecture, and the others of the profile that this machine runs.
fn architectures(profile: &Seccomp) -> Vec<Arch> {
    let mut found = vec![Arch::NATIVE];
    for arch in profile.architectures.iter().filter_map(|name| Arch::parse(name)) {
        if !found.contains(&arch) {
            found.push(arch);
        }
    }
    found
}

/// All verdicts of one architecture, as ranges.
fn section(profile: &Seccomp, arch: Arch, default: u32) -> Result<Section> {
    let mut calls =
        Calls { arch, default, ordinary: Vec::new(), special: Vec::new(), newest: None };
    for rule in &profile.syscalls {
        calls.add(rule)?;
    }
    Ok(Section { token: arch.token(), ranges: calls.ranges() })
}

/// The calls of one architecture that some rule names.
struct Calls {
    arch: Arch,
    default: u32,
    /// By number; calls have small and dense numbers.
    ordinary: Vec<Option<Verdict>>,
    /// Those that don't, in no order.
    special: Vec<(u32, Option<Verdict>)>,
    newest: Option<u32>,
}

impl Calls {
    fn add(&mut self, rule: &SyscallRule) -> Result<()> {
        let value = return_value(rule.action, rule.errno_ret)?;
        if let Some(arg) = rule.args.iter().find(|arg| arg.index > 5) {
            return Err(invalid(format!("argument {} of {:?}", arg.index, rule.names)));
        }
        for name in &rule.names {
            if let Some(number) = names::number(name, self.arch) {
                if number < self.arch.special_from() {
                    self.newest = self.newest.max(Some(number));
                }
                if value != self.default {
                    self.decide(number, alternatives(name, rule, value), value);
                }
            }
            if self.arch == Arch::X86 && value != self.default && rule.args.is_empty() {
                self.add_multiplexed(name, value);
            }
        }
        Ok(())
    }

    /// No alternatives: always `value`.
    fn decide(&mut self, number: u32, alternatives: Vec<Alternative>, value: u32) {
        let default = self.default;
        let present = self.verdict(number);
        if alternatives.is_empty() {
            // The first rule without conditions stays, those with conditions go.
            if !matches!(present, Some(Verdict::Return(_))) {
                *present = Some(Verdict::Return(value));
            }
            return;
        }
        let tests = present.get_or_insert_with(|| Verdict::Tests(Vec::new(), default));
        if let Verdict::Tests(list, _) = tests {
            list.extend(alternatives);
        }
    }

    fn verdict(&mut self, number: u32) -> &mut Option<Verdict> {
        let at = number as usize;
        if number >= self.arch.special_from() {
            let at = self.special.iter().position(|(n, _)| *n == number);
            let at = at.unwrap_or(self.special.len());
            if at == self.special.len() {
                self.special.push((number, None));
            }
            return &mut self.special[at].1;
        }
        if at >= self.ordinary.len() {
            self.ordinary.resize(at + 1, None);
        }
        &mut self.ordinary[at]
    }

    fn add_multiplexed(&mut self, name: &str, value: u32) {
        let Some((multiplexer, call)) = arch::multiplexed(name) else { return };
        let Some(number) = names::number(multiplexer, self.arch) else { return };
        let arg = capsa_oci::runtime::Arg {
            index: 0,
            value: call,
            value_two: 0,
            op: capsa_oci::runtime::Op::Eq,
        };
        let conditions = vec![Condition { arg, narrow: true }];
        self.decide(number, vec![Alternative { conditions, value }], value);
    }

    /// Neighbours with one verdict merged; everything from 0 to the last number is covered.
    fn ranges(self) -> Vec<(u32, Verdict)> {
        let Self { arch, default, ordinary, mut special, newest } = self;
        special.sort_unstable_by_key(|(number, _)| *number);
        let verdicts = (0..).zip(ordinary).chain(special);
        let verdicts = verdicts.filter_map(|(number, verdict)| Some((number, verdict?)));
        // Without a name that is known here, nothing can be called newer.
        let newest = newest.unwrap_or(u32::MAX);
        let beyond = if forbids(default) { ERRNO | ENOSYS } else { default };
        let gap = |from: u32| {
            let value = match (from > newest, from >= arch.special_from()) {
                (_, true) if arch == Arch::X86_64 => ERRNO | ENOSYS,
                (true, _) => beyond,
                (false, _) => default,
            };
            Verdict::Return(value)
        };
        let mut ranges: Vec<(u32, Verdict)> = Vec::with_capacity(128);
        let mut put = |from: u32, verdict: Verdict| {
            if ranges.last().is_none_or(|(_, last)| *last != verdict) {
                ranges.push((from, verdict));
            }
        };
        let mut next = 0;
        for (number, verdict) in verdicts {
            if number > next {
                put(next, gap(next));
                if (next..number).contains(&newest) {
                    put(newest + 1, gap(newest + 1));
                }
            }
            put(number, verdict);
            next = number + 1;
        }
        put(next, gap(next));
        if next <= newest && newest != u32::MAX {
            put(newest + 1, gap(newest + 1));
        }
        if arch == Arch::X86_64 {
            put(arch::X32_BIT, gap(arch::X32_BIT));
        }
        ranges
    }
}

/// What `rule` means for the call `name`: with one argument mentioned twice, each condition
/// stands for itself; otherwise all must hold. None for a rule without conditions.
fn alternatives(name: &str, rule: &SyscallRule, value: u32) -> Vec<Alternative> {
    let condition = |arg| Condition { arg, narrow: arch::is_narrow(name, arg.index) };
    let seen = |at: usize| rule.args[..at].iter().any(|arg| arg.index == rule.args[at].index);
    if (0..rule.args.len()).any(seen) {
        let single = |arg| Alternative { conditions: vec![condition(arg)], value };
        return rule.args.iter().copied().map(single).collect();
    }
    if rule.args.is_empty() {
        return Vec::new();
    }
    vec![Alternative { conditions: rule.args.iter().copied().map(condition).collect(), value }]
}

/// A default under which a program can't run calls that it doesn't know of.
fn forbids(default: u32) -> bool {
    !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE | NOTIFY)
}

fn return_value(action: SeccompAction, errno: Option<u32>) -> Result<u32> {
    let data = errno.unwrap_or(EPERM);
    if data > 0xffff || (action == SeccompAction::Errno && data > MAX_ERRNO) {
        return Err(invalid(format!("errnoRet {data} is out of range")));
    }
    Ok(match action {
        SeccompAction::KillThread => KILL_THREAD,
        SeccompAction::KillProcess => KILL_PROCESS,
        SeccompAction::Trap => TRAP,
        SeccompAction::Errno => ERRNO | data,
        SeccompAction::Trace => TRACE | data,
        SeccompAction::Allow => ALLOW,
        SeccompAction::Log => LOG,
        SeccompAction::Notify => NOTIFY,
    })
}

fn invalid(why: String) -> Error {
    Error::invalid("seccomp profile", why)
}
