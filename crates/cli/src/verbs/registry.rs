//! What talks to registries besides pull: push, search, login, logout; and build.
//!
//! The daemon decides what it can do of these; its answer is what is shown.

use std::io::{BufRead, Read, Write};
use std::rc::Rc;

use capsa_api::Payload;
use capsa_api::encoding::with_query;
use capsa_api::types::AuthResponse;
use capsa_oci::Reference;
use hyper::Method;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::images::image_path;
use super::progress::{Shown, follow};
use super::pull::{auth_header, auth_key};
use super::{Outcome, filters};
use crate::create::map;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::units::ellipsis;
use crate::output::{line, note, out, terminal};
use crate::session::Session;
use crate::session::credentials::{self, Kept, Secret};
use crate::template::Value;

/// `capsa push`.
pub(crate) static PUSH: Command = Command {
    names: &["image push", "push"],
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Send an image to a registry",
    flags: &[&[
        Flag::switch("all-tags", "Send every tag of the repository").short('a'),
        Flag::switch("disable-content-trust", "Accepted for compatibility"),
        Flag::text("platform", "Only this platform of the image"),
        Flag::switch("quiet", "Print only the image's name").short('q'),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(push(session, matches)),
};

/// `capsa search`.
pub(crate) static SEARCH: Command = Command {
    names: &["search"],
    usage: "[OPTIONS] TERM",
    about: "Look for images in a registry",
    flags: &[&[
        Flag::filter("Show only those for which KEY=VALUE holds"),
        Flag::text("format", "table, json, or a template"),
        Flag::int("limit", "Most results"),
        Flag::switch("no-trunc", "Don't shorten"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(search(session, matches)),
};

/// `capsa login`.
pub(crate) static LOGIN: Command = Command {
    names: &["login"],
    usage: "[OPTIONS] [SERVER]",
    about: "Store user and password for a registry",
    flags: &[&[
        Flag::text("password", "Password").short('p'),
        Flag::switch("password-stdin", "Take the password from STDIN"),
        Flag::text("username", "User").short('u'),
    ]],
    arity: Arity::AtMost(1),
    interspersed: true,
    run: |session, matches| Box::pin(login(session, matches)),
};

/// `capsa logout`.
pub(crate) static LOGOUT: Command = Command {
    names: &["logout"],
    usage: "[SERVER]",
    about: "Forget user and password for a registry",
    flags: &[],
    arity: Arity::AtMost(1),
    interspersed: true,
    run: |session, matches| Box::pin(async move { logout(&session, matches.arg(0)) }),
};

/// `capsa build`.
pub(crate) static BUILD: Command = Command {
    names: &["image build", "builder build", "build"],
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image from a Dockerfile",
    flags: &[&[
        Flag::list("build-arg", "Build argument, KEY=VALUE"),
        Flag::text("file", "Name of the Dockerfile in the context").short('f'),
        Flag::list("label", "Label of the image, KEY=VALUE"),
        Flag::text("network", "Network of RUN instructions"),
        Flag::switch("no-cache", "Build every step anew"),
        Flag::text("platform", "Platform of the image"),
        Flag::switch("pull", "Look for a newer base image"),
        Flag::switch("quiet", "Print only the image's id").short('q'),
        Flag::list("tag", "Name of the image").short('t'),
        Flag::text("target", "Stage to build"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(build(session, matches)),
};

async fn push(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let reference =
        Reference::parse(matches.arg(0)).map_err(|error| Failure::said(error.to_string()))?;
    let all = matches.flag("all-tags");
    if all && reference.tag().is_some() {
        return Err(Failure::said("tag can't be used with --all-tags/-a"));
    }
    let quiet = matches.flag("quiet");
    if !all && reference.tag().is_none() && !quiet {
        line("Using default tag: latest");
    }
    let tagged = if all { reference.clone() } else { reference.clone().with_default_tag() };
    let mut query = Vec::new();
    query.extend(tagged.tag().map(|tag| ("tag", tag)));
    query.extend(matches.text("platform").map(|platform| ("platform", platform)));
    let path =
        with_query(&format!("/images/{}/push", image_path(&reference.familiar_name())), &query);
    let headers = auth_header(session.config(), reference.domain());
    let client = session.client()?;
    let answer = client.stream_with(Method::POST, &path, Payload::Empty, &headers).await?;
    follow(answer.body, if quiet { Shown::Nothing } else { Shown::OnStdout }).await?;
    if quiet {
        line(&tagged.canonical());
    }
    Ok(0)
}

const SEARCH_TITLES: Titles = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
];

async fn search(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let filter = filters(&matches);
    let mut query = vec![("term", matches.arg(0))];
    query.extend(matches.text("limit").map(|limit| ("limit", limit)));
    query.extend(filter.as_deref().map(|filter| ("filters", filter)));
    let path = with_query("/images/search", &query);
    let bytes = session.client()?.bytes(Method::GET, &path, Payload::Empty).await?;
    let found: Value =
        serde_json::from_slice(&bytes).map_err(|error| Failure::said(error.to_string()))?;
    let whole = matches.flag("no-trunc");
    let rows: Vec<Value> = found
        .items()
        .iter()
        .map(|item| {
            let description = item.str("description").replace(['\n', '\r'], " ");
            let shown = if whole { description } else { ellipsis(&description, 45) };
            row(vec![
                ("Name", item.str("name").into()),
                ("Description", shown.into()),
                ("StarCount", item.int("star_count").to_string().into()),
                ("IsOfficial", if item.bool("is_official") { "[OK]" } else { "" }.into()),
            ])
        })
        .collect();
    let columns = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
    Format::choose(matches.text("format"), false, columns, "")?.print(SEARCH_TITLES, &rows)?;
    Ok(0)
}

async fn login(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let domain = match matches.arg(0) {
        "" => "docker.io",
        server => server
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .trim_end_matches('/'),
    };
    let key = auth_key(domain);
    let (user, password) = asked(&matches)?;
    let request = json!({ "username": user, "password": password, "serveraddress": key });
    let answer: AuthResponse = session.client()?.post("/auth", &request).await?;
    let secret = match answer.identity_token.as_str() {
        "" => Secret::Password(user, password),
        token => Secret::Token(token.to_owned()),
    };
    if credentials::store(session.config(), key, &secret)? == Kept::InFile {
        note(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n",
            session.config().directory.join("config.json").display()
        ));
    }
    line(if answer.status.is_empty() { "Login Succeeded" } else { &answer.status });
    Ok(0)
}

fn logout(session: &Session, server: &str) -> Outcome {
    let domain = if server.is_empty() { "docker.io" } else { server };
    let key = auth_key(domain);
    if !credentials::erase(session.config(), key)? {
        line(&format!("Not logged in to {key}"));
        return Ok(0);
    }
    line(&format!("Removing login credentials for {key}"));
    Ok(0)
}

/// User and password from flags, standard input, or the user.
fn asked(matches: &Matches) -> Result<(String, String)> {
    let user = matches.text_or_empty("username");
    if matches.flag("password-stdin") {
        if user.is_empty() {
            return Err(Failure::said("Must provide --username with --password-stdin"));
        }
        if matches.given("password") {
            return Err(Failure::said("--password and --password-stdin are mutually exclusive"));
        }
        let mut password = String::new();
        std::io::stdin().read_to_string(&mut password)?;
        return Ok((user.to_owned(), password.trim_end_matches(['\n', '\r']).to_owned()));
    }
    if matches.given("password") {
        note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let missing = user.is_empty() || !matches.given("password");
    if missing && !terminal::stdin_is() {
        return Err(Failure::said(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let user = if user.is_empty() { prompt("Username: ", true)? } else { user.to_owned() };
    let password = match matches.text("password") {
        Some(password) => password.to_owned(),
        None => prompt("Password: ", false)?,
    };
    Ok((user, password))
}

/// Asks on the terminal, with or without showing what is typed.
fn prompt(question: &str, echo: bool) -> Result<String> {
    out(question.as_bytes());
    std::io::stdout().flush()?;
    let stdin = rustix::stdio::stdin();
    let before = tcgetattr(stdin).map_err(std::io::Error::from)?;
    let mut silent = before.clone();
    silent.local_modes.set(LocalModes::ECHO, echo);
    tcsetattr(stdin, OptionalActions::Now, &silent).map_err(std::io::Error::from)?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    tcsetattr(stdin, OptionalActions::Now, &before).map_err(std::io::Error::from)?;
    if !echo {
        out(b"\n");
    }
    read?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

async fn build(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let source = matches.arg(0);
    let pairs = |flag| serde_json::to_string(&map(&matches.list(flag))).unwrap_or_default();
    let (arguments, labels) = (pairs("build-arg"), pairs("label"));
    let remote = source.contains("://") || source.starts_with("git@");
    let mut query = vec![
        ("dockerfile", matches.text("file").unwrap_or("Dockerfile")),
        ("buildargs", arguments.as_str()),
        ("labels", labels.as_str()),
        ("rm", "1"),
    ];
    query.extend(matches.list("tag").into_iter().map(|tag| ("t", tag)));
    for (flag, key) in [("target", "target"), ("network", "networkmode"), ("platform", "platform")]
    {
        query.extend(matches.text(flag).map(|value| (key, value)));
    }
    for (flag, key) in [("no-cache", "nocache"), ("pull", "pull"), ("quiet", "q")] {
        if matches.flag(flag) {
            query.push((key, "1"));
        }
    }
    if remote {
        query.push(("remote", source));
    }
    let client = session.answering_client().await?;
    let payload = match source {
        _ if remote => Payload::Empty,
        "-" => Payload::tar(std::io::stdin()),
        folder => Payload::tar(super::cp::folder_archive(folder)?),
    };
    let answer = client.stream(Method::POST, &with_query("/build", &query), payload).await?;
    follow(answer.body, Shown::OnStdout).await?;
    Ok(0)
}
