//! Loading images: docker's archives of all times, and OCI layouts.
//!
//! ```text
//!   Members      a directory, a tar file, a stream: data by name
//!   docker, legacy, oci    what is there  ->  plans: config, layers, names, and the digests promised
//!   every layer of every plan, the base first  ->  Store::add_layer, digests checked while reading
//!   every image  ->  Store::add_image, when all layers of all of them are there
//! ```
//!
//! Nothing is left of a load that fails: the layers it made are in doubt until an image holds them.

mod check;
mod docker;
mod legacy;
mod members;
mod oci;
mod outer;
mod plan;

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

pub use oci::Platform;

use self::check::Checked;
use self::members::Members;
use self::plan::{Config, LayerSource, Plan};
use super::birth::{Finished, Stack};
use super::tree::Incoming;
use super::{ImageId, Name, Result, Store, StoreError};
use crate::builder::Progress;

/// Where an archive is.
pub enum Source<'a> {
    /// A file, or the directory of an OCI layout.
    Path(&'a Path),
    /// A stream: standard input.
    Stream(Box<dyn Read + Send>),
}

/// What to load, and as what.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Only the image of this name in the archive.
    pub reference: Option<String>,
    /// The name for the one image that is loaded, instead of those in the archive.
    pub tag: Option<Name>,
    /// Which form of an image that comes in several; this machine's for none.
    pub platform: Option<Platform>,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: ImageId,
    /// The names it was given.
    pub names: Vec<Name>,
    /// What its layers hold that is not in their trees, a line each.
    pub notes: Vec<String>,
}

impl Store {
    /// Loads the images of an archive.
    ///
    /// # Errors
    /// When the archive is refused, or a layer cannot be made; nothing is loaded then.
    pub fn load(
        &self,
        source: Source<'_>,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let mut members = match source {
            Source::Path(path) if path.is_dir() => Members::directory(path)?,
            Source::Path(path) => Members::file(self, path)?,
            Source::Stream(input) => Members::stream(self, "standard input", input)?,
        };
        let mut plans = plans(&mut members, options)?;
        if let Some(tag) = &options.tag {
            match plans.as_mut_slice() {
                [plan] => plan.names = vec![tag.to_string()],
                more => {
                    return Err(StoreError::Refused(format!(
                        "--tag names one image, but there are {} in {}: choose one with --ref",
                        more.len(),
                        members.shown
                    )));
                }
            }
        }
        let names = plans
            .iter()
            .map(|plan| names_of(plan, &members.shown))
            .collect::<Result<Vec<_>>>()?;
        // A layer that several images have is read more than once from an archive in which it stands once.
        let mut uses: HashMap<String, usize> = HashMap::new();
        for layer in plans.iter().flat_map(|plan| &plan.layers) {
            let count = uses.entry(layer.member.clone()).or_default();
            *count = count.saturating_add(1);
        }
        let mut ready = Vec::new();
        for plan in plans {
            let stack = self.load_layers(&mut members, &plan, &mut uses, progress)?;
            ready.push((plan, stack));
        }
        members.finish()?;
        let mut loaded = Vec::new();
        for ((plan, stack), names) in ready.iter().zip(names) {
            let config = match &plan.config {
                Config::Whole(config) => config.clone(),
                Config::Old(old) => old.config(&stack.diff_ids)?,
            };
            loaded.push(Loaded {
                id: self.add_image(&config, plan.manifest.as_deref(), &names)?,
                names,
                notes: stack.notes.clone(),
            });
        }
        Ok(loaded)
    }

    fn load_layers(
        &self,
        members: &mut Members,
        plan: &Plan,
        uses: &mut HashMap<String, usize>,
        progress: &dyn Progress,
    ) -> Result<Finished> {
        let mut stack = Stack::upon(self, None)?;
        for (at, source) in plan.layers.iter().enumerate() {
            let again = uses
                .get_mut(&source.member)
                .is_some_and(|count| std::mem::replace(count, count.saturating_sub(1)) > 1);
            if let Some(diff) = &source.diff_id
                && stack.take(diff)?
            {
                continue;
            }
            let title = format!("layer {} of {}", at.saturating_add(1), plan.layers.len());
            load_layer(&mut stack, members, source, again, (title, progress))?;
        }
        stack.finish()
    }
}

fn load_layer(
    stack: &mut Stack<'_>,
    members: &mut Members,
    source: &LayerSource,
    again: bool,
    (title, progress): (String, &dyn Progress),
) -> Result<()> {
    let shown = format!("{}: {}", members.shown, source.member);
    let Some(open) = members.open(&source.member, again)? else {
        return Err(StoreError::archive(
            shown,
            "the layer is missing; an archive whose layers lie elsewhere cannot be loaded",
        ));
    };
    let archive: Box<dyn Read + Send + '_> = match &source.promise {
        Some(promise) => Box::new(Checked::new(open.reader, promise.clone(), &source.member)),
        None => open.reader,
    };
    let incoming = Incoming {
        title,
        size: Some(open.size),
        archive,
    };
    stack
        .add(incoming, source.diff_id, progress)
        .map_err(|error| match error {
            StoreError::Build(error) => StoreError::of(shown)(error),
            error => error,
        })
}

fn names_of(plan: &Plan, shown: &str) -> Result<Vec<Name>> {
    plan.names
        .iter()
        .map(|text| {
            text.parse().map_err(|error: StoreError| {
                StoreError::archive(
                    shown,
                    format!("an image has a name that cannot be used ({error}); give it another with --tag"),
                )
            })
        })
        .collect()
}

fn plans(members: &mut Members, options: &LoadOptions) -> Result<Vec<Plan>> {
    let host = Platform::host();
    let reference = options.reference.as_deref();
    let mut plans = match members.first_of(&[oci::FILE, docker::FILE, legacy::FILE])? {
        Some(oci::FILE) => {
            return oci::plans(members, reference, options.platform.as_ref().unwrap_or(&host));
        }
        Some(docker::FILE) => docker::plans(members)?,
        // In a stream it may come before the manifest of a newer archive.
        Some(legacy::FILE) if members.has(docker::FILE)? => docker::plans(members)?,
        Some(_) => legacy::plans(members)?,
        None => {
            return Err(StoreError::archive(
                &members.shown,
                "it is no image: neither index.json nor manifest.json is in it ('plyfs image import' takes a bare root \
                 file system)",
            ));
        }
    };
    if let Some(wanted) = reference {
        let there: Vec<String> = plans.iter().flat_map(|plan| plan.refs.clone()).collect();
        plans.retain(|plan| oci::is_meant(wanted, &plan.refs));
        if plans.is_empty() {
            return Err(StoreError::archive(
                &members.shown,
                format!("there is no image '{wanted}' in it, only: {}", there.join(", ")),
            ));
        }
    }
    Ok(plans)
}
