//! The lesson: as root and as a user, beside the kernel's overlay, as a page, on a terminal, and cut short.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use plyfs::lesson::model::{Change, Sort, entry, tree};
use plyfs::lesson::{Lesson, model};

use crate::common::layers::{kernel_overlay_works, mounts_below, ours_is_plyfs, run};
use crate::common::*;
use crate::rootless::{UID, open_device};

mod kernel;
mod own;
mod page;

use kernel::beside_the_kernel;
use page::{readable_text, stands_alone};

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");
/// Set for every process of a lesson, to find those that are left.
const MARK: &str = "PLYFS_TEST_LESSON";
const LARGE: u64 = 64 << 20;

/// Where a lesson makes its scratch directory. Whatever is left of it is found, and goes.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> Self {
        let parent = std::env::var_os("PLYFS_TEST_DIR").unwrap_or("/var/tmp".into());
        let dir = tempfile::Builder::new()
            .prefix("plyfs-test-lesson-")
            .tempdir_in(parent)
            .unwrap();
        let dir = dir.keep().canonicalize().unwrap();
        sys::chmod(&dir, 0o755).unwrap();
        Self { dir }
    }

    fn lesson(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PLYFS);
        command
            .args(["lesson", "--dir"])
            .arg(&self.dir)
            .args(arguments)
            .env(MARK, &self.dir)
            .stdin(Stdio::null())
            .current_dir(&self.dir);
        command
    }

    /// Processes of a lesson here: they carry its mark in their environment.
    fn processes(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}\0", self.dir.display());
        let carries = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        };
        let listing = fs::read_dir("/proc").unwrap().flatten();
        let pids = listing.filter_map(|item| item.file_name().to_str()?.parse().ok());
        pids.filter(carries).collect()
    }

    fn is_clear(&self) {
        assert_eq!(mounts_below(&self.dir), Vec::<PathBuf>::new());
        let left: Vec<_> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("plyfs-lesson-"))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for target in mounts_below(&self.dir) {
            let _ = sys::umount(&target, libc::MNT_DETACH);
        }
        for pid in self.processes() {
            // SAFETY: a process that carries the mark of this very test.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn can_run(name: &str) -> bool {
    if !need_root(name) {
        return false;
    }
    if !ours_is_plyfs() {
        skip(name, "about plyfs");
        return false;
    }
    true
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What every walk must have shown, whoever ran it.
fn check(lesson: &Lesson) {
    let names: Vec<&str> = lesson.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "stage",
            "merge",
            "shadowing",
            "copy-up",
            "whiteout",
            "opaque",
            "rename",
            "hard-links",
            "work",
            "crash",
            "layers"
        ]
    );
    let right = |name: &str| {
        let step = lesson.steps.iter().find(|step| step.name == name).unwrap();
        let question = step.question.as_ref().unwrap();
        question.right.map(|right| question.choices[right].as_str())
    };
    for (name, answer) in [
        ("merge", "guide and news"),
        ("shadowing", "colour = blue (the upper's)"),
        ("copy-up", "in a whole copy of the file, in U"),
        ("whiteout", "a mark named motd is put into U"),
        ("opaque", "nothing"),
        ("rename", "EXDEV: as if the new name were on another file system"),
        ("hard-links", "no: only twin-a was copied up"),
        ("work", "none: they are two more names of the one in W"),
        ("crash", "the whole file, as it was before"),
        ("layers", "where they were: C/big is one more name of L/big"),
    ] {
        assert_eq!(right(name), Some(answer), "{name}");
    }
    the_lower_stays(lesson);
    the_crash(lesson);
    the_changes(lesson);
}

fn the_lower_stays(lesson: &Lesson) {
    let objects = |scene: &model::Scene| -> Vec<_> {
        tree(&scene.trees, "L")
            .unwrap()
            .entries
            .iter()
            .map(|entry| {
                (
                    entry.path.clone(),
                    entry.inode,
                    entry.size,
                    entry.modified,
                    entry.text.clone(),
                )
            })
            .collect()
    };
    let planted = objects(&lesson.steps[0].scenes[0]);
    assert_eq!(planted.len(), 14);
    for step in &lesson.steps {
        for scene in &step.scenes {
            assert_eq!(objects(scene), planted, "{}", scene.command);
        }
    }
}

fn the_crash(lesson: &Lesson) {
    let step = lesson.steps.iter().find(|step| step.name == "crash").unwrap();
    let scenes = &step.scenes;
    // Where the copy was seen half done; on a machine that is too fast for that the kernel stopped it.
    if let Some(middle) = scenes.iter().find(|scene| scene.command.contains("-STOP")) {
        let work = tree(&middle.trees, "W").unwrap();
        let copy = work
            .entries
            .iter()
            .find(|entry| entry.sort == Sort::File)
            .unwrap();
        assert!(0 < copy.size && copy.size < LARGE, "{copy:?}");
        assert_eq!(copy.change, Some(Change::Added));
        assert!(entry(&middle.trees, "U", "big").is_none());
        assert!(tree(&middle.trees, "M").unwrap().absent.is_some());
    }
    let killed = scenes.iter().position(|scene| scene.status.is_some()).unwrap();
    assert!(scenes[killed].said.contains("big"), "{:?}", scenes[killed].said);
    assert_ne!(scenes[killed].status, Some(0));
    assert!(tree(&scenes[killed].trees, "M").unwrap().absent.is_some());
    let last = scenes.last().unwrap();
    assert_eq!(entry(&last.trees, "M", "big").unwrap().size, LARGE);
    assert!(entry(&last.trees, "U", "big").is_none());
    let left = &tree(&last.trees, "W").unwrap().entries;
    assert!(left.iter().all(|entry| entry.sort != Sort::File), "{left:?}");
}

fn the_changes(lesson: &Lesson) {
    let change = |step: &str, command: &str, label: &str, path: &str| {
        let step = lesson.steps.iter().find(|known| known.name == step).unwrap();
        let scene = step
            .scenes
            .iter()
            .find(|scene| scene.command.contains(command))
            .unwrap();
        let found = &tree(&scene.trees, label).unwrap().entries;
        let entry = found.iter().find(|entry| entry.path.0 == path.as_bytes());
        entry.unwrap_or_else(|| panic!("{label}/{path}")).change.clone()
    };
    let from = |tree: &str, path: &str| model::Place {
        tree: tree.into(),
        path: plyfs::builder::manifest::Text(path.into()),
    };
    assert_eq!(
        change("copy-up", "page two", "U", "docs/guide"),
        Some(Change::Copied(from("L", "docs/guide")))
    );
    assert_eq!(
        change("copy-up", "page two", "M", "docs/guide"),
        Some(Change::Changed)
    );
    assert_eq!(change("whiteout", "rm", "U", "motd"), Some(Change::Added));
    assert_eq!(change("whiteout", "rm", "M", "motd"), Some(Change::Removed));
    assert_eq!(
        change("rename", "M/letter", "U", "letter"),
        Some(Change::Copied(from("L", "notes")))
    );
    assert_eq!(
        change("rename", "M/books", "U", "books"),
        Some(Change::Moved(from("U", "papers")))
    );
    assert_eq!(
        change("hard-links", "third", "U", "twin-a"),
        Some(Change::Copied(from("L", "twin-a")))
    );
    assert_eq!(
        change("layers", "apply", "C", "big"),
        Some(Change::Linked(from("L", "big")))
    );
    assert_eq!(
        change("layers", "apply", "C", "config"),
        Some(Change::Copied(from("U", "config")))
    );
}

#[test]
fn a_walk_as_root_and_its_page() {
    let name = "a_walk_as_root_and_its_page";
    if !can_run(name) {
        return;
    }
    let place = Place::new();
    let said = ok(&place.lesson(&["--json", "--html", "page.html"]).output().unwrap());
    place.is_clear();
    let lesson: Lesson = serde_json::from_str(&said).unwrap();
    assert_eq!(lesson.who, "root");
    check(&lesson);
    let page = fs::read_to_string(place.dir.join("page.html")).unwrap();
    stands_alone(&page);
    let text = readable_text(&page);
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for step in &lesson.steps {
        for part in [&step.title, &step.lead, &step.why] {
            assert!(text.contains(&squeezed(part)), "{part}");
        }
        if let Some(question) = &step.question {
            assert!(text.contains(&squeezed(&question.ask)), "{}", question.ask);
            let right = &question.choices[question.right.unwrap()];
            assert!(text.matches(&squeezed(right)).count() >= 2, "the answer: {right}");
        }
        for scene in &step.scenes {
            assert!(text.contains(&squeezed(&scene.command)), "{}", scene.command);
            assert!(text.contains(&squeezed(&scene.said)), "{}", scene.said);
        }
    }
    assert!(text.contains("copied from L/docs/guide"), "changes in words");
    if kernel_overlay_works() {
        beside_the_kernel(&lesson);
    }
    // A page that cannot be written is told before the walk, and an old page stays.
    let refused = place.lesson(&["--html", "nowhere/page.html"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nowhere/page.html"));
    assert_eq!(fs::read_to_string(place.dir.join("page.html")).unwrap(), page);
}

/// Runs the lesson as an ordinary user, after `prepare`, and answers what it printed.
fn as_an_ordinary_user(place: &Place, prepare: &str, prefix: &str) -> (i32, String, Vec<u8>) {
    let dir = place.dir.display();
    let program = place.dir.join("plyfs");
    copy_program(PLYFS, &program);
    sys::chmod(&program, 0o755).unwrap();
    sys::chown(&place.dir, UID, UID).unwrap();
    let stage = format!(
        "{} {prepare} cd {dir}; exec setpriv --reuid {UID} --regid {UID} --clear-groups env HOME={dir} {MARK}={dir} \
         XDG_RUNTIME_DIR={dir} {prefix} {dir}/plyfs lesson --json --dir {dir} >{dir}/out",
        open_device(&place.dir, "666")
    );
    let (status, message) =
        run(Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-ec", &stage]));
    (
        status,
        message,
        fs::read(place.dir.join("out")).unwrap_or_default(),
    )
}

fn user_can_run(name: &str, words: &str) -> bool {
    if !can_run(name) {
        return false;
    }
    let works = |line: &str| run(Command::new("sh").args(["-c", line])).0 == 0;
    if !works("command -v setpriv unshare getent >/dev/null") {
        skip(name, "needs setpriv, unshare and getent");
        return false;
    }
    if !works(words) {
        skip(name, "this machine lets no ordinary user do it");
        return false;
    }
    true
}

const NAMESPACES: &str = "setpriv --reuid 1001 --regid 1001 --clear-groups unshare -Urm true";

#[test]
fn a_walk_by_a_user_through_fusermount3() {
    let name = "a_walk_by_a_user_through_fusermount3";
    if !user_can_run(name, "test -u \"$(command -v fusermount3)\"") {
        return;
    }
    let place = Place::new();
    let (status, message, out) = as_an_ordinary_user(&place, "", "");
    assert_eq!((status, message.as_str()), (0, ""));
    let lesson: Lesson = serde_json::from_slice(&out).unwrap();
    assert_eq!(lesson.who, "an ordinary user");
    check(&lesson);
    place.is_clear();
}

#[test]
fn a_walk_by_a_user_in_a_namespace_of_its_own() {
    let name = "a_walk_by_a_user_in_a_namespace_of_its_own";
    if !user_can_run(name, NAMESPACES) {
        return;
    }
    let place = Place::new();
    // A fusermount3 without its setuid bit cannot mount.
    let blunt = "if f=$(command -v fusermount3); then cp --no-preserve=mode \"$f\" blunt; mount --bind blunt \"$f\"; fi;";
    let prepare = format!("cd {};{blunt}", place.dir.display());
    let (status, message, out) = as_an_ordinary_user(&place, &prepare, "");
    assert_eq!((status, message.as_str()), (0, ""));
    let lesson: Lesson = serde_json::from_slice(&out).unwrap();
    assert_eq!(lesson.who, "root of a user namespace");
    check(&lesson);
    place.is_clear();
}

#[test]
fn a_closed_device_is_told_and_nothing_is_left() {
    let name = "a_closed_device_is_told_and_nothing_is_left";
    if !user_can_run(name, NAMESPACES) {
        return;
    }
    let place = Place::new();
    let (status, message, out) = as_an_ordinary_user(&place, "chmod 600 /dev/fuse;", "");
    assert_eq!(status, 1, "{message}");
    assert!(
        message.contains("cannot be mounted") && message.contains("/dev/fuse"),
        "{message}"
    );
    assert_eq!(out, b"");
    place.is_clear();
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let name = "without_a_terminal_nothing_is_asked";
    if !can_run(name) {
        return;
    }
    let place = Place::new();
    let output = place.lesson(&["--quiz"]).env("COLUMNS", "130").output().unwrap();
    let text = ok(&output);
    assert!(!text.contains("prediction") && !text.contains('\x1b'), "{text}");
    assert!(text.contains("10  Layers by hard links"), "{text}");
    let side_by_side = |line: &str| {
        ["L  lower", "U  upper", "W  work", "M  view"]
            .iter()
            .all(|head| line.contains(head))
    };
    assert!(text.lines().any(side_by_side), "{text}");
    assert!(text.contains("»   guide"), "{text}");
    for wrong in [&["--quiz", "--json"][..], &["--nonsense"]] {
        assert_eq!(place.lesson(wrong).output().unwrap().status.code(), Some(2));
    }
    place.is_clear();
}

#[test]
fn a_quiz_is_answered_by_key() {
    let name = "a_quiz_is_answered_by_key";
    if !can_run(name) {
        return;
    }
    if run(Command::new("script").arg("--version")).0 != 0 {
        return skip(name, "needs script(1) for a terminal");
    }
    let place = Place::new();
    let play = |keys: &str| {
        let line = format!("{PLYFS} lesson --quiz --dir {}", place.dir.display());
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        // Kept open: the end of the input would be a key, too.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    // One key leads on to a step, the next one answers its question.
    let (status, text) = play(&"b".repeat(20));
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("6 of 10 predictions were right"), "{text}");
    let (status, text) = play("nbq");
    assert_eq!(status, Some(1), "{text}");
    assert!(
        !text.contains("Shadowing") && text.contains("interrupted"),
        "{text}"
    );
    place.is_clear();
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "not so after 20 s: {what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_walk_that_is_stopped_or_killed_leaves_no_mount() {
    let name = "a_walk_that_is_stopped_or_killed_leaves_no_mount";
    if !can_run(name) {
        return;
    }
    for signal in [libc::SIGINT, libc::SIGKILL] {
        let place = Place::new();
        let mut child = place.lesson(&["--json"]).stdout(Stdio::null()).spawn().unwrap();
        let mut status = None;
        eventually("a view", || {
            status = child.try_wait().unwrap();
            status.is_some() || !mounts_below(&place.dir).is_empty()
        });
        if status.is_none() {
            // SAFETY: our own child, not yet waited for.
            unsafe { libc::kill(child.id() as i32, signal) };
            let ended = child.wait().unwrap();
            // It may have come to its end just before.
            assert!(
                matches!(ended.code(), Some(0 | 1)) || ended.signal() == Some(signal),
                "{ended:?}"
            );
        }
        eventually("no mount", || mounts_below(&place.dir).is_empty());
        eventually("no server", || place.processes().is_empty());
        if signal == libc::SIGINT {
            place.is_clear();
        }
    }
}
