//! From a difference to steps.
//!
//! Three sorts are enough. A name of the lower *goes*; an object *comes* to a name, in place of what is there or where
//! nothing is; a directory of both layers is given its new *attributes*. A directory that comes brings all that is
//! below it, so what is told below it is made with it.

use crate::builder::diff::{Change, Difference, Letter};
use crate::builder::{Kind, TreePath};

/// What is to be done, in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) moves: Vec<Move>,
    /// Directories of both layers whose attributes change.
    pub(super) attributes: Vec<TreePath>,
    /// Directories of both layers in or below which something changes, the root among them.
    pub(super) touched: Vec<TreePath>,
    /// What was asked for is all there is.
    pub(super) whole: bool,
}

/// A name of the lower that changes.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) path: TreePath,
    /// The name goes, and nothing comes.
    pub(super) goes: bool,
    /// What comes: the object itself, then all that is below it.
    pub(super) brings: Vec<(TreePath, Kind)>,
    /// Not all that is below it in the upper is wanted.
    pub(super) partial: bool,
}

/// Makes the plan for those of the `changes` that are at or below one of `wanted`; all of them if that is empty.
pub(super) fn plan(changes: &[Change], wanted: &[TreePath]) -> Plan {
    let mut plan = Plan {
        whole: true,
        ..Plan::default()
    };
    for change in changes {
        if !is_wanted(change, wanted) {
            plan.whole &= is_way(change);
            if let Some(last) = plan.moves.last_mut() {
                last.partial |= is_below(&change.path, &last.path);
            }
            continue;
        }
        let comes = change.letter != Letter::Deleted;
        if let Some(above) = plan.moves.last_mut().filter(|last| !last.goes)
            && comes
            && is_below(&change.path, &above.path)
        {
            above.brings.push((change.path.clone(), change.kind));
            continue;
        }
        let stays = change.kind == Kind::Directory
            && change.letter == Letter::Changed
            && !change.differences.contains(&Difference::Kind);
        if !stays {
            plan.moves.push(Move {
                path: change.path.clone(),
                goes: !comes,
                brings: comes
                    .then(|| (change.path.clone(), change.kind))
                    .into_iter()
                    .collect(),
                partial: false,
            });
        } else if !change.differences.is_empty() {
            plan.attributes.push(change.path.clone());
        }
    }
    plan.touch();
    plan
}

/// Those of the `changes` that an apply of the `wanted` paths would make; all of them if that is empty.
pub fn chosen(changes: &[Change], wanted: &[TreePath]) -> Vec<Change> {
    changes
        .iter()
        .filter(|change| is_wanted(change, wanted))
        .cloned()
        .collect()
}

/// A directory that is told only because of what is below it.
fn is_way(change: &Change) -> bool {
    change.letter == Letter::Changed && change.kind == Kind::Directory && change.differences.is_empty()
}

/// True for a path below `above`, or `above` itself.
pub(super) fn is_below(path: &TreePath, above: &TreePath) -> bool {
    let mut names = path.names();
    above.names().all(|name| names.next() == Some(name))
}

fn is_wanted(change: &Change, wanted: &[TreePath]) -> bool {
    if wanted.is_empty() || wanted.iter().any(|path| is_below(&change.path, path)) {
        return true;
    }
    // What is wanted lies in a directory that is new itself.
    let comes = change.letter == Letter::Added || change.differences.contains(&Difference::Kind);
    comes && change.kind == Kind::Directory && wanted.iter().any(|path| is_below(path, &change.path))
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.attributes.is_empty()
    }

    fn touch(&mut self) {
        let mut touched = vec![TreePath::root()];
        let above = |path: &TreePath| {
            let mut above = TreePath::root();
            let mut all = Vec::new();
            let names: Vec<&[u8]> = path.names().collect();
            for name in names.split_last().map_or(&[][..], |(_, above)| above) {
                above = above.join(name);
                all.push(above.clone());
            }
            all
        };
        for change in &self.moves {
            touched.extend(above(&change.path));
        }
        for path in &self.attributes {
            touched.extend(above(path));
            touched.push(path.clone());
        }
        touched.sort_by(crate::builder::walk::order);
        touched.dedup();
        self.touched = touched;
    }

    /// The deepest directory of both layers that holds everything that changes.
    pub(super) fn common(&self) -> TreePath {
        let mut common: Option<Vec<&[u8]>> = None;
        let parents = self.moves.iter().map(|change| (&change.path, 1));
        let own = self.attributes.iter().map(|path| (path, 0));
        for (path, less) in parents.chain(own) {
            let mut names: Vec<&[u8]> = path.names().collect();
            names.truncate(names.len().saturating_sub(less));
            let shared = match common {
                None => names,
                Some(common) => common
                    .into_iter()
                    .zip(names)
                    .take_while(|(a, b)| a == b)
                    .map(|(a, _)| a)
                    .collect(),
            };
            common = Some(shared);
        }
        common
            .unwrap_or_default()
            .into_iter()
            .fold(TreePath::root(), |path, name| path.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(letter: Letter, path: &str, kind: Kind, differences: &[Difference]) -> Change {
        Change {
            letter,
            path: TreePath::from_clean(path),
            kind,
            differences: differences.to_vec(),
        }
    }

    fn shown(plan: &Plan) -> Vec<String> {
        let moves = plan.moves.iter().map(|one| {
            let brings: Vec<_> = one.brings.iter().map(|(path, _)| path.to_string()).collect();
            format!(
                "{}{} {}",
                if one.goes { "-" } else { "+" },
                one.path,
                brings.join(" ")
            )
        });
        moves.collect()
    }

    fn changes() -> Vec<Change> {
        use Difference as D;
        use Kind::{Directory, File};
        use Letter::{Added, Changed, Deleted};
        vec![
            change(Changed, "a", Directory, &[]),
            change(Added, "a/b", Directory, &[]),
            change(Added, "a/b/c", File, &[]),
            change(Added, "a/b/d", File, &[]),
            change(Deleted, "a/e", File, &[]),
            change(Changed, "f", Directory, &[D::Kind]),
            change(Added, "f/g", File, &[]),
            change(Changed, "h", Directory, &[D::Mode]),
            change(Changed, "h/i", File, &[D::Size]),
        ]
    }

    #[test]
    fn a_new_directory_brings_what_is_in_it() {
        let plan = plan(&changes(), &[]);
        assert_eq!(
            shown(&plan),
            ["+/a/b /a/b /a/b/c /a/b/d", "-/a/e ", "+/f /f /f/g", "+/h/i /h/i"]
        );
        assert_eq!(plan.attributes, [TreePath::from_clean("h")]);
        let touched: Vec<_> = plan.touched.iter().map(ToString::to_string).collect();
        assert_eq!(touched, ["/", "/a", "/h"]);
        assert!(plan.whole && plan.common().is_root());
    }

    #[test]
    fn some_of_them() {
        let wanted = [TreePath::from_clean("a/b/d"), TreePath::from_clean("a/e")];
        let plan = plan(&changes(), &wanted);
        assert_eq!(shown(&plan), ["+/a/b /a/b /a/b/d", "-/a/e "]);
        assert!(!plan.whole);
        assert_eq!(plan.common(), TreePath::from_clean("a"));
    }
}
