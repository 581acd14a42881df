//! Cutting the arguments of an instruction into words, as docker does: quotes and escapes stay in the words.

/// The words of `text`.
pub fn split(text: &str, escape: char) -> Vec<String> {
    spans(text, escape)
        .into_iter()
        .map(|(from, to)| text.get(from..to).unwrap_or_default().to_owned())
        .collect()
}

/// Where the words of `text` lie: byte offsets, the second behind the last byte.
pub fn spans(text: &str, escape: char) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if start.is_none() {
            if c.is_whitespace() {
                continue;
            }
            start = Some(at);
        }
        match quote {
            None if c.is_whitespace() => {
                if let Some(from) = start.take() {
                    found.push((from, at));
                }
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // What an escape stands before is no quote and no end; in single quotes it is a character like others.
            _ if c == escape && quote != Some('\'') => {
                chars.next();
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        found.push((from, text.len()));
    }
    found
}

/// `NAME=VALUE NAME=VALUE`, or the old form `NAME VALUE WITH SPACES`; quotes and escapes stay.
///
/// # Errors
/// The reason in words.
pub fn pairs(text: &str, escape: char, instruction: &str) -> Result<Vec<(String, String)>, String> {
    let words = spans(text, escape);
    let word = |span: &(usize, usize)| text.get(span.0..span.1).unwrap_or_default();
    let Some(first) = words.first() else {
        return Err(format!("{instruction} needs a name and a value"));
    };
    if !word(first).contains('=') {
        let value = text.get(first.1..).unwrap_or_default().trim();
        if value.is_empty() {
            return Err(format!("{instruction} needs a value for {}", word(first)));
        }
        return Ok(vec![(word(first).to_owned(), value.to_owned())]);
    }
    words
        .iter()
        .map(|span| {
            let word = word(span);
            match word.split_once('=') {
                Some(("", _)) => Err(format!("{instruction}: {word} has no name before the =")),
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(format!("{instruction}: {word} is not NAME=VALUE")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        assert_eq!(
            split(r#"a  "b c" d\ e 'f\' g"#, '\\'),
            ["a", r#""b c""#, r"d\ e", r"'f\'", "g"]
        );
        assert_eq!(split("a` b", '`'), ["a` b"]);
        assert_eq!(split(r#""a\" b" c"#, '\\'), [r#""a\" b""#, "c"]);
        assert_eq!(split("  ", '\\'), Vec::<String>::new());
        assert_eq!(split(r"a\", '\\'), [r"a\"]);
    }

    #[test]
    fn both_forms_of_pairs() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            pairs("A=1 B=\"x y\"", '\\', "ENV").unwrap(),
            [pair("A", "1"), pair("B", "\"x y\"")]
        );
        assert_eq!(
            pairs("A one  two=3", '\\', "ENV").unwrap(),
            [pair("A", "one  two=3")]
        );
        assert!(pairs("A=1 B", '\\', "ENV").is_err());
        assert!(pairs("A", '\\', "ENV").is_err());
        assert!(pairs("=1", '\\', "ENV").is_err());
    }
}
