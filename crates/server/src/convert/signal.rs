//! Signals in requests: by name or number, refused with Docker's text.

use capsa_oci::signal;

use crate::error::{ApiError, Result};

/// `None` for an empty text.
pub(crate) fn optional(text: &str) -> Result<Option<i32>> {
    if text.is_empty() {
        return Ok(None);
    }
    signal::parse(text).map(Some).map_err(|error| ApiError::bad_request(error.to_string()))
}
