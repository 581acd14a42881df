//! Owners shown through ranges of ids.

use super::stage::{
    ACLS, CAPABILITIES, OWNERS, UPPER, Where, can_run, differences, image, layers_for, perform, twice,
};
use crate::common::layers::run;
use crate::common::*;

/// Ids that show one above their own, as with `--uidmap 0:1:1000`: the value of the words, and the namespace's map.
const SHIFTED: (&str, &str) = (":0:1:1000", "0 1 1000\\n");
/// As `--userns=keep-id` of user 7: the caller's own id, 0 outside, is 7 inside.
const KEPT: (&str, &str) = (":0:1:7:7:0:1:8:8:65528", "0 1 7\\n7 0 1\\n8 8 65528\\n");

fn words((value, _): (&str, &str)) -> [String; 2] {
    [format!("uidmapping={value}"), format!("gidmapping={value}")]
}

/// Inside a container everything looks as it does to root on the layers as they lie, and the upper comes out the same.
fn as_without_mapping(name: &str, place: Where, ids: (&str, &str)) {
    if !can_run(name, place) {
        return;
    }
    let steps = [OWNERS, ACLS, CAPABILITIES].concat();
    let plain = layers_for(Where::Root, &image(Where::Root));
    let expected = perform(&plain, Where::Root, &(twice(&plain, &[], "") + UPPER), &steps);
    let layers = layers_for(place, &image(place));
    let before = tree::fingerprint(&layers.lower);
    let words = words(ids);
    let words = [words[0].as_str(), words[1].as_str()];
    let script = twice(&layers, &words, &format!("enter '' '{}'", ids.1)) + UPPER;
    let printed = perform(&layers, place, &script, &steps);
    let apart = differences(&expected, &printed);
    assert!(
        apart.is_empty(),
        "{name}: unmapped and mapped:\n{}",
        apart.join("\n")
    );
    assert!(expected.contains("== capabilities"), "{expected}");
    // What was made is really somebody else's, outside.
    assert_eq!(
        sys::owner(layers.upper.join("newdir/d/in")),
        Ok((place.outside(9), place.outside(9)))
    );
    let changed = before.differences(&tree::fingerprint(&layers.lower), "planted", "afterwards");
    assert!(changed.is_empty(), "K142: {changed:?}");
}

#[test]
fn one_range_as_root() {
    as_without_mapping("one_range_as_root", Where::Root, SHIFTED);
}

#[test]
fn several_ranges_as_root() {
    as_without_mapping("several_ranges_as_root", Where::Root, KEPT);
}

#[test]
fn one_range_rootless() {
    as_without_mapping("one_range_rootless", Where::Rootless, SHIFTED);
}

#[test]
fn several_ranges_rootless() {
    as_without_mapping("several_ranges_rootless", Where::Rootless, KEPT);
}

/// What an engine does from outside, with an id that the container does not have.
const FROM_OUTSIDE: &str = r#"
mkdir -p mount/point; : > mount/file; echo text > mount/point/file; look mount mount/point mount/file; cat mount/point/file
chown 1:1 mount mount/point mount/file; look mount mount/point mount/file; chown 1000:1000 mount/file
chgrp 3 mount/file; look mount/file
look roots five far; as 6 cat five; as 5 cat five 2>/dev/null || say refused
cat far; chown 6:7 far; look far; as 9 touch tmp/nine; look tmp/nine; as 2000 sh -c ': > tmp/nobodys'; look tmp/nobodys
"#;

#[test]
fn what_an_engine_does_from_outside() {
    let name = "what_an_engine_does_from_outside";
    if !can_run(name, Where::Root) {
        return;
    }
    let theirs = run(std::process::Command::new("sh").args(["-c", "command -v fuse-overlayfs"])).0 == 0;
    let layers = || {
        let mut nodes = image(Where::Root);
        nodes.push(file("far", "far\n").own(5000, 5000).mode(0o600));
        layers_for(Where::Root, &nodes)
    };
    let words = words(SHIFTED);
    let words = [words[0].as_str(), words[1].as_str()];
    let view = |program: &str, layers: &Layers| {
        let script = format!("{program}\n{}{UPPER}", twice(layers, &words, ""));
        perform(layers, Where::Root, &script, FROM_OUTSIDE)
    };
    let ours = layers();
    let printed = view("", &ours);
    for line in [
        "mount 65534:65534 755 directory",
        "mount 1:1 755 directory",
        "mount/file 1000:3 644 regular empty file",
        "five 6:7 600 regular file",
        "far 65534:65534 600 regular file",
        "far 6:7 600 regular file",
        "tmp/nine 9:9 644 regular empty file",
        "tmp/nobodys 65534:65534 644 regular empty file",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    // On disk it is the layers' ids.
    assert_eq!(sys::owner(ours.upper.join("mount/file")), Ok((999, 2)));
    assert_eq!(sys::owner(ours.upper.join("far")), Ok((5, 6)));
    assert_eq!(sys::owner(ours.upper.join("tmp/nobodys")), Ok((65_534, 65_534)));
    if !theirs {
        return skip("the comparison with fuse-overlayfs", "it is not installed");
    }
    let layers = layers();
    let theirs = view("P=$(command -v fuse-overlayfs)", &layers);
    // It takes the times of nothing, and shows more links and other sizes of directories: owners and modes count here.
    let owners = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.contains("getfattr") && !line.starts_with("user.note"));
        lines
            .take_while(|line| *line != "== shown")
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let apart = differences(&owners(&theirs), &owners(&printed));
    assert!(
        apart.is_empty(),
        "fuse-overlayfs and plyfs:\n{}",
        apart.join("\n")
    );
    for path in [
        "mount",
        "mount/point",
        "mount/file",
        "far",
        "tmp/nine",
        "tmp/nobodys",
    ] {
        assert_eq!(
            sys::owner(layers.upper.join(path)),
            sys::owner(ours.upper.join(path)),
            "{path}"
        );
    }
}

#[test]
fn ids_without_a_place_in_the_layers() {
    let name = "ids_without_a_place_in_the_layers";
    if !can_run(name, Where::Root) {
        return;
    }
    let layers = layers_for(Where::Root, &image(Where::Root));
    let words = words(SHIFTED);
    let words = [words[0].as_str(), words[1].as_str()];
    let steps = r#"
fails() { if said=$("$@" 2>&1); then echo "$* did not fail"; else echo "$said"; fi; }
fails chown 0 five; fails chown 1001 five; fails chgrp 0 five; fails chown 2:1001 five; look five
fails setfacl -m u:0:r five; setfacl -m u:1:r five; getfacl -cn five
# Of no root in particular: as in the layers, from where an engine makes a new layer.
cp reader tool; setcap cap_net_raw+ep tool; getcap -n tool reader
# The kernel gives it a root: one with a place, and one without.
setcap -n 3 cap_net_raw+ep tool; getcap -n tool; fails setcap -n 2000 cap_net_raw+ep tool; getcap -n tool
"#;
    let printed = perform(&layers, Where::Root, &twice(&layers, &words, ""), steps);
    let large = "Value too large for defined data type";
    assert_eq!(printed.matches(large).count(), 4, "{printed}");
    assert!(printed.contains("five 6:7 600 regular file"), "{printed}");
    assert!(printed.contains("setfacl: five: Invalid argument"), "{printed}");
    assert!(printed.contains("user:1:r--"), "{printed}");
    assert!(
        printed.contains("tool cap_net_raw=ep\nreader cap_dac_override=ep\n"),
        "{printed}"
    );
    assert!(printed.contains("tool cap_net_raw=ep [rootid=3]"), "{printed}");
    assert!(!printed.contains("did not fail"), "{printed}");
    let stored = sys::getxattr(layers.upper.join("tool"), "security.capability").unwrap();
    assert_eq!((stored[3], &stored[20..]), (3, &2_u32.to_le_bytes()[..]));
}

#[test]
fn everything_squashed() {
    let name = "everything_squashed";
    if !can_run(name, Where::OneId) {
        return;
    }
    // Owners that the server's namespace does not have: without the word nothing of theirs can be copied up.
    let mut nodes = image(Where::Root);
    nodes.push(file("strange", "text\n").own(5, 6).mode(0o666));
    let steps = r#"
look roots five strange tmp; if ! echo more 2>/dev/null >> strange; then say refused; fi; look strange
touch new; if ! chmod 600 strange 2>/dev/null; then say kept; fi; look new strange; if ! chown 0:0 strange 2>/dev/null; then say left; fi
look strange
"#;
    let plain = layers_for(Where::OneId, &nodes);
    let printed = perform(&plain, Where::OneId, &twice(&plain, &[], ""), steps);
    assert!(
        printed.contains("== refused\nstrange 65534:65534 666 regular file\n== kept"),
        "{printed}"
    );
    let layers = layers_for(Where::OneId, &nodes);
    let printed = perform(
        &layers,
        Where::OneId,
        &twice(&layers, &["squash_to_root"], ""),
        steps,
    );
    for (file, mode) in [("strange", 666), ("new", 644), ("strange", 600)] {
        let line = format!("{file} 0:0 {mode} regular");
        assert!(printed.contains(&line), "{line}: {printed}");
    }
    for said in ["refused", "kept", "left"] {
        assert!(!printed.contains(&format!("== {said}")), "{said}: {printed}");
    }
    // Where ids can be given they are, whatever shows.
    let layers = layers_for(Where::Root, &nodes);
    let steps = r#"
look five strange; as 9 sh -c 'echo >> strange; : > tmp/nine'; chown 3:4 five; look five strange tmp/nine
"#;
    let words = ["squash_to_root", "squash_to_gid=77"];
    let printed = perform(&layers, Where::Root, &twice(&layers, &words, ""), steps);
    let objects: Vec<_> = printed
        .lines()
        .filter(|line| !line.starts_with(['=', '.']))
        .collect();
    assert!(
        objects.len() > 30 && objects.iter().all(|line| line.contains(" 0:77 ")),
        "{printed}"
    );
    assert_eq!(sys::owner(layers.upper.join("five")), Ok((3, 4)));
    assert_eq!(sys::owner(layers.upper.join("tmp/nine")), Ok((9, 9)));
    assert_eq!(sys::owner(layers.upper.join("strange")), Ok((5, 6)));
}
