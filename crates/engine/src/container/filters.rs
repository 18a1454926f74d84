//! The default syscall filter, compiled once for each set of capabilities.
//!
//! What Docker's profile allows depends on the capabilities and on nothing else that
//! changes while the engine runs. Nearly all containers have the same ones.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use capsa_runtime::seccomp::{self, Facts};

use crate::{Error, Result};

/// Sets worth remembering; whoever brings more of them compiles each time.
const KEPT: usize = 64;

/// Filters by capabilities, as the kernel takes them.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<HashMap<Vec<String>, Vec<u8>>>);

impl Filters {
    /// Docker's default profile for a process with `capabilities`.
    pub(crate) fn docker_default(&self, capabilities: &[String]) -> Result<Vec<u8>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = known.get(capabilities) {
            return Ok(filter.clone());
        }
        let profile = seccomp::docker_default(Facts::here(capabilities))
            .map_err(|error| Error::kernel(format!("default seccomp profile: {error}")))?;
        let filter = seccomp::compile(&profile)
            .map_err(|error| Error::kernel(format!("default seccomp profile: {error}")))?;
        if known.len() < KEPT {
            known.insert(capabilities.to_vec(), filter.clone());
        }
        Ok(filter)
    }
}
