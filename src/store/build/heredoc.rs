//! Taking here-documents out of a Containerfile before the parser reads it.
//!
//! The parser knows a here-document only as the first word of RUN; docker takes any number, anywhere in RUN, COPY and
//! ADD. So their bodies are covered with comments and their `<<` with a character that no file has, byte for byte:
//! every offset and line number of the covered text is one of the original.

use super::words;

/// Stands for `<<`: as long, in UTF-8, as the two.
const COVER: char = '\u{91}';

/// One here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereDoc {
    /// Byte offset of its `<<` in the text.
    pub at: usize,
    /// The word that ends it, which is also the name of the file that COPY makes.
    pub name: String,
    /// What stands between, whole lines.
    pub content: String,
    /// Variables are to be put in: its name was not quoted.
    pub expand: bool,
}

/// A text without here-documents, and what was taken out.
#[derive(Debug)]
pub struct Covered {
    /// As long as the original, line for line.
    pub text: String,
    /// In the order of their `<<`.
    pub docs: Vec<HereDoc>,
    /// The escape character: a backslash, or what the directive at the top says.
    pub escape: char,
}

/// Why a text was not read: the line, from 1, and the reason.
pub type At = (usize, String);

/// Covers the here-documents of `text`.
///
/// # Errors
/// One that is not ended, a directive that makes no sense.
pub fn cover(text: &str) -> Result<Covered, At> {
    if let Some(at) = text.find(COVER) {
        return Err((
            line_of(text, at),
            "a control character (U+0091) stands here".to_owned(),
        ));
    }
    let escape = escape_directive(text)?;
    let mut covered = text.to_owned().into_bytes();
    let mut docs = Vec::new();
    let mut lines = Lines { text, at: 0 };
    while let Some((start, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let logical = logical_line(start, line, &mut lines, escape);
        for (at, word) in heredoc_words(&logical, escape) {
            let content = body(&mut lines, &mut covered, &word).ok_or_else(|| {
                let reason = format!("the here-document <<{} is not ended", word.name);
                (line_of(text, at), reason)
            })?;
            for (position, byte) in (at..).zip(COVER.to_string().bytes()) {
                if let Some(place) = covered.get_mut(position) {
                    *place = byte;
                }
            }
            docs.push(HereDoc {
                at,
                name: word.name,
                content,
                expand: word.expand,
            });
        }
    }
    let text = String::from_utf8(covered).map_err(|_| (1, "the text is not UTF-8".to_owned()))?;
    Ok(Covered { text, docs, escape })
}

/// Gives a piece of a covered text its `<<` back.
pub fn uncover(text: &str) -> String {
    text.replace(COVER, "<<")
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The physical lines that follow, with their offsets, without their ends.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (start, line) = (self.at, rest.split('\n').next()?);
        self.at += line.len() + 1;
        Some((start, line.strip_suffix('\r').unwrap_or(line)))
    }
}

/// One instruction without its continuations: pieces with the offsets they stood at.
struct Logical {
    joined: String,
    /// For each piece: its start in `joined` and in the text.
    pieces: Vec<(usize, usize)>,
}

impl Logical {
    fn push(&mut self, start: usize, piece: &str) {
        self.pieces.push((self.joined.len(), start));
        self.joined.push_str(piece);
    }

    fn offset(&self, in_joined: usize) -> Option<usize> {
        let (from, start) = self.pieces.iter().rfind(|(from, _)| *from <= in_joined)?;
        Some(start + (in_joined - from))
    }
}

fn logical_line(start: usize, line: &str, lines: &mut Lines<'_>, escape: char) -> Logical {
    let mut logical = Logical {
        joined: String::new(),
        pieces: Vec::new(),
    };
    let mut piece = (start, line);
    while let Some(before) = continued(piece.1, escape) {
        logical.push(piece.0, before);
        // Comments and empty lines do not end a continuation.
        let next = lines.find(|(_, line)| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with('#')
        });
        match next {
            Some(next) => piece = next,
            None => return logical,
        }
    }
    logical.push(piece.0, piece.1);
    logical
}

/// What stands before the escape that joins this line to the next.
pub fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t', '\r']).strip_suffix(escape)
}

struct Word {
    name: String,
    expand: bool,
    strip_tabs: bool,
}

fn heredoc_words(logical: &Logical, escape: char) -> Vec<(usize, Word)> {
    let text = &logical.joined;
    let spans = words::spans(text, escape);
    let word = |at: usize| {
        spans
            .get(at)
            .and_then(|(from, to)| text.get(*from..*to))
            .unwrap_or_default()
            .to_ascii_uppercase()
    };
    let takes = |word: &str| matches!(word, "RUN" | "COPY" | "ADD");
    if !(takes(&word(0)) || (word(0) == "ONBUILD" && takes(&word(1)))) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (from, to) in &spans {
        let Some(raw) = text.get(*from..*to) else { continue };
        let digits = raw.len() - raw.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if let Some(word) = raw.get(digits..).and_then(|rest| heredoc_word(rest, escape))
            && let Some(at) = logical.offset(from + digits)
        {
            found.push((at, word));
        }
    }
    found
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, `<<'NAME'`, `<<\NAME`.
fn heredoc_word(raw: &str, escape: char) -> Option<Word> {
    let rest = raw.strip_prefix("<<")?;
    let (rest, strip_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    if rest.contains('<') {
        return None;
    }
    let quoted = rest.contains(['"', '\'', escape]);
    let name = if quoted {
        rest.chars()
            .filter(|c| !matches!(c, '"' | '\'') && *c != escape)
            .collect()
    } else {
        rest.to_owned()
    };
    (!name.is_empty()).then_some(Word {
        name,
        expand: !quoted,
        strip_tabs,
    })
}

/// Reads the lines of a here-document, covers them, and takes the line that ends it.
fn body(lines: &mut Lines<'_>, covered: &mut [u8], word: &Word) -> Option<String> {
    let mut content = String::new();
    loop {
        let (start, line) = lines.next()?;
        for (at, place) in covered.iter_mut().skip(start).take(line.len()).enumerate() {
            *place = if at == 0 { b'#' } else { b' ' };
        }
        let line = if word.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        if line == word.name {
            return Some(content);
        }
        content.push_str(line);
        content.push('\n');
    }
}

/// The character that the directive `# escape=` at the top names.
fn escape_directive(text: &str) -> Result<char, At> {
    for (at, line) in text.lines().enumerate() {
        let Some((name, value)) = line.strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            break;
        }
        if name.eq_ignore_ascii_case("escape") {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                other => Err((at + 1, format!("the escape character is \\ or `, not {other}"))),
            };
        }
    }
    Ok('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_covered_and_offsets_kept() {
        let text =
            "FROM a\nRUN cat <<EOF > /x\nRUN no\n\nEOF\nCOPY <<-a <<'b' /d/\n\t1 $x\n\ta\n2\nb\nUSER u\n";
        let covered = cover(text).unwrap();
        assert_eq!(covered.text.len(), text.len());
        assert_eq!(covered.text.lines().count(), text.lines().count());
        assert!(!covered.text.contains("RUN no") && covered.text.contains("USER u"));
        assert_eq!(uncover(&covered.text).matches("<<").count(), 3);
        let docs: Vec<_> = covered
            .docs
            .iter()
            .map(|doc| (doc.name.as_str(), doc.content.as_str(), doc.expand))
            .collect();
        assert_eq!(
            docs,
            [
                ("EOF", "RUN no\n\n", true),
                ("a", "1 $x\n", true),
                ("b", "2\n", false)
            ]
        );
        for doc in &covered.docs {
            assert_eq!(text.get(doc.at..doc.at + 2), Some("<<"));
        }
    }

    #[test]
    fn continuations_and_comments_between() {
        let text = "FROM a\nRUN a \\\n# no\n\n  && cat <<E\nx\nE\n";
        let covered = cover(text).unwrap();
        assert_eq!(covered.docs.len(), 1);
        assert_eq!(covered.docs[0].content, "x\n");
        assert_eq!(text.get(covered.docs[0].at..covered.docs[0].at + 3), Some("<<E"));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "ENV a <<EOF\n",
            "RUN a <<< b\n",
            "RUN [\"<<EOF\"]\n",
            "RUN cat<<EOF\n",
            "# RUN <<EOF\n",
            "RUN a << b\n",
        ] {
            assert!(cover(text).unwrap().docs.is_empty(), "{text}");
        }
        assert_eq!(cover("RUN a\nRUN cat <<EOF\nx\n").unwrap_err().0, 2);
    }

    #[test]
    fn the_escape_directive() {
        assert_eq!(cover("# syntax=x\n# escape=`\nFROM a").unwrap().escape, '`');
        assert_eq!(cover("# a comment\n# escape=`\nFROM a").unwrap().escape, '\\');
        assert!(cover("# escape=x\n").is_err());
    }
}
