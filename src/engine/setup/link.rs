//! The name `fuse-overlayfs` in a PATH, as a link to plyfs.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{EngineError, Result};
pub(super) use crate::engine::arguments::NAME;

/// What stands under a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum There {
    /// Nothing.
    Nothing,
    /// A link to this very program.
    Ours,
    /// A link to another plyfs, perhaps one that is gone.
    OtherPlyfs,
    /// Something else.
    Foreign,
}

/// Looks at a name.
pub(super) fn look(link: &Path, program: &Path) -> Result<There> {
    match std::fs::symlink_metadata(link) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(There::Nothing);
        }
        found => found.map_err(EngineError::io("look at", link))?,
    };
    let Ok(target) = std::fs::read_link(link) else {
        return Ok(There::Foreign);
    };
    let real = link.canonicalize();
    if real.as_deref().unwrap_or(&target) == program {
        Ok(There::Ours)
    } else if target.file_name().is_some_and(|name| name == "plyfs") {
        Ok(There::OtherPlyfs)
    } else {
        Ok(There::Foreign)
    }
}

/// Makes the link, or turns one that leads to another plyfs, in one step.
pub(super) fn make(link: &Path, program: &Path) -> Result<()> {
    let dir = link.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(EngineError::io("make the directory", dir))?;
    if look(link, program)? == There::Foreign {
        return Err(refused(link));
    }
    let new = dir.join(format!(".{NAME}.{}", std::process::id()));
    symlink(program, &new).map_err(EngineError::io("make the link", &new))?;
    std::fs::rename(&new, link).map_err(|error| {
        // It is of no use now, and says so itself if it stays.
        std::fs::remove_file(&new).unwrap_or_else(|error| log::warn!("{}: {error}", new.display()));
        EngineError::io("make the link", link)(error)
    })
}

/// Why a name is left alone.
pub(super) fn refused(link: &Path) -> EngineError {
    EngineError::Refused(format!(
        "{} is there already and is no link to plyfs: move it away first, or name another directory of dockerd's \
         PATH by --bin",
        link.display()
    ))
}

/// What became of a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// It is gone.
    Done,
    /// It is something else by now.
    NotOurs,
}

/// Takes a link to some plyfs away.
pub(super) fn remove(link: &Path) -> Result<Removed> {
    let target = match std::fs::read_link(link) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Removed::Done),
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(Removed::NotOurs),
        Err(error) => return Err(EngineError::io("look at", link)(error)),
    };
    if target.file_name().is_none_or(|name| name != "plyfs") {
        return Ok(Removed::NotOurs);
    }
    std::fs::remove_file(link).map_err(EngineError::io("remove", link))?;
    Ok(Removed::Done)
}

/// Where a program of this name is found first, in these directories.
pub(super) fn first(name: &str, dirs: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}
