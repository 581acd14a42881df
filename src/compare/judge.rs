//! Compares what the two systems answered, and knows which differences are accepted.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use super::accepted::{self, Counts};
use super::bytes::Bytes;
use super::op::{Call, Look, PEOPLE, Slot};
use super::outcome::{Named, Outcome, Seen, Value};
use super::pair::Pair;
use super::tree::Tree;
use crate::sys::plain::{Stat, Time, errno_name};

/// Something that differs and is not accepted.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Call and field, without names or numbers: two differences with one signature are probably one fault.
    pub signature: String,
    /// Who said what.
    pub text: String,
}

impl Difference {
    pub(super) fn new(signature: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            signature: signature.into(),
            text: text.into(),
        }
    }
}

/// What to do after an outcome was compared.
#[derive(Debug)]
pub enum Verdict {
    Same,
    /// Accepted, but the descriptor is in different states now: both put it away.
    PutAway(Slot),
    /// Accepted, but the trees differ from here on: the program ends.
    End,
    Differs(Difference),
}

pub struct Judge {
    pub counts: Counts,
    pub(super) ignored: Vec<String>,
    /// st_ino of the reference to that of the other, and back. None where numbers may come back.
    pub(super) pairs: Option<[HashMap<u64, u64>; 2]>,
    /// Numbers of the lower's hard-link groups, on each side.
    pub(super) groups: Pair<HashSet<u64>>,
    /// When a name was last made, deleted or renamed, by step.
    touched: HashMap<Vec<u8>, usize>,
    last_touch: usize,
    /// Files that an ordinary user has opened, by their number on the reference.
    shared: HashSet<u64>,
    /// Files whose setuid bits differ, as the last look at the merged trees showed.
    pub(super) fell: HashSet<Bytes>,
    /// Names that a rename could not move.
    pub(super) marked: HashSet<Vec<u8>>,
    /// When a directory stream was started, by worker and slot.
    streams: HashMap<(u8, Slot), usize>,
    pub(super) now: i64,
    /// A side lets go of K110 and K112 for descriptors from before a copy-up (`passthrough=all`).
    old_readers: bool,
}

impl Judge {
    pub fn new(numbers_are_unique: bool, ignored: &[String], old_readers: bool) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() as i64);
        Self {
            counts: Counts::default(),
            ignored: ignored.to_vec(),
            pairs: numbers_are_unique.then(Default::default),
            groups: Default::default(),
            touched: HashMap::new(),
            last_touch: 0,
            shared: HashSet::new(),
            fell: HashSet::new(),
            marked: HashSet::new(),
            streams: HashMap::new(),
            now,
            old_readers,
        }
    }

    /// New layers, or layers changed sides: numbers seen so far mean nothing any more.
    pub fn new_layers(&mut self, lowers: &Pair<&Tree>) {
        if let Some(pairs) = &mut self.pairs {
            *pairs = Default::default();
        }
        self.shared.clear();
        self.groups = lowers.each(|tree| {
            let stats = tree.iter().filter_map(|entry| entry.stat.as_ref().ok());
            stats
                .filter(|st| !st.is_dir() && st.nlink > 1)
                .map(|st| st.ino)
                .collect()
        });
    }

    pub fn outcome(
        &mut self,
        at: usize,
        worker: u8,
        call: &Call,
        look: Look,
        a: &Outcome,
        b: &Outcome,
    ) -> Verdict {
        self.keep_book(at, worker, call, a.result.is_ok() || b.result.is_ok());
        if matches!(call, Call::Open { .. })
            && PEOPLE
                .get(usize::from(worker))
                .is_some_and(|person| person.uid != 0)
            && a.result.is_ok()
        {
            let opened = a.seen.iter().filter(|seen| seen.what.starts_with("fd "));
            self.shared.extend(
                opened
                    .filter_map(|seen| seen.after.as_ref().ok())
                    .map(|st| st.ino),
            );
        }
        if let Some(verdict) = self.result(worker, call, a, b) {
            return verdict;
        }
        // Listing a directory may clear its impure mark in the kernel (K48), and tmpfs forgets ctime when setuid
        // falls and the size stays.
        let lists = matches!(call, Call::List { .. } | Call::NextNames { .. });
        let dropped = matches!(call, Call::Truncate { .. }) && a.seen.iter().any(Seen::mode_changes);
        let failed = self.failed_rename(call, a, b);
        let still = look == Look::Times && (lists || dropped || failed);
        let look = if still { Look::Yes } else { look };
        for (one, other) in a.seen.iter().zip(&b.seen) {
            if let Err((field, text)) = self.seen(look, one, other) {
                return Verdict::Differs(Difference::new(format!("{} {field}", call.name()), text));
            }
        }
        Verdict::Same
    }

    /// The kernel may have marked a directory opaque before it saw that it cannot be renamed.
    fn failed_rename(&mut self, call: &Call, a: &Outcome, b: &Outcome) -> bool {
        let Call::Rename { from, to, .. } = call else {
            return false;
        };
        let failed = a.result.is_err() && b.result.is_err();
        if failed {
            self.marked.extend([from.name().to_vec(), to.name().to_vec()]);
        }
        failed
    }

    /// Remembers which names came and went, and where streams start.
    fn keep_book(&mut self, at: usize, worker: u8, call: &Call, succeeded: bool) {
        match call {
            Call::Open { slot, .. } if succeeded => {
                self.streams.insert((worker, *slot), at);
            }
            Call::SeekNames { slot, nth: 0 } => {
                self.streams.insert((worker, *slot), at);
            }
            _ => {}
        }
        let changes = matches!(
            call,
            Call::Open { .. }
                | Call::WriteFile { .. }
                | Call::Mkdir { .. }
                | Call::Mknod { .. }
                | Call::Symlink { .. }
                | Call::Link { .. }
                | Call::LinkSlot { .. }
                | Call::Unlink { .. }
                | Call::Rmdir { .. }
                | Call::Rename { .. }
        );
        if changes && succeeded {
            for path in call.paths() {
                self.touched.insert(path.name().to_vec(), at);
            }
            self.last_touch = at;
        }
    }

    fn result(&mut self, worker: u8, call: &Call, a: &Outcome, b: &Outcome) -> Option<Verdict> {
        let differs = |field: &str, text: String| {
            Some(Verdict::Differs(Difference::new(
                format!("{} {field}", call.name()),
                text,
            )))
        };
        if self.old_readers
            && a.result != b.result
            && let Some(verdict) = old_reader(call)
        {
            self.counts.add(accepted::OLD_READER);
            return Some(verdict);
        }
        match (&a.result, &b.result) {
            (Ok(one), Ok(other)) => match self.value(worker, call, one, other) {
                Ok(()) => None,
                Err((field, text)) => differs(&field, text),
            },
            (Err(one), Err(other)) if one == other => None,
            _ => {
                let tmpfile =
                    matches!(call, Call::Open { flags, .. } if flags & libc::O_TMPFILE == libc::O_TMPFILE);
                let error = |outcome: &Outcome| outcome.result.as_ref().err().copied().unwrap_or(0);
                let (one, other) = (error(a), error(b));
                match call {
                    // The kernel has copied the directory up by now.
                    Call::Open { .. } if tmpfile && one == 0 && other == libc::EOPNOTSUPP => {
                        self.counts.add(accepted::NO_TMPFILE);
                        return Some(Verdict::End);
                    }
                    _ if one == 0 && other == libc::ETXTBSY => {
                        self.counts.add(accepted::SETUID_WHILE_OPEN);
                        return Some(Verdict::End);
                    }
                    Call::MmapRead { .. } if one == libc::EFAULT && other == 0 => {
                        self.counts.add(accepted::OLD_MAPPING);
                        return Some(Verdict::Same);
                    }
                    Call::GetFlags { .. } if other == libc::ENOTTY => {
                        self.counts.add(accepted::NO_FLAGS);
                        return Some(Verdict::Same);
                    }
                    Call::Rmdir { .. } if one == libc::ENOTEMPTY && other == 0 => {
                        self.counts.add(accepted::STRAY_WHITEOUTS);
                        return Some(Verdict::End);
                    }
                    _ => {}
                }
                // Nor can a deleted lower directory, be it open or somebody's working directory.
                let nameless =
                    !call.slots().is_empty() || call.paths().iter().all(|p| p.name().starts_with(b"."));
                if one == libc::ENOTDIR && other == libc::ESTALE && nameless {
                    self.counts.add(accepted::STALE_METADATA);
                    return Some(Verdict::Same);
                }
                // A deleted lower file cannot be copied up by name: EEXIST, or another object is hit.
                if let [slot] = *call.slots()
                    && !matches!(call, Call::Open { .. } | Call::LinkSlot { .. })
                {
                    let of_lower = a
                        .seen
                        .iter()
                        .any(|seen| seen.before.as_ref().is_ok_and(|st| st.nlink > 0));
                    if one == libc::EEXIST || (one == 0 && other == libc::ESTALE && of_lower) {
                        self.counts.add(accepted::STALE_METADATA);
                        let alike = one != 0 && other != 0;
                        return Some(if alike {
                            Verdict::PutAway(slot)
                        } else {
                            Verdict::End
                        });
                    }
                }
                let field = format!("{} against {}", answer(one), answer(other));
                differs(&field, format!("result: {a} against {b}"))
            }
        }
    }

    fn value(&mut self, worker: u8, call: &Call, a: &Value, b: &Value) -> Result<(), (String, String)> {
        match (a, b) {
            (Value::Stat(one), Value::Stat(other)) => {
                let of_slot = match call {
                    Call::Stat { path, .. } => path.name().starts_with(b"."),
                    _ => true,
                };
                self.stat("result", one, other, of_slot)
            }
            (
                Value::Names { names: one, .. },
                Value::Names {
                    names: other,
                    trouble,
                },
            ) => {
                let start = match call {
                    Call::NextNames { slot, .. } => self.streams.get(&(worker, *slot)).copied().unwrap_or(0),
                    _ => usize::MAX,
                };
                self.names(start, one, other, trouble)
            }
            // Where a stream is cut may depend on names that are hidden or came in the middle.
            (Value::Part(_) | Value::Names { .. }, Value::Part(_) | Value::Names { .. }) if a != b => {
                self.counts.add(accepted::MOVING_DIRECTORY);
                Ok(())
            }
            (Value::Number(_), Value::Number(_)) if matches!(call, Call::SeekNames { .. }) => Ok(()),
            (Value::Data { .. }, Value::Data { .. }) if a != b && matches!(call, Call::MmapRead { .. }) => {
                self.counts.add(accepted::OLD_MAPPING);
                Ok(())
            }
            (Value::Data { .. }, Value::Data { .. }) if a != b => {
                Err(("data".into(), format!("data: {a:?} against {b:?}")))
            }
            _ if a == b => Ok(()),
            _ => Err(("value".into(), format!("value: {a:?} against {b:?}"))),
        }
    }

    fn names(
        &mut self,
        start: usize,
        a: &[Named],
        b: &[Named],
        trouble: &[String],
    ) -> Result<(), (String, String)> {
        if let Some(text) = trouble.first() {
            return Err(("stream".into(), format!("the directory stream: {text}")));
        }
        let ours: HashMap<&Bytes, &Named> = b.iter().map(|n| (&n.name, n)).collect();
        let theirs: HashSet<&Bytes> = a.iter().map(|n| &n.name).collect();
        let moving = |judge: &Self, name: &Bytes| judge.touched.get(&name.0).is_some_and(|&at| at >= start);
        for one in a {
            match ours.get(&one.name) {
                Some(other) if other.exists == one.exists && (other.agrees || !one.agrees) => {}
                _ if moving(self, &one.name) => self.counts.add(accepted::MOVING_DIRECTORY),
                Some(other) => {
                    return Err(("names".into(), format!("listed: {one:?} against {other:?}")));
                }
                None if !one.exists => self.counts.add(accepted::HIDDEN_WHITEOUT),
                None => return Err(("name missing".into(), format!("{:?} is not listed", one.name))),
            }
        }
        for other in b {
            if !theirs.contains(&other.name) {
                if moving(self, &other.name) {
                    self.counts.add(accepted::MOVING_DIRECTORY);
                } else {
                    return Err(("name too many".into(), format!("{:?} is listed", other.name)));
                }
            }
        }
        Ok(())
    }

    fn seen(&mut self, look: Look, a: &Seen, b: &Seen) -> Result<(), (String, String)> {
        let of_slot = a.what.starts_with("fd ");
        for (when, one, other) in [("before", &a.before, &b.before), ("after", &a.after, &b.after)] {
            match (one, other) {
                (Ok(one), Ok(other)) => self.stat(&format!("{} {when}", a.what), one, other, of_slot)?,
                (Err(one), Err(other)) if one == other => {}
                _ => {
                    let short = |r: &Result<Stat, i32>| {
                        r.as_ref().map_or_else(|e| errno_name(*e), |_| "there".into())
                    };
                    let text = format!("{} {when}: {} against {}", a.what, short(one), short(other));
                    return Err((format!("{when} existence"), text));
                }
            }
        }
        if let (Ok(a0), Ok(a1), Ok(b0), Ok(b1)) = (&a.before, &a.after, &b.before, &b.after)
            && look == Look::Times
            && a0.ino == a1.ino
        {
            let moved = |x: &Stat, y: &Stat| (x.mtime != y.mtime, x.ctime != y.ctime);
            let (one, other) = (moved(a0, a1), moved(b0, b1));
            let text = |field: &str, one: bool| {
                let (yes, no) = if one {
                    ("moves", "does not")
                } else {
                    ("does not move", "does")
                };
                format!("{}: {field} {yes}, on the other it {no}", a.what)
            };
            if one.0 != other.0 && !self.ignores("mtime moves") {
                return Err(("mtime moves".into(), text("mtime", one.0)));
            }
            if one.1 != other.1 && !self.ignores("ctime moves") {
                return Err(("ctime moves".into(), text("ctime", one.1)));
            }
        }
        Ok(())
    }

    pub(super) fn ignores(&self, field: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == field)
    }

    pub(super) fn stat(
        &mut self,
        what: &str,
        a: &Stat,
        b: &Stat,
        of_slot: bool,
    ) -> Result<(), (String, String)> {
        let mut wrong: Vec<(&str, String)> = Vec::new();
        let mut field = |name, one: String, other: String| {
            if one != other {
                wrong.push((name, format!("{what}: {name} {one} against {other}")));
            }
        };
        // Set-id bits of a file that another user opened fall with root's write too.
        let bits = libc::S_ISUID | libc::S_ISGID;
        let fell =
            (a.mode ^ b.mode) & !bits == 0 && a.mode & !b.mode & bits != 0 && self.shared.contains(&a.ino);
        let locking = fell || a.is_locking() != b.is_locking() && (a.mode ^ b.mode) == libc::S_ISGID;
        if !locking {
            field("mode", format!("{:o}", a.mode), format!("{:o}", b.mode));
        }
        field("uid", a.uid.to_string(), b.uid.to_string());
        field("gid", a.gid.to_string(), b.gid.to_string());
        field("rdev", format!("{:x}", a.rdev), format!("{:x}", b.rdev));
        field("device", a.dev.to_string(), b.dev.to_string());
        if !a.is_dir() {
            field("size", a.size.to_string(), b.size.to_string());
        }
        field("mtime", self.time(a.mtime), self.time(b.mtime));
        if fell {
            self.counts.add(accepted::SHARED_SETUID);
        } else if locking {
            self.counts.add(accepted::LOCKING_BIT);
        }
        // Only what is no name, but a descriptor or a working directory, can be gone and still be asked.
        let gone = of_slot || what.contains('.');
        let group = self.groups.a.contains(&a.ino) || self.groups.b.contains(&b.ino);
        if a.nlink != b.nlink {
            if gone && b.nlink == 0 {
                self.counts.add(accepted::DELETED_LINKS);
            } else if group {
                self.counts.add(accepted::GROUP_LINKS);
            } else {
                wrong.push(("nlink", format!("{what}: nlink {} against {}", a.nlink, b.nlink)));
            }
        }
        if let Some((name, text)) = wrong.into_iter().find(|(name, _)| !self.ignores(name)) {
            return Err((name.into(), text));
        }
        if self.ignores("ino") {
            Ok(())
        } else {
            self.number(what, a, b)
        }
    }

    /// Equal numbers on one side go with equal numbers on the other, over time and over names.
    fn number(&mut self, what: &str, a: &Stat, b: &Stat) -> Result<(), (String, String)> {
        let Some([forth, back]) = &mut self.pairs else {
            return Ok(());
        };
        let (told, told_back) = (
            *forth.entry(a.ino).or_insert(b.ino),
            *back.entry(b.ino).or_insert(a.ino),
        );
        if told == b.ino && told_back == a.ino {
            return Ok(());
        }
        // The reference split a group, or gave a cut name a new number, where ours did not.
        let of_group = self.groups.a.contains(&told_back) || self.groups.b.contains(&b.ino);
        if told == b.ino && of_group {
            self.counts.add(accepted::CUT_LINK_NUMBER);
            return Ok(());
        }
        Err((
            "ino".into(),
            format!(
                "{what}: st_ino {} against {}, but {} went with {told} and {} with {told_back}",
                a.ino, b.ino, a.ino, b.ino
            ),
        ))
    }

    /// Times of this run cannot be equal; all others must be.
    pub(super) fn time(&self, time: Time) -> String {
        if (self.now - 5..self.now + 86_400).contains(&time.0) {
            return "now".into();
        }
        format!("{}.{:09}", time.0, time.1)
    }
}

fn answer(errno: i32) -> String {
    if errno == 0 {
        "ok".into()
    } else {
        errno_name(errno)
    }
}

/// What is left of a call that reads by a descriptor, or locks, when the answers differ because one side's descriptor
/// stayed at the lower's file.
fn old_reader(call: &Call) -> Option<Verdict> {
    let reads = matches!(
        call,
        Call::Read { .. }
            | Call::Pread { .. }
            | Call::MmapRead { .. }
            | Call::SeekSparse { .. }
            | Call::GetFlags { .. }
    );
    let spreads = matches!(
        call,
        Call::CopyRange { .. } | Call::Flock { .. } | Call::Lock { .. }
    );
    match call.slots()[..] {
        [slot] if reads => Some(Verdict::PutAway(slot)),
        _ if spreads => Some(Verdict::End),
        _ => None,
    }
}
