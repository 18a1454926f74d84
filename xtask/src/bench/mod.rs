//! `cargo xtask bench`: capsa beside the other engines of this host.
//!
//! Ratios, not times: engines take turns run by run, so that what the machine
//! does meanwhile meets all of them alike. A turn is a few runs in a row after a
//! pause; the first of them shows what a loop hides (caches and processors that sleep,
//! a write to cgroup.procs that waits 8 ms). Each number is a median.
//! Not here: absolute promises of time.

mod engines;
mod host;
mod images;
mod measure;
mod memory;
mod oci;
mod registry;
mod table;

use std::process::ExitCode;

use anyhow::{bail, ensure};

use crate::tree;
use engines::Engine;
use host::Host;
use table::Table;

/// How often each thing is measured, unless this variable says otherwise.
const RUNS_VARIABLE: &str = "CAPSA_BENCH_RUNS";
const RUNS: usize = 20;

/// Names another build to measure; without it the release binary is built.
const BINARY_VARIABLE: &str = "CAPSA_BIN";

const NAMES: &[&str] = &["memory", "run", "exec", "burst", "images", "oci"];

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    ensure!(tree::is_root(), "engines make namespaces and mounts: run `cargo xtask bench` as root");
    if let Some(unknown) = arguments.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("no benchmark {unknown:?}; there are {}", NAMES.join(", "));
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|other| other == name);
    let chosen = std::env::var(RUNS_VARIABLE).ok().and_then(|text| text.parse().ok());
    let runs = chosen.unwrap_or(RUNS);
    let binary = match std::env::var_os(BINARY_VARIABLE) {
        Some(binary) => binary.into(),
        None => tree::build_release(&tree::root()?)?,
    };
    let host = Host::set_up()?;
    let mut table = Table::default();
    if ["memory", "run", "exec", "burst", "images"].into_iter().any(wanted) {
        let engines = engines::start_all(&host, &binary)?;
        if wanted("memory") {
            memory::measure(&engines, &mut table)?;
        }
        with_engines(&engines, &wanted, runs, &mut table)?;
        if wanted("images") {
            images::measure(&host, &engines, chosen.unwrap_or(images::RUNS), &mut table)?;
        }
    }
    let mut apart = true;
    if wanted("oci") && oci::must_be_apart() {
        apart = oci::measure_apart()?;
    } else if wanted("oci") {
        oci::measure(&host, &binary, runs, &mut table)?;
    }
    table.print(runs);
    Ok(if table.all_kept() && apart { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn with_engines(
    engines: &[Engine],
    wanted: &dyn Fn(&str) -> bool,
    runs: usize,
    table: &mut Table,
) -> anyhow::Result<()> {
    if wanted("run") {
        let paces = measure::run(engines, runs)?;
        table.compare("run --rm busybox true, bridge", 30.0, paces.busy);
        table.compare("the same on an idle host", 30.0, paces.idle);
    }
    if wanted("exec") {
        let paces = measure::exec(engines, runs)?;
        table.compare("exec true", 20.0, paces.busy);
        table.compare("the same on an idle host", 20.0, paces.idle);
    }
    if wanted("burst") {
        table.compare("50 x run -d, 8 clients", 15.0, measure::burst(engines, runs)?);
    }
    Ok(())
}
