//! Every verb of the client, and the way from argv to the one that is meant.

mod attach;
mod commit;
mod context;
mod cp;
mod events;
mod exec;
mod files;
mod help;
mod images;
mod info;
mod inspect;
mod layers;
mod lifecycle;
mod logs;
mod network;
mod port;
mod progress;
mod prune;
mod ps;
mod pull;
mod registry;
mod run;
mod stats;
mod system;
mod top;
mod update;
mod volume;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::Poll;

use crate::failure::{Failure, Remedy, Result};
use crate::flags::{Command, Flag, Matches, Stop, command_help, parse};
use crate::output::{note, out};
use crate::session::{Globals, Session, autostart};

/// Most requests under way at once for a verb with many arguments.
pub(crate) const AT_ONCE: usize = 16;

/// What a verb ends with: its exit code.
pub(crate) type Outcome = Result<u8>;
/// A verb at work.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;
/// What a verb does.
pub(crate) type Verb = fn(Rc<Session>, Rc<Matches>) -> Running;

/// A verb that was found in argv.
pub(crate) struct Found {
    /// The verb.
    pub(crate) command: &'static Command,
    /// As it was spelled.
    pub(crate) name: String,
    /// Words used up by the name.
    pub(crate) used: usize,
}

/// Every verb.
pub(crate) static COMMANDS: &[&Command] = &[
    &run::RUN,
    &run::CREATE,
    &exec::EXEC,
    &ps::PS,
    &attach::ATTACH,
    &lifecycle::START,
    &lifecycle::STOP,
    &lifecycle::RESTART,
    &lifecycle::KILL,
    &lifecycle::PAUSE,
    &lifecycle::UNPAUSE,
    &lifecycle::WAIT,
    &lifecycle::RM,
    &lifecycle::RENAME,
    &logs::LOGS,
    &cp::CP,
    &files::DIFF,
    &files::EXPORT,
    &commit::COMMIT,
    &commit::IMPORT,
    &top::TOP,
    &port::PORT,
    &update::UPDATE,
    &stats::STATS,
    &images::LS,
    &images::RM,
    &images::TAG,
    &images::HISTORY,
    &images::LOAD,
    &images::SAVE,
    &layers::TREE,
    &layers::DIFF,
    &inspect::ANY,
    &inspect::CONTAINER,
    &inspect::IMAGE,
    &inspect::VOLUME,
    &inspect::NETWORK,
    &volume::CREATE,
    &volume::LS,
    &volume::RM,
    &network::CREATE,
    &network::LS,
    &network::RM,
    &network::CONNECT,
    &network::DISCONNECT,
    &prune::CONTAINERS,
    &prune::IMAGES,
    &prune::VOLUMES,
    &prune::NETWORKS,
    &prune::SYSTEM,
    &events::EVENTS,
    &info::INFO,
    &info::VERSION,
    &system::DF,
    &pull::PULL,
    &registry::PUSH,
    &registry::SEARCH,
    &registry::LOGIN,
    &registry::LOGOUT,
    &registry::BUILD,
    &context::LS,
    &context::SHOW,
    &context::USE,
    &context::INSPECT,
    &context::CREATE,
    &context::RM,
];

/// Flags before the verb.
const GLOBAL: &[Flag] = &[
    Flag::text("config", "Folder of the client's configuration (default ~/.docker)"),
    Flag::text("context", "Context to use instead of the current one").short('c'),
    Flag::switch("debug", "Say more").short('D'),
    Flag::list("host", "Daemon to talk to, unix:///path or tcp://host:port").short('H'),
    Flag::text("log-level", "Level of messages: debug, info, warn, error, fatal").short('l'),
    Flag::switch("tls", "Not supported: use a Unix socket over SSH").hide(),
    Flag::text("tlscacert", "").hide(),
    Flag::text("tlscert", "").hide(),
    Flag::text("tlskey", "").hide(),
    Flag::switch("tlsverify", "").hide(),
    Flag::switch("version", "Print the version").short('v'),
];

/// The client as a whole, as a command whose arguments are a verb.
pub(crate) static CLIENT: Command = Command {
    names: &[""],
    usage: "[OPTIONS] COMMAND [ARG...]",
    about: "A container engine in one binary",
    flags: &[GLOBAL],
    arity: crate::flags::Arity::Any,
    interspersed: false,
    run: |_, _| Box::pin(async { Ok(0) }),
};

/// Runs the verb that `words` ask for, and reports how it ended.
pub(crate) fn run(words: Vec<String>) -> ExitCode {
    let code = match prepare(&words) {
        Ok(Some((session, matches, command))) => match drive(session, matches, command) {
            Ok(code) => code,
            Err(failure) => report(&failure),
        },
        Ok(None) => 0,
        Err(failure) => report(&failure),
    };
    // The thread that reads standard input may still be in its read: leave without it.
    std::process::exit(code.into())
}

/// Finds the verb of these words; a group alone or an unknown word is an error.
pub(crate) fn find(words: &[String]) -> Result<Found> {
    let first = words.first().map(String::as_str).unwrap_or_default();
    let second = words.get(1).map(String::as_str).unwrap_or_default();
    let grouped = format!("{first} {second}");
    for (name, used) in [(grouped.as_str(), 2), (first, 1)] {
        if let Some(command) = COMMANDS.iter().find(|command| command.names.contains(&name)) {
            return Ok(Found { command, name: name.to_owned(), used });
        }
    }
    if help::is_group(first) {
        return Err(Failure::said(format!(
            "capsa: unknown command: capsa {grouped}\n\nUsage:  capsa {first}\n\nRun 'capsa {first} --help' for more information"
        )));
    }
    Err(Failure::said(format!(
        "capsa: unknown command: capsa {first}\n\nRun 'capsa --help' for more information"
    )))
}

type Prepared = (Session, Matches, &'static Command);

/// Reads the words; nothing when they only asked for a text, which is then printed.
fn prepare(words: &[String]) -> Result<Option<Prepared>> {
    let global = match parse(&CLIENT, "", words) {
        Ok(matches) => matches,
        Err(Stop::Help) => return show(help::overview()),
        Err(Stop::Wrong(failure)) => {
            return Err(Failure::new(failure.code, failure.text.replace("capsa  ", "capsa ")));
        }
    };
    if global.flag("version") {
        return show(format!("capsa version {}\n", env!("CARGO_PKG_VERSION")));
    }
    let globals = globals(&global)?;
    let words = &global.args;
    if words.is_empty() {
        return show(help::overview());
    }
    if let Some(text) = help::wanted(words) {
        return show(text);
    }
    let found = find(words)?;
    match parse(found.command, &found.name, &words[found.used..]) {
        Ok(matches) => Ok(Some((Session::new(globals, found.name), matches, found.command))),
        Err(Stop::Help) => show(command_help(found.command, &found.name)),
        Err(Stop::Wrong(failure)) => Err(failure),
    }
}

fn show(text: String) -> Result<Option<Prepared>> {
    out(text.as_bytes());
    Ok(None)
}

fn globals(matches: &Matches) -> Result<Globals> {
    if let Some(flag) = ["tls", "tlsverify", "tlscacert", "tlscert", "tlskey"]
        .iter()
        .find(|flag| matches.given(flag))
    {
        return Err(Failure::said(format!(
            "--{flag} is not supported\nhint: reach a remote daemon through a socket forwarded by ssh -L"
        )));
    }
    let hosts = matches.list("host");
    if hosts.len() > 1 {
        return Err(Failure::said("specify only one -H"));
    }
    Ok(Globals {
        host: hosts.first().map(|host| (*host).to_owned()),
        context: matches.text("context").map(str::to_owned),
        config: matches.text("config").map(str::to_owned),
        debug: matches.flag("debug"),
    })
}

/// Runs the verb, once more when no daemon answered or an older one did.
fn drive(session: Session, matches: Matches, command: &Command) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let matches = Rc::new(matches);
    let mut session = Rc::new(session);
    let mut started = false;
    loop {
        let outcome = runtime.block_on((command.run)(session.clone(), matches.clone()));
        let Err(failure) = outcome else { return outcome };
        match failure.remedy {
            Some(Remedy::StartDaemon) if !started && session.is_default_daemon() => {
                started = true;
                autostart::start(&failure)?;
                session = Rc::new(Session::new(session.globals.clone(), session.name.clone()));
            }
            Some(Remedy::Speak(version)) if session.can_still_speak(version) => {
                session = Rc::new(session.speaking(version));
            }
            _ => return Err(failure),
        }
    }
}

fn report(failure: &Failure) -> u8 {
    if !failure.text.is_empty() {
        note(&failure.text);
    }
    failure.code
}

/// Does `each` for every argument, prints the lines it returns in their order, goes
/// on after a failure, and fails at the end if any did. So many are under way at
/// once: verbs that wait for containers take as long as the slowest one.
pub(crate) async fn each_argument<'a, F>(
    arguments: &'a [String],
    at_once: usize,
    each: impl Fn(&'a str) -> F,
) -> Outcome
where
    F: Future<Output = Result<Option<String>>>,
{
    let mut code = 0;
    for some in arguments.chunks(at_once.max(1)) {
        let under_way: Vec<_> = some.iter().map(|argument| Box::pin(each(argument))).collect();
        for result in in_order(under_way).await {
            match result {
                Ok(said) => said.iter().for_each(|text| crate::output::line(text)),
                Err(failure) if failure.remedy.is_some() => return Err(failure),
                Err(failure) => {
                    note(&failure.text);
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

/// Drives all of them at once; their results in the order they were given.
async fn in_order<F: Future + Unpin>(mut under_way: Vec<F>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = under_way.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, slot) in under_way.iter_mut().zip(&mut results) {
            if slot.is_none()
                && let Poll::Ready(result) = Pin::new(future).poll(cx)
            {
                *slot = Some(result);
            }
        }
        match results.iter().all(Option::is_some) {
            true => Poll::Ready(results.iter_mut().filter_map(Option::take).collect()),
            false => Poll::Pending,
        }
    })
    .await
}

/// `--filter` as the API takes it; absent without any.
pub(crate) fn filters(matches: &Matches) -> Option<String> {
    let mut filters = capsa_api::Filters::default();
    for text in matches.list("filter") {
        if let Some((key, value)) = text.split_once('=') {
            filters.add(&key.trim().to_lowercase(), value.trim());
        }
    }
    (!filters.is_empty()).then(|| filters.to_json())
}
