//! `plyfs image save`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::builder::newborn::Newborn;
use crate::cli::Failure;
use crate::cli::progress::Bar;
use crate::cli::store::open;
use crate::store::{Compression, Format, SaveOptions, StoreError};

const EXAMPLES: &str = "\
Examples:
  plyfs image save -o debian.tar debian:12
  plyfs image save debian:12 | docker load
  plyfs image save --format oci --compress zstd -o all.tar debian app
  plyfs image save --format oci-dir -o layout debian
  skopeo inspect oci:layout

The layers' archives are byte for byte those that were loaded, so that their
digests stay the same.";

/// Write images to an archive that docker, podman and skopeo load.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SaveArgs {
    /// Names or ids.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Where to [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The form of the archive.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    /// Compress the layers.
    #[arg(long, value_enum, default_value_t)]
    compress: Compress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// Docker's archive.
    #[default]
    Docker,
    /// An OCI layout as a tar archive.
    Oci,
    /// An OCI layout as a directory.
    OciDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Compress {
    /// As they are.
    #[default]
    None,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
}

impl From<Compress> for Compression {
    fn from(how: Compress) -> Self {
        match how {
            Compress::None => Self::None,
            Compress::Gzip => Self::Gzip,
            Compress::Zstd => Self::Zstd,
        }
    }
}

impl SaveArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let compression = self.compress.into();
        let store = open(root)?;
        let mut images = Vec::new();
        for reference in &self.images {
            let image = store.image(reference)?;
            if !images
                .iter()
                .any(|there: &crate::store::Image| there.id() == image.id())
            {
                images.push(image);
            }
        }
        let format = match self.format {
            Form::Docker => Format::Docker,
            Form::Oci => Format::Oci,
            Form::OciDir => {
                let Some(place) = self.output else {
                    return Err(Failure::usage(
                        "--format oci-dir needs the directory: --output DIR",
                    ));
                };
                let bar = Bar::new();
                let fresh = Newborn::at(&place).map_err(StoreError::Build)?;
                store.save_layout(
                    images,
                    compression,
                    fresh.root(),
                    &place.display().to_string(),
                    &bar,
                )?;
                // As the file of the other forms: what has its name is on disk.
                fresh.sync().map_err(StoreError::Build)?;
                fresh.publish().map_err(StoreError::Build)?;
                return Ok(());
            }
        };
        let options = SaveOptions { format, compression };
        let bar = Bar::new();
        match self.output {
            Some(path) => {
                let mut target = Target::open(&path).map_err(StoreError::io("write", &path))?;
                let mut to = BufWriter::with_capacity(1 << 18, &target.file);
                store.save(images, options, &mut to, &path.display().to_string(), &bar)?;
                drop(to);
                target.keep().map_err(StoreError::io("write", &path))?;
            }
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::usage(
                    "standard output is a terminal: name a file with --output, or pipe it on",
                ));
            }
            None => {
                let mut to = BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
                store.save(images, options, &mut to, "standard output", &bar)?;
                to.flush()?;
            }
        }
        Ok(())
    }
}

/// A file that appears under its name when it is whole; what is no regular file (a device, a pipe) is written to.
struct Target {
    file: File,
    /// The temporary name, and the one it will have.
    names: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: &Path) -> std::io::Result<Self> {
        let special = std::fs::metadata(path).is_ok_and(|found| {
            let kind = found.file_type();
            kind.is_char_device() || kind.is_block_device() || kind.is_fifo()
        });
        if special {
            let file = File::options().write(true).open(path)?;
            return Ok(Self { file, names: None });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(name);
        Ok(Self {
            file: File::create_new(&part)?,
            names: Some((part, path.to_owned())),
        })
    }

    fn keep(&mut self) -> std::io::Result<()> {
        if let Some((part, path)) = self.names.take() {
            self.file.sync_all()?;
            std::fs::rename(part, path)?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.names
            && let Err(error) = std::fs::remove_file(part)
        {
            log::warn!("{}: {error}", part.display());
        }
    }
}
