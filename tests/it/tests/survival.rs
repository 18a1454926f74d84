//! The daemon may die at any instant: containers go on, and the next daemon takes them
//! over with their output, exit codes and ports.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use capsa_it::{Cli, Daemon, World, eventually, pause};

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done";

#[test]
fn containers_outlive_the_daemon_with_output_exec_and_stop() {
    let mut d = Daemon::start(Cli::Capsa);
    let id = d.ok(&["run", "-d", "--name", "count", "busybox", "sh", "-c", COUNT]);
    let pid = d.inspect(&id, "{{.State.Pid}}");
    eventually("some output", || d.ok(&["logs", &id]).lines().nth(3).map(drop));
    d.kill_hard();
    assert!(std::fs::exists(format!("/proc/{pid}")).unwrap(), "the container goes on");
    pause(Duration::from_millis(200));
    d.launch();
    assert_eq!(d.inspect(&id, "{{.State.Pid}} {{.State.Status}}"), format!("{pid} running"));
    let lines = d.ok(&["logs", &id]);
    let numbers: Vec<u32> = lines.lines().map(|line| line.parse().unwrap()).collect();
    let wanted: Vec<u32> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, wanted, "no line is lost or doubled");
    let mut follow = d.start(&["logs", "-f", "--tail", "0", &id]);
    assert!(follow.line().parse::<u32>().unwrap() >= *numbers.last().unwrap());
    drop(follow);
    assert_eq!(d.ok(&["exec", &id, "cat", "/proc/1/comm"]), "sh");
    d.ok(&["stop", "-t", "0", &id]);
    assert_eq!(d.inspect(&id, "{{.State.ExitCode}}"), "137");
    d.ok(&["start", &id]);
    assert_eq!(d.inspect(&id, "{{.State.Running}}"), "true");
}

#[test]
fn an_exit_while_no_daemon_runs_is_told_by_the_next_one() {
    let mut d = Daemon::start(Cli::Capsa);
    let dir = d.scratch().join("flag");
    std::fs::create_dir(&dir).unwrap();
    let mount = format!("{}:/flag", dir.display());
    let script = "until test -e /flag/go; do usleep 10000; done; echo bye; exit 23";
    let run = |extra: &[&str]| {
        d.ok(&[&["run", "-d", "-v", &mount], extra, &["busybox", "sh", "-c", script]].concat())
    };
    let (kept, removed) = (run(&[]), run(&["--rm"]));
    let again = run(&["--restart", "always"]);
    let pids = [&kept, &removed, &again].map(|id| d.inspect(id, "{{.State.Pid}}"));
    d.kill_hard();
    std::fs::write(dir.join("go"), "").unwrap();
    for pid in pids {
        let ended = || (!std::fs::exists(format!("/proc/{pid}")).unwrap()).then_some(());
        eventually("its end", ended);
    }
    std::fs::remove_file(dir.join("go")).unwrap();
    d.launch();
    assert_eq!(d.ok(&["wait", &kept]), "23");
    assert_eq!(d.ok(&["logs", &kept]), "bye");
    eventually("--rm is honoured", || (d.run(&["inspect", &removed]).code != 0).then_some(()));
    eventually("the restart policy is honoured", || {
        (d.inspect(&again, "{{.State.Status}}") == "running").then_some(())
    });
}

#[test]
fn published_ports_and_names_outlive_the_daemon() {
    let mut d = Daemon::start(Cli::Capsa);
    d.ok(&["network", "create", "inner"]);
    let script = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";
    let args = ["run", "-d", "--name", "web", "--network", "inner", "-p", "127.0.0.1::80"];
    d.ok(&[&args[..], &["busybox", "sh", "-c", script]].concat());
    let address = d.ok(&["port", "web", "80"]);
    let fetch = || {
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.ends_with("page\n").then_some(())
    };
    eventually("a page", fetch);
    d.kill_hard();
    eventually("a page without a daemon", fetch);
    d.launch();
    eventually("a page with the next daemon", fetch);
    let get = ["run", "--rm", "--network", "inner", "busybox", "wget", "-qO-", "http://web/"];
    assert_eq!(d.ok(&get), "page");
    d.ok(&["rm", "-f", "web"]);
    assert!(TcpStream::connect(&address).is_err(), "the port is given back");
}

#[test]
fn stdin_of_a_container_outlives_the_daemon() {
    let mut d = Daemon::start(Cli::Capsa);
    let script =
        "echo ready; while read line; do echo got $line; test $line != end || exit 4; done";
    let id = d.ok(&["run", "-d", "-i", "busybox", "sh", "-c", script]);
    eventually("ready", || d.ok(&["logs", &id]).contains("ready").then_some(()));
    d.kill_hard();
    d.launch();
    let output = d.run_with(&["attach", &id], b"one\nend\n");
    assert!(output.stdout.ends_with("got one\ngot end\n"), "{output:?}");
}

#[test]
fn a_daemon_killed_in_the_middle_of_anything_leaves_nothing_half_made() {
    let mut d = Daemon::start(Cli::Docker);
    for round in 0..12_u64 {
        let name = format!("c{round}");
        let run = d.start(&[
            "run", "-d", "--name", &name, "-v", "/anon", "-p", "80", "-m", "32m", "busybox",
            "sleep", "99",
        ]);
        // Somewhere between the first request and the running container.
        pause(Duration::from_millis(10 + round * 7));
        d.kill_hard();
        drop(run.finish());
        d.launch();
        let listed = d.ok(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}"]);
        for line in listed.lines() {
            let (id, state) = line.split_once(' ').unwrap();
            assert!(matches!(state, "running" | "created" | "exited"), "{line}");
            if state == "running" {
                d.ok(&["exec", id, "true"]);
            }
            d.ok(&["rm", "-f", "-v", id]);
        }
        // The same name, at once.
        d.ok(&["run", "--rm", "--name", &name, "busybox", "true"]);
    }
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn a_daemon_killed_while_it_loads_an_image_loads_it_the_next_time() {
    let mut d = Daemon::start(Cli::Docker);
    let filler = vec![b'x'; 8 << 20];
    let image = capsa_it::busybox().named("big:1").with_layer(|layer| {
        for n in 0..6 {
            layer.file(&format!("f{n}"), &filler, 0o644, 0);
        }
    });
    let path = image.write(d.scratch());
    for round in 0..6_u64 {
        let load = d.start(&["load", "-q", "-i", path.to_str().unwrap()]);
        pause(Duration::from_millis(15 + round * 25));
        d.kill_hard();
        drop(load.finish());
        d.launch();
        if d.run(&["image", "inspect", "big:1"]).code == 0 {
            assert_eq!(d.ok(&["run", "--rm", "big:1", "wc", "-c", "/f5"]), "8388608 /f5");
            d.ok(&["rmi", "big:1"]);
        }
    }
    d.ok(&["load", "-q", "-i", path.to_str().unwrap()]);
    assert_eq!(d.ok(&["run", "--rm", "big:1", "wc", "-c", "/f5"]), "8388608 /f5");
}

#[test]
fn a_start_that_fails_has_left_nothing_when_it_is_told() {
    let d = Daemon::start(Cli::Capsa);
    let id = d.ok(&["create", "-m", "32m", "busybox", "sleep", "99"]);
    let removed = std::process::Command::new("ip").args(["link", "delete", &d.bridge()]).status();
    assert!(removed.unwrap().success());
    for _ in 0..3 {
        let error = d.fails(1, &["start", &id]);
        assert!(error.contains(&d.bridge()), "{error}");
        let left = [format!("container {id}"), format!("file data/containers/{id}")];
        assert_eq!(World::of(&d).of_which(&id), left);
    }
    eventually("the last monitor's end", || {
        World::of(&d).of_which("process ").is_empty().then_some(())
    });
}

#[test]
fn a_second_daemon_on_the_same_data_root_is_refused() {
    let d = Daemon::start(Cli::Docker);
    let output = std::process::Command::new(capsa_it::binary())
        .args(["daemon", "--data-root"])
        .arg(d.data_root())
        .arg("--exec-root")
        .arg(d.scratch().join("exec2"))
        .arg("-H")
        .arg(format!("unix://{}", d.scratch().join("s2.sock").display()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(d.data_root().to_str().unwrap()), "{text}");
    assert!(text.contains(&d.pid().to_string()), "{text}");
    assert_eq!(d.ok(&["run", "--rm", "busybox", "echo", "fine"]), "fine");
}

#[test]
fn an_orderly_end_and_start_keep_what_was_made() {
    let mut d = Daemon::start(Cli::Docker);
    let id = d.ok(&["run", "-d", "--name", "stays", "-v", "vol:/v", "busybox", "sleep", "999"]);
    d.ok(&["network", "create", "net"]);
    let image = d.inspect("stays", "{{.Image}}");
    d.stop();
    d.launch();
    assert_eq!(d.inspect("stays", "{{.Id}} {{.Image}}"), format!("{id} {image}"));
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "vol");
    assert!(d.ok(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|n| n == "net"));
    d.ok(&["network", "rm", "net"]);
    d.ok(&["rm", "-f", "stays"]);
    d.ok(&["volume", "rm", "vol"]);
}
