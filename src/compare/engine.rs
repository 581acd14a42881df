//! Runs one program on two systems in step.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::accepted::Counts;
use super::bench::{Bench, Case, Place, c_path};
use super::bytes::Bytes;
use super::generate::Generator;
use super::judge::{Difference, Judge, Verdict};
use super::layers::{self, Layers};
use super::op::{Call, Event, Look, PEOPLE, Person};
use super::outcome::Outcome;
use super::pair::{Pair, SIDES, Side};
use super::tree::{self, Tree};
use super::trees;
use super::way::{Mounted, Way};
use super::worker::{Lost, Reply, Request, Worker};
use crate::sys::plain as sys;

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
#[derive(Default)]
struct Half {
    // Dropped in this order: a mount with workers in it is busy.
    workers: Vec<Worker>,
    mounted: Option<Mounted>,
}

pub struct Engine<'a> {
    pub ways: Pair<&'a Way>,
    /// The program that the workers are.
    pub worker: &'a Path,
    pub bench: &'a Bench,
    /// How long a call may take.
    pub patience: Duration,
    /// Fields that are not compared.
    pub ignored: &'a [String],
    /// Tells each step and both answers on standard error.
    pub trace: bool,
}

/// The layers of both sides.
pub enum Layered<'a> {
    /// Made from a list.
    Made(Layers),
    /// Copies of directories; without one, it is empty.
    Copied {
        lower: Option<&'a Path>,
        upper: Option<&'a Path>,
    },
}

impl Engine<'_> {
    /// Runs a program on fresh layers.
    pub fn run(&self, layers: &Layers, source: Source) -> Result<Report, Trouble> {
        let mut source = Some(source);
        self.run_with(&Layered::Made(layers.clone()), &mut |run| match source.take() {
            Some(source) => run.events(source),
            None => Ok(()),
        })
    }

    /// Does `work` on fresh layers.
    pub fn run_with(
        &self,
        layers: &Layered,
        work: &mut dyn FnMut(&mut Run) -> Result<(), Stop>,
    ) -> Result<Report, Trouble> {
        let case = self.bench.case()?;
        if let Layered::Made(layers) = layers {
            case.add_tops(layers.tops.len())?;
        }
        for side in SIDES {
            let place = case.place(side);
            match layers {
                Layered::Made(layers) => {
                    layers::build(&place.lower, &layers.lower)?;
                    for (top, items) in place.tops.iter().zip(&layers.tops) {
                        layers::build(top, items)?;
                    }
                    layers::build(&place.upper, &layers.upper)?;
                }
                Layered::Copied { lower, upper } => {
                    layers::copy(*lower, &place.lower)?;
                    layers::copy(*upper, &place.upper)?;
                }
            }
        }
        let mut run = Run {
            engine: self,
            case: &case,
            halves: Pair::default(),
            swapped: false,
            again: false,
            judge: Judge::new(
                self.bench.numbers_are_unique(),
                self.ignored,
                self.ways.a.has_old_readers() || self.ways.b.has_old_readers(),
            ),
            lowers: Pair::make(|side| look_at_lowers(&case.place(side))),
            report: Report {
                end: End::Agreed,
                events: Vec::new(),
                steps: 0,
                counts: Counts::default(),
            },
        };
        run.judge.new_layers(&run.lowers.each_ref());
        let ended = work(&mut run);
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

/// Why a run ended early.
pub enum Stop {
    Accepted,
    Differs(Difference),
    Trouble(Trouble),
}

impl From<Difference> for Stop {
    fn from(difference: Difference) -> Self {
        Stop::Differs(difference)
    }
}

/// A run that is under way.
pub struct Run<'a> {
    engine: &'a Engine<'a>,
    case: &'a Case,
    halves: Pair<Half>,
    /// Each system has the layers of the other.
    swapped: bool,
    /// The layers were mounted before.
    again: bool,
    judge: Judge,
    lowers: Pair<Tree>,
    report: Report,
}

impl Run<'_> {
    fn events(&mut self, mut source: Source) -> Result<(), Stop> {
        self.begin()?;
        let trees = self.walk()?;
        self.judge.trees("at the start", &trees.a, &trees.b)?;
        if let Source::Generate(generator) = &mut source {
            generator.relearn(&trees.a);
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
                    let crosses = !self.engine.ignored.iter().any(|field| field == "cross-mount");
                    if event == Event::Swap && crosses {
                        self.swap();
                    }
                    self.begin()?;
                    if let Source::Generate(generator) = &mut source {
                        generator.restarted();
                    }
                    let what = if event == Event::Swap && crosses {
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

    pub(super) fn place(&self, side: Side) -> Place {
        self.case.place(self.layers_of(side))
    }

    /// Whose layers a side has now.
    fn layers_of(&self, side: Side) -> Side {
        if self.swapped { side.other() } else { side }
    }

    pub(super) fn name(&self, side: Side) -> String {
        self.engine.ways.of(side).to_string()
    }

    /// What went wrong: trouble if it was on the side of the reference, else a difference.
    pub(super) fn fault(side: Side, signature: impl Into<String>, text: String) -> Stop {
        match side {
            Side::A => Stop::Trouble(text),
            Side::B => Difference::new(signature, text).into(),
        }
    }

    /// Mounts both and starts the workers.
    pub(super) fn begin(&mut self) -> Result<(), Stop> {
        for side in SIDES {
            match self.engine.ways.of(side).mount(&self.place(side), self.again) {
                Ok(mounted) => self.halves.of_mut(side).mounted = Some(mounted),
                Err(text) => return Err(Self::fault(side, "mount", text)),
            }
        }
        // One more for the walks, who sees everything.
        let walker = Person {
            uid: 0,
            gid: 0,
            extra_group: 0,
            umask: 0o022,
        };
        for side in SIDES {
            let merged = Bytes::from(self.place(side).merged.as_os_str().as_bytes());
            for person in PEOPLE.into_iter().chain([walker]) {
                let worker = Worker::start(self.engine.worker);
                let mut worker = worker.map_err(|e| {
                    Stop::Trouble(format!("cannot start {}: {e}", self.engine.worker.display()))
                })?;
                let begin = Request::Begin {
                    root: merged.clone(),
                    person,
                };
                let sent = worker.send(&begin);
                self.halves.of_mut(side).workers.push(worker);
                self.sent(side, sent)?;
            }
        }
        for side in SIDES {
            for worker in 0..self.halves.of(side).workers.len() {
                match self.receive(side, worker)? {
                    Reply::Ready(Ok(())) => {}
                    Reply::Ready(Err(errno)) => {
                        let text = format!(
                            "nobody can enter the view of {}: {}",
                            self.name(side),
                            sys::errno_name(errno)
                        );
                        return Err(Self::fault(side, "entering", text));
                    }
                    other => return Err(Stop::Trouble(format!("a worker cannot begin: {other:?}"))),
                }
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), Stop> {
        self.again = true;
        for side in SIDES {
            let half = self.halves.of_mut(side);
            half.workers.clear();
            if let Some(mounted) = half.mounted.take() {
                mounted
                    .unmount()
                    .map_err(|text| Self::fault(side, "umount", text))?;
            }
        }
        Ok(())
    }

    fn sent(&self, side: Side, result: Result<(), Lost>) -> Result<(), Stop> {
        result.map_err(|lost| self.lost(side, lost))
    }

    fn worker(&mut self, side: Side, worker: usize) -> Result<&mut Worker, Stop> {
        let found = self.halves.of_mut(side).workers.get_mut(worker);
        found.ok_or_else(|| Stop::Trouble(format!("there is no worker {worker}")))
    }

    fn receive(&mut self, side: Side, worker: usize) -> Result<Reply, Stop> {
        let patience = self.engine.patience;
        let reply = self.worker(side, worker)?.receive(patience);
        reply.map_err(|lost| {
            self.abort(side);
            self.lost(side, lost)
        })
    }

    /// Ends every call that waits for the server of that side.
    pub(super) fn abort(&self, side: Side) {
        if let Some(mounted) = &self.halves.of(side).mounted {
            mounted.abort();
        }
    }

    /// From now on each side has the layers of the other. Nothing may be mounted.
    pub(super) fn swap(&mut self) {
        self.swapped = !self.swapped;
        let lowers = match self.swapped {
            false => self.lowers.each_ref(),
            true => self.lowers.each_ref().turned(),
        };
        self.judge.new_layers(&lowers);
    }

    /// One request to a worker of one side.
    pub(super) fn ask(&mut self, side: Side, worker: usize, request: &Request) -> Result<Reply, Stop> {
        let sent = self.worker(side, worker)?.send(request);
        self.sent(side, sent)?;
        self.receive(side, worker)
    }

    fn lost(&self, side: Side, lost: Lost) -> Stop {
        let (kind, text) = match lost {
            Lost::Died(text) => ("dies", text),
            Lost::Hangs(text) => ("hangs", text),
        };
        let call = match self.report.events.last() {
            Some(Event::Step { call, .. }) => call.name(),
            other => format!("{other:?}"),
        };
        let text = format!("on {}: {text}", self.name(side));
        Self::fault(side, format!("{call} {kind}"), text)
    }

    /// The same request to the same worker of both sides, answered by both at the same time.
    fn both(&mut self, worker: usize, request: &Request) -> Result<Pair<Reply>, Stop> {
        for side in SIDES {
            let sent = self.worker(side, worker)?.send(request);
            self.sent(side, sent)?;
        }
        Pair::try_make(|side| self.receive(side, worker))
    }

    fn step(&mut self, at: usize, worker: u8, look: Look, call: &Call) -> Result<bool, Stop> {
        let replies = self.both(
            worker as usize,
            &Request::Do {
                call: call.clone(),
                look,
            },
        )?;
        let (Reply::Did(a), Reply::Did(b)) = (replies.a, replies.b) else {
            return Err(Stop::Trouble("a worker answers something else".into()));
        };
        self.report.steps += 1;
        self.trace(at, worker, call, &a, &b);
        match self.judge.outcome(at, worker, call, look, &a, &b) {
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

    fn trace(&self, at: usize, worker: u8, call: &Call, a: &Outcome, b: &Outcome) {
        if self.engine.trace {
            eprintln!("{at:>5} w{worker} {call:?} = {a} | {b}");
        }
    }

    fn drop_caches(&mut self) -> Result<(), Stop> {
        for side in SIDES {
            if let Some(mounted) = &self.halves.of(side).mounted {
                mounted
                    .drop_caches()
                    .map_err(|e| Stop::Trouble(format!("remount of {}: {e}", self.name(side))))?;
            }
        }
        Ok(())
    }

    fn walk(&mut self) -> Result<Pair<Tree>, Stop> {
        let replies = self.both(PEOPLE.len(), &Request::Walk)?;
        match (replies.a, replies.b) {
            (Reply::Tree(a), Reply::Tree(b)) => Ok(Pair { a, b }),
            _ => Err(Stop::Trouble("the walker answers something else".into())),
        }
    }

    /// Compares the merged trees and the layers below; the reference's tree is returned.
    pub(super) fn compare(&mut self, when: &str) -> Result<Tree, Stop> {
        let Pair { a, b } = self.walk()?;
        self.judge.trees(when, &a, &b)?;
        self.layers_below(when)?;
        Ok(a)
    }

    fn layers_below(&mut self, when: &str) -> Result<(), Stop> {
        let uppers = Pair::make(|side| look_at(&self.place(side).upper));
        self.judge.uppers(when, &uppers.a, &uppers.b)?;
        Ok(())
    }

    pub(super) fn layers_unmounted(&mut self) -> Result<(), Stop> {
        self.layers_below("unmounted")?;
        for side in SIDES {
            let now = look_at_lowers(&self.place(side));
            trees::untouched(&self.name(side), self.lowers.of(self.layers_of(side)), &now)?;
        }
        if self.engine.ignored.iter().any(|field| field == "work") {
            return Ok(());
        }
        let left: Vec<String> = look_at(&self.place(Side::B).work)
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

/// All lowers as they lie on their file system.
fn look_at_lowers(place: &Place) -> Tree {
    let mut all = look_at(&place.lower);
    for (number, top) in place.tops.iter().enumerate() {
        let root = Bytes::from(format!("(above {number})").as_str());
        all.extend(look_at(top).into_iter().map(|mut entry| {
            entry.path = root.join(&entry.path.0);
            entry
        }));
    }
    all
}

/// A layer as it lies on its file system.
fn look_at(path: &Path) -> Tree {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let tree = sys::open_at(libc::AT_FDCWD, &c_path(path), flags, 0).map(|fd| tree::walk(&fd, true));
    // The walk goes from directory to directory; stay in none of them.
    std::env::set_current_dir("/").ok();
    tree.unwrap_or_default()
}
