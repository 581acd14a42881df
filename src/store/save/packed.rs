//! A layer's archive as it is saved: as it is, or compressed.

use std::io::{self, Read, Seek, Write};

use sha2::{Digest as _, Sha256};

use crate::store::{BlobId, Layer, Result, Store, StoreError};

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all: their digests are the diff ids.
    #[default]
    None,
    /// With gzip: read by everything.
    Gzip,
    /// With zstd: faster and smaller; read by OCI's tools since 2020 or so.
    Zstd,
}

impl Compression {
    /// What follows the media type of a layer.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }
}

/// A layer ready to be written.
pub(super) struct Packed {
    pub(super) layer: Layer,
    pub(super) digest: BlobId,
    pub(super) size: u64,
    /// The compressed archive; none for the archive as it is, which is made while it is written.
    file: Option<std::fs::File>,
}

/// Hashes and counts what goes through.
struct Hashing<W> {
    to: W,
    hasher: Sha256,
    count: u64,
}

impl<W> Hashing<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            hasher: Sha256::new(),
            count: 0,
        }
    }

    fn digest(&self) -> BlobId {
        BlobId::new(self.hasher.clone().finalize().into())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.to.write(data)?;
        self.hasher.update(data.get(..n).unwrap_or_default());
        self.count = self.count.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Packed {
    pub(super) fn new(store: &Store, layer: Layer, how: Compression) -> Result<Self> {
        if how == Compression::None {
            return Ok(Self {
                digest: BlobId::new(*layer.diff_id()?.as_bytes()),
                size: layer.archive_bytes()?,
                layer,
                file: None,
            });
        }
        let tmp = store.path().join("tmp");
        let failed = || StoreError::io("write a layer in", &tmp);
        let file = store.unnamed_file()?;
        let mut to = Hashing::new(&file);
        match how {
            Compression::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(&mut to, flate2::Compression::default());
                layer.archive(&mut gzip)?;
                gzip.finish().map_err(failed())?;
            }
            Compression::Zstd | Compression::None => {
                let mut zstd = zstd::stream::write::Encoder::new(&mut to, 0).map_err(failed())?;
                layer.archive(&mut zstd)?;
                zstd.finish().map_err(failed())?;
            }
        }
        let (digest, size) = (to.digest(), to.count);
        Ok(Self {
            layer,
            digest,
            size,
            file: Some(file),
        })
    }

    pub(super) fn write(&mut self, mut to: &mut dyn Write) -> Result<()> {
        match &mut self.file {
            None => self.layer.archive(to).map(|_| ()),
            Some(file) => file
                .rewind()
                .and_then(|()| io::copy(&mut file.take(self.size), &mut to))
                .map(|_| ())
                .map_err(StoreError::io("write", "a layer")),
        }
    }
}
