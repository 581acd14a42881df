//! Calls on paths, relative to the working directory.

use std::ffi::CStr;

use super::{Answer, check};

const HERE: i32 = libc::AT_FDCWD;

/// truncate(2).
pub(crate) fn truncate(path: &CStr, len: i64) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::truncate64(path.as_ptr(), len) }).map(drop)
}

/// mkdir(2).
pub(crate) fn mkdir(path: &CStr, mode: u32) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::mkdir(path.as_ptr(), mode) }).map(drop)
}

/// mknod(2); `mode` says the type too.
pub(crate) fn mknod(path: &CStr, mode: u32, major: u32, minor: u32) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) }).map(drop)
}

/// symlink(2).
pub(crate) fn symlink(target: &CStr, path: &CStr) -> Answer<()> {
    // SAFETY: strings that live over the call.
    check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }).map(drop)
}

/// link(2), or with `follow` of what a symlink points to.
pub(crate) fn link(from: &CStr, to: &CStr, follow: bool) -> Answer<()> {
    let flags = if follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
    // SAFETY: strings that live over the call.
    check(unsafe { libc::linkat(HERE, from.as_ptr(), HERE, to.as_ptr(), flags) }).map(drop)
}

/// unlink(2).
pub(crate) fn unlink(path: &CStr) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::unlink(path.as_ptr()) }).map(drop)
}

/// rmdir(2).
pub(crate) fn rmdir(path: &CStr) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::rmdir(path.as_ptr()) }).map(drop)
}

/// renameat2(2).
pub(crate) fn rename(from: &CStr, to: &CStr, flags: u32) -> Answer<()> {
    // SAFETY: strings that live over the call.
    check(unsafe { libc::renameat2(HERE, from.as_ptr(), HERE, to.as_ptr(), flags) }).map(drop)
}

/// chmod(2).
pub(crate) fn chmod(path: &CStr, mode: u32) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
}

fn itself_unless(follow: bool) -> i32 {
    if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }
}

/// chown(2) or lchown(2).
pub(crate) fn chown(path: &CStr, uid: u32, gid: u32, follow: bool) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::fchownat(HERE, path.as_ptr(), uid, gid, itself_unless(follow)) }).map(drop)
}

/// utimensat(2): access and modification time.
pub(crate) fn utimens(path: &CStr, times: &[libc::timespec; 2], follow: bool) -> Answer<()> {
    // SAFETY: a string and two times that live over the call.
    check(unsafe { libc::utimensat(HERE, path.as_ptr(), times.as_ptr(), itself_unless(follow)) }).map(drop)
}

/// access(2), or with `effective` by the effective ids.
pub(crate) fn access(path: &CStr, mode: i32, effective: bool) -> Answer<()> {
    let flags = if effective { libc::AT_EACCESS } else { 0 };
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::faccessat(HERE, path.as_ptr(), mode, flags) }).map(drop)
}

/// statfs(2).
pub(crate) fn statfs(path: &CStr) -> Answer<libc::statfs64> {
    // SAFETY: an all-zero buffer is valid, to be filled in; the string lives over the call.
    unsafe {
        let mut st: libc::statfs64 = std::mem::zeroed();
        check(libc::statfs64(path.as_ptr(), &mut st))?;
        Ok(st)
    }
}

/// chdir(2).
pub(crate) fn chdir(path: &CStr) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}
