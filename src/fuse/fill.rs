//! The data of a small file of the lower goes to the kernel's cache before its first open is answered, which saves
//! the read that would follow.
//!
//! Storing waits for pages that somebody reads, and reading waits for a thread of this server, so there must be no
//! reader: the first open of a file is not answered before its data is stored, and a further open waits for the first.
//! Nor may the data change: a copy-up, before which nobody can write, waits too, or is there first and nothing is
//! stored.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::shared::Shared;
use super::wire;
use crate::overlay::OpenFile;
use crate::sys::io;

/// Files up to this size, bytes: a longer one is read in several requests anyway, and perhaps not to its end.
const SMALL: u64 = 64 << 10;

/// Stores the data of a file about to be opened, unless that was done before or is not for this file.
pub(super) fn fill(shared: &Shared, open: &OpenFile) {
    let node = &open.node;
    let small = open.size > 0 && open.size <= SMALL;
    if !small || !open.on_lower() || shared.ttl.is_zero() || node.filled.load(Ordering::Relaxed) {
        return;
    }
    if shared.modes.passes_lower() {
        return;
    }
    let _unchanged = node.copying.lock();
    if node.upper().is_some() || node.filled.swap(true, Ordering::Relaxed) {
        return;
    }
    let size = usize::try_from(open.size).unwrap_or(0);
    let stored = super::with_buffer(size, |data| {
        if io::read_at(&*open.file(), data, 0)? == size {
            wire::store(shared.device.as_fd(), open.id, data)
        } else {
            // Cut outside the view: the kernel asks and sees for itself.
            Ok(())
        }
    });
    if let Err(errno) = stored {
        log::debug!("{}: not stored in the kernel's cache: {errno}", node.path());
    }
}
