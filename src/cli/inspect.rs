//! Printing objects in docker's JSON shape, and the template forms of `-f` that people type.

use std::str::FromStr;

use serde_json::Value;

use super::Failure;
use super::output::print;

/// What `-f` takes, for help texts.
pub(super) const FORMAT_HELP: &str = "\
With -f, text in which '{{ .A.B }}' stands for one value and '{{json .A.B}}' for
it as JSON; '.' alone is the whole object.";

/// The text after `-f`: literal pieces, and paths into the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Path { keys: Vec<String>, json: bool },
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let Some((action, after)) = behind.split_once("}}") else {
                return Err(format!("'{{{{{behind}' has no '}}}}'"));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(parse_action(action)?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }
}

fn parse_action(action: &str) -> Result<Piece, String> {
    let refuse =
        || format!("'{{{{{action}}}}}' is not supported: only '{{{{ .A.B }}}}' and '{{{{json .A.B}}}}' are");
    let words: Vec<&str> = action.split_ascii_whitespace().collect();
    let (path, json) = match words.as_slice() {
        [path] => (*path, false),
        ["json", path] => (*path, true),
        _ => return Err(refuse()),
    };
    let keys = path.strip_prefix('.').ok_or_else(refuse)?;
    if keys.is_empty() {
        return Ok(Piece::Path {
            keys: Vec::new(),
            json,
        });
    }
    let keys: Vec<String> = keys.split('.').map(str::to_owned).collect();
    let word = |key: &String| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
    if keys.iter().all(word) {
        Ok(Piece::Path { keys, json })
    } else {
        Err(refuse())
    }
}

impl Template {
    /// The text for one object.
    fn fill(&self, object: &Value) -> Result<String, Failure> {
        let mut text = String::new();
        for piece in &self.pieces {
            let (keys, json) = match piece {
                Piece::Text(literal) => {
                    text.push_str(literal);
                    continue;
                }
                Piece::Path { keys, json } => (keys, *json),
            };
            let mut value = object;
            for key in keys {
                value = value.get(key).ok_or_else(|| {
                    Failure::Failed(format!("there is no .{} in the object", keys.join(".")))
                })?;
            }
            match value {
                Value::String(plain) if !json => text.push_str(plain),
                value => text.push_str(&value.to_string()),
            }
        }
        Ok(text)
    }
}

/// Prints objects: as one JSON array, or each by the template, a line for each.
pub(super) fn print_objects(objects: &[Value], format: Option<&Template>) -> Result<(), Failure> {
    let text = match format {
        None => {
            let mut text = serde_json::to_string_pretty(objects).map_err(std::io::Error::from)?;
            text.push('\n');
            text
        }
        Some(template) => {
            let mut text = String::new();
            for object in objects {
                text.push_str(&template.fill(object)?);
                text.push('\n');
            }
            text
        }
    };
    Ok(print(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(template: &str) -> Result<String, Failure> {
        let object =
            json!({"Id": "x", "GraphDriver": {"Name": "overlay", "Data": {"RootDir": "/r"}}, "Size": 7});
        template
            .parse::<Template>()
            .map_err(Failure::Usage)?
            .fill(&object)
    }

    #[test]
    fn the_forms_people_type() {
        assert_eq!(fill("{{ .GraphDriver.Data.RootDir }}").unwrap(), "/r");
        assert_eq!(fill("{{.GraphDriver.Data.RootDir}}").unwrap(), "/r");
        assert_eq!(
            fill("{{json .GraphDriver.Data }}").unwrap(),
            r#"{"RootDir":"/r"}"#
        );
        assert_eq!(fill("{{json .Id}} {{.Size}} bytes").unwrap(), r#""x" 7 bytes"#);
        assert!(fill("{{json .}}").unwrap().starts_with('{'));
        assert_eq!(fill("plain").unwrap(), "plain");
    }

    #[test]
    fn what_is_refused() {
        for wrong in [
            "{{range .Mounts}}",
            "{{.A",
            "{{}}",
            "{{index .A 0}}",
            "{{ .A..B }}",
            "{{json}}",
            "{{A}}",
        ] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
        assert!(matches!(fill("{{.None.X}}"), Err(Failure::Failed(_))));
    }
}
