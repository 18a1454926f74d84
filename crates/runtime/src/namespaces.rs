//! Which namespaces a container makes and which it joins, and its id mappings.

use std::path::PathBuf;

use capsa_oci::runtime::{IdMapping, Linux, NamespaceKind};
use capsa_sys::namespace::{IdRun, map_id};
use capsa_sys::process::Clone;

use crate::error::{Error, Result};

/// The namespaces of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Made new; the cgroup namespace among them is made by init itself, once it is in
    /// its cgroup.
    pub(crate) made: Kinds,
    /// Joined: user namespace first, since it decides on the right to join the others.
    pub(crate) joined: Vec<(NamespaceKind, PathBuf)>,
}

/// A set of namespace kinds, with an empty default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds(pub(crate) Clone);

impl Default for Kinds {
    fn default() -> Self {
        Self(Clone::empty())
    }
}

impl Namespaces {
    /// Reads them from the spec. A kind named twice, and a mount namespace to join,
    /// are errors.
    pub(crate) fn of(linux: &Linux) -> Result<Self> {
        let mut found = Self::default();
        let mut seen = Clone::empty();
        for namespace in &linux.namespaces {
            let flag = flag(namespace.kind);
            if seen.contains(flag) {
                return Err(Error::invalid("linux.namespaces", "a kind is there twice"));
            }
            seen |= flag;
            match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                None => found.made.0 |= flag,
                Some(_) if namespace.kind == NamespaceKind::Mount => {
                    return Err(Error::invalid("linux.namespaces", "a mount namespace to join"));
                }
                Some(path) => found.joined.push((namespace.kind, PathBuf::from(path))),
            }
        }
        if !found.made.0.contains(Clone::NEWNS) {
            return Err(Error::invalid("linux.namespaces", "no mount namespace"));
        }
        found.joined.sort_by_key(|(kind, _)| *kind);
        Ok(found)
    }

    /// Made or joined.
    pub(crate) fn has(&self, kind: NamespaceKind) -> bool {
        self.made.0.contains(flag(kind)) || self.joins(kind)
    }

    /// Joined by path.
    pub(crate) fn joins(&self, kind: NamespaceKind) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// All kinds, made or joined: what an exec has to join.
    pub(crate) fn all(&self) -> Clone {
        self.joined.iter().fold(self.made.0, |all, (kind, _)| all | flag(*kind))
    }
}

/// The bit of one kind.
pub(crate) fn flag(kind: NamespaceKind) -> Clone {
    match kind {
        NamespaceKind::User => Clone::NEWUSER,
        NamespaceKind::Mount => Clone::NEWNS,
        NamespaceKind::Pid => Clone::NEWPID,
        NamespaceKind::Network => Clone::NEWNET,
        NamespaceKind::Ipc => Clone::NEWIPC,
        NamespaceKind::Uts => Clone::NEWUTS,
        NamespaceKind::Cgroup => Clone::NEWCGROUP,
        NamespaceKind::Time => Clone::NEWTIME,
    }
}

/// How the ids of a container are those of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMaps {
    /// User ids.
    pub(crate) uids: Vec<IdRun>,
    /// Group ids.
    pub(crate) gids: Vec<IdRun>,
}

impl IdMaps {
    /// As the spec has them.
    pub(crate) fn of(linux: &Linux) -> Self {
        Self { uids: runs(&linux.uid_mappings), gids: runs(&linux.gid_mappings) }
    }

    /// Those of a process's user namespace, from `/proc`.
    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            let text = std::fs::read_to_string(&path);
            text.map(|text| parse(&text))
                .map_err(|e| Error::from(capsa_sys::Error::from_io("read", path, &e)))
        };
        Ok(Self { uids: read("uid_map")?, gids: read("gid_map")? })
    }

    /// The host's ids of the container's root.
    pub(crate) fn root(&self) -> Result<(u32, u32)> {
        map_id(&self.uids, 0)
            .zip(map_id(&self.gids, 0))
            .ok_or_else(|| Error::invalid("linux.uidMappings", "id 0 is not mapped"))
    }

    /// The host's ids of a user; the ids themselves when there are no mappings.
    pub(crate) fn host_ids(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        if self.uids.is_empty() && self.gids.is_empty() {
            return Some((uid, gid));
        }
        map_id(&self.uids, uid).zip(map_id(&self.gids, gid))
    }
}

fn runs(mappings: &[IdMapping]) -> Vec<IdRun> {
    let run = |m: &IdMapping| IdRun { inside: m.container_id, outside: m.host_id, count: m.size };
    mappings.iter().map(run).collect()
}

/// The text of a `uid_map` file.
fn parse(text: &str) -> Vec<IdRun> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok);
        Some(IdRun { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use capsa_oci::runtime::Namespace;

    use super::*;

    fn linux(namespaces: &[(NamespaceKind, Option<&str>)]) -> Linux {
        let namespace = |(kind, path): &(NamespaceKind, Option<&str>)| Namespace {
            kind: *kind,
            path: path.map(str::to_owned),
        };
        Linux { namespaces: namespaces.iter().map(namespace).collect(), ..Linux::default() }
    }

    #[test]
    fn the_user_namespace_is_joined_first() {
        let spec = linux(&[
            (NamespaceKind::Network, Some("/n")),
            (NamespaceKind::Mount, None),
            (NamespaceKind::User, Some("/u")),
        ]);
        let found = Namespaces::of(&spec).unwrap();
        assert_eq!(found.joined[0].0, NamespaceKind::User);
        assert_eq!(found.made.0, Clone::NEWNS);
        assert_eq!(found.all(), Clone::NEWNS | Clone::NEWNET | Clone::NEWUSER);
        assert!(found.has(NamespaceKind::Network) && !found.has(NamespaceKind::Pid));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mount = (NamespaceKind::Mount, None);
        for bad in [
            linux(&[]),
            linux(&[(NamespaceKind::Mount, Some("/m"))]),
            linux(&[mount, (NamespaceKind::Pid, None), (NamespaceKind::Pid, Some("/p"))]),
        ] {
            assert!(Namespaces::of(&bad).is_err());
        }
    }

    #[test]
    fn a_kernel_map_is_read() {
        let runs = parse("         0     100000      65536\n     70000 5 1\n");
        assert_eq!(runs[0], IdRun { inside: 0, outside: 100_000, count: 65_536 });
        assert_eq!(runs[1], IdRun { inside: 70_000, outside: 5, count: 1 });
    }
}
