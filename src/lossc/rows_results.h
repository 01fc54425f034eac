/* Results of rows in hand. Between the passes, from (m, S) and the target masses: the losses and the coefficients of the second pass, in double,
 * LF_GROUP rows at a time. In the second pass: each kind of output, element by element. Part of rows.h. */

/* log(1 + s), s >= 0, to what T can tell: for float in double with relative error 7e-10, by u = 1 + s = 2^e (1 + f), -0.293 <= f <= 0.415,
 * f = (s - (2^e - 1)) 2^-e, which is s itself where s is small, and f P(f). P is minimax of degree 10 for log(1 + f) / f. */
static inline double NAME(row_log1p)(double s)
{
#ifdef LF_T_FLOAT
    const uint64_t e = (lf_bits_f64(1 + s) - 0x3fe6a09e667f3bcdu) >> 52;
    const double power = lf_real_f64((1023 + e) << 52), f = (s - (power - 1)) * lf_real_f64((1023 - e) << 52);
    double p = 0x1.137df737d5e37p-4;
    p = p * f - 0x1.dffe5d64e3b2ep-4;
    p = p * f + 0x1.e87dfbf365b3cp-4;
    p = p * f - 0x1.fbf1f5b75b02bp-4;
    p = p * f + 0x1.231297db1ec74p-3;
    p = p * f - 0x1.555be34a0b99cp-3;
    p = p * f + 0x1.99a71b3dedf86p-3;
    p = p * f - 0x1.000012194d429p-2;
    p = p * f + 0x1.5555400a31f4dp-2;
    p = p * f - 0x1.ffffffc706b7cp-2;
    p = p * f + 0x1.00000002b611bp+0;
    return (lf_real_f64(e | 0x4330000000000000u) - 0x1p52) * 0x1.62e42fefa39efp-1 + f * p;
#else
    return lf_log1p_f64(s);
#endif
}

/* ---- focal loss: cross entropy L times q^gamma, q = 1 - p ---------------------------------------------------------------------------------- */

#ifndef LF_T_FLOAT
static __attribute__((noinline)) void group_power(double *power, const double *q, double gamma)
{
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++)
        power[l] = gamma == 1 ? q[l] : q[l] * q[l];
    if (gamma != 1 && gamma != 2)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            power[l] = lf_pow_f64(q[l], gamma);
}
#endif

/* q without cancellation; by x_c the gradient is that of cross entropy times q^gamma + gamma q^(gamma - 1) p L. The relative error of q is that of S,
 * so a confident prediction's loss has 1 + gamma times it, and sums of floats are fine (runs.h): 0.78 ulp on AVX-512, else 1.64 at worst for gamma up
 * to 5. */
static void NAME(group_focus)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at)
{
    double q[LF_GROUP], nll[LF_GROUP];
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const double s = r->s[at + l], share = 1 / (1 + s), top = r->top[at + l], xt = r->xt[at + l];
        const double rest = s * share, others = 1 - lf_exp_neg_f64(xt - top) * share;
        q[l] = xt == top ? rest : others;
        nll[l] = (top - xt) + r->delta[at + l];
    }
    group_power(r->focus + at, q, j->gamma);
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const double power = r->focus[at + l], more = j->gamma * power / q[l] * (1 - q[l]) * nll[l];
        r->slope[at + l] = power + ((nll[l] == 0) | (nll[l] == INFINITY) ? 0 : more);
    }
}

/* ---- losses -------------------------------------------------------------------------------------------------------------------------------- */

/* loss = dot + mass delta for all: of a plain logsumexp, m + delta. */
static void NAME(group_finish)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at)
{
    const int index = j->op == LF_CE_INDEX, spread = lf_spreads(j);
    const double keep = 1 - j->smoothing, nothing = j->op == LF_LOGSUMEXP ? 0 : NAN;
    double loss[LF_GROUP];
    for (int l = 0; !spread && l < LF_GROUP; l++)
        r->mass[at + l] = index ? 0 : 1, r->dot[at + l] = index ? 0 : r->m[at + l];
    if (index)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++) {
            const double u = keep * r->wt[at + l], d = u * ((double)r->top[at + l] - (double)r->xt[at + l]);
            r->mass[at + l] += u;
            r->dot[at + l] += u == 0 ? 0 : d;
        }
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        /* rows of -inf only, or with more than one +inf, have no distribution */
        const double m = r->m[at + l], sum = r->s[at + l], none = (m == -INFINITY) | ((m == INFINITY) & (sum > 0)) ? nothing : 0;
        const double s = sum < 0 ? 0 : sum + none, delta = NAME(row_log1p)(s); /* < 0: no classes */
        r->s[at + l] = s, r->delta[at + l] = delta;
        loss[l] = r->dot[at + l] + r->mass[at + l] * delta;
    }
    if (j->gamma != 0) {
        NAME(group_focus)(j, r, at);
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            loss[l] = r->focus[at + l] == 0 ? 0 : loss[l] * r->focus[at + l];
    }
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++)
        r->loss[at + l] = r->label[at + l] < 0 ? 0 : loss[l];
}

/* Cross entropy that is no number, though it may be one: a logit can lie further from the maximum than T reaches, or have next to no mass. */
static __attribute__((noinline)) void NAME(row_loss_again)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t l)
{
    T buf[LF_RUN], tbuf[LF_RUN];
    const double m = r->m[l] * 0.5, own = r->wt[l] * (1 - j->smoothing); /* halves: for double too */
    double half = 0;
    if (j->c <= LF_SMALL_C) /* where long rows lie is known */
        lf_offsets(j, &j->x, r->first + l, 1, r->off_x + l);
    if (j->c <= LF_SMALL_C && j->op == LF_CE_PROB)
        lf_offsets(j, &j->t, r->first + l, 1, r->off_t + l);
    for (ptrdiff_t c = 0; lf_spreads(j) && c < j->c; c += LF_RUN) {
        const ptrdiff_t n = j->c - c < LF_RUN ? j->c - c : LF_RUN;
        const T *x = NAME(row_in)(j, &j->x, j->xc, r->off_x[l], c, n, buf), *u = NAME(row_masses)(j, r, l, c, n, tbuf);
        for (ptrdiff_t i = 0; i < n; i++)
            half += u[i] == 0 ? 0 : u[i] * (m - x[i] * 0.5);
    }
    if (j->op == LF_CE_INDEX)
        half += own == 0 ? 0 : own * (m - *NAME(row_in)(j, &j->x, j->xc, r->off_x[l], r->label[l], 1, buf) * 0.5);
    r->loss[l] = (2 * half + r->mass[l] * r->delta[l]) * (j->gamma == 0 ? 1 : r->focus[l]);
}

static void NAME(rows_finish)(const LfRowJob *j, NAME(Rows) * r)
{
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(group_finish)(j, r, at);
    double none = 0;
    const ptrdiff_t sums = lf_sums(j) && r->from == 0 ? r->n : 0;
#pragma omp simd reduction(+ : none)
    for (ptrdiff_t l = 0; l < sums; l++)
        none += 0 * r->dot[l];
    for (ptrdiff_t l = 0; none != 0 && l < sums; l++)
        if (!(fabs(r->dot[l]) < INFINITY) && r->label[l] >= 0)
            NAME(row_loss_again)(j, r, l);
    for (ptrdiff_t l = r->n; l < LF_W; l++) /* lanes of no row are summed too */
        r->loss[l] = 0;
}

#ifdef LF_T_FLOAT
/* logsumexp that comes near to 0 from a negative maximum: S to the last bit of a float is not enough of it, and is summed again in double. */
static int sum_is_near(const Rows_f32 *r, ptrdiff_t l) { return (r->m[l] < 0) & (fabs(r->loss[l]) < 0.25); }

/* Whether any result in hand is so near: nearly all a loss of ordinary rows pays. */
static inline int any_sum_is_near(const Rows_f32 *r)
{
    int64_t any = 0;
#pragma omp simd reduction(| : any)
    for (int l = 0; l < LF_W; l++)
        any |= -(int64_t)(fabs(r->loss[l]) < 0.25);
    return any != 0;
}

static inline void sum_term_again(double x, double m, double *s, double *ties)
{
    const uint64_t other = -(uint64_t)(x != m); /* by bits: row_other */
    *s += lf_real_f64(lf_bits_f64(lf_exp_neg_f64(x - m)) & other), *ties += lf_real_f64(lf_bits_f64(1.0) & ~other);
}

LF_CALLED group_sum_again(const float *x, ptrdiff_t ld, ptrdiff_t classes, Rows_f32 *r, ptrdiff_t at)
{
    double s[LF_GROUP] = {0}, ties[LF_GROUP], m[LF_GROUP];
    int any = 0;
    for (int l = 0; l < LF_GROUP; l++)
        m[l] = r->m[at + l], ties[l] = -1, any |= sum_is_near(r, at + l);
    for (ptrdiff_t c = 0; any && c < classes; c++)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            sum_term_again(x[c * ld + l], m[l], s + l, ties + l);
    for (int l = 0; any && l < LF_GROUP; l++)
        r->loss[at + l] = sum_is_near(r, at + l) ? m[l] + lf_log1p_f64(s[l] + ties[l]) : r->loss[at + l];
}

static __attribute__((noinline)) void row_sum_again(const LfRowJob *j, Rows_f32 *r, ptrdiff_t l)
{
    const double m = r->m[l];
    float buf[LF_RUN], pad[LF_LANES];
    double s[LF_LANES] = {0}, ties[LF_LANES] = {-1};
    for (ptrdiff_t c = 0; c < j->c; c += LF_RUN) {
        const ptrdiff_t n = j->c - c < LF_RUN ? j->c - c : LF_RUN;
        const float *x = row_in_f32(j, &j->x, j->xc, r->off_x[l], c, n, buf);
        for (ptrdiff_t i = 0; i < n; i += LF_LANES) {
            const float *v = x + i;
            if (n - i < LF_LANES) {
                for (int k = 0; k < LF_LANES; k++)
                    pad[k] = k < n - i ? v[k] : -INFINITY;
                v = pad;
            }
#pragma omp simd
            for (int k = 0; k < LF_LANES; k++)
                sum_term_again(v[k], m, s + k, ties + k);
        }
    }
    r->loss[l] = m + lf_log1p_f64(lf_lane_sum(s) + lf_lane_sum(ties));
}
#endif

static void NAME(rows_near)(const LfRowJob *j, NAME(Rows) * r)
{
#ifdef LF_T_FLOAT
    for (ptrdiff_t l = 0; j->op == LF_LOGSUMEXP && r->from == 0 && l < r->n; l++)
        if (sum_is_near(r, l))
            row_sum_again(j, r, l);
#endif
}

/* ---- coefficients of the second pass ------------------------------------------------------------------------------------------------------- */

/* With the labels' own entries of the gradient: k (mass p - u), at the maximum k ((mass - u) - mass q), which has no more error than 1 - p in double:
 * much beside a small p that is a double too. */
static void NAME(group_coefficients)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at)
{
    const T *w = j->weight;
    const int index = j->op == LF_CE_INDEX;
    const double scale = j->scale, keep = 1 - j->smoothing, even = j->smoothing / (double)j->c;
    double u[LF_GROUP], slope[LF_GROUP];
    for (int l = 0; l < LF_GROUP; l++)
        slope[l] = j->gamma == 0 ? 1 : r->slope[at + l];
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++)
        r->k[at + l] = r->label[at + l] < 0 ? 0 : r->k[at + l];
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const double kd = scale * r->k[at + l], k = kd * slope[l], share = 1 / (1 + r->s[at + l]);
        r->kd[at + l] = kd;
        r->k[at + l] = (T)k;
        r->kmass[at + l] = (T)(k * r->mass[at + l]);
        r->qd[at + l] = r->s[at + l] * share;
        r->q[at + l] = (T)r->qd[at + l];
        r->kq[at + l] = r->kmass[at + l] * r->q[at + l];
        r->pf[at + l] = (T)(r->f[at + l] * share);
        r->tdelta[at + l] = (T)r->delta[at + l];
    }
    for (int l = 0; index && l < LF_GROUP; l++)
        u[l] = keep * r->wt[at + l];
    for (int l = 0; index && even != 0 && l < LF_GROUP; l++)
        u[l] += r->label[at + l] < 0 ? 0 : even * (w ? (double)w[r->label[at + l]] : 1);
    if (index)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++) {
            const T p = r->et[at + l] * r->pf[at + l];
            const double own = u[l], a = (r->mass[at + l] - own) - r->mass[at + l] * r->qd[at + l], b = r->mass[at + l] * (double)p - own;
            const int near = (r->xt[at + l] == r->top[at + l]) & ((sizeof(T) < sizeof(double)) | (r->qd[at + l] < 0.5));
            r->patch[at + l] = (T)(r->kd[at + l] * slope[l] * (near ? a : b));
        }
}

static void NAME(rows_coefficients)(const LfRowJob *j, NAME(Rows) * r)
{
    LfRuns w;
    for (int l = 0; l < LF_W; l++)
        r->k[l] = 1;
    if (j->upstream.data)
        for (lf_runs(j, &j->upstream, r->first, r->n, &w); w.n; lf_next_run(j, &j->upstream, &w))
            NAME(lf_load)(r->k + w.at, j->upstream.data + w.off, j->upstream.dtype, j->upstream.stride[j->ndim - 1], w.n);
    for (ptrdiff_t l = 0; j->op == LF_LOGSUMEXP && l < r->n; l++)
        r->label[l] = r->loss[l] == -INFINITY ? -1 : r->label[l]; /* constant: no gradient */
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(group_coefficients)(j, r, at);
}

/* Derivative of the unscaled sum by the class weights: sum over rows of k t'_c (-log p_c), and the counts of labels in the mean's denominator. */
static void NAME(rows_weight_grad)(const LfRowJob *j, const NAME(Rows) * r, LfRowBlock *b)
{
    T buf[LF_RUN], t[LF_RUN];
    const double keep = 1 - j->smoothing, even = j->smoothing / (double)j->c;
    double *gw = b->gw, *gw_mass = b->gw_mass;
    for (ptrdiff_t l = 0; gw && l < r->n; l++) {
        if (r->label[l] < 0)
            continue;
        const int64_t y = r->label[l];
        if (j->op == LF_CE_INDEX) {
            gw_mass[y] += 1;
            gw[y] += keep == 0 ? 0 : r->kd[l] * keep * (j->gamma == 0 ? 1 : r->focus[l]) * (((double)r->top[l] - (double)r->xt[l]) + r->delta[l]);
        }
        for (ptrdiff_t c = 0; (j->op == LF_CE_PROB || even != 0) && c < j->c; c += LF_RUN) {
            const ptrdiff_t n = j->c - c < LF_RUN ? j->c - c : LF_RUN;
            const T *x = NAME(row_logits)(j, r, l, c, n, r->m[l], buf);
            if (j->op == LF_CE_PROB)
                NAME(row_move)(j, &j->t, j->tc, r->off_t[l], c, n, t, 0);
            for (ptrdiff_t i = 0; i < n; i++) {
                const double mass = even + (j->op == LF_CE_PROB ? keep * t[i] : 0);
                gw[c + i] += mass == 0 ? 0 : r->kd[l] * mass * (((double)r->top[l] - (double)x[i]) + r->delta[l]);
            }
        }
    }
}

/* ---- second pass: one output element each. `step` is 1 across a tile (a row per lane) and 0 along a row ---------------------------------- */

#define LF_EMIT static inline __attribute__((always_inline)) void
#define LF_LANE(a) (a)[step ? i : 0]

/* of a tile: the largest probability, rounded once, is 1 where there is no other */
LF_EMIT NAME(emit_softmax)(T *o, const T *x, const T *e, ptrdiff_t n, const T *m, const T *most, const T *pf)
{
#pragma omp simd
    for (ptrdiff_t i = 0; i < n; i++) {
        const T p = e[i] * pf[i];
        o[i] = x[i] == m[i] ? most[i] : p;
    }
}

LF_EMIT NAME(emit_log_softmax)(T *o, const T *x, ptrdiff_t n, const T *m, const T *delta, int step)
{
#pragma omp simd
    for (ptrdiff_t i = 0; i < n; i++)
        o[i] = (x[i] - LF_LANE(m)) - LF_LANE(delta);
}

/* k (mass p - u), in bits so that gcc takes but one product into an FMA, and all elements the same */
LF_EMIT NAME(emit_grad_spread)(T *o, const T *x, const T *e, const T *u, ptrdiff_t n, const NAME(Rows) * r, ptrdiff_t l, const T *pf, int step)
{
    const T *m = r->top + l, *k = r->k + l, *kmass = r->kmass + l, *q = r->q + l, *kq = r->kq + l;
#pragma omp simd
    for (ptrdiff_t i = 0; i < n; i++) {
        const U near = -(U)((x[i] == LF_LANE(m)) & (LF_LANE(q) < (T)0.5)); /* where p is near 1 */
        const T kp = LF_LANE(kmass) * (e[i] * LF_LANE(pf)), most = REAL((BITS(LF_LANE(kmass)) & near) | (BITS(kp) & ~near));
        o[i] = (most - LF_LANE(k) * u[i]) - REAL(BITS(LF_LANE(kq)) & near);
    }
}

/* p (g - sum g p), the sum in `dot` */
LF_EMIT NAME(emit_softmax_grad)(T *o, const T *e, const T *g, ptrdiff_t n, const T *pf, const T *dot, int step)
{
#pragma omp simd
    for (ptrdiff_t i = 0; i < n; i++)
        o[i] = e[i] * LF_LANE(pf) * (g[i] - LF_LANE(dot));
}

/* by a class probability: k w (1 - smoothing) (-log p), 0 at the limit 0 * inf only where k w is 0 */
LF_EMIT NAME(emit_target_grad)(T *o, const T *x, ptrdiff_t n, const T *m, const T *delta, const T *k, const T *w, int step)
{
#pragma omp simd
    for (ptrdiff_t i = 0; i < n; i++) {
        const T d = x[i] == -INFINITY ? INFINITY : LF_LANE(m) - x[i], c = LF_LANE(k) * (w ? w[step ? 0 : i] : 1);
        o[i] = c == 0 ? 0 : c * (d + LF_LANE(delta));
    }
}
#undef LF_LANE
#undef LF_EMIT
