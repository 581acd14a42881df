//! Tests on the real program.

mod cli;
