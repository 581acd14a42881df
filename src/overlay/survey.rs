//! Looking at a name for those who want to know why it shows what it shows.
//!
//! What shows is asked of the very code that answers lookups; the rest is what it was decided by.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Overlay;
use super::dirs::Layer;
use super::merge::{InLower, InUpper, Source};
use super::node::Node;
use crate::format::marks;
use crate::sys::stat::{self, Stat, Time};
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, Result, at};

/// What is under a name in the layers, and what shows.
#[derive(Debug)]
pub struct Survey {
    /// The parent has an upper directory, so the upper is asked.
    pub upper_asked: bool,
    /// What the upper has.
    pub upper: InUpper,
    /// The parent has a lower directory that takes part, so the lowers may be asked.
    pub lower_asked: bool,
    /// What the lowers have there together, also where the upper hides it.
    pub lower: InLower,
    /// The lowers that `lower` is made of, the topmost (0) first; of a whiteout, the one that has it.
    pub parts: Vec<u16>,
    /// What shows, or the errno of a lookup.
    pub answer: Result<Source>,
}

/// A real object of a layer.
#[derive(Debug)]
pub struct Real {
    /// Its attributes on its own file system; of a lower file, with the names it has in the lower's own tree.
    pub stat: Stat,
    /// When the inode was made, where the file system tells. Of a copy that is when it was copied up.
    pub birth: Option<Time>,
    /// The private marks: whole names and values.
    pub marks: Vec<(Vec<u8>, Vec<u8>)>,
    /// The lower's inode number that an origin mark names.
    pub origin: Option<u64>,
    /// The text of a symlink.
    pub target: Option<Vec<u8>>,
}

/// The answer of an object that is not there is no error.
fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NAMETOOLONG | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

impl Overlay {
    /// Looks at a name in all layers, also where one decides alone.
    ///
    /// # Errors
    /// When a layer cannot be asked, as statx(2) and the xattr calls. That nothing shows is an answer.
    pub fn survey(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Survey> {
        let answer = self.look(parent, name).map(|found| found.source);
        let mut survey = Survey {
            upper_asked: parent.upper().is_some(),
            upper: InUpper::Absent,
            lower_asked: parent.has_lower_dir(),
            lower: InLower::Absent,
            parts: Vec::new(),
            answer,
        };
        if survey.upper_asked {
            match self.look_upper(&*self.dirs.get(parent, Layer::Upper)?, name) {
                // A mount inside the upper is the answer already.
                Err(Errno::REMOTE) => {}
                upper => survey.upper = upper?,
            }
        }
        if let Some(parts) = parent.parts() {
            match self.look_lowers(parent, &parts, name, 0) {
                // The upper or the work directory seen through a lower, or a directory of a lower that takes its
                // content from elsewhere: the answer says so already.
                Err(Errno::LOOP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
                Ok(gathered) => {
                    if gathered.found != InLower::Absent {
                        survey.parts.push(gathered.first);
                        survey.parts.extend(&gathered.further);
                    }
                    survey.lower = gathered.found;
                }
            }
        }
        Ok(survey)
    }

    /// How many lowers the view has.
    pub fn lowers(&self) -> usize {
        self.lowers.count()
    }

    /// The real object under a name in one layer, a whiteout too; `None` if there is none.
    ///
    /// # Errors
    /// As statx(2) and the xattr calls.
    pub fn real(&self, layer: Layer, parent: &Arc<Node>, name: &[u8]) -> Result<Option<Real>> {
        let takes_part = match layer {
            Layer::Upper => parent.upper().is_some(),
            Layer::Lower(layer) => parent
                .parts()
                .is_some_and(|parts| parts.iter().any(|part| part == layer)),
        };
        if !takes_part {
            return Ok(None);
        }
        let dir = self.dirs.get(parent, layer)?;
        let Some(stat) = found(stat::stat_at_cached(&dir, name))? else {
            return Ok(None);
        };
        // What lies under a mount point cannot be reached, only what covers it.
        let reached = !stat.mount_root;
        let birth = match found(at::open_path(&dir, name))? {
            Some(fd) if reached => stat::birth_time(fd)?,
            _ => None,
        };
        let target = if stat.kind() == libc::S_IFLNK {
            found(at::readlink_at(&dir, name))?
        } else {
            None
        };
        let marks = if reached {
            self.private_marks(Target::At(dir.as_fd(), name))?
        } else {
            Vec::new()
        };
        Ok(Some(self.real_of(layer, stat, birth, marks, target)))
    }

    /// The real root of one layer; `None` for the upper of a view without one.
    ///
    /// # Errors
    /// As statx(2) and the xattr calls.
    pub fn real_root(&self, layer: Layer) -> Result<Option<Real>> {
        let root = self.node(super::ROOT)?;
        if layer == Layer::Upper && root.upper().is_none() {
            return Ok(None);
        }
        let dir = self.dirs.get(&root, layer)?;
        let stat = stat::stat_fd(&dir)?;
        let marks = self.private_marks(xattr::of(&dir))?;
        let birth = stat::birth_time(&dir)?;
        Ok(Some(self.real_of(layer, stat, birth, marks, None)))
    }

    fn real_of(
        &self,
        layer: Layer,
        stat: Stat,
        birth: Option<Time>,
        marks: Vec<(Vec<u8>, Vec<u8>)>,
        target: Option<Vec<u8>>,
    ) -> Real {
        let name = [self.marks.prefix(), b"origin"].concat();
        let mark = marks.iter().find(|(mark, _)| *mark == name);
        let origin = mark.and_then(|(_, value)| self.lowers.origin(value));
        let stat = match layer {
            Layer::Lower(_) => self.lowers.within(stat),
            Layer::Upper => stat,
        };
        Real {
            stat,
            birth,
            marks,
            origin: origin.map(|(_, ino)| ino),
            target,
        }
    }

    fn private_marks(&self, target: Target<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut marks = Vec::new();
        for name in xattr::names(&xattr::list(target)?) {
            if marks::to_view(self.private(), name).is_some() {
                continue;
            }
            match xattr::get(target, name) {
                Ok(value) => marks.push((name.to_vec(), value)),
                // Removed meanwhile.
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        marks.sort();
        Ok(marks)
    }
}
