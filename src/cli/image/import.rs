//! `plyfs image import`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Failure;
use crate::cli::limits::LimitArgs;
use crate::cli::output::print;
use crate::cli::progress::Bar;
use crate::cli::store::open;
use crate::store::{Name, StoreError};

const EXAMPLES: &str = "\
Examples:
  mmdebstrap --variant=minbase bookworm - | plyfs image import --tag debian:12 -
  plyfs image import --tag base rootfs.tar.zst
  plyfs image import --tag base /srv/chroot";

/// Make an image of a root file system: a tar archive or a directory. Prints its id.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// An archive (plain, gzip or zstd), a directory, or - for an archive on standard input.
    source: PathBuf,
    /// A name for the image.
    #[arg(long, short, value_name = "NAME")]
    tag: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
}

impl ImportArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let name = self.tag.as_deref().map(str::parse::<Name>).transpose()?;
        let stream = self.source.as_os_str() == "-";
        if stream && std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                "standard input is a terminal: an archive is expected there",
            ));
        }
        let mut store = open(root)?;
        store.set_limits(self.limits.into());
        let bar = Bar::new();
        let shown = self.source.display().to_string();
        let done = if stream {
            store.import_archive(std::io::stdin(), "standard input", name.as_ref(), &bar)
        } else if self.source.is_dir() {
            store.import_directory(&self.source, name.as_ref(), &bar)
        } else {
            let file = std::fs::File::open(&self.source).map_err(StoreError::io("open", &self.source))?;
            store.import_archive(file, &shown, name.as_ref(), &bar)
        };
        drop(bar);
        let done = done?;
        for note in &done.notes {
            eprintln!("plyfs: {note}");
        }
        Ok(print(format!("{}\n", done.id).as_bytes())?)
    }
}
