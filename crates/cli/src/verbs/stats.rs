//! `stats`: what containers use, once or again and again.

use std::rc::Rc;

use capsa_api::client::JsonLines;
use capsa_api::encoding::encode;
use capsa_api::types::{BlkioStats, ContainerSummary, Stats};
use capsa_api::{Client, Payload};
use hyper::Method;

use super::Outcome;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::units::{binary_size, human_size, short_id};
use crate::output::{note, out};
use crate::session::Session;
use crate::template::Value;

/// `capsa stats`.
pub(crate) static STATS: Command = Command {
    names: &["container stats", "stats"],
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show what containers use of the host",
    flags: &[&[
        Flag::switch("all", "Show those that don't run too").short('a'),
        Flag::text("format", "table, json, or a template such as '{{.Name}}: {{.CPUPerc}}'"),
        Flag::switch("no-stream", "Show one moment and end"),
        Flag::switch("no-trunc", "Don't shorten"),
    ]],
    arity: Arity::Any,
    interspersed: true,
    run: |session, matches| Box::pin(stats(session, matches)),
};

const TITLES: Titles = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

const COLUMNS: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

async fn stats(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let format = Format::choose(matches.text("format"), false, COLUMNS, "")?;
    let whole = matches.flag("no-trunc");
    let once = matches.flag("no-stream");
    let names = names(client, &matches).await?;
    let mut sources = Vec::new();
    let mut failed = false;
    for name in names {
        match open(client, &name, once).await {
            Ok(source) => sources.push((name, source)),
            Err(failure) if failure.remedy.is_some() => return Err(failure),
            Err(failure) => {
                failed = true;
                note(&failure.text);
            }
        }
    }
    if failed && sources.is_empty() {
        return Ok(1);
    }
    loop {
        let mut rows = Vec::new();
        let mut alive = Vec::new();
        for (name, mut source) in sources {
            if let Some(sample) = source.next().await? {
                rows.push(describe(&name, &sample, whole));
                alive.push((name, source));
            }
        }
        sources = alive;
        if !once && matches.text("format").is_none() {
            // Home, and away with what is below: each round takes the place of the last.
            out(b"\x1b[H\x1b[J");
        }
        format.print(TITLES, &rows)?;
        if once || sources.is_empty() {
            return Ok(u8::from(failed));
        }
    }
}

async fn names(client: &Client, matches: &Matches) -> Result<Vec<String>> {
    if !matches.args.is_empty() {
        return Ok(matches.args.clone());
    }
    let path = if matches.flag("all") { "/containers/json?all=1" } else { "/containers/json" };
    let containers: Vec<ContainerSummary> = client.get(path).await?;
    Ok(containers.into_iter().map(|container| container.id).collect())
}

async fn open(client: &Client, name: &str, once: bool) -> Result<JsonLines<Stats>, Failure> {
    let stream = if once { 0 } else { 1 };
    let path = format!("/containers/{}/stats?stream={stream}", encode(name));
    Ok(client.stream(Method::GET, &path, Payload::Empty).await?.body.json_lines())
}

fn describe(asked: &str, sample: &Stats, whole: bool) -> Value {
    let id = if whole { sample.id.as_str() } else { short_id(&sample.id) };
    let memory = &sample.memory_stats;
    let used = memory_used(sample);
    let share = if memory.limit == 0 { 0.0 } else { used as f64 / memory.limit as f64 * 100.0 };
    let (received, sent) = sample
        .networks
        .iter()
        .flatten()
        .fold((0, 0), |(rx, tx), (_, network)| (rx + network.rx_bytes, tx + network.tx_bytes));
    let (read, written) = block_io(&sample.blkio_stats);
    let pair =
        |a: u64, b: u64| format!("{} / {}", human_size(a as f64, 3), human_size(b as f64, 3));
    row(vec![
        ("BlockIO", pair(read, written).into()),
        ("CPUPerc", format!("{:.2}%", cpu_share(sample)).into()),
        ("Container", asked.into()),
        ("ID", id.into()),
        ("MemPerc", format!("{share:.2}%").into()),
        (
            "MemUsage",
            format!("{} / {}", binary_size(used as f64), binary_size(memory.limit as f64)).into(),
        ),
        ("Name", sample.name.trim_start_matches('/').into()),
        ("NetIO", pair(received, sent).into()),
        ("PIDs", sample.pids_stats.current.to_string().into()),
    ])
}

/// What is in use without what the kernel would give back at once.
fn memory_used(sample: &Stats) -> u64 {
    let stats = &sample.memory_stats.stats;
    let idle = stats.get("total_inactive_file").or_else(|| stats.get("inactive_file"));
    let usage = sample.memory_stats.usage;
    idle.filter(|idle| **idle < usage).map_or(usage, |idle| usage - idle)
}

/// Per cent of one CPU between the two samples.
fn cpu_share(sample: &Stats) -> f64 {
    let (now, before) = (&sample.cpu_stats, &sample.precpu_stats);
    let delta = |a: u64, b: u64| a.saturating_sub(b) as f64;
    let used = delta(now.cpu_usage.total_usage, before.cpu_usage.total_usage);
    let system = delta(now.system_cpu_usage, before.system_cpu_usage);
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len().max(1) as f64,
        cpus => f64::from(cpus),
    };
    if used <= 0.0 || system <= 0.0 { 0.0 } else { used / system * cpus * 100.0 }
}

fn block_io(stats: &BlkioStats) -> (u64, u64) {
    let entries = stats.io_service_bytes_recursive.iter().flatten();
    entries.fold((0, 0), |(read, written), entry| match entry.op.chars().next() {
        Some('r' | 'R') => (read + entry.value, written),
        Some('w' | 'W') => (read, written + entry.value),
        _ => (read, written),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_row() {
        let json = r#"{"name":"/web","id":"0123456789abcdef","pids_stats":{"current":3},
            "cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
            "memory_stats":{"usage":3145728,"limit":10485760,"stats":{"inactive_file":1048576}},
            "networks":{"eth0":{"rx_bytes":1000,"tx_bytes":2500}},
            "blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":4096},{"op":"write","value":8192}]}}"#;
        let sample: Stats = serde_json::from_str(json).unwrap();
        let row = describe("web", &sample, false);
        assert_eq!(row.str("CPUPerc"), "40.00%");
        assert_eq!(row.str("MemUsage"), "2MiB / 10MiB");
        assert_eq!(row.str("MemPerc"), "20.00%");
        assert_eq!(row.str("NetIO"), "1kB / 2.5kB");
        assert_eq!(row.str("BlockIO"), "4.1kB / 8.19kB");
    }
}
