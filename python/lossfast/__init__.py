"""Probabilistic loss functions over NumPy arrays on CPUs: values and analytic gradients, fast and exact, without torch."""

from lossfast._core import get_num_threads, set_num_threads
from lossfast._config import num_threads, show_config
from lossfast._gradients import value_and_grad
from lossfast import functional, modules
from lossfast.functional import *  # noqa: F403
from lossfast.modules import *  # noqa: F403

__all__ = ["functional", "get_num_threads", "num_threads", "set_num_threads", "show_config", "value_and_grad"]
__all__ += functional.__all__ + modules.__all__
