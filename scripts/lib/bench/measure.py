"""Runs programs by turns and tells their times, and the memory they took."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time


def run(argv, **options):
    """Runs a program to its end; a failure ends the benchmark with what the program said."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, argv))}: exit status {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def timed(*commands, **options):
    """Seconds that the commands take, one after the other."""
    os.sync()
    begun = time.monotonic()
    for argv in commands:
        run(argv, **options)
    return time.monotonic() - begun


# A process begins with the most memory that the one it was forked from ever had, so a small one stands in between.
PEAK = """
import os, subprocess, sys, time
begun = time.monotonic()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.monotonic() - begun, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(argv):
    """Seconds and the most memory, in MiB, of the program, as wait4(2) tells it (VmHWM); not under 8 MiB."""
    os.sync()
    seconds, most = run([sys.executable, "-S", "-E", "-c", PEAK, *argv]).split()
    return float(seconds), float(most)


def remove(*paths):
    """Removes trees, however deep; not counted in any time."""
    subprocess.run(["rm", "-rf", "--one-file-system", *map(str, paths)], check=True)


def have(program):
    return shutil.which(program) is not None


class Table:
    """Collects the runs of competing ways, and prints their medians and ratios."""

    def __init__(self, runs):
        self.runs = runs
        self.results = []

    def compete(self, title, ours, ways, target=1.0):
        """Runs each of `ways` (name to a function that gives seconds) by turns. `ours` is measured against the others:
        it should take no more than `target` of each of their times."""
        seconds = {name: [] for name in ways}
        for _ in range(self.runs):
            for name, way in ways.items():
                seconds[name].append(way())
        print(f"\n{title}")
        mine = statistics.median(seconds[ours])
        for name, times in seconds.items():
            median = statistics.median(times)
            line = f"  {name:34} {median:8.3f} s   ({min(times):.3f} to {max(times):.3f})"
            row = {"what": title, "way": name, "median": median, "seconds": times}
            if name != ours:
                ratio = mine / median
                row["ratio"] = ratio
                line += f"   {ours} takes {ratio:.2f} of it" + ("" if ratio <= target else "   SLOWER")
            self.results.append(row)
            print(line, flush=True)

    def figure(self, title, value, unit, limit=None):
        """One figure, and what it should not exceed."""
        over = limit is not None and value > limit
        self.results.append({"what": title, "value": value, "unit": unit, "limit": limit})
        bound = "" if limit is None else f"   (limit {limit:g} {unit})" + ("   OVER" if over else "")
        print(f"  {title:60} {value:9.3f} {unit}{bound}", flush=True)

    def save(self, path):
        with open(path, "w") as file:
            json.dump({"runs": self.runs, "results": self.results}, file, indent=1)
