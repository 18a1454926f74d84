//! From create to rm: signals, phases, names, restarts, events.

use std::fs::File;
use std::io::Read;
use std::sync::mpsc::channel;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{Daemon, eventually, patience};

const TRAP: &str = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
const STUBBORN: &str = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done";

/// Starts a shell script and waits for the first line it prints.
fn ready(d: &Daemon, args: &[&str], script: &str) -> String {
    let id = d.ok(&[&["run", "-d"], args, &["busybox", "sh", "-c", script]].concat());
    assert_eq!(d.start(&["logs", "-f", &id]).line(), "ready");
    id
}

pub fn stop_asks_then_kills(d: &Daemon) {
    let polite = ready(d, &[], TRAP);
    d.ok(&["stop", &polite]);
    assert_eq!(d.inspect(&polite, "{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
    assert!(d.ok(&["logs", &polite]).ends_with("told"));
    let stubborn = ready(d, &[], STUBBORN);
    let begun = Instant::now();
    d.ok(&["stop", "-t", "1", &stubborn]);
    assert!(begun.elapsed().as_millis() >= 900, "it had its second");
    assert_eq!(d.inspect(&stubborn, "{{.State.ExitCode}}"), "137");
    // Stopping what is stopped is fine.
    d.ok(&["stop", &stubborn]);
}

pub fn kill_sends_the_signal(d: &Daemon) {
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    let id = ready(d, &[], script);
    d.ok(&["kill", "-s", "USR1", &id]);
    eventually("the trap runs", || d.ok(&["logs", &id]).contains("usr1").then_some(()));
    d.ok(&["kill", &id]);
    assert_eq!(d.ok(&["wait", &id]), "137");
    let refused = d.fails(1, &["kill", &id]);
    assert!(refused.contains("is not running"), "{refused}");
}

pub fn restart_starts_anew(d: &Daemon) {
    let id = ready(d, &["--name", "again"], TRAP);
    let before = d.inspect(&id, "{{.State.Pid}} {{.State.StartedAt}}");
    d.ok(&["exec", &id, "touch", "/kept"]);
    d.ok(&["restart", "again"]);
    let after = d.inspect(&id, "{{.State.Pid}} {{.State.StartedAt}}");
    assert_ne!(before, after);
    d.ok(&["exec", &id, "test", "-e", "/kept"]);
    assert_eq!(d.inspect(&id, "{{.State.Running}}"), "true");
    d.ok(&["stop", &id]);
    d.ok(&["start", &id]);
    assert_eq!(d.inspect(&id, "{{.State.Running}}"), "true");
}

pub fn wait_tells_the_exit_code(d: &Daemon) {
    let id = d.ok(&["run", "-d", "-i", "busybox", "sh", "-c", "read a; exit 42"]);
    let waiting = d.start(&["wait", &id]);
    d.run_with(&["attach", &id], b"now\n");
    let output = waiting.finish();
    assert_eq!((output.code, output.stdout.trim()), (0, "42"));
    assert_eq!(d.ok(&["wait", &id]), "42", "also afterwards");
}

pub fn pause_freezes(d: &Daemon) {
    let id = ready(d, &[], "echo ready; i=0; while :; do i=$((i+1)); echo $i > /n; done");
    let count = || {
        let pid = d.inspect(&id, "{{.State.Pid}}");
        std::fs::read_to_string(format!("/proc/{pid}/root/n")).unwrap_or_default()
    };
    d.ok(&["pause", &id]);
    assert_eq!(d.inspect(&id, "{{.State.Status}} {{.State.Paused}}"), "paused true");
    let frozen = count();
    crate::pause(std::time::Duration::from_millis(100));
    assert_eq!(count(), frozen);
    let refused = d.fails(1, &["exec", &id, "true"]);
    assert!(refused.contains("paused"), "{refused}");
    d.ok(&["unpause", &id]);
    eventually("it goes on", || (count() != frozen).then_some(()));
}

pub fn a_renamed_container_answers_to_both(d: &Daemon) {
    let id = d.ok(&["create", "--name", "old", "busybox", "true"]);
    d.ok(&["rename", "old", "new"]);
    assert_eq!(d.inspect("new", "{{.Id}} {{.Name}}"), format!("{id} /new"));
    d.fails(1, &["inspect", "old"]);
    d.ok(&["create", "--name", "old", "busybox", "true"]);
    let taken = d.fails(1, &["rename", "old", "new"]);
    assert!(taken.contains("already in use"), "{taken}");
}

pub fn ps_shows_what_runs(d: &Daemon) {
    let runs = d.ok(&["run", "-d", "--name", "runs", "--label", "a=b", "busybox", "sleep", "99"]);
    let ended = d.ok(&["run", "-d", "--name", "ended", "busybox", "sh", "-c", "exit 3"]);
    d.ok(&["wait", &ended]);
    assert_eq!(d.ok(&["ps", "-q", "--no-trunc"]), runs);
    assert_eq!(d.ok(&["ps", "-aq"]).lines().count(), 2);
    let all = d.ok(&["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}}"]);
    assert!(all.contains("runs busybox Up "), "{all}");
    assert!(all.contains("ended busybox Exited (3) "), "{all}");
    let filter = |text: &str| d.ok(&["ps", "-a", "--format", "{{.Names}}", "--filter", text]);
    assert_eq!(filter("label=a=b"), "runs");
    assert_eq!(filter("status=exited"), "ended");
    assert_eq!(filter("name=end"), "ended");
    assert_eq!(filter("exited=3"), "ended");
}

pub fn one_that_is_just_starting_is_removed_by_force(d: &Daemon) {
    let dir = d.scratch().join("said");
    std::fs::create_dir(&dir).unwrap();
    let pipe = dir.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Open for both, so that neither end waits for the other.
    let mut pipe = File::options().read(true).write(true).open(pipe).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || while pipe.read_exact(&mut [0]).is_ok() && tell.send(()).is_ok() {});
    let mount = format!("{}:/said", dir.display());
    for _ in 0..8 {
        let id = d.ok(&[
            "create",
            "-v",
            &mount,
            "busybox",
            "sh",
            "-c",
            "printf x > /said/pipe; sleep 9",
        ]);
        let start = d.start(&["start", &id]);
        // Its program runs; the engine may not even know it.
        told.recv_timeout(patience()).unwrap();
        d.ok(&["rm", "-f", &id]);
        start.finish();
    }
}

pub fn a_running_container_is_not_removed_by_accident(d: &Daemon) {
    let id = d.ok(&["run", "-d", "busybox", "sleep", "99"]);
    let refused = d.fails(1, &["rm", &id]);
    assert!(refused.contains("running"), "{refused}");
    d.ok(&["exec", &id, "true"]);
    d.ok(&["rm", "-f", &id]);
    assert_eq!(d.ok(&["ps", "-aq"]), "");
}

pub fn a_failing_container_is_restarted_as_often_as_asked(d: &Daemon) {
    let args = ["run", "-d", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo x; exit 1"];
    let id = d.ok(&args);
    eventually("two restarts and an end", || {
        let state = d.inspect(&id, "{{.RestartCount}} {{.State.Status}}");
        (state == "2 exited").then_some(())
    });
    assert_eq!(d.ok(&["logs", &id]), "x\nx\nx");
}

pub fn events_tell_a_life(d: &Daemon) {
    let filter = ["events", "--since", "0", "--filter", "type=container"];
    // From the beginning, so that it does not matter when the stream is there.
    let mut events = d.start(&[&filter[..], &["--format", "{{.Action}}"]].concat());
    d.ok(&["create", "--name", "first", "busybox", "true"]);
    let mut seen = vec![events.line()];
    d.fails(4, &["run", "--rm", "--name", "life", "busybox", "sh", "-c", "exit 4"]);
    while seen.last().is_none_or(|action| action != "destroy") {
        seen.push(events.line());
    }
    let seen: Vec<_> = seen.iter().filter(|a| !a.starts_with("exec")).map(String::as_str).collect();
    assert_eq!(seen, ["create", "create", "attach", "start", "die", "destroy"], "{seen:?}");
    // docker's client counts in whole seconds, so this second must be over.
    let until = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let past = d.ok(&[
        "events",
        "--since",
        "0",
        "--until",
        &until.to_string(),
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.name}}",
    ]);
    assert_eq!(past, "4 life");
}

pub fn inspect_says_what_was_asked(d: &Daemon) {
    let id = d.ok(&[
        "run",
        "-d",
        "--name",
        "seen",
        "-e",
        "A=1",
        "--label",
        "k=v",
        "-w",
        "/tmp",
        "-u",
        "app",
        "-m",
        "64m",
        "--restart",
        "no",
        "-p",
        "127.0.0.1::80",
        "-v",
        "/data",
        "busybox",
        "sleep",
        "99",
    ]);
    let says = |template: &str| d.inspect("seen", template);
    assert_eq!(says("{{.Id}}"), id);
    assert_eq!(says("{{.Name}} {{.Path}} {{.Args}}"), "/seen sleep [99]");
    assert_eq!(
        says("{{.Config.Image}} {{.Config.User}} {{.Config.WorkingDir}}"),
        "busybox app /tmp"
    );
    assert_eq!(says("{{.Config.Labels.k}} {{.HostConfig.Memory}}"), "v 67108864");
    assert_eq!(says("{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}"), "running true 0");
    assert!(says("{{.Image}}").starts_with("sha256:"));
    assert!(says("{{.Config.Env}}").contains("A=1"));
    assert_eq!(
        says("{{(index .Mounts 0).Type}} {{(index .Mounts 0).Destination}}"),
        "volume /data"
    );
    assert_ne!(says("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"), "0");
    assert!(!says("{{.NetworkSettings.Networks.bridge.IPAddress}}").is_empty());
    let pid = says("{{.State.Pid}}");
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "sleep\n");
}

pub fn an_id_prefix_is_enough(d: &Daemon) {
    let id = d.ok(&["create", "busybox", "true"]);
    assert_eq!(d.inspect(&id[..12], "{{.Id}}"), id);
    d.ok(&["rm", &id[..6]]);
    assert_eq!(d.ok(&["ps", "-aq"]), "");
}

pub fn prune_takes_what_has_ended(d: &Daemon) {
    d.ok(&["run", "--name", "ended", "busybox", "true"]);
    d.ok(&["run", "-d", "--name", "runs", "busybox", "sleep", "99"]);
    d.ok(&["container", "prune", "-f"]);
    assert_eq!(d.ok(&["ps", "-a", "--format", "{{.Names}}"]), "runs");
}
