//! Whatever comes from the net: an error with a name, never a panic, never without end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod fake;
#[path = "support/images.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod images;

use std::time::{Duration, Instant};

use capsa_image::registry::{Access, Client};
use capsa_oci::Digest;
use fake::{Action, Asked, Fake};
use images::{client, noise, pull, quick, reference, sample};

/// Answers that are none, or not whole.
fn answers() -> Vec<Vec<u8>> {
    let head = "HTTP/1.1 200 OK\r\n";
    let mut all: Vec<Vec<u8>> = [
        "",
        "\r\n\r\n",
        "SSH-2.0-x\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 000 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 206 X\r\ncontent-range: bytes 9-1/0\r\ncontent-length: 1\r\n\r\na",
        "HTTP/1.1 302 X\r\nlocation: \r\n\r\n",
        "HTTP/1.1 302 X\r\nlocation: http://[::1\r\n\r\n",
        "HTTP/1.1 302 X\r\nlocation: //\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 401 X\r\nwww-authenticate: Bearer realm=\"\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 401 X\r\nwww-authenticate: Bearer realm=\"x\"\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 X\r\nretry-after: 99999999999999999999\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 500 X\r\ncontent-length: 7\r\n\r\n{\"error",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    for rest in [
        "content-length: -1\r\n\r\n",
        "content-length: 99999999999999999999\r\n\r\n",
        "content-length: 3\r\ncontent-length: 4\r\n\r\n{}  ",
        "content-length: 18446744073709551615\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
        "transfer-encoding: chunked\r\n\r\n-1\r\nx",
        "docker-content-digest: sha256:x\r\ncontent-length: 2\r\n\r\n{}",
        "no colon\r\n\r\n",
        "\u{e9}: x\r\n\r\n",
        "content-length: 4\r\n\r\nnull",
        "\r\n{\"schemaVersion\":2,\"manifests\":[{}]}",
        "\r\n{\"schemaVersion\":-2,\"layers\":{},\"config\":[]}",
        "\r\n{\"schemaVersion\":2,\"layers\":[],\"config\":{\"size\":-1}}",
    ] {
        all.push(format!("{head}{rest}").into_bytes());
    }
    all.push([head.as_bytes(), b"x: ", &vec![b'a'; 1 << 20]].concat());
    all.push([head.as_bytes(), &b"a: b\r\n".repeat(100_000)].concat());
    all.push([head.as_bytes(), b"\r\n", &vec![b'['; 3 << 20]].concat());
    all.push(noise(99, 5000));
    all
}

#[test]
fn no_answer_to_any_request_makes_it_panic() {
    let began = Instant::now();
    for (n, answer) in answers().into_iter().enumerate() {
        let bytes = answer.clone();
        let fake = Fake::new(move |asked, _| match asked.path.as_str() {
            "/v2/" => Action::Serve,
            _ => Action::Raw(bytes.clone()),
        });
        let name = reference(&fake.host(), "app");
        let client = client();
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let access = Access::default();
        assert!(client.pull(&name, &access, None).is_err(), "{n}: {shown}");
        assert!(client.tags(&name, &access).is_err() || shown.contains("HTTP/1.1 200"), "{shown}");
        let _ = client.digest(&name, &access);
    }
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn no_answer_for_a_blob_makes_it_panic() {
    let sample = sample(&[noise(1, 5000)]);
    let layer = Digest::sha256(&sample.blobs[0]).to_string();
    for answer in answers() {
        let layer = layer.clone();
        let fake = Fake::new(move |asked, _| match asked.path.contains(&layer) {
            true => Action::Raw(answer.clone()),
            false => Action::Serve,
        });
        sample.put(&fake, "app", "latest");
        let name = reference(&fake.host(), "app");
        assert!(pull(&client(), &name, &Access::default()).is_err());
    }
}

#[test]
fn no_answer_to_an_upload_makes_it_panic() {
    let sample = sample(&[noise(1, 5000)]);
    for method in ["HEAD", "POST", "PUT"] {
        for answer in answers() {
            let fake = Fake::new(move |asked, _| match asked.method == method {
                true => Action::Raw(answer.clone()),
                false => Action::Serve,
            });
            let name = reference(&fake.host(), "app");
            let sink = client().push(&name, &Access::default(), Vec::new(), &|_, _| {}).unwrap();
            let images = capsa_image::Source::images(&sample).unwrap();
            let _ = capsa_image::copy(&sample, &images, &sink, &|_, _| {});
        }
    }
}

#[test]
fn an_endless_list_of_tags_ends() {
    let fake = Fake::new(|asked: &Asked, before| {
        if !asked.path.contains("/tags/list") {
            return Action::Serve;
        }
        let link = format!("</v2/app/tags/list?page={before}>; rel=\"next\"");
        let tags = format!("[{}\"z\"]", "\"a\",".repeat(50_000));
        let body = format!(r#"{{"tags":{tags}}}"#);
        Action::Reply(200, vec![("link", link)], body.into_bytes())
    });
    let tags = client().tags(&reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert!(tags.len() >= 200_000 && fake.asked("GET", "/tags/").len() <= 5);
}

#[test]
fn connections_serve_again() {
    let fake = Fake::good();
    let layers: Vec<_> = (0..6).map(|n| noise(n, 10_000)).collect();
    sample(&layers).put(&fake, "app", "latest");
    let client = Client::new(quick());
    for _ in 0..3 {
        pull(&client, &reference(&fake.host(), "app"), &Access::default()).unwrap();
    }
    // The shelf takes three layers at a time.
    assert!(fake.connections() <= 4, "{} connections", fake.connections());
}
