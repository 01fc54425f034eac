/* The positions of a row job, everything but the class axis, in order. */
#ifndef LF_POSITIONS_H
#define LF_POSITIONS_H

/* A walk over an array's positions in order. Those of a run, inside the innermost dimension, lie one stride apart. */
typedef struct {
    ptrdiff_t index[LF_MAXDIM], off; /* of the next position */
} LfWalk;

static LfWalk lf_walk(const LfRowJob *j, const LfArray *a, ptrdiff_t first)
{
    LfWalk w;
    w.off = 0;
    for (int d = j->ndim - 1; d >= 0; d--) {
        w.index[d] = d ? first % j->shape[d] : first;
        first = d ? first / j->shape[d] : 0;
        w.off += w.index[d] * a->stride[d];
    }
    return w;
}

/* Goes past the next run, or n positions of it, and returns how many. */
static ptrdiff_t lf_walk_run(const LfRowJob *j, const LfArray *a, LfWalk *w, ptrdiff_t n)
{
    const int last = j->ndim - 1;
    const ptrdiff_t room = j->shape[last] - w->index[last], run = n < room ? n : room;
    w->off += run * a->stride[last];
    w->index[last] += run;
    for (int d = last; d > 0 && w->index[d] == j->shape[d]; d--) {
        w->off += a->stride[d - 1] - w->index[d] * a->stride[d];
        w->index[d] = 0;
        w->index[d - 1]++;
    }
    return run;
}

/* Byte offsets of positions first .. first + n. */
static void lf_offsets(const LfRowJob *j, const LfArray *a, ptrdiff_t first, ptrdiff_t n, ptrdiff_t *off)
{
    LfWalk w = lf_walk(j, a, first);
    for (ptrdiff_t i = 0; i < n;) {
        const ptrdiff_t at = w.off, end = i + lf_walk_run(j, a, &w, n - i), step = a->stride[j->ndim - 1];
        for (ptrdiff_t k = i; k < end; k++)
            off[k] = at + (k - i) * step;
        i = end;
    }
}

static inline void lf_prefetch(const char *p, ptrdiff_t bytes)
{
    for (ptrdiff_t i = -(ptrdiff_t)((uintptr_t)p & 63); i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

#endif
