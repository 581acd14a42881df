//! What a comparison came to, in the forms it is told.

use std::path::PathBuf;

use serde::Serialize;

use crate::compare::{ACCEPTED, CHECKS, Compared, Counts, Find, Found, Pair, Way};

/// Everything, as `--json` has it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The version of this program.
    plyfs: &'static str,
    /// The release of the kernel.
    kernel: String,
    pub(super) a: String,
    pub(super) b: String,
    /// How a script or a program ended in the view of A.
    status: Option<String>,
    operations: u64,
    pub(super) seconds: f64,
    /// Programs that ended early, at an accepted difference that leaves different trees.
    cut_short: u64,
    pub(super) checks: Vec<Check>,
    accepted: Vec<Met>,
    pub(super) differences: Vec<Shown>,
}

/// One program, or one thing that was compared of a command.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) seconds: f64,
    /// `passed`, `failed`, or `skipped` when a check before it failed.
    pub(super) result: &'static str,
    /// The signature of the difference.
    pub(super) difference: Option<String>,
}

/// How often an accepted difference was met.
#[derive(Debug, Serialize)]
struct Met {
    id: &'static str,
    count: u64,
    reason: &'static str,
}

/// One difference.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    /// Call and field: two with the same are probably one fault.
    pub(super) signature: String,
    pub(super) text: String,
    seed: Option<u64>,
    note: Option<String>,
    /// A shell script that shows it.
    pub(super) script: Option<String>,
    /// Where that script was written.
    file: Option<PathBuf>,
}

impl Shown {
    pub(super) fn new(find: &Find, file: Option<PathBuf>) -> Self {
        Self {
            signature: find.difference.signature.clone(),
            text: find.difference.text.clone(),
            seed: Some(find.program.seed),
            note: Some(find.note.clone()),
            script: Some(find.script()),
            file,
        }
    }

    /// The difference, and the script or where it is.
    pub(super) fn for_people(&self, find: &Find) -> String {
        let script = match (&self.file, &self.script) {
            (Some(file), _) => format!("script: {}\n", file.display()),
            (None, Some(script)) => format!("-- script\n{script}-- end\n"),
            (None, None) => String::new(),
        };
        format!("\n{}{script}", find.to_string().trim_start())
    }
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn met(counts: &Counts) -> Vec<Met> {
    counts
        .iter()
        .map(|(id, count)| Met {
            id,
            count,
            reason: ACCEPTED
                .iter()
                .find(|known| known.id == id)
                .map_or("", |known| known.reason),
        })
        .collect()
}

fn programs(count: usize) -> String {
    match count {
        1 => "1 program".to_owned(),
        many => format!("{many} programs"),
    }
}

impl Report {
    fn new(ways: &Pair<Way>, counts: &Counts, seconds: f64) -> Self {
        Self {
            plyfs: env!("CARGO_PKG_VERSION"),
            kernel: kernel_release(),
            a: ways.a.to_string(),
            b: ways.b.to_string(),
            status: None,
            operations: 0,
            seconds,
            cut_short: 0,
            checks: Vec::new(),
            accepted: met(counts),
            differences: Vec::new(),
        }
    }

    /// Of random programs.
    pub(super) fn of_found(found: &Found, differences: Vec<Shown>) -> Self {
        let check = |ran: &crate::compare::Ran| Check {
            name: format!("seed {}", ran.seed),
            seconds: ran.took.as_secs_f64(),
            result: if ran.differed.is_some() {
                "failed"
            } else {
                "passed"
            },
            difference: ran.differed.clone(),
        };
        Self {
            operations: found.steps,
            cut_short: found.cut_short,
            checks: found.programs.iter().map(check).collect(),
            differences,
            ..Self::new(&found.ways, &found.counts, found.took.as_secs_f64())
        }
    }

    /// Of a command.
    pub(super) fn of_compared(compared: &Compared, ways: &Pair<Way>) -> Self {
        let mut checks: Vec<Check> = Vec::new();
        for name in CHECKS {
            let passed = compared.passed.contains(&name);
            let failed =
                !passed && compared.difference.is_some() && checks.iter().all(|c| c.result == "passed");
            checks.push(Check {
                name: name.to_owned(),
                seconds: 0.0,
                result: match (passed, failed) {
                    (true, _) => "passed",
                    (false, true) => "failed",
                    (false, false) => "skipped",
                },
                difference: compared
                    .difference
                    .as_ref()
                    .filter(|_| failed)
                    .map(|difference| difference.signature.clone()),
            });
        }
        let differences = compared.difference.iter().map(|difference| Shown {
            signature: difference.signature.clone(),
            text: difference.text.clone(),
            seed: None,
            note: None,
            script: None,
            file: None,
        });
        Self {
            status: compared.status.clone(),
            checks,
            differences: differences.collect(),
            ..Self::new(ways, &compared.counts, compared.took.as_secs_f64())
        }
    }

    /// The last lines for people.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        let random = self.operations > 0 || self.checks.iter().any(|check| check.name.starts_with("seed "));
        if random {
            let rate = self.operations as f64 / self.seconds.max(0.001);
            text += &format!(
                "{} operations in {}, {:.0} s, {rate:.0} operations/s",
                self.operations,
                programs(self.checks.len()),
                self.seconds
            );
            if self.cut_short > 0 {
                text += &format!(
                    "; {} ended at an accepted difference",
                    programs(self.cut_short as usize)
                );
            }
            text.push('\n');
        } else {
            text += &format!("{} against {}\n", self.b, self.a);
            for check in &self.checks {
                text += &format!("  {:<8} {}\n", check.result, check.name);
            }
            if let Some(status) = &self.status {
                text += &format!("the command ended with {status}\n");
            }
            for difference in &self.differences {
                text += &format!("{}\n", difference.text);
            }
        }
        if !self.accepted.is_empty() {
            text += "accepted differences:\n";
            for met in &self.accepted {
                text += &format!("  {:>8}  {:<5} {}\n", met.count, met.id, met.reason);
            }
        }
        let again = self
            .checks
            .iter()
            .filter(|check| check.result == "failed")
            .count();
        text += &match self.differences.len() {
            0 => "no differences\n".to_owned(),
            1 => "1 difference".to_owned(),
            many => format!("{many} differences"),
        };
        if !self.differences.is_empty() {
            text += &match (random, again) {
                (true, failed) => format!(", in {}\n", programs(failed)),
                (false, _) => "\n".to_owned(),
            };
        }
        text + &format!("plyfs {}, kernel {}\n", self.plyfs, self.kernel)
    }
}
