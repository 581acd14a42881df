//! A clone of a tree by hard links.
//!
//! Every directory is made anew; everything else gets one more name. A directory is one piece of work, which a few
//! threads share: list it, make its directories (still private), link the rest, give it its metadata. A directory's
//! times are not touched by what happens further below, so no second pass is needed, but for the rare directory
//! that its owner may not enter: its mode comes at the end.

mod dirs;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use self::dirs::{Dir, Pair};
use super::link::{Linker, Spot};
use super::{BuildError, Meta, Progress, Result, TreePath};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, at, dirent, stat};

/// More threads than this wait for each other in the file system.
const MOST_THREADS: usize = 4;

/// What a clone made. What became of the names is in the linker's report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CloneReport {
    /// Directories made, the root with them; each is a new inode.
    pub directories: u64,
    /// All other names.
    pub names: u64,
}

/// Fills the empty directory `to` with a clone of the tree `from`, which is only read.
///
/// Everything that the file system keeps of an object comes over, but for birth and change times. A mount point in
/// `from` is refused.
///
/// # Errors
/// At the first name that can be neither linked nor copied. What is in `to` by then is of no use.
pub fn clone_tree(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    linker: &Linker,
    progress: &dyn Progress,
) -> Result<CloneReport> {
    progress.begin("clone", None);
    linker.prepare(from, to)?;
    let job = Cloner {
        root: to,
        linker,
        progress,
        work: Mutex::new(Work::default()),
        wake: Condvar::new(),
        late_modes: Mutex::default(),
        directories: AtomicU64::new(1),
        names: AtomicU64::new(0),
    };
    let root = Dir::root(from, to).map_err(|errno| call("open", TreePath::root(), errno))?;
    // The surroundings of the new tree have no say in it.
    drop_inherited(to).map_err(|errno| call("clear the attributes of", TreePath::root(), errno))?;
    job.fill(&root)?;
    drop(root);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_THREADS);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| job.work());
        }
        job.work();
    });
    if let Some(error) = job.work.lock().failed.take() {
        return Err(error);
    }
    linker.regroup(to)?;
    job.give_late_modes()?;
    Ok(CloneReport {
        directories: job.directories.load(Ordering::Relaxed),
        names: job.names.load(Ordering::Relaxed),
    })
}

/// Removes ACLs that the directory got from the one around it when it was made.
fn drop_inherited(dir: BorrowedFd<'_>) -> crate::sys::Result<()> {
    for name in xattr::names(&xattr::list(Target::Fd(dir))?) {
        if name.starts_with(b"system.posix_acl_") {
            xattr::remove(Target::Fd(dir), name)?;
        }
    }
    Ok(())
}

/// Directories that wait, and who is at work.
#[derive(Debug, Default)]
struct Work {
    waiting: Vec<Arc<Dir>>,
    busy: usize,
    failed: Option<BuildError>,
}

struct Cloner<'a> {
    root: BorrowedFd<'a>,
    linker: &'a Linker,
    progress: &'a dyn Progress,
    work: Mutex<Work>,
    wake: Condvar,
    /// Directories whose mode would lock their owner out, parents before children.
    late_modes: Mutex<Vec<(Arc<Dir>, u32)>>,
    directories: AtomicU64,
    names: AtomicU64,
}

impl Cloner<'_> {
    /// Takes directories until none is left.
    fn work(&self) {
        while let Some(dir) = self.take() {
            let done = self.fill(&dir);
            drop(dir);
            let mut work = self.work.lock();
            work.busy = work.busy.saturating_sub(1);
            if let Err(error) = done {
                work.failed.get_or_insert(error);
            }
            if work.failed.is_some() || work.busy == 0 && work.waiting.is_empty() {
                self.wake.notify_all();
            }
        }
    }

    fn take(&self) -> Option<Arc<Dir>> {
        let mut work = self.work.lock();
        loop {
            if work.failed.is_some() {
                return None;
            }
            // The newest first, so that few wait.
            if let Some(dir) = work.waiting.pop() {
                work.busy = work.busy.saturating_add(1);
                return Some(dir);
            }
            if work.busy == 0 {
                return None;
            }
            self.wake.wait(&mut work);
        }
    }

    /// Makes everything that stands in one directory.
    fn fill(&self, dir: &Arc<Dir>) -> Result<()> {
        if self.progress.stopped() {
            return Err(BuildError::Interrupted);
        }
        let path = dir.path();
        let failed = |what| move |errno| (what, errno);
        let named = |(what, errno)| call(what, path.clone(), errno);
        let pair = dir.open().map_err(failed("open")).map_err(named)?;
        let before = stat::stat_fd(&pair.from)
            .map_err(failed("look at"))
            .map_err(named)?;
        let permissions = before.mode & at::PERMISSION_BITS;
        let late = permissions & 0o700 != 0o700;
        if late {
            self.late_modes.lock().push((Arc::clone(dir), permissions));
        }
        let below = self.names(&pair, &path)?;
        let mut meta = Meta::read(Target::Fd(pair.from.as_fd()), &before)
            .map_err(failed("read the attributes of"))
            .map_err(named)?;
        if late {
            meta.permissions |= 0o700;
        }
        self.linker
            .give(meta, &pair.to)
            .map_err(failed(super::link::GIVE))
            .map_err(named)?;
        drop(pair);
        let more = below.len();
        if more > 0 {
            let below = below.into_iter().map(|name| Dir::below(dir, name));
            self.work.lock().waiting.extend(below);
            self.wake.notify_all();
        }
        Ok(())
    }

    /// Links the names of one directory; answers the directories in it, which are made but empty.
    fn names(&self, pair: &Pair, path: &TreePath) -> Result<Vec<Box<[u8]>>> {
        let mut below: Vec<Box<[u8]>> = Vec::new();
        let mut names: u64 = 0;
        let done = dirent::read_raw(&pair.from, |raw| {
            let failed = |what| move |errno| Stop::At(call(what, path.join(raw.name), errno));
            let kind = match raw.kind {
                0 => stat::stat_at(&pair.from, raw.name)
                    .map_err(failed("look at"))?
                    .kind(),
                kind => kind,
            };
            if kind == libc::S_IFDIR {
                at::mkdir_at(&pair.to, raw.name, 0o700).map_err(failed("make"))?;
                below.push(raw.name.into());
                return Ok(true);
            }
            let to = Spot {
                root: self.root,
                dir: pair.to.as_fd(),
                dir_path: path,
                name: raw.name,
            };
            self.linker
                .link(pair.from.as_fd(), raw.name, &to)
                .map_err(Stop::At)?;
            names = names.saturating_add(1);
            Ok(true)
        });
        match done {
            Ok(()) => {}
            Err(Stop::Listing(errno)) => return Err(call("list", path.clone(), errno)),
            Err(Stop::At(error)) => return Err(error),
        }
        let more = below.len() as u64;
        self.names.fetch_add(names, Ordering::Relaxed);
        self.directories.fetch_add(more, Ordering::Relaxed);
        self.progress.advance(names.saturating_add(more));
        Ok(below)
    }

    /// Takes their owners' way into the directories that had none, children first.
    fn give_late_modes(&self) -> Result<()> {
        let late = std::mem::take(&mut *self.late_modes.lock());
        for (dir, permissions) in late.into_iter().rev() {
            let failed = |errno| call("give its mode to", dir.path(), errno);
            let pair = dir.open().map_err(failed)?;
            at::chmod_fd(&pair.to, permissions).map_err(failed)?;
        }
        Ok(())
    }
}

/// Why the reading of a directory ended early.
enum Stop {
    Listing(Errno),
    At(BuildError),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Listing(errno)
    }
}

fn call(what: &'static str, path: TreePath, errno: Errno) -> BuildError {
    BuildError::Call { what, path, errno }
}
