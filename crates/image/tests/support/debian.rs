//! Debian's registry (package docker-registry) as a process of a test: its own port,
//! its own directory, ended by pid.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `me` with the password `secret`, bcrypt.
pub const HTPASSWD: &str = "me:$2y$05$KhCBJL/0wdbv/eRSZKzOEehE.lTxhhPGjULv6JEMwlWgMtrcOQRBi\n";

/// A running registry.
pub struct Debian {
    child: Child,
    port: u16,
    pub dir: tempfile::TempDir,
}

impl Debian {
    /// Starts it; `http` and `auth` are lines of its configuration.
    pub fn start(dir: tempfile::TempDir, http: &str, auth: &str) -> Self {
        let root = dir.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    \
             rootdirectory: {root}/data\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:0\n{http}{auth}"
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is not installed: `cargo xtask test` does that");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let rest = line.split("listening on 127.0.0.1:").nth(1)?;
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            })
            .expect("the registry said no port");
        // It would be ended by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, dir }
    }

    pub fn plain() -> Self {
        Self::start(tempfile::tempdir().unwrap(), "", "")
    }

    /// Wants a password.
    pub fn with_password() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("htpasswd");
        fs::write(&file, HTPASSWD).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        Self::start(dir, "", &auth)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
