//! Debian's registry (package docker-registry) as a process of a test, and a gate in
//! front of it that counts what passes and can be shut.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

/// User and password of a registry that wants them, and what it keeps (bcrypt).
pub const LOGIN: (&str, &str) = ("me", "secret");
const HTPASSWD: &str = "me:$2y$05$KhCBJL/0wdbv/eRSZKzOEehE.lTxhhPGjULv6JEMwlWgMtrcOQRBi\n";

/// A registry on a port of its own. It ends when this is dropped.
pub struct Registry {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Registry {
    /// For everybody.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        Self::with("")
    }

    /// For [`LOGIN`].
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn with_password() -> Self {
        Self::with("auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n")
    }

    fn with(auth: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("capsa-registry-").tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
             http:\n  addr: 127.0.0.1:0\n{}",
            auth.replace("DIR", root)
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is not installed: `cargo xtask test` does that");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let rest = line.split("listening on 127.0.0.1:").nth(1)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port: port.expect("the registry says its port"), _dir: dir }
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes connections on to a registry.
pub struct Gate {
    port: u16,
    passed: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Gate {
    /// A gate in front of `registry`.
    ///
    /// # Panics
    /// When there is no port.
    pub fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self {
            port: listener.local_addr().unwrap().port(),
            passed: Arc::default(),
            most: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let (target, passed, most) =
            (registry.host(), Arc::clone(&gate.passed), Arc::clone(&gate.most));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (passed, most) = (Arc::clone(&passed), Arc::clone(&most));
                std::thread::spawn(move || {
                    pass(server, client, &|n| {
                        let sum = passed.fetch_add(n as u64, Ordering::SeqCst) + n as u64;
                        sum <= most.load(Ordering::SeqCst)
                    })
                });
                std::thread::spawn(move || pass(from, to, &|_| true));
            }
        });
        gate
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Bytes that came from the registry since the last call.
    pub fn passed(&self) -> u64 {
        self.passed.swap(0, Ordering::SeqCst)
    }

    /// Breaks every connection once so many bytes have come; counting starts anew.
    pub fn break_after(&self, bytes: u64) {
        self.passed.store(0, Ordering::SeqCst);
        self.most.store(bytes, Ordering::SeqCst);
    }
}

/// Copies until either end closes or `may` says no; then both are closed.
fn pass(mut from: TcpStream, mut to: TcpStream, may: &dyn Fn(usize) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !may(n) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
