//! A program for inside a container: answers UDP datagrams with what they hold, which
//! busybox can't. Usage: `probe PORT`.

use std::net::UdpSocket;

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(9000_u16);
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    let mut bytes = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut bytes)?;
        socket.send_to(&bytes[..length], from)?;
    }
}
