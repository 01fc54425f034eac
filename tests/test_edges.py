"""Edges: the points of the table of cases, and special rows of every length, beside ordinary ones; where lossfast is not torch."""

import math

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
import reference
from calls import DTYPES, LIVE, bits, call, close

INF, NAN = np.inf, np.nan
FLT_MAX = float(np.finfo(np.float32).max)
EDGES = [pytest.param(case, edge, id=f"{case.function}-{edge.why}") for case in LIVE for edge in case.edges]


def array(value, dtype):
    value = np.asarray(value)
    return value.astype(dtype) if value.dtype.kind == "f" else value


def same(got, want, dtype, exact):
    with np.errstate(over="ignore"):
        want = np.asarray(want, float).astype(dtype)
    np.testing.assert_allclose(got, want, rtol=0 if exact else {np.float32: 1e-6, np.float64: 1e-12}[dtype], atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case, edge", EDGES)
def test_edge(isa, case, edge, dtype):
    arrays = [array(a, dtype) for a in edge.arrays]
    keywords = {k: array(v, dtype) if isinstance(v, np.ndarray) else v for k, v in (edge.options or {}).items()}
    keywords |= {"reduction": "none"} if case.reductions else {}
    same(call(case, arrays, keywords), edge.value, dtype, edge.exact)
    value, gradient = lf.value_and_grad(getattr(F, case.function))(*arrays, **keywords)
    same(value, edge.value, dtype, edge.exact)
    if edge.gradient is not None:
        same(gradient, edge.gradient, dtype, edge.exact)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in LIVE if c.kind == "elementwise" and c.edges])
def test_elementwise_edges_anywhere_in_a_run(isa, case):
    """The edge points hold at every place of a vector, and disturb none of their neighbours."""
    for edge in case.edges:
        points = [array(a, np.float32) for a in edge.arrays]
        keywords = (edge.options or {}) | ({"reduction": "none"} if case.reductions else {})
        calm, _ = case.draw(np.random.default_rng(1), (100,), np.float32)
        if edge.options and "log_target" in edge.options:
            calm = (calm[0], np.log(calm[1]))
        if edge.options and edge.options.get("log_input") is False:
            calm = (np.abs(calm[0]), calm[1])
        want = call(case, calm, keywords)
        n = len(points[0])
        for place in (0, 1, 15, 31, 40, 100 - n):
            spoiled = [c.copy() for c in calm]
            for c, p in zip(spoiled, points):
                c[place : place + n] = p
            got = call(case, spoiled, keywords)
            same(got[place : place + n], edge.value, np.float32, edge.exact)
            assert bits(np.delete(got, range(place, place + n))) == bits(np.delete(want, range(place, place + n)))


# ---- special rows ---------------------------------------------------------------------------------------------------

LENGTHS = [2, 3, 10, 63, 64, 65, 127, 128, 1000, 1025, 4100]


def row(c, rng, **at):
    x = rng.normal(size=c)
    for name, value in at.items():
        x[{"first": 0, "middle": c // 2, "last": c - 1}[name]] = value
    return x


SPECIAL = [  # what, row, logsumexp, softmax
    ("all -inf", lambda c, rng: np.full(c, -INF), -INF, NAN),
    ("all lowest", lambda c, rng: np.full(c, -FLT_MAX), lambda c: -FLT_MAX, lambda c: 1 / c),
    ("all highest", lambda c, rng: np.full(c, FLT_MAX), lambda c: FLT_MAX, lambda c: 1 / c),
    ("all 1e30", lambda c, rng: np.full(c, 1e30), lambda c: 1e30, lambda c: 1 / c),
    ("all -1e4", lambda c, rng: np.full(c, -1e4), lambda c: -1e4 + math.log(c), lambda c: 1 / c),
    ("nan first", lambda c, rng: row(c, rng, first=NAN), NAN, NAN),
    ("nan in the middle", lambda c, rng: row(c, rng, middle=NAN), NAN, NAN),
    ("nan last", lambda c, rng: row(c, rng, last=NAN), NAN, NAN),
    ("nan among -inf", lambda c, rng: np.where(np.arange(c) == c - 1, NAN, -INF), NAN, NAN),
    ("nan and inf", lambda c, rng: row(c, rng, first=INF, last=NAN), NAN, NAN),
    ("inf first", lambda c, rng: row(c, rng, first=INF), INF, lambda c: np.eye(c)[0]),
    ("inf last", lambda c, rng: row(c, rng, last=INF), INF, lambda c: np.eye(c)[-1]),
    ("inf among -inf", lambda c, rng: np.where(np.arange(c) == c - 1, INF, -INF), INF, lambda c: np.eye(c)[-1]),
    ("all inf", lambda c, rng: np.full(c, INF), INF, NAN),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", LENGTHS)
def test_special_rows_beside_ordinary_ones(isa, c, dtype, rng):
    """In one batch, in any order, along either axis."""
    rows = [make(c, rng) for _, make, _, _ in SPECIAL]
    ordinary = rng.normal(size=(len(rows), c))
    x = np.stack([ordinary, np.array(rows)], axis=1).reshape(-1, c).astype(dtype)
    lse, p = F.logsumexp(x), F.softmax(x)
    assert bits(F.logsumexp(x.T.copy(), axis=0)) == bits(lse) and bits(F.softmax(x.T.copy(), axis=0).T) == bits(p)
    close(lse[::2], reference.logsumexp(x[::2]), dtype.__name__)
    close(p[::2], reference.softmax(x[::2]), dtype.__name__)
    for i, (what, _, value, probability) in enumerate(SPECIAL):
        value = value(c) if callable(value) else value
        np.testing.assert_allclose(lse[2 * i + 1], dtype(value), rtol=1e-6, err_msg=what)
        probability = probability(c) if callable(probability) else probability
        np.testing.assert_allclose(p[2 * i + 1], np.broadcast_to(probability, c), rtol=1e-6, err_msg=what)


@pytest.mark.parametrize("c", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_logsumexp_gradient_of_rows_without_finite_elements(isa, c, dtype):
    """-inf throughout is a constant, whose gradient is 0; a NaN among them makes it NaN, as it does the value, whatever the layout."""
    x = np.full((40, c), -INF)
    x[1::4], x[2::4, -1], x[3::4] = np.arange(c) % 7, NAN, NAN
    x = x.astype(DTYPES[dtype])
    for order, axis in (("C", 1), ("F", 1), ("C", 0)):
        value, g = lf.value_and_grad(F.logsumexp)(np.array(x if axis else x.T, order=order), axis=axis)
        assert bits(value) == bits(F.logsumexp(x))
        g = (g if axis else g.T).astype(np.float64)
        assert (g[::4] == 0).all() and np.isfinite(g[1::4]).all() and np.isnan(g[2::4]).all() and np.isnan(g[3::4]).all()


@pytest.mark.parametrize("c", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certainty_is_one(isa, c, dtype):
    """Of softmax, where the others' probabilities are lost beside it, whatever the logit."""
    x = np.full((200, c), -40, dtype) + np.linspace(-5, 5, 200, dtype=dtype)[:, None]
    x[:, c // 2] += dtype(90)
    assert (F.softmax(x)[:, c // 2] == 1).all() and (F.softmax(x.T.copy(), axis=0)[c // 2] == 1).all()
    F.softmax(x, out=x)
    assert (x[:, c // 2] == 1).all()


@pytest.mark.parametrize("c", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_classes_change_nothing(isa, c, dtype, rng):
    """-inf and -FLT_MAX logits, anywhere, have probability and gradient 0 and leave the loss that of the others."""
    kept = np.sort(rng.choice(c, max(1, c // 2), replace=False))
    x = rng.normal(size=(20, len(kept))).astype(dtype)
    y = rng.integers(0, len(kept), 20)
    want, want_gradient = lf.value_and_grad(F.cross_entropy)(x, y, reduction="none")
    for low in (-INF, -FLT_MAX, -1e30):
        full = np.full((20, c), low, dtype)
        full[:, kept] = x
        got, gradient = lf.value_and_grad(F.cross_entropy)(full, kept[y], reduction="none")
        close(got, want, dtype.__name__)
        close(gradient[:, kept], want_gradient, dtype.__name__)
        assert not np.delete(gradient, kept, axis=1).any()
        assert not np.delete(F.softmax(full), kept, axis=1).any()
        assert (np.delete(F.log_softmax(full), kept, axis=1) <= low / 2).all() or len(kept) == c


@pytest.mark.parametrize("c", LENGTHS)
def test_plus_infinite_logit(isa, c, rng):
    """The limit: certainty where the infinity is the target, infinite loss elsewhere, and no answer for two of them."""
    for k in (0, c // 2, c - 1):
        x = rng.normal(size=(3, c)).astype(np.float32)
        x[:, k] = INF
        x[2, (k + 1) % c] = INF
        loss, gradient = lf.value_and_grad(F.cross_entropy)(x, np.array([k, (k + 1) % c, k]), reduction="none")
        assert loss[0] == 0 and loss[1] == INF and math.isnan(loss[2])
        one = np.eye(c)
        assert (gradient[0] == 0).all() and (gradient[1] == one[k] - one[(k + 1) % c]).all() and np.isnan(gradient[2]).all()
        assert (F.softmax(x)[0] == one[k]).all() and (np.exp(F.log_softmax(x)[0]) == one[k]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_logits_of_every_magnitude(isa, dtype, rng):
    """From subnormal to the largest finite number: finite losses and gradients (or inf where the loss exceeds the range)."""
    info = np.finfo(dtype)
    powers = 2.0 ** np.linspace(np.log2(float(info.smallest_subnormal)), info.maxexp - 1, 60)
    for c in (2, 10, 65, 1000):
        x = (rng.uniform(-1, 1, (60, c)) * powers[:, None]).astype(dtype)
        y = rng.integers(0, c, 60)
        for labels in (y, x.argmax(1)):
            got, gradient = lf.value_and_grad(F.cross_entropy)(x, labels, reduction="none")
            wide = result_type(dtype)
            with np.errstate(over="ignore"):
                want = reference.cross_entropy(x, labels, reduction="none").astype(wide)
            np.testing.assert_allclose(got, want, rtol=2e-6 if wide == np.float32 else 1e-13)
            assert np.isfinite(gradient).all() and (np.abs(gradient) <= 1).all()


def result_type(dtype):
    return np.float64 if dtype == np.float64 else np.float32


# ---- shapes ---------------------------------------------------------------------------------------------------------


def test_no_classes():
    x = np.zeros((2, 0), np.float32)
    for function in (F.cross_entropy, F.nll_loss):
        with pytest.raises(IndexError, match=r"target\[0\] = 0 is out of range for 0 classes"):
            function(x, np.zeros(2, int))
        assert function(x, np.full(2, -100), reduction="sum") == 0
        assert math.isnan(function(np.zeros((0, 0)), np.zeros(0, int)))
    assert F.cross_entropy(x, np.zeros((2, 0), np.float32), reduction="sum") == 0
    assert (F.logsumexp(x) == -INF).all() and F.softmax(x).shape == F.log_softmax(x).shape == (2, 0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_no_rows(name):
    x = np.zeros((0, 3), np.float32)
    got, gradient = lf.value_and_grad(getattr(F, name))(x)
    assert got.shape == ((0,) if name == "logsumexp" else (0, 3)) and gradient.shape == (0, 3)
    assert (getattr(F, name)(x, axis=0) == -INF).all()


def test_zero_dimensions():
    for name in ("sigmoid", "logsigmoid", "softplus"):
        value, gradient = lf.value_and_grad(getattr(F, name))(np.float32(0.5))
        assert isinstance(value, np.float32) and gradient.shape == () and gradient.dtype == np.float32
    assert F.logsumexp(3.0, axis=None) == 3
    for name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"):
        if hasattr(F, name):
            value, gradient = lf.value_and_grad(getattr(F, name))(np.float32(2), np.float32(1))
            assert value == getattr(reference, name)(2, 1) and gradient.shape == ()


@pytest.mark.parametrize("c", [1, 2, 10, 64, 65, 1000])
def test_one_position_is_any_position(isa, c, rng):
    x = rng.normal(size=c).astype(np.float32)
    alone, gradient = lf.value_and_grad(F.cross_entropy)(x, c // 2)
    batched, batched_gradient = lf.value_and_grad(F.cross_entropy)(x[None], [c // 2])
    assert bits(alone) == bits(batched) and bits(gradient) == bits(batched_gradient[0])


# ---- beyond 2^31, without the memory --------------------------------------------------------------------------------


def test_more_than_two_to_the_31_elements():
    n = 2**31 + 5
    x = np.broadcast_to(np.float32(0.5), (n,))
    assert F.logsumexp(x) == np.float32(0.5 + math.log(n))
    if hasattr(F, "mse_loss"):
        assert F.mse_loss(np.broadcast_to(np.float16(3), (n,)), np.broadcast_to(np.float16(1), (n,))) == 4


def test_class_index_beyond_two_to_the_31():
    n = 2**31 + 5
    x = np.broadcast_to(np.float32(-3), (1, n))
    assert F.nll_loss(x, np.array([n - 1])) == 3
    with pytest.raises(IndexError, match=rf"target\[0\] = {n} is out of range for {n} classes"):
        F.nll_loss(x, np.array([n]))


# ---- gradients by other arguments at edges --------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(F, "kl_div"), reason="kl_div has not landed")
def test_kl_div_by_the_target_at_the_ends(isa):
    """t = 0: log 0 + 1 - x is -inf, the one-sided derivative; log target -inf: exp(t) (t - x + 1) is 0, the limit."""
    _, g = lf.value_and_grad(F.kl_div, argnums="target")(np.array([-1.0]), np.array([-INF]), log_target=True, reduction="sum")
    assert g[0] == 0
    _, g = lf.value_and_grad(F.kl_div, argnums="target")(np.array([-1.0]), np.array([0.0]), reduction="sum")
    assert g[0] == -INF or g[0] == 0  # not NaN


@pytest.mark.skipif(not hasattr(F, "gaussian_nll_loss"), reason="gaussian_nll_loss has not landed")
def test_gaussian_variance_below_eps(isa):
    """torch clamps the variance and passes the gradient at the clamped value on."""
    _, g = lf.value_and_grad(F.gaussian_nll_loss, argnums="var")(np.array([1.0]), np.array([0.0]), np.array([1e-9]))
    np.testing.assert_allclose(g, 0.5 * (1e6 - 1e12), rtol=1e-12)


@pytest.mark.skipif(not hasattr(F, "gaussian_nll_loss"), reason="gaussian_nll_loss has not landed")
@pytest.mark.parametrize("shape", [(3, 4), (4, 4), (2, 3, 4)])
def test_gaussian_variance_per_row(shape, rng):
    """torch takes a variance of input.shape[:-1] as one per row; any other that broadcasts is broadcast."""
    x, t = rng.normal(size=(2, *shape))
    var = rng.uniform(0.5, 2, shape[:-1])
    assert bits(F.gaussian_nll_loss(x, t, var)) == bits(F.gaussian_nll_loss(x, t, var[..., None]))
    for var in (2.0, np.array(2.0), rng.uniform(0.5, 2, (1,) * len(shape)), rng.uniform(0.5, 2, (*shape[:-1], 1))):
        assert bits(F.gaussian_nll_loss(x, t, var)) == bits(F.gaussian_nll_loss(x, t, np.broadcast_to(var, shape)))


@pytest.mark.skipif(not hasattr(F, "binary_cross_entropy"), reason="binary_cross_entropy has not landed")
def test_bce_gradient_near_the_ends(isa):
    """torch's (x - y) / max(x (1 - x), 1e-12) inside; finite at the ends."""
    x = np.array([1e-3, 1e-5, 0.5, 1 - 1e-5])
    y = np.array([1.0, 0.0, 0.25, 1.0])
    _, g = lf.value_and_grad(F.binary_cross_entropy)(x, y, reduction="sum")
    np.testing.assert_allclose(g, (x - y) / (x * (1 - x)), rtol=1e-9)
    _, g = lf.value_and_grad(F.binary_cross_entropy)(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0]), reduction="sum")
    assert np.isfinite(g).all()


@pytest.mark.skipif(not hasattr(F, "binary_cross_entropy_with_logits"), reason="not landed")
def test_bce_with_logits_pos_weight_at_infinity(isa):
    got = F.binary_cross_entropy_with_logits(np.array([INF, -INF]), np.array([1.0, 1.0]), pos_weight=np.array(2.0), reduction="none")
    assert got.tolist() == [0, INF]


@pytest.mark.parametrize("p", [1.5, 3.0, 20.0])
@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_triplets_whose_powers_overflow(isa, p, size, rng):
    """A p-norm scales with its vector, and its gradient does not, though the powers of the differences may be no numbers."""
    for c in (3, 70):
        a, b, n = rng.normal(size=(3, 5, c))
        options = {"p": p, "eps": 0.0, "reduction": "none", "swap": True}
        want, grads = lf.value_and_grad(F.triplet_margin_loss, argnums=(0, 1, 2))(a, b, n, margin=10.0, **options)
        got, scaled = lf.value_and_grad(F.triplet_margin_loss, argnums=(0, 1, 2))(a * size, b * size, n * size, margin=10 * size, **options)
        np.testing.assert_allclose(got / size, want, rtol=1e-12)
        for g, w in zip(scaled, grads):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-12)


def test_gamma_nll_where_the_exponential_alone_is_no_number(isa):
    """target exp(-input) is a number for exp(90), and for a subnormal target; the limits where the input is infinite."""
    x = np.array([-90, -150, -100, -88.5, 120, 0.5], np.float32)
    t = np.array([1e-3, 1e-35, 1e-40, 0.9, 1e30, 1e-45], np.float32)
    value, gradient = lf.value_and_grad(F.gamma_nll_loss)(x, t, reduction="sum")
    want = reference.gamma_nll_loss(x, t, reduction="none")
    np.testing.assert_allclose(F.gamma_nll_loss(x, t, reduction="none"), want.astype(np.float32), rtol=2.5e-7)
    np.testing.assert_allclose(gradient, 1 - (want - x), rtol=1e-6)
    np.testing.assert_allclose(value, float(want.sum()), rtol=3e-7)
    x, t = np.array([-np.inf, -np.inf, -200, np.inf, -300, np.nan], np.float32), np.array([0, 1e-45, 0, 1, 1, 0], np.float32)
    np.testing.assert_array_equal(F.gamma_nll_loss(x, t, reduction="none"), np.float32([-np.inf, np.inf, -200, np.inf, np.inf, np.nan]))


@pytest.mark.parametrize("n", [7, 32, 5000])
def test_bce_takes_minus_zero_and_nan(isa, n):
    """Neither is out of the domain, though the quick look for what is finds them."""
    x, y = np.linspace(0, 1, n, dtype=np.float32), np.linspace(1, 0, n, dtype=np.float32)
    want, gradient = lf.value_and_grad(F.binary_cross_entropy)(x, y)
    x[0] = y[-1] = -0.0
    got, other = lf.value_and_grad(F.binary_cross_entropy)(x, y)
    assert bits(got) == bits(want) and bits(other[1:-1]) == bits(gradient[1:-1])
    x[n // 2] = NAN
    assert math.isnan(F.binary_cross_entropy(x, y))
    x[-1] = -1e-45
    with pytest.raises(ValueError, match=rf"input\[{n - 1}\]"):
        F.binary_cross_entropy(x, y)


@pytest.mark.parametrize("n", [3, 64, 100_000])
def test_mean_of_the_largest_terms(isa, n):
    """Terms are added in pairs, in float32; the pairs do not overflow."""
    x = np.full(n, 1.8e19, np.float32)
    want = np.float32(float(x[0]) ** 2)
    assert abs(F.mse_loss(x, np.zeros_like(x)) - want) <= np.spacing(want) and F.mse_loss(x, np.zeros_like(x), reduction="sum") == INF


@pytest.mark.parametrize("c", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_further_apart_than_their_type_reaches(isa, c, dtype, rng):
    """Along either axis, the last of them a class without mass; the labels' gradients are not disturbed."""
    top = float(np.finfo(dtype).max) * 0.9
    x = np.full((40, c), -top)
    x[:, 0] = top
    p = np.where(rng.random((40, c)) < 0.3, 0.1 / c, 0)
    p[:, 0] = 1 - p[:, 1:].sum(1)
    for target, kind, options in ((p.astype(dtype), p, {}), (np.zeros(40, int), np.eye(c)[[0] * 40], {"label_smoothing": 0.1})):
        smoothing = options.get("label_smoothing", 0)
        share = (kind * (1 - smoothing) + smoothing / c)[:, 1:].sum(1)
        got, gradient = lf.value_and_grad(F.cross_entropy)(x.astype(dtype), target, reduction="none", **options)
        np.testing.assert_allclose(got / top / 2, share, rtol=1e-6)
        across = target.T.copy() if target.ndim == 2 else target
        again, other = lf.value_and_grad(F.cross_entropy)(x.T.astype(dtype), across, axis=0, reduction="none", **options)
        assert bits(again) == bits(got) and bits(np.ascontiguousarray(other.T)) == bits(gradient)


@pytest.mark.parametrize("n", [4, 64, 5000, 100_000])
def test_mean_of_terms_beyond_float(isa, threads, n):
    """A term may be infinite in float32 where the mean is a number: sums and means are those of float64, whatever the layout, beside a
    gradient, weighted, and over the input's own place."""
    x, t = np.ones(n, np.float32), np.zeros(n, np.float32)
    x[n // 2] = 3e19
    want = np.float32(np.mean(x.astype(float) ** 2))
    mean = F.mse_loss(x, t)
    assert abs(mean - want) <= np.spacing(want) and math.isinf(F.mse_loss(x, t, reduction="none").max())
    assert bits(mean) == bits(F.mse_loss(x[::-1].copy()[::-1], t)) == bits(F.mse_loss(np.repeat(x, 2)[::2], t))
    weighted = F.mse_loss(x, t, weight=np.full(n, 0.5, np.float32))
    assert abs(weighted - want) <= np.spacing(want)
    y = x.copy()
    value, gradient = lf.value_and_grad(F.mse_loss)(x, t)
    again, over = lf.value_and_grad(F.mse_loss)(y, t, grad_out=y)
    assert bits(value) == bits(again) == bits(mean) and over is y and bits(gradient) == bits(y)
    rows = np.full((n, 2), 3e38, np.float32) * np.float32([1, -1])
    y = np.zeros(n, int)
    y[0] = 1
    assert abs(F.cross_entropy(rows, y) / (6e38 / n) - 1) < 1e-6


ANY = [0, -0.0, 1, -1, 1e-45, 3e-39, 88, 88.5, 89, -87, -87.5, -103, 200, -200, 1e5, -1e9, 1e30, -1e30, FLT_MAX, -FLT_MAX, INF, -INF, NAN]
RATIOS = [v for v in ANY if 0 <= v <= 1]
SUMS = {  # losses whose sums take another way than their elements, and one that does not
    "binary_cross_entropy_with_logits": (ANY, RATIOS),
    "binary_cross_entropy": (RATIOS, RATIOS),
    "soft_margin_loss": (ANY, [-1, 1]),
    "kl_div": ([v for v in ANY if not v > 0], ANY),
    "poisson_nll_loss": (ANY, [*RATIOS, 3]),
    "gaussian_nll_loss": (ANY, [0, 1, INF], [v for v in ANY if not v < 0]),
    "mse_loss": (ANY, [0]),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:reduction='mean' divides:UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", SUMS)
def test_sum_with_an_extreme_term(isa, name, dtype):
    """Beside 63 ordinary elements, and 64 times: the sum and the mean are those of the elements, and so is the gradient, in any layout."""
    loss, options = getattr(F, name), {"eps": 0} if name == "gaussian_nll_loss" else {}
    wide, rtol = (np.float64, 1e-12) if dtype == "float64" else (np.float32, 1e-6)
    for extreme in np.stack(np.meshgrid(*SUMS[name]), -1).reshape(-1, len(SUMS[name])):
        alone = [np.full(64, v).astype(dtype) for v in extreme]
        among = [np.full(64, v).astype(dtype) for v in (0.25, 1.0 if name == "soft_margin_loss" else 0.5, 1.5)]
        for a, b in zip(among, alone, strict=False):
            a[5] = b[5]
        for args, reduction in ((alone, "mean"), (among[: len(alone)], "sum")):
            # elements are rounded to halves, sums are not
            want = getattr(np, reduction)(loss(*[a.astype(wide) for a in args], reduction="none", **options).astype(float)).astype(wide)
            value, gradient = lf.value_and_grad(loss)(*args, reduction=reduction, **options)
            np.testing.assert_allclose(value, want, rtol=rtol, atol=np.finfo(wide).tiny, err_msg=str(extreme))
            _, each = lf.value_and_grad(loss)(*args, reduction="none", **options)
            each = each / (64 if reduction == "mean" else 1)
            np.testing.assert_allclose(gradient, each, rtol=2e-3 if dtype == "float16" else rtol, atol=np.finfo(dtype).tiny, err_msg=str(extreme))
            assert bits(loss(*args, reduction=reduction, **options)) == bits(value)
            assert bits(loss(*[np.repeat(a, 2)[::2] for a in args], reduction=reduction, **options)) == bits(value)


# ---- vectors of float64 whose squares overflow -------------------------------------------------------------------------


@pytest.mark.parametrize("shape, axis", [((5, 3), -1), ((40, 70), -1), ((3, 2500), -1), ((70, 40), 0), ((4, 6, 5), (0, 2))], ids=str)
@pytest.mark.parametrize("name, options", [("cosine", {}), ("triplet", {}), ("triplet", {"swap": True}), ("triplet", {"p": 3.0})])
def test_vectors_whose_squares_overflow(isa, name, options, shape, axis, rng):
    """As those that are 2^-600 times as long: distances grow with the vectors and cosines stay; ordinary ones beside them keep their losses."""
    f = F.cosine_embedding_loss if name == "cosine" else F.triplet_margin_loss
    vectors = list(100 * rng.normal(size=(2 if name == "cosine" else 3, *shape)))
    positions = np.zeros(shape).sum(axis).shape
    target = (rng.choice([-1.0, 1.0], positions),) if name == "cosine" else ()
    options = options | {"axis": axis} | ({} if name == "cosine" else {"margin": 1e-300, "eps": 0.0})
    g = lf.value_and_grad(f, argnums=tuple(range(len(vectors))))
    upstream = rng.normal(size=positions)
    value, gradients = g(*vectors, *target, reduction="none", grad_output=upstream, **options)
    k = 2.0**600 if np.ndim(axis) else np.where(np.arange(positions[0]) % 3, 2.0**600, 1).reshape((-1, 1) if axis else (1, -1))
    got, got_gradients = g(*(v * k for v in vectors), *target, reduction="none", grad_output=upstream, **options)
    length, slope = (1, k) if name == "cosine" else (k, 1)
    np.testing.assert_allclose(got, value * np.reshape(length, np.shape(got) if np.ndim(length) else ()), rtol=1e-12)
    for a, b in zip(got_gradients, gradients):
        np.testing.assert_allclose(a * slope, b, rtol=1e-11, atol=1e-13)
    for reduction, total in (("mean", np.mean), ("sum", np.sum)):
        np.testing.assert_allclose(f(*(v * k for v in vectors), *target, reduction=reduction, **options), total(got), rtol=1e-12)


def test_vectors_with_no_number_stay_so(rng):
    a, b = rng.normal(size=(2, 6, 5))
    a[0, 2], a[1, 0], b[2, 1], a[3, 0] = NAN, INF, -INF, 1e200
    loss = F.cosine_embedding_loss(a, b, np.ones(6), reduction="none")
    assert (np.isnan(loss) == [True, True, True, False, False, False]).all()
    where = np.arange(6) > 2
    assert np.isfinite(F.cosine_embedding_loss(a, b, np.ones(6), where=where))
    assert np.isfinite(F.triplet_margin_loss(a, b, b + 1, where=where))
    loss = F.triplet_margin_loss(a, b, b + 1, reduction="none")
    assert np.isnan(loss[:3]).all() and np.isfinite(loss[3:]).all()


# ---- sigmoid focal loss of targets that are no probabilities ---------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 2.0**30])
@pytest.mark.parametrize("dtype, error", [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_focal_loss_of_targets_outside_the_unit_interval(isa, dtype, error, gamma):
    """torchvision's formula, whose power is no number where 1 - p_t is negative and gamma not whole; its gradients are those of central differences."""
    x, t = (a.ravel().astype(dtype) for a in np.meshgrid([-2.0, 0.3, 3.0], [-1.0, -0.25, 1.25, 2.0]))
    options = {"alpha": 0.25, "gamma": gamma}
    formula = lambda x, t: reference.sigmoid_focal_loss(x, t, reduction="sum", **options)  # noqa: E731
    with np.errstate(invalid="ignore", over="ignore"):
        want = reference.sigmoid_focal_loss(x, t, reduction="none", **options).astype(dtype)
        slopes = np.array([reference.central(lambda v: formula(v[0], v[1]), np.array([a, b])) for a, b in zip(x, t)], float).T
    value, gradients = lf.value_and_grad(F.sigmoid_focal_loss, argnums=(0, 1))(x, t, **options)
    np.testing.assert_allclose(value, want, rtol=error)
    if gamma < 5:
        for got, slope in zip(gradients, slopes):
            np.testing.assert_allclose(got, slope, rtol=max(error, 1e-9), atol=error)
        _, _, hess = lf.value_grad_hess(F.sigmoid_focal_loss)(x, t, **options)
        with np.errstate(invalid="ignore"):
            curve = [reference.second(lambda v, b=b: formula(v, b), np.array([a]))[0] for a, b in zip(x, t)]
        np.testing.assert_allclose(hess, np.array(curve, float), rtol=max(error, 1e-7), atol=max(error, 1e-8))


def test_focal_loss_at_the_ends_has_slopes():
    """Limits: of the target's slope for a certain prediction, of the curvature for a wrong one."""
    for gamma in (1.5, 2.0):
        x, t = np.array([INF, -INF]), np.array([1.0, 0.0])
        _, (gx, gt) = lf.value_and_grad(F.sigmoid_focal_loss, argnums=(0, 1))(x, t, gamma=gamma)
        assert (gx == 0).all() and (gt == 0).all()
        _, _, hess = lf.value_grad_hess(F.sigmoid_focal_loss)(x, t[::-1].copy(), gamma=gamma)
        assert (hess == 0).all()


def test_no_classes_to_average_over():
    for reduction, want in (("none", [NAN] * 3), ("sum", NAN), ("mean", NAN)):
        np.testing.assert_array_equal(F.multilabel_soft_margin_loss(np.zeros((3, 0)), np.zeros((3, 0)), reduction=reduction), want)


@pytest.mark.parametrize("shape", [(0, 1), (0, 65), (0, 600), (0, 1025), (0, 300_000), (0, 600, 5), (2, 600, 0)])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.focal_loss])
def test_no_rows_of_many_classes(loss, shape):
    x, label = np.zeros(shape), np.zeros((shape[0], *shape[2:]), int)
    for threads in (1, 2):
        with lf.num_threads(threads):
            assert loss(x, label, reduction="sum") == 0 and np.isnan(loss(x, label))
            value, gradient = lf.value_and_grad(loss)(x, label, reduction="none")
            assert value.shape == label.shape and gradient.shape == shape
