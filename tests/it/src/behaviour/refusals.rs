//! What can't be done is told: what was attempted, on which thing, and why not.

use crate::Daemon;

pub fn a_taken_name_is_told(d: &Daemon) {
    let id = d.ok(&["create", "--name", "mine", "busybox", "true"]);
    let error = d.run(&["create", "--name", "mine", "busybox", "true"]);
    assert_eq!(error.code, 1);
    for part in ["Conflict", "/mine", "already in use", &id] {
        assert!(error.stderr.contains(part), "{part} in {}", error.stderr);
    }
    assert_eq!(d.ok(&["ps", "-aq"]).lines().count(), 1);
}

pub fn a_missing_image_is_told(d: &Daemon) {
    let error = d.fails(1, &["image", "inspect", "nowhere:1"]);
    assert!(error.contains("No such image") && error.contains("nowhere:1"), "{error}");
    let error = d.fails(125, &["run", "--pull", "never", "nowhere:1"]);
    assert!(error.contains("nowhere:1"), "{error}");
    assert_eq!(d.ok(&["ps", "-aq"]), "");
}

pub fn a_missing_container_is_told(d: &Daemon) {
    for verb in ["start", "stop", "kill", "rm", "logs", "wait", "restart", "pause", "top"] {
        let error = d.fails(1, &[verb, "nobody"]);
        assert!(error.contains("No such container: nobody"), "{verb}: {error}");
    }
}

pub fn a_missing_bind_source_is_told(d: &Daemon) {
    let mount = "type=bind,source=/no/such/dir,target=/x";
    let error = d.fails(125, &["run", "--rm", "--mount", mount, "busybox", "true"]);
    assert!(error.contains("/no/such/dir"), "{error}");
    assert_eq!(d.ok(&["ps", "-aq"]), "", "nothing is left of it");
}

pub fn a_bad_option_is_told(d: &Daemon) {
    for (args, part) in [
        (&["-m", "1k"][..], "emory"),
        (&["-p", "99999:80"], "99999"),
        (&["--network", "no-such-net"], "no-such-net"),
        (&["-u", "nobody-here"], "nobody-here"),
        (&["--restart", "sometimes"], "sometimes"),
        (&["-v", "bad/../name:/x"], "bad/../name"),
    ] {
        let output = d.run(&[&["run"], args, &["busybox", "true"]].concat());
        assert!(matches!(output.code, 125 | 126), "{args:?}: {output:?}");
        assert!(output.stderr.contains(part), "{args:?}: {}", output.stderr);
    }
    assert_eq!(d.ok(&["ps", "-q"]), "");
}

pub fn nothing_runs_in_a_stopped_one(d: &Daemon) {
    let id = d.ok(&["create", "busybox", "true"]);
    let error = d.fails(1, &["exec", &id, "true"]);
    assert!(error.contains("is not running"), "{error}");
    d.ok(&["start", "-a", &id]);
    let error = d.fails(1, &["exec", &id, "true"]);
    assert!(error.contains("is not running"), "{error}");
}

pub fn a_missing_working_directory_is_made(d: &Daemon) {
    assert_eq!(d.ok(&["run", "--rm", "-w", "/not/there", "busybox", "pwd"]), "/not/there");
    d.fails(125, &["run", "--rm", "-w", "/etc/passwd", "busybox", "pwd"]);
}
