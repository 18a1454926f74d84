//! `exec`: a second process in a running container.

use crate::{Daemon, in_terminal};

fn sleeper(d: &Daemon) -> String {
    d.ok(&["run", "-d", "busybox", "sleep", "999"])
}

pub fn exec_runs_beside(d: &Daemon) {
    let id = sleeper(d);
    assert_eq!(d.ok(&["exec", &id, "cat", "/proc/1/comm"]), "sleep");
    let output = d.run(&["exec", &id, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    d.ok(&["exec", "-d", &id, "touch", "/done"]);
    crate::eventually("the detached exec runs", || {
        (d.run(&["exec", &id, "test", "-e", "/done"]).code == 0).then_some(())
    });
    let same = "for n in pid net mnt uts ipc user; do readlink /proc/self/ns/$n; done";
    let theirs = "for n in pid net mnt uts ipc user; do readlink /proc/1/ns/$n; done";
    assert_eq!(d.ok(&["exec", &id, "sh", "-c", same]), d.ok(&["exec", &id, "sh", "-c", theirs]));
}

pub fn exec_has_stdin(d: &Daemon) {
    let id = sleeper(d);
    let text = "some text\n".repeat(10_000);
    let output = d.run_with(&["exec", "-i", &id, "cat"], text.as_bytes());
    assert!(output.stdout == text, "{} of {} bytes", output.stdout.len(), text.len());
}

pub fn exec_has_a_terminal(d: &Daemon) {
    let id = sleeper(d);
    let shell = d.command(&["exec", "-it", &id, "sh"]);
    let talk = [("# ", "stty size\n"), ("33 101", "exit 6\n")];
    let (screen, code) = in_terminal(shell, (33, 101), &talk);
    assert_eq!(code, 6, "{screen}");
}

pub fn exec_codes(d: &Daemon) {
    let id = sleeper(d);
    d.fails(3, &["exec", &id, "sh", "-c", "exit 3"]);
    d.fails(127, &["exec", &id, "no-such-program"]);
    d.fails(126, &["exec", &id, "/etc/passwd"]);
    d.fails(137, &["exec", &id, "sh", "-c", "kill -9 $$"]);
    assert_eq!(d.inspect(&id, "{{.State.Running}}"), "true");
}

pub fn exec_takes_user_directory_and_environment(d: &Daemon) {
    let id = d.ok(&["run", "-d", "-e", "FROM=run", "busybox", "sleep", "999"]);
    let exec = |args: &[&str]| d.ok(&[&["exec"], args].concat());
    assert_eq!(exec(&["-u", "app", &id, "id", "-u"]), "1000");
    assert_eq!(exec(&["-w", "/tmp", &id, "pwd"]), "/tmp");
    assert_eq!(exec(&["-e", "A=1", &id, "sh", "-c", "echo $A $FROM"]), "1 run");
    let caps = exec(&[&id, "grep", "CapEff", "/proc/self/status"]);
    assert_eq!(caps, exec(&[&id, "grep", "CapEff", "/proc/1/status"]));
    let seccomp = exec(&[&id, "grep", "-w", "Seccomp:", "/proc/self/status"]);
    assert!(seccomp.ends_with('2'), "an exec is filtered too: {seccomp}");
}
