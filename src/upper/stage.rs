//! Making every new object before its name is touched.
//!
//! All objects are made in *slots*, one for each name that changes, in a directory from which a rename to the lower is
//! one step: in the work directory if the lower is on the same mount, else beside the lower, else in the lower itself.
//! A full disk or a file that cannot be read is met here, where nothing has been changed yet.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::error::call;
use super::journal::{Attributes, DirStep, Journal, Known, Place, Record, Step, above};
use super::layers::Layers;
use super::plan::{Move, Plan};
use super::reach::{Tree, look_in};
use super::{Result, UpperError};
use crate::builder::manifest::Text;
use crate::builder::{BuildError, Kind, Meta, Progress, TreePath};
use crate::mount::place::Place as Where;
use crate::sys::at::{self, RenameHow};
use crate::sys::copy::copy_data;
use crate::sys::stat::{self, Stat, Time};
use crate::sys::xattr::Target;
use crate::sys::{Errno, io};

/// Where to make the slots for this plan.
pub(super) fn place(layers: &Layers) -> Result<Place> {
    let device = |dir: BorrowedFd<'_>| {
        let failed = call("look at", "lower", &TreePath::root());
        Ok::<_, UpperError>(stat::stat_fd(dir).map_err(failed)?.dev)
    };
    let lower = layers.lower().root;
    if layers.idle.one_mount && device(lower)? == device(layers.work().root)? {
        return Ok(Place::Work);
    }
    let above = above(layers)?;
    let mount = |dir: BorrowedFd<'_>| {
        Where::of(dir, &[])
            .map(|place| (place.mount, place.path))
            .map_err(call("look at", "lower", &TreePath::root()))
    };
    let ((own, path), (parent, parent_path)) = (mount(lower)?, mount(above.as_fd())?);
    // The directory above the root is the root.
    if own == parent && path != parent_path && device(lower)? == device(above.as_fd())? {
        return Ok(Place::Beside(slots_name()));
    }
    Ok(Place::Inside(Text::default(), slots_name()))
}

/// Up to how many new objects are brought to disk one by one. For more it is quicker to bring the whole file system to
/// disk, with whatever others have written there.
const ONE_BY_ONE: usize = 500;

/// A name that nobody can have guessed.
fn slots_name() -> String {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    format!(".plyfs-apply-{:016x}", hasher.finish())
}

/// Makes the directory of the slots, where it may be made, and tries what is needed there.
pub(super) fn open_slots(layers: &Layers, plan: &Plan, journal: &mut Journal) -> Result<OwnedFd> {
    let inside = |journal: &mut Journal| {
        let common = Text(plan.common().as_bytes().to_vec());
        journal.move_to(Place::Inside(common, slots_name()))
    };
    if matches!(journal.state.place, Place::Inside(..)) {
        inside(journal)?;
    }
    let slots = match journal.make_slots(layers) {
        Err(UpperError::Call {
            errno: Errno::ACCESS | Errno::PERM | Errno::ROFS,
            ..
        }) if matches!(journal.state.place, Place::Beside(_)) => {
            inside(journal)?;
            journal.make_slots(layers)
        }
        slots => slots,
    }?;
    let [a, b] = [b"a".as_slice(), b"b"];
    let tried = || -> crate::sys::Result<()> {
        at::mkdir_at(&slots, a, 0o700)?;
        at::mkdir_at(&slots, b, 0o700)?;
        at::rename_at(&slots, a, &slots, b, RenameHow::Exchange)?;
        at::rmdir_at(&slots, a)?;
        at::rmdir_at(&slots, b)
    };
    tried().map_err(|errno| match errno {
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => UpperError::Refused(format!(
            "the file system of {} cannot exchange two names (RENAME_EXCHANGE: {errno}), so that changes could not be \
             applied in single steps: copy the lower to ext4, xfs, btrfs or tmpfs",
            layers.idle.paths[0].display()
        )),
        errno => call("use the slots for", "lower", &TreePath::root())(errno),
    })?;
    Ok(slots)
}

/// After which time nobody may have changed what the plan changes, and what has another change time for another reason.
pub(super) struct Since<'a> {
    pub(super) time: Time,
    pub(super) known: HashMap<&'a TreePath, Time>,
}

impl Since<'_> {
    fn is_changed(&self, path: &TreePath, ctime: Time) -> bool {
        ctime > self.time && self.known.get(path) != Some(&ctime)
    }
}

/// Makes all objects.
pub(super) fn stage(
    layers: &Layers,
    plan: &Plan,
    slots: BorrowedFd<'_>,
    since: Option<&Since<'_>>,
    progress: &dyn Progress,
) -> Result<Record> {
    let objects = plan
        .moves
        .iter()
        .fold(0_usize, |all, one| all.saturating_add(one.brings.len()));
    let mut stager = Stager {
        layers,
        slots,
        groups: HashMap::new(),
        one_by_one: objects <= ONE_BY_ONE,
        progress,
    };
    let mut record = Record::default();
    progress.begin("making the new objects", None);
    for (number, change) in plan.moves.iter().enumerate() {
        record
            .steps
            .push(stager.change(number, change, plan.whole, since)?);
    }
    for path in &plan.touched {
        let told = plan.attributes.contains(path);
        record.dirs.push(stager.directory(path, told)?);
    }
    let failed = || call("bring to disk", "new objects", &TreePath::root());
    if stager.one_by_one {
        io::sync(slots, false).map_err(failed())?;
    } else {
        io::sync_fs(slots).map_err(failed())?;
    }
    Ok(record)
}

struct Stager<'a> {
    layers: &'a Layers,
    slots: BorrowedFd<'a>,
    /// Files of several names, and where in the slots the first one is.
    groups: HashMap<(u64, u64), TreePath>,
    /// Each object is brought to disk by itself.
    one_by_one: bool,
    progress: &'a dyn Progress,
}

/// The name of a slot.
pub(super) fn slot_name(number: usize) -> Vec<u8> {
    number.to_string().into_bytes()
}

impl Stager<'_> {
    fn change(
        &mut self,
        number: usize,
        change: &Move,
        whole: bool,
        since: Option<&Since<'_>>,
    ) -> Result<Step> {
        let slot = TreePath::root().join(&slot_name(number));
        let lower = self.layers.lower();
        let (dir, name) = lower.parent(&change.path)?;
        let old = look_in(dir.as_fd(), name).map_err(call("look at", "lower", &change.path))?;
        if let Some(since) = since {
            self.unchanged(change, &old, dir.as_fd(), name, since)?;
        }
        if old.is_some_and(|old| old.mount_root) {
            return Err(UpperError::Refused(format!(
                "{} of the lower: something is mounted there; unmount it first",
                change.path
            )));
        }
        let new = if change.goes {
            None
        } else {
            let mut directories = Vec::new();
            for (path, kind) in &change.brings {
                if self.progress.stopped() {
                    return Err(BuildError::Interrupted.into());
                }
                self.progress.advance(1);
                let below: Vec<&[u8]> = path.names().skip(change.path.names().count()).collect();
                let to = below.into_iter().fold(slot.clone(), |to, name| to.join(name));
                if *kind == Kind::Directory {
                    self.make_directory(path, &to)?;
                    directories.push((path, to));
                } else {
                    self.copy(path, &to)?;
                }
            }
            // Last, and from the inside out: its times, and the right to make something in it.
            for (path, to) in directories.iter().rev() {
                self.finish_directory(path, to)?;
            }
            let made = stat::stat_at(self.slots, &slot_name(number));
            Some(Known::of(&made.map_err(call(
                "look at",
                "new object",
                &change.path,
            ))?))
        };
        let taken = !whole && !change.partial && self.may_be_taken(&change.path)?;
        Ok(Step::new(&change.path, old.as_ref().map(Known::of), new, taken))
    }

    fn new_tree(&self) -> Tree<'_> {
        Tree {
            root: self.slots,
            name: "new objects",
        }
    }

    fn make_directory(&self, path: &TreePath, to: &TreePath) -> Result<()> {
        let (dir, name) = self.new_tree().parent(to)?;
        at::mkdir_at(dir, name, 0o700).map_err(call("make a copy of", "upper", path))
    }

    fn finish_directory(&self, path: &TreePath, to: &TreePath) -> Result<()> {
        let failed = || call("copy the attributes of", "upper", path);
        let from = self.layers.upper().dir(path)?;
        let stat = stat::stat_fd(&from).map_err(failed())?;
        let mut meta = Meta::read(Target::Fd(from.as_fd()), &stat).map_err(failed())?;
        meta.xattrs = self.layers.shown(std::mem::take(&mut meta.xattrs));
        let made = self.new_tree().dir(to)?;
        // Before it may get a mode that forbids it.
        let open = at::reopen_dir(&made).map_err(failed())?;
        meta.give_fd(&made).map_err(failed())?;
        if self.one_by_one {
            io::sync(&open, false).map_err(failed())?;
        }
        Ok(())
    }

    /// Copies what is no directory, or links it to its copy.
    fn copy(&mut self, path: &TreePath, to: &TreePath) -> Result<()> {
        let failed = || call("copy", "upper", path);
        let (dir, name) = self.layers.upper().parent(path)?;
        let (to_dir, to_name) = self.new_tree().parent(to)?;
        let stat = stat::stat_at(&dir, name).map_err(failed())?;
        let id = (stat.dev, stat.ino);
        if let Some(first) = self.groups.get(&id) {
            let (first_dir, first_name) = self.new_tree().parent(first)?;
            match at::link_at(&first_dir, first_name, &to_dir, to_name) {
                // As many as the file system allows: a copy of its own.
                Err(Errno::MLINK) => {}
                done => return done.map_err(failed()),
            }
        }
        self.copy_object(&dir, name, &stat, &to_dir, to_name).map_err(|errno| match errno {
            Errno::PERM if matches!(stat.kind(), libc::S_IFCHR | libc::S_IFBLK) => UpperError::Refused(format!(
                "{path} is a device, which this user may not make in the lower: apply as root, or drop it first"
            )),
            errno => failed()(errno),
        })?;
        if stat.nlink > 1 {
            self.groups.insert(id, to.clone());
        }
        let after = stat::stat_at(&dir, name).map_err(failed())?;
        let same =
            |a: &Stat, b: &Stat| (a.ino, a.size, a.mtime, a.ctime) == (b.ino, b.size, b.mtime, b.ctime);
        if same(&stat, &after) {
            return Ok(());
        }
        Err(UpperError::Changed {
            path: path.clone(),
            how: "it was written in the upper while it was copied",
        })
    }

    fn copy_object(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        to_dir: &OwnedFd,
        to_name: &[u8],
    ) -> crate::sys::Result<()> {
        let kind = Kind::of_mode(stat.mode)?;
        let made = match kind {
            Kind::File => {
                let from = at::open_data(dir, name)?;
                let made = at::create_at(to_dir, to_name, libc::O_RDWR, 0o600)?;
                copy_data(&from, &made, stat.size)?;
                made
            }
            Kind::Symlink => {
                let text = at::readlink_at(dir, name)?;
                at::symlink_at(&text, to_dir, to_name)?;
                at::open_path(to_dir, to_name)?
            }
            _ => {
                at::mknod_at(to_dir, to_name, kind.bits() | 0o600, stat.rdev)?;
                at::open_path(to_dir, to_name)?
            }
        };
        let mut meta = Meta::read(Target::At(dir.as_fd(), name), stat)?;
        meta.xattrs = self.layers.shown(std::mem::take(&mut meta.xattrs));
        meta.give_fd(&made)?;
        // What is no file is on disk with its directory.
        if self.one_by_one && kind == Kind::File {
            io::sync(&made, false)?;
        }
        Ok(())
    }

    /// The upper's object can go once the lower has it: unless a directory above hides the lower's.
    fn may_be_taken(&self, path: &TreePath) -> Result<bool> {
        let upper = self.layers.upper();
        let mut here = TreePath::root();
        let names: Vec<&[u8]> = path.names().collect();
        for name in names.split_last().map_or(&[][..], |(_, above)| above) {
            here = here.join(name);
            let dir = upper.dir(&here)?;
            if self.layers.marks(Target::Fd(dir.as_fd()), &here)?.opaque {
                return Ok(false);
            }
        }
        Ok(upper.look(path)?.is_some())
    }

    /// The attributes of a directory before and after.
    fn directory(&self, path: &TreePath, told: bool) -> Result<DirStep> {
        let read = |tree: Tree<'_>| -> Result<Meta> {
            let failed = || call("read the attributes of", tree.name, path);
            let dir = tree.dir(path)?;
            let stat = stat::stat_fd(&dir).map_err(failed())?;
            Meta::read(Target::Fd(dir.as_fd()), &stat).map_err(failed())
        };
        let (below, above) = (read(self.layers.lower())?, read(self.layers.upper())?);
        let old = Attributes::of(&below, &below.xattrs);
        // What means something to overlays only is no part of the view, and stays.
        let mut xattrs = self.layers.shown(above.xattrs.clone());
        let marks = below
            .xattrs
            .iter()
            .filter(|one| self.layers.is_private(&one.name));
        xattrs.extend(marks.cloned());
        xattrs.sort_unstable();
        let shown = Attributes::of(&above, &xattrs);
        let new = if told { shown } else { old.with_times_of(&shown) };
        Ok(DirStep::new(path, old, new))
    }

    /// Refuses what somebody changed in the lower after `since`.
    fn unchanged(
        &self,
        change: &Move,
        old: &Option<Stat>,
        dir: BorrowedFd<'_>,
        name: &[u8],
        since: &Since<'_>,
    ) -> Result<()> {
        let changed = |path: &TreePath, how| {
            Err(UpperError::Changed {
                path: path.clone(),
                how,
            })
        };
        let Some(old) = old else {
            // It came from the lower, and is not there any more.
            let above = stat::stat_fd(dir).map_err(call("look at", "lower", &change.path))?;
            let (upper, name) = self.layers.upper().parent(&change.path)?;
            let marks = self.layers.marks(Target::At(upper.as_fd(), name), &change.path)?;
            let (parent, _) = change.path.split().unwrap_or_default();
            if marks.origin && since.is_changed(&parent, above.ctime) {
                return changed(&change.path, "it was removed from the lower underneath");
            }
            return Ok(());
        };
        if since.is_changed(&change.path, old.ctime) {
            return changed(&change.path, "it was changed in the lower underneath");
        }
        if old.is_dir() {
            let inner = at::open_dir_path(dir, name).map_err(call("open", "lower", &change.path))?;
            let mut walk = crate::builder::Walk::new(inner.as_fd())?;
            while let Some(step) = walk.advance()? {
                let path = step.path();
                let stat = stat::stat_at(step.dir, step.name).map_err(call("look at", "lower", &path))?;
                if stat.ctime > since.time {
                    let whole = path
                        .names()
                        .fold(change.path.clone(), |whole, name| whole.join(name));
                    return changed(&whole, "it was changed in the lower underneath");
                }
                if step.kind == Kind::Directory {
                    walk.enter()?;
                }
            }
        }
        Ok(())
    }
}
