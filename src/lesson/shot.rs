//! A look at one directory: everything in it, read by descriptors, nothing followed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::model::{Entry, Sort, Tree, readable};
use crate::builder::manifest::Text;
use crate::builder::{BuildError, Kind, TreePath, Walk};
use crate::format::{Namespace, OriginReader};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, at, io};

/// Files longer than this are shown by their size.
const LONGEST_TEXT: u64 = 160;
/// A tree with more entries than this is not for looking at.
pub const MOST_ENTRIES: usize = 20_000;

/// A tree as it was found, with what is needed to tell two of them apart.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The tree, without any changes marked.
    pub tree: Tree,
    /// For each entry: the number of the lower object it was copied from, by its origin mark.
    pub origins: Vec<Option<u64>>,
    /// The file system's device number.
    pub device: u64,
}

/// How a tree is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its letter.
    pub label: &'a str,
    /// Its role.
    pub role: &'a str,
    /// Reads origin marks, where the tree has those of a known lower.
    pub origins: Option<&'a OriginReader>,
    /// The directories to go into, by their paths; all of them where there is no such list.
    pub opened: Option<&'a BTreeSet<Vec<u8>>>,
    /// Whether small text files are read.
    pub contents: bool,
}

impl<'a> View<'a> {
    /// A look at all of a tree, without reading origin marks.
    #[must_use]
    pub fn new(label: &'a str, role: &'a str) -> Self {
        Self {
            label,
            role,
            origins: None,
            opened: None,
            contents: true,
        }
    }
}

impl View<'_> {
    /// Nothing to look at, and why.
    #[must_use]
    pub fn absent(&self, why: &str) -> Shot {
        Shot {
            tree: Tree {
                label: self.label.to_owned(),
                role: self.role.to_owned(),
                absent: Some(why.to_owned()),
                entries: Vec::new(),
            },
            origins: Vec::new(),
            device: 0,
        }
    }

    /// Everything below `path`.
    ///
    /// # Errors
    /// What cannot be read, and why; EFBIG for more than [`MOST_ENTRIES`] objects.
    pub fn look(&self, path: &Path) -> Result<Shot, BuildError> {
        let failed = |errno| BuildError::Call {
            what: "open",
            path: TreePath::root(),
            errno,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        let mut shot = self.absent("");
        shot.tree.absent = None;
        shot.device = stat::stat_fd(&root).map_err(failed)?.dev;
        let mut walk = Walk::new(root.as_fd())?;
        while let Some(step) = walk.advance()? {
            let (path, is_directory) = (step.path(), step.kind == Kind::Directory);
            let enter = is_directory && self.opened.is_none_or(|opened| opened.contains(path.as_bytes()));
            let (mut entry, origin) =
                self.read(step.dir, step.name, &path)
                    .map_err(|errno| BuildError::Call {
                        what: "read",
                        path: path.clone(),
                        errno,
                    })?;
            if is_directory && !enter {
                entry.text = Some("…".to_owned());
            }
            shot.tree.entries.push(entry);
            shot.origins.push(origin);
            if shot.tree.entries.len() > MOST_ENTRIES {
                return Err(BuildError::Call {
                    what: "show all of",
                    path: TreePath::root(),
                    errno: Errno::FBIG,
                });
            }
            if enter {
                walk.enter()?;
            }
        }
        Ok(shot)
    }

    fn read(&self, dir: BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<(Entry, Option<u64>), Errno> {
        let stat = stat::stat_at(dir, name)?;
        let (marks, origin) = self.marks(Target::At(dir, name))?;
        let entry = Entry {
            path: Text(path.as_bytes().to_vec()),
            sort: sort(&stat),
            mode: stat.mode & at::PERMISSION_BITS,
            size: stat.size,
            inode: stat.ino,
            links: stat.nlink,
            modified: i128::from(stat.mtime.secs) * 1_000_000_000 + i128::from(stat.mtime.nanos),
            text: self.text(dir, name, &stat)?,
            marks,
            answers: None,
            hidden: false,
            change: None,
        };
        Ok((entry, origin))
    }

    /// What is in a small file, if it is text.
    fn text(&self, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<Option<String>, Errno> {
        if stat.kind() == libc::S_IFLNK {
            return at::readlink_at(dir, name).map(|target| Some(readable(&target)));
        }
        if !self.contents || !stat.is_file() || stat.size > LONGEST_TEXT {
            return Ok(None);
        }
        let file = match at::open_data(dir, name) {
            // An ordinary user's lesson goes on without it.
            Err(Errno::ACCESS) => return Ok(None),
            file => file?,
        };
        let mut bytes = vec![0; usize::try_from(LONGEST_TEXT).unwrap_or_default()];
        let read = io::read_at(&file, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(String::from_utf8(bytes)
            .ok()
            .filter(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t'))))
    }

    /// The private marks in either namespace.
    fn marks(&self, target: Target<'_>) -> Result<(Vec<String>, Option<u64>), Errno> {
        let names = match xattr::list(target) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            names => names?,
        };
        let mut marks = Vec::new();
        let mut origin = None;
        for namespace in [Namespace::Trusted, Namespace::User] {
            for name in xattr::names(&names) {
                let Some(mark) = name.strip_prefix(namespace.prefix()) else {
                    continue;
                };
                // An opaque mark with another value than `y` has no effect (K23).
                if mark == b"opaque" && !namespace.read(target)?.opaque {
                    continue;
                }
                if mark == b"origin"
                    && let (Some(reader), Some(value)) = (self.origins, namespace.read_origin(target)?)
                {
                    origin = reader.number(&value);
                }
                marks.push(readable(mark));
            }
        }
        marks.sort();
        Ok((marks, origin))
    }
}

fn sort(stat: &Stat) -> Sort {
    match stat.kind() {
        libc::S_IFDIR => Sort::Directory,
        libc::S_IFREG => Sort::File,
        libc::S_IFLNK => Sort::Symlink,
        _ if stat.is_whiteout() => Sort::Whiteout,
        _ => Sort::Special,
    }
}
