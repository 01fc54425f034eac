"""Layouts: any strides give the bits of the contiguous array, in values and gradients, into outputs of any strides; nothing is written to."""

import warnings

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
from calls import DTYPES, EVERY_CASE, LIVE, bits, call, draw, gradients, reductions, wanted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")


# ---- the same numbers, laid out otherwise ---------------------------------------------------------------------------


def filled(array, like):
    array[...] = like
    return array


def spread(a):
    """Every second element along every axis of a larger array."""
    return filled(np.full([2 * n for n in a.shape], 77, a.dtype)[tuple(slice(None, None, 2) for _ in a.shape)], a)


def reversed_(a):
    return filled(np.empty_like(a)[tuple(slice(None, None, -1) for _ in a.shape)], a)


def last_first(a):
    return filled(np.empty(a.shape[-1:] + a.shape[:-1], a.dtype).transpose([*range(1, a.ndim), 0]) if a.ndim else np.empty_like(a), a)


def odd_gap(a):
    """Rows three elements further apart than they are long."""
    return filled(np.empty((*a.shape[:-1], a.shape[-1] + 3), a.dtype)[..., 1:-2] if a.ndim else np.empty_like(a), a)


def misaligned(a):
    raw = np.empty(a.nbytes + 1, np.uint8)
    return filled(np.frombuffer(raw.data, a.dtype, offset=1, count=a.size).reshape(a.shape), a)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def byte_swapped(a):
    return a.astype(a.dtype.newbyteorder()) if a.dtype.name != "bfloat16" else a.copy()


def subclass(a):
    return a.view(type("Sub", (np.ndarray,), {}))


WRITABLE = {
    "fortran": lambda a: filled(np.empty_like(a, order="F"), a),
    "spread": spread,
    "reversed": reversed_,
    "last axis first": last_first,
    "odd gap": odd_gap,
    "misaligned": misaligned,
}
LAYOUTS = WRITABLE | {"read-only": read_only, "byte-swapped": byte_swapped, "subclass": subclass}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_numbers(layout, rng):
    """A test of the test data."""
    for dtype in DTYPES.values():
        a = rng.normal(size=(4, 5, 6)).astype(dtype)
        b = LAYOUTS[layout](a)
        assert ((b.astype(float) == a.astype(float)).all() and not np.shares_memory(a, b)) or layout == "subclass"
        if layout not in ("read-only", "byte-swapped", "subclass", "misaligned"):
            assert b.strides != a.strides


def shapes(case):
    return {"class": [(65, 10), (15, 65), (2, 21, 9, 8), (2, 70, 65), (2, 4100)], "linear": [(16, 10, 33)]}.get(case.kind, case.shapes[3:])


def laid_out(layout, args, keywords):
    change = lambda a: LAYOUTS[layout](a) if isinstance(a, np.ndarray) else a  # noqa: E731
    return [change(a) for a in args], {k: change(v) for k, v in keywords.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", EVERY_CASE)
def test_layout_does_not_change_a_bit(case, layout):
    for option in range(len(case.options)):
        for shape in shapes(case):
            args, keywords = draw(case, option, shape, "float32")
            other_args, other_keywords = laid_out(layout, args, keywords)
            names = wanted(case, option, shape)
            for reduction in reductions(case):
                want_value, want = gradients(case, args, keywords | reduction, names)
                value, got = gradients(case, other_args, other_keywords | reduction, names)
                assert bits(value) == bits(want_value), (shape, reduction, option)
                assert bits(call(case, other_args, other_keywords | reduction)) == bits(call(case, args, keywords | reduction)), (shape, reduction)
                assert [bits(got[n]) for n in names] == [bits(want[n]) for n in names], (shape, reduction, option)
                assert all(type(g) is np.ndarray for g in got.values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("case", EVERY_CASE)
def test_layout_of_other_dtypes(isa, case, layout, dtype):
    shape = shapes(case)[0]
    args, keywords = draw(case, 0, shape, dtype)
    other_args, other_keywords = laid_out(layout, args, keywords)
    value, gradient = gradients(case, args, keywords, wanted(case, 0, shape))
    again, other = gradients(case, other_args, other_keywords, wanted(case, 0, shape))
    assert bits(value) == bits(again) and {k: bits(v) for k, v in gradient.items()} == {k: bits(v) for k, v in other.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 65, 70), (1, 130, 9, 11), (2, 1100, 37), (2, 2100, 130), (1, 5000, 18), (1, 9000, 41), (1, 33000, 5)], ids=str)
def test_planes_of_many_classes(isa, shape, dtype, rng):
    """Rows that are packed before they are worked on, or worked on side by side: planes, inputs with gaps and outputs of another layout, as contiguous rows."""
    make = lambda: rng.normal(0, 3, shape).astype(DTYPES[dtype])  # noqa: E731
    planes, upstream, classes = make(), make(), shape[1]
    planes[0, :, 2] -= 300  # rows that are shifted first
    planes[0, :2, 1] = planes[0, -1, 3] = 400
    planes[0, :, 4] *= 60  # terms too small to count
    rows, upstream_rows = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (planes, upstream))
    y = rng.integers(0, classes, (shape[0], *shape[2:]))
    y.flat[3] = -100
    back = lambda a: bits(np.moveaxis(a, -1, 1))  # noqa: E731
    for f in (F.softmax, F.log_softmax):
        want, want_gradient = lf.value_and_grad(f)(rows, grad_output=upstream_rows)
        value, gradient = lf.value_and_grad(f)(planes, 1, grad_output=upstream)
        assert bits(value) == back(want) and bits(gradient) == back(want_gradient)
        assert bits(f(planes, 1)) == back(want)
        assert bits(f(np.moveaxis(planes, 1, 0), 0, out=np.moveaxis(np.zeros_like(want), -1, 0))) == bits(np.moveaxis(want, -1, 0))
    want, want_gradient = lf.value_and_grad(F.logsumexp)(rows, -1)
    value, gradient = lf.value_and_grad(F.logsumexp)(planes, 1)
    assert bits(value) == bits(want) and bits(gradient) == back(want_gradient)
    share, smooth = np.abs(upstream), {"label_smoothing": 0.1}
    for target, options, names in (
        (y, {}, ("input",)),
        (y, smooth | {"weight": rng.random(classes)}, ("input",)),
        (share, smooth, ("input",)),
        (share, smooth, ("input", "target")),
    ):
        other = target if target is y else np.ascontiguousarray(np.moveaxis(target, 1, -1))
        want, want_gradients = lf.value_and_grad(F.cross_entropy, argnums=names)(rows, other, axis=-1, **options)
        value, got = lf.value_and_grad(F.cross_entropy, argnums=names)(planes, target, **options)
        assert bits(value) == bits(want) and [bits(g) for g in got] == [back(g) for g in want_gradients]
    for f in (F.nll_loss, F.focal_loss):
        want, want_gradient = lf.value_and_grad(f)(rows, y, axis=-1, reduction="none")
        value, gradient = lf.value_and_grad(f)(planes, y, reduction="none")
        assert bits(value) == bits(want) == bits(f(planes, y, reduction="none")) and bits(gradient) == back(want_gradient)


@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("case", EVERY_CASE)
def test_outputs_of_any_layout(case, layout):
    """grad_out, and out where there is one, written through their strides; the gaps between stay as they were."""
    for shape in shapes(case):
        args, _ = draw(case, 0, shape, "float32")
        _, want = lf.value_and_grad(getattr(F, case.function))(*args)
        given = WRITABLE[layout](np.full_like(want, 7))
        whole = base(given)
        before = whole.tobytes()
        lf.value_and_grad(getattr(F, case.function))(*args, grad_out=given)
        assert bits(given) == bits(want)
        given[...] = 7
        assert whole.tobytes() == before
        none = {"reduction": "none"} if case.reductions else {}
        value = call(case, args, none)
        if case.function not in ("sigmoid", "logsigmoid", "softplus") and np.ndim(value):
            out = WRITABLE[layout](np.full_like(value, 7))
            assert call(case, args, none | {"out": out}) is out and bits(out) == bits(value)


def base(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("case", EVERY_CASE)
def test_zero_strides(case):
    """A row or an element broadcast over the rest, never materialised."""
    for shape in shapes(case):
        args, _keywords = draw(case, 0, shape, "float32")
        for i in range(len(args)):
            if not args[i].ndim:
                continue
            for part in (args[i][:1], args[i][..., :1], args[i].reshape(-1)[:1].reshape([1] * args[i].ndim)):
                thin = np.broadcast_to(part, args[i].shape)
                for reduction in reductions(case):
                    a = lf.value_and_grad(getattr(F, case.function))(*args[:i], thin, *args[i + 1 :], **reduction)
                    b = lf.value_and_grad(getattr(F, case.function))(*args[:i], thin.copy(), *args[i + 1 :], **reduction)
                    assert list(map(bits, a)) == list(map(bits, b))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("case", EVERY_CASE)
def test_memory_mapped_files(case, dtype, tmp_path):
    shape = case.shapes[-1]
    args, keywords = draw(case, 0, shape, dtype)
    mapped = []
    for i, a in enumerate(args):
        np.save(tmp_path / f"{i}.npy", a)
        mapped.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    a, b = (lf.value_and_grad(getattr(F, case.function))(*x, **keywords) for x in (args, mapped))
    assert list(map(bits, a)) == list(map(bits, b))


@pytest.mark.parametrize("case", EVERY_CASE)
def test_inputs_are_not_written_to(case):
    for option in range(len(case.options)):
        for shape in shapes(case)[:3]:
            args, keywords = draw(case, option, shape, "float32")
            args, keywords = [a.copy() for a in args], {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
            arrays = [*args, *(v for v in keywords.values() if isinstance(v, np.ndarray))]
            before = [bits(a) for a in arrays]
            for reduction in reductions(case):
                gradients(case, args, keywords | reduction, wanted(case, option, shape))
            assert [bits(a) for a in arrays] == before


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_output_beside_the_input(name, rng):
    """An output next to, or interleaved with, its input shares no element with it."""
    both = rng.normal(size=(20, 2, 33)).astype(np.float32)
    want = getattr(F, name)(both[:, 0].copy())
    getattr(F, name)(both[:, 0], out=both[:, 1])
    assert bits(both[:, 1]) == bits(want)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_in_place_is_right_or_refused(name, rng):
    for shape in [(65, 10), (3, 1025)]:
        x = rng.normal(size=shape).astype(np.float32)
        want = getattr(F, name)(x.copy())
        try:
            getattr(F, name)(x, out=x)
        except ValueError as error:
            assert "out" in str(error)
        else:
            assert bits(x) == bits(want)


ROW = 999  # several runs and a rest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [case for case in LIVE if case.kind == "elementwise"], ids=lambda case: case.function)
def test_long_rows(case, dtype):
    """Rows used in place, cut at their ends: apart from one another, one for all, on their sides."""
    args, _ = draw(case, 0, (9, ROW), dtype)
    for reduction in reductions(case):
        want = gradients(case, args, reduction, case.floats[:1])
        for change in (odd_gap, misaligned, np.asfortranarray):
            got = gradients(case, [change(a) for a in args], reduction, case.floats[:1])
            assert bits(got[0]) == bits(want[0]) and bits(got[1][case.floats[0]]) == bits(want[1][case.floats[0]])
        for i in range(1, len(args)):
            thin = [*args[:i], args[i][:1], *args[i + 1 :]]
            whole = [*args[:i], np.repeat(args[i][:1], 9, 0), *args[i + 1 :]]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                try:
                    got = call(case, thin, reduction)
                except ValueError:  # only of one shape
                    continue
            assert bits(got) == bits(call(case, whole, reduction))


NASTY = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3e38, 1.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [case for case in LIVE if case.reductions and "input" in case.floats], ids=lambda case: case.function)
def test_gradient_in_place(case, dtype):
    """grad_out = input: what goes there is what goes elsewhere, and so is the value, whatever the input holds; or it is refused and stays."""
    f = lf.value_and_grad(getattr(F, case.function))
    for shape in {"class": [(130, 10), (70, 200), (5, 3000)], "linear": []}.get(case.kind, [(9000,), (7, 999)]):
        args, _ = draw(case, 0, shape, dtype)
        for special in (NASTY, NASTY[1:2]):
            x = args[0].copy()
            with np.errstate(over="ignore", under="ignore"):
                x.reshape(-1)[10 :: max(1, x.size // 20)][: len(special)] = special.astype(x.dtype)
            for reduction in reductions(case):
                over = x.copy()
                try:
                    value, gradient = f(x, *args[1:], **reduction)
                    again, _ = f(over, *args[1:], grad_out=over, **reduction)
                except ValueError as error:
                    assert any(words in str(error) for words in ("out of range", "overlap")) and bits(over) == bits(x)
                else:
                    assert bits(over) == bits(gradient) and bits(again) == bits(value), (shape, reduction)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "nll_loss"])
@pytest.mark.parametrize("shape", [(130, 10), (70, 200), (5, 3000)])
def test_gradient_in_place_of_rows(isa, name, shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    rest = (rng.integers(0, shape[1], shape[0]),) if name == "nll_loss" else ()
    upstream = {} if rest else {"grad_output": rng.normal(size=shape)}
    value, gradient = lf.value_and_grad(getattr(F, name))(x, *rest, **upstream)
    over = x.copy()
    again, _ = lf.value_and_grad(getattr(F, name))(over, *rest, grad_out=over, **upstream)
    assert bits(again) == bits(value) and bits(over) == bits(gradient)


@pytest.mark.parametrize("upstream", ["float32", "float64", None])
def test_packed_rows_of_narrower_dtype(upstream, rng):
    x = rng.normal(size=(400, 300)).astype(np.float32)
    u = {} if upstream is None else {"grad_output": rng.normal(size=x.shape).astype(np.float32).astype(upstream)}
    turned = {k: np.ascontiguousarray(v.T) for k, v in u.items()}
    for f in (F.softmax, F.log_softmax):
        value, gradient = lf.value_and_grad(f)(x, axis=0, **u)
        want, want_gradient = lf.value_and_grad(f)(np.ascontiguousarray(x.T), axis=1, **turned)
        assert bits(value) == bits(want.T) and bits(gradient) == bits(want_gradient.T)


@pytest.mark.parametrize("width", [1, 3, 31, 63, 64, 100, 255, 256, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_narrow_views(dtype, width, rng):
    """Rows used in place or moved, more of them than a chunk holds."""
    wide = rng.normal(size=(4000, width + 5)).astype(DTYPES[dtype])
    x, y = wide[:, :width], rng.normal(size=(4000, width)).astype(DTYPES[dtype])
    for f in (F.mse_loss, F.binary_cross_entropy_with_logits):
        for reduction in ("mean", "none"):
            got = lf.value_and_grad(f)(x, y, reduction=reduction)
            want = lf.value_and_grad(f)(x.copy(), y, reduction=reduction)
            assert list(map(bits, got)) == list(map(bits, want)) and bits(f(x, y, reduction=reduction)) == bits(want[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("f", [F.binary_cross_entropy, F.kl_div, F.poisson_nll_loss], ids=lambda f: f.__name__)
def test_large_sums_of_halves(isa, f, dtype, rng):
    """Above a size functions of halves may be looked up: the bits of floats of the same values, of sums, and of every value in [0, 1]."""
    one = int(np.ones(1, DTYPES[dtype]).view(np.uint16)[0])
    inside = np.array([*range(one + 1), 0x8000], np.uint16).view(DTYPES[dtype])
    n, few = 262144 + 37, 8192
    x, y = np.resize(inside, n), rng.random(n).astype(DTYPES[dtype])
    rng.shuffle(x)
    want = f(x.astype(np.float32), y.astype(np.float32))
    assert bits(f(x, y)) == bits(f(spread(x), y)) == bits(f(x, spread(y))) == bits(f(misaligned(x), y)) == bits(want)
    for at in range(0, len(inside), few):  # few values: an error in one of them shows
        x = np.resize(inside[at : at + few], n)
        assert bits(f(x, y)) == bits(f(x.astype(np.float32), y.astype(np.float32)))
    x[n // 2] = np.nan
    assert np.isnan(f(x, y))
    if f is F.binary_cross_entropy:
        for bad in (one + 1, one + 0x80, 0x8001, 0x8000 | one):
            x.view(np.uint16)[n // 2] = bad
            with pytest.raises(ValueError, match=str(n // 2)):
                f(x, y)


@pytest.mark.filterwarnings("ignore:target:UserWarning")
@pytest.mark.parametrize("width", [1, 3, 7, 8, 9, 15, 16, 17, 33, 100, 511, 512, 1023, 1025])
@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_rows_and_columns(isa, dtype, width, rng):
    """Short runs are repeated by whole groups, of which the last has no room to go over."""
    x = rng.normal(size=(3000 // width + 2, width)).astype(DTYPES[dtype])
    for y in (rng.normal(size=(len(x), 1)), rng.normal(size=(1, width))):
        y = y.astype(DTYPES[dtype])
        for reduction in ("mean", "none"):
            want = F.huber_loss(x, np.broadcast_to(y, x.shape).copy(), reduction=reduction)
            assert bits(F.huber_loss(x, y, reduction=reduction)) == bits(want)


@pytest.mark.filterwarnings("ignore:target:UserWarning")
@pytest.mark.parametrize("width", [7, 20, 47, 48, 100, 1024, 1030])
def test_values_of_rows_with_gaps(isa, width, rng):
    """Rows in place beside rows, columns and numbers that are broadcast, of other dtypes too; written apart, and over the input."""
    shape = (2, 9000 // width // 2 + 1, width)
    wide = rng.uniform(0.05, 0.95, (2, shape[1] + 3, width + 9)).astype(np.float32)
    x = wide[:, 1:-2, 4:-5]
    for part in (np.s_[:], np.s_[:1, :1], np.s_[:, :, :1], np.s_[:, :1], np.s_[:1, :1, :1]):
        for dtype in (np.float32, np.float16):
            y = rng.uniform(0.05, 0.95, wide.shape).astype(dtype)[:, 1:-2, 4:-5][part]
            whole = np.broadcast_to(y, shape).copy()
            for f in (F.kl_div, F.mse_loss):
                want, out = f(x.copy(), whole, reduction="none"), np.zeros(wide.shape, np.float32)[:, 1:-2, 4:-5]
                assert bits(f(x, y, reduction="none")) == bits(f(x.copy(), y, reduction="none")) == bits(want)
                assert bits(f(x, y, reduction="none", out=out)) == bits(want) and np.count_nonzero(out.base) == np.count_nonzero(want)
                over = filled(np.empty_like(wide)[:, 1:-2, 4:-5], x)
                assert bits(f(over, y, reduction="none", out=over)) == bits(want)
    bad = wide.copy()
    bad[1, 3, 8] = 1.5
    for y in (x, np.broadcast_to(np.float32(0.5), shape)):
        with pytest.raises(ValueError, match=r"input\[1, 2, 4\] = 1.5"):
            F.binary_cross_entropy(bad[:, 1:-2, 4:-5], y, reduction="none")


@pytest.mark.filterwarnings("ignore:target:UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("shape", "part"), [((9000, 3), (1, 3)), ((140, 1500), (1, 1500)), ((3, 260, 70), (3, 1, 70)), ((7, 2000, 3), (1, 2000, 1))])
def test_gradients_that_are_summed(isa, threads, shape, part, dtype, rng):
    x, y = rng.normal(size=shape).astype(dtype), rng.normal(size=part).astype(dtype)
    gradient = lf.value_and_grad(F.smooth_l1_loss, argnums=1)
    want = bits(gradient(x, y)[1])
    for layout in LAYOUTS.values():
        assert bits(gradient(layout(x), layout(y))[1]) == want
    lf.set_num_threads(1)
    assert bits(gradient(x, y)[1]) == want


# rows shorter than a block of a sum, of one block and of several, and short ones; axes of one element; more rows than are taken side by side, and
# fewer; odd ends
TRANSPOSED = [(s, d) for s in [(300, 301), (19, 5001), (2500, 20)] for d in DTYPES] + [((300, 256), "float32"), ((6, 700, 7), "float32")]
TRANSPOSED += [(s, "float32") for s in [(37, 2049), (17, 4096), (3, 20000), (2, 3, 5, 1700), (20, 30, 100), (18, 2, 4097), (90, 1, 91, 1)]]


def turned(a, axes):
    """The same numbers, of which the axes lie in another order."""
    return filled(np.empty([a.shape[i] for i in axes], a.dtype).transpose(np.argsort(axes)), a)


@pytest.mark.parametrize(("shape", "dtype"), TRANSPOSED, ids=str)
def test_transposed(isa, shape, dtype, rng):
    """Both inputs or one: the bits of contiguous ones, of values and gradients, with and without a sum."""
    x, y = (rng.uniform(0.05, 0.95, shape).astype(DTYPES[dtype]) for _ in range(2))
    f, fg = F.binary_cross_entropy, lf.value_and_grad(F.binary_cross_entropy)
    for reduction in ("mean", "none"):
        want = [*map(bits, fg(x, y, reduction=reduction))]
        for axes in {(*range(len(shape)),)[::-1], (*range(1, len(shape)), 0)}:
            a, b = turned(x, axes), turned(y, axes)
            for p, q, n in ((a, b, 1), (a, b, 3), (a, y, 2), (x, b, 2)):
                with lf.num_threads(n):
                    got = [*map(bits, fg(p, q, reduction=reduction))]
                    assert got == want and bits(f(p, q, reduction=reduction)) == want[0], (reduction, axes)


@pytest.mark.parametrize("shape", [(300, 301), (19, 5001)], ids=str)
def test_transposed_at_extremes(isa, shape, rng):
    """The first element outside the domain in C order; terms that overflow, or whose quick sum does; nothing written before."""
    x, y = (rng.uniform(0.05, 0.95, shape).astype(np.float32) for _ in range(2))
    a, b = turned(x, (1, 0)), turned(y, (1, 0))
    a[7, 9] = a[9, 2] = 1.5
    out = np.full_like(a, 7)
    for reduction in ("mean", "none"):
        with pytest.raises(ValueError, match=r"input\[7, 9\] = 1.5"):
            F.binary_cross_entropy(a, b, reduction=reduction)
        for keywords in ({}, {"grad_out": out}):
            with pytest.raises(ValueError, match=r"input\[7, 9\] = 1.5"):
                lf.value_and_grad(F.binary_cross_entropy)(a, b, reduction=reduction, **keywords)
    assert (out == 7).all()
    for odd in (np.inf, np.nan, 2e19, 1e-40):
        a[7, 9] = odd
        for f in (F.mse_loss, F.kl_div):
            value, gradient = lf.value_and_grad(f)(a, b)
            want, want_gradient = lf.value_and_grad(f)(np.ascontiguousarray(a), np.ascontiguousarray(b))
            assert bits(value) == bits(want) == bits(f(a, b)) and bits(gradient) == bits(want_gradient)


def test_equal_logits_need_no_second_look(rng):
    """The largest products of 1 + t there are."""
    x, y = np.zeros(1 << 16, np.float32), rng.random(1 << 16).astype(np.float32)
    for a, b in ((x, y), (x.astype(np.float64), y.astype(np.float64))):
        assert abs(F.binary_cross_entropy_with_logits(a, b) - np.log(2)) < 1e-7


def test_results_are_laid_out_as_the_input(rng):
    x = rng.normal(size=(2, 5, 6, 7)).astype(np.float32).transpose(0, 3, 1, 2)
    for a in (x, x.T, x[0]):
        value, gradient = lf.value_and_grad(F.mse_loss)(a, a + 1, reduction="none")
        assert value.strides == gradient.strides == np.empty_like(a).strides


# ---- many dimensions, odd strides: properties -----------------------------------------------------------------------


@st.composite
def views(draw, max_dims=5):
    """A random shape, and a random view (steps, reversals, axis order) of that shape into a larger block."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=max_dims))
    steps = draw(st.lists(st.sampled_from([1, 1, -1, 2, -2, 3]), min_size=len(shape), max_size=len(shape)))
    order = draw(st.permutations(range(len(shape))))
    return tuple(shape), steps, order


def view(a, steps, order):
    block = np.empty([a.shape[d] * abs(steps[d]) for d in order], a.dtype)
    inverse = np.argsort(order)
    out = block.transpose(inverse)[tuple(slice(None, None, s) for s in steps)]
    return filled(out, a)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), how=views(), dtype=st.sampled_from(list(DTYPES)))
def test_any_view(data, how, dtype):
    shape, steps, order = how
    case = data.draw(st.sampled_from([c for c in LIVE if c.kind in ("class", "axis", "elementwise")]))
    args, _ = case.draw(np.random.default_rng(0), shape, DTYPES[dtype])
    moved = [view(a, steps, order) if a.shape == shape else a for a in args]
    a = lf.value_and_grad(getattr(F, case.function))(*args)
    b = lf.value_and_grad(getattr(F, case.function))(*moved)
    assert list(map(bits, a)) == list(map(bits, b))


def test_sixty_four_dimensions():
    """NumPy's limit."""
    x = np.arange(2.0).reshape((1,) * 63 + (2,))
    assert F.softmax(x).shape == x.shape
    assert F.sigmoid(x).shape == x.shape
    assert F.cross_entropy(x, np.zeros((1,) * 62 + (2,), int), reduction="none").shape == (1,) * 62 + (2,)
    assert F.logsumexp(x, axis=None) == np.logaddexp(0, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100, 50, 12), (200, 3, 70), (3, 500, 5)], ids=str)
def test_packed_rows_and_outputs_that_are_not(isa, shape, dtype, rng):
    """Classes on two axes, or apart, where the gradient's rows are one run, and the other way round: more rows than are packed at once."""
    x = rng.normal(size=shape).astype(DTYPES[dtype])
    for order in ((2, 0, 1), (1, 0, 2), (2, 1, 0)):
        apart = filled(np.empty([shape[d] for d in order], x.dtype).transpose(np.argsort(order)), x)
        for f, options in ((F.logsumexp, {"axis": (1, 2)}), (F.logsumexp, {"axis": 1}), (F.softmax, {}), (F.log_softmax, {"axis": 1})):
            want = lf.value_and_grad(f)(x, **options)
            for a, out in ((apart, np.zeros_like(x)), (x, np.zeros_like(apart)), (apart, np.zeros_like(apart))):
                got = lf.value_and_grad(f)(a, **options, grad_out=out)
                assert list(map(bits, got)) == list(map(bits, want)), (f, order)


@pytest.mark.parametrize("width", [1, 2, 33, 511, 513, 1100])
def test_products_of_bfloat16(isa, width, rng):
    """linear_cross_entropy on a CPU that multiplies bfloat16: near float64, and the same bits of any layout and number of threads."""
    h, w = (rng.normal(size=(n, width)).astype(DTYPES["bfloat16"]) for n in (37, 150))
    w[1::2] /= width**0.5
    labels = rng.integers(0, 150, 37)
    hidden, weight = h.astype(float), w.astype(float)
    want, g = lf.value_and_grad(F.cross_entropy)(hidden @ weight.T, labels, reduction="none")
    run = lf.value_and_grad(F.linear_cross_entropy, argnums=(0, 1))
    got, grads = run(h, w, labels, reduction="none")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert bits(F.linear_cross_entropy(h, w, labels, reduction="none")) == bits(got)
    for gradient, a, b in zip(grads, (g, g.T), (weight, hidden), strict=True):
        assert np.all(np.abs(gradient.astype(float) - a @ b) <= 2.0**-7 * (np.abs(a) @ np.abs(b)) + 1e-5)
    for other in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a[::-1, ::-1].copy()[::-1, ::-1]):
        for threads in (1, 3):
            with lf.num_threads(threads):
                again, others = run(other(h), other(w), labels, reduction="none")
            assert [bits(again), *map(bits, others)] == [bits(got), *map(bits, grads)]
