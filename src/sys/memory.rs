//! Taking memory late and giving it back.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A cache of at most `limit` entries that takes memory as it fills, and not for all of them before there is one: few
/// views ever fill theirs.
#[must_use]
pub fn cache<K: Hash + Eq, V>(limit: NonZeroUsize) -> LruCache<K, V> {
    let mut cache = LruCache::unbounded();
    cache.resize(limit);
    cache
}

/// From this size on, in bytes, a block of memory is a mapping of its own: nothing but the buffers that requests are
/// read into, which are hardly ever touched beyond their beginning.
#[cfg(target_env = "gnu")]
const APART: libc::c_int = 8 << 20;

/// Keeps the allocator from learning, when the first of those buffers is freed, that blocks of their size are better cut
/// from its heaps, parts of which it then has to clear.
pub fn large_blocks_apart() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, APART),
        (libc::M_TRIM_THRESHOLD, 2 * APART),
    ] {
        // SAFETY: the call takes two numbers and changes what later allocations do, not what has been allocated.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            log::debug!("the allocator keeps its parameter {parameter}");
        }
    }
}

/// Hands freed memory back to the system, where the allocator keeps it otherwise.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number and only touches the allocator's own free memory.
    let released = unsafe { libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let released = false;
    log::debug!("memory given back: {released}");
}
