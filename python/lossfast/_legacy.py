"""torch's deprecated `size_average` and `reduce`."""

import warnings

from lossfast._core import flag


def legacy_reduction(size_average, reduce):
    """The `reduction` that torch maps the pair to; either given overrides `reduction`."""
    size_average = True if size_average is None else flag(size_average, "size_average")
    reduce = True if reduce is None else flag(reduce, "reduce")
    reduction = "none" if not reduce else "mean" if size_average else "sum"
    warnings.warn(f"size_average and reduce are deprecated, please use reduction={reduction!r} instead.", DeprecationWarning, stacklevel=3)
    return reduction
