//! What the store's tests share: a scratch data root, small images, and the one
//! check that everything visible is whole.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use capsa_oci::Digest;
use capsa_store::{Durability, IdPool, ImageRow, NewContainer, Store, VolumeRow};

pub const POOL: IdPool = IdPool { base: 100_000, count: 100 };

/// A root that is gone when the test is.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("capsa-store-").tempdir().unwrap()
}

/// Puts an image of one layer and two blobs, all made of `seed`; returns its id.
pub fn put_image(store: &Store, seed: &str) -> capsa_store::Result<Digest> {
    let mut lease = store.lease();
    let config = format!("config {seed}");
    let id = Digest::sha256(config.as_bytes());
    let mut ingest = lease.ingest(&id)?;
    ingest.write_all(config.as_bytes()).unwrap();
    ingest.commit_as(Some(&id), Durability::Process)?;
    let packed = vec![b'x'; 5000];
    let packed_digest = Digest::sha256(&packed);
    let mut ingest = lease.ingest(&packed_digest)?;
    ingest.write_all(&packed).unwrap();
    ingest.commit(Some(&packed_digest))?;
    let chain = layer(&mut lease, seed)?;
    let row = ImageRow {
        manifest: None,
        config: id.clone(),
        layers: vec![chain],
        blobs: vec![packed_digest],
        size: 1,
        created_ns: 1,
        body: "{}".to_owned(),
    };
    store.put_image(&id, &row)?;
    Ok(id)
}

pub fn layer(lease: &mut capsa_store::Lease, seed: &str) -> capsa_store::Result<Digest> {
    let chain = Digest::sha256(format!("layer {seed}").as_bytes());
    let ingest = lease.begin_layer(&chain)?;
    fs::create_dir(ingest.path().join("etc")).unwrap();
    fs::write(ingest.path().join("etc/seed"), seed).unwrap();
    ingest.commit(seed.len() as u64)?;
    Ok(chain)
}

pub fn container(id: &str, name: &str, image: &Digest) -> NewContainer {
    NewContainer {
        id: id.to_owned(),
        name: name.to_owned(),
        image: image.clone(),
        created_ns: 5,
        pool: Some(POOL),
        volumes: Vec::new(),
        body: "{}".to_owned(),
    }
}

pub fn volume(name: &str) -> VolumeRow {
    VolumeRow { name: name.to_owned(), created_ns: 1, body: "{}".to_owned() }
}

/// 64 hex digits made of a number.
pub fn id(number: u64) -> String {
    format!("{number:064x}")
}

/// Everything that can be seen is whole, and nothing else takes space.
pub fn assert_whole(store: &Store) {
    store.flush_trash().unwrap();
    for (id, image) in store.images().unwrap() {
        let config = store.read_blob(&image.config, 1 << 20).unwrap();
        assert_eq!(Digest::sha256(&config), id);
        for blob in &image.blobs {
            store.read_blob(blob, 1 << 20).unwrap();
        }
        for chain in &image.layers {
            let tree = store.layer(chain).unwrap().expect("layer of an image");
            let seed = fs::read_to_string(tree.join("etc/seed")).unwrap();
            assert_eq!(Digest::sha256(format!("layer {seed}").as_bytes()), *chain);
        }
    }
    for volume in store.volumes().unwrap() {
        assert!(store.volume_dir(&volume.name).unwrap().is_dir(), "{}", volume.name);
    }
    let root = store.root();
    for (dir, allowed) in [
        ("ingest", Vec::new()),
        ("trash", Vec::new()),
        ("containers", store.containers().unwrap().into_iter().map(|c| c.id).collect()),
        ("blobs/sha256", known(store, "blobs", "digest")),
        ("layers", known(store, "layers", "chain_id")),
    ] {
        for name in names(&root.join(dir)) {
            assert!(allowed.contains(&name), "{dir}/{name} is known to nobody");
        }
    }
}

fn known(store: &Store, table: &str, key: &str) -> Vec<String> {
    let usage = store.layer_references().unwrap();
    if table == "layers" {
        return usage.into_iter().map(|(chain, ..)| chain.hex().to_owned()).collect();
    }
    let _ = key;
    names(&store.root().join("blobs/sha256"))
        .into_iter()
        .filter(|hex| store.has_blob(&Digest::from_hex(hex).unwrap()).unwrap())
        .collect()
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// This test binary again, to run one ignored test as a child process.
pub fn child(test: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("CAPSA_STORE_ROOT", root);
    command
}

/// The root that [`child`] gave, in the child.
pub fn child_root() -> Option<std::path::PathBuf> {
    std::env::var_os("CAPSA_STORE_ROOT").map(Into::into)
}
