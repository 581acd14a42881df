//! `plyfs trace`.

mod costs;
mod summary;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;
use crate::explain;
use crate::mount::listen::{self, Line};
use crate::mount::registry::Live;
use crate::overlay::trace::Event;
use costs::Costs;
use summary::Summary;

const EXAMPLES: &str = "\
Examples:
  plyfs trace ~/view                     until Ctrl-C, or until the view ends
  plyfs trace ~/view --op create,open,unlink,rename --process make
  plyfs trace ~/view/src                 what is done in and below src
  plyfs trace ~/view --summary --quiet   only the summary, at the end
  plyfs trace ~/view --json | jq -c 'select(.type == \"request\") | .copies[]'

A line for each request: when, by whom, what, the decision, how long it took and,
if other requests of the same thread led to it (the lookups of a path), how many
it cost together. Below it, each object copied up: where it was filled, how its
data came over, bytes, time.

Names, attributes and data that the kernel remembers cost no request and show no
line. Data of files in the upper is read and written past the server where it may
be passed through (root), so reads and writes of it are not seen; their opens are.

With --json a line is an object with type: 'listening' (once, first), 'request'
(at, op, path, to, detail, pid, process, uid, errno, micros, requests, decisions,
copies: path, kind, temp, method, bytes, micros, errno), 'lost' (count: told too
slowly), 'summary' (with --summary, last). docs/trace.md explains them.

A listener that is too slow loses requests, which is said; the view never waits
for it.";

/// Tell live what a view does: each request, what was decided, what was copied up.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TraceArgs {
    /// The mount point, or a path in it: then only what lies there and below.
    merged: PathBuf,
    /// Only these requests, separated by commas: lookup, open, create, unlink, ...
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    op: Vec<String>,
    /// Only what this process asks: a number, or the name of the program.
    #[arg(long, value_name = "PID|NAME")]
    process: Option<String>,
    /// Only requests that copied something up.
    #[arg(long)]
    copies: bool,
    /// End after this many requests that were shown.
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,
    /// At the end, what was copied most, and what for nothing.
    #[arg(long)]
    summary: bool,
    /// Show no requests.
    #[arg(long, short)]
    quiet: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// All requests that can be asked for by name.
const OPS: [&str; 36] = [
    "lookup",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "open",
    "read",
    "write",
    "flush",
    "release",
    "fsync",
    "opendir",
    "readdir",
    "readdirplus",
    "releasedir",
    "fsyncdir",
    "statfs",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "access",
    "create",
    "getlk",
    "setlk",
    "ioctl",
    "poll",
    "fallocate",
    "lseek",
    "copy_file_range",
];

/// A request in `--json`.
#[derive(Serialize)]
struct Told<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    event: &'a Event,
    requests: u64,
}

impl TraceArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        if let Some(unknown) = self.op.iter().find(|op| !OPS.contains(&op.as_str())) {
            let known = OPS.join(", ");
            return Err(Failure::usage(format!(
                "'{unknown}' is no request; there are: {known}"
            )));
        }
        let viewed = explain::find(&self.merged).map_err(|error| Failure::Failed(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The second one ends at once.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let reach = |error: std::io::Error| {
            let (merged, pid) = (viewed.live.entry.merged.path(), viewed.live.entry.pid);
            Failure::Failed(format!(
                "{}: the server, process {pid}, cannot be listened to: {error}",
                merged.display()
            ))
        };
        let stream = listen::attach(&viewed.live.socket).map_err(reach)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let below = Path::new("/").join(&viewed.inside);
        let mut trace = Trace {
            arguments: &self,
            below: (below != Path::new("/")).then_some(below),
            costs: Costs::default(),
            summary: Summary::default(),
            shown: 0,
            merged: viewed.live.entry.merged.path(),
        };
        trace.listen(stream, &stop)?;
        if self.summary {
            trace.sum_up(&viewed.live)?;
        }
        Ok(())
    }
}

/// A trace under way.
struct Trace<'a> {
    arguments: &'a TraceArgs,
    below: Option<PathBuf>,
    costs: Costs,
    summary: Summary,
    shown: u64,
    merged: PathBuf,
}

impl Trace<'_> {
    fn listen(&mut self, stream: UnixStream, stop: &AtomicBool) -> Result<(), Failure> {
        let mut from = BufReader::new(stream);
        let mut text = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match from.read_until(b'\n', &mut text) {
                Ok(_) if text.last() == Some(&b'\n') => {}
                Ok(_) => break,
                // What came of the line so far stays in `text`.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                // Killed with its last words on the way.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error.into()),
            }
            let line = serde_json::from_slice(&text).map_err(std::io::Error::from)?;
            text.clear();
            if !self.hear(&line)? {
                return Ok(());
            }
        }
        if !self.arguments.json && !stop.load(Ordering::Relaxed) {
            eprintln!("plyfs: {}: the view has ended", self.merged.display());
        }
        Ok(())
    }

    /// Answers whether to go on.
    fn hear(&mut self, line: &Line) -> Result<bool, Failure> {
        match line {
            Line::Refused { reason } => {
                return Err(Failure::Failed(format!("{}: {reason}", self.merged.display())));
            }
            Line::Listening { pid } => {
                if self.arguments.json {
                    return print_line(&line);
                }
                eprintln!(
                    "plyfs: listening to {}, process {pid}; Ctrl-C ends it",
                    self.merged.display()
                );
            }
            Line::Lost { count } => {
                self.summary.lost = self.summary.lost.saturating_add(*count);
                if self.arguments.json {
                    return print_line(&line);
                }
                eprintln!("plyfs: {count} requests came too fast, and are not shown");
            }
            Line::Request(event) => return self.request(event),
        }
        Ok(true)
    }

    fn request(&mut self, event: &Event) -> Result<bool, Failure> {
        let requests = self.costs.of(event);
        let wanted = self.is_wanted(event);
        if wanted {
            self.summary.count(event);
        }
        // What becomes of a copy counts whoever asked for it.
        self.summary.follow(event);
        if !wanted {
            return Ok(true);
        }
        self.shown = self.shown.saturating_add(1);
        let going_on = match (self.arguments.quiet, self.arguments.json) {
            (true, _) => true,
            (false, true) => print_line(&Told {
                r#type: "request",
                event,
                requests,
            })?,
            (false, false) => print(&for_people(event, requests))?,
        };
        let enough = self.arguments.count.is_some_and(|count| self.shown >= count);
        Ok(going_on && !enough)
    }

    fn is_wanted(&self, event: &Event) -> bool {
        let arguments = self.arguments;
        let op = arguments.op.is_empty() || arguments.op.contains(&event.op);
        let process = arguments
            .process
            .as_ref()
            .is_none_or(|wanted| *wanted == event.process || *wanted == event.pid.to_string());
        let inside = |path: &str| {
            self.below
                .as_ref()
                .is_none_or(|below| Path::new(path).starts_with(below))
        };
        let path = inside(&event.path) || event.to.as_deref().is_some_and(inside);
        op && process && path && (!arguments.copies || !event.copies.is_empty())
    }

    fn sum_up(&mut self, live: &Live) -> Result<(), Failure> {
        self.summary.look_at_layers(live);
        if self.arguments.json {
            print_line(&self.summary.for_programs())?;
        } else {
            print(&self.summary.for_people())?;
        }
        Ok(())
    }
}

/// Answers whether anybody still reads.
fn print(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true).map_err(Failure::from),
    }
}

fn print_line(value: &impl Serialize) -> Result<bool, Failure> {
    let text = serde_json::to_string(value).map_err(std::io::Error::from)?;
    print(&format!("{text}\n"))
}

/// Control characters in names are escaped: a terminal obeys them.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        })
        .collect()
}

fn clock(micros: u64) -> String {
    let time = i64::try_from(micros)
        .ok()
        .and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    // 2026-11-25T09:17:33.209193Z
    let text = time.map_or_else(String::new, |time| format!("{time:.6}"));
    text.get(11..26).unwrap_or(&text).to_owned()
}

fn for_people(event: &Event, requests: u64) -> String {
    let mut line = format!(
        "{} {}[{}] {} {}",
        clock(event.at),
        if event.pid == 0 {
            "kernel".to_owned()
        } else {
            plain(&event.process)
        },
        event.pid,
        event.op,
        plain(&event.path)
    );
    if let Some(to) = &event.to {
        line.push_str(&format!(" to {}", plain(to)));
    }
    if !event.detail.is_empty() {
        line.push_str(&format!(" ({})", plain(&event.detail)));
    }
    if let Some(errno) = event.errno {
        line.push_str(&format!(": {}", error_words(errno)));
    }
    if !event.decisions.is_empty() {
        line.push_str(&format!(": {}", event.decisions.join("; ")));
    }
    line.push_str(&format!(" [{} us", event.micros));
    if requests > 1 {
        line.push_str(&format!(", {requests} requests"));
    }
    line.push_str("]\n");
    for copy in &event.copies {
        let mut how = format!("{}, in {}", copy.kind, copy.temp);
        if let Some(method) = &copy.method {
            how.push_str(&format!(", {} bytes by {method}", copy.bytes));
        }
        let what = match copy.errno {
            None => "copied up".to_owned(),
            Some(errno) => format!("not copied up, {}:", error_words(errno)),
        };
        line.push_str(&format!(
            "    {what} {}: {how} [{} us]\n",
            plain(&copy.path),
            copy.micros
        ));
    }
    line
}

/// As the system says it, without the number behind.
fn error_words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people() {
        let event = Event {
            at: 1_764_062_253_209_193,
            op: "rename".to_owned(),
            path: "/a\u{1b}".to_owned(),
            to: Some("/b".to_owned()),
            pid: 7,
            process: "mv".to_owned(),
            errno: Some(libc::EXDEV),
            micros: 12,
            ..Event::default()
        };
        assert_eq!(
            for_people(&event, 3),
            "09:17:33.209193 mv[7] rename /a\\u{1b} to /b: Invalid cross-device link [12 us, 3 requests]\n"
        );
    }
}
