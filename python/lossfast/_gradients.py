"""Values with gradients: `value_and_grad`, and with second derivatives: `value_grad_hess`."""

import functools
import inspect

from lossfast import _core


def _function_of(f):
    """The function of lossfast.functional behind `f`, which may be an instance of a loss class."""
    function = getattr(type(f), "function", f)
    if not (inspect.isfunction(function) and function.__module__ == "lossfast.functional"):
        raise TypeError(f"f: expected a function of lossfast.functional or an instance of a loss class, got {f!r}")
    return function


@functools.cache
def _parameters(function):
    return tuple(inspect.signature(function).parameters)


@functools.lru_cache(typed=True)  # True is not 1
def _names(function, *argnums):
    """What `argnums` are called."""
    parameters = _parameters(function)
    names = []
    for argnum in argnums:
        if isinstance(argnum, str):
            if argnum not in parameters:
                raise ValueError(f"argnums: {function.__name__} has no argument {argnum!r}; it takes {', '.join(parameters)}")
            names.append(argnum)
        elif hasattr(argnum, "__index__") and not isinstance(argnum, bool):
            if not -len(parameters) <= argnum < len(parameters):
                raise ValueError(f"argnums: {function.__name__} has no argument number {argnum}; it takes {', '.join(parameters)}")
            names.append(parameters[argnum])
        else:
            raise TypeError(f"argnums: expected an integer or a name, got {argnum!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"argnums: names an argument twice: {', '.join(names)}")
    return tuple(names)


def value_and_grad(f, argnums=0):
    """Make a function that returns a loss's value and its gradient.

    Parameters
    ----------
    f : callable
        A function of `lossfast.functional`, or an instance of a loss class.
    argnums : int, str, or tuple of them, default 0
        Arguments to differentiate by, by position in `f`'s signature or by name: any floating array argument.

    Returns
    -------
    callable
        Takes f's arguments and returns ``(value, gradient)``: one array of the argument's shape and dtype, or a tuple of them where `argnums` is a
        tuple. Two more keywords are understood: ``grad_output``, the gradient of what follows by f's value (default ones), and ``grad_out``, an array
        (or a tuple of arrays) to write the gradient into.

    Raises
    ------
    TypeError, ValueError
        If `f` is not one of lossfast's losses, or has no such argument.

    Notes
    -----
    The gradient is the true derivative by the array passed. Value and gradient come from one pass over the data.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> x, y = np.array([[1.0, 2.0]]), np.array([0])
    >>> value, grad = lf.value_and_grad(lf.cross_entropy)(x, y)
    >>> grad
    array([[-0.73105858,  0.73105858]])
    """
    single = not isinstance(argnums, (tuple, list))
    function = _function_of(f)
    wanted = (argnums,) if single else argnums
    try:
        names = _names(function, *wanted)
    except TypeError:  # nor is what has no hash always wrong: np.array(1)
        names = _names.__wrapped__(function, *wanted)
    return _core.ValueAndGrad(f, names, single, False)


def value_grad_hess(f):
    """Make a function that returns a loss's value, its gradient and the diagonal of its Hessian, as gradient boosting needs them.

    Parameters
    ----------
    f : callable
        A function of `lossfast.functional`, or an instance of a loss class, with a second derivative by its first argument.

    Returns
    -------
    callable
        Takes f's arguments and returns ``(value, gradient, hessian)``: two arrays of the first argument's shape and dtype. For one loss and its
        derivatives of every element or row use ``reduction='none'`` or ``'sum'``; a mean's derivatives are divided as the mean is. Two more
        keywords are understood: ``grad_output``, the gradient of what follows by f's value (default ones), and ``grad_out``, a pair of arrays to
        write gradient and Hessian into.

    Raises
    ------
    TypeError
        If `f` is not one of lossfast's losses; when it is called, if it has no Hessian.

    Notes
    -----
    At a kink, where there is no second derivative, it is 0 or the limit from one side.

    Examples
    --------
    >>> import lossfast as lf
    >>> value, grad, hess = lf.value_grad_hess(lf.poisson_nll_loss)([0.0, 1.0], [1.0, 3.0], reduction="none")
    >>> grad, hess
    (array([ 0.        , -0.28171817]), array([1.        , 2.71828183]))
    """
    function = _function_of(f)
    return _core.ValueAndGrad(f, _parameters(function)[:1], False, True)
