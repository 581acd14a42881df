//! Taking away what changes nothing. The view is the same before, after, and at every step between.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use super::error::call;
use super::inspect::{Item, scan};
use super::layers::Layers;
use super::{Result, UpperError};
use crate::builder::TreePath;
use crate::builder::diff::Letter;
use crate::sys::Errno;
use crate::sys::at::{self, SetTime};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};

/// What was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Whiteouts that hid nothing.
    pub whiteouts: Vec<TreePath>,
    /// Opaque marks that hid nothing.
    pub opaque_marks: Vec<TreePath>,
    /// Copies that were the same as the lower's.
    pub copies: Vec<TreePath>,
    /// Bytes on disk that those took.
    pub bytes: u64,
}

/// What to take away, in the order of the walk.
enum Useless {
    Whiteout,
    OpaqueMark,
    Copy(Stat),
}

/// What is useless in the upper, parents before children.
fn find(layers: &Layers) -> Result<Vec<(TreePath, Useless)>> {
    // What changed: the names, and the directories on the way to them.
    let mut told = HashSet::new();
    for change in layers.changes()? {
        let way = change.letter == Letter::Changed && change.differences.is_empty();
        if !way {
            told.insert(change.path);
        }
    }
    let mut items: Vec<Item> = Vec::new();
    scan(layers, &mut |item| {
        items.push(Item {
            path: item.path.clone(),
            ..*item
        });
        Ok(())
    })?;
    // How many names of a directory stay.
    let mut stay: HashMap<TreePath, u64> = HashMap::new();
    let mut useless = Vec::new();
    // Children come before their directory.
    for item in items.into_iter().rev() {
        let goes = if item.whiteout {
            item.is_stray()
        } else if item.stat.is_dir() {
            let merged = item
                .lower
                .is_some_and(|lower| lower.is_dir() && lower.mtime == item.stat.mtime);
            !item.path.is_root()
                && merged
                && item.merges
                && !item.marks.opaque
                && !told.contains(&item.path)
                && !stay.contains_key(&item.path)
        } else {
            item.merges && item.lower.is_some() && !told.contains(&item.path)
        };
        if goes {
            let what = if item.whiteout {
                Useless::Whiteout
            } else {
                Useless::Copy(item.stat)
            };
            useless.push((item.path, what));
            continue;
        }
        if let Some((above, _)) = item.path.split() {
            let count = stay.entry(above).or_default();
            *count = count.saturating_add(1);
        }
        if item.is_useless_opaque() {
            useless.push((item.path, Useless::OpaqueMark));
        }
    }
    useless.reverse();
    Ok(useless)
}

/// Copies in the upper that are the same as the lower's.
pub(super) fn useless_copies(layers: &Layers) -> Result<Vec<TreePath>> {
    Ok(find(layers)?
        .into_iter()
        .filter(|(_, what)| matches!(what, Useless::Copy(_)))
        .map(|(path, _)| path)
        .collect())
}

/// Removes whiteouts, opaque marks and copies that change nothing; with `dry_run` only tells them.
///
/// A copied-up directory goes when nothing is left in it and it is the same as the lower's, its time included. The
/// times of the directories that stay are kept.
///
/// # Errors
/// An apply that was interrupted; marks of `redirect_dir` or `metacopy`; what cannot be read or removed: what was
/// removed until then changed nothing.
pub fn vacuum(layers: &Layers, dry_run: bool) -> Result<Vacuumed> {
    super::apply::settle_unless(layers, dry_run)?;
    let mut report = Vacuumed::default();
    let mut inodes = HashMap::new();
    for (path, what) in find(layers)?.into_iter().rev() {
        if !dry_run {
            match what {
                Useless::OpaqueMark => remove_mark(layers, &path)?,
                Useless::Whiteout => remove(layers, &path, false)?,
                Useless::Copy(stat) => remove(layers, &path, stat.is_dir())?,
            }
        }
        match what {
            Useless::OpaqueMark => report.opaque_marks.push(path),
            Useless::Whiteout => report.whiteouts.push(path),
            Useless::Copy(stat) => {
                // The room is free when the last name goes.
                let names: &mut u32 = inodes.entry(stat.ino).or_default();
                *names = names.saturating_add(1);
                if stat.is_dir() || *names >= stat.nlink {
                    report.bytes = report.bytes.saturating_add(stat.blocks.saturating_mul(512));
                }
                report.copies.push(path);
            }
        }
    }
    for list in [
        &mut report.whiteouts,
        &mut report.opaque_marks,
        &mut report.copies,
    ] {
        list.sort_by(crate::builder::walk::order);
    }
    Ok(report)
}

fn remove(layers: &Layers, path: &TreePath, directory: bool) -> Result<()> {
    let (dir, name) = layers.upper().parent(path)?;
    let before = stat::stat_fd(&dir).map_err(call("look above", "upper", path))?;
    let done = if directory {
        at::rmdir_at(&dir, name)
    } else {
        at::unlink_at(&dir, name)
    };
    done.map_err(call("remove", "upper", path))?;
    at::set_times_fd(&dir, SetTime::At(before.atime), SetTime::At(before.mtime)).map_err(call(
        "set the times above",
        "upper",
        path,
    ))
}

fn remove_mark(layers: &Layers, path: &TreePath) -> Result<()> {
    let dir = layers.upper().dir(path)?;
    for namespace in &layers.namespaces {
        let name = [namespace.prefix(), b"opaque"].concat();
        match xattr::remove(Target::Fd(dir.as_fd()), &name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => {
                return Err::<(), UpperError>(call("remove the opaque mark of", "upper", path)(errno));
            }
        }
    }
    Ok(())
}
