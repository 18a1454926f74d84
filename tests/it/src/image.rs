//! Images made in the test: docker-archive tars of busybox and of what is put over it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const BUSYBOX: &str = "/usr/bin/busybox";

/// An image to be: layers, lowest first, and a config.
#[derive(Clone)]
pub struct Image {
    name: String,
    layers: Vec<Vec<u8>>,
    architecture: &'static str,
    config: Value,
}

/// A layer being filled.
pub struct Layer(Builder<Vec<u8>>);

/// The image `busybox:latest`: one static program, its links, two users.
///
/// # Panics
/// When the host has no busybox.
pub fn busybox() -> Image {
    static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
    let layer = LAYER.get_or_init(|| {
        let mut layer = Layer::new();
        for (dir, mode) in
            [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home", 0o755)]
        {
            layer.dir(dir, mode, 0);
        }
        let program = std::fs::read(BUSYBOX).expect("a static busybox of the host");
        layer.file("bin/busybox", &program, 0o755, 0);
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|a| *a != "busybox") {
            layer.link(&format!("bin/{applet}"), "busybox");
        }
        let users = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n";
        layer.file("etc/passwd", users, 0o644, 0);
        layer.file("etc/group", b"root:x:0:\napp:x:1000:\n", 0o644, 0);
        layer.finish()
    });
    Image {
        name: "busybox:latest".to_owned(),
        layers: vec![layer.clone()],
        architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        config: json!({ "Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }),
    }
}

/// Bytes that don't compress, the same for the same seed.
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

impl Image {
    /// The same with another name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// One more layer on top.
    #[must_use]
    pub fn with_layer(mut self, fill: impl FnOnce(&mut Layer)) -> Self {
        let mut layer = Layer::new();
        fill(&mut layer);
        self.layers.push(layer.finish());
        self
    }

    /// Sets a field of the config, such as `Volumes`.
    #[must_use]
    pub fn with_config(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// The same, said to be for another machine.
    #[must_use]
    pub fn for_machine(self, architecture: &'static str) -> Self {
        Self { architecture, ..self }
    }

    /// Writes the archive, as `docker save` did before it wrote OCI layouts.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let mut archive = Layer::new();
        let hex = |bytes: &[u8]| {
            Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        let mut names = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in &self.layers {
            let digest = hex(layer);
            let name = format!("{digest}/layer.tar");
            archive.file(&name, layer, 0o644, 0);
            names.push(name);
            diff_ids.push(format!("sha256:{digest}"));
        }
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2020-01-02T03:04:05Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
        });
        let config = serde_json::to_vec(&config).unwrap();
        let config_name = format!("{}.json", hex(&config));
        archive.file(&config_name, &config, 0o644, 0);
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": names }]);
        archive.file("manifest.json", &serde_json::to_vec(&manifest).unwrap(), 0o644, 0);
        let path = dir.join(format!("{}.tar", self.name.replace(['/', ':'], "-")));
        std::fs::write(&path, archive.finish()).unwrap();
        path
    }
}

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// A file of user and group `owner`.
    pub fn file(&mut self, path: &str, bytes: &[u8], mode: u32, owner: u64) {
        let mut header = header(EntryType::Regular, mode, owner);
        header.set_size(bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes).unwrap();
    }

    /// A directory of user and group `owner`.
    pub fn dir(&mut self, path: &str, mode: u32, owner: u64) {
        let mut header = header(EntryType::Directory, mode, owner);
        self.0.append_data(&mut header, format!("{path}/"), &[][..]).unwrap();
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
    }

    /// A second name of a file.
    pub fn hard_link(&mut self, path: &str, target: &str) {
        let mut header = header(EntryType::Link, 0o644, 0);
        self.0.append_link(&mut header, path, target).unwrap();
    }

    /// A named pipe.
    pub fn pipe(&mut self, path: &str, mode: u32, owner: u64) {
        let mut header = header(EntryType::Fifo, mode, owner);
        self.0.append_data(&mut header, path, &[][..]).unwrap();
    }

    /// Extended attributes of the next entry.
    pub fn xattrs(&mut self, xattrs: &[(&str, &[u8])]) {
        let names: Vec<_> = xattrs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
        let records = names.iter().zip(xattrs).map(|(name, (_, value))| (name.as_str(), *value));
        self.0.append_pax_extensions(records).unwrap();
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: EntryType, mode: u32, owner: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_577_934_245);
    header.set_size(0);
    header
}
