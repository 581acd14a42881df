//! A step as another user, with other groups or another umask.
//!
//! Linux keeps credentials per thread; only the C library spreads them over the process. So a step runs in a thread
//! of its own that calls the kernel directly. Values and descriptors pass to and fro as between any two threads.

/// Ids of a caller. No entry in `/etc/passwd` is needed.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
}

/// An ordinary user in its own group.
pub const ANN: User = User {
    uid: 1001,
    gid: 1001,
    groups: &[],
};
/// Another one.
pub const BOB: User = User {
    uid: 1002,
    gid: 1002,
    groups: &[],
};

impl User {
    pub const fn new(uid: u32, gid: u32, groups: &'static [u32]) -> Self {
        User { uid, gid, groups }
    }
}

/// Runs `step` with the user's ids and without capabilities.
pub fn as_user<T: Send>(user: User, step: impl FnOnce() -> T + Send) -> T {
    in_thread(move || {
        let gids = user.groups;
        // SAFETY: plain numbers, and a slice with its length. Raw calls change this thread only.
        unsafe {
            assert_eq!(
                libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()),
                0,
                "setgroups"
            );
            assert_eq!(
                libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid),
                0,
                "setresgid"
            );
            assert_eq!(
                libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid),
                0,
                "setresuid"
            );
        }
        step()
    })
}

/// Runs `step` with another umask.
pub fn with_umask<T: Send>(umask: u32, step: impl FnOnce() -> T + Send) -> T {
    in_thread(move || {
        // SAFETY: the thread has its own umask since `in_thread`.
        unsafe { libc::umask(umask) };
        step()
    })
}

/// A thread with its own umask and working directory.
pub fn in_thread<T: Send>(step: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: CLONE_FS only gives this thread its own copy of umask and working directory.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0, "unshare(CLONE_FS)");
            step()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Makes `root` the root directory of this thread, which must be one of [`in_thread`].
pub fn chroot(root: &std::path::Path) {
    let path = super::sys::c(root);
    // SAFETY: a string that lives until the calls return.
    unsafe {
        assert_eq!(libc::chroot(path.as_ptr()), 0, "chroot");
        assert_eq!(libc::chdir(c"/".as_ptr()), 0, "chdir");
    }
}
