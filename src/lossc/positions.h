/* What a row job says in no arithmetic type: its positions, everything but the class axis, in order; how its arrays lie; what they are for. */
#ifndef LF_POSITIONS_H
#define LF_POSITIONS_H

/* Positions first .. first + n of an array, in order, a run inside the innermost dimension at a time:
 *     for (lf_runs(j, a, first, n, &w); w.n; lf_next_run(j, a, &w)) */
typedef struct {
    ptrdiff_t index[LF_MAXDIM], left;
    ptrdiff_t at, n, off; /* the run in hand: positions first + at .. first + at + n, the first at byte off, the others one stride apart */
} LfRuns;

static void lf_run_end(const LfRowJob *j, LfRuns *w)
{
    const ptrdiff_t room = j->shape[j->ndim - 1] - w->index[j->ndim - 1];
    w->n = w->left < room ? w->left : room;
}

LF_CALLED lf_runs(const LfRowJob *j, const LfArray *a, ptrdiff_t first, ptrdiff_t n, LfRuns *w)
{
    w->at = w->off = 0, w->left = n;
    for (int d = j->ndim - 1; d >= 0; d--) {
        w->index[d] = d ? first % j->shape[d] : first;
        first = d ? first / j->shape[d] : 0;
        w->off += w->index[d] * a->stride[d];
    }
    lf_run_end(j, w);
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
    LfRuns w;
    for (lf_runs(j, a, first, n, &w); w.n; lf_next_run(j, a, &w))
        for (ptrdiff_t i = 0; i < w.n; i++)
            off[w.at + i] = w.off + i * a->stride[j->ndim - 1];
}

static inline void lf_prefetch(const char *p, ptrdiff_t bytes)
{
    for (ptrdiff_t i = -(ptrdiff_t)((uintptr_t)p & 63); i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

/* Blocks in hand: positions start .. end, where their sums by class go, and the first position with a label out of range, or -1. Of the block that is
 * being added up, losses and the mean's denominator, each in the lane of its place in the block. */
typedef struct {
    ptrdiff_t start, end, bad;
    double *gw, *gw_mass;
    double sum[LF_LANES], mass[LF_LANES], sum_runs[LF_LANES], mass_runs[LF_LANES]; /* of the present LF_ROWS_RUN rows, and of those before */
} LfRowBlock;

static LfRowBlock lf_row_block(const LfRowJob *j, ptrdiff_t b)
{
    const ptrdiff_t rows = j->rows * j->span, start = b * rows, end = j->n - start < rows ? j->n : start + rows,
                    sums = j->gw ? b / j->share * j->c : 0;
    return (LfRowBlock){.start = start, .end = end, .bad = -1, .gw = j->gw ? j->gw + sums : NULL, .gw_mass = j->gw ? j->gw_mass + sums : NULL};
}

static void lf_row_run_end(LfRowBlock *k)
{
    lf_add_run(k->sum, k->sum_runs, LF_LANES);
    lf_add_run(k->mass, k->mass_runs, LF_LANES);
}

/* Leaves the sums of the block that ends before position `end`. */
static void lf_block_end(const LfRowJob *j, LfRowBlock *k, ptrdiff_t end)
{
    const ptrdiff_t b = (end - 1) / j->rows % LF_PARTS;
    j->sum[b] = lf_lane_sum(k->sum_runs) + lf_lane_sum(k->sum), j->mass[b] = lf_lane_sum(k->mass_runs) + lf_lane_sum(k->mass);
    j->bad[b] = k->bad;
    memset(k->sum, 0, sizeof k->sum), memset(k->mass, 0, sizeof k->mass);
    memset(k->sum_runs, 0, sizeof k->sum_runs), memset(k->mass_runs, 0, sizeof k->mass_runs);
}

/* Do the positions of an array lie nearer to one another than its classes? */
static int lf_lies_across(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride)
{
    return j->cdim == 1 && j->n > 1 && lf_distance(a->stride[j->ndim - 1]) <= lf_distance(stride[0]);
}

/* Classes from .. to of positions that lie across come in before they are read. */
LF_CALLED lf_fetch_across(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t first, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to)
{
    LfRuns w;
    for (lf_runs(j, a, first, n, &w); w.n; lf_next_run(j, a, &w))
        for (ptrdiff_t c = from; c < to; c++)
            lf_prefetch(a->data + w.off + c * stride[0], w.n * lf_itemsize(a->dtype));
}

/* Where rows follow one another, the next ones come in, and the lines that they are going to be written to: 1.3 times the speed of a gradient of
 * 65536 rows of ten that is not in the cache. */
LF_CALLED lf_fetch_along(const LfRowJob *j, const LfArray *a, ptrdiff_t first, ptrdiff_t n)
{
    LfRuns w;
    const ptrdiff_t step = a->stride[j->ndim - 1];
    if (step == j->c * lf_itemsize(a->dtype) && !j->stream)
        for (lf_runs(j, a, first, n, &w); w.n; lf_next_run(j, a, &w))
            lf_prefetch(a->data + w.off, w.n * step);
}

/* Bytes between a read of a row and its prefetch: the next group of rows of one run; of rows of a few runs the next one, whose first run is read
 * early; of huge ones 1.2 times as fast as that. */
static ptrdiff_t lf_row_ahead(const LfRowJob *j)
{
    const ptrdiff_t apart = LF_GROUP * j->c * lf_itemsize(j->x.dtype);
    return j->c <= LF_RUN ? apart : j->c <= 4 * LF_RUN ? 16384 : LF_AHEAD;
}

static inline ptrdiff_t lf_piece_end(const LfRowJob *j, ptrdiff_t from) { return j->c - from < LF_PIECE ? j->c : from + LF_PIECE; }

/* Does `out` hold an element for each of the input's? */
static int lf_gives_rows(const LfRowJob *j) { return j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX; }

/* Are losses summed? Else nothing reads a block's sums. */
static int lf_sums(const LfRowJob *j) { return j->op >= LF_CE_INDEX; }

/* Is there a second pass? */
static int lf_second(const LfRowJob *j) { return j->gx.data || j->gt.data || j->gw || lf_gives_rows(j); }

/* Are the target masses not just one class? For the gradient of log_softmax they are the upstream gradient. */
static int lf_spreads(const LfRowJob *j)
{
    return j->op == LF_CE_PROB || (j->op == LF_CE_INDEX && j->smoothing != 0) || (j->t.data && j->op == LF_LOG_SOFTMAX);
}

/* The array of the input's shape that the second pass writes last, and its stride of classes; or NULL. */
static const LfArray *lf_written(const LfRowJob *j, const ptrdiff_t **stride)
{
    *stride = j->gx.data ? j->gxc : j->oc;
    return j->gx.data ? &j->gx : lf_gives_rows(j) ? &j->out : NULL;
}

#endif
