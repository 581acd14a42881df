//! Kept, kept in part, undone, dropped, left for later.

use super::*;
use crate::common::tree::fingerprint;

const CHANGE: &str = "echo more >> a; rm b; mkdir new; echo n > new/n";

#[test]
fn nothing_reaches_the_directory_until_it_is_kept() {
    let Some(room) = Room::new("nothing_reaches_the_directory_until_it_is_kept") else {
        return;
    };
    let before = fingerprint(&room.dir());
    let script = format!("{CHANGE}; cat a; ls; umask; exit 7");
    let output = room.run(&["--diff", "--later", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "one\nmore\na\nd\nnew\n0022\n"
    );
    let told = String::from_utf8(output.stderr).unwrap();
    let dir = room.dir().display().to_string();
    for line in [
        format!("C {dir}/a  9 B\n"),
        "    +more\n".into(),
        format!("D {dir}/b\n"),
        "    -two\n".into(),
        format!("A {dir}/new/n  2 B\n"),
        "2 added, 1 changed, 1 deleted, 11 B of files\n".into(),
        "left for later as trial 1".into(),
    ] {
        assert!(told.contains(&line), "{line:?} in {told}");
    }
    assert!(
        before
            .differences(&fingerprint(&room.dir()), "before", "after")
            .is_empty()
    );
    assert_eq!(room.trials(), ["1"]);

    // Gone on with, and kept.
    room.done(&[
        "--resume",
        "1",
        "--later",
        "--",
        "sh",
        "-c",
        "test ! -e b; echo last >> a",
    ]);
    let text = room.done(&["keep", "1"]);
    assert!(text.contains("kept: 2 added, 1 changed, 1 deleted"), "{text}");
    assert_eq!(room.text("a"), "one\nmore\nlast\n");
    assert_eq!(room.text("new/n"), "n\n");
    assert!(!sys::exists(room.dir().join("b")));
    assert!(room.fails(&["keep", "1"]).contains("kept already"));
    assert!(room.done(&["ls"]).contains("kept, can be undone"));

    room.done(&["undo", "1"]);
    let after = exact(&room.dir());
    assert!(
        exact_of(&before)
            .differences(&after, "before", "undone")
            .is_empty()
    );
    assert!(
        room.fails(&["undo", "1"])
            .contains("no changes of trial 1 were kept")
    );
    room.done(&["drop", "1"]);
    assert_eq!(room.trials(), [""; 0]);
    assert_eq!(sys::names(room.base().join("state/try")).unwrap(), [""; 0]);
}

/// What an undo puts back: all but the change times, which nobody can set.
fn exact_of(tree: &Tree) -> Tree {
    tree.clone().without(&["ctime"])
}

fn exact(path: &Path) -> Tree {
    fingerprint(path).without(&["ctime"])
}

#[test]
fn flags_decide_without_a_terminal() {
    let Some(room) = Room::new("flags_decide_without_a_terminal") else {
        return;
    };
    room.done(&["--drop", "--", "sh", "-c", CHANGE]);
    assert_eq!((room.text("a").as_str(), room.trials().len()), ("one\n", 0));
    assert!(room.done(&["--keep", "--", "true"]).contains("nothing changed"));
    assert_eq!(room.trials().len(), 0);
    // A command that fails keeps nothing by itself.
    let output = room.run(&["--keep", "--name", "bad", "--", "sh", "-c", "echo x > a; exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(
        (room.text("a").as_str(), room.trials()),
        ("one\n", vec!["bad".to_owned()])
    );
    room.done(&["drop", "bad"]);
    room.done(&["--keep", "--", "sh", "-c", CHANGE]);
    assert_eq!(room.text("a"), "one\nmore\n");
    // Without a terminal and without a flag: later.
    let text = room.done(&["-C", "d", "--", "sh", "-c", "pwd; echo x > deep"]);
    assert!(text.contains(&format!("{}/d\n", room.dir().display())), "{text}");
    assert!(text.contains("left for later as trial 2"), "{text}");
    assert_eq!(room.text("d/deep"), "deep\n");
}

#[test]
fn some_changes_are_kept() {
    let Some(room) = Room::new("some_changes_are_kept") else {
        return;
    };
    room.done(&["--later", "--", "sh", "-c", CHANGE]);
    let text = room.done(&["keep", "1", "b", "new"]);
    assert!(text.contains("kept: 2 added, 0 changed, 1 deleted"), "{text}");
    assert_eq!(
        (room.text("a").as_str(), room.text("new/n").as_str()),
        ("one\n", "n\n")
    );
    assert!(!sys::exists(room.dir().join("b")));
    room.done(&["undo", "1"]);
    assert_eq!(room.text("b"), "two\n");
    let json: serde_json::Value = serde_json::from_str(&room.done(&["show", "1", "--json"])).unwrap();
    assert!(json.to_string().contains("/new/n"), "{json}");
}

#[test]
fn what_changed_underneath_is_not_lost() {
    let Some(room) = Room::new("what_changed_underneath_is_not_lost") else {
        return;
    };
    room.done(&["--later", "--", "sh", "-c", CHANGE]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    sys::put(room.dir().join("a"), "somebody's").unwrap();
    let text = room.fails(&["keep", "1"]);
    assert!(
        text.contains("/a: it was changed in the lower underneath"),
        "{text}"
    );
    assert_eq!(
        (room.text("a").as_str(), room.text("b").as_str()),
        ("somebody's", "two\n")
    );
    assert!(!sys::exists(room.dir().join("new")));
    // What nobody touched can be kept.
    room.done(&["keep", "1", "b", "new"]);
    assert_eq!(
        (room.text("a").as_str(), room.text("new/n").as_str()),
        ("somebody's", "n\n")
    );
}

#[test]
fn wrong_usage_and_commands_that_are_not_there() {
    let Some(room) = Room::new("wrong_usage_and_commands_that_are_not_there") else {
        return;
    };
    for (words, status) in [
        (&["--later", "--", "/nowhere/command"][..], 127),
        (&["--later", "--", "/etc"], 126),
        (&["-C", "/nowhere", "--", "true"], 125),
        (&["--name", "../x", "--", "true"], 125),
        (&["--keep", "--drop", "--", "true"], 2),
        (&["--resume", "none", "--", "true"], 125),
        (&["keep", "none"], 1),
        (&["--later", "--", "sh", "-c", "kill -9 $$"], 137),
    ] {
        assert_eq!(room.run(words).status.code(), Some(status), "{words:?}");
    }
    assert_eq!(room.trials(), [""; 0]);
    // No network but the loopback interface, which is up; and what was left running is killed.
    let text = room.done(&[
        "--drop",
        "--",
        "sh",
        "-c",
        "grep -c : /proc/net/dev; cat /sys/class/net/lo/flags 2>/dev/null; sleep 1000 & echo x > a",
    ]);
    assert!(text.starts_with("1\n"), "{text}");
}

/// kill -9 of `plyfs try` ends the command and its servers; what was changed until then waits.
#[test]
fn a_trial_that_is_killed() {
    let Some(room) = Room::new("a_trial_that_is_killed") else {
        return;
    };
    let script = "echo x >> a; touch ready; sleep 300";
    let mut child = room
        .command(&["--later", "--name", "k", "--", "sh", "-c", script])
        .spawn()
        .unwrap();
    let ready = room.base().join("state/try/k/0/upper/ready");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !sys::exists(&ready) {
        assert!(std::time::Instant::now() < until, "the command never wrote");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(room.trials(), ["k"]);
    // The servers bring to disk what they have, and go.
    room.done(&["keep", "k"]);
    assert_eq!(room.text("a"), "one\nx\n");
    room.done(&["undo", "k"]);
    assert_eq!(room.text("a"), "one\n");
    room.done(&["drop", "k"]);
}

/// Wherever the keep is killed, the next one ends it, or an undo takes it back.
#[cfg(feature = "fault-injection")]
#[test]
fn a_keep_that_is_killed() {
    let Some(room) = Room::new("a_keep_that_is_killed") else {
        return;
    };
    let before = exact(&room.dir());
    room.done(&["--later", "--", "sh", "-c", CHANGE]);
    let plan = room.base().join("fault");
    let keep_killed_at = |call: u32| {
        std::fs::write(&plan, format!("kill {call}")).unwrap();
        let output = room
            .command(&["keep", "1"])
            .env("PLYFS_FAULT_FILE", &plan)
            .output()
            .unwrap();
        std::fs::remove_file(&plan).unwrap();
        output
    };
    let mut killed = 0;
    for call in (1..).step_by(3) {
        assert!(call < 500, "it never comes through");
        let output = keep_killed_at(call);
        if !output.status.success() {
            killed += 1;
            let undo = room.run(&["undo", "1"]);
            let nothing = String::from_utf8_lossy(&undo.stderr).contains("no changes of trial 1 were kept");
            assert!(undo.status.success() || nothing, "call {call}: {undo:?}");
            let now = exact(&room.dir());
            assert!(
                before.differences(&now, "before", "now").is_empty(),
                "call {call}"
            );
            // And once more, to the end.
            assert!(!keep_killed_at(call).status.success());
            room.done(&["keep", "1"]);
        }
        assert_eq!(
            (room.text("a").as_str(), room.text("new/n").as_str()),
            ("one\nmore\n", "n\n")
        );
        room.done(&["undo", "1"]);
        let now = exact(&room.dir());
        assert!(
            before.differences(&now, "before", "undone").is_empty(),
            "call {call}"
        );
        if output.status.success() {
            break;
        }
    }
    assert!(killed > 10, "only {killed} kills");
}
