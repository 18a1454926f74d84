//! The cases, one per promise.

use std::fs;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use capsa_runtime::protocol::{self, Event, Request};
use capsa_sys::channel::Channel;
use serde_json::json;

use crate::world::{
    FIRST_ID, World, exec_request, read_all, read_until, unframe, write,
};

/// Name and body of each.
pub const ALL: &[(&str, fn())] = &[
    ("output_and_exit_code_arrive", output_and_exit_code_arrive),
    ("root_inside_is_nobody_outside", root_inside_is_nobody_outside),
    ("the_log_has_every_line", the_log_has_every_line),
];

fn output_and_exit_code_arrive() {
    let world = World::new("echo out; echo err >&2; exit 7");
    let (out, err, record) = world.run();
    assert_eq!((out.as_str(), err.as_str(), record.code), ("out\n", "err\n", 7));
    assert_eq!((record.signal, record.oom_killed), (None, false));
    assert!(record.started_ns > 0 && record.finished_ns >= record.started_ns);
    let text = fs::read_to_string(&world.request.exit_record).unwrap();
    assert_eq!(serde_json::from_str::<protocol::ExitRecord>(&text).unwrap(), record);
    assert!(world.cgroups().is_empty());
    assert!(!world.request.dir.join("monitor.sock").exists());
}

fn root_inside_is_nobody_outside() {
    let world = World::new("id -u; stat -c %u /etc/plain; touch /new; chown 33 /new; cat /proc/1/comm; true");
    let (out, err, record) = world.run();
    assert_eq!((out.as_str(), err.as_str(), record.code), ("0\n0\nsh\n", "", 0));
    assert_eq!(fs::metadata(world.dir.join("top/upper/new")).unwrap().uid(), 33);
}

fn the_log_has_every_line() {
    let world = World::new("echo one; echo two >&2; echo -n last");
    world.run();
    let mut lines = world.log();
    lines.sort_by_key(|line| line["stream"] == "stderr");
    let text: Vec<_> = lines.iter().map(|line| line["log"].as_str().unwrap()).collect();
    assert_eq!(text, ["one\n", "last", "two\n"]);
    let _ = (FIRST_ID, json!(0));
    let _ = (exec_request, read_all, read_until, unframe, write, Shutdown::Both);
    let _ = |c: Channel, e: Event, r: Request| (c.as_fd().try_clone_to_owned(), e, r);
}
