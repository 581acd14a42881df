//! What is left when the server dies, or one of its system calls fails, in the midst of an operation (K123).
//!
//! plyfs is built with the feature `fault-injection` here: it counts the calls that change its layers and, as the
//! file named by `PLYFS_FAULT_FILE` says, dies just before the N-th (`kill N`) or lets it fail (`errno N E`). Every
//! operation is tried with N = 1, 2, ... until it comes through. After each trial the *kernel's* overlay is mounted
//! on the upper, and its tree must be the one before the operation or the one after it, as the kernel's overlay
//! made it; the upper may hold no name that neither has; nothing may lie outside `work/work`; and the next mount
//! by plyfs must clear that and show the same tree.
//!
//! `PLYFS_CRASH_CASE=text` tries only the operations whose name has the text in it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::layers::{is_mounted, mounts_below, run, servers_of};
use crate::common::tree::Tree;
use crate::common::{layers, tree, *};

/// No operation makes more calls than this; a counter that never arrives must not try for ever.
const MOST_CALLS: usize = 200;

type Operation = (&'static str, fn(&Path) -> R);

/// What all operations start from: a lower, and an upper that [`prepare`] makes through the kernel's overlay.
fn lower() -> Vec<Node> {
    vec![
        dir("d").mode(0o2750).own(7, 8).xattr("user.on", "d"),
        file("d/f", "the text of f")
            .mode(0o640)
            .own(3, 4)
            .xattr("user.a", "1")
            .xattr("trusted.b", "2"),
        dir("d/e").mode(0o700).own(5, 6),
        dir("d/e/g").mode(0o755),
        file("d/e/g/deep", "deep").mode(0o4755).own(9, 9),
        sparse("sparse", 3 << 20, &[(0, b"start"), (2 << 20, b"middle")]),
        file("top", "top"),
        file("changed", "changed"),
        file("over", "over"),
        file("one", "linked"),
        hard("two", "one"),
        symlink("s", "d/f").own(1, 2),
        fifo("p").mode(0o600).own(1, 2),
        chr("c", 1, 3),
        file("gone", "gone"),
        dir("gone-dir"),
        file("gone-dir/x", "x"),
        dir("empty"),
        dir("emptied"),
        file("emptied/a", "a"),
        file("emptied/b", "b"),
        dir("both"),
        file("both/c", "c"),
    ]
}

fn prepare(m: &Path) -> R {
    sys::unlink(m.join("gone"))?;
    sys::unlink(m.join("gone-dir/x"))?;
    sys::rmdir(m.join("gone-dir"))?;
    sys::unlink(m.join("emptied/a"))?;
    sys::unlink(m.join("emptied/b"))?;
    sys::chmod(m.join("changed"), 0o600)?;
    sys::put(m.join("pure"), "pure")?;
    sys::mkdir(m.join("pure-dir"), 0o755)?;
    sys::put(m.join("pure-dir/x"), "x")?;
    sys::mkdir(m.join("pure-empty"), 0o755)?;
    sys::put(m.join("new"), "new over the old one")?;
    sys::rename(m.join("new"), m.join("over"))?;
    sys::put(m.join("both/u"), "u")
}

const COPY_UP: &[Operation] = &[
    ("open for writing", |m| {
        sys::open(m.join("d/f"), libc::O_WRONLY).map(drop)
    }),
    ("open for writing, sparse", |m| {
        sys::open(m.join("sparse"), libc::O_RDWR).map(drop)
    }),
    ("open with O_TRUNC", |m| {
        sys::open(m.join("d/f"), libc::O_RDONLY | libc::O_TRUNC).map(drop)
    }),
    ("append", |m| sys::append(m.join("d/f"), "!")),
    ("append to one of two names", |m| sys::append(m.join("one"), "!")),
    ("truncate", |m| sys::truncate(m.join("d/f"), 3)),
    ("truncate to more", |m| sys::truncate(m.join("d/f"), 30)),
    ("chmod", |m| sys::chmod(m.join("d/f"), 0o600)),
    ("chmod, three directories deep", |m| {
        sys::chmod(m.join("d/e/g/deep"), 0o711)
    }),
    ("chmod of a directory", |m| sys::chmod(m.join("d/e"), 0o711)),
    ("chmod of a device", |m| sys::chmod(m.join("c"), 0o600)),
    ("chown", |m| sys::chown(m.join("d/f"), 11, 12)),
    ("chown of a symlink", |m| sys::chown(m.join("s"), 11, 12)),
    ("times of a fifo", |m| sys::utimens(m.join("p"), (1, 2), (3, 4))),
    ("times of a symlink", |m| {
        sys::utimens(m.join("s"), (1, 2), (3, 4))
    }),
    ("setxattr", |m| sys::setxattr(m.join("d/f"), "user.new", "new")),
    ("setxattr of a directory", |m| {
        sys::setxattr(m.join("d"), "user.on", "x")
    }),
    ("removexattr", |m| sys::removexattr(m.join("d/f"), "user.a")),
];

const CREATE: &[Operation] = &[
    ("create a file in a lower directory", |m| {
        sys::create(m.join("d/e/new"), 0o640).map(drop)
    }),
    ("create a file over a whiteout", |m| {
        sys::create(m.join("gone"), 0o640).map(drop)
    }),
    ("create a file over the whiteout of a directory", |m| {
        sys::create(m.join("gone-dir"), 0o640).map(drop)
    }),
    ("mkdir in a lower directory", |m| {
        sys::mkdir(m.join("d/e/new"), 0o750)
    }),
    ("mkdir over a whiteout", |m| sys::mkdir(m.join("gone"), 0o750)),
    ("mkdir over the whiteout of a directory", |m| {
        sys::mkdir(m.join("gone-dir"), 0o750)
    }),
    ("symlink over a whiteout", |m| {
        sys::make_symlink("target", m.join("gone"))
    }),
    ("mkfifo over a whiteout", |m| {
        sys::mknod(m.join("gone"), libc::S_IFIFO | 0o640, 0, 0)
    }),
    ("mknod over a whiteout", |m| {
        sys::mknod(m.join("gone"), libc::S_IFBLK | 0o640, 7, 9)
    }),
    ("link of a lower file", |m| {
        sys::link(m.join("d/f"), m.join("linked"))
    }),
    ("link of a lower file over a whiteout", |m| {
        sys::link(m.join("d/f"), m.join("gone"))
    }),
    ("link of a pure file over a whiteout", |m| {
        sys::link(m.join("pure"), m.join("gone"))
    }),
    ("link of a lower symlink", |m| {
        sys::link(m.join("s"), m.join("linked"))
    }),
];

const REMOVE: &[Operation] = &[
    ("unlink in a lower directory", |m| {
        sys::unlink(m.join("d/e/g/deep"))
    }),
    ("unlink of a lower file", |m| sys::unlink(m.join("top"))),
    ("unlink of a copied-up file", |m| sys::unlink(m.join("changed"))),
    ("unlink of a file renamed over a lower one", |m| {
        sys::unlink(m.join("over"))
    }),
    ("unlink of one of two lower names", |m| sys::unlink(m.join("two"))),
    ("unlink of a pure file", |m| sys::unlink(m.join("pure"))),
    ("unlink of a symlink", |m| sys::unlink(m.join("s"))),
    ("rmdir of a lower directory", |m| sys::rmdir(m.join("empty"))),
    ("rmdir of a merged directory with whiteouts", |m| {
        sys::rmdir(m.join("emptied"))
    }),
    ("rmdir of a pure directory", |m| sys::rmdir(m.join("pure-empty"))),
];

fn rename(m: &Path, from: &str, to: &str) -> R {
    sys::rename(m.join(from), m.join(to))
}

fn exchange(m: &Path, from: &str, to: &str) -> R {
    sys::rename2(m.join(from), m.join(to), libc::RENAME_EXCHANGE)
}

/// Every cell of the matrix in section 7 of the rules that is not an error.
const RENAME: &[Operation] = &[
    ("pure file to a free name", |m| rename(m, "pure", "free")),
    ("pure file onto a whiteout", |m| rename(m, "pure", "gone")),
    ("pure file onto a lower file", |m| rename(m, "pure", "top")),
    ("pure file onto a pure file", |m| rename(m, "pure", "pure-dir/x")),
    ("lower file to a free name", |m| rename(m, "top", "free")),
    ("lower file to a free name in a lower directory", |m| {
        rename(m, "top", "d/e/free")
    }),
    ("lower file out of a lower directory", |m| {
        rename(m, "d/e/g/deep", "free")
    }),
    ("lower file onto a whiteout", |m| rename(m, "top", "gone")),
    ("lower file onto a lower file", |m| rename(m, "top", "d/f")),
    ("lower file onto a pure file", |m| rename(m, "top", "pure")),
    ("one of two lower names onto the other", |m| {
        rename(m, "one", "two")
    }),
    ("copied-up file to a free name", |m| rename(m, "changed", "free")),
    ("copied-up file onto a whiteout", |m| rename(m, "changed", "gone")),
    ("copied-up file onto a lower file", |m| {
        rename(m, "changed", "top")
    }),
    ("file renamed over a lower one to a free name", |m| {
        rename(m, "over", "free")
    }),
    ("lower symlink onto a whiteout", |m| rename(m, "s", "gone")),
    ("pure directory to a free name", |m| rename(m, "pure-dir", "free")),
    ("pure directory onto a whiteout", |m| {
        rename(m, "pure-dir", "gone-dir")
    }),
    ("pure directory onto a pure empty one", |m| {
        rename(m, "pure-dir", "pure-empty")
    }),
    ("pure directory onto a lower empty one", |m| {
        rename(m, "pure-dir", "empty")
    }),
    ("pure directory onto a merged one with whiteouts", |m| {
        rename(m, "pure-dir", "emptied")
    }),
    ("no-replace to a free name", |m| {
        sys::rename2(m.join("top"), m.join("free"), libc::RENAME_NOREPLACE)
    }),
    ("no-replace onto a whiteout", |m| {
        sys::rename2(m.join("top"), m.join("gone"), libc::RENAME_NOREPLACE)
    }),
    ("exchange of a pure and a lower file", |m| {
        exchange(m, "pure", "top")
    }),
    ("exchange of two lower files", |m| exchange(m, "top", "d/f")),
    ("exchange of a lower and a copied-up file", |m| {
        exchange(m, "top", "changed")
    }),
    ("exchange of a pure directory and a lower file", |m| {
        exchange(m, "pure-dir", "top")
    }),
    ("exchange of a pure directory and a pure file", |m| {
        exchange(m, "pure-dir", "pure")
    }),
    ("exchange of two pure directories", |m| {
        exchange(m, "pure-dir", "pure-empty")
    }),
];

#[test]
fn copy_up() {
    try_all("copy-up", COPY_UP);
}

#[test]
fn create_and_link() {
    try_all("create and link", CREATE);
}

#[test]
fn unlink_and_rmdir() {
    try_all("unlink and rmdir", REMOVE);
}

#[test]
fn rename_and_exchange() {
    try_all("rename and exchange", RENAME);
}

fn try_all(group: &str, operations: &[Operation]) {
    if !need_root(group) {
        return;
    }
    let only = std::env::var("PLYFS_CRASH_CASE").unwrap_or_default();
    let mut tally = Tally::default();
    for (name, operation) in operations.iter().filter(|(name, _)| name.contains(&only)) {
        let before = tally.faults.len();
        Case::new(name, *operation).try_everything(&mut tally);
        for fault in &tally.faults[before..] {
            say(&format!("    {fault}"));
        }
    }
    let Tally {
        kills,
        errors,
        retried,
        faults,
    } = &tally;
    say(&format!(
        "crash points tried, {group}: {kills} kills, {errors} failed calls ({retried} tried again with success), \
         {} faults",
        faults.len()
    ));
    assert!(faults.is_empty(), "{} faults, listed above", faults.len());
    assert!(*kills >= operations.iter().filter(|(name, _)| name.contains(&only)).count());
}

/// Past the capture of the test harness: the counts belong in the output of a run that passes.
fn say(line: &str) {
    let _ = sys::write_all_to(2, format!("{line}\n").as_bytes());
}

#[derive(Default)]
struct Tally {
    kills: usize,
    errors: usize,
    retried: usize,
    faults: Vec<String>,
}

struct Case {
    name: &'static str,
    operation: fn(&Path) -> R,
    old: Tree,
    new: Tree,
    /// The old one in which the file has been copied up: where it had two names, it is cut off from the other (K71).
    cut: Tree,
}

impl Case {
    /// The trees before and after, by the kernel's overlay.
    fn new(name: &'static str, operation: fn(&Path) -> R) -> Self {
        let after = |operation: fn(&Path) -> R| {
            let layers = start();
            let mounted = layers.mount(Fs::Kernel, &[]);
            assert_eq!(
                operation(mounted.path()),
                Ok(()),
                "{name}, on the kernel's overlay"
            );
            seen(mounted.path())
        };
        let old = after(|_| Ok(()));
        let cut = if name.contains("one of two") {
            after(|m| sys::open(m.join("one"), libc::O_RDWR).map(drop))
        } else {
            old.clone()
        };
        Case {
            name,
            operation,
            old,
            new: after(operation),
            cut,
        }
    }

    fn try_everything(&self, tally: &mut Tally) {
        let mut calls = 0;
        while self.kill(calls + 1, &mut tally.faults) {
            calls += 1;
            assert!(calls < MOST_CALLS, "{}: it is never done", self.name);
        }
        tally.kills += calls;
        if calls == 0 {
            tally
                .faults
                .push(format!("{}: it makes no call that can be interrupted", self.name));
        }
        static TURN: AtomicUsize = AtomicUsize::new(0);
        for at in 1..=calls {
            // Every place gets one of these, and over the operations each place of a kind gets all.
            let errnos = [sys::ENOSPC, sys::EIO, sys::EDQUOT, sys::EMFILE, sys::EROFS];
            let errno = errnos[TURN.fetch_add(1, Ordering::Relaxed) % errnos.len()];
            tally.errors += 1;
            tally.retried += usize::from(self.fail(at, errno, &mut tally.faults));
        }
    }

    /// Dies before call number `at`; false if the operation had no so many.
    fn kill(&self, at: usize, faults: &mut Vec<String>) -> bool {
        let trial = Trial::new(&format!("kill {at}"));
        let answer = (self.operation)(trial.merged());
        let died = match trial.server_is_gone(answer.is_err()) {
            true => true,
            false => {
                trial.disarm();
                let mut fault = |text: String| faults.push(format!("{}, not killed: {text}", self.name));
                if answer != Ok(()) {
                    fault(format!("{answer:?}, expected Ok"));
                }
                fault_if_any(
                    &mut fault,
                    "view",
                    self.new.differences(&seen(trial.merged()), "kernel", "plyfs"),
                );
                false
            }
        };
        let mut fault = |text: String| faults.push(format!("{}, killed before call {at}: {text}", self.name));
        if died && !matches!(answer, Err(sys::ENOTCONN | Errno(libc::ECONNABORTED)) | Ok(())) {
            fault(format!("the caller got {answer:?}, not ENOTCONN or ECONNABORTED"));
        }
        if let Err(e) = trial.unmount(died) {
            fault(e);
        }
        self.check(
            &trial,
            if answer.is_ok() { &[true] } else { &[false, true] },
            &mut fault,
        );
        died
    }

    /// Call number `at` fails; true if the same operation succeeded when tried again.
    fn fail(&self, at: usize, errno: Errno, faults: &mut Vec<String>) -> bool {
        let trial = Trial::new(&format!("errno {at} {}", errno.0));
        let answer = (self.operation)(trial.merged());
        trial.disarm();
        let mut fault =
            |text: String| faults.push(format!("{}, {errno:?} from call {at}: {text}", self.name));
        if !matches!(answer, Err(e) if e == errno) && answer != Ok(()) {
            fault(format!("the caller got {answer:?}"));
        }
        let view = seen(trial.merged());
        let mut retried = false;
        match self.which(&view) {
            Err(lines) => fault(format!("the view is neither old nor new: {lines}")),
            Ok(false) if answer.is_ok() => fault("success, but nothing has changed".into()),
            Ok(false) => {
                // A failure leaves nothing behind that keeps the next attempt from succeeding.
                let again = (self.operation)(trial.merged());
                if again != Ok(()) {
                    fault(format!("{again:?} when tried again"));
                }
                fault_if_any(
                    &mut fault,
                    "tried again",
                    self.new.differences(&seen(trial.merged()), "kernel", "plyfs"),
                );
                retried = again == Ok(());
            }
            Ok(true) => {}
        }
        if let Err(e) = trial.unmount(false) {
            fault(e);
        }
        let allowed: &[bool] = if retried || answer.is_ok() {
            &[true]
        } else {
            &[false, true]
        };
        self.check(&trial, allowed, &mut fault);
        retried
    }

    /// Whether a tree is the new one; if it is neither, how it differs from the nearer.
    fn which(&self, tree: &Tree) -> Result<bool, String> {
        self.which_without(tree, &[])
    }

    fn which_without(&self, tree: &Tree, fields: &[&str]) -> Result<bool, String> {
        let tree = &tree.clone().without(fields);
        let differences = |from: &Tree, name| from.clone().without(fields).differences(tree, name, "found");
        let from_new = differences(&self.new, "new");
        if from_new.is_empty() {
            return Ok(true);
        }
        let from_old = differences(&self.old, "old");
        if from_old.is_empty() || differences(&self.cut, "cut").is_empty() {
            return Ok(false);
        }
        let nearer = if from_new.len() < from_old.len() {
            from_new
        } else {
            from_old
        };
        Err(nearer.join("; "))
    }

    /// What an unmounted or dead server left, by the kernel's overlay and by the next mount of plyfs.
    fn check(&self, trial: &Trial, allowed: &[bool], fault: &mut impl FnMut(String)) {
        let layers = &trial.layers;
        for name in sys::sorted_names(&layers.work).unwrap() {
            // What plyfs notes there about numbers of linked files; the kernel leaves it alone (K7).
            if name != "work" && name != "plyfs-claims" {
                fault(format!("{name:?} in the work directory"));
            }
        }
        let known: BTreeSet<&Path> = self.old.paths().into_iter().chain(self.new.paths()).collect();
        for path in sys::walk(&layers.upper) {
            let name = path.strip_prefix(&layers.upper).unwrap();
            if !(known.contains(name) || is_whiteout(&path) && sys::exists(layers.lower.join(name))) {
                fault(format!("{} was left in the upper", name.display()));
            }
        }

        // A work directory of its own, so that the leftovers stay for the mount after it. Among them may be a further
        // name of a file that is to be linked over a whiteout (K83): until it goes, the file's link count is off.
        let left = sys::walk(&layers.work.join("work"));
        let linked = left
            .iter()
            .any(|path| !is_whiteout(path) && sys::nlink(path).is_ok_and(|links| links > 1));
        let loose: &[&str] = if linked { &["nlink", "same"] } else { &[] };
        let view = kernel_view(layers);
        match self.which_without(&view, loose) {
            Err(lines) => fault(format!("the kernel's overlay shows neither old nor new: {lines}")),
            Ok(new) if !allowed.contains(&new) => fault("the kernel's overlay shows the old tree".into()),
            Ok(_) => {}
        }

        let ours = match Trial::mount(layers, None) {
            Ok(()) => seen(&layers.merged),
            Err(e) => return fault(format!("plyfs does not mount it again: {e}")),
        };
        fault_if_any(
            fault,
            "mounted again",
            view.without(loose)
                .differences(&ours.clone().without(loose), "kernel", "plyfs"),
        );
        if let Err(lines) = self.which(&ours) {
            fault(format!("the next mount shows neither old nor new: {lines}"));
        }
        // The inode that all whiteouts of a mount share (K33) may be there from the start.
        let left = sys::walk(&layers.work.join("work"));
        if left.iter().any(|path| !is_whiteout(path)) || left.len() > 1 {
            fault(format!("the next mount leaves {left:?} in work/work"));
        }
        if let Err(e) = trial.unmount(false) {
            fault(e);
        }
    }
}

fn is_whiteout(path: &Path) -> bool {
    sys::lstat(path).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == 0)
}

fn fault_if_any(fault: &mut impl FnMut(String), at: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        fault(format!("{at}: {}", lines.join("; ")));
    }
}

/// Fresh layers in the state that all operations start from.
fn start() -> Layers {
    let layers = Layers::new().with_lower(&lower());
    let mounted = layers.mount(Fs::Kernel, &[]);
    prepare(mounted.path()).expect("the start");
    mounted.umount();
    layers
}

/// What the kernel's overlay shows of these layers, mounted with a work directory of its own.
fn kernel_view(layers: &Layers) -> Tree {
    let [work, merged] = ["kernel-w", "kernel-m"].map(|name| layers.base().join(name));
    for dir in [&work, &merged] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let mut options = OsString::from("lowerdir=");
    options.push(&layers.lower);
    options.push(",upperdir=");
    options.push(&layers.upper);
    options.push(",workdir=");
    options.push(&work);
    let mounted = layers::try_mount(Fs::Kernel, &options, &merged).expect("the kernel's overlay");
    let view = seen(mounted.path());
    mounted.umount();
    view
}

/// What a user sees, without what may differ in a moment between old and new: the times of directories, which are
/// put back after a copy-up (K65), and their link count, which becomes 1 when they are copied up (K40).
fn seen(root: &Path) -> Tree {
    let mut tree = snapshot(root);
    for entry in tree.0.values_mut() {
        if entry.get("type").is_some_and(|kind| kind == "directory") {
            entry.remove("mtime");
            entry.remove("nlink");
        }
    }
    tree
}

/// Layers with a server on them that has been told what to do.
struct Trial {
    layers: Layers,
    order: PathBuf,
}

impl Trial {
    fn new(order: &str) -> Self {
        let layers = start();
        let trial = Trial {
            order: layers.base().join("order"),
            layers,
        };
        Trial::mount(&trial.layers, Some(&trial.order)).unwrap_or_else(|e| panic!("mount: {e}"));
        // Written beside and renamed: the server never reads half an order.
        let draft = trial.layers.base().join("draft");
        std::fs::write(&draft, order).unwrap();
        std::fs::rename(&draft, &trial.order).unwrap();
        trial
    }

    fn mount(layers: &Layers, order: Option<&Path>) -> Result<(), String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.arg(&layers.merged).arg("-o").arg(layers.options(&[]));
        if let Some(order) = order {
            command.env("PLYFS_FAULT_FILE", order);
        }
        match run(&mut command) {
            (0, _) if is_mounted(&layers.merged) => Ok(()),
            (status, message) => Err(format!("status {status}: {message}")),
        }
    }

    fn merged(&self) -> &Path {
        &self.layers.merged
    }

    fn disarm(&self) {
        std::fs::remove_file(&self.order).unwrap();
    }

    /// Whether the server died; it has a moment for it if the operation failed.
    fn server_is_gone(&self, failed: bool) -> bool {
        let until = Instant::now() + Duration::from_secs(if failed { 5 } else { 0 });
        loop {
            if servers_of(self.merged()).is_empty() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Unmounts and waits until the server, dead or alive, is no more.
    fn unmount(&self, dead: bool) -> Result<(), String> {
        let flags = if dead { libc::MNT_DETACH } else { 0 };
        let until = Instant::now() + Duration::from_secs(60);
        sys::umount(self.merged(), flags).map_err(|e| format!("umount: {e:?}"))?;
        // Long, for it writes out the whole file system that holds the upper.
        while !servers_of(self.merged()).is_empty() {
            if Instant::now() > until {
                return Err("the server does not end".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(mounts_below(self.merged()), Vec::<PathBuf>::new());
        Ok(())
    }
}

/// As [`seen`], for layers on two file systems, where listings need not agree with stat (K44).
fn two_seen(root: &Path) -> Tree {
    seen(root).without(&["d_ino"])
}

/// A full file system, without any hook: the same operations in the same order on both overlays.
#[test]
fn a_full_upper() {
    if !need_root("a_full_upper") {
        return;
    }
    let big = vec![7; 3 << 20];
    let lower = [
        dir("d").mode(0o700),
        file("d/big", &big).mode(0o640),
        file("small", "small"),
        file("gone", "gone"),
        dir("empty"),
    ];
    let outcome = |fs: Fs| {
        let outer = Layers::new().with_lower(&lower);
        let before = tree::fingerprint(&outer.lower);
        // The upper and the work directory on a file system of 1 MiB.
        sys::mount("small", &outer.upper, "tmpfs", 0, "size=1m").unwrap();
        let [upper, work] = ["u", "w"].map(|name| outer.upper.join(name));
        for dir in [&upper, &work] {
            sys::mkdir(dir, 0o755).unwrap();
        }
        let mut options = OsString::from("lowerdir=");
        options.push(&outer.lower);
        options.push(",upperdir=");
        options.push(&upper);
        options.push(",workdir=");
        options.push(&work);
        let mounted = layers::try_mount(fs, &options, &outer.merged).unwrap();
        let m = mounted.path();
        let mut log = Vec::new();
        let mut note = |what: &str, answer: R| log.push(format!("{what}: {answer:?}"));

        let old = two_seen(m);
        note(
            "chmod of a file that does not fit",
            sys::chmod(m.join("d/big"), 0o600),
        );
        note(
            "open of it for writing",
            sys::open(m.join("d/big"), libc::O_RDWR).map(drop),
        );
        note("link of it", sys::link(m.join("d/big"), m.join("linked")));
        note("rename of it", sys::rename(m.join("d/big"), m.join("renamed")));
        let mut lines = old.differences(&two_seen(m), "before", "after");
        assert_eq!(lines, Vec::<String>::new(), "{fs:?}");
        assert_eq!(
            sys::walk(&upper).iter().filter(|path| path.is_file()).count(),
            0,
            "{fs:?}: a file in the upper"
        );
        let in_work = sys::walk(&work.join("work"));
        assert!(
            in_work.iter().all(|path| is_whiteout(path)),
            "{fs:?}: {in_work:?}"
        );

        // truncate(2) to a size that fits is not here: the kernel copies all of the file first, we only what stays.
        note(
            "open of it with O_TRUNC",
            sys::open(m.join("d/big"), libc::O_WRONLY | libc::O_TRUNC).map(drop),
        );
        note("unlink of another", sys::unlink(m.join("gone")));
        // Fill it, but for what an inode takes.
        let filler = sys::create(m.join("filler"), 0o600).unwrap();
        while sys::write(&filler, &[1; 4096]) == Ok(4096) {}
        note("copy-up without room for data", sys::append(m.join("small"), "!"));
        note("copy-up without data", sys::chmod(m.join("empty"), 0o711));
        note("whiteout", sys::unlink(m.join("small")));
        note("create over a whiteout", sys::mkdir(m.join("gone"), 0o700));
        drop(filler);
        note("unlink of what fills it", sys::unlink(m.join("filler")));
        // Over FUSE the close reaches the server a little later, and only then is the room free again.
        let start = std::time::Instant::now();
        let mut made = sys::put(m.join("gone/new"), "new");
        while made == Err(sys::ENOSPC) && start.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::sleep(std::time::Duration::from_millis(10));
            made = sys::put(m.join("gone/new"), "new");
        }
        note("create", made);
        let view = two_seen(m);
        mounted.umount();
        lines = view.differences(
            &two_seen(
                layers::try_mount(Fs::Kernel, &options, &outer.merged)
                    .unwrap()
                    .path(),
            ),
            "live",
            "kernel",
        );
        assert_eq!(lines, Vec::<String>::new(), "{fs:?}");
        assert_eq!(
            before,
            tree::fingerprint(&outer.lower),
            "{fs:?}: the lower was written"
        );
        (log, view)
    };
    let (kernel, kernel_view) = outcome(Fs::Kernel);
    let (ours, our_view) = outcome(Fs::Plyfs);
    assert!(
        kernel.iter().filter(|line| line.contains("ENOSPC")).count() >= 4,
        "{kernel:?}"
    );
    assert_eq!(kernel, ours);
    assert_eq!(
        kernel_view.differences(&our_view, "kernel", "plyfs"),
        Vec::<String>::new()
    );
}
