//! Crate `capsa-api`.
