"""What must be reached, as data, and whether a run reaches it."""
from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

#: {place: {row: {system: [run, ...]}}}; a run is what Stage.once answers.
Results = dict[str, dict[str, dict[str, list[dict]]]]

KERNEL, FUSE_OVERLAYFS = "kernel", "fuse-overlayfs"


@dataclass(frozen=True)
class Goal:
    """The most that a row may take of what another system takes: as root; as root read-only or with passthrough=all;
    rootless. None where nothing is asked."""

    row: str
    against: str
    root: float
    fast: float | None
    rootless: float

    def limit(self, kind: str) -> float | None:
        return {"root": self.root, "fast": self.fast, "rootless": self.rootless}[kind]


def _requests(row: str, root: float, rootless: float) -> Goal:
    """A row of at least a request each operation. Its ratio to the kernel swings fourfold with where the scheduler
    puts the server, so it is held against another server in the same run."""
    return Goal(row, FUSE_OVERLAYFS, root, None, rootless)


def _data(row: str, root: float, fast: float, rootless: float) -> Goal:
    """A row that moves data, or is answered from the kernel's caches."""
    return Goal(row, KERNEL, root, fast, rootless)


GOALS = [
    _requests("walk cold", 0.50, 0.50),
    _requests("walk warm", 0.70, 0.75),
    _requests("ls -l flat", 0.65, 0.75),
    _requests("read small cold", 0.40, 0.60),
    _requests("read small warm", 0.35, 0.30),
    _requests("create", 0.35, 0.45),
    _requests("unlink", 0.30, 0.35),
    _requests("untar", 0.45, 0.65),
    _requests("rm -rf", 0.35, 0.35),
    _requests("whiteouts", 0.35, 0.40),
    _requests("copy-up small", 0.50, 0.60),
    _requests("copy-up chmod", 0.60, 0.70),
    _requests("git status", 0.60, 0.65),
    _requests("grep -r", 0.40, 0.65),
    _requests("four processes", 0.50, 0.55),
    _data("stat warm", 1.1, 1.1, 1.1),
    _data("stat missing", 1.2, 1.2, 1.2),
    _data("sequential read cold", 5, 1.2, 7),
    _data("sequential read warm", 2, 1.1, 2.2),
    _data("random reads", 6, 1.2, 7),
    _data("mmap read", 1.2, 1.1, 1.3),
    _data("sequential write", 1.1, 1.1, 2.2),
    _data("4 KiB writes", 1.1, 1.1, 1.8),
    _data("random writes", 1.1, 1.1, 2.6),
    _data("copy-up big", 1.0, 1.0, 1.0),
]
BY_ROW = {goal.row: goal for goal in GOALS}

#: The geometric mean of all rows against fuse-overlayfs, and against its version 2 where that is given as a program.
MEAN = {"root": 0.40, "fast": 0.40, "rootless": 0.55}
MEAN_2 = {"root": 0.55, "fast": 0.55, "rootless": 0.70}
#: May be slower than fuse-overlayfs, where the bound is shown: in the default mode, and rootless, every read of a file
#: of the lower is a request.
EXCEPTED = "sequential read"


#: Beside the keys of a run: the processor seconds of callers and servers together.
PROCESSOR = "processor"


def figure(run: dict, key: str) -> float | None:
    return run["caller_cpu"] + run["server_cpu"] if key == PROCESSOR else run.get(key)


def median(runs: list[dict], key: str = "seconds") -> float | None:
    values = [value for run in runs if (value := figure(run, key)) is not None]
    return statistics.median(values) if values else None


def ratio(row: dict[str, list[dict]], system: str, other: str, key: str = "seconds") -> float | None:
    mine, theirs = median(row.get(system, []), key), median(row.get(other, []), key)
    return mine / theirs if mine and theirs else None


def mean(table: dict[str, dict[str, list[dict]]], system: str, other: str, key: str = "seconds") -> tuple[float | None, int]:
    """The geometric mean of the ratios of all rows that both have, and how many those are."""
    ratios = [value for row in table.values() if (value := ratio(row, system, other, key)) is not None]
    return (math.exp(statistics.fmean(map(math.log, ratios))), len(ratios)) if ratios else (None, 0)


@dataclass(frozen=True)
class Verdict:
    """One goal, and what was measured."""

    what: str
    system: str
    against: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    def line(self) -> str:
        return (f"  {self.system:22} {self.what:26} {self.value:6.2f} of {self.against:16} goal {self.limit:5.2f}   "
                f"{'met' if self.met else 'MISSED'}")


def judge(table: dict[str, dict[str, list[dict]]], system: str, kind: str) -> list[Verdict]:
    """Holds a system against every goal of its kind (root, fast, rootless), for the layers in memory."""
    verdicts = []
    for goal in GOALS:
        # What is read at the kernel's speed has goals of its own; the other goals are those of root.
        limit = goal.limit(kind) or (goal.root if kind == "fast" else None)
        value = ratio(table.get(goal.row, {}), system, goal.against)
        if limit is not None and value is not None:
            verdicts.append(Verdict(goal.row, system, goal.against, value, limit))
    others = {other for row in table.values() for other in row}
    for other in sorted(name for name in others if name.startswith(FUSE_OVERLAYFS) and "rootless" not in name):
        limits = MEAN if other == FUSE_OVERLAYFS else MEAN_2
        value, rows = mean(table, system, other)
        if value is not None:
            verdicts.append(Verdict(f"geometric mean of {rows}", system, other, value, limits[kind]))
    for name, row in table.items():
        value = ratio(row, system, FUSE_OVERLAYFS)
        if value is not None and value > 1 and not (name.startswith(EXCEPTED) and kind != "fast"):
            verdicts.append(Verdict(f"{name}: not slower", system, FUSE_OVERLAYFS, value, 1.0))
    return verdicts
