//! The demo's directory and its engines: set up, struck, or left standing.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

use super::host::{Before, Witness};
use super::report::Report;
use super::server::Server;

/// An environment variable of the demo's daemons, and of all they start.
pub(super) const MARK: &str = "CAPSA_DEMO";

/// The kernel takes network namespaces apart after their last process is gone.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Everything that has to be taken away again.
pub(super) struct Stage {
    /// What was done so far.
    pub(super) report: Report,
    directory: PathBuf,
    servers: Vec<Server>,
    before: Before,
}

impl Stage {
    /// Makes the directory and looks at the host as it is now.
    pub(super) fn set_up() -> anyhow::Result<Self> {
        let before = Before::look()?;
        let name = format!("capsa-demo-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { report: Report::default(), directory, servers: Vec::new(), before })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts one more engine; its number.
    pub(super) async fn start_server(&mut self, name: &'static str) -> anyhow::Result<usize> {
        // Noted before it is waited for, so that an interruption ends it.
        self.servers.push(Server::spawn(name, &self.directory)?);
        let number = self.servers.len() - 1;
        self.servers[number].wait_until_ready().await?;
        Ok(number)
    }

    /// The engine with this number.
    pub(super) fn server(&self, number: usize) -> &Server {
        &self.servers[number]
    }

    /// Takes everything away, then looks whether the host is as it was.
    ///
    /// Goes on after a failure, so that as little as possible stays.
    ///
    /// # Errors
    /// The first failure, or what is left.
    pub(super) async fn strike(mut self) -> anyhow::Result<Report> {
        let started = Report::start();
        let mut witness = Witness::new(&self.directory);
        let mut failures = Vec::new();
        for server in &mut self.servers {
            witness.note_process(server.pid());
            if let Err(error) = server.wait_until_ready().await {
                failures.push(error);
                continue;
            }
            match server.footprint().await {
                Ok((pids, bridge)) => witness.note(&pids, bridge.as_deref(), &self.before),
                Err(error) => {
                    failures.push(error.context(format!("cannot ask the {}", server.name)))
                }
            }
        }
        witness.note_tables(&self.before)?;
        for server in &mut self.servers {
            failures.extend(server.remove_containers().await.err());
        }
        self.report.done(&started, "all containers removed", None);
        let started = Report::start();
        for server in &mut self.servers {
            failures.extend(server.stop().err());
        }
        failures.extend(std::fs::remove_dir_all(&self.directory).err().map(Into::into));
        let left = wait_until_clean(&witness).await?;
        if !left.is_empty() {
            bail!("left on the host:\n  {}", left.join("\n  "));
        }
        self.report.done(&started, "engines ended, host as before", None);
        println!("\nlooked for {witness}: nothing is left");
        match failures.into_iter().next() {
            Some(failure) => Err(failure.context("the demo did not end cleanly")),
            None => Ok(self.report),
        }
    }

    /// Leaves all as it is and says what can be done with it.
    pub(super) async fn leave_running(self) -> anyhow::Result<()> {
        self.report.print();
        println!("\nleft running in {}", self.directory.display());
        for server in &self.servers {
            println!("\n{}, daemon {}:", server.name, server.pid());
            println!("  docker -H {} ps", server.host());
            let site = server.site("red").await?;
            println!("  curl http://{}/facts", site.address);
        }
        println!("\nto remove all of it:");
        for server in &self.servers {
            let docker = format!("docker -H {}", server.host());
            println!("  {docker} rm -f $({docker} ps -aq)");
        }
        let pids: Vec<String> =
            self.servers.iter().map(|server| server.pid().to_string()).collect();
        println!("  kill {}", pids.join(" "));
        println!("  rm -rf {}", self.directory.display());
        Ok(())
    }

    /// Shows why a daemon may have failed, before its log is removed.
    pub(super) fn show_daemon_logs(&self) {
        for server in &self.servers {
            let log = server.log();
            if !log.is_empty() {
                eprintln!("--- log of the {}\n{log}---", server.name);
            }
        }
    }
}

/// What is still there when nothing changes any more, or when patience ends.
async fn wait_until_clean(witness: &Witness) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = witness.left()?;
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(LOOK_AGAIN).await;
    }
}
