//! The name server of one container: its networks' names, everything else forwarded.
//!
//! It listens at 127.0.0.11 inside the container's network namespace; the daemon
//! holds the sockets and forwards from the host's namespace, so that a name server
//! on the host's loopback works too.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use capsa_net::dns::{Answer, DnsSockets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use super::names::Names;
use crate::{Error, Result};

const PORT: u16 = 53;
/// The largest message over UDP that anybody sends (EDNS).
const MESSAGE: usize = 4096;
/// How long one upstream server may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// Queries of one container in flight; more wait in the socket's buffer.
const IN_FLIGHT: usize = 256;

/// What one container's name server knows.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Whose names.
    pub names: Arc<Names>,
    /// Ids of the container's networks.
    pub networks: Vec<String>,
    /// Servers asked for everything else; the host's when empty.
    pub upstream: Vec<IpAddr>,
    /// Nothing is forwarded.
    pub internal: bool,
}

/// Serves until the task is aborted.
pub(super) fn serve(sockets: DnsSockets, server: Server) -> Result<JoinHandle<()>> {
    let failed = |error: io::Error| Error::kernel(format!("name server socket: {error}"));
    sockets.udp.set_nonblocking(true).map_err(failed)?;
    sockets.tcp.set_nonblocking(true).map_err(failed)?;
    let udp = Arc::new(UdpSocket::from_std(sockets.udp).map_err(failed)?);
    let tcp = TcpListener::from_std(sockets.tcp).map_err(failed)?;
    Ok(tokio::spawn(async move {
        tokio::join!(serve_udp(udp, server.clone()), serve_tcp(tcp, server));
    }))
}

async fn serve_udp(socket: Arc<UdpSocket>, server: Server) {
    let slots = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    let mut forwards = tokio::task::JoinSet::new();
    let mut buffer = [0; MESSAGE];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { return };
        while forwards.try_join_next().is_some() {}
        let query = &buffer[..length];
        match server.answer(query) {
            Answer::Reply(reply) => {
                let reply = capsa_net::dns::for_datagram(query, reply);
                drop(socket.send_to(&reply, client).await);
            }
            Answer::Forward => {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let (socket, server, query) = (Arc::clone(&socket), server.clone(), query.to_vec());
                forwards.spawn(async move {
                    if let Some(reply) = server.forward_udp(&query).await {
                        drop(socket.send_to(&reply, client).await);
                    }
                    drop(slot);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, server: Server) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        while clients.try_join_next().is_some() {}
        if clients.len() < IN_FLIGHT {
            let server = server.clone();
            clients.spawn(async move { drop(serve_tcp_client(stream, &server).await) });
        }
    }
}

/// Messages over TCP have their length in front (RFC 1035, 4.2.2).
async fn serve_tcp_client(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let query = tokio::time::timeout(PATIENCE, read_message(&mut stream)).await??;
        let reply = match server.answer(&query) {
            Answer::Reply(reply) => Some(reply),
            Answer::Forward => server.forward_tcp(&query).await,
        };
        let Some(reply) = reply else { return Ok(()) };
        write_message(&mut stream, &reply).await?;
    }
}

impl Server {
    fn answer(&self, query: &[u8]) -> Answer {
        let forward = |name: &str| self.names.find(&self.networks, name);
        let reverse = |address: IpAddr| self.names.reverse(&self.networks, address);
        match capsa_net::dns::answer(query, &forward, &reverse) {
            Answer::Forward if self.internal => Answer::Reply(capsa_net::dns::refuse(query)),
            answer => answer,
        }
    }

    async fn forward_udp(&self, query: &[u8]) -> Option<Vec<u8>> {
        for server in self.upstream() {
            let asked = tokio::time::timeout(PATIENCE, ask_udp(server, query)).await;
            if let Ok(Ok(reply)) = asked {
                return Some(reply);
            }
        }
        Some(capsa_net::dns::failure(query))
    }

    async fn forward_tcp(&self, query: &[u8]) -> Option<Vec<u8>> {
        for server in self.upstream() {
            let asked = tokio::time::timeout(PATIENCE, ask_tcp(server, query)).await;
            if let Ok(Ok(reply)) = asked {
                return Some(reply);
            }
        }
        Some(capsa_net::dns::failure(query))
    }

    /// The host's servers are read anew each time: a laptop changes networks.
    fn upstream(&self) -> Vec<SocketAddr> {
        let servers = if self.upstream.is_empty() {
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            capsa_net::files::ResolvConf::parse(&text).upstreams()
        } else {
            self.upstream.clone()
        };
        servers.into_iter().map(|address| SocketAddr::new(address, PORT)).collect()
    }
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // An answer to another question is somebody's guess.
        if length >= 2 && buffer[..2] == query[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, query).await?;
    read_message(&mut stream).await
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
