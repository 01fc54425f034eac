"""Losses with a margin: hinges."""

from lossfast import _core
from lossfast._legacy import legacy_reduction

__all__ = ["hinge_embedding_loss", "hinge_loss", "margin_ranking_loss", "squared_hinge_loss"]

_INF = float("inf")
_PAIR = ("input", "target")
_MARGIN = ("margin", -_INF, _INF, "a number")

_HINGE = _core.elementwise("hinge", _PAIR)
_SQUARED_HINGE = _core.elementwise("squared_hinge", _PAIR)
_HINGE_EMBEDDING = _core.elementwise("hinge_embedding", _PAIR, limits=(_MARGIN,))
_MARGIN_RANKING = _core.elementwise("margin_ranking", ("input1", "input2", "target"), limits=(_MARGIN,))


def hinge_loss(input, target, *, reduction="mean", weight=None, where=None, out=None):
    r"""Hinge loss of targets -1 and 1.

    .. math:: \ell = w \max(0, 1 - t x)

    Parameters
    ----------
    input : array_like
        Scores.
    target : array_like
        -1 or 1, broadcast against the scores; not checked.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever their weights.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the losses'.
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
    The gradient by `input` is ``-t`` where ``t x <= 1``, else 0.

    References
    ----------
    C. Cortes, V. Vapnik, "Support-vector networks", Machine Learning 20 (1995); sklearn.metrics.hinge_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.hinge_loss([0.5, -2.0, 3.0], [1.0, 1.0, 1.0], reduction="none")
    array([0.5, 3. , 0. ])
    """
    return _HINGE(input, target, None, weight, reduction, where, out)


def squared_hinge_loss(input, target, *, reduction="mean", weight=None, where=None, out=None):
    r"""Squared hinge loss of targets -1 and 1.

    .. math:: \ell = w \max(0, 1 - t x)^2

    Parameters
    ----------
    input : array_like
        Scores.
    target : array_like
        -1 or 1, broadcast against the scores; not checked.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever their weights.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the losses'.
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
    The gradient by `input` is ``-2 t max(0, 1 - t x)``.

    References
    ----------
    keras.losses.SquaredHinge.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.squared_hinge_loss([0.5, -2.0, 3.0], [1.0, 1.0, 1.0], reduction="none")
    array([0.25, 9.  , 0.  ])
    """
    return _SQUARED_HINGE(input, target, None, weight, reduction, where, out)


def hinge_embedding_loss(input, target, *, margin=1.0, size_average=None, reduce=None, reduction="mean", where=None, out=None):
    r"""Distances of pairs that belong together, and how far the others are within a margin.

    .. math:: \ell = \begin{cases} x & t = 1 \\ \max(0, \mathrm{margin} - x) & t = -1 \end{cases}

    Parameters
    ----------
    input : array_like
        Distances.
    target : array_like
        1 for similar, -1 for dissimilar pairs, broadcast against the distances; not checked.
    margin : float, default 1.0
        Distance that dissimilar pairs should have.
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
        If dtypes, shapes, `margin`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is 1 for similar pairs, -1 for dissimilar ones within the margin, else 0.

    References
    ----------
    torch.nn.functional.hinge_embedding_loss; R. Hadsell et al., "Dimensionality reduction by learning an invariant mapping", CVPR 2006.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.hinge_embedding_loss([0.25, 0.25, 3.0], [1.0, -1.0, -1.0], reduction="none")
    array([0.25, 0.75, 0.  ])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _HINGE_EMBEDDING(input, target, None, None, reduction, where, out, margin)


def margin_ranking_loss(input1, input2, target, *, margin=0.0, size_average=None, reduce=None, reduction="mean", where=None, out=None):
    r"""How far pairs of scores miss their order by a margin.

    .. math:: \ell = \max(0, -t\,(x_1 - x_2) + \mathrm{margin})

    Parameters
    ----------
    input1, input2 : array_like
        Scores, broadcast against each other.
    target : array_like
        1 where the first should be larger, -1 where the second should; not checked.
    margin : float, default 0.0
        Difference they should have.
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
        float32, or float64 where an array is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `margin`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradients by `input1` and `input2` are ``-t`` and ``t`` where the loss is positive, else 0.

    References
    ----------
    torch.nn.functional.margin_ranking_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.margin_ranking_loss([1.0, 1.0], [0.0, 3.0], [1.0, 1.0], margin=0.5, reduction="none")
    array([0. , 2.5])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _MARGIN_RANKING(input1, input2, target, None, reduction, where, out, margin)
