//! A registry for the tests that does what it is told: it breaks off, stalls, lies,
//! asks for tokens, and remembers every request. One thread a connection, `std` only.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use capsa_oci::{Digest, media_type};

/// Nobody waits longer for a client that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request as it came, without its body.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// What to do with a request.
pub enum Action {
    /// What a good registry does.
    Serve,
    /// This status, with these headers and this body.
    Reply(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// As a good registry, but only so many bytes of the body, then hang up.
    Cut(usize),
    /// As a good registry, but after so many bytes of the body nothing more.
    Stall(usize),
    /// As a good registry that knows no ranges.
    Whole,
    /// These bytes, whatever they mean, then hang up.
    Raw(Vec<u8>),
    /// Take so many bytes of what is sent, then hang up.
    CutUpload(usize),
}

type Hook = dyn Fn(&Asked, usize) -> Action + Send + Sync;

#[derive(Default)]
struct Kept {
    /// By `repository@digest`.
    blobs: HashMap<String, Vec<u8>>,
    /// By `repository:reference`.
    manifests: HashMap<String, (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    log: Vec<Asked>,
    connections: usize,
}

struct Shared {
    kept: Mutex<Kept>,
    hook: Box<Hook>,
    stop: AtomicBool,
}

/// Listens until it is dropped.
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// One that behaves.
    pub fn good() -> Self {
        Self::new(|_, _| Action::Serve)
    }

    /// `hook` is asked before each request, and told how many with the same method and
    /// path (without query) came before.
    pub fn new(hook: impl Fn(&Asked, usize) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            kept: Mutex::default(),
            hook: Box::new(hook),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || serve(&shared, stream.unwrap()));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.put_blob_as(repository, &digest, bytes);
        digest
    }

    pub fn put_blob_as(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        let key = format!("{repository}@{digest}");
        self.shared.kept.lock().unwrap().blobs.insert(key, bytes.to_vec());
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let mut kept = self.shared.kept.lock().unwrap();
        for name in [tag, digest.as_str()] {
            let value = (kind.to_owned(), bytes.to_vec());
            kept.manifests.insert(format!("{repository}:{name}"), value);
        }
        digest
    }

    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        self.shared.kept.lock().unwrap().blobs.get(&format!("{repository}@{digest}")).cloned()
    }

    pub fn manifest(&self, repository: &str, tag: &str) -> Option<(String, Vec<u8>)> {
        self.shared.kept.lock().unwrap().manifests.get(&format!("{repository}:{tag}")).cloned()
    }

    /// Requests whose path has `part`.
    pub fn asked(&self, method: &str, part: &str) -> Vec<Asked> {
        let kept = self.shared.kept.lock().unwrap();
        kept.log.iter().filter(|a| a.method == method && a.path.contains(part)).cloned().collect()
    }

    /// Connections on which something was asked.
    pub fn connections(&self) -> usize {
        self.shared.kept.lock().unwrap().connections
    }

    pub fn log(&self) -> Vec<Asked> {
        self.shared.kept.lock().unwrap().log.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn target(&self) -> &str {
        self.path.split('?').next().unwrap()
    }

    fn query(&self, key: &str) -> Option<String> {
        let query = self.path.split_once('?')?.1;
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")))?;
        Some(pair.replace("%2F", "/"))
    }
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn serve(shared: &Shared, stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut first = [0];
    // TLS is not spoken here.
    if !matches!(stream.peek(&mut first), Ok(1)) || first == [0x16] {
        return;
    }
    shared.kept.lock().unwrap().connections += 1;
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(asked) = read_head(&mut reader) {
        let before = {
            let mut kept = shared.kept.lock().unwrap();
            let same = |a: &&Asked| a.method == asked.method && a.target() == asked.target();
            let before = kept.log.iter().filter(same).count();
            kept.log.push(asked.clone());
            before
        };
        if answer(shared, &asked, before, &mut reader, &mut stream).is_none() {
            return;
        }
    }
}

/// None when the connection is to be closed.
fn answer(
    shared: &Shared,
    asked: &Asked,
    before: usize,
    reader: &mut impl BufRead,
    stream: &mut TcpStream,
) -> Option<()> {
    let action = (shared.hook)(asked, before);
    let length = asked.header("content-length").map_or(0, |n| n.parse().unwrap());
    let take = if let Action::CutUpload(bytes) = action { bytes.min(length) } else { length };
    let mut body = Vec::new();
    let whole = reader.by_ref().take(take as u64).read_to_end(&mut body).is_ok();
    let whole = whole && body.len() == length;
    let plain = Asked {
        headers: asked.headers.iter().filter(|(k, _)| *k != "range").map(own).collect(),
        ..asked.clone()
    };
    let good = |asked| good(&mut shared.kept.lock().unwrap(), asked, &body, whole);
    let (reply, sent, stalls) = match action {
        Action::Serve => (good(asked), None, false),
        Action::Whole => (good(&plain), None, false),
        Action::Cut(bytes) => (good(asked), Some(bytes), false),
        Action::Stall(bytes) => (good(asked), Some(bytes), true),
        Action::Reply(status, headers, body) => {
            let headers = headers.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            (Reply { status, headers, body }, None, false)
        }
        Action::Raw(bytes) => {
            stream.write_all(&bytes).ok()?;
            return None;
        }
        Action::CutUpload(_) => {
            good(asked);
            return None;
        }
    };
    write_reply(stream, asked, &reply, sent).ok()?;
    if stalls {
        // Until the client has had enough.
        let _ = reader.read(&mut [0]);
    }
    (sent.is_none() && whole).then_some(())
}

fn own((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn write_reply(
    stream: &mut TcpStream,
    asked: &Asked,
    reply: &Reply,
    sent: Option<usize>,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = reply.body.len();
    head.push_str(&format!("content-length: {length}\r\n\r\n"));
    stream.write_all(head.as_bytes())?;
    if asked.method != "HEAD" {
        stream.write_all(&reply.body[..sent.unwrap_or(length).min(length)])?;
    }
    stream.flush()
}

fn read_head(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Asked { method, path, headers })
}

fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Reply { status, headers, body: body.to_vec() }
}

fn unknown(code: &str) -> Reply {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"no such thing"}}]}}"#);
    reply(404, &[], body.as_bytes())
}

fn good(kept: &mut Kept, asked: &Asked, body: &[u8], whole: bool) -> Reply {
    let Some(rest) = asked.target().strip_prefix("/v2/") else { return unknown("UNKNOWN") };
    if rest.is_empty() {
        return reply(200, &[], b"{}");
    }
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        return manifest(kept, asked, repository, name, body);
    }
    if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
        return upload(kept, asked, repository, id, body, whole);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        return blob(kept, asked, &format!("{repository}@{digest}"));
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return tags(kept, asked, repository);
    }
    unknown("UNSUPPORTED")
}

fn manifest(kept: &mut Kept, asked: &Asked, repository: &str, name: &str, body: &[u8]) -> Reply {
    let key = format!("{repository}:{name}");
    if asked.method == "PUT" {
        let kind = asked.header("content-type").unwrap().to_owned();
        let digest = Digest::sha256(body).to_string();
        kept.manifests.insert(key, (kind, body.to_vec()));
        return reply(201, &[("docker-content-digest", &digest)], b"");
    }
    let Some((kind, bytes)) = kept.manifests.get(&key) else {
        return unknown("MANIFEST_UNKNOWN");
    };
    assert!(asked.header("accept").unwrap().contains(media_type::OCI_INDEX));
    let digest = Digest::sha256(bytes).to_string();
    reply(200, &[("content-type", kind), ("docker-content-digest", &digest)], bytes)
}

fn blob(kept: &Kept, asked: &Asked, key: &str) -> Reply {
    let Some(bytes) = kept.blobs.get(key) else { return unknown("BLOB_UNKNOWN") };
    let from = asked.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-'));
    let Some(from) = from.map(|from| from.parse::<usize>().unwrap()) else {
        return reply(200, &[], bytes);
    };
    if from >= bytes.len() {
        return reply(416, &[], b"");
    }
    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    reply(206, &[("content-range", &range)], &bytes[from..])
}

fn tags(kept: &Kept, asked: &Asked, repository: &str) -> Reply {
    let mut tags: Vec<&str> = kept
        .manifests
        .keys()
        .filter_map(|key| key.strip_prefix(repository)?.strip_prefix(':'))
        .filter(|tag| !tag.contains(':'))
        .collect();
    tags.sort_unstable();
    let last = asked.query("last");
    let page: Vec<_> =
        tags.iter().filter(|tag| last.as_deref().is_none_or(|last| **tag > last)).take(2).collect();
    let body = format!(r#"{{"name":"{repository}","tags":{}}}"#, serde_json::json!(page));
    let link = page
        .last()
        .filter(|end| Some(**end) != tags.last())
        .map(|end| format!(r#"</v2/{repository}/tags/list?n=2&last={end}>; rel="next""#));
    let headers: Vec<_> = link.iter().map(|link| ("link", link.as_str())).collect();
    reply(200, &headers, body.as_bytes())
}

fn upload(
    kept: &mut Kept,
    asked: &Asked,
    repository: &str,
    id: &str,
    body: &[u8],
    whole: bool,
) -> Reply {
    if asked.method == "POST" {
        let from = asked.query("from").zip(asked.query("mount"));
        let found = from.and_then(|(from, digest)| {
            let bytes = kept.blobs.get(&format!("{from}@{digest}"))?.clone();
            Some((digest, bytes))
        });
        if let Some((digest, bytes)) = found {
            kept.blobs.insert(format!("{repository}@{digest}"), bytes);
            return reply(201, &[], b"");
        }
        let id = format!("u{}", kept.log.len());
        kept.uploads.insert(id.clone(), Vec::new());
        let location = format!("/v2/{repository}/blobs/uploads/{id}?state=1");
        return reply(202, &[("location", &location), ("range", "0-0")], b"");
    }
    let location = format!("/v2/{repository}/blobs/uploads/{id}?state=1");
    let Some(bytes) = kept.uploads.get_mut(id) else { return unknown("BLOB_UPLOAD_UNKNOWN") };
    if let Some(range) = asked.header("content-range") {
        let from: usize = range.split('-').next().unwrap().parse().unwrap();
        assert_eq!(from, bytes.len(), "a piece that does not follow");
    }
    bytes.extend_from_slice(body);
    let range = format!("0-{}", bytes.len().saturating_sub(1));
    if asked.method != "PUT" {
        let status = if asked.method == "GET" { 204 } else { 202 };
        return reply(status, &[("location", &location), ("range", &range)], b"");
    }
    if !whole {
        return reply(400, &[], b"");
    }
    let digest = asked.query("digest").unwrap();
    let bytes = kept.uploads.remove(id).unwrap();
    if Digest::sha256(&bytes).as_str() != digest {
        return reply(400, &[], br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
    }
    kept.blobs.insert(format!("{repository}@{digest}"), bytes);
    reply(201, &[("location", "/x")], b"")
}
