//! `plyfs umount`: out of the tree, then wait until the server has written everything and is gone.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::MountError;
use super::registry::{self, Live};
use super::{helper, mountinfo};
use crate::sys::fusedev::Attributes;
use crate::sys::{Errno, fusedev};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// The server is gone and everything is on disk.
    Gone,
    /// A mount without a live server of this user's was cleared.
    Cleared,
    /// Out of the tree; the server goes with the last user of the view.
    StillUsed {
        /// The server.
        pid: u32,
    },
}

/// How long a lazy unmount waits for a server that nobody keeps.
const SHORTLY: Duration = Duration::from_millis(300);

/// Unmounts the view seen at `target`. `waiting` is called with the server's number if its end takes a while.
///
/// # Errors
/// When nothing of ours is mounted there, it is in use, or belongs to someone else.
pub fn unmount(target: &Path, lazy: bool, waiting: impl Fn(u32)) -> Result<Unmounted, MountError> {
    let mounts =
        mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
    let point = find_point(target, &mounts)?;
    let Some(mount) = super::setup::mounted_at(&mounts, &point) else {
        return Err(not_ours(&point, &mounts));
    };
    let server = registry::live()?
        .into_iter()
        .find(|live| live.entry.mount_id == mount.id && live.entry.merged.path() == point);
    let pidfd = server.as_ref().and_then(|live| hold(live.entry.pid));
    // Without a server nothing can be written any more, so there is nothing to be careful for. Only then is the view
    // itself asked: a server that hangs would not answer.
    let dead = server.is_none() && matches!(statfs(&point), Err(Errno::NOTCONN | Errno::CONNABORTED));
    take_out(&point, lazy || dead, &mounts)?;
    match server {
        None => Ok(Unmounted::Cleared),
        Some(live) => {
            let pid = live.entry.pid;
            if wait(
                &live,
                pidfd.as_ref(),
                Some(if lazy { SHORTLY } else { Duration::from_secs(3) }),
            )? {
                return Ok(Unmounted::Gone);
            }
            if lazy {
                return Ok(Unmounted::StillUsed { pid });
            }
            waiting(pid);
            wait(&live, pidfd.as_ref(), None)?;
            Ok(Unmounted::Gone)
        }
    }
}

/// Takes dead views off `target`, of whatever program, as a killed server leaves them.
///
/// # Errors
/// When the mount table cannot be read, or this user may not unmount.
pub(super) fn clear_dead(target: &Path) -> Result<(), MountError> {
    // One lies on the other where a program did not look.
    const MOST: usize = 64;
    for _ in 0..MOST {
        let mounts =
            mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
        let point = find_point(target, &mounts)?;
        let is_fuse = mountinfo::topmost(&mounts, &point).is_some_and(|top| top.kind.starts_with("fuse"));
        if !is_fuse || !matches!(statfs(&point), Err(Errno::NOTCONN | Errno::CONNABORTED)) {
            break;
        }
        log::info!("{}: a dead view gives way", point.display());
        take_out(&point, true, &mounts)?;
    }
    Ok(())
}

/// Changes what the kernel does with the view seen at `target`, as `mount -o remount` asks; the layers stay (K13).
///
/// # Errors
/// When nothing of ours is mounted there, or this user may not.
pub fn remount(target: &Path, attributes: Attributes) -> Result<(), MountError> {
    let mounts =
        mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
    let point = find_point(target, &mounts)?;
    if super::setup::mounted_at(&mounts, &point).is_none() {
        return Err(not_ours(&point, &mounts));
    }
    fusedev::remount(&point, attributes).map_err(MountError::io("cannot remount", &point))
}

/// The kernel's name of a mount point that itself may not answer any more.
fn find_point(target: &Path, mounts: &[mountinfo::MountEntry]) -> Result<PathBuf, MountError> {
    // The last component is the mount point; asking for anything above it is safe.
    let outside = target.file_name().and_then(|name| {
        let parent = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Some(parent.canonicalize().ok()?.join(name))
    });
    if let Some(point) = &outside
        && mountinfo::topmost(mounts, point).is_some()
    {
        return Ok(point.clone());
    }
    // A symlink to it, or `.`.
    match target.canonicalize() {
        Ok(point) => Ok(point),
        Err(error) => match outside {
            Some(point) if error.kind() != std::io::ErrorKind::NotFound => Ok(point),
            _ => Err(MountError::NotOurs {
                path: target.to_owned(),
                found: "there is no such directory".to_owned(),
            }),
        },
    }
}

fn not_ours(point: &Path, mounts: &[mountinfo::MountEntry]) -> MountError {
    if let Ok(live) = registry::live()
        && let Some(live) = live.iter().find(|live| live.entry.merged.path() == point)
    {
        return MountError::Elsewhere {
            path: point.to_owned(),
            pid: live.entry.pid,
        };
    }
    let found = mountinfo::topmost(mounts, point).map_or_else(
        || "nothing is mounted there".to_owned(),
        |entry| format!("it is a mount of type {}, not a view of plyfs", entry.kind),
    );
    MountError::NotOurs {
        path: point.to_owned(),
        found,
    }
}

fn take_out(point: &Path, lazy: bool, mounts: &[mountinfo::MountEntry]) -> Result<(), MountError> {
    match fusedev::detach(point, lazy) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy {
            path: point.to_owned(),
            users: users(point, mounts),
        }),
        Err(Errno::PERM) => {
            let helper = helper::find().ok_or(MountError::NoHelper)?;
            helper::unmount(&helper, point, lazy).map_err(|said| {
                if said.contains("busy") {
                    MountError::Busy {
                        path: point.to_owned(),
                        users: users(point, mounts),
                    }
                } else {
                    MountError::Helper {
                        path: point.to_owned(),
                        said,
                    }
                }
            })
        }
        Err(errno) => Err(MountError::io("cannot unmount", point)(errno)),
    }
}

/// A hold on the server, so that its end can be waited for and its number cannot come to mean another process.
fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits until the server has ended, or `limit` is over; whether it has ended.
fn wait(live: &Live, pidfd: Option<&OwnedFd>, limit: Option<Duration>) -> Result<bool, MountError> {
    let failed =
        |errno: Errno| MountError::io("cannot wait for the server of", &live.entry.merged.path())(errno);
    let free = || match flock(live.file.as_fd(), FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    };
    // The server dropped its lock meanwhile: then the number may not be its any more, and need not be.
    let Some(pidfd) = pidfd else {
        // A server in another process namespace: its lock on the file tells as well.
        if let Some(limit) = limit {
            std::thread::sleep(limit);
            return free().map_err(failed);
        }
        return flock(live.file.as_fd(), FlockOperation::LockShared)
            .map(|()| true)
            .map_err(failed);
    };
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
    let ended = rustix::io::retry_on_intr(|| poll(&mut watched, limit.as_ref())).map_err(failed)?;
    Ok(ended > 0)
}

/// Who keeps `point` busy, for a message: mounts below it, and processes with something of it open.
fn users(point: &Path, mounts: &[mountinfo::MountEntry]) -> String {
    const MOST: usize = 8;
    let mut text = String::new();
    let below = mounts
        .iter()
        .filter(|mount| mount.point != point && mount.point.starts_with(point));
    for mount in below.take(MOST) {
        // Writing into a String cannot fail.
        write!(
            text,
            "\n  {} is mounted below it (unmount it first)",
            mount.point.display()
        )
        .ok();
    }
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return text;
    };
    let own = std::process::id().to_string();
    let mut shown = 0_usize;
    for process in processes.flatten() {
        let name = process.file_name();
        let is_process =
            name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) && name != own.as_str();
        if let Some(how) = is_process.then(|| use_of(&process.path(), point)).flatten() {
            if shown == MOST {
                text.push_str("\n  and others");
                break;
            }
            shown = shown.saturating_add(1);
            let program = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            write!(text, "\n  process {} ({}) {how}", name.display(), program.trim()).ok();
        }
    }
    text
}

fn use_of(process: &Path, point: &Path) -> Option<String> {
    let leads_in = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(point));
    for (name, how) in [
        ("cwd", "has its working directory there"),
        ("root", "has its root there"),
        ("exe", "runs from there"),
    ] {
        if leads_in(&process.join(name)) {
            return Some(how.to_owned());
        }
    }
    std::fs::read_dir(process.join("fd"))
        .ok()?
        .flatten()
        .find_map(|file| {
            std::fs::read_link(file.path())
                .ok()
                .filter(|target| target.starts_with(point))
        })
        .map(|target| format!("has {} open", target.display()))
}
