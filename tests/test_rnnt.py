"""RNN-T: every path for small shapes, a reference in log space, finite differences, layouts and threads with equal bits, hostile ids."""

import itertools

import lossfast as lf
import ml_dtypes
import numpy as np
import pytest

INF = np.inf


def reference(x, targets, frames, lengths, blank, fused=True):
    """Losses, and gradients of their sum, in float64 log space."""
    x = np.asarray(x).astype(np.float64)
    lp = x - np.logaddexp.reduce(x, -1, keepdims=True) if fused else x
    loss, gradient = np.zeros(len(x)), np.zeros_like(x)
    for n, (T, U) in enumerate(zip(frames, lengths)):
        alpha, beta = np.full((2, T + 1, U + 2), -INF)
        alpha[0, 0], beta[T, U] = 0, 0
        for t, u in itertools.product(range(T), range(U + 1)):
            if t:
                alpha[t, u] = alpha[t - 1, u] + lp[n, t - 1, u, blank]
            if u:
                alpha[t, u] = np.logaddexp(alpha[t, u], alpha[t, u - 1] + lp[n, t, u - 1, targets[n][u - 1]])
        for t, u in itertools.product(reversed(range(T)), reversed(range(U + 1))):
            label = lp[n, t, u, targets[n][u]] + beta[t, u + 1] if u < U else -INF
            beta[t, u] = np.logaddexp(lp[n, t, u, blank] + beta[t + 1, u], label)
        z = beta[0, 0]
        loss[n] = -z
        for t, u in itertools.product(range(T if z > -INF else 0), range(U + 1)):
            if fused:
                gradient[n, t, u] = np.exp(lp[n, t, u] + alpha[t, u] + beta[t, u] - z)
            gradient[n, t, u, blank] -= np.exp(alpha[t, u] + lp[n, t, u, blank] + beta[t + 1, u] - z)
            if u < U:
                gradient[n, t, u, targets[n][u]] -= np.exp(alpha[t, u] + lp[n, t, u, targets[n][u]] + beta[t, u + 1] - z)
    return loss, gradient


def ordinary(rng, N, T, U, C, dtype=np.float32, sd=2.0):
    return (rng.standard_normal((N, T, U + 1, C)) * sd).astype(dtype), rng.integers(0, C - 1, (N, U)), np.full(N, T), np.full(N, U)


def value_and_grad(*arguments, **options):
    return lf.value_and_grad(lf.rnnt_loss)(*arguments, **({"reduction": "none"} | options))


@pytest.mark.parametrize("T, U", [(1, 0), (1, 2), (3, 0), (3, 2), (4, 3)])
def test_all_paths(rng, T, U):
    x, targets, frames, lengths = ordinary(rng, 1, T, U, 4, np.float64)
    p = np.exp(x[0] - np.logaddexp.reduce(x[0], -1, keepdims=True))
    total = 0
    for steps in set(itertools.permutations([0] * (T - 1) + [1] * U)):
        t = u = 0
        mass = 1.0
        for label in steps:
            mass *= p[t, u, targets[0, u] if label else 3]
            t, u = t + (not label), u + label
        total += mass * p[T - 1, U, 3]
    np.testing.assert_allclose(lf.rnnt_loss(x, targets, frames, lengths, reduction="sum"), -np.log(total), rtol=1e-13)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 7, 4, 5), (2, 20, 11, 40), (1, 9, 3, 1500), (2, 1, 6, 3)])
def test_against_log_space(isa, rng, shape, dtype, fused):
    for sd in (1.0, 30.0, 1e4):
        x, targets, frames, lengths = ordinary(rng, *shape, dtype, sd)
        blank = int(rng.integers(0, shape[3]))
        frames[0], lengths[-1] = max(1, shape[1] - 2), shape[2] // 2
        if not fused:
            x = (x - np.logaddexp.reduce(x.astype(float), -1, keepdims=True)).astype(dtype)
        want, gradient = reference(x, targets, frames, lengths, blank, fused)
        loss, got = value_and_grad(x, targets, frames, lengths, blank=blank, fused_log_softmax=fused)
        assert loss.dtype == got.dtype == dtype
        np.testing.assert_allclose(loss, want, rtol=1e-7 if dtype == np.float32 else 1e-13)
        np.testing.assert_allclose(got, gradient, rtol=0, atol=(1.3e-7 if dtype == np.float32 else 1e-12) + 1e-15 * want.max())


@pytest.mark.parametrize("size", [1e3, 1e30, INF, np.nan])
def test_log_probabilities_that_no_path_uses(isa, rng, size):
    """Other classes, and blanks that leave the last frame before the last label; those that paths use may be far above 0."""
    x, targets, frames, lengths = ordinary(rng, 2, 5, 4, 6, np.float64)
    frames[0], lengths[1] = 3, 2
    for shift in (0, 1000):
        want, gradient = reference(x + shift, targets, frames, lengths, 5, fused=False)
        spoiled = np.where(gradient == 0, size, x + shift)
        loss, got = value_and_grad(spoiled, targets, frames, lengths, fused_log_softmax=False)
        np.testing.assert_allclose(loss, want, rtol=1e-13)
        np.testing.assert_allclose(got, gradient, rtol=0, atol=1e-11)


def test_reductions_and_options(rng):
    x, targets, frames, lengths = ordinary(rng, 3, 6, 3, 5, np.float64)
    each, gradient = value_and_grad(x, targets, frames, lengths)
    for reduction, scale in (("sum", 1), ("mean", 1 / 3)):
        loss, got = value_and_grad(x, targets, frames, lengths, reduction=reduction)
        np.testing.assert_allclose(loss, each.sum() * scale, rtol=1e-14)
        np.testing.assert_allclose(got, gradient * scale, rtol=1e-13, atol=1e-16)
    up = rng.standard_normal(3)
    _, got = value_and_grad(x, targets, frames, lengths, grad_output=up)
    np.testing.assert_allclose(got, gradient * up[:, None, None, None], rtol=1e-13, atol=1e-16)
    _, got = value_and_grad(x, targets, frames, lengths, clamp=0.1, grad_output=up)
    np.testing.assert_allclose(got, gradient.clip(-0.1, 0.1) * up[:, None, None, None], rtol=1e-13, atol=1e-16)
    out = np.empty(3)
    assert lf.rnnt_loss(x, targets, 6, 3, reduction="none", out=out) is out and out.tobytes() == each.tobytes()
    loss, got = lf.RNNTLoss(reduction="sum").value_and_grad(x, targets, frames, lengths)
    np.testing.assert_allclose(got, gradient, atol=1e-15)


def test_blanks_of_other_integers():
    x = np.random.default_rng(3).standard_normal((2, 4, 3, 5))
    want = lf.rnnt_loss(x, [[1, 2], [3, 1]], 4, 2, blank=4)
    for blank in (-1, np.int64(-1), np.int8(4), np.array(-1)):
        assert lf.rnnt_loss(x, [[1, 2], [3, 1]], 4, 2, blank=blank) == want


def test_edges():
    x = np.zeros((2, 3, 2, 4))
    np.testing.assert_array_equal(np.isinf(lf.rnnt_loss(x, [[1], [1]], [0, 3], 1, reduction="none")), [True, False])
    x[1, :, 0, 1] = -INF
    loss, gradient = value_and_grad(x, [[1], [1]], 3, 1)
    assert loss[1] == INF and not gradient[1].any() and np.isfinite(gradient[0]).all()
    x[0, 1, 1, 2] = np.nan
    assert np.isnan(lf.rnnt_loss(x, [[1], [1]], 3, 1))
    assert np.isnan(lf.rnnt_loss(np.zeros((0, 3, 2, 4)), np.zeros((0, 1), int), 3, 1))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_layouts_and_threads(isa, rng, dtype):
    for C in (6, 300):
        x, targets, frames, lengths = ordinary(rng, 3, 30, 8, C)
        x = x.astype(dtype)
        want = None
        for view in (x, np.asfortranarray(x), x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1]):
            for threads in (1, 3):
                with lf.num_threads(threads):
                    loss, gradient = value_and_grad(view, targets, frames, lengths)
                got = loss.tobytes(), np.ascontiguousarray(gradient).tobytes()
                want = want or got
                assert got == want and gradient.dtype == dtype


ERRORS = [
    (dict(targets=[[1, 2], [1, 4]]), IndexError, "targets[1, 1] = 4 is out of range for 4 classes"),
    (dict(targets=[[1, 2, 3], [1, 1, 1]]), ValueError, "targets: expected shape (2, 2)"),
    (dict(logit_lengths=[6, 5]), ValueError, "logit_lengths[0] = 6 is out of range for 5 frames"),
    (dict(target_lengths=[2, -1]), ValueError, "target_lengths[1] = -1 is out of range"),
    (dict(blank=4), ValueError, "blank: 4 is out of range for 4 classes"),
    (dict(blank=-6), ValueError, "blank: -6 is out of range for 4 classes"),
    (dict(blank=2**70), ValueError, "blank: 1180591620717411303424 is out of range"),
    (dict(blank=None), TypeError, "blank: expected an integer"),
    (dict(blank=1.5), TypeError, "blank: expected an integer"),
    (dict(blank=np.array([1])), TypeError, "blank: expected an integer"),
    (dict(clamp="a"), TypeError, "clamp: expected a number"),
    (dict(clamp=None), TypeError, "clamp: expected a number"),
    (dict(clamp=np.nan), ValueError, "clamp: expected a number"),
    (dict(clamp=10**400), ValueError, "clamp: expected a number"),
    (dict(blank=-5), ValueError, "blank: -5 is out of range for 4 classes"),
    (dict(logits=np.zeros((2, 5, 4))), ValueError, "logits: expected shape (N, T, U + 1, C)"),
    (dict(targets=[[1.0, 2], [1, 1]]), TypeError, "targets: expected integers"),
]


@pytest.mark.parametrize("change, error, message", ERRORS, ids=[m[:40] for _, _, m in ERRORS])
def test_errors(change, error, message):
    arguments = dict(logits=np.zeros((2, 5, 3, 4)), targets=[[1, 2], [3, 1]], logit_lengths=5, target_lengths=2) | change
    with pytest.raises(error) as caught:
        lf.rnnt_loss(**arguments)
    assert str(caught.value).startswith(message)


def test_hostile_ids_and_lengths(rng):
    refused = 0
    wild = np.array([-(2**63), -(2**31), -1, 4, 127, 255, 256, 2**31, 2**63 - 1])
    for _ in range(1000):
        N, T, U, C = rng.integers(0, 4), rng.integers(0, 6), rng.integers(0, 4), rng.integers(1, 5)
        draw = lambda *size: np.where(rng.random(size) < 0.1, rng.choice(wild, size), rng.integers(0, 4, size))  # noqa: E731
        targets, frames, lengths = draw(N, U).astype(rng.choice(["i1", "u1", "i8", "u8"])), draw(N), draw(N)
        try:
            value_and_grad(np.zeros((N, T, U + 1, C)), targets, frames, lengths)
        except (IndexError, ValueError):
            refused += 1
    assert 200 < refused < 1000


def test_gradient_down_to_the_smallest_float():
    """A detour of ever smaller probability: entries become subnormal and then 0 as those of double do when they are rounded to float32."""
    for gap in np.arange(80, 112, 0.5):
        logits = np.zeros((1, 2, 2, 3))
        logits[0, 0, 0] = [gap, 0, 0]  # the blank first; by the label first there is next to nothing
        y, lengths = np.array([[1]]), ([2], [1])
        wide = lf.value_and_grad(lf.functional.rnnt_loss)(logits, y, *lengths, blank=0)[1]
        narrow = lf.value_and_grad(lf.functional.rnnt_loss)(logits.astype(np.float32), y, *lengths, blank=0)[1]
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=1e-6, atol=2**-149)
