//! An image of a bare root file system.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::image::{Arch, Os};
use serde_json::json;

use super::tmp::TmpDir;
use super::{DiffId, ImageId, Layer, Name, Result, Store, StoreError};
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
    ) -> Result<ImageId> {
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
    ) -> Result<ImageId> {
        let shown = path.display().to_string();
        let tree = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
        // Against an empty directory everything is new.
        let nothing = TmpDir::new(self, 0o700)?;
        let empty = nothing.dir()?;
        let (layer, written) = self
            .add_written_layer(
                None,
                |to| layer_tar::write_layer_trees(empty, tree.as_fd(), to),
                progress,
            )
            .map_err(|error| match error {
                StoreError::Build(error) => StoreError::of(&shown)(error),
                error => error,
            })?;
        nothing.remove()?;
        for (path, why) in written.skipped {
            log::warn!("{shown}: {path} is left out: {why}");
        }
        self.import(&layer, &shown, name)
    }

    fn import(&self, layer: &Layer, shown: &str, name: Option<&Name>) -> Result<ImageId> {
        let config = config(&layer.diff_id()?, shown)?;
        self.add_image(&config, None, name.map(std::slice::from_ref).unwrap_or_default())
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
