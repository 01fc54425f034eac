"""Fixtures: every instruction set this machine can run, thread counts, a seeded generator, and a fresh interpreter."""

import os
import subprocess
import sys
import zlib

import lossfast as lf
import numpy as np
import pytest
from lossfast import _core


@pytest.fixture(params=_core.isas())
def isa(request):
    before = _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(params=(1, 2, 3, 5))
def threads(request):
    with lf.num_threads(request.param):
        yield request.param


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def python():
    """Run a program in a fresh interpreter, with `alarm` seconds to live; returns what it printed."""

    def run(program, *arguments, alarm=60, **environment):
        program = f"import signal; signal.alarm({alarm})\n{program}"
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=os.environ | environment, capture_output=True, text=True, timeout=2 * alarm,
        )  # fmt: skip
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
