//! What images take on disk: how much it is, what of it is wasted, what a removal would
//! free, and that old ones make room when they are told to.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use capsa_it::{Cli, Daemon, Image, Setup, busybox, noise};
use serde_json::Value;

fn with_file(name: &str, path: &str, bytes: &[u8]) -> Image {
    busybox().named(name).with_layer(|layer| layer.file(path, bytes, 0o644, 0))
}

/// What the daemon answers, asked without any client.
fn ask(d: &Daemon, method: &str, path: &str) -> Value {
    let mut socket = UnixStream::connect(d.scratch().join("s.sock")).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => body.split("\r\n").skip(1).step_by(2).collect::<String>(),
        false => body.to_owned(),
    };
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn size_of(dir: &Path) -> i64 {
    let mut seen = BTreeSet::new();
    let (mut total, mut dirs) = (0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.is_file() && seen.insert(meta.ino()) {
                total += i64::try_from(meta.len()).unwrap();
            }
        }
    }
    total
}

fn image<'a>(usage: &'a Value, tag: &str) -> &'a Value {
    let images = usage["Images"].as_array().unwrap();
    images.iter().find(|image| image["RepoTags"][0] == tag).unwrap()
}

#[test]
fn disk_use_is_the_disk_s_and_shared_layers_count_once() {
    let d = Daemon::start(Cli::Docker);
    let twice = busybox().named("b:1").with_layer(|layer| {
        layer.file("same", &[7; 5000], 0o644, 0);
        // The later one stays.
        layer.file("same", &[7; 3210], 0o644, 0);
    });
    d.load(&with_file("a:1", "own", &[1; 12_345]));
    d.load(&twice);
    d.ok(&["volume", "create", "data"]);
    fs::write(d.data_root().join("volumes/data/_data/f"), [0; 777]).unwrap();
    d.ok(&["create", "--name", "user", "a:1", "true"]);
    let usage = ask(&d, "GET", "/v1.51/system/df");
    assert_eq!(usage["LayersSize"], size_of(&d.data_root().join("layers")));
    let base = image(&usage, "busybox:latest")["Size"].as_i64().unwrap();
    for (tag, own, containers) in [("busybox:latest", 0, 0), ("a:1", 12_345, 1), ("b:1", 3210, 0)] {
        let shown = image(&usage, tag);
        assert_eq!(shown["Size"], base + own, "{tag}");
        assert_eq!(shown["SharedSize"], base, "{tag}");
        assert_eq!(shown["Containers"], containers, "{tag}");
    }
    assert_eq!(usage["LayersSize"], base + 12_345 + 3210);
    assert_eq!(usage["Volumes"][0]["UsageData"]["Size"], 777);
    assert_eq!(usage["Volumes"][0]["UsageData"]["RefCount"], 0);
    // As the clients show it: all but what only used images have is reclaimable.
    let reclaimable = format!("{:.3}MB", (base + 3210) as f64 / 1e6);
    for cli in [Cli::Docker, Cli::Capsa] {
        let d = d.with(cli);
        let line = "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}";
        let shown = d.ok(&["system", "df", "--format", line]);
        let images = shown.lines().next().unwrap();
        assert!(images.starts_with(&format!("Images 3 1 {reclaimable} (")), "{shown}");
    }
    let details = |cli| {
        let shown = d.with(cli).ok(&["system", "df", "-v"]);
        let (images, _) = shown.split_once("\nContainers space usage").unwrap();
        let mut lines: Vec<String> = images.trim().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let lines = details(Cli::Capsa);
    assert!(
        lines.iter().any(|line| line.starts_with("a ") && line.contains("12.35kB")),
        "{lines:?}"
    );
    assert_eq!(lines, details(Cli::Docker));
    let listed = ask(&d, "GET", "/v1.51/images/json?shared-size=1");
    assert!(listed.as_array().unwrap().iter().all(|image| image["SharedSize"] == base));
}

#[test]
fn a_tree_tells_what_each_layer_does_and_what_is_wasted() {
    let d = Daemon::start(Cli::Capsa);
    let app = with_file("app:1", "data/big", &[1; 9000]).with_layer(|layer| {
        layer.file("data/big", &[2; 100], 0o644, 0);
        layer.file("etc/.wh.group", b"", 0o644, 0);
        layer.file("new", b"12345", 0o644, 0);
    });
    d.load(&app);
    let group = "root:x:0:\napp:x:1000:\n".len();
    let line =
        "{{.Added}} {{.Changed}} {{.Deleted}} {{.SizeBytes}} {{.WastedBytes}} {{.CreatedBy}}";
    let shown = d.ok(&["image", "tree", "--format", line, "app:1"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], format!("1 1 1 105 {} test", 9000 + group));
    assert_eq!(lines[1], "1 0 0 9000 0 test");
    let wasted =
        d.ok(&["image", "tree", "--wasted", "--format", "{{.SizeBytes}} {{.Path}}", "app:1"]);
    assert_eq!(wasted, format!("9000 /data/big\n{group} /etc/group"));
    let table = d.ok(&["image", "tree", "app:1"]);
    assert!(table.contains("CREATED BY") && table.contains("Wasted: 9.022kB of "), "{table}");
    d.fails(1, &["image", "tree", "nowhere"]);
}

#[test]
fn a_diff_of_images_names_the_files_that_differ() {
    let d = Daemon::start(Cli::Capsa);
    let app = busybox().named("app:1").with_layer(|layer| {
        layer.file("etc/passwd", b"short", 0o644, 0);
        layer.file("etc/.wh.group", b"", 0o644, 0);
        layer.file("dir/new", b"12345", 0o644, 0);
        // As a link it would lead out of the layer.
        layer.link("out", "/etc");
    });
    d.load(&app);
    let line = "{{.Kind}} {{.Path}} {{.Before}} {{.After}}";
    let shown = d.ok(&["image", "diff", "--format", line, "busybox", "app:1"]);
    let (passwd, group) = (64, 22);
    let there = format!(
        "A /dir 0 0\nA /dir/new 0 5\nD /etc/group {group} 0\nC /etc/passwd {passwd} 5\nA /out 0 0"
    );
    assert_eq!(shown, there);
    let back = d.ok(&["image", "diff", "app:1", "busybox"]);
    assert!(back.contains("A /etc/group (+22B)") && back.contains("D /dir/new (-5B)"), "{back}");
    assert_eq!(d.ok(&["image", "diff", "busybox", "busybox"]), "");
    d.fails(1, &["image", "diff", "busybox", "nowhere"]);
}

#[test]
fn a_dry_run_says_exactly_what_the_real_one_does() {
    let d = Daemon::start(Cli::Capsa);
    d.load(&with_file("used:1", "f", &noise(1, 4000)));
    d.load(&with_file("old:1", "f", &noise(2, 3000)));
    // The name moves on, and leaves an image without one.
    d.load(&with_file("old:1", "f", &noise(3, 2000)));
    d.ok(&["tag", "busybox", "second:name"]);
    d.ok(&["create", "--name", "user", "used:1", "true"]);
    d.ok(&["volume", "create", "empty"]);
    for filters in ["", "&filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D"] {
        let before = d.ok(&["images", "-a", "-q", "--no-trunc"]);
        let dry = ask(&d, "POST", &format!("/images/prune?dryrun=1{filters}"));
        assert_eq!(
            d.ok(&["images", "-a", "-q", "--no-trunc"]),
            before,
            "a dry run removes nothing"
        );
        let real = ask(&d, "POST", &format!("/images/prune?x=1{filters}"));
        assert_eq!(dry, real);
        assert!(real["SpaceReclaimed"].as_u64().unwrap() > 2000, "{real}");
    }
    assert_eq!(d.ok(&["images", "--format", "{{.Repository}}"]), "used");
    let dry = d.ok(&["system", "prune", "-a", "--volumes", "--dry-run"]);
    let real = d.ok(&["system", "prune", "-a", "--volumes", "-f"]);
    assert_eq!(dry.replace("Would Delete", "Deleted").replace("reclaimable", "reclaimed"), real);
    assert!(real.contains("untagged: used:1") && real.contains("Deleted Containers"), "{real}");
}

#[test]
fn a_dry_removal_says_exactly_what_the_real_one_does() {
    let d = Daemon::start(Cli::Capsa);
    d.load(&with_file("app:1", "f", &noise(1, 4000)));
    d.ok(&["tag", "app:1", "app:2"]);
    let id = d.ok(&["images", "-q", "app:1"]);
    for (name, force) in [("app:2", false), (id.as_str(), false), ("busybox", true)] {
        let mut real = vec!["rmi", name];
        real.extend(force.then_some("-f"));
        let dry = d.ok(&[&real[..], &["--dry-run"]].concat());
        let disk = ask(&d, "GET", "/system/df")["LayersSize"].as_i64().unwrap();
        let said = d.ok(&real);
        let (steps, freed) = dry.rsplit_once("\nReclaimable: ").unwrap();
        assert_eq!(steps, said, "{name}");
        let less = disk - ask(&d, "GET", "/system/df")["LayersSize"].as_i64().unwrap();
        assert_eq!(freed == "0B", less == 0, "{name}: {freed}, {less} bytes of layers went");
    }
    // Both refuse alike.
    d.load(&busybox());
    d.ok(&["create", "--name", "user", "busybox", "true"]);
    assert_eq!(d.fails(1, &["rmi", "--dry-run", "busybox"]), d.fails(1, &["rmi", "busybox"]));
}

#[test]
fn old_images_make_room_for_new_ones() {
    let base = fs::metadata("/usr/bin/busybox").unwrap().len();
    // Each layer counts twice, packed and unpacked: room for busybox and two and a half more.
    let mark = format!("--image-store-max={}", 2 * base + 200_000 + 5 * 1_000_000);
    let arguments = vec![mark, "--image-store-idle=0s".to_owned()];
    let d = Daemon::start_with(Cli::Docker, Setup { arguments, ..Setup::default() });
    d.load(&busybox());
    d.ok(&["create", "--name", "keeps-busybox", "busybox", "true"]);
    let big = |name: &str, seed| with_file(name, "f", &noise(seed, 1_000_000));
    let names = || {
        let listed = d.ok(&["images", "--format", "{{.Repository}}"]);
        listed.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    d.load(&big("one", 1));
    d.load(&big("two", 2));
    assert_eq!(names(), set(&["busybox", "one", "two"]));
    // Its last use is now later than that of the other.
    d.ok(&["create", "--name", "user", "one", "true"]);
    d.ok(&["rm", "user"]);
    let mut events = d.start(&[
        "events",
        "--since",
        "0",
        "--filter",
        "event=delete",
        "--format",
        "{{.ID}} {{.Actor.Attributes.reason}}",
    ]);
    let gone = d.ok(&["images", "-q", "--no-trunc", "two"]);
    d.load(&big("three", 3));
    assert_eq!(names(), set(&["busybox", "one", "three"]));
    assert_eq!(events.line(), format!("{gone} image-store-max"));
    // What is used stays, and what came last, though it is too much.
    d.ok(&["create", "--name", "user", "one", "true"]);
    d.ok(&["create", "--name", "other", "three", "true"]);
    d.load(&big("four", 4));
    assert_eq!(names(), set(&["busybox", "one", "three", "four"]));
    d.ok(&["rm", "user", "other"]);
}

#[test]
fn images_used_a_short_while_ago_stay() {
    let arguments = vec!["--image-store-max=1".to_owned()];
    let d = Daemon::start_with(Cli::Docker, Setup { arguments, ..Setup::default() });
    d.load(&busybox());
    d.load(&with_file("app:1", "f", b"x"));
    assert_eq!(d.ok(&["images", "-q"]).lines().count(), 2);
}
