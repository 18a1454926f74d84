//! The binary `capsa`: every role starts here.
//!
//! The role is chosen from the first argument before any thread or runtime exists,
//! because the monitor must stay single-threaded and small. Everything that is no
//! role is a verb: a client of the API on a runtime of one thread.

#![expect(clippy::print_stderr, reason = "this crate is the one that talks to people")]

mod create;
mod daemon;
mod demo;
mod failure;
mod flags;
mod output;
mod session;
mod stream;
mod template;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args_os().nth(1);
    match role.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("monitor") => monitor(),
        Some("daemon") => daemon::run(words(2)),
        Some("oci") => oci(),
        Some("demo") => run_demo(&words(2)),
        _ => verbs::run(words(1)),
    }
}

/// Parent of one container, until it ends.
fn monitor() -> ExitCode {
    ExitCode::from(u8::try_from(capsa_runtime::monitor::run()).unwrap_or(1))
}

/// The verbs that OCI runtimes share.
fn oci() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(2).collect();
    capsa_runtime::oci_cli::run(&words)
}

/// The arguments from `skip` on; what is no UTF-8 is replaced, as the API is JSON.
fn words(skip: usize) -> Vec<String> {
    std::env::args_os().skip(skip).map(|word| word.to_string_lossy().into_owned()).collect()
}

fn run_demo(words: &[String]) -> ExitCode {
    let keep = match words {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => {
            eprintln!("Usage:  capsa demo [--keep]");
            return ExitCode::from(u8::from(words != ["--help"]));
        }
    };
    demo::run(demo::Options { keep }).unwrap_or_else(|error| {
        eprintln!("capsa: {error:#}");
        ExitCode::FAILURE
    })
}
