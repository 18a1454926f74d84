//! What a crash, a stranger or a removal leaves behind, and that it is put
//! right.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use capsa_net::Protocol::{Tcp, Udp};
use capsa_net::{BridgeSpec, Error, Repaired, Wanted};
use capsa_sys::netlink::{Bridge, Messages, NetlinkSocket};
use world::{HOST, PATIENCE, World, bridge, never_reaches, plan, port, reaches, serve};

const FOREIGN: &str = "table ip foreign {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";

#[test]
fn a_flushed_ruleset_is_noticed_and_restored() {
    let world = World::new();
    let net = world.open("flush0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    serve(&web.ns);
    let ports = [port(Tcp, None, 8080, &web), port(Udp, Some(HOST), 8080, &web)];
    world.host.run(|| net.publish(&ports).unwrap());
    let before = world.host.nft("list table ip flush0");
    let mut watch = world.host.run(|| net.watch().unwrap());
    let wanted =
        Wanted { bridges: std::slice::from_ref(&spec), endpoints: &[&web.id], ports: &ports };

    // Nothing to do is done without a word.
    let repaired = world.host.run(|| net.reconcile(&wanted).unwrap());
    assert_eq!(repaired, Repaired::default());
    assert!(!watch.saw_deletion().unwrap(), "our own rewriting is no deletion");

    world.host.nft("flush ruleset");
    never_reaches(&world.neighbour, Tcp, (HOST, 8080));
    let event = rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN);
    let patience = rustix::time::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut [event], Some(&patience)), Ok(1));
    assert!(watch.saw_deletion().unwrap());
    let repaired = world.host.run(|| net.reconcile(&wanted).unwrap());
    assert!(repaired.table);
    assert_eq!((repaired.ports_added, repaired.ports_removed), (2, 0));
    reaches(&world.neighbour, Tcp, (HOST, 8080));
    reaches(&world.neighbour, Udp, (HOST, 8080));
    assert_eq!(without_counts(&world.host.nft("list table ip flush0")), without_counts(&before));
}

#[test]
fn a_connection_survives_that_the_rules_are_written_anew() {
    let world = World::new();
    let net = world.open("alive0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    let ports = [port(Tcp, None, 8080, &web)];
    world.host.run(|| net.publish(&ports).unwrap());
    let listener = web.ns.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let mut client = world.neighbour.run(|| TcpStream::connect((HOST, 8080)).unwrap());
    let mut server = listener.accept().unwrap().0;
    let mut exchange = || {
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    };
    exchange();
    let more = bridge("cbr2", 2);
    world.host.run(|| net.ensure_bridge(&more).unwrap());
    exchange();
    // Without the port, only new connections are refused.
    world.host.run(|| net.unpublish(&ports).unwrap());
    exchange();
}

#[test]
fn many_threads_attach_and_publish_at_once() {
    let world = World::new();
    let net = world.open("many0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let (world, net, spec) = (&world, &net, &spec);
    let one = |number: u8| {
        let container = world.container(net, spec, number);
        let ports = [port(Tcp, None, 8000 + u16::from(number), &container)];
        world.host.run(|| net.publish(&ports).unwrap());
        world.host.run(|| net.ensure_bridge(&bridge("cbr2", 2)).unwrap());
        container
    };
    let containers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                scope.spawn(move || (2..12).map(|n| one(thread * 10 + n)).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(world.host.run(|| net.published().unwrap()).len(), 40);
    serve(&containers[17].ns);
    reaches(&world.neighbour, Tcp, (HOST, 8000 + u16::from(containers[17].ip.octets()[3])));
}

fn without_counts(rules: &str) -> String {
    let lines = rules.lines().map(|line| match line.split_once(" counter packets") {
        Some((before, after)) => format!("{before} {}", after.split_once("drop").unwrap().1),
        None => line.to_owned(),
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn a_new_instance_finds_what_the_last_one_published_and_removes_what_is_stale() {
    let world = World::new();
    let spec = bridge("cbr1", 1);
    let gone = bridge("cbr2", 2);
    let (web, old) = {
        let net = world.open("again0");
        world.host.run(|| net.ensure_bridge(&spec).unwrap());
        world.host.run(|| net.ensure_bridge(&gone).unwrap());
        let web = world.container(&net, &spec, 2);
        let old = world.container(&net, &gone, 2);
        let ports = [port(Tcp, None, 8080, &web), port(Tcp, None, 8081, &old)];
        world.host.run(|| net.publish(&ports).unwrap());
        (web, old)
    };
    let net = world.open("again0");
    let mut published = world.host.run(|| net.published().unwrap());
    published.sort_by_key(|port| port.host_port);
    assert_eq!(published, [port(Tcp, None, 8080, &web), port(Tcp, None, 8081, &old)]);
    assert_eq!(published[1].owner, old.id);

    let wanted = Wanted {
        bridges: std::slice::from_ref(&spec),
        endpoints: &[&web.id],
        ports: &published[..1],
    };
    let mut repaired = world.host.run(|| net.reconcile(&wanted).unwrap());
    repaired.links_removed.sort();
    assert_eq!(repaired.links_removed, ["cbr2".to_owned(), format!("veth{}", old.id)]);
    assert_eq!((repaired.table, repaired.ports_added, repaired.ports_removed), (false, 0, 1));
    serve(&web.ns);
    reaches(&world.neighbour, Tcp, (HOST, 8080));
    // An attach by the new instance doesn't take an index that is in use.
    let more = world.container(&net, &spec, 3);
    reaches(&more.ns, Tcp, (web.ip, 80));
}

#[test]
fn teardown_leaves_the_host_as_it_was() {
    let world = World::new();
    world.host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    let other = world.open("other0");
    let before = state(&world);
    let net = world.open("gone0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    world.host.run(|| net.publish(&[port(Tcp, None, 8080, &web)]).unwrap());
    assert_eq!(world.host.run(|| net.leftovers().unwrap()).len(), 3);
    assert_ne!(state(&world), before);

    // Another instance's forward chain: forwarding stays on.
    world.host.run(|| net.teardown().unwrap());
    assert_eq!(world.host.run(|| net.leftovers().unwrap()), Vec::<String>::new());
    assert_eq!(state(&world), (before.0, before.1, "1\n".to_owned()));
    world.host.run(|| net.teardown().unwrap());
    world.host.run(|| other.teardown().unwrap());

    // Alone: it is switched off again, by a later process too.
    world.host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    let net = world.open("gone0");
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let net = world.open("gone0");
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    world.host.run(|| net.teardown().unwrap());
    assert_eq!(state(&world).2, "0\n");
}

/// Links, rules and the forwarding switch.
fn state(world: &World) -> (Vec<String>, String, String) {
    world.host.run(|| {
        let links = NetlinkSocket::open().unwrap().links().unwrap();
        let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        (
            links.into_iter().map(|link| link.name).collect(),
            world.host.nft("list ruleset"),
            forwarding,
        )
    })
}

#[test]
fn tables_and_links_of_others_are_left_alone() {
    let world = World::new();
    world.host.nft("add table ip foreign");
    world.host.nft("add chain ip foreign forward { type filter hook forward priority 0 ; }");
    world.host.run(|| {
        let mut request = Messages::new();
        request.add_bridge(&Bridge {
            name: "theirs",
            mac: [2; 6],
            mtu: 1400,
            group: 0,
            alias: "x",
        });
        NetlinkSocket::open().unwrap().execute(&mut request).unwrap();
    });
    let net = world.open("polite0");
    // Used as it is, but never removed.
    let spec = bridge("theirs", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    world.container(&net, &spec, 2);
    world.host.run(|| net.reconcile(&Wanted::default()).unwrap());
    world.host.run(|| net.remove_bridge("theirs").unwrap());
    world.host.run(|| net.teardown().unwrap());
    let links = world.host.run(|| NetlinkSocket::open().unwrap().links().unwrap());
    let theirs = links.iter().find(|link| link.name == "theirs").unwrap();
    assert_eq!((theirs.mtu, theirs.group), (1400, 0));
    assert_eq!(world.host.nft("list ruleset"), FOREIGN);

    let not_a_bridge = BridgeSpec { name: "lan0".into(), ..spec };
    let refused = world.host.run(|| net.ensure_bridge(&not_a_bridge));
    assert!(matches!(refused, Err(Error::NotABridge { .. })), "{refused:?}");
}

#[test]
fn chains_that_drop_forwarded_packets_are_named() {
    let world = World::new();
    let net = world.open("named0");
    assert_eq!(world.host.run(|| net.forward_blockers().unwrap()), Vec::<String>::new());
    world.host.nft("add table inet fw");
    world
        .host
        .nft("add chain inet fw through { type filter hook forward priority 0 ; policy drop ; }");
    assert_eq!(world.host.run(|| net.forward_blockers().unwrap()), ["fw through"]);
}

#[test]
fn a_bridge_changes_when_its_spec_does() {
    let world = World::new();
    let net = world.open("change0");
    let first = bridge("cbr1", 1);
    let second = BridgeSpec { mtu: Some(1400), icc: false, ..bridge("cbr1", 9) };
    for spec in [&first, &second, &second] {
        world.host.run(|| net.ensure_bridge(spec).unwrap());
    }
    let (link, addresses) = world.host.run(|| {
        let mut socket = NetlinkSocket::open().unwrap();
        (socket.link("cbr1").unwrap(), socket.addresses().unwrap())
    });
    let own: Vec<_> = addresses.iter().filter(|found| found.link == link.index).collect();
    assert_eq!((own.len(), own[0].address, link.mtu), (1, second.gateway, 1400));
    let rules = world.host.nft("list table ip change0");
    assert!(rules.contains("172.30.9.0/24 masquerade") && !rules.contains("172.30.1."), "{rules}");
    let taken = world.host.run(|| net.used_subnets().unwrap());
    assert!(taken.contains(&second.subnet), "{taken:?}");
}

#[test]
fn a_failed_attach_leaves_nothing_and_a_taken_index_is_no_failure() {
    let world = World::new();
    let net = world.open("attach0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    let before = world.host.run(|| NetlinkSocket::open().unwrap().links().unwrap().len());
    let mut again = plan(&web, &spec);
    again.id = "other".into();
    assert!(world.host.run(|| net.attach(&again)).is_err());
    // The route exists already: the last step of all fails.
    again.ifname = "eth1".into();
    assert!(world.host.run(|| net.attach(&again)).is_err());
    let after = world.host.run(|| NetlinkSocket::open().unwrap().links().unwrap().len());
    assert_eq!(after, before);

    // A link that has index 2 already, as some kernels make in every namespace.
    let mut crowded =
        world::Container { ns: world::Namespace::new(), id: "crowded".into(), ip: web.ip };
    crowded.ip = std::net::Ipv4Addr::new(172, 30, 1, 4);
    let mut request = Messages::new();
    request.add_bridge(&Bridge { name: "first", mac: [2; 6], mtu: 1500, group: 0, alias: "x" });
    NetlinkSocket::open_in(crowded.ns.fd().as_fd()).unwrap().execute(&mut request).unwrap();
    world.host.run(|| net.attach(&plan(&crowded, &spec)).unwrap());
    serve(&web.ns);
    reaches(&crowded.ns, Tcp, (web.ip, 80));
    let stats = world.host.run(|| net.stats(&crowded.id).unwrap());
    assert!(stats.rx_packets > 0 && stats.tx_bytes > 0, "{stats:?}");

    world.host.run(|| net.detach(&crowded.id).unwrap());
    world.host.run(|| net.detach(&crowded.id).unwrap());
    assert!(world.host.run(|| net.stats(&crowded.id)).is_err());
}
