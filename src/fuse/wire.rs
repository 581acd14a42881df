//! Answers that carry a node id and an inode number which differ.
//!
//! fuser sends one number as both. Here they are two things (see `docs/design.md`), so these few answers
//! are laid out by hand and written to the device that fuser reads from.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::overlay::NodeId;
use crate::sys::stat::{Stat, Time};
use crate::sys::{Errno, Result};

/// Size of `struct fuse_out_header`.
const HEADER: usize = 16;
/// Size of `struct fuse_entry_out` and `struct fuse_dirent` together.
const DIRENT_PLUS: usize = 128 + 24;

/// An answer being put together.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
}

/// The node, and what the kernel may remember of it and for how long.
#[derive(Debug, Clone, Copy)]
pub struct EntryOut<'a> {
    /// 0 says that the name does not exist, or that only the listing is meant.
    pub node: NodeId,
    /// Attributes; `ino` is the number that programs see.
    pub stat: Option<&'a Stat>,
    /// How long the name may be trusted.
    pub name_ttl: Duration,
    /// How long the attributes may be trusted.
    pub attr_ttl: Duration,
}

/// The device number as the protocol packs it.
pub fn pack_device(rdev: u64) -> u32 {
    let (major, minor) = (libc::major(rdev), libc::minor(rdev));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The device number out of the protocol's packing.
pub fn unpack_device(packed: u32) -> u64 {
    libc::makedev((packed & 0xfff00) >> 8, packed & 0xff | (packed >> 12) & 0xfff00)
}

impl Answer {
    /// An empty answer to the request `unique`.
    pub fn new(unique: u64) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&unique.to_ne_bytes());
        Self { bytes }
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn attr(&mut self, stat: Option<&Stat>) {
        let Some(stat) = stat else {
            self.bytes.extend_from_slice(&[0; 88]);
            return;
        };
        self.u64(stat.ino);
        self.u64(stat.size);
        self.u64(stat.blocks);
        let times: [Time; 3] = [stat.atime, stat.mtime, stat.ctime];
        times.iter().for_each(|time| self.u64(time.secs as u64));
        times.iter().for_each(|time| self.u32(time.nanos));
        self.u32(stat.mode);
        self.u32(stat.nlink);
        self.u32(stat.uid);
        self.u32(stat.gid);
        self.u32(pack_device(stat.rdev));
        self.u32(stat.blksize);
        self.u32(0);
    }

    /// Appends a `struct fuse_entry_out`.
    pub fn entry(&mut self, entry: &EntryOut<'_>) {
        self.u64(entry.node);
        self.u64(0);
        self.u64(entry.name_ttl.as_secs());
        self.u64(entry.attr_ttl.as_secs());
        self.u32(entry.name_ttl.subsec_nanos());
        self.u32(entry.attr_ttl.subsec_nanos());
        self.attr(entry.stat);
    }

    /// Appends a `struct fuse_open_out`; `backing` is 0 without passthrough.
    pub fn open(&mut self, handle: u64, flags: u32, backing: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(backing);
    }

    /// True if a further entry of a listing, with this name, keeps the answer within `room` bytes.
    pub fn fits(&self, name: &[u8], room: usize) -> bool {
        let used = self.bytes.len().saturating_sub(HEADER);
        used.saturating_add(DIRENT_PLUS)
            .saturating_add(name.len().next_multiple_of(8))
            <= room
    }

    /// Appends a `struct fuse_direntplus`.
    pub fn dirent_plus(&mut self, entry: &EntryOut<'_>, number: u64, next: u64, kind: u32, name: &[u8]) {
        self.entry(entry);
        self.u64(number);
        self.u64(next);
        self.u32(name.len() as u32);
        self.u32(kind >> 12);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Sends the answer.
    ///
    /// # Errors
    /// ENOENT when the caller was killed and the kernel wants no answer any more; ENODEV after an unmount.
    pub fn send(mut self, device: &OwnedFd) -> Result<()> {
        let len = u32::try_from(self.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
        if let Some(field) = self.bytes.first_chunk_mut::<4>() {
            *field = len.to_ne_bytes();
        }
        rustix::io::write(device, &self.bytes).map(drop)
    }
}

/// `FUSE_NOTIFY_STORE`.
const NOTIFY_STORE: u32 = 4;

/// Puts the whole data of a file into the kernel's cache, unasked; waits for pages that somebody is reading.
///
/// # Errors
/// ENOENT for a node that the kernel does not know any more; else as writev(2).
pub fn store(device: BorrowedFd<'_>, node: NodeId, data: &[u8]) -> Result<()> {
    // `struct fuse_notify_store_out`: node, offset, size, padding.
    let size = u32::try_from(data.len()).map_err(|_| Errno::FBIG)?;
    let length = size.checked_add(HEADER as u32 + 24).ok_or(Errno::FBIG)?;
    let mut head = Vec::with_capacity(HEADER + 24);
    head.extend_from_slice(&length.to_ne_bytes());
    head.extend_from_slice(&NOTIFY_STORE.to_ne_bytes());
    head.extend_from_slice(&[0; 8]);
    head.extend_from_slice(&node.to_ne_bytes());
    head.extend_from_slice(&[0; 8]);
    head.extend_from_slice(&size.to_ne_bytes());
    head.extend_from_slice(&[0; 4]);
    rustix::io::writev(device, &[IoSlice::new(&head), IoSlice::new(data)]).map(drop)
}

/// The room in bytes that the kernel gave for a listing.
///
/// fuser knows it but tells it only in its debug form. A page is what the kernel gives at least, so that is
/// what stands in should that form ever change.
pub fn listing_room(reply: &fuser::ReplyDirectoryPlus) -> usize {
    const KEY: &[u8] = b"max_size: ";
    #[derive(Default)]
    struct Scanner {
        matched: usize,
        value: Option<usize>,
    }
    impl std::fmt::Write for Scanner {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for byte in text.bytes() {
                if self.matched == KEY.len() {
                    if !byte.is_ascii_digit() {
                        return Err(std::fmt::Error);
                    }
                    let digit = usize::from(byte.saturating_sub(b'0'));
                    self.value = Some(self.value.unwrap_or(0).saturating_mul(10).saturating_add(digit));
                } else if KEY.get(self.matched) == Some(&byte) {
                    self.matched += 1;
                } else {
                    self.matched = usize::from(KEY.first() == Some(&byte));
                }
            }
            Ok(())
        }
    }
    let mut scanner = Scanner::default();
    // The error is the scanner's own way to stop early.
    if write!(scanner, "{reply:?}").is_ok() {
        log::trace!("fuser's debug form changed");
    }
    scanner.value.unwrap_or(4096).clamp(4096, 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_pack_both_ways() {
        for (major, minor) in [(0, 0), (1, 3), (8, 300), (4095, 0xfffff), (10, 229)] {
            let rdev = libc::makedev(major, minor);
            assert_eq!(unpack_device(pack_device(rdev)), rdev, "{major}:{minor}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_protocol() {
        let ttl = Duration::from_secs(1);
        let entry = EntryOut {
            node: 7,
            stat: None,
            name_ttl: ttl,
            attr_ttl: ttl,
        };
        let mut answer = Answer::new(3);
        answer.entry(&entry);
        assert_eq!(answer.bytes.len(), HEADER + 128);
        let mut answer = Answer::new(3);
        assert!(answer.fits(b"name", 160) && !answer.fits(b"name-name", 160));
        answer.dirent_plus(&entry, 1, 2, libc::S_IFREG, b"name");
        assert_eq!(answer.bytes.len(), HEADER + 160);
    }
}
