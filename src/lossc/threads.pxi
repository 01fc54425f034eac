# Threads and instruction sets: settings of the process.

cdef extern from *:
    """
    #if defined _OPENMP
    #include <omp.h>
    #define LF_OPENMP _OPENMP
    #else
    #define LF_OPENMP 0
    #endif
    #if defined __clang__
    #define LF_COMPILER "clang " __clang_version__
    #elif defined __GNUC__
    #define LF_COMPILER "gcc " __VERSION__
    #else
    #define LF_COMPILER "unknown"
    #endif
    """
    int LF_OPENMP
    const char *LF_COMPILER


cdef const LfKernels *K = NULL
cdef int thread_setting = 0


cdef inline int threads_for(Py_ssize_t blocks, Py_ssize_t least) noexcept nogil:
    """How many threads for so many blocks: one below `least`, where starting them costs more than they save. They will compute as the caller does."""
    if blocks < least or thread_setting == 1 or lf_fork_serial():
        return 1
    lf_share_modes()
    return thread_setting if thread_setting < blocks else <int>blocks


cdef struct Totals:
    double sum, mass
    Py_ssize_t bad      # the lowest block's, or -1


cdef void add_up(Totals *totals, const double *sum, const double *mass, const Py_ssize_t *bad, Py_ssize_t blocks) noexcept:
    """What the blocks of a job left, in their order."""
    cdef Py_ssize_t b
    totals.sum = ordered_sum(sum, blocks) if sum != NULL else 0
    totals.mass = ordered_sum(mass, blocks) if mass != NULL else 0
    totals.bad = -1
    for b in range(blocks):
        if bad[b] >= 0:
            totals.bad = bad[b]
            break


def _default_threads():
    if not LF_OPENMP:
        return 1
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if limit.isascii() and limit.isdigit() and int(limit) > 0:
        return min(int(limit), 4096)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads():
    """Number of threads that lossfast's functions may use.

    Returns
    -------
    int

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.get_num_threads() >= 1
    True
    """
    return thread_setting


def set_num_threads(n):
    """Set the number of threads that lossfast's functions may use, for the whole process.

    Results do not depend on it: the same input gives the same bits for any number of threads.

    Parameters
    ----------
    n : int
        At least 1. The default is the number of CPUs this process may use, or the environment variable ``OMP_NUM_THREADS``.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or less than 1.

    Examples
    --------
    >>> import lossfast as lf
    >>> before = lf.get_num_threads()
    >>> lf.set_num_threads(2)
    >>> lf.get_num_threads()
    2
    >>> lf.set_num_threads(before)
    """
    global thread_setting
    if isinstance(n, (bool, np.bool_)) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer number of threads, got {n!r}")
    n = n.__index__()
    if not 1 <= n <= 4096:
        raise ValueError(f"n: expected a number of threads from 1 to 4096, got {n}")
    thread_setting = n


def isas():
    """Names of the instruction sets this machine can run, weakest first."""
    return [lf_isa(i).isa.decode() for i in range(lf_isa_count())]


def get_isa():
    """Name of the instruction set in use."""
    return K.isa.decode()


def set_isa(name):
    """Use another instruction set, for tests; returns the name of the one used before."""
    global K
    before = get_isa()
    names = isas()
    if name not in names:
        raise ValueError(f"expected one of {', '.join(names)}, got {name!r}")
    K = lf_isa(names.index(name))
    return before


def build_info():
    """OpenMP specification date (0: built without) and compiler."""
    return LF_OPENMP, LF_COMPILER.decode()


def _choose_isa():
    global K
    K = lf_isa(lf_isa_count() - 1)
    wanted = os.environ.get("LOSSFAST_ISA", "").strip().lower()
    if not wanted:
        return
    try:
        set_isa(wanted)
    except ValueError:
        warnings.warn(f"LOSSFAST_ISA={wanted}: this machine and build have {', '.join(isas())}; using {get_isa()}", RuntimeWarning, stacklevel=2)


_choose_isa()
thread_setting = _default_threads()
lf_fork_init()
