//! Tokens: asked for where the registry says, kept, renewed, and never sent elsewhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fake.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod fake;
#[path = "support/images.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod images;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use capsa_image::copy;
use capsa_image::registry::{Access, Credentials, Failure};
use fake::{Action, Asked, Fake};
use images::{client, noise, password, pull, reference, registry_error, sample};

/// A token server that gives `t1`, `t2`, ... to everybody, or to those `allow` names.
fn token_server(
    extra: &'static str,
    allow: impl Fn(&Asked) -> bool + Send + Sync + 'static,
) -> Fake {
    let given = AtomicUsize::new(0);
    Fake::new(move |asked, _| {
        if !allow(asked) {
            let body = br#"{"details":"incorrect username or password"}"#;
            return Action::Reply(401, vec![], body.to_vec());
        }
        let n = given.fetch_add(1, Ordering::SeqCst) + 1;
        let body = format!(r#"{{"token":"t{n}","expires_in":300{extra}}}"#);
        Action::Reply(200, vec![], body.into_bytes())
    })
}

/// A registry that takes only the token that `valid` says now.
fn guarded(
    challenge: impl Fn(&str) -> Vec<String> + Send + Sync + 'static,
    tokens: &Fake,
    valid: impl Fn(&Asked, &str) -> bool + Send + Sync + 'static,
) -> Fake {
    let realm = format!("http://{}/token", tokens.host());
    Fake::new(move |asked, _| {
        let shown = asked.header("authorization").and_then(|a| a.strip_prefix("Bearer "));
        if shown.is_some_and(|token| valid(asked, token)) {
            return Action::Serve;
        }
        let headers = challenge(&realm).into_iter().map(|c| ("www-authenticate", c)).collect();
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Action::Reply(401, headers, body.to_vec())
    })
}

fn bearer(realm: &str) -> Vec<String> {
    vec![format!(r#"Bearer realm="{realm}",service="reg",scope="repository:app:pull""#)]
}

#[test]
fn each_form_of_challenge_is_understood() {
    let forms: [fn(&str) -> Vec<String>; 5] = [
        bearer,
        |realm| vec![format!(r#"bearer Realm="{realm}" , Service=reg"#)],
        |realm| vec![format!(r#"Negotiate, Basic realm="a, \"b\"", Bearer realm="{realm}""#)],
        |realm| vec!["Basic realm=x".to_owned(), format!("Bearer realm={realm},service=reg")],
        |realm| vec!["NTLM abc==".to_owned(), bearer(realm).remove(0)],
    ];
    for form in forms {
        let tokens = token_server("", |_| true);
        let fake = guarded(form, &tokens, |_, token| token == "t1");
        let sample = sample(&[noise(1, 1000), noise(2, 1000)]);
        sample.put(&fake, "app", "latest");
        pull(&client(), &reference(&fake.host(), "app"), &Access::default()).unwrap();
        let asked = tokens.log();
        assert_eq!(asked.len(), 1, "one token serves all requests");
        assert!(asked[0].path.contains("scope=repository:app:pull"), "{}", asked[0].path);
        assert!(asked[0].header("authorization").is_none());
    }
}

#[test]
fn a_token_is_kept_for_the_next_pull_and_apart_for_each_user() {
    let tokens = token_server("", |_| true);
    let fake = guarded(bearer, &tokens, |_, token| token.starts_with('t'));
    sample(&[noise(1, 1000)]).put(&fake, "app", "latest");
    let (client, name) = (client(), reference(&fake.host(), "app"));
    for _ in 0..2 {
        pull(&client, &name, &Access::default()).unwrap();
    }
    assert_eq!(tokens.log().len(), 1);
    pull(&client, &name, &password("me", "secret")).unwrap();
    let asked = tokens.log();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].path.contains("account=me"));
    assert_eq!(asked[1].header("authorization"), Some("Basic bWU6c2VjcmV0"));
}

#[test]
fn a_token_that_expires_on_the_way_is_replaced() {
    let tokens = token_server("", |_| true);
    // The manifest takes the first token, everything later only the second.
    let fake = guarded(bearer, &tokens, |asked, token| {
        token == if asked.path.contains("/manifests/") { "t1" } else { "t2" }
    });
    let sample = sample(&[noise(1, 100_000), noise(2, 100_000)]);
    sample.put(&fake, "app", "latest");
    let shelf = pull(&client(), &reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert_eq!(shelf.plain().len(), 2);
    assert_eq!(tokens.log().len(), 2);
}

#[test]
fn a_token_that_expires_during_an_upload_is_replaced() {
    let tokens = token_server("", |_| true);
    let fake = guarded(bearer, &tokens, |asked, token| {
        let late = asked.method == "PUT" || asked.path.contains("/uploads/u");
        token == if late { "t2" } else { "t1" } || token == "t3"
    });
    let sample = sample(&[noise(1, 200_000)]);
    let name = reference(&fake.host(), "app:v1");
    let sink = client().push(&name, &Access::default(), Vec::new(), &|_, _| {}).unwrap();
    let images = capsa_image::Source::images(&sample).unwrap();
    copy(&sample, &images, &sink, &|_, _| {}).unwrap();
    assert_eq!(fake.manifest("app", "v1").unwrap().1, sample.manifest);
    let scope = "scope=repository:app:pull%2Cpush";
    assert!(tokens.log().iter().all(|asked| asked.path.contains(scope)));
}

#[test]
fn a_registry_that_never_is_content_is_asked_twice() {
    let tokens = token_server("", |_| true);
    let fake = guarded(bearer, &tokens, |_, _| false);
    let name = reference(&fake.host(), "app");
    let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
    assert_eq!((error.failure, error.status), (Failure::Unauthorized, Some(401)));
    assert_eq!(error.message, "authentication required");
    assert_eq!(fake.asked("GET", "/manifests/").len(), 2);
}

#[test]
fn a_wrong_password_is_the_token_servers_word() {
    let tokens = token_server("", |asked| asked.header("authorization") == Some("Basic bWU6b2s="));
    let fake = guarded(bearer, &tokens, |_, _| true);
    sample(&[]).put(&fake, "app", "latest");
    let name = reference(&fake.host(), "app");
    client().pull(&name, &password("me", "ok"), None).unwrap();
    let error = client().pull(&name, &password("me", "no"), None).unwrap_err();
    let error = registry_error(error);
    assert_eq!(error.failure, Failure::Unauthorized);
    assert_eq!(error.message, "incorrect username or password");
}

#[test]
fn a_login_gives_an_identity_that_serves_instead_of_the_password() {
    let tokens = token_server(r#","refresh_token":"id""#, |_| true);
    let fake = guarded(bearer, &tokens, |_, _| true);
    sample(&[]).put(&fake, "app", "latest");
    let who = password("me", "secret").credentials.unwrap();
    let identity = client().login(&fake.host(), &who, &Default::default()).unwrap();
    assert_eq!(identity.as_deref(), Some("id"));
    assert!(tokens.log()[0].path.contains("offline_token=true"));

    let credentials = Some(Credentials::Identity(identity.unwrap()));
    let access = Access { credentials, ..Access::default() };
    client().pull(&reference(&fake.host(), "app"), &access, None).unwrap();
    let last = tokens.log().pop().unwrap();
    assert_eq!((last.method.as_str(), last.header("authorization")), ("POST", None));
}

#[test]
fn a_given_token_is_sent_as_it_is() {
    let fake = Fake::new(|asked, _| match asked.header("authorization") {
        Some("Bearer mine") => Action::Serve,
        _ => Action::Reply(401, vec![], Vec::new()),
    });
    sample(&[]).put(&fake, "app", "latest");
    let name = reference(&fake.host(), "app");
    let access = |token: &str| {
        let credentials = Some(Credentials::Bearer(token.to_owned()));
        Access { credentials, ..Access::default() }
    };
    client().pull(&name, &access("mine"), None).unwrap();
    let error = client().pull(&name, &access("other"), None).unwrap_err();
    assert_eq!(registry_error(error).failure, Failure::Unauthorized);
}

#[test]
fn nonsense_from_a_token_server_is_an_error() {
    for body in [&b"\xff\xfe"[..], b"{}", br#"{"token":"a\nb"}"#, b"[[[["] {
        let tokens = Fake::new(move |_, _| Action::Reply(200, vec![], body.to_vec()));
        let fake = guarded(bearer, &tokens, |_, _| true);
        let name = reference(&fake.host(), "app");
        let error = registry_error(client().pull(&name, &Access::default(), None).unwrap_err());
        assert_eq!(error.failure, Failure::Invalid);
    }
}

#[test]
fn many_lanes_ask_for_one_token() {
    let tokens = token_server("", |_| true);
    let layers: Vec<_> = (0..6).map(|n| noise(n, 2000)).collect();
    let sample = sample(&layers);
    let config = capsa_oci::Digest::sha256(&sample.config).to_string();
    // From the first layer on the old token is no good, and all lanes see that at once.
    let (lanes, together) = (AtomicUsize::new(0), Barrier::new(3));
    let fake = guarded(bearer, &tokens, move |asked, token| {
        if !asked.path.contains("/blobs/") || asked.path.ends_with(&config) {
            return token == "t1";
        }
        if lanes.fetch_add(1, Ordering::SeqCst) < 3 {
            together.wait();
        }
        token == "t2"
    });
    sample.put(&fake, "app", "latest");
    pull(&client(), &reference(&fake.host(), "app"), &Access::default()).unwrap();
    assert_eq!(tokens.log().len(), 2);
}
