//! The demo's image, made in memory: our web server, a page, and a config, as
//! the archive that `docker save` writes.

use std::io::Read as _;

use anyhow::Context as _;
use capsa_oci::Digest;
use flate2::read::GzDecoder;
use serde_json::json;

/// The name under which the image is loaded.
pub(super) const NAME: &str = "capsa/site:1";
/// The server inside the image.
pub(super) const PROGRAM: &str = "/site";
/// The page it serves.
pub(super) const PAGE_FILE: &str = "/www/index.html";
/// The page of the image as loaded.
pub(super) const PAGE: &str = include_str!("page.html");

/// Compiled by the build script from site/main.rs, and packed with gzip.
const SITE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/site.gz"));

/// The image as a docker-archive tar.
pub(super) fn archive() -> anyhow::Result<Vec<u8>> {
    let layer = layer().context("cannot write the image's layer")?;
    let diff_id = Digest::sha256(&layer);
    let config = serde_json::to_vec(&json!({
        "architecture": capsa_oci::Platform::host().architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": [PROGRAM],
            "Cmd": ["serve", "80"],
            "ExposedPorts": { "80/tcp": {} },
            // The server keeps nothing that a polite stop could save.
            "StopSignal": "SIGKILL",
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "capsa demo" }],
    }))?;
    let config_name = format!("{}.json", Digest::sha256(&config).hex());
    let layer_name = format!("{}/layer.tar", diff_id.hex());
    let manifest = serde_json::to_vec(&json!([
        { "Config": config_name, "RepoTags": [NAME], "Layers": [layer_name] }
    ]))?;
    let files = [
        (config_name.as_str(), config.as_slice()),
        (layer_name.as_str(), layer.as_slice()),
        ("manifest.json", manifest.as_slice()),
    ];
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        add_file(&mut archive, name, bytes, 0o644)?;
    }
    archive.into_inner().context("cannot write the image's archive")
}

fn layer() -> std::io::Result<Vec<u8>> {
    let mut tree = tar::Builder::new(Vec::new());
    let mut site = Vec::new();
    GzDecoder::new(SITE).read_to_end(&mut site)?;
    add_file(&mut tree, "site", &site, 0o755)?;
    let mut directory = header(tar::EntryType::Directory, 0, 0o755);
    tree.append_data(&mut directory, "www/", std::io::empty())?;
    add_file(&mut tree, "www/index.html", PAGE.as_bytes(), 0o644)?;
    tree.into_inner()
}

fn add_file(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    bytes: &[u8],
    mode: u32,
) -> std::io::Result<()> {
    let mut header = header(tar::EntryType::Regular, bytes.len() as u64, mode);
    archive.append_data(&mut header, name, bytes)
}

/// Owned by root, from 1970: the same image has the same digest everywhere.
fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_names_what_it_holds() {
        let archive = archive().unwrap();
        let mut names = Vec::new();
        let mut manifest = String::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "manifest.json" {
                std::io::Read::read_to_string(&mut entry, &mut manifest).unwrap();
            }
            names.push(name);
        }
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], NAME);
        assert_eq!(manifest[0]["Config"], names[0]);
        assert_eq!(manifest[0]["Layers"][0], names[1]);
    }

    #[test]
    fn the_image_is_the_same_each_time() {
        assert_eq!(archive().unwrap(), archive().unwrap());
    }
}
