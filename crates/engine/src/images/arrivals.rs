//! One arrival for each blob: whoever wants a layer that another pull is fetching waits
//! for it, and finds it in the store.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use capsa_oci::Digest;

/// Blobs on their way in, of all pulls and loads of one engine.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    on_the_way: Mutex<HashSet<Digest>>,
    one_came: Condvar,
}

/// The right to fetch one blob, until it is dropped.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    of: &'a Arrivals,
    blob: &'a Digest,
}

impl Arrivals {
    /// Waits until nobody else is fetching `blob`. What they fetched, if they did, is in the
    /// store then.
    pub(super) fn begin<'a>(&'a self, blob: &'a Digest) -> Arrival<'a> {
        let now = self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |blobs: &mut HashSet<Digest>| blobs.contains(blob);
        let now = self.one_came.wait_while(now, busy);
        now.unwrap_or_else(PoisonError::into_inner).insert(blob.clone());
        Arrival { of: self, blob }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.of.on_the_way.lock().unwrap_or_else(PoisonError::into_inner).remove(self.blob);
        self.of.one_came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_blob_arrives_once_at_a_time_and_others_meanwhile() {
        let (arrivals, one, other) =
            (Arrivals::default(), Digest::sha256(b"1"), Digest::sha256(b"2"));
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _arrival = arrivals.begin(&one);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    drop(arrivals.begin(&other));
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                });
            }
        });
        assert!(arrivals.on_the_way.lock().unwrap().is_empty());
    }
}
