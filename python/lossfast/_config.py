"""Settings a user can see and change."""

import contextlib

from lossfast import _core


@contextlib.contextmanager
def num_threads(n):
    """Use `n` threads within a ``with`` block.

    The setting is the process's: other Python threads see it too.

    Parameters
    ----------
    n : int
        At least 1.

    Examples
    --------
    >>> import lossfast as lf
    >>> with lf.num_threads(1):
    ...     lf.get_num_threads()
    1
    """
    before = _core.get_num_threads()
    _core.set_num_threads(n)
    try:
        yield
    finally:
        _core.set_num_threads(before)


def show_config():
    """Print version, instruction sets, threads, OpenMP and compiler, for bug reports.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.show_config()  # doctest: +ELLIPSIS
    lossfast ...
    """
    import importlib.metadata

    openmp, compiler = _core.build_info()
    print(f"lossfast     {importlib.metadata.version('lossfast')}")
    print(f"ISA          {_core.get_isa()} (available: {', '.join(_core.isas())}; LOSSFAST_ISA forces a lower one)")
    print(f"threads      {_core.get_num_threads()}")
    print(f"OpenMP       {openmp if openmp else 'none: built with -Dopenmp=disabled'}")
    print(f"compiler     {compiler}")
