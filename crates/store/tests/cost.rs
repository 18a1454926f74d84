//! What things cost here, printed (`--nocapture`); the bounds are far off, so that only
//! a blunder (a query without an index, a flush too many) fails on a loaded machine.

#![allow(clippy::print_stdout, reason = "its figures are what this test is for")]

mod fixture;

use std::time::{Duration, Instant};

use capsa_store::{Durability, Store};
use fixture::{container, id, put_image, scratch};

const RECORDS: u64 = 500;
const RECORD_BYTES: usize = 3500;

#[test]
fn costs() {
    let root = scratch();
    let begun = Instant::now();
    let store = Store::open(root.path()).unwrap();
    print("open, new root", begun.elapsed(), 1);
    let begun = Instant::now();
    let image = put_image(&store, "a").unwrap();
    print("put image: three blobs, one layer", begun.elapsed(), 1);

    let mut body = "x".repeat(RECORD_BYTES);
    let begun = Instant::now();
    for n in 0..RECORDS {
        let mut new = container(&id(n), &format!("name{n}"), &image);
        new.body.clone_from(&body);
        new.pool = Some(capsa_store::IdPool { base: 100_000, count: 1000 });
        store.insert_container(&new, Durability::Process).unwrap();
    }
    print("insert container, process", begun.elapsed(), 500);
    for (name, durability, times) in
        [("process", Durability::Process, 500), ("durable", Durability::Durable, 50)]
    {
        let begun = Instant::now();
        for n in 0..times {
            // SQLite writes nothing for a row that stays the same.
            body.replace_range(..8, &format!("{name:.3}{n:05}"));
            store.update_container(&id(n), &body, durability).unwrap();
        }
        print(&format!("update container, {name}"), begun.elapsed(), times);
    }

    let begun = Instant::now();
    let rows = store.containers().unwrap();
    let cold = begun.elapsed();
    assert_eq!(rows.len() as u64, RECORDS);
    print("read 500 containers, first", cold, 1);
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(store.containers().unwrap().len() as u64, RECORDS);
    }
    print("read 500 containers", begun.elapsed(), 10);
    assert!(begun.elapsed() < Duration::from_secs(1));
    let begun = Instant::now();
    for n in 0..1000 {
        assert!(store.resolve_container(&format!("name{}", n % 500)).unwrap().is_some());
    }
    print("resolve a name", begun.elapsed(), 1000);
    let begun = Instant::now();
    for n in 0..1000 {
        assert!(store.container(&id(n % 500)).unwrap().is_some());
    }
    print("read one container", begun.elapsed(), 1000);

    store.flush_trash().unwrap();
    let begun = Instant::now();
    for n in 0..16 {
        store.make_rootfs(&id(n)).unwrap();
    }
    print("make rootfs, one ready", begun.elapsed(), 16);
    let begun = Instant::now();
    for n in 0..16 {
        store.remove_rootfs(&id(n)).unwrap();
    }
    print("remove rootfs", begun.elapsed(), 16);
    drop(store);
    let begun = Instant::now();
    let store = Store::open(root.path()).unwrap();
    print("open, 500 containers", begun.elapsed(), 1);
    assert_eq!(store.containers().unwrap().len() as u64, RECORDS);
}

fn print(what: &str, took: Duration, times: u64) {
    println!("{what:<36} {:>9.1} us", took.as_secs_f64() * 1e6 / times as f64);
}
