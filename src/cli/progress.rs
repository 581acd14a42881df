//! A bar for long work, on a terminal only; and Ctrl-C, which ends it in good order.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::builder::Progress;

/// What the signal handlers read and write.
struct Signals {
    /// No bar is alive: signals end the process at once.
    idle: Arc<AtomicBool>,
    /// A signal came. A second one ends the process at once.
    came: Arc<AtomicBool>,
}

static SIGNALS: LazyLock<io::Result<Signals>> = LazyLock::new(|| {
    let signals = Signals {
        idle: Arc::new(AtomicBool::new(true)),
        came: Arc::new(AtomicBool::new(false)),
    };
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, Arc::clone(&signals.idle))?;
        flag::register_conditional_default(signal, Arc::clone(&signals.came))?;
        flag::register(signal, Arc::clone(&signals.came))?;
    }
    Ok(signals)
});

fn set_idle(idle: bool) {
    match &*SIGNALS {
        Ok(signals) => signals.idle.store(idle, Ordering::SeqCst),
        Err(error) => log::debug!("signals are not caught: {error}"),
    }
}

/// Shows how far the work is; gone when it is dropped. Silent unless standard error is a terminal.
///
/// As long as it lives, the first SIGINT, SIGTERM or SIGHUP asks the work to stop, so that it can tidy up. One at a
/// time.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn new() -> Self {
        set_idle(false);
        // indicatif itself hides what does not go to a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar }
    }
}

impl Bar {
    /// Prints a line on standard output, the bar being out of the way.
    pub(super) fn print(&self, line: &str) -> io::Result<()> {
        self.bar
            .suspend(|| super::output::print(format!("{line}\n").as_bytes()))
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

    fn stopped(&self) -> bool {
        SIGNALS
            .as_ref()
            .is_ok_and(|signals| signals.came.load(Ordering::Relaxed))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        set_idle(true);
    }
}
