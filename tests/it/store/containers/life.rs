//! Birth, use and death of containers.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::common::layers::{mounts_below, servers_of};

#[test]
fn names_and_ids() {
    if !can_mount("names_and_ids") {
        return;
    }
    let yard = Yard::new();
    let id = yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let (status, _, said) = yard.run(&["container", "create", "--name", "one", "base:1"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("taken by container"), "{said}");
    let (status, _, said) = yard.run(&["container", "create", "--name", "o/e", "base:1"]);
    assert_eq!(status, Some(2), "{said}");
    // An image of settings only.
    let context = yard.shop.path("context");
    sys::mkdir(&context, 0o755).unwrap();
    sys::put(context.join("Containerfile"), "FROM scratch\nLABEL a=b\n").unwrap();
    yard.ok(&["image", "build", "-t", "empty:1", context.to_str().unwrap()]);
    let (status, _, said) = yard.run(&["container", "create", "empty:1"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("empty:1 has no layers"), "{said}");
    yard.ok(&["container", "create", "base:1"]);
    let named = yard.ok(&["container", "inspect", "-f", "{{ .Name }}", &id[..12]]);
    assert_eq!(named, "/one");
    let (status, _, said) = yard.run(&["container", "inspect", "nobody"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("no such container: nobody"), "{said}");
    let list = yard.shop.json(&["container", "ls", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["name"], "one");
    assert_eq!(list[1]["status"], "created");
    for key in ["LowerDir", "UpperDir", "WorkDir"] {
        assert!(yard.data("one", key).is_dir(), "{key}");
    }
    assert!(!yard.data("one", "MergedDir").exists());
    let json = yard.ok(&["container", "inspect", "-f", "{{json .GraphDriver.Data }}", "one"]);
    assert!(json.starts_with('{') && json.contains("\"UpperDir\":"), "{json}");
    yard.has_no_halves();
}

#[test]
fn a_mount_in_use_keeps_everything_and_a_killed_one_frees_it() {
    if !can_mount("a_mount_in_use_keeps_everything") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    let m = yard.mount("one");
    sys::put(m.join("srv/kept"), "kept\n").unwrap();
    for words in [&["container", "rm", "one"][..], &["image", "rm", "base:1"]] {
        let (status, _, said) = yard.run(words);
        assert_eq!(status, Some(1), "{said}");
    }
    let server = servers_of(&yard.shop.path(""))
        .into_iter()
        .find(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .expect("a server");
    // SAFETY: the server of this test's own mount.
    unsafe { libc::kill(server, libc::SIGKILL) };
    wait_until("the lock of a killed server", || {
        let list = yard.shop.json(&["container", "ls", "--json"]);
        list[0]["mounted"] == false
    });
    // A dead mount lies on merged; the next mount clears it, and finds what was written.
    let again = yard.mount("one");
    assert_eq!(again, m);
    assert_eq!(sys::text(m.join("srv/kept")).unwrap(), "kept\n");
    let server = servers_of(&yard.shop.path("")).pop().unwrap();
    // SAFETY: as above.
    unsafe { libc::kill(server, libc::SIGKILL) };
    wait_until("the removal after a killed server", || {
        yard.run(&["container", "rm", "one"]).0 == Some(0)
    });
    assert!(mounts_below(&yard.shop.path("")).is_empty());
    yard.ok(&["image", "rm", "base:1"]);
    yard.has_no_halves();
}

/// Many at once: each does what it is asked, or says that somebody else was first.
#[test]
fn many_at_once() {
    if !can_mount("many_at_once") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "one", "base:1"]);
    for round in 0..4 {
        let all = |words: &[&str]| {
            let children: Vec<_> = (0..4).map(|_| yard.shop.spawn(words)).collect();
            let looks: Vec<_> = (0..4).map(|_| yard.shop.spawn(&["container", "ls"])).collect();
            for look in looks {
                assert!(look.wait_with_output().unwrap().status.success());
            }
            let ended = children
                .into_iter()
                .map(|child| child.wait_with_output().unwrap());
            let ended: Vec<_> = ended.collect();
            let good = ended.iter().filter(|output| output.status.success()).count();
            assert_eq!(good, 1, "round {round}, {words:?}: {ended:?}");
        };
        all(&["container", "mount", "one"]);
        all(&["container", "umount", "one"]);
        all(&["container", "rm", "one"]);
        all(&["container", "create", "--name", "one", "base:1"]);
    }
    yard.has_no_halves();
    // A view of the layer made by hand keeps the image.
    let lower = yard.data("one", "LowerDir");
    yard.ok(&["container", "rm", "one"]);
    let m = yard.shop.path("m");
    sys::mkdir(&m, 0o755).unwrap();
    let (lower, merged) = (lower.to_str().unwrap(), m.to_str().unwrap());
    yard.ok(&["mount", "--read-only", lower, merged]);
    assert_eq!(sys::nlink(m.join("srv/old")), Ok(2));
    let (status, _, said) = yard.run(&["image", "rm", "base:1"]);
    assert_eq!(status, Some(1), "{said}");
    yard.ok(&["umount", merged]);
    yard.ok(&["image", "rm", "base:1"]);
}

/// Whatever is killed, at whatever moment: the store opens, nothing is half there, and the same command succeeds.
#[test]
fn killed_at_any_moment() {
    if !can_mount("killed_at_any_moment") {
        return;
    }
    let yard = Yard::new();
    yard.ok(&["container", "create", "--name", "kept", "base:1"]);
    let m = yard.mount("kept");
    for number in 0..200 {
        sys::put(m.join(format!("srv/{number}")), format!("{number}\n")).unwrap();
    }
    yard.ok(&["container", "umount", "kept"]);
    let mut step = Duration::ZERO;
    for round in 0..12 {
        step += Duration::from_millis(2);
        let name = format!("c{round}-x");
        let tag = format!("image:{round}");
        let commands: [&[&str]; 3] = [
            &["container", "create", "--name", &name, "base:1"],
            &["container", "commit", "kept", &tag],
            &["container", "rm", &name],
        ];
        for words in commands {
            let mut child = yard.shop.spawn(words);
            std::thread::sleep(step);
            child.kill().unwrap();
            child.wait().unwrap();
            yard.has_no_halves();
            let (status, _, said) = yard.run(words);
            let done = said.contains("is taken by") || said.contains("no such container");
            assert!(status == Some(0) || done, "{words:?} after {step:?}: {said}");
            yard.has_no_halves();
        }
        if round % 6 == 5 {
            yard.ok(&["system", "check"]);
        }
    }
    yard.ok(&["container", "rm", "kept"]);
}
