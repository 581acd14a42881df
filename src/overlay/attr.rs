//! Attributes: showing them and changing them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Overlay;
use super::dirs::Layer;
use super::lowers::tagged;
use super::node::{Link, Lower, Node, NodeId, OpenFile, ROOT, State};
use crate::sys::at::{self, SetTime};
use crate::sys::caller::Caller as Process;
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::Target;
use crate::sys::{Errno, Result, io};
use std::os::fd::AsFd;

/// How often a name is looked for again when it moves while we reach for it.
const TRIES: usize = 8;

/// Where the real object of a node is.
#[derive(Debug)]
pub(super) enum Place {
    /// Open.
    Fd(Arc<OwnedFd>),
    /// Under a name in an open directory.
    At(Arc<OwnedFd>, Arc<Link>),
}

/// The real object of a node: where it is, and how to know that it is the one.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) layer: Layer,
    /// The number of the object expected, and the tag that makes it of an inode number of this layer.
    number: u64,
    tag: u64,
}

impl Spot {
    /// Checks that an object just reached is the expected one, and not another that got its name meanwhile.
    pub(super) fn check(&self, stat: &Stat) -> Result<()> {
        if tagged(self.tag, stat.ino) == self.number {
            Ok(())
        } else {
            Err(Errno::STALE)
        }
    }
}

impl Place {
    /// The object as a target of the xattr calls.
    pub(super) fn target(&self) -> Target<'_> {
        match self {
            Self::Fd(fd) => Target::Fd(fd.as_fd()),
            Self::At(dir, link) => Target::At(dir.as_fd(), &link.name),
        }
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        match self {
            Self::Fd(fd) => stat::stat_fd(fd),
            Self::At(dir, link) => stat::stat_at_cached(dir, &link.name),
        }
    }

    /// The object as an `O_PATH` descriptor.
    pub(super) fn open_path(&self) -> Result<Arc<OwnedFd>> {
        match self {
            Self::Fd(fd) => Ok(Arc::clone(fd)),
            Self::At(dir, link) => at::open_path(dir, &link.name).map(Arc::new),
        }
    }
}

/// New owner and group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ownership {
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
}

/// What a caller wants changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner, new group.
    pub ownership: Ownership,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: SetTime,
    /// New modification time.
    pub mtime: SetTime,
}

/// The mode without the bits that a write by an ordinary user drops (K103); `None` if nothing changes.
///
/// Setgid without group execution marks a file for mandatory locking; only a member of the group keeps it.
fn without_suid(mode: u32, in_group: impl FnOnce() -> bool) -> Option<u32> {
    let mut drop = libc::S_ISUID;
    if mode & libc::S_ISGID != 0 && (mode & libc::S_IXGRP != 0 || !in_group()) {
        drop |= libc::S_ISGID;
    }
    (mode & drop != 0).then_some(mode & !drop)
}

impl Overlay {
    /// Where the object that shows is now.
    ///
    /// # Errors
    /// ESTALE for an object without a name that nobody has open.
    pub(super) fn spot(&self, node: &Arc<Node>) -> Result<Spot> {
        let (link, upper, lower, open, kept) = {
            let mut state = node.state();
            let link = state.links.first().cloned();
            let open = if link.is_none() {
                first_open(&mut state)
            } else {
                None
            };
            (link, state.upper, state.lower.clone(), open, state.kept.clone())
        };
        let (layer, number, tag) = match (upper, lower) {
            (Some(ino), _) => (Layer::Upper, ino, 0),
            (None, Some(Lower::Object { number, parts, .. })) => (
                Layer::Lower(parts.first()),
                number,
                self.lowers.tag(parts.first()),
            ),
            (None, Some(Lower::Covered(layer, stat))) => (Layer::Lower(layer), stat.ino, 0),
            (None, None) => return Err(Errno::STALE),
        };
        let spot = |place| Spot {
            place,
            layer,
            number,
            tag,
        };
        if let (None, Some(fd)) = (&link, kept) {
            return Ok(spot(Place::Fd(fd)));
        }
        let place = match (node.id == ROOT, link, open) {
            (true, ..) => Place::Fd(self.dirs.get(node, layer)?),
            (false, Some(link), _) => Place::At(self.dirs.get(&link.parent, layer)?, link),
            (false, None, Some(open)) => Place::Fd(open.file()),
            (false, None, None) => return Err(Errno::STALE),
        };
        Ok(spot(place))
    }

    /// Runs `call` on the object of a node, again if the name moved in between.
    ///
    /// `call` must report ESTALE or ENOENT when it did not find the object expected.
    pub(super) fn at_spot<T>(&self, node: &Arc<Node>, mut call: impl FnMut(&Spot) -> Result<T>) -> Result<T> {
        let mut tries = TRIES;
        loop {
            let spot = self.spot(node)?;
            match call(&spot) {
                Err(Errno::NOENT | Errno::STALE) if tries > 0 => tries -= 1,
                done => return done,
            }
        }
    }

    /// The attributes as programs see them, from the real object's.
    pub(super) fn shown(&self, node: &Node, stat: Stat) -> Stat {
        let state = node.state();
        let merged = node.is_dir() && state.is_merged();
        let nlink = match (&state.removed, merged) {
            (Some(_), _) => 0,
            (None, true) => 1,
            (None, false) => stat.nlink,
        };
        Stat {
            ino: state.number,
            nlink,
            ..stat
        }
    }

    /// The attributes of a node as programs see them.
    ///
    /// # Errors
    /// ESTALE or ENOENT when the object was taken away outside the view; else as statx(2).
    pub fn attributes(&self, node: &Arc<Node>) -> Result<Stat> {
        let known = {
            let mut state = node.state();
            match (&state.removed, &state.lower, state.upper) {
                (Some(removed), ..) => {
                    let removed = **removed;
                    let reachable = state.kept.is_some() || first_open(&mut state).is_some();
                    (!reachable).then_some(removed)
                }
                (None, Some(Lower::Covered(_, stat)), None) => Some(**stat),
                _ => None,
            }
        };
        let stat = match known {
            Some(stat) => stat,
            None => self.at_spot(node, |spot| {
                let stat = spot.place.stat()?;
                spot.check(&stat)?;
                let stat = self.told(spot.layer, spot.place.target(), stat)?;
                Ok(match spot.layer {
                    Layer::Lower(_) => self.lowers.within(stat),
                    Layer::Upper => stat,
                })
            })?,
        };
        Ok(self.shown(node, stat))
    }

    /// Attributes by id (FUSE GETATTR).
    ///
    /// # Errors
    /// As [`Overlay::attributes`].
    pub fn getattr(&self, id: NodeId) -> Result<Stat> {
        self.attributes(&self.node(id)?)
    }

    /// The text of a symlink.
    ///
    /// # Errors
    /// As readlinkat(2).
    pub fn readlink(&self, id: NodeId) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        self.at_spot(&node, |spot| match &spot.place {
            Place::At(dir, link) => at::readlink_at(dir, &link.name),
            Place::Fd(fd) => at::readlink_at(fd, b""),
        })
    }

    /// An open descriptor of the upper object, after a copy-up where needed.
    ///
    /// # Errors
    /// As [`Overlay::copy_up`]; ESTALE when the object is not to be found.
    pub(super) fn upper_object(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        self.copy_up(node, None)?;
        self.at_spot(node, |spot| {
            let fd = spot.place.open_path()?;
            spot.check(&stat::stat_fd(&fd)?)?;
            Ok(fd)
        })
    }

    /// Changes attributes (FUSE SETATTR); answers the new ones. `pid` is the caller's.
    ///
    /// # Errors
    /// EROFS for a read-only view; what copy-up or the calls on the upper object return.
    pub fn setattr(&self, id: NodeId, changes: &Changes, open: Option<&OpenFile>, pid: u32) -> Result<Stat> {
        let node = self.node(id)?;
        // A file open for reading may be the lower's still.
        let open = open.filter(|open| open.writes);
        if changes.size.is_some() && open.is_none() {
            refuse_if_run(&node)?;
        }
        // The answer has the new attributes, if there is one.
        let copied = self.copy_up_untold(&node, changes.size)?;
        let changed = self.change(&node, changes, open, pid);
        if copied && (changed.is_err() || node.is_renewed()) {
            self.attributes_changed(&node);
        } else {
            self.changed_as(id, &node);
        }
        changed
    }

    fn change(&self, node: &Arc<Node>, changes: &Changes, open: Option<&OpenFile>, pid: u32) -> Result<Stat> {
        let fd = match open {
            Some(open) => open.file(),
            None if changes.size.is_some() => self.open_upper(node, libc::O_WRONLY)?,
            None => self.upper_object(node)?,
        };
        if let Some(size) = changes.size {
            match open {
                Some(_) => io::truncate(&fd, size)?,
                None => io::truncate_path(&fd, size)?,
            }
            self.drop_suid(node, &fd, pid)?;
        }
        let Ownership { uid, gid } = changes.ownership;
        // A request that changes nothing is how chown(2) without ids arrives, which drops setuid bits all the
        // same; or it follows the removal of a capability by a write, and then it means nothing.
        let nothing = changes.mode.is_none()
            && changes.size.is_none()
            && (changes.atime, changes.mtime) == (SetTime::Keep, SetTime::Keep)
            && !node.capability_removed.swap(false, Ordering::Relaxed);
        if uid.is_some() || gid.is_some() || nothing {
            self.set_owner(&fd, uid, gid)?;
        }
        if let Some(mode) = changes.mode {
            self.set_mode(&fd, mode)?;
        }
        if (changes.atime, changes.mtime) != (SetTime::Keep, SetTime::Keep) {
            at::set_times_fd(&fd, changes.atime, changes.mtime)?;
        }
        Ok(self.shown(node, self.upper_stat(&fd)?))
    }

    /// Drops setuid and setgid for a change of the data, unless the caller may keep them (K103).
    pub(super) fn drop_suid(&self, node: &Node, fd: impl AsFd, pid: u32) -> Result<()> {
        let stat = self.upper_stat(&fd)?;
        if stat.mode & (libc::S_ISUID | libc::S_ISGID) == 0 {
            return Ok(());
        }
        let caller = Process::read(pid);
        match without_suid(stat.mode, || caller.in_group(self.group_of_callers(stat.gid))) {
            Some(mode) if !caller.keeps_suid() => {
                self.set_mode(&fd, mode)?;
                self.attributes_changed(node);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A file that is still open, in the layer that counts; and the list without those that are not open.
pub(super) fn first_open(state: &mut State) -> Option<Arc<OpenFile>> {
    state.open.retain(|file| file.strong_count() > 0);
    let on_lower = state.upper.is_none();
    state
        .open
        .iter()
        .filter_map(std::sync::Weak::upgrade)
        .find(|file| file.on_lower() == on_lower)
}

/// Refuses to change a program that is being run under another id than the one asked for; the kernel knows of
/// those under the same id (K113).
///
/// # Errors
/// ETXTBSY.
pub(super) fn refuse_if_run(node: &Node) -> Result<()> {
    if node.is_renewed() && is_run(&mut node.state().open) {
        Err(Errno::TXTBSY)
    } else {
        Ok(())
    }
}

/// True if a program is being run from one of the open files.
pub(super) fn is_run(open: &mut Vec<std::sync::Weak<OpenFile>>) -> bool {
    open.retain(|file| file.strong_count() > 0);
    open.iter()
        .filter_map(std::sync::Weak::upgrade)
        .any(|file| file.runs)
}

#[cfg(test)]
mod tests {
    use super::without_suid;

    #[test]
    fn k103_which_bits_a_write_drops() {
        let member = |mode| without_suid(mode, || true);
        let stranger = |mode| without_suid(mode, || false);
        assert_eq!(member(0o104777), Some(0o100777));
        assert_eq!(member(0o106755), Some(0o100755));
        assert_eq!(member(0o102644), None);
        assert_eq!(stranger(0o102644), Some(0o100644));
        assert_eq!(stranger(0o100755), None);
    }
}
