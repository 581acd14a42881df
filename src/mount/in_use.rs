//! Which live mount uses a directory that is to be worked on without a mount.
//!
//! The lock on upper and work tells of plyfs itself. The lower has no lock, and the kernel's overlay locks nothing
//! that a program could ask for: these are looked for in the list of live views and in the mount table.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::{MountError, Role};
use super::mountinfo::{self, MountEntry};
use super::registry;

/// Refuses a lower, upper or work that a live mount uses, by the kernel's paths of the three.
pub(super) fn check(mounts: &[MountEntry], [lower, upper, work]: [&Path; 3]) -> Result<(), MountError> {
    let used = |role, path: &Path, merged: &Path, by: &str| {
        Err(MountError::InUse {
            role,
            path: path.to_owned(),
            by: format!(", mounted on {}{by}", merged.display()),
        })
    };
    for live in registry::live()? {
        if live.entry.lowers().any(|path| path == lower) {
            let by = format!(" by process {}", live.entry.pid);
            return used(Role::Lower, lower, &live.entry.merged.path(), &by);
        }
    }
    for mount in mounts {
        // The source of a view is its topmost lower, unless the user named another; other users' views are seen so.
        if mount.kind == mountinfo::KIND && Path::new(&mount.source) == lower {
            return used(Role::Lower, lower, &mount.point, "");
        }
        if mount.kind != "overlay" {
            continue;
        }
        for (name, path) in overlay_layers(&mount.fs_options) {
            let (role, ours) = match name.as_slice() {
                b"upperdir" => (Role::Upper, upper),
                b"workdir" => (Role::Work, work),
                _ => (Role::Lower, lower),
            };
            if path == ours {
                return used(role, ours, &mount.point, " by the kernel's overlay");
            }
        }
    }
    Ok(())
}

/// The directories in the options of a mount of the kernel's overlay, each with its word.
fn overlay_layers(options: &OsStr) -> Vec<(Vec<u8>, PathBuf)> {
    let mut found = Vec::new();
    for word in split(options.as_bytes(), b',') {
        let Some(at) = word.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = word.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        match name {
            b"upperdir" | b"workdir" | b"lowerdir+" => found.push((name.to_vec(), plain(value))),
            b"lowerdir" => {
                found.extend(split(value, b':').map(|path| (name.to_vec(), plain(path))));
            }
            _ => {}
        }
    }
    found
}

/// The parts between separators that no backslash stands before.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    text.split(move |byte| {
        let here = *byte == separator && !escaped;
        escaped = *byte == b'\\' && !escaped;
        here
    })
}

fn plain(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut escaped = false;
    for byte in text {
        escaped = *byte == b'\\' && !escaped;
        if !escaped {
            bytes.push(*byte);
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_kernel() {
        let options = OsStr::new(r"rw,lowerdir=/a\:b:/c\,d,upperdir=/u,workdir=/w,lowerdir+=/e,uuid=on");
        let found = overlay_layers(options);
        let paths: Vec<_> = found.iter().map(|(_, path)| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/a:b", "/c,d", "/u", "/w", "/e"]);
    }
}
