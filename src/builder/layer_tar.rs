//! Changes as a layer archive: what other builders and runtimes take.
//!
//! The archive holds an entry for every changed object and for the directories on the way to it, in the order of
//! the walk, and nothing else. A deleted name `d/x` is an empty file `d/.wh.x` of mode 0. The same changes give
//! the same bytes.
//!
//! Numbers and names that the old header has no room for are in a pax header before it: times below the second,
//! long names, great ids and sizes, and extended attributes (`SCHILY.xattr.NAME`).

mod pax;
mod writer;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

pub use writer::{LayerWriter, Written};

use super::diff::{self, Change, Letter, Object, Sink, Upper, Views};
use super::{Kind, Result, TreePath};
use crate::sys::{io as file_io, stat};

/// Writes the changes from the tree `old` to the tree `new`.
///
/// # Errors
/// As [`diff::diff_trees`]; an object that a layer archive cannot say, a file that changed while it was read, or
/// what `to` answers.
pub fn write_layer_trees(old: BorrowedFd<'_>, new: BorrowedFd<'_>, to: impl Write) -> Result<Written> {
    write(&Views::trees(old, new)?, to)
}

/// Writes all of a tree, its root too.
///
/// # Errors
/// As [`write_layer_trees`].
pub fn write_layer_tree(tree: BorrowedFd<'_>, to: impl Write) -> Result<Written> {
    write(&Views::tree(tree)?, to)
}

/// Writes the changes that an upper makes to its lower.
///
/// # Errors
/// As [`diff::diff_upper`] and [`write_layer_trees`].
pub fn write_layer_upper(upper: Upper<'_>, to: impl Write) -> Result<Written> {
    write(&Views::upper(upper)?, to)
}

fn write(views: &Views<'_>, to: impl Write) -> Result<Written> {
    let mut archive = Archive {
        writer: LayerWriter::new(to),
        groups: HashMap::new(),
    };
    diff::changes(views, &mut archive)?;
    archive.writer.finish()
}

/// An archive that is written from changes.
struct Archive<W> {
    writer: LayerWriter<W>,
    /// The first name of each inode that has several.
    groups: HashMap<(u64, u64), TreePath>,
}

impl<W: Write> Sink for Archive<W> {
    fn change(&mut self, change: Change, object: Option<&Object<'_>>) -> Result<()> {
        let path = &change.path;
        match (change.letter, object) {
            (Letter::Deleted, _) | (_, None) => self.writer.whiteout(path),
            (_, Some(object)) if change.kind == Kind::Socket => {
                let why = "a socket, which an archive cannot hold; its server makes it anew";
                self.writer.skip(path, why);
                if object.replaces() {
                    self.writer.whiteout(path)?;
                }
                Ok(())
            }
            (_, Some(object)) => self.object(path, object),
        }
    }
}

impl<W: Write> Archive<W> {
    fn object(&mut self, path: &TreePath, object: &Object<'_>) -> Result<()> {
        let meta = object.meta()?;
        if let Some(group) = object.group() {
            if let Some(first) = self.groups.get(&group) {
                return self.writer.hard_link(path, &meta, first);
            }
            self.groups.insert(group, path.clone());
        }
        match meta.kind {
            Kind::Directory => self.writer.directory(path, &meta),
            Kind::Symlink => self.writer.symlink(path, &meta, &object.target()?),
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => self.writer.node(path, &meta),
            Kind::File => {
                let before = *object.stat();
                let mut file = Data {
                    file: object.open()?,
                    position: 0,
                };
                self.writer.file(path, &meta, before.size, &mut file)?;
                let now = stat::stat_fd(&file.file).map_err(diff::call("look at", path))?;
                // A link made elsewhere changes the change time of a shared inode, but not of one in a
                // writable layer.
                let same = (now.size, now.mtime) == (before.size, before.mtime)
                    && (now.ctime == before.ctime || !object.is_private());
                if same { Ok(()) } else { Err(object.moved()) }
            }
        }
    }
}

/// The data of a file from its start.
struct Data {
    file: OwnedFd,
    position: u64,
}

impl Read for Data {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = file_io::read_at(&self.file, buffer, self.position)?;
        self.position = self.position.saturating_add(got as u64);
        Ok(got)
    }
}
