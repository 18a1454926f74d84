//! The cases, one per promise.

use std::fs;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use capsa_oci::runtime::{Device, Hook, Hooks, Mount, Namespace, NamespaceKind, Rlimit};
use capsa_runtime::protocol::{Event, ExitRecord, Request, RootfsPlan};
use capsa_sys::channel::Channel;

use crate::verbs::Bundle;
use crate::world::{FIRST_ID, World, exec_request, read_all, read_until, unframe, write};

/// Name and body of each.
pub const ALL: &[(&str, fn())] = &[
    ("output_and_exit_code_arrive", output_and_exit_code_arrive),
    ("root_inside_is_nobody_outside", root_inside_is_nobody_outside),
    ("without_a_user_namespace_it_works_too", without_a_user_namespace_it_works_too),
    ("a_plain_directory_can_be_the_root", a_plain_directory_can_be_the_root),
    ("the_log_has_every_line", the_log_has_every_line),
    ("stdin_goes_through_and_ends", stdin_goes_through_and_ends),
    ("a_terminal_is_a_terminal", a_terminal_is_a_terminal),
    ("a_slow_client_loses_nothing", a_slow_client_loses_nothing),
    ("a_vanished_client_stops_nobody", a_vanished_client_stops_nobody),
    ("what_cannot_run_is_told_as_docker_tells_it", what_cannot_run_is_told_as_docker_tells_it),
    ("a_signal_ends_with_128_and_its_number", a_signal_ends_with_128_and_its_number),
    ("memory_that_runs_out_is_told", memory_that_runs_out_is_told),
    ("a_channel_that_ends_before_start_leaves_nothing", ends_before_start),
    ("a_start_that_nobody_waits_for_is_none", ends_when_nobody_waits_for_its_start),
    ("the_container_survives_its_daemon", the_container_survives_its_daemon),
    ("an_exec_is_inside", an_exec_is_inside),
    ("an_exec_that_cannot_run_is_told", an_exec_that_cannot_run_is_told),
    ("an_exec_can_have_a_terminal", an_exec_can_have_a_terminal),
    ("execs_end_with_the_container", execs_end_with_the_container),
    ("mounts_are_as_asked", mounts_are_as_asked),
    ("binds_show_the_ids_of_the_disk", binds_show_the_ids_of_the_disk),
    ("a_tmpfs_can_start_with_what_it_covers", a_tmpfs_can_start_with_what_it_covers),
    ("masked_and_readonly_paths_hold", masked_and_readonly_paths_hold),
    ("devices_are_there", devices_are_there),
    ("nothing_of_the_host_is_left_open", nothing_of_the_host_is_left_open),
    ("the_user_is_who_was_asked_for", the_user_is_who_was_asked_for),
    ("another_containers_network_can_be_joined", another_containers_network_can_be_joined),
    ("init_reaps_and_forwards", init_reaps_and_forwards),
    ("without_a_monitor_one_makes_and_another_starts", without_a_monitor),
    ("without_a_monitor_failures_are_told", without_a_monitor_failures_are_told),
    ("hooks_run_where_they_should", hooks_run_where_they_should),
    ("a_filter_holds", a_filter_holds),
    ("a_monitor_is_small", a_monitor_is_small),
    ("our_executable_cannot_be_written", our_executable_cannot_be_written),
];

fn output_and_exit_code_arrive() {
    let world = World::new("echo out; echo err >&2; exit 7");
    let (out, err, record) = world.run();
    assert_eq!((out.as_str(), err.as_str(), record.code), ("out\n", "err\n", 7));
    assert_eq!((record.signal, record.oom_killed), (None, false));
    assert!(record.started_ns > 0 && record.finished_ns >= record.started_ns);
    let text = fs::read_to_string(&world.request.exit_record).unwrap();
    assert_eq!(serde_json::from_str::<ExitRecord>(&text).unwrap(), record);
    assert!(world.cgroups().is_empty());
    assert!(!world.request.dir.join("monitor.sock").exists());
}

fn root_inside_is_nobody_outside() {
    let script = "id -u; stat -c %u /etc/plain; touch /new; chown 33 /new; cat /proc/1/comm; cat";
    let mut world = World::new(script);
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    let mut client = daemon.attach(false);
    daemon.start();
    let mut seen = Vec::new();
    while unframe(&seen).0 != "0\n0\nsh\n" {
        use std::io::Read;
        let mut byte = [0; 64];
        let length = client.read(&mut byte).unwrap();
        assert!(length > 0, "{:?}", unframe(&seen));
        seen.extend_from_slice(&byte[..length]);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.init)).unwrap();
    let uids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert_eq!(uids.split_ascii_whitespace().nth(1), Some(FIRST_ID.to_string().as_str()));
    assert_eq!(fs::metadata(world.dir.join("top/upper/new")).unwrap().uid(), 33);
    daemon.send(Request::CloseStdin, &[]);
    assert_eq!(daemon.exited().code, 0);
    daemon.reap();
}

fn without_a_user_namespace_it_works_too() {
    let world = World::new("id -u; hostname; cat /proc/self/uid_map | wc -w; test -c /dev/null")
        .without_user_namespace();
    let (out, err, record) = world.run();
    assert_eq!((out.as_str(), err.as_str(), record.code), ("0\ninside\n3\n", "", 0));
}

fn a_plain_directory_can_be_the_root() {
    let mut world = World::new("echo new > /made; readlink /proc/1/root").without_user_namespace();
    world.request.rootfs = RootfsPlan::Directory(world.dir.join("layers/base"));
    let (out, _, record) = world.run();
    assert_eq!((out.as_str(), record.code), ("/\n", 0));
    assert_eq!(fs::read_to_string(world.dir.join("layers/base/made")).unwrap(), "new\n");
}

fn the_log_has_every_line() {
    let world = World::new("echo one; echo two >&2; echo -n last");
    world.run();
    let mut lines = world.log();
    lines.sort_by_key(|line| line["stream"] == "stderr");
    let text: Vec<_> = lines.iter().map(|line| line["log"].as_str().unwrap()).collect();
    assert_eq!(text, ["one\n", "last", "two\n"]);
    assert!(lines.iter().all(|line| line["time"].as_str().unwrap().ends_with('Z')));
}

fn stdin_goes_through_and_ends() {
    let mut world = World::new("cat");
    world.request.stdio.open_stdin = true;
    world.request.stdio.stdin_once = true;
    let mut daemon = world.create();
    let mut client = daemon.attach(true);
    daemon.start();
    let text = "0123456789abcdef".repeat(20_000);
    let writer = {
        let mut client = client.try_clone().unwrap();
        let text = text.clone();
        std::thread::spawn(move || {
            write(&mut client, &text);
            client.shutdown(Shutdown::Write).unwrap();
        })
    };
    let (out, _) = unframe(&read_all(&mut client));
    writer.join().unwrap();
    assert!(out == text, "{} bytes of {}", out.len(), text.len());
    assert_eq!(daemon.exited().code, 0);
    daemon.reap();
}

fn a_terminal_is_a_terminal() {
    let mut world = World::new(
        "tty; stty size; test -c /dev/console && echo console; read line; echo got $line; stty size",
    );
    world.request.stdio.tty = true;
    world.request.stdio.open_stdin = true;
    world.request.stdio.console_size = Some((24, 80));
    world.process().user.uid = 1000;
    let mut daemon = world.create();
    let mut client = daemon.attach(true);
    daemon.start();
    let text = read_until(&mut client, "console");
    assert!(text.contains("/dev/pts/0\r\n24 80\r\n"), "{text:?}");
    daemon.send(Request::Resize { rows: 50, cols: 132 }, &[]);
    daemon.send(Request::Status, &[]);
    assert!(matches!(daemon.next(), Some(Event::Status { running: true, .. })));
    write(&mut client, "hello\n");
    let rest = String::from_utf8(read_all(&mut client)).unwrap();
    assert!(rest.ends_with("got hello\r\n50 132\r\n"), "{rest:?}");
    assert_eq!(daemon.exited().code, 0);
    daemon.reap();
}

fn a_slow_client_loses_nothing() {
    let world = World::new("seq 1 200000");
    let mut daemon = world.create();
    let mut slow = daemon.attach(false);
    let mut quick = daemon.attach(false);
    daemon.start();
    // The quick one reads on until the slow one holds up the container; then both go on.
    let reader = std::thread::spawn(move || unframe(&read_all(&mut quick)).0);
    let (slow, _) = unframe(&read_all(&mut slow));
    let wanted: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(slow == wanted);
    assert!(reader.join().unwrap() == wanted);
    assert_eq!(daemon.exited().code, 0);
    daemon.reap();
    let logged: usize = world.log().iter().map(|l| l["log"].as_str().unwrap().len()).sum();
    assert_eq!(logged, wanted.len());
}

fn a_vanished_client_stops_nobody() {
    let world = World::new("seq 1 200000; exit 3");
    let mut daemon = world.create();
    let client = daemon.attach(true);
    drop(client);
    daemon.start();
    assert_eq!(daemon.exited().code, 3);
    daemon.reap();
}

fn what_cannot_run_is_told_as_docker_tells_it() {
    let cases = [
        ("absent", 127, r#"exec: "absent": executable file not found in $PATH"#),
        ("/absent", 127, r#"exec: "/absent": stat /absent: no such file or directory"#),
        ("/etc/plain", 126, r#"exec: "/etc/plain": permission denied"#),
        ("/etc", 126, r#"exec: "/etc": is a directory"#),
    ];
    for (name, code, message) in cases {
        let mut world = World::new("");
        world.process().args = vec![name.into()];
        let failure = world.run_to_failure();
        assert_eq!((failure.code, failure.message.as_str()), (code, message));
    }
    let mut world = World::new("");
    world.request.spec.mounts[0].kind = Some("nosuchfs".into());
    let failure = world.run_to_failure();
    assert_eq!((failure.code, failure.stage.as_str()), (125, "mount"));
    assert!(failure.message.contains("nosuchfs"), "{failure:?}");
}

fn a_signal_ends_with_128_and_its_number() {
    let mut world = World::new("echo up; cat");
    world.request.stdio.open_stdin = true;
    for all in [false, true] {
        let mut daemon = world.create();
        let mut client = daemon.attach(false);
        daemon.start();
        read_until(&mut client, "up");
        daemon.send(Request::Signal { signal: libc_sigkill(), all }, &[]);
        let record = daemon.exited();
        assert_eq!((record.code, record.signal, record.oom_killed), (137, Some(9), false));
        daemon.reap();
    }
}

fn libc_sigkill() -> i32 {
    9
}

fn memory_that_runs_out_is_told() {
    let mut world = World::new("head -c 100000000 /dev/zero > /dev/shm/big");
    let resources = serde_json::json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    world.request.spec.linux.as_mut().unwrap().resources =
        Some(serde_json::from_value(resources).unwrap());
    world.request.spec.mounts[6].options.retain(|o| !o.starts_with("size="));
    let (_, _, record) = world.run();
    assert!(record.oom_killed && record.code != 0, "{record:?}");
}

fn ends_before_start() {
    for attached in [false, true] {
        let world = World::new("echo never");
        let daemon = world.create();
        let client = attached.then(|| daemon.attach(false));
        let init = capsa_sys::process::pidfd_open(daemon.init).unwrap();
        let (closed, _keep) = Channel::pair().unwrap();
        let mut daemon = daemon;
        daemon.channel = closed;
        daemon.reap();
        assert!(capsa_sys::process::send_signal(init.as_fd(), 0).is_err());
        world.assert_unmade();
        drop(client);
    }
}

fn ends_when_nobody_waits_for_its_start() {
    let world = World::new("echo never");
    let mut daemon = world.create();
    daemon.signal_monitor(rustix::process::Signal::STOP);
    // Asked for, but the daemon is gone before the monitor hears it.
    daemon.send(Request::Start, &[]);
    let (closed, _keep) = Channel::pair().unwrap();
    daemon.channel = closed;
    daemon.signal_monitor(rustix::process::Signal::CONT);
    daemon.reap();
    world.assert_unmade();
}

fn the_container_survives_its_daemon() {
    let mut world = World::new("cat; exit 5");
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    daemon.start();
    let (init, at) = (daemon.init, world.request.dir.join("monitor.sock"));
    daemon.channel = Channel::connect(&at).unwrap();
    match daemon.next() {
        Some(Event::Status { pid, running: true, started_ns, execs, note }) => {
            assert!(pid == Some(init) && started_ns > 0 && execs.is_empty());
            assert_eq!(note, "note");
        }
        other => panic!("{other:?}"),
    }
    let mut client = daemon.attach(true);
    write(&mut client, "still here\n");
    read_until(&mut client, "still here");
    daemon.send(Request::CloseStdin, &[]);
    assert_eq!(daemon.exited().code, 5);
    daemon.reap();
    assert!(world.request.exit_record.exists() && !at.exists());
}

fn an_exec_is_inside() {
    let mut world = World::new("read line");
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    daemon.start();
    let script = "hostname; id -u; cat /proc/1/comm; cat /proc/self/uid_map | head -c 10; \
                  grep -c test /proc/self/cgroup; ls /proc/self/fd | wc -l; exit 4";
    let (out, code) = daemon.exec(exec_request("one", &["sh", "-c", script])).unwrap();
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert_eq!((lines[0], lines[1], lines[2], code), ("inside", "0", "sh", 4));
    // ls itself has the directory open.
    assert_eq!(lines.last(), Some(&"4"), "{out:?}");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", daemon.init)).unwrap();
    let mut request = exec_request("two", &["cat", "/proc/self/cgroup"]);
    request.process.user.uid = 12;
    let (inside, _) = daemon.exec(request).unwrap();
    assert_eq!(inside.lines().count(), cgroup.lines().count());
    assert!(inside.lines().all(|line| !line.contains("capsa")), "{inside}");
    daemon.send(Request::Signal { signal: 9, all: false }, &[]);
    daemon.exited();
    daemon.reap();
}

fn an_exec_that_cannot_run_is_told() {
    let mut world = World::new("cat");
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    let early = daemon.exec(exec_request("early", &["true"])).unwrap_err();
    assert_eq!((early.code, early.message.as_str()), (125, "the container is not running"));
    daemon.start();
    let failure = daemon.exec(exec_request("one", &["absent"])).unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (127, r#"exec: "absent": executable file not found in $PATH"#)
    );
    let mut request = exec_request("one", &["true"]);
    request.process.cwd = "/etc/plain".into();
    assert_eq!(daemon.exec(request).unwrap_err().code, 126);
    daemon.send(Request::CloseStdin, &[]);
    assert_eq!(daemon.exited().code, 0);
    daemon.reap();
}

fn an_exec_can_have_a_terminal() {
    let mut world = World::new("cat");
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    daemon.start();
    let mut request = exec_request("tty", &["sh", "-c", "tty; stty size; read x; echo got $x"]);
    request.tty = true;
    request.console_size = Some((10, 20));
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    daemon.send(Request::Exec(Box::new(request)), &[theirs.as_fd()]);
    drop(theirs);
    assert!(matches!(daemon.next(), Some(Event::ExecStarted { .. })));
    let text = read_until(&mut ours, "10 20");
    assert!(text.contains("/dev/pts/0"), "{text:?}");
    write(&mut ours, "typed\n");
    assert!(String::from_utf8(read_all(&mut ours)).unwrap().contains("got typed"));
    assert!(matches!(daemon.next(), Some(Event::ExecExited { code: 0, .. })));
    daemon.send(Request::CloseStdin, &[]);
    daemon.exited();
    daemon.reap();
}

fn execs_end_with_the_container() {
    let mut world = World::new("cat; exit 6");
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    daemon.start();
    let mut request = exec_request("long", &["sleep", "1000"]);
    request.stdout = false;
    daemon.send(Request::Exec(Box::new(request)), &[]);
    assert!(matches!(daemon.next(), Some(Event::ExecStarted { .. })));
    daemon.send(Request::CloseStdin, &[]);
    let mut codes = Vec::new();
    loop {
        match daemon.next() {
            Some(Event::ExecExited { code, .. }) => codes.push(code),
            Some(Event::Exited(record)) => {
                assert_eq!((record.code, codes.as_slice()), (6, &[137][..]));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    daemon.reap();
}

fn mounts_are_as_asked() {
    let script = "while read dev at type opts rest; do echo $at $type; done < /proc/mounts; \
                  ls /sys/fs/cgroup/memory/memory.limit_in_bytes; ls /sys/fs/cgroup/memory | grep -c capsa; \
                  touch /sys/fs/cgroup/x; cat /over/file; pwd";
    let mut world = World::new(script);
    fs::create_dir(world.dir.join("source")).unwrap();
    fs::write(world.dir.join("source/file"), "bound\n").unwrap();
    world.request.spec.mounts.push(Mount {
        destination: "/over".into(),
        kind: Some("bind".into()),
        source: Some(world.dir.join("source").display().to_string()),
        options: vec!["rbind".into(), "ro".into()],
        ..Mount::default()
    });
    world.process().cwd = "/made/by/us".into();
    let (out, err, record) = world.run();
    for wanted in [
        "/ overlay",
        "/proc proc",
        "/dev tmpfs",
        "/dev/pts devpts",
        "/sys sysfs",
        "/dev/mqueue mqueue",
        "/dev/shm tmpfs",
        "/sys/fs/cgroup tmpfs",
        "bound",
    ] {
        assert!(out.lines().any(|line| line == wanted), "{wanted} not in {out}{err}");
    }
    assert!(out.contains("memory.limit_in_bytes\n0\n"), "{out}{err}");
    assert!(out.ends_with("/made/by/us\n") && record.code == 0, "{out}{err}");
    assert!(err.contains("/sys/fs/cgroup/x: Read-only file system"), "{err}");
}

fn binds_show_the_ids_of_the_disk() {
    let mut world = World::new("stat -c %u /vol /vol/theirs /one; touch /vol/mine; echo x >> /one");
    let source = world.dir.join("volume");
    fs::create_dir(&source).unwrap();
    for name in ["volume/theirs", "single"] {
        fs::write(world.dir.join(name), "").unwrap();
    }
    std::os::unix::fs::chown(source.join("theirs"), Some(77), None).unwrap();
    let bind = |from: &Path, to: &str| Mount {
        destination: to.into(),
        kind: Some("bind".into()),
        source: Some(from.display().to_string()),
        options: ["rbind", "rprivate", "idmap"].map(str::to_owned).to_vec(),
        ..Mount::default()
    };
    let mounts = [bind(&source, "/vol"), bind(&world.dir.join("single"), "/one")];
    world.request.spec.mounts.extend(mounts);
    let (out, err, record) = world.run();
    assert_eq!((out.as_str(), err.as_str(), record.code), ("0\n77\n0\n", "", 0));
    assert_eq!(fs::metadata(source.join("mine")).unwrap().uid(), 0);
    assert_eq!(fs::read_to_string(world.dir.join("single")).unwrap(), "x\n");
}

fn a_tmpfs_can_start_with_what_it_covers() {
    let mut world = World::new(
        "cat /etc/plain; echo new > /etc/plain; stat -c '%a %u' /etc/plain; readlink /etc/link",
    );
    let etc = world.dir.join("layers/base/etc");
    std::os::unix::fs::symlink("/plain", etc.join("link")).unwrap();
    std::os::unix::fs::chown(etc.join("plain"), Some(9), None).unwrap();
    fs::set_permissions(etc.join("plain"), fs::Permissions::from_mode(0o640)).unwrap();
    world.request.spec.mounts.push(Mount {
        destination: "/etc".into(),
        kind: Some("tmpfs".into()),
        options: vec!["tmpcopyup".into()],
        ..Mount::default()
    });
    let (out, err, _) = world.run();
    assert_eq!((out.as_str(), err.as_str()), ("plain\n640 9\n/plain\n", ""));
    assert_eq!(fs::read_to_string(etc.join("plain")).unwrap(), "plain\n");
    assert!(!world.dir.join("top/upper/etc").exists());
}

fn masked_and_readonly_paths_hold() {
    let script = "cat /proc/timer_list /proc/keys | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w; \
                  echo 1 > /proc/sys/kernel/hostname; echo done";
    let mut world = World::new(script);
    world.request.spec.root.as_mut().unwrap().readonly = true;
    let (out, err, _) = world.run();
    assert_eq!(out, "0\n0\ndone\n", "{err}");
    assert!(err.contains("/proc/sys/kernel/hostname: Read-only file system"), "{err}");
    assert!(!err.contains("Permission"), "{err}");
    let mut world = World::new("touch /x || echo sealed; touch /dev/shm/x && echo open");
    world.request.spec.root.as_mut().unwrap().readonly = true;
    assert_eq!(world.run().0, "sealed\nopen\n");
}

fn devices_are_there() {
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
                  echo x > /dev/null; head -c 4 /dev/zero | wc -c; readlink /dev/fd; readlink /dev/ptmx; \
                  stat -c '%t %T %u %a' /dev/extra";
    for user_namespace in [true, false] {
        let mut world = World::new(script);
        if !user_namespace {
            world = world.without_user_namespace();
        }
        world.request.spec.linux.as_mut().unwrap().devices = vec![Device {
            kind: "c".into(),
            path: "/dev/extra".into(),
            major: Some(1),
            minor: Some(5),
            file_mode: Some(0o640),
            uid: Some(3),
            gid: None,
        }];
        let (out, err, _) = world.run();
        assert_eq!((out.as_str(), err.as_str()), ("4\n/proc/self/fd\npts/ptmx\n1 5 3 640\n", ""));
    }
}

fn nothing_of_the_host_is_left_open() {
    for reaper in [false, true] {
        let mut world = World::new("echo up; exec cat");
        world.request.init = reaper;
        world.request.stdio.open_stdin = true;
        let mut daemon = world.create();
        let mut client = daemon.attach(false);
        daemon.start();
        read_until(&mut client, "up");
        let shown = daemon.exec(exec_request("one", &["ls", "/proc/self/fd"])).unwrap().0;
        // The fourth is the directory that ls reads.
        assert_eq!(shown, "0\n1\n2\n3\n");
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.init)).unwrap().count();
        assert_eq!(open, 3);
        daemon.send(Request::CloseStdin, &[]);
        daemon.exited();
        daemon.reap();
    }
    let mut world = World::new("pwd");
    for number in 3..12 {
        world.process().cwd = format!("/proc/self/fd/{number}");
        let failure = world.run_to_failure();
        assert_eq!(failure.stage, "cwd");
    }
}

fn the_user_is_who_was_asked_for() {
    let script = "id -u; id -g; id -G; grep -E '^(Cap(Inh|Eff|Bnd)|NoNewPrivs)' /proc/self/status; \
                  ulimit -n; echo x > /dev/stdout";
    let mut world = World::new(script);
    let process = world.process();
    process.user.uid = 1000;
    process.user.gid = 1001;
    process.user.additional_gids = vec![5, 6];
    process.no_new_privileges = true;
    process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 100, hard: 200 }];
    let (out, err, _) = world.run();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["1000", "1001", "1001 5 6"], "{out}{err}");
    assert_eq!(lines[3], "CapInh:\t0000000000000000");
    assert_eq!(lines[4], "CapEff:\t0000000000000000");
    assert_eq!(lines[5], "CapBnd:\t00000000000000e3");
    assert_eq!(lines[6..], ["NoNewPrivs:\t1", "100", "x"], "{err}");
}

fn another_containers_network_can_be_joined() {
    let mut first = World::new("cat");
    first.request.stdio.open_stdin = true;
    let mut daemon = first.create();
    daemon.start();
    let link = |kind: &str| format!("/proc/{}/ns/{kind}", daemon.init);
    let inode = |kind: &str| fs::read_link(link(kind)).unwrap().display().to_string();
    let mut second = World::new(
        "for n in user net pid; do readlink /proc/self/ns/$n; done; cat /proc/1/comm; id -u",
    );
    let kinds = [
        (NamespaceKind::User, "user"),
        (NamespaceKind::Network, "net"),
        (NamespaceKind::Pid, "pid"),
    ];
    for (kind, name) in kinds {
        let linux = second.request.spec.linux.as_mut().unwrap();
        linux.namespaces.retain(|namespace| namespace.kind != kind);
        linux.namespaces.push(Namespace { kind, path: Some(link(name)) });
    }
    let (out, err, record) = second.run();
    let wanted = format!("{}\n{}\n{}\ncat\n0\n", inode("user"), inode("net"), inode("pid"));
    assert_eq!((out, err, record.code), (wanted, String::new(), 0));
    daemon.send(Request::CloseStdin, &[]);
    daemon.exited();
    daemon.reap();
}

fn init_reaps_and_forwards() {
    let script = "cat /proc/1/comm; trap 'echo term; exit 9' TERM; (true &); echo up; while true; do sleep 1; done";
    let mut world = World::new(script);
    world.request.init = true;
    let mut daemon = world.create();
    let mut client = daemon.attach(false);
    daemon.start();
    let text = read_until(&mut client, "up");
    assert!(text.contains("capsa-init"), "{text}");
    daemon.send(Request::Signal { signal: 15, all: false }, &[]);
    assert_eq!(daemon.exited().code, 9);
    daemon.reap();
    let mut world = World::new("");
    world.request.init = true;
    world.process().args = vec!["/etc/plain".into()];
    fs::set_permissions(world.dir.join("layers/base/etc/plain"), fs::Permissions::from_mode(0o755))
        .unwrap();
    assert_eq!(world.run_to_failure().code, 126);
}

fn without_a_monitor() {
    let world = World::new("echo to our own stream; id -u; cat");
    let mut bundle = Bundle::create(&world);
    let status = fs::read_to_string(format!("/proc/{}/status", bundle.pid)).unwrap();
    let own = fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(status.lines().next().unwrap(), format!("Name:\t{}", own.trim_end()));
    capsa_runtime::bundle::start(&bundle.fifo).unwrap();
    let again = capsa_runtime::bundle::start(&bundle.fifo).unwrap_err();
    assert!(again.to_string().contains("started already"), "{again}");
    bundle.read_until("0\n");
    assert_eq!(bundle.verb("exec"), "inside\n");
    assert_eq!(bundle.end(), 0);
    assert_eq!(world.cgroups().len(), world.cgroup().directories().count());
    world.cgroup().remove().unwrap();
}

fn without_a_monitor_failures_are_told() {
    let mut world = World::new("");
    world.process().args = vec!["absent".into()];
    let said = Bundle::fail(&world);
    assert!(said.contains("executable file not found in $PATH"), "{said}");
    assert!(world.cgroups().is_empty());
}

fn hooks_run_where_they_should() {
    let mut world = World::new("cat /early /late");
    let hook = |path: &str, script: String| Hook {
        path: path.into(),
        args: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        ..Hook::default()
    };
    let made = world.dir.join("made");
    let hooks = Hooks {
        create_container: vec![hook("/bin/sh", format!("cat > {}", made.display()))],
        start_container: vec![hook("/bin/sh", "hostname > /late; echo early > /early".into())],
        ..Hooks::default()
    };
    world.request.spec.hooks = Some(hooks);
    fs::write(&made, "").unwrap();
    fs::set_permissions(&made, fs::Permissions::from_mode(0o666)).unwrap();
    let mut bundle = Bundle::create(&world);
    let state = fs::read_to_string(&made).unwrap();
    assert!(state.contains(&format!("\"id\":\"{}\"", world.request.id)), "{state}");
    capsa_runtime::bundle::start(&bundle.fifo).unwrap();
    assert_eq!(bundle.read_until("inside\n"), "early\ninside\n");
    assert_eq!(bundle.end(), 0);
    world.cgroup().remove().unwrap();
}

fn a_filter_holds() {
    let deny = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 98}]});
    for no_new_privileges in [false, true] {
        let mut world = World::new("mkdir /x; grep Seccomp: /proc/self/status");
        world.process().no_new_privileges = no_new_privileges;
        world.request.spec.linux.as_mut().unwrap().seccomp =
            Some(serde_json::from_value(deny.clone()).unwrap());
        let (out, err, _) = world.run();
        assert_eq!(out, "Seccomp:\t2\n");
        assert!(err.contains("Address already in use"), "{err}");
    }
}

fn a_monitor_is_small() {
    let mut world = World::new("cat");
    world.request.stdio.open_stdin = true;
    let mut daemon = world.create();
    daemon.start();
    daemon.exec(exec_request("one", &["true"])).unwrap();
    let path = format!("/proc/{}/smaps_rollup", daemon.monitor);
    let text = fs::read_to_string(path).unwrap();
    let private = |line: &str| line.starts_with("Private_Dirty:") || line.starts_with("Anonymous:");
    for line in text.lines().filter(|line| private(line) || line.starts_with("Pss:")) {
        println!("  {line}");
    }
    let dirty = text.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    let kib: u64 = dirty.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib <= 300, "{kib} KiB are this monitor's alone");
    daemon.send(Request::CloseStdin, &[]);
    daemon.exited();
    daemon.reap();
}

fn our_executable_cannot_be_written() {
    // As host root, from outside: nobody inside can do better.
    let mut world = World::new("cat");
    world.request.stdio.open_stdin = true;
    world.request.init = true;
    let mut daemon = world.create();
    daemon.start();
    for pid in [daemon.monitor, daemon.init] {
        let exe = format!("/proc/{pid}/exe");
        let opened = fs::OpenOptions::new().write(true).open(exe);
        let error = opened.unwrap_err().raw_os_error();
        assert!(matches!(error, Some(30 | 26 | 1)), "{error:?}");
    }
    daemon.send(Request::CloseStdin, &[]);
    daemon.exited();
    daemon.reap();
}
