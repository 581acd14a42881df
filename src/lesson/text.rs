//! The lesson on a terminal: trees side by side, as wide as there is room.

use console::Style;

use super::model::{Answers, Change, Entry, Question, Scene, Sort, Step, Tree, printed, readable};

/// Between two columns.
const GAP: usize = 3;
/// Narrower columns are of no use: the trees then go two and two.
const NARROWEST: usize = 22;

/// How things are shown.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// Columns of the terminal.
    pub width: usize,
    /// With colours.
    pub colour: bool,
}

/// What is written in one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Heading,
    Dim,
    Added,
    Changed,
    Removed,
    Copied,
}

/// One line of a column.
struct Cell {
    text: String,
    tone: Tone,
}

impl Text {
    /// What a step is about.
    #[must_use]
    pub fn heading(&self, number: usize, step: &Step) -> String {
        let title = format!("{number}  {}", step.title);
        let rule = "─".repeat(title.chars().count());
        format!(
            "\n{}\n{}\n{}\n",
            self.paint(&title, Tone::Heading),
            self.paint(&rule, Tone::Dim),
            self.wrapped(&step.lead, "")
        )
    }

    /// A question with its choices, lettered.
    #[must_use]
    pub fn question(&self, question: &Question) -> String {
        let mut text = format!("\n{}\n", self.wrapped(&question.ask, "? "));
        for (letter, choice) in ('a'..='z').zip(&question.choices) {
            text.push_str(&self.wrapped(choice, &format!("  {letter}) ")));
            text.push('\n');
        }
        text
    }

    /// Which choice the run has confirmed, and how the viewer's compares.
    #[must_use]
    pub fn verdict(&self, question: &Question, answer: Option<usize>) -> String {
        let Some(right) = question.right else {
            return "None of the choices is what happened: look at the trees.\n".to_owned();
        };
        let choice = question.choices.get(right).map_or("", String::as_str);
        let letter = ('a'..='z').nth(right).unwrap_or('?');
        let (word, tone) = match answer {
            Some(answer) if answer == right => ("Right: ", Tone::Added),
            Some(_) => ("Not so. It is ", Tone::Removed),
            None => ("It is ", Tone::Plain),
        };
        format!("\n{}{letter}) {choice}\n", self.paint(word, tone))
    }

    /// A command, what it printed, and the trees.
    #[must_use]
    pub fn scene(&self, scene: &Scene) -> String {
        let mut text = String::from("\n");
        for (number, line) in scene.command.lines().enumerate() {
            let prompt = if number == 0 { "$ " } else { "  " };
            text.push_str(&self.paint(&format!("{prompt}{line}"), Tone::Heading));
            text.push('\n');
        }
        for line in printed(&scene.said) {
            text.push_str(&format!("  {line}\n"));
        }
        if let Some(note) = &scene.note {
            text.push_str(&self.wrapped(note, "  "));
            text.push('\n');
        }
        text
    }

    /// The rule behind a step.
    #[must_use]
    pub fn why(&self, step: &Step) -> String {
        let rules = if step.rules.is_empty() {
            String::new()
        } else {
            format!(" ({} in docs/kernel-rules.md)", step.rules.join(", "))
        };
        format!("\n{}\n", self.wrapped(&format!("{}{rules}", step.why), ""))
    }

    /// What the signs in front of the names mean.
    #[must_use]
    pub fn legend(&self) -> String {
        format!(
            "{} added   {} changed   {} removed   {} copied from another layer   {} moved   {} one more name of an inode\n\
             In M: (L) (U) (L+U) who answers. In L and U: what the view does not show is in brackets.\n",
            self.paint("+", Tone::Added),
            self.paint("~", Tone::Changed),
            self.paint("-", Tone::Removed),
            self.paint("»", Tone::Copied),
            self.paint("→", Tone::Copied),
            self.paint("=", Tone::Copied),
        )
    }

    /// Trees side by side.
    #[must_use]
    pub fn trees(&self, trees: &[Tree]) -> String {
        let count = trees.len().max(1);
        let column = |count: usize| (self.width + GAP) / count.max(1);
        let together = if column(count) >= NARROWEST + GAP {
            count
        } else {
            count.min(2)
        };
        let width = column(together).saturating_sub(GAP).max(NARROWEST);
        let mut text = String::new();
        for row in trees.chunks(together) {
            let columns: Vec<Vec<Cell>> = row.iter().map(cells).collect();
            let height = columns.iter().map(Vec::len).max().unwrap_or(0);
            for line in 0..height {
                let mut out = String::new();
                for (number, cells) in columns.iter().enumerate() {
                    let cell = cells.get(line);
                    let plain = fit(cell.map_or("", |cell| &cell.text), width);
                    let pad = width.saturating_sub(plain.chars().count());
                    out.push_str(&self.paint(&plain, cell.map_or(Tone::Plain, |cell| cell.tone)));
                    if number + 1 < columns.len() {
                        out.push_str(&" ".repeat(pad + GAP));
                    }
                }
                text.push_str(out.trim_end());
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }

    fn paint(&self, text: &str, tone: Tone) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = Style::new().force_styling(true);
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Heading => style.bold(),
            Tone::Dim => style.dim(),
            Tone::Added => style.green(),
            Tone::Changed => style.yellow(),
            Tone::Removed => style.red(),
            Tone::Copied => style.cyan(),
        };
        style.apply_to(text).to_string()
    }

    /// Broken between words; the first line begins with `first`, the others are indented as far.
    fn wrapped(&self, text: &str, first: &str) -> String {
        let indent = first.chars().count();
        let room = self.width.min(100).saturating_sub(indent).max(20);
        let mut out = String::from(first);
        let mut used = 0;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                used = 0;
            } else if used > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out
    }
}

fn cells(tree: &Tree) -> Vec<Cell> {
    let mut cells = vec![Cell {
        text: format!("{}  {}", tree.label, tree.role),
        tone: Tone::Heading,
    }];
    let remark = match &tree.absent {
        Some(why) => Some(format!("({why})")),
        None if tree.entries.is_empty() => Some("(empty)".to_owned()),
        None => None,
    };
    if let Some(text) = remark {
        cells.push(Cell {
            text: format!("  {text}"),
            tone: Tone::Dim,
        });
    }
    cells.extend(tree.entries.iter().map(|entry| cell(&tree.label, entry)));
    cells
}

fn cell(label: &str, entry: &Entry) -> Cell {
    let (sign, tone) = match &entry.change {
        None if entry.hidden => (' ', Tone::Dim),
        None => (' ', Tone::Plain),
        Some(Change::Added) => ('+', Tone::Added),
        Some(Change::Changed) => ('~', Tone::Changed),
        Some(Change::Removed) => ('-', Tone::Removed),
        Some(Change::Copied(_)) => ('»', Tone::Copied),
        Some(Change::Moved(_)) => ('→', Tone::Copied),
        Some(Change::Linked(_)) => ('=', Tone::Copied),
    };
    let name = readable(entry.name());
    let name = if entry.hidden && entry.change != Some(Change::Removed) {
        format!("[{name}]")
    } else {
        name
    };
    let mut text = format!("{sign} {}{name}", "  ".repeat(entry.depth()));
    if entry.sort == Sort::Directory {
        text.push('/');
    }
    for word in words(label, entry) {
        text.push(' ');
        text.push_str(&word);
    }
    Cell { text, tone }
}

/// What is said behind a name, most important first.
fn words(label: &str, entry: &Entry) -> Vec<String> {
    let mut words = Vec::new();
    match entry.answers {
        Some(Answers::Lower) => words.push("(L)".to_owned()),
        Some(Answers::Upper) => words.push("(U)".to_owned()),
        Some(Answers::Both) => words.push("(L+U)".to_owned()),
        None => {}
    }
    match entry.sort {
        Sort::Whiteout => words.push("whiteout".to_owned()),
        Sort::Special => words.push("special".to_owned()),
        Sort::Symlink => words.push(format!("-> {}", entry.text.as_deref().unwrap_or_default())),
        Sort::Directory => {
            // The others are book-keeping, told where they are what changed.
            let told = |mark: &&String| *mark == "opaque" || entry.change == Some(Change::Changed);
            words.extend(entry.marks.iter().filter(told).cloned());
        }
        Sort::File => {
            if let Some(text) = &entry.text {
                words.push(format!("\"{}\"", text.trim_end().replace('\n', "⏎")));
            } else {
                words.push(size(entry.size));
            }
        }
    }
    let counted = entry.sort != Sort::Directory && (entry.sort != Sort::Whiteout || label == "W");
    if counted && entry.links > 1 {
        words.push(format!("{} names", entry.links));
    }
    words
}

/// `64.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (mut whole, mut tenth, mut unit) = (bytes, 0, "B");
    for name in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        tenth = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = name;
    }
    if unit == "B" {
        format!("{whole} B")
    } else {
        format!("{whole}.{tenth} {unit}")
    }
}

/// Cut to a width, with a sign that it was.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::manifest::Text as Name;

    fn entry(path: &str, change: Option<Change>) -> Entry {
        Entry {
            path: Name(path.into()),
            sort: Sort::File,
            mode: 0o644,
            size: 3,
            inode: 1,
            links: 1,
            modified: 0,
            text: Some("a\nb\n".into()),
            marks: Vec::new(),
            answers: None,
            hidden: false,
            change,
        }
    }

    fn tree(label: &str, entries: Vec<Entry>) -> Tree {
        Tree {
            label: label.into(),
            role: "role".into(),
            absent: None,
            entries,
        }
    }

    #[test]
    fn columns_stand_side_by_side_where_there_is_room() {
        let trees = [
            tree("L", vec![entry("f", None), entry("g", Some(Change::Removed))]),
            tree("U", vec![entry("f", Some(Change::Added))]),
        ];
        let text = Text {
            width: 60,
            colour: false,
        };
        assert_eq!(
            text.trees(&trees),
            "L  role                        U  role\n  f \"a⏎b\"                      + f \"a⏎b\"\n- g \"a⏎b\"\n\n"
        );
        let coloured = Text {
            width: 60,
            colour: true,
        };
        assert!(coloured.trees(&trees).contains("\x1b[32m+ f \"a⏎b\"\x1b[0m"));
    }

    #[test]
    fn four_columns_go_two_and_two_on_a_narrow_terminal() {
        let trees: Vec<Tree> = ["L", "U", "W", "M"].map(|label| tree(label, vec![])).into();
        let text = |width| Text { width, colour: false }.trees(&trees);
        assert_eq!(text(120).lines().filter(|line| line.contains("role")).count(), 1);
        assert_eq!(text(60).lines().filter(|line| line.contains("role")).count(), 2);
    }

    #[test]
    fn sizes_and_long_lines() {
        assert_eq!(size(64 << 20), "64.0 MiB");
        assert_eq!(size(1000), "1000 B");
        assert_eq!(fit("abcdef", 4), "abc…");
        let text = Text {
            width: 30,
            colour: false,
        };
        assert_eq!(
            text.wrapped("one two three four five six seven", "- "),
            "- one two three four five six\n  seven"
        );
    }
}
