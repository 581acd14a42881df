//! Reading and changing one value of a configuration, with everything around it left alone.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

/// How a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// storage.conf
    Toml,
    /// daemon.json
    Json,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
        })
    }
}

/// Why a text cannot be read or changed.
pub(super) type Reason = String;

impl Syntax {
    /// The value at `key`, as it is written there.
    pub(super) fn get(self, text: &str, key: &[String]) -> Result<Option<String>, Reason> {
        match self {
            Self::Toml => toml_get(&toml(text)?, key),
            Self::Json => Ok(members(text)?
                .into_iter()
                .rfind(|member| key.first() == Some(&member.name))
                .map(|member| member.value.get().to_owned())),
        }
    }

    /// The text with `value` at `key`.
    pub(super) fn set(self, text: &str, key: &[String], value: &str) -> Result<String, Reason> {
        match self {
            Self::Toml => toml_set(text, key, value),
            Self::Json => json_set(text, key, value),
        }
    }

    /// The text without `key`.
    pub(super) fn remove(self, text: &str, key: &[String]) -> Result<String, Reason> {
        match self {
            Self::Toml => toml_remove(text, key),
            Self::Json => json_remove(text, key),
        }
    }
}

fn toml(text: &str) -> Result<DocumentMut, Reason> {
    text.parse::<DocumentMut>()
        .map_err(|error| one_line(&error.to_string()))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn toml_get(document: &DocumentMut, key: &[String]) -> Result<Option<String>, Reason> {
    let Some((last, tables)) = key.split_last() else {
        return Ok(None);
    };
    let mut table: &dyn TableLike = document.as_table();
    for name in tables {
        match table.get(name) {
            None => return Ok(None),
            Some(item) => table = item.as_table_like().ok_or_else(|| no_table(name))?,
        }
    }
    Ok(table.get(last).map(|item| match item.as_value() {
        // Without the remark behind it.
        Some(value) => value.clone().decorated("", "").to_string(),
        None => item.to_string(),
    }))
}

fn no_table(name: &str) -> Reason {
    format!("'{name}' is no table")
}

/// The table that holds the last part of `key`, made where it is missing.
fn table_of<'a>(document: &'a mut DocumentMut, tables: &[String]) -> Result<&'a mut dyn TableLike, Reason> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, name) in tables.iter().enumerate() {
        let item = table.entry(name).or_insert_with(|| {
            let mut new = Table::new();
            // `[storage.options]` need not be written for `[storage.options.overlay]`.
            new.set_implicit(depth.saturating_add(1) < tables.len());
            Item::Table(new)
        });
        table = item.as_table_like_mut().ok_or_else(|| no_table(name))?;
    }
    Ok(table)
}

fn toml_set(text: &str, key: &[String], value: &str) -> Result<String, Reason> {
    let mut document = toml(text)?;
    let Some((last, tables)) = key.split_last() else {
        return Err("no key".to_owned());
    };
    let mut value: Value = value
        .parse()
        .map_err(|error: toml_edit::TomlError| one_line(&error.to_string()))?;
    let table = table_of(&mut document, tables)?;
    match table.get_mut(last) {
        Some(Item::Value(old)) => {
            // A remark behind the value stays.
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        Some(_) => return Err(format!("'{last}' is no plain value")),
        None => {
            table.insert(last, Item::Value(value));
        }
    }
    Ok(document.to_string())
}

fn toml_remove(text: &str, key: &[String]) -> Result<String, Reason> {
    let mut document = toml(text)?;
    let Some((last, tables)) = key.split_last() else {
        return Err("no key".to_owned());
    };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for name in tables {
        match table.get_mut(name) {
            None => return Ok(text.to_owned()),
            Some(item) => table = item.as_table_like_mut().ok_or_else(|| no_table(name))?,
        }
    }
    table.remove(last);
    Ok(document.to_string())
}

/// One member of an object; the value is a piece of the text itself.
struct Member<'a> {
    name: String,
    value: &'a RawValue,
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.push(Member { name, value });
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn members(text: &str) -> Result<Vec<Member<'_>>, Reason> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Members<'_>>(text)
        .map(|members| members.0)
        .map_err(|error| error.to_string())
}

/// Where `part`, a piece of `text`, begins and ends in it, in bytes.
fn span(text: &str, part: &str) -> (usize, usize) {
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    (start, start.saturating_add(part.len()))
}

fn json_set(text: &str, key: &[String], value: &str) -> Result<String, Reason> {
    let [name] = key else {
        return Err("only members of the outermost object can be set".to_owned());
    };
    let members = members(text)?;
    let quoted = serde_json::to_string(name).map_err(|error| error.to_string())?;
    if let Some(member) = members.iter().rfind(|member| member.name == *name) {
        let (start, end) = span(text, member.value.get());
        return splice(text, start, end, value);
    }
    let Some(last) = members.last() else {
        return Ok(format!("{{\n    {quoted}: {value}\n}}\n"));
    };
    // As the first member is indented, so is the new one; on one line, if all are on one.
    let open = text.find('{').map_or(0, |at| at.saturating_add(1));
    let rest = text.get(open..).unwrap_or_default();
    let gap = rest.split('"').next().unwrap_or_default();
    let gap = match gap.rsplit_once('\n') {
        Some((_, indent)) => format!("\n{indent}"),
        None => " ".to_owned(),
    };
    let (_, end) = span(text, last.value.get());
    splice(text, end, end, &format!(",{gap}{quoted}: {value}"))
}

fn json_remove(text: &str, key: &[String]) -> Result<String, Reason> {
    let [name] = key else {
        return Err("only members of the outermost object can be removed".to_owned());
    };
    let members = members(text)?;
    let Some(at) = members.iter().rposition(|member| member.name == *name) else {
        return Ok(text.to_owned());
    };
    let end_of = |index: usize| {
        members
            .get(index)
            .map_or(0, |member| span(text, member.value.get()).1)
    };
    let open = text.find('{').map_or(0, |at| at.saturating_add(1));
    if let Some(before) = at.checked_sub(1) {
        return splice(text, end_of(before), end_of(at), "");
    }
    // The first of several: what follows it, up to the comma, goes too.
    let end = end_of(at);
    let comma = text.get(end..).unwrap_or_default().find(',');
    let end = match comma.filter(|_| members.len() > 1) {
        Some(comma) => end.saturating_add(comma).saturating_add(1),
        None => end,
    };
    splice(text, open, end, "")
}

fn splice(text: &str, start: usize, end: usize, new: &str) -> Result<String, Reason> {
    match (text.get(..start), text.get(end..)) {
        (Some(head), Some(tail)) => Ok([head, new, tail].concat()),
        _ => Err("its members cannot be told apart".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    const CONF: &str = "# The storage of all\n[storage]\n\n  # which driver\ndriver = \"vfs\" # for now\n\
        runroot = '/run/x'\n\n[storage.options]\n# additionalimagestores = []\n\n[storage.options.overlay]\n\
        # mount_program = \"/usr/bin/fuse-overlayfs\"\nmountopt = \"nodev\"\n\n# the end\n";

    #[test]
    fn toml_keeps_everything_else() {
        let driver = key(&["storage", "driver"]);
        let program = key(&["storage", "options", "overlay", "mount_program"]);
        assert_eq!(Syntax::Toml.get(CONF, &driver), Ok(Some("\"vfs\"".into())));
        assert_eq!(Syntax::Toml.get(CONF, &program), Ok(None));
        let text = Syntax::Toml.set(CONF, &driver, "\"overlay\"").unwrap();
        let text = Syntax::Toml.set(&text, &program, "\"/usr/bin/plyfs\"").unwrap();
        let expected = CONF.replace("driver = \"vfs\"", "driver = \"overlay\"").replace(
            "mountopt = \"nodev\"\n",
            "mountopt = \"nodev\"\nmount_program = \"/usr/bin/plyfs\"\n",
        );
        assert_eq!(text, expected);
        let text = Syntax::Toml.remove(&text, &program).unwrap();
        assert_eq!(Syntax::Toml.set(&text, &driver, "\"vfs\"").unwrap(), CONF);
    }

    #[test]
    fn toml_from_nothing_and_from_other_forms() {
        let program = key(&["storage", "options", "overlay", "mount_program"]);
        let text = Syntax::Toml.set("", &program, "\"/p\"").unwrap();
        assert_eq!(text, "[storage.options.overlay]\nmount_program = \"/p\"\n");
        let dotted = "storage.driver = \"overlay\"\nstorage.options.overlay = { mountopt = \"nodev\" }\n";
        let text = Syntax::Toml.set(dotted, &program, "\"/p\"").unwrap();
        assert_eq!(Syntax::Toml.get(&text, &program), Ok(Some("\"/p\"".into())));
        assert!(text.contains("mountopt = \"nodev\""), "{text}");
        assert!(Syntax::Toml.set("storage = 1\n", &program, "\"/p\"").is_err());
        assert!(Syntax::Toml.get("[storage\n", &program).is_err());
    }

    #[test]
    fn json_keeps_everything_else() {
        let driver = key(&["storage-driver"]);
        let text = "{\n  \"log-opts\": {\"max-size\":   \"1m\", \"n\": 1e400},\n  \"debug\": true\n}\n";
        let with = Syntax::Json.set(text, &driver, "\"fuse-overlayfs\"").unwrap();
        assert_eq!(
            with,
            text.replace("true\n", "true,\n  \"storage-driver\": \"fuse-overlayfs\"\n")
        );
        assert_eq!(Syntax::Json.remove(&with, &driver).unwrap(), text);
        let other = Syntax::Json.set(&with, &driver, "\"vfs\"").unwrap();
        assert_eq!(Syntax::Json.get(&other, &driver), Ok(Some("\"vfs\"".into())));
        assert_eq!(
            Syntax::Json.set(&other, &driver, "\"fuse-overlayfs\"").unwrap(),
            with
        );
        // First of several, and the only one.
        assert_eq!(
            Syntax::Json
                .remove("{\"storage-driver\": \"a\", \"b\": 1}", &driver)
                .unwrap(),
            "{ \"b\": 1}"
        );
        assert_eq!(
            Syntax::Json
                .remove("{\"storage-driver\": \"a\"}", &driver)
                .unwrap(),
            "{}"
        );
        assert_eq!(
            Syntax::Json.set("{\"b\":1}", &driver, "\"a\"").unwrap(),
            "{\"b\":1, \"storage-driver\": \"a\"}"
        );
        for empty in ["", " \n", "{}"] {
            let text = Syntax::Json.set(empty, &driver, "\"a\"").unwrap();
            assert_eq!(text, "{\n    \"storage-driver\": \"a\"\n}\n");
        }
        assert!(Syntax::Json.get("{\"a\": 1,}", &driver).is_err());
        assert!(Syntax::Json.get("[]", &driver).is_err());
    }
}
