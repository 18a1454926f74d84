//! Volumes.

use std::path::Path;

use capsa_api::types::{Volume, VolumeCreate};
use capsa_engine::options::VolumeRequest;
use capsa_engine::view::VolumeView;

use super::mounts::check_volume_name;
use crate::error::{ApiError, Result};
use crate::time;

/// Reads the body of a volume's creation.
pub(crate) fn create(body: VolumeCreate) -> Result<VolumeRequest> {
    if !body.name.is_empty() {
        check_volume_name(&body.name)
            .map_err(|e| ApiError::bad_request(format!("create {}: {}", body.name, e.message)))?;
    }
    Ok(VolumeRequest {
        name: body.name,
        driver: body.driver,
        options: body.driver_opts,
        labels: body.labels,
    })
}

/// A volume as shown.
pub(crate) fn show(view: &VolumeView) -> Volume {
    let present = |map: &capsa_api::types::StringMap| (!map.is_empty()).then(|| map.clone());
    Volume {
        created_at: time::rfc3339(view.created_ns),
        driver: "local".to_owned(),
        labels: present(&view.labels),
        mountpoint: path(&view.mountpoint),
        name: view.name.clone(),
        options: present(&view.options),
        scope: "local".to_owned(),
        usage_data: None,
    }
}

/// A path as text.
pub(crate) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
