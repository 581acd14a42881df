//! The same operations on two ways to mount a view, compared: the kernel's overlay and plyfs, or any two.
//!
//! A [`Hunt`] makes random programs (layers, and system calls by several users), runs each on both sides in step,
//! compares every result, the merged trees, the uppers, the layers after a remount and with the sides changed, and
//! makes what differs small. `docs/differential.md` tells how.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use plyfs::compare::{Hunt, Pair, Setting, Way};
//!
//! let plyfs = Path::new("/usr/bin/plyfs");
//! let ways = Pair { a: Way::kernel(), b: Way::named("fuse-overlayfs", plyfs)? };
//! let minute = Duration::from_secs(60);
//! let hunt = Hunt { first_seed: 1, steps: 400, time: minute, programs: None, most_finds: 1, shrink: minute };
//! // In a thread of its own, since the hunt moves its thread into another mount name space.
//! let found = std::thread::spawn(move || hunt.run(&Setting::new(plyfs.into()), &ways, &mut |_, _| {}));
//! for find in found.join().map_err(|_| "the hunt panicked")??.finds {
//!     println!("{}\n{}", find.difference.text, find.script());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From the bottom up: what a program is ([`Program`]), made by a generator that learns what exists; workers that do
//! its calls, one process for each user and side; the judge, who knows the accepted differences; the engine that runs
//! both in step; shrinking; the script that shows a find to anybody.

mod accepted;
mod apart;
mod bench;
mod bytes;
mod calls;
mod choose;
mod engine;
mod generate;
mod generate_paths;
mod given;
mod hunt;
mod judge;
pub mod known;
mod layers;
mod model;
mod names;
mod nasty;
mod op;
mod outcome;
mod pair;
mod rng;
mod script;
mod shrink;
mod tops;
mod tree;
mod trees;
mod way;
mod worker;

pub use accepted::{Counts, Known, TABLE as ACCEPTED};
pub use apart::{Apart, apart};
pub use given::{CHECKS, Compared, Given};
pub use hunt::{CROSS_MOUNT, FIELDS, Find, Found, Hunt, Ran, Setting, any_seed, replay};
pub use judge::Difference;
pub use op::Program;
pub use pair::{Pair, SIDES, Side};
pub use rng::Rng;
pub use way::Way;
pub use worker::{ENTRY as WORKER, live as worker};
