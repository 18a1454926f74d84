//! Root in a container is nobody on the host: the facts, from both sides.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use capsa_it::{Cli, Daemon};

fn sleeper(d: &Daemon, args: &[&str]) -> String {
    d.ok(&[&["run", "-d"], args, &["busybox", "sleep", "99"]].concat())
}

fn pid(d: &Daemon, id: &str) -> String {
    d.inspect(id, "{{.State.Pid}}")
}

/// First host id and length of the one line in a map.
fn range(d: &Daemon, id: &str, map: &str) -> (u32, u32) {
    let text = fs::read_to_string(format!("/proc/{}/{map}", pid(d, id))).unwrap();
    let words: Vec<u32> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!((words.len(), words[0]), (3, 0), "{text}");
    (words[1], words[2])
}

#[test]
fn every_container_has_an_id_range_of_its_own() {
    let d = Daemon::start(Cli::Docker);
    let ids: Vec<_> = (0..3).map(|_| sleeper(&d, &[])).collect();
    let mut ranges: Vec<_> = ids.iter().map(|id| range(&d, id, "uid_map")).collect();
    assert!(ranges.iter().all(|(first, length)| *first >= 65_536 && *length == 65_536));
    assert_eq!(ranges, ids.iter().map(|id| range(&d, id, "gid_map")).collect::<Vec<_>>());
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:?}");
    let status = fs::metadata(format!("/proc/{}", pid(&d, &ids[0]))).unwrap();
    assert!(status.uid() >= 65_536, "root inside has no host root's uid");
    assert_eq!(d.ok(&["exec", &ids[0], "id", "-u"]), "0");
}

#[test]
fn a_container_sees_only_itself() {
    let d = Daemon::start(Cli::Docker);
    let id = sleeper(&d, &[]);
    let ps = d.ok(&["exec", &id, "ps", "-o", "pid,comm"]);
    assert_eq!(ps.lines().count(), 3, "header, sleep and ps itself: {ps}");
    assert_eq!(d.ok(&["exec", &id, "cat", "/proc/1/comm"]), "sleep");
    let mounts = d.ok(&["exec", &id, "cat", "/proc/mounts"]);
    assert!(mounts.lines().any(|line| line.contains(" / overlay rw,")), "{mounts}");
    assert!(!mounts.contains(" /etc/shadow"), "{mounts}");
    for namespace in ["pid", "net", "mnt", "uts", "ipc", "user", "cgroup"] {
        let theirs = fs::read_link(format!("/proc/{}/ns/{namespace}", pid(&d, &id))).unwrap();
        let ours = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(theirs, ours, "{namespace}");
    }
}

#[test]
fn the_confinement_is_docker_s() {
    let d = Daemon::start(Cli::Docker);
    let id = sleeper(&d, &[]);
    let status = d.ok(&["exec", &id, "cat", "/proc/1/status"]);
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "0");
    let refused = |script: &str| {
        let output = d.run(&["exec", &id, "sh", "-c", script]);
        assert_ne!(output.code, 0, "{script}: {}", output.stdout);
    };
    refused("mount -t tmpfs x /tmp");
    // Were one of these allowed, it would change nothing on the host.
    refused("v=$(cat /proc/sys/vm/swappiness); echo $v > /proc/sys/vm/swappiness");
    refused("echo h > /proc/sysrq-trigger");
    refused("mknod /tmp/sda b 8 0 && cat /tmp/sda");
    refused("cat /proc/kcore | head -c 1 | grep -q .");
    refused("chroot / unshare -m true");
    refused("touch /sys/f");
    assert_eq!(d.ok(&["exec", &id, "sh", "-c", "ls /sys/firmware | wc -l"]), "0");
    let dev = d.ok(&["exec", &id, "ls", "/dev"]);
    // A link to /proc/kcore is there if the kernel has that.
    let dev: Vec<_> = dev.lines().filter(|name| *name != "core").collect();
    let wanted = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    assert_eq!(dev, wanted);
    d.ok(&["exec", &id, "sh", "-c", "echo x > /dev/null && head -c 4 /dev/urandom > /dev/zero"]);
}

#[test]
fn privilege_is_asked_for() {
    let d = Daemon::start(Cli::Docker);
    let all = sleeper(&d, &["--privileged"]);
    let caps = d.ok(&["exec", &all, "grep", "CapEff", "/proc/1/status"]);
    // All that the host's root has here.
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    assert!(ours.contains(&caps), "{caps}");
    d.ok(&["exec", &all, "mount", "-t", "tmpfs", "x", "/tmp"]);
    let some = sleeper(&d, &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]);
    let caps = d.ok(&["exec", &some, "grep", "CapEff", "/proc/1/status"]);
    assert!(caps.ends_with("0000000000001000"), "{caps}");
    let strict = sleeper(&d, &["--security-opt", "no-new-privileges"]);
    let status = d.ok(&["exec", &strict, "grep", "NoNewPrivs", "/proc/1/status"]);
    assert!(status.ends_with('1'), "{status}");
    let host = sleeper(&d, &["--userns", "host"]);
    assert_eq!(range(&d, &host, "uid_map"), (0, u32::MAX));
}

#[test]
fn files_on_disk_carry_the_image_s_ids_whatever_the_range() {
    let d = Daemon::start(Cli::Docker);
    let id = sleeper(&d, &["-v", "vol:/v"]);
    d.ok(&[
        "exec",
        &id,
        "sh",
        "-c",
        "touch /mine /v/mine; touch /app /v/app; chown app /app /v/app",
    ]);
    d.ok(&["commit", &id, "made:1"]);
    let other = d.ok(&["run", "-d", "-v", "vol:/v", "made:1", "sleep", "99"]);
    assert_ne!(range(&d, &id, "uid_map"), range(&d, &other, "uid_map"));
    let seen = d.ok(&["exec", &other, "stat", "-c", "%u", "/mine", "/v/mine", "/app", "/v/app"]);
    assert_eq!(seen, "0\n0\n1000\n1000");
    let mountpoint = d.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "vol"]);
    assert_eq!(fs::metadata(format!("{mountpoint}/mine")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(format!("{mountpoint}/app")).unwrap().uid(), 1000);
}

#[test]
fn the_engine_s_own_executable_can_t_be_reached_from_inside() {
    let d = Daemon::start(Cli::Docker);
    let id = sleeper(&d, &[]);
    // Whatever runs in the container while an exec comes in, /proc/*/exe must not be
    // writable (CVE-2019-5736).
    let script = "for p in /proc/[0-9]*; do (echo x > $p/exe) 2>/dev/null && echo $p; done; true";
    assert_eq!(d.ok(&["exec", &id, "sh", "-c", script]), "");
    let before = fs::metadata(capsa_it::binary()).unwrap();
    d.ok(&["exec", &id, "true"]);
    let after = fs::metadata(capsa_it::binary()).unwrap();
    assert_eq!((before.len(), before.mtime()), (after.len(), after.mtime()));
}
