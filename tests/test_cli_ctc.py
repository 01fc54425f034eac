"""`lossfast evaluate --loss ctc`: figures against the functions themselves, layouts and blocks, errors, and the picture."""

import json
import math
from pathlib import Path

import lossfast as lf
import numpy as np
import pytest
from lossfast import cli

OCR = Path(__file__).parents[1] / "examples" / "ocr" / "lines.npz"
EXAMPLE = (
    *(f"{OCR}:logits", f"{OCR}:targets", "--loss", "ctc"),
    *("--input-lengths", f"{OCR}:input_lengths", "--target-lengths", f"{OCR}:target_lengths"),
)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        try:
            code = cli.main(["evaluate", *map(str, arguments)])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run


def outputs(seed=0, T=9, N=7, C=5, S=4):
    """A batch of every kind: full, short and empty utterances, and one whose labels do not fit."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((T, N, C)).astype(np.float32)
    targets = rng.integers(1, C, (N, S))
    frames, labels = rng.integers(2 * S, T + 1, N), rng.integers(1, S + 1, N)
    frames[1], labels[1] = 2, 3
    frames[2], labels[2] = 0, 0
    return logits, targets, dict(input_lengths=frames, target_lengths=labels)


def figures(result):
    return {name: value for name, value in result.to_dict().items() if name != "config"}


def test_figures_are_those_of_the_functions():
    logits, targets, lengths = outputs()
    frames, labels = lengths["input_lengths"], lengths["target_lengths"]
    result = lf.evaluate(logits, targets, loss="ctc", worst=20, **lengths)
    losses = lf.ctc_loss(logits, targets, frames, labels, from_logits=True, reduction="none")
    assert (result.samples, result.infeasible, result.infinite, result.mean) == (7, 1, 1, math.inf)
    assert {s.index[0]: s.loss for s in result.worst} == dict(enumerate(losses / np.maximum(labels, 1)))
    decoded = lf.ctc_greedy_decode(logits, frames, from_logits=True)
    assert result.token_error_rate == lf.token_error_rate(decoded.labels, targets, decoded.lengths, labels)
    assert result.labels == labels.sum()
    for sample in result.worst:
        (n,) = sample.index
        assert sample.target == targets[n, : labels[n]].tolist() and sample.prediction == decoded.labels[n, : decoded.lengths[n]].tolist()
    assert result.correct == sum(s.target == s.prediction for s in result.worst)


def test_mean_is_the_loss_functions():
    logits, targets, lengths = outputs()
    keep = [0, 3, 4, 5, 6]
    logits, targets, lengths = logits[:, keep], targets[keep], {name: each[keep] for name, each in lengths.items()}
    result = lf.evaluate(logits, targets, loss="ctc", **lengths)
    assert result.mean == pytest.approx(lf.ctc_loss(logits, targets, *lengths.values(), from_logits=True), rel=1e-6)


@pytest.mark.parametrize("memory", [1, 400, 1 << 20])
@pytest.mark.parametrize("form", ["memory", "fortran", "file", "batch first", "concatenated", "unsigned"])
def test_same_figures_from_every_form_in_blocks_of_any_size(tmp_path, form, memory):
    logits, targets, lengths = outputs()
    expected = figures(lf.evaluate(logits, targets, loss="ctc", **lengths))
    options = dict(loss="ctc", memory=memory, **lengths)
    if form == "fortran":
        logits, targets = np.asfortranarray(logits), np.asfortranarray(targets)
    elif form == "file":
        for name, array in (("x", logits), ("y", targets), *lengths.items()):
            np.save(tmp_path / f"{name}.npy", array)
        logits, targets = tmp_path / "x.npy", tmp_path / "y.npy"
        options |= {name: tmp_path / f"{name}.npy" for name in lengths}
    elif form == "batch first":
        logits = np.ascontiguousarray(logits.swapaxes(0, 1))
        options["batch_first"] = True
    elif form == "concatenated":
        targets = np.concatenate([row[:length] for row, length in zip(targets, lengths["target_lengths"])])
    elif form == "unsigned":
        targets = targets.astype(np.uint8)
    assert figures(lf.evaluate(logits, targets, **options)) == expected


def test_one_utterance():
    logits, targets, _ = outputs()
    expected = lf.ctc_loss(logits[:, 0], targets[0], 9, 4, from_logits=True) / 1
    result = lf.evaluate(logits[:, 0], targets[0], loss="ctc")
    assert (result.samples, result.worst[0].index) == (1, ()) and result.mean == pytest.approx(expected, rel=1e-6)


def test_no_utterance():
    result = lf.evaluate(np.zeros((5, 0, 3)), np.zeros((0, 2), int), loss="ctc")
    assert result.samples == 0 and math.isnan(result.mean) and math.isnan(result.token_error_rate) and result.worst == []


def test_another_blank():
    logits, targets, lengths = outputs()
    swapped = logits[..., [4, 1, 2, 3, 0]]
    there = figures(lf.evaluate(swapped, np.where(targets == 4, 0, targets), loss="ctc", blank=4, **lengths))
    here = figures(lf.evaluate(logits, targets, loss="ctc", **lengths))
    assert (there["token_error_rate"], there["correct"]) == (here["token_error_rate"], here["correct"])
    assert [s["loss"] for s in there["worst"]] == pytest.approx([s["loss"] for s in here["worst"]], nan_ok=True)


GOOD = outputs()
ERRORS = [
    (dict(target_lengths=[4] * 6), ValueError, r"target_lengths: expected target_lengths of shape \(7,\), one for each utterance; got shape \(6,\)"),
    (dict(input_lengths=[9] * 6 + [10]), ValueError, r"input_lengths\[6\] = 10 is out of range for 9 frames"),
    (dict(target_lengths=[-1] * 7), ValueError, r"target_lengths\[0\] = -1 is out of range for 4 labels"),
    (dict(input_lengths=[9.0] * 7), TypeError, "input_lengths: expected integers for input_lengths, got float64"),
    (dict(logits=np.zeros(5)), ValueError, r"expected logits of shape \(T, N, C\), or \(T, C\) for one utterance; got shape \(5,\)"),
    (dict(targets=np.zeros((6, 4), int)), ValueError, r"targets: expected labels of shape \(7, S\), .*; got shape \(6, 4\)"),
    (dict(targets=np.zeros((7, 4))), TypeError, "targets: expected integers for labels, got float64"),
    (dict(targets=np.ones(20, int)), ValueError, "expected as many labels as target_lengths sum up to, 28; got 20"),
    (dict(targets=np.ones(28, int), target_lengths=None), ValueError, "need target_lengths"),
    (dict(targets=np.where(np.arange(28).reshape(7, 4) == 22, 5, 1)), IndexError, "label 2 of utterance 5 = 5 is out of range for 5 classes"),
    (dict(blank=5), ValueError, "blank"),
    (dict(axis=1), TypeError, "ctc has no option 'axis'"),
]


@pytest.mark.parametrize("changed, error, words", ERRORS)
def test_errors(changed, error, words):
    call = dict(logits=GOOD[0], targets=GOOD[1], input_lengths=[9] * 7, target_lengths=[4] * 7) | changed
    with pytest.raises(error, match=words):
        lf.evaluate(call.pop("logits"), call.pop("targets"), loss="ctc", memory=400, **call)


# --- The command line


def test_table_of_the_example(run):
    code, out, err = run(*EXAMPLE, "--tokens", f"{OCR}:charset")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "token error rate 7.45% (12 of 161)" in lines and "infeasible 0" in lines and "accuracy 62.50% (5 of 8)" in lines
    assert lines[lines.index("worst samples") + 2].startswith("7 1.14213 barely legible at all Barey #goe at a")


def test_tokens_from_a_text_file(run, tmp_path):
    with np.load(OCR) as arrays:
        (tmp_path / "tokens.txt").write_text("\n".join(arrays["charset"]), encoding="utf-8")
    assert "barely legible at all" in run(*EXAMPLE, "--tokens", tmp_path / "tokens.txt")[1]
    assert " 12 11 28 15 22 35 " in run(*EXAMPLE)[1]


def test_json_of_the_example(run):
    code, out, _ = run(*EXAMPLE, "--json")
    report = json.loads(out)
    assert (code, report["label_errors"], report["labels"], report["infeasible"]) == (0, 12, 161, 0)
    assert report["config"]["input_lengths"] == {"source": f"{OCR}:input_lengths", "shape": [8], "dtype": "int64"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--loss", "ctc", "--axis", "1"), "--axis does not apply to ctc"),
        (("--plot", "a.png"), "--plot does not apply to cross_entropy"),
        (("--tokens", "a.txt"), "--tokens does not apply to cross_entropy"),
        (("--blank", "1"), "--blank does not apply to cross_entropy"),
        (("--loss", "ctc", "--blank", "-1"), "expected a class, got -1"),
    ],
)
def test_usage_errors(run, arguments, words):
    code, out, err = run(*EXAMPLE[:2], *arguments)
    assert (code, out) == (2, "") and words in err


@pytest.mark.parametrize("tokens, member", [("charset", True), ("labels", False), ("targets", False)])
def test_tokens_must_be_strings(run, tokens, member):
    code, _, err = run(*EXAMPLE, "--tokens", f"{OCR}:{tokens}")
    assert code == (0 if member else 3) and (member or "expected an array of strings" in err)


def test_picture_of_the_worst(run, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, err = run(*EXAMPLE, "--tokens", f"{OCR}:charset", "--worst", 0, "--plot", tmp_path / "worst.svg")
    assert code == 0 and "alignment of utterance 7" in err
    assert (tmp_path / "worst.svg").stat().st_size > 10_000


def test_picture_leaves_out_what_has_no_alignment(run, tmp_path):
    pytest.importorskip("matplotlib")
    logits, targets, lengths = outputs()
    for name, array in (("x", logits), ("y", targets), *lengths.items()):
        np.save(tmp_path / f"{name}.npy", array)
    command = (
        *(tmp_path / "x.npy", tmp_path / "y.npy", "--loss", "ctc", "--plot", tmp_path / "worst.png"),
        *("--input-lengths", tmp_path / "input_lengths.npy", "--target-lengths", tmp_path / "target_lengths.npy"),
    )
    worst = lf.evaluate(logits, targets, loss="ctc", worst=2, **lengths).worst
    assert worst[0].loss == math.inf and f"utterance {worst[1].index[0]}" in run(*command)[2]
    code, _, err = run(*command, "--worst", 1)
    assert code == 3 and "none of the 1 worst utterances has an alignment" in err


def test_picture_needs_matplotlib(run, monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    code, _, err = run(*EXAMPLE, "--plot", "a.png")
    assert code == 2 and "pip install 'lossfast[plot]'" in err
