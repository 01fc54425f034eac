"""Every row of the speed goals as data: which function at which size, and what it must reach.

`Row.build` turns a row into calls without arguments, ready for timing: run.py, test_bench.py and overhead.py
differ only in what they do with those.

Goals are ratios peer time / lossfast time. `prototype` is what the C prototype of 2026-11 reached on two
AVX-512 cores, against torch 2.13. A row with no goal is there to be seen.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from functions import CASES, DTYPES, FUNCTIONS, TF, lossfast, ml_dtypes, special, torch

SQUARES = ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss")
LOGS = ("binary_cross_entropy_with_logits", "binary_cross_entropy", "kl_div", "poisson_nll_loss", "gaussian_nll_loss")
LOSSES = [case for case in CASES if case.reductions and case.function not in (*SQUARES, *LOGS, "cross_entropy", "nll_loss")]
FURTHER = tuple(case.function for case in LOSSES if case.kind == "elementwise")
BY_ROW = tuple(case.function for case in LOSSES if case.kind in ("class", "row"))

VALUE, NONE, OUT, GRAD, FRESH = "value", "none", "out", "value+grad", "value+grad fresh"
MODES = {
    VALUE: "the function as it is called, by default a mean",
    NONE: "reduction='none' into a fresh array",
    OUT: "a fresh array from torch, `out=` from lossfast",
    GRAD: "value and gradient by the first argument: into `grad_out=`; torch's backward into a fresh x.grad",
    FRESH: "the same into a fresh array",
}


@dataclass(frozen=True)
class Row:
    """One line of a goal table."""

    issue: int
    function: str
    shape: tuple[int, ...]
    mode: str = VALUE
    dtype: str = "float32"
    goal: float | None = None  # ratio to `against`
    prototype: str = ""
    fraction: float | None = None  # of the measured bandwidth
    against: str = "torch"
    small: tuple[int, ...] = ()  # for test_bench.py

    @property
    def name(self) -> str:
        dtype = "" if self.dtype == "float32" else " " + self.dtype
        return f"{self.function} {'x'.join(map(str, self.shape))} {self.mode}{dtype}"

    @property
    def group(self) -> str:
        """The heading it stands under in the table and the plot."""
        if self.issue == 4:
            return "CTC and RNN-T"
        if self.function in FURTHER + BY_ROW:
            return "further losses"
        if math.prod(self.shape) <= 1000:
            return "up to 1000 elements"
        if self.function == "linear_cross_entropy" or self.issue == 2:
            return "softmax family" if self.function in ("softmax", "log_softmax", "logsumexp") else "cross entropy"
        return f"elementwise losses, {math.prod(self.shape):,} elements" + ("" if self.against == "torch" else ", half the bytes")

    def build(self, small: bool = False) -> Calls:
        """Make the inputs and the calls. Raises LookupError where a dtype needs a package that is not there."""
        shape = self.small or tuple(min(n, 24) for n in self.shape) if small else self.shape
        if self.dtype not in DTYPES:
            raise LookupError(f"{self.dtype} needs ml_dtypes")
        rng = np.random.default_rng(20261121)
        function = FUNCTIONS[self.function]
        args = function.inputs(rng, shape, self.dtype)
        options = dict(function.options)
        if self.mode == NONE:
            options["reduction"] = "none"
        moved = traffic(self, args)
        calls = {"lossfast": our_call(self, args, options)} | peer_calls(self, args, options)
        if self.against.startswith("lossfast "):
            calls[self.against] = own_peer(self, rng, shape)
        return Calls({k: f for k, f in calls.items() if f}, *moved)


@dataclass
class Calls:
    """Calls without arguments by library name, and the bytes that must at least be read and written."""

    calls: dict[str, Callable]
    read: int
    written: int


def traffic(row: Row, args) -> tuple[int, int]:
    """Minimal traffic: every input once, every output once. CTC reads only the label columns of log_probs."""
    if row.function in ("ctc_loss", "ctc_align"):
        x, targets, *_ = args
        return min(x.nbytes, x.shape[0] * targets.size * x.itemsize), 0
    writes = row.mode in (NONE, OUT, GRAD, FRESH)
    return sum(a.nbytes for a in args), args[0].nbytes if writes else 0


def our_call(row: Row, args, options):
    name = FUNCTIONS[row.function].ours or row.function
    f = lossfast and getattr(lossfast, name, None)
    if f is None:
        return None
    if row.mode == OUT:
        out = np.zeros_like(args[0])
        return lambda: f(*args, **options, out=out)
    if row.mode == GRAD:
        out = np.zeros_like(args[0])
        both = lossfast.value_and_grad(f)
        return lambda: both(*args, **options, grad_out=out)
    if row.mode == FRESH:
        both = lossfast.value_and_grad(f)
        return lambda: both(*args, **options)
    return lambda: f(*args, **options)


def own_peer(row: Row, rng, shape):
    """lossfast against itself: 'lossfast float32' is the same row in float32, 'lossfast ctc_loss' the function named."""
    other = row.against.split()[1]
    function, dtype = (row.function, other) if other in DTYPES else (other, row.dtype)
    args = FUNCTIONS[function].inputs(rng, shape, dtype)
    return our_call(Row(row.issue, function, shape, row.mode, dtype), args, dict(FUNCTIONS[function].options))


def as_tensor(a: np.ndarray):
    """The same memory as a tensor; torch takes bfloat16 from NumPy only as integers."""
    if ml_dtypes and a.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def torch_calls(row: Row, args, options):
    f = FUNCTIONS[row.function].torch or getattr(TF, row.function)
    options = {k: v for k, v in options.items() if k != "from_logits"}
    x, *rest = map(as_tensor, args)

    if row.mode in (GRAD, FRESH):
        x.requires_grad_()

        def both():
            x.grad = None
            value = f(x, *rest, **options)
            value.backward()
            return value.detach(), x.grad

        return {"torch": both}

    # No tensor requires a gradient, so torch records nothing and `no_grad`, 2 µs a call, would only hold it up.
    calls = {"torch": lambda: f(x, *rest, **options)}
    if row.mode == OUT:
        out = torch.zeros_like(x)
        calls["torch out="] = lambda: f(x, *rest, **options, out=out)
    return calls


def peers(row: Row) -> list[str]:
    """The installed libraries that can do the row, lossfast aside."""
    function = FUNCTIONS[row.function]
    plain = row.mode in (VALUE, OUT) and row.dtype in ("float32", "float64")
    can = {
        "torch": torch and (function.torch or hasattr(TF, row.function)),
        "scipy": special and function.scipy and plain,
        "numpy": function.numpy and plain,
    }
    return [name for name, able in can.items() if able]


def peer_calls(row: Row, args, options):
    function = FUNCTIONS[row.function]
    calls = {}
    for name in peers(row):
        if name == "torch":
            calls |= torch_calls(row, args, options)
        else:
            f = getattr(function, name)
            calls[name] = lambda f=f: f(*args)
    return calls


def rows() -> Iterator[Row]:
    # Issue 2
    ce = "cross_entropy"
    yield Row(2, ce, (65536, 10), goal=15, prototype="19.5")
    yield Row(2, ce, (8, 21, 256, 256), goal=6, prototype="6.5", small=(2, 5, 6, 7))
    yield Row(2, ce, (4096, 1000), goal=2, prototype="1.8")
    yield Row(2, ce, (1024, 32000), goal=5, prototype="6.9", fraction=0.6)
    yield Row(2, ce, (512, 128256), goal=5, prototype="4.4", fraction=0.6)
    yield Row(2, ce, (512, 128256), dtype="float16", goal=3.3, prototype="3.3-5.8")
    yield Row(2, ce, (512, 128256), dtype="bfloat16", goal=3.7, prototype="3.8")
    yield Row(2, ce, (65536, 10), GRAD, goal=15, prototype="17.6")
    yield Row(2, ce, (1024, 32000), GRAD, goal=10, prototype="11")
    yield Row(2, ce, (8, 21, 256, 256), GRAD, goal=9, prototype="10", small=(2, 5, 6, 7))
    yield Row(2, ce, (1024, 32000), FRESH, goal=4.5, prototype="5.8")
    for dtype, goal, prototype in (("float32", 7, "7.8"), ("float16", 5, "4.8"), ("bfloat16", 12, "12"), ("float64", 6.5, "6.7")):
        yield Row(2, "logsumexp", (1024, 32000), dtype=dtype, goal=goal, prototype=prototype)
    yield Row(2, "logsumexp", (65536, 10), goal=5)
    for f in ("softmax", "log_softmax"):
        yield Row(2, f, (1024, 32000), OUT, goal=3.5, prototype="4.2-4.7")
        yield Row(2, f, (65536, 10), OUT, goal=8)
        yield Row(2, f, (4096, 1000), OUT, goal=1, prototype="0.95-1.4")
    for shape in ((4, 6), (10, 100)):
        for f in ("logsumexp", "softmax", "log_softmax", ce, "nll_loss"):
            yield Row(2, f, shape, goal=1)
        yield Row(2, ce, shape, GRAD, goal=1)
    for shape in ((12,), (1000,)):
        for f in ("sigmoid", "logsigmoid", "softplus"):
            yield Row(2, f, shape, goal=1)

    # Issue 3
    ten_million, small = (10_000_000,), (1000,)
    forward = dict(zip(LOGS, ((14, "15-17"), (10, ""), (15, "15-25"), (13, "12-15"), (20, "20-27")), strict=True))
    gradient = dict(zip(LOGS, ((18, "21"), (10, ""), (24, "24-29"), (25, "25-32"), (27, "27-31")), strict=True))
    for f in SQUARES + LOGS:
        goal, prototype = forward.get(f, (5, "5.2"))
        yield Row(3, f, ten_million, goal=goal, prototype=prototype, fraction=0.85 if f in SQUARES else None, small=small)
        goal, prototype = gradient.get(f, (9, "9.4"))
        yield Row(3, f, ten_million, GRAD, goal=goal, prototype=prototype, small=small)
        yield Row(3, f, ten_million, NONE, goal=1.7 if f in SQUARES else 5, small=small)
        for dtype in ("float16", "bfloat16"):
            yield Row(3, f, ten_million, dtype=dtype, goal=1.6, against="lossfast float32", small=small)
    for f in SQUARES + LOGS:
        yield Row(3, f, (100_000,), goal=3.5, small=small)
        yield Row(3, f, (100_000,), GRAD, goal=4.5, small=small)
        yield Row(3, f, (100_000,), NONE, goal=1, small=small)
    for f in SQUARES + LOGS:
        yield Row(3, f, (1000,), goal=4, prototype="7-24")
    for mode in (VALUE, GRAD):
        for f in FURTHER:
            yield Row(3, f, (1_000_000,), mode, small=small)
        for f in BY_ROW:
            yield Row(3, f, (20_000, 100), mode, small=(6, 10))
    yield Row(3, "linear_cross_entropy", (2048, 768, 50000), goal=1, small=(16, 12, 40))

    # Issue 4: shapes are (T, N, C, S); goals from log_probs, from logits, with gradient from logits
    tiny = (12, 3, 7, 4)
    for shape, goals, prototypes in (
        ((500, 16, 32, 80), (20, 18, 25), ("21-27", "18-21", "29-31")),
        ((250, 16, 1024, 40), (5.5, 7, 10), ("5.6-7", "7.7", "11")),
        ((80, 32, 6625, 20), (7, 3.2, 10), ("7.3-8.4", "3.3", "10.5")),
        ((3000, 1, 32, 500), (70, 90, 130), ("70-115", "106", "157")),
        ((20000, 1, 32, 3000), (70, 100, 180), ("", "107-129", "189-240")),
        ((200, 8, 50000, 30), (9, 2.8, 9.5), ("10", "2.9", "9.9")),
    ):
        calls = (("ctc_loss", VALUE), ("ctc_loss from logits", VALUE), ("ctc_loss from logits", GRAD))
        for (f, mode), goal, prototype in zip(calls, goals, prototypes, strict=True):
            yield Row(4, f, shape, mode, goal=goal, prototype=prototype, small=tiny)
    yield Row(4, "ctc_loss", (10, 1, 5, 3), goal=5)
    for shape in ((3000, 1, 32, 500), (20000, 1, 32, 3000)):
        yield Row(4, "ctc_align", shape, goal=1 / 0.7, against="lossfast ctc_loss", small=tiny)
    yield Row(4, "rnnt_loss", (8, 200, 40, 512), GRAD, fraction=0.5, small=(2, 6, 3, 5))


ROWS = list(rows())


@contextlib.contextmanager
def threads(n: int):
    """The same number of threads for everyone."""
    before = torch.get_num_threads() if torch else None
    if torch:
        torch.set_num_threads(n)
    with lossfast.num_threads(n) if lossfast else contextlib.nullcontext():
        yield
    if torch:
        torch.set_num_threads(before)
