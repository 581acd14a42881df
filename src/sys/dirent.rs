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

/// One name in the buffer of a directory read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The name, never `.` or `..`.
    pub name: &'a [u8],
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
    read_raw(dir, |raw| {
        each(Entry {
            name: raw.name.into(),
            kind: raw.kind,
            ino: raw.ino,
        })
    })
}

/// As [`read_names`], with names that live only as long as the call, and any error type.
///
/// # Errors
/// As getdents64(2), or what `each` returns.
pub fn read_raw<E: From<Errno>>(
    dir: impl AsFd,
    mut each: impl FnMut(Raw<'_>) -> std::result::Result<bool, E>,
) -> std::result::Result<(), E> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut names = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            rustix::fs::FileType::Unknown => 0,
            known => known.as_raw_mode() & libc::S_IFMT,
        };
        if !each(Raw {
            name,
            kind,
            ino: entry.ino(),
        })? {
            break;
        }
    }
    Ok(())
}
