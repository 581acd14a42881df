//! Reading the names of a directory.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use super::{Errno, Result};

/// One name as the file system lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, never `.` or `..`.
    pub name: Box<[u8]>,
    /// The type bits of a mode (`S_IFMT`), or 0 where the file system does not tell.
    pub kind: u32,
    /// Inode number.
    pub ino: u64,
}

/// Calls `each` for every name of an open directory, in the file system's order, until it says `false`.
///
/// `.` and `..` are left out.
///
/// # Errors
/// As getdents64(2), or what `each` returns.
pub fn read_names(dir: impl AsFd, mut each: impl FnMut(Entry) -> Result<bool>) -> Result<()> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut names = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            rustix::fs::FileType::Unknown => 0,
            known => known.as_raw_mode() & libc::S_IFMT,
        };
        if !each(Entry {
            name: name.into(),
            kind,
            ino: entry.ino(),
        })? {
            break;
        }
    }
    Ok(())
}
