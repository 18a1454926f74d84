//! Devices and GPUs.

use capsa_api::types::{DeviceMapping, DeviceRequest};

use super::mounts::fields;
use crate::failure::{Failure, Result};
use crate::flags::Matches;
use crate::flags::values::parse_int;

/// Says whether `--gpus` makes sense.
pub(super) fn check_gpus(text: &str) -> Result<(), String> {
    gpus(text).map(drop)
}

/// Device nodes, and requests that name devices by what they are.
pub(super) fn read(matches: &Matches) -> Result<(Vec<DeviceMapping>, Option<Vec<DeviceRequest>>)> {
    let (mut nodes, mut requests, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for text in matches.list("device") {
        match is_qualified_name(text) {
            true => named.push(text.to_owned()),
            false => nodes.push(device(text)?),
        }
    }
    for text in matches.list("gpus") {
        requests.push(gpus(text)?);
    }
    if !named.is_empty() {
        requests.push(DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(named),
            ..DeviceRequest::default()
        });
    }
    Ok((nodes, Some(requests).filter(|requests| !requests.is_empty())))
}

/// `vendor.com/class=name`, as the Container Device Interface writes devices.
fn is_qualified_name(text: &str) -> bool {
    !text.starts_with('/')
        && text.split_once('=').is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
}

fn device(text: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |mode: &str| !mode.is_empty() && mode.chars().all(|c| "rwm".contains(c));
    let (source, target, mode) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [source, target, mode] if is_mode(mode) => (*source, *target, *mode),
        [_, _, mode] => return Err(Failure::said(format!("bad mode specified: {mode}"))),
        _ => return Err(Failure::said(format!("bad format for path: {text}"))),
    };
    if source.is_empty() {
        return Err(Failure::said(format!("bad format for path: {text}")));
    }
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// `all`, a number, or `device=0,1` and the like.
fn gpus(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut count = None;
    let mut capabilities = Vec::new();
    for field in fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        let texts = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match key {
            "count" if value == "all" => count = Some(-1),
            "count" => {
                count = Some(parse_int(value).map_err(|_| {
                    format!("invalid count ({value}): value must be either \"all\" or an integer")
                })?);
            }
            "driver" => value.clone_into(&mut request.driver),
            "device" => request.device_ids = Some(texts()),
            "capabilities" => capabilities = texts(),
            "options" => {
                request.options.extend(value.split(',').map(|option| {
                    let (key, value) = option.split_once('=').unwrap_or((option, ""));
                    (key.to_owned(), value.to_owned())
                }));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if count.is_some() && request.device_ids.is_some() {
        return Err("cannot set both Count and DeviceIDs on device request".to_owned());
    }
    request.count = count.unwrap_or(if request.device_ids.is_some() { 0 } else { 1 });
    if !capabilities.iter().any(|capability| capability == "gpu") {
        capabilities.push("gpu".to_owned());
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}
