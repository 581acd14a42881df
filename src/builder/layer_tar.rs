//! Changes as a layer archive: what other builders and runtimes take.
//!
//! The archive holds an entry for every changed object and for the directories on the way to it, in the order of
//! the walk, and nothing else. A deleted name `d/x` is an empty file `d/.wh.x` of mode 0. The same changes give
//! the same bytes: no access or change times, no user names, no order of a hash table.
//!
//! Numbers and names that the old header has no room for are in a pax header before it: times below the second,
//! long names, great ids and sizes, and extended attributes (`SCHILY.xattr.NAME`).

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use tar::{EntryType, Header};

use super::diff::{self, Change, Letter, Object, Sink, Upper, Views};
use super::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::stat::Time;
use crate::sys::{io as file_io, stat};

/// In front of the name of a deleted object.
const WHITEOUT: &[u8] = b".wh.";
/// The greatest number in eleven octal digits, and in seven.
const OCTAL_11: u64 = (1 << 33) - 1;
const OCTAL_7: u64 = (1 << 21) - 1;
/// Bytes of a name or link target in the old header.
const NAME_ROOM: usize = 100;
const BLOCK: usize = 512;
/// Bytes of file data read in one step.
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

/// Writes the changes from the tree `old` to the tree `new`.
///
/// # Errors
/// As [`diff::diff_trees`]; an object that a layer archive cannot say, a file that changed while it was read, or
/// what `to` answers.
pub fn write_layer_trees(old: BorrowedFd<'_>, new: BorrowedFd<'_>, to: impl Write) -> Result<Written> {
    write(&Views::trees(old, new)?, to)
}

/// Writes the changes that an upper makes to its lower.
///
/// # Errors
/// As [`diff::diff_upper`] and [`write_layer_trees`].
pub fn write_layer_upper(upper: Upper<'_>, to: impl Write) -> Result<Written> {
    write(&Views::upper(upper)?, to)
}

fn write(views: &Views<'_>, to: impl Write) -> Result<Written> {
    let mut archive = Archive {
        to,
        groups: HashMap::new(),
        written: Written::default(),
    };
    diff::changes(views, &mut archive)?;
    archive.put(&[0; 2 * BLOCK])?;
    archive.to.flush().map_err(stream)?;
    Ok(archive.written)
}

fn stream(source: io::Error) -> BuildError {
    BuildError::Stream {
        what: "write the layer archive",
        source,
    }
}

fn refused(path: &TreePath, reason: &str) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: reason.to_owned(),
    }
}

/// An archive that is being written.
struct Archive<W> {
    to: W,
    /// The first name of each inode that has several.
    groups: HashMap<(u64, u64), TreePath>,
    written: Written,
}

impl<W: Write> Sink for Archive<W> {
    fn change(&mut self, change: Change, object: Option<&Object<'_>>) -> Result<()> {
        let path = &change.path;
        if path.split().is_some_and(|(_, name)| name.starts_with(WHITEOUT)) {
            return Err(refused(
                path,
                "a name that begins with .wh. would delete another one where the layer is used; rename it",
            ));
        }
        match (change.letter, object) {
            (Letter::Deleted, _) | (_, None) => self.whiteout(path),
            (_, Some(object)) if change.kind == Kind::Socket => {
                let why = "a socket, which an archive cannot hold; its server makes it anew".to_owned();
                self.written.skipped.push((path.clone(), why));
                if object.replaces() {
                    self.whiteout(path)?;
                }
                Ok(())
            }
            (_, Some(object)) => self.object(path, object),
        }
    }
}

impl<W: Write> Archive<W> {
    fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        let Some((dir, name)) = path.split() else {
            return Ok(());
        };
        let mut header = plain_header(EntryType::Regular);
        header.set_mode(0);
        let name = dir.join(&[WHITEOUT, name].concat());
        self.entry(header, Records::default(), name.as_bytes(), &[])
    }

    fn object(&mut self, path: &TreePath, object: &Object<'_>) -> Result<()> {
        let meta = object.meta()?;
        if meta.kind == Kind::CharDevice && meta.rdev == 0 {
            let reason = "a character device 0/0 would delete a file where the layer is used; remove it";
            return Err(refused(path, reason));
        }
        let (header, records) = headers(path, &meta)?;
        let mut name = path.as_bytes().to_vec();
        if let Some(group) = object.group() {
            if let Some(first) = self.groups.get(&group) {
                let first = first.as_bytes().to_vec();
                let mut header = header;
                header.set_entry_type(EntryType::Link);
                return self.entry(header, records, &name, &first);
            }
            self.groups.insert(group, path.clone());
        }
        match meta.kind {
            Kind::Directory => {
                if path.is_root() {
                    name.push(b'.');
                }
                name.push(b'/');
                self.entry(header, records, &name, &[])
            }
            Kind::Symlink => self.entry(header, records, &name, &object.target()?),
            Kind::File => self.file(path, object, header, records),
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                self.entry(header, records, &name, &[])
            }
        }
    }

    fn file(
        &mut self,
        path: &TreePath,
        object: &Object<'_>,
        mut header: Header,
        mut records: Records,
    ) -> Result<()> {
        let before = *object.stat();
        header.set_size(before.size);
        if before.size > OCTAL_11 {
            records.add(b"size", before.size.to_string().as_bytes());
        }
        let file = object.open()?;
        // A link made elsewhere changes the change time of a shared inode, but not of one in a writable layer.
        let same = |now: &stat::Stat| {
            (now.size, now.mtime) == (before.size, before.mtime)
                && (!object.is_private() || now.ctime == before.ctime)
        };
        self.entry(header, records, path.as_bytes(), &[])?;
        let mut buffer = vec![0; STEP];
        let mut position = 0;
        while position < before.size {
            let rest = usize::try_from(before.size.saturating_sub(position)).unwrap_or(STEP);
            let room = buffer.get_mut(..rest.min(STEP)).unwrap_or_default();
            let got = file_io::read_at(&file, room, position).map_err(diff::call("read", path))?;
            if got == 0 {
                return Err(object.moved());
            }
            let data = room.get(..got).unwrap_or_default();
            self.to.write_all(data).map_err(stream)?;
            position = position.saturating_add(got as u64);
        }
        if !same(&stat::stat_fd(&file).map_err(diff::call("look at", path))?) {
            return Err(object.moved());
        }
        self.written.file_bytes = self.written.file_bytes.saturating_add(before.size);
        self.written.archive_bytes = self.written.archive_bytes.saturating_add(before.size);
        self.pad(before.size)
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
        let zeros = [0; BLOCK];
        match over {
            0 => Ok(()),
            over => self.put(zeros.get(over..).unwrap_or_default()),
        }
    }
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
fn headers(path: &TreePath, meta: &Meta) -> Result<(Header, Records)> {
    let mut header = plain_header(match meta.kind {
        Kind::Directory => EntryType::Directory,
        Kind::File | Kind::Socket => EntryType::Regular,
        Kind::Symlink => EntryType::Symlink,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
    });
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

/// A time as pax has it: a decimal number, negative before 1970.
fn decimal(time: Time) -> String {
    let nanos = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let (secs, rest) = (nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{secs}");
    }
    let text = format!("{sign}{secs}.{rest:09}");
    text.trim_end_matches('0').to_owned()
}

/// The records of a pax header.
#[derive(Debug, Default)]
struct Records {
    body: Vec<u8>,
    /// A name among them is not UTF-8.
    binary: bool,
}

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits: one more digit may need one more.
        let rest = key.len().saturating_add(value.len()).saturating_add(3);
        let mut length = rest;
        loop {
            let with_digits = rest.saturating_add(length.to_string().len());
            if with_digits == length {
                break;
            }
            length = with_digits;
        }
        self.body.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.body.extend_from_slice(part);
        }
    }

    /// A name, if the old header has no room for it.
    fn name(&mut self, key: &[u8], name: &[u8]) {
        if name.len() > NAME_ROOM {
            self.binary |= std::str::from_utf8(name).is_err();
            self.add(key, name);
        }
    }

    /// The body, if there is any; names that are not UTF-8 are announced in front.
    fn finish(self) -> Option<Vec<u8>> {
        if self.body.is_empty() {
            return None;
        }
        if !self.binary {
            return Some(self.body);
        }
        let mut announced = Self::default();
        announced.add(b"hdrcharset", b"BINARY");
        announced.body.extend_from_slice(&self.body);
        Some(announced.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let body = |key: &[u8], value: &[u8]| {
            let mut records = Records::default();
            records.add(key, value);
            String::from_utf8(records.body).unwrap()
        };
        assert_eq!(body(b"path", b"x"), "10 path=x\n");
        assert_eq!(body(b"uid", b"1"), "8 uid=1\n");
        for size in 0..1200 {
            let record = body(b"k", &vec![b'v'; size]);
            let (length, _) = record.split_once(' ').unwrap();
            assert_eq!(length.parse(), Ok(record.len()));
        }
    }

    #[test]
    fn times_of_all_ages() {
        let text = |secs, nanos| decimal(Time { secs, nanos });
        assert_eq!(text(5, 0), "5");
        assert_eq!(text(5, 20), "5.00000002");
        assert_eq!(text(-2, 500_000_000), "-1.5");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(i64::MAX, 0), i64::MAX.to_string());
    }
}
