//! Further processes in running containers.

use crate::options::AttachStream;
use crate::spec::ExecSpec;
use crate::view::ExecView;
use crate::{Error, Result};

/// All execs of one engine.
#[derive(Debug)]
pub struct Execs {}

#[expect(clippy::unused_async, unused_variables, reason = "signatures first")]
impl Execs {
    /// Prepares an exec in a running container; its id.
    pub async fn create(&self, container: &str, spec: ExecSpec) -> Result<String> {
        Err(Error::unavailable("exec is not built yet"))
    }
    /// Runs it; its streams unless detached.
    pub async fn start(
        &self,
        id: &str,
        detach: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<Option<AttachStream>> {
        Err(Error::unavailable("exec is not built yet"))
    }
    /// Sets the size of its terminal.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        Err(Error::unavailable("exec is not built yet"))
    }
    /// One exec.
    pub fn inspect(&self, id: &str) -> Result<ExecView> {
        Err(Error::unavailable("exec is not built yet"))
    }
}
