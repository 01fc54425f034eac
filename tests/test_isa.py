"""Instruction sets: all agree within the stated error, LOSSFAST_ISA forces one, and show_config tells."""

import platform

import lossfast as lf
import numpy as np
import pytest
from calls import EVERY_OPTION, close, draw, gradients, reductions, wanted
from lossfast import _core

pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")
KNOWN = ("base", "avx2", "avx512")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case, option", EVERY_OPTION)
def test_all_agree(case, option, dtype):
    for shape in case.shapes[3:]:
        args, keywords = draw(case, option, shape, dtype)
        names = wanted(case, option, shape)
        for reduction in reductions(case):
            results = []
            for name in _core.isas():
                before = _core.set_isa(name)
                results.append(gradients(case, args, keywords | reduction, names))
                _core.set_isa(before)
            first_value, first = results[0]
            for value, grads in results[1:]:
                scale = max(1, np.abs(first_value).max(initial=0, where=np.isfinite(first_value)))
                close(value, first_value, dtype, scale, (shape, reduction))
                for n in names:
                    close(grads[n], first[n], dtype, max(1, np.abs(first[n]).max(initial=0)), (shape, reduction, n))


def test_names():
    assert set(_core.isas()) <= set(KNOWN) and _core.isas()[0] == "base"
    before = _core.set_isa("base")
    assert before in _core.isas() and _core.set_isa(before) == "base"
    with pytest.raises(ValueError, match="sse9"):
        _core.set_isa("sse9")


@pytest.mark.parametrize("name", _core.isas())
def test_environment_forces_one(python, name):
    program = "import lossfast as lf; from lossfast import _core; n = _core.set_isa('base'); _core.set_isa(n); lf.show_config(); print('in use:', n)"
    printed = python(program, LOSSFAST_ISA=name)
    assert f"in use: {name}" in printed
    assert all(isa in printed for isa in _core.isas())


def test_unknown_name_in_the_environment_is_told(python):
    """A warning that lists the valid names, and the best one is used: an import must not fail for it."""
    program = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter('always')
    import lossfast
    from lossfast import _core
print([str(w.message) for w in seen]); n = _core.set_isa('base'); print('in use:', n)
"""
    printed = python(program, LOSSFAST_ISA="avx1024")
    assert "LOSSFAST_ISA" in printed and "avx1024" in printed and "base" in printed
    assert f"in use: {_core.isas()[-1]}" in printed or "in use: base" in printed


@pytest.mark.skipif(platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="the register's place is x86-64 glibc's")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_caller_that_flushes_subnormals_leaves_nothing_behind(python, dtype):
    """Not in the tables of logarithms of halves that the first large call makes, nor in the threads it starts, which follow their caller later too."""
    program = """
import ctypes, sys, lossfast as lf, ml_dtypes, numpy as np
def flush(yes):
    libm, state = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * 8)()
    libm.fegetenv(state)
    state[7] = state[7] | 0x8040 if yes else state[7] & ~0x8040
    libm.fesetenv(state)
tiny, ones = (np.full(1 << 19, v).astype(sys.argv[1]) for v in (1e-7 if sys.argv[1] == "float16" else 1e-39, 1))
flush(True)
assert np.float32(1e-39) * np.float32(1) == 0
lf.set_num_threads(2)
lf.binary_cross_entropy(tiny, ones)
flush(False)
value, few = lf.binary_cross_entropy(tiny, ones), lf.binary_cross_entropy(tiny[:100], ones[:100])
assert value == few, (value, few)
tiny, ones = np.full(1 << 19, 1e-39, np.float32), np.float32(1)
for yes in (True, False):
    flush(yes)
    with lf.num_threads(1): alone = lf.binary_cross_entropy(tiny, np.broadcast_to(ones, tiny.shape))
    assert alone == lf.binary_cross_entropy(tiny, np.broadcast_to(ones, tiny.shape)), alone
"""
    for name in _core.isas():
        python(program, dtype, LOSSFAST_ISA=name)


def test_show_config(capsys):
    text = str(lf.show_config() or "") + capsys.readouterr().out
    for word in (lf.__version__, "threads", "OpenMP", _core.isas()[0], _core.isas()[-1]):
        assert word.lower() in text.lower(), word
