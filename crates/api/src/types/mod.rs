//! Docker's JSON as types, one file per resource. Which fields exist, which may be
//! left out, and which empty value is `null`, `[]` or `{}` follows Docker 28, since
//! clients depend on each of them.
//!
//! The fields themselves are explained by Docker's API specification and not here.

#![expect(missing_docs, reason = "the names and meanings are those of Docker's API specification")]

mod config;
mod container;
mod exec;
mod host_config;
mod image;
mod network;
mod stats;
mod system;
mod volume;

use std::collections::BTreeMap;

pub use capsa_oci::Empty;
pub use config::*;
pub use container::*;
pub use exec::*;
pub use host_config::*;
pub use image::*;
pub use network::*;
pub use stats::*;
pub use system::*;
pub use volume::*;

/// Go's zero time: "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// `{"a":{},"b":{}}`.
pub type Set = BTreeMap<String, Empty>;
/// Labels, options and annotations.
pub type StringMap = BTreeMap<String, String>;

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
