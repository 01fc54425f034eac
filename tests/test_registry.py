"""One fact, one place: C table = functions = classes = cases = references = docstrings = bench rows.  Each test names what is missing."""

import inspect
import pathlib
import re
import subprocess
import sys

import lossfast as lf
import lossfast.functional as F
import pytest
import reference
from cases import BY_NAME, CASES
from lossfast import _core

ROOT = pathlib.Path(__file__).parents[1]
FUNCTIONS = {name: f for name, f in vars(F).items() if inspect.isfunction(f) and f.__module__ == F.__name__ and not name.startswith("_")}
CLASSES = {name: c for name, c in vars(lf).items() if inspect.isclass(c) and callable(getattr(c, "value_and_grad", None)) and name in lf.__all__}

# torch.nn's and torch.nn.functional's names that issues 2 and 3 promise
TORCH = {
    "cross_entropy": "CrossEntropyLoss", "nll_loss": "NLLLoss", "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss", "kl_div": "KLDivLoss", "l1_loss": "L1Loss", "mse_loss": "MSELoss",
    "huber_loss": "HuberLoss", "smooth_l1_loss": "SmoothL1Loss", "gaussian_nll_loss": "GaussianNLLLoss", "poisson_nll_loss": "PoissonNLLLoss",
    "soft_margin_loss": "SoftMarginLoss", "multilabel_soft_margin_loss": "MultiLabelSoftMarginLoss",
    "hinge_embedding_loss": "HingeEmbeddingLoss", "margin_ranking_loss": "MarginRankingLoss", "multi_margin_loss": "MultiMarginLoss",
    "multilabel_margin_loss": "MultiLabelMarginLoss", "cosine_embedding_loss": "CosineEmbeddingLoss", "triplet_margin_loss": "TripletMarginLoss",
    "triplet_margin_with_distance_loss": "TripletMarginWithDistanceLoss", "linear_cross_entropy": None, "ctc_loss": "CTCLoss", "logsumexp": None,
    "softmax": None, "log_softmax": None, "sigmoid": None, "logsigmoid": None, "softplus": None,
}  # fmt: skip
ELSEWHERE = {
    "ctc_align",
    "ctc_beam_search_decode",
    "ctc_feasible",
    "ctc_greedy_decode",
    "ctc_loss",
    "ctc_posteriors",
    "edit_distance",
    "rnnt_loss",
    "token_error_rate",
}  # tests of their own: test_ctc*.py


def missing(wanted, have):
    return sorted(set(wanted) - set(have))


def test_every_promised_function_exists():
    assert missing(TORCH, FUNCTIONS) == []


def test_every_promised_class_exists():
    assert missing([c for c in TORCH.values() if c], CLASSES) == []


def losses():
    """Functions that have a gradient: those that value_and_grad takes."""
    return [name for name in FUNCTIONS if name not in ELSEWHERE and differentiable(FUNCTIONS[name])]


def differentiable(function):
    try:
        lf.value_and_grad(function)
    except TypeError:
        return False
    return True


def test_every_function_has_a_case():
    assert missing(losses(), BY_NAME) == []


def test_every_case_has_a_function():
    assert missing(BY_NAME, FUNCTIONS) == []


def test_every_case_has_a_reference():
    assert missing(BY_NAME, vars(reference)) == []


def test_every_case_has_its_class():
    assert missing([c.cls for c in CASES if c.cls], CLASSES) == []


def test_every_class_has_a_case():
    assert missing([c for c in CLASSES if c not in ("CTCLoss", "RNNTLoss")], [c.cls for c in CASES]) == []


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_docstring(name):
    """One sentence, and an example that runs (test_doctest.py)."""
    text = inspect.getdoc(FUNCTIONS[name])
    assert text and re.match(r"[^\n]+\.(\n|$)", text), "the first line is one sentence"
    assert ">>>" in text, "an example"
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        assert re.search(rf"\b{parameter}\b", text) or parameter in COMMON, f"{parameter} is not mentioned"


# parameters that mean the same everywhere and are explained once, in the module's docstring
COMMON = {"input", "target", "weight", "reduction", "where", "out", "axis", "size_average", "reduce", "keepdims", "ignore_index"}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_docstring(name):
    assert inspect.getdoc(CLASSES[name])


@pytest.mark.parametrize("case", [pytest.param(c, id=c.function) for c in CASES if c.function in FUNCTIONS])
def test_signature_is_torchs_up_to_weight(case):
    """Positional up to weight, everything after keyword-only; every option of the case is a parameter."""
    parameters = inspect.signature(FUNCTIONS[case.function]).parameters
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional[: len(case.arrays)] == list(case.arrays)
    between = ["p", "margin"] if case.function == "multi_margin_loss" else []  # torch's, before its weight
    assert positional[len(case.arrays) :] in ([], [*between, "weight"] if case.reductions else ["axis"])
    for options in case.options:
        assert missing(options, parameters) == []
    if case.reductions:
        assert parameters["reduction"].default in ("mean", "none")
        assert missing({"where", "out"}, parameters) == []


def test_the_c_table_holds_every_elementwise_loss():
    """Named in losses.def and known to the compiled module."""
    source = ROOT / "src" / "lossc" / "losses.def"
    if not source.exists():
        pytest.skip("installed without its source")
    listed = re.findall(r"^ELEM\(\s*(\w+)", source.read_text(), re.M)
    assert listed == sorted(_core.LOSSES, key=_core.LOSSES.get)


def test_every_formula_serves():
    """A name of losses.def that neither a function nor a test of vmath.h uses has lost its function."""
    users = [*pathlib.Path(lf.__file__).parent.glob("*.py"), ROOT / "tests" / "test_vmath.py"]
    text = "\n".join(path.read_text() for path in users)
    assert [name for name in _core.LOSSES if f'"{name}"' not in text] == []


def test_every_case_has_a_bench_row():
    bench = ROOT / "bench"
    if not bench.exists():
        pytest.skip("installed without its bench")
    code = "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); import rows; print(*{row.function for row in rows.ROWS})"
    done = subprocess.run([sys.executable, "-c", code, bench], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert missing(BY_NAME, done.stdout.split()) == []


def test_stubs_name_everything():
    """What modules of Python's use of the compiled one stands in its stub, and what the stub names is there."""
    folder = pathlib.Path(lf.__file__).parent
    assert (folder / "py.typed").exists()
    stub = set(re.findall(r"^(?:def|class) (\w+)|^(\w+):", (folder / "_core.pyi").read_text(), re.M))
    named = {a or b for a, b in stub}
    used = {name for p in folder.glob("*.py") for name in re.findall(r"\b_core\.(\w+)", p.read_text())}
    assert used <= named
    assert [name for name in named if not hasattr(_core, name)] == []
