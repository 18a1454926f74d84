//! What happened and happens, as lines.

use bytes::Bytes;
use capsa_api::types::{Actor, EventMessage};
use capsa_api::{Filters, Version};
use capsa_engine::view::Event;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::error::{ApiError, Result};
use crate::filter::events::{KEYS, passes};
use crate::reply::{self, Reply, ReplyBody};
use crate::request::Call;
use crate::router::routes;
use crate::time;

routes! {
    GET "events" => events;
}

/// What one subscriber wants.
struct Wanted {
    filters: Filters,
    version: Version,
    until_ns: Option<i64>,
}

async fn events(call: Call) -> Result<Reply> {
    let since_ns = time::unix(call.query("since"), "since")?;
    let until_ns = time::unix(call.query("until"), "until")?;
    if let (Some(since), Some(until)) = (since_ns, until_ns)
        && since > until
    {
        return Err(ApiError::bad_request("`since` time cannot be after `until` time"));
    }
    let wanted = Wanted { filters: call.filters(KEYS)?, version: call.version, until_ns };
    let now = time::now_ns();
    let only_past = until_ns.is_some_and(|until| until <= now);
    let (past, live) =
        call.engine.events().subscribe(since_ns.or(until_ns.map(|_| 0).filter(|_| only_past)));
    let (lines, body) = unbounded_channel();
    for event in &past {
        wanted.send(event, &lines);
    }
    if !only_past {
        tokio::spawn(follow(wanted, live, lines));
    }
    Ok(reply::stream("application/json", ReplyBody::Lines(body)))
}

/// Passes events on until the client leaves, the time is over, or the engine ends.
async fn follow(wanted: Wanted, mut live: Receiver<Event>, lines: UnboundedSender<Bytes>) {
    let over = async {
        match wanted.until_ns {
            Some(until) => {
                let left = u64::try_from(until - time::now_ns()).unwrap_or(0);
                tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            event = live.recv() => match event {
                Ok(event) => wanted.send(&event, &lines),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            () = lines.closed() => return,
            () = &mut over => return,
        }
    }
}

impl Wanted {
    /// Sends an event as a line, if it is wanted.
    fn send(&self, event: &Event, lines: &UnboundedSender<Bytes>) {
        if !passes(&self.filters, event) || self.until_ns.is_some_and(|until| event.time_ns > until)
        {
            return;
        }
        if let Ok(mut line) = serde_json::to_vec(&message(event, self.version)) {
            line.push(b'\n');
            // A client that left is noticed by whoever feeds the lines.
            let _ = lines.send(line.into());
        }
    }
}

fn message(event: &Event, version: Version) -> EventMessage {
    let mut message = EventMessage {
        kind: event.kind.clone(),
        action: event.action.clone(),
        actor: Actor { id: event.id.clone(), attributes: event.attributes.clone() },
        scope: "local".to_owned(),
        time: event.time_ns.div_euclid(1_000_000_000),
        time_nano: event.time_ns,
        ..EventMessage::default()
    };
    let has_status = matches!(event.kind.as_str(), "container" | "image");
    if has_status && !version.at_least(52) {
        message.status.clone_from(&event.action);
        message.id.clone_from(&event.id);
        message.from = event.attributes.get("image").cloned().unwrap_or_default();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_events_have_the_old_fields_too_and_others_do_not() {
        let mut event = Event {
            kind: "container".to_owned(),
            action: "die".to_owned(),
            id: "abc".to_owned(),
            attributes: [
                ("image".to_owned(), "x".to_owned()),
                ("exitCode".to_owned(), "0".to_owned()),
            ]
            .into(),
            time_ns: 1_000_000_001,
        };
        let shown = serde_json::to_string(&message(&event, Version::MAX)).unwrap();
        assert_eq!(
            shown,
            r#"{"status":"die","id":"abc","from":"x","Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"0","image":"x"}},"scope":"local","time":1,"timeNano":1000000001}"#
        );
        event.kind = "volume".to_owned();
        let shown = serde_json::to_string(&message(&event, Version::MAX)).unwrap();
        assert!(shown.starts_with(r#"{"Type":"volume""#), "{shown}");
    }
}
