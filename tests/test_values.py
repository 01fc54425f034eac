"""Values: against the float64 references, every case x dtype x ISA x shape x reduction; against torch's; the classes."""

import inspect
import json
import pathlib
import warnings

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
import reference
from calls import DTYPES, EVERY_OPTION, LIVE, bits, call, close, draw, expected, reductions, result_dtype
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_value_is_the_reference(isa, case, option, dtype):
    for shape in case.shapes:
        args, keywords = draw(case, option, shape, dtype)
        for reduction in reductions(case):
            want = expected(case, option, shape, dtype, **reduction)
            got = call(case, args, keywords | reduction)
            assert got.dtype == result_dtype(dtype), (shape, reduction)
            scale = 1 if reduction.get("reduction") != "sum" else max(1, np.abs(expected(case, option, shape, dtype, "none")).sum())
            close(got, want, dtype, scale, (shape, reduction))


@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_scalar_results_are_numpy_scalars(case, option):
    args, keywords = draw(case, option, case.shapes[1], "float32")
    for reduction in reductions(case):
        got = call(case, args, keywords | reduction)
        assert isinstance(got, np.float32 if np.ndim(got) == 0 else np.ndarray)
        assert type(got) is not np.ndarray or got.flags.owndata


# ---- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case, option", [p for p in EVERY_OPTION if p.values[0].cls])
def test_class_is_the_function(case, option):
    cls = getattr(lf, case.cls)
    args, keywords = draw(case, option, case.shapes[3], "float32")
    if not set(keywords) <= set(inspect.signature(cls).parameters):
        pytest.skip(f"torch's {case.cls} takes no {set(keywords) - set(inspect.signature(cls).parameters)}")
    for reduction in reductions(case):
        loss = cls(**keywords, **reduction)
        assert bits(loss(*args)) == bits(call(case, args, keywords | reduction))
        value, gradient = loss.value_and_grad(*args)
        want = lf.value_and_grad(getattr(F, case.function))(*args, **keywords, **reduction)
        assert (bits(value), bits(gradient)) == tuple(map(bits, want))
        value, gradient = lf.value_and_grad(loss)(*args)
        assert (bits(value), bits(gradient)) == tuple(map(bits, want))


# ---- torch ----------------------------------------------------------------------------------------------------------


def goldens():
    with np.load(pathlib.Path(__file__).with_name("goldens.npz")) as file:
        data, records = file["data"], json.loads(str(file["index"]))

    def array(where):
        offset, shape, kind = where
        return data[offset : offset + int(np.prod(shape))].reshape(shape).astype("f8" if kind == "f" else "i8")

    for record in records:
        for key in ("arrays", "gradients"):
            record[key] = {name: array(where) for name, where in record[key].items()}
        for key in ("value", "grad_output"):
            record[key] = array(record[key])
        yield record


GOLDENS = {}
for record in goldens():
    GOLDENS.setdefault(record["function"], []).append(record)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in LIVE if c.function in GOLDENS])
def test_value_and_gradients_are_torchs(case):
    for golden in GOLDENS[case.function]:
        made = dict(golden["arrays"])
        args = [made.pop(name) for name in case.arrays]
        keywords = made | golden["options"]
        what = (golden["options"], [a.shape for a in args])
        close(call(case, args, keywords), golden["value"], "float64", 10, what)
        names = tuple(golden["gradients"])
        vg = lf.value_and_grad(getattr(F, case.function), argnums=names)
        value, gradients = vg(*args, **keywords, grad_output=golden["grad_output"])
        close(value, golden["value"], "float64", 10, what)
        for name, gradient in zip(names, gradients):
            close(gradient, golden["gradients"][name], "float64", 10, (what, name))


def test_goldens_are_many_and_small():
    """A test of the test data: every loss that torch has is there, in every reduction, and the arrays are not all alike."""
    assert len(GOLDENS) >= 20 and sum(map(len, GOLDENS.values())) >= 500
    assert pathlib.Path(__file__).with_name("goldens.npz").stat().st_size < 300_000
    for function, records in GOLDENS.items():
        assert len({r["value"].tobytes() for r in records}) > len(records) / 3, function


# ---- dtypes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in LIVE])
@pytest.mark.parametrize("kind", ["int8", "int32", "int64", "uint8", "uint64", "bool"])
def test_integer_predictions_are_float64(case, kind):
    args, keywords = draw(case, 0, case.shapes[3], "float64")
    first = np.ceil(np.abs(args[0])).astype(kind)
    for reduction in reductions(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = call(case, (first, *args[1:]), keywords | reduction)
            want = call(case, (first.astype(float), *args[1:]), keywords | reduction)
        assert bits(got) == bits(want)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in LIVE])
def test_one_float64_argument_makes_the_result_float64(case):
    args, keywords = draw(case, 0, case.shapes[3], "float64")
    for wide in range(len(args)):
        mixed = [a.astype(np.float32) if a.dtype == float and i != wide else a for i, a in enumerate(args)]
        if any(a.dtype == float for a in mixed):
            for reduction in reductions(case):
                got = call(case, mixed, keywords | reduction)
                want = call(case, [a.astype(float) if a.dtype == np.float32 else a for a in mixed], keywords | reduction)
                assert bits(got) == bits(want), (wide, reduction)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in LIVE])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_computed_as_float32(case, dtype):
    """The same bits as the same numbers in float32."""
    for option in range(len(case.options)):
        args, keywords = draw(case, option, case.shapes[3], dtype)
        wide = lambda a: a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == DTYPES[dtype] else a  # noqa: E731
        for reduction in reductions(case):
            got = call(case, args, keywords | reduction)
            assert bits(got) == bits(call(case, [wide(a) for a in args], {k: wide(v) for k, v in keywords.items()} | reduction))


LABELS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4", ">u8"]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.function) for c in LIVE if c.arrays.get("target", None) and c.arrays["target"].__name__ == "labels"]
)
def test_labels_of_any_integer_type(case, kind):
    for shape in [(16, 10), (65, 10), (15, 65)]:
        args, keywords = draw(case, 0, shape, "float32")
        assert bits(call(case, (args[0], args[1].astype(kind)), keywords)) == bits(call(case, args, keywords))


def test_lists_and_scalars_are_taken():
    assert F.cross_entropy([[0.0, 0.0]], [1]) == np.log(2.0)
    assert F.cross_entropy([0.0, 0.0], 1) == np.log(2.0)
    assert F.logsumexp([0, 0]) == np.log(2.0)
    assert F.sigmoid(0.0) == 0.5 and isinstance(F.sigmoid(0.0), np.float64)
    assert isinstance(F.sigmoid(np.float32(0)), np.float32)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_one_alpha_is_every_class_s_and_weighs_but_the_losses(isa, reduction, rng):
    """As `weight` does; the mean divides by the number of positions that count."""
    x, y, f = rng.normal(size=(7, 5)).astype(np.float32), rng.integers(0, 5, 7), lf.value_grad_hess(F.focal_loss)
    one, each = (f(x, y, alpha=alpha, ignore_index=0, reduction=reduction) for alpha in (0.25, [0.25] * 5))
    assert list(map(bits, one)) == list(map(bits, each))
    weighed = f(x, y, [0.25] * 5, ignore_index=0, reduction=reduction)
    factor = np.float32(0.25 if reduction == "mean" else 1)
    assert [bits(r * factor) for r in weighed] == list(map(bits, one))
    assert bits(lf.FocalLoss(alpha=0.25, ignore_index=0, reduction=reduction)(x, y)) == bits(one[0])


# ---- axis -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3, 5), (9, 70, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("case, option", [p for p in EVERY_OPTION if p.values[0].kind == "class"])
def test_class_axis(case, option, shape):
    """The class axis moved anywhere gives the losses of the default place."""
    args, keywords = draw(case, option, shape, "float32")
    for axis in [*range(len(shape)), *range(-len(shape), 0)]:
        moved = [np.moveaxis(a, 1, axis) if a.shape == shape else a for a in args]
        for reduction in reductions(case):
            assert bits(call(case, moved, keywords | reduction | {"axis": axis})) == bits(call(case, args, keywords | reduction))


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2, -3, (0,), (0, 1), (1, 2), (2, 0), (0, 1, 2), (-1, 0), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_axes(isa, axis, keepdims, rng):
    x = rng.normal(size=(5, 7, 11))
    got = F.logsumexp(x, axis=axis, keepdims=keepdims)
    if axis == ():
        close(got, x, "float64")
    else:
        close(got, reference.logsumexp(x, axis, keepdims), "float64")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_softmax_axes(isa, name, axis, rng):
    x = rng.normal(size=(5, 7, 11))
    close(getattr(F, name)(x, axis=axis), getattr(reference, name)(x, axis), "float64")


# ---- everything at once: properties ---------------------------------------------------------------------------------


@st.composite
def calls(draw):
    """A random call of cross_entropy: shape, axis, kind of target, weight, ignored and masked positions, smoothing, reduction."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 17, 66]), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    positions = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.normal(0, draw(st.sampled_from([0.1, 3, 50])), shape)
    y = rng.integers(0, shape[axis], positions)
    options = {"axis": axis, "reduction": draw(st.sampled_from(["none", "mean", "sum"])), "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0]))}
    if draw(st.booleans()):
        options["weight"] = rng.uniform(0, 2, shape[axis]) * (rng.random(shape[axis]) < 0.9)
    if draw(st.booleans()):
        options["where"] = rng.random(positions) < 0.7
    if draw(st.booleans()):
        return x, rng.uniform(0, 1, shape), options
    options["ignore_index"] = draw(st.sampled_from([-100, 0, 1, -1]))
    return x, np.where(rng.random(positions) < 0.2, options["ignore_index"], y), options


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(what=calls(), dtype=st.sampled_from(list(DTYPES)))
def test_any_call_of_cross_entropy(what, dtype):
    x, target, options = what
    if target.shape == x.shape and target.dtype != float:
        return  # labels of the input's shape cannot be told from probabilities
    cast = lambda a: a.astype(DTYPES[dtype]) if getattr(a, "dtype", np.dtype(int)).kind == "f" else a  # noqa: E731
    args, options = (cast(x), cast(target)), {k: cast(v) for k, v in options.items()}
    want = reference.cross_entropy(*args, **options)
    scale = max(1, np.abs(reference.cross_entropy(*args, **options | {"reduction": "none"})).sum())
    close(F.cross_entropy(*args, **options), want, dtype, scale, options)
    value, gradient = lf.value_and_grad(F.cross_entropy)(*args, **options)
    close(value, want, dtype, scale, options)
    if dtype == "float64" and x.size <= 60 and np.isfinite(want).all():
        want = reference.central(lambda x: reference.cross_entropy(x, target, **options).sum(), x).astype(float)
        np.testing.assert_allclose(gradient, want, rtol=1e-8, atol=1e-8 * max(1, np.abs(want).max()))
