//! Pulling from a registry that breaks off, stalls, lies or is busy: what arrives is
//! right, or nothing does and the error says why.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod fake;
#[path = "support/images.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod images;

use std::io::Read;
use std::time::{Duration, Instant};

use capsa_image::registry::{Access, Client, Failure, RegistryConfig, Retries};
use capsa_image::{Error, Source};
use capsa_oci::{Digest, Platform, media_type};
use fake::{Action, Asked, Fake};
use images::{
    client, describe, noise, password, pull, quick, reference, registry_error, sample, sample_for,
};
use serde_json::json;

fn is_blob(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/blobs/sha256:")
}

/// A registry with `hook` before its blobs only, holding one image with one big layer.
fn with_layer(
    bytes: usize,
    hook: impl Fn(&Asked, usize) -> Action + Send + Sync + 'static,
) -> (Fake, images::Sample) {
    let sample = sample(&[noise(7, bytes)]);
    let layer = Digest::sha256(&sample.blobs[0]).to_string();
    let fake = Fake::new(move |asked, before| {
        if is_blob(asked) && asked.path.ends_with(&layer) {
            return hook(asked, before);
        }
        Action::Serve
    });
    sample.put(&fake, "app", "latest");
    (fake, sample)
}

fn ranges(fake: &Fake, sample: &images::Sample) -> Vec<Option<String>> {
    let layer = Digest::sha256(&sample.blobs[0]).to_string();
    let asked = fake.asked("GET", &layer);
    asked.iter().map(|asked| asked.header("range").map(str::to_owned)).collect()
}

#[test]
fn a_blob_goes_on_where_its_connection_broke() {
    let (fake, sample) = with_layer(1 << 20, |_, before| match before {
        0 => Action::Cut(400_000),
        1 => Action::Cut(300_000),
        _ => Action::Serve,
    });
    let shelf = pull(&client(), &reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert!(shelf.plain() == sample.plain);
    let wanted = [None, Some("bytes=400000-".to_owned()), Some("bytes=700000-".to_owned())];
    assert_eq!(ranges(&fake, &sample), wanted);
}

#[test]
fn a_stalled_connection_is_left_for_another() {
    let (fake, sample) = with_layer(600_000, |_, before| match before {
        0 => Action::Stall(200_000),
        _ => Action::Serve,
    });
    let mut config = quick();
    config.timeouts.stall = Duration::from_millis(300);
    let client = Client::new(config);
    let shelf = pull(&client, &reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert!(shelf.plain() == sample.plain);
    assert_eq!(ranges(&fake, &sample).len(), 2);
}

#[test]
fn a_server_without_ranges_sends_again_what_is_known() {
    let (fake, sample) = with_layer(600_000, |_, before| match before {
        0 => Action::Cut(200_000),
        _ => Action::Whole,
    });
    let shelf = pull(&client(), &reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert!(shelf.plain() == sample.plain);
}

#[test]
fn tries_without_progress_are_counted() {
    let (fake, sample) = with_layer(600_000, |_, before| match before {
        0 => Action::Cut(100_000),
        _ => Action::Cut(0),
    });
    let error = pull(&client(), &reference(&fake.host(), "app"), &Access::default());
    let error = registry_error(error.err().unwrap());
    assert_eq!(error.failure, Failure::Unreachable);
    assert!(error.to_string().contains("at byte 100000 of"), "{error}");
    assert_eq!(ranges(&fake, &sample).len(), 4);
}

#[test]
fn a_layer_shorter_or_longer_than_said_is_refused() {
    for change in [-1000_isize, 1000] {
        let sample = sample(&[noise(8, 50_000)]);
        let fake = Fake::good();
        sample.put(&fake, "app", "latest");
        let mut blob = sample.blobs[0].clone();
        blob.resize(blob.len().checked_add_signed(change).unwrap(), 0);
        fake.put_blob_as("app", &Digest::sha256(&sample.blobs[0]), &blob);
        let error = pull(&client(), &reference(&fake.host(), "app"), &Access::default());
        let error = registry_error(error.err().unwrap());
        assert_eq!(error.failure, Failure::Invalid);
        assert!(error.to_string().contains("the manifest says"), "{error}");
    }
}

#[test]
fn a_layer_with_other_bytes_is_refused() {
    let sample = sample(&[noise(9, 50_000)]);
    let fake = Fake::good();
    sample.put(&fake, "app", "latest");
    let other = sample_for("amd64", &[noise(10, 50_000)]);
    assert_eq!(other.blobs[0].len(), sample.blobs[0].len());
    fake.put_blob_as("app", &Digest::sha256(&sample.blobs[0]), &other.blobs[0]);
    let error = pull(&client(), &reference(&fake.host(), "app"), &Access::default());
    assert!(matches!(error.err().unwrap(), Error::Digest { .. }));
}

#[test]
fn a_manifest_or_config_with_other_bytes_is_refused() {
    let sample = sample(&[]);
    let fake = Fake::good();
    let digest = sample.put(&fake, "app", "latest");
    let lie = |asked: &Asked, _: usize| {
        if !asked.path.contains("/manifests/") {
            return Action::Serve;
        }
        let told = Digest::sha256(b"other").to_string();
        Action::Reply(200, vec![("docker-content-digest", told)], br#"{"layers":[]}"#.to_vec())
    };
    let liar = Fake::new(lie);
    let by_digest = |fake: &Fake| reference(&fake.host(), &format!("app@{digest}"));
    for name in [reference(&liar.host(), "app"), by_digest(&liar)] {
        let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
        assert_eq!(error.failure, Failure::Invalid);
        assert!(error.message.contains("it hashes to"), "{error}");
    }
    client().pull(&by_digest(&fake), &Access::default(), None).unwrap();
    let other = vec![b' '; sample.config.len()];
    fake.put_blob_as("app", &Digest::sha256(&sample.config), &other);
    let error = client().pull(&by_digest(&fake), &Access::default(), None).unwrap_err();
    assert!(registry_error(error).message.contains("it hashes to"));
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let fake = Fake::new(|asked, before| match before {
        0 if asked.path.contains("/manifests/") => {
            Action::Reply(429, vec![("retry-after", "1".to_owned())], Vec::new())
        }
        1 if asked.path.contains("/manifests/") => Action::Reply(503, vec![], Vec::new()),
        0 if is_blob(asked) => Action::Reply(500, vec![], b"<html>".to_vec()),
        _ => Action::Serve,
    });
    sample(&[noise(11, 1000)]).put(&fake, "app", "latest");
    let began = Instant::now();
    pull(&client(), &reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "it was asked too early");
    assert_eq!(fake.asked("GET", "/manifests/").len(), 3);
}

#[test]
fn a_registry_that_stays_busy_is_told_from_one_that_is_broken() {
    for (status, failure) in [(429, Failure::RateLimited), (502, Failure::Unavailable)] {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u0007 down"}]}"#;
        let fake = Fake::new(move |_, _| Action::Reply(status, vec![], body.to_vec()));
        let name = reference(&fake.host(), "app");
        let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
        assert_eq!((error.failure, error.status), (failure, Some(status)));
        assert_eq!(error.message, "slow  down");
        assert_eq!(fake.asked("GET", "/manifests/").len(), 4);
    }
    // A wait that is too long is not begun.
    let headers = || vec![("retry-after", "3600".to_owned())];
    let fake = Fake::new(move |_, _| Action::Reply(429, headers(), Vec::new()));
    let name = reference(&fake.host(), "app");
    assert!(client().pull(&name, &Access::default(), None).is_err());
    assert_eq!(fake.asked("GET", "/manifests/").len(), 1);
}

#[test]
fn nobody_listening_is_said_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = reference(&free.local_addr().unwrap().to_string(), "app");
    drop(free);
    let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
    assert_eq!(error.failure, Failure::Unreachable);
    let unknown = reference("no-such-host.test", "app");
    let nowhere = RegistryConfig {
        hosts: "/nonexistent".into(),
        resolv_conf: "/nonexistent".into(),
        ..quick()
    };
    let error = Client::new(nowhere).pull(&unknown, &Access::default(), None).unwrap_err();
    assert_eq!(registry_error(error).failure, Failure::Unreachable);
}

#[test]
fn a_redirect_to_another_server_gets_no_authorization() {
    let storage = Fake::good();
    let sample = sample(&[noise(12, 300_000)]);
    sample.put(&storage, "app", "latest");
    let target = storage.host();
    let fake = Fake::new(move |asked, _| {
        if asked.header("authorization").is_none() {
            let challenge = "Basic realm=\"x\"".to_owned();
            return Action::Reply(401, vec![("www-authenticate", challenge)], Vec::new());
        }
        if is_blob(asked) {
            let to = format!("http://{target}{}", asked.path);
            return Action::Reply(307, vec![("location", to)], Vec::new());
        }
        Action::Serve
    });
    sample.put(&fake, "app", "latest");
    let name = reference(&fake.host(), "app");
    let shelf = pull(&client(), &name, &password("me", "secret")).unwrap();
    assert!(shelf.plain() == sample.plain);
    assert!(!storage.log().is_empty());
    assert!(storage.log().iter().all(|asked| asked.header("authorization").is_none()));
    assert!(fake.log().iter().any(|asked| asked.header("authorization").is_some()));
}

#[test]
fn redirects_without_end_or_to_plain_text_elsewhere_are_refused() {
    let fake = Fake::new(|asked, _| {
        let to = if asked.path.contains("loop") {
            asked.path.clone()
        } else {
            "http://192.0.2.1/x".to_owned()
        };
        let is_probe = asked.path == "/v2/";
        if is_probe { Action::Serve } else { Action::Reply(302, vec![("location", to)], vec![]) }
    });
    for (repository, part) in [("loop", "redirects"), ("plain", "TLS is required")] {
        let name = reference(&fake.host(), repository);
        let error = client().pull(&name, &Access::default(), None).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_image_for_the_machine_is_taken_from_an_index() {
    let fake = Fake::good();
    let mut entries = Vec::new();
    for (architecture, variant) in [("amd64", None), ("arm", Some("v6")), ("arm", Some("v7"))] {
        let sample = sample_for(architecture, &[format!("{architecture}{variant:?}").into_bytes()]);
        sample.put(&fake, "app", "part");
        let mut entry = describe(media_type::OCI_MANIFEST, &sample.manifest);
        entry.platform = Some(Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
        });
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST,
        "manifests": entries});
    let index = index.to_string().into_bytes();
    let digest = fake.put_manifest("app", "latest", media_type::DOCKER_LIST, &index);
    let name = reference(&fake.host(), "app");
    let pull = |architecture: &str, variant: Option<&str>| {
        let platform = Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
        };
        client().pull(&name, &Access::default(), Some(&platform))
    };
    for (n, wanted) in
        [("amd64", None), ("arm", Some("v6")), ("arm", Some("v8"))].iter().enumerate()
    {
        let source = pull(wanted.0, wanted.1).unwrap();
        assert_eq!(source.image().manifest_digest, entries[n].digest);
        assert_eq!(*source.digest(), digest);
    }
    let error = registry_error(pull("s390x", None).unwrap_err());
    assert_eq!(error.failure, Failure::NotFound);
    assert!(error.message.contains("linux/amd64, linux/arm/v6, linux/arm/v7"), "{error}");
}

#[test]
fn an_image_for_another_machine_is_refused_only_when_one_was_named() {
    let fake = Fake::good();
    sample_for("s390x", &[]).put(&fake, "app", "latest");
    let name = reference(&fake.host(), "app");
    client().pull(&name, &Access::default(), None).unwrap();
    let platform =
        Platform { architecture: "amd64".into(), os: "linux".into(), ..Platform::default() };
    let error = client().pull(&name, &Access::default(), Some(&platform)).unwrap_err();
    assert!(matches!(error, Error::Platform { .. }));
}

#[test]
fn what_is_no_image_to_run_is_refused_by_name() {
    let fake = Fake::good();
    let sample = sample(&[noise(1, 10)]);
    let config = describe(media_type::OCI_CONFIG, &sample.config);
    let mut foreign = describe(media_type::OCI_LAYER_GZIP, &sample.blobs[0]);
    foreign.urls = vec!["http://elsewhere/x".to_owned()];
    let chart = describe("application/vnd.cncf.helm.config.v1+json", b"{}");
    let mut huge = config.clone();
    huge.size = 1 << 40;
    let manifest = |config, layers| json!({"schemaVersion": 2, "config": config, "layers": layers});
    for (tag, document, part) in [
        ("old", json!({"schemaVersion": 1, "fsLayers": [], "signatures": []}), "schema 1"),
        ("foreign", manifest(&config, vec![foreign]), "kept elsewhere"),
        ("chart", manifest(&chart, vec![]), "helm"),
        ("huge", manifest(&huge, vec![]), "more than"),
        ("null", json!(null), "no manifest"),
    ] {
        let bytes = document.to_string().into_bytes();
        fake.put_manifest("app", tag, "application/json", &bytes);
        let name = reference(&fake.host(), &format!("app:{tag}"));
        let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
        assert_eq!(error.failure, Failure::Invalid, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
    fake.put_manifest("app", "long", "application/json", &vec![b' '; 5 << 20]);
    let name = reference(&fake.host(), "app:long");
    let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
    assert!(error.message.contains("bytes of JSON"), "{error}");
}

#[test]
fn mirrors_come_before_the_registry_and_may_fail() {
    let sample = sample(&[noise(13, 400_000)]);
    let layer = Digest::sha256(&sample.blobs[0]).to_string();
    let (broken, empty, origin) = (
        // Has the manifest, but breaks off in the layer.
        Fake::new(move |asked, _| match asked.path.contains(&layer) {
            true => Action::Cut(100_000),
            false => Action::Serve,
        }),
        Fake::good(),
        Fake::good(),
    );
    sample.put(&broken, "cache/app", "latest");
    sample.put(&origin, "app", "latest");
    let urls = vec![format!("http://{}", empty.host()), format!("http://{}/cache", broken.host())];
    let mirrors = vec![("other.test".to_owned(), Vec::new()), ("*".to_owned(), urls)];
    let client = Client::new(RegistryConfig { mirrors, ..quick() });
    let name = reference(&origin.host(), "app");
    let shelf = pull(&client, &name, &password("me", "secret")).unwrap();
    assert!(shelf.plain() == sample.plain);
    let asked = empty.asked("GET", "/manifests/latest");
    assert!(asked[0].path.ends_with(&format!("?ns={}", name.domain())), "{}", asked[0].path);
    assert!(origin.asked("GET", "/manifests/").is_empty(), "the mirror had it");
    let rest = &origin.asked("GET", "/blobs/")[0];
    assert_eq!(rest.header("range"), Some("bytes=200000-"));
    let mirrored = [empty.log(), broken.log()].concat();
    assert!(mirrored.iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn all_tags_are_listed_page_by_page() {
    let fake = Fake::good();
    let sample = sample(&[]);
    for tag in ["a", "b", "c", "d", "e"] {
        sample.put(&fake, "app", tag);
    }
    let tags = client().tags(&reference(&fake.host(), "app:b"), &Access::default()).unwrap();
    let tags: Vec<_> = tags.iter().map(|tag| tag.tag().unwrap()).collect();
    assert_eq!(tags, ["a", "b", "c", "d", "e"]);
    assert_eq!(fake.asked("GET", "/tags/list").len(), 3);
}

#[test]
fn a_digest_costs_a_request_without_a_body() {
    let fake = Fake::good();
    let digest = sample(&[]).put(&fake, "app", "latest");
    let name = reference(&fake.host(), "app");
    assert_eq!(client().digest(&name, &Access::default()).unwrap(), digest);
    assert!(fake.asked("GET", "/manifests/").is_empty());
}

#[test]
fn a_cancelled_pull_ends_even_while_it_waits() {
    let retries = Retries {
        attempts: 9,
        first_delay: Duration::from_secs(3600),
        max_delay: Duration::from_secs(3600),
    };
    let access = Access::default();
    let cancel = access.cancel.clone();
    let fake = Fake::new(move |asked, _| {
        if asked.path.contains("/manifests/") {
            cancel.cancel();
        }
        Action::Reply(503, vec![], Vec::new())
    });
    let client = Client::new(RegistryConfig { retries, ..quick() });
    let error = client.pull(&reference(&fake.host(), "app"), &access, None).unwrap_err();
    assert_eq!(registry_error(error).failure, Failure::Cancelled);
}

#[test]
fn a_cancelled_blob_ends_with_the_next_read() {
    let (fake, _) = with_layer(600_000, |_, _| Action::Serve);
    let (name, access) = (reference(&fake.host(), "app"), Access::default());
    let source = client().pull(&name, &access, None).unwrap();
    let mut blob = source.open(&source.image().layers[0].blob, 0).unwrap();
    blob.read_exact(&mut [0; 1000]).unwrap();
    access.cancel.cancel();
    let error = blob.read(&mut [0; 1000]).unwrap_err().downcast::<Error>().unwrap();
    assert_eq!(registry_error(error).failure, Failure::Cancelled);
}

#[test]
fn a_blob_can_be_opened_in_its_middle() {
    let (fake, sample) = with_layer(100_000, |_, _| Action::Serve);
    let name = reference(&fake.host(), "app");
    let source = client().pull(&name, &Access::default(), None).unwrap();
    let blob = &source.image().layers[0].blob;
    let mut rest = Vec::new();
    source.open(blob, 60_000).unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest == sample.blobs[0][60_000..]);
    rest.clear();
    source.open(blob, blob.size).unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty() && source.open(blob, blob.size + 1).is_err());
    assert_eq!(ranges(&fake, &sample), [Some("bytes=60000-".to_owned())]);
}
