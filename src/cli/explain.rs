//! `plyfs explain`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{bytes, print, print_json};
use super::page::NewPage;
use super::{Failure, explain_page};
use crate::explain::{
    Answer, Change, Copied, ExplainError, Explanation, Layers, Named, Operation, RealFile, Rule, Step, find,
};
use crate::format::Namespace;
use crate::lesson::seen;

const EXAMPLES: &str = "\
Examples:
  plyfs explain ~/view/etc/motd
  plyfs explain --lower /srv/base --upper changes etc/motd usr/bin
  plyfs explain --html view.html ~/view
  plyfs explain ~/view/old --json | jq -r '.[].operations[] | [.change, .errno]'

For each name on the way: which layer answers, and why; the real files, with
their private attributes; what is known of a copy-up. Then what would be done
if the object were opened for writing, removed, renamed (to a free name beside
it) or given another mode; for a name that does not show, if it were made.
Whether the caller may do that is not asked: the kernel checks it before. In
words: docs/explain.md; the rules (K84): docs/kernel-rules.md.

With --lower the path begins at the root of the view, and nothing need be
mounted. Nothing is ever written.

With --json, a list of objects, one for each path; their fields are those of
plyfs::explain::Explanation in the crate's documentation.

Exit status 0 also for paths that show nothing; 1 if a path lies in no view, or
the layers cannot be read. The other paths are explained all the same.";

/// Tell which layer answers for a path, why, and what a change would do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// Paths in a live view; with --lower, from the root of the view.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Explain these layers, mounted or not.
    #[arg(long, value_name = "DIR")]
    lower: Option<PathBuf>,
    /// A further read-only layer below --lower; may be given several times, each below the former.
    #[arg(long, value_name = "DIR", requires = "lower")]
    below: Vec<PathBuf>,
    /// The writable layer over --lower.
    #[arg(long, value_name = "DIR", requires = "lower")]
    upper: Option<PathBuf>,
    /// The upper keeps its marks in user.overlay.*; told by the upper where it can be.
    #[arg(long, requires = "upper")]
    userxattr: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Write one self-contained page for a browser: the trees of the layers and the view, and the explanations.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
}

impl ExplainArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        env_logger::init();
        let page = self.html.as_deref().map(NewPage::create).transpose()?;
        let mut told = Vec::new();
        let mut failed = false;
        let mut views = HashMap::new();
        let named = match &self.lower {
            Some(lower) => Some(self.open(lower).map_err(failure)?),
            None => None,
        };
        for path in &self.paths {
            let explained = match &named {
                Some(layers) => layers.explain(path),
                None => explain_in_view(&mut views, path),
            };
            match explained {
                Ok(explained) => told.push(explained),
                Err(error) => {
                    failed = true;
                    eprintln!("plyfs: {error}");
                }
            }
        }
        if let Some(page) = page {
            let layers = match &named {
                Some(layers) => Some(layers),
                // One page, one view: where several were asked for there is no one set of trees.
                None if views.len() > 1 => {
                    return Err(Failure::usage("--html shows one view: the paths lie in several"));
                }
                None => views.values().next(),
            };
            if let Some(layers) = layers {
                page.keep(&explain_page::page(&told, &seen::trees(layers, &told)?))?;
            }
        } else if self.json {
            print_json(&told)?;
        } else {
            let texts: Vec<_> = told.iter().map(for_people).collect();
            print(&texts.join(&b'\n'))?;
        }
        if failed { Err(Failure::Status(1)) } else { Ok(()) }
    }

    fn open(&self, lower: &Path) -> Result<Layers, ExplainError> {
        Layers::open(&Named {
            lower: lower.to_owned(),
            below: self.below.clone(),
            upper: self.upper.clone(),
            marks: self.userxattr.then_some(Namespace::User),
            ..Named::default()
        })
    }
}

fn failure(error: ExplainError) -> Failure {
    Failure::Failed(error.to_string())
}

/// Opens the layers of each view once.
fn explain_in_view(views: &mut HashMap<u64, Layers>, path: &Path) -> Result<Explanation, ExplainError> {
    let viewed = find(path)?;
    let number = viewed.live.entry.mount_id;
    if let Some(layers) = views.get(&number) {
        return layers.explain(&viewed.inside);
    }
    let layers = Layers::of_live(&viewed.live)?;
    let explained = layers.explain(&viewed.inside);
    views.insert(number, layers);
    explained
}

/// Lines of a label and a text, indented as the part asks for.
#[derive(Default)]
struct Page {
    text: Vec<u8>,
}

impl Page {
    fn line(&mut self, label: &str, width: usize, text: impl AsRef<[u8]>) {
        let label = format!("{label:<width$}");
        if text.as_ref().is_empty() {
            self.text.extend_from_slice(label.trim_end().as_bytes());
        } else {
            self.text.extend_from_slice(label.as_bytes());
        }
        self.text.extend_from_slice(text.as_ref());
        self.text.push(b'\n');
    }

    /// A path byte for byte, and what is said of it.
    fn path(&mut self, label: &str, width: usize, path: &Path, remark: &str) {
        let text = [path.as_os_str().as_bytes(), remark.as_bytes()].concat();
        self.line(label, width, text);
    }
}

/// Columns before the text of a name, of its files, and of a change.
const NAME: usize = 2;
const FILE: usize = 13;
const CHANGE: usize = 22;

fn for_people(told: &Explanation) -> Vec<u8> {
    let mut page = Page::default();
    page.path("", 0, &told.path.path(), &format!(": {}", headline(told)));
    for step in &told.steps {
        page.line("", 0, "");
        page.path("", NAME, &step.path.path(), "");
        page.line("", NAME + 2, format!("{}{}", step.why, cited(&step.rules)));
        files(&mut page, step);
    }
    if !told.operations.is_empty() {
        page.line("", 0, "");
        page.line("", NAME, "If it were");
    }
    for operation in &told.operations {
        change(&mut page, operation);
    }
    page.line("", 0, "");
    for (place, numbers) in pages(told) {
        page.line("", NAME, format!("{}: {place}", numbers.join(", ")));
    }
    page.text
}

pub(super) fn headline(told: &Explanation) -> String {
    let errno = told.errno.as_deref().unwrap_or_default();
    match told.answer {
        Answer::Merged if told.below.is_empty() => "a directory merged of both layers".to_owned(),
        Answer::Merged => "a directory merged of the upper and a lower, or several".to_owned(),
        Answer::Upper => "what the upper has".to_owned(),
        Answer::Lower if told.below.is_empty() => "what the lower has".to_owned(),
        Answer::Lower => "what a lower has, or several".to_owned(),
        Answer::Whiteout => format!("nothing, by a whiteout ({errno})"),
        Answer::Absent => format!("nothing ({errno})"),
        Answer::Refused => format!("an error ({errno})"),
    }
}

fn cited(rules: &[Rule]) -> String {
    let numbers: Vec<_> = rules.iter().map(|rule| rule.number.as_str()).collect();
    if numbers.is_empty() {
        String::new()
    } else {
        format!(" ({})", numbers.join(", "))
    }
}

fn files(page: &mut Page, step: &Step) {
    let upper = step.upper.iter().map(|file| ("    upper".to_owned(), file));
    let lowers = step.lower.iter().chain(&step.below).map(|file| {
        let label = file
            .number
            .map_or_else(|| "    lower".to_owned(), |number| format!("    lower {number}"));
        (label, file)
    });
    for (label, file) in upper.chain(lowers) {
        let remark = if file.hidden { " (hidden)" } else { "" };
        page.path(&label, FILE, &file.path.path(), remark);
        page.line("", FILE, details(file));
        for mark in &file.marks {
            let value = shortened(&mark.value);
            page.line("", FILE, format!("{}={value}: {}", mark.name, mark.meaning));
        }
    }
    if let Some(copied) = &step.copied {
        let when = copied.when.as_deref().unwrap_or("at a time that is not kept");
        let text = format!(
            "from inode {} of the lower, {when}{}",
            copied.from,
            differences(copied)
        );
        page.line("    copied", FILE, text);
        page.line("", FILE, format!("by {}", copied.by));
    }
}

/// What is different from the lower's object since it was copied up.
pub(super) fn differences(copied: &Copied) -> String {
    copied.differs.as_ref().map_or(String::new(), |differs| {
        if differs.is_empty() {
            "; nothing differs".to_owned()
        } else {
            format!("; different since: {}", differs.join(", "))
        }
    })
}

/// Handles are long, and mean something to the kernel only.
pub(super) fn shortened(value: &str) -> String {
    const MOST: usize = 24;
    match value.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", value.get(..at).unwrap_or(value)),
        None => value.to_owned(),
    }
}

pub(super) fn details(file: &RealFile) -> String {
    let mut text = format!(
        "{}, inode {}, mode {}, owner {}:{}",
        file.kind, file.inode, file.mode, file.uid, file.gid
    );
    let more = match file.kind.as_str() {
        "file" if file.allocated < file.size => {
            format!(", {} ({} on disk)", bytes(file.size), bytes(file.allocated))
        }
        "file" => format!(", {}", bytes(file.size)),
        _ => String::new(),
    };
    text.push_str(&more);
    if file.links > 1 && file.kind != "directory" {
        // Writing into a String cannot fail.
        write!(text, ", {} links", file.links).ok();
    }
    if let Some(target) = &file.target {
        write!(text, ", to {}", target.path().display()).ok();
    }
    text
}

/// A change, as the end of "if it were".
pub(super) fn label(change: Change) -> &'static str {
    match change {
        Change::OpenForWriting => "opened to write",
        Change::Unlink => "unlinked",
        Change::Rename => "renamed",
        Change::Rmdir => "taken by rmdir",
        Change::Chmod => "given a mode",
        Change::Create => "made",
    }
}

fn change(page: &mut Page, operation: &Operation) {
    let words = format!("    {}", label(operation.change));
    let mut label = words.as_str();
    let errno = operation
        .errno
        .as_ref()
        .map_or(String::new(), |errno| format!("{errno}: "));
    let text = format!("{errno}{}", operation.plan.join("\n"));
    let text = format!("{text}{}", cited(&operation.rules));
    for line in text.split('\n') {
        page.line(label, CHANGE, line);
        label = "";
    }
}

/// The rules cited anywhere, by page.
fn pages(told: &Explanation) -> Vec<(String, Vec<String>)> {
    let steps = told.steps.iter().flat_map(|step| &step.rules);
    let all = steps.chain(told.operations.iter().flat_map(|operation| &operation.rules));
    let mut pages: Vec<(String, Vec<String>)> = Vec::new();
    for rule in all {
        match pages.iter_mut().find(|(page, _)| *page == rule.page) {
            Some((_, numbers)) if numbers.contains(&rule.number) => {}
            Some((_, numbers)) => numbers.push(rule.number.clone()),
            None => pages.push((rule.page.clone(), vec![rule.number.clone()])),
        }
    }
    pages
}
