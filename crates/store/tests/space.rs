//! A full disk: a clear error, the space back, and a store that goes on. The data root
//! is a tmpfs of 6 MiB in a mount namespace of a child process.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod fixture;

use std::io::Write;
use std::process::Command;

use capsa_store::{Durability, Store};
use fixture::{assert_whole, child_root, container, id, put_image, run_with_own_mounts, scratch};

const SIZE: &str = "size=6m";

#[test]
fn a_full_disk_is_told_and_forgiven() {
    let root = scratch();
    run_with_own_mounts("on_a_small_disk", root.path());
}

#[test]
#[ignore = "the child of the test above"]
fn on_a_small_disk() {
    let Some(root) = child_root() else { return };
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&root).status();
    assert!(mount.unwrap().success());
    let store = Store::open(&root).unwrap();
    let image = put_image(&store, "a").unwrap();
    store.flush_trash().unwrap();

    // A blob that does not fit.
    let mut ingest = store.ingest().unwrap();
    let error = loop {
        if let Err(e) = ingest.write_all(&[7; 65_536]) {
            break e;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let free_when_full = free(&root);
    drop(ingest);
    assert!(free(&root) > free_when_full + (1 << 20), "the space of a failed ingest comes back");

    // The disk full to the last block.
    let ballast = root.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    let error = store.write_blob(b"small", Durability::Durable).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
    assert!(fixture::names(&root.join("ingest")).is_empty());

    // Removing is how one gets out of it, so it must work.
    store.insert_container(&container(&id(1), "one", &image), Durability::Durable).unwrap();
    store.remove_container(&id(1), Durability::Durable).unwrap();
    store.remove_image(&image).unwrap();
    assert!(store.sweep().unwrap().bytes > 0);
    store.flush_trash().unwrap();
    put_image(&store, "b").unwrap();

    // Until the database itself can't grow; then with room again.
    while file.write_all(&[7; 4096]).is_ok() {}
    let body = "x".repeat(4000);
    let error = (0..5000)
        .find_map(|n| {
            let image = store.images().unwrap()[0].0.clone();
            let mut new = container(&id(n), &id(n), &image);
            new.body.clone_from(&body);
            new.pool = None;
            store.insert_container(&new, Durability::Process).err()
        })
        .expect("6 MiB do not hold 5000 records of 4 kB");
    assert!(error.is_no_space(), "{error}");
    let before = store.containers().unwrap().len();
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let image = store.images().unwrap()[0].0.clone();
    store.insert_container(&container(&id(9999), "last", &image), Durability::Durable).unwrap();
    assert_eq!(store.containers().unwrap().len(), before + 1);
    for row in store.containers().unwrap() {
        if row.name != "last" {
            store.remove_container(&row.id, Durability::Process).unwrap();
        }
    }
    drop(store);
    let store = Store::open(&root).unwrap();
    assert_eq!(store.containers().unwrap().len(), 1);
    assert_whole(&store);
}

fn free(root: &std::path::Path) -> u64 {
    let stat = rustix::fs::statvfs(root).unwrap();
    stat.f_bavail * stat.f_frsize
}
