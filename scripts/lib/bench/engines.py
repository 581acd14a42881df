"""The benchmark of plyfs under container engines: scripts/bench engines."""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import images
import stack
from measure import remove, run
from report import machine

FUSE_OVERLAYFS, PLYFS, FLAT, KERNEL = "fuse-overlayfs", "plyfs", "plyfs on a flat tree", "kernel"
PARTS = ("mounts", "podman", "rootless")
FILES_OF_PACKAGE = 2_000
START, STARTS = "podman run --rm, true", 5

parser = argparse.ArgumentParser()
parser.add_argument("--program", required=True)
parser.add_argument("--debian")
parser.add_argument("--scratch", type=Path, required=True)
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--only", default=",".join(PARTS))
parser.add_argument("--on", default="disk,memory")
parser.add_argument("--layers", default="1,10,50,125")
parser.add_argument("--files", default="10000,100000")
parser.add_argument("--json")
parser.add_argument("--markdown", type=Path)
parser.add_argument("--after", type=Path)
args = parser.parse_args()
parts, places = args.only.split(","), args.on.split(",")
if not set(parts) <= set(PARTS) or not set(places) <= {"disk", "memory"} or args.runs < 1:
    sys.exit("bench: no such part or place; try --help")
results: list[dict] = []


class Watch:
    """Seconds of one step after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def step(self, name: str, *argv, **options) -> None:
        begun = time.monotonic()
        run(argv, **options)
        self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - begun

    def call(self, name: str, what, *arguments) -> None:
        begun = time.monotonic()
        what(*arguments)
        self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - begun


def kinds(seconds: dict[str, dict[str, list[float]]], title: dict) -> None:
    """Keeps the medians of all steps of all systems, and prints them with the ratio to fuse-overlayfs."""
    print("\n" + ", ".join(f"{value} {key}" if isinstance(value, int) else str(value) for key, value in title.items()))
    steps = list(dict.fromkeys(step for system in seconds.values() for step in system))
    for step in steps:
        theirs = statistics.median(seconds[FUSE_OVERLAYFS][step])
        words = []
        for system, times in seconds.items():
            if step not in times:
                continue
            median = statistics.median(times[step])
            results.append({**title, "step": step, "system": system, "median": median, "ratio": median / theirs,
                            "seconds": times[step], "runs": len(times[step])})
            words.append(f"{system} {median:.4f}" + ("" if system == FUSE_OVERLAYFS else f" ({median / theirs:.2f})"))
        print(f"  {step:32} " + "   ".join(words), flush=True)


def is_mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def end(merged: Path) -> None:
    """Unmounts as podman does, and waits for the server, which is not part of any time."""
    run(["fusermount3", "-u", merged])
    for _ in range(500):
        servers = [pid for pid in os.listdir("/proc") if pid.isdigit() and str(merged).encode() in command_line(pid)]
        if not servers and not is_mounted(merged):
            return
        time.sleep(0.01)
    sys.exit(f"bench: the server of {merged} stays")


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def container(watch: Watch, program: str, at: Path, lowers: list[Path], which: str, deb: Path) -> int:
    """The life of one container; returns the number of names that `find` saw."""
    upper, work, merged = (at / name for name in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir()
    options = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
    os.sync()
    watch.step(f"{which} container: mount", program, "-o", options, merged)
    watch.step(f"{which} container: first ls /", "ls", merged)
    watch.seconds[f"{which} container: to the first ls /"] = sum(
        watch.seconds[f"{which} container: {step}"] for step in ("mount", "first ls /"))
    names = run(["find", merged, "-xdev"]).count("\n") if which == "following" else 0
    if which == "first":
        watch.step("find / -xdev, first", "find", merged, "-xdev")
        watch.step("find / -xdev, again", "find", merged, "-xdev")
        watch.step("find / -xdev with stat", "find", merged, "-xdev", "-printf", "%s %T@\n")
        watch.step("dpkg -i of 2,000 files", "dpkg", f"--root={merged}", "--force-not-root", "--log=/dev/null", "-i", deb)
        if not (merged / f"usr/lib/many/m0/file{0}").exists():
            sys.exit("bench: the package is not there")
    end(merged)
    remove(upper, work, merged)
    return names


def mounts(place: str, at: Path) -> None:
    deb = stack.package(at, FILES_OF_PACKAGE)
    programs = {FUSE_OVERLAYFS: "fuse-overlayfs", PLYFS: args.program, FLAT: args.program}
    for files in map(int, args.files.split(",")):
        for layers in map(int, args.layers.split(",")):
            image, flat = at / "image", at / "flat"
            lowers = stack.make(image, files, layers)
            seconds = {system: {} for system in programs}
            names = set()
            for _ in range(args.runs):
                for system, program in programs.items():
                    watch = Watch()
                    below = lowers
                    if system == FLAT and layers > 1:
                        os.sync()
                        watch.call("first container: mount", stack.flatten, lowers, flat)
                        below = [flat]
                    container(watch, program, at, below, "first", deb)
                    names.add(container(watch, program, at, below, "following", deb))
                    remove(flat)
                    for step, spent in watch.seconds.items():
                        seconds[system].setdefault(step, []).append(spent)
            if len(names) != 1:
                sys.exit(f"bench: not all systems see the same names: {names}")
            kinds(seconds, {"part": f"mounts, on {place}", "files": files, "layers": layers})
            remove(image)


CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=10000:10000"]
cgroups = "disabled"
netns = "none"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""


class Podman:
    """A store with one way to mount."""

    def __init__(self, at: Path, system: str, rootless: bool) -> None:
        self.at, self.rootless = at / system.replace(" ", "-"), rootless
        self.at.mkdir()
        for name in ("home", "tmp"):
            (self.at / name).mkdir(mode=0o700)
        # podman takes paths of at most 50 bytes here, and waits for things that never come where they are longer.
        run_root = Path("/run") / system.replace(" ", "-")
        runtime = Path("/run") / f"user-{system.replace(' ', '-')}"
        for directory in (run_root, runtime):
            directory.mkdir(mode=0o700, exist_ok=True)
        program = {KERNEL: None, FUSE_OVERLAYFS: "/usr/bin/fuse-overlayfs", PLYFS: args.program}[system]
        conf = (f'[storage]\ndriver = "overlay"\ngraphroot = "{self.at}/graph"\nrunroot = "{run_root}"\n'
                f'rootless_storage_path = "{self.at}/graph"\n[storage.options.overlay]\nmountopt = "nodev"\n')
        if program:
            conf += f'mount_program = "{program}"\n'
        (self.at / "storage.conf").write_text(conf)
        (self.at / "containers.conf").write_text(CONTAINERS_CONF)
        if rootless:
            run(["chown", "-R", "1001:1001", self.at, run_root, runtime])
        self.words = ["setpriv", "--reuid=1001", "--regid=1001", "--init-groups"] if rootless else []
        self.environment = {**os.environ, "CONTAINERS_STORAGE_CONF": f"{self.at}/storage.conf",
                            "CONTAINERS_CONF": f"{self.at}/containers.conf", "HOME": f"{self.at}/home", "TMPDIR": f"{self.at}/tmp"}
        if rootless:
            self.environment["XDG_RUNTIME_DIR"] = str(runtime)
        else:
            self.environment.pop("XDG_RUNTIME_DIR", None)

    def argv(self, *words) -> list:
        return [*self.words, "podman", *words]

    def run(self, *words) -> str:
        return run(self.argv(*words), env=self.environment, cwd=self.at)

    def step(self, watch: Watch, name: str, *words) -> None:
        os.sync()
        watch.step(name, *self.argv(*words), env=self.environment, cwd=self.at)

    def close(self) -> None:
        self.run("system", "reset", "--force")
        if self.rootless:
            self.run("system", "migrate")
        remove(self.at)


def podman(place: str, at: Path, rootless: bool) -> None:
    """A Debian of 50 layers, end to end."""
    layers = 50
    file, deb = at / "image.tar", stack.package(at, FILES_OF_PACKAGE)
    with open(args.debian, "rb") as debian:
        archives = [debian.read()]
    for number in range(1, layers):
        archives.append(images.layer(lambda archive, number=number: small_layer(archive, number, deb)))
    images.docker_archive(file, archives, "localhost/bench:1", packed=False)
    at.chmod(0o755)
    file.chmod(0o644)
    systems = {}
    for system in (KERNEL, FUSE_OVERLAYFS, PLYFS):
        store = Podman(at, system, rootless)
        try:
            store.run("load", "-q", "-i", file)
            store.run("run", "--rm", "localhost/bench:1", "true")
        except SystemExit as refused:
            if system != KERNEL:
                raise
            print(f"  without the kernel's overlay: {refused}")
            remove(store.at)
            continue
        systems[system] = store
    seconds = {system: {} for system in systems}
    for _ in range(args.runs):
        for system, store in systems.items():
            watch = Watch()
            image = "localhost/bench:1"
            # Short, and much of it is podman's own: one of them says little.
            starts = [Watch() for _ in range(STARTS)]
            for start in starts:
                store.step(start, START, "run", "--rm", image, "true")
            watch.seconds[START] = statistics.median(start.seconds[START] for start in starts)
            store.step(watch, "podman run --rm, find / -xdev", "run", "--rm", image, "find", "/", "-xdev")
            store.step(watch, "podman run --rm, dpkg -i of 2,000 files", "run", "--rm", image, "dpkg", "-i", "/package.deb")
            store.step(watch, "podman run --rm, apt-get install", "run", "--rm", image, "sh", "-ec",
                       "apt-get -qq update; apt-get -qq -y install hello ed less >/dev/null 2>&1; hello")
            # Within one container: without the start and the end of it.
            store.run("run", "-d", "--name", "long", image, "sleep", "1000")
            store.step(watch, "podman exec, find / -xdev, first", "exec", "long", "find", "/", "-xdev")
            store.step(watch, "podman exec, find / -xdev, again", "exec", "long", "find", "/", "-xdev")
            store.step(watch, "podman exec, dpkg -i of 2,000 files", "exec", "long", "dpkg", "-i", "/package.deb")
            store.step(watch, "podman diff", "diff", "long")
            store.step(watch, "podman commit", "commit", "-q", "long", "localhost/committed:1")
            store.run("rm", "-f", "-t", "0", "long")
            store.run("rmi", "localhost/committed:1")
            for step, spent in watch.seconds.items():
                seconds[system].setdefault(step, []).append(spent)
    kinds(seconds, {"part": f"podman, {'rootless' if rootless else 'root'}, on {place}", "layers": layers})
    for store in systems.values():
        store.close()
    remove(file, deb)


def small_layer(archive, number: int, deb: Path) -> None:
    """What a step of a build leaves: some files of its own, a setting changed, something deleted."""
    for name in range(40):
        images.entry(archive, f"./opt/step{number}/file{name}", b"%d\n" % name * number)
    images.entry(archive, "./etc/step", b"step %d\n" % number)
    images.entry(archive, f"./usr/share/doc/step{number}", b"documented\n")
    if number > 1:
        images.entry(archive, f"./opt/step{number - 1}/.wh.file7", mode=0)
    if number == 1:
        images.entry(archive, "./package.deb", deb.read_bytes())


def markdown(path: Path) -> None:
    """The tables, between the markers of the page if it has them."""
    tables = ["Measured on " + ", ".join(f"{key}: {value}" for key, value in machine().items() if value) + ".\n"
              "Seconds, medians of so many runs as the tables say; in brackets the ratio to fuse-overlayfs of the same run.\n"]
    titles = list(dict.fromkeys((row["part"], row.get("files")) for row in results))
    for part, files in titles:
        rows = [row for row in results if (row["part"], row.get("files")) == (part, files)]
        systems = list(dict.fromkeys(row["system"] for row in rows))
        runs = rows[0]["runs"]
        title = part + (f", {files:,} files" if files else "") + (f", {runs} runs" if runs > 1 else ", one run")
        tables.append(f"### {title[0].upper()}{title[1:]}\n\n| layers | step | {' | '.join(systems)} |\n|---|---|{'---|' * len(systems)}")
        for layers, step in dict.fromkeys((row["layers"], row["step"]) for row in rows):
            cells = []
            for system in systems:
                found = [row for row in rows if (row["layers"], row["step"], row["system"]) == (layers, step, system)]
                cells.append(f"{found[0]['median']:.3f} ({found[0]['ratio']:.2f})" if found else "-")
            tables.append(f"| {layers} | {step} | {' | '.join(cells)} |")
        tables.append("")
    text = "\n".join(tables)
    begin, close = "<!-- begin: engines -->", "<!-- end: engines -->"
    old = path.read_text() if path.exists() else ""
    if begin in old and close in old:
        text = old.split(begin)[0] + begin + "\n" + text + close + old.split(close, 1)[1]
    path.write_text(text)


def keep() -> None:
    """What is measured so far: a part that fails does not take the others with it."""
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": machine(), "results": results}, indent=1))
    if args.markdown:
        markdown(args.markdown)


if args.after:
    results.extend(json.loads(args.after.read_text())["results"])
for place in places:
    for part in parts:
        at = args.scratch / place / part
        at.mkdir()
        if part == "mounts":
            mounts(place, at)
        elif args.debian:
            podman(place, at, part == "rootless")
        else:
            sys.exit("bench: the Debian tree is missing, which mmdebstrap makes")
        remove(at)
        keep()
