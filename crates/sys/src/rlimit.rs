//! Resource limits of processes: names and prlimit(2).
//!
//! Names are accepted as `RLIMIT_NOFILE` and as `nofile`, in any case.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{Error, Result};

/// A resource that can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(Resource);

/// Short names in the kernel's order of numbers.
const NAMES: [(&str, Resource); 16] = [
    ("cpu", Resource::Cpu),
    ("fsize", Resource::Fsize),
    ("data", Resource::Data),
    ("stack", Resource::Stack),
    ("core", Resource::Core),
    ("rss", Resource::Rss),
    ("nproc", Resource::Nproc),
    ("nofile", Resource::Nofile),
    ("memlock", Resource::Memlock),
    ("as", Resource::As),
    ("locks", Resource::Locks),
    ("sigpending", Resource::Sigpending),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
];

impl Limit {
    /// `RLIMIT_NOFILE` or `nofile`, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let short = lower.strip_prefix("rlimit_").unwrap_or(&lower);
        NAMES.iter().find(|(known, _)| *known == short).map(|(_, resource)| Self(*resource))
    }

    /// The short lower-case name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, resource)| *resource == self.0).map_or("unknown", |(name, _)| name)
    }

    /// Sets soft and hard limit of `pid`, or of the caller; `u64::MAX` is unlimited. prlimit(2).
    pub fn set(self, pid: Option<u32>, soft: u64, hard: u64) -> Result<()> {
        let limited = |value: u64| (value != u64::MAX).then_some(value);
        let new = Rlimit { current: limited(soft), maximum: limited(hard) };
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        prlimit(pid, self.0, new)
            .map(drop)
            .map_err(|errno| Error::new("prlimit", format!("{} {soft}:{hard}", self.name()), errno))
    }

    /// Soft and hard limit of the caller; `u64::MAX` is unlimited.
    pub fn get(self) -> (u64, u64) {
        let now = rustix::process::getrlimit(self.0);
        (now.current.unwrap_or(u64::MAX), now.maximum.unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_name_are_known() {
        for (name, resource) in NAMES {
            assert_eq!(Limit::parse(name), Some(Limit(resource)));
            let long = format!("RLIMIT_{}", name.to_ascii_uppercase());
            assert_eq!(Limit::parse(&long).map(Limit::name), Some(name));
        }
        assert_eq!(Limit::parse("RLIMIT_BANANA"), None);
        assert_eq!(Limit::parse(""), None);
    }

    #[test]
    fn a_limit_can_be_set_to_what_it_is() {
        let core = Limit::parse("core").unwrap();
        let (soft, hard) = core.get();
        core.set(None, soft, hard).unwrap();
        assert_eq!(core.get(), (soft, hard));
    }
}
