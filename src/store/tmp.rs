//! What is being made or deleted: the entries of `tmp/`.
//!
//! Whoever makes an entry holds a shared lock on it. When the store is opened, entries that nobody has locked are
//! deleted: their makers were killed.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::delete::{Freed, delete_tree};
use super::doubt;
use super::lock::{still_named, try_exclusive, wait};
use super::{Result, Store, StoreError};
use crate::sys::at::RenameHow;
use crate::sys::{self, Errno, at, dirent, io, stat};

/// A directory in `tmp/`: deleted when this is dropped, unless it was published.
#[derive(Debug)]
pub struct TmpDir {
    tmp: OwnedFd,
    name: String,
    path: PathBuf,
    /// None once it has been published.
    dir: Option<OwnedFd>,
}

/// What became of a publication.
#[derive(Debug)]
pub enum Published {
    /// It stands under its name now. The descriptor still has its maker's shared lock.
    Born(OwnedFd),
    /// Something of that name was there already; ours is deleted.
    Exists,
}

pub(super) fn fresh_name() -> sys::Result<String> {
    let mut random = [0_u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(hex::encode(random))
}

impl TmpDir {
    /// Makes an empty directory with these permissions.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(store: &Store, permissions: u32) -> Result<Self> {
        let tmp_path = store.path().join("tmp");
        let failed = || StoreError::errno("make a directory in", &tmp_path);
        let tmp = store
            .tmp()
            .try_clone_to_owned()
            .map_err(StoreError::io("use", &tmp_path))?;
        loop {
            let name = fresh_name().map_err(failed())?;
            match at::mkdir_at(&tmp, name.as_bytes(), permissions) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(failed()(errno)),
            }
            let path = tmp_path.join(&name);
            let opened = at::open_dir_path(&tmp, name.as_bytes()).and_then(at::reopen_dir);
            // Between mkdir and flock it has no lock: somebody who opens the store may delete it.
            let dir = match opened {
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(StoreError::errno("open", &path))?,
            };
            wait(&dir, FlockOperation::LockShared).map_err(StoreError::errno("lock", &path))?;
            if !still_named(&tmp, name.as_bytes(), &dir).map_err(StoreError::errno("look at", &path))? {
                continue;
            }
            // Exactly these, whatever the umask.
            at::chmod_fd(&dir, permissions).map_err(StoreError::errno("change the mode of", &path))?;
            return Ok(Self {
                tmp,
                name,
                path,
                dir: Some(dir),
            });
        }
    }

    /// The directory.
    ///
    /// # Errors
    /// Never before it is published.
    pub fn dir(&self) -> Result<BorrowedFd<'_>> {
        self.dir
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or_else(|| StoreError::errno("use", &self.path)(Errno::BADF))
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it and opens that.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_dir(&self, name: &str, permissions: u32) -> Result<OwnedFd> {
        let path = self.path.join(name);
        let dir = self.dir()?;
        at::mkdir_at(dir, name.as_bytes(), permissions).map_err(StoreError::errno("make", &path))?;
        let opened = at::open_dir_path(dir, name.as_bytes())
            .and_then(at::reopen_dir)
            .map_err(StoreError::errno("open", &path))?;
        at::chmod_fd(&opened, permissions).map_err(StoreError::errno("change the mode of", &path))?;
        Ok(opened)
    }

    /// Makes a file in it and opens that for writing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_file(&self, name: &str) -> Result<std::fs::File> {
        at::create_at(self.dir()?, name.as_bytes(), libc::O_RDWR, 0o600)
            .map(Into::into)
            .map_err(StoreError::errno("make", self.path.join(name)))
    }

    /// Makes a file with this content in it.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        self.make_file(name)?
            .write_all(content)
            .map_err(StoreError::io("write", self.path.join(name)))
    }

    /// Brings everything in it to disk, with the whole file system it lies on.
    ///
    /// # Errors
    /// As syncfs(2): a write that failed earlier may show up here.
    pub fn sync(&self) -> Result<()> {
        sys::fault::point().map_err(StoreError::errno("sync", &self.path))?;
        io::sync_fs(self.dir()?).map_err(StoreError::errno("write to disk", &self.path))
    }

    /// Brings the files that lie directly in it to disk, and itself: for what is few and small.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn sync_files(&self) -> Result<()> {
        let dir = self.dir()?;
        for name in super::layout::names_in(dir, &self.path)? {
            at::open_at(dir, name.as_bytes(), libc::O_RDONLY)
                .and_then(|file| io::sync(file, false))
                .map_err(StoreError::errno("write to disk", self.path.join(&name)))?;
        }
        io::sync(dir, false).map_err(StoreError::errno("write to disk", &self.path))
    }

    /// Gives it the name `name` in `to` in one step, unless something has that name. It must have been synced.
    ///
    /// # Errors
    /// When it cannot be renamed; it is deleted then.
    pub fn publish(mut self, to: BorrowedFd<'_>, to_path: &Path, name: &str) -> Result<Published> {
        let target = to_path.join(name);
        match at::rename_at(
            &self.tmp,
            self.name.as_bytes(),
            to,
            name.as_bytes(),
            RenameHow::NoReplace,
        ) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                self.remove()?;
                return Ok(Published::Exists);
            }
            Err(errno) => return Err(StoreError::errno("make", &target)(errno)),
        }
        let born = self.dir.take();
        io::sync(to, false).map_err(StoreError::errno("write to disk", to_path))?;
        match born {
            Some(dir) => Ok(Published::Born(dir)),
            None => Err(StoreError::errno("use", &target)(Errno::BADF)),
        }
    }

    /// Deletes it.
    ///
    /// # Errors
    /// When something below cannot be deleted.
    pub fn remove(mut self) -> Result<Freed> {
        self.delete()
    }

    /// What was in it counts as freed, but not the directory itself.
    fn delete(&mut self) -> Result<Freed> {
        let Some(dir) = self.dir.take() else {
            return Ok(Freed::default());
        };
        let failed = || StoreError::errno("delete", &self.path);
        let own = Freed::of(&stat::stat_fd(&dir).map_err(failed())?);
        delete_tree(self.tmp.as_fd(), self.name.as_bytes())
            .map(|freed| freed.without(own))
            .map_err(failed())
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        // Nobody to tell: what is left is deleted by the next who opens the store.
        if let Err(error) = self.delete() {
            log::warn!("{error}");
        }
    }
}

/// Replaces the file `name` in `dir` in one step and brings it to disk.
///
/// # Errors
/// When it cannot be written; the old content is then still there.
pub(super) fn replace_file(
    store: &Store,
    dir: BorrowedFd<'_>,
    dir_path: &Path,
    name: &str,
    content: &[u8],
) -> Result<()> {
    let path = dir_path.join(name);
    let fresh = TmpDir::new(store, 0o700)?;
    let mut file = fresh.make_file("file")?;
    file.write_all(content).map_err(StoreError::io("write", &path))?;
    io::sync(&file, false).map_err(StoreError::errno("write to disk", &path))?;
    at::rename_at(fresh.dir()?, b"file", dir, name.as_bytes(), RenameHow::Replace)
        .map_err(StoreError::errno("replace", &path))?;
    io::sync(dir, false).map_err(StoreError::errno("write to disk", dir_path))?;
    fresh.remove()?;
    Ok(())
}

/// Takes `name` out of `from` in one step, and deletes it; answers whether it was there.
///
/// Whoever calls this holds the lock that makes sure that nobody needs it. The deletion itself may take long:
/// the answer does it, after the locks have been given back.
///
/// # Errors
/// When it cannot be renamed.
pub(super) fn take_out(
    store: &Store,
    from: BorrowedFd<'_>,
    from_path: &Path,
    name: &str,
) -> Result<Option<TmpDir>> {
    let path = from_path.join(name);
    let grave = TmpDir::new(store, 0o700)?;
    match at::rename_at(from, name.as_bytes(), grave.dir()?, b"dead", RenameHow::NoReplace) {
        Ok(()) => {}
        Err(Errno::NOENT) => {
            grave.remove()?;
            return Ok(None);
        }
        Err(errno) => return Err(StoreError::errno("remove", &path)(errno)),
    }
    io::sync(from, false).map_err(StoreError::errno("write to disk", from_path))?;
    Ok(Some(grave))
}

impl Store {
    /// A file in `tmp/` that has no name, and is gone with its descriptor.
    pub(super) fn unnamed_file(&self) -> Result<std::fs::File> {
        let failed = || StoreError::errno("make a file in", self.path().join("tmp"));
        let file = match at::open_unnamed(self.tmp()) {
            // The file system has no unnamed files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let name = fresh_name().map_err(failed())?;
                at::create_at(self.tmp(), name.as_bytes(), libc::O_RDWR, 0o600).and_then(|file| {
                    at::unlink_at(self.tmp(), name.as_bytes())?;
                    Ok(file)
                })
            }
            file => file,
        };
        file.map(Into::into).map_err(failed())
    }
}

/// An exclusive lock by name, in `tmp/`: for work that shall not be done twice at the same time.
#[derive(Debug)]
pub(super) struct Turn {
    tmp: OwnedFd,
    name: String,
    _file: OwnedFd,
}

impl Turn {
    /// Waits for its turn.
    pub(super) fn take(store: &Store, name: String) -> Result<Self> {
        let path = store.path().join("tmp").join(&name);
        let tmp = store
            .tmp()
            .try_clone_to_owned()
            .map_err(StoreError::io("use", &path))?;
        loop {
            let made = match at::create_at(&tmp, name.as_bytes(), libc::O_RDWR, 0o600) {
                Err(Errno::EXIST) => at::open_at(&tmp, name.as_bytes(), libc::O_RDWR),
                made => made,
            };
            let file = match made {
                Err(Errno::NOENT) => continue,
                made => made.map_err(StoreError::errno("make", &path))?,
            };
            wait(&file, FlockOperation::LockExclusive).map_err(StoreError::errno("lock", &path))?;
            // The one before removed it, or somebody who opened the store found it without a lock.
            if still_named(&tmp, name.as_bytes(), &file).map_err(StoreError::errno("look at", &path))? {
                return Ok(Self {
                    tmp,
                    name,
                    _file: file,
                });
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Err(errno) = at::unlink_at(&self.tmp, self.name.as_bytes()) {
            log::warn!("cannot delete tmp/{}: {errno}", self.name);
        }
    }
}

/// What a sweep of `tmp/` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Entries deleted.
    pub deleted: u64,
    /// Entries that somebody is working on.
    pub live: u64,
    /// What that gave back.
    pub freed: Freed,
}

/// Deletes every entry of `tmp/` that nobody has locked.
///
/// # Errors
/// When `tmp/` cannot be read, or an entry cannot be deleted.
///
/// Without `wait`, doubts are left for later if somebody publishes just now.
pub(super) fn sweep(store: &Store, wait: bool) -> Result<Swept> {
    let tmp_path = store.path().join("tmp");
    let tmp = store.tmp();
    let mut names = Vec::new();
    at::reopen_dir(tmp)
        .and_then(|dir| {
            dirent::read_names(dir, |entry| {
                names.push(entry.name);
                Ok(true)
            })
        })
        .map_err(StoreError::errno("read", &tmp_path))?;
    let mut swept = Swept::default();
    let mut doubts = Vec::new();
    for name in names {
        let path = tmp_path.join(String::from_utf8_lossy(&name).as_ref());
        if doubt::is_note(&name) {
            // Never deleted as rubbish, also when it loses its lock just now.
            match doubt::Doubt::reopen(store, &name)? {
                Some(doubt) => doubts.push(doubt),
                None => swept.live = swept.live.saturating_add(1),
            }
            continue;
        }
        match sweep_one(tmp, &name) {
            Ok(Some(freed)) => {
                swept.deleted = swept.deleted.saturating_add(1);
                swept.freed = swept.freed.and(freed);
            }
            Ok(None) => swept.live = swept.live.saturating_add(1),
            // What a killed maker had started, a container's runtime, may still write there or have a view mounted:
            // the next who opens the store comes by again.
            Err(errno @ (Errno::NOTEMPTY | Errno::NOENT | Errno::XDEV | Errno::BUSY)) => {
                log::debug!("{} is still in use: {errno}", path.display());
                swept.live = swept.live.saturating_add(1);
            }
            Err(errno) => return Err(StoreError::errno("delete", &path)(errno)),
        }
    }
    if !doubts.is_empty() {
        match doubt::settle(store, doubts, wait) {
            Ok(freed) => swept.freed = swept.freed.and(freed),
            // Who needs what cannot be told: nothing goes, and the store is open for a repair.
            Err(error @ StoreError::Damaged { .. }) => log::warn!("{error}"),
            Err(error) => return Err(error),
        }
    }
    Ok(swept)
}

/// What it gave back; none if somebody works on it.
fn sweep_one(tmp: BorrowedFd<'_>, name: &[u8]) -> sys::Result<Option<Freed>> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = match at::open_at(tmp, name, flags) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Ok(Some(Freed::default())),
        // Nothing that this store makes: no lock can be on it.
        Err(Errno::LOOP | Errno::NXIO) => return delete_tree(tmp, name).map(Some),
        Err(Errno::ACCESS) => {
            let target = at::open_path(tmp, name)?;
            at::chmod_fd(target, 0o700)?;
            at::open_at(tmp, name, flags)?
        }
        Err(errno) => return Err(errno),
    };
    if !try_exclusive(&opened)? {
        return Ok(None);
    }
    if still_named(tmp, name, &opened)? {
        return delete_tree(tmp, name).map(Some);
    }
    Ok(Some(Freed::default()))
}
