//! One of the two views that are compared: a plain tree, or a writable layer over a lower tree.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::walk::call;
use super::{Names, Upper};
use crate::builder::walk::{Listing, has_true_numbers};
use crate::builder::{BuildError, Kind, Meta, Result, TreePath, Xattr};
use crate::format::{Marks, Namespace};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, at};

/// Both views, at the root.
pub struct Views<'a> {
    /// Before.
    pub(super) old: Side,
    /// After.
    pub(super) new: Side,
    /// How to read them.
    pub(super) rules: Rules<'a>,
}

/// How both views are read.
pub(super) struct Rules<'a> {
    /// The namespaces of overlay marks that mean something; none for plain trees.
    namespaces: Vec<Namespace>,
    /// How many names an inode of the lower has in its tree.
    names: Option<&'a Names<'a>>,
    /// The device of two plain trees in which a listing tells which names are the same inode.
    pub(super) one_device: Option<u64>,
}

/// One directory of a view: the layers that take part in it.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// The writable layer's directory.
    pub(super) top: Option<OwnedFd>,
    /// The lower's directory, or that of a plain tree.
    pub(super) base: Option<OwnedFd>,
}

/// Which layer an object is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// The writable one.
    Top,
    /// The lower, or the plain tree.
    Base,
}

/// An object and how it is reached.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// What was found.
    pub(super) found: &'a Found,
    /// A name in a directory, or a root itself.
    pub(super) target: Target<'a>,
}

/// An object that a view shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Where it is.
    pub(super) layer: Layer,
    /// Its attributes.
    pub(super) stat: Stat,
    /// What it is.
    pub(super) kind: Kind,
    /// A directory of the writable layer that shows the names of the lower's directory too.
    merged: bool,
}

impl<'a> Views<'a> {
    /// Two plain trees.
    ///
    /// # Errors
    /// As dup(2).
    pub fn trees(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> Result<Self> {
        let root = |fd| -> Result<Side> {
            Ok(Side {
                top: None,
                base: Some(own(fd)?),
            })
        };
        Ok(Self {
            old: root(old)?,
            new: root(new)?,
            rules: Rules {
                namespaces: Vec::new(),
                names: None,
                one_device: one_device(old, new).map_err(call("look at", &TreePath::root()))?,
            },
        })
    }

    /// Nothing, and a tree.
    ///
    /// # Errors
    /// As dup(2).
    pub fn tree(tree: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self {
            old: Side::default(),
            ..Self::trees(tree, tree)?
        })
    }

    /// A writable layer over a lower.
    ///
    /// # Errors
    /// As dup(2) and listxattr(2).
    pub fn upper(upper: Upper<'a>) -> Result<Self> {
        let side = |top: Option<BorrowedFd<'_>>| -> Result<Side> {
            Ok(Side {
                top: top.map(own).transpose()?,
                base: Some(own(upper.lower)?),
            })
        };
        let namespaces = match upper.namespace {
            Some(namespace) => vec![namespace],
            None => tell_namespaces(upper.upper)?,
        };
        Ok(Self {
            old: side(upper.init)?,
            new: side(Some(upper.upper))?,
            rules: Rules {
                namespaces,
                names: upper.names,
                one_device: None,
            },
        })
    }
}

fn own(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let copy = at::open_path(fd, b".");
    copy.map_err(call("open", &TreePath::root()))
}

fn one_device(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> crate::sys::Result<Option<u64>> {
    let dev = stat::stat_fd(old)?.dev;
    let one = dev == stat::stat_fd(new)?.dev && has_true_numbers(old)? && has_true_numbers(new)?;
    Ok(one.then_some(dev))
}

/// A mount marks the root of its upper as soon as it copies something up. Where the marks are trusted ones, those
/// of the other namespace further down are a user's own attributes: those of an overlay inside the view. The other
/// way round says nothing, since any user may have put a `user.` attribute there.
///
/// # Errors
/// As listxattr(2).
pub fn tell_namespaces(root: BorrowedFd<'_>) -> Result<Vec<Namespace>> {
    let list = xattr::list(Target::Fd(root)).map_err(call("read the attributes of", &TreePath::root()))?;
    if xattr::names(&list).any(|name| Namespace::Trusted.is_private(name)) {
        Ok(vec![Namespace::Trusted])
    } else {
        Ok(vec![Namespace::Trusted, Namespace::User])
    }
}

impl Rules<'_> {
    /// Whether overlay marks and whiteouts mean something.
    pub(super) fn overlay(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// True where link counts stand for the number of names in the tree, though other trees may share the file.
    pub(super) fn guesses(&self) -> bool {
        self.overlay() && self.names.is_none()
    }

    /// True for an object that has, or may have, more names in its tree than this one.
    pub(super) fn linked(&self, found: &Found) -> bool {
        self.names_of(found) > 1
    }

    /// How many names an object has in its tree; at most.
    pub(super) fn names_of(&self, found: &Found) -> u32 {
        match (self.names, found.layer) {
            _ if found.kind == Kind::Directory => 1,
            (Some(names), Layer::Base) if self.overlay() => names(found.stat.ino),
            _ => found.stat.nlink,
        }
    }

    fn marks(&self, target: Target<'_>, path: &TreePath) -> Result<Marks> {
        let mut marks = Marks::default();
        for namespace in &self.namespaces {
            let more = namespace
                .read(target)
                .map_err(call("read the attributes of", path))?;
            marks.opaque |= more.opaque;
            marks.redirect |= more.redirect;
            marks.metacopy |= more.metacopy;
            marks.whiteout |= more.whiteout;
        }
        Ok(marks)
    }

    /// The attributes of an object as the view shows them.
    pub(super) fn xattrs(&self, seen: Seen<'_>, path: &TreePath) -> Result<Vec<Xattr>> {
        let mut xattrs = self.raw_meta(seen, path)?.xattrs;
        for namespace in &self.namespaces {
            xattrs.retain_mut(|attribute| {
                let shown = namespace.to_view(&attribute.name).map(Cow::into_owned);
                shown.map(|name| attribute.name = name).is_some()
            });
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// Everything about an object, with the attributes under the names that an archive has.
    ///
    /// In the trees of layers the marks of both namespaces are escaped, since a layer is data; an archive has
    /// the names without the escape.
    pub(super) fn meta(&self, seen: Seen<'_>, path: &TreePath) -> Result<Meta> {
        let mut meta = self.raw_meta(seen, path)?;
        for namespace in [Namespace::Trusted, Namespace::User] {
            let marks = self.namespaces.contains(&namespace);
            meta.xattrs.retain_mut(|attribute| {
                match namespace.to_view(&attribute.name).map(Cow::into_owned) {
                    Some(name) => {
                        attribute.name = name;
                        true
                    }
                    None => !marks,
                }
            });
        }
        meta.xattrs.sort_unstable();
        let twice = |pair: &[Xattr]| match pair {
            [a, b] if a.name == b.name => Some(a.name.escape_ascii().to_string()),
            _ => None,
        };
        match meta.xattrs.windows(2).find_map(twice) {
            None => Ok(meta),
            Some(name) => Err(BuildError::Refused {
                path: path.clone(),
                reason: format!("has the extended attribute '{name}' in both its forms; remove one"),
            }),
        }
    }

    fn raw_meta(&self, seen: Seen<'_>, path: &TreePath) -> Result<Meta> {
        Meta::read(seen.target, &seen.found.stat).map_err(call("read the attributes of", path))
    }

    /// What a view's root shows; none for the view of nothing.
    pub(super) fn root(&self, side: &Side) -> Result<Option<Found>> {
        let (layer, fd) = match (&side.top, &side.base) {
            (Some(top), _) => (Layer::Top, top),
            (None, Some(base)) => (Layer::Base, base),
            (None, None) => return Ok(None),
        };
        let stat = stat::stat_fd(fd).map_err(call("look at", &TreePath::root()))?;
        Ok(Some(Found {
            layer,
            stat,
            kind: kind(&stat, &TreePath::root())?,
            merged: side.base.is_some(),
        }))
    }

    /// What a directory of a view shows under `name`, if anything; `path` is the name's, for messages.
    pub(super) fn look(&self, side: &Side, name: &[u8], path: &TreePath) -> Result<Option<Found>> {
        if let Some(top) = &side.top
            && let Some(stat) = look_at(top, name, path)?
        {
            return self.look_top(side, top.as_fd(), stat, name, path);
        }
        let Some(base) = &side.base else {
            return Ok(None);
        };
        let Some(stat) = look_at(base, name, path)? else {
            return Ok(None);
        };
        if self.overlay()
            && (stat.is_whiteout() || self.stands_for_nothing(base.as_fd(), &stat, name, path)?)
        {
            return Ok(None);
        }
        found(Layer::Base, stat, false, path).map(Some)
    }

    fn look_top(
        &self,
        side: &Side,
        top: BorrowedFd<'_>,
        stat: Stat,
        name: &[u8],
        path: &TreePath,
    ) -> Result<Option<Found>> {
        if stat.is_whiteout() || self.stands_for_nothing(top, &stat, name, path)? {
            return Ok(None);
        }
        let mut merged = false;
        if stat.is_dir() {
            let marks = self.marks(Target::At(top, name), path)?;
            refuse_features(marks, path)?;
            if let (Some(base), false) = (&side.base, marks.opaque) {
                merged = look_at(base, name, path)?.is_some_and(|stat| stat.is_dir());
            }
        }
        found(Layer::Top, stat, merged, path).map(Some)
    }

    /// True for a regular file that is a whiteout (K31). A file whose data lies elsewhere is refused here.
    fn stands_for_nothing(
        &self,
        dir: BorrowedFd<'_>,
        stat: &Stat,
        name: &[u8],
        path: &TreePath,
    ) -> Result<bool> {
        if !stat.is_file() {
            return Ok(false);
        }
        let marks = self.marks(Target::At(dir, name), path)?;
        if marks.whiteout && stat.size == 0 {
            return Ok(true);
        }
        refuse_features(marks, path)?;
        Ok(false)
    }

    /// The directory `name` of a view, found there before.
    pub(super) fn enter(&self, side: &Side, name: &[u8], found: &Found, path: &TreePath) -> Result<Side> {
        let open = |dir: &Option<OwnedFd>| -> Result<Option<OwnedFd>> {
            let Some(dir) = dir else { return Ok(None) };
            let open = at::open_dir_path(dir, name);
            open.map(Some).map_err(|errno| match errno {
                Errno::XDEV => BuildError::Refused {
                    path: path.clone(),
                    reason:
                        "something is mounted here, and what it hides cannot be compared; unmount it first"
                            .to_owned(),
                },
                errno => call("open", path)(errno),
            })
        };
        Ok(match found.layer {
            Layer::Top => Side {
                top: open(&side.top)?,
                base: if found.merged { open(&side.base)? } else { None },
            },
            Layer::Base => Side {
                top: None,
                base: open(&side.base)?,
            },
        })
    }
}

impl Side {
    fn dir(&self, layer: Layer) -> Option<&OwnedFd> {
        match layer {
            Layer::Top => self.top.as_ref(),
            Layer::Base => self.base.as_ref(),
        }
    }

    /// An object found under `name`.
    pub(super) fn seen<'a>(&'a self, name: &'a [u8], found: &'a Found) -> Option<Seen<'a>> {
        let target = Target::At(self.dir(found.layer)?.as_fd(), name);
        Some(Seen { found, target })
    }

    /// The directory itself.
    pub(super) fn root<'a>(&'a self, found: &'a Found) -> Option<Seen<'a>> {
        let target = Target::Fd(self.dir(found.layer)?.as_fd());
        Some(Seen { found, target })
    }

    /// The same directory, opened once more.
    pub(super) fn copy(&self) -> Result<Self> {
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().map(|fd| own(fd.as_fd())).transpose();
        Ok(Self {
            top: copy(&self.top)?,
            base: copy(&self.base)?,
        })
    }
}

/// The names of a directory of a view; nothing for one that is not there.
pub(super) fn listing(dir: &Option<OwnedFd>, path: &TreePath) -> Result<Listing> {
    let Some(dir) = dir else {
        return Ok(Listing::default());
    };
    let open = at::open_dir_list(dir, b".").map_err(call("open", path))?;
    Listing::read(open).map_err(call("list", path))
}

fn look_at(dir: &OwnedFd, name: &[u8], path: &TreePath) -> Result<Option<Stat>> {
    match stat::stat_at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        // Too long for one layer is not there.
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(call("look at", path)(errno)),
    }
}

fn covered(path: &TreePath) -> BuildError {
    BuildError::Refused {
        path: path.clone(),
        reason: "something is mounted here, and what it hides cannot be compared; unmount it first"
            .to_owned(),
    }
}

fn found(layer: Layer, stat: Stat, merged: bool, path: &TreePath) -> Result<Found> {
    if stat.mount_root {
        return Err(covered(path));
    }
    Ok(Found {
        layer,
        stat,
        kind: kind(&stat, path)?,
        merged,
    })
}

fn kind(stat: &Stat, path: &TreePath) -> Result<Kind> {
    Kind::of_mode(stat.mode).map_err(call("look at", path))
}

fn refuse_features(marks: Marks, path: &TreePath) -> Result<()> {
    let feature = match marks {
        Marks { metacopy: true, .. } => "metacopy: its data is in another file",
        Marks { redirect: true, .. } => "redirect_dir: it shows another directory of the lower",
        _ => return Ok(()),
    };
    Err(BuildError::Refused {
        path: path.clone(),
        reason: format!(
            "carries a mark of {feature}; mount the layers with the feature off and copy it up again"
        ),
    })
}
