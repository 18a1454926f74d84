//! Archives that want out, or want too much.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use capsa_image::tar::{Entry, Kind};
use capsa_image::{Compression, Error, Limits, apply, compress, unpack_layer};
use capsa_oci::Digest;
use support::{World, dir, file, is_whiteout, link, tar};

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../x", "a/../../x", "/../x", "..", "./../../outside/canary"] {
        let world = World::new();
        let error = world.apply(&tar(&[file(name, b"evil")])).unwrap_err();
        assert!(matches!(error, Error::Escape { .. }), "{name}: {error}");
        world.assert_canary();
    }
}

#[test]
fn absolute_names_and_inner_dots_stay_inside() {
    let world = World::new();
    world.apply(&tar(&[file("/etc/x", b"1"), file("a/./b/../c", b"2")])).unwrap();
    assert_eq!(fs::read(world.path("etc/x")).unwrap(), b"1");
    assert_eq!(fs::read(world.path("a/c")).unwrap(), b"2");
}

#[test]
fn links_lead_nowhere_outside() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    let absolute = outside.to_str().unwrap();
    let attack = tar(&[
        link(Kind::Symlink, "abs", absolute),
        link(Kind::Symlink, "rel", "../outside"),
        link(Kind::Symlink, "file", &format!("{absolute}/canary")),
        // Replaces the link itself.
        file("file", b"mine"),
    ]);
    world.apply(&attack).unwrap();
    assert_eq!(fs::read(world.path("file")).unwrap(), b"mine");
    for through in ["abs/canary", "rel/canary"] {
        // The link's target does not exist in the root.
        assert!(world.apply(&tar(&[file(through, b"evil")])).is_err());
    }
    world.assert_canary();
}

#[test]
fn a_link_that_stays_inside_is_followed_as_after_chroot() {
    let world = World::new();
    let layer = tar(&[dir("usr/lib"), link(Kind::Symlink, "lib", "/usr/lib"), file("lib/x", b"1")]);
    world.apply(&layer).unwrap();
    assert_eq!(fs::read(world.path("usr/lib/x")).unwrap(), b"1");
    assert_eq!(fs::read_link(world.path("lib")).unwrap().to_str(), Some("/usr/lib"));
}

#[test]
fn hard_links_reach_only_this_layer_and_do_not_follow() {
    let world = World::new();
    for target in ["../outside/canary", "/../outside/canary"] {
        assert!(world.apply(&tar(&[link(Kind::HardLink, "x", target)])).is_err());
    }
    let outside = format!("{}/canary", world.dir.path().join("outside").display());
    assert!(world.apply(&tar(&[link(Kind::HardLink, "x", &outside)])).is_err());
    let through = tar(&[
        link(Kind::Symlink, "s", &outside),
        link(Kind::HardLink, "h", "s"),
        file("h", b"replaced, not written through"),
    ]);
    world.apply(&through).unwrap();
    assert!(world.path("s").is_symlink() && world.path("h").is_file());
    world.assert_canary();
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in [".wh.", ".wh...", "a/.wh..", ".wh..wh..opq/../../.wh.x"] {
        let world = World::new();
        let result = world.apply(&tar(&[file(name, b"")]));
        assert!(result.is_err(), "{name}");
        world.assert_canary();
    }
}

#[test]
fn overlay_attributes_of_a_stranger_are_dropped() {
    let world = World::new();
    let (mut entry, content) = dir("d");
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque"] {
        entry.xattrs.push((name.into(), b"/etc".to_vec()));
    }
    entry.xattrs.push((b"user.kept".to_vec(), b"1".to_vec()));
    world.apply(&tar(&[(entry, content)])).unwrap();
    let left = world.root().xattrs("d".as_ref()).unwrap();
    let left: Vec<_> =
        left.into_iter().filter(|(n, _)| !n.to_bytes().starts_with(b"security.")).collect();
    assert_eq!(left, [(c"user.kept".to_owned(), b"1".to_vec())]);
}

#[test]
fn devices_and_fifos_are_made_as_they_are() {
    let world = World::new();
    let mut device = Entry::new("null", Kind::Char, 0o666);
    device.device = (1, 3);
    world.apply(&tar(&[(device, b""), (Entry::new("pipe", Kind::Fifo, 0o600), b"")])).unwrap();
    let null = fs::symlink_metadata(world.path("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.mode() & 0o777 == 0o666);
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert!(fs::symlink_metadata(world.path("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn bombs_are_refused_by_entries_bytes_depth_and_ratio() {
    let few = Limits { entries: 3, bytes: 1000, depth: 5, ..Limits::default() };
    let many: Vec<_> =
        (0..4).map(|i| (Entry::new(format!("{i}"), Kind::Dir, 0o755), &b""[..])).collect();
    let mut holes = Entry::new("holes", Kind::File, 0o644);
    holes.size = 2000;
    for archive in [tar(&many), tar(&[file("big", &[0; 1001])]), tar(&[file("1/2/3/4/5/6", b"")])] {
        let world = World::new();
        let error = apply(&archive[..], &world.root(), &few).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
    let bomb = tar(&[file("zeros", &vec![0; 8 << 20])]);
    let limits = Limits { ratio: 100, ratio_from: 1 << 20, ..Limits::default() };
    for kind in [Compression::Gzip, Compression::Zstd] {
        let world = World::new();
        let packed = compress(&mut &bomb[..], kind, Vec::new()).unwrap();
        let error = unpack_layer(&packed[..], &Digest::sha256(&bomb), &world.root(), &limits);
        assert!(matches!(error, Err(Error::Limit { .. })), "{error:?}");
    }
}

#[test]
fn an_extended_header_is_bounded_before_it_is_read() {
    let mut archive = tar(&[file("x", b"")]);
    archive[156] = b'x';
    archive[124..136].copy_from_slice(b"77777777777\0");
    fix_checksum(&mut archive[..512]);
    let error = World::new().apply(&archive).unwrap_err();
    assert!(matches!(error, Error::Limit { what: "bytes of extended header", .. }), "{error}");
}

#[test]
fn a_broken_archive_is_an_error_wherever_it_breaks() {
    let whole = tar(&[dir("d"), file("d/x", &[7; 5000])]);
    for len in [1, 511, 513, 1024 + 5, 6000] {
        let world = World::new();
        let error = world.apply(&whole[..len]).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{len}: {error}");
    }
    let mut flipped = whole.clone();
    flipped[3] ^= 1;
    assert!(World::new().apply(&flipped).unwrap_err().to_string().contains("checksum"));
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_refused() {
    let world = World::new();
    let layer = tar(&[file("x", b"1")]);
    let error =
        unpack_layer(&layer[..], &Digest::sha256(b"other"), &world.root(), &Limits::default());
    assert!(matches!(error, Err(Error::Digest { .. })));
}

#[test]
fn zero_zero_devices_hide_and_nothing_else() {
    let world = World::new();
    world.apply(&tar(&[(Entry::new("gone", Kind::Char, 0), b"")])).unwrap();
    assert!(is_whiteout(&world.path("gone")));
}

fn fix_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
