//! Program after program until the time is over or enough was found.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::accepted::Counts;
use super::bench::Bench;
use super::engine::{End, Engine, Source};
use super::generate::Generator;
use super::judge::Difference;
use super::nasty;
use super::op::Program;
use super::pair::Pair;
use super::rng::Rng;
use super::script;
use super::shrink;
use super::tops;
use super::way::Way;

/// A seed that was most likely never used before.
#[must_use]
pub fn any_seed() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_nanos() as u64 % 1_000_000_000)
}

/// The fields that need not be compared, and what each is.
pub const FIELDS: [(&str, &str); 15] = [
    ("mode", "type and permissions"),
    ("uid", "owner"),
    ("gid", "group"),
    ("rdev", "the device that a special file stands for"),
    ("device", "whether an object has the view's st_dev"),
    ("size", "sizes"),
    ("mtime", "times that were set"),
    ("nlink", "link counts"),
    ("ino", "whether inode numbers correspond"),
    ("mtime moves", "whether a step moves mtime"),
    ("ctime moves", "whether a step moves ctime"),
    ("xattrs", "extended attributes in the merged tree"),
    ("trouble", "d_ino and d_type of a listing, names that come twice"),
    ("upper", "the uppers"),
    ("work", "what is left in the work directory"),
];

/// The field that is no field: whether each system also gets the layers that the other wrote.
pub const CROSS_MOUNT: &str = "cross-mount";

/// What a comparison runs with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The program `plyfs`, which is also the worker processes.
    pub plyfs: PathBuf,
    /// Where to work, in the place of the usual directory for temporary files.
    pub dir: Option<PathBuf>,
    /// The layers lie in a tmpfs of their own there. On another file system inode numbers may come back, so that
    /// they are not compared.
    pub in_memory: bool,
    /// Fields that are not compared: names of [`FIELDS`], or [`CROSS_MOUNT`].
    pub ignored: Vec<String>,
    /// How long a call may take until it counts as hanging.
    pub patience: Duration,
    /// Tells each step and both answers on standard error.
    pub trace: bool,
}

impl Setting {
    /// The usual one, with the program `plyfs` at that path.
    #[must_use]
    pub fn new(plyfs: PathBuf) -> Self {
        Self {
            plyfs,
            dir: None,
            in_memory: true,
            ignored: Vec::new(),
            patience: Duration::from_secs(20),
            trace: false,
        }
    }

    pub(super) fn engine<'a>(&'a self, ways: &'a Pair<Way>, bench: &'a Bench) -> Engine<'a> {
        Engine {
            ways: ways.each_ref(),
            worker: &self.plyfs,
            bench,
            patience: self.patience,
            ignored: &self.ignored,
            trace: self.trace,
        }
    }
}

/// A comparison by generated programs.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The seed of the first program; each has the next.
    pub first_seed: u64,
    /// Steps of one program.
    pub steps: usize,
    /// How long to go on.
    pub time: Duration,
    /// Ends after so many programs.
    pub programs: Option<u64>,
    /// Ends after so many differences of different kind.
    pub most_finds: usize,
    /// How long to shrink each.
    pub shrink: Duration,
}

/// A difference with the smallest program that shows it.
#[derive(Clone, Debug)]
pub struct Find {
    /// What to run again to see it.
    pub program: Program,
    /// What differs.
    pub difference: Difference,
    /// How far it was shrunk.
    pub note: String,
    ways: Pair<Way>,
}

/// One program that was run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What it was made from.
    pub seed: u64,
    /// How many operations were done.
    pub steps: u64,
    /// How long that took, without shrinking.
    pub took: Duration,
    /// The signature of what differed.
    pub differed: Option<String>,
}

/// What a comparison found.
#[derive(Debug)]
pub struct Found {
    /// Every difference of another kind, shrunk.
    pub finds: Vec<Find>,
    /// Every program.
    pub programs: Vec<Ran>,
    /// Programs that ended early, at an accepted difference that leaves different trees.
    pub cut_short: u64,
    /// Operations in all.
    pub steps: u64,
    /// How often each accepted difference was met.
    pub counts: Counts,
    /// How long all took.
    pub took: Duration,
    /// The two ways that were compared.
    pub ways: Pair<Way>,
    /// Programs that showed a difference already found.
    pub repeated: u64,
}

impl Hunt {
    /// Runs; `tell` hears of each program and of each find as soon as it is there.
    ///
    /// This thread moves into a mount name space of its own, so it should do nothing else afterwards.
    ///
    /// # Errors
    /// Trouble with the machine or with the reference, in words.
    pub fn run(
        &self,
        setting: &Setting,
        ways: &Pair<Way>,
        tell: &mut dyn FnMut(&Ran, Option<&Find>),
    ) -> Result<Found, String> {
        let bench = Bench::new(setting)?;
        let engine = setting.engine(ways, &bench);
        let start = Instant::now();
        let mut found = Found {
            finds: Vec::new(),
            programs: Vec::new(),
            cut_short: 0,
            steps: 0,
            counts: Counts::default(),
            took: Duration::ZERO,
            ways: ways.clone(),
            repeated: 0,
        };
        let mut signatures = BTreeSet::new();
        let mut seed = self.first_seed;
        let enough = |done: usize| self.programs.is_some_and(|most| done as u64 >= most);
        while start.elapsed() < self.time && !enough(found.programs.len()) {
            let mut rng = Rng::new(seed);
            let layers = tops::with_tops(seed, nasty::layers(&mut rng), ways);
            let generator = Generator::new(rng, self.steps);
            let begun = Instant::now();
            let report = engine.run(&layers, Source::Generate(Box::new(generator)));
            let report = report.map_err(|trouble| format!("seed {seed}: {trouble}"))?;
            let mut ran = Ran {
                seed,
                steps: report.steps,
                took: begun.elapsed(),
                differed: None,
            };
            found.steps += report.steps;
            found.counts.merge(&report.counts);
            let mut find = None;
            match report.end {
                End::Agreed => {}
                End::Accepted => found.cut_short += 1,
                End::Differs(difference) => {
                    ran.differed = Some(difference.signature.clone());
                    if signatures.insert(difference.signature.clone()) {
                        let program = Program {
                            seed,
                            layers,
                            events: report.events,
                        };
                        find = Some(shrunk(&engine, ways, program, difference, self.shrink));
                    } else {
                        found.repeated += 1;
                    }
                }
            }
            tell(&ran, find.as_ref());
            found.programs.push(ran);
            found.finds.extend(find);
            if found.finds.len() >= self.most_finds {
                break;
            }
            seed += 1;
        }
        found.took = start.elapsed();
        Ok(found)
    }
}

fn shrunk(
    engine: &Engine,
    ways: &Pair<Way>,
    program: Program,
    difference: Difference,
    budget: Duration,
) -> Find {
    let engine = Engine {
        patience: engine.patience.min(Duration::from_secs(5)),
        ways: engine.ways.clone(),
        ..*engine
    };
    let long = program.events.len();
    match shrink::shrink(&engine, program.clone(), &difference.signature, budget) {
        Some(small) => Find {
            note: format!(
                "shrunk from {long} events to {} in {} runs",
                small.program.events.len(),
                small.runs
            ),
            program: small.program,
            difference: small.difference,
            ways: ways.clone(),
        },
        None => Find {
            program,
            difference,
            note: "not shrunk: a replay does not show it again".into(),
            ways: ways.clone(),
        },
    }
}

/// Runs one program again, as a find has it or as it was written to a file.
///
/// # Errors
/// Trouble with the machine or with the reference, in words.
pub fn replay(program: &Program, setting: &Setting, ways: &Pair<Way>) -> Result<Found, String> {
    let bench = Bench::new(setting)?;
    let start = Instant::now();
    let report = setting
        .engine(ways, &bench)
        .run(&program.layers, Source::Replay(&program.events))?;
    let cut_short = matches!(report.end, End::Accepted);
    let difference = match report.end {
        End::Differs(difference) => Some(difference),
        End::Agreed | End::Accepted => None,
    };
    Ok(Found {
        programs: vec![Ran {
            seed: program.seed,
            steps: report.steps,
            took: start.elapsed(),
            differed: difference.as_ref().map(|difference| difference.signature.clone()),
        }],
        finds: difference
            .map(|difference| Find {
                program: program.clone(),
                difference,
                note: "replayed".into(),
                ways: ways.clone(),
            })
            .into_iter()
            .collect(),
        cut_short: u64::from(cut_short),
        steps: report.steps,
        counts: report.counts,
        took: start.elapsed(),
        ways: ways.clone(),
        repeated: 0,
    })
}

impl Find {
    /// A shell script that shows the difference.
    #[must_use]
    pub fn script(&self) -> String {
        script::script(&self.program, &self.difference.text, &self.ways)
    }

    /// Writes the script and the replay file into `folder`, as `NN-WHAT.sh` and `.json`; the path of the script is
    /// returned.
    ///
    /// # Errors
    /// As the file system has it, with the path.
    pub fn save(&self, folder: &Path, index: usize) -> Result<PathBuf, String> {
        let signature = self.difference.signature.chars();
        let slug: String = signature
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let write = |path: &Path, text: &[u8]| {
            std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
        };
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let script = folder.join(format!("{index:02}-{slug}.sh"));
        let json = serde_json::to_vec_pretty(&self.program).map_err(|e| e.to_string())?;
        write(&script.with_extension("json"), &json)?;
        write(&script, self.script().as_bytes())?;
        Ok(script)
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
        for line in script::steps(&self.program) {
            writeln!(f, "    {line}")?;
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
            self.ways.b,
            self.ways.a,
            self.steps,
            self.programs.len(),
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
        Ok(())
    }
}
