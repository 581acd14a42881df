//! Mounting a container, and running its command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::create::now;
use super::record::Status;
use super::{Container, Turn, Use};
use crate::mount::unmount::unmount;
use crate::store::runtime::{self, Ended, Network, Process, Run, kill_command};
use crate::store::view::{Lasting, View};
use crate::store::{self, StoreError};
use crate::sys::{Errno, at};

/// How long a command that was killed, or a view out of sight, may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Container<'_> {
    /// Mounts it on `merged`, which is made for that, until somebody unmounts it. To be called without threads.
    ///
    /// # Errors
    /// When it is in use, or what stands against the mount.
    pub fn mount(&self) -> store::Result<PathBuf> {
        let _turn = self.ready()?;
        // The layer is locked by the server itself; this says clearly if it is missing.
        drop(self.layer()?);
        let directories = self.directories();
        let merged = directories.merged.clone();
        let view = View::mount(directories, Some(self.source()), Lasting::Own, false);
        if view.is_err() {
            self.remove_merged()?;
        }
        view?.leave();
        Ok(merged)
    }

    /// Unmounts it, and waits until all changes are in its upper.
    ///
    /// # Errors
    /// When it is not mounted, or in use.
    pub fn unmount(&self, lazy: bool) -> store::Result<()> {
        let _turn = self.turn()?;
        match self.in_use()? {
            Use::Running => {
                return Err(self.error("is running", "its view goes with its command; end that"));
            }
            Use::Idle if !self.has_merged()? => {
                return Err(self.error("is not mounted", "there is nothing to do"));
            }
            Use::Idle | Use::Mounted => {}
        }
        unmount(&self.directories().merged, lazy, |_| {})?;
        self.remove_merged()
    }

    /// What `mount` shows as the source of its view.
    pub(super) fn source(&self) -> OsString {
        OsString::from(&self.record.name)
    }

    fn has_merged(&self) -> store::Result<bool> {
        match crate::sys::stat::stat_at_cached(&self.dir, b"merged") {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(StoreError::errno("look at", self.path.join("merged"))(errno)),
        }
    }

    /// Takes the mount point away, and a dead mount with it.
    pub(super) fn remove_merged(&self) -> store::Result<()> {
        let path = self.path.join("merged");
        for _ in 0..2 {
            match at::rmdir_at(&self.dir, b"merged") {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // A server that was killed left it.
                Err(Errno::BUSY) => unmount(&path, true, |_| {}).map(drop)?,
                // A server on its way out, whose view somebody still uses, in another namespace.
                Err(errno) => return Err(StoreError::errno("remove", path)(errno)),
            }
        }
        Ok(())
    }

    /// Takes the mount point away after a run, unless somebody has mounted it again, or removed it all.
    fn tidy(&self) -> store::Result<()> {
        match self.turn_if_there()? {
            Some(_turn) if self.in_use()? == Use::Idle => self.remove_merged(),
            _ => Ok(()),
        }
    }

    /// One's turn, and an empty `merged`, if nobody uses it.
    fn ready(&self) -> store::Result<Turn> {
        let turn = self.turn()?;
        let merged = self.path.join("merged");
        match self.in_use()? {
            Use::Idle => {}
            Use::Mounted => {
                return Err(self.error(
                    &format!("is mounted already, on {}", merged.display()),
                    &format!("'plyfs container umount {}' unmounts it", self.record.name),
                ));
            }
            Use::Running => return Err(self.error("is running", "wait for its end, or end it")),
        }
        self.remove_merged()?;
        at::mkdir_at(&self.dir, b"merged", 0o700).map_err(StoreError::errno("make", merged))?;
        Ok(turn)
    }

    /// Runs its command in its view, and waits. To be called without threads.
    ///
    /// # Errors
    /// When it is in use, has no command, or its view cannot be mounted. That the command failed is no error.
    pub fn run(&mut self) -> store::Result<Ended> {
        let turn = self.ready()?;
        drop(self.layer()?);
        let settings = &self.record.config;
        let host = &self.record.host_config;
        let run = Run {
            store: self.store,
            directories: self.directories(),
            source: Some(self.record.name.clone()),
            process: Process {
                argv: settings.argv(),
                env: settings.env.clone(),
                cwd: settings.working_dir.clone(),
                user: settings.user.clone(),
                tty: settings.tty,
                stdin: settings.open_stdin,
            },
            hostname: settings.hostname.clone(),
            volumes: host
                .binds
                .iter()
                .map(|bind| bind.parse())
                .collect::<store::Result<_>>()?,
            network: if host.network_mode == Network::None.word() {
                Network::None
            } else {
                Network::Host
            },
            read_only: host.readonly_rootfs,
            volatile: false,
        };
        let ended = runtime::run_in(&run, |pid| {
            // Its upper is locked now.
            drop(turn);
            let (_, since) = now();
            self.write_state(|state| {
                state.status = Status::Running;
                state.pid = pid;
                state.started_at = since;
                state.finished_at.clear();
            })
        });
        let removed = self.tidy();
        if self.record.state.status == Status::Running {
            let status = ended.as_ref().map_or(125, |ended| ended.status);
            let (_, until) = now();
            self.write_state(|state| {
                state.status = Status::Exited;
                state.pid = 0;
                state.exit_code = status;
                state.finished_at = until;
            })?;
        }
        let ended = ended?;
        removed?;
        Ok(ended)
    }

    /// Makes sure that nobody uses it any more: unmounts it, or kills its command.
    ///
    /// # Errors
    /// When it is still in use after that.
    pub fn release(&self) -> store::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut unmounted = false;
        loop {
            match self.in_use()? {
                Use::Idle => return Ok(()),
                // Again and again: the runtime may be just about to start it.
                Use::Running => drop(
                    kill_command(self.record.state.pid)
                        .map_err(StoreError::errno("end the command in", &self.path))?,
                ),
                Use::Mounted if !unmounted => {
                    unmount(&self.directories().merged, true, |_| {})?;
                    unmounted = true;
                }
                Use::Mounted => {}
            }
            if Instant::now() > until {
                return Err(self.error("is still in use", "somebody works in its view; end that"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Corrects a record that a killed process left: nothing runs any more.
    ///
    /// # Errors
    /// When the state cannot be found out.
    pub fn settle(&mut self) -> store::Result<Use> {
        let found = self.in_use()?;
        let state = &mut self.record.state;
        if found == Use::Idle && state.status == Status::Running {
            state.status = Status::Exited;
            state.pid = 0;
            state.exit_code = 137;
        }
        Ok(found)
    }
}
