"""From a row of the table of cases to calls of the library, with their references."""

import functools
import zlib

import lossfast as lf
import lossfast.functional as F
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import CASES

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
LIVE = [case for case in CASES if hasattr(F, case.function)]  # test_registry.py names the others
EVERY_CASE = [pytest.param(case, id=case.function) for case in LIVE]
EVERY_OPTION = [pytest.param(case, i, id=f"{case.function}-{i}") for case in LIVE for i in range(len(case.options))]


def generator(*names):
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def result_dtype(dtype):
    return np.float64 if dtype == "float64" else np.float32


def reductions(case):
    """Keywords: {} for a primitive."""
    return [{"reduction": r} for r in case.reductions] or [{}]


@functools.cache
def draw(case, option, shape, dtype="float64"):
    """(positional arrays, keywords), always the same; read-only, so that a test cannot change another's."""
    args, keywords = case.draw(generator(case.function, option, shape), shape, DTYPES[dtype], option)
    for array in (*args, *keywords.values()):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return args, keywords


def call(case, args, keywords):
    return getattr(F, case.function)(*args, **keywords)


@functools.cache
def expected(case, option, shape, dtype, reduction=None):
    args, keywords = draw(case, option, shape, dtype)
    return getattr(reference, case.function)(*args, **keywords, **({"reduction": reduction} if reduction else {}))


def wanted(case, option, shape):
    """Names of the arguments of this call that have a gradient."""
    args, keywords = draw(case, option, shape)
    made = dict(zip(case.arrays, args)) | keywords
    return [name for name in case.floats if getattr(made.get(name), "dtype", None) == np.float64]


def gradients(case, args, keywords, names, **more):
    """(value, {name: gradient})"""
    value, grads = lf.value_and_grad(getattr(F, case.function), argnums=tuple(names))(*args, **keywords, **more)
    return value, dict(zip(names, grads))


def close(got, want, dtype, scale=1.0, what=""):
    """To a few eps of the result's dtype, relative to the larger of `scale` and the value; NaN and inf where they belong."""
    got, want = np.asarray(got), np.asarray(want)
    eps = np.finfo(result_dtype(dtype)).eps
    assert got.shape == want.shape, what
    np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=16 * eps, atol=16 * eps * scale, err_msg=str(what))


def bits(array):
    """What two equal results have in common: dtype, shape and bytes, with every NaN the same."""
    array = np.asarray(array)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.dtype, array.shape, np.ascontiguousarray(array).tobytes()
