//! The cgroup of a container against the real kernel, in whatever hierarchies it has.
//!
//! Needs root. Each test has a cgroup path of its own and removes it, also when it fails.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use capsa_oci::runtime::{Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources};
use capsa_runtime::cgroup::{Cgroup, Controller, Hierarchies};

/// A cgroup that is emptied and removed when the test ends, however it ends.
struct Scratch(Cgroup);

impl Scratch {
    fn new(name: &str, resources: &Resources) -> Self {
        Self(Cgroup::create(&path(name), Some(resources)).unwrap())
    }

    /// A child that is in the cgroup before the script begins.
    fn spawn(&self, script: &str) -> Child {
        let fds = self.0.join_fds().unwrap();
        assert!(!fds.is_empty() || self.0.v2_fd().is_some());
        // The shell moves itself; "0" is the writer.
        let own = |fd: RawFd, rest: &str| {
            format!("echo 0 > /proc/{}/fd/{fd}{rest} || exit 99\n", std::process::id())
        };
        let mut joined: String = fds.iter().map(|fd| own(fd.as_raw_fd(), "")).collect();
        if let Some(fd) = self.0.v2_fd() {
            joined.push_str(&own(fd.as_raw_fd(), "/cgroup.procs"));
        }
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{joined} echo -n @\n{script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The descriptors must live until it has joined.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.freeze(false);
        let _ = self.0.kill_all();
        let _ = self.0.remove();
        for parent in self.0.directories().filter_map(|directory| directory.parent()) {
            if parent.file_name().is_some_and(|name| name.as_bytes().starts_with(b"capsa-test")) {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/capsa-test-{}-{name}", std::process::id())
}

fn has(controller: Controller) -> bool {
    let hierarchies = Hierarchies::discover().unwrap();
    hierarchies.v1_of(controller).is_some() || hierarchies.v2_has(controller)
}

fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn memory(limit: i64) -> Resources {
    Resources {
        memory: Some(Memory { limit: Some(limit), swap: Some(limit), ..Memory::default() }),
        ..Resources::default()
    }
}

#[test]
fn limits_are_in_force_and_nothing_is_left_after_removal() {
    let resources = Resources {
        cpu: Some(Cpu { quota: Some(50_000), period: Some(100_000), ..Cpu::default() }),
        pids: Some(Pids { limit: Some(42) }),
        ..memory(64 << 20)
    };
    let scratch = Scratch::new("limits", &resources);
    let stats = scratch.0.stats();
    assert_eq!(stats.memory.limit, 64 << 20);
    assert_eq!(stats.pids.limit, Some(42));
    let directories: Vec<_> = scratch.0.directories().map(ToOwned::to_owned).collect();
    assert!(directories.iter().all(|directory| directory.is_dir()));
    scratch.0.remove().unwrap();
    assert!(directories.iter().all(|directory| !directory.exists()));
    scratch.0.remove().unwrap();
}

#[test]
fn a_child_joins_and_is_counted_frozen_and_killed() {
    let scratch = Scratch::new("life", &Resources::default());
    let mut child = scratch.spawn("echo in; read x; while :; do sleep 100 & wait; done");
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(scratch.0.pids().unwrap(), [child.id()]);
    scratch.0.freeze(true).unwrap();
    assert!(scratch.0.is_frozen());
    scratch.0.freeze(false).unwrap();
    assert!(!scratch.0.is_frozen());
    scratch.0.freeze(true).unwrap();
    scratch.0.kill_all().unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(scratch.0.is_empty().unwrap());
    scratch.0.remove().unwrap();
}

#[test]
fn what_forks_all_the_time_is_killed_to_the_last() {
    let scratch = Scratch::new("bomb", &Resources::default());
    let forks = "while :; do /bin/true; done";
    let script = format!("for i in 1 2 3 4 5 6 7 8 9; do ({forks}) & done; {forks}");
    let mut child = scratch.spawn(&script);
    assert!(wait_until(|| scratch.0.pids().unwrap().len() > 9));
    scratch.0.kill_all().unwrap();
    child.wait().unwrap();
    assert!(wait_until(|| scratch.0.is_empty().unwrap()));
    scratch.0.remove().unwrap();
}

#[test]
fn the_oom_killer_is_counted() {
    let scratch = Scratch::new("oom", &memory(16 << 20));
    assert_eq!(scratch.0.oom_kills(), 0);
    let mut child = scratch.spawn("x=x; while :; do x=$x$x; done");
    child.wait().unwrap();
    assert!(scratch.0.oom_kills() > 0);
    assert!(scratch.0.stats().memory.oom_kills > 0);
}

#[test]
fn limits_can_be_raised_lowered_and_added_while_it_runs() {
    let mut scratch = Scratch::new("update", &memory(32 << 20));
    let mut child = scratch.spawn("echo in; read x");
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    for limit in [128 << 20, 32 << 20] {
        scratch.0.update(&memory(limit)).unwrap();
        assert_eq!(scratch.0.stats().memory.limit, limit.unsigned_abs());
    }
    let too_low = Resources {
        memory: Some(Memory {
            limit: Some(1),
            check_before_update: Some(true),
            ..Memory::default()
        }),
        ..Resources::default()
    };
    assert!(scratch.0.update(&too_low).unwrap_err().to_string().contains("uses"));
    if has(Controller::Cpuset) {
        let pinned = Cpu { cpus: Some("0".into()), ..Cpu::default() };
        let resources = Resources { cpu: Some(pinned), ..Resources::default() };
        scratch.0.update(&resources).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_cpuset_can_be_joined_because_its_parents_are_filled_in() {
    if !has(Controller::Cpuset) {
        return;
    }
    let cpu = Cpu { cpus: Some("0".into()), ..Cpu::default() };
    let scratch = Scratch::new("set/deeper", &Resources { cpu: Some(cpu), ..Resources::default() });
    let output = scratch.spawn("grep Cpus_allowed_list /proc/self/status").wait_with_output();
    assert_eq!(output.unwrap().stdout, b"Cpus_allowed_list:\t0\n");
}

#[test]
fn devices_are_denied_unless_allowed() {
    let probe = "for d in null zero kmsg; do (: < /dev/$d) 2>/dev/null && echo -n $d' '; done";
    let seen = |scratch: &Scratch| {
        let output = scratch.spawn(probe).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let default = Scratch::new("devices", &Resources::default());
    assert_eq!(seen(&default), "null zero ");
    let rule = |major, minor| DeviceRule {
        allow: true,
        kind: Some("c".into()),
        major,
        minor,
        access: Some("rwm".into()),
    };
    let kmsg = Resources { devices: vec![rule(Some(1), Some(11))], ..Resources::default() };
    assert_eq!(seen(&Scratch::new("devices-kmsg", &kmsg)), "null zero kmsg ");
    let all = DeviceRule { allow: true, access: Some("rwm".into()), ..DeviceRule::default() };
    let all = Resources { devices: vec![all], ..Resources::default() };
    assert_eq!(seen(&Scratch::new("devices-all", &all)), "null zero kmsg ");
}

#[test]
fn the_v2_program_denies_devices_too() {
    // Only v2, wherever it is mounted: what a pure v2 machine would do.
    let mut hierarchies = Hierarchies::discover().unwrap();
    hierarchies.v1.clear();
    if hierarchies.v2.is_none() {
        return;
    }
    let name = path("v2-devices");
    let scratch = Scratch(Cgroup::create_in(&hierarchies, &name, None).unwrap());
    assert!(scratch.0.join_fds().unwrap().is_empty());
    let probe = "for d in null kmsg; do (: < /dev/$d) 2>/dev/null && echo -n $d' '; done; read x";
    let mut child = scratch.spawn(probe);
    assert!(wait_until(|| !scratch.0.pids().unwrap().is_empty()));
    scratch.0.freeze(true).unwrap();
    assert!(scratch.0.is_frozen());
    scratch.0.freeze(false).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "null ");
    let mut long = scratch.spawn("sleep 1000");
    scratch.0.kill_all().unwrap();
    assert!(!long.wait().unwrap().success());
    scratch.0.remove().unwrap();
    assert!(Cgroup::open_in(&hierarchies, &name).is_err());
}

#[test]
fn a_huge_page_limit_finds_its_controller_wherever_it_is() {
    if !has(Controller::Hugetlb)
        || !fs::exists("/sys/kernel/mm/hugepages/hugepages-2048kB").unwrap()
    {
        return;
    }
    let page = HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
    let resources = Resources { hugepage_limits: vec![page], ..Resources::default() };
    let scratch = Scratch::new("huge", &resources);
    let read = |file: &str| {
        scratch.0.directories().find_map(|dir| fs::read_to_string(dir.join(file)).ok())
    };
    let value = read("hugetlb.2MB.max").or_else(|| read("hugetlb.2MB.limit_in_bytes")).unwrap();
    assert_eq!(value.trim(), (4 << 20).to_string());
}

#[test]
fn what_the_machine_cannot_limit_is_an_error_and_leaves_nothing() {
    let name = path("refused");
    let unified = [("memory.nonsense".to_owned(), "1".to_owned())].into();
    let resources = Resources { unified, ..Resources::default() };
    Cgroup::create(&name, Some(&resources)).unwrap_err();
    assert!(Cgroup::open(&name).is_err());
    let bad = Resources { pids: Some(Pids { limit: Some(i64::MAX) }), ..Resources::default() };
    let error = Cgroup::create(&name, Some(&bad)).unwrap_err().to_string();
    assert!(error.contains("pids.max"), "{error}");
    assert!(Cgroup::open(&name).is_err());
}

#[test]
fn a_cgroup_with_strangers_in_it_is_not_taken_over() {
    let scratch = Scratch::new("taken", &Resources::default());
    let mut child = scratch.spawn("read x");
    let error = Cgroup::create(scratch.0.path(), None).unwrap_err().to_string();
    assert!(error.contains("processes"), "{error}");
    assert!(!scratch.0.pids().unwrap().is_empty(), "and its processes live on");
    assert!(Cgroup::open(scratch.0.path()).is_ok());
    drop(child.stdin.take());
    child.wait().unwrap();
}
