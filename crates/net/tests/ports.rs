//! Ports are reserved against host processes and against each other.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use capsa_net::Error;
use capsa_net::Protocol::{Tcp, Udp};
use world::{HOST, World, bridge, port};

#[test]
fn a_port_that_a_process_has_is_refused_by_name() {
    let world = World::new();
    let net = world.open("ports0");
    world.host.run(|| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let error = net.reserve(Tcp, None, 8080).unwrap_err();
        let Error::PortTaken { port: 8080, holder: Some(holder), .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(holder.pid, std::process::id());
        let text = error.to_string();
        assert!(text.starts_with("port 0.0.0.0:8080/tcp is already in use by "), "{text}");
        net.reserve(Tcp, Some(HOST), 8080).unwrap();
        drop(listener);

        let socket = UdpSocket::bind("[::]:8080").unwrap();
        let error = net.reserve(Udp, Some(HOST), 8080).unwrap_err();
        assert!(matches!(&error, Error::PortTaken { holder: Some(_), .. }), "{error:?}");
        drop(socket);
        let elsewhere = net.reserve(Tcp, Some(Ipv4Addr::new(192, 0, 2, 1)), 8080).unwrap_err();
        assert!(matches!(elsewhere, Error::NoSuchAddress { .. }), "{elsewhere:?}");
    });
}

#[test]
fn a_reserved_port_is_refused_to_processes_until_it_is_dropped() {
    let world = World::new();
    let net = world.open("ports1");
    world.host.run(|| {
        for protocol in [Tcp, Udp] {
            let (held, actual) = net.reserve(protocol, None, 8080).unwrap();
            assert_eq!(actual, 8080);
            let free = || match protocol {
                Tcp => TcpListener::bind((HOST, 8080)).is_ok(),
                _ => UdpSocket::bind((HOST, 8080)).is_ok(),
            };
            assert!(!free(), "{protocol}");
            assert!(net.reserve(protocol, Some(HOST), 8080).is_err());
            // Nobody is let in by the reservation itself.
            assert!(TcpStream::connect((HOST, 8080)).is_err());
            drop(held);
            assert!(free(), "{protocol}");
            let (_one, first) = net.reserve(protocol, None, 0).unwrap();
            let (_two, second) = net.reserve(protocol, None, 0).unwrap();
            assert!(first != second && first >= 1024, "{first} {second}");
        }
    });
}

#[test]
fn connections_that_a_listener_left_behind_do_not_hold_the_port() {
    let world = World::new();
    let net = world.open("ports2");
    world.host.run(|| {
        let listener = TcpListener::bind((HOST, 8080)).unwrap();
        let mut client = TcpStream::connect((HOST, 8080)).unwrap();
        let mut server = listener.accept().unwrap().0;
        server.write_all(b"bye").unwrap();
        // Whoever closes first keeps the connection in TIME_WAIT.
        drop(server);
        client.read_to_end(&mut Vec::new()).unwrap();
        drop((client, listener));
        let (held, _) = net.reserve(Tcp, None, 8080).unwrap();
        assert!(TcpListener::bind((HOST, 8080)).is_err());
        drop(held);
    });
}

#[test]
fn a_port_is_published_once() {
    let world = World::new();
    let net = world.open("ports3");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    let both = [port(Tcp, None, 8080, &web), port(Tcp, None, 8081, &web)];
    world.host.run(|| net.publish(&both[1..]).unwrap());
    let error = world.host.run(|| net.publish(&both)).unwrap_err();
    assert!(matches!(&error, Error::PortTaken { port: 8081, .. }), "{error:?}");
    let published = world.host.run(|| net.published().unwrap());
    assert_eq!(published, both[1..], "all or none");
}
