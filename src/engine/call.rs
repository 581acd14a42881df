//! From an engine's call to a view that answers.

use super::arguments::MountCall;
use crate::mount::unmount::remount;
use crate::mount::{Directories, MountError, Outcome, Request, mount};

/// Mounts what the call asks for, and returns when the view answers; in the foreground when it has been unmounted again.
/// `None` for a call that only changed a view that is there (`remount`).
///
/// Splits the process, as [`mount()`] does: to be called before there are threads. With `log`, a server in the background
/// writes a log.
///
/// # Errors
/// Whatever stood in the way; nothing is mounted then.
pub fn serve(call: MountCall, log: bool) -> Result<Option<Outcome>, MountError> {
    let MountCall {
        words,
        target,
        source,
        foreground,
    } = call;
    let mut options = words.options;
    if options.remount {
        return remount(&target, options.attributes).map(|()| None);
    }
    let directories = Directories {
        lowers: std::mem::take(&mut options.lowers)
            .into_iter()
            .map(Into::into)
            .collect(),
        upper: options
            .upper
            .take()
            .zip(options.work.take())
            .map(|(upper, work)| (upper.into(), work.into())),
        merged: target,
    };
    let request = Request {
        directories,
        options,
        source,
        foreground,
        remove_mount_point: false,
        log,
        passing: false,
        engine: true,
        foreign: true,
    };
    mount(&request, |_| {}).map(Some)
}
