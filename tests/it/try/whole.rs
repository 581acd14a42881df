//! The whole root by root, and mounts below the directory.

use super::*;

#[test]
fn the_whole_root_is_thrown_away() {
    let Some(room) = Room::new("the_whole_root_is_thrown_away") else {
        return;
    };
    let text = room.done(&[
        "--root",
        "--drop",
        "--",
        "sh",
        "-c",
        "pwd; echo x > /etc/plyfs-try; rm /bin/ls /usr/bin/ls 2>/dev/null; test ! -e /usr/bin/ls && echo gone; \
         echo t > /tmp/plyfs-try; test -c /dev/null && test -d /proc/1 && echo there; touch /sys/plyfs-try || echo closed",
    ]);
    for line in [
        "gone\nthere\n",
        "closed\n",
        "A /etc/plyfs-try  2 B\n",
        "A /tmp/plyfs-try  2 B\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(text.contains(&format!("{}\n", room.dir().display())), "{text}");
    assert!(!sys::exists("/etc/plyfs-try") && !sys::exists("/tmp/plyfs-try") && sys::exists("/usr/bin/ls"));
}

#[test]
fn mounts_below_are_layered_too() {
    let Some(room) = Room::new("mounts_below_are_layered_too") else {
        return;
    };
    for (name, options) in [("rw", "mode=755"), ("ro", "mode=755,ro")] {
        let path = room.dir().join(name);
        sys::mkdir(&path, 0o755).unwrap();
        let flags = if name == "ro" { libc::MS_RDONLY } else { 0 };
        sys::mount("tmpfs", &path, "tmpfs", flags, options.trim_end_matches(",ro")).unwrap();
    }
    sys::put(room.dir().join("rw/f"), "memory\n").unwrap();
    sys::put(room.dir().join("bound"), "").unwrap();
    sys::mount(
        room.dir().join("a").to_str().unwrap(),
        &room.dir().join("bound"),
        "",
        libc::MS_BIND,
        "",
    )
    .unwrap();
    let script = "cat rw/f bound; echo more >> rw/f; echo x > rw/new; echo y >> a; touch ro/x 2>/dev/null || echo read-only; \
                  sh -c 'echo z >> bound' 2>/dev/null || echo closed";
    let text = room.done(&["--later", "--", "sh", "-c", script]);
    assert!(text.starts_with("memory\none\nread-only\nclosed\n"), "{text}");
    assert_eq!(
        (room.text("rw/f").as_str(), room.text("a").as_str()),
        ("memory\n", "one\n")
    );
    room.done(&["keep", "1"]);
    assert_eq!(
        (room.text("rw/f").as_str(), room.text("a").as_str()),
        ("memory\nmore\n", "one\ny\n")
    );
    room.done(&["undo", "1"]);
    assert_eq!(
        (room.text("rw/f").as_str(), room.text("a").as_str()),
        ("memory\n", "one\n")
    );
    assert!(!sys::exists(room.dir().join("rw/new")));
    // If one of two file systems refuses, the other is put back.
    std::thread::sleep(std::time::Duration::from_millis(20));
    sys::put(room.dir().join("rw/f"), "somebody's").unwrap();
    assert!(
        room.fails(&["keep", "1"])
            .contains("/f: it was changed in the lower underneath")
    );
    assert_eq!(
        (room.text("rw/f").as_str(), room.text("a").as_str()),
        ("somebody's", "one\n")
    );
}
