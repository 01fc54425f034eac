# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True, embedsignature=False, auto_pickle=False
"""The border between NumPy and the kernels: checks arrays, cuts work into blocks, runs them on threads.

Design
------
A. Arrays enter as ndarray objects and become pointer, dtype and strides; nothing is copied. Everything that can be wrong is found here, before
   the GIL is released, except what only the data can tell (labels, domains); kernels report those per block and the lowest block's is raised.
B. `run_*` are the only parallel loops. A block's results depend on the block alone and are combined in block order.
C. A gradient is asked for by a request that `value_and_grad` leaves for the one loss function it calls. So a loss has one signature and one
   body, and every function that can be differentiated takes the request with `take_request` before it does anything else.
D. Small inputs count: exact types are tested before anything general is done, and nothing is allocated but the result.
"""
cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from lossc cimport *

import itertools
import math
import operator
import os
import sys
import warnings

import numpy as np

cnp.import_array()

include "threads.pxi"
include "arrays.pxi"
include "gradients.pxi"
include "elementwise.pxi"
include "rows.pxi"
include "vectors.pxi"
include "ctc.pxi"
