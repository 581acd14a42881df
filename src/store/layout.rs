//! The store's directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::tmp::{self, Swept};
use super::{Result, StoreError};
use crate::builder::apply::Limits;
use crate::sys::{Errno, at, dirent};

/// Layers of other users hold setuid programs: the way to them is open to root's group at most, as in docker.
const OVERLAY_PERMISSIONS: u32 = 0o710;
const PRIVATE: u32 = 0o700;

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
    overlay: OwnedFd,
    images: OwnedFd,
    containers: OwnedFd,
    tmp: OwnedFd,
    limits: Limits,
}

impl Store {
    /// Opens the store at `path`, made if it is not there, and deletes what killed processes left in `tmp/`.
    ///
    /// # Errors
    /// When a directory of the layout cannot be made or opened, or rubbish cannot be deleted.
    pub fn open(path: &Path) -> Result<Self> {
        // Others may have to pass through it (to a mount of root's that is for everyone); what is in it is closed.
        make_parents(path)?;
        let path = path
            .canonicalize()
            .map_err(StoreError::io("find the store", path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(StoreError::errno("open the store", &path))?;
        let open = |name: &str, permissions| open_or_make(&dir, &path, name, permissions);
        let (overlay, images) = (open("overlay", OVERLAY_PERMISSIONS)?, open("images", PRIVATE)?);
        let (containers, tmp) = (open("containers", PRIVATE)?, open("tmp", PRIVATE)?);
        match at::create_at(&dir, b"lock", libc::O_RDWR, 0o600) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::errno("make", path.join("lock"))(errno)),
        }
        let store = Self {
            path,
            dir,
            overlay,
            images,
            containers,
            tmp,
            limits: Limits::default(),
        };
        store.sweep()?;
        Ok(store)
    }

    /// Deletes what killed processes left in `tmp/`, and halves of containers, as [`Store::open`] does.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn sweep(&self) -> Result<Swept> {
        super::view::clear_dead(&self.path.join("tmp"))?;
        let swept = tmp::sweep(self, true)?;
        super::container::sweep(self)?;
        Ok(swept)
    }

    /// What is refused as too much in a layer's archive.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Refuses more, or less, from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its own directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory of layers and containers.
    pub fn overlay(&self) -> BorrowedFd<'_> {
        self.overlay.as_fd()
    }

    /// The path of [`Store::overlay`].
    pub fn overlay_path(&self) -> PathBuf {
        self.path.join("overlay")
    }

    /// The directory of images.
    pub fn images_dir(&self) -> BorrowedFd<'_> {
        self.images.as_fd()
    }

    /// The directory of containers' settings.
    pub fn containers_dir(&self) -> BorrowedFd<'_> {
        self.containers.as_fd()
    }

    /// The directory of what is being made or deleted.
    pub fn tmp(&self) -> BorrowedFd<'_> {
        self.tmp.as_fd()
    }
}

impl Drop for Store {
    /// What this process made and nobody needs is settled now: a command that failed leaves nothing.
    fn drop(&mut self) {
        if let Err(error) = tmp::sweep(self, false) {
            log::warn!("{error}");
        }
    }
}

fn make_parents(path: &Path) -> Result<()> {
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    let made = std::fs::create_dir_all(path);
    rustix::process::umask(umask);
    made.map_err(StoreError::io("make the store", path))
}

fn open_or_make(dir: &OwnedFd, path: &Path, name: &str, permissions: u32) -> Result<OwnedFd> {
    let path = path.join(name);
    let made = match at::mkdir_at(dir, name.as_bytes(), permissions) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(StoreError::errno("make", &path)(errno)),
    };
    // A mount of one of these, a disk of its own for layers say, would make renames fail: said at once.
    let opened = at::open_dir_path(dir, name.as_bytes())
        .and_then(at::reopen_dir)
        .map_err(StoreError::errno("open", &path))?;
    if made {
        at::chmod_fd(&opened, permissions).map_err(StoreError::errno("change the mode of", &path))?;
    }
    Ok(opened)
}

/// The names in a directory of the store, sorted; those that are not UTF-8 cannot be the store's and are left out.
pub(super) fn names_in(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    at::reopen_dir(dir)
        .and_then(|dir| {
            dirent::read_names(dir, |entry| {
                if let Ok(name) = String::from_utf8(entry.name.into_vec()) {
                    names.push(name);
                }
                Ok(true)
            })
        })
        .map_err(StoreError::errno("read", path))?;
    names.sort_unstable();
    Ok(names)
}

/// Reads a small file of the store.
///
/// # Errors
/// When it cannot be read, or is larger than `limit` bytes.
pub(super) fn read_file(dir: BorrowedFd<'_>, dir_path: &Path, name: &str, limit: u64) -> Result<Vec<u8>> {
    match read_if_there(dir, dir_path, name, limit)? {
        Some(content) => Ok(content),
        None => Err(StoreError::errno("open", dir_path.join(name))(Errno::NOENT)),
    }
}

/// As [`read_file`]; none where there is no such file.
pub(super) fn read_if_there(
    dir: BorrowedFd<'_>,
    dir_path: &Path,
    name: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>> {
    use std::io::Read;

    let path = dir_path.join(name);
    let file = match at::open_at(dir, name.as_bytes(), libc::O_RDONLY | libc::O_NONBLOCK) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(StoreError::errno("open", &path)(errno)),
    };
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(StoreError::io("read", &path))?;
    if content.len() as u64 > limit {
        return Err(StoreError::Damaged {
            path,
            why: format!("it is larger than {limit} bytes"),
        });
    }
    Ok(Some(content))
}
