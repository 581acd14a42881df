//! The `plyfs` command: exit status and logging, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    plyfs::cli::run(std::env::args_os().collect())
}
