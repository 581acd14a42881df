//! Compares whole trees: merged, upper, lower.

use super::accepted;
use super::bytes::Bytes;
use super::judge::{Difference, Judge};
use super::tree::{Entry, Tree};
use crate::sys::plain::{Stat, Time, errno_name};

impl Judge {
    /// Two merged trees.
    pub fn trees(&mut self, when: &str, a: &Tree, b: &Tree) -> Result<(), Difference> {
        let wrong =
            |field: &str, text: String| Difference::new(format!("tree {field}"), format!("{when}: {text}"));
        if a.is_empty() || b.is_empty() {
            return Err(wrong("walk", "the tree cannot be walked".into()));
        }
        self.fell.clear();
        for (one, other) in pair_up(a, b) {
            match (one, other) {
                (Some(one), Some(other)) => {
                    self.entry(one, other)
                        .map_err(|(field, text)| wrong(&field, text))?;
                }
                (Some(one), None) if one.stat == Err(libc::ENOENT) => {
                    self.counts.add(accepted::HIDDEN_WHITEOUT)
                }
                (Some(one), None) => return Err(wrong("missing", format!("{:?} is missing", one.path))),
                (None, Some(other)) => return Err(wrong("too many", format!("{:?} is there", other.path))),
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, a: &Entry, b: &Entry) -> Result<(), (String, String)> {
        let what = format!("{:?}", a.path);
        match (&a.stat, &b.stat) {
            (Ok(one), Ok(other)) => {
                self.stat(&what, one, other, false)?;
                if one.mode != other.mode {
                    self.fell.insert(a.path.clone());
                }
            }
            (one, other) if one == other => {}
            (one, other) => return Err(("stat".into(), format!("{what}: {one:?} against {other:?}"))),
        }
        if a.target != b.target {
            return Err((
                "target".into(),
                format!("{what} -> {:?} against {:?}", a.target, b.target),
            ));
        }
        if a.content != b.content {
            return Err((
                "content".into(),
                format!("{what}: content {:x?} against {:x?}", a.content, b.content),
            ));
        }
        if a.xattrs != b.xattrs && !self.ignores("xattrs") {
            return Err((
                "xattrs".into(),
                format!("{what}: {:?} against {:?}", a.xattrs, b.xattrs),
            ));
        }
        match (&a.trouble, &b.trouble) {
            (None, Some(trouble)) if !self.ignores("trouble") => {
                Err(("trouble".into(), format!("{what} {trouble}")))
            }
            _ => Ok(()),
        }
    }

    /// Two uppers, as far as K141 asks for.
    pub fn uppers(&mut self, when: &str, a: &Tree, b: &Tree) -> Result<(), Difference> {
        if self.ignores("upper") {
            return Ok(());
        }
        let wrong = |field: &str, text: String| {
            Difference::new(format!("upper {field}"), format!("{when}, in the upper: {text}"))
        };
        for (one, other) in pair_up(a, b) {
            match (one, other) {
                (Some(one), Some(other)) => {
                    let name = one.path.name();
                    let (one, other) = (self.normal(one), self.normal(other));
                    if self.marked.contains(name)
                        && one != other
                        && without_opaque(&one) == without_opaque(&other)
                    {
                        self.counts.add(accepted::FAILED_RENAME);
                        continue;
                    }
                    let differing = one
                        .iter()
                        .enumerate()
                        .find(|(at, line)| other.get(*at) != Some(line));
                    if let Some((_, line)) = differing {
                        let name = line.split(' ').next().unwrap_or_default().to_owned();
                        let text = format!("{} against {}", one.join(", "), other.join(", "));
                        return Err(wrong(&name, text));
                    }
                }
                (Some(one), None) => {
                    return Err(wrong("missing", format!("{:?} is missing", self.normal(one))));
                }
                (None, Some(other)) => {
                    return Err(wrong("too many", format!("{:?} is there", self.normal(other))));
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// An entry of an upper without what may differ: lines of `field value`.
    fn normal(&self, entry: &Entry) -> Vec<String> {
        let path = format!("path {:?}", entry.path);
        let Ok(st) = &entry.stat else {
            return vec![path, format!("stat {:?}", entry.stat)];
        };
        if is_whiteout(st) {
            return vec![path, "type whiteout".into()];
        }
        let xattrs: Vec<String> = match &entry.xattrs {
            Ok(list) => list
                .iter()
                .filter(|(name, _)| !may_differ(&name.0))
                .map(|(n, v)| format!("{n}={v:?}"))
                .collect(),
            Err(errno) => vec![errno_name(*errno)],
        };
        let set_id = match st.is_locking() {
            _ if self.fell.contains(&entry.path) => libc::S_ISUID | libc::S_ISGID,
            true => libc::S_ISGID,
            false => 0,
        };
        vec![
            path,
            "type other".into(),
            format!("mode {:o}", st.mode & !set_id),
            format!("owner {}:{}", st.uid, st.gid),
            format!("nlink {}", st.nlink),
            format!("size {}", if st.is_dir() { 0 } else { st.size }),
            format!("rdev {:x}", st.rdev),
            format!("mtime {}", self.time(st.mtime)),
            format!("xattrs {}", xattrs.join(" ")),
            format!("content {:x?} {:?}", entry.content, entry.target),
        ]
    }
}

pub fn is_whiteout(stat: &Stat) -> bool {
    stat.kind() == libc::S_IFCHR && stat.rdev == 0
}

fn without_opaque(lines: &[String]) -> Vec<String> {
    let mark = "trusted.overlay.opaque=Ok('y')";
    lines
        .iter()
        .map(|line| {
            line.replace(&format!("{mark} "), "")
                .replace(mark, "")
                .trim()
                .to_owned()
        })
        .collect()
}

/// Private attributes that say nothing about the view (K141).
fn may_differ(name: &[u8]) -> bool {
    let private = [b"trusted.overlay.".as_slice(), b"user.overlay."]
        .iter()
        .find_map(|p| name.strip_prefix(*p));
    private.is_some_and(|rest| {
        [b"origin".as_slice(), b"impure", b"uuid"].contains(&rest) || name.starts_with(b"user.overlay.plyfs")
    })
}

/// Goes through two trees at once, by path.
fn pair_up<'a>(a: &'a Tree, b: &'a Tree) -> Vec<(Option<&'a Entry>, Option<&'a Entry>)> {
    let by_path = |tree: &'a Tree| -> std::collections::BTreeMap<&'a Bytes, &'a Entry> {
        tree.iter().map(|entry| (&entry.path, entry)).collect()
    };
    let (one, other) = (by_path(a), by_path(b));
    let mut paths: Vec<&Bytes> = one.keys().chain(other.keys()).copied().collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .map(|path| (one.get(path).copied(), other.get(path).copied()))
        .collect()
}

/// The lower, byte for byte and time for time (K142); atime excepted.
pub fn untouched(side: &str, before: &Tree, after: &Tree) -> Result<(), Difference> {
    for (one, other) in pair_up(before, after) {
        let strip = |entry: Option<&Entry>| {
            entry.cloned().map(|mut entry| {
                if let Ok(st) = &mut entry.stat {
                    st.atime = Time(0, 0);
                }
                entry
            })
        };
        if strip(one) != strip(other) {
            let text = format!("the lower of {side} was changed: {one:?} is now {other:?}");
            return Err(Difference::new("lower changed", text));
        }
    }
    Ok(())
}
