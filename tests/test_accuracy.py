"""Accuracy in ulp of the correctly rounded result, against the long double references (and those against mpmath).

Claims tested: per-sample float32 losses within 1 ulp in 99 % of cases and 4 at worst for any finite logits, focal ones 2; gradient
entries within 6; elementwise losses within 2, purely algebraic ones within 1; a mean within 1 ulp of the exact mean of its terms.
Each test prints the worst error it saw (pytest -s).
"""

import functools
import math

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
import reference
from calls import DTYPES, LIVE, call, generator

TINY = float(np.finfo(np.float32).tiny)


def ulps(got, want):
    """|got - rounded want| in ulp of want, elementwise; results below the normal range may be flushed to 0."""
    want = np.asarray(want)
    with np.errstate(over="ignore"):
        rounded = want.astype(got.dtype)
    tiny = float(np.finfo(got.dtype).tiny)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(got.astype(reference.LD) - rounded.astype(reference.LD)) / np.maximum(
            np.spacing(np.abs(rounded)), np.finfo(got.dtype).smallest_subnormal
        )
    error = np.where((got == rounded) | ((np.abs(want) < tiny) & (np.abs(got) <= tiny)), 0, error)
    assert not np.isnan(error).any(), "NaN where the result is a number"
    return error


def report(what, error, most, share=None):
    error = np.asarray(error, float).ravel()
    print(f"\n{what}: worst {error.max(initial=0):.2f} ulp, {np.mean(error <= 1) * 100:.2f} % within 1", end="")
    assert error.max(initial=0) <= most, f"{what}: {error.max():.2f} ulp at worst"
    if share:
        assert np.mean(error <= 1) >= share, f"{what}: {np.mean(error <= 1) * 100:.2f} % within 1 ulp"


# ---- rows -----------------------------------------------------------------------------------------------------------

REGIMES = {  # logits (rows, classes); the labels are random, or the class that wins
    "ordinary": lambda rng, n, c: rng.normal(size=(n, c)),
    "of a trained model": lambda rng, n, c: rng.normal(0, 5, (n, c)),
    "wide": lambda rng, n, c: rng.uniform(-80, 80, (n, c)),
    "very wide": lambda rng, n, c: rng.uniform(-1e4, 1e4, (n, c)),
    "shifted up": lambda rng, n, c: rng.normal(1e3, 3, (n, c)),
    "shifted down": lambda rng, n, c: rng.normal(-1e4, 3, (n, c)),
    "far away": lambda rng, n, c: rng.normal(1e6, 3, (n, c)),
    "tiny": lambda rng, n, c: rng.normal(0, 1e-6, (n, c)),
    "all equal": lambda rng, n, c: np.repeat(rng.normal(size=(n, 1)), c, 1),
    "ascending": lambda rng, n, c: np.sort(rng.normal(0, 20, (n, c)), 1),
    "descending": lambda rng, n, c: np.sort(rng.normal(0, 20, (n, c)), 1)[:, ::-1],
    "one dominates by 0 to 120": lambda rng, n, c: (
        rng.normal(size=(n, c)) + np.where(np.arange(c) == rng.integers(0, c, (n, 1)), rng.uniform(0, 120, (n, 1)), 0)
    ),
    "two dominate": lambda rng, n, c: rng.normal(size=(n, c)) + np.where(np.arange(c) % 7 < 2, 40, 0),
    "suppressed": lambda rng, n, c: np.where(rng.random((n, c)) < 0.5, -3.4028234663852886e38, rng.normal(size=(n, c))),
    "one in a million": lambda rng, n, c: np.where(np.arange(c) == c - 1, 0, rng.uniform(-60, -10, (n, c))),
    "every magnitude": lambda rng, n, c: rng.normal(size=(n, c)) * 10.0 ** rng.uniform(-30, 30, (n, 1)),
    "steps of the exponential's reduction": lambda rng, n, c: (
        np.log(2) * (rng.integers(-60, 60, (n, c)) + rng.choice([0, 0.5, 0.49999, 0.50001], (n, c)))
    ),
}
CLASSES = [2, 3, 10, 63, 64, 65, 127, 1000, 1025, 4100]


def rows(regime, c, n=None):
    """(logits, labels of any class, labels of the class that wins)"""
    rng = generator(regime, c)
    n = n or (400 if c <= 127 else 100)
    x = REGIMES[regime](rng, n, c).astype(np.float32)
    return x, rng.integers(0, c, n), x.argmax(1)


@functools.cache
def exact(regime, c, winner):
    x, anywhere, best = rows(regime, c)
    y = best if winner else anywhere
    return x, y, reference.cross_entropy(x, y, reduction="none"), reference.cross_entropy_gradient(x, y)


@pytest.mark.parametrize("winner", [False, True], ids=["any class", "the winner"])
@pytest.mark.parametrize("regime", REGIMES)
def test_cross_entropy(isa, regime, winner):
    losses = []
    for c in CLASSES:
        x, y, want, want_gradient = exact(regime, c, winner)
        losses.append(ulps(F.cross_entropy(x, y, reduction="none"), want))
        _, gradient = lf.value_and_grad(F.cross_entropy)(x, y, reduction="sum")
        report(f"gradient, C={c}", ulps(gradient, want_gradient), 6)
    report("loss", np.concatenate(losses), 4, 0.99)


@functools.cache
def exact_row(regime, c):
    x = rows(regime, c)[0][:60]
    return x, reference.logsumexp(x), reference.log_softmax(x), reference.softmax(x)


@pytest.mark.parametrize("regime", REGIMES)
def test_softmax_family(isa, regime):
    lses, logps = [], []
    for c in CLASSES:
        x, lse, logp, p = exact_row(regime, c)
        lses.append(ulps(F.logsumexp(x), lse))
        logps.append(ulps(F.log_softmax(x), logp).ravel())
        report(f"softmax, C={c}", ulps(F.softmax(x), p), 6)
    report("logsumexp", np.concatenate(lses), 4, 0.99)
    report("log_softmax", np.concatenate(logps), 4, 0.99)


def test_logsumexp_that_cancels(isa):
    """Near 0 from below: 4 ulp, beside the rounding of float64 at its maximum."""
    rng = generator("cancels")
    for c in (2, 3, 10, 64, 65, 1000, 4100):
        x = rng.normal(size=(300, c))
        x = (x - reference.logsumexp(x)[:, None] + 10.0 ** rng.uniform(-9, -0.5, (300, 1)) * rng.choice([-1, 1], (300, 1))).astype(np.float32)
        for got in (F.logsumexp(x), F.logsumexp(np.asfortranarray(x)), lf.value_and_grad(F.logsumexp)(x)[0]):
            want = reference.logsumexp(x)
            error = np.maximum(np.abs(got - want) - 4 * np.spacing(np.abs(x.max(1)).astype(float)), 0)
            report(f"logsumexp near 0, C={c}", error / np.spacing(np.abs(want).astype(np.float32)), 4, 0.99)


def test_exponentials_of_rows(isa):
    """The relative error of exp(x - m) that runs.h and runs512.h state, in 2^-24, seen through the loss of a row of two finite
    logits, log1p of it; the loss's own rounding adds 1."""
    rng = generator("exponentials")
    x = np.concatenate([rng.uniform(-85, -1, 20_000), rng.uniform(-8, -5, 20_000)]).astype(np.float32)
    want = np.log1p(np.exp(x.astype(reference.LD)))
    for c in (2, 65, 1025):
        logits = np.full((len(x), c), -np.inf, np.float32)
        logits[:, 0], logits[:, -1] = 0, x
        got = F.cross_entropy(logits, np.zeros(len(x), np.int64), reduction="none")
        error = float(np.max(np.abs(got / want - 1))) * 2**24
        print(f"\nC={c}: {error:.2f}", end="")
        assert error <= 1 + (1.21 if isa == "avx512" else 1.5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("regime", ["ordinary", "of a trained model", "one dominates by 0 to 120", "ascending", "all equal"])
def test_cross_entropy_of_other_dtypes(isa, regime, dtype):
    """float16 like float32; float64 within 8 ulp of float64."""
    for c in (2, 10, 65, 1000):
        x, anywhere, winner = rows(regime, c)
        x = x.astype(dtype)
        for y in (anywhere, winner):
            loss = F.cross_entropy(x, y, reduction="none")
            report(
                f"cross_entropy {dtype} {regime}, C={c}", ulps(loss, reference.cross_entropy(x, y, reduction="none")), 8 if dtype == "float64" else 4
            )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("regime", ["ordinary", "wide", "ascending", "descending", "shifted up", "suppressed", "negative", "infinite"])
def test_runs_of_long_rows(isa, dtype, regime):
    """Rows of several runs, whole and broken, with and without terms that vanish; NaN in any run is not lost."""
    make = {"negative": lambda rng, n, c: rng.uniform(-40, -1, (n, c)), "infinite": lambda rng, n, c: np.where(rng.random((n, c)) < 0.1, -np.inf, 1)}
    for c in (3072, 3090):
        x = (make.get(regime) or REGIMES[regime])(generator(regime, c), 20, c)
        x = np.where(np.isinf(x), x, x.clip(-60000)).astype(DTYPES[dtype])
        want = reference.cross_entropy(x, np.ones(20, int), reduction="none")
        report(f"C={c}", ulps(F.cross_entropy(x, np.ones(20, int), reduction="none"), want), 4, 0.99)
        for at in (5, 1500, 3071):
            for nan in (np.nan, -np.nan):
                bad = x.copy()
                bad[:, at] = nan
                assert np.isnan(F.logsumexp(bad)).all()


def test_probability_targets(isa):
    """All terms have one sign for proper probabilities, so nothing cancels: 4 ulp."""
    for c in (2, 10, 65, 1000):
        for regime in ("ordinary", "of a trained model", "one dominates by 0 to 120", "wide"):
            x, y, winner = rows(regime, c)
            p = np.float32(0.9) * np.eye(c, dtype=np.float32)[winner] + np.float32(0.1 / c)
            want = reference.cross_entropy(x, p, reduction="none")
            report(f"probabilities {regime}, C={c}", ulps(F.cross_entropy(x, p, reduction="none"), want), 4, 0.99)
            want = reference.cross_entropy(x, y, reduction="none", label_smoothing=0.1)
            report(f"smoothed {regime}, C={c}", ulps(F.cross_entropy(x, y, reduction="none", label_smoothing=0.1), want), 4, 0.99)


@pytest.mark.parametrize("regime", ["ordinary", "of a trained model", "one dominates by 0 to 120", "wide", "suppressed"])
def test_gradient_of_probability_targets(isa, regime):
    """w t' - u p: 6 ulp of the larger of the two, which may cancel."""
    for c in (2, 10, 64, 65, 1000):
        x, y, winner = rows(regime, c)
        p = np.float32(0.9) * np.eye(c, dtype=np.float32)[winner] + np.float32(0.1 / c)
        for target, mix, smoothing in ((p, reference.real(p), 0.0), (y, reference._onehot(y, c), 0.1)):
            mix = mix * (1 - reference.LD(smoothing)) + reference.LD(smoothing) / c
            mass = mix.sum(-1, keepdims=True) * reference.softmax(x)
            _, gradient = lf.value_and_grad(F.cross_entropy)(x, target, label_smoothing=smoothing, reduction="sum")
            ulp = np.spacing(np.maximum(np.maximum(mass, mix), TINY).astype(np.float32))
            report(f"gradient {regime}, C={c}, smoothing {smoothing}", np.abs(gradient - (mass - mix)) / ulp, 6)


def test_gradient_of_small_masses(isa, monkeypatch):
    """A label at the maximum whose probability and mass are small beside 1: w t' - u p to 6 ulp of float64 of the larger, also of logits in tiles."""
    monkeypatch.setattr("lossfast._linear._LOGITS", 0)
    rng = generator("small masses")
    for c in (50, 1000, 3000):
        x, weight = rng.normal(0, 0.1, (40, c)), rng.random(c) * 1e-3
        y = x.argmax(-1)
        for options in ({"label_smoothing": 1.0}, {"label_smoothing": 0.1, "weight": np.where(np.isin(range(c), y), weight, 1)}):
            smoothing, w = reference.LD(options["label_smoothing"]), options.get("weight", np.ones(c))
            mix = w * (reference._onehot(y, c) * (1 - smoothing) + smoothing / c)
            mass = mix.sum(-1, keepdims=True) * reference.softmax(x)
            want = mass - mix
            scale = np.maximum(mass, mix)
            linear = lf.value_and_grad(F.linear_cross_entropy)(x, np.eye(c), y, reduction="sum", **options)[1]
            for gradient in (lf.value_and_grad(F.cross_entropy)(x, y, reduction="sum", **options)[1], linear):
                report(f"small masses, C={c}, {options['label_smoothing']}", np.abs(gradient - want) / scale * 2**52, 6)


@functools.cache
def exact_focal(regime, c, dtype, winner, gamma):
    x, anywhere, best = rows(regime, c, 60)
    x, y = x.clip(-60000).astype(DTYPES[dtype]), best if winner else anywhere
    return x, y, reference.focal_loss(x, y, gamma=gamma, reduction="none"), reference.focal_gradient(x, y, gamma)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("gamma", [0.5, 2, 5])
@pytest.mark.parametrize("regime", ["ordinary", "of a trained model", "one dominates by 0 to 120", "two dominate", "all equal", "suppressed"])
def test_focal_loss(isa, regime, gamma, dtype):
    """A power of 1 - p within 2 ulp, of rows and of columns, gradient entries within 6."""
    for c in (2, 3, 10, 65, 130, 1025):
        for winner in (False, True):
            x, y, want, want_gradient = exact_focal(regime, c, dtype, winner, gamma)
            for given in (x, np.asfortranarray(x)):
                report(f"C={c}", ulps(F.focal_loss(given, y, gamma=gamma, reduction="none"), want), 2)
            _, gradient = lf.value_and_grad(F.focal_loss)(x.astype(np.float32), y, gamma=gamma, reduction="sum")
            report(f"gradient, C={c}", ulps(gradient, want_gradient), 6)


def test_documented_example(isa):
    assert abs(float(F.cross_entropy(np.array([20, 0], np.float32), 0)) / 2.0611536203143807e-09 - 1) < 1e-7
    assert abs(float(F.cross_entropy(np.array([40.0, 0]), 0)) / 4.248354255291589e-18 - 1) < 1e-15
    assert abs(float(F.logsumexp(np.array([0.0, -40]))) / 4.248354255291589e-18 - 1) < 1e-15


def same(got, want, what):
    np.testing.assert_allclose(np.asarray(got, float), [float(v) for v in np.atleast_1d(want)], rtol=2e-16, err_msg=what)


def test_references_against_mpmath():
    """The long double references, which everything here rests on, agree with 60 digits to an ulp of float64."""
    rng = generator("mpmath")
    for regime in REGIMES:
        for c in (2, 10):
            for x in REGIMES[regime](rng, 3, c).astype(np.float32):
                lse, logp, loss, p = reference.mp_row(x)
                same(reference.log_softmax(x), logp, regime)
                same(reference.softmax(x), p, regime)
                same([reference.cross_entropy(x, k) for k in range(c)], loss, regime)
                if regime != "tiny":  # there the maximum and log(sum) nearly cancel
                    same([reference.logsumexp(x)], [lse], regime)


# ---- elementwise ----------------------------------------------------------------------------------------------------

UNARY = ["sigmoid", "logsigmoid", "softplus"]


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(isa, name):
    """A quarter of a million float32 of every exponent, and the range that matters, within 2 ulp; gradients within 6."""
    rng = generator(name)
    patterns = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([patterns[np.isfinite(patterns)], rng.uniform(-105, 105, 100_000).astype(np.float32)])
    report(name, ulps(getattr(F, name)(x), getattr(reference, name)(x)), 2)
    s = reference.sigmoid(x)
    want = {"sigmoid": s * reference.sigmoid(-reference.real(x)), "logsigmoid": reference.sigmoid(-reference.real(x)), "softplus": s}[name]
    report(f"  gradient of {name}", ulps(lf.value_and_grad(getattr(F, name))(x)[1], want), 6)


ELEMENTWISE = [c for c in LIVE if c.kind == "elementwise" and c.reductions]


def errors(case, option):
    """ulp of each of 20 000 losses from the reference; where terms cancel, of the larger term."""
    args, keywords = case.draw(generator(case.function, option), (20_000,), np.float32, option)
    want = getattr(reference, case.function)(*args, **keywords, reduction="none")
    error = ulps(call(case, args, keywords | {"reduction": "none"}), want)
    if case.terms:
        term = case.terms(*[a.astype(float) for a in args], **case.options[option]) * keywords.get("weight", 1)
        error = error * np.spacing(np.abs(want).astype(np.float32)) / np.spacing(np.maximum(np.abs(want), term).astype(np.float32))
    return error


@pytest.mark.parametrize("case, option", [pytest.param(c, i, id=f"{c.function}-{i}") for c in ELEMENTWISE for i in range(len(c.options))])
def test_elementwise_losses(isa, case, option):
    """Within 2 ulp of the formula with the options as given, purely algebraic ones within 1."""
    report(f"{case.function} {option}", errors(case, option), 1 if case.algebraic else 2)


def squares_over(rng, n):
    x = rng.uniform(1, 2, n) * 2.0**65
    return x, 0 * x, x * x / rng.uniform(3.5e38, 6.7e38, n)


HARD = [  # function, options, ulp, arrays for which a rounding or an overflow before the last one would show
    ("hinge_embedding_loss", {"margin": 0.1}, 1, lambda rng, n: (rng.uniform(0.09, 0.11, n), np.full(n, -1))),
    ("margin_ranking_loss", {"margin": 0.3}, 1, lambda rng, n: (rng.uniform(1.29, 1.31, n), np.ones(n), np.ones(n))),
    ("gaussian_nll_loss", {}, 2, squares_over),
    ("poisson_nll_loss", {}, 0, lambda rng, n: (rng.uniform(95, 120, n), rng.uniform(1e38, 3e38, n))),
    ("tweedie_nll_loss", {"power": 0}, 2, lambda rng, n: (rng.uniform(-120, -105, n), rng.uniform(1e30, 1e38, n))),
    ("tweedie_nll_loss", {"power": 3}, 2, lambda rng, n: (rng.uniform(53, 58, n), rng.uniform(1e34, 1e38, n))),
]


@pytest.mark.parametrize("name, options, most, make", [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in HARD])
def test_hard_arguments(isa, name, options, most, make):
    args = [np.asarray(a).astype(np.float32) for a in make(generator(name), 5000)]
    with np.errstate(over="ignore"):
        want = getattr(reference, name)(*args, **options, reduction="none")
        report(name, ulps(getattr(F, name)(*args, **options, reduction="none"), want), most)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in LIVE if c.kind == "row" or c.function == "focal_loss"])
def test_losses_of_vectors(isa, case):
    """Within 2 ulp: they are computed in float64 but for what they read.  (linear_cross_entropy's logits are BLAS's float32.)"""
    for option in range(len(case.options)):
        args, keywords = case.draw(generator(case.function, option), (500, 11), np.float32, option)
        want = getattr(reference, case.function)(*args, **keywords, reduction="none")
        report(f"{case.function} {option}", ulps(call(case, args, keywords | {"reduction": "none"}), want), 2)


# ---- means ----------------------------------------------------------------------------------------------------------


def many_terms():
    """A million terms and their exact sum: of 13 decades and both signs, of one sign, and one that dwarfs the others."""
    rng, n = generator("mean"), 1_000_000
    for terms in (rng.normal(size=n) * 10.0 ** rng.uniform(-8, 5, n), rng.gamma(2, 3, n), np.concatenate([[1e9], np.full(n - 1, 1e-3)])):
        terms = terms.astype(np.float32)
        yield terms, math.fsum(terms.astype(float))


TERMS = functools.cache(lambda: list(many_terms()))


def test_mean_of_a_million_terms(isa):
    """nll_loss of C = 1 picks given numbers."""
    for terms, exact in TERMS():
        y = np.zeros(terms.size, np.int8)
        for reduction, want in (("sum", exact), ("mean", exact / terms.size)):
            got = -F.nll_loss(terms[:, None], y, reduction=reduction)
            assert abs(float(got) - want) <= np.spacing(np.float32(abs(want)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_mean_over_many_positions(dtype):
    """10^7 positions without their memory: 1000 given terms, 10^4 times.  Half precision neither overflows nor loses digits."""
    rng = generator("many positions")
    terms = rng.gamma(2, 3, 1000).astype(dtype)
    x = np.broadcast_to(terms, (10_000, 1, 1000))
    exact = math.fsum(terms.astype(float)) / 1000
    got = -F.nll_loss(x, np.broadcast_to(np.int8(0), (10_000, 1000)))
    assert got.dtype == np.float32 and abs(float(got) - exact) <= np.spacing(np.float32(exact))


@pytest.mark.skipif(not hasattr(F, "mse_loss"), reason="mse_loss has not landed")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_elementwise_mean_over_a_hundred_million(isa, dtype):
    rng = generator("mse")
    terms = rng.normal(0, 300, 1000).astype(dtype)
    x = np.broadcast_to(terms, (100_000, 1000))
    exact = math.fsum(float(t) ** 2 for t in terms) / 1000
    got = F.mse_loss(x, np.broadcast_to(np.array(0, dtype), x.shape))
    limit = np.spacing(np.float32(exact)) if dtype != np.float64 else 4 * np.spacing(exact)
    assert abs(float(got) - exact) <= limit


def softplus(x):
    return reference.softplus(np.array([x]))[0]


LOGARITHMS = {  # what their sums take as logarithms of products
    "binary_cross_entropy_with_logits": lambda x, y: y * softplus(-x) + (1 - y) * softplus(x),
    "soft_margin_loss": lambda x, y: softplus(-x if y >= 0.5 else x),
}


@pytest.mark.parametrize("name", LOGARITHMS)
def test_mean_of_equal_terms(isa, name):
    """3 ulp where every rounding of a product is the same: of 300 constant arguments, each 1024 times."""
    rng, error = generator(name), []
    for _ in range(300):
        x, y = np.float32(rng.normal() * rng.choice([0.01, 1, 5, 20])), np.float32(rng.choice([0, 1, rng.uniform()]))
        given = [x, np.where(y >= 0.5, 1, -1)] if name == "soft_margin_loss" else [x, y]
        loss = LOGARITHMS[name](reference.real(x), reference.real(y))
        got = getattr(F, name)(*[np.full(1024, a, np.float32) for a in given])
        error.append(np.abs(reference.real(got) - loss) / np.spacing(np.maximum(loss, TINY).astype(np.float32)))
    report(name, error, 3)


def test_mean_of_equal_gaussians(isa):
    """4 ulp of what its two terms come to without their signs: a pair of elements has one quotient, of sums of products."""
    rng, error = generator("equal gaussians"), []
    for _ in range(1000):
        x, y, var = np.float32([rng.normal() * rng.choice([0.01, 1, 30]), rng.normal(), 10 ** rng.uniform(-6, 6)])
        log, square = np.log(reference.real(var)), (reference.real(x) - y) ** 2 / var
        got = F.gaussian_nll_loss(*[np.full(1024, a, np.float32) for a in (x, y, var)])
        error.append(np.abs(reference.real(got) - (log + square) / 2) / np.spacing(((np.abs(log) + square) / 2).astype(np.float32)))
    report("equal gaussians", error, 4)


EQUAL = {  # means of n equal float64 terms of x > 0, and what each of them is; of rows the last dimension, of 1
    "mse_loss": (lambda x: F.mse_loss(x, 0 * x), lambda x: x * x),
    "mse_loss with weights": (lambda x: F.mse_loss(x, 0 * x, weight=0 * x + 0.3), lambda x: x * x),
    "l1_loss": (lambda x: F.l1_loss(x, 0 * x), lambda x: x),
    "binary_cross_entropy_with_logits": (lambda x: F.binary_cross_entropy_with_logits(-x, 0 * x), lambda x: softplus(-x)),
    "soft_margin_loss": (lambda x: F.soft_margin_loss(x, 0 * x + 1), lambda x: softplus(-x)),
    "nll_loss": (lambda x: F.nll_loss(-x[:, None], np.zeros(x.size, int)), lambda x: x),
    "multi_margin_loss": (lambda x: F.multi_margin_loss(np.stack([x, 0 * x], 1), np.ones(x.size, int), margin=0.0), lambda x: x / 2),
    "multilabel_soft_margin_loss": (lambda x: F.multilabel_soft_margin_loss(x[:, None], 0 * x[:, None] + 1), lambda x: softplus(-x)),
}


@pytest.mark.parametrize("name", EQUAL)
def test_float64_mean_of_equal_terms(isa, name):
    """6 ulp: 4 of the sum, the rest of the term and the division."""
    mean, term = EQUAL[name]
    x = generator("equal", name).gamma(2, 2, 40)
    got = reference.real(np.array([mean(np.full(n, v)) for n in (1000, 100_000) for v in x]))
    want = np.tile(term(reference.real(x)), 2)
    report(name, np.abs(got - want) / np.spacing(want.astype(np.float64)), 6)


@pytest.mark.filterwarnings("ignore:.*broadcast:UserWarning")
@pytest.mark.parametrize(("n", "c"), [(100_000, 3), (100_000, 256), (3000, 2000)])
def test_float64_gradient_of_equal_terms_by_a_row(isa, n, c):
    """8 ulp: sums down many rows nearly as good as those along them; NumPy's of the pieces come on top."""
    row = generator("row", n, c).gamma(2, 2, c)
    _, got = lf.value_and_grad(F.mse_loss, argnums=1)(np.broadcast_to(0.0, (n, c)), row[None], reduction="sum")
    want = 2 * n * reference.real(row)
    report(f"{n} rows of {c}", np.abs(reference.real(got[0]) - want) / np.spacing(want.astype(np.float64)), 8)


def test_float64_means_over_class_weights(isa):
    """6 ulp: the denominators, of linear_cross_entropy and beside gradients, are sums as others."""
    n, weight = 200_000, np.array([0.3, 0.7])
    x, label = np.zeros((n, 2)), np.ones(n, int)
    value, gradient = lf.value_and_grad(F.cross_entropy)(x, label, weight)
    linear = F.linear_cross_entropy(np.zeros((n, 1)), np.zeros((2, 1)), label, weight=weight)
    ulps = lambda got, want: abs(got - want) / np.spacing(want)  # noqa: E731
    assert ulps(value, np.log(2)) <= 6 and ulps(linear, np.log(2)) <= 6
    assert (ulps(gradient[:, 0], 0.5 / n) <= 6).all()


FUNCTIONS_OF_SUMS = {  # a mean of equal terms that is the function; the function; the error stated in ulp; where; the worst input found of all
    "log": (lambda x: -F.binary_cross_entropy(x, 0 * x + 1), np.log, 1.54, (1e-37, 1), "0x1.f049cep-1"),
    "log of two": (lambda x: 2 * F.gaussian_nll_loss(0 * x, 0 * x, x, eps=1e-18), np.log, 1.96, (1e-18, 1e19), "0x1.f82eaep-1"),
    "exp": (lambda x: F.poisson_nll_loss(x, 0 * x), np.exp, 1.04, (-87, 88), "-0x1.76642ep+2"),
    "exp of negative": (lambda x: F.binary_cross_entropy_with_logits(x, 0 * x), lambda x: np.log1p(np.exp(x)), 1.39, (-87, -17), "-0x1.5bb83ep+6"),
}


@pytest.mark.parametrize("name", FUNCTIONS_OF_SUMS)
def test_functions_of_sums(isa, name):
    """elementwise.h's elem_logs and elem_exps, and vmath.h's lf_exp_sum, as sums show them."""
    mean, function, bound, (low, high), worst = FUNCTIONS_OF_SUMS[name]
    rng, tail = generator("functions of sums", name), np.arange(1, 100) * np.float32(2**-20)
    wide = 10 ** rng.uniform(-37, 38, 1000) if name == "log" else rng.uniform(low, high, 1000)
    x = np.concatenate([[float.fromhex(worst)], wide, rng.uniform(0.5, 2, 1000), 1 + tail, 1 - tail]).astype(np.float32)
    got = np.array([mean(np.full(32, v)) for v in x[(x > low) & (x < high)]])
    want = function(x[(x > low) & (x < high)].astype(reference.LD))
    report(name, np.abs(got - want) / np.spacing(np.abs(want).astype(np.float32)), bound)


def test_float64_mean(isa):
    """Terms of 13 decades added in float64, blockwise: a few ulp of the sum of magnitudes."""
    rng = generator("float64 mean")
    terms = rng.normal(size=1_000_000) * 10.0 ** rng.uniform(-8, 5, 1_000_000)
    got = -F.nll_loss(terms[:, None], np.zeros(terms.size, int), reduction="sum")
    assert abs(got - math.fsum(terms)) <= 4 * np.spacing(math.fsum(np.abs(terms)))


def test_cross_entropy_mean_is_the_mean_of_its_terms(isa):
    rng = generator("ce mean")
    x, y = rng.normal(0, 4, (300_000, 3)).astype(np.float32), rng.integers(0, 3, 300_000)
    exact = math.fsum(reference.cross_entropy(x, y, reduction="none").astype(float)) / y.size
    assert abs(float(F.cross_entropy(x, y)) - exact) <= np.spacing(np.float32(exact))
