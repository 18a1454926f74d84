//! The Docker Engine API as data: wire types with Docker's exact JSON names and
//! shapes, its versions, its filters, its stream framing, and a client.
//!
//! Knows HTTP and JSON; knows no engine. The server serves these types, the
//! command line reads them.

pub mod client;
pub mod encoding;
pub mod filters;
pub mod json;
pub mod stream;
pub mod transport;
pub mod types;
pub mod version;

pub use client::{Client, ClientError, Hijacked, Payload};
pub use filters::Filters;
pub use transport::{Endpoint, Transport};
pub use version::Version;
