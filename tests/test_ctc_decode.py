"""CTC decoding against every label sequence there is and against plain Python; edit distance."""

import itertools
import math
import signal

import lossfast as lf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

INF = np.inf


def log_rows(rng, *shape):
    x = rng.standard_normal(shape) * 2
    return x - np.logaddexp.reduce(x, -1, keepdims=True)


def read(decoding, *at):
    return tuple(decoding.labels[at][: decoding.lengths[at]].tolist())


def beam_search(lp, width, blank=0):
    """Prefix beam search that looks at every class of every prefix: [(prefix, score)], best first."""
    beam = {(): (0.0, -INF)}
    for row in lp:
        new = {}
        for prefix, (by_blank, by_label) in beam.items():
            total = np.logaddexp(by_blank, by_label)
            a, b = new.get(prefix, (-INF, -INF))
            new[prefix] = (np.logaddexp(a, total + row[blank]), np.logaddexp(b, by_label + row[prefix[-1]]) if prefix else b)
            for c in set(range(len(row))) - {blank}:
                a, b = new.get((*prefix, c), (-INF, -INF))
                new[*prefix, c] = (a, np.logaddexp(b, (by_blank if prefix[-1:] == (c,) else total) + row[c]))
        ranked = sorted(new.items(), key=lambda item: -np.logaddexp(*item[1]))
        beam = dict(ranked[:width])
    return [(prefix, np.logaddexp(*mass)) for prefix, mass in beam.items()]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("from_logits", [False, True])
def test_greedy(isa, rng, blank, from_logits):
    x = log_rows(rng, 30, 4, 6).astype(np.float32)
    frames = [30, 17, 1, 0]
    decoding = lf.ctc_greedy_decode(x + (3 if from_logits else 0), frames, blank, from_logits=from_logits)
    for n, T in enumerate(frames):
        best = x[:T, n].argmax(-1)
        assert read(decoding, n) == tuple(int(c) for c, _ in itertools.groupby(best) if c != blank)
        assert np.all(decoding.labels[n, decoding.lengths[n] :] == -1)
        np.testing.assert_allclose(decoding.scores[n], x[:T, n].max(-1).sum(), rtol=1e-5, atol=1e-6)
    one = lf.ctc_greedy_decode(x[:, 0], blank=blank)
    assert one.labels.tolist() == list(read(decoding, 0)) and one.lengths.shape == one.scores.shape == ()


@pytest.mark.parametrize("T, C", [(1, 2), (4, 3), (5, 3)])
def test_a_wide_beam_holds_every_sequence(rng, T, C):
    """Scores are the probabilities of the label sequences over all alignments: those of ctc_loss."""
    lp = log_rows(rng, T, C)
    every = [labels for S in range(T + 1) for labels in itertools.product(range(1, C), repeat=S)]
    score = {labels: -float(lf.ctc_loss(lp, np.array(labels, int), T, len(labels), reduction="sum")) for labels in every}
    possible = sorted((s, labels) for labels, s in score.items() if s > -INF)[::-1]
    decoding = lf.ctc_beam_search_decode(lp, beam_width=1000, top=len(possible) + 2)
    for k, (want, labels) in enumerate(possible):
        np.testing.assert_allclose(decoding.scores[k], want, rtol=1e-12)
        assert read(decoding, k) == labels
    assert decoding.scores[len(possible) :].tolist() == [-INF, -INF] and math.isclose(np.exp(decoding.scores).sum(), 1)


@pytest.mark.parametrize("width", [1, 2, 5, 17])
@pytest.mark.parametrize("T, C", [(12, 3), (25, 6), (10, 60)])
def test_beam_search(isa, rng, T, C, width):
    for _ in range(2):
        lp, blank = log_rows(rng, T, C), int(rng.integers(0, C))
        decoding = lf.ctc_beam_search_decode(lp, blank=blank, beam_width=width, top=width)
        for k, (prefix, score) in enumerate(beam_search(lp, width, blank)):
            assert read(decoding, k) == prefix
            np.testing.assert_allclose(decoding.scores[k], score, rtol=1e-10)


def test_beam_search_of_a_batch(rng):
    """The same bits for any number of threads, and as one sample at a time."""
    x = (rng.standard_normal((60, 6, 40)) * 3).astype(np.float32)
    frames = [60, 0, 1, 33, 59, 60]
    results = []
    for threads in (1, 2, 3, 5):
        with lf.num_threads(threads):
            made = (*lf.ctc_beam_search_decode(x, frames, beam_width=20, top=3, from_logits=True), *lf.ctc_greedy_decode(x, frames))
            results.append([a.tobytes() for a in made])
    assert all(r == results[0] for r in results)
    decoding = lf.ctc_beam_search_decode(x, frames, beam_width=20, top=3, from_logits=True)
    assert decoding.labels.shape[:2] == decoding.lengths.shape == decoding.scores.shape == (6, 3)
    for n, T in enumerate(frames):
        one = lf.ctc_beam_search_decode(x[:T, n], beam_width=20, top=3, from_logits=True)
        assert [read(one, k) for k in range(3)] == [read(decoding, n, k) for k in range(3)]
        assert one.scores.tobytes() == decoding.scores[n].tobytes()


def test_nan_makes_the_score_nan():
    for x in (np.full((2, 2), np.nan), np.array([[0, np.nan, 1.0], [1, 2, 0]]), np.array([[1, 2, 0], [0, np.nan, 1.0]])):
        for from_logits in (False, True):
            assert np.isnan(lf.ctc_greedy_decode(x, from_logits=from_logits).scores)
            assert np.isnan(lf.ctc_beam_search_decode(x, from_logits=from_logits, top=3).scores).all()
    x = np.zeros((3, 2, 4))
    x[2, 0, 1] = np.nan
    assert np.isnan(lf.ctc_greedy_decode(x).scores).tolist() == [True, False]
    assert np.isfinite(lf.ctc_beam_search_decode(x, [2, 3]).scores).all()


def test_impossible_frames():
    lp = np.full((3, 4), -INF)
    decoding = lf.ctc_beam_search_decode(lp)
    assert decoding.scores.tolist() == [-INF] and decoding.lengths.tolist() == [0]
    lp[:, 1] = 0
    assert read(lf.ctc_beam_search_decode(lp), 0) == (1,)
    assert lf.ctc_greedy_decode(np.full((2, 3), np.nan)).lengths == 0


def test_decoding_errors():
    x = np.zeros((4, 2, 3))
    for options, error in (
        ({"beam_width": 2**70}, ValueError), ({"top": 2**70}, ValueError), ({"top": 1.0}, TypeError), ({"beam_width": None}, TypeError),
        ({"beam_width": True}, TypeError), ({"blank": None}, TypeError), ({"blank": 1.5}, TypeError), ({"blank": np.array([1])}, TypeError),
        ({"blank": 2**70}, ValueError), ({"beam_width": 0}, ValueError), ({"beam_width": 2.0}, TypeError), ({"top": 17}, ValueError), ({"top": 0}, ValueError),
        ({"blank": 3}, ValueError), ({"input_lengths": [5, 4]}, ValueError), ({"beam_width": 10**9}, ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match=f"^{min(options)}[:[]"):
            lf.ctc_beam_search_decode(x, **options)


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        row, last = [i + 1], row
        for k, y in enumerate(b):
            row.append(min(last[k + 1] + 1, row[k] + 1, last[k] + (x != y)))
    return row[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text("abc", max_size=9), st.text("abc", max_size=9)), min_size=1, max_size=5))
def test_edit_distance(pairs):
    a, b = zip(*pairs)
    want = [distance(x, y) for x, y in pairs]
    assert lf.edit_distance(list(a), list(b)).tolist() == want
    assert [lf.edit_distance(x, y) for x, y in pairs] == want
    rows = [np.full((len(pairs), 9), -1, np.int32), np.full((len(pairs), 9), -2, np.int16)]
    for to, words in zip(rows, (a, b)):
        for row, word in zip(to, words):
            row[: len(word)] = [ord(c) for c in word]
    assert lf.edit_distance(*rows, [len(x) for x in a], [len(y) for y in b]).tolist() == want
    total = sum(map(len, b))
    assert not total or lf.token_error_rate(list(a), list(b)) == sum(want) / total


def test_edit_distance_on_threads(rng):
    a, b = rng.integers(0, 5, (2, 40, 80))
    with lf.num_threads(3):
        got = lf.edit_distance(a, b)
    assert got.tolist() == [distance(x, y) for x, y in zip(a.tolist(), b.tolist())]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
def test_a_long_edit_distance_can_be_interrupted():
    def interrupt(*_):
        raise KeyboardInterrupt

    a = np.zeros(200000, np.int64)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            lf.edit_distance(a, a)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_edit_distance_errors():
    assert math.isnan(lf.token_error_rate("", ""))
    for arguments, error in ((([1.5], [1]), TypeError), (([[1]], [[1], [2]]), ValueError), (([[1]], [[1]], [2], [1]), ValueError)):
        with pytest.raises(error):
            lf.edit_distance(*arguments)
