//! Mounts in their three spellings: `Binds` (`src:dst:options`), `Mounts`, and the
//! `Tmpfs` map; and `VolumesFrom`.

use std::collections::BTreeSet;

use capsa_api::types::{HostConfig, Mount, TmpfsOptions, VolumeOptions};
use capsa_engine::spec::{MountKind, MountSpec};

use crate::error::{ApiError, Result};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Reads every mount; no target may be used twice.
pub(crate) fn mounts(host: &HostConfig) -> Result<Vec<MountSpec>> {
    let mut mounts = Vec::new();
    for text in host.binds.iter().flatten() {
        mounts.push(bind(text, &host.volume_driver)?);
    }
    for mount in &host.mounts {
        mounts.push(typed(mount)?);
    }
    for (target, options) in &host.tmpfs {
        let target = checked_target(target, "tmpfs")?;
        let kind = MountKind::Tmpfs { options: options.clone() };
        mounts.push(MountSpec { kind, target, read_only: options.split(',').any(|o| o == "ro") });
    }
    let mut targets = BTreeSet::new();
    match mounts.iter().find(|mount| !targets.insert(mount.target.as_str())) {
        Some(twice) => bad(format!("Duplicate mount point: {}", twice.target)),
        None => Ok(mounts),
    }
}

/// Checks `container[:mode]`.
pub(crate) fn volumes_from(host: &HostConfig) -> Result<Vec<String>> {
    let list = host.volumes_from.clone().unwrap_or_default();
    for text in &list {
        let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if container.is_empty() {
            return bad(format!("malformed volumes-from specification: {text:?}"));
        }
        if !matches!(mode, "ro" | "rw" | "z" | "Z" | "ro,z" | "ro,Z" | "rw,z" | "rw,Z") {
            return bad(format!("invalid mode: {mode}"));
        }
    }
    Ok(list)
}

/// An absolute path without `.`, `..` and doubled slashes, never above the root.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The rule for names of volumes.
pub(crate) fn check_volume_name(name: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric();
    if name.len() == 1 {
        return bad(
            "volume name is too short, names should be at least two alphanumeric characters",
        );
    }
    let valid = name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'));
    if valid {
        return Ok(());
    }
    bad(format!(
        "{name:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    ))
}

/// What the options of a bind say.
#[derive(Default)]
struct Options {
    read_only: Option<bool>,
    propagation: Option<String>,
    no_copy: bool,
}

fn bind(text: &str, volume_driver: &str) -> Result<MountSpec> {
    let invalid = || ApiError::bad_request(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(invalid()),
    };
    if target.is_empty() || (source.is_empty() && parts.len() > 1) {
        return Err(invalid());
    }
    let options = parse_options(options)?;
    let is_bind = source.starts_with('/');
    let target = checked_target(target, if is_bind { "bind" } else { "volume" }).map_err(|e| {
        ApiError::bad_request(format!("invalid volume specification: '{text}': {}", e.message))
    })?;
    let read_only = options.read_only.unwrap_or(false);
    let kind = if is_bind {
        let source = clean(source);
        MountKind::Bind { source, create: true, propagation: options.propagation, recursive: true }
    } else {
        if options.propagation.is_some() {
            return bad(format!("invalid mode: {}", parts[parts.len() - 1]));
        }
        check_driver(volume_driver)?;
        let name = (!source.is_empty()).then(|| source.to_owned());
        if let Some(name) = &name {
            check_volume_name(name)
                .map_err(|e| ApiError::bad_request(format!("create {name}: {}", e.message)))?;
        }
        volume(name, options.no_copy)
    };
    Ok(MountSpec { kind, target, read_only })
}

fn volume(name: Option<String>, no_copy: bool) -> MountKind {
    let (subpath, options, labels) = Default::default();
    MountKind::Volume { name, no_copy, subpath, options, labels }
}

fn parse_options(text: &str) -> Result<Options> {
    let mut options = Options::default();
    let invalid = || bad(format!("invalid mode: {text}"));
    for word in text.split(',').filter(|_| !text.is_empty()) {
        match word {
            "ro" | "rw" if options.read_only.is_none() => options.read_only = Some(word == "ro"),
            "nocopy" => options.no_copy = true,
            "z" | "Z" | "copy" | "consistent" | "cached" | "delegated" => {}
            _ if PROPAGATIONS.contains(&word) && options.propagation.is_none() => {
                options.propagation = Some(word.to_owned());
            }
            _ => return invalid(),
        }
    }
    Ok(options)
}

fn typed(mount: &Mount) -> Result<MountSpec> {
    let kind_name = mount.kind.as_str();
    let wrong = |what: &str| -> Result<MountSpec> {
        bad(format!("invalid mount config for type {kind_name:?}: {what}"))
    };
    if mount.target.is_empty() {
        return wrong("field Target must not be empty");
    }
    let target = checked_target(&mount.target, kind_name)?;
    for (present, field, owner) in [
        (mount.bind_options.is_some(), "BindOptions", "bind"),
        (mount.volume_options.is_some(), "VolumeOptions", "volume"),
        (mount.tmpfs_options.is_some(), "TmpfsOptions", "tmpfs"),
        (mount.image_options.is_some(), "ImageOptions", "image"),
    ] {
        if present && owner != kind_name {
            return wrong(&format!("field {field} must not be specified"));
        }
    }
    let kind = match kind_name {
        "bind" if mount.source.is_empty() => return wrong("field Source must not be empty"),
        "bind" if !mount.source.starts_with('/') => {
            return wrong(&format!(
                "invalid mount path: '{}' mount path must be absolute",
                mount.source
            ));
        }
        "bind" => typed_bind(mount)?,
        "volume" => typed_volume(mount)?,
        "tmpfs" if !mount.source.is_empty() => return wrong("field Source must not be specified"),
        "tmpfs" => MountKind::Tmpfs { options: tmpfs_options(mount.tmpfs_options.as_ref())? },
        "image" => return wrong("mounts of images are not supported"),
        _ => return wrong("mount type unknown"),
    };
    Ok(MountSpec { kind, target, read_only: mount.read_only })
}

fn typed_bind(mount: &Mount) -> Result<MountKind> {
    let options = mount.bind_options.clone().unwrap_or_default();
    let propagation = options.propagation;
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation.as_str()) {
        return bad(format!(
            "invalid mount config for type \"bind\": invalid propagation mode: {propagation}"
        ));
    }
    Ok(MountKind::Bind {
        source: clean(&mount.source),
        create: options.create_mountpoint,
        propagation: (!propagation.is_empty()).then_some(propagation),
        recursive: !options.non_recursive,
    })
}

fn typed_volume(mount: &Mount) -> Result<MountKind> {
    let VolumeOptions { no_copy, labels, subpath, driver_config } =
        mount.volume_options.clone().unwrap_or_default();
    let driver = driver_config.unwrap_or_default();
    check_driver(&driver.name)?;
    let name = (!mount.source.is_empty()).then(|| mount.source.clone());
    if let Some(name) = &name {
        check_volume_name(name)?;
    }
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return bad(
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        );
    }
    let subpath = (!subpath.is_empty()).then_some(subpath);
    Ok(MountKind::Volume { name, no_copy, subpath, options: driver.options, labels })
}

fn tmpfs_options(options: Option<&TmpfsOptions>) -> Result<String> {
    let Some(options) = options else { return Ok(String::new()) };
    if options.size_bytes < 0 {
        return bad("invalid mount config for type \"tmpfs\": size must not be negative");
    }
    let mut words: Vec<String> = options.options.iter().map(|pair| pair.join("=")).collect();
    if options.size_bytes > 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    if options.mode > 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    Ok(words.join(","))
}

fn checked_target(target: &str, kind: &str) -> Result<String> {
    if !target.starts_with('/') {
        return bad(format!(
            "invalid mount config for type {kind:?}: invalid mount path: '{target}' mount path must \
             be absolute"
        ));
    }
    let target = clean(target);
    if target == "/" {
        return bad(format!(
            "invalid mount config for type {kind:?}: invalid specification: destination can't be '/'"
        ));
    }
    Ok(target)
}

fn check_driver(driver: &str) -> Result<()> {
    if driver.is_empty() || driver == "local" {
        return Ok(());
    }
    bad(format!("error looking up volume plugin {driver}: plugin {driver:?} not found"))
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(ApiError::bad_request(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<MountSpec> {
        bind(text, "")
    }

    #[test]
    fn a_source_with_a_slash_is_a_path_of_the_host() {
        let mount = one("/src/../a:/dst/:ro,rslave,z").unwrap();
        assert_eq!((mount.target.as_str(), mount.read_only), ("/dst", true));
        assert!(
            matches!(mount.kind, MountKind::Bind { source, create: true, propagation, recursive: true }
            if source == "/a" && propagation.as_deref() == Some("rslave"))
        );
        let volume = one("data:/d:nocopy").unwrap();
        assert!(
            matches!(volume.kind, MountKind::Volume { name, no_copy: true, .. } if name.as_deref() == Some("data"))
        );
        assert!(matches!(one("/only").unwrap().kind, MountKind::Volume { name: None, .. }));
    }

    #[test]
    fn bad_binds_are_refused_with_dockers_texts() {
        let text = |bind: &str| one(bind).unwrap_err().message;
        assert_eq!(text(""), "invalid volume specification: ''");
        assert_eq!(text("a:b:c:d"), "invalid volume specification: 'a:b:c:d'");
        assert_eq!(text("/a:/b:maybe"), "invalid mode: maybe");
        assert_eq!(text("/a:/b:ro,rw"), "invalid mode: ro,rw");
        assert!(text("/a:b").ends_with("invalid mount path: 'b' mount path must be absolute"));
        assert!(text("/a:/").ends_with("destination can't be '/'"));
        assert!(text("./a:/b").contains("includes invalid characters for a local volume name"));
        assert!(text("aa:/b:shared").contains("invalid mode"));
    }

    #[test]
    fn a_target_is_used_once() {
        let host = HostConfig {
            binds: Some(vec!["/a:/b".into()]),
            tmpfs: [("/b/".to_owned(), String::new())].into(),
            ..HostConfig::default()
        };
        assert_eq!(mounts(&host).unwrap_err().message, "Duplicate mount point: /b");
    }

    #[test]
    fn typed_mounts_check_their_own_fields() {
        let mount = |kind: &str, source: &str, target: &str| Mount {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let text = |m: Mount| typed(&m).unwrap_err().message;
        assert!(text(mount("bind", "", "/a")).ends_with("field Source must not be empty"));
        assert!(text(mount("bind", "/x", "")).ends_with("field Target must not be empty"));
        assert!(text(mount("npipe", "/x", "/a")).ends_with("mount type unknown"));
        let foreign =
            Mount { tmpfs_options: Some(TmpfsOptions::default()), ..mount("volume", "", "/a") };
        assert!(text(foreign).ends_with("field TmpfsOptions must not be specified"));
        let sized =
            TmpfsOptions { size_bytes: 64, mode: 0o1777, options: vec![vec!["exec".into()]] };
        assert_eq!(tmpfs_options(Some(&sized)).unwrap(), "exec,size=64,mode=1777");
    }
}
