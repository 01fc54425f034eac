# CTC: lengths and targets checked and copied, memory found, tasks run on threads. The recursion is ctc.h's, the order of tasks ctc_job.h's.
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.math cimport INFINITY
from libc.string cimport memset

cdef size_t CTC_GROUP_BYTES = 64 << 20   # of emissions in hand: larger batches are worked on a group of samples at a time
cdef Py_ssize_t ANY_CLASS = 2147483647   # as a number of classes: any will do
cdef double CTC_SERIAL = 65536           # entries and states up to which starting threads costs more than they save


@cython.final
cdef class CtcCall:
    """The arguments of one call as the kernels want them; owns what they point to."""
    cdef LfCtcJob job
    cdef cnp.ndarray x, targets
    cdef bint batched
    cdef int64_t *frames
    cdef int64_t *lengths
    cdef double *scale
    cdef Py_ssize_t *at         # where each sample's labels start
    cdef Py_ssize_t labels      # of all samples
    cdef Py_ssize_t longest

    def __dealloc__(self):
        free(self.frames)
        free(self.job.labels)

    cdef int allocate(self, Py_ssize_t N) except -1:
        self.frames = <int64_t *>allocated(<double>N * 40 + 8)
        self.lengths = self.frames + N
        self.at = <Py_ssize_t *>(self.lengths + N)
        self.scale = <double *>(self.at + N)
        self.job.loss = self.scale + N
        self.job.frames, self.job.lengths, self.job.scale = self.frames, self.lengths, self.scale
        return 0


cdef void *allocated(double size) except NULL:
    cdef void *memory = malloc(<size_t>size) if size < <double>PY_SSIZE_T_MAX else NULL
    if memory == NULL:
        raise MemoryError(f"cannot allocate {size:.0f} bytes")
    return memory


cdef void *borrowed(double size) except NULL:
    """Aligned working memory, to be given back by lf_ctc_return."""
    cdef void *memory = lf_ctc_borrow(<size_t>size) if size < <double>PY_SSIZE_T_MAX else NULL
    if memory == NULL:
        raise MemoryError(f"cannot allocate {size:.0f} bytes")
    return memory


# ---- arguments

cdef cnp.ndarray integers(object x, str name):
    cdef cnp.ndarray a = as_array(x, name)
    if cnp.PyArray_SIZE(a) == 0 and not isinstance(x, np.ndarray):
        return a.astype(np.int64)   # an empty list says nothing of its type
    if not is_integer(dtype_code(a)):
        raise TypeError(f"{name}: expected integers, got dtype {a.dtype}")
    return a


cdef int64_t small_length(object x, Py_ssize_t most) except? -2:
    """A Python integer from 0 to `most`, or -1: to be looked at more closely."""
    cdef int overflow = 0
    cdef int64_t length = PyLong_AsLongLongAndOverflow(x, &overflow) if type(x) is int else -1
    return length if 0 <= length <= most and not overflow else -1


cdef bint read_python_lengths(int64_t *to, object lengths, Py_ssize_t N, Py_ssize_t most) except -1:
    """Lengths that are a Python integer, or a list or tuple of them; no array is made. False if they are not that, or not right."""
    cdef Py_ssize_t n
    if type(lengths) is int:
        for n in range(N):
            to[n] = small_length(lengths, most)
            if to[n] < 0:
                return False
        return True
    if not (type(lengths) is list or type(lengths) is tuple) or len(lengths) != N:
        return False
    for n in range(N):
        to[n] = small_length(lengths[n], most)
        if to[n] < 0:
            return False
    return True


cdef int read_lengths(int64_t *to, object lengths, str name, Py_ssize_t N, Py_ssize_t most, str what, cnp.ndarray of=None) except -1:
    """One length for each sample, from 0 to `most`, the extent of the array `of` or else the number of `what`; a single integer holds for all."""
    cdef cnp.ndarray a, wide
    cdef Py_ssize_t n, step = 0
    cdef const char *data
    if not cnp.PyArray_Check(lengths) and read_python_lengths(to, lengths, N, most):
        return 0
    a = integers(lengths, name)
    if cnp.PyArray_NDIM(a) > 1 or (cnp.PyArray_NDIM(a) == 1 and cnp.PyArray_DIM(a, 0) != N):
        raise ValueError(f"{name}: expected one length for each sample, shape ({N},), got shape {shape_of(a)}")
    wide = a if dtype_code(a) == LF_I64 and cnp.PyArray_ISALIGNED(a) else a.astype(np.int64)
    if cnp.PyArray_NDIM(a):
        step = cnp.PyArray_STRIDE(wide, 0)
    data = <const char *>cnp.PyArray_DATA(wide)
    for n in range(N):
        to[n] = (<const int64_t *>(data + n * step))[0]
        if not 0 <= to[n] <= most:
            index = (n,) if cnp.PyArray_NDIM(a) else ()
            limit = f"{most} {what}" if of is None else f"{what} of shape {shape_of(of)}"
            fault = f"no number of {what}" if most == PY_SSIZE_T_MAX else f"out of range for {limit}"
            raise ValueError(f"{subscript(name, index)} = {a[index]} is {fault}")
    return 0


cdef Py_ssize_t class_index(object blank, Py_ssize_t C, bint from_end) except -1:
    """The blank; `from_end`: -1 is the last class."""
    i = blank if type(blank) is int else whole_number(blank, "blank")
    if not (-C if from_end else 0) <= i < C:
        raise ValueError(f"blank: {i} is out of range for {C} classes")
    return i + C if i < 0 else i


cdef cnp.ndarray frames_array(object log_probs, str name):
    """(T, N, C) or (T, C) in a floating dtype."""
    cdef cnp.ndarray x = as_array(log_probs, name)
    if not 2 <= cnp.PyArray_NDIM(x) <= 3:
        raise ValueError(f"{name}: expected shape (T, N, C), or (T, C) for one sample, got shape {shape_of(x)}")
    if cnp.PyArray_SIZE(x) > PY_SSIZE_T_MAX // 16:
        checked_size(shape_of(x), name)
    return x if is_float(dtype_code(x)) else x.astype(np.float64)


cdef int read_targets(CtcCall call, object targets, object target_lengths) except -1:
    """Lengths, class indices and where each sample's lie: targets are padded to (N, S), or one after the other."""
    cdef cnp.ndarray y = integers(targets, "targets")
    cdef Py_ssize_t N = call.job.N, n, step, sample = 0, position = 0
    cdef int ndim = cnp.PyArray_NDIM(y)
    cdef bint padded = ndim == 2
    cdef int64_t value = 0
    if ndim == 0 or ndim > 2 or (padded and cnp.PyArray_DIM(y, 0) != N):
        raise ValueError(f"targets: expected class indices of shape ({N}, S) or, one sample after the other, (sum of target_lengths,), "
                         f"got shape {shape_of(y)}")
    read_lengths(call.lengths, target_lengths, "target_lengths", N, cnp.PyArray_DIM(y, ndim - 1), "targets", y)
    step = cnp.PyArray_STRIDE(y, ndim - 1)
    call.labels = call.longest = 0
    for n in range(N):
        call.at[n] = n * cnp.PyArray_STRIDE(y, 0) if padded else call.labels * step
        call.labels += call.lengths[n]
        if call.lengths[n] > call.longest:
            call.longest = call.lengths[n]
        if not padded and call.labels > cnp.PyArray_DIM(y, 0):
            break
    if not padded and call.labels != cnp.PyArray_DIM(y, 0):
        total = sum([call.lengths[n] for n in range(N)])
        raise ValueError(f"targets: expected as many class indices as target_lengths sum up to, {total}, got {cnp.PyArray_DIM(y, 0)}")
    call.targets = y
    call.job.labels = <int32_t *>allocated(<double>call.labels * 4 + 8)
    if lf_ctc_labels(&call.job, <const char *>cnp.PyArray_DATA(y), dtype_code(y), call.at, step, &sample, &position, &value):
        index = tuple([sample, position] if padded else [sum([call.lengths[n] for n in range(sample)]) + position])
        where = "" if padded or N == 1 else f" (label {position} of sample {sample})"
        fault = "no class" if call.job.C == ANY_CLASS else f"out of range for {call.job.C} classes"
        raise IndexError(f"{subscript('targets', index)} = {y[index]}{where} is {fault}")
    return 0


cdef CtcCall open_ctc(object log_probs, object targets, object input_lengths, object target_lengths, object blank, object from_logits):
    cdef CtcCall call = CtcCall.__new__(CtcCall)
    cdef cnp.ndarray x = frames_array(log_probs, "log_probs")
    cdef LfCtcJob *job = &call.job
    cdef int ndim = cnp.PyArray_NDIM(x)
    memset(job, 0, sizeof(LfCtcJob))
    call.x, call.batched = x, ndim == 3
    job.x, job.x_dtype, job.from_logits = <const char *>cnp.PyArray_DATA(x), dtype_code(x), flag(from_logits, "from_logits")
    job.steps, job.N, job.C = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1) if call.batched else 1, cnp.PyArray_DIM(x, ndim - 1)
    job.x_t, job.x_n, job.x_c = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1) if call.batched else 0, cnp.PyArray_STRIDE(x, ndim - 1)
    job.blank = class_index(blank, job.C, False)
    call.allocate(job.N)
    read_lengths(call.frames, input_lengths, "input_lengths", job.N, job.steps, "frames")
    read_targets(call, targets, target_lengths)
    return call


# ---- tasks on threads

cdef void ctc_rows(const LfCtcJob *job, char *scratch, Py_ssize_t stride, int threads) noexcept nogil:
    cdef Py_ssize_t i, chunk = max(1, job.row_tasks // (16 * threads))
    if threads == 1:
        for i in range(job.row_tasks):
            K.ctc_rows(job, i, scratch)
    else:
        for i in prange(job.row_tasks, schedule="dynamic", chunksize=chunk, num_threads=threads):
            K.ctc_rows(job, i, scratch + threadid() * stride)


cdef void ctc_sample(const LfCtcJob *job, Py_ssize_t n, char *memory) noexcept nogil:
    """All of one sample, in one thread."""
    cdef int dir
    if job.path != NULL:
        for dir in range(2):
            K.ctc_align_half(job, n, dir, memory)
        for dir in range(2):
            K.ctc_align_rest(job, n, dir, memory)
        return
    for dir in range(2):
        K.ctc_half(job, n, dir, memory)
    K.ctc_loss(job, n, memory)
    if job.g != NULL:
        for dir in range(2):
            K.ctc_rest(job, n, dir, memory)


cdef void ctc_slab(const LfCtcJob *job, Py_ssize_t task, bint fused, char *memory) noexcept nogil:
    """A sample or, fused, all those of a row task and their rows, in one thread."""
    cdef Py_ssize_t n
    if not fused:
        ctc_sample(job, task, memory)
        return
    K.ctc_rows(job, task, NULL)
    for n in range(lf_ctc_slab(job, task), lf_ctc_slab(job, task + 1)):
        ctc_sample(job, n, memory)


cdef void ctc_samples(const LfCtcJob *job, bint fused, char *memory, Py_ssize_t stride, int threads) noexcept nogil:
    cdef Py_ssize_t i, tasks = job.row_tasks if fused else job.N
    if threads == 1:
        for i in range(tasks):
            ctc_slab(job, i, fused, memory)
    else:
        for i in prange(tasks, schedule="dynamic", num_threads=threads):
            ctc_slab(job, i, fused, memory + threadid() * stride)


cdef void ctc_directions(const LfCtcJob *job, char *memory, Py_ssize_t stride, int threads) noexcept nogil:
    """Both directions of a sample at once: few samples on many threads."""
    cdef Py_ssize_t k
    cdef bint path = job.path != NULL
    for k in prange(2 * job.N, schedule="dynamic", num_threads=threads):
        if path:
            K.ctc_align_half(job, k // 2, k % 2, memory + (k // 2) * stride)
        else:
            K.ctc_half(job, k // 2, k % 2, memory + (k // 2) * stride)
    if not path:
        for k in range(job.N):
            K.ctc_loss(job, k, memory + k * stride)
        if job.g == NULL:
            return
    for k in prange(2 * job.N, schedule="dynamic", num_threads=threads):
        if path:
            K.ctc_align_rest(job, k // 2, k % 2, memory + (k // 2) * stride)
        else:
            K.ctc_rest(job, k // 2, k % 2, memory + (k // 2) * stride)


cdef Py_ssize_t ctc_near(const LfCtcJob *job, char *memory, Py_ssize_t stride, int threads) noexcept nogil:
    """How many samples are aligned by the search alone."""
    cdef Py_ssize_t n, done = 0
    if threads == 1 or job.N == 1:
        for n in range(job.N):
            done += K.ctc_align_near(job, n, memory)
    else:
        for n in prange(job.N, schedule="dynamic", num_threads=threads):
            done += K.ctc_align_near(job, n, memory + (threadid() if job.whole else n) * stride)
    return done


cdef size_t aligned(size_t size) noexcept nogil:
    return (size + 63) & ~<size_t>63


cdef int ctc_threads(const LfCtcJob *job) noexcept:
    cdef bint gathers = not job.small and not job.from_logits   # an entry takes as long as four others
    cdef double work = 0 if gathers else <double>job.steps * job.N * job.C
    cdef Py_ssize_t n
    for n in range(job.N):
        work += <double>job.frames[n] * (6. * job.lengths[n] + 4 if gathers else 2. * job.lengths[n])
    return threads_for(max(job.row_tasks, 2 * job.N), 2) if work > CTC_SERIAL else 1


cdef int run_ctc_group(LfCtcJob *job) except -1:
    cdef int threads = ctc_threads(job)
    cdef bint whole = threads == 1 or job.N >= 2 * threads    # samples, or their directions, as tasks
    cdef bint fused = whole and job.path == NULL and (job.small or not job.from_logits)   # long rows of logits are tasks themselves
    cdef Py_ssize_t lattices = min(<Py_ssize_t>threads, job.N) if whole else job.N
    cdef size_t plan = aligned(job.plan_bytes), lattice = aligned(job.lattice_bytes), row = aligned(job.row_bytes)
    cdef void *memory = borrowed(<double>plan + <double>lattice * lattices + <double>row * threads)
    cdef char *at = <char *>memory
    cdef char *work
    cdef Py_ssize_t done = 0
    job.whole = whole
    if fused:
        lf_ctc_fuse(job, threads)
    with nogil:
        lf_ctc_plan(job, at)
        work = at + plan + row * threads
        if job.path != NULL and job.small:
            done = ctc_near(job, work, lattice, threads)
        if done < job.N and not fused:
            ctc_rows(job, at + plan, row, threads)
        if job.path != NULL and not job.small:
            done = ctc_near(job, work, lattice, threads)
        if done < job.N and whole:
            ctc_samples(job, fused, work, lattice, threads)
        elif done < job.N:
            ctc_directions(job, work, lattice, threads)
        lf_ctc_return(memory)
    return 0


cdef int run_ctc(CtcCall call) except -1:
    """All samples, in groups whose emissions take no more than CTC_GROUP_BYTES, or of one."""
    cdef LfCtcJob job = call.job
    cdef Py_ssize_t left = job.N, n
    cdef bint fits
    while left:
        job.N = left
        while True:
            fits = lf_ctc_measure(&job)
            if job.N == 1 or (fits and job.plan_bytes <= CTC_GROUP_BYTES):
                break
            job.N = max(1, min(job.N // 2, <Py_ssize_t>(<double>job.N * CTC_GROUP_BYTES / job.plan_bytes)) if fits else job.N // 2)
        if not fits:
            raise MemoryError(f"log_probs: {job.steps} frames and {call.longest} labels need more memory than can be addressed")
        run_ctc_group(&job)
        PyErr_CheckSignals()
        for n in range(job.N):
            job.labels += job.lengths[n]
        n = job.N
        job.x += n * job.x_n
        if job.g != NULL:
            job.g += n * job.g_n
        if job.path != NULL:
            job.path += n * job.steps
            job.score += n * job.steps
        job.frames, job.lengths, job.scale, job.loss = job.frames + n, job.lengths + n, job.scale + n, job.loss + n
        left -= n
    return 0


# ---- functions

cdef cnp.ndarray ctc_gradient(CtcCall call, Request request, object log_probs, object out):
    cdef cnp.ndarray g
    check_single(request, "log_probs")
    g = gradient_array(request, 0, call.x, "log_probs", (call.targets, out))
    if request.out_for(0) is not None:   # log_probs are read again after the gradient's rows are written
        for other in (call.x, log_probs):
            if isinstance(other, np.ndarray) and overlap(g, other):
                raise ValueError("grad_out: overlaps log_probs")
    return g


cdef int ctc_scale(CtcCall call, Request request, int mode, bint by_length) except -1:
    """Factors of the samples' gradients; by_length: a mean over samples is one of losses by label."""
    cdef Py_ssize_t n, N = call.job.N
    cdef double upstream = 1
    cdef cnp.ndarray scales = None
    if request.upstream is not None:
        if mode == 0:
            scales = as_array(request.upstream, "grad_output")
            shape = (N,) if call.batched else ()
            check_broadcast(scales, shape, "grad_output")
            scales = np.array(np.broadcast_to(scales, (N,)), np.float64)
        else:
            upstream = upstream_scalar(request)
    for n in range(N):
        call.scale[n] = (<double *>cnp.PyArray_DATA(scales))[n] if scales is not None else upstream
        if mode == 1:
            call.scale[n] /= <double>N * (max(call.lengths[n], 1) if by_length else 1)
    return 0


cdef void bind_gradient(LfCtcJob *job, cnp.ndarray g, bint batched) noexcept:
    cdef int ndim = cnp.PyArray_NDIM(g)
    job.g, job.g_dtype = <char *>cnp.PyArray_DATA(g), dtype_code(g)
    job.g_t, job.g_n, job.g_c = cnp.PyArray_STRIDE(g, 0), cnp.PyArray_STRIDE(g, 1) if batched else 0, cnp.PyArray_STRIDE(g, ndim - 1)


def ctc_loss(object log_probs, object targets, object input_lengths, object target_lengths, object blank, object reduction, object zero_infinity,
             object from_logits, object out):
    """See lossfast.functional."""
    cdef Request request = take_request()
    cdef int mode = reduction_code(reduction)
    cdef bint finite = flag(zero_infinity, "zero_infinity")
    cdef CtcCall call = open_ctc(log_probs, targets, input_lengths, target_lengths, blank, from_logits)
    cdef bint wide = call.job.x_dtype == LF_F64
    cdef cnp.ndarray ao = None, g = None
    cdef Py_ssize_t n, N = call.job.N
    cdef double *loss = call.job.loss
    if out is not None:
        if mode != 0:
            raise ValueError("out: only with reduction='none'")
        ao = check_out(out, "out", (N,) if call.batched else (), result_dtype(wide), (call.x, call.targets))
    if request is not None:
        ctc_scale(call, request, mode, True)
        g = ctc_gradient(call, request, log_probs, out)
        bind_gradient(&call.job, g, call.batched)
        call.job.stream = cnp.PyArray_NBYTES(g) > STREAM_BYTES
    run_ctc(call)
    for n in range(N):
        if finite and loss[n] == INFINITY:
            loss[n] = 0
        if mode == 1:
            loss[n] /= max(call.lengths[n], 1)
    if mode != 0:
        result = scalar((ordered_sum(loss, N) / N if N else float("nan")) if mode == 1 else ordered_sum(loss, N), wide)
    elif not call.batched and ao is None:
        result = scalar(loss[0], wide)
    else:
        losses = copied(loss, N)
        if ao is None:
            ao = fresh(1, <cnp.npy_intp *>&call.job.N, wide)
        with np.errstate(over="ignore"):
            ao[...] = losses if call.batched else losses[0]
        result = ao
    return result if request is None else request.outcome(result, (g,))


def ctc_posteriors(object log_probs, object targets, object input_lengths, object target_lengths, object blank, object from_logits):
    """See lossfast.functional."""
    cdef CtcCall call = open_ctc(log_probs, targets, input_lengths, target_lengths, blank, from_logits)
    cdef LfCtcJob *job = &call.job
    states = 2 * call.longest + 1
    cdef tuple shape = (job.steps, job.N, states)
    if not call.batched:
        shape = (job.steps, states)
    checked_size(shape, "log_probs")
    cdef cnp.ndarray g = np.zeros(shape, np.float64 if job.x_dtype == LF_F64 else np.float32)
    bind_gradient(job, g, call.batched)
    job.states = 1
    run_ctc(call)
    return g


cdef int check_feasible(CtcCall call) except -1:
    cdef Py_ssize_t n, i, repeats
    cdef const int32_t *label = call.job.labels
    for n in range(call.job.N):
        repeats = 0
        for i in range(1, call.lengths[n]):
            repeats += label[i] == label[i - 1]
        if call.lengths[n] + repeats > call.frames[n]:
            raise ValueError(f"targets: sample {n} needs at least {call.lengths[n] + repeats} frames ({call.lengths[n]} labels, {repeats} repeats), "
                             f"input_lengths[{n}] is {call.frames[n]}")
        label += call.lengths[n]
    return 0


def ctc_align(object log_probs, object targets, object input_lengths, object target_lengths, object blank, object from_logits):
    """(labels, scores) of frames, (start, end, score) of tokens and the score of the path: see lossfast.functional."""
    cdef CtcCall call = open_ctc(log_probs, targets, input_lengths, target_lengths, blank, from_logits)
    cdef LfCtcJob *job = &call.job
    cdef bint wide = job.x_dtype == LF_F64
    cdef int ndim = 2 if call.batched else 1
    cdef cnp.npy_intp *frames = [job.N, job.steps]
    cdef cnp.npy_intp *tokens = [job.N, call.longest]
    cdef const int32_t *label = job.labels
    cdef Py_ssize_t n
    check_feasible(call)
    checked_size((job.N, job.steps), "log_probs")
    cdef cnp.ndarray path = cnp.PyArray_EMPTY(ndim, frames + 2 - ndim, cnp.NPY_INT32, 0), score = fresh(ndim, frames + 2 - ndim, wide)
    cdef cnp.ndarray start = cnp.PyArray_EMPTY(ndim, tokens + 2 - ndim, cnp.NPY_INT64, 0)
    cdef cnp.ndarray end = cnp.PyArray_EMPTY(ndim, tokens + 2 - ndim, cnp.NPY_INT64, 0), mean = fresh(ndim, tokens + 2 - ndim, wide)
    cdef CtcSpans spans = [<int64_t *>cnp.PyArray_DATA(start), <int64_t *>cnp.PyArray_DATA(end), <char *>cnp.PyArray_DATA(mean),
                           <char *>cnp.PyArray_DATA(score), wide]
    job.path = <int32_t *>cnp.PyArray_DATA(path)
    job.score = <double *>cnp.PyArray_DATA(score) if wide else <double *>allocated(<double>job.N * job.steps * 8 + 8)
    try:
        run_ctc(call)
        with nogil:
            for n in range(job.N):
                ctc_spans(job, n, label, call.longest, &spans)
                label += job.lengths[n]
    finally:
        if not wide:
            free(job.score)
    if not call.batched:
        return path, score, start, end, mean, scalar(-job.loss[0], wide)
    cdef cnp.ndarray total = fresh(1, frames, wide)
    for n in range(job.N):
        put_real(<char *>cnp.PyArray_DATA(total), wide, n, -job.loss[n])
    return path, score, start, end, mean, total


cdef struct CtcSpans:
    int64_t *start
    int64_t *end
    char *mean      # double or float, as score
    char *score
    bint wide


cdef inline void put_real(char *to, bint wide, Py_ssize_t i, double value) noexcept nogil:
    if wide:
        (<double *>to)[i] = value
    else:
        (<float *>to)[i] = <float>value


cdef void ctc_spans(const LfCtcJob *job, Py_ssize_t n, const int32_t *label, Py_ssize_t width, const CtcSpans *to) noexcept nogil:
    """States of the path of sample n become classes; frames of its labels and their mean scores, [N][width]."""
    cdef Py_ssize_t t, i, state
    cdef int32_t *path = job.path + n * job.steps
    cdef const double *score = job.score + n * job.steps
    cdef int64_t *start = to.start + n * width
    cdef int64_t *end = to.end + n * width
    cdef double sum = 0
    for i in range(width):
        start[i] = end[i] = -1
        put_real(to.mean, to.wide, n * width + i, -INFINITY)
    for t in range(job.steps):
        state = path[t]
        put_real(to.score, to.wide, n * job.steps + t, score[t])
        if state < 0:
            continue
        if state % 2 == 0:
            path[t] = <int32_t>job.blank
            continue
        i = state // 2
        path[t] = label[i]
        if start[i] < 0:
            start[i], sum = t, 0
        sum += score[t]
        if t + 1 == job.steps or path[t + 1] != state:
            end[i] = t + 1
            put_real(to.mean, to.wide, n * width + i, sum / (end[i] - start[i]))


def ctc_missing_frames(object targets, object input_lengths, object target_lengths):
    """How many frames more each sample would need: see ctc_feasible."""
    cdef CtcCall call = CtcCall.__new__(CtcCall)
    cdef Py_ssize_t n, i
    cdef cnp.ndarray y = integers(targets, "targets"), missing
    cdef cnp.ndarray lengths = integers(input_lengths, "input_lengths"), labels = integers(target_lengths, "target_lengths")
    cdef int64_t *out
    cdef const int32_t *label
    memset(&call.job, 0, sizeof(LfCtcJob))
    for a, name in ((lengths, "input_lengths"), (labels, "target_lengths")):
        if a.ndim > 1:
            raise ValueError(f"{name}: expected one length for each sample, got shape {shape_of(a)}")
    cdef tuple shape = shape_of(y)[:1] if y.ndim == 2 else shape_of(lengths if lengths.ndim else labels)
    call.job.N, call.job.C = shape[0] if shape else 1, ANY_CLASS
    call.allocate(call.job.N)
    read_lengths(call.frames, lengths, "input_lengths", call.job.N, PY_SSIZE_T_MAX, "frames")
    read_targets(call, y, labels)
    missing = np.zeros(call.job.N, np.int64)
    out, label = <int64_t *>cnp.PyArray_DATA(missing), call.job.labels
    for n in range(call.job.N):
        out[n] = call.lengths[n] - call.frames[n]
        for i in range(1, call.lengths[n]):
            out[n] += label[i] == label[i - 1]
        out[n] = max(out[n], 0)
        label += call.lengths[n]
    return missing if shape else missing[0]


# ---- decoding

cdef struct Decoding:
    const LfCtcDecode *job
    char *memory
    Py_ssize_t stride       # of each thread's part


cdef void decode_sample(const void *at, Py_ssize_t i, int thread) noexcept nogil:
    cdef const Decoding *d = <const Decoding *>at
    if d.job.width:
        K.ctc_beam(d.job, i, d.memory + thread * d.stride)
    else:
        K.ctc_greedy(d.job, i, d.memory + thread * d.stride)


cdef Py_ssize_t number_up_to(object given, str name, Py_ssize_t most) except -1:
    i = whole_number(given, name)
    if not 1 <= i <= most:
        raise ValueError(f"{name}: expected a number from 1 to {most}, got {i}")
    return i


def ctc_decode(object log_probs, object input_lengths, object blank, object beam_width, object top, object from_logits):
    """(labels, lengths, scores) by [sample][rank]; beam_width None: the best class of each frame. See lossfast.functional."""
    cdef cnp.ndarray x = frames_array(log_probs, "log_probs")
    cdef int ndim = cnp.PyArray_NDIM(x), threads
    cdef bint batched = ndim == 3
    cdef LfCtcDecode job
    cdef size_t stride
    job.x, job.x_dtype, job.from_logits = <const char *>cnp.PyArray_DATA(x), dtype_code(x), flag(from_logits, "from_logits")
    job.steps, job.N, job.C = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1) if batched else 1, cnp.PyArray_DIM(x, ndim - 1)
    job.x_t, job.x_n, job.x_c = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1) if batched else 0, cnp.PyArray_STRIDE(x, ndim - 1)
    job.blank, job.width, job.top = class_index(blank, job.C, False), 0, 1
    if beam_width is not None:
        job.width = number_up_to(beam_width, "beam_width", 1000000)
        job.top = number_up_to(top, "top", job.width)
    if job.C > 2147483647 or <double>job.steps * max(job.width, 1) > 2e9:
        raise MemoryError(f"log_probs: {job.steps} frames of {job.C} classes are too many to decode with beam_width {beam_width}")
    shape = (job.N, job.top, job.steps)
    checked_size(shape, "log_probs")
    cdef cnp.ndarray frames = np.empty(job.N, np.int64), labels = np.empty(shape, np.int32)
    cdef cnp.ndarray lengths = np.empty(shape[:2], np.int64), score = np.empty(shape[:2])
    read_lengths(<int64_t *>cnp.PyArray_DATA(frames), job.steps if input_lengths is None else input_lengths, "input_lengths", job.N, job.steps,
                 "frames")
    job.frames, job.labels = <int64_t *>cnp.PyArray_DATA(frames), <int32_t *>cnp.PyArray_DATA(labels)
    job.lengths, job.score = <int64_t *>cnp.PyArray_DATA(lengths), <double *>cnp.PyArray_DATA(score)
    threads = threads_for(job.N, 2) if <double>job.N * job.steps * (job.C + job.width) > CTC_SERIAL else 1
    stride = aligned(lf_ctc_decode_bytes(&job))
    cdef void *memory = allocated(<double>stride * threads + 64)
    cdef Decoding d = Decoding(&job, <char *>aligned(<size_t>memory), stride)
    try:
        with nogil:
            each(decode_sample, &d, 0, job.N, threads, 1)
    finally:
        free(memory)
    with np.errstate(over="ignore"):
        arrays = labels[..., :lengths.max(initial=0)], lengths, score.astype(np.float64 if job.x_dtype == LF_F64 else np.float32, copy=False)
    return arrays if batched else tuple([a[0] for a in arrays])


# ---- edit distance

cdef Py_ssize_t EDIT_STRIP = 1 << 24     # cells between two looks for signals

cdef int64_t levenshtein(const int64_t *a, Py_ssize_t m, const int64_t *b, Py_ssize_t n, int64_t *row) except -1 nogil:
    """Insertions, deletions and substitutions that make b of a; row: n + 1 numbers."""
    cdef Py_ssize_t i, k, strip = EDIT_STRIP // (n + 1) + 1
    cdef int64_t corner, above, best
    for k in range(n + 1):
        row[k] = k
    for i in range(m):
        if i % strip == strip - 1:
            with gil:
                PyErr_CheckSignals()
        corner, row[0] = row[0], i + 1
        for k in range(n):
            above = row[k + 1]
            best = (above if above < row[k] else row[k]) + 1
            corner += a[i] != b[k]
            row[k + 1] = corner if corner < best else best
            corner = above
    return row[n]


cdef int distances(const int64_t *a, const int64_t *m, Py_ssize_t width_a, const int64_t *b, const int64_t *n, Py_ssize_t width_b, int64_t *rows,
                   int64_t *out, Py_ssize_t count, int threads) except -1 nogil:
    cdef Py_ssize_t i
    for i in prange(count, schedule="dynamic", num_threads=threads):
        out[i] = levenshtein(a + i * width_a, m[i], b + i * width_b, n[i], rows + threadid() * (width_b + 1))
    return 0


def edit_distances(cnp.ndarray a not None, object a_lengths, cnp.ndarray b not None, object b_lengths):
    """Edit distances of the rows of two C-contiguous int64 matrices up to their lengths."""
    cdef Py_ssize_t N = cnp.PyArray_DIM(a, 0), width_a = cnp.PyArray_DIM(a, 1), width_b = cnp.PyArray_DIM(b, 1)
    cdef cnp.ndarray m = np.empty(N, np.int64), n = np.empty(N, np.int64), out = np.empty(N, np.int64)
    cdef int threads = threads_for(N, 2) if <double>N * width_a * width_b > CTC_SERIAL else 1
    read_lengths(<int64_t *>cnp.PyArray_DATA(m), a_lengths, "hypothesis_lengths", N, width_a, "hypotheses", a)
    read_lengths(<int64_t *>cnp.PyArray_DATA(n), b_lengths, "reference_lengths", N, width_b, "references", b)
    cdef void *rows = allocated(<double>threads * (width_b + 1) * 8)
    try:
        with nogil:
            distances(<int64_t *>cnp.PyArray_DATA(a), <int64_t *>cnp.PyArray_DATA(m), width_a, <int64_t *>cnp.PyArray_DATA(b),
                      <int64_t *>cnp.PyArray_DATA(n), width_b, <int64_t *>rows, <int64_t *>cnp.PyArray_DATA(out), N, threads)
    finally:
        free(rows)
    return out, n


# ---- RNN-T

cdef struct Transducing:
    const LfRnntJob *job
    char *scratch
    Py_ssize_t stride       # of each thread's part


cdef void rnnt_rows(const void *at, Py_ssize_t i, int thread) noexcept nogil:
    cdef const Transducing *t = <const Transducing *>at
    K.rnnt_rows(t.job, i, t.scratch + thread * t.stride)


cdef void rnnt_lattice(const void *at, Py_ssize_t i, int thread) noexcept nogil:
    K.rnnt_lattice((<const Transducing *>at).job, i)


cdef void rnnt_gradient(const void *at, Py_ssize_t i, int thread) noexcept nogil:
    cdef const Transducing *t = <const Transducing *>at
    K.rnnt_gradient(t.job, i, t.scratch + thread * t.stride)


cdef int run_rnnt(const LfRnntJob *job, char *scratch, Py_ssize_t stride, int threads) except -1 nogil:
    cdef Transducing at = Transducing(job, scratch, stride)
    cdef Py_ssize_t rows = job.N * job.steps, chunk = rows // (8 * threads) + 1
    each(rnnt_rows, &at, 0, rows, threads, chunk)
    each(rnnt_lattice, &at, 0, job.N, threads, 1)
    if job.g != NULL:
        each(rnnt_gradient, &at, 0, rows, threads, chunk)
    return 0


cdef double clamp_value(object clamp) except? -1:
    cdef double value
    try:
        value = clamp
    except TypeError:
        raise TypeError(f"clamp: expected a number, got {clamp!r}") from None
    except OverflowError:
        raise ValueError("clamp: expected a number within the range of doubles") from None
    if value != value:
        raise ValueError(f"clamp: expected a number, got {value}")
    return value


cdef int read_rnnt_targets(CtcCall call, LfRnntJob *job, object targets, object target_lengths) except -1:
    """Class indices (N, U) of which the first of each row count; all columns are copied."""
    cdef cnp.ndarray y = integers(targets, "targets"), wide
    cdef Py_ssize_t n, u, most = job.width - 2
    if shape_of(y) != (job.N, most):
        raise ValueError(f"targets: expected shape ({job.N}, {most}), one less than the logits' third axis, got {shape_of(y)}")
    read_lengths(call.lengths, target_lengths, "target_lengths", job.N, most, "targets", y)
    call.targets, wide = y, y.astype(np.int64)
    call.job.labels = <int32_t *>allocated(<double>job.N * most * 4 + 8)
    for n in range(job.N):
        for u in range(call.lengths[n]):
            label = (<int64_t *>cnp.PyArray_DATA(wide))[n * most + u] if cnp.PyArray_IS_C_CONTIGUOUS(wide) else <int64_t>wide[n, u]
            if not 0 <= label < call.job.C:
                raise IndexError(f"targets[{n}, {u}] = {y[n, u]} is out of range for {call.job.C} classes")
            call.job.labels[n * most + u] = label
    return 0


def rnnt_loss(object logits, object targets, object logit_lengths, object target_lengths, object blank, object clamp, object reduction,
              object from_logits, object out):
    """See lossfast.functional."""
    cdef Request request = take_request()
    cdef int mode = reduction_code(reduction), threads
    cdef CtcCall call = CtcCall.__new__(CtcCall)
    cdef LfRnntJob job
    cdef cnp.ndarray x = as_array(logits, "logits"), g = None, ao = None
    cdef Py_ssize_t n, cells
    cdef double *loss
    if cnp.PyArray_NDIM(x) != 4 or cnp.PyArray_DIM(x, 2) == 0:
        raise ValueError(f"logits: expected shape (N, T, U + 1, C), got {shape_of(x)}")
    checked_size(shape_of(x), "logits")
    if not is_float(dtype_code(x)):
        x = x.astype(np.float64)
    memset(&job, 0, sizeof(LfRnntJob))
    memset(&call.job, 0, sizeof(LfCtcJob))
    call.x, call.batched = x, True
    job.N, job.steps, job.width = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), cnp.PyArray_DIM(x, 2) + 1
    call.job.N, call.job.steps, call.job.C = job.N, job.steps, cnp.PyArray_DIM(x, 3)
    call.job.x, call.job.x_dtype, call.job.from_logits = <const char *>cnp.PyArray_DATA(x), dtype_code(x), flag(from_logits, "fused_log_softmax")
    call.job.x_n, call.job.x_t, job.x_u, call.job.x_c = [cnp.PyArray_STRIDE(x, n) for n in range(4)]
    if call.job.C > 2147483647:
        raise ValueError(f"logits: {call.job.C} classes are more than can be indexed")
    call.job.blank = class_index(blank, call.job.C, True)
    job.clamp = clamp_value(clamp)
    call.allocate(job.N)
    loss = call.job.loss
    read_lengths(call.frames, logit_lengths, "logit_lengths", job.N, job.steps, "frames")
    read_rnnt_targets(call, &job, targets, target_lengths)
    if out is not None:
        if mode != 0:
            raise ValueError("out: only with reduction='none'")
        ao = check_out(out, "out", (job.N,), result_dtype(call.job.x_dtype == LF_F64), (x, call.targets))
    if request is not None:
        check_single(request, "logits")
        ctc_scale(call, request, mode, False)
        g = gradient_array(request, 0, x, "logits", (call.targets, out))
        if overlap(g, x):
            raise ValueError("grad_out: overlaps logits")
        call.job.g_n, call.job.g_t, job.g_u, call.job.g_c = [cnp.PyArray_STRIDE(g, n) for n in range(4)]
        job.g, call.job.g_dtype = <char *>cnp.PyArray_DATA(g), dtype_code(g)
        call.job.stream = cnp.PyArray_NBYTES(g) > STREAM_BYTES
    call.job.row_bytes = aligned(lf_ctc_row_bytes(call.job.C))
    job.row, job.frames, job.lengths, job.loss = call.job, call.frames, call.lengths, loss
    cells = (job.steps + job.width) * job.width
    checked_size((6, job.N, job.steps + job.width, job.width), "logits")
    cdef cnp.ndarray lattice = np.zeros((6 if request is not None else 3, job.N, cells))
    job.blank_lp = <double *>cnp.PyArray_DATA(lattice)
    cells *= job.N
    job.label_lp, job.beta, job.alpha = job.blank_lp + cells, job.blank_lp + 2 * cells, job.blank_lp + 3 * cells
    job.top, job.total = job.blank_lp + 4 * cells, job.blank_lp + 5 * cells
    threads = threads_for(job.N * job.steps, 2) if <double>cnp.PyArray_SIZE(x) > CTC_SERIAL else 1
    cdef size_t stride = job.row.row_bytes + aligned(<size_t>call.job.C * 8)
    cdef void *memory = allocated(<double>stride * threads + 64)
    try:
        with nogil:
            run_rnnt(&job, <char *>aligned(<size_t>memory), stride, threads)
    finally:
        free(memory)
    if mode == 0:
        losses = copied(loss, job.N)
        if ao is None:
            ao = fresh(1, <cnp.npy_intp *>&job.N, call.job.x_dtype == LF_F64)
        with np.errstate(over="ignore"):
            ao[...] = losses
        result = ao
    else:
        result = scalar(ordered_sum(loss, job.N) / (job.N if mode == 1 else 1) if job.N or mode == 2 else float("nan"), call.job.x_dtype == LF_F64)
    return result if request is None else request.outcome(result, (g,))
