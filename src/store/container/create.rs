//! The birth of a container.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::image::Config;

use super::names::{check, invent, random};
use super::record::{HostSettings, Record, Settings, State};
use super::{Container, encode, init, init_name};
use crate::store::{ChainId, Image, Published, Result, Store, StoreError, TmpDir};
use crate::sys::at::{self, RenameHow};
use crate::sys::io;
use crate::sys::stat::Time;

/// As docker: the way to an upper, whose setuid programs are not for everyone, is closed.
const PERMISSIONS: u32 = 0o710;

/// What somebody wants of a new container; what is not said comes from the image.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// A name; else one is invented.
    pub name: Option<String>,
    /// The image as it was asked for.
    pub image: String,
    /// The command, or the arguments of the entry point.
    pub cmd: Vec<String>,
    /// Another entry point; empty for none at all.
    pub entrypoint: Option<Vec<String>>,
    /// Further variables, `NAME=value`.
    pub env: Vec<String>,
    /// Another working directory.
    pub working_dir: Option<String>,
    /// Another user.
    pub user: Option<String>,
    /// A host name; else the beginning of the id.
    pub hostname: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// The standard input.
    pub stdin: bool,
    /// What it sees of the machine.
    pub host: HostSettings,
}

/// The point in time that everything of a container gets.
pub(super) fn now() -> (Time, String) {
    let now = jiff::Timestamp::now();
    let time = Time {
        secs: now.as_second(),
        nanos: u32::try_from(now.subsec_nanosecond()).unwrap_or(0),
    };
    (time, now.to_string())
}

/// Fills a directory of a container: `lower-id`, `upper/` and `work/`.
pub(super) fn furnish(
    tmp: &TmpDir,
    lower_id: &ChainId,
    lower: BorrowedFd<'_>,
    (upper, work): (&str, &str),
    now: Time,
) -> Result<()> {
    tmp.write("lower-id", lower_id.hex().as_bytes())?;
    tmp.make_dir(work, 0o700)?;
    let upper = tmp.make_dir(upper, 0o755)?;
    init::fill(upper.as_fd(), lower, now)
}

impl Store {
    /// Makes a container of an image.
    ///
    /// # Errors
    /// When the image has no layers, the name is taken or cannot be one, or the container cannot be written.
    pub fn create_container(&self, image: &Image, wish: Wish) -> Result<Container<'_>> {
        if let Some(name) = &wish.name {
            check(name)?;
        }
        let top = image.top().ok_or_else(|| {
            StoreError::Refused(format!(
                "the image {} has no layers: there is nothing to mount, so that no container can be made of it",
                wish.image
            ))
        })?;
        let layer = self.layer(&top)?;
        let lower = layer.root_fd()?;
        let id = random::<32>().map_err(StoreError::errno("get random numbers for", self.path()))?;
        let id = hex::encode(id);
        let (now, created) = now();
        let first = TmpDir::new(self, PERMISSIONS)?;
        let own = TmpDir::new(self, PERMISSIONS)?;
        for tmp in [&first, &own] {
            furnish(tmp, &top, lower.as_fd(), ("upper", "work"), now)?;
        }
        let paper = TmpDir::new(self, 0o700)?;
        let mut record = describe(id, created, image, wish);
        // One call for the whole file system; the record is small, and written again before it is published.
        own.sync()?;

        let _exclusive = self.exclusive()?;
        let known = self.container_records()?;
        let taken = |name: &str| known.iter().find(|record| record.name == name);
        if record.name.is_empty() {
            record.name = invent(|name| taken(name).is_some())
                .map_err(StoreError::errno("get random numbers for", self.path()))?;
        } else if let Some(other) = taken(&record.name) {
            let short = other.id.get(..12).unwrap_or_default();
            return Err(StoreError::Refused(format!(
                "the name {} is taken by container {short}: choose another, or remove that one",
                record.name
            )));
        }
        paper.write("record", &encode(&record)?)?;
        let written =
            at::open_at(paper.dir()?, b"record", libc::O_RDONLY).and_then(|file| io::sync(file, false));
        written.map_err(StoreError::errno("write to disk", paper.path()))?;
        let overlay = self.overlay_path();
        for (tmp, name) in [(first, init_name(&record.id)), (own, record.id.clone())] {
            if let Published::Exists = tmp.publish(self.overlay(), &overlay, &name)? {
                return Err(StoreError::Refused(format!(
                    "{} is there already: try again",
                    overlay.join(name).display()
                )));
            }
        }
        let containers = self.path().join("containers");
        at::rename_at(
            paper.dir()?,
            b"record",
            self.containers_dir(),
            record.id.as_bytes(),
            RenameHow::NoReplace,
        )
        .map_err(StoreError::errno("write", containers.join(&record.id)))?;
        io::sync(self.containers_dir(), false).map_err(StoreError::errno("write to disk", &containers))?;
        Container::open(self, record)
    }
}

/// The image's settings with the wishes over them.
fn describe(id: String, created: String, image: &Image, wish: Wish) -> Record {
    let none = Config::default();
    let given = image.config().config().as_ref().unwrap_or(&none);
    let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let entrypoint = wish
        .entrypoint
        .clone()
        .unwrap_or_else(|| list(given.entrypoint()));
    let cmd = match (&wish.entrypoint, wish.cmd.is_empty()) {
        // Another entry point has no use for the arguments of the first one.
        (None, true) => list(given.cmd()),
        _ => wish.cmd,
    };
    let mut env = list(given.env());
    for variable in wish.env {
        let name = |variable: &str| variable.split('=').next().map(str::to_owned);
        match env.iter_mut().find(|known| name(known) == name(&variable)) {
            Some(known) => *known = variable,
            None => env.push(variable),
        }
    }
    let hostname = wish
        .hostname
        .unwrap_or_else(|| id.get(..12).unwrap_or_default().to_owned());
    let labels = given.labels().clone().unwrap_or_default();
    Record {
        name: wish.name.unwrap_or_default(),
        created,
        image: image.id().to_string(),
        config: Settings {
            hostname,
            user: wish.user.or_else(|| given.user().clone()).unwrap_or_default(),
            tty: wish.tty,
            open_stdin: wish.stdin,
            env,
            cmd,
            image: wish.image,
            working_dir: wish
                .working_dir
                .or_else(|| given.working_dir().clone())
                .unwrap_or_default(),
            entrypoint,
            labels: labels.into_iter().collect(),
        },
        host_config: wish.host,
        state: State::default(),
        id,
    }
}
