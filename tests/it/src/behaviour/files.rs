//! `cp` and `diff`: files in and out of a container.

use std::fs;

use crate::Daemon;

pub fn cp_out_and_in(d: &Daemon) {
    let host = d.scratch().join("cp");
    fs::create_dir_all(host.join("dir/sub")).unwrap();
    fs::write(host.join("dir/sub/f"), "deep\n").unwrap();
    let path = |name: &str| host.join(name).to_str().unwrap().to_owned();
    let running = d.ok(&["run", "-d", "--name", "up", "busybox", "sleep", "99"]);
    d.ok(&["create", "--name", "down", "busybox", "cat", "/dir/sub/f"]);
    for container in ["up", "down"] {
        d.ok(&["cp", &path("dir"), &format!("{container}:/")]);
        d.ok(&["cp", &format!("{container}:/dir/sub/f"), &path(container)]);
        assert_eq!(fs::read_to_string(host.join(container)).unwrap(), "deep\n");
        d.ok(&["cp", &format!("{container}:/etc"), &path(&format!("etc-{container}"))]);
        assert!(host.join(format!("etc-{container}/passwd")).is_file());
    }
    assert_eq!(d.ok(&["exec", &running, "cat", "/dir/sub/f"]), "deep");
    assert_eq!(d.ok(&["start", "-a", "down"]), "deep");
    d.fails(1, &["cp", "up:/no/such/file", &path("x")]);
    let into_nowhere = d.run(&["cp", &path("up"), "up:/no/such/dir/x"]);
    assert_eq!(into_nowhere.code, 1, "{}", into_nowhere.stderr);
}

pub fn cp_streams_tar(d: &Daemon) {
    d.ok(&["run", "-d", "--name", "box", "busybox", "sleep", "99"]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o640);
    header.set_uid(1000);
    archive.append_data(&mut header, "streamed", &b"hi\n"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let output = d.run_with(&["cp", "-a", "-", "box:/tmp"], &archive);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let look = ["exec", "box", "sh", "-c", "cat /tmp/streamed; stat -c '%u %a' /tmp/streamed"];
    assert_eq!(d.ok(&look), "hi\n1000 640");
    let output = d.command(&["cp", "box:/tmp/streamed", "-"]).output().unwrap();
    let mut archive = tar::Archive::new(output.stdout.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("streamed"));
    assert_eq!(entry.header().uid().unwrap(), 1000);
}

pub fn diff_tells_what_changed(d: &Daemon) {
    let script =
        "echo x > /added; rm /etc/group; echo more >> /etc/passwd; mkdir /dir; touch /dir/f";
    d.ok(&["run", "--name", "box", "busybox", "sh", "-c", script]);
    let mut lines: Vec<_> = d.ok(&["diff", "box"]).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["A /added", "A /dir", "A /dir/f", "C /etc", "C /etc/passwd", "D /etc/group"]
    );
}

pub fn cp_stays_inside(d: &Daemon) {
    let secret = d.scratch().join("secret");
    fs::write(&secret, "host's\n").unwrap();
    let script = format!("ln -s {} /link; ln -s / /up; sleep 99", secret.display());
    d.ok(&["run", "-d", "--name", "box", "busybox", "sh", "-c", &script]);
    crate::eventually("the links", || {
        (d.run(&["exec", "box", "readlink", "/up"]).code == 0).then_some(())
    });
    // Followed inside the container, where there is no such file.
    let out = d.scratch().join("out");
    d.run(&["cp", "-L", "box:/link", out.to_str().unwrap()]);
    assert!(!out.is_file(), "a link of the container led out of it");
    let marker = d.scratch().join("marker");
    fs::write(&marker, "x").unwrap();
    d.ok(&["cp", marker.to_str().unwrap(), "box:/up/tmp/marker"]);
    d.ok(&["exec", "box", "test", "-f", "/tmp/marker"]);
    assert!(!fs::exists("/tmp/marker").unwrap());
}
