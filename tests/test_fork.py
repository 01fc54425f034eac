"""Fork after threads were used: the six situations in which a libgomp pool is known to hang, each in a process with an alarm.

The child must be right, and parallel: it has a second thread after a large call with two.
"""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

COMMON = """
import os, signal, sys, threading
import numpy as np
import lossfast as lf
x = np.random.default_rng(0).normal(size=(2000, 500)).astype(np.float32)
lf.set_num_threads(2)
want = lf.logsumexp(x).tobytes()

def right():
    before = len(os.listdir('/proc/self/task'))
    assert lf.logsumexp(x).tobytes() == want
    return len(os.listdir('/proc/self/task')) - before

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, 'the child hung or failed'
"""

SITUATIONS = {
    "fork in the thread that has a pool": """
def work():
    started = right()
    assert started == 1, f'{started} threads started in the child'
child(work); right(); child(work)
""",
    "fork from another thread": """
t = threading.Thread(target=child, args=(right,)); t.start(); t.join(); right()
""",
    "used in a new thread of the child": """
def work():
    done = []
    t = threading.Thread(target=lambda: done.append(right())); t.start(); t.join()
    assert done and done[0] >= 1
child(work)
""",
    "forks while another thread is inside a region": """
stop = threading.Event()
def busy():
    while not stop.is_set(): lf.logsumexp(x)
t = threading.Thread(target=busy); t.start()
for _ in range(20): child(lambda: lf.logsumexp(x).tobytes() == want or 1 / 0)
stop.set(); t.join(); right()
""",
    "multiprocessing.Pool(fork)": """
import multiprocessing
def job(k):
    assert lf.logsumexp(x).tobytes() == want
    return k
with multiprocessing.get_context('fork').Pool(3) as pool:
    assert pool.map(job, range(12)) == list(range(12))
""",
    "a preloading server: workers forked from workers": """
def worker():
    right()
    child(right)
    right()
for _ in range(3): child(worker)
right()
""",
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_survives(python, situation):
    python(COMMON + SITUATIONS[situation], alarm=30)


def test_other_start_methods(python, tmp_path):
    program = tmp_path / "spawned.py"
    program.write_text(
        "import multiprocessing, numpy as np, lossfast as lf\n"
        "def job(k): return float(lf.logsumexp(np.zeros((1000, 100), np.float32) + k).mean())\n"
        "if __name__ == '__main__':\n"
        "    lf.logsumexp(np.zeros((1000, 100), np.float32))\n"
        "    for how in ('spawn', 'forkserver'):\n"
        "        with multiprocessing.get_context(how).Pool(2) as pool:\n"
        "            assert [round(v - k, 4) for k, v in enumerate(pool.map(job, range(4)))] == [4.6052] * 4\n"
    )
    python(f"import runpy, sys; sys.argv = [{str(program)!r}]; runpy.run_path({str(program)!r}, run_name='__main__')", alarm=60)


def test_thread_setting_survives_the_fork(python):
    python(COMMON + "lf.set_num_threads(3)\ndef work(): assert lf.get_num_threads() == 3\nchild(work)")
