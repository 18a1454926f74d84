//! `attach`: our streams on those of a running container.

use std::rc::Rc;

use capsa_api::encoding::encode;
use capsa_api::types::{ContainerInspect, WaitResponse};
use capsa_api::{Client, Payload};
use hyper::Method;

use super::Outcome;
use super::run::{attach_path, detach_keys, exit_code, talk};
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::terminal;
use crate::session::Session;
use crate::stream::signals::{self, Caught};
use crate::stream::{End, Streams};

/// `capsa attach`.
pub(crate) static ATTACH: Command = Command {
    names: &["container attach", "attach"],
    usage: "[OPTIONS] CONTAINER",
    about: "Put our own input and output on those of a running container",
    flags: &[&[
        Flag::text("detach-keys", "Keys that leave the container running"),
        Flag::switch("no-stdin", "Don't attach STDIN"),
        Flag::switch("sig-proxy", "Hand signals on to the process (default true)"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(attach(session, matches)),
};

async fn attach(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let name = encode(matches.arg(0));
    let shown: ContainerInspect = client.get(&format!("/containers/{name}/json")).await?;
    if !shown.state.running {
        return Err(Failure::said("cannot attach to a stopped container, start it first"));
    }
    if shown.state.paused {
        return Err(Failure::said("cannot attach to a paused container, unpause it first"));
    }
    let tty = shown.config.tty;
    let stdin = shown.config.open_stdin && !matches.flag("no-stdin");
    if tty && stdin && !terminal::stdin_is() {
        return Err(Failure::said("the input device is not a TTY"));
    }
    let streams = Streams {
        stdin,
        tty,
        stdout: true,
        stderr: true,
        detach: detach_keys(&session, &matches)?,
    };
    let forwards = !tty && matches.switch("sig-proxy").unwrap_or(true);
    let caught = if forwards { Some(Caught::forwarded()?) } else { None };
    let life = stay(client, &shown.id, streams);
    match caught {
        None => life.await,
        Some(caught) => tokio::select! {
            code = life => code,
            () = signals::forward(client, &shown.id, caught) => Ok(0),
        },
    }
}

/// Attaches, stays to the end, and returns the exit code.
async fn stay(client: &Client, id: &str, streams: Streams) -> Outcome {
    let wait_path = format!("/containers/{id}/wait?condition=not-running");
    let attach_path = attach_path(id, &streams);
    let (stream, waiting) = tokio::try_join!(
        client.hijack(&attach_path, &()),
        client.stream(Method::POST, &wait_path, Payload::Empty),
    )?;
    let path = format!("/containers/{id}");
    if streams.tty
        && terminal::stdout_is()
        && let Some((rows, columns)) = terminal::size()
    {
        // One row more and back: what runs there draws its screen anew.
        for rows in [rows + 1, rows] {
            let _ = client.post_empty(&format!("{path}/resize?h={rows}&w={columns}")).await;
        }
    }
    if talk(client, stream, streams, &path).await? == End::Detached {
        return Ok(0);
    }
    exit_code(&answer(waiting.body).await?)
}

/// What a wait ends with.
pub(crate) async fn answer(body: capsa_api::client::BodyStream) -> Result<WaitResponse> {
    Ok(body.json_lines::<WaitResponse>().next().await?.unwrap_or_default())
}
