//! What a container changed: told, kept as a layer, or written out whole.

use std::io::{BufWriter, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use super::create::now;
use super::{Container, Use};
use crate::builder::diff::{Change, Upper, diff_upper};
use crate::builder::layer_tar::{Written, write_layer_tree, write_layer_upper};
use crate::builder::{self, Progress};
use crate::format::{Links, TreeId};
use crate::store::build::config::Config;
use crate::store::build::expand::expand;
use crate::store::build::parse::{Command, Instruction, parse};
use crate::store::view::{Lasting, View, marks};
use crate::store::{Image, ImageId, Name, Result, StoreError};

/// What a commit is to say, beside the changes.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Why.
    pub message: Option<String>,
    /// Who.
    pub author: Option<String>,
    /// Instructions of a Containerfile that change the new image's config: `CMD ["sh"]`, `ENV A=1`.
    pub changes: Vec<String>,
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The new image.
    pub image: ImageId,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// The layer of a container, open for a comparison with its upper.
struct Sides {
    upper: OwnedFd,
    lower: OwnedFd,
    init: OwnedFd,
    links: Option<Links>,
}

impl Sides {
    fn of(container: &Container<'_>) -> Result<Self> {
        let layer = container.layer()?;
        let lower = layer.root_fd()?;
        let mut text = Vec::new();
        layer
            .file("links")?
            .read_to_end(&mut text)
            .map_err(StoreError::io("read", layer.path().join("links")))?;
        let recorded = Links::decode(&text);
        let own = TreeId::of(&lower).map_err(StoreError::errno("look at", layer.root_path()))?;
        Ok(Self {
            upper: container.upper()?,
            init: container.init_upper()?,
            links: recorded.filter(|links| links.tree() == own),
            lower,
        })
    }

    fn use_in<T>(&self, call: impl FnOnce(Upper<'_>) -> builder::Result<T>) -> builder::Result<T> {
        let names = |ino| self.links.as_ref().map_or(1, |links| links.names_of(ino));
        let upper = Upper {
            upper: self.upper.as_fd(),
            lower: self.lower.as_fd(),
            init: Some(self.init.as_fd()),
            // What a program in the container set in the other one is plain data.
            namespace: Some(marks()),
            names: self.links.is_some().then_some(&names),
        };
        call(upper)
    }
}

/// The reading end of a pipe: its end counts only once the writer says that it wrote everything.
struct Checked {
    pipe: PipeReader,
    /// None once the word came.
    whole: Option<Receiver<()>>,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.pipe.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Some(whole) = &self.whole
        {
            let broken = |_| std::io::Error::other("the changes could not be read to their end");
            whole.recv().map_err(broken)?;
            self.whole = None;
        }
        Ok(read)
    }
}

impl Container<'_> {
    /// Tells each change since the container was made, in docker's order of letters and paths.
    ///
    /// # Errors
    /// When a directory cannot be read, or what `each` answers.
    pub fn diff(&self, each: &mut dyn FnMut(Change) -> builder::Result<()>) -> Result<()> {
        let sides = Sides::of(self)?;
        sides
            .use_in(|upper| diff_upper(upper, each))
            .map_err(StoreError::of(format!("container {}", self.record.name)))
    }

    /// Makes an image of the container's image and its changes, and gives it names.
    ///
    /// # Errors
    /// When something cannot be read, changed meanwhile, or cannot be kept in a layer; an instruction that is not
    /// understood.
    pub fn commit(&self, commit: &Commit, names: &[Name], progress: &dyn Progress) -> Result<Committed> {
        let _turn = self.turn()?;
        let image = self.store.image(&self.record.image)?;
        let mut config = self.settled_config(&image)?;
        for text in &commit.changes {
            change(&mut config, text)?;
        }
        let sides = Sides::of(self)?;
        let (pipe, writer) = std::io::pipe().map_err(StoreError::io("make a pipe for", &self.path))?;
        let (say, whole) = channel();
        let reader = Checked {
            pipe,
            whole: Some(whole),
        };
        let (layer, written) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| -> builder::Result<Written> {
                let (say, mut to) = (say, BufWriter::with_capacity(1 << 18, writer));
                let written = sides.use_in(|upper| write_layer_upper(upper, &mut to))?;
                to.flush().map_err(|source| builder::BuildError::Stream {
                    what: "write the layer archive",
                    source,
                })?;
                // Nobody listens any more if the layer was refused; that error counts.
                say.send(()).ok();
                Ok(written)
            });
            let layer = self.store.add_layer(Some(&self.lower), reader, None, progress);
            (layer, writing.join())
        });
        let written = match written {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let subject = format!("container {}", self.record.name);
        // What went wrong while reading the changes is the reason, and not that the archive broke off.
        let (layer, written) = match (layer, written) {
            (Ok(layer), written) => (layer, written.map_err(StoreError::of(subject))?),
            (Err(_), Err(error)) if !is_broken_pipe(&error) => return Err(StoreError::of(subject)(error)),
            (Err(error), _) => return Err(error),
        };
        let (_, created) = now();
        let argv = self.record.config.argv().join(" ");
        config.record(&created, &argv, Some(layer.diff_id()?.to_string()));
        let text = self.sign(&config, commit)?;
        let image = self.store.add_image(&text, None, names)?;
        drop(layer);
        Ok(Committed {
            image,
            skipped: written
                .skipped
                .into_iter()
                .map(|(path, why)| format!("{path}: {why}"))
                .collect(),
        })
    }

    /// The image's config with the container's settings.
    fn settled_config(&self, image: &Image) -> Result<Config> {
        let mut config = Config::of_image(image.raw_config()).map_err(StoreError::Refused)?;
        let settings = &self.record.config;
        for variable in &settings.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            config.set_env(name, value);
        }
        // An image that has none gets none, rather than an empty one.
        if !settings.entrypoint.is_empty() || config.has("Entrypoint") {
            config.set_entrypoint(&Command::Exec(settings.entrypoint.clone()));
        }
        if !settings.cmd.is_empty() || config.has("Cmd") {
            config.set_cmd(&Command::Exec(settings.cmd.clone()));
        }
        if !settings.user.is_empty() {
            config.set_user(&settings.user);
        }
        if !settings.working_dir.is_empty() {
            config.set_workdir(&settings.working_dir);
        }
        Ok(config)
    }

    /// The config as JSON, with the words of who commits.
    fn sign(&self, config: &Config, commit: &Commit) -> Result<Vec<u8>> {
        let failed = |error| StoreError::Refused(format!("cannot write the image config: {error}"));
        let mut whole: Value = serde_json::from_slice(&config.render().map_err(failed)?).map_err(failed)?;
        if let (Some(author), Some(image)) = (&commit.author, whole.as_object_mut()) {
            image.insert("author".to_owned(), json!(author));
        }
        let step = whole
            .get_mut("history")
            .and_then(Value::as_array_mut)
            .and_then(|history| history.last_mut())
            .and_then(Value::as_object_mut);
        if let Some(step) = step {
            for (name, value) in [("author", &commit.author), ("comment", &commit.message)] {
                if let Some(value) = value {
                    step.insert(name.to_owned(), json!(value));
                }
            }
        }
        serde_json::to_vec(&whole).map_err(failed)
    }

    /// Writes the whole merged tree as a tar archive. To be called without threads, unless it is mounted.
    ///
    /// # Errors
    /// When it cannot be mounted or read, or `to` not be written.
    pub fn export(&self, to: impl Write) -> Result<Written> {
        let turn = self.turn()?;
        let view = match self.in_use()? {
            Use::Idle => {
                self.remove_merged()?;
                crate::sys::at::mkdir_at(&self.dir, b"merged", 0o700)
                    .map_err(StoreError::errno("make", self.path.join("merged")))?;
                Some(View::mount(
                    self.directories(),
                    Some(self.source()),
                    Lasting::WithProcess,
                    true,
                ))
            }
            Use::Mounted | Use::Running => None,
        };
        let mounted_here = view.is_some();
        let written = view.transpose().and_then(|view| {
            let written = self.export_view(to);
            match view {
                Some(view) => view.unmount().and(written),
                None => written,
            }
        });
        if mounted_here {
            self.remove_merged()?;
        }
        drop(turn);
        written
    }

    fn export_view(&self, to: impl Write) -> Result<Written> {
        let merged = self.directories().merged;
        let view = std::fs::File::open(&merged).map_err(StoreError::io("open", &merged))?;
        write_layer_tree(view.as_fd(), to).map_err(StoreError::of(format!("container {}", self.record.name)))
    }
}

fn is_broken_pipe(error: &builder::BuildError) -> bool {
    error.errno() == Some(crate::sys::Errno::PIPE)
}

/// Carries out one `--change`.
fn change(config: &mut Config, text: &str) -> Result<()> {
    let refused = |why: String| StoreError::Refused(format!("--change '{text}': {why}"));
    let file = parse(&format!("FROM scratch\n{text}\n")).map_err(|(_, why)| refused(why))?;
    let steps = file.stages.into_iter().flat_map(|stage| stage.steps);
    for step in steps {
        match step.instruction {
            Instruction::Env(pairs) => {
                for (name, value) in pairs {
                    let value = plain(config, &value).map_err(refused)?;
                    config.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (plain(config, &name), plain(config, &value));
                    config.set_label(&name.map_err(refused)?, &value.map_err(refused)?);
                }
            }
            Instruction::Cmd(command) => config.set_cmd(&command),
            Instruction::Entrypoint(command) => config.set_entrypoint(&command),
            Instruction::Shell(words) => config.set_shell(&words),
            Instruction::User(user) => config.set_user(&user),
            Instruction::Workdir(path) => drop(config.set_workdir(&path)),
            Instruction::Stopsignal(signal) => config.set_stop_signal(&signal),
            Instruction::Volume(paths) => paths.iter().for_each(|path| config.add_volume(path)),
            Instruction::Expose(ports) => {
                for port in ports {
                    config.expose(&port).map_err(refused)?;
                }
            }
            Instruction::Onbuild(trigger) => config.add_trigger(&trigger),
            _ => {
                return Err(refused(
                    "it takes CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR"
                        .to_owned(),
                ));
            }
        }
    }
    Ok(())
}

/// A value without its quotes, and with the variables that the image has.
fn plain(config: &Config, text: &str) -> std::result::Result<String, String> {
    expand(text, '\\', &|name| config.env_of(name))
}
