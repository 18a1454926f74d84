//! The role `daemon`: dockerd's flags, its file, its signals.
//!
//! Containers live on when the daemon ends, so a restart of it costs nobody
//! anything. A socket appears only when requests on it can be answered.

mod config;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capsa_api::Endpoint;
use capsa_server::{Engine, Listener, serve};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, info};

use crate::failure::{Failure, Result};
use crate::flags::{Stop, command_help, parse};
use crate::output::note;
use crate::session::autostart::READY;
use crate::session::parse_host;
use config::Settings;

/// Most threads that serve requests.
const MOST_WORKERS: usize = 4;

/// Runs the daemon until a signal ends it.
pub(crate) fn run(words: Vec<String>) -> ExitCode {
    let matches = match parse(&config::DAEMON, "daemon", &words) {
        Ok(matches) => matches,
        Err(Stop::Help) => {
            crate::output::out(command_help(&config::DAEMON, "daemon").as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Stop::Wrong(failure)) => return fail(&failure),
    };
    let settings = match Settings::read(&matches) {
        Ok(settings) => settings,
        Err(failure) => return fail(&failure),
    };
    if matches.flag("validate") {
        note("configuration OK");
        return ExitCode::SUCCESS;
    }
    if settings.background {
        // Not of the terminal that happened to start us. Fails only for a leader already.
        let _ = rustix::process::setsid();
    }
    log_to_stderr(settings.log_level);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::said(format!("starting threads: {error}"))),
    };
    match runtime.block_on(live(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    note(&format!("capsa daemon: {}", failure.text.trim_start_matches("capsa: ")));
    ExitCode::from(failure.code)
}

fn log_to_stderr(level: Level) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(rustix::termios::isatty(rustix::stdio::stderr()))
        .with_target(false)
        .init();
}

async fn live(settings: Settings) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Failure::said(error.to_string());
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::said("the daemon needs root\nhint: start it with sudo"));
    }
    let shutdown = shutdown_signal()?;
    let pid_file = settings.pid_file.as_deref().map(PidFile::write).transpose()?;
    let engine = Engine::open(settings.engine.clone()).await.map_err(|error| failed(&error))?;
    let mut listeners = Vec::new();
    let mut sockets = Vec::new();
    for host in &settings.hosts {
        match parse_host(host)? {
            Endpoint::Unix(path) => {
                make_parent(&path)?;
                listeners.push(Listener::unix(&path).map_err(|error| failed(&error))?);
                sockets.push(path);
            }
            Endpoint::Tcp(address) => {
                listeners.push(Listener::tcp(address).await.map_err(|error| failed(&error))?);
            }
        }
    }
    info!(data_root = %settings.engine.data_root.display(), hosts = ?settings.hosts, "ready");
    if settings.background {
        say_ready()?;
    }
    serve(engine.clone(), listeners, shutdown).await;
    engine.shutdown().await;
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    drop(pid_file);
    info!("ended; containers go on");
    Ok(())
}

/// Resolves at SIGTERM or SIGINT. A hangup changes nothing: there is nothing to read anew.
fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => return,
                _ = int.recv() => return,
                _ = hangup.recv() => {}
            }
        }
    })
}

fn make_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent)
        .map_err(|error| Failure::io("mkdir", &parent.to_string_lossy(), &error))
}

/// Tells whoever started us, and gives the pipe back.
fn say_ready() -> Result<()> {
    rustix::io::write(rustix::stdio::stdout(), READY).map_err(std::io::Error::from)?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).map_err(std::io::Error::from)?;
    Ok(())
}

/// The file that holds our pid; gone when we are.
struct PidFile {
    path: PathBuf,
}

impl PidFile {
    fn write(path: &Path) -> Result<Self> {
        if let Ok(text) = fs::read_to_string(path)
            && let Ok(pid) = text.trim().parse::<u32>()
            && pid != std::process::id()
            && Path::new("/proc").join(pid.to_string()).exists()
        {
            return Err(Failure::said(format!(
                "failed to start daemon, ensure capsa is not running or delete {}: process with PID {pid} is still running",
                path.display()
            )));
        }
        make_parent(path)?;
        fs::write(path, std::process::id().to_string())
            .map_err(|error| Failure::io("write", &path.to_string_lossy(), &error))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
