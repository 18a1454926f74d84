//! One container from one bundle: create, start, exec, kill, pause, delete; init; monitor.
//!
//! Blocking and single-threaded: it starts no threads and links no async code, so
//! that clone and fork are sound in the monitor and in init. Knows no networks.

pub mod bundle;
pub mod caps;
pub mod cgroup;
mod error;
mod exec;
mod furniture;
pub mod hooks;
mod init;
mod launch;
pub mod monitor;
mod namespaces;
pub mod oci_cli;
pub mod protocol;
mod rootfs;
pub mod seccomp;

pub use error::{Error, Result};
