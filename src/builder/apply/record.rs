//! Recording what an archive holds beside file data, while it is applied.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::sparse::Extent;
use super::tree::{Tree, aside_name};
use crate::builder::tar_split::{Reader, Record, Writer};
use crate::builder::{BuildError, Result, TreePath};
use crate::sys::{at, stat};

/// Takes down everything in an unnamed file: only at the end is it known which files are in the tree.
pub(super) struct Recorder {
    writer: Writer<File>,
}

impl Recorder {
    pub(super) fn new(root: BorrowedFd<'_>) -> Result<Self> {
        let file = super::scratch::unnamed_file(root)?;
        Ok(Self {
            writer: Writer::new(file)?,
        })
    }

    /// Bytes of the archive that are not data of a file of the tree.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.raw(bytes)
    }

    /// Data of a file of the tree.
    pub(super) fn file(&mut self, ino: u64, path: TreePath, extents: Vec<Extent>) -> Result<()> {
        self.writer.record(&Record::File { ino, path, extents })
    }

    /// Writes the record. Data of files that are not in the tree any more goes in whole.
    pub(super) fn finish(
        mut self,
        tree: &mut Tree<'_>,
        length: u64,
        digest: [u8; 32],
        to: &mut dyn Write,
    ) -> Result<()> {
        self.writer.record(&Record::End { length, digest })?;
        let mut file = self.writer.finish()?;
        let failed = |source| BuildError::Stream {
            what: "write what the archive holds beside file data",
            source,
        };
        io::Seek::rewind(&mut file).map_err(failed)?;
        if tree.buried.is_empty() {
            return io::copy(&mut file, to).map(|_| ()).map_err(failed);
        }
        let mut reader = Reader::new(file)?;
        let mut writer = Writer::new(to)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let record = reader.next()?;
            match &record {
                Record::Raw(length) => {
                    writer.record(&record)?;
                    let mut from = reader.take(*length);
                    loop {
                        let n = from.read(&mut buffer).map_err(failed)?;
                        if n == 0 {
                            break;
                        }
                        writer.bytes(buffer.get(..n).unwrap_or_default())?;
                    }
                }
                Record::File { ino, extents, path } if tree.buried.contains(*ino) => {
                    let file = buried(tree, *ino, path)?;
                    for extent in extents {
                        writer.record(&Record::Raw(extent.length))?;
                        copy_out(&file, *extent, path, &mut buffer, &mut writer)?;
                    }
                }
                Record::File { .. } => writer.record(&record)?,
                Record::End { .. } => {
                    writer.record(&record)?;
                    return writer.finish().map(|_| ());
                }
            }
        }
    }
}

fn buried(tree: &mut Tree<'_>, ino: u64, path: &TreePath) -> Result<File> {
    let aside = tree.aside()?;
    let call = |errno| BuildError::Call {
        what: "open what was",
        path: path.clone(),
        errno,
    };
    let name = aside_name(ino);
    let file = at::open_at(&aside.fd, &name, libc::O_RDONLY | libc::O_NONBLOCK).map_err(call)?;
    if stat::stat_fd(file.as_fd()).map_err(call)?.ino != ino {
        return Err(call(crate::sys::Errno::STALE));
    }
    Ok(File::from(file))
}

fn copy_out(
    file: &File,
    extent: Extent,
    path: &TreePath,
    buffer: &mut [u8],
    writer: &mut Writer<&mut dyn Write>,
) -> Result<()> {
    let (mut offset, mut left) = (extent.offset, extent.length);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..want).unwrap_or_default();
        let n = crate::sys::io::read_at(file, room, offset).map_err(|errno| BuildError::Call {
            what: "read what was",
            path: path.clone(),
            errno,
        })?;
        if n == 0 {
            return Err(BuildError::Call {
                what: "read what was",
                path: path.clone(),
                errno: crate::sys::Errno::IO,
            });
        }
        writer.bytes(room.get(..n).unwrap_or_default())?;
        offset = offset.saturating_add(n as u64);
        left = left.saturating_sub(n as u64);
    }
    Ok(())
}
