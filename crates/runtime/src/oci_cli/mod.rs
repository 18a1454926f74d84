//! oci_cli
