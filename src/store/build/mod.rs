//! Images from a Containerfile: one layer for each step that changes files, kept by content.

pub mod config;
pub mod expand;
pub mod heredoc;
pub mod ignore;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod variables;
pub mod words;
