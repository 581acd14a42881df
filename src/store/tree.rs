//! The tree of a new layer, and what is recorded beside it.

use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::layer::LayerDir;
use super::tmp::TmpDir;
use super::{DiffId, Result, StoreError};
use crate::builder::apply::{ApplyOptions, Limits, apply_tar};
use crate::builder::manifest::{Parent, Recording, record};
use crate::builder::{BuildError, Linker, Progress, TreePath, clone_tree};
use crate::mount::who;

/// What a layer's birth cost: the file `birth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Bytes of the uncompressed archive.
    pub archive_bytes: u64,
    /// Objects in the tree.
    pub objects: u64,
    /// Names that share the parent's inode.
    pub linked: u64,
    /// Files whose link could not be made, that share the blocks instead.
    pub reflinked: u64,
    /// Files whose link could not be made, that were copied.
    pub copied: u64,
    /// Bytes in those.
    pub bytes_copied: u64,
}

/// An archive that becomes a layer.
pub(super) struct Incoming<R> {
    /// For the progress: "layer 2 of 5".
    pub(super) title: String,
    /// Bytes of the archive as it is packed, where that is known.
    pub(super) size: Option<u64>,
    pub(super) archive: R,
}

/// What came of an archive.
pub(super) struct Built {
    pub(super) diff_id: DiffId,
    /// What is not in the tree although it is in the archive, and why.
    pub(super) notes: Vec<(TreePath, String)>,
}

/// Builds the tree `root` in `fresh`, and the files beside it but for `parent`.
pub(super) fn build(
    parent: Option<LayerDir<'_>>,
    fresh: &TmpDir,
    incoming: Incoming<impl Read + Send>,
    expected: Option<DiffId>,
    limits: Limits,
    progress: &dyn Progress,
) -> Result<Built> {
    let root = fresh.make_dir("root", 0o755)?;
    fresh.make_dir("overflow", 0o700)?;
    let mut birth = Birth::default();
    if let Some(parent) = parent {
        let linker = Linker::with_overflow(parent.sub_dir("overflow")?);
        clone_tree(parent.sub_dir("root")?.as_fd(), root.as_fd(), &linker, progress)?;
        let links = linker.report();
        birth.linked = links.linked;
        birth.reflinked = links.reflinked;
        birth.copied = links.copied;
        birth.bytes_copied = links.bytes_copied;
    }

    let mut split = fresh.make_file("tar-split").map(BufWriter::new)?;
    let mut archive = incoming.archive;
    let options = ApplyOptions {
        limits,
        record: Some(&mut split),
        // Devices cannot be made in a user namespace; the manifest notes them.
        skip_devices: !who::is_true_root(),
        hash_files: true,
        expected: expected.map(|id| *id.as_bytes()),
        ..ApplyOptions::default()
    };
    progress.begin(&incoming.title, incoming.size);
    let applied = apply_tar(root.as_fd(), &mut archive, options, progress)?;
    split
        .flush()
        .map_err(StoreError::io("write", fresh.path().join("tar-split")))?;
    // What follows a compressed archive is part of the blob whose digest was promised.
    std::io::copy(&mut archive, &mut std::io::sink()).map_err(|source| BuildError::Stream {
        what: "read the layer archive",
        source,
    })?;
    let diff_id = DiffId::new(applied.diff_id);
    birth.archive_bytes = applied.archive_bytes;

    let notes = applied.changes.notes.list;
    let parent_root = parent.map(|parent| parent.sub_dir("root")).transpose()?;
    let inherited = match (parent, &parent_root) {
        (Some(parent), Some(root)) => Some(Parent {
            manifest: Box::new(parent.file("manifest")?),
            root: root.as_fd(),
        }),
        _ => None,
    };
    let recording = Recording {
        parent: inherited,
        known: Some(&applied.changes.hashes),
        skipped: &notes,
        ..Recording::default()
    };
    let mut manifest = fresh.make_file("manifest").map(BufWriter::new)?;
    let summary = record(root.as_fd(), recording, &mut manifest, progress)?;
    manifest
        .flush()
        .map_err(StoreError::io("write", fresh.path().join("manifest")))?;
    birth.objects = summary.objects;
    fresh.write("links", &summary.groups.links(root.as_fd())?.encode())?;
    fresh.write("size", applied.changes.file_bytes.to_string().as_bytes())?;
    fresh.write("diff", diff_id.to_string().as_bytes())?;
    let text = serde_json::to_vec(&birth)
        .map_err(|error| StoreError::io("write", fresh.path().join("birth"))(error.into()))?;
    fresh.write("birth", &text)?;
    Ok(Built { diff_id, notes })
}
