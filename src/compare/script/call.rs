//! Calls as Python, in the words of `prelude.py`.

use crate::compare::bytes::Bytes;
use crate::compare::op::{Call, Fill, When};

fn python_bytes(bytes: &Bytes) -> String {
    if let Some(first) = bytes.0.first()
        && bytes.0.len() > 64
        && bytes.0.iter().all(|byte| byte == first)
    {
        return format!("b'{}' * {}", Bytes(vec![*first]), bytes.0.len());
    }
    format!("b'{bytes}'")
}

fn fill(data: Fill) -> String {
    format!("fill({}, {})", data.seed, data.len)
}

fn id(id: u32) -> String {
    if id == u32::MAX {
        "-1".into()
    } else {
        id.to_string()
    }
}

fn times(access: When, modify: When) -> String {
    let one = |when| match when {
        When::At(sec, nsec) => format!("{sec}, {nsec}"),
        When::Now => "0, (1 << 30) - 1".into(),
        When::Omit => "0, (1 << 30) - 2".into(),
    };
    format!("[{}, {}]", one(access), one(modify))
}

/// A call as a Python expression of the prelude.
pub(super) fn line(call: &Call) -> String {
    use Call::*;
    let b = python_bytes;
    let follow = |follow: &bool| if *follow { "True" } else { "False" };
    match call {
        Open {
            slot,
            path,
            flags,
            mode,
        } => format!("opened({slot}, {}, 0o{flags:o}, 0o{mode:o})", b(path)),
        Close { slot } => format!("os.close(fds.pop({slot}, -1))"),
        Read { slot, len } => format!("os.read(fd({slot}), {len})[:24]"),
        Pread { slot, at, len } => format!("os.pread(fd({slot}), {len}, {at})[:24]"),
        Write { slot, data } => format!("os.write(fd({slot}), {})", fill(*data)),
        Pwrite { slot, at, data } => format!("os.pwrite(fd({slot}), {}, {at})", fill(*data)),
        Seek { slot, to, whence } => format!("os.lseek(fd({slot}), {to}, {whence})"),
        SeekSparse { slot, at, hole } => format!("os.lseek(fd({slot}), {at}, {})", if *hole { 4 } else { 3 }),
        Ftruncate { slot, len } => format!("os.ftruncate(fd({slot}), {len})"),
        Fallocate { slot, mode, at, len } => format!("fallocate({slot}, {mode}, {at}, {len})"),
        Fsync { slot, data_only } => format!(
            "os.{}(fd({slot}))",
            if *data_only { "fdatasync" } else { "fsync" }
        ),
        Fstat { slot } => format!("show(os.fstat(fd({slot})))"),
        Fchmod { slot, mode } => format!("os.fchmod(fd({slot}), 0o{mode:o})"),
        Fchown { slot, uid, gid } => format!("os.fchown(fd({slot}), {}, {})", id(*uid), id(*gid)),
        Futimens { slot, access, modify } => {
            format!("times(fd({slot}), None, {}, 0)", times(*access, *modify))
        }
        Fsetxattr {
            slot,
            name,
            value,
            flags,
        } => {
            format!("os.setxattr(fd({slot}), {}, {}, {flags})", b(name), b(value))
        }
        Fgetxattr { slot, name } => format!("os.getxattr(fd({slot}), {})", b(name)),
        MmapWrite { slot, at, data } => format!("mmap_write({slot}, {at}, {})", fill(*data)),
        MmapRead { slot, at, len } => format!("os.pread(fd({slot}), {len}, {at})[:24]"),
        CopyRange {
            from,
            from_at,
            to,
            to_at,
            len,
        } => {
            format!("os.copy_file_range(fd({from}), fd({to}), {len}, {from_at}, {to_at})")
        }
        LinkSlot { slot, path } => format!("link_fd({slot}, {})", b(path)),
        Flock { slot, how } => format!("fcntl.flock(fd({slot}), {how} | fcntl.LOCK_NB)"),
        Lock {
            slot,
            kind,
            at,
            len,
            of_file,
        } => {
            format!(
                "lock({slot}, {kind}, {at}, {len}, {})",
                if *of_file { 37 } else { 6 }
            )
        }
        GetFlags { slot } => format!("fcntl.ioctl(fd({slot}), 0x80086601, bytes(8))"),
        NextNames { slot, .. } => format!("names(fd({slot}))"),
        SeekNames { slot, .. } => format!("os.lseek(fd({slot}), 0, 0)"),
        Truncate { path, len } => format!("os.truncate({}, {len})", b(path)),
        ReadFile { path } => format!("read_all({})", b(path)),
        WriteFile {
            path,
            flags,
            mode,
            data,
        } => {
            format!("written({}, 0o{flags:o}, 0o{mode:o}, {})", b(path), fill(*data))
        }
        Mkdir { path, mode } => format!("os.mkdir({}, 0o{mode:o})", b(path)),
        Mknod {
            path,
            mode,
            major,
            minor,
        } => {
            format!("os.mknod({}, 0o{mode:o}, os.makedev({major}, {minor}))", b(path))
        }
        Symlink { target, path } => format!("os.symlink({}, {})", b(target), b(path)),
        Readlink { path } => format!("os.readlink({})", b(path)),
        Link { from, to, follow: f } => {
            format!("os.link({}, {}, follow_symlinks={})", b(from), b(to), follow(f))
        }
        Unlink { path } => format!("os.unlink({})", b(path)),
        Rmdir { path } => format!("os.rmdir({})", b(path)),
        Rename { from, to, flags: 0 } => format!("os.rename({}, {})", b(from), b(to)),
        Rename { from, to, flags } => format!("renameat2({}, {}, {flags})", b(from), b(to)),
        Chmod { path, mode } => format!("os.chmod({}, 0o{mode:o})", b(path)),
        Chown {
            path,
            uid,
            gid,
            follow: f,
        } => {
            format!(
                "os.chown({}, {}, {}, follow_symlinks={})",
                b(path),
                id(*uid),
                id(*gid),
                follow(f)
            )
        }
        Utimens {
            path,
            access,
            modify,
            follow,
        } => {
            format!(
                "times(-100, {}, {}, {})",
                b(path),
                times(*access, *modify),
                if *follow { 0 } else { 0x100 }
            )
        }
        SetXattr {
            path,
            name,
            value,
            flags,
            follow: f,
        } => {
            format!(
                "os.setxattr({}, {}, {}, {flags}, follow_symlinks={})",
                b(path),
                b(name),
                b(value),
                follow(f)
            )
        }
        GetXattr {
            path,
            name,
            follow: f,
        } => {
            format!(
                "os.getxattr({}, {}, follow_symlinks={})",
                b(path),
                b(name),
                follow(f)
            )
        }
        ListXattr { path, follow: f } => format!("os.listxattr({}, follow_symlinks={})", b(path), follow(f)),
        RemoveXattr {
            path,
            name,
            follow: f,
        } => {
            format!(
                "os.removexattr({}, {}, follow_symlinks={})",
                b(path),
                b(name),
                follow(f)
            )
        }
        Stat { path, follow: f } => format!("show(os.stat({}, follow_symlinks={}))", b(path), follow(f)),
        Access {
            path,
            mode,
            effective,
        } => {
            format!(
                "os.access({}, {mode}, effective_ids={})",
                b(path),
                if *effective { "True" } else { "False" }
            )
        }
        Statfs { path } => format!("os.statvfs({})", b(path)),
        List { path } => format!("names({})", b(path)),
        Chdir { path } => format!("os.chdir({})", b(path)),
        Umask { mask } => format!("os.umask(0o{mask:03o})"),
    }
}
