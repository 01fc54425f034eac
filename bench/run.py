"""Measure lossfast against its peers, row by row of the goal tables. `python bench/run.py --help`; README.md."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import math
import os
import platform
import re
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import bandwidth
from functions import optional
from rows import ROWS, Row, threads

SAMPLE = 1e-3  # seconds: shorter calls are timed in batches of about this length
SETTLED = 0.05  # seconds: longer calls need no untimed one before them
CACHE = 64 << 20  # bytes: a fraction of the memory's bandwidth means nothing for what caches hold
ROUNDS = 3, 201
WINDOW = 0.25  # seconds: rounds are kept or dropped together, by what other processes did meanwhile
BUSY = 0.1  # share of all CPUs that others may use in a window before it is dropped
BUSY_NOTE = "busy machine"


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


# ---- measuring -------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What one row came to. Times in seconds a call; ratio = peer / lossfast, the median over the rounds."""

    row: Row
    note: str = ""
    median: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)
    rounds: int = 0
    moved: int = 0
    fraction: float | None = None

    @property
    def verdict(self) -> str:
        """'pass', 'MISS', or nothing where nothing was promised or measured, or not in peace."""
        if self.note == BUSY_NOTE:
            return ""
        reached = [(self.ratio.get(self.row.against), self.row.goal), (self.fraction, self.row.fraction)]
        met = [got >= goal for got, goal in reached if got is not None and goal is not None]
        return "" if not met else "pass" if all(met) else "MISS"


def sample(call, batch: int, settle: bool) -> float:
    """Seconds a call, over one batch. The untimed call first leaves the caches and the threads as this call leaves them."""
    if settle:
        call()
    begin = clock()
    for _ in range(batch):
        call()
    return (clock() - begin) / batch


class Others:
    """What everyone but this process (hypervisor included) used of all the CPUs since the last time of asking."""

    def __init__(self):
        self.last = self.read()

    @staticmethod
    def read():
        try:
            ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except OSError:  # no Linux: nobody else is seen
            return 0.0, 0.0, 0.0
        idle = ticks[3] + ticks[4]
        return sum(ticks) - idle, sum(ticks), time.process_time() * os.sysconf("SC_CLK_TCK")

    def share(self) -> float:
        before, self.last = self.last, self.read()
        busy, total, own = (now - then for now, then in zip(self.last, before, strict=True))
        return max(0.0, busy - own) / max(1.0, total)


def interleave(calls: dict, seconds: float, patience: float) -> tuple[dict[str, list[float]], bool]:
    """Samples of every call in turn, the order reversed each round, and whether the machine was too busy.

    Windows in which others used the CPUs are dropped and made up for, until `patience` seconds have gone on them.
    A machine that is never quiet gets its figures all the same, marked."""
    lengths = {}
    for name, call in calls.items():
        call()
        once = max(sample(call, 1, False), 1e-9)
        lengths[name] = sample(call, max(1, min(1000, int(SAMPLE / once))), False)

    order, quiet, noisy = list(calls), [], []
    start, used = time.perf_counter(), 0.0
    others = Others()
    while len(quiet) < ROUNDS[1] and (used < seconds or len(quiet) < ROUNDS[0]):
        if time.perf_counter() - start - used > patience and len(quiet) + len(noisy) >= ROUNDS[0]:
            break
        begin, window = time.perf_counter(), []
        while not window or (time.perf_counter() - begin < WINDOW and len(window) < ROUNDS[1]):
            window.append({name: sample(calls[name], max(1, round(SAMPLE / lengths[name])), lengths[name] < SETTLED) for name in order})
            order.reverse()
        if others.share() < BUSY or clock is not CLOCKS["wall"]:
            quiet += window
            used += time.perf_counter() - begin
        else:
            noisy += window
            time.sleep(WINDOW)
    busy = len(quiet) < ROUNDS[0]
    kept = quiet + noisy if busy else quiet
    return {name: [r[name] for r in kept] for name in calls}, busy


def release_heap():
    """Give free memory back to the system, so that a row does not depend on what the rows before it have freed:
    a large fresh array is cheap or dear (page faults) by whether the heap happens to hold a hole of its size."""
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def measure(row: Row, args, roof) -> Result:
    try:
        built = row.build()
    except LookupError as error:
        return Result(row, note=str(error))
    result = Result(row, moved=built.read + built.written)
    calls = built.calls
    wanted = [p for p in calls if p != "lossfast" and (p == row.against or p.split()[0] in args.peers.split(","))]
    wanted.sort(key=lambda p: p != row.against)
    ours = {"lossfast": calls["lossfast"]} if "lossfast" in calls else {}
    if not ours:
        result.note = "not in lossfast yet"
    gc.collect()
    gc.disable()
    release_heap()
    try:
        with threads(args.threads):
            for peer in wanted or [None]:  # each peer in rounds of its own: a slow one takes no time from the others
                pair = ours | ({peer: calls[peer]} if peer else {})
                if not pair:
                    continue
                seconds = args.seconds if peer in (row.against, None) else args.seconds / 4
                times, busy = interleave(pair, seconds, args.patience)
                if busy:
                    result.note = BUSY_NOTE
                for name, samples in times.items():
                    if name != "lossfast" or name not in result.median:
                        result.median[name] = statistics.median(samples)
                        result.rounds = max(result.rounds, len(samples))
                    result.best[name] = min([*samples, result.best.get(name, math.inf)])
                if ours and peer:
                    result.ratio[peer] = statistics.median(map(float.__truediv__, times[peer], times["lossfast"]))
    except Exception as error:  # one broken row must not cost the others their table
        result.note = f"{type(error).__name__}: {error}"
    finally:
        gc.enable()
    if ours and "lossfast" in result.best and (result.moved >= CACHE or row.fraction):
        kind = "copy" if built.written else "read"
        result.fraction = result.moved / result.best["lossfast"] / roof[kind][0]
    return result


# ---- the machine -----------------------------------------------------------------------------------------


def openmp_runtimes() -> list[str]:
    """The OpenMP runtimes in this process. More than one: their idle threads disturb each other (README.md)."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    return sorted({line.split()[-1] for line in maps.splitlines() if re.search(r"lib(gomp|omp|iomp5)\b[^/]*\.so", line)})


def cpu() -> str:
    try:
        return re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("lossfast", "torch", "numpy", "scipy"):
        if module := optional(name):
            found[name] = getattr(module, "__version__", "?")
    return found


def machine(n: int) -> dict:
    return {
        "cpu": cpu(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": n,
        "clock": clock.__name__,
        "isa": os.environ.get("LOSSFAST_ISA"),
        "versions": versions(),
        "openmp": openmp_runtimes(),
        "omp": {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_"))},
    }


# ---- tables ----------------------------------------------------------------------------------------------

COLUMNS = "row", "ratio", "best ratio", "goal", "", "time", "peer", "best", "GB/s", "of roof", "also"
LEFT = 0, len(COLUMNS) - 1  # the columns that are words


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def times(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}x" if x < 100 else f"{x:.0f}x"


def cells(r: Result) -> list[str]:
    row, best = r.row, r.best.get("lossfast")
    peer = r.median.get(row.against)
    goal = " and ".join(filter(None, (times(row.goal), row.fraction and f"{row.fraction:.0%}")))
    also = [f"{name} {times(x)}" for name, x in r.ratio.items() if name != row.against]
    if row.against != "torch":
        also.insert(0, f"against {row.against}")
    bests = times(r.best[row.against] / best) if row.against in r.ratio else ""
    return [
        row.name,
        times(r.ratio.get(row.against)),
        bests,
        goal,
        r.verdict,
        duration(r.median.get("lossfast")),
        duration(peer),
        duration(best),
        f"{r.moved / best / 1e9:.1f}" if best and r.moved >= CACHE else "",
        "" if r.fraction is None else f"{r.fraction:.0%}",
        "; ".join(also + [r.note] * bool(r.note)),
    ]


def table(results: list[Result], markdown: bool) -> str:
    lines = [list(COLUMNS)]
    lines += [cells(r) for r in results]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(row):
        fields = [f"{c:<{w}}" if i in LEFT else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(fields)} |" if markdown else "  ".join(fields).rstrip()

    rule = [("-" * w if i in LEFT else "-" * (w - 1) + ":") if markdown else "-" * w for i, w in enumerate(widths)]
    if markdown:
        rule = [r if len(r) > 1 else "-:" for r in rule]
    return "\n".join(map(line, [lines[0], rule, *lines[1:]]))


def heading(info: dict, roof) -> str:
    text = [
        f"{info['cpu']}, {info['cpus']} CPUs, threads: {info['threads']}, clock: {info['clock']}; "
        + ", ".join(f"{k} {v}" for k, v in info["versions"].items())
    ]
    text += [f"memory: {kind} {rate / 1e9:.1f} GB/s ({what})" for kind, (rate, what) in roof.items()]
    if len(info["openmp"]) > 1:
        text += ["WARNING: several OpenMP runtimes in this process, see bench/README.md: " + ", ".join(info["openmp"])]
    return "\n".join(text)


def summary(results: list[Result]) -> str:
    verdicts = [r.verdict for r in results]
    missed = [r for r in results if r.verdict == "MISS"]
    text = [f"{verdicts.count('pass')} of {verdicts.count('pass') + len(missed)} goals reached"]
    text += [f"  missed: {name}  {ratio} of {goal}  {roof}".rstrip() for name, ratio, _, goal, *_, roof, _ in map(cells, missed)]
    return "\n".join(text)


def as_json(results, info, roof) -> dict:
    rows = [asdict(r) | {"name": r.row.name, "group": r.row.group, "verdict": r.verdict} for r in results]
    return {"machine": info, "bandwidth": roof, "rows": rows}


# ---- the command -----------------------------------------------------------------------------------------


def parse(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-k", metavar="PATTERN", default="", help="only rows whose name or group this regular expression finds")
    p.add_argument("--issue", type=int, help="only the goal table of this issue")
    p.add_argument("--threads", type=int, default=2, help="for everyone alike (default 2)")
    p.add_argument("--seconds", type=float, default=1.0, help="a row's time budget (default 1; at least 3 rounds are made)")
    p.add_argument("--patience", type=float, default=2.0, metavar="S", help="seconds a row may wait for others to leave the CPUs alone (default 2)")
    p.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a busy machine; only with --threads 1")
    p.add_argument("--peers", default="torch", help="comma list of torch, scipy, numpy (default torch)")
    p.add_argument("--markdown", action="store_true", help="a table for README files")
    p.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="the ratios as a chart (needs matplotlib)")
    p.add_argument("--list", action="store_true", help="name the rows and stop")
    args = p.parse_args(argv)
    if args.clock == "cpu" and args.threads != 1:
        p.error("--clock cpu needs --threads 1: threads that wait for each other use processor time too")
    return args


def progress(text: str):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(argv=None) -> int:
    args = parse(argv)
    chosen = [r for r in ROWS if args.issue in (None, r.issue) and re.search(args.k, f"{r.name} [{r.group}]", re.IGNORECASE)]
    if args.list:
        print("\n".join(f"{r.issue}  {r.name}" for r in chosen))
        return 0
    if args.plot and not optional("matplotlib"):
        print("--plot needs matplotlib: pip install 'lossfast[bench]'", file=sys.stderr)
        return 2
    global clock
    clock = CLOCKS[args.clock]
    warnings.simplefilter("ignore")
    roof = bandwidth.measure(args.threads, clock)
    info = machine(args.threads)
    results: dict[Row, Result] = {}
    try:
        for attempt in range(2):  # a row that met a busy machine gets a second chance
            again = [r for r in chosen if attempt == 0 or results[r].note == BUSY_NOTE]
            for i, row in enumerate(again, 1):
                progress(f"{i}/{len(again)} {row.name}")
                results[row] = measure(row, args, roof)
    except KeyboardInterrupt:
        print("interrupted: what there is", file=sys.stderr)
    progress("")
    results = list(results.values())
    print(heading(info, roof), table(results, args.markdown), summary(results), sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps(as_json(results, info, roof), indent=1))
    if args.plot:
        import plot

        plot.ratios(results, heading(info, roof), args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
