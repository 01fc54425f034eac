"""How fast this machine's memory is: the roof the rows are held against.

Read: every byte of a 256 MiB array looked at once, nothing written. Copy: read once and written once elsewhere;
its figure counts both directions, as the rows' bytes do. Each is the best of several candidates, for no single
one is the fastest on every machine: NumPy's in Python threads (the GIL is free in its loops), torch's and, once it
is importable, lossfast's own. The best run counts, not the median: this is a roof.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from functions import lossfast, torch
from rows import threads

SIZE = 256 << 20


def best_rate(call, moved: int, seconds: float, clock) -> float:
    """Bytes per second of the fastest of as many runs as fit."""
    call()
    shortest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = clock()
        call()
        shortest = min(shortest, clock() - begin)
    return moved / shortest


def candidates(n: int, pool: ThreadPoolExecutor):
    """(what, call, bytes), for reading and for copying."""
    a = np.ones(SIZE // 4, np.float32)
    b = np.ones_like(a)
    parts = list(zip(np.array_split(a, n), np.array_split(b, n), strict=True))

    def each(f):
        return lambda: list(pool.map(f, *zip(*parts, strict=True)))

    read = [
        ("np.max", each(lambda x, y: x.max()), SIZE),
        ("np.sum", each(lambda x, y: x.sum()), SIZE),
        ("np.count_nonzero", each(lambda x, y: np.count_nonzero(x.view(np.bool_))), SIZE),
    ]
    copy = [("np.copyto", each(lambda x, y: np.copyto(y, x)), 2 * SIZE)]
    if torch:
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        read += [("torch.max", lambda: ta.max(), SIZE), ("torch.sum", lambda: ta.sum(), SIZE)]
        copy += [("torch.copy_", lambda: tb.copy_(ta), 2 * SIZE)]
    if hasattr(lossfast, "mse_loss"):
        read += [("lossfast.mse_loss", lambda: lossfast.mse_loss(a, b), 2 * SIZE)]
    return read, copy


def measure(n: int, clock=time.perf_counter, seconds: float = 0.5) -> dict[str, tuple[float, str]]:
    """{'read': (bytes per second, candidate), 'copy': ...} with n threads."""
    with ThreadPoolExecutor(n) as pool, threads(n):
        return {
            kind: max((best_rate(call, moved, seconds, clock), what) for what, call, moved in some)
            for kind, some in zip(("read", "copy"), candidates(n, pool), strict=True)
        }
