//! User namespaces, and the subordinate ids that are given away in them.

use std::path::Path;

use super::child::ask;
use super::device::{hindrance, status_line};
use super::{Area, Check, Status, User};
use crate::store::userns;
use crate::sys::xattr::{self, Target};
use crate::sys::{at, namespaces};

const AREA: Area = Area::Namespaces;

pub(super) fn examine(user: &User) -> Vec<Check> {
    let mut checks = vec![namespace()];
    if user.root {
        checks.push(Check::ok(AREA, "subordinate ids", "not needed: root has all ids"));
    } else {
        let needs = [ranges(), programs()];
        let possible = needs.iter().all(|check| check.status != Status::Missing);
        checks.extend(needs);
        checks.push(mapped(possible));
    }
    checks
}

fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn namespace() -> Check {
    const NAME: &str = "user namespaces";
    let tried =
        ask(|| namespaces::become_root_alone().map_err(|errno| errno.to_string())).and_then(|done| done);
    let reason = match tried {
        Ok(()) => return Check::ok(AREA, NAME, "one was made"),
        Err(reason) => reason,
    };
    let check = |found: String| {
        Check::missing(AREA, NAME, found)
            .means("Rootless engines, 'plyfs try' and the store of an ordinary user work in one; root can do without.")
    };
    if sysctl("user/max_user_namespaces").as_deref() == Some("0") {
        return check(format!("{reason}: user.max_user_namespaces is 0"))
            .remedy("sysctl user.max_user_namespaces=10000 (as root; lasting: /etc/sysctl.d)");
    }
    if sysctl("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return check(format!("{reason}: kernel.unprivileged_userns_clone is 0"))
            .remedy("sysctl kernel.unprivileged_userns_clone=1 (as root; lasting: /etc/sysctl.d)");
    }
    if sysctl("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return check(format!("{reason}: AppArmor keeps them from programs without a profile"))
            .remedy("sysctl kernel.apparmor_restrict_unprivileged_userns=0 (as root), or a profile for plyfs with 'userns,'");
    }
    if status_line("Seccomp").as_deref() == Some("2") {
        return check(format!("{reason}: a seccomp filter is in force, as in a container"))
            .remedy("run the container with a seccomp profile that allows unshare, or --security-opt seccomp=unconfined");
    }
    check(reason).remedy("see user_namespaces(7)")
}

fn ranges() -> Check {
    const NAME: &str = "subordinate ids";
    let (uids, gids) = (
        userns::own_ids(userns::Ids::Users),
        userns::own_ids(userns::Ids::Groups),
    );
    match (uids, gids) {
        (Ok(uids), Ok(gids)) => {
            let found = format!("{uids} user and {gids} group ids");
            if uids.min(gids) < 65_536 {
                return Check::limited(AREA, NAME, found)
                    .means("Images may use ids up to 65535; files of ids beyond the range are refused.")
                    .remedy("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER (as root)");
            }
            Check::ok(AREA, NAME, found)
        }
        (Err(error), _) | (_, Err(error)) => Check::missing(AREA, NAME, error.to_string())
            .means("The files of an image belong to many users; without ids to give them away to, no image can be unpacked.")
            .remedy("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER (as root)"),
    }
}

fn programs() -> Check {
    const NAME: &str = "newuidmap, newgidmap";
    const MEANS: &str = "By these programs subordinate ids are put to use.";
    let mut found = Vec::new();
    for name in ["newuidmap", "newgidmap"] {
        let program = match userns::find(name) {
            Ok(program) => program,
            Err(error) => {
                return Check::missing(AREA, NAME, error.to_string())
                    .means(MEANS)
                    .remedy("apt install uidmap (as root)");
            }
        };
        // Either by setuid or by a capability of the file.
        let how = match hindrance(&program) {
            None => "setuid root",
            Some(_) if has_capabilities(&program) => "by file capabilities",
            Some((why, remedy)) => {
                return Check::missing(AREA, NAME, format!("{}: {why}", program.display()))
                    .means(MEANS)
                    .remedy(remedy);
            }
        };
        found.push(format!("{} ({how})", program.display()));
    }
    Check::ok(AREA, NAME, found.join(", "))
}

fn has_capabilities(program: &Path) -> bool {
    let (Some(dir), Some(name)) = (program.parent(), program.file_name()) else {
        return false;
    };
    std::fs::File::open(dir)
        .map_err(|error| error.to_string())
        .and_then(|dir| at::open_path(&dir, name.as_encoded_bytes()).map_err(|errno| errno.to_string()))
        .is_ok_and(|file| {
            xattr::get(
                Target::Fd(std::os::fd::AsFd::as_fd(&file)),
                b"security.capability",
            )
            .is_ok()
        })
}

fn mapped(possible: bool) -> Check {
    const NAME: &str = "a namespace with these ids";
    let missing = |reason: String| {
        Check::missing(AREA, NAME, reason)
            .means("The store of an ordinary user ('plyfs image', 'plyfs container') and rootless podman need it.")
            .remedy("do what the lines above say")
    };
    if !possible {
        return missing("not tried without the above".to_owned());
    }
    // There is no such store, so a namespace of its own is made.
    let tried = ask(|| {
        userns::enter(Path::new("/nonexistent/plyfs-doctor"))
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .and_then(|done| done);
    match tried {
        Ok(()) => Check::ok(AREA, NAME, "one was made"),
        Err(reason) => missing(reason),
    }
}
