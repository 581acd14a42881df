//! `plyfs compare`.

mod junit;
mod report;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;

use self::report::{Report, Shown};
use super::Failure;
use super::output::{print, print_json};
use super::progress::Bar;
use crate::builder::Progress;
use crate::compare::{
    ACCEPTED, Apart, CROSS_MOUNT, FIELDS, Find, Given, Hunt, Pair, Program, Ran, Setting, Way, any_seed,
    apart, known, replay,
};

const EXAMPLES: &str = "\
Examples:
  plyfs compare                                    a minute of random programs
  plyfs compare --seed 7 --ops 200000 --out finds
  plyfs compare --b fuse-overlayfs --finds 5 --minutes 5 --ignore nlink,ino
  plyfs compare --a plyfs --b 'mymount -o l={lower},u={upper},w={work} {merged}'
  plyfs compare --lower /srv/base --script steps.sh
  plyfs compare --lower /srv/base -- make check
  plyfs compare --list-known

A and B are ways to mount: kernel, plyfs, fuse-overlayfs, unionfs-fuse, or a
shell command in which {lower}, {upper}, {work} and {merged} stand for the
directories. A is the reference. Whatever is mounted and started lives in
namespaces of its own and is gone when this command ends, however it ends.

Exit status: 0 no differences, 1 differences found or it failed (the reason is
on standard error), 2 wrong usage.";

/// Do the same on two ways to mount, and tell what differs.
///
/// Each side gets an equal copy of the same layers. Results and error numbers, data, attributes, the merged trees and
/// the uppers are compared, also after a remount and with each side on the layers that the other wrote. Without a
/// script or a program, random system calls of several users are made; what differs is made as small as possible and
/// shown as a shell script that reproduces it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArgs {
    /// The reference: a way to mount.
    #[arg(long, value_name = "WAY", default_value = "kernel")]
    a: String,
    /// What is compared with it.
    #[arg(long, value_name = "WAY", default_value = "plyfs")]
    b: String,
    /// Run this script in both views, as root: by itself if it is executable, else with /bin/sh.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "program"])]
    script: Option<PathBuf>,
    /// Run this program in both views, as root.
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "replay")]
    program: Vec<OsString>,
    /// Run the program of a difference again, from the file that --out wrote.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// A directory that is copied as the lower, for a script or a program [default: a generated one].
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    lower: Option<PathBuf>,
    /// A directory that is copied as the upper, for a script or a program.
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    upper: Option<PathBuf>,
    /// How many seconds a script or a program may take in one view.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Where the random programs begin [default: a new one].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Make about this many calls.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Go on for so many minutes [default: 1, or no limit with --ops].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// End after so many differences of different kind.
    #[arg(long, value_name = "N", default_value_t = 1)]
    finds: usize,
    /// How many seconds to spend on making each difference small.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    shrink: u64,
    /// Do not compare these; 'help' lists them.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Write a script and a replay file of each difference into this directory, instead of printing the script.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the layers in this directory, instead of in memory.
    #[arg(long, value_name = "DIR")]
    on: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Write the results as JUnit XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Tell every call and both answers on standard error.
    #[arg(long)]
    trace: bool,
    /// Print the differences between the kernel and plyfs that are known and accepted.
    #[arg(long)]
    list_known: bool,
}

/// Operations of one random program.
const STEPS: u64 = 400;

impl CompareArgs {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        env_logger::init();
        // The walks of the layers change the working directory.
        let paths = [
            &mut self.script,
            &mut self.replay,
            &mut self.lower,
            &mut self.upper,
            &mut self.out,
            &mut self.on,
            &mut self.junit,
        ];
        for path in paths.into_iter().flatten() {
            *path = std::path::absolute(&*path)?;
        }
        if self.list_known {
            return list_known(self.json);
        }
        if self.ignore.iter().any(|field| field == "help") {
            return Ok(print(fields().as_bytes())?);
        }
        self.check()?;
        let program = std::env::current_exe()?;
        let ways = Pair {
            a: Way::named(&self.a, &program).map_err(Failure::Usage)?,
            b: Way::named(&self.b, &program).map_err(Failure::Usage)?,
        };
        let scratch = match apart(self.on.as_deref()).map_err(Failure::Failed)? {
            Apart::Here(scratch) => scratch,
            Apart::Done(status) => return passed_on(status),
            Apart::Stopped => return Err(Failure::Failed("stopped; nothing is left mounted".into())),
        };
        let setting = Setting {
            dir: Some(scratch),
            in_memory: self.on.is_none(),
            ignored: self.ignore.clone(),
            trace: self.trace,
            ..Setting::new(program)
        };
        let report = self.compare(&setting, &ways)?;
        if let Some(path) = &self.junit {
            let written = std::fs::write(path, junit::xml(&report)?);
            written.map_err(|e| Failure::Failed(format!("cannot write {}: {e}", path.display())))?;
        }
        if self.json {
            print_json(&report)?;
        } else {
            print(report.summary().as_bytes())?;
        }
        match report.differences.is_empty() {
            true => Ok(()),
            false => Err(Failure::Status(1)),
        }
    }

    /// What clap cannot check.
    fn check(&self) -> Result<(), Failure> {
        let given = self.script.is_some() || !self.program.is_empty();
        if (self.lower.is_some() || self.upper.is_some()) && !given {
            return Err(Failure::usage(
                "--lower and --upper go with a script or a program",
            ));
        }
        if given && (self.ops.is_some() || self.minutes.is_some()) {
            return Err(Failure::usage("--ops and --minutes go with random programs"));
        }
        for field in &self.ignore {
            if field != CROSS_MOUNT && !FIELDS.iter().any(|(name, _)| name == field) {
                return Err(Failure::usage(format!(
                    "--ignore {field}: there is no such field; --ignore help lists them"
                )));
            }
        }
        for path in [&self.script, &self.replay].into_iter().flatten() {
            if !path.is_file() {
                return Err(Failure::usage(format!("{} is no file", path.display())));
            }
        }
        for path in [&self.lower, &self.upper, &self.on].into_iter().flatten() {
            if !path.is_dir() {
                return Err(Failure::usage(format!("{} is no directory", path.display())));
            }
        }
        Ok(())
    }

    fn compare(&self, setting: &Setting, ways: &Pair<Way>) -> Result<Report, Failure> {
        if let Some(file) = &self.replay {
            let text = std::fs::read(file)
                .map_err(|e| Failure::Failed(format!("cannot read {}: {e}", file.display())))?;
            let program: Program = serde_json::from_slice(&text)
                .map_err(|e| Failure::Failed(format!("{} is no replay file: {e}", file.display())))?;
            let found = replay(&program, setting, ways).map_err(Failure::Failed)?;
            let shown = found.finds.iter().map(|find| self.show(find, 0, None));
            let shown = shown.collect::<Result<Vec<Shown>, Failure>>()?;
            return Ok(Report::of_found(&found, shown));
        }
        if let Some(command) = self.command()? {
            let given = Given {
                command,
                lower: self.lower.clone(),
                upper: self.upper.clone(),
                seed: self.seed.unwrap_or(1),
                limit: Duration::from_secs(self.limit),
            };
            let compared = given.run(setting, ways).map_err(|reason| {
                let full = reason.contains("No space left");
                let hint = "; --on DIR keeps the layers in a directory, instead of in memory";
                Failure::Failed(reason + if full && self.on.is_none() { hint } else { "" })
            })?;
            return Ok(Report::of_compared(&compared, ways));
        }
        self.hunt(setting, ways)
    }

    /// The script or the program, as a command that can be started from any directory.
    fn command(&self) -> Result<Option<Vec<OsString>>, Failure> {
        if let Some(script) = &self.script {
            let path = script.canonicalize()?;
            let runs = path.metadata()?.permissions().mode() & 0o111 != 0;
            let shell = (!runs).then(|| OsString::from("/bin/sh"));
            return Ok(Some(shell.into_iter().chain([path.into_os_string()]).collect()));
        }
        let Some((program, words)) = self.program.split_first() else {
            return Ok(None);
        };
        let path = Path::new(program);
        let program = match path.components().count() {
            0 | 1 if !path.is_absolute() => program.clone(),
            _ => std::path::absolute(path)?.into_os_string(),
        };
        Ok(Some([program].into_iter().chain(words.iter().cloned()).collect()))
    }

    fn hunt(&self, setting: &Setting, ways: &Pair<Way>) -> Result<Report, Failure> {
        let seed = self.seed.unwrap_or_else(any_seed);
        let minutes = self.minutes.or(self.ops.is_none().then_some(1));
        let hunt = Hunt {
            first_seed: seed,
            steps: STEPS.min(self.ops.unwrap_or(STEPS)) as usize,
            time: minutes.map_or(Duration::MAX, |minutes| {
                Duration::from_secs(minutes.saturating_mul(60))
            }),
            programs: self.ops.map(|ops| ops.div_ceil(STEPS)),
            most_finds: self.finds,
            shrink: Duration::from_secs(self.shrink),
        };
        if !self.json {
            print(format!("{} against {}, from seed {seed}\n", ways.b, ways.a).as_bytes())?;
        }
        let bar = Bar::new();
        bar.begin("operations", self.ops);
        let mut shown: Vec<Result<Shown, Failure>> = Vec::new();
        let mut tell = |ran: &Ran, find: Option<&Find>| {
            bar.advance(ran.steps);
            if let Some(find) = find {
                shown.push(self.show(find, shown.len(), Some(&bar)));
            }
        };
        let found = hunt.run(setting, ways, &mut tell).map_err(Failure::Failed)?;
        drop(bar);
        let shown = shown.into_iter().collect::<Result<Vec<Shown>, Failure>>()?;
        Ok(Report::of_found(&found, shown))
    }

    /// Prints a find as soon as it is there, and writes its files.
    fn show(&self, find: &Find, index: usize, bar: Option<&Bar>) -> Result<Shown, Failure> {
        let saved = self.out.as_ref().map(|folder| find.save(folder, index));
        let shown = Shown::new(find, saved.transpose().map_err(Failure::Failed)?);
        if !self.json {
            let text = shown.for_people(find);
            match bar {
                Some(bar) => bar.print(text.trim_end())?,
                None => print(text.as_bytes())?,
            }
        }
        Ok(shown)
    }
}

/// The exit status of the process that did the work.
fn passed_on(status: ExitStatus) -> Result<(), Failure> {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Status(code)),
        None => Err(Failure::Failed(format!(
            "the comparison ended: {status}; nothing is left mounted"
        ))),
    }
}

/// What `--ignore` takes.
fn fields() -> String {
    let line = |(name, what): (&str, &str)| format!("  {name:<12} {what}\n");
    let mut text = String::from("Fields that --ignore takes:\n");
    text.extend(FIELDS.into_iter().map(line));
    text + &line((CROSS_MOUNT, "each side on the layers that the other wrote"))
}

fn list_known(json: bool) -> Result<(), Failure> {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if json {
        return print_json(&serde_json::json!({
            "differences": known::KNOWN_DIFFERENCES,
            "accepted": ACCEPTED,
        }));
    }
    let mut text = String::from(
        "How plyfs differs from the kernel's overlay on purpose (rules: docs/kernel-rules.md):\n",
    );
    for known in known::KNOWN_DIFFERENCES {
        text += &format!(
            "\n{} ({})\n  kernel: {}\n  plyfs:  {}\n  why:    {}\n",
            known.id,
            known.rule,
            squeeze(known.kernel),
            squeeze(known.plyfs),
            squeeze(known.why)
        );
    }
    text += "\nWhat a comparison lets pass, and counts:\n";
    for accepted in ACCEPTED {
        text += &format!("  {:<6} {}\n", accepted.id, accepted.reason);
    }
    Ok(print(text.as_bytes())?)
}
