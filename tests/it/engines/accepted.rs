//! Where the ways to mount may differ, and why. Everything else is a fault, and so is a line here that is not met.

use super::programs::By;

/// A difference that is known.
struct Accepted {
    /// How the names of the engines begin.
    engines: &'static [&'static str],
    /// The cases; none: any.
    cases: &'static [&'static str],
    by: By,
    /// The lines of the difference; `*` stands for anything. Those of plyfs must be met with each of the engines; the
    /// others are not under test here.
    lines: &'static [&'static str],
    /// As the page calls it.
    short: &'static str,
}

const ACCEPTED: &[Accepted] = &[];

/// Whether a text is as a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<_> = rest.split('*').collect();
    let (last, between) = parts.split_last().unwrap();
    for part in between {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[test]
fn patterns_match() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "ab", true),
        ("*b", "ab", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abde", false),
        ("a*a", "a", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

/// The rows for one engine, and which of their lines were met.
pub struct Used {
    rows: Vec<(&'static Accepted, Vec<bool>)>,
}

impl Used {
    pub fn new(engine: &str, by: &[By]) -> Self {
        let mut rows: Vec<&'static Accepted> = ACCEPTED.iter().collect();
        rows.retain(|row| by.contains(&row.by) && row.engines.iter().any(|name| engine.starts_with(name)));
        Used {
            rows: rows
                .into_iter()
                .map(|row| (row, vec![false; row.lines.len()]))
                .collect(),
        }
    }

    /// What the page calls this line of difference, when it is accepted.
    pub fn allows(&mut self, case: &str, by: By, line: &str) -> Option<&'static str> {
        let mut short = None;
        for (row, met) in &mut self.rows {
            if row.by != by || !(row.cases.is_empty() || row.cases.contains(&case)) {
                continue;
            }
            for (pattern, met) in row.lines.iter().zip(met) {
                if matches(pattern, line) {
                    *met = true;
                    short = short.or(Some(row.short));
                }
            }
        }
        short
    }

    /// What was accepted in vain.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let ours = self.rows.iter().filter(|(row, _)| row.by == By::Plyfs);
        ours.flat_map(|(row, met)| {
            let lines = row.lines.iter().zip(met).filter(|(_, met)| !**met);
            lines.map(move |(line, _)| {
                format!(
                    "{} with {}: {line} ({})",
                    row.cases.join(", "),
                    row.by.name(),
                    row.short
                )
            })
        })
    }
}
