//! `exec`: one more process in a container.

use std::os::fd::AsFd;
use std::process::ExitCode;

use capsa_oci::runtime::{Process, RuntimeSpec};
use capsa_sys::caps::CapSet;

use super::args::{Opt, Parsed, flag, value};
use super::make::{write_pid, wrong};
use super::record::{Record, Status};
use super::{Globals, args, console};
use crate::bundle::{self, Join};
use crate::{Error, Result};

const EXEC: [Opt; 19] = [
    value("process").or('p'),
    value("console-socket"),
    value("pid-file"),
    value("cwd"),
    value("env").or('e'),
    value("user").or('u'),
    value("additional-gids").or('g'),
    value("cap").or('c'),
    value("apparmor"),
    value("process-label"),
    value("preserve-fds"),
    value("cgroup"),
    value("pidfd-socket"),
    flag("tty").or('t'),
    flag("detach").or('d'),
    flag("no-new-privs"),
    flag("ignore-paused"),
    flag("no-subreaper"),
    flag("interactive").or('i'),
];

/// `exec ID COMMAND...`, or `exec --process FILE ID`.
pub(super) fn exec(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &EXEC)?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    match record.status() {
        Status::Running | Status::Created => {}
        Status::Paused if parsed.has("ignore-paused") => {}
        Status::Paused => return Err(wrong(&record, "cannot exec in a paused container")),
        _ => return Err(wrong(&record, "cannot exec in a stopped container")),
    }
    for option in ["preserve-fds", "cgroup"] {
        if parsed.get(option).is_some_and(|text| text != "0") {
            return Err(Error::invalid(format!("--{option}"), "not supported"));
        }
    }
    let spec = record.spec()?;
    let process = process(&parsed, &spec)?;
    let detach = parsed.has("detach");
    let socket = parsed.path("console-socket")?;
    if process.terminal && detach && socket.is_none() {
        let why = "cannot allocate tty if capsa will detach without setting console socket";
        return Err(Error::invalid("--tty", why));
    }
    let cgroup = record.open_cgroup().ok_or_else(|| wrong(&record, "its cgroup is gone"))?;
    let join = Join { spec: &spec, pid: record.pid, cgroup: &cgroup, process: &process };
    let joined = bundle::join(&join)?;
    let mut terminal = joined.terminal;
    if let (Some(socket), Some(master)) = (&socket, &terminal) {
        console::hand_over(socket, master.as_fd())?;
        terminal = None;
    }
    if let Some(path) = parsed.path("pid-file")? {
        write_pid(&path, joined.pid)?;
    }
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    let ended = console::Signals::hold()?.pass_on(joined.pidfd.as_fd(), terminal)?;
    Ok(ExitCode::from(u8::try_from(ended.code()).unwrap_or(1)))
}

/// The process from a file, or the container's own with what the options change.
fn process(parsed: &Parsed, spec: &RuntimeSpec) -> Result<Process> {
    if let Some(path) = parsed.path("process")? {
        let text = std::fs::read(&path)
            .map_err(|e| capsa_sys::Error::from_io("read", path.display(), &e))?;
        return serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(path.display().to_string(), e.to_string()));
    }
    let base = spec.process.clone();
    let mut process = base.ok_or_else(|| Error::invalid("process", "it is missing"))?;
    process.args = parsed.words[1..].to_vec();
    if process.args.is_empty() {
        return Err(Error::invalid("process.args", "args must not be empty"));
    }
    process.terminal = parsed.has("tty");
    process.console_size = None;
    if let Some(cwd) = parsed.get("cwd") {
        process.cwd = cwd.to_owned();
    }
    if parsed.get("no-new-privs").is_some() {
        process.no_new_privileges = parsed.has("no-new-privs");
    }
    if let Some(profile) = parsed.get("apparmor") {
        process.apparmor_profile = Some(profile.to_owned());
    }
    if let Some(label) = parsed.get("process-label") {
        process.selinux_label = Some(label.to_owned());
    }
    process.env.extend(parsed.all("env").map(ToOwned::to_owned));
    identity(parsed, &mut process)?;
    Ok(process)
}

fn identity(parsed: &Parsed, process: &mut Process) -> Result<()> {
    if let Some(user) = parsed.get("user") {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
        process.user.uid = id(uid)?;
        if let Some(gid) = gid {
            process.user.gid = id(gid)?;
        }
    }
    for group in parsed.all("additional-gids") {
        process.user.additional_gids.push(id(group)?);
    }
    let mut added = Vec::new();
    for name in parsed.all("cap") {
        let known = CapSet::parse(name);
        added.extend(known.ok_or_else(|| Error::invalid("capability", name))?.names());
    }
    if !added.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(
                added.iter().filter(|name| !set.contains(name)).cloned().collect::<Vec<_>>(),
            );
        }
    }
    Ok(())
}

/// Ids above what Linux programs can hold in an int are refused, as by other engines.
fn id(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse::<i32>().ok().filter(|_| digits).and_then(|id| u32::try_from(id).ok());
    parsed
        .ok_or_else(|| Error::invalid(format!("id {text:?}"), "not a number from 0 to 2147483647"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str) -> Result<Process> {
        let base = Process {
            cwd: "/".into(),
            env: vec!["A=1".into()],
            terminal: true,
            ..Process::default()
        };
        let spec = RuntimeSpec { process: Some(base), ..RuntimeSpec::default() };
        let args: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        process(&args::parse(&args, &EXEC)?, &spec)
    }

    #[test]
    fn options_change_the_containers_process() {
        let process = with("-e B=2 -u 1000:100 -g 5 --cap net_admin --cwd /x id ls -l").unwrap();
        assert_eq!(process.args, ["ls", "-l"]);
        assert_eq!(process.env, ["A=1", "B=2"]);
        assert_eq!((process.user.uid, process.user.gid), (1000, 100));
        assert_eq!(process.user.additional_gids, [5]);
        assert_eq!(process.cwd, "/x");
        assert!(!process.terminal);
        assert_eq!(process.capabilities.unwrap().effective, ["CAP_NET_ADMIN"]);
    }

    #[test]
    fn a_user_that_would_wrap_around_to_root_is_refused() {
        for user in ["4294967296", "-1", "+0", "", "0x0", "2147483648", "1:", "root"] {
            assert!(with(&format!("-u {user} id ls")).is_err(), "{user}");
        }
        assert!(with("--cap NONSENSE id ls").is_err());
        assert!(with("id").is_err());
    }
}
