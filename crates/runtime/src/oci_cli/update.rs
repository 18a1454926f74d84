//! `update`: changes the limits of a container in use.

use std::io::Read;
use std::process::ExitCode;

use capsa_oci::runtime::{BlockIo, Cpu, Memory, Pids, Resources};

use super::args::{Opt, Parsed, value};
use super::make::wrong;
use super::record::{Record, Status};
use super::{Globals, args};
use crate::{Error, Result};

const UPDATE: [Opt; 19] = [
    value("resources").or('r'),
    value("memory"),
    value("memory-reservation"),
    value("memory-swap"),
    value("kernel-memory"),
    value("kernel-memory-tcp"),
    value("blkio-weight"),
    value("cpu-period"),
    value("cpu-quota"),
    value("cpu-burst"),
    value("cpu-share"),
    value("cpu-shares"),
    value("cpu-rt-period"),
    value("cpu-rt-runtime"),
    value("cpu-idle"),
    value("cpuset-cpus"),
    value("cpuset-mems"),
    value("pids-limit"),
    value("l3-cache-schema"),
];

/// `update ID`, with options or a JSON document.
pub(super) fn update(globals: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &UPDATE)?;
    let record = Record::load(&globals.root, parsed.id()?)?;
    if record.status() == Status::Stopped {
        return Err(wrong(&record, "container not running"));
    }
    let changes = match parsed.get("resources") {
        Some(path) => from_file(path)?,
        None => from_options(&parsed)?,
    };
    let mut cgroup = record.open_cgroup().ok_or_else(|| wrong(&record, "its cgroup is gone"))?;
    cgroup.update(&changes)?;
    let mut spec = record.spec()?;
    let linux = spec.linux.get_or_insert_default();
    merge(linux.resources.get_or_insert_default(), changes);
    record.save_spec(&spec)?;
    Ok(ExitCode::SUCCESS)
}

fn from_file(path: &str) -> Result<Resources> {
    let mut text = String::new();
    let read = match path {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|file| text = file),
    };
    read.map_err(|e| capsa_sys::Error::from_io("read", path, &e))?;
    serde_json::from_str(&text).map_err(|e| Error::invalid(path, e.to_string()))
}

fn from_options(parsed: &Parsed) -> Result<Resources> {
    let word = |name| parsed.get(name).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let shares = parsed.number("cpu-share")?;
    let memory = Memory {
        limit: bytes(parsed, "memory")?,
        reservation: bytes(parsed, "memory-reservation")?,
        swap: bytes(parsed, "memory-swap")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: shares.map_or_else(|| parsed.number("cpu-shares"), |shares| Ok(Some(shares)))?,
        quota: parsed.number("cpu-quota")?,
        burst: parsed.number("cpu-burst")?,
        period: parsed.number("cpu-period")?,
        realtime_runtime: parsed.number("cpu-rt-runtime")?,
        realtime_period: parsed.number("cpu-rt-period")?,
        cpus: word("cpuset-cpus"),
        mems: word("cpuset-mems"),
        idle: parsed.number("cpu-idle")?,
    };
    let weight = parsed.number("blkio-weight")?;
    let limit = parsed.number("pids-limit")?;
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// Bytes, with an optional unit `b`, `k`, `m`, `g` or `t` of 1024; -1 is unlimited.
fn bytes(parsed: &Parsed, name: &str) -> Result<Option<i64>> {
    let Some(text) = parsed.get(name) else { return Ok(None) };
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units.iter().find(|(letter, _)| plain.ends_with(*letter));
    let (digits, shift) = unit.map_or((plain, 0), |(_, shift)| (&plain[..plain.len() - 1], *shift));
    let number = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number
        .filter(|number| *number >= -1)
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("--{name} {text}"), "not a size like 64m"))
}

/// What was changed replaces what was, field by field.
fn merge(all: &mut Resources, changes: Resources) {
    fn field<T>(old: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *old = new;
        }
    }
    if let Some(new) = changes.memory {
        let old = all.memory.get_or_insert_default();
        field(&mut old.limit, new.limit);
        field(&mut old.reservation, new.reservation);
        field(&mut old.swap, new.swap);
        field(&mut old.swappiness, new.swappiness);
    }
    if let Some(new) = changes.cpu {
        let old = all.cpu.get_or_insert_default();
        field(&mut old.shares, new.shares);
        field(&mut old.quota, new.quota);
        field(&mut old.burst, new.burst);
        field(&mut old.period, new.period);
        field(&mut old.realtime_runtime, new.realtime_runtime);
        field(&mut old.realtime_period, new.realtime_period);
        field(&mut old.cpus, new.cpus);
        field(&mut old.mems, new.mems);
        field(&mut old.idle, new.idle);
    }
    field(&mut all.pids, changes.pids);
    field(&mut all.block_io, changes.block_io);
    if !changes.hugepage_limits.is_empty() {
        all.hugepage_limits = changes.hugepage_limits;
    }
    all.unified.extend(changes.unified);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Resources> {
        let args: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        from_options(&args::parse(&args, &UPDATE)?)
    }

    #[test]
    fn sizes_have_units() {
        let limit = |text: &str| options(&format!("--memory {text} id")).ok()?.memory?.limit;
        for (text, expected) in
            [("1024", 1024), ("64m", 64 << 20), ("2GiB", 2 << 30), ("1KB", 1024), ("-1", -1)]
        {
            assert_eq!(limit(text), Some(expected), "{text}");
        }
        for bad in ["-2", "x", "m", "9999999t", "1.5m"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        let mut all = options("--memory 1m --cpu-quota 5 id").unwrap();
        merge(&mut all, options("--cpu-period 7 --pids-limit 3 id").unwrap());
        assert_eq!(all.memory.unwrap().limit, Some(1 << 20));
        let cpu = all.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(5), Some(7)));
        assert_eq!(all.pids.unwrap().limit, Some(3));
    }
}
