//! Writing the entries of a layer archive, whoever says what is in it.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::pax::{NAME_ROOM, Records, decimal};
use crate::builder::{BuildError, Kind, Meta, Result, TreePath};
use crate::format::aufs::MARK;

/// The greatest number in eleven octal digits, and in seven.
const OCTAL_11: u64 = (1 << 33) - 1;
const OCTAL_7: u64 = (1 << 21) - 1;
const BLOCK: usize = 512;
/// Bytes of file data written in one step.
const STEP: usize = 256 * 1024;

/// What went into a layer archive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written {
    /// Entries, whiteouts among them.
    pub entries: u64,
    /// Bytes of file data.
    pub file_bytes: u64,
    /// Bytes of the whole archive.
    pub archive_bytes: u64,
    /// What an archive cannot hold, and why it does not matter: sockets.
    pub skipped: Vec<(TreePath, String)>,
}

/// Writes a layer archive, entry by entry: directories before what is in them, files before their hard links.
///
/// The same entries give the same bytes: no access or change times, no user names. What cannot be said in a
/// layer is refused, by every method: a name that begins with `.wh.`, a device 0/0, an extended attribute
/// with a `=` in its name.
#[derive(Debug)]
pub struct LayerWriter<W> {
    to: W,
    written: Written,
}

impl<W: Write> LayerWriter<W> {
    /// An archive that goes to `to`.
    pub fn new(to: W) -> Self {
        Self {
            to,
            written: Written::default(),
        }
    }

    /// A directory, or the root.
    ///
    /// # Errors
    /// As said of the type; else what writing answers.
    pub fn directory(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let (header, records) = headers(path, meta, EntryType::Directory)?;
        let mut name = path.as_bytes().to_vec();
        name.extend_from_slice(if path.is_root() { b"./" } else { b"/" });
        self.entry(header, records, &name, &[])
    }

    /// A regular file of `size` bytes, which `data` must give; more is not asked for.
    ///
    /// # Errors
    /// As said of the type; data that ends early; what reading or writing answers.
    pub fn file(&mut self, path: &TreePath, meta: &Meta, size: u64, mut data: impl Read) -> Result<()> {
        let (mut header, mut records) = headers(path, meta, EntryType::Regular)?;
        header.set_size(size);
        if size > OCTAL_11 {
            records.add(b"size", size.to_string().as_bytes());
        }
        self.entry(header, records, path.as_bytes(), &[])?;
        let mut buffer = vec![0; STEP];
        let mut rest = size;
        while rest > 0 {
            let want = usize::try_from(rest).unwrap_or(STEP).min(STEP);
            let room = buffer.get_mut(..want).unwrap_or_default();
            let got = match data.read(room) {
                Ok(0) => {
                    return Err(refused(
                        path,
                        "became shorter while it was read; stop what writes to it, and try again",
                    ));
                }
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(unread(path, &source)),
            };
            self.put(room.get(..got).unwrap_or_default())?;
            rest = rest.saturating_sub(got as u64);
        }
        self.written.file_bytes = self.written.file_bytes.saturating_add(size);
        self.pad(size)
    }

    /// A symlink.
    ///
    /// # Errors
    /// As said of the type; else what writing answers.
    pub fn symlink(&mut self, path: &TreePath, meta: &Meta, target: &[u8]) -> Result<()> {
        let (header, records) = headers(path, meta, EntryType::Symlink)?;
        self.entry(header, records, path.as_bytes(), target)
    }

    /// One more name of an object that has been written; `meta` is the same as there.
    ///
    /// # Errors
    /// As said of the type; else what writing answers.
    pub fn hard_link(&mut self, path: &TreePath, meta: &Meta, first: &TreePath) -> Result<()> {
        let (header, records) = headers(path, meta, EntryType::Link)?;
        self.entry(header, records, path.as_bytes(), first.as_bytes())
    }

    /// A named pipe or a device.
    ///
    /// # Errors
    /// As said of the type, another kind; else what writing answers.
    pub fn node(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let kind = match meta.kind {
            Kind::Fifo => EntryType::Fifo,
            Kind::CharDevice => EntryType::Char,
            Kind::BlockDevice => EntryType::Block,
            Kind::Directory | Kind::File | Kind::Symlink | Kind::Socket => {
                return Err(refused(
                    path,
                    "is no device and no pipe, so it cannot be an entry of its number alone",
                ));
            }
        };
        let (header, records) = headers(path, meta, kind)?;
        self.entry(header, records, path.as_bytes(), &[])
    }

    /// The name is deleted, with all that is below it.
    ///
    /// # Errors
    /// As said of the type; else what writing answers.
    pub fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        check_name(path)?;
        let Some((dir, name)) = path.split() else {
            return Err(refused(path, "the root cannot be deleted"));
        };
        let mut header = plain_header(EntryType::Regular);
        header.set_mode(0);
        let name = dir.join(&[MARK, name].concat());
        self.entry(header, Records::default(), name.as_bytes(), &[])
    }

    /// Notes that an object is left out on purpose.
    pub(super) fn skip(&mut self, path: &TreePath, why: &str) {
        self.written.skipped.push((path.clone(), why.to_owned()));
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// What writing answers.
    pub fn finish(mut self) -> Result<Written> {
        self.put(&[0; 2 * BLOCK])?;
        self.to.flush().map_err(stream)?;
        Ok(self.written)
    }

    /// Writes a header, and a pax header before it where one is needed.
    fn entry(&mut self, mut header: Header, mut records: Records, name: &[u8], target: &[u8]) -> Result<()> {
        records.name(b"path", name);
        records.name(b"linkpath", target);
        let old = header.as_old_mut();
        old.name = room(name);
        old.linkname = room(target);
        if let Some(body) = records.finish() {
            let mut pax = plain_header(EntryType::XHeader);
            pax.as_old_mut().name = room(b"PaxHeaders.0/entry");
            pax.set_mode(0o644);
            let size = body.len() as u64;
            pax.set_size(size);
            pax.set_cksum();
            self.put(pax.as_bytes())?;
            self.put(&body)?;
            self.pad(size)?;
        }
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.written.entries = self.written.entries.saturating_add(1);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written.archive_bytes = self.written.archive_bytes.saturating_add(bytes.len() as u64);
        self.to.write_all(bytes).map_err(stream)
    }

    /// Zeros up to the next block, after `size` bytes.
    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        if over == 0 {
            return Ok(());
        }
        self.put([0; BLOCK].get(over..).unwrap_or_default())
    }
}

fn stream(source: io::Error) -> BuildError {
    BuildError::Stream {
        what: "write the layer archive",
        source,
    }
}

fn unread(path: &TreePath, source: &io::Error) -> BuildError {
    refused(path, &format!("cannot be read: {source}"))
}

fn refused(path: &TreePath, reason: &str) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: reason.to_owned(),
    }
}

/// A name that a layer cannot hold.
fn check_name(path: &TreePath) -> Result<()> {
    if path.names().any(|name| name.starts_with(MARK)) {
        let reason =
            "a name that begins with .wh. would delete another one where the layer is used; rename it";
        return Err(refused(path, reason));
    }
    Ok(())
}

/// The part of a name that fits into the old header.
fn room(name: &[u8]) -> [u8; NAME_ROOM] {
    let mut field = [0; NAME_ROOM];
    for (to, from) in field.iter_mut().zip(name) {
        *to = *from;
    }
    field
}

fn plain_header(kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mtime(0);
    header
}

/// The headers of an object, but for names, size and target.
fn headers(path: &TreePath, meta: &Meta, kind: EntryType) -> Result<(Header, Records)> {
    check_name(path)?;
    if meta.kind == Kind::CharDevice && meta.rdev == 0 {
        let reason = "a character device 0/0 would delete a file where the layer is used; remove it";
        return Err(refused(path, reason));
    }
    let mut header = plain_header(kind);
    let mut records = Records::default();
    header.set_mode(meta.permissions);
    let (uid, gid) = (u64::from(meta.uid), u64::from(meta.gid));
    header.set_uid(uid);
    header.set_gid(gid);
    for (key, id) in [(&b"uid"[..], uid), (b"gid", gid)] {
        if id > OCTAL_7 {
            records.add(key, id.to_string().as_bytes());
        }
    }
    let seconds = u64::try_from(meta.mtime.secs)
        .ok()
        .filter(|secs| *secs <= OCTAL_11);
    header.set_mtime(seconds.unwrap_or(0));
    if meta.mtime.nanos != 0 || seconds.is_none() {
        records.add(b"mtime", decimal(meta.mtime).as_bytes());
    }
    if matches!(meta.kind, Kind::CharDevice | Kind::BlockDevice) {
        let set = header.set_device_major(libc::major(meta.rdev));
        set.and_then(|()| header.set_device_minor(libc::minor(meta.rdev)))
            .map_err(stream)?;
    }
    for attribute in &meta.xattrs {
        if attribute.name.contains(&b'=') {
            let name = attribute.name.escape_ascii();
            let reason = format!(
                "an archive cannot hold the extended attribute '{name}', whose name has a '='; remove it"
            );
            return Err(refused(path, &reason));
        }
        records.add(
            &[b"SCHILY.xattr.", attribute.name.as_slice()].concat(),
            &attribute.value,
        );
    }
    Ok((header, records))
}
