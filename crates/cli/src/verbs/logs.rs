//! `logs`: what a container has written.

use std::rc::Rc;

use capsa_api::Payload;
use capsa_api::encoding::{encode, with_query};
use capsa_api::types::ContainerInspect;
use hyper::Method;
use hyper::header::CONTENT_TYPE;

use super::Outcome;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::time::point;
use crate::session::Session;
use crate::stream::Frames;

/// `capsa logs`.
pub(crate) static LOGS: Command = Command {
    names: &["container logs", "logs"],
    usage: "[OPTIONS] CONTAINER",
    about: "Show what a container has written",
    flags: &[&[
        Flag::switch("details", "Show the attributes that were logged too"),
        Flag::switch("follow", "Go on with what it writes from now on").short('f'),
        Flag::text("since", "Only what is younger: a time, or how long ago, such as 10m"),
        Flag::text("tail", "Only so many of the last lines").short('n'),
        Flag::switch("timestamps", "Put the time before each line").short('t'),
        Flag::text("until", "Only what is older: a time, or how long ago"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(logs(session, matches)),
};

async fn logs(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let name = encode(matches.arg(0));
    let since = moment(&matches, "since")?;
    let until = moment(&matches, "until")?;
    let mut query = vec![("stdout", "1"), ("stderr", "1")];
    for flag in ["follow", "timestamps", "details"] {
        if matches.flag(flag) {
            query.push((flag, "1"));
        }
    }
    query.push(("tail", matches.text("tail").unwrap_or("all")));
    query.extend(since.as_deref().map(|at| ("since", at)));
    query.extend(until.as_deref().map(|at| ("until", at)));
    let path = with_query(&format!("/containers/{name}/logs"), &query);
    let mut answer = client.stream(Method::GET, &path, Payload::Empty).await?;
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let framed = match kind {
        Some("application/vnd.docker.multiplexed-stream") => true,
        Some("application/vnd.docker.raw-stream") => false,
        // An older daemon does not say: ask whether there is a terminal.
        _ => {
            let shown: ContainerInspect = client.get(&format!("/containers/{name}/json")).await?;
            !shown.config.tty
        }
    };
    let mut frames = Frames::new(framed, true, true);
    while let Some(chunk) = answer.body.chunk().await? {
        frames.show(&chunk)?;
    }
    Ok(0)
}

fn moment(matches: &Matches, flag: &str) -> Result<Option<String>> {
    let text = matches.text(flag).filter(|text| !text.is_empty());
    text.map(|text| {
        point(text).map_err(|why| Failure::said(format!("invalid value for {flag:?}: {why}")))
    })
    .transpose()
}
