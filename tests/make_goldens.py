"""Writes goldens.npz: values and gradients of torch 2.13 in float64, for every loss of cases.py that torch has.

    pip install torch==2.13.0; python tests/make_goldens.py

`data` holds all arrays end to end as float64; `index` is JSON: one record per golden, in which an array is [offset, shape, kind].
What API.md decides differently from torch is not here but in test_edges.py.
"""

import json
import pathlib
import warnings

import cases
import numpy as np
import torch

# torch has no derivative by these
NO_GRADIENT = {
    "weight": {"cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "huber_loss", "linear_cross_entropy",
               "multi_margin_loss"},
    "pos_weight": {"binary_cross_entropy_with_logits"},
    "target": {"soft_margin_loss"},
}  # fmt: skip

SHAPES = {
    "elementwise": [(7,), (2, 3)],
    "class": [(5,), (3, 4), (2, 3, 4), (2, 3, 2, 2)],
    "row": [(4,), (3, 5)],
    "axis": [(5,), (3, 4), (2, 3, 2)],
    "linear": [(3, 5, 4)],
}

IGNORED = np.array([-100, -100, -100])
ROW, WHOLE = np.array([[0.5, -1.25, 0.0, 2.0]]), np.array([[2.0, 0.0, -2.0, 1.0]])  # one vector for all; differences of the same size
MORE = [  # (function, arrays and options): points that random draws miss
    ("cross_entropy", {"target": IGNORED}),
    ("nll_loss", {"target": IGNORED}),
    ("cross_entropy", {"target": IGNORED, "label_smoothing": 0.1}),
    ("cross_entropy", {"target": np.array([0, 3, 0]), "ignore_index": 3, "label_smoothing": 0.3}),
    ("cross_entropy", {"target": np.array([255, 3, 1]), "ignore_index": 255}),
    ("cross_entropy", {"target": np.array([-1, 3, -1]), "ignore_index": -1}),
    ("cross_entropy", {"weight": np.array([0.0, 0.0, 0.0, 1.0]), "target": np.array([3, 0, 3])}),
    ("cross_entropy", {"target": np.array([[2.0, -1.0, 0.0, 0.5]] * 3)}),
    ("nll_loss", {"target": np.array([0, 3, 0]), "ignore_index": 3}),
    ("triplet_margin_loss", {"anchor": ROW}),
    ("triplet_margin_loss", {"positive": ROW, "negative": WHOLE, "swap": True, "p": 1.0}),
    ("triplet_margin_loss", {"negative": ROW, "p": np.inf}),
    ("triplet_margin_loss", {"anchor": WHOLE, "positive": 0 * WHOLE, "eps": 0.0, "p": np.inf, "swap": True}),
    ("triplet_margin_with_distance_loss", {"anchor": ROW}),
    ("cosine_embedding_loss", {"input1": ROW}),
    ("cosine_embedding_loss", {"input1": ROW, "input2": WHOLE}),
]


class Pool:
    """Arrays end to end, equal ones once."""

    def __init__(self):
        self.parts, self.seen, self.size = [], {}, 0

    def add(self, array):
        array = np.asarray(array)
        key = (array.tobytes(), array.shape, array.dtype.kind)
        if key not in self.seen:
            self.seen[key] = [self.size, list(array.shape), array.dtype.kind]
            self.parts.append(array.astype(float).ravel())
            self.size += array.size
        return self.seen[key]


def torch_function(name):
    for module in (torch.nn.functional, torch):
        if name not in ("sigmoid",) and hasattr(module, name):
            return getattr(module, name)
    return getattr(torch, name)


def call(case, arrays, options):
    """torch's value for the table's names: axis is dim, and its default for a primitive is the last one."""
    options = dict(options)
    if case.kind == "axis":
        axis = options.pop("axis", -1)
        options["dim"] = tuple(range(arrays["input"].ndim)) if axis is None else axis
        if "keepdims" in options:
            options["keepdim"] = options.pop("keepdims")
    if case.function == "logsigmoid":
        return torch.nn.functional.logsigmoid(arrays["input"])
    return torch_function(case.function)(**arrays, **options)


def golden(case, made, reduction, rng, pool):
    arrays = {k: torch.tensor(v) for k, v in made.items() if isinstance(v, np.ndarray)}
    options = {k: v for k, v in made.items() if k not in arrays}
    if reduction:
        options["reduction"] = reduction
    wanted = [n for n in case.floats if n in arrays and arrays[n].is_floating_point() and case.function not in NO_GRADIENT.get(n, ())]
    for name in wanted:
        arrays[name].requires_grad_()
    value = call(case, arrays, options)
    upstream = np.round(rng.normal(size=value.shape), 2) if value.ndim else np.array(1.0)
    value.backward(torch.tensor(upstream))
    return {
        "function": case.function,
        "options": options,
        "arrays": {k: pool.add(v.detach().numpy()) for k, v in arrays.items()},
        "value": pool.add(value.detach().numpy()),
        "grad_output": pool.add(upstream),
        "gradients": {k: pool.add(arrays[k].grad.numpy()) for k in wanted},
    }


def draw(case, rng, shape, option):
    args, keywords = case.draw(rng, shape, np.float64, option)
    made = dict(zip(case.arrays, args)) | keywords
    return {k: (np.asarray(np.round(v * 1024) / 1024) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v) for k, v in made.items()}


def main():
    rng, pool, records = np.random.default_rng(213), Pool(), []
    for case in cases.CASES:
        if case.cls is not None and not hasattr(torch.nn, case.cls):
            continue
        for shape in SHAPES[case.kind]:
            for option in range(len(case.options)):
                made = draw(case, rng, shape, option)
                records += [golden(case, made, reduction, rng, pool) for reduction in case.reductions or (None,)]
    for function, changes in MORE:
        case = cases.BY_NAME[function]
        made = draw(case, rng, (3, 4), 0) | changes
        records += [golden(case, made, reduction, rng, pool) for reduction in case.reductions]
    path = pathlib.Path(__file__).with_name("goldens.npz")
    np.savez_compressed(path, data=np.concatenate(pool.parts), index=json.dumps(records))
    print(f"{len(records)} goldens, {pool.size} numbers, {path.stat().st_size} bytes")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
