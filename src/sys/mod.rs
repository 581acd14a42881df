//! System calls made safe: every function takes a directory descriptor and one name, never a path.
//!
//! This is the only module of the crate that may contain `unsafe`.

pub mod fusedev;

pub use rustix::io::Errno;

/// What a system call answers: a value or the kernel's error number.
pub type Result<T> = std::result::Result<T, Errno>;
