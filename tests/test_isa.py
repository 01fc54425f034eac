"""Instruction sets: all agree within the stated error, LOSSFAST_ISA forces one, and show_config tells."""

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


def test_show_config(capsys):
    text = str(lf.show_config() or "") + capsys.readouterr().out
    for word in (lf.__version__, "threads", "OpenMP", _core.isas()[0], _core.isas()[-1]):
        assert word.lower() in text.lower(), word
