"""The benchmark of mounts: scripts/bench mount."""
from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import chart
import goals
import lower
import parts
import report
import smoke
import spent
from systems import Failed, Stage, System, installed, more, plyfs, usual
from workloads import ROWS, Row, Sizes

BY_NAME = {row.name: row for row in ROWS}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench mount", add_help=False)
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--plyfs", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--debian", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="rows")
    parser.add_argument("--systems")
    parser.add_argument("--with", dest="sets", action="append", default=[])
    parser.add_argument("--with-rootless", dest="rootless_sets", action="append", default=[])
    parser.add_argument("--on", default="memory,disk")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--drop-caches", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def bad(message: str) -> None:
    print(f"bench: {message}; try --help", file=sys.stderr)
    sys.exit(2)


def pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name or not equals or not value:
        bad(f"'{word}' is not NAME=WORDS")
    return name, value


def chosen_systems(args: argparse.Namespace) -> list[System]:
    systems, further = usual(args.plyfs), more()
    for name, words in map(pair, args.sets):
        further.append(plyfs(args.plyfs, name, words))
    for name, words in map(pair, args.rootless_sets):
        further.append(plyfs(args.plyfs, name, words, rootless=True))
    for name, command in map(pair, args.program):
        further.append(System(name, tuple(command.split())))
    given = {name for name, _ in map(pair, args.sets + args.rootless_sets + args.program)}
    if args.systems:
        wanted = set(args.systems.split(","))
        known = {system.name for system in systems + further}
        if not wanted <= known:
            bad(f"no system is called {', '.join(sorted(wanted - known))}; there are: {', '.join(sorted(known))}")
        systems = [system for system in systems + further if system.name in wanted | given]
    else:
        systems += [system for system in further if system.name in given]
    return installed(systems)


def chosen_rows(args: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The rows and the further parts that are asked for."""
    words = args.only.split(",")
    further = [name for name in parts.PARTS if name in words]
    names = [name for name in words if name not in parts.PARTS]
    if "rows" in names:
        return ROWS, further
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        bad(f"no row or part is called {', '.join(unknown)}; there are: {', '.join(BY_NAME)}, {', '.join(parts.PARTS)}")
    return [BY_NAME[name] for name in names], further


def compete(stage: Stage, systems: list[System], rows: list[Row], runs: int, table: dict[str, dict[str, list[dict]]],
            problems: list[str]) -> None:
    """Runs every row on every system by turns, in another order each time, and adds the runs to the table."""
    broken: set[tuple[str, str]] = set()
    for turn in range(runs):
        for number, row in enumerate(rows):
            able = [system for system in systems if system.can(row)]
            shift = (turn + number) % len(able)
            for system in able[shift:] + able[:shift]:
                if (row.name, system.name) in broken:
                    continue
                try:
                    done = stage.once(system, row)
                except Failed as failure:
                    broken.add((row.name, system.name))
                    problems.append(f"{row.name} on {system.name}: {failure}")
                    print(f"bench: {problems[-1]}", file=sys.stderr)
                    continue
                table.setdefault(row.name, {}).setdefault(system.name, []).append(done)
            if sys.stderr.isatty():
                print(f"\rbench: round {turn + 1} of {runs}, {number + 1} of {len(rows)} rows\x1b[K", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for name, row in table.items():
        answers = {run["answer"] for many in row.values() for run in many}
        if len(answers) > 1:
            seen = {system: sorted({run["answer"] for run in many}) for system, many in row.items()}
            problems.append(f"{name}: the systems answer differently: {seen}")
            print(f"bench: {problems[-1]}", file=sys.stderr)


def needed(rows: list[Row], args: argparse.Namespace) -> tuple[list[Row], set[str]]:
    """The rows that can be run here, and the parts of the lower that they need."""
    there, needs = [], set()
    for row in rows:
        if row.needs == "debian" and args.debian is None:
            print(f"bench: {row.name}: there is no Debian tree; left out", file=sys.stderr)
            continue
        if row.needs == "crate" and not (args.scratch / "toolchain").is_dir():
            print(f"bench: {row.name}: there is no Rust toolchain; left out", file=sys.stderr)
            continue
        there.append(row)
        if row.needs:
            needs.add(row.needs)
    return there, needs


def open_stage(args: argparse.Namespace, place: str, sizes: Sizes, needs: set[str], systems: list[System]) -> Stage:
    """The lower in a place, and for rootless systems its copy."""
    stage = Stage(args.scratch, args.scratch / place, sizes, cold_disk=place == "disk" and args.drop_caches)
    lower.build(stage.lower, stage.outside, sizes, needs, args.debian if "debian" in needs else None)
    if "crate" in needs:
        (stage.outside / "toolchain").symlink_to(args.scratch / "toolchain")
    for system in [system for system in systems if system.rootless][:1]:
        lower.give(stage.lower, stage.lower_of(system))
    return stage


def kind(system: System) -> str:
    return "rootless" if system.rootless else "fast" if system.fast else "root"


def show(place: str, table: dict, systems: list[System], sizes: Sizes) -> None:
    names, operations = [system.name for system in systems], {row.name: row.operations(sizes) for row in ROWS}
    for other, key in report.TABLES:
        if other in names:
            print(f"\nlayers {report.PLACES[place]}, {report.KEYS[key]}, held against {other}\n"
                  + report.text(report.grid(table, names, other, key)))
    print("\nservers: processor seconds · most memory, MiB · requests for each operation\n"
          + report.text(report.costs(table, names, operations)), flush=True)


def main() -> int:
    args = arguments()
    places = args.on.split(",")
    if not set(places) <= set(report.PLACES) or args.runs < 1 or args.scale <= 0:
        bad("no such place, number of runs or scale")
    if args.smoke or args.record:
        return smoke.run(args, open_stage, compete)
    sizes, systems = Sizes(args.scale), chosen_systems(args)
    rows, further = chosen_rows(args)
    rows, needs = needed(rows, args)
    results: goals.Results = {}
    problems: list[str] = []
    figures: list[dict] = []
    for place in places if rows else []:
        stage = open_stage(args, place, sizes, needs, systems)
        try:
            compete(stage, systems, rows, args.runs, results.setdefault(place, {}), problems)
            if args.profile:
                spent.profile(stage, systems, rows, args.profile / place)
        finally:
            stage.close()
        show(place, results[place], systems, sizes)
    for name in further:
        figures += parts.run(name, args, [system for system in systems if not system.bare], problems)
    judged = [verdict for system in systems if system.plyfs
              for verdict in goals.judge(results.get("memory", {}), system.name, kind(system))]
    if judged:
        print("\ngoals, layers in memory\n" + "\n".join(verdict.line() for verdict in judged))
        print(f"  {sum(verdict.met for verdict in judged)} of {len(judged)} goals are met")
    save(args, results, systems, rows, sizes, judged, figures)
    low, high = report.loads(results, figures)
    print(f"load of the machine during the run: {low:.1f} to {high:.1f}")
    return 1 if problems else 0


def save(args: argparse.Namespace, results: goals.Results, systems: list[System], rows: list[Row], sizes: Sizes,
         judged: list[goals.Verdict], figures: list[dict]) -> None:
    about, names = report.machine(), [system.name for system in systems]
    operations = {row.name: row.operations(sizes) for row in rows}
    if args.json:
        args.json.write_text(json.dumps({
            "machine": about, "runs": args.runs, "scale": args.scale, "systems": names, "operations": operations,
            "results": results, "goals": [vars(verdict) | {"met": verdict.met} for verdict in judged], "figures": figures,
        }, indent=1) + "\n")
    if args.markdown:
        sections = {"rows": report.page(results, names, operations, judged, about)} if results else {}
        if figures:
            sections["figures"] = report.markdown(parts.lines(figures)) + "\n"
        report.put(args.markdown, sections)
    if args.chart and results:
        args.chart.write_text(chart.draw(results.get("memory") or next(iter(results.values())), names))


if __name__ == "__main__":
    # As if it were interrupted from the keyboard: everything is unmounted on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.umask(0o022)
    sys.exit(main())
