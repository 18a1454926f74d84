//! `diff` and `export`: a container's files as a whole.

use std::rc::Rc;

use capsa_api::Payload;
use capsa_api::encoding::encode;
use capsa_api::types::Change;
use hyper::Method;

use super::Outcome;
use super::images::{copy_to, refuse_terminal};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::out;
use crate::session::Session;

/// `capsa diff`.
pub(crate) static DIFF: Command = Command {
    names: &["container diff", "diff"],
    usage: "CONTAINER",
    about: "Show which files a container has changed",
    flags: &[],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(diff(session, matches)),
};

/// `capsa export`.
pub(crate) static EXPORT: Command = Command {
    names: &["container export", "export"],
    usage: "[OPTIONS] CONTAINER",
    about: "Write a container's files into an archive",
    flags: &[&[Flag::text("output", "Archive to write instead of STDOUT").short('o')]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(export(session, matches)),
};

async fn diff(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let path = format!("/containers/{}/changes", encode(matches.arg(0)));
    let changes: Option<Vec<Change>> = session.client()?.get(&path).await?;
    let mut text = String::new();
    for change in changes.unwrap_or_default() {
        let letter = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        text.push_str(&format!("{letter} {}\n", change.path));
    }
    out(text.as_bytes());
    Ok(0)
}

async fn export(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let output = matches.text("output");
    refuse_terminal(output)?;
    let path = format!("/containers/{}/export", encode(matches.arg(0)));
    let answer = session.client()?.stream(Method::GET, &path, Payload::Empty).await?;
    copy_to(answer.body, output).await?;
    Ok(0)
}
