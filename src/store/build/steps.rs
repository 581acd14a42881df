//! Doing the steps of the stages that are needed, one after the other.

use std::os::fd::AsFd;

use super::cache::{Cache, Entry, Key};
use super::config::Config;
use super::context::Context;
use super::error::{ImageBuildError, Place, Reason, Result};
use super::files::workdir;
use super::make::Made;
use super::parse::{self, File, Instruction, Step};
use super::plan::{self, Plan};
use super::stage::Stage;
use super::tree::Tree;
use super::variables::{Args, Globals};
use super::{Report, Request};
use crate::store::{ChainId, Layer, Store};
use crate::sys::stat::Time;

/// Part of every key: another way of building is another cache.
pub(super) const VERSION: &[u8] = b"1";

/// A build that is going on.
pub(super) struct Builder<'a> {
    pub(super) store: &'a Store,
    pub(super) request: &'a Request,
    pub(super) context: &'a Context,
    pub(super) file: &'a File,
    plan: &'a Plan,
    pub(super) cache: &'a Cache<'a>,
    pub(super) globals: Globals,
    pub(super) report: &'a mut dyn Report,
    /// By their place in the file.
    pub(super) done: Vec<Option<Stage>>,
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
                place: Place::default(),
                reason: Box::new(Reason::Refused("there is nothing to build".to_owned())),
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
            place: Place {
                file: self.context.file.clone(),
                line,
                step: Some(format!("step {prefix}{at}/{count}, {}", shortened(text))),
            },
            reason: Box::new(reason),
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

    /// The time of what nothing dates.
    pub(super) fn epoch(&self) -> Time {
        Time {
            secs: self.request.epoch.unwrap_or_default(),
            nanos: 0,
        }
    }

    pub(super) fn now(&self) -> String {
        let set = self
            .request
            .epoch
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        set.unwrap_or_else(jiff::Timestamp::now).to_string()
    }
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
