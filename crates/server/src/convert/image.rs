//! Images as shown: list items, inspect, history, and progress lines.

use capsa_api::Version;
use capsa_api::types::{
    DriverData, HistoryItem, ImageDeleted, ImageInspect, ImageMetadata, ImageSummary, JsonMessage,
    NEVER, ProgressDetail, RootFs,
};
use capsa_engine::image_ops::{HistoryView, ImagesUsage, Removed};
use capsa_engine::view::{ImageView, Progress};
use serde_json::{Map, Value, json};

use super::inspect::GRAPH_DRIVER;
use crate::time;

/// A line of the list.
pub(crate) fn summary(view: &ImageView, version: Version) -> ImageSummary {
    let size = signed(view.size);
    let config = view.config.config.as_ref();
    ImageSummary {
        containers: if version.at_least(51) { signed(view.containers as u64) } else { -1 },
        created: created_s(view),
        id: view.id.to_string(),
        labels: config.and_then(|c| c.labels.clone()),
        parent_id: view.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests: view.digests.clone(),
        repo_tags: if view.tags.is_empty() && !version.at_least(43) {
            vec!["<none>:<none>".to_owned()]
        } else {
            view.tags.clone()
        },
        shared_size: -1,
        size,
        virtual_size: (!version.at_least(44)).then_some(size),
    }
}

/// Bytes of an image's layers that others have too.
pub(crate) fn shared_size(usage: &ImagesUsage, view: &ImageView) -> i64 {
    signed(usage.shared.get(&view.id).copied().unwrap_or(0))
}

/// Inspect, as JSON because old versions show config fields that mean nothing.
pub(crate) fn inspect(view: &ImageView, version: Version) -> Value {
    let config = &view.config;
    let size = signed(view.size);
    let shown = ImageInspect {
        id: view.id.to_string(),
        repo_tags: view.tags.clone(),
        repo_digests: view.digests.clone(),
        parent: view.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: config.history.last().and_then(|h| h.comment.clone()).unwrap_or_default(),
        created: config.created.clone().unwrap_or_default(),
        docker_version: String::new(),
        author: config.author.clone().unwrap_or_default(),
        config: config.config.clone().unwrap_or_default(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        size,
        virtual_size: (!version.at_least(44)).then_some(size),
        graph_driver: DriverData { data: None, name: GRAPH_DRIVER.to_owned() },
        root_fs: RootFs {
            kind: "layers".to_owned(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: match view.last_tagged_ns {
                0 => NEVER.to_owned(),
                ns => time::rfc3339(ns),
            },
        },
    };
    let mut value = serde_json::to_value(shown).unwrap_or_default();
    if !version.at_least(50)
        && let Some(config) = value.get_mut("Config").and_then(Value::as_object_mut)
    {
        fill_legacy(config);
    }
    value
}

/// One step of the history.
pub(crate) fn history(view: &HistoryView) -> HistoryItem {
    HistoryItem {
        comment: view.comment.clone(),
        created: view.created_s,
        created_by: view.created_by.clone(),
        id: view.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string),
        size: signed(view.size),
        tags: (!view.tags.is_empty()).then(|| view.tags.clone()),
    }
}

/// What removing did.
pub(crate) fn removed(removed: Removed) -> ImageDeleted {
    match removed {
        Removed::Untagged(name) => ImageDeleted { untagged: Some(name), deleted: None },
        Removed::Deleted(id) => ImageDeleted { untagged: None, deleted: Some(id) },
    }
}

/// A line of progress.
pub(crate) fn progress(progress: Progress) -> JsonMessage {
    let aux = progress.pushed.map(|pushed| {
        json!({ "Tag": pushed.tag, "Digest": pushed.digest.to_string(), "Size": pushed.size })
    });
    let detail = match (progress.counted, &progress.stream) {
        (Some((current, total)), _) => Some(ProgressDetail { current, total }),
        (None, None) if !progress.id.is_empty() || aux.is_some() => Some(ProgressDetail::default()),
        _ => None,
    };
    JsonMessage {
        stream: progress.stream,
        status: progress.status,
        progress_detail: detail,
        id: progress.id,
        aux,
        ..JsonMessage::default()
    }
}

/// Seconds since the epoch of an image's creation.
pub(crate) fn created_s(view: &ImageView) -> i64 {
    let text = view.config.created.as_deref().unwrap_or_default();
    text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
}

/// Container-only fields that image configs showed below 1.50.
fn fill_legacy(config: &mut Map<String, Value>) {
    let empty = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null,
        "Cmd": null, "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null,
        "OnBuild": null, "Labels": null,
    });
    if let Value::Object(empty) = empty {
        for (key, value) in empty {
            config.entry(key).or_insert(value);
        }
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use capsa_oci::{Digest, ImageConfig};

    use super::*;

    fn view() -> ImageView {
        let config = r#"{"created":"2023-11-14T22:13:20Z","architecture":"amd64","os":"linux",
            "config":{"Env":["A=1"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        ImageView {
            id: Digest::sha256(b"x"),
            tags: Vec::new(),
            digests: Vec::new(),
            config: serde_json::from_str::<ImageConfig>(config).unwrap(),
            size: 7,
            containers: 2,
            last_tagged_ns: 0,
            parent: None,
        }
    }

    #[test]
    fn lists_of_an_image_are_empty_and_not_null() {
        let shown = serde_json::to_value(summary(&view(), Version::MAX)).unwrap();
        assert_eq!(shown["RepoTags"], json!([]));
        assert_eq!(shown["RepoDigests"], json!([]));
        assert_eq!(shown["Created"], json!(1_700_000_000));
        assert_eq!(shown["Containers"], json!(2));
        assert!(shown.get("VirtualSize").is_none());
        let old = serde_json::to_value(summary(&view(), Version::minor(41))).unwrap();
        assert_eq!((&old["RepoTags"], &old["VirtualSize"]), (&json!(["<none>:<none>"]), &json!(7)));
    }

    #[test]
    fn old_versions_see_container_fields_in_an_image() {
        let new = inspect(&view(), Version::MAX);
        assert!(new["Config"].get("Hostname").is_none());
        assert_eq!(new["Metadata"]["LastTagTime"], json!(NEVER));
        let old = inspect(&view(), Version::minor(41));
        assert_eq!(old["Config"]["Hostname"], json!(""));
        assert_eq!(old["Config"]["Cmd"], json!(["sh"]));
    }
}
