//! Asking name servers (RFC 1035) over UDP, and over TCP when the answer is cut off.
//!
//! The C library's resolver is not used: in a static binary it would load plugins of
//! the host's C library.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

const ANSWER_MAX: usize = 4096;
/// Tries at each server.
const ROUNDS: u32 = 2;
const TRY_MAX: Duration = Duration::from_secs(3);

/// What a server said about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its addresses of the asked kind, perhaps none.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
}

/// Asks `servers` in turn for the addresses of `name`, of version 4 or 6.
pub(super) fn ask(
    servers: &[SocketAddr],
    name: &str,
    v6: bool,
    deadline: Instant,
) -> io::Result<Answer> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "no name server is configured");
    for _ in 0..ROUNDS {
        for server in servers {
            let left = deadline.saturating_duration_since(Instant::now()).min(TRY_MAX);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match ask_one(*server, name, v6, left) {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = error,
            }
        }
    }
    Err(failed)
}

fn ask_one(server: SocketAddr, name: &str, v6: bool, time: Duration) -> io::Result<Answer> {
    let id = random_id()?;
    let question = question(id, name, v6)?;
    let reply = over_udp(server, &question, id, time)?;
    let whole = Packet::parse(&reply).is_ok_and(|p| !p.has_flags(PacketFlag::TRUNCATION));
    let reply = if whole { reply } else { over_tcp(server, &question, time)? };
    read(&reply, id, name, v6)
}

fn question(id: u16, name: &str, v6: bool) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = if v6 { TYPE::AAAA } else { TYPE::A };
    let name = Name::new(name).map_err(invalid)?;
    let question = Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(invalid)
}

fn over_udp(server: SocketAddr, question: &[u8], id: u16, time: Duration) -> io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.send(question)?;
    let deadline = Instant::now() + time;
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let n = socket.recv(&mut buffer)?;
        // What answers another question is not for us.
        if buffer[..n].starts_with(&id.to_be_bytes()) {
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

fn over_tcp(server: SocketAddr, question: &[u8], time: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, time)?;
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))?;
    let length = u16::try_from(question.len()).map_err(invalid)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn read(reply: &[u8], id: u16, name: &str, v6: bool) -> io::Result<Answer> {
    let packet = Packet::parse(reply).map_err(invalid)?;
    let asked = packet.questions.first().map(|q| q.qname.to_string());
    let ours = asked.is_none_or(|asked| {
        asked.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'))
    });
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !ours {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"));
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Answer::NoName),
        other => return Err(io::Error::other(format!("the name server answered {other:?}"))),
    }
    // A chain of aliases comes with the records it leads to.
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) if !v6 => Some(IpAddr::from(std::net::Ipv4Addr::from(a.address))),
        RData::AAAA(a) if v6 => Some(IpAddr::from(std::net::Ipv6Addr::from(a.address))),
        _ => None,
    });
    Ok(Answer::Addresses(addresses.collect()))
}

fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_be_bytes(bytes))
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
