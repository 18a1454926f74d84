//! An error at every single step: the daemon that sees it goes on, the operation can be
//! repeated, and the next daemon finds everything whole. Apart from `crash.rs`, because a
//! child that has forked and not yet executed holds the lock of a root opened here.

mod fixture;

use capsa_store::Store;
use capsa_store::fault::{self, Fault};
use fixture::operations::{OPERATIONS, prepared};
use fixture::{assert_whole, scratch};

#[test]
fn an_error_at_any_step_leaves_a_whole_store_and_the_operation_can_be_repeated() {
    for (name, operation) in OPERATIONS {
        let mut steps = 0;
        for nth in 1.. {
            let root = scratch();
            let store = prepared(root.path());
            fault::arm(nth, Fault::Error);
            let done = operation(&store);
            if fault::disarm() {
                done.unwrap();
                break;
            }
            steps = nth;
            // The daemon that saw the error goes on; the next one starts from the disk.
            operation(&store).unwrap_or_else(|e| panic!("{name} after step {nth}: {e}"));
            drop(store);
            assert_whole(&Store::open(root.path()).unwrap());
        }
        assert!(steps >= 2, "{name} has only {steps} steps where it can fail");
    }
}
