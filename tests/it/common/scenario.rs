//! The same steps on the kernel's overlay and on plyfs.
//!
//! Each side gets layers of its own, planted alike. The steps run; each call's answer is written down. Then:
//!
//! 1. answers, merged trees and uppers of the two sides are compared (K141);
//! 2. each upper is mounted again by its own side: the same view, the same inode numbers;
//! 3. each upper is mounted by the *other* side: the same view (K140);
//! 4. the lowers are as they were planted (K142), and the work directories hold no leftovers (K123).
//!
//! All failures of a scenario are reported together.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::known;
use super::layers::{Fs, Layers, Mounted};
use super::plant::Node;
use super::sys::{self, Errno, R};
use super::tree::{Tree, fingerprint, snapshot};

/// `call`, again and again while a descriptor that was closed still seems to be open (see [`Env::ok_once_closed`]).
pub fn once_closed<T>(call: impl Fn() -> R<T>) -> R<T> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match call() {
            Err(sys::EAGAIN | sys::ETXTBSY | sys::EBUSY) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            answer => return answer,
        }
    }
}

/// What the steps of a scenario see of one side.
pub struct Env {
    pub fs: Fs,
    pub layers: Layers,
    mounted: Mutex<Option<Mounted>>,
    log: Mutex<Vec<(String, String)>>,
    failures: Mutex<Vec<String>>,
}

impl Env {
    /// A path in the view.
    pub fn m(&self, path: impl AsRef<Path>) -> PathBuf {
        self.layers.merged.join(path)
    }

    /// A path in the lower.
    pub fn l(&self, path: impl AsRef<Path>) -> PathBuf {
        self.layers.lower.join(path)
    }

    /// A path in a further lower; the first below the topmost is 2.
    pub fn below(&self, number: usize, path: impl AsRef<Path>) -> PathBuf {
        self.layers.below[number - 2].join(path)
    }

    /// A path in the upper.
    pub fn u(&self, path: impl AsRef<Path>) -> PathBuf {
        self.layers.upper.join(path)
    }

    /// A call whose answer must be the same on both sides.
    pub fn call<T: Debug>(&self, label: impl Into<String>, call: impl FnOnce() -> R<T>) -> R<T> {
        let answer = call();
        self.note(label, &answer);
        answer
    }

    /// A call whose answer must be `want` on both sides.
    pub fn want<T: Debug + PartialEq>(
        &self,
        label: impl Into<String>,
        want: R<T>,
        call: impl FnOnce() -> R<T>,
    ) -> R<T> {
        let label = label.into();
        let answer = call();
        if answer != want {
            self.fail(format!("{label}: {answer:?}, expected {want:?}"));
        }
        self.note(label, &answer);
        answer
    }

    /// A call that must succeed.
    pub fn ok(&self, label: impl Into<String>, call: impl FnOnce() -> R) {
        let _ = self.want(label, Ok(()), call);
    }

    /// A call that must succeed once a closed descriptor has let go of what it held (a lock, a program that may not
    /// be run while it is written). That can take a moment: a child that another test's thread has just forked has a
    /// copy of every descriptor of this process until its exec.
    pub fn ok_once_closed(&self, label: impl Into<String>, call: impl Fn() -> R) {
        self.ok(label, || once_closed(&call));
    }

    /// A call that must fail with `errno`.
    pub fn fails<T: Debug>(&self, label: impl Into<String>, errno: Errno, call: impl FnOnce() -> R<T>) {
        let _ = self.want(label, Err(errno), || call().map(|value| format!("{value:?}")));
    }

    /// A value that must be `want` on both sides. Only whether it is goes into the log, so that it may be an inode
    /// number or another thing of that side alone.
    pub fn eq<T: Debug + PartialEq>(&self, label: impl Into<String>, value: T, want: T) {
        let label = label.into();
        let equal = value == want;
        if !equal {
            self.fail(format!("{label}: {value:?}, expected {want:?}"));
        }
        self.note(label, &equal);
    }

    /// A condition that must hold on both sides.
    pub fn check(&self, label: impl Into<String>, holds: bool) {
        self.eq(label, holds, true);
    }

    /// A call whose answer differs on purpose: one for the kernel, one (or several allowed) for plyfs.
    pub fn differs<T: Debug>(
        &self,
        id: &str,
        label: impl Into<String>,
        kernel: &str,
        plyfs: &[&str],
        call: impl FnOnce() -> R<T>,
    ) -> R<T> {
        let rule = known::difference(id).rule;
        let answer = call();
        let (text, label) = (format!("{answer:?}"), label.into());
        let right = match self.fs {
            Fs::Kernel => text == kernel,
            Fs::Plyfs if super::layers::program_is_kernel() => text == kernel,
            Fs::Plyfs => plyfs.contains(&text.as_str()),
        };
        if !right {
            let want = if self.fs == Fs::Kernel {
                vec![kernel]
            } else {
                plyfs.to_vec()
            };
            self.fail(format!("{label}: {text}, expected {want:?} ({id}, {rule})"));
        }
        answer
    }

    /// Writes down an answer to be compared.
    pub fn note(&self, label: impl Into<String>, answer: &impl Debug) {
        self.log
            .lock()
            .unwrap()
            .push((label.into(), format!("{answer:?}")));
    }

    /// Records a failure and goes on.
    pub fn fail(&self, what: impl Into<String>) {
        self.failures
            .lock()
            .unwrap()
            .push(format!("{}: {}", self.fs.name(), what.into()));
    }

    /// Unmounts and mounts again.
    pub fn remount(&self) {
        let mut slot = self.mounted.lock().unwrap();
        *slot = slot.take().map(Mounted::remount);
    }

    /// Closes what is still open in the view, then unmounts and mounts again.
    pub fn remount_after<T>(&self, open: T) {
        drop(open);
        self.remount();
    }

    /// The upper holds nothing: what was called before was no reason to copy up (K61).
    pub fn untouched(&self, after: &str) {
        let found: Vec<_> = sys::walk(&self.layers.upper);
        self.check(format!("upper is empty after {after}"), found.is_empty());
        if !found.is_empty() {
            self.fail(format!("upper after {after} holds {found:?}"));
        }
    }
}

/// How a scenario is set up and compared. Most need only [`scenario`].
pub struct Scenario {
    name: String,
    lower: Vec<Node>,
    below: Vec<Vec<Node>>,
    upper: Vec<Node>,
    words: Vec<String>,
    ours: Vec<String>,
    ignored: Vec<String>,
    ignored_paths: Vec<PathBuf>,
    cross: bool,
    upper_compared: bool,
    numbers_kept: bool,
    prepare: Option<fn(&Layers)>,
}

/// Runs `steps` over a lower, with the default options, on both sides.
pub fn scenario(name: &str, lower: &[Node], steps: impl Fn(&Env)) {
    Scenario::new(name).lower(lower).run(steps);
}

impl Scenario {
    pub fn new(name: &str) -> Self {
        Scenario {
            name: name.into(),
            lower: Vec::new(),
            below: Vec::new(),
            upper: Vec::new(),
            words: Vec::new(),
            ours: Vec::new(),
            ignored: Vec::new(),
            ignored_paths: Vec::new(),
            cross: true,
            upper_compared: true,
            numbers_kept: true,
            prepare: None,
        }
    }

    #[must_use]
    pub fn lower(mut self, nodes: &[Node]) -> Self {
        self.lower = nodes.to_vec();
        self
    }

    /// A further lower, below those that there are.
    #[must_use]
    pub fn below(mut self, nodes: &[Node]) -> Self {
        self.below.push(nodes.to_vec());
        self
    }

    #[must_use]
    pub fn upper(mut self, nodes: &[Node]) -> Self {
        self.upper = nodes.to_vec();
        self
    }

    /// Mount options for both sides.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words = words.iter().map(|w| (*w).into()).collect();
        self
    }

    /// Mount options for plyfs alone: those that change how a view is served.
    #[must_use]
    pub fn ours(mut self, words: &[&str]) -> Self {
        self.ours = words.iter().map(|w| (*w).into()).collect();
        self
    }

    /// Changes the layers after planting, before the mount; the lower is fingerprinted after it.
    #[must_use]
    pub fn prepare(mut self, prepare: fn(&Layers)) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Leaves a field out of the comparison of trees, by a known difference.
    #[must_use]
    pub fn field_differs(mut self, id: &str, field: &str) -> Self {
        known::difference(id);
        self.ignored.push(field.into());
        self
    }

    /// Leaves a path out of the comparison of trees, by a known difference.
    #[must_use]
    pub fn path_differs(mut self, id: &str, path: &str) -> Self {
        known::difference(id);
        self.ignored_paths.push(path.into());
        self
    }

    /// No mounting of each upper by the other side. Say why where it is called.
    #[must_use]
    pub fn not_crossed(mut self) -> Self {
        self.cross = false;
        self
    }

    /// Uppers are not compared. Say why where it is called.
    #[must_use]
    pub fn uppers_may_differ(mut self) -> Self {
        self.upper_compared = false;
        self
    }

    /// Inode numbers may change over the remount. Say why where it is called.
    #[must_use]
    pub fn numbers_may_change(mut self) -> Self {
        self.numbers_kept = false;
        self
    }

    pub fn run(self, steps: impl Fn(&Env)) {
        if !super::need_root(&self.name) {
            return;
        }
        let mut failures = Vec::new();
        let mut done: Vec<Outcome> = Vec::new();
        for fs in Fs::sides() {
            match catch_unwind(AssertUnwindSafe(|| self.side(fs, &steps, &mut failures))) {
                Ok(outcome) => done.push(outcome),
                Err(panic) => failures.push(format!("{}: {}", fs.name(), panic_text(panic.as_ref()))),
            }
        }
        if let [kernel, ours] = &done[..] {
            self.compare(kernel, ours, &mut failures);
            if self.cross {
                for side in [kernel, ours] {
                    self.cross_mount(side, &mut failures);
                }
            }
        }
        for outcome in &done {
            let (layers, name) = (&outcome.layers, outcome.fs.name());
            for (planted, lower) in outcome.lowers.iter().zip(layers.lowers()) {
                for line in planted.differences(&fingerprint(lower), "planted", "afterwards") {
                    failures.push(format!("{name}: K142, the lower was changed: {line}"));
                }
            }
        }
        assert!(
            failures.is_empty(),
            "scenario {}:\n  {}\n",
            self.name,
            failures.join("\n  ")
        );
    }

    fn side(&self, fs: Fs, steps: &impl Fn(&Env), failures: &mut Vec<String>) -> Outcome {
        let mut layers = Layers::new().with_lower(&self.lower).with_upper(&self.upper);
        for below in &self.below {
            layers = layers.with_below(below);
        }
        if let Some(prepare) = self.prepare {
            prepare(&layers);
        }
        let lowers = layers.lowers().map(|lower| fingerprint(lower)).collect();
        self.warm_up(fs, &layers);
        let mounted = layers.mount(fs, &self.word_list(fs));
        let env = Env {
            fs,
            layers,
            mounted: Mutex::new(Some(mounted)),
            log: Mutex::default(),
            failures: Mutex::default(),
        };
        let ended = catch_unwind(AssertUnwindSafe(|| steps(&env)));
        let Env {
            layers,
            mounted,
            log,
            failures: mine,
            ..
        } = env;
        failures.extend(mine.into_inner().unwrap());
        if let Err(panic) = ended {
            panic!("{}", panic_text(panic.as_ref()));
        }
        let mounted = mounted.into_inner().unwrap().expect("the mount");
        let (merged, numbers) = (snapshot(&layers.merged), numbers(&layers.merged));
        mounted.umount();
        let upper = snapshot(&layers.upper);
        leftovers(fs, &layers, failures);
        let again = layers.mount(fs, &self.word_list(fs));
        let after = snapshot(&layers.merged);
        for line in merged.differences(&after, "before", "after") {
            failures.push(format!("{}: remount: {line}", fs.name()));
        }
        if self.numbers_kept {
            numbers_changed(fs, &numbers, &self::numbers(&layers.merged), failures);
        }
        again.umount();
        Outcome {
            fs,
            layers,
            log: log.into_inner().unwrap(),
            lowers,
            merged,
            upper,
        }
    }

    /// The kernel gives planted merged directories their origin at the first lookup, which may come after the first
    /// listing: until the next mount d_ino and st_ino differ. So let it see them once.
    fn warm_up(&self, fs: Fs, layers: &Layers) {
        let kernel = fs == Fs::Kernel || super::layers::program_is_kernel();
        if kernel
            && !self.upper.is_empty()
            && let Ok(mounted) = layers.try_mount(fs, &self.word_list(fs))
        {
            snapshot(mounted.path());
            mounted.umount();
        }
    }

    fn word_list(&self, fs: Fs) -> Vec<&str> {
        let ours = fs == Fs::Plyfs && super::layers::ours_is_plyfs();
        let ours = self.ours.iter().filter(|_| ours);
        self.words.iter().chain(ours).map(String::as_str).collect()
    }

    fn comparable(&self, tree: &Tree) -> Tree {
        let ignored: Vec<_> = self.ignored.iter().map(String::as_str).collect();
        let mut tree = tree.clone().without(&ignored);
        for path in &self.ignored_paths {
            tree = tree.without_path(path);
        }
        tree
    }

    fn compare(&self, kernel: &Outcome, ours: &Outcome, failures: &mut Vec<String>) {
        for (i, (label, answer)) in kernel.log.iter().enumerate() {
            match ours.log.get(i) {
                Some((l, a)) if l == label && a == answer => {}
                Some((l, a)) if l == label => {
                    failures.push(format!("{label}: kernel {answer}, plyfs {a}"));
                }
                other => {
                    failures.push(format!(
                        "the steps part at {label} = {answer}: plyfs went to {other:?}"
                    ));
                    break;
                }
            }
        }
        if ours.log.len() > kernel.log.len() {
            failures.push(format!(
                "plyfs took further steps: {:?}",
                &ours.log[kernel.log.len()..]
            ));
        }
        let (a, b) = (self.comparable(&kernel.merged), self.comparable(&ours.merged));
        failures.extend(
            a.differences(&b, "kernel", "plyfs")
                .into_iter()
                .map(|l| format!("merged: {l}")),
        );
        if self.upper_compared {
            let (a, b) = (
                self.comparable(&kernel.upper).into_upper(),
                self.comparable(&ours.upper).into_upper(),
            );
            failures.extend(
                a.differences(&b, "kernel", "plyfs")
                    .into_iter()
                    .map(|l| format!("upper: {l}")),
            );
        }
    }

    fn cross_mount(&self, side: &Outcome, failures: &mut Vec<String>) {
        let other = side.fs.other();
        let title = format!("{}'s upper mounted by {}", side.fs.name(), other.name());
        self.warm_up(other, &side.layers);
        match side.layers.try_mount(other, &self.word_list(other)) {
            Err(refused) => failures.push(format!("{title}: {refused:?}")),
            Ok(mounted) => {
                let (a, b) = (
                    self.comparable(&side.merged),
                    self.comparable(&snapshot(mounted.path())),
                );
                let lines = a.differences(&b, side.fs.name(), other.name());
                failures.extend(lines.into_iter().map(|l| format!("{title}: {l}")));
                mounted.umount();
            }
        }
    }
}

/// What one side left behind.
struct Outcome {
    fs: Fs,
    layers: Layers,
    log: Vec<(String, String)>,
    lowers: Vec<Tree>,
    merged: Tree,
    upper: Tree,
}

pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .into()
}

/// Inode number of every name.
pub fn numbers(root: &Path) -> BTreeMap<PathBuf, u64> {
    let number = |path: PathBuf| sys::ino(&path).ok().map(|ino| (path, ino));
    sys::walk(root).into_iter().filter_map(number).collect()
}

fn numbers_changed(
    fs: Fs,
    before: &BTreeMap<PathBuf, u64>,
    after: &BTreeMap<PathBuf, u64>,
    failures: &mut Vec<String>,
) {
    for (path, ino) in before {
        if after.get(path) != Some(ino) {
            let new = after.get(path);
            failures.push(format!(
                "{}: K41, {}: st_ino {ino} became {new:?} over the remount",
                fs.name(),
                path.display()
            ));
        }
    }
}

/// After a clean unmount `work/work` holds nothing but the shared whiteout inode.
fn leftovers(fs: Fs, layers: &Layers, failures: &mut Vec<String>) {
    for path in layers.leftovers() {
        failures.push(format!(
            "{}: K123, left in the work directory: {}",
            fs.name(),
            path.display()
        ));
    }
}
