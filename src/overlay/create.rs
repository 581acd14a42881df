//! New objects and new names (K80 to K83).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Overlay;
use super::dirs::Layer;
use super::merge::{CreatePlan, InUpper};
use super::node::{Node, NodeId};
use super::stated::BirthRight;
use super::table::Birth;
use super::trace;
use super::work::{self, Temp, Work};
use crate::sys::at::{self, RenameHow};
use crate::sys::creds::{self, Ids};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::Target;
use crate::sys::{Errno, Result};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// File system ids.
    pub ids: Ids,
    /// Umask; it counts where the parent has no default ACL.
    pub umask: u32,
    /// Process id.
    pub pid: u32,
}

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub enum NewObject<'a> {
    /// A regular file, opened with these flags of open(2).
    File(i32),
    /// A directory.
    Dir,
    /// A symlink with this text.
    Symlink(&'a [u8]),
    /// A fifo, socket, device node or unopened file: type bits and device number.
    Special(u32, u64),
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Its node, counted as looked up once.
    pub node: Arc<Node>,
    /// Its attributes.
    pub stat: Stat,
    /// The open file, for [`NewObject::File`].
    pub file: Option<OwnedFd>,
}

impl NewObject<'_> {
    fn make(&self, dir: &OwnedFd, name: &[u8], permissions: u32) -> Result<Option<OwnedFd>> {
        match *self {
            Self::File(flags) => at::create_at(dir, name, flags, permissions).map(Some),
            Self::Dir => at::mkdir_at(dir, name, permissions).map(|()| None),
            Self::Symlink(text) => at::symlink_at(text, dir, name).map(|()| None),
            Self::Special(kind, rdev) => at::mknod_at(dir, name, kind | permissions, rdev).map(|()| None),
        }
    }
}

impl Overlay {
    /// Makes a new object under a free name.
    ///
    /// # Errors
    /// EEXIST; EROFS; EPERM for a device 0/0, which would be a whiteout (K34); else as the calls made.
    pub fn make(
        &self,
        parent: NodeId,
        name: &[u8],
        what: NewObject<'_>,
        mode: u32,
        caller: Caller,
    ) -> Result<Made> {
        if matches!(what, NewObject::Special(libc::S_IFCHR, 0)) {
            return Err(Errno::PERM);
        }
        self.refuse_mark(name)?;
        let parent = self.node(parent)?;
        self.copy_up(&parent, None)?;
        let permissions = mode & at::PERMISSION_BITS;
        let _entries = parent.entries.lock();
        let dir = self.dirs.get(&parent, Layer::Upper)?;
        let right = self.birth_right(&dir, &what, permissions, &caller)?;
        let born = creds::act_as(right.ids, right.umask)?;
        let mut over_whiteout = false;
        let mut file = None;
        let in_lower = self.in_lower(&parent, name)?;
        if born == right.ids && right.statement.is_none() && !in_lower {
            match what.make(&dir, name, right.permissions) {
                Ok(made) => file = made,
                Err(Errno::EXIST) => over_whiteout = true,
                Err(errno) => return Err(errno),
            }
        } else {
            // Either a whiteout hides the lower's object, or the owner has to be put right before it shows.
            over_whiteout = true;
        }
        let plan = if over_whiteout {
            CreatePlan::InWork
        } else {
            CreatePlan::InUpper
        };
        log::debug!("create {}: {}", parent.path_of(name), plan.words());
        trace::decided(plan.words());
        if over_whiteout {
            file = self.make_in_work((&dir, in_lower), name, what, &right)?;
        }
        let stat = match &file {
            Some(file) => self.upper_stat(file)?,
            None => self.told(
                Layer::Upper,
                Target::At(dir.as_fd(), name),
                stat::stat_at(&dir, name)?,
            )?,
        };
        let birth = Birth {
            kind: stat.kind(),
            number: stat.ino,
            upper: Some(stat.ino),
            upper_shared: false,
            from_origin: false,
            lower: None,
            impure: false,
        };
        let mut node = self.nodes.insert(&parent, name, birth);
        if node.upper() != Some(stat.ino) {
            // What was known of the name was removed outside the view.
            self.forget(node.id, 1);
            self.nodes.disown(parent.id, name);
            node = self.lookup_in(&parent, name)?.0;
        }
        let stat = self.shown(&node, stat);
        Ok(Made { node, stat, file })
    }

    /// Makes the object in the work directory and moves it to its name when it is complete (K81).
    fn make_in_work(
        &self,
        (dir, in_lower): (&OwnedFd, bool),
        name: &[u8],
        what: NewObject<'_>,
        right: &BirthRight,
    ) -> Result<Option<OwnedFd>> {
        let whiteout = match self.look_upper(dir, name)? {
            InUpper::Absent if in_lower => return Err(Errno::EXIST),
            InUpper::Absent => false,
            InUpper::Whiteout => true,
            InUpper::Object(..) => return Err(Errno::EXIST),
        };
        let work = self.work()?;
        creds::act_as_server()?;
        let nest = match right.statement {
            Some(_) => None,
            None => self.nest(work, dir)?,
        };
        let born = creds::act_as(right.ids, right.umask)?;
        let home: &OwnedFd = match &nest {
            Some((_, fd)) => fd,
            None => work.fd(),
        };
        let (temp, file) = work.temp(|_, temp| what.make(home, temp, right.permissions))?;
        if let Some(statement) = right.statement {
            let fd = at::open_path(home, &temp.name)?;
            let kind = stat::stat_fd(&fd)?.kind();
            self.state(&fd, kind, statement)?;
        } else if born != right.ids {
            let fd = at::open_path(home, &temp.name)?;
            let keep = |have, want| (have != want).then_some(want);
            self.set_owner(&fd, keep(born.uid, right.ids.uid), keep(born.gid, right.ids.gid))?;
        }
        let how = match (whiteout, what) {
            (false, _) => RenameHow::NoReplace,
            (true, NewObject::Dir) => {
                self.make_opaque(home, &temp.name)?;
                RenameHow::Exchange
            }
            (true, _) => RenameHow::Replace,
        };
        at::rename_at(home, &temp.name, dir, name, how)?;
        // After an exchange the whiteout lies where the directory was born, and is removed with the temporary.
        if how != RenameHow::Exchange || nest.is_some() {
            temp.published();
        }
        Ok(file)
    }

    /// Makes a directory of the upper or the work directory hide the lower's.
    ///
    /// # Errors
    /// As setxattr(2).
    pub(super) fn make_opaque(&self, dir: impl AsFd, name: &[u8]) -> Result<()> {
        match self.marks.set_opaque(Target::At(dir.as_fd(), name)) {
            Err(Errno::ACCESS) => {}
            done => return done,
        }
        // An unprivileged server has to be allowed to write the directory while it is marked.
        let fd = at::open_dir_path(&dir, name)?;
        let mode = stat::stat_fd(&fd)?.mode & at::PERMISSION_BITS;
        at::chmod_fd(&fd, mode | libc::S_IWUSR)?;
        let marked = self.marks.set_opaque(Target::Fd(fd.as_fd()));
        at::chmod_fd(&fd, mode).and(marked)
    }

    /// A directory in the work directory in which objects are born as they would be in `dir`; `None` where
    /// the work directory itself does as well.
    fn nest<'a>(&self, work: &'a Work, dir: &OwnedFd) -> Result<Option<(Temp<'a>, OwnedFd)>> {
        let special = stat::stat_fd(dir)?.mode & libc::S_ISGID != 0 || has_default_acl(dir)?;
        if !special {
            return Ok(None);
        }
        let (temp, ()) = work.temp(|work, name| at::mkdir_at(work, name, 0o700))?;
        let fd = at::open_dir_path(work.fd(), &temp.name)?;
        work::inherit_birth_rules(dir, &fd)?;
        Ok(Some((temp, fd)))
    }

    /// Gives an object a second name (K83); answers its attributes.
    ///
    /// # Errors
    /// EEXIST; EMLINK; EROFS; else as copy-up and linkat(2).
    pub fn link(&self, id: NodeId, parent: NodeId, name: &[u8]) -> Result<(Arc<Node>, Stat)> {
        self.refuse_mark(name)?;
        let node = self.node(id)?;
        let parent = self.node(parent)?;
        if self.nodes.find(parent.id, name).is_some() && self.look(&parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let object = self.upper_object(&node)?;
        self.copy_up(&parent, None)?;
        creds::act_as_server()?;
        let _entries = parent.entries.lock();
        let dir = self.dirs.get(&parent, Layer::Upper)?;
        self.note_origin(&node, &parent, &dir)?;
        match self.look_upper(&*dir, name)? {
            InUpper::Object(..) => return Err(Errno::EXIST),
            InUpper::Absent => at::link_fd(&object, &dir, name)?,
            InUpper::Whiteout => {
                let work = self.work()?;
                let (temp, ()) = work.temp(|work, temp| at::link_fd(&object, work, temp))?;
                at::rename_at(work.fd(), &temp.name, &dir, name, RenameHow::Replace)?;
                temp.published();
            }
        }
        let stat = self.upper_stat(&object)?;
        self.nodes.add_name(&node, &parent, name);
        self.changed_as(id, &node);
        Ok((Arc::clone(&node), self.shown(&node, stat)))
    }
}

fn has_default_acl(dir: &OwnedFd) -> Result<bool> {
    match crate::sys::xattr::get(crate::sys::xattr::of(dir), work::DEFAULT_ACL) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}
