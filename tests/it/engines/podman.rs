//! What podman does: images in, containers, changes, images out.

use std::path::Path;

use super::compare::Case;
use super::images::{self, BASED, CHANGES, DEEP_NAME, Images, LAYERED, containerfile};
use super::left;
use super::nest::{UID, Who};
use super::programs::{By, Podman};
use super::seen::Seen;
use crate::common::sys;

type Done = Result<(), String>;

pub fn cases(who: Who) -> Vec<Case<Podman>> {
    let case = |name, run| Case { name, run };
    let mut cases = vec![
        case("import of a tar archive", import),
        case("load of an OCI archive", load_oci),
        case("load of what `plyfs image save` wrote", load_ours),
        case("load of a docker archive of five layers", load_docker),
        case("image mount, which is read-only", image_mount),
        case("run --rm, and exit statuses", run),
        case("run --read-only", run_read_only),
        case("exec, diff", exec_and_diff),
        case("cp to and from a container", copy),
        case("commit of a running container", commit),
        case("stop and start", stop_and_start),
        case("kill -9 of the server, and a new start", server_killed),
        case("build with RUN steps", build),
        case("build --squash-all", build_squashed),
        case("save", save),
        case("-v dir:/mnt:O", overlay_volume),
        case("--mount type=image", image_volume),
        case("--uidmap, one range", one_range),
        case("--uidmap, two ranges", two_ranges),
        case("an image of 125 layers", deep),
        case("several containers at once", several),
        case("rm, rmi, system reset: nothing is left over", left::nothing_left),
    ];
    if who == Who::User {
        // The only one that root cannot ask for.
        cases.insert(cases.len() - 2, case("--userns=keep-id", keep_id));
    }
    cases
}

/// What a container shows of itself, from within.
pub const LOOK: &str = "cd / && find opt many made stack 2>/dev/null | sort | while read -r f; do \
    stat -c '%n %A %u:%g links=%h size=%s device=%t:%T' \"$f\" | sed 's/\\(^[^ ]* d.*\\) size=[0-9]*/\\1/'; done";

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The id is all that it prints.
fn loaded(podman: &Podman, file: &Path) -> Result<String, String> {
    let said = podman.podman(&["load", "-q", "-i", &text(file)])?;
    let name = said.trim().rsplit(' ').next().unwrap_or_default();
    Ok(name.to_owned())
}

pub fn import(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["import", "-q", &text(&Images::get()?.base), "base:1"])?;
    seen.tree("image", &podman.image_tree("base:1", &[])?);
    Ok(())
}

fn load_and_remove(podman: &Podman, seen: &mut Seen, file: &Path) -> Done {
    let name = loaded(podman, file)?;
    seen.tree("image", &podman.image_tree(&name, &[])?);
    podman.podman(&["rmi", &name])?;
    Ok(())
}

fn load_oci(podman: &Podman, seen: &mut Seen) -> Done {
    load_and_remove(podman, seen, &Images::get()?.oci)
}

fn load_ours(podman: &Podman, seen: &mut Seen) -> Done {
    load_and_remove(podman, seen, &Images::get()?.ours)
}

fn load_docker(podman: &Podman, seen: &mut Seen) -> Done {
    let name = loaded(podman, &Images::get()?.docker)?;
    seen.value("name", &name);
    seen.tree("image", &podman.image_tree(LAYERED, &[])?);
    Ok(())
}

/// What comes of changes to a tree that cannot be changed.
fn writes_fail(podman: &Podman, seen: &mut Seen, dir: &str) -> Done {
    let script = "cd \"$1\" || exit; for what in 'touch new' 'rm opt/new' 'chmod 700 opt' 'mv opt/new opt/x' 'mkdir d'; do \
                  $what; echo \"$what: $?\"; done 2>&1";
    seen.value("writes", podman.inside(&["sh", "-c", script, "sh", dir])?);
    Ok(())
}

fn image_mount(podman: &Podman, seen: &mut Seen) -> Done {
    let dir = podman.inside(&["podman", "image", "mount", LAYERED])?;
    writes_fail(podman, seen, dir.trim_end())?;
    // A second look while it is mounted, and a container beside it.
    seen.value(
        "run beside it",
        podman.podman(&["run", "--rm", LAYERED, "cat", "/opt/new"])?,
    );
    podman.inside(&["podman", "image", "umount", LAYERED])?;
    Ok(())
}

fn run(podman: &Podman, seen: &mut Seen) -> Done {
    seen.value(
        "output",
        podman.podman(&["run", "--rm", "base:1", "cat", "/etc/motd"])?,
    );
    for line in [
        "exit 7",
        "kill -9 $$",
        "cat /none",
        "echo x >/opt/f && rm -r /opt/tree && ! ls /opt/tree",
    ] {
        let said = podman
            .nest
            .run(["podman", "run", "--rm", "base:1", "sh", "-c", line]);
        seen.value(
            &format!("`{line}`"),
            format!("{} {} {}", said.status, said.out, said.err),
        );
    }
    let said = podman
        .nest
        .run(["podman", "run", "--rm", "base:1", "/no/such/program"]);
    seen.value("no such program", said.status);
    // As another user; all changes of a container with `volatile`.
    let as_web = ["run", "--rm", "--user", "33:33", LAYERED, "sh", "-c"];
    let script = "id -u; cat /opt/private 2>&1; echo x >/opt/dir/web && stat -c %u:%g /opt/dir/web; rm /opt/f 2>&1; touch /tmp/w && ls -n /tmp/w | cut -c1-20";
    seen.value(
        "as another user",
        podman.podman(&[&as_web[..], &[script]].concat())?,
    );
    let script = format!("({CHANGES}) && {LOOK}");
    seen.lines(
        "changed",
        &podman.podman(&["run", "--rm", "base:1", "sh", "-ec", &script])?,
    );
    seen.value("containers", podman.podman(&["ps", "-aq"])?);
    Ok(())
}

fn run_read_only(podman: &Podman, seen: &mut Seen) -> Done {
    let script = "touch /opt/new; echo $?; rm /opt/new; echo $?; cat /opt/new; echo x >/tmp/x; cat /tmp/x";
    let said = podman.nest.run([
        "podman",
        "run",
        "--rm",
        "--read-only",
        LAYERED,
        "sh",
        "-c",
        script,
    ]);
    seen.value("output", format!("{} {} {}", said.status, said.out, said.err));
    Ok(())
}

fn exec_and_diff(podman: &Podman, seen: &mut Seen) -> Done {
    change(podman, seen, CHANGES)
}

/// podman cannot keep the owner of a fifo in an attribute, which only files and directories have.
fn exec_and_diff_of_plain_files(podman: &Podman, seen: &mut Seen) -> Done {
    change(podman, seen, &CHANGES.replace("mkfifo /opt/pipe\n", ""))
}

fn change(podman: &Podman, seen: &mut Seen, changes: &str) -> Done {
    podman.podman(&["run", "-d", "--name", "changed", "base:1", "sleep", "1000"])?;
    seen.diff("untouched", &podman.podman(&["diff", "changed"])?);
    podman.podman(&["exec", "changed", "sh", "-ec", changes])?;
    seen.lines("within", &podman.podman(&["exec", "changed", "sh", "-c", LOOK])?);
    seen.value(
        "exit status",
        podman.nest.run(["podman", "exec", "changed", "false"]).status,
    );
    seen.diff("diff", &podman.podman(&["diff", "changed"])?);
    seen.tree("container", &podman.container_tree("changed", &["--skip", SKIP])?);
    Ok(())
}

/// What the engine puts into every container, with the time and the name of now.
pub const SKIP: &str = "(etc/(hosts|resolv.conf|hostname|mtab)|run/.containerenv|dev|proc|sys)";

fn copy(podman: &Podman, seen: &mut Seen) -> Done {
    let work = podman.nest.path.join("work/copied");
    let script = format!(
        "mkdir -p {0}/in/sub && echo in >{0}/in/sub/f && chmod 640 {0}/in/sub/f && ln -s f {0}/in/sub/l && touch -d @1600000000 {0}/in/sub/f",
        work.display()
    );
    podman.nest.ok(["sh", "-ec", &script])?;
    let (inner, outer) = (text(&work.join("in")), text(&work.join("out")));
    podman.podman(&["cp", &inner, "changed:/opt/copied"])?;
    podman.podman(&["cp", &text(&work.join("in/sub/f")), "changed:/opt/f"])?;
    podman.podman(&["cp", "changed:/opt", &outer])?;
    let look = "find /opt/copied /opt/f -exec stat -c '%n %A %u:%g %s' {} + | grep -v 'opt/copied d\\|sub d' | sort; stat -c %Y /opt/f; cat /opt/f";
    seen.value("within", podman.podman(&["exec", "changed", "sh", "-c", look])?);
    seen.tree("outside", &podman.tree(&outer, &[])?);
    Ok(())
}

fn commit(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["commit", "-q", "changed", "committed:1"])?;
    seen.tree("image", &podman.image_tree("committed:1", &["--skip", SKIP])?);
    let layers = podman.layers("committed:1")?;
    seen.value("layers", layers.len());
    seen.archive("layer", &layers[layers.len() - 1]);
    seen.lines(
        "run",
        &podman.podman(&["run", "--rm", "committed:1", "sh", "-c", LOOK])?,
    );
    Ok(())
}

fn stop_and_start(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["kill", "changed"])?;
    podman.podman(&["wait", "changed"])?;
    podman.podman(&["start", "changed"])?;
    seen.lines("within", &podman.podman(&["exec", "changed", "sh", "-c", LOOK])?);
    seen.diff("diff", &podman.podman(&["diff", "changed"])?);
    podman.podman(&["rm", "-f", "-t", "0", "changed"])?;
    Ok(())
}

fn server_killed(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["run", "-d", "--name", "killed", LAYERED, "sleep", "1000"])?;
    podman.podman(&[
        "exec",
        "killed",
        "sh",
        "-ec",
        "echo kept >/opt/kept; rm /opt/new; mkdir /opt/kept.d; mv /opt/l1 /opt/l4",
    ])?;
    if podman.by == By::Kernel {
        podman.podman(&["kill", "killed"])?;
    } else {
        podman.nest.kill_server(podman.by.name())?;
        let said = podman.nest.run(["podman", "exec", "killed", "cat", "/opt/kept"]);
        if said.status == 0 {
            return Err("a container without its server still answers".into());
        }
        podman.podman(&["kill", "killed"])?;
    }
    podman.podman(&["wait", "killed"])?;
    podman.podman(&["start", "killed"])?;
    seen.lines(
        "within",
        &podman.podman(&["exec", "killed", "sh", "-c", &format!("cat /opt/kept && {LOOK}")])?,
    );
    seen.diff("diff", &podman.podman(&["diff", "killed"])?);
    podman.podman(&["rm", "-f", "-t", "0", "killed"])?;
    Ok(())
}

/// A directory with a Containerfile, for the engine's user to read.
pub fn context(podman: &Podman, base: &str) -> Result<String, String> {
    let context = podman.nest.path.join("work/context");
    let _ = std::fs::create_dir(&context);
    let put =
        |name: &str, text: &str| std::fs::write(context.join(name), text).map_err(|e| format!("{name}: {e}"));
    put("Containerfile", &containerfile(base))?;
    put("Dockerfile", &containerfile(base))?;
    let _ = std::fs::create_dir(context.join("added"));
    put("added/f", "added\n")?;
    sys::chmod(context.join("added/f"), 0o644).unwrap();
    sys::chmod(context.join("added"), 0o755).unwrap();
    Ok(text(&context))
}

/// The tree of an image that was built, and the archives of the layers upon its base.
pub fn built(podman: &Podman, seen: &mut Seen, image: &str) -> Done {
    seen.tree("image", &podman.image_tree(image, &["--skip", SKIP])?);
    for (number, layer) in podman.layers(image)?.iter().enumerate().skip(1) {
        seen.archive(&format!("layer {number}"), layer);
    }
    seen.value("run", podman.podman(&["run", "--rm", image])?);
    Ok(())
}

fn build(podman: &Podman, seen: &mut Seen) -> Done {
    let context = context(podman, "base:1")?;
    podman.podman(&[
        "build",
        "-q",
        "--network=none",
        "--layers",
        "-t",
        "built:1",
        &context,
    ])?;
    built(podman, seen, "built:1")
}

fn build_squashed(podman: &Podman, seen: &mut Seen) -> Done {
    let context = context(podman, LAYERED)?;
    let file = podman.nest.path.join("work/context/Squashed");
    let lines = format!(
        "FROM {LAYERED}\nRUN rm -r opt/tree many && mkdir many && mv opt/new opt/newer && rm opt/l1\n"
    );
    std::fs::write(&file, lines).unwrap();
    let words = [
        "build",
        "-q",
        "--network=none",
        "--squash-all",
        "-t",
        "squashed:1",
        "-f",
        &text(&file),
        &context,
    ];
    podman.podman(&words)?;
    seen.tree("image", &podman.image_tree("squashed:1", &["--skip", SKIP])?);
    for (number, layer) in podman.layers("squashed:1")?.iter().enumerate() {
        seen.archive(&format!("layer {number}"), layer);
    }
    Ok(())
}

fn save(podman: &Podman, seen: &mut Seen) -> Done {
    for (number, layer) in podman.layers(LAYERED)?.iter().enumerate() {
        seen.archive(&format!("layer {number}"), layer);
    }
    Ok(())
}

fn overlay_volume(podman: &Podman, seen: &mut Seen) -> Done {
    let dir = podman.nest.path.join("work/volume");
    let script = format!(
        "mkdir -p {0}/d/e && echo f >{0}/f && echo g >{0}/d/g && ln {0}/f {0}/h && chmod 750 {0}/d && ln -s f {0}/l",
        dir.display()
    );
    podman.nest.ok(["sh", "-ec", &script])?;
    let before = podman.tree(&text(&dir), &[])?;
    let script = "cd /mnt && rm f && rm -r d/e && mkdir d/e && echo new >d/new && mv d/g g && chown 5:6 h && ls -lnR . | sed 's/ [A-Z][a-z][a-z] .* / /; /^total/d'";
    let volume = format!("{}:/mnt:O", dir.display());
    seen.value(
        "within",
        podman.podman(&["run", "--rm", "-v", &volume, "base:1", "sh", "-ec", script])?,
    );
    if podman.tree(&text(&dir), &[])? != before {
        return Err("the directory has changed".into());
    }
    Ok(())
}

fn image_volume(podman: &Podman, seen: &mut Seen) -> Done {
    let script = "find /mnt/opt | sort; cat /mnt/opt/new; echo x >/mnt/opt/new; echo $?; rm -r /mnt/opt/again; echo $?; cat /mnt/opt/new";
    for (word, label) in [("", "read-only"), (",rw=true", "writable")] {
        let mount = format!("type=image,source={LAYERED},destination=/mnt{word}");
        let said = podman.nest.run([
            "podman", "run", "--rm", "--mount", &mount, "base:1", "sh", "-c", script,
        ]);
        seen.value(label, format!("{} {} {}", said.status, said.out, said.err));
    }
    seen.value(
        "afterwards",
        podman.podman(&["run", "--rm", LAYERED, "cat", "/opt/new"])?,
    );
    Ok(())
}

/// What a container with other ids does and shows.
const WITH_IDS: &str = r#"
id -u
echo new >/tmp/new; mkdir /tmp/new.d
stat -c '%n %u:%g %A' /tmp/new /tmp/new.d /opt/owned /opt/private /opt/setuid /opt/dir /opt/dangling
cat /opt/private /opt/owned 2>&1
echo more >>/opt/f 2>&1; stat -c '%n %u:%g' /opt/f
getcap /opt/ping 2>&1
"#;

const AS_ROOT_WITH_IDS: &str = r#"
chown 33:34 /tmp/new && chown 5:6 /opt/a && chown -R 7:8 /opt/tree
setcap cap_net_admin+ep /opt/changed; getcap /opt/changed
mv /opt/moved-from /opt/moved-to; rm /opt/colour /opt/dir/f
stat -c '%n %u:%g %A' /tmp/new /opt/a /opt/b /opt/tree/deep/f /opt/moved-to/f
setpriv --reuid 33 true 2>/dev/null; su web -s /bin/sh -c 'id -u; echo web >/tmp/web; cat /opt/owned; stat -c %u:%g /tmp/web'
"#;

fn with_ids(podman: &Podman, seen: &mut Seen, words: &[&str], script: &str) -> Done {
    // One that an earlier case left when it failed.
    podman.podman(&["rm", "-f", "-t", "0", "--ignore", "mapped"])?;
    let run = [
        &["run", "-d", "--name", "mapped"],
        words,
        &["base:1", "sleep", "1000"],
    ]
    .concat();
    podman.podman(&run)?;
    let said = podman.podman(&["exec", "mapped", "sh", "-c", script])?;
    for (number, line) in said.lines().enumerate() {
        seen.value(&format!("within, line {number}"), line);
    }
    seen.diff("diff", &podman.podman(&["diff", "mapped"])?);
    seen.tree("container", &podman.container_tree("mapped", &["--skip", SKIP])?);
    podman.podman(&["commit", "-q", "mapped", "mapped:1"])?;
    seen.archive("layer", podman.layers("mapped:1")?.last().unwrap());
    podman.podman(&["rm", "-f", "-t", "0", "mapped"])?;
    let look = "stat -c '%n %u:%g' /tmp/new /opt/*";
    let said = podman.podman(&["run", "--rm", "mapped:1", "sh", "-c", look])?;
    for (path, owner) in said.lines().filter_map(|line| line.rsplit_once(' ')) {
        seen.told_value(&format!("unmapped: {path}"), owner);
    }
    podman.podman(&["rmi", "mapped:1"])?;
    Ok(())
}

fn keep_id(podman: &Podman, seen: &mut Seen) -> Done {
    with_ids(podman, seen, &["--userns=keep-id"], WITH_IDS)
}

fn one_range(podman: &Podman, seen: &mut Seen) -> Done {
    // Rootless, the ids of the middle count: 0 is the user, 1 and up are the subordinate ids.
    let map: &[&str] = match podman.who {
        Who::Root => &["--uidmap=0:100000:65536", "--gidmap=0:100000:65536"],
        Who::User => &["--uidmap=0:1:2000", "--gidmap=0:1:2000"],
    };
    with_ids(podman, seen, map, &format!("{WITH_IDS}{AS_ROOT_WITH_IDS}"))
}

fn two_ranges(podman: &Podman, seen: &mut Seen) -> Done {
    let map: &[&str] = match podman.who {
        Who::Root => &[
            "--uidmap=0:100000:30",
            "--uidmap=30:200000:5000",
            "--gidmap=0:100000:30",
            "--gidmap=30:200000:5000",
        ],
        Who::User => &[
            "--uidmap=0:1:30",
            "--uidmap=30:1001:5000",
            "--gidmap=0:1:30",
            "--gidmap=30:1001:5000",
        ],
    };
    with_ids(podman, seen, map, &format!("{WITH_IDS}{AS_ROOT_WITH_IDS}"))
}

fn deep(podman: &Podman, seen: &mut Seen) -> Done {
    loaded(podman, &Images::get()?.deep)?;
    seen.tree("image", &podman.image_tree(DEEP_NAME, &[])?);
    let script = format!(
        "cat /stack/top; rm /stack/f2 /stack/f{}; echo x >/stack/f4; {LOOK}",
        images::DEEP - 1
    );
    podman.podman(&["run", "-d", "--name", "deep", DEEP_NAME, "sleep", "1000"])?;
    seen.lines("within", &podman.podman(&["exec", "deep", "sh", "-ec", &script])?);
    seen.diff("diff", &podman.podman(&["diff", "deep"])?);
    podman.podman(&["rm", "-f", "-t", "0", "deep"])?;
    Ok(())
}

fn several(podman: &Podman, seen: &mut Seen) -> Done {
    let script = "for i in $(seq 50); do echo $i >/opt/mine$i; done; rm -r /opt/tree; cat /opt/mine* | wc -l";
    let children: Vec<_> = (0..4)
        .map(|_| {
            let command = podman
                .nest
                .command(["podman", "run", "--rm", LAYERED, "sh", "-ec", script]);
            std::thread::spawn(move || super::nest::finish(command))
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        seen.value(&format!("container {number}"), child.join().unwrap().ok("run")?);
    }
    Ok(())
}

/// With words for who mounts: a container's changes, which stay, and a view that cannot be changed.
pub fn mountopt() -> Vec<Case<Podman>> {
    let case = |name, run| Case { name, run };
    vec![
        case("import of a tar archive", import),
        case("load of a docker archive of five layers", load_docker),
        case("words reach who mounts", words_reach),
        case("exec, diff", exec_and_diff),
        case("commit of a running container", commit),
        case("stop and start", stop_and_start),
        case("kill -9 of the server, and a new start", server_killed),
        case("`ro` in mountopt", ro_in_mountopt),
        case("rm, rmi, system reset: nothing is left over", left::nothing_left),
    ]
}

fn words_reach(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["create", "--name", "words", LAYERED, "true"])?;
    let dir = podman.inside(&["podman", "mount", "words"])?;
    let (told, words): (_, &[&str]) = if podman.by == By::Kernel {
        let find = ["grep", "-F", dir.trim_end(), "/proc/self/mounts"];
        (podman.inside(&find)?, &["volatile"])
    } else {
        (format!("{:?}", podman.servers()), &["volatile", "fsync=0"])
    };
    if let Some(word) = words.iter().find(|&&word| !told.contains(word)) {
        return Err(format!("`{word}` is not in {told}"));
    }
    seen.value("where", dir.trim_end().ends_with("/merged"));
    podman.inside(&["podman", "umount", "words"])?;
    podman.podman(&["rm", "words"])?;
    Ok(())
}

fn ro_in_mountopt(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["create", "--name", "ro", LAYERED, "true"])?;
    let conf = podman.nest.path.join("storage.conf");
    let other = podman.nest.path.join("ro.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let with_ro = text.replace("mountopt = \"nodev", "mountopt = \"nodev,ro");
    assert_ne!(text, with_ro);
    std::fs::write(&other, with_ro).unwrap();
    let variable = format!("CONTAINERS_STORAGE_CONF={}", other.display());
    let with_ro = ["env", &variable[..], "podman"];
    let dir = podman.inside(&[&with_ro[..], &["mount", "ro"]].concat())?;
    let tree = podman.tree(dir.trim_end(), &["--skip", SKIP])?;
    seen.tree("container", &tree);
    writes_fail(podman, seen, dir.trim_end())?;
    let image = podman.image_tree(LAYERED, &["--skip", SKIP])?;
    // The container's own root is younger.
    let other: Vec<_> = tree
        .lines()
        .filter(|line| !line.starts_with(". ") && !image.lines().any(|known| known == *line))
        .collect();
    if !other.is_empty() || tree.lines().count() != image.lines().count() {
        return Err(format!("other than in its image: {other:?}"));
    }
    podman.inside(&[&with_ro[..], &["umount", "ro"]].concat())?;
    podman.podman(&["rm", "ro"])?;
    Ok(())
}

/// With ownership in attributes: images in and out, a container's changes.
pub fn force_mask() -> Vec<Case<Podman>> {
    let case = |name, run| Case { name, run };
    vec![
        case("import of a tar archive", import),
        case("load of a docker archive of one layer", load_based),
        case("exec, diff", exec_and_diff_of_plain_files),
        case("commit of a running container", commit),
        case("what lies in the layers", force_mask_layers),
        case("rm, rmi, system reset: nothing is left over", left::nothing_left),
    ]
}

fn load_based(podman: &Podman, seen: &mut Seen) -> Done {
    loaded(podman, &Images::get()?.based)?;
    seen.tree("image", &podman.image_tree(BASED, &[])?);
    Ok(())
}

fn force_mask_layers(podman: &Podman, seen: &mut Seen) -> Done {
    let driver = podman.podman(&[
        "image",
        "inspect",
        "-f",
        "{{.GraphDriver.Data.UpperDir}}",
        "base:1",
    ])?;
    let script = "cd \"$1\" && stat -c '%n %a %u' opt/owned opt/private opt/setuid opt/dir && \
                  getfattr --absolute-names -n user.containers.override_stat opt/owned opt/setuid opt/dir";
    seen.value(
        "base",
        podman.inside(&["sh", "-c", script, "sh", driver.trim_end()])?,
    );
    assert!(podman.who == Who::Root || sys::owner(&podman.graph) == Ok((UID, UID)));
    Ok(())
}
