//! Crate `capsa-store`.
