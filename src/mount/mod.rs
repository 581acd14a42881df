//! Set-up checks, locks, the background server, the list of live mounts.
//!
//! A mount, from the words to the view:
//!
//! ```text
//!   options     words after -o            -> what is wanted               (pure)
//!   private     no --upper given          -> a private upper and work
//!   setup       the directories           -> open, told apart, locked, or a reason to refuse
//!     layer       the lower is an image layer's: kept from removal, and its own link counts
//!     orphan      for engines: a server that nobody can reach leaves the upper
//!     adopt       for engines: an upper that fuse-overlayfs wrote becomes one of ours
//!   server      fork; Overlay::open; make the mount; shake hands; hang it into the tree; answer
//!     helper      the setuid fusermount3, for those who may not mount
//!     watcher     auto_unmount: takes the mount away when its server dies
//!     control     a socket that answers with the live counters
//!     listen      and tells who asks of every request
//!   registry    one locked file for each live mount
//!   unmount     out of the tree; then wait for the server to have written everything
//! ```
//!
//! [`mount`] splits the process: the server lives in a child, so there must be no other threads yet.
//!
//! ```standalone_crate
//! use plyfs::mount::{Directories, Options, Outcome, Request, mount, unmount::unmount};
//!
//! # if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
//! #     eprintln!("no FUSE here");
//! #     return Ok::<(), Box<dyn std::error::Error>>(());
//! # }
//! # let scratch = tempfile::tempdir()?;
//! # let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scratch.path().join(name));
//! # for dir in [&lower, &upper, &work, &merged] {
//! #     std::fs::create_dir(dir)?;
//! # }
//! # std::fs::write(lower.join("hello"), "world")?;
//! let request = Request {
//!     directories: Directories { lowers: vec![lower], upper: Some((upper, work)), merged: merged.clone() },
//!     options: Options::default(),
//!     source: None,
//!     foreign: false,
//!     foreground: false,
//!     remove_mount_point: false,
//!     log: false,
//!     passing: false,
//!     engine: false,
//! };
//! match mount(&request, |_| {})? {
//!     Outcome::Ready(_) => {
//!         assert_eq!(std::fs::read_to_string(merged.join("hello"))?, "world");
//!         unmount(&merged, false, |_| {})?;
//!     }
//!     // This is the child, and its view is unmounted.
//!     Outcome::Ended => std::process::exit(0),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adopt;
mod clones;
pub mod control;
pub mod error;
pub mod helper;
mod in_use;
pub mod layer;
pub mod listen;
pub mod mountinfo;
pub mod options;
mod orphan;
pub mod place;
pub mod presentation;
pub mod private;
mod readahead;
pub mod registry;
pub mod server;
pub mod setup;
mod take_down;
pub mod unmount;
mod watcher;
pub mod who;

pub use error::{MountError, Role};
pub use options::{OptionError, Options};
pub use presentation::Presentation;
pub use registry::{Entry, JsonPath};
pub use server::{Outcome, Request, mount};
pub use setup::Directories;
