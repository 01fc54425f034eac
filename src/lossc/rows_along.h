/* Rows of more than LF_SMALL_C classes, one by one, in runs of LF_RUN that stay in the first-level cache. Part of rows.h. */

/* ---- first pass: maximum, S, reference, masses ---------------------------------------------------------------------------------------- */

/* A piece of a row of several runs, which stay in the first-level cache. When a run raises the maximum, what was summed so far is rescaled. row_first
 * finds the first run's maximum; called a row ahead, it overlaps with the sums. */
static void NAME(row_first)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t l, ptrdiff_t from)
{
    T buf[LF_RUN];
    uint16_t words[LF_RUN];
    const ptrdiff_t n = j->c - from < LF_RUN ? j->c - from : LF_RUN;
    const void *x = NAME(row_raw)(j, r->off_x[l], from, n, buf, words);
    const NAME(Extent) first = NAME(run_extent)(x, n, LF_RAW(j->x.dtype), 1, -INFINITY);
    const NAME(Ref) ref = NAME(run_ref)(first.max);
    r->m[l] = first.max, r->low[l] = first.low, r->magic[l] = ref.magic, r->floor[l] = ref.floor, r->f[l] = ref.f;
}

static LfRowPiece NAME(row_piece)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t l, ptrdiff_t from)
{
    const int spread = lf_spreads(j), fine = NAME(rows_fine)(j);
    const ptrdiff_t ahead = lf_row_ahead(j);
    T buf[LF_RUN], tbuf[LF_RUN], m = r->m[l], top = NAME(row_far)(m) ? 0 : m;
    uint16_t words[LF_RUN];
    double s = 0, count = 0, mass = 0, dot = 0;
    NAME(Ref) ref = {.magic = r->magic[l], .floor = r->floor[l], .f = r->f[l]};
    for (ptrdiff_t c = from, end = lf_piece_end(j, from); c < end; c += LF_RUN) {
        const ptrdiff_t n = end - c < LF_RUN ? end - c : LF_RUN;
        int dtype = LF_RAW(j->x.dtype);
        const void *x = NAME(row_raw)(j, r->off_x[l], c, n, buf, words);
        NAME(Extent) here = c > from ? NAME(run_extent)(x, n, dtype, 1, m) : (NAME(Extent)){m, r->low[l]};
        if (here.max > m) {
            s = (s + count) * lf_exp_f64((double)m - (double)here.max);
            dot += mass != 0 ? mass * ((double)here.max - (double)m) : 0;
            count = 0, m = here.max, top = NAME(row_far)(m) ? 0 : m;
            ref = NAME(run_ref)(m);
        }
        if (NAME(row_far)(m)) {
            x = NAME(row_logits)(j, r, l, c, n, m, buf), dtype = T_CODE;
            here.low = ~(U)0; /* not known of what is left of them */
        }
        s += ref.f * NAME(run_sum)(x, n, dtype, ahead, ref, fine ? LF_FINE : here.max == m, top, here, &count, NULL);
        if (spread)
            NAME(run_dot)(dtype == T_CODE ? x : NAME(row_logits)(j, r, l, c, n, m, buf), NAME(row_masses)(j, r, l, c, n, tbuf), n, top, &mass, &dot);
    }
    r->m[l] = m, r->top[l] = top, r->magic[l] = ref.magic, r->floor[l] = ref.floor, r->f[l] = ref.f;
    return (LfRowPiece){m, s, count, mass, dot};
}

#ifndef LF_T_FLOAT
static LfRowPiece lf_both_pieces(LfRowPiece a, LfRowPiece b)
{
    const LfRowPiece high = a.m < b.m ? b : a, low = a.m < b.m ? a : b;
    const int same = high.m == low.m;
    const double apart = same ? 0 : high.m - low.m, s = same ? low.s : (low.s + low.count) * lf_exp_f64(-apart);
    return (LfRowPiece){high.m, high.s + s, high.count + (same ? low.count : 0), high.mass + low.mass,
                        high.dot + low.dot + (low.mass != 0 ? low.mass * apart : 0)};
}
#endif

/* All pieces of a row, joined in order. */
static void NAME(row_stats)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t l)
{
    const ptrdiff_t pieces = (j->c + LF_PIECE - 1) / LF_PIECE;
    const LfRowPiece *known = j->piece ? j->piece + (r->first + l) * pieces : NULL;
    LfRowPiece all = known ? known[0] : NAME(row_piece)(j, r, l, 0);
    T buf[1];
    for (ptrdiff_t i = 1; i < pieces; i++) {
        if (!known)
            NAME(row_first)(j, r, l, i * LF_PIECE);
        all = lf_both_pieces(all, known ? known[i] : NAME(row_piece)(j, r, l, i * LF_PIECE));
    }
    if (pieces > 1) {
        const NAME(Ref) ref = NAME(run_ref)((T)all.m);
        r->m[l] = (T)all.m, r->top[l] = NAME(row_far)(r->m[l]) ? 0 : r->m[l], r->magic[l] = ref.magic, r->floor[l] = ref.floor, r->f[l] = ref.f;
    }
    r->s[l] = all.s + (all.count - 1), r->mass[l] = all.mass, r->dot[l] = all.dot;
    if (r->label[l] >= 0 && j->op == LF_CE_INDEX) {
        r->xt[l] = *NAME(row_logits)(j, r, l, r->label[l], 1, r->m[l], buf);
        r->et[l] = NAME(run_exp)(r->xt[l], r->magic[l], r->floor[l]);
    }
}

/* Rows of one run, a group at a time. The exponentials are left in e, `pitch` apart, unless it is NULL. */
static void NAME(group_rows)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at, T *e, ptrdiff_t pitch)
{
    const int spread = lf_spreads(j), index = j->op == LF_CE_INDEX;
    const ptrdiff_t end = r->n - at < LF_GROUP ? r->n : at + LF_GROUP, ahead = lf_row_ahead(j);
    T buf[LF_RUN], tbuf[LF_RUN];
    uint16_t words[LF_RUN];
    for (ptrdiff_t l = at; l < at + LF_GROUP; l++)
        r->m[l] = r->xt[l] = 0;
    for (ptrdiff_t l = at; l < end; l++)
        r->m[l] = NAME(run_extent)(NAME(row_raw)(j, r->off_x[l], 0, j->c, buf, words), j->c, LF_RAW(j->x.dtype), 0, -INFINITY).max;
    NAME(group_ref)(r, at);
    for (ptrdiff_t l = at; l < end; l++) {
        const int far = NAME(row_far)(r->m[l]), dtype = far ? T_CODE : LF_RAW(j->x.dtype);
        const void *x = far ? NAME(row_logits)(j, r, l, 0, j->c, r->m[l], buf) : NAME(row_raw)(j, r->off_x[l], 0, j->c, buf, words);
        const NAME(Ref) ref = {.magic = r->magic[l], .floor = r->floor[l], .f = r->f[l]};
        double count = -1;
        const double s = NAME(run_sum)(x, j->c, dtype, ahead, ref, NAME(rows_fine)(j) ? LF_FINE : 1, r->top[l], (NAME(Extent)){0, ~(U)0}, &count,
                                       e ? e + l * pitch : NULL);
        r->s[l] = ref.f * s + count, r->mass[l] = r->dot[l] = 0;
        if (spread)
            NAME(run_dot)(dtype == T_CODE ? x : NAME(row_logits)(j, r, l, 0, j->c, r->m[l], buf), NAME(row_masses)(j, r, l, 0, j->c, tbuf), j->c,
                          r->top[l], r->mass + l, r->dot + l);
        if (index && r->label[l] >= 0)
            r->xt[l] = *NAME(row_logits)(j, r, l, r->label[l], 1, r->m[l], buf);
    }
    if (index)
        NAME(group_exp)(r->et + at, r->xt + at, r->magic + at, r->floor + at);
}

/* ---- second pass ----------------------------------------------------------------------------------------------------------------------- */

/* The array that the second pass writes, if it is but one, of rows that follow one another and cannot or should not be written where they lie: they
 * are left where the exponentials were, and written as one run. */
static const LfArray *NAME(rows_whole)(const LfRowJob *j)
{
    const LfArray *out = lf_gives_rows(j) ? &j->out : NULL, *a = j->gx.data ? &j->gx : out;
    if (!a || (j->gx.data && out && out->data) || j->gt.data || j->cdim > 1 || (!j->stream && a->dtype == T_CODE))
        return NULL;
    const ptrdiff_t item = lf_itemsize(a->dtype), stride = a == out ? j->oc[0] : j->gxc[0];
    return stride == item && a->stride[j->ndim - 1] == j->c * item ? a : NULL;
}

/* What the second pass has of a run of a row: logits, exponentials, target masses or the upstream gradient; each NULL where nothing needs it. */
typedef struct {
    const T *x, *e, *u;
    ptrdiff_t n;
    T logits[LF_RUN], exps[LF_RUN], masses[LF_RUN];
} NAME(RowRun);

LF_CALLED NAME(run_read)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, ptrdiff_t c, const T *kept, NAME(RowRun) * v)
{
    const int spread = lf_spreads(j), reads = !kept || spread || j->op == LF_LOG_SOFTMAX || j->gt.data;
    v->n = r->to - c < LF_RUN ? r->to - c : LF_RUN;
    v->x = reads ? NAME(row_logits)(j, r, l, c, v->n, r->m[l], v->logits) : NULL, v->u = NULL;
    if (j->gx.data && spread)
        v->u = NAME(row_masses)(j, r, l, c, v->n, v->masses);
    else if (j->gx.data && j->op == LF_SOFTMAX)
        v->u = NAME(row_in)(j, &j->t, j->tc, r->off_t[l], c, v->n, v->masses);
    v->e = kept;
    if (v->u && !kept) {
        NAME(emit_scaled)(v->exps, v->x, NULL, v->n, r->magic[l], r->floor[l], 1, 1);
        v->e = v->exps;
    }
}

/* sum g p */
static T NAME(row_upstream)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, const T *kept)
{
    NAME(RowRun) v;
    T term[LF_RUN];
    const T pf = r->pf[l];
    double sum = 0;
    for (ptrdiff_t c = r->from; c < r->to; c += LF_RUN) {
        NAME(run_read)(j, r, l, c, kept, &v);
        for (ptrdiff_t i = 0; i < v.n; i++)
            term[i] = v.e[i] * pf * v.u[i];
        sum += NAME(run_total)(term, v.n);
    }
    return (T)sum;
}

static inline void NAME(emit_probabilities)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, const NAME(RowRun) * v, const T *kept, T *o)
{
    if (j->op == LF_LOG_SOFTMAX) {
        NAME(emit_log_softmax)(o, v->x, v->n, &r->top[l], &r->tdelta[l], 0);
        return;
    }
    NAME(emit_scaled)(o, v->x, kept, v->n, r->magic[l], r->floor[l], r->pf[l], 1);
    for (ptrdiff_t i = 0; r->q[l] < T_EPS / 4 && i < v->n; i++) /* what is 1 but for rounding */
        o[i] = o[i] > (T)0.5 ? 1 : o[i];
}

static inline void NAME(emit_input_grad)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, ptrdiff_t c, const NAME(RowRun) * v, const T *kept,
                                         T dot, T *o)
{
    const int64_t y = j->op == LF_CE_INDEX ? r->label[l] - c : -1;
    const T pf = r->pf[l];
    if (r->label[l] < 0)
        memset(o, 0, v->n * sizeof(T));
    else if (j->op == LF_SOFTMAX)
        NAME(emit_softmax_grad)(o, v->e, v->u, v->n, &pf, &dot, 0);
    else if (v->u)
        NAME(emit_grad_spread)(o, v->x, v->e, v->u, v->n, r, l, &pf, 0);
    else
        NAME(emit_scaled)(o, v->x, kept, v->n, r->magic[l], r->floor[l], pf, r->kmass[l]);
    if (y >= 0 && y < v->n)
        o[y] = r->patch[l];
}

/* Second pass over a row that the first has left in the second-level cache, with the exponentials kept or taken again: keeping those of rows of
 * more than a run was slower, by up to 1.4 at 32000 classes. `whole`: the output replaces what is kept. */
static void NAME(row_emit)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t l, T *kept, int whole)
{
    const T *w = j->weight, k = (T)(1 - j->smoothing) * r->k[l];
    const T dot = j->op == LF_SOFTMAX && j->gx.data ? NAME(row_upstream)(j, r, l, kept) : 0;
    NAME(RowRun) v;
    T buf[LF_RUN], *o;
    for (ptrdiff_t c = r->from; c < r->to; c += LF_RUN) {
        NAME(run_read)(j, r, l, c, kept, &v);
        if (j->out.data && lf_gives_rows(j)) {
            o = whole ? kept : NAME(row_out)(j, &j->out, j->oc, r->off_out[l], c, buf);
            NAME(emit_probabilities)(j, r, l, &v, kept, o);
            NAME(row_put)(j, &j->out, j->oc, r->off_out[l], c, v.n, o, buf);
        }
        if (j->gt.data) {
            o = NAME(row_out)(j, &j->gt, j->gtc, r->off_gt[l], c, buf);
            NAME(emit_target_grad)(o, v.x, v.n, &r->top[l], &r->tdelta[l], &k, w ? w + c : NULL, 0);
            NAME(row_put)(j, &j->gt, j->gtc, r->off_gt[l], c, v.n, o, buf);
        }
        if (j->gx.data) {
            o = whole ? kept : NAME(row_out)(j, &j->gx, j->gxc, r->off_gx[l], c, buf);
            NAME(emit_input_grad)(j, r, l, c, &v, kept, dot, o);
            NAME(row_put)(j, &j->gx, j->gxc, r->off_gx[l], c, v.n, o, buf);
        }
    }
}

/* First pass over rows in hand. The exponentials of rows of one run are left in e, one row behind the other, unless it is NULL. */
static void NAME(rows_stats)(const LfRowJob *j, NAME(Rows) * r, T *e)
{
    for (ptrdiff_t at = 0; j->c <= LF_RUN && at < r->n; at += LF_GROUP)
        NAME(group_rows)(j, r, at, e, j->c);
    if (j->c > LF_RUN)
        NAME(row_first)(j, r, 0, 0);
    for (ptrdiff_t l = 0; j->c > LF_RUN && l < r->n; l++) {
        if (l + 1 < r->n)
            NAME(row_first)(j, r, l + 1, 0);
        NAME(row_stats)(j, r, l);
    }
}

/* All of the rows in hand; room: for LF_GROUP_ELEMENTS exponentials. */
static __attribute__((noinline)) void NAME(rows_work)(const LfRowJob *j, NAME(Rows) * r, T *room, LfRowBlock *k)
{
    LfRuns w;
    const int second = lf_second(j);
    T *kept = second && j->c <= LF_RUN ? room : NULL;
    NAME(rows_stats)(j, r, kept);
    NAME(rows_finish)(j, r);
    NAME(rows_near)(j, r);
    if (second) {
        const LfArray *whole = kept ? NAME(rows_whole)(j) : NULL;
        NAME(rows_coefficients)(j, r);
        NAME(rows_weight_grad)(j, r, k);
        for (ptrdiff_t l = 0; l < r->n; l++)
            NAME(row_emit)(j, r, l, kept ? kept + l * j->c : NULL, whole != NULL);
        if (whole)
            for (lf_runs(j, whole, r->first, r->n, &w); w.n; lf_next_run(j, whole, &w))
                NAME(lf_store)(whole->data + w.off, whole->dtype, lf_itemsize(whole->dtype), kept + w.at * j->c, w.n * j->c, j->stream);
    }
    NAME(rows_out)(j, r);
}
