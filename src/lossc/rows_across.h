/* Rows of up to LF_SMALL_C classes side by side in a tile[class][row], one row per vector lane. Part of rows.h. */

static void NAME(tile_top)(const T *x, ptrdiff_t ld, ptrdiff_t classes, T *top)
{
    T m[LF_GROUP];
    for (int l = 0; l < LF_GROUP; l++)
        m[l] = -INFINITY;
    for (ptrdiff_t c = 0; c < classes; c++)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            m[l] = x[c * ld + l] > m[l] ? x[c * ld + l] : m[l];
    memcpy(top, m, sizeof m);
}

/* Shifts a group's far rows. */
LF_CALLED NAME(tile_shift)(T *x, ptrdiff_t ld, ptrdiff_t classes, const T *m)
{
    I far = 0;
    for (int l = 0; l < LF_GROUP; l++)
        far |= NAME(row_far)(m[l]);
    for (ptrdiff_t c = 0; far && c < classes; c++)
        for (int l = 0; l < LF_GROUP; l++)
            x[c * ld + l] = NAME(row_far)(m[l]) ? NAME(row_shift)(x[c * ld + l], m[l]) : x[c * ld + l];
}

/* The references of rows side by side, of which far ones are shifted. */
static void NAME(tile_refs)(T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Rows) * r)
{
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(tile_top)(x + at, ld, classes, r->m + at);
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(group_ref)(r, at);
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(tile_shift)(x + at, ld, classes, r->m + at);
}

static void NAME(group_dot)(const T *x, ptrdiff_t ld, const T *u, ptrdiff_t classes, NAME(Rows) * r, ptrdiff_t at)
{
    double mass[LF_GROUP] = {0}, dot[LF_GROUP] = {0};
    for (ptrdiff_t c = 0; c < classes; c++)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++) {
            const T v = x[c * ld + l], w = u[c * LF_W + l], d = v == -INFINITY ? INFINITY : r->top[at + l] - v;
            mass[l] += w;
            dot[l] += w == 0 ? 0 : w * d;
        }
    memcpy(r->mass + at, mass, sizeof mass);
    memcpy(r->dot + at, dot, sizeof dot);
}

/* The labels' logits, by comparison: faster than by address up to some 30 classes. */
static void NAME(group_own)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Rows) * r, ptrdiff_t at)
{
    T xt[LF_GROUP] = {0};
    I own[LF_GROUP];
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++)
        own[l] = (I)r->label[at + l];
    for (ptrdiff_t c = 0; c < classes; c++)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++) {
            const T v = x[c * ld + l];
            xt[l] = own[l] == (I)c ? v : xt[l];
        }
    NAME(group_exp)(r->et + at, xt, r->magic + at, r->floor + at);
    memcpy(r->xt + at, xt, sizeof xt);
    memcpy(r->own + at, own, sizeof own);
}

static void NAME(tile_stats)(const LfRowJob *j, NAME(Rows) * r, T *x, ptrdiff_t ld, const T *u, T *e)
{
    const int index = j->op == LF_CE_INDEX;
    for (ptrdiff_t l = 0; !index && l < LF_W; l++)
        r->own[l] = -1;
    NAME(tile_refs)(x, ld, j->c, r);
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP) {
        if (e)
            NAME(group_stats)(x + at, ld, j->c, NAME(group_refs)(r, at), e + at, NAME(rows_fine)(j), r->s + at);
        else
            NAME(group_stats)(x + at, ld, j->c, NAME(group_refs)(r, at), NULL, NAME(rows_fine)(j), r->s + at);
        if (u)
            NAME(group_dot)(x + at, ld, u + at, j->c, r, at);
    }
    for (ptrdiff_t at = 0; index && at < r->n; at += LF_GROUP)
        NAME(group_own)(x + at, ld, j->c, r, at);
}

/* k mass p, where all mass lies on the label, if there is one */
static void NAME(tile_grad)(T *o, ptrdiff_t lo, const T *e, ptrdiff_t classes, const NAME(Rows) * r)
{
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP) {
        T pf[LF_GROUP], kmass[LF_GROUP], patch[LF_GROUP]; /* in registers */
        I own[LF_GROUP];
        memcpy(pf, r->pf + at, sizeof pf);
        memcpy(kmass, r->kmass + at, sizeof kmass);
        memcpy(patch, r->patch + at, sizeof patch);
        memcpy(own, r->own + at, sizeof own);
        for (ptrdiff_t c = 0; c < classes; c++)
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++) {
                const T g = e[c * LF_W + at + l] * pf[l] * kmass[l];
                o[c * lo + at + l] = own[l] == (I)c ? patch[l] : g;
            }
    }
}

/* A tile of outputs: in place of the logits where it stays there, else in `tile`, LF_W apart, which tile_put then stores. */
typedef struct {
    T *o;
    ptrdiff_t ld;
} NAME(TileOut);

static inline NAME(TileOut) NAME(tile_for)(const LfArray *a, const LfArray *stays, T *x, ptrdiff_t ld, T *tile)
{
    return a == stays ? (NAME(TileOut)){x, ld} : (NAME(TileOut)){tile, LF_W};
}

static void NAME(tile_put)(const LfRowJob *j, const NAME(Rows) * r, const LfArray *a, const ptrdiff_t *stride, const T *o, const T *tile)
{
    if (o == tile)
        NAME(tile_out)(j, a, stride, r->first, r->n, 0, j->c, o, LF_W);
}

static void NAME(tile_probabilities)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t n, const T *x, ptrdiff_t ld, const T *e, NAME(TileOut) to)
{
    T most[LF_W];
    for (ptrdiff_t l = 0; l < n; l++)
        most[l] = (T)(1 - r->qd[l]);
    for (ptrdiff_t c = 0; c < j->c; c++)
        if (j->op == LF_SOFTMAX)
            NAME(emit_softmax)(to.o + c * to.ld, x + c * ld, e + c * LF_W, n, r->top, most, r->pf);
        else
            NAME(emit_log_softmax)(to.o + c * to.ld, x + c * ld, n, r->top, r->tdelta, 1);
}

static void NAME(tile_target_grad)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t n, const T *x, ptrdiff_t ld, T *o)
{
    const T *w = j->weight, keep = (T)(1 - j->smoothing);
    T k[LF_W];
    for (ptrdiff_t l = 0; l < n; l++)
        k[l] = keep * r->k[l];
    for (ptrdiff_t c = 0; c < j->c; c++)
        NAME(emit_target_grad)(o + c * LF_W, x + c * ld, n, r->top, r->tdelta, k, w ? w + c : NULL, 1);
}

static void NAME(tile_input_grad)(const LfRowJob *j, const NAME(Rows) * r, ptrdiff_t n, const T *x, ptrdiff_t ld, const T *e, const T *u,
                                  NAME(TileOut) to)
{
    int64_t skipped = 0;
    if (j->op == LF_SOFTMAX) {
        T dot[LF_W] = {0};
        for (ptrdiff_t c = 0; c < j->c; c++)
            for (ptrdiff_t l = 0; l < n; l++)
                dot[l] += u[c * LF_W + l] * (e[c * LF_W + l] * r->pf[l]);
        for (ptrdiff_t c = 0; c < j->c; c++)
            NAME(emit_softmax_grad)(to.o + c * to.ld, e + c * LF_W, u + c * LF_W, n, r->pf, dot, 1);
    } else if (u)
        for (ptrdiff_t c = 0; c < j->c; c++)
            NAME(emit_grad_spread)(to.o + c * to.ld, x + c * ld, e + c * LF_W, u + c * LF_W, n, r, 0, r->pf, 1);
    else
        NAME(tile_grad)(to.o, to.ld, e, j->c, r);
    for (ptrdiff_t l = 0; u && j->op == LF_CE_INDEX && l < r->n; l++)
        to.o[(r->label[l] & ~(r->label[l] >> 63)) * to.ld + l] = r->patch[l];
    for (ptrdiff_t l = 0; l < r->n; l++)
        skipped |= r->label[l];
    for (ptrdiff_t l = 0; skipped < 0 && l < r->n; l++)
        for (ptrdiff_t c = 0; r->label[l] < 0 && c < j->c; c++)
            to.o[c * to.ld + l] = 0;
}

/* Second pass over a tile: x the logits, e their exponentials, u the masses or upstream gradient. The output for `stays` replaces x. */
static void NAME(tile_emit)(const LfRowJob *j, const NAME(Rows) * r, T *x, ptrdiff_t ld, const LfArray *stays, const T *e, const T *u)
{
    T tile[LF_SMALL_C * LF_W];
    const ptrdiff_t n = (r->n + LF_GROUP - 1) / LF_GROUP * LF_GROUP;
    if (j->out.data && lf_gives_rows(j)) {
        const NAME(TileOut) to = NAME(tile_for)(&j->out, stays, x, ld, tile);
        NAME(tile_probabilities)(j, r, n, x, ld, e, to);
        NAME(tile_put)(j, r, &j->out, j->oc, to.o, tile);
    }
    if (j->gt.data) {
        NAME(tile_target_grad)(j, r, n, x, ld, tile);
        NAME(tile_put)(j, r, &j->gt, j->gtc, tile, tile);
    }
    if (j->gx.data) {
        const NAME(TileOut) to = NAME(tile_for)(&j->gx, stays, x, ld, tile);
        NAME(tile_input_grad)(j, r, n, x, ld, e, u, to);
        NAME(tile_put)(j, r, &j->gx, j->gxc, to.o, tile);
    }
}

/* All of a tile. strip: its logits, ld apart, in place of which the output for `stays` is left, or NULL. */
LF_CALLED NAME(tile_work)(const LfRowJob *j, NAME(Rows) * r, T *strip, ptrdiff_t ld, const LfArray *stays, LfRowBlock *k)
{
    T tile[LF_SMALL_C * LF_W], e[LF_SMALL_C * LF_W], u[LF_SMALL_C * LF_W], *x = strip ? strip : tile;
    const int spread = lf_spreads(j), upstream = j->op == LF_SOFTMAX && j->gx.data, second = lf_second(j);
    if (!strip)
        NAME(tile_in)(j, &j->x, j->xc, r->first, r->n, 0, j->c, tile, LF_W);
    if (spread)
        NAME(tile_masses)(j, r, 0, j->c, u, LF_W);
    else if (upstream)
        NAME(tile_in)(j, &j->t, j->tc, r->first, r->n, 0, j->c, u, LF_W);
    NAME(tile_stats)(j, r, x, ld, spread ? u : NULL, second ? e : NULL);
    NAME(rows_finish)(j, r);
#ifdef LF_T_FLOAT
    if (j->op == LF_LOGSUMEXP && any_sum_is_near(r))
        for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
            group_sum_again(x + at, ld, j->c, r, at);
#endif
    if (second) {
        NAME(rows_coefficients)(j, r);
        NAME(rows_weight_grad)(j, r, k);
        NAME(tile_emit)(j, r, x, ld, stays, e, spread || upstream ? u : NULL);
    }
    NAME(rows_out)(j, r);
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------------------- */

/* Tiles by themselves; while one is worked on the next one comes in. */
static void NAME(tiles_block)(const LfRowJob *j, LfRowBlock *k)
{
    const ptrdiff_t *stride;
    const LfArray *last = lf_written(j, &stride);
    for (ptrdiff_t i = k->start, n; i < k->end; i += n) {
        NAME(Rows) r;
        n = k->end - i < LF_W ? k->end - i : LF_W;
        if (last && i + n < k->end) {
            const ptrdiff_t next = k->end - i - n < LF_W ? k->end - i - n : LF_W;
            lf_fetch_along(j, &j->x, i + n, next);
            lf_fetch_along(j, last, i + n, next);
        }
        NAME(rows_open)(j, &r, i, n, k);
        NAME(tile_work)(j, &r, NULL, LF_W, NULL, k);
        NAME(rows_add)(j, &r, k);
    }
}

/* Strips of many tiles, of positions that lie across, class by class. While one is worked on, the next one comes in beside it, some classes with each
 * tile. */
static void NAME(strips_block)(const LfRowJob *j, LfRowBlock *k)
{
    T room[T_ROOM];
    const ptrdiff_t width = LF_GROUP_ELEMENTS / 2 / j->c / LF_W * LF_W, ld = width + LF_GROUP, *stride;
    const LfArray *last = lf_written(j, &stride), *stays = last && lf_lies_across(j, last, stride) ? last : NULL;
    T *x = room, *other = room + j->c * ld;
    ptrdiff_t n = k->end - k->start < width ? k->end - k->start : width, next;
    for (ptrdiff_t c = 0; c < j->c; c++) {
        if (c + 1 < j->c)
            lf_fetch_across(j, &j->x, j->xc, k->start, n, c + 1, c + 2);
        NAME(tile_in)(j, &j->x, j->xc, k->start, n, c, c + 1, x + c * ld, ld);
    }
    for (ptrdiff_t i = k->start; n; i += n, n = next) {
        next = k->end - i - n < width ? k->end - i - n : width;
        for (ptrdiff_t at = 0; at < n; at += LF_W) {
            const ptrdiff_t from = j->c * at / width, to = j->c * (at + LF_W) / width;
            NAME(Rows) r;
            if (next)
                lf_fetch_across(j, &j->x, j->xc, i + n, next, from, to);
            NAME(rows_open)(j, &r, i + at, n - at < LF_W ? n - at : LF_W, k);
            NAME(tile_work)(j, &r, x + at, ld, stays, k);
            if (next)
                NAME(tile_in)(j, &j->x, j->xc, i + n, next, from, to, other + from * ld, ld);
            NAME(rows_add)(j, &r, k);
        }
        if (stays)
            NAME(tile_out)(j, stays, stride, i, n, 0, j->c, x, ld);
        T *swap = x;
        x = other, other = swap;
    }
}
