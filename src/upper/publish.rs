//! Names change places: forwards, and back.
//!
//! What a slot holds tells how far a step is, so that every step can be done again by somebody who does not know:
//!
//! ```text
//!                       slot before   lower before     slot after   lower after
//!   an object comes     new           -                -            new
//!   in place of one     new           old              old          new
//!   an object goes      -             old              old          -
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use super::error::call;
use super::journal::{Known, Record, Step};
use super::layers::Layers;
use super::reach::{Tree, look_in};
use super::stage::slot_name;
use super::{Result, UpperError};
use crate::builder::{Kind, TreePath, Walk};
use crate::sys::at::{self, RenameHow};
use crate::sys::stat::{self, Stat, Time};
use crate::sys::{Errno, io};

/// Whether two are the same object, and whether both are none.
fn same(known: Option<&Known>, found: Option<&Stat>) -> bool {
    known.map(|known| known.ino) == found.map(|found| found.ino)
}

/// What a step finds.
struct Found {
    dir: std::os::fd::OwnedFd,
    slot: Option<Stat>,
    target: Option<Stat>,
}

fn find(lower: Tree<'_>, slots: BorrowedFd<'_>, number: usize, path: &TreePath) -> Result<Found> {
    let (dir, name) = lower.parent(path)?;
    let slot = look_in(slots, &slot_name(number)).map_err(call("look at the slot of", "lower", path))?;
    let target = look_in(dir.as_fd(), name).map_err(call("look at", "lower", path))?;
    Ok(Found { dir, slot, target })
}

/// Refuses a lower that is not as it was when the steps were made.
pub(super) fn verify(layers: &Layers, record: &Record) -> Result<()> {
    for step in &record.steps {
        let path = step.path();
        if layers.lower().look(&path)?.as_ref().map(Known::of) != step.old {
            return Err(UpperError::Changed {
                path,
                how: "it was changed in the lower while the changes were made ready",
            });
        }
    }
    Ok(())
}

/// Does all steps that are not done yet.
pub(super) fn forwards(layers: &Layers, slots: BorrowedFd<'_>, record: &Record) -> Result<()> {
    for (number, step) in record.steps.iter().enumerate() {
        let path = step.path();
        let found = find(layers.lower(), slots, number, &path)?;
        let (old, new) = (step.old.as_ref(), step.new.as_ref());
        let (slot, target) = (found.slot.as_ref(), found.target.as_ref());
        if same(old, slot) && same(new, target) {
            continue;
        }
        if !same(new, slot) || !same(old, target) {
            return Err(UpperError::Changed {
                path,
                how: "it was changed in the lower while the changes were applied",
            });
        }
        turn(&found, slots, number, step, &path, step.new.is_some())?;
    }
    give(layers, record, true)
}

/// Takes all steps back that are done.
pub(super) fn backwards(layers: &Layers, slots: BorrowedFd<'_>, record: &Record) -> Result<()> {
    // Before, for the right to change the names in a directory; and after, for the times.
    give(layers, record, false)?;
    for (number, step) in record.steps.iter().enumerate().rev() {
        let path = step.path();
        let found = find(layers.lower(), slots, number, &path)?;
        let (old, new) = (step.old.as_ref(), step.new.as_ref());
        let (slot, target) = (found.slot.as_ref(), found.target.as_ref());
        if same(new, slot) {
            continue;
        }
        if !same(old, slot) || !same(new, target) {
            return Err(UpperError::Refused(format!(
                "{path} of the lower was changed by somebody else since it was applied, so that it cannot be put back: \
                 move it away, and try again"
            )));
        }
        turn(&found, slots, number, step, &path, step.old.is_some())?;
    }
    give(layers, record, false)
}

/// Exchanges the slot and the name, or moves what is in one of them to the other: to the lower if it `comes`.
fn turn(
    found: &Found,
    slots: BorrowedFd<'_>,
    number: usize,
    step: &Step,
    path: &TreePath,
    comes: bool,
) -> Result<()> {
    let slot = slot_name(number);
    let name = path.names().next_back().unwrap_or_default();
    let done = if step.old.is_some() && step.new.is_some() {
        at::rename_at(slots, &slot, &found.dir, name, RenameHow::Exchange)
    } else if comes {
        at::rename_at(slots, &slot, &found.dir, name, RenameHow::NoReplace)
    } else {
        at::rename_at(&found.dir, name, slots, &slot, RenameHow::NoReplace)
    };
    done.map_err(call("change the name", "lower", path))
}

/// Brings the directories in which names changed to disk.
pub(super) fn sync(tree: Tree<'_>, others: &[BorrowedFd<'_>], record: &Record) -> Result<()> {
    for step in &record.dirs {
        let path = step.path();
        // In the upper most are gone with what was taken.
        if !tree.look(&path)?.is_some_and(|stat| stat.is_dir()) {
            continue;
        }
        match at::reopen_dir(tree.dir(&path)?) {
            Ok(dir) => io::sync(dir, false),
            // May be entered but not read: with all the others of its file system.
            Err(Errno::ACCESS) => io::sync_fs(tree.root),
            Err(errno) => Err(errno),
        }
        .map_err(call("bring to disk", tree.name, &path))?;
    }
    for dir in others {
        io::sync(dir, false).map_err(call("bring to disk", "journal", &TreePath::root()))?;
    }
    Ok(())
}

/// Gives the directories of both layers their attributes; deep ones first.
fn give(layers: &Layers, record: &Record, forwards: bool) -> Result<()> {
    for step in record.dirs.iter().rev() {
        let path = step.path();
        let dir = layers.lower().dir(&path)?;
        let (before, after) = if forwards {
            (&step.old, &step.new)
        } else {
            (&step.new, &step.old)
        };
        after
            .give(before, dir.as_fd())
            .map_err(call("set the attributes of", "lower", &path))?;
    }
    Ok(())
}

/// Refuses to undo what was changed after `applied`, the time when the apply was done.
pub(super) fn untouched(layers: &Layers, record: &Record, applied: Time) -> Result<()> {
    let refuse = |path: &TreePath, how: &str| {
        Err(UpperError::Refused(format!(
            "{path} of the lower {how} since the changes were applied: undoing them would lose that; nothing was undone"
        )))
    };
    for step in &record.steps {
        let path = step.path();
        let found = layers.lower().look(&path)?;
        if !same(step.new.as_ref(), found.as_ref()) {
            return refuse(&path, "was replaced or made");
        }
        let Some(found) = found else { continue };
        if found.ctime > applied {
            return refuse(&path, "was changed");
        }
        if !found.is_dir() {
            continue;
        }
        let dir = layers.lower().dir(&path)?;
        let mut walk = Walk::new(dir.as_fd())?;
        while let Some(inner) = walk.advance()? {
            let stat =
                stat::stat_at(inner.dir, inner.name).map_err(call("look at", "lower", &inner.path()))?;
            if stat.ctime > applied {
                let whole = inner
                    .path()
                    .names()
                    .fold(path.clone(), |path, name| path.join(name));
                return refuse(&whole, "was changed");
            }
            if inner.kind == Kind::Directory {
                walk.enter()?;
            }
        }
    }
    Ok(())
}
