//! Moving and transforming images: tar layers and trees, archives, copies.
//!
//! * [`apply`] and [`diff`]: a layer's tar stream to a directory in overlayfs' form
//!   and back; [`unpack_into`], [`pack`] and [`changes`] for copies and `diff`.
//! * [`copy`]: images from a [`Source`] to a [`Sink`]; archives are both, and so are
//!   registries ([`registry::Client`]).
//!
//! Everything read here is a stranger's: it is bounded by [`Limits`], checked
//! against its digest, and confined to a [`capsa_sys::root::RootDir`]. Not here:
//! where images are kept, and what a daemon answers.

mod apply;
pub mod archive;
mod changes;
mod compress;
mod copy;
mod error;
mod gzip;
mod limits;
mod merged;
mod pack;
mod pipe;
mod platform;
pub mod registry;
pub mod tar;
mod tree;

pub use apply::{Applied, UnpackOptions, apply, unpack_into};
pub use changes::{ChangeKind, changes};
pub use compress::{Compression, compress, decompress};
pub use copy::{Blob, Image, Layer, OnProgress, Sink, Source, copy};
pub use error::{Error, Result};
pub use gzip::gzip;
pub use limits::Limits;
pub use merged::{Difference, Hidden, LayerEffect, Merged};
pub use pack::{diff, pack, pack_as};
pub use pipe::{unpack_hashed, unpack_layer};
pub use tree::disk_size;
