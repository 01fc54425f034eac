"""Connectionist temporal classification: the loss, what it says of single frames, and decoding. Part of `lossfast.functional`."""

from collections import namedtuple

import numpy as np

from lossfast import _core

__all__ = [
    "Alignment", "Decoding", "Feasibility", "TokenSpan", "ctc_align", "ctc_beam_search_decode", "ctc_feasible", "ctc_greedy_decode", "ctc_loss",
    "ctc_posteriors", "edit_distance", "rnnt_loss", "token_error_rate",
]  # fmt: skip


def ctc_loss(log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False, *, from_logits=False, out=None):
    r"""Connectionist temporal classification loss: minus the log-probability of a label sequence, summed over all its alignments.

    .. math:: \ell_n = -\log \sum_{\pi \in \mathcal{B}^{-1}(y_n)} \prod_{t < T_n} p_{t n \pi_t}

    where :math:`\mathcal{B}` merges repeated classes and then drops blanks. The sum has the range of log space and the relative accuracy of float64,
    for input of every dtype and length.

    Parameters
    ----------
    log_probs : array_like of float, shape (T, N, C) or (T, C)
        Log-probabilities of the classes in every frame, or logits with `from_logits`. For batch-first data pass ``x.swapaxes(0, 1)``.
    targets : array_like of int
        Class indices: of shape (N, S), padded with anything; or of shape (sum of `target_lengths`,), one sample after the other.
    input_lengths, target_lengths : int or array_like of int, shape (N,)
        Frames and labels that count in each sample; one integer holds for all.
    blank : int, default 0
        Class index of the blank.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides each loss by its number of labels (at least 1), then averages over the batch.
    zero_infinity : bool, default False
        Losses of inf, of samples without an alignment, become 0.
    from_logits : bool, default False
        Apply log-softmax over the classes, without storing it.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of shape (N,) for ``reduction='none'``
        float32, or float64 for float64 input. Samples whose labels do not fit their frames have loss inf.

    Raises
    ------
    IndexError
        If a class index is not in [0, C); names the first.
    TypeError, ValueError
        If a dtype, shape, length or option does not fit; names the first offending length.

    Notes
    -----
    The gradient is the true derivative by the array passed: minus the occupancy by `log_probs`, and softmax minus occupancy by logits. torch returns
    the second in both cases; through log_softmax both give the same end result. Samples with infinite loss, and frames beyond a sample's length,
    have gradient 0. The gradient must not be written over `log_probs`.

    Where every alignment has a log-probability beyond -1e15, as with masks of -1e30 that cannot be avoided, the gradient tells entries apart to
    T 2^-34 of that; alignments that are equal so far are weighed by their entries above -2800.

    With logits, each is read once. The gradient takes memory for at most 64 MB of emissions at a time and checkpoints of the lattice.

    References
    ----------
    A. Graves et al., "Connectionist temporal classification", ICML 2006; torch.nn.functional.ctc_loss.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> log_probs = np.log(np.full((4, 1, 3), 1 / 3))
    >>> lf.ctc_loss(log_probs, [[1, 2]], 4, 2, reduction="none").round(4)
    array([1.6864])
    >>> loss, grad = lf.value_and_grad(lf.ctc_loss)(log_probs, [[1, 2]], 4, 2, reduction="sum")
    >>> grad[:, 0].round(4)
    array([[-0.3333, -0.6667,  0.    ],
           [-0.2667, -0.5333, -0.2   ],
           [-0.2667, -0.2   , -0.5333],
           [-0.3333,  0.    , -0.6667]])
    """
    return _core.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity, from_logits, out)


Feasibility = namedtuple("Feasibility", "feasible missing")
Feasibility.__doc__ = "Whether each sample's labels fit its frames, and how many frames are missing."


def ctc_feasible(targets, input_lengths, target_lengths):
    """Tell which samples have an alignment: every label needs a frame, and two equal labels in a row need a blank between them.

    Parameters
    ----------
    targets, input_lengths, target_lengths
        As for `ctc_loss`.

    Returns
    -------
    Feasibility
        `feasible`, bool, and `missing`, the number of frames by which each sample falls short, int64; of shape (N,), or scalars for one sample:
        one-dimensional targets with two integers for lengths.

    Raises
    ------
    IndexError, TypeError, ValueError
        If a class index is negative, or a dtype, shape or length does not fit.

    References
    ----------
    A. Graves et al., "Connectionist temporal classification", ICML 2006.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.ctc_feasible([[1, 2, 3], [4, 4, 4]], [3, 4], [3, 3])
    Feasibility(feasible=array([ True, False]), missing=array([0, 1]))
    """
    missing = _core.ctc_missing_frames(targets, input_lengths, target_lengths)
    return Feasibility(missing == 0, missing)


def ctc_posteriors(log_probs, targets, input_lengths, target_lengths, blank=0, *, from_logits=False):
    """Probability of being in each state of the label sequence in each frame, given the labels.

    Parameters
    ----------
    log_probs, targets, input_lengths, target_lengths, blank, from_logits
        As for `ctc_loss`.

    Returns
    -------
    ndarray, shape (T, N, 2 S + 1) or (T, 2 S + 1)
        With S the largest target length. State 2 i is the blank before label i, state 2 i + 1 the label. Frames that count sum to 1; frames and
        states beyond a sample's lengths, and samples that have no alignment, are 0. float32, or float64 for float64 input.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `ctc_loss`.

    References
    ----------
    A. Graves et al., "Connectionist temporal classification", ICML 2006, equations 10 to 14.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.ctc_posteriors(np.log(np.full((3, 2), 0.5)), [1], 3, 1).round(3)
    array([[0.5  , 0.5  , 0.   ],
           [0.167, 0.667, 0.167],
           [0.   , 0.5  , 0.5  ]])
    """
    return _core.ctc_posteriors(log_probs, targets, input_lengths, target_lengths, blank, from_logits)


TokenSpan = namedtuple("TokenSpan", "token start end score")
TokenSpan.__doc__ = "One label of an alignment: its class, frames start .. end (exclusive) and their mean score, a log-probability."


class Alignment(namedtuple("Alignment", "labels scores starts ends token_scores score")):
    """The most probable alignment of labels with frames: see `ctc_align`."""

    __slots__ = ()

    def spans(self):
        """The labels as a list of `TokenSpan`; for a batch a list of such lists."""
        if self.labels.ndim > 1:
            return [Alignment(*(array[n] for array in self)).spans() for n in range(len(self.labels))]
        columns = (self.starts.tolist(), self.ends.tolist(), self.token_scores.tolist())
        return [TokenSpan(int(self.labels[start]), start, end, score) for start, end, score in zip(*columns) if start >= 0]


def ctc_align(log_probs, targets, input_lengths, target_lengths, blank=0, *, from_logits=False):
    """Align labels with frames: the most probable path (Viterbi), its scores, and where each label lies.

    Parameters
    ----------
    log_probs, targets, input_lengths, target_lengths, blank, from_logits
        As for `ctc_loss`.

    Returns
    -------
    Alignment
        For N samples (the first axis is missing for one): `labels` (N, T), the class of each frame, -1 beyond the sample's length; `scores` (N, T),
        its log-probability; `starts`, `ends` and `token_scores` (N, S), the first frame of each label, the frame after its last, and the mean of
        their scores, -1 and -inf beyond the sample's labels; `score` (N,), the log-probability of the path. ``spans()`` lists the labels.
        Where every path has probability 0, `labels` and `starts` are -1 and `score` is -inf. A NaN in a frame that counts makes
        `score` NaN, and the path means nothing.

    Raises
    ------
    ValueError
        If a sample has more labels than fit its frames (see `ctc_feasible`), or lengths or options do not fit.
    IndexError, TypeError
        As `ctc_loss`.

    Notes
    -----
    The path is the optimum of float64 arithmetic, whatever the dtype. Of equal paths the one that stays longest in its states is taken.

    References
    ----------
    torchaudio.functional.forced_align, merge_tokens; A. Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding
    algorithm", IEEE Trans. Inf. Theory 13 (1967).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> p = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]])
    >>> alignment = lf.ctc_align(np.log(p), [1, 2], 4, 2)
    >>> alignment.labels
    array([0, 1, 1, 2], dtype=int32)
    >>> [(span.token, span.start, span.end, float(np.exp(span.score).round(2))) for span in alignment.spans()]
    [(1, 1, 3, 0.69), (2, 3, 4, 0.8)]
    """
    return Alignment(*_core.ctc_align(log_probs, targets, input_lengths, target_lengths, blank, from_logits))


Decoding = namedtuple("Decoding", "labels lengths scores")
Decoding.__doc__ = "Decoded labels, padded with -1, how many they are, and their log-probabilities."


def ctc_greedy_decode(log_probs, input_lengths=None, blank=0, *, from_logits=False):
    """Decode by the most probable class of every frame, with repeats merged and blanks dropped.

    Parameters
    ----------
    log_probs : array_like of float, shape (T, N, C) or (T, C)
        Log-probabilities, or logits with `from_logits`.
    input_lengths : int or array_like of int, shape (N,), optional
        Frames that count in each sample; by default all.
    blank : int, default 0
        Class index of the blank.
    from_logits : bool, default False
        Whether `log_probs` are logits. The labels do not depend on it, the scores do.

    Returns
    -------
    Decoding
        `labels` (N, L) int32, `lengths` (N,) and `scores` (N,), log-probabilities of the paths; without the axis N for one sample. The first of
        equal classes is taken. A NaN in a frame that counts makes the score NaN, and the labels mean nothing.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or length does not fit.

    References
    ----------
    A. Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2, best path decoding.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.ctc_greedy_decode(np.eye(3)[[1, 1, 0, 1, 2]], from_logits=True).labels
    array([1, 1, 2], dtype=int32)
    """
    labels, lengths, scores = _core.ctc_decode(log_probs, input_lengths, blank, None, 1, from_logits)
    rank = (slice(None),) * (scores.ndim - 1) + (0,)
    return Decoding(labels[rank], lengths[rank], scores[rank])


def ctc_beam_search_decode(log_probs, input_lengths=None, blank=0, *, beam_width=16, top=1, from_logits=False):
    """Decode by prefix beam search: label sequences by their probability over all alignments.

    Parameters
    ----------
    log_probs, input_lengths, blank, from_logits
        As for `ctc_greedy_decode`.
    beam_width : int, default 16
        Label sequences kept after each frame.
    top : int, default 1
        Label sequences returned for each sample, at most `beam_width`.

    Returns
    -------
    Decoding
        `labels` (N, top, L) int32, `lengths` (N, top) and `scores` (N, top), most probable first; without the axis N for one sample. Scores are
        log-probabilities summed over the alignments that stayed in the beam; places for which there is no sequence have score -inf. A NaN in a
        frame that counts makes all scores NaN, and the labels mean nothing.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape, length or option does not fit.

    References
    ----------
    A. Graves and N. Jaitly, "Towards end-to-end speech recognition with recurrent neural networks", ICML 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> decoding = lf.ctc_beam_search_decode(np.log(np.array([[0.6, 0.4], [0.6, 0.4]])), top=2)
    >>> decoding.labels
    array([[ 1],
           [-1]], dtype=int32)
    >>> np.exp(decoding.scores).round(2)
    array([0.64, 0.36])
    """
    if beam_width is None:
        raise TypeError("beam_width: expected an integer, got None")
    return Decoding(*_core.ctc_decode(log_probs, input_lengths, blank, beam_width, top, from_logits))


def _sequences(tokens, lengths, name):
    """Rows of int64 tokens, their lengths, and whether they are a batch."""
    if _core.is_masked(tokens):
        raise TypeError(f"{name}: expected plain arrays, got a masked array; pass lengths, or .compressed()")
    if isinstance(tokens, str):
        tokens = [ord(c) for c in tokens]
    elif (
        lengths is None
        and isinstance(tokens, (list, tuple))
        and tokens
        and (isinstance(tokens[0], np.ndarray) or not hasattr(tokens[0], "__index__"))
    ):
        rows = [_sequence(row, name) for row in tokens]
        lengths = np.array([len(row) for row in rows])
        padded = np.full((len(rows), lengths.max()), -1, np.int64)
        for row, to in zip(rows, padded):
            to[: len(row)] = row
        return padded, lengths, True
    try:
        array = np.asarray(tokens)
    except ValueError as error:
        raise ValueError(f"{name}: expected one sequence or rows of them: {error}") from error
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer tokens or strings, got dtype {array.dtype}")
    if array.dtype == np.uint64 and (array >> 63).any():
        raise ValueError(f"{name}: {array[array >> 63 > 0].flat[0]} is out of range for 64-bit integers")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name}: expected one sequence or rows of them, got shape {array.shape}")
    rows = np.ascontiguousarray(np.atleast_2d(array), np.int64)
    return rows, rows.shape[1] if lengths is None else lengths, array.ndim == 2


def _sequence(tokens, name):
    """One sequence of a list of them."""
    if isinstance(tokens, (list, tuple)) and tokens and isinstance(tokens[0], str):
        raise TypeError(f"{name}: expected integer tokens or a string in each row, got a list of strings; give words numbers")
    rows, _, batch = _sequences(tokens, None, name)
    if batch:
        raise ValueError(f"{name}: expected a sequence of tokens in each row, got rows of rows")
    return rows[0]


def _distances(hypotheses, references, hypothesis_lengths, reference_lengths):
    a, a_lengths, a_batch = _sequences(hypotheses, hypothesis_lengths, "hypotheses")
    b, b_lengths, b_batch = _sequences(references, reference_lengths, "references")
    if len(a) != len(b):
        raise ValueError(f"references: expected {len(a)} sequences, as many as hypotheses, got {len(b)}")
    return *_core.edit_distances(a, a_lengths, b, b_lengths), a_batch or b_batch


def edit_distance(hypotheses, references, hypothesis_lengths=None, reference_lengths=None):
    """Count the insertions, deletions and substitutions that lead from one sequence to another (Levenshtein distance).

    Parameters
    ----------
    hypotheses, references : str, sequence of int, array of shape (N, S), or list of sequences
        One sequence of tokens each, or a batch of them.
    hypothesis_lengths, reference_lengths : int or array_like of int, shape (N,), optional
        Tokens that count in each row of an array.

    Returns
    -------
    int, or ndarray of int64 of shape (N,)

    Raises
    ------
    TypeError, ValueError
        If tokens are no integers, or shapes or lengths do not fit.

    References
    ----------
    V. I. Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", Soviet Physics Doklady 10 (1966).

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.edit_distance("kitten", "sitting")
    3
    >>> lf.edit_distance([[1, 2, 3], [1, 2, -1]], [[1, 3, -1], [2, 1, -1]], [3, 2], [2, 2])
    array([1, 2])
    """
    distances, _, batch = _distances(hypotheses, references, hypothesis_lengths, reference_lengths)
    return distances if batch else int(distances[0])


def token_error_rate(hypotheses, references, hypothesis_lengths=None, reference_lengths=None):
    """Edit distances between hypotheses and references over the number of reference tokens.

    Parameters
    ----------
    hypotheses, references, hypothesis_lengths, reference_lengths
        As for `edit_distance`. Characters of strings are tokens; for words pass lists of word numbers.

    Returns
    -------
    float
        NaN where there is no reference token.

    Raises
    ------
    TypeError, ValueError
        As `edit_distance`.

    Notes
    -----
    Of characters it is the character error rate, of words the word error rate.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.token_error_rate(["kitten", "cat"], ["sitting", "cat"])
    0.3
    """
    distances, lengths, _ = _distances(hypotheses, references, hypothesis_lengths, reference_lengths)
    return int(distances.sum()) / int(lengths.sum()) if lengths.sum() else float("nan")


def rnnt_loss(logits, targets, logit_lengths, target_lengths, blank=-1, clamp=-1, reduction="mean", fused_log_softmax=True, *, out=None):
    r"""RNN transducer loss: minus the log-probability of a label sequence, summed over all ways through the lattice of frames and labels.

    .. math:: \ell_n = -\log \sum_{\pi} \prod_{(t, u, k) \in \pi} p_{n t u k}

    A blank at (t, u) leads to frame t + 1, label u to (t, u + 1); every path ends with a blank in the last frame after the last label.

    Parameters
    ----------
    logits : array_like of float, shape (N, T, U + 1, C)
        Scores of the classes for every frame and number of labels already emitted.
    targets : array_like of int, shape (N, U)
        Class indices, padded with anything.
    logit_lengths, target_lengths : int or array_like of int, shape (N,)
        Frames and labels that count in each sample; one integer holds for all.
    blank : int, default -1
        Class index of the blank; -1 is the last class.
    clamp : float, default -1
        If positive, bound of each sample's gradient entries, before `grad_output` and the mean.
    reduction : {'mean', 'sum', 'none'}
        'mean' averages over the batch.
    fused_log_softmax : bool, default True
        Apply log-softmax over the classes, without storing it; else `logits` are log-probabilities.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of shape (N,) for ``reduction='none'``
        float32, or float64 for float64 input.

    Raises
    ------
    IndexError
        If a class index is not in [0, C); names the first.
    TypeError, ValueError
        If a dtype, shape, length or option does not fit.

    Notes
    -----
    The gradient is the true derivative by the array passed, 0 beyond the lengths. Logits are read once for the loss and once more for the gradient,
    which is written once and must not be written over them.

    References
    ----------
    A. Graves, "Sequence transduction with recurrent neural networks", 2012; torchaudio.functional.rnnt_loss.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.rnnt_loss(np.zeros((1, 2, 2, 3)), [[1]], 2, 1, blank=0).round(4)
    np.float64(2.6027)
    >>> loss, grad = lf.value_and_grad(lf.rnnt_loss)(np.zeros((1, 2, 2, 3)), [[1]], 2, 1, blank=0)
    >>> grad[0, 0, 0].round(4)
    array([-0.1667, -0.1667,  0.3333])
    """
    return _core.rnnt_loss(logits, targets, logit_lengths, target_lengths, blank, clamp, reduction, fused_log_softmax, out)
