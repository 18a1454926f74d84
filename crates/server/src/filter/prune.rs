//! What a prune may take: old enough, with these labels, without those.

use std::collections::BTreeMap;

use capsa_api::Filters;
use capsa_api::filters::has_label;

use crate::error::Result;
use crate::time;

/// Keys that every prune knows.
pub(crate) const KEYS: &[&str] = &["label", "label!", "until"];

/// A parsed prune filter.
pub(crate) struct PruneFilter {
    filters: Filters,
    until_ns: Option<i64>,
}

impl PruneFilter {
    pub(crate) fn new(filters: Filters) -> Result<Self> {
        let now = time::now_ns();
        let until = filters.get("until").map(|text| time::until(text, now));
        let until_ns = until.collect::<Result<Vec<i64>>>()?.into_iter().min();
        Ok(Self { filters, until_ns })
    }

    /// Whether something with these labels, created then, is taken.
    pub(crate) fn takes(&self, labels: &BTreeMap<String, String>, created_ns: i64) -> bool {
        self.until_ns.is_none_or(|until| created_ns < until)
            && self.filters.labels_match("label", labels)
            && !self.filters.get("label!").any(|unwanted| has_label(labels, unwanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_age_decide() {
        let text = r#"{"label":["a"],"label!":["keep=1"],"until":["100"]}"#;
        let filter = PruneFilter::new(Filters::parse(text).unwrap()).unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert!(filter.takes(&labels(&[("a", "")]), 5));
        assert!(!filter.takes(&labels(&[("a", "")]), 200_000_000_000));
        assert!(!filter.takes(&labels(&[("a", ""), ("keep", "1")]), 5));
        assert!(!filter.takes(&labels(&[]), 5));
    }
}
