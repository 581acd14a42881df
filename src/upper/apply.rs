//! The upper's changes, brought into the lower; ended, taken back or undone by a later process.

use std::os::fd::{AsFd, OwnedFd};

use super::error::call;
use super::journal::{self, Journal, Phase, Record};
use super::layers::Layers;
use super::plan::{Plan, plan};
use super::{Result, UpperError, publish, stage};
use crate::builder::walk::Listing;
use crate::builder::{Progress, TreePath};
use crate::sys::Errno;
use crate::sys::at::{self, RenameHow};
use crate::sys::stat::Time;

/// What to apply, and under which condition.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// Paths whose changes, and those below them, are applied; all changes if empty.
    pub only: Vec<TreePath>,
    /// Refuse if somebody changed in the lower what the upper changes, after this time.
    pub since: Option<Time>,
    /// Objects of the lower whose later change time comes of an undo, as that answered them.
    pub known: Vec<Restored>,
}

/// An object of the lower that was put back, and its change time since.
pub type Restored = (TreePath, Time);

/// What was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Names that came.
    pub added: u64,
    /// Objects that changed.
    pub changed: u64,
    /// Names that went.
    pub deleted: u64,
}

impl Applied {
    /// How many changes that is.
    pub fn total(&self) -> u64 {
        self.added
            .saturating_add(self.changed)
            .saturating_add(self.deleted)
    }
}

/// What an earlier apply left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// It was killed before it touched the lower; what it left is of no use.
    Remains,
    /// It was killed in the middle: [`finish`] or [`roll_back`].
    Half,
    /// It was killed while it was taken back: [`finish`].
    HalfUndone,
    /// It is done, and can be undone: [`undo`], or [`forget_undo`].
    Done,
}

/// Looks for what an earlier apply left.
///
/// # Errors
/// When the journal cannot be read, or is that of another lower.
pub fn pending(layers: &Layers) -> Result<Option<Pending>> {
    Ok(Journal::find(layers)?.map(|journal| match journal.state.phase {
        Phase::Preparing => Pending::Remains,
        Phase::Publishing => Pending::Half,
        Phase::Undoing => Pending::HalfUndone,
        Phase::Done => Pending::Done,
    }))
}

/// Refuses to go on while an earlier apply is neither done nor taken back; removes what is of no use.
pub(super) fn settle(layers: &Layers) -> Result<()> {
    match Journal::find(layers)? {
        Some(journal) if journal.state.phase == Phase::Preparing => journal.remove(layers),
        // The mark is all that a kill after the last word may have left.
        Some(journal) if journal.state.phase == Phase::Done => journal::unmark(layers),
        Some(_) => Err(UpperError::Pending {
            upper: layers.idle.paths[1].clone(),
        }),
        None => Ok(()),
    }
}

/// As [`settle`], for something that writes nothing if it is a `trial`.
pub(super) fn settle_unless(layers: &Layers, trial: bool) -> Result<()> {
    if !trial {
        return settle(layers);
    }
    match pending(layers)? {
        Some(Pending::Half | Pending::HalfUndone) => Err(UpperError::Pending {
            upper: layers.idle.paths[1].clone(),
        }),
        _ => Ok(()),
    }
}

/// Brings the changes into the lower, and takes them out of the upper: the view stays as it is.
///
/// First all new objects are made beside the lower, then names change places in single steps. If a step fails, all are
/// taken back. What was replaced is kept for [`undo`] until the next apply or [`forget_undo`].
///
/// # Errors
/// An earlier apply that was killed; a lower that is an image layer; what cannot be read, made or replaced. The lower
/// is as it was then, unless the message says otherwise.
pub fn apply(layers: &Layers, options: &ApplyOptions, progress: &dyn Progress) -> Result<Applied> {
    layers.refuse_image_layer()?;
    settle(layers)?;
    let changes = layers.changes()?;
    let plan = plan(&changes, &options.only);
    for path in &options.only {
        if !changes
            .iter()
            .any(|change| super::plan::is_below(&change.path, path))
        {
            return Err(UpperError::Refused(format!(
                "{path}: nothing changed there: 'plyfs upper diff' shows the changes"
            )));
        }
    }
    if plan.is_empty() {
        return Ok(Applied::default());
    }
    if let Some(old) = Journal::find(layers)? {
        old.remove(layers)?;
    }
    let journal = Journal::begin(layers, stage::place(layers)?, plan.whole)?;
    let (mut journal, slots, record) = match prepare(layers, &plan, options, journal, progress) {
        Ok(ready) => ready,
        Err(error) => {
            if let Some(journal) = Journal::find(layers)?
                && let Err(left) = journal.remove(layers)
            {
                log::warn!("the next 'plyfs upper apply' will remove what is left: {left}");
            }
            return Err(error);
        }
    };
    let done = journal
        .enter(Phase::Publishing)
        .and_then(|()| complete(layers, &mut journal, &slots, &record));
    if let Err(error) = done {
        return Err(match back(layers, journal, &record) {
            Ok(_) => error,
            Err(second) => UpperError::Refused(format!(
                "{error}; and taking back what was done failed: {second}: try 'plyfs upper apply --rollback'"
            )),
        });
    }
    Ok(count(&plan, &record))
}

fn count(plan: &Plan, record: &Record) -> Applied {
    let mut applied = Applied {
        changed: plan.attributes.len() as u64,
        ..Applied::default()
    };
    for (change, step) in plan.moves.iter().zip(&record.steps) {
        let (more, number) = match (change.goes, step.old.is_some()) {
            (true, _) => (&mut applied.deleted, 1),
            (false, false) => (&mut applied.added, change.brings.len() as u64),
            (false, true) => {
                let below = change.brings.len().saturating_sub(1) as u64;
                applied.added = applied.added.saturating_add(below);
                (&mut applied.changed, 1)
            }
        };
        *more = more.saturating_add(number);
    }
    applied
}

fn prepare(
    layers: &Layers,
    plan: &Plan,
    options: &ApplyOptions,
    mut journal: Journal,
    progress: &dyn Progress,
) -> Result<(Journal, OwnedFd, Record)> {
    let slots = stage::open_slots(layers, plan, &mut journal)?;
    let since = options.since.map(|time| stage::Since {
        time,
        known: options.known.iter().map(|(path, time)| (path, *time)).collect(),
    });
    let record = stage::stage(layers, plan, slots.as_fd(), since.as_ref(), progress)?;
    journal.write_record(&record)?;
    publish::verify(layers, &record)?;
    journal::mark(layers)?;
    Ok((journal, slots, record))
}

/// From the first step to the last word.
fn complete(layers: &Layers, journal: &mut Journal, slots: &OwnedFd, record: &Record) -> Result<()> {
    publish::forwards(layers, slots.as_fd(), record)?;
    publish::sync(layers.lower(), &[slots.as_fd()], record)?;
    take(layers, journal, record)?;
    publish::sync(layers.upper(), &[journal.taken()?.as_fd()], record)?;
    journal.enter(Phase::Done)?;
    journal::unmark(layers)
}

/// Puts the upper and the lower back, and removes the journal.
fn back(layers: &Layers, mut journal: Journal, record: &Record) -> Result<Vec<Restored>> {
    journal::mark(layers)?;
    journal.enter(Phase::Undoing)?;
    give_back(layers, &journal, record)?;
    let slots = journal.slots(layers)?;
    publish::backwards(layers, slots.as_fd(), record)?;
    publish::sync(layers.upper(), &[journal.taken()?.as_fd()], record)?;
    publish::sync(layers.lower(), &[slots.as_fd()], record)?;
    journal.remove(layers)?;
    let steps = record.steps.iter().map(super::journal::Step::path);
    let mut restored = Vec::new();
    for path in steps.chain(record.dirs.iter().map(super::journal::DirStep::path)) {
        if let Some(stat) = layers.lower().look(&path)? {
            restored.push((path, stat.ctime));
        }
    }
    Ok(restored)
}

/// The name of an object that was taken: its own, or the number of its step.
fn taken_name(number: usize) -> Vec<u8> {
    super::stage::slot_name(number)
}

/// Takes out of the upper what the lower has now.
fn take(layers: &Layers, journal: &Journal, record: &Record) -> Result<()> {
    let taken = journal.taken()?;
    let upper = layers.upper();
    if journal.state.whole {
        let root = TreePath::root();
        let open = at::open_dir_list(upper.root, b".").map_err(call("open", "upper", &root))?;
        for raw in Listing::read(&open).map_err(call("list", "upper", &root))?.iter() {
            let path = root.join(raw.name);
            at::rename_at(upper.root, raw.name, &taken, raw.name, RenameHow::NoReplace).map_err(call(
                "take away",
                "upper",
                &path,
            ))?;
        }
    } else {
        for (number, step) in record.steps.iter().enumerate().filter(|(_, step)| step.taken) {
            let path = step.path();
            let (dir, name) = upper.parent(&path)?;
            match at::rename_at(&dir, name, &taken, &taken_name(number), RenameHow::NoReplace) {
                Ok(()) => {}
                // Taken before.
                Err(Errno::NOENT) if has(&taken, &taken_name(number))? => {}
                Err(errno) => return Err(call("take away", "upper", &path)(errno)),
            }
        }
    }
    times(layers, record)
}

fn has(dir: &OwnedFd, name: &[u8]) -> Result<bool> {
    let path = TreePath::root().join(name);
    super::reach::look_in(dir.as_fd(), name)
        .map(|found| found.is_some())
        .map_err(call("look at", "journal", &path))
}

/// Puts into the upper what was taken.
fn give_back(layers: &Layers, journal: &Journal, record: &Record) -> Result<()> {
    let taken = journal.taken()?;
    let upper = layers.upper();
    let occupied = |path: &TreePath, errno| match errno {
        Errno::EXIST => UpperError::Refused(format!(
            "{path} of the upper is there again, so that what it held cannot be put back: move it away, and try again"
        )),
        errno => call("put back", "upper", path)(errno),
    };
    if journal.state.whole {
        let root = TreePath::root();
        for raw in Listing::read(&taken)
            .map_err(call("list", "journal", &root))?
            .iter()
        {
            let path = root.join(raw.name);
            at::rename_at(&taken, raw.name, upper.root, raw.name, RenameHow::NoReplace)
                .map_err(|errno| occupied(&path, errno))?;
        }
    } else {
        for (number, step) in record.steps.iter().enumerate().filter(|(_, step)| step.taken) {
            let path = step.path();
            if has(&taken, &taken_name(number))? {
                let (dir, name) = upper.parent(&path)?;
                at::rename_at(&taken, &taken_name(number), &dir, name, RenameHow::NoReplace)
                    .map_err(|errno| occupied(&path, errno))?;
            }
        }
    }
    times(layers, record)
}

/// The upper's directories keep their times, whatever was moved.
fn times(layers: &Layers, record: &Record) -> Result<()> {
    for step in &record.dirs {
        let path = step.path();
        // Most are gone with what was taken.
        if layers.upper().look(&path)?.is_some_and(|stat| stat.is_dir()) {
            let dir = layers.upper().dir(&path)?;
            step.new
                .give_times(dir.as_fd())
                .map_err(call("set the times of", "upper", &path))?;
        }
    }
    Ok(())
}

fn nothing(layers: &Layers) -> UpperError {
    UpperError::Refused(format!(
        "no apply of {} was interrupted, and none can be undone",
        layers.idle.paths[1].display()
    ))
}

/// Ends what was interrupted: an apply is completed, an undo or rollback too.
///
/// # Errors
/// When nothing was interrupted; when the lower was changed meanwhile; as [`apply`].
pub fn finish(layers: &Layers) -> Result<Pending> {
    let mut journal = Journal::find(layers)?.ok_or_else(|| nothing(layers))?;
    match journal.state.phase {
        Phase::Done => {
            journal::unmark(layers)?;
            Ok(Pending::Done)
        }
        Phase::Preparing => {
            journal.remove(layers)?;
            Ok(Pending::Remains)
        }
        Phase::Publishing => {
            let record = journal.read_record()?;
            let slots = journal.slots(layers)?;
            complete(layers, &mut journal, &slots, &record)?;
            Ok(Pending::Half)
        }
        Phase::Undoing => {
            continue_back(layers, journal)?;
            Ok(Pending::HalfUndone)
        }
    }
}

fn continue_back(layers: &Layers, journal: Journal) -> Result<Vec<Restored>> {
    let record = journal.read_record()?;
    back(layers, journal, &record)
}

/// Takes back what an interrupted apply did.
///
/// # Errors
/// When nothing was interrupted, or the apply is done; when the lower was changed meanwhile.
pub fn roll_back(layers: &Layers) -> Result<Vec<Restored>> {
    let journal = Journal::find(layers)?.ok_or_else(|| nothing(layers))?;
    match journal.state.phase {
        Phase::Done => Err(UpperError::Refused(
            "the last apply is done: 'plyfs upper apply --undo' takes it back".to_owned(),
        )),
        Phase::Preparing => journal.remove(layers).map(|()| Vec::new()),
        Phase::Publishing | Phase::Undoing => continue_back(layers, journal),
    }
}

/// Takes back an apply that is done: lower and upper are as they were before it.
///
/// # Errors
/// When there is none; when the lower or the upper was changed since, where the apply changed them.
pub fn undo(layers: &Layers) -> Result<Vec<Restored>> {
    let journal = Journal::find(layers)?.ok_or_else(|| nothing(layers))?;
    if journal.state.phase != Phase::Done {
        settle(layers)?;
        return Err(nothing(layers));
    }
    let record = journal.read_record()?;
    publish::untouched(layers, &record, journal.entered()?)?;
    unused(layers, &journal, &record)?;
    back(layers, journal, &record)
}

/// Refuses an undo where the upper has been used since.
fn unused(layers: &Layers, journal: &Journal, record: &Record) -> Result<()> {
    let refuse = |path: &TreePath| {
        Err(UpperError::Refused(format!(
            "{path} of the upper was made since the changes were applied: apply or drop it first; nothing was undone"
        )))
    };
    if journal.state.whole {
        let root = TreePath::root();
        let open = at::open_dir_list(layers.upper().root, b".").map_err(call("open", "upper", &root))?;
        if let Some(raw) = Listing::read(&open)
            .map_err(call("list", "upper", &root))?
            .iter()
            .next()
        {
            return refuse(&root.join(raw.name));
        }
        return Ok(());
    }
    for step in record.steps.iter().filter(|step| step.taken) {
        let path = step.path();
        if layers.upper().look(&path)?.is_some() {
            return refuse(&path);
        }
    }
    Ok(())
}

/// Removes what is kept for [`undo`], and frees its room. None is no error.
///
/// # Errors
/// When an apply was interrupted, or something cannot be removed.
pub fn forget_undo(layers: &Layers) -> Result<bool> {
    settle(layers)?;
    match Journal::find(layers)? {
        Some(journal) => journal.remove(layers).map(|()| true),
        None => Ok(false),
    }
}
