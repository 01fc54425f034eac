/* Losses between whole vectors beyond those of spans.h: margins over lists of classes, triplets by any norm, and the Hessians of cross entropy and
 * focal loss.
 *
 * A first pass over a position's vectors for the sums that make the value, a second for the gradients. Arithmetic is double and each result is rounded
 * once, so float results are within an ulp of exact wherever the loss itself is well-conditioned (exponentials of floats are short: 2^-29).
 * Hand: vectors lie in `hand` as double, padded to whole steps; their gradients take their place. Positions that lie side by side come as a group; a
 * vector longer than LF_RUN passes through in runs, once for each pass.
 * Order: a run is summed in LF_STEP lanes, padding adding 0, runs in order: the same bits for any thread count and layout.
 */

#define LF_PADDED(n) (((n) + LF_STEP - 1) & -(ptrdiff_t)LF_STEP)

typedef struct {
    const LfVectorJob *j;
    int whole;                                 /* x holds whole vectors */
    double *x[LF_VECTORS];                     /* vectors, or a run of them, in hand */
    ptrdiff_t at[LF_VECTORS], out[LF_VECTORS]; /* byte offsets of the position in in[] and grad[] */
    ptrdiff_t label;                           /* and in label */
    int64_t y, *list;                          /* class index; or the classes of a whole vector's list, */
    ptrdiff_t listed;                          /* so many of them */
    double w, k, sign;                         /* class weight; factor of the gradients, without it; +-1 */
} Vec;

/* for each element e of n, and of the padding */
#define LF_EACH(n) _Pragma("omp simd") for (ptrdiff_t e = 0; e < LF_PADDED(n); e++)

/* s += sum of a over e = 0 .. n - 1; over the padding too it must be 0 */
#define LF_SUM(s, n, a)                                                                                                                              \
    {                                                                                                                                                \
        double s_[LF_STEP] = {0};                                                                                                                    \
        for (ptrdiff_t i_ = 0; i_ < (n); i_ += LF_STEP)                                                                                              \
            _Pragma("omp simd") for (int l_ = 0; l_ < LF_STEP; l_++)                                                                                 \
            {                                                                                                                                        \
                const ptrdiff_t e = i_ + l_;                                                                                                         \
                s_[l_] += (a);                                                                                                                       \
            }                                                                                                                                        \
        s += lf_half_lane_sum(s_);                                                                                                                   \
    }

/* The vectors' padding: no sum, maximum or distance sees it. */
static double vec_padding(const LfVectorJob *j, int q)
{
    return q ? 0 : j->op == LF_FOCAL_HESSIAN || j->op == LF_CE_HESSIAN ? -INFINITY : j->op == LF_TRIPLET ? -j->param[2] : 0;
}

static inline void vec_pad(double *x, ptrdiff_t n, double pad)
{
    for (ptrdiff_t e = n; e < LF_PADDED(n); e++)
        x[e] = pad;
}

/* Do positions lie side by side, and classes not? Then runs of positions are moved class by class and transposed. */
static int vec_across(const LfVectorJob *j, int dtype, const ptrdiff_t *stride, ptrdiff_t step, ptrdiff_t count)
{
    return count > 1 && j->cdim == 1 && step == lf_itemsize(dtype) && stride[0] != step;
}

/* The vectors of `count` positions, evenly spaced from p on, `width` doubles for each; `more`: so is at least one after them. */
static void vec_load(const LfVectorJob *j, int q, const char *p, ptrdiff_t count, int more, ptrdiff_t width, double *x)
{
    const int dtype = j->in[q].dtype;
    const double pad = vec_padding(j, q);
    const ptrdiff_t step = j->ndim ? j->in[q].stride[j->ndim - 1] : 0, *stride = j->inc[q];
    if (vec_across(j, dtype, stride, step, count)) {
        double part[LF_RUN];
        for (ptrdiff_t c = 0; c < j->c; c++)
            lf_load_f64(part + c * count, p + c * stride[0], dtype, step, count);
        for (ptrdiff_t i = 0; i < count; i++)
            vec_pad(x + i * width, j->c, pad);
        lf_rows_to_tile_f64(x, width, (const char *)part, count * (ptrdiff_t)sizeof(double), j->c, count);
        return;
    }
    if (dtype == LF_F32 && j->cdim == 1 && stride[0] == sizeof(float) && step == j->c * stride[0] && 2 * j->c >= LF_STEP)
        for (; count + more > 1 && count; count--, p += step, x += width) { /* by whole steps: what is read past a row's end is of the next row */
            const lf_f32_u *row = (const void *)p;
            ptrdiff_t c = 0;
            for (; c < width - LF_STEP; c += LF_STEP)
#pragma omp simd
                for (int l = 0; l < LF_STEP; l++)
                    x[c + l] = row[c + l];
#pragma omp simd
            for (int l = 0; l < LF_STEP; l++) {
                const double e = row[c + l];
                x[c + l] = l < j->c - c ? e : pad;
            }
        }
    for (; count > 0; count--, p += step, x += width) {
        vec_move_f64(j, (char *)p, dtype, stride, 0, j->c, x, 0);
        vec_pad(x, j->c, pad);
    }
}

/* Their gradients, likewise. */
static void vec_store(const LfVectorJob *j, int q, char *p, ptrdiff_t count, ptrdiff_t width, double *x)
{
    const int dtype = j->grad[q].dtype;
    const ptrdiff_t step = j->ndim ? j->grad[q].stride[j->ndim - 1] : 0, *stride = j->gradc[q];
    if (vec_across(j, dtype, stride, step, count)) {
        double part[LF_RUN];
        lf_tile_to_rows_f64((char *)part, count * (ptrdiff_t)sizeof(double), x, width, j->c, count);
        for (ptrdiff_t c = 0; c < j->c; c++)
            lf_store_f64(p + c * stride[0], dtype, step, part + c * count, count, 0);
    } else
        for (; count > 0; count--, p += step, x += width)
            vec_move_f64(j, p, dtype, stride, 0, j->c, x, 1);
}

static double *vec_in(const Vec *v, int q, ptrdiff_t c, ptrdiff_t n)
{
    const LfVectorJob *j = v->j;
    if (!v->whole) {
        vec_move_f64(j, j->in[q].data + v->at[q], j->in[q].dtype, j->inc[q], c, n, v->x[q], 0);
        vec_pad(v->x[q], n, vec_padding(j, q));
    }
    return v->x[q];
}

/* The gradient of a run from x[q]; a whole one is fetched from there. */
static void vec_out(const Vec *v, int q, ptrdiff_t c, ptrdiff_t n)
{
    const LfVectorJob *j = v->j;
    if (!v->whole && j->grad[q].data)
        vec_move_f64(j, j->grad[q].data + v->out[q], j->grad[q].dtype, j->gradc[q], c, n, v->x[q], 1);
}

/* One element of the vector, or of its gradient once that is out. */
static double vec_at(const Vec *v, ptrdiff_t c)
{
    const LfVectorJob *j = v->j;
    double x = v->x[0][v->whole ? c : 0];
    if (!v->whole)
        vec_move_f64(j, j->in[0].data + v->at[0], j->in[0].dtype, j->inc[0], c, 1, &x, 0);
    return x;
}

static void vec_put(const Vec *v, int q, ptrdiff_t c, double g)
{
    const LfVectorJob *j = v->j;
    if (v->whole)
        v->x[q][c] = g;
    else if (j->grad[q].data)
        vec_move_f64(j, j->grad[q].data + v->out[q], j->grad[q].dtype, j->gradc[q], c, 1, &g, 1);
}

/* ---- multilabel margin: sum over targets t and others i of max(0, 1 - x_t + x_i) / C ---------------------------------------------------------- */

/* The targets from .. from + LF_W of a position, up to the first -1; fewer than LF_W are the last. */
static int label_chunk(const Vec *v, ptrdiff_t from, int64_t *y)
{
    const LfVectorJob *j = v->j;
    const ptrdiff_t n = j->c - from < LF_W ? j->c - from : LF_W;
    lf_load_labels(y, j->label.data + v->label + from * j->labelc, j->label.dtype, j->labelc, n);
    for (int l = 0; l < n; l++)
        if (y[l] == -1)
            return l;
    return (int)n;
}

#define LF_TARGETS for (ptrdiff_t from = 0, t_ = LF_W, m; t_ == LF_W && from < j->c && (m = t_ = label_chunk(v, from, y), 1); from += LF_W)

static ptrdiff_t multilabel_bad(Vec *v)
{
    if (v->whole) {
        ptrdiff_t more = LF_W;
        for (v->listed = 0; more == LF_W && v->listed < v->j->c; v->listed += more)
            more = label_chunk(v, v->listed, v->list + v->listed);
        for (ptrdiff_t l = 0; l < v->listed; l++)
            if (v->list[l] < 0 || v->list[l] >= v->j->c)
                return l;
        return -1;
    }
    const LfVectorJob *j = v->j;
    int64_t y[LF_W];
    LF_TARGETS
    for (ptrdiff_t l = 0; l < m; l++)
        if (y[l] < 0 || y[l] >= j->c)
            return from + l;
    return -1;
}

/* 1 for the classes of a run that are no target, 0 for the others. */
static void multilabel_others(const Vec *v, ptrdiff_t c, ptrdiff_t n, double *other)
{
    const LfVectorJob *j = v->j;
    int64_t y[LF_W];
    LF_EACH(n) other[e] = e < n;
    LF_TARGETS
    for (ptrdiff_t l = 0; l < m; l++)
        if (y[l] >= c && y[l] < c + n)
            other[y[l] - c] = 0;
}

/* A target's hinges with the classes x that are none, of which `other` has all bits set, to the lanes of `total`; with `count`, how many are active, by
 * class there and in all. By bits: a selection would leave the loop scalar. */
static inline double multilabel_target(const double *x, const uint64_t *other, ptrdiff_t n, double base, double *total, double *count)
{
    double active[LF_STEP] = {0};
    for (ptrdiff_t i = 0; i < n; i += LF_STEP)
#pragma omp simd
        for (int l = 0; l < LF_STEP; l++) {
            const double h = base + x[i + l], on = h > 0 ? 1 : 0;
            total[l] += lf_real_f64(lf_bits_f64(vec_hinge(h)) & other[i + l]);
            if (count) {
                const double counts = lf_real_f64(lf_bits_f64(on) & other[i + l]);
                active[l] += counts, count[i + l] += counts;
            }
        }
    return count ? lf_half_lane_sum(active) : 0;
}

static double multilabel_whole(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const ptrdiff_t n = j->c;
    const double k = v->k / (double)n;
    double *x = v->x[0], count[LF_RUN], active[LF_RUN], total[LF_STEP] = {0};
    uint64_t other[LF_RUN];
    LF_EACH(n) other[e] = -(uint64_t)(e < n), count[e] = 0;
    for (ptrdiff_t l = 0; l < v->listed; l++)
        other[v->list[l]] = 0;
    for (ptrdiff_t l = 0; l < v->listed; l++)
        if (j->grad[0].data)
            active[l] = multilabel_target(x, other, n, 1 - x[v->list[l]], total, count);
        else
            multilabel_target(x, other, n, 1 - x[v->list[l]], total, NULL);
    if (j->grad[0].data) {
        LF_EACH(n) x[e] = k * count[e];
        for (ptrdiff_t l = 0; l < v->listed; l++) /* a class named twice counts twice */
            x[v->list[l]] -= k * active[l];
    }
    return lf_half_lane_sum(total) / (double)n;
}

static double multilabel_margin(const Vec *v)
{
    if (v->whole)
        return multilabel_whole(v);
    const LfVectorJob *j = v->j;
    const double k = v->k / (double)j->c;
    double other[LF_RUN], g[LF_RUN], total = 0;
    int64_t y[LF_W];
    LF_RUNS
    {
        const double *x = vec_in(v, 0, c, n);
        multilabel_others(v, c, n, other);
        memset(g, 0, LF_PADDED(n) * sizeof *g);
        LF_TARGETS
        for (ptrdiff_t l = 0; l < m; l++) {
            const double base = 1 - vec_at(v, y[l]);
            LF_SUM(total, n, other[e] == 0 ? 0 : vec_hinge(base + x[e]))
            if (j->grad[0].data)
                LF_EACH(n) g[e] += (other[e] != 0) & (base + x[e] > 0) ? k : 0;
        }
        if (j->grad[0].data)
            vec_move_f64(j, j->grad[0].data + v->out[0], j->grad[0].dtype, j->gradc[0], c, n, g, 1);
    }
    if (j->grad[0].data)
        LF_TARGETS
        {
            double base[LF_W], active[LF_W] = {0};
            for (ptrdiff_t l = 0; l < m; l++)
                base[l] = 1 - vec_at(v, y[l]);
            LF_RUNS
            {
                const double *x = vec_in(v, 0, c, n);
                multilabel_others(v, c, n, other);
                for (ptrdiff_t l = 0; l < m; l++)
                    LF_SUM(active[l], n, (other[e] != 0) & (base[l] + x[e] > 0) ? 1.0 : 0.0)
            }
            for (ptrdiff_t l = 0; l < m; l++) { /* a class named twice counts twice */
                double sum;
                vec_move_f64(j, j->grad[0].data + v->out[0], j->grad[0].dtype, j->gradc[0], y[l], 1, &sum, 0);
                vec_put(v, 0, y[l], sum - k * active[l]);
            }
        }
    return total / (double)j->c;
}

/* ---- softmax of a position: maximum m, S = sum over all but one maximal element of exp(x - m), as in rows.h ---------------------------------- */

typedef struct {
    double m, s;
} Softmax;

/* exp(x) for x <= 0 to 2^-29: 0 below -708. */
static inline double vec_exp_short(double x)
{
    const double magic = 0x1.8p52 + 1023;
    double c = x < -708 ? -708 : x, s = c * 0x1.71547652b82fep+0 + magic, r = c - (s - magic) * 0x1.62e42fefa39efp-1;
    double e = 0x1.6ab980a6af9a6p-10;
    e = e * r + 0x1.126d0bfb5b840p-7;
    e = e * r + 0x1.55589a42f3fefp-5;
    e = e * r + 0x1.55540a7db484ep-3;
    e = e * r + 0x1.fffffaaf53271p-2;
    e = e * r + 0x1.0000009c01c14p+0;
    e = e * r + 0x1.00000002614ffp+0;
    e *= lf_real_f64(lf_bits_f64(s) << 52);
    return x < -708 ? 0 : e;
}

/* Turns a run into its exp(x - m), 1 where x = m, and adds up the others. */
#define LF_EXPS(exp)                                                                                                                                 \
    for (ptrdiff_t i = 0; i < n; i += LF_STEP)                                                                                                       \
        _Pragma("omp simd") for (int l = 0; l < LF_STEP; l++)                                                                                        \
        {                                                                                                                                            \
            const double d = x[i + l], y = exp(d - m);                                                                                               \
            tie[l] += d == m ? 1 : 0, sum[l] += d == m ? 0 : y, x[i + l] = d == m ? 1 : y;                                                           \
        }
static void softmax_run(const LfVectorJob *j, double *x, ptrdiff_t n, double m, double *s, double *ties)
{
    double sum[LF_STEP] = {0}, tie[LF_STEP] = {0};
    if (j->wide)
        LF_EXPS(lf_exp_neg_f64)
    else
        LF_EXPS(vec_exp_short)
    *s += lf_half_lane_sum(sum), *ties += lf_half_lane_sum(tie);
}

static inline double vec_max(double a, double b) { return a > b ? a : b; }

static inline double vec_lane_max(const double *lane)
{
    double a[8];
#pragma omp simd
    for (int l = 0; l < 8; l++)
        a[l] = vec_max(lane[l], lane[l + 8]);
    return vec_max(vec_max(vec_max(a[0], a[4]), vec_max(a[2], a[6])), vec_max(vec_max(a[1], a[5]), vec_max(a[3], a[7])));
}

static Softmax softmax_of(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double top[LF_STEP], s = 0, ties = -1;
    for (int l = 0; l < LF_STEP; l++)
        top[l] = -INFINITY;
    LF_RUNS
    {
        const double *x = vec_in(v, 0, c, n);
        for (ptrdiff_t i = 0; i < n; i += LF_STEP)
#pragma omp simd
            for (int l = 0; l < LF_STEP; l++)
                top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    }
    const double m = vec_lane_max(top);
    LF_RUNS
    softmax_run(j, vec_in(v, 0, c, n), n, m, &s, &ties); /* NaN comes out in s */
    return (Softmax){m, m == -INFINITY || (m == INFINITY && ties > 0) ? NAN : s + ties};
}

/* exp(x - m) of a run, after softmax_of. */
static double *softmax_exps(const Vec *v, Softmax p, ptrdiff_t c, ptrdiff_t n)
{
    double *x = vec_in(v, 0, c, n), s = 0, ties = 0;
    if (!v->whole)
        softmax_run(v->j, x, n, p.m, &s, &ties);
    return x;
}

/* Diagonal of the Hessian of focal loss: with L = -log p_y and q = 1 - p_y, the other classes' exponentials over all,
 *   f = q^gamma L,   f' = q^gamma + gamma q^(gamma - 1) p_y L,   f'' = gamma q^(gamma - 2) p_y (2 q + ((gamma - 1) p_y - q) L)
 * the derivative by x_c is f' r, r = p_c - [c = y], and the second f'' r^2 + f' p_c (1 - p_c). */
static double focal_hessian(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const double gamma = j->param[0], xy = vec_at(v, v->y);
    const Softmax p = softmax_of(v);
    const double ey = xy == p.m ? 1 : v->whole ? v->x[0][v->y] : lf_exp_f64(xy - p.m), scale = 1 / (1 + p.s);
    const double nll = (xy == p.m ? 0 : p.m - xy) + lf_log1p_f64(p.s), q = (ey == 1 ? p.s : 1 + p.s - ey) * scale, power = lf_pow_f64(q, gamma);
    const int flat = gamma == 0 || nll == 0 || nll == INFINITY;
    const double inner = flat ? 0 : gamma * power / q * (1 - q), k = v->k * v->w, first = k * (power + inner * nll);
    const double second = flat ? 0 : k * inner / q * (2 * q + ((gamma - 1) * (1 - q) - q) * nll);
    LF_RUNS
    {
        double *x = softmax_exps(v, p, c, n);
        LF_EACH(n)
        {
            const double a = x[e] * scale, b = x[e] == 1 ? p.s * scale : 1 - a;
            x[e] = second * a * a + first * a * b;
        }
        vec_out(v, 0, c, n);
    }
    vec_put(v, 0, v->y, second * q * q + first * q * (1 - q));
    return 0;
}

/* Diagonal of the Hessian of cross entropy: mass p (1 - p), mass = sum w t'. param: 1 - smoothing, smoothing / C, sum of all weights. */
static double cross_entropy_hessian(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double mass = j->param[0] * v->w + j->param[1] * j->param[2];
    const Softmax p = softmax_of(v);
    if (j->in[1].data) {
        mass = 0;
        LF_RUNS
        {
            const double *t = vec_in(v, 1, c, n);
            for (ptrdiff_t e = 0; e < n; e++)
                mass += (t[e] * j->param[0] + j->param[1]) * (j->weight ? j->weight[c + e] : 1);
        }
    }
    const double k = v->k * mass, scale = 1 / (1 + p.s);
    LF_RUNS
    {
        double *x = softmax_exps(v, p, c, n);
        LF_EACH(n)
        {
            const double a = x[e] * scale;
            x[e] = k * a * (x[e] == 1 ? p.s * scale : 1 - a);
        }
        vec_out(v, 0, c, n);
    }
    return 0;
}

/* ---- cosine embedding whose squares overflow -------------------------------------------------------------------------------------------------- */

/* What brings a vector's squares near 1 if they could overflow. */
static double vec_shrink(const Vec *v, int q)
{
    const LfVectorJob *j = v->j;
    double most = 0;
    LF_RUNS
    {
        const double *x = vec_in(v, q, c, n);
        for (ptrdiff_t e = 0; e < n; e++)
            most = fabs(x[e]) > most ? fabs(x[e]) : most;
    }
    return most > 0x1p400 ? 0x1p-600 : 1;
}

/* cosine_finish's of sx x and sy y: the cosine is the same, its gradients sx and sy times theirs. */
static double cosine_embedding(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const double sx = vec_shrink(v, 0), sy = vec_shrink(v, 1), margin = j->param[0];
    double ab = 0, aa = 0, bb = 0;
    LF_RUNS
    {
        const double *x = vec_in(v, 0, c, n), *y = vec_in(v, 1, c, n);
        LF_SUM(ab, n, (sx * x[e]) * (sy * y[e]))
        LF_SUM(aa, n, (sx * x[e]) * (sx * x[e]))
        LF_SUM(bb, n, (sy * y[e]) * (sy * y[e]))
    }
    aa += 1e-12 * sx * sx, bb += 1e-12 * sy * sy;
    const double norm = SQRT(aa) * SQRT(bb), cosine = ab / norm + 0 * norm, excess = cosine - margin;
    const double apart = excess < 0 ? 0 : v->k, k = v->sign == 1 ? -v->k : v->sign == -1 ? apart : 0;
    const double f = k / norm, g = k * cosine / aa, h = k * cosine / bb;
    if (j->grad[0].data || j->grad[1].data)
        LF_RUNS
        {
            double *x = vec_in(v, 0, c, n), *y = vec_in(v, 1, c, n);
            LF_EACH(n)
            {
                const double a = sx * x[e], b = sy * y[e];
                x[e] = sx * (f * b - g * a), y[e] = sy * (f * a - h * b);
            }
            vec_out(v, 0, c, n), vec_out(v, 1, c, n);
        }
    return v->sign == 1 ? 1 - cosine : v->sign == -1 ? vec_hinge(excess) : 0 * cosine;
}

/* ---- triplets by a p-norm, p = 2 only where squares overflow -------------------------------------------------------------------------------- */

static inline double vec_power(double size, double p) { return p == 2 ? size * size : size == 0 ? 0 : lf_pow_f64(size, p); }

static inline double vec_root(double sum, double p) { return p == 2 ? SQRT(sum) : lf_pow_f64(sum, 1 / p); }

/* A run's a - b + eps is 0 in the padding. */
static const double *distance_in(const Vec *v, int first, ptrdiff_t c, ptrdiff_t n)
{
    double *a = vec_in(v, first, c, n);
    if (first)
        vec_pad(a, n, -v->j->param[2]);
    return a;
}

/* sum (k |a - b + eps|)^p */
static __attribute__((noinline)) double power_distance(const Vec *v, int first, int second, double k)
{
    const LfVectorJob *j = v->j;
    const double p = j->param[1], eps = j->param[2];
    double sum = 0;
    LF_RUNS
    {
        const double *a = distance_in(v, first, c, n), *b = vec_in(v, second, c, n);
        if (p == 1)
            LF_SUM(sum, n, fabs(a[e] - b[e] + eps))
        else
            LF_SUM(sum, n, vec_power(k * fabs(a[e] - b[e] + eps), p))
    }
    return sum;
}

/* max |a - b + eps|, or NaN */
static __attribute__((noinline)) double longest(const Vec *v, int first, int second)
{
    const LfVectorJob *j = v->j;
    const double eps = j->param[2];
    double most[LF_STEP] = {0}, nan = 0;
    LF_RUNS
    {
        const double *a = distance_in(v, first, c, n), *b = vec_in(v, second, c, n);
        for (ptrdiff_t i = 0; i < n; i += LF_STEP)
#pragma omp simd
            for (int l = 0; l < LF_STEP; l++) {
                const double size = fabs(a[i + l] - b[i + l] + eps);
                most[l] = size > most[l] ? size : most[l];
            }
        LF_SUM(nan, n, a[e] - b[e] + eps == a[e] - b[e] + eps ? 0 : NAN)
    }
    return vec_lane_max(most) + nan;
}

/* A distance's factor of its components' gradient: k, or 0 where it is 0; of the maximum norm, k over how many components are as long as it. */
static double distance_factor(const Vec *v, int first, int second, double D, double k)
{
    const LfVectorJob *j = v->j;
    double count = 0;
    if (k == 0 || D == 0 || j->param[1] < INFINITY)
        return D == 0 ? 0 : k;
    LF_RUNS
    {
        const double *a = vec_in(v, first, c, n), *b = vec_in(v, second, c, n);
        LF_SUM(count, n, (e < n) & (fabs(a[e] - b[e] + j->param[2]) == D) ? 1.0 : 0.0)
    }
    return k / count;
}

/* The root of it for k = 1; where the sum overflows, or vanishes, for k = 1 over the largest. */
static double distance(const Vec *v, int first, int second)
{
    const double p = v->j->param[1], sum = p == INFINITY ? 0 : power_distance(v, first, second, 1);
    if (p == 1 || (sum > 0x1p-960 && sum < INFINITY))
        return p == 1 ? sum : vec_root(sum, p);
    const double most = longest(v, first, second);
    if (p == INFINITY)
        return most;
    return most > 0x1p-1022 && most < INFINITY ? most * vec_root(power_distance(v, first, second, 1 / most), p) : most;
}

/* f times the derivative of a distance D by its component d, (|d|/D)^(p - 1) sign(d) */
static inline double distance_slope(double d, double D, double p, double f)
{
    const double size = fabs(d), power = p == 2 ? size / D : lf_pow_f64(size / D, p - 1);
    const double slope = p == 1 ? (d == d ? 1 : d) : p == INFINITY ? (size == D ? 1 : 0) : power;
    return d == 0 || f == 0 ? 0 : f * copysign(slope, d);
}

/* Gradients from the distances and their factors, of anchor and positive, anchor and negative, positive and negative. */
static inline void triplet_slopes(const Vec *v, double p, const double *D, const double *f)
{
    const LfVectorJob *j = v->j;
    const double eps = j->param[2];
    LF_RUNS
    {
        double *x = vec_in(v, 0, c, n), *y = vec_in(v, 1, c, n), *z = vec_in(v, 2, c, n);
        LF_EACH(n)
        {
            const double ap = distance_slope(x[e] - y[e] + eps, D[0], p, f[0]), an = distance_slope(x[e] - z[e] + eps, D[1], p, f[1]);
            const double pn = distance_slope(y[e] - z[e] + eps, D[2], p, f[2]);
            x[e] = ap + an, y[e] = pn - ap, z[e] = -(an + pn);
        }
        for (int q = 0; q < 3; q++)
            vec_out(v, q, c, n);
    }
}

/* max(0, margin + D(a, p) - D(a, n)), where swap: - min(D(a, n), D(p, n)) */
static double triplet(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const int swap = j->param[3] != 0;
    const double p = j->param[1];
    const double near = distance(v, 0, 1), far = distance(v, 0, 2), other = swap ? distance(v, 1, 2) : far;
    const double least = swap && !(other >= far) ? other : far, h = j->param[0] + near - least;
    if (j->grad[0].data || j->grad[1].data || j->grad[2].data) {
        const double k = h < 0 ? 0 : v->k, part = !swap || far < other ? 1 : far == other ? 0.5 : 0;
        const double D[] = {near, far, other}, f[] = {distance_factor(v, 0, 1, near, k), distance_factor(v, 0, 2, far, -k * part),
                                                      distance_factor(v, 1, 2, other, -k * (1 - part))};
        if (p == 1)
            triplet_slopes(v, 1, D, f);
        else if (p == INFINITY)
            triplet_slopes(v, INFINITY, D, f);
        else
            triplet_slopes(v, p, D, f);
    }
    return vec_hinge(h);
}

/* ---- blocks --------------------------------------------------------------------------------------------------------------------------------- */

typedef double (*VecLoss)(const Vec *);
static const VecLoss vec_losses[] = {[LF_MULTILABEL_MARGIN] = multilabel_margin,
                                     [LF_FOCAL_HESSIAN] = focal_hessian,
                                     [LF_CE_HESSIAN] = cross_entropy_hessian,
                                     [LF_COSINE] = cosine_embedding,
                                     [LF_TRIPLET] = triplet};

/* A position that does not count: zero gradients. */
static void vec_clear(const Vec *v)
{
    const LfVectorJob *j = v->j;
    LF_RUNS
    for (int q = 0; q < LF_VECTORS; q++)
        if (j->grad[q].data) {
            memset(v->x[q], 0, n * sizeof(double));
            vec_out(v, q, c, n);
        }
}

/* Labels of a position: the first bad one's place, or -1; `counts` is cleared where it is left out. */
static ptrdiff_t vec_label(Vec *v, ptrdiff_t i, int *counts)
{
    const LfVectorJob *j = v->j;
    *counts = !j->where.data || j->where.data[vec_offset(j, &j->where, i)];
    v->y = 0, v->w = 1;
    if (!j->label.data || !*counts)
        return -1;
    v->label = vec_offset(j, &j->label, i);
    if (j->op == LF_MULTILABEL_MARGIN)
        return multilabel_bad(v);
    if (j->op == LF_COSINE) {
        lf_load_f64(&v->sign, j->label.data + v->label, j->label.dtype, 0, 1);
        return -1;
    }
    lf_load_labels(&v->y, j->label.data + v->label, j->label.dtype, 0, 1);
    *counts = !j->ignores || v->y != j->ignore_index;
    if (*counts && (v->y < 0 || v->y >= j->c))
        return 0;
    v->w = *counts && j->weight ? j->weight[v->y] : 1;
    return -1;
}

/* Loss of position i, times its weight; its gradients are left in x where vectors are whole. */
static double vec_position(Vec *v, ptrdiff_t i, int counts)
{
    const LfVectorJob *j = v->j;
    double loss = 0;
    v->k = j->scale;
    if (j->upstream.data) {
        double up = 1;
        lf_load_f64(&up, j->upstream.data + vec_offset(j, &j->upstream, i), j->upstream.dtype, 0, 1);
        v->k *= up;
    }
    if (counts) {
        const double value = vec_losses[j->op](v);
        loss = v->w == 0 ? 0 : v->w * value;
    } else
        vec_clear(v);
    if (j->out.data)
        lf_store_f64(j->out.data + vec_offset(j, &j->out, i), j->out.dtype, 0, &loss, 1, 0);
    return loss;
}

/* How many positions are taken at once: rows one at a time, so that reading goes on beside the arithmetic; of those that lie
 * across, what a run holds. */
static ptrdiff_t vec_fit(const LfVectorJob *j, ptrdiff_t width)
{
    int across = 0;
    for (int q = 0; j->ndim && q < LF_VECTORS; q++) {
        const LfArray *x = &j->in[q], *g = &j->grad[q];
        across |= x->data && vec_across(j, x->dtype, j->inc[q], x->stride[j->ndim - 1], 2);
        across |= g->data && vec_across(j, g->dtype, j->gradc[q], g->stride[j->ndim - 1], 2);
    }
    return across && width ? LF_RUN / width : 1;
}

static void vec_block(const LfVectorJob *j, ptrdiff_t b)
{
    const ptrdiff_t start = b * j->rows, end = j->n - start < j->rows ? j->n : start + j->rows;
    const ptrdiff_t last = j->ndim ? j->shape[j->ndim - 1] : 1, width = LF_PADDED(j->c);
    const int whole = j->c <= LF_RUN;
    int64_t list[LF_RUN];
    const ptrdiff_t fit = whole ? vec_fit(j, width) : 1;
    double hand[LF_VECTORS][LF_RUN] __attribute__((aligned(64))), mass = 0;
    LfSum sum = {0, 0};
    ptrdiff_t first_bad = -1;
    for (ptrdiff_t i = start, count; i < end; i += count) {
        const ptrdiff_t room = last - (j->ndim > 1 ? i % last : i), left = end - i < room ? end - i : room;
        count = left < fit ? left : fit;
        Vec v = {.j = j, .whole = whole, .list = list};
        for (int q = 0; q < LF_VECTORS; q++) {
            v.at[q] = vec_offset(j, &j->in[q], i), v.out[q] = vec_offset(j, &j->grad[q], i);
            if (whole && j->in[q].data && !j->labels_only)
                vec_load(j, q, j->in[q].data + v.at[q], count, room > count, width, hand[q]);
        }
        for (ptrdiff_t p = 0; p < count; p++) {
            int counts;
            const ptrdiff_t bad = vec_label(&v, i + p, &counts);
            for (int q = 0; q < LF_VECTORS; q++)
                v.x[q] = hand[q] + p * width * whole;
            if (bad >= 0)
                first_bad = first_bad < 0 ? (i + p) * (j->c ? j->c : 1) + bad : first_bad;
            else {
                mass += counts;
                const double loss = j->labels_only ? 0 : vec_position(&v, i + p, counts);
                lf_add(&sum, &loss, i - start + p, 1);
            }
        }
        for (int q = 0; q < LF_VECTORS; q++)
            if (whole && j->grad[q].data && !j->labels_only)
                vec_store(j, q, j->grad[q].data + v.out[q], count, width, hand[q]);
    }
    j->sum[b % LF_PARTS] = sum.run + sum.runs, j->mass[b % LF_PARTS] = mass, j->bad[b % LF_PARTS] = first_bad;
}
