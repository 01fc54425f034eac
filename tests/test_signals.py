"""Signals: Ctrl-C and other handlers that raise end a long call early, and the library works on."""

import signal
import sys
import time

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets a timer")


def many(value, *shape):
    return np.broadcast_to(np.float32(value), shape)


N = 10**12  # elements: minutes of work, in no memory
LABELS = np.broadcast_to(np.int8(2), N // 5)
LONG = {
    "sum": lambda: F.mse_loss(many(1, N), many(3, N)),
    "mask": lambda: F.binary_cross_entropy(many(0.5, N), many(1, N), where=np.broadcast_to(True, N)),
    "by a broadcast argument": lambda: lf.value_and_grad(F.mse_loss, argnums=1)(many(1, N // 100), np.ones(1, np.float32)),
    "rows": lambda: F.cross_entropy(many(0, N // 5, 5), LABELS),
    "by class weight": lambda: lf.value_and_grad(F.nll_loss, argnums="weight")(many(0, N // 5, 5), LABELS, np.ones(5, np.float32)),
    "vectors": lambda: F.cosine_embedding_loss(many(1, N // 5, 5), many(1, N // 5, 5), many(1, N // 5)),
    "beams": lambda: F.ctc_beam_search_decode(many(0, 1000, 20000, 100), beam_width=100),
    "transducer": lambda: F.rnnt_loss(many(0, 500, 500, 100, 500), np.ones((500, 99), int), [500] * 500, [99] * 500),
}


class Alarm(Exception):
    pass


@pytest.fixture
def alarm():
    """Starts a clock whose handler raises."""

    def handler(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore:.*broadcast:UserWarning")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", LONG)
def test_a_handler_that_raises_ends_the_call(alarm, call, threads):
    with lf.num_threads(threads):
        begun = time.perf_counter()
        with pytest.raises(Alarm):
            alarm(0.15)
            LONG[call]()
        assert time.perf_counter() - begun < 10, "the call went on"
        assert F.mse_loss(np.zeros(10**6), np.ones(10**6)) == 1
