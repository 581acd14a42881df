//! One method for each request: decode, call the overlay, answer.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::ServeOptions;
use super::awake::Awake;
use super::border::Border;
use super::convert::{errno, file_type, set_time};
use super::io_mode::{Modes, Passthrough};
use super::shared::{Shared, reply_empty, reply_xattr};
use super::wire::{self, Answer, EntryOut};
use crate::overlay::trace;
use crate::overlay::{Changes, NewObject, Overlay, RenameFlag};
use crate::sys::{Errno, io as sysio};

/// What the kernel is asked for; each only where it is offered.
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// The greatest write in one request, bytes.
const MAX_WRITE: u32 = 1 << 20;
/// `FS_IOC_GETFLAGS` on 64-bit and, for 32-bit programs, `FS_IOC32_GETFLAGS`.
const GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];

/// Answers the kernel's requests.
#[derive(Debug)]
pub struct Handler {
    shared: Arc<Shared>,
    awake: Option<Awake>,
    passthrough: Passthrough,
    writeback: bool,
}

impl Handler {
    /// Serves `overlay`; `device` and `backing` are duplicates of the descriptor that fuser reads from.
    pub fn new(overlay: Arc<Overlay>, device: OwnedFd, backing: OwnedFd, options: &ServeOptions) -> Self {
        let shared = Shared {
            overlay,
            device,
            modes: Modes::new(backing),
            border: Border::new(options.ids.clone(), options.static_nlink, options.no_acl),
            ttl: options.timeout,
            writeback: AtomicBool::new(false),
            opens_dirs: AtomicBool::new(false),
            files: Mutex::default(),
            next_handle: AtomicU64::new(1),
        };
        let shared = Arc::new(shared);
        let weak = Arc::downgrade(&shared);
        shared.overlay.on_name_lost(move |node| {
            if let Some(shared) = weak.upgrade() {
                shared.modes.let_go(node);
            }
        });
        let awake = if options.low_latency {
            Awake::start(&shared.overlay)
        } else {
            None
        };
        if let Some(groups) = shared.border.groups() {
            shared.overlay.on_group(groups);
        }
        Self {
            shared,
            awake,
            passthrough: options.passthrough,
            writeback: options.writeback,
        }
    }

    /// The view.
    pub(super) fn overlay(&self) -> &Arc<Overlay> {
        &self.shared.overlay
    }

    fn begin(&self) -> &Arc<Shared> {
        let count = self.shared.overlay.count_request();
        if let Some(awake) = &self.awake {
            awake.request(count);
        }
        &self.shared
    }

    fn writes_are_gathered(&self) -> bool {
        self.shared.writeback.load(Ordering::Relaxed)
    }

    /// Runs a job here, or in a thread of its own when it may take long.
    fn run(&self, slow: bool, job: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(self.begin());
        if !slow {
            return job(&shared);
        }
        let request = trace::carry();
        let job = move |shared: &Shared| {
            let _request = request.go_on();
            job(shared);
        };
        let job = Arc::new(Mutex::new(Some(job)));
        let take = |job: &Mutex<Option<_>>| job.lock().take();
        let theirs = Arc::clone(&job);
        let in_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("copy-up".into()).spawn(move || {
            if let Some(job) = take(&theirs) {
                job(&in_thread);
            }
        });
        if let Err(error) = spawned {
            log::debug!("no thread for a long job: {error}");
            if let Some(job) = take(&job) {
                job(&shared);
            }
        }
    }
}

impl Filesystem for Handler {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if let Err(missing) = config.add_capabilities(*flag) {
                log::debug!("this kernel does not offer {missing:?}");
            }
        }
        // With it the kernel asks for ACLs, and checks access by them.
        if !self.shared.border.has_no_acls()
            && let Err(missing) = config.add_capabilities(InitFlags::FUSE_POSIX_ACL)
        {
            log::debug!("this kernel does not offer {missing:?}");
        }
        if let Err(nearest) = config.set_max_write(MAX_WRITE) {
            log::debug!("the greatest write is {nearest} bytes");
        }
        if let Err(nearest) = config.set_max_background(64) {
            log::debug!("at most {nearest} requests in the background");
        }
        let opens_dirs = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        self.shared
            .opens_dirs
            .store(opens_dirs.is_ok(), Ordering::Relaxed);
        if self.writeback {
            match config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE) {
                Ok(()) => {
                    self.shared.writeback.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(missing) => log::info!("writes are not gathered: the kernel does not offer {missing:?}"),
            }
        }
        // Backing files may lie on a plain file system, and a kernel overlay may lie above the view.
        match (
            config.add_capabilities(InitFlags::FUSE_PASSTHROUGH),
            config.set_max_stack_depth(1),
        ) {
            (Ok(()), Ok(_)) => self.shared.modes.allow(self.passthrough, &self.shared.overlay),
            _ => log::debug!("this kernel has no passthrough"),
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let shared = self.begin();
        let found = shared.overlay.lookup(parent.0, name.as_bytes());
        if found.as_ref().is_err_and(|error| *error == Errno::NOENT) && !shared.ttl.is_zero() {
            // The kernel may remember that there is nothing.
            trace::failed(Errno::NOENT);
            let mut answer = Answer::new(req.unique().0);
            answer.entry(&EntryOut {
                node: 0,
                stat: None,
                name_ttl: shared.ttl,
                attr_ttl: shared.ttl,
            });
            shared.deliver(answer, &[]);
            std::mem::forget(reply);
            return;
        }
        shared.reply_entry(req, reply, found);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.shared.overlay.forget(ino.0, nlookup);
        if self.shared.modes.keeps(ino.0) && self.shared.overlay.node(ino.0).is_err() {
            self.shared.modes.let_go(ino.0);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let shared = self.begin();
        shared.reply_attr(reply, ino.0, shared.overlay.getattr(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let ownership = match self.shared.border.ownership(uid, gid) {
            Ok(ownership) => ownership,
            // podman gives the mounted root to the root of its own namespace each time that it uses a container's tree,
            // also where that id has no place in the layers, and takes no refusal. The owner is right as it is.
            Err(_) if ino.0 == crate::overlay::ROOT => Default::default(),
            Err(error) => return reply.error(errno(error)),
        };
        let changes = Changes {
            mode,
            ownership,
            size,
            atime: set_time(atime),
            mtime: set_time(mtime),
        };
        let pid = req.pid();
        let gives_suid = mode.is_some_and(|mode| mode & (libc::S_ISUID | libc::S_ISGID) != 0);
        if gives_suid && self.shared.would_keep_suid(ino.0) {
            log::info!("no setuid bits for a file that root and somebody else have open for writing");
            return reply.error(fuser::Errno::ETXTBSY);
        }
        self.run(self.shared.is_large(ino.0), move |shared| {
            let open = fh.and_then(|fh| shared.file(fh).ok());
            shared.reply_attr(
                reply,
                ino.0,
                shared.overlay.setattr(ino.0, &changes, open.as_deref(), pid),
            );
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.begin().overlay.readlink(ino.0) {
            Ok(text) => reply.data(&text),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let shared = self.begin();
        let what = NewObject::Special(mode & libc::S_IFMT, wire::unpack_device(rdev));
        let made = shared.overlay.make(
            parent.0,
            name.as_bytes(),
            what,
            mode,
            shared.border.caller(req, umask),
        );
        shared.reply_entry(req, reply, made.map(|made| (made.node, made.stat)));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let shared = self.begin();
        let made = shared.overlay.make(
            parent.0,
            name.as_bytes(),
            NewObject::Dir,
            mode,
            shared.border.caller(req, umask),
        );
        shared.reply_entry(req, reply, made.map(|made| (made.node, made.stat)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.begin().overlay.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.begin().overlay.rmdir(parent.0, name.as_bytes()));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let shared = self.begin();
        let what = NewObject::Symlink(target.as_os_str().as_bytes());
        let made = shared.overlay.make(
            parent.0,
            name.as_bytes(),
            what,
            0o777,
            shared.border.caller(req, 0),
        );
        shared.reply_entry(req, reply, made.map(|made| (made.node, made.stat)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flag = match flags.bits() {
            0 => RenameFlag::None,
            libc::RENAME_NOREPLACE => RenameFlag::NoReplace,
            libc::RENAME_EXCHANGE => RenameFlag::Exchange,
            // A whiteout is not the caller's to make (K96).
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        let overlay = &self.begin().overlay;
        let done = overlay.rename(parent.0, name.as_bytes(), newparent.0, newname.as_bytes(), flag);
        reply_empty(reply, done);
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let shared = self.begin();
        let made = shared.overlay.link(ino.0, newparent.0, newname.as_bytes());
        shared.reply_entry(req, reply, made);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY && flags.0 & libc::O_TRUNC == 0;
        let (unique, uid, pid) = (req.unique().0, req.uid(), req.pid());
        self.run(writes && self.shared.is_large(ino.0), move |shared| {
            let ready = shared.modes.ready(ino.0);
            let real = shared.real_flags(flags.0);
            let mut opened = shared.overlay.open_file(ino.0, real, pid, ready);
            if real != flags.0 && matches!(opened, Err(Errno::ACCESS)) {
                // Not to be read by an unprivileged server; it is written as it comes then.
                opened = shared.overlay.open_file(ino.0, flags.0, pid, None);
            }
            shared.reply_open(unique, uid, reply, opened);
        });
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let open = match self.begin().file(fh) {
            Ok(open) => open,
            Err(error) => return reply.error(errno(error)),
        };
        super::with_buffer(size as usize, |room| {
            match sysio::read_at(&*open.file(), room, offset) {
                Ok(n) => reply.data(room.get(..n).unwrap_or_default()),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let shared = self.begin();
        let stranger = write_flags
            .contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            .then(|| req.pid());
        let written = shared
            .file(fh)
            .and_then(|open| shared.overlay.write(&open, data, offset, stranger));
        match written {
            Ok(n) => reply.written(n as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // What the kernel gathered has come by then; it need not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Nobody waits for the close itself.
        reply.ok();
        self.begin().remove_file(fh.0);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.run(true, move |shared| {
            reply_empty(
                reply,
                shared
                    .file(fh)
                    .and_then(|open| shared.overlay.fsync(&open, datasync)),
            );
        });
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let shared = self.begin();
        // A directory needs no state here, and every change of it comes through the kernel, which may keep the listing.
        let flags = if shared.ttl.is_zero() {
            FopenFlags::empty()
        } else if shared.opens_dirs.load(Ordering::Relaxed) {
            return reply.error(fuser::Errno::ENOSYS);
        } else {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        };
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.begin().overlay.list(ino.0, offset, false, |entry| {
            let name = OsStr::from_bytes(entry.name);
            !reply.add(INodeNo(entry.number), entry.next, file_type(entry.kind), name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let shared = self.begin();
        let room = wire::listing_room(&reply);
        let mut answer = Answer::new(req.unique().0);
        let mut counted = Vec::new();
        let listed = shared.overlay.list(ino.0, offset, true, |entry| {
            if !answer.fits(entry.name, room) {
                return false;
            }
            let none = EntryOut {
                node: 0,
                stat: None,
                name_ttl: Duration::ZERO,
                attr_ttl: Duration::ZERO,
            };
            let mut shown;
            let out = match &entry.known {
                Some((node, stat)) => {
                    counted.push(node.id);
                    shown = *stat;
                    shared.border.show(&mut shown);
                    shared.entry_out(node.id, &shown)
                }
                None => none,
            };
            answer.dirent_plus(&out, entry.number, entry.next, entry.kind, entry.name);
            true
        });
        match listed {
            // What was gathered before an error is handed out first; the next request meets the error again.
            Err(error) if counted.is_empty() => reply.error(errno(error)),
            _ => {
                shared.deliver(answer, &counted);
                std::mem::forget(reply);
            }
        }
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.run(true, move |shared| {
            let overlay = &shared.overlay;
            reply_empty(reply, overlay.node(ino.0).and_then(|dir| overlay.fsync_dir(&dir)));
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.begin().overlay.stat_fs() {
            Ok(fs) => reply.statfs(
                fs.f_blocks,
                fs.f_bfree,
                fs.f_bavail,
                fs.f_files,
                fs.f_ffree,
                u32::try_from(fs.f_bsize).unwrap_or(4096),
                u32::try_from(fs.f_namemax).unwrap_or(255),
                u32::try_from(fs.f_frsize).unwrap_or(4096),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let name = name.as_bytes();
        let border = &self.shared.border;
        let value = match border
            .admit(name)
            .and_then(|()| border.value_to_layers(name, value))
        {
            Ok(value) => value.into_owned(),
            Err(error) => return reply.error(errno(error)),
        };
        let (name, pid) = (name.to_vec(), req.pid());
        self.run(self.shared.is_large(ino.0), move |shared| {
            reply_empty(reply, shared.overlay.setxattr(ino.0, &name, &value, flags, pid));
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (shared, name) = (self.begin(), name.as_bytes());
        let value = shared
            .border
            .admit(name)
            .and_then(|()| shared.overlay.getxattr(ino.0, name))
            .map(|value| shared.border.value_to_view(name, value));
        reply_xattr(reply, size, value);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let shared = self.begin();
        let list = shared.overlay.listxattr(ino.0, req.pid());
        reply_xattr(reply, size, list.map(|list| shared.border.names(list)));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (shared, name) = (self.begin(), name.as_bytes());
        let removed = shared
            .border
            .admit(name)
            .and_then(|()| shared.overlay.removexattr(ino.0, name, req.pid()));
        reply_empty(reply, removed);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let shared = self.begin();
        let caller = shared.border.caller(req, umask);
        let flags = shared.real_flags(flags);
        let created = shared
            .overlay
            .create(parent.0, name.as_bytes(), mode, flags, caller);
        let created = created.and_then(|(node, stat, open)| {
            let id = open.id;
            let added = shared.add_file(open, req.uid());
            if added.is_err() {
                shared.overlay.forget(node.id, 1);
            }
            added.map(|added| (id, stat, added))
        });
        match created {
            Ok((id, mut stat, (handle, flags, backing))) => {
                shared.border.show(&mut stat);
                let mut answer = Answer::new(req.unique().0);
                answer.entry(&EntryOut {
                    node: id,
                    ..shared.entry_out(id, &stat)
                });
                answer.open(handle, flags.bits(), backing);
                if !shared.deliver(answer, &[id]) {
                    shared.remove_file(handle);
                }
                std::mem::forget(reply);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        flags: IoctlFlags,
        cmd: u32,
        _in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        let shared = self.begin();
        if !GETFLAGS.contains(&cmd) {
            // Flags are shown, not changed (K68).
            return reply.error(fuser::Errno::ENOTTY);
        }
        let flags = if flags.contains(IoctlFlags::FUSE_IOCTL_DIR) {
            let overlay = &shared.overlay;
            overlay.node(ino.0).and_then(|dir| overlay.directory_flags(&dir))
        } else {
            shared.file(fh).and_then(|open| sysio::inode_flags(&*open.file()))
        };
        match flags {
            Ok(flags) => {
                let bytes = flags.to_ne_bytes();
                let len = bytes.len().min(out_size as usize);
                reply.ioctl(0, bytes.get(..len).unwrap_or_default());
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let shared = self.begin();
        let range = (offset, length);
        let done = shared
            .file(fh)
            .and_then(|open| shared.overlay.allocate(&open, mode, range, req.pid()));
        reply_empty(reply, done);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let gathers = self.writes_are_gathered();
        self.run(gathers, move |shared| {
            let found = shared.file(fh).and_then(|open| {
                if gathers {
                    // The real file lacks what the kernel still has, and hands over before it forgets its pages.
                    shared.overlay.pages_outdated(&open.node);
                }
                sysio::seek(&*open.file(), offset, whence)
            });
            match found {
                Ok(position) => reply.offset(i64::try_from(position).unwrap_or(i64::MAX)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let shared = self.begin();
        // The answer's count has 32 bits.
        let len = usize::try_from(len.min(1 << 30)).unwrap_or(1 << 30);
        let copied = shared.file(fh_in).and_then(|from| {
            let to = shared.file(fh_out)?;
            shared
                .overlay
                .copy_range((&from, offset_in), (&to, offset_out), len, req.pid())
        });
        match copied {
            Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }
}
