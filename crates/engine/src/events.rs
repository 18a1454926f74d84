//! What happened: a bounded past and a live broadcast.
//!
//! A subscriber that falls behind the live buffer loses the oldest events, never
//! stalls the engine. The past is kept in memory only, as Docker does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::clock;
use crate::view::Event;

/// Events kept for `--since`, and the length of the live buffer.
const KEPT: usize = 1024;

/// The engine's event log.
#[derive(Debug)]
pub struct Events {
    past: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { past: Mutex::new(VecDeque::new()), live: broadcast::channel(KEPT).0 }
    }
}

impl Events {
    /// Records that `action` happened to the object `id` of `kind`.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let event = Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes,
            time_ns: clock::now_ns(),
        };
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listening is no failure.
        let _ = self.live.send(event);
    }

    /// The kept events from `since_ns` on, and everything after them: no gap, no overlap.
    pub fn subscribe(&self, since_ns: Option<i64>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let seen = since_ns.map_or_else(Vec::new, |since| {
            past.iter().filter(|event| event.time_ns >= since).cloned().collect()
        });
        (seen, live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subscriber_sees_the_past_it_asks_for_and_all_that_follows() {
        let events = Events::default();
        events.emit("container", "create", "a", BTreeMap::new());
        let (past, mut live) = events.subscribe(Some(0));
        events.emit("container", "start", "a", BTreeMap::new());
        assert_eq!(past.iter().map(|e| e.action.as_str()).collect::<Vec<_>>(), ["create"]);
        assert_eq!(live.recv().await.unwrap().action, "start");
        assert!(events.subscribe(None).0.is_empty());
    }

    #[test]
    fn the_past_is_bounded() {
        let events = Events::default();
        for n in 0..KEPT + 10 {
            events.emit("image", "tag", &n.to_string(), BTreeMap::new());
        }
        let (past, _live) = events.subscribe(Some(0));
        assert_eq!((past.len(), past[0].id.as_str()), (KEPT, "10"));
    }
}
