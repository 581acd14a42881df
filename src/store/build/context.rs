//! The context of a build: the files that COPY and ADD may take, the Containerfile, and what is left out.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::{Reason, Result};
use super::ignore::Ignore;
use super::tree::Tree;
use crate::store::{Store, TmpDir};
use crate::sys::at;

/// The names of a Containerfile, in the order they are looked for.
const NAMES: [&str; 2] = ["Containerfile", "Dockerfile"];
/// The names of an ignore file, in the order they are looked for.
const IGNORE_NAMES: [&str; 2] = [".containerignore", ".dockerignore"];
/// Larger Containerfiles and ignore files are not read.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Where a context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A directory.
    Directory(PathBuf),
    /// An archive on standard input.
    Archive,
}

/// Where the Containerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileGiven {
    /// Its usual names in the context.
    Usual,
    /// A path: from here, else in the context.
    Path(PathBuf),
    /// Standard input.
    Input,
}

/// A context that is open.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    /// Holds what an archive was unpacked to.
    _unpacked: Option<TmpDir>,
    /// What is left out.
    pub ignore: Ignore,
    /// The Containerfile, as messages name it.
    pub file: String,
    /// Its text.
    pub text: String,
}

impl Context {
    /// Opens a context, and finds the Containerfile in it.
    ///
    /// # Errors
    /// When it cannot be read, an archive is refused, there is no Containerfile, or an ignore file makes no sense.
    pub fn open(store: &Store, given: &Given, file: &FileGiven) -> Result<Self> {
        let (root, unpacked) = match given {
            Given::Directory(path) => {
                let root = File::open(path).map_err(io("open the context", path))?;
                let dir =
                    at::reopen_dir(&root).map_err(|errno| io("open the context", path)(errno.into()))?;
                (dir, None)
            }
            Given::Archive => {
                let unpacked = TmpDir::new(store, 0o700)?;
                let root = unpacked.make_dir("context", 0o755)?;
                super::unpack::unpack(&root, std::io::stdin())?;
                (root, Some(unpacked))
            }
        };
        let tree = Tree::new(root.as_fd());
        let (file, text, ignore) = match file {
            FileGiven::Usual => usual(tree)?,
            FileGiven::Input => ("-".to_owned(), read_input()?, None),
            FileGiven::Path(path) => named(tree, path)?,
        };
        let ignore = match ignore {
            Some(found) => found,
            None => ignore_in(tree, &IGNORE_NAMES.map(str::to_owned))?.unwrap_or_default(),
        };
        Ok(Self {
            root,
            _unpacked: unpacked,
            ignore,
            file,
            text,
        })
    }

    /// The files.
    pub fn tree(&self) -> Tree<'_> {
        Tree::new(self.root.as_fd())
    }
}

type Found = (String, String, Option<Ignore>);

fn usual(tree: Tree<'_>) -> Result<Found> {
    for name in NAMES {
        if let Some(content) = tree.read(name.as_bytes(), LIMIT)? {
            return Ok((name.to_owned(), utf8(name, content)?, ignore_beside(tree, name)?));
        }
    }
    let names = NAMES.join(" nor ");
    Err(format!("the context has no {names}: name the file with -f").into())
}

fn named(tree: Tree<'_>, path: &Path) -> Result<Found> {
    let shown = path.display().to_string();
    match std::fs::read(path) {
        Ok(content) => {
            let text = utf8(&shown, content)?;
            let mut ignore = None;
            for ending in IGNORE_NAMES {
                let beside = PathBuf::from(format!("{shown}{ending}"));
                match std::fs::read(&beside) {
                    Ok(content) if ignore.is_none() => {
                        ignore = Some(parse_ignore(&beside.display().to_string(), &content)?);
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(io("read", &beside)(error)),
                }
            }
            Ok((shown, text, ignore))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match tree.read(shown.as_bytes(), LIMIT)? {
                Some(content) => {
                    let text = utf8(&shown, content)?;
                    let ignore = ignore_beside(tree, &shown)?;
                    Ok((shown, text, ignore))
                }
                None => Err(io("read", path)(error)),
            }
        }
        Err(error) => Err(io("read", path)(error)),
    }
}

fn ignore_beside(tree: Tree<'_>, file: &str) -> Result<Option<Ignore>> {
    ignore_in(tree, &IGNORE_NAMES.map(|ending| format!("{file}{ending}")))
}

fn ignore_in(tree: Tree<'_>, names: &[String]) -> Result<Option<Ignore>> {
    for name in names {
        if let Some(content) = tree.read(name.as_bytes(), LIMIT)? {
            return parse_ignore(name, &content).map(Some);
        }
    }
    Ok(None)
}

fn parse_ignore(name: &str, content: &[u8]) -> Result<Ignore> {
    Ignore::parse(content).map_err(|(line, reason)| Reason::Refused(format!("{name}:{line}: {reason}")))
}

fn utf8(name: &str, content: Vec<u8>) -> Result<String> {
    String::from_utf8(content).map_err(|_| Reason::Refused(format!("{name}: it is not UTF-8 text")))
}

fn read_input() -> Result<String> {
    let text = std::io::read_to_string(std::io::stdin().lock());
    text.map_err(io("read the Containerfile from", Path::new("standard input")))
}

/// For `map_err` on a call of the standard library.
pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Reason {
    let path = path.display().to_string();
    move |source| Reason::Io { what, path, source }
}
