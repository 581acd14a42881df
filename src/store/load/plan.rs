//! What an image archive says it holds, before a layer of it is read.

use super::check::Promise;
use super::members::Members;
use crate::store::{BlobId, DiffId, Result, StoreError};

/// Where a layer is, and what is promised about it.
#[derive(Debug, Clone)]
pub(super) struct LayerSource {
    /// The member.
    pub(super) member: String,
    /// Of the member as it is packed.
    pub(super) promise: Option<Promise>,
    /// Of the archive in it; none where only reading it tells.
    pub(super) diff_id: Option<DiffId>,
}

/// One image of the archive.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) config: Config,
    /// Byte for byte, where there is one.
    pub(super) manifest: Option<Vec<u8>>,
    /// The base first.
    pub(super) layers: Vec<LayerSource>,
    /// Its names, as they stand in the archive.
    pub(super) names: Vec<String>,
    /// What `--ref` may name it by.
    pub(super) refs: Vec<String>,
}

/// An image's config.
#[derive(Debug, Clone)]
pub(super) enum Config {
    /// Byte for byte.
    Whole(Vec<u8>),
    /// Made when the diff ids are known, from what docker wrote before version 1.10.
    Old(super::legacy::Old),
}

/// Reads a small member that must be there, and checks its digest.
pub(super) fn small(members: &mut Members, name: &str, promise: Option<&Promise>) -> Result<Vec<u8>> {
    let shown = members.shown.clone();
    let data = members
        .small(name)?
        .ok_or_else(|| StoreError::archive(&shown, format!("{name} is missing")))?;
    if let Some(promise) = promise {
        let found = BlobId::hash(&data);
        if found != promise.digest {
            return Err(StoreError::archive(
                format!("{shown}: {name}"),
                format!(
                    "it has the digest {found}, not {}: it is damaged or was replaced",
                    promise.digest
                ),
            ));
        }
        if let Some(size) = promise.size.filter(|size| *size != data.len() as u64) {
            return Err(StoreError::archive(
                format!("{shown}: {name}"),
                format!("it has {} bytes, not the promised {size}", data.len()),
            ));
        }
    }
    Ok(data)
}

/// Parses a small member.
pub(super) fn parse<T: serde::de::DeserializeOwned>(members: &Members, name: &str, data: &[u8]) -> Result<T> {
    serde_json::from_slice(data).map_err(|error| {
        StoreError::archive(
            format!("{}: {name}", members.shown),
            format!("it cannot be understood: {error}"),
        )
    })
}
