"""The rows as pytest-benchmark cases: `pytest bench --benchmark-only`.

Small sizes, so that a run takes under a minute; run.py measures the real ones. Nothing here fails on time.
What lossfast returns must agree with every peer that is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves the bench's own modules out

from functions import lossfast, torch
from rows import ROWS, Row, peers

pytest.importorskip("pytest_benchmark")

# Peers round a half-precision result to half, and torch's float32 CTC gradient is off by up to 7e-3 on long input.
TOLERANCE = {"float16": (2e-2, 2e-2), "bfloat16": (1e-1, 1e-1), "float32": (1e-4, 1e-5), "float64": (1e-12, 1e-13)}


def distinct() -> list[tuple[str, Row]]:
    """Who can do what: one row of all that are the same once small, for each library that has the function."""
    rows = {(r.function, r.small or r.shape, r.mode, r.dtype): r for r in ROWS}.values()
    return [("lossfast", row) for row in rows] + [(peer, row) for row in rows for peer in peers(row)]


def arrays(result) -> list[np.ndarray]:
    """A result's value, or value and gradient, as float64."""
    parts = result if isinstance(result, tuple) else (result,)
    if torch:
        parts = [p.detach().double().numpy() if torch.is_tensor(p) else p for p in parts]
    return [np.asarray(p, np.float64) for p in parts]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "row"), distinct(), ids=lambda x: x.name.replace(" ", "-") if isinstance(x, Row) else x)
def test_row(benchmark, library: str, row: Row):
    try:
        calls = row.build(small=True).calls
    except LookupError as missing:
        pytest.skip(str(missing))
    if library not in calls:
        pytest.skip(f"{library} has no {row.function}")
    benchmark.group = row.name
    result = benchmark.pedantic(calls[library], rounds=20, iterations=5, warmup_rounds=2)
    if library != "lossfast" and lossfast and "lossfast" in calls:
        rtol, atol = TOLERANCE[row.dtype]
        for ours, theirs in zip(arrays(calls["lossfast"]()), arrays(result), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol, atol)
