//! Images from a Containerfile: one layer for each step that changes files, kept by content.
//!
//! ```text
//!   text ── parse ── File ── plan ── the stages that are needed, in order
//!                                        │ for each step
//!            variables, expand ──────────┤
//!                                        ▼
//!   ENV, USER, CMD ..   stage.rs    the config is changed
//!   COPY, ADD, WORKDIR  files.rs    gathered ── key ── cache? ── a layer archive ──┐
//!   RUN                 run.rs      key ── cache? ── run in a view ── its upper ───┤
//!                                                                                  ▼
//!                                                            Store::add_layer over the layer so far
//! ```

pub mod additions;
pub mod cache;
pub mod config;
pub mod context;
mod error;
pub mod expand;
pub mod files;
pub mod gather;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
mod make;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod run;
pub mod stage;
mod steps;
pub mod stream;
pub mod tree;
pub mod unpack;
pub mod users;
pub mod variables;
pub mod words;

pub use error::{ImageBuildError, Place, Reason, Result};

use crate::builder::Progress;
use crate::store::runtime::Network;
use crate::store::{ImageId, Name, Store};

use cache::Cache;
use context::{Context, FileGiven, Given};
use plan::Plan;
use variables::Globals;

/// What to build.
#[derive(Debug)]
pub struct Request {
    /// The files to build from.
    pub context: Given,
    /// The Containerfile.
    pub file: FileGiven,
    /// Names for the image.
    pub tags: Vec<Name>,
    /// Values for ARGs.
    pub args: Vec<(String, String)>,
    /// The stage to build; the last one without.
    pub target: Option<String>,
    /// What earlier builds made is not used.
    pub no_cache: bool,
    /// The network of RUN.
    pub network: Network,
    /// The time of everything new, in seconds since 1970; else now.
    pub epoch: Option<i64>,
}

/// Hears how a build goes.
pub trait Report {
    /// A step begins: `STEP 2/3: COPY . /app`.
    fn step(&mut self, line: &str);
    /// Something about the step: that it was in the cache, the layer it made.
    fn note(&mut self, line: &str);
    /// Something that the person should know.
    fn warn(&mut self, line: &str);
    /// Shows how far a layer is; not used while a command runs.
    fn progress(&mut self) -> Box<dyn Progress>;
}

/// Builds an image; answers its id.
///
/// To be called while this process has no threads: the view of a RUN is served by a copy of it.
///
/// # Errors
/// Whatever stood in the way, with the file, the line and the step. The steps before stay in the cache.
pub fn build(
    store: &Store,
    request: &Request,
    report: &mut dyn Report,
) -> std::result::Result<ImageId, ImageBuildError> {
    let nowhere = |reason| ImageBuildError {
        place: Place::default(),
        reason: Box::new(reason),
    };
    let context = Context::open(store, &request.context, &request.file).map_err(nowhere)?;
    let in_file = |line: usize, reason: Reason| ImageBuildError {
        place: Place {
            file: context.file.clone(),
            line,
            step: None,
        },
        reason: Box::new(reason),
    };
    let file = parse::parse(&context.text).map_err(|(line, reason)| in_file(line, reason.into()))?;
    let mut globals = Globals::new(request.args.iter().cloned());
    for (name, default) in &file.global_args {
        globals
            .declare(name, default.as_deref(), file.escape)
            .map_err(|reason| in_file(0, format!("ARG {name}: {reason}").into()))?;
    }
    let plan: Plan = plan::plan(&file, &globals, request.target.as_deref())
        .map_err(|(line, reason)| in_file(line, reason.into()))?;
    let cache = Cache::open(store, !request.no_cache).map_err(|error| nowhere(error.into()))?;
    let built = steps::Builder::new(store, request, &context, &file, &plan, &cache, globals, report).run()?;
    let place = |error: crate::store::StoreError| in_file(0, error.into());
    let config = built
        .config
        .render()
        .map_err(|error| in_file(0, Reason::Refused(format!("cannot write the config: {error}"))))?;
    let id = store.add_image(&config, None, &request.tags).map_err(place)?;
    let image = store.image(&id.to_string()).map_err(place)?;
    cache.release(&image.chain()).map_err(place)?;
    Ok(id)
}
