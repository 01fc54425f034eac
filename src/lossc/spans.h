/* Losses that are few sums over a position's vectors, and whose gradients need but those sums and the vectors again: multi margin, cosine embedding,
 * triplets by Euclidean distance, dice and Wasserstein.
 *
 * Vectors are read as T; the arithmetic is double and each result is rounded once, so float results are within an ulp of exact wherever the loss
 * itself is well-conditioned.
 * Across: vectors of up to LF_SMALL_C elements lie side by side, tile[element][position], a position per lane, whatever their memory layout.
 * Along: longer ones, and those over several axes, are read where they lie, or in runs of LF_RUN where they cannot be.
 * Order: across element by element; along in LF_STEP lanes, runs in order. The same bits for any thread count and layout. */

#ifndef LF_T_FLOAT
#define LF_STEP (LF_LANES / 2)
#define LF_SPAN_ROOM 8192 /* elements of a group's rows: eight of LF_RUN, as many as a block of their transposition takes */

/* for each run of c .. c + n elements */
#define LF_RUNS for (ptrdiff_t c = 0, n; n = j->c - c < LF_RUN ? j->c - c : LF_RUN, c < j->c; c += LF_RUN)

/* Positions first .. first + n, not beyond the innermost dimension; lanes up to a multiple of LF_GROUP are computed. */
typedef struct {
    const LfVectorJob *j;
    ptrdiff_t first, n;
    int64_t y[LF_W];                           /* class index; -1: does not count */
    double sign[LF_W], w[LF_W], k[LF_W];       /* +-1; class weight; factor of the gradients, without it */
    double base[LF_W];                         /* what span_term adds */
    double s[3][LF_W], f[3][LF_W], loss[LF_W]; /* sums; factors of the gradients */
} Spans;

typedef struct {
    double a, b, c;
} LfThree;

/* Byte offset of position i. */
static inline ptrdiff_t vec_offset(const LfVectorJob *j, const LfArray *a, ptrdiff_t i)
{
    return !a->data || !j->ndim ? 0 : lf_offset(j->shape, j->ndim, a->stride, i);
}

static ptrdiff_t vec_step(const LfVectorJob *j, const LfArray *a) { return j->ndim ? a->stride[j->ndim - 1] : 0; }

static inline double vec_hinge(double h) { return h < 0 ? 0 : h; }

static inline double vec_sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

/* The losses that span_term and span_slope are of, a constant in each case; the other is Wasserstein. */
#define LF_SPAN_CASES LF_CASE(LF_MULTI_MARGIN) LF_CASE(LF_COSINE) LF_CASE(LF_TRIPLET) LF_CASE(LF_DICE)

/* What one element adds to the sums. */
static inline LfThree span_term(int op, double x, double y, double z, double base, int own)
{
    if (op == LF_MULTI_MARGIN) {
        const double h = own ? 0 : vec_hinge(base + x);
        return (LfThree){h, h * h, h == 0 ? 0 : 1};
    }
    if (op == LF_COSINE)
        return (LfThree){x * y, x * x, y * y};
    if (op == LF_DICE)
        return (LfThree){x * y, x + y, 0};
    const double ap = x - y + base, an = x - z + base, pn = y - z + base;
    return (LfThree){ap * ap, an * an, pn * pn};
}

/* The gradients by one element of each vector; that of multi margin by its label's own is set afterwards. */
static inline LfThree span_slope(int op, double x, double y, double z, double base, double f, double g, double h)
{
    if (op == LF_MULTI_MARGIN) {
        const double over = vec_hinge(base + x), flat = over == 0 ? 0 : f;
        return (LfThree){h != 0 ? f * over : flat};
    }
    if (op == LF_COSINE)
        return (LfThree){f * y - g * x, f * x - h * y};
    if (op == LF_DICE)
        return (LfThree){f * (g - 2 * y), f * (g - 2 * x)};
    const double ap = f * (x - y + base), an = g * (x - z + base), pn = h * (y - z + base);
    const double gap = f == 0 ? 0 : ap, gan = g == 0 ? 0 : an, gpn = h == 0 ? 0 : pn;
    return (LfThree){gap + gan, gpn - gap, -(gan + gpn)};
}

#define LF_EACH_LANE(g) _Pragma("omp simd") for (ptrdiff_t l = 0; l < (((g)->n + LF_GROUP - 1) & -LF_GROUP); l++)

/* sum over i != y of max(0, margin - x_y + x_i)^p / C.  f: of hinges, or of those above 0; g: what all of them give. */
static void multi_margin_finish(Spans *v)
{
    const LfVectorJob *j = v->j;
    const int square = j->param[0] == 2;
    const double c = (double)j->c;
    LF_EACH_LANE(v)
    {
        const double k = v->k[l] * v->w[l] / c, f = square ? 2 * k : k;
        v->loss[l] = (square ? v->s[1][l] : v->s[0][l]) / c;
        v->f[0][l] = f, v->f[1][l] = f * (square ? v->s[0][l] : v->s[2][l]), v->f[2][l] = square;
    }
}

/* cos = ab / sqrt((aa + 1e-12) (bb + 1e-12)), NaN where a square overflows, see span_overflows;  y = 1: 1 - cos,  y = -1: max(0, cos - margin) */
static void cosine_finish(Spans *v)
{
    const double margin = v->j->param[0];
    LF_EACH_LANE(v)
    {
        const double aa = v->s[1][l] + 1e-12, bb = v->s[2][l] + 1e-12, norm = SQRT(aa) * SQRT(bb);
        const double cosine = v->s[0][l] / norm + 0 * norm;
        const double excess = cosine - margin, sign = v->sign[l], apart = excess < 0 ? 0 : v->k[l];
        const double k = sign == 1 ? -v->k[l] : sign == -1 ? apart : 0, kc = k * cosine;
        v->loss[l] = sign == 1 ? 1 - cosine : sign == -1 ? vec_hinge(excess) : 0 * cosine;
        v->f[0][l] = k / norm, v->f[1][l] = kc / aa, v->f[2][l] = kc / bb;
    }
}

/* max(0, margin + D(a, p) - D(a, n)), where swap: - min(D(a, n), D(p, n)), of Euclidean distances */
static void triplet_finish(Spans *v)
{
    const double margin = v->j->param[0], swap = v->j->param[3], alone = swap == 0; /* all of the gradient is that of D(a, n) */
    LF_EACH_LANE(v)
    {
        const double near = SQRT(v->s[0][l]), far = SQRT(v->s[1][l]), between = SQRT(v->s[2][l]), other = swap != 0 ? between : far;
        const double h = margin + near - (far <= other ? far : other), k = h < 0 ? 0 : v->k[l];
        const double even = far == other ? 0.5 : 0, less = far < other ? 1 : even, part = less > alone ? less : alone, rest = 1 - part;
        const double f = k / near, g = -k * part / far, gp = -k * rest / other;
        v->loss[l] = vec_hinge(h);
        v->f[0][l] = near == 0 ? 0 : f, v->f[1][l] = far == 0 ? 0 : g, v->f[2][l] = other == 0 ? 0 : gp;
    }
}

/* 1 - (2 sum x t + smooth) / (sum x + sum t + smooth) */
static void dice_finish(Spans *v)
{
    const double smooth = v->j->param[0];
    LF_EACH_LANE(v)
    {
        const double both = 2 * v->s[0][l], each = v->s[1][l], below = each + smooth;
        v->loss[l] = (each - both) / below;
        v->f[0][l] = v->k[l] / below, v->f[1][l] = (both + smooth) / below, v->f[2][l] = 0;
    }
}

/* spacing times sum over all but the last i of |sum up to i of (x - t)|: the work of carrying x to t */
static void wasserstein_finish(Spans *v)
{
    const double spacing = v->j->param[0];
    LF_EACH_LANE(v) v->loss[l] = spacing * v->s[0][l], v->f[0][l] = spacing * v->k[l], v->f[1][l] = v->s[1][l];
}

/* From the sums, the losses times their weights and the gradients' factors. */
static void span_finish(Spans *v, ptrdiff_t b)
{
    static void (*const finish[])(Spans *) = {[LF_MULTI_MARGIN] = multi_margin_finish,
                                              [LF_COSINE] = cosine_finish,
                                              [LF_TRIPLET] = triplet_finish,
                                              [LF_DICE] = dice_finish,
                                              [LF_WASSERSTEIN] = wasserstein_finish};
    const LfVectorJob *j = v->j;
    finish[j->op](v);
    for (ptrdiff_t l = 0; j->gw && l < v->n; l++)
        if (v->y[l] >= 0)
            j->gw[b / j->share * j->c + v->y[l]] += v->k[l] * v->loss[l], j->gw_mass[b / j->share * j->c + v->y[l]] += 1;
    LF_EACH_LANE(v)
    {
        const double loss = v->w[l] == 0 ? 0 : v->w[l] * v->loss[l];
        v->loss[l] = v->y[l] < 0 ? 0 : loss;
    }
}

/* Labels, masks and factors; returns the first position whose label is bad, or -1. */
static ptrdiff_t span_open(Spans *v)
{
    const LfVectorJob *j = v->j;
    const ptrdiff_t first = v->first, n = v->n;
    ptrdiff_t bad = -1;
    for (ptrdiff_t l = 0; l < ((n + LF_GROUP - 1) & -LF_GROUP); l++)
        v->y[l] = l < n ? 0 : -1, v->sign[l] = v->w[l] = v->k[l] = 1, v->base[l] = j->param[2];
    if (j->op == LF_MULTI_MARGIN)
        lf_load_labels(v->y, j->label.data + vec_offset(j, &j->label, first), j->label.dtype, vec_step(j, &j->label), n);
    else if (j->label.data)
        lf_load_f64(v->sign, j->label.data + vec_offset(j, &j->label, first), j->label.dtype, vec_step(j, &j->label), n);
    const char *where = j->where.data + vec_offset(j, &j->where, first);
    for (ptrdiff_t l = 0; l < n; l++) {
        const int counts = !j->where.data || where[l * vec_step(j, &j->where)], in = (uint64_t)v->y[l] < (uint64_t)j->c || j->op != LF_MULTI_MARGIN;
        bad = bad < 0 && counts && !in ? first + l : bad;
        v->y[l] = counts && in ? v->y[l] : -1;
    }
    for (ptrdiff_t l = 0; j->weight && l < n; l++)
        v->w[l] = v->y[l] < 0 ? 1 : j->weight[v->y[l]];
    if (j->upstream.data)
        lf_load_f64(v->k, j->upstream.data + vec_offset(j, &j->upstream, first), j->upstream.dtype, vec_step(j, &j->upstream), n);
    LF_EACH_LANE(v) v->k[l] *= j->scale;
    return bad;
}

static int span_takes(const LfVectorJob *j)
{
    return j->op == LF_MULTI_MARGIN || j->op == LF_COSINE || j->op == LF_DICE || j->op == LF_WASSERSTEIN || (j->op == LF_TRIPLET && j->param[1] == 2);
}

/* May squares of doubles have overflowed in a block? Then the sum of its losses is no number, and vectors.h takes it. */
static int span_overflows(const LfVectorJob *j, ptrdiff_t b)
{
    return j->wide && (j->op == LF_COSINE || j->op == LF_TRIPLET) && !j->labels_only && !(fabs(j->sum[b % LF_PARTS]) < INFINITY);
}

/* Do positions lie nearer to one another than elements? */
static int span_lies_across(const LfVectorJob *j, const LfArray *a, const ptrdiff_t *stride)
{
    return a->data && j->cdim == 1 && lf_distance(vec_step(j, a)) < lf_distance(stride[0]);
}

/* How many positions are taken at once: of those that lie across, as many as their transposition can use. */
static ptrdiff_t span_fit(const LfVectorJob *j)
{
    int across = j->cdim == 1 && j->c <= LF_SMALL_C;
    for (int q = 0; q < LF_VECTORS; q++)
        across |= span_lies_across(j, &j->in[q], j->inc[q]) || span_lies_across(j, &j->grad[q], j->gradc[q]);
    const ptrdiff_t most = LF_SPAN_ROOM / (j->c ? j->c : 1), limit = across ? LF_W : LF_GROUP;
    return most < 1 ? 1 : most < limit ? most : limit;
}

/* Windows of LF_STEP: the first ones or the last ones set, all but one set. */
static const uint64_t span_counts[3 * LF_STEP] = {[LF_STEP... 2 * LF_STEP - 1] = ~(uint64_t)0};
static const uint64_t span_others[2 * LF_STEP + 1] = {[0 ... LF_STEP - 1] = ~(uint64_t)0, [LF_STEP + 1 ... 2 * LF_STEP] = ~(uint64_t)0};
#endif

/* Elements c .. c + n of the vector at p to or from buf. */
LF_CALLED NAME(vec_move)(const LfVectorJob *j, char *p, int dtype, const ptrdiff_t *stride, ptrdiff_t c, ptrdiff_t n, T *buf, int put)
{
    const int last = j->cdim - 1;
    while (n) {
        ptrdiff_t i = c, off = 0;
        for (int d = last; d > 0; d--) {
            off += i % j->cshape[d] * stride[d];
            i /= j->cshape[d];
        }
        off += i * stride[0];
        const ptrdiff_t room = last ? j->cshape[last] - c % j->cshape[last] : n, run = n < room ? n : room;
        if (put)
            NAME(lf_store)(p + off, dtype, stride[last], buf, run, 0);
        else
            NAME(lf_load)(buf, p + off, dtype, stride[last], run);
        n -= run, c += run, buf += run;
    }
}

/* ---- across ---------------------------------------------------------------------------------------------------------------------------------- */

static inline void NAME(across_sums)(int op, Spans *v, const T *x, const T *y, const T *z)
{
    const int three = op != LF_DICE;
    for (ptrdiff_t at = 0; at < v->n; at += LF_GROUP) {
        double a[LF_GROUP] = {0}, b[LF_GROUP] = {0}, d[LF_GROUP] = {0}, base[LF_GROUP];
        int64_t own[LF_GROUP];
        memcpy(base, v->base + at, sizeof base);
        memcpy(own, v->y + at, sizeof own);
        for (ptrdiff_t c = 0, i = at; c < v->j->c; c++, i += LF_W)
#pragma omp simd
            for (ptrdiff_t l = 0; l < LF_GROUP; l++) {
                const LfThree t = span_term(op, x[i + l], y[i + l], z[i + l], base[l], own[l] == c);
                a[l] += t.a, b[l] += t.b, d[l] += three ? t.c : 0;
            }
        memcpy(v->s[0] + at, a, sizeof a);
        memcpy(v->s[1] + at, b, sizeof b);
        memcpy(v->s[2] + at, d, sizeof d);
    }
}

/* In place; with `first`, the gradient by the first vector alone. */
static inline void NAME(across_slopes)(int op, int first, const Spans *v, T *x, T *y, T *z)
{
    for (ptrdiff_t at = 0; at < v->n; at += LF_GROUP) {
        double f[LF_GROUP], g[LF_GROUP], h[LF_GROUP], base[LF_GROUP];
        memcpy(f, v->f[0] + at, sizeof f);
        memcpy(g, v->f[1] + at, sizeof g);
        memcpy(h, v->f[2] + at, sizeof h);
        memcpy(base, v->base + at, sizeof base);
        for (ptrdiff_t c = 0, i = at; c < v->j->c; c++, i += LF_W)
#pragma omp simd
            for (ptrdiff_t l = 0; l < LF_GROUP; l++) {
                const LfThree t = span_slope(op, x[i + l], y[i + l], z[i + l], base[l], f[l], g[l], h[l]);
                x[i + l] = (T)t.a;
                if (!first)
                    y[i + l] = (T)t.b;
                if (!first && op == LF_TRIPLET)
                    z[i + l] = (T)t.c;
            }
    }
}

/* s: of the sizes of what has been carried past each element but the last, and of its signs */
static void NAME(across_carried)(Spans *v, const T *x, const T *t)
{
    for (ptrdiff_t at = 0; at < v->n; at += LF_GROUP) {
        double carried[LF_GROUP] = {0}, size[LF_GROUP] = {0}, signs[LF_GROUP] = {0};
        for (ptrdiff_t c = 0, i = at; c < v->j->c - 1; c++, i += LF_W)
#pragma omp simd
            for (ptrdiff_t l = 0; l < LF_GROUP; l++) {
                carried[l] += (double)x[i + l] - (double)t[i + l];
                size[l] += fabs(carried[l]), signs[l] += vec_sign(carried[l]);
            }
        memcpy(v->s[0] + at, size, sizeof size);
        memcpy(v->s[1] + at, signs, sizeof signs);
    }
}

static void NAME(across_carried_slopes)(const Spans *v, T *x, T *t)
{
    for (ptrdiff_t at = 0; at < v->n; at += LF_GROUP) {
        double carried[LF_GROUP] = {0}, left[LF_GROUP];
        memcpy(left, v->f[1] + at, sizeof left);
        for (ptrdiff_t c = 0, i = at; c < v->j->c; c++, i += LF_W)
#pragma omp simd
            for (ptrdiff_t l = 0; l < LF_GROUP; l++) {
                const T g = (T)(v->f[0][at + l] * left[l]);
                carried[l] += (double)x[i + l] - (double)t[i + l];
                left[l] -= vec_sign(carried[l]);
                x[i + l] = g, t[i + l] = -g;
            }
    }
}

static void NAME(across)(Spans *v, ptrdiff_t b, T (*tile)[LF_SPAN_ROOM + LF_STEP])
{
    const LfVectorJob *j = v->j;
    const ptrdiff_t rest = -v->n & (LF_GROUP - 1);
    T *x[LF_VECTORS] = {tile[0], tile[0], tile[0]};
    const int first = !j->grad[1].data && !j->grad[2].data;
    int gradient = 0;
    for (int q = 0; q < LF_VECTORS && j->in[q].data; q++) {
        x[q] = tile[q], gradient |= j->grad[q].data != NULL;
        NAME(lf_load_tile)(x[q], LF_W, j->in[q].data + vec_offset(j, &j->in[q], v->first), j->in[q].dtype, vec_step(j, &j->in[q]), j->inc[q][0], v->n,
                           j->c);
        for (ptrdiff_t c = 0; rest && c < j->c; c++)
            memset(x[q] + c * LF_W + v->n, 0, rest * sizeof(T));
    }
    for (ptrdiff_t l = 0; j->op == LF_MULTI_MARGIN && l < v->n; l++)
        v->base[l] = v->y[l] < 0 ? 0 : j->param[1] - (double)x[0][v->y[l] * LF_W + l];
#define LF_CASE(op)                                                                                                                                  \
    case op:                                                                                                                                         \
        NAME(across_sums)(op, v, x[0], x[1], x[2]);                                                                                                  \
        break;
    switch (j->op) {
        LF_SPAN_CASES
    default:
        NAME(across_carried)(v, x[0], x[1]);
    }
#undef LF_CASE
    span_finish(v, b);
    if (!gradient)
        return;
#define LF_CASE(op)                                                                                                                                  \
    case op:                                                                                                                                         \
        if (op == LF_MULTI_MARGIN || first)                                                                                                          \
            NAME(across_slopes)(op, 1, v, x[0], x[1], x[2]);                                                                                         \
        else                                                                                                                                         \
            NAME(across_slopes)(op, 0, v, x[0], x[1], x[2]);                                                                                         \
        break;
    switch (j->op) {
        LF_SPAN_CASES
    default:
        NAME(across_carried_slopes)(v, x[0], x[1]);
    }
#undef LF_CASE
    for (ptrdiff_t l = 0; l < v->n; l++)
        if (v->y[l] < 0)
            for (ptrdiff_t c = 0; c < j->c; c++)
                x[0][c * LF_W + l] = x[1][c * LF_W + l] = x[2][c * LF_W + l] = 0;
        else if (j->op == LF_MULTI_MARGIN)
            x[0][v->y[l] * LF_W + l] = (T)-v->f[1][l];
    for (int q = 0; q < LF_VECTORS; q++)
        if (j->grad[q].data)
            NAME(lf_store_tile)(j->grad[q].data + vec_offset(j, &j->grad[q], v->first), j->grad[q].dtype, vec_step(j, &j->grad[q]), j->gradc[q][0],
                                x[q], LF_W, v->n, j->c, 0);
}

/* ---- along ----------------------------------------------------------------------------------------------------------------------------------- */

/* One step of sums, of the lanes that both `counts` and `others` have set: by bits, since a selection would leave the loop scalar. */
static inline void NAME(along_step)(int op, const T *x, const T *y, const T *z, double base, const uint64_t *counts, const uint64_t *others,
                                    double *a, double *b, double *d)
{
#pragma omp simd
    for (ptrdiff_t l = 0; l < LF_STEP; l++) {
        const LfThree t = span_term(op, x[l], y[l], z[l], base, 0);
        const uint64_t bits = counts ? counts[l] & others[l] : 0;
        a[l] += counts ? lf_real_f64(lf_bits_f64(t.a) & bits) : t.a;
        b[l] += counts ? lf_real_f64(lf_bits_f64(t.b) & bits) : t.b;
        if (op != LF_DICE)
            d[l] += counts ? lf_real_f64(lf_bits_f64(t.c) & bits) : t.c;
    }
}

/* Adds a run but for its element `own` to the sums, without reading beyond it, unless it is less than a step: the last step goes back, and what it sees
 * again does not count. */
static inline void NAME(along_sums)(int op, const T *x, const T *y, const T *z, ptrdiff_t n, double base, ptrdiff_t own, double *sum)
{
    double a[LF_STEP] = {0}, b[LF_STEP] = {0}, d[LF_STEP] = {0}, rest[3][LF_STEP] = {{0}}; /* apart, so that sums stay in registers */
    const int without = op == LF_MULTI_MARGIN && own >= 0 && own < n;
    for (ptrdiff_t i = 0; i < n; i += LF_STEP) {
        const ptrdiff_t stop = (without && own >= i && own < (n & -LF_STEP) ? own : n) & -LF_STEP;
        for (; i < stop; i += LF_STEP)
            NAME(along_step)(op, x + i, y + i, z + i, base, NULL, NULL, a, b, d);
        if (i == n)
            break;
        const ptrdiff_t at = n < LF_STEP ? 0 : i + LF_STEP > n ? n - LF_STEP : i, hole = without && own >= i && own < i + LF_STEP ? own - at : -1;
        NAME(along_step)(op, x + at, y + at, z + at, base, span_counts + (n < LF_STEP ? 2 * LF_STEP - n : LF_STEP - (i - at)),
                         span_others + LF_STEP - hole, rest[0], rest[1], rest[2]);
    }
#pragma omp simd
    for (int l = 0; l < LF_STEP; l++)
        a[l] += rest[0][l], b[l] += rest[1][l], d[l] += rest[2][l];
    sum[0] += lf_half_lane_sum(a), sum[1] += lf_half_lane_sum(b), sum[2] += op == LF_DICE ? 0 : lf_half_lane_sum(d);
}

/* By whole steps, the last one back from the end, or into what a buffer has beyond it. The factors come in lanes: gcc would copy the loop for each that
 * could be 0. */
static inline void NAME(along_slopes)(int op, int first, const T *x, const T *y, const T *z, ptrdiff_t n, double base, const double *factors,
                                      T *const *o)
{
    double f[LF_STEP], g[LF_STEP], h[LF_STEP];
    for (int l = 0; l < LF_STEP; l++)
        f[l] = factors[0], g[l] = factors[1], h[l] = factors[2];
    for (ptrdiff_t i = 0; i < n; i += LF_STEP) {
        const ptrdiff_t at = n < LF_STEP ? 0 : i + LF_STEP > n ? n - LF_STEP : i;
        T *gx = o[0] + at, *gy = o[1] + at, *gz = o[2] + at;
#pragma omp simd
        for (ptrdiff_t l = 0; l < LF_STEP; l++) {
            const LfThree t = span_slope(op, x[at + l], y[at + l], z[at + l], base, f[l], g[l], h[l]);
            gx[l] = (T)t.a;
            if (!first)
                gy[l] = (T)t.b;
            if (!first && op == LF_TRIPLET)
                gz[l] = (T)t.c;
        }
    }
}

/* x[e] += x[0] + ... + x[e - 1] + before; returns the last */
static double NAME(running_sum)(double *x, ptrdiff_t n, double before)
{
    double sum = before;
#pragma omp simd reduction(inscan, + : sum)
    for (ptrdiff_t e = 0; e < n; e++) {
        sum += x[e];
#pragma omp scan inclusive(sum)
        x[e] = sum;
    }
    return sum;
}

/* What has been carried past each of a run's elements, nothing past the last of all. */
static void NAME(carried)(const T *x, const T *t, ptrdiff_t n, int last, double *before, double *carried)
{
#pragma omp simd
    for (ptrdiff_t e = 0; e < n; e++)
        carried[e] = (double)x[e] - (double)t[e];
    *before = NAME(running_sum)(carried, n, *before);
    if (last)
        carried[n - 1] = 0;
}

static void NAME(along_carried)(const T *x, const T *t, ptrdiff_t n, int last, double *before, double *sum)
{
    double past[LF_RUN + LF_STEP], size[LF_STEP] = {0}, signs[LF_STEP] = {0};
    NAME(carried)(x, t, n, last, before, past);
    memset(past + n, 0, LF_STEP * sizeof *past);
    for (ptrdiff_t i = 0; i < n; i += LF_STEP)
#pragma omp simd
        for (int l = 0; l < LF_STEP; l++)
            size[l] += fabs(past[i + l]), signs[l] += vec_sign(past[i + l]);
    sum[0] += lf_half_lane_sum(size), sum[1] += lf_half_lane_sum(signs);
}

/* left: the signs from this run on */
static void NAME(along_carried_slopes)(const T *x, const T *t, ptrdiff_t n, int last, double *before, double k, double *left, T *const *o)
{
    double past[LF_RUN], signs[LF_RUN];
    T *gx = o[0], *gt = o[1];
    NAME(carried)(x, t, n, last, before, past);
#pragma omp simd
    for (ptrdiff_t e = 0; e < n; e++)
        past[e] = signs[e] = vec_sign(past[e]);
    const double sum = NAME(running_sum)(signs, n, 0);
#pragma omp simd
    for (ptrdiff_t e = 0; e < n; e++) {
        const T g = (T)(k * (*left - signs[e] + past[e]));
        gx[e] = g, gt[e] = -g;
    }
    *left -= sum;
}

/* Where the rows of an array lie, in T; at is NULL for those that pass through in runs. */
typedef struct {
    T *at;
    ptrdiff_t pitch;
} NAME(Plane);

/* Moves the group's rows, c apart, from or to an array: whole where they are one run, by tiles where positions lie nearer to one another than elements. */
static void NAME(plane_move)(const LfVectorJob *j, const LfArray *a, const ptrdiff_t *stride, char *p, ptrdiff_t n, T *rows, int put)
{
    const ptrdiff_t item = lf_itemsize(a->dtype), step = vec_step(j, a), pitch = j->c * (ptrdiff_t)sizeof(T);
    T tile[LF_SMALL_C * LF_W];
    if (j->cdim == 1 && stride[0] == item && step == j->c * item) {
        if (put)
            NAME(lf_store)(p, a->dtype, item, rows, n * j->c, 0);
        else
            NAME(lf_load)(rows, p, a->dtype, item, n * j->c);
    } else if (span_lies_across(j, a, stride) && a->dtype == T_CODE && step == item && (uintptr_t)p % item == 0 && stride[0] % item == 0) {
        if (put)
            NAME(lf_rows_to_tile)((T *)p, stride[0] / item, (const char *)rows, pitch, n, j->c);
        else
            NAME(lf_tile_to_rows)((char *)rows, pitch, (const T *)p, stride[0] / item, n, j->c);
    } else if (span_lies_across(j, a, stride))
        for (ptrdiff_t c = 0, m; m = j->c - c < LF_SMALL_C ? j->c - c : LF_SMALL_C, c < j->c; c += m)
            if (put) {
                NAME(lf_rows_to_tile)(tile, LF_W, (const char *)(rows + c), pitch, n, m);
                NAME(lf_store_tile)(p + c * stride[0], a->dtype, step, stride[0], tile, LF_W, n, m, 0);
            } else {
                NAME(lf_load_tile)(tile, LF_W, p + c * stride[0], a->dtype, step, stride[0], n, m);
                NAME(lf_tile_to_rows)((char *)(rows + c), pitch, tile, LF_W, n, m);
            }
    else
        for (ptrdiff_t l = 0; l < n; l++)
            NAME(vec_move)(j, p + l * step, a->dtype, stride, 0, j->c, rows + l * j->c, put);
}

/* In place where that can be, else in `room`. */
static NAME(Plane) NAME(plane)(const LfVectorJob *j, const LfArray *a, const ptrdiff_t *stride, char *p, T *room)
{
    const ptrdiff_t step = vec_step(j, a), size = sizeof(T);
    if (j->cdim == 1 && a->dtype == T_CODE && stride[0] == size && (uintptr_t)p % size == 0 && step % size == 0 && j->c >= LF_STEP)
        return (NAME(Plane)){(T *)p, step / size};
    return (NAME(Plane)){j->c <= LF_RUN ? room : NULL, j->c};
}

typedef struct {
    char *in[LF_VECTORS], *out[LF_VECTORS]; /* the group's first position */
    NAME(Plane) x[LF_VECTORS], g[LF_VECTORS];
    T buf[2 * LF_VECTORS][LF_RUN];
} NAME(Along);

/* Can a run be used where it lies? The last one may be less than a step. */
static inline int NAME(along_fits)(const LfVectorJob *j, NAME(Plane) x, ptrdiff_t n) { return x.at && (n >= LF_STEP || j->c < LF_STEP); }

/* A run of position l's vectors; in place of one that there is not, the first. */
static void NAME(along_in)(const Spans *v, NAME(Along) * w, ptrdiff_t l, ptrdiff_t c, ptrdiff_t n, const T **x)
{
    const LfVectorJob *j = v->j;
    for (int q = 0; q < LF_VECTORS; q++) {
        x[q] = j->in[q].data ? w->x[q].at + l * w->x[q].pitch + c : x[0];
        if (j->in[q].data && !NAME(along_fits)(j, w->x[q], n)) {
            NAME(vec_move)(j, w->in[q] + l * vec_step(j, &j->in[q]), j->in[q].dtype, j->inc[q], c, n, w->buf[q], 0);
            x[q] = w->buf[q];
        }
    }
}

static void NAME(along_first)(Spans *v, NAME(Along) * w)
{
    const LfVectorJob *j = v->j;
    const T *x[LF_VECTORS];
    for (ptrdiff_t l = 0; l < v->n; l++) {
        double sum[3] = {0}, before = 0;
        if (v->y[l] < 0)
            continue;
        if (j->op == LF_MULTI_MARGIN) {
            T x;
            NAME(vec_move)(j, w->in[0] + l * vec_step(j, &j->in[0]), j->in[0].dtype, j->inc[0], v->y[l], 1, &x, 0);
            v->base[l] = j->param[1] - (double)x;
        }
        LF_RUNS
        {
            NAME(along_in)(v, w, l, c, n, x);
#define LF_CASE(op)                                                                                                                                  \
    case op:                                                                                                                                         \
        NAME(along_sums)(op, x[0], x[1], x[2], n, v->base[l], v->y[l] - c, sum);                                                                     \
        break;
            switch (j->op) {
                LF_SPAN_CASES
            default:
                NAME(along_carried)(x[0], x[1], n, c + n == j->c, &before, sum);
            }
#undef LF_CASE
        }
        v->s[0][l] = sum[0], v->s[1][l] = sum[1], v->s[2][l] = sum[2];
    }
}

static void NAME(along_second)(Spans *v, NAME(Along) * w)
{
    const LfVectorJob *j = v->j;
    const int first = !j->grad[1].data && !j->grad[2].data;
    const T *x[LF_VECTORS];
    T *o[LF_VECTORS];
    for (ptrdiff_t l = 0; l < v->n; l++) {
        double f[] = {v->f[0][l], v->f[1][l], v->f[2][l]}, before = 0;
        LF_RUNS
        {
            const ptrdiff_t own = v->y[l] - c;
            NAME(along_in)(v, w, l, c, n, x);
            for (int q = 0; q < LF_VECTORS; q++)
                o[q] = NAME(along_fits)(j, w->g[q], n) ? w->g[q].at + l * w->g[q].pitch + c : w->buf[LF_VECTORS + q];
#define LF_CASE(op)                                                                                                                                  \
    case op:                                                                                                                                         \
        if (op == LF_MULTI_MARGIN || first)                                                                                                          \
            NAME(along_slopes)(op, 1, x[0], x[1], x[2], n, v->base[l], f, o);                                                                        \
        else                                                                                                                                         \
            NAME(along_slopes)(op, 0, x[0], x[1], x[2], n, v->base[l], f, o);                                                                        \
        break;
            switch (j->op) {
                LF_SPAN_CASES
            default:
                NAME(along_carried_slopes)(x[0], x[1], n, c + n == j->c, &before, f[0], f + 1, o);
            }
#undef LF_CASE
            if (j->op == LF_MULTI_MARGIN && own >= 0 && own < n)
                o[0][own] = (T)-f[1];
            for (int q = 0; q < LF_VECTORS; q++) {
                if (v->y[l] < 0)
                    memset(o[q], 0, n * sizeof(T));
                if (j->grad[q].data && o[q] == w->buf[LF_VECTORS + q])
                    NAME(vec_move)(j, w->out[q] + l * vec_step(j, &j->grad[q]), j->grad[q].dtype, j->gradc[q], c, n, o[q], 1);
            }
        }
    }
}

static void NAME(along)(Spans *v, ptrdiff_t b, NAME(Along) * w, T (*room)[LF_SPAN_ROOM + LF_STEP])
{
    const LfVectorJob *j = v->j;
    int gradient = 0;
    for (int q = 0; q < LF_VECTORS; q++) {
        w->in[q] = j->in[q].data + vec_offset(j, &j->in[q], v->first), w->out[q] = j->grad[q].data + vec_offset(j, &j->grad[q], v->first);
        w->x[q] = NAME(plane)(j, &j->in[q], j->inc[q], w->in[q], room[q]), w->g[q] = (NAME(Plane)){NULL, 0};
        gradient |= j->grad[q].data != NULL;
        if (j->in[q].data && w->x[q].at == room[q])
            NAME(plane_move)(j, &j->in[q], j->inc[q], w->in[q], v->n, room[q], 0);
    }
    NAME(along_first)(v, w);
    span_finish(v, b);
    if (!gradient)
        return;
    for (int q = 0; q < LF_VECTORS; q++)
        if (j->grad[q].data)
            w->g[q] = NAME(plane)(j, &j->grad[q], j->gradc[q], w->out[q], room[LF_VECTORS + q]);
    NAME(along_second)(v, w);
    for (int q = 0; q < LF_VECTORS; q++)
        if (j->grad[q].data && w->g[q].at == room[LF_VECTORS + q])
            NAME(plane_move)(j, &j->grad[q], j->gradc[q], w->out[q], v->n, w->g[q].at, 1);
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------------------------- */

static void NAME(span_block)(const LfVectorJob *j, ptrdiff_t b)
{
    const ptrdiff_t start = b * j->rows, end = j->n - start < j->rows ? j->n : start + j->rows, last = j->ndim ? j->shape[j->ndim - 1] : 1;
    const int across = j->cdim == 1 && j->c <= LF_SMALL_C;
    const ptrdiff_t fit = span_fit(j);
    T room[2 * LF_VECTORS][LF_SPAN_ROOM + LF_STEP];
    NAME(Along) w;
    LfSum sum = {0, 0};
    double mass = 0;
    ptrdiff_t bad = -1;
    for (ptrdiff_t i = start, n; i < end; i += n) {
        const ptrdiff_t reach = last - (j->ndim > 1 ? i % last : i), left = end - i < reach ? end - i : reach;
        n = left < fit ? left : fit;
        Spans v;
        v.j = j, v.first = i, v.n = n;
        const ptrdiff_t first_bad = span_open(&v);
        bad = bad < 0 ? first_bad : bad;
        for (ptrdiff_t l = 0; l < n; l++)
            mass += v.y[l] >= 0;
        if (j->labels_only)
            continue;
        if (across)
            NAME(across)(&v, b, room);
        else
            NAME(along)(&v, b, &w, room);
        lf_add(&sum, v.loss, i - start, n);
        if (j->out.data)
            lf_store_f64(j->out.data + vec_offset(j, &j->out, i), j->out.dtype, vec_step(j, &j->out), v.loss, n, 0);
    }
    j->sum[b % LF_PARTS] = sum.run + sum.runs, j->mass[b % LF_PARTS] = mass;
    j->bad[b % LF_PARTS] = bad < 0 ? -1 : bad * (j->c ? j->c : 1);
}
