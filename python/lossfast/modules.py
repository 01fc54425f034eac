"""Losses as classes of torch.nn's names, with torch's constructor arguments: a function of lossfast.functional and its options."""

from __future__ import annotations

import inspect
import warnings

import numpy as np

from lossfast import functional as F
from lossfast._gradients import value_and_grad
from lossfast._legacy import legacy_reduction

__all__ = ["CrossEntropyLoss", "NLLLoss"]


class Loss:
    """A loss with its options: calling it calls `function` with them. Base of the loss classes.

    Options are the attributes of an instance, and no others. They are checked when it is made, by the function itself on an input of one element.
    """

    function = None  # of lossfast.functional
    options = {}  # constructor arguments in torch's order, and their defaults

    def __init_subclass__(cls):
        cls.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default) for name, default in cls.options.items()]
        )

    def __init__(self, *args, **kwargs):
        options = self.options | self.__signature__.bind(*args, **kwargs).arguments
        size_average, reduce = options.pop("size_average", None), options.pop("reduce", None)
        if size_average is not None or reduce is not None:
            options["reduction"] = legacy_reduction(size_average, reduce)
        self.__dict__.update(options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self(*self.probe())

    def probe(self):
        """Arrays of one element that the options can be tried on."""
        return np.full(1, 0.5), np.full(1, 0.5)

    def __call__(self, *arrays, **more):
        return type(self).function(*arrays, **self.__dict__, **more)

    def value_and_grad(self, *arrays, argnums=0, **more):
        """Value and gradient of one call: see `lossfast.value_and_grad`.

        Returns
        -------
        (value, gradient)
        """
        return value_and_grad(self, argnums)(*arrays, **more)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class _ClassLoss(Loss):
    def probe(self):
        return np.zeros((1, 2 if self.weight is None else np.size(self.weight))), np.full(1, self.ignore_index)


class CrossEntropyLoss(_ClassLoss):
    """Cross entropy between logits and class indices or probabilities: `lossfast.functional.cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.CrossEntropyLoss(label_smoothing=0.1)(np.array([[2.0, 0.0]]), [0])
    np.float64(0.22692801104297262)
    """

    function = staticmethod(F.cross_entropy)
    options = {"weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean", "label_smoothing": 0.0}


class NLLLoss(_ClassLoss):
    """Negative log likelihood under log-probabilities: `lossfast.functional.nll_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.NLLLoss(reduction="sum")(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1])
    np.float64(0.9808292530117262)
    """

    function = staticmethod(F.nll_loss)
    options = {"weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean"}
