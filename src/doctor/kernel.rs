//! System calls and limits.

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::process::{Resource, getrlimit};

use super::{Area, Check, User};
use crate::sys::{Errno, at, fusedev, handle, latency};

const AREA: Area = Area::Kernel;
/// The overlay keeps up to this many directories open, and needs as many descriptors again for files.
const DESCRIPTORS: u64 = 8192;

pub(super) fn examine(user: &User) -> Vec<Check> {
    vec![calls(), handles(), latency(user), descriptors()]
}

/// Calls without which plyfs cannot work at all.
fn calls() -> Check {
    const NAME: &str = "system calls";
    let root = match rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) {
        Ok(root) => root,
        Err(errno) => return Check::missing(AREA, NAME, format!("the root directory: {errno}")),
    };
    let mut lacking = Vec::new();
    let absent = |answer: Result<(), Errno>| matches!(answer, Err(Errno::NOSYS));
    // A mount point below / gives EXDEV, which is an answer.
    if absent(at::open_dir_path(&root, b"etc").map(drop)) {
        lacking.push("openat2 (Linux 5.6)");
    }
    let statx = rustix::fs::statx(
        CWD,
        "/",
        AtFlags::empty(),
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    );
    match statx {
        Err(Errno::NOSYS) => lacking.push("statx (Linux 4.11)"),
        Ok(found) if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 => {
            lacking.push("statx with mount ids (Linux 5.8)")
        }
        _ => {}
    }
    if absent(fusedev::may_mount()) {
        lacking.push("fsopen (Linux 5.2)");
    }
    if absent(fusedev::clone_read_only(std::os::fd::AsFd::as_fd(&root)).map(drop)) {
        lacking.push("open_tree, mount_setattr (Linux 5.12)");
    }
    if lacking.is_empty() {
        Check::ok(AREA, NAME, "openat2, statx, fsopen, open_tree are there")
    } else {
        Check::missing(AREA, NAME, format!("not there: {}", lacking.join(", ")))
            .means("plyfs cannot do without. In a container a seccomp filter may hide them.")
            .remedy("a newer kernel, or a newer container engine with a newer seccomp profile")
    }
}

fn handles() -> Check {
    const NAME: &str = "file handles";
    let dir = match std::fs::File::open("/") {
        Ok(dir) => dir,
        Err(error) => return Check::limited(AREA, NAME, format!("the root directory: {error}")),
    };
    match handle::of_name(&dir, b"") {
        // That the root's file system has none is told of each directory.
        Ok(_) | Err(Errno::OPNOTSUPP) => Check::ok(AREA, NAME, "name_to_handle_at is there"),
        Err(errno) => Check::limited(AREA, NAME, format!("name_to_handle_at: {errno}"))
            .means("A copied-up file gets another inode number after a remount.")
            .remedy("in a container: a seccomp profile that allows name_to_handle_at"),
    }
}

fn latency(user: &User) -> Check {
    const NAME: &str = "/dev/cpu_dma_latency";
    const MEANS: &str =
        "Idle processors cannot be kept near while requests flow: each takes some microseconds more.";
    match latency::Request::new() {
        Ok(_) => Check::ok(AREA, NAME, "can be asked"),
        Err(Errno::NOENT) => Check::limited(AREA, NAME, "not there").means(MEANS),
        Err(errno) => {
            let check = Check::limited(AREA, NAME, errno.to_string()).means(MEANS);
            if user.true_root {
                check.remedy("run the container with --device /dev/cpu_dma_latency")
            } else {
                check.remedy("mount as root, or let a group use it: chgrp GROUP /dev/cpu_dma_latency; chmod g+rw (as root)")
            }
        }
    }
}

fn descriptors() -> Check {
    const NAME: &str = "open files";
    // The server raises its own limit to the hard one.
    let hard = getrlimit(Resource::Nofile).maximum;
    match hard {
        None => Check::ok(AREA, NAME, "no limit"),
        Some(hard) if hard >= DESCRIPTORS => Check::ok(AREA, NAME, format!("up to {hard}")),
        Some(hard) => Check::limited(AREA, NAME, format!("up to {hard}"))
            .means(format!(
                "A view keeps fewer directories open than it could ({DESCRIPTORS} would do), and programs that open many \
                 files in it may be refused (EMFILE)."
            ))
            .remedy("a line '* hard nofile 1048576' in /etc/security/limits.conf (as root), and log in again"),
    }
}
