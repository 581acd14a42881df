//! The generated differential test: the same random programs on the kernel's overlay and on plyfs, in step.
//!
//! `docs/differential.md` tells how it works and how to use it; `scripts/soak` runs it for long.

mod bytes;
mod calls;
mod choose;
mod engine;
mod generate;
mod hunt;
mod judge;
mod known;
mod layers;
mod model;
mod names;
mod nasty;
mod op;
mod outcome;
pub mod rng;
mod script;
mod shrink;
mod sys;
mod system;
mod tree;
mod trees;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use hunt::{Hunt, number};
use system::{Kernel, Program, ours};

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

/// A thread of its own: the hunt moves its thread into another mount name space.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().expect("the hunt's thread"))
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
        ignored: hunt::ignored(),
        steps: number("PLYFS_OPS").map_or(STEPS, |ops| ops as usize),
        time: Duration::from_secs(number("PLYFS_MINUTES").map_or(seconds, |minutes| minutes * 60)),
        programs: number("PLYFS_SEED")
            .filter(|_| number("PLYFS_MINUTES").is_none())
            .map(|_| 1),
        most_finds: 1,
        shrink: Duration::from_secs(120),
    };
    let found = on_own_thread(|| hunt.run(&Kernel, &*ours())).expect("the engine");
    println!("{found}");
    assert!(found.finds.is_empty(), "unexplained differences:\n{found}");
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
        ignored: hunt::ignored(),
        steps: STEPS,
        time: Duration::from_secs(seconds),
        programs: None,
        most_finds: 1,
        shrink: Duration::from_secs(60),
    };
    let found = on_own_thread(|| hunt.run(&Kernel, &Kernel)).expect("the engine");
    println!("{found}");
    assert!(
        found.finds.is_empty(),
        "the engine is not silent where it must be:\n{found}"
    );
}

/// The engine finds, shrinks and prints: fuse-overlayfs 1.10 is known to differ.
#[test]
fn differences_of_another_overlay_are_found_and_shrunk() {
    let other = PathBuf::from("/usr/bin/fuse-overlayfs");
    if !is_root() || !other.exists() {
        println!("SKIP differences_of_another_overlay: needs root and fuse-overlayfs");
        return;
    }
    let hunt = Hunt {
        first_seed: 1,
        // It never says nlink 1 of a directory, and numbers change at copy-up: that would be all that is found.
        ignored: ["nlink", "ino", "mtime moves", "ctime moves", "device", "upper"]
            .map(str::to_owned)
            .to_vec(),
        steps: 200,
        time: Duration::from_secs(45),
        programs: None,
        most_finds: 3,
        shrink: Duration::from_secs(12),
    };
    let found = on_own_thread(|| hunt.run(&Kernel, &Program::other(other))).expect("the engine");
    println!("{found}");
    let small = |find: &&hunt::Find| (1..20).contains(&find.program.events.len());
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
        first_seed: number("PLYFS_SEED").unwrap_or_else(hunt::any_seed),
        ignored: hunt::ignored(),
        steps: STEPS,
        time: Duration::from_secs(60 * number("PLYFS_MINUTES").unwrap_or(60)),
        programs: number("PLYFS_OPS").map(|ops| ops.div_ceil(STEPS as u64)),
        most_finds: number("PLYFS_FINDS").unwrap_or(1) as usize,
        shrink: Duration::from_secs(number("PLYFS_SHRINK_SECONDS").unwrap_or(120)),
    };
    let found = on_own_thread(|| hunt.run(&Kernel, &*ours())).expect("the engine");
    println!("{found}");
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
    let text = std::fs::read(&file).expect("the replay file");
    let program: op::Program = serde_json::from_slice(&text).expect("a program");
    let end = on_own_thread(|| hunt::replay(&program, &Kernel, &*ours())).expect("the engine");
    println!("{end:?}");
    assert!(matches!(end, engine::End::Agreed | engine::End::Accepted));
}

/// Not a test: the body of the worker processes.
#[test]
#[ignore = "run by the engine only"]
fn worker_process() {
    if std::env::var_os(worker::MARK).is_some() {
        worker::live();
    }
}
