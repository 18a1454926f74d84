//! Crate `capsa-image`.
