"""What a call costs when there is nothing to compute: ns per call on tiny arrays, for every public function.

`python bench/overhead.py [-k PATTERN]`. Minima of repeated loops, one thread's work throughout. Calls above their
goal are marked and named in a warning; the exit status is 0 all the same, for a busy machine proves nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
import timeit
import warnings

from functions import FUNCTIONS, lossfast
from rows import BY_ROW, GRAD, VALUE, Row, threads

GOAL_VALUE, GOAL_GRAD = 600, 1200  # ns, the elementwise losses of 12 elements
GOALS = {("cross_entropy", VALUE): 1000, ("ctc_loss", VALUE): 3000}
TINY = {
    "cross_entropy": (4, 6),
    "nll_loss": (4, 6),
    "softmax": (4, 6),
    "log_softmax": (4, 6),
    "logsumexp": (4, 6),
    "linear_cross_entropy": (4, 3, 6),
    "ctc_loss": (10, 1, 5, 3),
    "ctc_loss from logits": (10, 1, 5, 3),
    "ctc_align": (10, 1, 5, 3),
    "rnnt_loss": (1, 4, 2, 5),
} | dict.fromkeys(BY_ROW, (4, 6))
NO_GRADIENT = {"logsumexp", "softmax", "log_softmax", "sigmoid", "logsigmoid", "softplus", "ctc_align"}


def nanoseconds(call) -> float:
    """The fastest of several loops of some milliseconds each."""
    timer = timeit.Timer(call)
    number = max(1, int(2e-3 / (timer.timeit(10) / 10)))
    return min(timer.repeat(15, number)) / number * 1e9


def goal(function: str, mode: str) -> float | None:
    if function in TINY or function in NO_GRADIENT:
        return GOALS.get((function, mode))
    return GOAL_VALUE if mode == VALUE else GOAL_GRAD


def without_case() -> list[str]:
    """Public loss functions that FUNCTIONS does not know, so that none is forgotten."""
    functional = getattr(lossfast, "functional", None)
    public = getattr(functional, "__all__", [])
    covered = {f.ours or name for name, f in FUNCTIONS.items()}
    return sorted(name for name in set(public) - covered if name.islower())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", default="", help="only functions this regular expression finds")
    args = parser.parse_args()
    if lossfast is None:
        print("lossfast is not installed: torch alone", file=sys.stderr)
    warnings.simplefilter("ignore")
    above = []
    print(f"{'function':34}{'mode':12}{'lossfast':>10}{'torch':>10}{'ratio':>8}{'goal':>8}   (ns)")
    for function in filter(re.compile(args.k).search, FUNCTIONS):
        for mode in (VALUE,) if function in NO_GRADIENT else (VALUE, GRAD):
            row = Row(0, function, TINY.get(function, (12,)), mode)
            calls = row.build().calls
            with threads(1):
                ours, torch = (nanoseconds(calls[k]) if k in calls else None for k in ("lossfast", "torch"))
            limit = goal(function, mode)
            over = bool(ours and limit and ours > limit)
            shown = [f"{x:.0f}" if x else "-" for x in (ours, torch)]
            ratio = f"{torch / ours:.1f}x" if ours and torch else "-"
            print(f"{function:34}{mode:12}{shown[0]:>10}{shown[1]:>10}{ratio:>8}{limit or '-':>8}{'   ABOVE' * over}", flush=True)
            if over:
                above.append(f"{function} {mode}: {ours:.0f} ns, goal {limit}")
    if missing := without_case():
        print("no case for: " + ", ".join(missing))
    for line in above:
        print(f"warning: above its goal: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
