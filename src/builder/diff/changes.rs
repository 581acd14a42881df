//! From pairs of objects to lines, as docker tells them.
//!
//! - A name that shows in the new view only is `A`, and so is everything below it; in the old view only it is
//!   `D`, and what was below it is not told.
//! - A name that shows in both is `C` if the objects differ. The modification time of a directory is no
//!   difference.
//! - A directory in which something changed is `C` too, but the root is only when it differs itself.

use std::os::fd::OwnedFd;

use super::compare::{self, compare};
use super::groups::{Groups, Id, id};
use super::side::{Found, Rules, Seen, Views};
use super::walk::{Pair, Visitor, walk};
use super::{Change, Letter};
use crate::builder::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::stat::Stat;

/// Takes the changes.
pub trait Sink {
    /// One change, with the object that now has the name; none for a deleted one.
    fn change(&mut self, change: Change, object: Option<&Object<'_>>) -> Result<()>;
}

/// The object behind an added or changed name.
pub struct Object<'a> {
    found: Found,
    /// None for a directory that was passed before something below it turned out to have changed.
    seen: Option<Seen<'a>>,
    meta: Option<Meta>,
    several: bool,
    replaces: bool,
    rules: &'a Rules<'a>,
    path: TreePath,
}

impl Object<'_> {
    /// Its attributes.
    pub fn stat(&self) -> &Stat {
        &self.found.stat
    }

    /// Its inode, if it has several names in the new view: all of them are told if one is.
    pub fn group(&self) -> Option<Id> {
        self.several.then(|| id(&self.found))
    }

    /// True where the name showed an object before.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// True if nobody else has a reason to touch the inode: it belongs to a writable layer.
    pub fn is_private(&self) -> bool {
        self.found.layer == super::side::Layer::Top
    }

    /// Everything about it, with the attributes under the names that an archive has.
    pub fn meta(&self) -> Result<Meta> {
        match (&self.meta, self.seen) {
            (Some(meta), _) => Ok(meta.clone()),
            (None, Some(seen)) => self.rules.meta(seen, &self.path),
            (None, None) => Err(compare::moved(&self.path)),
        }
    }

    /// Opens a regular file for reading.
    pub fn open(&self) -> Result<OwnedFd> {
        compare::open(self.reached()?, &self.path)
    }

    /// The text of a symlink.
    pub fn target(&self) -> Result<Vec<u8>> {
        compare::target(self.reached()?, &self.path)
    }

    /// The error for a file that is not the same any more.
    pub fn moved(&self) -> BuildError {
        compare::moved(&self.path)
    }

    fn reached(&self) -> Result<Seen<'_>> {
        self.seen.ok_or_else(|| compare::moved(&self.path))
    }
}

/// Tells all changes between two views, in the order of the walk.
pub fn changes(views: &Views<'_>, sink: &mut dyn Sink) -> Result<()> {
    let groups = Groups::collect(views)?;
    walk(
        views,
        &mut Teller {
            rules: &views.rules,
            groups: &groups,
            inside: Vec::new(),
            sink,
        },
    )
}

/// Makes lines of pairs.
struct Teller<'a> {
    rules: &'a Rules<'a>,
    groups: &'a Groups,
    /// The directories that the walk is in, root first.
    inside: Vec<Inside>,
    sink: &'a mut dyn Sink,
}

/// A directory that the walk is in.
struct Inside {
    path: TreePath,
    found: Found,
    /// Kept until it is told, or left without a change below it.
    untold: Option<Meta>,
}

impl Teller<'_> {
    /// Tells the directories on the way to a change.
    fn tell_way(&mut self) -> Result<()> {
        for directory in &mut self.inside {
            if let Some(meta) = directory.untold.take() {
                let change = Change {
                    letter: Letter::Changed,
                    path: directory.path.clone(),
                    kind: Kind::Directory,
                    differences: Vec::new(),
                };
                let object = Object {
                    found: directory.found,
                    seen: None,
                    meta: Some(meta),
                    several: false,
                    replaces: true,
                    rules: self.rules,
                    path: directory.path.clone(),
                };
                self.sink.change(change, Some(&object))?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, change: Change, new: Option<Seen<'_>>, replaces: bool) -> Result<()> {
        self.tell_way()?;
        let path = change.path.clone();
        let object = new.map(|seen| Object {
            found: *seen.found,
            seen: Some(seen),
            meta: None,
            several: seen.found.kind != Kind::Directory && self.groups.several(seen.found),
            replaces,
            rules: self.rules,
            path,
        });
        self.sink.change(change, object.as_ref())
    }
}

impl Visitor for Teller<'_> {
    fn pair(&mut self, pair: &Pair<'_>) -> Result<()> {
        let path = pair.path;
        let mut differences = Vec::new();
        let (letter, shown) = match (pair.old, pair.new) {
            (Some(old), None) => (Some(Letter::Deleted), old),
            (None, Some(new)) => (Some(Letter::Added), new),
            (Some(old), Some(new)) => {
                differences = compare(self.rules, self.groups, old, new, path)?;
                ((!differences.is_empty()).then_some(Letter::Changed), new)
            }
            (None, None) => return Ok(()),
        };
        if let Some(letter) = letter {
            let change = Change {
                letter,
                path: path.clone(),
                kind: shown.found.kind,
                differences,
            };
            self.tell(change, pair.new, pair.old.is_some())?;
        }
        if let Some(new) = pair.new.filter(|new| new.found.kind == Kind::Directory) {
            let untold = if letter.is_some() || path.is_root() {
                None
            } else {
                Some(self.rules.meta(new, path)?)
            };
            self.inside.push(Inside {
                path: path.clone(),
                found: *new.found,
                untold,
            });
        }
        Ok(())
    }

    fn same(&mut self, inode: Id) -> bool {
        !self.groups.regrouped(inode, inode)
    }

    fn leave(&mut self) {
        self.inside.pop();
    }
}
