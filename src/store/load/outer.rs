//! The members of an image archive, one after the other, in bounded memory.
//!
//! Layers inside are not looked into here. Of the tar formats this reads what the writers of image archives use:
//! ustar, GNU long names, and the pax keys `path`, `linkpath` and `size`.

use std::io::{self, BufReader, Read};

use tar::Header;

const BLOCK: u64 = 512;
/// A long name or a pax header larger than this is refused.
const LARGEST_EXTENSION: u64 = 1 << 20;

/// An input in which what is not wanted can be passed over.
pub(super) trait Input: Read {
    /// Passes over so many bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

impl Input for BufReader<std::fs::File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(bytes).map_err(|_| damaged("a member is larger than any file"))?)
    }
}

impl Input for Box<dyn Read + Send> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if passed < bytes { Err(truncated()) } else { Ok(()) }
    }
}

/// What a member is, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A symbolic or hard link, with what it leads to.
    Link {
        target: String,
        hard: bool,
    },
    /// A directory, a device or the like: nothing an image archive refers to.
    Other,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// As it stands in the archive.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Bytes of its data.
    pub(super) size: u64,
    /// Where in the archive its data begin.
    pub(super) offset: u64,
}

/// Reads the members of an archive.
#[derive(Debug)]
pub(super) struct Outer<R> {
    input: R,
    position: u64,
    /// Bytes of the present member's data that were not read yet.
    left: u64,
    /// Bytes that fill up its last block.
    padding: u64,
}

/// What pax headers and GNU long names say about the next member.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

pub(super) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated")
}

pub(super) fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<R: Input> Outer<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next member; none at the end of the archive. What was not read of the one before is passed over.
    pub(super) fn advance(&mut self) -> io::Result<Option<Member>> {
        let mut extension = Extension::default();
        loop {
            let rest = self.left.saturating_add(self.padding);
            self.input.skip(rest)?;
            self.position = self.position.saturating_add(rest);
            (self.left, self.padding) = (0, 0);

            let mut header = Header::new_old();
            if !self.read_block(header.as_mut_bytes())? {
                return Ok(None);
            }
            check_sum(&header)?;
            let size = header.entry_size()?;
            let kind = header.entry_type();
            let size = match kind {
                _ if kind.is_file() || kind.is_contiguous() => extension.size.unwrap_or(size),
                _ if extends(kind) || kind.is_gnu_sparse() => size,
                // Links and the like have no data, whatever the size says.
                _ => 0,
            };
            self.left = size;
            self.padding = size.wrapping_neg() % BLOCK;
            if extends(kind) {
                self.extend(&mut extension, kind)?;
                continue;
            }
            let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
            let target = extension
                .target
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
            let kind = match (kind, target) {
                _ if extension.sparse => Kind::Other,
                (kind, _) if kind.is_file() || kind.is_contiguous() => Kind::File,
                (kind, Some(target)) if kind.is_symlink() || kind.is_hard_link() => Kind::Link {
                    target: String::from_utf8_lossy(&target).into_owned(),
                    hard: kind.is_hard_link(),
                },
                _ => Kind::Other,
            };
            return Ok(Some(Member {
                name: String::from_utf8_lossy(&name).into_owned(),
                kind,
                size,
                offset: self.position,
            }));
        }
    }

    /// Whether there was a block; none at the end: of the input, or two blocks of zeros.
    fn read_block(&mut self, block: &mut [u8; 512]) -> io::Result<bool> {
        for _ in 0..2 {
            let mut filled = 0;
            while let Some(rest) = block.get_mut(filled..)
                && !rest.is_empty()
            {
                match self.input.read(rest) {
                    Ok(0) if filled == 0 => return Ok(false),
                    Ok(0) => return Err(truncated()),
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.position = self.position.saturating_add(BLOCK);
            if block.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn extend(&mut self, extension: &mut Extension, kind: tar::EntryType) -> io::Result<()> {
        if self.left > LARGEST_EXTENSION {
            return Err(damaged("a member's extended header is larger than 1 MiB"));
        }
        let mut data = Vec::new();
        self.data().read_to_end(&mut data)?;
        if self.left > 0 {
            return Err(truncated());
        }
        if kind.is_gnu_longname() {
            extension.name = Some(until_nul(data));
        } else if kind.is_gnu_longlink() {
            extension.target = Some(until_nul(data));
        } else if kind.is_pax_local_extensions() {
            for record in tar::PaxExtensions::new(&data) {
                let record = record?;
                match record.key_bytes() {
                    b"path" => extension.name = Some(record.value_bytes().to_vec()),
                    b"linkpath" => extension.target = Some(record.value_bytes().to_vec()),
                    b"size" => {
                        let size = record.value().ok().and_then(|text| text.parse().ok());
                        extension.size = Some(size.ok_or_else(|| damaged("a pax size is no number"))?);
                    }
                    key if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The data of the present member.
    pub(super) fn data(&mut self) -> Data<'_, R> {
        Data { outer: self }
    }

    /// Bytes of the present member that were not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The input behind the archive.
    pub(super) fn into_input(self) -> R {
        self.input
    }
}

/// Reads the data of a member.
#[derive(Debug)]
pub(super) struct Data<'a, R> {
    outer: &'a mut Outer<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.outer.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let n = self.outer.input.read(buffer)?;
        if n == 0 {
            return Err(truncated());
        }
        self.outer.left = self.outer.left.saturating_sub(n as u64);
        self.outer.position = self.outer.position.saturating_add(n as u64);
        Ok(n)
    }
}

fn extends(kind: tar::EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

fn check_sum(header: &Header) -> io::Result<()> {
    let sum: u32 = header
        .as_bytes()
        .iter()
        .enumerate()
        // The field itself counts as blanks.
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    match header.cksum() {
        Ok(found) if found == sum => Ok(()),
        _ => Err(damaged("it is no tar archive, or a header in it is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/layer.tar", "d".repeat(200));
        for (name, data) in [("a.json", b"{}".as_slice()), (&long, &[7; 700])] {
            let mut header = Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", "a.json").unwrap();
        builder.into_inner().unwrap()
    }

    fn boxed(data: Vec<u8>) -> Box<dyn Read + Send> {
        Box::new(io::Cursor::new(data))
    }

    #[test]
    fn members_in_order() {
        let archive = archive();
        let mut outer = Outer::new(boxed(archive.clone()));
        let first = outer.advance().unwrap().unwrap();
        assert_eq!(
            (first.name.as_str(), first.size, first.offset),
            ("a.json", 2, 512)
        );
        let second = outer.advance().unwrap().unwrap();
        assert_eq!((second.name.len(), second.size), (210, 700));
        let at = usize::try_from(second.offset).unwrap();
        assert_eq!(archive[at..at + 700], [7; 700]);
        let mut data = Vec::new();
        outer.data().read_to_end(&mut data).unwrap();
        assert_eq!(data, [7; 700]);
        let link = outer.advance().unwrap().unwrap();
        assert_eq!(
            link.kind,
            Kind::Link {
                target: "a.json".into(),
                hard: false
            }
        );
        assert_eq!(outer.advance().unwrap(), None);
    }

    #[test]
    fn cut_short_or_changed() {
        let archive = archive();
        for length in [100, 513, 1100, 2700] {
            let mut outer = Outer::new(boxed(archive[..length].to_vec()));
            let end = loop {
                match outer.advance() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert!(end.is_some(), "{length}");
        }
        let mut changed = archive;
        changed[3] ^= 1;
        assert!(Outer::new(boxed(changed)).advance().is_err());
    }
}
