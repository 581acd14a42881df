//! Fault injection for the crash tests: dies, or fails, at a chosen mutating system call.
//!
//! Without the feature `fault-injection` [`point`] is an empty inline function.

use super::Result;

/// Called before every system call that changes a layer.
///
/// With the feature, and when the file named by `PLYFS_FAULT_FILE` exists, counts the calls made since
/// the file appeared. Its content says what to do at the N-th: `kill N` ends the process at once,
/// `errno N E` makes the call fail with error number `E`.
///
/// # Errors
/// The injected error number; never without the feature.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub fn point() -> Result<()> {
    Ok(())
}

/// How many links an inode can carry, if the file system is to look as if it could carry few: with the feature,
/// what `PLYFS_LINK_LIMIT` says.
#[cfg(not(feature = "fault-injection"))]
pub fn link_limit() -> Option<u32> {
    None
}

#[cfg(feature = "fault-injection")]
pub use injected::{link_limit, point};

#[cfg(feature = "fault-injection")]
mod injected {
    use super::Result;
    use crate::sys::Errno;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static COUNT: AtomicU64 = AtomicU64::new(0);
    static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();

    /// See the module page.
    pub fn link_limit() -> Option<u32> {
        std::env::var("PLYFS_LINK_LIMIT").ok()?.parse().ok()
    }

    /// Called before every system call that changes a layer; see the module page.
    ///
    /// # Errors
    /// The injected error number.
    pub fn point() -> Result<()> {
        let Some(file) = FILE.get_or_init(|| std::env::var_os("PLYFS_FAULT_FILE").map(Into::into)) else {
            return Ok(());
        };
        let Ok(text) = std::fs::read_to_string(file) else {
            COUNT.store(0, Ordering::SeqCst);
            return Ok(());
        };
        let count = COUNT.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let mut words = text.split_whitespace();
        let (verb, at, errno) = (words.next(), words.next(), words.next());
        if at.and_then(|n| n.parse::<u64>().ok()) != Some(count) {
            return Ok(());
        }
        match verb {
            Some("kill") => {
                log::warn!("fault injection: killing the server at call {count}");
                let pid = rustix::process::getpid();
                // Nothing can be done when the kill fails; the test notices that the server lives on.
                if rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_err() {
                    std::process::abort();
                }
                Ok(())
            }
            Some("errno") => {
                let code = errno.and_then(|e| e.parse::<i32>().ok()).unwrap_or(libc::EIO);
                Err(Errno::from_raw_os_error(code))
            }
            _ => Ok(()),
        }
    }
}
