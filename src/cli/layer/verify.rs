//! `plyfs layer verify`.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{named, open_tree};
use crate::builder::manifest::Text;
use crate::builder::{BuildError, Fault, verify};
use crate::cli::Failure;
use crate::cli::output::{bytes, print};
use crate::cli::progress::Bar;

const EXAMPLES: &str = "\
Examples:
  plyfs layer verify child/root                    against child/manifest
  plyfs layer verify child --manifest child.manifest
  plyfs layer verify --json child/root | jq -r '.faults[].path'

Compares kind, mode, owner, group, device number, size, modification time, link
target, content (SHA-256), extended attributes and hard-link groups of every
object. One line for each difference:
  /etc/motd: mode: expected 0644, found 0666

With --json, an object with objects, bytes (both as compared) and faults, a list of
objects with path, what, expected and found. A path that is not UTF-8 is a list of
its bytes.

Exit status: 0 the tree is as it was, 1 it differs or could not be compared.";

/// Compare a tree with the manifest recorded at its birth.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct VerifyArgs {
    /// The tree; it is only read.
    root: PathBuf,
    /// The manifest [default: the file 'manifest' beside ROOT].
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Threads that read and hash [default: one for each processor].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Record {
    objects: u64,
    bytes: u64,
    faults: Vec<FaultRecord>,
}

#[derive(Serialize)]
struct FaultRecord {
    path: Text,
    what: String,
    expected: String,
    found: String,
}

impl VerifyArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let root = open_tree(&self.root)?;
        let path = match self.manifest {
            Some(path) => path,
            None => {
                // 'verify .' must find '../manifest'.
                let whole = std::fs::canonicalize(&self.root).map_err(|error| named(&self.root, &error))?;
                whole.with_file_name("manifest")
            }
        };
        let manifest = File::open(&path).map_err(|error| {
            Failure::Failed(format!(
                "{}: {error}: name the tree's manifest with --manifest, or write one with 'plyfs layer clone --manifest'",
                path.display()
            ))
        })?;
        let bar = Bar::new();
        let mut records = Vec::new();
        let checked = verify(
            root.as_fd(),
            BufReader::new(manifest),
            self.jobs,
            &bar,
            &mut |fault| {
                if self.json {
                    records.push(FaultRecord::from(fault));
                    return Ok(());
                }
                bar.print(&line(&fault)).map_err(|source| BuildError::Stream {
                    what: "print the differences",
                    source,
                })
            },
        )
        .map_err(|error| {
            // The manifest is the one stream here.
            let subject = match error {
                BuildError::Stream { .. } => &path,
                _ => &self.root,
            };
            Failure::Failed(format!("{}: {error}", subject.display()))
        })?;
        drop(bar);
        if self.json {
            let record = Record {
                objects: checked.objects,
                bytes: checked.bytes,
                faults: records,
            };
            let mut text = serde_json::to_vec_pretty(&record).map_err(std::io::Error::from)?;
            text.push(b'\n');
            print(&text)?;
        } else if checked.faults == 0 {
            let text = format!(
                "{} objects, {}: as recorded\n",
                checked.objects,
                bytes(checked.bytes)
            );
            print(text.as_bytes())?;
        }
        match checked.faults {
            0 => Ok(()),
            1 => Err(Failure::Failed(format!("{}: 1 difference", self.root.display()))),
            many => Err(Failure::Failed(format!(
                "{}: {many} differences",
                self.root.display()
            ))),
        }
    }
}

fn line(fault: &Fault) -> String {
    let Fault {
        path,
        what,
        expected,
        found,
    } = fault;
    format!("{path}: {what}: expected {expected}, found {found}")
}

impl From<Fault> for FaultRecord {
    fn from(fault: Fault) -> Self {
        Self {
            path: super::json_path(&fault.path),
            what: fault.what,
            expected: fault.expected,
            found: fault.found,
        }
    }
}
