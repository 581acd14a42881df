//! Containers: an upper of one's own over an image's tree.
//!
//! ```text
//!   overlay/<id>-init/   lower-id  upper/  work/            what every container is given (init.rs)
//!   overlay/<id>/        lower-id  upper/  work/  merged/   upper starts as a copy of the first one
//!   containers/<id>      the record (record.rs)
//! ```
//!
//! Born in this order, gone in the opposite one, all under the store's exclusive lock: a first layer without a record
//! is what a killed process left, and [`sweep`] clears it away.
//!
//! A container is in use while its upper is locked, by the server of its mount: a killed one frees it. Who is about
//! to mount, commit or remove it has the file `lower-id` locked meanwhile, so that they take turns.

mod commit;
mod create;
mod init;
mod life;
mod names;
mod record;
mod remove;
mod scratch;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

pub use commit::{Commit, Committed};
pub use create::Wish;
pub use record::{HostSettings, Record, Settings, State, Status};
pub use remove::sweep;
pub use scratch::Scratch;

use super::layout::{names_in, read_file};
use super::lock::{still_named, wait};
use super::{ChainId, LARGEST_JSON, Layer, Result, Store, StoreError, TmpDir};
use crate::mount::Directories;
use crate::sys::at::{self, RenameHow};
use crate::sys::{Errno, io};

/// A container of a store.
#[derive(Debug)]
pub struct Container<'a> {
    store: &'a Store,
    /// What is written down of it.
    pub record: Record,
    lower: ChainId,
    dir: OwnedFd,
    path: PathBuf,
}

/// Whether somebody uses a container, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nobody.
    Idle,
    /// It is mounted.
    Mounted,
    /// Its command runs.
    Running,
}

impl Store {
    /// The container that `reference` means: its name, its id, or the beginning of one.
    ///
    /// # Errors
    /// When there is none, or several, or it cannot be read.
    pub fn container(&self, reference: &str) -> Result<Container<'_>> {
        let records = self.container_records()?;
        let named = records.iter().find(|record| record.name == reference);
        if let Some(record) = named {
            return Container::open(self, record.clone());
        }
        let digits = !reference.is_empty() && reference.bytes().all(|b| b.is_ascii_hexdigit());
        let mut found = records
            .iter()
            .filter(|record| digits && record.id.starts_with(reference));
        match (found.next(), found.next()) {
            (None, _) => Err(StoreError::Refused(format!(
                "no such container: {reference}; 'plyfs container ls' shows those there are"
            ))),
            (Some(record), None) => Container::open(self, record.clone()),
            (Some(first), Some(second)) => Err(StoreError::Ambiguous {
                reference: reference.to_owned(),
                ids: [first, second]
                    .into_iter()
                    .chain(found)
                    .map(|record| record.id.clone())
                    .collect(),
            }),
        }
    }

    /// All containers, the oldest first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn containers(&self) -> Result<Vec<Container<'_>>> {
        let mut found = Vec::new();
        for record in self.container_records()? {
            match Container::open(self, record) {
                Ok(container) => found.push(container),
                // Removed meanwhile.
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn container_records(&self) -> Result<Vec<Record>> {
        let path = self.path().join("containers");
        let mut records = Vec::new();
        for id in names_in(self.containers_dir(), &path)? {
            match read_record(self, &path, &id) {
                Ok(record) => records.push(record),
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        records.sort_by(|a: &Record, b| a.created.cmp(&b.created));
        Ok(records)
    }
}

fn read_record(store: &Store, path: &Path, id: &str) -> Result<Record> {
    let text = read_file(store.containers_dir(), path, id, LARGEST_JSON)?;
    serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
        path: path.join(id),
        why: error.to_string(),
    })
}

/// The directory of the first layer.
fn init_name(id: &str) -> String {
    format!("{id}-init")
}

impl<'a> Container<'a> {
    fn open(store: &'a Store, record: Record) -> Result<Self> {
        let path = store.overlay_path().join(&record.id);
        let dir = at::open_dir_path(store.overlay(), record.id.as_bytes())
            .and_then(at::reopen_dir)
            .map_err(StoreError::errno("open", &path))?;
        let text = read_file(dir.as_fd(), &path, "lower-id", 1024)?;
        let lower = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| ChainId::from_hex(text.trim_ascii_end()))
            .ok_or_else(|| StoreError::Damaged {
                path: path.join("lower-id"),
                why: "it names no layer".to_owned(),
            })?;
        Ok(Self {
            store,
            record,
            lower,
            dir,
            path,
        })
    }

    /// Its directory, `overlay/<id>`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image layer it lies on.
    pub fn lower_id(&self) -> &ChainId {
        &self.lower
    }

    /// That layer, kept from removal while the answer lives.
    ///
    /// # Errors
    /// When it is not there.
    pub fn layer(&self) -> Result<Layer> {
        self.store.layer(&self.lower)
    }

    /// The directories of its mount.
    pub fn directories(&self) -> Directories {
        let lower = self.store.overlay_path().join(self.lower.hex());
        Directories {
            lowers: vec![lower.join("root")],
            upper: Some((self.path.join("upper"), self.path.join("work"))),
            merged: self.path.join("merged"),
        }
    }

    fn sub_dir(&self, name: &str) -> Result<OwnedFd> {
        at::open_dir_path(&self.dir, name.as_bytes())
            .and_then(at::reopen_dir)
            .map_err(StoreError::errno("open", self.path.join(name)))
    }

    /// Its upper, opened.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn upper(&self) -> Result<OwnedFd> {
        self.sub_dir("upper")
    }

    /// The upper of its first layer, opened.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn init_upper(&self) -> Result<OwnedFd> {
        let name = init_name(&self.record.id);
        let path = self.store.overlay_path().join(&name);
        at::open_dir_path(self.store.overlay(), name.as_bytes())
            .and_then(|dir| at::open_dir_path(dir, b"upper"))
            .and_then(at::reopen_dir)
            .map_err(StoreError::errno("open", path.join("upper")))
    }

    /// Whether somebody uses it: the server of its mount has its upper locked.
    ///
    /// # Errors
    /// As flock(2).
    pub fn in_use(&self) -> Result<Use> {
        // Shared: who only looks does not get in the way of others who look.
        match flock(self.upper()?, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Use::Idle),
            Err(Errno::WOULDBLOCK) if self.record.state.status == Status::Running => Ok(Use::Running),
            Err(Errno::WOULDBLOCK) => Ok(Use::Mounted),
            Err(errno) => Err(StoreError::errno("lock", self.path.join("upper"))(errno)),
        }
    }

    /// Waits until nobody else is about to mount, commit or remove it, and keeps them from it.
    fn turn(&self) -> Result<Turn> {
        self.turn_if_there()?
            .ok_or_else(|| self.error("has been removed meanwhile", "there is nothing to do"))
    }

    /// As [`Container::turn`]; none if it has been removed meanwhile.
    fn turn_if_there(&self) -> Result<Option<Turn>> {
        let path = self.path.join("lower-id");
        let file = match at::open_at(&self.dir, b"lower-id", libc::O_RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(StoreError::errno("open", &path)(errno)),
        };
        wait(&file, FlockOperation::LockExclusive).map_err(StoreError::errno("lock", &path))?;
        let turn = Turn { file };
        let still = still_named(self.store.overlay(), self.record.id.as_bytes(), &self.dir)
            .map_err(StoreError::errno("look at", &self.path))?;
        Ok(still.then_some(turn))
    }

    /// "container web is running: ..."
    fn error(&self, what: &str, remedy: &str) -> StoreError {
        StoreError::Refused(format!("container {} {what}: {remedy}", self.record.name))
    }

    /// Writes a changed state down; nothing happens if the container has been removed meanwhile.
    fn write_state(&mut self, change: impl FnOnce(&mut State)) -> Result<()> {
        let path = self.store.path().join("containers");
        let id = self.record.id.clone();
        change(&mut self.record.state);
        let fresh = TmpDir::new(self.store, 0o700)?;
        fresh.write("record", &encode(&self.record)?)?;
        {
            let _exclusive = self.store.exclusive()?;
            if read_record(self.store, &path, &id).is_ok() {
                at::rename_at(
                    fresh.dir()?,
                    b"record",
                    self.store.containers_dir(),
                    id.as_bytes(),
                    RenameHow::Replace,
                )
                .map_err(StoreError::errno("write", path.join(&id)))?;
                io::sync(self.store.containers_dir(), false)
                    .map_err(StoreError::errno("write to disk", &path))?;
            }
        }
        fresh.remove().map(drop)
    }
}

/// The right to change how a container is used; see [`Container::turn`].
#[derive(Debug)]
struct Turn {
    file: OwnedFd,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // By hand: the server of a view is a copy of this process and has the file open as well.
        if let Err(errno) = flock(&self.file, FlockOperation::Unlock) {
            log::debug!("lower-id: {errno}");
        }
    }
}

fn encode(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(record)
        .map_err(|error| StoreError::Refused(format!("cannot write down the container: {error}")))
}
