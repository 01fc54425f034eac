"""`lossfast evaluate` and `lossfast.evaluate`: figures, blocks, files of every kind, errors, exit codes, and what a terminal shows."""

import contextlib
import importlib.metadata
import json
import math
import os
import pty
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
from lossfast import _evaluation, cli
from lossfast._evaluation import _argmax
from lossfast._tally import ExactSum, Sample

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
VERSION = importlib.metadata.version("lossfast")
EXAMPLE = DIGITS / "logits.npy", DIGITS / "targets.npy"


@pytest.fixture
def run(capsys):
    """The command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run


def figures(result):
    """All that must not depend on how the arrays are stored and cut."""
    return {name: value for name, value in result.to_dict().items() if name != "config"}


def model_outputs(shape=(6, 7, 5, 4), axis=1, seed=0):
    """Logits, and targets of which some are ignored."""
    rng = np.random.default_rng(seed)
    logits = (4 * rng.standard_normal(shape)).astype(np.float32)
    targets = rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    targets[rng.random(targets.shape) < 0.1] = -100
    return logits, targets


def reference(logits, targets, weight=None, label_smoothing=0.0, axis=1):
    """Per-sample losses and weights of the samples that are not ignored, in float64."""
    x = np.moveaxis(logits.astype(np.float64), axis, -1)
    x = x.reshape(-1, x.shape[-1])[np.ravel(targets) != -100]
    y = np.ravel(targets)[np.ravel(targets) != -100]
    w = np.ones(x.shape[1]) if weight is None else weight
    log_p = x - np.logaddexp.reduce(x, axis=1, keepdims=True)
    hard = -w[y] * log_p[np.arange(len(y)), y]
    return (1 - label_smoothing) * hard - label_smoothing / x.shape[1] * (w * log_p).sum(1), w[y], (x.argmax(1) == y).sum()


# --- Figures


def test_digits_example():
    result = lf.evaluate(DIGITS / "logits.npy", DIGITS / "targets.npy", worst=3)
    losses, _, correct = reference(np.load(DIGITS / "logits.npy"), np.load(DIGITS / "targets.npy"))
    assert (result.samples, result.ignored, result.correct) == (899, 0, correct)
    assert result.accuracy == correct / 899 > 0.95
    assert result.mean == pytest.approx(losses.mean(), rel=1e-6)
    assert result.perplexity == math.exp(result.mean)
    assert [s.index for s in result.worst] == [(i,) for i in np.argsort(-losses)[:3]]


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_figures_match_the_definition(axis, weighted, label_smoothing):
    logits, targets = model_outputs(axis=axis % 4)
    weight = np.random.default_rng(1).random(logits.shape[axis]) if weighted else None
    losses, weights, correct = reference(logits, targets, weight, label_smoothing, axis)
    result = lf.evaluate(logits, targets, axis=axis, weight=weight, label_smoothing=label_smoothing, memory=500)
    assert result.mean == pytest.approx(losses.sum() / weights.sum(), rel=1e-6)
    assert result.denominator == pytest.approx(weights.sum(), rel=1e-15)
    assert (result.samples, result.ignored, result.correct) == (targets.size, targets.size - losses.size, correct)
    assert [s.loss for s in result.worst] == pytest.approx(sorted(losses)[:-6:-1], rel=1e-6)


def test_nll_loss():
    logits, targets = model_outputs()
    log_p = F.log_softmax(logits, axis=1)
    result = lf.evaluate(log_p, targets, loss="nll_loss")
    assert result.mean == pytest.approx(reference(logits, targets)[0].mean(), rel=1e-6)
    assert result.perplexity == math.exp(result.mean)


def test_probability_targets():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((30, 5))
    targets = rng.dirichlet(np.ones(5), 30)
    result = lf.evaluate(logits, targets, memory=200)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert result.mean == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-12)
    assert result.correct == (targets.argmax(1) == logits.argmax(1)).sum()
    assert result.ignored == 0


def test_one_sample_without_a_batch(tmp_path):
    np.save(tmp_path / "x.npy", [1.0, 3.0, 2.0])
    np.save(tmp_path / "y.npy", 1)
    for result in (lf.evaluate([1.0, 3.0, 2.0], 1), lf.evaluate(tmp_path / "x.npy", tmp_path / "y.npy")):
        assert (result.samples, result.correct, result.worst[0].index) == (1, 1, ())
        assert result.mean == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 4, 0)])
def test_nothing_to_score(shape):
    result = lf.evaluate(np.zeros(shape), np.zeros((shape[0], *shape[2:]), int))
    assert (result.samples, result.worst) == (0, [])
    assert math.isnan(result.mean) and math.isnan(result.accuracy)


def test_everything_ignored():
    result = lf.evaluate(np.zeros((4, 3)), np.full(4, 255, np.uint8), ignore_index=255)
    assert (result.samples, result.ignored, result.correct, result.worst) == (4, 4, 0, [])
    assert math.isnan(result.mean)


def test_worst_lists_nan_then_infinity_then_the_earlier_of_equals():
    logits = np.zeros((8, 2))
    logits[5] = np.nan, 0
    logits[6, 1] = -np.inf
    logits[2] = logits[4] = 3, 0
    result = lf.evaluate(logits, np.ones(8, int), worst=6, memory=50)
    assert [s.index[0] for s in result.worst] == [5, 6, 2, 4, 0, 1]
    assert (result.nan, result.infinite) == (1, 1)
    assert math.isnan(result.mean)
    assert [s.index[0] for s in lf.evaluate(logits, np.ones(8, int), worst=2).worst] == [5, 6]
    assert lf.evaluate(logits, np.ones(8, int), worst=0).worst == []


def test_infinite_mean_without_nan():
    result = lf.evaluate(np.array([[0.0, -np.inf], [0.0, 0.0]]), [1, 0])
    assert result.mean == result.perplexity == math.inf
    assert result.to_dict()["mean"] is None and result.to_dict()["infinite"] == 1


def test_ties_go_to_the_first_class_and_nan_is_wrong():
    logits = np.array([[1.0, 1.0], [1.0, 1.0], [np.nan, 0.0], [0.0, np.nan], [np.nan, 0.0]])
    assert lf.evaluate(logits, [0, 1, 0, 1, 1]).correct == 1


def test_a_new_loss_is_one_entry(monkeypatch):
    def squared(input, target, *, reduction):
        assert reduction == "none"
        return (input - target) ** 2

    monkeypatch.setattr(F, "squared", squared, raising=False)
    monkeypatch.setitem(_evaluation.LOSSES, "squared", _evaluation._Loss(_evaluation._ByElement))
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [3.5, 4.0]])
    result = lf.evaluate(x, y, loss="squared", worst=1, memory=8)
    assert (result.mean, result.samples, result.accuracy, result.perplexity) == (17 / 16, 4, None, None)
    assert result.worst == [Sample((0, 1), 4.0, 0.0, 2.0)]
    with pytest.raises(ValueError, match=r"targets: expected the predictions' shape \(2, 2\), got \(2,\)"):
        lf.evaluate(x, y[0], loss="squared")


# --- Bits


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One set of outputs in every form they may take."""
    logits, targets = model_outputs()
    folder = tmp_path_factory.mktemp("stored")
    np.save(folder / "x.npy", logits)
    np.save(folder / "y.npy", targets.astype(np.int16))
    np.save(folder / "x_fortran.npy", np.asfortranarray(logits))
    np.save(folder / "y_fortran.npy", np.asfortranarray(targets))
    np.save(folder / "x_swapped.npy", logits.astype(">f4"))
    np.save(folder / "y_swapped.npy", targets.astype(">i8"))
    np.savez(folder / "stored.npz", x=logits, y=targets)
    np.savez_compressed(folder / "deflated.npz", x=logits, y=np.asfortranarray(targets))
    np.save(folder / "single.npy", logits)
    with zipfile.ZipFile(folder / "single.npz", "w") as archive:
        archive.write(folder / "single.npy", "x.npy")
    strided = np.zeros((12, 5, 7, 4), np.float32)[::-2].transpose(0, 2, 1, 3)
    strided[:] = logits
    return {
        "memory": (logits, targets),
        "strided": (strided, np.asfortranarray(targets)),
        "lists": (logits.astype(np.float64).astype(np.float32), targets.tolist()),
        "memmap": (np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")),
        "npy": (folder / "x.npy", folder / "y.npy"),
        "fortran": (str(folder / "x_fortran.npy"), str(folder / "y_fortran.npy")),
        "fortran and c": (folder / "x_fortran.npy", folder / "y.npy"),
        "swapped": (folder / "x_swapped.npy", folder / "y_swapped.npy"),
        "stored npz": (f"{folder}/stored.npz:x", f"{folder}/stored.npz:y.npy"),
        "deflated npz": (f"{folder}/deflated.npz:x", f"{folder}/deflated.npz:y"),
        "single npz": (f"{folder}/single.npz", folder / "y.npy"),
    }


@pytest.fixture(scope="module")
def whole(stored):
    return figures(lf.evaluate(*stored["memory"], worst=9))


@pytest.mark.parametrize("memory", [1, 100, 300, 700, 1 << 26])
@pytest.mark.parametrize(
    "form",
    ["memory", "strided", "lists", "memmap", "npy", "fortran", "fortran and c", "swapped", "stored npz", "deflated npz", "single npz"],
)
def test_same_bits_from_every_form_in_blocks_of_any_size(stored, whole, form, memory):
    assert figures(lf.evaluate(*stored[form], memory=memory, worst=9)) == whole


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_class_axis_anywhere_in_the_file(tmp_path, axis, order, save):
    logits, targets = model_outputs((9, 8, 7), axis)
    save(tmp_path / "z.npz", x=np.asarray(logits, order=order), y=targets)
    whole = figures(lf.evaluate(logits, targets, axis=axis))
    for memory in (1, 100, 500):
        assert figures(lf.evaluate(f"{tmp_path}/z.npz:x", f"{tmp_path}/z.npz:y", axis=axis, memory=memory)) == whole


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_same_bits_with_any_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(_evaluation, "_BLOCK_BYTES", 10_000)
    logits, targets = model_outputs((300, 50, 40))
    with lf.num_threads(1):
        one = figures(lf.evaluate(logits, targets))
    with lf.num_threads(threads):
        assert figures(lf.evaluate(logits, targets, memory=100_000)) == one
        assert lf.get_num_threads() == threads


def test_many_evaluations_at_once(monkeypatch):
    monkeypatch.setattr(_evaluation, "_BLOCK_BYTES", 10_000)
    logits, targets = model_outputs((300, 50, 4))
    one = figures(lf.evaluate(logits, targets))
    with lf.num_threads(3), ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: figures(lf.evaluate(logits, targets, memory=50_000)), range(20)))
        assert lf.get_num_threads() == 3
    assert all(result == one for result in results)


def test_the_first_error_is_the_one_reported_whatever_the_threads_do(monkeypatch):
    monkeypatch.setattr(_evaluation, "_BLOCK_BYTES", 1000)
    targets = np.zeros(2000, int)
    targets[[700, 740, 1500]] = 5
    for threads in [1, 2, 4] * 10:
        with lf.num_threads(threads), pytest.raises(IndexError, match=r"target\[700\]"):
            lf.evaluate(np.zeros((2000, 5)), targets, memory=1000 * threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_counts_to_the_end(monkeypatch, threads):
    monkeypatch.setattr(_evaluation, "_BLOCK_BYTES", 1000)
    calls = []
    with lf.num_threads(threads):
        lf.evaluate(np.zeros((2000, 5)), np.zeros(2000, int), progress=lambda *counts: calls.append(counts))
    assert calls[-1] == (2000, 2000) and calls == sorted(calls)


def test_mean_is_the_correctly_rounded_quotient_of_exact_sums():
    logits, targets = model_outputs((2000, 5))
    weight = np.random.default_rng(2).random(5)
    losses = F.cross_entropy(logits, targets, weight, reduction="none")
    exact = sum(map(Fraction, losses.tolist())) / sum(Fraction(weight[t]) for t in targets if t != -100)
    assert lf.evaluate(logits, targets, weight=weight, memory=1000).mean == float(exact)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_sum_of_everything_a_float_can_be(dtype):
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 1 << 64, 100_000, dtype=np.uint64) if dtype == np.float64 else rng.integers(0, 1 << 32, 100_000, dtype=np.uint32)
    values = bits.view(dtype)
    values = np.concatenate([values[np.isfinite(values)], np.array([5e-324, np.finfo(dtype).max, -0.0], dtype)])
    total = ExactSum()
    for part in np.array_split(values, 7):
        total.add(part)
    assert total.units == sum(map(Fraction, values.tolist())) * 2**total.UNIT


@pytest.mark.parametrize("classes", [1, 6, 300])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_argmax_agrees_with_numpy(dtype, classes):
    """Ties, NaN, signed zeros and infinities included."""
    rng = np.random.default_rng(4)
    x = rng.integers(0, 1 << 16, (2000, classes), dtype=np.uint16).view(np.float16).astype(dtype)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 6e-8, 1.0], dtype)
    x[:1000] = rng.choice(special, (1000, classes))
    x[500:1000] = np.nan_to_num(x[500:1000], nan=-1, posinf=2, neginf=-2)
    cube = x.reshape(20, 100, classes)
    for view, axis in ((x, 1), (x.T, 0), (np.asfortranarray(x), 1), (cube.transpose(0, 2, 1), 1), (np.moveaxis(cube, 2, 1).copy(), 1), (x[0], 0)):
        np.testing.assert_array_equal(_argmax(view, axis), view.argmax(axis))


# --- Types


def test_half_precision(tmp_path):
    logits, targets = model_outputs((40, 9))
    np.save(tmp_path / "half.npy", logits.astype(np.float16))
    result = lf.evaluate(tmp_path / "half.npy", targets)
    assert figures(result) == figures(lf.evaluate(logits.astype(np.float16).astype(np.float32), targets))
    assert result.config["logits"]["dtype"] == "float16"


def test_bfloat16(tmp_path, run):
    logits, targets = model_outputs((40, 9))
    bits = (logits.view(np.uint32) >> 16).astype(np.uint16)
    rounded = (bits.astype(np.uint32) << 16).view(np.float32)
    expected = figures(lf.evaluate(rounded, targets))
    np.save(tmp_path / "void.npy", bits.view("V2"))
    np.save(tmp_path / "bits.npy", bits)
    np.save(tmp_path / "y.npy", targets)
    for name in ("void.npy", "bits.npy"):
        result = lf.evaluate(tmp_path / name, targets, logits_dtype="bfloat16")
        assert figures(result) == expected
        assert result.config["logits"]["dtype"] == "bfloat16"
    code, _, err = run("evaluate", tmp_path / "void.npy", tmp_path / "y.npy")
    assert code == 3 and "--logits-dtype bfloat16" in err
    code, out, _ = run("evaluate", tmp_path / "void.npy", tmp_path / "y.npy", "--logits-dtype", "bfloat16", "--json")
    assert code == 0 and json.loads(out)["mean"] == expected["mean"]


def test_bfloat16_of_ml_dtypes_in_memory():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    logits, targets = model_outputs((40, 9))
    logits = logits.astype(ml_dtypes.bfloat16)
    assert figures(lf.evaluate(logits, targets)) == figures(lf.evaluate(logits.astype(np.float32), targets))


# --- Errors


def saved(path, array, **keywords):
    np.save(path, array, **keywords)
    return path


def header(text):
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text


@pytest.fixture
def files(tmp_path):
    """A good pair, and what can go wrong beside it."""
    logits, targets = np.zeros((50, 10), np.float32), np.arange(50) % 10
    saved(tmp_path / "x.npy", logits)
    saved(tmp_path / "y.npy", targets)
    saved(tmp_path / "objects.npy", np.array([{}, None], object))
    saved(tmp_path / "complex.npy", logits.astype(complex))
    saved(tmp_path / "longdouble.npy", logits.astype(np.longdouble))
    saved(tmp_path / "text.npy", logits.astype(str))
    saved(tmp_path / "struct.npy", np.zeros(50, [("a", "<i4")]))
    saved(tmp_path / "floats.npy", targets.astype(float))
    saved(tmp_path / "bools.npy", targets > 4)
    saved(tmp_path / "short.npy", targets[:49])
    saved(tmp_path / "sequences.npy", np.zeros((8, 4, 10), np.float32))
    saved(tmp_path / "sequence_targets.npy", np.zeros((8, 4), int))
    saved(tmp_path / "scalar.npy", 1.0)
    saved(tmp_path / "no_classes.npy", np.zeros((50, 0)))
    bad = targets.copy()
    bad[[33, 41]] = 10, -7
    saved(tmp_path / "bad.npy", bad)
    saved(tmp_path / "weight9.npy", np.ones(9))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "truncated.npy").write_bytes(whole[:-1])
    (tmp_path / "headless.npy").write_bytes(whole[:60])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an array at all")
    (tmp_path / "bomb.npy").write_bytes(header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999), }"))
    (tmp_path / "negative.npy").write_bytes(header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 10), }"))
    (tmp_path / "garbled.npy").write_bytes(header(b"{'descr': "))
    (tmp_path / "hostile.npy").write_bytes(header(b"__import__('os').abort()"))
    (tmp_path / "nested.npy").write_bytes(header(b"(" * 5000))
    np.savez(tmp_path / "two.npz", x=logits, y=targets)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    np.savez_compressed(tmp_path / "cut.npz", x=np.random.default_rng(0).random((50, 10)))
    packed = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "flipped.npz").write_bytes(packed[:2000] + bytes([packed[2000] ^ 255]) + packed[2001:])
    with zipfile.ZipFile(tmp_path / "checkpoint.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"pickle")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("x.npy", b"not an array")
    return tmp_path


@pytest.mark.parametrize(
    "logits, targets, options, expected",
    [
        ("missing.npy", "y.npy", [], "missing.npy: No such file or directory"),
        ("", "y.npy", [], "Is a directory"),
        ("x.npy", "notes.txt", [], "notes.txt: not an array as np.save or np.savez writes it"),
        ("empty.npy", "y.npy", [], "empty.npy: not an array"),
        ("headless.npy", "y.npy", [], "headless.npy: not an array"),
        ("truncated.npy", "y.npy", [], "truncated.npy: truncated: (50, 10) float32 values take 2000 bytes, the file holds 1999"),
        ("bomb.npy", "y.npy", [], "bomb.npy: truncated"),
        ("negative.npy", "y.npy", [], "negative.npy: damaged header: shape (-1, 10)"),
        ("garbled.npy", "y.npy", [], "garbled.npy: not an array"),
        ("hostile.npy", "y.npy", [], "hostile.npy: not an array"),
        ("nested.npy", "y.npy", [], "nested.npy: not an array"),
        ("objects.npy", "y.npy", [], "objects.npy: holds pickled Python objects"),
        ("objects.npz", "y.npy", [], "objects.npz: holds pickled Python objects"),
        ("complex.npy", "y.npy", [], "complex.npy: expected numbers of up to 64 bits, its dtype is complex128"),
        ("longdouble.npy", "y.npy", [], "longdouble.npy: expected numbers of up to 64 bits"),
        ("text.npy", "y.npy", [], "text.npy: expected numbers"),
        ("struct.npy", "y.npy", [], "struct.npy: expected numbers"),
        ("scalar.npy", "y.npy", [], "scalar.npy: expected an axis of classes"),
        ("no_classes.npy", "y.npy", [], "no_classes.npy: shape (50, 0) has no classes along axis 1"),
        ("two.npz", "y.npy", [], "two.npz: holds x, y; name one as"),
        ("two.npz:z", "y.npy", [], "two.npz: no member 'z', it holds x, y"),
        ("x.npy:x", "y.npy", [], "x.npy: not an .npz archive, so it has no member 'x'"),
        ("missing.npz:x", "y.npy", [], "missing.npz: No such file or directory"),
        ("cut.npz", "y.npy", [], "cut.npz: damaged or truncated archive"),
        ("flipped.npz", "y.npy", [], "flipped.npz: damaged or truncated archive"),
        ("odd.npz", "y.npy", [], "odd.npz: not an array"),
        ("checkpoint.pt", "y.npy", [], "checkpoint.pt: a zip archive without .npy members"),
        ("x.npy", "floats.npy", [], "floats.npy: expected integers for class indices, got float64"),
        ("x.npy", "bools.npy", [], "bools.npy: expected integers for class indices, got bool"),
        ("x.npy", "short.npy", [], "short.npy: expected class indices of shape (50,), for logits of shape (50, 10) with the classes along axis 1"),
        ("x.npy", "short.npy", [], "along axis 1; got shape (49,)"),
        ("sequences.npy", "sequence_targets.npy", [], "got shape (8, 4), which fits axis=2"),
        ("x.npy", "bad.npy", [], "bad.npy: target[33] = 10 is out of range for 10 classes"),
        ("x.npy", "bad.npy", ["--memory", "100"], "bad.npy: target[33] = 10 is out of range for 10 classes"),
        ("x.npy", "bad.npy", ["--ignore-index", "10"], "bad.npy: target[41] = -7 is out of range for 10 classes (ignore_index is 10)"),
        ("x.npy", "y.npy", ["--axis", "2"], "x.npy: axis 2 is out of range for shape (50, 10)"),
        ("x.npy", "y.npy", ["--weight", "weight9.npy"], "weight9.npy: expected 10 class weights, for logits of shape (50, 10); got shape (9,)"),
        ("x.npy", "y.npy", ["--logits-dtype", "bfloat16"], "x.npy: two-byte values can be read as bfloat16, its dtype is float32"),
    ],
)
def test_bad_data_is_one_line_that_names_the_file(files, run, monkeypatch, logits, targets, options, expected):
    monkeypatch.chdir(files)
    code, out, err = run("evaluate", files / logits, files / targets, *options)
    assert (code, out) == (3, "")
    assert err.startswith("lossfast: error: ") and err.count("\n") == 1
    assert expected in err


def test_damaged_bytes_are_an_error_or_harmless(tmp_path):
    """Nothing but the errors that the command line knows, whatever the file holds."""
    rng = np.random.default_rng(6)
    logits, targets = np.zeros((20, 5), np.float32), np.zeros(20, int)
    saved(tmp_path / "x.npy", logits)
    np.savez(tmp_path / "stored.npz", x=logits)
    np.savez_compressed(tmp_path / "deflated.npz", x=logits)
    for seed in sorted(tmp_path.iterdir()):
        whole = np.frombuffer(seed.read_bytes(), np.uint8)
        for _ in range(200):
            damaged = whole[: rng.integers(1, 2 * whole.size)].copy()
            places = rng.integers(0, damaged.size, rng.integers(0, 4))
            damaged[places] = rng.integers(0, 256, places.size)
            (tmp_path / "damaged").write_bytes(damaged.tobytes())
            with contextlib.suppress(OSError, ValueError, TypeError, IndexError):
                assert lf.evaluate(tmp_path / "damaged", targets).samples == 20


def test_bad_target_is_counted_in_the_whole_array():
    logits, targets = np.zeros((6, 3, 5, 4)), np.zeros((6, 5, 4), np.uint8)
    targets[4, 2, 3] = 3
    for memory in (1, 1 << 20):
        with pytest.raises(IndexError, match=r"targets: target\[4, 2, 3\] = 3 is out of range for 3 classes"):
            lf.evaluate(logits, targets, memory=memory)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = saved(tmp_path / "x.npy", np.zeros((1000, 10)))
    with lf.num_threads(1), pytest.raises(ValueError, match=r"x\.npy: truncated: nothing after byte 40000"):
        lf.evaluate(path, np.zeros(1000, int), memory=8000, progress=lambda done, total: os.truncate(path, 40_000))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: lf.evaluate([[0.0]], [0], loss="crossentropy"), ValueError, "expected one of cross_entropy, nll_loss"),
        (lambda: lf.evaluate([[0.0]], [0], loss="nll_loss", label_smoothing=0.1), TypeError, "nll_loss has no option 'label_smoothing'"),
        (lambda: lf.evaluate([[0.0]], [0], label_smoothing=1.5), ValueError, "label_smoothing"),
        (lambda: lf.evaluate([[0.0]], [0], logits_dtype="float8"), ValueError, "unknown dtype 'float8'"),
        (lambda: lf.evaluate(np.ma.zeros((2, 2)), [0, 0]), TypeError, "logits: a masked array"),
        (lambda: lf.evaluate([[0.0]], [0], worst=1.5), TypeError, "worst: expected an integer, got 1.5"),
        (lambda: lf.evaluate([[0.0]], [0], memory="64M"), TypeError, "memory: expected an integer, got '64M'"),
        (lambda: lf.evaluate([[0.0]], [0], axis=1.0), TypeError, "axis: expected an integer, got 1.0"),
        (lambda: lf.evaluate([[0.0]], [0], progress=True), TypeError, "progress: expected a function"),
        (lambda: lf.evaluate([[0.0]], [0], loss="ctc", blank=True), TypeError, "blank: expected an integer, got True"),
    ],
)
def test_errors_from_python(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "required"),
        (["evaluate"], "LOGITS, TARGETS"),
        (["evaluate", "x", "y", "--loss", "hinge"], "invalid choice: 'hinge'"),
        (["evaluate", "x", "y", "--loss", "nll_loss", "--label-smoothing", "0.1"], "--label-smoothing does not apply to nll_loss"),
        (["evaluate", "x", "y", "--label-smoothing", "1.5"], "expected a number from 0 to 1, got 1.5"),
        (["evaluate", "x", "y", "--label-smoothing", "nan"], "expected a number from 0 to 1, got nan"),
        (["evaluate", "x", "y", "--label-smoothing", "much"], "expected a number from 0 to 1, got much"),
        (["evaluate", "x", "y", "--axis", "one"], "--axis: expected an integer from -64 to 63, got one"),
        (["evaluate", "x", "y", "--worst", "-1"], "expected a count, got -1"),
        (["evaluate", "x", "y", "--threads", "0"], "expected a count of threads, got 0"),
        (["evaluate", "x", "y", "--memory", "lots"], "--memory: expected a size such as 64M or 1G, got lots"),
        (["evaluate", "x", "y", "--memory", "0"], "--memory: expected a size such as 64M or 1G, got 0"),
        (["evaluate", "x", "y", "--memory", "1e999G"], "--memory: expected a size such as 64M or 1G, got 1e999G"),
        (["evaluate", "x", "y", "--ignore-index", str(1 << 63)], "expected a 64-bit integer"),
    ],
)
def test_usage_errors(run, arguments, expected):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert expected in err


# --- The command line


def test_table_of_nothing(run, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    np.save(tmp_path / "y.npy", np.full(3, -100))
    code, out, err = run("evaluate", tmp_path / "x.npy", tmp_path / "y.npy")
    assert (code, err) == (0, "")
    assert "nothing to score" in out and "nan" not in out


def test_table(run):
    code, out, err = run("evaluate", *EXAMPLE, "--worst", "2")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:2] == ["cross_entropy", "of"] and lines[0][-3:] == ["(899,", "10)", "float32"]
    assert ["samples", "899"] in lines
    assert ["index", "loss", "target", "predicted"] in lines
    assert lines[-2][0] == "206" and len(lines[-1]) == 4
    assert "\x1b" not in out


def test_table_names_weights_nan_and_multiple_indices(run, tmp_path):
    logits = np.zeros((2, 3, 2), np.float32)
    logits[1, 0, 1] = np.nan
    x, y, w = saved(tmp_path / "x.npy", logits), saved(tmp_path / "y.npy", np.zeros((2, 2), int)), saved(tmp_path / "w.npy", np.full(3, 2))
    code, out, _ = run("evaluate", x, y, "--weight", w)
    assert code == 0
    assert "sum of weights  8" in out
    assert "NaN losses      1" in out
    assert "(1, 1)      nan       0          0" in out


def test_json(run):
    code, out, err = run("evaluate", *EXAMPLE, "--json", "--label-smoothing", "0.1", "--worst", "1")
    assert (code, err, out.count("\n")) == (0, "", 1)
    result = json.loads(out, parse_constant=pytest.fail)
    assert set(result) == {
        "schema_version", "version", "loss", "samples", "ignored", "mean", "denominator", "perplexity", "correct", "accuracy",
        "infeasible", "labels", "label_errors", "token_error_rate", "nan", "infinite", "worst", "config",
    }  # fmt: skip
    assert result["schema_version"] == 1 and result["version"] == VERSION
    assert set(result["worst"][0]) == {"index", "loss", "target", "prediction"}
    assert result["config"] == {
        "logits": {"source": str(DIGITS / "logits.npy"), "shape": [899, 10], "dtype": "float32"},
        "targets": {"source": str(DIGITS / "targets.npy"), "shape": [899], "dtype": "int64"},
        "axis": 1,
        "weight": None,
        "label_smoothing": 0.1,
    }


def test_json_has_null_for_nan_and_infinity(run, tmp_path):
    x, y = saved(tmp_path / "x.npy", np.array([[0.0, -np.inf], [np.nan, 0.0]])), saved(tmp_path / "y.npy", [1, 1])
    result = json.loads(run("evaluate", x, y, "--json")[1], parse_constant=pytest.fail)
    assert result["mean"] is result["perplexity"] is None
    assert (result["nan"], result["infinite"], [s["loss"] for s in result["worst"]]) == (1, 1, [None, None])


def test_fail_above(run, tmp_path):
    assert run("evaluate", *EXAMPLE, "--fail-above", "0.5")[0] == 0
    code, out, _ = run("evaluate", *EXAMPLE, "--fail-above", "0.01")
    assert code == 1 and "mean loss" in out
    nan = saved(tmp_path / "x.npy", np.full((1, 2), np.nan)), saved(tmp_path / "y.npy", [0])
    assert run("evaluate", *nan, "--fail-above", "1e9")[0] == 1
    code, _, err = run("evaluate", *EXAMPLE, "--fail-above", "nan")
    assert code == 2 and "--fail-above: expected a number, got nan" in err


def process(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)


def test_as_a_process():
    done = process("-m", "lossfast", "evaluate", *EXAMPLE, "--threads", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accuracy" in done.stdout
    assert process("-m", "lossfast", "--version").stdout == f"lossfast {VERSION}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed):
    command = f'"$0" -m lossfast evaluate "$@" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, *map(str, EXAMPLE)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("accuracy" in done.stdout) == (closed == "2>&-")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
def test_names_that_the_terminal_cannot_show(tmp_path, encoding):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npy"))
    path.write_bytes(EXAMPLE[0].read_bytes())
    command = [sys.executable, "-m", "lossfast", "evaluate", path, EXAMPLE[1]]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\udcff.npy (899, 10)" in done.stdout


# --- Files larger than memory, interrupts, terminals


def sparse(path, shape, dtype):
    """A .npy file of zeros that takes no space on the disk."""
    np.lib.format.open_memmap(path, "w+", dtype, shape)
    return path


PEAK = """
import re, sys, lossfast.cli
code = lossfast.cli.main()
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("shape, axis", [((1 << 19, 1 << 10), 1), ((1 << 10, 1 << 17), 0)], ids=["2 GB", "512 MB, classes first"])
def test_large_files_in_little_memory(tmp_path, shape, axis):
    x = sparse(tmp_path / "x.npy", shape, np.float32)
    y = saved(tmp_path / "y.npy", np.zeros(shape[1 - axis], np.uint8))
    done = process("-c", PEAK, "evaluate", x, y, "--axis", axis, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    figures, peak = done.stdout.splitlines()
    assert json.loads(figures)["mean"] == pytest.approx(math.log(1024), rel=1e-6)
    assert int(peak) < 200 << 10  # kB


def in_terminal(code, *arguments, until=None):
    """Run Python code in a pseudo-terminal; `until` something is shown, then interrupt.  Exit code and all that was shown."""
    terminal, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the child has closed its side
            break
        shown += piece
        if until is not None and until in shown:
            until = None
            process.send_signal(signal.SIGINT)
    os.close(terminal)
    return process.wait(), shown.decode()


PLAIN = "import sys; sys.modules['rich'] = None; import lossfast.cli; sys.exit(lossfast.cli.main())"
RICH = "import sys; import lossfast.cli; sys.exit(lossfast.cli.main())"


@pytest.mark.parametrize("code", [PLAIN, pytest.param(RICH, id="rich")])
def test_table_in_a_terminal(code):
    if code == RICH:
        pytest.importorskip("rich")
    status, shown = in_terminal(code, "evaluate", *EXAMPLE)
    assert status == 0
    assert "97.44%" in shown and "worst samples" in shown
    assert ("│" in shown) == (code == RICH)


@pytest.mark.parametrize("code", [PLAIN, pytest.param(RICH, id="rich")])
def test_text_in_a_terminal_is_shown_as_it_is(tmp_path, code):
    if code == RICH:
        pytest.importorskip("rich")
    tokens = ["_", "[/b]", "[red]", ":x:"]
    x, y = saved(tmp_path / "x.npy", np.zeros((7, 1, 4))), saved(tmp_path / "y.npy", np.array([[1, 2, 3]]))
    status, shown = in_terminal(code, "evaluate", x, y, "--loss", "ctc", "--tokens", saved(tmp_path / "tokens.npy", np.array(tokens)))
    assert status == 0 and "[/b][red]:x:" in shown


@pytest.mark.parametrize("code", [PLAIN, pytest.param(RICH, id="rich")])
def test_progress_and_interrupt(tmp_path, code):
    if code == RICH:
        pytest.importorskip("rich")
    x = sparse(tmp_path / "x.npy", (1 << 24, 1 << 10), np.float32)
    y = sparse(tmp_path / "y.npy", (1 << 24,), np.uint8)
    status, shown = in_terminal(code, "evaluate", x, y, until=b"left")
    assert status == 130
    assert f"of {1 << 24:,} samples" in shown
    assert "lossfast: interrupted" in shown and "Traceback" not in shown


def test_rich_is_imported_only_for_a_terminal():
    code = "import sys, lossfast.cli; lossfast.cli.main(sys.argv[1:]); sys.exit('rich' in sys.modules)"
    assert process("-c", code, "evaluate", *EXAMPLE).returncode == 0
