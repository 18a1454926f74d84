//! The Docker Engine API, served from an engine: routing, versions, conversion
//! between wire and domain, streams, hijacked connections, sockets.
//!
//! All parsing of what clients send happens here; the engine gets validated types
//! and knows no HTTP. Nothing here decides policy.

mod connection;
mod containers;
mod convert;
mod detach_keys;
mod error;
mod events;
mod execs;
mod filter;
mod hijack;
mod images;
mod listen;
mod networks;
mod own;
mod raw;
mod reply;
mod request;
mod router;
mod streams;
mod system;
mod time;
mod volumes;

pub use capsa_engine::Engine;
pub use capsa_engine::options::{EngineConfig, ImageStoreMark};
pub use connection::serve;
pub use listen::{ListenError, Listener};
