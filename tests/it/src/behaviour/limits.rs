//! Limits, as the kernel and the container see them.

use std::fs;
use std::path::PathBuf;

use crate::Daemon;

/// A file of the container's cgroup: of the v1 hierarchy if there is one, else of v2.
fn cgroup_file(d: &Daemon, container: &str, v1: (&str, &str), v2: &str) -> String {
    let pid = d.inspect(container, "{{.State.Pid}}");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path_of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?.trim_start_matches('/').to_owned();
            controllers.split(',').any(|c| c == wanted).then_some(path)
        })
    };
    let (file, name) = match path_of(v1.0) {
        Some(path) => (PathBuf::from("/sys/fs/cgroup").join(v1.0).join(path), v1.1),
        None => (PathBuf::from("/sys/fs/cgroup").join(path_of("").unwrap_or_default()), v2),
    };
    let path = file.join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().to_owned()
}

pub fn memory_and_pids_are_limited(d: &Daemon) {
    let id = d.ok(&["run", "-d", "-m", "64m", "--pids-limit", "20", "busybox", "sleep", "99"]);
    let memory = cgroup_file(d, &id, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, "67108864");
    assert_eq!(cgroup_file(d, &id, ("pids", "pids.max"), "pids.max"), "20");
    let script = "for i in $(seq 40); do sleep 5 & done 2>&1; echo over";
    let output = d.run(&["exec", &id, "sh", "-c", script]);
    assert!(
        output.stdout.contains("can't fork") || output.stderr.contains("can't fork"),
        "{output:?}"
    );
    assert_eq!(d.inspect(&id, "{{.State.Running}}"), "true");
}

pub fn cpu_is_limited(d: &Daemon) {
    let id = d.ok(&["run", "-d", "--cpus", "0.5", "--cpu-shares", "512", "busybox", "sleep", "99"]);
    let quota = cgroup_file(d, &id, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let one = d.ok(&["run", "-d", "--cpuset-cpus", "0", "busybox", "sleep", "99"]);
    assert_eq!(d.ok(&["exec", &one, "nproc"]), "1");
}

pub fn running_out_of_memory_is_told(d: &Daemon) {
    let args = ["run", "-d", "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero"];
    let id = d.ok(&args);
    assert_eq!(d.ok(&["wait", &id]), "137");
    assert_eq!(d.inspect(&id, "{{.State.OOMKilled}}"), "true");
    let fine = d.ok(&["run", "-d", "busybox", "sh", "-c", "kill -9 $$; exit 5"]);
    d.ok(&["wait", &fine]);
    assert_eq!(d.inspect(&fine, "{{.State.OOMKilled}}"), "false");
}

pub fn update_changes_limits(d: &Daemon) {
    let id = d.ok(&["run", "-d", "-m", "64m", "--memory-swap", "64m", "busybox", "sleep", "99"]);
    d.ok(&["update", "-m", "96m", "--memory-swap", "96m", "--restart", "unless-stopped", &id]);
    let memory = cgroup_file(d, &id, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, "100663296");
    assert_eq!(d.inspect(&id, "{{.HostConfig.RestartPolicy.Name}}"), "unless-stopped");
}

pub fn ulimits_are_set(d: &Daemon) {
    let args = ["run", "--rm", "--ulimit", "nofile=500:600", "busybox", "sh", "-c"];
    assert_eq!(d.ok(&[&args[..], &["ulimit -Sn; ulimit -Hn"]].concat()), "500\n600");
}

pub fn top_lists_processes(d: &Daemon) {
    let id = d.ok(&["run", "-d", "busybox", "sleep", "77"]);
    let listed = d.ok(&["top", &id]);
    assert!(listed.lines().next().unwrap().contains("PID"), "{listed}");
    assert!(listed.lines().nth(1).unwrap().ends_with("sleep 77"), "{listed}");
}
