"""What is measured: every loss, how its inputs are made, and the same computation in the peers' words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cases import CASES


def optional(name: str):
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch = optional("torch")  # before lossfast: the first one's libgomp serves both (README.md, "One OpenMP")
special = optional("scipy.special")
ml_dtypes = optional("ml_dtypes")
lossfast = optional("lossfast")
TF = torch and torch.nn.functional

DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
if ml_dtypes:
    DTYPES["bfloat16"] = ml_dtypes.bfloat16


# ---- inputs: (rng, shape, dtype) -> positional arguments -------------------------------------------------


def normal(rng, shape, dtype, scale=1.0):
    """Normal deviates, drawn as float32 and rounded to the dtype."""
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(scale)
    return values.astype(DTYPES[dtype], copy=False)


def uniform(rng, shape, dtype, low=0.01, high=0.99):
    values = rng.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values.astype(DTYPES[dtype], copy=False)


def logits(rng, shape, dtype):
    return (normal(rng, shape, dtype, 3),)


def one_normal(rng, shape, dtype):
    return (normal(rng, shape, dtype),)


def two_normals(rng, shape, dtype):
    return normal(rng, shape, dtype), normal(rng, shape, dtype)


def logits_and_labels(rng, shape, dtype):
    """Classes on axis 1; int64 labels, the only wide ones torch takes."""
    return normal(rng, shape, dtype, 3), rng.integers(shape[1], size=shape[:1] + shape[2:])


def logits_and_probabilities(rng, shape, dtype):
    return normal(rng, shape, dtype, 3), uniform(rng, shape, dtype)


def two_probabilities(rng, shape, dtype):
    return uniform(rng, shape, dtype), uniform(rng, shape, dtype)


def log_and_probabilities(rng, shape, dtype):
    return np.log(uniform(rng, shape, "float32")).astype(DTYPES[dtype]), uniform(rng, shape, dtype)


def log_rate_and_counts(rng, shape, dtype):
    return normal(rng, shape, dtype), rng.poisson(2.0, shape).astype(DTYPES[dtype])


def mean_target_and_variance(rng, shape, dtype):
    return *two_normals(rng, shape, dtype), uniform(rng, shape, dtype, 0.1, 2.0)


def normal_and_signs(rng, shape, dtype):
    return normal(rng, shape, dtype), np.where(rng.random(shape) < 0.5, -1, 1).astype(DTYPES[dtype])


def positive_pair(rng, shape, dtype):
    return uniform(rng, shape, dtype, 0.1, 4.0), uniform(rng, shape, dtype, 0.1, 4.0)


def log_and_positive(rng, shape, dtype):
    return normal(rng, shape, dtype), uniform(rng, shape, dtype, 0.1, 4.0)


def two_normals_and_signs(rng, shape, dtype):
    return *two_normals(rng, shape, dtype), normal_and_signs(rng, shape, dtype)[1]


def vectors_and_signs(rng, shape, dtype):
    return *two_normals(rng, shape, dtype), normal_and_signs(rng, shape[:1], dtype)[1]


def three_normals(rng, shape, dtype):
    return *two_normals(rng, shape, dtype), normal(rng, shape, dtype)


def scores_and_true_classes(rng, shape, dtype):
    """Two classes hold in each row, then -1."""
    target = np.full(shape, -1)
    target[:, 0] = rng.integers(shape[1] // 2, size=shape[0])
    target[:, 1] = target[:, 0] + shape[1] // 2
    return normal(rng, shape, dtype), target


def hidden_weight_and_labels(rng, shape, dtype):
    positions, width, classes = shape
    return (normal(rng, (positions, width), dtype), normal(rng, (classes, width), dtype, width**-0.5), rng.integers(classes, size=positions))


def ctc_logits(rng, shape, dtype):
    """(T, N, C, S): half-trained logits, +6 on the classes of one random valid alignment of each sample."""
    frames, samples, classes, labels = shape
    values = normal(rng, (frames, samples, classes), "float32")
    targets = rng.integers(1, classes, (samples, labels))
    targets[:, 1:] += targets[:, 1:] == targets[:, :-1]  # no repeats, so any frames >= labels will do;
    targets[targets == classes] = 1  # a wrap may make one, and `path` leaves room for it
    for n in range(samples):
        slots = np.sort(rng.choice(frames // 2, labels, replace=False)) * 2 if frames >= 2 * labels else np.arange(labels)
        path = np.zeros(frames, np.int64)
        path[slots] = targets[n]
        values[np.arange(frames), n, path] += 6
    lengths = np.full(samples, frames), np.full(samples, labels)
    return values.astype(DTYPES[dtype], copy=False), targets, *lengths


def ctc_log_probs(rng, shape, dtype):
    values, *rest = ctc_logits(rng, shape, "float32")
    values -= np.log(np.exp(values).sum(-1, keepdims=True))
    return values.astype(DTYPES[dtype], copy=False), *rest


def rnnt_logits(rng, shape, dtype):
    """(B, T, U, V): U is the longest target; the joiner's output has U + 1 rows."""
    samples, frames, labels, classes = shape
    return (
        normal(rng, (samples, frames, labels + 1, classes), dtype),
        rng.integers(classes - 1, size=(samples, labels), dtype=np.int32),
        np.full(samples, frames, np.int32),
        np.full(samples, labels, np.int32),
    )


# ---- functions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """One public function: its inputs, and the same computation in the peers' words.

    `torch` defaults to torch.nn.functional's function of the same name, called with the same arguments;
    `scipy` and `numpy` take the positional arguments alone and stand for the reduction in `options`;
    `ours` is lossfast's name where the key is not it.
    """

    inputs: Callable
    torch: Callable | None = None
    scipy: Callable | None = None
    numpy: Callable | None = None
    options: dict = field(default_factory=dict)
    ours: str | None = None


def scipy_cross_entropy(x, target):
    rows = special.log_softmax(x, axis=1)
    return -np.take_along_axis(rows, np.expand_dims(target, 1), 1).mean()


def torch_ctc_from_logits(x, *rest):
    return TF.ctc_loss(TF.log_softmax(x, -1), *rest)


# What torch lacks, as its users write it.


def torch_focal(x, target, gamma=2.0):
    loss = TF.cross_entropy(x, target, reduction="none")
    return ((1 - torch.exp(-loss)) ** gamma * loss).mean()


def torch_sigmoid_focal(x, y, reduction, alpha=0.25, gamma=2.0):
    p, loss = torch.sigmoid(x), TF.binary_cross_entropy_with_logits(x, y, reduction="none")
    return ((alpha * y + (1 - alpha) * (1 - y)) * (1 - (p * y + (1 - p) * (1 - y))) ** gamma * loss).mean()


def torch_log_cosh(x, y):
    d = (x - y).abs()
    return (d + TF.softplus(-2 * d) - 0.6931471805599453).mean()


def torch_js_div(x, y, reduction):
    m = torch.log((x + y) / 2)
    return (TF.kl_div(m, x, reduction="sum") + TF.kl_div(m, y, reduction="sum")) / (2 * len(x))


def torch_dice(x, y):
    return (1 - (2 * (x * y).sum(-1) + 1) / (x.sum(-1) + y.sum(-1) + 1)).mean()


def torch_tweedie(x, y, p=1.5):
    return 2 * (y ** (2 - p) / ((1 - p) * (2 - p)) - y * x ** (1 - p) / (1 - p) + x ** (2 - p) / (2 - p)).mean()


def torch_tweedie_nll(x, y, p=1.5):
    return (torch.exp((2 - p) * x) / (2 - p) - y * torch.exp((1 - p) * x) / (1 - p)).mean()


FUNCTIONS = {
    "logsumexp": Function(logits, lambda x: torch.logsumexp(x, -1), lambda x: special.logsumexp(x, axis=-1)),
    "softmax": Function(logits, lambda x, **kw: torch.softmax(x, -1, **kw), lambda x: special.softmax(x, axis=-1)),
    "log_softmax": Function(logits, lambda x, **kw: torch.log_softmax(x, -1, **kw), lambda x: special.log_softmax(x, axis=-1)),
    "sigmoid": Function(one_normal, lambda x, **kw: torch.sigmoid(x, **kw), lambda x: special.expit(x)),
    "logsigmoid": Function(one_normal, None, lambda x: special.log_expit(x)),
    "softplus": Function(one_normal, None, None, lambda x: np.logaddexp(0, x)),
    "cross_entropy": Function(logits_and_labels, None, scipy_cross_entropy),
    "nll_loss": Function(logits_and_labels, None, None, lambda x, t: -np.take_along_axis(x, np.expand_dims(t, 1), 1).mean()),
    "mse_loss": Function(two_normals, None, None, lambda x, y: np.square(x - y).mean()),
    "l1_loss": Function(two_normals, None, None, lambda x, y: np.abs(x - y).mean()),
    "huber_loss": Function(two_normals, None, lambda x, y: special.huber(1.0, x - y).mean()),
    "smooth_l1_loss": Function(two_normals, None, lambda x, y: special.huber(1.0, x - y).mean()),
    "binary_cross_entropy_with_logits": Function(
        logits_and_probabilities, None, lambda x, y: -(y * special.log_expit(x) + (1 - y) * special.log_expit(-x)).mean()
    ),
    "binary_cross_entropy": Function(two_probabilities, None, None, lambda x, y: -(y * np.log(x) + (1 - y) * np.log1p(-x)).mean()),
    "kl_div": Function(
        log_and_probabilities, None, lambda x, y: (special.xlogy(y, y) - y * x).sum() / len(x), options={"reduction": "batchmean"}
    ),  # 'mean' warns at every call in torch, which costs it time
    "poisson_nll_loss": Function(log_rate_and_counts, None, None, lambda x, y: (np.exp(x) - y * x).mean()),
    "gaussian_nll_loss": Function(mean_target_and_variance, None, None, lambda x, y, v: 0.5 * (np.log(v) + np.square(x - y) / v).mean()),
    "soft_margin_loss": Function(normal_and_signs),
    "hinge_loss": Function(normal_and_signs, lambda x, y: torch.relu(1 - y * x).mean()),
    "squared_hinge_loss": Function(normal_and_signs, lambda x, y: torch.relu(1 - y * x).square().mean()),
    "hinge_embedding_loss": Function(normal_and_signs),
    "margin_ranking_loss": Function(two_normals_and_signs),
    "quantile_loss": Function(two_normals, lambda x, y: torch.maximum(0.5 * (y - x), 0.5 * (x - y)).mean()),
    "log_cosh_loss": Function(two_normals, torch_log_cosh),
    "poisson_deviance": Function(positive_pair, lambda x, y: 2 * (torch.xlogy(y, y / x) + x - y).mean()),
    "gamma_deviance": Function(positive_pair, lambda x, y: 2 * (torch.log(x / y) + y / x - 1).mean()),
    "gamma_nll_loss": Function(log_and_positive, lambda x, y: (x + y * torch.exp(-x)).mean()),
    "tweedie_deviance": Function(positive_pair, torch_tweedie),
    "tweedie_nll_loss": Function(log_and_positive, torch_tweedie_nll),
    "js_div": Function(two_probabilities, torch_js_div, options={"reduction": "batchmean"}),
    "sigmoid_focal_loss": Function(logits_and_probabilities, torch_sigmoid_focal, options={"reduction": "mean"}),
    "focal_loss": Function(logits_and_labels, torch_focal),
    "multilabel_soft_margin_loss": Function(logits_and_probabilities),
    "multi_margin_loss": Function(logits_and_labels),
    "multilabel_margin_loss": Function(scores_and_true_classes),
    "cosine_embedding_loss": Function(vectors_and_signs),
    "triplet_margin_loss": Function(three_normals),
    "triplet_margin_with_distance_loss": Function(three_normals),
    "dice_loss": Function(two_probabilities, torch_dice),
    "wasserstein_loss": Function(two_probabilities, lambda x, y: torch.cumsum(x - y, -1)[..., :-1].abs().sum(-1).mean()),
    "linear_cross_entropy": Function(hidden_weight_and_labels),
    "ctc_loss": Function(ctc_log_probs),
    "ctc_loss from logits": Function(ctc_logits, torch_ctc_from_logits, options={"from_logits": True}, ours="ctc_loss"),
    "ctc_align": Function(ctc_log_probs, ours="ctc_align"),
    "rnnt_loss": Function(rnnt_logits),
}
for case in CASES:  # the others: as the tests draw them, against torch's function if there is one
    FUNCTIONS.setdefault(case.function, Function(lambda rng, shape, dtype, case=case: case.draw(rng, shape, DTYPES[dtype])[0]))
