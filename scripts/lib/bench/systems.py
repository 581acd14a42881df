"""The systems that the benchmark of mounts compares, and one run of a row on one of them."""
from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lower as lowers
from measure import remove
from watch import Requests, cpu, peak, servers
from workloads import Row, Sizes

#: The longest that anything in a row may take.
PATIENCE = 600
HERE = Path(__file__).parent


@dataclass(frozen=True)
class System:
    """A name and the words that mount; `{lower}`, `{upper}`, `{work}` and `{merged}` stand for the directories."""

    name: str
    words: tuple[str, ...]
    rootless: bool = False
    writable: bool = True
    #: Whether files of the lower are read at the kernel's speed: plyfs read-only, or with passthrough=all.
    fast: bool = False
    plyfs: bool = False

    @property
    def bare(self) -> bool:
        return not self.words

    def can(self, row: Row) -> bool:
        return self.writable or not row.writes


LAYERS = "lowerdir={lower},upperdir={upper},workdir={work}"


def plyfs(program: str, name: str, words: str = "", rootless: bool = False) -> System:
    given = words.split(",") if words else []
    if rootless:
        given.append("userxattr")
    options = ",".join([LAYERS, *given])
    return System(name, (program, "{merged}", "-o", options), rootless=rootless, plyfs=True,
                  fast="passthrough=all" in given)


def usual(program: str) -> list[System]:
    """The systems that are compared unless others are named."""
    return [
        System("bare", ()),
        System("kernel", ("mount", "-t", "overlay", "overlay", "-o", LAYERS, "{merged}")),
        plyfs(program, "plyfs"),
        System("plyfs read-only", (program, "{merged}", "-o", "lowerdir={lower}"), writable=False, fast=True, plyfs=True),
        plyfs(program, "plyfs rootless", rootless=True),
        System("fuse-overlayfs", ("fuse-overlayfs", "-o", LAYERS, "{merged}")),
        System("unionfs-fuse", ("unionfs", "-o", "cow,allow_other,use_ino,suid,dev", "{upper}=RW:{lower}=RO", "{merged}")),
    ]


def more() -> list[System]:
    """Systems that are compared only if they are named."""
    return [
        System("kernel rootless", ("mount", "-t", "overlay", "overlay", "-o", LAYERS + ",userxattr", "{merged}"), rootless=True),
        System("fuse-overlayfs rootless", ("fuse-overlayfs", "-o", LAYERS, "{merged}"), rootless=True),
    ]


class Failed(Exception):
    """A row that a system could not do."""


class Worker:
    """The process that mounts and works, as the user of the system."""

    def __init__(self, system: System, scratch: Path, pinned: bool):
        runtime = scratch / "runtime"
        env = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1",
               "HOME": str(runtime), "XDG_RUNTIME_DIR": str(runtime)}
        argv = ["/usr/bin/python3", str(HERE / "worker.py")]
        if pinned:
            argv = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *argv]
        if system.rootless:
            user = str(lowers.USER)
            argv = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups",
                    "unshare", "-Urm", "--propagation", "private", *argv]
        self.process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd="/")
        self.rest = b""

    def tell(self, line: str = "") -> None:
        self.process.stdin.write(line.encode() + b"\n")

    def hear(self) -> dict:
        """The next answer."""
        until = time.monotonic() + PATIENCE
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not piece:
                self.end()
                raise Failed("took too long" if not ready else "the process that works has died")
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Stage:
    """One place for layers (on disk, or in memory), with its lower and a fresh upper for every run."""

    def __init__(self, scratch: Path, at: Path, sizes: Sizes, *, cold_disk: bool = False):
        self.scratch, self.at, self.sizes, self.cold_disk = scratch, at, sizes, cold_disk
        #: Whether all that works and serves shares one processor.
        self.pinned = False
        self.lower, self.outside, self.merged = at / "lower", at / "outside", at / "merged"
        self.upper, self.work = at / "layers/upper", at / "layers/work"
        self.workers: dict[str, Worker] = {}
        self.merged.mkdir(parents=True)
        self.outside.mkdir()
        self.requests = Requests()

    def fresh(self, system: System) -> None:
        """A new upper, as the first mount finds it, of the user of the system."""
        remove(self.upper.parent)
        owner = lowers.USER if system.rootless else 0
        for directory in (self.upper.parent, self.upper, self.work):
            directory.mkdir()
            os.chown(directory, owner, owner)

    def lower_of(self, system: System) -> Path:
        return self.at / "lower-of-user" if system.rootless else self.lower

    def words(self, system: System, row: Row) -> list[str]:
        """What mounts the system for a row. The bare file system is the lower itself; a row that writes gets a
        directory of its own with copies of what it changes."""
        if system.bare:
            if not row.writes:
                return ["mount", "--bind", "-o", "ro", str(self.lower), str(self.merged)]
            lowers.copy(self.lower, row.changes(self.sizes), self.upper)
            return ["mount", "--bind", str(self.upper), str(self.merged)]
        places = {"lower": self.lower_of(system), "upper": self.upper, "work": self.work, "merged": self.merged}
        return [word.format(**places) for word in system.words]

    def worker(self, system: System) -> Worker:
        worker = self.workers.get(system.name)
        if worker is None or worker.process.poll() is not None:
            worker = self.workers[system.name] = Worker(system, self.scratch, self.pinned)
        return worker

    def settle(self, row: Row) -> None:
        """The same state of the machine's caches for every system."""
        if self.cold_disk:
            os.sync()
            if row.cold:
                Path("/proc/sys/vm/drop_caches").write_text("3")

    def once(self, system: System, row: Row, *, number: int = 0, keep_upper: bool = False,
             before: Callable[[list[int], dict], None] = lambda *_: None, after: Callable[[list[int]], None] = lambda _: None) -> dict:
        """Mounts, does the row, unmounts. Answers the seconds and what else was seen. `number` is the row's own;
        `before` and `after` are called before and after what is timed, with the processes that serve;
        `before` also with what the worker says of the mount."""
        if not keep_upper:
            self.fresh(system)
        worker = self.worker(system)
        job = {"row": row.name, "number": number, "scale": self.sizes.scale, "mount": self.words(system, row),
               "merged": str(self.merged), "outside": str(self.outside), "counters": self.counters(system)}
        self.settle(row)
        serving: list[int] = []
        try:
            worker.tell(json.dumps(job))
            ready = worker.hear()
            serving = servers()
            before(serving, ready)
            with self.requests.of(ready) as counted:
                begun = sum(cpu(pid) for pid in serving)
                worker.tell()
                done = worker.hear()
                spent = sum(cpu(pid) for pid in serving) - begun
            most = sum(peak(pid) for pid in serving)
            after(serving)
            worker.tell()
            worker.hear()
            wait_for(serving)
        except Failed:
            clear(self.merged, serving)
            raise
        asked = counted.count if counted.count is not None else done["requests"]
        return {"seconds": done["seconds"], "answer": done["answer"], "caller_cpu": done["caller_cpu"],
                "server_cpu": spent, "server_memory": most,
                "figures": done["figures"], "requests": asked, "load": os.getloadavg()[0]}

    def counters(self, system: System) -> list[str]:
        """How plyfs is asked for its counters, where the kernel does not tell about requests."""
        return [system.words[0], "list", "--json"] if system.plyfs and not self.requests.possible else []

    def close(self) -> None:
        """Ends what works here, and removes the layers."""
        for worker in self.workers.values():
            worker.end()
        clear(self.merged, servers())
        remove(*self.at.iterdir())


def wait_for(serving: list[int]) -> None:
    """Waits until the servers have ended: what they still do must not fall into the next run."""
    until = time.monotonic() + 30
    while any(pid in servers() for pid in serving):
        if time.monotonic() > until:
            raise Failed("the server is still there 30 s after the unmount")
        time.sleep(0.01)


def clear(merged: Path, serving: list[int]) -> None:
    """After a failure: nothing is left mounted, and no server is left."""
    subprocess.run(["umount", "-l", merged], capture_output=True, check=False)
    for pid in serving:
        if pid in servers():
            os.kill(pid, 9)


def installed(systems: list[System]) -> list[System]:
    """Those that are there; says which are not."""
    there = []
    for system in systems:
        if system.bare or shutil.which(system.words[0]):
            there.append(system)
        else:
            print(f"bench: {system.name}: no program {system.words[0]}; left out", file=sys.stderr)
    return there
