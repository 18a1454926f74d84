//! Which events a subscriber sees.

use capsa_api::Filters;
use capsa_engine::view::Event;

/// Keys of `GET /events`.
pub(crate) const KEYS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Whether an event passes.
pub(crate) fn passes(filters: &Filters, event: &Event) -> bool {
    let named = |key: &str, kind: &str| {
        !filters.has(key) || (event.kind == kind && filters.get(key).any(|k| is_about(event, k)))
    };
    filters.any("type", |kind| event.kind == kind)
        && filters.any("event", |action| acts(event, action))
        && filters.any("scope", |scope| scope == "local")
        && filters.labels_match("label", &event.attributes)
        && named("container", "container")
        && named("volume", "volume")
        && named("network", "network")
        && named("daemon", "daemon")
        && named("plugin", "plugin")
        && filters.any("image", |image| is_of_image(event, image))
        && !["config", "node", "secret", "service"].iter().any(|key| filters.has(key))
}

/// `health_status` and `exec_start` also mean what follows their colon.
fn acts(event: &Event, wanted: &str) -> bool {
    event.action == wanted || event.action.split(':').next() == Some(wanted)
}

fn is_about(event: &Event, key: &str) -> bool {
    event.id.starts_with(key) || event.attributes.get("name").is_some_and(|name| name == key)
}

/// An event of the image, or of a container made of it; with or without tag.
fn is_of_image(event: &Event, wanted: &str) -> bool {
    let without_tag = |name: &str| {
        let start = name.rfind('/').map_or(0, |at| at + 1);
        name[start..].find(':').map_or(name.len(), |at| start + at)
    };
    let fits = |name: &str| name == wanted || &name[..without_tag(name)] == wanted;
    let attribute = match event.kind.as_str() {
        "image" => "name",
        _ => "image",
    };
    (event.kind == "image" && fits(&event.id))
        || event.attributes.get(attribute).is_some_and(|name| fits(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: "abcdef".to_owned(),
            attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            time_ns: 0,
        }
    }

    #[test]
    fn events_are_chosen_by_kind_action_name_and_label() {
        let start =
            event("container", "start", &[("name", "web"), ("image", "busybox:1"), ("a", "b")]);
        let exec = event("container", "exec_start: sh -c x", &[]);
        for (text, seen) in [
            ("{}", true),
            (r#"{"type":["container"],"event":["start"]}"#, true),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["we"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"volume":["web"]}"#, false),
            (r#"{"node":["x"]}"#, false),
        ] {
            assert_eq!(passes(&Filters::parse(text).unwrap(), &start), seen, "{text}");
        }
        assert!(passes(&Filters::parse(r#"{"event":["exec_start"]}"#).unwrap(), &exec));
    }
}
