"""A chart of the ratios, as SVG that is read in light and in dark."""
from __future__ import annotations

import math
from xml.sax.saxutils import escape

from goals import KERNEL, mean, ratio

#: Colours that are told apart by people who see few of them, and on both grounds; and shapes beside.
MARKS = [("#0072b2", "circle"), ("#d55e00", "square"), ("#009e73", "diamond"), ("#cc79a7", "triangle"),
         ("#b8860b", "circle"), ("#56b4e9", "square"), ("#8a8a8a", "diamond"), ("#8b5cf6", "triangle")]
LEFT, RIGHT, TOP, STEP, WIDTH = 170, 30, 84, 22, 860

STYLE = """<style>
  .ground { fill: #ffffff } .word { fill: #1f2328; font: 13px system-ui, sans-serif } .small { font-size: 11px }
  .title { font-weight: 600; font-size: 15px } .line { stroke: #d0d7de } .one { stroke: #57606a; stroke-width: 1.5 }
  .stripe { fill: #f6f8fa }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .word { fill: #e6edf3 } .line { stroke: #30363d } .one { stroke: #8b949e }
    .stripe { fill: #161b22 }
  }
</style>"""


def _mark(shape: str, x: float, y: float, colour: str, title: str) -> str:
    told = f"<title>{escape(title)}</title>"
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}">{told}</circle>'
    points = {"square": [(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)], "diamond": [(0, -6), (6, 0), (0, 6), (-6, 0)],
              "triangle": [(0, -6), (5.5, 4.5), (-5.5, 4.5)]}[shape]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)
    return f'<polygon points="{path}" fill="{colour}">{told}</polygon>'


def _label(power: float) -> str:
    return f"{power:g}" if power >= 1 else f"1/{1 / power:g}"


def draw(table: dict[str, dict[str, list[dict]]], systems: list[str]) -> str:
    """One line for each row, one mark for each system: how many times as long as the kernel's overlay it takes."""
    names = [name for name in systems if name not in (KERNEL, "bare")]
    rows = [(row, {name: ratio(table[row], name, KERNEL) for name in names}) for row in table if table[row].get(KERNEL)]
    rows.append(("geometric mean", {name: mean(table, name, KERNEL)[0] for name in names}))
    values = [value for _, row in rows for value in row.values() if value]
    low, high = min([0.5, *values]) / 1.1, max([10.0, *values]) * 1.1
    height = TOP + STEP * len(rows) + 24

    def across(value: float) -> float:
        return LEFT + (math.log(value) - math.log(low)) / (math.log(high) - math.log(low)) * (WIDTH - LEFT - RIGHT)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
           "<title>Time of each workload, against the kernel's overlay</title>", STYLE,
           f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
           '<text class="word title" x="16" y="24">Time against the kernel’s overlay (1 = as fast; to the left is faster)</text>']
    x = 16.0
    for (colour, shape), name in zip(MARKS, names):
        out += [_mark(shape, x + 5, 46, colour, name), f'<text class="word" x="{x + 16:.0f}" y="50">{escape(name)}</text>']
        x += 36 + 7.2 * len(name)
    for index, (row, _) in enumerate(rows):
        y = TOP + STEP * index
        if index % 2 == 0:
            out.append(f'<rect class="stripe" x="0" y="{y - STEP / 2:.0f}" width="{WIDTH}" height="{STEP}"/>')
    for power in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64, 128):
        if low <= power <= high:
            place = across(power)
            out += [f'<line class="{"one" if power == 1 else "line"}" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP - STEP / 2:.0f}" y2="{height - 20}"/>',
                    f'<text class="word small" text-anchor="middle" x="{place:.1f}" y="{height - 6}">{_label(power)}</text>',
                    f'<text class="word small" text-anchor="middle" x="{place:.1f}" y="{TOP - STEP / 2 - 5:.0f}">{_label(power)}</text>']
    for index, (row, ratios) in enumerate(rows):
        y = TOP + STEP * index
        weight = ' font-weight="600"' if index == len(rows) - 1 else ""
        out.append(f'<text class="word" text-anchor="end" x="{LEFT - 14}" y="{y + 4.5:.1f}"{weight}>{escape(row)}</text>')
        for (colour, shape), name in zip(MARKS, names):
            if value := ratios.get(name):
                out.append(_mark(shape, across(value), y, colour, f"{name}, {row}: {value:.2f}"))
    return "\n".join([*out, "</svg>"]) + "\n"
