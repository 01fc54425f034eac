"""What `evaluate` makes of a CTC model's outputs: each utterance's loss, whether its labels fit its frames, and how far off the decoded labels are."""

import numpy as np

import lossfast.functional as F
from lossfast import _core
from lossfast._arrayfiles import open_array
from lossfast._tally import Scores

__all__ = ["ByUtterance"]


class ByUtterance:
    """Logits (T, N, C), or (T, C) for one utterance, against labels: padded (N, S), or one utterance after the other.

    An utterance's loss is divided by its number of labels, at least 1: the mean over utterances is that of ``ctc_loss(reduction='mean')``.
    """

    def __init__(self, function, logits, targets, *, input_lengths=None, target_lengths=None, blank=0, batch_first=False):
        self._function, self._logits, self._targets, self._blank = function, logits, targets, _core.whole_number(blank, "blank")
        ndim = len(logits.shape)
        if ndim not in (2, 3):
            raise ValueError(f"{logits.name}: expected logits of shape (T, N, C), or (T, C) for one utterance; got shape {logits.shape}")
        self._batch = None if ndim == 2 else 0 if _core.flag(batch_first, "batch_first") else 1
        self.sample_axes = () if ndim == 2 else (self._batch,)
        count = 1 if ndim == 2 else logits.shape[self._batch]
        frames = logits.shape[1 if self._batch == 0 else 0]
        self._check_targets(count)
        self._padded = len(targets.shape) == ndim - 1
        if not self._padded and target_lengths is None:
            raise ValueError(f"{targets.name}: labels of shape {targets.shape} need target_lengths to tell where each utterance's end")
        self._frames, frames_from = _lengths(input_lengths, "input_lengths", count, frames, "frames")
        self._labels, labels_from = _lengths(target_lengths, "target_lengths", count, targets.shape[-1], "labels")
        self._ends = np.cumsum(self._labels)
        if not self._padded and self._ends[-1:].sum() != targets.shape[0]:
            raise ValueError(f"{targets.name}: expected as many labels as target_lengths sum up to, {self._ends[-1:].sum()}; got {targets.shape[0]}")
        self.options = {"input_lengths": frames_from, "target_lengths": labels_from, "blank": self._blank, "batch_first": bool(batch_first)}

    def _check_targets(self, count):
        targets = self._targets
        if targets.is_float or targets.dtype.kind not in "iu":
            raise TypeError(f"{targets.name}: expected integers for labels, got {targets.dtype_name}")
        if len(targets.shape) not in (1, len(self._logits.shape) - 1) or (len(targets.shape) == 2 and targets.shape[0] != count):
            raise ValueError(
                f"{targets.name}: expected labels of shape ({count}, S), or ({count} utterances' labels in a row,); got shape {targets.shape}"
            )

    def _utterances(self, block):
        return slice(0, 1) if self._batch is None else block[self._batch]

    def read(self, block):
        n = self._utterances(block)
        if not self._padded:
            labels = (
                slice(int(self._ends[n.start] - self._labels[n.start]) if n.start < n.stop else 0, int(self._ends[n.stop - 1]) if n.stop else 0),
            )
        else:
            labels = (*([n] if self._batch is not None else []), slice(0, self._targets.shape[-1]))
        return self._logits.read(block), self._targets.read(labels)

    def score(self, block, x, y):
        n = self._utterances(block)
        frames, lengths = self._frames[n], self._labels[n]
        x, y = self._time_first(x), self._rows(self._targets.decode(y), lengths)
        self._check_labels(y, lengths, n.start, x.shape[-1])
        loss = self._function(x, y, frames, lengths, self._blank, "none", from_logits=True) / np.maximum(lengths, 1)
        decoded = F.ctc_greedy_decode(x, frames, self._blank, from_logits=True)
        errors = F.edit_distance(decoded.labels, y, decoded.lengths, lengths)
        infeasible = len(lengths) - int(F.ctc_feasible(y, frames, lengths).feasible.sum())
        counts = {"labels": int(lengths.sum()), "label_errors": int(errors.sum()), "infeasible": infeasible}
        shape = tuple(block[axis].stop - block[axis].start for axis in self.sample_axes)
        columns = loss, _cut(y, lengths), _cut(decoded.labels, decoded.lengths), errors == 0
        return Scores(*(column.reshape(shape) for column in columns), counts=counts)

    def utterance(self, index):
        """Logits (T, C) and labels of one utterance, without padding."""
        n = index[0] if index else 0
        block = tuple(slice(n, n + 1) if axis in self.sample_axes else slice(0, length) for axis, length in enumerate(self._logits.shape))
        x, y = self.read(block)
        lengths = self._labels[n : n + 1]
        return self._time_first(x)[: self._frames[n], 0], self._rows(self._targets.decode(y), lengths)[0, : lengths[0]]

    def _time_first(self, x):
        x = self._logits.decode(x)
        return x[:, None] if self._batch is None else np.moveaxis(x, self._batch, 1)

    def _rows(self, y, lengths):
        if self._padded:
            return y.reshape(len(lengths), y.shape[-1])
        rows = np.zeros((len(lengths), lengths.max(initial=0)), y.dtype)
        rows[np.arange(rows.shape[1]) < lengths[:, None]] = y
        return rows

    def _check_labels(self, y, lengths, first, classes):
        """As the loss would, which counts from the block's first utterance."""
        bad = np.argwhere(((y < 0) | (y >= classes)) & (np.arange(y.shape[1]) < lengths[:, None]))
        if len(bad):
            n, s = bad[0].tolist()
            raise IndexError(f"{self._targets.name}: label {s} of utterance {first + n} = {y[n, s]} is out of range for {classes} classes")


def _lengths(source, name, count, limit, unit):
    """Lengths within 0 .. limit as int64, by default all of them `limit`, and where they came from."""
    if source is None:
        return np.full(count, limit, np.int64), None
    with open_array(source, name) as array:
        if array.is_float or array.dtype.kind not in "iu":
            raise TypeError(f"{array.name}: expected integers for {name}, got {array.dtype_name}")
        if array.shape not in ((count,), (1,) * (count == 1), ()):
            raise ValueError(f"{array.name}: expected {name} of shape ({count},), one for each utterance; got shape {array.shape}")
        found = array.decode(array.read(tuple(slice(0, length) for length in array.shape)))
        bad = np.flatnonzero((found < 0) | (found > limit))
        if len(bad):
            raise ValueError(f"{array.name}: {name}[{bad[0]}] = {found.flat[bad[0]]} is out of range for {limit} {unit}")
        return np.broadcast_to(found.astype(np.int64), (count,)).copy(), array.origin()


def _cut(rows, lengths):
    """Rows without their padding, as an array of arrays."""
    cut = np.empty(len(rows), object)
    cut[:] = [row[:length] for row, length in zip(rows, lengths)]
    return cut
