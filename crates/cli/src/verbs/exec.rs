//! `exec`: a further process in a running container.
//!
//! Two requests and the conversation on one connection, and one more for the exit code.

use std::rc::Rc;

use capsa_api::encoding::encode;
use capsa_api::types::{ExecCreate, ExecInspect, ExecStart, IdResponse};
use capsa_api::{ClientError, Payload};
use hyper::Method;

use super::Outcome;
use super::run::{detach_keys, start_code, talk};
use crate::create;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::terminal;
use crate::session::Session;
use crate::stream::{End, Streams};

/// `capsa exec`.
pub(crate) static EXEC: Command = Command {
    names: &["container exec", "exec"],
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Run a further command in a running container",
    flags: &[&[
        Flag::switch("detach", "Leave the command in the background").short('d'),
        Flag::text("detach-keys", "Keys that leave the command running"),
        Flag::list("env", "Set a variable, KEY=VALUE, or pass one on, KEY").short('e'),
        Flag::list("env-file", "Read variables from this file"),
        Flag::switch("interactive", "Keep STDIN open").short('i'),
        Flag::switch("privileged", "Give the command all capabilities"),
        Flag::switch("tty", "Give the command a terminal").short('t'),
        Flag::text("user", "User and group, NAME|UID[:GROUP|GID]").short('u'),
        Flag::text("workdir", "Working directory in the container").short('w'),
    ]],
    arity: Arity::AtLeast(2),
    interspersed: false,
    run: |session, matches| Box::pin(exec(session, matches)),
};

async fn exec(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let request = request(&session, &matches)?;
    let (detach, tty, stdin) = (matches.flag("detach"), request.tty, request.attach_stdin);
    if !detach && stdin && tty && !terminal::stdin_is() {
        return Err(Failure::said("the input device is not a TTY"));
    }
    let keys = detach_keys(&session, &matches)?;
    let client = session.client()?;
    let path = format!("/containers/{}/exec", encode(matches.arg(0)));
    let made: IdResponse = client.post(&path, &request).await?;
    let start_path = format!("/exec/{}/start", made.id);
    let start = ExecStart { detach, tty, console_size: request.console_size.clone() };
    if detach {
        client
            .act(Method::POST, &start_path, Payload::json(&start)?)
            .await
            .map_err(start_failure)?;
        return Ok(0);
    }
    let stream = client.hijack(&start_path, &start).await.map_err(start_failure)?;
    let streams = Streams { stdin, tty, stdout: true, stderr: true, detach: keys };
    if talk(client, stream, streams, &format!("/exec/{}", made.id)).await? == End::Detached {
        return Ok(0);
    }
    let after: ExecInspect = client.get(&format!("/exec/{}/json", made.id)).await?;
    Ok(u8::try_from(after.exit_code.unwrap_or(0) & 0xff).unwrap_or(1))
}

fn request(session: &Session, matches: &Matches) -> Result<ExecCreate> {
    let detach = matches.flag("detach");
    let tty = matches.flag("tty");
    let env = create::variables(matches)?;
    let keys = matches.text("detach-keys").or_else(|| session.config().detach_keys.as_deref());
    let size = if tty && !detach { terminal::size() } else { None };
    Ok(ExecCreate {
        user: matches.text_or_empty("user").to_owned(),
        privileged: matches.flag("privileged"),
        tty,
        console_size: size.map(|(rows, columns)| vec![rows.into(), columns.into()]),
        attach_stdin: !detach && matches.flag("interactive"),
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: keys.unwrap_or_default().to_owned(),
        env: (!env.is_empty()).then_some(env),
        working_dir: matches.text_or_empty("workdir").to_owned(),
        cmd: Some(matches.args[1..].to_vec()),
    })
}

/// A program that can't be run is 126 or 127, as a shell says it.
fn start_failure(error: ClientError) -> Failure {
    let code = match start_code(&error.to_string()) {
        125 => 1,
        code => code,
    };
    let mut failure = Failure::from(error);
    failure.code = code;
    failure
}
