//! Doing the steps of the stages that are needed, one after the other.

use std::os::fd::{AsFd, OwnedFd};

use super::additions::Additions;
use super::cache::{Cache, Entry, Key};
use super::config::Config;
use super::context::Context;
use super::error::{ImageBuildError, Place, Reason, Result};
use super::files::{Files, workdir};
use super::gather::Origin;
use super::ignore::Ignore;
use super::parse::{self, Copy, File, Instruction, Run, Source, Step};
use super::plan::{self, Plan, origin_of_copy};
use super::run::{self, Changed, Environment};
use super::stage::Stage;
use super::stream::{StreamWriter, stream};
use super::tree::Tree;
use super::variables::{Args, Globals};
use super::{Report, Request};
use crate::builder::{BuildError, Progress};
use crate::store::runtime::Network;
use crate::store::{ChainId, DiffId, Layer, Store, StoreError};
use crate::sys::stat::Time;

/// Part of every key: another way of building is another cache.
const VERSION: &[u8] = b"1";

/// A build that is going on.
pub(super) struct Builder<'a> {
    store: &'a Store,
    request: &'a Request,
    context: &'a Context,
    file: &'a File,
    plan: &'a Plan,
    cache: &'a Cache<'a>,
    globals: Globals,
    report: &'a mut dyn Report,
    /// By their place in the file.
    done: Vec<Option<Stage>>,
}

/// What a step made of its layer.
struct Made {
    layer: Option<Layer>,
    diff_id: Option<DiffId>,
    created: String,
}

impl<'a> Builder<'a> {
    #[allow(clippy::too_many_arguments)] // one each; a struct of them would be this one
    pub(super) fn new(
        store: &'a Store,
        request: &'a Request,
        context: &'a Context,
        file: &'a File,
        plan: &'a Plan,
        cache: &'a Cache<'a>,
        globals: Globals,
        report: &'a mut dyn Report,
    ) -> Self {
        Self {
            store,
            request,
            context,
            file,
            plan,
            cache,
            globals,
            report,
            done: file.stages.iter().map(|_| None).collect(),
        }
    }

    /// Builds all stages; answers the last.
    pub(super) fn run(mut self) -> std::result::Result<Stage, ImageBuildError> {
        let mut last = None;
        for (number, place) in self.plan.stages.iter().enumerate() {
            self.stage(number, *place)?;
            last = Some(*place);
        }
        let unused: Vec<&str> = self.globals.unused().collect();
        if !unused.is_empty() {
            let names = unused.join(", ");
            self.report
                .warn(&format!("no ARG asks for what --build-arg gives: {names}"));
        }
        last.and_then(|place| self.done.get_mut(place)?.take())
            .ok_or_else(|| ImageBuildError {
                place: Box::default(),
                reason: Reason::Refused("there is nothing to build".to_owned()),
            })
    }

    fn stage(&mut self, number: usize, place: usize) -> std::result::Result<(), ImageBuildError> {
        let file = self.file;
        let Some(stage) = file.stages.get(place) else {
            return Ok(());
        };
        let many = self.plan.stages.len();
        let prefix = match many {
            1 => String::new(),
            many => format!("[{}/{many}] ", number + 1),
        };
        let count = stage.steps.len() + 1;
        let failed = |line: usize, at: usize, text: &str, reason: Reason| ImageBuildError {
            place: Box::new(Place {
                file: self.context.file.clone(),
                line,
                step: Some(format!("step {prefix}{at}/{count}, {}", shortened(text))),
            }),
            reason,
        };
        self.report
            .step(&format!("{prefix}STEP 1/{count}: {}", stage.text));
        let mut now = self
            .from(place)
            .map_err(|reason| failed(stage.line, 1, &stage.text, reason))?;
        for trigger in now.config.take_triggers() {
            let at = |reason| failed(stage.line, 1, &format!("ONBUILD {trigger}"), reason);
            self.report.step(&format!("{prefix}ONBUILD: {trigger}"));
            let step = parse::parse_trigger(&trigger).map_err(|reason| at(reason.into()))?;
            now = self.step(now, &step, place).map_err(at)?;
        }
        for (at, step) in stage.steps.iter().enumerate() {
            self.report
                .step(&format!("{prefix}STEP {}/{count}: {}", at + 2, step.text));
            now = self
                .step(now, step, place)
                .map_err(|reason| failed(step.line, at + 2, &step.text, reason))?;
        }
        if let Some(done) = self.done.get_mut(place) {
            *done = Some(now);
        }
        Ok(())
    }

    /// What a stage begins with.
    fn from(&mut self, place: usize) -> Result<Stage> {
        let store = self.store;
        let layer = |id: Option<ChainId>| id.map(|id| store.layer(&id)).transpose();
        match self.plan.origins.get(place) {
            Some(plan::Origin::Image(name)) => {
                let image = store.image(name)?;
                let config = Config::of_image(image.raw_config())
                    .map_err(|reason| format!("image {name}: {reason}"))?;
                Ok(Stage {
                    config,
                    args: Args::default(),
                    layer: layer(image.top())?,
                    identity: *Key::of(&[VERSION, b"image", image.id().as_bytes()]).as_bytes(),
                })
            }
            Some(plan::Origin::Stage(below)) => {
                let below = self.done.get(*below).and_then(Option::as_ref);
                let below = below.ok_or_else(|| "the stage below was not built".to_owned())?;
                Ok(Stage {
                    config: below.config.clone(),
                    args: Args::default(),
                    layer: layer(below.layer.as_ref().map(|layer| *layer.id()))?,
                    identity: below.identity,
                })
            }
            _ => Ok(Stage {
                config: Config::scratch(),
                args: Args::default(),
                layer: None,
                identity: *Key::of(&[VERSION, b"scratch"]).as_bytes(),
            }),
        }
    }

    fn step(&mut self, mut stage: Stage, step: &Step, place: usize) -> Result<Stage> {
        let escape = self.file.escape;
        if let Some(created_by) = stage.configure(&step.instruction, &mut self.globals, escape)? {
            return self.settings(stage, &created_by);
        }
        let root = stage.layer.as_ref().map(Layer::root_fd).transpose()?;
        let base = root.as_ref().map(|root| Tree::new(root.as_fd()));
        let (made, created_by) = match &step.instruction {
            Instruction::Workdir(path) => {
                let path = stage.expand(path, escape)?;
                if path.is_empty() {
                    return Err("WORKDIR needs a path".to_owned().into());
                }
                let path = stage.config.set_workdir(&path);
                let mut additions = workdir(base, &path)?;
                additions.settle_times(self.epoch());
                let words = format!("WORKDIR {path}");
                (
                    self.add(&stage, &additions, &words)?,
                    stage.config.not_run(&words),
                )
            }
            Instruction::Copy(copy) => self.copy(&stage, base, copy, ("COPY", place))?,
            Instruction::Add(copy) => self.copy(&stage, base, copy, ("ADD", place))?,
            Instruction::Run(run) => self.command(&stage, run)?,
            _ => return Err("this instruction is not supported".to_owned().into()),
        };
        drop(root);
        if made.diff_id.is_none() {
            let Made { created, .. } = made;
            stage.identity = identity(&stage, &created_by);
            stage.config.record(&created, &created_by, None);
            return Ok(stage);
        }
        if let Some(layer) = &made.layer {
            self.report
                .note(&format!("--> {}", layer.id().hex().get(..12).unwrap_or_default()));
        }
        stage.identity = identity(&stage, &created_by);
        stage
            .config
            .record(&made.created, &created_by, made.diff_id.map(|id| id.to_string()));
        stage.layer = made.layer;
        Ok(stage)
    }

    /// Records a step that made no layer, with the time it was first done.
    fn settings(&mut self, mut stage: Stage, created_by: &str) -> Result<Stage> {
        let key = Key::of(&[VERSION, b"settings", &stage.identity, created_by.as_bytes()]);
        let created = match self.cache.find(&key)? {
            Some((entry, _)) => entry.created,
            None => {
                let created = self.now();
                let entry = Entry {
                    layer: stage.layer.as_ref().map(|layer| *layer.id()),
                    made: None,
                    created: created.clone(),
                };
                self.cache.put(&key, &entry, None)?;
                created
            }
        };
        stage.identity = identity(&stage, created_by);
        stage.config.record(&created, created_by, None);
        Ok(stage)
    }

    fn copy(
        &mut self,
        stage: &Stage,
        base: Option<Tree<'_>>,
        copy: &Copy,
        (name, place): (&str, usize),
    ) -> Result<(Made, String)> {
        let (source, words) = self.source_of(copy, place)?;
        let nothing = Ignore::nothing();
        let origin = match &source {
            Some(root) => Origin {
                tree: Tree::new(root.as_fd()),
                ignore: &nothing,
                name: &words,
                keep_owner: true,
            },
            None => Origin {
                tree: self.context.tree(),
                ignore: &self.context.ignore,
                name: "the context",
                keep_owner: false,
            },
        };
        let files = Files {
            store: self.store,
            stage,
            base,
            origin,
            unpacks: name == "ADD",
            escape: self.file.escape,
        };
        let sources = files.unpack(copy)?;
        let mut notes = Vec::new();
        let mut additions = files.gather(copy, &sources, &mut |note| notes.push(note))?;
        additions.settle_times(self.epoch());
        for note in notes {
            self.report.warn(&note);
        }
        let digest = hex::encode(additions.digest()?);
        let kind = match sources.as_slice() {
            [(_, selected, None)] if selected.stat.is_dir() => "dir",
            [_] => "file",
            [] if copy.sources.len() == 1 => "file",
            _ => "multi",
        };
        let destination = stage.expand(&copy.destination, self.file.escape)?;
        let made = self.add(stage, &additions, &format!("{name} {digest}"))?;
        let words = format!("{name} {kind}:{digest} in {destination} ");
        Ok((made, stage.config.not_run(&words)))
    }

    /// The tree that a COPY takes files from, none for the context; and its name.
    fn source_of(&self, copy: &Copy, place: usize) -> Result<(Option<OwnedFd>, String)> {
        let Some(from) = &copy.from else {
            return Ok((None, String::new()));
        };
        if copy
            .sources
            .iter()
            .any(|source| matches!(source, Source::Inline(_)))
        {
            return Err("COPY --from takes paths, not here-documents".to_owned().into());
        }
        let (layer, words) = match origin_of_copy(self.file, from, place) {
            plan::Origin::Stage(other) => {
                let stage = self.done.get(other).and_then(Option::as_ref);
                let layer = stage.and_then(|stage| stage.layer.as_ref());
                (
                    layer.map(Layer::root_fd).transpose()?,
                    format!("the stage {from}"),
                )
            }
            _ => {
                let top = self.store.image(from)?.top();
                let layer = top.map(|id| self.store.layer(&id)).transpose()?;
                (
                    layer.as_ref().map(Layer::root_fd).transpose()?,
                    format!("the image {from}"),
                )
            }
        };
        match layer {
            Some(root) => Ok((Some(root), words)),
            None => Err(format!("{words} has no files").into()),
        }
    }

    /// Makes a layer of additions, or finds it.
    fn add(&mut self, stage: &Stage, additions: &Additions<'_>, words: &str) -> Result<Made> {
        if additions.is_empty() {
            return Ok(Made {
                layer: None,
                diff_id: None,
                created: self.now(),
            });
        }
        let digest = additions.digest()?;
        let key = self.key(stage, &[b"files", words.as_bytes(), &digest]);
        self.layer(stage, &key, |to| Ok(additions.write(to)?))
    }

    fn command(&mut self, stage: &Stage, run: &Run) -> Result<(Made, String)> {
        let Some(below) = &stage.layer else {
            return Err(
                "there are no files yet that a command could be among: COPY or ADD some before"
                    .to_owned()
                    .into(),
            );
        };
        let network = match run.network.as_deref() {
            None | Some("default") => self.request.network,
            Some("host") => Network::Host,
            Some("none") => Network::None,
            Some(other) => return Err(format!("RUN --network={other}: there are host and none").into()),
        };
        let environment = Environment {
            args: stage.args.for_run(&stage.config),
            unsaid: stage.args.proxies(&self.globals, &stage.config),
            network,
        };
        let words = run::words(run, stage);
        let created_by = run::created_by(&words, &environment.args);
        let mut parts = vec![b"run".to_vec(), created_by.clone().into_bytes()];
        for (name, value) in stage.config.env() {
            parts.push(format!("{name}={value}").into_bytes());
        }
        parts.push(stage.config.workdir().into_bytes());
        parts.push(stage.config.user().into_bytes());
        parts.push(network.word().as_bytes().to_vec());
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let key = self.key(stage, &parts);
        if let Some(made) = self.cached(&key)? {
            return Ok((made, created_by));
        }
        let changed = Changed::by(self.store, stage, below, &words, &environment)?;
        if changed.is_nothing()? {
            let created = self.now();
            let entry = Entry {
                layer: Some(*below.id()),
                made: None,
                created: created.clone(),
            };
            self.cache.put(&key, &entry, None)?;
            let made = Made {
                layer: None,
                diff_id: None,
                created,
            };
            return Ok((made, created_by));
        }
        let mut skipped = Vec::new();
        let made = self.fresh(stage, &key, |to| {
            skipped = changed.write(to)?;
            Ok(())
        })?;
        for line in skipped {
            self.report.warn(&line);
        }
        Ok((made, created_by))
    }

    fn key(&self, stage: &Stage, parts: &[&[u8]]) -> Key {
        let parent = stage
            .layer
            .as_ref()
            .map(|layer| layer.id().hex())
            .unwrap_or_default();
        let mut all: Vec<&[u8]> = vec![VERSION, parent.as_bytes()];
        all.extend(parts);
        Key::of(&all)
    }

    /// What the cache has.
    fn cached(&mut self, key: &Key) -> Result<Option<Made>> {
        let Some((entry, layer)) = self.cache.find(key)? else {
            return Ok(None);
        };
        self.report.note("--> Using cache");
        Ok(Some(Made {
            layer: layer.filter(|_| entry.made.is_some()),
            diff_id: entry.made,
            created: entry.created,
        }))
    }

    fn layer(
        &mut self,
        stage: &Stage,
        key: &Key,
        write: impl FnOnce(&mut StreamWriter) -> Result<()> + Send,
    ) -> Result<Made> {
        match self.cached(key)? {
            Some(made) => Ok(made),
            None => self.fresh(stage, key, write),
        }
    }

    /// Makes a layer of what `write` writes, over the one of the stage, and notes it in the cache.
    fn fresh(
        &mut self,
        stage: &Stage,
        key: &Key,
        write: impl FnOnce(&mut StreamWriter) -> Result<()> + Send,
    ) -> Result<Made> {
        let parent = stage.layer.as_ref().map(Layer::id);
        let progress = self.report.progress();
        let layer = add_layer(self.store, parent, write, &*progress)?;
        drop(progress);
        let diff_id = layer.diff_id()?;
        let created = self.now();
        let entry = Entry {
            layer: Some(*layer.id()),
            made: Some(diff_id),
            created: created.clone(),
        };
        self.cache.put(key, &entry, Some(&layer))?;
        Ok(Made {
            layer: Some(layer),
            diff_id: Some(diff_id),
            created,
        })
    }

    /// The time of what nothing dates.
    fn epoch(&self) -> Time {
        Time {
            secs: self.request.epoch.unwrap_or_default(),
            nanos: 0,
        }
    }

    fn now(&self) -> String {
        let set = self
            .request
            .epoch
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        set.unwrap_or_else(jiff::Timestamp::now).to_string()
    }
}

/// The archive is written in a thread while the store reads it.
fn add_layer(
    store: &Store,
    parent: Option<&ChainId>,
    write: impl FnOnce(&mut StreamWriter) -> Result<()> + Send,
    progress: &dyn Progress,
) -> Result<Layer> {
    let (mut writer, reader) = stream();
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            write(&mut writer)?;
            writer.end().map_err(|source| {
                Reason::Build(BuildError::Stream {
                    what: "write the layer archive",
                    source,
                })
            })
        });
        let layer = store.add_layer(parent, reader, None, progress);
        let written = match writing.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (layer, written) {
            (Ok(layer), Ok(())) => Ok(layer),
            // Where the reader gave up first, the writer only heard of it.
            (Err(error), Err(Reason::Build(BuildError::Stream { source, .. })))
                if source.kind() == std::io::ErrorKind::BrokenPipe =>
            {
                Err(error.into())
            }
            (_, Err(reason)) => Err(reason),
            (Err(error), Ok(())) => Err(error.into()),
        }
    })
}

fn identity(stage: &Stage, created_by: &str) -> [u8; 32] {
    let layer = stage
        .layer
        .as_ref()
        .map(|layer| layer.id().hex())
        .unwrap_or_default();
    *Key::of(&[&stage.identity, layer.as_bytes(), created_by.as_bytes()]).as_bytes()
}

/// A step's text as a message names it.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

impl From<StoreError> for ImageBuildError {
    fn from(error: StoreError) -> Self {
        Self {
            place: Box::default(),
            reason: error.into(),
        }
    }
}
