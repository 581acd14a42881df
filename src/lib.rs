//! plyfs merges one read-only *lower* directory and one writable *upper* directory into one view.
//!
//! ```text
//!        merged   what programs see
//!       ┌────────────────────────┐
//!       │ etc/  hello   new      │
//!       └───▲──────▲───────▲─────┘
//!  upper    │      │ copy  │        every change lands here
//!       ┌───┴──┐   │  up ┌─┴───┐
//!       │ etc/ │ ──┘     │ new │
//!       └───▲──┘         └─────┘
//!  lower    │      ▲                never written
//!       ┌───┴──────┴─────────────┐
//!       │ etc/  hello   old      │
//!       └────────────────────────┘
//! ```
//!
//! Read the modules from the bottom up; each uses only what stands above it in this list:
//!
//! 1. [`sys`]: system calls made safe.
//! 2. [`mod@format`]: the on-disk language, shared with the kernel's overlay: whiteouts, opaque marks, origins.
//! 3. [`overlay`]: the rules and the state of one merged view.
//! 4. [`fuse`]: the protocol: decode a request, call the overlay, encode the answer.
//! 5. [`mount`]: set-up checks, locks, the background server, the list of live mounts.
//! 6. [`explain`]: which layer answers for a path, why, and what a change would do.
//! 7. [`builder`]: layers as whole trees that share files by hard links. It stands beside the file system: of the
//!    above it uses [`sys`] and [`mod@format`] only.
//! 8. [`upper`]: the changes of a view that is not mounted: told, checked, applied to the lower, dropped.
//! 9. [`trial`]: a command on a throw-away view, and the decision afterwards.
//! 10. [`store`]: images, layers and containers on disk.
//! 11. [`compare`]: the same operations on two ways to mount, compared.
//! 12. [`lesson`]: a walk through the rules that a teacher can show.
//! 13. [`engine`]: what container engines call, and how they are told to.
//! 14. [`doctor`]: what works on this machine.
//! 15. [`cli`]: what a person typed.
//!
//! Each of [`mount`], [`explain`], [`upper`] (differences, and bringing them into the lower) and [`compare`] begins with an
//! example for other programs; [`builder::diff`] compares whole trees.

pub mod builder;
pub mod cli;
pub mod compare;
pub mod doctor;
pub mod engine;
pub mod explain;
pub mod format;
pub mod fuse;
pub mod lesson;
pub mod mount;
pub mod overlay;
pub mod store;
pub mod sys;
pub mod trial;
pub mod upper;

#[cfg(test)]
mod architecture {
    //! The shape of the crate, checked on its own sources.

    use std::path::{Path, PathBuf};

    /// From the bottom up: each storey uses only those before it.
    const STOREYS: [&str; 15] = [
        "sys", "format", "overlay", "fuse", "mount", "explain", "builder", "upper", "trial", "store",
        "compare", "lesson", "engine", "doctor", "cli",
    ];
    /// The wing of the file system, which the builder stands beside.
    const MOUNT_WING: [&str; 4] = ["overlay", "fuse", "mount", "explain"];

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
        found
    }

    fn each_line(mut check: impl FnMut(&str, &Path, &str)) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for storey in STOREYS {
            let files = sources(&root.join(storey));
            assert!(!files.is_empty(), "{storey} has no files");
            for file in files {
                for line in std::fs::read_to_string(&file).unwrap().lines() {
                    check(storey, &file, line.trim_start());
                }
            }
        }
    }

    #[test]
    fn arrows_point_down() {
        let height = |name: &str| STOREYS.iter().position(|storey| *storey == name);
        each_line(|storey, file, line| {
            for used in line.split("crate::").skip(1) {
                let end = used
                    .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                    .unwrap_or(used.len());
                if let Some(used) = height(&used[..end]) {
                    assert!(Some(used) <= height(storey), "{}: {line}", file.display());
                    let beside = storey == "builder" && MOUNT_WING.contains(&STOREYS[used]);
                    assert!(!beside, "{}: {line}", file.display());
                }
            }
        });
    }

    #[test]
    fn unsafe_lives_in_sys() {
        each_line(|storey, file, line| {
            let code = line.split("//").next().unwrap_or("");
            let word = code
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe");
            assert!(storey == "sys" || !word, "{}: {line}", file.display());
        });
    }
}
