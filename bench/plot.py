"""The ratios as a chart: one bar a row, on a logarithmic scale, with the goals marked."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

REACHED, MISSED, NO_GOAL, DARK, PALE, GRID = "#2a7f8e", "#d9822b", "#9aa5b1", "#1b1f24", "#57606a", "#d8dee4"
COLOURS = {"pass": REACHED, "MISS": MISSED, "": NO_GOAL}
ROW, HEAD, COLUMN = 0.19, 0.62, 9.5  # inches: a bar, a group's heading with the gap above it, a column's width
NAMES, TOP, FOOT = 3.7, 0.35, 0.8  # inches left of the bars, above them and below
TWO_COLUMNS = 60  # rows


def ratios(results, caption: str, file: Path):
    groups: dict[str, list] = {}
    for r in results:
        if r.row.against in r.ratio:
            groups.setdefault(r.row.group, []).append(r)
    if not groups:
        raise SystemExit("nothing to plot: no row has a ratio")
    shown = [r for rows in groups.values() for r in rows]
    values = [x for r in shown for x in (r.ratio[r.row.against], r.row.goal or 1)]
    limits = min(0.8, min(values) * 0.8), max(values) * 2

    columns = layout(groups, 2 if len(shown) > TWO_COLUMNS else 1)
    height = TOP + FOOT + max(sum(tall(groups[title]) for title in column) for column in columns)
    width = COLUMN * len(columns)
    figure = plt.figure(figsize=(width, height), dpi=120, facecolor="white")
    for i, column in enumerate(columns):
        y = height - TOP
        for title in column:
            y -= tall(groups[title])
            inches = ROW * len(groups[title])
            axes = figure.add_axes(((i * COLUMN + NAMES) / width, y / height, (COLUMN - NAMES - 0.3) / width, inches / height))
            bars(axes, groups[title], limits)
            axes.annotate(
                title, (0, 1), (-NAMES * 72 + 9, 5), xycoords="axes fraction", textcoords="offset points", fontsize=11, weight="bold", color=DARK
            )
    figure.text(0.1 / width, 1 - 0.2 / height, "lossfast: times faster than its peers", fontsize=15, weight="bold", va="top")
    legend = [
        Patch(color=REACHED, label="goal reached"),
        Patch(color=MISSED, label="goal missed"),
        Patch(color=NO_GOAL, label="no goal"),
        Line2D([], [], color=DARK, lw=2, label="goal"),
    ]
    figure.legend(handles=legend, ncols=4, loc="upper right", bbox_to_anchor=(1, 1 - 0.1 / height), frameon=False, fontsize=9)
    figure.text(0.1 / width, 0.1 / height, caption, fontsize=7.5, color=PALE, va="bottom", linespacing=1.4)
    figure.savefig(file)
    plt.close(figure)


def tall(rows) -> float:
    return HEAD + ROW * len(rows)


def layout(groups, n: int) -> list[list[str]]:
    """The groups' titles in n columns of about the same height, in order."""
    whole, done = sum(map(tall, groups.values())), 0.0
    columns: list[list[str]] = [[] for _ in range(n)]
    for title, rows in groups.items():
        columns[min(n - 1, int(n * (done + tall(rows) / 2) / whole))].append(title)
        done += tall(rows)
    return [c for c in columns if c]


def bars(axes, rows, limits):
    low, high = limits
    reached = [r.ratio[r.row.against] for r in rows]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.barh(range(len(rows)), [x - 1 for x in reached], left=1, height=0.72, color=[COLOURS[r.verdict] for r in rows], zorder=2)
    for i, (r, x) in enumerate(zip(rows, reached, strict=True)):
        if r.row.goal:
            axes.plot([r.row.goal] * 2, [i - 0.45, i + 0.45], color=DARK, lw=2, zorder=3, solid_capstyle="butt")
        axes.text(max(x, r.row.goal or 1, 1) * 1.05, i, label(r, x), va="center", fontsize=7.5, color=DARK)
    axes.set_yticks(range(len(rows)), [r.row.name for r in rows], fontsize=8)
    axes.axvline(1, color=DARK, lw=0.8, zorder=4)
    axes.set_xticks([t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= t <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize=7.5, length=0, colors=PALE)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, lw=0.6, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)


def label(r, ratio: float) -> str:
    text = f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"
    if r.row.against != "torch":
        text += f" vs {r.row.against.removeprefix('lossfast ')}"
    if r.row.fraction and r.fraction is not None and r.fraction < r.row.fraction:
        text += f", {r.fraction:.0%} of the roof (goal {r.row.fraction:.0%})"
    return text
