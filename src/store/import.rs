//! An image of a bare root file system.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::image::{Arch, Os};
use serde_json::json;

use super::{DiffId, Layer, Loaded, Name, Result, Store, StoreError};
use crate::builder::{Progress, layer_tar};

impl Store {
    /// Makes an image with one layer of an archive: plain, or compressed with gzip or zstd.
    ///
    /// # Errors
    /// As [`Store::add_layer`] and [`Store::add_image`].
    pub fn import_archive(
        &self,
        archive: impl Read + Send,
        shown: &str,
        name: Option<&Name>,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let layer = self
            .add_layer(None, archive, None, progress)
            .map_err(|error| match error {
                StoreError::Build(error) => StoreError::of(shown)(error),
                error => error,
            })?;
        self.import(&layer, shown, name)
    }

    /// As [`Store::import_archive`], of a directory and everything in it.
    ///
    /// # Errors
    /// When the directory cannot be read; else as [`Store::import_archive`].
    pub fn import_directory(
        &self,
        path: &Path,
        name: Option<&Name>,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let shown = path.display().to_string();
        let tree = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
        let (layer, written) = self
            .add_written_layer(None, |to| layer_tar::write_layer_tree(tree.as_fd(), to), progress)
            .map_err(|error| match error {
                StoreError::Build(error) => StoreError::of(&shown)(error),
                error => error,
            })?;
        let mut loaded = self.import(&layer, &shown, name)?;
        let skipped = written.skipped.iter();
        loaded
            .notes
            .extend(skipped.map(|(path, why)| format!("{shown}: {path} is left out: {why}")));
        Ok(loaded)
    }

    fn import(&self, layer: &Layer, shown: &str, name: Option<&Name>) -> Result<Loaded> {
        let config = config(&layer.diff_id()?, shown)?;
        let names: Vec<Name> = name.cloned().into_iter().collect();
        Ok(Loaded {
            id: self.add_image(&config, None, &names)?,
            names,
            notes: layer.note_lines(),
        })
    }
}

/// The config of an image with this one layer, for this machine.
fn config(diff: &DiffId, shown: &str) -> Result<Vec<u8>> {
    let now = jiff::Timestamp::now().to_string();
    let config = json!({
        "architecture": Arch::default(),
        "config": {},
        "created": now,
        "history": [{"created": now, "comment": format!("Imported from {shown}")}],
        "os": Os::default(),
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    serde_json::to_vec(&config).map_err(|error| StoreError::archive(shown, error.to_string()))
}
