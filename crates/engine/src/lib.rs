//! Policy: what containers, images, networks and volumes are to their users.

pub mod error;
pub mod spec;
pub mod view;

pub use error::{Class, Error, Result};
