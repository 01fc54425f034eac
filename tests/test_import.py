"""The import: fast, quiet, of NumPy alone, and without a trace in the process."""

import inspect

import lossfast as lf
import lossfast.functional as F


def test_takes_under_five_milliseconds_beyond_numpys(python):
    """This thread's processor time (OpenBLAS's threads spin after NumPy's import), the best of a few fresh interpreters: the machine may be busy.

    Five milliseconds where NumPy's own import takes 50, in proportion where the machine is slower.
    """
    program = """
from time import thread_time
start = thread_time()
import numpy
middle = thread_time()
import lossfast
print(middle - start, thread_time() - middle)
"""
    numpys, ours = (min(times) for times in zip(*(map(float, python(program).split()) for _ in range(9)), strict=True))
    assert ours < 0.005 * max(1, numpys / 0.050), f"{ours * 1e3:.2f} ms beside NumPy's {numpys * 1e3:.1f} ms"


def test_loads_only_numpy(python):
    program = """
import sys, numpy
before = set(sys.modules)
import lossfast
stdlib = sys.stdlib_module_names
print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] not in stdlib and m.split('.')[0] != 'lossfast'))
"""
    names = [m for m in eval(python(program)) if not m.startswith(("numpy", "_cython", "cython_runtime"))]
    assert names == []


def test_leaves_the_process_as_it_was(python):
    program = """
import os, sys, signal, warnings, locale, numpy as np
def state():
    handlers, filters = [signal.getsignal(s) for s in (2, 15)], list(warnings.filters)
    threads, files = len(os.listdir('/proc/self/task')), sorted(os.listdir('/proc/self/fd'))
    return (dict(os.environ), os.getcwd(), list(sys.path), handlers, np.geterr(), filters, np.get_printoptions(), threads, files,
            sys.getswitchinterval(), locale.setlocale(locale.LC_ALL), np.random.get_state()[1].tolist())
before = state()
import lossfast
assert state() == before
import lossfast.functional as F
F.softmax(np.zeros((2000, 1000), np.float32)); F.cross_entropy(np.full((50, 70), -100, np.float32), np.zeros(50, int))
assert np.float32(1e-40) * np.float32(0.5) != 0, 'denormals are flushed after a call'
assert np.geterr() == before[4]
"""
    python(program)


def test_prints_nothing(python):
    assert python("import lossfast") == ""


def test_floating_point_flags_do_not_become_warnings(python):
    """A call on any numbers raises no NumPy RuntimeWarning, even where the caller asked for errors."""
    program = """
import numpy as np, lossfast as lf, lossfast.functional as F
np.seterr(all='raise')
x = np.array([[1e30, -1e30, np.inf], [np.nan, 0, 1], [-np.inf, -np.inf, -np.inf], [1e-40, 100, -200]], np.float32)
F.softmax(x); F.logsumexp(x); F.log_softmax(x); F.sigmoid(x); lf.value_and_grad(F.cross_entropy)(x, np.array([0, 1, 2, 0]))
F.cross_entropy(x[:0], np.zeros(0, int)); F.softmax(np.zeros((3, 3), np.float16)); F.nll_loss(x, np.full(4, -100))
"""
    python(program)


def test_no_subinterpreter_crash(python):
    """NumPy does not load in one; neither may lossfast, and cleanly."""
    program = """
import sys
try:
    import _xxsubinterpreters as sub
except ImportError:
    try:
        import _interpreters as sub
    except ImportError:
        sys.exit()
i = sub.create()
try:
    error = sub.run_string(i, "try:\\n import lossfast\\nexcept ImportError:\\n pass")
except Exception as e:
    print(e)
"""
    python(program)


def test_everything_public_is_in_all():
    assert len(set(lf.__all__)) == len(lf.__all__)
    for name in lf.__all__:
        assert hasattr(lf, name), name
    seen = {name for name, value in vars(lf).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert seen <= set(lf.__all__), seen - set(lf.__all__)
    for name in ("value_and_grad", "set_num_threads", "get_num_threads", "num_threads", "show_config", "cross_entropy", "CrossEntropyLoss"):
        assert name in lf.__all__
    for name, value in vars(F).items():
        if inspect.isfunction(value) and value.__module__ == F.__name__ and not name.startswith("_"):
            assert getattr(lf, name) is value, name


def test_version_is_the_distributions():
    import importlib.metadata

    assert lf.__version__ == importlib.metadata.version("lossfast")


def test_importing_leaves_the_gil_disabled_where_it_is(python):
    """Py_MOD_GIL_NOT_USED is declared: a free-threaded interpreter does not switch the GIL on (nothing to see on an ordinary one)."""
    program = "import sys, numpy; on = getattr(sys, '_is_gil_enabled', lambda: True); before = on(); import lossfast; assert on() == before"
    python(program)


def test_dir_lists_what_is_imported_late(python):
    program = "import lossfast; print({*lossfast.__all__, '__version__'} - {*dir(lossfast)})"
    assert python(program).strip() == "set()"
