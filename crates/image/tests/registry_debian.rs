//! Against the registry that Debian ships: what is pushed is pulled again, with and
//! without password and TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/debian.rs"]
mod debian;
#[path = "support/fake.rs"]
#[allow(dead_code, reason = "the images of the tests can be put there too")]
mod fake;
#[path = "support/images.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod images;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use capsa_image::registry::{Access, Client, Credentials, Failure, RegistryConfig, Sent};
use capsa_image::{Source, copy};
use capsa_oci::Reference;
use debian::Debian;
use images::{Sample, client, noise, password, pull, quick, reference, registry_error, sample};

fn push(client: &Client, to: &Reference, access: &Access, sample: &Sample) -> Vec<Sent> {
    push_from(client, to, access, sample, Vec::new())
}

fn push_from(
    client: &Client,
    to: &Reference,
    access: &Access,
    sample: &Sample,
    from: Vec<String>,
) -> Vec<Sent> {
    let sent = Mutex::new(Vec::new());
    let note = |_: &capsa_image::Layer, what: &Sent| sent.lock().unwrap().push(what.clone());
    let sink = client.push(to, access, from, &note).unwrap();
    copy(sample, &sample.images().unwrap(), &sink, &|_, _| {}).unwrap();
    drop(sink);
    sent.into_inner().unwrap()
}

fn round_trip(client: &Client, name: &Reference, access: &Access) {
    let sample = sample(&[noise(1, 3 << 20), noise(2, 1000), noise(3, 0)]);
    let sent = push(client, name, access, &sample);
    assert_eq!(sent, [Sent::Pushed, Sent::Pushed, Sent::Pushed]);
    assert_eq!(push(client, name, access, &sample), [Sent::Present, Sent::Present, Sent::Present]);
    let shelf = pull(client, name, access).unwrap();
    let mut plain = shelf.plain();
    plain.sort();
    let mut wanted = sample.plain.clone();
    wanted.sort();
    assert!(plain == wanted, "the layers came back changed");
    let image = shelf.images.lock().unwrap().remove(0);
    assert_eq!((image.manifest, image.config), (sample.manifest, sample.config));
    assert_eq!(image.names, [name.clone().with_default_tag()]);
    assert_eq!(client.digest(name, access).unwrap(), image.manifest_digest);
    let tags = client.tags(name, access).unwrap();
    assert_eq!(tags, [name.clone().with_default_tag()]);
}

#[test]
fn what_is_pushed_comes_back_unchanged() {
    let registry = Debian::plain();
    round_trip(&client(), &reference(&registry.host(), "a/b"), &Access::default());
}

#[test]
fn a_blob_can_be_sent_in_pieces() {
    let registry = Debian::plain();
    let client = Client::new(RegistryConfig { chunk_bytes: Some(1 << 20), ..quick() });
    round_trip(&client, &reference(&registry.host(), "pieces:v1"), &Access::default());
}

#[test]
fn layers_are_mounted_from_another_repository() {
    let registry = Debian::plain();
    let (client, access) = (client(), Access::default());
    let sample = sample(&[noise(4, 5000)]);
    push(&client, &reference(&registry.host(), "old"), &access, &sample);
    let to = reference(&registry.host(), "new");
    let from = vec!["none".to_owned(), "old".to_owned()];
    let sent = push_from(&client, &to, &access, &sample, from);
    assert_eq!(sent, [Sent::Mounted("old".to_owned())]);
    assert_eq!(pull(&client, &to, &access).unwrap().plain(), sample.plain);
}

#[test]
fn what_is_not_there_is_not_found() {
    let registry = Debian::plain();
    let (client, access) = (client(), Access::default());
    let error = pull(&client, &reference(&registry.host(), "no/such:tag"), &access).err().unwrap();
    let error = registry_error(error);
    assert_eq!((error.failure, error.status), (Failure::NotFound, Some(404)));
    assert_eq!(error.code.as_deref(), Some("MANIFEST_UNKNOWN"));
    let text = error.to_string();
    assert!(text.contains("no/such") && text.contains(&registry.host()), "{text}");
    let error = client.tags(&reference(&registry.host(), "no/such"), &access).unwrap_err();
    assert_eq!(registry_error(error).code.as_deref(), Some("NAME_UNKNOWN"));
}

#[test]
fn a_password_is_asked_for_and_checked() {
    let registry = Debian::with_password();
    let name = reference(&registry.host(), "private:1");
    round_trip(&client(), &name, &password("me", "secret"));
    for who in [Access::default(), password("me", "wrong")] {
        let error = registry_error(client().pull(&name, &who, None).unwrap_err());
        assert_eq!((error.failure, error.status), (Failure::Unauthorized, Some(401)), "{error}");
    }
    let login = |secret: &str| {
        let (username, password) = ("me".to_owned(), secret.to_owned());
        let who = Credentials::Password { username, password };
        client().login(&registry.host(), &who, &Default::default())
    };
    assert_eq!(login("secret").unwrap(), None);
    assert_eq!(registry_error(login("wrong").unwrap_err()).failure, Failure::Unauthorized);
}

/// A CA, and a certificate of it for 127.0.0.1.
fn make_certificates(dir: &std::path::Path) {
    let openssl = |args: &str| {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:registry.test\n").unwrap();
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {ec} -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca"));
    openssl(&format!("req {ec} -keyout tls.key -out tls.csr -subj /CN=registry.test"));
    openssl(
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out tls.crt",
    );
}

fn with_tls(extra: &str) -> Debian {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let root = dir.path().display().to_string();
    let http = format!(
        "  tls:\n    certificate: {root}/tls.crt\n    key: {root}/tls.key\n{}",
        extra.replace("ROOT", &root)
    );
    Debian::start(dir, &http, "")
}

/// Settings under which `registry.test` is this machine.
fn named(registry: &Debian) -> (RegistryConfig, Reference) {
    let hosts = registry.dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 registry.test\n").unwrap();
    let config = RegistryConfig { hosts, certs_d: registry.dir.path().join("certs.d"), ..quick() };
    (config, reference(&format!("registry.test:{}", registry.port()), "a"))
}

#[test]
fn tls_is_checked_against_the_hosts_own_authority() {
    let registry = with_tls("");
    let (config, name) = named(&registry);
    let access = Access::default();
    let error = Client::new(config.clone()).pull(&name, &access, None).unwrap_err();
    let error = registry_error(error);
    assert_eq!(error.failure, Failure::Unreachable);
    assert!(error.to_string().contains("certificate"), "{error}");

    let dir = config.certs_d.join(name.domain());
    fs::create_dir_all(&dir).unwrap();
    fs::copy(registry.dir.path().join("ca.crt"), dir.join("ca.crt")).unwrap();
    round_trip(&Client::new(config.clone()), &name, &access);

    fs::remove_dir_all(&dir).unwrap();
    let bundle =
        RegistryConfig { ca_bundle: Some(registry.dir.path().join("ca.crt")), ..config.clone() };
    pull(&Client::new(bundle), &name, &access).unwrap();
    let insecure = RegistryConfig { insecure: vec![name.domain().to_owned()], ..config };
    pull(&Client::new(insecure), &name, &access).unwrap();
}

#[test]
fn a_client_certificate_is_shown_where_it_is_configured() {
    let registry = with_tls("    clientcas:\n      - ROOT/ca.crt\n");
    let (config, name) = named(&registry);
    let (here, dir) = (registry.dir.path(), config.certs_d.join(name.domain()));
    fs::create_dir_all(&dir).unwrap();
    fs::copy(here.join("ca.crt"), dir.join("ca.crt")).unwrap();
    let access = Access::default();
    assert!(Client::new(config.clone()).pull(&name, &access, None).is_err());
    fs::copy(here.join("tls.crt"), dir.join("client.cert")).unwrap();
    fs::copy(here.join("ca.key"), dir.join("client.key")).unwrap();
    let error = Client::new(config.clone()).pull(&name, &access, None).unwrap_err();
    assert!(error.to_string().contains("client.cert"), "{error}");
    fs::copy(here.join("tls.key"), dir.join("client.key")).unwrap();
    round_trip(&Client::new(config), &name, &access);
}

/// Takes one `CONNECT` after another to this machine, whatever the name; what was asked.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || tunnel(client.unwrap(), &log));
        }
    });
    (address, asked)
}

fn tunnel(client: TcpStream, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            return;
        }
    }
    let port = head.split_whitespace().nth(1).unwrap().rsplit(':').next().unwrap().to_owned();
    log.lock().unwrap().push(head);
    let server = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    (&client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
    let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
    let _ = std::io::copy(&mut reader, &mut &server);
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_proxy_carries_what_is_not_excepted() {
    let registry = with_tls("");
    let (config, name) = named(&registry);
    let (address, asked) = proxy();
    let config = RegistryConfig {
        ca_bundle: Some(registry.dir.path().join("ca.crt")),
        proxy: Some(format!("http://me:pw@{address}")),
        ..config
    };
    let direct = RegistryConfig { no_proxy: vec!["registry.test".to_owned()], ..config.clone() };
    round_trip(&Client::new(direct), &name, &Access::default());
    assert!(asked.lock().unwrap().is_empty());
    // Through it, the name is the proxy's to resolve.
    let proxied = RegistryConfig { hosts: "/nonexistent".into(), ..config };
    pull(&Client::new(proxied), &name, &Access::default()).unwrap();
    let head = asked.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with(&format!("connect {} ", name.domain())), "{head}");
    assert!(head.contains("proxy-authorization: basic"), "{head}");
}

/// A way to the registry that breaks the first connections after so many bytes, those of
/// the client and those for it counted alike; how often it did.
fn breaking(port: u16, times: usize, after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&broken);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let count = Arc::clone(&count);
                std::thread::spawn(move || relay(&from, &to, &count, times, after));
            }
        }
    });
    (address, broken)
}

fn relay(
    mut from: &TcpStream,
    mut to: &TcpStream,
    broken: &AtomicUsize,
    times: usize,
    after: usize,
) {
    let (mut seen, mut buffer) = (0, vec![0; 16 << 10]);
    while let Ok(n) = from.read(&mut buffer) {
        seen += n;
        let may_break = |count: usize| (count < times).then_some(count + 1);
        let order = Ordering::SeqCst;
        let breaks = seen > after && broken.fetch_update(order, order, may_break).is_ok();
        if n == 0 || breaks || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn broken_connections_don_t_break_a_round_trip() {
    let registry = Debian::plain();
    let access = Access::default();
    let sample = sample(&[noise(1, 3 << 20)]);
    for chunk_bytes in [None, Some(700_000)] {
        let client = Client::new(RegistryConfig { chunk_bytes, ..quick() });
        let repository = format!("r{}", chunk_bytes.is_some());
        let (address, broken) = breaking(registry.port(), 2, 1 << 20);
        push(&client, &reference(&address, &repository), &access, &sample);
        assert_eq!(broken.load(Ordering::SeqCst), 2);
        let (address, broken) = breaking(registry.port(), 2, 1 << 20);
        let shelf = pull(&client, &reference(&address, &repository), &access).unwrap();
        assert!(shelf.plain() == sample.plain);
        assert_eq!(broken.load(Ordering::SeqCst), 2);
    }
}
