//! `plyfs image load`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Failure;
use crate::cli::limits::LimitArgs;
use crate::cli::output::print;
use crate::cli::progress::Bar;
use crate::cli::store::open;
use crate::store::{LoadOptions, Loaded, Name, Platform, Source};

const EXAMPLES: &str = "\
Examples:
  plyfs image load debian.tar
  docker save debian:12 | plyfs image load -
  plyfs image load --ref app:v1 --tag app layout/   one image of an OCI layout
  plyfs image load --platform linux/arm64 many.tar

Taken are the archives of 'docker save' (of all versions), 'podman save' and
'skopeo copy', and OCI layouts as a directory or a tar file; layers as they are
or compressed with gzip or zstd. Every digest is checked while it is read. Of a
load that fails nothing is left.";

/// Load images, and print the name and id of each.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LoadArgs {
    /// A file, the directory of an OCI layout, or - for standard input.
    source: PathBuf,
    /// Only the image that has this name in the archive [default: all].
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// A name for the image, instead of those in the archive.
    #[arg(long, short, value_name = "NAME")]
    tag: Option<String>,
    /// Which one of an image that comes for several platforms [default: this machine's].
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    limits: LimitArgs,
}

impl LoadArgs {
    pub(super) fn run(self, root: Option<&Path>) -> Result<(), Failure> {
        let options = LoadOptions {
            reference: self.reference,
            tag: self.tag.as_deref().map(str::parse::<Name>).transpose()?,
            platform: self.platform,
        };
        let source = if self.source.as_os_str() == "-" {
            if std::io::stdin().is_terminal() {
                return Err(Failure::usage(
                    "standard input is a terminal: an archive is expected there, as in 'docker save debian | plyfs \
                     image load -'",
                ));
            }
            Source::Stream(Box::new(std::io::stdin()))
        } else {
            Source::Path(&self.source)
        };
        let mut store = open(root)?;
        store.set_limits(self.limits.into());
        let bar = Bar::new();
        let loaded = store.load(source, &options, &bar);
        drop(bar);
        let loaded = loaded?;
        for note in loaded.iter().flat_map(|image| &image.notes) {
            eprintln!("plyfs: {note}");
        }
        Ok(print(list(&loaded).as_bytes())?)
    }
}

fn list(loaded: &[Loaded]) -> String {
    let mut text = String::new();
    for image in loaded {
        if image.names.is_empty() {
            text.push_str(&format!("<none> {}\n", image.id));
        }
        for name in &image.names {
            text.push_str(&format!("{name} {}\n", image.id));
        }
    }
    text
}
