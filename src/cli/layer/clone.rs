//! `plyfs layer clone`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::builder::newborn::Newborn;
use crate::builder::{CloneReport, LinkReport, Linker, clone_tree};
use crate::cli::Failure;
use crate::cli::output::{bytes, print};
use crate::cli::progress::Bar;

const EXAMPLES: &str = "\
Examples:
  plyfs layer clone base child
  plyfs layer clone --json base child | jq .copied

Directories are made anew, everything else is linked. Where a link cannot be made
(the inode is full, another file system, an immutable file) a copy is made, with
its blocks shared where the file system can do that; the answer says how many.
CHILD appears when it is complete. A mount point in BASE is refused.

With --json, an object with directories and names (made in all), linked,
reflinked, copied, bytes_copied, inodes_new, inodes_shared, skipped (a list of
objects with path and reason).";

/// Clone a tree by hard links, with all metadata.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CloneArgs {
    /// The tree to clone; it is only read.
    base: PathBuf,
    /// The clone; it must not exist, or be an empty directory.
    child: PathBuf,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Record {
    directories: u64,
    names: u64,
    linked: u64,
    reflinked: u64,
    copied: u64,
    bytes_copied: u64,
    inodes_new: u64,
    inodes_shared: u64,
    skipped: Vec<Skipped>,
}

#[derive(Serialize)]
struct Skipped {
    path: String,
    reason: String,
}

impl CloneArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let base = open(&self.base)?;
        let newborn = Newborn::at(&self.child)?;
        let inside = newborn.lies_in(base.as_fd());
        if inside.map_err(|errno| named(&self.child, &errno.into()))? {
            return Err(Failure::Failed(format!(
                "{}: it lies in {}, the tree to be cloned: choose a place outside",
                self.child.display(),
                self.base.display()
            )));
        }
        let linker = Linker::new();
        let bar = Bar::new();
        let made = clone_tree(base.as_fd(), newborn.root(), &linker, &bar)?;
        newborn.publish()?;
        drop(bar);
        let links = linker.report();
        for (path, reason) in &links.skipped {
            eprintln!("plyfs: {path}: {reason}");
        }
        let text = if self.json {
            let mut text = serde_json::to_vec_pretty(&record(made, links)).map_err(std::io::Error::from)?;
            text.push(b'\n');
            text
        } else {
            for_people(made, &links).into_bytes()
        };
        Ok(print(&text)?)
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let dir = File::open(path).map_err(|error| named(path, &error))?;
    if dir.metadata().map_err(|error| named(path, &error))?.is_dir() {
        Ok(dir)
    } else {
        Err(Failure::Failed(format!("{}: not a directory", path.display())))
    }
}

fn named(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

fn record(made: CloneReport, links: LinkReport) -> Record {
    Record {
        directories: made.directories,
        names: made.names,
        linked: links.linked,
        reflinked: links.reflinked,
        copied: links.copied,
        bytes_copied: links.bytes_copied,
        inodes_new: links.new_inodes().saturating_add(made.directories),
        inodes_shared: links.linked,
        skipped: links
            .skipped
            .into_iter()
            .map(|(path, reason)| Skipped {
                path: path.to_string(),
                reason,
            })
            .collect(),
    }
}

fn for_people(made: CloneReport, links: &LinkReport) -> String {
    let new = links.new_inodes().saturating_add(made.directories);
    let mut text = format!("inodes: {new} new, {} shared\n", links.linked);
    if links.new_inodes() > 0 {
        text.push_str(&format!(
            "copies: {} with shared blocks, {} whole ({})\n",
            links.reflinked,
            links.copied,
            bytes(links.bytes_copied)
        ));
    }
    text
}
