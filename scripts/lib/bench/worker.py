"""Runs rows in a view, in the place of the user who mounted it: as root, or in a user namespace.

Reads one job a line from standard input (JSON) and answers in lines: `ready` when the view is mounted and prepared,
then, after a line of the other side, `done` with the seconds, then, after one more line, `gone` when it is unmounted.
Whatever goes wrong is an answer with the key `error`.
"""
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from further import FURTHER
from workloads import ROWS, Sizes, View

BY_NAME = {row.name: row for row in [*ROWS, *FURTHER]}


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def mounted(merged: str) -> str | None:
    """The type of the file system that is mounted there."""
    kind = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, right = line.split(" - ", 1)
            if left.split(" ")[4] == merged:
                kind = right.split(" ")[0]
    return kind


def mount(argv: list[str], merged: str) -> None:
    """Runs what mounts; it ends when the view is there, or stays and is left to serve it."""
    with tempfile.TemporaryFile() as log:
        start(argv, merged, log)


def start(argv: list[str], merged: str, log: IO[bytes]) -> None:
    # Not a pipe: a server in the background may keep it open.
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    for _ in range(10_000):
        status = child.poll()
        if status not in (None, 0):
            log.seek(0)
            raise RuntimeError(f"{argv[0]}: exit status {status}: {log.read()[-300:].decode(errors='replace').strip()}")
        if mounted(merged):
            if status is None:
                # A program that serves in the foreground does not end; one that will end does so soon.
                try:
                    child.wait(2)
                except subprocess.TimeoutExpired:
                    pass
            return
        time.sleep(0.001)
    child.kill()
    raise RuntimeError(f"{argv[0]}: nothing is mounted after 10 s")


def unmount(merged: str) -> None:
    for _ in range(200):
        if mounted(merged) is None:
            return
        done = subprocess.run(["umount", merged], capture_output=True, check=False)
        if done.returncode != 0:
            time.sleep(0.05)
    raise RuntimeError(f"cannot unmount {merged}: {done.stderr.decode(errors='replace').strip()}")


def processor_seconds() -> float:
    """What this process and the programs that it ran have used."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def requests(argv: list[str]) -> int | None:
    """How many requests plyfs counts in its only mount."""
    if not argv:
        return None
    done = subprocess.run(argv, capture_output=True, check=True)
    return sum(entry["requests"] or 0 for entry in json.loads(done.stdout))


def perform(job: dict) -> None:
    merged, row = job["merged"], BY_NAME[job["row"]]
    begun = time.perf_counter()
    mount(job["mount"], merged)
    os.stat(merged)
    started = time.perf_counter() - begun
    view = View(Path(merged), Path(job["outside"]), Sizes(job["scale"]), job["number"])
    view.fd = os.open(merged, os.O_RDONLY | os.O_DIRECTORY)
    try:
        row.prepare(view)
        counted = requests(job["counters"])
        say(ready=True, kind=mounted(merged), device=os.minor(os.fstat(view.fd).st_dev))
        sys.stdin.readline()
        used, begun = processor_seconds(), time.perf_counter()
        answer = row.run(view)
        seconds, used = time.perf_counter() - begun, processor_seconds() - used
        say(done=True, seconds=seconds, caller_cpu=used, answer=answer, figures={"started": started, **view.figures},
            requests=None if counted is None else requests(job["counters"]) - counted)
        sys.stdin.readline()
    finally:
        os.close(view.fd)


for text in sys.stdin:
    order = json.loads(text)
    try:
        perform(order)
        unmount(order["merged"])
        say(gone=True)
    except Exception as error:  # Whatever it is belongs into the table, and the next row may work.
        try:
            if mounted(order["merged"]):
                subprocess.run(["umount", "-l", order["merged"]], check=False)
        finally:
            say(error=f"{type(error).__name__}: {error}")
