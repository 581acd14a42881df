//! Looking at one name in all layers.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Overlay;
use super::dirs::Layer;
use super::lowers::tagged;
use super::merge::{self, Gathered, InLower, InUpper, Source};
use super::node::{Lower, Node, NodeId, Parts};
use super::table::Birth;
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
    /// Attributes of the object that shows: the upper's, or the topmost lower's that has it.
    pub stat: Box<Stat>,
    /// The lower object where it takes part.
    pub lower: Option<Lower>,
    marks: Marks,
    /// The number that programs see for the inode that an origin mark names.
    origin: Option<u64>,
}

impl Found {
    /// Where it comes from, in words; with several lowers, from which of them, the topmost being the first.
    fn words(&self, lowers: usize) -> Cow<'static, str> {
        let several = lowers > 1 && self.source != Source::Upper;
        match &self.lower {
            Some(Lower::Object { parts, .. }) if several => {
                let numbers: Vec<_> = parts
                    .iter()
                    .map(|layer| (u32::from(layer) + 1).to_string())
                    .collect();
                let which = if parts.are_several() { "lowers" } else { "lower" };
                Cow::Owned(format!(
                    "{} ({which} {})",
                    self.source.words(),
                    numbers.join(", ")
                ))
            }
            _ => Cow::Borrowed(self.source.words()),
        }
    }
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
        let marks = self.read_marks(Target::At(dir.as_fd(), name))?;
        if marks.whiteout && stat.is_file() && stat.size == 0 {
            return Ok(InUpper::Whiteout);
        }
        Ok(InUpper::Object(Box::new(stat), marks))
    }

    /// What the directory `dir` of a lower holds under `name`. `lowest` says that no lower below it is going to be
    /// asked, so that marks on a directory have no effect.
    ///
    /// # Errors
    /// ELOOP for the upper and the work directory (K4); else as statx(2) and the xattr calls.
    pub(super) fn look_lower(&self, dir: impl AsFd, name: &[u8], lowest: bool) -> Result<InLower> {
        let stat = match stat::stat_at_cached(&dir, name) {
            Ok(stat) => self.lowers.within(stat),
            Err(errno) => return absent(errno, InLower::Absent),
        };
        if stat.is_whiteout() {
            return Ok(InLower::Whiteout);
        }
        if stat.mount_root {
            // Under a mounted file lies one that cannot be reached: as if it were not there.
            let covered = if stat.is_dir() {
                InLower::Covered(Box::new(stat))
            } else {
                InLower::Whiteout
            };
            return Ok(covered);
        }
        if stat.is_dir() && self.traps.contains(&(stat.dev, stat.ino)) {
            // The upper or the work directory below the lower (K4).
            return Err(Errno::LOOP);
        }
        let mut marks = Marks::default();
        if stat.is_file() || stat.is_dir() && !lowest {
            marks = self.read_marks(Target::At(dir.as_fd(), name))?;
            if marks.whiteout && stat.is_file() && stat.size == 0 {
                return Ok(InLower::Whiteout);
            }
        }
        Ok(InLower::Object(Box::new(stat), marks))
    }

    /// What the lowers that take part in `parent` hold under `name`, together (K36). Those above `top` are known not to
    /// have it.
    ///
    /// # Errors
    /// As [`Overlay::look_lower`]; EPERM for a directory of a lower that takes its content from elsewhere (K26).
    pub(super) fn look_lowers(
        &self,
        parent: &Arc<Node>,
        parts: &Parts,
        name: &[u8],
        top: u16,
    ) -> Result<Gathered> {
        let mut gathered = Gathered::default();
        let lowest = parts.last();
        // The lowest so far whose directory takes part, and may hold the mark that makes it opaque: looked at only if
        // there is something that it could hide.
        let mut above: Option<Arc<OwnedFd>> = None;
        for layer in parts.iter().filter(|layer| *layer >= top) {
            let dir = self.dirs.get(parent, Layer::Lower(layer))?;
            let next = self.look_lower(&*dir, name, layer == lowest)?;
            if next != InLower::Absent
                && let Some(above) = &above
                && self.is_marked_opaque(&**above, name)?
            {
                break;
            }
            let is_dir = matches!(&next, InLower::Object(stat, _) if stat.is_dir());
            if !gathered.take(layer, next)? {
                break;
            }
            if layer != lowest && self.is_marked_hidden(parent, layer, &dir, name)? {
                if gathered.found == InLower::Absent {
                    (gathered.found, gathered.first) = (InLower::Whiteout, layer);
                }
                break;
            }
            if is_dir {
                above = Some(dir);
            }
        }
        Ok(gathered)
    }

    /// True if a lower shows `name` under `parent`, so that removing the name needs a whiteout (K84, K90).
    ///
    /// # Errors
    /// As statx(2).
    pub(super) fn in_lower(&self, parent: &Arc<Node>, name: &[u8]) -> Result<bool> {
        let Some(parts) = parent.parts() else {
            return Ok(false);
        };
        for layer in parts.iter() {
            let dir = self.dirs.get(parent, Layer::Lower(layer))?;
            match self.look_lower(&*dir, name, true)? {
                InLower::Absent if layer == parts.last() => {}
                InLower::Absent if self.is_marked_hidden(parent, layer, &dir, name)? => return Ok(false),
                InLower::Absent => {}
                topmost => return Ok(topmost.shows()),
            }
        }
        Ok(false)
    }

    /// Looks at a name in all layers and decides what shows.
    ///
    /// # Errors
    /// ENOENT when nothing shows, EPERM for marks of unsupported features, else as the calls made.
    pub(super) fn look(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Found> {
        self.look_from(parent, name, 0)
    }

    /// As [`Overlay::look`], for a name that a listing met: no lower above `top` has it.
    pub(super) fn look_from(&self, parent: &Arc<Node>, name: &[u8], top: u16) -> Result<Found> {
        if name.len() > self.name_max {
            return Err(Errno::NAMETOOLONG);
        }
        if self.is_mark(name) {
            return Err(Errno::NOENT);
        }
        let mut upper = InUpper::Absent;
        let mut upper_dir = None;
        if parent.upper().is_some() {
            let dir = self.dirs.get(parent, Layer::Upper)?;
            upper = self.look_upper(&*dir, name)?;
            upper_dir = Some(dir);
        }
        let mut lower = Ok(Gathered::default());
        if !merge::upper_decides(&upper)
            && let Some(parts) = parent.parts()
        {
            lower = self.look_lowers(parent, &parts, name, top);
        }
        let seen = lower.and_then(|lower| Ok((merge::view(&upper, &lower.found)?, lower)));
        let (source, lower) = match seen {
            Ok((Some(source), lower)) => (source, lower),
            Ok((None, lower)) => {
                trace::shows(|| Cow::Borrowed(merge::nothing_words(&upper, &lower.found)));
                return Err(Errno::NOENT);
            }
            Err(errno) => {
                if errno == Errno::PERM {
                    log::warn!(
                        "{}: carries marks of redirect_dir or metacopy, which are not supported",
                        parent.path_of(name)
                    );
                }
                return Err(errno);
            }
        };
        let kept = match &lower.found {
            InLower::Absent | InLower::Whiteout => None,
            InLower::Object(s, _) => Some(Lower::Object {
                number: self.lowers.number(lower.first, s.ino),
                shared: !s.is_dir() && s.nlink > 1,
                parts: Parts::new(lower.first, &lower.further),
            }),
            InLower::Covered(s) => Some(Lower::Covered(lower.first, s.clone())),
        };
        let shown = Layer::Lower(lower.first);
        let (stat, marks) = match (upper, lower.found) {
            (InUpper::Object(stat, marks), _) => (self.told_at(Layer::Upper, parent, name, stat)?, marks),
            (_, InLower::Object(stat, _)) => (self.told_at(shown, parent, name, stat)?, Marks::default()),
            (_, InLower::Covered(stat)) => (stat, Marks::default()),
            _ => return Err(Errno::NOENT),
        };
        let mut origin = None;
        if marks.origin
            && let Some(dir) = &upper_dir
            && let Some(mark) = self.marks.read_origin(Target::At(dir.as_fd(), name))?
        {
            origin = self.lowers.origin(&mark).map(|(tag, ino)| tagged(tag, ino));
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

    /// Gives a merged directory that was made without one an origin, as the kernel does when it meets it,
    /// so that listings show the right number there too (K45). Not having it harms nothing else.
    fn add_origin(&self, parent: &Arc<Node>, name: &[u8], found: &Found) {
        let Some(Lower::Object { parts, .. }) = &found.lower else {
            return;
        };
        let layer = parts.first();
        if self.work.is_none() || !self.lowers.has_origins(layer) {
            return;
        }
        let added = || -> Result<()> {
            let lower = self.dirs.get(parent, Layer::Lower(layer))?;
            let upper = self.dirs.get(parent, Layer::Upper)?;
            let Some(mark) = self.lowers.mark_for(layer, &lower, name) else {
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
            (Some(Lower::Object { number, .. }), _) => (*number, false),
            (Some(Lower::Covered(layer, stat)), _) => (self.lowers.number(*layer, stat.ino), false),
            (None, Some(origin)) => (origin, !found.stat.is_dir()),
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
        self.lookup_from(parent, name, 0)
    }

    /// As [`Overlay::lookup`], for a name that a listing met: no lower above `top` has it.
    pub(super) fn lookup_from(&self, parent: &Arc<Node>, name: &[u8], top: u16) -> Result<(Arc<Node>, Stat)> {
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
        let found = self.look_from(parent, name, top)?;
        let node = self.nodes.insert(parent, name, self.birth(&found));
        let words = || found.words(self.lowers.count());
        log::debug!("lookup {}: {}", parent.path_of(name), words());
        trace::shows(words);
        if found.source == Source::Merged && !found.marks.origin {
            self.add_origin(parent, name, &found);
        }
        let stat = self.shown(&node, *found.stat);
        Ok((node, stat))
    }
}
