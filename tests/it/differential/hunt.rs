//! Program after program until the time is over or enough was found.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::engine::{End, Engine, Source};
use super::generate::Generator;
use super::judge::Difference;
use super::known::Counts;
use super::nasty;
use super::op::Program;
use super::rng::Rng;
use super::script;
use super::shrink;
use super::system::{Bench, System};

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

/// Fields not to be compared, for a look at what else differs: `PLYFS_DIFF_IGNORE=nlink,ino`.
pub fn ignored() -> Vec<String> {
    let list = std::env::var("PLYFS_DIFF_IGNORE").unwrap_or_default();
    list.split(',')
        .filter(|field| !field.is_empty())
        .map(str::to_owned)
        .collect()
}

pub fn any_seed() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64 % 1_000_000_000)
}

pub struct Hunt {
    pub first_seed: u64,
    pub steps: usize,
    pub time: Duration,
    pub programs: Option<u64>,
    /// Ends after so many differences of different kind.
    pub most_finds: usize,
    /// How long to shrink each.
    pub shrink: Duration,
    /// Fields that are not compared.
    pub ignored: Vec<String>,
}

/// A difference with the smallest program that shows it.
pub struct Find {
    pub program: Program,
    pub difference: Difference,
    pub note: String,
}

impl Find {
    pub fn script(&self) -> String {
        script::script(&self.program, &self.difference.text)
    }
}

pub struct Found {
    pub finds: Vec<Find>,
    pub programs: u64,
    pub cut_short: u64,
    pub steps: u64,
    pub counts: Counts,
    pub took: Duration,
    pub systems: [String; 2],
    /// Seeds that showed a difference already found.
    pub repeated: u64,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Hunt {
    pub fn run(&self, reference: &dyn System, other: &dyn System) -> Result<Found, String> {
        let bench = Bench::new()?;
        let engine = Engine {
            systems: [reference, other],
            bench: &bench,
            patience: PATIENCE,
            ignored: &self.ignored,
        };
        let start = Instant::now();
        let mut found = Found {
            finds: Vec::new(),
            programs: 0,
            cut_short: 0,
            steps: 0,
            counts: Counts::default(),
            took: Duration::ZERO,
            systems: [reference.name(), other.name()],
            repeated: 0,
        };
        let mut signatures = BTreeSet::new();
        let mut seed = self.first_seed;
        while start.elapsed() < self.time && self.programs.is_none_or(|most| found.programs < most) {
            let mut rng = Rng::new(seed);
            let layers = nasty::layers(&mut rng);
            let generator = Generator::new(rng, self.steps);
            let report = engine.run(&layers, Source::Generate(Box::new(generator)));
            let report = report.map_err(|trouble| format!("seed {seed}: {trouble}"))?;
            found.programs += 1;
            found.steps += report.steps;
            found.counts.merge(&report.counts);
            match report.end {
                End::Agreed => {}
                End::Accepted => found.cut_short += 1,
                End::Differs(difference) if signatures.insert(difference.signature.clone()) => {
                    let program = Program {
                        seed,
                        layers,
                        events: report.events,
                    };
                    let find = self.shrink(&engine, program, difference);
                    publish(&find, found.finds.len());
                    found.finds.push(find);
                    if found.finds.len() >= self.most_finds {
                        break;
                    }
                }
                End::Differs(_) => found.repeated += 1,
            }
            seed += 1;
        }
        found.took = start.elapsed();
        Ok(found)
    }

    fn shrink(&self, engine: &Engine, program: Program, difference: Difference) -> Find {
        let engine = Engine {
            patience: Duration::from_secs(5),
            ..*engine
        };
        let long = program.events.len();
        match shrink::shrink(&engine, program.clone(), &difference.signature, self.shrink) {
            Some(small) => {
                let note = format!(
                    "shrunk from {long} events to {} in {} runs",
                    small.program.events.len(),
                    small.runs
                );
                Find {
                    program: small.program,
                    difference: small.difference,
                    note,
                }
            }
            None => Find {
                program,
                difference,
                note: "not shrunk: a replay does not show it again".into(),
            },
        }
    }
}

pub fn replay(program: &Program, reference: &dyn System, other: &dyn System) -> Result<End, String> {
    let (bench, ignored) = (Bench::new()?, ignored());
    let engine = Engine {
        systems: [reference, other],
        bench: &bench,
        patience: PATIENCE,
        ignored: &ignored,
    };
    engine
        .run(&program.layers, Source::Replay(&program.events))
        .map(|report| report.end)
}

/// Tells a find at once, and writes the replay file and the script where `PLYFS_DIFF_OUT` says.
fn publish(find: &Find, index: usize) {
    println!("{find}");
    let Some(folder) = std::env::var_os("PLYFS_DIFF_OUT").map(PathBuf::from) else {
        return;
    };
    let slug: String = find
        .difference
        .signature
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let base = folder.join(format!("{index:02}-{slug}"));
    let json = serde_json::to_string_pretty(&find.program).unwrap_or_default();
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(base.with_extension("json"), json))
        .and_then(|()| std::fs::write(base.with_extension("sh"), find.script()));
    match written {
        Ok(()) => println!("written: {}.sh and .json", base.display()),
        Err(error) => eprintln!("{}: {error}", folder.display()),
    }
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "== {} (seed {}; {})",
            self.difference.signature, self.program.seed, self.note
        )?;
        writeln!(f, "{}", self.difference.text)?;
        writeln!(f, "-- program")?;
        if self.program.layers.lower.len() + self.program.layers.upper.len() <= 40 {
            for (layer, items) in [
                ("lower", &self.program.layers.lower),
                ("upper", &self.program.layers.upper),
            ] {
                for item in items {
                    writeln!(f, "{layer} {:?} {:?}", item.path, item.what)?;
                }
            }
        }
        for event in self.program.events.iter().rev().take(40).rev() {
            writeln!(f, "{event:?}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64().max(0.001);
        writeln!(
            f,
            "{} against {}: {} operations in {} programs, {:.0} s, {:.0} operations/s",
            self.systems[1],
            self.systems[0],
            self.steps,
            self.programs,
            seconds,
            self.steps as f64 / seconds
        )?;
        writeln!(
            f,
            "{} differences, {} programs with one of them again, {} programs cut short",
            self.finds.len(),
            self.repeated,
            self.cut_short
        )?;
        if !self.counts.0.is_empty() {
            write!(f, "accepted differences:\n{}", self.counts.describe())?;
        }
        for find in &self.finds {
            write!(f, "{find}")?;
        }
        Ok(())
    }
}
