//! One engine of the demo: a daemon on directories of its own, and a client.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use capsa_api::encoding::with_query;
use capsa_api::types::{
    Config, ContainerInspect, ContainerSummary, CreateRequest, CreateResponse, ExecCreate,
    ExecInspect, ExecStart, HostConfig, IdResponse, JsonMessage, Network, PortBinding,
};
use capsa_api::{Client, Endpoint, Payload};
use hyper::Method;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal};
use tokio::io::AsyncReadExt as _;

/// How long a daemon may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon and what the demo does with it.
pub(super) struct Server {
    /// As the demo calls it.
    pub(super) name: &'static str,
    socket: PathBuf,
    directory: PathBuf,
    daemon: Child,
    client: Client,
}

/// A container that serves a page.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Its container's name.
    pub(super) name: String,
    /// Where the host answers for it.
    pub(super) address: SocketAddr,
    /// The server's pid on the host.
    pub(super) pid: u32,
}

impl Server {
    /// Starts a daemon below `directory`. It can't be used until it is ready.
    pub(super) fn spawn(name: &'static str, directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.join(name.replace(' ', "-"));
        std::fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let socket = directory.join("capsa.sock");
        let daemon = spawn(&directory, &socket)?;
        let client = Client::new(Endpoint::Unix(socket.clone()));
        Ok(Self { name, socket, directory, daemon, client })
    }

    /// Waits until the daemon listens; at once if it was waited for before.
    ///
    /// It writes a line then, and closes its end of the pipe if it dies.
    pub(super) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let Some(output) = self.daemon.stdout.as_ref() else { return Ok(()) };
        let output = output.as_fd().try_clone_to_owned()?;
        let mut output = tokio::net::unix::pipe::Receiver::from_owned_fd(output)?;
        let mut line = [0; 64];
        let length =
            tokio::time::timeout(PATIENCE, output.read(&mut line)).await.with_context(|| {
                format!("{}: the daemon was not ready in {PATIENCE:?}", self.name)
            })??;
        ensure!(length > 0, "{}: the daemon ended before it listened", self.name);
        self.daemon.stdout = None;
        Ok(())
    }

    /// Loads the images of a docker-archive or OCI tar.
    pub(super) async fn load(
        &self,
        tar: impl std::io::Read + Send + 'static,
    ) -> anyhow::Result<()> {
        let answer =
            self.client.stream(Method::POST, "/images/load?quiet=1", Payload::tar(tar)).await?;
        let mut messages = answer.body.json_lines::<JsonMessage>();
        while let Some(message) = messages.next().await? {
            ensure!(message.error.is_empty(), "{}: load: {}", self.name, message.error);
        }
        Ok(())
    }

    /// Creates and starts a container of `image` whose port 80 is published on
    /// a free port of the host.
    pub(super) async fn run(&self, name: &str, image: &str) -> anyhow::Result<Site> {
        let binding = PortBinding { host_ip: String::new(), host_port: "0".to_owned() };
        let request = CreateRequest {
            config: Config { image: image.to_owned(), ..Config::default() },
            host_config: HostConfig {
                port_bindings: [("80/tcp".to_owned(), Some(vec![binding]))].into(),
                memory: SITE_MEMORY_BYTES,
                nano_cpus: SITE_NANO_CPUS,
                ..HostConfig::default()
            },
            ..CreateRequest::default()
        };
        let path = with_query("/containers/create", &[("name", name)]);
        let created: CreateResponse = self.client.post(&path, &request).await?;
        self.client.post_empty(&format!("/containers/{}/start", created.id)).await?;
        self.site(&created.id).await
    }

    /// What the engine knows of a running site.
    pub(super) async fn site(&self, container: &str) -> anyhow::Result<Site> {
        let seen: ContainerInspect =
            self.client.get(&format!("/containers/{container}/json")).await?;
        let bindings =
            seen.network_settings.ports.get("80/tcp").cloned().flatten().unwrap_or_default();
        let port = bindings.iter().find_map(|binding| binding.host_port.parse().ok());
        let name = seen.name.trim_start_matches('/').to_owned();
        let port: u16 = port.with_context(|| format!("port 80 of {name} is not published"))?;
        Ok(Site { name, address: (Ipv4Addr::LOCALHOST, port).into(), pid: seen.state.pid })
    }

    /// Runs a program in a container and waits for its end.
    pub(super) async fn exec(&self, container: &str, command: &[&str]) -> anyhow::Result<()> {
        let request = ExecCreate {
            attach_stdout: true,
            attach_stderr: true,
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..ExecCreate::default()
        };
        let path = format!("/containers/{container}/exec");
        let exec: IdResponse = self.client.post(&path, &request).await?;
        let start = format!("/exec/{}/start", exec.id);
        let mut stream = self.client.hijack(&start, &ExecStart::default()).await?;
        let mut output = Vec::new();
        stream.read_to_end(&mut output).await?;
        let ended: ExecInspect = self.client.get(&format!("/exec/{}/json", exec.id)).await?;
        match ended.exit_code {
            Some(0) => Ok(()),
            code => bail!(
                "{command:?} in {container} ended with {code:?}: {}",
                String::from_utf8_lossy(&output)
            ),
        }
    }

    /// Makes an image of a container.
    pub(super) async fn commit(
        &self,
        container: &str,
        repo: &str,
        tag: &str,
    ) -> anyhow::Result<()> {
        let path = with_query("/commit", &[("container", container), ("repo", repo), ("tag", tag)]);
        let _: IdResponse = self.client.post(&path, &()).await?;
        Ok(())
    }

    /// Saves an image to a tar file; its size in bytes.
    pub(super) async fn save(&self, image: &str, file: &Path) -> anyhow::Result<u64> {
        let path = format!("/images/{image}/get");
        let mut answer = self.client.stream(Method::GET, &path, Payload::Empty).await?;
        let mut out =
            File::create_new(file).with_context(|| format!("cannot make {}", file.display()))?;
        let mut size = 0;
        while let Some(chunk) = answer.body.chunk().await? {
            std::io::Write::write_all(&mut out, &chunk)
                .with_context(|| format!("cannot write {}", file.display()))?;
            size += chunk.len() as u64;
        }
        Ok(size)
    }

    /// The pids of all running containers, and the bridge they hang on.
    pub(super) async fn footprint(&self) -> anyhow::Result<(Vec<u32>, Option<String>)> {
        let mut pids = Vec::new();
        for container in self.containers().await? {
            let path = format!("/containers/{}/json", container.id);
            let seen: ContainerInspect = self.client.get(&path).await?;
            pids.extend((seen.state.pid > 0).then_some(seen.state.pid));
        }
        let network: Network = self.client.get("/networks/bridge").await?;
        Ok((pids, network.options.get("com.docker.network.bridge.name").cloned()))
    }

    /// Removes every container, running or not.
    ///
    /// Looks again afterwards: an interrupted demo may have asked for one that
    /// appears only now.
    pub(super) async fn remove_containers(&self) -> anyhow::Result<()> {
        let mut failure = None;
        for _ in 0..REMOVALS_MAX {
            let containers = self.containers().await?;
            if containers.is_empty() {
                return Ok(());
            }
            for container in containers {
                let path = format!("/containers/{}?force=1&v=1", container.id);
                failure = self.client.delete(&path).await.err().or(failure);
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn containers(&self) -> anyhow::Result<Vec<ContainerSummary>> {
        Ok(self.client.get("/containers/json?all=1").await?)
    }

    /// Asks the daemon to end, waits for it, and kills it when it doesn't.
    /// Does nothing the second time.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        if self.daemon.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        rustix::process::pidfd_send_signal(&pidfd, Signal::TERM)?;
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        // Ctrl-C may come while waiting.
        let wait = || poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
        let ended = rustix::io::retry_on_intr(wait)? > 0;
        if !ended {
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
        }
        let status = self.daemon.wait()?;
        ensure!(ended, "{}: the daemon did not end within {PATIENCE:?}", self.name);
        ensure!(status.success(), "{}: the daemon ended with {status}", self.name);
        Ok(())
    }

    /// The daemon's pid.
    pub(super) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Where the daemon listens, as docker's `-H` takes it.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// What the daemon wrote to its log.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default()
    }
}

const REMOVALS_MAX: usize = 3;

/// Enough for the site many times over, and seen from inside.
const SITE_MEMORY_BYTES: i64 = 64 << 20;
const SITE_NANO_CPUS: i64 = 500_000_000;

fn spawn(directory: &Path, socket: &Path) -> anyhow::Result<Child> {
    let log = directory.join("daemon.log");
    let log = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    Command::new("/proc/self/exe")
        .arg0("capsa")
        .args(["daemon", "--background"])
        .arg("--data-root")
        .arg(directory.join("data"))
        .arg("--exec-root")
        .arg(directory.join("run"))
        .arg("-H")
        .arg(format!("unix://{}", socket.display()))
        // Found again in /proc/PID/environ if something of it stays.
        .env(super::stage::MARK, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C at the terminal is for the demo: it ends its daemons itself.
        .process_group(0)
        .spawn()
        .context("cannot start a daemon")
}
