//! The control socket of a server: one line asks, one line of JSON answers.
//!
//! It lies in the runtime directory, which only its user can enter.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::MountError;
use crate::format::Namespace;
use crate::overlay::Overlay;

/// How long either side waits for the other: it is a local socket and a line of text.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request is one word; more than this is nonsense.
const LONGEST_REQUEST: u64 = 4096;

/// What a view has done since it was mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests answered.
    pub requests: u64,
    /// Objects copied up.
    pub copy_ups: u64,
    /// Bytes of file data copied up.
    pub copied_bytes: u64,
}

/// A listening control socket; its file goes away when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    overlay: Arc<Overlay>,
}

impl Drop for Control {
    fn drop(&mut self) {
        super::listen::end(&self.overlay);
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Opens the socket and answers on a thread of its own.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(path: PathBuf, overlay: Arc<Overlay>) -> Result<Control, MountError> {
    // A socket of this name without a live server is left over from a killed one with the same number.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(MountError::io("cannot remove the old control socket", &path)(
                error,
            ));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(&path).map_err(MountError::io("cannot make the control socket", &path))?;
    // Whatever the umask; the directory is private already.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))
        .map_err(MountError::io("cannot make the control socket private", &path))?;
    let control = Control {
        path: path.clone(),
        overlay: Arc::clone(&overlay),
    };
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            for connection in listener.incoming() {
                let answered = connection.and_then(|stream| answer(stream, &overlay));
                if let Err(error) = answered {
                    log::debug!("control socket: {error}");
                }
            }
        })
        .map_err(MountError::io("cannot start a thread for", &path))?;
    Ok(control)
}

fn answer(stream: UnixStream, overlay: &Arc<Overlay>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST_REQUEST)).read_line(&mut line)?;
    let text = match line.trim() {
        "stats" => {
            let stats = overlay.stats();
            serde_json::to_string(&Counters {
                requests: stats.requests.load(Relaxed),
                copy_ups: stats.copy_ups.load(Relaxed),
                copied_bytes: stats.copied_bytes.load(Relaxed),
            })?
        }
        "trace" => return super::listen::tell(stream, overlay),
        "marks" => serde_json::json!({ "user": overlay.marks() == Namespace::User }).to_string(),
        other => serde_json::json!({ "error": format!("unknown request '{other}'") }).to_string(),
    };
    (&stream).write_all(text.as_bytes())?;
    (&stream).write_all(b"\n")
}

/// Asks the server behind `socket` for its counters.
///
/// # Errors
/// When it does not answer in time, or with something else.
pub fn counters(socket: &Path) -> std::io::Result<Counters> {
    Ok(serde_json::from_str(&ask(socket, "stats")?)?)
}

/// Where a view keeps its private marks.
#[derive(Deserialize)]
struct Marks {
    user: bool,
}

/// Asks the server behind `socket` where it keeps its private marks.
///
/// # Errors
/// As [`counters`].
pub fn marks(socket: &Path) -> std::io::Result<Namespace> {
    let marks: Marks = serde_json::from_str(&ask(socket, "marks")?)?;
    Ok(if marks.user {
        Namespace::User
    } else {
        Namespace::Trusted
    })
}

fn ask(socket: &Path, request: &str) -> std::io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    (&stream).write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST_REQUEST)).read_line(&mut line)?;
    Ok(line)
}
