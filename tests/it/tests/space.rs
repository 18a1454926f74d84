//! A full disk: what was attempted is told, nothing half-made takes space, and the
//! engine goes on once there is room. The data root is a small tmpfs.

use capsa_it::registry::Registry;
use capsa_it::{Cli, Daemon, Setup, busybox, eventually, noise};

fn small() -> Daemon {
    let setup = Setup { data_root_size: Some("32m"), ..Setup::default() };
    let d = Daemon::start_with(Cli::Docker, setup);
    d.load(&busybox());
    d
}

#[test]
fn a_pull_that_does_not_fit_is_told_and_takes_no_space() {
    let registry = Registry::start();
    let from = Daemon::start(Cli::Docker);
    let names = ["big", "fits"].map(|name| format!("{}/{name}:1", registry.host()));
    for (name, bytes) in names.iter().zip([40 << 20, 6 << 20]) {
        let noise = noise(1, bytes);
        from.load(&busybox().named(name).with_layer(|layer| layer.file("noise", &noise, 0o644, 0)));
        from.ok(&["push", "-q", name]);
    }
    let d = small();
    for _ in 0..2 {
        let output = d.run(&["pull", "-q", &names[0]]);
        assert_ne!(output.code, 0);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.to_lowercase().contains("no space left"), "{text}");
        assert_eq!(d.run(&["image", "inspect", &names[0]]).code, 1);
    }
    d.ok(&["pull", "-q", &names[1]]);
    assert_eq!(d.ok(&["run", "--rm", &names[1], "wc", "-c", "/noise"]), "6291456 /noise");
}

#[test]
fn a_commit_that_does_not_fit_is_told_and_takes_no_space() {
    let d = small();
    let write = "dd if=/dev/urandom of=/noise bs=1M count=14 2>/dev/null; sleep 99";
    let id = d.ok(&["run", "-d", "busybox", "sh", "-c", write]);
    eventually("what it writes", || {
        let size = d.run(&["exec", &id, "stat", "-c", "%s", "/noise"]).stdout;
        (size.trim() == "14680064").then_some(())
    });
    for _ in 0..2 {
        let output = d.run(&["commit", &id, "made:1"]);
        assert_ne!(output.code, 0);
        assert!(output.stderr.to_lowercase().contains("no space left"), "{}", output.stderr);
        assert_eq!(d.run(&["image", "inspect", "made:1"]).code, 1);
    }
    // It goes on, not paused, and what it needs is there again.
    d.ok(&["exec", &id, "sh", "-c", "rm /noise; echo small >/noise"]);
    d.ok(&["commit", &id, "made:1"]);
    assert_eq!(d.ok(&["run", "--rm", "made:1", "cat", "/noise"]), "small");
}

#[test]
fn an_image_that_does_not_fit_is_told_and_takes_no_space() {
    let d = small();
    let noise = noise(1, 40 << 20);
    let big = busybox().named("big:1").with_layer(|layer| layer.file("noise", &noise, 0o644, 0));
    let path = big.write(d.scratch());
    for _ in 0..2 {
        let output = d.run(&["load", "-q", "-i", path.to_str().unwrap()]);
        assert_ne!(output.code, 0);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.to_lowercase().contains("no space left"), "{text}");
        assert_eq!(d.run(&["image", "inspect", "big:1"]).code, 1);
    }
    let fits = busybox()
        .named("fits:1")
        .with_layer(|layer| layer.file("noise", &noise[..6 << 20], 0o644, 0));
    d.load(&fits);
    assert_eq!(d.ok(&["run", "--rm", "fits:1", "wc", "-c", "/noise"]), "6291456 /noise");
}

#[test]
fn a_container_that_fills_the_disk_hurts_only_itself() {
    let d = small();
    d.ok(&["run", "-d", "--name", "other", "busybox", "sleep", "99"]);
    let fill = "dd if=/dev/zero of=/big bs=64k; echo code $?";
    let output = d.run(&["run", "--name", "filler", "busybox", "sh", "-c", fill]);
    assert!(output.stderr.contains("No space left on device"), "{output:?}");
    assert_eq!(d.ok(&["exec", "other", "echo", "here"]), "here");
    let refused = d.run(&["create", "--name", "late", "busybox", "true"]);
    if refused.code != 0 {
        assert!(refused.stderr.to_lowercase().contains("no space left"), "{}", refused.stderr);
    }
    d.ok(&["rm", "-f", "filler"]);
    d.ok(&["run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/ok", "bs=64k", "count=64"]);
}
