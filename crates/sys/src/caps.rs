//! Capability sets: names, bits, and applying them to the calling thread.
//!
//! A capability that this kernel doesn't know is skipped where it is taken away
//! and an error where it is given. Which set holds what is decided elsewhere.

use std::fmt;

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::{Error, Result};

/// A set of capabilities, one bit each, as capabilities(7) numbers them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapSet(u64);

/// Names in the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability that has a name here.
    pub const NAMED: Self = Self((1 << NAMES.len()) - 1);

    /// The set of the one capability called `name`: any case, with or without `CAP_`.
    pub fn parse(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == short).map(|number| Self(1 << number))
    }

    /// From the kernel's bit mask.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's bit mask.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is here and not there.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Every member of `other` is here.
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// No member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, each as a set of one.
    pub fn iter(self) -> impl Iterator<Item = Self> {
        (0..64).map(|number| Self(1 << number)).filter(move |one| self.contains(*one))
    }

    /// `CAP_…` names of the members, in the order of their numbers.
    pub fn names(self) -> Vec<String> {
        NAMES
            .iter()
            .enumerate()
            .filter(|(number, _)| self.0 >> number & 1 == 1)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect()
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapSet({:#x} {})", self.0, self.names().join(","))
    }
}

/// The sets that capset(2) sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadCaps {
    /// In force.
    pub effective: CapSet,
    /// May be put in force.
    pub permitted: CapSet,
    /// Kept over exec of a file that has them inheritable.
    pub inheritable: CapSet,
}

/// The calling thread's sets. capget(2).
pub fn current() -> Result<ThreadCaps> {
    let sets =
        thread::capabilities(None).map_err(|errno| Error::new("capget", "this thread", errno))?;
    Ok(ThreadCaps {
        effective: CapSet(sets.effective.bits()),
        permitted: CapSet(sets.permitted.bits()),
        inheritable: CapSet(sets.inheritable.bits()),
    })
}

/// Sets effective, permitted and inheritable of the calling thread. capset(2).
pub fn set(caps: ThreadCaps) -> Result<()> {
    let bits = |set: CapSet| CapabilitySet::from_bits_retain(set.0);
    let sets = CapabilitySets {
        effective: bits(caps.effective),
        permitted: bits(caps.permitted),
        inheritable: bits(caps.inheritable),
    };
    thread::set_capabilities(None, sets)
        .map_err(|errno| Error::new("capset", format!("{caps:?}"), errno))
}

/// The calling thread's bounding set; bits that the kernel doesn't know are absent.
pub fn bounding() -> Result<CapSet> {
    let mut found = CapSet::EMPTY;
    for one in CapSet::from_bits(u64::MAX).iter() {
        match thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(one.0)) {
            Ok(true) => found = found.union(one),
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(Error::new("PR_CAPBSET_READ", format!("{one:?}"), errno)),
        }
    }
    Ok(found)
}

/// Drops everything but `keep` from the calling thread's bounding set, for ever. Needs
/// CAP_SETPCAP, so it comes before [`set`].
pub fn limit_bounding(keep: CapSet) -> Result<()> {
    for one in CapSet::from_bits(u64::MAX).without(keep).iter() {
        match thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one.0)) {
            Ok(()) => {}
            // Numbers are dense: the first that this kernel doesn't know ends them.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(Error::new("PR_CAPBSET_DROP", format!("{one:?}"), errno)),
        }
    }
    Ok(())
}

/// Makes `wanted` the calling thread's ambient set; each must be permitted and inheritable.
pub fn set_ambient(wanted: CapSet) -> Result<()> {
    thread::clear_ambient_capability_set()
        .map_err(|errno| Error::new("PR_CAP_AMBIENT_CLEAR_ALL", "this thread", errno))?;
    for one in wanted.iter() {
        thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(one.0), true)
            .map_err(|errno| Error::new("PR_CAP_AMBIENT_RAISE", format!("{one:?}"), errno))?;
    }
    Ok(())
}

/// Keeps the permitted set when the thread gives up uid 0; exec resets it. prctl(2).
pub fn keep_over_setuid(keep: bool) -> Result<()> {
    thread::set_keep_capabilities(keep).map_err(|errno| Error::new("PR_SET_KEEPCAPS", keep, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_in_every_form() {
        let admin = CapSet::parse("CAP_SYS_ADMIN").unwrap();
        assert_eq!(admin.bits(), 1 << 21);
        assert_eq!(CapSet::parse("sys_admin"), Some(admin));
        assert_eq!(CapSet::parse("SYS_ADMIN"), Some(admin));
        assert_eq!(CapSet::parse("CAP_NONSENSE"), None);
        assert_eq!(CapSet::parse("CAP_CHECKPOINT_RESTORE").unwrap().bits(), 1 << 40);
    }

    #[test]
    fn names_give_the_set_back() {
        let again = CapSet::NAMED
            .names()
            .iter()
            .filter_map(|name| CapSet::parse(name))
            .fold(CapSet::EMPTY, CapSet::union);
        assert_eq!(again, CapSet::NAMED);
        assert_eq!(CapSet::NAMED.iter().count(), NAMES.len());
    }

    #[test]
    fn a_thread_can_lose_its_bounding_set() {
        // A thread of its own: capabilities belong to threads.
        std::thread::spawn(|| {
            let keep = CapSet::parse("CHOWN").unwrap();
            if !current().unwrap().effective.contains(CapSet::parse("SETPCAP").unwrap()) {
                return;
            }
            limit_bounding(keep).unwrap();
            assert_eq!(bounding().unwrap(), keep);
        })
        .join()
        .unwrap();
    }
}
