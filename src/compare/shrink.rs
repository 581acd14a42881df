//! Makes a failing program small: leaves out what the difference does not need.

use std::time::{Duration, Instant};

use super::engine::{End, Engine, Source};
use super::judge::Difference;
use super::layers::{Item, Layers};
use super::op::{Event, Look, Program};

pub struct Shrunk {
    pub program: Program,
    pub difference: Difference,
    pub runs: u32,
}

/// Shrinks as long as `budget` lasts. None if the program does not fail again when it is replayed.
pub fn shrink(engine: &Engine, program: Program, signature: &str, budget: Duration) -> Option<Shrunk> {
    let mut search = Search {
        engine,
        signature,
        deadline: Instant::now() + budget,
        runs: 0,
        last: None,
    };
    if !search.fails(&program) {
        return None;
    }
    let mut best = program;
    loop {
        let before = size(&best);
        let layers = best.layers.clone();
        let seed = best.seed;
        best.events = reduce(best.events, &mut |events: &[Event]| {
            search.fails(&Program {
                seed,
                layers: layers.clone(),
                events: events.to_vec(),
            })
        });
        for layer in 0..2 + best.layers.tops.len() {
            let keep = best.clone();
            let with = |items: &[Item]| {
                let mut program = keep.clone();
                if let Some(all) = items_of(&mut program.layers, layer) {
                    *all = items.to_vec();
                }
                program
            };
            let Some(items) = items_of(&mut best.layers, layer) else {
                continue;
            };
            let items = reduce(items.clone(), &mut |items| search.fails(&with(items)));
            best = with(&items);
        }
        best = without_empty_tops(best, &mut |program| search.fails(program));
        if size(&best) == before || search.late() {
            break;
        }
    }
    search.simplify(&mut best);
    // The text must be that of the smallest program.
    search.deadline = Instant::now() + Duration::from_secs(60);
    search.fails(&best);
    Some(Shrunk {
        difference: search.last?,
        program: best,
        runs: search.runs,
    })
}

fn size(program: &Program) -> usize {
    let layers = &program.layers;
    let tops: usize = layers.tops.iter().map(|top| top.len() + 1).sum();
    program.events.len() + layers.lower.len() + layers.upper.len() + tops
}

/// The items of the upper, the lower, or a lower above it.
fn items_of(layers: &mut Layers, layer: usize) -> Option<&mut Vec<Item>> {
    match layer {
        0 => Some(&mut layers.upper),
        1 => Some(&mut layers.lower),
        _ => layers.tops.get_mut(layer - 2),
    }
}

/// Leaves out the lowers in which nothing is left, if it fails all the same.
fn without_empty_tops(program: Program, fails: &mut dyn FnMut(&Program) -> bool) -> Program {
    let mut less = program.clone();
    less.layers.tops.retain(|top| !top.is_empty());
    if less.layers.tops.len() < program.layers.tops.len() && fails(&less) {
        less
    } else {
        program
    }
}

struct Search<'a> {
    engine: &'a Engine<'a>,
    signature: &'a str,
    deadline: Instant,
    runs: u32,
    last: Option<Difference>,
}

impl Search<'_> {
    fn late(&self) -> bool {
        Instant::now() > self.deadline
    }

    fn fails(&mut self, program: &Program) -> bool {
        if self.late() {
            return false;
        }
        self.runs += 1;
        match self
            .engine
            .run(&program.layers, Source::Replay(&program.events))
            .map(|report| report.end)
        {
            Ok(End::Differs(difference)) if difference.signature == self.signature => {
                self.last = Some(difference);
                true
            }
            _ => false,
        }
    }

    /// Steps without looking around, by the first worker, read more easily.
    fn simplify(&mut self, program: &mut Program) {
        for at in 0..program.events.len() {
            let Some(Event::Step { worker, look, call }) = program.events.get(at).cloned() else {
                continue;
            };
            let simpler = [(0, Look::No), (worker, Look::No), (0, look)];
            for (worker, look) in simpler {
                let event = Event::Step {
                    worker,
                    look,
                    call: call.clone(),
                };
                if program.events.get(at) == Some(&event) {
                    continue;
                }
                let mut tried = program.clone();
                if let Some(place) = tried.events.get_mut(at) {
                    *place = event;
                }
                if self.fails(&tried) {
                    *program = tried;
                    break;
                }
            }
        }
    }
}

/// Delta debugging: leaves out ever smaller pieces while the rest still fails.
fn reduce<T: Clone>(mut items: Vec<T>, fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    let mut piece = items.len().div_ceil(2).max(1);
    while !items.is_empty() {
        let mut at = 0;
        let mut cut = false;
        while at < items.len() {
            let end = (at + piece).min(items.len());
            let rest: Vec<T> = items
                .iter()
                .take(at)
                .chain(items.iter().skip(end))
                .cloned()
                .collect();
            if fails(&rest) {
                items = rest;
                cut = true;
            } else {
                at = end;
            }
        }
        if piece == 1 {
            if !cut {
                break;
            }
        } else {
            piece = (piece / 2).max(1);
        }
    }
    items
}

#[cfg(test)]
#[test]
fn reduction_keeps_what_is_needed() {
    let needed = [3, 40, 77];
    let mut runs = 0;
    let small = reduce((0..100).collect(), &mut |items: &[i32]| {
        runs += 1;
        needed.iter().all(|n| items.contains(n))
    });
    assert_eq!(small, needed);
    assert!(runs < 200, "{runs} runs");
}
