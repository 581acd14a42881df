//! The lesson: as root and as a user, beside the kernel's overlay, as a page, on a terminal, and cut short.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use plyfs::lesson::model::{Action, Change, Sort, entry, tree};
use plyfs::lesson::{Lesson, model};

use crate::common::layers::{kernel_overlay_works, mounts_below, ours_is_plyfs, run};
use crate::common::*;
use crate::rootless::{UID, open_device};

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

/// What is compared of a name: its sort, content and whether it is opaque.
type Facts = BTreeMap<Vec<u8>, (Sort, Option<String>, bool)>;

fn facts(found: &model::Tree) -> Facts {
    let there = |entry: &&model::Entry| entry.change != Some(Change::Removed);
    let fact = |entry: &model::Entry| {
        (
            entry.path.0.clone(),
            (
                entry.sort,
                entry.text.clone(),
                entry.marks.iter().any(|mark| mark == "opaque"),
            ),
        )
    };
    found.entries.iter().filter(there).map(fact).collect()
}

/// Runs the commands of the walk, up to the crash, on the kernel's overlay, and compares layers and view after each.
fn beside_the_kernel(lesson: &Lesson) {
    use plyfs::lesson::shot::View;
    let layers = Layers::new();
    let base = layers.base().join("room");
    fs::create_dir(&base).unwrap();
    let mut mounted = None;
    let mut compared = 0;
    for step in lesson.steps.iter().take_while(|step| step.name != "crash") {
        for scene in &step.scenes {
            match scene.action {
                Action::Mount => {
                    let options = format!("lowerdir={0}/L,upperdir={0}/U,workdir={0}/W", base.display());
                    mounted = Some(
                        layers::try_mount(Fs::Kernel, options.as_ref(), &base.join("M"))
                            .map_err(|refused| format!("{refused:?}"))
                            .unwrap(),
                    );
                }
                Action::Shell => {
                    let output = Command::new("sh")
                        .args(["-c", &scene.command])
                        .env("LC_ALL", "C")
                        .current_dir(&base)
                        .output()
                        .unwrap();
                    assert_eq!(output.status.code(), scene.status, "{}", scene.command);
                    // Inode numbers, dates and names of temporaries differ.
                    if !scene.command.starts_with("ls -l") {
                        let said = [output.stdout, output.stderr].concat();
                        assert_eq!(String::from_utf8_lossy(&said), scene.said, "{}", scene.command);
                    }
                }
                Action::Call => {
                    let words: Vec<&str> = scene.command.split('"').collect();
                    let done = sys::rename(base.join(words[1]), base.join(words[3]));
                    assert_eq!(done, Err(sys::EXDEV), "{}", scene.command);
                    assert!(scene.said.starts_with("EXDEV"), "{}", scene.said);
                }
                Action::Unmount | Action::Server => panic!("{}", scene.command),
            }
            for label in ["L", "U", "M"] {
                let ours = tree(&scene.trees, label).unwrap();
                if ours.absent.is_some() {
                    continue;
                }
                let theirs = View::new(label, "").look(&base.join(label)).unwrap();
                assert_eq!(
                    facts(ours),
                    facts(&theirs.tree),
                    "{label} after {}",
                    scene.command
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
    mounted.unwrap().umount();
}

/// Checks that tags are closed in order, and that the page asks for nothing from elsewhere.
fn stands_alone(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    for word in [
        "http://", "https://", " src=", "<link", "url(", "@import", "<iframe", "<img",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("prefers-reduced-motion"));
    assert!(page.contains("<html lang=\"en\">") && page.contains("name=\"viewport\""));
    let mut open: Vec<&str> = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for (tag, text) in tags(page) {
        assert!(
            !text.contains('>') || matches!(open.last(), Some(&"script" | &"style")),
            "{text}"
        );
        let name = tag
            .trim_start_matches('/')
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap();
        if tag.starts_with('!') || matches!(name, "meta" | "input" | "br") {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed");
        } else {
            if let Some(id) = tag.split(" id=\"").nth(1).and_then(|rest| rest.split('"').next()) {
                assert!(ids.insert(id), "id {id} twice");
            }
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
    for target in page.split("href=\"#").skip(1) {
        let target = target.split('"').next().unwrap();
        assert!(ids.contains(target), "#{target}");
    }
}

/// Each tag, and the text in front of it. The insides of scripts and styles are text.
fn tags(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let raw = found
            .last()
            .map(|(tag, _): &(&str, &str)| *tag)
            .filter(|tag| matches!(*tag, "script" | "style"));
        let start = raw.map_or(start, |tag| rest.find(&format!("</{tag}")).unwrap());
        let end = start + rest[start..].find('>').expect("a tag ends");
        found.push((&rest[start + 1..end], &rest[..start]));
        rest = &rest[end + 1..];
    }
    found
}

/// The text that is seen where no script runs, white space squeezed.
fn readable_text(page: &str) -> String {
    let mut text = String::new();
    let mut hidden = 0_usize;
    for (tag, before) in tags(page) {
        let closes = tag.starts_with('/');
        let is_div = tag.trim_start_matches('/').starts_with("div");
        let skipped = tag == "/script" || tag == "/style" || tag == "/title";
        if hidden == 0 && !skipped {
            text.push_str(before);
            text.push(' ');
        }
        // What only slides show is in a hidden div.
        if hidden > 0 && is_div {
            hidden = if closes { hidden - 1 } else { hidden + 1 };
        } else if is_div && tag.ends_with(" hidden") {
            hidden = 1;
        }
    }
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_page_of_ones_own_layers() {
    use plyfs::explain::{Layers as Explained, Named};
    let name = "a_page_of_ones_own_layers";
    if !can_run(name) {
        return;
    }
    let layers = Layers::new().with_lower(&[
        dir("etc"),
        file("etc/motd", "hello"),
        file("etc/<b>&\"'", "odd"),
        dir("etc/deep"),
        file("etc/deep/unseen", ""),
        dir("old"),
        file("old/o", ""),
        dir("srv"),
        file("srv/data", ""),
        file("gone", ""),
        symlink("link", "etc/motd"),
    ]);
    let mounted = layers.mount(Fs::Plyfs, &[]);
    sys::put(layers.merged.join("etc/motd"), "hello\nKEEP-THIS-SECRET\n").unwrap();
    sys::put(layers.merged.join("new"), "").unwrap();
    sys::unlink(layers.merged.join("gone")).unwrap();
    fs::remove_dir_all(layers.merged.join("old")).unwrap();
    fs::create_dir(layers.merged.join("old")).unwrap();
    let base = layers.base();
    let plyfs = |arguments: &[&str]| {
        let mut command = Command::new(PLYFS);
        command.args(["explain", "--html", "page.html"]).args(arguments);
        command.current_dir(base).stdin(Stdio::null()).output().unwrap()
    };
    let page = |arguments: &[&str]| {
        assert_eq!(ok(&plyfs(arguments)), "");
        let page = fs::read_to_string(base.join("page.html")).unwrap();
        stands_alone(&page);
        assert!(!page.contains("KEEP-THIS-SECRET"), "the content of a file");
        page
    };
    let live = page(&["m/etc/motd", "m/srv", "m/gone"]);
    let text = readable_text(&live);
    for part in [
        "/etc/motd Shows what the upper has.",
        "/gone Shows nothing, by a whiteout (ENOENT).",
        "old/ opaque",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }

    // The trees are those of the view, as far as they are opened.
    let explained = Explained::open(&Named {
        lower: layers.lower.clone(),
        upper: Some(layers.upper.clone()),
        ..Named::default()
    })
    .unwrap();
    let told = ["etc/motd", "srv", "gone"].map(|path| explained.explain(path.as_ref()).unwrap());
    let trees = plyfs::lesson::seen::trees(&explained, &told).unwrap();
    let shown = |tree: &model::Tree| -> Vec<(Vec<u8>, Sort, u64)> {
        let entries = tree.entries.iter();
        entries
            .map(|entry| (entry.path.0.clone(), entry.sort, entry.size))
            .collect()
    };
    let real = plyfs::lesson::shot::View::new("M", "")
        .look(&layers.merged)
        .unwrap();
    let mut real = shown(&real.tree);
    real.retain(|(path, ..)| path != b"etc/deep/unseen");
    // Of a directory in the layers the size is another than in the view.
    let sized = |mut list: Vec<(Vec<u8>, Sort, u64)>| {
        for (_, sort, size) in &mut list {
            *size = if *sort == Sort::Directory { 0 } else { *size };
        }
        list
    };
    assert_eq!(sized(shown(tree(&trees, "M").unwrap())), sized(real));
    let answers = |path: &str| entry(&trees, "M", path).unwrap().answers;
    assert_eq!(answers("etc"), Some(model::Answers::Both));
    assert_eq!(answers("old"), Some(model::Answers::Upper));
    assert_eq!(answers("link"), Some(model::Answers::Lower));
    assert!(entry(&trees, "L", "gone").unwrap().hidden && entry(&trees, "L", "old").unwrap().hidden);
    assert_eq!(entry(&trees, "U", "new").unwrap().change, Some(Change::Added));
    assert!(matches!(
        entry(&trees, "U", "etc/motd").unwrap().change,
        Some(Change::Copied(_))
    ));

    // The same without a mount, and a lone lower; what lies in no view leaves an old page alone.
    mounted.umount();
    page(&["--lower", "l", "--upper", "u", "etc/motd"]);
    let lone = page(&["--lower", "l", "etc"]);
    assert!(readable_text(&lone).contains("the view is read-only"));
    assert_eq!(plyfs(&["m/etc/motd"]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(base.join("page.html")).unwrap(), lone);
}

/// Runs the lesson as an ordinary user, after `prepare`, and answers what it printed.
fn as_an_ordinary_user(place: &Place, prepare: &str, prefix: &str) -> (i32, String, Vec<u8>) {
    let dir = place.dir.display();
    let program = place.dir.join("plyfs");
    fs::copy(PLYFS, &program).unwrap();
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
