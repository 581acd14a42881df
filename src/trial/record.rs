//! What is remembered of a trial.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{self, How};
use super::{Result, TrialError, failed};
use crate::builder::TreePath;
use crate::builder::remove::remove_tree;
use crate::mount::{JsonPath, mountinfo, private, who};
use crate::sys::stat::Time;
use crate::upper::Restored;

/// What to try.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The directory, or the root of everything.
    pub dir: PathBuf,
    /// What the trial is called; a number if nobody says.
    pub name: Option<String>,
}

/// A mount that is layered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Layer {
    /// Where it is, and so the lower.
    pub(super) point: JsonPath,
    /// Directories of other users that the upper has from the start, below the point.
    #[serde(default)]
    pub(super) seeds: Vec<JsonPath>,
    /// What an undo put back in the lower, and its change time since.
    #[serde(default)]
    known: Vec<(JsonPath, i64, u32)>,
}

impl Layer {
    pub(super) fn known(&self) -> Vec<Restored> {
        let one = |(path, secs, nanos): &(JsonPath, i64, u32)| {
            let path = TreePath::from_clean(path.path().as_os_str().as_bytes());
            (
                path,
                Time {
                    secs: *secs,
                    nanos: *nanos,
                },
            )
        };
        self.known.iter().map(one).collect()
    }
}

/// The file `record`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    dir: JsonPath,
    /// After this time nobody should have changed the lower.
    since: (i64, u32),
    layers: Vec<Layer>,
    /// How the last command ended.
    status: Option<u8>,
    /// The changes are in the lower.
    kept: bool,
}

/// A trial and its directory.
#[derive(Debug)]
pub struct Trial {
    name: String,
    home: PathBuf,
    record: Record,
}

/// Where trials are.
fn place() -> Result<PathBuf> {
    who::own_directory("XDG_STATE_HOME", ".local/state")
        .map(|dir| dir.join("try"))
        .ok_or_else(|| {
            TrialError::Refused(
                "there is no home directory to keep a trial in: set HOME or XDG_STATE_HOME".to_owned(),
            )
        })
}

/// All trials of this user, by name.
///
/// # Errors
/// When the state directory cannot be read. A trial that was not finished being made is left out.
pub fn all() -> Result<Vec<Trial>> {
    let place = place()?;
    let listing = match std::fs::read_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(failed("read", &place))?,
    };
    let mut trials = Vec::new();
    for item in listing {
        let name = item.map_err(failed("read", &place))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if place.join(name).join("record").exists() {
            trials.push(Trial::find(name)?);
        }
    }
    trials.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(trials)
}

fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) || !name.chars().all(fine) {
        return Err(TrialError::Refused(format!(
            "{name:?} is no name for a trial: letters, digits, '-', '_' and '.', at most 64"
        )));
    }
    Ok(())
}

impl Trial {
    /// Makes a new one: layers for the directory and for what is mounted below it.
    ///
    /// # Errors
    /// When the directory is none, the name is taken, or the state directory cannot be written.
    pub fn make(wanted: &Wanted) -> Result<Self> {
        let dir = wanted.dir.canonicalize().map_err(failed("try on", &wanted.dir))?;
        if !dir.is_dir() {
            return Err(TrialError::Refused(format!("{}: not a directory", dir.display())));
        }
        let place = place()?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .map_err(failed("make", &place))?;
        let (name, home) = new_home(&place, wanted.name.as_deref())?;
        let mounts = mountinfo::read().map_err(failed("read", Path::new("/proc/self/mountinfo")))?;
        let layers: Vec<Layer> = layout::parts(&mounts, &dir, Path::is_dir)
            .into_iter()
            .filter(|part| part.how == How::Layer)
            .map(|part| Layer {
                point: part.point.as_path().into(),
                seeds: Vec::new(),
                known: Vec::new(),
            })
            .collect();
        let mut trial = Self {
            name,
            home,
            record: Record {
                dir: dir.as_path().into(),
                since: (0, 0),
                layers,
                status: None,
                kept: false,
            },
        };
        match trial.furnish() {
            Ok(()) => Ok(trial),
            Err(error) => {
                if let Err(left) = trial.remove() {
                    log::warn!("{left}");
                }
                Err(error)
            }
        }
    }

    fn furnish(&mut self) -> Result<()> {
        let make = |path: &Path| {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(failed("make", path))
        };
        let mut done = || -> Result<()> {
            make(&self.merged())?;
            for number in 0..self.record.layers.len() {
                let home = self.home.join(number.to_string());
                make(&home)?;
                let [upper, work] = self.directories(number);
                make(&upper)?;
                make(&work)?;
            }
            self.seed()?;
            for (number, layer) in self.record.layers.iter().enumerate() {
                let [upper, _] = self.directories(number);
                // From the inside out: what is made in a directory changes its times.
                for seed in layer.seeds.iter().rev().map(JsonPath::path) {
                    let (lower, upper) = (layer.point.path().join(&seed), upper.join(&seed));
                    private::look_like(&lower, &upper).map_err(failed("make", &upper))?;
                }
                private::look_like(&layer.point.path(), &upper).map_err(failed("make", &upper))?;
            }
            // The machine's own clock for such times, which is a little behind.
            let found = std::fs::metadata(self.merged()).map_err(failed("look at", &self.home))?;
            let nanos = u32::try_from(found.ctime_nsec()).unwrap_or(0);
            self.record.since = (found.ctime(), nanos);
            Ok(())
        };
        done()?;
        self.write()
    }

    /// An ordinary user cannot copy up a directory of somebody else, whose owner has no number in the namespace. So the
    /// ways to where this user may write are in the upper from the start, as this user's own.
    fn seed(&mut self) -> Result<()> {
        let own = rustix::process::geteuid();
        if own.is_root() {
            return Ok(());
        }
        let named = ["HOME", "TMPDIR"]
            .into_iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from);
        let wanted = named
            .chain(std::env::current_dir())
            .chain(["/tmp", "/var/tmp"].map(PathBuf::from))
            .filter_map(|path| path.canonicalize().ok());
        for path in wanted.collect::<Vec<_>>() {
            let layers = self.record.layers.iter().enumerate();
            let Some(number) = layers
                .filter(|(_, layer)| path.starts_with(layer.point.path()))
                .max_by_key(|(_, layer)| layer.point.path().as_os_str().len())
                .map(|(number, _)| number)
            else {
                continue;
            };
            let [upper, _] = self.directories(number);
            let Some(layer) = self.record.layers.get_mut(number) else {
                continue;
            };
            let point = layer.point.path();
            let below = path.strip_prefix(&point).unwrap_or(Path::new(""));
            let mut here = PathBuf::new();
            for name in below.components() {
                here.push(name);
                let theirs = std::fs::metadata(point.join(&here)).map_err(failed("look at", &path))?;
                // Below a directory of one's own everything can be copied up, as far as one may write.
                if theirs.uid() == own.as_raw() {
                    break;
                }
                match std::fs::DirBuilder::new().mode(0o700).create(upper.join(&here)) {
                    Ok(()) => layer.seeds.push(here.as_path().into()),
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(failed("make", &upper.join(&here))(error)),
                }
            }
        }
        Ok(())
    }

    /// The trial of that name.
    ///
    /// # Errors
    /// When there is none, or its record cannot be read.
    pub fn find(name: &str) -> Result<Self> {
        check_name(name)?;
        let home = place()?.join(name);
        let path = home.join("record");
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                TrialError::Refused(format!("there is no trial {name}: 'plyfs try ls' shows them"))
            }
            _ => failed("read", &path)(error),
        })?;
        let record = serde_json::from_slice(&text).map_err(failed("read", &path))?;
        Ok(Self {
            name: name.to_owned(),
            home,
            record,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that is tried on.
    pub fn dir(&self) -> PathBuf {
        self.record.dir.path()
    }

    /// The changes are in the lower, and can be undone.
    pub fn kept(&self) -> bool {
        self.record.kept
    }

    /// How the last command ended, if one did.
    pub fn status(&self) -> Option<u8> {
        self.record.status
    }

    /// After this time nobody should have changed the lower.
    pub fn since(&self) -> Time {
        Time {
            secs: self.record.since.0,
            nanos: self.record.since.1,
        }
    }

    /// Where the view is put together.
    pub(super) fn merged(&self) -> PathBuf {
        self.home.join("merged")
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.record.layers
    }

    /// Upper and work of a layer.
    pub(super) fn directories(&self, number: usize) -> [PathBuf; 2] {
        let home = self.home.join(number.to_string());
        [home.join("upper"), home.join("work")]
    }

    /// Notes how the command ended.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn ended(&mut self, status: u8) -> Result<()> {
        self.record.status = Some(status);
        self.write()
    }

    /// Remembers what an undo put back in a layer.
    pub(super) fn restored(&mut self, number: usize, restored: Vec<Restored>) -> Result<()> {
        if let Some(layer) = self.record.layers.get_mut(number) {
            for (path, time) in restored {
                let path = JsonPath::from(Path::new(OsStr::from_bytes(path.as_bytes())));
                layer.known.retain(|(known, ..)| *known != path);
                layer.known.push((path, time.secs, time.nanos));
            }
        }
        self.write()
    }

    pub(super) fn set_kept(&mut self, kept: bool) -> Result<()> {
        self.record.kept = kept;
        self.write()
    }

    fn write(&self) -> Result<()> {
        let (path, new) = (self.home.join("record"), self.home.join("record.new"));
        let text = serde_json::to_vec(&self.record).map_err(failed("write", &path))?;
        let done = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        done().map_err(failed("write", &path))
    }

    /// Removes it with all that belongs to it. The lower stays as it is.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(self) -> Result<()> {
        let above = self.home.parent().unwrap_or(Path::new("/"));
        let dir = std::fs::File::open(above).map_err(failed("open", above))?;
        use std::os::fd::AsFd;
        let name = self.home.file_name().unwrap_or(OsStr::new(""));
        remove_tree(dir.as_fd(), name.as_bytes()).map_err(failed("remove", &self.home))
    }
}

fn new_home(place: &Path, name: Option<&str>) -> Result<(String, PathBuf)> {
    let make = |name: &str| std::fs::DirBuilder::new().mode(0o700).create(place.join(name));
    if let Some(name) = name {
        check_name(name)?;
        return match make(name) {
            Ok(()) => Ok((name.to_owned(), place.join(name))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(TrialError::Refused(format!(
                    "there is a trial {name} already: 'plyfs try --resume {name}', or 'plyfs try drop {name}'"
                )))
            }
            Err(error) => Err(failed("make", &place.join(name))(error)),
        };
    }
    for number in 1_u32.. {
        let name = number.to_string();
        match make(&name) {
            Ok(()) => return Ok((name.clone(), place.join(name))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("make", &place.join(name))(error)),
        }
    }
    Err(TrialError::Refused(
        "there are too many trials: 'plyfs try drop' some".to_owned(),
    ))
}
