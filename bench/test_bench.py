"""The rows as pytest-benchmark cases: `pytest bench --benchmark-only`.

Small sizes, so that a run takes under a minute; run.py measures the real ones. Nothing here fails on time.
What lossfast returns must agree with every peer that is installed.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import ROWS, Row, lossfast, torch

pytest.importorskip("pytest_benchmark")

LIBRARIES = "lossfast", "torch", "scipy", "numpy"
# Peers round a half-precision result to half, and torch's float32 CTC gradient is off by up to 7e-3 on long input.
TOLERANCE = {"float16": (2e-2, 2e-2), "bfloat16": (1e-1, 1e-1), "float32": (1e-4, 1e-5), "float64": (1e-12, 1e-13)}


def distinct() -> list[Row]:
    """One row of all that are the same once small."""
    return list({(r.function, r.small or r.shape, r.mode, r.dtype): r for r in ROWS}.values())


def arrays(result) -> list[np.ndarray]:
    """A result's value, or value and gradient, as float64."""
    parts = result if isinstance(result, tuple) else (result,)
    if torch:
        parts = [p.detach().double().numpy() if torch.is_tensor(p) else p for p in parts]
    return [np.asarray(p, np.float64) for p in parts]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", distinct(), ids=lambda row: row.name.replace(" ", "-"))
@pytest.mark.parametrize("library", LIBRARIES)
def test_row(benchmark, row: Row, library: str):
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
