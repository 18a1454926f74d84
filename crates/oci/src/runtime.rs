//! The OCI runtime specification as data.
