"""The library under AddressSanitizer and UndefinedBehaviorSanitizer: built apart, then a fast part of these tests run in it.

Takes minutes: runs where LOSSFAST_SANITIZE=1, which .ci/run sets.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.environ.get("LOSSFAST_SANITIZE") != "1", reason="LOSSFAST_SANITIZE is not 1")

# what reads and writes at every border: odd sizes, layouts, special rows, every error
SUBSET = [f"test_{name}.py" for name in ("edges", "errors", "layouts", "reductions", "values", "ctc", "ctc_decode", "rnnt")]


def library(name):
    return subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """A copy of the library in a directory of its own; meson and ninja are those beside this Python."""
    where = tmp_path_factory.mktemp("asan")
    setup = [
        "-Db_sanitize=address,undefined",
        "-Db_lundef=false",
        "-Dbuildtype=debugoptimized",
        "-Disas=avx2",
        "-Dc_args=-fno-omit-frame-pointer -fno-sanitize-recover=undefined",
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-build-isolation",
        "--no-deps",
        "--target",
        str(where / "site"),
        str(ROOT),
        f"-Cbuild-dir={where / 'build'}",
    ]
    subprocess.run(command + [f"-Csetup-args={s}" for s in setup], check=True, env=environment())
    return where / "site"


def environment():
    return os.environ | {"PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(sanitized, *command, **more):
    env = environment() | more | {
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": f"{sanitized}{os.pathsep}{ROOT / 'tests'}",
        "LOSSFAST_SANITIZE": "0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }  # fmt: skip
    env.setdefault("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1")
    return subprocess.run([sys.executable, "-P", *command], env=env, cwd=sanitized, capture_output=True, text=True)


def test_it_is_the_sanitized_copy(sanitized):
    done = run(sanitized, "-c", "import lossfast; print(lossfast.__file__)")
    assert str(sanitized) in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", SUBSET)
def test_clean(sanitized, name):
    """No report and no crash (a test that fails does so without sanitizers too). -s: pytest's capture would swallow the report of a dead process."""
    done = run(sanitized, "-m", "pytest", "-q", "-s", "--maxfail=20", "-p", "no:cacheprovider", str(ROOT / "tests" / name))
    printed = done.stdout + done.stderr
    reports = [line for line in printed.splitlines() if "ERROR: AddressSanitizer" in line or "runtime error:" in line]
    assert done.returncode in (0, 1) and reports == [], printed[-8000:]


def test_no_leak_of_our_own(sanitized):
    """LeakSanitizer sees CPython's and NumPy's own few; a stack through lossfast's module fails."""
    program = """
import numpy as np, lossfast as lf, lossfast.functional as F
x, y = np.ones((300, 70), np.float32), np.zeros(300, int)
for _ in range(3):
    F.cross_entropy(x, y); lf.value_and_grad(F.cross_entropy)(x, y, np.ones(70))
    F.softmax(x.T, axis=0); F.logsumexp(x, axis=None); F.nll_loss(x, y, reduction='none')
    for bad in (y + 70, y[:3], None):
        try: F.cross_entropy(x, bad)
        except (TypeError, ValueError, IndexError): pass
"""
    done = run(sanitized, "-c", program, ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1:exitcode=0")
    stacks = [s for s in done.stderr.split("\n\n") if "leak of" in s and ("lossfast/_core" in s or "lossc" in s)]
    assert stacks == [] and "ERROR: AddressSanitizer:" not in done.stderr, "\n\n".join(stacks) + done.stderr[-2000:]
