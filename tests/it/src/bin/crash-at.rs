//! Kills a process as it enters its N-th call that changes something, counted over all
//! its threads: `crash-at PID [N [freeze]]`. Without N it only counts. With `freeze` its
//! children are stopped (SIGSTOP) before it dies.
//!
//! A tracer of its own, because strace counts for each thread alone and follows
//! children with the threads. Here a new thread is traced and a new process is not:
//! monitors and containers live on. When the N-th call comes, its thread stands at the
//! entry and the call is never made.
//!
//! Standard output says `ready` once every thread is watched, then the name of each
//! call, last the one that was killed; before that, `frozen PID` for each child. Ends with the process; when the tracer is
//! killed first, the process goes on unharmed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

use std::collections::HashSet;
use std::fs;
use std::io::Write;

use libc::c_long;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Calls that change what others can see: files, mounts, processes, the network, and
/// what is said to a client, to a monitor or to the kernel.
const CHANGES: &[(c_long, &str)] = &[
    (libc::SYS_bind, "bind"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_listen, "listen"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_utimensat, "utimensat"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
];

/// Those that newer architectures leave out.
#[cfg(target_arch = "x86_64")]
const OLD_CHANGES: &[(c_long, &str)] = &[
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_chown, "chown"),
    (libc::SYS_lchown, "lchown"),
    (libc::SYS_link, "link"),
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_vfork, "vfork"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CHANGES: &[(c_long, &str)] = &[];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().map(|word| word.parse::<i32>().unwrap());
    let process = Pid::from_raw(number().unwrap());
    let fatal = number();
    let freeze = arguments.next().is_some();
    seize(process);
    say("ready");
    let mut steps = 0;
    // Threads that are between the entry and the exit of a call.
    let mut inside = HashSet::new();
    loop {
        let thread = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::PtraceSyscall(thread)) => thread,
            Ok(WaitStatus::Stopped(thread, signal)) => {
                go_on(thread, Some(signal));
                continue;
            }
            Ok(WaitStatus::PtraceEvent(thread, _, _)) => {
                go_on(thread, None);
                continue;
            }
            Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _)) => {
                inside.remove(&thread);
                continue;
            }
            Ok(_) | Err(Errno::EINTR) => continue,
            // All of them have ended.
            Err(_) => return,
        };
        let enters = !inside.remove(&thread);
        if enters {
            inside.insert(thread);
            if let Some(name) = change(thread) {
                steps += 1;
                if Some(steps) == fatal && freeze {
                    freeze_children(process);
                }
                say(name);
                if Some(steps) == fatal {
                    kill(process, Signal::SIGKILL).unwrap();
                }
            }
        }
        go_on(thread, None);
    }
}

/// Attaches to every thread and makes each tell its calls; new ones come by themselves.
fn seize(process: Pid) {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    let mut seized = HashSet::new();
    loop {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let before = seized.len();
        for thread in threads.map_while(Result::ok) {
            let thread = Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap());
            // Refused for one that ended since, or that its maker's tracing brought.
            if seized.insert(thread) && ptrace::seize(thread, options).is_ok() {
                stop_once(thread);
            }
        }
        if seized.len() == before {
            return;
        }
    }
}

/// A thread tells its calls from its first stop on.
fn stop_once(thread: Pid) {
    if ptrace::interrupt(thread).is_err() {
        return;
    }
    match waitpid(thread, Some(WaitPidFlag::__WALL)) {
        Ok(WaitStatus::Stopped(_, signal)) => go_on(thread, Some(signal)),
        Ok(_) => go_on(thread, None),
        Err(_) => {}
    }
}

/// Until its next call begins or ends. It may have been killed meanwhile.
fn go_on(thread: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(thread, signal);
}

/// The name of the call that a thread has entered, if it changes something.
fn change(thread: Pid) -> Option<&'static str> {
    // proc_pid_syscall(5): the number, then six arguments in hexadecimal.
    let text = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number: c_long = words.next()?.parse().ok()?;
    let mut argument = || i64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (first, _, third) = (argument(), argument(), argument());
    if number == libc::SYS_openat {
        return (third? & i64::from(libc::O_CREAT) != 0).then_some("openat");
    }
    if number == libc::SYS_clone {
        return (first? & i64::from(libc::CLONE_THREAD) == 0).then_some("clone");
    }
    let all = CHANGES.iter().chain(OLD_CHANGES);
    let (_, name) = all.copied().find(|(change, _)| *change == number)?;
    // Threads wake each other by these.
    if name == "write" {
        let file = fs::read_link(format!("/proc/{thread}/fd/{}", first?)).ok()?;
        return (file.as_os_str() != "anon_inode:[eventfd]").then_some(name);
    }
    Some(name)
}

/// Stops the children of a process, which itself makes no new ones meanwhile.
fn freeze_children(process: Pid) {
    let parent = format!("PPid:\t{process}\n");
    let pids = fs::read_dir("/proc").unwrap().map_while(Result::ok).filter_map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        status.contains(&parent).then_some(Pid::from_raw(pid))
    });
    for pid in pids {
        // First said: whoever listens shall be able to wake it, whatever becomes of us.
        say(&format!("frozen {pid}"));
        let _ = kill(pid, Signal::SIGSTOP);
    }
}

fn say(line: &str) {
    // Whoever started this may have heard enough.
    let _ = writeln!(std::io::stdout(), "{line}");
}
