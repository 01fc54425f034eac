"""Cross entropy of a linear layer's outputs that are never stored as a whole."""

import math

import numpy as np

from lossfast import _core

__all__ = ["linear_cross_entropy"]

# Where _LEAST hidden vectors, or all, have logits of up to _LOGITS bytes, rows of logits are whole; longer ones come in tiles of _ROWS x _COLUMNS.
# BLAS is given up to _WIDE bytes of the weights at a time; of converted ones _TILE bytes, which the second-level cache still holds. With all else,
# less than 64 MB.
_LOGITS, _LEAST, _ROWS, _COLUMNS, _WIDE, _TILE = 50 << 20, 256, 1024, 2048, 8 << 20, 2 << 20
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def linear_cross_entropy(
    input, linear_weight, target, *, linear_bias=None, weight=None, reduction="mean", ignore_index=None, label_smoothing=0.0, where=None, out=None
):
    r"""Cross entropy between the logits of a linear layer and class indices or probabilities, without ever holding all logits.

    .. math:: \ell_n = \mathrm{cross\_entropy}(W h_n + b,\; y_n)

    Logits are made by NumPy's BLAS for some rows at a time, and become their own gradient. Where a few hundred rows of them would not fit into 32 MB
    they are made a tile at a time, merged into each row's logsumexp and, for gradients, made again. Those of bfloat16 are made here on CPUs that
    multiply it as it is (AVX512-BF16), to which subnormal numbers are 0; for bfloat16 gradients the logits' gradient, too, is rounded to it.

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
    Gradients by `input`, `linear_weight`, `linear_bias`, `weight` and probabilities in `target`. Where bfloat16 is multiplied as it is, those in
    bfloat16 err by up to 2^-7 of the sum of their terms' magnitudes, of which half is their own rounding (torch rounds logits as well). Beside
    the gradients themselves, that by `input` also in float32 where it is of half precision, less than 64 MB are used for vectors of up to 1024
    numbers. BLAS decides in which order products are added, so results may depend on its threads.

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
    rows, labels, mass, probabilities, wide_target = _core.checked_target(target, shape, classes, ignore_index, where, weights)
    dtype = _FLOAT64 if wide or wide_matrix or wide_bias or wide_target else _FLOAT32
    if out is not None and reduction != "none":
        raise ValueError("out: only with reduction='none'")
    scale, grads = 1.0, {}
    if request is not None or reduction == "none":
        arrays = {"input": hidden, "linear_weight": matrix, "linear_bias": bias, "weight": None if weight is None else np.asarray(weight)}
        arrays["target"] = probabilities
        if reduction == "none":
            out = _core.checked_out(out, "out", shape, dtype, _arrays(*arrays.values(), target, where))
    if request is not None:
        names, scale, grad_out, single = request
        scale = 1.0 if scale is None else _core.checked_upstream(scale, shape if reduction == "none" else None)
        grads = _gradients(names, grad_out, single, arrays, (out, target, where, request[1]))
    if reduction == "mean":
        scale = scale / mass if mass else 0.0

    layer = _Layer(hidden, matrix, bias, weights, rows, labels, probabilities, smoothing, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        total = layer.run(out, scale, grads)
    if reduction == "mean":
        total = total / mass if mass else np.nan
    value = dtype.type(total) if reduction != "none" else out if out.ndim else out[()]
    if request is None:
        return value
    if "weight" in grads:
        by_sum, by_mass = layer.weight_sums
        with np.errstate(over="ignore", invalid="ignore"):
            by_mass *= scale * total if reduction == "mean" and probabilities is None and mass else 0  # the denominator depends on them too
            grads["weight"][...] = by_sum - by_mass
    return value, grads[names[0]] if single else tuple(grads[name] for name in names)


def _arrays(*given):
    return tuple(a for a in given if isinstance(a, np.ndarray))


def _gradients(names, grad_out, single, arrays, others):
    """Arrays for the gradients asked for, apart from each other and from all that is read."""
    grads = {}
    for i, name in enumerate(names):
        if arrays.get(name) is None:
            if name == "target":
                raise TypeError("argnums: target holds class indices here, which have no gradient")
            raise ValueError(f"argnums: {name} is not an array argument of this call")
        given, label = (None, "") if grad_out is None else (grad_out[i], "grad_out" if single else f"grad_out[{i}]")
        apart = _arrays(*arrays.values(), *others, *grads.values())
        grads[name] = _core.checked_gradient(given, label, arrays[name], name, apart)
    return grads


def _logits(h, w, x=None):
    """h @ w.T, in `x` if that is given. Of few long rows BLAS makes the transpose faster: 1.1 times of 128 rows of 1024, 2 to 3 times of 2 to 16."""
    rows, width = h.shape
    if rows > 1 and max(rows * rows // 16, 64) <= width:
        x = np.empty((rows, len(w)), h.dtype) if x is None else x
        _core.put(x, w.dot(h.T).T)
        return x
    return h.dot(w.T) if x is None else np.matmul(h, w.T, out=x)


def _add_product(target, a, b, first):
    """target = a @ b, or += where it is not the first."""
    if len(b) == 1:  # where BLAS takes up to four times as long
        np.multiply(a, b, out=target) if first else np.add(target, a * b, out=target)
    elif not first:
        target += a @ b
    elif target.flags.c_contiguous:
        np.matmul(a, b, out=target)
    else:
        target[...] = a @ b


def _room(whole, shape, dtype, rows):
    """Where the rows that count of an array are computed: the array itself, if that serves."""
    return whole.reshape(shape) if rows is None and whole.dtype == dtype and whole.flags.c_contiguous else np.empty(shape, dtype)


def _spread(whole, rows, room):
    """From there to the array; the other rows become 0."""
    if rows is not None:
        whole[...] = 0
        if len(rows):
            whole[np.unravel_index(rows, whole.shape[: whole.ndim - room.ndim + 1])] = room
    elif room.ndim == 2 and whole.flags.c_contiguous and not np.may_share_memory(whole, room):
        _core.put(whole.reshape(room.shape), room)
    elif not np.may_share_memory(whole, room):
        whole[...] = room.reshape(whole.shape)


class _Layer:
    """The weights, and the hidden vectors that count: those of `rows`, or all for None, with their labels or probabilities."""

    def __init__(self, hidden, matrix, bias, weights, rows, labels, probabilities, smoothing, dtype):
        self.rows, self.labels, self.smoothing, self.dtype = rows, labels, smoothing, dtype
        self.classes, self.width = matrix.shape
        self.hidden = hidden if hidden.ndim == 2 else hidden.reshape(-1 if self.width else math.prod(hidden.shape[:-1]), self.width)
        self.probabilities = None if probabilities is None else probabilities.reshape(len(self.hidden), self.classes)
        self.short = dtype == _FLOAT32 and _core.multiplies(self.hidden, matrix)  # logits are products of halves as they are
        self.cut(matrix.dtype == dtype)
        self.matrix = matrix if self.short or self.across < self.classes else _core.ready(matrix, dtype)
        self.bias = None if bias is None else bias.astype(dtype)
        self.weights = weights

    def cut(self, at_hand):
        """How many rows and classes at a time, and whether rows of logits are whole; `at_hand`: reading the weights again costs nothing."""
        count, row, vector = len(self.labels), self.dtype.itemsize * (self.classes or 1), self.dtype.itemsize * (self.width or 1)
        self.down = max(_LEAST, _LOGITS // 8 // max(row, vector))
        if self.short and self.classes * vector > _WIDE and count * row <= _LOGITS:
            self.down = max(self.down, count)  # else logits are made twice
        once = at_hand or count <= self.down
        self.whole = (once or self.classes * vector <= _WIDE) and row * min(self.down, count) <= _LOGITS
        tile = self.classes if self.whole and not once else (_WIDE if at_hand or not self.whole else _TILE) // vector
        self.across = max(min(tile, self.classes if self.whole else _COLUMNS), 1)

    def run(self, out, scale, grads):
        """Writes the losses to `out`, unless that is None, and `scale` times the gradients of their sum, which it returns."""
        n, rows = len(self.labels), self.rows
        self.scale = scale if rows is None or not isinstance(scale, np.ndarray) else scale[rows]
        losses = None if out is None else _room(out, (n,), self.dtype, rows)
        gx, self.gw, gb, gt = grads.get("input"), grads.get("linear_weight"), grads.get("linear_bias"), grads.get("target")
        self.gx = None if gx is None else _room(gx, (n, self.width), self.dtype, rows)
        self.sums = self.gw if self.gw is None or self.gw.dtype == self.dtype else np.empty((self.across, self.width), self.dtype)
        self.gb = None if gb is None else np.zeros(self.classes)
        if gt is not None and rows is not None:
            gt[...] = 0
        self.gt = None if gt is None else gt.reshape(self.probabilities.shape)
        self.weight_sums = np.zeros((2, self.classes)) if "weight" in grads else None
        if self.gw is not None and not n:
            self.gw[...] = 0
        if self.gx is not None and not self.classes:
            self.gx[...] = 0
        products = bool(grads.keys() - {"weight", "target"})

        if self.whole:
            total = self.by_rows(self.down, losses, products)
        else:
            total = self.by_tiles(losses, products)
            if grads.keys() & {"weight", "target"}:
                self.by_rows(_LOGITS // 2 // (self.classes * self.dtype.itemsize) or 1, None, False)

        for whole, room in ((out, losses), (gx, self.gx)):
            if room is not None:
                _spread(whole, rows, room)
        if gt is not None:
            _spread(gt, None, self.gt)
        if gb is not None:
            gb[...] = self.gb
        return total

    def parts(self, down):
        """So many of the rows that count at a time: (which of them, which of all, their hidden vectors as they are)."""
        for first in range(0, len(self.labels), down):
            r = slice(first, min(first + down, len(self.labels)))
            rows = r if self.rows is None else self.rows[r]
            yield r, rows, self.hidden[rows]

    def tiles(self):
        """Of the classes: (which, their weights, as they are for `short`, else ready)."""
        for first in range(0, self.classes, self.across):
            c = slice(first, min(first + self.across, self.classes))
            yield c, self.matrix[c] if self.short else _core.ready(self.matrix[c], self.dtype)

    def multiply(self, x, h, w):
        """Logits of hidden vectors and weights: as they are for `short`, else ready."""
        if self.short:
            _core.multiply(x, h, w)
        else:
            _logits(h, w, x)

    def rows_of_logits(self, h, room):
        """All logits of some hidden vectors, as `multiply` takes them, in `room` where there is one."""
        if room is None and not self.short:
            x = _logits(h, self.matrix)
        else:
            x = np.empty((len(h), self.classes), self.dtype) if room is None else room[: len(h)]
            for c, w in self.tiles():
                self.multiply(x[:, c], h, w)
        if self.bias is not None:
            x += self.bias
        return x

    def by_rows(self, down, losses, products):
        """Whole rows of logits, which become their gradient if there are products of it; returns the sum of the losses."""
        total, count, room = 0.0, len(self.labels), None
        if count > down or self.across < self.classes:
            room = np.empty((min(down, count), self.classes), self.dtype)
        weights = None if self.weights is None else _core.ready(self.weights, self.dtype)
        for r, rows, given in self.parts(down):
            h = given if self.short else _core.ready(given, self.dtype)
            x = self.rows_of_logits(h, room)
            gt = None if self.gt is None else self.gt[rows]
            target = self.labels[r] if self.probabilities is None else self.probabilities[rows]
            scale = self.scale[r] if isinstance(self.scale, np.ndarray) else self.scale
            loss = None if losses is None else losses[r]
            total += _core.class_rows(x, target, weights, self.smoothing, scale, loss, products, self.weight_sums, gt)
            if gt is not None and self.rows is not None:
                self.gt[rows] = gt
            for c, w in self.tiles() if products else ():
                self.add(c, r, w, h, x[:, c])
        return total

    def by_tiles(self, losses, products):
        """Tiles of logits, merged into `state`: of each row the maximum m, s, the label's logit, the weighted sum of logits and of probabilities."""
        total, even, count = self.classes if self.weights is None else self.weights.sum(), self.smoothing / self.classes, len(self.labels)
        state = np.zeros((5, count))
        state[0], state[1] = -np.inf, -1
        for _ in self.products(state, None):
            pass
        m, s, label, dot, mass = state
        own = np.full(count, 1 - self.smoothing)
        if self.weights is not None and self.probabilities is None:
            own *= self.weights[self.labels]
        with np.errstate(invalid="ignore", divide="ignore"):
            s[(m == -np.inf) | ((m == np.inf) & (s > 0))] = np.nan
            if self.probabilities is None:
                loss = np.where(own == 0, 0, own * (np.where(label == m, 0, m - label) + np.log1p(s)))
                loss += even * (total * (m + np.log1p(s)) - dot) if even else 0
                factors = np.stack([own + even * total, own, np.full(count, even)])
            else:
                loss = np.where(mass == 0, 0, mass * (m + np.log1p(s))) - dot
                factors = np.stack([mass, 0 * own, np.ones(count)])
        if losses is not None:
            losses[...] = loss
        if products:
            for c, r, w, h, g in self.products(state, factors * self.scale):
                self.add(c, r, w, h, g)
        return loss.sum()

    def products(self, state, factors):
        """For each tile of classes and of rows: (classes, rows, their weights and hidden vectors, logits seen by `state`, or their gradient)."""
        logits = np.empty(min(_ROWS, len(self.labels)) * self.across, self.dtype)
        for c, w in self.tiles():
            bias, weights = (None if a is None else a[c] for a in (self.bias, self.weights))
            for r, rows, given in self.parts(_ROWS):
                h = given if self.short else _core.ready(given, self.dtype)
                x = logits[: len(h) * len(w)].reshape(len(h), len(w))
                self.multiply(x, h, w)
                target = None if self.probabilities is None else _core.ready(self.probabilities[rows, c], self.dtype)
                factor = None if factors is None else factors[:, r]
                _core.tile(x, bias, weights, self.labels[r], c.start, self.smoothing, state[:, r], factor, target, self.classes)
                yield c, r, w, h, x

    def add(self, c, r, w, h, g):
        """Adds the share of logits' gradient to the gradients by hidden vectors, weights and bias: w and h as they are for `short`, else ready."""
        add_product = _core.add_product if self.short else _add_product
        if self.gx is not None:
            add_product(self.gx[r], g, w, c.start == 0)
        if self.gw is not None:
            sums = self.gw[c] if self.sums is self.gw else self.sums[: len(w)]
            add_product(sums, g.T, h, r.start == 0)
            if self.sums is not self.gw and r.stop == len(self.labels):
                _core.put(self.gw[c], sums)
        if self.gb is not None:
            self.gb[c] += g.sum(0, dtype=np.float64)
