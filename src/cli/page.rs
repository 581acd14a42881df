//! A page that is written for a browser: it takes its place when it is complete.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::Failure;

/// A page in the making; an old one under its name stays until [`NewPage::keep`].
pub(super) struct NewPage {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl NewPage {
    /// Makes the file beside its place.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            .prefix(".plyfs-page-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(parent.unwrap_or(Path::new(".")))
            .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes it and puts it into its place.
    pub(super) fn keep(mut self, text: &str) -> Result<(), Failure> {
        let path = self.path;
        let failed =
            |error: std::io::Error| Failure::Failed(format!("cannot write {}: {error}", path.display()));
        self.file.write_all(text.as_bytes()).map_err(failed)?;
        self.file.as_file().sync_data().map_err(failed)?;
        self.file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}
