//! What an engine leaves behind when all is removed: nothing.

use super::nest::Who;
use super::programs::Podman;
use super::seen::Seen;

/// Removes containers, images and at last everything, and looks after each step for mounts, servers and files.
pub fn nothing_left(podman: &Podman, seen: &mut Seen) -> Result<(), String> {
    // A container that runs and one that is only made go with the rest.
    if podman.podman(&["image", "exists", "base:1"]).is_ok() {
        podman.podman(&["run", "-d", "base:1", "sleep", "1000"])?;
        podman.podman(&["create", "base:1", "true"])?;
    }
    podman.podman(&["rm", "-fa", "-t", "0"])?;
    gone(podman, "rm", || {
        podman.servers().into_iter().map(|(_, line)| line).collect()
    })?;
    podman.podman(&["rmi", "-fa"])?;
    let graph = podman.graph.display().to_string();
    let script = "cd \"$1\" && ls -A overlay overlay/l overlay-containers overlay-layers overlay-images 2>/dev/null \
                  | grep -v 'json$\\|lock$\\|last-modified$'";
    seen.value(
        "files after rmi",
        podman.inside(&["sh", "-c", script, "sh", &graph])?,
    );
    podman.podman(&["system", "reset", "--force"])?;
    if podman.who == Who::User {
        // Ends the process that keeps the user namespace, which is no left-over.
        podman.podman(&["system", "migrate"])?;
    }
    gone(podman, "system reset", || {
        let processes = podman.nest.processes().into_iter().map(|(_, line)| line);
        processes
            .filter(|line| !line.contains("catatonit") && !line.starts_with("podman"))
            .collect()
    })?;
    gone(podman, "system reset", || podman.nest.new_mounts())?;
    let script = "[ ! -e \"$1\" ] || (cd \"$1\" && find . -type f ! -name '*lock' -o -name diff -o -name merged | sort)";
    seen.value(
        "files after reset",
        podman.nest.ok(["sh", "-c", script, "sh", &graph])?,
    );
    Ok(())
}

/// An error when what is listed does not go within a while.
pub fn gone(podman: &Podman, after: &str, list: impl Fn() -> Vec<String>) -> Result<(), String> {
    if podman.nest.until(|| list().is_empty()) {
        return Ok(());
    }
    Err(format!("left over after {after}: {:?}", list()))
}
