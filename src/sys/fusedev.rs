//! `/dev/fuse`, detached mounts, and the two kinds of child process a mount needs.
//!
//! A FUSE mount is made in two steps, so that nobody can walk into it before it answers: [`create_mount`] makes
//! it without a place in the tree, and [`attach`] hangs it there once its server has shaken hands.

use std::ffi::{OsStr, OsString};
use std::io;
use std::io::IoSliceMut;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Pid;

use super::{Errno, Result};

/// What a mounted view may be asked of the kernel, apart from who serves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `ro`
    pub read_only: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `noatime`, `strictatime`, or neither
    pub atime: Atime,
    /// `nodiratime`
    pub nodiratime: bool,
    /// `nosymfollow`
    pub nosymfollow: bool,
    /// `sync`
    pub sync: bool,
    /// `dirsync`
    pub dirsync: bool,
}

/// When reading a file through the view changes its access time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Atime {
    /// The kernel's default.
    #[default]
    Relative,
    /// `noatime`
    Never,
    /// `strictatime`
    Always,
}

impl Attributes {
    fn flags(self) -> MountAttrFlags {
        let mut flags = match self.atime {
            Atime::Relative => MountAttrFlags::MOUNT_ATTR_RELATIME,
            Atime::Never => MountAttrFlags::MOUNT_ATTR_NOATIME,
            Atime::Always => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
        };
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODIRATIME, self.nodiratime);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, self.nosymfollow);
        flags
    }
}

/// The security labels of a mount (SELinux), by the word that sets each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<(&'static str, OsString)>);

impl Labels {
    const WORDS: [&'static str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

    /// Takes the value of a word, without the quotes that may be around it; `false` if the word sets no label.
    pub fn set(&mut self, word: &str, value: &OsStr) -> bool {
        let Some(word) = Self::WORDS.into_iter().find(|known| *known == word) else {
            return false;
        };
        let bytes = value.as_bytes();
        let bare = bytes
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        self.0.retain(|(earlier, _)| *earlier != word);
        self.0
            .push((word, OsStr::from_bytes(bare.unwrap_or(bytes)).to_owned()));
        true
    }

    /// The words and their values, where the kernel has labels; nothing elsewhere, where it would refuse the words.
    pub fn effective(&self) -> &[(&'static str, OsString)] {
        if self.0.is_empty() || std::path::Path::new("/sys/fs/selinux/enforce").exists() {
            &self.0
        } else {
            log::info!("labels of the mount are left out: this kernel has no SELinux");
            &[]
        }
    }
}

/// Opens a connection to the kernel's FUSE.
///
/// # Errors
/// ENOENT or ENODEV without FUSE in the kernel, EACCES or EPERM when this user may not use it.
pub fn open_device() -> Result<OwnedFd> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Whether this process may mount by itself: EPERM says that it needs a setuid helper.
///
/// # Errors
/// EPERM without the right to mount, ENODEV without FUSE in the kernel.
pub fn may_mount() -> Result<()> {
    fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map(drop)
}

/// Makes a FUSE mount that is not yet part of any tree. It goes away with its descriptor unless attached.
///
/// Labels that the kernel refuses are left out: SELinux gives none to a FUSE mount of a user namespace, and container
/// engines ask for one all the same.
///
/// # Errors
/// EPERM without the right to mount; EINVAL when `fuse` was opened in another user namespace.
pub fn create_mount(
    fuse: BorrowedFd<'_>,
    source: &OsStr,
    attributes: Attributes,
    labels: &Labels,
) -> Result<OwnedFd> {
    let labels = labels.effective();
    if labels.is_empty() {
        return create_with(fuse, source, attributes, &[]);
    }
    // A connection is spent by a mount that is refused, so the labels are tried on another one.
    let tried = open_device().and_then(|trial| create_with(trial.as_fd(), source, attributes, labels));
    match tried {
        Ok(_) => create_with(fuse, source, attributes, labels),
        Err(errno) => {
            log::info!("labels of the mount are left out, which the kernel refuses: {errno}");
            create_with(fuse, source, attributes, &[])
        }
    }
}

fn create_with(
    fuse: BorrowedFd<'_>,
    source: &OsStr,
    attributes: Attributes,
    labels: &[(&'static str, OsString)],
) -> Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", source)?;
    fsconfig_set_string(context, "subtype", "plyfs")?;
    fsconfig_set_string(context, "fd", fuse.as_raw_fd().to_string())?;
    fsconfig_set_string(context, "rootmode", "40000")?;
    fsconfig_set_string(
        context,
        "user_id",
        rustix::process::geteuid().as_raw().to_string(),
    )?;
    fsconfig_set_string(
        context,
        "group_id",
        rustix::process::getegid().as_raw().to_string(),
    )?;
    fsconfig_set_flag(context, "default_permissions")?;
    // Whoever may mount may let others in; in a user namespace the kernel limits them to that namespace.
    fsconfig_set_flag(context, "allow_other")?;
    for (wanted, flag) in [
        (attributes.read_only, "ro"),
        (attributes.sync, "sync"),
        (attributes.dirsync, "dirsync"),
    ] {
        if wanted {
            fsconfig_set_flag(context, flag)?;
        }
    }
    for (word, label) in labels {
        fsconfig_set_string(context, *word, label.as_os_str())?;
    }
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())
}

/// Hangs a detached mount over the directory `at`.
///
/// # Errors
/// EPERM, or ENOENT when the directory has been removed.
pub fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", at, "", flags)
}

/// Takes whatever is mounted on `path` out of the tree: at once and only if unused, or (`lazy`) from sight now
/// and in truth with its last user.
///
/// # Errors
/// EBUSY, EPERM, or EINVAL when nothing is mounted there.
pub fn detach(path: &std::path::Path, lazy: bool) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    unmount(path, flags)
}

/// Gives the mount on `path` other attributes.
///
/// # Errors
/// EPERM, EBUSY when it is to be read-only and something is open for writing, or EINVAL when it is no mount.
pub fn remount(path: &std::path::Path, attributes: Attributes) -> Result<()> {
    let mut flags = match attributes.atime {
        Atime::Relative => MountFlags::RELATIME,
        Atime::Never => MountFlags::NOATIME,
        Atime::Always => MountFlags::STRICTATIME,
    };
    flags.set(MountFlags::RDONLY, attributes.read_only);
    flags.set(MountFlags::NOSUID, attributes.nosuid);
    flags.set(MountFlags::NODEV, attributes.nodev);
    flags.set(MountFlags::NOEXEC, attributes.noexec);
    flags.set(MountFlags::NODIRATIME, attributes.nodiratime);
    flags.set(MountFlags::SYNCHRONOUS, attributes.sync);
    flags.set(MountFlags::DIRSYNC, attributes.dirsync);
    mount_remount(path, flags, c"")
}

/// A private, read-only copy of the mount below the directory `dir`, in nobody's tree, without what is mounted
/// further down, now or later. No file opened through it can be written, whatever the server does.
///
/// # Errors
/// EPERM without the right to mount; EINVAL where the kernel protects mounts further down.
pub fn clone_read_only(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(dir, "", flags)?;
    // The copy of a shared mount is shared too: not every kernel keeps from it what is mounted there later.
    let read_only = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let without_atime = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        ..read_only
    };
    match change_attributes(clone.as_fd(), &without_atime, 0) {
        // In a user namespace the atime mode of an inherited mount may be locked; read-only is what matters.
        Err(Errno::PERM) => change_attributes(clone.as_fd(), &read_only, 0)?,
        other => other?,
    }
    Ok(clone)
}

/// A copy of the mount below `object`, a directory or a file, with everything that is mounted further down, in nobody's
/// tree yet; read-only in all its parts if asked for.
///
/// # Errors
/// EPERM without the right to mount.
pub fn clone_tree(object: BorrowedFd<'_>, read_only: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let clone = open_tree(object, "", flags)?;
    if read_only {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_RDONLY,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        change_attributes(clone.as_fd(), &attributes, libc::AT_RECURSIVE)?;
    }
    Ok(clone)
}

fn change_attributes(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, how: libc::c_int) -> Result<()> {
    // SAFETY: the descriptor is open, the path is a terminated string, and the structure outlives the call and
    // is passed with its own size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | how,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(super::last_errno())
    }
}

/// Receives one descriptor over a socket, as `fusermount3` sends it; `None` when the sender closed without.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive_descriptor(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return Ok(descriptors.next());
        }
    }
    Ok(None)
}

/// Which of the two processes [`fork`] returned in.
#[derive(Debug)]
pub enum Forked {
    /// The caller goes on.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Splits the process in two. Refused (EBUSY) once there are threads, since a child would have their locks but
/// not them.
///
/// # Errors
/// EBUSY, or what fork(2) says.
pub fn fork() -> io::Result<Forked> {
    // A thread that was waited for may be seen for a moment longer.
    let mut tries = 100_u8;
    while std::fs::read_dir("/proc/self/task")?.count() != 1 {
        tries = tries.checked_sub(1).ok_or(Errno::BUSY)?;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // SAFETY: there is no other thread, so the child is a full copy that may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        None => Ok(Forked::Child),
        Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Forked::Parent(pid)),
        Some(_) => Err(super::last_errno().into()),
    }
}

/// Ends this process at once, running no destructor: for a child whose copies of its parent's objects must not
/// act.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing can be observed afterwards.
    unsafe { libc::_exit(status) }
}

/// Points the standard streams to /dev/null, moves `kept` to number 3, closes everything else, and gives back
/// the new number. For a child that must hold nothing of its parent's; it has to end by [`exit_now`], as every
/// other object that owns a descriptor is void afterwards.
///
/// # Errors
/// What dup(2) and close_range(2) say.
pub fn keep_only(kept: OwnedFd) -> Result<OwnedFd> {
    const KEPT: RawFd = 3;
    silence(None)?;
    // SAFETY: plain system calls on numbers. Whatever was open as 3 or above is closed here and, by the
    // contract above, never used or dropped again; `kept` gives its number away and comes back as 3.
    unsafe {
        use std::os::fd::{FromRawFd, IntoRawFd};
        let old = kept.into_raw_fd();
        if old != KEPT && libc::dup3(old, KEPT, libc::O_CLOEXEC) < 0 {
            return Err(super::last_errno());
        }
        if libc::syscall(libc::SYS_close_range, 4, libc::c_uint::MAX, 0) != 0 {
            return Err(super::last_errno());
        }
        Ok(OwnedFd::from_raw_fd(KEPT))
    }
}

/// Points the standard streams to /dev/null, or standard error to `log`.
///
/// # Errors
/// What open(2) and dup(2) say.
pub fn silence(log: Option<BorrowedFd<'_>>) -> Result<()> {
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(log.unwrap_or(null.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_with_quotes_and_without() {
        let mut labels = Labels::default();
        assert!(labels.set(
            "context",
            OsStr::new("\"system_u:object_r:container_file_t:s0:c1,c2\"")
        ));
        assert!(labels.set("fscontext", OsStr::new("a\"b")));
        assert!(!labels.set("seclabel", OsStr::new("x")));
        assert!(labels.set("fscontext", OsStr::new("c")));
        let expected = Labels(vec![
            ("context", "system_u:object_r:container_file_t:s0:c1,c2".into()),
            ("fscontext", "c".into()),
        ]);
        assert_eq!(labels, expected);
        let selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
        assert_eq!(labels.effective().is_empty(), !selinux);
    }
}
