//! The archive as it comes: unpacked and hashed ahead of who works on the tree, in threads of their own.
//!
//! ```text
//!   source ── unpack ──┬── bounded channel ── the tree (this module's [`Chunks`])
//!            a thread  └── bounded channel ── sha256: the diff id
//!                                              a thread
//! ```

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::{Digest, Sha256};

use crate::builder::{BuildError, Progress, Result};

/// Bytes that go through the channels at once.
const CHUNK: usize = 256 << 10;
/// Chunks in a channel.
const AHEAD: usize = 8;

/// A piece of the uncompressed archive, shared by those who read it.
pub(super) type Chunk = Arc<Vec<u8>>;

/// A part of a chunk.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    chunk: Chunk,
    from: usize,
    to: usize,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        self.chunk.get(self.from..self.to).unwrap_or_default()
    }
}

/// The archive in the thread that works on the tree.
#[derive(Debug)]
pub(super) struct Chunks {
    receiver: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    at: usize,
    ended: bool,
}

impl Chunks {
    /// The next bytes without a copy, at most `most`; they are not consumed. Empty at the end.
    pub(super) fn piece(&mut self, most: usize) -> io::Result<Piece> {
        let seen = self.fill_buf()?.len().min(most);
        Ok(Piece {
            chunk: Arc::clone(&self.chunk),
            from: self.at,
            to: self.at.saturating_add(seen),
        })
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut seen = self.fill_buf()?;
        let n = seen.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at >= self.chunk.len() && !self.ended {
            match self.receiver.recv() {
                Ok(chunk) => {
                    self.chunk = chunk?;
                    self.at = 0;
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(self.chunk.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount);
    }
}

/// Runs `work` on the uncompressed form of `source`; answers what it answers and the digest of all of the
/// uncompressed archive. `work` has to read to the end.
///
/// # Errors
/// As `work`, which gets the reader's and the decompressor's errors.
pub(super) fn unpacked<T>(
    source: impl Read + Send,
    progress: &dyn Progress,
    work: impl FnOnce(Chunks) -> Result<T>,
) -> Result<(T, [u8; 32])> {
    let (to_tree, from_source) = bounded(AHEAD);
    let (to_hash, for_hash) = bounded::<Chunk>(AHEAD);
    thread::scope(|scope| {
        scope.spawn(move || {
            let source = Counted { source, progress };
            if let Err(error) = pass_on(source, &to_tree, &to_hash) {
                // Nobody to tell means that the work has failed already, for a reason of its own.
                to_tree.send(Err(error)).ok();
            }
        });
        let hash = scope.spawn(move || {
            let mut hash = Sha256::new();
            for chunk in for_hash {
                hash.update(chunk.as_slice());
            }
            <[u8; 32]>::from(hash.finalize())
        });
        let done = work(Chunks {
            receiver: from_source,
            chunk: Chunk::default(),
            at: 0,
            ended: false,
        })?;
        match hash.join() {
            Ok(digest) => Ok((done, digest)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Tells how far the source is read.
struct Counted<'a, R> {
    source: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.progress.advance(n as u64);
        Ok(n)
    }
}

/// Decompresses to the end, or until nobody listens.
fn pass_on(
    source: impl Read,
    to_tree: &Sender<io::Result<Chunk>>,
    to_hash: &Sender<Chunk>,
) -> io::Result<()> {
    let mut plain = decompressed(source)?;
    loop {
        let mut data = vec![0; CHUNK];
        let mut filled = 0;
        while let Some(rest) = data.get_mut(filled..)
            && !rest.is_empty()
        {
            match plain.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        data.truncate(filled);
        let chunk = Arc::new(data);
        if to_hash.send(Arc::clone(&chunk)).is_err() || to_tree.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

/// The uncompressed form of an archive, told by its first bytes: plain, gzip (all members), zstd (all frames).
///
/// # Errors
/// For xz, bzip2, and as the reader.
pub fn decompressed<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(CHUNK, source);
    let start = first_bytes(&mut source)?;
    let (start, source) = (start.as_slice(), io::Cursor::new(start.clone()).chain(source));
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        // A frame of data, or one to skip, which some programs put first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(source)?)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(unsupported("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', ..] => return Err(unsupported("bzip2")),
        _ => Box::new(source),
    })
}

fn unsupported(name: &str) -> io::Error {
    let reason = format!("it is compressed with {name}; plain, gzip and zstd archives are read");
    io::Error::new(ErrorKind::Unsupported, reason)
}

/// The first six bytes, or fewer at the end.
fn first_bytes(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    source.by_ref().take(6).read_to_end(&mut start)?;
    Ok(start)
}

/// The archive could not be read.
pub(super) fn unreadable(source: io::Error) -> BuildError {
    BuildError::Stream {
        what: "read the layer archive",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Silent;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(data).unwrap();
        to.finish().unwrap()
    }

    fn all(source: &[u8]) -> Result<(Vec<u8>, [u8; 32])> {
        unpacked(source, &Silent, |mut chunks| {
            let mut data = Vec::new();
            chunks.read_to_end(&mut data).map_err(unreadable)?;
            Ok(data)
        })
    }

    #[test]
    fn every_form_is_the_same_archive() {
        let plain: Vec<u8> = (0..2_000_000_u32).map(|n| (n / 7) as u8).collect();
        let digest = <[u8; 32]>::from(Sha256::digest(&plain));
        let (start, rest) = plain.split_at(700_001);
        let frame = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        for form in [
            plain.clone(),
            gzip(&plain),
            [gzip(start), gzip(b""), gzip(rest)].concat(),
            frame(&plain),
            [frame(start), skipped.clone(), frame(rest)].concat(),
            [skipped, frame(&plain)].concat(),
        ] {
            let (data, found) = all(&form).unwrap();
            assert!(data == plain);
            assert_eq!(found, digest);
        }
    }

    #[test]
    fn damage_is_told() {
        let data = vec![7; 100_000];
        for mut form in [gzip(&data), zstd::encode_all(&data[..], 1).unwrap()] {
            let whole = form.clone();
            form.truncate(form.len() - 3);
            assert!(all(&form).is_err());
            form.clone_from(&whole);
            form.extend_from_slice(b"garbage");
            assert!(all(&form).is_err());
        }
        for other in [&b"\xfd7zXZ\0rest"[..], b"BZh91AY&SYrest"] {
            let text = all(other).unwrap_err().to_string();
            assert!(text.contains("gzip and zstd"), "{text}");
        }
    }

    #[test]
    fn work_that_fails_ends_the_threads() {
        let endless = io::repeat(0);
        let failed = unpacked(endless, &Silent, |_| -> Result<()> {
            Err(unreadable(io::Error::other("enough")))
        });
        assert!(failed.is_err());
    }
}
