//! Which live view a path lies in.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::layers::ExplainError;
use crate::mount::MountError;
use crate::mount::mountinfo::{self, MountEntry};
use crate::mount::registry::{self, Live};

/// A path in a live view.
#[derive(Debug)]
pub struct Viewed {
    /// The view.
    pub live: Live,
    /// The path below its root; nothing in it has been followed.
    pub inside: PathBuf,
}

/// Finds the live view of this user that a path leads into. Nothing in a view is asked, so a view that does not answer
/// cannot hold this up.
///
/// # Errors
/// When the path lies in no view, or in one whose server is dead or another user's.
pub fn find(path: &Path) -> Result<Viewed, ExplainError> {
    let mounts =
        mountinfo::read().map_err(MountError::io("cannot read", Path::new("/proc/self/mountinfo")))?;
    let mut all = if path.is_absolute() {
        PathBuf::new()
    } else {
        std::env::current_dir().map_err(MountError::io("cannot tell the working directory for", path))?
    };
    all.push(path);
    let none = || {
        ExplainError::NoView {
        path: path.to_owned(),
        why: "lies in no view of plyfs (see 'plyfs list'; or name --lower and --upper, and the path in their view)"
            .to_owned(),
    }
    };
    let mut real = PathBuf::from("/");
    let mut rest = all.components();
    loop {
        // The way may lead through the view that is mounted on the root itself.
        if let Some(entry) = view_at(&mounts, &real) {
            let mut out = rest.clone();
            if let (Some(Component::ParentDir), Some(above)) = (out.next(), real.parent()) {
                return find_from(path, &above.join(out.as_path()));
            }
            return deepest(path, &mounts, entry, rest.as_path());
        }
        let Some(component) = rest.next() else {
            return Err(none());
        };
        match component {
            Component::Normal(name) => real.push(name),
            Component::ParentDir => {
                real.pop();
                continue;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        }
        if view_at(&mounts, &real).is_some() {
            continue;
        }
        // Outside of every view: followed as the kernel does.
        if std::fs::symlink_metadata(&real).is_ok_and(|found| found.is_symlink()) {
            let target = std::fs::read_link(&real).map_err(MountError::io("cannot read", &real))?;
            real.pop();
            return find_from(path, &real.join(target).join(rest.as_path()));
        }
    }
}

/// Goes on behind a symlink. The kernel's own limit bounds the depth: who loops is told so by it.
fn find_from(asked: &Path, next: &Path) -> Result<Viewed, ExplainError> {
    let looped = std::fs::symlink_metadata(asked)
        .is_err_and(|error| error.raw_os_error() == Some(crate::sys::Errno::LOOP.raw_os_error()));
    if looped {
        return Err(ExplainError::Loop {
            path: asked.to_owned(),
        });
    }
    find(next)
}

fn view_at<'a>(mounts: &'a [MountEntry], point: &Path) -> Option<&'a MountEntry> {
    mountinfo::topmost(mounts, point).filter(|entry| entry.kind == mountinfo::KIND)
}

/// The view mounted furthest down on the way to `inside`.
fn deepest(
    asked: &Path,
    mounts: &[MountEntry],
    outer: &MountEntry,
    inside: &Path,
) -> Result<Viewed, ExplainError> {
    let refuse = |why: String| ExplainError::NoView {
        path: asked.to_owned(),
        why,
    };
    let mut entry = outer;
    let mut names = inside.components();
    let mut at = entry.point.clone();
    let mut rest = inside.to_owned();
    while let Some(name) = names.next() {
        at.push(name);
        let Some(found) = mountinfo::topmost(mounts, &at) else {
            continue;
        };
        if found.kind != mountinfo::KIND {
            return Err(refuse(format!(
                "lies not in the view, but in the {} mounted on {}",
                found.kind,
                at.display()
            )));
        }
        entry = found;
        rest = names.as_path().to_owned();
    }
    let live = registry::live()?
        .into_iter()
        .find(|live| live.entry.mount_id == entry.id);
    match live {
        Some(live) => Ok(Viewed { live, inside: rest }),
        None => Err(refuse(format!(
            "the view on {} has no live server of this user: it is another user's, or the server died (then clear it \
             with 'plyfs umount {0}', and ask with --lower {} --upper ...)",
            entry.point.display(),
            lower_of(entry),
        ))),
    }
}

/// The first column of mount(8) is the lower unless somebody chose another one.
fn lower_of(entry: &MountEntry) -> String {
    let path = Path::new(OsStr::new(&entry.source));
    if path.is_absolute() {
        path.display().to_string()
    } else {
        "...".to_owned()
    }
}
