//! `plyfs compare`, as a user calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::need_root;

/// A way to mount that is none: the lower itself, writable, in the place of a view.
const NO_OVERLAY: &str = "mount --bind {lower} {merged} # {upper}";

/// A directory for all files of one test; when it is dropped, nothing may be left in it or mounted.
struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Room {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let scratch = self.path("tmp");
        std::fs::create_dir_all(&scratch).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command
            .arg("compare")
            .args(words)
            .env("TMPDIR", scratch)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the command, and looks whether it left anything.
    fn run(&self, words: &[&str]) -> Output {
        let output = self.command(words).output().unwrap();
        self.nothing_is_left();
        output
    }

    fn nothing_is_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.path("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(here), "{mounts}");
    }
}

fn status(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The exit status of a script that shows a difference, and what it printed.
fn reproduce(script: &Path, room: &Room) -> (Option<i32>, String) {
    let output = Command::new("unshare")
        .args(["-m", "sh"])
        .arg(script)
        .env("TMPDIR", room.path("tmp"))
        .output()
        .unwrap();
    room.nothing_is_left();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn plyfs_and_the_kernel_do_the_same() {
    if !need_root("plyfs_and_the_kernel_do_the_same") {
        return;
    }
    let room = Room::new();
    let junit = room.path("results.xml");
    let output = room.run(&[
        "--seed",
        "1",
        "--ops",
        "100",
        "--json",
        "--junit",
        junit.to_str().unwrap(),
    ]);
    status(&output, 0);
    let report = json(&output);
    assert!(report["operations"].as_u64() > Some(50), "{report}");
    assert_eq!(report["checks"][0]["name"], "seed 1");
    assert_eq!(report["checks"][0]["result"], "passed");
    assert_eq!(report["differences"], serde_json::json!([]));
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(
        xml.contains("tests=\"1\"") && xml.contains("failures=\"0\""),
        "{xml}"
    );
    assert!(xml.contains("testcase name=\"seed 1\""), "{xml}");
}

#[test]
fn a_difference_is_shrunk_and_can_be_reproduced() {
    if !need_root("a_difference_is_shrunk_and_can_be_reproduced") {
        return;
    }
    let room = Room::new();
    // Relative to where the command is called, whatever it does with its own working directory.
    let (out, junit) = ("finds", "results.xml");
    let words = [
        "--b",
        NO_OVERLAY,
        "--ignore",
        "upper,work,nlink,ino",
        "--seed",
        "1",
        "--minutes",
        "1",
    ];
    let more = ["--shrink", "8", "--out", out, "--junit", junit];
    let (said, _) = status(&room.run(&[&words[..], &more].concat()), 1);
    assert!(said.contains("1 difference"), "{said}");
    assert!(
        std::fs::read_to_string(room.path(junit))
            .unwrap()
            .contains("failures=\"1\"")
    );

    let files: Vec<PathBuf> = std::fs::read_dir(room.path(out))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    let with = |ending: &str| {
        files
            .iter()
            .find(|path| path.extension().unwrap() == ending)
            .unwrap()
    };
    let (code, said) = reproduce(with("sh"), &room);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--- the kernel's overlay") && said.contains("+++ mount"),
        "{said}"
    );

    let replay = with("json").to_str().unwrap();
    let output = room.run(&[
        "--replay",
        replay,
        "--b",
        NO_OVERLAY,
        "--ignore",
        "upper,work,nlink,ino",
        "--json",
    ]);
    status(&output, 1);
    assert_eq!(json(&output)["differences"][0]["note"], "replayed");
    status(&room.run(&["--replay", replay, "--b", "kernel"]), 0);
}

const STEPS: &str = "
    set -e
    mkdir new
    echo text >new/file
    mv f moved
    ln moved again
    rm -r e
    ls -R
";

#[test]
fn a_script_in_both_views() {
    if !need_root("a_script_in_both_views") {
        return;
    }
    let room = Room::new();
    let script = room.write("steps.sh", STEPS);
    let script = script.to_str().unwrap();
    let (said, _) = status(&room.run(&["--script", script]), 0);
    assert!(
        said.contains("passed   each on the layers of the other"),
        "{said}"
    );
    assert!(said.contains("no differences"), "{said}");
    // Without an overlay it does the same, but in the lower.
    let (said, _) = status(
        &room.run(&["--script", script, "--b", NO_OVERLAY, "--ignore", "nlink,mode"]),
        1,
    );
    assert!(
        said.contains("failed   merged tree and upper") && said.contains("in the upper"),
        "{said}"
    );

    let lower = room.path("lower");
    std::fs::create_dir(&lower).unwrap();
    std::fs::write(lower.join("a"), "1").unwrap();
    let lower = lower.to_str().unwrap();
    let output = room.run(&[
        "--lower",
        lower,
        "--json",
        "--",
        "sh",
        "-c",
        "cat a; rm a; exit 7",
    ]);
    status(&output, 0);
    assert_eq!(json(&output)["status"], "exit status: 7");
    assert_eq!(std::fs::read_to_string(Path::new(lower).join("a")).unwrap(), "1");
    let output = room.run(&["--lower", lower, "--json", "--", "stat", "-f", "-c", "%T", "."]);
    status(&output, 1);
    assert_eq!(json(&output)["differences"][0]["signature"], "standard output");
}

#[test]
fn a_script_that_hangs_or_kills_its_mount() {
    if !need_root("a_script_that_hangs_or_kills_its_mount") {
        return;
    }
    let room = Room::new();
    let only_fuse = |name: &str, what: &str| {
        let text = format!("case $(stat -f -c %T .) in fuse*) {what} ;; esac\n");
        room.write(name, &text).to_str().unwrap().to_owned()
    };
    let hangs = only_fuse("hangs.sh", "sleep 1000");
    let (said, _) = status(&room.run(&["--script", &hangs, "--limit", "5"]), 1);
    assert!(
        said.contains("did not end within 5 s on plyfs, and was killed"),
        "{said}"
    );
    // On the reference it is a failure: there is nothing to compare with.
    let (_, said) = status(
        &room.run(&[
            "--a", "plyfs", "--b", "kernel", "--script", &hangs, "--limit", "5",
        ]),
        1,
    );
    assert!(
        said.contains("did not end within 5 s on plyfs, and was killed"),
        "{said}"
    );

    let leaves = only_fuse(
        "leaves.sh",
        "here=$PWD; cd /; umount -l \"$here\"; umount -l ${here%/view}/1/2/m",
    );
    let (said, _) = status(&room.run(&["--script", &leaves]), 1);
    assert!(
        said.contains("the view of plyfs is gone: it was unmounted"),
        "{said}"
    );
    let minor = "$(($(stat -c %d .)))";
    let kills = only_fuse(
        "kills.sh",
        &format!("echo 1 >/sys/fs/fuse/connections/{minor}/abort"),
    );
    let (said, _) = status(&room.run(&["--script", &kills]), 1);
    assert!(
        said.contains("the view of plyfs is gone: its server answers ENOTCONN"),
        "{said}"
    );
}

#[test]
fn a_signal_leaves_nothing_behind() {
    if !need_root("a_signal_leaves_nothing_behind") {
        return;
    }
    let room = Room::new();
    let mut command = room.command(&["--", "sleep", "1000"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let scratch = room.path(&format!("tmp/plyfs-compare-{}", child.id()));
    while !scratch.exists() {
        assert!(Instant::now() < deadline, "it never begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it ends by itself");
    // SAFETY: the process is our child, and not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let (_, said) = status(&child.wait_with_output().unwrap(), 1);
    assert!(said.contains("stopped; nothing is left mounted"), "{said}");
    room.nothing_is_left();
}

#[test]
fn ways_that_are_none_and_wrong_usage() {
    let room = Room::new();
    for (words, reason) in [
        (&["--b", "mymount {lower} {merged}"][..], "{upper} is missing"),
        (&["--ignore", "colour"], "there is no such field"),
        (&["--script", "/nowhere"], "/nowhere is no file"),
        (&["--lower", "/"], "go with a script or a program"),
        (&["--ops", "5", "--", "true"], "go with random programs"),
        (&["--replay", "x", "--", "true"], "cannot be used with"),
        (&["--minutes", "soon"], "invalid value"),
        (&["--ops", "0"], "invalid value"),
    ] {
        let (_, said) = status(&room.run(words), 2);
        assert!(said.contains(reason), "{words:?}: {said}");
    }
    let (said, _) = status(&room.run(&["--list-known"]), 0);
    assert!(
        said.contains("whiteouts-hidden (K31, K32)") && said.contains("\n  K32 "),
        "{said}"
    );
    let known = json(&room.run(&["--list-known", "--json"]));
    assert!(known["differences"].as_array().unwrap().len() > 10);
    assert!(
        status(&room.run(&["--ignore", "help"]), 0)
            .0
            .contains("cross-mount")
    );
    if need_root("ways_that_are_none") {
        let words = [
            "--b",
            "echo no luck >&2; false {lower} {upper} {merged}",
            "--seed",
            "1",
            "--ops",
            "1",
        ];
        let (said, _) = status(&room.run(&words), 1);
        assert!(said.contains("did not mount (exit status: 1): no luck"), "{said}");
        let (_, said) = status(&room.run(&["--", "/no/such/program"]), 1);
        assert!(said.contains("cannot run /no/such/program"), "{said}");
    }
}
