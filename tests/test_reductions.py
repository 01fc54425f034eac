"""Reductions: mean and sum against the per-element losses, their denominators, where=, out=, torch's legacy keywords, empty input."""

import math
import warnings

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
import reference
from calls import EVERY_CASE, EVERY_OPTION, LIVE, bits, call, close, draw, gradients, wanted

pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")
LOSSES = [p for p in EVERY_CASE if p.values[0].reductions]
LOSS_OPTIONS = [p for p in EVERY_OPTION if p.values[0].reductions]


@pytest.mark.parametrize("case, option", LOSS_OPTIONS)
def test_sum_is_the_exact_sum(isa, case, option):
    """To an ulp of float32: the terms are added in float64, whatever their number and sign."""
    for shape in [case.shapes[3], case.large]:
        args, keywords = draw(case, option, shape, "float32")
        terms = call(case, args, keywords | {"reduction": "none"})
        exact = math.fsum(terms.astype(float).ravel())
        total = call(case, args, keywords | {"reduction": "sum"})
        scale = math.fsum(np.abs(terms.astype(float)).ravel())
        # rounding of each term to float32 in 'none' is not in the sum: half an ulp of each
        assert abs(float(total) - exact) <= np.spacing(np.float32(abs(exact))) + scale * 2.0**-24


@pytest.mark.parametrize("case", LOSSES)
def test_where_leaves_out(isa, case, rng):
    """Masked-out elements add nothing to sum, mean or denominator, whatever they hold, and get zero gradient."""
    for option in range(len(case.options)):
        for shape in case.shapes[3:5]:
            args, keywords = draw(case, option, shape, "float64")
            where = rng.random(case.loss_shape(shape)) < 0.6
            for reduction in ("none", "mean", "sum"):
                options = keywords | {"reduction": reduction}
                want = getattr(reference, case.function)(*args, **options, where=where)
                got = call(case, args, options | {"where": where})
                close(got, want, "float64", 10, (shape, reduction, option))


def by_position(case, mask):
    """A mask over losses as one over the elements of the first argument."""
    return {"class": lambda: np.expand_dims(mask, 1), "elementwise": lambda: mask}.get(case.kind, lambda: mask[..., None])()


@pytest.mark.parametrize("case", LOSSES)
def test_where_gradient_is_zero_whatever_is_there(case, isa, rng):
    shape = case.shapes[3]
    for option in range(len(case.options)):
        args, keywords = draw(case, option, shape, "float64")
        where = rng.random(case.loss_shape(shape)) < 0.6
        first = list(case.arrays)[:1]
        value, grads = gradients(case, args, keywords, first, where=where)
        hole = np.broadcast_to(~by_position(case, where), args[0].shape)
        assert not grads[first[0]][hole].any() and grads[first[0]].any()
        spoiled = np.where(hole, np.nan, args[0])
        again, others = gradients(case, (spoiled, *args[1:]), keywords, first, where=where)
        assert bits(again) == bits(value) and bits(others[first[0]]) == bits(grads[first[0]])


@pytest.mark.parametrize("case", LOSSES)
def test_where_broadcasts(case):
    shape = case.shapes[3]
    args, _keywords = draw(case, 0, shape, "float64")
    for where in (True, False, np.bool_(True)):
        full = np.full(case.loss_shape(shape), where)
        for reduction in ("none", "mean", "sum"):
            options = {"reduction": reduction}
            assert bits(call(case, args, options | {"where": where})) == bits(call(case, args, options | {"where": full}))
    assert math.isnan(call(case, args, {"where": False, "reduction": "mean"})) and call(case, args, {"where": False, "reduction": "sum"}) == 0
    value, gradient = lf.value_and_grad(getattr(F, case.function))(*args, where=False, reduction="mean")
    assert math.isnan(value) and not gradient.any()


@pytest.mark.parametrize("case", LOSSES)
def test_out(isa, case):
    """Written and returned, for reduction 'none'."""
    for shape in case.shapes[1:]:
        for dtype in ("float32", "float64"):
            args, _keywords = draw(case, 0, shape, dtype)
            want = call(case, args, {"reduction": "none"})
            out = np.full_like(want, 7)
            assert call(case, args, {"reduction": "none", "out": out}) is out
            assert bits(out) == bits(want)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_out_of_the_softmax_family(isa, name, rng):
    for shape, axis in [((65, 10), -1), ((65, 10), 0), ((3, 1025), -1), ((4, 3, 5), 1)]:
        x = rng.normal(size=shape).astype(np.float32)
        want = getattr(F, name)(x, axis=axis)
        out = np.full_like(want, 7)
        assert getattr(F, name)(x, axis=axis, out=out) is out and bits(out) == bits(want)


# ---- empty ----------------------------------------------------------------------------------------------------------

EMPTY = {"elementwise": [(0,), (3, 0), (0, 4)], "class": [(0, 3), (0, 3, 4), (2, 3, 0), (0, 1)], "row": [(0, 3), (0, 0)], "linear": [(0, 3, 2)]}


@pytest.mark.parametrize("case, option", LOSS_OPTIONS)
def test_empty_input(isa, case, option):
    """mean NaN, sum 0, none empty, gradients empty or zero."""
    for shape in EMPTY[case.kind]:
        args, keywords = draw(case, option, shape, "float32")
        assert math.isnan(call(case, args, keywords | {"reduction": "mean"})), shape
        assert call(case, args, keywords | {"reduction": "sum"}) == 0
        assert call(case, args, keywords | {"reduction": "none"}).shape == case.loss_shape(shape)
        for reduction in ("none", "mean", "sum"):
            _, grads = gradients(case, args, keywords | {"reduction": reduction}, wanted(case, option, shape))
            made = dict(zip(case.arrays, args)) | keywords
            for name, gradient in grads.items():
                assert gradient.shape == made[name].shape and not gradient.any()


# ---- the class losses' mean -----------------------------------------------------------------------------------------

CLASS = [p for p in LOSSES if p.values[0].function in ("cross_entropy", "nll_loss")]


@pytest.mark.parametrize("case", CLASS)
def test_all_ignored(isa, case):
    for shape in [(5,), (3, 4), (200, 3), (2, 100), (2, 3, 4)]:
        x, y = draw(case, 0, shape, "float32")[0]
        y = np.full(y.shape, -100)
        for options in ({}, {"weight": np.ones(shape[min(1, len(shape) - 1)], np.float32)}):
            value, gradient = lf.value_and_grad(getattr(F, case.function))(x, y, **options)
            assert math.isnan(value) and gradient.dtype == np.float32 and not gradient.any()
            assert call(case, (x, y), options | {"reduction": "sum"}) == 0
            none = call(case, (x, y), options | {"reduction": "none"})
            assert not np.any(none) and np.shape(none) == y.shape


@pytest.mark.parametrize("case", CLASS)
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2, 255, 2**31, -(2**40)])
def test_ignore_index(case, ignore_index, rng):
    x = rng.normal(size=(40, 3)).astype(np.float32)
    y = rng.integers(0, 3, 40)
    marked = np.where(rng.random(40) < 0.4, ignore_index, y)
    kept = marked != ignore_index
    for reduction in ("mean", "sum"):
        got = call(case, (x, marked), {"ignore_index": ignore_index, "reduction": reduction})
        np.testing.assert_allclose(got, call(case, (x[kept], marked[kept]), {"reduction": reduction}), rtol=1e-6)
    _, gradient = lf.value_and_grad(getattr(F, case.function))(x, marked, ignore_index=ignore_index)
    assert not gradient[~kept].any() and gradient[kept].any()


def test_uint8_labels_and_ignore_index():
    """-100 never matches a uint8 label (156 is 156); 255 does."""
    x = np.zeros((3, 4), np.float32)
    assert F.cross_entropy(x, np.array([1, 255, 255], np.uint8), ignore_index=255) == np.float32(np.log(4))
    with pytest.raises(IndexError):
        F.cross_entropy(x, np.array([1, 156, 1], np.uint8))


@pytest.mark.parametrize("case", CLASS)
def test_weighted_mean_divides_by_the_weights_of_the_targets(case, rng):
    x, y, w = rng.normal(size=(50, 4)), rng.integers(0, 4, 50), rng.uniform(0.1, 2, 4)
    none = call(case, (x, y, w), {"reduction": "none"})
    np.testing.assert_allclose(call(case, (x, y, w), {}), none.sum() / w[y].sum(), rtol=1e-14)


def test_probability_targets_divide_by_the_positions(rng):
    x, w = rng.normal(size=(5, 4, 3)), rng.uniform(0.1, 2, 4)
    p = rng.dirichlet(np.ones(4), (5, 3)).transpose(0, 2, 1)
    none = F.cross_entropy(x, p, w, reduction="none", label_smoothing=0.1)
    assert none.shape == (5, 3)
    np.testing.assert_allclose(F.cross_entropy(x, p, w, label_smoothing=0.1), none.mean(), rtol=1e-14)


def test_onehot_probabilities_are_indices(isa, rng):
    x, y = rng.normal(size=(30, 7)).astype(np.float32), rng.integers(0, 7, 30)
    hot = np.eye(7, dtype=np.float32)[y]
    for options in ({}, {"label_smoothing": 0.2}):
        a, ga = lf.value_and_grad(F.cross_entropy)(x, y, **options)
        b, gb = lf.value_and_grad(F.cross_entropy)(x, hot, **options)
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(ga, gb, atol=1e-8)


def test_a_target_of_the_inputs_shape_is_probabilities_by_shape_not_dtype(rng):
    """(C,) with float (C,): probabilities; (N, C) likewise; labels never have the input's shape."""
    x = rng.normal(size=4)
    np.testing.assert_allclose(F.cross_entropy(x, np.eye(4)[2]), F.cross_entropy(x, 2), rtol=1e-14)


WEIGHTED = [  # (function, what a weighted mean divides by)
    ("mse_loss", "weight"), ("l1_loss", "weight"), ("huber_loss", "size"), ("binary_cross_entropy", "size"),
    ("binary_cross_entropy_with_logits", "size"),
]  # fmt: skip


@pytest.mark.parametrize("function, by", [w for w in WEIGHTED if hasattr(F, w[0])])
def test_weighted_mean_of_elementwise_losses(function, by, rng):
    x, t, w = rng.uniform(0.1, 0.9, (3, 8, 5))
    none = getattr(F, function)(x, t, weight=w, reduction="none")
    count = w.sum() if by == "weight" else w.size
    np.testing.assert_allclose(getattr(F, function)(x, t, weight=w), none.sum() / count, rtol=1e-14)
    np.testing.assert_allclose(none, w * getattr(F, function)(x, t, reduction="none"), rtol=1e-14)
    zero = getattr(F, function)(x, t, weight=np.zeros_like(w))
    assert math.isnan(zero) if by == "weight" else zero == 0


@pytest.mark.skipif(not hasattr(F, "kl_div"), reason="kl_div has not landed")
def test_batchmean(rng):
    x, t = np.log(rng.uniform(0.1, 0.9, (4, 5, 2))), rng.uniform(0.1, 0.9, (4, 5, 2))
    np.testing.assert_allclose(F.kl_div(x, t, reduction="batchmean"), F.kl_div(x, t, reduction="sum") / 4, rtol=1e-15)
    np.testing.assert_allclose(F.kl_div(x[0, 0, 0], t[0, 0, 0], reduction="batchmean"), F.kl_div(x[0, 0, 0], t[0, 0, 0], reduction="sum"), rtol=1e-15)


# ---- legacy keywords ------------------------------------------------------------------------------------------------

LEGACY = [  # size_average, reduce -> reduction
    (True, True, "mean"), (True, None, "mean"), (None, True, "mean"), (False, True, "sum"), (False, None, "sum"),
    (True, False, "none"), (False, False, "none"), (None, False, "none"),
]  # fmt: skip
HAVE_THEM = [  # torch's newer functions do not
    "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "l1_loss", "mse_loss", "smooth_l1_loss",
    "poisson_nll_loss", "soft_margin_loss", "multilabel_soft_margin_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "cosine_embedding_loss", "triplet_margin_loss",
]  # fmt: skip


@pytest.mark.parametrize("size_average, reduce, reduction", LEGACY)
@pytest.mark.parametrize("case", [p for p in LOSSES if p.values[0].function in HAVE_THEM])
def test_size_average_and_reduce(case, size_average, reduce, reduction):
    args, _ = draw(case, 0, case.shapes[3], "float32")
    legacy = {k: v for k, v in (("size_average", size_average), ("reduce", reduce)) if v is not None}
    with pytest.warns(DeprecationWarning, match=f"reduction='{reduction}'"):
        got = call(case, args, legacy | {"reduction": "sum"})  # they override it, as torch's do
    assert bits(got) == bits(call(case, args, {"reduction": reduction}))
    with pytest.warns(DeprecationWarning):
        loss = getattr(lf, case.cls)(**legacy)
    assert loss.reduction == reduction
    assert bits(loss(*args)) == bits(got)


@pytest.mark.parametrize("case", LOSSES)
def test_nothing_warns_without_reason(case):
    args, _ = draw(case, 0, case.shapes[3], "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(case, args, {"reduction": "sum"})
        call(case, args, {"reduction": "none"})


def test_every_live_loss_is_reduced_here():
    assert {c.function for c in LIVE if c.reductions} == {p.values[0].function for p in LOSSES}
