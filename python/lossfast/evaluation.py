"""`evaluate`: a model's outputs, in memory or in files of any size, scored block by block.

What is summed is each sample's loss as ``reduction='none'`` returns it, and the sum is exact: an integer of any length holds it.  So neither the
size of the blocks nor their order nor the number of threads changes a bit of any figure, and a mean is the correctly rounded quotient of exact sums.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

import lossfast.functional as F
from lossfast import _core

__all__ = ["Evaluation", "Sample", "evaluate"]

SCHEMA_VERSION = 1

_BLOCK_BYTES = 4 << 20  # stays in the cache from reading to argmax
_RUN_BYTES = 64 << 10  # contiguous runs shorter than this are worth a larger block
_KEPT_BYTES = 31 << 20  # see _keep_freed_memory


@dataclass(frozen=True)
class Sample:
    """One scored position: its index among the targets, its loss, what was wanted and what was predicted."""

    index: tuple[int, ...]
    loss: float
    target: int | float
    prediction: int | float


@dataclass(frozen=True)
class Evaluation:
    """The figures `evaluate` found.

    Attributes
    ----------
    loss : str
        Name of the loss.
    samples, ignored : int
        Positions in the targets, and how many of them hold `ignore_index` and count nowhere else.
    mean : float
        Sum of the losses over `denominator`, correctly rounded; NaN where nothing was scored.
    denominator : float
        The number of scored samples, or with class weights the sum of their targets' weights.
    perplexity : float or None
        ``exp(mean)``; None for a loss that is no negative log-likelihood.
    correct, accuracy : int and float, or None
        Samples whose prediction is their target, and their share of the scored ones; the first class wins a tie and a row with NaN is wrong.
        None for a regression loss.
    nan, infinite : int
        Samples whose loss is NaN, and whose loss is infinite.
    worst : list of Sample
        The largest losses, NaN first; of equal losses the earlier sample first.
    config : dict
        The arrays and options of the run.
    """

    loss: str
    samples: int
    ignored: int
    mean: float
    denominator: float
    perplexity: float | None
    correct: int | None
    accuracy: float | None
    nan: int
    infinite: int
    worst: list[Sample]
    config: dict = field(repr=False)

    def to_dict(self) -> dict:
        """The figures as plain values that any JSON reader takes: NaN and infinities become None.

        Examples
        --------
        >>> import json
        >>> import lossfast as lf
        >>> figures = lf.evaluate([[0.0, 0.0]], [-100]).to_dict()
        >>> json.dumps([figures["ignored"], figures["mean"]])
        '[1, null]'
        """
        figures = {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}
        figures["worst"] = [{**vars(sample), "loss": _plain(sample.loss)} for sample in self.worst]
        return {"schema_version": SCHEMA_VERSION, **figures}


def evaluate(
    logits,
    targets,
    *,
    loss: str = "cross_entropy",
    worst: int = 5,
    memory: int = 64 << 20,
    logits_dtype: str | None = None,
    progress: Callable[[int, int], object] | None = None,
    **options,
) -> Evaluation:
    """Score a model's outputs against their targets.

    Arrays and memory maps are taken as they are.  Paths name .npy files or members of .npz files (``'run.npz:logits'``), which are read in
    blocks and never unpickled.  Every figure has the same bits whatever the blocks, the layout of the arrays and the number of threads.

    Parameters
    ----------
    logits, targets : array_like or path
        As the loss in `lossfast.functional` takes them.
    loss : str
        The name of a loss in `lossfast.functional`, such as 'cross_entropy' or 'nll_loss'.
    worst : int
        How many of the samples with the largest losses to report.
    memory : int
        Bytes of `logits` held at once, at most, though never less than one sample for each thread; the whole takes a few times as much.
    logits_dtype : {None, 'bfloat16'}
        Says that two-byte values without a type, as `numpy.save` writes them, are bfloat16.
    progress : callable, optional
        Called now and then as ``progress(done, total)``, in samples, by the calling thread; at the end with all of them.
    **options
        The loss's own: `axis`, `weight` (an array or a path), `ignore_index`, `label_smoothing`, ...

    Returns
    -------
    Evaluation

    Raises
    ------
    OSError, TypeError, ValueError, IndexError
        For a file that is missing, damaged or holds something else, and whatever the loss raises.  Messages begin with the file's name or the
        argument's, and count positions in the whole array.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    >>> result = lf.evaluate(logits, [0, 1, 1], worst=1)
    >>> print(f"{result.mean:.4f}, {result.correct} of {result.samples} right")
    1.1629, 2 of 3 right
    >>> result.worst[0].index
    (2,)
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}; got {loss!r}")
    entry = LOSSES[loss]
    for name in options:
        if name not in entry.options:
            raise TypeError(f"{loss} has no option {name!r}; it has {', '.join(entry.options) or 'none'}")
    with ExitStack() as files:
        logits = files.enter_context(_open(logits, "logits", logits_dtype))
        targets = files.enter_context(_open(targets, "targets"))
        task = entry.task(getattr(F, loss), logits, targets, **options)
        tally = _Tally(worst)
        _score_blocks(logits, task, tally, memory, progress)
    return tally.evaluation(loss, entry.likelihood, {"logits": _origin(logits), "targets": _origin(targets), **task.options})


def _open(source, name, dtype=None):
    from lossfast.arrayfiles import open_array  # here, since zipfile would add 10 ms to `import lossfast`

    return open_array(source, name, dtype)


# --- Blocks


def _score_blocks(logits, task, tally, memory, progress):
    """Score every block of `logits` and add it to `tally`, in as many threads as lossfast may use.

    A thread takes whole blocks, one after another, reading in order while others compute.  Inside a block the loss runs in that one thread: a
    team of threads for each block would have to meet twice per block, and on a busy machine waits for its slowest member every time.
    """
    total = math.prod(logits.shape[axis] for axis in task.sample_axes)
    threads = max(min(_core.get_num_threads(), math.prod(logits.shape) * logits.dtype.itemsize // _BLOCK_BYTES), 1)
    blocks = enumerate(_blocks(logits, task.sample_axes, memory // threads))
    reading, adding, stop = threading.Lock(), threading.Lock(), threading.Event()
    failures = []

    def work(progress=None):
        number = -1
        try:
            while not stop.is_set():
                with reading:
                    number, block = next(blocks, (-1, None))
                    if block is None:
                        return
                    arrays = task.read(block)
                scores = task.score(block, *arrays)
                with adding:
                    tally.add(scores, [block[axis].start for axis in task.sample_axes])
                if progress is not None and tally.samples < total:
                    progress(tally.samples, total)
        except BaseException as error:
            failures.append((number, error))
            stop.set()

    _keep_freed_memory()
    helpers = [threading.Thread(target=work) for _ in range(threads - 1)]
    try:
        with _one_thread_per_call:
            for helper in helpers:
                helper.start()
            work(progress)
            for helper in helpers:
                helper.join()
    finally:
        stop.set()
    if failures:
        # Blocks are handed out in order, so the first that fails is among these whatever the threads did.
        raise min(failures, key=lambda failure: failure[0])[1]
    if progress is not None:
        progress(total, total)


class _OneThreadPerCall:
    """A context in which the library's functions run in the thread that calls them.

    The setting is the process's, so the first to enter changes it and the last to leave restores it.
    """

    def __init__(self):
        self._lock, self._inside, self._before = threading.Lock(), 0, 1

    def __enter__(self):
        with self._lock:
            if not self._inside:
                self._before = _core.get_num_threads()
                _core.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *exception):
        with self._lock:
            self._inside -= 1
            if not self._inside:
                _core.set_num_threads(self._before)


_one_thread_per_call = _OneThreadPerCall()


def _keep_freed_memory():
    """Have every block's arrays take the place of the last block's.

    glibc returns freed arrays to the system, and touching fresh ones costs a page fault every 4 kB, 3 times the rest of the work on a float16
    file, until it has seen a larger one go: then it keeps whatever is smaller (up to 32 MB).  Elsewhere this does nothing.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _blocks(array, sample_axes, memory):
    """Rectangles of `array` that tile it, whole along every axis but `sample_axes`, in the order the array is stored in; one if it is empty."""
    extent = _block_extent(array, sample_axes, memory)
    ranges = [range(0, max(array.shape[axis], 1), extent[axis]) if axis in sample_axes else range(1) for axis in array.axes]
    for corner in itertools.product(*ranges):
        start = dict(zip(array.axes, corner))
        yield tuple(slice(start[axis], min(start[axis] + extent[axis], length)) for axis, length in enumerate(array.shape))


def _block_extent(array, sample_axes, memory):
    """The smallest extent that is read in long runs, or the largest within `memory`."""
    budget = min(_BLOCK_BYTES, memory)
    while True:
        extent = _extent_within(budget, array, sample_axes)
        if budget >= memory or _run_bytes(extent, array) >= _RUN_BYTES:
            return extent
        budget = min(2 * budget, memory)


def _extent_within(budget, array, sample_axes):
    """As many samples as `budget` bytes hold, at least one, taken along the fastest axes first."""
    extent = list(array.shape)
    sample = math.prod(length for axis, length in enumerate(extent) if axis not in sample_axes) * array.dtype.itemsize
    room = max(budget // max(sample, 1), 1)
    for axis in reversed(array.axes):
        if axis in sample_axes:
            extent[axis] = max(min(extent[axis], room), 1)
            room //= extent[axis]
    return extent


def _run_bytes(extent, array):
    """Bytes that lie together in the array and in a block of this extent."""
    run = array.dtype.itemsize
    for axis in reversed(array.axes):
        run *= extent[axis]
        if extent[axis] < array.shape[axis]:
            return run
    return math.inf


# --- Losses


class _Scores(NamedTuple):
    """A block's samples; every array has the block's sample shape.  `kept` None: all are; `weight` None: all ones; `correct` None: no such thing."""

    loss: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray | None = None
    kept: np.ndarray | None = None
    weight: np.ndarray | None = None


class _ByClass:
    """Losses of a row of scores, one for each class, against a class index or class probabilities."""

    def __init__(self, function, logits, targets, *, axis=None, weight=None, **options):
        self._function, self._logits, self._targets = function, logits, targets
        self._axis = _class_axis(logits, axis)
        self.sample_axes = tuple(i for i in range(len(logits.shape)) if i != self._axis)
        self._soft = targets.shape == logits.shape and targets.is_float
        self._classes = logits.shape[self._axis]
        self._check_targets()
        self._weight, origin = _class_weight(weight, self._classes, logits)
        self._ignore_index = options.get("ignore_index", -100)
        self._keywords = options
        self.options = {"axis": self._axis, "weight": origin, **options}

    def _check_targets(self):
        logits, targets = self._logits, self._targets
        if not self._classes:
            raise ValueError(f"{logits.name}: shape {logits.shape} has no classes along axis {self._axis}")
        if self._soft:
            return
        expected = tuple(logits.shape[i] for i in self.sample_axes)
        if targets.shape != expected:
            fitting = [i for i in range(len(logits.shape)) if logits.shape[:i] + logits.shape[i + 1 :] == targets.shape]
            hint = f", which fits axis={fitting[-1]}" if fitting else ""
            raise ValueError(
                f"{targets.name}: expected class indices of shape {expected}, for logits of shape {logits.shape} with the classes along "
                f"axis {self._axis}; got shape {targets.shape}{hint}"
            )
        if targets.is_float or targets.dtype.kind not in "iu":
            raise TypeError(f"{targets.name}: expected integers for class indices, got {targets.dtype_name}")

    def read(self, block):
        return self._logits.read(block), self._targets.read(block if self._soft else tuple(block[i] for i in self.sample_axes))

    def score(self, block, x, y):
        x, y = self._logits.decode(x), self._targets.decode(y)
        try:
            loss = self._function(x, y, self._weight, axis=self._axis, reduction="none", **self._keywords)
        except IndexError:
            self._raise_bad_index(y, block)
            raise
        prediction = _argmax(x, self._axis)
        if self._soft:
            target, kept, weight = _argmax(y, self._axis), None, None
        else:
            target, kept = y, y != self._ignore_index
            weight = None if self._weight is None else self._weight[np.where(kept, y, 0)]
        # argmax finds the first NaN, and where that is the target the loss is NaN too.
        return _Scores(loss, target, prediction, (prediction == target) & ~np.isnan(loss), kept, weight)

    def _raise_bad_index(self, y, block):
        """The loss knows the place in its block; say where that is in the whole array."""
        bad = np.argwhere(((y < 0) | (y >= self._classes)) & (y != self._ignore_index))
        if len(bad):
            place = ", ".join(str(block[axis].start + i) for axis, i in zip(self.sample_axes, bad[0].tolist()))
            raise IndexError(
                f"{self._targets.name}: target[{place}] = {y[tuple(bad[0])]} is out of range for {self._classes} classes "
                f"(ignore_index is {self._ignore_index})"
            ) from None


class _ByElement:
    """Losses of single values, each a sample with the value as its prediction."""

    def __init__(self, function, predictions, targets, **options):
        if predictions.shape != targets.shape:
            raise ValueError(f"{targets.name}: expected the predictions' shape {predictions.shape}, got {targets.shape}")
        self._function, self._predictions, self._targets = function, predictions, targets
        self.sample_axes = tuple(range(len(targets.shape)))
        self.options = options

    def read(self, block):
        return self._predictions.read(block), self._targets.read(block)

    def score(self, block, x, y):
        x, y = self._predictions.decode(x), self._targets.decode(y)
        return _Scores(self._function(x, y, reduction="none", **self.options), y, x)


class _Loss(NamedTuple):
    """How a loss of `lossfast.functional` is evaluated.  `options`: its keywords; `likelihood`: exp(mean) is a perplexity."""

    task: type
    options: tuple[str, ...] = ()
    likelihood: bool = False


LOSSES = {
    "cross_entropy": _Loss(_ByClass, ("axis", "weight", "ignore_index", "label_smoothing"), likelihood=True),
    "nll_loss": _Loss(_ByClass, ("axis", "weight", "ignore_index"), likelihood=True),
}


def _class_axis(logits, axis):
    ndim = len(logits.shape)
    if not ndim:
        raise ValueError(f"{logits.name}: expected an axis of classes, got a single value")
    axis = min(ndim - 1, 1) if axis is None else axis
    if not -ndim <= axis < ndim:
        raise ValueError(f"{logits.name}: axis {axis} is out of range for shape {logits.shape}")
    return axis % ndim


def _class_weight(source, classes, logits):
    """The weights as floats, and where they came from."""
    if source is None:
        return None, None
    with _open(source, "weight") as weight:
        if weight.shape != (classes,):
            raise ValueError(f"{weight.name}: expected {classes} class weights, for logits of shape {logits.shape}; got shape {weight.shape}")
        values = weight.decode(weight.read((slice(0, classes),)))
        return values.astype(np.float64) if values.dtype.kind in "iub" else values.copy(), _origin(weight)


def _argmax(x, axis):
    """The first largest along `axis`; a NaN counts as larger than anything."""
    if x.dtype == np.float16:
        x = _ordered(x)
    if x.strides[axis] == x.itemsize:
        return x.argmax(axis)
    # NumPy's argmax goes element by element where the axis is not contiguous; the same from max and comparison is up to 7 times as fast.
    top = x.max(axis, keepdims=True)
    first = x == top
    if np.isnan(top).any():
        first |= np.isnan(x)
    classes = x.shape[axis]
    rank = np.arange(classes, 0, -1, dtype=np.min_scalar_type(classes))
    rank = rank.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return classes - np.multiply(first, rank, dtype=rank.dtype).max(axis).astype(np.intp)


def _ordered(halves):
    """float16 as integers of the same order, which NumPy compares in vectors; NaN is the largest."""
    bits = halves.view(np.int16)
    sign = bits >> 15
    key = bits & 0x7FFF
    nan = key > 0x7C00
    key ^= sign
    key -= sign
    key[nan] = 0x7FFF
    return key


# --- Sums


class _ExactSum:
    """A sum of floats without rounding: an integer in units of 2**-1126, and the values that are not finite by kind."""

    UNIT = 1126  # frexp's least exponent is -1073, and 53 bits follow it

    def __init__(self):
        self.units = 0
        self.nan = self.positive = self.negative = 0

    def add(self, values):
        """Add every element of a one-dimensional array."""
        values = values.astype(np.float64, copy=False)
        finite = np.isfinite(values)
        if not finite.all():
            self.nan += int(np.isnan(values).sum())
            self.positive += int((values == np.inf).sum())
            self.negative += int((values == -np.inf).sum())
            values = values[finite]
        for start in range(0, values.size, 1 << 16):
            self._add_finite(values[start : start + (1 << 16)])

    def _add_finite(self, values):
        fraction, exponent = np.frexp(values)
        fraction *= 2.0**27
        high = np.trunc(fraction)
        low = (fraction - high) * 2.0**26
        exponent += 1073
        # Up to 2**16 integers below 2**27 add up exactly in float64.
        for part, bits in ((high, 27), (low, 53)):
            if part.any():
                sums = np.bincount(exponent, part)
                for place in np.flatnonzero(sums).tolist():
                    self.units += int(sums[place]) << (place + 53 - bits)

    def __float__(self):
        if self.nan or (self.positive and self.negative):
            return math.nan
        if self.positive or self.negative:
            return math.inf if self.positive else -math.inf
        return _ratio(self.units, 1 << self.UNIT)

    def __truediv__(self, other):
        if self.units and other.units and math.isfinite(float(self)) and math.isfinite(float(other)):
            return _ratio(self.units, other.units)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.float64(float(self)) / np.float64(float(other)))


def _ratio(numerator, denominator):
    """Correctly rounded, as Python divides integers."""
    try:
        return numerator / denominator
    except OverflowError:
        return math.copysign(math.inf, numerator)


class _Tally:
    """The figures of the blocks so far."""

    def __init__(self, worst):
        self.samples = self.scored = 0
        self.correct = None
        self.losses, self.weights = _ExactSum(), _ExactSum()
        self.worst = _Worst(worst)

    def add(self, scores, start):
        """Take in a block whose first sample has the index `start`."""
        kept = None if scores.kept is None or scores.kept.all() else scores.kept
        loss = _select(scores.loss, kept)
        self.samples += scores.loss.size
        self.scored += loss.size
        self.losses.add(loss)
        self.weights.add(np.array([float(loss.size)]) if scores.weight is None else _select(scores.weight, kept))
        if scores.correct is not None:
            self.correct = (self.correct or 0) + int(np.count_nonzero(_select(scores.correct, kept)))
        self.worst.add(scores, loss, kept, start)

    def evaluation(self, loss, likelihood, config):
        mean = self.losses / self.weights
        return Evaluation(
            loss=loss,
            samples=self.samples,
            ignored=self.samples - self.scored,
            mean=mean,
            denominator=float(self.weights),
            perplexity=_exp(mean) if likelihood else None,
            correct=self.correct,
            accuracy=None if self.correct is None else self.correct / self.scored if self.scored else math.nan,
            nan=self.losses.nan,
            infinite=self.losses.positive + self.losses.negative,
            worst=self.worst.samples,
            config=config,
        )


class _Worst:
    """The `count` samples with the largest losses so far, in order."""

    def __init__(self, count):
        self.samples = []
        self._count = count

    def add(self, scores, loss, kept, start):
        """Let a block's samples compete, whose losses where `kept` are `loss`."""
        if not self._count:
            return
        floor = self.samples[-1].loss if len(self.samples) == self._count else -math.inf
        pick = np.flatnonzero(~(loss < floor))  # NaN among them
        if pick.size > self._count:
            floor = np.partition(loss[pick], -self._count)[-self._count]  # NaN are its largest
            pick = pick[~(loss[pick] < floor)]
        order = np.lexsort((-loss[pick], ~np.isnan(loss[pick])))[: self._count]
        places = pick[order] if kept is None else np.flatnonzero(kept)[pick[order]]
        self.samples += [self._sample(scores, np.unravel_index(place, scores.loss.shape), start) for place in places]
        self.samples.sort(key=lambda s: (s.loss == s.loss, -s.loss if s.loss == s.loss else 0.0, s.index))
        del self.samples[self._count :]

    @staticmethod
    def _sample(scores, place, start):
        index = tuple(first + int(i) for first, i in zip(start, place))
        return Sample(index, scores.loss[place].item(), scores.target[place].item(), scores.prediction[place].item())


def _select(values, kept):
    """`values` where `kept`, in C order, as one dimension."""
    return np.ravel(values) if kept is None else values[kept]


def _exp(x):
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _origin(array):
    return {"source": array.name, "shape": list(array.shape), "dtype": array.dtype_name}
