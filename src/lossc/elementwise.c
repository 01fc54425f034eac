#include "prelude.h"

#include "pack.h"

static inline ptrdiff_t lf_elem_start(const LfElemJob *j, ptrdiff_t b)
{
    const ptrdiff_t whole = b / j->runs;
    return whole * j->period + (b - whole * j->runs) * j->block;
}

static inline ptrdiff_t lf_elem_end(const LfElemJob *j, ptrdiff_t b)
{
    const ptrdiff_t whole = b / j->runs, next = (b - whole * j->runs + 1) * j->block;
    return whole * j->period + (next < j->period ? next : j->period);
}

/* Elements of the dimensions after dimension d. */
static ptrdiff_t lf_elem_row(const LfElemJob *j, int d)
{
    ptrdiff_t n = 1;
    while (++d < j->ndim)
        n *= j->shape[d];
    return n;
}

/* Element c of the rows' r-th, of the last dimension. */
static inline char *lf_elem_at(const LfElemJob *j, const LfArray *a, ptrdiff_t r, ptrdiff_t c)
{
    const int last = j->ndim - 1;
    return a->data + c * a->stride[last] + (last ? lf_offset(j->shape, last, a->stride, r) : 0);
}

/* Whether an array's elements are evenly spaced in the order of the job's shape. */
static int lf_elem_even(const LfElemJob *j, const LfArray *a)
{
    for (int d = j->ndim - 1; d > 0; d--)
        if (a->stride[d - 1] != a->stride[d] * j->shape[d])
            return 0;
    return 1;
}

#define LF_T_DOUBLE
#include "real.h"
#define T_LANES (LF_LANES / 2) /* half the lanes of float, and half the code */
#include "vmath.h"
#include "formulas.h"
#include "elementwise.h"
#undef LF_T_DOUBLE
#undef T_LANES

/* A sum of floats that is no number is taken again in double: its terms may be finite there, and their mean a float. */
LF_CALLED elem_sum_again(const LfElemJob *j, ptrdiff_t b)
{
    LfElemJob d = *j;
    d.mass = NULL, d.out.data = d.hess.data = NULL;
    for (int q = 0; q <= LF_INPUTS; q++)
        d.grad[q].data = NULL;
    elem_block_f64(&d, b);
}

static void elem_unless_finite(const LfElemJob *j, ptrdiff_t b)
{
    if (!(fabs(j->sum[b % LF_PARTS]) < INFINITY))
        elem_sum_again(j, b);
}

#define LF_T_FLOAT
#include "real.h"
#define T_LANES LF_LANES
#if defined __F16C__
#define T_HALVES /* sums read halves as they are */
#endif
#if defined __AVX512F__
#define T_TABLES /* of sums' functions, in registers */
#endif
#include "vmath.h"
#include "formulas.h"
#include "elementwise.h"

static void elem_block_any(const LfElemJob *j, ptrdiff_t b)
{
    if (j->wide) {
        elem_block_f64(j, b);
        return;
    }
    elem_block_f32(j, b);
    if (j->sum)
        elem_unless_finite(j, b);
}

/* Where a gradient takes the input's place, which it leaves unreadable, the sum comes first. */
LF_CALLED elem_block_over(const LfElemJob *j, ptrdiff_t b)
{
    LfElemJob d = *j;
    d.grad[0].data = NULL;
    elem_block_any(&d, b);
    d = *j, d.sum = NULL;
    elem_block_any(&d, b);
}

void LF_EXPORT(elem_prepare)(LfElemJob *j) { j->pairs = j->size < LF_LOOKUP || j->wide ? NULL : elem_pairs_of_f32(j); }

void LF_EXPORT(elem_block)(const LfElemJob *j, ptrdiff_t b)
{
    j->sum && j->grad[0].data == j->in[0].data ? elem_block_over(j, b) : elem_block_any(j, b);
}

void LF_EXPORT(elem_strip)(const LfElemJob *j, ptrdiff_t s) { j->wide ? elem_strip_f64(j, s) : elem_strip_f32(j, s); }

void LF_EXPORT(elem_fold)(const LfElemJob *j, ptrdiff_t b) { j->wide ? elem_fold_f64(j, b) : elem_fold_f32(j, b); }
