//! Owners and modes that an attribute states (`format/statement.rs`).
//!
//! Read from every layer whose root has a statement; written to the upper with `xattr_permissions=`
//! ([`OwnershipMode::Stated`]). All reading of a real object's attributes for the view goes through
//! [`Overlay::told`], all giving of owners and modes in the upper through [`Overlay::give`] and [`Overlay::set_mode`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Overlay;
use super::config::{OwnershipMode, StatedIn};
use super::create::{Caller, NewObject};
use super::dirs::Layer;
use super::node::{Lower, Node};
use crate::format::statement::{self, Statement};
use crate::sys::creds::{self, Ids};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result, at};

/// Real permission bits of files and directories whose mode is stated: the server can use them whatever they show,
/// and who shares the store can read them.
const OPEN: u32 = 0o755;
const CAPABILITY: &[u8] = b"security.capability";

/// The names of statements in one layer, the first that an object has counts; none in most layers.
type Names = Vec<&'static [u8]>;

/// Which layers have statements, and how the upper gets them.
#[derive(Debug, Default)]
pub(super) struct Stated {
    mode: OwnershipMode,
    upper: Names,
    lowers: Vec<Names>,
    /// No layer has any.
    none: bool,
    /// Statements are read, changed and written back.
    changing: Mutex<()>,
}

/// How a new object is born.
#[derive(Debug)]
pub(super) struct BirthRight {
    /// Under whose ids, where the server may.
    pub ids: Ids,
    /// With this umask.
    pub umask: u32,
    /// And these permission bits.
    pub permissions: u32,
    /// What it is to state, before it shows.
    pub statement: Option<Statement>,
}

impl StatedIn {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Security => statement::SECURITY,
            Self::User => statement::CONTAINERS,
        }
    }
}

impl From<&Stat> for Statement {
    fn from(stat: &Stat) -> Self {
        Self {
            uid: stat.uid,
            gid: stat.gid,
            mode: stat.mode & at::PERMISSION_BITS,
        }
    }
}

/// The names of statements that a root has.
fn names_of(root: &impl AsFd) -> Result<Names> {
    let list = xattr::list(xattr::of(root))?;
    let has = |name: &&'static [u8]| xattr::names(&list).any(|found| found == *name);
    Ok(statement::NAMES.into_iter().filter(has).collect())
}

fn read(target: Target<'_>, names: &[&[u8]]) -> Result<Option<Statement>> {
    for name in names {
        match xattr::get(target, name) {
            Ok(value) => {
                let stated = Statement::parse(&value);
                if stated.is_none() {
                    log::debug!(
                        "not a statement of owner and mode: {}",
                        String::from_utf8_lossy(&value)
                    );
                }
                return Ok(stated);
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Statements are made of files and directories only: others can have no `user.` attribute.
fn is_stated(kind: u32) -> bool {
    matches!(kind, libc::S_IFREG | libc::S_IFDIR)
}

/// What chown(2) takes from a mode: setuid, and setgid where it is not the mark of mandatory locking.
fn after_chown(stat: &Stat) -> u32 {
    let mode = stat.mode & at::PERMISSION_BITS;
    match (stat.is_dir(), mode & libc::S_IXGRP != 0) {
        (true, _) => mode,
        (false, true) => mode & !(libc::S_ISUID | libc::S_ISGID),
        (false, false) => mode & !libc::S_ISUID,
    }
}

/// What is done without where nothing can be done: an owner that may not be given, or that has no id here.
fn is_refused(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::INVAL | Errno::OVERFLOW)
}

impl Stated {
    /// Looks at the roots: which layers have statements. `ask_lowers` says whether lowers may have some.
    ///
    /// # Errors
    /// As listxattr(2).
    pub(super) fn learn(mode: OwnershipMode, lowers: &[OwnedFd], ask_lowers: bool) -> Result<Self> {
        let upper = match mode {
            OwnershipMode::Stated(place) => vec![place.name()],
            _ => Vec::new(),
        };
        let lowers = if ask_lowers || !upper.is_empty() {
            lowers.iter().map(names_of).collect::<Result<Vec<_>>>()?
        } else {
            Vec::new()
        };
        Ok(Self {
            none: upper.is_empty() && lowers.iter().all(Vec::is_empty),
            mode,
            upper,
            lowers,
            changing: Mutex::new(()),
        })
    }

    /// Has the upper's root state its owner and mode, if it does not yet: by it others know that the layer has
    /// statements.
    ///
    /// # Errors
    /// As setxattr(2): EPERM or EOPNOTSUPP where such an attribute cannot be had.
    pub(super) fn begin(&self, upper: &OwnedFd) -> Result<()> {
        let OwnershipMode::Stated(place) = self.mode else {
            return Ok(());
        };
        let target = xattr::of(upper);
        if read(target, &self.upper)?.is_some() {
            return Ok(());
        }
        let stat = stat::stat_fd(upper)?;
        xattr::set(target, place.name(), Statement::from(&stat).text().as_bytes(), 0)
    }

    /// True if the upper states owners and modes.
    pub(super) fn in_upper(&self) -> bool {
        matches!(self.mode, OwnershipMode::Stated(_))
    }

    /// True for the name of a statement, where there are any: it is neither shown, nor set or copied as an attribute.
    pub(super) fn hides(&self, name: &[u8]) -> bool {
        !self.none && statement::NAMES.contains(&name)
    }

    /// True for an attribute that copies do not take along: a statement; and an ACL, which is a part of the real mode,
    /// where the mode is stated.
    pub(super) fn leaves_behind(&self, name: &[u8]) -> bool {
        self.hides(name) || self.in_upper() && name.starts_with(b"system.posix_acl_")
    }

    fn names(&self, layer: Layer) -> &[&'static [u8]] {
        match layer {
            Layer::Upper => &self.upper,
            Layer::Lower(layer) => self
                .lowers
                .get(usize::from(layer))
                .map(Vec::as_slice)
                .unwrap_or_default(),
        }
    }
}

impl Overlay {
    /// The attributes of a real object, with owner and mode as stated.
    ///
    /// # Errors
    /// As getxattr(2).
    #[inline]
    pub(super) fn told(&self, layer: Layer, target: Target<'_>, stat: Stat) -> Result<Stat> {
        if self.stated.none {
            return Ok(stat);
        }
        self.told_by(layer, target, stat)
    }

    /// As [`Overlay::told`], for a name in a directory.
    ///
    /// # Errors
    /// As openat2(2) and getxattr(2).
    #[inline]
    pub(super) fn told_at(
        &self,
        layer: Layer,
        parent: &Arc<Node>,
        name: &[u8],
        mut stat: Box<Stat>,
    ) -> Result<Box<Stat>> {
        if !self.stated.none {
            let dir = self.dirs.get(parent, layer)?;
            *stat = self.told_by(layer, Target::At(dir.as_fd(), name), *stat)?;
        }
        Ok(stat)
    }

    /// As [`Overlay::told`], for an open file of the node.
    ///
    /// # Errors
    /// As getxattr(2).
    pub(super) fn told_open(&self, node: &Node, on_lower: bool, file: impl AsFd, stat: Stat) -> Result<Stat> {
        if self.stated.none {
            return Ok(stat);
        }
        let layer = match (on_lower, &node.state().lower) {
            (false, _) => Layer::Upper,
            (true, Some(Lower::Object { parts, .. })) => Layer::Lower(parts.first()),
            // Copied up meanwhile: whoever asks will see.
            (true, _) => return Ok(stat),
        };
        self.told_by(layer, Target::Fd(file.as_fd()), stat)
    }

    fn told_by(&self, layer: Layer, target: Target<'_>, stat: Stat) -> Result<Stat> {
        let names = self.stated.names(layer);
        if names.is_empty() || !is_stated(stat.kind()) {
            return Ok(stat);
        }
        Ok(match read(target, names)? {
            Some(Statement { uid, gid, mode }) => Stat {
                uid,
                gid,
                mode: stat.kind() | mode,
                ..stat
            },
            None => stat,
        })
    }

    /// As [`Overlay::told`], for an open object of the upper.
    ///
    /// # Errors
    /// As statx(2) and getxattr(2).
    pub(super) fn upper_stat(&self, fd: impl AsFd) -> Result<Stat> {
        let stat = stat::stat_fd(&fd)?;
        self.told(Layer::Upper, Target::Fd(fd.as_fd()), stat)
    }

    /// Gives an object of the upper another owner or group, as chown(2) does: setuid bits and capabilities go.
    ///
    /// # Errors
    /// As chown(2) or setxattr(2).
    pub(super) fn set_owner(&self, fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        match self.stated.mode {
            OwnershipMode::Real => at::chown_fd(fd, uid, gid),
            OwnershipMode::Indifferent => match at::chown_fd(fd, uid, gid) {
                Err(errno) if is_refused(errno) => Ok(()),
                done => done,
            },
            OwnershipMode::Stated(_) => {
                let _changing = self.stated.changing.lock();
                let stat = self.upper_stat(&fd)?;
                if !stat.is_dir() {
                    match xattr::remove(Target::Fd(fd.as_fd()), CAPABILITY) {
                        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                let stated = Statement {
                    uid: uid.unwrap_or(stat.uid),
                    gid: gid.unwrap_or(stat.gid),
                    mode: after_chown(&stat),
                };
                self.state(fd, stat.kind(), stated)
            }
        }
    }

    /// Gives an object of the upper another mode.
    ///
    /// # Errors
    /// As chmod(2) or setxattr(2).
    pub(super) fn set_mode(&self, fd: impl AsFd, mode: u32) -> Result<()> {
        if !self.stated.in_upper() {
            return at::chmod_fd(fd, mode);
        }
        let _changing = self.stated.changing.lock();
        let stat = self.upper_stat(&fd)?;
        let stated = Statement {
            mode: mode & at::PERMISSION_BITS,
            ..Statement::from(&stat)
        };
        self.state(fd, stat.kind(), stated)
    }

    /// States owner and mode of an object of the upper; gives them for real where they cannot be stated, as far as
    /// that is allowed.
    ///
    /// # Errors
    /// As setxattr(2).
    pub(super) fn state(&self, fd: impl AsFd, kind: u32, stated: Statement) -> Result<()> {
        let OwnershipMode::Stated(place) = self.stated.mode else {
            return Ok(());
        };
        if is_stated(kind) {
            return xattr::set(Target::Fd(fd.as_fd()), place.name(), stated.text().as_bytes(), 0);
        }
        let given = at::chown_fd(&fd, Some(stated.uid), Some(stated.gid)).and_then(|()| {
            if kind == libc::S_IFLNK {
                Ok(())
            } else {
                at::chmod_fd(&fd, stated.mode)
            }
        });
        match given {
            Err(errno) if is_refused(errno) => Ok(()),
            done => done,
        }
    }

    /// How a new object in the upper directory `parent` is born.
    ///
    /// # Errors
    /// As statx(2) and getxattr(2).
    pub(super) fn birth_right(
        &self,
        parent: &OwnedFd,
        what: &NewObject<'_>,
        permissions: u32,
        caller: &Caller,
    ) -> Result<BirthRight> {
        if !self.stated.in_upper() {
            return Ok(BirthRight {
                ids: caller.ids,
                umask: caller.umask,
                permissions,
                statement: None,
            });
        }
        // What the real file system does elsewhere, and there is no default ACL (K80).
        let parent = self.upper_stat(parent)?;
        let inherits = parent.mode & libc::S_ISGID != 0;
        let is_dir = matches!(what, NewObject::Dir);
        let mode = permissions & !caller.umask | if inherits && is_dir { libc::S_ISGID } else { 0 };
        let real = match what {
            NewObject::File(_) | NewObject::Dir => OPEN,
            NewObject::Special(libc::S_IFREG, _) => OPEN,
            NewObject::Special(..) | NewObject::Symlink(_) => mode,
        };
        Ok(BirthRight {
            ids: creds::own(),
            umask: 0,
            permissions: real,
            statement: Some(Statement {
                uid: caller.ids.uid,
                gid: if inherits { parent.gid } else { caller.ids.gid },
                mode,
            }),
        })
    }

    /// Gives a copy, whose own attributes are `now`, the owner of the original; where owners are stated that comes with
    /// the mode.
    ///
    /// # Errors
    /// As chown(2).
    pub(super) fn copy_owner(&self, fd: &OwnedFd, now: &Stat, stat: &Stat) -> Result<()> {
        if self.stated.in_upper() || (now.uid, now.gid) == (stat.uid, stat.gid) {
            return Ok(());
        }
        self.set_owner(fd, Some(stat.uid), Some(stat.gid))
    }

    /// Gives a copy the mode of the original.
    ///
    /// # Errors
    /// As chmod(2) or setxattr(2).
    pub(super) fn copy_mode(&self, fd: &OwnedFd, stat: &Stat) -> Result<()> {
        if self.stated.in_upper() {
            if is_stated(stat.kind()) {
                at::chmod_fd(fd, OPEN)?;
            }
            return self.state(fd, stat.kind(), Statement::from(stat));
        }
        if stat.kind() == libc::S_IFLNK {
            return Ok(());
        }
        at::chmod_fd(fd, stat.mode & at::PERMISSION_BITS)
    }

    /// True if setuid bits of the upper's files are not known to their file system, which then cannot drop them (K103).
    pub fn states_modes(&self) -> bool {
        self.stated.in_upper()
    }
}
