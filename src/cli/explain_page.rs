//! `plyfs explain --html`: somebody's own layers and explanations as one page, in the form of the lesson's.

use maud::{Markup, html};

use super::explain::{details, differences, headline, label, shortened};
use crate::explain::{Explanation, Operation, RealFile, Rule, Step};
use crate::lesson::html::{frame, legend, trees};
use crate::lesson::model::{Tree, readable};
use crate::mount::JsonPath;

/// The page of these explanations, all of one view.
pub(super) fn page(told: &[Explanation], shown: &[Tree]) -> String {
    let body = html! {
        header.top {
            h1 { "Who answers, and why" }
            @if let Some(first) = told.first() {
                dl.layers {
                    @if let Some(merged) = &first.merged { dt { "view" } dd { code { (path(merged)) } } }
                    dt { "lower" } dd { code { (path(&first.lower)) } }
                    @for below in &first.below { dt { "below" } dd { code { (path(below)) } } }
                    @if let Some(upper) = &first.upper { dt { "upper" } dd { code { (path(upper)) } } }
                }
            }
            (legend(&["added", "copied"]))
            @if told.len() > 1 {
                nav aria-label="Paths" {
                    ul {
                        @for (number, one) in told.iter().enumerate() {
                            li { a href={ "#path-" (number) } { (path(&one.path)) } }
                        }
                    }
                }
            }
        }
        main {
            section.step.layers-step aria-label="The layers and the view" {
                (trees(shown))
                p.note { "Of the lower, directories are opened that the upper has a part in, or that lead to what is \
                          explained below." }
            }
            @for (number, one) in told.iter().enumerate() { (section(number, one)) }
        }
    };
    frame("Who answers, and why", &body)
}

fn path(path: &JsonPath) -> String {
    use std::os::unix::ffi::OsStrExt;
    readable(path.path().as_os_str().as_bytes())
}

fn section(number: usize, told: &Explanation) -> Markup {
    html! {
        section.step id={ "path-" (number) } {
            h2 { code { (path(&told.path)) } }
            p.lead { "Shows " (headline(told)) "." }
            ol.way {
                @for step in &told.steps { li { (name(step)) } }
            }
            @if !told.operations.is_empty() {
                h3 { "If it were" }
                div.scroll {
                    table.changes {
                        @for operation in &told.operations { (change(operation)) }
                    }
                }
            }
        }
    }
}

fn name(step: &Step) -> Markup {
    html! {
        p { code { (path(&step.path)) } ": " (step.why) (rules(&step.rules)) }
        dl.files {
            @if let Some(upper) = &step.upper { (file("upper", upper)) }
            @for lower in step.lower.iter().chain(&step.below) { (file("lower", lower)) }
            @if let Some(copied) = &step.copied {
                dt { "copied" }
                dd {
                    "from inode " (copied.from) " of the lower, "
                    (copied.when.as_deref().unwrap_or("at a time that is not kept"))
                    (differences(copied)) "; by " (copied.by)
                }
            }
        }
    }
}

fn file(layer: &str, file: &RealFile) -> Markup {
    html! {
        dt class=(if layer == "upper" { "answers upper" } else { "answers lower" }) {
            (layer) @if let Some(number) = file.number { " " (number) }
        }
        dd {
            code { (path(&file.path)) } br; (readable(details(file).as_bytes()))
            @for mark in &file.marks {
                br; code { (mark.name) "=" (readable(shortened(&mark.value).as_bytes())) } ": " (mark.meaning)
            }
        }
    }
}

fn change(operation: &Operation) -> Markup {
    html! {
        tr {
            th scope="row" { (label(operation.change)) }
            td {
                @if let Some(errno) = &operation.errno { span.errno { (errno) } " " }
                @for line in &operation.plan { p { (line) } }
                (rules(&operation.rules))
            }
        }
    }
}

fn rules(rules: &[Rule]) -> Markup {
    let numbers: Vec<&str> = rules.iter().map(|rule| rule.number.as_str()).collect();
    html! {
        @if !numbers.is_empty() { " " span.rules { "(" (numbers.join(", ")) ")" } }
    }
}
