//! Looking at one name in both layers.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Overlay;
use super::dirs::Layer;
use super::merge::{self, InLower, InUpper, Source};
use super::node::{Lower, Node, NodeId};
use super::table::{Birth, LOWER_TAG};
use super::trace;
use crate::format::Marks;
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::Target;
use crate::sys::{Errno, Result};

/// A name that exists in the view.
#[derive(Debug)]
pub struct Found {
    /// Where it comes from.
    pub source: Source,
    /// Attributes of the object that shows: the upper's, or the lower's if it is alone.
    pub stat: Box<Stat>,
    /// The lower object where it takes part.
    pub lower: Option<Lower>,
    marks: Marks,
    /// The inode number that an origin mark names.
    origin: Option<u64>,
}

fn absent<T>(errno: Errno, nothing: T) -> Result<T> {
    match errno {
        // Longer than this layer allows, or below something that is no directory: not here (K25).
        Errno::NOENT | Errno::NAMETOOLONG | Errno::NOTDIR => Ok(nothing),
        errno => Err(errno),
    }
}

impl Overlay {
    /// What the upper directory of `parent` holds under `name`.
    ///
    /// # Errors
    /// EREMOTE for a mount point in the upper (K28), else as statx(2) and the xattr calls.
    pub(super) fn look_upper(&self, dir: impl AsFd, name: &[u8]) -> Result<InUpper> {
        let stat = match stat::stat_at(&dir, name) {
            Ok(stat) => stat,
            Err(errno) => return absent(errno, InUpper::Absent),
        };
        if stat.is_whiteout() {
            return Ok(InUpper::Whiteout);
        }
        if stat.mount_root {
            return Err(Errno::REMOTE);
        }
        let marks = self.marks.read(Target::At(dir.as_fd(), name))?;
        if marks.whiteout && stat.is_file() && stat.size == 0 {
            return Ok(InUpper::Whiteout);
        }
        Ok(InUpper::Object(Box::new(stat), marks))
    }

    /// What the lower directory holds under `name`.
    ///
    /// # Errors
    /// As statx(2).
    pub(super) fn look_lower(&self, dir: impl AsFd, name: &[u8]) -> Result<InLower> {
        let stat = match stat::stat_at_cached(&dir, name) {
            Ok(stat) => self.within_lower(stat),
            Err(errno) => return absent(errno, InLower::Absent),
        };
        if stat.is_whiteout() {
            return Ok(InLower::Absent);
        }
        if stat.mount_root {
            // Under a mounted file lies one that cannot be reached: as if it were not there.
            let covered = if stat.is_dir() {
                InLower::Covered(Box::new(stat))
            } else {
                InLower::Absent
            };
            return Ok(covered);
        }
        if stat.is_dir() && self.traps.contains(&(stat.dev, stat.ino)) {
            // The upper or the work directory below the lower (K4).
            return Err(Errno::LOOP);
        }
        let mut marks = Marks::default();
        if stat.is_file() {
            marks = self.marks.read(Target::At(dir.as_fd(), name))?;
            if marks.whiteout && stat.size == 0 {
                return Ok(InLower::Absent);
            }
        }
        Ok(InLower::Object(Box::new(stat), marks))
    }

    /// The attributes of a lower object as they are within its tree: a layer shares inodes with other layers, and
    /// the names there do not count (K151 then has nothing to do for a file with one name).
    pub(super) fn within_lower(&self, stat: Stat) -> Stat {
        match &self.names {
            Some(names) if !stat.is_dir() => Stat {
                nlink: names.names_of(stat.ino),
                ..stat
            },
            _ => stat,
        }
    }

    /// True if the lower shows `name` under `parent`, so that removing the name needs a whiteout (K84, K90).
    ///
    /// # Errors
    /// As statx(2).
    pub(super) fn in_lower(&self, parent: &Arc<Node>, name: &[u8]) -> Result<bool> {
        if !parent.has_lower_dir() {
            return Ok(false);
        }
        let dir = self.dirs.get(parent, Layer::Lower)?;
        Ok(self.look_lower(&*dir, name)? != InLower::Absent)
    }

    /// Looks at a name in both layers and decides what shows.
    ///
    /// # Errors
    /// ENOENT when nothing shows, EPERM for marks of unsupported features, else as the calls made.
    pub(super) fn look(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Found> {
        if name.len() > self.name_max {
            return Err(Errno::NAMETOOLONG);
        }
        let mut upper = InUpper::Absent;
        let mut upper_dir = None;
        if parent.upper().is_some() {
            let dir = self.dirs.get(parent, Layer::Upper)?;
            upper = self.look_upper(&*dir, name)?;
            upper_dir = Some(dir);
        }
        let mut lower = InLower::Absent;
        if !merge::upper_decides(&upper) && parent.has_lower_dir() {
            let dir = self.dirs.get(parent, Layer::Lower)?;
            lower = self.look_lower(&*dir, name)?;
        }
        let source = match merge::view(&upper, &lower) {
            Ok(Some(source)) => source,
            Ok(None) => {
                trace::shows(merge::nothing_words(&upper));
                return Err(Errno::NOENT);
            }
            Err(errno) => {
                log::warn!(
                    "{}: carries marks of redirect_dir or metacopy, which are not supported",
                    parent.path_of(name)
                );
                return Err(errno);
            }
        };
        let kept = match &lower {
            InLower::Absent => None,
            InLower::Object(s, _) => Some(Lower::Object {
                ino: s.ino,
                shared: !s.is_dir() && s.nlink > 1,
            }),
            InLower::Covered(s) => Some(Lower::Covered(s.clone())),
        };
        let (stat, marks) = match (upper, lower) {
            (InUpper::Object(stat, marks), _) => (stat, marks),
            (_, InLower::Object(stat, _) | InLower::Covered(stat)) => (stat, Marks::default()),
            _ => return Err(Errno::NOENT),
        };
        let mut origin = None;
        if marks.origin
            && let (Some(dir), Some(reader)) = (&upper_dir, &self.origins)
            && let Some(mark) = self.marks.read_origin(Target::At(dir.as_fd(), name))?
        {
            origin = reader.number(&mark);
        }
        let lower = if source == Source::Upper { None } else { kept };
        Ok(Found {
            source,
            stat,
            lower,
            marks,
            origin,
        })
    }

    /// The number that programs see for a lower object (K46).
    pub(super) fn lower_number(&self, ino: u64) -> u64 {
        if self.lower_dev == self.upper_dev {
            ino
        } else {
            ino | LOWER_TAG
        }
    }

    /// Gives a merged directory that was made without one an origin, as the kernel does when it meets it,
    /// so that listings show the right number there too (K45). Not having it harms nothing else.
    fn add_origin(&self, parent: &Arc<Node>, name: &[u8]) {
        let (Some(reader), true) = (&self.origins, self.work.is_some()) else {
            return;
        };
        let added = || -> Result<()> {
            let lower = self.dirs.get(parent, Layer::Lower)?;
            let upper = self.dirs.get(parent, Layer::Upper)?;
            let Some(mark) = reader.mark_for(&lower, name) else {
                return Ok(());
            };
            self.mark_impure(parent, &upper)?;
            self.marks.set_origin(Target::At(upper.as_fd(), name), &mark)
        };
        if let Err(errno) = added() {
            log::debug!("{}: no origin can be noted: {errno}", parent.path_of(name));
        }
    }

    /// What a node for a found name starts with.
    pub(super) fn birth(&self, found: &Found) -> Birth {
        let upper = (found.source != Source::Lower).then_some(found.stat.ino);
        let (number, from_origin) = match (&found.lower, found.origin) {
            (Some(Lower::Object { ino, .. }), _) => (self.lower_number(*ino), false),
            (Some(Lower::Covered(stat)), _) => (self.lower_number(stat.ino), false),
            (None, Some(origin)) => (self.lower_number(origin), !found.stat.is_dir()),
            (None, None) => (found.stat.ino, false),
        };
        Birth {
            kind: found.stat.kind(),
            number,
            upper,
            upper_shared: upper.is_some() && !found.stat.is_dir() && found.stat.nlink > 1,
            from_origin,
            lower: found.lower.clone(),
            impure: found.marks.impure,
        }
    }

    /// Finds a name and counts the kernel's new reference to it (FUSE LOOKUP).
    ///
    /// # Errors
    /// ENOENT; EPERM (K26, K27); else as the calls made.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<(Arc<Node>, Stat)> {
        let parent = self.node(parent)?;
        self.lookup_in(&parent, name)
    }

    pub(super) fn lookup_in(&self, parent: &Arc<Node>, name: &[u8]) -> Result<(Arc<Node>, Stat)> {
        if let Some(node) = self.nodes.find_counted(parent.id, name) {
            match self.attributes(&node) {
                Ok(stat) => return Ok((node, stat)),
                Err(errno) => {
                    self.forget(node.id, 1);
                    if errno != Errno::NOENT && errno != Errno::STALE {
                        return Err(errno);
                    }
                    // A layer was changed behind our back: what was known of the name is void.
                    log::warn!("{}: changed outside the view", node.path());
                    self.nodes.disown(parent.id, name);
                }
            }
        }
        let found = self.look(parent, name)?;
        let node = self.nodes.insert(parent, name, self.birth(&found));
        log::debug!("lookup {}: {}", parent.path_of(name), found.source.words());
        trace::shows(found.source.words());
        if found.source == Source::Merged && !found.marks.origin {
            self.add_origin(parent, name);
        }
        let stat = self.shown(&node, *found.stat);
        Ok((node, stat))
    }
}
