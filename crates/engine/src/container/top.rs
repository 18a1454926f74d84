//! The processes of a container, as `ps` would show them, read from /proc
//! (proc_pid_stat(5), proc_pid_status(5)).
//!
//! Docker runs the host's `ps`; this engine depends on no program, so it knows the
//! forms that people use: `-ef` (the default), `aux`, and `-o` with a list of columns.

use std::fs;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::record::Record;
use crate::world::World;
use crate::{Error, Result, clock};

/// Titles and rows of one process listing.
pub(crate) type Table = (Vec<String>, Vec<Vec<String>>);

/// A column: its title and how its cell is made.
type Column = (&'static str, fn(&Process) -> String);

const FULL: [&str; 8] = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "args"];
const USER: [&str; 11] =
    ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tt", "stat", "start", "time", "command"];

/// Clock ticks in a second, the same on every Linux that we run on (sysconf(3)).
const TICKS: u64 = 100;

/// What /proc says of one process.
#[derive(Debug, Default)]
struct Process {
    pid: u32,
    ppid: u32,
    uid: u32,
    state: char,
    ticks: u64,
    started_s: i64,
    age_s: u64,
    vsz_kib: u64,
    rss_kib: u64,
    memory_kib: u64,
    name: String,
    command: String,
}

/// Lists the processes of a running container.
///
/// # Errors
/// `InvalidInput` for arguments that are not known.
pub(crate) fn processes(world: &World, record: &Record, arguments: &str) -> Result<Table> {
    let columns = columns(arguments)?;
    let boot_s = boot_time();
    let memory_kib = total_memory();
    let pids = world.cgroup(record)?.pids().map_err(|error| Error::kernel(error.to_string()))?;
    let rows = pids
        .into_iter()
        .filter_map(|pid| read(pid, boot_s, memory_kib))
        .map(|process| columns.iter().map(|(_, cell)| cell(&process)).collect())
        .collect();
    Ok((columns.iter().map(|(title, _)| (*title).to_owned()).collect(), rows))
}

fn columns(arguments: &str) -> Result<Vec<Column>> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let names: Vec<&str> = match words.as_slice() {
        [] | ["-ef" | "-fe" | "-f"] => FULL.to_vec(),
        ["aux" | "-aux" | "u" | "-u"] => USER.to_vec(),
        ["-eo" | "-o" | "o" | "-Ao", list @ ..] if !list.is_empty() => {
            list.iter().flat_map(|part| part.split(',')).filter(|name| !name.is_empty()).collect()
        }
        _ => {
            return Err(Error::invalid(format!("ps arguments {arguments:?} are not known"))
                .with_hint("use none, -ef, aux, or -o with columns such as pid,ppid,user,args"));
        }
    };
    names.into_iter().map(column).collect()
}

fn column(name: &str) -> Result<Column> {
    let column: Column = match name {
        "uid" => ("UID", |p| p.uid.to_string()),
        "user" => ("USER", |p| p.uid.to_string()),
        "pid" => ("PID", |p| p.pid.to_string()),
        "ppid" => ("PPID", |p| p.ppid.to_string()),
        "c" => ("C", |p| (percent_cpu(p) as u64).to_string()),
        "%cpu" | "pcpu" => ("%CPU", |p| format!("{:.1}", percent_cpu(p))),
        "%mem" | "pmem" => {
            ("%MEM", |p| format!("{:.1}", 100.0 * p.rss_kib as f64 / p.memory_kib.max(1) as f64))
        }
        "vsz" => ("VSZ", |p| p.vsz_kib.to_string()),
        "rss" => ("RSS", |p| p.rss_kib.to_string()),
        "tty" | "tt" => ("TTY", |_| "?".to_owned()),
        "stat" | "s" | "state" => ("STAT", |p| p.state.to_string()),
        "stime" => ("STIME", start_time),
        "start" => ("START", start_time),
        "time" => ("TIME", |p| hms(p.ticks / TICKS)),
        "etime" => ("ELAPSED", |p| hms(p.age_s)),
        "args" | "cmd" => ("CMD", |p| p.command.clone()),
        "command" => ("COMMAND", |p| p.command.clone()),
        "comm" => ("COMMAND", |p| p.name.clone()),
        other => return Err(Error::invalid(format!("ps column {other:?} is not known"))),
    };
    Ok(column)
}

fn percent_cpu(process: &Process) -> f64 {
    100.0 * process.ticks as f64 / TICKS as f64 / process.age_s.max(1) as f64
}

fn start_time(process: &Process) -> String {
    let time = Timestamp::from_second(process.started_s).unwrap_or_default();
    TimeZone::UTC.to_datetime(time).strftime("%H:%M").to_string()
}

fn hms(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `None` when it has ended meanwhile.
fn read(pid: u32, boot_s: i64, memory_kib: u64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut process = parse_stat(&stat)?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let number = |name: &str| {
        field(name).and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    process.pid = pid;
    process.uid = u32::try_from(number("Uid:")).unwrap_or(u32::MAX);
    process.vsz_kib = number("VmSize:");
    process.rss_kib = number("VmRSS:");
    process.memory_kib = memory_kib;
    process.started_s += boot_s;
    let now_s = clock::now_ns() / 1_000_000_000;
    process.age_s = u64::try_from(now_s - process.started_s).unwrap_or(0);
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    process.command = String::from_utf8_lossy(&words.join(&b' ')).into_owned();
    if process.command.is_empty() {
        process.command = format!("[{}]", process.name);
    }
    Some(process)
}

/// The name is in parentheses and may hold anything, so the last one ends it.
fn parse_stat(text: &str) -> Option<Process> {
    let (head, tail) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        state: fields.first()?.chars().next()?,
        ppid: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)?,
        started_s: i64::try_from(number(19)? / TICKS).ok()?,
        name,
        ..Process::default()
    })
}

fn boot_time() -> i64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn total_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read_whole() {
        let text = "7 (a) (b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 1200 0 0";
        let process = parse_stat(text).unwrap();
        assert_eq!((process.name.as_str(), process.state, process.ppid), ("a) (b", 'S', 1));
        assert_eq!((process.ticks, process.started_s), (200, 12));
    }

    #[test]
    fn known_forms_of_ps_have_their_columns() {
        let titles = |arguments| -> Vec<_> {
            columns(arguments).unwrap().into_iter().map(|(title, _)| title).collect()
        };
        assert_eq!(titles("")[..3], ["UID", "PID", "PPID"]);
        assert_eq!(titles("aux")[10], "COMMAND");
        assert_eq!(titles("-o pid,comm"), ["PID", "COMMAND"]);
        assert!(columns("--forest").is_err());
    }
}
