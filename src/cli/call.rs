//! The call of a container engine: no command of plyfs, but the form of `fuse-overlayfs`.

use std::ffi::OsString;

use super::Failure;
use super::mount::start_logging;
use super::output::print;
use crate::engine::arguments::{self, Asked, CallError};
use crate::engine::call;
use crate::mount::Outcome;

/// Does what the engine asks. Its error messages go to the person who uses the engine.
pub(super) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let asked = match arguments::parse(arguments) {
        Err(CallError::Option(error)) => return Err(error.into()),
        Err(error) => return Err(Failure::usage(error)),
        Ok(asked) => asked,
    };
    let call = match asked {
        Asked::Version => return Ok(print(arguments::version().as_bytes())?),
        Asked::Help => return Ok(print(arguments::help(arguments).as_bytes())?),
        Asked::Mount(call) => *call,
    };
    for note in &call.words.notes {
        eprintln!("{note}");
    }
    // RUST_LOG may be meant for another program that the engine runs.
    let asked = call.words.options.debug
        || std::env::var("RUST_LOG").is_ok_and(|filter| filter.contains(env!("CARGO_PKG_NAME")));
    let log = start_logging(&call.words.options, call.foreground) && asked;
    if let Some(Outcome::Ready(entry)) = call::serve(call, log)?
        && let Some(log) = &entry.log
    {
        eprintln!("plyfs: logging to {}", log.path().display());
    }
    Ok(())
}
