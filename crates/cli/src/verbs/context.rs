//! Contexts: named daemons, kept in the user's configuration.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

use super::{Outcome, each_argument};
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{self, Format, Titles, row};
use crate::output::{line, note, out};
use crate::session::{Session, context};
use crate::template::Value;

/// `capsa context ls`.
pub(crate) static LS: Command = Command {
    names: &["context ls", "context list"],
    usage: "[OPTIONS]",
    about: "List contexts",
    flags: &[&[
        Flag::text("format", "table, json, or a template such as '{{.Name}}'"),
        Flag::switch("quiet", "Show only names").short('q'),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(async move { ls(&session, &matches) }),
};

/// `capsa context show`.
pub(crate) static SHOW: Command = Command {
    names: &["context show"],
    usage: "",
    about: "Print the name of the current context",
    flags: &[],
    arity: Arity::None,
    interspersed: true,
    run: |session, _| {
        Box::pin(async move {
            line(&current(&session));
            Ok(0)
        })
    },
};

/// `capsa context use`.
pub(crate) static USE: Command = Command {
    names: &["context use"],
    usage: "CONTEXT",
    about: "Make a context the current one",
    flags: &[],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(async move { choose(&session, matches.arg(0)) }),
};

/// `capsa context inspect`.
pub(crate) static INSPECT: Command = Command {
    names: &["context inspect"],
    usage: "[OPTIONS] [CONTEXT...]",
    about: "Show all there is to know of contexts",
    flags: &[&[Flag::text("format", "json, or a template").short('f')]],
    arity: Arity::Any,
    interspersed: true,
    run: |session, matches| Box::pin(async move { inspect(&session, &matches) }),
};

/// `capsa context create`.
pub(crate) static CREATE: Command = Command {
    names: &["context create"],
    usage: "[OPTIONS] CONTEXT",
    about: "Give a daemon a name",
    flags: &[&[
        Flag::text("description", "What it is"),
        Flag::text("docker", "host=unix:///path or host=tcp://host:port"),
        Flag::text("from", "Context to copy"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(async move { create(&session, &matches) }),
};

/// `capsa context rm`.
pub(crate) static RM: Command = Command {
    names: &["context rm", "context remove"],
    usage: "[OPTIONS] CONTEXT [CONTEXT...]",
    about: "Remove contexts",
    flags: &[&[Flag::switch("force", "Also the current one").short('f')]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(rm(session, matches)),
};

const TITLES: Titles = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Current", "CURRENT"),
    ("Error", "ERROR"),
];

fn current(session: &Session) -> String {
    let hosted = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(name) = &session.globals.context {
        return name.clone();
    }
    if session.globals.host.is_some() || hosted("CAPSA_HOST") || hosted("DOCKER_HOST") {
        return "default".to_owned();
    }
    let named = std::env::var("DOCKER_CONTEXT").ok().filter(|name| !name.is_empty());
    named
        .or_else(|| session.config().current_context.clone())
        .unwrap_or_else(|| "default".to_owned())
}

fn ls(session: &Session, matches: &Matches) -> Outcome {
    let current = current(session);
    let rows: Vec<Value> = context::list(session.config())
        .into_iter()
        .map(|context| {
            let is_current = context.name == current;
            let star = if is_current && !matches.flag("quiet") && matches.text("format").is_none() {
                format!("{} *", context.name)
            } else {
                context.name
            };
            row(vec![
                ("Current", is_current.into()),
                ("Description", context.description.into()),
                ("DockerEndpoint", context.host.into()),
                ("Error", "".into()),
                ("Name", star.into()),
            ])
        })
        .collect();
    let columns = "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    Format::choose(matches.text("format"), matches.flag("quiet"), columns, "{{.Name}}")?
        .print(TITLES, &rows)?;
    Ok(0)
}

fn choose(session: &Session, name: &str) -> Outcome {
    context::find(session.config(), name)?;
    let value = (name != "default").then(|| Json::from(name));
    session.config().set("currentContext", value)?;
    line(name);
    note(&format!("Current context is now {name:?}"));
    for variable in ["CAPSA_HOST", "DOCKER_HOST"] {
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            note(&format!(
                "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset {variable} environment variable."
            ));
        }
    }
    Ok(0)
}

fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let names = match matches.args.as_slice() {
        [] => vec![current(session)],
        names => names.to_vec(),
    };
    let mut shown = Vec::new();
    for name in &names {
        let raw = context::find(session.config(), name)?.raw.to_string();
        shown.push(serde_json::from_str::<Value>(&raw).unwrap_or_default());
    }
    match matches.text("format") {
        None => out(super::inspect::indent(&Value::List(shown).json()).as_bytes()),
        Some(template) => {
            for value in &shown {
                line(&format::one(value, template)?);
            }
        }
    }
    Ok(0)
}

fn create(session: &Session, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    let settings: BTreeMap<&str, &str> = matches
        .text_or_empty("docker")
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    if let Some(unknown) =
        settings.keys().find(|key| !["host", "from", "skip-tls-verify"].contains(key))
    {
        return Err(Failure::said(format!(
            "unable to create docker endpoint config: {unknown} is not supported"
        )));
    }
    let from = matches.text("from").or(settings.get("from").copied());
    let host = match (settings.get("host"), from) {
        (Some(host), _) => (*host).to_owned(),
        (None, Some(from)) => context::find(session.config(), from)?.host,
        (None, None) => {
            return Err(Failure::said(
                "docker endpoint configuration is required: --docker host=…",
            ));
        }
    };
    context::store(session.config(), name, matches.text_or_empty("description"), &host, false)?;
    line(name);
    note(&format!("Successfully created context {name:?}"));
    Ok(0)
}

async fn rm(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let (session, force) = (&session, matches.flag("force"));
    each_argument(&matches.args, 1, |name| async move { remove(session, name, force) }).await
}

fn remove(session: &Session, name: &str, force: bool) -> Result<Option<String>> {
    if name == "default" {
        return Err(Failure::said("default: context \"default\" cannot be removed"));
    }
    let current = session.config().current_context.as_deref() == Some(name);
    if current && !force {
        return Err(Failure::said(format!(
            "context {name:?} is in use, set -f flag to force remove"
        )));
    }
    context::remove(session.config(), name)?;
    if current {
        session.config().set("currentContext", None)?;
    }
    Ok(Some(name.to_owned()))
}
