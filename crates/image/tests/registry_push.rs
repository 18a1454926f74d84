//! Pushing to a registry that breaks off, forgets, or is busy, and what is not sent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod fake;
#[path = "support/images.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod images;

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use capsa_image::registry::{Access, Client, Failure, RegistryConfig, Sent};
use capsa_image::{Error, Image, Layer, Result, Source, copy};
use capsa_oci::{Descriptor, Digest, media_type};
use fake::{Action, Asked, Fake};
use images::{Sample, client, noise, password, quick, reference, registry_error, sample};

fn push(client: &Client, fake: &Fake, source: &dyn Source) -> Result<Vec<Sent>> {
    push_from(client, fake, source, &[])
}

fn push_from(
    client: &Client,
    fake: &Fake,
    source: &dyn Source,
    from: &[&str],
) -> Result<Vec<Sent>> {
    let sent = Mutex::new(Vec::new());
    let note = |_: &Layer, what: &Sent| sent.lock().unwrap().push(what.clone());
    let from = from.iter().map(|from| (*from).to_owned()).collect();
    let name = reference(&fake.host(), "app:v1");
    let sink = client.push(&name, &Access::default(), from, &note)?;
    copy(source, &source.images()?, &sink, &|_, _| {})?;
    drop(sink);
    Ok(sent.into_inner().unwrap())
}

fn assert_arrived(fake: &Fake, sample: &Sample) {
    for blob in sample.blobs.iter().chain([&sample.config]) {
        let kept = fake.blob("app", &Digest::sha256(blob));
        assert!(kept.as_ref() == Some(blob), "a blob of {} bytes is missing", blob.len());
    }
    let (kind, bytes) = fake.manifest("app", "v1").unwrap();
    assert_eq!((kind.as_str(), bytes), (media_type::OCI_MANIFEST, sample.manifest.clone()));
}

fn is_first_upload(asked: &Asked, before: usize) -> bool {
    let bytes = asked.header("content-length").map_or(0, |n| n.parse::<usize>().unwrap());
    before == 0 && bytes > 100_000 && matches!(asked.method.as_str(), "PUT" | "PATCH")
}

#[test]
fn an_upload_goes_on_where_its_connection_broke() {
    let fake = Fake::new(|asked, before| {
        if is_first_upload(asked, before) { Action::CutUpload(100_000) } else { Action::Serve }
    });
    let sample = sample(&[noise(1, 1 << 20)]);
    assert_eq!(push(&client(), &fake, &sample).unwrap(), [Sent::Pushed]);
    assert_arrived(&fake, &sample);
    let rest = &fake.asked("PATCH", "/uploads/")[0];
    assert!(rest.header("content-range").unwrap().starts_with("100000-"));
}

#[test]
fn an_upload_that_the_registry_forgot_begins_anew() {
    let was_cut = AtomicBool::new(false);
    let fake = Fake::new(move |asked, before| match asked.method.as_str() {
        "PUT" if is_first_upload(asked, before) && !was_cut.swap(true, Ordering::SeqCst) => {
            Action::CutUpload(100_000)
        }
        "GET" if asked.path.contains("/uploads/") => Action::Reply(404, vec![], Vec::new()),
        _ => Action::Serve,
    });
    let sample = sample(&[noise(2, 1 << 20)]);
    push(&client(), &fake, &sample).unwrap();
    assert_arrived(&fake, &sample);
    // The layer twice, the config once.
    assert_eq!(fake.asked("POST", "/uploads/").len(), 3);
}

#[test]
fn a_blob_in_pieces_survives_a_broken_piece() {
    let fake = Fake::new(|asked, before| {
        if asked.method == "PATCH" && before == 1 {
            return Action::CutUpload(150_000);
        }
        Action::Serve
    });
    let client = Client::new(RegistryConfig { chunk_bytes: Some(300_000), ..quick() });
    let sample = sample(&[noise(3, 1 << 20)]);
    push(&client, &fake, &sample).unwrap();
    assert_arrived(&fake, &sample);
    let pieces = fake.asked("PATCH", "/uploads/");
    let begins: Vec<_> = pieces
        .iter()
        .map(|p| p.header("content-range").unwrap().split('-').next().unwrap().to_owned())
        .collect();
    assert_eq!(begins, ["0", "300000", "450000", "750000"]);
}

#[test]
fn a_busy_registry_gets_the_upload_again() {
    let fake = Fake::new(|asked, before| match (asked.method.as_str(), before) {
        ("POST" | "PUT" | "HEAD", 0) => Action::Reply(503, vec![], Vec::new()),
        _ => Action::Serve,
    });
    let sample = sample(&[noise(4, 10_000), noise(5, 20_000)]);
    push(&client(), &fake, &sample).unwrap();
    assert_arrived(&fake, &sample);
}

#[test]
fn what_the_registry_has_is_not_sent() {
    let fake = Fake::good();
    let sample = sample(&[noise(6, 1000), noise(7, 1000)]);
    fake.put_blob("app", &sample.blobs[0]);
    fake.put_blob("base", &sample.blobs[1]);
    let sent = push_from(&client(), &fake, &sample, &["other", "base"]).unwrap();
    assert!(sent.contains(&Sent::Present) && sent.contains(&Sent::Mounted("base".to_owned())));
    assert_arrived(&fake, &sample);
    let bodies = fake.asked("PUT", "/uploads/");
    assert_eq!(bodies.len(), 1, "only the config is sent");
}

#[test]
fn a_mount_that_fails_becomes_the_upload() {
    let fake = Fake::good();
    let sample = sample(&[noise(8, 1000)]);
    assert_eq!(push_from(&client(), &fake, &sample, &["other"]).unwrap(), [Sent::Pushed]);
    assert_arrived(&fake, &sample);
    assert_eq!(fake.asked("POST", "/uploads/").len(), 2);
}

#[test]
fn an_upload_to_another_server_gets_no_authorization() {
    let storage = Fake::good();
    let target = storage.host();
    let fake = Fake::new(move |asked, _| {
        if asked.header("authorization").is_none() {
            let challenge = "Basic realm=\"x\"".to_owned();
            return Action::Reply(401, vec![("www-authenticate", challenge)], Vec::new());
        }
        if asked.method == "POST" {
            let to = format!("http://{target}/v2/app/blobs/uploads/x?sig=1");
            return Action::Reply(202, vec![("location", to)], Vec::new());
        }
        Action::Serve
    });
    let sample = sample(&[noise(9, 1000)]);
    let name = reference(&fake.host(), "app:v1");
    let access = password("me", "secret");
    let sink = client().push(&name, &access, Vec::new(), &|_, _| {}).unwrap();
    // The storage knows no such upload: only where the requests went is of interest.
    let error = copy(&sample, &sample.images().unwrap(), &sink, &|_, _| {}).unwrap_err();
    assert_eq!(registry_error(error).failure, Failure::NotFound);
    assert!(!storage.log().is_empty());
    assert!(storage.log().iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn a_refused_push_says_why() {
    let body = br#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
    let fake = Fake::new(|asked, _| match asked.method.as_str() {
        "POST" => Action::Reply(403, vec![], body.to_vec()),
        _ => Action::Serve,
    });
    let error = registry_error(push(&client(), &fake, &sample(&[noise(1, 10)])).unwrap_err());
    assert_eq!((error.failure, error.code.as_deref()), (Failure::Denied, Some("DENIED")));
}

/// Its layers end too early.
struct Torn(Sample);

impl Source for Torn {
    fn images(&self) -> Result<Vec<Image>> {
        self.0.images()
    }

    fn open(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.0.open(blob, offset)?.take(blob.size / 2)))
    }
}

#[test]
fn a_source_that_breaks_is_not_the_registrys_fault() {
    let fake = Fake::good();
    let error = push(&client(), &fake, &Torn(sample(&[noise(1, 100_000)]))).unwrap_err();
    assert!(matches!(error, Error::Read(_)), "{error}");
    assert!(fake.manifest("app", "v1").is_none());
}
