"""Textbook formulas, independent of lossfast: one short function per loss and primitive, with the API's parameters.

Everything is computed and returned in np.longdouble (80 bits on x86), so that a reference is exact to far below an ulp of
float64 and central differences of it reach 1e-12.  Nothing is fast or checked here; the names are lossfast.functional's.
"""

import numpy as np

LD = np.longdouble
PI = LD("3.14159265358979323846264338327950288")


def real(x):
    """`x` as long double; bfloat16 goes through float32, which holds it exactly."""
    x = np.asarray(x)
    return (x.astype(np.float32) if x.dtype.name == "bfloat16" else x).astype(LD)


def times(a, b):
    """a b, with 0 inf = 0: the limit wherever a weight or a probability multiplies a logarithm."""
    with np.errstate(invalid="ignore"):
        return np.where(a == 0, LD(0), a * b)


def reduced(loss, reduction="mean", where=True, count=1):
    """none, sum, or mean = sum / sum of `count`, over the elements where `where` holds; the others are 0."""
    keep = np.broadcast_to(where, loss.shape)
    loss = np.where(keep, loss, LD(0))
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return loss.sum() / np.where(keep, np.broadcast_to(real(count), loss.shape), LD(0)).sum()


# ---- primitives -----------------------------------------------------------------------------------------------------


def _split(x, axis):
    """The largest entry m along `axis` and log(sum exp(x - m)), which keeps relative accuracy near zero:
    the first largest entry is left out of the sum and comes back as the 1 of log1p."""
    m = x.max(axis, keepdims=True, initial=-np.inf)
    first = np.expand_dims(x.argmax(axis), axis) == np.arange(x.shape[axis]).reshape([-1] + [1] * (x.ndim - 1 - axis % x.ndim))
    with np.errstate(invalid="ignore"):
        rest = np.where(first, LD(0), np.exp(np.where(x == m, LD(0), x - m)))
    return m, np.log1p(rest.sum(axis, keepdims=True))


def logsumexp(input, axis=-1, keepdims=False):
    x = real(input)
    axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in np.atleast_1d(np.array(axis, int)))
    rest = [a for a in range(x.ndim) if a not in axes]
    flat = x.transpose(rest + list(axes)).reshape([x.shape[a] for a in rest] + [-1])
    if flat.shape[-1] == 0:
        value = np.full(flat.shape[:-1], -LD(np.inf))
    else:
        m, s = _split(flat, -1)
        value = (m + s)[..., 0]
    return np.expand_dims(value, axes) if keepdims else value


def log_softmax(input, axis=-1):
    x = real(input)
    if x.shape[axis] == 0:
        return x
    m, s = _split(x, axis)
    with np.errstate(invalid="ignore"):
        return (x - m) - s


def softmax(input, axis=-1):
    return np.exp(log_softmax(input, axis))


def softplus(input):
    x = real(input)
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def logsigmoid(input):
    return -softplus(-real(input))


def sigmoid(input):
    x = real(input)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


# ---- class losses ---------------------------------------------------------------------------------------------------


def _class_axis(input, axis):
    return (0 if np.ndim(input) == 1 else 1) if axis is None else axis


def _onehot(target, classes):
    return (np.arange(classes) == np.asarray(target, int)[..., None]).astype(LD)


def cross_entropy(input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0, axis=None, where=True):
    axis = _class_axis(input, axis)
    x = np.moveaxis(real(input), axis, -1)
    classes = x.shape[-1]
    w = np.ones(classes, LD) if weight is None else real(weight)
    eps = LD(label_smoothing)
    if np.shape(target) == np.shape(input):
        mix, keep, count = np.moveaxis(real(target), axis, -1), True, 1
    else:
        keep = np.asarray(target) != ignore_index
        mix = _onehot(np.where(keep, target, 0), classes)
        count = np.where(keep, (w * mix).sum(-1), LD(0))
    loss = -times(w * (mix * (1 - eps) + eps / classes), log_softmax(x)).sum(-1)
    return reduced(np.where(keep, loss, LD(0)), reduction, where, count)


def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean", axis=None, where=True):
    x = np.moveaxis(real(input), _class_axis(input, axis), -1)
    w = np.ones(x.shape[-1], LD) if weight is None else real(weight)
    keep = np.asarray(target) != ignore_index
    mix = w * _onehot(np.where(keep, target, 0), x.shape[-1])
    loss = np.where(keep, -times(mix, x).sum(-1), LD(0))
    return reduced(loss, reduction, where, np.where(keep, mix.sum(-1), LD(0)))


def cross_entropy_gradient(input, target):
    """Of the sum over rows of (N, C) logits, without the cancellation of p - 1: at the target it is -(1 - p)."""
    x = real(input)
    x = x - x.max(-1, keepdims=True)  # what the logarithms below would drown in
    hot = _onehot(target, x.shape[-1])
    rest = logsumexp(np.where(hot == 1, -LD(np.inf), x))[..., None] - logsumexp(x)[..., None]
    return np.where(hot == 1, -np.exp(rest), softmax(x))


def linear_cross_entropy(input, linear_weight, target, *, linear_bias=None, **options):
    logits = real(input) @ real(linear_weight).T + (0 if linear_bias is None else real(linear_bias))
    return cross_entropy(logits, target, **options)


def focal_loss(input, target, weight=None, *, alpha=None, gamma=2.0, ignore_index=-100, reduction="mean", axis=None, where=True):
    """-w_y alpha_y (1 - p_y)^gamma log p_y, p = softmax; the mean divides by the sum of w_y, as cross_entropy's, and not of alpha_y."""
    axis = _class_axis(input, axis)
    nll = cross_entropy(input, target, ignore_index=ignore_index, reduction="none", axis=axis)
    w = np.ones(np.shape(input)[axis], LD) if weight is None else real(weight)
    keep = np.asarray(target) != ignore_index
    label = np.where(keep, target, 0)
    count, a = np.where(keep, w[label], LD(0)), LD(1) if alpha is None else (w * 0 + real(alpha))[label]
    return reduced(times(count * a, (-np.expm1(-nll)) ** LD(gamma) * nll), reduction, where, count)


def focal_gradient(input, target, gamma):
    """Of the sum over rows of (N, C) logits: cross entropy's, times the derivative of q^gamma L by L, q = 1 - exp(-L)."""
    plain, loss = cross_entropy_gradient(input, target), cross_entropy(input, target, reduction="none")
    q = -np.expm1(-loss)
    with np.errstate(divide="ignore"):
        return plain * (q ** LD(gamma) + times(np.exp(-loss) * loss, LD(gamma) * q ** LD(gamma - 1)))[:, None]


# ---- elementwise losses ---------------------------------------------------------------------------------------------


def l1_loss(input, target, *, weight=1, reduction="mean", where=True):
    w = real(weight)
    return reduced(w * np.abs(real(input) - real(target)), reduction, where, w)


def mse_loss(input, target, *, weight=1, reduction="mean", where=True):
    w = real(weight)
    return reduced(w * (real(input) - real(target)) ** 2, reduction, where, w)


def huber_loss(input, target, *, delta=1.0, weight=1, reduction="mean", where=True):
    a = np.abs(real(input) - real(target))
    return reduced(real(weight) * np.where(a <= delta, a * a / 2, LD(delta) * (a - LD(delta) / 2)), reduction, where)


def smooth_l1_loss(input, target, *, beta=1.0, reduction="mean", where=True):
    a = np.abs(real(input) - real(target))
    return reduced(np.where(a < beta, a * a / (2 * LD(beta or 1)), a - LD(beta) / 2), reduction, where)


def binary_cross_entropy(input, target, weight=1, *, reduction="mean", where=True):
    x, y = real(input), real(target)
    with np.errstate(divide="ignore"):
        loss = -(y * np.maximum(np.log(x), -100) + (1 - y) * np.maximum(np.log1p(-x), -100))
    return reduced(real(weight) * loss, reduction, where)


def binary_cross_entropy_with_logits(input, target, weight=1, *, pos_weight=1, reduction="mean", where=True):
    x, y = real(input), real(target)
    loss = times(real(pos_weight) * y, softplus(-x)) + times(1 - y, softplus(x))
    return reduced(times(real(weight), loss), reduction, where)


def kl_div(input, target, *, log_target=False, reduction="mean", where=True):
    x, t = real(input), real(target)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = times(np.exp(t), t - x) if log_target else times(t, np.log(t) - x)
    if reduction == "batchmean":
        return reduced(loss, "sum", where) / (len(x) if x.ndim else 1)
    return reduced(loss, reduction, where)


def gaussian_nll_loss(input, target, var, *, full=False, eps=1e-6, reduction="mean", where=True):
    v = np.maximum(real(var), LD(eps))
    d = real(input) - real(target)
    return reduced((np.log(v) + d * d / v + (np.log(2 * PI) if full else 0)) / 2, reduction, where)


def poisson_nll_loss(input, target, *, log_input=True, full=False, eps=1e-8, reduction="mean", where=True):
    x, t = real(input), real(target)
    loss = np.exp(x) - times(t, x) if log_input else x - t * np.log(x + LD(eps))
    if full:
        s = np.maximum(t, 1)
        loss = loss + np.where(t > 1, s * np.log(s) - s + np.log(2 * PI * s) / 2, LD(0))
    return reduced(loss, reduction, where)


def soft_margin_loss(input, target, *, reduction="mean", where=True):
    return reduced(softplus(-real(target) * real(input)), reduction, where)


def multilabel_soft_margin_loss(input, target, weight=1, *, reduction="mean", where=True):
    loss = binary_cross_entropy_with_logits(input, target, weight, reduction="none")
    return reduced(loss.mean(-1), reduction, where)


def hinge_embedding_loss(input, target, *, margin=1.0, reduction="mean", where=True):
    x = real(input)
    return reduced(np.where(np.asarray(target) == 1, x, np.maximum(0, LD(margin) - x)), reduction, where)


def margin_ranking_loss(input1, input2, target, *, margin=0.0, reduction="mean", where=True):
    return reduced(np.maximum(0, -real(target) * (real(input1) - real(input2)) + LD(margin)), reduction, where)


def multi_margin_loss(input, target, *, p=1, margin=1.0, weight=None, reduction="mean", where=True):
    x, y = real(input), np.asarray(target)[..., None]
    excess = np.maximum(0, LD(margin) - np.take_along_axis(x, y, -1) + x) ** p
    w = LD(1) if weight is None else real(weight)[y[..., 0]]
    loss = w * np.where(np.arange(x.shape[-1]) == y, LD(0), excess).sum(-1) / x.shape[-1]
    return reduced(loss, reduction, where)


def multilabel_margin_loss(input, target, *, reduction="mean", where=True):
    x, y = real(input), np.asarray(target)
    loss = np.zeros(x.shape[:-1], LD)
    for n in np.ndindex(loss.shape):
        ends = np.flatnonzero(y[n] < 0)
        mine = y[n][: ends[0]] if len(ends) else y[n]
        others = np.setdiff1d(np.arange(x.shape[-1]), mine)
        loss[n] = sum(np.maximum(0, 1 - (x[n][j] - x[n][others])).sum() for j in mine) / x.shape[-1]
    return reduced(loss, reduction, where)


def cosine_embedding_loss(input1, input2, target, *, margin=0.0, reduction="mean", where=True):
    a, b = real(input1), real(input2)
    cosine = (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + LD(1e-12)) * ((b * b).sum(-1) + LD(1e-12)))
    return reduced(np.where(np.asarray(target) == 1, 1 - cosine, np.maximum(0, cosine - LD(margin))), reduction, where)


def _distance(a, b, p=2.0, eps=1e-6):
    size = np.abs(real(a) - real(b) + LD(eps))
    return size.max(-1) if p == np.inf else (size ** LD(p)).sum(-1) ** (1 / LD(p))


def triplet_margin_loss(anchor, positive, negative, *, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean", where=True):
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=lambda a, b: _distance(a, b, p, eps), margin=margin, swap=swap, reduction=reduction, where=where
    )


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=_distance, margin=1.0, swap=False, reduction="mean", where=True
):
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    if swap:
        far = np.minimum(far, distance_function(positive, negative))
    return reduced(np.maximum(0, LD(margin) + near - far), reduction, where)


# ---- beyond torch.nn ------------------------------------------------------------------------------------------------


def sigmoid_focal_loss(input, target, *, alpha=0.25, gamma=2.0, weight=1, reduction="none", where=True):
    """Lin et al. 2017 with torchvision's parameters: alpha_t (1 - p_t)^gamma BCE; a negative alpha means none."""
    x, y = real(input), real(target)
    miss = y * sigmoid(-x) + (1 - y) * sigmoid(x)
    a = y * LD(alpha) + (1 - y) * (1 - LD(alpha)) if alpha >= 0 else LD(1)
    return reduced(real(weight) * a * times(miss ** LD(gamma), times(y, softplus(-x)) + times(1 - y, softplus(x))), reduction, where)


def js_div(input, target, *, log=False, reduction="batchmean", where=True):
    """Lin 1991: half the divergences from the middle."""
    x, y = (np.exp(real(input)), np.exp(real(target))) if log else (real(input), real(target))
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = (times(x, np.log(2 * x / (x + y))) + times(y, np.log(2 * y / (x + y)))) / 2
    if reduction == "batchmean":
        return reduced(loss, "sum", where) / (len(x) if x.ndim else 1)
    return reduced(loss, reduction, where)


def dice_loss(input, target, *, smooth=1.0, reduction="mean", where=True):
    x, t = real(input), real(target)
    with np.errstate(invalid="ignore"):
        return reduced(1 - (2 * (x * t).sum(-1) + LD(smooth)) / (x.sum(-1) + t.sum(-1) + LD(smooth)), reduction, where)


def wasserstein_loss(input, target, *, spacing=1.0, reduction="mean", where=True):
    """Vallender 1974: the area between the two cumulated histograms."""
    flow = np.cumsum(real(input) - real(target), -1)[..., :-1]
    return reduced(LD(spacing) * np.abs(flow).sum(-1), reduction, where)


def hinge_loss(input, target, *, weight=1, reduction="mean", where=True):
    return reduced(real(weight) * np.maximum(0, 1 - real(target) * real(input)), reduction, where)


def squared_hinge_loss(input, target, *, weight=1, reduction="mean", where=True):
    return reduced(real(weight) * np.maximum(0, 1 - real(target) * real(input)) ** 2, reduction, where)


def quantile_loss(input, target, *, q=0.5, weight=1, reduction="mean", where=True):
    """Koenker and Bassett 1978, scikit-learn's mean_pinball_loss."""
    d, w = real(target) - real(input), real(weight)
    return reduced(w * np.maximum(LD(q) * d, (LD(q) - 1) * d), reduction, where, w)


def log_cosh_loss(input, target, *, weight=1, reduction="mean", where=True):
    """log cosh d = log(1 + 2 sinh(d/2)^2); Keras' LogCosh."""
    d, w = real(input) - real(target), real(weight)
    near = np.log1p(2 * np.sinh(np.clip(d, -1, 1) / 2) ** 2)
    far = np.abs(d) + np.log1p(np.exp(-2 * np.abs(d))) - np.log(LD(2))
    return reduced(w * np.where(np.abs(d) < 1, near, far), reduction, where, w)


def gamma_nll_loss(input, target, *, weight=1, reduction="mean", where=True):
    """scikit-learn's HalfGammaLoss less its constants: the mean is exp(input)."""
    x, w = real(input), real(weight)
    return reduced(w * (x + real(target) * np.exp(-x)), reduction, where, w)


def tweedie_nll_loss(input, target, *, power=1.5, weight=1, reduction="mean", where=True):
    """scikit-learn's HalfTweedieLoss less its constants: the mean is exp(input); Poisson and Gamma at 1 and 2."""
    x, t, w, p = real(input), real(target), real(weight), LD(power)
    first = -t * x if p == 1 else -t * np.exp((1 - p) * x) / (1 - p)
    second = x if p == 2 else np.exp((2 - p) * x) / (2 - p)
    return reduced(w * (first + second), reduction, where, w)


def poisson_deviance(input, target, *, weight=1, reduction="mean", where=True):
    return tweedie_deviance(input, target, power=1, weight=weight, reduction=reduction, where=where)


def gamma_deviance(input, target, *, weight=1, reduction="mean", where=True):
    return tweedie_deviance(input, target, power=2, weight=weight, reduction=reduction, where=where)


def tweedie_deviance(input, target, *, power=1.5, weight=1, reduction="mean", where=True):
    """scikit-learn's mean_tweedie_deviance: of the mean `input` from the observation `target`."""
    x, t, w, p = real(input), real(target), real(weight), LD(power)
    with np.errstate(divide="ignore", invalid="ignore"):
        if p == 1:
            half = times(t, np.log(t / x)) + x - t
        elif p == 2:
            half = np.log(x / t) + t / x - 1
        else:
            half = np.maximum(t, 0) ** (2 - p) / ((1 - p) * (2 - p)) - t * x ** (1 - p) / (1 - p) + x ** (2 - p) / (2 - p)
    return reduced(2 * w * half, reduction, where, w)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def central(f, x, step=5e-4):
    """Gradient of the scalar function f at x by five-point central differences; error about 1e-13 for smooth f."""
    x = real(x).copy()
    g = np.empty_like(x)
    for i in np.ndindex(x.shape):
        x0 = x[i]
        h = LD(step) * min(LD(1), abs(x0) or LD(1))
        at = {}
        for k in (-2, -1, 1, 2):
            x[i] = x0 + k * h
            at[k] = f(x)
        x[i] = x0
        g[i] = (at[-2] - 8 * at[-1] + 8 * at[1] - at[2]) / (12 * h)
    return g


def second(f, x, step=2e-3):
    """Diagonal of the Hessian of the scalar function f at x, likewise; error about 1e-11."""
    x = real(x).copy()
    h2, middle = np.empty_like(x), f(x)
    for i in np.ndindex(x.shape):
        x0 = x[i]
        h = LD(step) * min(LD(1), max(LD(0.05), abs(x0)))
        at = {}
        for k in (-2, -1, 1, 2):
            x[i] = x0 + k * h
            at[k] = f(x)
        x[i] = x0
        h2[i] = (16 * (at[1] + at[-1]) - (at[2] + at[-2]) - 30 * middle) / (12 * h * h)
    return h2


# ---- mpmath: a second, unrelated arithmetic for one row -------------------------------------------------------------


def mp_row(row, digits=60):
    """(logsumexp, log_softmax, cross entropy per class, softmax) of one row of finite numbers, in mpmath with `digits` digits."""
    import mpmath

    with mpmath.workdps(digits):
        x = [mpmath.mpf(float(v)) for v in row]
        top = max(x)
        total = mpmath.fsum(mpmath.exp(v - top) for v in x)
        lse = top + mpmath.log(total)
        logp = []
        for k, v in enumerate(x):
            others = mpmath.fsum(mpmath.exp(u - v) for j, u in enumerate(x) if j != k)
            logp.append(-mpmath.log1p(others))
        return lse, logp, [-p for p in logp], [mpmath.exp(p) for p in logp]
