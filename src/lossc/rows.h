/* Row losses: logsumexp, softmax, log-softmax, cross entropy with class indices or probabilities, NLL.
 *
 * Representation. A row x is known by its maximum m and  S = sum over all but one maximal element of exp(x_j - m), in double. Then
 *     logsumexp = m + log1p(S)      -log p_t = (m - x_t) + log1p(S)      p_t = exp(x_t - m) / (1 + S)
 * and no term cancels: a dominating class leaves S tiny with full relative accuracy, and so the loss (cross_entropy([20, 0], 0) = 2.06e-9).
 *
 * Two passes. The first finds m and S, and of cross entropy the sums over target masses; then losses and coefficients are a row's own business; the
 * second takes the row again and gives softmax or gradients, an element of output for each of input. Rows are taken so many at once that they stay
 * in the second-level cache between the passes.
 *
 * Layout. Up to LF_SMALL_C classes rows lie side by side in a tile[class][row], one row per vector lane, whatever their memory layout. Larger rows
 * are read in runs of LF_RUN classes, each lane of LF_LANES taking every LF_LANES-th. The choice between these two orders of a sum depends on C only:
 * larger rows whose positions lie nearer to one another than classes lie in tiles too, and are added up as if they did not.
 *
 * Parts, in order: */

#include "positions.h" /* positions in order, how arrays lie: without arithmetic type */

#define T_ROOM (LF_ROOM / (ptrdiff_t)sizeof(T))

#include "runs.h"         /* exponentials and their sums */
#include "rows_arrays.h"  /* rows in hand, and what moves between them and arrays */
#include "rows_results.h" /* losses, coefficients, and the formula of each output */
#include "rows_across.h"  /* up to LF_SMALL_C classes */
#include "rows_along.h"   /* more, */
#include "planes.h"       /* whose positions lie nearer than classes, */
#include "rows_apart.h"   /* or whose classes do not follow one another */

/* ---- negative log likelihood -------------------------------------------------------------------------------------------------------------- */

/* Zero rows of the gradient, whose classes are one dimension. */
static void NAME(rows_clear)(const LfRowJob *j, ptrdiff_t first, ptrdiff_t rows)
{
    LfRuns w;
    static const T zero[LF_RUN];
    const ptrdiff_t item = lf_itemsize(j->gx.dtype), step = j->gx.stride[j->ndim - 1], class = j->gxc[0];
    const int across = lf_lies_across(j, &j->gx, j->gxc);
    for (lf_runs(j, &j->gx, first, rows, &w); w.n; lf_next_run(j, &j->gx, &w)) {
        const int whole = class == item && step == j->c * item;
        const ptrdiff_t lines = whole ? 1 : across ? j->c : w.n, apart = across ? class : step, along = whole ? item : across ? step : class;
        const ptrdiff_t n = whole ? w.n * j->c : across ? w.n : j->c;
        for (ptrdiff_t i = 0; i < lines; i++) {
            char *p = j->gx.data + w.off + i * apart;
            if (along == item)
                memset(p, 0, (size_t)(n * item));
            for (ptrdiff_t k = 0; along != item && k < n; k += LF_RUN)
                NAME(lf_store)(p + k * along, j->gx.dtype, along, zero, n - k < LF_RUN ? n - k : LF_RUN, 0);
        }
    }
}

/* Negative log likelihood: one element of each row. */
static void NAME(nll_work)(const LfRowJob *j, NAME(Rows) * r, LfRowBlock *k)
{
    T x[LF_W] = {0};
    for (ptrdiff_t l = 0; l < r->n; l++) {
        const char *p = j->x.data + r->off_x[l] + r->label[l] * j->xc[0];
        if (r->label[l] >= 0 && j->x.dtype == T_CODE)
            memcpy(x + l, p, sizeof(T));
        else if (r->label[l] >= 0)
            NAME(lf_load)(x + l, p, j->x.dtype, 1, 1);
    }
    for (ptrdiff_t l = 0; l < LF_W; l++)
        r->loss[l] = r->wt[l] == 0 ? 0 : -r->wt[l] * (double)x[l];
    NAME(rows_out)(j, r);
    if (!j->gx.data && !j->gw)
        return;
    if (j->gx.data == j->x.data) /* in place: not before it is read */
        NAME(rows_clear)(j, r->first, r->n);
    NAME(rows_coefficients)(j, r);
    for (ptrdiff_t l = 0; l < r->n; l++) {
        const int64_t y = r->label[l];
        const T g = (T)(-r->kd[l] * r->wt[l]);
        if (y >= 0 && j->gw)
            k->gw_mass[y] += 1, k->gw[y] -= r->kd[l] * (double)x[l];
        if (y >= 0 && j->gx.data)
            j->gx.dtype == T_CODE ? (void)memcpy(j->gx.data + r->off_gx[l] + y * j->gxc[0], &g, sizeof g)
                                  : NAME(lf_store)(j->gx.data + r->off_gx[l] + y * j->gxc[0], j->gx.dtype, 1, &g, 1, 0);
    }
}

static void NAME(nll_block)(const LfRowJob *j, LfRowBlock *k)
{
    if (j->gx.data && j->gx.data != j->x.data)
        NAME(rows_clear)(j, k->start, k->end - k->start);
    for (ptrdiff_t i = k->start; i < k->end; i += LF_W) {
        NAME(Rows) r;
        NAME(rows_open)(j, &r, i, k->end - i < LF_W ? k->end - i : LF_W, k);
        NAME(nll_work)(j, &r, k);
        NAME(rows_add)(j, &r, k);
    }
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------------------- */

/* Rows of more than LF_SMALL_C classes; of them, those from `from` on are given. */
static void NAME(long_block)(const LfRowJob *j, LfRowBlock *k, ptrdiff_t from)
{
    T room[T_ROOM];
    const NAME(Apart) apart = NAME(rows_apart)(j);
    const ptrdiff_t planes = NAME(planes_of)(j, room).width, fit = planes ? planes : (apart.arrays ? apart.part : LF_GROUP_ELEMENTS) / j->c;
    const ptrdiff_t group = fit < 1 ? 1 : fit < LF_W ? fit : LF_W, *stride;
    const LfArray *last = lf_written(j, &stride);
    const int fetch = (planes || apart.arrays) && j->c <= LF_RUN, fetch_x = fetch && !planes && lf_lies_across(j, &j->x, j->xc);
    const int fetch_last = fetch && !planes && last && !j->stream && lf_lies_across(j, last, stride);
    for (ptrdiff_t i = k->start, n; i < k->end; i += n) {
        NAME(Rows) r;
        n = k->end - i < group ? k->end - i : group;
        NAME(rows_open)(j, &r, i, n, k);
        if (j->cut)
            r.from = from, r.to = lf_piece_end(j, from);
        if (fetch_x && i + n < k->end)
            lf_fetch_across(j, &j->x, j->xc, i + n, k->end - i - n < group ? k->end - i - n : group, 0, j->c);
        if (fetch_last)
            lf_fetch_across(j, last, stride, i, n, 0, j->c);
        if (planes)
            NAME(planes_work)(j, &r, room);
        else if (apart.arrays)
            NAME(rows_work_apart)(j, &r, apart, room, k);
        else
            NAME(rows_work)(j, &r, room, k);
        NAME(rows_add)(j, &r, k);
    }
}

/* `block` counts spans of blocks, or pieces of the rows of a block. */
static void NAME(row_block)(const LfRowJob *j, ptrdiff_t block)
{
    const ptrdiff_t pieces = j->cut ? (j->c + LF_PIECE - 1) / LF_PIECE : 1, b = block / pieces, from = block % pieces * LF_PIECE;
    LfRowBlock k = lf_row_block(j, b);
    if (j->op == LF_NLL)
        NAME(nll_block)(j, &k);
    else if (j->c > LF_SMALL_C)
        NAME(long_block)(j, &k, from);
    else if (j->c > 0 && lf_lies_across(j, &j->x, j->xc))
        NAME(strips_block)(j, &k);
    else
        NAME(tiles_block)(j, &k);
    if (j->stream)
        lf_store_fence();
}

/* One piece of a row, for another thread's row_block. */
static void NAME(row_alone)(const LfRowJob *j, ptrdiff_t i)
{
    const ptrdiff_t pieces = (j->c + LF_PIECE - 1) / LF_PIECE, from = i % pieces * LF_PIECE;
    NAME(Rows) r;
    NAME(rows_place)(j, &r, i / pieces, 1);
    NAME(row_first)(j, &r, 0, from);
    j->piece[i] = NAME(row_piece)(j, &r, 0, from);
}

static void NAME(label_block)(const LfRowJob *j, ptrdiff_t b)
{
    LfRowBlock block = lf_row_block(j, b);
    for (ptrdiff_t i = block.start; i < block.end; i += LF_W) {
        NAME(Rows) r;
        r.first = i, r.n = block.end - i < LF_W ? block.end - i : LF_W;
        NAME(rows_labels)(j, &r, &block);
        for (int l = 0; l < LF_W; l += LF_LANES)
#pragma omp simd
            for (int k = 0; k < LF_LANES; k++)
                block.mass[k] += r.wt[l + k];
        if ((i + LF_W) % LF_ROWS_RUN == 0)
            lf_row_run_end(&block);
    }
    lf_block_end(j, &block, block.end);
}
#undef T_ROOM
