//! The lesson: a walk through the rules of an overlay that a teacher can show.
//!
//! Nothing that is shown is prepared but the commands and the words: trees, outputs and right answers are read from
//! the layers and the view after each command really ran.
//!
//! ```text
//!   script   words and commands of each step, and how to tell which prediction was right
//!   room     the scratch directory: runs the commands, has the server
//!     shot     a look at one tree        change   two looks compared (pure)
//!     crash    a server killed in the middle of a copy-up
//!   run      step by step, before somebody's eyes
//!   seen     somebody's own layers in the same form
//!   model    what comes of it: plain data, which the forms below show
//!     text     on a terminal             html     a page
//! ```

pub mod change;
mod crash;
pub mod error;
pub mod html;
pub mod model;
mod plan;
pub mod room;
pub mod run;
mod script;
pub mod seen;
pub mod shot;
pub mod text;

pub use error::LessonError;
pub use model::Lesson;
pub use room::Room;
pub use run::{Nobody, Viewer, walk};
