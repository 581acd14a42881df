//! Owners and modes in an attribute (`xattr_permissions=`), and the smaller words.

use super::stage::{
    ACLS, CAPABILITIES, OWNERS, Where, can_run, differences, image, layers_for, perform, twice,
};
use crate::common::*;

const CONTAINERS: &str = "user.containers.override_stat";
const SECURITY: &str = "security.fuseoverlayfs.override_stat";
const OLDER: &str = "user.fuseoverlayfs.override_stat";

/// The image without its ACLs, which there are none of where modes are stated.
fn without_acls(place: Where) -> Vec<Node> {
    let mut nodes = image(place);
    nodes.push(file("plainly", "").own(place.outside(5), place.outside(6)));
    nodes
}

/// Everything shows as where owners are real; on disk all is the server's.
fn as_with_real_owners(name: &str, place: Where, word: &str, attribute: &str) {
    if !can_run(name, place) {
        return;
    }
    let steps = [OWNERS, CAPABILITIES].concat();
    let real = layers_for(Where::Root, &without_acls(Where::Root));
    let expected = perform(&real, Where::Root, &twice(&real, &["noacl"], ""), &steps);
    let layers = layers_for(place, &without_acls(place));
    let printed = perform(&layers, place, &twice(&layers, &[word], ""), &steps);
    let apart = differences(&expected, &printed);
    assert!(apart.is_empty(), "{name}: real and stated:\n{}", apart.join("\n"));
    let root = place.outside(0);
    for path in sys::walk(&layers.upper) {
        let stat = sys::lstat(&path).unwrap();
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR => {
                assert_eq!(sys::owner(&path), Ok((root, root)), "{}", path.display());
                assert_eq!(stat.st_mode & 0o7777, 0o755, "{}", path.display());
                assert!(sys::getxattr(&path, attribute).is_ok(), "{}", path.display());
            }
            _ => {}
        }
    }
    assert!(sys::getxattr(&layers.upper, attribute).is_ok());
    assert_eq!(
        sys::getxattr(layers.upper.join("suid"), attribute),
        Ok(b"5:6:0777".to_vec())
    );
}

#[test]
fn stated_in_a_user_attribute() {
    as_with_real_owners(
        "stated_in_a_user_attribute",
        Where::Root,
        "xattr_permissions=2",
        CONTAINERS,
    );
}

#[test]
fn stated_in_a_security_attribute() {
    as_with_real_owners(
        "stated_in_a_security_attribute",
        Where::Root,
        "xattr_permissions=1",
        SECURITY,
    );
}

#[test]
fn stated_rootless() {
    as_with_real_owners(
        "stated_rootless",
        Where::Rootless,
        "xattr_permissions=2",
        CONTAINERS,
    );
}

/// A layer as an engine unpacks it with `force_mask=0700`.
fn masked(attribute: &str) -> Vec<Node> {
    let stated = |node: Node, value: &str| node.mode(0o700).xattr(attribute, value);
    vec![
        stated(dir("dir"), "7:8:01777"),
        stated(file("dir/in", ""), "7:8:0644"),
        stated(file("suid", "run me"), "1:2:04751"),
        stated(file("private", "secret\n"), "5:6:0600"),
        stated(file("newer", ""), "5:6:0640:file"),
        stated(file("typed", ""), "5:6:100604"),
        stated(file("odd", ""), "what?"),
        file("unsaid", "").own(77, 88).mode(0o640),
        symlink("link", "private").own(9, 10),
        fifo("pipe").own(9, 10).mode(0o620),
    ]
}

const MASKED: &str = r#"
look . dir dir/in suid private newer typed odd unsaid link pipe; as 5 cat private; as 7 cat private 2>/dev/null || say refused
getfattr -d -m override suid . 2>/dev/null; for name in user.containers user.fuseoverlayfs security.fuseoverlayfs; do
getfattr -n $name.override_stat suid 2>/dev/null || say none; setfattr -n $name.override_stat -v 0:0:7777 suid 2>/dev/null || say no
setfattr -x $name.override_stat suid 2>/dev/null || say neither; done
as 9 touch dir/new; chmod 600 dir/in; chown 3 private; echo more >> newer; ln suid second; mv odd dir/odd; look dir/new dir/in private newer second dir/odd
"#;

#[test]
fn layers_unpacked_with_a_mask() {
    let name = "layers_unpacked_with_a_mask";
    if !can_run(name, Where::Root) {
        return;
    }
    let mut outputs = Vec::new();
    for attribute in [CONTAINERS, OLDER, SECURITY] {
        let layers = layers_for(Where::Root, &masked(attribute));
        sys::setxattr(&layers.lower, attribute, "5:6:0555").unwrap();
        let words = ["xattr_permissions=2"];
        outputs.push(perform(&layers, Where::Root, &twice(&layers, &words, ""), MASKED));
        let stated = |path: &str| sys::getxattr(layers.upper.join(path), CONTAINERS).unwrap();
        assert_eq!(stated("dir/in"), b"7:8:0600");
        assert_eq!(stated("dir"), b"7:8:1777");
        assert_eq!(stated("private"), b"3:6:0600");
        assert_eq!(stated("newer"), b"5:6:0640");
        assert_eq!(stated("second"), b"1:2:4751");
        // Nothing of the lower's statement is left beside it.
        for other in [OLDER, SECURITY] {
            assert!(
                sys::getxattr(layers.upper.join("second"), other).is_err(),
                "{other}"
            );
        }
    }
    let printed = &outputs[0];
    let expected = "dir 7:8 1777 directory\ndir/in 7:8 644 regular empty file\nsuid 1:2 4751 regular file\n\
        private 5:6 600 regular file\nnewer 5:6 640 regular empty file\ntyped 5:6 604 regular empty file\n\
        odd 0:0 700 regular empty file\nunsaid 77:88 640 regular empty file\nlink 9:10 777 symbolic link\n\
        pipe 9:10 620 fifo\nsecret\n== refused\n\
        == none\n== no\n== neither\n== none\n== no\n== neither\n== none\n== no\n== neither\n\
        dir/new 9:9 644 regular empty file\ndir/in 7:8 600 regular empty file\nprivate 3:6 600 regular file\n\
        newer 5:6 640 regular file\nsecond 1:2 4751 regular file\ndir/odd 0:0 700 regular empty file\n";
    assert!(printed.contains(expected), "{printed}");
    for other in &outputs[1..] {
        assert_eq!(differences(printed, other), Vec::<String>::new());
    }
}

#[test]
fn a_stated_lower_below_a_real_upper() {
    let name = "a_stated_lower_below_a_real_upper";
    if !can_run(name, Where::Root) {
        return;
    }
    let layers = layers_for(Where::Root, &masked(CONTAINERS));
    sys::setxattr(&layers.lower, CONTAINERS, "5:6:0555").unwrap();
    let steps = "echo >> suid; chmod 600 dir/in; ln private second; look suid dir/in private second";
    let printed = perform(
        &layers,
        Where::Root,
        &twice(&layers, &[], ""),
        &format!("{steps}\n"),
    );
    assert!(
        printed.contains("suid 1:2 4751 regular file\ndir/in 7:8 600"),
        "{printed}"
    );
    for (path, owner, mode) in [
        ("suid", (1, 2), 0o4751),
        ("dir", (7, 8), 0o1777),
        ("second", (5, 6), 0o600),
    ] {
        let path = layers.upper.join(path);
        assert_eq!(sys::owner(&path), Ok(owner), "{}", path.display());
        assert_eq!(
            sys::mode(&path).map(|mode| mode & 0o7777),
            Ok(mode),
            "{}",
            path.display()
        );
        assert!(sys::getxattr(&path, CONTAINERS).is_err(), "{}", path.display());
    }
}

#[test]
fn a_view_without_acls() {
    let name = "a_view_without_acls";
    if !can_run(name, Where::Root) {
        return;
    }
    let steps = r#"
fails() { if said=$("$@" 2>&1); then echo "$* did not fail"; else echo "$said"; fi; }
chmod 640 listed; as 9 cat listed 2>/dev/null || say refused
fails setfacl -m u:3:r five; fails setfacl -d -m u:3:r dir; getfattr -d -m - listed defaults; getfacl -cn listed
fails getfattr -n system.posix_acl_access listed; fails setfattr -x system.posix_acl_access listed
"#;
    let mut outputs = Vec::new();
    for place in [Where::Root, Where::Rootless] {
        let layers = layers_for(place, &image(place));
        outputs.push(perform(&layers, place, &twice(&layers, &["noacl"], ""), steps));
    }
    for printed in &outputs {
        assert!(printed.starts_with("== refused\n"), "{printed}");
        assert_eq!(printed.matches("Operation not supported").count(), 4, "{printed}");
        assert!(
            !printed.contains("did not fail") && !printed.contains("user:9"),
            "{printed}"
        );
    }
    assert!(!ACLS.is_empty());
}

#[test]
fn directories_with_one_link_and_labels_left_out() {
    let name = "directories_with_one_link_and_labels_left_out";
    if !can_run(name, Where::Root) {
        return;
    }
    let layers = layers_for(Where::Root, &image(Where::Root));
    let mut words = vec!["static_nlink"];
    if !sys::exists("/sys/fs/selinux/enforce") {
        words.push("context=\"system_u:object_r:container_file_t:s0:c1\"");
    }
    let steps = "mkdir a a/b; ln five six; stat -c '%n %h' . dir a a/b five; ls -ld a group\n";
    let printed = perform(&layers, Where::Root, &twice(&layers, &words, ""), steps);
    assert!(
        printed.starts_with(". 1\ndir 1\na 1\na/b 1\nfive 2\n"),
        "{printed}"
    );
}
