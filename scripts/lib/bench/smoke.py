"""The smoke form: whether a row became twice as slow against the kernel's overlay as it was when its ratio was recorded.

It has to tell the same on an idle and on a busy machine, so it differs from the whole benchmark in two things:

- Callers and servers share one processor. Where the scheduler puts a server decides its time: with an idle processor
  beside the caller's a round trip takes four times as long as on a busy machine, while the kernel's overlay makes none.
- The processor seconds of callers and servers are compared, not what other programs made them wait. On one processor
  that is the whole time, but for waiting (for a lock, or for nothing): so the time by the clock is looked at too, if
  nothing else wants the processors.

The smallest figure of the runs counts. A row that looks bad is run again, several times, before it fails.
"""
from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from goals import KERNEL, PROCESSOR, figure
from report import loads
from systems import Stage, System, usual
from workloads import ROWS, Row, Sizes

RECORD = Path(__file__).with_name("recorded.json")
SCALE = 0.05
#: So many times as slow as recorded is a failure; by the clock, a bit more.
TOO_SLOW, TOO_SLOW_BY_CLOCK = 2.0, 3.0
RUNS, MORE_RUNS, REPEATS, RUNS_TO_RECORD = 3, 4, 4, 15
PLYFS = "plyfs"

Table = dict[str, dict[str, list[dict]]]


def least(table: Table, row: Row, system: str, key: str) -> float:
    return min(figure(run, key) for run in table[row.name][system])


def measured(table: Table, row: Row, key: str) -> float:
    """How many times what the kernel's overlay takes: of processor seconds, or of seconds by the clock."""
    return least(table, row, PLYFS, key) / least(table, row, KERNEL, key)


def run(args: argparse.Namespace, open_stage: Callable[..., Stage], compete: Callable[..., None]) -> int:
    rows = [row for row in ROWS if not row.long]
    systems = [system for system in usual(args.plyfs) if system.name in (KERNEL, PLYFS)]
    stage = open_stage(args, "memory", Sizes(SCALE), set(), systems)
    stage.pinned = True
    table: Table = {}
    problems: list[str] = []
    slow: list[Row] = []
    try:
        compete(stage, systems, rows, RUNS_TO_RECORD if args.record else RUNS, table, problems)
        if not args.record:
            there = [row for row in rows if set(table.get(row.name, {})) == {KERNEL, PLYFS}]
            slow = judge(stage, systems, there, table, compete, problems)
    finally:
        stage.close()
    low, high = loads({"memory": table})
    if args.record and not problems:
        # A ratio below 1 is chance: as fast as the kernel is what can be promised.
        RECORD.write_text(json.dumps({row.name: round(max(1.0, measured(table, row, PROCESSOR)), 2) for row in rows}, indent=1) + "\n")
    failed = len(slow) + len(problems)
    print(f"{len(rows) - failed} rows as fast as recorded, {failed} failed; load {low:.1f} to {high:.1f}")
    if counts := os.environ.get("PLYFS_COUNTS"):
        Path(counts).write_text(f"{len(rows) - failed} {failed} 0\n")
    return 1 if failed else 0


def judge(stage: Stage, systems: list[System], rows: list[Row], table: Table, compete: Callable[..., None],
          problems: list[str]) -> list[Row]:
    """Prints each row's ratio; answers the rows that are too slow also after they were run again."""
    recorded = json.loads(RECORD.read_text())

    def too_slow(row: Row) -> bool:
        was = recorded[row.name]
        idle = os.getloadavg()[0] <= (os.cpu_count() or 1)
        return (measured(table, row, PROCESSOR) > was * TOO_SLOW
                or idle and measured(table, row, "seconds") > was * TOO_SLOW_BY_CLOCK)

    slow = [row for row in rows if too_slow(row)]
    for _ in range(REPEATS):
        if slow:
            print(f"run again: {', '.join(row.name for row in slow)}", flush=True)
            compete(stage, systems, slow, MORE_RUNS, table, problems)
            slow = [row for row in slow if too_slow(row)]
    print(f"{'':22} {'processor seconds':^35} {'by the clock':^26}")
    print(f"{'':22} {'kernel':>8} {'plyfs':>8} {'ratio':>7} {'recorded':>9} {'kernel':>9} {'plyfs':>8} {'ratio':>7}")
    for row in rows:
        words = {key: f"{least(table, row, KERNEL, key):8.4f} {least(table, row, PLYFS, key):8.4f} {measured(table, row, key):7.2f}"
                 for key in (PROCESSOR, "seconds")}
        print(f"{row.name:22} {words[PROCESSOR]} {recorded[row.name]:9.2f}  {words['seconds']}{'   TOO SLOW' if row in slow else ''}")
    return slow
