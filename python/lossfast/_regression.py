"""Losses of real-valued predictions: differences, likelihoods and deviances."""

from lossfast import _core
from lossfast._legacy import legacy_reduction

__all__ = [
    "gamma_deviance", "gamma_nll_loss", "gaussian_nll_loss", "huber_loss", "l1_loss", "log_cosh_loss", "mse_loss", "poisson_deviance", "poisson_nll_loss",
    "quantile_loss", "smooth_l1_loss", "tweedie_deviance", "tweedie_nll_loss",
]  # fmt: skip

_INF = float("inf")
_PAIR = ("input", "target")
_POSITIVE = (5e-324, _INF, "a number above 0")
_NOT_NEGATIVE = (0.0, _INF, "a number of at least 0")
_POWER = {
    "limits": (("power", -1e300, 1e300, "a finite number"),),
    "gap": (0.0, 1.0, "there is no Tweedie distribution of a power between 0 and 1"),
}
_COUNTS = {"target": "a number of at least 0"}
_MEANS = {"input": "a number above 0", "target": "a number of at least 0"}

_L1 = _core.elementwise("l1", _PAIR, weight_mean=True, warn_broadcast=True)
_MSE = _core.elementwise("mse", _PAIR, weight_mean=True, warn_broadcast=True)
_HUBER = _core.elementwise("huber", _PAIR, limits=(("delta", *_POSITIVE),), warn_broadcast=True)
_SMOOTH_L1 = _core.elementwise("smooth_l1", _PAIR, limits=(("beta", *_NOT_NEGATIVE),), warn_broadcast=True)
_QUANTILE = _core.elementwise("quantile", _PAIR, limits=(("q", 0.0, 1.0, "a number from 0 to 1"),), weight_mean=True, warn_broadcast=True)
_LOG_COSH = _core.elementwise("log_cosh", _PAIR, weight_mean=True, warn_broadcast=True)
_GAUSSIAN = _core.elementwise(
    "gaussian_nll", (*_PAIR, "var"), limits=(("full", 0.0, 1.0, "True or False"), ("eps", *_NOT_NEGATIVE)),
    requires={"var": "a variance of at least 0"}, per_row=True,
)  # fmt: skip
_POISSON = _core.elementwise("poisson_nll", _PAIR, limits=(("eps", *_NOT_NEGATIVE),))
_POISSON_FULL = _core.elementwise("poisson_nll_full", _PAIR, limits=(("eps", *_NOT_NEGATIVE),))
_POISSON_LOG = _core.elementwise("poisson_nll_log", _PAIR)
_POISSON_LOG_FULL = _core.elementwise("poisson_nll_log_full", _PAIR)
_GAMMA_NLL = _core.elementwise("gamma_nll_log", _PAIR, requires=_COUNTS, weight_mean=True, warn_broadcast=True)
_TWEEDIE_NLL = _core.elementwise("tweedie_nll_log", _PAIR, **_POWER, requires=_COUNTS, weight_mean=True, warn_broadcast=True)
_TWEEDIE_NLL_1 = _core.elementwise("poisson_nll_log", _PAIR, weight_mean=True, warn_broadcast=True)
_POISSON_DEVIANCE = _core.elementwise("poisson_deviance", _PAIR, requires=_MEANS, weight_mean=True, warn_broadcast=True)
_GAMMA_DEVIANCE = _core.elementwise(
    "gamma_deviance", _PAIR, requires={"input": "a number above 0", "target": "a number above 0"}, weight_mean=True, warn_broadcast=True
)
_TWEEDIE_DEVIANCE_3_2 = _core.elementwise("tweedie_deviance_3_2", _PAIR, requires=_MEANS, weight_mean=True, warn_broadcast=True)
_TWEEDIE_DEVIANCE = _core.elementwise(
    "tweedie_deviance", _PAIR, **_POWER, requires=_MEANS | {"target": "a number of at least 0, above 0 for a power of 2 or more"},
    weight_mean=True, warn_broadcast=True,
)  # fmt: skip


def l1_loss(input, target, *, size_average=None, reduce=None, reduction="mean", weight=None, where=None, out=None):
    r"""Absolute error.

    .. math:: \ell = w\, |x - t|

    Parameters
    ----------
    input, target : array_like
        Predictions and targets. Different shapes are broadcast, with a UserWarning.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
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
    The gradient by `input` is the sign of the difference, 0 where it is 0.

    References
    ----------
    torch.nn.functional.l1_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.l1_loss([1.0, 2.0], [1.5, 4.0])
    np.float64(1.25)
    >>> lf.l1_loss([1.0, 2.0], [1.5, 4.0], weight=[3.0, 1.0])
    np.float64(0.875)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _L1(input, target, None, weight, reduction, where, out)


def mse_loss(input, target, *, size_average=None, reduce=None, reduction="mean", weight=None, where=None, out=None):
    r"""Squared error; with ``reduction='sum'`` the sum of squared errors.

    .. math:: \ell = w\, (x - t)^2

    Parameters
    ----------
    input, target : array_like
        Predictions and targets. Different shapes are broadcast, with a UserWarning.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
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
    The gradient by `input` is ``2 (x - t)``, the second derivative 2.

    References
    ----------
    torch.nn.functional.mse_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.mse_loss([1.0, 2.0], [1.5, 4.0])
    np.float64(2.125)
    >>> lf.mse_loss([1.0, 2.0], [1.5, 4.0], reduction="sum")
    np.float64(4.25)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _MSE(input, target, None, weight, reduction, where, out)


def huber_loss(input, target, *, reduction="mean", delta=1.0, weight=None, where=None, out=None):
    r"""Huber loss: quadratic within `delta`, linear beyond.

    .. math:: \ell = w \begin{cases} d^2/2 & |d| \le \delta \\ \delta\,(|d| - \delta/2) & |d| > \delta \end{cases}, \qquad d = x - t

    Parameters
    ----------
    input, target : array_like
        Predictions and targets. Different shapes are broadcast, with a UserWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever their weights.
    delta : float, default 1.0
        Where the loss becomes linear; above 0, inf gives half the squared error.
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
        If dtypes, shapes, `delta`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is the difference, clipped to -`delta` and `delta`; the second derivative 1 within, 0 beyond.

    References
    ----------
    torch.nn.functional.huber_loss; P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964).

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.huber_loss([0.0, 0.0], [0.5, 4.0], reduction="none")
    array([0.125, 3.5  ])
    >>> lf.huber_loss([0.0, 0.0], [0.5, 4.0], delta=2.0)
    np.float64(3.0625)
    """
    return _HUBER(input, target, None, weight, reduction, where, out, delta)


def smooth_l1_loss(input, target, *, size_average=None, reduce=None, reduction="mean", beta=1.0, where=None, out=None):
    r"""Smooth L1 loss: quadratic within `beta`, absolute error less a constant beyond.

    .. math:: \ell = \begin{cases} d^2/(2\beta) & |d| < \beta \\ |d| - \beta/2 & |d| \ge \beta \end{cases}, \qquad d = x - t

    Parameters
    ----------
    input, target : array_like
        Predictions and targets. Different shapes are broadcast, with a UserWarning.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements.
    beta : float, default 1.0
        Where the loss becomes linear; at least 0, and 0 gives the absolute error.
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
        If dtypes, shapes, `beta`, `reduction` or `out` do not fit.

    Notes
    -----
    It is the Huber loss with ``delta=beta`` over `beta`. The gradient by `input` is ``d / beta``, clipped to -1 and 1.

    References
    ----------
    torch.nn.functional.smooth_l1_loss; R. Girshick, "Fast R-CNN", ICCV 2015.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.smooth_l1_loss([0.0, 0.0], [0.5, 4.0], reduction="none")
    array([0.125, 3.5  ])
    >>> lf.smooth_l1_loss([0.0, 0.0], [0.5, 4.0], beta=2.0)
    np.float64(1.53125)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    if type(beta) in (float, int) and beta == 1:  # Huber's loss over beta, which is cheaper where nothing is divided
        return _HUBER(input, target, None, None, reduction, where, out, beta)
    return _SMOOTH_L1(input, target, None, None, reduction, where, out, beta)


def quantile_loss(input, target, *, q=0.5, reduction="mean", weight=None, where=None, out=None):
    r"""Quantile (pinball) loss: its expectation is least at the `q`-quantile of the target.

    .. math:: \ell = w \max\bigl(q\,(t - x),\; (1 - q)\,(x - t)\bigr)

    Parameters
    ----------
    input, target : array_like
        Predictions and targets. Different shapes are broadcast, with a UserWarning.
    q : float, default 0.5
        The quantile's level, from 0 to 1.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
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
        If dtypes, shapes, `q`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``-q`` below the target, ``1 - q`` above and 0 at it; the second derivative is 0.

    References
    ----------
    R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46 (1978); sklearn.metrics.mean_pinball_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.quantile_loss([1.0, 1.0], [2.0, 0.0], q=0.9, reduction="none")
    array([0.9, 0.1])
    """
    return _QUANTILE(input, target, None, weight, reduction, where, out, q)


def log_cosh_loss(input, target, *, reduction="mean", weight=None, where=None, out=None):
    r"""Logarithm of the hyperbolic cosine of the error: half the squared error near 0, the absolute error less log 2 far away.

    .. math:: \ell = w \log\cosh(x - t)

    Parameters
    ----------
    input, target : array_like
        Predictions and targets. Different shapes are broadcast, with a UserWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the losses'.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64. Neither overflows nor cancels.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``tanh(x - t)``, the second derivative ``1 / cosh(x - t)**2``.

    References
    ----------
    keras.losses.LogCosh; R. A. Saleh, A. K. Saleh, "Statistical properties of the log-cosh loss function used in machine learning" (2022).

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.log_cosh_loss([1e-8, 1.0, 1000.0], [0.0, 0.0, 0.0], reduction="none")
    array([5.00000000e-17, 4.33780830e-01, 9.99306853e+02])
    """
    return _LOG_COSH(input, target, None, weight, reduction, where, out)


def gaussian_nll_loss(input, target, var, *, full=False, eps=1e-6, reduction="mean", where=None, out=None):
    r"""Negative log likelihood of targets under a Gaussian of given means and variances.

    .. math:: \ell = \tfrac12 \Bigl(\log v + \frac{(x - t)^2}{v} \Bigr) + \tfrac12 \log 2\pi \;[\text{full}], \qquad v = \max(\mathrm{var}, \varepsilon)

    Parameters
    ----------
    input : array_like
        Means.
    target : array_like
        Targets, broadcast against the means.
    var : float or array_like
        Variances: of the input's shape without its last axis, one for each row (also where it would broadcast), or of any that broadcasts.
    full : bool, default False
        Add the constant term.
    eps : float, default 1e-6
        Least variance, at least 0.
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
        If dtypes, shapes, `eps`, `reduction` or `out` do not fit, or a variance is negative; names the first.

    Notes
    -----
    The gradient by `input` is ``(x - t) / v``, by `var` ``(1 - (x - t)**2 / v) / (2 v)``, also where the variance was raised to `eps`; the second
    derivative by `input` is ``1 / v``.

    References
    ----------
    torch.nn.functional.gaussian_nll_loss; D. A. Nix, A. S. Weigend, "Estimating the mean and variance of the target probability distribution" (1994).

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.gaussian_nll_loss([1.0, 2.0], [1.5, 4.0], 2.0)
    np.float64(0.8778235902799727)
    >>> loss, (gx, gv) = lf.value_and_grad(lf.gaussian_nll_loss, ("input", "var"))(np.ones((2, 3)), np.zeros((2, 3)), np.array([1.0, 4.0]))
    >>> gv
    array([0.      , 0.046875])
    """
    full = full is not False and _core.flag(full, "full")
    return _GAUSSIAN(input, target, var, None, reduction, where, out, full, eps)


def poisson_nll_loss(input, target, *, log_input=True, full=False, size_average=None, eps=1e-8, reduce=None, reduction="mean", where=None, out=None):
    r"""Negative log likelihood of counts under a Poisson distribution.

    .. math:: \ell = \begin{cases} e^x - t\,x & \text{log\_input} \\ x - t \log(x + \varepsilon) & \text{else} \end{cases}
        \;+\; \bigl[t > 1\bigr] \bigl(t \log t - t + \tfrac12 \log 2\pi t\bigr) \;[\text{full}]

    Parameters
    ----------
    input : array_like
        Rates, or their logarithms.
    target : array_like
        Counts, broadcast against the rates.
    log_input : bool, default True
        Whether `input` holds logarithms.
    full : bool, default False
        Add Stirling's approximation of log(t!), which is 0 up to t = 1.
    size_average, reduce : bool, optional
        torch's deprecated pair, mapped to `reduction` with a DeprecationWarning.
    eps : float, default 1e-8
        Added to rates before their logarithm is taken; at least 0.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64. A negative rate gives NaN.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `eps`, `reduction` or `out` do not fit.

    Notes
    -----
    The gradient by `input` is ``exp(x) - t`` or ``1 - t / (x + eps)``, the second derivative ``exp(x)`` or ``t / (x + eps)**2``.

    References
    ----------
    torch.nn.functional.poisson_nll_loss.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.poisson_nll_loss([0.0, 1.0], [1.0, 3.0], reduction="none")
    array([ 1.        , -0.28171817])
    >>> lf.poisson_nll_loss([1.0, 2.0], [1.0, 3.0], log_input=False, full=True)
    np.float64(1.3423199884316104)
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    full = full is not False and _core.flag(full, "full")
    if log_input is True or _core.flag(log_input, "log_input"):
        if not (eps.__class__ is float and eps >= 0) and not _core.number(eps, "eps") >= 0:
            raise ValueError(f"eps: expected {_NOT_NEGATIVE[2]}, got {eps!r}")
        return (_POISSON_LOG_FULL if full else _POISSON_LOG)(input, target, None, None, reduction, where, out)
    return (_POISSON_FULL if full else _POISSON)(input, target, None, None, reduction, where, out, eps)


def gamma_nll_loss(input, target, *, reduction="mean", weight=None, where=None, out=None):
    r"""Negative log likelihood of positive targets under a gamma distribution, by the logarithm of its mean; constants left out.

    .. math:: \ell = w\, (x + t\, e^{-x})

    Parameters
    ----------
    input : array_like
        Logarithms of the means, as a boosted or linear model with log link predicts them.
    target : array_like
        Targets, at least 0. Different shapes are broadcast, with a UserWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
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
        If dtypes, shapes, `reduction` or `out` do not fit, or a target is negative; names the first.

    Notes
    -----
    The gradient by `input` is ``1 - t exp(-x)``, the second derivative ``t exp(-x)``.

    References
    ----------
    sklearn._loss.HalfGammaLoss; LightGBM's and XGBoost's gamma objective.

    Examples
    --------
    >>> import lossfast as lf
    >>> value, grad, hess = lf.value_grad_hess(lf.gamma_nll_loss)([0.0, 1.0], [2.0, 1.0], reduction="sum")
    >>> grad, hess
    (array([-1.        ,  0.63212056]), array([2.        , 0.36787944]))
    """
    return _GAMMA_NLL(input, target, None, weight, reduction, where, out)


def tweedie_nll_loss(input, target, *, power=1.5, reduction="mean", weight=None, where=None, out=None):
    r"""Negative log likelihood under a Tweedie distribution, by the logarithm of its mean; constants left out.

    .. math:: \ell = w \Bigl(\frac{e^{(2 - p)\,x}}{2 - p} - t\, \frac{e^{(1 - p)\,x}}{1 - p}\Bigr)

    Parameters
    ----------
    input : array_like
        Logarithms of the means, as a boosted or linear model with log link predicts them.
    target : array_like
        Targets, at least 0 for a power above 0 (unchecked for a power of 1, as in `poisson_nll_loss`). Different shapes are broadcast, with a UserWarning.
    power : float, default 1.5
        p: 1 is the Poisson, 2 the gamma distribution, between them masses at 0 and a continuous rest. Not between 0 and 1.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
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
        If dtypes, shapes, `power`, `reduction` or `out` do not fit, or a target is out of range; names the first.

    Notes
    -----
    The gradient by `input` is ``exp((2 - p) x) - t exp((1 - p) x)``; the second derivative its derivative.

    References
    ----------
    sklearn._loss.HalfTweedieLoss; LightGBM's and XGBoost's tweedie objective.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.tweedie_nll_loss([0.0, 1.0], [0.0, 2.0], power=1.5, reduction="none")
    array([2.        , 5.72356518])
    """
    if type(power) is not float:
        power = _core.number(power, "power")
    if power == 1:
        return _TWEEDIE_NLL_1(input, target, None, weight, reduction, where, out)
    if power == 2:
        return _GAMMA_NLL(input, target, None, weight, reduction, where, out)
    return _TWEEDIE_NLL(input, target, None, weight, reduction, where, out, power)


def poisson_deviance(input, target, *, reduction="mean", weight=None, where=None, out=None):
    r"""Unit deviance of counts under a Poisson distribution of given mean.

    .. math:: \ell = 2 w \Bigl(t \log\frac{t}{x} + x - t\Bigr)

    Parameters
    ----------
    input : array_like
        Means, above 0.
    target : array_like
        Counts, at least 0. Different shapes are broadcast, with a UserWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the losses'.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64. Keeps its relative accuracy as the target approaches the mean.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit, or an element is out of range; names the first.

    Notes
    -----
    The gradient by `input` is ``2 (x - t) / x``, the second derivative ``2 t / x**2``.

    References
    ----------
    P. McCullagh, J. A. Nelder, "Generalized linear models" (1989); sklearn.metrics.mean_poisson_deviance.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.poisson_deviance([1.0, 2.0], [0.0, 3.0], reduction="none")
    array([2.        , 0.43279065])
    """
    return _POISSON_DEVIANCE(input, target, None, weight, reduction, where, out)


def gamma_deviance(input, target, *, reduction="mean", weight=None, where=None, out=None):
    r"""Unit deviance of positive targets under a gamma distribution of given mean.

    .. math:: \ell = 2 w \Bigl(\log\frac{x}{t} + \frac{t}{x} - 1\Bigr)

    Parameters
    ----------
    input : array_like
        Means, above 0.
    target : array_like
        Targets, above 0. Different shapes are broadcast, with a UserWarning.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the losses'.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64. Keeps its relative accuracy as the target approaches the mean.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `reduction` or `out` do not fit, or an element is out of range; names the first.

    Notes
    -----
    The gradient by `input` is ``2 (x - t) / x**2``, the second derivative ``2 (2 t - x) / x**3``.

    References
    ----------
    P. McCullagh, J. A. Nelder, "Generalized linear models" (1989); sklearn.metrics.mean_gamma_deviance.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.gamma_deviance([1.0, 2.0], [0.5, 3.0], reduction="none")
    array([0.38629436, 0.18906978])
    """
    return _GAMMA_DEVIANCE(input, target, None, weight, reduction, where, out)


def tweedie_deviance(input, target, *, power=1.5, reduction="mean", weight=None, where=None, out=None):
    r"""Unit deviance under a Tweedie distribution of given mean.

    .. math:: \ell = 2 w \Bigl(\frac{\max(t, 0)^{2 - p}}{(1 - p)(2 - p)} - \frac{t\,x^{1 - p}}{1 - p} + \frac{x^{2 - p}}{2 - p}\Bigr)

    Parameters
    ----------
    input : array_like
        Means, above 0 (any for ``power=0``).
    target : array_like
        Targets: at least 0 for a power from 1, above 0 from 2. Different shapes are broadcast, with a UserWarning.
    power : float, default 1.5
        p: 0 is the squared error, 1 the Poisson, 2 the gamma deviance. Not between 0 and 1.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the weights.
    weight : array_like, optional
        Weight of each element, of a shape that broadcasts to the losses'.
    where : array_like of bool, optional
        Broadcast against the losses; where False an element is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray for ``reduction='none'``
        float32, or float64 where `input` or `target` is float64. Keeps its relative accuracy as the target approaches the mean.

    Raises
    ------
    TypeError, ValueError
        If dtypes, shapes, `power`, `reduction` or `out` do not fit, or an element is out of range; names the first.

    Notes
    -----
    The gradient by `input` is ``2 (x - t) / x**p``.

    References
    ----------
    B. Jorgensen, "The theory of dispersion models" (1997); sklearn.metrics.mean_tweedie_deviance.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.tweedie_deviance([1.0, 2.0], [0.0, 3.0], power=1.5, reduction="none")
    array([4.        , 0.28572916])
    """
    if type(power) is not float:
        power = _core.number(power, "power")
    if power == 0:
        return _MSE(input, target, None, weight, reduction, where, out)
    if power == 1:
        return _POISSON_DEVIANCE(input, target, None, weight, reduction, where, out)
    if power == 2:
        return _GAMMA_DEVIANCE(input, target, None, weight, reduction, where, out)
    if power == 1.5:
        return _TWEEDIE_DEVIANCE_3_2(input, target, None, weight, reduction, where, out)
    return _TWEEDIE_DEVIANCE(input, target, None, weight, reduction, where, out, power)
