//! How far the kernel reads ahead in a file of the view.

use super::mountinfo;

/// The greatest read in one request is as much, KiB; by itself the kernel asks a FUSE server for an eighth of it.
const KIB: u32 = 1024;

/// Has the kernel read further ahead in the mount with this number, so that a large file takes fewer requests. Only
/// root may ask for it, and a view without it is slower and nothing else.
pub(super) fn widen(mount_id: u64) {
    let widened = mountinfo::read().and_then(|mounts| {
        let ours = mounts.iter().find(|entry| entry.id == mount_id);
        let Some(device) = ours.map(|entry| &entry.device) else {
            return Ok(());
        };
        std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), KIB.to_string())
    });
    if let Err(error) = widened {
        log::debug!("reading ahead is left as it is: {error}");
    }
}
