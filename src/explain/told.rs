//! What a change would do: the plans of the overlay in words.

use std::collections::HashSet;
use std::sync::Arc;

use super::data::{After, Answer, Change, Copy, Operation};
use super::layers::ExplainError;
use super::rules::{Rule, rules};
use super::walk::{End, Walk, errno_name};
use crate::mount::JsonPath;
use crate::overlay::merge::{CreatePlan, RemovePlan, RenamePlan};
use crate::overlay::{Call, Deed, Foresight, Node};
use crate::sys::Errno;

/// What a layer decides, or an errno that a caller gets.
type Foreseen = Result<Foresight, Errno>;

const CHANGES: [(Change, Call); 5] = [
    (Change::OpenForWriting, Call::Open),
    (Change::Unlink, Call::Unlink),
    (Change::Rename, Call::Rename),
    (Change::Rmdir, Call::Rmdir),
    (Change::Chmod, Call::Chmod),
];

impl Walk<'_> {
    /// What changes would do at the end of the walk.
    pub(super) fn operations(&self, end: &End) -> Result<Vec<Operation>, ExplainError> {
        match end {
            End::Early => Ok(Vec::new()),
            End::Name(parent, name) => {
                let foreseen = self.foresee(parent, name, Call::Create)?;
                Ok(vec![self.operation(Change::Create, foreseen, &[name])])
            }
            End::Object => {
                let each = CHANGES.iter().map(|(change, call)| {
                    let foreseen = match (self.parent(), self.trail.last()) {
                        (Some(parent), Some((node, name))) => {
                            if node.kind == libc::S_IFLNK && matches!(call, Call::Open | Call::Chmod) {
                                return Ok(self.follows(*change));
                            }
                            self.foresee(&parent, name, *call)?
                        }
                        _ => self.foresee_root(*call)?,
                    };
                    Ok(self.operation(*change, foreseen, &[]))
                });
                each.collect()
            }
        }
    }

    /// The directory that holds the last name; `None` for the root.
    fn parent(&self) -> Option<Arc<Node>> {
        let above = self.trail.len().checked_sub(2)?;
        self.trail.get(above).map(|(node, _)| Arc::clone(node))
    }

    fn foresee(&self, parent: &Arc<Node>, name: &[u8], call: Call) -> Result<Foreseen, ExplainError> {
        let foreseen = self.layers.overlay.foresee(parent, name, call);
        match foreseen {
            // What a call would be answered, and not a failure to find out.
            Err(
                Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::XDEV | Errno::BUSY | Errno::EXIST,
            ) if !self.layers.read_only => Ok(foreseen),
            Err(Errno::ISDIR) if call == Call::Open => Ok(foreseen),
            Ok(Foresight {
                deed: Deed::Nothing, ..
            }) => Ok(foreseen),
            // The kernel refuses before it asks anything else.
            _ if self.layers.read_only => Ok(Err(Errno::ROFS)),
            Err(errno) => Err(ExplainError::Look {
                path: self.path(&[name]),
                errno,
            }),
            Ok(_) => Ok(foreseen),
        }
    }

    fn foresee_root(&self, call: Call) -> Result<Foreseen, ExplainError> {
        Ok(match call {
            Call::Open => Err(Errno::ISDIR),
            _ if self.layers.read_only => Err(Errno::ROFS),
            Call::Unlink => Err(Errno::ISDIR),
            Call::Rmdir | Call::Rename => Err(Errno::BUSY),
            Call::Create => Err(Errno::EXIST),
            Call::Chmod => self.layers.overlay.foresee_root(),
        })
    }

    /// A symlink is not opened itself.
    fn follows(&self, change: Change) -> Operation {
        let file = self
            .steps
            .last()
            .and_then(|step| step.upper.as_ref().or(step.lower.as_ref()));
        let target = file.and_then(|file| file.target.as_ref()).map(JsonPath::path);
        let target = target.unwrap_or_default();
        Operation {
            change,
            errno: None,
            plan: vec![format!(
                "follows the symlink to {}, ask about that",
                target.display()
            )],
            copies: Vec::new(),
            upper_after: After::Unchanged,
            target_after: None,
            rules: rules(&[61]),
        }
    }

    /// `more` is the name that does not show, of [`Change::Create`].
    fn operation(&self, change: Change, foreseen: Foreseen, more: &[&[u8]]) -> Operation {
        let foresight = match foreseen {
            Ok(foresight) => foresight,
            Err(errno) => {
                let (why, rules) = self.refusal(change, errno);
                return Operation {
                    change,
                    errno: Some(errno_name(errno)),
                    plan: vec![why],
                    copies: Vec::new(),
                    upper_after: After::Unchanged,
                    target_after: None,
                    rules,
                };
            }
        };
        let copies = self.copies(foresight, more);
        let mut plan = Vec::new();
        let mut rules = Vec::new();
        if foresight.ancestors > 0 {
            let above = copies.iter().take(foresight.ancestors);
            let names: Vec<_> = above.map(|copy| copy.path.path().display().to_string()).collect();
            plan.push(format!("copied up first: {}", names.join(", ")));
            rules.extend(self::rules(&[62]));
        }
        if foresight.object {
            self.copy_words(copies.last(), &mut plan, &mut rules);
        }
        let (words, more_rules) = self.deed_words(change, foresight);
        plan.extend(words);
        rules.extend(more_rules);
        let mut seen = HashSet::new();
        rules.retain(|rule| seen.insert(rule.number.clone()));
        let (upper_after, target_after) = self.after(foresight);
        Operation {
            change,
            errno: None,
            plan,
            copies,
            upper_after,
            target_after,
            rules,
        }
    }

    fn copies(&self, foresight: Foresight, more: &[&[u8]]) -> Vec<Copy> {
        let names: Vec<&[u8]> = self
            .trail
            .iter()
            .skip(1)
            .map(|(_, name)| name.as_slice())
            .collect();
        let path = |len: usize| {
            let mut path = std::path::PathBuf::from("/");
            path.extend(names.iter().take(len).map(|name| {
                use std::os::unix::ffi::OsStrExt;
                std::ffi::OsStr::from_bytes(name)
            }));
            JsonPath::from(path.as_path())
        };
        // Of a name that does not show the trail ends at its directory.
        let directories = names.len().saturating_sub(usize::from(more.is_empty()));
        let first = directories.saturating_add(1).saturating_sub(foresight.ancestors);
        let above = (first..=directories).map(|len| Copy {
            path: path(len),
            bytes: 0,
        });
        let file = self.steps.last().and_then(|step| step.lower.as_ref());
        let bytes = file
            .filter(|file| file.kind == "file")
            .map_or(0, |file| file.size.min(file.allocated));
        let own = foresight.object.then(|| Copy {
            path: path(names.len()),
            bytes,
        });
        above.chain(own).collect()
    }

    fn copy_words(&self, copy: Option<&Copy>, plan: &mut Vec<String>, rules: &mut Vec<Rule>) {
        let Some(file) = self.steps.last().and_then(|step| step.lower.as_ref()) else {
            return;
        };
        let data = match (file.kind.as_str(), copy.map_or(0, |copy| copy.bytes)) {
            ("file", bytes) if bytes < file.size => {
                format!(
                    ": at most {bytes} bytes of data, holes for the rest of {}",
                    file.size
                )
            }
            ("file", bytes) => format!(": at most {bytes} bytes of data"),
            _ => String::new(),
        };
        plan.push(format!("copied up whole, in the work directory{data}"));
        plan.push("put under its name in the upper in one step".to_owned());
        rules.extend(self::rules(&[60, 63]));
        if file.kind == "file" {
            rules.extend(self::rules(&[64]));
        }
        if file.kind != "directory" && file.links > 1 {
            plan.push(format!(
                "this name alone: the lower's file has {} names, and the others keep the old content",
                file.links
            ));
            rules.extend(self::rules(&[71]));
        }
    }

    fn deed_words(&self, change: Change, foresight: Foresight) -> (Vec<String>, Vec<Rule>) {
        let is_dir = self.trail.last().is_some_and(|(node, _)| node.is_dir());
        match foresight.deed {
            Deed::Nothing => {
                let words = "opened by the kernel itself; nothing is copied up".to_owned();
                (vec![words], rules(&[61]))
            }
            Deed::InPlace => {
                let words = match (change, foresight.object) {
                    (Change::OpenForWriting, true) => {
                        "who has it open already reads the copy from then on; writes go to it"
                    }
                    (Change::OpenForWriting, false) => "written in place, in the upper",
                    (_, true) => "the mode of the copy is changed",
                    (_, false) => "the mode is changed in place, in the upper",
                };
                let rules = match change {
                    Change::OpenForWriting if foresight.object => rules(&[110]),
                    Change::OpenForWriting => rules(&[60]),
                    // Also when the mode is the same.
                    _ => rules(&[60]),
                };
                (vec![words.to_owned()], rules)
            }
            Deed::Remove(plan) => {
                let rules = if is_dir { rules(&[85]) } else { rules(&[84]) };
                (vec![plan.words().to_owned()], rules)
            }
            Deed::Rename { plan, opaque } => {
                let mut words = Vec::new();
                let mut cited = rules(&[90, 91]);
                if opaque {
                    words.push(
                        "marked opaque first, so that nothing of the lower shows under the new name"
                            .to_owned(),
                    );
                    cited.extend(rules(&[93]));
                }
                words.push(plan.words().to_owned());
                (words, cited)
            }
            Deed::Create(plan) => {
                let mut words = vec![format!("made {}", plan.words())];
                let rules = match plan {
                    CreatePlan::InUpper => rules(&[80, 82]),
                    CreatePlan::InWork => {
                        words.push(
                            "it takes the whiteout's place in one step; a directory is opaque from the start"
                                .to_owned(),
                        );
                        rules(&[80, 81])
                    }
                };
                (words, rules)
            }
        }
    }

    fn after(&self, foresight: Foresight) -> (After, Option<After>) {
        let last = self.steps.last();
        let opaque_already = last.and_then(|step| step.upper.as_ref()).is_some_and(|file| {
            file.kind == "directory"
                && file
                    .marks
                    .iter()
                    .any(|mark| mark.name.ends_with(".opaque") && mark.value == "y")
        });
        match foresight.deed {
            Deed::Nothing => (After::Unchanged, None),
            Deed::InPlace if foresight.object => (After::Object, None),
            Deed::InPlace => (After::Unchanged, None),
            Deed::Remove(RemovePlan::Unlink) => (After::Nothing, None),
            Deed::Remove(RemovePlan::Whiteout | RemovePlan::Replace) => (After::Whiteout, None),
            Deed::Rename { plan, opaque } => {
                let old = match plan {
                    RenamePlan::Plain | RenamePlan::SwapAndClear => After::Nothing,
                    RenamePlan::LeaveWhiteout | RenamePlan::SwapWithWhiteout => After::Whiteout,
                    RenamePlan::Exchange => After::Object,
                };
                let new = if opaque || opaque_already {
                    After::OpaqueDirectory
                } else {
                    After::Object
                };
                (old, Some(new))
            }
            Deed::Create(_) => (After::Object, None),
        }
    }

    fn refusal(&self, change: Change, errno: Errno) -> (String, Vec<Rule>) {
        let root = self.trail.len() == 1 && change != Change::Create;
        let answer = self.steps.last().map(|step| step.answer);
        let (words, rules) = match (errno, change) {
            (Errno::ROFS, _) => ("the view is read-only", rules(&[13])),
            (Errno::ISDIR, Change::OpenForWriting) => ("a directory is not opened for writing", rules(&[61])),
            (Errno::ISDIR, _) => ("it is a directory: rmdir", rules(&[84])),
            (Errno::NOTDIR, _) => ("it is no directory: unlink", rules(&[85])),
            (Errno::NOTEMPTY, _) => ("the view shows names in it", rules(&[85])),
            (Errno::XDEV, _) if answer == Some(Answer::Merged) => (
                "it has a part in the lower, which would not come along; nothing is copied up, and mv copies it",
                rules(&[94]),
            ),
            (Errno::XDEV, _) => (
                "a directory of the lower, whose content would not come along; nothing is copied up, and mv copies it",
                rules(&[94]),
            ),
            (Errno::BUSY, _) if root => ("the root of the view", rules(&[85])),
            (Errno::BUSY, _) => ("something is mounted on it in the lower", rules(&[28])),
            _ => ("it is there already", rules(&[80])),
        };
        (words.to_owned(), rules)
    }
}
