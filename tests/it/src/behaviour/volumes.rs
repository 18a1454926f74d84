//! Volumes, bind mounts, tmpfs; who owns what on the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::{Daemon, busybox};

pub fn a_named_volume_outlives_its_container(d: &Daemon) {
    d.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/d",
        "busybox",
        "sh",
        "-c",
        "echo kept > /d/f; chown app /d/f",
    ]);
    let mountpoint = d.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "data"]);
    let file = format!("{mountpoint}/f");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    assert_eq!(fs::metadata(&file).unwrap().uid(), 1000, "uid N inside is uid N on disk");
    assert_eq!(fs::metadata(&mountpoint).unwrap().uid(), 0);
    let again =
        ["run", "--rm", "-v", "data:/e", "busybox", "sh", "-c", "cat /e/f; stat -c %u /e/f"];
    assert_eq!(d.ok(&again), "kept\n1000");
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "data");
    d.ok(&["volume", "rm", "data"]);
    assert!(!fs::exists(&mountpoint).unwrap());
}

pub fn an_anonymous_volume_goes_with_rm_v(d: &Daemon) {
    let id = d.ok(&["run", "-d", "-v", "/d", "busybox", "sleep", "99"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), 1);
    d.ok(&["rm", "-f", &id]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), 1, "without -v it stays");
    d.ok(&["volume", "prune", "-f"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "");
    let id = d.ok(&["run", "-d", "-v", "/d", "busybox", "sleep", "99"]);
    d.ok(&["rm", "-f", "-v", &id]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "");
    d.ok(&["run", "--rm", "-v", "/d", "busybox", "touch", "/d/f"]);
    crate::eventually("--rm takes it too", || {
        d.ok(&["volume", "ls", "-q"]).is_empty().then_some(())
    });
}

pub fn a_bind_mount_is_the_host_s_directory(d: &Daemon) {
    let dir = d.scratch().join("bound");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("from-host"), "host\n").unwrap();
    let mount = format!("{}:/b", dir.display());
    let script = "cat /b/from-host; stat -c %u /b/from-host; echo new > /b/from-inside";
    assert_eq!(d.ok(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script]), "host\n0");
    assert_eq!(fs::read_to_string(dir.join("from-inside")).unwrap(), "new\n");
    assert_eq!(fs::metadata(dir.join("from-inside")).unwrap().uid(), 0);
    // -v makes a missing source; a file can be bound too.
    let made = dir.join("made/by/v");
    d.ok(&["run", "--rm", "-v", &format!("{}:/m", made.display()), "busybox", "true"]);
    assert!(made.is_dir());
    let file = format!("{}:/etc/one:ro", dir.join("from-host").display());
    assert_eq!(d.ok(&["run", "--rm", "-v", &file, "busybox", "cat", "/etc/one"]), "host");
}

pub fn read_only_is_read_only(d: &Daemon) {
    let dir = d.scratch().join("ro");
    fs::create_dir(&dir).unwrap();
    for mount in [format!("{}:/r:ro", dir.display()), "vol:/r:ro".to_owned()] {
        let output = d.run(&["run", "--rm", "-v", &mount, "busybox", "touch", "/r/f"]);
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    }
    let mount = format!("type=bind,source={},target=/r,readonly", dir.display());
    d.fails(1, &["run", "--rm", "--mount", &mount, "busybox", "touch", "/r/f"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

pub fn an_image_s_files_fill_a_new_volume(d: &Daemon) {
    let image = busybox()
        .named("data:1")
        .with_layer(|layer| {
            layer.dir("srv", 0o750, 1000);
            layer.file("srv/given", b"by the image\n", 0o640, 1000);
        })
        .with_config("Volumes", serde_json::json!({ "/srv": {} }));
    d.load(&image);
    let script = "cat /srv/given; stat -c '%u %a' /srv /srv/given";
    let run =
        |args: &[&str]| d.ok(&[&["run", "--rm"], args, &["data:1", "sh", "-c", script]].concat());
    assert_eq!(run(&[]), "by the image\n1000 750\n1000 640", "the image's own volume");
    assert_eq!(run(&["-v", "named:/srv"]), "by the image\n1000 750\n1000 640");
    let mountpoint = d.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "named"]);
    assert_eq!(fs::metadata(format!("{mountpoint}/given")).unwrap().uid(), 1000);
    // A volume that holds something is not filled again.
    fs::write(format!("{mountpoint}/given"), "changed\n").unwrap();
    assert!(run(&["-v", "named:/srv"]).starts_with("changed\n"));
    let bare = d.run(&["run", "--rm", "-v", "bare:/srv:nocopy", "data:1", "cat", "/srv/given"]);
    assert_eq!(bare.code, 1, "nocopy copies nothing");
}

pub fn a_volume_in_use_is_kept(d: &Daemon) {
    d.ok(&["volume", "create", "--label", "a=b", "mine"]);
    let id = d.ok(&["create", "-v", "mine:/d", "busybox", "true"]);
    let refused = d.fails(1, &["volume", "rm", "mine"]);
    assert!(refused.contains("in use") && refused.contains(&id), "{refused}");
    d.ok(&["rm", &id]);
    d.ok(&["volume", "rm", "mine"]);
    let missing = d.fails(1, &["volume", "rm", "mine"]);
    assert!(missing.contains("mine"), "{missing}");
}

pub fn volumes_from_another_container(d: &Daemon) {
    d.ok(&["create", "--name", "data", "-v", "/shared", "busybox", "true"]);
    d.ok(&["run", "--rm", "--volumes-from", "data", "busybox", "sh", "-c", "echo x > /shared/f"]);
    let read = ["run", "--rm", "--volumes-from", "data:ro", "busybox", "cat", "/shared/f"];
    assert_eq!(d.ok(&read), "x");
    d.fails(1, &["run", "--rm", "--volumes-from", "data:ro", "busybox", "touch", "/shared/g"]);
}

pub fn a_tmpfs_is_memory(d: &Daemon) {
    let script = "grep ' /t ' /proc/mounts; touch /t/f && df -k /t | tail -1";
    let seen = d.ok(&["run", "--rm", "--tmpfs", "/t:size=4m", "busybox", "sh", "-c", script]);
    assert!(seen.starts_with("tmpfs /t tmpfs"), "{seen}");
    assert!(seen.lines().last().unwrap().contains(" 4096 "), "{seen}");
    let shm =
        ["run", "--rm", "--shm-size", "8m", "busybox", "sh", "-c", "df -k /dev/shm | tail -1"];
    assert!(d.ok(&shm).contains(" 8192 "));
}

pub fn a_read_only_root(d: &Daemon) {
    let args = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", "busybox", "sh", "-c"];
    assert_eq!(d.ok(&[&args[..], &["touch /tmp/f && echo written"]].concat()), "written");
    let refused = d.run(&[&args[..], &["touch /f"]].concat());
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
}
