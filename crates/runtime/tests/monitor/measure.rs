//! How long a start takes, step by step: `cargo test --test monitor -- measure`.
//!
//! Not a test: nothing fails. Times are microseconds from the moment Create is sent to a
//! monitor that waits for it.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Instant;

use capsa_runtime::monitor;
use capsa_runtime::protocol::{Event, Request};

use crate::world::{Daemon, World, exec_request};

const STEPS: [&str; 6] =
    ["spawn", "created", "started", "first output", "exited", "exec to output"];

/// Prints minimum and median of each step over `rounds` starts.
pub fn run(rounds: usize) {
    for user_namespace in [true, false] {
        println!("user namespace: {user_namespace}");
        let mut times = vec![Vec::new(); STEPS.len()];
        for _ in 0..rounds {
            for (step, time) in times.iter_mut().zip(once(user_namespace)) {
                step.push(time);
            }
        }
        for (name, mut step) in STEPS.iter().zip(times) {
            step.sort_unstable();
            println!("  {name:>14}: min {:>6} median {:>6}", step[0], step[step.len() / 2]);
        }
    }
}

fn once(user_namespace: bool) -> [u128; STEPS.len()] {
    let mut world = World::new("echo up; cat");
    if !user_namespace {
        world = world.without_user_namespace();
    }
    world.request.stdio.open_stdin = true;
    // Other work on the machine disturbs less when the container has all the weight.
    let resources = serde_json::json!({"cpu": {"shares": 262_144}});
    world.request.spec.linux.as_mut().unwrap().resources =
        Some(serde_json::from_value(resources).unwrap());
    world.process().args = ["sh", "-c", "echo up; exec cat"].map(str::to_owned).to_vec();
    let exe = monitor::self_exe().unwrap();
    let before = Instant::now();
    let spawned = monitor::spawn(exe.as_fd()).unwrap();
    let spawn = before.elapsed().as_micros();
    let mut daemon =
        Daemon { monitor: spawned.pid, pidfd: spawned.pidfd, channel: spawned.channel, init: 0 };
    // It waits: it answers.
    daemon.send(Request::Status, &[]);
    daemon.next();
    let mut client = daemon.attach(false);
    let begin = Instant::now();
    let listener = monitor::listen(&world.request.dir).unwrap();
    daemon.send(Request::Create(Box::new(world.request.clone())), &[listener.as_fd()]);
    let Some(Event::Created { pid }) = daemon.next() else { panic!("not created") };
    let created = begin.elapsed().as_micros();
    daemon.init = pid;
    drop(client);
    client = daemon.attach(false);
    daemon.start();
    let started = begin.elapsed().as_micros();
    client.read_exact(&mut [0; 9]).unwrap();
    let output = begin.elapsed().as_micros();
    let begin = Instant::now();
    daemon.exec(exec_request("one", &["true"])).unwrap();
    let exec = begin.elapsed().as_micros();
    let begin = Instant::now();
    daemon.send(Request::CloseStdin, &[]);
    daemon.exited();
    let exited = begin.elapsed().as_micros();
    daemon.reap();
    [spawn, created, started, output, exited, exec]
}
