//! Docker's filters: a map of key to a set of values, on the wire as
//! `{"k":{"v":true}}` or, from other clients, `{"k":["v"]}`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Values wanted, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// A filter text that is neither form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter")]
pub struct FiltersError;

impl Filters {
    /// Reads either form; an empty text is no filter.
    ///
    /// # Errors
    /// Malformed JSON or any other shape.
    pub fn parse(text: &str) -> Result<Self, FiltersError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys: BTreeMap<String, Value> =
            serde_json::from_str::<Option<_>>(text).map_err(|_| FiltersError)?.unwrap_or_default();
        keys.into_iter()
            .map(|(key, values)| Ok((key, values_of(values)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Adds one value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys in use.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values of `key`; none when it isn't asked for.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether `key` is asked for.
    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    /// Whether `key` isn't asked for, or one of its values passes.
    pub fn any(&self, key: &str, passes: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.get(key).any(passes)
    }

    /// Whether every value of `key` (`name` or `name=value`) holds for `labels`.
    pub fn labels_match(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| has_label(labels, wanted))
    }

    /// The wire form, `{"k":{"v":true}}`.
    pub fn to_json(&self) -> String {
        let map: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(key, values)| {
                (key.as_str(), values.iter().map(|v| (v.as_str(), true)).collect())
            })
            .collect();
        serde_json::to_string(&map).unwrap_or_default()
    }
}

/// Whether `labels` has `wanted`, written `name` or `name=value`.
pub fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

fn values_of(values: Value) -> Result<BTreeSet<String>, FiltersError> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Number(n) => Ok(n.to_string()),
        _ => Err(FiltersError),
    };
    match values {
        Value::Object(map) => Ok(map
            .into_iter()
            .filter(|(_, on)| *on != Value::Bool(false))
            .map(|(value, _)| value)
            .collect()),
        Value::Array(list) => list.into_iter().map(text).collect(),
        Value::Null => Ok(BTreeSet::new()),
        single => text(single).map(|value| BTreeSet::from([value])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_wire_forms_mean_the_same() {
        let go =
            Filters::parse(r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#).unwrap();
        let python = Filters::parse(r#"{"label":["a=b","c"],"status":["exited"]}"#).unwrap();
        assert_eq!(go, python);
        assert_eq!(Filters::parse(&go.to_json()).unwrap(), go);
        assert!(Filters::parse("{}").unwrap().is_empty());
        for bad in ["[]", "{", "1", r#"{"a":[{}]}"#] {
            assert_eq!(Filters::parse(bad), Err(FiltersError), "{bad}");
        }
    }

    #[test]
    fn every_label_must_match_but_any_other_value_may() {
        let filters =
            Filters::parse(r#"{"label":["a=b","c"],"status":["exited","created"]}"#).unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert!(filters.labels_match("label", &labels(&[("a", "b"), ("c", "")])));
        assert!(!filters.labels_match("label", &labels(&[("a", "x"), ("c", "")])));
        assert!(filters.any("status", |s| s == "created"));
        assert!(filters.any("name", |_| false), "a key that isn't asked for passes");
    }
}
