//! What a process is: its root, its ids, its mount name space.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{Answer, Time, check};

/// umask(2): the one before.
pub(crate) fn umask(mask: u32) -> u32 {
    // SAFETY: plain call.
    unsafe { libc::umask(mask) }
}

/// fchdir(2).
pub(crate) fn fchdir(fd: RawFd) -> Answer<()> {
    // SAFETY: plain call on a descriptor that may be bad.
    check(unsafe { libc::fchdir(fd) }).map(drop)
}

/// Makes `root` the root and the working directory of this process.
pub(crate) fn enter_root(root: &CStr) -> Answer<()> {
    // SAFETY: strings that live over the calls.
    check(unsafe { libc::chroot(root.as_ptr()) })?;
    super::chdir(c"/")
}

/// Becomes another user for good, ends with the parent, and leaves no core file behind.
pub(crate) fn become_person(uid: u32, gid: u32, extra_group: u32, mask: u32) -> Answer<()> {
    let groups = [extra_group];
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain calls on values that live over them; libc sets the ids for all threads.
    unsafe {
        check(libc::setgroups(1, groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        check(libc::setrlimit(libc::RLIMIT_CORE, &no_core))?;
    }
    umask(mask);
    Ok(())
}

/// A mount name space for this thread and the processes it starts; nothing made there is seen outside.
pub(crate) fn own_mounts() -> Answer<()> {
    // SAFETY: plain call; it concerns this thread only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) })?;
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE, c"")
}

/// mount(2).
pub(crate) fn mount(source: &CStr, at: &CStr, kind: &CStr, flags: u64, words: &CStr) -> Answer<()> {
    // SAFETY: strings that live over the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            words.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// A remount with the same flags, which makes the kernel forget every unused name of the mount.
pub(crate) fn remount_as_is(at: &CStr) -> Answer<()> {
    let kept = (libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC | libc::ST_RDONLY) as i64;
    let flags = (super::statfs(at)?.f_flags & kept) as u64 | libc::MS_REMOUNT;
    // SAFETY: a string that lives over the call; the others are not read by a remount.
    check(unsafe {
        libc::mount(
            std::ptr::null(),
            at.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// umount2(2).
pub(crate) fn umount(at: &CStr, flags: i32) -> Answer<()> {
    // SAFETY: a string that lives over the call.
    check(unsafe { libc::umount2(at.as_ptr(), flags) }).map(drop)
}

/// Waits until the clock of file times, which ticks some hundred times a second, has passed `latest`: a change within
/// a tick moves nothing.
pub(crate) fn wait_for_tick(latest: Option<Time>) {
    let coarse = || {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a buffer to be filled in.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut now) };
        Time(now.tv_sec, now.tv_nsec)
    };
    for _ in 0..100 {
        if latest.is_none_or(|latest| latest < coarse()) {
            break;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}
