//! The generated differential test: the same random programs on the kernel's overlay and on plyfs, in step.
//!
//! `docs/differential.md` tells how it works and how to use it; `scripts/soak` runs it for long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfs::compare::{self, Find, Found, Hunt, Pair, Program, Setting, Way};

/// The seeds that every run of the tests begins with.
const FIRST_SEED: u64 = 1;
/// Steps of one program.
const STEPS: usize = 400;

fn is_root() -> bool {
    // SAFETY: plain call.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: the kernel's overlay can be mounted by root only");
    }
    root
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// Fields not to be compared, for a look at what else differs: `PLYFS_DIFF_IGNORE=nlink,ino`.
fn ignored() -> Vec<String> {
    let list = std::env::var("PLYFS_DIFF_IGNORE").unwrap_or_default();
    list.split(',')
        .filter(|field| !field.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What `docs/differential.md` says of the environment.
fn setting() -> Setting {
    Setting {
        dir: std::env::var_os("PLYFS_DIFF_DIR").map(PathBuf::from),
        in_memory: std::env::var_os("PLYFS_DIFF_DIR").is_none(),
        ignored: ignored(),
        trace: std::env::var_os("PLYFS_DIFF_TRACE").is_some(),
        ..Setting::new(env!("CARGO_BIN_EXE_plyfs").into())
    }
}

/// The system under test: the program built here, or what `PLYFS_TEST_OURS` names.
fn ours() -> Way {
    let words = |usual: &str| std::env::var("PLYFS_TEST_OURS_OPTIONS").unwrap_or(usual.into());
    match std::env::var_os("PLYFS_TEST_OURS") {
        Some(word) if word == "kernel" => Way::kernel(),
        Some(path) => Way::like_fuse_overlayfs(Path::new(&path), &words(",allow_other,dev,suid")),
        None => Way::plyfs(Path::new(env!("CARGO_BIN_EXE_plyfs")), &words(",dev,suid")),
    }
}

fn kernel_and(other: Way) -> Pair<Way> {
    Pair {
        a: Way::kernel(),
        b: other,
    }
}

/// Runs in a thread of its own, which the hunt moves into another mount name space, and tells each find at once.
/// `PLYFS_DIFF_OUT` names a directory for their scripts and replay files.
fn run(hunt: &Hunt, setting: &Setting, ways: &Pair<Way>) -> Found {
    let folder = std::env::var_os("PLYFS_DIFF_OUT").map(PathBuf::from);
    let mut index = 0;
    let mut publish = |find: &Find| {
        println!("{find}");
        if let Some(folder) = &folder {
            println!(
                "written: {}",
                find.save(folder, index).expect("PLYFS_DIFF_OUT").display()
            );
        }
        index += 1;
    };
    let found = std::thread::scope(|scope| {
        let work = || {
            hunt.run(setting, ways, &mut |_, find| {
                find.into_iter().for_each(&mut publish)
            })
        };
        scope.spawn(work).join().expect("the hunt's thread")
    });
    let found = found.expect("the engine");
    println!("{found}");
    found
}

/// The text of what was found, for a failing test.
fn text(found: &Found) -> String {
    found.finds.iter().map(Find::to_string).collect()
}

/// What the tests of this crate rest on: plyfs does what the kernel does.
#[test]
fn plyfs_does_what_the_kernel_does() {
    if !is_root() {
        return;
    }
    let seconds = number("PLYFS_DIFF_SECONDS").unwrap_or(60);
    let hunt = Hunt {
        first_seed: number("PLYFS_SEED").unwrap_or(FIRST_SEED),
        steps: number("PLYFS_OPS").map_or(STEPS, |ops| ops as usize),
        time: Duration::from_secs(number("PLYFS_MINUTES").map_or(seconds, |minutes| minutes * 60)),
        programs: number("PLYFS_SEED")
            .filter(|_| number("PLYFS_MINUTES").is_none())
            .map(|_| 1),
        most_finds: 1,
        shrink: Duration::from_secs(120),
    };
    let found = run(&hunt, &setting(), &kernel_and(ours()));
    assert!(
        found.finds.is_empty(),
        "unexplained differences:\n{}",
        text(&found)
    );
}

/// The engine itself: the kernel does what the kernel does.
#[test]
fn the_kernel_agrees_with_itself() {
    if !is_root() {
        return;
    }
    let seconds = number("PLYFS_DIFF_SELF_SECONDS").unwrap_or(5);
    let hunt = Hunt {
        first_seed: 9_000_000,
        steps: STEPS,
        time: Duration::from_secs(seconds),
        programs: None,
        most_finds: 1,
        shrink: Duration::from_secs(60),
    };
    let found = run(&hunt, &setting(), &kernel_and(Way::kernel()));
    assert!(
        found.finds.is_empty(),
        "the engine is not silent where it must be:\n{}",
        text(&found)
    );
}

/// The engine finds, shrinks and prints: fuse-overlayfs 1.10 is known to differ.
#[test]
fn differences_of_another_overlay_are_found_and_shrunk() {
    let other = Path::new("/usr/bin/fuse-overlayfs");
    if !is_root() || !other.exists() {
        println!("SKIP differences_of_another_overlay: needs root and fuse-overlayfs");
        return;
    }
    let hunt = Hunt {
        first_seed: 1,
        steps: 200,
        time: Duration::from_secs(45),
        programs: None,
        most_finds: 3,
        shrink: Duration::from_secs(12),
    };
    // It never says nlink 1 of a directory, and numbers change at copy-up: that would be all that is found.
    let setting = Setting {
        ignored: ["nlink", "ino", "mtime moves", "ctime moves", "device", "upper"]
            .map(str::to_owned)
            .to_vec(),
        ..setting()
    };
    let other = Way::like_fuse_overlayfs(other, ",allow_other,dev,suid");
    let found = run(&hunt, &setting, &kernel_and(other));
    let small = |find: &&Find| (1..20).contains(&find.program.events());
    let find = found
        .finds
        .iter()
        .find(small)
        .expect("a small program with steps");
    assert!(find.script().contains("\ndo("), "the script does something");
}

/// For `scripts/soak`: many programs, many finds, no limit but those given.
#[test]
#[ignore = "runs as long as told; see scripts/soak"]
fn soak() {
    let hunt = Hunt {
        first_seed: number("PLYFS_SEED").unwrap_or_else(compare::any_seed),
        steps: STEPS,
        time: Duration::from_secs(60 * number("PLYFS_MINUTES").unwrap_or(60)),
        programs: number("PLYFS_OPS").map(|ops| ops.div_ceil(STEPS as u64)),
        most_finds: number("PLYFS_FINDS").unwrap_or(1) as usize,
        shrink: Duration::from_secs(number("PLYFS_SHRINK_SECONDS").unwrap_or(120)),
    };
    let found = run(&hunt, &setting(), &kernel_and(ours()));
    assert!(
        found.finds.is_empty(),
        "{} unexplained differences",
        found.finds.len()
    );
}

/// Runs the program in the file `PLYFS_REPLAY` again.
#[test]
#[ignore = "needs PLYFS_REPLAY=FILE"]
fn replay() {
    let file = std::env::var_os("PLYFS_REPLAY").expect("PLYFS_REPLAY=FILE");
    let program = std::fs::read(&file).expect("the replay file");
    let program: Program = serde_json::from_slice(&program).expect("a program");
    let found = std::thread::spawn(move || compare::replay(&program, &setting(), &kernel_and(ours())))
        .join()
        .expect("the replay's thread")
        .expect("the engine");
    println!("{found}");
    assert!(found.finds.is_empty(), "{}", text(&found));
}
