# The softmax family: one class axis, every other axis a position.

cdef void label_block(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.label_block(<const LfRowJob *>job, i)


cdef void row_block(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.row_block(<const LfRowJob *>job, i)


cdef Py_ssize_t row_extent(const void *at, Py_ssize_t tasks) noexcept nogil:
    cdef const LfRowJob *job = <const LfRowJob *>at
    if job.cut:
        tasks //= (job.c + LF_PIECE - 1) // LF_PIECE
    return min((job.n + job.rows - 1) // job.rows, tasks * job.span)


cdef void row_share(const void *at, Py_ssize_t i, int thread) noexcept nogil:
    """Blocks that share sums by class."""
    cdef const LfRowJob *job = <const LfRowJob *>at
    cdef Py_ssize_t b
    for b in range(i * job.share, row_share_extent(at, i + 1)):
        K.row_block(job, b)


cdef Py_ssize_t row_share_extent(const void *at, Py_ssize_t tasks) noexcept nogil:
    return row_extent(at, tasks * (<const LfRowJob *>at).share)


cdef void row_piece(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.row_piece(<const LfRowJob *>job, i)


cdef int run_pieces(LfRowJob *job, int threads) except -1:
    """Huge rows, fewer than would keep all threads busy: their sums a piece at a time, and their gradient or softmax as well, where it is not written
    over what others still read."""
    cdef Py_ssize_t n = job.n * ((job.c + LF_PIECE - 1) // LF_PIECE)
    cdef bint writes = job.gx.data != NULL or job.gt.data != NULL or job.op == LF_SOFTMAX or job.op == LF_LOG_SOFTMAX
    job.piece = <LfRowPiece *>malloc(n * sizeof(LfRowPiece))
    if job.piece == NULL:
        raise MemoryError(f"cannot allocate {n * sizeof(LfRowPiece)} bytes for partial sums")
    with nogil:
        each(row_piece, job, 0, n, threads)
    job.cut = (writes and job.gw == NULL and not (job.op == LF_SOFTMAX and job.gx.data != NULL) and job.gx.data != job.x.data
               and job.out.data != job.x.data)
    return 0


cdef Py_ssize_t span_of(const LfRowJob *job, Py_ssize_t blocks, Py_ssize_t threads) noexcept:
    """How many blocks are worked on at once: of larger rows that are columns as many as fill two lines of a cache, but as many for each thread."""
    cdef Py_ssize_t step, rows, spans
    if blocks == 0 or job.ndim == 0 or job.c <= LF_SMALL_C or job.c > LF_PIECE or job.op == LF_NLL or job.gw != NULL:
        return 1
    step = abs(job.x.stride[job.ndim - 1])
    rows = min(max(16, 128 // max(step, 1)), LF_W)
    if step > abs(job.xc[0]) or job.rows >= rows:
        return 1
    spans = (blocks * job.rows + rows - 1) // rows
    spans = (spans + threads - 1) // threads * threads
    return (blocks + spans - 1) // spans


cdef int run_rows(LfRowJob *job, Totals *totals, bint labels_only, int share=1) except -1:
    """Run all blocks, or the pass over the labels alone. Of losses, sums in block order and the lowest bad position. On one of `share` threads."""
    cdef Py_ssize_t rows = job.rows, group = 1 if labels_only else job.share, pieces = (job.c + LF_PIECE - 1) // LF_PIECE, blocks, tasks
    cdef Task task = label_block if labels_only else row_share if group > 1 else row_block
    cdef int threads
    if labels_only:
        job.rows = LABEL_ROWS
    blocks = (job.n + job.rows - 1) // job.rows
    threads = threads_for(job.n * pieces, 2) // share
    try:
        if pieces > 1 and threads > 1 and job.n < 4 * threads and job.op != LF_NLL and not labels_only:
            run_pieces(job, threads)
        if not job.cut:
            threads = threads_for(blocks, 2) // share
        job.span = 1 if labels_only else span_of(job, blocks, max(threads, 1))
        tasks = blocks * pieces if job.cut else (blocks + job.span * group - 1) // (job.span * group)
        if labels_only or job.op >= LF_CE_INDEX:
            add_blocks(task, job, tasks, pieces if job.cut else 1, row_extent if group == 1 else row_share_extent, threads,
                       &job.sum, &job.mass, &job.bad, totals)
        else:
            with nogil:
                each(task, job, 0, tasks, threads)
    finally:
        free(job.piece)
        job.piece, job.cut, job.rows, job.span = NULL, 0, rows, 1
    return 0


cdef Py_ssize_t LABEL_ROWS = 32768       # labels in a block of the pass over labels
cdef Py_ssize_t ROW_BLOCK = 32768        # elements in a block of rows


cdef Py_ssize_t rows_per_block(const LfRowJob *job, bint ordered) noexcept:
    """Whole tiles for small C, no more than a strip holds; whole groups of larger rows. `ordered`: blocks are those of the order of a sum and depend
    on the shape alone; then two groups, for those that are columns, but 64 blocks or more, since rows that lie as such gain nothing by large
    blocks."""
    cdef Py_ssize_t rows = ROW_BLOCK // (job.c if job.c else 1)
    if job.c <= LF_SMALL_C:
        rows = rows // LF_W * LF_W
    elif job.c <= LF_PIECE:
        rows = max(rows // 16 * 16 if rows > 16 else rows, min(job.n // 1024, 2) * 16 if ordered else 0)
    return rows if rows > 0 else 1


cdef cnp.ndarray sums_by_class(Py_ssize_t n, Py_ssize_t rows, Py_ssize_t c, Py_ssize_t *share, double **gw, double **gw_mass):
    """Zeros for a job's `gw` and `gw_mass`: at most 16 of each class, or 4 of many classes, so that many blocks share one of them, but no more than
    LF_PARTS. The blocks themselves, and so the value, are those of a job without them."""
    cdef Py_ssize_t blocks = (n + rows - 1) // rows, most = 16 if c <= 32768 else 4
    cdef cnp.ndarray sums
    share[0] = min((blocks + most - 1) // most, LF_PARTS) if blocks else 1
    sums = np.zeros((2, (blocks + share[0] - 1) // share[0], c))
    gw[0] = <double *>cnp.PyArray_DATA(sums)
    gw_mass[0] = gw[0] + cnp.PyArray_SIZE(sums) // 2
    return sums


cpdef object whole_number(object given, str name):
    """An integer of Python's, NumPy's or anyone's as Python's."""
    if type(given) is int:
        return given
    if not isinstance(given, (bool, np.bool_)):
        try:
            return operator.index(given)
        except TypeError:
            pass
    raise TypeError(f"{name}: expected an integer, got {given!r}") from None


cdef int class_axis(object axis, int ndim) except -1:
    i = whole_number(axis, "axis")
    if not -ndim <= i < ndim:
        raise ValueError(f"axis: {i} is out of range for {ndim} dimensions")
    return i + ndim if i < 0 else i


cdef int mark_axes(object axis, int ndim, bint *marked) except -1:
    """Which axes are named, by an integer or several."""
    cdef int d
    for d in range(ndim):
        marked[d] = False
    for one in axis if isinstance(axis, (tuple, list)) else (axis,):
        d = class_axis(one, ndim)
        if marked[d]:
            raise ValueError(f"axis: {one} is named twice in {axis}")
        marked[d] = True
    return 0


cdef inline void row_array(LfArray *v, cnp.ndarray a, int code, int axis, Py_ssize_t *class_stride):
    """Strides of positions and of the class axis, if there is one."""
    cdef int d, e = 0
    v.data, v.dtype = <char *>cnp.PyArray_DATA(a), code
    for d in range(cnp.PyArray_NDIM(a)):
        if d == axis:
            class_stride[0] = cnp.PyArray_STRIDE(a, d)
        else:
            v.stride[e] = cnp.PyArray_STRIDE(a, d)
            e += 1


cdef int open_rows(LfRowJob *job, int op, cnp.ndarray ax, int code, int axis, cnp.ndarray at=None) except -1:
    """A job of `ax` and of `at`, class probabilities or indices."""
    cdef int d, e = 0
    job.op, job.stream, job.smoothing, job.scale, job.gamma, job.weight, job.gw, job.share, job.span = op, 0, 0, 1, 0, NULL, NULL, 1, 1
    job.ignore_index = -100
    job.piece, job.cut = NULL, 0
    job.t.data = job.out.data = job.gx.data = job.gt.data = job.where.data = job.upstream.data = NULL
    job.c = cnp.PyArray_DIM(ax, axis)
    job.cdim, job.cshape[0] = 1, job.c
    job.n = 1
    for d in range(cnp.PyArray_NDIM(ax)):
        if d != axis:
            job.shape[e] = cnp.PyArray_DIM(ax, d)
            job.n *= job.shape[e]
            e += 1
    job.ndim = e
    if <double>job.n * <double>job.c > <double>(PY_SSIZE_T_MAX // 8):
        raise ValueError(f"input: shape {shape_of(ax)} has more elements than can be addressed")
    row_array(&job.x, ax, code, axis, &job.xc[0])
    if op == LF_CE_PROB:
        row_array(&job.t, at, dtype_code(at), axis, &job.tc[0])
    elif at is not None:
        row_array(&job.t, at, dtype_code(at), -1, NULL)
    return 0


cdef void merge_rows(LfRowJob *job) noexcept:
    cdef LfArray *arrays[7]
    cdef int n = 1
    arrays[0] = &job.x
    if job.t.data != NULL:
        arrays[n] = &job.t
        n += 1
    if job.out.data != NULL:
        arrays[n] = &job.out
        n += 1
    if job.gx.data != NULL:
        arrays[n] = &job.gx
        n += 1
    if job.gt.data != NULL:
        arrays[n] = &job.gt
        n += 1
    if job.where.data != NULL:
        arrays[n] = &job.where
        n += 1
    if job.upstream.data != NULL:
        arrays[n] = &job.upstream
        n += 1
    job.ndim = merge_dims(job.shape, job.ndim, arrays, n)


cdef object positions_shape(cnp.ndarray ax, int axis):
    shape = shape_of(ax)
    return shape[:axis] + shape[axis + 1:]


cdef cnp.ndarray class_weights(object weight, Py_ssize_t c, bint wide, str name="weight"):
    cdef cnp.ndarray w = as_array(weight, name)
    if dtype_code(w) == LF_BOOL:
        raise TypeError(f"{name}: expected numbers, got dtype bool")
    if w.ndim != 1 or cnp.PyArray_DIM(w, 0) != c:
        raise ValueError(f"{name}: expected one number for each of {c} classes, shape ({c},), got shape {shape_of(w)}")
    return contiguous(w, cnp.NPY_FLOAT64 if wide else cnp.NPY_FLOAT32)


cdef object bad_label(Py_ssize_t position, cnp.ndarray target, tuple shape, Py_ssize_t c):
    index = first_index(position, shape)[:target.ndim]
    index = index if len(index) == target.ndim else (0,) * target.ndim
    raise IndexError(f"{subscript('target', index)} = {target[index]} is out of range for {c} classes")


cdef int mask_array(LfArray *v, object where, tuple shape) except -1:
    cdef cnp.ndarray m = as_array(where, "where")
    if dtype_code(m) != LF_BOOL:
        raise TypeError(f"where: expected a boolean mask, got dtype {m.dtype}")
    check_broadcast(m, shape, "where")
    fill_array(v, m, LF_BOOL, len(shape))
    return 0


cdef cnp.ndarray bind_upstream(Request request, LfArray *v, tuple shape):
    """grad_output of a loss without reduction."""
    cdef cnp.ndarray u = as_array(request.upstream, "grad_output")
    check_broadcast(u, shape, "grad_output")
    fill_array(v, u, dtype_code(u), len(shape))
    return u


cdef bint holds_probabilities(cnp.ndarray at, cnp.ndarray ax, int axis, bint indices) except -1:
    """Whether a target holds class probabilities, else class indices; these alone for `indices`. Its shape and dtype are checked."""
    cdef int code = dtype_code(at), ndim = cnp.PyArray_NDIM(ax), tdim = cnp.PyArray_NDIM(at), d, e = 0
    cdef bint probabilities = tdim == ndim and not indices, fits = tdim == ndim - 1
    for d in range(ndim):
        if probabilities and cnp.PyArray_DIM(at, d) != cnp.PyArray_DIM(ax, d):
            probabilities = False
        if fits and d != axis:
            if cnp.PyArray_DIM(at, e) != cnp.PyArray_DIM(ax, d):
                fits = False
            e += 1
    if ndim == 1 and tdim == 1 and cnp.PyArray_DIM(at, 0) == 1 and not (probabilities and is_float(code)):
        probabilities, fits = False, True
    if probabilities and not is_float(code):
        raise TypeError(f"target: expected {FLOATS} for class probabilities of the input's shape, got dtype {at.dtype}; "
                        f"class indices have shape {positions_shape(ax, axis)}")
    if not probabilities and is_float(code):
        raise TypeError(f"target: expected integer class indices of shape {positions_shape(ax, axis)}"
                        f"{'' if indices else f' or class probabilities of shape {shape_of(ax)}'}, got dtype {at.dtype} and shape {shape_of(at)}")
    if not probabilities and not fits:
        raise ValueError(f"target: expected class indices of shape {positions_shape(ax, axis)} for input of shape {shape_of(ax)} with classes "
                         f"on axis {axis}, got shape {shape_of(at)}")
    if not probabilities and code == LF_BOOL:
        raise TypeError("target: expected integer class indices, got dtype bool")
    return probabilities


cdef int check_labels(LfRowJob *job, Totals *totals, cnp.ndarray at, cnp.ndarray ax, int axis) except -1:
    """A pass over the labels alone, which also finds a mean's denominator."""
    cdef LfRowJob merged
    if job.ndim != 1:
        merged = job[0]         # 7 KB, 100 ns
        merge_rows(&merged)
        run_rows(&merged, totals, True)
    else:
        run_rows(job, totals, True)
    if totals.bad >= 0:
        bad_label(totals.bad, at, positions_shape(ax, axis), job.c)
    return 0


def class_loss(object input, object target, object weight, object ignore_index, object reduction, object label_smoothing, object axis,
               object where, object out, bint nll, bint focal=False, object gamma=0.0, object alpha=None):
    """cross_entropy, nll_loss and focal_loss: see lossfast.functional. `alpha` is a weight that a mean's denominator does not see."""
    cdef Request request = take_request()
    cdef int mode = reduction_code(reduction)
    cdef cnp.ndarray ax = as_array(input, "input"), at = as_array(target, "target"), aw = None, ao = None, am = None, au = None
    cdef int code = dtype_code(ax), ndim = cnp.PyArray_NDIM(ax), ax_axis
    cdef bint wide = code == LF_F64 or not is_float(code), probabilities
    cdef bint indices = nll or focal
    cdef double smoothing = 0 if indices else smoothing_value(label_smoothing)
    cdef LfRowJob job
    cdef Totals totals
    cdef double denominator = 0, scale = 1
    cdef list grads = None
    cdef cnp.ndarray g
    cdef str name = "weight"
    if ndim == 0:
        raise ValueError("input: expected scores of at least one dimension, (C), (N, C) or (N, C, d1, ...), got a 0-dimensional array")
    ax_axis = (1 if ndim > 1 else 0) if axis is None else class_axis(axis, ndim)

    probabilities = holds_probabilities(at, ax, ax_axis, indices)
    wide = wide or (probabilities and dtype_code(at) == LF_F64)

    open_rows(&job, LF_NLL if nll else LF_CE_PROB if probabilities else LF_CE_INDEX, ax, code, ax_axis, at)
    job.wide, job.smoothing = wide, smoothing
    job.gamma = focal_exponent(gamma)
    job.ignore_index = ignored_label(ignore_index)
    if probabilities:
        if job.ignore_index >= 0:
            raise ValueError(f"ignore_index: has no meaning for class probabilities, got {ignore_index}")
    if alpha is not None:
        if weight is not None:
            raise ValueError("alpha: expected None beside weight, which weighs the classes too")
        weight, name = alpha, "alpha"
        if np.ndim(alpha) == 0:
            weight, name = np.full(job.c, number(alpha, "alpha")), None
    if weight is not None:
        aw = class_weights(weight, job.c, wide, name)
        job.weight = NULL if alpha is not None else cnp.PyArray_DATA(aw)
    if where is not None:
        am = as_array(where, "where")
        mask_array(&job.where, am, positions_shape(ax, ax_axis))
    if request is not None:
        if nll:
            request.refuse_hessian()
        if request.upstream is not None and mode == 0:
            au = bind_upstream(request, &job.upstream, positions_shape(ax, ax_axis))
        elif request.upstream is not None:
            scale = upstream_scalar(request)
    if out is not None:
        if mode != 0:
            raise ValueError("out: only with reduction='none'")
        ao = check_out(out, "out", positions_shape(ax, ax_axis), result_dtype(wide), (ax, at, aw, am, au))

    # Labels are checked in the pass that uses them, but before anything is written to an array of the user's, and a mean's gradient needs the
    # denominator first.
    if (mode == 1 and (request is not None or alpha is not None)) or ao is not None or (request is not None and request.out is not None):
        check_labels(&job, &totals, at, ax, ax_axis)
        denominator = totals.mass
        if mode == 1:
            scale = scale / denominator if denominator != 0 else 0
    job.scale = scale
    if alpha is not None:
        job.weight = cnp.PyArray_DATA(aw)

    if mode == 0:
        if ao is None:
            ao = cnp.PyArray_EMPTY(job.ndim, <cnp.npy_intp *>job.shape, cnp.NPY_FLOAT64 if wide else cnp.NPY_FLOAT32, 0)
        fill_array(&job.out, ao, dtype_code(ao), job.ndim)
    job.rows = rows_per_block(&job, True)
    if nll and job.rows < LF_W:
        job.rows = LF_W     # of each row only one element is read
    if request is not None:
        grads = bind_row_gradients(&job, request, ax, at, weight, name, ax_axis, (ax, at, aw, am, au, ao))
        if request.hessian:
            g = gradient_array(request, len(request.names), ax, "input", (ax, at, aw, am, au, ao))
            grads[0].append(class_hessian(&job, LF_FOCAL_HESSIAN if focal else LF_CE_HESSIAN, g, ax, at, weight, ax_axis))
    merge_rows(&job)
    run_rows(&job, &totals, False)
    if totals.bad >= 0:
        bad_label(totals.bad, at, positions_shape(ax, ax_axis), job.c)
    if alpha is None:
        denominator = totals.mass
    if mode == 0:
        result = ao if out is not None or cnp.PyArray_NDIM(ao) else ao[()]
    else:
        result = scalar(totals.sum if mode == 2 else totals.sum / denominator, wide)  # C division: NaN for 0 / 0
    if request is None:
        return result
    if grads[1] is not None:
        finish_weight_gradient(grads, mode == 1 and not probabilities and alpha is None, totals.sum / denominator if denominator != 0 else 0, scale)
    return request.outcome(result, tuple(grads[0]))


cdef double smoothing_value(object label_smoothing) except -1:
    cdef double smoothing = number(label_smoothing, "label_smoothing")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing: expected a number from 0 to 1, got {label_smoothing}")
    return smoothing


cdef double focal_exponent(object gamma) except -1:
    cdef double value = number(gamma, "gamma")
    if not 0 <= value < float("inf"):
        raise ValueError(f"gamma: expected a finite number of at least 0, got {gamma!r}")
    return value


cdef int64_t ignored_label(object ignore_index) except? -7:
    index = whole_number(ignore_index, "ignore_index")
    if not -0x8000000000000000 <= index <= 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"ignore_index: expected a 64-bit integer, got {ignore_index}")
    return index


cdef list bind_row_gradients(LfRowJob *job, Request request, cnp.ndarray ax, cnp.ndarray at, object weight, str weight_name, int axis,
                             tuple arrays):
    """[gradient arrays, (gradient by the array of class weights of that name, sums by block and class)]"""
    cdef list grads = []
    cdef cnp.ndarray g
    cdef int i
    sums = None
    for i, name in enumerate(request.names):
        if name == "input":
            g = gradient_array(request, i, ax, name, arrays, True)
            row_array(&job.gx, g, dtype_code(g), axis, &job.gxc[0])
        elif name == "target" and job.op == LF_CE_PROB:
            g = gradient_array(request, i, at, name, arrays)
            row_array(&job.gt, g, dtype_code(g), axis, &job.gtc[0])
        elif name == weight_name and weight is not None:
            g = gradient_array(request, i, as_array(weight, name), name, arrays)
            sums = (g, sums_by_class(job.n, job.rows, job.c, &job.share, &job.gw, &job.gw_mass))
            grads.append(g)
            continue
        elif name == "target":
            raise TypeError(f"argnums: target holds class indices here (dtype {at.dtype}), which have no gradient")
        else:
            raise ValueError(f"argnums: {name} is not an array argument of this call")
        if cnp.PyArray_NBYTES(g) > STREAM_BYTES:
            job.stream = 1
        grads.append(g)
    return [grads, sums]


cdef object finish_weight_gradient(list grads, bint weighted_mean, double value, double scale):
    """The mean's denominator, a sum of weights, depends on them too."""
    g, sums = grads[1]
    with np.errstate(over="ignore", invalid="ignore"):
        by_class = sums.sum(axis=1)
        g[...] = by_class[0] - (value * scale * by_class[1] if weighted_mean else 0)


def softmax(object input, object axis, object out, bint log):
    """softmax and log_softmax: see lossfast.functional."""
    cdef Request request = take_request()
    cdef cnp.ndarray ax = as_array(input, "input"), ao, au = None, g
    cdef int code = dtype_code(ax), ndim = cnp.PyArray_NDIM(ax), ax_axis
    cdef bint wide = code == LF_F64 or not is_float(code)
    cdef LfRowJob job
    cdef Totals totals
    if ndim == 0:
        ax, ndim = ax.reshape(1), 1
        if out is not None:
            raise ValueError("out: not for a 0-dimensional input")
        result = softmax(ax, axis, None, log) if request is None else None
        if request is not None:
            raise ValueError("input: expected at least one dimension to differentiate by, got 0")
        return result[0]
    ax_axis = ndim - 1 if type(axis) is int and axis == -1 else class_axis(axis, ndim)
    if request is not None:
        check_single(request, "input")
        au = as_array(1.0 if request.upstream is None else request.upstream, "grad_output")
        check_broadcast(au, shape_of(ax), "grad_output")
        au = np.broadcast_to(au, shape_of(ax))
    open_rows(&job, LF_LOG_SOFTMAX if log else LF_SOFTMAX, ax, code, ax_axis)
    job.wide, job.rows = wide, rows_per_block(&job, False)
    if out is None:
        ao = fresh(ndim, cnp.PyArray_DIMS(ax), wide)
    else:
        own = ax.dtype if is_float(code) and isinstance(out, np.ndarray) and out.dtype == ax.dtype else None
        ao = check_out(out, "out", shape_of(ax), own or result_dtype(wide), (ax, au), request is None)
    row_array(&job.out, ao, dtype_code(ao), ax_axis, &job.oc[0])
    job.stream = cnp.PyArray_NBYTES(ao) > STREAM_BYTES
    if request is not None:
        row_array(&job.t, au, dtype_code(au), ax_axis, &job.tc[0])
        g = gradient_array(request, 0, ax, "input", (ax, au, ao), True)
        row_array(&job.gx, g, dtype_code(g), ax_axis, &job.gxc[0])
        job.scale = -1 if log else 1
    if job.n and job.c:
        merge_rows(&job)
        run_rows(&job, &totals, False)
    return ao if request is None else request.outcome(ao, (g,))


def logsumexp(object input, object axis, object keep, object out):
    """See lossfast.functional."""
    cdef Request request = take_request()
    cdef cnp.ndarray ax = as_array(input, "input"), ao, au = None, g = None
    cdef int code = dtype_code(ax), ndim = cnp.PyArray_NDIM(ax), d, e = 0, k = 0
    cdef bint wide = code == LF_F64 or not is_float(code), keepdims = flag(keep, "keepdims")
    cdef bint reduced[64]
    cdef LfRowJob job
    cdef LfArray cx, cg
    cdef LfArray *classes[2]
    cdef Totals totals
    cdef Py_ssize_t shape[64]
    if axis is None or (type(axis) is int and axis == -1 and ndim):
        for d in range(ndim):
            reduced[d] = axis is None or d == ndim - 1
    else:
        mark_axes(axis, ndim, reduced)
    open_rows(&job, LF_LOGSUMEXP, ax, code, ndim - 1) if ndim else open_rows(&job, LF_LOGSUMEXP, ax.reshape(1), code, 0)
    if request is not None:
        check_single(request, "input")
        if request.upstream is not None:
            au = as_array(request.upstream, "grad_output")
        g = gradient_array(request, 0, ax, "input", (ax, au), True)
        job.gx.data, job.gx.dtype = <char *>cnp.PyArray_DATA(g), dtype_code(g)
        job.stream = cnp.PyArray_NBYTES(g) > STREAM_BYTES
    job.n = job.c = 1
    for d in range(ndim):
        if reduced[d]:
            job.cshape[k], cx.stride[k] = cnp.PyArray_DIM(ax, d), cnp.PyArray_STRIDE(ax, d)
            cg.stride[k] = cnp.PyArray_STRIDE(g, d) if g is not None else 0
            job.c *= job.cshape[k]
            k += 1
        else:
            job.shape[e], job.x.stride[e] = cnp.PyArray_DIM(ax, d), cnp.PyArray_STRIDE(ax, d)
            job.gx.stride[e] = cnp.PyArray_STRIDE(g, d) if g is not None else 0
            job.n *= job.shape[e]
            e += 1
    job.ndim = e
    classes[0], classes[1] = &cx, &cg
    job.cdim = merge_dims(job.cshape, k, classes, 2 if g is not None else 1)
    for d in range(job.cdim):
        job.xc[d], job.gxc[d] = cx.stride[d], cg.stride[d]

    k = 0
    for d in range(ndim):
        if keepdims or not reduced[d]:
            shape[k] = 1 if reduced[d] else cnp.PyArray_DIM(ax, d)
            k += 1
    if out is None:
        ao = fresh(k, <cnp.npy_intp *>shape, wide)
    else:
        ao = check_out(out, "out", tuple([shape[d] for d in range(k)]), result_dtype(wide), (ax, g, au))
    flat = ao.squeeze(tuple([d for d in range(ndim) if reduced[d]])) if keepdims else ao
    fill_array(&job.out, flat, dtype_code(ao), job.ndim)
    if au is not None:
        check_broadcast(au, shape_of(ao), "grad_output")
        au = np.broadcast_to(au, shape_of(ao))
        flat = au.squeeze(tuple([d for d in range(ndim) if reduced[d]])) if keepdims else au
        fill_array(&job.upstream, flat, dtype_code(au), job.ndim)
    job.wide, job.rows = wide, rows_per_block(&job, False)
    if job.c == 0:
        ao[...] = -np.inf
    elif job.n:
        merge_rows(&job)
        run_rows(&job, &totals, False)
    result = ao if out is not None or k else ao[()]
    return result if request is None else request.outcome(result, (g,))
