//! Sockets to listen on. A Unix socket belongs to root and the group `docker`; TCP
//! has no authentication, so it is refused on anything but loopback.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

const GROUP: &str = "docker";
const SOCKET_MODE: u32 = 0o660;

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// Unix socket.
    Unix(UnixListener),
    /// TCP on loopback.
    Tcp(TcpListener),
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers there.
    #[error("listen on {}: another daemon answers there", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The kernel said no.
    #[error("listen on {address}: {source}")]
    Io {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Whoever reaches this socket is root on the host.
    #[error(
        "listen on tcp://{0}: refused, because without TLS everybody who reaches this address \
         would be root on this host\nhint: use a loopback address, or a Unix socket over SSH"
    )]
    NotLoopback(SocketAddr),
}

impl Listener {
    /// Binds a Unix socket with mode 0660, of the group `docker` if the host has one.
    /// A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// When another daemon answers there, or as bind(2).
    pub fn unix(path: &Path) -> Result<Self, ListenError> {
        let failed =
            |source| ListenError::Io { address: format!("unix://{}", path.display()), source };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse { path: path.to_owned() });
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let previous = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(previous);
        let listener = bound.map_err(failed)?;
        if let Some(gid) = fs::read_to_string("/etc/group").ok().and_then(|t| gid_of(GROUP, &t)) {
            chown(path, None, Some(gid)).map_err(failed)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(Self::Unix(listener))
    }

    /// Binds TCP on a loopback address.
    ///
    /// # Errors
    /// For any other address, or as bind(2).
    pub async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        let bound = TcpListener::bind(address).await;
        let failed = |source| ListenError::Io { address: format!("tcp://{address}"), source };
        bound.map(Self::Tcp).map_err(failed)
    }
}

/// The id of `group` in the text of /etc/group (group(5)).
fn gid_of(group: &str, text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\ndockerx:x:7:\ndocker:x:998:a,b\nbad:x:\n";
        assert_eq!(gid_of("docker", text), Some(998));
        assert_eq!(gid_of("bad", text), None);
        assert_eq!(gid_of("none", text), None);
    }

    #[tokio::test]
    async fn tcp_beyond_loopback_is_refused() {
        let error = Listener::tcp("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("root on this host"));
        assert!(Listener::tcp("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/capsa.sock");
        drop(Listener::unix(&path).unwrap());
        let live = Listener::unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert!(matches!(Listener::unix(&path), Err(ListenError::InUse { .. })));
        drop(live);
    }
}
