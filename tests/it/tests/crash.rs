//! The daemon is killed between any two steps of an operation: before its first system
//! call that changes something, before its second, and so on until the operation is
//! through. After each kill the next daemon takes over, and then a container is there
//! whole or not at all, what was acknowledged holds, and once what is there has been
//! removed, nothing is left: the host has what it had with a fresh daemon.
//!
//! An operation has between twenty and two hundred steps. By default at most a hundred of
//! them are tried, spread evenly; `CAPSA_CRASH_STEPS=all` tries every one, a number tries
//! so many. How many there were and how many were tried is said on standard error.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use capsa_it::{Cli, Daemon, Monitors, Output, Steps, World, busybox, eventually, pause};

/// Steps tried of an operation, unless the environment says otherwise.
const SAMPLE: usize = 100;
const STEPS: &str = "CAPSA_CRASH_STEPS";
const PORT: u16 = 8080;
/// Its end is told from a killed one's by the code.
const PROGRAM: &str = "trap 'exit 7' TERM; httpd -p 80 -h /seed; sleep 999 & wait";

/// For so long monitors stand still after the daemon's death: longer than the next daemon
/// needs to come up, if it doesn't wait for them.
const ASLEEP: Duration = Duration::from_millis(150);

/// One try: a container and its named volume, with names of their own.
struct Try<'a> {
    daemon: &'a mut Daemon,
    name: String,
    volume: String,
    /// Where its web server is to be reached.
    address: String,
}

/// What a client asks, and what must then be.
struct Operation {
    /// Brings the container where the operation begins.
    prepare: fn(&Try<'_>),
    ask: fn(&Try<'_>) -> Output,
    /// What an acknowledgement promises.
    acknowledged: fn(&Try<'_>),
    monitors: Monitors,
    /// The exit code of the container, if it ended.
    code: &'static str,
}

#[test]
fn create_leaves_a_whole_container_or_none() {
    enumerate(
        "create",
        &Operation {
            prepare: |_| {},
            ask: |t| t.create(&["create"]),
            acknowledged: |t| assert_eq!(t.state().as_deref(), Some("created")),
            monitors: Monitors::Awake,
            code: "none",
        },
    );
}

#[test]
fn start_leaves_a_running_container_or_one_that_can_be_started() {
    enumerate(
        "start",
        &Operation {
            prepare: |t| assert_eq!(t.create(&["create"]).code, 0),
            ask: |t| t.daemon.run(&["start", &t.name]),
            acknowledged: |t| assert_eq!(t.state().as_deref(), Some("running")),
            monitors: Monitors::Awake,
            code: "none",
        },
    );
}

#[test]
fn a_start_whose_monitor_is_slow_is_waited_for() {
    enumerate(
        "start, slow",
        &Operation {
            prepare: |t| assert_eq!(t.create(&["create"]).code, 0),
            ask: |t| t.daemon.run(&["start", &t.name]),
            acknowledged: |t| assert_eq!(t.state().as_deref(), Some("running")),
            monitors: Monitors::Frozen,
            code: "none",
        },
    );
}

#[test]
fn run_of_a_container_that_removes_itself_leaves_it_whole_or_not() {
    enumerate(
        "run --rm",
        &Operation {
            prepare: |_| {},
            ask: |t| t.create(&["run", "-d", "--rm"]),
            acknowledged: |t| assert_eq!(t.state().as_deref(), Some("running")),
            monitors: Monitors::Awake,
            code: "none",
        },
    );
}

#[test]
fn stop_leaves_a_container_that_runs_or_has_ended_in_order() {
    enumerate(
        "stop",
        &Operation {
            prepare: |t| t.run(),
            ask: |t| t.daemon.run(&["stop", &t.name]),
            acknowledged: |t| assert_eq!(t.state().as_deref(), Some("exited")),
            monitors: Monitors::Awake,
            code: "7",
        },
    );
}

#[test]
fn a_forced_removal_leaves_the_container_or_nothing_of_it() {
    enumerate(
        "rm -f -v",
        &Operation {
            prepare: |t| t.run(),
            ask: |t| t.daemon.run(&["rm", "-f", "-v", &t.name]),
            acknowledged: |t| assert_eq!(t.state(), None),
            monitors: Monitors::Awake,
            code: "137",
        },
    );
}

/// Tries the operation with the daemon killed at every chosen step.
fn enumerate(what: &str, operation: &Operation) {
    let mut daemon = Daemon::start(Cli::Capsa);
    daemon.load(&busybox().named("seeded").with_layer(|layer| {
        layer.dir("seed", 0o755, 0);
        for name in ["a", "b", "c"] {
            layer.file(&format!("seed/{name}"), name.as_bytes(), 0o644, 0);
        }
    }));
    let fresh = settled(&daemon);
    // Once unharmed, to count.
    let total = attempt(&mut daemon, operation, &fresh, None).expect("a whole run").len();
    let mut chosen = choose(total);
    let tried = chosen.len();
    // One that takes more steps than the first did is followed to its end.
    let mut step = total;
    loop {
        let fatal = match chosen.pop_first() {
            Some(fatal) => fatal,
            None => {
                step += 1;
                step
            }
        };
        let through = attempt(&mut daemon, operation, &fresh, Some(fatal)).is_some();
        if through && fatal > total {
            break;
        }
    }
    let text = format!("{what}: {total} steps, the daemon was killed at {tried} of them\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// What a daemon without containers has, once it is at rest.
fn settled(daemon: &Daemon) -> World {
    let mut last = World::of(daemon);
    eventually("the daemon rests", || {
        let now = World::of(daemon);
        (std::mem::replace(&mut last, now.clone()) == now).then_some(now)
    })
}

/// The steps to kill at, spread over all of them.
fn choose(total: usize) -> BTreeSet<usize> {
    let sample = match std::env::var(STEPS).as_deref() {
        Ok("all") => total,
        Ok(text) => text.parse().unwrap(),
        Err(_) => SAMPLE,
    };
    let sample = sample.clamp(1, total);
    (0..sample).map(|n| 1 + n * total / sample).collect()
}

/// Asks once, with the daemon killed at step `fatal`, and looks at what is left. The
/// steps, when it was not killed.
fn attempt(
    daemon: &mut Daemon,
    operation: &Operation,
    fresh: &World,
    fatal: Option<usize>,
) -> Option<Vec<String>> {
    let tag = fatal.map_or_else(|| "count".to_owned(), |step| step.to_string());
    let address = format!("{}:{PORT}", daemon.loopback());
    let t = Try { daemon, name: format!("c{tag}"), volume: format!("v{tag}"), address };
    (operation.prepare)(&t);
    let steps = Steps::watch(t.daemon, fatal, operation.monitors);
    let answer = (operation.ask)(&t);
    let seen = steps.finish();
    let killed = fatal.is_some_and(|step| seen.steps.len() >= step);
    let at = seen.steps.last().cloned().unwrap_or_default();
    t.daemon.kill_hard();
    std::thread::scope(|scope| {
        if operation.monitors == Monitors::Frozen {
            scope.spawn(|| {
                pause(ASLEEP);
                seen.wake();
            });
        }
        t.daemon.launch();
    });
    assert!(killed || answer.code == 0, "unharmed, and yet: {answer:?}");
    if answer.code == 0 {
        (operation.acknowledged)(&t);
    }
    t.is_whole_or_not(operation.code);
    fresh.comes_back(t.daemon, &format!("a kill at step {tag} ({at})"));
    (!killed).then_some(seen.steps)
}

impl Try<'_> {
    fn create(&self, verb: &[&str]) -> Output {
        let volume = format!("{}:/seed", self.volume);
        let publish = format!("{}:80", self.address);
        let args = ["--name", &self.name, "-v", &volume, "-v", "/anon", "-p", &publish];
        let program = ["seeded", "sh", "-c", PROGRAM];
        self.daemon.run(&[verb, &args, &program].concat())
    }

    /// Until its program has set its trap and serves.
    fn run(&self) {
        assert_eq!(self.create(&["run", "-d"]).code, 0);
        self.serves();
    }

    fn state(&self) -> Option<String> {
        let filter = format!("name=^{}$", self.name);
        let args = ["ps", "-a", "--filter", &filter, "--format", "{{.State}}"];
        self.daemon.ok(&args).lines().next().map(str::to_owned)
    }

    /// What is there works; what is not can be made, with the same names, address and port;
    /// and all of it can be removed.
    fn is_whole_or_not(&self, code: &str) {
        let d = &self.daemon;
        let state = self.state();
        match state.as_deref() {
            Some("running" | "created") => {}
            Some("exited") => assert_eq!(d.inspect(&self.name, "{{.State.ExitCode}}"), code),
            Some(state) => panic!("{} is {state}", self.name),
            None => assert_eq!(self.create(&["create"]).code, 0),
        }
        if state.as_deref() != Some("running") {
            d.ok(&["start", &self.name]);
        }
        self.serves();
        d.ok(&["rm", "-f", "-v", &self.name]);
        d.ok(&["volume", "rm", &self.volume]);
    }

    /// The container runs, with its files, its address and its port.
    fn serves(&self) {
        let d = &self.daemon;
        let seed = ["exec", &self.name, "sh", "-c", "cat /seed/*; ls -d /anon"];
        assert_eq!(d.ok(&seed), "abc/anon");
        // The first free one: no address is held by what is gone.
        let address = d.inspect(&self.name, "{{.NetworkSettings.IPAddress}}");
        let first = d.gateway().strip_suffix('1').map(|prefix| format!("{prefix}2"));
        assert_eq!(Some(address), first);
        assert_eq!(d.ok(&["port", &self.name, "80"]), self.address);
        eventually("its page", || self.page().filter(|page| page.ends_with("\r\n\r\na")));
    }

    fn page(&self) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}
