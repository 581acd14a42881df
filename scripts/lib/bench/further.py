"""Rows of the further parts of the benchmark of mounts: growth, latency, start."""
from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Iterator

from workloads import Row, View, append, fork, keep_paths, processes

#: How deep the path of the part `growth` is, and how often it is looked up.
DEPTH, TIMES = 100, 2000
DEEP = "/".join(f"level{level}" for level in range(DEPTH))


def list_one(view: View) -> int:
    return view.lines("ls", "-l", f"list{view.number}")


def walk_tree(view: View) -> int:
    return view.lines("find", f"tree{view.number}", "-size", "-1000k")


def stat_deep(view: View) -> int:
    """Names that the kernel does not know, at the end of a path so deep."""
    directory = "/".join(DEEP.split("/")[:view.number])
    for name in range(TIMES):
        os.stat(f"{directory}/file{name}", dir_fd=view.fd)
    return TIMES


def elsewhere(view: View) -> Iterator[tuple[str, str]]:
    """What ls and stat are asked for: always something that the kernel has to ask the server for."""
    for number in itertools.count():
        yield "stat", f"flat/entry-{number:05}" if number < view.sizes.flat else f"flat/missing-{number}"
        directory = number % (20 * view.sizes.part)
        yield "ls", f"small/t{view.sizes.tops - 1 - directory // 20:03}/d{directory % 20:02}"


def write_and_sync(view: View) -> None:
    """A file that takes long to get to the disk."""
    file = os.open("synced", os.O_WRONLY | os.O_CREAT, dir_fd=view.fd)
    data = os.urandom(1 << 20)
    for _ in range(4):
        for _ in range(max(1, int(256 * view.sizes.scale))):
            os.write(file, data)
        os.fsync(file)
    os.close(file)


def waiting(view: View) -> int:
    """How long ls and stat take while other processes copy up a large file, sync, and remove trees."""
    busy = {
        fork(lambda: append(view, "huge")): "copy-up",
        fork(lambda: write_and_sync(view)): "fsync",
        fork(lambda: view.program("rm", "-rf", *(f"small/t{top:03}" for top in range(view.sizes.part)))): "rm -rf",
    }
    seconds: dict[str, list[float]] = {"stat": [], "ls": []}
    begun = time.perf_counter()
    for what, path in elsewhere(view):
        before = time.perf_counter()
        try:
            if what == "ls":
                os.listdir(view.root / path)
            else:
                os.stat(path, dir_fd=view.fd)
        except FileNotFoundError:
            pass
        seconds[what].append(time.perf_counter() - before)
        for child in list(busy):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended and status != 0:
                raise RuntimeError(f"{busy[child]} failed")
            if ended:
                view.figures[f"{busy.pop(child)} took"] = time.perf_counter() - begun
        if not busy:
            break
        time.sleep(0.001)
    for what, times in seconds.items():
        times.sort()
        view.figures[f"{what} median"] = statistics.median(times)
        view.figures[f"{what} of 100 the slowest"] = times[len(times) * 99 // 100]
        view.figures[f"{what} slowest"] = times[-1]
    return view.sizes.tops - view.sizes.part


def reads(view: View) -> int:
    return processes(view, view.number)


def first_answer(view: View) -> int:
    return len(os.listdir(view.root)) and 1


FURTHER = [
    Row("list", list_one, lambda s: 1),
    Row("tree", walk_tree, lambda s: 1),
    Row("deep", stat_deep, lambda s: TIMES),
    Row("waiting", waiting, lambda s: 1, writes=True),
    Row("processes", reads, lambda s: 1, keep_paths, writes=True),
    Row("first answer", first_answer, lambda s: 1),
]
BY_NAME = {row.name: row for row in FURTHER}
