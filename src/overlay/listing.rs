//! Listing a directory: one snapshot of the merged names for each open directory (K50 to K53).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Overlay;
use super::dirs::Layer;
use super::merge::{InLower, InUpper};
use super::node::{Lower, Node, NodeId};
use crate::sys::dirent::{self, Entry};
use crate::sys::stat::Stat;
use crate::sys::{Errno, Result, at};

/// A directory that a program has open.
#[derive(Debug)]
pub struct OpenDir {
    /// The node.
    pub node: Arc<Node>,
    snapshot: Mutex<Option<Arc<Vec<Entry>>>>,
}

impl OpenDir {
    /// Opens a directory; nothing is read until the first entry is asked for.
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            snapshot: Mutex::new(None),
        }
    }
}

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

impl Overlay {
    /// Hands out the entries of an open directory from position `from` on, until `each` says that it has no
    /// room (`false`). With `with_nodes` each name is looked up as by [`Overlay::lookup`].
    ///
    /// Position 0 reads the directory anew.
    ///
    /// # Errors
    /// As the calls made. A name that vanished since the snapshot is left out when nodes are wanted.
    pub fn list(
        &self,
        dir: &OpenDir,
        from: u64,
        with_nodes: bool,
        mut each: impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<()> {
        let node = &dir.node;
        let names = self.snapshot(dir, from == 0)?;
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
        let skip = usize::try_from(from.saturating_sub(DOTS)).unwrap_or(usize::MAX);
        for (at, entry) in names.iter().enumerate().skip(skip) {
            let next = DOTS.saturating_add(at as u64).saturating_add(1);
            if !self.list_one(node, entry, next, with_nodes, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    fn list_one(
        &self,
        dir: &Arc<Node>,
        entry: &Entry,
        next: u64,
        with_nodes: bool,
        each: &mut impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<bool> {
        let mut listed = Listed {
            name: &entry.name,
            kind: entry.kind,
            number: entry.ino,
            next,
            known: None,
        };
        if !with_nodes {
            // A deleted name of the snapshot is still shown, as the kernel does (K51).
            if let Some(node) = self.nodes.find(dir.id, &entry.name) {
                listed.number = node.state().number;
            } else if let Ok(found) = self.look(dir, &entry.name) {
                listed.number = self.birth(&found).number;
            }
            return Ok(each(&listed));
        }
        match self.lookup_in(dir, &entry.name) {
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
            Err(Errno::NOENT | Errno::STALE) if self.is_marked_away(dir, &entry.name) => Ok(true),
            // Removed since the snapshot: the name is still given, as the kernel does (K51).
            Err(Errno::NOENT | Errno::STALE) => Ok(each(&listed)),
            // An upper file without its data is left out (K27); what else cannot be used is shown all the same.
            Err(Errno::PERM) if entry.kind != libc::S_IFDIR && self.in_upper(dir, &entry.name) => Ok(true),
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
            None => dir.has_lower_dir() && there(Layer::Lower).is_ok(),
        }
    }

    fn snapshot(&self, dir: &OpenDir, anew: bool) -> Result<Arc<Vec<Entry>>> {
        let mut snapshot = dir.snapshot.lock();
        match &*snapshot {
            Some(names) if !anew => Ok(Arc::clone(names)),
            _ => {
                let names = Arc::new(self.merged_names(&dir.node)?);
                *snapshot = Some(Arc::clone(&names));
                Ok(names)
            }
        }
    }

    /// All names of a directory: the lower's in its order, then those only in the upper (K50), without the
    /// whiteouts of either layer (K32).
    fn merged_names(&self, node: &Arc<Node>) -> Result<Vec<Entry>> {
        let (has_upper, lower, removed) = {
            let state = node.state();
            (
                state.upper.is_some(),
                matches!(state.lower, Some(Lower::Object { .. })),
                state.removed.is_some(),
            )
        };
        if removed {
            return Ok(Vec::new());
        }
        let mut upper_names = Vec::new();
        let mut hidden = HashMap::new();
        if has_upper {
            let dir = self.dirs.get(node, Layer::Upper)?;
            dirent::read_names(at::reopen_dir(&dir)?, |entry| {
                let whiteout = matches!(entry.kind, 0 | libc::S_IFCHR)
                    && matches!(self.look_upper(&*dir, &entry.name)?, InUpper::Whiteout);
                if lower {
                    hidden.insert(
                        entry.name.clone(),
                        if whiteout { None } else { Some(entry.clone()) },
                    );
                }
                if !whiteout {
                    upper_names.push(entry);
                }
                Ok(true)
            })?;
        }
        if !lower {
            return Ok(upper_names);
        }
        let dir = self.dirs.get(node, Layer::Lower)?;
        let mut names = Vec::new();
        dirent::read_names(at::reopen_dir(&dir)?, |entry| {
            match hidden.get_mut(&entry.name) {
                // Both layers have it: the lower's place, the upper's type.
                Some(upper) => names.extend(upper.take()),
                None => {
                    let odd = matches!(entry.kind, 0 | libc::S_IFCHR);
                    if !odd || self.look_lower(&*dir, &entry.name)? != InLower::Absent {
                        names.push(entry);
                    }
                }
            }
            Ok(true)
        })?;
        names.extend(
            upper_names
                .into_iter()
                .filter(|entry| matches!(hidden.get(&entry.name), Some(Some(_)))),
        );
        Ok(names)
    }

    /// Opens a directory (FUSE OPENDIR).
    ///
    /// # Errors
    /// ENOTDIR; ESTALE.
    pub fn open_dir(&self, id: NodeId) -> Result<OpenDir> {
        let node = self.node(id)?;
        if node.is_dir() {
            Ok(OpenDir::new(node))
        } else {
            Err(Errno::NOTDIR)
        }
    }
}
