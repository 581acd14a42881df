//! User and mount namespaces: making them, entering those of another process.
//!
//! All of this is for a process without other threads, since a namespace belongs to a thread.

use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};

use super::{Errno, Result};

fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: only `UnshareFlags::FILES` would be unsafe, which nobody here passes.
    unsafe { unshare_unsafe(flags) }
}

/// A new user namespace, in which this process may do everything and no id is mapped yet.
///
/// # Errors
/// EPERM or ENOSPC where the machine does not allow it (or not that many); EINVAL with other threads.
pub fn new_user_namespace() -> Result<()> {
    unshare(UnshareFlags::NEWUSER)
}

/// A new mount namespace: mounts made outside are seen inside, but not the other way round.
///
/// # Errors
/// EPERM without the right to mount.
pub fn new_mount_namespace() -> Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
}

/// A new network namespace, in which there is nothing but a loopback interface, which is up.
///
/// # Errors
/// EPERM without the right to do so.
pub fn new_network_namespace() -> Result<()> {
    unshare(UnshareFlags::NEWNET)?;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero request is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the descriptor is open, and the request outlives the call that reads it.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if answer == 0 {
        Ok(())
    } else {
        Err(super::last_errno())
    }
}

/// Mounts the process table of this process's namespace on the directory `path`.
///
/// # Errors
/// EPERM in a user namespace that cannot see all of the outer one's table.
pub fn mount_process_table(path: &std::path::Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", path, "proc", flags, None)
}

/// Makes the root of the mount `root` the root directory, and takes the old one out of sight.
///
/// # Errors
/// EINVAL if it is no mount of this namespace; else as pivot_root(2).
pub fn enter_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// A new process namespace for the next process this one starts: it is the first there, and all others end with it.
///
/// # Errors
/// EPERM without the right to.
pub fn new_pid_namespace_for_children() -> Result<()> {
    unshare(UnshareFlags::NEWPID)
}

/// Asks for SIGKILL when the parent of this process ends, however that ends.
///
/// # Errors
/// As prctl(2).
pub fn be_killed_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// Enters the user and the mount namespace of the process `pid`. The working directory becomes `/`.
///
/// # Errors
/// ESRCH when it is gone, EPERM when it is not this user's, EINVAL when this is its user namespace already.
pub fn enter_namespaces_of(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    move_into_thread_name_spaces(
        process.as_fd(),
        ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT,
    )
}

/// Asks for SIGTERM when the parent of this process ends, however that ends.
///
/// # Errors
/// As prctl(2).
pub fn end_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
}

/// Makes a command get SIGTERM when this process ends, however that ends.
pub fn end_with_this_process(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || -> std::io::Result<()> {
        end_with_parent()?;
        // It may have ended already.
        let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if now == Some(parent) {
            Ok(())
        } else {
            Err(Errno::SRCH.into())
        }
    };
    // SAFETY: between fork and exec only two system calls are made, which allocate nothing.
    unsafe { command.pre_exec(prepare) };
}

/// A user namespace in which this user is root and nobody else exists, and a mount namespace of its own: what
/// `unshare -Urm` makes.
///
/// # Errors
/// EPERM or ENOSPC where the machine does not allow it; EINVAL with other threads.
pub fn become_root_alone() -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    new_user_namespace()?;
    let write = |name: &str, text: String| {
        std::fs::write(format!("/proc/self/{name}"), text)
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    };
    // Without the first a group may not be mapped by its own user.
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1\n"))?;
    write("gid_map", format!("0 {gid} 1\n"))?;
    new_mount_namespace()
}

/// The name of the user `uid`, as the system's databases have it.
pub fn name_of_user(uid: u32) -> Option<OsString> {
    let mut buffer = vec![0_u8; 16 * 1024];
    // SAFETY: an all-zero passwd is valid: null pointers and zeros.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: the buffer is as long as said; the call writes only into it, `entry` and `found`.
    let status = unsafe {
        libc::getpwuid_r(
            uid,
            &raw mut entry,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    if status != 0 || found.is_null() || entry.pw_name.is_null() {
        return None;
    }
    // SAFETY: a terminated string within the buffer, which is still alive.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    Some(OsString::from_vec(name.to_bytes().to_vec()))
}

/// Makes a command start in a mount namespace of its own, and get SIGTERM when this process ends; with
/// `hide_cgroups`, without the machine's cgroups in it. It also keeps `kept` open, which must be open until the command has been started.
pub fn start_apart(command: &mut Command, hide_cgroups: bool, kept: BorrowedFd<'_>) {
    let kept = kept.as_raw_fd();
    let prepare = move || -> std::io::Result<()> {
        end_with_parent()?;
        // SAFETY: the descriptor is open, since the caller has it borrowed until the command is started.
        rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(kept) }, FdFlags::empty())?;
        new_mount_namespace()?;
        if hide_cgroups {
            rustix::mount::mount(c"none", c"/sys/fs/cgroup", c"tmpfs", MountFlags::RDONLY, None)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls on constants are made, which allocate nothing.
    unsafe { command.pre_exec(prepare) };
}
