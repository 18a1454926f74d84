//! `commit` and `import`: images from a container and from an archive.

use std::fs::File;
use std::io;
use std::rc::Rc;

use capsa_api::Payload;
use capsa_api::encoding::with_query;
use capsa_api::types::IdResponse;
use capsa_oci::Reference;
use hyper::Method;

use super::Outcome;
use super::progress::{Shown, follow};
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::line;
use crate::session::Session;

/// `capsa commit`.
pub(crate) static COMMIT: Command = Command {
    names: &["container commit", "commit"],
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Make an image of what a container has changed",
    flags: &[&[
        Flag::text("author", "Who made it").short('a'),
        Flag::list("change", "Dockerfile instruction to apply").short('c'),
        Flag::text("message", "What it is").short('m'),
        Flag::switch("pause", "Freeze the container meanwhile (default true)").short('p'),
    ]],
    arity: Arity::Range(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(commit(session, matches)),
};

/// `capsa import`.
pub(crate) static IMPORT: Command = Command {
    names: &["image import", "import"],
    usage: "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
    about: "Make an image of an archive of a file system",
    flags: &[&[
        Flag::list("change", "Dockerfile instruction to apply").short('c'),
        Flag::text("message", "What it is").short('m'),
        Flag::text("platform", "Platform of the image"),
    ]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(import(session, matches)),
};

async fn commit(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let name = target(matches.arg(1))?;
    let mut query = vec![("container", matches.arg(0))];
    if let Some((repository, tag)) = &name {
        query.push(("repo", repository));
        query.push(("tag", tag));
    }
    query.extend(matches.text("author").map(|author| ("author", author)));
    query.extend(matches.text("message").map(|message| ("comment", message)));
    query.extend(matches.list("change").into_iter().map(|change| ("changes", change)));
    if matches.switch("pause") == Some(false) {
        query.push(("pause", "0"));
    }
    let made: IdResponse = session.client()?.post(&with_query("/commit", &query), &()).await?;
    line(&made.id);
    Ok(0)
}

async fn import(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let source = matches.arg(0);
    let mut query = Vec::new();
    if let Some(name) = matches.args.get(1) {
        target(name)?;
        query.push(("repo", name.as_str()));
    }
    query.extend(matches.text("message").map(|message| ("message", message)));
    query.extend(matches.list("change").into_iter().map(|change| ("changes", change)));
    query.extend(matches.text("platform").map(|platform| ("platform", platform)));
    let client = session.answering_client().await?;
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let payload = match source {
        _ if remote => Payload::Empty,
        "-" => Payload::tar(io::stdin()),
        path => Payload::tar(File::open(path).map_err(|error| Failure::io("open", path, &error))?),
    };
    query.push(("fromSrc", if remote { source } else { "-" }));
    let answer =
        client.stream(Method::POST, &with_query("/images/create", &query), payload).await?;
    follow(answer.body, Shown::OnStdout).await?;
    Ok(0)
}

/// Repository and tag as the API takes them.
fn target(name: &str) -> Result<Option<(String, String)>> {
    if name.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse(name).map_err(|error| Failure::said(error.to_string()))?;
    if reference.digest().is_some() {
        return Err(Failure::said("cannot commit to digest reference"));
    }
    let reference = reference.with_default_tag();
    let repository = format!("{}/{}", reference.domain(), reference.path());
    Ok(Some((repository, reference.tag().unwrap_or("latest").to_owned())))
}
