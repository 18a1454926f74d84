//! Plain data of the container world and its parsing: digests, references,
//! image manifests and configs, runtime specs. No IO, no clock.

mod digest;
mod image;
pub mod media_type;
mod reference;
pub mod runtime;
pub mod signal;

pub use digest::{Digest, DigestError, Hasher, chain_id};
pub use image::{
    Descriptor, Empty, ExecConfig, History, ImageConfig, Index, Manifest, Platform, RootFs,
};
pub use reference::{Reference, ReferenceError};
