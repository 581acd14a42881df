//! What is odd in an upper, without changing anything.

use std::os::fd::{AsFd, BorrowedFd};

use super::error::call;
use super::journal::Journal;
use super::layers::Layers;
use super::{Pending, Result, UpperError};
use crate::builder::walk::Listing;
use crate::builder::{Kind, TreePath, Walk};
use crate::format::Marks;
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::Target;
use crate::sys::{Errno, at};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The view is what it should be; [`super::vacuum()`] or the next mount tidies up.
    Harmless,
    /// The view may not be what was meant.
    Fault,
}

/// What is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A whiteout where the lower has no such name.
    StrayWhiteout,
    /// An opaque mark where the lower has nothing to hide.
    UselessOpaque,
    /// A copy that differs from the lower's object in nothing.
    UselessCopy,
    /// A mark of `redirect_dir`: another directory of the lower shows here.
    Redirect,
    /// A mark of `metacopy`: the data is in the lower, wherever the file was then.
    Metacopy,
    /// Something a killed server or command left in the work directory.
    Leftover,
    /// The work directory's index, of a mount with `index=on` or `nfs_export=on`.
    Index,
    /// The upper was used by a volatile mount.
    Volatile,
    /// An apply was interrupted.
    PendingApply,
}

impl Trouble {
    /// One word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::StrayWhiteout => "stray-whiteout",
            Self::UselessOpaque => "useless-opaque",
            Self::UselessCopy => "useless-copy",
            Self::Redirect => "redirect",
            Self::Metacopy => "metacopy",
            Self::Leftover => "leftover",
            Self::Index => "index",
            Self::Volatile => "volatile",
            Self::PendingApply => "pending-apply",
        }
    }

    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::StrayWhiteout | Self::UselessOpaque | Self::UselessCopy | Self::Leftover => {
                Severity::Harmless
            }
            _ => Severity::Fault,
        }
    }

    /// What it means, and what to do.
    pub fn words(self) -> &'static str {
        match self {
            Self::StrayWhiteout => "a whiteout that hides nothing: the lower has no such name",
            Self::UselessOpaque => "an opaque mark that hides nothing: the lower has no such directory",
            Self::UselessCopy => "a copy that is the same as the lower's",
            Self::Redirect => {
                "a mark of redirect_dir: the kernel shows another directory of the lower here, plyfs refuses it; mount \
                 with redirect_dir=off and copy it anew"
            }
            Self::Metacopy => {
                "a mark of metacopy: its data is a file of the lower, plyfs refuses it; mount with metacopy=on and \
                 write to it, so that it is copied whole"
            }
            Self::Leftover => "left by a server or command that was killed; the next mount removes it",
            Self::Index => "entries of a mount with index=on, whose hard links only the kernel knows",
            Self::Volatile => {
                "a volatile mount used the upper: after a crash of the machine its content may be incomplete"
            }
            Self::PendingApply => {
                "an apply was interrupted: 'plyfs upper apply --finish' ends it, '--rollback' takes it back"
            }
        }
    }
}

/// One odd thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub trouble: Trouble,
    /// Where: in the upper, or in the work directory.
    pub path: TreePath,
    /// The path is one of the work directory.
    pub in_work: bool,
}

/// An object of the upper and what it lies over.
pub(super) struct Item {
    pub(super) path: TreePath,
    pub(super) stat: Stat,
    pub(super) marks: Marks,
    /// A whiteout of either sort (K30, K31).
    pub(super) whiteout: bool,
    /// The directory it is in shows the lower's names, too.
    pub(super) merges: bool,
    /// What the lower has there, where it shows.
    pub(super) lower: Option<Stat>,
}

impl Item {
    /// A whiteout that hides nothing.
    pub(super) fn is_stray(&self) -> bool {
        self.whiteout && self.lower.is_none()
    }

    /// An opaque mark that hides nothing.
    pub(super) fn is_useless_opaque(&self) -> bool {
        self.stat.is_dir()
            && self.marks.opaque
            && (self.path.is_root() || !self.lower.is_some_and(|lower| lower.is_dir()))
    }
}

/// Everything in the upper, parents before children.
pub(super) fn scan(layers: &Layers, each: &mut dyn FnMut(&Item) -> Result<()>) -> Result<()> {
    let root = layers.upper().root;
    let top = TreePath::root();
    let marks = layers.marks(Target::Fd(root), &top)?;
    each(&Item {
        stat: stat::stat_fd(root).map_err(call("look at", "upper", &top))?,
        marks,
        whiteout: false,
        merges: true,
        lower: layers.lower().look(&top)?,
        path: top,
    })?;
    // For each directory that the walk is in: it shows the lower's names. The root always does (K23).
    let mut merges = vec![true];
    let mut walk = Walk::new(root)?;
    while let Some(step) = walk.advance()? {
        let path = step.path();
        merges.truncate(step.depth);
        let inside = merges.last().copied().unwrap_or(false);
        let stat = stat::stat_at(step.dir, step.name).map_err(call("look at", "upper", &path))?;
        let marks = match step.kind {
            Kind::Directory | Kind::File => layers.marks(Target::At(step.dir, step.name), &path)?,
            _ => Marks::default(),
        };
        let lower = if inside { layers.lower().look(&path)? } else { None };
        let item = Item {
            whiteout: stat.is_whiteout() || stat.is_file() && marks.whiteout && stat.size == 0,
            path,
            stat,
            marks,
            merges: inside,
            lower,
        };
        each(&item)?;
        if step.kind == Kind::Directory {
            merges.push(inside && !marks.opaque && lower.is_some_and(|lower| lower.is_dir()));
            walk.enter()?;
        }
    }
    Ok(())
}

/// Looks for everything that is odd.
///
/// # Errors
/// What cannot be read.
pub fn inspect(layers: &Layers) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut blind = false;
    scan(layers, &mut |item| {
        let mut find = |trouble| {
            findings.push(Finding {
                trouble,
                path: item.path.clone(),
                in_work: false,
            });
        };
        if item.is_stray() {
            find(Trouble::StrayWhiteout);
        }
        if item.is_useless_opaque() {
            find(Trouble::UselessOpaque);
        }
        if item.marks.redirect {
            find(Trouble::Redirect);
            blind = true;
        }
        if item.marks.metacopy {
            find(Trouble::Metacopy);
            blind = true;
        }
        Ok(())
    })?;
    // What a name shows can be compared only where every name can be judged.
    if !blind {
        for path in super::vacuum::useless_copies(layers)? {
            findings.push(Finding {
                trouble: Trouble::UselessCopy,
                path,
                in_work: false,
            });
        }
    }
    findings.sort_by(|a, b| crate::builder::walk::order(&a.path, &b.path));
    findings.extend(in_work(layers)?);
    Ok(findings)
}

/// What lies in the work directory.
fn in_work(layers: &Layers) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut find = |trouble, path: TreePath| {
        findings.push(Finding {
            trouble,
            path,
            in_work: true,
        });
    };
    let work = layers.work().root;
    match Journal::find(layers) {
        Ok(_) => match super::apply::pending(layers)? {
            Some(Pending::Half | Pending::HalfUndone) => {
                find(Trouble::PendingApply, TreePath::from_clean("plyfs-apply"));
            }
            Some(Pending::Remains) => find(Trouble::Leftover, TreePath::from_clean("plyfs-apply")),
            Some(Pending::Done) | None => {}
        },
        // Of another lower: whatever it is, this upper cannot be judged.
        Err(UpperError::Refused(_)) => find(Trouble::PendingApply, TreePath::from_clean("plyfs-apply")),
        Err(error) => return Err(error),
    }
    for name in names(work, b"index")? {
        find(Trouble::Index, TreePath::from_clean("index").join(&name));
    }
    let inner = TreePath::from_clean("work");
    for name in names(work, b"work")? {
        let path = inner.join(&name);
        // The one that those of the upper are links of (K33).
        if layers.work().look(&path)?.is_some_and(|stat| stat.is_whiteout()) {
            continue;
        }
        if *name != *b"incompat" {
            find(Trouble::Leftover, path);
            continue;
        }
        let dir = at::open_dir_path(work, b"work").map_err(call("open", "work directory", &inner))?;
        for name in names(dir.as_fd(), b"incompat")? {
            // That of an apply was told above.
            if *name != *b"plyfs-apply" {
                find(Trouble::Volatile, path.join(&name));
            }
        }
    }
    Ok(findings)
}

/// The names in a directory of the work directory; none where there is none.
fn names(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Box<[u8]>>> {
    let failed = |what: &'static str| call(what, "work directory", &TreePath::from_clean(name));
    match at::open_dir_list(dir, name) {
        Err(Errno::NOENT) => Ok(Vec::new()),
        open => {
            let open = open.map_err(failed("open"))?;
            let listing = Listing::read(&open).map_err(failed("list"))?;
            Ok(listing.iter().map(|raw| raw.name.into()).collect())
        }
    }
}
