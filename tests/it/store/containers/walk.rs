//! The walk that users of the old driver know, as root and as an ordinary user.

use super::*;

/// The walk that users of the old driver know; `$P` is the program. Root and an ordinary user see the same.
const WALK: &str = r#"
set -eu; export LC_ALL=C
say() { echo "== $*"; }
"$P" image import -t base:1 "$T/base.tar" > /dev/null
say create; id=$("$P" container create --name one base:1 sh -c 'cat /srv/new')
"$P" container ls | sed 's/  */ /g' | cut -d' ' -f2- | sed 's/[0-9]* s ago/now/'
cd "$S/overlay"
say files; cat "$id/lower-id" > "$T/l"; test "$(cat "$id-init/lower-id")" = "$(cat "$T/l")" && test -d "$(cat "$T/l")/root" && echo both name the layer
stat -c '%a %s' "$id/lower-id"; stat -c %a "$id/upper" "$id/work"; ls "$id" "$id-init" | sed "s/$id/ID/"
(cd "$id-init/upper"; find . -printf '%P %y %m %s %l\n' | sort)
say mount; m=$("$P" container mount one 2>"$T/note"); test "$m" = "$S/overlay/$id/merged" && echo on merged
"$P" unshare sh -c "cd '$m'; ls -A; stat -c '%n %h %u:%g' bin/ls srv/old; echo new > srv/new; chown 5:6 srv/new; rm srv/older; chmod 700 tmp; echo more >> etc/motd; mkdir -p a/b"
say busy; "$P" container rm one 2>/dev/null || echo not removed; "$P" image rm base:1 2>/dev/null || echo image stays
"$P" container mount one 2>/dev/null || echo mounted once
say umount; "$P" container umount one; test -e "$m" || echo merged is gone
"$P" container umount one 2>/dev/null || echo not mounted
say diff; "$P" container diff one
say commit; "$P" container commit -m 'a note' --change 'ENV A=1' one base:2 | cut -c1-7
"$P" image history base:2 | sed -n '2s/.* a note/a note/p'
r1=$("$P" image inspect -f '{{ .GraphDriver.Data.RootDir }}' base:1); r2=$("$P" image inspect -f '{{.GraphDriver.Data.RootDir}}' base:2)
"$P" unshare sh -c "test \$(stat -c %i '$r1/bin/ls') = \$(stat -c %i '$r2/bin/ls') && echo one inode; ls '$r2/srv'; stat -c %u:%g '$r2/srv/new'; cat '$r1/etc/motd'; ls -A '$r2/etc'; test -e '$r2/dev' || echo no dev"
say again; "$P" container create --name two base:2 sh > /dev/null; m=$("$P" container mount two 2>/dev/null)
"$P" unshare sh -c "cd '$m'; cat srv/new etc/motd; stat -c '%h' bin/ls; ls srv"; "$P" container umount two; "$P" container diff two
say end; "$P" container rm one two; "$P" container ls -q; "$P" image rm base:2 base:1 > /dev/null; ls "$S/overlay" "$S/containers" "$S/tmp" | sed "s|$S||"
"#;

const WALKED: &str = "\
== create
ID IMAGE COMMAND CREATED STATUS NAME
base:1 sh -c cat /srv/new now created one
== files
both name the layer
600 64
755
700
ID:
lower-id
upper
work

ID-init:
lower-id
upper
work
 d 755 4096 
.dockerenv f 755 0 
dev d 755 4096 
dev/console f 755 0 
dev/pts d 755 4096 
dev/shm d 755 4096 
etc d 755 4096 
etc/hostname f 755 0 
etc/hosts f 755 0 
etc/mtab l 777 12 /proc/mounts
etc/resolv.conf f 755 0 
proc d 755 4096 
sys d 755 4096 
== mount
on merged
.dockerenv
bin
dev
etc
lib
lib64
proc
root
srv
sys
tmp
bin/ls 1 0:0
srv/old 2 0:0
== busy
not removed
image stays
mounted once
== umount
merged is gone
not mounted
== diff
A /a
A /a/b
C /etc
C /etc/motd
C /srv
A /srv/new
D /srv/older
C /tmp
== commit
sha256:
a note
one inode
new
old
5:6
base
group
motd
passwd
no dev
== again
new
base
more
1
new
old
";

fn walk(name: &str, user: bool) {
    if !(if user {
        can_be_a_user(name)
    } else {
        can_mount(name)
    }) {
        return;
    }
    let yard = Yard::new();
    let (status, printed, errors) = on_stage(&yard, user, WALK, "");
    assert_eq!(status, Some(0), "{printed}\n{errors}");
    let (walked, end) = printed.split_once("== end\n").expect(&printed);
    // Directories have other sizes on other file systems.
    let plain = |text: &str| text.replace(" 4096 ", " - ");
    assert_eq!(plain(walked), plain(WALKED), "{errors}");
    let listed = end
        .lines()
        .filter(|line| !matches!(*line, "one" | "two" | "" | "/overlay:" | "/containers:" | "/tmp:"));
    assert_eq!(listed.collect::<Vec<_>>(), [""; 0], "left over");
}

#[test]
fn the_walk_as_root() {
    walk("the_walk_as_root", false);
}

#[test]
fn the_walk_as_an_ordinary_user() {
    walk("the_walk_as_an_ordinary_user", true);
}

#[test]
fn what_is_missing_is_named() {
    let name = "what_is_missing_is_named";
    if !can_be_a_user(name) {
        return;
    }
    let yard = Yard::new();
    let said = |script: &str, prepare: &str| {
        let (status, _, errors) = on_stage(&yard, true, script, prepare);
        assert_ne!(status, Some(0), "{script}");
        errors
    };
    let ls = "\"$P\" container ls";
    let hide = |program: &str| format!("mount --bind /dev/null $(command -v {program});");
    let ids = said(
        ls,
        "umount /etc/subuid; : > /tmp/empty-$$; mount --bind /dev/null /etc/subuid;",
    );
    assert!(
        ids.contains("/etc/subuid") && ids.contains("usermod --add-subuids"),
        "{ids}"
    );
    let helper = said(ls, &hide("newuidmap"));
    assert!(helper.contains("apt install uidmap"), "{helper}");
    let run = "\"$P\" image import -t base:1 \"$T/base.tar\" >/dev/null && \"$P\" container run base:1 true";
    let device = said(run, "chmod 600 /dev/fuse;");
    assert!(device.contains("/dev/fuse"), "{device}");
    let runtime = said(
        run,
        "for p in crun runc; do r=$(command -v $p) && mount --bind /dev/null $r; done;",
    );
    assert!(runtime.contains("apt install crun"), "{runtime}");
}

/// Mounted containers of an ordinary user are seen together, by whichever command comes next; a killed command takes
/// what it ran along.
const TOGETHER: &str = r#"
set -u; export LC_ALL=C
"$P" image import -t base:1 "$T/base.tar" > /dev/null
"$P" container create --name m1 base:1 > /dev/null; "$P" container create --name m2 base:1 > /dev/null
a=$("$P" container mount m1 2>/dev/null) & "$P" container mount m2 > /dev/null 2>&1; wait
"$P" unshare sh -c "ls '$S'/overlay/*/merged/etc/motd | wc -l; touch '$S'/overlay/*/merged/etc/motd"
ls "$S"/overlay/*/merged | grep -c motd
"$P" list --json | grep -c "\"merged\": *\"$S/"
"$P" container run --name run base:1 sleep 1234.25 2>/dev/null & pid=$!
for i in $(seq 100); do "$P" container ls | grep -q running && break; sleep 0.1; done
kill -9 $pid; wait $pid 2>/dev/null
for i in $(seq 100); do "$P" container rm run 2>/dev/null && break; sleep 0.1; done
pgrep -fx 'sleep 1234.25' || echo no sleeper
"$P" container umount m1 m2; "$P" container diff m1; "$P" container rm m1 m2
test "$("$P" unshare readlink /proc/self/ns/user)" != "$("$P" unshare readlink /proc/self/ns/user)" && echo namespaces are gone
"#;

#[test]
fn an_ordinary_users_mounts_are_seen_together() {
    let name = "an_ordinary_users_mounts_are_seen_together";
    if !can_be_a_user(name) || !can_run(name) {
        return;
    }
    let yard = Yard::new();
    let (status, printed, errors) = on_stage(&yard, true, TOGETHER, "");
    assert_eq!(status, Some(0), "{printed}\n{errors}");
    assert_eq!(
        printed, "2\n0\n2\nrun\nno sleeper\nC /etc\nC /etc/motd\nm1\nm2\nnamespaces are gone\n",
        "{errors}"
    );
}
