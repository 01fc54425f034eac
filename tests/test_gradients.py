"""Gradients: float64 against central differences of the references, the other dtypes against float64, and value_and_grad's manners."""

import functools

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
import reference
from calls import DTYPES, EVERY_CASE, EVERY_OPTION, LIVE, bits, call, close, draw, generator, gradients, reductions, wanted

pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")

SMALL = {
    "elementwise": [(1,), (7,), (2, 3)],
    "class": [(5,), (3, 1), (3, 4), (2, 3, 4), (2, 70)],
    "row": [(5,), (3, 4)],
    "axis": [(1,), (5,), (3, 4), (2, 3, 2)],
    "linear": [(3, 4, 2)],
}


def upstream(case, value):
    return generator("upstream", case.function).normal(size=np.shape(value))


@functools.cache
def derivative(case, option, shape, name, reduction=None):
    """By central differences of the reference; where a mean is over nothing it is NaN, with zero gradient."""
    args, keywords = draw(case, option, shape)
    made = dict(zip(case.arrays, args)) | keywords | ({"reduction": reduction} if reduction else {})
    function = getattr(reference, case.function)
    v = upstream(case, function(**made))
    want = reference.central(lambda x: (v * function(**(made | {name: x}))).sum(), made[name]).astype(float)
    return want if np.isfinite(want).all() else np.zeros_like(want)


@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_gradient_is_the_derivative(isa, case, option):
    for shape in SMALL[case.kind]:
        args, keywords = draw(case, option, shape)
        names = wanted(case, option, shape)
        for reduction in reductions(case):
            v = upstream(case, call(case, args, keywords | reduction))
            _, got = gradients(case, args, keywords | reduction, names, grad_output=v)
            for name in names:
                want = derivative(case, option, shape, name, **reduction)
                scale = max(1, np.abs(want).max(initial=0))
                np.testing.assert_allclose(got[name], want, rtol=1e-10, atol=1e-10 * scale, err_msg=f"{shape} {reduction} {name}")


def rounded_to(array, dtype):
    with np.errstate(over="ignore"):
        return array.astype(DTYPES[dtype]).astype(float)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_gradient_of_other_dtypes(isa, case, option, dtype):
    """Have the dtype of their argument and, rounded once, the value of float64's."""
    for shape in case.shapes:
        args, keywords = draw(case, option, shape, dtype)
        names = wanted(case, option, shape)
        for reduction in reductions(case):
            v = upstream(case, call(case, args, keywords | reduction)).astype(np.float32)
            exact_args = [a.astype(float) if a.dtype == DTYPES[dtype] else a for a in args]
            exact_keywords = {k: (a.astype(float) if getattr(a, "dtype", None) == DTYPES[dtype] else a) for k, a in keywords.items()}
            _, want = gradients(case, exact_args, exact_keywords | reduction, names, grad_output=v.astype(float))
            _, got = gradients(case, args, keywords | reduction, names, grad_output=v)
            for name in names:
                assert got[name].dtype == DTYPES[dtype]
                spread = args[0].size if reduction.get("reduction") in ("mean", "batchmean") else 1
                scale = max(np.abs(want[name]).max(initial=0), np.abs(v).max(initial=0) / spread)
                eps = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-19}[dtype]
                rounded = rounded_to(want[name], dtype)
                atol = max(eps * scale, 6e-8 if dtype == "float16" else 0)
                np.testing.assert_allclose(got[name].astype(float), rounded, rtol=eps, atol=atol, err_msg=f"{shape} {reduction} {name}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_value_beside_the_gradient_is_the_value(isa, case, option, dtype):
    """The same bits; sigmoid_focal_loss's two loops differ in what the compiler fuses: its sums and means to an ulp."""
    for shape in case.shapes:
        args, keywords = draw(case, option, shape, dtype)
        for reduction in reductions(case):
            value, _ = gradients(case, args, keywords | reduction, wanted(case, option, shape))
            alone = call(case, args, keywords | reduction)
            if case.function == "sigmoid_focal_loss" and not alone.ndim:
                assert abs(value - alone) <= np.spacing(alone), (shape, reduction)
            else:
                assert bits(value) == bits(alone), (shape, reduction)


@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_one_argument_at_a_time(case, option):
    """By name or by position, into given arrays or not: the same bits; alone or with others, the same but for the compiler's choice
    of fused operations."""
    shape = case.shapes[3]
    args, keywords = draw(case, option, shape, "float32")
    function = getattr(F, case.function)
    names = wanted(case, option, shape)
    value, together = gradients(case, args, keywords, names)
    for name in names:
        alone = lf.value_and_grad(function, argnums=name)(*args, **keywords)[1]
        np.testing.assert_allclose(alone, together[name], rtol=1e-5, err_msg=name)
        if name in case.arrays:
            position = list(case.arrays).index(name)
            assert bits(lf.value_and_grad(function, argnums=position)(*args, **keywords)[1]) == bits(alone)
            assert bits(lf.value_and_grad(function, argnums=(position,))(*args, **keywords)[1][0]) == bits(alone)
        given = np.full_like(alone, 7)
        again, returned = lf.value_and_grad(function, argnums=name)(*args, **keywords, grad_out=given)
        assert returned is given and bits(given) == bits(alone) and bits(again) == bits(value)
    backwards = lf.value_and_grad(function, argnums=tuple(names[::-1]))(*args, **keywords)[1]
    assert [bits(g) for g in backwards[::-1]] == [bits(together[n]) for n in names]
    given = tuple(np.empty_like(together[n]) for n in names)
    _, returned = lf.value_and_grad(function, argnums=tuple(names))(*args, **keywords, grad_out=given)
    assert all(a is b for a, b in zip(given, returned)) and [bits(g) for g in given] == [bits(together[n]) for n in names]


@pytest.mark.parametrize("case", EVERY_CASE)
def test_default_is_the_first_argument_and_ones(case):
    args, _keywords = draw(case, 0, case.shapes[3], "float32")
    function = getattr(F, case.function)
    for reduction in reductions(case):
        value, gradient = lf.value_and_grad(function)(*args, **reduction)
        ones = np.ones(np.shape(value), np.float32)
        _, again = lf.value_and_grad(function, argnums=0)(*args, **reduction, grad_output=ones)
        assert bits(gradient) == bits(again)
        assert isinstance(gradient, np.ndarray) and gradient.shape == args[0].shape


@pytest.mark.parametrize("case", EVERY_CASE)
def test_upstream_gradient_scales(case):
    """grad_output may be a number, a broadcast or strided array, or any float dtype; it is never written to."""
    args, _keywords = draw(case, 0, case.shapes[3], "float64")
    vg = lf.value_and_grad(getattr(F, case.function))
    for reduction in reductions(case):
        value, gradient = vg(*args, **reduction)
        _, twice = vg(*args, **reduction, grad_output=np.full(np.shape(value), 2.0))
        np.testing.assert_allclose(twice, 2 * gradient, rtol=1e-15)
        _, zero = vg(*args, **reduction, grad_output=np.zeros(np.shape(value)))
        assert not zero.any()
        v = upstream(case, value)
        _, want = vg(*args, **reduction, grad_output=v)
        _, got = vg(*args, **reduction, grad_output=np.array(v, order="F"))
        assert bits(got) == bits(want)
        half = v.astype(np.float16)
        half.flags.writeable = False
        _, got = vg(*args, **reduction, grad_output=half)
        _, want = vg(*args, **reduction, grad_output=half.astype(float))
        assert bits(got) == bits(want)


# ---- the diagonal of the Hessian ------------------------------------------------------------------------------------

HESSIANS = [p for p in EVERY_OPTION if p.values[0].hessian]


@pytest.mark.parametrize("case, option", HESSIANS)
def test_hessian_is_the_second_derivative(isa, case, option):
    for shape in SMALL[case.kind]:
        args, keywords = draw(case, option, shape)
        for reduction in reductions(case):
            v = upstream(case, call(case, args, keywords | reduction))
            value, gradient, hessian = lf.value_grad_hess(getattr(F, case.function))(*args, **keywords, **reduction, grad_output=v)
            want_value, want_gradient = lf.value_and_grad(getattr(F, case.function))(*args, **keywords, **reduction, grad_output=v)
            np.testing.assert_allclose(value, want_value, rtol=1e-13, atol=1e-13)
            np.testing.assert_allclose(gradient, want_gradient, rtol=1e-12, atol=1e-13)
            want = second_derivative(case, option, shape, **reduction)
            np.testing.assert_allclose(hessian, want, rtol=1e-8, atol=1e-8 * max(1, np.abs(want).max(initial=0)), err_msg=f"{shape} {reduction}")


@functools.cache
def second_derivative(case, option, shape, reduction=None):
    args, keywords = draw(case, option, shape)
    keywords = keywords | ({"reduction": reduction} if reduction else {})
    function = getattr(reference, case.function)
    v = upstream(case, function(*args, **keywords))
    want = reference.second(lambda x: (v * function(x, *args[1:], **keywords)).sum(), args[0]).astype(float)
    return want if np.isfinite(want).all() else np.zeros_like(want)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("case, option", HESSIANS)
def test_hessian_of_other_dtypes(isa, case, option, dtype):
    for shape in case.shapes[:8]:
        args, keywords = draw(case, option, shape, dtype)
        exact_args = [a.astype(float) if a.dtype == DTYPES[dtype] else a for a in args]
        exact_keywords = {k: (a.astype(float) if getattr(a, "dtype", None) == DTYPES[dtype] else a) for k, a in keywords.items()}
        want = lf.value_grad_hess(getattr(F, case.function))(*exact_args, **exact_keywords, reduction="sum")[2]
        given = np.empty_like(args[0]), np.empty_like(args[0])
        _, gradient, hessian = lf.value_grad_hess(getattr(F, case.function))(*args, **keywords, reduction="sum", grad_out=given)
        assert gradient is given[0] and hessian is given[1] and hessian.dtype == DTYPES[dtype]
        eps = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-19}[dtype]
        atol = max(eps * max(1, np.abs(want).max(initial=0)), 6e-8)
        np.testing.assert_allclose(hessian.astype(float), rounded_to(want, dtype), rtol=eps, atol=atol, err_msg=shape)


WITHOUT = [
    *("sigmoid", "softplus", "softmax", "log_softmax", "logsumexp", "nll_loss", "linear_cross_entropy"),
    *("multi_margin_loss", "multilabel_margin_loss", "cosine_embedding_loss", "triplet_margin_loss", "dice_loss", "wasserstein_loss"),
]


@pytest.mark.parametrize("case", [case for case in LIVE if case.function in WITHOUT], ids=lambda case: case.function)
def test_losses_without_a_hessian_say_so(case):
    args, _ = draw(case, 0, case.shapes[-1])
    for f in (getattr(F, case.function), *([] if case.cls is None else [getattr(lf, case.cls)()])):
        with pytest.raises(TypeError, match=f"^f: {case.function} has no Hessian"):
            lf.value_grad_hess(f)(*args)


# ---- broadcasting: the gradient by a smaller argument is summed over what it was spread over ------------------------

BROADCAST = [
    # function, shapes of the arrays, options, names
    ("mse_loss", [(4, 1, 3), (5, 1)], {}, ("input", "target")),
    ("mse_loss", [(), (5, 3)], {}, ("input", "target")),
    ("l1_loss", [(3,), (2, 3)], {}, ("input", "target")),
    ("huber_loss", [(4, 3), (3,)], {"delta": 0.3}, ("input", "target")),
    ("smooth_l1_loss", [(4, 3), (4, 1)], {"beta": 2.0}, ("input", "target")),
    ("kl_div", [(4, 3), (3,)], {}, ("input", "target")),
    ("gaussian_nll_loss", [(4, 3), (4, 3), (3,)], {}, ("input", "target", "var")),
    ("gaussian_nll_loss", [(4, 3), (4, 3), ()], {"full": True}, ("var",)),
    ("gaussian_nll_loss", [(4, 3), (4, 3), (4, 1)], {}, ("var",)),
    ("gaussian_nll_loss", [(4, 3, 2), (4, 1, 1), (1, 1, 1)], {}, ("input", "target", "var")),
    ("poisson_nll_loss", [(4, 3), (1, 3)], {}, ("input", "target")),
    ("margin_ranking_loss", [(4, 3), (3,), (4, 1)], {}, ("input1", "input2")),
    ("mse_loss", [(300, 70), (70,)], {}, ("target",)),
    ("mse_loss", [(300, 70), (300, 1)], {}, ("target",)),
    ("mse_loss", [(3, 12000, 3), (3, 1, 3)], {}, ("target",)),  # rows side by side, in several pieces
    ("mse_loss", [(2, 140, 1500), (1500,)], {}, ("target",)),  # rows longer than a chunk
    ("mse_loss", [(17, 5000, 3), (5000, 1)], {}, ("target",)),
]


@pytest.mark.filterwarnings("ignore:.*broadcast:UserWarning")
@pytest.mark.parametrize("function, shapes, options, names", [b for b in BROADCAST if hasattr(F, b[0])])
def test_broadcast_arguments(isa, function, shapes, options, names, rng):
    arrays = [rng.uniform(0.1, 1, s) for s in shapes]
    for reduction in ("none", "mean", "sum"):
        keywords = options | {"reduction": reduction}
        value = getattr(F, function)(*arrays, **keywords)
        full = np.broadcast_arrays(*arrays)
        close(value, getattr(F, function)(*full, **keywords), "float64", 10)
        argnums = tuple(range(len(arrays)))[: len(names)] if names != ("var",) and names != ("target",) else ({"var": 2, "target": 1}[names[0]],)
        _, got = lf.value_and_grad(getattr(F, function), argnums=argnums)(*arrays, **keywords)
        _, wide = lf.value_and_grad(getattr(F, function), argnums=argnums)(*full, **keywords)
        for i, g, w in zip(argnums, got, wide):
            extra = tuple(range(w.ndim - arrays[i].ndim)) + tuple(w.ndim - arrays[i].ndim + d for d, n in enumerate(arrays[i].shape) if n == 1)
            want = w.sum(extra, keepdims=True).reshape(arrays[i].shape)
            assert g.shape == arrays[i].shape
            np.testing.assert_allclose(g, want, rtol=1e-12, atol=1e-12)


VECTORS = [
    # function, shapes of the vectors and of cosine's target, options
    ("triplet_margin_loss", [(1, 5), (6, 5), (6, 5)], {}),
    ("triplet_margin_loss", [(2, 1, 40), (1, 4, 40), (2, 4, 40)], {"swap": True, "p": np.inf}),
    ("triplet_margin_loss", [(5, 2, 1), (5, 2, 7), (5, 1, 7)], {"axis": 0, "p": 3.0}),
    ("triplet_margin_loss", [(1, 50), (1400, 50), (1400, 50)], {}),  # in several parts
    ("triplet_margin_loss", [(1, 150, 20), (30, 1, 20), (1, 1, 20)], {}),
    ("triplet_margin_loss", [(1, 1, 3), (0, 1, 3), (0, 2, 3)], {}),
    ("triplet_margin_loss", [(2, 1, 0), (2, 3, 0), (2, 3, 0)], {}),
    ("triplet_margin_with_distance_loss", [(4, 5), (1, 5), (1, 5)], {"swap": True}),
    ("cosine_embedding_loss", [(1, 5), (6, 5), (6,)], {}),
    ("cosine_embedding_loss", [(1, 5), (1, 5), (6,)], {}),
    ("cosine_embedding_loss", [(1, 4, 50), (3, 1, 50), ()], {"margin": 0.1}),
    ("cosine_embedding_loss", [(5, 1, 3), (5, 2, 3), (2, 1)], {"axis": 0}),
    ("dice_loss", [(3, 1, 4, 6), (1, 2, 4, 6)], {"axis": (-2, -1)}),
    ("wasserstein_loss", [(1, 40), (7, 40)], {}),
]


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("function, shapes, options", VECTORS)
def test_broadcast_positions_of_vectors(isa, function, shapes, options, dtype, rng):
    """As of the arrays broadcast, whose gradients are added up."""
    f = getattr(F, function)
    signs = [rng.choice([-1.0, 1.0], shapes[2])] if function.startswith("cosine") else []
    arrays = [rng.uniform(0.1, 1, s).astype(DTYPES[dtype]) for s in (shapes[:2] if signs else shapes)]
    argnums, axis = tuple(range(len(arrays))), options.get("axis", -1)
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    if signs and shape[0] == 1:
        shape = (*signs[0].shape, *shape[1:])
    full = [np.broadcast_to(a, shape).copy() for a in arrays]
    where = rng.random(tuple(np.delete(shape, axis))) < 0.8
    for reduction in ("none", "mean", "sum"):
        keywords = options | {"reduction": reduction, "where": where}
        value, got = lf.value_and_grad(f, argnums=argnums)(*arrays, *signs, **keywords)
        _, wide = lf.value_and_grad(f, argnums=argnums)(*[a.astype(float) for a in full], *signs, **keywords)
        assert bits(value) == bits(f(*full, *signs, **keywords)) == bits(f(*arrays, *signs, **keywords))
        for a, g, w in zip(arrays, got, wide):
            w = w.sum(tuple(d for d, n in enumerate(a.shape) if n != shape[d]), keepdims=True)
            assert g.shape == a.shape and g.dtype == a.dtype
            eps = {"float64": 1e-13, "bfloat16": 2**-8}[dtype]
            np.testing.assert_allclose(g.astype(float), w, rtol=eps, atol=eps * np.abs(w).max(initial=0))


HALVES = {n: np.ones(n, np.float16) for n in (3, 4)}
OVERFLOWS = [  # function, arguments, options, argument that has the gradient
    ("dice_loss", (np.ones((1, 3)), np.zeros((5, 3))), {"reduction": "none", "grad_output": np.array([np.inf, -np.inf, 1, 1, 1])}, "input"),
    ("wasserstein_loss", (np.ones((1, 3), np.float16), np.zeros((5, 3), np.float16)), {}, "input"),
    ("l1_loss", (np.ones((5, 3)), np.zeros((5, 3))), {"weight": HALVES[3]}, "weight"),
    ("cross_entropy", (np.zeros((2, 3)), [0, 1], HALVES[3]), {}, "weight"),
    ("focal_loss", (np.zeros((2, 3)), [0, 1]), {"alpha": HALVES[3]}, "alpha"),
    ("linear_cross_entropy", (np.zeros((2, 3)), np.ones((4, 3)), [0, 1]), {"linear_bias": HALVES[4]}, "linear_bias"),
    ("linear_cross_entropy", (np.zeros((2, 3)), np.ones((4, 3)), [0, 1]), {"weight": HALVES[4]}, "weight"),
    ("linear_cross_entropy", (np.full((2, 3), 1e200), np.full((4, 3), 1e200), [0, 1]), {}, "input"),
]


@pytest.mark.parametrize("function, arrays, options, name", OVERFLOWS)
def test_overflow_is_no_warning(function, arrays, options, name):
    """inf or NaN come without one from wherever NumPy adds up or rounds, as they do from the kernels. (Warnings are errors here.)"""
    options = {"reduction": "sum", "grad_output": 1e9} | options
    _, g = lf.value_and_grad(getattr(F, function), argnums=name)(*arrays, **options)
    assert not np.isfinite(g.astype(float)).all()


@pytest.mark.parametrize("classes", [10, 65, 1000, 3000])
@pytest.mark.parametrize("name", ["cross_entropy", "logsumexp", "focal_loss"])
def test_small_upstream_gradients_lose_no_digits(isa, name, classes):
    """Factors of a gradient may leave the range of normal floats one by one, where their product does not."""
    x = np.random.default_rng(classes).standard_normal((4, classes)).astype(np.float32)
    more = ([0, 1, 2, 3],) if name in ("cross_entropy", "focal_loss") else ()
    for scale in (1e-15, 1e-20, 1e-25, 1e-28):
        up = np.float32(scale) * np.float32(np.random.default_rng(1).uniform(1, 2, np.shape(getattr(F, name)(x, *more))))
        (_, got), (_, want) = (lf.value_and_grad(getattr(F, name))(a, *more, grad_output=up) for a in (x, x.astype(float)))
        counts = np.abs(want) > 1e-35
        assert counts.any()
        assert np.abs(got[counts] / want[counts] - 1).max() < 1e-5


LINEAR = next(param.values[0] for param in EVERY_CASE if param.id == "linear_cross_entropy")
PARTS = {
    "rows": {"_LOGITS": 720, "_LEAST": 7, "_WIDE": 1200, "_TILE": 600},
    "tiles": {"_LOGITS": 0, "_LEAST": 7, "_WIDE": 1200, "_ROWS": 5, "_COLUMNS": 4},
}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("width", [10, 80])
@pytest.mark.parametrize("option", range(len(LINEAR.options)))
def test_linear_cross_entropy_in_parts(isa, monkeypatch, option, width, parts, dtype):
    """However the logits are cut: values and every gradient, also where hidden vectors that do not count hold NaN."""
    (hidden, *rest), keywords = draw(LINEAR, option, (16, width, 33), dtype)
    where = np.arange(16) % 5 != 3
    hidden = np.where(where[:, None], hidden, np.nan).astype(hidden.dtype)
    names = wanted(LINEAR, option, (16, width, 33))
    near, ulp = (1e-13, 1e-13) if dtype == "float64" else (1e-5, 2.0**-7)
    for reduction in LINEAR.reductions:
        more = {**keywords, "where": where, "reduction": reduction, "grad_output": upstream(LINEAR, where if reduction == "none" else 0.0)}
        value, grads = gradients(LINEAR, (hidden, *rest), names=names, keywords=more)
        with monkeypatch.context() as patch:
            for name, number in PARTS[parts].items():
                patch.setattr(lf._linear, name, number)
            alone = call(LINEAR, (hidden, *rest), {k: v for k, v in more.items() if k != "grad_output"})
            again, other = gradients(LINEAR, (hidden, *rest), names=names, keywords=more)
        assert bits(alone) == bits(again)
        np.testing.assert_allclose(again, value, rtol=near, atol=near)
        for name in names:
            np.testing.assert_allclose(other[name].astype(float), grads[name].astype(float), rtol=ulp, atol=near, err_msg=name)
