//! Policy: what containers, images, networks and volumes are to their users.
//!
//! The one crate that knows all mechanisms. It returns errors and emits events;
//! it prints nothing and knows no HTTP status. One actor owns each container;
//! everybody else sees snapshots.

mod clock;
pub mod container;
mod engine;
pub mod error;
pub mod events;
pub mod exec_io;
pub mod execs;
mod id;
pub mod image_ops;
mod images;
mod info;
mod init_layer;
mod instance;
mod logs;
mod network;
pub mod networks;
mod oci_spec;
pub mod options;
pub mod spec;
pub mod view;
pub mod volumes;
mod watched;
mod world;

pub use engine::Engine;
pub use error::{Class, Error, Result};

/// Runs what reads or writes for long on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::kernel(format!("the task failed: {error}"))))
}
