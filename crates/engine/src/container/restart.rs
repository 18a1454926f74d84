//! The restart policy: whether a container that ended is started again, and when.
//!
//! Pure. Docker's rules: the delay starts at 100 ms and doubles up to a minute; it
//! starts over after a run of 10 seconds or more.

use std::time::Duration;

use crate::spec::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(10);

/// The delay before the next try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The delay after a run that took `ran`.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= SETTLED {
            self.next = FIRST;
        }
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay
    }
}

/// Whether a container with this policy is started again after an exit with `code`,
/// having been started again `count` times before.
pub(crate) fn wanted(policy: RestartPolicy, code: i32, count: u32, stopped_by_user: bool) -> bool {
    match policy {
        _ if stopped_by_user => false,
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(most) => code != 0 && (most == 0 || count < most),
    }
}

/// Whether it is started when the daemon starts and finds it stopped.
pub(crate) fn wanted_at_boot(policy: RestartPolicy, stopped_by_user: bool) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !stopped_by_user,
        RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_to_a_minute_and_starts_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> =
            (0..12).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(delays[..4], [100, 200, 400, 800]);
        assert_eq!(delays[11], 60_000);
        assert_eq!(backoff.after(SETTLED), FIRST);
    }

    #[test]
    fn policies_follow_dockers_table() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        assert!(!wanted(No, 1, 0, false));
        assert!(wanted(Always, 0, 99, false));
        assert!(!wanted(Always, 0, 0, true));
        assert!(wanted(OnFailure(2), 1, 1, false));
        assert!(!wanted(OnFailure(2), 1, 2, false));
        assert!(!wanted(OnFailure(0), 0, 0, false));
        assert!(wanted_at_boot(Always, true) && !wanted_at_boot(UnlessStopped, true));
    }
}
