//! Who a process in the container is: streams, ids, capabilities, filter, directory.
//!
//! The same for the first process and for an exec. With `no_new_privs` the filter comes
//! last, so that it only has to allow what the program itself needs; without it the
//! filter needs CAP_SYS_ADMIN and comes before the capabilities go.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use capsa_oci::runtime::{Capabilities, Process, User};
use capsa_sys::caps::{self, ThreadCaps};
use capsa_sys::pty::{self, Pty};
use capsa_sys::root::RootDir;
use capsa_sys::{process, seccomp};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::{Gid, Uid};

use super::Filter;
use crate::caps::set_of;
use crate::error::{Error, Result, Stage};
use crate::protocol::Failure;

/// Becomes the user of `process` in its working directory, for good.
pub(crate) fn assume(process: &Process, filter: Option<&Filter>) -> Result<()> {
    process::new_session_keyring();
    let directory = working_directory(&process.cwd)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)
            .map_err(|e| capsa_sys::Error::new("prctl", "no_new_privs", e))
            .stage("user")?;
    } else {
        load(filter)?;
    }
    let wanted = process.capabilities.as_ref();
    let bounding = wanted.map(|c| set_of(&c.bounding)).unwrap_or_default();
    caps::limit_bounding(bounding).stage("capabilities")?;
    set_user(&process.user).stage("user")?;
    enter(process, directory)?;
    set_capabilities(wanted).stage("capabilities")?;
    rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022)));
    if process.no_new_privileges { load(filter) } else { Ok(()) }
}

/// The calling process cannot be traced or read through `/proc` by others, until exec.
pub(crate) fn hide_memory() -> capsa_sys::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| capsa_sys::Error::new("prctl", "dumpable", e))
}

/// All user and group ids of the calling process.
pub(crate) fn set_ids(uid: u32, gid: u32) -> capsa_sys::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(group, group, group)
        .map_err(|e| capsa_sys::Error::new("setgid", gid, e))?;
    rustix::thread::set_thread_res_uid(user, user, user)
        .map_err(|e| capsa_sys::Error::new("setuid", uid, e))
}

/// The terminal becomes the user's, descriptors 0 to 2, and the session's.
pub(crate) fn take_terminal(pty: &Pty, user: &User) -> capsa_sys::Result<()> {
    let owner = Some(rustix::fs::Uid::from_raw(user.uid));
    rustix::fs::fchown(&pty.terminal, owner, None)
        .map_err(|e| capsa_sys::Error::new("chown", "terminal", e))?;
    pty::take_control(pty.terminal.as_fd())?;
    take_streams([pty.terminal.as_fd(); 3])
}

/// Descriptors 0 to 2 become these.
pub(crate) fn take_streams(fds: [BorrowedFd<'_>; 3]) -> capsa_sys::Result<()> {
    rustix::stdio::dup2_stdin(fds[0])
        .and_then(|()| rustix::stdio::dup2_stdout(fds[1]))
        .and_then(|()| rustix::stdio::dup2_stderr(fds[2]))
        .map_err(|e| capsa_sys::Error::new("dup2", "stdio", e))
}

/// The file in which to ask for an AppArmor profile at exec; `None` when no profile
/// is wanted or the kernel has no AppArmor. Opened through the host's `/proc`.
pub(crate) fn apparmor_file(process: &Process) -> Result<Option<(OwnedFd, String)>> {
    let Some(profile) = process.apparmor_profile.as_deref().filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let path = c"/proc/thread-self/attr/apparmor/exec";
    match rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some((file, format!("exec {profile}")))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(capsa_sys::Error::new("open", path.to_string_lossy(), e)).stage("apparmor"),
    }
}

/// Asks for the profile.
pub(crate) fn confine(apparmor: Option<(OwnedFd, String)>) -> Result<()> {
    let Some((file, text)) = apparmor else { return Ok(()) };
    let written = File::from(file).write_all(text.as_bytes());
    written.map_err(|e| capsa_sys::Error::from_io("write", text, &e)).stage("apparmor")
}

fn load(filter: Option<&Filter>) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    seccomp::load(&filter.program, filter.flags).stage("seccomp").map(drop)
}

fn set_user(user: &User) -> capsa_sys::Result<()> {
    let groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    caps::keep_over_setuid(true)?;
    rustix::thread::set_thread_groups(&groups).map_err(|e| {
        capsa_sys::Error::new("setgroups", format!("{:?}", user.additional_gids), e)
    })?;
    set_ids(user.uid, user.gid)
}

fn set_capabilities(wanted: Option<&Capabilities>) -> capsa_sys::Result<()> {
    let set = |list: fn(&Capabilities) -> &Vec<String>| {
        wanted.map(|wanted| set_of(list(wanted))).unwrap_or_default()
    };
    caps::set(ThreadCaps {
        effective: set(|c| &c.effective),
        permitted: set(|c| &c.permitted),
        inheritable: set(|c| &c.inheritable),
    })?;
    caps::set_ambient(set(|c| &c.ambient))
}

/// The working directory, made when it is missing. No link of `/proc` leads to it: a
/// descriptor of the host left open cannot be a working directory.
fn working_directory(cwd: &str) -> Result<Option<OwnedFd>> {
    let path = Path::new(if cwd.is_empty() { "/" } else { cwd });
    if path == Path::new("/") {
        return Ok(None);
    }
    let root = RootDir::open(Path::new("/")).stage("cwd")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match root.open_in(path, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.errno == Errno::NOENT => {
            let made = root.mkdir_all(path, Mode::from_raw_mode(0o755));
            made.map(Some).map_err(|error| refused(cwd, error.errno))
        }
        Err(error) => Err(refused(cwd, error.errno)),
    }
}

/// As the user: who may not search the directory may not start in it.
fn enter(process: &Process, directory: Option<OwnedFd>) -> Result<()> {
    let entered = match directory {
        Some(directory) => rustix::process::fchdir(directory),
        None => rustix::process::chdir(c"/"),
    };
    entered.map_err(|errno| refused(&process.cwd, errno))
}

fn refused(cwd: &str, errno: Errno) -> Error {
    let said = errno.to_string().to_lowercase();
    let message = format!("chdir to cwd ({cwd:?}) set in config.json failed: {said}");
    Error::Init(Failure { code: 126, stage: "cwd".to_owned(), message })
}
