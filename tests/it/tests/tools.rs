//! Tools that are not ours agree: on the ids of what we write and they read, of what they
//! write and we read, on digests in a registry, and on every file of a container.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use capsa_it::registry::Registry;
use capsa_it::tools::{Dockerd, Tool, text};
use capsa_it::{Cli, Daemon, Image, Setup, busybox, tree};
use serde_json::{Value, json};

const NAME: &str = "localhost/judged:1";
/// cap_net_bind_service, permitted and effective (capabilities(7), version 2).
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What an engine puts into a container before its program runs.
const MADE: &[&str] = &["dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// An image with one of everything that a layer can say. A layer lists the directories
/// above its files, as builders do: one that is left out is root's with mode 755 here,
/// where umoci keeps what is below.
fn rich() -> Image {
    let deep = format!("srv/{}", "d".repeat(90));
    busybox()
        .named(NAME)
        .with_layer(|layer| {
            layer.dir("srv", 0o2775, 7);
            layer.dir("srv/old", 0o755, 0);
            layer.file("srv/old/gone", b"gone", 0o644, 0);
            layer.file("srv/gone", b"gone", 0o644, 0);
            layer.file("srv/changed", b"before", 0o600, 0);
            layer.file("srv/setuid", b"#!/bin/sh\n", 0o4755, 0);
            layer.file("srv/owned", b"mine", 0o640, 1000);
            layer.file("srv/empty", b"", 0o444, 65534);
            layer.hard_link("srv/second", "srv/owned");
            layer.link("srv/link", "../etc/passwd");
            layer.pipe("srv/pipe", 0o620, 5);
            layer.dir(&deep, 0o755, 0);
            layer.file(&format!("{deep}/{}", "f".repeat(120)), b"long", 0o644, 0);
            layer.xattrs(&[("security.capability", CAPABILITY), ("user.note", b"a\0b")]);
            layer.file("srv/capable", b"binds", 0o755, 0);
        })
        .with_layer(|layer| {
            layer.dir("srv", 0o2775, 7);
            layer.file("srv/.wh.gone", b"", 0o644, 0);
            layer.dir("srv/old", 0o711, 3);
            layer.file("srv/old/.wh..wh..opq", b"", 0o644, 0);
            layer.file("srv/old/new", b"new", 0o644, 0);
            layer.file("srv/changed", b"after", 0o604, 9);
        })
        .with_config("Labels", json!({ "judge": "ünder \"quotes\" <&>" }))
}

/// A daemon with the rich image, and what it saves.
fn judged() -> (Daemon, String, PathBuf) {
    let d = Daemon::start_with(Cli::Capsa, Setup::default());
    d.load(&rich());
    let id = d.inspect(NAME, "{{.Id}}");
    let saved = d.scratch().join("saved.tar");
    d.ok(&["save", "-o", text(&saved), NAME]);
    (d, id, saved)
}

/// Loads an archive into a daemon that has nothing; the image's id.
fn load(d: &Daemon, archive: &Path, name: &str) -> String {
    let known = d.ok(&["images", "-aq", "--no-trunc"]);
    if !known.is_empty() {
        let mut known: Vec<_> = known.lines().collect();
        known.dedup();
        d.ok(&[&["rmi", "-f"], known.as_slice()].concat());
    }
    let loaded = d.ok(&["load", "-i", text(archive)]);
    let by_id = || loaded.rsplit(' ').next().unwrap().to_owned();
    let name = if name.is_empty() { by_id() } else { name.to_owned() };
    d.inspect(&name, "{{.Id}}")
}

/// The config's digest, which is the image's id, in a manifest.
fn id_in(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

fn raw(skopeo: &Tool, image: &str) -> Vec<u8> {
    skopeo.bytes(&["inspect", "--raw", "--tls-verify=false", image])
}

#[test]
fn skopeo_reads_what_is_saved_and_what_it_writes_is_loaded() {
    let Some(skopeo) = Tool::skopeo() else { return };
    let (d, id, saved) = judged();
    let saved = format!("docker-archive:{}", saved.display());
    let seen: Value = serde_json::from_str(&skopeo.ok(&["inspect", &saved])).unwrap();
    assert_eq!(seen["Labels"]["judge"], "ünder \"quotes\" <&>", "{seen}");
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(id_in(&raw(&skopeo, &saved)), id);

    // From one form to the other it writes the config anew, so the id is another.
    let layers = d.inspect(NAME, "{{json .RootFS.Layers}}");
    let converted = skopeo.path("converted");
    let oci = format!("oci:{}:1", converted.display());
    skopeo.ok(&["copy", &saved, &oci]);
    let packed = skopeo.path("converted.tar");
    run("tar", &["-C", text(&converted), "-cf", text(&packed), "."]);
    let other = load(&d, &packed, "");
    assert_eq!(other, id_in(&raw(&skopeo, &oci)), "converted");
    assert_eq!(d.inspect(&other, "{{json .RootFS.Layers}}"), layers);

    let layout = skopeo.path("layout");
    let oci = format!("oci:{}:1", layout.display());
    skopeo.ok(&["copy", &saved.replace("docker-", "oci-"), &oci]);
    assert_eq!(id_in(&raw(&skopeo, &oci)), id);
    let packed = skopeo.path("layout.tar");
    run("tar", &["-C", text(&layout), "-cf", text(&packed), "."]);
    assert_eq!(load(&d, &packed, ""), id, "an OCI layout");

    let archive = skopeo.path("docker.tar");
    skopeo.ok(&["copy", &saved, &format!("docker-archive:{}:{NAME}", archive.display())]);
    assert_eq!(load(&d, &archive, NAME), id, "a docker archive");
    let archive = skopeo.path("oci.tar");
    skopeo.ok(&["copy", &oci, &format!("oci-archive:{}:{NAME}", archive.display())]);
    assert_eq!(load(&d, &archive, NAME), id, "an OCI archive");
}

#[test]
fn podman_loads_what_is_saved_and_what_it_saves_is_loaded() {
    let Some(podman) = Tool::podman() else { return };
    let (d, id, saved) = judged();
    podman.ok(&["load", "-q", "-i", text(&saved)]);
    let seen = podman.ok(&["image", "inspect", "--format", "{{.Id}}", NAME]);
    assert_eq!(format!("sha256:{seen}"), id);
    for form in ["docker-archive", "oci-archive"] {
        let archive = podman.path(form);
        podman.ok(&["save", "-q", "--format", form, "-o", text(&archive), NAME]);
        assert_eq!(load(&d, &archive, NAME), id, "{form}");
    }
}

#[test]
fn docker_loads_what_is_saved_and_what_it_saves_is_loaded() {
    let Some(dockerd) = Dockerd::start() else { return };
    let docker = dockerd.client();
    let (d, id, saved) = judged();
    docker.ok(&["load", "-q", "-i", text(&saved)]);
    assert_eq!(docker.inspect(NAME, "{{.Id}}"), id);
    let layers = "{{json .RootFS.Layers}}";
    assert_eq!(docker.inspect(NAME, layers), d.inspect(NAME, layers));
    let archive = d.scratch().join("docker.tar");
    docker.ok(&["save", "-o", text(&archive), NAME]);
    assert_eq!(load(&d, &archive, NAME), id);
}

#[test]
fn skopeo_and_we_mean_the_same_image_by_a_digest() {
    let Some(skopeo) = Tool::skopeo() else { return };
    let registry = Registry::start();
    let (d, id, saved) = judged();
    let ours = format!("{}/ours:1", registry.host());
    d.ok(&["tag", NAME, &ours]);
    let pushed = d.ok(&["push", &ours]);
    let theirs = skopeo.ok(&["inspect", "--tls-verify=false", &format!("docker://{ours}")]);
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let digest = theirs["Digest"].as_str().unwrap();
    assert!(pushed.contains(&format!("1: digest: {digest} size: ")), "{pushed}");
    let exact = format!("{}/ours@{digest}", registry.host());
    assert_eq!(d.inspect(&ours, "{{join .RepoDigests \" \"}}"), exact);
    assert_eq!(id_in(&raw(&skopeo, &format!("docker://{exact}"))), id);

    for (tag, form, flags) in [
        ("gzip", "oci-archive", &[][..]),
        ("zstd", "oci-archive", &["--dest-compress-format", "zstd"]),
        ("docker", "docker-archive", &["--format", "v2s2"]),
    ] {
        let saved = format!("{form}:{}", saved.display());
        d.ok(&["rmi", "-f", &id]);
        let name = format!("{}/theirs-{tag}:1", registry.host());
        let target = format!("docker://{name}");
        let copy = ["copy", "--dest-tls-verify=false", &saved, &target];
        skopeo.ok(&[&copy[..], flags].concat());
        let manifest = raw(&skopeo, &target);
        if tag == "zstd" {
            let said = String::from_utf8_lossy(&manifest);
            assert!(said.contains("tar+zstd"), "{said}");
        }
        d.ok(&["pull", "-q", &name]);
        assert_eq!(d.inspect(&name, "{{.Id}}"), id_in(&manifest), "{tag}");
        assert_eq!(d.inspect(&name, "{{.Id}}"), id, "{tag}");
        let digest = skopeo.ok(&["inspect", "--tls-verify=false", "--format={{.Digest}}", &target]);
        let repository = name.trim_end_matches(":1");
        let exact = format!("{repository}@{digest}");
        assert_eq!(d.inspect(&name, "{{join .RepoDigests \" \"}}"), exact);
        assert_eq!(d.ok(&["run", "--rm", &name, "cat", "/srv/changed"]), "after");
    }
}

#[test]
fn of_an_index_the_image_for_the_machine_is_pulled() {
    let Some(skopeo) = Tool::skopeo() else { return };
    let registry = Registry::start();
    let d = Daemon::start_with(Cli::Capsa, Setup::default());
    let mut entries = Vec::new();
    let mut ids = BTreeMap::new();
    for machine in ["arm64", "amd64"] {
        let archive = busybox().named(NAME).for_machine(machine).write(d.scratch());
        let target = format!("docker://{}/many:{machine}", registry.host());
        let archive = format!("docker-archive:{}", archive.display());
        skopeo.ok(&["copy", "--dest-tls-verify=false", "--format=oci", &archive, &target]);
        let manifest = raw(&skopeo, &target);
        ids.insert(machine, id_in(&manifest));
        let digest = skopeo.ok(&["inspect", "--tls-verify=false", "--format={{.Digest}}", &target]);
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": manifest.len(),
            "platform": { "os": "linux", "architecture": machine },
        }));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
    put_manifest(&registry, "many/manifests/all", kind, &index.to_string());
    let name = format!("{}/many:all", registry.host());
    let digest = skopeo.ok(&[
        "inspect",
        "--tls-verify=false",
        "--format={{.Digest}}",
        &format!("docker://{name}"),
    ]);
    let ours = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let other = if ours == "amd64" { "arm64" } else { "amd64" };
    for (machine, more) in
        [(ours, &[][..]), (other, &["--platform", &format!("linux/{other}")]), (ours, &[])]
    {
        d.ok(&[&["pull", "-q"], more, &[&name]].concat());
        assert_eq!(
            d.inspect(&name, "{{.Architecture}} {{.Id}}"),
            format!("{machine} {}", ids[machine])
        );
        let exact = format!("{}/many@{digest}", registry.host());
        assert_eq!(d.inspect(&name, "{{join .RepoDigests \" \"}}"), exact);
    }
}

#[test]
fn umoci_unpacks_the_same_files() {
    let (Some(umoci), Some(skopeo)) = (Tool::umoci(), Tool::skopeo()) else { return };
    let registry = Registry::start();
    let (d, _, saved) = judged();
    let ours = umoci.path("ours");
    let exported = umoci.path("exported.tar");
    let container = d.ok(&["create", NAME]);
    d.ok(&["export", "-o", text(&exported), &container]);
    fs::create_dir(&ours).unwrap();
    let keep = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner"];
    let what = ["-xpf", text(&exported), "-C", text(&ours)];
    run("tar", &[&keep[..], &what].concat());
    let mut ours = tree(&ours);
    ours.retain(|name, _| !MADE.iter().any(|made| name == Path::new(made)));
    assert!(ours[Path::new("srv/capable")].contains("security.capability=\\x01\\x00"), "{ours:#?}");

    // What is saved is an OCI layout as it is.
    let layout = umoci.path("saved");
    fs::create_dir(&layout).unwrap();
    run("tar", &["-xf", text(&saved), "-C", text(&layout)]);
    compare(&ours, &unpacked(&umoci, &layout, "of-saved"));

    let name = format!("{}/judged:1", registry.host());
    d.ok(&["tag", NAME, &name]);
    d.ok(&["push", "-q", &name]);
    let layout = umoci.path("pushed");
    let target = format!("oci:{}:1", layout.display());
    skopeo.ok(&["copy", "--src-tls-verify=false", &format!("docker://{name}"), &target]);
    compare(&ours, &unpacked(&umoci, &layout, "of-pushed"));
}

fn unpacked(umoci: &Tool, layout: &Path, name: &str) -> BTreeMap<PathBuf, String> {
    let bundle = umoci.path(name);
    let image = format!("{}:1", layout.display());
    umoci.ok(&["unpack", "--image", &image, text(&bundle)]);
    tree(&bundle.join("rootfs"))
}

#[track_caller]
fn compare(ours: &BTreeMap<PathBuf, String>, theirs: &BTreeMap<PathBuf, String>) {
    let names = ours.keys().chain(theirs.keys());
    let other: Vec<_> = names
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{}: {:?}, {:?}", name.display(), ours.get(name), theirs.get(name)))
        .collect();
    assert!(other.is_empty(), "ours, then theirs:\n{}", other.join("\n"));
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
}

/// What no tool here does: an index whose entries are there already.
#[track_caller]
fn put_manifest(registry: &Registry, place: &str, kind: &str, body: &str) {
    let mut stream = TcpStream::connect(registry.host()).unwrap();
    let (host, len) = (registry.host(), body.len());
    let head = format!("PUT /v2/{place} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}");
    let end = format!("Content-Length: {len}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(format!("{head}\r\n{end}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
