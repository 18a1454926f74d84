//! `run` and `create`: make a container, and for `run` start it and stay with it.
//!
//! As few requests as can be: create; then attach and wait side by side, so that
//! neither output nor exit can be missed; then start. Detached it's create and
//! start on one connection.

use std::fs::{self, File};
use std::io::Write;
use std::rc::Rc;

use capsa_api::encoding::with_query;
use capsa_api::types::{CreateRequest, CreateResponse, WaitResponse};
use capsa_api::{Client, ClientError, Hijacked, Payload};
use hyper::Method;

use super::Outcome;
use super::pull::{self, Shown};
use crate::create;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::{line, note, terminal};
use crate::session::Session;
use crate::stream::detach::DetachKeys;
use crate::stream::signals::{self, Caught};
use crate::stream::{End, Streams, converse};

const RUN_ONLY: &[Flag] = &[
    Flag::switch("detach", "Run in the background and print the container's id").short('d'),
    Flag::text("detach-keys", "Keys that leave the container running"),
    Flag::switch("sig-proxy", "Hand signals on to the process (default true)"),
];

/// `capsa run`.
pub(crate) static RUN: Command = Command {
    names: &["container run", "run"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image and run it",
    flags: &[
        create::flags::PROCESS,
        create::flags::STORAGE,
        create::flags::NETWORK,
        create::flags::SECURITY,
        create::flags::CHANGEABLE,
        create::flags::LIMITS,
        RUN_ONLY,
    ],
    arity: Arity::AtLeast(1),
    interspersed: false,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// `capsa create`.
pub(crate) static CREATE: Command = Command {
    names: &["container create", "create"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image without starting it",
    flags: &[
        create::flags::PROCESS,
        create::flags::STORAGE,
        create::flags::NETWORK,
        create::flags::SECURITY,
        create::flags::CHANGEABLE,
        create::flags::LIMITS,
    ],
    arity: Arity::AtLeast(1),
    interspersed: false,
    run: |session, matches| Box::pin(create_only(session, matches)),
};

async fn create_only(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let made = async {
        let mut request = create::body(&matches, &session.endpoint()?)?;
        add_proxies(&session, &mut request);
        create_container(&session, &matches, &request).await
    };
    let id = made.await.map_err(|failure| failure.of_run(&session.name, 1))?;
    line(&id);
    Ok(0)
}

async fn run(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let name = session.name.as_str();
    let wrong = |failure: Failure| failure.of_run(name, 125);
    let mut request =
        session.endpoint().and_then(|endpoint| create::body(&matches, &endpoint)).map_err(wrong)?;
    let config = &request.config;
    if config.attach_stdin && config.tty && !terminal::stdin_is() {
        return Err(Failure::said("the input device is not a TTY"));
    }
    if config.tty
        && let Some((rows, columns)) = terminal::size()
    {
        request.host_config.console_size = vec![rows.into(), columns.into()];
    }
    add_proxies(&session, &mut request);
    let keys = detach_keys(&session, &matches).map_err(wrong)?;
    let detached = matches.flag("detach");
    let attached =
        request.config.attach_stdin || request.config.attach_stdout || request.config.attach_stderr;
    let forwards = !detached && !request.config.tty && matches.switch("sig-proxy").unwrap_or(true);
    let id = create_container(&session, &matches, &request).await.map_err(wrong)?;
    let client = session.client()?;
    if detached || !attached {
        start(client, &id, name).await?;
        line(&id);
        return Ok(0);
    }
    let caught = if forwards { Some(Caught::forwarded()?) } else { None };
    let life = accompany(client, &id, &request, keys, name);
    match caught {
        None => life.await,
        Some(caught) => tokio::select! {
            code = life => code,
            () = signals::forward(client, &id, caught) => Ok(0),
        },
    }
}

/// Attaches, starts, shows what comes, and returns the exit code.
async fn accompany(
    client: &Client,
    id: &str,
    request: &CreateRequest,
    keys: DetachKeys,
    name: &str,
) -> Outcome {
    let config = &request.config;
    let streams = Streams {
        stdin: config.attach_stdin,
        tty: config.tty,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        detach: keys,
    };
    let condition = if request.host_config.auto_remove { "removed" } else { "next-exit" };
    let attach_path = attach_path(id, &streams);
    let wait_path = format!("/containers/{id}/wait?condition={condition}");
    let (attached, waiting) = tokio::try_join!(
        client.hijack(&attach_path, &()),
        client.stream(Method::POST, &wait_path, Payload::Empty),
    )
    .map_err(|error| Failure::from(error).of_run(name, 125))?;
    let exit = async move {
        let mut lines = waiting.body.json_lines::<WaitResponse>();
        Ok::<_, Failure>(lines.next().await?.unwrap_or_default())
    };
    if let Err(failure) = start(client, id, name).await {
        if request.host_config.auto_remove {
            let _ = exit.await;
        }
        return Err(failure);
    }
    if talk(client, attached, streams, &format!("/containers/{id}")).await? == End::Detached {
        return Ok(0);
    }
    exit_code(&exit.await?)
}

/// Converses, and keeps the size of a terminal up to date meanwhile.
pub(crate) async fn talk(
    client: &Client,
    stream: Hijacked,
    streams: Streams,
    path: &str,
) -> Result<End> {
    if !streams.tty || !terminal::stdout_is() {
        return converse(stream, streams).await;
    }
    tokio::select! {
        end = converse(stream, streams) => end,
        () = signals::follow_size(client, path, false) => Ok(End::Closed),
    }
}

/// The path that attaches these streams.
pub(crate) fn attach_path(id: &str, streams: &Streams) -> String {
    let mut query = vec![("stream", "1")];
    for (wanted, name) in
        [(streams.stdin, "stdin"), (streams.stdout, "stdout"), (streams.stderr, "stderr")]
    {
        if wanted {
            query.push((name, "1"));
        }
    }
    with_query(&format!("/containers/{id}/attach"), &query)
}

/// The program's exit code; an error of the daemon's while waiting is 125.
pub(crate) fn exit_code(response: &WaitResponse) -> Outcome {
    match &response.error {
        Some(error) if !error.message.is_empty() => {
            Err(Failure::new(125, format!("Error waiting for container: {}", error.message)))
        }
        _ => Ok(u8::try_from(response.status_code & 0xff).unwrap_or(1)),
    }
}

/// The keys of the flag, or of the configuration file.
pub(crate) fn detach_keys(session: &Session, matches: &Matches) -> Result<DetachKeys> {
    let keys = matches.text("detach-keys").or_else(|| session.config().detach_keys.as_deref());
    Ok(DetachKeys::parse(keys)?)
}

/// Starts; a program that can't be run is 126 or 127.
async fn start(client: &Client, id: &str, name: &str) -> Result<()> {
    match client.post_empty(&format!("/containers/{id}/start")).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let code = start_code(&error.to_string());
            Err(Failure::from(error).of_run(name, code))
        }
    }
}

/// 127 when the program isn't there, 126 when it can't be executed, else 125.
pub(crate) fn start_code(message: &str) -> u8 {
    let says = |text: &str| message.contains(text);
    if says("executable file not found") || says("no such file or directory") {
        127
    } else if says("permission denied") || says("is a directory") || says("exec format error") {
        126
    } else {
        125
    }
}

async fn create_container(
    session: &Session,
    matches: &Matches,
    request: &CreateRequest,
) -> Result<String> {
    let policy = matches.text("pull").unwrap_or("missing");
    if !["always", "missing", "never", ""].contains(&policy) {
        return Err(Failure::said(format!(
            "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    let mut id_file = IdFile::open(&request.host_config.container_id_file)?;
    let client = session.client()?;
    let image = &request.config.image;
    let platform = platform(matches);
    let mut query = Vec::new();
    query.extend(matches.text("name").map(|name| ("name", name)));
    query.extend(platform.as_deref().map(|platform| ("platform", platform)));
    let path = with_query("/containers/create", &query);
    let shown = if matches.flag("quiet") { Shown::Nothing } else { Shown::OnStderr };
    if policy == "always" {
        pull::pull(session, image, platform.as_deref(), shown).await?;
    }
    let first: Result<CreateResponse, ClientError> = client.post(&path, request).await;
    let made = match first {
        Err(error) if policy == "missing" && is_missing_image(&error) => {
            if shown != Shown::Nothing {
                note(&format!("Unable to find image '{}' locally", pull::with_tag(image)));
            }
            pull::pull(session, image, platform.as_deref(), shown).await?;
            client.post(&path, request).await?
        }
        other => other?,
    };
    for warning in &made.warnings {
        note(&format!("WARNING: {warning}"));
    }
    id_file.write(&made.id)?;
    Ok(made.id)
}

/// `--platform`, or what `DOCKER_DEFAULT_PLATFORM` says.
pub(crate) fn platform(matches: &Matches) -> Option<String> {
    let chosen = matches.text("platform").map(str::to_owned);
    chosen.or_else(|| std::env::var("DOCKER_DEFAULT_PLATFORM").ok()).filter(|text| !text.is_empty())
}

/// Only a missing image may be pulled: a missing network or container is something else.
fn is_missing_image(error: &ClientError) -> bool {
    let ClientError::Api { status: 404, message } = error else { return false };
    message.to_lowercase().contains("no such image")
}

/// Proxies of the configuration file, where the user has not set the variable.
fn add_proxies(session: &Session, request: &mut CreateRequest) {
    if session.config().raw.is_empty() {
        return;
    }
    let host = session.endpoint().map(|endpoint| endpoint.to_string()).unwrap_or_default();
    for (name, value) in session.config().proxy_variables(&host) {
        let variables = request.config.env.get_or_insert_default();
        let prefix = format!("{name}=");
        if !variables.iter().any(|set| set.starts_with(&prefix) || *set == name) {
            variables.push(format!("{name}={value}"));
        }
    }
}

/// `--cidfile`: made before the container, removed again when nothing comes of it.
struct IdFile {
    path: String,
    file: Option<File>,
    written: bool,
}

impl IdFile {
    fn open(path: &str) -> Result<Self> {
        if path.is_empty() {
            return Ok(Self { path: String::new(), file: None, written: true });
        }
        let file = File::options().write(true).create_new(true).open(path).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => Failure::said(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )),
                _ => Failure::said(format!(
                    "failed to create the container ID file: {}",
                    Failure::io("open", path, &error).text
                )),
            }
        })?;
        Ok(Self { path: path.to_owned(), file: Some(file), written: false })
    }

    fn write(&mut self, id: &str) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(id.as_bytes())
                .map_err(|error| Failure::io("write", &self.path, &error))?;
        }
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = fs::remove_file(&self.path);
        }
    }
}
