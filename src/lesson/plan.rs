//! What a step is, before it is done: words, what is run, and how to see which prediction was right.

use super::error::Result;
use super::model::{Entry, Scene, Tree, entry, tree};
use super::room::Room;

/// A step that is still to be done.
#[derive(Debug)]
pub struct Plan {
    /// One word.
    pub name: &'static str,
    /// A heading.
    pub title: &'static str,
    /// What it is about.
    pub lead: &'static str,
    /// What may be predicted.
    pub ask: Option<Ask>,
    /// Does it, for real.
    pub(super) act: fn(&mut Room<'_>) -> Result<Vec<Scene>>,
    /// The rule behind it.
    pub why: &'static str,
    /// Numbers in docs/kernel-rules.md.
    pub rules: &'static [&'static str],
}

/// A question and its choices.
#[derive(Debug)]
pub struct Ask {
    /// The question.
    pub question: &'static str,
    /// What may be answered.
    pub choices: &'static [Choice],
}

/// An answer, and how to find out whether it is what happened.
#[derive(Debug)]
pub struct Choice {
    /// The answer.
    pub text: &'static str,
    pub(super) holds: fn(&Seen<'_>) -> bool,
}

/// What a step has shown.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    /// The layers before it.
    pub(super) before: &'a [Tree],
    /// What was done.
    pub(super) scenes: &'a [Scene],
}

impl Ask {
    /// The choice that holds, if exactly one does.
    pub(super) fn right(&self, seen: &Seen<'_>) -> Option<usize> {
        let mut holding = self
            .choices
            .iter()
            .enumerate()
            .filter(|(_, choice)| (choice.holds)(seen))
            .map(|(number, _)| number);
        holding.next().filter(|_| holding.next().is_none())
    }
}

impl<'a> Seen<'a> {
    /// An entry before the step.
    pub(super) fn was(&self, label: &str, path: &str) -> Option<&'a Entry> {
        entry(self.before, label, path)
    }

    /// An entry after the last scene.
    pub(super) fn is(&self, label: &str, path: &str) -> Option<&'a Entry> {
        entry(&self.scenes.last()?.trees, label, path)
    }

    /// Whether an entry is still the same object with the same content.
    pub(super) fn untouched(&self, label: &str, path: &str) -> bool {
        match (self.was(label, path), self.is(label, path)) {
            (Some(was), Some(is)) => {
                (was.inode, was.size, was.modified, &was.text) == (is.inode, is.size, is.modified, &is.text)
            }
            _ => false,
        }
    }

    /// The names directly in a directory, after the last scene.
    pub(super) fn names(&self, label: &str, directory: &str) -> Vec<String> {
        let prefix = format!("{directory}/");
        let Some(tree) = self.scenes.last().and_then(|scene| tree(&scene.trees, label)) else {
            return Vec::new();
        };
        tree.entries
            .iter()
            .filter(|entry| entry.change != Some(super::model::Change::Removed))
            .filter_map(|entry| {
                String::from_utf8_lossy(&entry.path.0)
                    .strip_prefix(&prefix)
                    .map(str::to_owned)
            })
            .filter(|rest| !rest.contains('/'))
            .collect()
    }

    /// What a scene of the step printed.
    pub(super) fn said(&self, number: usize) -> &'a str {
        self.scenes.get(number).map_or("", |scene| &scene.said)
    }
}
