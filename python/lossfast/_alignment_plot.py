"""The picture of ``lossfast evaluate --loss ctc --plot``: how the labels of one utterance lie on its frames. Needs matplotlib."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import lossfast.functional as F
from lossfast._arrayfiles import open_array
from lossfast._ctc_scores import ByUtterance

__all__ = ["plot_alignment", "plot_worst"]

_NAMED = 80  # labels that still have room for a name each


def plot_worst(path, logits, targets, result, tokens=None, logits_dtype=None, **options):
    """Draw the worst of an evaluation's utterances that has an alignment; returns its index."""
    worst = next((sample for sample in result.worst if math.isfinite(sample.loss)), None)
    if worst is None:
        raise ValueError(f"{path}: none of the {len(result.worst)} worst utterances has an alignment to draw; a larger --worst looks further")
    with open_array(logits, "logits", logits_dtype) as logits, open_array(targets, "targets") as targets:
        task = ByUtterance(F.ctc_loss, logits, targets, **options)
        x, labels = task.utterance(worst.index)
    errors = F.edit_distance(worst.prediction, worst.target)
    title = f"utterance {worst.index[0] if worst.index else 0}: loss {worst.loss:.4g} per label, {errors} of {len(labels)} labels wrong"
    plot_alignment(path, x, labels, options.get("blank", 0), tokens, worst.prediction, title)
    return worst.index


def plot_alignment(path, logits, labels, blank=0, tokens=None, decoded=(), title=""):
    """Draw where labels lie on frames: their probability in each frame, the best path, and its log-probability frame by frame.

    Parameters
    ----------
    path : str or path
        File to write; its ending says the format.
    logits : ndarray, shape (T, C)
    labels : ndarray of int, shape (S,)
    blank : int
    tokens : sequence of str, optional
        What to call each class.
    decoded : sequence of int
        The labels the model would have put out, shown below the true ones.
    title : str
    """
    frames, lengths = len(logits), len(labels)
    alignment = F.ctc_align(logits, labels, frames, lengths, blank, from_logits=True)
    occupancy = F.ctc_posteriors(logits, labels, frames, lengths, blank, from_logits=True)[:, 1::2]
    figure = Figure(figsize=(float(np.clip(frames / 6, 7, 24)), float(np.clip(2.5 + lengths / 5, 4, 18))), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[max(lengths / 5, 2), 1])
    shown = upper.imshow(occupancy.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest", extent=(0, frames, lengths, 0))
    figure.colorbar(shown, ax=upper, label="probability of the label in the frame", pad=0.01)
    for s, span in enumerate(alignment.spans()):
        upper.plot([span.start, span.end, span.end, span.start, span.start], [s, s, s + 1, s + 1, s], color="tab:orange", linewidth=1.2)
    _name_labels(upper, labels, tokens)
    lines = [title, f"true:    {_join(labels, tokens)}", f"decoded: {_join(decoded, tokens)}"]
    upper.set_title("\n".join(lines), loc="left", family="monospace", fontsize=9, parse_math=False)
    lower.bar(np.arange(frames) + 0.5, alignment.scores, width=1, color=np.where(alignment.labels == blank, "lightgrey", "tab:orange"))
    lower.set_ylabel("log p")
    lower.set_xlabel("frame (orange: a label on the best path; grey: blank)")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=110)


def _name_labels(axes, labels, tokens):
    axes.set_ylabel("label")
    if len(labels) <= _NAMED:
        axes.set_yticks(np.arange(len(labels)) + 0.5, [_name(c, tokens) for c in labels], family="monospace", fontsize=8, parse_math=False)


def _name(c, tokens):
    return str(c) if tokens is None or c >= len(tokens) else repr(tokens[c])[1:-1] if tokens[c] != " " else "\N{OPEN BOX}"


def _join(labels, tokens):
    text = (" " if tokens is None else "").join(str(c) if tokens is None or c >= len(tokens) else tokens[c] for c in labels)
    return text if len(text) <= 100 else text[:99] + "\N{HORIZONTAL ELLIPSIS}"
