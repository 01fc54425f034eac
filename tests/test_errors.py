"""Errors: one row per bad input.  The exception's type, and in its one sentence the argument's name, what was expected and what came.

TypeError for dtypes and kinds, IndexError for class indices out of range, ValueError for the rest.  Nothing is written, whatever fails.
"""

import inspect
import re
import warnings

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
from calls import LIVE, draw, wanted
from lossfast import _divergence

X = np.zeros((3, 4), np.float32)
X3 = np.zeros((2, 4, 5), np.float32)
Y = np.array([0, 1, 3])
Y3 = np.zeros((2, 5), int)
P = np.full((3, 4), 0.25, np.float32)
W = np.ones(4, np.float32)
CE, NLL, VG = F.cross_entropy, F.nll_loss, lf.value_and_grad


def cell(why, error, words, call):
    return pytest.param(error, words, call, id=why)


def check(error, words, call):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message.strip(), message
    for word in words:
        assert re.search(rf"(?<![A-Za-z_]){re.escape(word)}(?![A-Za-z_])" if word.isidentifier() else re.escape(word), message), (
            f"{word!r} is not in: {message}"
        )


# ---- kinds of arrays that are not numbers ---------------------------------------------------------------------------

KINDS = {  # a maker of an array of the same shape, and what its message must say
    "object": (lambda a: a.astype(object), "object"),
    "complex64": (lambda a: a.astype(np.complex64), "complex64"),
    "complex128": (lambda a: a.astype(np.complex128), "complex128"),
    "str": (lambda a: a.astype(str), "<U"),
    "bytes": (lambda a: a.astype("S8"), "S8"),
    "datetime": (lambda a: a.astype("M8[s]"), "datetime64"),
    "timedelta": (lambda a: a.astype("m8[s]"), "timedelta64"),
    "void": (lambda a: np.zeros(a.shape, "V4"), "V4"),
    "structured": (lambda a: np.zeros(a.shape, [("a", "f4")]), "a"),
    "masked": (lambda a: np.ma.masked_array(a, np.zeros(a.shape, bool)), "masked"),
}
PLACES = {  # argument: the call with a bad array there
    "cross_entropy input": ("input", lambda bad: CE(bad(X), Y)),
    "cross_entropy 3-D input": ("input", lambda bad: CE(bad(X3), Y3)),
    "cross_entropy labels": ("target", lambda bad: CE(X, bad(Y))),
    "cross_entropy probabilities": ("target", lambda bad: CE(X, bad(P))),
    "cross_entropy weight": ("weight", lambda bad: CE(X, Y, bad(W))),
    "nll_loss input": ("input", lambda bad: NLL(bad(X), Y)),
    "nll_loss labels": ("target", lambda bad: NLL(X, bad(Y))),
    "nll_loss weight": ("weight", lambda bad: NLL(X, Y, bad(W))),
    "logsumexp": ("input", lambda bad: F.logsumexp(bad(X))),
    "softmax": ("input", lambda bad: F.softmax(bad(X))),
    "log_softmax": ("input", lambda bad: F.log_softmax(bad(X))),
    "sigmoid": ("input", lambda bad: F.sigmoid(bad(X))),
    "logsigmoid": ("input", lambda bad: F.logsigmoid(bad(X))),
    "softplus": ("input", lambda bad: F.softplus(bad(X))),
    "grad_output of none": ("grad_output", lambda bad: VG(CE)(X, Y, reduction="none", grad_output=bad(np.zeros(3)))),
    "grad_output of softmax": ("grad_output", lambda bad: VG(F.softmax)(X, grad_output=bad(X))),
}  # fmt: skip
NOT_NUMBERS = [
    cell(f"{place}, {kind}", TypeError, [name, word], lambda call=call, bad=bad: call(bad))
    for place, (name, call) in PLACES.items()
    for kind, (bad, word) in KINDS.items()
]


@pytest.mark.parametrize("error, words, call", NOT_NUMBERS)
def test_not_numbers(error, words, call):
    check(error, words, call)


# ---- other dtypes and kinds -----------------------------------------------------------------------------------------

WRONG_KINDS = [
    *[
        cell(f"{kind} labels", TypeError, ["target", kind], lambda kind=kind: CE(X, Y.astype(kind)))
        for kind in ("float16", "float32", "float64", "bool")
    ],
    *[
        cell(f"nll {kind} labels", TypeError, ["target", kind], lambda kind=kind: NLL(X, Y.astype(kind)))
        for kind in ("float16", "float32", "float64", "bool")
    ],
    cell("nll probabilities", (TypeError, ValueError), ["target"], lambda: NLL(X, P)),
    cell("integer one-hot", (TypeError, ValueError), ["target"], lambda: CE(X, np.eye(4, dtype=int)[:3])),
    cell("bool one-hot", (TypeError, ValueError), ["target"], lambda: CE(X, np.eye(4, dtype=bool)[:3])),
    cell("float labels, 3-D", TypeError, ["target", "float32"], lambda: CE(X3, Y3.astype("f4"))),
    cell("no input", TypeError, ["input"], lambda: CE(None, Y)),
    cell("no target", TypeError, ["target"], lambda: CE(X, None)),
    cell("target left out", TypeError, ["target"], lambda: CE(X)),
    cell("everything left out", TypeError, ["input"], lambda: CE()),
    cell("string", TypeError, ["input"], lambda: CE("logits", Y)),
    cell("dict", TypeError, ["input"], lambda: F.softmax({"a": 1})),
    cell("function", TypeError, ["input"], lambda: F.sigmoid(len)),
    cell("fourth positional", TypeError, [], lambda: CE(X, Y, W, -100)),
    cell("nll fourth positional", TypeError, [], lambda: NLL(X, Y, W, -100)),
    cell("unknown keyword", TypeError, ["smoothing"], lambda: CE(X, Y, smoothing=0.1)),
    cell("torch's dim", TypeError, ["dim"], lambda: F.softmax(X, dim=1)),
    cell("nll has no label_smoothing", TypeError, ["label_smoothing"], lambda: NLL(X, Y, label_smoothing=0.1)),
    cell("softmax has no where", TypeError, ["reduction"], lambda: F.softmax(X, reduction="mean")),
    cell("reduction a number", (TypeError, ValueError), ["reduction"], lambda: CE(X, Y, reduction=1)),
    cell("reduction None", (TypeError, ValueError), ["reduction"], lambda: CE(X, Y, reduction=None)),
    cell("reduction an array", ValueError, ["reduction"], lambda: CE(X, Y, reduction=np.array(["mean", "sum"]))),
    cell("kl_div reduction", ValueError, ["reduction", "batchmean"], lambda: F.kl_div(X, X, reduction="foo")),
    cell("smoothing a string", TypeError, ["label_smoothing"], lambda: CE(X, Y, label_smoothing="0.1")),
    cell("smoothing None", TypeError, ["label_smoothing"], lambda: CE(X, Y, label_smoothing=None)),
    cell("smoothing an array", TypeError, ["label_smoothing"], lambda: CE(X, Y, label_smoothing=np.zeros(2))),
    cell("ignore_index a float", TypeError, ["ignore_index"], lambda: CE(X, Y, ignore_index=1.5)),
    cell("ignore_index a string", TypeError, ["ignore_index"], lambda: CE(X, Y, ignore_index="pad")),
    cell("ignore_index None", TypeError, ["ignore_index"], lambda: CE(X, Y, ignore_index=None)),
    cell("nll ignore_index a float", TypeError, ["ignore_index"], lambda: NLL(X, Y, ignore_index=0.0)),
    cell("axis a float", TypeError, ["axis"], lambda: CE(X, Y, axis=1.0)),
    cell("axis a string", TypeError, ["axis"], lambda: CE(X, Y, axis="C")),
    cell("axis a tuple", TypeError, ["axis"], lambda: CE(X, Y, axis=(0, 1))),
    cell("softmax axis a float", TypeError, ["axis"], lambda: F.softmax(X, axis=0.5)),
    cell("softmax axis a tuple", TypeError, ["axis"], lambda: F.softmax(X, axis=(0, 1))),
    cell("log_softmax axis a string", TypeError, ["axis"], lambda: F.log_softmax(X, axis="x")),
    cell("logsumexp axis a float", TypeError, ["axis"], lambda: F.logsumexp(X, axis=0.0)),
    cell("logsumexp axis of floats", TypeError, ["axis"], lambda: F.logsumexp(X, axis=(0.0, 1.0))),
    cell("where of floats", TypeError, ["where", "float64"], lambda: CE(X, Y, where=np.ones(3))),
    cell("where of ints", TypeError, ["where", "int64"], lambda: CE(X, Y, where=np.ones(3, int))),
    cell("where of strings", TypeError, ["where"], lambda: CE(X, Y, where=np.array(["a", "b", "c"]))),
    cell("where masked", TypeError, ["where", "masked"], lambda: CE(X, Y, where=np.ma.ones(3, bool))),
    cell("out a list", TypeError, ["out", "list"], lambda: CE(X, Y, reduction="none", out=[0.0] * 3)),
    cell("out a number", TypeError, ["out"], lambda: F.softmax(X, out=1.0)),
    cell("out a masked array", TypeError, ["out", "MaskedArray"], lambda: F.softmax(X, out=np.ma.zeros((3, 4), np.float32))),
    cell("out of ints", TypeError, ["out", "int64"], lambda: F.softmax(X, out=np.zeros((3, 4), int))),
    cell("out of complex", TypeError, ["out", "complex64"], lambda: F.log_softmax(X, out=np.zeros((3, 4), np.complex64))),
    cell("out of bools", TypeError, ["out", "bool"], lambda: CE(X, Y, reduction="none", out=np.zeros(3, bool))),
    cell("out of objects", TypeError, ["out", "object"], lambda: F.logsumexp(X, out=np.zeros(3, object))),
    cell("grad_out a list", TypeError, ["grad_out", "list"], lambda: VG(CE)(X, Y, grad_out=[])),
    cell("grad_out of ints", TypeError, ["grad_out", "int32"], lambda: VG(CE)(X, Y, grad_out=np.zeros((3, 4), np.int32))),
    cell("grad_out of complex", TypeError, ["grad_out", "complex128"], lambda: VG(CE)(X, Y, grad_out=np.zeros((3, 4), complex))),
    cell("value_and_grad of another function", TypeError, [], lambda: VG(np.sum)(X)),
    cell("value_and_grad of no loss", TypeError, ["f: expected", "evaluate"], lambda: VG(lf.evaluate)),
    cell("value_and_grad of no function", TypeError, [], lambda: VG(3)(X)),
    cell("value_and_grad of a class", TypeError, [], lambda: VG(lf.CrossEntropyLoss)(X, Y)),
    cell("argnums a float", TypeError, ["argnums"], lambda: VG(CE, argnums=0.5)(X, Y)),
    cell("argnums None", TypeError, ["argnums"], lambda: VG(CE, argnums=None)(X, Y)),
    cell("gradient by labels", TypeError, ["target", "int64"], lambda: VG(CE, argnums=1)(X, Y)),
    cell("gradient by labels, named", TypeError, ["target", "int64"], lambda: VG(NLL, argnums="target")(X, Y)),
    cell("threads a string", TypeError, [], lambda: lf.set_num_threads("2")),
    cell("threads a float", TypeError, [], lambda: lf.set_num_threads(1.5)),
    cell("threads None", TypeError, [], lambda: lf.set_num_threads(None)),
]


@pytest.mark.parametrize("error, words, call", WRONG_KINDS)
def test_wrong_kinds(error, words, call):
    check(error, words, call)


# ---- shapes and values ----------------------------------------------------------------------------------------------

WRONG_VALUES = [
    # input and target
    cell("0-d input", ValueError, ["input"], lambda: CE(np.float32(1), 0)),
    cell("nll 0-d input", ValueError, ["input"], lambda: NLL(np.float32(1), 0)),
    cell("ragged lists", ValueError, [], lambda: CE([[1.0, 2.0], [3.0]], [0, 0])),
    cell("too few labels", ValueError, ["target", "(3,)", "(2,)"], lambda: CE(X, Y[:2])),
    cell("too many labels", ValueError, ["target", "(3,)", "(4,)"], lambda: CE(X, np.zeros(4, int))),
    cell("labels in a column", ValueError, ["target", "(3,)", "(3, 1)"], lambda: CE(X, Y[:, None])),
    cell("labels in a row", ValueError, ["target", "(3,)", "(1, 3)"], lambda: CE(X, Y[None])),
    cell("one label for a batch", ValueError, ["target", "(3,)", "()"], lambda: CE(X, 0)),
    cell("labels for one row", ValueError, ["target", "()", "(3,)"], lambda: CE(X[0], Y)),
    cell("3-D, labels (2, 4)", ValueError, ["target", "(2, 5)", "(2, 4)"], lambda: CE(X3, np.zeros((2, 4), int))),
    cell("3-D, labels (2,)", ValueError, ["target", "(2, 5)", "(2,)"], lambda: CE(X3, np.zeros(2, int))),
    cell("3-D, labels (10,)", ValueError, ["target", "(2, 5)", "(10,)"], lambda: CE(X3, np.zeros(10, int))),
    cell("axis -1, labels (2, 5)", ValueError, ["target", "(2, 4)", "(2, 5)"], lambda: CE(X3, Y3, axis=-1)),
    cell("axis 0, labels (3,)", ValueError, ["target", "(4,)", "(3,)"], lambda: CE(X, Y, axis=0)),
    cell("probabilities of another shape", (TypeError, ValueError), ["target"], lambda: CE(X, P[:2])),
    cell("probabilities transposed", (TypeError, ValueError), ["target"], lambda: CE(X, P.T)),
    cell("nll too few labels", ValueError, ["target", "(3,)", "(2,)"], lambda: NLL(X, Y[:2])),
    cell("nll labels in a column", ValueError, ["target", "(3,)", "(3, 1)"], lambda: NLL(X, Y[:, None])),
    cell("nll 3-D labels", ValueError, ["target", "(2, 5)", "(5, 2)"], lambda: NLL(X3, Y3.T)),
    # weight
    cell("weight too short", ValueError, ["weight", "(4,)", "(3,)"], lambda: CE(X, Y, W[:3])),
    cell("weight too long", ValueError, ["weight", "(4,)", "(5,)"], lambda: CE(X, Y, np.ones(5))),
    cell("weight a number", ValueError, ["weight", "(4,)", "()"], lambda: CE(X, Y, 1.0)),
    cell("weight a row", ValueError, ["weight", "(4,)", "(1, 4)"], lambda: CE(X, Y, W[None])),
    cell("weight per sample", ValueError, ["weight", "(4,)", "(3,)"], lambda: NLL(X, Y, np.ones(3))),
    cell("weight for probabilities", ValueError, ["weight", "(4,)", "(3,)"], lambda: CE(X, P, W[:3])),
    cell("weight, unbatched", ValueError, ["weight", "(4,)", "(2,)"], lambda: CE(X[0], 1, W[:2])),
    # where
    cell("where too short", ValueError, ["where", "(3,)", "(2,)"], lambda: CE(X, Y, where=np.ones(2, bool))),
    cell("where would enlarge", ValueError, ["where", "(3,)", "(2, 3)"], lambda: CE(X, Y, where=np.ones((2, 3), bool))),
    cell("where of the input's shape", ValueError, ["where", "(3,)", "(3, 4)"], lambda: CE(X, Y, where=np.ones((3, 4), bool))),
    cell("where, 3-D", ValueError, ["where", "(2, 5)", "(2, 4)"], lambda: NLL(X3, Y3, where=np.ones((2, 4), bool))),
    # options
    *[
        cell(f"reduction {r!r}", ValueError, ["reduction", r, "none", "mean", "sum"], lambda r=r: CE(X, Y, reduction=r))
        for r in ("foo", "batchmean", "MEAN")
    ],
    *[cell(f"nll reduction {r!r}", ValueError, ["reduction", r, "mean"], lambda r=r: NLL(X, Y, reduction=r)) for r in ("foo", "batchmean")],
    *[
        cell(f"smoothing {s}", ValueError, ["label_smoothing", str(s)], lambda s=s: CE(X, Y, label_smoothing=s))
        for s in (-0.1, 1.5, float("nan"), float("inf"), -1e-9)
    ],
    cell("ignore_index with probabilities", ValueError, ["ignore_index", "0"], lambda: CE(X, P, ignore_index=0)),
    *[cell(f"axis {a}", ValueError, ["axis", str(a)], lambda a=a: CE(X, Y, axis=a)) for a in (2, -3, 100)],
    *[cell(f"nll axis {a}", ValueError, ["axis", str(a)], lambda a=a: NLL(X, Y, axis=a)) for a in (2, -3)],
    *[
        cell(f"{f} axis {a}", ValueError, ["axis", str(a)], lambda a=a, f=f: getattr(F, f)(X, axis=a))
        for a in (2, -3)
        for f in ("softmax", "log_softmax", "logsumexp")
    ],
    cell("logsumexp axis twice", ValueError, ["axis"], lambda: F.logsumexp(X, axis=(0, 0))),
    cell("logsumexp axis twice, negative", ValueError, ["axis"], lambda: F.logsumexp(X, axis=(1, -1))),
    cell("logsumexp axes out of range", ValueError, ["axis", "5"], lambda: F.logsumexp(X, axis=(0, 5))),
    cell("logsumexp of a number", ValueError, ["axis"], lambda: F.logsumexp(1.0)),
    # out
    cell("out with mean", ValueError, ["out", "reduction"], lambda: CE(X, Y, out=np.zeros((), np.float32))),
    cell("out with sum", ValueError, ["out", "reduction"], lambda: NLL(X, Y, reduction="sum", out=np.zeros((), np.float32))),
    cell("out too short", ValueError, ["out", "(3,)", "(2,)"], lambda: CE(X, Y, reduction="none", out=np.zeros(2, np.float32))),
    cell("out too long", ValueError, ["out", "(3,)", "(4,)"], lambda: NLL(X, Y, reduction="none", out=np.zeros(4, np.float32))),
    cell("out would broadcast", ValueError, ["out", "(3,)", "(2, 3)"], lambda: CE(X, Y, reduction="none", out=np.zeros((2, 3), np.float32))),
    cell("softmax out transposed", ValueError, ["out", "(3, 4)", "(4, 3)"], lambda: F.softmax(X, out=np.zeros((4, 3), np.float32))),
    cell("log_softmax out too small", ValueError, ["out", "(3, 4)", "(3,)"], lambda: F.log_softmax(X, out=np.zeros(3, np.float32))),
    cell("logsumexp out keeps no axis", ValueError, ["out", "(3,)", "(3, 1)"], lambda: F.logsumexp(X, out=np.zeros((3, 1), np.float32))),
    cell("logsumexp out, keepdims", ValueError, ["out", "(3, 1)", "(3,)"], lambda: F.logsumexp(X, keepdims=True, out=np.zeros(3, np.float32))),
    cell("out read-only", ValueError, ["out", "read-only"], lambda: F.softmax(X, out=np.broadcast_to(np.float32(0), (3, 4)))),
    cell("ce out read-only", ValueError, ["out", "read-only"], lambda: CE(X, Y, reduction="none", out=np.broadcast_to(np.float32(0), 3))),
    # gradients
    cell("argnums out of range", ValueError, ["argnums", "50"], lambda: VG(CE, argnums=50)(X, Y)),
    cell("argnums out of range below", ValueError, ["argnums", "-50"], lambda: VG(CE, argnums=-50)(X, Y)),
    cell("argnums of an option", ValueError, ["argnums", "size_average"], lambda: VG(CE, argnums=3)(X, Y)),
    cell("argnums unknown", ValueError, ["argnums", "logits"], lambda: VG(CE, argnums="logits")(X, Y)),
    cell("argnums unknown in a tuple", ValueError, ["argnums", "logits"], lambda: VG(CE, argnums=("input", "logits"))(X, Y)),
    cell("argnums not an array argument", ValueError, ["argnums", "reduction"], lambda: VG(CE, argnums="reduction")(X, Y)),
    cell("argnums twice", ValueError, ["argnums"], lambda: VG(CE, argnums=(0, 0))(X, Y)),
    cell("argnums twice, both ways", ValueError, ["argnums"], lambda: VG(CE, argnums=(0, "input"))(X, Y)),
    cell("gradient by a weight not given", ValueError, ["weight"], lambda: VG(CE, argnums="weight")(X, Y)),
    cell("grad_output too short", ValueError, ["grad_output", "(3,)", "(2,)"], lambda: VG(CE)(X, Y, reduction="none", grad_output=np.ones(2))),
    cell("grad_output for a scalar", ValueError, ["grad_output", "()", "(3,)"], lambda: VG(CE)(X, Y, grad_output=np.ones(3))),
    cell(
        "grad_output would enlarge",
        ValueError,
        ["grad_output", "(3,)", "(2, 3)"],
        lambda: VG(CE)(X, Y, reduction="none", grad_output=np.ones((2, 3))),
    ),
    cell("softmax grad_output", ValueError, ["grad_output", "(3, 4)", "(4, 3)"], lambda: VG(F.softmax)(X, grad_output=np.ones((4, 3)))),
    cell("grad_out too small", ValueError, ["grad_out", "(3, 4)", "(3, 3)"], lambda: VG(CE)(X, Y, grad_out=np.zeros((3, 3), np.float32))),
    cell("grad_out transposed", ValueError, ["grad_out", "(3, 4)", "(4, 3)"], lambda: VG(NLL)(X, Y, grad_out=np.zeros((4, 3), np.float32))),
    cell("grad_out read-only", ValueError, ["grad_out", "read-only"], lambda: VG(CE)(X, Y, grad_out=np.broadcast_to(np.float32(0), (3, 4)))),
    cell("grad_out one for two", (TypeError, ValueError), ["grad_out", "2"], lambda: VG(CE, argnums=(0, 1))(X, P, grad_out=(np.zeros_like(X),))),
    cell(
        "grad_out three for two",
        (TypeError, ValueError),
        ["grad_out", "2", "3"],
        lambda: VG(CE, argnums=(0, 1))(X, P, grad_out=(X.copy(), X.copy(), X.copy())),
    ),
    cell("softmax grad_out", ValueError, ["grad_out", "(3, 4)", "(12,)"], lambda: VG(F.softmax)(X, grad_out=np.zeros(12, np.float32))),
    # settings
    *[cell(f"{n} threads", ValueError, [str(n)], lambda n=n: lf.set_num_threads(n)) for n in (0, -1)],
    *[cell(f"{n} threads for a while", ValueError, [str(n)], lambda n=n: lf.num_threads(n).__enter__()) for n in (0, -5)],
]


@pytest.mark.parametrize("error, words, call", WRONG_VALUES)
def test_wrong_values(error, words, call):
    check(error, words, call)


# ---- options --------------------------------------------------------------------------------------------------------

FLAGS = {"keepdims", "log_target", "log", "log_input", "full", "swap", "size_average", "reduce"}
NUMBERS = {"label_smoothing", "gamma", "alpha", "delta", "beta", "q", "power", "margin", "p", "smooth", "spacing", "ignore_index"}
OPTIONS = [
    pytest.param(c, name, id=f"{c.function} {name}")
    for c in LIVE
    for name in inspect.signature(getattr(F, c.function)).parameters
    if name in FLAGS | NUMBERS and name not in (*c.arrays, *c.floats)
]


@pytest.mark.parametrize("case, name", OPTIONS)
@pytest.mark.filterwarnings("ignore")
def test_options_of_the_wrong_kind(case, name):
    """A flag is True, False, 1 or 0, a number a number: anything else names the option, and leaves the next call alone."""
    args, keywords = case.draw(np.random.default_rng(0), case.shapes[3])
    function = getattr(F, case.function)
    for wrong in (np.zeros(3), np.array([True, False]), "x", [1, 2], 1j, {}, object()):
        for call in (function, VG(function)):
            with pytest.raises(TypeError, match=f"^{name}: expected"):
                call(*args, **keywords | {name: wrong})
    if name in FLAGS:
        with pytest.raises(ValueError, match=f"^{name}: expected True or False, got 2"):
            function(*args, **keywords | {name: 2})
        for flag in (True, False):
            same = [function(*args, **keywords | {name: kind(flag)}) for kind in (bool, int, np.bool_)]
            assert len({np.asarray(v).tobytes() for v in same}) == 1


# ---- classes: already at construction -------------------------------------------------------------------------------

CLASSES = sorted({c.cls for c in LIVE if c.cls})
CONSTRUCTORS = [
    *[cell(f"{c} reduction", ValueError, ["reduction", "foo"], lambda c=c: getattr(lf, c)(reduction="foo")) for c in CLASSES],
    cell("CE smoothing", ValueError, ["label_smoothing", "1.5"], lambda: lf.CrossEntropyLoss(label_smoothing=1.5)),
    cell("CE smoothing below", ValueError, ["label_smoothing", "-0.1"], lambda: lf.CrossEntropyLoss(label_smoothing=-0.1)),
    cell("CE ignore_index", TypeError, ["ignore_index"], lambda: lf.CrossEntropyLoss(ignore_index="x")),
    cell("NLL batchmean", ValueError, ["reduction", "batchmean"], lambda: lf.NLLLoss(reduction="batchmean")),
    cell("CE unknown keyword", TypeError, ["gamma"], lambda: lf.CrossEntropyLoss(gamma=2)),
]  # fmt: skip
if hasattr(lf, "HuberLoss"):
    CONSTRUCTORS += [cell(f"delta {d}", ValueError, ["delta", str(d)], lambda d=d: lf.HuberLoss(delta=d)) for d in (0, -1.0, float("nan"))]
    CONSTRUCTORS += [cell(f"beta {b}", ValueError, ["beta", str(b)], lambda b=b: lf.SmoothL1Loss(beta=b)) for b in (-1.0, float("nan"))]


@pytest.mark.parametrize("error, words, call", CONSTRUCTORS)
def test_constructors(error, words, call):
    check(error, words, call)


# ---- class indices --------------------------------------------------------------------------------------------------


def marked(shape, positions, value, dtype=np.int64):
    y = np.zeros(shape, dtype)
    for position in positions:
        y[position] = value
    return y


LABELS = [  # input shape, labels, what the message says
    ((3, 4), marked(3, [2], 4), "target[2] = 4 is out of range for 4 classes"),
    ((3, 4), marked(3, [0], -1), "target[0] = -1 is out of range for 4 classes"),
    ((3, 4), marked(3, [1, 2], 7), "target[1] = 7 is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 2**62), f"target[1] = {2**62} is out of range for 4 classes"),
    ((3, 4), marked(3, [1], -(2**63)), f"target[1] = {-(2**63)} is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 2**32), f"target[1] = {2**32} is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 2**64 - 1, np.uint64), f"target[1] = {2**64 - 1} is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 2**63, np.uint64), f"target[1] = {2**63} is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 255, np.uint8), "target[1] = 255 is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 156, np.uint8), "target[1] = 156 is out of range for 4 classes"),
    ((3, 4), marked(3, [1], -128, np.int8), "target[1] = -128 is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 65535, np.uint16), "target[1] = 65535 is out of range for 4 classes"),
    ((3, 4), marked(3, [1], 2**32 - 1, np.uint32), f"target[1] = {2**32 - 1} is out of range for 4 classes"),
    ((3, 4), marked(3, [1], -5, ">i4"), "target[1] = -5 is out of range for 4 classes"),
    ((3, 1), marked(3, [2], 1), "target[2] = 1 is out of range for 1 classes"),
    ((4,), np.array(4), "= 4 is out of range for 4 classes"),
    ((200, 63), marked(200, [199], 63), "target[199] = 63 is out of range for 63 classes"),
    ((200, 65), marked(200, [130], 65), "target[130] = 65 is out of range for 65 classes"),
    ((5, 4100), marked(5, [4], 4100), "target[4] = 4100 is out of range for 4100 classes"),
    ((2, 4, 5), marked((2, 5), [(1, 3)], 4), "target[1, 3] = 4 is out of range for 4 classes"),
    ((2, 4, 5, 6), marked((2, 5, 6), [(1, 4, 5), (1, 4, 4)], -7), "target[1, 4, 4] = -7 is out of range for 4 classes"),
    ((8, 257, 9), marked((8, 9), [(3, 7)], 50300), "target[3, 7] = 50300 is out of range for 257 classes"),
    ((30000, 3), marked(30000, [29999, 12345, 20000], 3), "target[12345] = 3 is out of range for 3 classes"),
    ((2, 3, 20000), marked((2, 20000), [(1, 19999), (1, 7)], 3), "target[1, 7] = 3 is out of range for 3 classes"),
]
OPTIONS = [{}, {"reduction": "sum"}, {"reduction": "none"}, {"weight": True}, {"label_smoothing": 0.1}]


@pytest.mark.parametrize("shape, y, message", [pytest.param(*row, id=row[2]) for row in LABELS])
def test_class_index_out_of_range(isa, threads, shape, y, message):
    """The first offending position, the same for any number of threads, with every option, with and without gradient."""
    x = np.zeros(shape, np.float32)
    weight = np.ones(shape[min(1, len(shape) - 1)], np.float32)
    for function, options in [(CE, o) for o in OPTIONS] + [(NLL, o) for o in OPTIONS[:4]]:
        options = options | ({"weight": weight} if "weight" in options else {})
        check(IndexError, [message, "target"], lambda: function(x, y, **options))  # noqa: B023
        check(IndexError, [message, "target"], lambda: VG(function)(x, y, **options))  # noqa: B023


X2 = np.zeros((300, 4), np.float32)
OTHERS = [  # the other losses of class indices: a bad one at `where`
    ("focal_loss", lambda y: F.focal_loss(X2, y), (123,)),
    ("focal_loss", lambda y: VG(F.focal_loss)(X2, y), (123,)),
    ("multi_margin_loss", lambda y: F.multi_margin_loss(X2, y), (299,)),
    ("multi_margin_loss", lambda y: VG(F.multi_margin_loss)(X2, y), (299,)),
    ("multilabel_margin_loss", lambda y: F.multilabel_margin_loss(X2, np.tile(y[:, None], (1, 4))), (7, 0)),
    ("multilabel_margin_loss", lambda y: VG(F.multilabel_margin_loss)(X2, np.tile(y[:, None], (1, 4))), (7, 0)),
    ("linear_cross_entropy", lambda y: F.linear_cross_entropy(X2, np.zeros((4, 4), np.float32), y), (123,)),
    ("linear_cross_entropy", lambda y: VG(F.linear_cross_entropy)(X2, np.zeros((4, 4), np.float32), y), (123,)),
]


@pytest.mark.parametrize("value", [4, 2**40, -(2**63)])
@pytest.mark.parametrize("call, where", [pytest.param(c, w, id=n) for n, c, w in OTHERS if hasattr(F, n)])
def test_class_index_of_other_losses(threads, call, where, value):
    if len(where) == 2 and value < 0:
        pytest.skip("a negative class ends the set")
    y = marked(300, [where[0], 299], value)
    check(IndexError, [f"target[{', '.join(map(str, where))}] = {value} is out of range for 4 classes"], lambda: call(y))


def test_class_index_positions_in_any_layout():
    y = marked((3, 50), [(1, 7), (2, 3)], 9)
    x = np.zeros((3, 4, 50), np.float32)
    message = "target[1, 7] = 9 is out of range for 4 classes"
    for labels in (y, np.asfortranarray(y), y[::-1][::-1], np.repeat(y, 2, 1)[:, ::2]):
        check(IndexError, [message], lambda labels=labels: CE(x, labels))
        check(IndexError, [message], lambda labels=labels: CE(np.asfortranarray(x), labels))
    check(IndexError, [message], lambda: CE(np.moveaxis(x, 1, -1), y, axis=-1))
    check(IndexError, [message], lambda: CE(np.moveaxis(x, 1, 0), y, axis=0))


def test_domain_positions_in_any_layout():
    p = marked((3, 500), [(1, 70), (2, 3)], 2, np.float32)
    for reduction in ("none", "mean"):
        for input in (p, np.asfortranarray(p), np.repeat(p, 2, 1)[:, ::2]):
            message = "input[1, 70] = 2.0 is out of range"
            check(ValueError, [message], lambda input=input: F.binary_cross_entropy(input, input, reduction=reduction))  # noqa: B023
            check(ValueError, [message], lambda input=input: VG(F.binary_cross_entropy)(input, input, reduction=reduction))  # noqa: B023


def test_ignored_labels_may_be_out_of_range():
    assert CE(X, np.array([-100, 0, -100])) == np.float32(np.log(4))
    assert CE(X, np.array([99, 0, 99]), ignore_index=99) == np.float32(np.log(4))
    check(IndexError, ["target[0] = -100"], lambda: CE(X, np.array([-100, 0, 99]), ignore_index=99))


def test_calls_after_an_error_are_right():
    for _ in range(3):
        with pytest.raises(IndexError):
            CE(X, np.array([0, 9, 0]))
        assert CE(X, Y) == np.float32(np.log(4))


# ---- nothing is written ---------------------------------------------------------------------------------------------

BIG = np.zeros((5000, 4), np.float32)
LATE = marked(5000, [4999], 4)
UNTOUCHED = [  # a failing call, given an output filled with 7
    ("bad label, none", (5000,), lambda out: CE(BIG, LATE, reduction="none", out=out)),
    ("bad label, wide rows", (3,), lambda out: CE(np.zeros((3, 4100), np.float32), marked(3, [2], 4100), reduction="none", out=out)),
    ("nll bad label, none", (5000,), lambda out: NLL(BIG, LATE, reduction="none", out=out)),
    ("bad label, gradient", (5000, 4), lambda out: VG(CE)(BIG, LATE, grad_out=out)),
    ("bad label, gradient of none", (5000, 4), lambda out: VG(CE)(BIG, LATE, reduction="none", grad_out=out)),
    ("nll bad label, gradient", (5000, 4), lambda out: VG(NLL)(BIG, LATE, grad_out=out)),
    ("bad label, 3-D gradient", (2, 4, 5), lambda out: VG(CE)(X3, marked((2, 5), [(1, 4)], 4), grad_out=out)),
    *(
        (
            f"bce bad target of {n}, gradient",
            (n,),
            lambda out: VG(F.binary_cross_entropy)(out / 8, out - 6 - (np.arange(out.size) == out.size - 1) * 2, grad_out=out),
        )
        for n in (12, 5000)
    ),
    ("bad weight", (3,), lambda out: CE(X, Y, W[:3], reduction="none", out=out)),
    ("bad dtype", (3, 4), lambda out: F.softmax(X.astype(complex), out=out)),
    ("bad axis", (3, 4), lambda out: F.log_softmax(X, axis=7, out=out)),
    ("bad grad_output", (3, 4), lambda out: VG(F.softmax)(X, grad_output=np.ones(7), grad_out=out)),
    ("bad argnums", (3, 4), lambda out: VG(CE, argnums=(0, 5))(X, Y, grad_out=(out, out.copy()))),
    ("bad where", (3,), lambda out: CE(X, Y, where=np.ones(7, bool), reduction="none", out=out)),
    ("bad smoothing", (3,), lambda out: CE(X, Y, label_smoothing=7, reduction="none", out=out)),
    ("second grad_out bad", (3, 4), lambda out: VG(CE, argnums=(0, 1))(X, P, grad_out=(out, np.zeros(3, np.float32)))),
]


@pytest.mark.parametrize("shape, call", [pytest.param(s, c, id=why) for why, s, c in UNTOUCHED])
def test_outputs_are_untouched_after_an_error(threads, shape, call):
    out = np.full(shape, 7, np.float32)
    with pytest.raises((TypeError, ValueError, IndexError)):
        call(out)
    assert (out == 7).all()


# ---- overlapping memory ---------------------------------------------------------------------------------------------


def overlapping(n=40):
    memory = np.arange(float(2 * n), dtype=np.float32)
    return memory[:n].reshape(-1, 4), memory[2 : n + 2].reshape(-1, 4), memory


TEN = np.zeros((10, 4), np.float32)
OVERLAPS = [
    ("softmax out", "out", lambda a, b: F.softmax(a, out=b)),
    ("log_softmax out", "out", lambda a, b: F.log_softmax(a, out=b)),
    ("softmax out over grad_output", "out", lambda a, b: VG(F.softmax)(TEN, grad_output=a, out=b)),
    ("log_softmax out transposed", "out", lambda a, b: F.log_softmax(a[:4], out=a[:4].T)),
    ("logsumexp out", "out", lambda a, b: F.logsumexp(a, out=b[:, 0])),
    ("cross_entropy out", "out", lambda a, b: CE(a, np.zeros(10, int), reduction="none", out=b[:, 1])),
    ("cross_entropy grad_out", "grad_out", lambda a, b: VG(CE)(a, np.zeros(10, int), grad_out=b)),
    ("cross_entropy grad_out over the probabilities", "grad_out", lambda a, b: VG(CE)(TEN, a, grad_out=b)),
    ("cross_entropy grad_out over the weight", "grad_out", lambda a, b: VG(CE)(TEN, np.zeros(10, int), a[2], grad_out=b)),
    ("nll_loss grad_out", "grad_out", lambda a, b: VG(NLL)(a, np.zeros(10, int), grad_out=b)),
    ("softmax grad_out over grad_output", "grad_out", lambda a, b: VG(F.softmax)(TEN, grad_output=a, grad_out=b)),
    ("cross_entropy grad_out over grad_output", "grad_out", lambda a, b: VG(CE)(TEN, np.zeros(10, int), reduction="none", grad_output=a[:, 0], grad_out=b)),
    ("cross_entropy grad_out over out", "grad_out", lambda a, b: VG(CE)(TEN, np.zeros(10, int), reduction="none", out=a[:, 0], grad_out=b)),
    ("cross_entropy Hessian over the input", "grad_out", lambda a, b: lf.value_grad_hess(CE)(a, np.zeros(10, int), grad_out=(TEN.copy(), a))),
    ("logsumexp grad_out over grad_output", "grad_out", lambda a, b: VG(F.logsumexp)(TEN, grad_output=a[:, 0], grad_out=b)),
    ("logsumexp out over grad_out", "out", lambda a, b: VG(F.logsumexp)(TEN, out=a[:, 0], grad_out=b)),
    ("mse_loss gradients over the inputs", "grad_out", lambda a, b: VG(F.mse_loss, (0, 1))(a, TEN, grad_out=(a, TEN.copy()))),
    ("mse_loss grad_out over the target", "grad_out", lambda a, b: VG(F.mse_loss, "target")(TEN, a, grad_out=a)),
    ("mse_loss grad_out over the weight", "grad_out", lambda a, b: VG(F.mse_loss)(TEN, TEN, weight=a, grad_out=a)),
    ("mse_loss grad_out over grad_output", "grad_out", lambda a, b: VG(F.mse_loss)(TEN, TEN, reduction="none", grad_output=a, grad_out=a)),
    ("mse_loss grad_out over out", "grad_out", lambda a, b: VG(F.mse_loss)(TEN, TEN, reduction="none", out=a, grad_out=a)),
    ("mse_loss Hessian over the input", "grad_out", lambda a, b: lf.value_grad_hess(F.mse_loss)(a, TEN, grad_out=(a, TEN.copy()))),
    ("wasserstein_loss grad_out over grad_output", "grad_out",
     lambda a, b: VG(F.wasserstein_loss)(TEN, TEN, reduction="none", grad_output=a[:, 0], grad_out=b)),
    ("multi_margin_loss out over the weight", "out",
     lambda a, b: F.multi_margin_loss(np.eye(2), [0, 1], weight=a[0].view(float), reduction="none", out=a[0].view(float))),
    ("multilabel_margin_loss grad_out over the input", "grad_out", lambda a, b: VG(F.multilabel_margin_loss)(a, np.zeros((10, 4), int), grad_out=a)),
    ("two gradients over each other", "grad_out", lambda a, b: VG(CE, argnums=(0, 1))(TEN, TEN + 1, grad_out=(a, b))),
]  # fmt: skip


@pytest.mark.parametrize("name, call", [pytest.param(n, c, id=why) for why, n, c in OVERLAPS])
def test_overlapping_outputs_are_refused(name, call):
    a, b, memory = overlapping()
    before = memory.copy()
    check(ValueError, [name, "overlaps"], lambda: call(a, b))
    assert (memory == before).all()


def test_overlap_is_decided_by_elements():
    """Any two views of one memory: refused if and only if they have an element's byte in common."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        memory = np.zeros(40, np.float32)
        step, other = rng.choice([-3, -2, -1, 1, 2, 3], 2)
        x, out = memory[rng.integers(12) :][:24][::step], memory[rng.integers(12) :][:24][::other]
        n = min(len(x), len(out), rng.integers(9))
        x, out = x[:n], out[len(out) - n :]
        same = n == 0 or (x.ctypes.data, x.strides) == (out.ctypes.data, out.strides)
        if np.shares_memory(x, out) and not same:
            check(ValueError, ["out", "overlaps"], lambda x=x, out=out: F.sigmoid(x, out=out))
            refused += 1
        else:
            assert F.sigmoid(x, out=out) is out and (out == 0.5).all()
    assert 50 < refused < 250


class Given:
    """What NumPy asks for its array: `answer`, an array or an exception."""

    def __init__(self, answer):
        self.answer = answer

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


MASKED = np.ma.array([1, 2, 3], mask=[True, False, False])
NO_TEXT = UnicodeDecodeError("utf-8", b"x", 0, 1, "no text")
LINEAR = np.random.default_rng(0).standard_normal((6, 4)), np.random.default_rng(1).standard_normal((5, 4)), np.arange(6) % 5
WORDS = [
    ("ignore_index beyond 64 bits", ValueError, ["ignore_index", "64-bit"], lambda: CE([[1.0, 2.0]], [0], ignore_index=2**70)),
    ("a number beyond floats", ValueError, ["delta"], lambda: lf.HuberLoss(delta=10**400)),
    ("smoothing beyond floats", ValueError, ["label_smoothing"], lambda: CE([[1.0, 2.0]], [0], label_smoothing=10**400)),
    ("gamma beyond floats", ValueError, ["gamma"], lambda: F.focal_loss([[1.0, 2.0]], [0], gamma=10**400)),
    ("gamma none", TypeError, ["gamma"], lambda: F.focal_loss([[1.0, 2.0]], [0], gamma=None)),
    ("alpha beside weight", ValueError, ["alpha", "weight"], lambda: F.focal_loss([[1.0, 2.0]], [0], [1.0, 2.0], alpha=0.25)),
    ("alpha of another number of classes", ValueError, ["alpha", "2 classes", "(3,)"], lambda: F.focal_loss([[1.0, 2.0]], [0], alpha=[1.0] * 3)),
    ("alpha text", TypeError, ["alpha"], lambda: lf.FocalLoss(alpha="0.25")),
    ("gradient by a number alpha", ValueError, ["alpha"], lambda: VG(F.focal_loss, argnums="alpha")([[1.0, 2.0]], [0], alpha=0.25)),
    ("eps that is not used", ValueError, ["eps"], lambda: F.poisson_nll_loss([1.0], [1.0], eps=-1)),
    ("eps text", TypeError, ["eps"], lambda: lf.PoissonNLLLoss(eps="small")),
    ("softmax over no axis", TypeError, ["axis", "None"], lambda: F.softmax([1.0, 2.0], axis=None)),
    ("softmax over a float", TypeError, ["axis", "-1.0"], lambda: F.softmax([1.0, 2.0], axis=-1.0)),
    ("power of float32", ValueError, ["power"], lambda: F.tweedie_nll_loss([1.0], [1.0], power=np.float32(0.5))),
    ("power in an array", ValueError, ["power"], lambda: F.tweedie_nll_loss([1.0], [1.0], power=np.array(0.5))),
    ("blank none", TypeError, ["blank"], lambda: lf.CTCLoss(blank=None)),
    ("blank far", ValueError, ["blank"], lambda: lf.RNNTLoss(blank=10**12)),
    ("no class weights", ValueError, ["weight", "(0,)"], lambda: lf.CrossEntropyLoss(weight=[])),
    ("vectors of two lengths", ValueError, ["positive", "(2, 3)", "(2, 1)"], lambda: F.triplet_margin_loss(*map(np.ones, ((2, 3), (2, 1), (2, 3))))),
    ("vectors of fewer axes", ValueError, ["input2", "(2, 3)", "(3,)"], lambda: F.cosine_embedding_loss(np.ones((2, 3)), np.ones(3), [1, 1])),
    ("positions that do not broadcast", ValueError, ["negative", "(3, 3)"], lambda: F.triplet_margin_loss(*map(np.ones, ((1, 3), (2, 3), (3, 3))))),
    ("signs of other positions", ValueError, ["target", "(2,)", "(3,)"], lambda: F.cosine_embedding_loss(np.ones((2, 3)), np.ones((1, 3)), [1] * 3)),
    ("triplet margin", ValueError, ["margin"], lambda: lf.TripletMarginLoss(margin=0)),
    ("triplet margin beside a distance", ValueError, ["margin"], lambda: F.triplet_margin_with_distance_loss(
        [[1.0]], [[1.0]], [[1.0]], margin=-1, distance_function=lambda a, b: np.zeros(1))),
    ("no distances", TypeError, ["distance_function", "object"], lambda: F.triplet_margin_with_distance_loss(
        [[1.0]], [[1.0]], [[1.0]], distance_function=lambda a, b: None)),
    ("masked vectors of a distance", TypeError, ["negative", "masked"], lambda: F.triplet_margin_with_distance_loss(
        [[1.0]], [[1.0]], np.ma.ones((1, 1)), distance_function=lambda a, b: np.zeros(1))),
    ("a distance that is none", TypeError, ["distance_function"], lambda: lf.TripletMarginWithDistanceLoss(distance_function="cos")),
    ("linear upstream text", TypeError, ["grad_output"], lambda: VG(F.linear_cross_entropy)(*LINEAR, grad_output="2")),
    ("linear upstream shape", ValueError, ["grad_output", "(1,)"], lambda: VG(F.linear_cross_entropy)(*LINEAR, grad_output=np.array([2.0]))),
    ("linear in place", ValueError, ["grad_out", "overlaps"], lambda: VG(F.linear_cross_entropy)(*LINEAR, grad_out=LINEAR[0])),
    ("rows of rows", ValueError, ["hypotheses", "rows of rows"], lambda: F.edit_distance([[[1, 2], [3, 4]]], [[1, 2]])),
    ("rows of words", TypeError, ["references", "give words numbers"], lambda: F.edit_distance([[1, 2]], [["the", "cat"]])),
    ("frames below none", ValueError, ["input_lengths[0] = -1", "no number of frames"], lambda: F.ctc_feasible([[1]], [-1], 1)),
    ("a class below none", IndexError, ["targets[0, 1] = -2", "no class"], lambda: F.ctc_feasible([[1, -2]], 2, 2)),
    ("tokens beyond int64", ValueError, ["references", str(2**64 - 1)], lambda: F.edit_distance([-1], np.array([2**64 - 1], np.uint64))),
    ("a list of masked arrays", TypeError, ["target", "masked"], lambda: F.mse_loss([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], MASKED][::-1])),
    ("what says it is a masked array", TypeError, ["input", "masked"], lambda: F.softmax(Given(MASKED))),
    ("masked tokens", TypeError, ["hypotheses", "masked"], lambda: F.edit_distance(MASKED, [1, 2, 3])),
    ("rows of masked tokens", TypeError, ["references", "masked"], lambda: F.token_error_rate([[1, 2, 3]], [MASKED])),
    ("masked rows from memory", TypeError, ["logits", "masked"], lambda: lf.evaluate([MASKED, MASKED], [0, 1])),
    ("an array that cannot be had", ValueError, ["input", "not now"], lambda: F.softmax(Given(RuntimeError("not now")))),
    ("an array that is no text", ValueError, ["input", "no text"], lambda: F.softmax(Given(NO_TEXT))),
    ("zero_infinity text", TypeError, ["zero_infinity", "'no'"], lambda: lf.CTCLoss(zero_infinity="no")),
    ("from_logits none", TypeError, ["from_logits", "None"], lambda: lf.CTCLoss(from_logits=None)),
    ("from_logits of a decoder", TypeError, ["from_logits", "'no'"], lambda: F.ctc_greedy_decode(np.zeros((2, 3)), from_logits="no")),
    ("from_logits of an alignment", ValueError, ["from_logits", "2"], lambda: F.ctc_align(np.zeros((2, 3)), [1], 2, 1, from_logits=2)),
    ("fused_log_softmax text", TypeError, ["fused_log_softmax", "'no'"], lambda: lf.RNNTLoss(fused_log_softmax="no")),
    ("batch_first text", TypeError, ["batch_first", "'no'"], lambda: lf.evaluate(np.zeros((2, 1, 3)), [[1]], loss="ctc", batch_first="no")),
    ("Hessian of softmax", TypeError, ["log_softmax", "no Hessian"], lambda: lf.value_grad_hess(F.log_softmax)([1.0, 2.0])),
    ("Hessian of logsumexp", TypeError, ["logsumexp", "no Hessian"], lambda: lf.value_grad_hess(F.logsumexp)([1.0, 2.0])),
    ("negative worst", ValueError, ["worst"], lambda: lf.evaluate([[1.0, 2.0]], [0], worst=-1)),
]  # fmt: skip


@pytest.mark.parametrize("error, words, call", [pytest.param(*row, id=why) for why, *row in WORDS])
def test_what_is_said(error, words, call):
    check(error, words, call)


def test_a_masked_number_in_a_list_is_nan():
    with pytest.warns(UserWarning, match="nan"):
        assert F.softplus([np.ma.masked, 0.0]).tolist() == pytest.approx([np.nan, np.log(2)], nan_ok=True)


def test_linear_cross_entropy_writes_nothing_before_an_error():
    out = np.full(6, 7.0)
    check(ValueError, ["grad_output"], lambda: VG(F.linear_cross_entropy)(*LINEAR, reduction="none", out=out, grad_output=np.ones(5)))
    assert (out == 7).all()


def test_rows_of_a_list_may_be_arrays():
    assert F.edit_distance([np.array([1, 2]), np.array([3])], [[1], [3]]).tolist() == [1, 0]


def test_a_distance_is_not_called_by_the_constructor():
    loss = lf.TripletMarginWithDistanceLoss(distance_function=lambda a, b: np.linalg.norm((a - b) @ np.ones((16, 4)), axis=-1))
    assert loss(np.ones((2, 16)), np.ones((2, 16)), np.zeros((2, 16))) == 0


def test_a_distance_takes_arrays_and_may_be_infinite():
    """Lists become arrays before they come to it, and the swap takes the lesser distance as it is."""

    def within_two(a, b):
        d = (b - a)[:, 0]
        return np.where(d > 2, np.inf, d)

    assert F.triplet_margin_with_distance_loss([[0.0]], [[1.0]], [[3.0]], distance_function=within_two, margin=1.5, swap=True) == 0.5


IN_PLACE = [
    ("softmax", lambda x, **more: F.softmax(x, **more), "out"),
    ("log_softmax of columns", lambda x, **more: F.log_softmax(x, axis=0, **more), "out"),
    ("sigmoid", lambda x, **more: F.sigmoid(x, **more), "out"),
    ("cross_entropy", lambda x, **more: VG(CE)(x, np.arange(len(x)) % 40, **more)[1], "grad_out"),
    ("logsumexp", lambda x, **more: VG(F.logsumexp)(x, axis=0, **more)[1], "grad_out"),
    ("softmax gradient", lambda x, **more: VG(F.softmax)(x, grad_output=np.arange(float(x.size)).reshape(x.shape), **more)[1], "grad_out"),
    ("mse_loss", lambda x, **more: VG(F.mse_loss)(x, np.ones(x.shape, x.dtype), **more)[1], "grad_out"),
    ("weighted bce", lambda x, **more: VG(F.binary_cross_entropy_with_logits)(x, np.ones(x.shape), np.full(x.shape, 3.0), **more)[1], "grad_out"),
    ("gaussian_nll_loss of each", lambda x, **more: VG(F.gaussian_nll_loss)(x, x + 1, np.ones(x.shape[1]), reduction="none", **more)[1], "grad_out"),
]  # fmt: skip


@pytest.mark.parametrize("columns", [40, 1100])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("call, name", [pytest.param(c, n, id=why) for why, c, n in IN_PLACE])
def test_the_input_may_be_overwritten(call, name, columns, transposed):
    x = np.random.default_rng(0).standard_normal((70, columns)).astype(np.float32)
    x = np.asfortranarray(x) if transposed else x
    expected = call(x.copy(order="K"))
    assert call(x, **{name: x}) is x
    assert x.tobytes() == expected.tobytes()


@pytest.mark.parametrize("strides", [(8, 8), (0, 8), (16, 8), (-8, 8)])
def test_outputs_that_touch_themselves_are_refused(strides):
    out = np.lib.stride_tricks.as_strided(np.zeros(40)[20:], (2, 3), strides)
    check(ValueError, ["out", "share memory", str(strides)], lambda: F.sigmoid(np.zeros((2, 3)), out=out))


# ---- elementwise losses ---------------------------------------------------------------------------------------------

ELEMENTWISE = [c for c in LIVE if c.kind in ("elementwise", "row") and c.reductions]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in ELEMENTWISE])
def test_elementwise_not_numbers(case, kind):
    args, _ = draw(case, 0, (3, 4), "float32")
    bad, word = KINDS[kind]
    for i, name in enumerate(case.arrays):
        check(TypeError, [name, word], lambda i=i: getattr(F, case.function)(*args[:i], bad(args[i]), *args[i + 1 :], reduction="sum"))


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in ELEMENTWISE if c.kind == "elementwise"])
def test_elementwise_shapes(case):
    args, _ = draw(case, 0, (3, 4), "float32")
    bad = np.zeros((3, 5), np.float32)
    function = getattr(F, case.function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(ValueError, [list(case.arrays)[1], "(3, 5)", "(3, 4)"], lambda: function(args[0], bad, *args[2:]))
    check(ValueError, ["out", "(3, 4)", "(4,)"], lambda: function(*args, reduction="none", out=np.zeros(4, np.float32)))
    check(ValueError, ["where", "(3, 5)"], lambda: function(*args, where=bad == 0, reduction="sum"))
    check(ValueError, ["reduction", "foo"], lambda: function(*args, reduction="foo"))
    out = args[0].copy()
    check(ValueError, ["grad_out", "overlaps"], lambda: VG(function)(out[:2], *[a[:2] for a in args[1:]], grad_out=out[1:], reduction="sum"))
    for name in wanted(case, 0, (3, 4)):
        check(
            ValueError,
            ["grad_out", "(3, 4)", "(2,)"],
            lambda name=name: VG(function, argnums=name)(*args, grad_out=np.zeros(2, np.float32), reduction="sum"),
        )


def have(*names):
    return all(hasattr(F, n) for n in names)


U, V = np.full((3, 4), 0.5, np.float32), np.full((3, 4), 0.25, np.float32)


def with_(a, position, value):
    a = a.copy()
    a[position] = value
    return a


DOMAINS = [
    # function, exception, words, call
    ("huber_loss", ["delta", "0"], lambda: F.huber_loss(U, V, delta=0)),
    ("huber_loss", ["delta", "-1.0"], lambda: F.huber_loss(U, V, delta=-1.0)),
    ("huber_loss", ["delta", "nan"], lambda: F.huber_loss(U, V, delta=float("nan"))),
    ("smooth_l1_loss", ["beta", "-1.0"], lambda: F.smooth_l1_loss(U, V, beta=-1.0)),
    ("smooth_l1_loss", ["beta", "nan"], lambda: F.smooth_l1_loss(U, V, beta=float("nan"))),
    ("binary_cross_entropy", ["input[1, 2]", "1.5", "from 0 to 1"], lambda: F.binary_cross_entropy(with_(U, (1, 2), 1.5), V)),
    ("binary_cross_entropy", ["input[0, 1]", "-0.5", "from 0 to 1"], lambda: F.binary_cross_entropy(with_(U, (0, 1), -0.5), V)),
    ("binary_cross_entropy", ["target[2, 3]", "2", "from 0 to 1"], lambda: F.binary_cross_entropy(U, with_(V, (2, 3), 2))),
    ("binary_cross_entropy", ["target[0, 0]", "-1", "from 0 to 1"], lambda: VG(F.binary_cross_entropy)(U, with_(V, (0, 0), -1))),
    ("binary_cross_entropy", ["weight", "(3, 5)"], lambda: F.binary_cross_entropy(U, V, np.ones((3, 5)))),
    ("binary_cross_entropy", ["weight", "(2, 3, 4)"], lambda: F.binary_cross_entropy(U, V, np.ones((2, 3, 4)))),
    ("binary_cross_entropy", ["target", "(4,)", "(3, 4)"], lambda: F.binary_cross_entropy(U, V[0])),
    ("binary_cross_entropy_with_logits", ["target", "(4,)", "(3, 4)"], lambda: F.binary_cross_entropy_with_logits(U, V[0])),
    ("binary_cross_entropy_with_logits", ["weight", "(2, 3, 4)"], lambda: F.binary_cross_entropy_with_logits(U, V, np.ones((2, 3, 4)))),
    ("binary_cross_entropy_with_logits", ["pos_weight", "(3,)"], lambda: F.binary_cross_entropy_with_logits(U, V, pos_weight=np.ones(3))),
    ("gaussian_nll_loss", ["var[1, 2]", "-0.5"], lambda: F.gaussian_nll_loss(U, V, with_(U, (1, 2), -0.5))),
    ("gaussian_nll_loss", ["var", "(5,)"], lambda: F.gaussian_nll_loss(U, V, np.ones(5))),
    ("quantile_loss", ["q", "1.5"], lambda: F.quantile_loss(U, V, q=1.5)),
    ("quantile_loss", ["q", "-0.1"], lambda: F.quantile_loss(U, V, q=-0.1)),
    ("quantile_loss", ["q", "nan"], lambda: F.quantile_loss(U, V, q=float("nan"))),
    ("sigmoid_focal_loss", ["alpha", "1.5"], lambda: F.sigmoid_focal_loss(U, V, alpha=1.5)),
    ("sigmoid_focal_loss", ["gamma", "-1.0"], lambda: F.sigmoid_focal_loss(U, V, gamma=-1.0)),
    ("gamma_nll_loss", ["target[1, 2]", "-0.5"], lambda: F.gamma_nll_loss(U, with_(V, (1, 2), -0.5))),
    ("tweedie_nll_loss", ["target[1, 2]", "-0.5"], lambda: F.tweedie_nll_loss(U, with_(V, (1, 2), -0.5))),
    ("tweedie_nll_loss", ["power", "nan"], lambda: F.tweedie_nll_loss(U, V, power=float("nan"))),
    ("poisson_deviance", ["input[1, 2]", "0"], lambda: F.poisson_deviance(with_(U, (1, 2), 0), V)),
    ("poisson_deviance", ["target[1, 2]", "-1"], lambda: F.poisson_deviance(U, with_(V, (1, 2), -1))),
    ("gamma_deviance", ["input[1, 2]", "-1"], lambda: F.gamma_deviance(with_(U, (1, 2), -1), V)),
    ("gamma_deviance", ["target[1, 2]", "0"], lambda: F.gamma_deviance(U, with_(V, (1, 2), 0))),
    ("tweedie_deviance", ["input[0, 1]", "0"], lambda: F.tweedie_deviance(with_(U, (0, 1), 0), V)),
    ("tweedie_deviance", ["target[0, 1]", "0"], lambda: F.tweedie_deviance(U, with_(V, (0, 1), 0), power=3)),
    ("tweedie_deviance", ["power", "inf"], lambda: F.tweedie_deviance(U, V, power=float("inf"))),
    ("gaussian_nll_loss", ["eps", "-1.0"], lambda: F.gaussian_nll_loss(U, V, U, eps=-1.0)),
    ("poisson_nll_loss", ["eps", "-1.0"], lambda: F.poisson_nll_loss(U, V, log_input=False, eps=-1.0)),
    ("mse_loss", ["weight", "(5,)", "(3, 4)"], lambda: F.mse_loss(U, V, weight=np.ones(5))),
    ("l1_loss", ["weight", "(5,)", "(3, 4)"], lambda: F.l1_loss(U, V, weight=np.ones(5))),
    ("huber_loss", ["weight", "(5,)", "(3, 4)"], lambda: F.huber_loss(U, V, weight=np.ones(5))),
]


@pytest.mark.parametrize("words, call", [pytest.param(w, c, id=f"{f}-{w[0]}") for f, w, c in DOMAINS if have(f)])
def test_domains(words, call):
    check(ValueError, words, call)


@pytest.mark.parametrize("function", [f for f in ("l1_loss", "mse_loss", "huber_loss", "smooth_l1_loss") if have(f)])
def test_broadcasting_that_is_likely_a_mistake_warns(function):
    with pytest.warns(UserWarning, match=r"target.*\(3,\).*\(3, 1\)|\(3, 1\).*\(3,\)"):
        getattr(F, function)(np.zeros((3, 1)), np.zeros(3))


@pytest.mark.parametrize("function", [f for f in ("kl_div", "gaussian_nll_loss", "poisson_nll_loss") if have(f)])
def test_broadcasting_that_does_not_warn(function):
    arrays = [np.full((3, 1), 0.5), np.full(3, 0.5), np.full(3, 0.5)][: 3 if function == "gaussian_nll_loss" else 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(F, function)(*arrays, reduction="sum")


@pytest.mark.skipif(not have("kl_div"), reason="kl_div has not landed")
def test_kl_div_mean_warns():
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(U, V)


@pytest.mark.filterwarnings("error")
def test_kl_div_raised_warning_holds_no_frames():
    raised = []
    for _ in range(2):
        with pytest.raises(UserWarning, match="batchmean") as caught:
            F.kl_div(U, V)
        raised.append(caught.value)
    assert raised[0] is not raised[1] and _divergence._MEAN.__traceback__ is None


def test_the_table_is_long():
    """150 cells for the foundation alone."""
    assert len(NOT_NUMBERS) + len(WRONG_KINDS) + len(WRONG_VALUES) + len(LABELS) * 2 >= 300
