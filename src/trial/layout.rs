//! Which of the mounts below a directory are layered, which are shown as they are.

use std::path::{Path, PathBuf};

use crate::mount::mountinfo::{self, MountEntry};

/// What becomes of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// A view is laid over it.
    Layer,
    /// It shows as it is, with everything below it.
    Show,
    /// As [`How::Show`], but nothing in it can be changed.
    ShowReadOnly,
}

/// A mount and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) point: PathBuf,
    pub(super) how: How,
}

/// File systems that hold no files, but doors into the kernel.
const DOORS: &[&str] = &[
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "configfs",
    "hugetlbfs",
    "efivarfs",
    "autofs",
    "binfmt_misc",
    "fusectl",
    "selinuxfs",
    "rpc_pipefs",
    "nsfs",
    "fuse.lxcfs",
    "fuse.gvfsd-fuse",
    "fuse.portal",
];

/// The directory itself first, then what is mounted below it, in the order of the paths.
pub(super) fn parts(mounts: &[MountEntry], dir: &Path, is_dir: impl Fn(&Path) -> bool) -> Vec<Part> {
    let mut points: Vec<&Path> = mounts
        .iter()
        .map(|mount| mount.point.as_path())
        .filter(|point| point.starts_with(dir) && *point != dir)
        .collect();
    points.sort();
    points.dedup();
    let mut parts = vec![Part {
        point: dir.to_owned(),
        how: How::Layer,
    }];
    let mut shown: Option<&Path> = None;
    for point in points {
        // Comes along with what is above it.
        if shown.is_some_and(|above| point.starts_with(above)) {
            continue;
        }
        let Some(mount) = mountinfo::topmost(mounts, point) else {
            continue;
        };
        let read_only = [&mount.options, &mount.fs_options].iter().any(|options| {
            options
                .as_encoded_bytes()
                .split(|byte| *byte == b',')
                .any(|word| word == b"ro")
        });
        let how = if point == Path::new("/dev") || DOORS.contains(&mount.kind.as_str()) {
            // Through /sys root changes the machine itself.
            if mount.kind == "sysfs" {
                How::ShowReadOnly
            } else {
                How::Show
            }
        } else if !is_dir(point) {
            How::ShowReadOnly
        } else if read_only {
            How::Show
        } else {
            How::Layer
        };
        // Below what is read-only something else may be mounted, so only doors take everything along.
        if how != How::Layer && (point == Path::new("/dev") || DOORS.contains(&mount.kind.as_str())) {
            shown = Some(point);
        }
        parts.push(Part {
            point: point.to_owned(),
            how,
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_usual_machine() {
        let mount = |id, point: &str, kind: &str, options: &str| MountEntry {
            id,
            parent: 1,
            device: "0:1".into(),
            root: "/".into(),
            point: point.into(),
            kind: kind.into(),
            source: "x".into(),
            options: options.into(),
            fs_options: "rw".into(),
        };
        let mounts = [
            mount(1, "/", "ext4", "rw"),
            mount(2, "/proc", "proc", "rw"),
            mount(3, "/proc/sys/fs/binfmt_misc", "binfmt_misc", "rw"),
            mount(4, "/dev", "tmpfs", "rw"),
            mount(5, "/dev/shm", "tmpfs", "rw"),
            mount(6, "/sys", "sysfs", "rw"),
            mount(7, "/home", "xfs", "rw"),
            mount(8, "/mnt/cd", "iso9660", "ro,relatime"),
            mount(9, "/etc/hosts", "ext4", "rw"),
        ];
        let shown = |dir: &str| -> Vec<String> {
            let parts = parts(&mounts, Path::new(dir), |path| path != Path::new("/etc/hosts"));
            parts
                .iter()
                .map(|part| format!("{} {:?}", part.point.display(), part.how))
                .collect()
        };
        assert_eq!(
            shown("/"),
            [
                "/ Layer",
                "/dev Show",
                "/etc/hosts ShowReadOnly",
                "/home Layer",
                "/mnt/cd Show",
                "/proc Show",
                "/sys ShowReadOnly"
            ]
        );
        assert_eq!(shown("/home/me"), ["/home/me Layer"]);
    }
}
