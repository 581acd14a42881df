//! A tar archive as entries, read with bounded memory, whatever the archive says.
//!
//! Reads ustar, old GNU, star and pax archives as Go's reader does, since Docker's layers are what that reader takes
//! them to be: the type decides whether an entry has data, an extended header's size goes before the header's, global
//! headers have no effect.

use std::io::{BufRead, ErrorKind, Read};

use tar::{GnuExtSparseHeader, Header};

use super::number::{self, text};
use super::pax::Pax;
use super::sparse::{self, Extent};
use crate::builder::{BuildError, Kind, Result, TreePath, Xattr};
use crate::sys::stat::Time;

/// Bytes in a block of an archive.
const BLOCK: u64 = 512;
const BLOCK_SIZE: usize = 512;
/// The greatest extended header, long name, or map of holes.
const HEADER_MAX: u64 = 1 << 20;
/// The most that all headers before one entry may be.
const HEADERS_MAX: usize = 4 << 20;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// An object of its own.
    Object(Kind),
    /// A further name of an object.
    HardLink,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is written: may be absolute, may have `..`.
    pub name: Vec<u8>,
    /// What it makes.
    pub kind: EntryKind,
    /// Permission bits, 0 to 0o7777.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the file, holes with it.
    pub size: u64,
    /// Last change of the data.
    pub mtime: Time,
    /// Last access, where the archive tells.
    pub atime: Option<Time>,
    /// The text of a symlink, or the name of a hard link's target as it is written.
    pub link: Vec<u8>,
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// Extended attributes, in the order of their names.
    pub xattrs: Vec<Xattr>,
    /// Which pieces of the file the archive holds; `None` for all of it.
    pub extents: Option<Vec<Extent>>,
    /// Keys of extended headers that carry metadata which is not read (access lists as text, SELinux labels).
    pub unread: Vec<Vec<u8>>,
}

/// How the archive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The end mark was there; without it nothing tells that the archive was not cut off between two entries.
    pub marked: bool,
    /// Where the end mark or, without it, the archive ends.
    pub position: u64,
}

/// The entries of an archive. After [`Entries::next`] the entry's data is read from this itself.
#[derive(Debug)]
pub struct Entries<R> {
    source: R,
    /// Bytes of the archive read so far.
    position: u64,
    /// Bytes of the entry's data that are not read yet.
    left: u64,
    /// Bytes of padding behind them.
    padding: u64,
    /// What was read beside data since it was last taken; only if asked for.
    raw: Option<Vec<u8>>,
    end: Option<End>,
    limit: u64,
    limit_option: &'static str,
}

impl<R: BufRead> Entries<R> {
    /// The entries of the uncompressed archive `source`.
    pub fn new(source: R) -> Self {
        Self {
            source,
            position: 0,
            left: 0,
            padding: 0,
            raw: None,
            end: None,
            limit: u64::MAX,
            limit_option: "",
        }
    }

    /// Refuses archives of more than `limit` bytes; `option` raises the limit.
    #[must_use]
    pub fn limited(mut self, limit: u64, option: &'static str) -> Self {
        self.limit = limit;
        self.limit_option = option;
        self
    }

    /// Keeps what is read beside file data, for [`Entries::take_raw`].
    #[must_use]
    pub fn keeping_raw(mut self) -> Self {
        self.raw = Some(Vec::new());
        self
    }

    /// Where the archive is read, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the present entry's data that are not read yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// How the archive ended, once [`Entries::next`] has answered `None`.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What was read beside file data since the last call: headers and padding, byte for byte.
    pub fn take_raw(&mut self) -> Vec<u8> {
        self.raw.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The archive, to read what follows the end mark.
    pub(super) fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next entry; skips what is left of the data of the one before. `None` at the end mark, or at the end of the
    /// archive between two entries.
    ///
    /// # Errors
    /// For a damaged or truncated archive, one that is over the limit, or one that asks for what is refused: unknown
    /// types, numbers out of range. Also as the archive's reader. All are final.
    #[allow(clippy::should_implement_trait)] // an entry's data is read from this, so it cannot be borrowed by a loop
    pub fn next(&mut self) -> Result<Option<Entry>> {
        if self.end.is_some() {
            return Ok(None);
        }
        self.skip_data()?;
        let mut before = Before::default();
        loop {
            let Some(block) = self.header_block()? else {
                if before.any && self.end.is_some_and(|end| !end.marked) {
                    return Err(self.cut_off());
                }
                if before.any {
                    return Err(self.damaged("an extended header is followed by no entry"));
                }
                return Ok(None);
            };
            let header = Header::from_byte_slice(&block);
            self.check_sum(header, &block)?;
            match header.as_old().linkflag.first().copied().unwrap_or_default() {
                b'x' | b'X' => {
                    let text = self.header_text(header)?;
                    if let Err(reason) = before.pax.read(&text) {
                        return Err(self.damaged(&reason));
                    }
                }
                b'g' => drop(self.header_text(header)?),
                b'L' => before.name = Some(text(&self.header_text(header)?).to_vec()),
                b'K' => before.link = Some(text(&self.header_text(header)?).to_vec()),
                _ => return self.entry(header, before).map(Some),
            }
            before.any = true;
            if self.raw.as_ref().is_some_and(|raw| raw.len() > HEADERS_MAX) {
                return Err(self.damaged("an entry has more than 4 MiB of extended headers"));
            }
        }
    }

    /// The next header, or `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_SIZE]>> {
        let at = self.position;
        let Some(block) = self.block()? else {
            self.end = Some(End {
                marked: false,
                position: at,
            });
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        // Two blocks of zeros end an archive; some programs write one.
        match self.block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => {
                Err(self.damaged("a block of zeros stands between two entries"))
            }
            _ => {
                self.end = Some(End {
                    marked: true,
                    position: self.position,
                });
                Ok(None)
            }
        }
    }

    /// One block; `None` at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_SIZE]>> {
        let mut block = [0; BLOCK_SIZE];
        let mut done = 0;
        while let Some(rest) = block.get_mut(done..)
            && !rest.is_empty()
        {
            match self.source.read(rest) {
                Ok(0) if done == 0 => return Ok(None),
                Ok(0) => return Err(self.cut_off()),
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        self.forward(BLOCK)?;
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(&block);
        }
        Ok(Some(block))
    }

    /// A block that has to be there.
    fn need_block(&mut self) -> Result<[u8; BLOCK_SIZE]> {
        self.block()?.ok_or_else(|| self.cut_off())
    }

    fn forward(&mut self, bytes: u64) -> Result<()> {
        self.position = self.position.saturating_add(bytes);
        if self.position > self.limit {
            return Err(BuildError::Limit {
                what: "the size of the unpacked archive",
                limit: self.limit,
                option: self.limit_option,
            });
        }
        Ok(())
    }

    fn check_sum(&self, header: &Header, block: &[u8; BLOCK_SIZE]) -> Result<()> {
        let stored = number::number(&header.as_old().cksum);
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in block.iter().enumerate() {
            // The field itself counts as blanks. Old programs summed signed bytes.
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned = unsigned.saturating_add(i64::from(byte));
            signed = signed.saturating_add(i64::from(byte.cast_signed()));
        }
        if stored == Some(unsigned) || stored == Some(signed) {
            return Ok(());
        }
        Err(self.damaged("the checksum of a header is wrong"))
    }

    /// The data of a header that belongs to the next entry.
    fn header_text(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = self.number(&header.as_old().size, "size")?;
        let size = u64::try_from(size).map_err(|_| self.damaged("a size is negative"))?;
        if size > HEADER_MAX {
            return Err(self.damaged("an extended header or a long name is greater than 1 MiB"));
        }
        let mut data = Vec::new();
        for _ in 0..size.div_ceil(BLOCK) {
            data.extend_from_slice(&self.need_block()?);
        }
        data.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(data)
    }

    fn number(&self, field: &[u8], what: &str) -> Result<i64> {
        number::number(field).ok_or_else(|| self.damaged(&format!("the {what} in a header is no number")))
    }

    fn entry(&mut self, header: &Header, before: Before) -> Result<Entry> {
        let Before { pax, name, link, .. } = before;
        let old = header.as_old();
        let flag = old.linkflag.first().copied().unwrap_or_default();
        let name = match (pax.sparse.name.clone().or(pax.path), name) {
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => header_name(header),
        };
        let path = TreePath::from_clean(name.clone());
        let refused = |reason: String| BuildError::Refused {
            path: path.clone(),
            reason,
        };
        let kind = match flag {
            0 | b'0' | b'7' if name.ends_with(b"/") => EntryKind::Object(Kind::Directory),
            0 | b'0' | b'7' | b'S' => EntryKind::Object(Kind::File),
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Object(Kind::Symlink),
            b'3' => EntryKind::Object(Kind::CharDevice),
            b'4' => EntryKind::Object(Kind::BlockDevice),
            b'5' => EntryKind::Object(Kind::Directory),
            b'6' => EntryKind::Object(Kind::Fifo),
            other => {
                let shown = other.escape_ascii();
                return Err(refused(format!("an entry of the type '{shown}' is unknown")));
            }
        };
        let id = |pax: Option<u64>, field: &[u8], what: &str| {
            let id = match pax {
                Some(id) => i64::try_from(id).unwrap_or(i64::MAX),
                None => self.number(field, what)?,
            };
            // The greatest number means "leave it alone" to chown(2).
            match u32::try_from(id) {
                Ok(id) if id != u32::MAX => Ok(id),
                _ => Err(refused(format!("the {what} {id} is out of range"))),
            }
        };
        let uid = id(pax.uid, &old.uid, "owner")?;
        let gid = id(pax.gid, &old.gid, "group")?;
        let mode = self.number(&old.mode, "mode")?;
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Time {
                secs: self.number(&old.mtime, "time")?,
                nanos: 0,
            },
        };
        let atime = pax.atime.or_else(|| header_atime(header));
        let device = match kind {
            EntryKind::Object(Kind::CharDevice | Kind::BlockDevice) => {
                device_of(header).ok_or_else(|| refused("its device number is out of range".into()))?
            }
            _ => (0, 0),
        };
        let stored = match (kind, pax.size) {
            (EntryKind::Object(Kind::File), Some(size)) => size,
            (EntryKind::Object(Kind::File), None) => u64::try_from(self.number(&old.size, "size")?)
                .map_err(|_| refused("its size is negative".into()))?,
            // Whatever the header says, these have no data.
            _ => 0,
        };
        if stored > i64::MAX.unsigned_abs() {
            return Err(refused("its size is out of range".into()));
        }
        self.left = stored;
        self.padding = padding(stored);
        let mut entry = Entry {
            name,
            kind,
            permissions: (mode & 0o7777) as u32,
            uid,
            gid,
            size: stored,
            mtime,
            atime,
            link: match (pax.link, link) {
                (Some(link), _) | (None, Some(link)) => link,
                (None, None) => text(&old.linkname).to_vec(),
            },
            device,
            xattrs: pax.xattrs,
            extents: None,
            unread: pax.unread,
        };
        entry.xattrs.sort_unstable();
        if kind == EntryKind::Object(Kind::File) {
            let numbers = if flag == b'S' {
                Some(self.gnu_map(header)?)
            } else if pax.sparse.major == Some(1) && pax.sparse.minor == Some(0) {
                Some((self.lines_map()?, pax.sparse.real_size))
            } else {
                pax.sparse.map.map(|map| (map, pax.sparse.real_size))
            };
            if let Some((numbers, real_size)) = numbers {
                let real_size = real_size
                    .filter(|size| *size <= i64::MAX.unsigned_abs())
                    .ok_or_else(|| refused("it has holes, but no size that is in range".into()))?;
                let extents = sparse::map(&numbers, real_size, self.left);
                entry.extents = Some(extents.map_err(|reason| refused(reason.into()))?);
                entry.size = real_size;
            }
        }
        Ok(entry)
    }

    /// The map of an old GNU header and of the blocks that continue it, and the file's size.
    fn gnu_map(&mut self, header: &Header) -> Result<(Vec<u64>, Option<u64>)> {
        let wrong = "the map of holes in a header is damaged";
        let Some(gnu) = header.as_gnu() else {
            return Err(self.damaged("a file with holes has no GNU header"));
        };
        let mut numbers = Vec::new();
        let pairs = gnu
            .sparse
            .iter()
            .map(|pair| (&pair.offset[..], &pair.numbytes[..]));
        sparse::take_gnu(pairs, &mut numbers).ok_or_else(|| self.damaged(wrong))?;
        let mut more = gnu.isextended.first().is_some_and(|more| *more != 0);
        let mut blocks = 0_u64;
        while more {
            blocks = blocks.saturating_add(1);
            if blocks.saturating_mul(BLOCK) > HEADER_MAX {
                return Err(self.damaged("a map of holes is greater than 1 MiB"));
            }
            let mut next = GnuExtSparseHeader::new();
            *next.as_mut_bytes() = self.need_block()?;
            let pairs = next
                .sparse()
                .iter()
                .map(|pair| (&pair.offset[..], &pair.numbytes[..]));
            sparse::take_gnu(pairs, &mut numbers).ok_or_else(|| self.damaged(wrong))?;
            more = next.is_extended();
        }
        let size = u64::try_from(self.number(&gnu.realsize, "size of a file with holes")?).ok();
        Ok((numbers, size))
    }

    /// The map that stands before the data.
    fn lines_map(&mut self) -> Result<Vec<u64>> {
        let mut lines = sparse::Lines::default();
        let mut blocks = 0_u64;
        loop {
            blocks = blocks.saturating_add(1);
            if blocks.saturating_mul(BLOCK) > HEADER_MAX {
                return Err(self.damaged("a map of holes is greater than 1 MiB"));
            }
            self.left = self
                .left
                .checked_sub(BLOCK)
                .ok_or_else(|| self.damaged("a map of holes is greater than its entry"))?;
            let block = self.need_block()?;
            match lines.take(&block) {
                Some(true) => return Ok(lines.into_numbers()),
                Some(false) => {}
                None => return Err(self.damaged("a map of holes is damaged")),
            }
        }
    }

    /// At most `most` bytes of the present entry's data, as they lie in the reader's buffer; empty at its end.
    /// [`Entries::consume`] says how many were used.
    ///
    /// # Errors
    /// As [`Entries::next`].
    pub fn peek(&mut self, most: usize) -> Result<&[u8]> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(most);
        if most == 0 {
            return Ok(&[]);
        }
        // Looked at twice: the borrow of the first look cannot end before that of the answer.
        if fill(&mut self.source)?.is_empty() {
            return Err(self.cut_off());
        }
        let buffer = fill(&mut self.source)?;
        Ok(buffer.get(..most).unwrap_or(buffer))
    }

    /// Goes on behind `bytes` of the data that [`Entries::peek`] showed.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn consume(&mut self, bytes: usize) -> Result<()> {
        self.source.consume(bytes);
        self.left = self.left.saturating_sub(bytes as u64);
        self.forward(bytes as u64)
    }

    /// Skips what is left of the present entry's data, and the padding, which is kept if asked for.
    ///
    /// # Errors
    /// As [`Entries::next`].
    pub fn skip_data(&mut self) -> Result<()> {
        loop {
            let seen = self.peek(usize::MAX)?.len();
            if seen == 0 {
                break;
            }
            self.consume(seen)?;
        }
        while self.padding > 0 {
            let buffer = fill(&mut self.source)?;
            let seen = usize::try_from(self.padding)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            if seen == 0 {
                return Err(self.cut_off());
            }
            if let Some(raw) = &mut self.raw {
                raw.extend_from_slice(buffer.get(..seen).unwrap_or_default());
            }
            self.source.consume(seen);
            self.padding = self.padding.saturating_sub(seen as u64);
            self.forward(seen as u64)?;
        }
        Ok(())
    }

    /// An error at the present place.
    fn damaged(&self, reason: &str) -> BuildError {
        BuildError::Damaged {
            position: self.position,
            reason: reason.into(),
        }
    }

    fn cut_off(&self) -> BuildError {
        self.damaged("it is cut off here")
    }
}

impl<R: BufRead> Read for Entries<R> {
    /// Reads the present entry's data.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let seen = self.peek(buffer.len()).map_err(std::io::Error::other)?;
        let n = seen.len();
        if let Some(to) = buffer.get_mut(..n) {
            to.copy_from_slice(seen);
        }
        self.consume(n).map_err(std::io::Error::other)?;
        Ok(n)
    }
}

/// What the headers before an entry say about it.
#[derive(Debug, Default)]
struct Before {
    any: bool,
    pax: Pax,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

fn fill<R: BufRead>(source: &mut R) -> Result<&[u8]> {
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    source.fill_buf().map_err(unreadable)
}

fn unreadable(source: std::io::Error) -> BuildError {
    BuildError::Stream {
        what: "read the layer archive",
        source,
    }
}

/// Bytes from the end of the data to the next block.
fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

fn is_star(header: &Header) -> bool {
    header.as_bytes().ends_with(b"tar\0")
}

/// The name in the header itself.
fn header_name(header: &Header) -> Vec<u8> {
    let name = text(&header.as_old().name);
    let Some(ustar) = header.as_ustar() else {
        return name.to_vec();
    };
    let room = if is_star(header) { 131 } else { 155 };
    let prefix = text(ustar.prefix.get(..room).unwrap_or_default());
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// GNU and star headers may have an access time.
fn header_atime(header: &Header) -> Option<Time> {
    let field = match header.as_gnu() {
        Some(gnu) => &gnu.atime[..],
        None if header.as_ustar().is_some() && is_star(header) => header.as_bytes().get(476..488)?,
        None => return None,
    };
    if field.first() == Some(&0) {
        return None;
    }
    let secs = number::number(field)?;
    Some(Time { secs, nanos: 0 })
}

/// Major and minor number; 0/0 where the header has no such fields.
fn device_of(header: &Header) -> Option<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Some((0, 0)),
    };
    let half = |field: &[u8]| u32::try_from(number::number(field)?).ok();
    Some((half(major)?, half(minor)?))
}
