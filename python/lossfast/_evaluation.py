"""`evaluate`: a model's outputs, in memory or in files of any size, scored block by block.

What is summed is each sample's loss as ``reduction='none'`` returns it, and the sum is exact: an integer of any length holds it.  So neither the
size of the blocks nor their order nor the number of threads changes a bit of any figure, and a mean is the correctly rounded quotient of exact
sums.  Three parts: what a loss makes of a block (`LOSSES`), how blocks are cut and handed to threads, and what is counted (`_tally`).
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
from lossfast._arrayfiles import open_array
from lossfast._ctc_scores import ByUtterance
from lossfast._tally import Sample, Scores, Tally

__all__ = ["Evaluation", "evaluate"]

SCHEMA_VERSION = 1

_BLOCK_BYTES = 4 << 20  # stays in the cache from reading to argmax
_RUN_BYTES = 64 << 10  # contiguous runs shorter than this are worth a larger block
_KEPT_BYTES = 31 << 20  # see _keep_freed_memory


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
    infeasible, labels, label_errors, token_error_rate : int, int, int and float, or None
        For CTC: utterances whose labels do not fit their frames (their loss is infinite), labels of all utterances, the insertions, deletions and
        substitutions between them and the labels decoded greedily, and their quotient. None for other losses.
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
    infeasible: int | None
    labels: int | None
    label_errors: int | None
    token_error_rate: float | None
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
        The name of a loss in `lossfast.functional`, such as 'cross_entropy' or 'mse_loss', or 'ctc': logits (T, N, C) against labels (N, S).
        The samples of 'ctc' are utterances, and their losses are divided by their numbers of labels.
    worst : int
        How many of the samples with the largest losses to report.
    memory : int
        Bytes of `logits` held at once, at most, though never less than one sample for each thread; the whole takes a few times as much.
    logits_dtype : {None, 'bfloat16'}
        Says that two-byte values without a type, as `numpy.save` writes them, are bfloat16.
    progress : callable, optional
        Called now and then as ``progress(done, total)``, in samples, by the calling thread; at the end with all of them.
    **options
        The loss's own: `axis`, `weight` (an array or a path), `ignore_index`, `label_smoothing`, `delta`, `beta`; for 'ctc' `input_lengths` and
        `target_lengths` (arrays or paths), `blank` and `batch_first`.

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
    for name, count, least in (("worst", worst, 0), ("memory", memory, 1)):
        if _core.whole_number(count, name) < least:
            raise ValueError(f"{name}: expected at least {least}, got {count}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function of two counts, got {progress!r}")
    entry = LOSSES[loss]
    for name in options:
        if name not in entry.options:
            raise TypeError(f"{loss} has no option {name!r}; it has {', '.join(entry.options) or 'none'}")
    with ExitStack() as files:
        logits = files.enter_context(open_array(logits, "logits", logits_dtype))
        targets = files.enter_context(open_array(targets, "targets"))
        task = entry.task(getattr(F, entry.function or loss), logits, targets, **options)
        tally = _score_blocks(logits, task, worst, memory, progress)
    mean = tally.losses / tally.weights
    return Evaluation(
        loss=loss,
        samples=tally.samples,
        ignored=tally.samples - tally.scored,
        mean=mean,
        denominator=float(tally.weights),
        perplexity=_exp(mean) if entry.likelihood else None,
        correct=tally.correct,
        accuracy=None if tally.correct is None else tally.correct / tally.scored if tally.scored else math.nan,
        infeasible=tally.counts.get("infeasible"),
        labels=tally.counts.get("labels"),
        label_errors=tally.counts.get("label_errors"),
        token_error_rate=_share(tally.counts.get("label_errors"), tally.counts.get("labels")),
        nan=tally.losses.nan,
        infinite=tally.losses.positive + tally.losses.negative,
        worst=tally.worst.samples,
        config={"logits": logits.origin(), "targets": targets.origin(), **task.options},
    )


# --- Blocks


def _score_blocks(logits, task, worst, memory, progress):
    """The tally of every block of `logits`, in as many threads as lossfast may use.

    A thread takes whole blocks, one after another, reading in order while others compute.  Inside a block the loss runs in that one thread: a
    team of threads for each block would have to meet twice per block, and on a busy machine waits for its slowest member every time.
    """
    total = math.prod(logits.shape[axis] for axis in task.sample_axes)
    threads = max(min(_core.get_num_threads(), math.prod(logits.shape) * logits.dtype.itemsize // _BLOCK_BYTES), 1)
    tallies = [Tally(worst) for _ in range(threads)]
    blocks = enumerate(_blocks(logits, task.sample_axes, memory // threads))
    reading, stop = threading.Lock(), threading.Event()
    failures = []

    def work(tally, progress=None):
        number = -1
        try:
            while not stop.is_set():
                with reading:
                    number, block = next(blocks, (-1, None))
                    if block is None:
                        return
                    arrays = task.read(block)
                tally.add(task.score(block, *arrays), [block[axis].start for axis in task.sample_axes])
                if progress is not None:
                    done = sum(each.samples for each in tallies)
                    if done < total:
                        progress(done, total)
        except BaseException as error:
            failures.append((number, error))
            stop.set()

    _keep_freed_memory()
    helpers = [threading.Thread(target=work, args=(tally,)) for tally in tallies[1:]]
    try:
        with _one_thread_per_call:
            for helper in helpers:
                helper.start()
            work(tallies[0], progress)
            for helper in helpers:
                helper.join()
    finally:
        stop.set()
    if failures:
        # Blocks are handed out in order, so the first that fails is among these whatever the threads did.
        raise min(failures, key=lambda failure: failure[0])[1]
    if progress is not None:
        progress(total, total)
    for tally in tallies[1:]:
        tallies[0].merge(tally)
    return tallies[0]


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
        return Scores(loss, target, prediction, (prediction == target) & ~np.isnan(loss), kept, weight)

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
        return Scores(self._function(x, y, reduction="none", **self.options), y, x)


class _Loss(NamedTuple):
    """How a loss of `lossfast.functional` is evaluated.

    `options`: its keywords; `likelihood`: exp(mean) is a perplexity; `function`: its name where that is another.
    """

    task: type
    options: tuple[str, ...] = ()
    likelihood: bool = False
    function: str | None = None


LOSSES = {
    "cross_entropy": _Loss(_ByClass, ("axis", "weight", "ignore_index", "label_smoothing"), likelihood=True),
    "nll_loss": _Loss(_ByClass, ("axis", "weight", "ignore_index"), likelihood=True),
    "ctc": _Loss(ByUtterance, ("input_lengths", "target_lengths", "blank", "batch_first"), function="ctc_loss"),
    "binary_cross_entropy": _Loss(_ByElement),
    "binary_cross_entropy_with_logits": _Loss(_ByElement),
    "huber_loss": _Loss(_ByElement, ("delta",)),
    "kl_div": _Loss(_ByElement),
    "l1_loss": _Loss(_ByElement),
    "mse_loss": _Loss(_ByElement),
    "poisson_nll_loss": _Loss(_ByElement),
    "smooth_l1_loss": _Loss(_ByElement, ("beta",)),
}


def _class_axis(logits, axis):
    ndim = len(logits.shape)
    if not ndim:
        raise ValueError(f"{logits.name}: expected an axis of classes, got a single value")
    axis = min(ndim - 1, 1) if axis is None else _core.whole_number(axis, "axis")
    if not -ndim <= axis < ndim:
        raise ValueError(f"{logits.name}: axis {axis} is out of range for shape {logits.shape}")
    return axis % ndim


def _class_weight(source, classes, logits):
    """The weights as floats, and where they came from."""
    if source is None:
        return None, None
    with open_array(source, "weight") as weight:
        if weight.shape != (classes,):
            raise ValueError(f"{weight.name}: expected {classes} class weights, for logits of shape {logits.shape}; got shape {weight.shape}")
        values = weight.decode(weight.read((slice(0, classes),)))
        return values.astype(np.float64) if values.dtype.kind in "iub" else values.copy(), weight.origin()


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


def _exp(x):
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _share(part, whole):
    return None if whole is None else part / whole if whole else math.nan


def _plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
