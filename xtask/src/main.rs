//! The project's own tasks, run as `cargo xtask TASK`.
//!
//! Scripts are Rust too, so that the one toolchain is all a contributor needs
//! and a task is checked by the compiler like everything else.
//! Not here: anything a user of capsa runs.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task's result is what it prints")]

mod bench;
mod packages;
mod size;
mod test;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "usage: cargo xtask TASK

tasks:
  tidy             check the tree's own rules; every problem is path:line: message
  tidy --ratchet   the same, after lowering the recorded number of unsafe blocks
  test [ARGS]      install what the tests need (Debian), build, run every test; as root
  bench [NAMES]    ratios against docker, podman, crun and runc on this host; as root
  fuzz [TARGET] [RUNS] [--seed N] [--from RUN]
                   hostile inputs for the parsers: tar, manifest, reference, archive,
                   registry; as root
  size             the size of the release binary against its target";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let Some((task, rest)) = arguments.split_first() else {
        println!("{USAGE}");
        return Ok(ExitCode::FAILURE);
    };
    match task.as_str() {
        "tidy" => tidy::run(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "fuzz" => test::fuzz(rest),
        "size" => size::run(),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        unknown => bail!("no task {unknown:?}\n{USAGE}"),
    }
}
