//! What the verbs promise.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use capsa_oci::runtime::{DeviceRule, Hook, Hooks, Memory, Pids, Resources, Seccomp};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::Value;

use crate::bundle::Bundle;

type Case = fn();

pub const ALL: [(&str, Case); 18] = [
    ("run_gives_output_and_exit_code", run_gives_output_and_exit_code),
    ("a_container_goes_through_its_states", a_container_goes_through_its_states),
    ("a_created_container_can_be_deleted", a_created_container_can_be_deleted),
    ("exec_runs_beside", exec_runs_beside),
    ("exec_takes_a_process_file", exec_takes_a_process_file),
    ("a_detached_run_goes_on", a_detached_run_goes_on),
    ("pause_and_resume", pause_and_resume),
    ("limits_hold_and_change", limits_hold_and_change),
    ("hooks_run_in_order_with_the_state", hooks_run_in_order_with_the_state),
    ("a_failing_hook_leaves_nothing", a_failing_hook_leaves_nothing),
    ("what_can_not_run_says_so", what_can_not_run_says_so),
    ("ids_are_taken_once_and_checked", ids_are_taken_once_and_checked),
    ("lists_and_processes", lists_and_processes),
    ("events_tell_use", events_tell_use),
    ("a_terminal_goes_to_its_socket", a_terminal_goes_to_its_socket),
    ("signals_are_passed_on", signals_are_passed_on),
    ("the_filter_of_the_spec_is_in_force", the_filter_of_the_spec_is_in_force),
    (
        "our_executable_can_not_be_written_from_inside",
        our_executable_can_not_be_written_from_inside,
    ),
];

fn run_gives_output_and_exit_code() {
    let bundle = Bundle::new("echo out; echo err >&2; hostname; exit 7");
    let output = bundle.run(&[]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(output.stdout, b"out\ncapsa\n");
    assert_eq!(output.stderr, b"err\n");
    bundle.assert_gone();
    let killed = Bundle::new("kill -9 $$");
    assert_eq!(killed.run(&[]).status.code(), Some(0), "process 1 can't kill itself");
}

fn a_container_goes_through_its_states() {
    let bundle = Bundle::new("echo up; sleep 1000");
    bundle.create();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id);
    assert_eq!(state["pid"].to_string(), bundle.read("pid"));
    assert_eq!(bundle.read("out"), "");
    bundle.ok(&["start", &bundle.id]);
    bundle.wait_for("out", "up\n");
    assert_eq!(bundle.status(), "running");
    assert!(bundle.refused(&["start", &bundle.id]).contains("already running"));
    assert!(bundle.refused(&["delete", &bundle.id]).contains("not stopped: running"));
    let pid = bundle.state()["pid"].clone();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.reap(&pid);
    assert_eq!(bundle.status(), "stopped");
    assert!(bundle.refused(&["kill", &bundle.id, "TERM"]).contains("not running"));
    assert!(bundle.refused(&["start", &bundle.id]).contains("stopped"));
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_gone();
    assert!(bundle.refused(&["state", &bundle.id]).contains("does not exist"));
}

fn a_created_container_can_be_deleted() {
    let bundle = Bundle::new("echo never");
    bundle.create();
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_gone();
    assert_eq!(bundle.read("out"), "");
    assert!(bundle.refused(&["delete", &bundle.id]).contains("does not exist"));
    bundle.ok(&["delete", "--force", &bundle.id]);
}

fn exec_runs_beside() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    let exec = |args: &[&str]| bundle.call(&[&["exec"], args].concat());
    let output = exec(&[
        "-e",
        "WORD=x",
        "--cwd",
        "/bin",
        &bundle.id,
        "sh",
        "-c",
        "echo $WORD $PWD $$; exit 5",
    ]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(output.stdout, b"x /bin 2\n");
    let ids = exec(&["-u", "5:6", "-g", "7", &bundle.id, "id"]);
    let ids = String::from_utf8(ids.stdout).unwrap();
    assert!(ids.contains("uid=5 gid=6") && ids.contains('7'), "{ids}");
    assert_eq!(exec(&[&bundle.id, "/absent"]).status.code(), Some(127));
    assert_ne!(exec(&["-u", "4294967296", &bundle.id, "id"]).status.code(), Some(0));
    assert_eq!(
        exec(&["-d", "--pid-file", &bundle.path("exec-pid"), &bundle.id, "sleep", "1000"])
            .status
            .code(),
        Some(0)
    );
    let pids: Vec<u32> =
        serde_json::from_str(&bundle.ok(&["ps", "-f", "json", &bundle.id])).unwrap();
    assert!(pids.contains(&bundle.read("exec-pid").parse().unwrap()), "{pids:?}");
    // An ended process that nobody reaps keeps its pid namespace, and its own is ours to reap.
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.reap(&serde_json::from_str(&bundle.read("exec-pid")).unwrap());
}

fn exec_takes_a_process_file() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    let process = r#"{"args":["id","-u"],"cwd":"/","user":{"uid":42,"gid":0},"env":["PATH=/bin"]}"#;
    std::fs::write(bundle.dir.join("process"), process).unwrap();
    assert_eq!(bundle.ok(&["exec", "--process", &bundle.path("process"), &bundle.id]), "42\n");
}

fn a_detached_run_goes_on() {
    let bundle = Bundle::new("echo $$ > /proc/self/fd/1; sleep 1000");
    let output = bundle.run(&["-d", "--pid-file", &bundle.path("pid")]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.state()["pid"].to_string(), bundle.read("pid"));
    bundle.ok(&["delete", "-f", &bundle.id]);
    bundle.assert_gone();
}

fn pause_and_resume() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    assert!(bundle.refused(&["resume", &bundle.id]).contains("not paused"));
    bundle.ok(&["pause", &bundle.id]);
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.refused(&["exec", &bundle.id, "true"]).contains("paused"));
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(bundle.status(), "running");
    bundle.ok(&["pause", &bundle.id]);
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_gone();
}

fn limits_hold_and_change() {
    let bundle = Bundle::new("sleep 1000");
    bundle.change(|spec| {
        let limit = Some(64 << 20);
        spec.linux.as_mut().unwrap().resources = Some(Resources {
            memory: Some(Memory { limit, swap: limit, ..Memory::default() }),
            pids: Some(Pids { limit: Some(50) }),
            devices: vec![DeviceRule { allow: false, ..DeviceRule::default() }],
            ..Resources::default()
        });
    });
    bundle.create();
    let used = |key: &str| {
        let events: Value =
            serde_json::from_str(&bundle.ok(&["events", "--stats", &bundle.id])).unwrap();
        assert_eq!(events["type"], "stats");
        events["data"].pointer(key).unwrap().clone()
    };
    assert_eq!(used("/memory/usage/limit"), 64 << 20);
    assert_eq!(used("/pids/limit"), 50);
    bundle.ok(&[
        "update",
        "--memory",
        "128m",
        "--memory-swap",
        "128m",
        "--pids-limit",
        "60",
        &bundle.id,
    ]);
    assert_eq!(used("/memory/usage/limit"), 128 << 20);
    assert_eq!(used("/pids/limit"), 60);
    assert!(bundle.refused(&["update", "--memory", "lots", &bundle.id]).contains("lots"));
}

fn hook(bundle: &Bundle, script: &str) -> Vec<Hook> {
    let script = format!("cd {}; {script}", bundle.path(""));
    let args = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let env = vec!["PATH=/bin:/usr/bin".to_owned()];
    vec![Hook { path: "/bin/sh".to_owned(), args, env, timeout: Some(10) }]
}

fn hooks_run_in_order_with_the_state() {
    let bundle = Bundle::new("echo program");
    let note = |name: &str| hook(&bundle, &format!("echo {name} $(cat) >> hooks"));
    let inside = Hook {
        path: "/bin/sh".to_owned(),
        args: ["sh", "-c", "echo inside; grep -q running"].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        timeout: None,
    };
    bundle.change(|spec| {
        spec.annotations.insert("key".to_owned(), "value".to_owned());
        spec.hooks = Some(Hooks {
            prestart: note("prestart"),
            create_runtime: note("createRuntime"),
            create_container: note("createContainer"),
            start_container: vec![inside],
            poststart: note("poststart"),
            poststop: note("poststop"),
        });
    });
    let output = bundle.run(&[]);
    assert_eq!(output.stdout, b"inside\nprogram\n", "{output:?}");
    let notes = bundle.read("hooks");
    let lines: Vec<(&str, Value)> = notes
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, state)| (name, serde_json::from_str(state).unwrap()))
        .collect();
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    let expected = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    assert_eq!(names, expected);
    for (name, state) in &lines {
        let status = match *name {
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "creating",
        };
        assert_eq!(state["status"], status, "{name}");
        assert_eq!(state["id"], bundle.id);
        assert_eq!(state["annotations"]["key"], "value");
    }
}

fn a_failing_hook_leaves_nothing() {
    for which in ["createRuntime", "createContainer"] {
        let bundle = Bundle::new("echo program");
        bundle.change(|spec| {
            let failing = hook(&bundle, "exit 3");
            let mut hooks = Hooks::default();
            if which == "createRuntime" {
                hooks.create_runtime = failing;
            } else {
                hooks.create_container = failing;
            }
            spec.hooks = Some(hooks);
        });
        let output = bundle.run(&[]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("hook"), "{output:?}");
        bundle.assert_gone();
    }
}

fn what_can_not_run_says_so() {
    let bundle = Bundle::new("");
    let log = bundle.path("log");
    let run = |args: &[&str]| {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        bundle.change(|spec| spec.process.as_mut().unwrap().args = args);
        let path = bundle.path("");
        bundle.call(&["--log", &log, "--log-format", "json", "run", "-b", &path, &bundle.id])
    };
    let output = run(&["nothing-like-it"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("executable file not found in $PATH"));
    assert!(!run(&[]).status.success());
    for line in bundle.read("log").lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["level"], "error");
    }
    assert!(bundle.read("log").contains("executable file not found"));
    bundle.assert_gone();
    let help = bundle.ok(&["--version"]);
    assert!(help.starts_with("capsa version ") && help.contains("\nspec: 1."), "{help}");
    bundle.refused(&["nonsense"]);
    let features: Value = serde_json::from_str(&bundle.ok(&["features"])).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

fn ids_are_taken_once_and_checked() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create();
    assert!(bundle.refused(&["create", "-b", &bundle.path(""), &bundle.id]).contains("exists"));
    assert_eq!(bundle.status(), "created", "the first one is untouched");
    for bad in ["../escape", "a/b", ".."] {
        assert!(bundle.refused(&["run", "-b", &bundle.path(""), bad]).contains("invalid id"));
        bundle.refused(&["delete", "--force", bad]);
    }
    assert!(bundle.dir.join("config.json").exists());
}

fn lists_and_processes() {
    let bundle = Bundle::new("sleep 1000");
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{}\n", bundle.id));
    let all: Value = serde_json::from_str(&bundle.ok(&["list", "-f", "json"])).unwrap();
    assert_eq!(all[0]["status"], "running");
    let table = bundle.ok(&["list"]);
    assert!(table.starts_with("ID ") && table.contains(&bundle.id), "{table}");
    let table = bundle.ok(&["ps", &bundle.id]);
    assert!(
        table.lines().next().unwrap().contains("PID") && table.contains("sleep 1000"),
        "{table}"
    );
}

fn events_tell_use() {
    let bundle = Bundle::new("exit 0");
    bundle.create();
    let file = std::fs::File::create(bundle.dir.join("events")).unwrap();
    let mut events =
        bundle.command(&["events", "--interval", "60s", &bundle.id]).stdout(file).spawn().unwrap();
    bundle.wait_for("events", "\n");
    bundle.ok(&["start", &bundle.id]);
    bundle.wait();
    // It ends with the container, long before its interval.
    assert!(events.wait().unwrap().success());
    let first = bundle.read("events");
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(first["id"], bundle.id);
    assert!(first["data"]["cpu"]["usage"]["total"].as_u64().is_some());
}

fn a_terminal_goes_to_its_socket() {
    let bundle = Bundle::new("tty; stty size; read word; echo got $word");
    bundle.change(|spec| {
        let process = spec.process.as_mut().unwrap();
        process.terminal = true;
        process.console_size = Some(capsa_oci::runtime::ConsoleSize { height: 33, width: 44 });
    });
    assert!(bundle.refused(&["create", "-b", &bundle.path(""), &bundle.id]).contains("tty"));
    let socket = bundle.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.ok(&["run", "-d", "-b", &bundle.path(""), "--console-socket", &socket, &bundle.id]);
    let master = receive(&listener);
    rustix::io::write(&master, b"hello\n").unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("got hello") {
        let count = rustix::io::read(&master, &mut buffer).unwrap();
        seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(seen.contains("/dev/") && seen.contains("33 44"), "{seen:?}");
}

fn receive(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut slices = [IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.unwrap()
}

fn signals_are_passed_on() {
    let bundle = Bundle::new("trap 'echo term; exit 9' TERM; echo up; while :; do read x; done");
    let path = bundle.path("");
    let out = std::fs::File::create(bundle.dir.join("out")).unwrap();
    let mut child = bundle
        .command(&["run", "-b", &path, &bundle.id])
        .stdin(Stdio::piped())
        .stdout(out)
        .spawn()
        .unwrap();
    bundle.wait_for("out", "up\n");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // A shell that waits in read sees the signal at the next line.
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9), "{}", bundle.read("out"));
    assert_eq!(bundle.read("out"), "up\nterm\n");
    bundle.assert_gone();
}

fn the_filter_of_the_spec_is_in_force() {
    let bundle = Bundle::new("hostname other || echo refused; grep Seccomp: /proc/self/status");
    let filter = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let filter: Seccomp = serde_json::from_str(filter).unwrap();
    bundle.change(|spec| {
        spec.linux.as_mut().unwrap().seccomp = Some(filter);
        let sets = spec.process.as_mut().unwrap().capabilities.as_mut().unwrap();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push("CAP_SYS_ADMIN".to_owned());
        }
    });
    let output = bundle.run(&[]);
    assert_eq!(output.stdout, b"refused\nSeccomp:\t2\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("not supported"), "{output:?}");
}

fn our_executable_can_not_be_written_from_inside() {
    let before = std::fs::metadata("/proc/self/exe").unwrap().modified().unwrap();
    let bundle = Bundle::new("sleep 1000");
    bundle.change(|spec| spec.root.as_mut().unwrap().readonly = false);
    // A program whose interpreter is our own executable, as it runs in there.
    let script = bundle.dir.join("rootfs/bin/evil");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    bundle.create();
    bundle.ok(&["start", &bundle.id]);
    bundle.call(&["exec", &bundle.id, "/bin/evil"]);
    // And one that tries to write what each exec of ours runs from.
    let grab =
        "for p in /proc/[0-9]*; do (echo x >> $p/exe) 2>/dev/null && echo written; done; true";
    assert_eq!(bundle.ok(&["exec", &bundle.id, "sh", "-c", grab]), "");
    assert_eq!(std::fs::metadata("/proc/self/exe").unwrap().modified().unwrap(), before);
}
