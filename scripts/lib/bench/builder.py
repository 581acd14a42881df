"""The benchmark of the builder: scripts/bench builder."""
import argparse
import os
import subprocess
import sys
from pathlib import Path

import images
from measure import Table, have, peak, remove, run, timed

parser = argparse.ArgumentParser()
parser.add_argument("--program", required=True)
parser.add_argument("--debian", required=True)
parser.add_argument("--scratch", type=Path, required=True)
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--only", default="clone,load,diff,memory")
parser.add_argument("--on", default="disk,memory")
parser.add_argument("--json")
parser.add_argument("--profile", type=Path)
args = parser.parse_args()
parts, places = args.only.split(","), args.on.split(",")
if not set(parts) <= {"clone", "load", "diff", "memory"} or not set(places) <= {"disk", "memory"} or args.runs < 1:
    sys.exit("bench: no such part or place; try --help")
plyfs = args.program
table = Table(args.runs)


def profile(name, argv, after):
    """Keeps what a run spends its time on."""
    if args.profile is None:
        return
    args.profile.mkdir(parents=True, exist_ok=True)
    run(["strace", "-f", "-c", "-o", args.profile / f"{name}.strace", *argv])
    after()
    if have("perf"):
        data = args.scratch / "perf.data"
        done = subprocess.run(["perf", "record", "-q", "-g", "-o", data, *argv], capture_output=True, check=False)
        if done.returncode == 0:
            report = subprocess.run(["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none"],
                                    capture_output=True, check=False)
            (args.profile / f"{name}.perf").write_bytes(report.stdout)
        after()


def clone(place, at):
    source, to = at / "source", at / "clone"
    images.tree(source, 100_000)

    def once(*argv):
        def way():
            seconds = timed([*argv, source, to])
            remove(to)
            return seconds
        return way
    table.compete(f"clone of a tree of 100,000 files, on {place}", "plyfs layer clone", {
        "plyfs layer clone": once(plyfs, "layer", "clone"),
        "cp -al": once("cp", "-al"),
    })
    profile(f"clone-{place}", [plyfs, "layer", "clone", source, to], lambda: remove(to))
    remove(source)


def load(place, at):
    file = at / "image.tar"
    image = images.docker_archive(file, images.layers(args.debian))
    print(f"\nimage of six layers, {file.stat().st_size / 1e6:.0f} MB")
    store, oci, bundle, graph, run_root = (at / name for name in ("store", "oci", "bundle", "graph", "run"))

    def ours():
        seconds = timed([plyfs, "--root", store, "image", "load", file])
        remove(store)
        return seconds

    def podman(driver):
        command = ["podman", "--root", graph, "--runroot", run_root, f"--storage-driver={driver}",
                   "--cgroup-manager=cgroupfs", "--events-backend=none"]

        def way():
            seconds = timed([*command, "load", "-q", "-i", file])
            if run([*command, "images", "-q", "--no-trunc"]).strip() != image:
                sys.exit("bench: podman loaded another image")
            run([*command, "rmi", "-af"])
            subprocess.run(f"findmnt -rno TARGET | grep -F '{graph}' | tac | xargs -r -n 1 umount -l", shell=True, check=False)
            remove(graph, run_root)
            return seconds
        return way

    def umoci():
        seconds = timed(["skopeo", "copy", "-q", f"docker-archive:{file}", f"oci:{oci}:bench"],
                        ["umoci", "unpack", "--image", f"{oci}:bench", bundle])
        remove(oci, bundle)
        return seconds
    table.compete(f"load of a Debian of six layers, on {place}", "plyfs image load", {
        "plyfs image load": ours,
        "podman load (overlay)": podman("overlay"),
        "podman load (vfs)": podman("vfs"),
        "skopeo copy + umoci unpack": umoci,
    })
    profile(f"load-{place}", [plyfs, "--root", store, "image", "load", file], lambda: remove(store))
    remove(file)


def diff(place, at):
    for files in (10_000, 100_000):
        lower, store, archive = at / "lower", at / "store", at / "lower.tar"
        images.tree(lower, files)
        run(["tar", "-C", lower, "-cf", archive, "."])
        root = [plyfs, "--root", store]
        run([*root, "image", "import", "--tag", "bench:1", archive])
        container = run([*root, "container", "create", "bench:1", "true"]).split()[-1]
        upper, merged = store / "overlay" / container / "upper", store / "overlay" / container / "merged"
        run([*root, "container", "mount", container])
        some = merged / "d000/d00003"
        (some / "new").write_text("new")
        with open(some / "file000307", "a") as file:
            file.write("more")
        (some / "file000308").unlink()
        (some / "file000309").chmod(0o600)
        run([*root, "container", "umount", container])
        below = Path(run([*root, "image", "inspect", "-f", "{{ .GraphDriver.Data.RootDir }}", "bench:1"]).strip())
        ways = {
            "container diff": [*root, "container", "diff", container],
            "layer diff --upper": [plyfs, "layer", "diff", "--upper", upper, "--lower", below],
        }
        for name, argv in ways.items():
            if "d000/d00003/file000308" not in run(argv):
                sys.exit(f"bench: {name} does not tell what changed")
            seconds = sorted(timed(argv) for _ in range(args.runs))
            table.figure(f"{name}, four changes, {files:,} files, on {place}", seconds[len(seconds) // 2], "s", 0.1)
        remove(lower, store, archive)


def memory(place, at):
    sizes = {
        "one file of 2 GiB": lambda archive: images.large_file(archive, 2 << 30),
        "100,000 files": lambda archive: images.many_files(archive, 100_000),
        "500,000 files": lambda archive: images.many_files(archive, 500_000),
    }
    for name, fill in sizes.items():
        file, store = at / "image.tar", at / "store"
        images.one_layer(file, fill)
        seconds, most = peak([plyfs, "--root", store, "image", "load", file])
        table.figure(f"most memory of image load, {name}, on {place} ({seconds:.1f} s)", most, "MiB", 100)
        remove(file, store)


for place in places:
    for part in parts:
        # Memory is measured once: where the files lie has no say in it.
        if part == "memory" and place != places[0]:
            continue
        at = args.scratch / place / part
        at.mkdir()
        {"clone": clone, "load": load, "diff": diff, "memory": memory}[part](place, at)
        remove(at)
if args.json:
    table.save(args.json)
