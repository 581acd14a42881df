//! From a writer in one thread to a reader in another: an archive is read while it is written.
//!
//! Not a pipe of the kernel, since the reader must tell an archive that ended from one whose writer failed.

use std::io::{self, Read, Write};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Bytes that go over at once.
const CHUNK: usize = 128 * 1024;
/// Chunks on their way.
const CHUNKS: usize = 8;

/// The two ends.
pub fn stream() -> (StreamWriter, StreamReader) {
    let (sender, receiver) = bounded(CHUNKS);
    let writer = StreamWriter {
        sender,
        chunk: Vec::with_capacity(CHUNK),
    };
    let reader = StreamReader {
        receiver,
        chunk: Vec::new(),
        at: 0,
        ended: false,
    };
    (writer, reader)
}

/// The end that is written. Dropped without [`StreamWriter::end`], the reader fails.
#[derive(Debug)]
pub struct StreamWriter {
    sender: Sender<Option<Vec<u8>>>,
    chunk: Vec<u8>,
}

/// The end that is read.
#[derive(Debug)]
pub struct StreamReader {
    receiver: Receiver<Option<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl StreamWriter {
    /// Says that everything has been written.
    ///
    /// # Errors
    /// EPIPE if the reader is gone.
    pub fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.sender
            .send(None)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for StreamWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(data);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.sender
            .send(Some(full))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.recv() {
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    self.at = 0;
                }
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::other("what writes it has failed")),
            }
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_through() {
        let (mut writer, mut reader) = stream();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for part in sent.chunks(70_001) {
                    writer.write_all(part).unwrap();
                }
                writer.end().unwrap();
            });
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            assert_eq!(got, sent);
        });
    }

    #[test]
    fn a_writer_that_fails_is_no_end() {
        let (mut writer, mut reader) = stream();
        writer.write_all(b"half").unwrap();
        writer.flush().unwrap();
        drop(writer);
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_reader_that_left_is_told() {
        let (mut writer, reader) = stream();
        drop(reader);
        writer.write_all(b"x").unwrap();
        assert!(writer.end().is_err());
    }
}
