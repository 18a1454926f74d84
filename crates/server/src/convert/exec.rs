//! Execs: what to run, and what is shown of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capsa_api::types::{ExecCreate, ExecInspect, ProcessConfig};
use capsa_engine::spec::ExecSpec;
use capsa_engine::view::ExecView;

use super::create::{check_env, console_size};
use crate::detach_keys::DetachKeys;
use crate::error::{ApiError, Result};

/// Reads the body of an exec's creation.
pub(crate) fn spec(body: ExecCreate) -> Result<ExecSpec> {
    let cmd = body.cmd.unwrap_or_default();
    if cmd.is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    let env = body.env.unwrap_or_default();
    check_env(&env)?;
    if !body.working_dir.is_empty() && !body.working_dir.starts_with('/') {
        return Err(ApiError::bad_request(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            body.working_dir
        )));
    }
    DetachKeys::parse(&body.detach_keys).map_err(|e| ApiError::bad_request(e.to_string()))?;
    Ok(ExecSpec {
        cmd,
        env,
        user: body.user,
        working_dir: (!body.working_dir.is_empty()).then_some(body.working_dir),
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        privileged: body.privileged,
        console_size: console_size(&body.console_size.unwrap_or_default())?,
        detach_keys: (!body.detach_keys.is_empty()).then_some(body.detach_keys),
    })
}

/// An exec as inspect shows it.
pub(crate) fn show(view: &ExecView) -> ExecInspect {
    let spec = &view.spec;
    let (program, arguments) =
        spec.cmd.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
    ExecInspect {
        id: view.id.clone(),
        running: view.running,
        exit_code: view.exit_code,
        process_config: ProcessConfig {
            tty: spec.tty,
            entrypoint: program,
            arguments: arguments.to_vec(),
            privileged: spec.privileged,
            user: spec.user.clone(),
        },
        open_stdin: spec.attach_stdin,
        open_stderr: spec.attach_stderr,
        open_stdout: spec.attach_stdout,
        can_remove: !view.running && view.exit_code.is_some(),
        container_id: view.container.clone(),
        detach_keys: spec.detach_keys.as_ref().map(|keys| STANDARD.encode(keys)),
        pid: view.pid,
    }
}
