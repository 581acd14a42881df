//! Runs the cases of an engine with each way to mount, and compares.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use super::accepted::Used;
use super::page::{self, Cell, Row};
use super::programs::By;
use super::seen::Seen;
use crate::common::{need_root, skip};

/// Something that an engine does.
pub struct Case<E> {
    /// As a row of the page calls it.
    pub name: &'static str,
    /// Does it. Cases run in order on one engine, and a later one may use the images of an earlier.
    pub run: fn(&E, &mut Seen) -> Result<(), String>,
}

/// What came of it.
pub enum Outcome {
    Seen(Seen),
    /// It could not be done: why.
    Failed(String),
}

fn in_words(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()))
        .unwrap_or_else(|| "panic".into())
}

/// Whether `PLYFS_ENGINES_CASES` asks for it.
fn wanted(name: &str) -> bool {
    let words = std::env::var("PLYFS_ENGINES_CASES").unwrap_or_default();
    words.is_empty() || words.split(',').any(|word| name.contains(word))
}

/// All cases with one way to mount.
fn run<E>(start: &impl Fn(By) -> Result<E, String>, by: By, cases: &[Case<E>]) -> Vec<Outcome> {
    let engine = match start(by) {
        Ok(engine) => engine,
        Err(why) => return cases.iter().map(|_| Outcome::Failed(why.clone())).collect(),
    };
    let speaks = std::env::var_os("PLYFS_ENGINES_TIMES").is_some();
    let outcomes = cases.iter().filter(|case| wanted(case.name)).map(|case| {
        let (mut seen, begun) = (Seen::default(), std::time::Instant::now());
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| (case.run)(&engine, &mut seen)));
        if speaks {
            eprintln!(
                "{:6.2} s  {}, {}",
                begun.elapsed().as_secs_f64(),
                case.name,
                by.name()
            );
        }
        match done {
            Ok(Ok(())) => Outcome::Seen(seen),
            Ok(Err(why)) => Outcome::Failed(why),
            Err(panic) => Outcome::Failed(in_words(panic)),
        }
    });
    outcomes.collect()
}

/// Fails when the ways to mount differ in what is not accepted, when something accepted is not there, and when the rows
/// on the page are others.
pub fn compare<E: 'static>(engine: &str, start: impl Fn(By) -> Result<E, String> + Sync, cases: &[Case<E>])
where
    Case<E>: Sync,
{
    if !need_root(engine) {
        return;
    }
    // Held, so that all cases share them.
    let _images =
        match super::images::Images::get().and_then(|images| super::page::versions(engine).map(|_| images)) {
            Ok(images) => images,
            Err(why) => {
                let required = std::env::var_os("PLYFS_ENGINES").is_some_and(|word| word == "required");
                assert!(!required, "{engine} is required: {why}");
                return skip(engine, &why);
            }
        };
    let by = By::wanted();
    let outcomes: Mutex<BTreeMap<By, Vec<Outcome>>> = Mutex::default();
    std::thread::scope(|scope| {
        for &by in &by {
            let (outcomes, start) = (&outcomes, &start);
            scope.spawn(move || {
                let list = run(start, by, cases);
                outcomes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(by, list);
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut used = Used::new(engine, &by);
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().filter(|case| wanted(case.name)).enumerate() {
        let outcomes: BTreeMap<By, &Outcome> =
            outcomes.iter().map(|(by, list)| (*by, &list[number])).collect();
        rows.push(judge(case.name, &outcomes, &mut used, &mut complaints));
    }
    let whole = by.len() == By::ALL.len() && std::env::var_os("PLYFS_ENGINES_CASES").is_none();
    if whole {
        complaints.extend(
            used.unused()
                .map(|what| format!("accepted, but not there: {what}")),
        );
    }
    assert!(
        complaints.is_empty(),
        "{engine}: {} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
    if whole {
        page::agree(engine, &rows);
    }
}

/// The row of one case; what is not accepted becomes complaints.
fn judge(
    name: &'static str,
    outcomes: &BTreeMap<By, &Outcome>,
    used: &mut Used,
    complaints: &mut Vec<String>,
) -> Row {
    let first = |kernel_too: bool| {
        outcomes.iter().find_map(|(by, outcome)| match outcome {
            Outcome::Seen(seen) if kernel_too || *by != By::Kernel => Some((*by, seen)),
            _ => None,
        })
    };
    let speaks = std::env::var_os("PLYFS_ENGINES_ACCEPTED").is_some();
    let (reference, among_programs) = (first(true), first(false));
    let mut cells = BTreeMap::new();
    for (&by, outcome) in outcomes {
        let mut lines = Vec::new();
        match outcome {
            Outcome::Failed(why) => lines.push(format!("fails: {}", why.replace('\n', " | "))),
            Outcome::Seen(seen) => {
                if let Some((reference, theirs)) = reference.filter(|(reference, _)| by != *reference) {
                    lines.extend(theirs.differences(seen, reference.name(), by.name()));
                }
                if let Some((reference, theirs)) = among_programs.filter(|(first, _)| by > *first) {
                    lines.extend(theirs.told_differences(seen, reference.name(), by.name()));
                }
            }
        }
        let mut names = Vec::new();
        for line in &lines {
            let allowed = used.allows(name, by, line);
            if speaks && let Some(short) = allowed {
                eprintln!("accepted: {name}: {}: {line} ({short})", by.name());
            }
            match allowed {
                Some(short) if names.contains(&short) => {}
                Some(short) => names.push(short),
                None => complaints.push(format!("{name}: {}: {line}", by.name())),
            }
        }
        let cell = match outcome {
            Outcome::Failed(_) => Cell::Cannot(names),
            Outcome::Seen(seen) if reference.is_some_and(|(reference, _)| by == reference) => {
                Cell::Reference(seen.len())
            }
            Outcome::Seen(_) => Cell::Compared(names),
        };
        cells.insert(by, cell);
    }
    Row { case: name, cells }
}
