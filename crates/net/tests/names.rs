//! The name server's sockets inside a container.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::Read;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::thread;

use capsa_net::dns::{self, Answer, DnsSockets};
use capsa_sys::netlink::{Messages, NetlinkSocket};
use simple_dns::{CLASS, Name, Packet, Question, TYPE};
use world::{Namespace, PATIENCE};

fn question() -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    let name = Name::new_unchecked("web");
    packet.questions.push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

fn serve_once(sockets: DnsSockets) {
    sockets.udp.set_nonblocking(false).unwrap();
    sockets.tcp.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, peer) = sockets.udp.recv_from(&mut buffer).unwrap();
        let lookup = |_: &str| Some(vec![IpAddr::from([172, 30, 1, 2])]);
        let Answer::Reply(reply) = dns::answer(&buffer[..length], &lookup, &|_| None) else {
            panic!("forwarded");
        };
        sockets.udp.send_to(&reply, peer).unwrap();
        sockets.tcp.accept().unwrap();
    });
}

fn bring_loopback_up(ns: &Namespace) {
    let mut request = Messages::new();
    request.set_up("lo", 1);
    NetlinkSocket::open_in(ns.fd()).unwrap().execute(&mut request).unwrap();
}

fn ask(ns: &Namespace) {
    let client = ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // A connected socket takes answers from 127.0.0.11:53 alone.
    client.connect("127.0.0.11:53").unwrap();
    client.send(&question()).unwrap();
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).unwrap();
    let reply = Packet::parse(&buffer[..length]).unwrap();
    assert_eq!((reply.id(), reply.answers.len()), (7, 1));
    let mut stream = ns.run(|| TcpStream::connect("127.0.0.11:53").unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_container_asks_127_0_0_11() {
    let ns = Namespace::new();
    bring_loopback_up(&ns);
    serve_once(dns::bind_in(ns.fd()).unwrap());
    ask(&ns);
}

#[test]
fn a_container_that_serves_port_53_itself_asks_127_0_0_11_too() {
    let ns = Namespace::new();
    bring_loopback_up(&ns);
    serve_once(dns::bind_behind(ns.fd()).unwrap());
    let own = ns.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    ask(&ns);
    drop(own);
}
