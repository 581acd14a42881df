//! What the generator believes to be in the tree. It may be wrong; then a call just fails, on both sides alike.

use std::collections::VecDeque;

use super::bytes::Bytes;
use super::rng::Rng;
use super::tree::Tree;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File,
    Symlink,
    Other,
}

impl Kind {
    pub fn of(mode: u32) -> Kind {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Dir,
            libc::S_IFREG => Kind::File,
            libc::S_IFLNK => Kind::Symlink,
            _ => Kind::Other,
        }
    }
}

/// What a call changes when it succeeds.
#[derive(Clone, Debug)]
pub enum Effect {
    Made(Bytes, Kind),
    Linked(Bytes, Bytes),
    Gone(Bytes),
    Moved(Bytes, Bytes),
    Exchanged(Bytes, Bytes),
    Opened { slot: u8, dir: bool },
    Closed { slot: u8 },
    Went(Bytes),
}

#[derive(Default)]
pub struct Model {
    live: Vec<(Bytes, Kind)>,
    /// Names lately made or changed.
    hot: VecDeque<Bytes>,
    /// Names lately deleted or renamed away.
    gone: VecDeque<Bytes>,
}

const MEMORY: usize = 14;

impl Model {
    pub fn relearn(&mut self, tree: &Tree) {
        self.live = tree
            .iter()
            .filter(|entry| !entry.path.0.is_empty())
            .filter_map(|entry| {
                entry
                    .stat
                    .as_ref()
                    .ok()
                    .map(|st| (entry.path.clone(), Kind::of(st.mode)))
            })
            .collect();
    }

    fn note(list: &mut VecDeque<Bytes>, path: &Bytes) {
        list.retain(|p| p != path);
        list.push_front(path.clone());
        list.truncate(MEMORY);
    }

    pub fn heat(&mut self, path: &Bytes) {
        Self::note(&mut self.hot, path);
    }

    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Made(path, kind) => self.add(path, *kind),
            Effect::Linked(from, to) => {
                let kind = self.kind(from).unwrap_or(Kind::File);
                self.add(to, kind);
            }
            Effect::Gone(path) => self.remove(path),
            Effect::Moved(from, to) => {
                let moved = self.take(from);
                self.remove(to);
                self.put(to, moved);
                Self::note(&mut self.gone, from);
                Self::note(&mut self.hot, to);
            }
            Effect::Exchanged(a, b) => {
                let (one, other) = (self.take(a), self.take(b));
                self.put(b, one);
                self.put(a, other);
                Self::note(&mut self.hot, a);
                Self::note(&mut self.hot, b);
            }
            Effect::Opened { .. } | Effect::Closed { .. } | Effect::Went(_) => {}
        }
    }

    fn add(&mut self, path: &Bytes, kind: Kind) {
        if !self.live.iter().any(|(p, _)| p == path) {
            self.live.push((path.clone(), kind));
        }
        self.gone.retain(|p| p != path);
        Self::note(&mut self.hot, path);
    }

    fn remove(&mut self, path: &Bytes) {
        if !self.take(path).is_empty() {
            Self::note(&mut self.gone, path);
        }
        self.hot.retain(|p| p != path);
    }

    /// Takes a name and all below it out; the rests of the paths are returned.
    fn take(&mut self, path: &Bytes) -> Vec<(Bytes, Kind)> {
        let mut taken = Vec::new();
        self.live.retain(|(p, kind)| match below(path, p) {
            Some(rest) => {
                taken.push((Bytes::from(rest), *kind));
                false
            }
            None => true,
        });
        taken
    }

    fn put(&mut self, path: &Bytes, taken: Vec<(Bytes, Kind)>) {
        for (rest, kind) in taken {
            let full = if rest.0.is_empty() {
                path.clone()
            } else {
                path.join(&rest.0)
            };
            self.live.push((full, kind));
        }
    }

    pub fn kind(&self, path: &Bytes) -> Option<Kind> {
        if path.0.is_empty() {
            return Some(Kind::Dir);
        }
        self.live.iter().find(|(p, _)| p == path).map(|(_, kind)| *kind)
    }

    /// Some existing name of that kind (any, if none is asked for), more often a hot one.
    pub fn existing(&self, rng: &mut Rng, kind: Option<Kind>) -> Option<Bytes> {
        let fits = |path: &Bytes| kind.is_none() || self.kind(path) == kind;
        if rng.chance(55) {
            let hot: Vec<&Bytes> = self
                .hot
                .iter()
                .filter(|p| self.kind(p).is_some() && fits(p))
                .collect();
            if !hot.is_empty() {
                return rng.one_of(&hot).map(|path| (*path).clone());
            }
        }
        // A big directory must not take all the attention.
        for _ in 0..20 {
            let Some((path, found)) = rng.one_of(&self.live) else {
                break;
            };
            let dull = path.0.starts_with(b"many/") || path.0.starts_with(b"odd/level0/");
            if kind.is_none_or(|k| k == *found) && (!dull || rng.chance(8)) {
                return Some(path.clone());
            }
        }
        None
    }

    pub fn gone(&self, rng: &mut Rng) -> Option<Bytes> {
        let gone: Vec<&Bytes> = self.gone.iter().collect();
        rng.one_of(&gone).map(|path| (*path).clone())
    }
}

fn below<'a>(top: &Bytes, path: &'a Bytes) -> Option<&'a [u8]> {
    let rest = path.0.strip_prefix(top.0.as_slice())?;
    match rest {
        [] => Some(rest),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}
