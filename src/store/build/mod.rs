//! Images from a Containerfile: one layer for each step that changes files, kept by content.

pub mod additions;
pub mod config;
pub mod expand;
pub mod gather;
pub mod heredoc;
pub mod ignore;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod stream;
pub mod tree;
pub mod users;
pub mod variables;
pub mod words;
