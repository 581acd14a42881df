//! Giving memory back, and how large its pages are.

/// Hands freed memory back to the system, where the allocator keeps it otherwise.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number and only touches the allocator's own free memory.
    let released = unsafe { libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let released = false;
    log::debug!("memory given back: {released}");
}

/// The size of a page, bytes.
pub fn page_size() -> usize {
    // SAFETY: the call takes a number and reads what the system told the process at its start.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_or(4096, |size| size.max(1))
}
