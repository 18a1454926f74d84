//! Between Docker's wire types and the engine's, one file per subject. All
//! validation of what clients send is here; the texts are those Docker answers.

pub(crate) mod create;
pub(crate) mod echo;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod registry;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod signal;
pub(crate) mod summary;
pub(crate) mod volume;
