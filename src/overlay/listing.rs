//! Listing a directory: one snapshot of the merged names for each open directory (K50 to K53).
//!
//! Positions have to stay true over snapshots, since the kernel keeps listings too, and goes on in a later one where it
//! stopped in an earlier: a name of a lower, which never changes, has its place there, and a name that only the
//! upper has is placed by its hash. The lowest of several lowers comes first, then what only the upper has, then the
//! other lowers from the topmost down, as with the kernel's overlay. But that one lists first of all others what the
//! upper has, also a copy of what a lower between has, which here keeps its place: a copy-up would move it past a reader
//! else. Each entry of a lower counts, also one that does not show, so that no place depends on the upper.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::dirs::Layer;
use super::merge::InUpper;
use super::node::{Node, NodeId, Parts};
use super::{Overlay, foreign};
use crate::sys::dirent::{self, Entry};
use crate::sys::stat::Stat;
use crate::sys::{Errno, Result, at, memory};

/// One entry as it is handed out.
#[derive(Debug)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The type bits of its mode.
    pub kind: u32,
    /// The inode number that programs see.
    pub number: u64,
    /// Where to go on after this entry.
    pub next: u64,
    /// The node, counted as looked up once, with its attributes; never for `.` and `..`.
    pub known: Option<(Arc<Node>, Stat)>,
}

/// Positions before the first name: `.` and `..`.
const DOTS: u64 = 2;
/// The first position of a name that only the upper has.
const UPPER: u64 = 1 << 61;
/// Before the first position of a name that the lowest of several lowers does not have; all are below 2⁶³, as positions
/// are signed.
const BETWEEN: u64 = 1 << 62;
/// Bytes of a `struct fuse_dirent` before its name.
const DIRENT: usize = 24;
/// Listings kept for those who have not come to their end.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// A name and its position.
#[derive(Debug, PartialEq, Eq)]
struct Placed {
    next: u64,
    entry: Entry,
    /// No lower above this one has the name.
    top: u16,
}

/// Names that a layer further up has decided on: what is to be shown and, if it is a lower, which has it; or nothing for
/// a whiteout.
type Decided = HashMap<Box<[u8]>, Option<(Entry, u16)>>;

/// The merged names of a directory, by position.
#[derive(Debug)]
struct Listing {
    names: Vec<Placed>,
    /// The kernel may keep what readers are given of it; not so where another reader has come to the end since they began.
    kept: bool,
    /// What the kernel keeps may be of another snapshot in part.
    mixed: bool,
    /// A name was not given to a reader.
    left_out: AtomicBool,
}

impl Listing {
    /// Whether the kernel may keep what it was given.
    ///
    /// Where a reader's position is not in a kept listing, since the name there went away, the kernel asks the server;
    /// but when that listing ends with the end of a page, the kernel takes it for read to its end, and the reader would
    /// miss all that is left (K53).
    fn may_be_kept(&self, page: usize) -> bool {
        !self.mixed && !self.left_out.load(Ordering::Relaxed) && {
            let names = self.names.iter().map(|placed| placed.entry.name.len());
            !kept_size([1, 2].into_iter().chain(names), page).is_multiple_of(page)
        }
    }
}

/// The bytes in which the kernel keeps names of these lengths: entries are aligned, and none goes over the end of a page.
fn kept_size(names: impl Iterator<Item = usize>, page: usize) -> usize {
    names.fold(0, |size: usize, name| {
        let entry = name.saturating_add(DIRENT).next_multiple_of(8);
        let start = if (size % page).saturating_add(entry) > page {
            size.next_multiple_of(page)
        } else {
            size
        };
        start.saturating_add(entry)
    })
}

type Snapshot = Arc<Listing>;

/// The snapshots of directories that are being listed.
#[derive(Debug)]
pub(super) struct Listings(Mutex<(LruCache<NodeId, Snapshot>, HashSet<NodeId>)>);

impl Default for Listings {
    fn default() -> Self {
        Self(Mutex::new((memory::cache(KEPT), HashSet::new())))
    }
}

impl Listings {
    /// The snapshot, and whether one was lost to others.
    fn get(&self, id: NodeId) -> (Option<Snapshot>, bool) {
        let (kept, lost) = &mut *self.0.lock();
        (kept.get(&id).map(Arc::clone), lost.contains(&id))
    }

    fn put(&self, id: NodeId, listing: Snapshot) {
        let (kept, lost) = &mut *self.0.lock();
        if let Some((other, _)) = kept.push(id, listing)
            && other != id
        {
            lost.insert(other);
        }
    }

    /// The directory is known no more, or somebody came to the end of it.
    pub(super) fn forget(&self, id: NodeId) {
        let (kept, lost) = &mut *self.0.lock();
        kept.pop(&id);
        lost.remove(&id);
    }
}

/// Where a name of the upper alone has its place.
fn hashed(name: &[u8]) -> u64 {
    // The same in every snapshot, so without a random key.
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    UPPER | hasher.finish() >> 3
}

impl Overlay {
    /// Hands out the entries of a directory from position `from` on, until `each` says that it has no room
    /// (`false`). With `with_nodes` each name is looked up as by [`Overlay::lookup`].
    ///
    /// Position 0 reads the directory anew.
    ///
    /// # Errors
    /// ENOTDIR; ESTALE; else as the calls made. A name that vanished since the snapshot is left out when nodes are
    /// wanted.
    pub fn list(
        &self,
        id: NodeId,
        from: u64,
        with_nodes: bool,
        mut each: impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<()> {
        let node = &self.node(id)?;
        if !node.is_dir() {
            return Err(Errno::NOTDIR);
        }
        let listing = self.snapshot(node, from == 0)?;
        let mut offered = false;
        let mut each = |listed: &Listed<'_>| {
            offered = true;
            each(listed)
        };
        let number = node.state().number;
        let parent = node.link().map_or(number, |link| link.parent.state().number);
        for (at, (name, number)) in [(&b"."[..], number), (&b".."[..], parent)]
            .into_iter()
            .enumerate()
        {
            let next = at as u64 + 1;
            let entry = Listed {
                name,
                kind: libc::S_IFDIR,
                number,
                next,
                known: None,
            };
            if from < next && !each(&entry) {
                return Ok(());
            }
        }
        let names = &listing.names;
        let left = names
            .get(names.partition_point(|placed| placed.next <= from)..)
            .unwrap_or_default();
        for placed in left {
            if !self.list_one(node, placed, &listing, with_nodes, &mut each)? {
                break;
            }
        }
        if !offered {
            // The end, at which the kernel has a whole listing to keep.
            self.listings.forget(id);
            if !listing.may_be_kept(rustix::param::page_size().max(1)) {
                self.pages_outdated(node);
            }
        }
        Ok(())
    }

    fn list_one(
        &self,
        dir: &Arc<Node>,
        Placed { next, entry, top }: &Placed,
        listing: &Listing,
        with_nodes: bool,
        each: &mut impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<bool> {
        let mut listed = Listed {
            name: &entry.name,
            kind: entry.kind,
            number: entry.ino,
            next: *next,
            known: None,
        };
        let left_out = || {
            listing.left_out.store(true, Ordering::Relaxed);
            Ok(true)
        };
        if !with_nodes {
            // A deleted name of the snapshot is still shown, as the kernel does (K51).
            if let Some(node) = self.nodes.find(dir.id, &entry.name) {
                listed.number = node.state().number;
            } else if let Ok(found) = self.look_from(dir, &entry.name, *top) {
                listed.number = self.birth(&found).number;
            }
            return Ok(each(&listed));
        }
        match self.lookup_from(dir, &entry.name, *top) {
            Ok((node, stat)) => {
                listed.kind = node.kind;
                listed.number = stat.ino;
                let id = node.id;
                listed.known = Some((node, stat));
                let took = each(&listed);
                if !took {
                    self.forget(id, 1);
                }
                Ok(took)
            }
            Err(Errno::NOENT | Errno::STALE) if self.is_marked_away(dir, &entry.name) => left_out(),
            // Removed since the snapshot: the name is still given, as the kernel does (K51).
            Err(Errno::NOENT | Errno::STALE) => Ok(each(&listed)),
            // An upper file without its data is left out (K27); what else cannot be used is shown all the same.
            Err(Errno::PERM) if entry.kind != libc::S_IFDIR && self.in_upper(dir, &entry.name) => left_out(),
            Err(errno) => {
                log::debug!("list {}: {errno}", dir.path_of(&entry.name));
                Ok(each(&listed))
            }
        }
    }

    fn in_upper(&self, dir: &Arc<Node>, name: &[u8]) -> bool {
        dir.upper().is_some()
            && self
                .dirs
                .get(dir, Layer::Upper)
                .is_ok_and(|fd| crate::sys::stat::stat_at(&fd, name).is_ok())
    }

    /// True for a name that a whiteout in the form of a marked file hides (K31): it is there in its layer,
    /// which is not so for a name that was removed.
    fn is_marked_away(&self, dir: &Arc<Node>, name: &[u8]) -> bool {
        let there = |layer| {
            let fd = self.dirs.get(dir, layer)?;
            crate::sys::stat::stat_at_cached(&fd, name)
        };
        match dir.upper().and_then(|_| there(Layer::Upper).ok()) {
            Some(stat) => !stat.is_whiteout(),
            None => dir
                .parts()
                .is_some_and(|parts| parts.iter().any(|layer| there(Layer::Lower(layer)).is_ok())),
        }
    }

    fn snapshot(&self, node: &Arc<Node>, anew: bool) -> Result<Snapshot> {
        let (known, lost) = self.listings.get(node.id);
        if !anew && let Some(known) = known {
            return Ok(known);
        }
        let names = self.merged_names(node)?;
        // The kernel may have kept a part of an earlier one.
        let mixed = lost || known.is_some_and(|known| known.kept && (known.mixed || known.names != names));
        let listing = Arc::new(Listing {
            names,
            kept: anew || lost,
            mixed,
            left_out: AtomicBool::new(false),
        });
        self.listings.put(node.id, Arc::clone(&listing));
        Ok(listing)
    }

    /// All names of a directory in the order of their places (K50), without the whiteouts of any layer (K32).
    fn merged_names(&self, node: &Arc<Node>) -> Result<Vec<Placed>> {
        if node.is_removed() {
            return Ok(Vec::new());
        }
        let parts = node.parts();
        let mut upper_names = Vec::new();
        let mut decided = Decided::new();
        if node.upper().is_some() {
            let dir = self.dirs.get(node, Layer::Upper)?;
            dirent::read_names(at::reopen_dir(&dir)?, |entry| {
                if self.is_mark(&entry.name) {
                    return Ok(true);
                }
                let whiteout = matches!(entry.kind, 0 | libc::S_IFCHR)
                    && matches!(self.look_upper(&*dir, &entry.name)?, InUpper::Whiteout);
                if parts.is_some() {
                    decided.insert(entry.name.clone(), (!whiteout).then(|| (entry.clone(), 0)));
                }
                if !whiteout {
                    upper_names.push(entry);
                }
                Ok(true)
            })?;
        }
        let (mut names, mut last_names) = (Vec::new(), Vec::new());
        if let Some(parts) = parts {
            let between = self.names_between(node, &parts, &mut decided)?;
            names = self.lowest_names(node, parts.last(), &mut decided)?;
            let placed = between.into_iter().filter_map(|(next, name)| {
                // In a lower further down too, it has its place already.
                let (entry, top) = decided.get_mut(&name)?.take()?;
                Some(Placed { next, entry, top })
            });
            last_names.extend(placed);
            upper_names.retain(|entry| matches!(decided.get(&entry.name), Some(Some(_))));
        }
        let start = names.len();
        names.extend(upper_names.into_iter().map(|entry| Placed {
            next: hashed(&entry.name),
            entry,
            top: 0,
        }));
        if let Some(placed) = names.get_mut(start..) {
            placed.sort_unstable_by(|a, b| (a.next, &a.entry.name).cmp(&(b.next, &b.entry.name)));
            let mut last = 0;
            for placed in placed {
                // Two names with one hash.
                placed.next = placed.next.max(last + 1);
                last = placed.next;
            }
        }
        names.append(&mut last_names);
        Ok(names)
    }

    /// The names of the lowest lower, at their places.
    fn lowest_names(&self, node: &Arc<Node>, layer: u16, decided: &mut Decided) -> Result<Vec<Placed>> {
        let mut names = Vec::new();
        let dir = self.dirs.get(node, Layer::Lower(layer))?;
        let mut next = DOTS;
        dirent::read_names(at::reopen_dir(&dir)?, |entry| {
            next = next.saturating_add(1);
            if self.is_mark(&entry.name) {
                return Ok(true);
            }
            match decided.get_mut(&entry.name) {
                // Another layer has it too: this place, that type.
                Some(above) => names.extend(above.take().map(|(entry, top)| Placed { next, entry, top })),
                None if self.shows_in_lower(&dir, &entry)? => names.push(Placed {
                    next,
                    entry,
                    top: layer,
                }),
                None => {}
            }
            Ok(true)
        })?;
        Ok(names)
    }

    /// Adds the names of all lowers but the lowest to what is decided. Answers their places, those that show.
    fn names_between(
        &self,
        node: &Arc<Node>,
        parts: &Parts,
        decided: &mut Decided,
    ) -> Result<Vec<(u64, Box<[u8]>)>> {
        let mut places = Vec::new();
        let mut next = BETWEEN;
        for layer in parts.iter().filter(|layer| *layer != parts.last()) {
            let dir = self.dirs.get(node, Layer::Lower(layer))?;
            let mut hides = Vec::new();
            dirent::read_names(at::reopen_dir(&dir)?, |entry| {
                next = next.saturating_add(1);
                if self.is_mark(&entry.name) {
                    hides.extend(foreign::hidden_by(&entry.name).map(Box::from));
                    return Ok(true);
                }
                let name = entry.name.clone();
                match decided.get(&name) {
                    Some(Some(_)) => places.push((next, name)),
                    Some(None) => {}
                    None if self.shows_in_lower(&dir, &entry)? => {
                        decided.insert(name.clone(), Some((entry, layer)));
                        places.push((next, name));
                    }
                    None => drop(decided.insert(name, None)),
                }
                Ok(true)
            })?;
            // Not before: they hide nothing in their own directory.
            for name in hides {
                decided.entry(name).or_insert(None);
            }
        }
        Ok(places)
    }

    fn shows_in_lower(&self, dir: &OwnedFd, entry: &Entry) -> Result<bool> {
        let odd = matches!(entry.kind, 0 | libc::S_IFCHR);
        Ok(!odd || self.look_lower(dir, &entry.name, true)?.shows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_over_no_page() {
        // 32 bytes each.
        assert_eq!(kept_size(std::iter::repeat_n(8, 128), 4096), 4096);
        assert_eq!(kept_size(std::iter::repeat_n(8, 129), 4096), 4096 + 32);
        assert_eq!(kept_size(std::iter::repeat_n(1, 127), 4096), 4064);
        // 280 bytes each, 14 in a page.
        assert_eq!(kept_size(std::iter::repeat_n(255, 15), 4096), 4096 + 280);
        assert_eq!(
            kept_size([255, 9].into_iter().cycle().take(30), 4096),
            4096 + 3 * 320
        );
    }
}
