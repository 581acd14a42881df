//! plyfs merges one read-only *lower* directory and one writable *upper* directory into one view.
//!
//! ```text
//!        merged   what programs see
//!       ┌────────────────────────┐
//!       │ etc/  hello   new      │
//!       └───▲──────▲───────▲─────┘
//!  upper    │      │ copy  │        every change lands here
//!       ┌───┴──┐   │  up ┌─┴───┐
//!       │ etc/ │ ──┘     │ new │
//!       └───▲──┘         └─────┘
//!  lower    │      ▲                never written
//!       ┌───┴──────┴─────────────┐
//!       │ etc/  hello   old      │
//!       └────────────────────────┘
//! ```
//!
//! Read the modules from the bottom up; each uses only what stands above it in this list:
//!
//! 1. [`sys`]: system calls made safe.
//! 2. [`format`]: the on-disk language, shared with the kernel's overlay: whiteouts, opaque marks, origins.
//! 3. [`overlay`]: the rules and the state of one merged view.
//! 4. [`fuse`]: the protocol: decode a request, call the overlay, encode the answer.
//! 5. [`mount`]: set-up checks, locks, the background server, the list of live mounts.
//! 6. [`cli`]: what a person typed.

pub mod cli;
pub mod format;
pub mod fuse;
pub mod mount;
pub mod overlay;
pub mod sys;
