//! Reading a manifest, line by line.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::line::{Line, Text, time};
use crate::builder::{BuildError, Kind, Result, TreePath};
use crate::sys::stat::{self, Time};

/// A line of our own is far below this: names, and a few attributes of 64 KiB at most.
const LONGEST_LINE: u64 = 64 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub plyfs_manifest: u32,
    /// The root directory, by which a tree is known from a copy of it.
    pub root: Root,
}

/// The root directory of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its inode number.
    pub ino: u64,
    /// When it was made; absent where the file system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    birth: Option<Birth>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Birth(#[serde(with = "time")] Time);

impl Header {
    /// The first line of the manifest of the tree whose root is open.
    ///
    /// # Errors
    /// As statx(2).
    pub fn of(root: impl AsFd) -> crate::sys::Result<Self> {
        Ok(Self {
            plyfs_manifest: VERSION,
            root: Root {
                ino: stat::stat_fd(&root)?.ino,
                birth: stat::birth_time(&root)?.map(Birth),
            },
        })
    }

    /// Whether this is surely the manifest of the tree whose root is open, where it was made: only then do its inode
    /// numbers hold.
    ///
    /// # Errors
    /// As statx(2).
    pub fn is_of(&self, root: impl AsFd) -> crate::sys::Result<bool> {
        Ok(self.root.birth.is_some() && *self == Self::of(root)?)
    }
}

/// The last line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Footer {
    /// Lines between the first and this one.
    pub(super) objects: u64,
    /// What is not in the tree though its source had it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Skipped {
    pub(super) path: Text,
    pub(super) reason: String,
}

/// One object and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub line: Line,
}

/// A manifest that is being read. Holds one line at a time.
pub struct Reader<'a> {
    from: BufReader<zstd::Decoder<'a, BufReader<Box<dyn Read + Send + 'a>>>>,
    header: Header,
    line: Vec<u8>,
    path: Vec<u8>,
    /// Length of the path above each depth.
    starts: Vec<usize>,
    /// The object given last is a directory.
    in_directory: bool,
    objects: u64,
    /// What the last line says; known at the end.
    skipped: Option<Vec<(TreePath, String)>>,
}

impl<'a> Reader<'a> {
    /// Starts to read.
    ///
    /// # Errors
    /// If it cannot be read, is damaged or of another version.
    pub fn new(from: impl Read + Send + 'a) -> Result<Self> {
        let from: Box<dyn Read + Send + 'a> = Box::new(from);
        let from = zstd::Decoder::new(from).map_err(|error| told(&error))?;
        let mut reader = Self {
            from: BufReader::new(from),
            header: Header {
                plyfs_manifest: 0,
                root: Root { ino: 0, birth: None },
            },
            line: Vec::new(),
            path: Vec::new(),
            starts: Vec::new(),
            in_directory: false,
            objects: 0,
            skipped: None,
        };
        reader.read_line()?;
        reader.header = serde_json::from_slice(&reader.line)
            .map_err(|error| damaged(format!("the first line is not that of a manifest: {error}")))?;
        if reader.header.plyfs_manifest != VERSION {
            return Err(damaged(format!(
                "it has version {}, and this program reads version {VERSION}",
                reader.header.plyfs_manifest
            )));
        }
        Ok(reader)
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was left out of the tree, and why. Known at the end only.
    pub fn skipped(&self) -> &[(TreePath, String)] {
        self.skipped.as_deref().unwrap_or_default()
    }

    /// The next object, the root first; `None` at the end.
    ///
    /// # Errors
    /// If it cannot be read, is damaged or cut short.
    pub fn advance(&mut self) -> Result<Option<Object>> {
        if self.skipped.is_some() {
            return Ok(None);
        }
        self.read_line()?;
        if self.line.starts_with(b"{\"objects\"") {
            self.finish()?;
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(&self.line)
            .map_err(|error| damaged(format!("line {}: {error}", self.objects.saturating_add(2))))?;
        self.objects = self.objects.saturating_add(1);
        let path = self
            .path_of(&line)
            .ok_or_else(|| damaged(format!("line {} is out of place", self.objects.saturating_add(1))))?;
        self.in_directory = line.kind == Kind::Directory;
        Ok(Some(Object { path, line }))
    }

    /// The path by depth and name; `None` where they make no sense.
    fn path_of(&mut self, line: &Line) -> Option<TreePath> {
        let depth = line.depth as usize;
        let name = line.name.0.as_slice();
        if depth == 0 {
            return (self.objects == 1 && name.is_empty()).then(TreePath::root);
        }
        let deepest = self.starts.len();
        let fits = depth <= deepest || depth == deepest.checked_add(1)? && self.in_directory;
        if !fits
            || name.is_empty()
            || name == b"."
            || name == b".."
            || name.contains(&b'/')
            || self.objects < 2
        {
            return None;
        }
        if depth <= deepest {
            self.path.truncate(*self.starts.get(depth.checked_sub(1)?)?);
            self.starts.truncate(depth.checked_sub(1)?);
        }
        self.starts.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        Some(TreePath::from_clean(self.path.as_slice()))
    }

    fn finish(&mut self) -> Result<()> {
        let footer: Footer =
            serde_json::from_slice(&self.line).map_err(|error| damaged(format!("the last line: {error}")))?;
        if footer.objects != self.objects {
            return Err(damaged(format!(
                "it has {} objects and should have {}",
                self.objects, footer.objects
            )));
        }
        // Also reads the checksum of the compressed stream.
        let mut more = Vec::new();
        let more = self.from.by_ref().take(1).read_to_end(&mut more);
        if more.map_err(|error| told(&error))? > 0 {
            return Err(damaged("there is more behind its last line".into()));
        }
        self.skipped = Some(
            footer
                .skipped
                .into_iter()
                .map(|skipped| (TreePath::from_clean(skipped.path.0), skipped.reason))
                .collect(),
        );
        Ok(())
    }

    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        let mut limited = self.from.by_ref().take(LONGEST_LINE);
        limited
            .read_until(b'\n', &mut self.line)
            .map_err(|error| told(&error))?;
        match self.line.pop() {
            Some(b'\n') => Ok(()),
            _ => Err(damaged("it is cut short".into())),
        }
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

fn damaged(why: String) -> BuildError {
    told(&io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Names the manifest; what the decompressor answers is damage, too.
fn told(error: &io::Error) -> BuildError {
    let why = match error.raw_os_error() {
        Some(_) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the manifest is damaged: it is cut short".into()
        }
        None => format!("the manifest is damaged: {error}"),
    };
    BuildError::Stream {
        what: "read the manifest",
        source: io::Error::new(error.kind(), why),
    }
}
