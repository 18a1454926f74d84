//! `capsa oci`: the command line that OCI runtimes share, for other engines and for
//! conformance tests.
//!
//! Each call does one thing and ends; what lies between the calls is in [`record`]. There
//! is no monitor: whoever calls `create` or `run` becomes the container's parent, and
//! whoever reaps that one after it. Verbs that put a process of ours into a container
//! first run again from a copy of our executable that can't be written.

mod args;
mod clock;
mod console;
mod end;
mod exec;
mod features;
mod make;
mod record;
mod show;
mod template;
mod update;

use std::ffi::{CString, OsString};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::{Error, Result};
use args::{flag, value};

/// What is said before the verb.
struct Globals {
    /// Where the records are.
    root: PathBuf,
    log: Option<PathBuf>,
    log_json: bool,
    systemd_cgroup: bool,
}

type Verb = fn(&Globals, &[String]) -> Result<ExitCode>;

const VERBS: [(&str, Verb); 17] = [
    ("create", make::create),
    ("run", make::run),
    ("start", make::start),
    ("state", show::state),
    ("kill", end::kill),
    ("delete", end::delete),
    ("exec", exec::exec),
    ("ps", show::ps),
    ("pause", end::pause),
    ("resume", end::resume),
    ("list", show::list),
    ("update", update::update),
    ("events", show::events),
    ("features", features::features),
    ("spec", template::spec),
    ("version", version),
    ("help", help),
];

/// Runs `capsa oci`; `args` are those after `oci`. To be called before any thread exists.
pub fn run(args: &[OsString]) -> ExitCode {
    let text = |arg: &OsString| {
        let valid = arg.to_str().map(ToOwned::to_owned);
        valid.ok_or_else(|| Error::invalid(format!("argument {arg:?}"), "not UTF-8"))
    };
    let globals = args.iter().map(text).collect::<Result<Vec<_>>>().and_then(|a| globals(&a));
    let (globals, rest) = match globals {
        Ok(parsed) => parsed,
        Err(error) => return report(None, &error),
    };
    match dispatch(&globals, &rest, args) {
        Ok(code) => code,
        Err(error) => report(Some(&globals), &error),
    }
}

fn globals(args: &[String]) -> Result<(Globals, Vec<String>)> {
    let known = [
        value("root"),
        value("log"),
        value("log-format"),
        value("log-level"),
        value("rootless"),
        value("criu"),
        flag("systemd-cgroup"),
        flag("debug"),
        flag("version").or('v'),
        flag("help").or('h'),
    ];
    let parsed = args::parse(args, &known)?;
    let mut rest = parsed.words.clone();
    for (option, verb) in [("version", "version"), ("help", "help")] {
        if parsed.has(option) {
            rest = vec![verb.to_owned()];
        }
    }
    let globals = Globals {
        root: parsed.path("root")?.unwrap_or_else(|| "/run/capsa/oci".into()),
        log: parsed.path("log")?,
        log_json: parsed.get("log-format") == Some("json"),
        systemd_cgroup: parsed.has("systemd-cgroup"),
    };
    Ok((globals, rest))
}

fn dispatch(globals: &Globals, words: &[String], all: &[OsString]) -> Result<ExitCode> {
    let Some((name, rest)) = words.split_first() else { return help(globals, &[]) };
    let Some((_, verb)) = VERBS.iter().find(|(known, _)| known == name) else {
        return Err(Error::invalid(format!("command {name:?}"), "not known; see capsa oci help"));
    };
    if matches!(name.as_str(), "create" | "run" | "exec") {
        shield(all)?;
    }
    verb(globals, rest)
}

/// Runs again from an executable that no container can write through `/proc/<pid>/exe`,
/// unless this one is such already.
fn shield(args: &[OsString]) -> Result<()> {
    const MARK: &str = "CAPSA_OCI_SHIELDED";
    if std::env::var_os(MARK).is_some() || is_shielded() {
        return Ok(());
    }
    let exe = crate::monitor::self_exe()?;
    let c_string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Error::invalid("argument", "it holds a zero byte"))
    };
    let own = std::env::args_os().next().unwrap_or_else(|| "capsa".into());
    let own = [own, "oci".into()];
    let args = own.iter().chain(args).map(|arg| c_string(arg.as_bytes()));
    let pair = |(key, value): (OsString, OsString)| {
        c_string(&[key.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let mark = std::iter::once(c_string(format!("{MARK}=1").as_bytes()));
    let env = std::env::vars_os().map(pair).chain(mark);
    let path = c_string(format!("/proc/self/fd/{}", exe.as_raw_fd()).as_bytes())?;
    let (args, env) = (args.collect::<Result<Vec<_>>>()?, env.collect::<Result<Vec<_>>>()?);
    Err(capsa_sys::process::exec(&path, &args, &env).into())
}

fn is_shielded() -> bool {
    let Ok(exe) =
        rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    else {
        return false;
    };
    rustix::fs::fstatvfs(&exe).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
        || rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

/// Tells the error on stderr, and in the log if there is one: callers read it from there.
fn report(globals: Option<&Globals>, error: &Error) -> ExitCode {
    let message = error.to_string();
    let time = clock::now();
    let quoted = serde_json::Value::from(message.clone());
    let line = format!("time=\"{time}\" level=error msg={quoted}\n");
    // There is nobody else to tell.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some((globals, path)) = globals.and_then(|g| Some((g, g.log.as_ref()?))) {
        let json = serde_json::json!({ "level": "error", "msg": message, "time": time });
        let line = if globals.log_json { format!("{json}\n") } else { line };
        let file = OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
    match error {
        Error::Init(failure) => ExitCode::from(u8::try_from(failure.code).unwrap_or(1)),
        _ => ExitCode::from(1),
    }
}

/// Prints to stdout.
fn say(text: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map(|()| ExitCode::SUCCESS)
        .map_err(|e| capsa_sys::Error::from_io("write", "stdout", &e).into())
}

/// Prints a value as indented JSON.
fn say_json(value: &impl serde::Serialize) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Message(e.to_string()))?;
    say(&format!("{text}\n"))
}

fn version(_: &Globals, _: &[String]) -> Result<ExitCode> {
    say(&format!("capsa version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), record::OCI_VERSION))
}

fn help(_: &Globals, _: &[String]) -> Result<ExitCode> {
    let verbs: Vec<&str> = VERBS.iter().map(|(name, _)| *name).collect();
    say(&format!(
        "Usage: capsa oci [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup] \
         VERB [OPTION...] ID ...\nVerbs: {}\n",
        verbs.join(" ")
    ))
}
