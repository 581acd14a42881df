//! What a trace comes to: which requests, what was copied up, and what of it for nothing.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::output::bytes;
use crate::explain::{Explanation, Layers};
use crate::mount::registry::Live;
use crate::overlay::trace::{CopyUp, Event};

/// How many files the summary names.
const MOST: usize = 10;

/// So many ends of files are remembered for copies that are told later.
const ENDS: usize = 64;

/// The end of what was under a name.
#[derive(Debug)]
struct End {
    at: u64,
    path: String,
    why: &'static str,
}

/// What became of the data of one copied file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct File {
    path: String,
    bytes: u64,
    /// Copies of this name.
    copies: u64,
    /// Why its bytes were copied for nothing, if they were.
    for_nothing: Option<&'static str>,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Kind {
    count: u64,
    errors: u64,
    micros: u64,
}

/// The sum of a trace.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) lost: u64,
    kinds: BTreeMap<String, Kind>,
    copies: u64,
    /// Copied files with data, by their path now.
    files: BTreeMap<String, File>,
    /// The last ones.
    ends: VecDeque<End>,
}

/// The same for `--json`.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    r#type: &'static str,
    requests: u64,
    lost: u64,
    ops: &'a BTreeMap<String, Kind>,
    copy_ups: u64,
    copied_bytes: u64,
    bytes_for_nothing: u64,
    files: Vec<&'a File>,
}

impl Summary {
    /// Counts a request and its copies.
    pub(super) fn count(&mut self, event: &Event) {
        let kind = self.kinds.entry(event.op.clone()).or_default();
        kind.count = kind.count.saturating_add(1);
        kind.micros = kind.micros.saturating_add(event.micros);
        if event.errno.is_some() {
            kind.errors = kind.errors.saturating_add(1);
        }
        for copy in event.copies.iter().filter(|copy| copy.errno.is_none()) {
            self.copied(copy);
            // Requests are told as they end, by several threads: the end of a file may be told before its copy.
            let later = self
                .ends
                .iter()
                .find(|end| end.at > event.at && end.path == copy.path);
            if let Some(why) = later.map(|end| end.why) {
                self.mark(&copy.path, why);
            }
        }
    }

    /// Notes what became of what was copied.
    pub(super) fn follow(&mut self, event: &Event) {
        if event.errno.is_some() {
            return;
        }
        match (event.op.as_str(), &event.to) {
            ("unlink", _) => self.ended(event.at, &event.path, "removed"),
            ("setattr", _) if event.detail.split(", ").any(|word| word == "size 0") => {
                self.ended(event.at, &event.path, "cut to nothing");
            }
            ("open" | "create", _) if event.detail.contains("truncate") => {
                self.ended(event.at, &event.path, "cut to nothing");
            }
            ("rename", Some(to)) if event.detail == "exchange" => {
                let (one, other) = (self.files.remove(&event.path), self.files.remove(to));
                self.files.extend(one.map(|file| (to.clone(), file)));
                self.files.extend(other.map(|file| (event.path.clone(), file)));
            }
            ("rename", Some(to)) => {
                self.ended(event.at, to, "replaced");
                self.moved(&event.path, to);
            }
            _ => {}
        }
    }

    fn copied(&mut self, copy: &CopyUp) {
        self.copies = self.copies.saturating_add(1);
        if copy.bytes == 0 {
            return;
        }
        let file = self.files.entry(copy.path.clone()).or_insert_with(|| File {
            path: copy.path.clone(),
            bytes: 0,
            copies: 0,
            for_nothing: None,
        });
        file.bytes = file.bytes.saturating_add(copy.bytes);
        file.copies = file.copies.saturating_add(1);
        file.for_nothing = None;
    }

    fn ended(&mut self, at: u64, path: &str, why: &'static str) {
        self.mark(path, why);
        if self.ends.len() == ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(End {
            at,
            path: path.to_owned(),
            why,
        });
    }

    fn mark(&mut self, path: &str, why: &'static str) {
        if let Some(file) = self.files.get_mut(path)
            && file.for_nothing.is_none()
        {
            file.for_nothing = Some(why);
        }
    }

    /// A file, or a directory with all that is in it.
    fn moved(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let names: Vec<String> = self
            .files
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for name in names {
            let Some(file) = self.files.remove(&name) else {
                continue;
            };
            if file.for_nothing.is_some() {
                self.files.insert(name, file);
                continue;
            }
            let mut now = format!("{to}{}", name.strip_prefix(from).unwrap_or_default());
            // What was copied under the new name before stays in the sum.
            while self.files.contains_key(&now) {
                now.push('\'');
            }
            self.files.insert(now, file);
        }
    }

    /// Looks which copies still have the lower's data, so that nobody has written to them.
    pub(super) fn look_at_layers(&mut self, live: &Live) {
        let layers = match Layers::of_live(live) {
            Ok(layers) => Ok(layers),
            // The view has ended; its layers are where they were.
            Err(_) => Layers::of_entry(&live.entry),
        };
        match layers {
            Ok(layers) => {
                for (path, file) in &mut self.files {
                    let told = layers.explain(path.as_ref());
                    if file.for_nothing.is_none() && told.is_ok_and(|told| has_old_data(&told)) {
                        file.for_nothing = Some("never written");
                    }
                }
            }
            Err(error) => log::warn!("which copies were written to cannot be told: {error}"),
        }
    }

    fn totals(&self) -> (u64, u64) {
        let sum = |files: &mut dyn Iterator<Item = &File>| {
            files.map(|file| file.bytes).fold(0, u64::saturating_add)
        };
        let all = sum(&mut self.files.values());
        let vain = sum(&mut self.files.values().filter(|file| file.for_nothing.is_some()));
        (all, vain)
    }

    /// The greatest first.
    fn ordered(&self) -> Vec<&File> {
        let mut files: Vec<_> = self.files.values().collect();
        files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        files
    }

    pub(super) fn for_programs(&self) -> Record<'_> {
        let (copied_bytes, bytes_for_nothing) = self.totals();
        Record {
            r#type: "summary",
            requests: self
                .kinds
                .values()
                .map(|kind| kind.count)
                .fold(0, u64::saturating_add),
            lost: self.lost,
            ops: &self.kinds,
            copy_ups: self.copies,
            copied_bytes,
            bytes_for_nothing,
            files: self.ordered(),
        }
    }

    pub(super) fn for_people(&self) -> String {
        let record = self.for_programs();
        let mut text = format!("{} requests", record.requests);
        // Writing into a String cannot fail.
        if record.lost > 0 {
            write!(text, ", and {} that came too fast", record.lost).ok();
        }
        text.push('\n');
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.micros));
        for (op, kind) in kinds {
            write!(text, "  {:<16} {:>8}  {:>9} us", op, kind.count, kind.micros).ok();
            if kind.errors > 0 {
                write!(text, "  {} with an error", kind.errors).ok();
            }
            text.push('\n');
        }
        writeln!(
            text,
            "{} objects copied up, {} of data, of which {} for nothing",
            record.copy_ups,
            bytes(record.copied_bytes),
            bytes(record.bytes_for_nothing)
        )
        .ok();
        for file in record.files.iter().take(MOST) {
            write!(text, "  {:>10}  {}", bytes(file.bytes), super::plain(&file.path)).ok();
            if file.copies > 1 {
                write!(text, "  {} times", file.copies).ok();
            }
            if let Some(why) = file.for_nothing {
                write!(text, "  for nothing: {why}").ok();
            }
            text.push('\n');
        }
        if record.files.len() > MOST {
            writeln!(
                text,
                "  and {} smaller ones",
                record.files.len().saturating_sub(MOST)
            )
            .ok();
        }
        text
    }
}

/// A copy whose size and time are still the lower's.
fn has_old_data(told: &Explanation) -> bool {
    let step = told.steps.last();
    step.and_then(|step| Some((step.upper.as_ref()?, step.lower.as_ref()?)))
        .is_some_and(|(upper, lower)| {
            (upper.kind.as_str(), upper.size, &upper.modified) == ("file", lower.size, &lower.modified)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(op: &str, path: &str, to: Option<&str>, bytes: u64) -> Event {
        let copy = CopyUp {
            path: path.to_owned(),
            bytes,
            ..CopyUp::default()
        };
        Event {
            op: op.to_owned(),
            path: path.to_owned(),
            to: to.map(str::to_owned),
            copies: if bytes > 0 { vec![copy] } else { Vec::new() },
            ..Event::default()
        }
    }

    #[test]
    fn what_was_copied_for_nothing() {
        let mut summary = Summary::default();
        for event in [
            event("open", "/kept", None, 10),
            event("open", "/gone", None, 30),
            event("rename", "/gone", Some("/other"), 0),
            event("unlink", "/other", None, 0),
            event("setattr", "/d/under", None, 5),
            event("rename", "/d", Some("/e"), 0),
        ] {
            summary.count(&event);
            summary.follow(&event);
        }
        let record = summary.for_programs();
        assert_eq!(
            (record.requests, record.copied_bytes, record.bytes_for_nothing),
            (6, 45, 30)
        );
        assert_eq!(record.files[0].for_nothing, Some("removed"));
        assert!(summary.files.contains_key("/e/under"), "{summary:?}");
    }

    #[test]
    fn an_end_that_is_told_before_the_copy() {
        let mut summary = Summary::default();
        for (at, event) in [
            (2, event("unlink", "/f", None, 0)),
            (1, event("setattr", "/f", None, 7)),
            (3, event("open", "/g", None, 9)),
        ] {
            let event = Event { at, ..event };
            summary.count(&event);
            summary.follow(&event);
        }
        let record = summary.for_programs();
        assert_eq!((record.copied_bytes, record.bytes_for_nothing), (16, 7));
    }
}
