/* The positions of a row job, everything but the class axis, in order. */
#ifndef LF_POSITIONS_H
#define LF_POSITIONS_H

/* Positions first .. first + n of an array, in order, a run inside the innermost dimension at a time:
 *     for (LfRuns w = lf_runs(j, a, first, n); w.n; lf_next_run(j, a, &w)) */
typedef struct {
    ptrdiff_t index[LF_MAXDIM], left;
    ptrdiff_t at, n, off; /* the run in hand: positions first + at .. first + at + n, the first at byte off, the others one stride apart */
} LfRuns;

static void lf_run_end(const LfRowJob *j, LfRuns *w)
{
    const ptrdiff_t room = j->shape[j->ndim - 1] - w->index[j->ndim - 1];
    w->n = w->left < room ? w->left : room;
}

static LfRuns lf_runs(const LfRowJob *j, const LfArray *a, ptrdiff_t first, ptrdiff_t n)
{
    LfRuns w;
    w.at = w.off = 0, w.left = n;
    for (int d = j->ndim - 1; d >= 0; d--) {
        w.index[d] = d ? first % j->shape[d] : first;
        first = d ? first / j->shape[d] : 0;
        w.off += w.index[d] * a->stride[d];
    }
    lf_run_end(j, &w);
    return w;
}

static void lf_next_run(const LfRowJob *j, const LfArray *a, LfRuns *w)
{
    const int last = j->ndim - 1;
    w->at += w->n, w->left -= w->n;
    w->off += w->n * a->stride[last];
    w->index[last] += w->n;
    for (int d = last; d > 0 && w->index[d] == j->shape[d]; d--) {
        w->off += a->stride[d - 1] - w->index[d] * a->stride[d];
        w->index[d] = 0;
        w->index[d - 1]++;
    }
    lf_run_end(j, w);
}

/* Byte offsets of positions first .. first + n. */
static void lf_offsets(const LfRowJob *j, const LfArray *a, ptrdiff_t first, ptrdiff_t n, ptrdiff_t *off)
{
    for (LfRuns w = lf_runs(j, a, first, n); w.n; lf_next_run(j, a, &w))
        for (ptrdiff_t i = 0; i < w.n; i++)
            off[w.at + i] = w.off + i * a->stride[j->ndim - 1];
}

static inline void lf_prefetch(const char *p, ptrdiff_t bytes)
{
    for (ptrdiff_t i = -(ptrdiff_t)((uintptr_t)p & 63); i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

#endif
