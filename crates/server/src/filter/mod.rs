//! What lists and prunes leave out. Values of one key are alternatives, keys and
//! labels must all hold.

pub(crate) mod containers;
pub(crate) mod events;
pub(crate) mod images;
pub(crate) mod networks;
mod pattern;
pub(crate) mod prune;
pub(crate) mod volumes;

pub(crate) use pattern::{NamePattern, glob};

use crate::error::{ApiError, Result};

/// `invalid filter 'key=value'`, as Docker says it.
pub(crate) fn invalid(key: &str, value: &str) -> ApiError {
    ApiError::bad_request(format!("invalid filter '{key}={value}'"))
}

/// A boolean filter: `None` when it isn't asked for.
pub(crate) fn boolean(filters: &capsa_api::Filters, key: &str) -> Result<Option<bool>> {
    let mut wanted = None;
    for value in filters.get(key) {
        let value = match value {
            "1" | "true" => true,
            "0" | "false" => false,
            other => return Err(invalid(key, other)),
        };
        if wanted.is_some_and(|w| w != value) {
            return Err(invalid(key, "true,false"));
        }
        wanted = Some(value);
    }
    Ok(wanted)
}
