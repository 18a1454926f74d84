//! What a registry answers: indexes, manifests and configs whose bytes, digests and headers
//! may be anything. What is pulled was there under the digest that names it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use capsa_image::Source;
use capsa_image::registry::{Access, Client, RegistryConfig, Retries, Timeouts};
use capsa_oci::{Digest, Platform, Reference, media_type as mt};
use serde_json::Value;

use super::{Target, images};
use crate::random::Random;
use crate::text;

/// Whole answers by the last part of the path asked for.
type Answers = Arc<Mutex<HashMap<String, Vec<u8>>>>;

pub(crate) struct Registry {
    answers: Answers,
    client: Client,
    reference: Reference,
}

impl Registry {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let reference = Reference::parse(&format!("{}/x:1", listener.local_addr()?))?;
        let answers = Answers::default();
        let all = Arc::clone(&answers);
        std::thread::Builder::new().spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = Arc::clone(&all);
                // A client whose connection isn't taken says so.
                let _ = std::thread::Builder::new().spawn(move || serve(&stream, &answers));
            }
        })?;
        let once = Retries { attempts: 1, ..Retries::default() };
        let timeouts = Timeouts { stall: Duration::from_secs(5), ..Timeouts::default() };
        let config =
            RegistryConfig { retries: once, timeouts, proxy: None, ..RegistryConfig::default() };
        Ok(Self { answers, client: Client::new(config), reference })
    }
}

impl Target for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn run(&mut self, random: &mut Random) -> anyhow::Result<bool> {
        let documents = documents(random);
        let mut answers = HashMap::new();
        for (name, kind, bytes) in &documents {
            answers.insert(name.clone(), answer(random, kind, bytes));
        }
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        let platform = Platform {
            architecture: (*random.pick(&["amd64", "arm64", "arm"])).to_owned(),
            os: "linux".to_owned(),
            ..Platform::default()
        };
        let platform = (!random.once_in(4)).then_some(&platform);
        let pulled = self.client.pull(&self.reference, &Access::default(), platform);
        let Ok(source) = pulled else { return Ok(false) };
        for image in source.images()? {
            for (digest, bytes) in
                [(&image.id, &image.config), (&image.manifest_digest, &image.manifest)]
            {
                ensure!(*digest == Digest::sha256(bytes), "an image that is not its digest");
            }
            let served = documents.iter().any(|(name, _, _)| name == image.id.as_str());
            ensure!(served, "a config that was never there");
        }
        Ok(true)
    }
}

/// Name, kind and bytes of what there is: the tag leads to a manifest or an index.
fn documents(random: &mut Random) -> Vec<(String, String, Vec<u8>)> {
    let named =
        |kind: &str, bytes: Vec<u8>| (Digest::sha256(&bytes).to_string(), kind.to_owned(), bytes);
    let mut all = Vec::new();
    let mut listed = Vec::new();
    for number in 0..1 + random.below(2) {
        let layers = [vec![b'l', number.to_le_bytes()[0]]];
        let config = bent(random, images::config(&layers));
        let manifest = images::manifest(random, &config, &layers);
        let kind = manifest["mediaType"].as_str().unwrap_or_default().to_owned();
        let manifest = bent(random, manifest);
        all.push(named("application/octet-stream", config));
        all.push(named(&kind, manifest.clone()));
        listed.push((kind, manifest));
    }
    for _ in 0..random.below(3) {
        let entries: Vec<_> =
            listed.iter().map(|(kind, bytes)| (kind.as_str(), bytes.clone())).collect();
        let index = images::index(random, &entries);
        let index = bent(random, index);
        all.push(named(mt::OCI_INDEX, index.clone()));
        listed.push((mt::OCI_INDEX.to_owned(), index));
    }
    let (kind, top) = listed.pop().unwrap_or_default();
    all.push(("1".to_owned(), kind, top));
    if random.once_in(4) {
        // Not what its name says any more.
        let at = random.below(all.len());
        all[at].2.push(b' ');
    }
    all
}

fn bent(random: &mut Random, value: Value) -> Vec<u8> {
    if random.once_in(3) { text::document(random, value) } else { value.to_string().into_bytes() }
}

/// An answer with its headers, sometimes bent as a whole.
fn answer(random: &mut Random, kind: &str, bytes: &[u8]) -> Vec<u8> {
    let kind = match random.below(6) {
        0 => "text/plain",
        1 => "application/vnd.docker.distribution.manifest.v1+json",
        2 => mt::OCI_INDEX,
        _ => kind,
    };
    let digest = match random.below(6) {
        0 => format!("Docker-Content-Digest: {}\r\n", Digest::sha256(b"other")),
        1 => "Docker-Content-Digest: sha512:0\r\n".to_owned(),
        2 => String::new(),
        _ => format!("Docker-Content-Digest: {}\r\n", Digest::sha256(bytes)),
    };
    let status = if random.once_in(20) {
        *random.pick(&["401 No", "500 x", "307 x", "206 x"])
    } else {
        "200 OK"
    };
    let len = bytes.len();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{digest}Content-Length: {len}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(bytes);
    if random.once_in(8) {
        text::bend(random, &mut answer);
    }
    answer
}

/// One answer on each connection, because a bent one may end anywhere.
fn serve(stream: &TcpStream, answers: &Answers) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else {
        return;
    };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let name = path.rsplit('/').next().unwrap_or_default();
    let found = answers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
    let found = found.unwrap_or_else(|| match name {
        "" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".to_vec(),
        _ => b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
    });
    let mut stream = stream;
    // The client may have gone.
    let _ = stream.write_all(&found);
}
