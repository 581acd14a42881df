//! The end of a container.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Container, Use, init_name};
use crate::store::layout::names_in;
use crate::store::lock::try_exclusive;
use crate::store::{Result, Store, StoreError, TmpDir};
use crate::sys::at::{self, RenameHow};
use crate::sys::{Errno, io};

/// How often the lock of an upper is tried for that somebody may only look at.
const LOOKERS: u8 = 40;

impl Container<'_> {
    /// Removes it.
    ///
    /// # Errors
    /// When it is mounted or running, or cannot be removed.
    pub fn remove(self) -> Result<()> {
        let in_use = |found| match found {
            Use::Running => self.error("is running", "end its command first, or use --force"),
            Use::Mounted | Use::Idle => self.error(
                "is mounted",
                &format!(
                    "'plyfs container umount {}' first, or use --force",
                    self.record.name
                ),
            ),
        };
        let _turn = self.turn()?;
        let found = self.in_use()?;
        if found != Use::Idle {
            return Err(in_use(found));
        }
        self.remove_merged()?;
        let grave = TmpDir::new(self.store, 0o700)?;
        {
            let _exclusive = self.store.exclusive()?;
            // Somebody may just look, with a shared lock; a mount made by hand has an exclusive one.
            let upper = self.upper()?;
            let mut tries = LOOKERS;
            while !try_exclusive(&upper).map_err(StoreError::errno("lock", self.path.join("upper")))? {
                tries = tries.checked_sub(1).ok_or_else(|| in_use(Use::Mounted))?;
                std::thread::sleep(Duration::from_millis(5));
            }
            bury(self.store, &self.record.id, &grave)?;
        }
        grave.remove().map(drop)
    }
}

/// Moves what there is of a container to `grave`: the record first, the first layer last.
fn bury(store: &Store, id: &str, grave: &TmpDir) -> Result<()> {
    let first = init_name(id);
    let places: [(BorrowedFd<'_>, &str, &[u8], &str); 3] = [
        (store.containers_dir(), id, b"record", "containers"),
        (store.overlay(), id, b"own", "overlay"),
        (store.overlay(), &first, b"first", "overlay"),
    ];
    for (dir, name, to, place) in places {
        match at::rename_at(dir, name.as_bytes(), grave.dir()?, to, RenameHow::NoReplace) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let path = store.path().join(place).join(name);
                return Err(StoreError::errno("remove", path)(errno));
            }
        }
        io::sync(dir, false).map_err(StoreError::errno("write to disk", store.path().join(place)))?;
    }
    Ok(())
}

/// Clears away what a process left that was killed while it made or removed a container: a first layer without a
/// record, and what belongs to it. Answers how many there were.
///
/// # Errors
/// When it cannot be moved away or deleted.
pub fn sweep(store: &Store) -> Result<usize> {
    if orphans(store)?.is_empty() {
        return Ok(0);
    }
    let grave = TmpDir::new(store, 0o700)?;
    let mut found = 0_usize;
    {
        // Nobody is at work on one meanwhile.
        let _exclusive = store.exclusive()?;
        for id in orphans(store)? {
            let name = found.to_string();
            at::mkdir_at(grave.dir()?, name.as_bytes(), 0o700)
                .map_err(StoreError::errno("make a directory in", grave.path()))?;
            let own = at::open_dir_path(grave.dir()?, name.as_bytes())
                .map_err(StoreError::errno("open", grave.path()))?;
            for (name, to) in [(id.clone(), b"own".as_slice()), (init_name(&id), b"first")] {
                match at::rename_at(
                    store.overlay(),
                    name.as_bytes(),
                    own.as_fd(),
                    to,
                    RenameHow::NoReplace,
                ) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => {
                        return Err(StoreError::errno("remove", store.overlay_path().join(name))(
                            errno,
                        ));
                    }
                }
            }
            found = found.saturating_add(1);
        }
    }
    grave.remove()?;
    Ok(found)
}

/// Ids of first layers without a record.
fn orphans(store: &Store) -> Result<Vec<String>> {
    let mut ids: Vec<String> = names_in(store.overlay(), &store.overlay_path())?
        .into_iter()
        .filter_map(|name| name.strip_suffix("-init").map(str::to_owned))
        .collect();
    if ids.is_empty() {
        return Ok(ids);
    }
    let known = names_in(store.containers_dir(), &store.path().join("containers"))?;
    ids.retain(|id| known.binary_search(id).is_err());
    Ok(ids)
}
