//! COPY, ADD and WORKDIR: what they add to a tree.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::additions::{Additions, Body, Item};
use super::config::absolute;
use super::error::{Reason, Result};
use super::expand::expand_body;
use super::gather::{Changes, Origin, Selected};
use super::ignore::Ignore;
use super::parse::{Copy, Source};
use super::stage::Stage;
use super::tree::{Last, Tree, call};
use super::unpack;
use super::users;
use crate::builder::{Kind, Meta, TreePath};
use crate::store::{Store, TmpDir};
use crate::sys::stat::stat_fd;

/// What a COPY or ADD needs beside itself.
pub struct Files<'a> {
    /// The store, for archives that are unpacked.
    pub store: &'a Store,
    /// The stage, before the step.
    pub stage: &'a Stage,
    /// The tree of its uppermost layer.
    pub base: Option<Tree<'a>>,
    /// Where files come from.
    pub origin: Origin<'a>,
    /// Archives are unpacked, and addresses known: ADD.
    pub unpacks: bool,
    /// The escape character of the file.
    pub escape: char,
}

/// A destination.
struct Destination {
    /// Without symlinks.
    path: TreePath,
    /// It is meant as a directory: it ends in a slash, or is one.
    is_dir: bool,
}

/// An archive of ADD, unpacked.
pub struct Unpacked {
    dir: OwnedFd,
    _tmp: TmpDir,
}

impl<'a> Files<'a> {
    /// Unpacks the archives among the sources of an ADD: one for each source that is one, by the place of the source
    /// and of what it selects.
    ///
    /// # Errors
    /// If a source cannot be read, or an archive is refused.
    pub fn unpack(&self, copy: &Copy) -> Result<Vec<(usize, Selected, Option<Unpacked>)>> {
        let mut found = Vec::new();
        for (place, source) in copy.sources.iter().enumerate() {
            let Source::Path(path) = source else { continue };
            let path = self.stage.expand(path, self.escape)?;
            if self.unpacks && is_address(&path) {
                return Err(format!(
                    "ADD {path}: nothing is downloaded while an image is built; fetch it before, \
                     and ADD the file from the context"
                )
                .into());
            }
            for selected in self.origin.select(&path)? {
                let unpacked = match self.unpacks && selected.stat.is_file() {
                    true => self.unpack_one(&selected)?,
                    false => None,
                };
                found.push((place, selected, unpacked));
            }
        }
        Ok(found)
    }

    fn unpack_one(&self, selected: &Selected) -> Result<Option<Unpacked>> {
        let open = || -> Result<File> {
            let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
            Ok(File::from(self.origin.tree.open(&selected.path, flags)?))
        };
        let named = |reason: Reason| Reason::Refused(format!("{}: {reason}", selected.path));
        let is_archive =
            unpack::is_archive(open()?).map_err(|error| named(unpack::unreadable(error).into()))?;
        if !is_archive {
            return Ok(None);
        }
        let tmp = TmpDir::new(self.store, 0o700)?;
        let dir = tmp.make_dir("files", 0o755)?;
        unpack::unpack(&dir, open()?).map_err(named)?;
        Ok(Some(Unpacked { dir, _tmp: tmp }))
    }

    /// Gathers everything that the step adds. `sources` is what [`Files::unpack`] found.
    ///
    /// # Errors
    /// For what does not fit together; if something cannot be read.
    pub fn gather(
        &self,
        copy: &Copy,
        sources: &'a [(usize, Selected, Option<Unpacked>)],
        note: &mut dyn FnMut(String),
    ) -> Result<Additions<'a>> {
        let changes = self.changes(copy)?;
        let mut skip = Vec::new();
        for pattern in &copy.excludes {
            skip.push(self.stage.expand(pattern, self.escape)?);
        }
        let skip = Ignore::parse(skip.join("\n").as_bytes())
            .map_err(|(_, reason)| format!("--exclude: {reason}"))?;
        let mut additions = Additions::new(self.base, changes.owner.unwrap_or((0, 0)));
        let inline = copy
            .sources
            .iter()
            .filter(|source| matches!(source, Source::Inline(_)));
        let destination = self.destination(copy, sources.len() + inline.count())?;
        for (place, source) in copy.sources.iter().enumerate() {
            if let Source::Inline(doc) = source {
                let text = match doc.expand {
                    true => {
                        let look_up = |name: &str| self.stage.args.look_up(&self.stage.config, name);
                        expand_body(&doc.content, self.escape, &look_up)?
                    }
                    false => doc.content.clone(),
                };
                let path = self.place(&additions, &destination, doc.name.as_bytes())?;
                let meta = Meta {
                    kind: Kind::File,
                    permissions: changes.permissions.unwrap_or(0o644),
                    mtime: additions.time_above(&path)?,
                    ..additions.plain_directory()
                };
                let body = Body::Inline(text.into_bytes());
                additions.put(
                    &path,
                    Item {
                        meta,
                        body,
                        group: None,
                    },
                )?;
            }
            for (_, selected, unpacked) in sources.iter().filter(|(at, ..)| *at == place) {
                self.one(
                    &mut additions,
                    selected,
                    unpacked.as_ref(),
                    &destination,
                    (&changes, &skip),
                    note,
                )?;
            }
        }
        Ok(additions)
    }

    fn one(
        &self,
        additions: &mut Additions<'a>,
        selected: &Selected,
        unpacked: Option<&'a Unpacked>,
        destination: &Destination,
        (changes, skip): (&Changes, &Ignore),
        note: &mut dyn FnMut(String),
    ) -> Result<()> {
        let to = destination.path.clone();
        if let Some(unpacked) = unpacked {
            let inside = Origin {
                tree: Tree::new(unpacked.dir.as_fd()),
                ignore: &NOTHING,
                name: "the archive",
                keep_owner: true,
            };
            let changes = Changes {
                replace_directories: true,
                ..*changes
            };
            let all = Selected {
                name: Vec::new(),
                path: TreePath::root(),
                stat: stat_fd(&unpacked.dir).map_err(|errno| call("look at", &selected.path, errno))?,
            };
            inside.gather(additions, &all, to, &changes, skip, note)?;
            return Ok(());
        }
        let to = match selected.stat.is_dir() {
            true => to,
            false => self.place(additions, destination, &selected.name)?,
        };
        self.origin.gather(additions, selected, to, changes, skip, note)?;
        Ok(())
    }

    fn changes(&self, copy: &Copy) -> Result<Changes> {
        let owner = match &copy.chown {
            Some(spec) => {
                let spec = self.stage.expand(spec, self.escape)?;
                Some(users::owner(self.base, &spec)?.map_err(|reason| format!("--chown={spec}: {reason}"))?)
            }
            None => None,
        };
        let permissions = match &copy.chmod {
            Some(mode) => {
                let mode = self.stage.expand(mode, self.escape)?;
                let bits = u32::from_str_radix(&mode, 8).ok().filter(|bits| *bits <= 0o7777);
                Some(bits.ok_or_else(|| format!("--chmod={mode}: not an octal number such as 755"))?)
            }
            None => None,
        };
        Ok(Changes {
            owner,
            permissions,
            replace_directories: false,
        })
    }

    fn destination(&self, copy: &Copy, count: usize) -> Result<Destination> {
        let text = self.stage.expand(&copy.destination, self.escape)?;
        let ends = |end: &str| text == end || text.ends_with(&format!("/{end}"));
        let slash = text.is_empty() || ends("") || ends(".") || ends("..");
        if count > 1 && !slash {
            return Err(format!(
                "{count} sources need a directory as destination, and {text:?} does not end in a slash"
            )
            .into());
        }
        let path = absolute(&self.stage.config.workdir(), &text);
        let clean = super::ignore::clean(path.as_bytes());
        let Some(base) = self.base else {
            return Ok(Destination {
                is_dir: slash || clean.is_empty(),
                path: TreePath::from_clean(clean),
            });
        };
        let place = base.resolve(&clean, Last::Follow)?;
        Ok(Destination {
            is_dir: slash || place.is_dir(),
            path: place.path,
        })
    }

    /// Where a file called `name` goes.
    fn place(&self, additions: &Additions<'_>, destination: &Destination, name: &[u8]) -> Result<TreePath> {
        if destination.is_dir || additions.is_dir(&destination.path)? {
            return Ok(destination.path.join(name));
        }
        Ok(destination.path.clone())
    }
}

/// Of an archive, where nothing is left out.
static NOTHING: Ignore = Ignore::nothing();

fn is_address(path: &str) -> bool {
    ["http://", "https://", "ftp://", "git://", "ssh://", "git@"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// WORKDIR: the directory, if it is not there.
///
/// # Errors
/// Refused where something else is; if the tree cannot be read.
pub fn workdir<'a>(base: Option<Tree<'a>>, path: &str) -> Result<Additions<'a>> {
    let mut additions = Additions::new(base, (0, 0));
    let clean = super::ignore::clean(path.as_bytes());
    let place = match base {
        Some(base) => base.resolve(&clean, Last::Follow)?.path,
        None => TreePath::from_clean(clean),
    };
    let meta = Meta {
        mtime: additions.time_above(&place)?,
        ..additions.plain_directory()
    };
    additions.directory(&place, meta, false)?;
    Ok(additions)
}
