//! Which images a list shows.

use capsa_api::Filters;
use capsa_engine::view::ImageView;
use capsa_oci::Reference;

use super::{boolean, glob};
use crate::convert::image::created_s;
use crate::error::Result;
use crate::time;

/// Keys of `GET /images/json`.
pub(crate) const KEYS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

/// A parsed filter.
pub(crate) struct ImageFilter {
    filters: Filters,
    dangling: Option<bool>,
    before_s: Option<i64>,
    since_s: Option<i64>,
}

impl ImageFilter {
    /// Parses; `find` gives an image named by `before` or `since`.
    pub(crate) async fn new<F>(filters: Filters, find: impl Fn(String) -> F) -> Result<Self>
    where
        F: Future<Output = Result<i64>>,
    {
        let (mut before_s, mut since_s): (Option<i64>, Option<i64>) = (None, None);
        for image in filters.get("before") {
            let created = find(image.to_owned()).await?;
            before_s = Some(before_s.map_or(created, |b| b.min(created)));
        }
        for until in filters.get("until") {
            let created = time::until(until, time::now_ns())?.div_euclid(1_000_000_000);
            before_s = Some(before_s.map_or(created, |b| b.min(created)));
        }
        for image in filters.get("since") {
            let created = find(image.to_owned()).await?;
            since_s = Some(since_s.map_or(created, |s| s.max(created)));
        }
        Ok(Self { dangling: boolean(&filters, "dangling")?, before_s, since_s, filters })
    }

    /// Whether it is shown.
    pub(crate) fn passes(&self, view: &ImageView) -> bool {
        let empty = std::collections::BTreeMap::new();
        let labels = view.config.config.as_ref().and_then(|c| c.labels.as_ref()).unwrap_or(&empty);
        let created = created_s(view);
        self.dangling.is_none_or(|wanted| view.tags.is_empty() == wanted)
            && self.filters.labels_match("label", labels)
            && self.before_s.is_none_or(|s| created < s)
            && self.since_s.is_none_or(|s| created > s)
    }

    /// Leaves only the names that are asked for; whether any is left.
    pub(crate) fn choose_names(&self, view: &mut ImageView) -> bool {
        if !self.filters.has("reference") {
            return true;
        }
        let wanted = |name: &String| self.filters.get("reference").any(|p| refers(p, name));
        view.tags.retain(wanted);
        view.digests.retain(wanted);
        !view.tags.is_empty() || !view.digests.is_empty()
    }
}

/// Whether a pattern fits a familiar name, with or without its tag.
fn refers(pattern: &str, name: &str) -> bool {
    if glob(pattern.as_bytes(), name.as_bytes()) {
        return true;
    }
    Reference::parse(name).is_ok_and(|reference| {
        glob(pattern.as_bytes(), reference.familiar_name().as_bytes())
            || Reference::parse(pattern)
                .is_ok_and(|p| p.tag().is_some() && p.canonical() == reference.canonical())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_fit_with_or_without_tag() {
        for pattern in ["busybox", "busybox:1", "busy*", "*:1", "docker.io/library/busybox:1"] {
            assert!(refers(pattern, "busybox:1"), "{pattern}");
        }
        for pattern in ["busy", "busybox:2", "*/busybox", "alpine"] {
            assert!(!refers(pattern, "busybox:1"), "{pattern}");
        }
        assert!(refers("me/*", "me/app:latest"));
    }
}
