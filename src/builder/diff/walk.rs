//! Going through two views in step.

use std::cmp::Ordering;
use std::os::fd::OwnedFd;

use super::side::{self, Found, Layer, Rules, Seen, Side, Views};
use crate::builder::walk::Listing;
use crate::builder::{BuildError, Kind, Result, TreePath};
use crate::sys::{Errno, at, stat};

/// Directories above the present one whose descriptors stay open.
const KEPT_OPEN: usize = 32;

/// A failed call, as an error.
pub fn call(what: &'static str, path: &TreePath) -> impl FnOnce(Errno) -> BuildError {
    move |errno| BuildError::Call {
        what,
        path: path.clone(),
        errno,
    }
}

/// What the two views show under one name; at least one of them something.
pub(super) struct Pair<'a> {
    /// The name's path.
    pub(super) path: &'a TreePath,
    /// Before.
    pub(super) old: Option<Seen<'a>>,
    /// After.
    pub(super) new: Option<Seen<'a>>,
}

impl Pair<'_> {
    /// The very same object of the lower, with all that is below it.
    fn is_one_object(&self, shared: bool) -> bool {
        let base = |seen: &Option<Seen<'_>>| seen.is_some_and(|seen| seen.found.layer == Layer::Base);
        shared && base(&self.old) && base(&self.new)
    }
}

/// Is shown every pair, directories before what is below them.
pub(super) trait Visitor {
    /// One name. Directories of the new view are gone into afterwards, those of the old view alone are not.
    fn pair(&mut self, pair: &Pair<'_>) -> Result<()>;

    /// A name is the same inode in both trees and no directory. With `false` it is shown as a pair.
    fn same(&mut self, inode: Identity) -> bool;

    /// All names of the last directory that was gone into are done.
    fn leave(&mut self) {}
}

/// A directory that is being gone through.
struct Frame {
    path: TreePath,
    names: std::vec::IntoIter<Name>,
    old: Half,
    new: Half,
    /// Both views show the same directory of the lower.
    shared: bool,
}

/// A name to look at.
struct Name {
    name: Box<[u8]>,
    /// In both trees it is this inode, and no directory.
    same: Option<Identity>,
}

/// One view's part of a frame.
struct Half {
    side: Side,
    /// By which the directories are known again when they were closed meanwhile.
    top: Option<Identity>,
    base: Option<Identity>,
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// Shows all pairs to `visitor`, the root first.
pub(super) fn walk(views: &Views<'_>, visitor: &mut dyn Visitor) -> Result<()> {
    let root = TreePath::root();
    let rules = &views.rules;
    let (old, new) = (rules.root(&views.old)?, rules.root(&views.new)?);
    visitor.pair(&Pair {
        path: &root,
        old: old.as_ref().and_then(|found| views.old.root(found)),
        new: new.as_ref().and_then(|found| views.new.root(found)),
    })?;
    let first = frame(rules, root, views.old.copy()?, views.new.copy()?)?;
    let mut stack = vec![first];
    while let Some(frame) = stack.last_mut() {
        if let Some(Name { name, same }) = frame.names.next() {
            if same.is_some_and(|inode| visitor.same(inode)) {
                continue;
            }
            if let Some(below) = step(rules, frame, &name, visitor)? {
                stack.push(below);
                close_far(&mut stack);
            }
            continue;
        }
        visitor.leave();
        if let (Some(done), Some(above)) = (stack.pop(), stack.last_mut()) {
            above.old.reopen(&done.old, &above.path)?;
            above.new.reopen(&done.new, &above.path)?;
        }
    }
    Ok(())
}

/// Closes what is far above, as far as it can be reached from below again.
fn close_far(stack: &mut [Frame]) {
    let Some(far) = stack.len().checked_sub(KEPT_OPEN + 1) else {
        return;
    };
    if let Some([far, below]) = stack.get_mut(far..=far + 1) {
        far.old.close(&below.old);
        far.new.close(&below.new);
    }
}

/// Shows one name, and answers the directory to go into.
fn step(rules: &Rules<'_>, frame: &Frame, name: &[u8], visitor: &mut dyn Visitor) -> Result<Option<Frame>> {
    let path = frame.path.join(name);
    let old = rules.look(&frame.old.side, name, &path)?;
    let new = rules.look(&frame.new.side, name, &path)?;
    let pair = Pair {
        path: &path,
        old: old.as_ref().and_then(|found| frame.old.side.seen(name, found)),
        new: new.as_ref().and_then(|found| frame.new.side.seen(name, found)),
    };
    if pair.is_one_object(frame.shared) || (pair.old.is_none() && pair.new.is_none()) {
        return Ok(None);
    }
    visitor.pair(&pair)?;
    let enter = |half: &Half, found: &Option<Found>| match found {
        Some(found) if found.kind == Kind::Directory => rules.enter(&half.side, name, found, &path).map(Some),
        _ => Ok(None),
    };
    let Some(new) = enter(&frame.new, &new)? else {
        return Ok(None);
    };
    let old = enter(&frame.old, &old)?.unwrap_or_default();
    self::frame(rules, path, old, new).map(Some)
}

fn frame(rules: &Rules<'_>, path: TreePath, old: Side, new: Side) -> Result<Frame> {
    let shared = rules.overlay() && old.base.is_some() && new.base.is_some();
    let listing = |dir| side::listing(dir, &path);
    let names = if let Some(dev) = rules.one_device {
        merge(dev, &listing(&old.base)?, &listing(&new.base)?)
    } else if shared {
        // Names of the lower alone show the same in both views.
        union(&[listing(&old.top)?, listing(&new.top)?])
    } else {
        union(&[
            listing(&old.top)?,
            listing(&old.base)?,
            listing(&new.top)?,
            listing(&new.base)?,
        ])
    };
    Ok(Frame {
        names: names.into_iter(),
        old: Half::new(old, &path)?,
        new: Half::new(new, &path)?,
        path,
        shared,
    })
}

/// All names, each once, in order.
fn union(listings: &[Listing]) -> Vec<Name> {
    let all = listings.iter().flat_map(Listing::iter);
    let mut names: Vec<Name> = all
        .map(|raw| Name {
            name: raw.name.into(),
            same: None,
        })
        .collect();
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    names.dedup_by(|a, b| a.name == b.name);
    names
}

/// As [`union`], of two directories on one device whose listings tell the inodes.
fn merge(dev: u64, old: &Listing, new: &Listing) -> Vec<Name> {
    let mut names = Vec::with_capacity(new.len());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return names,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(new.name),
        };
        let was = old.next_if(|_| order != Ordering::Greater);
        let is = new.next_if(|_| order != Ordering::Less);
        let same = match (&was, &is) {
            (Some(was), Some(is)) if was.ino == is.ino && was.kind == is.kind => {
                let file = is.kind != 0 && is.kind != libc::S_IFDIR;
                file.then_some((dev, is.ino))
            }
            _ => None,
        };
        names.extend(was.or(is).map(|raw| Name {
            name: raw.name.into(),
            same,
        }));
    }
}

fn identity(fd: &OwnedFd, path: &TreePath) -> Result<Identity> {
    let stat = stat::stat_fd(fd).map_err(call("look at", path))?;
    Ok((stat.dev, stat.ino))
}

impl Half {
    fn new(side: Side, path: &TreePath) -> Result<Self> {
        let known = |fd: &Option<OwnedFd>| fd.as_ref().map(|fd| identity(fd, path)).transpose();
        Ok(Self {
            top: known(&side.top)?,
            base: known(&side.base)?,
            side,
        })
    }

    /// Closes the directories from which `below` is a step down in the same layer.
    fn close(&mut self, below: &Self) {
        if below.top.is_some() {
            self.side.top = None;
        }
        if below.base.is_some() {
            self.side.base = None;
        }
    }

    /// Opens what was closed, as the parents of the directories of `below`, which was just left.
    fn reopen(&mut self, below: &Self, path: &TreePath) -> Result<()> {
        reopen(&mut self.side.top, self.top, &below.side.top, path)?;
        reopen(&mut self.side.base, self.base, &below.side.base, path)
    }
}

fn reopen(
    dir: &mut Option<OwnedFd>,
    known: Option<Identity>,
    below: &Option<OwnedFd>,
    path: &TreePath,
) -> Result<()> {
    if dir.is_none()
        && let (Some(known), Some(below)) = (known, below)
    {
        let open = at::open_path(below, b"..").map_err(call("open", path))?;
        if identity(&open, path)? != known {
            // Moved meanwhile: this is another directory's inside.
            return Err(call("open", path)(Errno::STALE));
        }
        *dir = Some(open);
    }
    Ok(())
}
