//! A mutational fuzzer for what parses a stranger's bytes, on the stable toolchain.
//!
//! Every input is made from a seed and its number alone, so a finding is repeated by
//! naming both. There is no feedback from coverage: mutations know the formats instead.
//! A finding is a panic, a hang, or a property of the target that doesn't hold; it ends
//! the run. Arithmetic is checked in the dev profile, which is therefore the one to use.
//! Not here: what the properties are (`target`), and how inputs are bent (`mutate`,
//! `text`).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what was found is printed")]

mod mutate;
mod random;
mod tape;
mod target;
mod text;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};

use random::Random;
use target::{Target, all};
use watch::Watch;

const USAGE: &str = "usage: cargo xtask fuzz [TARGET|all] [RUNS] [--seed N] [--from RUN]";
const RUNS: u64 = 10_000;

/// What to do, from the arguments.
struct Order {
    target: String,
    runs: u64,
    seed: u64,
    /// Number of the first input.
    from: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments).and_then(|order| fuzz(&order)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> anyhow::Result<Order> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = u64::from(now.subsec_nanos()) ^ now.as_secs();
    let mut order = Order { target: "all".to_owned(), runs: RUNS, seed, from: 0 };
    let (mut words, mut place) = (arguments.iter(), 0);
    while let Some(word) = words.next() {
        let mut number = || -> anyhow::Result<u64> {
            let value = words.next().with_context(|| format!("{word} needs a number"))?;
            value.parse().with_context(|| format!("{value:?} is no number\n{USAGE}"))
        };
        match (word.as_str(), place) {
            ("--seed", _) => order.seed = number()?,
            ("--from", _) => order.from = number()?,
            (name, 0) if !name.starts_with('-') => (order.target, place) = (name.to_owned(), 1),
            (runs, 1) => {
                order.runs = runs.parse().with_context(|| format!("{runs:?}\n{USAGE}"))?;
                place = 2;
            }
            _ => bail!("{USAGE}"),
        }
    }
    Ok(order)
}

fn fuzz(order: &Order) -> anyhow::Result<()> {
    let mut targets = all()?;
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    if order.target != "all" && !names.contains(&order.target.as_str()) {
        bail!("no target {:?}: there is {}", order.target, names.join(", "));
    }
    targets.retain(|target| order.target == "all" || order.target == target.name());
    println!("seed {}", order.seed);
    for target in &mut targets {
        one(order, target.as_mut())?;
    }
    Ok(())
}

fn one(order: &Order, target: &mut dyn Target) -> anyhow::Result<()> {
    let (name, seed) = (target.name(), order.seed);
    let watch = Watch::start(name, seed)?;
    let (started, mut accepted) = (Instant::now(), 0_u64);
    let end = order.from.saturating_add(order.runs);
    for run in order.from..end {
        watch.begins(run);
        let mut random = Random::new(seed, run);
        let again = format!("cargo xtask fuzz {name} 1 --seed {seed} --from {run}");
        match catch_unwind(AssertUnwindSafe(|| target.run(&mut random))) {
            Ok(Ok(taken)) => accepted += u64::from(taken),
            Ok(Err(error)) => return Err(error.context(format!("found; repeat with: {again}"))),
            Err(_) => bail!("a panic; repeat with: {again}"),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{name}: {} executions in {seconds:.1} s, {accepted} accepted", order.runs);
    Ok(())
}
