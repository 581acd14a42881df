//! The store that a command works on: the global option `--root`.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::mount::who;
use crate::store::{Store, StoreError, userns};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Grammar { .. } => Self::usage(error),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Opens the store at `root`, or the one in the user's data directory.
///
/// An ordinary user's process moves into its user namespace for that: to be called before there are threads.
pub(super) fn open(root: Option<&Path>) -> Result<Store, Failure> {
    let path = place(root)?;
    userns::enter(&path)?;
    Ok(Store::open(&path)?)
}

/// Where the store is, or will be: `root`, or the user's data directory.
pub(super) fn place(root: Option<&Path>) -> Result<PathBuf, Failure> {
    match root {
        Some(path) => Ok(path.to_owned()),
        None => default_path(),
    }
}

fn default_path() -> Result<PathBuf, Failure> {
    who::own_directory("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        Failure::Failed(
            "there is no home directory to keep images in: set HOME or XDG_DATA_HOME, or name --root"
                .to_owned(),
        )
    })
}
