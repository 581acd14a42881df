//! `/dev/fuse`, and the setuid program for those who may not mount.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::{Area, Check, User};
use crate::mount::helper;
use crate::sys::{Errno, fusedev};

const DEVICE: &str = "/dev/fuse";
/// Its number: major and minor.
const NUMBER: (u32, u32) = (10, 229);

pub(super) fn examine(user: &User) -> Vec<Check> {
    let itself = fusedev::may_mount().is_ok();
    let mut checks = vec![device(), fusermount(itself)];
    checks.push(allow_other(user, itself));
    checks
}

/// Whether the kernel has FUSE in it, or loaded.
fn in_kernel() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| {
        list.lines()
            .any(|line| line.split_whitespace().last() == Some("fuse"))
    })
}

fn device() -> Check {
    const NAME: &str = "/dev/fuse";
    const NO_VIEW: &str = "Every view, and every mount of a container engine by plyfs, needs it.";
    let missing = |found: String| Check::missing(Area::Mounting, NAME, found).means(NO_VIEW);
    let module = if in_kernel() {
        "FUSE is in the kernel"
    } else {
        "the kernel has not loaded FUSE"
    };
    let found = match std::fs::metadata(DEVICE) {
        Ok(found) => found,
        Err(error) => {
            let remedy = if in_kernel() {
                "mknod -m 666 /dev/fuse c 10 229 (as root; for a container: run it with --device /dev/fuse)"
            } else {
                "modprobe fuse (as root; for a container: run it with --device /dev/fuse)"
            };
            return missing(format!("{}; {module}", plain(&error))).remedy(remedy);
        }
    };
    let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    if !found.file_type().is_char_device() || number != NUMBER {
        return missing("it is not the character device 10:229".to_owned())
            .remedy("rm /dev/fuse && mknod -m 666 /dev/fuse c 10 229 (as root)");
    }
    let who = format!(
        "mode {:04o}, owner {}:{}",
        found.mode() & 0o7777,
        found.uid(),
        found.gid()
    );
    match fusedev::open_device() {
        Ok(_) => Check::ok(Area::Mounting, NAME, format!("opens ({who})")),
        Err(Errno::ACCESS) => missing(format!("this user may not open it ({who})"))
            .remedy("chmod 666 /dev/fuse (as root; lasting: a rule in /etc/udev/rules.d)"),
        Err(Errno::PERM) => missing(format!(
            "its use is forbidden to this container or service ({who})"
        ))
        .remedy("run the container with --device /dev/fuse (a systemd service: DeviceAllow=/dev/fuse)"),
        Err(errno) => missing(format!("{errno}; {module}")).remedy("modprobe fuse (as root)"),
    }
}

/// "No such file or directory", without the number behind it.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error")
        .map_or(text.as_str(), |(words, _)| words)
        .to_owned()
}

fn fusermount(itself: bool) -> Check {
    const NAME: &str = "fusermount3";
    const MEANS: &str = "Without root and outside a user namespace it alone can mount.";
    let Some(program) = helper::find() else {
        let found = "not installed";
        return if itself {
            Check::ok(
                Area::Mounting,
                NAME,
                format!("{found}; not needed, this user mounts by itself"),
            )
        } else {
            Check::missing(Area::Mounting, NAME, found)
                .means(MEANS)
                .remedy("apt install fuse3 (as root)")
        };
    };
    let version = version(&program);
    let found = format!("{}, {version}", program.display());
    if itself {
        return Check::ok(
            Area::Mounting,
            NAME,
            format!("{found}; not needed, this user mounts by itself"),
        );
    }
    match hindrance(&program) {
        None => Check::ok(Area::Mounting, NAME, format!("{found}, setuid root")),
        Some((why, remedy)) => Check::missing(Area::Mounting, NAME, format!("{found}, {why}"))
            .means(MEANS)
            .remedy(remedy),
    }
}

/// Why a setuid program would not run as root, and what to do.
pub(super) fn hindrance(program: &Path) -> Option<(String, String)> {
    let path = program.display();
    let found = match std::fs::metadata(program) {
        Ok(found) => found,
        Err(error) => return Some((plain(&error), format!("ls -l {path}"))),
    };
    if found.mode() & 0o4000 == 0 {
        return Some(("not setuid".to_owned(), format!("chmod u+s {path} (as root)")));
    }
    if found.uid() != 0 {
        return Some((
            format!("owned by {} and not by root", found.uid()),
            format!("chown root {path} && chmod u+s {path} (as root)"),
        ));
    }
    if statvfs(program).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOSUID)) {
        return Some((
            "on a mount with nosuid".to_owned(),
            "mount -o remount,suid (as root) where it lies".to_owned(),
        ));
    }
    if no_new_privileges() {
        return Some((
            "but setuid programs have no effect for this process (no_new_privs)".to_owned(),
            "start outside of the sandbox that set it (a container: without --security-opt no-new-privileges)".to_owned(),
        ));
    }
    None
}

/// A process that has promised to gain nothing by running a program.
fn no_new_privileges() -> bool {
    status_line("NoNewPrivs").as_deref() == Some("1")
}

/// A line of `/proc/self/status`.
pub(super) fn status_line(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))?;
    Some(value.to_owned())
}

fn version(program: &Path) -> String {
    let output = Command::new(program)
        .arg("-V")
        .stdin(Stdio::null())
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match output {
        Ok(text) if !text.is_empty() => text
            .rsplit(' ')
            .next()
            .map_or(text.clone(), |last| format!("version {last}")),
        Ok(_) => "of unknown version".to_owned(),
        Err(error) => format!("which cannot be run ({})", plain(&error)),
    }
}

fn allow_other(user: &User, itself: bool) -> Check {
    const NAME: &str = "allow_other";
    if user.root || itself {
        return Check::ok(Area::Mounting, NAME, "who mounts by itself may let others in");
    }
    let allowed = std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    if allowed {
        Check::ok(Area::Mounting, NAME, "/etc/fuse.conf says user_allow_other")
    } else {
        Check::limited(
            Area::Mounting,
            NAME,
            "/etc/fuse.conf does not say user_allow_other",
        )
        .means("Only this user sees into his views, not even root does; the option allow_other is refused.")
        .remedy("echo user_allow_other >>/etc/fuse.conf (as root)")
    }
}
