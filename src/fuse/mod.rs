//! The protocol: decode a request, call the overlay, encode the answer.
//!
//! `handler.rs` has one short method for each request, `shared.rs` gives the answers, and `wire.rs` lays out
//! those that fuser cannot express. `io_mode.rs` says who reads and writes a file, and `awake.rs` keeps the time that
//! passes between a request and its answer short. `traced.rs` stands before the handler and tells listeners of each
//! request. `border.rs` shows other owners than the layers have, where that was asked for (`ids.rs`, `id_values.rs`).

mod awake;
mod border;
mod convert;
mod fill;
mod handler;
mod id_values;
pub mod ids;
mod io_mode;
mod kept;
mod shared;
mod traced;
mod wire;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, INodeNo, Session, SessionACL};

use crate::overlay::{Outdated, Overlay};
use handler::Handler;
pub use ids::{IdMap, IdMapError};
pub use io_mode::Passthrough;
use traced::Traced;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `call` with this thread's buffer, cut to `size` bytes; what is in it is left from before.
fn with_buffer<T>(size: usize, call: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        call(buffer.get_mut(..size).unwrap_or_default())
    })
}

/// How requests are served.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// How long the kernel may trust names and attributes (option `timeout=`, seconds).
    pub timeout: Duration,
    /// Whose files the kernel reads and writes by itself (option `passthrough=`).
    pub passthrough: Passthrough,
    /// The kernel gathers what is written and passes it on later (option `writeback`); nothing is passed through then.
    pub writeback: bool,
    /// Only root and the mounting user may use the view (option `allow_root`).
    pub allow_root: bool,
    /// Threads that read requests, at least 1.
    pub threads: usize,
    /// Keep idle processors near while requests flow, where that is allowed (option `latency=low`).
    pub low_latency: bool,
    /// Which owner of the layers shows as which.
    pub ids: IdMap,
    /// Directories show one link, however many directories are in them (option `static_nlink`).
    pub static_nlink: bool,
    /// There are no POSIX ACLs in the view (option `noacl`).
    pub no_acl: bool,
}

/// A mounted session, ready to answer.
#[derive(Debug)]
pub struct Server {
    session: Session<Traced>,
}

impl Server {
    /// Shakes hands with the kernel over a `/dev/fuse` descriptor that has just been mounted.
    ///
    /// # Errors
    /// When the kernel's protocol cannot be spoken, or the mount vanished.
    pub fn start(fuse: OwnedFd, overlay: Arc<Overlay>, options: &ServeOptions) -> io::Result<Self> {
        let device = fuse.as_fd().try_clone_to_owned()?;
        let backing = device.try_clone()?;
        let handler = Handler::new(Arc::clone(&overlay), device, backing, options);
        // The kernel has checked who may enter; fuser's own check is needed for allow_root only.
        let acl = if options.allow_root {
            SessionACL::RootAndOwner
        } else {
            SessionACL::All
        };
        let mut config = Config::default();
        config.acl = acl;
        config.n_threads = Some(options.threads.max(1));
        let handler = Traced { handler };
        let session = Session::from_fd(handler, fuse, acl, config)?;
        let notifier = session.notifier();
        // What is cached from this offset on goes too; a negative one means nothing of it.
        overlay.on_invalidate(move |node, outdated| {
            let offset = match outdated {
                Outdated::Attributes => -1,
                Outdated::Pages => 0,
            };
            if let Err(error) = notifier.inval_inode(INodeNo(node), offset, 0) {
                log::debug!("invalidate node {node}: {error}");
            }
        });
        Ok(Self { session })
    }

    /// Answers requests until the view is unmounted.
    ///
    /// # Errors
    /// When the connection breaks for another reason than an unmount.
    pub fn run(self) -> io::Result<()> {
        match self.session.run() {
            // An aborted connection ends the session too.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            done => done,
        }
    }
}
