//! Images: load, save, commit, names, import.

use crate::{Daemon, busybox};

fn image_id(d: &Daemon, name: &str) -> String {
    d.ok(&["image", "inspect", "--format", "{{.Id}}", name])
}

pub fn a_loaded_image_keeps_its_id(d: &Daemon) {
    let id = image_id(d, "busybox");
    let path = busybox().write(d.scratch());
    let said = d.ok(&["load", "-i", path.to_str().unwrap()]);
    assert!(said.contains("Loaded image: busybox:latest"), "{said}");
    assert_eq!(image_id(d, "busybox"), id);
    assert_eq!(d.ok(&["images", "-q", "--no-trunc"]), id);
    let archive = std::fs::read(&path).unwrap();
    let piped = d.run_with(&["load", "-q"], &archive);
    assert!(piped.stdout.contains("busybox:latest"), "{}", piped.stdout);
    let broken = d.run_with(&["load"], &archive[..archive.len() / 2]);
    assert_ne!(broken.code, 0, "half an archive is none: {}", broken.stdout);
    assert_eq!(d.ok(&["images", "-q", "--no-trunc"]), id);
}

pub fn save_and_load_round_trip(d: &Daemon) {
    let id = image_id(d, "busybox");
    d.ok(&["tag", "busybox", "other:2"]);
    let path = d.scratch().join("saved.tar");
    let path = path.to_str().unwrap();
    d.ok(&["save", "-o", path, "busybox:latest", "other:2"]);
    d.ok(&["rmi", "busybox", "other:2"]);
    assert_eq!(d.ok(&["images", "-q"]), "");
    d.ok(&["load", "-i", path]);
    assert_eq!((image_id(d, "busybox"), image_id(d, "other:2")), (id.clone(), id));
    assert_eq!(d.ok(&["run", "--rm", "other:2", "echo", "runs"]), "runs");
}

pub fn commit_keeps_changes(d: &Daemon) {
    let script = "echo new > /added; rm /etc/group; mkdir -p /dir/sub; chown -R app /dir";
    d.ok(&["run", "--name", "work", "busybox", "sh", "-c", script]);
    let id = d.ok(&[
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        "-c",
        "ENV A=1",
        "-c",
        "CMD [\"cat\", \"/added\"]",
        "work",
        "made:1",
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(image_id(d, "made:1"), id);
    assert_eq!(d.ok(&["run", "--rm", "made:1"]), "new");
    let look = "test ! -e /etc/group && stat -c %u /dir/sub && echo $A";
    assert_eq!(d.ok(&["run", "--rm", "made:1", "sh", "-c", look]), "1000\n1");
    // The same id goes through an archive.
    let path = d.scratch().join("made.tar");
    d.ok(&["save", "-o", path.to_str().unwrap(), "made:1"]);
    d.ok(&["rmi", "made:1"]);
    d.ok(&["load", "-i", path.to_str().unwrap()]);
    assert_eq!(image_id(d, "made:1"), id);
    assert_eq!(d.ok(&["run", "--rm", "made:1"]), "new");
}

pub fn tags_come_and_go(d: &Daemon) {
    d.ok(&["tag", "busybox", "registry.invalid:5000/team/app:v1"]);
    let listed = d.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(listed.contains("registry.invalid:5000/team/app:v1"), "{listed}");
    let said = d.ok(&["rmi", "registry.invalid:5000/team/app:v1"]);
    assert_eq!(said, "Untagged: registry.invalid:5000/team/app:v1");
    let said = d.ok(&["rmi", "busybox"]);
    assert!(
        said.contains("Untagged: busybox:latest") && said.contains("Deleted: sha256:"),
        "{said}"
    );
    d.fails(1, &["rmi", "busybox"]);
    d.fails(1, &["tag", "busybox", "x"]);
}

pub fn history_and_inspect_tell_the_layers(d: &Daemon) {
    d.load(&busybox().named("two:1").with_layer(|layer| layer.file("f", b"x", 0o644, 0)));
    assert_eq!(d.ok(&["history", "-q", "two:1"]).lines().count(), 2);
    let says = |template: &str| d.ok(&["image", "inspect", "--format", template, "two:1"]);
    assert_eq!(says("{{len .RootFS.Layers}} {{.Os}}"), "2 linux");
    assert_eq!(says("{{.RepoTags}}"), "[two:1]");
    assert!(says("{{.Size}}").parse::<u64>().unwrap() > 1_000_000);
    let by_prefix = &says("{{.Id}}")["sha256:".len()..][..12];
    assert_eq!(d.ok(&["run", "--rm", by_prefix, "cat", "/f"]), "x");
}

pub fn export_and_import_a_file_system(d: &Daemon) {
    d.ok(&["run", "--name", "src", "busybox", "sh", "-c", "echo x > /exported"]);
    let path = d.scratch().join("fs.tar");
    let path = path.to_str().unwrap();
    d.ok(&["export", "-o", path, "src"]);
    let names = std::process::Command::new("tar").args(["-tf", path]).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(names.lines().any(|line| line == "exported"), "{names}");
    d.ok(&["import", "-c", "CMD [\"cat\", \"/exported\"]", path, "flat:1"]);
    assert_eq!(d.ok(&["run", "--rm", "flat:1"]), "x");
    assert_eq!(d.ok(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "flat:1"]), "1");
}

pub fn layers_stack(d: &Daemon) {
    let image = busybox()
        .named("stack:1")
        .with_layer(|layer| {
            layer.dir("a", 0o755, 0);
            layer.file("a/one", b"1", 0o644, 0);
            layer.file("a/two", b"2", 0o644, 0);
            layer.dir("b", 0o755, 0);
            layer.file("b/old", b"old", 0o644, 0);
        })
        .with_layer(|layer| {
            layer.file("a/.wh.one", b"", 0o644, 0);
            layer.file("a/two", b"two", 0o600, 1000);
            layer.dir("b", 0o700, 0);
            layer.file("b/.wh..wh..opq", b"", 0o644, 0);
            layer.file("b/new", b"new", 0o644, 0);
        });
    d.load(&image);
    let script = "ls /a; cat /a/two; stat -c ' %u %a' /a/two; ls /b; stat -c %a /b";
    assert_eq!(
        d.ok(&["run", "--rm", "stack:1", "sh", "-c", script]),
        "two\ntwo 1000 600\nnew\n700"
    );
}

pub fn an_image_in_use_is_kept(d: &Daemon) {
    let id = d.ok(&["create", "busybox", "true"]);
    let refused = d.fails(1, &["rmi", "busybox"]);
    assert!(refused.contains(&id[..12]), "{refused}");
    d.ok(&["rm", &id]);
    d.ok(&["rmi", "busybox"]);
}
