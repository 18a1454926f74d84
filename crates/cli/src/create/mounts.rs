//! `--volume`, `--mount`, `--tmpfs`.

use std::path::{Component, Path, PathBuf};

use capsa_api::types::{BindOptions, DriverConfig, Mount, StringMap, TmpfsOptions, VolumeOptions};

use crate::failure::{Failure, Result};
use crate::flags::Matches;
use crate::flags::values::{parse_bool, parse_size};

/// Says whether `--mount` makes sense.
pub(super) fn check_mount(text: &str) -> Result<(), String> {
    mount(text).map(drop)
}

/// Every `--mount`.
pub(super) fn mounts(matches: &Matches) -> Result<Vec<Mount>> {
    matches.list("mount").into_iter().map(|text| mount(text).map_err(Failure::said)).collect()
}

/// `--tmpfs` as a map of path to options.
pub(super) fn tmpfs(matches: &Matches) -> StringMap {
    matches
        .list("tmpfs")
        .into_iter()
        .map(|text| text.split_once(':').unwrap_or((text, "")))
        .map(|(path, options)| (path.to_owned(), options.to_owned()))
        .collect()
}

/// `--volume`: binds (those with a source), and anonymous volumes.
pub(super) fn volumes(matches: &Matches) -> Result<(Vec<String>, Vec<String>)> {
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for text in matches.list("volume") {
        let Some((source, rest)) = text.split_once(':') else {
            anonymous.push(text.to_owned());
            continue;
        };
        if source.is_empty() || rest.is_empty() || rest.starts_with(':') {
            return Err(Failure::said(format!(
                "invalid spec: {text}: empty section between colons"
            )));
        }
        let relative = source == "."
            || source == ".."
            || source.starts_with("./")
            || source.starts_with("../");
        match relative {
            true => binds.push(format!("{}:{rest}", absolute(source)?)),
            false => binds.push(text.to_owned()),
        }
    }
    Ok((binds, anonymous))
}

/// A path from the working directory, with `.` and `..` taken out.
fn absolute(path: &str) -> Result<String> {
    let base = std::env::current_dir().map_err(|error| Failure::io("getcwd", ".", &error))?;
    let mut clean = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    Ok(clean.to_string_lossy().into_owned())
}

/// Reads one `--mount`.
fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        set(&mut mount, &key, value, &field)?;
    }
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let wrong =
        |option: &str| format!("cannot mix '{option}' options with mount type '{}'", mount.kind);
    match mount.kind.as_str() {
        "bind" if mount.volume_options.is_some() => Err(wrong("volume-*")),
        "volume" if mount.bind_options.is_some() => Err(wrong("bind-*")),
        kind if kind != "tmpfs" && mount.tmpfs_options.is_some() => Err(wrong("tmpfs-*")),
        kind if kind != "image" && mount.image_options.is_some() => Err(wrong("image-*")),
        "tmpfs" if mount.bind_options.is_some() => Err(wrong("bind-*")),
        "tmpfs" if mount.volume_options.is_some() => Err(wrong("volume-*")),
        _ => Ok(mount),
    }
}

/// Sets one key of a mount.
fn set(mount: &mut Mount, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
    let Some(value) = value else {
        match key {
            "readonly" | "ro" => mount.read_only = true,
            "volume-nocopy" => volume(mount).no_copy = true,
            "bind-nonrecursive" => bind(mount).non_recursive = true,
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        return Ok(());
    };
    let truth = || parse_bool(value).map_err(|_| format!("invalid value for {key}: {value}"));
    let pair = || {
        let (name, value) = value.split_once('=').unwrap_or((value, ""));
        (name.to_owned(), value.to_owned())
    };
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => mount.source = source(value)?,
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "readonly" | "ro" => mount.read_only = truth()?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = truth()?,
        "bind-create-src" | "bind-create-mountpoint" => bind(mount).create_mountpoint = truth()?,
        "bind-recursive" => recursive(bind(mount), value)?,
        "volume-subpath" => volume(mount).subpath = value.to_owned(),
        "volume-nocopy" => volume(mount).no_copy = truth()?,
        "volume-label" => volume(mount).labels.extend([pair()]),
        "volume-driver" => driver(mount).name = value.to_owned(),
        "volume-opt" => driver(mount).options.extend([pair()]),
        "image-subpath" => {
            mount.image_options.get_or_insert_default().subpath = value.to_owned();
        }
        "tmpfs-size" => {
            tmpfs_options(mount).size_bytes =
                parse_size(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        "tmpfs-mode" => {
            tmpfs_options(mount).mode = u32::from_str_radix(value, 8)
                .map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn recursive(bind: &mut BindOptions, value: &str) -> Result<(), String> {
    match value {
        "enabled" => {}
        "disabled" => bind.non_recursive = true,
        "writable" => bind.read_only_non_recursive = true,
        "readonly" => bind.read_only_force_recursive = true,
        _ => {
            return Err(format!(
                "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
            ));
        }
    }
    Ok(())
}

fn source(value: &str) -> Result<String, String> {
    let relative = value == "." || value.starts_with("./") || value.starts_with("../");
    match relative && !Path::new(value).is_absolute() {
        true => absolute(value).map_err(|failure| failure.text),
        false => Ok(value.to_owned()),
    }
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs_options(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

/// Fields of one line of CSV: commas part them, double quotes protect them.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let unclosed = || "parse error on line 1: extraneous or missing \" in quoted-field".to_owned();
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or_else(unclosed)?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Ok((field, rest)),
            None => return Err(unclosed()),
        }
    }
}

/// The mount that hands the daemon's socket in.
pub(super) fn api_socket(path: &Path) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: path.to_string_lossy().into_owned(),
        target: "/var/run/docker.sock".to_owned(),
        bind_options: Some(BindOptions::default()),
        ..Mount::default()
    }
}
