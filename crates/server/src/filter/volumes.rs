//! Which volumes a list shows.

use capsa_api::Filters;
use capsa_engine::view::VolumeView;

use super::{NamePattern, boolean};
use crate::error::Result;

/// Keys of `GET /volumes`.
pub(crate) const KEYS: &[&str] = &["dangling", "driver", "label", "name"];

/// A parsed filter.
pub(crate) struct VolumeFilter {
    filters: Filters,
    names: Vec<NamePattern>,
    dangling: Option<bool>,
}

impl VolumeFilter {
    pub(crate) fn new(filters: Filters) -> Result<Self> {
        let names = filters.get("name").map(NamePattern::new).collect();
        Ok(Self { names, dangling: boolean(&filters, "dangling")?, filters })
    }

    /// Whether it is shown; `used` says whether a container has it.
    pub(crate) fn passes(&self, view: &VolumeView, used: impl FnOnce() -> bool) -> bool {
        (self.names.is_empty() || self.names.iter().any(|p| p.matches(&view.name)))
            && self.filters.any("driver", |driver| driver == "local")
            && self.filters.labels_match("label", &view.labels)
            && self.dangling.is_none_or(|wanted| wanted != used())
    }
}
