# The request for gradients (design note C).

cdef extern from *:
    """
    static _Thread_local void *lf_request = NULL;
    """
    void *lf_request


@cython.final
@cython.freelist(8)
cdef class Request:
    """Gradients wanted of the next loss: by which arguments, upstream gradient, where to."""
    cdef tuple names       # arguments to differentiate by
    cdef object upstream   # grad_output or None
    cdef tuple out         # an array or None for each name
    cdef bint single       # a gradient, not a tuple of them
    cdef bint hessian      # also the diagonal of the Hessian by the first argument
    cdef object f          # what was asked: a function of lossfast.functional or an instance of a class

    cdef str function(self):
        return getattr(self.f, "function", self.f).__name__

    cdef int refuse_hessian(self) except -1:
        if self.hessian:
            raise TypeError(f"f: {self.function()} has no Hessian here")
        return 0

    cdef object outcome(self, object value, tuple grads):
        if self.hessian:
            return (value,) + grads
        return value, grads[0] if self.single else grads

    cdef object out_for(self, int i):
        return self.out[i] if self.out is not None else None


cdef inline Request take_request():
    """The request meant for the function that calls this, or None."""
    global lf_request
    cdef Request request
    if lf_request == NULL:
        return None
    request = <Request>lf_request
    lf_request = NULL
    return request


def take_python_request():
    """For losses composed in Python: (names, grad_output, grad_out, single) or None."""
    cdef Request request = take_request()
    if request is None:
        return None
    request.refuse_hessian()
    return (request.names, request.upstream, request.out, request.single)


@cython.final
@cython.auto_pickle(True)
cdef class ValueAndGrad:
    """What `value_and_grad` returns: calls `f` with a request for gradients."""
    cdef object f
    cdef tuple names
    cdef bint single, hessian

    def __init__(self, f, tuple names, bint single, bint hessian):
        self.f, self.names, self.single, self.hessian = f, names, single, hessian

    def __call__(self, *args, grad_output=None, grad_out=None, **options):
        global lf_request
        cdef Request request = Request.__new__(Request)
        cdef void *outer = lf_request
        request.names, request.upstream, request.single, request.hessian, request.f = self.names, grad_output, self.single, self.hessian, self.f
        if grad_out is not None:
            if self.single:
                grad_out = (grad_out,)
            wanted = self.names + ("the Hessian",) if self.hessian else self.names
            if not isinstance(grad_out, tuple) or len(grad_out) != len(wanted):
                raise ValueError(f"grad_out: expected a tuple of {len(wanted)} arrays, one for each of {', '.join(wanted)}, "
                                 f"got {len(grad_out) if isinstance(grad_out, tuple) else type(grad_out).__name__}")
            request.out = grad_out
        lf_request = <void *>request
        try:
            result = self.f(*args, **options)
            if lf_request != NULL:
                raise TypeError(f"f: {self.f!r} has no gradient")
            return result
        finally:
            lf_request = outer

    def __repr__(self):
        return f"value_grad_hess({self.f!r})" if self.hessian else f"value_and_grad({self.f!r}, argnums={self.names})"


cdef int check_single(Request request, str name) except -1:
    """Refuse what a function with one array to differentiate by has not: other gradients, and a Hessian."""
    request.refuse_hessian()
    if request.names != (name,):
        raise ValueError(f"argnums: {request.function()} has one argument to differentiate by, {name}, got {', '.join(request.names)}")
    return 0


cdef double upstream_scalar(Request request) except? -1:
    return scalar_upstream(as_array(request.upstream, "grad_output"))


cdef double scalar_upstream(cnp.ndarray a) except? -1:
    """grad_output of a reduced loss: one number."""
    if a.size != 1 or a.ndim:
        raise ValueError(f"grad_output: expected a scalar, shape (), for a reduced loss, got shape {shape_of(a)}")
    return float(a)


cdef object gradient_dtype(cnp.ndarray a, str name):
    """The argument's own dtype; float64 for an input of integers, which is computed as float64."""
    if is_float(dtype_code(a)):
        return a.dtype
    if name.startswith("input"):
        return float64_dtype
    raise TypeError(f"{name}: to differentiate by it, expected {FLOATS}, got dtype {a.dtype}")


cdef cnp.ndarray gradient_array(Request request, int i, cnp.ndarray a, str name, tuple others, bint in_place=False):
    """The array for the gradient by `a`: the user's, checked, or a fresh one of its shape and dtype. Alone it may be the first of `others`."""
    cdef cnp.dtype dtype = gradient_dtype(a, name)
    out = request.out_for(i)
    if out is None and not cnp.PyArray_IS_C_CONTIGUOUS(a):
        return np.empty_like(a, dtype=dtype, subok=False)
    if out is None:
        return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), dtype.type_num, 0)
    for other in request.out[:i]:
        if isinstance(other, np.ndarray) and isinstance(out, np.ndarray) and overlap(out, other):
            raise ValueError(f"grad_out[{i}]: overlaps another gradient's array")
    return check_out(out, "grad_out" if request.single else f"grad_out[{i}]", shape_of(a), dtype, others,
                     in_place and len(request.out) == 1)
