//! Down a path, name by name.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data::{Answer, Copied, Explanation, Mark, RealFile, Step};
use super::layers::{ExplainError, Layers};
use super::rules::rules;
use super::why::{self, Above};
use crate::mount::JsonPath;
use crate::overlay::{Layer, Node, ROOT, Real};
use crate::sys::stat::{Stat, Time};
use crate::sys::{Errno, at};

/// As many symlinks as the kernel follows on one way.
const MOST_LINKS: u32 = 40;

/// Where a walk ended.
pub(super) enum End {
    /// At an object that shows.
    Object,
    /// At a name that does not show, the last of the path.
    Name(Arc<Node>, Vec<u8>),
    /// Before the last name.
    Early,
}

/// A walk under way.
pub(super) struct Walk<'a> {
    pub(super) layers: &'a Layers,
    asked: &'a Path,
    /// The objects from the root on, each with its name.
    pub(super) trail: Vec<(Arc<Node>, Vec<u8>)>,
    pub(super) steps: Vec<Step>,
    above: Vec<Above>,
    links: u32,
}

impl Layers {
    /// Explains one path in the view, from its root; a leading `/` means nothing.
    ///
    /// That nothing shows there is an explanation too, not an error.
    ///
    /// # Errors
    /// When the layers cannot be read, or the path leads out of the view.
    pub fn explain(&self, path: &Path) -> Result<Explanation, ExplainError> {
        let mut walk = Walk::begin(self, path)?;
        let (end, errno) = walk.go()?;
        let operations = walk.operations(&end)?;
        let answer = walk.steps.last().map_or(Answer::Absent, |step| step.answer);
        let target = match &end {
            End::Object => walk.path(&[]),
            End::Name(_, name) => walk.path(&[name]),
            End::Early => walk
                .steps
                .last()
                .map_or_else(PathBuf::new, |step| step.path.path()),
        };
        Ok(Explanation {
            path: target.as_path().into(),
            merged: self.merged.as_deref().map(JsonPath::from),
            lower: self.lowers.first().map_or(Path::new(""), PathBuf::as_path).into(),
            below: self
                .lowers
                .iter()
                .skip(1)
                .map(|lower| lower.as_path().into())
                .collect(),
            upper: self.upper.as_deref().map(JsonPath::from),
            answer,
            errno: errno.map(errno_name),
            steps: walk.steps,
            operations,
        })
    }
}

impl<'a> Walk<'a> {
    fn begin(layers: &'a Layers, asked: &'a Path) -> Result<Self, ExplainError> {
        let look = looking(Path::new("/"));
        let root = layers.overlay.node(ROOT).map_err(&look)?;
        let upper = layers.overlay.real_root(Layer::Upper).map_err(&look)?;
        let (answer, why, rules) = why::root(upper.is_some(), layers.lowers.len());
        let mut walk = Self {
            layers,
            asked,
            trail: vec![(root, Vec::new())],
            steps: Vec::new(),
            above: vec![Above::default()],
            links: 0,
        };
        walk.steps.push(Step {
            path: Path::new("/").into(),
            answer,
            why,
            rules,
            upper: upper.map(|real| walk.real_file(Layer::Upper, &[], &real)),
            lower: None,
            below: Vec::new(),
            copied: None,
        });
        let mut lowers = Vec::with_capacity(layers.lowers.len());
        for index in indexes(layers.lowers.len()) {
            let real = layers.overlay.real_root(Layer::Lower(index)).map_err(&look)?;
            lowers.extend(real.map(|real| walk.real_file(Layer::Lower(index), &[], &real)));
        }
        if let Some(step) = walk.steps.last_mut() {
            (step.lower, step.below) = first_and_rest(lowers);
        }
        Ok(walk)
    }

    /// The path of the trail with `more` names.
    pub(super) fn path(&self, more: &[&[u8]]) -> PathBuf {
        let mut path = PathBuf::from("/");
        let names = self.trail.iter().skip(1).map(|(_, name)| name.as_slice());
        path.extend(names.chain(more.iter().copied()).map(OsStr::from_bytes));
        path
    }

    /// The object the walk is at.
    pub(super) fn here(&self) -> Result<Arc<Node>, ExplainError> {
        let last = self.trail.last().map(|(node, _)| Arc::clone(node));
        last.ok_or_else(|| self.outside(PathBuf::from("..")))
    }

    fn outside(&self, to: PathBuf) -> ExplainError {
        ExplainError::Outside {
            path: self.asked.to_owned(),
            to,
        }
    }

    fn go(&mut self) -> Result<(End, Option<Errno>), ExplainError> {
        let mut names = split(self.asked.as_os_str().as_bytes());
        while let Some(name) = names.pop_front() {
            let here = self.here()?;
            if here.kind == libc::S_IFLNK {
                names.push_front(name);
                self.follow(&here, &mut names)?;
                continue;
            }
            if !here.is_dir() {
                let path = self.path(&[]);
                self.steps.push(Step {
                    path: self.path(&[&name]).as_path().into(),
                    answer: Answer::Absent,
                    why: format!("{} is no directory", path.display()),
                    rules: rules(&[20]),
                    upper: None,
                    lower: None,
                    below: Vec::new(),
                    copied: None,
                });
                return Ok((End::Early, Some(Errno::NOTDIR)));
            }
            if name == b".." {
                if self.trail.len() == 1 {
                    return Err(self.outside(PathBuf::from("..")));
                }
                self.trail.pop();
                self.above.pop();
                continue;
            }
            if let Err(errno) = self.step(&here, &name)? {
                let last = names.is_empty() && errno == Errno::NOENT;
                let end = if last { End::Name(here, name) } else { End::Early };
                return Ok((end, Some(errno)));
            }
        }
        Ok((End::Object, None))
    }

    /// One name further. Answers the errno of a lookup that finds nothing.
    fn step(&mut self, parent: &Arc<Node>, name: &[u8]) -> Result<Result<(), Errno>, ExplainError> {
        let overlay = &self.layers.overlay;
        let path = self.path(&[name]);
        let look = looking(&path);
        let above = self.above.last().cloned().unwrap_or_default();
        let found = overlay.survey(parent, name).map_err(&look)?;
        // Anything else is no answer of the layers but a failure to ask them.
        let expected = [
            Errno::NOENT,
            Errno::PERM,
            Errno::LOOP,
            Errno::NAMETOOLONG,
            Errno::REMOTE,
        ];
        if let Err(errno) = found.answer
            && !expected.contains(&errno)
        {
            return Err(look(errno));
        }
        let (answer, why, rules) = why::name(&found, &above, self.layers.lowers.len());
        let upper = overlay.real(Layer::Upper, parent, name).map_err(&look)?;
        let mut lowers = Vec::new();
        for index in indexes(self.layers.lowers.len()) {
            let real = overlay.real(Layer::Lower(index), parent, name).map_err(&look)?;
            lowers.extend(real.map(|real| (index, real)));
        }
        let copied = match (&upper, found.answer) {
            (Some(upper), Ok(_)) => copied(upper, lowers.iter().map(|(_, real)| real)),
            _ => None,
        };
        let lowers = lowers.into_iter().map(|(index, real)| RealFile {
            hidden: why::is_hidden(&found, index),
            ..self.real_file(Layer::Lower(index), &[name], &real)
        });
        let (lower, below) = first_and_rest(lowers.collect());
        self.steps.push(Step {
            path: path.as_path().into(),
            answer,
            why,
            rules,
            upper: upper.map(|real| self.real_file(Layer::Upper, &[name], &real)),
            lower,
            below,
            copied,
        });
        if let Err(errno) = found.answer {
            return Ok(Err(errno));
        }
        let (node, _) = overlay.lookup(parent.id, name).map_err(&look)?;
        let no_lower = match (above.no_lower, answer) {
            (None, Answer::Upper) => Some(why::keeps_lower_out(&path.to_string_lossy(), &found)),
            (known, _) => known,
        };
        self.above.push(Above { no_lower });
        self.trail.push((node, name.to_vec()));
        Ok(Ok(()))
    }

    /// A symlink in the middle of a path leads on.
    fn follow(&mut self, link: &Arc<Node>, names: &mut VecDeque<Vec<u8>>) -> Result<(), ExplainError> {
        self.links = self.links.saturating_add(1);
        if self.links > MOST_LINKS {
            return Err(ExplainError::Loop {
                path: self.asked.to_owned(),
            });
        }
        let look = looking(&self.path(&[]));
        let target = self.layers.overlay.readlink(link.id).map_err(look)?;
        let target = Path::new(OsStr::from_bytes(&target)).to_owned();
        self.trail.pop();
        self.above.pop();
        let mut rest = target.as_path();
        if target.is_absolute() {
            // Layers that are not mounted are taken for the root of a system.
            let root = self.layers.merged.as_deref().unwrap_or(Path::new("/"));
            let Ok(inside) = target.strip_prefix(root) else {
                return Err(self.outside(target));
            };
            rest = inside;
            self.trail.truncate(1);
            self.above.truncate(1);
        }
        for name in split(rest.as_os_str().as_bytes()).into_iter().rev() {
            names.push_front(name);
        }
        Ok(())
    }

    fn real_file(&self, layer: Layer, more: &[&[u8]], real: &Real) -> RealFile {
        let lowers = &self.layers.lowers;
        let (root, number) = match layer {
            Layer::Lower(index) => (
                lowers.get(usize::from(index)).map(PathBuf::as_path),
                (lowers.len() > 1).then(|| index.saturating_add(1)),
            ),
            Layer::Upper => (self.layers.upper.as_deref(), None),
        };
        let inside = self.path(more);
        let inside = inside.strip_prefix("/").unwrap_or(&inside);
        let root = root.unwrap_or(Path::new(""));
        let path = if inside.as_os_str().is_empty() {
            root.to_owned()
        } else {
            root.join(inside)
        };
        let prefix = self.layers.overlay.marks().prefix();
        let stat = &real.stat;
        let stands_for_whiteout = stat.is_file()
            && stat.size == 0
            && real
                .marks
                .iter()
                .any(|(name, _)| name.strip_prefix(prefix) == Some(b"whiteout"));
        let kind = if stands_for_whiteout {
            "whiteout"
        } else {
            kind_word(stat)
        };
        RealFile {
            path: path.as_path().into(),
            number,
            hidden: false,
            kind: kind.to_owned(),
            inode: stat.ino,
            device: stat.dev,
            mode: format!("{:04o}", stat.mode & at::PERMISSION_BITS),
            size: stat.size,
            allocated: stat.blocks.saturating_mul(512),
            links: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            modified: rfc3339(stat.mtime),
            target: real
                .target
                .as_ref()
                .map(|text| Path::new(OsStr::from_bytes(text)).into()),
            marks: real
                .marks
                .iter()
                .map(|(name, value)| mark(name.strip_prefix(prefix).unwrap_or(name), name, value, real))
                .collect(),
        }
    }
}

/// The indexes of that many lowers.
fn indexes(count: usize) -> impl Iterator<Item = u16> {
    0..u16::try_from(count).unwrap_or(u16::MAX)
}

fn first_and_rest(files: Vec<RealFile>) -> (Option<RealFile>, Vec<RealFile>) {
    let mut files = files.into_iter();
    (files.next(), files.collect())
}

fn looking(path: &Path) -> impl Fn(Errno) -> ExplainError + use<> {
    let path = path.to_owned();
    move |errno| ExplainError::Look {
        path: path.clone(),
        errno,
    }
}

fn split(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// `ENOENT` and its like; a number where the name is not in the table.
pub(super) fn errno_name(errno: Errno) -> String {
    let known = [
        (Errno::NOENT, "ENOENT"),
        (Errno::PERM, "EPERM"),
        (Errno::LOOP, "ELOOP"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::REMOTE, "EREMOTE"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::XDEV, "EXDEV"),
        (Errno::BUSY, "EBUSY"),
        (Errno::ROFS, "EROFS"),
        (Errno::EXIST, "EEXIST"),
    ];
    let name = known.iter().find(|(number, _)| *number == errno);
    name.map_or_else(
        || format!("errno {}", errno.raw_os_error()),
        |(_, name)| (*name).to_owned(),
    )
}

fn rfc3339(time: Time) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    jiff::Timestamp::new(time.secs, nanos).map_or_else(|_| time.secs.to_string(), |time| time.to_string())
}

fn kind_word(stat: &Stat) -> &'static str {
    match stat.kind() {
        _ if stat.is_whiteout() => "whiteout",
        libc::S_IFDIR => "directory",
        libc::S_IFREG => "file",
        libc::S_IFLNK => "symlink",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        libc::S_IFCHR => "character device",
        _ => "block device",
    }
}

fn mark(short: &[u8], name: &[u8], value: &[u8], real: &Real) -> Mark {
    let meaning = match short {
        b"opaque" if value != b"y" => "has no effect: only the value y has".to_owned(),
        b"opaque" if real.stat.is_dir() => "hides the lower's directory (K21)".to_owned(),
        b"origin" => real.origin.map_or_else(
            || "a copy, of something that is not in this lower (K42)".to_owned(),
            |number| format!("belongs to inode {number} of the lower (K42)"),
        ),
        b"impure" => "entries here may have an origin (K48)".to_owned(),
        b"whiteout" => "an empty file that stands for a whiteout (K31)".to_owned(),
        b"redirect" => "takes its content from elsewhere: not supported (K26)".to_owned(),
        b"metacopy" => "a file without its data: not supported (K27)".to_owned(),
        b"uuid" => "belongs to the kernel's overlay (K15)".to_owned(),
        b"nlink" | b"upper" => "belongs to the kernel's index (section 12)".to_owned(),
        _ => "has no effect".to_owned(),
    };
    let text = str::from_utf8(value).ok();
    let text = text.filter(|text| !text.is_empty() && text.chars().all(|c| !c.is_control()));
    Mark {
        name: String::from_utf8_lossy(name).into_owned(),
        value: text.map_or_else(|| format!("0x{}", hex::encode(value)), str::to_owned),
        meaning,
    }
}

/// What the origin mark and the two inodes tell of a copy-up.
fn copied<'a>(upper: &Real, lowers: impl IntoIterator<Item = &'a Real>) -> Option<Copied> {
    let from = upper.origin?;
    let mut lowers = lowers.into_iter().map(|lower| &lower.stat);
    let (new, old) = (&upper.stat, lowers.find(|stat| stat.ino == from));
    let differs = old.map(|old| {
        let checks = [
            ("owner", (new.uid, new.gid) != (old.uid, old.gid)),
            ("mode", new.mode != old.mode),
            ("size", new.is_file() && new.size != old.size),
            ("mtime", new.mtime != old.mtime),
        ];
        let different = checks.iter().filter(|(_, differs)| *differs);
        different.map(|(what, _)| (*what).to_owned()).collect::<Vec<_>>()
    });
    Some(Copied {
        from,
        when: upper.birth.map(rfc3339),
        by: by(new, differs.as_deref()),
        differs,
    })
}

fn by(stat: &Stat, differs: Option<&[String]>) -> String {
    let Some(differs) = differs else {
        return "the name has changed since: it was renamed or linked".to_owned();
    };
    let has = |what: &str| differs.iter().any(|name| name == what);
    if stat.is_dir() {
        return "a change of something below it or of its own attributes; or it was made apart, and matched to the \
                lower's when it was met"
            .to_owned();
    }
    let mut calls = Vec::new();
    if has("size") || has("mtime") {
        calls.push(if stat.is_file() {
            "an open for writing, a truncate or a change of its times"
        } else {
            "a change of its times"
        });
    }
    if has("mode") {
        calls.push("a chmod");
    }
    if has("owner") {
        calls.push("a chown");
    }
    if calls.is_empty() {
        return "a change that left no trace: an open for writing without a write, a chmod to the same mode, an \
                attribute, a rename to and fro, a link"
            .to_owned();
    }
    calls.join(", and ")
}
