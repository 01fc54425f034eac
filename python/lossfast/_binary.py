"""Losses of binary targets: probabilities and logits."""

from lossfast import _core
from lossfast._legacy import legacy_reduction

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss", "sigmoid_focal_loss", "soft_margin_loss"]

_INF = float("inf")
_PAIR = ("input", "target")
_PROBABILITY = "a probability from 0 to 1"

_BCE = _core.elementwise("bce", _PAIR, requires={"input": _PROBABILITY, "target": _PROBABILITY}, same_shape=True)
_BCE_LOGITS = _core.elementwise("bce_logits", _PAIR, same_shape=True)
_BCE_LOGITS_POS_WEIGHT = _core.elementwise("bce_logits_pos_weight", (*_PAIR, "pos_weight"), same_shape=True)
_FOCAL = _core.elementwise(
    "sigmoid_focal", _PAIR, limits=(("alpha", -_INF, 1.0, "a number of at most 1"), ("gamma", 0.0, _INF, "a number of at least 0")), same_shape=True,
    squared="sigmoid_focal_2",
)  # fmt: skip
_MULTILABEL = _core.elementwise("bce_logits", _PAIR, row_mean=True, same_shape=True)
_SOFT_MARGIN = _core.elementwise("soft_margin", _PAIR)


def binary_cross_entropy(input, target, weight=None, *, size_average=None, reduce=None, reduction="mean", where=None, out=None):
    r"""Binary cross entropy between probabilities.

    .. math:: \ell = -w \bigl( t \max(\log x, -100) + (1 - t) \max(\log(1 - x), -100) \bigr)

    Parameters
    ----------
    input, target : array_like
        Probabilities, of one shape.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the input's.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever their weights.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit, or an element is not from 0 to 1; names the first.

    Notes
    -----
    The gradient by `input` is ``w (x - t) / (x (1 - x))``, with 1e-12 for the denominator where a logarithm is clamped; by `target`
    ``w (log(1 - x) - log(x))``. `binary_cross_entropy_with_logits` takes what the probabilities were computed from and loses no digits.

    References
    ----------
    torch.nn.functional.binary_cross_entropy.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.binary_cross_entropy([0.9, 0.2], [1.0, 0.0], reduction="none")
    array([0.10536052, 0.22314355])
    >>> lf.binary_cross_entropy([0.0, 0.5], [1.0, 0.5])
    np.float64(50.346573590279974)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _BCE(input, target, None, weight, reduction, where, out)


def binary_cross_entropy_with_logits(
    input, target, weight=None, *, size_average=None, reduce=None, reduction="mean", pos_weight=None, where=None, out=None
):
    r"""Binary cross entropy between logits and probabilities.

    .. math:: \ell = -w \bigl( v\, t \log \sigma(x) + (1 - t) \log \sigma(-x) \bigr)

    Parameters
    ----------
    input : array_like
        Logits.
    target : array_like
        Probabilities of the input's shape; they are not checked.
    weight : array_like, optional
        Weight w of each element, of a shape that broadcasts to the input's.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever their weights.
    pos_weight : array_like, optional
        Weight v of the positive part, of a shape that broadcasts to the input's.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input`, `target` or `pos_weight` is float64. Small losses keep their relative accuracy, and at an infinite logit
        the loss is its limit.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``w (s - t)`` without `pos_weight`, the second derivative ``w s (1 - s)``, with ``s = sigmoid(x)``.

    References
    ----------
    torch.nn.functional.binary_cross_entropy_with_logits.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.binary_cross_entropy_with_logits([0.0, 40.0], [1.0, 1.0], reduction="none")
    array([6.93147181e-01, 4.24835426e-18])
    >>> value, grad, hess = lf.value_grad_hess(lf.binary_cross_entropy_with_logits)([0.0, np.log(3.0)], [1.0, 1.0], reduction="sum")
    >>> grad, hess
    (array([-0.5 , -0.25]), array([0.25  , 0.1875]))
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    if pos_weight is None:
        return _BCE_LOGITS(input, target, None, weight, reduction, where, out)
    return _BCE_LOGITS_POS_WEIGHT(input, target, pos_weight, weight, reduction, where, out)


def sigmoid_focal_loss(input, target, *, alpha=0.25, gamma=2.0, reduction="none", weight=None, where=None, out=None):
    r"""Focal loss of logits and binary targets: cross entropy that counts less where the prediction is right already.

    .. math:: \ell = w\, \alpha_t (1 - p_t)^\gamma\, (-\log p_t), \qquad p_t = \sigma(x) \text{ for } t = 1,\; \sigma(-x) \text{ for } t = 0

    and likewise mixed for targets between 0 and 1.

    Parameters
    ----------
    input : array_like
        Logits.
    target : array_like
        Probabilities of the input's shape; they are not checked.
    alpha : float, default 0.25
        Weight of positive targets, ``1 - alpha`` of negative ones; below 0 none of either.
    gamma : float, default 2.0
        How much less right predictions count, at least 0; 0 is binary cross entropy.
    reduction : {'none', 'mean', 'sum'}
        'mean' divides by the number of elements.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the input's.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `alpha`, `gamma`, `reduction` or `out` do not fit.

    Notes
    -----
    Gradient and second derivative by `input` are exact, not those of a surrogate; for ``gamma > 0`` the loss is not convex and the second
    derivative can be negative.

    References
    ----------
    T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017; torchvision.ops.sigmoid_focal_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.sigmoid_focal_loss([0.0, 3.0], [1.0, 1.0])
    array([4.33216988e-02, 2.73208311e-05])
    """
    return _FOCAL(input, target, None, weight, reduction, where, out, alpha, gamma)


def soft_margin_loss(input, target, *, size_average=None, reduce=None, reduction="mean", where=None, out=None):
    r"""Logistic loss of targets -1 and 1.

    .. math:: \ell = \log(1 + e^{-t x})

    Parameters
    ----------
    input : array_like
        Scores.
    target : array_like
        -1 or 1, broadcast against the scores; not checked.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``-t sigmoid(-t x)``.

    References
    ----------
    torch.nn.functional.soft_margin_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.soft_margin_loss([0.0, 40.0], [1.0, 1.0], reduction="none")
    array([6.93147181e-01, 4.24835426e-18])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _SOFT_MARGIN(input, target, None, None, reduction, where, out)


def multilabel_soft_margin_loss(input, target, weight=None, *, size_average=None, reduce=None, reduction="mean", where=None, out=None):
    r"""Binary cross entropy with logits of every class, averaged over the classes, the last axis.

    .. math:: \ell = -\frac1C \sum_c w_c \bigl( t_c \log \sigma(x_c) + (1 - t_c) \log \sigma(-x_c) \bigr)

    Parameters
    ----------
    input : array_like
        Logits of shape (C) or (..., C).
    target : array_like
        Which classes hold, of the input's shape.
    weight : array_like, optional
        Weight of each class, of a shape that broadcasts to the input's.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of rows.
    where : array_like of bool, optional
        Broadcast against the rows; where False a row is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the input's shape without its last axis for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``w (sigmoid(x) - t) / C``.

    References
    ----------
    torch.nn.functional.multilabel_soft_margin_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.multilabel_soft_margin_loss([[2.0, -1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]], reduction="none")
    array([0.22009485, 0.69314718])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _MULTILABEL(input, target, None, weight, reduction, where, out)
