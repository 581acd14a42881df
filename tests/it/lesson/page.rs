//! Pages, read without a browser.

/// Checks that tags are closed in order, and that the page asks for nothing from elsewhere.
pub fn stands_alone(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    for word in [
        "http://", "https://", " src=", "<link", "url(", "@import", "<iframe", "<img",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("prefers-reduced-motion"));
    assert!(page.contains("<html lang=\"en\">") && page.contains("name=\"viewport\""));
    let mut open: Vec<&str> = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for (tag, text) in tags(page) {
        assert!(
            !text.contains('>') || matches!(open.last(), Some(&"script" | &"style")),
            "{text}"
        );
        let name = tag
            .trim_start_matches('/')
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap();
        if tag.starts_with('!') || matches!(name, "meta" | "input" | "br") {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed");
        } else {
            if let Some(id) = tag.split(" id=\"").nth(1).and_then(|rest| rest.split('"').next()) {
                assert!(ids.insert(id), "id {id} twice");
            }
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
    for target in page.split("href=\"#").skip(1) {
        let target = target.split('"').next().unwrap();
        assert!(ids.contains(target), "#{target}");
    }
}

/// Each tag, and the text in front of it. The insides of scripts and styles are text.
fn tags(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let raw = found
            .last()
            .map(|(tag, _): &(&str, &str)| *tag)
            .filter(|tag| matches!(*tag, "script" | "style"));
        let start = raw.map_or(start, |tag| rest.find(&format!("</{tag}")).unwrap());
        let end = start + rest[start..].find('>').expect("a tag ends");
        found.push((&rest[start + 1..end], &rest[..start]));
        rest = &rest[end + 1..];
    }
    found
}

/// The text that is seen where no script runs, white space squeezed.
pub fn readable_text(page: &str) -> String {
    let mut text = String::new();
    let mut hidden = 0_usize;
    for (tag, before) in tags(page) {
        let closes = tag.starts_with('/');
        let is_div = tag.trim_start_matches('/').starts_with("div");
        let skipped = tag == "/script" || tag == "/style" || tag == "/title";
        if hidden == 0 && !skipped {
            text.push_str(before);
            text.push(' ');
        }
        // What only slides show is in a hidden div.
        if hidden > 0 && is_div {
            hidden = if closes { hidden - 1 } else { hidden + 1 };
        } else if is_div && tag.ends_with(" hidden") {
            hidden = 1;
        }
    }
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
