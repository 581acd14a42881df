//! What a trial changed, and what becomes of it.

use std::path::{Path, PathBuf};

use super::record::{Layer, Trial};
use super::{Result, TrialError};
use crate::builder::diff::{Change, Letter};
use crate::builder::{Kind, Progress, TreePath};
use crate::sys::stat::Time;
use crate::sys::{at, io, stat};
use crate::upper::{self, ApplyOptions, Layers, Pending};

/// A change, with where it is seen.
#[derive(Debug, Clone)]
pub struct Told {
    /// What happened.
    pub change: Change,
    /// The whole path.
    pub path: PathBuf,
    /// Bytes of a file that is there now.
    pub size: Option<u64>,
    layer: usize,
}

/// Which of the two objects of a changed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The lower's.
    Before,
    /// The upper's.
    After,
}

fn whole(point: &Path, path: &TreePath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    if path.is_root() {
        return point.to_owned();
    }
    point.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

impl Trial {
    /// Opens and locks all layers; refused while a command still runs on them.
    fn open(&self) -> Result<Vec<Layers>> {
        let open = |(number, layer): (usize, &Layer)| {
            let [upper, work] = self.directories(number);
            Ok(Layers::open(&layer.point.path(), &upper, &work, None)?)
        };
        self.layers().iter().enumerate().map(open).collect()
    }

    /// All changes, layer by layer. A root that this user could not change is left out.
    ///
    /// # Errors
    /// When the layers are in use or cannot be read.
    pub fn changes(&self) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        for (layer, (layers, found)) in self.open()?.iter().zip(self.layers()).enumerate() {
            for change in changes_of(layers, found)? {
                let size = match (change.letter, change.kind) {
                    (Letter::Deleted, _) => None,
                    (_, Kind::File) => size(layers, &change.path),
                    _ => None,
                };
                told.push(Told {
                    path: whole(&found.point.path(), &change.path),
                    change,
                    size,
                    layer,
                });
            }
        }
        Ok(told)
    }

    /// The data of a file that changed, up to `most` bytes; none for what is no file, or larger.
    ///
    /// # Errors
    /// When the layers are in use.
    pub fn data(&self, told: &Told, side: Side, most: u64) -> Result<Option<Vec<u8>>> {
        let layers = self.open()?;
        let Some(layers) = layers.get(told.layer) else {
            return Ok(None);
        };
        let root = match side {
            Side::Before => layers.lower_fd(),
            Side::After => layers.upper_fd(),
        };
        let read = || -> crate::sys::Result<Option<Vec<u8>>> {
            let flags = libc::O_RDONLY | libc::O_NONBLOCK;
            let file = at::open_beneath(root, told.change.path.as_bytes(), flags)?;
            let found = stat::stat_fd(&file)?;
            if !found.is_file() || found.size > most {
                return Ok(None);
            }
            let mut data = vec![0; usize::try_from(found.size).unwrap_or(0)];
            let read = io::read_at(&file, &mut data, 0)?;
            data.truncate(read);
            Ok(Some(data))
        };
        // What is not there, or cannot be read, has no text.
        Ok(read().unwrap_or_default())
    }

    /// Brings the changes into the lower, all or those at and below the `only` paths. All layers, or none. With `force`
    /// also over what somebody changed in the lower meanwhile.
    ///
    /// # Errors
    /// When somebody changed in the lower what the trial changed; as [`upper::apply()`].
    pub fn keep(&mut self, only: &[PathBuf], force: bool, progress: &dyn Progress) -> Result<upper::Applied> {
        if self.kept() {
            return Err(TrialError::Refused(format!(
                "the changes of trial {} are kept already: 'plyfs try undo {0}' takes them back",
                self.name()
            )));
        }
        let all = self.open()?;
        let mut total = upper::Applied::default();
        let mut applied: Vec<(usize, &Layers)> = Vec::new();
        let since = (!force).then(|| self.since());
        let points: Vec<PathBuf> = self.layers().iter().map(|layer| layer.point.path()).collect();
        for (number, layers) in all.iter().enumerate() {
            let done = match upper::pending(layers)? {
                // An earlier keep was killed.
                Some(Pending::Half) => upper::finish(layers).map(|_| upper::Applied::default()),
                Some(Pending::HalfUndone) => upper::finish(layers)
                    .and_then(|_| self.apply_one((layers, number), &points, only, since, progress)),
                Some(Pending::Done) => Ok(upper::Applied::default()),
                _ => self.apply_one((layers, number), &points, only, since, progress),
            };
            match done {
                Ok(done) => {
                    total.added = total.added.saturating_add(done.added);
                    total.changed = total.changed.saturating_add(done.changed);
                    total.deleted = total.deleted.saturating_add(done.deleted);
                    applied.push((number, layers));
                }
                Err(error) => {
                    for (number, layers) in applied {
                        if upper::pending(layers)? == Some(Pending::Done) {
                            let restored = upper::undo(layers)?;
                            self.restored(number, restored)?;
                        }
                    }
                    return Err(error.into());
                }
            }
        }
        self.set_kept(true)?;
        Ok(total)
    }

    fn apply_one(
        &self,
        (layers, number): (&Layers, usize),
        points: &[PathBuf],
        only: &[PathBuf],
        since: Option<Time>,
        progress: &dyn Progress,
    ) -> upper::Result<upper::Applied> {
        let (Some(point), Some(layer)) = (points.get(number), self.layers().get(number)) else {
            return Ok(upper::Applied::default());
        };
        let changes = changes_of(layers, layer)?;
        let wanted: Vec<TreePath> = changes
            .iter()
            .filter(|change| {
                let way = change.kind == Kind::Directory
                    && change.letter == Letter::Changed
                    && change.differences.is_empty();
                let path = whole(point, &change.path);
                !way && (only.is_empty() || only.iter().any(|only| path.starts_with(only)))
            })
            .map(|change| change.path.clone())
            .collect();
        if wanted.is_empty() {
            return Ok(upper::Applied::default());
        }
        // Everything, root included, is one move out of the upper; a choice leaves the rest in it.
        let all = only.is_empty() && layers.changes()? == changes;
        let options = ApplyOptions {
            only: if all { Vec::new() } else { wanted },
            since,
            known: layer.known(),
        };
        upper::apply(layers, &options, progress)
    }

    /// Takes a keep back, also one that was killed.
    ///
    /// # Errors
    /// When there is none; when the lower was changed since, where the keep changed it.
    pub fn undo(&mut self) -> Result<()> {
        let mut undone = false;
        for (number, layers) in self.open()?.iter().enumerate() {
            let restored = match upper::pending(layers)? {
                Some(Pending::Done) => upper::undo(layers)?,
                Some(Pending::Half | Pending::HalfUndone) => upper::roll_back(layers)?,
                Some(Pending::Remains) | None => continue,
            };
            self.restored(number, restored)?;
            undone = true;
        }
        if !undone {
            return Err(TrialError::Refused(format!(
                "no changes of trial {} were kept",
                self.name()
            )));
        }
        self.set_kept(false)
    }

    /// Ends what can be undone, and removes the trial.
    ///
    /// # Errors
    /// When a command still runs on it, or a keep was killed in the middle.
    pub fn drop_all(self) -> Result<()> {
        for layers in &self.open()? {
            upper::forget_undo(layers)?;
        }
        self.remove()
    }
}

/// The changes of a layer. That a directory of somebody else is this user's own in the view is none of them.
fn changes_of(layers: &Layers, layer: &Layer) -> upper::Result<Vec<Change>> {
    use std::os::unix::ffi::OsStrExt;
    let own = rustix::process::geteuid();
    let foreign =
        !own.is_root() && stat::stat_fd(layers.lower_fd()).is_ok_and(|root| root.uid != own.as_raw());
    let mut seeds: Vec<TreePath> = Vec::new();
    for seed in &layer.seeds {
        seeds.push(TreePath::from_clean(seed.path().as_os_str().as_bytes()));
    }
    if foreign {
        seeds.push(TreePath::root());
    }
    let mut changes = layers.changes()?;
    for change in &mut changes {
        if change.kind == Kind::Directory && change.letter == Letter::Changed && seeds.contains(&change.path)
        {
            // A part of the way to a change at most.
            change.differences.clear();
        }
    }
    // A seed is told only as the way to something.
    let mut told: Vec<Change> = Vec::new();
    for change in changes.into_iter().rev() {
        let leads = told
            .last()
            .is_some_and(|next| starts_with(&next.path, &change.path));
        if leads || !seeds.contains(&change.path) {
            told.push(change);
        }
    }
    told.reverse();
    Ok(told)
}

fn starts_with(path: &TreePath, above: &TreePath) -> bool {
    let mut names = path.names();
    above.names().all(|name| names.next() == Some(name))
}

fn size(layers: &Layers, path: &TreePath) -> Option<u64> {
    let file = at::open_beneath(layers.upper_fd(), path.as_bytes(), libc::O_PATH).ok()?;
    stat::stat_fd(&file).ok().map(|found| found.size)
}
