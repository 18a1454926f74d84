//! A world of its own for one test: a host, a neighbour on its LAN, and
//! containers, each a network namespace; no packet leaves it.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use capsa_net::{BridgeSpec, EndpointPlan, Net, NetConfig, PortMap, Protocol, ipam};
use capsa_sys::netlink::{
    Address, Messages, NetlinkSocket, Route, RouteTarget, Veth, own_namespace, within,
};

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
pub const PATIENCE: Duration = Duration::from_millis(2000);
/// How long to wait for what must not come.
pub const DOUBT: Duration = Duration::from_millis(250);

pub struct Namespace(OwnedFd);

pub struct World {
    pub host: Namespace,
    pub neighbour: Namespace,
}

pub struct Container {
    pub ns: Namespace,
    pub id: String,
    pub ip: Ipv4Addr,
}

impl Namespace {
    pub fn new() -> Self {
        #[expect(deprecated, reason = "the safe form; nothing but the network changes")]
        let make = || {
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            own_namespace().unwrap()
        };
        Self(thread::spawn(make).join().unwrap())
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn run<T>(&self, visit: impl FnOnce() -> T) -> T {
        within(self.fd(), visit).unwrap()
    }

    /// Runs nft here and gives what it printed.
    pub fn nft(&self, arguments: &str) -> String {
        let output = self.run(|| Command::new("nft").args(arguments.split(' ')).output().unwrap());
        assert!(output.status.success(), "nft {arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl World {
    pub fn new() -> Self {
        let world = Self { host: Namespace::new(), neighbour: Namespace::new() };
        world.host.run(|| {
            let mut socket = NetlinkSocket::open().unwrap();
            let mut request = Messages::new();
            request.set_up("lo", 1);
            request.add_veth(&Veth {
                name: "lan0",
                index: Some(7),
                group: 0,
                master: 0,
                peer_name: "lan0",
                peer_index: Some(7),
                peer_mac: [2, 0, 0, 0, 0, 9],
                netns: world.neighbour.fd(),
                mtu: 1500,
            });
            request.add_address("lan0", &Address { link: 7, address: HOST, prefix: 24 });
            socket.execute(&mut request).unwrap();
        });
        let mut request = Messages::new();
        request.set_up("lo", 1);
        request.set_up("lan0", 7);
        request.add_address("lan0", &Address { link: 7, address: NEIGHBOUR, prefix: 24 });
        let everywhere =
            Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, link: Some(7), table: 254 };
        request.add_route("lan0", &everywhere, RouteTarget::Gateway(HOST));
        NetlinkSocket::open_in(world.neighbour.fd()).unwrap().execute(&mut request).unwrap();
        world
    }

    pub fn open(&self, table: &str) -> Net {
        self.host.run(|| Net::open(NetConfig { table: table.to_owned() }).unwrap())
    }

    /// Whether bridged frames pass the packet filter, as with Kubernetes.
    pub fn filter_bridged(&self, on: bool) {
        let key = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        self.host.run(|| {
            if std::path::Path::new(key).exists() {
                std::fs::write(key, if on { "1" } else { "0" }).unwrap();
            }
        });
    }

    pub fn container(&self, net: &Net, bridge: &BridgeSpec, last: u8) -> Container {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let [a, b, c, _] = bridge.gateway.octets();
        let container = Container {
            ns: Namespace::new(),
            id: format!("{:08x}", NEXT.fetch_add(1, Ordering::Relaxed)),
            ip: Ipv4Addr::new(a, b, c, last),
        };
        self.host.run(|| net.attach(&plan(&container, bridge)).unwrap());
        container
    }
}

pub fn plan<'a>(container: &'a Container, bridge: &BridgeSpec) -> EndpointPlan<'a> {
    EndpointPlan {
        id: container.id.clone(),
        bridge: bridge.name.clone(),
        netns: container.ns.fd(),
        ifname: "eth0".to_owned(),
        ipv4: container.ip,
        prefix: bridge.subnet.prefix_len(),
        gateway: Some(bridge.gateway),
        mac: ipam::mac_of(container.ip),
        mtu: None,
        isolated: !bridge.icc,
    }
}

pub fn bridge(name: &str, third: u8) -> BridgeSpec {
    BridgeSpec {
        name: name.to_owned(),
        subnet: ipnet::Ipv4Net::new(Ipv4Addr::new(172, 30, third, 0), 24).unwrap(),
        gateway: Ipv4Addr::new(172, 30, third, 1),
        mtu: None,
        internal: false,
        masquerade: true,
        icc: true,
    }
}

pub fn port(
    protocol: Protocol,
    host_ip: Option<Ipv4Addr>,
    host_port: u16,
    to: &Container,
) -> PortMap {
    let to_address = SocketAddrV4::new(to.ip, 80);
    PortMap { protocol, host_ip, host_port, to: to_address, owner: to.id.clone() }
}

/// Serves port 80 over TCP and UDP: tells each client the address it is seen
/// by. What comes by UDP is also handed over.
pub fn serve(ns: &Namespace) -> Receiver<Vec<u8>> {
    let (tcp, udp) = ns
        .run(|| (TcpListener::bind("0.0.0.0:80").unwrap(), UdpSocket::bind("0.0.0.0:80").unwrap()));
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let seen = stream.peer_addr().unwrap().ip().to_string();
            // The client may have gone.
            let _ = stream.write_all(seen.as_bytes());
        }
    });
    let (sender, receiver) = channel();
    thread::spawn(move || answer_datagrams(&udp, &sender));
    receiver
}

fn answer_datagrams(udp: &UdpSocket, sender: &Sender<Vec<u8>>) {
    let mut buffer = [0; 64];
    while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
        // The test may have ended, the client too.
        let _ = sender.send(buffer[..length].to_vec());
        let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
    }
}

/// Asks a server from `ns`: by which address it sees us.
pub fn ask(
    ns: &Namespace,
    protocol: Protocol,
    to: (Ipv4Addr, u16),
    patience: Duration,
) -> io::Result<String> {
    let address = SocketAddr::from(to);
    let mut text = String::new();
    if protocol == Protocol::Tcp {
        let mut stream = ns.run(|| TcpStream::connect_timeout(&address, patience))?;
        stream.set_read_timeout(Some(patience))?;
        stream.read_to_string(&mut text)?;
        let _ = stream.shutdown(Shutdown::Both);
        return Ok(text);
    }
    let socket = ns.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    ns.run(|| socket.connect(address))?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"ask")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub fn reaches(ns: &Namespace, protocol: Protocol, to: (Ipv4Addr, u16)) -> String {
    ask(ns, protocol, to, PATIENCE).unwrap_or_else(|error| panic!("{protocol} {to:?}: {error}"))
}

pub fn never_reaches(ns: &Namespace, protocol: Protocol, to: (Ipv4Addr, u16)) {
    if let Ok(seen) = ask(ns, protocol, to, DOUBT) {
        panic!("{protocol} {to:?} answered, seen as {seen}");
    }
}
