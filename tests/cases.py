"""THE CASES: one row per loss and primitive.  Tests of value, gradient, dtype, layout, threads, ISA and registry, and the
bench, all read this table; adding a loss means adding a row here and a formula of the same name to reference.py.

A *maker* is a function (rng, shape) -> float64 or integer array inside the argument's domain.  An option whose value is a
maker becomes an array when a case is drawn; an option named like an array argument replaces that argument.
"""

from dataclasses import dataclass

import numpy as np

INF, NAN = np.inf, np.nan


# ---- makers ---------------------------------------------------------------------------------------------------------


def normal(rng, shape):
    return rng.normal(0, 3, shape)


def unit(rng, shape):
    return rng.uniform(0.02, 0.98, shape)


def positive(rng, shape):
    return rng.uniform(0.1, 4, shape)


def binary(rng, shape):
    return rng.integers(0, 2, shape).astype(float)


def sign(rng, shape):
    return rng.choice([-1.0, 1.0], shape)


def counts(rng, shape):
    return rng.poisson(3, shape).astype(float)


def log_unit(rng, shape):
    return np.log(unit(rng, shape))


def class_axis(shape):
    return min(1, len(shape) - 1)


def labels(rng, shape):
    """A class per position; with two or more classes and positions, the first and the last class occur."""
    axis = class_axis(shape)
    y = rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    if y.size > 1:
        y.flat[0], y.flat[-1] = 0, shape[axis] - 1
    return np.array(y)


def labels_some_ignored(rng, shape):
    y = labels(rng, shape)
    return np.where(rng.random(y.shape) < 0.3, -100, y)


def probabilities(rng, shape):
    """Adding up to 1 along the class axis, with some exact zeros."""
    p = rng.gamma(0.5, 1, shape) * (rng.random(shape) < 0.9) + 1e-3
    return p / p.sum(class_axis(shape), keepdims=True)


def per_class(rng, shape):
    return rng.uniform(0.25, 2, shape[class_axis(shape)])


def per_last(rng, shape):
    return rng.uniform(0.25, 2, shape[-1])


def per_row(rng, shape):
    return np.asarray(rng.choice([-1.0, 1.0], shape[:-1]))


def hidden(rng, shape):
    return rng.normal(0, 1, (shape[0], shape[2]))


def linear_weight(rng, shape):
    return rng.normal(0, 1, (shape[1], shape[2]))


def hidden_labels(rng, shape):
    return labels(rng, shape[:2])


def hidden_probabilities(rng, shape):
    return probabilities(rng, shape[:2])


def label_sets(rng, shape):
    """Rows of distinct classes ended by -1, as multilabel_margin_loss takes them; what follows the -1 is never read."""
    rows = np.array([rng.permutation(shape[-1]) for _ in range(int(np.prod(shape[:-1])))]).reshape(shape)
    ends = rng.integers(0, shape[-1] + 1, (*shape[:-1], 1))
    return np.where(np.arange(shape[-1]) == ends, -1, rows).astype(int)


# ---- the row --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edge:
    """A point where the value is a matter of decision: reduction 'none' (where there is one), float64 and float32 alike."""

    why: str
    arrays: tuple
    value: object
    options: dict | None = None
    gradient: object = None  # by the first argument, upstream ones; None: not stated
    exact: bool = True  # bits; otherwise to 1e-6


@dataclass(frozen=True, eq=False)
class Case:
    function: str  # in lossfast.functional, and in reference.py
    cls: str | None  # in lossfast; None for a primitive
    arrays: dict  # array arguments in positional order: name -> maker
    options: tuple = ({},)
    floats: tuple = ("input",)  # arguments that have a gradient, all of them also by options
    kind: str = "elementwise"  # or "class" (class axis), "row" (last axis), "axis" (softmax and its like)
    reductions: tuple = ("none", "mean", "sum")  # () for a primitive
    algebraic: bool = False  # only + - * / max abs: held to 1 ulp
    terms: object = None  # of the arrays and options: the larger of two terms that may cancel; there an ulp is its ulp
    hessian: bool = False  # has a second derivative by the first argument: value_grad_hess
    edges: tuple = ()

    @property
    def shapes(self):
        return SHAPES[self.kind]

    @property
    def large(self):
        """A shape with enough blocks for every thread, odd in every dimension."""
        return LARGE[self.kind]

    def draw(self, rng, shape, dtype=np.float64, option=0):
        """(positional arrays, keywords) for options[option]; float arrays rounded to dtype."""
        made = {name: (value(rng, shape) if callable(value) else value) for name, value in {**self.arrays, **self.options[option]}.items()}
        made = {name: rounded(value, dtype) for name, value in made.items()}
        return tuple(made.pop(name) for name in self.arrays), made

    def loss_shape(self, shape):
        if self.kind == "class":
            axis = class_axis(shape)
            return shape[:axis] + shape[axis + 1 :]
        return {"row": shape[:-1], "linear": shape[:1]}.get(self.kind, shape)


def rounded(value, dtype):
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


SHAPES = {
    # around the blocks of 2048 and 8192 elements, and of 16 and 32 lanes
    "elementwise": ((1,), (15,), (16,), (33,), (3, 5, 7), (2047,), (2049,), (3, 2731)),
    # around 64 positions a tile and 16 lanes; every number of classes with a path of its own
    "class": (
        (5,),
        (1, 1),
        (3, 2),
        (16, 10),
        (65, 10),
        (64, 63),
        (17, 64),
        (15, 65),
        (63, 127),
        (2, 1000),
        (3, 1025),
        (2, 4100),
        (4, 3, 5),
        (2, 21, 9, 8),
        (2, 70, 65),
    ),
    "row": ((5,), (1, 1), (3, 2), (16, 10), (65, 7), (3, 129)),
    "linear": ((1, 1, 1), (3, 2, 4), (16, 10, 33), (65, 130, 3)),
    "axis": ((1,), (5,), (3, 1), (16, 10), (65, 10), (64, 63), (17, 64), (15, 65), (2, 1000), (3, 1025), (2, 4100), (4, 3, 5), (9, 2, 65)),
}
LARGE = {"elementwise": (3, 5, 4093), "class": (6007, 11), "row": (6007, 11), "axis": (6007, 11), "linear": (2011, 67, 5)}


# ---- where two terms cancel, the larger one --------------------------------------------------------------------------


def kl_terms(x, t, log_target=False, **_):
    return np.abs(np.exp(t) * t) if log_target else np.abs(t * np.log(t))


def gaussian_terms(x, t, var, full=False, **_):
    return np.abs(np.log(var)) / 2 + full


def poisson_terms(x, t, log_input=True, eps=1e-8, **_):
    return np.maximum(np.abs(x * t), np.exp(x)) if log_input else np.maximum(np.abs(t * np.log(x + eps)), x)


def gamma_terms(x, t, **_):
    return np.abs(x)


def tweedie_terms(x, t, power=1.5, **_):
    return np.exp((2 - power) * x) / abs(2 - power) if power != 2 else np.abs(x)


# ---- the table ------------------------------------------------------------------------------------------------------

CASES = [
    # primitives
    Case(
        "logsumexp",
        None,
        {"input": normal},
        ({}, {"axis": 0}, {"axis": None}, {"keepdims": True}),
        kind="axis",
        reductions=(),
        edges=(
            Edge("nothing to add", ([-INF, -INF],), -INF, gradient=[0, 0]),
            Edge("empty axis", (np.zeros((2, 0)),), [-INF, -INF], gradient=np.zeros((2, 0))),
            Edge("one class", ([[3.0], [-INF], [INF]],), [3.0, -INF, INF]),
            Edge("infinite entry", ([INF, 1.0],), INF),
            Edge("both infinities", ([INF, -INF],), INF),
            Edge("nan anywhere", ([[NAN, 1.0], [INF, NAN], [NAN, -INF]],), [NAN, NAN, NAN]),
            Edge("masked entries", ([-INF, 2.0, -INF],), 2.0, gradient=[0, 1, 0]),
            Edge("huge", ([1e30, 0.0, -1e30],), 1e30, gradient=[1, 0, 0], exact=False),
            Edge("lowest float everywhere", (np.full(4, -3.4028234663852886e38),), -3.4028234663852886e38, gradient=np.full(4, 0.25), exact=False),
            Edge("cancels to almost zero", ([0.0, -20.0],), 2.061153620314381e-09, exact=False),
        ),
    ),
    Case(
        "softmax",
        None,
        {"input": normal},
        ({}, {"axis": 0}),
        kind="axis",
        reductions=(),
        edges=(
            Edge("empty axis", (np.zeros((2, 0)),), np.zeros((2, 0))),
            Edge("nothing to choose from", ([-INF, -INF],), [NAN, NAN]),
            Edge("one infinite entry takes all", ([INF, 0.0],), [1, 0]),
            Edge("two infinite entries", ([INF, INF],), [NAN, NAN]),
            Edge("nan anywhere", ([1.0, NAN],), [NAN, NAN]),
            Edge("masked entries", ([-INF, 2.0, -INF],), [0, 1, 0]),
            Edge("one class", ([[5.0], [-1e30]],), [[1], [1]]),
            Edge("huge", ([1e30, 0.0, -1e30],), [1, 0, 0]),
            Edge("lowest float everywhere", (np.full(4, -3.4028234663852886e38),), np.full(4, 0.25), exact=False),
            Edge("highest and lowest float", ([3.4028234663852886e38, -3.4028234663852886e38],), [1, 0]),
        ),
    ),
    Case(
        "log_softmax",
        None,
        {"input": normal},
        ({}, {"axis": 0}),
        kind="axis",
        reductions=(),
        edges=(
            Edge("empty axis", (np.zeros((2, 0)),), np.zeros((2, 0))),
            Edge("nothing to choose from", ([-INF, -INF],), [NAN, NAN]),
            Edge("one infinite entry takes all", ([INF, 0.0],), [0, -INF]),
            Edge("two infinite entries", ([INF, INF],), [NAN, NAN]),
            Edge("nan anywhere", ([1.0, NAN],), [NAN, NAN]),
            Edge("masked entries", ([-INF, 2.0, -INF],), [-INF, 0, -INF]),
            Edge("one class", ([[5.0], [-1e30]],), [[0], [0]]),
            Edge("huge", ([1e30, 0.0],), [0, -1e30], exact=False),
            Edge("dominating class", ([20.0, 0.0],), [-2.061153620314381e-09, -20.000000002061153], exact=False),
            Edge("lowest float everywhere", (np.full(4, -3.4028234663852886e38),), np.full(4, -1.3862943611198906), exact=False),
        ),
    ),
    Case(
        "sigmoid",
        None,
        {"input": normal},
        reductions=(),
        edges=(
            Edge("ends", ([INF, -INF, 0.0, NAN, 1e30, -1e30],), [1, 0, 0.5, NAN, 1, 0], gradient=[0, 0, 0.25, NAN, 0, 0]),
            Edge("far left keeps its digits", ([-30.0, -80.0],), [9.357622968839299e-14, 1.8048513878454153e-35], exact=False),
        ),
    ),
    Case(
        "logsigmoid",
        None,
        {"input": normal},
        reductions=(),
        edges=(
            Edge("ends", ([INF, -INF, NAN, -1000.0, 1000.0, -1e30],), [0, -INF, NAN, -1000, 0, -1e30], gradient=[0, 1, NAN, 1, 0, 1]),
            Edge("far right keeps its digits", ([30.0, 80.0],), [-9.357622968838862e-14, -1.8048513878454153e-35], exact=False),
        ),
    ),
    Case(
        "softplus",
        None,
        {"input": normal},
        reductions=(),
        edges=(
            Edge("ends", ([INF, -INF, NAN, -1000.0, 1000.0, 1e30],), [INF, 0, NAN, 0, 1000, 1e30], gradient=[1, 0, NAN, 0, 1, 1]),
            Edge("far left keeps its digits", ([-30.0, -80.0],), [9.357622968838862e-14, 1.8048513878454153e-35], exact=False),
        ),
    ),
    # class losses
    Case(
        "cross_entropy",
        "CrossEntropyLoss",
        {"input": normal, "target": labels},
        (
            {},
            {"target": labels_some_ignored},
            {"weight": per_class},
            {"ignore_index": 0},
            {"label_smoothing": 0.1},
            {"label_smoothing": 1.0},
            {"target": labels_some_ignored, "weight": per_class, "label_smoothing": 0.2},
            {"target": probabilities},
            {"target": probabilities, "weight": per_class, "label_smoothing": 0.1},
        ),
        ("input", "target", "weight"),
        kind="class",
        hessian=True,
        edges=(
            Edge("target below every other", ([[-INF, 0.0]], [0]), [INF], gradient=[[-1, 1]]),
            Edge("masked class", ([[-INF, 1.0]], [1]), [0], gradient=[[0, 0]]),
            Edge("masked class, smoothed", ([[-INF, 1.0]], [1]), [INF], {"label_smoothing": 0.1}),
            Edge("zero probability on a masked class", ([[-INF, 1.0]], [[0.0, 1.0]]), [0], gradient=[[0, 0]]),
            Edge("nan logit", ([[NAN, 1.0], [0.0, NAN]], [1, 0]), [NAN, NAN]),
            Edge("nothing to choose from", ([[-INF, -INF]], [1]), [NAN]),
            Edge(
                "ignored rows may hold anything", ([[NAN, 1.0], [INF, -INF], [-INF, -INF]], [-100, -100, -100]), [0, 0, 0], gradient=np.zeros((3, 2))
            ),
            Edge("one class", ([[7.0], [-1e30]], [0, 0]), [0, 0], gradient=[[0], [0]]),
            Edge(
                "almost certain",
                ([[20.0, 0.0]], [0]),
                [2.061153620314381e-09],
                gradient=[[-2.061153618190204e-09, 2.061153618190204e-09]],
                exact=False,
            ),
            Edge("almost certain, the other wins", ([[20.0, 0.0]], [1]), [20.000000002061153], exact=False),
            Edge("huge", ([[1e30, 0.0], [1e30, 0.0]], [0, 1]), [0, 1e30], gradient=[[0, 0], [1, -1]], exact=False),
            Edge(
                "lowest float everywhere",
                (np.full((1, 4), -3.4028234663852886e38), [2]),
                [1.3862943611198906],
                gradient=[[0.25, 0.25, -0.75, 0.25]],
                exact=False,
            ),
            Edge(
                "suppressed tokens",
                ([[-3.4028234663852886e38, 1.0, -3.4028234663852886e38, 1.0]], [1]),
                [0.6931471805599453],
                gradient=[[0, -0.5, 0, 0.5]],
                exact=False,
            ),
            Edge("zero weight", ([[0.0, 0.0]], [0]), [0], {"weight": np.array([0.0, 1.0])}, gradient=[[0, 0]]),
            Edge("probabilities need not add up", ([[0.0, 0.0]], [[3.0, -1.0]]), [2 * 0.6931471805599453], exact=False),
            Edge("unbatched", ([0.0, 0.0], 1), 0.6931471805599453, gradient=[0.5, -0.5], exact=False),
            *[
                Edge(
                    f"further apart than float reaches, {what}",
                    ([[3e38, -3e38] + [-INF] * masked], target),
                    [3e37],
                    options,
                    gradient=[[0.05, -0.05] + [0] * masked],
                    exact=False,
                )
                for what, masked, target, options in (
                    ("smoothed", 0, [0], {"label_smoothing": 0.1}),
                    ("probabilities", 0, [[0.95, 0.05]], None),
                    ("of 66 classes", 64, [[0.95, 0.05] + [0.0] * 64], None),
                    ("weighted", 0, [1], {"weight": np.array([1.0, 0.05])}),
                )
            ],
        ),
    ),
    Case(
        "nll_loss",
        "NLLLoss",
        {"input": log_unit, "target": labels},
        ({}, {"target": labels_some_ignored}, {"weight": per_class}, {"ignore_index": 0}, {"target": labels_some_ignored, "weight": per_class}),
        ("input", "weight"),
        kind="class",
        algebraic=True,
        edges=(
            Edge("impossible class", ([[-INF, 0.0]], [0]), [INF], gradient=[[-1, 0]]),
            Edge("certain class", ([[-INF, 0.0]], [1]), [0], gradient=[[0, -1]]),
            Edge("nan elsewhere is not read", ([[NAN, -2.0]], [1]), [2], gradient=[[0, -1]]),
            Edge("nan", ([[NAN, -2.0]], [0]), [NAN]),
            Edge("ignored rows may hold anything", ([[NAN, INF]], [-100]), [0], gradient=[[0, 0]]),
            Edge("not log-probabilities", ([[3.0, -2.0]], [0]), [-3], gradient=[[-1, 0]]),
            Edge("unbatched", ([-1.0, -2.0], 1), 2, gradient=[0, -1]),
        ),
    ),
    # elementwise losses of torch.nn
    Case(
        "l1_loss",
        "L1Loss",
        {"input": normal, "target": normal},
        ({}, {"weight": positive}),
        ("input", "target", "weight"),
        algebraic=True,
        edges=(Edge("kink and ends", ([1.0, INF, NAN, 1.0], [1.0, 0.0, 0.0, -INF]), [0, INF, NAN, INF], gradient=[0, 1, NAN, 1]),),
    ),
    Case(
        "mse_loss",
        "MSELoss",
        {"input": normal, "target": normal},
        ({}, {"weight": positive}),
        ("input", "target", "weight"),
        algebraic=True,
        hessian=True,
        edges=(Edge("ends", ([1.0, INF, NAN, 3.0], [1.0, 0.0, 0.0, 1.0]), [0, INF, NAN, 4], gradient=[0, INF, NAN, 4]),),
    ),
    Case(
        "huber_loss",
        "HuberLoss",
        {"input": normal, "target": normal},
        ({}, {"delta": 0.5}, {"delta": 2.0, "weight": positive}, {"delta": INF}),
        ("input", "target", "weight"),
        algebraic=True,
        hessian=True,
        edges=(
            Edge("knee and ends", ([0.0, 1.0, -3.0, INF, NAN], [0.0] * 5), [0, 0.5, 2.5, INF, NAN], gradient=[0, 1, -1, 1, NAN]),
            Edge("infinite delta", ([3.0, INF, -INF], [1.0] * 3), [2, INF, INF], {"delta": INF}, gradient=[2, INF, -INF]),
        ),
    ),
    Case(
        "smooth_l1_loss",
        "SmoothL1Loss",
        {"input": normal, "target": normal},
        ({}, {"beta": 0.5}, {"beta": 0.0}),
        ("input", "target"),
        algebraic=True,
        edges=(
            Edge("knee and ends", ([0.0, 1.0, -3.0, INF, NAN], [0.0] * 5), [0, 0.5, 2.5, INF, NAN], gradient=[0, 1, -1, 1, NAN]),
            Edge("beta 0 is l1", ([0.0, 2.0, -2.0], [0.0] * 3), [0, 2, 2], {"beta": 0}, gradient=[0, 1, -1]),
            Edge("infinite beta", ([3.0], [1.0]), [0], {"beta": INF}, gradient=[0]),
        ),
    ),
    Case(
        "binary_cross_entropy",
        "BCELoss",
        {"input": unit, "target": unit},
        ({}, {"target": binary}, {"weight": positive}),
        ("input", "target", "weight"),
        edges=(
            Edge("clamped at -100", ([0.0, 1.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, 1.0, 1.0]), [100, 100, 0, 0, 0.6931471805599453], exact=False),
            Edge("nan", ([NAN, 0.5], [1.0, NAN]), [NAN, NAN]),
        ),
    ),
    Case(
        "binary_cross_entropy_with_logits",
        "BCEWithLogitsLoss",
        {"input": normal, "target": unit},
        ({}, {"target": binary}, {"weight": positive}, {"pos_weight": positive}, {"weight": per_last, "pos_weight": per_last}),
        ("input", "target", "weight", "pos_weight"),
        hessian=True,
        edges=(
            Edge(
                "the limits at infinity", ([INF, INF, -INF, -INF, NAN], [1.0, 0.0, 1.0, 0.0, 1.0]), [0, INF, INF, 0, NAN], gradient=[0, 1, -1, 0, NAN]
            ),
            Edge("huge", ([1e30, 1e30, -1e30, -1e30], [1.0, 0.0, 1.0, 0.0]), [0, 1e30, 1e30, 0], gradient=[0, 1, -1, 0], exact=False),
            Edge("almost certain", ([30.0, -30.0], [1.0, 0.0]), [9.357622968838862e-14] * 2, exact=False),
        ),
    ),
    Case(
        "kl_div",
        "KLDivLoss",
        {"input": log_unit, "target": unit},
        ({}, {"target": log_unit, "log_target": True}),
        ("input", "target"),
        reductions=("none", "mean", "sum", "batchmean"),
        terms=kl_terms,
        edges=(
            Edge("0 log 0", ([-1.0, -INF, -INF], [0.0, 0.0, 0.5]), [0, 0, INF], gradient=[0, 0, -0.5]),
            Edge("0 log 0, log target", ([-1.0, -INF], [-INF, -INF]), [0, 0], {"log_target": True}, gradient=[0, 0]),
            Edge("negative target", ([-1.0], [-0.5]), [NAN]),
        ),
    ),
    Case(
        "gaussian_nll_loss",
        "GaussianNLLLoss",
        {"input": normal, "target": normal, "var": positive},
        ({}, {"full": True}, {"eps": 0.05, "full": True}),
        ("input", "target", "var"),
        terms=gaussian_terms,
        edges=(
            Edge("variance clamped", ([1.0], [0.0], [0.0]), [0.5 * (np.log(1e-6) + 1e6)], gradient=[1e6], exact=False),
            Edge("nan and inf", ([NAN, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, NAN, INF]), [NAN, NAN, INF]),
            Edge(
                "subnormal variance",
                ([0.0, 2.0**-100], [0.0, 0.0], [2.0**-149, 2.0**-140]),
                [-149 * np.log(2) / 2, (-140 * np.log(2) + 2.0**-60) / 2],
                {"eps": 0.0},
                gradient=[0, 2.0**40],
                exact=False,
            ),
        ),
    ),
    Case(
        "poisson_nll_loss",
        "PoissonNLLLoss",
        {"input": normal, "target": counts},
        (
            {},
            {"target": positive, "full": True},
            {"input": positive, "log_input": False},
            {"input": positive, "target": positive, "log_input": False, "full": True, "eps": 1e-3},
        ),
        ("input", "target"),
        terms=poisson_terms,
        hessian=True,
        edges=(
            Edge("overflow", ([1e30, -INF], [1.0, 0.0]), [INF, 0]),
            Edge("infinite rate", ([INF], [1.0]), [INF], {"log_input": False}, gradient=[1]),
            Edge("Stirling beyond 2^23", ([8.4e6], [8.4e6]), [8.890809665111444], {"log_input": False, "full": True, "eps": 0.0}, exact=False),
            Edge(
                "Stirling only above 1",
                ([0.0, 0.0, 0.0], [0.5, 1.0, 2.0]),
                [1, 1, 2 * np.log(2) - 1 + 0.5 * np.log(4 * np.pi)],
                {"full": True},
                exact=False,
            ),
            Edge("negative rate", ([-1.0], [1.0]), [NAN], {"log_input": False}),
            Edge(
                "nothing observed, next to no rate", ([2.0**-149, 0.0], [0.0, 0.0]), [2.0**-149, 0], {"log_input": False, "eps": 0.0}, gradient=[1, 1]
            ),
        ),
    ),
    Case("soft_margin_loss", "SoftMarginLoss", {"input": normal, "target": sign}, floats=("input", "target")),
    Case(
        "hinge_embedding_loss",
        "HingeEmbeddingLoss",
        {"input": normal, "target": sign},
        ({}, {"margin": 2.5}),
        algebraic=True,
    ),
    Case(
        "margin_ranking_loss",
        "MarginRankingLoss",
        {"input1": normal, "input2": normal, "target": sign},
        ({}, {"margin": 0.5}),
        ("input1", "input2"),
        algebraic=True,
    ),
    Case(
        "focal_loss",
        "FocalLoss",
        {"input": normal, "target": labels},
        (
            {},
            {"target": labels_some_ignored, "weight": per_class, "gamma": 0.5},
            {"gamma": 0.0, "ignore_index": 0},
            {"target": labels_some_ignored, "alpha": per_class, "gamma": 1.5},
        ),
        ("input", "weight", "alpha"),
        hessian=True,
        kind="class",
        edges=(
            Edge("certain", ([[-INF, 1.0]], [1]), [0], gradient=[[0, 0]]),
            Edge("almost certain", ([[20.0, 0.0]], [0]), [2.061153620314381e-09 * 2.061153618190204e-09**2], exact=False),
            Edge("impossible", ([[-INF, 1.0]], [0]), [INF]),
            Edge("ignored rows may hold anything", ([[NAN, 1.0]], [-100]), [0], gradient=[[0, 0]]),
        ),
    ),
    # elementwise losses beyond torch.nn
    Case(
        "sigmoid_focal_loss",
        "SigmoidFocalLoss",
        {"input": normal, "target": unit},
        ({}, {"alpha": -1.0, "gamma": 1.5}, {"gamma": 0.0, "weight": positive}, {"alpha": 0.6, "gamma": 3.0}),
        ("input", "target", "weight"),
        hessian=True,
        edges=(Edge("ends", ([INF, -INF, INF, -INF, NAN], [1.0, 0.0, 0.0, 1.0, 1.0]), [0, 0, INF, INF, NAN]),),
    ),
    Case(
        "js_div",
        "JSDivLoss",
        {"input": unit, "target": unit},
        ({}, {"input": log_unit, "target": log_unit, "log": True}),
        ("input", "target"),
        hessian=True,
        reductions=("none", "mean", "sum", "batchmean"),
        edges=(
            Edge("0 log 0", ([0.0, 0.0, 0.5], [0.0, 0.5, 0.0]), [0, 0.25 * np.log(2), 0.25 * np.log(2)], exact=False),
            Edge("a share that underflows", ([1e-45, 1e3], [1e3, 1e-45]), [500 * np.log(2), 500 * np.log(2)], exact=False),
            Edge("equal", ([0.3, 1.0], [0.3, 1.0]), [0, 0], gradient=[0, 0]),
            Edge("equal and subnormal", ([1e-40, 1e-45], [1e-40, 1e-45]), [0, 0], gradient=[0, 0]),
            Edge(
                "subnormal",
                ([2.0**-128, 0.0], [3 * 2.0**-128, 2.0**-140]),
                [0.26162407188227399 * 2.0**-128, np.log(2) * 2.0**-141],
                gradient=[-0.34657359027997264, -INF],
                exact=False,
            ),
            Edge("nan", ([NAN, -0.5], [0.5, 0.5]), [NAN, NAN]),
        ),
    ),
    Case("hinge_loss", "HingeLoss", {"input": normal, "target": sign}, ({}, {"weight": positive}), ("input", "weight"), algebraic=True),
    Case(
        "squared_hinge_loss",
        "SquaredHingeLoss",
        {"input": normal, "target": sign},
        ({}, {"weight": positive}),
        ("input", "weight"),
        algebraic=True,
        hessian=True,
    ),
    Case(
        "quantile_loss",
        "QuantileLoss",
        {"input": normal, "target": normal},
        ({}, {"q": 0.9}, {"q": 0.1, "weight": positive}, {"q": 1.0}),
        ("input", "target", "weight"),
        algebraic=True,
        hessian=True,
        edges=(
            Edge(
                "sides and ends", ([1.0, 2.0, 0.0, INF, NAN], [1.0] * 5), [0, 0.75, 0.25, INF, NAN], {"q": 0.25}, gradient=[0, 0.75, -0.25, 0.75, NAN]
            ),
            Edge("level 0 far below", ([-INF], [0.0]), [0], {"q": 0.0}, gradient=[0]),
        ),
    ),
    Case(
        "log_cosh_loss",
        "LogCoshLoss",
        {"input": normal, "target": normal},
        ({}, {"weight": positive}),
        ("input", "target", "weight"),
        hessian=True,
        edges=(
            Edge("ends", ([0.0, INF, -INF, NAN], [0.0] * 4), [0, INF, INF, NAN], gradient=[0, 1, -1, NAN]),
            Edge("near and far", ([1e-4, 1000.0], [0.0, 0.0]), [5e-9 * (1 - 1e-8 / 6), 1000 - np.log(2)], exact=False),
        ),
    ),
    Case(
        "gamma_nll_loss",
        "GammaNLLLoss",
        {"input": normal, "target": positive},
        ({}, {"weight": positive}),
        ("input", "target", "weight"),
        terms=gamma_terms,
        hessian=True,
        edges=(Edge("ends", ([INF, -INF, 0.0, NAN], [1.0, 1.0, 0.0, 1.0]), [INF, INF, 0, NAN]),),
    ),
    Case(
        "tweedie_nll_loss",
        "TweedieNLLLoss",
        {"input": normal, "target": positive},
        ({}, {"power": 1.2, "weight": positive}, {"power": 1}, {"power": 2}, {"power": 3.0}, {"power": 0}),
        ("input", "target", "weight"),
        terms=tweedie_terms,
        hessian=True,
        edges=(
            Edge("no target where its factor overflows", ([-60.0], [0.0]), [-2 * np.exp(30)], {"power": 2.5}, gradient=[np.exp(30)], exact=False),
            Edge("the larger of two infinite terms", ([500.0, 100.0, INF], [1e30, INF, 1.0]), [INF, -INF, INF], {"power": 0}),
            Edge(
                "a factor that overflows alone",
                ([-200.0], [2.0**-126]),
                [2 * np.exp(100) * 2.0**-126],
                gradient=[-np.exp(100) * 2.0**-126],
                exact=False,
            ),
        ),
    ),
    Case(
        "poisson_deviance",
        "PoissonDeviance",
        {"input": positive, "target": positive},
        ({}, {"weight": positive}),
        ("input", "target", "weight"),
        hessian=True,
        edges=(
            Edge("nothing observed", ([1.5], [0.0]), [3], gradient=[2]),
            Edge("exact", ([2.0, 0.3], [2.0, 0.3]), [0, 0], gradient=[0, 0]),
            Edge("infinities", ([INF, 1.0, INF, NAN], [1.0, INF, INF, 1.0]), [INF, INF, NAN, NAN], gradient=[2, -INF, NAN, NAN]),
            Edge(
                "the ends of float",
                ([2.0**127, 2.0**127, 2.0**120, 2.0**-149], [2.0**126, 2.0**127 * (1 - 2.0**-11), 2.0**-149, 2.0**-3]),
                [
                    2.0**127 * (1 - np.log(2)),
                    2.0**128 * (2.0**-11 + (1 - 2.0**-11) * np.log1p(-(2.0**-11))),
                    2.0**121,
                    2.0**-2 * (146 * np.log(2) - 1),
                ],
                exact=False,
            ),
        ),
    ),
    Case(
        "gamma_deviance",
        "GammaDeviance",
        {"input": positive, "target": positive},
        ({}, {"weight": positive}),
        ("input", "target", "weight"),
        hessian=True,
        edges=(
            Edge("exact", ([2.0, 0.3], [2.0, 0.3]), [0, 0], gradient=[0, 0]),
            Edge("infinities", ([INF, 1.0, INF, NAN], [1.0, INF, INF, 1.0]), [INF, INF, NAN, NAN], gradient=[0, -INF, NAN, NAN]),
            Edge(
                "the ends of float",
                ([2.0**127, 3 * 2.0**-149, 2.0**120], [2.0**126, 2.0**-148, 2.0**-149]),
                [2 * np.log(2) - 1, 2 * (np.log(1.5) - 1 / 3), 2 * (269 * np.log(2) - 1)],
                exact=False,
            ),
        ),
    ),
    Case(
        "tweedie_deviance",
        "TweedieDeviance",
        {"input": positive, "target": positive},
        ({}, {"power": 1.2, "weight": positive}, {"power": 1}, {"power": 2}, {"power": 3.0}, {"power": 0}),
        ("input", "target", "weight"),
        hessian=True,
        edges=(
            Edge("exact", ([2.0, 0.3], [2.0, 0.3]), [0, 0], gradient=[0, 0]),
            Edge("infinities", ([INF, 1.0, INF, NAN], [1.0, INF, INF, 1.0]), [INF, INF, NAN, NAN]),
            Edge("infinities, of another power", ([INF, 1.0, INF, NAN], [1.0, INF, INF, 1.0]), [INF, INF, NAN, NAN], {"power": 1.2}),
            Edge("the least floats", ([2.0**-149, 2.0**-147], [2.0**-147, 2.0**-149]), [4 * 2.0**-74.5, 2 * 2.0**-74.5], exact=False),
        ),
    ),
    # losses over the last axis
    Case("multilabel_soft_margin_loss", "MultiLabelSoftMarginLoss", {"input": normal, "target": binary}, ({}, {"weight": per_last}), kind="row"),
    Case(
        "multi_margin_loss",
        "MultiMarginLoss",
        {"input": normal, "target": labels},
        ({}, {"p": 2, "margin": 0.5}, {"weight": per_last}),
        ("input", "weight"),
        kind="row",
    ),
    Case("multilabel_margin_loss", "MultiLabelMarginLoss", {"input": normal, "target": label_sets}, kind="row"),
    Case(
        "cosine_embedding_loss",
        "CosineEmbeddingLoss",
        {"input1": normal, "input2": normal, "target": per_row},
        ({}, {"margin": 0.2}),
        ("input1", "input2"),
        kind="row",
    ),
    Case(
        "triplet_margin_loss",
        "TripletMarginLoss",
        {"anchor": normal, "positive": normal, "negative": normal},
        ({}, {"margin": 2.0, "p": 3.0}, {"swap": True}, {"p": 1.0}, {"p": INF, "swap": True}),
        ("anchor", "positive", "negative"),
        kind="row",
    ),
    Case(
        "triplet_margin_with_distance_loss",
        "TripletMarginWithDistanceLoss",
        {"anchor": normal, "positive": normal, "negative": normal},
        ({}, {"margin": 2.0, "swap": True}),
        ("anchor", "positive", "negative"),
        kind="row",
    ),
    Case(
        "dice_loss",
        "DiceLoss",
        {"input": unit, "target": binary},
        ({}, {"target": unit, "smooth": 0.5}),
        ("input", "target"),
        kind="row",
        edges=(Edge("empty masks", ([0.0, 0.0], [0.0, 0.0]), 0), Edge("empty masks, not smoothed", ([0.0, 0.0], [0.0, 0.0]), NAN, {"smooth": 0.0})),
    ),
    Case(
        "wasserstein_loss",
        "WassersteinLoss",
        {"input": unit, "target": unit},
        ({}, {"spacing": 0.5}),
        ("input", "target"),
        kind="row",
        edges=(
            Edge("across", ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]), 2, gradient=[2, 1, 0]),
            Edge("nowhere", ([0.5, 0.5], [0.5, 0.5]), 0, gradient=[0, 0]),
        ),
    ),
    Case(
        "linear_cross_entropy",
        "LinearCrossEntropyLoss",
        {"input": hidden, "linear_weight": linear_weight, "target": hidden_labels},
        (
            {},
            {"linear_bias": per_class},
            {"weight": per_class, "label_smoothing": 0.1},
            {"ignore_index": 0},
            {"target": hidden_probabilities},
            {"target": hidden_probabilities, "linear_bias": per_class, "weight": per_class, "label_smoothing": 0.1},
        ),
        ("input", "linear_weight", "target", "linear_bias", "weight"),
        kind="linear",
    ),
]

BY_NAME = {case.function: case for case in CASES}
