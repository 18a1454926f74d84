//! Which networks a list shows.

use capsa_api::Filters;
use capsa_engine::view::NetworkView;

use super::{NamePattern, boolean, invalid};
use crate::error::Result;

/// Keys of `GET /networks`.
pub(crate) const KEYS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

/// A parsed filter.
pub(crate) struct NetworkFilter {
    filters: Filters,
    names: Vec<NamePattern>,
    dangling: Option<bool>,
}

/// Whether it is one of the networks that are always there.
pub(crate) fn is_predefined(view: &NetworkView) -> bool {
    matches!(view.name.as_str(), "bridge" | "host" | "none")
}

impl NetworkFilter {
    pub(crate) fn new(filters: Filters) -> Result<Self> {
        if let Some(value) = filters.get("type").find(|t| !matches!(*t, "custom" | "builtin")) {
            return Err(invalid("type", value));
        }
        let names = filters.get("name").map(NamePattern::new).collect();
        Ok(Self { names, dangling: boolean(&filters, "dangling")?, filters })
    }

    /// Whether it is shown.
    pub(crate) fn passes(&self, view: &NetworkView) -> bool {
        let filters = &self.filters;
        let predefined = is_predefined(view);
        (self.names.is_empty() || self.names.iter().any(|p| p.matches(&view.name)))
            && filters.any("id", |id| view.id.contains(id))
            && filters.any("driver", |driver| view.driver == driver)
            && filters.any("scope", |scope| scope == "local")
            && filters.any("type", |kind| (kind == "builtin") == predefined)
            && filters.labels_match("label", &view.labels)
            && self
                .dangling
                .is_none_or(|wanted| (!predefined && view.containers.is_empty()) == wanted)
    }
}
