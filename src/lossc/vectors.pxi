# Losses between whole vectors: one or more axes make the vector, every other axis is a position.

VECTOR_LOSSES = {
    "multi_margin": LF_MULTI_MARGIN, "multilabel_margin": LF_MULTILABEL_MARGIN,
    "cosine_embedding": LF_COSINE, "triplet": LF_TRIPLET, "dice": LF_DICE, "wasserstein": LF_WASSERSTEIN,
}


cdef void vector_share(const void *at, Py_ssize_t i, int thread) noexcept nogil:
    """Blocks that share sums by class."""
    cdef Py_ssize_t b
    for b in range(i * (<const LfVectorJob *>at).share, vector_extent(at, i + 1)):
        K.vector_block(<const LfVectorJob *>at, b)


cdef Py_ssize_t vector_extent(const void *at, Py_ssize_t tasks) noexcept nogil:
    cdef const LfVectorJob *job = <const LfVectorJob *>at
    return min((job.n + job.rows - 1) // job.rows, tasks * job.share)


cdef int run_vectors(LfVectorJob *job, Totals *totals) except -1:
    """Run all blocks; sums in block order, the lowest bad label."""
    cdef Py_ssize_t blocks = (job.n + job.rows - 1) // job.rows
    return add_blocks(vector_share, job, (blocks + job.share - 1) // job.share, 1, vector_extent, threads_for(blocks, 2), &job.sum, &job.mass,
                      &job.bad, totals)


cdef inline void vector_array(LfArray *v, cnp.ndarray a, bint *over, Py_ssize_t *inner):
    """Strides of positions and of the vector."""
    cdef int d, e = 0, k = 0
    v.data, v.dtype = <char *>cnp.PyArray_DATA(a), dtype_code(a)
    for d in range(cnp.PyArray_NDIM(a)):
        if over[d]:
            inner[k] = cnp.PyArray_STRIDE(a, d)
            k += 1
        else:
            v.stride[e] = cnp.PyArray_STRIDE(a, d)
            e += 1


cdef void merge_positions(LfVectorJob *job) noexcept:
    cdef LfArray *arrays[2 * LF_VECTORS + 4]
    cdef int n = 0, q
    for q in range(2 * LF_VECTORS + 4):
        arrays[n] = (&job.in_[q] if q < LF_VECTORS else &job.grad[q - LF_VECTORS] if q < 2 * LF_VECTORS else &job.label if q == 2 * LF_VECTORS
                     else &job.out if q == 2 * LF_VECTORS + 1 else &job.where if q == 2 * LF_VECTORS + 2 else &job.upstream)
        if arrays[n].data != NULL:
            n += 1
    job.ndim = merge_dims(job.shape, job.ndim, arrays, n)


cdef tuple split_axes(LfVectorJob *job, cnp.ndarray ax, bint *over):
    """The axes of vectors and, as they lie, those of positions, whose shape is returned."""
    cdef int d, e = 0, k = 0
    job.n = job.c = 1
    for d in range(cnp.PyArray_NDIM(ax)):
        if over[d]:
            job.cshape[k] = cnp.PyArray_DIM(ax, d)
            job.c *= job.cshape[k]
            k += 1
        else:
            job.shape[e] = cnp.PyArray_DIM(ax, d)
            job.n *= job.shape[e]
            e += 1
    job.cdim, job.ndim = k, e
    return tuple([job.shape[d] for d in range(e)])


cdef int fold_vectors(const LfVectorJob *base, int q, cnp.ndarray g, tuple whole, bint *over) except -1:
    """Gradient by vectors of fewer positions than the loss has: those of some positions at a time, added up."""
    cdef LfVectorJob job
    cdef Totals totals
    cdef cnp.ndarray part
    cdef LfArray *arrays[LF_VECTORS + 3]
    cdef int d, e, i
    cdef Py_ssize_t size = math.prod(whole), n
    cdef tuple summed = tuple([d for d in range(len(whole)) if cnp.PyArray_DIM(g, d) != <Py_ssize_t>whole[d]])
    steps = list(whole)
    for d in summed:    # fewer and fewer until they fit
        n = max(1, min(whole[d], FOLD_ROOM * whole[d] // size)) if size else 1
        size, steps[d] = size // max(1, whole[d]) * n, n
    sums, room = np.zeros(shape_of(g)), np.empty(steps)
    for corner in itertools.product(*[range(0, n, step or 1) for n, step in zip(whole, steps)]):
        part = room[tuple([slice(min(step, n - first)) for n, step, first in zip(whole, steps, corner)])]
        job = base[0]
        job.out.data = NULL
        for i in range(LF_VECTORS):
            job.grad[i].data = NULL
        vector_array(&job.grad[q], part, over, &job.gradc[q][0])
        for i in range(LF_VECTORS + 3):
            arrays[i] = &job.in_[i] if i < LF_VECTORS else &job.label if i == LF_VECTORS else &job.where if i == LF_VECTORS + 1 else &job.upstream
        e, job.n = 0, 1
        for d in range(len(whole)):
            if not over[d]:
                job.shape[e] = cnp.PyArray_DIM(part, d)
                job.n *= job.shape[e]
                for i in range(LF_VECTORS + 3):
                    if arrays[i].data != NULL:
                        arrays[i].data += <Py_ssize_t>corner[d] * arrays[i].stride[e]
                e += 1
        merge_positions(&job)
        run_vectors(&job, &totals)
        sums += part.sum(axis=summed, keepdims=True)
    g[...] = sums
    return 0


@cython.final
cdef class VectorLoss:
    """One loss between vectors: its kernel and how it reads its arguments.

    Parameters
    ----------
    kernel : name in VECTOR_LOSSES
    args : names of the vectors, of one length; their positions broadcast
    label : 'class', 'classes' (a list up to a -1), 'sign', or None
    limits : (name, least, largest, what was expected) of each number
    """
    cdef int op, inputs, params
    cdef readonly tuple args
    cdef str label
    cdef tuple limits

    def __init__(self, kernel, args, *, label=None, limits=()):
        self.op, self.args, self.inputs, self.label = VECTOR_LOSSES[kernel], args, len(args), label
        self.limits, self.params = limits, len(limits)

    def loss(self, tuple vectors, object target, object weight, object reduction, object axis, object where, object out, tuple numbers=()):
        cdef Request request = take_request()
        cdef int mode = reduction_code(reduction), q, d, ndim
        cdef list given = [], arrays, grads = [], folds = []
        cdef cnp.ndarray ax = as_array(vectors[0], self.args[0]), at = None, am = None, au = None, ao = None, aw = None
        cdef bint wide = False
        cdef bint over[64]
        cdef LfVectorJob job, base
        cdef Totals totals
        cdef double denominator, scale = 1
        cdef tuple shape, whole, sums = None
        ndim = cnp.PyArray_NDIM(ax)
        if ndim == 0:
            raise ValueError(f"{self.args[0]}: expected at least one dimension, got a 0-dimensional array")
        for q in range(self.inputs):
            given.append(as_array(vectors[q], self.args[q]) if q else ax)
            wide = wide or widens(vectors[q], given[q], q == 0)
        mark_axes((1 if ndim > 1 else 0) if axis is None else axis, ndim, over)
        if self.label is not None:
            at = as_array(target, "target")
            wide = wide or (self.label == "sign" and widens(target, at, False))
        whole = self.common_shape(given, at if self.label == "sign" else None, over)
        checked_size(whole, self.args[0])
        arrays = [a if has_shape(a, whole) else np.broadcast_to(a, whole) for a in given]
        shape = split_axes(&job, arrays[0], over)
        job.op, job.scale = self.op, 1
        job.rows = ROW_BLOCK // job.c if job.c and job.c < ROW_BLOCK else 1
        job.label.data = job.out.data = job.where.data = job.upstream.data = NULL
        for q in range(LF_VECTORS):
            job.in_[q].data = job.grad[q].data = NULL
            if q < self.inputs:
                vector_array(&job.in_[q], arrays[q], over, &job.inc[q][0])
        job.weight, job.gw, job.share = NULL, NULL, 1
        job.ignores = job.labels_only = False
        for d in range(self.params):
            job.param[d] = self.parameter(d, numbers[d])

        if self.label is not None:
            self.bind_label(&job, at, whole if self.label == "classes" else shape, over)
        job.wide = wide
        if weight is not None:
            aw = class_weights(weight, job.c, True)
            job.weight = <double *>cnp.PyArray_DATA(aw)
        if where is not None:
            am = as_array(where, "where")
            mask_array(&job.where, am, shape)
        if request is not None:
            request.refuse_hessian()
            if request.upstream is not None and mode == 0:
                au = bind_upstream(request, &job.upstream, shape)
            elif request.upstream is not None:
                scale = upstream_scalar(request)
        if mode == 0:
            dtype = result_dtype(wide)
            ao = np.empty(shape, dtype) if out is None else check_out(out, "out", shape, dtype, (*arrays, at, aw, am, au))
            fill_array(&job.out, ao, dtype_code(ao), job.ndim)
        elif out is not None:
            raise ValueError("out: only with reduction='none'")

        # Labels are checked before anything is written to an array of the user's, and a mean's gradient needs the denominator first.
        if request is not None or out is not None:
            job.labels_only = True
            run_vectors(&job, &totals)
            job.labels_only = False
            if totals.bad >= 0:
                self.raise_label(totals.bad, at, shape, job.c)
            if mode == 1:
                scale = scale / totals.mass if totals.mass != 0 else 0
        job.scale = scale
        if request is not None:
            grads, sums, folds = self.bind_gradients(&job, request, over, given, whole, at, aw, weight, (*given, at, aw, am, au, ao))
        if folds:
            base = job
        merge_positions(&job)
        run_vectors(&job, &totals)
        if totals.bad >= 0:
            self.raise_label(totals.bad, at, shape, job.c)
        for q, g in folds:
            with np.errstate(over="ignore", invalid="ignore"):
                fold_vectors(&base, q, g, whole, over)
        denominator = totals.mass
        if mode == 0:
            result = ao if out is not None or cnp.PyArray_NDIM(ao) else ao[()]
        else:
            result = scalar(totals.sum if mode == 2 else totals.sum / denominator if denominator != 0 else float("nan"), wide)
        if request is None:
            return result
        if sums is not None:
            finish_weight_gradient([None, sums], False, 0, scale)
        return request.outcome(result, tuple(grads))

    cdef tuple common_shape(self, list arrays, cnp.ndarray signs, bint *over):
        """The shape to which positions broadcast, along axes of the same number, and those of `signs` to the right."""
        cdef tuple first = shape_of(arrays[0]), other
        cdef list shape = list(first)
        cdef int q, d, e, ndim = len(first)
        cdef bint fits
        for q in range(1, self.inputs):
            other = shape_of(arrays[q])
            fits = len(other) == ndim
            for d in range(ndim if fits else 0):
                if shape[d] == 1 and not over[d]:
                    shape[d] = other[d]
                fits = fits and (other[d] == shape[d] or (other[d] == 1 and not over[d]))
            if not fits:
                raise ValueError(f"{self.args[q]}: expected the shape of {self.args[0]}, {first}, or other positions that broadcast, got {other}")
        e = 0 if signs is None else cnp.PyArray_NDIM(signs)
        for d in range(ndim - 1, -1, -1):
            if e and not over[d]:
                e -= 1
                shape[d] = cnp.PyArray_DIM(signs, e) if shape[d] == 1 else shape[d]
        return tuple(shape)

    cdef tuple bind_gradients(self, LfVectorJob *job, Request request, bint *over, list arrays, tuple whole, cnp.ndarray at, cnp.ndarray aw,
                              object weight, tuple reads):
        """([gradient arrays], (weight gradient, sums by block and class), [(vector, gradient) of broadcast ones, left for passes of their own])"""
        cdef list grads = [], folds = []
        cdef cnp.ndarray g
        cdef int i, q
        sums = None
        for i, name in enumerate(request.names):
            if name in self.args:
                q = self.args.index(name)
                g = gradient_array(request, i, arrays[q], name, reads)
                if has_shape(g, whole):
                    vector_array(&job.grad[q], g, over, &job.gradc[q][0])
                else:
                    folds.append((q, g))
            elif name == "weight" and aw is not None:
                g = gradient_array(request, i, as_array(weight, "weight"), name, reads)
                sums = (g, sums_by_class(job.n, job.rows, job.c, &job.share, &job.gw, &job.gw_mass))
            elif name == "target" and at is not None:
                raise TypeError(f"argnums: target holds labels here (dtype {at.dtype}), which have no gradient")
            else:
                raise ValueError(f"argnums: {name} is not an array argument of this call; there is {', '.join(self.args)}")
            grads.append(g)
        return grads, sums, folds

    cdef double parameter(self, int i, object given) except? -1e300:
        cdef tuple limit = self.limits[i]
        cdef double value = number(given, limit[0])
        if not <double>limit[1] <= value <= <double>limit[2]:
            raise ValueError(f"{limit[0]}: expected {limit[3]}, got {given!r}")
        return value

    cdef int bind_label(self, LfVectorJob *job, cnp.ndarray at, tuple shape, bint *over) except -1:
        cdef int code = dtype_code(at)
        if self.label != "sign" and not is_integer(code):
            raise TypeError(f"target: expected integer class indices, got dtype {at.dtype}")
        if self.label == "sign":
            check_broadcast(at, shape, "target")
            fill_array(&job.label, at, code, job.ndim)
            return 0
        if not has_shape(at, shape) and not (shape == () and shape_of(at) == (1,)):
            raise ValueError(f"target: expected class indices of shape {shape}, got shape {shape_of(at)}")
        if self.label == "classes":
            vector_array(&job.label, at, over, &job.labelc)
        else:
            fill_array(&job.label, at.reshape(shape) if shape == () else at, code, job.ndim)
        return 0

    cdef int raise_label(self, Py_ssize_t bad, cnp.ndarray at, tuple shape, Py_ssize_t c) except -1:
        index = first_index(bad // (c if c else 1), shape)
        if self.label == "classes":
            index += (bad % c,)
        index = index if len(index) == at.ndim else (0,) * at.ndim
        raise IndexError(f"{subscript('target', index)} = {at[index]} is out of range for {c} classes")


def vector_loss(kernel, args, **options):
    """The function that computes a loss between vectors: a method, as `elementwise` gives."""
    return VectorLoss(kernel, args, **options).loss


cdef object class_hessian(LfRowJob *rows, int op, cnp.ndarray h, cnp.ndarray ax, cnp.ndarray at, object weight, int axis):
    """Writes the diagonal of the Hessian by the logits of what class_loss computed."""
    cdef LfVectorJob job
    cdef Totals totals
    cdef bint over[64]
    cdef cnp.ndarray aw = None
    cdef int d, e = 0
    for d in range(cnp.PyArray_NDIM(ax)):
        over[d] = d == axis
        if d != axis:
            job.shape[e] = cnp.PyArray_DIM(ax, d)
            e += 1
    job.op, job.wide, job.ndim, job.n, job.cdim, job.c = op, rows.wide, e, rows.n, 1, rows.c
    job.cshape[0] = rows.c
    job.rows = ROW_BLOCK // job.c if job.c and job.c < ROW_BLOCK else 1
    job.in_[1].data = job.in_[2].data = job.grad[1].data = job.grad[2].data = job.label.data = job.out.data = NULL
    vector_array(&job.in_[0], ax, over, &job.inc[0][0])
    vector_array(&job.grad[0], h, over, &job.gradc[0][0])
    if rows.op == LF_CE_PROB:
        vector_array(&job.in_[1], at, over, &job.inc[1][0])
    else:
        job.label = rows.t
    job.where, job.upstream = rows.where, rows.upstream
    job.weight, job.gw, job.share, job.param[2] = NULL, NULL, 1, <double>job.c
    if weight is not None:
        aw = class_weights(weight, job.c, True)
        job.weight, job.param[2] = <double *>cnp.PyArray_DATA(aw), aw.sum()
    job.ignores, job.ignore_index, job.labels_only = rows.op != LF_CE_PROB, rows.ignore_index, False
    job.param[0], job.param[1], job.scale = 1 - rows.smoothing, rows.smoothing / <double>(job.c if job.c else 1), rows.scale
    if op == LF_FOCAL_HESSIAN:
        job.param[0] = rows.gamma
    merge_positions(&job)
    run_vectors(&job, &totals)
    return h


# ---- logits of linear_cross_entropy -------------------------------------------------------------------------------------------------------

# A few threads only: idle ones of OpenMP spin for a while and take the processors from BLAS's, which is where the time goes.
cdef int LINEAR_SHARE = 4


cdef void tile_block(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.tile_block(<const LfTileJob *>job, i)


cdef void tile_grad(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.tile_grad(<const LfTileJob *>job, i)


def tile(cnp.ndarray tile, cnp.ndarray bias, cnp.ndarray weight, cnp.ndarray labels, Py_ssize_t first, double smoothing, cnp.ndarray state,
         cnp.ndarray factors, cnp.ndarray target, double classes):
    """For linear_cross_entropy, which owns all arrays: gather the softmax of the tile's rows into `state` (5, rows), or with `factors` (3, rows)
    turn the tile into its gradient. All are C-contiguous; tile, bias and target float32 or float64, the others float64, labels int64."""
    cdef LfTileJob job
    cdef Py_ssize_t rows = cnp.PyArray_DIM(tile, 0), step = cnp.PyArray_STRIDE(state, 0)
    cdef char *s = <char *>cnp.PyArray_DATA(state)
    job.tile, job.wide, job.smoothed = <char *>cnp.PyArray_DATA(tile), dtype_code(tile) == LF_F64, smoothing != 0 and target is None
    job.columns, job.first = cnp.PyArray_DIM(tile, 1), first
    job.bias = NULL if bias is None else cnp.PyArray_DATA(bias)
    job.weight = NULL if weight is None else <double *>cnp.PyArray_DATA(weight)
    job.label = <int64_t *>cnp.PyArray_DATA(labels)
    job.target = NULL if target is None else cnp.PyArray_DATA(target)
    job.mix, job.rest = 1 - smoothing, smoothing / classes
    job.m, job.s, job.xt, job.dot = <double *>s, <double *>(s + step), <double *>(s + 2 * step), <double *>(s + 3 * step)
    job.mass = <double *>(s + 4 * step)
    job.kmass = job.kown = job.keven = NULL
    if factors is not None:
        s, step = <char *>cnp.PyArray_DATA(factors), cnp.PyArray_STRIDE(factors, 0)
        job.kmass, job.kown, job.keven = <double *>s, <double *>(s + step), <double *>(s + 2 * step)
    with nogil:
        each(tile_block if factors is None else tile_grad, &job, 0, rows, threads_for(rows, 2) // LINEAR_SHARE)


cdef void run_panels(float *x, Py_ssize_t to, const char *h, Py_ssize_t from_, const char *w, Py_ssize_t step, Py_ssize_t rows,
                     Py_ssize_t columns, Py_ssize_t n, int how) noexcept:
    cdef Py_ssize_t i, far = LF_BF16_PANEL * (2 if how & LF_BF16_DOWN else step)
    cdef int threads = threads_for(columns // LF_BF16_PANEL, 2)
    cdef LfBf16Panel *panel = lf_bf16(K)
    for i in prange((columns + LF_BF16_PANEL - 1) // LF_BF16_PANEL, schedule="static", num_threads=threads, nogil=True):
        panel(x + i * LF_BF16_PANEL, to, h, from_, w + i * far, step, rows, min(LF_BF16_PANEL, columns - i * LF_BF16_PANEL), n, how)


def multiplies(cnp.ndarray h, cnp.ndarray w):
    """Whether `multiply` takes these matrices on this CPU: of bfloat16."""
    return lf_bf16(K) != NULL and dtype_code(h) == LF_BF16 and dtype_code(w) == LF_BF16


cdef cnp.ndarray in_rows(cnp.ndarray a):
    """A matrix of halves whose rows are one run each; copied only if it is not, as integers, which NumPy is quicker to copy."""
    return a if cnp.PyArray_STRIDE(a, 1) == 2 else np.ascontiguousarray(a.view(np.uint16))


def multiply(cnp.ndarray x, cnp.ndarray h, cnp.ndarray w):
    """x = h @ w.T in float32, of which rows are one run each."""
    h, w = in_rows(h), in_rows(w)
    run_panels(<float *>cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0) // 4, <char *>cnp.PyArray_DATA(h), cnp.PyArray_STRIDE(h, 0),
               <char *>cnp.PyArray_DATA(w), cnp.PyArray_STRIDE(w, 0), cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), cnp.PyArray_DIM(h, 1), 0)


def add_product(cnp.ndarray x, cnp.ndarray a, cnp.ndarray b, bint first):
    """x = a @ b, or += where it is not the first, in float32, of which rows are one run each: of bfloat16 `b` and of float32 `a` as bfloat16, some
    rows at a time. Rows of `a`, or its columns, are one run each."""
    cdef Py_ssize_t rows = cnp.PyArray_DIM(a, 0), n = cnp.PyArray_DIM(a, 1), most = max(ROUNDED // max(n, 1), 6), i, count
    cdef bint turned = cnp.PyArray_STRIDE(a, 1) != 4
    cdef Py_ssize_t ld = cnp.PyArray_STRIDE(a, turned) // 4, to = cnp.PyArray_STRIDE(x, 0) // 4
    cdef cnp.ndarray near = np.empty((min(rows, most), n), np.uint16)
    cdef char *h = <char *>cnp.PyArray_DATA(near)
    cdef float *p
    b = in_rows(b)
    for i in range(0, rows, most):
        count, p = min(most, rows - i), <float *>cnp.PyArray_DATA(a) + i * (1 if turned else ld)
        with nogil:
            if turned:
                K.store_tile_f32(h, LF_BF16, 2 * n, 2, p, ld, count, n, 0)
            else:
                K.store_tile_f32(h, LF_BF16, 2, 2 * n, p, ld, n, count, 0)
        run_panels(<float *>cnp.PyArray_DATA(x) + i * to, to, h, 2 * n, <char *>cnp.PyArray_DATA(b), cnp.PyArray_STRIDE(b, 0), count,
                   cnp.PyArray_DIM(b, 1), n, LF_BF16_DOWN if first else LF_BF16_DOWN | LF_BF16_MORE)


cdef Py_ssize_t ROUNDED = 1 << 20       # floats of a factor that are rounded to bfloat16 at once


def class_rows(cnp.ndarray x, cnp.ndarray target, cnp.ndarray weight, double smoothing, object scale, cnp.ndarray out, bint gradient,
               cnp.ndarray weight_sums, cnp.ndarray target_gradient):
    """For linear_cross_entropy, which owns all arrays: the sum of the losses of a matrix of logits, which are also written to `out`. With `gradient`
    logits become their gradient; those by class weights are added to `weight_sums` (2, classes): of the sum, and of the mean's denominator."""
    cdef LfRowJob job
    cdef Totals totals
    cdef cnp.ndarray sums
    open_rows(&job, LF_CE_PROB if target.ndim == 2 else LF_CE_INDEX, x, dtype_code(x), 1, target)
    job.wide, job.smoothing, job.ignore_index = dtype_code(x) == LF_F64, smoothing, -1
    job.rows = rows_per_block(&job, False)
    if weight is not None:
        job.weight = cnp.PyArray_DATA(weight)
    if isinstance(scale, np.ndarray):
        fill_array(&job.upstream, scale, LF_F64, 1)
    else:
        job.scale = scale
    if out is not None:
        fill_array(&job.out, out, dtype_code(out), 1)
    if gradient:
        row_array(&job.gx, x, dtype_code(x), 1, &job.gxc[0])
    if target_gradient is not None:
        row_array(&job.gt, target_gradient, dtype_code(target_gradient), 1, &job.gtc[0])
    if weight_sums is not None:
        sums = sums_by_class(job.n, job.rows, job.c, &job.share, &job.gw, &job.gw_mass)
    run_rows(&job, &totals, False, LINEAR_SHARE)
    if weight_sums is not None:
        weight_sums += sums.sum(axis=1)
    return totals.sum


# For losses composed in Python: the checks that the others have.

def checked_array(object x, str name):
    """The array behind an argument, in a dtype that the kernels read, and whether it makes the computation float64."""
    cdef cnp.ndarray a = as_array(x, name)
    return a, widens(x, a, name == "input")


def checked_target(object target, tuple shape, Py_ssize_t classes, object ignore_index, object where, cnp.ndarray weight):
    """(positions that count or, if all do, None; their labels, or `classes` where the target holds probabilities; the mean's denominator; the
    probabilities or None; whether they make the computation float64). The first label that is out of range is raised."""
    cdef cnp.ndarray at = as_array(target, "target"), am = None, labels, rows
    cdef bint probabilities = is_float(dtype_code(at)) and shape_of(at) == shape + (classes,)
    cdef bint beyond = dtype_code(at) == LF_U64
    cdef Py_ssize_t i, counted = 0
    cdef int64_t ignored = 0, y
    cdef int64_t *label
    cdef int64_t *row
    cdef const char *mask = NULL
    cdef Sum mass = Sum(0, 0)
    if not probabilities and not is_integer(dtype_code(at)):
        raise TypeError(f"target: expected integer class indices of shape {shape} or class probabilities of shape {shape + (classes,)}, "
                        f"got dtype {at.dtype} and shape {shape_of(at)}")
    if not probabilities and not has_shape(at, shape):
        raise ValueError(f"target: expected class indices of shape {shape}, got shape {shape_of(at)}")
    if probabilities and ignore_index is not None:
        raise ValueError("ignore_index: class probabilities have no index to ignore; use where=")
    if where is not None:
        am = as_array(where, "where")
        if dtype_code(am) != LF_BOOL:
            raise TypeError(f"where: expected a boolean mask, got dtype {am.dtype}")
        check_broadcast(am, shape, "where")
        am = np.ascontiguousarray(np.broadcast_to(am, shape))
        mask = <char *>cnp.PyArray_DATA(am)
    if probabilities:
        labels = np.full(shape, classes)
    else:
        ignored = ignored_label(-100 if ignore_index is None else ignore_index)
        labels = cnp.PyArray_Cast(at, cnp.NPY_INT64)  # of NumPy's order
    labels = cnp.PyArray_Ravel(labels, cnp.NPY_CORDER)
    rows = cnp.PyArray_EMPTY(1, cnp.PyArray_DIMS(labels), cnp.NPY_INT64, 0)
    label, row = <int64_t *>cnp.PyArray_DATA(labels), <int64_t *>cnp.PyArray_DATA(rows)
    for i in range(cnp.PyArray_SIZE(labels)):
        y = label[i]
        if (mask != NULL and not mask[i]) or (not probabilities and y == ignored and not (beyond and y < 0)):
            continue
        if not probabilities and not 0 <= y < classes:
            bad_label(i, at, shape, classes)
        label[counted], row[counted] = y, i
        counted += 1
        add(&mass, 1 if probabilities or weight is None else (<double *>cnp.PyArray_DATA(weight))[y])
    rows, labels = (None, labels) if counted == cnp.PyArray_SIZE(labels) else (rows[:counted], labels[:counted])
    return rows, labels, mass.sum + mass.rest, at if probabilities else None, probabilities and dtype_code(at) == LF_F64


def checked_class_weights(object weight, Py_ssize_t classes):
    return class_weights(weight, classes, True)


def checked_reduction(object reduction):
    return ("none", "mean", "sum")[reduction_code(reduction)]


def checked_smoothing(object label_smoothing):
    return smoothing_value(label_smoothing)


def checked_out(object out, str name, tuple shape, object dtype, tuple reads):
    return np.empty(shape, dtype) if out is None else check_out(out, name, shape, dtype, reads)


def checked_gradient(object out, str label, cnp.ndarray a, str name, tuple reads):
    """The array for the gradient by `a`."""
    return checked_out(out, label, shape_of(a), gradient_dtype(a, name), reads)


def checked_upstream(object upstream, object shape):
    """grad_output as an array of one axis, for each position of a shape; a number where the shape is None, for a reduced loss."""
    cdef cnp.ndarray a = as_array(upstream, "grad_output")
    if shape is None:
        return scalar_upstream(a)
    check_broadcast(a, shape, "grad_output")
    return np.broadcast_to(a, shape).astype(np.float64).ravel()


def ready(cnp.ndarray a, cnp.dtype dtype):
    """A matrix or vector as BLAS takes it: C-contiguous, aligned and float32 or float64; copied only if it is not. Transposed ones would be added
    up in another order."""
    cdef cnp.ndarray to
    cdef bint wide = dtype.type_num == cnp.NPY_FLOAT64
    cdef int code = dtype_code(a)
    cdef Py_ssize_t rows, columns
    if cnp.PyArray_TYPE(a) == dtype.type_num and cnp.PyArray_ISCARRAY_RO(a):
        return a
    if cnp.PyArray_NDIM(a) != 2:
        return contiguous(a, dtype.type_num)
    to, rows, columns = fresh(2, cnp.PyArray_DIMS(a), wide), cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1)
    with nogil:
        if wide:
            K.load_tile_f64(<double *>cnp.PyArray_DATA(to), columns, <char *>cnp.PyArray_DATA(a), code, cnp.PyArray_STRIDE(a, 1),
                            cnp.PyArray_STRIDE(a, 0), columns, rows)
        else:
            K.load_tile_f32(<float *>cnp.PyArray_DATA(to), columns, <char *>cnp.PyArray_DATA(a), code, cnp.PyArray_STRIDE(a, 1),
                            cnp.PyArray_STRIDE(a, 0), columns, rows)
    return to


def put(cnp.ndarray to, cnp.ndarray a):
    """to[...] = a, matrices; `a`, or its transpose, as `ready` returns them. NumPy takes 4 times as long for transposes, up to 60 for halves."""
    cdef int code = dtype_code(to)
    cdef bint turned = not cnp.PyArray_IS_C_CONTIGUOUS(a)
    cdef Py_ssize_t n = cnp.PyArray_DIM(a, not turned), count = cnp.PyArray_DIM(a, turned)
    cdef Py_ssize_t step = cnp.PyArray_STRIDE(to, not turned), far = cnp.PyArray_STRIDE(to, turned)
    with nogil:
        if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64:
            K.store_tile_f64(<char *>cnp.PyArray_DATA(to), code, step, far, <double *>cnp.PyArray_DATA(a), n, n, count, 0)
        else:
            K.store_tile_f32(<char *>cnp.PyArray_DATA(to), code, step, far, <float *>cnp.PyArray_DATA(a), n, n, count, 0)
