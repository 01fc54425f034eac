# Arrays in and out: dtypes, shapes, broadcasting, outputs. Every message names the argument, what was expected and what came.

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    NPY_USERDEF = 256

cdef int bfloat16_num = -1   # NumPy's number for ml_dtypes.bfloat16, once one has been seen

FLOATS = "float16, bfloat16, float32 or float64"


cdef inline int dtype_code(cnp.ndarray a):
    """The kernels' code of a dtype they read as it is, or -1."""
    cdef int num = cnp.PyArray_TYPE(a)
    if num == cnp.NPY_FLOAT32 or num == cnp.NPY_INT64:
        return (LF_F32 if num == cnp.NPY_FLOAT32 else LF_I64) if cnp.PyArray_ISNOTSWAPPED(a) else -1
    if num >= NPY_USERDEF or num == cnp.NPY_VOID:
        return LF_BF16 if is_bfloat16(a, num) and cnp.PyArray_ISNOTSWAPPED(a) else -1
    if not cnp.PyArray_ISNOTSWAPPED(a):
        return -1
    if num == cnp.NPY_FLOAT64:
        return LF_F64
    if num == cnp.NPY_FLOAT16:
        return LF_F16
    if num == cnp.NPY_BOOL:
        return LF_BOOL
    cdef int size = cnp.PyArray_ITEMSIZE(a)
    if cnp.PyTypeNum_ISUNSIGNED(num):
        return LF_U8 if size == 1 else LF_U16 if size == 2 else LF_U32 if size == 4 else LF_U64
    if cnp.PyTypeNum_ISINTEGER(num):
        return LF_I8 if size == 1 else LF_I16 if size == 2 else LF_I32 if size == 4 else LF_I64
    return -1


cdef bint is_bfloat16(cnp.ndarray a, int num):
    global bfloat16_num
    if num == bfloat16_num:
        return True
    if num >= NPY_USERDEF and a.dtype.name == "bfloat16":
        bfloat16_num = num
        return True
    return False


cdef inline bint is_float(int code) noexcept:
    return code <= LF_F64


cdef inline bint is_integer(int code) noexcept:
    return LF_I8 <= code <= LF_U64


cpdef bint is_masked(object x) except -1:
    """Whether something is a masked array, or a list with one in it: NumPy would make plain arrays of them without a word."""
    ma = sys.modules.get("numpy.ma")
    if ma is None:
        return False
    if isinstance(x, (list, tuple)):
        for row in x:
            if isinstance(row, (int, float)):
                return False
            if isinstance(row, ma.MaskedArray) and row is not ma.masked:
                return True
        return False
    return isinstance(x, ma.MaskedArray)


cdef cnp.ndarray as_array(object x, str name):
    """The array behind an argument, in a dtype that the kernels read; copied only where it is byte-swapped or no array."""
    cdef cnp.ndarray a
    if cnp.PyArray_CheckExact(x):
        a = <cnp.ndarray>x
        if dtype_code(a) >= 0:
            return a
    else:
        try:
            a = np.asanyarray(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}: cannot be read as an array: {error}") from error
        if is_masked(a) or is_masked(x):
            raise TypeError(f"{name}: expected a plain array, got a masked array; pass where=~mask, or .filled()")
        if type(a) is not np.ndarray:
            a = a.view(np.ndarray)
    if dtype_code(a) < 0:
        if (a.dtype.kind in "fiu" or is_bfloat16(a, cnp.PyArray_TYPE(a))) and not a.dtype.isnative and a.dtype.itemsize <= 8:
            a = a.astype(a.dtype.newbyteorder("="))
        else:
            raise TypeError(f"{name}: expected a real array ({FLOATS}, or integers), got dtype {a.dtype}")
    return a


cdef inline void fill_array(LfArray *v, cnp.ndarray a, int code, int ndim):
    """Describe `a`, aligned to the right in `ndim` dimensions; broadcast ones get stride 0."""
    cdef int d, lead = ndim - cnp.PyArray_NDIM(a)
    v.data = <char *>cnp.PyArray_DATA(a)
    v.dtype = code
    for d in range(ndim):
        v.stride[d] = 0 if d < lead or cnp.PyArray_DIM(a, d - lead) == 1 else cnp.PyArray_STRIDE(a, d - lead)


cdef int merge_dims(Py_ssize_t *shape, int ndim, LfArray **arrays, int count) noexcept:
    """Leave out dimensions of one element and merge neighbours that every array steps through evenly. Returns the number left, at least 1."""
    cdef int d, i, kept = 0
    cdef bint even
    for d in range(ndim):
        if shape[d] == 1:
            continue
        even = kept > 0
        for i in range(count):
            if even and arrays[i].stride[kept - 1] != arrays[i].stride[d] * shape[d]:
                even = False
        if even:
            shape[kept - 1] *= shape[d]
        else:
            shape[kept] = shape[d]
            kept += 1
        for i in range(count):
            arrays[i].stride[kept - 1] = arrays[i].stride[d]
    if kept == 0:
        shape[0] = 1
        for i in range(count):
            arrays[i].stride[0] = 0
        kept = 1
    return kept


cdef bint steps_farther(LfArray **arrays, int count, int d, int e) noexcept:
    """Whether dimension d steps farther than e: in more arrays, of those that step along both, or else in all arrays together."""
    cdef Py_ssize_t one, other, far = 0
    cdef int i, votes = 0
    for i in range(count):
        one, other = abs(arrays[i].stride[d]), abs(arrays[i].stride[e])
        far += one - other
        if one and other:
            votes += (one > other) - (one < other)
    return votes > 0 or (votes == 0 and far > 0)


cdef void sort_dims(Py_ssize_t *shape, int ndim, LfArray **arrays, int count) noexcept:
    """Sort dimensions by how far they step, the farthest first; even ones keep their order."""
    cdef int d, e, i
    for d in range(1, ndim):
        for e in range(d, 0, -1):
            if not steps_farther(arrays, count, e, e - 1):
                break
            shape[e - 1], shape[e] = shape[e], shape[e - 1]
            for i in range(count):
                arrays[i].stride[e - 1], arrays[i].stride[e] = arrays[i].stride[e], arrays[i].stride[e - 1]


cdef Py_ssize_t checked_size(tuple shape, str name) except -1:
    """Number of elements of a shape, refused where it does not fit the address space."""
    cdef Py_ssize_t size = 1, n
    cdef double real = 1
    for n in shape:
        size = <Py_ssize_t>(<size_t>size * <size_t>n)   # may wrap round, where it is refused
        real *= <double>n
    if real >= <double>(PY_SSIZE_T_MAX // 8):
        raise ValueError(f"{name}: shape {shape} has {math.prod(shape)} elements, more than can be addressed")
    return size


cdef tuple shape_of(cnp.ndarray a):
    return tuple([cnp.PyArray_DIM(a, d) for d in range(cnp.PyArray_NDIM(a))])


cdef inline bint has_shape(cnp.ndarray a, tuple shape):
    cdef int d, ndim = cnp.PyArray_NDIM(a)
    if ndim != len(shape):
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(a, d) != <Py_ssize_t>shape[d]:
            return False
    return True


cdef bint may_touch_itself(cnp.ndarray a):
    """Whether elements may share memory: false where each dimension steps over all that the dimensions of smaller steps reach."""
    cdef Py_ssize_t reach = cnp.PyArray_ITEMSIZE(a)
    if cnp.PyArray_IS_C_CONTIGUOUS(a) or cnp.PyArray_SIZE(a) < 2:
        return False
    for step, n in sorted([(abs(s), n) for s, n in zip((<object>a).strides, (<object>a).shape) if n > 1]):
        if step < reach:
            return True
        reach += step * (n - 1)
    return False


cdef inline void span(cnp.ndarray a, char **low, char **high) noexcept:
    """The bytes between which an array's elements lie."""
    cdef Py_ssize_t reach
    cdef int d
    low[0] = high[0] = <char *>cnp.PyArray_DATA(a)
    for d in range(cnp.PyArray_NDIM(a)):
        reach = cnp.PyArray_STRIDE(a, d) * (cnp.PyArray_DIM(a, d) - 1)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(a)


cdef inline bint apart(cnp.ndarray a, cnp.ndarray b):
    """Whether one array's elements all lie before the other's, or there are none."""
    cdef char *a_low
    cdef char *a_high
    cdef char *b_low
    cdef char *b_high
    span(a, &a_low, &a_high)
    span(b, &b_low, &b_high)
    return a_high <= b_low or b_high <= a_low or cnp.PyArray_SIZE(a) == 0 or cnp.PyArray_SIZE(b) == 0


cdef bint overlap(cnp.ndarray a, cnp.ndarray b):
    """Whether two arrays have an element's byte in common, or it takes too long to tell."""
    return not apart(a, b) and np.may_share_memory(a, b, max_work=10_000_000)


cdef cnp.ndarray check_out(object out, str name, tuple shape, cnp.dtype dtype, tuple others, bint in_place=False):
    """An output array given by the user: of the right shape and dtype, writeable, and apart from the others of the call.

    With `in_place` it may be the first of them: the kernel has then read what it overwrites, and reads it no more.
    """
    cdef cnp.ndarray a
    if not cnp.PyArray_CheckExact(out) and not isinstance(out, np.memmap):
        raise TypeError(f"{name}: expected an ndarray to write into, got {type(out).__name__}")
    a = <cnp.ndarray>out
    if not has_shape(a, shape):
        raise ValueError(f"{name}: expected shape {shape}, got {shape_of(a)}")
    if a.descr is not dtype and a.descr != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {a.dtype}")
    if not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name}: is read-only")
    if may_touch_itself(a):
        raise ValueError(f"{name}: several of its elements may share memory (strides {(<object>a).strides})")
    for i, other in enumerate(others):
        if other is None or apart(a, <cnp.ndarray?>other):
            continue
        if in_place and i == 0 and same_elements(a, <cnp.ndarray>other):
            continue
        if overlap(a, <cnp.ndarray>other):
            raise ValueError(f"{name}: overlaps another array of the call; give "
                             f"{'the very same array as the input, or ' if in_place else ''}one apart from the others")
    return a


cdef bint same_elements(cnp.ndarray a, cnp.ndarray b):
    """Whether two arrays are views of the same elements, each at the same index."""
    return (cnp.PyArray_DATA(a) == cnp.PyArray_DATA(b) and (<object>a).shape == (<object>b).shape
            and (<object>a).strides == (<object>b).strides and a.dtype == b.dtype)


cpdef bint flag(object given, str name) except -1:
    """An option that is on or off."""
    if given is True or given is False:
        return given is True
    if not isinstance(given, (np.bool_, int, np.integer)):
        raise TypeError(f"{name}: expected True or False, got {given!r}")
    if given != 0 and given != 1:
        raise ValueError(f"{name}: expected True or False, got {given!r}")
    return given == 1


cpdef double number(object given, str name) except? -1e300:
    """An option that is a number."""
    cdef double value
    try:
        value = given
    except TypeError:
        raise TypeError(f"{name}: expected a number, got {given!r}") from None
    except OverflowError:
        raise ValueError(f"{name}: expected a finite number, got {given!r}") from None
    return value


cdef int reduction_code(object reduction, bint batch=False) except -1:
    """0 none, 1 mean, 2 sum and, where there is one, 3 batchmean."""
    if isinstance(reduction, str):
        if reduction == "mean":
            return 1
        if reduction == "none":
            return 0
        if reduction == "sum":
            return 2
        if batch and reduction == "batchmean":
            return 3
        if reduction == "elementwise_mean":
            warnings.warn("reduction='elementwise_mean' is deprecated, please use reduction='mean' instead.", DeprecationWarning, stacklevel=2)
            return 1
    raise ValueError(f"reduction: expected 'none', 'mean'{', \'batchmean\'' if batch else ''} or 'sum', got {reduction!r}")


cdef extern from "numpy/arrayobject.h":
    object PyArray_Scalar(void *data, cnp.dtype dtype, object base)


cdef object scalar(double value, bint wide):
    cdef float narrow
    if wide:
        return PyArray_Scalar(&value, float64_dtype, None)
    narrow = <float>value
    return PyArray_Scalar(&narrow, float32_dtype, None)


cdef cnp.dtype float32_dtype = np.dtype(np.float32)
cdef cnp.dtype float64_dtype = np.dtype(np.float64)


cdef inline cnp.ndarray fresh(int ndim, cnp.npy_intp *shape, bint wide):
    return cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_FLOAT64 if wide else cnp.NPY_FLOAT32, 0)


cdef cnp.ndarray copied(const double *x, cnp.npy_intp n):
    """An array of the n numbers at x."""
    cdef cnp.ndarray a = fresh(1, &n, True)
    if n:
        memcpy(cnp.PyArray_DATA(a), x, n * sizeof(double))   # a typed memoryview would bring 80 KB of code along
    return a


cdef inline cnp.ndarray contiguous(cnp.ndarray a, int num):
    """The array in C order, aligned and of another dtype; copied only if it is not."""
    return cnp.PyArray_FROM_OTF(a, num, cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_FORCECAST)


cdef cnp.ndarray fresh_like(cnp.ndarray a, tuple shape, cnp.dtype dtype):
    """An array of a shape, laid out as `a` if that is its shape."""
    if not has_shape(a, shape):
        return np.empty(shape, dtype)
    if not cnp.PyArray_IS_C_CONTIGUOUS(a):
        return np.empty_like(a, dtype=dtype, subok=False)
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), dtype.type_num, 0)


cdef inline cnp.dtype result_dtype(bint wide):
    return float64_dtype if wide else float32_dtype


# Outputs larger than this are written past the caches: what is written last would push out what is read next.
cdef Py_ssize_t STREAM_BYTES = 8 << 20


cdef object first_index(Py_ssize_t flat, tuple shape):
    index = []
    for n in reversed(shape):
        index.append(flat % n)
        flat //= n
    return tuple(reversed(index))


cdef str subscript(str name, tuple index):
    return f"{name}[{', '.join(map(str, index))}]" if index else name
