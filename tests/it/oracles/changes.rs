//! A container's changes: docker and plyfs tell the same ones, and commit them to the same tree.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::compare::tree_of;
use super::missing;
use super::programs::{Docker, Oracle, Plyfs, Program, Scratch, output};
use crate::common::images::archive::{dir, fifo, file, hard, symlink};
use crate::common::images::{Image, Packing, Shape};
use crate::common::need_root;

/// What is done to both, in the merged tree.
const CHANGES: &str = r#"
echo more >>opt/f
echo new >opt/new
rm opt/gone
rm -r opt/tree
mkdir -p made/deep && echo x >made/deep/f
chmod 700 etc
rm -r var/log && mkdir var/log && echo x >var/log/new
mv opt/moved-from opt/moved-to
mv opt/dir opt/dir-moved
ln opt/new opt/new-link
ln -sf other opt/symlink
touch opt/touched
chown 5:6 opt/owned
chmod 4711 opt/mode
setcap cap_net_raw+ep opt/ping
mkfifo opt/pipe-new
mknod opt/device c 1 3
rm opt/becomes && mkdir opt/becomes
rm -r opt/becomes-too && echo file >opt/becomes-too
echo named >etc/hostname
rm opt/hidden && echo again >opt/hidden
rm -r opt/same && mkdir opt/same
echo x >"opt/odd name"
echo x >opt/bad.tmp && rm opt/bad.tmp
touch -d '2001-02-03 04:05:06.5' opt/dir-only
"#;

/// What is done besides, and docker does not see: a change of the same size that keeps the time, and of an attribute
/// other than capabilities.
const UNSEEN_BY_DOCKER: &str = r#"
printf '%s' EDITED >opt/edited && touch -d @1614834367 opt/edited
setfattr -n user.note -v x opt/marked
"#;

fn image() -> Image {
    let base = [
        dir("./"),
        dir("etc"),
        file("etc/motd", "hello\n"),
        dir("opt"),
        file("opt/f", "f\n"),
        file("opt/gone", "gone\n"),
        dir("opt/tree"),
        dir("opt/tree/deep"),
        file("opt/tree/deep/f", "f"),
        dir("var"),
        dir("var/log"),
        file("var/log/old", "old"),
        file("opt/moved-from", "moved\n"),
        dir("opt/dir"),
        file("opt/dir/f", "f"),
        symlink("opt/symlink", "f"),
        file("opt/touched", "touched"),
        file("opt/owned", "owned"),
        file("opt/mode", "mode").mode(0o755),
        file("opt/ping", "ping").mode(0o755),
        file("opt/becomes", "a directory"),
        dir("opt/becomes-too"),
        file("opt/becomes-too/f", "f"),
        file("opt/hidden", "before\n"),
        dir("opt/same"),
        dir("opt/dir-only"),
        file("opt/edited", "edited"),
        file("opt/marked", "marked"),
        fifo("opt/pipe"),
        file("opt/a", "group"),
        hard("opt/b", "opt/a"),
    ];
    Image::new("changes:1", &[&base, &[file("opt/second", "layer")]])
}

fn change(merged: &Path) {
    let mut command = Command::new("sh");
    command
        .args(["-eu", "-c", &format!("{CHANGES}{UNSEEN_BY_DOCKER}")])
        .env("LC_ALL", "C")
        .current_dir(merged);
    output(&mut command).unwrap();
}

fn sorted(lines: &str) -> Vec<String> {
    let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// docker's container, changed through the kernel's overlay over the very directories that docker would mount.
fn by_docker(docker: &Docker, id: &str, place: &Path) {
    docker
        .run(["create", "--name", "changed", id, "/bin/sh"])
        .unwrap();
    let data = docker
        .run(["inspect", "-f", "{{json .GraphDriver.Data}}", "changed"])
        .unwrap();
    let data: Value = serde_json::from_str(&data).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        data["LowerDir"].as_str().unwrap(),
        data["UpperDir"].as_str().unwrap(),
        data["WorkDir"].as_str().unwrap()
    );
    let merged = place.join("docker-merged");
    std::fs::create_dir(&merged).unwrap();
    output(
        Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&merged),
    )
    .unwrap();
    change(&merged);
    output(Command::new("umount").arg(&merged)).unwrap();
}

#[test]
fn diff_and_commit_are_those_of_docker() {
    if !need_root("diff and commit beside docker") {
        return;
    }
    let scratch = Scratch::new("changes");
    let place = scratch.path.join("docker");
    std::fs::create_dir(&place).unwrap();
    let docker = match Docker::start(&place, &scratch.short) {
        Ok(docker) => docker,
        Err(why) => return missing("docker", &why),
    };
    let ours = Plyfs(scratch.path.join("store"));
    let (image, given) = (image(), scratch.path.join("given"));
    image.write(&given, Shape::Docker, Packing::Gzip);
    docker.load(&given, &image).unwrap();
    ours.load(&given, &image).unwrap();

    by_docker(&docker, &image.id(), &scratch.path);
    ours.run(["container", "create", "--name", "changed", "changes:1", "/bin/sh"])
        .unwrap();
    let merged = ours.run(["container", "mount", "changed"]).unwrap();
    change(Path::new(merged.trim_end()));
    ours.run(["container", "umount", "changed"]).unwrap();

    let theirs = sorted(&docker.run(["diff", "changed"]).unwrap());
    let mut mine = sorted(&ours.run(["container", "diff", "changed"]).unwrap());
    assert!(theirs.len() > 30, "{theirs:#?}");
    let unseen = ["C /opt/edited", "C /opt/marked"];
    for line in unseen {
        let at = mine.iter().position(|mine| mine == line);
        mine.remove(at.unwrap_or_else(|| panic!("{line} in {mine:#?}")));
    }
    assert_eq!(mine, theirs);

    docker.run(["commit", "changed", "changed:2"]).unwrap();
    ours.run(["container", "commit", "changed", "changed:2"]).unwrap();
    let inspect = [
        "image",
        "inspect",
        "-f",
        "{{.GraphDriver.Data.RootDir}}",
        "changed:2",
    ];
    let theirs = tree_of(Path::new(docker.run(inspect).unwrap().trim_end()));
    let mine = tree_of(Path::new(ours.run(inspect).unwrap().trim_end()));
    let lines = mine.differences(&theirs, "plyfs", "docker");
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| !super::accepted::everywhere(Oracle::Docker, line))
        .filter(|line| !line.starts_with("opt/edited: ") && !line.starts_with("opt/marked: "))
        .collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
