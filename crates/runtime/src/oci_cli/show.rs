//! `state`, `list`, `ps` and `events`: what is known of containers.

use std::fmt::Write;
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::args::{flag, value};
use super::make::wrong;
use super::record::{OCI_VERSION, Record, Status};
use super::{Globals, args, say, say_json};
use crate::cgroup::{Cgroup, Stats};
use crate::{Error, Result};

/// `state ID`.
pub(super) fn state(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[])?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    say_json(&entry(&record))
}

/// `list`.
pub(super) fn list(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[value("format").or('f'), flag("quiet").or('q')])?;
    let all = Record::all(&globals.root);
    if parsed.has("quiet") {
        return say(&all.iter().map(|record| format!("{}\n", record.id)).collect::<String>());
    }
    match parsed.get("format").unwrap_or("table") {
        "json" => {
            let entries: Vec<_> = all.iter().map(entry).collect();
            say(&format!("{}\n", Value::from(entries)))
        }
        "table" => say(&table(&all)),
        other => Err(Error::invalid(format!("--format {other}"), "not table or json")),
    }
}

/// `ps ID [OPTIONS OF ps(1)]`.
pub(super) fn ps(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[value("format").or('f')])?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    // Callers put the format before the id or after it.
    let after = args::parse(&parsed.words[1..], &[value("format").or('f')]);
    let format = parsed.get("format").map(ToOwned::to_owned);
    let format = format.or_else(|| after.ok()?.get("format").map(ToOwned::to_owned));
    let pids = record.open_cgroup().map_or_else(|| Ok(Vec::new()), |cgroup| cgroup.pids())?;
    match format.as_deref().unwrap_or("table") {
        "json" => say(&format!("{}\n", json!(pids))),
        "table" => process_table(&pids, &parsed.words[1..]),
        other => Err(Error::invalid(format!("--format {other}"), "not table or json")),
    }
}

/// `events [--stats] [--interval SECONDS] ID`.
pub(super) fn events(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[flag("stats"), value("interval")])?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    if record.status() == Status::Stopped {
        return Err(wrong(&record, "container with id is not running"));
    }
    let cgroup = record.open_cgroup().ok_or_else(|| wrong(&record, "its cgroup is gone"))?;
    let interval = seconds(parsed.get("interval").unwrap_or("5s"))?;
    let pidfd = capsa_sys::process::pidfd_open(record.pid)?;
    let mut kills = cgroup.oom_kills();
    loop {
        say_event(&record.id, "stats", &stats(&cgroup))?;
        if parsed.has("stats") {
            return Ok(ExitCode::SUCCESS);
        }
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ended = matches!(poll(&mut fds, Some(&interval)), Ok(1..));
        let now = cgroup.oom_kills();
        if now > kills {
            say_event(&record.id, "oom", &Value::Null)?;
        }
        kills = now;
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn entry(record: &Record) -> Value {
    let status = record.status();
    let annotations = record.spec().map(|spec| spec.annotations).unwrap_or_default();
    json!({
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status.word(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": annotations,
        "owner": "root",
    })
}

fn table(all: &[Record]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for record in all {
        let status = record.status();
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        rows.push([
            record.id.clone(),
            pid.to_string(),
            status.word().to_owned(),
            record.bundle.display().to_string(),
            record.created.clone(),
            "root".to_owned(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0).max(9) + 3).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(5) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{}", row[5]);
    }
    text
}

/// The host's ps(1), cut down to the container's processes.
fn process_table(pids: &[u32], options: &[String]) -> Result<ExitCode> {
    let own = ["-ef".to_owned()];
    let options = if options.is_empty() { &own[..] } else { options };
    let output = Command::new("ps").args(options).output();
    let output = output.map_err(|e| capsa_sys::Error::from_io("exec", "ps", &e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::invalid(format!("ps {}", options.join(" ")), said));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_ascii_whitespace().position(|name| name == "PID");
    let column =
        column.ok_or_else(|| Error::invalid("ps", "couldn't find PID field in ps output"))?;
    let mine = lines.filter(|line| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    });
    let kept: Vec<&str> = std::iter::once(title).chain(mine).collect();
    say(&format!("{}\n", kept.join("\n")))
}

fn say_event(id: &str, kind: &str, data: &Value) -> Result<ExitCode> {
    let mut event = json!({ "type": kind, "id": id });
    if let (Value::Object(event), false) = (&mut event, data.is_null()) {
        event.insert("data".to_owned(), data.clone());
    }
    say(&format!("{event}\n"))
}

fn stats(cgroup: &Cgroup) -> Value {
    let Stats { cpu, memory, pids, io } = cgroup.stats();
    let entries = |read: fn(&crate::cgroup::IoStats) -> (u64, u64)| -> Vec<Value> {
        let both = |one: &crate::cgroup::IoStats| {
            let (reads, writes) = read(one);
            [("Read", reads), ("Write", writes)].map(|(op, value)| {
                json!({ "major": one.major, "minor": one.minor, "op": op, "value": value })
            })
        };
        io.iter().flat_map(both).collect()
    };
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns,
                "percpu": cpu.per_cpu_ns,
                "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "cache": memory.cache,
            "usage": {
                "limit": memory.limit,
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": memory.failures,
            },
            "swap": { "usage": memory.swap },
            "raw": memory.detail,
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": entries(|io| (io.read_bytes, io.write_bytes)),
            "ioServicedRecursive": entries(|io| (io.reads, io.writes)),
        },
    })
}

/// `5s`, `500ms`, `2m`.
fn seconds(text: &str) -> Result<Timespec> {
    let invalid = || Error::invalid(format!("--interval {text}"), "not a duration like 5s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i64 = digits.parse().map_err(|_| invalid())?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    let milliseconds = milliseconds.filter(|ms| *ms > 0).ok_or_else(invalid)?;
    Ok(Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let of = |text| seconds(text).map(|time| (time.tv_sec, time.tv_nsec)).ok();
        assert_eq!(of("5s"), Some((5, 0)));
        assert_eq!(of("1500ms"), Some((1, 500_000_000)));
        assert_eq!(of("2m"), Some((120, 0)));
        for bad in ["", "s", "0s", "-1s", "5h", "9223372036854775807m"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
