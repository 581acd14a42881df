//! The integration tests: one binary, one file per subject.
//!
//! The rule tests run each scenario twice, on the kernel's overlay and on plyfs, and compare; see
//! [`common::scenario`]. They need root for most of what they do; as an ordinary user they print `SKIP` lines.
//!
//! Environment: `PLYFS_TEST_DIR` (where the layers are made, default `/var/tmp`), `PLYFS_TEST_OURS` (another
//! program in the place of plyfs, or the word `kernel`), `PLYFS_TEST_SIDES=kernel|ours` (one side only).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::expect_fun_call,
    missing_docs,
    dead_code
)]

mod builder;
mod caches;
mod cli;
mod common;
mod compare;
#[cfg(feature = "fault-injection")]
mod crash;
mod differential;
mod doctor;
mod engine;
mod engine_setup;
mod engines;
mod explain;
mod fuzz;
mod layer_lower;
mod lesson;
mod oracles;
mod rootless;
mod rules;
mod smoke;
mod store;
mod trace;
#[path = "try/mod.rs"]
mod trial;
mod upper;
