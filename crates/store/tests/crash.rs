//! Crashes: a process killed at random while it writes, and one killed at every single
//! step. After each, what was acknowledged is there, what is there is whole, and the
//! operation that was interrupted succeeds when it is tried again.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod fixture;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use capsa_oci::Digest;
use capsa_store::fault::{self, Fault};
use capsa_store::{Durability, Store};
use fixture::operations::{OPERATIONS, prepared};
use fixture::{assert_whole, child, child_root, container, id, put_image, scratch, volume};

const ROUNDS: usize = 12;

/// Writes for ever, telling each thing it has been promised.
#[test]
#[ignore = "the child of the test below"]
fn writer() {
    let Some(root) = child_root() else { return };
    let store = Store::open(&root).unwrap();
    let mut lease = store.lease();
    let first = store.containers().unwrap().len() as u64;
    let mut out = std::io::stdout().lock();
    for n in first.. {
        let image = put_image(&store, &format!("{n}")).unwrap();
        writeln!(out, "image {image}").unwrap();
        let new = container(&id(n), &format!("c{n}"), &image);
        store.insert_container(&new, Durability::Durable).unwrap();
        writeln!(out, "container {}", new.id).unwrap();
        store.make_rootfs(&new.id).unwrap();
        let name = format!("v{n}");
        store.make_volume(&volume(&name), Durability::Durable).unwrap();
        writeln!(out, "volume {name}").unwrap();
        let gone = put_image(&store, &format!("gone {n}")).unwrap();
        store.remove_image(&gone).unwrap();
        store.sweep().unwrap();
        writeln!(out, "removed {gone}").unwrap();
        let blob = Digest::sha256(name.as_bytes());
        let mut ingest = lease.ingest(&blob).unwrap();
        ingest.write_all(name.as_bytes()).unwrap();
        ingest.commit(Some(&blob)).unwrap();
        writeln!(out, "blob {blob}").unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill_and_nothing_is_half_there() {
    let root = scratch();
    for round in 0..ROUNDS {
        let mut process = child("writer", root.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Each round dies somewhere else: after that many promises, and then wherever
        // the process is by the time the signal arrives.
        let mut told: Vec<String> = lines
            .by_ref()
            .map(Result::unwrap)
            .filter(|line| is_promise(line))
            .take(1 + round * 3)
            .collect();
        process.kill().unwrap();
        process.wait().unwrap();
        told.extend(lines.map_while(Result::ok).filter(|line| is_promise(line)));
        assert!(told.len() > round * 3, "the child ended early: {told:?}");
        let store = Store::open(root.path()).unwrap();
        for line in &told {
            assert!(kept(&store, line), "round {round}: {line} is lost");
        }
        assert_whole(&store);
    }
}

fn is_promise(line: &str) -> bool {
    ["image ", "container ", "volume ", "removed ", "blob "].iter().any(|p| line.starts_with(p))
}

fn kept(store: &Store, promise: &str) -> bool {
    let (kind, key) = promise.split_once(' ').unwrap();
    let digest = || key.parse::<Digest>().unwrap();
    match kind {
        "image" => store.image(&digest()).unwrap().is_some(),
        "removed" => store.image(&digest()).unwrap().is_none(),
        "container" => store.container(key).unwrap().is_some(),
        "volume" => store.volume(key).unwrap().is_some(),
        _ => store.has_blob(&digest()).unwrap(),
    }
}

#[test]
#[ignore = "the child of the test below"]
fn victim() {
    let Some(root) = child_root() else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u32>().unwrap();
    let (_, operation) = OPERATIONS[number("CAPSA_STORE_OPERATION") as usize];
    let store = prepared(&root);
    fault::arm(number("CAPSA_STORE_NTH"), Fault::Kill);
    operation(&store).unwrap();
}

#[test]
fn sigkill_at_any_step_leaves_a_whole_store_and_the_operation_can_be_repeated() {
    for (index, (name, operation)) in OPERATIONS.iter().enumerate() {
        for nth in 1.. {
            let root = scratch();
            let status = child("victim", root.path())
                .env("CAPSA_STORE_OPERATION", index.to_string())
                .env("CAPSA_STORE_NTH", nth.to_string())
                .stdout(Stdio::null())
                .status()
                .unwrap();
            let store = Store::open(root.path()).unwrap();
            assert_whole(&store);
            assert!(store.container(&id(1)).unwrap().is_some() || *name == "remove container");
            if status.success() {
                assert!(nth > 2, "{name} was never killed");
                break;
            }
            operation(&store).unwrap_or_else(|e| panic!("{name} after a kill at {nth}: {e}"));
            assert_whole(&store);
        }
    }
}
