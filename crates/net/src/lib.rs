//! Crate `capsa-net`.
