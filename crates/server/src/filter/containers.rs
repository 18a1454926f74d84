//! Which containers a list shows.

use capsa_api::Filters;
use capsa_engine::spec::Port;
use capsa_engine::view::{ContainerView, Phase};
use capsa_oci::Reference;

use super::{NamePattern, boolean, invalid};
use crate::convert::{inspect, ports};
use crate::error::{ApiError, Result};

/// Keys of `GET /containers/json`.
pub(crate) const KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: [&str; 7] =
    ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// A parsed filter.
pub(crate) struct ContainerFilter {
    filters: Filters,
    names: Vec<NamePattern>,
    exited: Vec<i32>,
    ports: Vec<(Vec<Port>, bool)>,
    before_ns: Option<i64>,
    since_ns: Option<i64>,
    never: bool,
}

impl ContainerFilter {
    /// Parses; `find` gives the creation time of a container named by `before` or `since`.
    pub(crate) async fn new<F>(filters: Filters, find: impl Fn(String) -> F) -> Result<Self>
    where
        F: Future<Output = Result<i64>>,
    {
        check_words(&filters, "status", &STATUSES)?;
        check_words(&filters, "health", &HEALTHS)?;
        let exited = filters.get("exited").map(|v| v.parse().map_err(|_| invalid("exited", v)));
        let mut wanted_ports = Vec::new();
        for (key, published) in [("publish", true), ("expose", false)] {
            let alternatives = port_list(&filters, key)?;
            if filters.has(key) {
                wanted_ports.push((alternatives, published));
            }
        }
        let (mut before_ns, mut since_ns) = (None, None);
        for (key, bound) in [("before", &mut before_ns), ("since", &mut since_ns)] {
            if let Some(container) = filters.get(key).next() {
                *bound = Some(find(container.to_owned()).await?);
            }
        }
        Ok(Self {
            names: filters.get("name").map(NamePattern::new).collect(),
            exited: exited.collect::<Result<_>>()?,
            ports: wanted_ports,
            before_ns,
            since_ns,
            never: boolean(&filters, "is-task")? == Some(true)
                || filters.get("isolation").any(|i| !matches!(i, "" | "default")),
            filters,
        })
    }

    /// Whether stopped containers are shown though nobody asked for all.
    pub(crate) fn wants_all(filters: &Filters) -> bool {
        ["status", "exited", "before", "since"].iter().any(|key| filters.has(key))
    }

    /// Whether it is shown.
    pub(crate) fn passes(&self, view: &ContainerView) -> bool {
        let filters = &self.filters;
        !self.never
            && self.passes_names(view)
            && filters.labels_match("label", &view.resolved.labels)
            && filters.any("status", |status| status == inspect::status(view))
            && filters.any("health", |health| health == "none")
            && (self.exited.is_empty()
                || (view.phase == Phase::Stopped
                    && view.started_ns != 0
                    && self.exited.contains(&view.exit_code)))
            && self.before_ns.is_none_or(|ns| view.created_ns < ns)
            && self.since_ns.is_none_or(|ns| view.created_ns > ns)
            && filters.any("ancestor", |image| descends(view, image))
            && filters.any("network", |network| {
                let prefix = |id: &str| !id.is_empty() && id.starts_with(network);
                view.endpoints.iter().any(|e| e.network == network || prefix(&e.network_id))
            })
            && filters.any("volume", |volume| {
                view.mounts.iter().any(|m| m.name == volume || m.target == volume)
            })
            && self.ports.iter().all(|(wanted, published)| has_port(view, wanted, *published))
    }

    fn passes_names(&self, view: &ContainerView) -> bool {
        let name = &view.name;
        let named = self.names.is_empty()
            || self.names.iter().any(|p| p.matches(name) || p.matches(&format!("/{name}")));
        named && self.filters.any("id", |id| view.id.starts_with(id))
    }
}

fn check_words(filters: &Filters, key: &str, known: &[&str]) -> Result<()> {
    match filters.get(key).find(|value| !known.contains(value)) {
        Some(value) => Err(invalid(key, value)),
        None => Ok(()),
    }
}

fn port_list(filters: &Filters, key: &str) -> Result<Vec<Port>> {
    let mut list = Vec::new();
    for value in filters.get(key) {
        let (first, last, protocol) = ports::port_range(value).map_err(|_| {
            ApiError::bad_request(format!("filter for '{key}' should not contain ':': {value}"))
        })?;
        list.extend((first..=last).map(|number| Port { number, protocol }));
    }
    Ok(list)
}

fn has_port(view: &ContainerView, wanted: &[Port], published: bool) -> bool {
    if published {
        view.ports.iter().any(|bound| {
            wanted.iter().any(|p| {
                p.protocol == bound.port.protocol
                    && (p.number == bound.host_port || *p == bound.port)
            })
        })
    } else {
        view.resolved.exposed.iter().any(|port| wanted.contains(port))
    }
}

/// Whether the container was made of `image`: a reference, an id, or the start of one.
fn descends(view: &ContainerView, image: &str) -> bool {
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    let canonical =
        |text: &str| Reference::parse(text).ok().map(|r| r.with_default_tag().canonical());
    view.spec.image == image
        || (hex.len() >= 4 && view.image_id.hex().starts_with(hex))
        || canonical(image).is_some_and(|wanted| canonical(&view.spec.image) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::inspect::tests::view;

    async fn filter(text: &str) -> Result<ContainerFilter> {
        let created = |key: String| async move {
            key.parse().map_err(|_| ApiError::bad_request("No such container"))
        };
        ContainerFilter::new(Filters::parse(text).unwrap(), created).await
    }

    #[tokio::test]
    async fn keys_must_all_hold_and_values_are_alternatives() {
        let mut running = view(Phase::Running);
        running.resolved.labels.insert("a".to_owned(), "b".to_owned());
        for (text, shown) in [
            ("{}", true),
            (r#"{"name":["x","we"]}"#, true),
            (r#"{"name":["^web$"],"status":["running","exited"]}"#, true),
            (r#"{"name":["^/web$"]}"#, true),
            (r#"{"name":["^eb"]}"#, false),
            (r#"{"id":["0123"]}"#, true),
            (r#"{"label":["a","a=b"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"status":["exited"]}"#, false),
            (r#"{"exited":["0"]}"#, false),
            (r#"{"ancestor":["docker.io/library/busybox:latest"]}"#, true),
            (r#"{"ancestor":["alpine"]}"#, false),
            (r#"{"network":["bridge"]}"#, true),
            (r#"{"publish":["8080"]}"#, true),
            (r#"{"publish":["90"]}"#, false),
            (r#"{"expose":["90/tcp"]}"#, true),
            (r#"{"expose":["90/udp"]}"#, false),
            (r#"{"health":["none"]}"#, true),
            (r#"{"health":["healthy"]}"#, false),
            (r#"{"is-task":["true"]}"#, false),
            (r#"{"before":["5000000000"]}"#, true),
            (r#"{"since":["5000000000"]}"#, false),
            (r#"{"volume":["x"]}"#, false),
        ] {
            assert_eq!(filter(text).await.ok().unwrap().passes(&running), shown, "{text}");
        }
    }

    #[tokio::test]
    async fn nonsense_values_are_refused() {
        for text in [
            r#"{"status":["up"]}"#,
            r#"{"health":["ill"]}"#,
            r#"{"exited":["x"]}"#,
            r#"{"publish":["x"]}"#,
            r#"{"is-task":["perhaps"]}"#,
            r#"{"before":["gone"]}"#,
        ] {
            assert!(filter(text).await.is_err(), "{text}");
        }
        let text = filter(r#"{"status":["up"]}"#).await.err().unwrap().message;
        assert_eq!(text, "invalid filter 'status=up'");
    }
}
