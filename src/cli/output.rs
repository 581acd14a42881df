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
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3661), "1 h 1 min");
        assert_eq!(duration(90_000), "1 d 1 h");
    }
}
