//! The owner of the standard streams.

use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{at, stat};

/// Who owned the standard streams. A runtime gives them to the command's user, so that it may open /dev/stdout; here
/// they are a person's files and terminal, who wants them back.
#[derive(Debug)]
pub(super) struct Owners {
    /// For each stream that is open: user and group.
    before: Vec<(Stream, u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    In,
    Out,
    Err,
}

impl Stream {
    fn with<T>(self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match self {
            Self::In => call(std::io::stdin().as_fd()),
            Self::Out => call(std::io::stdout().as_fd()),
            Self::Err => call(std::io::stderr().as_fd()),
        }
    }
}

impl Owners {
    /// Looks who owns them.
    pub(super) fn remember() -> Self {
        let look = |stream: Stream| {
            let stat = stream.with(|fd| stat::stat_fd(fd)).ok()?;
            Some((stream, stat.uid, stat.gid))
        };
        Self {
            before: [Stream::In, Stream::Out, Stream::Err]
                .into_iter()
                .filter_map(look)
                .collect(),
        }
    }

    /// Gives them back.
    pub(super) fn restore(&self) {
        for (stream, uid, gid) in &self.before {
            let restored = stream.with(|fd| {
                let now = stat::stat_fd(fd)?;
                if (now.uid, now.gid) == (*uid, *gid) {
                    return Ok(());
                }
                at::chown_fd(fd, Some(*uid), Some(*gid))
            });
            if let Err(errno) = restored {
                log::warn!("a standard stream now belongs to the command's user: {errno}");
            }
        }
    }
}
