//! Images against a real store: in, out, named, removed, committed.

use capsa_image::registry::{Access, RegistryConfig, Retries};
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::sync::Mutex;

use capsa_image::tar::{Entry, Kind, Writer};
use capsa_oci::{Digest, ExecConfig, Reference};
use capsa_store::{Durability, NewContainer, Store};
use serde_json::json;

use super::*;
use crate::image_ops::Removed;
use crate::options::{CommitOptions, ImageStoreMark};

pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) images: Images,
}

/// Asks once, so that a failure comes at once.
fn once() -> RegistryConfig {
    let retries = Retries { attempts: 1, ..Retries::default() };
    RegistryConfig { retries, ..RegistryConfig::default() }
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        Self { dir, images: Images::new(store, Registries::new(once())) }
    }

    pub(super) fn load(&self, archive: &[u8]) -> Result<Vec<String>> {
        let lines = Mutex::new(Vec::new());
        self.images.load(archive, &|progress| {
            lines.lock().unwrap().extend(progress.stream);
        })?;
        Ok(lines.into_inner().unwrap())
    }

    pub(super) fn save(&self, keys: &[&str]) -> Vec<u8> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut out = Vec::new();
        self.images.write_archive(self.images.plan_save(&keys).unwrap(), &mut out).unwrap();
        out
    }

    pub(super) fn id(&self, key: &str) -> Digest {
        self.images.resolve(key).unwrap()
    }

    fn add_container(&self, image: &Digest, digit: char) -> String {
        let id = digit.to_string().repeat(64);
        let new = NewContainer {
            id: id.clone(),
            name: id.clone(),
            image: image.clone(),
            created_ns: 1,
            pool: None,
            volumes: Vec::new(),
            body: "{}".to_owned(),
        };
        self.images.store.insert_container(&new, Durability::Process).unwrap();
        id
    }

    fn remove(&self, key: &str, force: bool, running: bool) -> Result<Vec<Removed>> {
        self.images.remove(key, force, true, &|_| running)
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        let mut entry = Entry::new(*path, Kind::File, 0o644);
        entry.size = content.len() as u64;
        writer.entry(&entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

pub(super) fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let steps: Vec<_> = diff_ids
        .iter()
        .map(|id| json!({"created": "2020-01-02T03:04:05Z", "created_by": id.short()}))
        .chain([json!({"created_by": "CMD sh", "empty_layer": true})])
        .collect();
    json!({"architecture": "amd64", "os": "linux", "created": "2020-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["A=1"]}, "history": steps,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

pub(super) fn archive(names: &[&str], layers: &[&[u8]]) -> Vec<u8> {
    archive_of(names, &config(layers), layers)
}

pub(super) fn archive_of(names: &[&str], config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let paths: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let list =
        json!([{"Config": "c.json", "RepoTags": names, "Layers": paths}]).to_string().into_bytes();
    let mut files = vec![("manifest.json", &list[..]), ("c.json", config)];
    files.extend(paths.iter().map(String::as_str).zip(layers.iter().copied()));
    tar(&files)
}

fn two_layers() -> (Vec<u8>, Vec<u8>) {
    (tar(&[("etc/a", b"lower"), ("etc/b", b"b")]), tar(&[("etc/.wh.b", b""), ("top", b"upper")]))
}

#[test]
fn what_is_loaded_can_be_found_shown_and_run() {
    let world = World::new();
    let (lower, upper) = two_layers();
    let lines = world.load(&archive(&["me/app:1", "app"], &[&lower, &upper])).unwrap();
    assert_eq!(lines, ["Loaded image: me/app:1\n", "Loaded image: app:latest\n"]);
    let id = Digest::sha256(&config(&[&lower, &upper]));
    for key in ["app", "app:latest", "docker.io/library/app", "me/app:1", id.as_str(), id.short()] {
        assert_eq!(world.id(key), id, "{key}");
    }
    let view = world.images.inspect("app").unwrap();
    assert_eq!(
        (view.tags, view.size, view.containers),
        (vec!["app:latest".into(), "me/app:1".into()], 11, 0)
    );
    let layers = world.images.rootfs_layers(&id).unwrap();
    assert_eq!(fs::read(layers[0].join("top")).unwrap(), b"upper");
    assert_eq!(fs::read(layers[1].join("etc/a")).unwrap(), b"lower");
    let history = world.images.history("app").unwrap();
    let steps: Vec<_> = history.iter().map(|step| (step.size, step.created_by.as_str())).collect();
    assert_eq!(steps[0], (0, "CMD sh"));
    assert_eq!((steps[1].0, steps[2].0), (5, 6));
    assert_eq!((history[0].id.clone(), history[2].created_s), (Some(id), 1_577_934_245));
}

#[test]
fn what_is_not_there_is_named_so_that_clients_pull() {
    let world = World::new();
    for (key, text) in
        [("busybox", "No such image: busybox:latest"), ("a/b:c", "No such image: a/b:c")]
    {
        let error = world.images.resolve(key).unwrap_err();
        assert_eq!((error.class, error.message.as_str()), (Class::NotFound, text));
    }
    // Nobody listens on port 1.
    let reference = Reference::parse("127.0.0.1:1/busybox").unwrap();
    let error = world.images.pull(&reference, None, &Access::default(), &|_| {}).unwrap_err();
    assert!(error.class == Class::Unavailable && error.message.contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_saved_image_is_the_same_image_elsewhere() {
    let (first, second) = (World::new(), World::new());
    let (lower, upper) = two_layers();
    first.load(&archive(&["app:1", "app:2", "other"], &[&lower, &upper])).unwrap();
    let saved = first.save(&["app"]);
    let lines = second.load(&saved).unwrap();
    assert_eq!(lines, ["Loaded image: app:1\n", "Loaded image: app:2\n"]);
    assert_eq!(first.id("app:1"), second.id("app:2"));
    assert_eq!(second.save(&["app"]), saved);
    // By id there are no names.
    let third = World::new();
    let lines = third.load(&first.save(&[first.id("other").short()])).unwrap();
    assert_eq!(lines, [format!("Loaded image ID: {}\n", first.id("other"))]);
    assert!(first.images.plan_save(&["app".to_owned(), "nowhere".to_owned()]).is_err());
}

#[test]
fn a_name_moves_to_the_image_loaded_last() {
    let world = World::new();
    world.load(&archive(&["app"], &[&tar(&[("x", b"1")])])).unwrap();
    let old = world.id("app");
    let lines = world.load(&archive(&["app"], &[&tar(&[("x", b"2")])])).unwrap();
    assert!(
        lines[0].starts_with("The image app:latest already exists")
            && lines[0].contains(old.as_str())
    );
    assert_ne!(world.id("app"), old);
    assert_eq!(world.images.inspect(old.as_str()).unwrap().tags, Vec::<String>::new());
}

#[test]
fn a_layer_that_lies_is_refused_even_where_the_true_one_is() {
    let world = World::new();
    let layer = tar(&[("x", b"true")]);
    let lie = tar(&[("x", b"lie!")]);
    let bad = archive_of(&["bad"], &config(&[&layer]), &[&lie]);
    assert!(world.load(&bad).is_err());
    world.load(&archive(&["good"], &[&layer])).unwrap();
    assert!(world.load(&bad).is_err());
    assert!(world.images.resolve("bad").is_err());
    // Nothing of it stays behind.
    assert_eq!(world.images.store.disk_usage().unwrap().reclaimable_bytes, 0);
}

#[test]
fn removing_follows_dockers_rules_and_words() {
    let world = World::new();
    let layer = tar(&[("x", b"1")]);
    world.load(&archive(&["a:1", "b:1"], &[&layer])).unwrap();
    let id = world.id("a:1");
    let short = id.short().to_owned();
    let text = |result: Result<Vec<Removed>>| result.unwrap_err().message;
    assert_eq!(
        text(world.remove(&short, false, false)),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(world.remove("b:1", false, false).unwrap(), [Removed::Untagged("b:1".into())]);
    let container = world.add_container(&id, 'c');
    let user = &container[..12];
    assert_eq!(
        text(world.remove("a:1", false, false)),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container {user} is using its referenced image {short}"
        )
    );
    assert_eq!(
        text(world.remove(&short, false, false)),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {user}"
        )
    );
    assert_eq!(
        text(world.remove(&short, true, true)),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {user}"
        )
    );
    // By force the image goes, its layers stay as long as the container.
    let removed = world.remove("a:1", true, false).unwrap();
    assert_eq!(removed, [Removed::Untagged("a:1".into()), Removed::Deleted(id.to_string())]);
    assert!(world.images.resolve(&short).is_err() && world.images.list().unwrap().is_empty());
    assert_eq!(world.images.rootfs_layers(&id).unwrap().len(), 1);
    world.images.store.remove_container(&container, Durability::Process).unwrap();
    world.images.drop_hidden().unwrap();
    assert_eq!(world.images.store.disk_usage().unwrap().layers, 0);
}

#[test]
fn prune_takes_the_unnamed_and_with_all_the_unused() {
    let world = World::new();
    for content in [b"1", b"2", b"3"] {
        world.load(&archive(&["app"], &[&tar(&[("x", content)])])).unwrap();
    }
    let none = HashSet::new();
    let all = Pruning { all: true, choose: &|_| true, gone: &none };
    let dangling = Pruning { all: false, choose: &|_| true, gone: &none };
    let (removed, pruned) = world.images.prune(&dangling).unwrap();
    assert_eq!((removed.len(), pruned.removed.len()), (2, 2));
    assert!(pruned.bytes > 0);
    let id = world.id("app");
    let container = world.add_container(&id, 'd');
    assert!(world.images.prune(&all).unwrap().0.is_empty());
    world.images.store.remove_container(&container, Durability::Process).unwrap();
    assert_eq!(world.images.prune(&all).unwrap().0.len(), 2);
}

/// Mixes tried by a test.
const SEEDS: u64 = 12;

/// Images over a few shared layers, some named twice, unnamed, used or hidden, in a
/// different mix for every seed.
fn mixed(seed: u64) -> World {
    let world = World::new();
    let mut state = seed;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) % n
    };
    let layers: Vec<Vec<u8>> =
        (1..5u8).map(|n| tar(&[(&format!("f{n}"), &vec![n; 100 * usize::from(n)][..])])).collect();
    for n in 0..6 {
        let chosen: Vec<&[u8]> =
            layers.iter().filter(|_| below(2) == 0).map(Vec::as_slice).collect();
        let names = [format!("i{}:1", below(4)), format!("second{}:1", below(6))];
        let names: Vec<&str> = names.iter().map(String::as_str).take(below(3) as usize).collect();
        let mut config: serde_json::Value = serde_json::from_slice(&config(&chosen)).unwrap();
        config["author"] = n.to_string().into();
        world.load(&archive_of(&names, config.to_string().as_bytes(), &chosen)).unwrap();
    }
    for (n, (id, _)) in world.images.store.images().unwrap().into_iter().enumerate() {
        if below(3) == 0 {
            let container = world.add_container(&id, char::from_digit(n as u32, 16).unwrap());
            if below(2) == 0 {
                world.remove(id.as_str(), true, false).unwrap();
                if below(2) == 0 {
                    // Nobody has dropped it yet.
                    let store = &world.images.store;
                    store.remove_container(&container, Durability::Process).unwrap();
                }
            }
        }
    }
    world
}

#[test]
fn a_rehearsed_prune_is_the_prune() {
    let none = HashSet::new();
    for seed in 0..SEEDS {
        let world = mixed(seed);
        for all in [false, true] {
            let pruning = Pruning { all, choose: &|_| true, gone: &none };
            let (would, frees) = world.images.rehearse_prune(&pruning).unwrap();
            let before = world.images.store.disk_usage().unwrap();
            let (removed, freed) = world.images.prune(&pruning).unwrap();
            assert_eq!((would, frees.bytes), (removed, freed.bytes), "seed {seed}, all {all}");
            let after = world.images.store.disk_usage().unwrap();
            let bytes = |usage: capsa_store::DiskUsage| usage.blob_bytes + usage.layer_bytes;
            assert_eq!(bytes(before) - bytes(after), freed.bytes, "seed {seed}, all {all}");
        }
    }
}

#[test]
fn a_rehearsed_removal_is_the_removal() {
    for seed in 0..SEEDS {
        let world = mixed(seed);
        let mut keys: Vec<String> = Vec::new();
        for view in world.images.list().unwrap() {
            keys.extend(view.tags);
            keys.push(view.id.to_string());
        }
        for (n, key) in keys.iter().enumerate() {
            let force = n % 3 == 0;
            let would = world.images.rehearse_removal(key, force, true, &|_| false);
            let before = world.images.store.disk_usage().unwrap();
            let removed = world.remove(key, force, false);
            let after = world.images.store.disk_usage().unwrap();
            match (would, removed) {
                (Ok((would, bytes)), Ok(removed)) => {
                    assert_eq!(would, removed, "seed {seed}, {key}");
                    let of = |usage: capsa_store::DiskUsage| usage.blob_bytes + usage.layer_bytes;
                    assert_eq!(of(before) - of(after), bytes, "seed {seed}, {key}");
                }
                (would, removed) => {
                    assert_eq!(would.unwrap_err().message, removed.unwrap_err().message);
                    assert_eq!(before, after);
                }
            }
        }
    }
}

#[test]
fn the_longest_unused_go_first_until_the_store_is_small_enough() {
    let world = World::new();
    let noise = |n: u8| vec![n; 100_000];
    for n in 1..5u8 {
        let layer = tar(&[("f", &noise(n))]);
        world.load(&archive(&[&format!("i{n}")], &[&layer])).unwrap();
    }
    let id = |n: u8| world.id(&format!("i{n}"));
    let ids = [id(1), id(2), id(3), id(4)];
    let usage = world.images.store.disk_usage().unwrap();
    let total = usage.blob_bytes + usage.layer_bytes;
    let mark = |max_bytes, idle_ns| ImageStoreMark { max_bytes, idle_ns };
    let trim = |mark, keep: &[Digest]| {
        let removed = world.images.trim(&mark, keep).unwrap();
        let ids = removed.into_iter().filter_map(|removed| match removed {
            Removed::Deleted(id) => Some(id),
            Removed::Untagged(_) => None,
        });
        ids.collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    assert_eq!(trim(mark(total, 0), &[]), none, "it fits");
    assert_eq!(trim(mark(1, i64::MAX), &[]), none, "nothing is idle for that long");
    world.add_container(&ids[0], 'a');
    // One of them is enough, and it is not the one that came last.
    assert_eq!(trim(mark(total - 1, 0), &ids[1..2]), [ids[2].to_string()]);
    assert_eq!(trim(mark(1, 0), &ids[3..]), [ids[1].to_string()]);
    assert_eq!(trim(mark(1, 0), &ids[3..]), none);
    assert_eq!(world.images.list().unwrap().len(), 2);
}

#[test]
fn a_commit_adds_a_layer_and_keeps_the_rest() {
    let world = World::new();
    let (lower, upper) = two_layers();
    world.load(&archive(&["app"], &[&lower, &upper])).unwrap();
    let parent = world.id("app");
    let top = world.dir.path().join("upper");
    fs::create_dir_all(top.join("var")).unwrap();
    fs::write(top.join("var/new"), "made in the container").unwrap();
    let input = CommitInput {
        parent: parent.clone(),
        upper: top,
        config: ExecConfig { cmd: Some(vec!["sh".into()]), ..ExecConfig::default() },
        command: "sh -c 'touch'".to_owned(),
    };
    let options = CommitOptions {
        reference: Some("made:1".to_owned()),
        author: "me".to_owned(),
        message: "why".to_owned(),
        changes: vec!["ENV B=2".to_owned(), "CMD [\"x\"]".to_owned()],
        pause: false,
    };
    let id = world.images.commit(&input, &options).unwrap();
    let view = world.images.inspect("made:1").unwrap();
    let exec = view.config.config.clone().unwrap();
    assert_eq!((exec.cmd, exec.env), (Some(vec!["x".into()]), Some(vec!["B=2".into()])));
    assert_eq!((view.id, view.parent, view.config.history.len()), (id.clone(), Some(parent), 4));
    let layers = world.images.rootfs_layers(&id).unwrap();
    assert_eq!((layers.len(), fs::read(layers[0].join("var/new")).unwrap().len()), (3, 21));
    // What was committed loads elsewhere as the same image.
    let elsewhere = World::new();
    elsewhere.load(&world.save(&["made:1"])).unwrap();
    assert_eq!(elsewhere.id("made:1"), id);
    // Without changes there is no layer, only a step.
    let none = CommitInput { upper: world.dir.path().join("none"), ..input };
    fs::create_dir(&none.upper).unwrap();
    let same = world.images.commit(&none, &CommitOptions::default()).unwrap();
    assert_eq!(world.images.rootfs_layers(&same).unwrap().len(), 2);
    let bad = CommitOptions { changes: vec!["RUN x".to_owned()], ..CommitOptions::default() };
    assert_eq!(world.images.commit(&none, &bad).unwrap_err().class, Class::InvalidInput);
}

#[test]
fn an_import_is_one_layer_compressed_or_not() {
    let world = World::new();
    let tree = tar(&[("etc/os-release", b"ID=x")]);
    let packed = capsa_image::compress(&mut &tree[..], capsa_image::Compression::Gzip, Vec::new());
    let name = Reference::parse("base").unwrap();
    let changes = ["CMD [\"/bin/sh\"]".to_owned()];
    let id = world.images.import(&packed.unwrap()[..], Some(&name), &changes, "from disk").unwrap();
    let view = world.images.inspect("base:latest").unwrap();
    assert_eq!(view.config.rootfs.diff_ids, [Digest::sha256(&tree)]);
    assert_eq!(view.config.history[0].comment.as_deref(), Some("from disk"));
    let layers = world.images.rootfs_layers(&id).unwrap();
    assert_eq!(fs::read(layers[0].join("etc/os-release")).unwrap(), b"ID=x");
    let xz = world.images.import(&b"\xfd7zXZ\0\0\0"[..], None, &[], "").unwrap_err();
    assert!(xz.class == Class::InvalidInput && xz.message.contains("xz"), "{xz}");
}

#[test]
fn loads_at_the_same_time_and_a_sweep_between_them_lose_nothing() {
    let world = World::new();
    let archives: Vec<Vec<u8>> = (0..6u8)
        .map(|i| {
            archive(
                &[&format!("i{i}")],
                &[&tar(&[("same", &[7; 400_000])]), &tar(&[("own", &[i])])],
            )
        })
        .collect();
    std::thread::scope(|scope| {
        for archive in &archives {
            let world = &world;
            scope.spawn(move || {
                world.load(archive).unwrap();
                world.images.sweep().unwrap();
            });
        }
    });
    for i in 0..6u8 {
        let id = world.id(&format!("i{i}"));
        let layers = world.images.rootfs_layers(&id).unwrap();
        let mut own = Vec::new();
        fs::File::open(layers[0].join("own")).unwrap().read_to_end(&mut own).unwrap();
        assert_eq!(own, [i]);
    }
}

/// Nothing unfinished or unclaimed lies about.
pub(super) fn assert_clean(world: &World) {
    world.images.store.flush_trash().unwrap();
    let ingests = fs::read_dir(world.dir.path().join("data/ingest")).unwrap();
    let left: Vec<_> = ingests.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.images.store.disk_usage().unwrap().reclaimable_bytes, 0);
}

/// A layer of several large files, beyond what stays in memory of an archive.
pub(super) fn large_layer(seed: u8) -> Vec<u8> {
    let content: Vec<u8> = (0..300_000_u32).map(|i| (i / 251) as u8 ^ seed).collect();
    let names: Vec<String> = (0..8).map(|i| format!("usr/share/f{i}")).collect();
    tar(&names.iter().map(|name| (name.as_str(), &content[..])).collect::<Vec<_>>())
}

#[test]
fn a_layer_is_the_same_packed_or_not_once_or_twice() {
    let (layer, other) = (large_layer(1), large_layer(2));
    let pack = |kind| capsa_image::compress(&mut &layer[..], kind, Vec::new()).unwrap();
    let config = config(&[&layer, &other, &layer]);
    for blob in
        [layer.clone(), pack(capsa_image::Compression::Gzip), pack(capsa_image::Compression::Zstd)]
    {
        let world = World::new();
        world.load(&archive_of(&["app"], &config, &[&blob, &other, &blob])).unwrap();
        let id = world.id("app");
        assert_eq!(id, Digest::sha256(&config));
        let layers = world.images.rootfs_layers(&id).unwrap();
        assert_eq!(layers.len(), 3);
        for (path, seed) in layers.iter().zip([1, 2, 1]) {
            assert_eq!(fs::read(path.join("usr/share/f7")).unwrap()[0], seed);
        }
        assert_clean(&world);
        // All of it is there already: nothing is kept of a second time.
        world.load(&archive_of(&["again"], &config, &[&blob, &other, &blob])).unwrap();
        assert_eq!(world.id("again"), id);
        assert_clean(&world);
    }
}

#[test]
fn a_layer_damaged_in_the_middle_is_refused_and_leaves_nothing() {
    let mut damaged = large_layer(3);
    let header = (512 + 300_032) * 4;
    damaged[header + 20] ^= 1;
    let mut packed =
        capsa_image::compress(&mut &large_layer(3)[..], capsa_image::Compression::Gzip, Vec::new())
            .unwrap();
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0x55);
    // Known to the archive by what it is, so only its form is wrong.
    for (blob, diff_of, text) in [(&damaged, &damaged, "checksum"), (&packed, &large_layer(3), "")]
    {
        let world = World::new();
        let bad =
            archive_of(&["bad"], &config(&[&large_layer(4), diff_of]), &[&large_layer(4), blob]);
        let error = world.load(&bad).unwrap_err();
        assert!(error.class == Class::InvalidInput && error.message.contains(text), "{error}");
        assert!(world.images.resolve("bad").is_err());
        assert_clean(&world);
    }
}

#[test]
fn a_layer_of_another_digest_is_refused_and_leaves_nothing() {
    let (promised, sent) = (large_layer(5), large_layer(6));
    let packed =
        capsa_image::compress(&mut &sent[..], capsa_image::Compression::Gzip, Vec::new()).unwrap();
    for blob in [&sent, &packed] {
        let world = World::new();
        let error = world.load(&archive_of(&["bad"], &config(&[&promised]), &[blob])).unwrap_err();
        let (want, got) = (Digest::sha256(&promised), Digest::sha256(&sent));
        let text = format!("layer does not match its digest: want {want}, got {got}");
        assert_eq!((error.class, error.message), (Class::InvalidInput, text));
        assert_clean(&world);
    }
}

#[test]
fn what_only_looks_like_a_layer_harms_nobody() {
    let world = World::new();
    let mut damaged = large_layer(7);
    damaged.truncate(700_000);
    let layer = large_layer(8);
    let list = json!([{"Config": "c.json", "RepoTags": ["app"], "Layers": ["l.tar"]}]).to_string();
    let config = config(&[&layer]);
    let archive = tar(&[
        ("notes.tar", &damaged),
        ("c.json", &config),
        ("l.tar", &layer),
        ("manifest.json", list.as_bytes()),
    ]);
    world.load(&archive).unwrap();
    assert_eq!(world.id("app"), Digest::sha256(&config));
    assert_clean(&world);
}

#[test]
fn an_archive_cut_off_leaves_nothing() {
    let whole = archive(&["app"], &[&large_layer(9), &large_layer(10)]);
    for part in [1, 3, 7] {
        let world = World::new();
        assert!(world.load(&whole[..whole.len() * part / 8]).is_err());
        assert_clean(&world);
    }
}
