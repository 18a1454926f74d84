//! Images to registries and back, against Debian's docker-registry, by both command lines.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where")]

use capsa_it::registry::{Gate, LOGIN, Registry};
use capsa_it::{Cli, Daemon, busybox, eventually, noise};

fn there_and_back(cli: Cli) {
    let registry = Registry::start();
    let d = Daemon::start(cli);
    let name = format!("{}/lib/bb:1", registry.host());
    let repository = name.trim_end_matches(":1");
    let id = d.inspect("busybox", "{{.Id}}");
    d.ok(&["tag", "busybox", &name]);
    let pushed = d.ok(&["push", &name]);
    assert!(pushed.contains(": Pushed"), "{pushed}");
    let digest = pushed.lines().find_map(|line| line.strip_prefix("1: digest: "));
    let digest = digest.and_then(|rest| rest.split(' ').next()).expect("a digest").to_owned();
    let again = d.ok(&["push", &name]);
    assert!(again.contains(": Layer already exists") && again.contains(&digest), "{again}");
    let exact = format!("{repository}@{digest}");
    assert_eq!(d.inspect(&name, "{{join .RepoDigests \" \"}}"), exact);
    // Another name there takes the layer over.
    let other = format!("{}/other:2", registry.host());
    d.ok(&["tag", "busybox", &other]);
    let mounted = d.ok(&["push", &other]);
    assert!(mounted.contains(": Mounted from lib/bb"), "{mounted}");

    d.ok(&["rmi", "-f", &id]);
    let pulled = d.ok(&["pull", &name]);
    assert!(pulled.contains("1: Pulling from lib/bb\n"), "{pulled}");
    assert!(pulled.contains(": Pull complete\n"), "{pulled}");
    assert!(pulled.contains(&format!("Digest: {digest}\n")), "{pulled}");
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {name}")), "{pulled}");
    assert_eq!(d.inspect(&name, "{{.Id}}"), id);
    let same = d.ok(&["pull", &name]);
    assert!(same.contains(&format!("Status: Image is up to date for {name}")), "{same}");
    assert_eq!(d.ok(&["run", "--rm", &name, "echo", "hi"]), "hi");

    // By digest it has no tag, and is found by that digest.
    d.ok(&["rmi", "-f", &id]);
    d.ok(&["pull", "-q", &exact]);
    assert_eq!(d.inspect(&exact, "{{.RepoTags}} {{.Id}}"), format!("[] {id}"));
    assert_eq!(d.ok(&["run", "--rm", &exact, "echo", "hi"]), "hi");
    // A run fetches what is missing.
    assert_eq!(d.ok(&["run", "--rm", "-q", &other, "echo", "hi"]), "hi");
    d.ok(&["tag", &other, &format!("{repository}:2")]);
    d.ok(&["push", "-q", "-a", repository]);
    d.ok(&["rmi", "-f", &id]);
    d.ok(&["pull", "-q", "-a", repository]);
    let tags = d.ok(&["images", repository, "--format", "{{.Tag}}"]);
    let mut tags: Vec<_> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2"]);
}

#[test]
fn an_image_goes_there_and_back_with_docker() {
    there_and_back(Cli::Docker);
}

#[test]
fn an_image_goes_there_and_back_with_capsa() {
    there_and_back(Cli::Capsa);
}

fn logins(cli: Cli) {
    let registry = Registry::with_password();
    let d = Daemon::start(cli);
    let host = registry.host();
    let name = format!("{host}/private:1");
    d.ok(&["tag", "busybox", &name]);
    let refused = d.fails(1, &["push", &name]);
    assert!(refused.contains("no basic auth credentials") || refused.contains("401"), "{refused}");
    let (user, password) = LOGIN;
    let wrong = d.run_with(&["login", "-u", user, "--password-stdin", &host], b"guess");
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.stderr.contains("401"), "{}", wrong.stderr);
    let right = d.run_with(&["login", "-u", user, "--password-stdin", &host], password.as_bytes());
    assert_eq!(right.code, 0, "{right:?}");
    assert!(right.stdout.contains("Login Succeeded"), "{}", right.stdout);
    d.ok(&["push", "-q", &name]);
    d.ok(&["rmi", &name]);
    d.ok(&["pull", "-q", &name]);
    d.ok(&["logout", &host]);
    d.ok(&["rmi", &name]);
    let denied = d.fails(1, &["pull", &name]);
    assert!(denied.contains("pull access denied for"), "{denied}");
    assert_eq!(d.run(&["image", "inspect", &name]).code, 1);
}

#[test]
fn a_registry_with_a_password_wants_a_login_with_docker() {
    logins(Cli::Docker);
}

#[test]
fn a_registry_with_a_password_wants_a_login_with_capsa() {
    logins(Cli::Capsa);
}

/// Keeps one login in the file `kept` beside it, as credential helpers do.
const HELPER: &str = r#"#!/bin/sh
kept=$(dirname "$0")/kept
case $1 in
get) cat "$kept" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
store) cat >"$kept" ;;
erase) rm "$kept" ;;
esac
"#;

fn helper_keeps_logins(cli: Cli) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::process::Stdio;

    let registry = Registry::with_password();
    let d = Daemon::start(cli);
    let programs = d.scratch().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let mut options = std::fs::File::options();
    let script =
        options.write(true).create(true).mode(0o755).open(programs.join("docker-credential-test"));
    script.and_then(|mut script| script.write_all(HELPER.as_bytes())).unwrap();
    let config = d.scratch().join("home/config.json");
    std::fs::write(&config, r#"{"credsStore":"test"}"#).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let run = |args: &[&str], input: &str| {
        let mut command = d.command(args);
        command.env("PATH", &path).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    let (host, (user, password)) = (registry.host(), LOGIN);
    let said = run(&["login", "-u", user, "--password-stdin", &host], password);
    assert!(!said.contains("unencrypted"), "{said}");
    let kept = std::fs::read_to_string(programs.join("kept")).unwrap();
    assert!(kept.contains(password) && kept.contains(&host), "{kept}");
    let file = std::fs::read_to_string(&config).unwrap();
    assert!(file.contains(&host) && !file.contains("\"auth\""), "{file}");
    let name = format!("{host}/private:1");
    d.ok(&["tag", "busybox", &name]);
    run(&["push", "-q", &name], "");
    run(&["logout", &host], "");
    assert!(!programs.join("kept").exists());
    assert_eq!(d.run(&["push", "-q", &name]).code, 1);
}

#[test]
fn a_helper_keeps_logins_for_docker() {
    helper_keeps_logins(Cli::Docker);
}

#[test]
fn a_helper_keeps_logins_for_capsa() {
    helper_keeps_logins(Cli::Capsa);
}

#[test]
fn what_a_registry_does_not_have_is_named() {
    let registry = Registry::start();
    let d = Daemon::start(Cli::Docker);
    let name = format!("{}/none:1", registry.host());
    let missing = d.fails(1, &["pull", &name]);
    let wanted = format!("Error response from daemon: manifest for {name} not found");
    assert!(missing.contains(&wanted), "{missing}");
    let run = d.fails(125, &["run", "--rm", &name, "true"]);
    assert!(run.contains("manifest unknown"), "{run}");
    let absent = d.fails(1, &["push", &name]);
    assert!(absent.contains("does not exist locally with the tag"), "{absent}");
    let nobody = d.fails(1, &["pull", "127.0.0.1:1/x"]);
    assert!(nobody.contains("127.0.0.1:1"), "{nobody}");
}

#[test]
fn pulls_at_the_same_time_share_one_download() {
    let registry = Registry::start();
    let gate = Gate::before(&registry);
    let d = Daemon::start(Cli::Capsa);
    let size = 8 << 20;
    let noise = noise(1, size);
    let (name, through) = (format!("{}/big:1", registry.host()), format!("{}/big:1", gate.host()));
    d.load(&busybox().named(&name).with_layer(|layer| layer.file("noise", &noise, 0o644, 0)));
    d.ok(&["push", "-q", &name]);
    d.ok(&["rmi", "-f", &name, "busybox"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| d.ok(&["pull", "-q", &through]));
        }
    });
    let came = gate.passed();
    assert!(came < size as u64 * 3 / 2, "{came} bytes came for {size}");
}

#[test]
fn a_pull_goes_on_where_a_killed_daemon_stopped() {
    let registry = Registry::start();
    let gate = Gate::before(&registry);
    let mut d = Daemon::start(Cli::Capsa);
    let size = 24 << 20;
    let name = format!("{}/big:1", registry.host());
    let through = format!("{}/big:1", gate.host());
    let noise = noise(1, size);
    d.load(&busybox().named(&name).with_layer(|layer| layer.file("noise", &noise, 0o644, 0)));
    d.ok(&["push", "-q", &name]);
    d.ok(&["rmi", "-f", &name, "busybox"]);
    // It can't be done before it is killed.
    gate.break_after(size as u64 * 3 / 4);
    let pull = d.start(&["pull", &through]);
    // What is still in the sockets when the daemon dies was not downloaded by it.
    let partial = d.data_root().join("ingest");
    eventually("half of it", || {
        let files = std::fs::read_dir(&partial).ok()?.map_while(Result::ok);
        let kept: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        (kept >= size as u64 / 2).then_some(())
    });
    d.kill_hard();
    drop(pull);
    d.launch();
    assert_eq!(d.run(&["image", "inspect", &through]).code, 1, "nothing partial is visible");
    gate.break_after(u64::MAX);
    d.ok(&["pull", "-q", &through]);
    let again = gate.passed();
    assert!(again < size as u64 * 55 / 100, "{again} of {size} bytes came again");
    assert_eq!(d.ok(&["run", "--rm", &through, "wc", "-c", "/noise"]), format!("{size} /noise"));
}
