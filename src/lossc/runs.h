/* Exponentials and their sums over a run of classes of a row, or of LF_GROUP rows side by side. Part of rows.h; ctc.c takes it by itself.
 *
 * Exponentials are taken of x itself, not of the rounded difference x - m: exp(x) 2^(SHIFT - N) = 2^(n - N + SHIFT) exp(r) with
 * N = round(m log2 e), so that r is exact to the last bit (a float difference near -20 is off by 1e-6, 8 ulp of the result). Terms down to
 * 2^-(SHIFT + 126) of the largest count, smaller ones are 0; scaled terms are never subnormal but within 1 % of that border.
 * Far rows, |m| > T_FAR or infinite, are shifted by m first, maxima to 0: there x - m is exact for every term that counts (Sterbenz), and the
 * limits come out: one +inf takes all the probability.
 *
 * Order: two terms (long float rows on AVX-512: four) are added in T, then everything in double, in an order fixed by the number of classes. Rows
 * side by side have the bits of rows one by one.
 *
 * Fine: for a loss that takes powers of S every term is added in double, with what rounding drops from e, for 1.2 to 1.6 times the time. The e that
 * are kept are the same. */

#undef T_FAR
#undef T_SHIFT
#undef T_UNSHIFT
#ifdef LF_T_FLOAT
#define T_FAR 220.0f
#define T_SHIFT 64
#define T_UNSHIFT 0x1p-64
#else
#define T_FAR 1024.0
#define T_SHIFT 512
#define T_UNSHIFT 0x1p-512
#endif

#undef LF_FINE
#undef LF_HAS_FINE
#define LF_FINE 2 /* a value of run_sum's `masked` */
#define LF_HAS_FINE (T_MANT == 23)

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

/* e(x), to the bit, and what rounding drops from it: both together within 2^-26.0, at -0x1.79086ep+2 | 2^-25.8 without FMA, at -0x1.a56bap+2. */
static inline NAME(LfPair) NAME(row_exp_pair)(T x, T magic, T floor)
{
    x = floor > x ? floor : x;
    const T t = x * T_LOG2E + magic, n = t - magic, a = x - n * T_LN2_HI, r = a - n * T_LN2_LO, rlo = (a - r) - n * T_LN2_LO;
    const T scale = REAL(BITS(t) << T_MANT), tail = NAME(lf_exp_tail)(r), p = r + tail, hi = scale + scale * p;
    return (NAME(LfPair)){hi, ((scale - hi) + scale * p) + scale * (((r - p) + tail) + rlo)};
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

/* Of a run: the maximum; and, on AVX-512 where all is wanted, the largest bits in its whole vectors: of the least element, if any is negative, or
 * of a NaN. A maximum below `above` need only come out as less. */
typedef struct {
    T max;
    U low;
} NAME(Extent);

/* The references of LF_GROUP rows side by side; top: the maximum as the exponentials see it, 0 of a far row. */
typedef struct {
    const T *m, *top, *magic, *floor;
    const double *f;
} NAME(Refs);

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

/* Two times LF_GROUP terms of fine sums; other: how many are not the maximum. `step` is 1 across a tile and 0 along a row. */
static inline __attribute__((always_inline)) void NAME(fine_step)(const T *v, const T *w, const T *top, const T *magic, const T *floor, int step,
                                                                  double *s, COUNT *other, T *ev, T *ew)
{
    T y[LF_GROUP], z[LF_GROUP], low[LF_GROUP];
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++) {
        const T m = top[step * l], a = magic[step * l], b = floor[step * l];
        const NAME(LfPair) p = NAME(row_exp_pair)(v[l], a, b), q = NAME(row_exp_pair)(w[l], a, b);
        y[l] = NAME(row_other)(p.hi, v[l], m), z[l] = NAME(row_other)(q.hi, w[l], m);
        low[l] = NAME(row_other)(p.lo, v[l], m) + NAME(row_other)(q.lo, w[l], m);
        other[l] += NAME(row_counts)(v[l], m) + NAME(row_counts)(w[l], m);
        ev[l] = p.hi, ew[l] = q.hi;
    }
#pragma omp simd
    for (int l = 0; l < LF_GROUP; l++)
        s[l] += ((double)y[l] + (double)z[l]) + (double)low[l];
}

/* One step of a sum of exponentials: LF_LANES elements. */
static inline void NAME(run_step)(const T *x, ptrdiff_t ahead, NAME(Ref) ref, int masked, T m, double *acc, COUNT *other, T *keep)
{
    const T *b = x + LF_LANES / 2;
    T pair[LF_LANES / 2];
    for (ptrdiff_t i = 0; i < LF_LANES * (ptrdiff_t)sizeof(T); i += 64)
        __builtin_prefetch((const char *)x + ahead + i); /* of the next runs, or nothing */
    if (LF_HAS_FINE && masked == LF_FINE) {
        NAME(fine_step)(x, b, &m, &ref.magic, &ref.floor, 0, acc, other, keep, keep + LF_LANES / 2);
        return;
    }
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
static __attribute__((noinline)) void NAME(run_rest)(const T *x, ptrdiff_t n, NAME(Ref) ref, int masked, T m, double *acc, COUNT *other, T *keep)
{
    T pad[LF_LANES];
    for (int l = 0; l < LF_LANES; l++)
        pad[l] = l < n ? x[l] : -INFINITY;
    NAME(run_step)(pad, 0, ref, masked, m, acc, other, keep);
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
        NAME(run_rest)(x + i, n - i, ref, masked ? masked : 1, masked ? m : T_NAN, rest, rest_other, masked ? keep + i : spare);
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

/* Sum of e(x) over a run; with `masked`, elements equal to m are left out and counted, and all e are kept, up to a whole number of LF_LANES; with
 * LF_FINE the sum is fine. Else lanes l and l + LF_LANES / 2 are added in T, all besides in double: a sum in T of even 16 terms is off by up to 3 ulp,
 * of two by half of one. */
static __attribute__((noinline)) double NAME(run_sum)(const void *x, ptrdiff_t n, int dtype, ptrdiff_t ahead, NAME(Ref) ref, int masked, T m,
                                                      NAME(Extent) extent, double *count, T *keep)
{
    if (LF_HAS_FINE && masked == LF_FINE)
        return NAME(run_sum_of)(x, n, ahead, ref, LF_FINE, m, count, keep);
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

/* S of a group's rows of a tile; e, LF_W apart, keeps the exponentials where a second pass wants them. */
static inline void NAME(lf_group_stats)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Refs) ref, T *e, int fine, double *S)
{
    double s[LF_GROUP] = {0};
    T top[LF_GROUP], magic[LF_GROUP], floor[LF_GROUP], pair[LF_GROUP], nothing[LF_GROUP], spare[LF_GROUP];
    COUNT other[LF_GROUP] = {0};
    for (int l = 0; l < LF_GROUP; l++)
        nothing[l] = -INFINITY;
    memcpy(top, ref.top, sizeof top);
    memcpy(magic, ref.magic, sizeof magic);
    memcpy(floor, ref.floor, sizeof floor);
    for (ptrdiff_t c = 0; c < classes; c += 2) {
        const T *v = x + c * ld, *w = c + 1 < classes ? v + ld : nothing;
        T *ev = e ? e + c * LF_W : NULL, *ew = e && c + 1 < classes ? ev + LF_W : spare;
        if (fine) {
            NAME(fine_step)(v, w, top, magic, floor, 1, s, other, e ? ev : spare, ew);
            continue;
        }
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
    for (int l = 0; l < LF_GROUP; l++)
        S[l] = s[l] * ref.f[l] + (double)((COUNT)(classes + (classes & 1)) - other[l] - 1);
}

LF_CALLED NAME(group_stats_fine)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Refs) ref, T *e, double *S)
{
    NAME(lf_group_stats)(x, ld, classes, ref, e, 1, S);
}

static inline void NAME(group_stats)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Refs) ref, T *e, int fine, double *S)
{
    fine ? NAME(group_stats_fine)(x, ld, classes, ref, e, S) : NAME(lf_group_stats)(x, ld, classes, ref, e, 0, S);
}

/* run_sum of a run of a group's rows of a tile, to the bit, and how many elements are the maximum; e keeps the exponentials, or is NULL. `several`: of
 * rows of several runs. */
static inline void NAME(lf_group_sums)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Refs) ref, T *e, int fine, double *sum, double *ties)
{
    double part[5][LF_GROUP];
    T top[LF_GROUP], magic[LF_GROUP], floor[LF_GROUP], pair[LF_GROUP], nothing[LF_GROUP], spare[LF_GROUP];
    COUNT other[LF_GROUP] = {0};
    ptrdiff_t steps = 0;
    for (int l = 0; l < LF_GROUP; l++)
        nothing[l] = -INFINITY;
    memcpy(top, ref.top, sizeof top);
    memcpy(magic, ref.magic, sizeof magic);
    memcpy(floor, ref.floor, sizeof floor);
    for (int b = 0, k = 0; b < LF_LANES / 2; b++, k = 0) {
        double s[LF_GROUP] = {0};
        for (ptrdiff_t c = lf_tree_lane(b); c < classes; c += LF_LANES, steps += 2) {
            const ptrdiff_t d = c + LF_LANES / 2;
            const T *v = x + c * ld, *w = d < classes ? x + d * ld : nothing;
            T *ev = e ? e + c * ld : spare, *ew = e && d < classes ? e + d * ld : spare;
            if (fine) {
                NAME(fine_step)(v, w, top, magic, floor, 1, s, other, ev, ew);
                continue;
            }
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

static void NAME(group_sums)(const T *x, ptrdiff_t ld, ptrdiff_t classes, NAME(Refs) ref, T *e, int dtype, int several, int fine, double *sum,
                             double *ties)
{
    if (LF_HAS_FINE && fine)
        NAME(lf_group_sums)(x, ld, classes, ref, e, 1, sum, ties);
    else
        NAME(lf_group_sums)(x, ld, classes, ref, e, 0, sum, ties);
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
