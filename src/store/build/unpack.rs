//! Archives that ADD unpacks, and a context that comes as one.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::os::fd::AsFd;

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::error::Result;
use crate::builder::apply::{ApplyOptions, apply_tar, decompressed};
use crate::builder::{BuildError, Silent};

/// A tar header, and what it is read in.
const BLOCK: usize = 512;

/// Whether a file is a tar archive, packed or not: told by its content, as docker does.
///
/// # Errors
/// If it cannot be read.
pub fn is_archive(file: File) -> std::io::Result<bool> {
    let mut start = Vec::new();
    let unpacked = match unpacked(file).and_then(decompressed) {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Err(error),
        Err(error) if is_damage(&error) => return Ok(false),
        unpacked => unpacked?,
    };
    match unpacked.take(BLOCK as u64).read_to_end(&mut start) {
        // Something packed that is no archive, or that is damaged: it is copied as it is.
        Err(error) if is_damage(&error) => return Ok(false),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    Ok(is_header(&start))
}

fn is_damage(error: &std::io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn is_header(block: &[u8]) -> bool {
    if block.len() < BLOCK {
        return false;
    }
    let mut archive = tar::Archive::new(Cursor::new(block));
    let first = archive
        .entries()
        .ok()
        .and_then(|entries| entries.raw(true).next());
    // None for zeros only: an empty archive, or anything else.
    first.is_some_and(|entry| entry.is_ok())
}

/// The memory that unpacking xz may take: enough for what `xz -9` makes.
const XZ_MEMORY: u64 = 128 * 1024 * 1024;
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// The uncompressed form of an archive: plain, gzip, zstd or xz, told by its first bytes.
fn unpacked<'a>(archive: impl Read + Send + 'a) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    let mut archive = BufReader::new(archive);
    if !archive.fill_buf()?.starts_with(XZ_MAGIC) {
        return Ok(Box::new(archive));
    }
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
    Ok(Box::new(XzDecoder::new_stream(archive, stream)))
}

/// Unpacks an archive into an empty directory.
///
/// # Errors
/// For archives that are damaged or hostile; the text names the entry.
pub fn unpack(root: impl AsFd, archive: impl Read + Send) -> Result<()> {
    let options = ApplyOptions {
        refuse_marks: true,
        ..ApplyOptions::default()
    };
    let archive = unpacked(archive).map_err(unreadable)?;
    apply_tar(root.as_fd(), archive, options, &Silent)?;
    Ok(())
}

/// The words for an archive that could not be read.
pub(super) fn unreadable(source: std::io::Error) -> BuildError {
    BuildError::Stream {
        what: "read the archive",
        source,
    }
}
