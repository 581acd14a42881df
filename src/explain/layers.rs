//! The layers of a view, opened for looking at only.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::format::Namespace;
use crate::mount::layer::StoredLayer;
use crate::mount::registry::Live;
use crate::mount::{Entry, JsonPath, MountError, control};
use crate::overlay::{FsyncMode, LayerConfig, Overlay, OwnershipMode, SetupError, UpperDirs, XattrNamespace};
use crate::sys::{Errno, fusedev, stat, xattr};

/// Why something cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A layer cannot be opened.
    #[error("{}: {errno}{remedy}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
        /// What to do, if something can be said; begins with `: `.
        remedy: &'static str,
    },
    /// A layer cannot be read at some path.
    #[error("{}: cannot be looked at in the layers: {errno}", path.display())]
    Look {
        /// The path in the view.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The path leaves the view.
    #[error("{}: leads out of the view, to {}", path.display(), to.display())]
    Outside {
        /// What was asked.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// Symlinks without end.
    #[error("{}: too many symlinks on the way (ELOOP)", path.display())]
    Loop {
        /// What was asked.
        path: PathBuf,
    },
    /// No view of this user is there.
    #[error("{}: {why}", path.display())]
    NoView {
        /// What was asked.
        path: PathBuf,
        /// What is there instead, and what to do.
        why: String,
    },
    /// The layers are not those that the server of the view has.
    #[error(
        "{}: is not the upper that the server of {} has: it was moved or replaced since; ask with --lower and --upper",
        upper.display(), merged.display()
    )]
    Replaced {
        /// What lies there now.
        upper: PathBuf,
        /// The view.
        merged: PathBuf,
    },
    /// The layers do not make a view.
    #[error("{}: {source}", lower.display())]
    Layers {
        /// The lower.
        lower: PathBuf,
        /// Why.
        source: SetupError,
    },
    /// As for a mount.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Layers by their paths.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// The read-only layer, the topmost if there are several.
    pub lower: PathBuf,
    /// Further read-only layers, each below the former.
    pub below: Vec<PathBuf>,
    /// The writable layer; without one the view is the lower, read-only.
    pub upper: Option<PathBuf>,
    /// The work directory, if there is one already; it only must not show through the lower (K4).
    pub work: Option<PathBuf>,
    /// Where the private marks are; `None` finds out as a mount by this user would.
    pub marks: Option<Namespace>,
    /// The view refuses every change.
    pub read_only: bool,
    /// Marks of other tools in the lowers count.
    pub foreign: bool,
}

/// The layers of a view, open for looking at only.
#[derive(Debug)]
pub struct Layers {
    pub(super) overlay: Overlay,
    /// The topmost first.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: Option<PathBuf>,
    pub(super) merged: Option<PathBuf>,
    pub(super) read_only: bool,
}

impl Layers {
    /// Opens layers, as a mount would see them. Nothing is written, and a live mount of them is not disturbed.
    ///
    /// # Errors
    /// When a layer cannot be opened or read.
    pub fn open(named: &Named) -> Result<Self, ExplainError> {
        let paths: Vec<PathBuf> = std::iter::once(&named.lower)
            .chain(&named.below)
            .cloned()
            .collect();
        let mut lowers = Vec::with_capacity(paths.len());
        let mut names = None;
        for path in &paths {
            let lower = open(path)?;
            names = StoredLayer::find(lower.as_fd(), path)?.and_then(|layer| layer.names);
            // What the server sees, where it may: without what is mounted below the lower (K28).
            lowers.push(fusedev::clone_read_only(lower.as_fd()).unwrap_or(lower));
        }
        let mut marks = named.marks;
        let mut upper = None;
        if let Some(path) = &named.upper {
            let dir = open(path)?;
            if marks.is_none() {
                marks = Some(usual_marks(&dir).map_err(opening(path))?);
            }
            let work = match &named.work {
                Some(work) => open(work)?,
                None => dir.try_clone().map_err(|error| ExplainError::Open {
                    path: path.clone(),
                    errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
                    remedy: "",
                })?,
            };
            upper = Some(UpperDirs { upper: dir, work });
        }
        let config = LayerConfig {
            lowers,
            names,
            foreign: named.foreign,
            upper,
            xattr: XattrNamespace::Auto,
            fsync: FsyncMode::Auto,
            ownership: OwnershipMode::Real,
        };
        let marks = marks.unwrap_or(Namespace::Trusted);
        let overlay = Overlay::for_looking(config, marks).map_err(|source| ExplainError::Layers {
            lower: named.lower.clone(),
            source,
        })?;
        Ok(Self {
            overlay,
            lowers: paths,
            upper: named.upper.clone(),
            merged: None,
            read_only: named.read_only || named.upper.is_none(),
        })
    }

    /// Opens the layers of a mount that has ended, as its entry in the list named them.
    ///
    /// # Errors
    /// As [`Layers::open`].
    pub fn of_entry(entry: &Entry) -> Result<Self, ExplainError> {
        Self::open(&Named {
            lower: entry.lower.path(),
            below: entry.below.iter().map(JsonPath::path).collect(),
            upper: entry.upper.as_ref().map(JsonPath::path),
            work: entry.work.as_ref().map(JsonPath::path),
            marks: None,
            read_only: entry.read_only,
            foreign: entry.foreign,
        })
    }

    /// Opens the layers of a live mount.
    ///
    /// # Errors
    /// As [`Layers::open`]; when the server does not answer, or has other layers than lie there now.
    pub fn of_live(live: &Live) -> Result<Self, ExplainError> {
        let merged = live.entry.merged.path();
        let marks = control::marks(&live.socket).map_err(|error| ExplainError::NoView {
            path: merged.clone(),
            why: format!("the server, process {}, does not answer: {error}", live.entry.pid),
        })?;
        let upper = live.entry.upper.as_ref().map(JsonPath::path);
        let mut layers = Self::open(&Named {
            lower: live.entry.lower.path(),
            below: live.entry.below.iter().map(JsonPath::path).collect(),
            upper: upper.clone(),
            work: live.entry.work.as_ref().map(JsonPath::path),
            marks: Some(marks),
            read_only: live.entry.read_only,
            foreign: live.entry.foreign,
        })?;
        // The root of the view shows the number of the upper's.
        if let Some(upper) = upper {
            let shown = std::fs::symlink_metadata(&merged).map(|found| {
                use std::os::unix::fs::MetadataExt;
                found.ino()
            });
            let real = open(&upper).and_then(|dir| stat::stat_fd(&dir).map_err(opening(&upper)))?;
            if shown.is_ok_and(|number| number != real.ino) {
                return Err(ExplainError::Replaced { upper, merged });
            }
        }
        layers.merged = Some(merged);
        Ok(layers)
    }
}

fn opening(path: &Path) -> impl FnOnce(Errno) -> ExplainError {
    move |errno| ExplainError::Open {
        path: path.to_owned(),
        errno,
        remedy: match errno {
            Errno::ACCESS => ": only who may read the layers can explain them",
            _ => "",
        },
    }
}

fn open(path: &Path) -> Result<OwnedFd, ExplainError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(opening(path))
}

/// Where a mount by this user would keep its marks, without trying to write one: an upper that was in use tells by
/// those on its root, else it is a question of privilege.
fn usual_marks(upper: &OwnedFd) -> Result<Namespace, Errno> {
    let list = xattr::list(xattr::of(upper))?;
    let has = |space: Namespace| xattr::names(&list).any(|name| name.starts_with(space.prefix()));
    let privileged = crate::mount::who::is_true_root();
    Ok(match (has(Namespace::Trusted), has(Namespace::User)) {
        (true, _) => Namespace::Trusted,
        (false, true) => Namespace::User,
        (false, false) if privileged => Namespace::Trusted,
        (false, false) => Namespace::User,
    })
}
