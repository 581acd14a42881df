//! The manifest, and `plyfs layer verify`: every difference is named, damage is told, unchanged files are not read.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

use plyfs::builder::manifest::{Parent, Reader, Recording};
use plyfs::builder::{BuildError, Silent, TreePath, verify};
use serde_json::Value;

use super::room::{Room, faults, manifest, manifest_with, open};
use crate::common::plant::{PLANTED, plant};
use crate::common::{Node, acl, chr, dir, fifo, file, hard, need_root, symlink, sys};

fn nodes() -> Vec<Node> {
    vec![
        dir("t"),
        dir("t/d"),
        dir("t/d-a"),
        file("t/d/f", "text"),
        file("t/f", "other text"),
        hard("t/d/g", "t/f"),
        symlink("t/s", "target"),
        fifo("t/p"),
        file("t/x", "x").xattr("user.a", "1").xattr("user.b", "2"),
        chr("t/c", 1, 3),
        dir("t/sub"),
        file("t/sub/deep", ""),
    ]
}

/// The times of a name as planted, after it was touched.
fn planted(path: &Path) {
    sys::utimens(path, PLANTED, PLANTED).unwrap();
}

#[test]
fn every_difference_is_named() {
    if !need_root("every_difference_is_named") {
        return;
    }
    /// What is done, how, and the words by which it is told.
    type Change = (&'static str, fn(&Path), &'static [&'static str]);
    let changes: &[Change] = &[
        ("nothing", |_| (), &[]),
        (
            "data of the same size and time",
            |t| {
                fs::write(t.join("d/f"), "tex?").unwrap();
                planted(&t.join("d/f"));
            },
            &[
                "/d/f: content: sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1 -> \
               sha256:155b83f38e162b07bb8d6cbcbbdf6930a617f73bfb18f3a03835d5146cce64b1",
            ],
        ),
        (
            "size",
            |t| {
                fs::write(t.join("d/f"), "longer").unwrap();
                planted(&t.join("d/f"));
            },
            &["/d/f: size: 4 -> 6"],
        ),
        (
            "time by a nanosecond",
            |t| sys::utimens(t.join("d/f"), PLANTED, (PLANTED.0, PLANTED.1 + 1)).unwrap(),
            &["/d/f: mtime: 1580608922.020202020 -> 1580608922.020202021"],
        ),
        (
            "mode of a directory",
            |t| sys::chmod(t.join("d"), 0o1755).unwrap(),
            &["/d: mode: 0755 -> 1755"],
        ),
        (
            "mode of the root",
            |t| sys::chmod(t, 0o700).unwrap(),
            &["/: mode: 0755 -> 0700"],
        ),
        (
            "owner and group",
            |t| sys::chown(t.join("s"), 5, 6).unwrap(),
            &["/s: owner: 0 -> 5", "/s: group: 0 -> 6"],
        ),
        (
            "attributes",
            |t| {
                sys::setxattr(t.join("x"), "user.a", "3").unwrap();
                sys::removexattr(t.join("x"), "user.b").unwrap();
                sys::setxattr(t.join("x"), "user.c", [0, 255]).unwrap();
                sys::setxattr(t.join("x"), "trusted.long", [b'z'; 100]).unwrap();
            },
            &[
                "/x: xattr trusted.long: nothing -> 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz...' \
                 (100 bytes)",
                "/x: xattr user.a: '1' -> '3'",
                "/x: xattr user.b: '2' -> nothing",
                "/x: xattr user.c: nothing -> '\\x00\\xff'",
            ],
        ),
        (
            "a default ACL",
            |t| {
                let list = acl::of(&[(acl::USER_OBJ, 0, 7), (acl::GROUP_OBJ, 0, 5), (acl::OTHER, 0, 5)]);
                sys::setxattr(t.join("d"), acl::DEFAULT, list).unwrap();
            },
            &[
                "/d: xattr system.posix_acl_default: nothing -> '\\x02\\x00\\x00\\x00\\x01\\x00\\x07\\x00\\xff\\xff\\xff\\xff\
               \\x04\\x00\\x05\\x00\\xff\\xff\\xff\\xff \\x00\\x05\\x00\\xff\\xff\\xff\\xff'",
            ],
        ),
        (
            "a target",
            |t| {
                fs::remove_file(t.join("s")).unwrap();
                sys::make_symlink("tarnet", t.join("s")).unwrap();
                planted(&t.join("s"));
                planted(t);
            },
            &["/s: target: 'target' -> 'tarnet'"],
        ),
        (
            "a device number",
            |t| {
                fs::remove_file(t.join("c")).unwrap();
                sys::mknod(t.join("c"), libc::S_IFCHR | 0o644, 1, 5).unwrap();
                planted(&t.join("c"));
                planted(t);
            },
            &["/c: device: 1:3 -> 1:5"],
        ),
        (
            "a kind",
            |t| {
                fs::remove_file(t.join("p")).unwrap();
                fs::create_dir(t.join("p")).unwrap();
                planted(t);
            },
            &["/p: kind: fifo -> directory"],
        ),
        (
            "missing, and with all below",
            |t| {
                fs::remove_dir_all(t.join("sub")).unwrap();
                fs::remove_file(t.join("x")).unwrap();
                planted(t);
            },
            &[
                "/sub: object: directory -> nothing",
                "/sub/deep: object: file -> nothing",
                "/x: object: file -> nothing",
            ],
        ),
        (
            "too much",
            |t| {
                fs::create_dir(t.join("d/new")).unwrap();
                fs::write(t.join("d/new/f"), "").unwrap();
                fs::write(t.join("zzz\n"), "").unwrap();
                planted(&t.join("d"));
                planted(t);
            },
            &[
                "/d/new: object: nothing -> directory",
                "/d/new/f: object: nothing -> file",
                "/zzz\\n: object: nothing -> file",
            ],
        ),
        (
            "a group that fell apart",
            |t| {
                fs::remove_file(t.join("f")).unwrap();
                fs::write(t.join("f"), "other text").unwrap();
                planted(&t.join("f"));
                planted(t);
            },
            &[
                "/d/g: hard links: the first of 2 names -> a file of its own",
                "/f: hard links: one of 2 names of /d/g -> a file of its own",
            ],
        ),
        (
            "a group that grew together",
            |t| {
                fs::write(t.join("d/f"), "x").unwrap();
                fs::remove_file(t.join("x")).unwrap();
                fs::hard_link(t.join("d/f"), t.join("x")).unwrap();
                sys::setxattr(t.join("x"), "user.a", "1").unwrap();
                sys::setxattr(t.join("x"), "user.b", "2").unwrap();
                planted(&t.join("x"));
                planted(t);
            },
            &[
                "/d/f: size: 4 -> 1",
                "/d/f: hard links: a file of its own -> the first of 2 names",
                "/d/f: xattr user.a: nothing -> '1'",
                "/d/f: xattr user.b: nothing -> '2'",
                "/x: hard links: a file of its own -> one of 2 names of /d/f",
            ],
        ),
    ];
    for (what, change, expected) in changes {
        let room = Room::new();
        plant(room.base(), &nodes());
        let tree = room.path("t");
        planted(&tree);
        let recorded = manifest(&tree);
        change(&tree);
        assert_eq!(faults(&tree, &recorded), *expected, "{what}");
    }
}

#[test]
fn the_command_and_its_exit_status() {
    let room = Room::new();
    plant(
        room.base(),
        &[dir("source"), file("source/f", "text"), dir("layer")],
    );
    let said = room.fails(&["layer", "verify", "source"]);
    assert!(
        said.contains("manifest: No such file") && said.contains("--manifest"),
        "{said}"
    );
    room.ok(&[
        "layer",
        "clone",
        "source",
        "layer/root",
        "--manifest",
        "layer/manifest",
    ]);
    let said = room.ok(&["layer", "verify", "layer/root"]);
    assert_eq!(said, "2 objects, 4 B: as recorded\n");
    // Beside the root also when it is named as the working directory.
    let mut here = room.command(&["layer", "verify", "."]);
    assert!(
        here.current_dir(room.path("layer/root"))
            .status()
            .unwrap()
            .success()
    );
    // The manifest is not written over.
    let said = room.fails(&[
        "layer",
        "clone",
        "source",
        "other",
        "--manifest",
        "layer/manifest",
    ]);
    assert!(said.contains("layer/manifest: File exists"), "{said}");
    assert!(!room.path("other").exists());

    fs::write(room.path("layer/root/f"), "txet").unwrap();
    fs::write(room.path("layer/root/new"), "").unwrap();
    let output = room.plyfs(&["layer", "verify", "layer/root"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, error) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(out.contains("/f: content: expected sha256:982d"), "{out}");
    assert!(
        out.contains("\n/new: object: expected nothing, found file\n"),
        "{out}"
    );
    assert!(error.contains("layer/root: 4 differences"), "{error}");
    let output = room.plyfs(&["layer", "verify", "--json", "layer/root"]);
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["objects"], 3);
    assert_eq!(json["faults"][1]["path"], "/f");
    assert_eq!(json["faults"][1]["what"], "mtime");
    // The source is the same inode, so it changed, too: that is what verify is for.
    assert_eq!(fs::read_to_string(room.path("source/f")).unwrap(), "txet");
}

#[test]
fn a_damaged_manifest_is_told() {
    let room = Room::new();
    plant(
        room.base(),
        &[dir("t"), dir("t/d"), file("t/d/f", "text"), symlink("t/s", "d")],
    );
    let tree = room.path("t");
    let good = manifest(&tree);
    let check = |bytes: &[u8]| verify(open(&tree).as_fd(), bytes, 1, &Silent, &mut |_| Ok(()));
    assert_eq!(check(&good).unwrap().faults, 0);
    let told = |bytes: &[u8], what: &str| match check(bytes) {
        Err(error @ BuildError::Stream { .. }) => {
            let said = error.to_string();
            assert!(said.contains("the manifest is damaged"), "{what}: {said}");
            said
        }
        other => panic!("{what}: {other:?}"),
    };
    for cut in 0..good.len() {
        told(&good[..cut], &format!("cut to {cut}"));
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            // Some bits mean nothing (the window, for one); then the content is the same.
            match check(&bad) {
                Ok(checked) => assert_eq!(checked.faults, 0, "bit {bit} of byte {at} is not noticed"),
                Err(error) => assert!(error.to_string().contains("the manifest is damaged"), "{error}"),
            }
        }
    }
    told(&[good.as_slice(), b"more"].concat(), "more behind it");
    let text = String::from_utf8(zstd::decode_all(good.as_slice()).unwrap()).unwrap();
    let packed = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    assert_eq!(check(&packed(&text)).unwrap().faults, 0);
    for (from, to, said) in [
        ("\"plyfs_manifest\":1", "\"plyfs_manifest\":2", "it has version 2"),
        ("{\"objects\":4}\n", "", "it is cut short"),
        (
            "{\"objects\":4}",
            "{\"objects\":5}",
            "it has 4 objects and should have 5",
        ),
        ("\"depth\":2", "\"depth\":3", "line 4 is out of place"),
        ("\"name\":\"f\"", "\"name\":\"..\"", "line 4 is out of place"),
        ("\"name\":\"f\"", "\"name\":\"a/b\"", "line 4 is out of place"),
        (
            "\"kind\":\"symlink\"",
            "\"kind\":\"link\"",
            "line 5: \"link\" is not a kind of object",
        ),
        ("\"mode\":\"0644\"", "\"mode\":\"0844\"", "is not a mode"),
        (".020202020\"", ".02\"", "is not a time"),
        (
            "{\"depth\":1,\"name\":\"s\"",
            "{\"name\":\"s\"",
            "missing field `depth`",
        ),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        let told = told(&packed(&text.replace(from, to)), to);
        assert!(told.contains(said), "{told}");
    }
}

/// What does not stand in the parent's manifest is looked at; what does is taken from there and never read.
#[test]
fn linked_files_are_not_read_again() {
    let room = Room::new();
    plant(
        room.base(),
        &[
            dir("parent"),
            dir("parent/d"),
            file("parent/d/f", "text"),
            hard("parent/g", "parent/d/f"),
            file("parent/h", "old"),
        ],
    );
    let (parent, child) = (room.path("parent"), room.path("child"));
    let recorded = manifest(&parent);
    room.ok(&["layer", "clone", "parent", "child"]);
    // A changed file, a new one, one in the place of another; and what nobody may do: a write through the link.
    for (name, data) in [("new", "new"), ("h", "fresh")] {
        let path = child.join(name);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, data).unwrap();
    }
    fs::write(parent.join("d/f"), "evil").unwrap();
    let root = open(&parent);
    let record = |root: std::os::fd::BorrowedFd<'_>| {
        let parent = Parent {
            manifest: Box::new(std::io::Cursor::new(recorded.clone())),
            root,
        };
        let (bytes, summary) = manifest_with(
            &child,
            Recording {
                parent: Some(parent),
                ..Recording::default()
            },
        );
        let shown = format!("{:?}", faults(&child, &bytes));
        (shown, summary)
    };
    let (shown, summary) = record(root.as_fd());
    assert_eq!(
        (summary.objects, summary.inherited, summary.file_bytes),
        (6, 2, 4 + 3 + 5)
    );
    // The child's manifest says what the file was when the parent was born: the evil shows in both.
    assert!(
        shown.contains("/d/f: content") && shown.contains("/g: content"),
        "{shown}"
    );
    assert!(!shown.contains("/new") && !shown.contains("/h"), "{shown}");
    // A manifest of another tree is not believed: its inode numbers mean other files.
    let elsewhere = room.dir("elsewhere");
    let (shown, summary) = record(open(&elsewhere).as_fd());
    assert_eq!((shown.as_str(), summary.inherited), ("[]", 0));
}

#[test]
fn what_was_left_out_stands_in_the_last_line() {
    let room = Room::new();
    plant(room.base(), &[dir("t")]);
    let skipped = [(TreePath::from_clean("dev/null"), "a device".to_owned())];
    let (bytes, _) = manifest_with(
        &room.path("t"),
        Recording {
            skipped: &skipped,
            ..Recording::default()
        },
    );
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    while reader.advance().unwrap().is_some() {}
    assert_eq!(reader.skipped(), skipped);
}

#[test]
fn a_file_that_is_written_meanwhile_is_refused() {
    let room = Room::new();
    let tree = room.dir("t");
    let path = tree.join("f");
    fs::write(&path, vec![0; 48 << 20]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
            }
        });
        let mut to = Vec::new();
        let answer =
            plyfs::builder::manifest::record(open(&tree).as_fd(), Recording::default(), &mut to, &Silent);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        answer.unwrap_err().to_string()
    });
    assert!(
        refused.starts_with("/f: it was written while it was read"),
        "{refused}"
    );
}

/// Runs a command and prints its peak memory in KiB. A process begins with the most memory that the one it was forked
/// from ever had, so a small one has to stand between this one, with its many tests, and the command.
const PEAK: &str = "
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
";

/// Peak memory of a command, in KiB, and its time.
fn measured(room: &Room, arguments: &[&str]) -> (i64, f64) {
    let start = SystemTime::now();
    let plyfs = room.command(arguments);
    let mut between = std::process::Command::new("python3");
    between.args(["-S", "-E", "-c", PEAK]).arg(plyfs.get_program());
    between.args(plyfs.get_args());
    if let Some(dir) = plyfs.get_current_dir() {
        between.current_dir(dir);
    }
    let done = between.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", done.status);
    let kib = String::from_utf8(done.stdout).unwrap().trim().parse().unwrap();
    (kib, start.elapsed().unwrap().as_secs_f64())
}

/// Many names, in a few directories and in many: 100,000, or as many thousands as `PLYFS_TEST_THOUSANDS` says
/// (`scripts/test --full` takes a million).
#[test]
fn many_names_in_100_mib() {
    if !need_root("many_names_in_100_mib") {
        return;
    }
    let thousands: usize = std::env::var("PLYFS_TEST_THOUSANDS").map_or(100, |text| text.parse().unwrap());
    let mut room = Room::new();
    room.tmpfs("memory");
    room.tmpfs("other");
    let source = room.path("memory/source");
    for dir in 0..thousands {
        let dir = source.join(dir.to_string());
        fs::create_dir_all(&dir).unwrap();
        for file in 0..500 {
            fs::write(dir.join(format!("file-{file}")), "").unwrap();
        }
    }
    for file in 0..thousands * 500 {
        fs::write(source.join(format!("in-one-directory-{file}")), "").unwrap();
    }
    for arguments in [
        &[
            "layer",
            "clone",
            "memory/source",
            "memory/a",
            "--manifest",
            "a.manifest",
        ][..],
        &["layer", "verify", "memory/a", "--manifest", "a.manifest"],
        &[
            "layer",
            "clone",
            "memory/a",
            "memory/b",
            "--manifest",
            "b.manifest",
            "--base-manifest",
            "a.manifest",
        ],
        &[
            "layer",
            "clone",
            "memory/source",
            "other/elsewhere",
            "--manifest",
            "c.manifest",
        ],
    ] {
        let (kib, seconds) = measured(&room, arguments);
        eprintln!("{kib} KiB, {seconds:.1} s: {arguments:?}");
        assert!(kib < 100 << 10, "{kib} KiB: {arguments:?}");
    }
}
