//! `create`, `start` and `run`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capsa_oci::runtime::{Hook, Hooks, RuntimeSpec};
use capsa_sys::atomic::{self, Durability};

use super::args::{Opt, Parsed, flag, value};
use super::console::Signals;
use super::record::{Record, Status};
use super::{Globals, args, console, end};
use crate::bundle::{self, Create, Created};
use crate::protocol::RootfsPlan;
use crate::{Error, Result, hooks};

const CREATE: [Opt; 8] = [
    value("bundle").or('b'),
    value("console-socket"),
    value("pid-file"),
    value("preserve-fds"),
    // Nothing here depends on them: they are taken so that callers can give them.
    flag("no-pivot"),
    flag("no-new-keyring"),
    flag("no-subreaper"),
    value("pidfd-socket"),
];

/// `create`: everything but the start.
pub(super) fn create(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &CREATE)?;
    let wish = Wish::new(globals, &parsed, true)?;
    wish.make()?;
    Ok(ExitCode::SUCCESS)
}

/// `start`: lets the program of a created container run.
pub(super) fn start(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[])?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    match record.status() {
        Status::Created => {}
        Status::Stopped => return Err(wrong(&record, "cannot start a container that has stopped")),
        _ => return Err(wrong(&record, "cannot start an already running container")),
    }
    let spec = record.spec()?;
    started(&record, &spec)?;
    Ok(ExitCode::SUCCESS)
}

/// `run`: create, start and, unless detached, wait and delete.
pub(super) fn run(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let known = [&CREATE[..], &[flag("detach").or('d'), flag("keep")]].concat();
    let parsed = args::parse(args, &known)?;
    let detach = parsed.has("detach");
    let wish = Wish::new(globals, &parsed, detach)?;
    let (record, created) = wish.make()?;
    let signals = if detach { None } else { Some(Signals::hold()?) };
    if let Err(error) = started(&record, &wish.spec) {
        // The start's error counts.
        let _ = end::destroy(&record);
        return Err(error);
    }
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let terminal = if wish.console_socket.is_some() { None } else { created.terminal };
    let ended = signals.pass_on(created.pidfd.as_fd(), terminal)?;
    if !parsed.has("keep") {
        end::destroy(&record)?;
    }
    Ok(ExitCode::from(u8::try_from(ended.code()).unwrap_or(1)))
}

/// What `create` and `run` are asked for, checked.
struct Wish<'a> {
    globals: &'a Globals,
    id: String,
    bundle: PathBuf,
    spec: RuntimeSpec,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

impl<'a> Wish<'a> {
    /// `detached`: nobody waits here, so a terminal has to be given to somebody.
    fn new(globals: &'a Globals, parsed: &Parsed, detached: bool) -> Result<Self> {
        let id = parsed.id()?.to_owned();
        let here = || std::path::absolute(".").map_err(|e| Error::invalid("bundle", e.to_string()));
        let bundle = parsed.path("bundle")?.map_or_else(here, Ok)?;
        let wish = Self {
            globals,
            id,
            spec: load_spec(&bundle)?,
            bundle,
            console_socket: parsed.path("console-socket")?,
            pid_file: parsed.path("pid-file")?,
        };
        if parsed.number::<u32>("preserve-fds")?.unwrap_or(0) > 0 {
            return Err(Error::invalid("--preserve-fds", "descriptors are never passed on"));
        }
        let terminal = wish.spec.process.as_ref().is_some_and(|process| process.terminal);
        match (terminal, wish.console_socket.is_some()) {
            (true, false) if detached => Err(Error::invalid(
                "process.terminal",
                "cannot allocate tty if capsa will detach without setting console socket",
            )),
            (false, true) => Err(Error::invalid(
                "--console-socket",
                "cannot use console socket if capsa will not detach or allocate tty",
            )),
            _ => Ok(wish),
        }
    }

    /// Makes the container up to its start. After an error nothing of it is left.
    fn make(&self) -> Result<(Record, Created)> {
        // Relative sources of mounts, and hooks, are relative to the bundle.
        std::env::set_current_dir(&self.bundle)
            .map_err(|e| capsa_sys::Error::from_io("chdir", self.bundle.display(), &e))?;
        let mut record = Record::reserve(&self.globals.root, &self.id, &self.bundle, &self.spec)?;
        match self.fill(&mut record) {
            Ok(created) => Ok((record, created)),
            Err(error) => {
                // The first error counts.
                let _ = record.forget();
                Err(error)
            }
        }
    }

    fn fill(&self, record: &mut Record) -> Result<Created> {
        let linux = self.spec.linux.as_ref();
        let asked = linux.and_then(|linux| linux.cgroups_path.as_deref());
        record.cgroup = cgroup_path(asked, &self.id, self.globals.systemd_cgroup)?;
        record.rootfs = root_path(&self.spec, &self.bundle)?;
        let fifo = record.start_fifo();
        bundle::make_start_fifo(&fifo)?;
        let rootfs = RootfsPlan::Directory(record.rootfs.clone());
        let state = record.state(Status::Creating, &self.spec);
        let dir = record.dir.clone();
        let cgroup = record.cgroup.clone();
        let create = Create {
            spec: &self.spec,
            rootfs: &rootfs,
            dir: &dir,
            cgroup_path: &cgroup,
            start_fifo: &fifo,
            state: &state,
        };
        let created = bundle::create(&create, &mut |pid| {
            record.set_pid(pid);
            record.save()?;
            let state = record.state(Status::Creating, &self.spec);
            hooks::run(self.hooks(|hooks| &hooks.prestart), &state)?;
            hooks::run(self.hooks(|hooks| &hooks.create_runtime), &state)
        })?;
        if let Err(error) = self.finish(record, &created) {
            // The first error counts.
            let _ = end::destroy(record);
            return Err(error);
        }
        Ok(created)
    }

    fn finish(&self, record: &mut Record, created: &Created) -> Result<()> {
        record.ready = true;
        record.save()?;
        if let (Some(socket), Some(master)) = (&self.console_socket, &created.terminal) {
            console::hand_over(socket, master.as_fd())?;
        }
        match &self.pid_file {
            Some(path) => write_pid(path, created.pid),
            None => Ok(()),
        }
    }

    fn hooks(&self, which: fn(&Hooks) -> &Vec<Hook>) -> &[Hook] {
        self.spec.hooks.as_ref().map_or(&[], |hooks| which(hooks))
    }
}

/// Writes a pid file, whole.
pub(super) fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let invalid = || Error::invalid(path.display().to_string(), "not a file's path");
    let (dir, name) = (path.parent().ok_or_else(invalid)?, path.file_name().ok_or_else(invalid)?);
    let name = name.to_str().ok_or_else(invalid)?;
    Ok(atomic::write_mode(dir, name, pid.to_string().as_bytes(), 0o644, Durability::Process)?)
}

/// An error about a container that is in the wrong state for what was asked.
pub(super) fn wrong(record: &Record, why: &str) -> Error {
    Error::invalid(format!("container {}", record.id), why)
}

fn started(record: &Record, spec: &RuntimeSpec) -> Result<()> {
    bundle::start(&record.start_fifo())?;
    let poststart = spec.hooks.as_ref().map_or(&[][..], |hooks| &hooks.poststart);
    hooks::run(poststart, &record.state(Status::Running, spec))
}

fn load_spec(bundle: &Path) -> Result<RuntimeSpec> {
    let path = bundle.join("config.json");
    let text =
        std::fs::read(&path).map_err(|e| capsa_sys::Error::from_io("read", path.display(), &e))?;
    let spec: RuntimeSpec = serde_json::from_slice(&text)
        .map_err(|e| Error::invalid(path.display().to_string(), e.to_string()))?;
    let process = spec.process.as_ref();
    let process = process.ok_or_else(|| Error::invalid("process", "it is missing"))?;
    if process.args.is_empty() {
        return Err(Error::invalid("process.args", "args must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid("process.cwd", "it must be an absolute path"));
    }
    Ok(spec)
}

fn root_path(spec: &RuntimeSpec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root.as_ref().ok_or_else(|| Error::invalid("root", "it is missing"))?;
    let path = bundle.join(&root.path);
    let found = path.canonicalize();
    Ok(found.map_err(|e| capsa_sys::Error::from_io("stat", path.display(), &e))?)
}

/// The cgroup's path below every mount. With systemd's naming, `slice:prefix:name`, it is
/// the place where systemd would put such a scope; systemd itself is not asked.
fn cgroup_path(asked: Option<&str>, id: &str, systemd: bool) -> Result<String> {
    let asked = asked.filter(|path| !path.is_empty());
    let parts: Option<Vec<&str>> = asked.map(|path| path.split(':').collect());
    match (asked, parts.as_deref()) {
        (Some(_), Some([slice, prefix, name])) if systemd => {
            let slice = if slice.is_empty() { "system.slice" } else { slice };
            let scope =
                if prefix.is_empty() { (*name).to_owned() } else { format!("{prefix}-{name}") };
            let suffix = if name.ends_with(".slice") { "" } else { ".scope" };
            Ok(format!("{}/{scope}{suffix}", slice_path(slice)?))
        }
        (Some(path), _) if systemd => Err(Error::invalid(
            format!("cgroupsPath {path:?}"),
            "systemd's form is slice:prefix:name",
        )),
        (Some(path), _) => Ok(path.to_owned()),
        (None, _) => Ok(format!("/capsa-oci/{id}")),
    }
}

/// `a-b.slice` lies in `a.slice`.
fn slice_path(slice: &str) -> Result<String> {
    let invalid = || Error::invalid(format!("slice {slice:?}"), "not the name of a slice");
    let name = slice.strip_suffix(".slice").filter(|name| !name.contains('/'));
    let name = name.ok_or_else(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut so_far = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push_str(&format!("/{so_far}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_paths_plain_and_in_systemds_naming() {
        assert_eq!(cgroup_path(None, "x", true).unwrap(), "/capsa-oci/x");
        assert_eq!(cgroup_path(Some("/a/b"), "x", false).unwrap(), "/a/b");
        let systemd = |path| cgroup_path(Some(path), "x", true);
        assert_eq!(
            systemd("kube-pod1.slice:cri:abc").unwrap(),
            "/kube.slice/kube-pod1.slice/cri-abc.scope"
        );
        assert_eq!(systemd("-.slice:p:n").unwrap(), "/p-n.scope");
        assert_eq!(systemd(":p:n").unwrap(), "/system.slice/p-n.scope");
        for bad in ["/a/b", "a--b.slice:p:n", "nothing:p:n", "../x.slice:p:n"] {
            assert!(systemd(bad).is_err(), "{bad}");
        }
    }
}
