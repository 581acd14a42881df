//! Between the kernel and the handler: tells listeners of each request (`overlay/trace.rs`).
//!
//! Every request the library knows is passed on, also those the handler leaves to the library.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use super::handler::Handler;
use crate::overlay::Overlay;
use crate::overlay::trace::{Begun, Event};

/// A handler whose requests can be listened to.
#[derive(Debug)]
pub struct Traced {
    pub(super) handler: Handler,
}

/// What a request is about.
struct Subject {
    path: String,
    to: Option<String>,
    detail: String,
}

impl Subject {
    fn with(self, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            ..self
        }
    }

    fn to(self, other: Self) -> Self {
        Self {
            to: Some(other.path),
            ..self
        }
    }
}

fn node(overlay: &Overlay, ino: INodeNo) -> Subject {
    let path = overlay
        .node(ino.0)
        .map_or_else(|_| format!("(node {ino})"), |node| node.path());
    Subject {
        path,
        to: None,
        detail: String::new(),
    }
}

fn name(overlay: &Overlay, parent: INodeNo, name: &OsStr) -> Subject {
    let path = overlay
        .node(parent.0)
        .map(|parent| parent.path_of(name.as_bytes()));
    Subject {
        path: path.unwrap_or_else(|_| format!("(node {parent})/{}", name.display())),
        to: None,
        detail: String::new(),
    }
}

fn open_words(flags: i32) -> String {
    let mut words = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => "read".to_owned(),
        libc::O_WRONLY => "write".to_owned(),
        _ => "read and write".to_owned(),
    };
    for (flag, word) in [
        (libc::O_TRUNC, ", truncate"),
        (libc::O_APPEND, ", append"),
        (libc::O_EXCL, ", exclusive"),
        (libc::O_DIRECT, ", direct"),
    ] {
        if flags & flag != 0 {
            words.push_str(word);
        }
    }
    words
}

fn rename_words(flags: RenameFlags) -> &'static str {
    match flags.bits() {
        0 => "",
        libc::RENAME_EXCHANGE => "exchange",
        libc::RENAME_NOREPLACE => "no replace",
        _ => "with flags",
    }
}

fn change_words(
    mode: Option<u32>,
    owner: (Option<u32>, Option<u32>),
    size: Option<u64>,
    times: (Option<TimeOrNow>, Option<TimeOrNow>),
) -> String {
    let mut words = Vec::new();
    words.extend(mode.map(|mode| format!("mode {:04o}", mode & 0o7777)));
    words.extend(owner.0.map(|uid| format!("owner {uid}")));
    words.extend(owner.1.map(|gid| format!("group {gid}")));
    words.extend(size.map(|size| format!("size {size}")));
    words.extend(times.0.map(|_| "access time".to_owned()));
    words.extend(times.1.map(|_| "modification time".to_owned()));
    words.join(", ")
}

impl Traced {
    #[inline]
    fn begin(&self, req: &Request, op: &str, subject: impl FnOnce(&Overlay) -> Subject) -> Begun {
        let overlay = self.handler.overlay();
        overlay.trace().begin(|| {
            let Subject { path, to, detail } = subject(overlay);
            Event {
                op: op.to_owned(),
                path,
                to,
                detail,
                pid: req.pid(),
                process: process_name(req.pid()),
                uid: req.uid(),
                ..Event::default()
            }
        })
    }
}

/// The caller waits for the answer, so it is still there; only the kernel itself has no name.
fn process_name(pid: u32) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

/// `request(arguments) reply, subject`: told to listeners, then handled.
macro_rules! pass_on {
    ($($request:ident($($argument:ident: $kind:ty),*) $reply:ty, $subject:expr;)*) => {
        $(fn $request(&self, req: &Request, $($argument: $kind,)* reply: $reply) {
            let _request = self.begin(req, stringify!($request), $subject);
            self.handler.$request(req, $($argument,)* reply);
        })*
    };
}

impl Filesystem for Traced {
    fn init(&mut self, req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.handler.init(req, config)
    }

    fn destroy(&mut self) {
        self.handler.destroy();
    }

    // Nobody waits for it, and it changes nothing that can be seen. Many in one go come here one by one.
    fn forget(&self, req: &Request, ino: INodeNo, nlookup: u64) {
        self.handler.forget(req, ino, nlookup);
    }

    pass_on! {
        lookup(parent: INodeNo, wanted: &OsStr) ReplyEntry, |o| name(o, parent, wanted);
        getattr(ino: INodeNo, fh: Option<FileHandle>) ReplyAttr, |o| node(o, ino);
        setattr(
            ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
            atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>, fh: Option<FileHandle>,
            crtime: Option<SystemTime>, chgtime: Option<SystemTime>, bkuptime: Option<SystemTime>,
            flags: Option<BsdFileFlags>
        ) ReplyAttr, |o| node(o, ino).with(change_words(mode, (uid, gid), size, (atime, mtime)));
        readlink(ino: INodeNo) ReplyData, |o| node(o, ino);
        mknod(parent: INodeNo, new: &OsStr, mode: u32, umask: u32, rdev: u32) ReplyEntry, |o| name(o, parent, new);
        mkdir(parent: INodeNo, new: &OsStr, mode: u32, umask: u32) ReplyEntry, |o| name(o, parent, new);
        unlink(parent: INodeNo, old: &OsStr) ReplyEmpty, |o| name(o, parent, old);
        rmdir(parent: INodeNo, old: &OsStr) ReplyEmpty, |o| name(o, parent, old);
        symlink(parent: INodeNo, new: &OsStr, target: &Path) ReplyEntry,
            |o| name(o, parent, new).with(target.to_string_lossy());
        rename(parent: INodeNo, old: &OsStr, newparent: INodeNo, new: &OsStr, flags: RenameFlags) ReplyEmpty,
            |o| name(o, parent, old).to(name(o, newparent, new)).with(rename_words(flags));
        link(ino: INodeNo, newparent: INodeNo, new: &OsStr) ReplyEntry,
            |o| node(o, ino).to(name(o, newparent, new));
        open(ino: INodeNo, flags: OpenFlags) ReplyOpen, |o| node(o, ino).with(open_words(flags.0));
        read(
            ino: INodeNo, fh: FileHandle, offset: u64, size: u32, flags: OpenFlags, lock_owner: Option<LockOwner>
        ) ReplyData, |o| node(o, ino).with(format!("{size} bytes at {offset}"));
        write(
            ino: INodeNo, fh: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags, flags: OpenFlags,
            lock_owner: Option<LockOwner>
        ) ReplyWrite, |o| node(o, ino).with(format!("{} bytes at {offset}", data.len()));
        flush(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner) ReplyEmpty, |o| node(o, ino);
        release(
            ino: INodeNo, fh: FileHandle, flags: OpenFlags, lock_owner: Option<LockOwner>, flush: bool
        ) ReplyEmpty, |o| node(o, ino);
        fsync(ino: INodeNo, fh: FileHandle, datasync: bool) ReplyEmpty, |o| node(o, ino);
        opendir(ino: INodeNo, flags: OpenFlags) ReplyOpen, |o| node(o, ino);
        readdir(ino: INodeNo, fh: FileHandle, offset: u64) ReplyDirectory, |o| node(o, ino);
        readdirplus(ino: INodeNo, fh: FileHandle, offset: u64) ReplyDirectoryPlus, |o| node(o, ino);
        releasedir(ino: INodeNo, fh: FileHandle, flags: OpenFlags) ReplyEmpty, |o| node(o, ino);
        fsyncdir(ino: INodeNo, fh: FileHandle, datasync: bool) ReplyEmpty, |o| node(o, ino);
        statfs(ino: INodeNo) ReplyStatfs, |o| node(o, ino);
        setxattr(ino: INodeNo, attribute: &OsStr, value: &[u8], flags: i32, position: u32) ReplyEmpty,
            |o| node(o, ino).with(attribute.to_string_lossy());
        getxattr(ino: INodeNo, attribute: &OsStr, size: u32) ReplyXattr,
            |o| node(o, ino).with(attribute.to_string_lossy());
        listxattr(ino: INodeNo, size: u32) ReplyXattr, |o| node(o, ino);
        removexattr(ino: INodeNo, attribute: &OsStr) ReplyEmpty,
            |o| node(o, ino).with(attribute.to_string_lossy());
        access(ino: INodeNo, mask: AccessFlags) ReplyEmpty, |o| node(o, ino);
        create(parent: INodeNo, new: &OsStr, mode: u32, umask: u32, flags: i32) ReplyCreate,
            |o| name(o, parent, new).with(open_words(flags));
        getlk(
            ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32
        ) ReplyLock, |o| node(o, ino);
        setlk(
            ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, start: u64, end: u64, typ: i32, pid: u32,
            sleep: bool
        ) ReplyEmpty, |o| node(o, ino);
        bmap(ino: INodeNo, blocksize: u32, idx: u64) ReplyBmap, |o| node(o, ino);
        ioctl(
            ino: INodeNo, fh: FileHandle, flags: IoctlFlags, cmd: u32, in_data: &[u8], out_size: u32
        ) ReplyIoctl, |o| node(o, ino);
        poll(ino: INodeNo, fh: FileHandle, ph: PollNotifier, events: PollEvents, flags: PollFlags) ReplyPoll,
            |o| node(o, ino);
        fallocate(ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32) ReplyEmpty,
            |o| node(o, ino).with(format!("{length} bytes at {offset}"));
        lseek(ino: INodeNo, fh: FileHandle, offset: i64, whence: i32) ReplyLseek, |o| node(o, ino);
        copy_file_range(
            ino_in: INodeNo, fh_in: FileHandle, offset_in: u64, ino_out: INodeNo, fh_out: FileHandle,
            offset_out: u64, len: u64, flags: CopyFileRangeFlags
        ) ReplyWrite, |o| node(o, ino_in).to(node(o, ino_out)).with(format!("{len} bytes"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_in_words() {
        assert_eq!(open_words(libc::O_WRONLY | libc::O_TRUNC), "write, truncate");
        assert_eq!(open_words(libc::O_RDONLY), "read");
        let words = change_words(
            Some(0o100_640),
            (Some(1), None),
            None,
            (None, Some(TimeOrNow::Now)),
        );
        assert_eq!(words, "mode 0640, owner 1, modification time");
    }
}
