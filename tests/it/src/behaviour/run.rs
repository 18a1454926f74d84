//! `run`, `logs`, `attach`: what goes in, what comes out, how it ends.

use crate::{Daemon, busybox, in_terminal};

pub fn echo_is_heard(d: &Daemon) {
    assert_eq!(d.ok(&["run", "--rm", "busybox", "echo", "hello", "world"]), "hello world");
}

pub fn exit_codes_are_the_process_s(d: &Daemon) {
    d.fails(7, &["run", "--rm", "busybox", "sh", "-c", "exit 7"]);
    let missing = d.fails(127, &["run", "--rm", "busybox", "no-such-program"]);
    assert!(missing.contains("no-such-program"), "{missing}");
    let plain = d.fails(126, &["run", "--rm", "busybox", "/etc/passwd"]);
    assert!(plain.contains("permission denied"), "{plain}");
    d.fails(125, &["run", "--rm", "--no-such-flag", "busybox", "true"]);
    d.fails(125, &["run", "--rm", "no-such-image.invalid/x:1", "true"]);
    // A child that dies by a signal; its shell says 128 + 9.
    d.fails(137, &["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
}

pub fn output_streams_stay_apart(d: &Daemon) {
    let output = d.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let id = d.ok(&["run", "-d", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    d.ok(&["wait", &id]);
    let logged = d.run(&["logs", &id]);
    assert_eq!((logged.stdout.as_str(), logged.stderr.as_str()), ("out\n", "err\n"));
}

pub fn stdin_reaches_the_process(d: &Daemon) {
    let text = "line of text\n".repeat(30_000);
    let output = d.run_with(&["run", "-i", "--rm", "busybox", "cat"], text.as_bytes());
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout == text, "{} of {} bytes", output.stdout.len(), text.len());
    let count = d.run_with(&["run", "-i", "--rm", "busybox", "wc", "-c"], text.as_bytes());
    assert_eq!(count.stdout.trim(), text.len().to_string());
    // Without -i there is nothing to read.
    let none = d.run_with(&["run", "--rm", "busybox", "wc", "-c"], b"unheard");
    assert_eq!(none.stdout.trim(), "0");
}

pub fn a_terminal_has_its_size_and_the_exit_code(d: &Daemon) {
    let shell = d.command(&["run", "-it", "--rm", "busybox", "sh"]);
    let talk = [
        ("# ", "stty size; tty\n"),
        ("31 97", "test -t 0 && test -t 1 && test -t 2 && echo a''ll\n"),
        ("all", "exit 5\n"),
    ];
    let (screen, code) = in_terminal(shell, (31, 97), &talk);
    assert_eq!(code, 5, "{screen}");
    assert!(screen.contains("/dev/pts/0") || screen.contains("/dev/console"), "{screen}");
}

pub fn logs_follow_to_the_end(d: &Daemon) {
    let script = "for i in 1 2 3; do echo line $i; done; read wait; echo last";
    let id = d.ok(&["run", "-d", "-i", "busybox", "sh", "-c", script]);
    let mut follow = d.start(&["logs", "-f", &id]);
    assert_eq!(follow.line(), "line 1");
    assert_eq!(follow.line(), "line 2");
    assert_eq!(follow.line(), "line 3");
    let attached = d.run_with(&["attach", &id], b"go on\n");
    assert_eq!(attached.code, 0, "{}", attached.stderr);
    assert_eq!(follow.line(), "last");
    assert_eq!(follow.finish().code, 0);
}

pub fn logs_can_be_cut(d: &Daemon) {
    let id = d.ok(&["run", "-d", "busybox", "sh", "-c", "seq 199; usleep 50000; echo 200"]);
    d.ok(&["wait", &id]);
    assert_eq!(d.ok(&["logs", "--tail", "3", &id]), "198\n199\n200");
    assert_eq!(d.ok(&["logs", &id]).lines().count(), 200);
    let stamped = d.ok(&["logs", "-t", "--tail", "1", &id]);
    let (time, line) = stamped.split_once(' ').unwrap();
    assert_eq!(line, "200");
    assert!(time.starts_with("20") && time.ends_with('Z') && time.len() >= 20, "{time}");
    assert_eq!(d.ok(&["logs", "--since", time, &id]), "200");
    assert_eq!(d.ok(&["logs", "--until", "2001-01-01T00:00:00Z", &id]), "");
}

pub fn attach_sees_what_comes(d: &Daemon) {
    let id = d.ok(&["create", "-i", "busybox", "sh", "-c", "read a; echo got $a; exit 3"]);
    let mut started = d.start(&["start", "-a", "-i", &id]);
    std::io::Write::write_all(&mut started.stdin().unwrap(), b"this\n").unwrap();
    assert_eq!(started.line(), "got this");
    assert_eq!(started.finish().code, 3);
}

pub fn environment_user_and_directory_are_as_asked(d: &Daemon) {
    let run = |args: &[&str]| d.ok(&[&["run", "--rm"], args].concat());
    let env = run(&["-e", "A=1", "-e", "B=two words", "busybox", "env"]);
    for wanted in ["A=1", "B=two words", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"] {
        assert!(env.lines().any(|line| line == wanted), "{wanted} in {env}");
    }
    assert_eq!(run(&["-u", "1000:1000", "busybox", "id", "-u"]), "1000");
    assert_eq!(run(&["-u", "app", "busybox", "sh", "-c", "id -un; id -gn"]), "app\napp");
    assert_eq!(run(&["-w", "/tmp", "busybox", "pwd"]), "/tmp");
    assert_eq!(run(&["-h", "named", "busybox", "hostname"]), "named");
    assert_eq!(run(&["-u", "app", "busybox", "touch", "/tmp/f"]), "");
    let refused = d.run(&["run", "--rm", "-u", "app", "busybox", "touch", "/etc/f"]);
    assert_ne!(refused.code, 0, "a user may not write root's directory");
}

pub fn entrypoint_and_command_combine(d: &Daemon) {
    let image = busybox()
        .named("entry:1")
        .with_config("Entrypoint", serde_json::json!(["echo", "entry"]))
        .with_config("Cmd", serde_json::json!(["cmd"]));
    d.load(&image);
    assert_eq!(d.ok(&["run", "--rm", "entry:1"]), "entry cmd");
    assert_eq!(d.ok(&["run", "--rm", "entry:1", "mine"]), "entry mine");
    assert_eq!(d.ok(&["run", "--rm", "--entrypoint", "echo", "entry:1", "bare"]), "bare");
}

pub fn an_auto_removed_container_is_gone(d: &Daemon) {
    d.ok(&["run", "--rm", "--name", "short", "busybox", "true"]);
    crate::eventually("--rm removes it", || d.ok(&["ps", "-aq"]).is_empty().then_some(()));
    d.ok(&["run", "--rm", "--name", "short", "busybox", "true"]);
}
