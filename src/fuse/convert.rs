//! Between the protocol's types and our own.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use super::wire;
use crate::overlay::trace;
use crate::sys::Errno;
use crate::sys::at::SetTime;
use crate::sys::stat::{Stat, Time};

/// The error as it is answered; those who listen are told.
pub(super) fn errno(errno: Errno) -> fuser::Errno {
    trace::failed(errno);
    fuser::Errno::from_i32(errno.raw_os_error())
}

/// fuser turns seconds and nanoseconds before 1970 into a wrong instant, but in a way that can be undone.
fn from_fuser_time(time: SystemTime) -> Time {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Time {
            secs: after.as_secs() as i64,
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                secs: (before.as_secs() as i64).wrapping_neg(),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

pub(super) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::At(from_fuser_time(time)),
    }
}

pub(super) fn file_type(kind: u32) -> FileType {
    match kind {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let base = if time.secs >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    base.and_then(|base| base.checked_add(nanos))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(super) fn file_attr(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.ino),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(stat.kind()),
        perm: (stat.mode & 0o7777) as u16,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: wire::pack_device(stat.rdev),
        blksize: stat.blksize,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_fuser() {
        // As fuser computes it from (-2, 200_000_000), which means 1.8 s before 1970.
        let wrong = SystemTime::UNIX_EPOCH - Duration::new(2, 200_000_000);
        let time = from_fuser_time(wrong);
        assert_eq!(
            time,
            Time {
                secs: -2,
                nanos: 200_000_000
            }
        );
        assert_eq!(
            system_time(time),
            SystemTime::UNIX_EPOCH - Duration::from_millis(1800)
        );
    }
}
