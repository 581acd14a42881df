//! What a container changed: diff, commit, export.

use std::process::Command;

use super::*;
use crate::common::layers::mounts_below;

#[test]
fn what_every_container_is_given_is_no_change_unless_it_was_changed() {
    if !can_mount("what_every_container_is_given_is_no_change") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    assert_eq!(yard.diff("one"), "");
    let m = yard.mount("one");
    sys::cat(m.join("etc/hosts")).unwrap();
    sys::put(m.join("etc/hosts"), "127.0.0.1 me\n").unwrap();
    sys::unlink(m.join("etc/mtab")).unwrap();
    sys::chmod(m.join("dev/shm"), 0o700).unwrap();
    yard.ok(&["container", "umount", "one"]);
    assert_eq!(
        yard.diff("one"),
        "C /dev\nC /dev/shm\nC /etc\nC /etc/hosts\nD /etc/mtab"
    );
    let lines: serde_json::Value = yard.shop.json(&["container", "diff", "--json", "one"]);
    assert_eq!(lines[3]["change"], "C");
    assert_eq!(lines[3]["path"], "/etc/hosts");
    // An edit of the same size within the same second, with the old time put back.
    yard.ok(&["container", "create", "--name", "two", "base:1"]);
    let m = yard.mount("two");
    let old = sys::mtime(m.join("etc/motd")).unwrap();
    sys::put(m.join("etc/motd"), "bass\n").unwrap();
    sys::utimens(m.join("etc/motd"), old, old).unwrap();
    yard.ok(&["container", "umount", "two"]);
    assert_eq!(yard.diff("two"), "C /etc\nC /etc/motd");
}

#[test]
fn an_export_is_the_merged_tree() {
    if !can_mount("an_export_is_the_merged_tree") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let m = yard.mount("one");
    sys::put(m.join("srv/new"), "new\n").unwrap();
    sys::unlink(m.join("bin/tty")).unwrap();
    let out = yard.shop.path("out.tar");
    yard.ok(&["container", "export", "-o", out.to_str().unwrap(), "one"]);
    let unpacked = yard.shop.path("unpacked");
    sys::mkdir(&unpacked, 0o755).unwrap();
    let done = Command::new("tar")
        .arg("-xpf")
        .arg(&out)
        .arg("-C")
        .arg(&unpacked)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let fields = ["ino", "ctime", "nlink", "atime"];
    let (theirs, mine) = (
        snapshot(&m).without(&fields),
        snapshot(&unpacked).without(&fields),
    );
    assert_eq!(theirs.differences(&mine, "merged", "exported"), [""; 0]);
    yard.ok(&["container", "umount", "one"]);
    // Not mounted: the same, and nothing is mounted afterwards.
    let again = yard.shop.run(&["container", "export", "one"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(again.stdout, std::fs::read(&out).unwrap());
    assert!(mounts_below(&yard.shop.path("")).is_empty());
    assert!(!yard.data("one", "MergedDir").exists());
}

#[test]
fn a_commit_fails_whole_or_is_whole() {
    if !can_mount("a_commit_fails_whole_or_is_whole") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let m = yard.mount("one");
    sys::put(m.join("etc/motd"), "changed\n").unwrap();
    sys::mknod(m.join("srv/socket"), libc::S_IFSOCK | 0o755, 0, 0).unwrap();
    yard.ok(&["container", "umount", "one"]);
    let layers = yard.shop.names("overlay").len();
    let (status, _, said) = yard.run(&["container", "commit", "--change", "RUN ls", "one", "bad:1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("--change"), "{said}");
    assert_eq!(yard.shop.names("overlay").len(), layers);
    let (status, id, said) = yard.run(&[
        "container",
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        "--change",
        "CMD [\"ls\", \"/srv\"]",
        "one",
        "new:1",
    ]);
    assert_eq!(status, Some(0), "{said}");
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(said.contains("/srv/socket"), "what was left out is told: {said}");
    let image = yard.shop.json(&["image", "inspect", "new:1"]);
    assert_eq!(image[0]["Config"]["Cmd"], serde_json::json!(["ls", "/srv"]));
    assert_eq!(image[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let root = yard.shop.root_of("new:1");
    assert_eq!(sys::text(root.join("etc/motd")).unwrap(), "changed\n");
    assert_eq!(
        sys::ino(root.join("bin/ls")),
        sys::ino(yard.shop.root_of("base:1").join("bin/ls"))
    );
    // Nothing to add: an empty layer, as in docker.
    yard.ok(&["container", "create", "--name", "two", "new:1"]);
    yard.ok(&["container", "commit", "two", "new:2"]);
    let image = yard.shop.json(&["image", "inspect", "new:2"]);
    assert_eq!(image[0]["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    yard.ok(&["container", "rm", "one", "two"]);
}
