/* Row losses: logsumexp, softmax, log-softmax, cross entropy with class indices or probabilities, NLL.
 *
 * Representation. A row x is known by its maximum m and  S = sum over all but one maximal element of exp(x_j - m), in double. Then
 *     logsumexp = m + log1p(S)      -log p_t = (m - x_t) + log1p(S)      p_t = exp(x_t - m) / (1 + S)
 * and no term cancels: a dominating class leaves S tiny with full relative accuracy, and so the loss (cross_entropy([20, 0], 0) = 2.06e-9).
 *
 * Exponentials are taken of x itself, not of the rounded difference x - m: exp(x) 2^(SHIFT - N) = 2^(n - N + SHIFT) exp(r) with
 * N = round(m log2 e), so that r is exact to the last bit (a float difference near -20 is off by 1e-6, 8 ulp of the result). Terms down to
 * 2^-(SHIFT + 126) of the largest count, smaller ones are 0; scaled terms are never subnormal but within 1 % of that border.
 * Far rows, |m| > T_FAR or infinite, are shifted by m first, maxima to 0: there x - m is exact for every term that counts (Sterbenz), and the
 * limits come out: one +inf takes all the probability.
 *
 * Layout. Up to LF_SMALL_C classes rows lie side by side in a tile[class][row], one row per vector lane, whatever their memory layout; where
 * positions lie nearer to one another than classes, many such tiles are copied in and out at once, class by class (a cache holds few lines that
 * are a power of two apart). Larger rows are read in runs of LF_RUN classes, each lane of LF_LANES taking every LF_LANES-th. The choice between
 * these two orders depends on C only: larger rows whose positions lie nearer to one another lie in tiles too, and are added up as if they did not
 * (planes.h).
 * Order: two terms (long float rows on AVX-512: four) are added in T, then everything in double, in an order fixed by C.
 */

#include "positions.h"

/* ---- one run of exponentials ------------------------------------------------------------------------------------------------------- */

/* Bytes between a read of a row and its prefetch: the next group of rows of one run; of rows of a few runs the next one, whose first run is read
 * early; of huge ones 1.2 times as fast as that. */
static ptrdiff_t NAME(row_ahead)(const LfRowJob *j)
{
    const ptrdiff_t apart = LF_GROUP * j->c * lf_itemsize(j->x.dtype);
    return j->c <= LF_RUN ? apart : j->c <= 4 * LF_RUN ? 16384 : LF_AHEAD;
}

/* The reference of a row: e(x) = 2^(n - N + SHIFT) exp(r), n = round(x log2 e), of the row itself, or of x - m for a far row (N = 0). */
typedef struct {
    T magic;  /* T_MAGIC - N + SHIFT + T_BIAS: the sum's low bits are e's biased exponent */
    T floor;  /* where that exponent becomes 0, and so e */
    double f; /* exp(x - m) = f e(x) */
} NAME(Ref);

static inline int NAME(row_far)(T m) { return !(ABS(m) <= T_FAR); }

/* exp(r) - 1 - r, |r| <= 0.35, to what T can tell: for float in double with an error below 2^-34 of exp(r). */
static inline double NAME(ref_tail)(double r)
{
#ifdef LF_T_FLOAT
    const double r2 = r * r;
    return r2 * ((0x1.0000003a3a687p-1 + r * 0x1.55555442cbf40p-3) +
                 r2 * ((0x1.55548d8f90b16p-5 + r * 0x1.11127113aabbbp-7) + r2 * (0x1.6d8d38d3737e5p-10 + r * 0x1.9f086ef1739bcp-13)));
#else
    return lf_exp_tail_f64(r);
#endif
}

static inline NAME(Ref) NAME(row_ref)(T m)
{
    const int far = NAME(row_far)(m);
    const T N = far ? 0 : (m * T_LOG2E + T_MAGIC) - T_MAGIC;
    const double r = far ? 0 : ((double)m - (double)N * LF_LN2_HI) - (double)N * LF_LN2_LO; /* |r| <= 0.35 */
    return (NAME(Ref)){.magic = T_MAGIC + (T_SHIFT + T_BIAS - N),
                       .floor = (N - (T_SHIFT + T_BIAS)) * (T)LF_LN2_HI,
                       .f = (1 + (-r + NAME(ref_tail)(-r))) * T_UNSHIFT};
}

/* e(x) but for float rows on AVX-512 (runs512.h), relative error 1.44 2^-24, at 0x1.4cb984p+2 | 1.5 2^-24 without FMA, at -0x1.060256p+7; NaN stays
 * NaN. Here floor <= x <= T_FAR, so |n| < 2^9 (float) and r is exact, also without FMA (real.h). */
static inline T NAME(row_exp)(T x, T magic, T floor)
{
    x = floor > x ? floor : x;
    const T t = x * T_LOG2E + magic, n = t - magic;
    T r = x - n * T_LN2_HI;
    r = r - n * T_LN2_LO;
    const T scale = REAL(BITS(t) << T_MANT);
    return scale + scale * (r + NAME(lf_exp_tail)(r));
}

/* e where x != m, else 0: by bits, since a selection invites gcc to branch around the exponential and leave the loop scalar. And 1 or 0, in the type
 * that counts. SSE2 compares no 64-bit integers, and gcc then leaves loops scalar: so there all is done in double. */
#undef COUNT
#if defined LF_T_DOUBLE && defined __SSE2__ && !defined __SSE4_2__
#define COUNT T
static inline T NAME(row_counts)(T x, T m) { return x != m ? 1 : 0; }
static inline T NAME(row_other)(T e, T x, T m) { return e * NAME(row_counts)(x, m); }
#else
#define COUNT I
static inline I NAME(row_counts)(T x, T m) { return (I)(x != m); }
static inline T NAME(row_other)(T e, T x, T m) { return REAL(BITS(e) & -(U)(x != m)); }
#endif

static inline T NAME(row_shift)(T x, T m) { return x == m ? 0 : x - m; }

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

/* Of a run: the maximum; and, on AVX-512 where all is wanted, the largest bits in its whole vectors: of the least element, if any is negative, or
 * of a NaN. A maximum below `above` need only come out as less. */
typedef struct {
    T max;
    U low;
} NAME(Extent);

/* ---- the rows in hand --------------------------------------------------------------------------------------------------------------- */

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

#ifndef LF_T_FLOAT
/* Lanes 0 to 15 in the order in which lf_half_lane_sum's tree is added up with few sums in hand: b with its bits reversed. */
static inline int lf_tree_lane(int b) { return (b & 1) << 3 | (b & 2) << 1 | (b & 4) >> 1 | b >> 3; }
#endif

/* LF_RAW: the dtype in which runs of an array are read by run_extent and run_sum */
#undef LF_RAW
#if defined LF_T_FLOAT && defined __AVX512F__
#define LF_RAW(dtype) ((dtype) == LF_F16 || (dtype) == LF_BF16 ? (dtype) : LF_F32)
#include "runs512.h"
#else
#define LF_RAW(dtype) T_CODE
static inline NAME(Ref) NAME(run_ref)(T m) { return NAME(row_ref)(m); }
static inline T NAME(run_exp)(T x, T magic, T floor) { return NAME(row_exp)(x, magic, floor); }

/* o = e(x) of a group's rows */
static inline void NAME(group_exp)(T *o, const T *x, const T *magic, const T *floor)
{
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++)
        o[l] = NAME(row_exp)(x[l], magic[l], floor[l]);
}

static inline NAME(Extent) NAME(run_extent)(const void *p, ptrdiff_t n, int dtype, int whole, T above)
{
    const T *x = p;
    T lane[LF_LANES];
    for (int l = 0; l < LF_LANES; l++)
        lane[l] = -INFINITY;
    ptrdiff_t i = 0;
    for (; i + LF_LANES <= n; i += LF_LANES)
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l]; /* drops NaN; the sum brings it back */
    T max = -INFINITY;
#pragma omp simd reduction(max : max)
    for (ptrdiff_t k = i; k < n; k++)
        max = x[k] > max ? x[k] : max;
#pragma omp simd reduction(max : max)
    for (int l = 0; l < LF_LANES; l++)
        max = lane[l] > max ? lane[l] : max;
    return (NAME(Extent)){max, 0};
}

/* One step of a sum of exponentials: LF_LANES elements. */
static inline void NAME(run_step)(const T *x, ptrdiff_t ahead, NAME(Ref) ref, int masked, T m, double *acc, COUNT *other, T *keep)
{
    const T *b = x + LF_LANES / 2;
    T pair[LF_LANES / 2];
    for (ptrdiff_t i = 0; i < LF_LANES * (ptrdiff_t)sizeof(T); i += 64)
        __builtin_prefetch((const char *)x + ahead + i); /* of the next runs, or nothing */
#pragma omp simd
    for (int l = 0; l < LF_LANES / 2; l++) {
        const T y = NAME(row_exp)(x[l], ref.magic, ref.floor), z = NAME(row_exp)(b[l], ref.magic, ref.floor);
        pair[l] = masked ? NAME(row_other)(y, x[l], m) + NAME(row_other)(z, b[l], m) : y + z;
        if (masked) {
            other[l] += NAME(row_counts)(x[l], m) + NAME(row_counts)(b[l], m);
            keep[l] = y;
            keep[l + LF_LANES / 2] = z;
        }
    }
#pragma omp simd
    for (int l = 0; l < LF_LANES / 2; l++)
        acc[l] += pair[l];
}

/* The last elements of a run, fewer than LF_LANES; called, not inlined, for size. A NaN for m masks nothing. */
static __attribute__((noinline)) void NAME(run_rest)(const T *x, ptrdiff_t n, NAME(Ref) ref, T m, double *acc, COUNT *other, T *keep)
{
    T pad[LF_LANES];
    for (int l = 0; l < LF_LANES; l++)
        pad[l] = l < n ? x[l] : -INFINITY;
    NAME(run_step)(pad, 0, ref, 1, m, acc, other, keep);
}

static inline double NAME(run_sum_of)(const T *x, ptrdiff_t n, ptrdiff_t ahead, NAME(Ref) ref, int masked, T m, double *count, T *keep)
{
    double acc[LF_LANES / 2] = {0}, rest[LF_LANES / 2] = {0}; /* apart, so that acc stays in registers */
    COUNT other[LF_LANES / 2] = {0}, rest_other[LF_LANES / 2] = {0}, others = 0;
    T spare[LF_RUN];
    ptrdiff_t i = 0;
    keep = keep ? keep : spare;
    for (; i + LF_LANES <= n; i += LF_LANES)
        NAME(run_step)(x + i, ahead, ref, masked, m, acc, other, masked ? keep + i : NULL);
    if (i < n) {
        NAME(run_rest)(x + i, n - i, ref, masked ? m : T_NAN, rest, rest_other, masked ? keep + i : spare);
        for (int l = 0; l < LF_LANES / 2; l++)
            acc[l] += rest[l], other[l] += rest_other[l];
        i += LF_LANES;
    }
    if (masked) {
        for (int l = 0; l < LF_LANES / 2; l++)
            others += other[l];
        *count += (double)((COUNT)i - others);
    }
    return lf_half_lane_sum(acc);
}

/* Sum of e(x) over a run; with `masked`, elements equal to m are left out and counted, and all e are kept, up to a whole number of LF_LANES.
 * Lanes l and l + LF_LANES / 2 are added in T, all else in double: a sum in T of even 16 terms is off by up to 3 ulp, of two by half of one. */
static __attribute__((noinline)) double NAME(run_sum)(const void *x, ptrdiff_t n, int dtype, ptrdiff_t ahead, NAME(Ref) ref, int masked, T m,
                                                      NAME(Extent) extent, double *count, T *keep)
{
    return masked ? NAME(run_sum_of)(x, n, ahead, ref, 1, m, count, keep) : NAME(run_sum_of)(x, n, ahead, ref, 0, m, count, NULL);
}

static void NAME(emit_scaled)(T *o, const T *x, const T *e, ptrdiff_t n, T magic, T floor, T pf, T k)
{
    if (e)
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++)
            o[i] = e[i] * pf * k;
    else
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++)
            o[i] = NAME(row_exp)(x[i], magic, floor) * pf * k;
}

/* A tile's rows, LF_GROUP at a time; e keeps the exponentials where a second pass wants them. */
static inline void NAME(group_stats)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Rows) * r, ptrdiff_t at, T *e)
{
    double s[LF_GROUP] = {0};
    T top[LF_GROUP], magic[LF_GROUP], floor[LF_GROUP], pair[LF_GROUP], nothing[LF_GROUP], spare[LF_GROUP];
    COUNT other[LF_GROUP] = {0};
    for (int l = 0; l < LF_GROUP; l++)
        nothing[l] = -INFINITY;
    memcpy(top, r->top + at, sizeof top);
    memcpy(magic, r->magic + at, sizeof magic);
    memcpy(floor, r->floor + at, sizeof floor);
    for (ptrdiff_t c = 0; c < classes; c += 2) {
        const T *v = x + c * ld, *w = c + 1 < classes ? v + ld : nothing;
        T *ev = e ? e + c * LF_W : NULL, *ew = e && c + 1 < classes ? ev + LF_W : spare;
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++) {
            const T y = NAME(row_exp)(v[l], magic[l], floor[l]), z = NAME(row_exp)(w[l], magic[l], floor[l]);
            const T p = NAME(row_other)(y, v[l], top[l]), q = NAME(row_other)(z, w[l], top[l]);
            pair[l] = p + q;
            other[l] += NAME(row_counts)(v[l], top[l]) + NAME(row_counts)(w[l], top[l]);
            if (e)
                ev[l] = y, ew[l] = z;
        }
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            s[l] += pair[l];
    }
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const double f = r->f[at + l];
        r->s[at + l] = s[l] * f + (double)((COUNT)(classes + (classes & 1)) - other[l] - 1);
    }
}

/* run_sum of a run of a group's rows of a tile, to the bit, and how many elements are the maximum; e keeps the exponentials, or is NULL. `several`: of
 * rows of several runs. */
static void NAME(group_sums)(const T *x, ptrdiff_t ld, ptrdiff_t classes, const NAME(Rows) * r, ptrdiff_t at, T *e, int dtype, int several,
                             double *sum, double *ties)
{
    double part[5][LF_GROUP];
    T top[LF_GROUP], magic[LF_GROUP], floor[LF_GROUP], pair[LF_GROUP], nothing[LF_GROUP], spare[LF_GROUP];
    COUNT other[LF_GROUP] = {0};
    ptrdiff_t steps = 0;
    for (int l = 0; l < LF_GROUP; l++)
        nothing[l] = -INFINITY;
    memcpy(top, r->top + at, sizeof top);
    memcpy(magic, r->magic + at, sizeof magic);
    memcpy(floor, r->floor + at, sizeof floor);
    for (int b = 0, k = 0; b < LF_LANES / 2; b++, k = 0) {
        double s[LF_GROUP] = {0};
        for (ptrdiff_t c = lf_tree_lane(b); c < classes; c += LF_LANES, steps += 2) {
            const ptrdiff_t d = c + LF_LANES / 2;
            const T *v = x + c * ld, *w = d < classes ? x + d * ld : nothing;
            T *ev = e ? e + c * ld : spare, *ew = e && d < classes ? e + d * ld : spare;
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++) {
                const T y = NAME(row_exp)(v[l], magic[l], floor[l]), z = NAME(row_exp)(w[l], magic[l], floor[l]);
                pair[l] = NAME(row_other)(y, v[l], top[l]) + NAME(row_other)(z, w[l], top[l]);
                other[l] += NAME(row_counts)(v[l], top[l]) + NAME(row_counts)(w[l], top[l]);
                ev[l] = y, ew[l] = z;
            }
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++)
                s[l] += pair[l];
        }
        for (; b >> k & 1; k++)
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++)
                s[l] += part[k][l];
        memcpy(part[k], s, sizeof s);
    }
    for (int l = 0; l < LF_GROUP; l++)
        sum[l] = part[4][l], ties[l] = (double)((COUNT)steps - other[l]);
}

#endif

static double NAME(run_total)(const T *x, ptrdiff_t n)
{
    double acc[LF_LANES] = {0};
    ptrdiff_t i = 0;
    for (; i + LF_LANES <= n; i += LF_LANES)
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++)
            acc[l] += x[i + l];
    for (int l = 0; i < n; i++, l++)
        acc[l] += x[i];
    return lf_lane_sum(acc);
}

/* run_total of each of a group's rows. */
LF_CALLED NAME(group_total)(const T *x, ptrdiff_t ld, ptrdiff_t classes, double *total)
{
    double part[6][LF_GROUP];
    for (int b = 0, k = 0; b < LF_LANES; b++, k = 0) {
        double s[LF_GROUP] = {0};
        for (ptrdiff_t c = (b & 1) << 4 | lf_tree_lane(b >> 1); c < classes; c += LF_LANES)
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++)
                s[l] += x[c * ld + l];
        for (; b >> k & 1; k++)
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++)
                s[l] += part[k][l];
        memcpy(part[k], s, sizeof s);
    }
    memcpy(total, part[5], sizeof part[5]);
}

/* Cross entropy against target masses u: a += sum u, dot += sum u (m - x), for masses of one run. An element without mass adds nothing. */
static void NAME(run_dot)(const T *x, const T *u, ptrdiff_t n, T m, double *a, double *dot)
{
    double sa[LF_LANES] = {0}, sd[LF_LANES] = {0};
    T px[LF_LANES], pu[LF_LANES], ud[LF_LANES];
    for (ptrdiff_t i = 0; i < n; i += LF_LANES) {
        const T *xx = x + i, *uu = u + i;
        if (n - i < LF_LANES) {
            for (int l = 0; l < LF_LANES; l++)
                px[l] = l < n - i ? xx[l] : 0, pu[l] = l < n - i ? uu[l] : 0;
            xx = px, uu = pu;
        }
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++) {
            const T d = xx[l] == -INFINITY ? INFINITY : m - xx[l];
            sa[l] += uu[l];
            ud[l] = uu[l] == 0 ? 0 : uu[l] * d;
        }
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++)
            sd[l] += ud[l];
    }
    *a += lf_lane_sum(sa);
    *dot += lf_lane_sum(sd);
}

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

/* Classes from .. to of positions first .. first + n: tile[(c - from) * ld + i], then zeros for the lanes of no position. */
LF_CALLED NAME(tile_in)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t first, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to,
                        T *tile, ptrdiff_t ld)
{
    const ptrdiff_t step = a->stride[j->ndim - 1], rest = -n & (LF_GROUP - 1);
    for (LfRuns w = lf_runs(j, a, first, n); w.n; lf_next_run(j, a, &w)) {
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
    const ptrdiff_t step = a->stride[j->ndim - 1];
    for (LfRuns w = lf_runs(j, a, first, n); w.n; lf_next_run(j, a, &w)) {
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

/* While one strip is worked on, classes of the next one come in. */
static void NAME(strip_fetch)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride, ptrdiff_t first, ptrdiff_t n, ptrdiff_t from,
                              ptrdiff_t to)
{
    for (LfRuns w = lf_runs(j, a, first, n); w.n; lf_next_run(j, a, &w))
        for (ptrdiff_t c = from; c < to; c++)
            lf_prefetch(a->data + w.off + c * stride[0], w.n * lf_itemsize(a->dtype));
}

/* Where rows follow one another, the next ones come in, and the lines that they are going to be written to: 1.3 times the speed of a gradient of
 * 65536 rows of ten that is not in the cache. */
static void NAME(rows_fetch)(const LfRowJob *j, const LfArray *a, ptrdiff_t first, ptrdiff_t n)
{
    const ptrdiff_t step = a->stride[j->ndim - 1];
    if (step == j->c * lf_itemsize(a->dtype) && !j->stream)
        for (LfRuns w = lf_runs(j, a, first, n); w.n; lf_next_run(j, a, &w))
            lf_prefetch(a->data + w.off, w.n * step);
}

/* Are the positions of an array nearer to one another than its classes? */
static int NAME(planes)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride)
{
    return j->cdim == 1 && j->n > 1 && lf_distance(a->stride[j->ndim - 1]) <= lf_distance(stride[0]);
}

static int NAME(strip_fits)(const LfRowJob *j, const LfArray *a, const ptrdiff_t *stride)
{
    return a->data && j->c > 0 && j->c <= LF_SMALL_C && NAME(planes)(j, a, stride);
}

/* Labels and masks: which rows count, and with what weight. Returns the first position whose label is out of range, or -1. */
static ptrdiff_t NAME(rows_labels)(const LfRowJob *j, NAME(Rows) * r)
{
    const T *w = j->weight;
    const int indices = j->op == LF_CE_INDEX || j->op == LF_NLL;
    const uint64_t classes = indices ? (uint64_t)j->c : 1;
    const int64_t ignored = indices ? j->ignore_index : -1; /* also what is masked, and lanes of no row */
    int64_t y[LF_W], any = 0;
    ptrdiff_t bad = 0;
    for (ptrdiff_t l = 0; l < LF_W; l++)
        y[l] = l < r->n ? 0 : ignored;
    if (indices)
        for (LfRuns v = lf_runs(j, &j->t, r->first, r->n); v.n; lf_next_run(j, &j->t, &v)) {
            const ptrdiff_t step = j->t.stride[j->ndim - 1];
            lf_load_labels(y + v.at, j->t.data + v.off, j->t.dtype, step, v.n);
            if (step == lf_itemsize(j->t.dtype)) /* ahead by two tiles: 3 % of a loss over planes of classes */
                lf_prefetch(j->t.data + v.off + 2 * LF_W * step, v.n * step);
        }
    if (j->where.data)
        for (LfRuns v = lf_runs(j, &j->where, r->first, r->n); v.n; lf_next_run(j, &j->where, &v))
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
    if (!any)
        return -1;
    while (y[bad] == ignored || (uint64_t)y[bad] < classes)
        bad++;
    return r->first + bad;
}

/* The target masses of a run, where they are not just one class: u = w t' with t' = t (1 - smoothing) + smoothing / C; for indices t = 0, the
 * label's own part is added by rows_finish. For the gradient of log_softmax u is the upstream gradient. */
static int NAME(row_spread)(const LfRowJob *j)
{
    return j->op == LF_CE_PROB || (j->op == LF_CE_INDEX && j->smoothing != 0) || (j->t.data && j->op == LF_LOG_SOFTMAX);
}

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

/* ---- first pass: maximum, S, reference, masses ---------------------------------------------------------------------------------------- */

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

static inline ptrdiff_t NAME(piece_end)(const LfRowJob *j, ptrdiff_t from) { return j->c - from < LF_PIECE ? j->c : from + LF_PIECE; }

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
    const int spread = NAME(row_spread)(j);
    const ptrdiff_t ahead = NAME(row_ahead)(j);
    T buf[LF_RUN], tbuf[LF_RUN], m = r->m[l], top = NAME(row_far)(m) ? 0 : m;
    uint16_t words[LF_RUN];
    double s = 0, count = 0, mass = 0, dot = 0;
    NAME(Ref) ref = {.magic = r->magic[l], .floor = r->floor[l], .f = r->f[l]};
    for (ptrdiff_t c = from, end = NAME(piece_end)(j, from); c < end; c += LF_RUN) {
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
        s += ref.f * NAME(run_sum)(x, n, dtype, ahead, ref, here.max == m, top, here, &count, NULL);
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

/* Rows of one run, a group at a time. The exponentials are left in e, `pitch` apart, unless it is NULL. */
static void NAME(group_rows)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at, T *e, ptrdiff_t pitch)
{
    const int spread = NAME(row_spread)(j), index = j->op == LF_CE_INDEX;
    const ptrdiff_t end = r->n - at < LF_GROUP ? r->n : at + LF_GROUP, ahead = NAME(row_ahead)(j);
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
        const double s = NAME(run_sum)(x, j->c, dtype, ahead, ref, 1, r->top[l], (NAME(Extent)){0, ~(U)0}, &count, e ? e + l * pitch : NULL);
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

static void NAME(tile_ref)(T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Rows) * r, ptrdiff_t at)
{
    NAME(tile_top)(x, ld, classes, r->m + at);
    NAME(group_ref)(r, at);
    NAME(tile_shift)(x, ld, classes, r->m + at);
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
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(tile_ref)(x + at, ld, j->c, r, at);
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP) {
        if (e)
            NAME(group_stats)(x + at, ld, j->c, r, at, e + at);
        else
            NAME(group_stats)(x + at, ld, j->c, r, at, NULL);
        if (u)
            NAME(group_dot)(x + at, ld, u + at, j->c, r, at);
    }
    for (ptrdiff_t at = 0; index && at < r->n; at += LF_GROUP)
        NAME(group_own)(x + at, ld, j->c, r, at);
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
 * so a confident prediction's loss has 1 + gamma times that of cross entropy: of gamma = 2 up to 6 ulp were seen in 10^6 rows, 0.2 to 0.7 on
 * average. */
static void NAME(group_focus)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at)
{
    double q[LF_GROUP], nll[LF_GROUP];
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const double s = r->s[at + l], share = 1 / (1 + s), top = r->top[at + l], xt = r->xt[at + l];
        const double rest = s * share, others = 1 - r->et[at + l] * r->f[at + l] * share;
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

/* ---- between the passes: losses and coefficients, in double, LF_GROUP rows at a time ----------------------------------------------------- */

/* loss = dot + mass delta for all: of a plain logsumexp, m + delta. */
static void NAME(group_finish)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at)
{
    const int index = j->op == LF_CE_INDEX, spread = NAME(row_spread)(j);
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
    for (ptrdiff_t c = 0; NAME(row_spread)(j) && c < j->c; c += LF_RUN) {
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
    const int ce = j->op == LF_CE_INDEX || j->op == LF_CE_PROB;
#pragma omp simd reduction(+ : none)
    for (ptrdiff_t l = 0; l < r->n; l++)
        none += 0 * r->dot[l];
    for (ptrdiff_t l = 0; ce && r->from == 0 && none != 0 && l < r->n; l++)
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

static void NAME(rows_coefficients)(const LfRowJob *j, NAME(Rows) * r)
{
    for (int l = 0; l < LF_W; l++)
        r->k[l] = 1;
    if (j->upstream.data)
        for (LfRuns w = lf_runs(j, &j->upstream, r->first, r->n); w.n; lf_next_run(j, &j->upstream, &w))
            NAME(lf_load)(r->k + w.at, j->upstream.data + w.off, j->upstream.dtype, j->upstream.stride[j->ndim - 1], w.n);
    for (ptrdiff_t l = 0; j->op == LF_LOGSUMEXP && l < r->n; l++)
        r->label[l] = r->loss[l] == -INFINITY ? -1 : r->label[l]; /* constant: no gradient */
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(group_coefficients)(j, r, at);
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

/* Second pass over a tile: x the logits, e their exponentials, u the masses or upstream gradient. The output for `stays` replaces x. */
static void NAME(tile_emit)(const LfRowJob *j, NAME(Rows) * r, T *x, ptrdiff_t ld, const LfArray *stays, const T *e, const T *u)
{
    T tile[LF_SMALL_C * LF_W], *o = stays == &j->out ? x : tile;
    const T *w = j->weight;
    const ptrdiff_t n = (r->n + LF_GROUP - 1) / LF_GROUP * LF_GROUP;
    ptrdiff_t lo = o == x ? ld : LF_W;
    if (j->out.data && (j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX)) {
        T most[LF_W];
        for (ptrdiff_t l = 0; l < n; l++)
            most[l] = (T)(1 - r->qd[l]);
        for (ptrdiff_t c = 0; c < j->c; c++)
            if (j->op == LF_SOFTMAX)
                NAME(emit_softmax)(o + c * lo, x + c * ld, e + c * LF_W, n, r->top, most, r->pf);
            else
                NAME(emit_log_softmax)(o + c * lo, x + c * ld, n, r->top, r->tdelta, 1);
        if (o == tile)
            NAME(tile_out)(j, &j->out, j->oc, r->first, r->n, 0, j->c, o, LF_W);
    }
    if (j->gt.data) {
        const T keep = (T)(1 - j->smoothing);
        T k[LF_W];
        for (ptrdiff_t l = 0; l < n; l++)
            k[l] = keep * r->k[l];
        for (ptrdiff_t c = 0; c < j->c; c++)
            NAME(emit_target_grad)(tile + c * LF_W, x + c * ld, n, r->top, r->tdelta, k, w ? w + c : NULL, 1);
        NAME(tile_out)(j, &j->gt, j->gtc, r->first, r->n, 0, j->c, tile, LF_W);
    }
    if (!j->gx.data)
        return;
    o = stays == &j->gx ? x : tile;
    lo = o == x ? ld : LF_W;
    if (j->op == LF_SOFTMAX) {
        T dot[LF_W] = {0};
        for (ptrdiff_t c = 0; c < j->c; c++)
            for (ptrdiff_t l = 0; l < n; l++)
                dot[l] += u[c * LF_W + l] * (e[c * LF_W + l] * r->pf[l]);
        for (ptrdiff_t c = 0; c < j->c; c++)
            NAME(emit_softmax_grad)(o + c * lo, e + c * LF_W, u + c * LF_W, n, r->pf, dot, 1);
    } else if (u)
        for (ptrdiff_t c = 0; c < j->c; c++)
            NAME(emit_grad_spread)(o + c * lo, x + c * ld, e + c * LF_W, u + c * LF_W, n, r, 0, r->pf, 1);
    else
        NAME(tile_grad)(o, lo, e, j->c, r);
    for (ptrdiff_t l = 0; u && j->op == LF_CE_INDEX && l < r->n; l++)
        o[(r->label[l] & ~(r->label[l] >> 63)) * lo + l] = r->patch[l];
    int64_t skipped = 0;
    for (ptrdiff_t l = 0; l < r->n; l++)
        skipped |= r->label[l];
    for (ptrdiff_t l = 0; skipped < 0 && l < r->n; l++)
        for (ptrdiff_t c = 0; r->label[l] < 0 && c < j->c; c++)
            o[c * lo + l] = 0;
    if (o == tile)
        NAME(tile_out)(j, &j->gx, j->gxc, r->first, r->n, 0, j->c, o, LF_W);
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

/* The array that the second pass writes, if it is but one, of rows that follow one another and cannot or should not be written where they lie: they
 * are left where the exponentials were, and written as one run. */
static const LfArray *NAME(rows_whole)(const LfRowJob *j)
{
    const LfArray *out = j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX ? &j->out : NULL, *a = j->gx.data ? &j->gx : out;
    if (!a || (j->gx.data && out && out->data) || j->gt.data || j->cdim > 1 || (!j->stream && a->dtype == T_CODE))
        return NULL;
    const ptrdiff_t item = lf_itemsize(a->dtype), stride = a == out ? j->oc[0] : j->gxc[0];
    return stride == item && a->stride[j->ndim - 1] == j->c * item ? a : NULL;
}

/* Second pass over a row that the first has left in the second-level cache, with the exponentials kept or taken again: keeping those of rows of
 * more than a run was slower, by up to 1.4 at 32000 classes. */
static void NAME(row_emit)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t l, T *kept, int whole)
{
    const int spread = NAME(row_spread)(j), reads = !kept || spread || j->op == LF_LOG_SOFTMAX || j->gt.data;
    const T *w = j->weight, magic = r->magic[l], floor = r->floor[l], k = (T)(1 - j->smoothing) * r->k[l];
    T buf[LF_RUN], ubuf[LF_RUN], ebuf[LF_RUN], obuf[LF_RUN], dot = 0, *o;
    const T *e = kept ? kept : ebuf;
    const T pf = r->pf[l];
    double sum = 0;
    for (int pass = j->op == LF_SOFTMAX && j->gx.data ? 0 : 1; pass < 2; pass++)
        for (ptrdiff_t c = r->from; c < r->to; c += LF_RUN) {
            const ptrdiff_t n = r->to - c < LF_RUN ? r->to - c : LF_RUN;
            const T *x = reads ? NAME(row_logits)(j, r, l, c, n, r->m[l], buf) : NULL, *u = NULL;
            if (j->gx.data && spread)
                u = NAME(row_masses)(j, r, l, c, n, ubuf);
            else if (j->gx.data && j->op == LF_SOFTMAX)
                u = NAME(row_in)(j, &j->t, j->tc, r->off_t[l], c, n, ubuf);
            if (u && !kept)
                NAME(emit_scaled)(ebuf, x, NULL, n, magic, floor, 1, 1);
            if (pass == 0) {
                for (ptrdiff_t i = 0; i < n; i++)
                    obuf[i] = e[i] * pf * u[i];
                sum += NAME(run_total)(obuf, n);
                dot = (T)sum;
                continue;
            }
            if (j->out.data && (j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX)) {
                o = whole ? kept : NAME(row_out)(j, &j->out, j->oc, r->off_out[l], c, obuf);
                if (j->op == LF_SOFTMAX) {
                    NAME(emit_scaled)(o, x, kept, n, magic, floor, pf, 1);
                    for (ptrdiff_t i = 0; r->q[l] < T_EPS / 4 && i < n; i++) /* what is 1 but for rounding */
                        o[i] = o[i] > (T)0.5 ? 1 : o[i];
                } else
                    NAME(emit_log_softmax)(o, x, n, &r->top[l], &r->tdelta[l], 0);
                NAME(row_put)(j, &j->out, j->oc, r->off_out[l], c, n, o, obuf);
            }
            if (j->gt.data) {
                o = NAME(row_out)(j, &j->gt, j->gtc, r->off_gt[l], c, obuf);
                NAME(emit_target_grad)(o, x, n, &r->top[l], &r->tdelta[l], &k, w ? w + c : NULL, 0);
                NAME(row_put)(j, &j->gt, j->gtc, r->off_gt[l], c, n, o, obuf);
            }
            if (j->gx.data) {
                o = whole ? kept : NAME(row_out)(j, &j->gx, j->gxc, r->off_gx[l], c, obuf);
                const int64_t y = j->op == LF_CE_INDEX ? r->label[l] - c : -1;
                if (r->label[l] < 0)
                    memset(o, 0, n * sizeof(T));
                else if (j->op == LF_SOFTMAX)
                    NAME(emit_softmax_grad)(o, e, u, n, &pf, &dot, 0);
                else if (u)
                    NAME(emit_grad_spread)(o, x, e, u, n, r, l, &pf, 0);
                else
                    NAME(emit_scaled)(o, x, kept, n, magic, floor, pf, r->kmass[l]);
                if (y >= 0 && y < n)
                    o[y] = r->patch[l];
                NAME(row_put)(j, &j->gx, j->gxc, r->off_gx[l], c, n, o, obuf);
            }
        }
}

/* Derivative of the unscaled sum by the class weights: sum over rows of k t'_c (-log p_c), and the counts of labels in the mean's denominator. */
static void NAME(rows_weight_grad)(const LfRowJob *j, const NAME(Rows) * r, double *gw, double *gw_mass)
{
    T buf[LF_RUN], t[LF_RUN];
    const double keep = 1 - j->smoothing, even = j->smoothing / (double)j->c;
    for (ptrdiff_t l = 0; l < r->n; l++) {
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

/* ---- blocks ---------------------------------------------------------------------------------------------------------------------------- */

/* Where long rows lie; small ones are moved a tile at a time. */
static void NAME(rows_open)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t first, ptrdiff_t n)
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

static void NAME(rows_out)(const LfRowJob *j, const NAME(Rows) * r)
{
    T v[LF_W];
    for (ptrdiff_t l = 0; l < r->n; l++)
        v[l] = (T)r->loss[l];
    for (LfRuns w = lf_runs(j, &j->out, r->first, r->n); w.n; lf_next_run(j, &j->out, &w))
        NAME(lf_store)(j->out.data + w.off, j->out.dtype, j->out.stride[j->ndim - 1], v + w.at, w.n, 0);
}

/* strip: small rows' logits, ld apart, in place of which the output for `stays` is left, or NULL; room: for LF_GROUP_ELEMENTS exponentials. */
static __attribute__((noinline)) void NAME(rows_work)(const LfRowJob *j, NAME(Rows) * r, T *strip, ptrdiff_t ld, const LfArray *stays, T *room,
                                                      double *gw, double *gw_mass)
{
    const int second = j->gx.data || j->gt.data || gw || j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX;
    if (j->c <= LF_SMALL_C) {
        T tile[LF_SMALL_C * LF_W], e[LF_SMALL_C * LF_W], u[LF_SMALL_C * LF_W], *x = strip ? strip : tile;
        const int spread = NAME(row_spread)(j), upstream = j->op == LF_SOFTMAX && j->gx.data;
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
            if (gw)
                NAME(rows_weight_grad)(j, r, gw, gw_mass);
            NAME(tile_emit)(j, r, x, ld, stays, e, spread || upstream ? u : NULL);
        }
    } else {
        const ptrdiff_t keep = second && j->c <= LF_RUN ? j->c : 0;
        for (ptrdiff_t at = 0; j->c <= LF_RUN && at < r->n; at += LF_GROUP)
            NAME(group_rows)(j, r, at, keep ? room : NULL, keep);
        if (j->c > LF_RUN)
            NAME(row_first)(j, r, 0, 0);
        for (ptrdiff_t l = 0; j->c > LF_RUN && l < r->n; l++) {
            if (l + 1 < r->n)
                NAME(row_first)(j, r, l + 1, 0);
            NAME(row_stats)(j, r, l);
        }
        NAME(rows_finish)(j, r);
        NAME(rows_near)(j, r);
        if (second) {
            NAME(rows_coefficients)(j, r);
            if (gw)
                NAME(rows_weight_grad)(j, r, gw, gw_mass);
            const LfArray *whole = keep ? NAME(rows_whole)(j) : NULL;
            for (ptrdiff_t l = 0; l < r->n; l++)
                NAME(row_emit)(j, r, l, keep ? room + l * keep : NULL, whole != NULL);
            if (whole)
                for (LfRuns w = lf_runs(j, whole, r->first, r->n); w.n; lf_next_run(j, whole, &w))
                    NAME(lf_store)(whole->data + w.off, whole->dtype, lf_itemsize(whole->dtype), room + w.at * keep, w.n * keep, j->stream);
        }
    }
    if (j->out.data && r->from == 0 && j->op != LF_SOFTMAX && j->op != LF_LOG_SOFTMAX)
        NAME(rows_out)(j, r);
}

#define T_ROOM (LF_ROOM / (ptrdiff_t)sizeof(T))

#include "planes.h"

/* Those of x, t, out, gx and gt that are packed, since their classes do not follow one another, by bits. */
static int NAME(rows_apart)(const LfRowJob *j)
{
    const int whole = j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX, spread = whole || j->op == LF_CE_PROB;
    const LfArray *const array[] = {&j->x, &j->t, &j->out, &j->gx, &j->gt};
    const ptrdiff_t *const stride[] = {j->xc, j->tc, j->oc, j->gxc, j->gtc};
    const int rows[] = {1, spread, whole, 1, 1};
    int apart = 0;
    for (int k = 0; k < 5; k++)
        if (rows[k] && array[k]->data && (j->cdim > 1 || stride[k][0] != lf_itemsize(array[k]->dtype)))
            apart |= 1 << k;
    return apart;
}

/* Rows in hand, from where they lie to packed ones of a dtype, or back. */
LF_CALLED NAME(rows_pack)(const LfRowJob *j, const NAME(Rows) * r, const LfArray *a, const ptrdiff_t *stride, char *packed, int dtype, int back)
{
    const ptrdiff_t item = lf_itemsize(dtype), length = j->c * item, step = a->stride[j->ndim - 1];
    T part[LF_SMALL_C * LF_W];
    for (LfRuns w = lf_runs(j, a, r->first, r->n); w.n; lf_next_run(j, a, &w)) {
        const int tiles = w.n >= 4 && NAME(planes)(j, a, stride);
        const ptrdiff_t rows = tiles ? w.n : 1, width = tiles ? LF_SMALL_C : LF_SMALL_C * LF_W;
        for (ptrdiff_t l = 0; l < w.n; l += rows)
            for (ptrdiff_t c = 0; c < j->c; c += width) {
                const ptrdiff_t n = j->c - c < width ? j->c - c : width, off = w.off + l * step;
                char *p = packed + (w.at + l) * length + c * item, *q = a->data + off + c * stride[0];
                if (tiles && back) {
                    NAME(lf_load_tile)(part, LF_W, p, dtype, length, item, rows, n);
                    NAME(lf_store_tile)(q, a->dtype, step, stride[0], part, LF_W, rows, n, j->stream);
                } else if (tiles) {
                    NAME(lf_load_tile)(part, LF_W, q, a->dtype, step, stride[0], rows, n);
                    NAME(lf_store_tile)(p, dtype, length, item, part, LF_W, rows, n, 0);
                } else if (back) {
                    NAME(lf_load)(part, p, dtype, item, n);
                    NAME(row_move)(j, a, stride, off, c, n, part, 1);
                } else {
                    NAME(row_move)(j, a, stride, off, c, n, part, 0);
                    NAME(lf_store)(p, dtype, item, part, n, 0);
                }
            }
    }
}

/* rows_work on packed copies of the arrays whose classes do not follow one another: read as they lie, each line of the cache would be fetched for each
 * of the rows that share it, and for each pass: 7 times as slow over planes of 100 classes. */
LF_CALLED NAME(rows_work_apart)(const LfRowJob *j, NAME(Rows) * r, int apart, ptrdiff_t part, T *room, double *gw, double *gw_mass)
{
    LfRowJob near = *j;
    const LfArray *from[] = {&j->x, &j->t, &j->out, &j->gx, &j->gt};
    LfArray *to[] = {&near.x, &near.t, &near.out, &near.gx, &near.gt};
    const ptrdiff_t *stride[] = {j->xc, j->tc, j->oc, j->gxc, j->gtc};
    ptrdiff_t *step[] = {near.xc, near.tc, near.oc, near.gxc, near.gtc};
    ptrdiff_t *off[] = {r->off_x, r->off_t, r->off_out, r->off_gx, r->off_gt};
    T *packed = room + T_ROOM;
    near.cdim = 1, near.cshape[0] = j->c, near.stream = 0;
    for (int k = 0; k < 5; k++) {
        if (!(apart >> k & 1))
            continue;
        packed -= part;
        to[k]->data = (char *)packed, to[k]->dtype = from[k]->dtype <= T_CODE ? from[k]->dtype : T_CODE; /* of at most a T's size */
        step[k][0] = lf_itemsize(to[k]->dtype);
        to[k]->stride[j->ndim - 1] = 0; /* where a packed row lies is in off alone */
        for (ptrdiff_t l = 0; l < r->n; l++)
            off[k][l] = l * j->c * step[k][0];
        if (k < 2)
            NAME(rows_pack)(j, r, from[k], stride[k], to[k]->data, to[k]->dtype, 0);
    }
    NAME(rows_work)(&near, r, NULL, 0, NULL, room, gw, gw_mass);
    for (int k = 2; k < 5; k++)
        if (apart >> k & 1)
            NAME(rows_pack)(j, r, from[k], stride[k], to[k]->data, to[k]->dtype, 1);
}

/* Zero rows of the gradient, whose classes are one dimension. */
static void NAME(rows_clear)(const LfRowJob *j, ptrdiff_t first, ptrdiff_t rows)
{
    static const T zero[LF_RUN];
    const ptrdiff_t item = lf_itemsize(j->gx.dtype), step = j->gx.stride[j->ndim - 1], class = j->gxc[0];
    const int across = NAME(planes)(j, &j->gx, j->gxc);
    for (LfRuns w = lf_runs(j, &j->gx, first, rows); w.n; lf_next_run(j, &j->gx, &w)) {
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
static void NAME(nll_work)(const LfRowJob *j, NAME(Rows) * r, double *gw, double *gw_mass)
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
    if (j->out.data)
        NAME(rows_out)(j, r);
    if (!j->gx.data && !gw)
        return;
    if (j->gx.data == j->x.data) /* in place: not before it is read */
        NAME(rows_clear)(j, r->first, r->n);
    NAME(rows_coefficients)(j, r);
    for (ptrdiff_t l = 0; l < r->n; l++) {
        const int64_t y = r->label[l];
        const T g = (T)(-r->kd[l] * r->wt[l]);
        if (y >= 0 && gw)
            gw_mass[y] += 1, gw[y] -= r->kd[l] * (double)x[l];
        if (y >= 0 && j->gx.data)
            j->gx.dtype == T_CODE ? (void)memcpy(j->gx.data + r->off_gx[l] + y * j->gxc[0], &g, sizeof g)
                                  : NAME(lf_store)(j->gx.data + r->off_gx[l] + y * j->gxc[0], j->gx.dtype, 1, &g, 1, 0);
    }
}

/* Adds losses and masses, each in the lane of its place in the block, in an order that does not depend on how rows are grouped. */
static inline void NAME(rows_add)(const NAME(Rows) * r, ptrdiff_t at, double *sum, double *mass)
{
    if (at % LF_LANES == 0) {
        for (int l = 0; l < LF_W; l += LF_LANES)
#pragma omp simd
            for (int k = 0; k < LF_LANES; k++)
                sum[k] += r->loss[l + k], mass[k] += r->wt[l + k];
    } else
        for (ptrdiff_t l = 0; l < r->n; l++)
            sum[(at + l) % LF_LANES] += r->loss[l], mass[(at + l) % LF_LANES] += r->wt[l];
}

static void NAME(row_block)(const LfRowJob *j, ptrdiff_t block)
{
    const ptrdiff_t pieces = j->cut ? (j->c + LF_PIECE - 1) / LF_PIECE : 1, b = block / pieces, from = block % pieces * LF_PIECE;
    const ptrdiff_t start = b * j->rows, end = j->n - start < j->rows ? j->n : start + j->rows;
    T room[T_ROOM];
    /* rows of one group stay in the second-level cache between the passes; what is packed, and exponentials that are kept, share the room */
    const int small = j->c <= LF_SMALL_C || j->op == LF_NLL, packed = small ? 0 : NAME(rows_apart)(j);
    const ptrdiff_t share = (T_ROOM - LF_W * LF_LANES) / ((j->c <= LF_RUN) + __builtin_popcount(packed) + !packed);
    const ptrdiff_t part = share < LF_GROUP_ELEMENTS ? share : LF_GROUP_ELEMENTS;
    const int apart = packed && packed != 1 << 1 && j->c <= part ? packed : 0; /* labels' probabilities alone are not worth it */
    const ptrdiff_t planes = NAME(planes_of)(j, room).width, fit = small ? LF_W : planes ? planes : (apart ? part : LF_GROUP_ELEMENTS) / j->c;
    const ptrdiff_t group = fit < 1 ? 1 : fit < LF_W ? fit : LF_W;
    const int strips = j->op != LF_NLL && NAME(strip_fits)(j, &j->x, j->xc);
    const ptrdiff_t width = strips ? LF_GROUP_ELEMENTS / 2 / j->c / LF_W * LF_W : LF_W, ld = strips ? width + LF_GROUP : LF_W;
    const LfArray *last = j->gx.data ? &j->gx : j->op == LF_SOFTMAX || j->op == LF_LOG_SOFTMAX ? &j->out : NULL;
    const ptrdiff_t *stride = j->gx.data ? j->gxc : j->oc;
    const LfArray *stays = strips && last && NAME(strip_fits)(j, last, stride) ? last : NULL;
    double sum[LF_LANES] = {0}, mass[LF_LANES] = {0}, *gw = j->gw ? j->gw + b / j->share * j->c : NULL,
           *gw_mass = j->gw ? j->gw_mass + b / j->share * j->c : NULL;
    ptrdiff_t bad = -1;
    if (j->op == LF_NLL && j->gx.data && j->gx.data != j->x.data)
        NAME(rows_clear)(j, start, end - start);
    for (ptrdiff_t i = start; i < end; i += group) {
        NAME(Rows) r;
        const ptrdiff_t at = (i - start) % width, next = i - at + width, n = strips && next < end ? (end - next < width ? end - next : width) : 0;
        const ptrdiff_t in = j->c * at / width, ends = j->c * (at + group) / width;
        T *strip = room + (next - start) / width % 2 * j->c * ld, *other = room + (i - at - start) / width % 2 * j->c * ld;
        if (strips && i == start)
            for (ptrdiff_t c = 0, w = end - start < width ? end - start : width; c < j->c; c++) {
                if (c + 1 < j->c)
                    NAME(strip_fetch)(j, &j->x, j->xc, start, w, c + 1, c + 2);
                NAME(tile_in)(j, &j->x, j->xc, start, w, c, c + 1, strip + c * ld, ld);
            }
        if (n > 0)
            NAME(strip_fetch)(j, &j->x, j->xc, next, n, in, ends);
        if (last && !strips && j->c <= LF_SMALL_C && i + group < end) {
            const ptrdiff_t rows = end - i - group < group ? end - i - group : group;
            NAME(rows_fetch)(j, &j->x, i + group, rows);
            NAME(rows_fetch)(j, last, i + group, rows);
        }
        NAME(rows_open)(j, &r, i, end - i < group ? end - i : group);
        if (j->cut)
            r.from = from, r.to = NAME(piece_end)(j, from);
        const ptrdiff_t first_bad = NAME(rows_labels)(j, &r);
        bad = bad < 0 ? first_bad : bad;
        if (j->op == LF_NLL)
            NAME(nll_work)(j, &r, gw, gw_mass);
        else if (apart || planes) {
            const ptrdiff_t rows = end - i - group < group ? end - i - group : group;
            if (rows > 0 && j->c <= LF_RUN && NAME(planes)(j, &j->x, j->xc))
                NAME(strip_fetch)(j, &j->x, j->xc, i + group, rows, 0, j->c);
            if (last && j->c <= LF_RUN && !j->stream && NAME(planes)(j, last, stride))
                NAME(strip_fetch)(j, last, stride, i, r.n, 0, j->c);
            if (planes)
                NAME(planes_work)(j, &r, room);
            else
                NAME(rows_work_apart)(j, &r, apart, part, room, gw, gw_mass);
        } else
            NAME(rows_work)(j, &r, strips ? strip + at : NULL, ld, stays, room, gw, gw_mass);
        if (n > 0)
            NAME(tile_in)(j, &j->x, j->xc, next, n, in, ends, other + in * ld, ld);
        NAME(rows_add)(&r, i - start, sum, mass);
        if (stays && (at + group == width || i + group >= end))
            NAME(tile_out)(j, stays, stride, i - at, at + r.n, 0, j->c, strip, ld);
    }
    if (j->stream)
        lf_store_fence();
    if (from)
        return;
    j->sum[b] = lf_lane_sum(sum), j->mass[b] = lf_lane_sum(mass);
    j->bad[b] = bad;
}

static void NAME(row_alone)(const LfRowJob *j, ptrdiff_t i)
{
    const ptrdiff_t pieces = (j->c + LF_PIECE - 1) / LF_PIECE, from = i % pieces * LF_PIECE;
    NAME(Rows) r;
    NAME(rows_open)(j, &r, i / pieces, 1);
    NAME(row_first)(j, &r, 0, from);
    j->piece[i] = NAME(row_piece)(j, &r, 0, from);
}

static void NAME(label_block)(const LfRowJob *j, ptrdiff_t b)
{
    const ptrdiff_t start = b * j->rows, end = j->n - start < j->rows ? j->n : start + j->rows;
    double mass[LF_LANES] = {0};
    ptrdiff_t bad = -1;
    for (ptrdiff_t i = start; i < end; i += LF_W) {
        NAME(Rows) r;
        r.first = i, r.n = end - i < LF_W ? end - i : LF_W;
        const ptrdiff_t first_bad = NAME(rows_labels)(j, &r);
        bad = bad < 0 ? first_bad : bad;
        for (int l = 0; l < LF_W; l += LF_LANES)
#pragma omp simd
            for (int k = 0; k < LF_LANES; k++)
                mass[k] += r.wt[l + k];
    }
    j->mass[b] = lf_lane_sum(mass);
    j->bad[b] = bad;
}
#undef T_ROOM
