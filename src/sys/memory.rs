//! Giving memory back.

/// Hands freed memory back to the system, where the allocator keeps it otherwise.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number and only touches the allocator's own free memory.
    let released = unsafe { libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let released = false;
    log::debug!("memory given back: {released}");
}
