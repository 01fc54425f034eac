"""The functions of vmath.h, on every instruction set: the errors they state, recomputed, and their special values.

float32: every 97th bit pattern, and the worst inputs that an exhaustive run found, against float64. float64: random arguments, against long
double where that is wider. An error is in ulp of the exact result, or of the smallest normal number where the result is below it.
"""

import numpy as np
import pytest
from lossfast import _core

INF, NAN, BIG = np.inf, np.nan, float(np.finfo(np.float32).max)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


FUNCTIONS = {  # reference, domain, bounds for float32 and float64, worst float32 inputs without and with FMA, special values
    "exp": (np.exp, (-INF, INF), (1.04, 1.0), ("0x1.da7be2p+5", "-0x1.76642ep+2"), {0: 1, -INF: 0, -BIG: 0, 800: INF, BIG: INF}),
    "expm1": (np.expm1, (-INF, INF), (1.23, 1.2), ("0x1.6338cp-2", "0x1.632bb2p-2"), {0: 0, -INF: -1, -BIG: -1, BIG: INF}),
    "log": (np.log, (0, INF), (0.9, 0.9), ("0x1.6680b4p-1", "0x1.66719p-1"), {0: -INF, 1: 0, INF: INF, -1: NAN, -INF: NAN}),
    "log1p": (np.log1p, (-1, INF), (1.0, 0.9), ("0x1.c4c802p-2", "0x1.b2c9aap-2"), {0: 0, -1: -INF, INF: INF, -1.5: NAN, -INF: NAN}),
    "sigmoid": (sigmoid, (-INF, INF), (1.19, 1.15), ("-0x1.03a88cp+4", "-0x1.03aa7ap+4"), {0: 0.5, -INF: 0, -BIG: 0, INF: 1, BIG: 1}),
    "softplus": (softplus, (-INF, INF), (1.17, 1.15), ("-0x1.c3ed9p-1", "0x1.a07596p-2"), {-INF: 0, -BIG: 0, INF: INF, BIG: BIG}),
    "logsigmoid": (lambda x: -softplus(-x), (-INF, INF), (1.17, 1.15), ("0x1.c3ed9p-1", "-0x1.a07596p-2"), {INF: -0.0, -INF: -INF, -BIG: -BIG}),
}


def compute(name, x):
    return _core.elementwise(name, ("input",))(x, None, None, None, "none", None, None)


def worst(got, exact):
    """The largest error and its index; 0 where all is rounded correctly, inf where NaN or infinity is wrong."""
    kind = np.finfo(got.dtype)
    rounded = exact.astype(got.dtype)
    wrong = np.flatnonzero((got != rounded) & ~(np.isnan(got) & np.isnan(rounded)))
    if not wrong.size:
        return 0.0, 0
    got, exact = got[wrong], exact[wrong]
    ulp = np.ldexp(exact.dtype.type(1), np.maximum(np.frexp(exact)[1], kind.minexp + 1) - kind.nmant - 1)
    error = np.nan_to_num(np.abs(got - exact) / ulp, nan=INF)
    at = error.argmax()
    return float(error[at]), wrong[at]


def check(name, arrays, wide, bound):
    """The worst error over the arrays, on every instruction set, is within the bound."""
    reference, (low, high), *_ = FUNCTIONS[name]
    found = {isa: (0.0, "") for isa in _core.isas()}
    before = _core.set_isa("base")
    try:
        for x in arrays:
            x = x[~((x < low) | (x > high))]
            with np.errstate(all="ignore"):
                exact = reference(x.astype(wide))
                for isa in found if x.size else ():
                    _core.set_isa(isa)
                    error, at = worst(compute(name, x), exact)
                    found[isa] = max(found[isa], (error, float(x[at]).hex()))
    finally:
        _core.set_isa(before)
    print(f"\n{name}:", ", ".join(f"{isa} {error:.3f} ulp at {at}" for isa, (error, at) in found.items()), end="")
    assert max(found.values())[0] <= bound, found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32(name):
    part = 97 << 19
    patterns = (np.arange(start + -start % 97, min(start + part, 1 << 32), 97).astype(np.uint32) for start in range(0, 1 << 32, part))
    known = np.array([float.fromhex(x) for x in FUNCTIONS[name][3]], np.float32)
    check(name, (x for some in ([known], (p.view(np.float32) for p in patterns)) for x in some), np.float64, FUNCTIONS[name][2][0])


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="long double is no wider than needed to judge double")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64(name):
    rng = np.random.default_rng(97)
    n = 50_000
    arrays = [
        rng.integers(0, 1 << 64, n, np.uint64).view(np.float64),
        rng.uniform(-3, 3, n),
        rng.uniform(-800, 800, n),
        rng.choice([-1, 1], n) * np.ldexp(rng.uniform(1, 2, n), rng.integers(-70, 10, n)),
    ]
    check(name, arrays, np.longdouble, FUNCTIONS[name][2][1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, dtype, isa):
    points = FUNCTIONS[name][4] | {NAN: NAN}
    np.testing.assert_array_equal(compute(name, np.array(list(points), dtype)), np.array(list(points.values()), dtype))
