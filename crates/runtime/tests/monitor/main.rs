//! Containers through a real monitor on a real kernel.
//!
//! No test harness of threads: the monitor is this same executable, started again with
//! the argument `monitor`, as the product's binary starts itself; likewise for verbs that
//! make a container without a monitor. Needs root and the
//! package busybox-static.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod cases;
mod measure;
mod verbs;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("monitor") {
        return ExitCode::from(u8::try_from(capsa_runtime::monitor::run()).unwrap_or(1));
    }
    if args.get(1).map(String::as_str) == Some("verb") {
        return verbs::play(&args[2], args[3].as_ref());
    }
    // What `cargo test` and its runners ask of a harness.
    if args.iter().any(|arg| arg == "--list") {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if args.get(1).map(String::as_str) == Some("measure") {
        measure::run(args.get(2).and_then(|n| n.parse().ok()).unwrap_or(50));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args[1..].iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in cases::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let outcome = catch_unwind(AssertUnwindSafe(case));
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(outcome.is_err());
    }
    println!("\ntest result: {}. {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    ExitCode::from(u8::from(failed > 0))
}
