from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike, NDArray

LOSSES: dict[str, int]

def elementwise(
    kernel: str,
    args: tuple[str, ...],
    *,
    limits: tuple[tuple[str, float, float, str], ...] = ...,
    gap: tuple[float, float, str] | None = ...,
    requires: dict[str, str] | None = ...,
    weight_mean: bool = ...,
    row_mean: bool = ...,
    batch_mean: bool = ...,
    per_row: bool = ...,
    warn_broadcast: bool = ...,
    same_shape: bool = ...,
    hessian: bool = ...,
    squared: str | None = ...,
) -> Callable[..., Any]: ...
def flag(given: Any, name: str) -> bool: ...
def number(given: Any, name: str) -> float: ...

class ValueAndGrad:
    def __init__(self, f: Any, names: tuple[str, ...], single: bool, hessian: bool) -> None: ...
    def __call__(self, *args: Any, grad_output: Any = ..., grad_out: Any = ..., **options: Any) -> tuple[Any, Any]: ...

def class_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    axis: int | None,
    where: ArrayLike | None,
    out: NDArray[Any] | None,
    nll: bool,
    focal: bool = ...,
    gamma: float = ...,
) -> Any: ...
def softmax(input: ArrayLike, axis: int, out: NDArray[Any] | None, log: bool) -> NDArray[Any]: ...
def logsumexp(input: ArrayLike, axis: int | tuple[int, ...] | None, keepdims: bool, out: NDArray[Any] | None) -> Any: ...
def ctc_loss(
    log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike, blank: int, reduction: str,
    zero_infinity: bool, from_logits: bool, out: NDArray[Any] | None,
) -> Any: ...  # fmt: skip
def ctc_posteriors(
    log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike, blank: int, from_logits: bool
) -> NDArray[Any]: ...
def ctc_align(
    log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike, blank: int, from_logits: bool
) -> tuple[Any, ...]: ...
def ctc_missing_frames(targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike) -> Any: ...
def ctc_decode(
    log_probs: ArrayLike, input_lengths: ArrayLike | None, blank: int, beam_width: int, top: int, from_logits: bool
) -> tuple[Any, Any, Any]: ...
def edit_distances(a: NDArray[Any], a_lengths: ArrayLike, b: NDArray[Any], b_lengths: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]: ...
def rnnt_loss(
    logits: ArrayLike, targets: ArrayLike, logit_lengths: ArrayLike, target_lengths: ArrayLike, blank: int, clamp: float, reduction: str,
    from_logits: bool, out: NDArray[Any] | None,
) -> Any: ...  # fmt: skip
def take_python_request() -> tuple[tuple[str, ...], Any, tuple[Any, ...] | None, bool] | None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def isas() -> list[str]: ...
def get_isa() -> str: ...
def set_isa(name: str) -> str: ...
def build_info() -> tuple[int, str]: ...
