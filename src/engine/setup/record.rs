//! What was there before, and how it comes back.

use std::fs::Metadata;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::text::Syntax;
use super::{EngineError, Result};

/// One value that was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// From the outermost table inwards.
    pub key: Vec<String>,
    /// As it was written before; none if it was not there.
    pub before: Option<String>,
    /// As it is written now.
    pub after: String,
}

impl Change {
    /// The change that puts `value` at `key`.
    pub(super) fn plan(
        syntax: Syntax,
        text: &str,
        key: &[&str],
        value: String,
    ) -> std::result::Result<Self, String> {
        let key: Vec<String> = key.iter().map(ToString::to_string).collect();
        let before = syntax.get(text, &key)?;
        Ok(Self {
            key,
            before,
            after: value,
        })
    }

    fn name(&self) -> String {
        self.key.join(".")
    }
}

/// The record of a set-up, in JSON, beside the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// For who finds it.
    pub note: String,
    /// The whole text before; none if there was no file.
    pub before: Option<String>,
    /// The whole text that was written.
    pub after: String,
    /// The values that were set.
    pub changes: Vec<Change>,
    /// Directories that were made for the file, the outermost first.
    pub made: Vec<PathBuf>,
    /// The link that was made.
    pub link: Option<PathBuf>,
}

/// Where the record of a configuration lies.
pub(super) fn path(config: &Path) -> PathBuf {
    let mut name = config.file_name().unwrap_or_default().to_owned();
    name.push(".plyfs");
    config.with_file_name(name)
}

/// The file behind a path, whose last part need not exist: a link stays a link when its file is replaced.
pub(super) fn resolve(config: &Path) -> Result<PathBuf> {
    match config.canonicalize() {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == ErrorKind::NotFound => match std::fs::read_link(config) {
            Ok(target) => Err(EngineError::Refused(format!(
                "{} is a link to {}, which is not there: make that file, or remove the link",
                config.display(),
                target.display()
            ))),
            Err(_) => Ok(config.to_owned()),
        },
        Err(error) => Err(EngineError::io("look at", config)(error)),
    }
}

/// The text of a file; none if it is not there.
pub(super) fn read(config: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(config) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::io("read", config)(error)),
    }
}

/// Makes a directory and what is missing above it; answers those that were made.
pub(super) fn make_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|dir| !dir.exists())
        .map(Path::to_owned)
        .collect();
    std::fs::create_dir_all(dir).map_err(EngineError::io("make the directory", dir))?;
    Ok(missing.into_iter().rev().collect())
}

/// Puts a new text in the place of a file in one step, with the owner and the mode of the old one.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let old = match std::fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(EngineError::io("look at", path)(error)),
    };
    write_whole(path, text, old.as_ref()).map_err(EngineError::io("write", path))
}

fn write_whole(path: &Path, text: &str, like: Option<&Metadata>) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".plyfs-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    let mode = like.map_or(0o644, |old| old.mode() & 0o7777);
    if let Some(old) = like {
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            chown(file.path(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(dir)?.sync_all()
}

impl Record {
    /// The record beside `config`, if there is one.
    pub(super) fn read(config: &Path) -> Result<Option<Self>> {
        let path = path(config);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            EngineError::Refused(format!(
                "{} is no record of 'plyfs engine setup' ({error}): move it away",
                path.display()
            ))
        })
    }

    /// Writes the record beside `config`.
    pub(super) fn write(&self, config: &Path) -> Result<()> {
        let path = path(config);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| EngineError::io("write", &path)(error.into()))?;
        replace(&path, &(text + "\n"))
    }

    /// Takes over from the record of an earlier set-up, so that an undo leads back behind that one.
    pub(super) fn follow(&mut self, earlier: Self, syntax: Syntax) {
        // What the person wrote in between stays, also behind an undo.
        let back = match &self.before {
            Some(now) if *now == earlier.after => Some(earlier.before.clone()),
            Some(now) => earlier.revert(now, syntax).ok().map(Some),
            None => None,
        };
        if let Some(before) = back {
            for change in &mut self.changes {
                if let Some(old) = earlier.changes.iter().find(|old| old.key == change.key) {
                    change.before.clone_from(&old.before);
                }
            }
            self.before = before;
        }
        self.made = earlier.made;
        if self.link.is_none() {
            self.link = earlier.link;
        }
    }

    /// `now` with each value as it was before.
    fn revert(&self, now: &str, syntax: Syntax) -> std::result::Result<String, String> {
        let mut text = now.to_owned();
        for change in &self.changes {
            if change.before.as_ref() == Some(&change.after) {
                continue;
            }
            let found = syntax.get(&text, &change.key)?;
            if found.as_ref() != Some(&change.after) {
                return Err(format!(
                    "'{}' was set to {} and is {} now",
                    change.name(),
                    change.after,
                    found.as_deref().unwrap_or("gone")
                ));
            }
            text = match &change.before {
                Some(before) => syntax.set(&text, &change.key, before)?,
                None => syntax.remove(&text, &change.key)?,
            };
        }
        Ok(text)
    }

    /// Brings the configuration back to what it was: exactly, if nobody has touched it since; else by its values.
    ///
    /// # Errors
    /// When the values are not those that were set, or the file cannot be written.
    pub(super) fn restore(&self, config: &Path, now: Option<&str>, syntax: Syntax) -> Result<()> {
        let refused = |why: String| {
            EngineError::Refused(format!(
                "{}: {why}: somebody has changed it since, so it is left alone; edit it by hand, and remove {}, \
                 which has the earlier text",
                config.display(),
                path(config).display()
            ))
        };
        if now == self.before.as_deref() {
            return Ok(());
        }
        let Some(now) = now else {
            return Err(refused("it is gone".to_owned()));
        };
        if now != self.after {
            let text = self.revert(now, syntax).map_err(refused)?;
            return replace(config, &text);
        }
        match &self.before {
            Some(before) => replace(config, before),
            None => std::fs::remove_file(config).map_err(EngineError::io("remove", config)),
        }
    }

    /// Removes the record, and the directories that were made, as far as nothing else is in them.
    pub(super) fn forget(&self, config: &Path) -> Result<()> {
        let path = path(config);
        std::fs::remove_file(&path).map_err(EngineError::io("remove", &path))?;
        for dir in self.made.iter().rev() {
            match std::fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                    break;
                }
                Err(error) => return Err(EngineError::io("remove", dir)(error)),
            }
        }
        Ok(())
    }
}
