//! When to try again, and giving up: backoff with jitter that a caller can cut short.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::config::Retries;

/// Ends the requests of whoever holds a clone, at their next step.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

impl Cancel {
    /// Ends them. A read that waits for the other side ends by its timeout.
    pub fn cancel(&self) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.1.notify_all();
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; true if cancelled meanwhile.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let guard = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.1.wait_timeout_while(guard, time, |cancelled| !*cancelled);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Counts tries without progress.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    retries: Retries,
    tried: u32,
}

impl Backoff {
    pub(super) fn new(retries: Retries) -> Self {
        Self { retries, tried: 0 }
    }

    /// Something came: count anew.
    pub(super) fn reset(&mut self) {
        self.tried = 0;
    }

    /// How long to wait before the next try, `None` when there is none. `asked` is what
    /// the other side wants.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tried += 1;
        if self.tried >= self.retries.attempts {
            return None;
        }
        if let Some(asked) = asked {
            return (asked <= self.retries.max_delay).then_some(asked);
        }
        let doubled = 1u32.checked_shl(self.tried - 1).unwrap_or(u32::MAX);
        let full = self.retries.first_delay.saturating_mul(doubled).min(self.retries.max_delay);
        // Between half and all of it, so that many clients don't come back at once.
        Some(full.mul_f64(0.5 + unit() / 2.0))
    }
}

/// From 0 to 1.
fn unit() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_limit_and_end() {
        let retries = Retries {
            attempts: 5,
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(3),
        };
        let mut backoff = Backoff::new(retries);
        let delays: Vec<_> = std::iter::from_fn(|| backoff.next(None)).collect();
        assert_eq!(delays.len(), 4);
        for (delay, full) in delays.iter().zip([1.0, 2.0, 3.0, 3.0]) {
            let delay = delay.as_secs_f64();
            assert!((full / 2.0..=full).contains(&delay), "{delay} for {full}");
        }
        backoff.reset();
        let asked = Duration::from_secs(2);
        assert_eq!(backoff.next(Some(asked)), Some(asked));
        assert_eq!(backoff.next(Some(Duration::from_secs(4))), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let after = |text| retry_after(text, now);
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Fri, 02 Jan 2026 03:05:05 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Fri, 02 Jan 2026 03:00:05 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_cancelled_wait_ends_at_once() {
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(cancel.wait(Duration::from_secs(3600)));
    }
}
