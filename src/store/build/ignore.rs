//! Ignore files: which paths of a context are not part of it.
//!
//! Docker's rules: one pattern a line, `#` first makes a comment, `!` takes back, the last pattern that matches a
//! path or a directory above it decides.

use super::pattern::{Flavour, Pattern};
use crate::builder::TreePath;

#[derive(Debug, Clone)]
struct Rule {
    takes_back: bool,
    /// One for each beginning of a path: the pattern itself.
    pattern: Pattern,
}

/// The rules of one ignore file; without any, nothing is ignored.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

impl Ignore {
    /// No rules.
    pub const fn nothing() -> Self {
        Self { rules: Vec::new() }
    }

    /// Reads the text of an ignore file.
    ///
    /// # Errors
    /// The line (from 1) and the reason, for a pattern that is none.
    pub fn parse(text: &[u8]) -> Result<Self, (usize, String)> {
        let mut rules = Vec::new();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.first() == Some(&b'#') {
                continue;
            }
            let line = line.trim_ascii();
            let (takes_back, pattern) = match line.strip_prefix(b"!") {
                Some(rest) => (true, rest.trim_ascii()),
                None => (false, line),
            };
            if pattern.is_empty() {
                if takes_back {
                    return Err((at + 1, "a ! needs a pattern behind it".to_owned()));
                }
                continue;
            }
            let clean = clean(pattern);
            if clean.is_empty() {
                // "." and "/" name the context itself, which is never ignored.
                continue;
            }
            rules.push(Rule {
                takes_back,
                pattern: Pattern::new(&clean, Flavour::Ignore).map_err(|reason| (at + 1, reason))?,
            });
        }
        Ok(Self { rules })
    }

    /// Whether `path` is left out.
    pub fn is_ignored(&self, path: &TreePath) -> bool {
        if self.rules.is_empty() || path.is_root() {
            return false;
        }
        let mut ignored = false;
        for rule in &self.rules {
            // Only a rule that would change the answer needs a look.
            if rule.takes_back == ignored && rule.matches(path) {
                ignored = !rule.takes_back;
            }
        }
        ignored
    }

    /// Whether something below an ignored directory may be taken back.
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_back)
    }
}

impl Rule {
    fn matches(&self, path: &TreePath) -> bool {
        let bytes = path.as_bytes();
        let found = self.pattern.prefixes(bytes);
        found
            .iter()
            .any(|end| *end == bytes.len() || (*end > 0 && bytes.get(*end) == Some(&b'/')))
    }
}

/// As Go's `filepath.Clean`, with no `/` at either end: `.` and empty names fall, `..` takes a name with it.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(rules: &str, path: &str) -> bool {
        Ignore::parse(rules.as_bytes())
            .unwrap()
            .is_ignored(&TreePath::from_clean(path))
    }

    #[test]
    fn patterns_reach_what_lies_below() {
        assert!(ignored("node_modules", "node_modules/a/b"));
        assert!(ignored("/a/", "a") && ignored("./a", "a/b") && ignored("a/../b", "b"));
        assert!(!ignored("a", "ab") && !ignored("a", "b/a") && ignored("**/a", "b/a/c"));
        assert!(ignored("*", ".hidden") && ignored("*/temp*", "d/temporary") && !ignored("*/temp*", "temp"));
    }

    #[test]
    fn the_last_word_decides() {
        let rules = "*.md\n!README*.md\nREADME-secret.md\n";
        assert!(ignored(rules, "a.md") && !ignored(rules, "README.md") && ignored(rules, "README-secret.md"));
        assert!(!ignored("dir\n!dir/keep", "dir/keep") && ignored("dir\n!dir/keep", "dir/other"));
        assert!(!ignored(
            "README-secret.md\n*.md\n!README*.md",
            "README-secret.md"
        ));
    }

    #[test]
    fn comments_and_blanks() {
        assert!(!ignored("# a\n\n   \n.\n/\n", "a"));
        assert!(ignored("\u{feff}a", "a") && ignored("  a  \r\n", "a"));
        assert!(ignored(" # a", "# a"));
        assert!(Ignore::parse(b"a\n!\n").unwrap_err().0 == 2);
        assert!(Ignore::parse(b"[").unwrap_err().0 == 1);
    }

    #[test]
    fn the_context_itself_is_never_ignored() {
        assert!(!Ignore::parse(b"**").unwrap().is_ignored(&TreePath::root()));
        assert!(ignored("**", "a/b") && !ignored("**\n!a", "a/b"));
    }
}
