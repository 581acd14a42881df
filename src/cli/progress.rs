//! A bar for long work, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::builder::Progress;

/// Shows how far the work is; gone when it is dropped. Silent unless standard error is a terminal.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn new() -> Self {
        // indicatif itself hides what does not go to a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar }
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {human_pos}/{human_len} ({eta})",
            None => "{msg} {spinner} {human_pos} ({per_sec})",
        };
        match ProgressStyle::with_template(template) {
            Ok(style) => self.bar.set_style(style),
            Err(error) => log::debug!("progress bar: {error}"),
        }
        self.bar.reset();
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn advance(&self, units: u64) {
        self.bar.inc(units);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
