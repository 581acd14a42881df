//! The steps that make a layer: what it is made from, whether that was done before, and doing it.

use std::os::fd::{AsFd, OwnedFd};

use super::additions::Additions;
use super::cache::{Entry, Key};
use super::error::{Reason, Result};
use super::files::Files;
use super::gather::Origin;
use super::ignore::Ignore;
use super::parse::{Copy, Run, Source};
use super::plan::{self, origin_of_copy};
use super::run::{self, Changed, Environment};
use super::stage::Stage;
use super::steps::{Builder, VERSION};
use super::stream::{StreamWriter, stream};
use super::tree::Tree;
use crate::builder::{BuildError, Progress};
use crate::store::runtime::Network;
use crate::store::{ChainId, DiffId, Layer, Store};

/// What a step made.
pub(super) struct Made {
    /// The layer.
    pub(super) layer: Option<Layer>,
    /// Its diff id; none if the step made no layer.
    pub(super) diff_id: Option<DiffId>,
    /// When.
    pub(super) created: String,
}

impl Builder<'_> {
    /// COPY or ADD in the stage at a place; answers how history words it, too.
    pub(super) fn copy(
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
    pub(super) fn add(&mut self, stage: &Stage, additions: &Additions<'_>, words: &str) -> Result<Made> {
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

    /// RUN; answers how history words it, too.
    pub(super) fn command(&mut self, stage: &Stage, run: &Run) -> Result<(Made, String)> {
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
