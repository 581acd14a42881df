//! A directory as plain data: one entry per name, one line per field, and the difference of two in words.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::sys;

/// Field name to value; which fields there are depends on the type of the file.
pub type Entry = BTreeMap<String, String>;

/// Path below the root (the root itself is `.`) to its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Entry>);

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

fn hash(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}

/// Short data in full, long data by length and hash.
pub fn shown(data: &[u8]) -> String {
    if data.len() <= 64 {
        format!("\"{}\"", data.escape_ascii())
    } else {
        format!("{} bytes, hash {:016x}", data.len(), hash(data))
    }
}

fn kind(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => "directory",
        libc::S_IFREG => "file",
        libc::S_IFLNK => "symlink",
        libc::S_IFCHR => "char device",
        libc::S_IFBLK => "block device",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ => "unknown",
    }
}

/// A time of the last hour is "now": two runs of the same steps agree on it.
fn time(seconds: i64, nanoseconds: i64) -> String {
    let now = now();
    if (now - 3600..=now + 5).contains(&seconds) {
        "now".into()
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
}

fn fields(path: &Path, st: &sys::Stat) -> Entry {
    let mut e = Entry::new();
    let mut set = |name: &str, value: String| {
        e.insert(name.into(), value);
    };
    let is = |kind| st.st_mode & libc::S_IFMT == kind;
    set("type", kind(st.st_mode).into());
    set("mode", format!("{:04o}", st.st_mode & 0o7777));
    set("uid", st.st_uid.to_string());
    set("gid", st.st_gid.to_string());
    set("mtime", time(st.st_mtime, st.st_mtime_nsec));
    set("nlink", st.st_nlink.to_string());
    if is(libc::S_IFREG) {
        set("size", st.st_size.to_string());
        set(
            "data",
            sys::cat(path).map_or_else(|e| format!("{e:?}"), |data| shown(&data)),
        );
    }
    if is(libc::S_IFLNK) {
        set(
            "target",
            sys::readlink(path).map_or_else(|e| format!("{e:?}"), |t| shown(t.as_bytes())),
        );
    }
    if is(libc::S_IFCHR) || is(libc::S_IFBLK) {
        set(
            "rdev",
            format!("{}/{}", libc::major(st.st_rdev), libc::minor(st.st_rdev)),
        );
    }
    match sys::listxattr(path) {
        Ok(names) => {
            for name in names {
                let value = sys::getxattr(path, &name).map_or_else(|e| format!("{e:?}"), |v| shown(&v));
                set(&format!("xattr {name}"), value);
            }
        }
        Err(e) => set("xattrs", format!("{e:?}")),
    }
    e
}

fn d_type(st: &sys::Stat) -> u8 {
    ((st.st_mode & libc::S_IFMT) >> 12) as u8
}

/// Reads the whole tree below `root`. A name that cannot be looked up has the one field `error`.
///
/// Fields: type, mode, uid, gid, mtime, nlink, size, data, target, rdev, `xattr NAME`, `same` (the first path that
/// is the same inode, for linked files), `d_ino` and `d_type` (whether the listing agrees with stat).
pub fn snapshot(root: &Path) -> Tree {
    let mut tree = BTreeMap::new();
    let st = sys::lstat(root).expect("the root of a snapshot");
    tree.insert(PathBuf::from("."), fields(root, &st));
    let mut inodes = HashMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let list = match sys::dirents(root.join(&dir)) {
            Ok(list) => list,
            Err(e) => {
                let key = if dir.as_os_str().is_empty() {
                    PathBuf::from(".")
                } else {
                    dir
                };
                tree.entry(key)
                    .or_default()
                    .insert("listing".into(), format!("{e:?}"));
                continue;
            }
        };
        let mut seen = std::collections::HashSet::new();
        for d in list {
            if d.name == "." || d.name == ".." {
                continue;
            }
            let path = dir.join(&d.name);
            if !seen.insert(d.name.clone()) {
                tree.entry(path)
                    .or_default()
                    .insert("listed".into(), "twice".into());
                continue;
            }
            let full = root.join(&path);
            let entry = match sys::lstat(&full) {
                Err(e) => Entry::from([("error".into(), format!("{e:?}"))]),
                Ok(st) => {
                    let mut e = fields(&full, &st);
                    if d.ino != st.st_ino {
                        e.insert("d_ino".into(), "differs from st_ino".into());
                    }
                    if d.kind != d_type(&st) && d.kind != libc::DT_UNKNOWN {
                        e.insert("d_type".into(), format!("{}, not {}", d.kind, d_type(&st)));
                    }
                    if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
                        todo.push(path.clone());
                    } else if st.st_nlink > 1 {
                        inodes
                            .entry((st.st_dev, st.st_ino))
                            .or_insert_with(Vec::new)
                            .push(path.clone());
                    }
                    e
                }
            };
            tree.insert(path, entry);
        }
    }
    for mut group in inodes.into_values() {
        group.sort();
        for path in &group {
            if let Some(e) = tree.get_mut(path) {
                e.insert("same".into(), group[0].display().to_string());
            }
        }
    }
    Tree(tree)
}

impl Tree {
    /// Leaves out the named fields of every entry (`xattr ` as a whole prefix leaves out all xattrs).
    #[must_use]
    pub fn without(mut self, fields: &[&str]) -> Tree {
        for entry in self.0.values_mut() {
            entry.retain(|name, _| {
                !fields
                    .iter()
                    .any(|f| name == f || (f.ends_with(' ') && name.starts_with(f)))
            });
        }
        self
    }

    /// Leaves out a path and what is below it.
    #[must_use]
    pub fn without_path(mut self, path: impl AsRef<Path>) -> Tree {
        self.0.retain(|p, _| !p.starts_with(path.as_ref()));
        self
    }

    /// An upper in the form in which two uppers are compared (K141): how whiteouts share an inode, and the marks
    /// that only remember (uuid, origin, impure), do not count.
    #[must_use]
    pub fn into_upper(mut self) -> Tree {
        for entry in self.0.values_mut() {
            let rdev = entry.get("rdev").map(String::as_str);
            if entry.get("type").is_some_and(|t| t == "char device") && rdev == Some("0/0") {
                *entry = Entry::from([("type".into(), "whiteout".into())]);
            }
            entry.retain(|name, _| {
                let mark = name
                    .strip_prefix("xattr trusted.overlay.")
                    .or_else(|| name.strip_prefix("xattr user.overlay."));
                !matches!(mark, Some("uuid" | "origin" | "impure"))
            });
        }
        self
    }

    pub fn paths(&self) -> Vec<&Path> {
        self.0
            .keys()
            .map(PathBuf::as_path)
            .filter(|p| *p != Path::new("."))
            .collect()
    }

    pub fn field(&self, path: impl AsRef<Path>, name: &str) -> Option<&str> {
        self.0.get(path.as_ref())?.get(name).map(String::as_str)
    }

    /// One line per difference; empty when equal.
    pub fn differences(&self, other: &Tree, here: &str, there: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, mine) in &self.0 {
            let at = escaped(path.as_os_str());
            let Some(theirs) = other.0.get(path) else {
                lines.push(format!("{at}: only {here}: {}", brief(mine)));
                continue;
            };
            let names: std::collections::BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
            for name in names {
                let (a, b) = (mine.get(name), theirs.get(name));
                if a != b {
                    let word = |v: Option<&String>| v.cloned().unwrap_or_else(|| "nothing".into());
                    lines.push(format!("{at}: {name}: {here} {}, {there} {}", word(a), word(b)));
                }
            }
        }
        for (path, theirs) in &other.0 {
            if !self.0.contains_key(path) {
                lines.push(format!(
                    "{}: only {there}: {}",
                    escaped(path.as_os_str()),
                    brief(theirs)
                ));
            }
        }
        lines
    }
}

fn escaped(name: &OsStr) -> String {
    name.as_bytes().escape_ascii().to_string()
}

fn brief(entry: &Entry) -> String {
    let mut line = String::new();
    for (name, value) in entry {
        let _ = write!(line, "{name}={value} ");
    }
    line.trim_end().into()
}

/// What must not change in a lower: everything but the access time. Inode number and change time are in it, so even
/// a change put back is seen.
pub fn fingerprint(root: &Path) -> Tree {
    let mut tree = snapshot(root);
    for (path, entry) in &mut tree.0 {
        if let Ok(st) = sys::lstat(root.join(path)) {
            entry.insert("ino".into(), st.st_ino.to_string());
            entry.insert("ctime".into(), format!("{}.{:09}", st.st_ctime, st.st_ctime_nsec));
            entry.insert("mtime".into(), format!("{}.{:09}", st.st_mtime, st.st_mtime_nsec));
        }
    }
    tree
}
