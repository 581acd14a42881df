//! Putting in variables and taking quotes off, as docker's own small shell does.
//!
//! `$name`, `${name}`, `${name:-word}`, `${name-word}`, `${name:+word}`, `${name+word}`, `${name:?word}`,
//! `${name?word}`, `${name#pattern}`, `##`, `%`, `%%`, `${name/pattern/word}`, `//`. A name that is not set stands
//! for nothing.

use std::iter::Peekable;
use std::str::Chars;

use super::pattern::{Flavour, Pattern};

/// Looks up a variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How deep `${a:-${b:-..}}` may go.
const DEPTH: usize = 64;

/// Expands one word and takes its quotes and escapes off.
///
/// # Errors
/// The reason in words: an open quote or brace, an unknown modifier, `${name:?reason}`.
pub fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut shell = Shell {
        chars: word.chars().peekable(),
        escape,
        lookup,
        depth: 0,
    };
    shell
        .until(None)
        .map_err(|reason| format!("{reason} in {word:?}"))
}

/// Expands a text and leaves its quotes as they are: the body of a heredoc.
///
/// # Errors
/// As [`expand`].
pub fn expand_body(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut shell = Shell {
        chars: text.chars().peekable(),
        escape,
        lookup,
        depth: 0,
    };
    let mut out = String::new();
    while let Some(c) = shell.chars.next() {
        match c {
            '$' => out.push_str(&shell.dollar()?),
            c if c == escape => match shell.chars.peek() {
                Some(next) if *next == '$' || *next == escape => {
                    out.push(*next);
                    shell.chars.next();
                }
                _ => out.push(c),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

struct Shell<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
}

impl Shell<'_> {
    /// Up to an unquoted `stop` (which is taken), or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            if Some(c) == stop {
                return Ok(out);
            }
            match c {
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                c if c == self.escape => out.extend(self.chars.next()),
                c => out.push(c),
            }
        }
        match stop {
            Some(stop) => Err(format!("a {stop} is missing")),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err("a ' is not closed".to_owned())
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.dollar()?),
                c if c == self.escape => match self.chars.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.push(next),
                    Some(next) => {
                        out.push(c);
                        out.push(next);
                    }
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err("a \" is not closed".to_owned())
    }

    /// What stands behind a `$`.
    fn dollar(&mut self) -> Result<String, String> {
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok((self.lookup)(&name).unwrap_or_default());
        }
        self.chars.next();
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("more than {DEPTH} ${{ inside each other"));
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("${ needs a name".to_owned());
        }
        let value = (self.lookup)(&name);
        match self.chars.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => match self.chars.next() {
                Some(modifier @ ('-' | '+' | '?')) => {
                    self.fallback(&name, modifier, value.filter(|value| !value.is_empty()))
                }
                Some(other) => Err(format!("${{{name}:{other} is not known")),
                None => Err("a } is missing".to_owned()),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.fallback(&name, modifier, value),
            Some(end @ ('#' | '%')) => {
                let longest = self.chars.next_if_eq(&end).is_some();
                let pattern = self.pattern(&['}'])?.0;
                let value = value.unwrap_or_default();
                Ok(trim(&value, &pattern, end == '#', longest))
            }
            Some('/') => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let (pattern, stopped) = self.pattern(&['/', '}'])?;
                let with = match stopped {
                    '/' => self.until(Some('}'))?,
                    _ => String::new(),
                };
                Ok(replace(&value.unwrap_or_default(), &pattern, &with, all))
            }
            Some(other) => Err(format!("${{{name}{other} is not known")),
            None => Err("a } is missing".to_owned()),
        }
    }

    fn fallback(&mut self, name: &str, modifier: char, value: Option<String>) -> Result<String, String> {
        let word = self.until(Some('}'))?;
        match (modifier, value) {
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('-' | '?', Some(value)) => Ok(value),
            ('+', None) => Ok(String::new()),
            _ if word.is_empty() => Err(format!("{name} is not set")),
            _ => Err(format!("{name}: {word}")),
        }
    }

    /// A name, a number, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    /// A pattern, with its escapes, up to one of `stops`.
    fn pattern(&mut self, stops: &[char]) -> Result<(Pattern, char), String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            if stops.contains(&c) {
                return Ok((Pattern::new(text.as_bytes(), Flavour::Shell)?, c));
            }
            match c {
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => {
                    text.push('\\');
                    text.extend(self.chars.next());
                }
                c => text.push(c),
            }
        }
        Err("a } is missing".to_owned())
    }
}

fn trim(value: &str, pattern: &Pattern, front: bool, longest: bool) -> String {
    let bytes = value.as_bytes();
    let cut = if front {
        let found = pattern.prefixes(bytes);
        let mut ends = found.into_iter().filter(|end| value.is_char_boundary(*end));
        if longest { ends.next_back() } else { ends.next() }.and_then(|end| value.get(end..))
    } else {
        let mut starts = (0..=value.len()).filter(|start| {
            value
                .get(*start..)
                .is_some_and(|end| pattern.matches(end.as_bytes()))
        });
        if longest {
            starts.next()
        } else {
            starts.next_back()
        }
        .and_then(|start| value.get(..start))
    };
    cut.unwrap_or(value).to_owned()
}

fn replace(value: &str, pattern: &Pattern, with: &str, all: bool) -> String {
    let mut out = String::new();
    let mut rest = value;
    while !rest.is_empty() {
        let end = pattern
            .prefixes(rest.as_bytes())
            .into_iter()
            .rfind(|end| *end > 0 && rest.is_char_boundary(*end));
        if let Some(end) = end {
            out.push_str(with);
            rest = rest.get(end..).unwrap_or_default();
            if !all {
                break;
            }
        } else {
            let mut chars = rest.chars();
            out.extend(chars.next());
            rest = chars.as_str();
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("one".to_owned()),
            "path" => Some("/usr/lib/x.tar.gz".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        }
    }

    fn e(word: &str) -> String {
        expand(word, '\\', &lookup).unwrap()
    }

    #[test]
    fn plain_and_braced() {
        assert_eq!(e("$a/${a}b$none."), "one/oneb.");
        assert_eq!(e("$"), "$");
        assert_eq!(e("a$ b"), "a$ b");
        assert_eq!(e("$a_b"), "");
    }

    #[test]
    fn fallbacks() {
        assert_eq!(e("${none:-d} ${none-d} ${empty:-d} ${empty-d}"), "d d d ");
        assert_eq!(e("${a:+x} ${a+x} ${empty:+x} ${empty+x} ${none+x}"), "x x  x ");
        assert_eq!(e("${none:-${a}/${none:-z}}"), "one/z");
        assert_eq!(e("${a:?no}"), "one");
        assert!(
            expand("${none:?must be given}", '\\', &lookup)
                .unwrap_err()
                .contains("must be given")
        );
        assert!(expand("${empty:?}", '\\', &lookup).is_err());
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(e(r"\$a '$a' \\ a\b"), r"$a $a \ ab");
        assert_eq!(e(r#""$a \$a \" \n 'x'""#), r#"one $a " \n 'x'"#);
        assert_eq!(expand("`$a \\$a", '`', &lookup).unwrap(), "$a \\one");
    }

    #[test]
    fn parts_of_a_value() {
        assert_eq!(e("${path#*/}"), "usr/lib/x.tar.gz");
        assert_eq!(e("${path##*/}"), "x.tar.gz");
        assert_eq!(e("${path%.*}"), "/usr/lib/x.tar");
        assert_eq!(e("${path%%.*}"), "/usr/lib/x");
        assert_eq!(e("${path/lib/share}"), "/usr/share/x.tar.gz");
        assert_eq!(e(r"${path//\//_}"), "_usr_lib_x.tar.gz");
        assert_eq!(e("${path/nothing}"), "/usr/lib/x.tar.gz");
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for word in ["${a", "${}", "${a:x}", "${a!}", "'a", "\"a", "${a:-"] {
            assert!(expand(word, '\\', &lookup).is_err(), "{word}");
        }
        let deep = "${none:-".repeat(100);
        assert!(expand(&deep, '\\', &lookup).is_err());
    }

    #[test]
    fn bodies_keep_their_quotes() {
        assert_eq!(
            expand_body("echo \"$a\" '\\$a' it's \\n", '\\', &lookup).unwrap(),
            "echo \"one\" '$a' it's \\n"
        );
    }
}
