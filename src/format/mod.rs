//! The on-disk language of an upper directory, shared with the kernel's overlay.
