//! Comparing a tree with the manifest of its birth.

use std::cmp::Ordering;
use std::io::Read;
use std::os::fd::BorrowedFd;

use super::links::Groups;
use super::manifest::{Attribute, Line, Object, Reader, kind_word, time_text};
use super::scan::{Known, scan};
use super::walk::order;
use super::{BuildError, Kind, Progress, Result, TreePath};

/// One difference between a tree and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The object.
    pub path: TreePath,
    /// What differs: `object` (missing, or too much), `kind`, `mode`, `owner`, `group`, `device`, `size`, `mtime`,
    /// `target`, `content`, `hard links`, or `xattr NAME`.
    pub what: String,
    /// What the manifest says.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects in the tree.
    pub objects: u64,
    /// Bytes of the files in it, by name.
    pub bytes: u64,
    /// Differences.
    pub faults: u64,
}

/// Compares every object of the tree, the data of its files with it, with the manifest; gives each difference to
/// `each`, in the order of the walk. `jobs` threads hash; 0 for one each processor.
///
/// # Errors
/// If the manifest is damaged, the tree cannot be read or is written meanwhile, or what `each` answers.
pub fn verify(
    root: BorrowedFd<'_>,
    manifest: impl Read + Send,
    jobs: usize,
    progress: &dyn Progress,
    each: &mut dyn FnMut(Fault) -> Result<()>,
) -> Result<Checked> {
    let groups = Groups::of(root)?;
    let mut reader = Reader::new(manifest)?;
    let mut judge = Judge {
        checked: Checked::default(),
        each,
    };
    let mut expected = reader.advance()?;
    progress.begin("verify", None);
    let jobs = super::manifest::jobs(jobs);
    scan(
        root,
        &groups,
        jobs,
        |_| Ok(Known::Nothing),
        |found| {
            judge.checked.objects = judge.checked.objects.saturating_add(1);
            judge.checked.bytes = judge.checked.bytes.saturating_add(found.line.size);
            progress.advance(1);
            if progress.stopped() {
                return Err(BuildError::Interrupted);
            }
            loop {
                let how = match &expected {
                    Some(expected) => order(&expected.path, &found.path),
                    None => Ordering::Greater,
                };
                match (how, expected.take()) {
                    (Ordering::Less, Some(missing)) => judge.missing(&missing)?,
                    (Ordering::Equal, Some(own)) => {
                        expected = reader.advance()?;
                        return judge.compare(&own, &found);
                    }
                    (_, other) => {
                        expected = other;
                        return judge.surplus(&found);
                    }
                }
                expected = reader.advance()?;
            }
        },
    )?;
    while let Some(missing) = expected {
        judge.missing(&missing)?;
        expected = reader.advance()?;
    }
    Ok(judge.checked)
}

struct Judge<'a> {
    checked: Checked,
    each: &'a mut dyn FnMut(Fault) -> Result<()>,
}

impl Judge<'_> {
    fn fault(&mut self, path: &TreePath, what: &str, expected: String, found: String) -> Result<()> {
        self.checked.faults = self.checked.faults.saturating_add(1);
        (self.each)(Fault {
            path: path.clone(),
            what: what.to_owned(),
            expected,
            found,
        })
    }

    fn missing(&mut self, object: &Object) -> Result<()> {
        let expected = kind_word(object.line.kind).to_owned();
        self.fault(&object.path, "object", expected, "nothing".into())
    }

    fn surplus(&mut self, object: &Object) -> Result<()> {
        let found = kind_word(object.line.kind).to_owned();
        self.fault(&object.path, "object", "nothing".into(), found)
    }

    fn differ<T: PartialEq>(
        &mut self,
        path: &TreePath,
        what: &str,
        (expected, found): (&T, &T),
        words: impl Fn(&T) -> String,
    ) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        self.fault(path, what, words(expected), words(found))
    }

    fn compare(&mut self, expected: &Object, found: &Object) -> Result<()> {
        let path = &found.path;
        let (a, b) = (&expected.line, &found.line);
        if a.kind != b.kind {
            return self.differ(path, "kind", (&a.kind, &b.kind), |kind| {
                kind_word(*kind).to_owned()
            });
        }
        self.differ(path, "mode", (&a.mode, &b.mode), |mode| format!("{mode:04o}"))?;
        self.differ(path, "owner", (&a.uid, &b.uid), ToString::to_string)?;
        self.differ(path, "group", (&a.gid, &b.gid), ToString::to_string)?;
        self.differ(path, "device", (&a.rdev, &b.rdev), |rdev| {
            format!("{}:{}", libc::major(*rdev), libc::minor(*rdev))
        })?;
        self.differ(path, "mtime", (&a.mtime, &b.mtime), |time| time_text(*time))?;
        self.differ(path, "target", (&a.target, &b.target), |target| {
            let target = target.as_ref().map_or(&[][..], |target| &target.0);
            format!("'{}'", target.escape_ascii())
        })?;
        self.compare_data(path, a, b)?;
        self.compare_links(path, a, b)?;
        self.compare_xattrs(path, &a.xattrs, &b.xattrs)
    }

    fn compare_data(&mut self, path: &TreePath, a: &Line, b: &Line) -> Result<()> {
        if a.kind != Kind::File {
            return Ok(());
        }
        // Another size says enough.
        if a.size != b.size {
            return self.differ(path, "size", (&a.size, &b.size), ToString::to_string);
        }
        self.differ(path, "content", (&a.sha256, &b.sha256), |digest| {
            digest.map_or_else(
                || "no digest".into(),
                |digest| format!("sha256:{}", hex::encode(digest)),
            )
        })
    }

    /// The names that belong together must be the same, whatever the inode numbers are.
    fn compare_links(&mut self, path: &TreePath, a: &Line, b: &Line) -> Result<()> {
        let words = |line: &Line| match (&line.same, line.names) {
            (Some(first), names) => {
                let first = TreePath::from_clean(first.0.as_slice());
                format!("one of {} names of {first}", names.unwrap_or(1))
            }
            (None, Some(names)) => format!("the first of {names} names"),
            (None, None) => "a file of its own".into(),
        };
        if (&a.same, a.names) == (&b.same, b.names) {
            return Ok(());
        }
        self.fault(path, "hard links", words(a), words(b))
    }

    /// Both are sorted by name.
    fn compare_xattrs(&mut self, path: &TreePath, a: &[Attribute], b: &[Attribute]) -> Result<()> {
        let value = |list: &[Attribute], name: &[u8]| {
            list.iter()
                .find(|attribute| attribute.name.0 == name)
                .map(|attribute| attribute.value.clone())
        };
        let mut names: Vec<_> = a.iter().chain(b).map(|attribute| &attribute.name.0).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let what = format!("xattr {}", name.escape_ascii());
            self.differ(path, &what, (&value(a, name), &value(b, name)), |value| {
                value
                    .as_ref()
                    .map_or_else(|| "nothing".into(), |value| brief(value))
            })?;
        }
        Ok(())
    }
}

/// A short value whole, a long one by its beginning.
fn brief(value: &[u8]) -> String {
    const SHOWN: usize = 64;
    match value.get(..SHOWN) {
        Some(start) => format!("'{}...' ({} bytes)", start.escape_ascii(), value.len()),
        None => format!("'{}'", value.escape_ascii()),
    }
}
