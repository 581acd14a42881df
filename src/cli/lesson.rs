//! `plyfs lesson`.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use console::{Key, Term};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;
use super::output::{print, print_json};
use super::page::NewPage;
use crate::lesson::model::{Question, Scene, Step};
use crate::lesson::text::Text;
use crate::lesson::{Lesson, LessonError, Nobody, Room, Viewer, html, walk};
use crate::mount::helper;
use crate::sys::namespaces;

const EXAMPLES: &str = "\
Examples:
  plyfs lesson                     on a terminal; a key leads to the next step
  plyfs lesson --quiz              predict first, answer by key, then see it done
  plyfs lesson --no-pause | less -R
  plyfs lesson --html lesson.html  the same walk as one page, for a browser
  plyfs lesson --json              the data: every command, every tree

The walk plants two small layers (and one file of 64 MiB) in a scratch directory,
mounts a view of them, and does ten things to it. Everything shown is read from
the layers and the view after the commands have run. Nothing outside the scratch
directory is touched, and it is removed at the end.

An ordinary user without fusermount3 is given a user namespace of his own for the
walk; /dev/fuse must be open to him in any case.";

/// Walk through the rules of an overlay, with real layers to look at.
///
/// Merge, shadowing, copy-up, whiteouts, opaque directories, renames, hard links, the work directory, a crash in the
/// middle of a copy-up, and layers by hard links: each step shows the command, the trees of lower (L), upper (U),
/// work (W) and view (M) side by side, and what changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LessonArgs {
    /// Ask for a prediction before each step. Without a terminal nothing is asked.
    #[arg(long, conflicts_with_all = ["html", "json"])]
    quiz: bool,
    /// Do not wait for a key between the steps.
    #[arg(long, conflicts_with_all = ["quiz", "html", "json"])]
    no_pause: bool,
    /// Write the walk as one self-contained page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the walk as JSON.
    #[arg(long)]
    json: bool,
    /// Where to make the scratch directory [default: $TMPDIR, or /tmp].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the scratch directory in place, and say where it is.
    #[arg(long)]
    keep: bool,
}

impl From<LessonError> for Failure {
    fn from(error: LessonError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl LessonArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        // Before it takes a walk to find out.
        let page = self.html.as_deref().map(NewPage::create).transpose()?;
        // In another mount namespace the kernel tells the path of this very file wrongly.
        let program = std::env::current_exe()?;
        may_mount();
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // A second one ends the process at once.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&came))?;
            signal_hook::flag::register(signal, Arc::clone(&came))?;
        }
        let stopped = || came.load(Ordering::Relaxed);
        let mut room = Room::new(&parent, &program, self.keep, &stopped)?;
        let lesson = if self.html.is_some() || self.json {
            walk(&mut room, &mut Nobody)
        } else {
            let mut viewer = OnTerminal::new(self.quiz, !self.no_pause);
            walk(&mut room, &mut viewer).and_then(|lesson| viewer.end().map(|()| lesson))
        };
        let place = room.base().to_owned();
        drop(room);
        if self.keep {
            eprintln!("plyfs: the scratch directory is {}", place.display());
        }
        let lesson = match lesson {
            Err(LessonError::Interrupted) => return Err(Failure::Failed("interrupted".to_owned())),
            lesson => lesson?,
        };
        self.answer(&lesson, page)
    }

    fn answer(&self, lesson: &Lesson, page: Option<NewPage>) -> Result<(), Failure> {
        if let Some(page) = page {
            page.keep(&html::page(lesson))?;
        }
        if self.json {
            print_json(lesson)?;
        }
        Ok(())
    }
}

/// An ordinary user for whom fusermount3 cannot mount becomes root of a namespace of his own, where he may.
fn may_mount() {
    if rustix::process::geteuid().is_root() || has_helper() {
        return;
    }
    if let Err(errno) = namespaces::become_root_alone() {
        // The mount itself says what is missing.
        log::debug!("no user namespace: {errno}");
    }
}

/// Whether fusermount3 is there and setuid root, as it must be.
fn has_helper() -> bool {
    const SETUID: u32 = 0o4000;
    helper::find()
        .and_then(|program| program.metadata().ok())
        .is_some_and(|found| found.uid() == 0 && found.mode() & SETUID != 0)
}

/// Shows each step as it happens.
struct OnTerminal {
    text: Text,
    keys: Option<Term>,
    quiz: bool,
    answer: Option<usize>,
    asked: usize,
    right: usize,
}

impl OnTerminal {
    fn new(quiz: bool, pause: bool) -> Self {
        let out = Term::stdout();
        let talks = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let width = out
            .size_checked()
            .map(|(_, width)| usize::from(width))
            .or_else(|| std::env::var("COLUMNS").ok()?.parse().ok());
        Self {
            text: Text {
                width: width.unwrap_or(120).clamp(40, 200),
                colour: console::colors_enabled(),
            },
            keys: (talks && (pause || quiz)).then_some(out),
            quiz: quiz && talks,
            answer: None,
            asked: 0,
            right: 0,
        }
    }

    fn show(&self, text: &str) -> Result<(), LessonError> {
        Ok(print(text.as_bytes())?)
    }

    /// Waits for a key; `None` without a terminal.
    fn key(&self) -> Result<Option<Key>, LessonError> {
        let Some(term) = &self.keys else { return Ok(None) };
        match term.read_key() {
            Ok(Key::Char('q' | '\u{3}' | '\u{4}') | Key::Escape) => Err(LessonError::Interrupted),
            Ok(key) => Ok(Some(key)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(LessonError::Interrupted),
            Err(error) => Err(error.into()),
        }
    }

    fn pause(&self, what: &str) -> Result<(), LessonError> {
        let Some(term) = &self.keys else { return Ok(()) };
        self.show(&format!("{what}, q to leave "))?;
        let key = self.key();
        term.clear_line()?;
        key.map(drop)
    }

    fn ask(&mut self, question: &Question) -> Result<(), LessonError> {
        self.show(&self.text.question(question))?;
        let last = ('a'..='z')
            .nth(question.choices.len().saturating_sub(1))
            .unwrap_or('a');
        self.show(&format!(
            "\nYour prediction (a to {last}, Enter for none, q to leave): "
        ))?;
        self.answer = loop {
            match self.key()? {
                Some(Key::Char(letter)) => {
                    let choice = ('a'..=last).position(|known| known == letter.to_ascii_lowercase());
                    if choice.is_some() {
                        self.show(&format!("{letter}\n"))?;
                        break choice;
                    }
                }
                None | Some(Key::Enter) => {
                    self.show("\n")?;
                    break None;
                }
                Some(_) => {}
            }
        };
        Ok(())
    }

    fn end(&self) -> Result<(), LessonError> {
        let mut text = String::from("\nThat was all; the scratch directory is cleared away.\n");
        if self.asked > 0 {
            text.push_str(&format!(
                "{} of {} predictions were right.\n",
                self.right, self.asked
            ));
        }
        self.show(&text)
    }
}

impl Viewer for OnTerminal {
    fn before(&mut self, number: usize, step: &Step) -> Result<(), LessonError> {
        if number > 0 {
            self.pause("Any key for the next step")?;
        }
        self.show(&self.text.heading(number, step))?;
        if number == 0 {
            self.show(&format!("\n{}", self.text.legend()))?;
        }
        self.answer = None;
        match &step.question {
            Some(question) if self.quiz => self.ask(question),
            _ => Ok(()),
        }
    }

    fn scene(&mut self, scene: &Scene, trees: bool) -> Result<(), LessonError> {
        self.show(&self.text.scene(scene))?;
        if trees {
            self.show(&format!(
                "\n{}",
                self.text.trees(&scene.trees).trim_end_matches('\n')
            ))?;
            self.show("\n")?;
        }
        Ok(())
    }

    fn after(&mut self, step: &Step) -> Result<(), LessonError> {
        if let Some(question) = step.question.as_ref().filter(|_| self.quiz) {
            if self.answer.is_some() {
                self.asked += 1;
                self.right += usize::from(self.answer == question.right);
            }
            self.show(&self.text.verdict(question, self.answer))?;
        }
        self.show(&self.text.why(step))
    }
}
