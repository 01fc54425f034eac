"""CTC: all paths for small shapes, a reference in log space, torch's results, layouts and threads with equal bits, hostile ids and lengths."""

import functools
import itertools
import pathlib
import sys

import lossfast as lf
import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossfast import _core

INF, NAN = np.inf, np.nan
GOLDENS = np.load(pathlib.Path(__file__).with_name("goldens_ctc.npz"))
LOSS = {np.float32: 1e-8, np.float64: 1e-14}  # relative to max(1, loss), before rounding to the result's dtype
GRADIENT = {np.float32: 6e-8, np.float64: 1e-12}


# ---- references


def states(labels, blank):
    ext = np.full(2 * len(labels) + 1, blank)
    ext[1::2] = labels
    skip = np.zeros(len(ext), bool)
    skip[3::2] = ext[3::2] != ext[1:-2:2]
    return ext, skip


def forward(lp, ext, skip):
    """Log-mass of each state in each frame, before and after the frame's own emission."""
    before, after = np.full((2, len(lp), len(ext)), -INF, lp.dtype)
    for t, row in enumerate(lp):
        if t == 0:
            before[0, :2] = 0
        else:
            a = after[t - 1]
            before[t] = a
            before[t, 1:] = np.logaddexp(before[t, 1:], a[:-1])
            before[t, 2:] = np.where(skip[2:], np.logaddexp(before[t, 2:], a[:-2]), before[t, 2:])
        after[t] = before[t] + row[ext]
    return before, after


def reference(x, targets, frames, lengths, blank=0, from_logits=False, real=np.float64):
    """Losses, gradients of their sum, and occupancies, in float64 log space."""
    x = np.asarray(x).astype(real)
    loss, gradient, occupancy = np.zeros(x.shape[1]), np.zeros_like(x), []
    with np.errstate(all="ignore"):
        for n, (T, S) in enumerate(zip(frames, lengths)):
            ext, skip = states(np.asarray(targets[n])[:S], blank)
            lp = x[:T, n]
            if from_logits:
                lp = lp - np.logaddexp.reduce(lp, -1, keepdims=True)
            occupancy.append(np.zeros((x.shape[0], 2 * S + 1)))
            if T == 0:
                loss[n] = INF if S else 0
                continue
            _before, after = forward(lp, ext, skip)
            back = forward(lp[::-1], *states(np.asarray(targets[n])[:S][::-1], blank))[0][::-1, ::-1]
            z = np.logaddexp.reduce(after[-1, -2:])
            loss[n] = -z
            if z == -INF:
                continue
            gamma = occupancy[n][:T] = np.exp(after + back - z)
            np.subtract.at(gradient[:T, n], (slice(None), ext), gamma)
            if from_logits:
                gradient[:T, n] += np.exp(lp)
    return loss, gradient, occupancy


def ordinary(rng, T, N, C, S, dtype=np.float32, sd=3.0, blank=0):
    x = (rng.standard_normal((T, N, C)) * sd).astype(dtype)
    return x, rng.choice(np.delete(np.arange(C), blank), (N, S)), np.full(N, T), np.full(N, S)


def value_and_grad(x, targets, frames, lengths, **options):
    return lf.value_and_grad(lf.ctc_loss)(x, targets, frames, lengths, **({"reduction": "none"} | options))


def check(x, targets, frames, lengths, **options):
    """Loss and gradient of a call against the reference."""
    dtype = x.dtype.type
    want, gradient, _ = reference(x, targets, frames, lengths, **options)
    loss, got = value_and_grad(x, targets, frames, lengths, **options)
    assert loss.dtype == got.dtype == dtype
    finite = np.isfinite(want)
    np.testing.assert_array_equal(loss[~finite], want[~finite])
    scale = np.maximum(1, np.abs(want[finite]))
    assert np.all(np.abs(loss[finite] - want[finite]) <= (LOSS[dtype] * max(1, len(x)) + np.finfo(dtype).eps) * scale)
    noise = 1e-15 * np.abs(want[finite]).max(initial=0)  # of the reference, whose sums are logarithms
    np.testing.assert_allclose(got, gradient, rtol=0, atol=GRADIENT[dtype] + noise)
    return loss, got


# ---- values


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("labels", [[], [0], [1, 1], [0, 1], [1, 0, 1], [1, 1, 1]])
@pytest.mark.parametrize("T", [1, 3, 5])
def test_all_paths(rng, T, labels, blank):
    """Loss, gradient, posteriors and alignment from every path there is."""
    labels = [(c + blank + 1) % 3 for c in labels]
    lp = np.log(rng.dirichlet(np.ones(3), T))
    loss = lf.ctc_loss(lp, np.array(labels, int), T, len(labels), blank, "sum")
    paths = [p for p in itertools.product(range(3), repeat=T) if [c for c, _ in itertools.groupby(p) if c != blank] == labels]
    if not paths:
        assert loss == INF
        with pytest.raises(ValueError, match="needs at least"):
            lf.ctc_align(lp, np.array(labels, int), T, len(labels), blank)
        return
    mass = np.exp([sum(lp[t, c] for t, c in enumerate(p)) for p in paths])
    np.testing.assert_allclose(loss, -np.log(mass.sum()), rtol=1e-13, atol=1e-13)
    occupancy = np.zeros((T, 3))
    for p, m in zip(paths, mass / mass.sum()):
        occupancy[range(T), p] += m
    _, gradient = lf.value_and_grad(lf.ctc_loss)(lp, np.array(labels, int), T, len(labels), blank, "sum")
    np.testing.assert_allclose(gradient, -occupancy, atol=1e-14)
    posteriors = lf.ctc_posteriors(lp, np.array(labels, int), T, len(labels), blank)
    np.testing.assert_allclose(posteriors.sum(-1), 1, rtol=1e-13)
    np.testing.assert_allclose(posteriors[:, ::2].sum(-1), occupancy[:, blank], atol=1e-13)
    alignment = lf.ctc_align(lp, np.array(labels, int), T, len(labels), blank)
    assert tuple(alignment.labels) == paths[int(np.argmax(mass))]
    np.testing.assert_allclose([alignment.score, alignment.scores.sum()], np.log(mass.max()), rtol=1e-13)
    assert [s.token for s in alignment.spans()] == labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(17, 3, 5, 4), (40, 2, 128, 12), (33, 3, 129, 9), (21, 2, 1500, 6), (90, 1, 30, 40)])
@pytest.mark.parametrize("sd", [0.3, 3, 1e2, 1e4])
def test_against_log_space(isa, rng, shape, dtype, sd):
    blank = int(rng.integers(0, shape[2]))
    x, targets, frames, lengths = ordinary(rng, *shape, dtype, sd, blank)
    targets[0] = targets[0, 0]  # repeats
    frames[-1] -= 3
    lengths[0] //= 2
    check(x, targets, frames, lengths, blank=blank, from_logits=True)
    lp = (x - np.logaddexp.reduce(x.astype(float), -1, keepdims=True)).astype(dtype)
    loss, _ = check(lp, targets, frames, lengths, blank=blank)
    assert np.all(loss >= 0)


def test_tight_frames_and_minus_infinity(isa, rng):
    for _ in range(30):
        x, targets, frames, lengths = ordinary(rng, 40, 3, 6, 12, np.float64)
        need = lengths + (np.diff(targets) == 0).sum(1)
        frames = need + rng.integers(0, 3, 3)
        x[rng.random(x.shape) < 0.1] = -INF
        x[np.isneginf(x).all(-1)] = 0
        check(x, targets, frames, lengths, from_logits=True)


@functools.cache
def wide(gap, C):
    """Many labels: tight, less tight, on other labels than those of the peaks, fewer of them, with classes excluded; and their reference."""
    rng = np.random.default_rng(100 * gap + C)
    T, S = 420, 195
    x, targets, frames, lengths = ordinary(rng, T, 5, C, S, np.float64, 1.0)
    lengths[3] = 192
    for n in range(5):
        labels = targets[n, : lengths[n]]
        first = np.cumsum(1 + np.r_[False, np.diff(labels) == 0]) - 1
        path = np.zeros(T, int)
        path[first + (np.sort(rng.integers(0, T - first[-1], len(labels))) if n else 0)] = labels
        x[np.arange(T), n, path] += gap
        frames[n] = (first[-1] + 4, T - 5, T, T, T)[n]
    targets[2] = rng.integers(1, C, S)
    x[:, 4][rng.random((T, C)) < 0.05] = -INF
    arguments = targets, frames, lengths
    return x, *arguments, reference(x, *arguments, from_logits=True, real=np.longdouble)[:2]


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="needs a long double of more bits than a double")
@pytest.mark.parametrize("C", [9, 140])
@pytest.mark.parametrize("gap", [0, 6, 15, 40])
def test_wide_lattices(isa, gap, C):
    """States that can add no more than 2^-100 are dropped: nobody sees it in untrained, half trained or certain logits."""
    x, *arguments, (want, want_gradient) = wide(gap, C)
    loss, gradient = value_and_grad(x, *arguments, from_logits=True)
    finite = np.isfinite(want)
    assert np.array_equal(loss[~finite], want[~finite]) and finite[1:4].all()
    rounding = len(x) * 2.0**-53  # once a frame
    assert np.all(np.abs(loss - want)[finite] <= rounding * np.maximum(1, want[finite]))
    np.testing.assert_allclose(gradient, want_gradient.astype(float), rtol=0, atol=GRADIENT[np.float64])
    lp, targets, frames, lengths = (x - np.logaddexp.reduce(x, -1, keepdims=True))[:, 1:4], *(a[1:4] for a in arguments)
    again = lf.ctc_loss(lp, targets, frames, lengths, reduction="none")
    assert np.all(np.abs(again - want[1:4]) <= rounding * np.abs(lp).max() + rounding * want[1:4])


def test_against_mpmath(rng):
    """float64 to 1e-14, logits of every size."""
    with mpmath.workdps(60):
        for sd in (1, 20, 1e3, 1e4):
            x, targets, frames, lengths = ordinary(rng, 14, 1, 4, 4, np.float64, sd)
            ext, skip = states(targets[0], 0)
            mass = None
            for row in x[:, 0]:
                total = mpmath.fsum(mpmath.exp(v) for v in row)
                p = [mpmath.exp(v) / total for v in row]
                last = mass
                mass = []
                for s, c in enumerate(ext):
                    m = mpmath.mpf(s < 2) if last is None else last[s] + (last[s - 1] if s else 0) + (last[s - 2] if skip[s] else 0)
                    mass.append(m * p[c])
            want = -mpmath.log(mass[-1] + mass[-2])
            got = lf.ctc_loss(x, targets, frames, lengths, reduction="sum", from_logits=True)
            assert abs(mpmath.mpf(float(got)) - want) <= 1e-14 * max(1, abs(want))


@pytest.mark.parametrize("name", sorted({key.partition("/")[0] for key in GOLDENS.files if "/" in key}))
def test_as_torch(name):
    golden = {key.partition("/")[2]: GOLDENS[key] for key in GOLDENS.files if key.startswith(name + "/")}
    x, blank = golden["logits"], int(golden["blank"])
    arguments = golden["targets"], golden["frames"], golden["lengths"]
    lp = lf.log_softmax(x)
    for reduction, zero in itertools.product(("none", "mean", "sum"), (False, True)):
        want = golden[f"{reduction}-{zero}"]
        np.testing.assert_allclose(lf.ctc_loss(lp, *arguments, blank, reduction, zero), want, rtol=1e-12, atol=1e-12)
        loss, gradient = value_and_grad(x, *arguments, blank=blank, reduction=reduction, zero_infinity=zero, from_logits=True)
        np.testing.assert_allclose(loss, want, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gradient, golden[f"{reduction}-gradient".replace("sum", "none")], rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape(data):
    """Repeats, empty targets, zero lengths, any blank; padded and concatenated targets are the same."""
    T, N, C, S = (data.draw(st.integers(*range_)) for range_ in ((0, 20), (1, 3), (2, 6), (0, 7)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    blank = data.draw(st.integers(0, C - 1))
    x, targets, _, _ = ordinary(rng, T, N, C, S, np.float64, 2.0, blank)
    frames = data.draw(st.lists(st.integers(0, T), min_size=N, max_size=N))
    lengths = data.draw(st.lists(st.integers(0, S), min_size=N, max_size=N))
    loss, gradient = check(x, targets, np.array(frames), np.array(lengths), blank=blank, from_logits=True)
    flat = np.concatenate([row[:s] for row, s in zip(targets, lengths)]).astype(data.draw(st.sampled_from([np.uint8, np.int16, np.uint64])))
    again, same = value_and_grad(x, flat, tuple(frames), lengths, blank=blank, from_logits=True)
    assert loss.tobytes() == again.tobytes() and gradient.tobytes() == same.tobytes()
    feasible, missing = lf.ctc_feasible(targets, frames, lengths)
    np.testing.assert_array_equal(feasible, np.isfinite(loss))
    np.testing.assert_array_equal(feasible, missing == 0)
    assert lf.ctc_feasible(targets, frames + missing, lengths).feasible.all()
    assert np.all(np.isfinite(lf.ctc_loss(x, targets, frames, lengths, blank, "none", True, from_logits=True)))
    posteriors = lf.ctc_posteriors(x, targets, frames, lengths, blank, from_logits=True)
    for n, want in enumerate(reference(x, targets, frames, lengths, blank, True)[2]):
        np.testing.assert_allclose(posteriors[:, n, : want.shape[1]], want, atol=1e-12)
        assert not posteriors[:, n, want.shape[1] :].any()


# ---- edges


def test_no_alignment():
    x = np.zeros((3, 2, 4))
    targets = [[1, 1, 2], [1, 2, 3]]
    loss, gradient = value_and_grad(x, targets, 3, 3, from_logits=True)
    assert loss[0] == INF and np.isfinite(loss[1]) and not gradient[:, 0].any() and gradient[:, 1].any()
    assert lf.ctc_loss(x, targets, 3, 3, from_logits=True) == INF
    loss, gradient = value_and_grad(x, targets, 3, 3, from_logits=True, zero_infinity=True, reduction="mean")
    assert loss == pytest.approx(float(value_and_grad(x, targets, 3, 3, from_logits=True)[0][1]) / 6)
    x[1, 1, 2] = -INF  # possible by length, but not by probability
    loss, gradient = value_and_grad(x, targets, 3, 3, from_logits=True)
    assert loss[1] == INF and not gradient.any()


def test_nothing():
    empty = np.zeros((0, 2, 3))
    np.testing.assert_array_equal(lf.ctc_loss(empty, [[1], [1]], 0, [0, 1], reduction="none"), [0, INF])
    assert np.isnan(lf.ctc_loss(np.zeros((4, 0, 3)), np.zeros((0, 2), int), [], [])) and lf.ctc_loss(np.zeros((4, 0, 3)), [], [], [], 0, "sum") == 0
    loss, gradient = lf.value_and_grad(lf.ctc_loss)(np.log(np.full((4, 3), 1 / 3)), [], 4, 0)
    np.testing.assert_allclose(loss, 4 * np.log(3), rtol=1e-14)
    np.testing.assert_allclose(gradient, -np.eye(3)[[0] * 4], atol=1e-14)


def test_nan_is_a_value(rng):
    x, targets, frames, lengths = ordinary(rng, 9, 3, 5, 2)
    x[4, 1, :] = NAN
    loss, gradient = value_and_grad(x, targets, frames, lengths, from_logits=True)
    assert np.isnan(loss).tolist() == [False, True, False]
    assert np.isfinite(gradient[:, [0, 2]]).all()
    frames[1] = 4  # what does not count does not matter
    assert np.isfinite(lf.ctc_loss(x, targets, frames, lengths, from_logits=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("C", [4, 130])
@pytest.mark.parametrize("mask", [-1e16, -1e20, -1e30, -3e38, -1e300])
def test_masks_that_cannot_be_avoided(isa, mask, C, threads):
    """Occupancies are those of the alignments with the fewest masked frames, weighed by the others."""
    T = 30
    x = np.linspace(0, 1, T * C).reshape(T, 1, C)
    x[..., 1] = mask
    with lf.num_threads(threads):
        posteriors = lf.ctc_posteriors(x, [[1, 2, 1]], T, 3)
        loss, gradient = value_and_grad(x, [[1, 2, 1]], T, 3)
    np.testing.assert_allclose(loss, -2 * mask, rtol=1e-14)
    near = x.copy()
    near[..., 1] = -2000
    want = lf.ctc_posteriors(near, [[1, 2, 1]], T, 3)
    np.testing.assert_allclose(posteriors.sum(-1), 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(posteriors, want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient[..., 1], -posteriors[..., [1, 5]].sum(-1), rtol=0, atol=1e-13)
    assert value_and_grad(x, [[1, 2, 1]], T, 3)[0].tobytes() == lf.ctc_loss(x, [[1, 2, 1]], T, 3, reduction="none").tobytes()


@pytest.mark.parametrize("C", [5, 300])
@pytest.mark.parametrize("size", [1e3, 1e16, 1e30, np.inf])
def test_cells_that_no_path_uses(isa, rng, C, size):
    """Labels that cannot be reached yet, or not be left in time, and the blank of a tight alignment may have any log-probability."""
    for T, labels in ((21, [1, 2, 3, 2]), (6, [1, 2, 2, 3, 1]), (3, [1, 2, 3])):
        x = lf.log_softmax(rng.standard_normal((T, 1, C)))
        want, gradient = value_and_grad(x, [labels], T, len(labels))
        unused = np.abs(gradient) == 0
        unused[..., 4:] = False
        assert unused.sum() > 3
        alignment = lf.ctc_align(x, [labels], T, len(labels))
        x[unused] = size
        for found, best in zip(lf.ctc_align(x, [labels], T, len(labels)), alignment):
            np.testing.assert_allclose(found, best, rtol=1e-14)
        got, other = value_and_grad(x, [labels], T, len(labels))
        np.testing.assert_allclose(got, want, rtol=1e-14)
        np.testing.assert_allclose(other, gradient, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("C", [9, 100, 1000, 1100])
def test_value_beside_the_gradient_is_the_value(isa, rng, C, dtype):
    """Of many rows: exponentials that are kept and those that are not may differ by so little that few losses tell."""
    N = 4000
    x, one, label = (8 * rng.standard_normal((1, N, C))).astype(dtype), np.ones(N, int), np.ones((N, 1), int)
    alone = lf.ctc_loss(x, label, one, one, reduction="none", from_logits=True)
    assert value_and_grad(x, label, one, one, from_logits=True)[0].tobytes() == alone.tobytes()


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("size", [1e14, 1e17, 1e20, 1e37])
def test_huge_entries(isa, rng, size, from_logits):
    """Occupancies sum to 1 at every size, and pick the best alignment where that is clear."""
    for T, S in ((6, 3), (50, 20), (400, 200)):
        x = (rng.standard_normal((T, 2, 5)) * size).astype("f4")
        x[:, 1, :4] = -size
        targets = rng.integers(1, 4, (2, S))
        frames = max(T, S + (np.diff(targets) == 0).sum(1).max())
        x = np.concatenate([x] * 2)[:frames]
        posteriors = lf.ctc_posteriors(x, targets, frames, S, from_logits=from_logits)
        np.testing.assert_allclose(posteriors.sum(-1), 1, rtol=0, atol=1e-5)
        loss, gradient = value_and_grad(x, targets, frames, S, from_logits=from_logits)
        assert (np.isfinite(loss) | (size > 1e36)).all() and np.abs(gradient).max() <= 1
        np.testing.assert_allclose(gradient.sum(-1), 0 if from_logits else -1, rtol=0, atol=1e-5)
        path = lf.ctc_align(x[:, 0], targets[0], frames, S, from_logits=from_logits).labels
        assert from_logits or -gradient[np.arange(frames), 0, path].mean() > 0.99


def test_negative_losses_are_not_rounding():
    """Log-probabilities that are not normalised: their losses are below 0. For bfloat16 torch has -50.05 in double."""
    for T in (2, 1000):
        x = np.zeros((T, 1, 2))
        x[..., 0], x[..., 1] = -7, 0.05
        for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
            want, _, _ = reference(x.astype(dtype), [[1]], [T], [1])
            np.testing.assert_allclose(lf.ctc_loss(x.astype(dtype), [[1]], T, 1, reduction="none"), want, rtol=1e-6)
            assert want < 0
    sure = np.zeros((5, 1, 2), np.float32)
    sure[..., 0], sure[..., 1] = -100, 1e-7
    assert lf.ctc_loss(sure, [[1]], 5, 1, reduction="sum") == 0


@pytest.mark.parametrize("C", [3, 130])
def test_nan_in_an_alignment(isa, C):
    x = np.full((4, 2, C), NAN)
    x[:, 1] = -INF
    alignment = lf.ctc_align(x, [[1, 2], [1, 1]], 4, 2)
    assert np.isnan(alignment.score[0]) and np.isnan(alignment.scores[0]).all() and alignment.score[1] == -INF
    x[:] = np.log(1 / 3)
    x[2, 0, 2] = NAN
    assert np.isnan(lf.ctc_align(x, [[1, 2], [1, 1]], 4, 2).score).tolist() == [True, False]
    assert np.isnan(lf.ctc_align(x, [[1, 2], [1, 1]], 4, 2, from_logits=True).score).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gathered_labels_and_whole_rows_have_the_same_bits(isa, rng, dtype):
    """Few labels of 40 classes are gathered, in a batch with many labels rows are read whole."""
    x = rng.normal(size=(90, 2, 40)).astype(dtype)
    x[3, 0, 20:], x[50, 0, 1] = -INF, -800
    targets, frames, lengths = rng.integers(1, 20, (2, 80)), [85, 90], [7, 80]
    together = lf.value_and_grad(lf.ctc_loss)(x, targets, frames, lengths, reduction="none")
    alone = lf.value_and_grad(lf.ctc_loss)(x[:, :1], targets[:1], frames[:1], lengths[:1], reduction="none")
    np.testing.assert_array_equal(together[0][:1], alone[0])
    np.testing.assert_array_equal(together[1][:, :1], alone[1])
    np.testing.assert_array_equal(lf.ctc_loss(x, targets, frames, lengths, reduction="none"), together[0])
    np.testing.assert_array_equal(lf.ctc_loss(x[:, :1], targets[:1], frames[:1], lengths[:1], reduction="none"), alone[0])


def test_lengths_that_differ():
    with pytest.raises(ValueError, match=r"^target_lengths: expected one length for each sample, shape \(3,\), got shape \(2,\)"):
        lf.ctc_feasible([[1, 2, 3]] * 3, [3, 3, 3], [1, 2])
    with pytest.raises(ValueError, match=r"^target_lengths: expected one length for each sample"):
        lf.ctc_feasible([[1, 2, 3]] * 3, 3, [[1, 2]])
    assert lf.ctc_feasible([[1, 1]] * 2, 2, [1, 2]).missing.tolist() == [0, 1]
    assert lf.ctc_feasible([[1, 1], [1, 2]], 2, 2).missing.tolist() == [1, 0]
    assert lf.ctc_feasible([1, 1], 2, 2).missing == 1


def test_nearly_certain_frames(isa):
    """A loss near 0 keeps its relative accuracy: torch gives 0."""
    x = np.full((2, 1, 3), -20, np.float32)
    x[0, 0, 1] = x[1, 0, 2] = 17
    loss = lf.ctc_loss(x, [[1, 2]], 2, 2, reduction="sum", from_logits=True)
    np.testing.assert_allclose(loss, 4 * np.exp(-37.0), rtol=1e-6)


# ---- arrays


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "batch first": lambda x: np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
    "classes first": lambda x: np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0),
    "reversed": lambda x: x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "strided": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "swapped": lambda x: x.astype(x.dtype.newbyteorder()) if x.dtype.name != "bfloat16" else x,
    "misaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("C", [6, 200])
def test_layouts(isa, rng, C, dtype, layout):
    x, targets, frames, lengths = ordinary(rng, 20, 3, C, 5)
    x = x.astype(dtype)
    want = value_and_grad(x, targets, frames, lengths, from_logits=True)
    view = LAYOUTS[layout](x)
    held = view.tobytes()
    got = value_and_grad(view, targets[:, ::-1].copy()[:, ::-1], frames, lengths, from_logits=True)
    assert want[1].dtype == dtype and want[0].dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert want[0].tobytes() == got[0].tobytes() and want[1].tobytes() == np.ascontiguousarray(got[1]).tobytes()
    room = LAYOUTS[layout](np.ones_like(x)) if layout not in ("swapped", "misaligned") else np.ones_like(x)
    _, gradient = value_and_grad(view, targets, frames, lengths, from_logits=True, grad_out=room)
    assert gradient is room and np.ascontiguousarray(room).tobytes() == want[1].tobytes() and view.tobytes() == held
    exact, precise = value_and_grad(x.astype(np.float64), targets, frames, lengths, from_logits=True)
    np.testing.assert_allclose(want[0], exact, rtol=1e-6)
    np.testing.assert_allclose(want[1].astype(float), precise, atol=float(ml_dtypes.finfo(dtype).eps))


@pytest.mark.parametrize("shape", [(300, 1, 40, 60), (301, 7, 20, 50), (60, 5, 700, 9), (500, 1, 9, 210)])
def test_threads(isa, rng, shape):
    """The same bits for any number of threads, of a single sample too."""
    x, targets, frames, lengths = ordinary(rng, *shape)
    frames[0] -= 5
    results = []
    for threads in (1, 2, 3, 5):
        with lf.num_threads(threads):
            made = *value_and_grad(x, targets, frames, lengths, from_logits=True), *lf.ctc_align(x, targets, frames, lengths, from_logits=True)
            results.append([a.tobytes() for a in (*made, lf.ctc_posteriors(x, targets, frames, lengths, from_logits=True))])
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("shape", [(61, 11, 700, 9), (60, 130, 9, 12)])
def test_shares_of_a_batch(isa, rng, shape):
    """However many threads share a ragged batch of log-probabilities, each sample has the bits it has alone."""
    x, targets, frames, lengths = ordinary(rng, *shape)
    frames, lengths = frames - rng.integers(0, 30, len(frames)), lengths - rng.integers(0, 5, len(lengths))
    frames[1] = 0
    want = lf.ctc_loss(x, targets, frames, lengths, reduction="none"), value_and_grad(x, targets, frames, lengths)
    for n in range(0, shape[1], 5):
        alone = value_and_grad(x[:, n : n + 1], targets[n : n + 1], frames[n : n + 1], lengths[n : n + 1])
        assert want[0][n] == want[1][0][n] == alone[0][0] and np.array_equal(want[1][1][:, n], alone[1][:, 0])
    for threads in (1, 2, 3, 5):
        with lf.num_threads(threads):
            assert lf.ctc_loss(x, targets, frames, lengths, reduction="none").tobytes() == want[0].tobytes()
            loss, gradient = value_and_grad(x, targets, frames, lengths)
        assert loss.tobytes() == want[0].tobytes() and gradient.tobytes() == want[1][1].tobytes()


def test_groups_of_samples(rng):
    """A batch too large for the emissions of all samples: the same bits as its parts."""
    x, targets, frames, lengths = ordinary(rng, 50, 1500, 128, 6)
    loss, gradient = value_and_grad(x, targets, frames, lengths, from_logits=True)
    for part in (slice(0, 900), slice(900, 1500)):
        some, g = value_and_grad(x[:, part], targets[part], frames[part], lengths[part], from_logits=True)
        assert some.tobytes() == loss[part].tobytes() and np.array_equal(g, gradient[:, part])
    flat = lf.ctc_align(x, targets.ravel(), frames, lengths, from_logits=True)
    assert flat.starts.tobytes() == lf.ctc_align(x, targets, frames, lengths, from_logits=True).starts.tobytes()


def test_long_form_in_bounded_memory(python):
    """(20000, 1, 32, 3000): at most 100 MB beside the arrays."""
    peak = python("""
import resource, numpy as np, lossfast as lf
rng = np.random.default_rng(0)
x, y = rng.standard_normal((20000, 1, 32), np.float32), rng.integers(1, 32, (1, 3000))
g = np.zeros_like(x)
run = lambda T, S: lf.value_and_grad(lf.ctc_loss)(x[:T], y[:, :S], T, S, from_logits=True, grad_out=g[:T])
run(100, 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(20000, 3000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
""")
    assert int(peak) < 100 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_working_memory_is_kept_for_a_while(python):
    """A large block stays for the next call, and goes when calls no longer need it; calls at once in several threads have each their own."""
    python("""
import threading, numpy as np, lossfast as lf
resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20
rng = np.random.default_rng(0)
x, y = rng.standard_normal((20000, 1, 32), np.float32), rng.integers(1, 32, (1, 3000))
g = [np.zeros_like(x) for _ in range(3)]
losses = []
run = lambda k: losses.append(lf.value_and_grad(lf.ctc_loss)(x, y, 20000, 3000, from_logits=True, grad_out=g[k])[0])
before = resident()
threads = [threading.Thread(target=lambda k=k: (run(k), run(k))) for k in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(set(losses)) == 1 and np.array_equal(g[0], g[1]) and np.array_equal(g[0], g[2])
assert resident() - before < 100
for _ in range(100): lf.ctc_loss(x[:9], y[:, :3], 9, 3)
assert resident() - before < 20
""")


def test_alignment_is_the_optimum(isa, rng):
    """The path's score is the maximum over all, in float64, also where float32 scores would lose it."""
    for T, C, S in ((60, 5, 20), (400, 32, 90), (300, 300, 50)):
        x, targets, frames, lengths = ordinary(rng, T, 2, C, S, np.float32, 1.0)
        frames[1] -= 7
        alignment = lf.ctc_align(x, targets, frames, lengths, from_logits=True)
        lp = x.astype(float) - np.logaddexp.reduce(x.astype(float), -1, keepdims=True)
        for n in range(2):
            ext, skip = states(targets[n], 0)
            best = np.where(np.arange(len(ext)) < 2, lp[0, n][ext], -INF)
            for t in range(1, frames[n]):
                moved = np.maximum(best, np.r_[-INF, best[:-1]])
                best = np.maximum(moved, np.where(skip, np.r_[-INF, -INF, best[:-2]], -INF)) + lp[t, n][ext]
            path = alignment.labels[n, : frames[n]]
            assert [c for c, _ in itertools.groupby(path) if c] == [c for c, _ in itertools.groupby(targets[n])] or np.any(np.diff(targets[n]) == 0)
            np.testing.assert_allclose(lp[np.arange(frames[n]), n, path].sum(), best[-2:].max(), rtol=1e-13)
            np.testing.assert_allclose(alignment.score[n], best[-2:].max(), rtol=1e-6)
            assert np.all(alignment.labels[n, frames[n] :] == -1)
            spans = alignment.spans()[n]
            assert [s.token for s in spans] == targets[n].tolist() and all(a.end <= b.start for a, b in itertools.pairwise(spans))
            for span in spans:
                assert np.all(path[span.start : span.end] == span.token)
                np.testing.assert_allclose(span.score, alignment.scores[n, span.start : span.end].mean(), rtol=1e-6)


def optimum(lp, labels):
    """The best score of an alignment, by float64 sums in frame order."""
    ext, skip = states(labels, 0)
    best = np.where(np.arange(len(ext)) < 2, lp[0, ext], -INF)
    for row in lp[1:, ext]:
        moved = np.maximum(best, np.r_[-INF, best[:-1]])
        best = np.maximum(moved, np.where(skip, np.r_[-INF, -INF, best[:-2]], -INF)) + row
    return best[-2:].max()


@pytest.mark.parametrize("C", [12, 200])
@pytest.mark.parametrize("kind", ["clear", "vague", "luring", "gap", "nan"])
def test_narrow_and_wide_alignments(rng, kind, C):
    """The optimum where a search near the best state finds it and where it does not; the same bits on every ISA and number of threads."""
    T, S = 643, 150
    x, targets, frames, lengths = ordinary(rng, T, 1, C, S, sd=1.0)
    ext, _ = states(targets[0], 0)
    x[np.arange(T), 0, ext[np.arange(T) * len(ext) // T]] += {"vague": 0, "luring": 9}.get(kind, 6)
    if kind == "luring":  # up to frame 300 three times as fast
        early = np.arange(300)
        x[early, 0, ext[early * 3 * len(ext) // T % len(ext)]] += 9.5
        x[early, 0, ext[early * len(ext) // T]] -= 9
    x[300:330] *= -1 if kind == "gap" else 1
    lp = (x - np.logaddexp.reduce(x, -1, keepdims=True)).astype(np.float32)
    lp[400, 0, targets[0, ::7]] = {"nan": NAN, "gap": -INF}.get(kind, -1)
    results = []
    for isa in _core.isas():
        before = _core.set_isa(isa)
        for threads in (1, 2):
            with lf.num_threads(threads):
                results.append([a.tobytes() for a in lf.ctc_align(lp, targets, frames, lengths)])
        alignment = lf.ctc_align(lp[:, 0], targets[0], T, S)
        if kind == "nan":
            assert np.isnan(alignment.score)
        else:
            score = lp[np.arange(T), 0, alignment.labels].astype(float).sum()
            np.testing.assert_allclose(score, optimum(lp[:, 0].astype(float), targets[0]), rtol=1e-13)
            assert alignment.score == np.float32(score) and np.array_equal(alignment.scores, lp[np.arange(T), 0, alignment.labels])
            assert [s.token for s in alignment.spans()] == targets[0].tolist()
        _core.set_isa(before)
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_layouts_of_alignments(isa, rng, dtype, layout):
    """Scores of an alignment are the very entries."""
    x, targets, frames, lengths = ordinary(rng, 300, 3, 21, 70)
    x = (x - np.logaddexp.reduce(x, -1, keepdims=True)).astype(dtype)
    want, got = lf.ctc_align(x, targets, frames, lengths), lf.ctc_align(LAYOUTS[layout](x), targets, frames, lengths)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(want, got, strict=True))
    assert np.array_equal(want.scores, np.take_along_axis(x.swapaxes(0, 1), want.labels[..., None], -1)[..., 0].astype(want.scores.dtype))


# ---- gradients' requests and outputs


def test_grad_output_and_outputs(rng):
    x, targets, frames, lengths = ordinary(rng, 15, 4, 6, 3)
    _, each = value_and_grad(x, targets, frames, lengths, from_logits=True)
    up = rng.standard_normal(4)
    _, scaled = value_and_grad(x, targets, frames, lengths, from_logits=True, grad_output=up)
    np.testing.assert_allclose(scaled, each * up[:, None], rtol=1e-6, atol=1e-7)
    _, mean = value_and_grad(x, targets, frames, lengths, from_logits=True, reduction="mean", grad_output=2.0)
    np.testing.assert_allclose(mean, each * 2 / 12, rtol=1e-6, atol=1e-8)
    out = np.empty(4, np.float32)
    assert lf.ctc_loss(x, targets, frames, lengths, reduction="none", from_logits=True, out=out) is out
    with pytest.raises(ValueError, match="out: only with"):
        lf.ctc_loss(x, targets, frames, lengths, out=out)
    with pytest.raises(ValueError, match="grad_out: overlaps log_probs"):
        value_and_grad(x, targets, frames, lengths, grad_out=x)
    with pytest.raises(ValueError, match="argnums"):
        lf.value_and_grad(lf.ctc_loss, argnums="targets")(x, targets, frames, lengths)
    with pytest.raises(TypeError, match="Hessian"):
        lf.value_grad_hess(lf.ctc_loss)(x, targets, frames, lengths)
    with pytest.raises(TypeError, match="no gradient"):
        lf.value_and_grad(lf.ctc_align)(x, targets, frames, lengths)
    _, gradient = lf.CTCLoss(reduction="sum", from_logits=True).value_and_grad(x, targets, frames, lengths)
    np.testing.assert_allclose(gradient, each, atol=1e-7)
    single, alone = lf.value_and_grad(lf.ctc_loss)(x[:, 0], targets[0], (15,), (3,), reduction="none", from_logits=True)
    assert single.shape == () and alone.tobytes() == each[:, 0].tobytes()


# ---- errors


X, Y = np.zeros((8, 3, 5), np.float32), np.array([[1, 2], [3, 4], [1, 1]])
ERRORS = [
    (dict(targets=[[1, 2], [3, 5], [1, 1]]), IndexError, "targets[1, 1] = 5 is out of range for 5 classes"),
    (dict(targets=[[1, 2], [3, 4], [-1, 1]]), IndexError, "targets[2, 0] = -1 is out of range for 5 classes"),
    (dict(targets=np.array([[1, 2], [3, 4], [2**64 - 1, 1]], np.uint64)), IndexError, "targets[2, 0] = 18446744073709551615 is out of range"),
    (dict(targets=[1, 2, 3, 9, 1, 1]), IndexError, "targets[3] = 9 (label 1 of sample 1) is out of range for 5 classes"),
    (dict(targets=[1, 2, 3, 4, 1]), ValueError, "targets: expected as many class indices as target_lengths sum up to, 6, got 5"),
    (dict(targets=[1, 2, 3, 4, 1, 1, 1]), ValueError, "targets: expected as many class indices as target_lengths sum up to, 6, got 7"),
    (dict(targets=Y[:2]), ValueError, "targets: expected class indices of shape (3, S)"),
    (dict(targets=Y[None]), ValueError, "targets: expected class indices of shape (3, S)"),
    (dict(targets=Y.astype(float)), TypeError, "targets: expected integers, got dtype float64"),
    (dict(targets=Y > 1), TypeError, "targets: expected integers, got dtype bool"),
    (dict(input_lengths=[8, 9, 8]), ValueError, "input_lengths[1] = 9 is out of range for 8 frames"),
    (dict(input_lengths=[8, 8, -1]), ValueError, "input_lengths[2] = -1 is out of range for 8 frames"),
    (dict(input_lengths=9), ValueError, "input_lengths = 9 is out of range for 8 frames"),
    (dict(input_lengths=[8, 8]), ValueError, "input_lengths: expected one length for each sample, shape (3,), got shape (2,)"),
    (dict(input_lengths=[8.0, 8, 8]), TypeError, "input_lengths: expected integers, got dtype float64"),
    (dict(target_lengths=[2, 3, 2]), ValueError, "target_lengths[1] = 3 is out of range for targets of shape (3, 2)"),
    (dict(target_lengths=np.array([2, -(2**63), 2])), ValueError, "target_lengths[1] = -9223372036854775808 is out of range"),
    (dict(blank=5), ValueError, "blank: 5 is out of range for 5 classes"),
    (dict(blank=-1), ValueError, "blank: -1 is out of range for 5 classes"),
    (dict(blank=0.0), TypeError, "blank: expected an integer, got 0.0"),
    (dict(log_probs=X[0, 0]), ValueError, "log_probs: expected shape (T, N, C), or (T, C) for one sample, got shape (5,)"),
    (dict(log_probs=X.astype(complex)), TypeError, "log_probs: expected a real array"),
    (dict(reduction="batchmean"), ValueError, "reduction: expected"),
]


@pytest.mark.parametrize("change, error, message", ERRORS, ids=[m[:40] for _, _, m in ERRORS])
def test_errors(change, error, message):
    arguments = dict(log_probs=X, targets=Y, input_lengths=8, target_lengths=2) | change
    with pytest.raises(error) as caught:
        lf.ctc_loss(**arguments)
    assert str(caught.value).startswith(message)


def test_class_checks_its_options():
    for options, error in (({"blank": -1}, ValueError), ({"reduction": "no"}, ValueError), ({"blank": 1.5}, TypeError)):
        with pytest.raises(error):
            lf.CTCLoss(**options)


def test_alignment_names_the_sample():
    with pytest.raises(ValueError, match=r"targets: sample 2 needs at least 3 frames \(2 labels, 1 repeats\), input_lengths\[2\] is 2"):
        lf.ctc_align(X, Y, [8, 8, 2], 2)


def test_hostile_ids_and_lengths(rng):
    """By the thousand, of every integer dtype: an error that names it, or a value; never anything outside the arrays."""
    functions = lf.ctc_loss, lf.value_and_grad(lf.ctc_loss), lf.ctc_align, lf.ctc_posteriors
    refused = 0
    wild = np.array([-(2**63), -(2**31), -1, 0, 1, 2, 3, 4, 5, 6, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**62, 2**63 - 1])
    for _ in range(3000):
        T, N, C, S = rng.integers(0, 8), rng.integers(0, 4), rng.integers(1, 6), rng.integers(0, 5)
        draw = lambda size: np.where(rng.random(size) < 0.1, rng.choice(wild, size), rng.integers(0, 5, size))  # noqa: E731
        targets = draw((N, S) if rng.random() < 0.6 else rng.integers(0, 12)).astype(rng.choice(["i1", "u1", "i2", "u4", "i8", "u8"]))
        frames, lengths = draw(N), draw(N).astype(rng.choice(["i1", "i4", "i8", "u8"]))
        try:
            functions[rng.integers(0, 4)](np.zeros((T, N, C)), targets, frames, lengths, int(rng.integers(-1, 5)))
        except (IndexError, ValueError):
            refused += 1
    assert 1000 < refused < 3000
