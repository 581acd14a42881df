//! Where the members of an image archive come from: a directory, a tar file, or a stream of one.
//!
//! In a file members are found again by their offsets. A stream is read once, in its own order: what comes before it
//! is wanted is kept in an unnamed file in the store's `tmp/`; what comes when it is wanted goes straight through.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::outer::{Kind, Member, Outer, truncated};
use crate::store::{LARGEST_JSON, Result, Store, StoreError};
use crate::sys::{Errno, at, stat};

/// More members than this are no image archive.
const MOST_MEMBERS: usize = 100_000;
/// A link that leads to a link that leads on.
const MOST_HOPS: usize = 8;

/// Where a member's data are.
#[derive(Debug, Clone)]
enum Place {
    Data {
        offset: u64,
        size: u64,
    },
    Link(String),
    /// It went through already, and was not kept.
    Gone,
    /// Two members have this name.
    Twice,
    Other,
}

/// The members of an image archive.
pub(in crate::store) struct Members {
    /// As it was named, for messages.
    pub(super) shown: String,
    from: From,
    places: HashMap<String, Place>,
}

enum From {
    Directory(OwnedFd),
    File(Arc<std::fs::File>),
    Stream {
        /// None at its end.
        outer: Option<Outer<Box<dyn Read + Send>>>,
        spool: Arc<std::fs::File>,
        spooled: u64,
    },
}

/// A member's data.
pub(super) struct Open<'a> {
    pub(super) size: u64,
    pub(super) reader: Box<dyn Read + Send + 'a>,
}

/// A part of a file, without moving its position.
struct Section {
    file: Arc<std::fs::File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let n = self.file.read_at(buffer, self.at)?;
        if n == 0 {
            return Err(truncated());
        }
        self.at = self.at.saturating_add(n as u64);
        Ok(n)
    }
}

/// The name by which a member is found: without `./` in front. None for one that leads out of the archive.
fn clean(name: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    if name.starts_with('/') {
        return None;
    }
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            part => names.push(part),
        }
    }
    Some(names.join("/"))
}

impl Members {
    /// The members of a layout in a directory.
    pub(super) fn directory(path: &Path) -> Result<Self> {
        let dir = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
        Ok(Self {
            shown: path.display().to_string(),
            from: From::Directory(dir.into()),
            places: HashMap::new(),
        })
    }

    /// The members of an archive in a file: plain, or compressed with gzip or zstd.
    pub(super) fn file(store: &Store, path: &Path) -> Result<Self> {
        let mut file = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
        let shown = path.display().to_string();
        let mut magic = [0; 6];
        let read = read_magic(&mut file, &mut magic).map_err(StoreError::io("read", path))?;
        let magic = magic.get(..read).unwrap_or_default();
        let seekable = file.rewind().is_ok() && file.metadata().is_ok_and(|found| found.is_file());
        if !seekable {
            let whole = io::Cursor::new(magic.to_vec()).chain(file);
            return Self::stream(store, &shown, Box::new(whole));
        }
        if compressed(magic, &shown)?.is_some() {
            return Self::stream(store, &shown, Box::new(file));
        }
        let length = file.metadata().map_err(StoreError::io("look at", path))?.len();
        let mut places = HashMap::new();
        let reading = file.try_clone().map_err(StoreError::io("use", path))?;
        let mut outer = Outer::new(BufReader::with_capacity(4096, reading));
        loop {
            let member = match outer.advance() {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(error) => return Err(StoreError::archive(shown, error.to_string())),
            };
            if member.offset.saturating_add(member.size) > length {
                return Err(StoreError::archive(shown, truncated().to_string()));
            }
            let offset = member.offset;
            note(&mut places, member, offset, &shown)?;
        }
        Ok(Self {
            shown,
            from: From::File(Arc::new(file)),
            places,
        })
    }

    /// The members of an archive that comes in one piece.
    pub(super) fn stream(store: &Store, shown: &str, mut input: Box<dyn Read + Send>) -> Result<Self> {
        let mut magic = [0; 6];
        let failed = |error: io::Error| StoreError::archive(shown, error.to_string());
        let read = read_magic(&mut input, &mut magic).map_err(failed)?;
        let magic = magic.get(..read).unwrap_or_default().to_vec();
        let packed = compressed(&magic, shown)?;
        let whole: Box<dyn Read + Send> = Box::new(io::Cursor::new(magic).chain(input));
        let plain: Box<dyn Read + Send> = match packed {
            None => whole,
            Some(Packed::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            Some(Packed::Zstd) => Box::new(zstd::stream::read::Decoder::new(whole).map_err(failed)?),
        };
        let spool = store.unnamed_file()?;
        Ok(Self {
            shown: shown.to_owned(),
            from: From::Stream {
                outer: Some(Outer::new(plain)),
                spool: Arc::new(spool),
                spooled: 0,
            },
            places: HashMap::new(),
        })
    }

    /// The first of these members that is there: in this order; from a stream, the one that comes first.
    pub(super) fn first_of<'n>(&mut self, wanted: &[&'n str]) -> Result<Option<&'n str>> {
        loop {
            for name in wanted {
                let there = match &self.from {
                    From::Directory(dir) => stat::stat_at(dir, name.as_bytes()).is_ok(),
                    _ => self.places.contains_key(*name),
                };
                if there {
                    return Ok(Some(name));
                }
            }
            if !self.spool_next()? {
                return Ok(None);
            }
        }
    }

    /// Whether there is a member of this name; a stream is read up to it for the answer.
    pub(super) fn has(&mut self, name: &str) -> Result<bool> {
        self.first_of(&[name]).map(|found| found.is_some())
    }

    /// A small member as a whole, however often; none where there is no such member.
    pub(super) fn small(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let shown = self.shown.clone();
        let Some(open) = self.open(name, true)? else {
            return Ok(None);
        };
        if open.size > LARGEST_JSON {
            return Err(StoreError::archive(
                name,
                format!(
                    "it has {} bytes, more than the limit of {LARGEST_JSON}",
                    open.size
                ),
            ));
        }
        let mut data = Vec::new();
        open.reader
            .take(LARGEST_JSON)
            .read_to_end(&mut data)
            .map_err(|error| StoreError::archive(format!("{shown}: {name}"), error.to_string()))?;
        Ok(Some(data))
    }

    /// A member's data; none where there is no such member. One that will not be asked for `again` need not be kept.
    pub(super) fn open(&mut self, name: &str, again: bool) -> Result<Option<Open<'_>>> {
        let Some(mut name) = clean(name) else {
            return Err(StoreError::archive(name, "the name leads out of the archive"));
        };
        if let From::Directory(dir) = &self.from {
            return open_below(dir.as_fd(), &name);
        }
        let mut hops = 0;
        loop {
            match self.places.get(&name) {
                None => {}
                Some(Place::Link(target)) => {
                    hops += 1;
                    if hops > MOST_HOPS {
                        return Err(StoreError::archive(name, "it is a link that leads to links"));
                    }
                    name = target.clone();
                    continue;
                }
                Some(Place::Data { offset, size }) => {
                    let (offset, size) = (*offset, *size);
                    let file = match &self.from {
                        From::File(file) | From::Stream { spool: file, .. } => Arc::clone(file),
                        From::Directory(_) => return Ok(None),
                    };
                    let end = offset.saturating_add(size);
                    return Ok(Some(Open {
                        size,
                        reader: Box::new(Section {
                            file,
                            at: offset,
                            end,
                        }),
                    }));
                }
                Some(Place::Gone) => {
                    return Err(StoreError::archive(name, "it is wanted twice, but was not kept"));
                }
                Some(Place::Twice) => {
                    return Err(StoreError::archive(
                        name,
                        "the archive has two members of this name",
                    ));
                }
                Some(Place::Other) => {
                    return Err(StoreError::archive(
                        name,
                        "it is neither a regular file nor a link",
                    ));
                }
            }
            if !again && self.next_is(&name)? {
                return self.pass_through(name);
            }
            if self.places.contains_key(&name) {
                continue;
            }
            if !self.spool_next()? {
                return Ok(None);
            }
        }
    }

    /// Reads the stream up to the header of `name`, keeping what comes before; whether it came, as a file.
    fn next_is(&mut self, name: &str) -> Result<bool> {
        while let Some(member) = self.advance()? {
            if member.kind == Kind::File && clean(&member.name).as_deref() == Some(name) {
                self.places.insert(name.to_owned(), Place::Gone);
                return Ok(true);
            }
            self.keep(member)?;
            if self.places.contains_key(name) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn pass_through(&mut self, name: String) -> Result<Option<Open<'_>>> {
        match &mut self.from {
            From::Stream {
                outer: Some(outer), ..
            } => Ok(Some(Open {
                size: outer.left(),
                reader: Box::new(outer.data()),
            })),
            _ => Err(StoreError::archive(name, "the stream has ended")),
        }
    }

    /// The stream's next member, with its data unread.
    fn advance(&mut self) -> Result<Option<Member>> {
        let From::Stream { outer, .. } = &mut self.from else {
            return Ok(None);
        };
        let Some(reading) = outer else {
            return Ok(None);
        };
        match reading.advance() {
            Ok(Some(member)) => Ok(Some(member)),
            Ok(None) => {
                // Whoever writes into a pipe is not cut off.
                if let Some(outer) = outer.take() {
                    io::copy(&mut outer.into_input(), &mut io::sink())
                        .map_err(|error| StoreError::archive(&self.shown, error.to_string()))?;
                }
                Ok(None)
            }
            Err(error) => Err(StoreError::archive(&self.shown, error.to_string())),
        }
    }

    /// Keeps the stream's next member; whether there was one.
    fn spool_next(&mut self) -> Result<bool> {
        match self.advance()? {
            Some(member) => self.keep(member).map(|()| true),
            None => Ok(false),
        }
    }

    fn keep(&mut self, member: Member) -> Result<()> {
        let From::Stream {
            outer: Some(outer),
            spool,
            spooled,
        } = &mut self.from
        else {
            return Ok(());
        };
        let offset = *spooled;
        if member.kind == Kind::File {
            let mut to: &std::fs::File = spool;
            let mut buffer = vec![0; 1 << 18];
            let mut data = outer.data();
            loop {
                let n = data.read(&mut buffer).map_err(|error| {
                    StoreError::archive(format!("{}: {}", self.shown, member.name), error.to_string())
                })?;
                let Some(part) = buffer.get(..n).filter(|part| !part.is_empty()) else {
                    break;
                };
                to.write_all(part)
                    .map_err(StoreError::io("keep a part of the archive in", "tmp/"))?;
                *spooled = spooled.saturating_add(n as u64);
            }
        }
        note(&mut self.places, member, offset, &self.shown)
    }

    /// Reads a stream to its end, so that its writer is not cut off.
    pub(super) fn finish(mut self) -> Result<()> {
        while self.advance()?.is_some() {}
        Ok(())
    }
}

fn note(places: &mut HashMap<String, Place>, member: Member, offset: u64, shown: &str) -> Result<()> {
    if places.len() >= MOST_MEMBERS {
        return Err(StoreError::archive(
            shown,
            format!("it has more than {MOST_MEMBERS} members: it is no image archive"),
        ));
    }
    // A name that leads out cannot be asked for.
    let Some(name) = clean(&member.name).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let place = match member.kind {
        Kind::File => Place::Data {
            offset,
            size: member.size,
        },
        Kind::Link { target, hard } => {
            let from = match (hard, name.rsplit_once('/')) {
                (false, Some((dir, _))) => format!("{dir}/{target}"),
                _ => target.clone(),
            };
            match clean(&from).filter(|_| !target.starts_with('/')) {
                Some(target) => Place::Link(target),
                None => Place::Other,
            }
        }
        Kind::Other => Place::Other,
    };
    let directory = matches!(place, Place::Other);
    places
        .entry(name)
        .and_modify(|there| {
            if !(directory && matches!(there, Place::Other)) {
                *there = Place::Twice;
            }
        })
        .or_insert(place);
    Ok(())
}

/// Opens a file below a directory without following links.
fn open_below<'a>(dir: impl AsFd, name: &str) -> Result<Option<Open<'a>>> {
    let refuse = |errno| match errno {
        Errno::LOOP | Errno::NOTDIR => StoreError::archive(
            name,
            "it is a symbolic link, or lies behind one, which may lead out of the layout",
        ),
        Errno::XDEV => StoreError::archive(name, "it lies on another mount"),
        errno => StoreError::archive(name, errno.to_string()),
    };
    let mut at = at::reopen_dir(&dir).map_err(refuse)?;
    let mut parts = name.split('/').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() {
            at = match at::open_dir_path(&at, part.as_bytes()) {
                Err(Errno::NOENT) => return Ok(None),
                next => next.map_err(refuse)?,
            };
            continue;
        }
        let file = match at::open_at(&at, part.as_bytes(), libc::O_RDONLY | libc::O_NONBLOCK) {
            Err(Errno::NOENT) => return Ok(None),
            file => file.map_err(refuse)?,
        };
        let found = stat::stat_fd(&file).map_err(refuse)?;
        if !found.is_file() {
            return Err(StoreError::archive(name, "it is no regular file"));
        }
        return Ok(Some(Open {
            size: found.size,
            reader: Box::new(std::fs::File::from(file)),
        }));
    }
    Ok(None)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    Gzip,
    Zstd,
}

/// How an archive as a whole is compressed, told by its first bytes.
fn compressed(magic: &[u8], shown: &str) -> Result<Option<Packed>> {
    let refuse = |what: &str| {
        Err(StoreError::archive(
            shown,
            format!("it is compressed with {what}, which is not supported; unpack it first"),
        ))
    };
    match magic {
        [0x1f, 0x8b, ..] => Ok(Some(Packed::Gzip)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Some(Packed::Zstd)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => refuse("xz"),
        [b'B', b'Z', b'h', ..] => refuse("bzip2"),
        _ => Ok(None),
    }
}

fn read_magic(input: &mut impl Read, magic: &mut [u8; 6]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = magic.get_mut(filled..)
        && !rest.is_empty()
    {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean("./a//b/./c").as_deref(), Some("a/b/c"));
        assert_eq!(clean("a/../b").as_deref(), Some("b"));
        for out in ["/a", "..", "a/../../b"] {
            assert_eq!(clean(out), None, "{out}");
        }
    }

    fn archive(members: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in members {
            let mut header = tar::Header::new_gnu();
            if let Some(target) = data.strip_prefix("-> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_link_name(target).unwrap();
                header.set_path(name).unwrap();
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, name, data.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn text(open: Option<Open<'_>>) -> String {
        let mut text = String::new();
        open.unwrap().reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_stream_and_a_file_answer_alike() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let data = archive(&[
            ("x/layer", "one"),
            ("y/layer", "-> ../x/layer"),
            ("out", "-> ../../x"),
            ("manifest.json", "[]"),
            ("z", "two"),
            ("twice", "1"),
            ("twice", "2"),
        ]);
        let path = place.path().join("file");
        std::fs::write(&path, &data).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&data).unwrap();
        let packed = place.path().join("file.gz");
        std::fs::write(&packed, gz.finish().unwrap()).unwrap();
        let all = [
            Members::file(&store, &path).unwrap(),
            Members::file(&store, &packed).unwrap(),
            Members::stream(&store, "-", Box::new(io::Cursor::new(data))).unwrap(),
        ];
        for mut members in all {
            assert_eq!(
                members.first_of(&["none", "manifest.json"]).unwrap(),
                Some("manifest.json")
            );
            assert_eq!(members.small("manifest.json").unwrap().unwrap(), b"[]");
            assert_eq!(text(members.open("./z", false).unwrap()), "two");
            assert_eq!(text(members.open("y/layer", false).unwrap()), "one");
            assert_eq!(text(members.open("x/layer", true).unwrap()), "one");
            assert!(members.open("none", true).unwrap().is_none());
            for wrong in ["out", "twice", "../x"] {
                assert!(members.open(wrong, true).is_err(), "{wrong}");
            }
            members.finish().unwrap();
        }
    }
}
