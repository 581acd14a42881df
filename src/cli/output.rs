//! How answers look.

use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Lines of a label and a value, paths byte for byte.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: Vec<u8>,
}

impl Fields {
    /// A path, and a remark behind it.
    pub(super) fn path(&mut self, label: &str, path: &Path, remark: Option<&str>) {
        self.line(label, path.as_os_str().as_bytes(), remark);
    }

    /// A value in words.
    pub(super) fn text(&mut self, label: &str, value: &str) {
        self.line(label, value.as_bytes(), None);
    }

    fn line(&mut self, label: &str, value: &[u8], remark: Option<&str>) {
        self.text.extend_from_slice(format!("{label:<9}").as_bytes());
        self.text.extend_from_slice(value);
        if let Some(remark) = remark {
            self.text.push(b' ');
            self.text.extend_from_slice(remark.as_bytes());
        }
        self.text.push(b'\n');
    }

    /// An empty line between two blocks.
    pub(super) fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
    }

    /// Everything so far.
    pub(super) fn finish(self) -> Vec<u8> {
        self.text
    }
}

/// Columns under headings, as wide as their longest value.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
        }
    }

    /// One more row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Everything, with control characters escaped: a terminal obeys them.
    pub(super) fn finish(self) -> String {
        let rows: Vec<Vec<String>> = self
            .rows
            .into_iter()
            .map(|row| row.iter().map(|cell| escape(cell)).collect())
            .collect();
        let mut widths: Vec<usize> = Vec::new();
        for row in &rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        })
        .collect()
}

/// Prints a value as JSON, for programs.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), super::Failure> {
    let mut text = serde_json::to_vec_pretty(value).map_err(std::io::Error::from)?;
    text.push(b'\n');
    Ok(print(&text)?)
}

/// `3 h 20 min ago`, from a time in RFC 3339; what is no such time is shown as it is.
pub(super) fn ago(time: &str) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else {
        return time.to_owned();
    };
    let age = jiff::Timestamp::now()
        .as_second()
        .saturating_sub(then.as_second());
    u64::try_from(age).map_or_else(|_| time.to_owned(), |age| format!("{} ago", duration(age)))
}

/// Writes to standard output; a reader that has seen enough is no error.
pub(super) fn print(text: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// `1.5 MiB`
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[allow(clippy::cast_precision_loss)] // for people; two digits are shown
    let mut value = count as f64;
    let mut unit = None;
    for name in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = Some(name);
    }
    unit.map_or_else(|| format!("{count} B"), |unit| format!("{value:.1} {unit}"))
}

/// `3 h 20 min`: the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        let mut table = Table::new(&["A", "B"]);
        table.row(vec!["long".into(), "\x1b".into()]);
        assert_eq!(table.finish(), "A      B\nlong   \\u{1b}\n");
        assert_eq!(ago("no time"), "no time");
        assert!(ago("2020-01-01T00:00:00Z").ends_with(" ago"));
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3661), "1 h 1 min");
        assert_eq!(duration(90_000), "1 d 1 h");
    }
}
