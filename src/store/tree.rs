//! The tree of a new layer, and what is recorded beside it.

use std::io::Read;

use super::layer::Layer;
use super::tmp::TmpDir;
use super::{DiffId, Result, StoreError};
use crate::builder::Progress;

pub(super) fn build(
    _parent: Option<&Layer>,
    _fresh: &TmpDir,
    _archive: impl Read + Send,
    expected: Option<DiffId>,
    _progress: &dyn Progress,
) -> Result<DiffId> {
    let found = DiffId::hash(b"");
    match expected {
        Some(expected) => Err(StoreError::digest("the layer", &expected, &found)),
        None => Ok(found),
    }
}
