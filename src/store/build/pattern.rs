//! Patterns over path names: wildcards of sources and the richer ones of ignore files.
//!
//! A pattern is compiled to a row of tokens and matched by keeping the set of places reached, so the time is linear
//! in pattern and text whatever the stars: patterns come with the context and are not trusted.

/// What the star and the question mark may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// `*` and `?` stop at `/`; `**` means nothing special: what COPY takes.
    Name,
    /// As [`Flavour::Name`], and `**` stands for any number of directories: what ignore files take.
    Ignore,
    /// `*` and `?` stand for `/` too: what `${name#pattern}` takes.
    Shell,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// One byte that is not `/`.
    One,
    /// One byte, whichever.
    Any,
    /// Any number of bytes that are not `/`.
    Star,
    /// Any number of bytes.
    Stars,
    /// Nothing, or any number of bytes that end with `/`.
    Directories,
    /// One byte of a class; never `/`.
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// The reason in words: an open `[`, or a `\` at the end.
    pub fn new(text: &[u8], flavour: Flavour) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((byte, mut next)) = rest.split_first() {
            tokens.push(match byte {
                b'*' if flavour == Flavour::Ignore && next.first() == Some(&b'*') => {
                    next = next.get(1..).unwrap_or_default();
                    match next.split_first() {
                        Some((b'/', after)) => {
                            next = after;
                            Token::Directories
                        }
                        _ => Token::Stars,
                    }
                }
                b'*' if flavour == Flavour::Shell => Token::Stars,
                b'*' => Token::Star,
                b'?' if flavour == Flavour::Shell => Token::Any,
                b'?' => Token::One,
                b'[' => {
                    let (class, after) = class(next).ok_or_else(|| "a [ is not closed by ]".to_owned())?;
                    next = after;
                    class
                }
                b'\\' => {
                    let (escaped, after) = next
                        .split_first()
                        .ok_or_else(|| "a \\ stands at the end".to_owned())?;
                    next = after;
                    Token::Byte(*escaped)
                }
                byte => Token::Byte(*byte),
            });
            rest = next;
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern holds no wildcard, so that it names one path.
    pub fn is_literal(text: &[u8]) -> bool {
        !text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
    }

    /// Whether it matches all of `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.prefixes(text).last() == Some(&text.len())
    }

    /// The lengths of all beginnings of `text` that it matches, ascending.
    pub fn prefixes(&self, text: &[u8]) -> Vec<usize> {
        let end = self.tokens.len();
        let mut found = Vec::new();
        let mut places = vec![false; end + 1];
        self.reach(&mut places, 0);
        for position in 0..=text.len() {
            if places.get(end) == Some(&true) {
                found.push(position);
            }
            let Some(byte) = text.get(position) else { break };
            let mut next = vec![false; end + 1];
            for (at, token) in self.tokens.iter().enumerate() {
                if places.get(at) != Some(&true) {
                    continue;
                }
                match token {
                    Token::Byte(expected) if expected == byte => self.reach(&mut next, at + 1),
                    Token::One if *byte != b'/' => self.reach(&mut next, at + 1),
                    Token::Any => self.reach(&mut next, at + 1),
                    Token::Star if *byte != b'/' => self.reach(&mut next, at),
                    Token::Stars => self.reach(&mut next, at),
                    // Only behind a slash may the pattern go on; a mark at `at` means "inside the directories".
                    Token::Directories => {
                        mark(&mut next, at);
                        if *byte == b'/' {
                            self.reach(&mut next, at + 1);
                        }
                    }
                    Token::Class { negated, ranges } if *byte != b'/' => {
                        let inside = ranges.iter().any(|(low, high)| (low..=high).contains(&byte));
                        if inside != *negated {
                            self.reach(&mut next, at + 1);
                        }
                    }
                    _ => {}
                }
            }
            places = next;
        }
        found
    }

    /// Marks a place, and those behind it that need no byte.
    fn reach(&self, places: &mut [bool], mut at: usize) {
        loop {
            mark(places, at);
            match self.tokens.get(at) {
                Some(Token::Star | Token::Stars | Token::Directories) => at += 1,
                _ => return,
            }
        }
    }
}

fn mark(places: &mut [bool], at: usize) {
    if let Some(place) = places.get_mut(at) {
        *place = true;
    }
}

/// A class behind its `[`, and what follows the `]`.
fn class(text: &[u8]) -> Option<(Token, &[u8])> {
    let (negated, mut rest) = match text.split_first() {
        Some((b'^' | b'!', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty()
            && let Some((b']', after)) = rest.split_first()
        {
            return Some((Token::Class { negated, ranges }, after));
        }
        let (low, after) = class_byte(rest)?;
        rest = after;
        let high = match rest.split_first() {
            Some((b'-', after)) if after.first() != Some(&b']') => {
                let (high, after) = class_byte(after)?;
                rest = after;
                high
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

fn class_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    match text.split_first()? {
        (b'\\', rest) => rest.split_first().map(|(byte, rest)| (*byte, rest)),
        (byte, rest) => Some((*byte, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(flavour: Flavour, pattern: &str, text: &str) -> bool {
        Pattern::new(pattern.as_bytes(), flavour)
            .unwrap()
            .matches(text.as_bytes())
    }

    #[test]
    fn names() {
        let m = |p, t| matches(Flavour::Name, p, t);
        assert!(m("*.txt", "a.txt") && m("*", "") && m("a?c", "abc") && m("[a-c]x", "bx"));
        assert!(!m("*.txt", "d/a.txt") && !m("a?c", "a/c") && !m("[^a]", "/") && !m("[^a]b", "ab"));
        assert!(m("\\*", "*") && !m("\\*", "a") && m("[]a]", "]") && m("[a-]", "-"));
        assert!(m("a**b", "axyb") && !m("a**b", "a/b"));
    }

    #[test]
    fn any_number_of_directories() {
        let m = |p, t| matches(Flavour::Ignore, p, t);
        assert!(m("**/x", "x") && m("**/x", "a/x") && m("**/x", "a/b/x") && !m("**/x", "ax"));
        assert!(m("a/**", "a/b/c") && m("**", "a/b") && m("a/**/b", "a/b") && m("a/**/b", "a/x/y/b"));
        assert!(m("**/*.go", "a/b.go") && m("a**", "a/b/c") && !m("*/x", "a/b/x"));
    }

    #[test]
    fn prefixes_of_a_value() {
        let p = Pattern::new(b"*/", Flavour::Shell).unwrap();
        assert_eq!(p.prefixes(b"a/b/c"), [2, 4]);
    }

    #[test]
    fn stars_cost_no_more_than_their_number() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(Flavour::Name, &pattern, &"a".repeat(2000)));
    }

    #[test]
    fn what_is_no_pattern() {
        assert!(Pattern::new(b"[a", Flavour::Name).is_err());
        assert!(Pattern::new(b"a\\", Flavour::Name).is_err());
        assert!(Pattern::is_literal(b"a/b") && !Pattern::is_literal(b"a*"));
    }
}
