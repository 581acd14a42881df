//! A container without a name or record, for one step of a build.

use std::os::fd::{AsFd, OwnedFd};

use super::create::{furnish, now};
use crate::mount::Directories;
use crate::store::runtime::{self, Ended, Network, Process, Run, Volume};
use crate::store::{Layer, Result, Store, StoreError, TmpDir};
use crate::sys::at;

/// An upper over a layer, with the same first layer as a container; deleted when it is dropped.
#[derive(Debug)]
pub struct Scratch<'a> {
    store: &'a Store,
    /// `init`, `init-work`, `upper`, `work` and `merged`.
    tmp: TmpDir,
    directories: Directories,
}

impl<'a> Scratch<'a> {
    /// Makes one over `layer`, which the caller holds as long as this is used.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(store: &'a Store, layer: &Layer) -> Result<Self> {
        let tmp = TmpDir::new(store, 0o700)?;
        let lower = layer.root_fd()?;
        let (now, _) = now();
        furnish(&tmp, layer.id(), lower.as_fd(), ("upper", "work"), now)?;
        let init = tmp.make_dir("init", 0o755)?;
        super::init::fill(init.as_fd(), lower.as_fd(), now)?;
        tmp.make_dir("merged", 0o700)?;
        let path = tmp.path();
        let directories = Directories {
            lowers: vec![layer.root_path()],
            upper: Some((path.join("upper"), path.join("work"))),
            merged: path.join("merged"),
        };
        Ok(Self {
            store,
            tmp,
            directories,
        })
    }

    /// Runs a command in it, as often as wanted. To be called while this process has no threads.
    ///
    /// # Errors
    /// As [`runtime::run`].
    pub fn run(&self, process: Process, volumes: Vec<Volume>, network: Network) -> Result<Ended> {
        runtime::run(&Run {
            store: self.store,
            directories: self.directories.clone(),
            source: None,
            process,
            hostname: "buildhost".to_owned(),
            volumes,
            network,
            read_only: false,
            // What is kept becomes a layer, which is brought to disk then.
            volatile: true,
        })
    }

    /// What was changed, opened.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn upper(&self) -> Result<OwnedFd> {
        self.open("upper")
    }

    /// What was there from the beginning, and does not count as changed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn init_upper(&self) -> Result<OwnedFd> {
        self.open("init")
    }

    fn open(&self, name: &str) -> Result<OwnedFd> {
        at::open_dir_path(self.tmp.dir()?, name.as_bytes())
            .and_then(at::reopen_dir)
            .map_err(StoreError::errno("open", self.tmp.path().join(name)))
    }

    /// Deletes it.
    ///
    /// # Errors
    /// When something cannot be deleted.
    pub fn remove(self) -> Result<()> {
        self.tmp.remove().map(drop)
    }
}
