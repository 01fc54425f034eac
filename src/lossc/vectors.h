/* Losses between whole vectors: margins over classes, embeddings, focal loss, overlap and transport of histograms; and the Hessian of cross entropy.
 *
 * One position at a time: a first pass over its vectors for the sums that make the value, a second for the gradients. All arithmetic is double
 * and each result is rounded once, so float results are within an ulp of exact wherever the loss itself is well-conditioned.
 * Order: a run of LF_RUN elements is summed in LF_LANES lanes, runs in order: the same bits for any thread count and layout.
 */

typedef struct {
    const LfVectorJob *j;
    ptrdiff_t at[LF_VECTORS], out[LF_VECTORS]; /* byte offsets of the position in in[] and grad[] */
    ptrdiff_t label;                           /* and in label */
    int64_t y;                                 /* class index */
    double sign;                               /* or +-1 */
    double w, k;                               /* class weight; factor of the gradients, without it */
} Vec;

/* total += sum of term over e = 0 .. n - 1 */
#define LF_SUM(total, n, term)                                                                                                                       \
    {                                                                                                                                                \
        double acc_[LF_LANES] = {0};                                                                                                                 \
        ptrdiff_t i_ = 0;                                                                                                                            \
        for (; i_ + LF_LANES <= (n); i_ += LF_LANES)                                                                                                 \
            _Pragma("omp simd") for (int l_ = 0; l_ < LF_LANES; l_++)                                                                                \
            {                                                                                                                                        \
                const ptrdiff_t e = i_ + l_;                                                                                                         \
                acc_[l_] += (term);                                                                                                                  \
            }                                                                                                                                        \
        for (int l_ = 0; i_ < (n); i_++, l_++) {                                                                                                     \
            const ptrdiff_t e = i_;                                                                                                                  \
            acc_[l_] += (term);                                                                                                                      \
        }                                                                                                                                            \
        total += lf_lane_sum(acc_);                                                                                                                  \
    }

/* for each run of c .. c + n classes */
#define LF_RUNS for (ptrdiff_t c = 0, n; n = j->c - c < LF_RUN ? j->c - c : LF_RUN, c < j->c; c += LF_RUN)

static void vec_move(const LfVectorJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t off, ptrdiff_t c, ptrdiff_t n, double *buf, int put)
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
            lf_store_f64(a->data + p, a->dtype, stride[last], buf, run, 0);
        else
            lf_load_f64(buf, a->data + p, a->dtype, stride[last], run);
        n -= run, c += run, buf += run;
    }
}

static const double *vec_in(const Vec *v, int q, ptrdiff_t c, ptrdiff_t n, double *buf)
{
    vec_move(v->j, &v->j->in[q], v->j->inc[q], v->at[q], c, n, buf, 0);
    return buf;
}

static void vec_out(const Vec *v, int q, ptrdiff_t c, ptrdiff_t n, double *buf)
{
    if (v->j->grad[q].data)
        vec_move(v->j, &v->j->grad[q], v->j->gradc[q], v->out[q], c, n, buf, 1);
}

static inline double vec_hinge(double h) { return h < 0 ? 0 : h; }

/* ---- multi margin: sum over i != y of max(0, margin - x_y + x_i)^p / C ----------------------------------------------------------------------- */

static double multi_margin(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const double power = j->param[0];
    double x[LF_RUN], total = 0, base, active = 0;
    vec_in(v, 0, v->y, 1, &base);
    base = j->param[1] - base;
    LF_RUNS
    {
        vec_in(v, 0, c, n, x);
        const ptrdiff_t y = v->y - c;
        if (power == 1)
            LF_SUM(total, n, e == y ? 0 : vec_hinge(base + x[e]))
        else
            LF_SUM(total, n, e == y ? 0 : vec_hinge(base + x[e]) * vec_hinge(base + x[e]))
    }
    if (j->grad[0].data) {
        const double k = v->k * v->w / (double)j->c;
        LF_RUNS
        {
            vec_in(v, 0, c, n, x);
            for (ptrdiff_t e = 0; e < n; e++) {
                const double h = base + x[e];
                x[e] = h <= 0 || c + e == v->y ? 0 : power == 1 ? k : 2 * k * h;
            }
            LF_SUM(active, n, x[e])
            vec_out(v, 0, c, n, x);
        }
        active = -active;
        vec_out(v, 0, v->y, 1, &active);
    }
    return total / (double)j->c;
}

/* ---- multilabel margin: sum over targets t and others i of max(0, 1 - x_t + x_i) / C ---------------------------------------------------------- */

/* The targets from .. from + LF_W of a position, up to the first -1; fewer than LF_W are the last. */
static int label_chunk(const Vec *v, ptrdiff_t from, int64_t *y)
{
    const LfVectorJob *j = v->j;
    ptrdiff_t off[LF_W], n = j->c - from < LF_W ? j->c - from : LF_W;
    for (ptrdiff_t l = 0; l < n; l++)
        off[l] = v->label + (from + l) * j->labelc;
    lf_load_labels(y, j->label.data, j->label.dtype, off, n);
    for (int l = 0; l < n; l++)
        if (y[l] == -1)
            return l;
    return (int)n;
}

#define LF_TARGETS for (ptrdiff_t from = 0, t_ = LF_W, m; t_ == LF_W && from < j->c && (m = t_ = label_chunk(v, from, y), 1); from += LF_W)

static ptrdiff_t multilabel_bad(const Vec *v)
{
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
    for (ptrdiff_t e = 0; e < n; e++)
        other[e] = 1;
    LF_TARGETS
    for (ptrdiff_t l = 0; l < m; l++)
        if (y[l] >= c && y[l] < c + n)
            other[y[l] - c] = 0;
}

static double multilabel_margin(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const double k = v->k / (double)j->c;
    double x[LF_RUN], other[LF_RUN], g[LF_RUN], total = 0;
    int64_t y[LF_W];
    LF_RUNS
    {
        vec_in(v, 0, c, n, x);
        multilabel_others(v, c, n, other);
        memset(g, 0, sizeof g);
        LF_TARGETS
        for (ptrdiff_t l = 0; l < m; l++) {
            double xt;
            vec_in(v, 0, y[l], 1, &xt);
            LF_SUM(total, n, other[e] == 0 ? 0 : vec_hinge(1 - xt + x[e]))
            for (ptrdiff_t e = 0; j->grad[0].data && e < n; e++)
                g[e] += other[e] != 0 && 1 - xt + x[e] > 0 ? k : 0;
        }
        vec_out(v, 0, c, n, g);
    }
    if (j->grad[0].data)
        LF_TARGETS
        {
            double xt[LF_W], active[LF_W] = {0};
            for (ptrdiff_t l = 0; l < m; l++)
                vec_in(v, 0, y[l], 1, xt + l);
            LF_RUNS
            {
                vec_in(v, 0, c, n, x);
                multilabel_others(v, c, n, other);
                for (ptrdiff_t l = 0; l < m; l++)
                    LF_SUM(active[l], n, other[e] != 0 && 1 - xt[l] + x[e] > 0 ? 1.0 : 0.0)
            }
            for (ptrdiff_t l = 0; l < m; l++) { /* a class named twice counts twice */
                double sum;
                vec_move(j, &j->grad[0], j->gradc[0], v->out[0], y[l], 1, &sum, 0);
                sum -= k * active[l];
                vec_out(v, 0, y[l], 1, &sum);
            }
        }
    return total / (double)j->c;
}

/* ---- softmax of a position: maximum m, S = sum over all but one maximal element of exp(x - m), as in rows.h ---------------------------------- */

typedef struct {
    double m, s;
} Softmax;

static Softmax softmax_of(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double x[LF_RUN], m = -INFINITY, s = 0, ties = -1, lost = 0;
    LF_RUNS
    {
        vec_in(v, 0, c, n, x);
        for (ptrdiff_t e = 0; e < n; e++)
            m = x[e] > m ? x[e] : m, lost = x[e] != x[e] ? x[e] : lost;
    }
    LF_RUNS
    {
        vec_in(v, 0, c, n, x);
        LF_SUM(ties, n, x[e] == m ? 1.0 : 0.0)
        LF_SUM(s, n, x[e] == m ? 0 : lf_exp_f64(x[e] - m))
    }
    s = m == -INFINITY || (m == INFINITY && ties > 0) ? NAN : s + ties;
    return (Softmax){m, lost != lost ? lost : s};
}

/* Focal: with L = -log p_y and q = 1 - p_y = -expm1(-L), q^gamma L; by L: q^gamma + gamma q^(gamma - 1) p_y L; by x: that (p - [y]). */
static double focal(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const double gamma = j->param[0];
    double x[LF_RUN], xy;
    const Softmax p = softmax_of(v);
    vec_in(v, 0, v->y, 1, &xy);
    const double nll = (xy == p.m ? 0 : p.m - xy) + lf_log1p_f64(p.s), q = -lf_expm1_f64(-nll);
    const double power = gamma == 0 ? 1 : gamma == 1 ? q : gamma == 2 ? q * q : lf_pow_f64(q, gamma);
    if (j->grad[0].data) {
        const double inner = gamma == 0 || nll == 0 || nll == INFINITY ? 0 : gamma * power / q * (1 - q) * nll, k = v->k * v->w * (power + inner);
        LF_RUNS
        {
            vec_in(v, 0, c, n, x);
            for (ptrdiff_t e = 0; e < n; e++)
                x[e] = k * (x[e] == p.m ? 1 : lf_exp_f64(x[e] - p.m)) / (1 + p.s);
            vec_out(v, 0, c, n, x);
        }
        xy = -k * q;
        vec_out(v, 0, v->y, 1, &xy);
    }
    return q == 0 ? 0 : power * nll;
}

/* Diagonal of the Hessian of cross entropy: mass p (1 - p), mass = sum w t'. param: 1 - smoothing, smoothing / C, sum of all weights. */
static double cross_entropy_hessian(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double x[LF_RUN], mass = j->param[0] * v->w + j->param[1] * j->param[2];
    const Softmax p = softmax_of(v);
    if (j->in[1].data) {
        mass = 0;
        LF_RUNS
        {
            vec_in(v, 1, c, n, x);
            LF_SUM(mass, n, (x[e] * j->param[0] + j->param[1]) * (j->weight ? j->weight[c + e] : 1))
        }
    }
    const double k = v->k * mass, q = p.s / (1 + p.s);
    LF_RUNS
    {
        vec_in(v, 0, c, n, x);
        for (ptrdiff_t e = 0; e < n; e++) {
            const double a = (x[e] == p.m ? 1 : lf_exp_f64(x[e] - p.m)) / (1 + p.s);
            x[e] = k * a * (x[e] == p.m ? q : 1 - a);
        }
        vec_out(v, 0, c, n, x);
    }
    return 0;
}

/* ---- embeddings --------------------------------------------------------------------------------------------------------------------------- */

/* cos = ab / sqrt((aa + 1e-12) (bb + 1e-12));  y = 1: 1 - cos,  y = -1: max(0, cos - margin) */
static double cosine_embedding(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double a[LF_RUN], b[LF_RUN], ab = 0, aa = 0, bb = 0;
    LF_RUNS
    {
        vec_in(v, 0, c, n, a), vec_in(v, 1, c, n, b);
        LF_SUM(ab, n, a[e] * b[e])
        LF_SUM(aa, n, a[e] * a[e])
        LF_SUM(bb, n, b[e] * b[e])
    }
    aa += 1e-12, bb += 1e-12;
    const double norm = sqrt(aa) * sqrt(bb), cosine = ab / norm, excess = cosine - j->param[0];
    if (j->grad[0].data || j->grad[1].data) {
        const double k = v->sign == 1 ? -v->k : v->sign == -1 && !(excess < 0) ? v->k : 0, kn = k / norm, ka = k * cosine / aa, kb = k * cosine / bb;
        LF_RUNS
        {
            vec_in(v, 0, c, n, a), vec_in(v, 1, c, n, b);
            for (ptrdiff_t e = 0; e < n; e++) {
                const double x = a[e], y = b[e];
                a[e] = kn * y - ka * x, b[e] = kn * x - kb * y;
            }
            vec_out(v, 0, c, n, a), vec_out(v, 1, c, n, b);
        }
    }
    return v->sign == 1 ? 1 - cosine : v->sign == -1 ? vec_hinge(excess) : 0 * cosine;
}

/* sum |a - b + eps|^p and its root */
typedef struct {
    double sum, root;
} Distance;

static Distance distance(const Vec *v, int first, int second)
{
    const LfVectorJob *j = v->j;
    const double p = j->param[1], eps = j->param[2];
    double a[LF_RUN], b[LF_RUN], sum = 0;
    LF_RUNS
    {
        vec_in(v, first, c, n, a), vec_in(v, second, c, n, b);
        for (ptrdiff_t e = 0; e < n; e++)
            a[e] = fabs(a[e] - b[e] + eps);
        if (p == 2)
            LF_SUM(sum, n, a[e] * a[e])
        else if (p == 1)
            LF_SUM(sum, n, a[e])
        else
            LF_SUM(sum, n, a[e] == 0 ? 0 : lf_pow_f64(a[e], p))
    }
    return (Distance){sum, p == 2 ? sqrt(sum) : p == 1 || sum == 0 ? sum : lf_pow_f64(sum, 1 / p)};
}

/* g1 += k dD/da, g2 -= k dD/da */
static void distance_grad(const Vec *v, Distance d, const double *a, const double *b, ptrdiff_t n, double k, double *ga, double *gb)
{
    const double p = v->j->param[1], eps = v->j->param[2], scale = d.root == 0 ? 0 : p == 2 ? 1 / d.root : p == 1 ? 1 : d.root / d.sum;
    for (ptrdiff_t e = 0; k != 0 && e < n; e++) {
        const double x = a[e] - b[e] + eps, size = fabs(x);
        const double g = k * scale * (p == 2 ? x : x == 0 ? 0 : copysign(p == 1 ? 1 : lf_pow_f64(size, p - 1), x));
        ga[e] += g, gb[e] -= g;
    }
}

/* max(0, margin + D(a, p) - D(a, n)), where swap: - min(D(a, n), D(p, n)) */
static double triplet(const Vec *v)
{
    const LfVectorJob *j = v->j;
    const int swap = j->param[3] != 0;
    const Distance near = distance(v, 0, 1), far = distance(v, 0, 2), other = swap ? distance(v, 1, 2) : far;
    const double least = swap && !(other.root >= far.root) ? other.root : far.root, h = j->param[0] + near.root - least;
    if (j->grad[0].data || j->grad[1].data || j->grad[2].data) {
        const double k = h < 0 ? 0 : v->k, part = !swap || far.root < other.root ? 1 : far.root == other.root ? 0.5 : 0;
        double in[3][LF_RUN], g[3][LF_RUN];
        LF_RUNS
        {
            memset(g, 0, sizeof g);
            for (int q = 0; q < 3; q++)
                vec_in(v, q, c, n, in[q]);
            distance_grad(v, near, in[0], in[1], n, k, g[0], g[1]);
            distance_grad(v, far, in[0], in[2], n, -k * part, g[0], g[2]);
            distance_grad(v, other, in[1], in[2], n, -k * (1 - part), g[1], g[2]);
            for (int q = 0; q < 3; q++)
                vec_out(v, q, c, n, g[q]);
        }
    }
    return vec_hinge(h);
}

/* ---- histograms and masks ------------------------------------------------------------------------------------------------------------------ */

/* 1 - (2 sum x t + smooth) / (sum x + sum t + smooth) */
static double dice(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double x[LF_RUN], t[LF_RUN], both = 0, each = 0;
    LF_RUNS
    {
        vec_in(v, 0, c, n, x), vec_in(v, 1, c, n, t);
        LF_SUM(both, n, x[e] * t[e])
        LF_SUM(each, n, x[e] + t[e])
    }
    const double below = each + j->param[0], above = 2 * both + j->param[0], k = v->k / below, less = above / below;
    if (j->grad[0].data || j->grad[1].data)
        LF_RUNS
        {
            vec_in(v, 0, c, n, x), vec_in(v, 1, c, n, t);
            for (ptrdiff_t e = 0; e < n; e++) {
                const double gx = k * (less - 2 * t[e]);
                t[e] = k * (less - 2 * x[e]), x[e] = gx;
            }
            vec_out(v, 0, c, n, x), vec_out(v, 1, c, n, t);
        }
    return (each - 2 * both) / below;
}

/* spacing times sum over all but the last i of |sum up to i of (x - t)|: the work of carrying x to t */
static double wasserstein(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double x[LF_RUN], t[LF_RUN], carried = 0, total = 0, signs = 0;
    LF_RUNS
    {
        vec_in(v, 0, c, n, x), vec_in(v, 1, c, n, t);
        for (ptrdiff_t e = 0; e < n && c + e < j->c - 1; e++) {
            carried += x[e] - t[e];
            total += fabs(carried);
            signs += carried > 0 ? 1 : carried < 0 ? -1 : 0;
        }
    }
    if (j->grad[0].data || j->grad[1].data) {
        const double k = v->k * j->param[0];
        carried = 0;
        LF_RUNS
        {
            vec_in(v, 0, c, n, x), vec_in(v, 1, c, n, t);
            for (ptrdiff_t e = 0; e < n; e++) {
                carried += x[e] - t[e];
                x[e] = c + e < j->c - 1 ? k * signs : 0, t[e] = -x[e];
                signs -= carried > 0 ? 1 : carried < 0 ? -1 : 0;
            }
            vec_out(v, 0, c, n, x), vec_out(v, 1, c, n, t);
        }
    }
    return j->param[0] * total;
}

/* ---- blocks --------------------------------------------------------------------------------------------------------------------------------- */

typedef double (*VecLoss)(const Vec *);
static const VecLoss vec_losses[] = {[LF_MULTI_MARGIN] = multi_margin,
                                     [LF_MULTILABEL_MARGIN] = multilabel_margin,
                                     [LF_FOCAL] = focal,
                                     [LF_CE_HESSIAN] = cross_entropy_hessian,
                                     [LF_COSINE] = cosine_embedding,
                                     [LF_TRIPLET] = triplet,
                                     [LF_DICE] = dice,
                                     [LF_WASSERSTEIN] = wasserstein};

static ptrdiff_t vec_offset(const LfVectorJob *j, const LfArray *a, ptrdiff_t i)
{
    ptrdiff_t p = 0;
    for (int d = j->ndim - 1; a->data && d >= 0; d--) {
        p += (d ? i % j->shape[d] : i) * a->stride[d];
        i /= j->shape[d];
    }
    return p;
}

/* A position that does not count: zero gradients. */
static void vec_clear(const Vec *v)
{
    const LfVectorJob *j = v->j;
    double zero[LF_RUN] = {0};
    LF_RUNS
    for (int q = 0; q < LF_VECTORS; q++)
        vec_out(v, q, c, n, zero);
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
    lf_load_labels(&v->y, j->label.data, j->label.dtype, &v->label, 1);
    *counts = !j->ignores || v->y != j->ignore_index;
    if (*counts && (v->y < 0 || v->y >= j->c))
        return 0;
    v->w = *counts && j->weight ? j->weight[v->y] : 1;
    return -1;
}

void LF_EXPORT(vector_block)(const LfVectorJob *j, ptrdiff_t b)
{
    const ptrdiff_t start = b * j->rows, end = j->n - start < j->rows ? j->n : start + j->rows;
    double sum = 0, mass = 0;
    j->bad[b] = -1;
    for (ptrdiff_t i = start; i < end; i++) {
        Vec v = {.j = j, .k = j->scale};
        int counts;
        const ptrdiff_t bad = vec_label(&v, i, &counts);
        if (bad >= 0) {
            j->bad[b] = j->bad[b] < 0 ? i * (j->c ? j->c : 1) + bad : j->bad[b];
            continue;
        }
        mass += counts ? j->weighted_mean ? v.w : 1 : 0;
        if (j->labels_only)
            continue;
        for (int q = 0; q < LF_VECTORS; q++)
            v.at[q] = vec_offset(j, &j->in[q], i), v.out[q] = vec_offset(j, &j->grad[q], i);
        if (j->upstream.data) {
            double up = 1;
            lf_load_f64(&up, j->upstream.data + vec_offset(j, &j->upstream, i), j->upstream.dtype, 0, 1);
            v.k *= up;
        }
        double loss = 0;
        if (counts) {
            const double value = vec_losses[j->op](&v);
            loss = v.w == 0 ? 0 : v.w * value;
            if (j->gw)
                j->gw[b * j->c + v.y] += v.k * value, j->gw_mass[b * j->c + v.y] += 1;
        } else
            vec_clear(&v);
        if (j->out.data)
            lf_store_f64(j->out.data + vec_offset(j, &j->out, i), j->out.dtype, 0, &loss, 1, 0);
        sum += loss;
    }
    j->sum[b] = sum, j->mass[b] = mass;
}
