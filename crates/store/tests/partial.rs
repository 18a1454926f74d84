//! Unfinished blobs that wait for the rest of their bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, SystemTime};

use capsa_oci::Digest;
use capsa_store::{Durability, Ingest, Store};

fn kept(ingest: &mut Ingest) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 3]);
    loop {
        let n = ingest.read_kept(&mut buffer).unwrap();
        if n == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
}

fn begin(store: &Store, digest: &Digest, start: &[u8]) {
    let mut ingest = store.resume(digest, 100).unwrap();
    ingest.write_all(start).unwrap();
    ingest.keep();
}

#[test]
fn what_was_kept_is_read_first_and_completed_in_another_life() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"hello world");
    let store = Store::open(dir.path()).unwrap();
    begin(&store, &digest, b"hello ");
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let mut ingest = store.resume(&digest, 100).unwrap();
    assert_eq!(ingest.kept(), 6);
    assert!(ingest.write_all(b"too early").is_err());
    assert_eq!(kept(&mut ingest), b"hello ");
    ingest.write_all(b"world").unwrap();
    ingest.commit_as(Some(&digest), Durability::Process).unwrap();
    assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello world");
    assert_eq!(store.resume(&digest, 100).unwrap().kept(), 0);
}

#[test]
fn what_can_t_be_the_start_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"hello world");
    let store = Store::open(dir.path()).unwrap();
    begin(&store, &digest, b"hello there, world");
    assert_eq!(store.resume(&digest, 11).unwrap().kept(), 0);
    begin(&store, &digest, b"other ");
    let mut ingest = store.resume(&digest, 11).unwrap();
    kept(&mut ingest);
    ingest.write_all(b"world").unwrap();
    ingest.commit(Some(&digest)).unwrap_err();
    assert_eq!(store.resume(&digest, 11).unwrap().kept(), 0);
}

#[test]
fn two_at_once_don_t_share_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"hello world");
    let store = Store::open(dir.path()).unwrap();
    begin(&store, &digest, b"hello ");
    let mut first = store.resume(&digest, 11).unwrap();
    let mut second = store.resume(&digest, 11).unwrap();
    assert_eq!((first.kept(), second.kept()), (6, 0));
    second.write_all(b"hello world").unwrap();
    second.commit(Some(&digest)).unwrap();
    kept(&mut first);
    first.write_all(b"world").unwrap();
    first.commit(Some(&digest)).unwrap();
    assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello world");
}

#[test]
fn only_old_ones_that_nobody_uses_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (old, young, used) =
        (Digest::sha256(b"old"), Digest::sha256(b"young"), Digest::sha256(b"used"));
    let store = Store::open(dir.path()).unwrap();
    for digest in [&old, &young, &used] {
        begin(&store, digest, b"start");
    }
    let holder = store.resume(&used, 100).unwrap();
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    for digest in [&old, &used] {
        let path = dir.path().join(format!("ingest/sha256-{}", digest.hex()));
        File::options().write(true).open(path).unwrap().set_modified(yesterday).unwrap();
    }
    store.sweep().unwrap();
    holder.keep();
    let left = |digest: &Digest| store.resume(digest, 100).map(|mut i| kept(&mut i)).unwrap();
    assert_eq!((left(&old), left(&young)), (Vec::new(), b"start".to_vec()));
    assert_eq!(left(&used), b"start");
    let names: Vec<_> = fs::read_dir(dir.path().join("ingest")).unwrap().collect();
    assert!(names.len() <= 16, "what was looked at and dropped is gone");
}
