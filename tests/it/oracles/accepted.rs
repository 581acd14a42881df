//! Where the trees may differ, and why. Everything else is a fault, and so is a line here that is not met.

use super::programs::Oracle;

/// A difference that is meant.
struct Accepted {
    /// The image.
    quirk: &'static str,
    /// With whom.
    with: &'static [Oracle],
    /// How the lines of the difference begin; each must be met.
    lines: &'static [&'static str],
    /// Why it is right.
    reason: &'static str,
}

const ACCEPTED: &[Accepted] = &[];

/// The rows for one program, and which of their lines were met.
pub struct Used {
    oracle: Oracle,
    rows: Vec<(&'static Accepted, Vec<bool>)>,
}

impl Used {
    pub fn new(oracle: Oracle) -> Self {
        let rows = ACCEPTED.iter().filter(|row| row.with.contains(&oracle));
        Used {
            oracle,
            rows: rows.map(|row| (row, vec![false; row.lines.len()])).collect(),
        }
    }

    /// Whether this line of difference is accepted; `{}` in a line of the table stands for the program's name.
    pub fn allows(&mut self, quirk: &str, line: &str) -> bool {
        let mut allowed = false;
        for (row, met) in self.rows.iter_mut().filter(|(row, _)| row.quirk == quirk) {
            for (beginning, met) in row.lines.iter().zip(met) {
                if line.starts_with(&beginning.replace("{}", self.oracle.name())) {
                    (*met, allowed) = (true, true);
                }
            }
        }
        allowed
    }

    /// What was accepted in vain.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        self.rows.iter().flat_map(|(row, met)| {
            let lines = row.lines.iter().zip(met).filter(|(_, met)| !**met);
            lines.map(move |(line, _)| format!("{}: {line} ({})", row.quirk, row.reason))
        })
    }
}
