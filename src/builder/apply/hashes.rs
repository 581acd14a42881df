//! Digests of files, taken while their data goes by, in a thread of its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::{Digest, Sha256};

use super::scratch::Records;
use super::stream::Piece;
use crate::builder::Result;

/// Records that stay in memory: about 12 MiB.
const IN_MEMORY: usize = 200_000;
/// Inode number, a counter, a digest.
const RECORD: usize = 8 + 8 + 32;
/// Stands for "not known".
const UNKNOWN: [u8; 32] = [0; 32];
/// Messages that wait.
const AHEAD: usize = 64;

/// The sha256 of the files that were written, by inode number. Memory is bounded; the rest lies in an unnamed file.
#[derive(Debug)]
pub struct Hashes {
    records: Records<RECORD>,
}

impl Default for Hashes {
    /// None are known.
    fn default() -> Self {
        Self {
            records: Records::new(IN_MEMORY),
        }
    }
}

impl Hashes {
    /// The digest of the file with this inode number, holes read as zeros; `None` if it was not written here.
    ///
    /// # Errors
    /// When the file that holds the digests cannot be read.
    pub fn get(&self, ino: u64) -> Result<Option<[u8; 32]>> {
        let record = self.records.last_with(&ino.to_be_bytes())?;
        let digest = record.and_then(|record| record.last_chunk::<32>().copied());
        Ok(digest.filter(|digest| *digest != UNKNOWN))
    }

    fn set(&mut self, ino: u64, number: u64, digest: [u8; 32], dir: BorrowedFd<'_>) -> Result<()> {
        let mut record = [0; RECORD];
        let bytes = ino
            .to_be_bytes()
            .into_iter()
            .chain(number.to_be_bytes())
            .chain(digest);
        for (to, from) in record.iter_mut().zip(bytes) {
            *to = from;
        }
        self.records.add(record, dir)
    }
}

/// What the hashing thread is told, in this order for each file: data, and whose it was.
#[derive(Debug)]
enum Message {
    Data(Piece),
    Zeros(u64),
    File(u64),
    Forget(u64),
}

/// Sends data to the hashing thread.
#[derive(Debug)]
pub(super) struct Hasher {
    to: Option<Sender<Message>>,
}

impl Hasher {
    /// One that hashes nothing.
    pub(super) fn none() -> Self {
        Self { to: None }
    }

    /// Starts the thread, which answers once the hasher is dropped.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        dir: BorrowedFd<'scope>,
    ) -> (Self, ScopedJoinHandle<'scope, Result<Hashes>>) {
        let (to, from) = bounded(AHEAD);
        let thread = scope.spawn(move || run(&from, dir.as_fd()));
        (Self { to: Some(to) }, thread)
    }

    fn send(&self, message: Message) {
        if let Some(to) = &self.to {
            // The thread ends early only by an error of its own, which its handle tells.
            to.send(message).ok();
        }
    }

    /// The next data of the present file.
    pub(super) fn data(&self, piece: &Piece) {
        if self.to.is_some() {
            self.send(Message::Data(piece.clone()));
        }
    }

    /// A hole of the present file.
    pub(super) fn zeros(&self, bytes: u64) {
        if bytes > 0 {
            self.send(Message::Zeros(bytes));
        }
    }

    /// The present file is complete.
    pub(super) fn file(&self, ino: u64) {
        self.send(Message::File(ino));
    }

    /// The inode has other data now than the file that had its number before.
    pub(super) fn forget(&self, ino: u64) {
        self.send(Message::Forget(ino));
    }
}

fn run(from: &Receiver<Message>, dir: BorrowedFd<'_>) -> Result<Hashes> {
    let zeros = vec![0; 64 << 10];
    let mut hashes = Hashes::default();
    let mut hash = Sha256::new();
    let mut number = 0_u64;
    for message in from {
        match message {
            Message::Data(piece) => hash.update(piece.bytes()),
            Message::Zeros(mut left) => {
                while left > 0 {
                    let some = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                    hash.update(zeros.get(..some).unwrap_or_default());
                    left = left.saturating_sub(some as u64);
                }
            }
            Message::File(ino) => {
                number = number.saturating_add(1);
                hashes.set(ino, number, hash.finalize_reset().into(), dir)?;
            }
            Message::Forget(ino) => {
                number = number.saturating_add(1);
                hashes.set(ino, number, UNKNOWN, dir)?;
            }
        }
    }
    hashes.records.sort();
    Ok(hashes)
}
