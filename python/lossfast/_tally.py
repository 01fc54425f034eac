"""What `evaluate` counts: exact sums, hits and the worst samples.  Blocks may come in any order, and tallies merge without a trace."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["ExactSum", "Sample", "Scores", "Tally"]


@dataclass(frozen=True)
class Sample:
    """One scored position: its index among the targets, its loss, what was wanted and what was predicted."""

    index: tuple[int, ...]
    loss: float
    target: int | float | list[int]
    prediction: int | float | list[int]


class Scores(NamedTuple):
    """A block's samples; every array has the block's sample shape.

    `kept` None: all are; `weight` None: all ones; `correct` None: no such thing.  `counts`: what else adds up over the blocks, by name.
    """

    loss: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray | None = None
    kept: np.ndarray | None = None
    weight: np.ndarray | None = None
    counts: dict[str, int] = {}


class ExactSum:
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

    def merge(self, other):
        self.units += other.units
        self.nan += other.nan
        self.positive += other.positive
        self.negative += other.negative

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


class Tally:
    """The figures of the blocks so far."""

    def __init__(self, worst):
        self.samples = self.scored = 0
        self.correct = None
        self.losses, self.weights = ExactSum(), ExactSum()
        self.counts = Counter()
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
        self.counts.update(scores.counts)
        self.worst.add(scores, loss, kept, start)

    def merge(self, other):
        """Take in what another tally has counted."""
        self.samples += other.samples
        self.scored += other.scored
        if other.correct is not None:
            self.correct = (self.correct or 0) + other.correct
        self.losses.merge(other.losses)
        self.weights.merge(other.weights)
        self.counts.update(other.counts)
        self.worst.merge(other.worst.samples)


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
        self.merge(self._sample(scores, np.unravel_index(place, scores.loss.shape), start) for place in places)

    def merge(self, samples):
        self.samples = sorted((*self.samples, *samples), key=self._rank)[: self._count]

    @staticmethod
    def _rank(sample):
        return (False, 0.0, sample.index) if math.isnan(sample.loss) else (True, -sample.loss, sample.index)

    @staticmethod
    def _sample(scores, place, start):
        index = tuple(first + int(i) for first, i in zip(start, place))
        return Sample(index, *(column[place].tolist() for column in (scores.loss, scores.target, scores.prediction)))


def _select(values, kept):
    """`values` where `kept`, in C order, as one dimension."""
    return np.ravel(values) if kept is None else values[kept]
