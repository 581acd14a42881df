//! `plyfs upper check`.

use clap::Args;
use serde::Serialize;

use super::{LayerPaths, json_path};
use crate::cli::Failure;
use crate::cli::output::{print, print_json};
use crate::mount::JsonPath;
use crate::upper::{Finding, Severity, inspect};

const EXAMPLES: &str = "\
Told are whiteouts, opaque marks and copies that change nothing ('plyfs upper
vacuum' removes them), what a killed server left (the next mount removes it), and
faults: marks of redirect_dir and metacopy, entries of index=on, the mark of a
volatile mount, an apply that was interrupted. Nothing is changed.

With --json, a list of objects with trouble (one word), fault (true or false), path,
place (upper or work) and text.

Exit status 1 if there is a fault; 0 if all that was found is harmless.";

/// Look for what is odd in the upper and its work directory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    layers: LayerPaths,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    trouble: &'static str,
    fault: bool,
    path: JsonPath,
    place: &'static str,
    text: &'static str,
}

fn is_fault(finding: &Finding) -> bool {
    finding.trouble.severity() == Severity::Fault
}

impl CheckArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let findings = inspect(&self.layers.open()?)?;
        let faults = findings.iter().filter(|finding| is_fault(finding)).count();
        if self.json {
            let lines: Vec<Line> = findings.iter().map(line).collect();
            print_json(&lines)?;
        } else {
            let mut text = String::new();
            for finding in &findings {
                let line = line(finding);
                let place = if finding.in_work { "work" } else { "upper" };
                let fault = if line.fault { "fault: " } else { "" };
                text.push_str(&format!("{place} {}: {fault}{}\n", finding.path, line.text));
            }
            if findings.is_empty() {
                text.push_str("nothing odd\n");
            }
            print(text.as_bytes())?;
        }
        if faults > 0 {
            return Err(Failure::Status(1));
        }
        Ok(())
    }
}

fn line(finding: &Finding) -> Line {
    Line {
        trouble: finding.trouble.word(),
        fault: is_fault(finding),
        path: json_path(&finding.path),
        place: if finding.in_work { "work" } else { "upper" },
        text: finding.trouble.words(),
    }
}
