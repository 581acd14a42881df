//! What all integration tests share.
//!
//! - [`sys`]: plain system calls that answer `Result<T, Errno>`, so that an error number is a value to compare.
//! - [`plant`]: trees written as literals: `[dir("d"), file("d/f", "text").mode(0o640)]`.
//! - [`tree`]: a snapshot of a directory and a readable difference of two.
//! - [`layers`]: lower, upper, work and merged in a temporary directory; mounts that end with their value.
//! - [`who`]: a step as another user.
//! - [`scenario`]: the same steps on the kernel's overlay and on plyfs, compared.
//! - [`acl`]: POSIX ACLs as bytes.
//! - [`images`]: images made from literals, in every shape, and those with quirks.
//! - [`known`]: the one table of purposeful differences.

pub mod acl;
pub mod images;
pub mod known;
pub mod layers;
pub mod plant;
pub mod scenario;
pub mod sys;
pub mod tree;
pub mod who;

pub use layers::{Fs, Layers};
pub use plant::{Node, chr, dir, fifo, file, hard, sock, sparse, symlink, whiteout};
pub use scenario::{Env, Scenario, scenario};
pub use sys::{Errno, Fd, R};
pub use tree::{Tree, snapshot};
pub use who::{User, as_user, with_umask};

use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Says in one line why a test cannot run here. The caller returns afterwards.
pub fn skip(name: &str, why: &str) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Past the capture of the test harness, so that a skipped test is seen without --nocapture.
    let line = format!("SKIP {name}: {why} ({count} skipped so far)\n");
    let _ = sys::write_all_to(2, line.as_bytes());
}

/// Copies a program, in a process of its own: what another test starts meanwhile must not have the copy open for writing,
/// or it cannot be run (ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let done = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(done.unwrap().success(), "cp to {}", to.as_ref().display());
}

/// Waits for a process that was asked to end, and kills it when it does not in that time.
pub fn end_within(process: &mut Child, limit: Duration) {
    let begun = Instant::now();
    while matches!(process.try_wait(), Ok(None)) {
        if begun.elapsed() > limit {
            let _ = process.kill();
            let _ = process.wait();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// True for root; otherwise prints the skip line.
pub fn need_root(name: &str) -> bool {
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skip(name, "needs root");
    }
    root
}
