"""Probabilistic loss functions over NumPy arrays on CPUs: values and analytic gradients, fast and exact, without torch."""

from lossfast._core import get_num_threads, set_num_threads
from lossfast._config import num_threads, show_config
from lossfast._gradients import value_and_grad, value_grad_hess
from lossfast import functional, modules
from lossfast.functional import *
from lossfast.modules import *

__all__ = [
    "Evaluation",
    "evaluate",
    "functional",
    "get_num_threads",
    "num_threads",
    "set_num_threads",
    "show_config",
    "value_and_grad",
    "value_grad_hess",
]
__all__ += functional.__all__ + modules.__all__


def __getattr__(name):
    """What costs import time and not every program uses."""
    if name in ("Evaluation", "evaluate"):
        from lossfast import _evaluation

        return getattr(_evaluation, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("lossfast")
    raise AttributeError(f"module 'lossfast' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, "__version__"})
