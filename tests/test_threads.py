"""Threads: the same bits for any number of them, many Python threads at once, and the settings."""

import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest
from calls import EVERY_CASE, EVERY_OPTION, bits, call, draw, gradients, reductions, wanted

pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")
COUNTS = (1, 2, 3, 5, 7)


@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_same_bits_for_any_number_of_threads(case, option):
    args, keywords = draw(case, option, case.large, "float32")
    names = wanted(case, option, case.large)
    for reduction in reductions(case):
        seen = set()
        for n in COUNTS:
            with lf.num_threads(n):
                value, grads = gradients(case, args, keywords | reduction, names)
                seen.add((bits(call(case, args, keywords | reduction)), bits(value), *(bits(grads[name]) for name in names)))
        assert len(seen) == 1, reduction


WIDE = {
    "class": [(130, 1000), (9, 40000), (3, 21, 61, 50), (2, 200, 999), (1, 5000, 50)],
    "axis": [(130, 1000), (9, 40000), (40000, 2), (3, 200, 999)],
}


@pytest.mark.parametrize("case", [p for p in EVERY_CASE if p.values[0].kind in WIDE])
def test_same_bits_for_wide_rows(isa, case):
    for shape in WIDE[case.kind]:
        for dtype in ("float16", "float64"):
            args, _keywords = draw(case, 0, shape, dtype)
            seen = set()
            for n in COUNTS:
                with lf.num_threads(n):
                    seen.add(tuple(map(bits, lf.value_and_grad(getattr(F, case.function))(*args))))
            assert len(seen) == 1, (shape, dtype)


def test_rows_do_not_depend_on_their_neighbours(isa, rng):
    """The loss and the gradient of a row are the same bits in any batch."""
    for c in (3, 10, 64, 65, 1000):
        x, y = rng.normal(size=(150, c)).astype(np.float32), rng.integers(0, c, 150)
        value, gradient = lf.value_and_grad(F.cross_entropy)(x, y, reduction="none")
        for rows in (slice(0, 1), slice(3, 20), slice(64, 129), slice(149, None), slice(None, None, -1)):
            some, g = lf.value_and_grad(F.cross_entropy)(x[rows], y[rows], reduction="none")
            assert bits(some) == bits(value[rows]) and bits(g) == bits(gradient[rows])
            assert bits(F.softmax(x[rows])) == bits(F.softmax(x)[rows])
            assert bits(F.logsumexp(x[rows])) == bits(F.logsumexp(x)[rows])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_huge_rows_are_summed_in_pieces(isa, rng, dtype):
    """By any number of threads, with the bits of rows among many; +-inf and NaN in any piece."""
    c = 530_001
    x, y, share = rng.normal(size=(2, c)), np.array([3, c - 1]), rng.random((2, c)).astype(dtype)
    x[1] = np.sort(x[1]) * 10_000
    special = np.full((2, c), -np.inf)
    special[0, 400_000] = np.inf
    special[1, [0, c - 1]] = np.nan, 3
    for a in (x.astype(dtype), special.astype(dtype)):
        seen = set()
        for n in COUNTS[:3]:
            with lf.num_threads(n):
                results = [F.logsumexp(a, axis=-1), F.logsumexp(np.asfortranarray(a), axis=-1)]
                assert bits(results[0]) == bits(results[1])
                results += [*lf.value_and_grad(F.cross_entropy)(a, y, reduction="none"), *lf.value_and_grad(F.logsumexp)(a, axis=-1)]
                results += lf.value_and_grad(F.cross_entropy, argnums=(0, 1))(a, share, reduction="none", label_smoothing=0.1)[1]
                for f in (F.softmax, F.log_softmax):
                    results += [f(a), f(a, out=a.copy()), *lf.value_and_grad(f)(a, grad_output=share)]
                    results.append(f(a[1:2]))
                    assert bits(results[-1]) == bits(f(a)[1:2])
                own = a.copy()
                results.append(lf.value_and_grad(F.cross_entropy)(own, y, grad_out=own)[1])
                seen.add(tuple(map(bits, results)))
        assert len(seen) == 1
        with np.errstate(invalid="ignore"):
            want = np.logaddexp.reduce(a.astype(float), axis=-1)
        assert np.allclose(results[0], want, rtol=1e-6, equal_nan=True) or dtype == "float16"


@pytest.mark.parametrize("workers", [2, 8, 16])
def test_many_python_threads_at_once(workers):
    """Each with its own number of OpenMP threads, all functions mixed: every result as if alone."""
    jobs = []
    for param in EVERY_CASE:
        case = param.values[0]
        args, keywords = draw(case, 0, case.large, "float32")
        jobs.append((case, args, keywords, wanted(case, 0, case.large)))
    alone = [gradients(*job) for job in jobs]
    want = [(bits(v), [bits(a) for a in g.values()]) for v, g in alone]
    start = threading.Barrier(workers)

    def work(k):
        start.wait()
        for i in np.random.default_rng(k).permutation(len(jobs)):
            value, grads = gradients(*jobs[i])
            if (bits(value), [bits(a) for a in grads.values()]) != want[i]:
                return jobs[i][0].function
        return None

    with lf.num_threads(2), ThreadPoolExecutor(workers) as pool:
        assert list(pool.map(work, range(workers))) == [None] * workers


def test_errors_in_threads_stay_in_their_threads():
    x, y = np.zeros((3000, 4), np.float32), np.zeros(3000, int)
    bad = y.copy()
    bad[2999] = 4

    def work(k):
        for _ in range(50):
            try:
                value = F.cross_entropy(x, bad if k % 2 else y)
            except IndexError as error:
                assert k % 2 and "target[2999] = 4" in str(error)
            else:
                assert not k % 2 and abs(value - np.log(4)) < 1e-6
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("name", lf.modules.__all__)
def test_making_a_loss_in_many_threads_leaves_warnings_alone(name, monkeypatch):
    """Filters of warnings are the process's: two threads that set them aside at once leave one's behind, here 'ignore' for good."""
    before, every = list(warnings.filters), sys.getswitchinterval()
    monkeypatch.setattr(warnings, "filters", list(before))

    def work(_k):
        for _ in range(100):
            getattr(lf, name)()
            if warnings.filters != before:
                return False
        return True

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(every)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="free-threaded: there is none")
def test_the_gil_is_released():
    """While a long call runs in one thread, another Python thread gets on."""
    x = np.broadcast_to(np.float32(1), (1 << 29,))
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            done.wait(0.001)

    ticker = threading.Thread(target=tick)
    with lf.num_threads(1):
        F.logsumexp(x[:1000])
        ticker.start()
        before = len(ticks)
        F.logsumexp(x)
        after = len(ticks)
        done.set()
        ticker.join()
    assert after - before > 10


# ---- settings -------------------------------------------------------------------------------------------------------


def test_set_get_and_context():
    before = lf.get_num_threads()
    assert before >= 1
    with lf.num_threads(3):
        assert lf.get_num_threads() == 3
        with lf.num_threads(1):
            assert lf.get_num_threads() == 1
        assert lf.get_num_threads() == 3
    assert lf.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), lf.num_threads(2):
        1 / 0  # noqa: B018
    assert lf.get_num_threads() == before
    lf.set_num_threads(4)
    assert lf.get_num_threads() == 4
    lf.set_num_threads(before)


def test_default_is_what_this_process_may_use(python):
    code = "import lossfast as lf; print(lf.get_num_threads())"
    assert int(python(code, OMP_NUM_THREADS="")) == len(os.sched_getaffinity(0))
    assert int(python(code, OMP_NUM_THREADS="3")) == 3
    one = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n{code}"
    assert int(python(one, OMP_NUM_THREADS="")) == 1


def test_setting_is_the_process_not_the_thread():
    with lf.num_threads(3), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lf.get_num_threads).result() == 3


def test_threads_are_really_used(python):
    """A large call with 2 threads starts a second one: the process has more threads than before."""
    program = """
import os, numpy as np, lossfast as lf
count = lambda: len(os.listdir('/proc/self/task'))
x = np.zeros((1000, 1000), np.float32)
before = count()
with lf.num_threads(1): lf.logsumexp(x)
assert count() == before, 'one thread is the calling one'
with lf.num_threads(2): lf.logsumexp(x)
print(count() - before)
"""
    assert int(python(program)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, c", [(70_001, 10), (5000, 100), (40, 3000), (7, 40_000)])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "focal_loss", "multi_margin_loss"])
def test_sums_by_class_of_many_blocks(name, n, c, dtype, rng):
    """Several blocks add to the same sums of the class weights' gradient: for any thread count the same, and beside the value of no gradient."""
    x, y, w = rng.normal(size=(n, c)).astype(dtype), rng.integers(0, c, n), rng.random(c).astype(dtype)
    f = getattr(F, name)
    with lf.num_threads(1):
        value, want = lf.value_and_grad(f, argnums="weight")(x, y, weight=w)
    for threads in (2, 3, 5):
        with lf.num_threads(threads):
            again, got = lf.value_and_grad(f, argnums="weight")(x, y, weight=w)
            assert bits(again) == bits(value) == bits(f(x, y, weight=w)) and bits(got) == bits(want)
    none = f(x, y, weight=np.ones(c), reduction="none").astype(float)
    sums, counts = np.bincount(y, none, c), np.bincount(y, minlength=c)
    by_mean = (sums - counts * float(value)) / w[y].sum(dtype=float) if name != "multi_margin_loss" else sums / n
    np.testing.assert_allclose(got, by_mean, rtol=1e-4 if dtype == np.float32 else 1e-10, atol=1e-7 if dtype == np.float32 else 1e-12)
