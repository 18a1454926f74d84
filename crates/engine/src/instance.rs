//! What sets this engine apart from others on the same host: its number.
//!
//! The number gives the bridge, the firewall table, the cgroup parent and the id
//! ranges, so that daemons with different data roots never touch each other's
//! things. It is kept in the data root; a file with a lock under
//! `/run/capsa-instances` makes sure that no two live data roots have the same.
//! Number 0 belongs to the default data root.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use capsa_sys::lock;

use crate::{Class, Error, Result};

/// Where the locks are.
const LOCKS: &str = "/run/capsa-instances";
/// The data root that number 0 is for.
const DEFAULT_ROOT: &str = "/var/lib/capsa";
/// How many engines a host can have.
const NUMBERS: u32 = 24;
/// Id ranges of one engine: as many containers can run in user namespaces of their own.
pub(crate) const RANGES: u32 = 1024;
/// Ids of one container.
pub(crate) const RANGE_LEN: u32 = 65_536;
/// The first host id given out; above every range that distributions use for users.
const FIRST_ID: u32 = 0x2000_0000;

/// This engine's number, held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Instance {
    number: u32,
    _lock: File,
}

impl Instance {
    /// Takes the number that the data root had before, or a free one.
    pub(crate) fn take(data_root: &Path) -> Result<Self> {
        let kept = data_root.join("instance");
        fs::create_dir_all(LOCKS).map_err(|error| failed(Path::new(LOCKS), &error))?;
        let before = fs::read_to_string(&kept).ok().and_then(|text| text.trim().parse().ok());
        let is_default = data_root == Path::new(DEFAULT_ROOT);
        let others = (1..NUMBERS).filter(|n| Some(*n) != before && !is_default);
        let first = if is_default { Some(0) } else { before };
        for number in first.into_iter().chain(others) {
            if let Some(lock) = lock(number, data_root)? {
                fs::write(&kept, format!("{number}\n")).map_err(|error| failed(&kept, &error))?;
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(Error::new(Class::Exhausted, format!("{NUMBERS} engines run on this host already"))
            .with_hint("stop one of them; each data root needs a number of its own"))
    }

    /// The name of the default bridge; also the prefix of everything of ours in the network.
    pub(crate) fn bridge(&self) -> String {
        format!("capsa{}", self.number)
    }

    /// The firewall table.
    pub(crate) fn table(&self) -> String {
        self.bridge()
    }

    /// The parent cgroup of containers that name none.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/{}", self.bridge())
    }

    /// The first host id of this engine's ranges.
    pub(crate) fn first_id(&self) -> u32 {
        FIRST_ID + self.number * RANGES * RANGE_LEN
    }

    /// 0 to 23.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

/// Locks `number` for `data_root`; `None` when a live engine has it, or a data root
/// that still exists and is not this one.
fn lock(number: u32, data_root: &Path) -> Result<Option<File>> {
    let path = PathBuf::from(LOCKS).join(number.to_string());
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|error| failed(&path, &error))?;
    // Another's number is not even locked for a moment: its engine, coming back in that
    // moment, would take another one and lose its containers.
    let time = match owner(&mut file, data_root)? {
        Owner::Another => return Ok(None),
        // Nobody else may have it: it is the last daemon's, let go of in a moment.
        Owner::Ourselves => lock::MOMENT,
        Owner::Nobody => Duration::ZERO,
    };
    let locked = lock::within(file, time).map_err(|error| failed(&path, &error))?;
    let Some(mut file) = locked else { return Ok(None) };
    // It may have been taken and left meanwhile.
    if owner(&mut file, data_root)? == Owner::Another {
        return Ok(None);
    }
    let text = data_root.as_os_str().as_encoded_bytes();
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text))
        .map_err(|error| failed(&path, &error))?;
    Ok(Some(file))
}

/// Whose a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Of a data root that is gone, or of none.
    Nobody,
    /// This data root had it before.
    Ourselves,
    /// Another data root has it, its engine running or not.
    Another,
}

/// What a lock file says.
fn owner(file: &mut File, data_root: &Path) -> Result<Owner> {
    let mut owner = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut owner))
        .map_err(|error| failed(Path::new(LOCKS), &error))?;
    Ok(match Path::new(&owner) {
        path if owner.is_empty() || !path.join("instance").exists() => Owner::Nobody,
        path if path == data_root => Owner::Ourselves,
        _ => Owner::Another,
    })
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::kernel(format!("instance number: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_roots_get_two_numbers_and_a_root_gets_its_own_again() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Instance::take(a.path()).unwrap();
        let second = Instance::take(b.path()).unwrap();
        assert_ne!(first.number(), second.number());
        assert_ne!(first.first_id(), second.first_id());
        let number = first.number();
        drop(first);
        assert_eq!(Instance::take(a.path()).unwrap().number(), number);
    }

    #[test]
    fn a_root_gets_its_own_again_while_others_look_for_one() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let number = Instance::take(a.path()).unwrap().number();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    // A root without a number looks at all of them.
                    drop(Instance::take(b.path()));
                    let _ = fs::remove_file(b.path().join("instance"));
                }
            });
            let changed = (0..5000).find(|_| Instance::take(a.path()).unwrap().number() != number);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(changed, None);
        });
    }
}
