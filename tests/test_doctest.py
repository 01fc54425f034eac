"""Every docstring's example runs, and README's Python blocks do."""

import doctest
import pathlib
import re

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
NAMES = {"np": np, "lf": lf, "F": F}


@pytest.mark.parametrize("name", sorted(set(lf.__all__)))
def test_docstring(name):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=OPTIONS)
    for test in finder.find(getattr(lf, name), name, globs=dict(NAMES)):
        runner.run(test)
    assert runner.failures == 0


@pytest.mark.skipif(not README.exists(), reason="installed without its source")
def test_readme_blocks(tmp_path, monkeypatch):
    """Blocks marked python; those with a prompt as doctests, the others in one namespace, where the files they name exist."""
    names = dict(NAMES)
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    np.save("targets.npy", np.arange(20) % 5)
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, "README", "README.md", 0)
            runner = doctest.DocTestRunner(optionflags=OPTIONS)
            runner.run(test)
            assert runner.failures == 0
        else:
            exec(compile(block, "README.md", "exec"), names)
