//! Where the layers lie: a place that is gone without a trace when it is dropped.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::hunt::Setting;
use super::pair::{SIDES, Side};
use crate::sys::plain as sys;

/// The four directories of a mount.
#[derive(Clone, Debug)]
pub struct Place {
    pub lower: PathBuf,
    /// Lowers above that one, the topmost first.
    pub tops: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
}

/// A place to work in: a fresh tmpfs in a mount name space that only this thread and its children see.
pub struct Bench {
    root: PathBuf,
    on_disk: bool,
    cases: Cell<u32>,
}

fn mount(source: &str, at: &Path, kind: &str, flags: u64, words: &str) -> Result<(), String> {
    sys::mount(
        &sys::c(source.as_bytes()),
        &c_path(at),
        &sys::c(kind.as_bytes()),
        flags,
        &sys::c(words.as_bytes()),
    )
    .map_err(|e| format!("cannot mount {kind} on {}: {}", at.display(), sys::errno_name(e)))
}

fn memory(at: &Path) -> Result<(), String> {
    mount("none", at, "tmpfs", libc::MS_NOATIME, "mode=755,inode64")
}

impl Bench {
    /// In memory, or on a file system, as the setting says.
    pub fn new(setting: &Setting) -> Result<Self, String> {
        sys::own_mounts().map_err(|e| {
            let why = sys::errno_name(e);
            format!("cannot make a mount name space of its own ({why}): root is needed, for the kernel's overlay too")
        })?;
        let control = Path::new("/sys/fs/fuse/connections");
        let empty = |dir: &Path| dir.read_dir().is_ok_and(|mut entries| entries.next().is_none());
        if control.is_dir() && empty(control) {
            // Without it a call that hangs in a server ends only when the server does.
            if let Err(why) = mount("none", control, "fusectl", 0, "") {
                log::debug!("{why}");
            }
        }
        let unique = format!(
            "plyfs-compare-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let unique = unique.replace(['(', ')'], "");
        let root = setting
            .dir
            .clone()
            .unwrap_or_else(std::env::temp_dir)
            .join(unique);
        std::fs::create_dir_all(&root).map_err(|e| format!("cannot make {}: {e}", root.display()))?;
        let bench = Self {
            root,
            on_disk: !setting.in_memory,
            cases: Cell::new(0),
        };
        if !bench.on_disk {
            memory(&bench.root)?;
        }
        Ok(bench)
    }

    /// Inode numbers of deleted files do not come back.
    pub fn numbers_are_unique(&self) -> bool {
        !self.on_disk
    }

    /// A directory on which the view of the side that is used now can be seen.
    pub fn view(&self) -> Result<PathBuf, String> {
        let view = self.root.join("view");
        std::fs::create_dir_all(&view).map_err(|e| format!("cannot make {}: {e}", view.display()))?;
        Ok(view)
    }

    /// Two sets of empty layers.
    pub fn case(&self) -> Result<Case, String> {
        self.cases.set(self.cases.get() + 1);
        let root = self.root.join(self.cases.get().to_string());
        make(&root)?;
        let case = Case {
            root: root.clone(),
            on_disk: self.on_disk,
            tops: Cell::new(0),
        };
        if !self.on_disk {
            memory(&root)?;
        }
        for side in ["1", "2"] {
            let at = root.join(side);
            make(&at)?;
            for name in ["l", "u", "w", "m"] {
                make(&at.join(name))?;
            }
        }
        Ok(case)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !self.on_disk {
            sys::umount(&c_path(&self.root), libc::MNT_DETACH).ok();
        }
        std::fs::remove_dir_all(&self.root).ok();
    }
}

fn make(path: &Path) -> Result<(), String> {
    std::fs::create_dir(path).map_err(|e| format!("cannot make {}: {e}", path.display()))
}

/// The directories of one run of a program.
pub struct Case {
    root: PathBuf,
    on_disk: bool,
    tops: Cell<usize>,
}

impl Place {
    /// All lowers, the topmost first.
    pub fn lowers(&self) -> impl Iterator<Item = &PathBuf> {
        self.tops.iter().chain([&self.lower])
    }

    /// The same as a word of mount options.
    pub fn lowerdir(&self) -> PathBuf {
        let paths: Vec<_> = self.lowers().map(|lower| lower.as_os_str()).collect();
        PathBuf::from(paths.join(std::ffi::OsStr::new(":")))
    }
}

impl Case {
    /// Makes room for lowers above the one there is, on both sides.
    pub fn add_tops(&self, count: usize) -> Result<(), String> {
        self.tops.set(count);
        for top in SIDES.into_iter().flat_map(|side| self.place(side).tops) {
            make(&top)?;
        }
        Ok(())
    }

    /// The layers that a side begins with.
    pub fn place(&self, side: Side) -> Place {
        let at = self.root.join(match side {
            Side::A => "1",
            Side::B => "2",
        });
        Place {
            lower: at.join("l"),
            tops: (1..=self.tops.get())
                .map(|number| at.join(format!("t{number}")))
                .collect(),
            upper: at.join("u"),
            work: at.join("w"),
            merged: at.join("m"),
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if self.on_disk {
            std::fs::remove_dir_all(&self.root).ok();
        } else {
            sys::umount(&c_path(&self.root), libc::MNT_DETACH).ok();
            std::fs::remove_dir(&self.root).ok();
        }
    }
}

/// A path for a system call.
pub fn c_path(path: &Path) -> std::ffi::CString {
    sys::c(path.as_os_str().as_bytes())
}
