//! What was seen of a case with one way to mount, in a form in which two ways are compared.
//!
//! An observation has a name and a value: of a tree, one for each field of each path (`image: opt/f: mode`); of what a
//! command prints, one for each line, or the whole. Whatever differs from run to run (ids, times of now) is made equal
//! before it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// The observations of one case.
///
/// Those of the engine's own telling of changes (the lines of `diff`, the archives of layers) are kept apart. An engine
/// tells the changes of its own driver from the upper, and those with a mount program by comparing two mounted trees:
/// there only mount programs can be compared with each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub all: BTreeMap<String, String>,
    pub told: BTreeMap<String, String>,
}

fn set(to: &mut BTreeMap<String, String>, name: String, value: impl Into<String>) {
    let value = value.into();
    let old = to.insert(name.clone(), value.clone());
    assert!(
        old.is_none_or(|old| old == value),
        "{name} was seen twice, and differs"
    );
}

impl Seen {
    fn set(&mut self, name: String, value: impl Into<String>) {
        set(&mut self.all, name, value);
    }

    /// How many observations there are.
    pub fn len(&self) -> usize {
        self.all.len() + self.told.len()
    }

    /// The lines of the engine's `diff`.
    pub fn diff(&mut self, label: &str, text: &str) {
        for line in text.lines() {
            set(&mut self.told, format!("{label}: {line}"), "there");
        }
    }

    /// One value as a whole: short output, an exit status.
    pub fn value(&mut self, label: &str, value: impl std::fmt::Display) {
        self.set(label.to_owned(), value.to_string().trim_end());
    }

    /// Lines whose order does not matter, as those of `diff`.
    pub fn lines(&mut self, label: &str, text: &str) {
        for line in text.lines() {
            self.set(format!("{label}: {line}"), "there");
        }
    }

    /// What is seen of something that the engine told.
    pub fn told_value(&mut self, label: &str, value: impl std::fmt::Display) {
        set(&mut self.told, label.to_owned(), value.to_string());
    }

    /// What `scripts/lib/tree` printed.
    pub fn tree(&mut self, label: &str, text: &str) {
        let mut count = 0;
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(path), Some(mode), Some(owner)) = (words.next(), words.next(), words.next()) else {
                panic!("no line of a tree: {line:?}");
            };
            self.set(format!("{label}: {path}: mode"), mode);
            self.set(format!("{label}: {path}: owner"), owner);
            for word in words {
                let (field, value) = word.split_once('=').unwrap_or((word, ""));
                let value = if field == "modified" {
                    time(value)
                } else {
                    value.to_owned()
                };
                self.set(format!("{label}: {path}: {field}"), value);
            }
            count += 1;
        }
        self.value(&format!("{label}: names"), count);
    }

    /// The entries of the archive of a layer.
    pub fn archive(&mut self, label: &str, bytes: &[u8]) {
        entries(&mut self.told, label, bytes);
    }

    /// The entries of the archive of a whole tree, which the engine made by reading it and nothing else.
    pub fn exported(&mut self, label: &str, bytes: &[u8]) {
        entries(&mut self.all, label, bytes);
    }

    /// One line for each observation that the other has not, or has otherwise: `NAME: HERE value, THERE value`.
    pub fn differences(&self, other: &Seen, here: &str, there: &str) -> Vec<String> {
        differences(&self.all, &other.all, here, there)
    }

    /// The same of what the engine told.
    pub fn told_differences(&self, other: &Seen, here: &str, there: &str) -> Vec<String> {
        differences(&self.told, &other.told, here, there)
    }
}

fn differences(
    mine: &BTreeMap<String, String>,
    other: &BTreeMap<String, String>,
    here: &str,
    there: &str,
) -> Vec<String> {
    let names: BTreeSet<_> = mine.keys().chain(other.keys()).collect();
    let word = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| shown(value));
    // Of a name that only one of the trees has, one line is enough.
    let alone = |name: &str| {
        let entry = name.rsplit_once(": ").map(|(path, _)| format!("{path}: mode"));
        entry.is_some_and(|mode| mode != name && mine.contains_key(&mode) != other.contains_key(&mode))
    };
    names
        .into_iter()
        .filter(|name| mine.get(*name) != other.get(*name) && !alone(name))
        .map(|name| {
            format!(
                "{name}: {here} {}, {there} {}",
                word(mine.get(name)),
                word(other.get(name))
            )
        })
        .collect()
}

/// A value on one line, and not too long.
fn shown(value: &str) -> String {
    let value = value.escape_debug().to_string();
    if value.len() <= 200 {
        value
    } else {
        value.chars().take(200).chain("...".chars()).collect()
    }
}

/// A time in nanoseconds since 1970; one of the last hour is `now`.
fn time(nanoseconds: &str) -> String {
    let seconds = nanoseconds.parse::<i128>().unwrap().div_euclid(1_000_000_000);
    let now = i128::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    if (now - 3600..=now + 5).contains(&seconds) {
        "now".into()
    } else {
        nanoseconds.to_owned()
    }
}

/// What an archive has, entry by entry.
fn entries(to: &mut BTreeMap<String, String>, label: &str, bytes: &[u8]) {
    let mut archive = tar::Archive::new(bytes);
    let mut count = 0;
    let mut twice = BTreeSet::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().escape_ascii().to_string();
        let path = path.trim_end_matches('/').to_owned();
        let header = entry.header().clone();
        let mut set = |field: &str, value: String| set(to, format!("{label}: {path}: {field}"), value);
        if !twice.insert(path.clone()) {
            set("listed", "twice".into());
            continue;
        }
        set("type", format!("{:?}", header.entry_type()));
        set("mode", format!("{:o}", header.mode().unwrap()));
        set(
            "owner",
            format!("{}:{}", header.uid().unwrap(), header.gid().unwrap()),
        );
        set("modified", time(&format!("{}000000000", header.mtime().unwrap())));
        if let Some(target) = entry.link_name_bytes() {
            set("to", target.escape_ascii().to_string());
        }
        let extensions: Vec<_> = entry.pax_extensions().unwrap().into_iter().flatten().collect();
        for extension in extensions {
            let extension = extension.unwrap();
            if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                set(name, extension.value_bytes().escape_ascii().to_string());
            }
        }
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
        if header.entry_type() == tar::EntryType::Regular {
            set("size", data.len().to_string());
            set(
                "data",
                crate::common::images::image::sha256(&data)[..16].to_owned(),
            );
        }
        count += 1;
    }
    set(to, format!("{label}: names"), count.to_string());
}
