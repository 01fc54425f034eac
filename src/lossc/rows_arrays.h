/* Rows in hand, up to LF_W, and what moves between them and the arrays: labels and masks, target masses, runs of a row, tiles of rows side by side.
 * Part of rows.h. */

typedef struct {
    _Alignas(64) int64_t label[LF_W];         /* class; -1: adds nothing (ignored, masked or bad) */
    double wt[LF_W];                          /* class weight of the label, 0 where the row does not count */
    I own[LF_W];                              /* of small rows, the label once more */
    T m[LF_W], top[LF_W], xt[LF_W], et[LF_W]; /* maximum; maximum and logit of the label, shifted if the row is far; and e of that logit */
    T magic[LF_W], floor[LF_W];               /* reference */
    U low[LF_W];                              /* of the first run of a long row */
    double f[LF_W], s[LF_W];                  /* and S */
    double mass[LF_W], dot[LF_W];             /* sum of target masses u; sum of u (m - x) */
    double delta[LF_W], loss[LF_W];           /* log1p(S) */
    double focus[LF_W], slope[LF_W];          /* focal loss over cross entropy, and its gradient over that of cross entropy */
    /* coefficients of the second pass: p = e pf, gradient = k (mass p - u), at the maximum k ((mass - u) - mass q) with q = 1 - p; the label's own */
    T pf[LF_W], q[LF_W], k[LF_W], kmass[LF_W], kq[LF_W], tdelta[LF_W], patch[LF_W];
    double kd[LF_W], qd[LF_W];
    ptrdiff_t off_x[LF_W], off_t[LF_W], off_out[LF_W], off_gx[LF_W], off_gt[LF_W];
    ptrdiff_t first, n; /* positions first .. first + n */
    ptrdiff_t from, to; /* classes of the second pass */
} NAME(Rows);

/* Whether sums of exponentials are fine (runs.h): of floats, where powers of S are taken. */
static inline int NAME(rows_fine)(const LfRowJob *j) { return LF_HAS_FINE & (j->gamma != 0); }

static inline NAME(Refs) NAME(group_refs)(const NAME(Rows) * r, ptrdiff_t at)
{
    return (NAME(Refs)){r->m + at, r->top + at, r->magic + at, r->floor + at, r->f + at};
}

/* The references of a group's rows, by their maxima. */
static inline void NAME(group_ref)(NAME(Rows) * r, ptrdiff_t at)
{
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const T m = r->m[at + l];
        const NAME(Ref) ref = NAME(run_ref)(m);
        r->top[at + l] = NAME(row_far)(m) ? 0 : m;
        r->magic[at + l] = ref.magic;
        r->floor[at + l] = ref.floor;
        r->f[at + l] = ref.f;
    }
}

/* ---- positions: labels, masks, results ------------------------------------------------------------------------------------------------ */

/* Where long rows lie; small ones are moved a tile at a time. */
static void NAME(rows_place)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t first, ptrdiff_t n)
{
    r->first = first, r->n = n, r->from = 0, r->to = j->c;
    if (j->c <= LF_SMALL_C && j->op != LF_NLL && !j->gw)
        return;
    lf_offsets(j, &j->x, r->first, r->n, r->off_x);
    if (j->t.data && j->op != LF_CE_INDEX && j->op != LF_NLL)
        lf_offsets(j, &j->t, r->first, r->n, r->off_t);
    if (j->out.data)
        lf_offsets(j, &j->out, r->first, r->n, r->off_out);
    if (j->gx.data)
        lf_offsets(j, &j->gx, r->first, r->n, r->off_gx);
    if (j->gt.data)
        lf_offsets(j, &j->gt, r->first, r->n, r->off_gt);
}

/* Labels and masks: which rows count, and with what weight. */
static void NAME(rows_labels)(const LfRowJob *j, NAME(Rows) * r, LfRowBlock *k)
{
    LfRuns v;
    const T *w = j->weight;
    const int indices = j->op == LF_CE_INDEX || j->op == LF_NLL;
    const uint64_t classes = indices ? (uint64_t)j->c : 1;
    const int64_t ignored = indices ? j->ignore_index : -1; /* also what is masked, and lanes of no row */
    int64_t y[LF_W], any = 0;
    ptrdiff_t bad = 0;
    if (!indices && !j->where.data) {
        for (ptrdiff_t l = 0; l < r->n; l++)
            r->label[l] = 0, r->wt[l] = 1;
        for (ptrdiff_t l = r->n; l < LF_W; l++)
            r->label[l] = -1, r->wt[l] = 0;
        return;
    }
    for (ptrdiff_t l = 0; l < LF_W; l++)
        y[l] = l < r->n ? 0 : ignored;
    if (indices)
        for (lf_runs(j, &j->t, r->first, r->n, &v); v.n; lf_next_run(j, &j->t, &v)) {
            const ptrdiff_t step = j->t.stride[j->ndim - 1];
            lf_load_labels(y + v.at, j->t.data + v.off, j->t.dtype, step, v.n);
            if (step == lf_itemsize(j->t.dtype)) /* ahead by two tiles: 3 % of a loss over planes of classes */
                lf_prefetch(j->t.data + v.off + 2 * LF_W * step, v.n * step);
        }
    if (j->where.data)
        for (lf_runs(j, &j->where, r->first, r->n, &v); v.n; lf_next_run(j, &j->where, &v))
            for (ptrdiff_t l = 0; l < v.n; l++)
                y[v.at + l] = j->where.data[v.off + l * j->where.stride[j->ndim - 1]] ? y[v.at + l] : ignored;
#pragma omp simd reduction(| : any)
    for (int l = 0; l < LF_W; l++) {
        const int64_t in = -(int64_t)((uint64_t)y[l] < classes), given = -(int64_t)(y[l] != ignored), counts = in & given;
        any |= ~in & given;
        r->label[l] = (y[l] & counts) | ~counts;
        r->wt[l] = counts ? 1 : 0;
    }
    for (ptrdiff_t l = 0; w && indices && l < r->n; l++)
        r->wt[l] = r->label[l] < 0 ? 0 : (double)w[r->label[l]];
    if (!any || k->bad >= 0)
        return;
    while (y[bad] == ignored || (uint64_t)y[bad] < classes)
        bad++;
    k->bad = r->first + bad;
}

LF_CALLED NAME(rows_open)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t first, ptrdiff_t n, LfRowBlock *k)
{
    NAME(rows_place)(j, r, first, n);
    NAME(rows_labels)(j, r, k);
}

/* Losses, or logsumexp: one number a row. */
static void NAME(rows_out)(const LfRowJob *j, const NAME(Rows) * r)
{
    LfRuns w;
    T v[LF_W];
    if (!j->out.data || lf_gives_rows(j) || r->from)
        return;
    for (ptrdiff_t l = 0; l < r->n; l++)
        v[l] = (T)r->loss[l];
    for (lf_runs(j, &j->out, r->first, r->n, &w); w.n; lf_next_run(j, &j->out, &w))
        NAME(lf_store)(j->out.data + w.off, j->out.dtype, j->out.stride[j->ndim - 1], v + w.at, w.n, 0);
}

/* Adds losses and masses, block by block, in an order that does not depend on how rows are grouped. */
LF_CALLED NAME(rows_add)(const LfRowJob *j, const NAME(Rows) * r, LfRowBlock *b)
{
    for (ptrdiff_t l = 0, n; l < r->n && !r->from && lf_sums(j); l += n) {
        const ptrdiff_t first = r->first + l, at = first % j->rows, rest = j->rows - at, run = LF_ROWS_RUN - at % LF_ROWS_RUN;
        n = r->n - l < rest ? r->n - l : rest;
        n = n < run ? n : run;
        if (l % LF_LANES == 0 && at % LF_LANES == 0 && (n % LF_LANES == 0 || l + n == r->n)) { /* the lanes of no row are 0 */
            for (ptrdiff_t i = l; i < l + n; i += LF_LANES)
#pragma omp simd
                for (int k = 0; k < LF_LANES; k++)
                    b->sum[k] += r->loss[i + k], b->mass[k] += r->wt[i + k];
        } else
            for (ptrdiff_t i = 0; i < n; i++)
                b->sum[(at + i) % LF_LANES] += r->loss[l + i], b->mass[(at + i) % LF_LANES] += r->wt[l + i];
        if (n == rest || first + n == j->n)
            lf_block_end(j, b, first + n);
        else if (n == run)
            lf_row_run_end(b);
    }
}

/* ---- along: runs of a row ------------------------------------------------------------------------------------------------------------- */

/* Elements c .. c + n of a row, from or to buf. */
static void NAME(row_move)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t off, ptrdiff_t c, ptrdiff_t n, T *buf, int put)
{
    const int last = j->cdim - 1;
    while (n) {
        ptrdiff_t i = c, p = off, at = 0;
        for (int d = last; d >= 0; d--) {
            const ptrdiff_t q = d ? i % j->cshape[d] : i;
            i /= j->cshape[d];
            p += q * stride[d];
            at = d == last ? q : at;
        }
        const ptrdiff_t room = j->cshape[last] - at, run = n < room ? n : room;
        if (put)
            NAME(lf_store)(a->data + p, a->dtype, stride[last], buf, run, j->stream);
        else
            NAME(lf_load)(buf, a->data + p, a->dtype, stride[last], run);
        n -= run, c += run, buf += run;
    }
}

/* A run of a row, in place where it can be used there. */
static const T *NAME(row_in)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t off, ptrdiff_t c, ptrdiff_t n, T *buf)
{
    const char *p = a->data + off + c * (ptrdiff_t)sizeof(T);
    if (j->cdim == 1 && a->dtype == T_CODE && stride[0] == sizeof(T) && (uintptr_t)p % sizeof(T) == 0)
        return (const T *)p;
    NAME(row_move)(j, a, stride, off, c, n, buf, 0);
    return buf;
}

/* A run of logits as run_extent and run_sum read it, in place or in words or buf. */
static const void *NAME(row_raw)(const LfRowJob *j, ptrdiff_t off, ptrdiff_t c, ptrdiff_t n, T *buf, uint16_t *words)
{
    const int dtype = LF_RAW(j->x.dtype);
    if (dtype == T_CODE)
        return NAME(row_in)(j, &j->x, j->xc, off, c, n, buf);
    if (j->cdim == 1 && j->xc[0] == 2)
        return j->x.data + off + 2 * c;
    NAME(row_move)(j, &j->x, j->xc, off, c, n, buf, 0);
    NAME(lf_store)((char *)words, dtype, 2, buf, n, 0); /* what they were */
    return words;
}

/* Where a run of outputs can be written in place, its address; else buf, which row_put then stores. */
static T *NAME(row_out)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t off, ptrdiff_t c, T *buf)
{
    char *p = a->data + off + c * (ptrdiff_t)sizeof(T);
    return j->cdim == 1 && a->dtype == T_CODE && stride[0] == sizeof(T) && (uintptr_t)p % sizeof(T) == 0 && !j->stream ? (T *)p : buf;
}

static void NAME(row_put)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t off, ptrdiff_t c, ptrdiff_t n, T *o, T *buf)
{
    if (o == buf)
        NAME(row_move)(j, a, stride, off, c, n, buf, 1);
}

/* A run of logits, shifted if the row is far. */
static const T *NAME(row_logits)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, ptrdiff_t c, ptrdiff_t n, T m, T *buf)
{
    const T *x = NAME(row_in)(j, &j->x, j->xc, r->off_x[l], c, n, buf);
    if (!NAME(row_far)(m))
        return x;
    for (ptrdiff_t i = 0; i < n; i++)
        buf[i] = NAME(row_shift)(x[i], m);
    return buf;
}

/* ---- across: tiles, and what comes in before it is read ------------------------------------------------------------------------------- */

/* Classes from .. to of positions first .. first + n: tile[(c - from) * ld + i], then zeros for the lanes of no position. */
LF_CALLED NAME(tile_in)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t first, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to,
                        T *tile, ptrdiff_t ld)
{
    LfRuns w;
    const ptrdiff_t step = a->stride[j->ndim - 1], rest = -n & (LF_GROUP - 1);
    for (lf_runs(j, a, first, n, &w); w.n; lf_next_run(j, a, &w)) {
        T *at = tile + w.at, row[LF_SMALL_C];
        if (j->cdim == 1)
            NAME(lf_load_tile)(at, ld, a->data + w.off + from * stride[0], a->dtype, step, stride[0], w.n, to - from);
        for (ptrdiff_t l = 0; j->cdim > 1 && l < w.n; l++) {
            NAME(row_move)(j, a, stride, w.off + l * step, 0, j->c, row, 0);
            for (ptrdiff_t c = from; c < to; c++)
                at[(c - from) * ld + l] = row[c];
        }
    }
    for (ptrdiff_t c = 0; rest && c < to - from; c++)
        memset(tile + c * ld + n, 0, rest * sizeof(T));
}

LF_CALLED NAME(tile_out)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t first, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to,
                         const T *tile, ptrdiff_t ld)
{
    LfRuns w;
    const ptrdiff_t step = a->stride[j->ndim - 1];
    for (lf_runs(j, a, first, n, &w); w.n; lf_next_run(j, a, &w)) {
        const T *at = tile + w.at;
        T row[LF_SMALL_C];
        if (j->cdim == 1)
            NAME(lf_store_tile)(a->data + w.off + from * stride[0], a->dtype, step, stride[0], at, ld, w.n, to - from, j->stream);
        for (ptrdiff_t l = 0; j->cdim > 1 && l < w.n; l++) {
            for (ptrdiff_t c = 0; c < j->c; c++)
                row[c] = at[c * ld + l];
            NAME(row_move)(j, a, stride, w.off + l * step, 0, j->c, row, 1);
        }
    }
}

/* ---- target masses -------------------------------------------------------------------------------------------------------------------- */

/* The target masses of a run, where they are not just one class: u = w t' with t' = t (1 - smoothing) + smoothing / C; for indices t = 0, the
 * label's own part is added by rows_finish. */
static const T *NAME(row_masses)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, ptrdiff_t c, ptrdiff_t n, T *buf)
{
    const T *w = j->weight, keep = (T)(1 - j->smoothing), even = (T)(j->smoothing / (double)j->c);
    if (j->op == LF_CE_INDEX)
        for (ptrdiff_t i = 0; i < n; i++)
            buf[i] = even;
    else {
        const T *t = NAME(row_in)(j, &j->t, j->tc, r->off_t[l], c, n, buf);
        if (j->smoothing == 0 && !w)
            return t;
        for (ptrdiff_t i = 0; i < n; i++)
            buf[i] = t[i] * keep + even;
    }
    for (ptrdiff_t i = 0; w && i < n; i++)
        buf[i] *= w[c + i];
    return buf;
}

/* ... of classes from .. to of rows side by side, ld apart */
static void NAME(tile_masses)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t from, ptrdiff_t to, T *u, ptrdiff_t ld)
{
    const T *w = j->weight, keep = (T)(1 - j->smoothing), even = (T)(j->smoothing / (double)j->c);
    if (j->op == LF_CE_INDEX)
        memset(u, 0, (to - from) * ld * sizeof(T));
    else
        NAME(tile_in)(j, &j->t, j->tc, r->first, r->n, from, to, u, ld);
    if (j->smoothing == 0 && !w)
        return;
    for (ptrdiff_t c = from; c < to; c++, u += ld) {
        const T factor = w ? w[c] : 1;
        for (ptrdiff_t l = 0; l < ld; l++)
            u[l] = (u[l] * keep + even) * factor;
    }
}
