//! The container's view of its cgroup: one directory per v1 hierarchy, or the v2 tree.
//!
//! Each is a bind of the container's own cgroup directory rather than a new mount of
//! the hierarchy: the content is the same, and it takes a third of the calls.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use capsa_sys::mount::{self, Attrs, Change, Filesystem};
use rustix::fs::{Mode, OFlags};

use super::options::MountOptions;
use super::sync::Join;

/// Puts it together on `target`, before the host's tree is left.
pub(super) fn attach(
    target: OwnedFd,
    options: &MountOptions,
    cgroup: &Join,
) -> capsa_sys::Result<()> {
    let top = match cgroup.directories.as_slice() {
        [only] if cgroup.unified => mount::clone_path(only, false)?,
        _ => tmpfs(options)?,
    };
    mount::attach(top.as_fd(), target.as_fd())?;
    if !cgroup.unified {
        for directory in &cgroup.directories {
            let source = mount::clone_path(directory, false)?;
            add(&top, &source, name_of(directory, &cgroup.path))?;
        }
    }
    let set = options.set | options.set_all;
    mount::change(top.as_fd(), &Change { set, recursive: true, ..Change::default() })
}

fn tmpfs(options: &MountOptions) -> capsa_sys::Result<OwnedFd> {
    let fs = Filesystem::open("tmpfs")?;
    fs.set("mode", "755")?;
    fs.mount(options.set - Attrs::RDONLY)
}

/// The last component of the hierarchy's mount point.
fn name_of<'a>(directory: &'a Path, path: &str) -> &'a OsStr {
    let bytes = directory.as_os_str().as_bytes();
    let mount = bytes.strip_suffix(path.as_bytes()).unwrap_or(bytes);
    Path::new(OsStr::from_bytes(mount)).file_name().unwrap_or(OsStr::new("cgroup"))
}

/// A hierarchy under its name; controllers mounted together (`cpu,cpuacct`) also under
/// the name of each.
fn add(top: &OwnedFd, source: &OwnedFd, name: &OsStr) -> capsa_sys::Result<()> {
    let failed = |e| capsa_sys::Error::new("mkdir", name.display(), e);
    rustix::fs::mkdirat(top, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::openat(top, name, flags, Mode::empty()).map_err(failed)?;
    if name.as_bytes().contains(&b',') {
        for one in name.as_bytes().split(|byte| *byte == b',') {
            let _ = rustix::fs::symlinkat(name, top, OsStr::from_bytes(one));
        }
    }
    mount::attach(source.as_fd(), target.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_named_after_its_mount_point() {
        let directory = Path::new("/sys/fs/cgroup/cpu,cpuacct/capsa/abc");
        assert_eq!(name_of(directory, "/capsa/abc"), "cpu,cpuacct");
    }
}
