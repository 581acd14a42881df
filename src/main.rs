//! The `plyfs` command: exit status and logging, nothing else.

fn main() {}
