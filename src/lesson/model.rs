//! What a walk leaves: plain data, from which every form of the lesson is made.

use serde::{Deserialize, Serialize};

use crate::builder::manifest::Text;

/// A whole walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lesson {
    /// The program's version.
    pub version: String,
    /// The kernel it ran on, as uname(2) names it.
    pub kernel: String,
    /// Who ran it: `root`, `root of a user namespace` or `an ordinary user`.
    pub who: String,
    /// When it began, in seconds since 1970.
    pub since: i64,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// One step: a question, what was done, and why it came out so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// One word.
    pub name: String,
    /// A heading.
    pub title: String,
    /// What the step is about, told before anything is done.
    pub lead: String,
    /// What the viewer may predict.
    pub question: Option<Question>,
    /// The layers before the step.
    pub before: Vec<Tree>,
    /// What was done, one after the other.
    pub scenes: Vec<Scene>,
    /// The rule behind it.
    pub why: String,
    /// The numbers of the rules in docs/kernel-rules.md.
    pub rules: Vec<String>,
}

/// A question with choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question.
    pub ask: String,
    /// The answers offered.
    pub choices: Vec<String>,
    /// Which of them the run confirmed, counted from 0; found by looking at the layers, so there is none before.
    pub right: Option<usize>,
}

/// What sort of action a scene was, for who wants to do the same elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The command was run by sh(1) in the scratch directory.
    Shell,
    /// A system call of the lesson itself.
    Call,
    /// A view was mounted.
    Mount,
    /// A view was unmounted.
    Unmount,
    /// Something was done to the server.
    Server,
}

/// One command, and the layers after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// What sort of action it was.
    pub action: Action,
    /// The command as one would type it.
    pub command: String,
    /// What it printed, both streams.
    pub said: String,
    /// Its exit status; none for what has none.
    pub status: Option<i32>,
    /// A remark on what happened, with what was measured.
    pub note: Option<String>,
    /// The layers and the view afterwards.
    pub trees: Vec<Tree>,
}

/// One layer, or the view, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Its letter: `L`, `U`, `W`, `M`; `C` for a child layer.
    pub label: String,
    /// Its role in a word or two.
    pub role: String,
    /// Why nothing can be shown, if so: not mounted, or its server is dead.
    pub absent: Option<String>,
    /// Everything in it, a directory before what is in it.
    pub entries: Vec<Entry>,
}

/// What sort of object a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device 0/0, in the upper or the work directory.
    Whiteout,
    /// Anything else.
    Special,
}

/// Which layers answer for a name in the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// The lower.
    Lower,
    /// The upper.
    Upper,
    /// A directory in both: their names are merged.
    Both,
}

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path from the tree's root, without a leading slash.
    pub path: Text,
    /// What it is.
    pub sort: Sort,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Inode number as stat(2) tells it.
    pub inode: u64,
    /// Link count.
    pub links: u32,
    /// Last change of the data, in nanoseconds since 1970.
    pub modified: i128,
    /// The content of a small text file, the target of a symbolic link, or `…` for a directory that was not opened.
    pub text: Option<String>,
    /// The private marks of an overlay it carries, without their namespace: `opaque`, `origin`, `impure`.
    pub marks: Vec<String>,
    /// In the view: who answers.
    pub answers: Option<Answers>,
    /// In a layer: the view does not show this object.
    pub hidden: bool,
    /// What the last command did to it.
    pub change: Option<Change>,
}

/// What became of an entry between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Change {
    /// It was not there.
    Added,
    /// It is another object, or its content, mode, marks or link count are others.
    Changed,
    /// It is gone; the entry shows how it was.
    Removed,
    /// It is a copy of an object of another layer.
    Copied(Place),
    /// The same object had another name before.
    Moved(Place),
    /// One more name of an inode that is still there.
    Linked(Place),
}

/// A name in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The tree's letter.
    pub tree: String,
    /// The path in it.
    pub path: Text,
}

impl Step {
    /// Whether the trees of a scene are worth a look: something changed in it, or it is the last of a step in which
    /// nothing did.
    #[must_use]
    pub fn shows_trees(&self, scene: usize) -> bool {
        match self.scenes.get(scene) {
            Some(one) if one.has_news() => true,
            Some(_) => scene + 1 == self.scenes.len() && !self.scenes.iter().any(Scene::has_news),
            None => false,
        }
    }
}

impl Scene {
    fn has_news(&self) -> bool {
        let changed = |tree: &Tree| tree.entries.iter().any(|entry| entry.change.is_some());
        self.action != Action::Shell && self.action != Action::Call || self.trees.iter().any(changed)
    }
}

impl Tree {
    /// The entry under a path, if it is there now.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.path.0 == path.as_bytes() && entry.change != Some(Change::Removed))
    }
}

impl Entry {
    /// A directory that hides the lower's.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.marks.iter().any(|mark| mark == "opaque")
    }

    /// The last name of its path.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.path
            .0
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default()
    }

    /// How many directories of the tree it lies in.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.path.0.iter().filter(|byte| **byte == b'/').count()
    }
}

/// Bytes for people: what is not text, or would steer a terminal, is escaped.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Lines that a command printed, for people: as [`readable`], with tabs as a terminal has them.
pub fn printed(text: &str) -> impl Iterator<Item = String> + '_ {
    const TAB: usize = 8;
    text.lines().map(|line| {
        let mut out = String::new();
        for part in line.split_inclusive('\t') {
            out.push_str(&readable(part.trim_end_matches('\t').as_bytes()));
            if part.ends_with('\t') {
                let used = out.chars().count() % TAB;
                out.extend(std::iter::repeat_n(' ', TAB - used));
            }
        }
        out
    })
}

/// The tree with this letter.
#[must_use]
pub fn tree<'a>(trees: &'a [Tree], label: &str) -> Option<&'a Tree> {
    trees.iter().find(|tree| tree.label == label)
}

/// The entry under a path of the tree with this letter.
#[must_use]
pub fn entry<'a>(trees: &'a [Tree], label: &str, path: &str) -> Option<&'a Entry> {
    tree(trees, label)?.get(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_readable() {
        assert_eq!(readable("grün".as_bytes()), "grün");
        let lines: Vec<String> = printed("a\tb\n\x07\t\n").collect();
        assert_eq!(lines, ["a       b", "\\u{7}   "]);
        assert_eq!(readable(b"a\x1b[1m\xff"), "a\\u{1b}[1m\\xff");
    }
}
