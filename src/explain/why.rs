//! Why a name shows what it shows, in words.

use super::data::Answer;
use super::rules::{Rule, rules};
use crate::overlay::Survey;
use crate::overlay::merge::{InLower, InUpper, Source};
use crate::sys::Errno;

/// A decision, its reason and the rules.
pub(super) type Reason = (Answer, String, Vec<Rule>);

/// What decided further up that a layer is not asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Above {
    /// Why the lower takes no part here, if it does not: "/etc is opaque".
    pub(super) no_lower: Option<String>,
}

/// The root: the upper's where there is one, whatever is marked on it (K23).
pub(super) fn root(has_upper: bool, lowers: usize) -> Reason {
    if lowers > 1 && has_upper {
        let why =
            format!("the root is in the upper and in all {lowers} lowers: merged, attributes from the upper");
        (Answer::Merged, why, rules(&[21, 23, 36]))
    } else if lowers > 1 {
        let why =
            format!("a view without an upper shows its {lowers} lowers: merged, attributes from the topmost");
        (Answer::Lower, why, rules(&[2, 36]))
    } else if has_upper {
        let why = "the root is in both layers: merged, attributes from the upper".to_owned();
        (Answer::Merged, why, rules(&[21, 23]))
    } else {
        let why = "a view without an upper shows the lower".to_owned();
        (Answer::Lower, why, rules(&[2]))
    }
}

/// A name.
pub(super) fn name(found: &Survey, above: &Above, lowers: usize) -> Reason {
    let (answer, mut why, mut cited) = match found.answer {
        Ok(Source::Merged) => (Answer::Merged, Source::Merged.words().to_owned(), rules(&[21])),
        Ok(Source::Lower) => lower(found),
        Ok(Source::Upper) => upper(found, above),
        Err(Errno::NOENT) => nothing(found, above),
        Err(errno) => refused(found, errno),
    };
    if lowers > 1
        && let Some(which) = which_lowers(found)
    {
        why.push_str("; ");
        why.push_str(&which);
        cited.extend(rules(&[36]));
    }
    (answer, why, cited)
}

/// Of several lowers, those that the answer rests on.
fn which_lowers(found: &Survey) -> Option<String> {
    let numbers: Vec<_> = found
        .parts
        .iter()
        .map(|layer| layer.saturating_add(1).to_string())
        .collect();
    let first = numbers.first()?;
    match (found.answer, numbers.len()) {
        (Ok(Source::Upper), _) => None,
        (Ok(Source::Lower), 1) => Some(format!("lower {first} is the topmost that has it")),
        (Ok(Source::Merged), 1) => Some(format!("the lower is number {first}")),
        (Ok(_), _) => Some(format!("merged of lowers {}", numbers.join(", "))),
        (Err(Errno::NOENT), _) if is_decided_by_lowers(found) => Some(format!(
            "a whiteout in lower {first} hides what the lowers below it have"
        )),
        (Err(_), _) => None,
    }
}

fn is_decided_by_lowers(found: &Survey) -> bool {
    found.upper == InUpper::Absent && found.lower == InLower::Whiteout
}

/// Whether another layer hides what a lower has.
pub(super) fn is_hidden(found: &Survey, layer: u16) -> bool {
    match found.answer {
        Ok(Source::Upper) => true,
        Ok(Source::Lower | Source::Merged) => !found.parts.contains(&layer),
        Err(Errno::NOENT) if is_decided_by_lowers(found) => !found.parts.contains(&layer),
        Err(Errno::NOENT) => found.upper == InUpper::Whiteout,
        Err(_) => false,
    }
}

fn lower(found: &Survey) -> Reason {
    let (why, rules) = match &found.lower {
        InLower::Covered(_) => (
            "from the lower; something is mounted on it there, so it shows as an empty directory",
            rules(&[22, 28]),
        ),
        _ if found.upper_asked => (Source::Lower.words(), rules(&[22])),
        _ => (
            "from the lower alone, like the directory it lies in: the upper is not asked",
            rules(&[24]),
        ),
    };
    (Answer::Lower, why.to_owned(), rules)
}

fn upper(found: &Survey, above: &Above) -> Reason {
    let (is_dir, opaque) = match &found.upper {
        InUpper::Object(stat, marks) => (stat.is_dir(), stat.is_dir() && marks.opaque),
        _ => (false, false),
    };
    let (why, rules) = match (&found.lower, is_dir, opaque) {
        _ if !found.lower_asked => {
            let above = above
                .no_lower
                .as_deref()
                .unwrap_or("the directory it lies in is the upper's alone");
            let why = format!("from the upper alone: {above}, so the lower is not asked");
            return (Answer::Upper, why, rules(&[24]));
        }
        (InLower::Absent | InLower::Whiteout, _, true) => (
            "an opaque directory of the upper; the lower has nothing that it could hide",
            rules(&[21]),
        ),
        (_, _, true) => (
            "an opaque directory of the upper: it hides the lower's with all that is in it",
            rules(&[21, 23]),
        ),
        (InLower::Absent | InLower::Whiteout, ..) => (
            "from the upper: the lower has nothing under this name",
            rules(&[20]),
        ),
        (_, true, _) => (
            "a directory of the upper over something else in the lower, which it hides",
            rules(&[22]),
        ),
        (InLower::Object(below, _), ..) if below.is_dir() => (
            "from the upper, which is asked first: it hides a directory of the lower with all that is in it",
            rules(&[20]),
        ),
        _ => (
            "from the upper, which is asked first: it hides what the lower has",
            rules(&[20]),
        ),
    };
    (Answer::Upper, why.to_owned(), rules)
}

fn nothing(found: &Survey, above: &Above) -> Reason {
    if found.upper == InUpper::Whiteout {
        let (why, rules) = match (&found.lower, found.lower_asked) {
            (InLower::Absent | InLower::Whiteout, true) => (
                "a whiteout in the upper; the lower has nothing that it could hide",
                rules(&[20, 32]),
            ),
            (InLower::Absent | InLower::Whiteout, false) => (
                "a whiteout in the upper, in a directory in which the lower takes no part",
                rules(&[20, 32]),
            ),
            _ => (
                "a whiteout in the upper hides what the lower has",
                rules(&[20, 30]),
            ),
        };
        return (Answer::Whiteout, why.to_owned(), rules);
    }
    let (why, rules) = match (found.upper_asked, found.lower_asked) {
        (true, true) => (
            "neither layer shows anything under this name".to_owned(),
            rules(&[20]),
        ),
        (true, false) => {
            let above = above
                .no_lower
                .as_deref()
                .unwrap_or("the directory is the upper's alone");
            let why = format!("the upper has nothing under this name; {above}, so the lower is not asked");
            (why, rules(&[24]))
        }
        (false, true) => (
            "the directory is the lower's alone, and the lower shows nothing under this name".to_owned(),
            rules(&[24]),
        ),
        (false, false) => (
            "something is mounted on the directory in the lower, so nothing of it shows".to_owned(),
            rules(&[28]),
        ),
    };
    (Answer::Absent, why, rules)
}

fn refused(found: &Survey, errno: Errno) -> Reason {
    let has_metacopy = match (&found.upper, &found.lower) {
        (InUpper::Object(_, marks), _) => marks.metacopy,
        (_, InLower::Object(_, marks)) => marks.metacopy,
        _ => false,
    };
    let (why, rules) = match errno {
        Errno::PERM if has_metacopy => (
            "a file without its data (metacopy), which is not supported: it is not shown rather than shown empty",
            rules(&[27]),
        ),
        Errno::PERM => (
            "it takes its content from elsewhere (redirect), which is not supported",
            rules(&[26]),
        ),
        Errno::LOOP => (
            "the upper or the work directory of this view, seen through the lower",
            rules(&[4]),
        ),
        Errno::NAMETOOLONG => ("longer than either layer allows", rules(&[25])),
        Errno::REMOTE => ("something is mounted there inside the upper", rules(&[28])),
        _ => ("the layers cannot be asked", rules(&[20])),
    };
    (Answer::Refused, why.to_owned(), rules)
}

/// What keeps the lower out of everything below a name that shows from the upper alone.
pub(super) fn keeps_lower_out(path: &str, found: &Survey) -> String {
    match &found.upper {
        InUpper::Object(_, marks) if marks.opaque => format!("{path} is opaque"),
        _ if found.lower.shows() => format!("{path} hides what is no directory in the lower"),
        _ => format!("{path} is the upper's alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(answer: Result<Source, Errno>, upper: InUpper) -> Survey {
        Survey {
            upper_asked: true,
            upper,
            lower_asked: true,
            lower: InLower::Absent,
            parts: Vec::new(),
            answer,
        }
    }

    #[test]
    fn the_answer_is_that_of_the_lookup() {
        let above = Above::default();
        for (answer, expected) in [
            (Ok(Source::Merged), Answer::Merged),
            (Ok(Source::Lower), Answer::Lower),
            (Ok(Source::Upper), Answer::Upper),
            (Err(Errno::NOENT), Answer::Absent),
            (Err(Errno::PERM), Answer::Refused),
            (Err(Errno::LOOP), Answer::Refused),
        ] {
            assert_eq!(name(&survey(answer, InUpper::Absent), &above, 1).0, expected);
        }
        let hidden = survey(Err(Errno::NOENT), InUpper::Whiteout);
        assert_eq!(name(&hidden, &above, 1).0, Answer::Whiteout);
        let mut below = survey(Err(Errno::NOENT), InUpper::Absent);
        (below.lower, below.parts) = (InLower::Whiteout, vec![1]);
        let (answer, why, _) = name(&below, &above, 3);
        assert_eq!(answer, Answer::Absent);
        assert!(
            why.ends_with("a whiteout in lower 2 hides what the lowers below it have"),
            "{why}"
        );
        assert!(is_hidden(&below, 2) && !is_hidden(&below, 1));
    }
}
