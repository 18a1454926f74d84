//! Programs of the spec that run at points of a container's life.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use capsa_oci::runtime::{Hook, State};
use capsa_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{Error, Result};

/// Runs `hooks` one after the other, each with `state` as JSON on its stdin. The first
/// that cannot be run, fails, or takes longer than its timeout ends it.
pub fn run(hooks: &[Hook], state: &State) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(state).map_err(|e| Error::Message(e.to_string()))?;
    hooks.iter().try_for_each(|hook| run_one(hook, &text))
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    let failed = |why: String| Error::invalid(format!("hook {}", hook.path), why);
    let mut command = Command::new(&hook.path);
    command.env_clear().stdin(Stdio::piped());
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state);
    }
    if let Some(seconds) = hook.timeout
        && !ends_within(child.id(), seconds)
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("still running after {seconds} seconds")));
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

fn ends_within(pid: u32, seconds: i64) -> bool {
    let Ok(pidfd) = process::pidfd_open(pid) else { return true };
    let limit = Timespec { tv_sec: seconds.max(0), tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    matches!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["WORD=yes".into()], timeout }
    }

    #[test]
    fn a_hook_gets_the_state_and_only_its_environment() {
        let state = State { id: "abc".into(), ..State::default() };
        let script = r#"grep -q '"id":"abc"' && test "$WORD" = yes && test -z "$HOME""#;
        run(&[hook(script, None)], &state).unwrap();
    }

    #[test]
    fn the_first_failure_ends_it() {
        let bad = run(&[hook("exit 3", None), hook("true", None)], &State::default());
        assert!(bad.unwrap_err().to_string().contains('3'));
        let slow = run(&[hook("sleep 100", Some(0))], &State::default());
        assert!(slow.unwrap_err().to_string().contains("still running"));
        let absent = Hook { path: "/absent".into(), ..Hook::default() };
        assert!(run(&[absent], &State::default()).is_err());
    }
}
