//! The run: each step is announced, done, and shown.

use super::error::{LessonError, Result};
use super::model::{Lesson, Question, Scene, Step};
use super::plan::{Plan, Seen};
use super::room::Room;
use super::script::STEPS;

/// Who looks on.
pub trait Viewer {
    /// A step that is about to be done: its scenes are empty, its right answer is not known. `number` counts from 0.
    ///
    /// # Errors
    /// [`LessonError::Interrupted`] ends the walk; [`LessonError::Show`] for a terminal that failed.
    fn before(&mut self, number: usize, step: &Step) -> Result<()>;

    /// What one command left; `trees` tells whether they are worth a look.
    ///
    /// # Errors
    /// As [`Viewer::before`].
    fn scene(&mut self, scene: &Scene, trees: bool) -> Result<()>;

    /// The step is done.
    ///
    /// # Errors
    /// As [`Viewer::before`].
    fn after(&mut self, step: &Step) -> Result<()>;
}

/// Nobody looks on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Viewer for Nobody {
    fn before(&mut self, _number: usize, _step: &Step) -> Result<()> {
        Ok(())
    }
    fn scene(&mut self, _scene: &Scene, _trees: bool) -> Result<()> {
        Ok(())
    }
    fn after(&mut self, _step: &Step) -> Result<()> {
        Ok(())
    }
}

/// Walks through all steps in a fresh room.
///
/// # Errors
/// The first thing that did not go as the walk needs it; the room cleans up when it is dropped.
pub fn walk(room: &mut Room<'_>, viewer: &mut dyn Viewer) -> Result<Lesson> {
    let machine = rustix::system::uname();
    let mut lesson = Lesson {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: format!(
            "{} {}",
            machine.sysname().to_string_lossy(),
            machine.release().to_string_lossy()
        ),
        who: who().to_owned(),
        since: jiff::Timestamp::now().as_second(),
        steps: Vec::with_capacity(STEPS.len()),
    };
    for (number, plan) in STEPS.iter().enumerate() {
        room.check_stopped()?;
        let mut step = announced(plan);
        step.before = room.now();
        viewer.before(number, &step)?;
        step.scenes = (plan.act)(room)?;
        for (place, scene) in step.scenes.iter().enumerate() {
            viewer.scene(scene, step.shows_trees(place))?;
        }
        if let (Some(ask), Some(question)) = (&plan.ask, &mut step.question) {
            question.right = ask.right(&Seen {
                before: &step.before,
                scenes: &step.scenes,
            });
        }
        viewer.after(&step)?;
        lesson.steps.push(step);
    }
    Ok(lesson)
}

fn announced(plan: &Plan) -> Step {
    Step {
        name: plan.name.to_owned(),
        title: plan.title.to_owned(),
        lead: plan.lead.to_owned(),
        question: plan.ask.as_ref().map(|ask| Question {
            ask: ask.question.to_owned(),
            choices: ask.choices.iter().map(|choice| choice.text.to_owned()).collect(),
            right: None,
        }),
        before: Vec::new(),
        scenes: Vec::new(),
        why: plan.why.to_owned(),
        rules: plan.rules.iter().map(ToString::to_string).collect(),
    }
}

fn who() -> &'static str {
    if crate::mount::who::is_true_root() {
        "root"
    } else if rustix::process::geteuid().is_root() {
        "root of a user namespace"
    } else {
        "an ordinary user"
    }
}

impl From<std::fmt::Error> for LessonError {
    fn from(error: std::fmt::Error) -> Self {
        Self::Show(std::io::Error::other(error))
    }
}
