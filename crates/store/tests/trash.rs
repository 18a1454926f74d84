//! Removing a layer is one rename: whoever asks does not wait for its files, and they
//! are deleted in the background, by the next daemon if this one dies.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod fixture;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use capsa_oci::Digest;
use capsa_store::Store;
use fixture::{assert_whole, child, child_root, names, put_image, run_with_own_mounts, scratch};

const SIGKILL: i32 = 9;

#[test]
fn removing_a_layer_does_not_wait_for_its_files_and_the_next_open_deletes_them() {
    let root = scratch();
    run_with_own_mounts("with_a_file_that_cannot_be_deleted", root.path());
}

/// A mount in the middle of the tree makes deleting it fail, whoever tries: a removal
/// that succeeds has not tried.
#[test]
#[ignore = "the child of the test above"]
fn with_a_file_that_cannot_be_deleted() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    let image = put_image(&store, "a").unwrap();
    let chain = Digest::sha256(b"layer a");
    let inside = store.layer(&chain).unwrap().unwrap().join("etc");
    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&inside).status();
    assert!(mount.unwrap().success());
    store.remove_image(&image).unwrap();
    assert_eq!(store.sweep().unwrap().layers, std::slice::from_ref(&chain));
    assert_eq!(store.layer(&chain).unwrap(), None);
    assert!(store.flush_trash().is_err(), "it was tried after the removal");
    let trash = root.join("trash");
    let [left] = &names(&trash)[..] else { panic!("one layer is left: {:?}", names(&trash)) };
    let unmount = Command::new("umount").arg(trash.join(left).join("etc")).status();
    assert!(unmount.unwrap().success());
    drop(store);
    assert_whole(&Store::open(&root).unwrap());
}

#[test]
fn a_large_layer_whose_daemon_dies_is_deleted_by_the_next_one() {
    let root = scratch();
    let status = child("remover_of_a_large_layer", root.path()).status().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL));
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.layer(&Digest::sha256(b"layer big")).unwrap(), None);
    assert!(store.images().unwrap().is_empty());
    // Also that its trash is empty.
    assert_whole(&store);
}

#[test]
#[ignore = "the child of the test above"]
fn remover_of_a_large_layer() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    let image = put_image(&store, "big").unwrap();
    let layer = store.layer(&Digest::sha256(b"layer big")).unwrap().unwrap();
    for n in 0..3000 {
        fs::write(layer.join(n.to_string()), "").unwrap();
    }
    store.remove_image(&image).unwrap();
    store.sweep().unwrap();
    // In the middle of the deletion, or even before it.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
