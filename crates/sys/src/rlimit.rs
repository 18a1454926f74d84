//! rlimit
