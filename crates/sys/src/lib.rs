//! The kernel, safely: the only crate with `unsafe`.
//!
//! Each module wraps one area of the kernel behind owned descriptors, slices and
//! typed flags. Nothing here knows what a container is.
#![allow(unsafe_code)]

pub mod atomic;
pub mod bpf;
pub mod caps;
pub mod channel;
mod error;
pub mod lock;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod nftables;
pub mod process;
pub mod pty;
pub mod rlimit;
pub mod root;
pub mod schedule;
pub mod seccomp;
pub mod signal;

pub use error::{Error, Result};
