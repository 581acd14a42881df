//! Taking names away (K84 to K87).

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Overlay;
use super::dirs::Layer;
use super::look::Found;
use super::merge::{self, InLower, InUpper, RemovePlan};
use super::node::{Lower, Node, NodeId};
use super::{foreign, trace};
use crate::sys::at::{self, RenameHow};
use crate::sys::{Errno, Result, creds, dirent, stat, xattr};

impl Overlay {
    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// ENOENT; EISDIR; EROFS; else as the calls made. The name is then still there.
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.remove(parent, name, false)
    }

    /// Removes a directory that is empty in the view.
    ///
    /// # Errors
    /// ENOTEMPTY; ENOTDIR; ENOENT; EROFS; else as the calls made. The directory is then still there.
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.remove(parent, name, true)
    }

    /// What may be taken away under a name, before the question whether a directory is empty.
    ///
    /// # Errors
    /// As [`Overlay::unlink`] and [`Overlay::rmdir`].
    pub(super) fn removable(&self, parent: &Arc<Node>, name: &[u8], directory: bool) -> Result<Found> {
        let found = self.look(parent, name)?;
        match (found.stat.is_dir(), directory) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            _ => {}
        }
        if matches!(found.lower, Some(Lower::Covered(..))) {
            return Err(Errno::BUSY);
        }
        Ok(found)
    }

    fn remove(&self, parent: NodeId, name: &[u8], directory: bool) -> Result<()> {
        let parent = self.node(parent)?;
        self.work()?;
        let found = self.removable(&parent, name, directory)?;
        let node = self.nodes.find(parent.id, name);
        if directory {
            let dir = self.node_for(&parent, name, node.as_ref())?;
            self.check_empty(&dir)?;
            self.release(&dir, node.is_none());
        }
        let in_lower = self.in_lower(&parent, name)?;
        if in_lower {
            self.copy_up(&parent, None)?;
        }
        let _entries = parent.entries.lock();
        let _inner = node
            .as_ref()
            .filter(|_| directory)
            .map(|node| node.entries.lock());
        let dir = self.dirs.get(&parent, Layer::Upper)?;
        let in_upper = matches!(self.look_upper(&*dir, name)?, InUpper::Object(..));
        if let Some(node) = &node {
            self.keep_reachable(node, found.stat.nlink);
        }
        let plan = merge::plan_remove(in_upper, in_lower);
        log::debug!("remove {}: {}", parent.path_of(name), plan.words());
        trace::decided(plan.words());
        match plan {
            RemovePlan::Whiteout => self.work()?.link_whiteout(&dir, name)?,
            RemovePlan::Replace => self.replace_by_whiteout(&dir, name, directory)?,
            RemovePlan::Unlink if directory => self.remove_upper_dir(&dir, name)?,
            RemovePlan::Unlink => at::unlink_at(&dir, name)?,
        }
        self.nodes
            .remove_name(parent.id, name, self.last_look(node.as_ref(), &found.stat));
        if let Some(node) = &node {
            self.names_changed(node);
        }
        Ok(())
    }

    /// Keeps an object reachable that is about to lose its only known name, for those who work in it or hold
    /// it without having opened it (`O_PATH`), or who read the lower's file instead: a directory, or a file that
    /// has further names or was copied up while the kernel read the lower.
    pub(super) fn keep_reachable(&self, node: &Arc<Node>, nlink: u32) {
        if node.state().links.len() > 1 {
            return;
        }
        let kept = match (node.is_dir(), node.upper().is_some()) {
            (true, true) => self.dirs.get(node, Layer::Upper),
            (true, false) => match node.parts() {
                Some(parts) => self.dirs.get(node, Layer::Lower(parts.first())),
                None => return,
            },
            (false, true) if nlink > 1 || node.is_renewed() => self.upper_object(node),
            (false, _) => return,
        };
        match kept {
            Ok(fd) => node.state().kept = Some(fd),
            Err(errno) => log::debug!("{}: out of reach once it is removed: {errno}", node.path()),
        }
    }

    /// The attributes to remember, with the number that programs know.
    fn last_look(&self, node: Option<&Arc<Node>>, stat: &stat::Stat) -> stat::Stat {
        // `shown` would hide the link count that tells whether this was the last name.
        let number = node.map_or(stat.ino, |node| node.state().number);
        let lower_only = node.is_some_and(|node| node.upper().is_none());
        stat::Stat {
            ino: number,
            nlink: if lower_only { 1 } else { stat.nlink },
            ..*stat
        }
    }

    fn node_for(&self, parent: &Arc<Node>, name: &[u8], known: Option<&Arc<Node>>) -> Result<Arc<Node>> {
        match known {
            Some(node) => Ok(Arc::clone(node)),
            None => self.lookup_in(parent, name).map(|(node, _)| node),
        }
    }

    fn release(&self, node: &Arc<Node>, counted: bool) {
        if counted {
            self.forget(node.id, 1);
        }
    }

    /// A whiteout takes the place of an upper object in one step: rename over a file, exchange with a
    /// directory, which is then cleared away in the work directory (K84, K85).
    fn replace_by_whiteout(&self, dir: &OwnedFd, name: &[u8], directory: bool) -> Result<()> {
        let work = self.work()?;
        let temp = work.temp_whiteout()?;
        if directory {
            at::rename_at(work.fd(), &temp.name, dir, name, RenameHow::Exchange)?;
            // Dropping the temporary removes the old directory with the whiteouts in it.
            return Ok(());
        }
        at::rename_at(work.fd(), &temp.name, dir, name, RenameHow::Replace)?;
        temp.published();
        Ok(())
    }

    /// Removes a directory that lies in the upper alone; stray whiteouts in it go with it (K86).
    fn remove_upper_dir(&self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        match at::rmdir_at(dir, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done,
        }
        let work = self.work()?;
        creds::act_as_server()?;
        let (temp, ()) =
            work.temp(|work, temp| at::rename_at(dir, name, work, temp, RenameHow::NoReplace))?;
        drop(temp);
        Ok(())
    }

    /// Checks that a directory shows no name.
    ///
    /// # Errors
    /// ENOTEMPTY; EBUSY for one with something mounted on it; else as getdents64(2).
    pub(super) fn check_empty(&self, node: &Arc<Node>) -> Result<()> {
        if matches!(node.state().lower, Some(Lower::Covered(..))) {
            return Err(Errno::BUSY);
        }
        let mut hidden = HashSet::new();
        if node.upper().is_some() {
            let dir = self.dirs.get(node, Layer::Upper)?;
            dirent::read_names(at::reopen_dir(&dir)?, |entry| {
                if self.is_mark(&entry.name) {
                    return Ok(true);
                }
                let file = entry.kind != 0 && entry.kind != libc::S_IFCHR && entry.kind != libc::S_IFREG;
                if file || self.look_upper(&*dir, &entry.name)? != InUpper::Whiteout {
                    return Err(Errno::NOTEMPTY);
                }
                hidden.insert(entry.name);
                Ok(true)
            })?;
        }
        let Some(parts) = node.parts() else {
            return Ok(());
        };
        for layer in parts.iter() {
            let dir = self.dirs.get(node, Layer::Lower(layer))?;
            let mut hides = Vec::new();
            dirent::read_names(at::reopen_dir(&dir)?, |entry| {
                if hidden.contains(&entry.name) {
                    return Ok(true);
                }
                if self.is_mark(&entry.name) {
                    hides.extend(foreign::hidden_by(&entry.name).map(Box::from));
                    return Ok(true);
                }
                match self.look_lower(&*dir, &entry.name, true)? {
                    InLower::Object(..) | InLower::Covered(_) => return Err(Errno::NOTEMPTY),
                    InLower::Whiteout if layer != parts.last() => drop(hidden.insert(entry.name)),
                    InLower::Whiteout | InLower::Absent => {}
                }
                Ok(true)
            })?;
            hidden.extend(hides);
        }
        Ok(())
    }

    /// Puts an empty opaque copy in the place of an upper directory that is empty in the view but holds
    /// whiteouts, so that another directory can be renamed over it (K92).
    pub(super) fn clear_whiteouts(&self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        let old = at::open_dir_path(dir, name)?;
        let mut any = false;
        dirent::read_names(at::reopen_dir(&old)?, |_| {
            any = true;
            Ok(false)
        })?;
        if !any {
            return Ok(());
        }
        let stat = self.upper_stat(&old)?;
        let work = self.work()?;
        creds::act_as_server()?;
        let (temp, ()) = work.temp(|work, name| at::mkdir_at(work, name, 0o700))?;
        let fd = at::open_dir_path(work.fd(), &temp.name)?;
        self.fill_metadata(&fd, Some(xattr::of(&old)), &stat, |to| self.marks.set_opaque(to))?;
        at::rename_at(work.fd(), &temp.name, dir.as_fd(), name, RenameHow::Exchange)
    }
}
