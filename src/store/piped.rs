//! An archive that one thread writes while another reads it.

use std::io::{self, Read, Write};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{ChainId, Layer, Result, Store, StoreError};
use crate::builder::{BuildError, Progress};

/// Bytes in one piece, and pieces that may lie between writer and reader.
const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

struct Writer {
    to: Sender<Option<Vec<u8>>>,
    piece: Vec<u8>,
}

impl Writer {
    fn send(&mut self, piece: Option<Vec<u8>>) -> io::Result<()> {
        // The reader has failed, and says why.
        self.to
            .send(piece)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Only after this the reader sees the end.
    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(None)
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send(Some(piece))
    }
}

struct Reader {
    from: Receiver<Option<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buffer)?;
            if n > 0 || buffer.is_empty() || self.ended {
                return Ok(n);
            }
            match self.from.recv() {
                Ok(Some(piece)) => self.piece = io::Cursor::new(piece),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::other("its writer has failed")),
            }
        }
    }
}

impl Store {
    /// As [`Store::add_layer`], of the archive that `write` writes; its answer comes as well. A writer that fails
    /// makes no layer.
    ///
    /// # Errors
    /// The writer's error, else as [`Store::add_layer`].
    pub fn add_written_layer<T: Send>(
        &self,
        parent: Option<&ChainId>,
        write: impl FnOnce(&mut dyn Write) -> std::result::Result<T, BuildError> + Send,
        progress: &dyn Progress,
    ) -> Result<(Layer, T)> {
        let (to, from) = bounded(PIECES);
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut writer = Writer {
                    to,
                    piece: Vec::with_capacity(PIECE),
                };
                let answer = write(&mut writer)?;
                writer.finish().map_err(|source| BuildError::Stream {
                    what: "write the layer archive",
                    source,
                })?;
                Ok(answer)
            });
            let reader = Reader {
                from,
                piece: io::Cursor::default(),
                ended: false,
            };
            let added = self.add_layer(parent, reader, None, progress);
            let written = match writing.join() {
                Ok(written) => written,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            match (added, written) {
                (Ok(layer), Ok(answer)) => Ok((layer, answer)),
                // A writer whose reader is gone has no reason of its own.
                (Err(error), Err(written)) if is_broken_pipe(&written) => Err(error),
                (_, Err(written)) => Err(StoreError::Build(written)),
                (Err(error), Ok(_)) => Err(error),
            }
        })
    }
}

fn is_broken_pipe(error: &BuildError) -> bool {
    matches!(error, BuildError::Stream { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}
