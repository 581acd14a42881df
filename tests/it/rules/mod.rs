//! Every rule of docs/kernel-rules.md that can be tried, one test per rule or small group, named after it.

mod attributes;
mod copied;
mod copy_up;
mod coverage;
mod entries;
mod features;
mod file_io;
mod foreign;
mod hostile;
mod io_modes;
mod lookup;
mod lowers;
mod mounting;
mod open_files;
mod options;
mod passed;
mod permissions;
mod readdir;
pub mod rename;
mod whiteouts;
mod xattr;
