//! `events`: what happens, as it happens.

use std::rc::Rc;

use capsa_api::Payload;
use capsa_api::encoding::with_query;
use capsa_api::types::EventMessage;
use hyper::Method;

use super::{Outcome, filters};
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format;
use crate::output::line;
use crate::output::time::{point, precise};
use crate::session::Session;
use crate::template::Value;

/// `capsa events`.
pub(crate) static EVENTS: Command = Command {
    names: &["system events", "events"],
    usage: "[OPTIONS]",
    about: "Show what happens, as it happens",
    flags: &[&[
        Flag::filter("Show only those for which KEY=VALUE holds"),
        Flag::text("format", "json, or a template such as '{{.Action}}'"),
        Flag::text("since", "Begin here: a time, or how long ago, such as 10m"),
        Flag::text("until", "End here: a time, or how long ago"),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(events(session, matches)),
};

async fn events(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let filter = filters(&matches);
    let moment = |flag| matches.text(flag).map(point).transpose().map_err(Failure::said);
    let (since, until) = (moment("since")?, moment("until")?);
    let mut query = Vec::new();
    query.extend(filter.as_deref().map(|filter| ("filters", filter)));
    query.extend(since.as_deref().map(|at| ("since", at)));
    query.extend(until.as_deref().map(|at| ("until", at)));
    let path = with_query("/events", &query);
    let answer = session.client()?.stream(Method::GET, &path, Payload::Empty).await?;
    let mut lines = answer.body.json_lines::<serde_json::Value>();
    while let Some(event) = lines.next().await? {
        line(&show(&event, matches.text("format"))?);
    }
    Ok(0)
}

fn show(event: &serde_json::Value, asked: Option<&str>) -> Result<String> {
    let text = event.to_string();
    match asked {
        Some("json") => Ok(text),
        Some(template) => {
            let mut value: Value =
                serde_json::from_str(&text).map_err(|e| Failure::said(e.to_string()))?;
            if let Value::Map(entries) = &mut value {
                let pick = |name: &str| {
                    entries
                        .iter()
                        .find(|(key, _)| key == name)
                        .map(|(_, v)| v.clone())
                        .unwrap_or_default()
                };
                // Names that templates use beside those of the wire.
                let more = [
                    ("ID", pick("id")),
                    ("Status", pick("status")),
                    ("From", pick("from")),
                    ("Time", pick("time")),
                    ("TimeNano", pick("timeNano")),
                    ("Scope", pick("scope")),
                ];
                entries.extend(more.map(|(key, value)| (key.to_owned(), value)));
            }
            format::one(&value, template)
        }
        None => {
            let event: EventMessage =
                serde_json::from_str(&text).map_err(|error| Failure::said(error.to_string()))?;
            Ok(plain(&event))
        }
    }
}

/// `time type action id (attributes)`.
fn plain(event: &EventMessage) -> String {
    let at = if event.time_nano != 0 { event.time_nano } else { event.time * 1_000_000_000 };
    let mut text = format!("{} {} {} {}", precise(at), event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let pairs: Vec<String> =
            event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text.push_str(&format!(" ({})", pairs.join(", ")));
    }
    text
}
