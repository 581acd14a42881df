"""The further parts of the benchmark of mounts: how time and memory grow, whether anybody waits for others, and how
long a start takes. Each figure that has a limit in the issue is printed with it; the limits are plyfs's."""
from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lower
from further import BY_NAME, DEEP, TIMES
from systems import Failed, Stage, System
from watch import status
from workloads import Sizes


class Figures:
    """Collects figures, and prints them as they come."""

    def __init__(self, problems: list[str]):
        self.list: list[dict] = []
        self.problems = problems

    def add(self, what: str, system: System, value: float, unit: str, limit: float | None = None, *, least: bool = False) -> None:
        """`limit` is the most, or with `least` the least that plyfs may show."""
        entry = {"what": what, "system": system.name, "value": value, "unit": unit, "load": os.getloadavg()[0]}
        if limit is not None and system.plyfs:
            entry |= {"limit": limit, "met": value >= limit if least else value <= limit}
        self.list.append(entry)
        bound = "" if "met" not in entry else f"   (goal {limit:g})   {'met' if entry['met'] else 'MISSED'}"
        print(f"  {what:58} {system.name:22} {value:10.3f} {unit}{bound}", flush=True)

    def attempt(self, run: Callable[[], None], what: str, system: System) -> None:
        try:
            run()
        except Failed as failure:
            self.problems.append(f"{what} on {system.name}: {failure}")
            print(f"bench: {self.problems[-1]}", file=sys.stderr)


def lines(figures: list[dict]) -> list[list[str]]:
    """For a table: a line for each figure, a column for each system."""
    systems = list(dict.fromkeys(entry["system"] for entry in figures))
    table: dict[tuple[str, str], dict[str, str]] = {}
    for entry in figures:
        line = table.setdefault((entry["place"], entry["what"]), dict.fromkeys(["goal", *systems], ""))
        missed = " **missed**" if entry.get("met") is False else ""
        line[entry["system"]] = f"{entry['value']:,.4g} {entry['unit']}{missed}"
        if "met" in entry:
            line["goal"] = f"{entry['limit']:g}"
    return [["", "layers", "goal", *systems], *([what, place, *line.values()] for (place, what), line in table.items())]


def empty_files(at: Path, count: int, each: int) -> None:
    """So many empty files, so many in a directory."""
    for number in range(count):
        if number % each == 0:
            directory = at / f"d{number // each // 100:03}/e{number // each % 100:02}" if each < count else at
            directory.mkdir(parents=True)
        os.close(os.open(f"{directory}/f{number}", os.O_CREAT | os.O_WRONLY, 0o644))


def middle(runs: list[dict], key: str = "seconds") -> float:
    return statistics.median(run[key] for run in runs)


def settled(pid: int) -> float:
    """The memory of a server in MiB, once it no longer falls."""
    memory = status(pid, "VmRSS")
    for _ in range(100):
        time.sleep(0.1)
        now = status(pid, "VmRSS")
        if now >= memory:
            break
        memory = now
    return memory


def growth(args: argparse.Namespace, stage: Stage, systems: list[System], figures: Figures) -> None:
    lists = [max(10, int(count * args.scale)) for count in (1_000, 10_000, 100_000)]
    trees = [max(10, int(count * args.scale)) for count in (1_000, 10_000, 100_000, 1_000_000)]
    for count in lists:
        empty_files(stage.lower / f"list{count}", count, count)
    for count in trees:
        empty_files(stage.lower / f"tree{count}", count, 100)
    for depth in (1, 100):
        directory = stage.lower / "/".join(DEEP.split("/")[:depth])
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(TIMES):
            (directory / f"file{number}").touch()
    share(stage, systems)

    def each(system: System, row: str, title: str, counts: list[int], per: Callable[[int], int], flat: float) -> None:
        took = []
        for count in counts:
            runs = [stage.once(system, BY_NAME[row], number=count) for _ in range(args.runs)]
            took.append(middle(runs) / per(count) * 1e6)
            figures.add(f"{title.format(count=f'{count:,}')}, for each file", system, took[-1], "us")
        # The smallest is no measure: what a program takes to start falls on few files.
        figures.add(f"{title.format(count=f'{counts[-1]:,}')}, against the best of the smaller", system,
                    took[-1] / min(took[:-1]), "times", flat)

    for system in systems:
        figures.attempt(lambda system=system: each(system, "list", "ls -l of one directory of {count}", lists, lambda count: count, 1.5), "growth", system)
        figures.attempt(lambda system=system: each(system, "tree", "walk of a tree of {count}", trees, lambda count: count, 1.5), "growth", system)
        figures.attempt(lambda system=system: each(system, "deep", "stat {count} levels deep", [1, 100], lambda _: TIMES, 2.0), "growth", system)
        if not system.name.startswith("kernel"):
            figures.attempt(lambda system=system: memory(stage, system, trees[-1], figures), "memory", system)


def memory(stage: Stage, system: System, files: int, figures: Figures) -> None:
    """What a node costs that the kernel knows, and what is left when it has forgotten all."""
    seen: dict[str, float] = {}

    def before(serving: list[int], _: dict) -> None:
        seen["before"] = sum(status(pid, "VmRSS") for pid in serving)

    def after(serving: list[int]) -> None:
        seen["full"] = sum(status(pid, "VmRSS") for pid in serving)
        Path("/proc/sys/vm/drop_caches").write_text("2")
        seen["forgotten"] = sum(settled(pid) for pid in serving)

    stage.once(system, BY_NAME["tree"], number=files, before=before, after=after)
    figures.add(f"memory for each of {files:,} nodes", system, (seen["full"] - seen["before"]) * 1048576 / files, "bytes", 400)
    figures.add("memory that stays when the kernel has forgotten them", system, seen["forgotten"] - seen["before"], "MiB",
                max(4.0, (seen["full"] - seen["before"]) / 20))


def latency(args: argparse.Namespace, stage: Stage, systems: list[System], figures: Figures) -> None:
    lower.build(stage.lower, stage.outside, stage.sizes, set(), None)
    with open(stage.lower / "huge", "wb") as file:
        block = os.urandom(1 << 20)
        for _ in range(max(64, int(4096 * args.scale))):
            file.write(block)
    share(stage, systems)

    def each(system: System) -> None:
        runs = [stage.once(system, BY_NAME["waiting"]) for _ in range(args.runs)]
        for key in runs[0]["figures"]:
            value = statistics.median(run["figures"].get(key, 0) for run in runs)
            if key.endswith(" took"):
                figures.add(f"meanwhile: {key}", system, value, "s")
            elif key != "started":
                figures.add(f"elsewhere: {key}", system, value * 1000, "ms", 1.0 if key.endswith("median") else None)
        one, two = (middle([stage.once(system, BY_NAME["processes"], number=count) for _ in range(args.runs)]) for count in (1, 2))
        figures.add("two processes do so much more than one", system, 2 * one / two, "times", 1.7, least=True)

    for system in systems:
        figures.attempt(lambda system=system: each(system), "latency", system)


def start(args: argparse.Namespace, stage: Stage, systems: list[System], figures: Figures) -> None:
    (stage.lower / "directory").mkdir(parents=True)
    share(stage, systems)
    runs = max(args.runs, 5)

    def each(system: System, title: str, keep_upper: bool, limit: float) -> None:
        seconds = [stage.once(system, BY_NAME["first answer"], keep_upper=keep_upper)["figures"]["started"] for _ in range(runs)]
        figures.add(f"mount to first answer, {title}", system, statistics.median(seconds) * 1000, "ms", limit)

    for system in systems:
        figures.attempt(lambda system=system: each(system, "empty upper", False, 20), "start", system)
    files = max(1000, int(1_000_000 * args.scale))
    # All systems of root find the same upper; what is in it is nobody's mark.
    rooted = [system for system in systems if not system.rootless]
    if rooted:
        stage.fresh(rooted[0])
        empty_files(stage.upper / "files", files, 100)
    for system in rooted:
        figures.attempt(lambda system=system: each(system, f"upper of {files:,} files", True, 50), "start", system)


def share(stage: Stage, systems: list[System]) -> None:
    for system in [system for system in systems if system.rootless][:1]:
        lower.give(stage.lower, stage.lower_of(system))


PARTS = {"growth": growth, "latency": latency, "start": start}


def run(name: str, args: argparse.Namespace, systems: list[System], problems: list[str]) -> list[dict]:
    """Measures a part in each of the places; answers the figures."""
    figures = Figures(problems)
    for place in args.on.split(","):
        if name == "growth" and place == "disk" and "memory" in args.on:
            continue  # Where the layers lie has no say in it.
        print(f"\n{name}, layers {'in memory' if place == 'memory' else 'on disk'}")
        stage = Stage(args.scratch, args.scratch / place, Sizes(args.scale))
        able = [system for system in systems if system.can(BY_NAME["waiting"])] if name == "latency" else systems
        begun = len(figures.list)
        try:
            PARTS[name](args, stage, able, figures)
        finally:
            stage.close()
        for entry in figures.list[begun:]:
            entry["place"] = place
    return figures.list
