//! Everything that is looked at before anything is mounted. What passes comes out as open, locked directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, StatVfsMountFlags, flock, fstatfs, fstatvfs, open, openat,
};

use super::clones;
use super::error::{MountError, Role};
use super::helper;
use super::in_use;
use super::layer::StoredLayer;
use super::mountinfo::{self, MountEntry};
use super::place::{Climbs, Place};
use super::registry;
use crate::sys::{Errno, fusedev};

/// Which directories make the view.
#[derive(Debug, Clone)]
pub struct Directories {
    /// The read-only layers, the topmost first.
    pub lowers: Vec<PathBuf>,
    /// Upper and work; `None` for a view that is read-only for want of them.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Where to mount.
    pub merged: PathBuf,
}

/// Directories that may become a view: open, told apart, locked.
#[derive(Debug)]
pub struct Checked {
    /// The read-only layers, private read-only clones of their mounts where those may be made.
    pub lowers: Vec<OwnedFd>,
    /// Clones that several lowers share, to be kept as long as these.
    pub clones: Vec<OwnedFd>,
    /// What is known of the lowers that are trees of image layers, and the hold on them.
    pub layers: Vec<StoredLayer>,
    /// Upper and work, both locked for as long as the descriptors (or copies of them) live.
    pub upper: Option<(OwnedFd, OwnedFd)>,
    /// What is to be mounted over.
    pub merged: OwnedFd,
    /// The connection to the kernel.
    pub fuse: OwnedFd,
    /// The kernel's own paths of the directories.
    pub paths: Directories,
    /// `fusermount3`, when this process may not mount by itself.
    pub helper: Option<PathBuf>,
}

/// Opens a directory, following symlinks as the kernel does.
fn open_dir(role: Role, path: &Path) -> Result<OwnedFd, MountError> {
    // A lock needs a descriptor that could be read from, O_PATH is not enough.
    let how = if matches!(role, Role::Upper | Role::Work) {
        OFlags::RDONLY
    } else {
        OFlags::PATH
    };
    open_as(how, role, path)
}

fn open_as(how: OFlags, role: Role, path: &Path) -> Result<OwnedFd, MountError> {
    open(path, how | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTCONN | Errno::CONNABORTED => MountError::DeadMount {
            role,
            path: path.to_owned(),
        },
        errno => MountError::Open {
            role,
            path: path.to_owned(),
            errno,
        },
    })
}

/// Checks the directories, the device and the way to mount; locks upper and work.
///
/// `overlapping` lets a lower be there twice, or lie in another one, which the kernel refuses (K4).
///
/// # Errors
/// The first thing that stands against the mount.
pub fn check(wanted: &Directories, read_only: bool, overlapping: bool) -> Result<Checked, MountError> {
    let mut lowers = Vec::with_capacity(wanted.lowers.len());
    for path in &wanted.lowers {
        lowers.push(open_dir(Role::Lower, path)?);
    }
    let upper = match &wanted.upper {
        Some((upper, work)) => Some((open_dir(Role::Upper, upper)?, open_dir(Role::Work, work)?)),
        None => None,
    };
    let merged = open_dir(Role::Merged, &wanted.merged)?;

    let mounts =
        mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
    let identify = |role: Role, path: &Path, dir: &OwnedFd| {
        Place::of(dir.as_fd(), &mounts).map_err(|errno| match errno {
            Errno::NOTCONN | Errno::CONNABORTED => MountError::DeadMount {
                role,
                path: path.to_owned(),
            },
            errno => MountError::Open {
                role,
                path: path.to_owned(),
                errno,
            },
        })
    };
    let mut lower_places = Vec::with_capacity(lowers.len());
    for (path, lower) in wanted.lowers.iter().zip(&lowers) {
        lower_places.push(identify(Role::Lower, path, lower)?);
    }
    if !overlapping {
        check_lowers(&lower_places, &lowers)?;
    }
    let merged_place = identify(Role::Merged, &wanted.merged, &merged)?;
    let mut paths = Directories {
        lowers: lower_places.iter().map(|place| place.path.clone()).collect(),
        upper: None,
        merged: merged_place.path.clone(),
    };
    if let (Some((upper, work)), Some((upper_path, work_path))) = (&upper, &wanted.upper) {
        let upper_place = identify(Role::Upper, upper_path, upper)?;
        let work_place = identify(Role::Work, work_path, work)?;
        let mut written = Written::new(&upper_place, &work_place);
        written.check_pair(upper.as_fd(), work.as_fd())?;
        for (place, lower) in lower_places.iter().zip(&lowers) {
            written.check_lower(place, lower.as_fd())?;
        }
        for (role, place) in [(Role::Upper, &upper_place), (Role::Work, &work_place)] {
            if merged_place.is(place) {
                return Err(MountError::MergedIsLayer {
                    merged: merged_place.path,
                    role,
                });
            }
        }
        check_upper_file_system(&upper_place, upper.as_fd(), read_only)?;
        lock(Role::Upper, &upper_place.path, upper.as_fd())?;
        lock(Role::Work, &work_place.path, work.as_fd())?;
        paths.upper = Some((upper_place.path, work_place.path));
    }

    let mut layers = Vec::new();
    for ((lower, path), place) in lowers.iter().zip(&wanted.lowers).zip(&lower_places) {
        if StoredLayer::may_be(&place.path) {
            layers.extend(StoredLayer::find(lower.as_fd(), path)?);
        }
    }
    let fuse = fusedev::open_device().map_err(|errno| MountError::Device { errno })?;
    let helper = match fusedev::may_mount() {
        Ok(()) => None,
        Err(Errno::PERM) => Some(helper::find().ok_or(MountError::NoHelper)?),
        Err(errno) => return Err(MountError::Device { errno }),
    };
    let clones = clones::replace(&mut lowers, &lower_places);
    Ok(Checked {
        lowers,
        clones,
        layers,
        upper,
        merged,
        fuse,
        paths,
        helper,
    })
}

/// The layers of a view that is not mounted: open, told apart, locked.
#[derive(Debug)]
pub struct Idle {
    /// The lower, open for reading.
    pub lower: OwnedFd,
    /// The upper, locked as long as this lives.
    pub upper: OwnedFd,
    /// The work directory, locked as well.
    pub work: OwnedFd,
    /// The kernel's own paths of lower, upper and work.
    pub paths: [PathBuf; 3],
    /// The lower is the tree of an image layer.
    pub layer: Option<StoredLayer>,
    /// Lower and work lie on one mount, so that objects can be renamed from one to the other.
    pub one_mount: bool,
}

/// Opens and locks the layers of a view that is not mounted, for work on them without a mount.
///
/// # Errors
/// As [`check`] for these three; [`MountError::InUse`] also for a lower that a live view shows.
pub fn check_idle(lower: &Path, upper: &Path, work: &Path) -> Result<Idle, MountError> {
    let open = |role, path| open_as(OFlags::RDONLY, role, path);
    let (below, above, beside) = (
        open(Role::Lower, lower)?,
        open(Role::Upper, upper)?,
        open(Role::Work, work)?,
    );
    let mounts =
        mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
    let place = |role, path: &Path, dir: &OwnedFd| {
        Place::of(dir.as_fd(), &mounts).map_err(|errno| MountError::Open {
            role,
            path: path.to_owned(),
            errno,
        })
    };
    let lower_place = place(Role::Lower, lower, &below)?;
    let upper_place = place(Role::Upper, upper, &above)?;
    let work_place = place(Role::Work, work, &beside)?;
    let mut written = Written::new(&upper_place, &work_place);
    written.check_pair(above.as_fd(), beside.as_fd())?;
    written.check_lower(&lower_place, below.as_fd())?;
    lock(Role::Upper, &upper_place.path, above.as_fd())?;
    lock(Role::Work, &work_place.path, beside.as_fd())?;
    in_use::check(&mounts, [&lower_place.path, &upper_place.path, &work_place.path])?;
    let layer = StoredLayer::find(below.as_fd(), lower)?;
    Ok(Idle {
        one_mount: lower_place.mount == work_place.mount,
        lower: below,
        upper: above,
        work: beside,
        paths: [lower_place.path, upper_place.path, work_place.path],
        layer,
    })
}

/// What is written to, while it is looked where it lies.
struct Written<'a> {
    upper: &'a Place,
    work: &'a Place,
    climbs: Climbs<'a>,
}

impl<'a> Written<'a> {
    fn new(upper: &'a Place, work: &'a Place) -> Self {
        Self {
            upper,
            work,
            climbs: Climbs::to([upper, work]),
        }
    }

    /// K3: separate directories on one mount.
    fn check_pair(&mut self, upper: BorrowedFd<'_>, work: BorrowedFd<'_>) -> Result<(), MountError> {
        let nested = |inner_role, inner: &Place, outer_role, outer: &Place| MountError::Nested {
            inner_role,
            inner: inner.path.clone(),
            outer_role,
            outer: outer.path.clone(),
            same: inner.is(outer),
        };
        let found = self.climbs.from(self.work, work, Some(1));
        if found.map_err(on_the_way(Role::Work, self.work))?.is_some() {
            return Err(nested(Role::Work, self.work, Role::Upper, self.upper));
        }
        let found = self.climbs.from(self.upper, upper, Some(0));
        if found.map_err(on_the_way(Role::Upper, self.upper))?.is_some() {
            return Err(nested(Role::Upper, self.upper, Role::Work, self.work));
        }
        if self.upper.mount != self.work.mount {
            return Err(MountError::DifferentMounts {
                upper: self.upper.path.clone(),
                work: self.work.path.clone(),
            });
        }
        Ok(())
    }

    /// K4: the lower is not a part of what is written to.
    fn check_lower(&mut self, lower: &Place, dir: BorrowedFd<'_>) -> Result<(), MountError> {
        let found = self.climbs.from(lower, dir, None);
        let Some(other) = found.map_err(on_the_way(Role::Lower, lower))? else {
            return Ok(());
        };
        Err(MountError::LowerInside {
            lower: lower.path.clone(),
            role: if other.is(self.upper) {
                Role::Upper
            } else {
                Role::Work
            },
            other: other.path.clone(),
            same: lower.is(other),
        })
    }
}

/// K4: no lower is there twice, and none lies in another one.
fn check_lowers(places: &[Place], lowers: &[OwnedFd]) -> Result<(), MountError> {
    if let [_] = places {
        return Ok(());
    }
    let mut climbs = Climbs::to(places);
    for (index, (place, lower)) in places.iter().zip(lowers).enumerate() {
        let found = climbs.from(place, lower.as_fd(), Some(index));
        if let Some(outer) = found.map_err(on_the_way(Role::Lower, place))? {
            return Err(MountError::Nested {
                inner_role: Role::Lower,
                inner: place.path.clone(),
                outer_role: Role::Lower,
                outer: outer.path.clone(),
                same: place.is(outer),
            });
        }
    }
    Ok(())
}

/// Says that the way up from a directory could not be gone.
fn on_the_way(role: Role, place: &Place) -> impl FnOnce(Errno) -> MountError + '_ {
    move |errno| MountError::Open {
        role,
        path: place.path.clone(),
        errno,
    }
}

/// K5, by what statfs(2) and the mount table say of the upper's file system.
///
/// # Errors
/// [`MountError::UnsuitableUpper`] for a merged view, a network file system, and a mount that is not to be written to.
pub fn check_upper_file_system(
    upper: &Place,
    dir: BorrowedFd<'_>,
    read_only: bool,
) -> Result<(), MountError> {
    const OVERLAY: u32 = 0x794c_7630;
    const NETWORK: &[(u32, &str)] = &[
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x517b, "SMB"),
        (0x5346_414f, "AFS"),
        (0x6b41_4653, "AFS"),
        (0x00c3_6400, "Ceph"),
        (0x0102_1997, "9p"),
        (0x7375_7245, "Coda"),
        (0x0bd0_0bd0, "Lustre"),
        (0x0116_1970, "GFS2"),
        (0x7461_636f, "OCFS2"),
    ];
    let refuse = |kind: &str, why| {
        Err(MountError::UnsuitableUpper {
            path: upper.path.clone(),
            kind: kind.to_owned(),
            why,
        })
    };
    let io = |errno| MountError::Open {
        role: Role::Upper,
        path: upper.path.clone(),
        errno,
    };
    // The field is as wide as a register and sign-extended on some systems; the number has 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = fstatfs(dir).map_err(io)?.f_type as u32;
    let kind = upper.kind.as_deref().unwrap_or_default();
    if magic == OVERLAY
        || matches!(
            kind,
            mountinfo::KIND | "fuse.fuse-overlayfs" | "fuse.unionfs" | "fuse.mergerfs"
        )
    {
        return refuse(
            if kind.is_empty() { "overlay" } else { kind },
            "it is itself a merged view",
        );
    }
    if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == magic) {
        return refuse(name, "it is a network file system, whose content others change");
    }
    if kind == "fuse.sshfs" {
        return refuse(kind, "it is a network file system, whose content others change");
    }
    if !read_only
        && fstatvfs(dir)
            .map_err(io)?
            .f_flag
            .contains(StatVfsMountFlags::RDONLY)
    {
        return refuse(
            "a read-only mount",
            "changes have to be written to it (or mount the view read-only)",
        );
    }
    Ok(())
}

/// How long a server that is on its way out may hold its layers.
const LEAVING: Duration = Duration::from_secs(5);

/// K6: the lock lies on the open directory, so it ends with the server that holds it, however that ends.
fn lock(role: Role, path: &Path, dir: BorrowedFd<'_>) -> Result<(), MountError> {
    let start = Instant::now();
    loop {
        match flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => {
                let path = path.to_owned();
                return Err(MountError::Open { role, path, errno });
            }
        }
        // An unmounted view's server still brings the upper to disk; it will be gone in a moment.
        let user = registry::user_of(path);
        let live = user.as_ref().is_some_and(|entry| is_live(&entry.merged.path()));
        if !live && start.elapsed() < LEAVING {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let by = user.map_or_else(String::new, |entry| {
            format!(
                ", mounted on {} by process {}",
                entry.merged.path().display(),
                entry.pid
            )
        });
        let path = path.to_owned();
        return Err(MountError::InUse { role, path, by });
    }
}

fn is_live(merged: &Path) -> bool {
    mountinfo::read().is_ok_and(|mounts| mounted_at(&mounts, merged).is_some())
}

/// Makes `name` below `parent` if it is missing and opens it, taking nothing but a directory.
///
/// # Errors
/// What mkdirat(2) or openat(2) say.
pub(super) fn make_dir(parent: BorrowedFd<'_>, name: &std::ffi::OsStr, mode: Mode) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a directory for use as `parent`.
pub(super) fn open_parent(path: &Path) -> Result<OwnedFd, Errno> {
    openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The mount that covers `merged`, if it is one of ours.
pub(super) fn mounted_at<'a>(mounts: &'a [MountEntry], merged: &Path) -> Option<&'a MountEntry> {
    mountinfo::topmost(mounts, merged).filter(|entry| entry.kind == mountinfo::KIND)
}
