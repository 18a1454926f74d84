//! Process 1 of a container that asked for one: runs the program as its child, passes
//! signals on, reaps orphans, and ends as the program ends.
//!
//! It has the user's identity and filter, no descriptor but the three streams, and
//! nothing that needs memory beyond what the fork shares.

use capsa_sys::process::{self, Clone, Forked};
use capsa_sys::signal;
use rustix::process::Pid;

use super::identity;
use super::program::Program;
use super::sync::{self, Report};
use crate::protocol::Failure;

/// Runs `program`. Returns only on failure.
pub(super) fn run(program: &Program, channel: sync::Init) -> Option<Failure> {
    let started = signal::block_all().and_then(|mask| {
        std::mem::forget(mask);
        process::clone(Clone::empty(), None)
    });
    match started {
        Err(error) => Some(report(&channel, Failure::engine("init", error))),
        Ok(Forked::Child) => Some(report(&channel, become_program(program))),
        Ok(Forked::Parent(child)) => {
            let _ = identity::hide_memory();
            let _ = rustix::thread::set_name(c"capsa-init");
            drop(channel);
            // The end of the channel tells the parent that the program runs; the copies
            // of other descriptors that the fork left here must go all the same.
            let _ = process::close_from(3);
            process::exit_now(watch(child.pid))
        }
    }
}

fn report(channel: &sync::Init, failure: Failure) -> Failure {
    let _ = channel.send(&Report::Failed(failure.clone()), &[]);
    failure
}

/// In a process group of its own, in the foreground if there is a terminal; with
/// SIGTTOU still blocked, the terminal lets a background group do that.
fn become_program(program: &Program) -> Failure {
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
    signal::unblock_all();
    program.exec()
}

/// The exit code of `pid`, once it has ended.
fn watch(pid: u32) -> i32 {
    loop {
        let signal = signal::take_next();
        if signal != libc::SIGCHLD {
            forward(pid, signal);
            continue;
        }
        while let Ok(Some((ended, how))) = process::wait_any(false) {
            if ended == pid {
                return how.code();
            }
        }
    }
}

fn forward(pid: u32, signal: i32) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(target) = target {
        process::kill_pid(target, signal);
    }
}
