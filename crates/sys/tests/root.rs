//! A root directory keeps every path inside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use capsa_sys::root::RootDir;
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

fn world() -> (tempfile::TempDir, RootDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("canary"), "outside").unwrap();
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    fs::write(dir.path().join("root/etc/name"), "inside").unwrap();
    let root = RootDir::open(&dir.path().join("root")).unwrap();
    (dir, root)
}

fn read(root: &RootDir, path: &str) -> Result<String, Errno> {
    let fd = root.open_in(Path::new(path), OFlags::RDONLY, Mode::empty());
    let fd = fd.map_err(|error| error.errno)?;
    Ok(std::io::read_to_string(fs::File::from(fd)).unwrap())
}

#[test]
fn dots_and_absolute_links_end_at_the_root() {
    let (dir, root) = world();
    symlink("/etc/name", dir.path().join("root/absolute")).unwrap();
    symlink("../../../etc/name", dir.path().join("root/dots")).unwrap();
    symlink("../canary", dir.path().join("root/out")).unwrap();
    for path in ["etc/name", "/etc/name", "../etc/name", "absolute", "dots"] {
        assert_eq!(read(&root, path).as_deref(), Ok("inside"), "{path}");
    }
    for path in ["../canary", "out", "/../canary"] {
        assert_eq!(read(&root, path), Err(Errno::NOENT), "{path}");
    }
}

#[test]
fn magic_links_are_refused() {
    let root = RootDir::open(Path::new("/proc/self")).unwrap();
    let error = root.open_in(Path::new("cwd"), OFlags::PATH, Mode::empty()).unwrap_err();
    assert_eq!(error.errno, Errno::LOOP);
}

#[test]
fn directories_are_made_through_links_but_never_outside() {
    let (dir, root) = world();
    symlink("/etc", dir.path().join("root/link")).unwrap();
    root.mkdir_all(Path::new("/link/a/../b/c"), Mode::RWXU).unwrap();
    assert!(dir.path().join("root/etc/b/c").is_dir());
    root.mkdir_all(Path::new("../../x"), Mode::RWXU).unwrap();
    assert!(dir.path().join("root/x").is_dir() && !dir.path().join("x").exists());
    symlink("/nowhere", dir.path().join("root/dangling")).unwrap();
    let error = root.mkdir_all(Path::new("dangling/x"), Mode::RWXU).unwrap_err();
    assert_eq!(error.errno, Errno::EXIST);
}

#[test]
fn changing_calls_do_not_follow_the_last_component() {
    let (dir, root) = world();
    symlink("/etc/name", dir.path().join("root/link")).unwrap();
    root.hardlink(Path::new("link"), Path::new("second")).unwrap();
    assert_eq!(root.read_link(Path::new("second")).unwrap(), Path::new("/etc/name"));
    let taken = root.create(Path::new("link"), Mode::RWXU).unwrap_err();
    assert_eq!(taken.errno, Errno::EXIST);
    root.rename(Path::new("second"), Path::new("etc/third"), RenameFlags::empty()).unwrap();
    root.remove_all(Path::new("etc/third")).unwrap();
    assert_eq!(read(&root, "etc/name").as_deref(), Ok("inside"));
    for nothing in ["", "/", ".", "a/.."] {
        assert!(root.parent_of(Path::new(nothing)).is_err(), "{nothing}");
    }
}

#[test]
fn a_deep_tree_is_removed_and_links_in_it_are_not_followed() {
    let (dir, root) = world();
    let mut at = root.try_clone().unwrap();
    for _ in 0..2000 {
        at.mkdir_all(Path::new("deep"), Mode::RWXU).unwrap();
        symlink_at(&at, "../../../../../canary");
        at = at.subdir(Path::new("deep")).unwrap();
    }
    root.remove_all(Path::new("deep")).unwrap();
    assert_eq!(root.lstat(Path::new("deep")).unwrap_err().errno, Errno::NOENT);
    assert_eq!(fs::read_to_string(dir.path().join("canary")).unwrap(), "outside");
    root.remove_all(Path::new("never/was")).unwrap();
}

fn symlink_at(root: &RootDir, target: &str) {
    root.symlink(Path::new(target), Path::new("link")).unwrap();
}

#[test]
fn attributes_belong_to_the_link_itself() {
    let (dir, root) = world();
    symlink("etc", dir.path().join("root/link")).unwrap();
    root.set_xattr(Path::new("link"), "trusted.test", b"link").unwrap();
    root.set_xattr(Path::new("etc"), "trusted.test", b"dir").unwrap();
    root.set_xattr(Path::new("/"), "trusted.test", b"root").unwrap();
    for (path, value) in [("link", "link"), ("etc", "dir"), ("/", "root")] {
        let found = root.xattrs(Path::new(path)).unwrap();
        assert!(found.contains(&(c"trusted.test".to_owned(), value.into())), "{path}");
    }
}
