//! A full disk: what was attempted is told, nothing half-made takes space, and the
//! engine goes on once there is room. The data root is a small tmpfs.

use capsa_it::{Cli, Daemon, Setup, busybox};

fn small() -> Daemon {
    let setup = Setup { data_root_size: Some("32m"), ..Setup::default() };
    let d = Daemon::start_with(Cli::Docker, setup);
    d.load(&busybox());
    d
}

#[test]
fn an_image_that_does_not_fit_is_told_and_takes_no_space() {
    let d = small();
    // Bytes that don't compress: whatever the store does with them, they are too many.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..40 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
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
