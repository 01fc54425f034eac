# Threads and instruction sets: settings of the process, and the loop that runs a job's tasks.

from cython.parallel cimport prange, threadid


cdef extern from *:
    """
    #include <time.h>
    #if defined CLOCK_MONOTONIC_COARSE      /* 5 ns to read, right to 4 ms */
    #define LF_CLOCK CLOCK_MONOTONIC_COARSE
    #else
    #define LF_CLOCK CLOCK_MONOTONIC
    #endif
    static inline double lf_seconds(void)
    {
        struct timespec t;
        clock_gettime(LF_CLOCK, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
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
    double lf_seconds() noexcept nogil
    void lf_set_flag "__atomic_store_n"(int *, int, int) noexcept nogil
    int lf_flag "__atomic_load_n"(int *, int) noexcept nogil
    int ATOMIC_RELAXED "__ATOMIC_RELAXED"


cdef extern from "Python.h":
    int handle_signals "PyErr_CheckSignals"() noexcept      # where it returns -1 the error stays set

cdef const LfKernels *K = NULL
cdef int thread_setting = 0


cdef inline int threads_for(Py_ssize_t blocks, Py_ssize_t least) noexcept nogil:
    """How many threads for so many blocks: one below `least`, where starting them costs more than they save. They will compute as the caller does."""
    if blocks < least or thread_setting == 1 or lf_fork_serial():
        return 1
    lf_share_modes()
    return thread_setting if thread_setting < blocks else <int>blocks


ctypedef void (*Task)(const void *job, Py_ssize_t i, int thread) noexcept nogil


cdef struct Watch:
    double next     # when signals are looked at, 0: not yet begun
    int stop


cdef double SIGNAL_TIME = 0.05      # seconds between two looks for signals


cdef inline bint stopped(Watch *watch, int thread) noexcept nogil:
    """Whether a signal's handler has raised, as Ctrl-C's does. The thread that called looks; the error waits there."""
    cdef double now
    if thread == 0:
        now = lf_seconds()
        if watch.next == 0:
            watch.next = now + SIGNAL_TIME
        elif now > watch.next:
            watch.next = now + SIGNAL_TIME
            with gil:
                if handle_signals() != 0:
                    lf_set_flag(&watch.stop, 1, ATOMIC_RELAXED)
    return lf_flag(&watch.stop, ATOMIC_RELAXED) != 0


cdef int each(Task task, const void *job, Py_ssize_t first, Py_ssize_t last, int threads, Py_ssize_t chunk=0) except -1 nogil:
    """task(job, i, thread) for each i from first to last: in equal shares, or `chunk` at a time for whoever is free. Where a signal's handler
    raises, tasks that have not begun are left undone."""
    cdef Watch watch = Watch(0, 0)
    cdef Py_ssize_t i
    if threads <= 1:
        for i in range(first, last):
            if i > first and stopped(&watch, 0):
                return -1
            task(job, i, 0)
    elif chunk:
        for i in prange(first, last, schedule="dynamic", chunksize=chunk, num_threads=threads):
            if not stopped(&watch, threadid()):
                task(job, i, threadid())
    else:
        for i in prange(first, last, schedule="static", num_threads=threads):
            if not stopped(&watch, threadid()):
                task(job, i, threadid())
    return -1 if watch.stop else 0


cdef struct Sum:
    double sum, rest


cdef inline void add(Sum *s, double x) noexcept nogil:
    """One term more, with what additions round off carried along (Neumaier)."""
    cdef double t = s.sum + x
    if t - t == 0:
        s.rest += (s.sum - t) + x if (s.sum if s.sum >= 0 else -s.sum) >= (x if x >= 0 else -x) else (x - t) + s.sum
    s.sum = t


cdef double ordered_sum(const double *part, Py_ssize_t n) noexcept nogil:
    cdef Sum s = Sum(0, 0)
    cdef Py_ssize_t i
    for i in range(n):
        add(&s, part[i])
    return s.sum + s.rest


cdef struct Totals:
    double sum, mass
    Py_ssize_t bad      # the lowest block's, or -1


ctypedef Py_ssize_t (*Extent)(const void *job, Py_ssize_t tasks) noexcept nogil     # how many blocks the first tasks are


cdef int add_blocks(Task task, const void *job, Py_ssize_t tasks, Py_ssize_t band, Extent extent, int threads, double **sum, double **mass,
                    Py_ssize_t **bad, Totals *totals) except -1:
    """Run a job's tasks and add up, in order, what their blocks leave: in the job's `sum` and `mass`, NULL where not wanted, and `bad`. Every `band`
    tasks are whole successive blocks, at most LF_PARTS of them: the parts of more are not kept at a time."""
    totals.sum, totals.mass, totals.bad = 0, 0, -1
    if tasks != 1 or extent(job, 1) != 1:
        return add_many(task, job, tasks, band, extent, threads, sum, mass, bad, totals)
    if sum != NULL:
        sum[0] = &totals.sum
    if mass != NULL:
        mass[0] = &totals.mass
    bad[0] = &totals.bad
    with nogil:
        task(job, 0, 0)
    totals.sum += 0     # 0, not -0, as of many
    return 0


cdef int add_many(Task task, const void *job, Py_ssize_t tasks, Py_ssize_t band, Extent extent, int threads, double **sum, double **mass,
                  Py_ssize_t **bad, Totals *totals) except -1:
    cdef Py_ssize_t blocks = extent(job, tasks), room = min(blocks, LF_PARTS), begun = 0, end = tasks, done = 0, b
    cdef Sum s = Sum(0, 0), m = Sum(0, 0)
    cdef double here[96]
    cdef void *memory = <void *>here
    if room > 32:
        memory = malloc(room * 24)
        if memory == NULL:
            raise MemoryError(f"cannot allocate {room * 24} bytes for partial sums")
    if sum != NULL:
        sum[0] = <double *>memory
    if mass != NULL:
        mass[0] = <double *>memory + room
    bad[0] = <Py_ssize_t *>memory + 2 * room
    try:
        while done < blocks:
            if blocks > room:
                end = min(tasks, begun + room // extent(job, band) * band)
            with nogil:
                each(task, job, begun, end, threads)
            for b in range(done, extent(job, end)):
                if sum != NULL:
                    add(&s, sum[0][b % LF_PARTS])
                if mass != NULL:
                    add(&m, mass[0][b % LF_PARTS])
                if totals.bad < 0:
                    totals.bad = bad[0][b % LF_PARTS]
            begun, done = end, extent(job, end)
            if done < blocks:
                PyErr_CheckSignals()    # each time may be too short for `each` to look
    finally:
        if room > 32:
            free(memory)
    totals.sum, totals.mass = s.sum + s.rest, m.sum + m.rest
    return 0


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
