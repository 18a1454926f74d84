//! Archives of images: Docker's forms, the OCI layout, and back again unchanged.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Read;
use std::sync::Mutex;

use capsa_image::archive::{Archive, ArchiveSink, layer_type};
use capsa_image::tar::Kind;
use capsa_image::{
    Blob, Compression, Error, Image, Layer, Limits, Result, Sink, Source, compress, copy,
    decompress,
};
use capsa_oci::{Digest, Platform};
use serde_json::json;
use support::{DirSpool, file, link, tar};

/// Keeps what it gets, checked as a store would.
#[derive(Default)]
struct Shelf {
    layers: Mutex<Vec<(Digest, Vec<u8>)>>,
    images: Mutex<Vec<Image>>,
}

impl Sink for Shelf {
    fn lanes(&self) -> usize {
        3
    }

    fn has_layer(&self, layer: &Layer) -> Result<bool> {
        Ok(self.layers.lock().unwrap().iter().any(|(chain, _)| *chain == layer.chain_id))
    }

    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> Result<()> {
        let (_, mut plain) = decompress(blob.open(0)?, &Limits::default())?;
        let mut bytes = Vec::new();
        plain.read_to_end(&mut bytes).map_err(Error::Read)?;
        assert_eq!(Digest::sha256(&bytes), layer.diff_id);
        self.layers.lock().unwrap().push((layer.chain_id.clone(), bytes));
        Ok(())
    }

    fn image(&self, image: &Image) -> Result<()> {
        self.images.lock().unwrap().push(image.clone());
        Ok(())
    }
}

fn read<'a>(archive: &[u8], spool: &'a DirSpool) -> Result<Archive<'a>> {
    let platform =
        Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() };
    Archive::read(archive, spool, &platform, &Limits::default())
}

fn load(archive: &[u8]) -> Result<(Vec<Image>, Shelf)> {
    let spool = DirSpool::new();
    let source = read(archive, &spool)?;
    let shelf = Shelf::default();
    copy(&source, &source.images()?, &shelf, &|_, _| {})?;
    Ok((source.images()?, shelf))
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "odd": 1,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

fn big_layer(seed: u8) -> Vec<u8> {
    // Larger than what stays in memory.
    let content: Vec<u8> = (0..400_000u32).map(|i| (i % 251) as u8 ^ seed).collect();
    tar(&[file("big", &content)])
}

#[test]
fn old_docker_archives_load_with_their_linked_and_compressed_layers() {
    let (one, two) = (big_layer(1), tar(&[file("small", b"2")]));
    let packed = compress(&mut &one[..], Compression::Gzip, Vec::new()).unwrap();
    let config = config(&[&one, &two, &two]);
    let name = format!("{}.json", Digest::sha256(&config).hex());
    let list = json!([{"Config": name, "RepoTags": ["me/app:v1", "x"],
        "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}])
    .to_string();
    // The list first and the links before their targets.
    let archive = tar(&[
        file("manifest.json", list.as_bytes()),
        link(Kind::Symlink, "c/layer.tar", "../b/layer.tar"),
        file("a/layer.tar", &packed),
        file("a/VERSION", b"1.0"),
        file("b/layer.tar", &two),
        file(&name, &config),
    ]);
    for kind in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let archive = compress(&mut &archive[..], kind, Vec::new()).unwrap();
        let (images, shelf) = load(&archive).unwrap();
        assert_eq!(images[0].id, Digest::sha256(&config));
        let names: Vec<_> = images[0].names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["me/app:v1", "x:latest"]);
        assert_eq!(shelf.layers.lock().unwrap().len(), 3);
        assert_eq!(shelf.images.lock().unwrap().len(), 1);
    }
}

#[test]
fn what_is_saved_loads_as_the_same_image_and_saves_to_the_same_bytes() {
    let layers = [big_layer(1), big_layer(2)];
    let configs = [config(&[&layers[0]]), config(&[&layers[0], &layers[1]])];
    let list = json!([
        {"Config": "1.json", "RepoTags": ["a:1", "a:2"], "Layers": ["l1"]},
        {"Config": "2.json", "RepoTags": null, "Layers": ["l1", "l2"]},
    ]);
    let archive = tar(&[
        file("l1", &layers[0]),
        file("l2", &layers[1]),
        file("1.json", &configs[0]),
        file("2.json", &configs[1]),
        file("manifest.json", list.to_string().as_bytes()),
    ]);
    let save = |archive: &[u8]| {
        let spool = DirSpool::new();
        let source = read(archive, &spool).unwrap();
        let sink = ArchiveSink::new(Vec::new()).unwrap();
        copy(&source, &source.images().unwrap(), &sink, &|_, _| {}).unwrap();
        (sink.finish().unwrap(), source.images().unwrap())
    };
    let (first, before) = save(&archive);
    let (second, after) = save(&first);
    assert_eq!(first, second);
    // Shared layers are there once.
    assert!(first.len() < 2 * 400_000 + 40_000, "{}", first.len());
    let facts = |images: &[Image]| -> Vec<_> {
        images
            .iter()
            .map(|i| (i.id.clone(), i.names.clone(), i.manifest_digest.clone(), i.layers.clone()))
            .collect()
    };
    assert_eq!(facts(&before), facts(&after));
    assert_eq!(before[1].names, []);
}

/// A layout with one image for each of these architectures behind a nested index.
fn layout(architectures: &[&str], tweak: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut files = Vec::new();
    let mut put = |bytes: Vec<u8>, media_type: &str| {
        let digest = Digest::sha256(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let mut manifests = Vec::new();
    for architecture in architectures {
        let layer = tar(&[file("arch", architecture.as_bytes())]);
        let config = put(config(&[&layer]), "application/vnd.oci.image.config.v1+json");
        let layer = put(layer.clone(), layer_type(&layer));
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let mut manifest =
            put(manifest.to_string().into(), "application/vnd.oci.image.manifest.v1+json");
        manifest["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(manifest.clone());
        manifest["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        manifest["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        manifests.push(manifest);
    }
    let nested = json!({"schemaVersion": 2, "manifests": manifests});
    let mut top = put(nested.to_string().into(), "application/vnd.oci.image.index.v1+json");
    top["annotations"] = json!({"io.containerd.image.name": "docker.io/library/multi:1",
        "org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    files.push(("index.json".to_owned(), index.to_string().into()));
    files.push(("oci-layout".to_owned(), b"{}".to_vec()));
    tweak(&mut files);
    let entries: Vec<_> = files.iter().map(|(name, bytes)| file(name, bytes)).collect();
    tar(&entries)
}

#[test]
fn of_a_layout_the_image_for_this_platform_is_taken() {
    let (images, shelf) = load(&layout(&["arm64", "amd64"], |_| {})).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names[0].to_string(), "multi:1");
    let layers = shelf.layers.lock().unwrap();
    assert_eq!(layers[0].1, tar(&[file("arch", b"amd64")]));
    let error = load(&layout(&["arm64", "riscv64"], |_| {})).err().unwrap().to_string();
    assert!(error.contains("linux/amd64") && error.contains("linux/riscv64"), "{error}");
}

#[test]
fn layouts_that_lie_are_refused() {
    let good = layout(&["amd64"], |_| {});
    assert!(load(&good).is_ok());
    for i in 0..4 {
        let bad = layout(&["amd64"], |files| {
            // A blob is not what its name says.
            files[i].1.push(b' ');
        });
        let error = load(&bad).err().unwrap();
        assert!(matches!(error, Error::Digest { .. } | Error::Archive(_)), "{i}: {error}");
        let missing = layout(&["amd64"], |files| drop(files.remove(i)));
        let error = load(&missing).err().unwrap();
        assert!(matches!(error, Error::Missing(_)), "{i}: {error}");
    }
    let both = layout(&["amd64"], |files| {
        let index = files.iter_mut().find(|(name, _)| name == "index.json").unwrap();
        index.1 = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_vec();
    });
    assert!(load(&both).err().unwrap().to_string().contains("both"));
}

#[test]
fn archives_of_other_things_say_so() {
    let error = load(&tar(&[file("etc/passwd", b"x")])).err().unwrap().to_string();
    assert!(error.contains("no images"), "{error}");
    let error = load(b"not a tar at all, but long enough to be one".repeat(20).as_slice());
    assert!(error.is_err());
    let climb = tar(&[file("manifest.json", br#"[{"Config":"../../etc/shadow"}]"#)]);
    assert!(matches!(load(&climb).err().unwrap(), Error::Missing(_)));
    let dup = json!([{"Config": "1", "RepoTags": ["a"]}, {"Config": "2", "RepoTags": ["a"]}]);
    let mut two = config(&[]);
    two.push(b' ');
    let archive = tar(&[
        file("1", &config(&[])),
        file("2", &two),
        file("manifest.json", dup.to_string().as_bytes()),
    ]);
    assert!(load(&archive).err().unwrap().to_string().contains("names both"));
}
