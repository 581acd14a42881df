//! The protocol: decode a request, call the overlay, encode the answer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::overlay::Overlay;

/// How requests are served.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// How long the kernel may trust names and attributes (option `timeout=`, seconds).
    pub timeout: Duration,
    /// Only root and the mounting user may use the view (option `allow_root`).
    pub allow_root: bool,
    /// Threads that read requests, at least 1.
    pub threads: usize,
}

/// A mounted session, ready to answer.
#[derive(Debug)]
pub struct Server {
    _overlay: Arc<Overlay>,
}

impl Server {
    /// Shakes hands with the kernel over a `/dev/fuse` descriptor that has just been mounted.
    ///
    /// # Errors
    /// When the kernel's protocol cannot be spoken, or the mount vanished.
    pub fn start(_fuse: OwnedFd, overlay: Arc<Overlay>, _options: &ServeOptions) -> io::Result<Self> {
        Ok(Self { _overlay: overlay })
    }

    /// Answers requests until the view is unmounted.
    ///
    /// # Errors
    /// When the connection breaks for another reason than an unmount.
    pub fn run(self) -> io::Result<()> {
        Ok(())
    }
}
