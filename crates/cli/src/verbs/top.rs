//! `top`: the processes in a container.

use std::rc::Rc;

use capsa_api::encoding::{encode, with_query};
use capsa_api::types::TopResponse;

use super::Outcome;
use crate::flags::{Arity, Command, Matches};
use crate::output::{out, table};
use crate::session::Session;

/// `capsa top`.
pub(crate) static TOP: Command = Command {
    names: &["container top", "top"],
    usage: "CONTAINER [ps OPTIONS]",
    about: "List the processes in a container",
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: false,
    run: |session, matches| Box::pin(top(session, matches)),
};

async fn top(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let options = matches.args[1..].join(" ");
    let query = if options.is_empty() { vec![] } else { vec![("ps_args", options.as_str())] };
    let path = with_query(&format!("/containers/{}/top", encode(matches.arg(0))), &query);
    let shown: TopResponse = session.client()?.get(&path).await?;
    let mut text = shown.titles.join("\t") + "\n";
    for process in &shown.processes {
        text.push_str(&(process.join("\t") + "\n"));
    }
    out(table::align(&text).as_bytes());
    Ok(0)
}
