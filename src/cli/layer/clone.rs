//! `plyfs layer clone`.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{NewManifest, json_path, named, open_tree};
use crate::builder::manifest::{Parent, Recording, Text, record};
use crate::builder::newborn::Place;
use crate::builder::{BuildError, CloneReport, LinkReport, Linker, clone_tree, link};
use crate::cli::Failure;
use crate::cli::output::{bytes, print};
use crate::cli::progress::Bar;
use crate::sys::Errno;

const EXAMPLES: &str = "\
Examples:
  plyfs layer clone base child
  plyfs layer clone --json base child | jq .copied
  plyfs layer clone base child --manifest child.manifest
  plyfs layer clone base child --manifest child.manifest --base-manifest base.manifest

Directories are made anew, everything else is linked. Where a link cannot be made
(the inode is full, another file system, an immutable file) a copy is made, with
its blocks shared where the file system can do that; the answer says how many.
CHILD appears when it is complete. A mount point in BASE is refused.

As an ordinary user you can clone what is yours. With --no-owner you can clone all
that you may read: directories and copies are then yours, without setuid and setgid
bits.

With --json, an object with directories and names (made in all), linked,
reflinked, copied, bytes_copied, inodes_new, inodes_shared, disowned (how many are
yours by --no-owner), skipped (a list of objects with path and reason).";

/// Clone a tree by hard links, with all metadata.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CloneArgs {
    /// The tree to clone; it is only read.
    base: PathBuf,
    /// The clone; it must not exist, or be an empty directory.
    child: PathBuf,
    /// Write the child's manifest, for 'plyfs layer verify'; the file must not exist.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// BASE's own manifest: files that are linked take their digests from it and are not read.
    #[arg(long, value_name = "FILE", requires = "manifest")]
    base_manifest: Option<PathBuf>,
    /// Let new inodes belong to you where their owner cannot be kept.
    #[arg(long)]
    no_owner: bool,
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
    disowned: u64,
    skipped: Vec<Skipped>,
}

#[derive(Serialize)]
struct Skipped {
    path: Text,
    reason: String,
}

impl CloneArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let base = open_tree(&self.base)?;
        let place = Place::find(&self.child)?;
        if place.lies_in(base.as_fd())? {
            return Err(Failure::Failed(format!(
                "{}: it lies in {}, the tree to be cloned: choose a place outside",
                self.child.display(),
                self.base.display()
            )));
        }
        let parent = match &self.base_manifest {
            Some(path) => Some(Parent {
                manifest: Box::new(File::open(path).map_err(|error| named(path, &error))?),
                root: base.as_fd(),
            }),
            None => None,
        };
        // Before anything is made: from here on Ctrl-C tidies up.
        let bar = Bar::new();
        let manifest = self.manifest.as_deref().map(NewManifest::create).transpose()?;
        let newborn = place.make()?;
        let mut linker = Linker::new();
        if self.no_owner {
            linker = linker.without_owners();
        }
        let made =
            clone_tree(base.as_fd(), newborn.root(), &linker, &bar).map_err(|error| self.explain(&error))?;
        if let Some(manifest) = &manifest {
            let recording = Recording {
                parent,
                ..Recording::default()
            };
            let to = BufWriter::new(&manifest.file);
            record(newborn.root(), recording, to, &bar)?;
        }
        let links = linker.report();
        if links.new_inodes() > 0 {
            newborn.sync()?;
        }
        newborn.publish()?;
        if let Some(manifest) = manifest {
            manifest.keep();
        }
        drop(bar);
        for (path, reason) in &links.skipped {
            eprintln!("plyfs: {path}: {reason}");
        }
        let text = if self.json {
            let mut text = serde_json::to_vec_pretty(&answer(made, links)).map_err(std::io::Error::from)?;
            text.push(b'\n');
            text
        } else {
            for_people(made, &links).into_bytes()
        };
        Ok(print(&text)?)
    }

    fn explain(&self, error: &BuildError) -> Failure {
        let advice = match error {
            BuildError::Call {
                what: link::GIVE,
                errno: Errno::PERM,
                ..
            } => ": only root keeps the owners of others; with --no-owner copies and directories are yours",
            BuildError::Call {
                errno: Errno::XDEV, ..
            } => ": something is mounted there; unmount it first",
            _ => "",
        };
        Failure::Failed(format!("{}: {error}{advice}", self.base.display()))
    }
}

fn answer(made: CloneReport, links: LinkReport) -> Record {
    Record {
        directories: made.directories,
        names: made.names,
        linked: links.linked,
        reflinked: links.reflinked,
        copied: links.copied,
        bytes_copied: links.bytes_copied,
        inodes_new: links.new_inodes().saturating_add(made.directories),
        inodes_shared: links.linked,
        disowned: links.disowned,
        skipped: links
            .skipped
            .into_iter()
            .map(|(path, reason)| Skipped {
                path: json_path(&path),
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
    if links.disowned > 0 {
        text.push_str(&format!("owners: {} could not be kept\n", links.disowned));
    }
    text
}
