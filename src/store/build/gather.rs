//! Finding the sources of COPY and ADD in a tree, and gathering what they name.

use std::os::fd::AsFd;

use super::additions::{Additions, Body, FileAt, Item};
use super::ignore::{Ignore, clean};
use super::pattern::{Flavour, Pattern};
use super::tree::{Last, Tree, call};
use crate::builder::walk::{Listing, Walk};
use crate::builder::{BuildError, Kind, Meta, Result, TreePath};
use crate::sys::at;
use crate::sys::stat::{Stat, stat_at};
use crate::sys::xattr::Target;

/// A tree that things are copied from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The tree.
    pub tree: Tree<'a>,
    /// What is not part of it.
    pub ignore: &'a Ignore,
    /// In words: "the context", "the stage build".
    pub name: &'a str,
    /// Owners and all attributes are copied; else everything belongs to root. For stages and images.
    pub keep_owner: bool,
}

/// One thing that a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Its name where it is copied to, when that is a directory.
    pub name: Vec<u8>,
    /// Where it lies, without symlinks.
    pub path: TreePath,
    /// What it is.
    pub stat: Stat,
}

/// How what is copied is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// The owner.
    pub owner: Option<(u32, u32)>,
    /// The permission bits.
    pub permissions: Option<u32>,
    /// Directories that are there get the metadata of the copied ones.
    pub replace_directories: bool,
}

impl<'a> Origin<'a> {
    /// What `source`, a path or a pattern, names; in the order of the names. Symlinks in a source are followed inside
    /// the tree.
    ///
    /// # Errors
    /// Refused when it names nothing; if the tree cannot be read.
    pub fn select(&self, source: &str) -> Result<Vec<Selected>> {
        let path = clean(source.as_bytes());
        let mut found = Vec::new();
        if Pattern::is_literal(&path) {
            self.literal(&TreePath::from_clean(path.as_slice()), &mut found)?;
        } else {
            let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            self.pattern(&TreePath::root(), &names, source, &mut found)?;
        }
        if found.is_empty() {
            let ignored = self.ignore.is_ignored(&TreePath::from_clean(path.as_slice()));
            return Err(self.nothing(source, ignored));
        }
        Ok(found)
    }

    fn nothing(&self, source: &str, ignored: bool) -> BuildError {
        let why = if ignored {
            ": an ignore file leaves it out"
        } else {
            ""
        };
        BuildError::Refused {
            path: TreePath::from_clean(clean(source.as_bytes())),
            reason: format!("{} has nothing of that name{why}", self.name),
        }
    }

    fn literal(&self, path: &TreePath, found: &mut Vec<Selected>) -> Result<()> {
        let place = self.tree.resolve(path.as_bytes(), Last::Follow)?;
        let Some(stat) = place.stat else { return Ok(()) };
        let left_out = self.ignore.is_ignored(path) || self.ignore.is_ignored(&place.path);
        if left_out && !(stat.is_dir() && self.ignore.takes_back()) {
            return Ok(());
        }
        let name = path.split().map(|(_, name)| name.to_vec()).unwrap_or_default();
        found.push(Selected {
            name,
            path: place.path,
            stat,
        });
        Ok(())
    }

    fn pattern(
        &self,
        dir: &TreePath,
        names: &[&[u8]],
        source: &str,
        found: &mut Vec<Selected>,
    ) -> Result<()> {
        let Some((first, rest)) = names.split_first() else {
            return self.literal(dir, found);
        };
        if Pattern::is_literal(first) {
            return self.pattern(&dir.join(first), rest, source, found);
        }
        let pattern = Pattern::new(first, Flavour::Name).map_err(|reason| BuildError::Refused {
            path: TreePath::from_clean(source.as_bytes()),
            reason: format!("this is no pattern: {reason}"),
        })?;
        let place = self.tree.resolve(dir.as_bytes(), Last::Follow)?;
        if !place.is_dir() {
            return Ok(());
        }
        let open = self.tree.open(&place.path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let listing = Listing::read(&open).map_err(|errno| call("list", &place.path, errno))?;
        for entry in listing.iter().filter(|entry| pattern.matches(entry.name)) {
            self.pattern(&dir.join(entry.name), rest, source, found)?;
        }
        Ok(())
    }

    /// Gathers one selected thing. A directory's content goes into `to`; anything else becomes `to` itself.
    ///
    /// `skip` are the patterns of `--exclude`. What is left out because no layer can hold it is told to `note`.
    ///
    /// # Errors
    /// If the tree cannot be read; refused where it does not fit what is there.
    pub fn gather(
        &self,
        additions: &mut Additions<'a>,
        selected: &Selected,
        to: TreePath,
        changes: &Changes,
        skip: &Ignore,
        note: &mut dyn FnMut(String),
    ) -> Result<()> {
        let tree = additions.source(self.tree);
        let from = &selected.path;
        if !selected.stat.is_dir() {
            let (dir, name) = self.tree.holder(from)?;
            if let Some(item) = self.item(tree, dir.as_fd(), name, from, changes, note)? {
                additions.put(&to, item)?;
            }
            return Ok(());
        }
        let root = self.tree.open(from, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let to = additions.directory_at(to)?;
        // Its content is copied, not the directory: a new one is as if nobody had said how it is.
        let meta = Meta {
            mtime: additions.time_above(&to)?,
            ..additions.plain_directory()
        };
        additions.directory(&to, meta, false)?;
        let mut walk = Walk::new(root.as_fd())?;
        let mut levels = vec![Level { to, waiting: None }];
        while let Some(step) = walk.advance()? {
            levels.truncate(step.depth);
            let inner = step.path();
            let path = from_join(from, &inner);
            let left_out = self.ignore.is_ignored(&path) || skip.is_ignored(&inner);
            let Some(above) = levels.last() else { break };
            let mut place = above.to.join(step.name);
            if step.kind != Kind::Directory {
                if left_out {
                    continue;
                }
                let Some(item) = self.item(tree, step.dir, step.name, &path, changes, note)? else {
                    continue;
                };
                arrive(additions, &mut levels, changes)?;
                additions.put(&place, item)?;
                continue;
            }
            if left_out && !self.ignore.takes_back() && !skip.takes_back() {
                continue;
            }
            let stat = stat_at(step.dir, step.name).map_err(|errno| call("look at", &path, errno))?;
            let meta = self.meta(Target::At(step.dir, step.name), &stat, &path, changes)?;
            place = additions.directory_at(place)?;
            levels.push(Level {
                to: place,
                waiting: Some(meta),
            });
            if !left_out {
                arrive(additions, &mut levels, changes)?;
            }
            walk.enter()?;
        }
        Ok(())
    }

    fn item(
        &self,
        tree: usize,
        dir: impl AsFd,
        name: &[u8],
        path: &TreePath,
        changes: &Changes,
        note: &mut dyn FnMut(String),
    ) -> Result<Option<Item>> {
        let stat = stat_at(&dir, name).map_err(|errno| call("look at", path, errno))?;
        let meta = self.meta(Target::At(dir.as_fd(), name), &stat, path, changes)?;
        let body = match meta.kind {
            Kind::File => Body::File(FileAt {
                tree,
                path: path.clone(),
                stat,
            }),
            Kind::Symlink => {
                Body::Symlink(at::readlink_at(&dir, name).map_err(|errno| call("read", path, errno))?)
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => Body::Node,
            Kind::Socket => {
                note(format!("{path} is a socket, which no layer can hold: left out"));
                return Ok(None);
            }
            Kind::Directory => return Err(call("read", path, crate::sys::Errno::ISDIR)),
        };
        let group = (stat.nlink > 1).then_some((tree, stat.dev, stat.ino));
        Ok(Some(Item { meta, body, group }))
    }

    fn meta(&self, target: Target<'_>, stat: &Stat, path: &TreePath, changes: &Changes) -> Result<Meta> {
        let mut meta =
            Meta::read(target, stat).map_err(|errno| call("read the attributes of", path, errno))?;
        if !self.keep_owner {
            (meta.uid, meta.gid) = (0, 0);
            // ACLs and labels name users and rules of this machine.
            meta.xattrs.retain(|attribute| {
                attribute.name.starts_with(b"user.") || attribute.name == b"security.capability"
            });
        }
        if let Some(owner) = changes.owner {
            (meta.uid, meta.gid) = owner;
        }
        if let Some(permissions) = changes.permissions.filter(|_| meta.kind != Kind::Symlink) {
            meta.permissions = permissions;
        }
        Ok(meta)
    }
}

/// A directory that the walk is in.
struct Level {
    to: TreePath,
    /// It is not among the additions yet: it is ignored itself, and so is all that was met in it.
    waiting: Option<Meta>,
}

/// Adds the directories that the walk is in.
fn arrive(additions: &mut Additions<'_>, levels: &mut [Level], changes: &Changes) -> Result<()> {
    for level in levels {
        if let Some(meta) = level.waiting.take() {
            additions.directory(&level.to, meta, changes.replace_directories)?;
        }
    }
    Ok(())
}

fn from_join(from: &TreePath, inner: &TreePath) -> TreePath {
    if from.is_root() {
        inner.clone()
    } else {
        from.join(inner.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fixture {
        context: tempfile::TempDir,
        base: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self {
                context: tempfile::tempdir().unwrap(),
                base: tempfile::tempdir().unwrap(),
            };
            let context = fixture.context.path();
            fs::create_dir_all(context.join("src/deep/er")).unwrap();
            for file in ["a.txt", "b.txt", "src/main", "src/deep/x.o", "src/deep/er/keep"] {
                fs::write(context.join(file), file).unwrap();
            }
            fs::hard_link(context.join("a.txt"), context.join("src/a-again")).unwrap();
            symlink("/etc/passwd", context.join("outside")).unwrap();
            symlink("src", context.join("inside")).unwrap();
            symlink("/etc", context.join("src/deep/etc")).unwrap();
            let base = fixture.base.path();
            fs::create_dir_all(base.join("usr/lib")).unwrap();
            fs::write(base.join("file"), "").unwrap();
            symlink("usr/lib", base.join("lib")).unwrap();
            fixture
        }

        /// The names in the archive that copying `source` to `to` writes.
        fn copy(&self, source: &str, to: &str, rules: &str) -> std::result::Result<Vec<String>, String> {
            let context = fs::File::open(self.context.path()).unwrap();
            let base = fs::File::open(self.base.path()).unwrap();
            let ignore = Ignore::parse(rules.as_bytes()).unwrap();
            let origin = Origin {
                tree: Tree::new(context.as_fd()),
                ignore: &ignore,
                name: "the context",
                keep_owner: false,
            };
            let mut additions = Additions::new(Some(Tree::new(base.as_fd())), (0, 0));
            let words = |error: BuildError| error.to_string();
            for selected in origin.select(source).map_err(words)? {
                let mut place = TreePath::from_clean(to);
                if !selected.stat.is_dir() && additions.is_dir(&place).unwrap() {
                    place = place.join(&selected.name);
                }
                let (changes, skip) = (Changes::default(), Ignore::default());
                origin
                    .gather(&mut additions, &selected, place, &changes, &skip, &mut |_| {})
                    .map_err(words)?;
            }
            let (mut one, mut two) = (Vec::new(), Vec::new());
            additions.write(&mut one).unwrap();
            additions.write(&mut two).unwrap();
            assert_eq!(one, two);
            let mut archive = tar::Archive::new(one.as_slice());
            let entries = archive.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(
                    (entry.header().uid().unwrap(), entry.header().gid().unwrap()),
                    (0, 0)
                );
                let path = entry.path().unwrap().display().to_string();
                match entry.link_name().unwrap() {
                    Some(link) => format!("{path}>{}", link.display()),
                    None => path,
                }
            });
            Ok(entries.collect())
        }
    }

    #[test]
    fn the_content_of_a_directory_is_copied() {
        let f = Fixture::new();
        assert_eq!(
            f.copy("src", "app", "").unwrap(),
            [
                "app/",
                "app/a-again",
                "app/deep/",
                "app/deep/er/",
                "app/deep/er/keep",
                "app/deep/etc>/etc",
                "app/deep/x.o",
                "app/main"
            ]
        );
        assert_eq!(f.copy("inside/deep", "app", "").unwrap().len(), 5);
    }

    #[test]
    fn hard_links_stay_and_outer_symlinks_lead_nowhere() {
        let f = Fixture::new();
        let all = f.copy(".", "app", "").unwrap();
        assert!(all.contains(&"app/src/a-again>app/a.txt".to_owned()), "{all:?}");
        assert!(all.contains(&"app/outside>/etc/passwd".to_owned()));
        let error = f.copy("outside", "app", "").unwrap_err();
        assert!(error.contains("/outside: the context has nothing"), "{error}");
        assert!(f.copy("src/deep/etc/passwd", "app", "").is_err());
        assert!(f.copy("../../etc/passwd", "app", "").is_err());
    }

    #[test]
    fn patterns_and_symlinks_of_the_tree() {
        let f = Fixture::new();
        assert_eq!(
            f.copy("src", "lib", "*\n!src/main").unwrap(),
            ["usr/", "usr/lib/", "usr/lib/main"]
        );
        assert_eq!(f.copy("s*/d*/*", "usr/lib", "").unwrap().len(), 5);
        assert!(
            f.copy("*.none", "x", "")
                .unwrap_err()
                .contains("nothing of that name")
        );
        assert!(f.copy("[", "x", "").unwrap_err().contains("no pattern"));
        assert!(f.copy("a.txt", "file", "").is_ok());
        assert!(
            f.copy("src", "file", "")
                .unwrap_err()
                .contains("cannot be copied over")
        );
    }

    #[test]
    fn what_is_ignored_is_not_there() {
        let f = Fixture::new();
        let rules = "src\n!src/deep/er\n*.txt";
        assert_eq!(
            f.copy(".", "", rules).unwrap(),
            [
                "inside>src",
                "outside>/etc/passwd",
                "src/",
                "src/deep/",
                "src/deep/er/",
                "src/deep/er/keep"
            ]
        );
        assert!(f.copy("a.txt", "x", rules).unwrap_err().contains("ignore file"));
        assert!(
            f.copy("src/main", "x", "src")
                .unwrap_err()
                .contains("ignore file")
        );
        assert_eq!(f.copy("src", "x", "**/*.o\n**/etc").unwrap().len(), 6);
    }
}
