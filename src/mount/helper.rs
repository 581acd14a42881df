//! `fusermount3`, the setuid program by which an ordinary user mounts and unmounts.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::MountError;
use crate::sys::fusedev::{Atime, Attributes, Labels, receive_descriptor};

const NAME: &str = "fusermount3";

/// Where it is, if it is installed: on PATH, or in one of the usual places when PATH is bare.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(NAME))
        .find(|program| program.is_absolute() && program.is_file())
}

/// Mounts and hands back the connection to the kernel. Labels that are refused are left out.
///
/// # Errors
/// What the helper says.
pub fn mount(
    helper: &Path,
    merged: &Path,
    source: &OsStr,
    attributes: Attributes,
    labels: &Labels,
    allow_other: bool,
) -> Result<OwnedFd, MountError> {
    let plain = words(source, attributes, allow_other);
    let labels = labels.effective();
    if labels.is_empty() {
        return mount_with(helper, merged, &plain);
    }
    let mut labelled = plain.clone();
    for (word, label) in labels {
        // The quotes keep a label's commas together.
        for part in [",", word, "=\""] {
            labelled.push(part);
        }
        labelled.push(label);
        labelled.push("\"");
    }
    mount_with(helper, merged, &labelled).or_else(|error| {
        log::info!("labels of the mount are left out, it may be for their sake that it is refused: {error}");
        mount_with(helper, merged, &plain)
    })
}

fn mount_with(helper: &Path, merged: &Path, words: &OsStr) -> Result<OwnedFd, MountError> {
    let failed = |said: String| MountError::Helper {
        path: merged.to_owned(),
        said,
    };
    let (ours, theirs) = UnixStream::pair().map_err(MountError::io("cannot make a socket for", helper))?;
    // The socket is the helper's standard input, so that its number is known and nothing else leaks.
    let mut child = Command::new(helper)
        .arg("-o")
        .arg(words)
        .arg("--")
        .arg(merged)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(MountError::io("cannot run", helper))?;
    let received = receive_descriptor(ours.as_fd());
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr
            .read_to_string(&mut said)
            .map_err(MountError::io("cannot read from", helper))?;
    }
    let status = child.wait().map_err(MountError::io("cannot wait for", helper))?;
    match received {
        Ok(Some(fuse)) if status.success() => Ok(fuse),
        Ok(_) => Err(failed(explain(&said, &status.to_string()))),
        Err(errno) => Err(failed(format!("no connection received: {errno}"))),
    }
}

/// Unmounts; `lazy` as in umount(8).
///
/// # Errors
/// What the helper says, in its own words; the caller knows the path.
pub fn unmount(helper: &Path, merged: &Path, lazy: bool) -> Result<(), String> {
    let mut command = Command::new(helper);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(merged)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", helper.display()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(explain(
            &String::from_utf8_lossy(&output.stderr),
            &output.status.to_string(),
        ))
    }
}

fn words(source: &OsStr, attributes: Attributes, allow_other: bool) -> OsString {
    let mut words = b"default_permissions,subtype=plyfs,fsname=".to_vec();
    for &byte in source.as_bytes() {
        if matches!(byte, b'\\' | b',') {
            words.push(b'\\');
        }
        words.push(byte);
    }
    let mut add = |wanted: bool, word: &str| {
        if wanted {
            words.push(b',');
            words.extend_from_slice(word.as_bytes());
        }
    };
    // nosuid and nodev are what an ordinary user gets anyway.
    add(attributes.read_only, "ro");
    add(attributes.noexec, "noexec");
    add(attributes.atime == Atime::Never, "noatime");
    add(attributes.sync, "sync");
    add(attributes.dirsync, "dirsync");
    add(allow_other, "allow_other");
    OsString::from_vec(words)
}

/// The helper's message in one line, and what to do about the refusals it is known for.
fn explain(said: &str, status: &str) -> String {
    let said = said
        .trim()
        .trim_start_matches("fusermount3: ")
        .replace('\n', "; ");
    if said.is_empty() {
        return format!("it failed without a word ({status})");
    }
    let remedy = if said.contains("user_allow_other") {
        " (allow_other and allow_root need the line 'user_allow_other' in /etc/fuse.conf; or leave the word out)"
    } else if said.contains("could not determine username") {
        " (it wants a name of this user in /etc/passwd)"
    } else if said.contains("no write access") {
        " (an ordinary user mounts on a directory of his own)"
    } else if said.contains("Operation not permitted") {
        " (is it setuid root? in a user namespace, use one with a mount namespace: unshare -Urm)"
    } else {
        ""
    };
    said + remedy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_commas_stays_one_word() {
        let attributes = Attributes {
            read_only: true,
            ..Attributes::default()
        };
        let words = words(OsStr::new(r"/a,b\c"), attributes, true);
        assert_eq!(
            words,
            r"default_permissions,subtype=plyfs,fsname=/a\,b\\c,ro,allow_other"
        );
    }

    #[test]
    fn refusals_get_a_remedy() {
        assert!(
            explain(
                "/usr/bin/fusermount3: user has no write access to mountpoint /m\n",
                ""
            )
            .contains("of his own")
        );
        assert!(explain("/usr/bin/fusermount3: could not determine username\n", "").contains("/etc/passwd"));
        assert!(explain("", "exit status: 1").contains("exit status: 1"));
    }
}
