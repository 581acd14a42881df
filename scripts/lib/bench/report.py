"""The results of the benchmark of mounts as text, as Markdown, and for programs."""
from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from goals import FUSE_OVERLAYFS, KERNEL, PROCESSOR, Results, Verdict, mean, median, ratio

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    def first(path: str, key: str) -> str:
        lines = Path(path).read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "?")

    def version(*argv: str) -> str:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return (done.stdout + done.stderr).strip().splitlines()[0] if done.stdout + done.stderr else ""

    release = Path("/etc/os-release").read_text()
    return {
        "processors": f"{os.cpu_count()} x {first('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(first('/proc/meminfo', 'MemTotal').split()[0]) / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "system": next(line.split("=")[1].strip('"') for line in release.splitlines() if line.startswith("PRETTY_NAME")),
        "fuse-overlayfs": version("dpkg-query", "-W", "-f", "${Version}", "fuse-overlayfs"),
        "unionfs-fuse": version("dpkg-query", "-W", "-f", "${Version}", "unionfs-fuse"),
    }


def loads(results: Results, figures: Iterable[dict] = ()) -> tuple[float, float]:
    """The smallest and the largest load of the machine."""
    every = [run["load"] for table in results.values() for row in table.values() for runs in row.values() for run in runs]
    every += [figure["load"] for figure in figures]
    return (min(every), max(every)) if every else (os.getloadavg()[0],) * 2


def _ratio(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def grid(table: dict[str, dict[str, list[dict]]], systems: list[str], other: str, key: str = "seconds") -> list[list[str]]:
    """Rows of words: a row's name, the other system's seconds, the ratio of each system to it."""
    names = [name for name in systems if name != other]
    lines = [["", f"{other}, s", *names]]
    for name, row in table.items():
        base = median(row.get(other, []), key)
        if base is not None:
            lines.append([name, f"{base:.3f}", *(_ratio(ratio(row, system, other, key)) for system in names)])
    lines.append(["geometric mean", "", *(_ratio(mean(table, system, other, key)[0]) for system in names)])
    return lines


def costs(table: dict[str, dict[str, list[dict]]], systems: list[str], operations: dict[str, int]) -> list[list[str]]:
    """What the servers took: processor seconds, most memory in MiB, requests for each operation."""
    names = [name for name in systems if any(median(row.get(name, []), "server_cpu") for row in table.values())]
    lines = [["", "operations", *names]]
    for name, row in table.items():
        words = []
        for system in names:
            runs = row.get(system, [])
            seconds, memory, asked = (median(runs, key) for key in ("server_cpu", "server_memory", "requests"))
            if seconds is None:
                words.append("–")
                continue
            each = "" if asked is None else f" · {asked / operations[name]:.2f}"
            words.append(f"{seconds:.2f} · {memory:.0f}{each}")
        lines.append([name, f"{operations[name]:,}", *words])
    return lines


def text(lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(
        word.ljust(width) if column == 0 else word.rjust(width)
        for column, (word, width) in enumerate(zip(line, widths))) for line in lines)


def markdown(lines: list[list[str]]) -> str:
    def row(words: list[str]) -> str:
        return "| " + " | ".join(words) + " |"
    return "\n".join([row(lines[0]), "|" + "---|" + "--:|" * (len(lines[0]) - 1), *(row(line) for line in lines[1:])])


def verdicts(judged: list[Verdict]) -> list[list[str]]:
    lines = [["", "row", "held against", "measured", "goal", ""]]
    for one in judged:
        lines.append([one.system, one.what, one.against, f"{one.value:.2f}", f"{one.limit:.2f}", "met" if one.met else "**missed**"])
    return lines


KEYS = {"seconds": "Time", PROCESSOR: "Processor time of callers and servers (which other programs hardly disturb)"}
TABLES = [(KERNEL, "seconds"), (FUSE_OVERLAYFS, "seconds"), (FUSE_OVERLAYFS, PROCESSOR)]
PLACES = {"memory": "in memory (tmpfs)", "disk": "on the machine's disk"}


def page(results: Results, systems: list[str], operations: dict[str, int], judged: list[Verdict], about: dict[str, str]) -> str:
    """The tables for people, in Markdown."""
    low, high = loads(results)
    parts = [", ".join(f"{key} {value}" for key, value in about.items() if value)
             + f". Load of the machine during the run: {low:.1f} to {high:.1f}."]
    for place, table in results.items():
        parts.append(f"### Layers {PLACES[place]}")
        for other, key in TABLES:
            if other in systems:
                parts += [f"{KEYS[key]}, held against {'the kernel’s overlay' if other == KERNEL else other}; smaller is better:",
                          markdown(grid(table, systems, other, key))]
        parts += ["What the servers took: processor seconds · most memory in MiB · requests for each operation:",
                  markdown(costs(table, systems, operations))]
    if judged:
        parts += ["### Goals", markdown(verdicts(judged))]
    return "\n\n".join(parts) + "\n"


def put(path: Path, sections: dict[str, str]) -> None:
    """Writes the sections between their markers, if the file has them; else nothing but the sections."""
    old = path.read_text() if path.exists() else ""
    for name, body in sections.items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin not in old or end not in old:
            path.write_text("\n".join(sections.values()))
            return
        before, rest = old.split(begin, 1)
        old = f"{before}{begin}\n{body}{end}{rest.split(end, 1)[1]}"
    path.write_text(old)
