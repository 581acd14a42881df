"""What servers spend a row on: their system calls, the requests they get, and where their time goes."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from measure import have
from systems import Failed, Stage, System
from workloads import Row


def profile(stage: Stage, systems: list[System], rows: list[Row], to: Path) -> None:
    """Runs each row once more on each system that has a server, for each of the tools."""
    to.mkdir(parents=True, exist_ok=True)
    for row in rows:
        for system in systems:
            if system.bare or system.name.startswith("kernel") or not system.can(row):
                continue
            base = to / f"{row.name}, {system.name}".replace(" ", "-").replace("/", "-")
            try:
                requests(stage, system, row, base.with_suffix(".requests"))
                calls(stage, system, row, base.with_suffix(".strace"))
                if have("perf"):
                    samples(stage, system, row, base.with_suffix(".perf"))
            except Failed as failure:
                print(f"bench: no profile of {row.name} on {system.name}: {failure}", file=sys.stderr)


def requests(stage: Stage, system: System, row: Row, to: Path) -> None:
    if not stage.requests.possible:
        return
    counters: dict[int, list[int]] = {}
    counted: dict[str, int] = {}
    stage.once(system, row, before=lambda _, mount: counters.update(stage.requests.each(mount["device"])),
               after=lambda _: counted.update(stage.requests.told(counters)))
    operations = row.operations(stage.sizes)
    to.write_text("".join(f"{count / operations:9.3f} an operation {count:9d} {name}\n" for name, count in counted.items()))


def attached(stage: Stage, system: System, row: Row, argv: list[str | Path]) -> None:
    """Runs the row with a program beside the server, which gets the server's process id as its last word and is
    interrupted at the end."""
    beside: list[subprocess.Popen] = []

    def before(serving: list[int], _: dict) -> None:
        for pid in serving:
            beside.append(subprocess.Popen([*argv, str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
            if argv[0] == "strace":
                beside[-1].stderr.readline()  # It says that it is there.

    def after(_: list[int]) -> None:
        for program in beside:
            program.send_signal(signal.SIGINT)
            program.communicate()
    stage.once(system, row, before=before, after=after)


def calls(stage: Stage, system: System, row: Row, to: Path) -> None:
    attached(stage, system, row, ["strace", "-c", "-f", "-o", to, "-p"])


def samples(stage: Stage, system: System, row: Row, to: Path) -> None:
    data = stage.scratch / "perf.data"
    attached(stage, system, row, ["perf", "record", "-q", "-g", "-o", data, "-p"])
    done = subprocess.run(["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none"], capture_output=True, check=False)
    to.write_bytes(done.stdout)
    data.unlink(missing_ok=True)
