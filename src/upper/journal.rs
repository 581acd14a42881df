//! What an apply is about to do, on disk, so that another process can end it or take it back.
//!
//! ```text
//!   WORK/plyfs-apply/state     how far it is, and where the slots are; replaced in one step
//!   WORK/plyfs-apply/record    all steps; complete before the lower is touched
//!   WORK/plyfs-apply/taken/    what was in the upper
//!   WORK/plyfs-apply/slots/    the objects that change places, where the lower is on the same mount
//!   WORK/work/incompat/plyfs-apply    keeps plyfs and the kernel from mounting the upper meanwhile (K8)
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::call;
use super::layers::Layers;
use super::{Result, UpperError};
use crate::builder::manifest::Text;
use crate::builder::remove::remove_tree;
use crate::builder::{Meta, TreePath, Xattr};
use crate::sys::at::{self, RenameHow, SetTime};
use crate::sys::stat::{Stat, Time};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, io, stat};

const JOURNAL: &[u8] = b"plyfs-apply";
const STATE: &[u8] = b"state";
const RECORD: &[u8] = b"record";
const SLOTS: &[u8] = b"slots";
const TAKEN: &[u8] = b"taken";
const INCOMPAT: &[u8] = b"incompat";
/// Of the format; another one is refused.
const VERSION: u32 = 1;

/// How far an apply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Objects are being made; the lower is as it was.
    Preparing,
    /// Names change places.
    Publishing,
    /// All is applied, and can be undone.
    Done,
    /// Everything is put back.
    Undoing,
}

/// Where the slots are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    /// In the journal.
    Work,
    /// In the directory that holds the lower.
    Beside(String),
    /// In a directory of the lower.
    Inside(Text, String),
}

/// The file `state`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) phase: Phase,
    pub(super) place: Place,
    /// Device and inode of the lower, so that the journal is not used on another one.
    lower: (u64, u64),
    /// Everything of the upper is applied.
    pub(super) whole: bool,
}

/// By what an object is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) ino: u64,
    mode: u32,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Known {
    pub(super) fn of(stat: &Stat) -> Self {
        let time = |time: Time| (time.secs, time.nanos);
        Self {
            ino: stat.ino,
            mode: stat.mode,
            size: stat.size,
            mtime: time(stat.mtime),
            ctime: time(stat.ctime),
        }
    }
}

/// One name that changes. Its slot has the number of the step as its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Step {
    path: Text,
    /// What has the name before.
    pub(super) old: Option<Known>,
    /// What has it afterwards.
    pub(super) new: Option<Known>,
    /// The upper's object goes away with it, if not everything does.
    pub(super) taken: bool,
}

impl Step {
    pub(super) fn new(path: &TreePath, old: Option<Known>, new: Option<Known>, taken: bool) -> Self {
        Self {
            path: Text(path.as_bytes().to_vec()),
            old,
            new,
            taken,
        }
    }

    pub(super) fn path(&self) -> TreePath {
        TreePath::from_clean(self.path.0.clone())
    }
}

/// Attributes of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: (i64, u32),
    mtime: (i64, u32),
    xattrs: Vec<(Text, Text)>,
}

impl Attributes {
    pub(super) fn of(meta: &Meta, xattrs: &[Xattr]) -> Self {
        let time = |time: Time| (time.secs, time.nanos);
        Self {
            mode: meta.permissions,
            uid: meta.uid,
            gid: meta.gid,
            atime: time(meta.atime),
            mtime: time(meta.mtime),
            xattrs: xattrs
                .iter()
                .map(|one| (Text(one.name.clone()), Text(one.value.clone())))
                .collect(),
        }
    }

    /// These, with the times of others.
    pub(super) fn with_times_of(&self, other: &Self) -> Self {
        Self {
            atime: other.atime,
            mtime: other.mtime,
            ..self.clone()
        }
    }

    /// Gives them to a directory that has `before`; only what differs is called for.
    pub(super) fn give(&self, before: &Self, dir: BorrowedFd<'_>) -> crate::sys::Result<()> {
        if (self.uid, self.gid) != (before.uid, before.gid) {
            at::chown_fd(dir, Some(self.uid), Some(self.gid))?;
        }
        if self.xattrs != before.xattrs {
            for (name, _) in &before.xattrs {
                if !self.xattrs.iter().any(|(kept, _)| kept == name) {
                    match xattr::remove(Target::Fd(dir), &name.0) {
                        Ok(()) | Err(Errno::NODATA) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
            for (name, value) in &self.xattrs {
                xattr::set(Target::Fd(dir), &name.0, &value.0, 0)?;
            }
        }
        // After owner and ACLs, which change it.
        if (self.mode, self.uid, self.gid, &self.xattrs)
            != (before.mode, before.uid, before.gid, &before.xattrs)
        {
            at::chmod_fd(dir, self.mode)?;
        }
        match self.give_times(dir) {
            // Another user's directory, in which this one may make and remove names: it has the times that come of it.
            Err(Errno::PERM) if *self == before.with_times_of(self) => Ok(()),
            done => done,
        }
    }

    pub(super) fn give_times(&self, dir: BorrowedFd<'_>) -> crate::sys::Result<()> {
        let time = |(secs, nanos): (i64, u32)| SetTime::At(Time { secs, nanos });
        at::set_times_fd(dir, time(self.atime), time(self.mtime))
    }
}

/// A directory of both layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DirStep {
    path: Text,
    pub(super) old: Attributes,
    pub(super) new: Attributes,
}

impl DirStep {
    pub(super) fn new(path: &TreePath, old: Attributes, new: Attributes) -> Self {
        Self {
            path: Text(path.as_bytes().to_vec()),
            old,
            new,
        }
    }

    pub(super) fn path(&self) -> TreePath {
        TreePath::from_clean(self.path.0.clone())
    }
}

/// The file `record`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) steps: Vec<Step>,
    pub(super) dirs: Vec<DirStep>,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    dir: OwnedFd,
    pub(super) state: State,
}

fn failed(what: &'static str, name: &[u8]) -> impl Fn(Errno) -> UpperError {
    let path = TreePath::from_clean(JOURNAL).join(name);
    move |errno| call(what, "work directory", &path)(errno)
}

impl Journal {
    /// The journal in the work directory, if there is one.
    pub(super) fn find(layers: &Layers) -> Result<Option<Self>> {
        let dir = match at::open_dir_path(layers.work().root, JOURNAL) {
            Err(Errno::NOENT) => return Ok(None),
            dir => dir.map_err(failed("open", b""))?,
        };
        let Some(state) = read::<State>(&dir, STATE)? else {
            // Killed before the first word was written.
            let state = State::new(layers, Place::Work, false)?;
            return Ok(Some(Self { dir, state }));
        };
        if state.version != VERSION || state.lower != identity(layers)? {
            return Err(UpperError::Refused(format!(
                "the journal {}/plyfs-apply is of another lower, or of another version of plyfs: name the lower that the \
                 changes were applied to",
                layers.idle.paths[2].display()
            )));
        }
        Ok(Some(Self { dir, state }))
    }

    /// A new journal; there must be none.
    pub(super) fn begin(layers: &Layers, place: Place, whole: bool) -> Result<Self> {
        let work = layers.work().root;
        at::mkdir_at(work, JOURNAL, 0o700).map_err(failed("make", b""))?;
        let dir = at::open_dir_path(work, JOURNAL).map_err(failed("open", b""))?;
        let mut journal = Self {
            dir,
            state: State::new(layers, place, whole)?,
        };
        journal.enter(Phase::Preparing)?;
        at::mkdir_at(&journal.dir, TAKEN, 0o700).map_err(failed("make", TAKEN))?;
        Ok(journal)
    }

    /// Notes another place for the slots, before they are made.
    pub(super) fn move_to(&mut self, place: Place) -> Result<()> {
        self.state.place = place;
        self.enter(Phase::Preparing)
    }

    /// Notes how far the apply is; on disk when this returns.
    pub(super) fn enter(&mut self, phase: Phase) -> Result<()> {
        self.state.phase = phase;
        write(&self.dir, STATE, &self.state)
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<()> {
        write(&self.dir, RECORD, record)
    }

    pub(super) fn read_record(&self) -> Result<Record> {
        read(&self.dir, RECORD)?.ok_or_else(|| failed("read", RECORD)(Errno::NOENT))
    }

    /// When the last phase was entered.
    pub(super) fn entered(&self) -> Result<Time> {
        let stat = stat::stat_at(&self.dir, STATE).map_err(failed("look at", STATE))?;
        Ok(stat.mtime)
    }

    /// What was in the upper.
    pub(super) fn taken(&self) -> Result<OwnedFd> {
        at::open_dir_list(&self.dir, TAKEN).map_err(failed("open", TAKEN))
    }

    /// The directory that holds that of the slots, and its name there.
    fn slots_place(&self, layers: &Layers) -> Result<(OwnedFd, Vec<u8>)> {
        Ok(match &self.state.place {
            Place::Work => (
                at::open_dir_path(&self.dir, b".").map_err(failed("open", b""))?,
                SLOTS.to_vec(),
            ),
            Place::Beside(name) => (above(layers)?, name.clone().into_bytes()),
            Place::Inside(path, name) => {
                let path = TreePath::from_clean(path.0.clone());
                (layers.lower().dir(&path)?, name.clone().into_bytes())
            }
        })
    }

    /// Makes the directory of the slots.
    pub(super) fn make_slots(&self, layers: &Layers) -> Result<OwnedFd> {
        let (dir, name) = self.slots_place(layers)?;
        let failed = |what: &'static str| call(what, "journal", &TreePath::from_clean(name.as_slice()));
        self.keeping_times(&dir, || at::mkdir_at(&dir, &name, 0o700).map_err(failed("make")))?;
        let slots = at::open_dir_list(&dir, &name).map_err(failed("open"))?;
        // Else everything made in it would begin with these.
        match xattr::remove(Target::Fd(slots.as_fd()), b"system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(failed("remove the default ACL of")(errno)),
        }
        Ok(slots)
    }

    /// Makes or removes the slots in `dir`; a directory that is not ours keeps its times.
    fn keeping_times(&self, dir: &OwnedFd, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let failed = || failed("keep the times beside", SLOTS);
        let before = stat::stat_fd(dir).map_err(failed())?;
        change()?;
        if self.state.place == Place::Work {
            return Ok(());
        }
        match at::set_times_fd(dir, SetTime::At(before.atime), SetTime::At(before.mtime)) {
            // It may be another user's, who lets this one make something in it.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(errno) => Err(failed()(errno)),
        }
    }

    pub(super) fn slots(&self, layers: &Layers) -> Result<OwnedFd> {
        let (dir, name) = self.slots_place(layers)?;
        at::open_dir_list(&dir, &name).map_err(call(
            "open",
            "journal",
            &TreePath::from_clean(name.as_slice()),
        ))
    }

    /// Removes the slots and the journal. The state goes last: what is left of a killed removal is known by it.
    pub(super) fn remove(mut self, layers: &Layers) -> Result<()> {
        if self.state.phase != Phase::Preparing {
            // What is half removed can be neither ended nor undone any more, and need not be.
            self.enter(Phase::Preparing)?;
        }
        let (dir, name) = self.slots_place(layers)?;
        self.keeping_times(&dir, || Ok(remove_tree(dir.as_fd(), &name)?))?;
        for name in [TAKEN, RECORD] {
            remove_tree(self.dir.as_fd(), name)?;
        }
        unmark(layers)?;
        remove_tree(layers.work().root, JOURNAL)?;
        Ok(())
    }
}

impl State {
    fn new(layers: &Layers, place: Place, whole: bool) -> Result<Self> {
        Ok(Self {
            version: VERSION,
            phase: Phase::Preparing,
            place,
            lower: identity(layers)?,
            whole,
        })
    }
}

fn identity(layers: &Layers) -> Result<(u64, u64)> {
    let stat = stat::stat_fd(layers.lower().root).map_err(call("look at", "lower", &TreePath::root()))?;
    Ok((stat.dev, stat.ino))
}

/// The directory that holds the lower.
pub(super) fn above(layers: &Layers) -> Result<OwnedFd> {
    at::open_path(layers.lower().root, b"..").map_err(call("go above", "lower", &TreePath::root()))
}

/// Keeps everybody from mounting the upper (K8).
pub(super) fn mark(layers: &Layers) -> Result<()> {
    let failed = |what: &'static str| call(what, "work directory", &TreePath::from_clean("work/incompat"));
    let work = open_inner(layers)?;
    match at::mkdir_at(&work, INCOMPAT, 0o700) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("make")(errno)),
    }
    let incompat = at::open_dir_path(&work, INCOMPAT).map_err(failed("open"))?;
    match at::mkdir_at(&incompat, JOURNAL, 0o700) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed("mark")(errno)),
    }
}

/// Takes the mark away; none is no error.
pub(super) fn unmark(layers: &Layers) -> Result<()> {
    let failed = |what: &'static str| call(what, "work directory", &TreePath::from_clean("work/incompat"));
    let work = open_inner(layers)?;
    let incompat = match at::open_dir_path(&work, INCOMPAT) {
        Err(Errno::NOENT) => return Ok(()),
        dir => dir.map_err(failed("open"))?,
    };
    match at::rmdir_at(&incompat, JOURNAL) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed("take the mark from")(errno)),
    }
    match at::rmdir_at(&work, INCOMPAT) {
        // Somebody else's mark.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed("remove")(errno)),
    }
}

/// `W/work`, made if it is missing.
pub(super) fn open_inner(layers: &Layers) -> Result<OwnedFd> {
    let failed = |what: &'static str| call(what, "work directory", &TreePath::from_clean("work"));
    match at::mkdir_at(layers.work().root, b"work", 0o700) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("make")(errno)),
    }
    let dir = at::open_dir_path(layers.work().root, b"work").map_err(failed("open"))?;
    // The kernel leaves it with mode 0000 (K7), which only root may enter.
    if let Err(Errno::ACCESS) = at::reopen_dir(&dir) {
        at::chmod_fd(&dir, 0o700).map_err(failed("open"))?;
    }
    Ok(dir)
}

fn read<T: DeserializeOwned>(dir: &OwnedFd, name: &[u8]) -> Result<Option<T>> {
    let file = match at::open_at(dir, name, libc::O_RDONLY | libc::O_NONBLOCK) {
        Err(Errno::NOENT) => return Ok(None),
        file => file.map_err(failed("open", name))?,
    };
    let size = stat::stat_fd(&file).map_err(failed("look at", name))?.size;
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| failed("read", name)(Errno::FBIG))?];
    let read = io::read_at(&file, &mut bytes, 0).map_err(failed("read", name))?;
    bytes.truncate(read);
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        UpperError::Refused(format!(
            "the journal {} in the work directory cannot be read: {error}",
            TreePath::from_clean(JOURNAL).join(name)
        ))
    })
}

/// Replaces a file in one step, on disk when this returns.
fn write(dir: &OwnedFd, name: &[u8], value: &impl Serialize) -> Result<()> {
    let new = [name, b".new"].concat();
    let text = serde_json::to_vec(value)
        .map_err(|error| UpperError::Refused(format!("the journal cannot be written: {error}")))?;
    let done = || -> crate::sys::Result<()> {
        match at::unlink_at(dir, &new) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let file = at::create_at(dir, &new, libc::O_WRONLY, 0o600)?;
        io::write_all_at(&file, &text, 0)?;
        io::sync(&file, false)?;
        at::rename_at(dir, &new, dir, name, RenameHow::Replace)?;
        io::sync(at::reopen_dir(dir)?, false)
    };
    done().map_err(failed("write", name))
}
