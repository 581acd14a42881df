//! Dropping the changes of one path: the lower's object shows again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::AsFd;

use super::error::call;
use super::journal::{self, Attributes};
use super::layers::Layers;
use super::{Result, UpperError};
use crate::builder::remove::remove_tree;
use crate::builder::walk::Listing;
use crate::builder::{Meta, TreePath};
use crate::sys::at::{self, RenameHow, SetTime};
use crate::sys::stat;
use crate::sys::xattr::Target;

/// What was dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Objects of the upper at the path: 1, or for the root as many as it held.
    pub objects: u64,
    /// The lower shows something there now.
    pub lower_shows: bool,
}

/// Drops all that the upper changes at `path` and below it, in one step (for the root, one for each name in it).
///
/// # Errors
/// When nothing changed there; when a directory above it hides the lower's, so that the lower's object could not show;
/// when an apply was interrupted.
pub fn drop_path(layers: &Layers, path: &TreePath) -> Result<Dropped> {
    super::apply::settle(layers)?;
    let Some((above, name)) = path.split() else {
        return drop_all(layers);
    };
    may_show(layers, path)?;
    let nothing = || {
        UpperError::Refused(format!(
            "{path}: nothing changed there: 'plyfs upper diff' shows the changes"
        ))
    };
    if layers.upper().look(path)?.is_none() {
        return Err(nothing());
    }
    let dir = layers.upper().dir(&above)?;
    let before = stat::stat_fd(&dir).map_err(call("look above", "upper", path))?;
    throw_away(layers, dir.as_fd(), name, path)?;
    at::set_times_fd(&dir, SetTime::At(before.atime), SetTime::At(before.mtime)).map_err(call(
        "set the times above",
        "upper",
        path,
    ))?;
    Ok(Dropped {
        objects: 1,
        lower_shows: layers.lower().look(path)?.is_some(),
    })
}

/// Moves it to where the next mount would remove it, in one step; then removes it.
fn throw_away(layers: &Layers, dir: std::os::fd::BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<()> {
    let inner = journal::open_inner(layers)?;
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    let away = format!("#drop-{:016x}", hasher.finish()).into_bytes();
    at::rename_at(dir, name, &inner, &away, RenameHow::NoReplace).map_err(call("drop", "upper", path))?;
    if let Err(error) = remove_tree(inner.as_fd(), &away) {
        log::warn!("the dropped object is left in the work directory until the next mount: {error}");
    }
    Ok(())
}

/// Refuses a path whose lower object could not show, because a directory above hides it.
fn may_show(layers: &Layers, path: &TreePath) -> Result<()> {
    let mut here = TreePath::root();
    let names: Vec<&[u8]> = path.names().collect();
    let mut hider = None;
    for name in names.split_last().map_or(&[][..], |(_, above)| above) {
        here = here.join(name);
        let Some(stat) = layers.upper().look(&here)? else {
            return Err(UpperError::Refused(format!(
                "{path}: nothing changed there: 'plyfs upper diff' shows the changes"
            )));
        };
        if !stat.is_dir() {
            return Err(UpperError::Refused(format!(
                "{path}: {here} above it was replaced or removed: drop that"
            )));
        }
        let dir = layers.upper().dir(&here)?;
        let marks = layers.marks(Target::Fd(dir.as_fd()), &here)?;
        let lower = layers.lower().look(&here)?;
        if marks.opaque || lower.is_some_and(|lower| !lower.is_dir()) {
            hider.get_or_insert(here.clone());
        }
    }
    match hider {
        Some(hider) if layers.lower().look(path)?.is_some() => Err(UpperError::Refused(format!(
            "{path}: the directory {hider} replaces the lower's as a whole, so that the lower's object cannot show in it: \
             drop {hider}"
        ))),
        _ => Ok(()),
    }
}

fn drop_all(layers: &Layers) -> Result<Dropped> {
    let root = TreePath::root();
    let upper = layers.upper();
    let open = at::open_dir_list(upper.root, b".").map_err(call("open", "upper", &root))?;
    let mut dropped = Dropped {
        objects: 0,
        lower_shows: true,
    };
    for raw in Listing::read(&open).map_err(call("list", "upper", &root))?.iter() {
        throw_away(layers, upper.root, raw.name, &root.join(raw.name))?;
        dropped.objects = dropped.objects.saturating_add(1);
    }
    let read = |dir: std::os::fd::BorrowedFd<'_>| -> crate::sys::Result<Meta> {
        Meta::read(Target::Fd(dir), &stat::stat_fd(dir)?)
    };
    let failed = || call("set the attributes of", "upper", &root);
    let (wanted, found) = (
        read(layers.lower().root).map_err(failed())?,
        read(upper.root).map_err(failed())?,
    );
    // Marks of overlays are not part of what shows: the upper's stay, the lower's are not taken over.
    let mut xattrs = layers.shown(wanted.xattrs.clone());
    let marks = found.xattrs.iter().filter(|one| layers.is_private(&one.name));
    xattrs.extend(marks.cloned());
    xattrs.sort_unstable();
    Attributes::of(&wanted, &xattrs)
        .give(&Attributes::of(&found, &found.xattrs), upper.root)
        .map_err(failed())?;
    Ok(dropped)
}
