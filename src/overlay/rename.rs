//! Moving names (section 7 of the rules).

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::Overlay;
use super::dirs::Layer;
use super::merge::{self, InUpper, RenameCase, RenamePlan};
use super::node::{Node, NodeId};
use super::trace;
use crate::sys::at::{self, RenameHow};
use crate::sys::stat::Stat;
use crate::sys::{Errno, Result, creds};
use std::os::fd::AsFd;

/// What the caller asked of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameFlag {
    /// Replace the target if there is one.
    None,
    /// The target must not exist (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both names must exist and change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// One end of a rename.
struct End<'a> {
    parent: Arc<Node>,
    name: &'a [u8],
    /// The node under the name, referenced until the end is dropped.
    node: Option<Arc<Node>>,
    stat: Option<Stat>,
}

impl End<'_> {
    fn is_dir(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.is_dir())
    }

    fn stays(&self) -> bool {
        self.node
            .as_ref()
            .is_some_and(|node| merge::keeps_its_place(node.is_dir(), node.state().lower.is_some()))
    }
}

impl Overlay {
    /// Renames (FUSE RENAME2).
    ///
    /// # Errors
    /// EXDEV for directories with a lower part (K94); EEXIST, ENOENT by the flag; EISDIR, ENOTDIR,
    /// ENOTEMPTY; EROFS; else as the calls made. Both names are then as they were.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &[u8],
        to_parent: NodeId,
        to_name: &[u8],
        flag: RenameFlag,
    ) -> Result<()> {
        self.work()?;
        self.refuse_mark(to_name)?;
        let from = self.end(parent, name)?;
        let to = self.end(to_parent, to_name);
        let to = match to {
            Ok(to) => to,
            Err(errno) => {
                self.release_end(&from);
                return Err(errno);
            }
        };
        let done = self.rename_ends(&from, &to, flag);
        self.release_end(&from);
        self.release_end(&to);
        done
    }

    fn end<'a>(&self, parent: NodeId, name: &'a [u8]) -> Result<End<'a>> {
        let parent = self.node(parent)?;
        match self.lookup_in(&parent, name) {
            Ok((node, stat)) => Ok(End {
                parent,
                name,
                node: Some(node),
                stat: Some(stat),
            }),
            Err(Errno::NOENT) => Ok(End {
                parent,
                name,
                node: None,
                stat: None,
            }),
            Err(errno) => Err(errno),
        }
    }

    fn release_end(&self, end: &End<'_>) {
        if let Some(node) = &end.node {
            self.forget(node.id, 1);
        }
    }

    fn rename_ends(&self, from: &End<'_>, to: &End<'_>, flag: RenameFlag) -> Result<()> {
        let source = from.node.as_ref().ok_or(Errno::NOENT)?;
        let exchange = flag == RenameFlag::Exchange;
        match (flag, &to.node) {
            (RenameFlag::Exchange, None) => return Err(Errno::NOENT),
            (RenameFlag::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameFlag::None, Some(target)) => {
                match (source.is_dir(), target.is_dir()) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    _ => {}
                }
                if Arc::ptr_eq(source, target) {
                    return Ok(());
                }
            }
            _ => {}
        }
        if from.stays() || exchange && to.stays() {
            trace::decided(merge::KEEPS_ITS_PLACE);
            return Err(Errno::XDEV);
        }
        if !exchange
            && to.is_dir()
            && let Some(target) = &to.node
        {
            self.check_empty(target)?;
        }
        self.copy_up(source, None)?;
        if exchange && let Some(target) = &to.node {
            self.copy_up(target, None)?;
        }
        self.copy_up(&from.parent, None)?;
        self.copy_up(&to.parent, None)?;
        creds::act_as_server()?;
        let _entries = self.lock_both(&from.parent, &to.parent);
        let from_dir = self.dirs.get(&from.parent, Layer::Upper)?;
        let to_dir = self.dirs.get(&to.parent, Layer::Upper)?;
        let in_target = self.look_upper(&*to_dir, to.name)?;
        let case = RenameCase {
            exchange,
            directory: source.is_dir(),
            source_in_lower: self.in_lower(&from.parent, from.name)?,
            target_is_whiteout: in_target == InUpper::Whiteout,
        };
        let plan = merge::plan_rename(case);
        log::debug!(
            "rename {} to {}: {}",
            source.path(),
            to.parent.path_of(to.name),
            plan.words()
        );
        trace::decided(plan.words());
        if source.is_dir() {
            self.make_opaque_for(&from_dir, from.name, &to.parent)?;
        }
        if exchange && to.is_dir() {
            self.make_opaque_for(&to_dir, to.name, &from.parent)?;
        }
        if !exchange && to.is_dir() && matches!(in_target, InUpper::Object(..)) {
            self.clear_whiteouts(&to_dir, to.name)?;
        }
        if let (false, Some(target), Some(stat)) = (exchange, &to.node, to.stat) {
            self.keep_reachable(target, stat.nlink);
        }
        self.note_origin(source, &to.parent, &to_dir)?;
        if exchange && let Some(target) = &to.node {
            self.note_origin(target, &from.parent, &from_dir)?;
        }
        let how = match plan {
            RenamePlan::Plain => RenameHow::Replace,
            RenamePlan::LeaveWhiteout => RenameHow::Whiteout,
            RenamePlan::SwapWithWhiteout | RenamePlan::SwapAndClear | RenamePlan::Exchange => {
                RenameHow::Exchange
            }
        };
        {
            let _still = (source.is_dir() || to.is_dir()).then(|| self.dirs.hold_still());
            at::rename_at(&from_dir, from.name, &to_dir, to.name, how)?;
            self.record(from, to, exchange);
        }
        if !Arc::ptr_eq(&from.parent, &to.parent) {
            // Their `..` is another one now.
            let moved = [Some(source), to.node.as_ref().filter(|_| exchange)];
            for dir in moved.into_iter().flatten().filter(|node| node.is_dir()) {
                self.pages_outdated(dir);
            }
        }
        [&from.node, &to.node]
            .into_iter()
            .flatten()
            .for_each(|node| self.names_changed(node));
        if plan == RenamePlan::SwapAndClear
            && let Err(errno) = at::unlink_at(&from_dir, from.name)
        {
            // It hides nothing; the view is right with it too.
            log::warn!("a whiteout stays at {}: {errno}", from.parent.path_of(from.name));
        }
        Ok(())
    }

    fn record(&self, from: &End<'_>, to: &End<'_>, exchange: bool) {
        if exchange {
            self.nodes
                .exchange_names((&from.parent, from.name), (&to.parent, to.name));
            return;
        }
        if let (Some(target), Some(stat)) = (&to.node, to.stat) {
            let nlink = if target.upper().is_none() || target.is_dir() {
                1
            } else {
                stat.nlink
            };
            self.nodes
                .remove_name(to.parent.id, to.name, Stat { nlink, ..stat });
        }
        self.nodes
            .move_name(from.parent.id, from.name, &to.parent, to.name);
    }

    /// A directory that lands where the lower may have the same name must hide it (K93).
    fn make_opaque_for(&self, dir: impl AsFd, name: &[u8], new_parent: &Arc<Node>) -> Result<()> {
        if !new_parent.has_lower_dir() {
            return Ok(());
        }
        self.make_opaque(dir, name)
    }

    /// Locks two directories, the ancestor first, else in the order of their ids.
    fn lock_both<'a>(
        &self,
        a: &'a Arc<Node>,
        b: &'a Arc<Node>,
    ) -> (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
        if Arc::ptr_eq(a, b) {
            return (a.entries.lock(), None);
        }
        let a_first = is_below(b, a) || !is_below(a, b) && a.id < b.id;
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        let first = first.entries.lock();
        (first, Some(second.entries.lock()))
    }
}

/// True if `node` lies below `ancestor`.
fn is_below(node: &Arc<Node>, ancestor: &Arc<Node>) -> bool {
    let mut link = node.link();
    while let Some(l) = link {
        if Arc::ptr_eq(&l.parent, ancestor) {
            return true;
        }
        link = l.parent.link();
    }
    false
}
