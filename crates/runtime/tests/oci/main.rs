//! The OCI verbs through real processes on a real kernel.
//!
//! No test harness of threads: each verb is this same executable, started with the argument
//! `oci` as the product's binary is. Needs root and the package busybox-static.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bundle;
mod cases;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|role| role == "oci") {
        return capsa_runtime::oci_cli::run(&args[2..]);
    }
    // What `cargo test` and its runners ask of a harness.
    if args.iter().any(|arg| arg == "--list") {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let text: Vec<&str> = args[1..].iter().filter_map(|arg| arg.to_str()).collect();
    let wanted: Vec<&&str> = text.iter().filter(|arg| !arg.starts_with('-')).collect();
    // What a detached container leaves behind is ours to wait for.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut failed = 0;
    for (name, case) in cases::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(**part)) {
            continue;
        }
        let outcome = catch_unwind(AssertUnwindSafe(case));
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(outcome.is_err());
    }
    println!("\ntest result: {}. {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    ExitCode::from(u8::from(failed > 0))
}
