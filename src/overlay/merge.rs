//! The rules as pure decisions: what was found in the layers goes in, what to show or to do comes out.
//!
//! Nothing in this file makes a system call.

use smallvec::SmallVec;

use crate::format::Marks;
use crate::sys::stat::Stat;
use crate::sys::{Errno, Result};

/// What the upper holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InUpper {
    /// Nothing.
    Absent,
    /// A whiteout of either form.
    Whiteout,
    /// An object with its private marks.
    Object(Box<Stat>, Marks),
}

/// What a lower holds under a name, or all of them together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InLower {
    /// Nothing, or not asked because another layer decides alone.
    Absent,
    /// A whiteout of either form (K32): nothing to see, and it hides what the lowers below have (K36).
    Whiteout,
    /// An object. Of a directory of the lowest lower the marks are not read, they have no effect there (K24).
    Object(Box<Stat>, Marks),
    /// A directory on which something is mounted (K28). What it covers cannot be looked at, and so hides what the
    /// lowers below have.
    Covered(Box<Stat>),
}

impl InLower {
    /// True if something would show, were it not for the upper.
    pub fn shows(&self) -> bool {
        matches!(self, Self::Object(..) | Self::Covered(_))
    }
}

/// What the lowers hold under one name, asked from the topmost down (K36).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// What shows of them: the topmost that has anything.
    pub found: InLower,
    /// Which one that is.
    pub first: u16,
    /// The lowers whose directories are merged with it, topmost first.
    pub further: SmallVec<[u16; 8]>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            found: InLower::Absent,
            first: 0,
            further: SmallVec::new(),
        }
    }
}

impl Gathered {
    /// Takes what the next lower has. Answers whether those below it have to be asked, too.
    ///
    /// # Errors
    /// EPERM for a directory that takes its content from elsewhere (K26).
    pub fn take(&mut self, layer: u16, next: InLower) -> Result<bool> {
        let goes_on = match &next {
            InLower::Absent => return Ok(true),
            InLower::Object(stat, marks) if stat.is_dir() => {
                if marks.redirect {
                    return Err(Errno::PERM);
                }
                !marks.opaque
            }
            InLower::Whiteout | InLower::Object(..) | InLower::Covered(_) => false,
        };
        if self.found == InLower::Absent {
            self.first = layer;
            self.found = next;
            return Ok(goes_on);
        }
        // What is found is a directory. Anything else below it is hidden, with all that lies below that.
        if matches!(&next, InLower::Object(stat, _) if stat.is_dir()) {
            self.further.push(layer);
        }
        Ok(goes_on)
    }
}

/// Where the answer for a name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The upper object alone.
    Upper,
    /// The lower object alone.
    Lower,
    /// A directory in both layers.
    Merged,
}

impl Source {
    /// The decision in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Upper => "from the upper, which hides whatever the lower has",
            Self::Lower => "from the lower, the upper has nothing under this name",
            Self::Merged => "a directory in both layers: merged, attributes from the upper",
        }
    }
}

/// Why a name shows nothing, in words.
pub fn nothing_words(upper: &InUpper, lower: &InLower) -> &'static str {
    match (upper, lower) {
        (InUpper::Whiteout, _) => "a whiteout in the upper",
        (_, InLower::Whiteout) => "a whiteout in a lower",
        _ => "neither layer has it",
    }
}

/// Whether the lower has to be asked at all (K20, K21, K24).
pub fn upper_decides(upper: &InUpper) -> bool {
    match upper {
        InUpper::Absent => false,
        InUpper::Whiteout => true,
        InUpper::Object(stat, marks) => !stat.is_dir() || marks.opaque,
    }
}

/// What a name shows (K20 to K27, K30 to K32); `None` is ENOENT.
///
/// # Errors
/// EPERM for marks of features that are not supported: their data would be wrong (K26, K27).
pub fn view(upper: &InUpper, lower: &InLower) -> Result<Option<Source>> {
    let lower_is_dir = match lower {
        InLower::Absent | InLower::Whiteout => None,
        InLower::Object(stat, _) => Some(stat.is_dir()),
        InLower::Covered(_) => Some(true),
    };
    Ok(match upper {
        InUpper::Absent => match lower {
            InLower::Object(stat, marks) if stat.is_file() && marks.metacopy => return Err(Errno::PERM),
            _ => lower_is_dir.map(|_| Source::Lower),
        },
        InUpper::Whiteout => None,
        InUpper::Object(stat, marks) => {
            if stat.is_dir() && marks.redirect || stat.is_file() && (marks.metacopy || marks.redirect) {
                return Err(Errno::PERM);
            }
            if stat.is_dir() && !marks.opaque && lower_is_dir == Some(true) {
                Some(Source::Merged)
            } else {
                Some(Source::Upper)
            }
        }
    })
}

/// Why a directory is not moved, in words.
pub const KEEPS_ITS_PLACE: &str =
    "a directory with a part in the lower, which would not come along: nothing is copied up";

/// Which call, or calls, carry out a rename (K91).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenamePlan {
    /// A plain rename.
    Plain,
    /// A rename that leaves a whiteout at the old name.
    LeaveWhiteout,
    /// The whiteout at the target changes places with the source: it ends at the old name.
    SwapWithWhiteout,
    /// As before, and the whiteout at the old name, where nothing needs hiding, is removed.
    SwapAndClear,
    /// Both names change places.
    Exchange,
}

impl RenamePlan {
    /// The plan in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plain => "a plain rename in the upper, the lower has nothing under the old name",
            Self::LeaveWhiteout => "rename in the upper; a whiteout at the old name hides the lower's",
            Self::SwapWithWhiteout => {
                "exchanged with the whiteout at the new name, which now hides the old one"
            }
            Self::SwapAndClear => "exchanged with the whiteout at the new name, which is then removed",
            Self::Exchange => "both names change places in the upper",
        }
    }
}

/// What matters about the two names of a rename.
#[derive(Debug, Clone, Copy)]
pub struct RenameCase {
    /// The caller asked for `RENAME_EXCHANGE`.
    pub exchange: bool,
    /// The source is a directory.
    pub directory: bool,
    /// The lower has the source's name under its parent (K90).
    pub source_in_lower: bool,
    /// The upper has a whiteout under the target's name.
    pub target_is_whiteout: bool,
}

/// Chooses the primitive (section 7 of the rules).
pub fn plan_rename(case: RenameCase) -> RenamePlan {
    match case {
        RenameCase { exchange: true, .. } => RenamePlan::Exchange,
        RenameCase {
            target_is_whiteout: true,
            source_in_lower: true,
            ..
        } => RenamePlan::SwapWithWhiteout,
        RenameCase {
            target_is_whiteout: true,
            directory: true,
            ..
        } => RenamePlan::SwapAndClear,
        RenameCase {
            source_in_lower: true,
            ..
        } => RenamePlan::LeaveWhiteout,
        _ => RenamePlan::Plain,
    }
}

/// How a name is taken away (K84, K85).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovePlan {
    /// The upper object goes, nothing lies below it.
    Unlink,
    /// A whiteout appears where the upper had nothing.
    Whiteout,
    /// A whiteout takes the upper object's place in one step.
    Replace,
}

impl RemovePlan {
    /// The plan in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unlink => "removed from the upper, the lower has nothing under this name",
            Self::Whiteout => "a whiteout in the upper hides the lower's",
            Self::Replace => "a whiteout takes the place of the upper's object, and hides the lower's too",
        }
    }
}

/// Chooses how a name is taken away.
pub fn plan_remove(in_upper: bool, in_lower: bool) -> RemovePlan {
    match (in_upper, in_lower) {
        (true, true) => RemovePlan::Replace,
        (true, false) => RemovePlan::Unlink,
        (false, _) => RemovePlan::Whiteout,
    }
}

/// Whether an object keeps its place: a directory with a part in the lower cannot be moved, its content would not come
/// along (K94).
pub fn keeps_its_place(directory: bool, lower_takes_part: bool) -> bool {
    directory && lower_takes_part
}

/// Where a new object is made (K81).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatePlan {
    /// Under its name at once.
    InUpper,
    /// Whole in the work directory, then moved to its name.
    InWork,
}

impl CreatePlan {
    /// The plan in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::InUpper => "in the upper",
            Self::InWork => "complete in the work directory, then moved to its name",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat::Time;

    fn object(kind: u32) -> Box<Stat> {
        let t = Time::default();
        Box::new(Stat {
            ino: 5,
            dev: 1,
            mode: kind | 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: t,
            mtime: t,
            ctime: t,
            mount_root: false,
        })
    }

    const DIR: u32 = libc::S_IFDIR;
    const FILE: u32 = libc::S_IFREG;

    fn upper(kind: u32, marks: Marks) -> InUpper {
        InUpper::Object(object(kind), marks)
    }

    /// What is gathered of these answers, and how many were asked for.
    fn gather(answers: Vec<InLower>) -> Result<(Gathered, usize)> {
        let mut gathered = Gathered::default();
        let mut asked = 0;
        for (layer, answer) in answers.into_iter().enumerate() {
            asked += 1;
            if !gathered.take(layer as u16, answer)? {
                break;
            }
        }
        Ok((gathered, asked))
    }

    #[test]
    fn k36_lowers_are_asked_from_the_top() {
        let plain = Marks::default();
        let opaque = Marks {
            opaque: true,
            ..plain
        };
        let dir = |marks| InLower::Object(object(DIR), marks);
        let file = || InLower::Object(object(FILE), plain);
        let absent = || InLower::Absent;
        let white = || InLower::Whiteout;
        let covered = || InLower::Covered(object(DIR));
        // Answers; which shows first, which are merged with it, how many were asked.
        type Row = (Vec<InLower>, Option<(u16, Vec<u16>)>, usize);
        let rows: Vec<Row> = vec![
            (vec![absent(), absent()], None, 2),
            (vec![absent(), file(), file()], Some((1, vec![])), 2),
            (vec![white(), file()], None, 1),
            (vec![absent(), white(), dir(plain)], None, 2),
            (vec![file(), dir(plain)], Some((0, vec![])), 1),
            (vec![dir(plain), absent(), dir(plain)], Some((0, vec![2])), 3),
            (vec![dir(plain), dir(opaque), dir(plain)], Some((0, vec![1])), 2),
            (vec![dir(opaque), dir(plain)], Some((0, vec![])), 1),
            (vec![dir(plain), file(), dir(plain)], Some((0, vec![])), 2),
            (vec![dir(plain), white(), dir(plain)], Some((0, vec![])), 2),
            (vec![dir(plain), covered(), dir(plain)], Some((0, vec![])), 2),
            (vec![covered(), dir(plain)], Some((0, vec![])), 1),
        ];
        for (row, (answers, shows, asked)) in rows.into_iter().enumerate() {
            let (gathered, counted) = gather(answers).unwrap();
            let found = gathered.found.shows();
            let parts = found.then(|| (gathered.first, gathered.further.to_vec()));
            assert_eq!((parts, counted), (shows, asked), "row {row}");
        }
        let redirect = Marks {
            redirect: true,
            ..plain
        };
        assert_eq!(gather(vec![dir(plain), dir(redirect)]), Err(Errno::PERM));
    }

    #[test]
    fn k20_k22_the_upper_is_asked_first() {
        let lower_dir = InLower::Object(object(DIR), Marks::default());
        let lower_file = InLower::Object(object(FILE), Marks::default());
        let plain = Marks::default();
        assert_eq!(view(&InUpper::Whiteout, &lower_dir), Ok(None));
        assert_eq!(view(&upper(FILE, plain), &lower_dir), Ok(Some(Source::Upper)));
        assert_eq!(view(&upper(DIR, plain), &lower_dir), Ok(Some(Source::Merged)));
        assert_eq!(view(&upper(DIR, plain), &lower_file), Ok(Some(Source::Upper)));
        assert_eq!(view(&InUpper::Absent, &lower_file), Ok(Some(Source::Lower)));
        assert_eq!(view(&InUpper::Absent, &InLower::Absent), Ok(None));
    }

    #[test]
    fn k21_opaque_hides_the_lower() {
        let opaque = Marks {
            opaque: true,
            ..Marks::default()
        };
        let found = upper(DIR, opaque);
        assert!(upper_decides(&found));
        assert_eq!(
            view(&found, &InLower::Object(object(DIR), Marks::default())),
            Ok(Some(Source::Upper))
        );
    }

    #[test]
    fn k26_k27_unknown_features_are_refused() {
        let redirect = Marks {
            redirect: true,
            ..Marks::default()
        };
        let metacopy = Marks {
            metacopy: true,
            ..Marks::default()
        };
        assert_eq!(view(&upper(DIR, redirect), &InLower::Absent), Err(Errno::PERM));
        assert_eq!(view(&upper(FILE, metacopy), &InLower::Absent), Err(Errno::PERM));
        let below = InLower::Object(object(FILE), metacopy);
        assert_eq!(view(&InUpper::Absent, &below), Err(Errno::PERM));
        assert_eq!(view(&InUpper::Whiteout, &below), Ok(None));
    }

    #[test]
    fn k91_the_primitives_of_rename() {
        let case = |directory, source_in_lower, target_is_whiteout| {
            plan_rename(RenameCase {
                exchange: false,
                directory,
                source_in_lower,
                target_is_whiteout,
            })
        };
        assert_eq!(case(false, false, false), RenamePlan::Plain);
        assert_eq!(case(false, false, true), RenamePlan::Plain);
        assert_eq!(case(false, true, false), RenamePlan::LeaveWhiteout);
        assert_eq!(case(false, true, true), RenamePlan::SwapWithWhiteout);
        assert_eq!(case(true, false, false), RenamePlan::Plain);
        assert_eq!(case(true, false, true), RenamePlan::SwapAndClear);
        assert_eq!(case(true, true, true), RenamePlan::SwapWithWhiteout);
    }

    #[test]
    fn k84_a_whiteout_only_where_something_would_show() {
        assert_eq!(plan_remove(true, false), RemovePlan::Unlink);
        assert_eq!(plan_remove(true, true), RemovePlan::Replace);
        assert_eq!(plan_remove(false, true), RemovePlan::Whiteout);
    }
}
