//! Ports, names, networks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::{Daemon, eventually, patience};

const LIMIT: Duration = Duration::from_secs(2);
const SITE: &str = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";

/// What an HTTP server answers, or why there is no answer.
fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// An address of this host that is not loopback: the source of its default route.
fn own_address() -> Option<String> {
    // Connecting a datagram socket sends nothing; it only picks the address.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

fn port(d: &Daemon, container: &str, of: &str) -> u16 {
    let lines = d.ok(&["port", container, of]);
    let v4 = lines.lines().find(|line| !line.starts_with('[')).unwrap();
    v4.rsplit(':').next().unwrap().parse().unwrap()
}

pub fn a_tcp_port_is_published(d: &Daemon) {
    d.ok(&["run", "-d", "--name", "web", "-h", "site", "-p", "80", "busybox", "sh", "-c", SITE]);
    let port = port(d, "web", "80");
    let hosts = [Some("127.0.0.1".to_owned()), own_address(), Some(d.gateway())];
    for host in hosts.into_iter().flatten() {
        let address = format!("{host}:{port}").parse().unwrap();
        let page = eventually(&format!("an answer at {address}"), || fetch(address).ok());
        assert!(page.ends_with("site\n"), "{page}");
    }
    // From another container by the host's address, the way back goes by the bridge.
    if let Some(host) = own_address() {
        let url = format!("http://{host}:{port}/");
        assert_eq!(d.ok(&["run", "--rm", "busybox", "wget", "-qO-", &url]), "site");
    }
    d.ok(&["stop", "-t", "0", "web"]);
    assert!(fetch(format!("127.0.0.1:{port}").parse().unwrap()).is_err());
    d.ok(&["rm", "web"]);
}

pub fn a_udp_port_is_published(d: &Daemon) {
    let probe = crate::built("probe");
    let mount = format!("{}:/probe:ro", probe.display());
    let args = ["run", "-d", "--name", "echo", "-v", &mount, "-p", "9000/udp", "busybox", "/probe"];
    d.ok(&args);
    let port = port(d, "echo", "9000/udp");
    for host in [Some("127.0.0.1".to_owned()), own_address()].into_iter().flatten() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(format!("{host}:{port}")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let answer = eventually(&format!("an echo from {host}:{port}"), || {
            let mut bytes = [0; 64];
            socket.send(b"marco").ok()?;
            let length = socket.recv(&mut bytes).ok()?;
            Some(bytes[..length].to_vec())
        });
        assert_eq!(answer, b"marco");
    }
}

pub fn containers_find_each_other_by_name(d: &Daemon) {
    d.ok(&["network", "create", "inner"]);
    d.ok(&[
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "inner",
        "--network-alias",
        "alias",
        "busybox",
        "sh",
        "-c",
        SITE,
    ]);
    for name in ["server", "alias"] {
        let script = format!(
            "for i in $(seq 50); do wget -qO- http://{name}/ && exit; usleep 100000; done; exit 1"
        );
        d.ok(&["run", "--rm", "--network", "inner", "busybox", "sh", "-c", &script]);
    }
    let id = d.inspect("server", "{{.Id}}");
    let lookup = d.ok(&["run", "--rm", "--network", "inner", "busybox", "nslookup", &id[..12]]);
    let address = d.inspect("server", "{{.NetworkSettings.Networks.inner.IPAddress}}");
    assert!(lookup.contains(&address), "{lookup}");
    let unknown = d.run(&["run", "--rm", "--network", "inner", "busybox", "nslookup", "nobody"]);
    assert_ne!(unknown.code, 0, "{}", unknown.stdout);
}

pub fn neighbours_on_the_default_bridge_have_addresses_and_names(d: &Daemon) {
    d.ok(&["run", "-d", "--name", "server", "busybox", "sh", "-c", SITE]);
    let address = d.inspect("server", "{{.NetworkSettings.IPAddress}}");
    for host in [address.as_str(), "server"] {
        let script = format!(
            "for i in $(seq 50); do wget -qO- http://{host}/ && exit; usleep 100000; done; exit 1"
        );
        d.ok(&["run", "--rm", "busybox", "sh", "-c", &script]);
    }
}

pub fn hostname_hosts_and_resolv_conf(d: &Daemon) {
    let id = d.ok(&[
        "run",
        "-d",
        "-h",
        "me",
        "--add-host",
        "db:192.0.2.77",
        "--dns-search",
        "example.org",
        "busybox",
        "sleep",
        "99",
    ]);
    let read = |path: &str| d.ok(&["exec", &id, "cat", path]);
    assert_eq!(read("/etc/hostname"), "me");
    let hosts = read("/etc/hosts");
    let address = d.inspect(&id, "{{.NetworkSettings.IPAddress}}");
    for wanted in ["127.0.0.1\tlocalhost", "192.0.2.77\tdb", &format!("{address}\tme")] {
        assert!(hosts.contains(wanted), "{wanted:?} in {hosts}");
    }
    let resolv = read("/etc/resolv.conf");
    assert!(resolv.contains("search example.org"), "{resolv}");
    // They are the container's own files: it may change them.
    d.ok(&["exec", &id, "sh", "-c", "echo 192.0.2.78 more >> /etc/hosts"]);
    assert!(read("/etc/hosts").contains("192.0.2.78 more"));
    let short = d.ok(&["run", "-d", "busybox", "sleep", "99"]);
    assert_eq!(d.ok(&["exec", &short, "hostname"]), short[..12]);
}

pub fn the_name_server_asked_for_is_asked(d: &Daemon) {
    // The bridge is there while a container is on it.
    d.ok(&["run", "-d", "busybox", "sleep", "99"]);
    let server = UdpSocket::bind((d.gateway(), 53)).unwrap();
    server.set_read_timeout(Some(patience())).unwrap();
    for network in ["bridge", "own"] {
        d.run(&["network", "create", "own"]);
        let args = ["run", "--rm", "--network", network, "--dns", &d.gateway(), "busybox"];
        let _asking = d.start(&[&args[..], &["nslookup", "asked.example"]].concat());
        let mut bytes = [0; 512];
        let (length, _) = server.recv_from(&mut bytes).expect("a question");
        assert!(bytes[..length].windows(5).any(|word| word == b"asked"));
    }
}

pub fn no_network_is_only_loopback(d: &Daemon) {
    let links = d.ok(&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"]);
    assert_eq!(links, "lo");
    let up = d.ok(&["run", "--rm", "--network", "none", "busybox", "ip", "address", "show", "lo"]);
    assert!(up.contains("127.0.0.1"), "{up}");
}

pub fn the_host_s_network_is_the_host_s(d: &Daemon) {
    let theirs =
        d.ok(&["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]);
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(theirs, ours.to_str().unwrap());
}

pub fn a_taken_port_names_its_holder(d: &Daemon) {
    d.ok(&["run", "-d", "--name", "holder", "-p", "127.0.0.1::80", "busybox", "sleep", "99"]);
    let taken = format!("127.0.0.1:{}:80", port(d, "holder", "80"));
    let error =
        d.fails(125, &["run", "-d", "--name", "late", "-p", &taken, "busybox", "sleep", "9"]);
    assert!(error.contains("already allocated") || error.contains("already in use"), "{error}");
    // A process of the host holds it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let publish = format!("127.0.0.1:{port}:80");
    let error = d.fails(125, &["run", "-d", "-p", &publish, "busybox", "sleep", "9"]);
    assert!(error.contains(&port.to_string()), "{error}");
    drop(listener);
    d.ok(&["run", "-d", "-p", &publish, "busybox", "sleep", "9"]);
}

pub fn a_network_in_use_is_kept(d: &Daemon) {
    d.ok(&["network", "create", "--label", "a=b", "mine"]);
    d.ok(&["run", "-d", "--name", "on", "--network", "mine", "busybox", "sleep", "99"]);
    let refused = d.fails(1, &["network", "rm", "mine"]);
    assert!(refused.contains("active endpoints"), "{refused}");
    let listed = d.ok(&["network", "ls", "--format", "{{.Name}}"]);
    for name in ["bridge", "host", "none", "mine"] {
        assert!(listed.lines().any(|line| line == name), "{name} in {listed}");
    }
    d.ok(&["rm", "-f", "on"]);
    d.ok(&["network", "rm", "mine"]);
    d.fails(1, &["network", "inspect", "mine"]);
}

pub fn a_container_shares_another_s_network(d: &Daemon) {
    d.ok(&["run", "-d", "--name", "server", "busybox", "sh", "-c", SITE]);
    let script =
        "for i in $(seq 50); do wget -qO- http://127.0.0.1/ && exit; usleep 100000; done; exit 1";
    d.ok(&["run", "--rm", "--network", "container:server", "busybox", "sh", "-c", script]);
}

pub fn the_world_outside_sees_the_host(d: &Daemon) {
    // The host itself stands for the world: a server on its own address.
    let Some(host) = own_address() else { return };
    let listener = std::net::TcpListener::bind(format!("{host}:0")).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        from
    });
    let heard = d.ok(&["run", "--rm", "busybox", "nc", "-w", "5", &host, &port]);
    assert_eq!(heard, "hello");
    answering.join().unwrap();
}
