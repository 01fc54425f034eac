"""Memory: no array is copied or converted as a whole, failed allocations raise and leak nothing, products that overflow are refused."""

import sys

import lossfast as lf
import lossfast.functional as F
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEASURE = """
import sys, resource, numpy as np, lossfast as lf, lossfast.functional as F
lf.set_num_threads(2)
try:
    import ml_dtypes
except ImportError:
    pass

def peak():
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1024

def extra(call):
    '''MB by which the peak of resident memory grows during the call, over what is resident before it.'''
    open('/proc/self/clear_refs', 'w').write('5')
    before = peak()
    result = call()
    return peak() - before, result
"""

LAYOUTS = {  # 64 MB each as float32
    "contiguous": "np.zeros((256, 65536), np.float32) + 1",
    "float16": "np.zeros((512, 65536), np.float16) + np.float16(1)",
    "bfloat16": "(np.zeros((512, 65536), np.float32) + 1).astype(ml_dtypes.bfloat16)",
    "float64": "np.zeros((128, 65536)) + 1",
    "every second": "(np.zeros((128, 131072), np.float32) + 1)[:, ::2]",
    "reversed": "(np.zeros((256, 65536), np.float32) + 1)[::-1, ::-1]",
    "fortran": "np.asfortranarray(np.zeros((256, 65536), np.float32) + 1)",
    "misaligned": "np.frombuffer(b'1' + bytes(4 * 256 * 65536), np.float32, offset=1, count=256 * 65536).reshape(256, 65536)",
    "few classes": "np.zeros((1677721, 10), np.float32) + 1",
    "few classes, fortran": "np.asfortranarray(np.zeros((1677721, 10), np.float32) + 1)",
    "class axis in the middle": "np.zeros((8, 32, 65536), np.float32) + 1",
    "one row": "np.zeros((1, 16777216), np.float32) + 1",
}
CALLS = {  # what is called, and the MB it may add: its results (mean: none; 'none' 7 MB at most), its stacks, and a little for the allocator
    "cross_entropy": ("F.cross_entropy(x, y)", 2),
    "cross_entropy none": ("F.cross_entropy(x, y, reduction='none')", 9),
    "cross_entropy smoothed, weighted": ("F.cross_entropy(x, y, w, label_smoothing=0.1)", 2),
    "cross_entropy probabilities": ("F.cross_entropy(x, x)", 2),
    "nll_loss": ("F.nll_loss(x, y)", 2),
    "logsumexp": ("F.logsumexp(x, axis=1)", 9),
    "logsumexp of all": ("F.logsumexp(x, axis=None)", 2),
    "gradient into a given array": ("lf.value_and_grad(F.cross_entropy)(x, y, grad_out=g)", 2),
    "softmax into a given array": ("F.softmax(x, axis=1, out=o)", 2),
    "mse_loss": ("F.mse_loss(x, x)", 2),
    "bce with logits": ("F.binary_cross_entropy_with_logits(x, x)", 2),
    "gaussian_nll_loss": ("F.gaussian_nll_loss(x, x, x)", 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_copy_of_the_whole(python, layout):
    """Extra resident memory of a call on 64 MB, in every layout: of the order of the stacks, not of the arrays."""
    calls = {k: v for k, v in CALLS.items() if hasattr(F, v[0].split("F.")[1].split("(")[0].split(")")[0])}
    program = (
        MEASURE
        + f"""
x = {LAYOUTS[layout]}
c = x.shape[1]
y = np.zeros(x.shape[:1] + x.shape[2:], np.int32)
w = np.ones(c, np.float32)
g = np.zeros_like(x) + x.dtype.type(1)
o = np.zeros(x.shape, np.float64 if x.dtype == np.float64 else np.float32) + 1
small = np.ones((4, 8), np.float32)
lf.value_and_grad(F.cross_entropy)(small, np.zeros(4, int)); F.logsumexp(np.ones((3000, 100), np.float32))
for call, limit in {list(calls.values())!r}:
    for _ in range(2):
        mb, _ = extra(lambda: eval(call))
    print(f'{{mb:.2f}} MB {{call}}')
    assert mb <= limit + (1 if c > 10**6 else 0), f'{{call}} took {{mb:.1f}} MB more'
"""
    )
    python(program, alarm=120)


ENDLESS = {  # more blocks than there is room for: a call, and what it comes to
    "elements": ("F.mse_loss(many(1, M), many(3, M))", "4"),
    "transposed": ("F.mse_loss(far, many(0, *far.shape), reduction='sum')", "counts @ (base.astype(float) ** 2)"),
    "mask": ("F.mse_loss(many(1, M), many(3, M), where=np.broadcast_to(True, M))", "4"),
    "few classes": ("F.cross_entropy(many(0, N, 5), labels)", "np.log(5)"),
    "class weights": ("F.nll_loss(many(-1, N, 5), labels, ones, reduction='sum')", "N"),
    "by class weight": ("by_weight(F.nll_loss)(many(-1, N, 5), labels, ones, reduction='sum')[1][2]", "N"),
    "by a broadcast row": ("by_y(F.mse_loss)(many(1, M // 1000, 1000), 0 * many(0, 1000), reduction='sum')[1]", "-2 * (M // 1000)"),
    "vectors": ("F.cosine_embedding_loss(many(1, N, 5), many(1, N, 5), many(-1, N))", "1"),
}


@pytest.mark.parametrize("call", ENDLESS)
def test_reductions_take_the_same_room_whatever_the_size(python, call):
    program = (
        MEASURE
        + f"""
def many(value, *shape):
    return np.broadcast_to(np.float32(value), shape)

ones = np.ones(5, np.float32)
by_y, by_weight = (lambda f, name=name: lf.value_and_grad(f, argnums=name) for name in (1, "weight"))
base = np.random.default_rng(0).normal(size=59999).astype(np.float32)
far = np.lib.stride_tricks.as_strided(base, (20000, 20000), (4, 8))
counts = np.convolve(np.ones(20000), np.kron(np.ones(20000), [1, 0]))
for N, M in (10**5, 10**5), (22 * 10**7, 3 * 10**8):  # the first for threads and their stacks
    labels = np.broadcast_to(np.int8(2), N)
    mb, value = extra(lambda: {ENDLESS[call][0]})
np.testing.assert_allclose(value, {ENDLESS[call][1]}, rtol=2e-7)
assert mb < 1, f'{{mb:.2f}} MB more'
"""
    )
    python(program, alarm=120)


def test_fresh_gradient_costs_the_gradient(python):
    program = (
        MEASURE
        + """
x = np.zeros((256, 65536), np.float32) + 1
y = np.zeros(256, int)
F.logsumexp(x)
mb, _ = extra(lambda: lf.value_and_grad(F.cross_entropy)(x, y))
assert 60 < mb < 66.5, mb
"""
    )
    python(program)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="linear_cross_entropy has not landed")
def test_linear_cross_entropy_never_holds_the_logits(python, tmp_path):
    """131 MB of logits: forward and gradients stay under 64 MB beside the gradients; the weight may be a memory-mapped file of halves."""
    program = (
        MEASURE
        + f"""
h, y = np.ones((256, 64), np.float32), np.arange(256)
np.save({str(tmp_path / "w.npy")!r}, np.zeros((128000, 64), np.float16))
w = np.load({str(tmp_path / "w.npy")!r}, mmap_mode='r')
F.linear_cross_entropy(h, w[:1000], y)
w.sum()
for call, limit in ((lambda: F.linear_cross_entropy(h, w, y), 64), (lambda: lf.value_and_grad(F.linear_cross_entropy, argnums=(0, 1))(h, w, y), 64 + 16)):
    mb, result = extra(call)
    assert mb < limit, mb
assert abs(F.linear_cross_entropy(h, w, y) - np.log(128000)) < 1e-4
h, w = np.ones((800, 768), ml_dtypes.bfloat16), np.zeros((16000, 768), ml_dtypes.bfloat16)
grads = np.ones_like(h), np.ones_like(w)
mb, _ = extra(lambda: lf.value_and_grad(F.linear_cross_entropy, argnums=(0, 1))(h, w, np.arange(800), grad_out=grads))
assert mb < 64, mb
"""
    )
    python(program, alarm=120)


def test_nothing_leaks(python):
    """A hundred thousand calls, right and wrong ones, of every kind of result: resident memory stays."""
    program = (
        MEASURE
        + """
x, y, bad = np.ones((40, 8), np.float32), np.zeros(40, int), np.full(40, 9)
wide, wide_y = np.ones((3, 3000), np.float32), np.zeros(3, int)
vg = lf.value_and_grad
wrong = [lambda: F.cross_entropy(x, bad), lambda: F.cross_entropy(x, y[:3]), lambda: F.softmax(x, axis=7), lambda: F.softmax(x.astype(object)),
         lambda: vg(F.cross_entropy, argnums=9)(x, y), lambda: F.cross_entropy(x, bad, reduction='none'), lambda: vg(F.nll_loss)(x, bad)]
right = [lambda: F.cross_entropy(x, y), lambda: F.cross_entropy(x, y, reduction='none'), lambda: vg(F.cross_entropy)(x, y), lambda: F.softmax(x),
         lambda: F.logsumexp(x, axis=None), lambda: F.cross_entropy(wide, wide_y, np.ones(3000, np.float32)), lambda: F.sigmoid(x),
         lambda: vg(F.cross_entropy, argnums=('input', 'weight'))(x, y, np.ones(8))]
def round():
    for call in right: call()
    for call in wrong:
        try: call()
        except (TypeError, ValueError, IndexError): pass
        else: raise AssertionError
def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096
import gc
for _ in range(1000): round()
gc.collect(); before = resident()
for _ in range(7000): round()
gc.collect(); grown = resident() - before
assert grown < 400_000, f'{grown} bytes'
"""
    )
    python(program, alarm=120)


def test_memory_error(python):
    """Under a limit of address space: MemoryError, and calls that fit are right before and after."""
    program = """
import resource, numpy as np, lossfast as lf, lossfast.functional as F
x = np.ones((40, 8), np.float32); y = np.zeros(40, int)
want = F.cross_entropy(x, y)
lf.logsumexp(np.ones((3000, 100), np.float32))
huge = np.broadcast_to(np.float32(0), (2**16, 2**14))
used = int(open('/proc/self/statm').read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
big_y = np.broadcast_to(np.int64(0), 2**16)
calls = [lambda: F.softmax(huge), lambda: F.log_softmax(huge), lambda: F.sigmoid(huge), lambda: lf.value_and_grad(F.cross_entropy)(huge, big_y),
         lambda: lf.value_and_grad(F.logsumexp)(huge), lambda: F.logsumexp(np.broadcast_to(np.float32(0), (2**29, 1))),
         lambda: F.cross_entropy(np.broadcast_to(np.float32(0), (2**29, 1)), np.broadcast_to(np.int64(0), 2**29), reduction='none')]
for call in calls:
    try: call()
    except MemoryError: pass
    else: raise AssertionError('no MemoryError')
    assert F.cross_entropy(x, y) == want
assert abs(F.cross_entropy(huge, big_y) - np.log(2**14)) < 1e-5
"""
    python(program, alarm=120)


# ---- shapes whose products overflow ---------------------------------------------------------------------------------


def thin(shape, dtype=np.float32):
    return np.broadcast_to(np.zeros((), dtype), shape)


OVERFLOWING = {
    "softmax of 2^61 halves is 2^63 bytes": lambda: F.softmax(thin((2**31, 2**30), np.float16)),
    "log_softmax of 2^60 numbers": lambda: F.log_softmax(thin((2**30, 2**30))),
    "sigmoid of 2^61 halves": lambda: F.sigmoid(thin((2**31, 2**30), np.float16)),
    "gradient of 2^60 logits": lambda: lf.value_and_grad(F.cross_entropy)(thin((2**30, 2**30)), thin(2**30, np.int64)),
    "none of 2^61 rows": lambda: F.cross_entropy(thin((2**61, 1), np.float16), thin(2**61, np.int8), reduction="none"),
    "logsumexp of 2^61 rows": lambda: F.logsumexp(thin((2**61, 1), np.float16)),
    "logsumexp of 2^62 rows": lambda: F.logsumexp(thin((2**62, 1), np.int8)),
}
if hasattr(F, "mse_loss"):
    OVERFLOWING |= {
        "a broadcast of 2^80 elements": lambda: F.mse_loss(thin((2**40, 1)), thin((1, 2**40))),
        "a broadcast of 2^64 elements": lambda: F.mse_loss(thin((2**32, 1)), thin((1, 2**32))),
        "a broadcast of 2^63 elements, none": lambda: F.mse_loss(thin((2**32, 1)), thin((1, 2**31)), reduction="none"),
        "a broadcast of 2^62 elements, none": lambda: F.mse_loss(thin((2**31, 1)), thin((1, 2**31)), reduction="none"),
    }


@pytest.mark.filterwarnings("ignore:.*broadcast:UserWarning")
@pytest.mark.parametrize("what", OVERFLOWING)
def test_sizes_that_overflow_are_refused(what):
    with pytest.raises((ValueError, MemoryError)):
        OVERFLOWING[what]()


def test_strided_shapes_without_memory():
    """as_strided arrays of zero or overlapping strides are read as they are."""
    a = np.arange(8.0, dtype=np.float32)
    x = np.lib.stride_tricks.as_strided(a, (5, 4), (4, 4))
    assert (F.logsumexp(x) == F.logsumexp(x.copy())).all()
    y = np.zeros(5, int)
    assert F.cross_entropy(x, y) == F.cross_entropy(x.copy(), y)
