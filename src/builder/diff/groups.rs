//! Which names are hard links of each other in one view and not in the other.
//!
//! A layer can only say "this name is a link of that one" of names that it holds itself. So all names of a new
//! group are told as changed as soon as one of them is new or was in another group, and of a group that falls
//! apart all parts but one.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use super::side::{Found, Layer, Rules, Seen, Views};
use super::walk::{Identity, Pair, Visitor, walk};
use crate::builder::walk::Walk;
use crate::builder::{Kind, Result};

/// An inode: device and number.
pub(super) type Id = Identity;

/// What there is to know about hard links before the first change is told.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Inodes of the new view that have several names there.
    several: HashSet<Id>,
    /// Those of them with names that were not links of each other in the old view.
    joined: HashSet<Id>,
    /// Old and new inode of names that left a group.
    split: HashSet<(Id, Id)>,
}

/// The inode of an object.
pub(super) fn id(found: &Found) -> Id {
    (found.stat.dev, found.stat.ino)
}

impl Groups {
    /// Goes through both views.
    pub(super) fn collect(views: &Views<'_>) -> Result<Self> {
        let mut names = Names {
            rules: &views.rules,
            pairs: Vec::new(),
            same: Vec::new(),
            elsewhere: HashMap::new(),
            unchanged: HashSet::new(),
        };
        walk(views, &mut names)?;
        names.search(views)?;
        Ok(names.sort())
    }

    /// True if the links of a name changed, which shows the two objects.
    pub(super) fn changed(&self, old: &Found, new: &Found) -> bool {
        self.regrouped(id(old), id(new))
    }

    /// True if the links of a name changed that was the one inode and is the other.
    pub(super) fn regrouped(&self, old: Id, new: Id) -> bool {
        self.joined.contains(&new) || self.split.contains(&(old, new))
    }

    /// True for an object of the new view that has several names there.
    pub(super) fn several(&self, new: &Found) -> bool {
        self.several.contains(&id(new))
    }
}

/// All names that may be links.
struct Names<'a> {
    rules: &'a Rules<'a>,
    /// New and old inode of each.
    pairs: Vec<(Option<Id>, Option<Id>)>,
    /// Those that are the same inode in both trees. Most, so they are counted only if one of `pairs` touches them.
    same: Vec<Id>,
    /// How many names an old inode has in its tree, where not all names are looked at.
    elsewhere: HashMap<Id, u32>,
    /// Inodes of the lower that are copied up and, as far as that tells, unchanged.
    unchanged: HashSet<Id>,
}

impl Visitor for Names<'_> {
    fn pair(&mut self, pair: &Pair<'_>) -> Result<()> {
        let object = |seen: &Option<Seen<'_>>| {
            seen.map(|seen| *seen.found)
                .filter(|found| found.kind != Kind::Directory)
        };
        let (old, new) = (object(&pair.old), object(&pair.new));
        let linked = |found: &Option<Found>| found.is_some_and(|found| self.rules.linked(&found));
        if linked(&old) || linked(&new) {
            if let Some(old) = old.filter(|_| self.rules.overlay()) {
                self.elsewhere.insert(id(&old), self.rules.names_of(&old));
                let same =
                    new.is_some_and(|new| (new.stat.size, new.stat.mtime) == (old.stat.size, old.stat.mtime));
                if same && old.layer == Layer::Base {
                    self.unchanged.insert(id(&old));
                }
            }
            self.pairs
                .push((new.map(|found| id(&found)), old.map(|found| id(&found))));
        }
        Ok(())
    }

    fn same(&mut self, inode: Id) -> bool {
        self.same.push(inode);
        true
    }
}

impl Names<'_> {
    /// Counts the names of unchanged files in the lower, where only link counts are known and they are too high
    /// for the names that were met: other trees may share the file.
    fn search(&mut self, views: &Views<'_>) -> Result<()> {
        if !self.rules.guesses() {
            return Ok(());
        }
        let mut met = HashMap::<Id, u32>::new();
        for old in self.pairs.iter().filter_map(|(_, old)| *old) {
            let count = met.entry(old).or_default();
            *count = count.saturating_add(1);
        }
        let all = |id: &Id| self.elsewhere.get(id) > met.get(id);
        let mut wanted: HashMap<u64, (Id, u32)> = self
            .unchanged
            .iter()
            .filter(|id| all(id))
            .map(|id| (id.1, (*id, 0)))
            .collect();
        let (false, Some(lower)) = (wanted.is_empty(), &views.new.base) else {
            return Ok(());
        };
        let mut tree = Walk::new(lower.as_fd())?;
        while let Some(step) = tree.advance()? {
            if step.kind == Kind::Directory {
                tree.enter()?;
            } else if let Some((_, count)) = wanted.get_mut(&step.ino) {
                *count = count.saturating_add(1);
            }
        }
        self.elsewhere.extend(wanted.into_values());
        Ok(())
    }

    fn sort(mut self) -> Groups {
        let mut groups = Groups::default();
        let touched: HashSet<Id> = self
            .pairs
            .iter()
            .flat_map(|(new, old)| [*new, *old])
            .flatten()
            .collect();
        let same = self.same.into_iter().filter(|id| touched.contains(id));
        self.pairs.extend(same.map(|id| (Some(id), Some(id))));
        // Stable: the names of a group stay in the order of the walk.
        self.pairs.sort_by_key(|(_, old)| *old);
        for group in self.pairs.chunk_by(|a, b| a.1 == b.1) {
            let Some((_, Some(old))) = group.first() else {
                continue;
            };
            let names = u32::try_from(group.len()).unwrap_or(u32::MAX);
            let parts = group.iter().filter_map(|(new, _)| *new);
            // The part that stays where it is: the one that still is the old inode, also outside of what was
            // looked at; else that of the first name.
            let outside = self.elsewhere.get(old).is_some_and(|all| *all > names);
            let stays = if outside || parts.clone().any(|new| new == *old) {
                Some(*old)
            } else {
                parts.clone().next()
            };
            groups
                .split
                .extend(parts.filter(|new| Some(*new) != stays).map(|new| (*old, new)));
        }
        self.pairs.sort_unstable();
        for group in self.pairs.chunk_by(|a, b| a.0 == b.0) {
            let [(Some(new), first), _, ..] = group else {
                continue;
            };
            groups.several.insert(*new);
            if first.is_none() || group.iter().any(|(_, old)| old != first) {
                groups.joined.insert(*new);
            }
        }
        groups
    }
}
