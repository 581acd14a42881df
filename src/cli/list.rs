//! `plyfs list`.

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::output::{Fields, bytes, duration, print};
use crate::mount::control::{Counters, counters};
use crate::mount::registry::{Live, live};
use crate::mount::{Entry, JsonPath};

const EXAMPLES: &str = "\
Examples:
  plyfs list
  plyfs list --json | jq -r '.[].merged'

With --json, a list of objects with merged, lower (the topmost), below (a list of
the further lowers), upper, work (null without an upper), pid, since (RFC 3339), read_only, log, requests, copy_ups, copied_bytes
(null if the server does not answer). A path that is not UTF-8 is a list of its
bytes.";

/// List this user's live mounts, and what each has done.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// A mount in `--json`.
#[derive(Serialize)]
struct Record<'a> {
    merged: &'a JsonPath,
    lower: &'a JsonPath,
    below: &'a [JsonPath],
    upper: Option<&'a JsonPath>,
    work: Option<&'a JsonPath>,
    pid: u32,
    since: String,
    read_only: bool,
    log: Option<&'a JsonPath>,
    requests: Option<u64>,
    copy_ups: Option<u64>,
    copied_bytes: Option<u64>,
}

impl ListArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        let mounts = live()?;
        let asked: Vec<_> = mounts.iter().map(|live| (&live.entry, ask(live))).collect();
        if self.json {
            let records: Vec<_> = asked
                .iter()
                .map(|(entry, counters)| record(entry, *counters))
                .collect();
            let mut text = serde_json::to_vec_pretty(&records).map_err(std::io::Error::from)?;
            text.push(b'\n');
            print(&text)?;
        } else {
            print(&for_people(&asked))?;
        }
        Ok(())
    }
}

fn ask(live: &Live) -> Option<Counters> {
    counters(&live.socket)
        .inspect_err(|error| log::debug!("{}: {error}", live.socket.display()))
        .ok()
}

fn since(entry: &Entry) -> String {
    jiff::Timestamp::from_second(entry.since)
        .map_or_else(|_| entry.since.to_string(), |time| time.to_string())
}

fn record<'a>(entry: &'a Entry, counters: Option<Counters>) -> Record<'a> {
    Record {
        merged: &entry.merged,
        lower: &entry.lower,
        below: &entry.below,
        upper: entry.upper.as_ref(),
        work: entry.work.as_ref(),
        pid: entry.pid,
        since: since(entry),
        read_only: entry.read_only,
        log: entry.log.as_ref(),
        requests: counters.map(|counters| counters.requests),
        copy_ups: counters.map(|counters| counters.copy_ups),
        copied_bytes: counters.map(|counters| counters.copied_bytes),
    }
}

fn for_people(mounts: &[(&Entry, Option<Counters>)]) -> Vec<u8> {
    let mut fields = Fields::default();
    for (entry, counters) in mounts {
        fields.gap();
        fields.path(
            "merged",
            &entry.merged.path(),
            entry.read_only.then_some("(read-only)"),
        );
        for (index, lower) in entry.lowers().enumerate() {
            fields.path(if index == 0 { "lower" } else { "below" }, &lower, None);
        }
        if let Some(upper) = &entry.upper {
            fields.path("upper", &upper.path(), None);
        }
        if let Some(work) = &entry.work {
            fields.path("work", &work.path(), None);
        }
        let age = jiff::Timestamp::now().as_second().saturating_sub(entry.since);
        let age = duration(u64::try_from(age).unwrap_or_default());
        fields.text(
            "server",
            &format!("process {}, since {} ({age})", entry.pid, since(entry)),
        );
        let done = counters.map_or_else(
            || "the server does not answer".to_owned(),
            |counters| {
                format!(
                    "{} requests, {} copy-ups, {} copied",
                    counters.requests,
                    counters.copy_ups,
                    bytes(counters.copied_bytes)
                )
            },
        );
        fields.text("served", &done);
        if let Some(log) = &entry.log {
            fields.path("log", &log.path(), None);
        }
    }
    fields.finish()
}
