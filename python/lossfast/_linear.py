"""Cross entropy of a linear layer's outputs that are never stored as a whole."""

import numpy as np

from lossfast import _core

__all__ = ["linear_cross_entropy"]

# A tile of logits is _ROWS x _COLUMNS. With tiles of the weights, of the hidden vectors and of their gradients, 64 MB are not reached for vectors of
# 1024 numbers; wider ones get fewer columns.
_ROWS, _COLUMNS = 1024, 2048
_TILE_NUMBERS = 2 << 20
_PART = 128  # rows of a tile at a time, where NumPy works in float64


def linear_cross_entropy(
    input, linear_weight, target, *, linear_bias=None, weight=None, reduction="mean", ignore_index=None, label_smoothing=0.0, where=None, out=None
):
    r"""Cross entropy between the logits of a linear layer and class indices or probabilities, without ever holding all logits.

    .. math:: \ell_n = \mathrm{cross\_entropy}(W h_n + b,\; y_n)

    Logits are made one tile of rows and classes at a time by NumPy's BLAS and merged into each row's logsumexp; for gradients they are made again.

    Parameters
    ----------
    input : array_like of float
        Hidden vectors h of shape (H) or (..., H).
    linear_weight : array_like of float, shape (C, H)
        W. Halves, memory-mapped arrays and views are read as they are, a tile at a time.
    target : array_like
        Class indices of any integer dtype, of the input's shape without its last axis; or floating class probabilities, of that shape and (C), read a
        tile at a time.
    linear_bias : array_like of float, shape (C,), optional
        b.
    weight : array_like, shape (C,), optional
        Weight of each class.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the targets' class weights, or for probabilities by the number of positions.
    ignore_index : int, optional
        Class index of positions that add nothing, have zero gradient and do not count in the mean; by default -100. Not with probabilities.
    label_smoothing : float, default 0.0
        From 0 to 1: see `cross_entropy`.
    where : array_like of bool, optional
        Broadcast against the positions; where False a position is as if it were not there, whatever it holds.
    out : ndarray, optional
        Array to write into, for ``reduction='none'``.

    Returns
    -------
    scalar, or ndarray of the positions' shape for ``reduction='none'``
        float32, or float64 where `input`, `linear_weight`, `linear_bias` or `target` is float64.

    Raises
    ------
    IndexError
        If a class index is neither in [0, C) nor `ignore_index`; names the first.
    TypeError, ValueError
        If dtypes, shapes, `label_smoothing`, `ignore_index`, `reduction` or `out` do not fit.

    Notes
    -----
    Gradients by `input`, `linear_weight`, `linear_bias`, `weight` and probabilities in `target`. Beside the gradients themselves less than 64 MB
    are used for vectors of up to 1024 numbers. BLAS decides in which order products are added, so results may depend on its threads.

    References
    ----------
    torch.nn.functional.linear_cross_entropy; E. Wijmans et al., "Cut your losses in large-vocabulary language models", ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> lf.linear_cross_entropy(hidden, weight, [0, 1])
    np.float64(0.39549474007696783)
    >>> lf.cross_entropy(hidden @ weight.T, [0, 1])
    np.float64(0.39549474007696783)
    """
    request = _core.take_python_request()
    reduction, smoothing = _core.checked_reduction(reduction), _core.checked_smoothing(label_smoothing)
    hidden, wide = _core.checked_array(input, "input")
    matrix, wide_matrix = _core.checked_array(linear_weight, "linear_weight")
    if hidden.ndim == 0 or matrix.ndim != 2 or matrix.shape[1] != hidden.shape[-1]:
        raise ValueError(f"linear_weight: expected shape (C, H) for input of shape (..., H), got {matrix.shape} for {hidden.shape}")
    classes, shape = len(matrix), hidden.shape[:-1]
    bias = wide_bias = None
    if linear_bias is not None:
        bias, wide_bias = _core.checked_array(linear_bias, "linear_bias")
        if bias.shape != (classes,):
            raise ValueError(f"linear_bias: expected shape ({classes},), got {bias.shape}")
    weights = None if weight is None else _core.checked_class_weights(weight, classes)
    labels, probabilities, wide_target = _core.checked_target(target, shape, classes, ignore_index, where)
    dtype = np.dtype(np.float64 if wide or wide_matrix or wide_bias or wide_target else np.float32)
    given = None if weight is None else np.asarray(weight)
    arrays = {"input": hidden, "linear_weight": matrix, "linear_bias": bias, "weight": given, "target": probabilities}
    if out is not None and reduction != "none":
        raise ValueError("out: only with reduction='none'")
    if reduction == "none":
        apart = [a for a in (*arrays.values(), target, where) if isinstance(a, np.ndarray)]
        out = _core.checked_out(out, "out", shape, dtype, tuple(apart))
    upstream, grads = None, {}
    if request is not None:
        names, upstream, grad_out, single = request
        upstream = np.ones(1) if upstream is None else _core.checked_upstream(upstream, shape if reduction == "none" else None)
        grads = _gradients(names, grad_out, single, arrays, (out, target, where, request[1]))

    work = _Tiles(hidden, matrix, bias, weights, labels, probabilities, smoothing, dtype)
    losses = work.losses()
    count = work.counted.sum()
    if reduction == "none":
        every = np.zeros(labels.size)
        every[work.rows] = losses
        out[...] = every.reshape(shape)
        value = out if out.ndim else out[()]
    else:
        total = losses.sum()
        value = dtype.type(total if reduction == "sum" else total / count if count else np.nan)
    if request is None:
        return value

    k = (np.broadcast_to(upstream, labels.shape) if len(upstream) == 1 else upstream)[work.rows]
    if reduction == "mean":
        k = k / count if count else 0 * k
    work.gradients(k, grads, losses.sum() / count if reduction == "mean" and count else 0.0)
    return value, grads[names[0]] if single else tuple(grads[name] for name in names)


def _gradients(names, grad_out, single, arrays, others):
    """Arrays for the gradients asked for, apart from each other and from all that is read."""
    grads = {}
    for i, name in enumerate(names):
        if arrays.get(name) is None:
            if name == "target":
                raise TypeError("argnums: target holds class indices here, which have no gradient")
            raise ValueError(f"argnums: {name} is not an array argument of this call")
        given, label = (None, "") if grad_out is None else (grad_out[i], "grad_out" if single else f"grad_out[{i}]")
        apart = [a for a in (*arrays.values(), *others, *grads.values()) if isinstance(a, np.ndarray)]
        grads[name] = _core.checked_gradient(given, label, arrays[name], name, tuple(apart))
    return grads


def _for_blas(a, dtype):
    """Whether BLAS takes a matrix as it lies: rows in C order. Transposed ones would be added up in another order."""
    size = dtype.itemsize
    down, across = a.strides
    return a.dtype == dtype and a.flags.aligned and across == size and down % size == 0 and down >= a.shape[1] * size


class _Tiles:
    """The rows that count, their labels or probabilities, and what is known of each row's softmax: `state` is m, s, the label's logit, the weighted sum
    of logits and the sum of weighted probabilities."""

    def __init__(self, hidden, matrix, bias, weights, labels, probabilities, smoothing, dtype):
        self.hidden, self.matrix, self.dtype = hidden.reshape(len(labels), hidden.shape[-1]), matrix, dtype
        self.weights, self.smoothing = weights, smoothing
        self.bias = None if bias is None else bias.astype(dtype)
        self.classes, self.width = matrix.shape
        self.rows = np.flatnonzero(labels >= 0)
        self.labels = labels[self.rows]
        self.probabilities = None if probabilities is None else probabilities.reshape(len(labels), self.classes)
        self.counted = np.ones(len(self.rows)) if weights is None or probabilities is not None else weights[self.labels]
        self.every = len(self.rows) == len(labels)
        self.down = max(min(_ROWS, len(self.rows)), 1)
        self.across = max(min(_COLUMNS, self.classes, _TILE_NUMBERS // max(self.width, 1)), 1)
        self.logits = np.empty(self.down * self.across, dtype)
        self.targets = None if probabilities is None else np.empty_like(self.logits)
        self.spare = [None, None]

    def tile_of(self, which, a, index, ready):
        """Rows of a matrix for BLAS: a view, or a copy in a buffer that is used again."""
        if ready:
            return a[index]
        part = a[index]
        if self.spare[which] is None:
            self.spare[which] = np.empty(((self.down, self.across)[which], self.width), self.dtype)
        buffer = self.spare[which][: len(part)]
        buffer[...] = part
        return buffer

    def target_of(self, r, c):
        """A tile of the probabilities, in a buffer that is used again; None where there are labels."""
        if self.probabilities is None:
            return None
        part = self.probabilities[r if self.every else self.rows[r], c]
        buffer = self.targets[: part.size].reshape(part.shape)
        buffer[...] = part
        return buffer

    def products(self):
        """For each tile of classes and of rows: (classes, rows, W, h, logits without bias); the outer ones change the classes."""
        matrix_ready, hidden_ready = _for_blas(self.matrix, self.dtype), self.every and _for_blas(self.hidden, self.dtype)
        for first in range(0, self.classes, self.across):
            c = slice(first, min(first + self.across, self.classes))
            w = self.tile_of(1, self.matrix, c, matrix_ready)
            for start in range(0, len(self.rows), self.down):
                r = slice(start, min(start + self.down, len(self.rows)))
                h = self.tile_of(0, self.hidden, r if self.every else self.rows[r], hidden_ready)
                x = self.logits[: len(h) * len(w)].reshape(len(h), len(w))
                np.matmul(h, w.T, out=x)
                yield c, r, w, h, x

    def tiles(self, factors=None):
        """The same with the logits seen by `state`, or with factors turned into their gradient."""
        for c, r, w, h, x in self.products():
            bias, weights = (None if a is None else a[c] for a in (self.bias, self.weights))
            state, factor = self.state[:, r], None if factors is None else factors[:, r]
            _core.tile(x, bias, weights, self.labels[r], c.start, self.smoothing, state, factor, self.target_of(r, c), self.classes)
            yield c, r, w, h, x

    def losses(self):
        self.state = np.zeros((5, len(self.rows)))
        self.state[0], self.state[1] = -np.inf, -1
        for _ in self.tiles():
            pass
        m, s, label, dot, mass = self.state
        with np.errstate(invalid="ignore", divide="ignore"):
            s[(m == -np.inf) | ((m == np.inf) & (s > 0))] = np.nan
            if self.probabilities is not None:
                return np.where(mass == 0, 0, mass * (m + np.log1p(s))) - dot
            self.nll = np.where(label == m, 0, m - label) + np.log1p(s)
            loss = np.where(self.own() == 0, 0, self.own() * self.nll)
            if self.smoothing:
                loss += self.smoothing / self.classes * (self.total() * (m + np.log1p(s)) - dot)
        return loss

    def own(self):
        return (1 - self.smoothing) * self.counted

    def total(self):
        return self.classes if self.weights is None else self.weights.sum()

    def gradients(self, k, grads, mean):
        """Writes the gradients asked for; `mean` is the value, where the mean's denominator depends on the class weights too."""
        for g in grads.values():
            g[...] = 0
        if not len(self.rows):
            return
        even = self.smoothing / self.classes
        if self.probabilities is not None and grads.keys() & {"weight", "target"}:
            self.probability_gradients(k, even, grads.get("weight"), grads.get("target"))
        elif "weight" in grads:
            grads["weight"][...] = self.weight_gradient(k, even) - k[0] * mean * np.bincount(self.labels, minlength=self.classes)
        if grads.keys() <= {"weight", "target"}:
            return
        gx, gw, gb = (grads.get(name) for name in ("input", "linear_weight", "linear_bias"))
        if gx is not None:
            flat = gx.reshape(self.hidden.shape) if gx.flags.c_contiguous and gx.dtype == self.dtype else np.zeros(self.hidden.shape, self.dtype)
        if self.probabilities is None:
            factors = np.stack([k * (self.own() + even * self.total()), k * self.own(), k * even])
        else:
            factors = np.stack([k * self.state[4], 0 * k, k])
        product, summed, column = np.empty((max(self.down, self.across), self.width), self.dtype), None, None
        for c, r, w, h, g in self.tiles(factors):
            if gx is not None:
                flat[r if self.every else self.rows[r]] += np.matmul(g, w, out=product[: len(h)])
            if gw is not None:
                if r.start == 0:
                    summed = np.zeros((len(w), self.width), self.dtype) if summed is None or len(summed) != len(w) else summed
                    np.matmul(g.T, h, out=summed)
                else:
                    summed += np.matmul(g.T, h, out=product[: len(w)])
                if r.stop == len(self.rows):
                    gw[c] = summed
            if gb is not None:
                column = g.sum(0, dtype=np.float64) + (0 if r.start == 0 else column)
                gb[c] = column
        if gx is not None and not np.shares_memory(flat, gx):
            gx[...] = flat.reshape(gx.shape)

    def probability_gradients(self, k, even, gw, gt):
        """By class weights, the sum over rows of k t' (-log p), and by probabilities, k w (1 - smoothing) (-log p)."""
        total, flat = np.zeros(self.classes), None if gt is None else gt.reshape(self.probabilities.shape)
        (m, s), mix = self.state[:2], 1 - self.smoothing
        for c, r, _, _, x in self.products():
            t, bias, weight = self.target_of(r, c), 0 if self.bias is None else self.bias[c], 1 if self.weights is None else self.weights[c]
            for i in range(0, len(x), _PART):  # in parts, being float64
                part = slice(r.start + i, min(r.start + i + _PART, r.stop))
                nll = (m[part, None] - (x[i : i + _PART] + bias)) + np.log1p(s[part, None])
                if gw is not None:
                    mixed = mix * t[i : i + _PART] + even
                    total[c] += k[part] @ np.where(mixed == 0, 0, mixed * nll)
                if gt is not None:
                    flat[part if self.every else self.rows[part], c] = mix * k[part, None] * weight * nll
        if gw is not None:
            gw[...] = total
        if gt is not None and not np.shares_memory(flat, gt):
            gt[...] = flat.reshape(gt.shape)

    def weight_gradient(self, k, even):
        """sum over rows of k t' (-log p), for each class."""
        gradient = np.bincount(self.labels, (1 - self.smoothing) * k * self.nll, self.classes)
        if even:
            m, s = self.state[:2]
            mixed = np.zeros(self.width, np.float64)
            for start in range(0, len(self.rows), self.down):
                r = slice(start, start + self.down)
                mixed += k[r] @ self.tile_of(0, self.hidden, r if self.every else self.rows[r], False)
            for first in range(0, self.classes, self.across):
                c = slice(first, first + self.across)
                gradient[c] -= even * (self.tile_of(1, self.matrix, c, False) @ mixed)
            gradient += even * ((k * (m + np.log1p(s))).sum() - (0 if self.bias is None else self.bias * k.sum()))
        return gradient
