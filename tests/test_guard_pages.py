"""Reads and writes outside arrays: every input and output ends, or begins, where memory does. On each instruction set; a fault ends a process of its own.

The sanitizers (test_sanitizers.py) see more, but run the code of one instruction set, and no intrinsics of AVX-512.
"""

import ctypes
import faulthandler
import mmap
import sys
import warnings

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
from calls import DTYPES, LIVE, bits
from lossfast import _core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="maps and protects pages as Linux does")
PAGE = mmap.PAGESIZE
SHAPES = {
    "elementwise": [(1,), (17,), (4, 33), (8200,)],
    "class": [(3, 1), (65, 10), (7, 63), (3, 100), (2, 127), (2, 1024), (2, 1025), (2, 70, 20), (2, 7, 70)],
    "row": [(3, 1), (65, 7), (17, 33), (3, 1030)],
    "axis": [(3, 1), (65, 10), (3, 100), (2, 127), (2, 1024), (2, 1025), (2, 70, 65)],
    "linear": [(3, 7, 5), (19, 70, 5)],
}


class Guarded:
    """Arrays between pages that cannot be touched: against the one behind, or the one before."""

    def __init__(self, behind):
        self.behind, self.maps = behind, []

    def strided(self, like, strides):
        """An array of the values of `like` in a layout of positive strides."""
        size = sum(s * (n - 1) for s, n in zip(strides, like.shape)) + like.itemsize
        room = -(-size // PAGE) * PAGE
        pages = mmap.mmap(-1, room + 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        for guard in (start, start + PAGE + room):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
        self.maps.append((pages, start, room))
        a = np.ndarray(like.shape, like.dtype, pages, PAGE + (room - size if self.behind else 0), strides)
        a[...] = like
        return a

    def __call__(self, a):
        return self.strided(a, a.strides) if isinstance(a, np.ndarray) and a.size else a

    def spread(self, a):
        """Every second element, its last axis first: for kernels that pack."""
        order = a.transpose(-1, *range(a.ndim - 1)) if a.ndim else a
        strides = np.empty(order.shape, order.dtype).strides
        return self.strided(a, tuple(2 * s for s in (*strides[1:], *strides[:1])))

    def release(self):
        for _, start, room in self.maps:
            for guard in (start, start + PAGE + room):
                ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
        self.maps.clear()


def losses():
    """(what, function, positional arrays, keywords) of the table of cases."""
    for case in LIVE:
        for dtype in DTYPES:
            for shape in SHAPES[case.kind]:
                args, keywords = case.draw(np.random.default_rng(0), shape, DTYPES[dtype], 0)
                yield f"{case.function} {dtype} {shape}", getattr(F, case.function), args, keywords


def sequences():
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for frames, batch, classes, labels in [(1, 1, 2, 1), (9, 3, 5, 4), (20, 2, 33, 9), (7, 2, 70, 3), (40, 1, 130, 17), (5, 9, 3, 2)]:
            x = rng.normal(size=(frames, batch, classes)).astype(DTYPES[dtype])
            y, n, m = rng.integers(1, classes, (batch, labels)), np.full(batch, frames), rng.integers(0, min(labels, frames // 2) + 1, batch)
            for from_logits in (False, True):
                yield f"ctc_loss {dtype} {x.shape} {from_logits}", F.ctc_loss, (x, y, n, m), {"from_logits": from_logits}
            logits = rng.normal(size=(batch, min(frames, 8), labels + 1, classes)).astype(DTYPES[dtype])
            yield f"rnnt_loss {dtype} {logits.shape}", F.rnnt_loss, (logits, y - 1, np.minimum(n, 8), m), {}


def others():
    """Functions without gradients."""
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for frames, batch, classes, labels in [(9, 3, 5, 4), (7, 2, 70, 3), (40, 1, 130, 17)]:
            x = rng.normal(size=(frames, batch, classes)).astype(DTYPES[dtype])
            y, n, m = rng.integers(1, classes, (batch, labels)), np.full(batch, frames), np.full(batch, min(labels, frames // 2))
            yield f"ctc_align {dtype}", lambda *a: lf.ctc_align(*a).scores, (x, y, n, m), {}
            yield f"ctc_posteriors {dtype}", lf.ctc_posteriors, (x, y, n, m), {}
            yield f"ctc_greedy_decode {dtype}", lambda *a: lf.ctc_greedy_decode(*a).scores, (x, n), {}
            yield f"ctc_beam_search_decode {dtype}", lambda *a: lf.ctc_beam_search_decode(*a).scores, (x, n), {}
            yield f"edit_distance {dtype}", lf.edit_distance, (y, y[:, ::-1].copy()), {}


def result(value):
    """Bits of an array, a scalar or a nest of them."""
    return [result(v) for v in value] if isinstance(value, (tuple, list)) else bits(value)


def look(guarded, place, f, args, keywords, differentiable):
    here = lambda a: place(a) if isinstance(a, np.ndarray) and a.size else a  # noqa: E731
    own, named = [here(a) for a in args], {k: here(v) for k, v in keywords.items()}
    assert result(f(*own, **named)) == result(f(*args, **keywords))
    if differentiable:
        value, gradient = lf.value_and_grad(f)(*args, **keywords)
        out = place(np.zeros_like(gradient)) if gradient.size else None
        again, got = lf.value_and_grad(f)(*own, **named, grad_out=out)
        assert result((again, got)) == result((value, gradient))
    if f in (F.softmax, F.log_softmax, F.logsumexp):
        want = f(*args, **keywords)
        assert result(f(*own, **named, out=place(np.zeros_like(want)))) == result(want)
    guarded.release()


def run(isa):
    """In a process that may die: what was being done is printed first."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    _core.set_isa(isa)
    for calls, differentiable in ((losses, True), (sequences, True), (others, False)):
        for i, (what, f, args, keywords) in enumerate(calls()):
            print(what, flush=True)
            for behind in (True, False)[: 1 + (i % 3 == 0)]:
                guarded = Guarded(behind)
                look(guarded, guarded, f, args, keywords, differentiable)
            if args[0].ndim > 1:
                guarded = Guarded(i % 4 != 0)
                look(guarded, guarded.spread, f, args, keywords, differentiable)


@pytest.mark.parametrize("isa", _core.isas())
def test_nothing_outside_is_touched(python, isa):
    python(f"import sys; sys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r}); import test_guard_pages; test_guard_pages.run({isa!r})")


def test_a_touch_is_seen(python):
    """A test of the test."""
    program = f"""
import sys; sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
import ctypes, os, numpy as np, test_guard_pages as t
for behind, at in ((True, 4), (False, -1)):
    a = t.Guarded(behind)(np.ones(4, np.uint8))
    pid = os.fork()
    if pid == 0:
        ctypes.string_at(a.ctypes.data + at, 1)
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
"""
    assert "0" not in python(program).split()
