//! What the file system below a directory can do, by trying it in a directory of its own there.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::fstatvfs;

use super::child::ask;
use super::device::plain;
use super::{Area, Check};
use crate::format::Namespace;
use crate::mount::mountinfo;
use crate::mount::place::Place;
use crate::mount::setup::check_upper_file_system;
use crate::overlay::{SetupError, try_upper};
use crate::sys::at::RenameHow;
use crate::sys::xattr::{self, Target};
use crate::sys::{Errno, at, dirent, handle, stat};

const AREA: Area = Area::Directory;
const UPPER: &str = "as an upper";
/// What an upper is refused for.
const ELSEWHERE: &str = "use an upper and work directory on ext4, xfs, btrfs or tmpfs";

pub(super) fn examine(wanted: &Path) -> Vec<Check> {
    let place = existing(wanted);
    // It may be a network file system that hangs.
    let mut checks = ask(|| look(&place)).unwrap_or_else(|reason| {
        vec![Check::missing(AREA, "file system", reason).means("It does not answer.")]
    });
    for check in &mut checks {
        check.directory = Some(wanted.into());
    }
    checks
}

/// The directory itself, or what is there above it.
fn existing(wanted: &Path) -> PathBuf {
    let absolute = std::path::absolute(wanted).unwrap_or_else(|_| wanted.to_owned());
    absolute
        .ancestors()
        .find(|dir| dir.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn look(place: &Path) -> Vec<Check> {
    let dir = match File::open(place) {
        Ok(dir) => dir,
        Err(error) => {
            return vec![
                Check::missing(
                    AREA,
                    "file system",
                    format!("{}: {}", place.display(), plain(&error)),
                )
                .means("This user may not look into it."),
            ];
        }
    };
    let mounts = mountinfo::read().unwrap_or_default();
    let (kind, fit) = match Place::of(dir.as_fd(), &mounts) {
        Ok(found) => (
            found.kind.clone().unwrap_or_else(|| "unknown".to_owned()),
            check_upper_file_system(&found, dir.as_fd(), false).map_err(|error| error.to_string()),
        ),
        Err(errno) => ("unknown".to_owned(), Err(errno.to_string())),
    };
    let mut checks = vec![Check::ok(AREA, "file system", kind).means("Any file system can be a lower.")];
    checks.extend([names(&dir), room(&dir)]);
    let try_here = tempfile::Builder::new()
        .prefix(".plyfs-doctor-")
        .tempdir_in(place);
    let own = match try_here {
        Ok(own) => own,
        Err(error) => {
            let reason = format!("nothing can be made in {}: {}", place.display(), plain(&error));
            checks.push(
                Check::limited(AREA, UPPER, reason)
                    .means("For this user it can be a lower only; what an upper needs could not be tried."),
            );
            return checks;
        }
    };
    match File::open(own.path()) {
        Ok(own) => checks.extend(abilities(&own, fit)),
        Err(error) => checks.push(Check::missing(AREA, UPPER, plain(&error))),
    }
    if let Err(error) = own.close() {
        checks.push(
            Check::limited(
                AREA,
                "file system",
                format!("what was tried cannot be removed: {}", plain(&error)),
            )
            .means("A directory '.plyfs-doctor-...' is left."),
        );
    }
    checks
}

fn names(dir: &File) -> Check {
    const NAME: &str = "names";
    match fstatvfs(dir) {
        Ok(fs) if fs.f_namemax >= 255 => Check::ok(AREA, NAME, format!("up to {} bytes", fs.f_namemax)),
        Ok(fs) => Check::limited(AREA, NAME, format!("up to {} bytes", fs.f_namemax))
            .means("A file of a lower with a longer name cannot be copied up here.")
            .remedy(ELSEWHERE),
        Err(errno) => Check::limited(AREA, NAME, errno.to_string()),
    }
}

fn room(dir: &File) -> Check {
    const NAME: &str = "room";
    let fs = match fstatvfs(dir) {
        Ok(fs) => fs,
        Err(errno) => return Check::limited(AREA, NAME, errno.to_string()),
    };
    let bytes = fs.f_bavail.saturating_mul(fs.f_frsize);
    let mebibytes = bytes >> 20;
    // Such as btrfs, which makes inodes as it needs them.
    let (inodes, few) = if fs.f_files == 0 {
        ("inodes without limit".to_owned(), false)
    } else {
        (format!("{} inodes", fs.f_favail), fs.f_favail < 1000)
    };
    let found = format!("{mebibytes} MiB and {inodes} free");
    if few || mebibytes < 16 {
        return Check::limited(AREA, NAME, found)
            .means("Every change of a view takes room in its upper; an image layer takes an inode for each directory.")
            .remedy("make room: 'plyfs system df' and 'plyfs system prune' show and free what images take");
    }
    Check::ok(AREA, NAME, found)
}

/// Everything that has to be tried, in the empty directory `own`.
fn abilities(own: &File, fit: Result<(), String>) -> Vec<Check> {
    let dir = own.as_fd();
    let mut checks = vec![
        attributes(dir),
        whiteouts(dir),
        renames(dir),
        unnamed(dir),
        kinds(dir),
        links(dir),
        reflink(dir),
        handles(dir),
    ];
    checks.insert(0, upper(dir, fit));
    checks
}

/// Whether a mount would accept an upper here: the probe of the mount itself.
fn upper(dir: BorrowedFd<'_>, fit: Result<(), String>) -> Check {
    let missing = |reason: String| {
        Check::missing(AREA, UPPER, reason)
            .means("A view needs an upper elsewhere; a lower may be here.")
            .remedy(ELSEWHERE)
    };
    if let Err(reason) = fit {
        return missing(reason);
    }
    let tried = at::mkdir_at(dir, b"upper", 0o700)
        .and_then(|()| at::open_dir_path(dir, b"upper"))
        .map_err(|errno| SetupError::Step {
            step: "make a directory".to_owned(),
            errno,
        })
        .and_then(|work| try_upper(&work));
    match tried {
        Ok(namespace) => {
            let marks = match namespace {
                Namespace::Trusted => "trusted.overlay.*",
                Namespace::User => "user.overlay.*",
            };
            Check::ok(AREA, UPPER, format!("can hold one, its private marks in {marks}"))
        }
        Err(reason) => missing(reason.to_string()),
    }
}

/// A file of this name, for a try.
fn file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    at::create_at(dir, name, libc::O_RDWR, 0o600)
}

fn attributes(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "extended attributes";
    let file = match file(dir, b"attributes") {
        Ok(file) => file,
        Err(errno) => return Check::missing(AREA, NAME, format!("no file can be made: {errno}")),
    };
    let set = |name: &[u8]| xattr::set(Target::Fd(file.as_fd()), name, b"y", 0);
    let (user, trusted) = (set(b"user.plyfs.doctor"), set(b"trusted.plyfs.doctor"));
    let words = |answer: Result<(), Errno>| match answer {
        Ok(()) => "yes".to_owned(),
        Err(Errno::PERM) => "not for this user".to_owned(),
        Err(errno) => format!("no ({errno})"),
    };
    let found = format!("user.*: {}; trusted.*: {}", words(user), words(trusted));
    match (user, trusted) {
        (Ok(()), _) => Check::ok(AREA, NAME, found),
        (Err(_), Ok(())) => Check::limited(AREA, NAME, found)
            .means("A file of a lower that has user.* attributes cannot be copied up here; an ordinary user can have no upper.")
            .remedy(ELSEWHERE),
        (Err(_), Err(_)) => Check::missing(AREA, NAME, found)
            .means("An upper keeps its private marks in them: which directory is opaque, and where a copy came from.")
            .remedy(ELSEWHERE),
    }
}

fn whiteouts(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "whiteouts";
    match at::mknod_at(dir, b"whiteout", libc::S_IFCHR, 0) {
        Ok(()) => Check::ok(AREA, NAME, "character devices 0/0 can be made"),
        Err(errno) => Check::missing(AREA, NAME, format!("character devices 0/0: {errno}"))
            .means(
                "An upper marks what was deleted by them. The form with an extended attribute is read in layers of \
                 others, but not written.",
            )
            .remedy(if errno == Errno::PERM {
                "a kernel from Linux 5.8 on, which lets everybody make them; or another file system"
            } else {
                ELSEWHERE
            }),
    }
}

fn renames(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "renames";
    let made = file(dir, b"one").and_then(|_| file(dir, b"two"));
    if let Err(errno) = made {
        return Check::missing(AREA, NAME, format!("no file can be made: {errno}"));
    }
    let exchange = at::rename_at(dir, b"one", dir, b"two", RenameHow::Exchange);
    let whiteout = at::rename_at(dir, b"one", dir, b"three", RenameHow::Whiteout);
    let lacking: Vec<String> = [("RENAME_EXCHANGE", exchange), ("RENAME_WHITEOUT", whiteout)]
        .into_iter()
        .filter_map(|(name, answer)| answer.err().map(|errno| format!("no {name} ({errno})")))
        .collect();
    if lacking.is_empty() {
        return Check::ok(AREA, NAME, "RENAME_EXCHANGE and RENAME_WHITEOUT");
    }
    Check::missing(AREA, NAME, lacking.join(", "))
        .means("By them a change and its whiteout appear in one step; an upper cannot do without.")
        .remedy(ELSEWHERE)
}

fn unnamed(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "unnamed files";
    match at::open_unnamed(dir) {
        Ok(_) => Check::ok(AREA, NAME, "O_TMPFILE"),
        Err(errno) => Check::limited(AREA, NAME, format!("no O_TMPFILE ({errno})"))
            .means("Copies are made under a name in the work directory instead."),
    }
}

fn kinds(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "types of entries";
    let made = file(dir, b"typed");
    let mut typed = false;
    let listed = made.and_then(|_| at::reopen_dir(dir)).and_then(|dir| {
        dirent::read_names(&dir, |entry| {
            typed |= *entry.name == *b"typed" && entry.kind == libc::S_IFREG;
            Ok(!typed)
        })
    });
    match listed {
        Ok(()) if typed => Check::ok(AREA, NAME, "listings tell them (d_type)"),
        Ok(()) => Check::missing(AREA, NAME, "listings do not tell them (no d_type)")
            .means("An upper must tell whiteouts from files while a directory is listed.")
            .remedy("on xfs: mkfs.xfs -n ftype=1; or another file system"),
        Err(errno) => Check::missing(AREA, NAME, errno.to_string()),
    }
}

fn links(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "hard links";
    let made = file(dir, b"linked").and_then(|_| at::link_at(dir, b"linked", dir, b"second"));
    let limit = stat::link_limit(dir).ok().flatten();
    match made {
        Ok(()) => Check::ok(
            AREA,
            NAME,
            match limit {
                Some(limit) => format!("up to {limit} names for a file"),
                None => "yes; how many names a file can have is not known".to_owned(),
            },
        ),
        Err(errno) => Check::limited(AREA, NAME, errno.to_string())
            .means("Image layers share files by hard links; without them every layer is a whole copy.")
            .remedy("plyfs --root DIR, with a directory on another file system for the images"),
    }
}

fn reflink(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "reflinks";
    let tried = file(dir, b"from").and_then(|from| {
        rustix::io::write(&from, b"data")?;
        let to = file(dir, b"to")?;
        rustix::fs::ioctl_ficlone(&to, &from)
    });
    match tried {
        Ok(()) => Check::ok(
            AREA,
            NAME,
            "files can share their blocks: a copy-up within this file system moves no data",
        ),
        Err(errno) => Check::ok(AREA, NAME, format!("no ({errno}): a copy-up copies the data"))
            .means("xfs and btrfs have them."),
    }
}

fn handles(dir: BorrowedFd<'_>) -> Check {
    const NAME: &str = "file handles";
    match handle::of_name(dir, b"") {
        Ok(_) => Check::ok(AREA, NAME, "yes"),
        Err(errno) => Check::limited(AREA, NAME, format!("no ({errno})"))
            .means("A file copied up from a lower here gets another inode number after a remount."),
    }
}
