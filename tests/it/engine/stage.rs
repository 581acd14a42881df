//! Scripts at a view, in the namespaces in which container engines use one; and an image in which everything that has
//! to do with ids is found.
//!
//! The measure of most tests: inside the container everything has to look as it does to root of a machine on which the
//! layers are mounted as they lie, and the layers must be changed in the same way.

use std::process::Command;

use crate::common::layers::{ours_is_plyfs, run};
use crate::common::*;
use crate::rootless::{UID, open_device};

/// Functions for scripts.
const FUNCTIONS: &str = r#"
set -eu
export LC_ALL=C
umask 022
say() { echo "== $*"; }
# as UID COMMAND...: as this user, in the group of the same number.
as() { who=$1; shift; setpriv --reuid "$who" --regid "$who" --clear-groups "$@"; }
mounted() { "$P" -o "$1" "$B/m"; grep -q " $B/m " /proc/self/mountinfo; }
look() { stat -c '%n %u:%g %a %F' "$@"; }
# enter USER MAP COMMAND...: as root of a new user namespace that USER makes, with the lines MAP (inside outside count).
enter() {
    maker=$1 map=$2; shift 2
    $maker unshare -U sleep 600 > /dev/null &
    holder=$!
    until test "$(readlink /proc/$holder/ns/user)" != "$(readlink /proc/self/ns/user)"; do sleep 0.01; done
    until test "$(cat /proc/$holder/comm)" = sleep; do sleep 0.01; done
    printf "$map" > /proc/$holder/uid_map
    printf "$map" > /proc/$holder/gid_map
    status=0
    nsenter -t $holder -U -S 0 -G 0 -- "$@" || status=$?
    kill $holder
    return $status
}
"#;

/// Where the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// Root, in no namespace.
    Root,
    /// Root of a user namespace that an ordinary user made, with a range of ids.
    Rootless,
    /// The same with the user's own id alone.
    OneId,
}

impl Where {
    /// The command prefix that enters it.
    fn entrance(self) -> String {
        let user = format!("'setpriv --reuid {UID} --regid {UID} --clear-groups'");
        match self {
            Self::Root => String::new(),
            Self::Rootless => format!("enter {user} '0 {UID} 1\\n1 100000 65536\\n' unshare -m"),
            Self::OneId => format!("enter {user} '0 {UID} 1\\n' unshare -m"),
        }
    }

    /// The id outside of `id` inside.
    pub fn outside(self, id: u32) -> u32 {
        match (self, id) {
            (Self::Root, id) => id,
            (_, 0) => UID,
            (_, id) => 100_000 + id - 1,
        }
    }
}

/// Layers for a server that runs there.
pub(super) fn layers_for(place: Where, lower: &[Node]) -> Layers {
    let layers = Layers::new().with_lower(lower);
    let root = place.outside(0);
    let all = [&layers.lower, &layers.upper, &layers.work, &layers.merged];
    for path in all.into_iter().map(|path| path.as_path()).chain([layers.base()]) {
        sys::chown(path, root, root).unwrap();
    }
    layers
}

/// Runs `script` there, with `B` the scratch directory, `P` the program under the name that engines look for, and the
/// functions above. What it prints. `inside` is a second script, `$B/inside`, which has `M`, the view.
pub(super) fn perform(layers: &Layers, place: Where, script: &str, inside: &str) -> String {
    let base = layers.base();
    let (shown, program) = (base.display(), base.join("fuse-overlayfs"));
    // The build directory may be closed to other users.
    copy_program(env!("CARGO_BIN_EXE_plyfs"), &program);
    sys::chmod(&program, 0o755).unwrap();
    let put = |name: &str, text: &str| sys::put(base.join(name), text).unwrap();
    put("functions", FUNCTIONS);
    put("script", &format!(". $B/functions\n{script}"));
    put("inside", &format!(". $B/functions\ncd $M\n{inside}{SHOWN}"));
    put("shown", &format!(". $B/functions\ncd $M\n{SHOWN}"));
    let stage = format!(
        "{}\nexport B={shown} M={shown}/m P={} HOME={shown} XDG_RUNTIME_DIR={shown} XDG_STATE_HOME={shown}\n\
         cd /\n. $B/functions\n{} sh $B/script > $B/out",
        open_device(base, "666"),
        program.display(),
        place.entrance()
    );
    let (status, message) =
        run(Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", &stage]));
    let printed = sys::text(base.join("out")).unwrap_or_default();
    assert_eq!(status, 0, "{place:?}: {message}\nprinted: {printed}");
    printed
}

/// True if the test named can run here; else prints the skip line.
pub(super) fn can_run(name: &str, place: Where) -> bool {
    if !need_root(name) {
        return false;
    }
    let works = |line: &str| run(Command::new("sh").args(["-c", line])).0 == 0;
    let missing = if !ours_is_plyfs() {
        "about plyfs"
    } else if !works("command -v setpriv setfattr setfacl setcap getcap unshare nsenter mkfifo >/dev/null") {
        "needs setpriv, unshare, nsenter, setfattr, setfacl and setcap"
    } else if place != Where::Root && !works("unshare -U true") {
        "this machine allows no user namespaces"
    } else {
        return true;
    };
    skip(name, missing);
    false
}

/// A file capability of these permitted and effective bits, for the root of the server's namespace.
fn capability(place: Where, mask: u32) -> Vec<u8> {
    let version: u32 = if place == Where::Root { 2 } else { 3 };
    let mut value = (version << 24 | 1).to_le_bytes().to_vec();
    value.extend(mask.to_le_bytes());
    value.extend([0; 12]);
    if version == 3 {
        value.extend(place.outside(0).to_le_bytes());
    }
    value
}

/// Objects of several owners, with ACLs, a capability, setuid bits and a setgid directory.
pub(super) fn image(place: Where) -> Vec<Node> {
    let id = |id| place.outside(id);
    let reader = std::fs::read("/bin/cat").unwrap();
    let list = acl::of(&[
        (acl::USER_OBJ, 0, 6),
        (acl::USER, id(9), 4),
        (acl::GROUP_OBJ, 0, 0),
        (acl::GROUP, id(11), 6),
        (acl::MASK, 0, 6),
        (acl::OTHER, 0, 0),
    ]);
    vec![
        file("roots", "root's\n").own(id(0), id(0)).mode(0o640),
        file("five", "five's\n").own(id(5), id(6)).mode(0o600),
        file("kept", "seven's\n").own(id(7), id(7)).mode(0o600),
        file("suid", "run me").own(id(5), id(6)).mode(0o4777),
        file("lock", "lock me").own(id(5), id(6)).mode(0o2666),
        file("listed", "for some\n")
            .own(id(5), id(6))
            .mode(0o660)
            .xattr(acl::ACCESS, &list),
        // CAP_DAC_OVERRIDE.
        file("reader", reader)
            .own(id(0), id(0))
            .mode(0o755)
            .xattr("security.capability", capability(place, 2)),
        dir("dir").own(id(5), id(6)),
        file("dir/low", "low\n")
            .own(id(5), id(6))
            .xattr("user.note", "kept"),
        dir("group").own(id(0), id(6)).mode(0o2777),
        dir("defaults")
            .own(id(0), id(0))
            .mode(0o777)
            .xattr(acl::DEFAULT, &list),
        dir("tmp").own(id(0), id(0)).mode(0o1777),
        symlink("link", "five").own(id(5), id(6)),
        fifo("pipe").own(id(5), id(6)),
    ]
}

/// Everything that has to do with owners and modes, by root inside.
pub(super) const OWNERS: &str = r#"
say all; find . -printf '%P %U:%G %m %y %l\n' | sort
say root; cat roots five; touch new; mkdir newdir; ln -s x newlink; mkfifo newpipe; ln new second
look new newdir newlink newpipe second
say others; as 9 sh -c 'cd tmp; touch f; mkdir d; ln -s x s; mkfifo p; ln f l; : > d/in'; look tmp/* tmp/d/in
as 9 cat five 2>/dev/null || say refused
as 5 cat five; as 7 cat kept
as 9 sh -c 'rm tmp/f; echo again > tmp/f'; look tmp/f
as 5 rm -f tmp/f 2>/dev/null || say sticky
say chown; chown 3:4 dir/low; look dir/low; chown -h 3:4 link; look link; chown 8 pipe; chgrp 9 pipe; look pipe
chown 5 kept; look kept; chown 7:7 kept; look kept; chown 0:0 five; look five; chown -R 999:998 dir; look dir dir/low
as 5 chown 9 suid 2>/dev/null || say not given away
as 5 chmod 4770 suid; look suid; as 9 chmod 777 suid 2>/dev/null || say refused; chmod 4777 suid
say groups; touch group/new; mkdir group/sub; as 9 touch group/nines; look group/*
as 9 mkdir group/sub/x 2>/dev/null || say refused
setpriv --reuid 9 --regid 9 --groups 6 sh -c 'touch group/member; chgrp 6 group/member; chmod 2755 group/member'
look group/member; as 9 sh -c 'touch tmp/stranger; chmod 2755 tmp/stranger'; look tmp/stranger
say setuid; as 9 sh -c 'echo x >> suid'; look suid
cp lock lock2; chown 5:6 lock2; chmod 2666 lock2
setpriv --reuid 9 --regid 6 --clear-groups sh -c 'echo x >> lock'; look lock
as 9 sh -c 'echo x >> lock2'; look lock2
touch run; chmod 6755 run; chown 4:4 run; look run; chmod 6777 run; as 4 sh -c ': > run'; look run
chmod 6777 run; as 9 sh -c ': > run'; look run; chmod 6755 run; chown 4 run; look run
say names; mv dir/low tmp/low; mv tmp/d newdir/; rm pipe; mkdir pipe; look tmp/low newdir/d pipe
getfattr --only-values -n user.note tmp/low; echo; ln five six; chown 3 six; look five six; mv six tmp/l; look five
"#;

/// Everything that has to do with capabilities.
pub(super) const CAPABILITIES: &str = r#"
say capabilities; getcap reader; as 9 ./reader roots; cp reader plain; as 9 ./plain roots 2>/dev/null || say refused
setcap cap_dac_override,cap_net_raw+ep plain; getcap plain; as 9 ./plain roots
echo >> plain; getcap plain; setcap cap_net_raw+ep plain; chown 9 plain; getcap plain; touch -a reader; getcap reader
setcap cap_net_raw+ep plain
setfattr -n user.note -v new reader; getcap reader; mv reader moved; as 9 ./moved roots; cp moved gone; setcap -q -r gone 2>/dev/null || :
getcap gone moved
"#;

/// Everything that has to do with ACLs.
pub(super) const ACLS: &str = r#"
say acls; getfacl -cn listed; as 9 cat listed; setpriv --reuid 12 --regid 11 --clear-groups sh -c 'echo more >> listed'
as 12 cat listed 2>/dev/null || say refused
touch defaults/new; getfacl -cn defaults/new; mkdir defaults/sub; getfacl -cn defaults/sub
as 9 touch defaults/nines; look defaults/*
setfacl -m u:9:rw,g:6:r five; getfacl -cn five; as 9 sh -c 'echo nine >> five'; cat five; setfacl -b five; getfacl -cn five
setfacl -m g:6:rw lock2; chmod 2666 lock2; look lock2
setfacl -m d:u:3:rwx newdir; as 3 mkdir newdir/x 2>/dev/null || say refused; getfacl -cnd newdir
"#;

/// What a view shows.
pub(super) const SHOWN: &str =
    "say shown; find . -printf '%P %U:%G %m %y %n %s %l\\n' | sort; getcap -r . | sort\n";

/// What is in the upper, in the ids of who looks.
pub(super) const UPPER: &str = r#"
say upper; cd "$B/u"; find . ! -type c -printf '%P %U:%G %m %y %s %l\n' | sort
getfattr -R -h -d -m '^security.capability|^system|^user.note' -e hex . 2>/dev/null
"#;

/// A script: the view with these further words, `$B/inside` at it, and after a remount what it shows. `entry` is how
/// its users enter their namespace.
pub(super) fn twice(layers: &Layers, words: &[&str], entry: &str) -> String {
    let options = layers.options(words).into_string().unwrap();
    format!(
        "mounted '{options}'\n{entry} sh $B/inside\numount $M\n\
         mounted '{options}'\n{entry} sh $B/shown\numount $M\n"
    )
}

/// The lines of two outputs that differ.
pub(super) fn differences(a: &str, b: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut left, mut right) = (a.lines(), b.lines());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return found,
            (a, b) if a == b => {}
            (a, b) => found.push(format!("{a:?} and {b:?}")),
        }
    }
}
