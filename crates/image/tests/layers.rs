//! Layers there and back: overlay form, GNU tar's archives, changes, equal bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use capsa_image::tar::{Entry, Kind, Reader, Time};
use capsa_image::{
    ChangeKind, Limits, UnpackOptions, apply, changes, diff, pack, pack_as, unpack_into,
};
use proptest::prelude::*;
use support::{World, dir, file, is_opaque, is_whiteout, link, tar};

fn names(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive, Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

#[test]
fn whiteouts_take_overlay_form_and_come_back() {
    let world = World::new();
    let layer = tar(&[
        dir("d"),
        file("d/.wh..wh..opq", b""),
        file("d/.wh.gone", b""),
        file("kept", b"1"),
        file(".wh..wh.plnk", b""),
    ]);
    world.apply(&layer).unwrap();
    let root = world.root();
    assert!(is_whiteout(&world.path("d/gone")) && is_opaque(&root, "d"));
    assert!(!world.path(".wh..wh.plnk").exists());
    let back = diff(&root, Vec::new()).unwrap();
    assert_eq!(names(&back), ["d", "d/.wh..wh..opq", "d/.wh.gone", "kept"]);
    let again = World::new();
    again.apply(&back).unwrap();
    assert_eq!(diff(&again.root(), Vec::new()).unwrap(), back);
}

#[test]
fn a_directory_in_the_place_of_a_whiteout_is_opaque_in_either_order() {
    for entries in [
        vec![file(".wh.d", b""), dir("d")],
        vec![dir("d"), file(".wh.d", b"")],
        vec![file(".wh.d", b""), file("d/x", b"1")],
    ] {
        let world = World::new();
        world.apply(&tar(&entries)).unwrap();
        assert!(world.path("d").is_dir() && is_opaque(&world.root(), "d"));
    }
    let world = World::new();
    world.apply(&tar(&[file("f", b"1"), file(".wh.f", b"")])).unwrap();
    assert_eq!(fs::read(world.path("f")).unwrap(), b"1");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let world = World::new();
    let layer = tar(&[
        dir("a"),
        file("a/x", b"1"),
        file("a", b"now a file"),
        link(Kind::Symlink, "b", "a"),
        dir("b"),
        file("c", b"old"),
        file("c", b"new"),
    ]);
    world.apply(&layer).unwrap();
    assert_eq!(fs::read(world.path("a")).unwrap(), b"now a file");
    assert!(world.path("b").is_dir() && !world.path("b").is_symlink());
    assert_eq!(fs::read(world.path("c")).unwrap(), b"new");
}

#[test]
fn attributes_are_the_archives() {
    let world = World::new();
    let (mut suid, content) = file("suid", b"x");
    (suid.mode, suid.uid, suid.gid) = (0o4751, 12, 4_000_000_000);
    suid.mtime = Time { sec: 1_000_000_000, nsec: 0 };
    let (mut d, none) = dir("d");
    (d.mode, d.mtime) = (0o1777, Time { sec: 500, nsec: 0 });
    world.apply(&tar(&[(d, none), (suid, content), file("d/later", b"")])).unwrap();
    let meta = fs::metadata(world.path("suid")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o4751, 12, 4_000_000_000));
    assert_eq!(meta.mtime(), 1_000_000_000);
    let meta = fs::metadata(world.path("d")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o1777, 500));
}

/// The tree that GNU tar packs, and what we make of it in each of its formats.
#[test]
fn gnu_tars_archives_unpack_to_the_same_tree() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    let long = format!("{}/{}", "directory".repeat(12), "name".repeat(40));
    fs::create_dir_all(at(&long).parent().unwrap()).unwrap();
    fs::write(at(&long), "long").unwrap();
    symlink(format!("/{}", "target/".repeat(30)), at("longlink")).unwrap();
    fs::hard_link(at(&long), at("hard")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    for at in 0..30 {
        rustix::io::pwrite(&sparse, b"data", at * 100_000).unwrap();
    }
    sparse.set_len(5_000_000).unwrap();
    fs::set_permissions(at("sparse"), fs::Permissions::from_mode(0o640)).unwrap();
    for format in [
        "gnu",
        "pax",
        "gnu --sparse",
        "pax --sparse --sparse-version=0.0",
        "pax --sparse --sparse-version=0.1",
        "pax --sparse --sparse-version=1.0",
    ] {
        let args = format!("--format={format} --sort=name -cf - .");
        let packed = Command::new("tar").args(args.split(' ')).current_dir(source.path()).output();
        let packed = packed.unwrap();
        assert!(packed.status.success(), "{format}");
        let world = World::new();
        world.apply(&packed.stdout).unwrap();
        let mut same = Command::new("diff");
        same.args(["-r", "--no-dereference"]).arg(source.path()).arg(world.path(""));
        let out = same.output().unwrap();
        assert!(out.status.success(), "{format}: {}", String::from_utf8_lossy(&out.stdout));
        let (old, new) =
            (fs::metadata(at("sparse")).unwrap(), fs::metadata(world.path("sparse")).unwrap());
        assert_eq!((old.mode(), old.mtime()), (new.mode(), new.mtime()), "{format}");
        if format.starts_with("pax") {
            assert_eq!(old.mtime_nsec(), new.mtime_nsec(), "{format}");
        }
        assert_eq!(fs::metadata(world.path("hard")).unwrap().nlink(), 2);
        if format.contains("sparse") {
            assert!(new.blocks() < 2000, "{format}: {} blocks", new.blocks());
        }
    }
}

#[test]
fn what_we_pack_gnu_tar_unpacks() {
    let world = World::new();
    let deep = format!("{}x", "d/".repeat(120));
    world.apply(&tar(&[file(&deep, b"deep"), link(Kind::HardLink, "h", &deep), dir("e")])).unwrap();
    let packed = pack(&world.root(), Path::new(""), Vec::new()).unwrap();
    let out = World::new();
    fs::write(out.dir.path().join("a.tar"), &packed).unwrap();
    let tar = Command::new("tar")
        .arg("-xf")
        .arg(out.dir.path().join("a.tar"))
        .current_dir(out.path(""))
        .output();
    assert!(tar.unwrap().stderr.is_empty());
    assert_eq!(fs::read(out.path(&deep)).unwrap(), b"deep");
    assert_eq!(fs::metadata(out.path("h")).unwrap().nlink(), 2);
    assert_eq!(pack(&out.root(), Path::new(""), Vec::new()).unwrap().len(), packed.len());
}

#[test]
fn copies_are_named_as_asked() {
    let world = World::new();
    world.apply(&tar(&[file("etc/a", b"1"), link(Kind::Symlink, "l", "etc")])).unwrap();
    let root = world.root();
    let packed = |path: &str, name: &str| {
        names(&pack_as(&root, Path::new(path), name.as_ref(), Vec::new()).unwrap())
    };
    assert_eq!(packed("etc", "conf"), ["conf", "conf/a"]);
    assert_eq!(packed("etc/a", "b"), ["b"]);
    assert_eq!(packed("l", "l"), ["l"]);
    assert_eq!(packed("l/", "l"), ["l", "l/a"]);
    assert_eq!(names(&pack(&root, Path::new("/"), Vec::new()).unwrap()), ["etc", "etc/a", "l"]);
}

#[test]
fn copying_in_keeps_whiteout_names_and_resolves_links_in_the_root() {
    let world = World::new();
    world.apply(&tar(&[dir("data"), link(Kind::Symlink, "in", "/data")])).unwrap();
    let options =
        UnpackOptions { owner: Some((7, 8)), keep_kind: true, ..UnpackOptions::default() };
    let copy = |tar: Vec<u8>| {
        unpack_into(&tar[..], &world.root(), Path::new("/in"), options, &Limits::default())
    };
    copy(tar(&[dir("."), file(".wh.x", b"1"), file("sub/y", b"2")])).unwrap();
    assert_eq!(fs::read(world.path("data/.wh.x")).unwrap(), b"1");
    assert_eq!(fs::metadata(world.path("data/sub/y")).unwrap().uid(), 7);
    let error = copy(tar(&[file("sub", b"")])).unwrap_err().to_string();
    assert!(error.contains("cannot overwrite directory"), "{error}");
    let error = copy(tar(&[dir(".wh.x")])).unwrap_err().to_string();
    assert!(error.contains("cannot overwrite non-directory"), "{error}");
    world.assert_canary();
}

#[test]
fn changes_are_told_as_docker_tells_them() {
    let (lower, upper) = (World::new(), World::new());
    let base = tar(&[
        dir("etc/deep"),
        file("etc/deep/x", b"1"),
        file("etc/old", b"1"),
        dir("o"),
        file("o/a", b"1"),
        file("o/b", b"1"),
        dir("same"),
    ]);
    lower.apply(&base).unwrap();
    upper
        .apply(&tar(&[
            dir("etc/deep"),
            file("etc/deep/x", b"2"),
            file("etc/.wh.old", b""),
            file("etc/.wh.never", b""),
            file("new/f", b""),
            dir("o"),
            file("o/.wh..wh..opq", b""),
            file("o/a", b"2"),
            dir("same"),
        ]))
        .unwrap();
    // mkdir -p made etc without an entry, so give it the lower's times.
    for name in ["etc", "new"] {
        let times = fs::FileTimes::new()
            .set_modified(fs::metadata(lower.path("etc")).unwrap().modified().unwrap());
        fs::File::open(upper.path(name)).unwrap().set_times(times).unwrap();
    }
    let found = changes(&upper.root(), &[lower.root()]).unwrap();
    let found: Vec<_> = found.iter().map(|(path, kind)| (path.to_str().unwrap(), *kind)).collect();
    use ChangeKind::{Added, Deleted, Modified};
    assert_eq!(
        found,
        [
            ("/etc", Modified),
            ("/etc/deep", Modified),
            ("/etc/deep/x", Modified),
            ("/etc/old", Deleted),
            ("/new", Added),
            ("/new/f", Added),
            ("/o", Modified),
            ("/o/a", Modified),
            ("/o/b", Deleted),
        ]
    );
}

fn arbitrary_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", ".wh.a", ".wh..wh..opq", "..", "."]);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let kinds = [Kind::File, Kind::Dir, Kind::Symlink, Kind::HardLink, Kind::Fifo];
    let target = prop::sample::select(vec!["a", "/b", "../..", "../../outside", "/", "c/d", "."]);
    (path, prop::sample::select(kinds.to_vec()), target, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(path, kind, target, content)| {
            let mut entry = Entry::new(path, kind, 0o755);
            entry.link = target.into();
            entry.size = if kind == Kind::File { content.len() as u64 } else { 0 };
            (entry, content)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever the archive says, nothing outside the root changes; and a tree that
    /// was made comes back from its own layer byte by byte.
    #[test]
    fn any_archive_stays_inside_and_round_trips(entries in prop::collection::vec(arbitrary_entry(), 0..12)) {
        let world = World::new();
        let entries: Vec<_> = entries.iter().map(|(entry, content)| (entry.clone(), &content[..])).collect();
        for entry in &entries {
            // One by one, so that an error does not hide what comes after it.
            let _ = world.apply(&tar(std::slice::from_ref(entry)));
        }
        world.assert_canary();
        let first = diff(&world.root(), Vec::new()).unwrap();
        let again = World::new();
        apply(&first[..], &again.root(), &Limits::default()).unwrap();
        prop_assert!(diff(&again.root(), Vec::new()).unwrap() == first);
    }

    #[test]
    fn any_bytes_are_an_archive_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), valid in any::<bool>()) {
        if valid && bytes.len() >= 512 {
            bytes[148..156].fill(b' ');
            let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let world = World::new();
        let _ = world.apply(&bytes);
        world.assert_canary();
    }
}
