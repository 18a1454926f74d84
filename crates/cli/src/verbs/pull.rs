//! `pull`, which `run` and `create` use too.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use capsa_api::Payload;
use capsa_api::encoding::with_query;
use capsa_oci::Reference;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use serde_json::json;

use super::Outcome;
pub(super) use super::progress::Shown;
use super::progress::follow;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::line;
use crate::session::Session;
use crate::session::config::ConfigFile;
use crate::session::credentials;

/// `capsa pull`.
pub(crate) static PULL: Command = Command {
    names: &["image pull", "pull"],
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Get an image from a registry",
    flags: &[&[
        Flag::switch("all-tags", "Get every tag of the repository").short('a'),
        Flag::switch("disable-content-trust", "Accepted for compatibility"),
        Flag::text("platform", "Platform of the image, such as linux/amd64"),
        Flag::switch("quiet", "Print only the image's name").short('q'),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let name = matches.arg(0);
    let reference = parse(name)?;
    let quiet = matches.flag("quiet");
    let platform = super::run::platform(&matches);
    let shown = if quiet { Shown::Nothing } else { Shown::OnStdout };
    let all = matches.flag("all-tags");
    if all && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(Failure::said("tag can't be used with --all-tags/-a"));
    }
    if all {
        fetch(&session, &reference, None, platform.as_deref(), shown).await?;
        line(&reference.familiar_name());
        return Ok(0);
    }
    if !quiet && reference.tag().is_none() && reference.digest().is_none() {
        line("Using default tag: latest");
    }
    let reference = reference.with_default_tag();
    fetch(&session, &reference, Some(()), platform.as_deref(), shown).await?;
    line(&reference.canonical());
    Ok(0)
}

/// Gets the image `name`.
pub(crate) async fn pull(
    session: &Session,
    name: &str,
    platform: Option<&str>,
    shown: Shown,
) -> Result<()> {
    let reference = parse(name)?.with_default_tag();
    fetch(session, &reference, Some(()), platform, shown).await
}

/// `busybox` as `busybox:latest`; what can't be read stays as it is.
pub(crate) fn with_tag(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.with_default_tag().familiar())
}

async fn fetch(
    session: &Session,
    reference: &Reference,
    tagged: Option<()>,
    platform: Option<&str>,
    shown: Shown,
) -> Result<()> {
    let repository = format!("{}/{}", reference.domain(), reference.path());
    let digest = reference.digest().map(ToString::to_string);
    let mut query = vec![("fromImage", repository.as_str())];
    if tagged.is_some() {
        query.extend(digest.as_deref().or(reference.tag()).map(|tag| ("tag", tag)));
    }
    query.extend(platform.map(|platform| ("platform", platform)));
    let path = with_query("/images/create", &query);
    let headers = auth_header(session.config(), reference.domain());
    let client = session.client()?;
    let answer = client.stream_with(Method::POST, &path, Payload::Empty, &headers).await?;
    follow(answer.body, shown).await.map(drop)
}

fn parse(name: &str) -> Result<Reference> {
    Reference::parse(name).map_err(|error| Failure::said(error.to_string()))
}

/// The key of a registry in the configuration file.
pub(crate) fn auth_key(domain: &str) -> &str {
    match domain {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}

/// `X-Registry-Auth` for this registry, from the logins that are kept.
pub(crate) fn auth_header(config: &ConfigFile, domain: &str) -> HeaderMap {
    let key = auth_key(domain);
    let auth = credentials::find(config, key).map_or_else(|| json!({}), |s| s.to_json(key));
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&URL_SAFE.encode(auth.to_string())) {
        headers.insert("x-registry-auth", value);
    }
    headers
}
