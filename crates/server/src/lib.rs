//! Crate `capsa-server`.
