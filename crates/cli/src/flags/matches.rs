//! What was typed: flag values in order, and arguments.

use super::values;

/// The words after a verb, read.
#[derive(Default, Debug)]
pub(crate) struct Matches {
    values: Vec<(&'static str, String)>,
    /// Arguments in order.
    pub(crate) args: Vec<String>,
}

impl Matches {
    /// Adds one value.
    pub(crate) fn push(&mut self, flag: &'static str, value: &str) {
        self.values.push((flag, value.to_owned()));
    }

    /// Whether the flag was typed at all.
    pub(crate) fn given(&self, flag: &str) -> bool {
        self.values.iter().any(|(name, _)| *name == flag)
    }

    /// The last value.
    pub(crate) fn text(&self, flag: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    /// The last value, or nothing at all.
    pub(crate) fn text_or_empty(&self, flag: &str) -> &str {
        self.text(flag).unwrap_or_default()
    }

    /// A switch that is off unless typed.
    pub(crate) fn flag(&self, flag: &str) -> bool {
        self.switch(flag).unwrap_or(false)
    }

    /// A switch, absent when not typed.
    pub(crate) fn switch(&self, flag: &str) -> Option<bool> {
        self.text(flag).and_then(|value| values::parse_bool(value).ok())
    }

    /// A number; its syntax was checked when it was read.
    pub(crate) fn int(&self, flag: &str) -> Option<i64> {
        self.text(flag).and_then(|value| values::parse_int(value).ok())
    }

    /// A size in bytes; its syntax was checked when it was read.
    pub(crate) fn size(&self, flag: &str) -> Option<i64> {
        self.text(flag).and_then(|value| values::parse_size(value).ok())
    }

    /// A duration in nanoseconds; its syntax was checked when it was read.
    pub(crate) fn duration(&self, flag: &str) -> Option<i64> {
        self.text(flag).and_then(|value| values::parse_duration(value).ok())
    }

    /// Every value, in order.
    pub(crate) fn list(&self, flag: &str) -> Vec<&str> {
        self.values
            .iter()
            .filter(|(name, _)| *name == flag)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The argument at `at`, empty when there is none (arity was checked before).
    pub(crate) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map(String::as_str).unwrap_or_default()
    }
}
