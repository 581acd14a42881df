//! A Debian in a container: packages come and go.

use std::path::PathBuf;
use std::process::Command;

use super::compare::Case;
use super::podman::SKIP;
use super::programs::Podman;
use super::seen::Seen;

type Done = Result<(), String>;

pub fn cases() -> Vec<Case<Podman>> {
    vec![
        Case {
            name: "import of a Debian of 170 MB",
            run: import,
        },
        Case {
            name: "install, reinstall and purge packages",
            run: packages,
        },
        Case {
            name: "commit of what was installed",
            run: commit,
        },
    ]
}

/// The archive, which the scripts make once and keep in the cache directory.
fn archive(podman: &Podman) -> Result<PathBuf, String> {
    let mut command = Command::new("bash");
    command.args([
        "-c",
        ". \"$0/scripts/lib/common.sh\"; scratch=$1; make_debian || { tail -n 2 \"$1/log\" >&2; exit 1; }",
    ]);
    command.arg(env!("CARGO_MANIFEST_DIR")).arg(&podman.nest.path);
    super::nest::finish(command).ok("mmdebstrap")?;
    Ok(podman.nest.path.join("debian.tar"))
}

fn import(podman: &Podman, seen: &mut Seen) -> Done {
    let archive = archive(podman)?;
    podman.podman(&["import", "-q", &archive.display().to_string(), "debian:1"])?;
    std::fs::remove_file(&archive).unwrap();
    seen.value(
        "version",
        podman.podman(&["run", "--rm", "debian:1", "cat", "/etc/debian_version"])?,
    );
    Ok(())
}

/// No network: the packages lie in /repo of the image.
const PACKAGES: &str = r#"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install hello ed less
hello
apt-get -qq -y --reinstall install bash coreutils
dpkg -r hello
apt-get -qq -y purge ed
dpkg -P less
dpkg --purge hello
apt-get -qq -y install ed
useradd -m -u 1234 someone
chown -R someone: /srv && install -o someone -m 2750 -d /srv/theirs && su someone -c 'echo mine >/srv/theirs/f'
mv /usr/share/doc/bash /usr/share/doc/bash.moved
mkdir /root/built && mkdir /root/built/DEBIAN /root/built/opt && echo x >/root/built/opt/x
printf 'Package: made\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: made here\n' >/root/built/DEBIAN/control
dpkg-deb -b /root/built /root/made.deb >/dev/null && dpkg -i /root/made.deb && cat /opt/x && dpkg -P made && ! ls /opt/x
dpkg --audit
dpkg --verify
"#;

/// Logs and caches, in which there is the time of now.
const NOW: &str =
    "(var/log/.*|var/cache/.*|var/lib/apt/lists/.*|var/lib/dpkg/.*-old|root/made.deb|etc/shadow-?)";

fn packages(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["run", "-d", "--name", "debian", "debian:1", "sleep", "1000"])?;
    let said = podman
        .nest
        .run(["podman", "exec", "debian", "bash", "-ec", PACKAGES]);
    seen.value("status", said.status);
    seen.value("output", said.ok("packages")?);
    seen.lines(
        "installed",
        &podman.podman(&["exec", "debian", "dpkg-query", "-W"])?,
    );
    // The diff names what lies below /var/cache and the like, but not with its times.
    seen.diff("diff", &podman.podman(&["diff", "debian"])?);
    let tree = podman.container_tree("debian", &["--skip", SKIP, "--data-differs", NOW])?;
    seen.tree("container", &tree);
    Ok(())
}

fn commit(podman: &Podman, seen: &mut Seen) -> Done {
    podman.podman(&["commit", "-q", "debian", "installed:1"])?;
    podman.podman(&["rm", "-f", "-t", "0", "debian"])?;
    let script = "dpkg-query -W | wc -l; dpkg --verify; stat -c '%n %u:%g %A' /srv/theirs /srv/theirs/f; ls /usr/share/doc | wc -l";
    seen.value(
        "run",
        podman.podman(&["run", "--rm", "installed:1", "bash", "-ec", script])?,
    );
    let layers = podman.podman(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", "installed:1"])?;
    seen.value("layers", layers);
    Ok(())
}
