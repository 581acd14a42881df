//! System calls made safe: every function takes a directory descriptor and one name, never a path.
//!
//! This is the only module of the crate that may contain `unsafe`. Calls that rustix has are used from
//! there; what it lacks (`*xattrat`, `setfsuid`, `name_to_handle_at`, a few ioctls) is wrapped here.

pub mod at;
pub mod caller;
pub mod copy;
pub mod creds;
pub mod dirent;
pub mod fault;
pub mod fusectl;
pub mod handle;
pub mod io;
pub mod latency;
pub mod memory;
pub mod namespaces;
pub(crate) mod plain;
pub mod stat;
pub mod xattr;

pub mod fusedev;

pub use rustix::io::Errno;

/// What a system call answers: a value or the kernel's error number.
pub type Result<T> = std::result::Result<T, Errno>;

/// Why the call just made through libc failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
