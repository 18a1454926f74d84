//! The tables: what is unique, what keeps what, what a name means.

mod fixture;

use capsa_oci::Digest;
use capsa_store::{
    Durability, EndpointRow, Error, IdPool, ImageRow, NetworkRow, NewContainer, Store,
};
use fixture::{assert_whole, container, id, put_image, scratch, volume};

const D: Durability = Durability::Process;

#[test]
fn a_second_daemon_on_the_same_root_is_told_who_has_it() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    match Store::open(root.path()).err().unwrap() {
        Error::Locked { root: named, pid } => {
            assert_eq!(named, root.path().canonicalize().unwrap());
            assert_eq!(pid, Some(std::process::id()));
        }
        other => panic!("{other}"),
    }
    drop(store);
    Store::open(root.path()).unwrap();
}

#[test]
fn a_later_layout_is_refused_and_left_alone() {
    let root = scratch();
    std::fs::write(root.path().join("VERSION"), "2\n").unwrap();
    let error = Store::open(root.path()).err().unwrap();
    assert!(matches!(error, Error::NewerLayout { found: 2, known: 1, .. }), "{error}");
    assert!(!root.path().join("db").exists());
}

#[test]
fn a_container_keeps_its_image_and_gives_its_name_to_nobody() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    store.insert_container(&container(&id(1), "web", &image), D).unwrap();
    match store.insert_container(&container(&id(2), "web", &image), D).unwrap_err() {
        Error::NameTaken { name, by, .. } => assert_eq!((name, by), ("web".into(), id(1))),
        other => panic!("{other}"),
    }
    assert!(store.container(&id(2)).unwrap().is_none());
    match store.remove_image(&image).unwrap_err() {
        Error::InUse { by, .. } => assert_eq!(by, [id(1)]),
        other => panic!("{other}"),
    }
    let nowhere = container(&id(3), "db", &Digest::sha256(b"none"));
    assert!(matches!(store.insert_container(&nowhere, D), Err(Error::Missing { .. })));
    assert!(store.remove_container(&id(1), D).unwrap());
    store.set_tag("x:1", &image, D).unwrap();
    assert_eq!(store.remove_image(&image).unwrap(), ["x:1"]);
    assert_eq!(store.tag("x:1").unwrap(), None);
}

#[test]
fn a_key_means_an_id_then_a_name_then_a_unique_prefix() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    let (abc, abd) = (format!("abc{}", "0".repeat(61)), format!("abd{}", "0".repeat(61)));
    store.insert_container(&container(&abc, "one", &image), D).unwrap();
    store.insert_container(&container(&abd, "abc", &image), D).unwrap();
    let resolve = |key: &str| store.resolve_container(key);
    assert_eq!(resolve(&abc).unwrap().as_deref(), Some(&*abc));
    assert_eq!(resolve("abc").unwrap().as_deref(), Some(&*abd), "a name goes before a prefix");
    assert_eq!(resolve("abc0").unwrap().as_deref(), Some(&*abc));
    assert_eq!(resolve("").unwrap(), None);
    assert_eq!(resolve("%").unwrap(), None);
    match resolve("ab").unwrap_err() {
        Error::Ambiguous { ids, .. } => assert_eq!(ids, [abc.clone(), abd.clone()]),
        other => panic!("{other}"),
    }
    store.rename_container(&abd, "two", "{\"n\":2}", D).unwrap();
    assert_eq!(resolve("abc").unwrap().as_deref(), Some(&*abc));
    let taken = store.rename_container(&abd, "one", "{}", D).unwrap_err();
    assert!(matches!(taken, Error::NameTaken { by, .. } if by == abc));
    assert_eq!(store.image_by_prefix(&image.hex()[..9]).unwrap(), Some(image));
}

#[test]
fn id_ranges_are_the_first_free_ones_and_run_out() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    let pool = IdPool { base: 100_000, count: 3 };
    let insert = |n: u64| {
        let new = NewContainer { pool: Some(pool), ..container(&id(n), &id(n), &image) };
        store.insert_container(&new, D)
    };
    for n in 0..3 {
        assert_eq!(insert(n).unwrap(), Some(100_000 + 65_536 * u32::try_from(n).unwrap()));
    }
    assert!(matches!(insert(3), Err(Error::RangesExhausted { .. })));
    store.remove_container(&id(1), D).unwrap();
    assert_eq!(insert(4).unwrap(), Some(165_536));
    let later = NewContainer { pool: None, ..container(&id(5), "later", &image) };
    assert_eq!(store.insert_container(&later, D).unwrap(), None);
    store.remove_container(&id(0), D).unwrap();
    assert_eq!(store.take_id_range(&id(5), pool, D).unwrap(), 100_000);
    assert_eq!(store.take_id_range(&id(5), pool, D).unwrap(), 100_000, "taking it again is it");
}

#[test]
fn creates_at_once_share_no_range() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    let mut ranges: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (store, image) = (&store, &image);
                scope.spawn(move || {
                    (0..5)
                        .map(|m| {
                            let new = container(&id(n * 10 + m), &id(n * 10 + m), image);
                            store.insert_container(&new, D).unwrap().unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), 40);
}

#[test]
fn an_address_has_one_owner_and_a_network_is_kept_by_those_on_it() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    let network = NetworkRow { id: id(9), name: "net".into(), created_ns: 1, body: String::new() };
    store.insert_network(&network, D).unwrap();
    let again = NetworkRow { id: id(8), ..network.clone() };
    assert!(
        matches!(store.insert_network(&again, D), Err(Error::NameTaken { by, .. }) if by == id(9))
    );
    for n in [1, 2] {
        store.insert_container(&container(&id(n), &id(n), &image), D).unwrap();
    }
    let endpoint = |n: u64, ip: &str| EndpointRow {
        network: id(9),
        container: id(n),
        ipv4: Some(ip.parse().unwrap()),
        body: "b".into(),
    };
    store.put_endpoint(&endpoint(1, "10.0.0.2"), D).unwrap();
    let error = store.put_endpoint(&endpoint(2, "10.0.0.2"), D).unwrap_err();
    assert!(matches!(error, Error::AddressTaken { ref by, .. } if *by == id(1)), "{error}");
    let error = store.put_endpoint(&endpoint(7, "10.0.0.3"), D).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    store.put_endpoint(&endpoint(1, "10.0.0.4"), D).unwrap();
    assert_eq!(store.endpoints_of_network(&id(9)).unwrap(), [endpoint(1, "10.0.0.4")]);
    assert!(
        matches!(store.remove_network(&id(9), D), Err(Error::InUse { by, .. }) if by == [id(1)])
    );
    store.remove_container(&id(1), D).unwrap();
    assert!(store.endpoints_of_network(&id(9)).unwrap().is_empty());
    assert!(store.remove_network(&id(9), D).unwrap());
}

#[test]
fn a_volume_is_filled_in_one_step_as_long_as_it_is_empty_and_nobody_keeps_it() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "i").unwrap();
    let filled = |text: &str| {
        let data = store.begin_volume_data().unwrap();
        std::fs::write(data.path().join("f"), text).unwrap();
        data
    };
    let content = |name: &str| std::fs::read_to_string(store.volume_dir(name).unwrap().join("f"));
    store.make_volume(&volume("data"), D).unwrap();
    assert!(filled("one").commit("data").unwrap());
    assert_eq!(content("data").unwrap(), "one");
    assert!(filled("two").commit("data").unwrap());
    assert_eq!(content("data").unwrap(), "one", "what was there first stays");
    store.make_volume(&volume("used"), D).unwrap();
    let user = NewContainer { volumes: vec!["used".into()], ..container(&id(1), "u", &image) };
    store.insert_container(&user, D).unwrap();
    assert!(!filled("three").commit("used").unwrap());
    assert!(content("used").is_err(), "it may be mounted");
    assert_whole(&store);
}

#[test]
fn a_volume_is_kept_by_its_containers_and_gone_when_removed() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    assert!(store.make_volume(&volume("data"), D).unwrap());
    assert!(!store.make_volume(&volume("data"), D).unwrap());
    let dir = store.volume_dir("data").unwrap();
    std::fs::write(dir.join("f"), "mine").unwrap();
    let user = NewContainer { volumes: vec!["data".into()], ..container(&id(1), "u", &image) };
    store.insert_container(&user, D).unwrap();
    assert!(matches!(store.remove_volume("data"), Err(Error::InUse { by, .. }) if by == [id(1)]));
    assert!(dir.join("f").exists());
    store.remove_container(&id(1), D).unwrap();
    assert!(store.remove_volume("data").unwrap());
    assert!(!store.remove_volume("data").unwrap());
    assert!(store.make_volume(&volume("data"), D).unwrap());
    assert!(!dir.join("f").exists(), "a new volume of an old name is empty");
    for bad in ["", "..", "a/b", ".x"] {
        let error = store.make_volume(&volume(bad), D).unwrap_err();
        assert!(matches!(error, Error::BadName { .. }), "{bad}: {error}");
    }
    assert_whole(&store);
}

#[test]
fn sweep_takes_what_no_image_and_no_lease_holds() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let (a, b) = (put_image(&store, "a").unwrap(), put_image(&store, "b").unwrap());
    assert_eq!(store.disk_usage().unwrap().layers, 2);
    assert_eq!(store.disk_usage().unwrap().blobs, 3, "the packed blob is shared");
    store.remove_image(&a).unwrap();
    let chain = Digest::sha256(b"layer a");
    let mut lease = store.lease();
    assert!(lease.hold_layer(&chain).unwrap());
    let swept = store.sweep().unwrap();
    assert_eq!((swept.blobs, swept.layers), (vec![a], vec![]));
    assert!(store.layer(&chain).unwrap().is_some());
    drop(lease);
    assert_eq!(store.sweep().unwrap().layers, std::slice::from_ref(&chain));
    assert!(store.layer(&chain).unwrap().is_none());
    assert_eq!(store.images().unwrap().len(), 1);
    assert!(matches!(store.remove_blob(&b), Err(Error::InUse { .. })));
    assert_eq!(store.disk_usage().unwrap().reclaimable_bytes, 0);
    assert_whole(&store);
}

#[test]
fn what_a_sweep_would_take_is_what_it_takes() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let images = ["a", "b", "c"].map(|seed| put_image(&store, seed).unwrap());
    let mut lease = store.lease();
    assert!(lease.hold_layer(&Digest::sha256(b"layer b")).unwrap());
    assert_eq!(store.would_sweep(&[]).unwrap(), capsa_store::Swept::default());
    let would = store.would_sweep(&images[..2]).unwrap();
    assert_eq!(
        (would.blobs.len(), would.layers.len()),
        (2, 1),
        "the third has the packed blob too"
    );
    assert_eq!(store.images().unwrap().len(), 3);
    for image in &images[..2] {
        store.remove_image(image).unwrap();
    }
    assert_eq!(store.sweep().unwrap(), would);
    assert_eq!(store.would_sweep(&images).unwrap().blobs.len(), 2);
}

#[test]
fn an_image_is_used_when_a_container_comes_or_goes() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let (a, b) = (put_image(&store, "a").unwrap(), put_image(&store, "b").unwrap());
    assert_eq!(store.image_uses().unwrap(), [(a.clone(), 0), (b.clone(), 0)].into());
    store.insert_container(&container(&id(1), "one", &a), D).unwrap();
    assert_eq!(store.image_uses().unwrap(), [(a.clone(), 5), (b.clone(), 0)].into());
    store.remove_container(&id(1), D).unwrap();
    let uses = store.image_uses().unwrap();
    assert!(uses[&a] > 1_000_000_000_000_000_000 && uses[&b] == 0, "{uses:?}");
    // Whoever brings it again leaves that alone.
    put_image(&store, "a").unwrap();
    assert_eq!(store.image_uses().unwrap(), uses);
}

#[test]
fn an_image_names_what_it_lacks() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let config = store.write_blob(b"{}", D).unwrap();
    let chain = Digest::sha256(b"no such layer");
    let row = ImageRow {
        manifest: None,
        config: config.clone(),
        layers: vec![chain.clone()],
        blobs: vec![],
        size: 0,
        created_ns: 0,
        body: String::new(),
    };
    let error = store.put_image(&config, &row).unwrap_err();
    assert!(error.to_string().contains(chain.as_str()), "{error}");
    let row = ImageRow { layers: vec![], blobs: vec![chain.clone()], ..row };
    let error = store.put_image(&config, &row).unwrap_err();
    assert!(error.to_string().contains(chain.as_str()), "{error}");
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn a_change_does_not_bring_an_image_back() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let config = store.write_blob(b"config", Durability::Process).unwrap();
    let row = ImageRow {
        manifest: None,
        config: config.clone(),
        layers: vec![],
        blobs: vec![config.clone()],
        size: 0,
        created_ns: 0,
        body: "first".to_owned(),
    };
    assert!(!store.change_image(&config, &row).unwrap());
    store.put_image(&config, &row).unwrap();
    let changed = ImageRow { body: "second".to_owned(), ..row };
    assert!(store.change_image(&config, &changed).unwrap());
    assert_eq!(store.image(&config).unwrap(), Some(changed.clone()));
    store.remove_image(&config).unwrap();
    assert!(!store.change_image(&config, &changed).unwrap());
    assert_eq!(store.image(&config).unwrap(), None);
}

#[test]
fn wrong_bytes_never_get_the_name_and_rotten_ones_are_not_read() {
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let wanted = Digest::sha256(b"right");
    let mut ingest = store.ingest().unwrap();
    std::io::Write::write_all(&mut ingest, b"wrong").unwrap();
    let error = ingest.commit(Some(&wanted)).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(!store.has_blob(&wanted).unwrap());
    assert_whole(&store);
    let digest = store.write_blob(b"right", Durability::Durable).unwrap();
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"right");
    assert!(matches!(store.read_blob(&digest, 4), Err(Error::TooLarge { size: 5, .. })));
    std::fs::write(root.path().join("blobs/sha256").join(digest.hex()), b"wrung").unwrap();
    assert!(matches!(store.read_blob(&digest, 9), Err(Error::Corrupt { .. })));
}

#[test]
fn a_rootfs_is_empty_private_and_gone_with_everything_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let root = scratch();
    let store = Store::open(root.path()).unwrap();
    let image = put_image(&store, "a").unwrap();
    for n in 0..40 {
        store.insert_container(&container(&id(n), &id(n), &image), D).unwrap();
        let dir = store.make_rootfs(&id(n)).unwrap();
        assert_eq!(dir, store.container_dir(&id(n)).unwrap());
        for (sub, mode) in [("rootfs", 0o700), ("rootfs/upper", 0o755), ("rootfs/work", 0o700)] {
            let meta = std::fs::metadata(dir.join(sub)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{sub}");
        }
        assert_eq!(fixture::names(&dir.join("rootfs/upper")).len(), 0);
    }
    assert!(store.make_rootfs("../x").is_err());
    std::fs::write(store.container_dir(&id(3)).unwrap().join("rootfs/upper/f"), [0; 9000]).unwrap();
    assert_eq!(store.rootfs_size(&id(3)).unwrap(), 9000);
    store.remove_rootfs(&id(3)).unwrap();
    store.remove_rootfs(&id(3)).unwrap();
    assert!(!store.container_dir(&id(3)).unwrap().exists());
    assert_whole(&store);
}
