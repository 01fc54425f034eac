/* CTC loss and gradient: from rows of logits or log-probabilities to emissions, and from occupancies to rows of gradient.
 *
 * A frame's emissions are its probabilities over a factor that is taken out, exp(x - M): M is the largest entry of the row (few classes, logits)
 * or of the label columns. `shift` holds -log of the factor, so that
 *     loss = sum of shift - log Z        probability = emission * ratio        gradient = (probability - occupancy) * scale
 * where the probability is subtracted only if x are logits. Emissions are taken in double, also for float x. log-softmax is
 * M + log1p(S) with S the sum over all but one maximal element, so that nearly certain frames keep their relative accuracy.
 *
 * Three ways to read rows, chosen by lf_ctc_measure(); log-probabilities have the same emissions in all of them:
 *  whole     few classes: the eight frames of a block side by side in a tile [class][frame], which is also the form of the emissions; rows of
 *            gradient are written through it
 *  logits    many classes: rows are read once in runs of LF_CTC_RUN, in T, and softmax written at once; later the columns of labels, whose
 *            probability is known in double, are written over
 *  entries   log-probabilities of more classes than labels: those of labels are gathered, and the gradient is 0 elsewhere
 */

#ifdef LF_T_DOUBLE

#include "ctc_lattice.h"

/* Where the frames of a block lie, as offsets from the sample's; frames beyond the sample's end repeat the last. */
static void ctc_offsets(ptrdiff_t *off, ptrdiff_t stride, ptrdiff_t t, ptrdiff_t frames)
{
    for (ptrdiff_t l = 0; l < F; l++)
        off[l] = (t + (l < frames ? l : frames - 1)) * stride;
}

/* Where the entries of label columns of a block lie. */
typedef struct {
    const char *x;          /* of the sample */
    ptrdiff_t off[F], step; /* of frames and from class to class */
    const int32_t *classes; /* of columns */
    ptrdiff_t count;        /* of columns */
} CtcSource;

static CtcSource ctc_source(const LfCtcJob *j, ptrdiff_t n, ptrdiff_t b)
{
    const LfCtcSample *u = &j->sample[n];
    CtcSource s = {j->x + n * j->x_n, {0}, j->x_c, u->classes, b < u->blocks && u->status == LF_CTC_READY ? u->columns - 1 : 0};
    if (s.count > 0)
        ctc_offsets(s.off, j->x_t, b * F, u->steps - b * F < F ? u->steps - b * F : F);
    return s;
}

/* Entries of a column that will soon be gathered. Most of them lie on a page of their own, and it is pages that take the time: a core translates
 * one address in 2.6 ns (bench/README.md's machine), whatever is fetched or cached. Spread over the arithmetic for the block before, fetches
 * cost next to nothing; all at once they would hold it up. */
INLINE void ctc_fetch(const CtcSource *s, ptrdiff_t column, int from, int to)
{
    if (column < s->count)
        for (int l = from; l < to; l++)
            __builtin_prefetch(s->x + s->classes[column] * s->step + s->off[l], 0, 2);
}

/* Frames that ctc_emit fetches begin here; ctc_gather fetches those before. */
enum { CTC_EMIT_FETCHES = 4 };

/* Of the entries of eight frames: the largest, of label columns (`used`; all, if NULL) or with `whole` of all, and the labels' least and sum. */
typedef struct {
    double top[F], least[F], total[F];
} CtcExtent;

static void ctc_extent(const double *q, ptrdiff_t count, const int32_t *used, int whole, CtcExtent *to)
{
    CtcExtent e;
    for (int l = 0; l < F; l++)
        e.top[l] = -INFINITY, e.least[l] = INFINITY, e.total[l] = 0;
    for (ptrdiff_t c = 0; c < count; c++) {
        if (!used || used[c]) {
#pragma omp simd
            for (int l = 0; l < F; l++) {
                const double x = q[c * F + l];
                e.top[l] = x > e.top[l] ? x : e.top[l];
                e.least[l] = x < e.least[l] ? x : e.least[l];
                e.total[l] += x;
            }
        } else if (whole) {
#pragma omp simd
            for (int l = 0; l < F; l++)
                e.top[l] = q[c * F + l] > e.top[l] ? q[c * F + l] : e.top[l];
        }
    }
    *to = e;
}

/* How entries become emissions. CTC_PLAIN: as CTC_ANY, but all entries of labels are numbers above M - 700. CTC_PATH: logits as logarithms. */
enum { CTC_PLAIN, CTC_ANY, CTC_PATH };

static int ctc_form(const CtcExtent *e, const double *M)
{
    int plain = 1;
    for (int l = 0; l < F; l++)
        plain &= e->least[l] - M[l] > -700 && e->total[l] - e->total[l] == 0;
    return plain ? CTC_PLAIN : CTC_ANY;
}

/* Entries of eight frames, columns 0 .. count, become emissions below the factors M of the frames; `used` (or all, if NULL): columns of labels.
 * rough: whether one of those is not a positive double. For logits also the sum of exp(x - M) over elements other than M, and how many are M;
 * else *ties is positive where a label's entry is NaN. What a double does not hold is kept as logarithm (ctc_lattice.h).
 * Column `count` is that of padding, never emitted. Meanwhile the rest of `next` is fetched. */
static inline __attribute__((always_inline)) void ctc_emit_as(const int form, double *restrict q, ptrdiff_t count, const int32_t *used,
                                                              const double *M, const int logits, const CtcSource *next, double *rest_, double *ties_,
                                                              double *rough_)
{
    double rest[F] = {0}, ties[F] = {0}, rough[F] = {0};
    for (ptrdiff_t c = 0; c < count; c++) {
        const double label = used ? used[c] : 1;
        if (next)
            ctc_fetch(next, c, CTC_EMIT_FETCHES, F);
#pragma omp simd
        for (int l = 0; l < F; l++) {
            const double x = q[c * F + l], d = x - M[l], e = form == CTC_PLAIN && !logits ? lf_exp_sum_f64(d) : lf_exp_neg_f64(d);
            const double low = d == -INFINITY ? 0 : d < -1e300 ? -1e300 : d, p = d < -700 ? low : e;
            if (logits) {
                rest[l] += lf_real_f64(lf_bits_f64(e) & -(uint64_t)(d != 0)); /* a selection would make gcc branch around e */
                ties[l] += d == 0 ? 1 : 0;
            } else if (form == CTC_ANY) {
                ties[l] += x != x ? label : 0;
            }
            if (form == CTC_ANY)
                rough[l] += p > 0 ? 0 : label;
            q[c * F + l] = form == CTC_PLAIN ? e : form == CTC_ANY ? p : x > -INFINITY ? d : -INFINITY;
        }
    }
    for (int l = 0; l < F; l++)
        rest_[l] = rest[l], ties_[l] = ties[l], rough_[l] = rough[l], q[count * F + l] = form == CTC_PATH ? -INFINITY : 0;
}

static void ctc_emit(int form, double *q, ptrdiff_t count, const int32_t *used, const double *M, int logits, const CtcSource *next, double *rest,
                     double *ties, double *rough)
{
    if (form == CTC_PLAIN && logits)
        ctc_emit_as(CTC_PLAIN, q, count, used, M, 1, NULL, rest, ties, rough);
    else if (form == CTC_PLAIN)
        ctc_emit_as(CTC_PLAIN, q, count, used, M, 0, next, rest, ties, rough);
    else if (form == CTC_ANY && logits)
        ctc_emit_as(CTC_ANY, q, count, used, M, 1, NULL, rest, ties, rough);
    else if (form == CTC_ANY)
        ctc_emit_as(CTC_ANY, q, count, used, M, 0, next, rest, ties, rough);
    else
        ctc_emit_as(CTC_PATH, q, count, used, M, 1, NULL, rest, ties, rough);
}

/* The same for an alignment: log-probabilities less the labels' largest. nan: whether one of those is NaN. */
static void ctc_emit_path(double *q, ptrdiff_t count, const int32_t *used, const CtcExtent *e, double *nan)
{
    for (int f = 0; f < F; f += LANES) {
        const V top = (V) * (const VU *)(e->top + f), total = (V) * (const VU *)(e->total + f);
        V any = ctc_splat(0);
        for (ptrdiff_t c = 0; c < count && ctc_any(total != total); c++) { /* or infinities of both signs */
            const V x = *(const V *)(q + c * F + f);
            any += ctc_where((x != x) & (!used || used[c] ? -1 : 0), ctc_splat(1));
        }
        for (ptrdiff_t c = 0; c < count; c++) {
            V *x = (V *)(q + c * F + f);
            *x = ctc_max(*x - top, ctc_splat(-INFINITY)); /* this, where it is NaN */
        }
        *(V *)(q + count * F + f) = ctc_splat(-INFINITY);
        *(VU *)(nan + f) = any;
    }
}

static int ctc_has_rough(const double *rough, ptrdiff_t frames)
{
    int any = 0;
    for (ptrdiff_t l = 0; l < frames; l++)
        any |= rough[l] != 0;
    return any;
}

/* From one state a frame leads to the blank and at most two classes: their emissions, the two largest for all states, bound the sum over paths. */
static void ctc_bound_growth(const LfCtcSample *u, ptrdiff_t b, const int32_t *used)
{
    const double *q = u->q + b * F * u->columns, *blank = q + u->blank * F;
    double first[F], second[F], product = 1;
    for (int l = 0; l < F; l++)
        first[l] = second[l] = 1e-30; /* so that the product is a double, and what stands there as a logarithm is less */
    for (ptrdiff_t c = 0; c < u->columns - 1; c++)
        if (c != u->blank && (!used || used[c])) {
#pragma omp simd
            for (int l = 0; l < F; l++) {
                const double p = q[c * F + l], less = p < first[l] ? p : first[l];
                second[l] = less > second[l] ? less : second[l];
                first[l] = p > first[l] ? p : first[l];
            }
        }
    for (int l = 0; l < F && b * F + l < u->steps; l++)
        product *= (blank[l] > 0 ? blank[l] : 0) + (first[l] + second[l]);
    u->growth[b] = lf_log_f64(product) * CTC_LOG2E;
}

/* q[c F + l] = the entry of class c in the frame at x + off[l]; offsets of frames beyond `frames` repeat the last. */
static void ctc_load_frames(const LfCtcJob *j, const char *x, const ptrdiff_t *off, ptrdiff_t frames, double *q)
{
    const ptrdiff_t C = j->C;
    const int wide = j->x_dtype == LF_F64;
    if (!(wide || j->x_dtype == LF_F32) || j->x_c != lf_itemsize(j->x_dtype) || C < LANES) {
        lf_load_tile_f64(q, F, x + off[0], j->x_dtype, j->x_t, j->x_c, frames, C);
        for (ptrdiff_t c = 0; c < C; c++)
            for (ptrdiff_t l = frames; l < F; l++)
                q[c * F + l] = q[c * F + frames - 1];
        return;
    }
    for (ptrdiff_t i = 0; i < C; i += LANES)
        for (int f = 0; f < F; f += LANES) {
            const ptrdiff_t c = i + LANES < C ? i : C - LANES; /* the last ones overlap */
            V a[LANES];
            for (int l = 0; l < LANES; l++) {
                const char *from = x + off[f + l] + c * j->x_c;
                a[l] = wide ? (V) * (const VU *)(const void *)from : ctc_widen((const VF *)(const void *)from);
            }
            ctc_transpose(a);
            for (int l = 0; l < LANES; l++)
                *(V *)(q + (c + l) * F + f) = a[l];
        }
}

/* Frames from t to the end of its block are none: their shift is 0. */
static void ctc_end_shift(const LfCtcSample *u, ptrdiff_t t)
{
    for (; t % F; t++)
        u->shift[t] = 0;
}

/* What stands above 0 by more than rounding explains is no log-probability, and M of that size would take the digits of all others: entries above those
 * that paths use become 0 probabilities. A path uses labels that are reached by then and left in time. */
#define CTC_LARGE 700
static int ctc_has_large(const CtcExtent *e)
{
    int large = 0;
    for (int l = 0; l < F; l++)
        large |= e->top[l] > CTC_LARGE;
    return large;
}

static void ctc_drop_unused(const LfCtcSample *u, ptrdiff_t b, double *q, ptrdiff_t count, const int32_t *used, CtcExtent *e)
{
    double top[F];
    for (int l = 0; l < F; l++)
        top[l] = -INFINITY;
    for (ptrdiff_t i = 0; i <= u->S; i++)
        for (int l = 0; l < F; l++) {
            const ptrdiff_t n = (b * F + l < u->steps ? b * F + l : u->steps - 1) + 1, left = u->steps - n;
            const double blank = q[u->blank * F + l], label = q[u->column[0][i] + l];
            if (u->reach_b[0][i] <= n && u->need_b[0][i] <= left && blank > top[l])
                top[l] = blank;
            if (u->reach_l[0][i] <= n && u->need_l[0][i] <= left && label > top[l])
                top[l] = label;
        }
    for (ptrdiff_t c = 0; c < count; c++)
        for (int l = 0; l < F; l++)
            q[c * F + l] = q[c * F + l] > top[l] ? -INFINITY : q[c * F + l];
    ctc_extent(q, count, used, 0, e);
}

/* Block b of sample n: whole rows. */
static void ctc_short_rows(const LfCtcJob *j, const LfCtcSample *u, ptrdiff_t n, ptrdiff_t b, double *q)
{
    const ptrdiff_t C = j->C, t = b * F, frames = u->steps - t < F ? u->steps - t : F;
    double rest[F], ties[F], rough[F], delta[F];
    ptrdiff_t off[F];
    CtcExtent extent;
    const double *M = extent.top;
    ctc_offsets(off, j->x_t, t, frames);
    ctc_load_frames(j, j->x + n * j->x_n, off, frames, q);
    ctc_extent(q, C, u->classes, j->from_logits, &extent);
    if (!j->from_logits && ctc_has_large(&extent))
        ctc_drop_unused(u, b, q, C, u->classes, &extent);
    if (j->path && !j->from_logits) {
        ctc_emit_path(q, C, u->classes, &extent, ties);
    } else {
        ctc_emit(j->path ? CTC_PATH : ctc_form(&extent, M), q, C, u->classes, M, j->from_logits, NULL, rest, ties, rough);
        u->rough[b] = (uint8_t)ctc_has_rough(rough, frames);
    }
    for (int l = 0; l < F; l++)
        u->offset[t + l] = M[l];
    if (j->from_logits) {
#pragma omp simd
        for (int l = 0; l < F; l++) {
            rest[l] += ties[l] - 1;
            delta[l] = lf_log1p_f64(rest[l]);
        }
        for (int l = 0; l < frames; l++) {
            u->shift[t + l] = M[l] > -INFINITY && M[l] < INFINITY ? delta[l] : NAN;
            u->ratio[t + l] = 1 / (1 + rest[l]);
        }
    } else {
        for (int l = 0; l < F; l++)
            u->shift[t + l] = ties[l] > 0 || !(M[l] < INFINITY) ? NAN : M[l] > -INFINITY ? -M[l] : 0;
    }
    ctc_end_shift(u, t + frames);
    if (u->growth && !j->path)
        ctc_bound_growth(u, b, u->classes);
}

/* Block b of samples first .. end: whole rows. */
static void ctc_short(const LfCtcJob *j, ptrdiff_t b, ptrdiff_t first, ptrdiff_t end)
{
    for (ptrdiff_t n = first; n < end; n++) {
        const LfCtcSample *u = &j->sample[n];
        if (b < u->blocks && u->status == LF_CTC_READY && !u->read)
            ctc_short_rows(j, u, n, b, u->q + b * F * u->columns);
    }
}

/* to = the entry at x + at, of the call's dtype, for i = from .. end - 1, on which `to` and `at` depend. */
#define CTC_READ_AS(code, type, widen, from, end, to, at)                                                                                            \
    case code:                                                                                                                                       \
        for (ptrdiff_t i = from; i < end; i++)                                                                                                       \
            to = widen(*(const type *)(const void *)(x + (at)));                                                                                     \
        break;
#define CTC_READ(from, end, to, at)                                                                                                                  \
    switch (j->x_dtype) {                                                                                                                            \
        CTC_READ_AS(LF_F16, lf_u16_u, lf_f16_to_f32, from, end, to, at)                                                                              \
        CTC_READ_AS(LF_BF16, lf_u16_u, lf_bf16_to_f32, from, end, to, at)                                                                            \
        CTC_READ_AS(LF_F32, lf_f32_u, , from, end, to, at)                                                                                           \
        CTC_READ_AS(LF_F64, lf_f64_u, , from, end, to, at)                                                                                           \
    }

/* q[c F] = entry of column c of the row at x. */
static void ctc_gather_row(const LfCtcJob *j, const LfCtcSample *u, const char *x, double *q)
{
    const ptrdiff_t count = u->columns - 1;
    CTC_READ(0, count, q[i * F], u->classes[i] * j->x_c)
}

/* q[c F + l] = entry of column c of frame l, and what they extend over, while the first frames of `next` are fetched. */
static void ctc_gather(const LfCtcJob *j, const CtcSource *from, const CtcSource *next, double *restrict q, CtcExtent *e)
{
    const int ahead = j->path ? F : CTC_EMIT_FETCHES; /* for a path the arithmetic takes too little */
    V top[F / LANES], least[F / LANES], total[F / LANES];
    for (int f = 0; f < F / LANES; f++)
        top[f] = ctc_splat(-INFINITY), least[f] = ctc_splat(INFINITY), total[f] = ctc_splat(0);
    for (ptrdiff_t c = 0; c < from->count; c++) {
        const char *x = from->x + from->classes[c] * from->step;
        ctc_fetch(next, c, 0, ahead);
        CTC_READ(0, F, q[c * F + i], from->off[i])
        for (int f = 0; f < F / LANES; f++) {
            const V v = ((const V *)(q + c * F))[f];
            top[f] = ctc_max(v, top[f]), least[f] = ctc_min(v, least[f]), total[f] += v;
        }
    }
    memcpy(e->top, top, sizeof top), memcpy(e->least, least, sizeof least), memcpy(e->total, total, sizeof total);
}

/* Block b of a sample whose label columns lie in q as they were read and extend over *e, from logits with M, S of each row. */
static void ctc_columns(const LfCtcJob *j, const LfCtcSample *u, ptrdiff_t b, CtcExtent *e, const CtcSource *next, const double *M, const double *S)
{
    const ptrdiff_t t = b * F, frames = u->steps - t < F ? u->steps - t : F, zero = u->columns - 1;
    double *q = u->q + t * u->columns, mu[F], rest[F], nan[F], rough[F];
    if (!j->from_logits && ctc_has_large(e))
        ctc_drop_unused(u, b, q, zero, NULL, e);
    for (int l = 0; l < F; l++)
        u->offset[t + l] = mu[l] = e->top[l] > -INFINITY ? e->top[l] : 0;
    if (j->path)
        ctc_emit_path(q, zero, NULL, e, nan);
    else
        ctc_emit(ctc_form(e, mu), q, zero, NULL, mu, 0, next, rest, nan, rough);
    for (int l = 0; l < F; l++)
        u->shift[t + l] = nan[l] > 0 || !(mu[l] < INFINITY) ? NAN : -mu[l];
    for (int l = 0; l < frames && j->from_logits; l++) {
        u->shift[t + l] = nan[l] == 0 && M[l] > -INFINITY && M[l] < INFINITY ? (M[l] - mu[l]) + lf_log1p_f64(S[l]) : NAN;
        u->ratio[t + l] = lf_exp_f64(mu[l] - M[l]) / (1 + S[l]);
    }
    ctc_end_shift(u, t + frames);
    if (j->path)
        return;
    u->rough[b] = (uint8_t)ctc_has_rough(rough, frames);
    if (u->growth)
        ctc_bound_growth(u, b, NULL);
}

/* Frames from .. j->steps of sample n get gradient 0 (or NaN). */
static void ctc_fill(const LfCtcJob *j, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to, double value)
{
    double row[LF_CTC_RUN];
    for (ptrdiff_t c = 0; c < LF_CTC_RUN; c++)
        row[c] = value;
    const ptrdiff_t C = j->states ? 2 * j->sample[n].S + 1 : j->C;
    for (ptrdiff_t t = from; t < to; t++)
        for (ptrdiff_t c = 0; c < C; c += LF_CTC_RUN)
            lf_store_f64(j->g + t * j->g_t + n * j->g_n + c * j->g_c, j->g_dtype, j->g_c, row, C - c < LF_CTC_RUN ? C - c : LF_CTC_RUN, j->stream);
}

/* A span of blocks of samples first .. end, block by block: entries of long rows of log-probabilities. */
static void ctc_entries(const LfCtcJob *j, ptrdiff_t b, ptrdiff_t first, ptrdiff_t end)
{
    CtcSource next = ctc_source(j, first, b);
    for (ptrdiff_t at = b; at < b + j->span; at++)
        for (ptrdiff_t n = first; n < end; n++) {
            const CtcSource from = next;
            next = n + 1 < end ? ctc_source(j, n + 1, at) : ctc_source(j, first, at + 1);
            if (from.count == 0)
                continue;
            const LfCtcSample *u = &j->sample[n];
            CtcExtent extent;
            ctc_gather(j, &from, &next, u->q + at * F * u->columns, &extent);
            ctc_columns(j, u, at, &extent, &next, NULL, NULL);
            if (j->g && !j->states)
                ctc_fill(j, n, at * F, at * F + F < u->steps ? at * F + F : u->steps, 0);
        }
}

typedef struct {
    const LfCtcJob *job;
    const LfCtcSample *u;
    ptrdiff_t n;
    int dir;
    CtcWork *work;
} CtcRows;

/* Gradient rows of block b from the occupancies of its columns, which are used up. */
static void ctc_short_gradient(void *context, ptrdiff_t b)
{
    const CtcRows *r = context;
    const LfCtcJob *j = r->job;
    const LfCtcSample *u = r->u;
    const ptrdiff_t t = b * F, frames = u->steps - t < F ? u->steps - t : F;
    const double *q = u->q + t * u->columns, scale = j->scale[r->n];
    double *g = r->work->column, ratio[F] = {0};
    for (ptrdiff_t l = 0; l < frames && j->from_logits; l++)
        ratio[l] = u->ratio[t + l];
    for (ptrdiff_t c = 0; c < j->C; c++)
#pragma omp simd
        for (int l = 0; l < F; l++) {
            const double p = q[c * F + l] > 0 && ratio[l] > 0 ? q[c * F + l] : 0;
            g[c * F + l] = (p * ratio[l] - g[c * F + l]) * scale;
        }
    lf_store_tile_f64(j->g + r->n * j->g_n + t * j->g_t, j->g_dtype, j->g_t, j->g_c, g, F, frames, j->C, j->stream);
}

static void ctc_long_gradient(void *context, ptrdiff_t b)
{
    const CtcRows *r = context;
    const LfCtcJob *j = r->job;
    const LfCtcSample *u = r->u;
    const ptrdiff_t t = b * F, frames = u->steps - t < F ? u->steps - t : F;
    const double *q = u->q + t * u->columns, scale = j->scale[r->n];
    for (ptrdiff_t c = 0; c < u->columns - 1; c++) {
        double g[F];
        for (ptrdiff_t l = 0; l < frames; l++) {
            const double p = j->from_logits && q[c * F + l] > 0 ? q[c * F + l] * u->ratio[t + l] : 0;
            g[l] = (p - r->work->column[c * F + l]) * scale;
        }
        lf_store_f64(j->g + r->n * j->g_n + t * j->g_t + u->classes[c] * j->g_c, j->g_dtype, j->g_t, g, frames, 0);
    }
}

/* Sum of shifts: NaN if the sample holds one where it counts. */
static double ctc_shift(const LfCtcSample *u)
{
    double lane[F] = {0}, s = 0;
    for (ptrdiff_t t = 0; t < u->blocks * F; t += F)
#pragma omp simd
        for (int l = 0; l < F; l++)
            lane[l] += u->shift[t + l];
    for (int l = 0; l < F; l++)
        s += lane[l];
    return s;
}

/* Occupancies of the states of block b: row of 2 S + 1, blank 0, label 0, blank 1, ... */
static void ctc_state_rows(void *context, ptrdiff_t b)
{
    const CtcRows *r = context;
    const LfCtcJob *j = r->job;
    const LfCtcSample *u = r->u;
    const ptrdiff_t t = b * F, frames = u->steps - t < F ? u->steps - t : F;
    for (ptrdiff_t f = 0; f < frames; f++) {
        const double *blank = r->work->states + 2 * f * u->pairs, *label = blank + u->pairs;
        char *g = j->g + (t + f) * j->g_t + r->n * j->g_n;
        lf_store_f64(r->dir ? g + 2 * u->S * j->g_c : g, j->g_dtype, r->dir ? -2 * j->g_c : 2 * j->g_c, blank, u->S + 1, 0);
        lf_store_f64(g + (r->dir ? 2 * u->S - 1 : 1) * j->g_c, j->g_dtype, r->dir ? -2 * j->g_c : 2 * j->g_c, label, u->S, 0);
    }
}

/* The memory of sample n: what its directions work in; each lays out its own. */
static CtcWork *ctc_work(const LfCtcJob *j, const LfCtcSample *u, int dir, char *memory)
{
    CtcWork *work = (CtcWork *)memory, other;
    CtcRegion r = {NULL, 0};
    ctc_take(&r, 2, sizeof(CtcWork));
    if (dir)
        ctc_layout(&r, j, u, 0, &other);
    r.base = memory;
    ctc_layout(&r, j, u, dir, &work[dir]);
    return work;
}

static void ctc_half(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory)
{
    const LfCtcSample *u = &j->sample[n];
    if (u->status == LF_CTC_READY)
        ctc_first_half(u, dir, j->g != NULL, j->whole, ctc_work(j, u, dir, memory));
}

static void ctc_loss(const LfCtcJob *j, ptrdiff_t n, char *memory)
{
    const LfCtcSample *u = &j->sample[n];
    CtcWork *w = (CtcWork *)memory;
    const double shift = ctc_shift(u);
    double e = 0, z = 0;
    if (u->status == LF_CTC_READY) {
        z = w->met = ctc_meet(u, &w[0].end, &w[1].end, &e);
        w->met_exponent = e;
        if (w->split.unit > 0)
            z = w->z, e = w->exponent;
    }
    const double loss = (shift - e * LF_LN2_HI) - (e * LF_LN2_LO + lf_log_f64(z));
    /* Below 0 by what the rounding of normalised log-probabilities explains, it is 0. Those of halves are off by so much that such a bound would
     * take in losses of others, which are below 0 rightly: they only get that of the sums here. */
    const double eps = j->from_logits ? 0x1p-20 : j->x_dtype == LF_F32 ? 0x1p-19 : 0x1p-48, noise = eps * (double)u->steps;
    j->loss[n] = u->status == LF_CTC_INFEASIBLE || !(z > 0 || shift != shift) ? INFINITY : loss < 0 && loss > -noise ? 0 : loss;
}

static void ctc_rest(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory)
{
    const LfCtcSample *u = &j->sample[n];
    CtcWork *w = (CtcWork *)memory;
    double z = 0, shift = 0;
    if (u->status == LF_CTC_READY)
        z = w->met, shift = ctc_shift(u);
    const ptrdiff_t middle = u->half * F, from = dir ? 0 : middle, to = dir ? middle : u->steps;
    if (z > 0 && shift == shift) {
        CtcRows rows = {j, u, n, dir, &w[dir]};
        void (*const emit)(void *, ptrdiff_t) = j->states ? ctc_state_rows : j->small ? ctc_short_gradient : ctc_long_gradient;
        ctc_second_half(u, dir, z, w->met_exponent, &w[dir], &w[1 - dir], emit, &rows);
    } else {
        ctc_fill(j, n, from, to, shift != shift ? NAN : 0);
    }
    if (dir == 0)
        ctc_fill(j, n, u->steps, j->steps, 0);
    if (j->stream)
        lf_store_fence();
}

/* ---- alignments ----------------------------------------------------------------------------------------------------------------------- */

/* Emissions of block b for the search. Long rows have been read, short ones are read now: log-probabilities take so little to be read again that
 * they all pass through the room of the first block. */
static const double *ctc_block_emissions(const LfCtcJob *j, const LfCtcSample *u, ptrdiff_t n, ptrdiff_t b)
{
    double *q = u->q + (j->small && !j->from_logits ? 0 : b) * F * u->columns;
    if (j->small)
        ctc_short_rows(j, u, n, b, q);
    return q;
}

#include "ctc_align.h"

static CtcTrace *ctc_traces(const LfCtcSample *u, int dir, char *memory)
{
    CtcTrace *work = (CtcTrace *)memory, other;
    CtcRegion r = {NULL, 0};
    ctc_take(&r, 2, sizeof(CtcTrace));
    if (dir)
        ctc_trace_layout(&r, u, 0, &other);
    r.base = memory;
    ctc_trace_layout(&r, u, dir, &work[dir]);
    return work;
}

/* Log-probabilities of the classes of the path, frames from .. to; frames from `end` on count for nothing. */
static void ctc_scores(const LfCtcJob *j, const LfCtcSample *u, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to)
{
    const char *x = j->x + n * j->x_n;
    const int32_t *path = j->path + n * j->steps;
    double *score = j->score + n * j->steps;
    CTC_READ(from, to, score[i], i * j->x_t + (path[i] % 2 ? u->labels[path[i] / 2] : j->blank) * j->x_c)
    for (ptrdiff_t t = from; j->from_logits && t < to; t++)
        score[t] = (score[t] - u->offset[t]) - u->shift[t];
}

/* The score of sample n, and what its frames that do not count get. */
static void ctc_align_total(const LfCtcJob *j, const LfCtcSample *u, ptrdiff_t n, double best, double shift)
{
    for (ptrdiff_t t = u->steps; t < j->steps; t++)
        j->path[n * j->steps + t] = -1, j->score[n * j->steps + t] = 0;
    j->loss[n] = best > -INFINITY || shift != shift ? shift - best : INFINITY;
}

static int ctc_align_near(const LfCtcJob *j, ptrdiff_t n, char *memory)
{
    LfCtcSample *u = &j->sample[n];
    ptrdiff_t state;
    if (u->status != LF_CTC_READY || u->pairs < CTC_NARROW)
        return 0;
    CtcTrace *w = ctc_traces(u, 0, memory);
    u->read = j->from_logits;
    if (!ctc_search(j, u, n, w, &state))
        return 0;
    u->status = LF_CTC_ALIGNED;
    ctc_trace(u, 0, &w->near, u->blocks, state, j->path + n * j->steps);
    ctc_scores(j, u, n, 0, u->steps);
    ctc_align_total(j, u, n, u->best, ctc_shift(u));
    return 1;
}

static void ctc_align_half(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory)
{
    const LfCtcSample *u = &j->sample[n];
    if (u->status == LF_CTC_READY)
        ctc_best_half(u, dir, ctc_certain(u->best), &ctc_traces(u, dir, memory)[dir]);
}

static void ctc_align_rest(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory)
{
    const LfCtcSample *u = &j->sample[n];
    CtcTrace *w = (CtcTrace *)memory;
    double best = -INFINITY, shift = 0;
    const ptrdiff_t middle = u->half * F, from = dir ? middle : 0, to = dir ? u->steps : middle;
    ptrdiff_t state[2] = {0, 0};
    if (u->status == LF_CTC_ALIGNED)
        return;
    if (u->status == LF_CTC_READY)
        best = ctc_best_meet(u, &w[0].end, &w[1].end, state), shift = ctc_shift(u);
    if (best > -INFINITY) {
        ctc_trace(u, dir, &w[dir].half, ctc_half_blocks(u, dir), state[dir], j->path + n * j->steps);
        ctc_scores(j, u, n, from, to);
    } else {
        for (ptrdiff_t t = from; t < to; t++)
            j->path[n * j->steps + t] = -1, j->score[n * j->steps + t] = shift == shift ? -INFINITY : NAN;
    }
    if (dir == 0)
        ctc_align_total(j, u, n, best, shift);
}

#endif

/* One run of a long row, in LF_RAW of its dtype or in T: returns its maximum m, the sum of exp(x - m) over elements other than m in *sum, and how
 * many are m in *ties. With e, exp(x - m) = e * *factor is kept, up to the next multiple of LF_LANES. */
static T NAME(ctc_run)(const void *x, ptrdiff_t n, int dtype, T *e, double *sum, double *ties, double *factor)
{
    _Static_assert(LF_CTC_RUN <= LF_RUN, "run_sum keeps a run");
    T near[LF_CTC_RUN];
    const NAME(Extent) extent = NAME(run_extent)(x, n, dtype, 0, -INFINITY); /* no run is plain: the sum has the same bits whether or not e is kept */
    const T top = extent.max, m = NAME(row_far)(top) ? 0 : top;
    const NAME(Ref) ref = NAME(run_ref)(m);
    if (NAME(row_far)(top)) {
        NAME(lf_load)(near, x, dtype, lf_itemsize(dtype), n);
        for (ptrdiff_t i = 0; i < n; i++)
            near[i] = NAME(row_shift)(near[i], top);
        x = near, dtype = T_CODE;
    }
    *ties = 0, *factor = ref.f;
    *sum = ref.f * NAME(run_sum)(x, n, dtype, LF_AHEAD, ref, 1, m, extent, ties, e);
    return top;
}

/* n elements of a row as ctc_run reads them, in place or in `words` or `buffer`. */
static const void *NAME(ctc_raw)(const LfCtcJob *j, const char *x, ptrdiff_t n, T *buffer, uint16_t *words)
{
    const int dtype = LF_RAW(j->x_dtype), item = (int)lf_itemsize(j->x_dtype);
    if (dtype == j->x_dtype && j->x_c == item && (dtype != T_CODE || (uintptr_t)x % sizeof(T) == 0))
        return x;
    for (ptrdiff_t i = 0; j->x_c == item && i < n * item; i += 64)
        __builtin_prefetch(x + n * item + i); /* the next run, most likely: ctc_run looks ahead of where it reads */
    NAME(lf_load)(buffer, x, j->x_dtype, j->x_c, n);
    if (dtype == T_CODE)
        return buffer;
    NAME(lf_store)((char *)words, dtype, item, buffer, n, 0); /* what they were */
    return words;
}

/* Probabilities above 1/16 of a run, of which few can be, again from double: they have few bits to lose. */
static void NAME(ctc_refine)(const LfCtcJob *j, const char *x, T *p, ptrdiff_t n, double m, double total, double scale)
{
    const T limit = (T)(fabs(scale) * total / 16);
    for (ptrdiff_t i = 0; i < n; i += 2 * LF_LANES) {
        const ptrdiff_t end = n - i < 2 * LF_LANES ? n : i + 2 * LF_LANES;
        int any = 0;
#pragma omp simd reduction(| : any)
        for (ptrdiff_t k = i; k < end; k++)
            any |= ABS(p[k]) > limit;
        for (ptrdiff_t k = i; any && k < end; k++)
            if (ABS(p[k]) > limit) {
                double v = 0;
                lf_load_f64(&v, x + k * j->x_c, j->x_dtype, 0, 1);
                p[k] = (T)(lf_exp_f64(v - m) * scale);
            }
    }
}

/* One long row: M and S; with a gradient, softmax * scale to g. scratch: C elements of T, then two doubles for each run. */
static void NAME(ctc_long_row)(const LfCtcJob *j, const char *x, char *g, double scale, double *M, double *S, char *scratch)
{
    const ptrdiff_t C = j->C, runs = (C + LF_CTC_RUN - 1) / LF_CTC_RUN;
    double *top = (double *)scratch, *factor = top + runs, m = -INFINITY, count = -1, s = 0;
    T *e = (T *)(factor + runs), buffer[LF_CTC_RUN];
    uint16_t words[LF_CTC_RUN];
    for (ptrdiff_t r = 0; r < runs; r++) {
        const ptrdiff_t c = r * LF_CTC_RUN, n = C - c < LF_CTC_RUN ? C - c : LF_CTC_RUN;
        double part, ties;
        const void *raw = NAME(ctc_raw)(j, x + c * j->x_c, n, buffer, words);
        top[r] = NAME(ctc_run)(raw, n, LF_RAW(j->x_dtype), g ? e + c : NULL, &part, &ties, &factor[r]);
        if (top[r] > m) { /* earlier maxima are ordinary now */
            s = r ? (s + (count + 1)) * lf_exp_f64(m - top[r]) : 0;
            m = top[r], count = -1;
        }
        if (top[r] == m)
            s += part, count += ties;
        else
            s += (part + ties) * lf_exp_f64(top[r] - m);
    }
    *M = m, *S = s = s + count;
    for (ptrdiff_t r = 0; g && r < runs; r++) {
        const ptrdiff_t c = r * LF_CTC_RUN, n = C - c < LF_CTC_RUN ? C - c : LF_CTC_RUN;
        const T f = (T)(factor[r] / T_UNSHIFT * lf_exp_f64(top[r] - m) / (1 + s) * scale);
        T *p = e + c;
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++)
            p[i] = p[i] * (T)T_UNSHIFT * f;
        if (lf_exp_f64(top[r] - m) > 0x1p-5 * (1 + s))
            NAME(ctc_refine)(j, x + c * j->x_c, p, n, m, 1 + s, scale / (1 + s));
        NAME(lf_store)(g + c * j->g_c, j->g_dtype, j->g_c, p, n, j->stream);
    }
}

/* A block of frames of some samples, long rows of logits, in the order in which (T, N, C) arrays lie. */
static void NAME(ctc_logits)(const LfCtcJob *j, ptrdiff_t b, ptrdiff_t first, ptrdiff_t end, char *scratch)
{
    double M[LF_CTC_SLAB][F], S[LF_CTC_SLAB][F];
    for (ptrdiff_t l = 0; l < F; l++)
        for (ptrdiff_t n = first; n < end; n++) {
            const LfCtcSample *u = &j->sample[n];
            const ptrdiff_t t = b * F + l;
            if (t >= u->steps || u->status != LF_CTC_READY)
                continue;
            const char *x = j->x + t * j->x_t + n * j->x_n;
            char *g = j->g && !j->states ? j->g + t * j->g_t + n * j->g_n : NULL;
            NAME(ctc_long_row)(j, x, g, g ? j->scale[n] : 0, &M[n - first][l], &S[n - first][l], scratch);
            ctc_gather_row(j, u, x, u->q + b * F * u->columns + l);
        }
    for (ptrdiff_t n = first; n < end; n++) {
        const LfCtcSample *u = &j->sample[n];
        CtcExtent extent;
        if (b >= u->blocks || u->status != LF_CTC_READY)
            continue;
        ctc_extent(u->q + b * F * u->columns, u->columns - 1, NULL, 0, &extent);
        ctc_columns(j, u, b, &extent, NULL, M[n - first], S[n - first]);
    }
}
