//! Device access as a policy: a default, and exceptions from it.
//!
//! The rules of a spec come in order and override each other; this is the state
//! they lead to, by the semantics of the v1 controller. From the state come both
//! the lines for v1 and the program for v2, so that both decide alike.

use std::collections::BTreeMap;

use capsa_oci::runtime::DeviceRule;
use capsa_sys::bpf::{Access, DeviceEntry, DeviceKind};

use crate::{Error, Result};

/// What the container may do with devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DevicePolicy {
    /// Everything but the exceptions is allowed, or nothing but them.
    pub(super) allow: bool,
    exceptions: BTreeMap<(DeviceKind, Option<u32>, Option<u32>), Access>,
}

/// Always allowed, last: making nodes, and the harmless devices that every container has.
const ALWAYS: [(DeviceKind, Option<u32>, Option<u32>, Access); 11] = {
    use DeviceKind::{Block, Char};
    [
        (Char, None, None, Access::MKNOD),
        (Block, None, None, Access::MKNOD),
        (Char, Some(1), Some(3), Access::all()), // null
        (Char, Some(1), Some(5), Access::all()), // zero
        (Char, Some(1), Some(7), Access::all()), // full
        (Char, Some(1), Some(8), Access::all()), // random
        (Char, Some(1), Some(9), Access::all()), // urandom
        (Char, Some(5), Some(0), Access::all()), // tty
        (Char, Some(5), Some(1), Access::all()), // console
        (Char, Some(5), Some(2), Access::all()), // ptmx
        (Char, Some(136), None, Access::all()),  // pts/*
    ]
};

impl DevicePolicy {
    /// Nothing is allowed until a rule says so; then the rules in order, then [`ALWAYS`].
    pub(super) fn new(rules: &[DeviceRule]) -> Result<Self> {
        let mut policy = Self { allow: false, exceptions: BTreeMap::new() };
        for rule in rules {
            policy.apply(rule)?;
        }
        for (kind, major, minor, access) in ALWAYS {
            policy.change(true, (kind, major, minor), access);
        }
        Ok(policy)
    }

    /// No restriction at all.
    pub(super) fn is_unrestricted(&self) -> bool {
        self.allow && self.exceptions.is_empty()
    }

    /// The exceptions in the form of the v1 files, `c 1:3 rwm`.
    pub(super) fn lines(&self) -> Vec<String> {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        self.entries()
            .iter()
            .map(|entry| {
                let kind = if entry.kind == DeviceKind::Char { 'c' } else { 'b' };
                let access: String =
                    [('r', Access::READ), ('w', Access::WRITE), ('m', Access::MKNOD)]
                        .into_iter()
                        .filter_map(|(letter, bit)| entry.access.contains(bit).then_some(letter))
                        .collect();
                format!("{kind} {}:{} {access}", number(entry.major), number(entry.minor))
            })
            .collect()
    }

    /// The exceptions in the form of the v2 program.
    pub(super) fn entries(&self) -> Vec<DeviceEntry> {
        self.exceptions
            .iter()
            .map(|(&(kind, major, minor), &access)| DeviceEntry { kind, major, minor, access })
            .collect()
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<()> {
        let kinds: &[DeviceKind] = match rule.kind.as_deref() {
            None | Some("" | "a") => &[DeviceKind::Char, DeviceKind::Block],
            Some("c" | "u") => &[DeviceKind::Char],
            Some("b") => &[DeviceKind::Block],
            Some(other) => return Err(invalid(format!("type {other:?} is none of a, b, c"))),
        };
        let access = parse_access(rule.access.as_deref().unwrap_or("rwm"))?;
        let (major, minor) = (parse_number(rule.major)?, parse_number(rule.minor)?);
        if kinds.len() == 2 && major.is_none() && minor.is_none() && access.is_all() {
            self.allow = rule.allow;
            self.exceptions.clear();
            return Ok(());
        }
        for kind in kinds {
            self.change(rule.allow, (*kind, major, minor), access);
        }
        Ok(())
    }

    /// A rule that agrees with the default takes exceptions back; another one adds to them.
    fn change(
        &mut self,
        allow: bool,
        device: (DeviceKind, Option<u32>, Option<u32>),
        access: Access,
    ) {
        if allow != self.allow {
            *self.exceptions.entry(device).or_insert_with(Access::empty) |= access;
        } else if let Some(held) = self.exceptions.get_mut(&device) {
            held.remove(access);
            if held.is_empty() {
                self.exceptions.remove(&device);
            }
        }
    }
}

fn parse_access(text: &str) -> Result<Access> {
    text.chars().try_fold(Access::empty(), |all, letter| {
        Ok(all
            | match letter {
                'r' => Access::READ,
                'w' => Access::WRITE,
                'm' => Access::MKNOD,
                _ => {
                    return Err(invalid(format!("access {text:?} has other letters than r, w, m")));
                }
            })
    })
}

fn parse_number(number: Option<i64>) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(n) => match i32::try_from(n) {
            Ok(n) if n >= 0 => Ok(Some(n.cast_unsigned())),
            _ => Err(invalid(format!("device number {n} is out of range"))),
        },
    }
}

fn invalid(why: String) -> Error {
    Error::invalid("device rule", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: Some(kind.into()),
            major: Some(major),
            minor: Some(minor),
            access: Some(access.into()),
        }
    }

    #[test]
    fn no_rules_leave_the_harmless_devices() {
        let policy = DevicePolicy::new(&[]).unwrap();
        assert!(!policy.allow);
        let lines = policy.lines();
        assert_eq!(lines.len(), ALWAYS.len());
        for line in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rwm"] {
            assert!(lines.contains(&line.to_owned()), "{line} in {lines:?}");
        }
    }

    #[test]
    fn later_rules_win() {
        let deny_all =
            DeviceRule { allow: false, access: Some("rwm".into()), ..Default::default() };
        let policy = DevicePolicy::new(&[
            rule(true, "c", 10, 200, "rwm"),
            deny_all.clone(),
            rule(true, "c", 10, 229, "rw"),
            rule(true, "c", 10, 232, "rwm"),
            rule(false, "c", 10, 232, "w"),
        ])
        .unwrap();
        let lines = policy.lines();
        assert!(lines.contains(&"c 10:229 rw".to_owned()));
        assert!(lines.contains(&"c 10:232 rm".to_owned()));
        assert!(!lines.iter().any(|line| line.contains("10:200")));
    }

    #[test]
    fn allow_all_is_unrestricted_and_can_have_holes() {
        let all = DeviceRule { allow: true, access: Some("rwm".into()), ..Default::default() };
        assert!(DevicePolicy::new(std::slice::from_ref(&all)).unwrap().is_unrestricted());
        let policy = DevicePolicy::new(&[all, rule(false, "b", 8, -1, "w")]).unwrap();
        assert!(policy.allow && !policy.is_unrestricted());
        assert_eq!(policy.lines(), ["b 8:* w"]);
    }

    #[test]
    fn both_kinds_with_numbers_do_not_open_everything() {
        let policy = DevicePolicy::new(&[rule(true, "a", 10, 1, "r")]).unwrap();
        assert!(!policy.allow);
        assert!(policy.lines().contains(&"b 10:1 r".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(DevicePolicy::new(&[rule(true, "x", 1, 1, "r")]).is_err());
        assert!(DevicePolicy::new(&[rule(true, "c", 1, 1, "rx")]).is_err());
        assert!(DevicePolicy::new(&[rule(true, "c", -2, 1, "r")]).is_err());
    }
}
