//! What an archive held beside file data, so that it can be written again byte for byte from the layer's tree.
//!
//! A zstd stream of the line `plyfs tar-split 1` and of records, each a letter and its fields (numbers in LEB128):
//!
//! ```text
//!   R length bytes                       these bytes: headers, padding, data that is not in the tree
//!   F ino  length path  count (offset length)*
//!                                        data of the file at this path, these stretches of it one after the other;
//!                                        the inode number is the one it was born with, and only a hint
//!   E length digest                      the end: length and sha256 of the archive
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::{BuildError, Result, TreePath};
use crate::builder::apply::Extent;
use crate::sys::{at, stat};

/// The first line: what this is, and which form of it.
const MAGIC: &[u8] = b"plyfs tar-split 1\n";
/// The longest path and the longest list of stretches that is read back.
const MOST: u64 = 16 << 20;
/// Bytes in one step of copying.
const STEP: usize = 128 << 10;
/// Fast, and headers still shrink to a tenth.
const LEVEL: i32 = 3;

/// One record, but for the bytes of `R`, which follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// So many bytes.
    Raw(u64),
    /// Data of a file of the tree.
    File {
        /// The inode that was written.
        ino: u64,
        /// Where it is; no symlink on the way.
        path: TreePath,
        /// Stretches of it.
        extents: Vec<Extent>,
    },
    /// The end.
    End {
        /// Bytes of the archive.
        length: u64,
        /// Its sha256.
        digest: [u8; 32],
    },
}

/// Writes records.
pub(super) struct Writer<W: Write> {
    to: zstd::stream::write::Encoder<'static, W>,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> BuildError {
    move |source| BuildError::Stream { what, source }
}

const WRITE: &str = "write what the archive holds beside file data";
const READ: &str = "read what the archive held beside file data";

fn number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

impl<W: Write> Writer<W> {
    /// Begins with the first line.
    pub(super) fn new(to: W) -> Result<Self> {
        let mut to = zstd::stream::write::Encoder::new(to, LEVEL).map_err(failed(WRITE))?;
        to.write_all(MAGIC).map_err(failed(WRITE))?;
        Ok(Self { to })
    }

    /// Bytes of the archive.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.record(&Record::Raw(bytes.len() as u64))?;
        self.bytes(bytes)
    }

    /// A part of the bytes of a record `R`.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(failed(WRITE))
    }

    /// A record.
    pub(super) fn record(&mut self, record: &Record) -> Result<()> {
        let mut text = Vec::new();
        match record {
            Record::Raw(length) => {
                text.push(b'R');
                number(&mut text, *length);
            }
            Record::File { ino, path, extents } => {
                text.push(b'F');
                number(&mut text, *ino);
                number(&mut text, path.as_bytes().len() as u64);
                text.extend_from_slice(path.as_bytes());
                number(&mut text, extents.len() as u64);
                for extent in extents {
                    number(&mut text, extent.offset);
                    number(&mut text, extent.length);
                }
            }
            Record::End { length, digest } => {
                text.push(b'E');
                number(&mut text, *length);
                text.extend_from_slice(digest);
            }
        }
        self.bytes(&text)
    }

    /// Ends the stream.
    pub(super) fn finish(self) -> Result<W> {
        self.to.finish().map_err(failed(WRITE))
    }
}

/// Reads records.
pub(super) struct Reader<R: Read> {
    from: BufReader<zstd::stream::read::Decoder<'static, BufReader<R>>>,
}

impl<R: Read> Reader<R> {
    /// Reads the first line.
    pub(super) fn new(from: R) -> Result<Self> {
        let from = zstd::stream::read::Decoder::new(from).map_err(failed(READ))?;
        let mut from = BufReader::with_capacity(STEP, from);
        let mut magic = vec![0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(failed(READ))?;
        if magic != MAGIC {
            return Err(damaged("it begins with something else"));
        }
        Ok(Self { from })
    }

    /// The next record. The bytes of `R` have to be read before the next.
    pub(super) fn next(&mut self) -> Result<Record> {
        match self.byte()? {
            b'R' => Ok(Record::Raw(self.number()?)),
            b'F' => {
                let ino = self.number()?;
                let length = self.number()?;
                let mut path = Vec::new();
                if length > MOST
                    || self.take(length).read_to_end(&mut path).map_err(failed(READ))? as u64 != length
                {
                    return Err(damaged("a path is too long"));
                }
                let count = self.number()?;
                if count > MOST / 16 {
                    return Err(damaged("a list of stretches is too long"));
                }
                let mut extents = Vec::new();
                for _ in 0..count {
                    let (offset, length) = (self.number()?, self.number()?);
                    extents.push(Extent { offset, length });
                }
                let path = TreePath::from_clean(path);
                Ok(Record::File { ino, path, extents })
            }
            b'E' => {
                let length = self.number()?;
                let mut digest = [0; 32];
                self.from.read_exact(&mut digest).map_err(failed(READ))?;
                Ok(Record::End { length, digest })
            }
            _ => Err(damaged("a record is of no known kind")),
        }
    }

    /// At most so many of the next bytes.
    pub(super) fn take(&mut self, length: u64) -> io::Take<&mut impl BufRead> {
        self.from.by_ref().take(length)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte).map_err(failed(READ))?;
        let [byte] = byte;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err(damaged("a number is too great"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }
}

fn damaged(reason: &str) -> BuildError {
    BuildError::Stream {
        what: READ,
        source: io::Error::new(io::ErrorKind::InvalidData, reason),
    }
}

/// Writes the archive again: `split` as [`apply_tar`](super::apply::apply_tar) recorded it, `root` the tree that
/// came of it, unchanged but for what lies beside the layer's own files. Answers the bytes written.
///
/// # Errors
/// A digest that is not the archive's, when the tree was changed; a path that is gone; else as reading and writing.
pub fn assemble(split: impl Read, root: BorrowedFd<'_>, to: impl Write) -> Result<u64> {
    let mut records = Reader::new(split)?;
    let mut to = Output {
        to: BufWriter::with_capacity(STEP, to),
        hash: Sha256::new(),
        length: 0,
    };
    let mut files = Files {
        root,
        dir: TreePath::root(),
        fd: None,
    };
    let mut buffer = vec![0; STEP];
    loop {
        match records.next()? {
            Record::Raw(length) => {
                let mut from = records.take(length);
                loop {
                    let n = from.read(&mut buffer).map_err(failed(READ))?;
                    if n == 0 {
                        break;
                    }
                    to.write(buffer.get(..n).unwrap_or_default())?;
                }
                if from.limit() > 0 {
                    return Err(damaged("it is cut off"));
                }
            }
            Record::File { path, extents, .. } => {
                let file = files.open(&path)?;
                for extent in extents {
                    copy(&file, extent, &path, &mut buffer, &mut to)?;
                }
            }
            Record::End { length, digest } => return to.finish(length, digest),
        }
    }
}

fn copy(
    file: &File,
    extent: Extent,
    path: &TreePath,
    buffer: &mut [u8],
    to: &mut Output<impl Write>,
) -> Result<()> {
    let (mut offset, mut left) = (extent.offset, extent.length);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..want).unwrap_or_default();
        match file.read_at(room, offset) {
            Ok(0) => {
                return Err(BuildError::Refused {
                    path: path.clone(),
                    reason: "the file is shorter than it was in the layer's archive".into(),
                });
            }
            Ok(n) => {
                to.write(room.get(..n).unwrap_or_default())?;
                offset = offset.saturating_add(n as u64);
                left = left.saturating_sub(n as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read a file of the layer")(error)),
        }
    }
    Ok(())
}

/// The archive being written.
struct Output<W: Write> {
    to: BufWriter<W>,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.to
            .write_all(bytes)
            .map_err(failed("write the layer archive"))
    }

    fn finish(mut self, length: u64, digest: [u8; 32]) -> Result<u64> {
        self.to.flush().map_err(failed("write the layer archive"))?;
        let found = <[u8; 32]>::from(self.hash.finalize());
        if (self.length, found) != (length, digest) {
            return Err(BuildError::Digest {
                what: "the archive made from the layer's tree".into(),
                expected: format!("sha256:{}", hex::encode(digest)),
                found: format!("sha256:{}", hex::encode(found)),
            });
        }
        Ok(self.length)
    }
}

/// Opens the tree's files; the last directory stays open.
struct Files<'a> {
    root: BorrowedFd<'a>,
    dir: TreePath,
    fd: Option<OwnedFd>,
}

impl Files<'_> {
    fn open(&mut self, path: &TreePath) -> Result<File> {
        let call = |errno| BuildError::Call {
            what: "open",
            path: path.clone(),
            errno,
        };
        let refused = || BuildError::Refused {
            path: path.clone(),
            reason: "the layer's archive has a file here, the tree has none".into(),
        };
        let (dir, name) = path.split().ok_or_else(refused)?;
        if dir != self.dir {
            let mut fd = None;
            for name in dir.names() {
                let above = fd.as_ref().map_or(self.root, OwnedFd::as_fd);
                let next = at::open_dir_path(above, name).map_err(call)?;
                fd = Some(next);
            }
            self.fd = fd;
            self.dir = dir;
        }
        let dir = self.fd.as_ref().map_or(self.root, OwnedFd::as_fd);
        // A fifo or a device is looked at before it could be opened.
        if !stat::stat_at(dir, name).map_err(call)?.is_file() {
            return Err(refused());
        }
        at::open_at(dir, name, libc::O_RDONLY | libc::O_NONBLOCK)
            .map(File::from)
            .map_err(call)
    }
}
