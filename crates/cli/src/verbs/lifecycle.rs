//! The small verbs of a container's life: start, stop, restart, kill, pause,
//! unpause, wait, rm, rename.

use std::rc::Rc;

use capsa_api::encoding::{encode, with_query};
use capsa_api::types::{ContainerInspect, WaitResponse};
use capsa_api::{Client, Payload};
use hyper::Method;

use super::run::{attach_path, detach_keys, exit_code, start_code, talk};
use super::{AT_ONCE, Outcome, each_argument};
use crate::failure::Failure;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::terminal;
use crate::session::Session;
use crate::stream::signals::{self, Caught};
use crate::stream::{End, Streams};

const STOPPING: &[Flag] = &[
    Flag::text("signal", "Signal that asks the container to end").short('s'),
    Flag::int("timeout", "Seconds until SIGKILL, -1 waits for ever").short('t'),
    Flag::int("time", "").same_as("timeout"),
];

/// `capsa start`.
pub(crate) static START: Command = Command {
    names: &["container start", "start"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start stopped containers",
    flags: &[&[
        Flag::switch("attach", "Show the output and hand signals on").short('a'),
        Flag::text("checkpoint", "Not supported").hide(),
        Flag::text("checkpoint-dir", "Not supported").hide(),
        Flag::text("detach-keys", "Keys that leave the container running"),
        Flag::switch("interactive", "Attach STDIN").short('i'),
    ]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(start(session, matches)),
};

/// `capsa stop`.
pub(crate) static STOP: Command = Command {
    names: &["container stop", "stop"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop running containers",
    flags: &[STOPPING],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(stop(session, matches, "stop")),
};

/// `capsa restart`.
pub(crate) static RESTART: Command = Command {
    names: &["container restart", "restart"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop containers and start them again",
    flags: &[STOPPING],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(stop(session, matches, "restart")),
};

/// `capsa kill`.
pub(crate) static KILL: Command = Command {
    names: &["container kill", "kill"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Send a signal to running containers",
    flags: &[&[Flag::text("signal", "Signal to send instead of KILL").short('s')]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(kill(session, matches)),
};

/// `capsa pause`.
pub(crate) static PAUSE: Command = Command {
    names: &["container pause", "pause"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Freeze the processes of containers",
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(simple(session, matches, "pause")),
};

/// `capsa unpause`.
pub(crate) static UNPAUSE: Command = Command {
    names: &["container unpause", "unpause"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Let frozen containers go on",
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(simple(session, matches, "unpause")),
};

/// `capsa wait`.
pub(crate) static WAIT: Command = Command {
    names: &["container wait", "wait"],
    usage: "CONTAINER [CONTAINER...]",
    about: "Wait until containers end and print their exit codes",
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(wait(session, matches)),
};

/// `capsa rm`.
pub(crate) static RM: Command = Command {
    names: &["container rm", "container remove", "rm"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove containers",
    flags: &[&[
        Flag::switch("force", "Kill a running container first").short('f'),
        Flag::switch("link", "Remove the link, not the container").short('l'),
        Flag::switch("volumes", "Remove its anonymous volumes too").short('v'),
    ]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(rm(session, matches)),
};

/// `capsa rename`.
pub(crate) static RENAME: Command = Command {
    names: &["container rename", "rename"],
    usage: "CONTAINER NEW_NAME",
    about: "Give a container another name",
    flags: &[],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(rename(session, matches)),
};

async fn start(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    if matches.given("checkpoint") || matches.given("checkpoint-dir") {
        return Err(Failure::said("checkpoints are not supported"));
    }
    let client = session.client()?;
    if matches.flag("attach") || matches.flag("interactive") {
        if matches.args.len() > 1 {
            return Err(Failure::said("you cannot start and attach multiple containers at once"));
        }
        return start_attached(&session, &matches, client).await;
    }
    each_argument(&matches.args, 1, |name| async move {
        client.post_empty(&format!("/containers/{}/start", encode(name))).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn start_attached(session: &Session, matches: &Matches, client: &Client) -> Outcome {
    let name = encode(matches.arg(0));
    let shown: ContainerInspect = client.get(&format!("/containers/{name}/json")).await?;
    let (id, tty) = (shown.id.as_str(), shown.config.tty);
    let stdin = matches.flag("interactive") && shown.config.open_stdin;
    if tty && stdin && !terminal::stdin_is() {
        return Err(Failure::said("the input device is not a TTY"));
    }
    let detach = detach_keys(session, matches)?;
    let streams = Streams { stdin, tty, stdout: true, stderr: true, detach };
    let caught = if tty { None } else { Some(Caught::forwarded()?) };
    let life = async {
        let condition = if shown.host_config.auto_remove { "removed" } else { "next-exit" };
        let wait_path = format!("/containers/{id}/wait?condition={condition}");
        let attach_path = attach_path(id, &streams);
        let (stream, waiting) = tokio::try_join!(
            client.hijack(&attach_path, &()),
            client.stream(Method::POST, &wait_path, Payload::Empty),
        )?;
        if let Err(error) = client.post_empty(&format!("/containers/{id}/start")).await {
            let code = start_code(&error.to_string());
            let mut failure = Failure::from(error);
            failure.code = if code == 125 { 1 } else { code };
            return Err(failure);
        }
        if talk(client, stream, streams, &format!("/containers/{id}")).await? == End::Detached {
            return Ok(0);
        }
        exit_code(&super::attach::answer(waiting.body).await?)
    };
    match caught {
        None => life.await,
        Some(caught) => tokio::select! {
            code = life => code,
            () = signals::forward(client, id, caught) => Ok(0),
        },
    }
}

async fn stop(session: Rc<Session>, matches: Rc<Matches>, action: &'static str) -> Outcome {
    let client = session.client()?;
    let mut query = Vec::new();
    query.extend(matches.text("signal").map(|signal| ("signal", signal)));
    query.extend(matches.text("timeout").map(|seconds| ("t", seconds)));
    let query = &query;
    each_argument(&matches.args, AT_ONCE, |name| async move {
        let path = with_query(&format!("/containers/{}/{action}", encode(name)), query);
        client.post_empty(&path).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn kill(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let query: Vec<_> =
        matches.text("signal").map(|signal| ("signal", signal)).into_iter().collect();
    let query = &query;
    each_argument(&matches.args, 1, |name| async move {
        client
            .post_empty(&with_query(&format!("/containers/{}/kill", encode(name)), query))
            .await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn simple(session: Rc<Session>, matches: Rc<Matches>, action: &'static str) -> Outcome {
    let client = session.client()?;
    each_argument(&matches.args, 1, |name| async move {
        client.post_empty(&format!("/containers/{}/{action}", encode(name))).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn wait(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    each_argument(&matches.args, AT_ONCE, |name| async move {
        let path = format!("/containers/{}/wait", encode(name));
        let ended: WaitResponse = client.post(&path, &()).await?;
        if let Some(error) = ended.error.filter(|error| !error.message.is_empty()) {
            return Err(Failure::said(error.message));
        }
        Ok(Some(ended.status_code.to_string()))
    })
    .await
}

async fn rm(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let force = matches.flag("force");
    let mut query = Vec::new();
    for (flag, key) in [("force", "force"), ("link", "link"), ("volumes", "v")] {
        if matches.flag(flag) {
            query.push((key, "1"));
        }
    }
    let query = &query;
    each_argument(&matches.args, AT_ONCE, |name| async move {
        let name = name.trim_matches('/');
        if name.is_empty() {
            return Err(Failure::said("container name cannot be empty"));
        }
        match client.delete(&with_query(&format!("/containers/{}", encode(name)), query)).await {
            Ok(_) => Ok(Some(name.to_owned())),
            // What is gone already is what was wanted.
            Err(error) if force && error.status() == Some(404) => {
                crate::output::note(&format!("Error response from daemon: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn rename(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let (old, new) = (matches.arg(0).trim(), matches.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::said("Error: Neither old nor new names may be empty"));
    }
    let path = with_query(&format!("/containers/{}/rename", encode(old)), &[("name", new)]);
    session.client()?.post_empty(&path).await?;
    Ok(0)
}
