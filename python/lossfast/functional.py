"""Losses and primitives as functions, under torch.nn.functional's names, argument order and defaults.

Positional order is torch's up to `weight`; everything after is keyword-only. What lossfast adds is spelled as NumPy spells it: `axis`, `keepdims`, `out`
and `where`. Every function takes float16, bfloat16, float32 and float64 arrays of any layout as they lie in memory, computes halves and float32 with
float32 elements and float64 sums and returns float32 (float64 for float64), and can be given to `lossfast.value_and_grad`.
"""

from lossfast import _binary, _core, _ctc, _divergence, _linear, _margin, _regression, _vectors
from lossfast._binary import *  # noqa: F403
from lossfast._ctc import *  # noqa: F403
from lossfast._divergence import *  # noqa: F403
from lossfast._legacy import legacy_reduction
from lossfast._linear import *  # noqa: F403
from lossfast._margin import *  # noqa: F403
from lossfast._regression import *  # noqa: F403
from lossfast._vectors import *  # noqa: F403

__all__ = ["cross_entropy", "log_softmax", "logsigmoid", "logsumexp", "nll_loss", "sigmoid", "softmax", "softplus"]
for _part in (_binary, _ctc, _divergence, _linear, _margin, _regression, _vectors):
    __all__ += _part.__all__
    for _name in _part.__all__:
        globals()[_name].__module__ = __name__

_SIGMOID = _core.elementwise("sigmoid", ("input",), hessian=False)
_LOGSIGMOID = _core.elementwise("logsigmoid", ("input",), hessian=False)
_SOFTPLUS = _core.elementwise("softplus", ("input",), hessian=False)


def logsumexp(input, axis=-1, *, keepdims=False, out=None):
    r"""Logarithm of the sum of exponentials over one or more axes.

    .. math:: \operatorname{logsumexp}(x) = \log \sum_j e^{x_j} = m + \log\Bigl(1 + \sum_{j \ne \arg\max} e^{x_j - m}\Bigr), \quad m = \max_j x_j

    Computed in the second form, so that nothing overflows and small results keep their relative accuracy.

    Parameters
    ----------
    input : array_like of float
        Any shape. Integers and booleans are computed as float64.
    axis : int, tuple of int or None, default -1
        Axes to reduce; None reduces all of them.
    keepdims : bool, default False
        Keep the reduced axes with length 1.
    out : ndarray, optional
        Array of the result's shape and dtype to write into.

    Returns
    -------
    ndarray or scalar
        float32, or float64 for float64 input. An empty axis and a row of -inf give -inf, a row with +inf gives inf, NaN gives NaN.

    Raises
    ------
    TypeError
        If `input` is not a real array, or `axis` not an integer.
    ValueError
        If `axis` is out of range or named twice, or `out` does not fit.

    Notes
    -----
    The gradient by `input` is ``softmax(input, axis)``.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast.functional as F
    >>> F.logsumexp(np.array([[0.0, 0.0], [1000.0, 1000.0]])).round(6)
    array([6.93147000e-01, 1.00069315e+03])
    >>> F.logsumexp(np.array([0.0, -40.0]))  # doctest: +ELLIPSIS
    np.float64(4.24835425529158...e-18)
    """
    return _core.logsumexp(input, axis, keepdims, out)


def softmax(input, axis=-1, *, out=None):
    r"""Softmax along an axis.

    .. math:: p_i = e^{x_i} / \sum_j e^{x_j}

    Parameters
    ----------
    input : array_like of float
        Any shape. Integers and booleans are computed as float64.
    axis : int, default -1
        Axis along which the result sums to 1.
    out : ndarray, optional
        Array of the input's shape to write into; of the result's dtype, or of the input's. May be the input itself.

    Returns
    -------
    ndarray
        float32, or float64 for float64 input. One +inf takes all the probability; rows of -inf only, with more +inf or with NaN are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or kind, `axis` is out of range or `out` does not fit.

    Notes
    -----
    The vector-Jacobian product for an upstream gradient g is ``p * (g - sum(g * p))``.

    References
    ----------
    J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs", Neurocomputing (1990).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast.functional as F
    >>> F.softmax(np.array([0.0, np.log(3.0)]))
    array([0.25, 0.75])
    """
    return _core.softmax(input, axis, out, False)


def log_softmax(input, axis=-1, *, out=None):
    r"""Logarithm of the softmax along an axis.

    .. math:: \log p_i = x_i - \log \sum_j e^{x_j}

    The entry of a dominating class keeps its relative accuracy, however close to 0 it is.

    Parameters
    ----------
    input : array_like of float
        Any shape. Integers and booleans are computed as float64.
    axis : int, default -1
        Axis along which the exponentials of the result sum to 1.
    out : ndarray, optional
        Array of the input's shape to write into; of the result's dtype, or of the input's. May be the input itself.

    Returns
    -------
    ndarray
        float32, or float64 for float64 input. One +inf takes all the probability; rows of -inf only, with more +inf or with NaN are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or kind, `axis` is out of range or `out` does not fit.

    Notes
    -----
    The vector-Jacobian product for an upstream gradient g is ``g - softmax(input) * sum(g)``.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA J. Numer. Anal. 41 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast.functional as F
    >>> F.log_softmax(np.array([0.0, 40.0]))
    array([-4.00000000e+01, -4.24835426e-18])
    """
    return _core.softmax(input, axis, out, True)


def sigmoid(input, *, out=None):
    r"""Logistic sigmoid of every element.

    .. math:: \sigma(x) = 1 / (1 + e^{-x})

    Parameters
    ----------
    input : array_like of float
        Any shape. Integers and booleans are computed as float64.
    out : ndarray, optional
        Array of the input's shape and the result's dtype to write into.

    Returns
    -------
    ndarray or scalar
        float32, or float64 for float64 input.

    Raises
    ------
    TypeError, ValueError
        If `input` is not a real array or `out` does not fit.

    Notes
    -----
    The derivative is ``sigmoid(x) * sigmoid(-x)``.

    References
    ----------
    J. Berkson, "Application of the logistic function to bio-assay", J. Am. Stat. Assoc. 39 (1944).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast.functional as F
    >>> F.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return _SIGMOID(input, None, None, None, "none", None, out)


def logsigmoid(input, *, out=None):
    r"""Logarithm of the logistic sigmoid of every element.

    .. math:: \log \sigma(x) = -\log(1 + e^{-x})

    Parameters
    ----------
    input : array_like of float
        Any shape. Integers and booleans are computed as float64.
    out : ndarray, optional
        Array of the input's shape and the result's dtype to write into.

    Returns
    -------
    ndarray or scalar
        float32, or float64 for float64 input; relative accuracy is kept where the result is tiny.

    Raises
    ------
    TypeError, ValueError
        If `input` is not a real array or `out` does not fit.

    Notes
    -----
    The derivative is ``sigmoid(-x)``.

    References
    ----------
    M. Maechler, "Accurately computing log(1 - exp(-|a|))", CRAN vignette of Rmpfr (2012).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast.functional as F
    >>> F.logsigmoid(np.array([-1000.0, 0.0, 40.0]))
    array([-1.00000000e+03, -6.93147181e-01, -4.24835426e-18])
    """
    return _LOGSIGMOID(input, None, None, None, "none", None, out)


def softplus(input, *, out=None):
    r"""Softplus of every element.

    .. math:: \operatorname{softplus}(x) = \log(1 + e^x)

    Parameters
    ----------
    input : array_like of float
        Any shape. Integers and booleans are computed as float64.
    out : ndarray, optional
        Array of the input's shape and the result's dtype to write into.

    Returns
    -------
    ndarray or scalar
        float32, or float64 for float64 input; relative accuracy is kept where the result is tiny.

    Raises
    ------
    TypeError, ValueError
        If `input` is not a real array or `out` does not fit.

    Notes
    -----
    The derivative is ``sigmoid(x)``. torch's `beta` and `threshold` are approximations' parameters and not needed here.

    References
    ----------
    C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing", NIPS 2000.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast.functional as F
    >>> F.softplus(np.array([-40.0, 0.0, 1000.0]))
    array([4.24835426e-18, 6.93147181e-01, 1.00000000e+03])
    """
    return _SOFTPLUS(input, None, None, None, "none", None, out)


def cross_entropy(
    input, target, weight=None, *, size_average=None, ignore_index=-100, reduce=None, reduction="mean", label_smoothing=0.0, axis=None, where=None,
    out=None,
):  # fmt: skip
    r"""Cross entropy between logits and class indices or class probabilities.

    .. math:: \ell_n = -\sum_c w_c\, t'_{nc} \log p_{nc}, \qquad p_n = \operatorname{softmax}(x_n), \quad t' = (1 - \varepsilon)\, t + \varepsilon / C

    where t is one-hot at the class index, or the given probabilities, and ε is `label_smoothing`.

    Parameters
    ----------
    input : array_like of float
        Logits of shape (C), (N, C) or (N, C, d1, ..., dk).
    target : array_like
        Class indices of any integer dtype, of the input's shape without the class axis; or class probabilities, of the input's shape and floating.
    weight : array_like, shape (C,), optional
        Weight of each class.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    ignore_index : int, default -100
        Class index of positions that add nothing, have zero gradient and do not count in the mean. Not for class probabilities.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the targets' class weights for class indices, by the number of positions for class probabilities. With nothing
        to average it is NaN, and its gradient zero.
    label_smoothing : float, default 0.0
        ε, from 0 to 1.
    axis : int, optional
        Class axis; by default 1, or 0 for one-dimensional input.
    where : array_like of bool, optional
        Broadcast against the positions; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the positions' shape for ``reduction='none'``
        float32, or float64 where the input or the class probabilities are float64.

    Raises
    ------
    IndexError
        If a class index is neither in [0, C) nor `ignore_index`; names the first.
    TypeError
        If a dtype does not fit: floating class indices, integer class probabilities, complex, object or masked arrays.
    ValueError
        If shapes, `label_smoothing`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by the logits is ``u * p - w * t'`` with ``u = sum(w * t')``; by class probabilities ``-(1 - ε) * w * log p``. A probability of 0 on
    a logit of -inf adds nothing. float32 results are within 4 ulp of the exact value, those near zero included, and gradients within 6.

    References
    ----------
    torch.nn.functional.cross_entropy; label smoothing: C. Szegedy et al., "Rethinking the Inception architecture", CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    >>> lf.cross_entropy(logits, [0, 2], reduction="none").round(4)
    array([0.4076, 1.0986], dtype=float32)
    >>> loss, grad = lf.value_and_grad(lf.cross_entropy)(logits, [0, 2])
    >>> grad.round(3)
    array([[-0.167,  0.122,  0.045],
           [ 0.167,  0.167, -0.333]], dtype=float32)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _core.class_loss(input, target, weight, ignore_index, reduction, label_smoothing, axis, where, out, False)


def nll_loss(input, target, weight=None, *, size_average=None, ignore_index=-100, reduce=None, reduction="mean", axis=None, where=None, out=None):
    r"""Negative log likelihood of class indices under given log-probabilities.

    .. math:: \ell_n = -w_{y_n}\, x_{n, y_n}

    Parameters
    ----------
    input : array_like of float
        Log-probabilities of shape (C), (N, C) or (N, C, d1, ..., dk). They are not checked to be normalised.
    target : array_like of int
        Class indices of any integer dtype, of the input's shape without the class axis.
    weight : array_like, shape (C,), optional
        Weight of each class. A class of weight 0 adds nothing, even at -inf.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    ignore_index : int, default -100
        Class index of positions that add nothing, have zero gradient and do not count in the mean.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the targets' class weights; with nothing to average it is NaN, and its gradient zero.
    axis : int, optional
        Class axis; by default 1, or 0 for one-dimensional input.
    where : array_like of bool, optional
        Broadcast against the positions; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the positions' shape for ``reduction='none'``
        float32, or float64 for float64 input.

    Raises
    ------
    IndexError
        If a class index is neither in [0, C) nor `ignore_index`; names the first.
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by the log-probabilities is ``-w[y]`` at the target's class and 0 elsewhere.

    References
    ----------
    torch.nn.functional.nll_loss.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.nll_loss(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1])
    np.float64(0.4904146265058631)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _core.class_loss(input, target, weight, ignore_index, reduction, 0.0, axis, where, out, True)
