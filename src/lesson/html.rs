//! The lesson as one page that needs nothing but itself: no network, no scripts to be read, one file.
//!
//! The page is laid out as a text to read. Its script, if it may run, turns it into slides and lets each changed
//! entry fly from where it came.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::model::{
    Answers, Change, Entry, Lesson, Place, Question, Scene, Sort, Step, Tree, printed, readable,
};
use super::text::size;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Directories in directories are indented up to here.
const DEEPEST: usize = 8;

/// The page of a walk.
#[must_use]
pub fn page(lesson: &Lesson) -> String {
    let when = jiff::Timestamp::from_second(lesson.since)
        .map(|time| time.to_string())
        .unwrap_or_default();
    let day = when.split('T').next().unwrap_or_default();
    let body = html! {
        header.top {
            h1 { "An overlay, step by step" }
            p {
                "A walk through what a file system of layers does, and leaves on disk. It was run by "
                (lesson.who) " with plyfs " (lesson.version) " on " (lesson.kernel) ", "
                time datetime=(when) { (day) }
                ". Every output, tree and right answer was read from the layers and the view after the command above \
                 it had run."
            }
            p.keys { kbd { "→" } " " kbd { "←" } " step forth and back, " kbd { "a" } " " kbd { "b" } " " kbd { "c" } " predict, " kbd { "Esc" } " shows all as one text." }
            (legend(&["added", "changed", "removed", "copied", "moved", "linked"]))
            nav aria-label="Steps" {
                ol start="0" {
                    @for step in &lesson.steps {
                        li { a href={ "#" (step.name) } { (step.name) } }
                    }
                }
            }
        }
        main {
            @for (number, step) in lesson.steps.iter().enumerate() { (section(number, step)) }
        }
    };
    frame("An overlay, step by step", &body)
}

/// A page with this content, and all it needs.
#[must_use]
pub fn frame(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="generator" content="plyfs";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// Nothing may be loaded or run but the page's own style and script, known by their digests.
fn policy() -> String {
    let digest = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'",
        digest(STYLE),
        digest(SCRIPT)
    )
}

/// What the colours and signs mean; of the changes those with these names.
#[must_use]
pub fn legend(changes: &[&str]) -> Markup {
    let signs = [
        ("added", "+", "added"),
        ("changed", "~", "changed"),
        ("removed", "−", "removed"),
        ("copied", "»", "copied from another layer"),
        ("moved", "→", "moved"),
        ("linked", "=", "one more name of an inode"),
    ];
    html! {
        ul.legend aria-label="Signs" {
            @for (class, sign, words) in signs.into_iter().filter(|(class, ..)| changes.contains(class)) {
                li { span class={ "sign " (class) } aria-hidden="true" { (sign) } " " (words) }
            }
            li { span.answers.lower { "L" } span.answers.upper { "U" } span.answers.both { "L+U" } " who answers in the view" }
            li { span.faded { "name" } " in a layer, not shown by the view" }
        }
    }
}

fn section(number: usize, step: &Step) -> Markup {
    html! {
        section.step id=(step.name) aria-labelledby={ (step.name) "-title" } {
            h2 id={ (step.name) "-title" } { span.number { (number) } " " (step.title) }
            @if let Some(question) = &step.question {
                div.slide.intro {
                    p.lead { (step.lead) }
                    (ask(&step.name, question))
                    // Seen on the slides only: a reader has the same trees just above.
                    div.before hidden[true] { (trees(&step.before)) }
                }
            }
            @for (place, scene) in step.scenes.iter().enumerate() {
                div.slide.scene {
                    @if place == 0 && step.question.is_none() { p.lead { (step.lead) } }
                    (shown(scene, step.shows_trees(place)))
                    @if place + 1 == step.scenes.len() { (why(step)) }
                }
            }
        }
    }
}

fn why(step: &Step) -> Markup {
    html! {
        p.why {
            (step.why)
            @if !step.rules.is_empty() {
                " " span.rules { "Rules " (step.rules.join(", ")) " in docs/kernel-rules.md." }
            }
        }
    }
}

fn ask(name: &str, question: &Question) -> Markup {
    html! {
        fieldset.quiz {
            legend { "Predict" }
            p { (question.ask) }
            @for ((number, choice), letter) in question.choices.iter().enumerate().zip('a'..='z') {
                label class=(if question.right == Some(number) { "right" } else { "wrong" }) {
                    input type="radio" name={ "quiz-" (name) };
                    span.letter { (letter) } " " span { (choice) }
                }
            }
            details {
                summary { "The answer" }
                @match question.right.and_then(|right| question.choices.get(right).zip(('a'..='z').nth(right))) {
                    Some((choice, letter)) => p { (letter) ") " (choice) },
                    None => p { "None of these is what happened in this run: look at the trees." },
                }
            }
        }
    }
}

fn shown(scene: &Scene, with_trees: bool) -> Markup {
    html! {
        div.terminal {
            pre.command { code { (scene.command) } }
            @if !scene.said.is_empty() { pre.said { samp { (printed(&scene.said).collect::<Vec<_>>().join("\n")) } } }
            @if let Some(status) = scene.status.filter(|status| *status != 0) { p.status { "exit status " (status) } }
        }
        @if let Some(note) = &scene.note { p.note { (note) } }
        div class=(if with_trees { "after" } else { "after same" }) {
            @if !with_trees { p.same { "No tree has changed." } }
            (trees(&scene.trees))
        }
    }
}

/// Trees side by side.
#[must_use]
pub fn trees(trees: &[Tree]) -> Markup {
    html! {
        div.trees {
            @for tree in trees {
                section class={ "tree " (tree.label) } {
                    h3 { b { (tree.label) } " " (tree.role) }
                    @match &tree.absent {
                        Some(why) => p.absent { (why) },
                        None if tree.entries.is_empty() => p.absent { "empty" },
                        None => ul { @for entry in &tree.entries { (row(&tree.label, entry)) } },
                    }
                }
            }
        }
    }
}

fn row(label: &str, entry: &Entry) -> Markup {
    let (class, sign, words) = match &entry.change {
        None => ("", "", String::new()),
        Some(Change::Added) => ("added", "+", "added".to_owned()),
        Some(Change::Changed) => ("changed", "~", "changed".to_owned()),
        Some(Change::Removed) => ("removed", "−", "removed".to_owned()),
        Some(Change::Copied(from)) => ("copied", "»", format!("copied from {}", named(from))),
        Some(Change::Moved(from)) => ("moved", "→", format!("moved from {}", named(from))),
        Some(Change::Linked(from)) => ("linked", "=", format!("the same inode as {}", named(from))),
    };
    let hidden = entry.hidden && entry.change != Some(Change::Removed);
    let depth = format!("d{}", entry.depth().min(DEEPEST));
    let class = [class, if hidden { "faded" } else { "" }, &depth].join(" ");
    let key = format!("{label}:{}", readable(&entry.path.0));
    html! {
        li class=(class.trim()) title=(facts(entry, &words, hidden))
            data-key=(key) data-from=[source(label, entry)] {
            span.sign aria-hidden="true" { (sign) }
            @match entry.answers {
                Some(Answers::Lower) => span.answers.lower { "L" },
                Some(Answers::Upper) => span.answers.upper { "U" },
                Some(Answers::Both) => span.answers.both { "L+U" },
                None => {},
            }
            span.name { (readable(entry.name())) @if entry.sort == Sort::Directory { "/" } }
            @for mark in marks(label, entry) { span class={ "mark " (mark.split(' ').next().unwrap_or_default()) } { (mark) } }
            @if let Some(text) = content(entry) { span.text { (text) } }
            @if !words.is_empty() { span.said { " (" (words) ")" } }
            @if hidden { span.said { " (not shown by the view)" } }
        }
    }
}

fn named(place: &Place) -> String {
    format!("{}/{}", place.tree, readable(&place.path.0))
}

/// Where a changed entry comes from, as the key of another row.
fn source(label: &str, entry: &Entry) -> Option<String> {
    let key = |place: &Place| format!("{}:{}", place.tree, readable(&place.path.0));
    match (entry.change.as_ref()?, entry.answers) {
        (Change::Copied(place) | Change::Moved(place) | Change::Linked(place), _) => Some(key(place)),
        (Change::Added | Change::Changed, Some(answers)) if label == "M" => {
            let from = if answers == Answers::Lower { "L" } else { "U" };
            Some(format!("{from}:{}", readable(&entry.path.0)))
        }
        _ => None,
    }
}

fn marks(label: &str, entry: &Entry) -> Vec<String> {
    let mut marks = Vec::new();
    match entry.sort {
        Sort::Whiteout => marks.push("whiteout".to_owned()),
        Sort::Special => marks.push("special".to_owned()),
        _ => {}
    }
    // The others are book-keeping, told where they are what changed.
    let told = |mark: &&String| {
        *mark == "opaque" || entry.sort == Sort::Directory && entry.change == Some(Change::Changed)
    };
    marks.extend(entry.marks.iter().filter(told).cloned());
    let counted = entry.sort != Sort::Directory && (entry.sort != Sort::Whiteout || label == "W");
    if counted && entry.links > 1 {
        marks.push(format!("{} names", entry.links));
    }
    marks
}

fn content(entry: &Entry) -> Option<String> {
    match (entry.sort, &entry.text) {
        (Sort::Symlink, Some(text)) => Some(format!("→ {text}")),
        (Sort::File, Some(text)) => Some(text.trim_end().replace('\n', " ⏎ ")),
        (Sort::Directory, Some(text)) => Some(text.clone()),
        (Sort::File, None) => Some(size(entry.size)),
        _ => None,
    }
}

/// Everything known of an entry, for who points at it.
fn facts(entry: &Entry, words: &str, hidden: bool) -> String {
    let mut facts = vec![
        format!("inode {}", entry.inode),
        format!("mode {:04o}", entry.mode),
    ];
    if entry.sort != Sort::Directory {
        facts.push(format!("{} names", entry.links));
    }
    if entry.sort == Sort::File {
        facts.push(format!("{} bytes", entry.size));
    }
    if !entry.marks.is_empty() {
        facts.push(format!("marks: {}", entry.marks.join(", ")));
    }
    if !words.is_empty() {
        facts.push(words.to_owned());
    }
    if hidden {
        facts.push("not shown by the view".to_owned());
    }
    facts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::manifest::Text;

    #[test]
    fn names_and_contents_are_escaped() {
        let entry = Entry {
            path: Text(b"<b>&\"'\x1b".to_vec()),
            sort: Sort::File,
            mode: 0o644,
            size: 9,
            inode: 1,
            links: 1,
            modified: 0,
            text: Some("</li><script>".into()),
            marks: vec!["<i>".into()],
            answers: None,
            hidden: false,
            change: Some(Change::Copied(Place {
                tree: "L".into(),
                path: Text(b"\"><img>".to_vec()),
            })),
        };
        let text = row("U", &entry).into_string();
        for raw in ["<b>", "<script", "<img", "<i>", "\x1b"] {
            assert!(!text.contains(raw), "{raw} in {text}");
        }
        assert!(text.contains("&lt;b&gt;&amp;&quot;"), "{text}");
    }
}
