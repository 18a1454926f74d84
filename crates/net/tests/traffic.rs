//! Who reaches what: every kind of published port from every kind of client.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::{Ipv4Addr, UdpSocket};

use capsa_net::Protocol::{Tcp, Udp};
use world::{
    HOST, NEIGHBOUR, Namespace, PATIENCE, World, bridge, never_reaches, port, reaches, serve,
};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY: u16 = 8081;
const AT_HOST: u16 = 8082;
const AT_LOCALHOST: u16 = 8083;
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 8080);

#[test]
fn published_ports_are_reached_by_those_they_are_for() {
    matrix(false);
}

#[test]
fn published_ports_are_reached_when_bridged_frames_are_filtered_too() {
    matrix(true);
}

fn matrix(filter_bridged: bool) {
    let world = World::new();
    let net = world.open("matrix0");
    let (one, two) = (bridge("cbr1", 1), bridge("cbr2", 2));
    world.host.run(|| net.ensure_bridge(&one).unwrap());
    world.host.run(|| net.ensure_bridge(&two).unwrap());
    world.filter_bridged(filter_bridged);
    let web = world.container(&net, &one, 2);
    let same = world.container(&net, &one, 3);
    let other = world.container(&net, &two, 2);
    serve(&web.ns);
    let ports: Vec<_> = [Tcp, Udp]
        .into_iter()
        .flat_map(|protocol| {
            [
                port(protocol, None, ANY, &web),
                port(protocol, Some(HOST), AT_HOST, &web),
                port(protocol, Some(LOCALHOST), AT_LOCALHOST, &web),
            ]
        })
        .collect();
    world.host.run(|| net.publish(&ports).unwrap());
    assert_eq!(world.host.run(|| net.published().unwrap()).len(), 6);

    for protocol in [Tcp, Udp] {
        let yes = |ns: &Namespace, ip, port| reaches(ns, protocol, (ip, port));
        let no = |ns: &Namespace, ip, port| never_reaches(ns, protocol, (ip, port));
        // The neighbour is seen by its own address.
        assert_eq!(yes(&world.neighbour, HOST, ANY), NEIGHBOUR.to_string());
        assert_eq!(yes(&world.neighbour, HOST, AT_HOST), NEIGHBOUR.to_string());
        no(&world.neighbour, HOST, AT_LOCALHOST);
        // The host itself.
        assert_eq!(yes(&world.host, HOST, ANY), HOST.to_string());
        yes(&world.host, HOST, AT_HOST);
        no(&world.host, HOST, AT_LOCALHOST);
        assert_eq!(yes(&world.host, LOCALHOST, ANY), one.gateway.to_string());
        no(&world.host, LOCALHOST, AT_HOST);
        yes(&world.host, LOCALHOST, AT_LOCALHOST);
        yes(&world.host, one.gateway, ANY);
        // Containers: itself, one beside it, one of another network.
        for client in [&web, &same, &other] {
            yes(&client.ns, HOST, ANY);
            yes(&client.ns, HOST, AT_HOST);
            no(&client.ns, HOST, AT_LOCALHOST);
        }
        assert_eq!(yes(&other.ns, HOST, ANY), other.ip.to_string());
        // Straight to its address: only from its own network and the host.
        assert_eq!(yes(&same.ns, web.ip, 80), same.ip.to_string());
        yes(&world.host, web.ip, 80);
        no(&other.ns, web.ip, 80);
        no(&world.neighbour, web.ip, 80);
    }

    world.host.run(|| net.unpublish(&ports[..1]).unwrap());
    never_reaches(&world.neighbour, Tcp, (HOST, ANY));
    reaches(&world.neighbour, Udp, (HOST, ANY));
    world.host.run(|| net.unpublish(&ports).unwrap());
    never_reaches(&world.neighbour, Tcp, (HOST, AT_HOST));
    assert_eq!(world.host.run(|| net.published().unwrap()), []);
}

#[test]
fn outgoing_connections_get_the_hosts_address_and_internal_ones_do_not_leave() {
    let world = World::new();
    let net = world.open("outgoing0");
    let open = bridge("cbr1", 1);
    let internal = capsa_net::BridgeSpec { internal: true, ..bridge("cbr2", 2) };
    let routed = capsa_net::BridgeSpec { masquerade: false, ..bridge("cbr3", 3) };
    for spec in [&open, &internal, &routed] {
        world.host.run(|| net.ensure_bridge(spec).unwrap());
    }
    let free = world.container(&net, &open, 2);
    let shut_in = world.container(&net, &internal, 2);
    let plain = world.container(&net, &routed, 2);
    let shut_beside = world.container(&net, &internal, 3);
    serve(&world.neighbour);
    serve(&shut_in.ns);
    world.host.run(|| net.publish(&[port(Tcp, None, 8080, &shut_in)]).unwrap());
    for protocol in [Tcp, Udp] {
        assert_eq!(reaches(&free.ns, protocol, (NEIGHBOUR, 80)), HOST.to_string());
        assert_eq!(reaches(&plain.ns, protocol, (NEIGHBOUR, 80)), plain.ip.to_string());
        never_reaches(&shut_in.ns, protocol, (NEIGHBOUR, 80));
        reaches(&shut_beside.ns, protocol, (shut_in.ip, 80));
        never_reaches(&free.ns, protocol, (shut_in.ip, 80));
    }
    never_reaches(&world.neighbour, Tcp, (HOST, 8080));
}

#[test]
fn containers_of_a_network_without_icc_do_not_reach_each_other() {
    for filter_bridged in [false, true] {
        let world = World::new();
        let net = world.open("quiet0");
        let quiet = capsa_net::BridgeSpec { icc: false, ..bridge("cbr1", 1) };
        world.host.run(|| net.ensure_bridge(&quiet).unwrap());
        world.filter_bridged(filter_bridged);
        let one = world.container(&net, &quiet, 2);
        let two = world.container(&net, &quiet, 3);
        serve(&one.ns);
        serve(&world.neighbour);
        never_reaches(&two.ns, Tcp, (one.ip, 80));
        reaches(&two.ns, Tcp, (NEIGHBOUR, 80));
        reaches(&world.host, Tcp, (one.ip, 80));
    }
}

/// A neighbour that sends to our MAC with 127.0.0.1 as destination: it routes
/// through us, and its own nf_tables rewrites the destination behind that.
#[test]
fn nobody_on_the_lan_reaches_a_port_published_on_127_0_0_1() {
    let world = World::new();
    let net = world.open("guard0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    let received = serve(&web.ns);
    let ports = [port(Udp, Some(LOCALHOST), 8080, &web), port(Udp, None, 8081, &web)];
    world.host.run(|| net.publish(&ports).unwrap());
    world.neighbour.nft("add table ip craft");
    world.neighbour.nft("add chain ip craft out { type filter hook postrouting priority 0 ; }");
    world.neighbour.nft("add rule ip craft out udp dport 8080 ip daddr set 127.0.0.1");

    let send = |to: (Ipv4Addr, u16), text: &str| {
        let socket = world.neighbour.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        world.neighbour.run(|| socket.send_to(text.as_bytes(), to).unwrap());
    };
    send(ELSEWHERE, "crafted");
    send((HOST, 8081), "honest");
    assert_eq!(received.recv_timeout(PATIENCE).unwrap(), b"honest");
    let rules = world.host.nft("list chain ip guard0 guard");
    assert!(rules.contains("counter packets 1 "), "{rules}");

    // The test can fail: without the guard the crafted packet comes through.
    world.host.nft("flush chain ip guard0 guard");
    send(ELSEWHERE, "crafted");
    assert_eq!(received.recv_timeout(PATIENCE).unwrap(), b"crafted");
}

/// With `route_localnet` on the bridge only the guard keeps containers away
/// from what the host serves on 127.0.0.1.
#[test]
fn containers_do_not_reach_the_hosts_loopback() {
    let world = World::new();
    let net = world.open("guard1");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let inside = world.container(&net, &spec, 2);
    let secret = world.host.run(|| UdpSocket::bind("127.0.0.1:99").unwrap());
    let public = world.host.run(|| UdpSocket::bind((spec.gateway, 98)).unwrap());
    for socket in [&secret, &public] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    inside.ns.nft("add table ip craft");
    inside.ns.nft("add chain ip craft out { type filter hook postrouting priority 0 ; }");
    inside.ns.nft("add rule ip craft out udp dport 99 ip daddr set 127.0.0.1");
    let send = |port: u16| {
        let socket = inside.ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        inside.ns.run(|| socket.send_to(b"x", (spec.gateway, port)).unwrap());
    };
    send(99);
    send(98);
    assert_eq!(public.recv(&mut [0; 8]).unwrap(), 1);
    secret.set_nonblocking(true).unwrap();
    assert!(secret.recv(&mut [0; 8]).is_err());
    world.host.nft("flush chain ip guard1 guard");
    secret.set_nonblocking(false).unwrap();
    send(99);
    assert_eq!(secret.recv(&mut [0; 8]).unwrap(), 1);
}

/// A UDP client that never stops sending is led to the container as soon as the
/// port is published, although its connection was tracked before.
#[test]
fn a_steady_udp_client_follows_the_port() {
    let world = World::new();
    let net = world.open("steady0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    let received = serve(&web.ns);
    let on_host = world.host.run(|| UdpSocket::bind((HOST, 8080)).unwrap());
    on_host.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = world.neighbour.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let send = || world.neighbour.run(|| client.send_to(b"steady", (HOST, 8080)).unwrap());
    send();
    assert_eq!(on_host.recv(&mut [0; 8]).unwrap(), 6);
    let ports = [port(Udp, None, 8080, &web)];
    world.host.run(|| net.publish(&ports).unwrap());
    send();
    assert_eq!(received.recv_timeout(PATIENCE).unwrap(), b"steady");
    world.host.run(|| net.unpublish(&ports).unwrap());
    send();
    assert_eq!(on_host.recv(&mut [0; 8]).unwrap(), 6);
}
