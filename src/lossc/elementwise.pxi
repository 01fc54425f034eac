# Elementwise losses: any number of inputs that broadcast against each other, weight, mask, reductions, gradients.

LOSSES = {lf_loss_names[i].decode(): i for i in range(lf_loss_count)}

cdef Py_ssize_t FOLD_ROOM = 1 << 16    # numbers in hand of the gradients by broadcast arguments, before they are added up: 512 KB


cdef void elem_block(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.elem_block(<const LfElemJob *>job, i)


cdef void elem_strip(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.elem_strip(<const LfElemJob *>job, i)


cdef void elem_fold(const void *job, Py_ssize_t i, int thread) noexcept nogil:
    K.elem_fold(<const LfElemJob *>job, i)


cdef void cut(LfElemJob *job, bint want_sum) noexcept:
    """Cut a job into blocks."""
    if not want_sum:
        job.period = job.size
    job.runs = (job.period + LF_ELEM_BLOCK - 1) // LF_ELEM_BLOCK
    if job.period == job.size and job.runs > LF_ELEM_SHARES:
        job.runs = (job.runs + LF_ELEM_SHARES - 1) // LF_ELEM_SHARES * LF_ELEM_SHARES
    job.block = ((job.period + job.runs - 1) // job.runs + 31) // 32 * 32
    job.runs = (job.period + job.block - 1) // job.block
    job.blocks = job.size // job.period * job.runs


cdef inline Py_ssize_t period(const Py_ssize_t *shape, int ndim, Py_ssize_t size) noexcept:
    """The smallest product of last dimensions that is long enough for blocks of its own, else the size."""
    cdef Py_ssize_t n = 1
    cdef int d
    for d in range(ndim - 1, -1, -1):
        n *= shape[d]
        if n >= LF_ELEM_PERIOD:
            return n
    return size


cdef int nearest(const LfElemJob *job, const LfArray *a) noexcept:
    """Of a transposed array the dimension along which it steps least, else -1."""
    cdef int d, near, last = job.ndim - 1
    while last >= 0 and job.shape[last] == 1:
        last -= 1
    if last < 0 or a.data == NULL or a.stride[last] == 0:
        return -1
    near = last
    for d in range(last - 1, -1, -1):
        if a.stride[d] != 0 and abs(a.stride[d]) < abs(a.stride[near]):
            near = d
    return -1 if near == last else near


cdef Py_ssize_t blocks_per_row(const LfElemJob *job) noexcept nogil:
    """Of the dimensions after `tall`."""
    cdef Py_ssize_t row = 1
    cdef int d
    for d in range(job.tall + 1, job.ndim):
        row *= job.shape[d]
    return row // job.period * job.runs


cdef Py_ssize_t strips(LfElemJob *job) noexcept:
    """How many tasks a job is that is cut into blocks: of those with transposed inputs strips."""
    cdef Py_ssize_t n, row
    cdef int i
    if job.ndim == 1 or job.weight.data != NULL or job.where.data != NULL:
        return job.blocks
    if outputs(job) if job.sum != NULL else not writes_in_order(job):
        return job.blocks
    for i in range(LF_INPUTS):
        job.near[i] = nearest(job, &job.in_[i])
        job.tall = job.near[i] if job.tall < 0 else job.tall
    if job.tall < 0:
        return job.blocks
    row = blocks_per_row(job)
    if 0 < row <= LF_PARTS // LF_STRIP_ROWS:
        n, job.strip = job.shape[job.tall], 1
        return job.blocks // (row * n) * ((n + LF_STRIP_ROWS - 1) // LF_STRIP_ROWS) * row
    job.tall = -1
    n = LF_STRIP // (8 if job.wide else 4) // job.block
    n = (job.blocks + n - 1) // n
    job.strip = (job.blocks + n - 1) // n
    return (job.blocks + job.strip - 1) // job.strip


cdef Py_ssize_t elem_extent(const void *at, Py_ssize_t tasks) noexcept nogil:
    cdef const LfElemJob *job = <const LfElemJob *>at
    cdef Py_ssize_t n, groups, band
    if job.tall < 0:
        return min(job.blocks, tasks * max(job.strip, 1))
    n, band = job.shape[job.tall], blocks_per_row(job)
    groups = (n + LF_STRIP_ROWS - 1) // LF_STRIP_ROWS
    tasks //= band
    return (tasks // groups * n + tasks % groups * LF_STRIP_ROWS) * band


cdef int run(LfElemJob *job, Totals *totals, bint want_mass) except -1:
    """Run all blocks; sums in block order, the lowest block's error."""
    cdef Py_ssize_t tasks = 0
    cdef bint want_sum = job.sum != NULL
    job.blocks, job.strip, job.tall, job.mass = 0, 0, -1, NULL
    if job.size:
        cut(job, want_sum)
        tasks = strips(job)
    if want_sum:
        K.elem_prepare(job)
    return add_blocks(elem_strip if job.strip else elem_block, job, tasks, 1 if job.tall < 0 else blocks_per_row(job), elem_extent,
                      threads_for(job.blocks, LF_ELEM_SHARES), &job.sum if want_sum else NULL, &job.mass if want_mass else NULL, &job.bad, totals)


cdef int outputs(const LfElemJob *job) noexcept:
    """How many arrays a job writes."""
    cdef int i, n = (job.out.data != NULL) + (job.hess.data != NULL)
    for i in range(4):
        n += job.grad[i].data != NULL
    return n


cdef inline void write_nothing(LfElemJob *job) noexcept:
    cdef int i
    job.out.data = job.hess.data = NULL
    for i in range(4):
        job.grad[i].data = NULL


cdef bint writes_in_order(const LfElemJob *job) noexcept:
    """Whether all a job does is to write one array, of values or gradients by the first input, in the order of its shape, not in its place."""
    cdef const LfArray *to = &job.out if job.out.data != NULL else &job.grad[0]
    cdef Py_ssize_t step = 8 if job.wide else 4
    cdef int d
    if (outputs(job) != 1 or to.data == NULL or to.data == job.in_[0].data or <size_t>to.data % <size_t>step
            or to.dtype != (LF_F64 if job.wide else LF_F32) or job.upstream.data != NULL or job.stream):
        return False
    for d in range(job.ndim - 1, -1, -1):
        if to.stride[d] != step:
            return False
        step *= job.shape[d]
    return True


@cython.final
cdef class Elementwise:
    """One elementwise loss: its kernel and how it reads its arguments.

    Parameters
    ----------
    kernel : name in losses.def
    args : names of the inputs, in order
    limits : (name, least, largest, what was expected) of each number in p0, p1, ...
    gap : (above, below, what there is not) of numbers refused in between, for the first
    requires : what an element out of the domain should have been, for each input that has one
    weight_mean : the mean divides by the sum of weights (else by the number of elements)
    row_mean : the loss of a row is the mean over the last axis
    batch_mean : reduction may be 'batchmean', the sum over the length of the first axis
    per_row : the third input may have one element for each row of the first
    warn_broadcast, same_shape : warn, or raise, when input and target have different shapes
    hessian : the formula has a second derivative by the input
    squared : the kernel for when the last number is 2
    """
    cdef int id, squared, inputs, params
    cdef readonly tuple args
    cdef tuple limits, gap
    cdef double least[4]
    cdef double largest[4]
    cdef dict requires
    cdef bint weight_mean, row_mean, batch_mean, per_row, warn_broadcast, same_shape, hessian

    def __init__(self, kernel, args, *, limits=(), gap=None, requires=None, weight_mean=False, row_mean=False, batch_mean=False, per_row=False,
                 warn_broadcast=False, same_shape=False, hessian=True, squared=None):
        self.id, self.args = LOSSES[kernel], args
        self.inputs, self.params = lf_loss_inputs[self.id], lf_loss_params[self.id]
        self.squared = LOSSES[squared or kernel]
        if len(args) != self.inputs:
            raise ValueError(f"{kernel}: takes {self.inputs} inputs, names given: {args}")
        if len(limits) != self.params:
            raise ValueError(f"{kernel}: takes {self.params} numbers, limits given: {limits}")
        self.limits, self.gap, self.requires = limits, gap, requires
        for i, (_, least, largest, _) in enumerate(limits):
            self.least[i], self.largest[i] = least, largest
        self.weight_mean, self.row_mean, self.batch_mean, self.per_row = weight_mean, row_mean, batch_mean, per_row
        self.warn_broadcast, self.same_shape, self.hessian = warn_broadcast, same_shape, hessian

    def loss(self, object x, object y, object z, object weight, object reduction, object where, object out,
             object p0=None, object p1=None, object p2=None, object p3=None, /):
        cdef Request request = take_request()
        cdef int mode = reduction_code(reduction, self.batch_mean)
        cdef double divisor = 1     # of sums
        cdef cnp.ndarray ax = as_array(x, self.args[0]), ay = None, az = None
        cdef bint plain, wide
        cdef LfElemJob job
        cdef Totals totals
        cdef Py_ssize_t size
        cdef int d
        if self.inputs > 1:
            ay = as_array(y, self.args[1])
        if self.inputs > 2:
            az = as_array(z, self.args[2])
        wide = (widens(x, ax, True) or (ay is not None and widens(y, ay, False)) or (az is not None and widens(z, az, False))
                or (is_number(x) and (ay is None or is_number(y)) and (az is None or is_number(z))))
        job.loss, job.wide, job.stream = self.id, wide, 0
        for d in range(self.params):
            job.param[d] = self.parameter(d, p0 if d == 0 else p1 if d == 1 else p2 if d == 2 else p3)
        if self.squared != self.id and job.param[self.params - 1] == 2:
            job.loss = self.squared
        if mode == 3:
            mode, divisor = 2, cnp.PyArray_DIM(ax, 0) if cnp.PyArray_NDIM(ax) else 1
        if self.row_mean:
            if cnp.PyArray_NDIM(ax) == 0:
                raise ValueError(f"{self.args[0]}: expected at least one dimension, (C) or (N, C), got a 0-dimensional array")
            divisor = cnp.PyArray_DIM(ax, cnp.PyArray_NDIM(ax) - 1) if mode != 1 else 1
            if divisor == 0 and 0 in leading(shape_of(ax)):
                divisor = 1     # of no rows, whose sum is 0
        write_nothing(&job)
        plain = (weight is None and where is None and out is None and cnp.PyArray_IS_C_CONTIGUOUS(ax)
                 and not (self.row_mean and mode == 0)
                 and (ay is None or contiguous_like(ay, ax)) and (az is None or contiguous_like(az, ax)))
        if plain and request is not None:
            grads = self.bind_plain(request, &job, ax, ay, az)
            plain = grads is not None
        if not plain:
            return self.general(&job, request, mode, divisor, ax, ay, az, weight, where, out)
        size = cnp.PyArray_SIZE(ax)
        job.ndim, job.shape[0], job.size = 1, size, size
        flat_array(&job.in_[0], ax)
        flat_array(&job.in_[1], ay)
        flat_array(&job.in_[2], az)
        job.weight.data = job.where.data = job.upstream.data = NULL
        job.scale = 1 if mode == 0 or size == 0 else 1 / divisor if mode == 2 else 1 / <double>size
        job.period = period(<const Py_ssize_t *>cnp.PyArray_DIMS(ax), cnp.PyArray_NDIM(ax), size)
        job.sum = NULL
        result = None
        if mode == 0:
            result = fresh(cnp.PyArray_NDIM(ax), cnp.PyArray_DIMS(ax), wide)
            flat_array(&job.out, <cnp.ndarray>result)
            job.stream = job.stream or size * (8 if wide else 4) > STREAM_BYTES
        else:
            job.sum = <double *>1
        if self.requires and request is not None and request.out is not None:
            if size <= LF_CHUNK:
                job.stream = 1      # of a single chunk nothing is written if it is bad
            else:
                self.check_domain(&job, shape_of(ax), ax, ay, az, False)
        run(&job, &totals, False)
        if totals.bad >= 0:
            self.raise_bad(totals.bad, shape_of(ax), ax, ay, az, False)
        if mode == 0:
            result = result if cnp.PyArray_NDIM(ax) else (<cnp.ndarray>result)[()]
        else:
            result = scalar(totals.sum / divisor if mode == 2 else totals.sum / <double>size if size else float("nan"), wide)
        return result if request is None else request.outcome(result, grads)

    cdef int check_domain(self, const LfElemJob *job, tuple shape, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az, bint lifted) except -1:
        """A pass that writes nothing and raises for the first element outside the domain."""
        cdef Totals totals
        return self.look(job, &totals, False, False, shape, ax, ay, az, lifted)

    cdef int look(self, const LfElemJob *base, Totals *totals, bint want_sum, bint want_mass,
                  tuple shape, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az, bint lifted) except -1:
        """The same, for what it comes to. In the order of memory unless there is a sum, and in that of the shape once something is amiss."""
        cdef LfElemJob job = base[0]
        job.sum = <double *>1 if want_sum else NULL
        write_nothing(&job)
        self.merged(&job, not want_sum)
        run(&job, totals, want_mass)
        if totals.bad >= 0 and not want_sum:
            return self.look(base, totals, True, False, shape, ax, ay, az, lifted)
        if totals.bad >= 0:
            self.raise_bad(totals.bad, shape, ax, ay, az, lifted)
        return 0

    cdef tuple bind_plain(self, Request request, LfElemJob *job, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az):
        """Gradient arrays where every array is contiguous, of one shape and apart from the others; None leaves the call to `general`."""
        cdef tuple grads = ()
        cdef cnp.ndarray a, g
        cdef int slot, i
        if request.hessian or request.upstream is not None:
            return None
        for name in request.names:
            slot = -1
            for i in range(self.inputs):
                if name == self.args[i]:
                    slot = i
            a = ax if slot == 0 else ay if slot == 1 else az
            if slot < 0 or not is_float(dtype_code(a)):
                return None
            if request.out is None:
                g = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)
            else:
                if len(request.names) > 1 or not cnp.PyArray_CheckExact(request.out[0]):
                    return None
                g = request.out[0]
                if (not cnp.PyArray_ISWRITEABLE(g) or cnp.PyArray_TYPE(g) != cnp.PyArray_TYPE(a) or not cnp.PyArray_ISNOTSWAPPED(g)
                        or not contiguous_like(g, a) or not (apart(g, ax) and (ay is None or apart(g, ay)) and (az is None or apart(g, az)))):
                    return None
            flat_array(&job.grad[slot], g)
            job.stream = job.stream or cnp.PyArray_NBYTES(g) > STREAM_BYTES
            grads = (g,) if len(request.names) == 1 else grads + (g,)
        return grads

    cdef double parameter(self, int i, object given) except? -1e300:
        """A number given for the formula, checked."""
        cdef double value = given if type(given) is float else number(given, self.limits[i][0])
        if not self.least[i] <= value <= self.largest[i]:
            raise ValueError(f"{self.limits[i][0]}: expected {self.limits[i][3]}, got {given!r}")
        if i == 0 and self.gap is not None and <double>self.gap[0] < value < <double>self.gap[1]:
            raise ValueError(f"{self.limits[i][0]}: {self.gap[2]}, got {given}")
        return value

    cdef object general(self, LfElemJob *job, Request request, int mode, double divisor, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray given,
                        object weight, object where, object out):
        """Everything but contiguous inputs of one shape reduced to a value."""
        cdef cnp.ndarray aw = self.weights(weight), am = self.mask(where, ax), au = None, ao = None
        cdef bint lifted = self.per_row and shape_of(given) == leading(shape_of(ax)) and shape_of(given) != shape_of(ax)
        cdef cnp.ndarray az = given[..., None] if lifted else given
        cdef bint reduced = mode != 0, weighted = mode == 1 and self.weight_mean and aw is not None
        cdef bint uneven = weighted or (mode == 1 and am is not None)     # the mean's denominator is found beside the sum
        cdef Totals totals
        cdef tuple shape = self.result_shape(ax, ay, az, aw, am), grads = ()
        cdef list folds = []
        self.reads(job, shape, ax, ay, az, aw, am)
        job.count_mass = not weighted
        if request is not None:
            au = self.bind_upstream(request, job, shape, reduced)
        # Uneven means need their denominator before gradients are written; a user's array is only written once all is well.
        if (request is not None and uneven) or (self.requires and (out is not None or (request is not None and request.out is not None))):
            self.look(job, &totals, weighted, uneven, shape, ax, ay, az, lifted)
        if mode == 1:
            divisor = totals.mass if request is not None and uneven else <double>job.size
        if request is not None:
            job.scale = job.scale / divisor if divisor != 0 else 0
            job.weight_offset = -job.scale * ratio(totals.sum, divisor) if weighted else 0
        if not reduced:
            ao = self.bind_out(job, shape, ax, out, request is None, (ax, ay, az, aw, am, au))
        elif out is not None:
            raise ValueError("out: only with reduction='none'")
        if request is not None:
            grads, folds = self.bind_gradients(request, job, shape, ax, ay, given, lifted, (ax, ay, az, aw, am, au, ao))
        self.run_in_order(job, &totals, reduced, uneven)
        if totals.bad >= 0:
            self.check_domain(job, shape, ax, ay, az, lifted)
        for slot, target in folds:
            self.fold(job, slot, <cnp.ndarray>target, shape, 1)
        if self.row_mean and not reduced:
            self.fold(job, -1, ao[..., None], shape, divisor)
        if reduced:
            result = scalar(ratio(totals.sum, totals.mass if uneven else divisor), job.wide)
        else:
            result = ao if out is not None or ao.ndim else ao[()]
        return result if request is None else request.outcome(result, grads)

    cdef cnp.ndarray weights(self, object weight):
        """The weight's array, or None."""
        cdef cnp.ndarray aw
        if weight is None:
            return None
        aw = as_array(weight, "weight")
        if dtype_code(aw) == LF_BOOL:
            raise TypeError("weight: expected numbers, got dtype bool; pass a mask as where=")
        return aw

    cdef cnp.ndarray bind_upstream(self, Request request, LfElemJob *job, tuple shape, bint reduced):
        """grad_output in the call's dimensions; None where there is none, or it is one number, which scales the gradients."""
        cdef cnp.ndarray au
        if request.upstream is None:
            return None
        if reduced:
            job.scale = upstream_scalar(request)
            return None
        au = as_array(request.upstream, "grad_output")
        check_broadcast(au, leading(shape) if self.row_mean else shape, "grad_output")
        au = au[..., None] if self.row_mean else au
        describe(&job.upstream, au, job.ndim)
        return au

    cdef cnp.ndarray bind_out(self, LfElemJob *job, tuple shape, cnp.ndarray ax, object out, bint in_place, tuple others):
        """The array of values: the user's, checked, or a fresh one. The kernels write it, unless its elements are means of rows."""
        cdef tuple full = leading(shape) if self.row_mean else shape
        cdef cnp.dtype dtype = result_dtype(job.wide)
        cdef cnp.ndarray ao
        if out is None:
            ao = fresh_like(ax, full, dtype)
        else:
            ao = check_out(out, "out", full, dtype, others, in_place and not self.row_mean)
        if not self.row_mean:
            describe(&job.out, ao, job.ndim)
            job.stream = cnp.PyArray_NBYTES(ao) > STREAM_BYTES
        return ao

    cdef cnp.ndarray mask(self, object where, cnp.ndarray ax):
        """The mask in the call's dimensions, or None."""
        cdef cnp.ndarray am
        if where is None:
            return None
        am = as_array(where, "where")
        if dtype_code(am) != LF_BOOL:
            raise TypeError(f"where: expected a boolean mask, got dtype {am.dtype}")
        if self.row_mean:
            check_broadcast(am, leading(shape_of(ax)), "where")
            am = am[..., None]
        return am

    cdef int reads(self, LfElemJob *base, tuple shape, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az, cnp.ndarray aw, cnp.ndarray am) except -1:
        """A job that reads these arrays, broadcast to a shape, and writes none."""
        cdef int d
        base.size = checked_size(shape, self.args[0])
        base.ndim = len(shape)
        for d in range(base.ndim):
            base.shape[d] = shape[d]
        base.period = period(base.shape, base.ndim, base.size)
        describe(&base.in_[0], ax, base.ndim)
        describe(&base.in_[1], ay, base.ndim)
        describe(&base.in_[2], az, base.ndim)
        describe(&base.weight, aw, base.ndim)
        describe(&base.where, am, base.ndim)
        base.upstream.data = NULL
        write_nothing(base)
        base.scale, base.weight_offset = 1, 0
        return 0

    cdef int run_in_order(self, const LfElemJob *base, Totals *totals, bint reduced, bint want_mass) except -1:
        """Run `base`, in the order of its shape for a sum, in that of memory for all else. Where these differ the sum is taken alone, and if it
        finds an element outside the domain nothing is written."""
        cdef LfElemJob job = base[0]
        cdef Totals rest
        cdef bint twice = (reduced and outputs(base) > 0
                           and (nearest(base, &base.in_[0]) >= 0 or nearest(base, &base.in_[1]) >= 0 or nearest(base, &base.in_[2]) >= 0))
        job.sum = <double *>1 if reduced else NULL
        if twice:
            write_nothing(&job)
        self.merged(&job, not reduced)
        run(&job, totals, reduced and want_mass)
        if twice and totals.bad < 0:
            job = base[0]
            job.sum = NULL
            self.merged(&job, True)
            run(&job, &rest, False)
        return 0

    cdef void merged(self, LfElemJob *job, bint any_order) noexcept:
        """Merge the job's dimensions, if their order does not matter with those of the longest strides first."""
        cdef LfArray *arrays[12]
        cdef int n = 0, d
        for d in range(3):
            if job.in_[d].data != NULL:
                arrays[n] = &job.in_[d]
                n += 1
        for d in range(4):
            if job.grad[d].data != NULL:
                arrays[n] = &job.grad[d]
                n += 1
        for a in (0, 1, 2, 3, 4):
            arrays[n] = &job.weight if a == 0 else &job.where if a == 1 else &job.upstream if a == 2 else &job.out if a == 3 else &job.hess
            if arrays[n].data != NULL:
                n += 1
        job.ndim = merge_dims(job.shape, job.ndim, arrays, n)
        if any_order and job.ndim > 1:
            sort_dims(job.shape, job.ndim, arrays, n)
            job.ndim = merge_dims(job.shape, job.ndim, arrays, n)

    cdef tuple result_shape(self, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az, cnp.ndarray aw, cnp.ndarray am):
        cdef tuple shape = shape_of(ax)
        if (ay is not None and not has_shape(ay, shape)) or (az is not None and not has_shape(az, shape)):
            shape = self.broadcast(ax, ay, az)
        if aw is not None:
            check_broadcast(aw, shape, "weight")
        if am is not None:
            check_broadcast(am, shape, "where")
        return shape

    cdef tuple broadcast(self, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az):
        """The shape that inputs of different shapes broadcast to, where that is allowed."""
        cdef tuple shape
        if ay is not None and self.args[1] == "target" and shape_of(ax) != shape_of(ay):
            if self.same_shape:
                raise ValueError(f"target: expected the shape of {self.args[0]}, {shape_of(ax)}, got {shape_of(ay)}")
            if self.warn_broadcast:
                warnings.warn(f"target: shape {shape_of(ay)} differs from that of {self.args[0]}, {shape_of(ax)}; they are broadcast, "
                              "which is often a mistake", UserWarning, stacklevel=2)
        shape = broadcast_shape([(n, a) for n, a in zip(self.args, (ax, ay, az))])
        if self.same_shape and shape != shape_of(ax):
            raise ValueError(f"{self.args[2]}: expected a shape that broadcasts to {shape_of(ax)}, got {shape_of(az)}")
        return shape

    cdef tuple bind_gradients(self, Request request, LfElemJob *base, tuple shape, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az,
                              bint lifted, tuple arrays):
        """Gradient arrays; those of broadcast arguments are left for a pass of their own. `arrays`: the inputs, weight, mask, upstream and out."""
        cdef list grads = [], folds = []
        cdef int slot, i
        cdef cnp.ndarray g, a, aw = arrays[3]
        for i, name in enumerate(request.names):
            slot = 3 if name == "weight" and "weight" not in self.args else self.args.index(name) if name in self.args else -1
            a = None if slot < 0 else (ax, ay, az, aw)[slot]
            if a is None:
                known = ", ".join(self.args + (("weight",) if aw is not None else ()))
                raise ValueError(f"argnums: {name} is not an array argument of this call; there is {known}")
            g = gradient_array(request, i, a, name, arrays, slot == 0 and not (self.row_mean and arrays[6] is not None))
            grads.append(g)
            if lifted and slot == 2:
                g, a = g[..., None], a[..., None]
            if shape_of(a) == shape:
                describe(&base.grad[slot], g, base.ndim)
                if g.nbytes > STREAM_BYTES:
                    base.stream = 1
            else:
                folds.append((slot, g))
        if not self.hessian:
            request.refuse_hessian()
        if request.hessian:
            if shape_of(ax) != shape:
                raise ValueError(f"{self.args[0]}: expected the broadcast shape {shape} for a Hessian, got {shape_of(ax)}")
            g = gradient_array(request, len(request.names), ax, self.args[0], arrays)
            describe(&base.hess, g, base.ndim)
            grads.append(g)
        return tuple(grads), folds

    cdef int fold(self, LfElemJob *base, int slot, cnp.ndarray g, tuple shape, double divisor) except -1:
        """Gradient by a broadcast argument, or the value (slot -1), over a divisor: its own dimensions first, then those it is summed over, last any
        of its own after all of these."""
        cdef LfElemJob job = base[0]
        cdef int ndim = len(shape), lead = ndim - cnp.PyArray_NDIM(g), d, last, i = 0
        cdef Py_ssize_t outer, pieces, blocks, most
        cdef tuple kept = tuple([d for d in range(ndim) if d >= lead and cnp.PyArray_DIM(g, d - lead) == shape[d]])
        cdef tuple summed = tuple([d for d in range(ndim) if d not in kept])
        write_nothing(&job)
        if slot < 0:
            job.upstream.data = NULL
        if job.size == 0:
            g[...] = 0 if divisor != 0 else np.nan
            return 0
        last = max(summed, default=ndim)
        job.fold, job.inner = math.prod([shape[d] for d in summed]), math.prod([shape[d] for d in kept if d > last])
        for d in [d for d in kept if d < last] + list(summed) + [d for d in kept if d > last]:
            job.shape[i] = shape[d]
            for q in range(3):
                job.in_[q].stride[i] = base.in_[q].stride[d]
            job.weight.stride[i], job.where.stride[i], job.upstream.stride[i] = base.weight.stride[d], base.where.stride[d], base.upstream.stride[d]
            i += 1
        self.merged(&job, False)
        outer = job.size // (job.fold * job.inner)
        if job.inner > 1:
            most = max(1, FOLD_ROOM // (outer * job.inner))
            job.fold_rows = max(128, 2 * LF_ELEM_PIECE // job.inner, (job.fold + most - 1) // most)
            pieces = (job.fold + job.fold_rows - 1) // job.fold_rows
            blocks = outer * pieces * ((job.inner + LF_CHUNK - 1) // LF_CHUNK)
        else:
            pieces = 1 if job.fold <= LF_ELEM_PIECE else (job.fold + LF_ELEM_PIECE - 1) // LF_ELEM_PIECE
            blocks = outer * pieces if pieces > 1 else (outer + LF_ELEM_PIECE // job.fold - 1) // (LF_ELEM_PIECE // job.fold)
        folded = np.empty((outer, job.inner, pieces), np.float64)
        job.folded, job.fold_arg = <double *>cnp.PyArray_DATA(<cnp.ndarray>folded), slot
        with nogil:
            each(elem_fold, &job, 0, blocks, threads_for(blocks, 3))
        with np.errstate(over="ignore", invalid="ignore"):
            g[...] = (folded.sum(axis=2) if pieces > 1 else folded).reshape(shape_of(g)) / divisor
        return 0

    cdef int raise_bad(self, Py_ssize_t code, tuple shape, cnp.ndarray ax, cnp.ndarray ay, cnp.ndarray az, bint lifted) except -1:
        cdef cnp.ndarray own = (ax, ay, az)[code & 3]
        index = first_index(code >> 2, shape)
        name = self.args[code & 3]
        value = np.broadcast_to(own, shape)[index]
        index = tuple([0 if n == 1 else i for i, n in zip(index[len(shape) - own.ndim:], shape_of(own))])
        index = leading(index) if lifted and code & 3 == 2 else index
        raise ValueError(f"{subscript(name, index)} = {value} is out of range: expected {self.requires[name]}")


def elementwise(kernel, args, **options):
    """The function that computes an elementwise loss. A method: Cython passes the arguments of an object that is called as a tuple, 40 ns more."""
    return Elementwise(kernel, args, **options).loss


cdef inline double ratio(double a, double b) noexcept:
    return a / b if b != 0 else float("nan")


cdef inline bint is_number(object given):
    return type(given) is float or type(given) is int or type(given) is bool


cdef inline bint widens(object given, cnp.ndarray a, bint is_input):
    """Whether an argument makes the computation double: float64 arrays do, and an input of integers; Python's own numbers do not."""
    cdef int code = dtype_code(a)
    if is_number(given):
        return False
    return code == LF_F64 or (is_input and not is_float(code))


cdef inline bint contiguous_like(cnp.ndarray a, cnp.ndarray b):
    cdef int d, ndim = cnp.PyArray_NDIM(a)
    if ndim != cnp.PyArray_NDIM(b) or not cnp.PyArray_IS_C_CONTIGUOUS(a):
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
    return True


cdef inline void flat_array(LfArray *v, cnp.ndarray a):
    """A contiguous array as one dimension."""
    if a is None:
        v.data = NULL
        return
    v.data = <char *>cnp.PyArray_DATA(a)
    v.dtype = dtype_code(a)
    v.stride[0] = cnp.PyArray_ITEMSIZE(a)


cdef inline void describe(LfArray *v, cnp.ndarray a, int ndim):
    if a is None:
        v.data = NULL
    else:
        fill_array(v, a, dtype_code(a), ndim)


cdef inline tuple leading(tuple shape):
    """All but the last."""
    return shape[:len(shape) - 1] if len(shape) else shape


cdef tuple broadcast_shape(list parts):
    """The shape that named arrays broadcast to."""
    cdef list shape = []
    cdef int d, i
    for name, a in parts:
        if a is None:
            continue
        other = shape_of(a)
        for d in range(len(other)):
            i = len(other) - 1 - d
            if d == len(shape):
                shape.append(other[i])
            elif shape[d] == 1:
                shape[d] = other[i]
            elif other[i] not in (1, shape[d]):
                raise ValueError(f"{name}: shape {other} does not broadcast with {tuple(reversed(shape))}")
    return tuple(reversed(shape))


cdef int check_broadcast(cnp.ndarray a, tuple shape, str name) except -1:
    cdef int d, lead = len(shape) - cnp.PyArray_NDIM(a)
    cdef Py_ssize_t n
    for d in range(cnp.PyArray_NDIM(a)):
        n = cnp.PyArray_DIM(a, d)
        if lead < 0 or (n != 1 and n != <Py_ssize_t>shape[lead + d]):
            raise ValueError(f"{name}: expected a shape that broadcasts to {shape}, got {shape_of(a)}")
    return 0
