//! From a registry's name to its address: the hosts file, then name servers that are
//! dead, slow, long-winded or wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod fake;
#[path = "support/images.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod images;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use capsa_image::registry::{Access, Client, Failure, RegistryConfig};
use capsa_oci::Reference;
use fake::Fake;
use images::{quick, reference, registry_error, sample};
use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// How a name server behaves.
#[derive(Clone, Copy)]
enum Server {
    /// Knows `registry.test` behind an alias.
    Good,
    /// Answers over UDP that the answer is too long for it.
    Truncating,
    /// Sends rubbish.
    Babbling,
    /// Can't at the moment.
    Failing,
}

/// A server on loopback that runs as long as the test, and the names it was asked for.
fn start(server: Server) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = udp.recv_from(&mut buffer) {
            let question = &buffer[..n];
            let reply = match server {
                Server::Babbling => question[..2].repeat(20),
                _ => answer(question, server, &log),
            };
            udp.send_to(&reply, from).unwrap();
        }
    });
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            if !matches!(server, Server::Truncating) {
                continue;
            }
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut question).unwrap();
            let reply = answer(&question, Server::Good, &log);
            let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &reply].concat()).unwrap();
        }
    });
    (address, asked)
}

fn answer(question: &[u8], server: Server, log: &Mutex<Vec<String>>) -> Vec<u8> {
    let asked = Packet::parse(question).unwrap();
    let name = asked.questions[0].qname.to_string();
    log.lock().unwrap().push(name.clone());
    let mut reply = Packet::new_reply(asked.id());
    reply.questions.push(asked.questions[0].clone());
    match server {
        Server::Truncating => reply.set_flags(PacketFlag::TRUNCATION),
        Server::Failing => *reply.rcode_mut() = RCODE::ServerFailure,
        _ if name != "registry.test" => *reply.rcode_mut() = RCODE::NameError,
        _ => {
            let record = |name, rdata| ResourceRecord::new(name, CLASS::IN, 60, rdata);
            let (own, other) = (Name::new("registry.test").unwrap(), Name::new("other").unwrap());
            reply.answers.push(record(own, RData::CNAME(CNAME(other.clone()))));
            if asked.questions[0].qtype == QTYPE::TYPE(TYPE::A) {
                let address = A { address: Ipv4Addr::LOCALHOST.into() };
                reply.answers.push(record(other, RData::A(address)));
            }
        }
    }
    reply.build_bytes_vec().unwrap()
}

struct World {
    dir: tempfile::TempDir,
    fake: Fake,
}

impl World {
    fn new() -> Self {
        let fake = Fake::good();
        sample(&[]).put(&fake, "app", "latest");
        Self { dir: tempfile::tempdir().unwrap(), fake }
    }

    fn name(&self, host: &str) -> Reference {
        let port = self.fake.host().rsplit(':').next().unwrap().to_owned();
        reference(&format!("{host}:{port}"), "app")
    }

    fn client(&self, name: &Reference, resolv_conf: &str, hosts: &str) -> Client {
        let (conf_path, hosts_path) =
            (self.dir.path().join("resolv.conf"), self.dir.path().join("hosts"));
        fs::write(&conf_path, resolv_conf).unwrap();
        fs::write(&hosts_path, hosts).unwrap();
        Client::new(RegistryConfig {
            insecure: vec![name.domain().to_owned()],
            hosts: hosts_path,
            resolv_conf: conf_path,
            ..quick()
        })
    }

    fn pull(&self, host: &str, resolv_conf: &str, hosts: &str) -> capsa_image::Result<()> {
        let name = self.name(host);
        self.client(&name, resolv_conf, hosts).pull(&name, &Access::default(), None).map(drop)
    }
}

#[test]
fn the_hosts_file_needs_no_server() {
    let world = World::new();
    let (server, asked) = start(Server::Good);
    let conf = format!("nameserver {server}\n");
    world.pull("registry.test", &conf, "127.0.0.1 x registry.test\n").unwrap();
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_server_that_fails_is_passed_over() {
    let world = World::new();
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for bad in [dead, start(Server::Babbling).0, start(Server::Failing).0] {
        let (good, asked) = start(Server::Good);
        let conf = format!("nameserver {bad}\nnameserver {good}\n");
        world.pull("registry.test", &conf, "").unwrap();
        assert!(!asked.lock().unwrap().is_empty());
    }
}

#[test]
fn a_long_answer_comes_over_tcp() {
    let world = World::new();
    let (server, _) = start(Server::Truncating);
    world.pull("registry.test", &format!("nameserver {server}\n"), "").unwrap();
}

#[test]
fn a_short_name_is_looked_for_in_the_search_list() {
    let world = World::new();
    let (server, asked) = start(Server::Good);
    let conf = format!("nameserver {server}\nsearch lan test\noptions ndots:2\n");
    world.pull("registry", &conf, "").unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked[..2], ["registry.lan".to_owned(), "registry.test".to_owned()]);
}

#[test]
fn a_name_that_does_not_exist_is_said_to_have_no_address() {
    let world = World::new();
    let (server, _) = start(Server::Good);
    let error = world.pull("nowhere.test", &format!("nameserver {server}\n"), "").unwrap_err();
    let error = registry_error(error);
    assert_eq!(error.failure, Failure::Unreachable);
    assert_eq!(error.message, "the name has no address");
}
