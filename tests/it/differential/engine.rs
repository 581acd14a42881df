//! Runs one program on two systems in step.

use std::path::Path;
use std::time::Duration;

use super::bytes::Bytes;
use super::generate::Generator;
use super::judge::{Difference, Judge, Verdict};
use super::known::Counts;
use super::layers::{self, Layers};
use super::op::{Call, Event, Look, PEOPLE, Person};
use super::outcome::Outcome;
use super::sys;
use super::system::{Bench, Case, Mounted, Place, System, c_path};
use super::tree::{self, Tree};
use super::trees;
use super::worker::{Lost, Reply, Request, Worker};

/// Where the events come from.
pub enum Source<'a> {
    Generate(Box<Generator>),
    Replay(&'a [Event]),
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    Agreed,
    /// At an accepted difference that leaves different trees.
    Accepted,
    Differs(Difference),
}

pub struct Report {
    pub end: End,
    /// All that was done, up to the event that differed.
    pub events: Vec<Event>,
    pub steps: u64,
    pub counts: Counts,
}

/// Trouble with the engine itself, or with the reference.
pub type Trouble = String;

/// One system with its mount and its workers.
struct Side {
    // Dropped in this order: a mount with workers in it is busy.
    workers: Vec<Worker>,
    mounted: Option<Mounted>,
}

pub struct Engine<'a> {
    pub systems: [&'a dyn System; 2],
    pub bench: &'a Bench,
    /// How long a call may take.
    pub patience: Duration,
    /// Fields that are not compared.
    pub ignored: &'a [String],
}

impl Engine<'_> {
    pub fn run(&self, layers: &Layers, source: Source) -> Result<Report, Trouble> {
        let case = self.bench.case()?;
        for side in 0..2 {
            let place = case.place(side);
            let make = |path: &Path, items| {
                layers::build(path, items).map_err(|e| format!("layers: {}", sys::errno_name(e)))
            };
            make(&place.lower, &layers.lower)?;
            make(&place.upper, &layers.upper)?;
        }
        let mut run = Run {
            engine: self,
            case: &case,
            sides: [0, 1].map(|_| Side {
                mounted: None,
                workers: Vec::new(),
            }),
            swapped: false,
            judge: Judge::new(self.bench.numbers_are_unique(), self.ignored),
            lowers: [0, 1].map(|side| look_at(&case.place(side).lower)),
            report: Report {
                end: End::Agreed,
                events: Vec::new(),
                steps: 0,
                counts: Counts::default(),
            },
        };
        let ended = run.events(source);
        let mut report = run.report;
        report.counts = run.judge.counts;
        match ended {
            Ok(()) => {}
            Err(Stop::Accepted) => report.end = End::Accepted,
            Err(Stop::Differs(difference)) => report.end = End::Differs(difference),
            Err(Stop::Trouble(trouble)) => return Err(trouble),
        }
        Ok(report)
    }
}

enum Stop {
    Accepted,
    Differs(Difference),
    Trouble(Trouble),
}

impl From<Difference> for Stop {
    fn from(difference: Difference) -> Self {
        Stop::Differs(difference)
    }
}

struct Run<'a> {
    engine: &'a Engine<'a>,
    case: &'a Case,
    sides: [Side; 2],
    /// Each system has the layers of the other.
    swapped: bool,
    judge: Judge,
    lowers: [Tree; 2],
    report: Report,
}

impl Run<'_> {
    fn events(&mut self, mut source: Source) -> Result<(), Stop> {
        self.begin()?;
        let trees = self.walk()?;
        self.judge.trees("at the start", &trees[0], &trees[1])?;
        if let Source::Generate(generator) = &mut source {
            generator.relearn(&trees[0]);
        }
        let mut at = 0;
        loop {
            let event = match &mut source {
                Source::Generate(generator) => generator.next(),
                Source::Replay(events) => events.get(at).cloned(),
            };
            let Some(event) = event else { break };
            at += 1;
            self.report.events.push(event.clone());
            let tree = match event {
                Event::Step { worker, look, call } => {
                    let succeeded = self.step(at, worker, look, &call)?;
                    if let Source::Generate(generator) = &mut source {
                        generator.learn(succeeded);
                    }
                    None
                }
                Event::DropCaches => {
                    self.drop_caches()?;
                    None
                }
                Event::Compare => Some(self.compare("compare")?),
                Event::Remount | Event::Swap => {
                    self.compare("before umount")?;
                    // Who opened what is forgotten with the mount.
                    if !self.judge.fell.is_empty() {
                        return Err(Stop::Accepted);
                    }
                    self.end()?;
                    self.layers_unmounted()?;
                    if event == Event::Swap {
                        self.swapped = !self.swapped;
                    }
                    self.begin()?;
                    if let Source::Generate(generator) = &mut source {
                        generator.restarted();
                    }
                    let what = if event == Event::Swap {
                        "each on the layers of the other"
                    } else {
                        "after remount"
                    };
                    Some(self.compare(what)?)
                }
            };
            if let (Source::Generate(generator), Some(tree)) = (&mut source, tree) {
                generator.relearn(&tree);
            }
        }
        self.end()?;
        self.layers_unmounted()
    }

    fn place(&self, side: usize) -> Place {
        self.case.place(if self.swapped { 1 - side } else { side })
    }

    fn name(&self, side: usize) -> String {
        self.engine.systems[side].name()
    }

    /// Mounts both and starts the workers.
    fn begin(&mut self) -> Result<(), Stop> {
        for side in 0..2 {
            match self.engine.systems[side].mount(&self.place(side)) {
                Ok(mounted) => self.sides[side].mounted = Some(mounted),
                Err(text) if side == 0 => return Err(Stop::Trouble(format!("the reference: {text}"))),
                Err(text) => return Err(Difference::new("mount", text).into()),
            }
        }
        let order = if self.swapped { [1, 0] } else { [0, 1] };
        if self.report.events.is_empty() || self.report.events.last() == Some(&Event::Swap) {
            self.judge.new_layers(order.map(|side| &self.lowers[side]));
        }
        let root = Person {
            umask: 0o022,
            ..PEOPLE[0]
        };
        for side in 0..2 {
            let merged = Bytes::from(std::os::unix::ffi::OsStrExt::as_bytes(
                self.place(side).merged.as_os_str(),
            ));
            for person in PEOPLE.into_iter().chain([root]) {
                let mut worker = Worker::start().map_err(|e| Stop::Trouble(format!("a worker: {e}")))?;
                self.sent(
                    side,
                    worker.send(&Request::Begin {
                        root: merged.clone(),
                        person,
                    }),
                )?;
                self.sides[side].workers.push(worker);
            }
        }
        for side in 0..2 {
            for worker in 0..self.sides[side].workers.len() {
                match self.receive(side, worker)? {
                    Reply::Ready(Ok(())) => {}
                    other => return Err(Stop::Trouble(format!("a worker cannot begin: {other:?}"))),
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        for side in 0..2 {
            self.sides[side].workers.clear();
            if let Some(mounted) = self.sides[side].mounted.take() {
                mounted.unmount().map_err(|text| match side {
                    0 => Stop::Trouble(text),
                    _ => Difference::new("umount", text).into(),
                })?;
            }
        }
        Ok(())
    }

    fn sent(&self, side: usize, result: Result<(), Lost>) -> Result<(), Stop> {
        result.map_err(|lost| self.lost(side, lost))
    }

    fn receive(&mut self, side: usize, worker: usize) -> Result<Reply, Stop> {
        let patience = self.engine.patience;
        let reply = self.sides[side].workers[worker].receive(patience);
        reply.map_err(|lost| {
            if let Some(mounted) = &self.sides[side].mounted {
                mounted.abort();
            }
            self.lost(side, lost)
        })
    }

    fn lost(&self, side: usize, lost: Lost) -> Stop {
        let (kind, text) = match lost {
            Lost::Died(text) => ("dies", text),
            Lost::Hangs(text) => ("hangs", text),
        };
        let call = match self.report.events.last() {
            Some(Event::Step { call, .. }) => call.name(),
            other => format!("{other:?}"),
        };
        let text = format!("on {}: {text}", self.name(side));
        match side {
            0 => Stop::Trouble(text),
            _ => Difference::new(format!("{call} {kind}"), text).into(),
        }
    }

    /// The same request to the same worker of both sides, answered by both at the same time.
    fn both(&mut self, worker: usize, request: &Request) -> Result<[Reply; 2], Stop> {
        for side in 0..2 {
            let sent = self.sides[side].workers[worker].send(request);
            self.sent(side, sent)?;
        }
        Ok([self.receive(0, worker)?, self.receive(1, worker)?])
    }

    fn step(&mut self, at: usize, worker: u8, look: Look, call: &Call) -> Result<bool, Stop> {
        let replies = self.both(
            worker as usize,
            &Request::Do {
                call: call.clone(),
                look,
            },
        )?;
        let [Reply::Did(a), Reply::Did(b)] = replies else {
            return Err(Stop::Trouble("a worker answers something else".into()));
        };
        self.report.steps += 1;
        self.trace(at, worker, call, &a, &b);
        match self.judge.outcome(at, worker, call, look, [&a, &b]) {
            Verdict::Same => {}
            Verdict::PutAway(slot) => {
                self.both(worker as usize, &Request::Drop { slot })?;
                return Ok(false);
            }
            Verdict::End => return Err(Stop::Accepted),
            Verdict::Differs(mut difference) => {
                difference.text = format!("{call:?}\n  {}\n  answers: {a} | {b}", difference.text);
                return Err(difference.into());
            }
        }
        Ok(a.result.is_ok())
    }

    /// `PLYFS_DIFF_TRACE=1` tells each step and its answer.
    fn trace(&self, at: usize, worker: u8, call: &Call, a: &Outcome, b: &Outcome) {
        if std::env::var_os("PLYFS_DIFF_TRACE").is_some() {
            eprintln!("{at:>5} w{worker} {call:?} = {a} | {b}");
        }
    }

    fn drop_caches(&mut self) -> Result<(), Stop> {
        for side in 0..2 {
            if let Some(mounted) = &self.sides[side].mounted {
                mounted
                    .drop_caches()
                    .map_err(|e| Stop::Trouble(format!("remount of {}: {e}", self.name(side))))?;
            }
        }
        Ok(())
    }

    fn walk(&mut self) -> Result<[Tree; 2], Stop> {
        match self.both(PEOPLE.len(), &Request::Walk)? {
            [Reply::Tree(a), Reply::Tree(b)] => Ok([a, b]),
            _ => Err(Stop::Trouble("the walker answers something else".into())),
        }
    }

    /// Compares the merged trees and the layers below; the reference's tree is returned.
    fn compare(&mut self, when: &str) -> Result<Tree, Stop> {
        let [a, b] = self.walk()?;
        self.judge.trees(when, &a, &b)?;
        self.layers_below(when)?;
        Ok(a)
    }

    fn layers_below(&mut self, when: &str) -> Result<(), Stop> {
        let uppers = [0, 1].map(|side| look_at(&self.place(side).upper));
        self.judge.uppers(when, &uppers[0], &uppers[1])?;
        Ok(())
    }

    fn layers_unmounted(&mut self) -> Result<(), Stop> {
        self.layers_below("unmounted")?;
        for side in 0..2 {
            let real = if self.swapped { 1 - side } else { side };
            let now = look_at(&self.place(side).lower);
            trees::untouched(&self.name(side), &self.lowers[real], &now)?;
        }
        let left: Vec<String> = look_at(&self.place(1).work)
            .iter()
            .filter(|entry| entry.path.0.starts_with(b"work/"))
            .filter(|entry| !entry.stat.as_ref().is_ok_and(trees::is_whiteout))
            .map(|entry| entry.path.to_string())
            .collect();
        if !left.is_empty() {
            return Err(
                Difference::new("work directory", format!("left in the work directory: {left:?}")).into(),
            );
        }
        Ok(())
    }
}

/// A layer as it lies on its file system.
fn look_at(path: &Path) -> Tree {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let tree = sys::open_at(libc::AT_FDCWD, &c_path(path), flags, 0).map(|fd| tree::walk(&fd, true));
    // The walk goes from directory to directory; stay in none of them.
    std::env::set_current_dir("/").ok();
    tree.unwrap_or_default()
}
