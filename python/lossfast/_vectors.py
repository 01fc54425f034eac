"""Losses between embeddings and between whole vectors of scores, masks and histograms."""

import numpy as np

from lossfast import _core
from lossfast._legacy import legacy_reduction
from lossfast._margin import _MARGIN_RANKING

__all__ = [
    "cosine_embedding_loss", "dice_loss", "focal_loss", "multi_margin_loss", "multilabel_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss", "wasserstein_loss",
]  # fmt: skip

_INF = float("inf")
_FINITE = 1.7976931348623157e308
_MARGIN = ("margin", -_INF, _INF, "a number")
_APART = ("margin", 5e-324, _INF, "a number above 0")
_PAIR = ("input", "target")
_TRIPLE = ("anchor", "positive", "negative")

_MULTI_MARGIN = _core.vector_loss("multi_margin", ("input",), label="class", limits=(("p", 1.0, 2.0, "1 or 2"), _MARGIN))
_MULTILABEL_MARGIN = _core.vector_loss("multilabel_margin", ("input",), label="classes")
_COSINE = _core.vector_loss("cosine_embedding", ("input1", "input2"), label="sign", limits=(_MARGIN,))
_TRIPLET = _core.vector_loss(
    "triplet", _TRIPLE,
    limits=(_APART, ("p", 5e-324, _INF, "a number above 0"), ("eps", -_FINITE, _FINITE, "a finite number"), ("swap", 0.0, 1.0, "True or False")),
)  # fmt: skip
_DICE = _core.vector_loss("dice", _PAIR, limits=(("smooth", 0.0, _FINITE, "a finite number of at least 0"),))
_WASSERSTEIN = _core.vector_loss("wasserstein", _PAIR, limits=(("spacing", 0.0, _FINITE, "a finite number of at least 0"),))


def multi_margin_loss(
    input, target, p=1, margin=1.0, weight=None, *, size_average=None, reduce=None, reduction="mean", axis=-1, where=None, out=None
):
    r"""Hinge loss of several classes: how far the other classes' scores come within a margin of the target's.

    .. math:: \ell = \frac{w_y}{C} \sum_{c \ne y} \max(0, \mathrm{margin} - x_y + x_c)^p

    Parameters
    ----------
    input : array_like of float
        Scores of shape (C) or (..., C).
    target : array_like of int
        Class indices of any integer dtype, of the input's shape without `axis`.
    p : {1, 2}, default 1
        Power of the hinge.
    margin : float, default 1.0
        Distance that the target's score should have from the others.
    weight : array_like, shape (C,), optional
        Weight of each class.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions, whatever their weights.
    axis : int, default -1
        Axis of the vectors.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the input's shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    IndexError
        If a class index is not in [0, C); names the first.
    TypeError, ValueError
        If dtypes, shapes, `p`, `margin`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by the other scores is ``p * max(0, h)**(p - 1) * w / C`` with the hinge h, by the target's minus their sum.

    References
    ----------
    torch.nn.functional.multi_margin_loss; J. Weston, C. Watkins, "Support vector machines for multi-class pattern recognition", ESANN 1999.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.multi_margin_loss([[0.5, 0.25, 2.0], [3.0, 0.0, 0.0]], [0, 0], reduction="none")
    array([1.08333333, 0.        ])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    if _core.number(p, "p") not in (1, 2):
        raise ValueError(f"p: expected 1 or 2, got {p!r}")
    return _MULTI_MARGIN((input,), target, weight, reduction, axis, where, out, (p, margin))


def multilabel_margin_loss(input, target, *, size_average=None, reduce=None, reduction="mean", axis=-1, where=None, out=None):
    r"""Hinge loss of several classes of which several hold.

    .. math:: \ell = \frac1C \sum_{t \in y} \sum_{c \notin y} \max(0, 1 - x_t + x_c)

    Parameters
    ----------
    input : array_like of float
        Scores of shape (C) or (..., C).
    target : array_like of int
        Of the input's shape: the classes that hold, ended by -1. What follows the -1 is not read.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions.
    axis : int, default -1
        Axis of the vectors.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the input's shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    IndexError
        If a class index is not in [0, C); names the first.
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient counts the pairs within the margin: by a class that holds minus their number over C, by another plus.

    References
    ----------
    torch.nn.functional.multilabel_margin_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.multilabel_margin_loss([[0.5, 0.25, 2.0]], [[0, 1, -1]], reduction="none")
    array([1.75])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _MULTILABEL_MARGIN((input,), target, None, reduction, axis, where, out)


def focal_loss(input, target, weight=None, *, alpha=None, gamma=2.0, ignore_index=-100, reduction="mean", axis=None, where=None, out=None):
    r"""Focal loss of several classes: cross entropy that counts less where the prediction is right already.

    .. math:: \ell = -\alpha_y (1 - p_y)^\gamma \log p_y, \qquad p = \operatorname{softmax}(x)

    Parameters
    ----------
    input : array_like of float
        Logits of shape (C), (N, C) or (N, C, d1, ..., dk).
    target : array_like of int
        Class indices of any integer dtype, of the input's shape without the class axis.
    weight : array_like, shape (C,), optional
        Weight of each class as cross_entropy takes it: in place of alpha, and the mean divides by the sum of the targets' weights.
    alpha : float or array_like, shape (C,), optional
        Factor of all losses, or of each class's; the mean divides by the number of positions whatever it is.
    gamma : float, default 2.0
        How much less right predictions count, at least 0; 0 is cross entropy.
    ignore_index : int, default -100
        Class index of positions that add nothing, have zero gradient and do not count in the mean.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions that count, or by the sum of their `weight`.
    axis : int, optional
        Class axis; by default 1, or 0 for one-dimensional input.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the input's shape without the class axis for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    IndexError
        If a class index is not in [0, C); names the first.
    TypeError, ValueError
        If dtypes, shapes, `alpha`, `gamma`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by the logits is that of cross entropy, ``p - [c = y]``, times ``q**gamma + gamma * q**(gamma - 1) * p_y * L`` with ``q = 1 - p_y``
    and ``L = -log p_y``. q is formed without cancellation, so confident predictions keep their relative accuracy. value_grad_hess gives the exact
    diagonal of the Hessian, which is negative where the loss is not convex.

    References
    ----------
    T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.focal_loss([[2.0, 0.0], [0.0, 2.0]], [0, 0], reduction="none")
    array([0.00180356, 1.65007818])
    >>> lf.focal_loss([[2.0, 0.0], [0.0, 2.0]], [0, 0], alpha=[0.25, 0.75], reduction="none")
    array([0.00045089, 0.41251954])
    """
    return _core.class_loss(input, target, weight, ignore_index, reduction, 0.0, axis, where, out, False, True, gamma, alpha)


def cosine_embedding_loss(input1, input2, target, *, margin=0.0, size_average=None, reduce=None, reduction="mean", axis=-1, where=None, out=None):
    r"""How far pairs of vectors that belong together are from the same direction, and how near the others are.

    .. math:: \ell = \begin{cases} 1 - \cos(x_1, x_2) & t = 1 \\ \max(0, \cos(x_1, x_2) - \mathrm{margin}) & t = -1 \end{cases}

    Parameters
    ----------
    input1, input2 : array_like of float
        Vectors along `axis`, of one length; every other axis, of which both have as many, is broadcast.
    target : array_like
        1 for pairs that belong together, -1 for the others, broadcast with the positions; not checked.
    margin : float, default 0.0
        Cosine from which dissimilar pairs count.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions.
    axis : int, default -1
        Axis of the vectors.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the broadcast shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `margin`, `reduction` or `out` do not fit.

    Notes
    -----
    The squared norms have 1e-12 added, as torch's. The gradient by `input1` of the cosine is ``x2 / (|x1| |x2|) - cos * x1 / |x1|**2``.

    References
    ----------
    torch.nn.functional.cosine_embedding_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.cosine_embedding_loss([[1.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [3.0, 3.0]], [1, -1], reduction="none")
    array([1., 1.])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _COSINE((input1, input2), target, None, reduction, axis, where, out, (margin,))


def triplet_margin_loss(
    anchor, positive, negative, *, margin=1.0, p=2.0, eps=1e-6, swap=False, size_average=None, reduce=None, reduction="mean", axis=-1, where=None,
    out=None,
):  # fmt: skip
    r"""How far anchors are from their positives, compared with their negatives.

    .. math:: \ell = \max(0, \mathrm{margin} + d(a, p) - d(a, n)), \qquad d(a, b) = \Bigl(\sum_i |a_i - b_i + \varepsilon|^p\Bigr)^{1/p}

    Parameters
    ----------
    anchor, positive, negative : array_like of float
        Vectors along `axis`, of one length; every other axis, of which all have as many, is broadcast.
    margin : float, default 1.0
        By how much negatives should be further away.
    p : float, default 2.0
        Order of the norm, above 0; infinity is that of the largest component.
    eps : float, default 1e-6
        Added to each difference, as torch does.
    swap : bool, default False
        Take the distance of positive and negative where it is less than that of anchor and negative.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions.
    axis : int, default -1
        Axis of the vectors.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the broadcast shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `margin`, `p`, `eps`, `reduction` or `out` do not fit.

    Notes
    -----
    Where two equal distances are swapped, each has half the gradient, and of several largest components each its share for infinite `p`; at
    distance 0 the gradient is 0.

    References
    ----------
    torch.nn.functional.triplet_margin_loss; V. Balntas et al., "Learning local feature descriptors with triplets", BMVC 2016.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.triplet_margin_loss([[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 5.5]], eps=0.0)
    np.float64(0.5)
    >>> lf.triplet_margin_loss([[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 5.5], [1.0, 4.5]], p=float("inf"), eps=0.0, reduction="none")
    array([0. , 0.5])
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    swap = swap is not False and _core.flag(swap, "swap")
    return _TRIPLET((anchor, positive, negative), None, None, reduction, axis, where, out, (margin, p, eps, swap))


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=None, margin=1.0, swap=False, reduction="mean", axis=-1, where=None, out=None
):
    r"""Triplet margin loss with a distance of one's own.

    .. math:: \ell = \max(0, \mathrm{margin} + d(a, p) - d(a, n))

    Parameters
    ----------
    anchor, positive, negative : array_like of float
        Vectors along `axis`, of one length; every other axis, of which all have as many, is broadcast.
    distance_function : callable, optional
        Takes two arrays of vectors and returns the array of their distances. By default the Euclidean distance, with 1e-6 added to each
        difference, as torch does; only that has gradients.
    margin : float, default 1.0
        By how much negatives should be further away.
    swap : bool, default False
        Take the distance of positive and negative where it is less than that of anchor and negative.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions.
    axis : int, default -1
        Axis of the vectors.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the broadcast shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `margin`, `reduction` or `out` do not fit.

    Notes
    -----
    See `triplet_margin_loss`. Gradients by the vectors through a distance function of one's own are not known here: value_and_grad raises TypeError.

    References
    ----------
    torch.nn.functional.triplet_margin_with_distance_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> import numpy as np
    >>> city = lambda a, b: np.abs(a - b).sum(-1)
    >>> lf.triplet_margin_with_distance_loss(np.zeros((1, 2)), np.ones((1, 2)), np.full((1, 2), 1.25), distance_function=city)
    np.float64(0.5)
    """
    swap = swap is not False and _core.flag(swap, "swap")
    if distance_function is None:
        return _TRIPLET((anchor, positive, negative), None, None, reduction, axis, where, out, (margin, 2.0, 1e-6, swap))
    if not callable(distance_function):
        raise TypeError(f"distance_function: expected a function of two arrays, got {distance_function!r}")
    if _core.take_python_request() is not None:
        raise TypeError("distance_function: gradients are known for the default distance only")
    if not _core.number(margin, "margin") > 0:
        raise ValueError(f"margin: expected a number above 0, got {margin!r}")

    def distance(a, b):
        return _core.checked_array(distance_function(a, b), "distance_function")[0]

    anchor, positive, negative = (_core.checked_array(x, name)[0] for x, name in zip((anchor, positive, negative), _TRIPLE))
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = np.minimum(far, distance(positive, negative))
    return _MARGIN_RANKING(near, far, -1.0, None, reduction, where, out, margin)


def dice_loss(input, target, *, smooth=1.0, reduction="mean", axis=-1, where=None, out=None):
    r"""How little two masks overlap: 1 less the Sorensen-Dice coefficient.

    .. math:: \ell = 1 - \frac{2 \sum_i x_i t_i + s}{\sum_i x_i + \sum_i t_i + s}

    Parameters
    ----------
    input : array_like of float
        Probabilities, or a mask.
    target : array_like of float
        Mask, or probabilities, of the input's shape; axes that are not of masks are broadcast.
    smooth : float, default 1.0
        s, at least 0; with 0 two empty masks give NaN.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions.
    axis : int or tuple of int, default -1
        Axes of a mask: (-2, -1) for one coefficient for each image.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the broadcast shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `smooth`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``((1 - loss) - 2 t) / (sum(x) + sum(t) + s)``.

    References
    ----------
    F. Milletari et al., "V-Net", 3DV 2016; C. H. Sudre et al., "Generalised Dice overlap", DLMIA 2017.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.dice_loss([[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]], smooth=0.0)
    np.float64(0.3333333333333333)
    """
    return _DICE((input, target), None, None, reduction, axis, where, out, (smooth,))


def wasserstein_loss(input, target, *, spacing=1.0, reduction="mean", axis=-1, where=None, out=None):
    r"""Wasserstein distance (earth mover's distance) between histograms over one line of bins.

    .. math:: \ell = \Delta \sum_{k < C} \Bigl| \sum_{i \le k} (x_i - t_i) \Bigr|

    Parameters
    ----------
    input, target : array_like of float
        Masses of the bins along `axis`, as many in both; every other axis is broadcast. Both histograms should have the same total; that is not
        checked, and nothing is normalised.
    spacing : float, default 1.0
        Distance of neighbouring bins.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of positions.
    axis : int, default -1
        Axis of the vectors.
    where : array_like of bool, optional
        Broadcast against the losses; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the broadcast shape without `axis` for ``reduction='none'``
        float32, or float64 where an array is float64.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `spacing`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by x[i] is the spacing times the sum over k >= i of the signs of the differences of the cumulated masses.

    References
    ----------
    S. S. Vallender, "Calculation of the Wasserstein distance between probability distributions on the line" (1974);
    scipy.stats.wasserstein_distance.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.wasserstein_loss([0.5, 0.5, 0.0], [0.0, 0.5, 0.5])
    np.float64(1.0)
    """
    return _WASSERSTEIN((input, target), None, None, reduction, axis, where, out, (spacing,))
