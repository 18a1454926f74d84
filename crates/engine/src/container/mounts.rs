//! A container's mounts at creation: volumes are made and filled, binds checked,
//! and the image's own volumes added where nothing else sits.
//!
//! An empty volume gets what the image has at its place (copy-up), as in Docker.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use capsa_store::{Durability, VolumeRow};

use super::fs_view;
use super::intents::Intents;
use super::record::{Mount, MountSource, Record};
use crate::spec::{ContainerSpec, MountKind, MountSpec};
use crate::view::{MountView, Resolved};
use crate::volumes::VolumeBody;
use crate::world::World;
use crate::{Error, Result, clock, id};

/// Where the mounts of a new container come from.
pub(crate) struct Request<'a> {
    /// What was asked.
    pub spec: &'a ContainerSpec,
    /// With the image's volumes.
    pub resolved: &'a Resolved,
    /// The image's layers, topmost first.
    pub layers: &'a [PathBuf],
    /// Where volumes without a name are noted before they are made.
    pub intents: &'a Intents,
    /// Whether what is made must outlive a power cut.
    pub durability: Durability,
}

/// Makes and checks everything; the mounts in the order they are made, parents first.
pub(crate) fn prepare(world: &World, request: &Request<'_>) -> Result<Vec<Mount>> {
    let mut by_target: BTreeMap<String, Mount> = BTreeMap::new();
    for from in &request.spec.volumes_from {
        for mount in taken_over(world, from)? {
            by_target.insert(mount.view.target.clone(), mount);
        }
    }
    for spec in &request.spec.mounts {
        let mount = one(world, request, spec)?;
        by_target.insert(mount.view.target.clone(), mount);
    }
    for path in &request.resolved.volumes {
        let target = clean(path);
        if let Entry::Vacant(free) = by_target.entry(target) {
            let mount = one(world, request, &anonymous(free.key()))?;
            free.insert(mount);
        }
    }
    Ok(by_target.into_values().collect())
}

/// `a//b/./c/` and `/a/b/c` are the same place.
pub(crate) fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

fn anonymous(target: &str) -> MountSpec {
    let kind = MountKind::Volume {
        name: None,
        no_copy: false,
        subpath: None,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    MountSpec { kind, target: target.to_owned(), read_only: false }
}

fn taken_over(world: &World, from: &str) -> Result<Vec<Mount>> {
    let (key, mode) = from.split_once(':').unwrap_or((from, "rw"));
    let record: std::sync::Arc<Record> = world.registry.find(key)?.record();
    let mut mounts: Vec<Mount> =
        record.mounts.iter().filter(|mount| mount.view.kind != "tmpfs").cloned().collect();
    if mode == "ro" {
        mounts.iter_mut().for_each(|mount| mount.view.read_write = false);
    }
    Ok(mounts)
}

fn one(world: &World, request: &Request<'_>, spec: &MountSpec) -> Result<Mount> {
    let target = clean(&spec.target);
    if target == "/" {
        return Err(Error::invalid(format!(
            "invalid mount target {:?}: it can't be '/'",
            spec.target
        )));
    }
    let mut view = MountView {
        kind: String::new(),
        name: String::new(),
        source: String::new(),
        target,
        read_write: !spec.read_only,
        propagation: String::new(),
    };
    let kind = match &spec.kind {
        MountKind::Bind { source, create, propagation, recursive } => {
            bind_source(source, *create)?;
            view.kind = "bind".to_owned();
            view.source.clone_from(source);
            view.propagation = propagation.clone().unwrap_or_else(|| "rprivate".to_owned());
            MountSource::Bind { recursive: *recursive }
        }
        MountKind::Volume { name, no_copy, subpath, options, labels } => {
            let name = volume(world, request, name.as_deref(), options, labels)?;
            let data = world.store.volume_dir(&name)?;
            if !*no_copy && is_empty(&data)? {
                fill(world, request.layers, &view.target, &name)?;
            }
            view.kind = "volume".to_owned();
            view.source = inside(&data, subpath.as_deref())?;
            view.name = name;
            MountSource::Bind { recursive: true }
        }
        MountKind::Tmpfs { options } => {
            view.kind = "tmpfs".to_owned();
            MountSource::Tmpfs { options: options.clone() }
        }
    };
    Ok(Mount { view, kind })
}

fn bind_source(source: &str, create: bool) -> Result<()> {
    if !source.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
        )));
    }
    match std::fs::metadata(source) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(source).map_err(|error| {
                Error::kernel(format!("error while creating mount source path '{source}': {error}"))
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {source}"
        ))
        .with_hint("make it on the machine where the daemon runs, or use -v, which makes it")),
        Err(error) => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": stat {source}: {error}"
        ))),
    }
}

fn volume(
    world: &World,
    request: &Request<'_>,
    name: Option<&str>,
    options: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Result<String> {
    let anonymous = name.is_none();
    let name = match name {
        Some(name) => name.to_owned(),
        None => id::random_id()?,
    };
    if anonymous {
        request.intents.note(&name)?;
    }
    let body = VolumeBody { labels: labels.clone(), options: options.clone(), anonymous };
    let row = VolumeRow { name: name.clone(), created_ns: clock::now_ns(), body: body.to_json()? };
    if world.store.make_volume(&row, request.durability)? {
        let driver = [("driver".to_owned(), "local".to_owned())].into();
        world.events.emit("volume", "create", &name, driver);
    }
    Ok(name)
}

/// Fills an empty volume with what the image has at `target`: whole or not at all, for
/// one that is half full would stay so.
fn fill(world: &World, layers: &[PathBuf], target: &str, volume: &str) -> Result<()> {
    let Some(content) = fs_view::Content::at(layers, target)? else { return Ok(()) };
    if world.store.containers_of_volume(volume)?.is_empty() {
        let data = world.store.begin_volume_data()?;
        content.copy_to(data.path())?;
        if data.commit(volume)? {
            return Ok(());
        }
    }
    // Another container has it, and may have it mounted: only in place then.
    content.copy_to(&world.store.volume_dir(volume)?)
}

fn is_empty(dir: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(dir)
        .map_err(|error| Error::kernel(format!("volume {}: {error}", dir.display())))?;
    Ok(entries.next().is_none())
}

/// A sub directory of a volume, reached without leaving it.
fn inside(data: &Path, subpath: Option<&str>) -> Result<String> {
    let Some(subpath) = subpath.filter(|path| !path.is_empty()) else {
        return Ok(data.display().to_string());
    };
    let bad =
        |why: &str| Error::invalid(format!("cannot use subpath {subpath:?} of the volume: {why}"));
    if Path::new(subpath).components().any(|part| !matches!(part, std::path::Component::Normal(_)))
    {
        return Err(bad("it must be a relative path without '..'"));
    }
    let place = data.join(subpath);
    match place.canonicalize() {
        Ok(real) if real.starts_with(data) => Ok(real.display().to_string()),
        Ok(_) => Err(bad("it leads out of the volume")),
        Err(error) => Err(bad(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_spelling() {
        assert_eq!(clean("//a/./b//"), "/a/b");
        assert_eq!(clean("/"), "/");
    }

    #[test]
    fn a_subpath_cannot_leave_its_volume() {
        let volume = tempfile::tempdir().unwrap();
        std::fs::create_dir(volume.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.path().join("out")).unwrap();
        assert!(inside(volume.path(), Some("d")).unwrap().ends_with("/d"));
        for bad in ["..", "/etc", "out", "missing"] {
            assert!(inside(volume.path(), Some(bad)).is_err(), "{bad}");
        }
    }
}
