/* Elementwise losses: five loops, stamped out for every line of losses.def, and the block functions that feed them.
 *
 * Order: element i of a block is of group i / T_LANES. A group's terms are added into T_SUMS double lanes: in float terms l and l + T_SUMS first
 *   to each other, in float, and where `paired`, on AVX-512, these of groups 2k and 2k + 1 (7 to 14 % of a sum that lies in the cache); at the
 *   end of the block, after at most LF_ELEM_BLOCK elements, the lanes pairwise; blocks in order. Each of the two roundings is at most 2^-24 of
 *   what it rounds and the doubles' none to speak of: a mean is within 2^-23 of the mean magnitude of its terms from their exact mean, and
 *   much nearer where roundings differ (tests/test_accuracy.py: 10^8 terms). A short last group is taken from the terms of 'none'.
 *   Double terms are added in runs of T_RUN elements of the block, and the runs with what they round off: a mean of equal ones is within 6 ulp.
 * Quick sums: of a stanza with `quick` a sum takes s, which need be right only where it is finite, and is not where v is not. Where a block
 *   comes to inf or NaN (by s, or a pair that overflows) it is summed again by the terms of 'none'.
 * Functions of a and b in s are taken a group at a time, for floats on AVX-512 by tables in registers: f_a = exp(a) or log(a), f_b = log(b) or b/a.
 *   Elsewhere sums that need logarithms take v. With LF_RATIO a pair shares one logarithm and one division:
 *   log a + log a' = log P + e/P, P = a a' rounded, e what that drops; b/a + b'/a' = (b a' + b' a)/P.
 * Pairs: with LF_PAIRS large sums of halves, of which there are but 65536, look up what the loop over floats would compute: the same bits.
 * Products: with LF_PRODUCT a lane keeps the product of its 1 + t, at most 2^512, less 1 so that small t keep their digits, and takes its logarithm
 *   once a block; those of groups 2k and 2k + 1 are multiplied, and terms added, first, as T: 7 % of bce_logits. A mean of equal terms, whose
 *   roundings do not average out, is within 3 ulp of its terms' magnitude (tests/test_accuracy.py).
 * Determinism: a block's bounds depend on the shape only, and every element goes through the same vector code wherever it lies (a short
 *   last group is padded): the same bits for any thread count and any layout.
 * Memory: contiguous arrays of T are used in place, everything else passes through a chunk on the stack; sums of transposed arrays take
 *   several blocks together (elem_strip), so that a cache line comes from memory once and not for each of its elements.
 */

#define T_SUMS (LF_LANES / 2)
#define T_RUN 256                                    /* elements: a run of half as many costs double sums 2 % of their time */
#define T_ACC (T_RUNS ? 4 * T_SUMS + 1 : 2 * T_SUMS) /* the lanes' sums, then their products less 1; of whole runs both; elements of this run */
_Static_assert(LF_ELEM_BLOCK / T_SUMS <= 512, "products of as many factors up to 2 are far from overflow");
#ifdef LF_T_FLOAT
#define T_RUNS 0
#define T_TERMS(v, l) (v[l] + v[(l) + T_SUMS])
#define T_FACTOR(t, l) (t[l] * t[(l) + T_SUMS] + (t[l] + t[(l) + T_SUMS]))
#else
#define T_RUNS 1
#define T_TERMS(v, l) v[l]
#define T_FACTOR(t, l) t[l]
#endif

typedef NAME(VG) (*NAME(Formula))(T x, T y, T z, const T *p, T f_a, T f_b, int given);
typedef void (*NAME(Loop))(const void *x, const void *y, const void *z, const T *p, ptrdiff_t n, T k, T *const *out, double *acc, I *bad);
typedef const T (*NAME(Pairs))[2];

/* The group from element i on, a multiple of T_LANES: where it is if its dtype is T's, else converted, in registers where they suffice. */
static inline const T *NAME(elem_group)(const void *array, int dtype, ptrdiff_t i, T *group)
{
#ifdef LF_T_FLOAT
    if (dtype != T_CODE) {
        lf_half_run_to_f32(group, (const char *)array + 2 * i, dtype, T_LANES);
        return group;
    }
#endif
    return (const T *)array + i;
}

/* Logarithms of n numbers for sums: -inf of 0, NaN of negative numbers. By intrinsics, 5 cycles for 16: kl_div's sum takes 11 and not 29. Max error
 * 1.54 ulp, at 0x1.f049cep-1, of all floats; 1.96, at 0x1.f82eaep-1, of two equal ones by LF_RATIO; test_functions_of_sums. */
static inline void NAME(elem_logs)(T *x, int n)
{
#ifdef T_TABLES
    /* x = 2^e m, j/16 <= m - 1 < (j + 1)/16, r = c m - 1: log x = (e ln2 - log c) + log(1 + r). Beside 1 the first is 0 and r exact. c are chosen so
     * that the first is a float to within 2^-36, for e = 0 or, from j = 8 on, -1. */
    static const float c[16] = {0x1p+0f,        0x1.d43636p-1f, 0x1.baac5p-1f,  0x1.a42dbp-1f, 0x1.8f9708p-1f, 0x1.7d2536p-1f,
                                0x1.6c138p-1f,  0x1.5caeb8p-1f, 0x1.4e77aep-1f, 0x1.4117bp-1f, 0x1.352496p-1f, 0x1.2a08bcp-1f,
                                0x1.1f774cp-1f, 0x1.15a5e8p-1f, 0x1.0c9956p-1f, 0x1p-1f};
    static const float minus_log_c[16] = {0x0p+0f,        0x1.6e32d6p-4f, 0x1.29f844p-3f, 0x1.94c6f2p-3f, 0x1.fbab7ep-3f, 0x1.2e3a2ep-2f,
                                          0x1.5d2504p-2f, 0x1.8961fep-2f, 0x1.b400f6p-2f, 0x1.ddcb28p-2f, 0x1.025092p-1f, 0x1.150d3ep-1f,
                                          0x1.278962p-1f, 0x1.39542ap-1f, 0x1.4a4b3ap-1f, 0x1.62e43p-1f};
    const __m512 table = _mm512_loadu_ps(c), logs = _mm512_loadu_ps(minus_log_c);
#pragma GCC unroll 2
    for (int l = 0; l < n; l += 16) {
        const __m512 u = _mm512_loadu_ps(x + l), m = _mm512_getmant_ps(u, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan);
        const __m512i j = _mm512_srli_epi32(_mm512_castps_si512(m), 19);
        const __m512 r = _mm512_fmsub_ps(m, _mm512_permutexvar_ps(j, table), _mm512_set1_ps(1));
        const __m512 a = _mm512_fmadd_ps(_mm512_getexp_ps(u), _mm512_set1_ps(0x1.62e43p-1f), _mm512_permutexvar_ps(j, logs));
        __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(0x1.81a786p-3f), _mm512_set1_ps(-0x1.000ddcp-2f));
        q = _mm512_fmadd_ps(r, q, _mm512_set1_ps(0x1.555850p-2f));
        q = _mm512_fmadd_ps(r, q, _mm512_set1_ps(-0.5f));
        q = _mm512_fmadd_ps(r, q, _mm512_set1_ps(1));
        _mm512_storeu_ps(x + l, _mm512_fmadd_ps(r, q, a));
    }
#endif
}

/* Exponentials of a group of numbers that are not positive: at most 2^-126 below -87.3 and 0 below -127 ln2. Max error 1.00 ulp down to -60, 1.39
 * at -0x1.5bb83ep+6. */
static inline void NAME(elem_exps)(T *x, I n)
{
#ifdef T_TABLES
    /* x = (n/16) ln2 + r, j = n mod 16: exp x = 2^(n/16) + 2^(n/16) (exp r - 1); the bits of 2^(n/16) are those of 2^(j/16), less j 2^19, plus
     * n 2^19, which are those of 0 for n = -127 * 16. */
    static const uint32_t roots[16] = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
                                       0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
    const __m512i table = _mm512_loadu_si512(roots), magic = _mm512_set1_epi32(0x4b400000);
#pragma GCC unroll 2
    for (I l = 0; l < n; l += 16) {
        const __m512 u = _mm512_max_ps(_mm512_set1_ps(-0x1.601e68p+6f), _mm512_loadu_ps(x + l)); /* NaN stays */
        const __m512 s = _mm512_fmadd_ps(u, _mm512_set1_ps(0x1.715476p+4f), _mm512_castsi512_ps(magic));
        const __m512 whole = _mm512_sub_ps(s, _mm512_castsi512_ps(magic));
        const __m512 r = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-0x1.05c61p-33f), _mm512_fnmadd_ps(whole, _mm512_set1_ps(0x1.62e43p-5f), u));
        const __m512i k = _mm512_castps_si512(s);
        const __m512i bits = _mm512_add_epi32(_mm512_permutexvar_epi32(k, table), _mm512_slli_epi32(k, 19));
        const __m512 power = _mm512_castsi512_ps(bits);
        __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(0x1.55559ap-3f), _mm512_set1_ps(0x1.00021ep-1f));
        q = _mm512_fmadd_ps(r, q, _mm512_set1_ps(1));
        _mm512_storeu_ps(x + l, _mm512_fmadd_ps(_mm512_mul_ps(power, r), q, power));
    }
#else
#pragma omp simd
    for (I l = 0; l < n; l++)
        x[l] = NAME(lf_exp_neg)(x[l]);
#endif
}

/* f_a and f_b of n lanes, a whole group unless there are but exponentials, from a and b in their places. */
static inline void NAME(elem_functions)(I given, I n, T *a, T *b)
{
    if (given & LF_RATIO)
#pragma omp simd
        for (int l = 0; l < T_LANES / 2; l++) {
            const T u = a[l], v = a[l + T_LANES / 2], product = u * v;
            b[l] = (b[l] * v + (b[l + T_LANES / 2] * u + NAME(lf_product_error)(u, v, product))) / product;
            a[l] = product, a[l + T_LANES / 2] = b[l + T_LANES / 2] = 0;
        }
    if (given & LF_LOG_A)
        NAME(elem_logs)(a, given & LF_RATIO ? T_LANES / 2 : T_LANES);
    if (given & LF_LOG_B)
        NAME(elem_logs)(b, T_LANES);
    if (given & LF_EXP_A)
        NAME(elem_exps)(a, n);
}

/* The ways of sums that there are: without elem_logs none that need them. */
static inline I NAME(elem_quick)(I quick)
{
#ifdef T_TABLES
    return quick;
#else
    return quick & (LF_LOG_A | LF_LOG_B) ? 0 : quick;
#endif
}

/* Whether a sum's groups are added by twos. */
static inline I NAME(elem_paired)(I quick)
{
#ifdef T_TABLES
    return 1;
#else
    return quick & LF_PRODUCT;
#endif
}

/* What is given beside gradients where nothing is summed, for the bits that they have beside sums: an exponential that is another one. */
static inline I NAME(elem_alike)(I ways, int want)
{
#ifdef T_TABLES
    return want & LF_WANT_GX ? ways & LF_EXP_A : 0;
#else
    return 0;
#endif
}

/* Whether a stanza has LF_PAIRS, where its sums can look them up: a constant. */
static inline int NAME(elem_has_pairs)(NAME(Formula) f)
{
    const T p[2 * LF_PARAMS] = {0};
    return (NAME(elem_quick)(f(0, 0, 0, p, 0, 0, 0).quick) & LF_PAIRS) != 0;
}

#ifdef T_TABLES
/* u and w of all halves. They stay for all later calls, so that what this one has set (subnormal numbers flushed, other roundings) must not count. */
static inline void NAME(elem_make_pairs)(NAME(Formula) f, int dtype, T (*pairs)[2])
{
    const unsigned callers = _mm_getcsr();
    _mm_setcsr(0x1f80); /* as a process starts */
    const T p[2 * LF_PARAMS] = {0};
    const I quick = f(0, 0, 0, p, 0, 0, 0).quick;
    for (int i = 0; i < 1 << 16; i += T_LANES) {
        uint16_t half[T_LANES];
        T group[T_LANES], f_a[T_LANES], f_b[T_LANES];
        for (int l = 0; l < T_LANES; l++)
            half[l] = (uint16_t)(i + l);
        const T *x = NAME(elem_group)(half, dtype, 0, group);
#pragma omp simd
        for (int l = 0; l < T_LANES; l++) {
            const NAME(VG) r = f(x[l], 0, 0, p, 0, 0, 0);
            f_a[l] = r.a, f_b[l] = r.b;
        }
        NAME(elem_functions)(quick, T_LANES, f_a, f_b);
        for (int l = 0; l < T_LANES; l++) {
            const NAME(VG) r = f(x[l], 0, 0, p, f_a[l], f_b[l], 1);
            pairs[i + l][0] = r.bad ? -T_NAN : r.u, pairs[i + l][1] = r.w;
        }
    }
    _mm_setcsr(callers);
}

/* A group's u and w. By intrinsics: binary_cross_entropy takes 18 cycles for 16 elements and not 31, by gathers of AVX-512 10 more. */
static inline void NAME(elem_look_up)(const lf_u16_u *x, NAME(Pairs) pairs, T *u, T *w)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0),
                  odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
#pragma GCC unroll 2
    for (int l = 0; l < T_LANES; l += 16) {
        __m256d four[4];
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            const lf_u16_u *at = x + l + 4 * q;
            four[q] = _mm256_castpd128_pd256(_mm_load_sd((const void *)pairs[at[0]]));
            four[q] = _mm256_mask_broadcastsd_pd(four[q], 2, _mm_load_sd((const void *)pairs[at[1]]));
            four[q] = _mm256_mask_broadcastsd_pd(four[q], 4, _mm_load_sd((const void *)pairs[at[2]]));
            four[q] = _mm256_mask_broadcastsd_pd(four[q], 8, _mm_load_sd((const void *)pairs[at[3]]));
        }
        const __m512 a = _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castpd256_pd512(four[0]), four[1], 1));
        const __m512 b = _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castpd256_pd512(four[2]), four[3], 1));
        _mm512_storeu_ps(u + l, _mm512_permutex2var_ps(a, even, b));
        _mm512_storeu_ps(w + l, _mm512_permutex2var_ps(a, odd, b));
    }
}
#endif

/* Terms to sums, and factors, less 1 as the products. */
static inline void NAME(elem_add)(I quick, const T *term, const T *factor, double *sum, double *product)
{
#pragma omp simd
    for (int l = 0; l < T_SUMS; l++)
        sum[l] += term[l];
    if (quick & LF_PRODUCT)
#pragma omp simd
        for (int l = 0; l < T_SUMS; l++) {
            const double by = factor[l];
            product[l] = product[l] * by + (product[l] + by);
        }
}

/* A group's terms v and t to sums and products; of the first of two groups to `term` and `factor`, to wait for the second. */
static inline void NAME(elem_collect)(I quick, int first, int second, const T *v, const T *t, T *term, T *factor, double *sum, double *product)
{
    T s[T_SUMS], u[T_SUMS];
#pragma omp simd
    for (int l = 0; l < T_SUMS; l++)
        s[l] = T_TERMS(v, l), u[l] = quick & LF_PRODUCT ? T_FACTOR(t, l) : 0;
    if (first) {
        memcpy(term, s, sizeof s);
        memcpy(factor, u, sizeof u);
        return;
    }
    if (second)
#pragma omp simd
        for (int l = 0; l < T_SUMS; l++)
            s[l] += term[l], u[l] = factor[l] * u[l] + (factor[l] + u[l]);
    NAME(elem_add)(quick, s, u, sum, product);
}

/* A whole run's sums and products to those of the runs before it; what that rounds off is where the next run begins (Kahan). */
#ifdef __AVX__
static inline void
#else
LF_CALLED /* few registers, and 2 % of the library */
#endif
NAME(elem_add_run)(I quick, double *sum, double *product, double *runs)
{
    lf_add_run(sum, runs, T_SUMS);
    if (quick & LF_PRODUCT)
#pragma omp simd
        for (int l = 0; l < T_SUMS; l++) {
            const double a = runs[T_SUMS + l], b = product[l], all = a * b + (a + b);
            const double near = lf_real_f64(0x7fe0000000000000 - lf_bits_f64(1 + all)); /* 1/(1 + all) to an eighth */
            product[l] = (a * b + (b - (all - a))) * near;
            runs[T_SUMS + l] = all;
        }
}

/* The one loop, over whole groups, or halves of them where nothing is summed. `inputs`, `want` and `dtype` are constants wherever this is inlined,
 * so each loop below holds only what it asks for. */
static inline void NAME(loop)(NAME(Formula) f, int inputs, int want, int dtype, const void *xs, const void *ys, const void *zs, const T *param,
                              ptrdiff_t n, T k, NAME(Pairs) pairs, T *const *out, double *acc, I *bad)
{
    T p[2 * LF_PARAMS];
    memcpy(p, param, sizeof p);
    double sum[T_SUMS], product[T_SUMS] = {0};
    T term[T_SUMS] = {0}, factor[T_SUMS] = {0};
    I flag[T_LANES] = {0};
    const I lanes = want & LF_WANT_SUM ? T_LANES : T_LANES / 2;
    const I ways = NAME(elem_quick)(f(0, 0, 0, p, 0, 0, 0).quick), quick = want & LF_WANT_SUM ? ways : 0; /* constants */
    const I paired = want & LF_WANT_SUM && NAME(elem_paired)(quick);
    const I given = want & LF_WANT_PAIRS ? LF_PAIRS : quick | NAME(elem_alike)(ways, want);
    if (want & LF_WANT_SUM)
        memcpy(sum, acc, sizeof sum);
    if (quick & LF_PRODUCT)
        memcpy(product, acc + T_SUMS, sizeof product);
    const ptrdiff_t begun = want & LF_WANT_SUM && T_RUNS ? (ptrdiff_t)acc[T_ACC - 1] : 0;
    for (ptrdiff_t i = 0; i < n; i += lanes) {
        T v[T_LANES], t[T_LANES], gx[T_LANES], gy[T_LANES], gz[T_LANES];
        const T *x = NAME(elem_group)(xs, dtype, i, gx), *y = NAME(elem_group)(ys, dtype, i, gy), *z = NAME(elem_group)(zs, dtype, i, gz);
        T f_a[T_LANES], f_b[T_LANES];
        for (int q = 0; dtype != T_CODE && q < inputs; q++)
            __builtin_prefetch((const char *)(q == 0 ? xs : q == 1 ? ys : zs) + 2 * i + LF_HALF_AHEAD, 0, 2);
        if (given & (LF_LOG_A | LF_LOG_B | LF_EXP_A)) {
#pragma omp simd
            for (I l = 0; l < lanes; l++) {
                const NAME(VG) r = f(x[l], y[l], z[l], p, 0, 0, 0);
                f_a[l] = r.a, f_b[l] = r.b;
            }
            NAME(elem_functions)(given, lanes, f_a, f_b);
        }
#ifdef T_TABLES
        if (given == LF_PAIRS)
            NAME(elem_look_up)((const lf_u16_u *)xs + i, pairs, f_a, f_b);
#endif
#pragma omp simd
        for (I l = 0; l < lanes; l++) {
            const T a = given & (LF_LOG_A | LF_EXP_A | LF_PAIRS) ? f_a[l] : 0, b = given & (LF_LOG_B | LF_RATIO | LF_PAIRS) ? f_b[l] : 0;
            const NAME(VG) r = f(x[l], y[l], z[l], p, a, b, given == LF_PAIRS ? LF_PAIRS : given != 0);
            v[l] = quick ? r.s : r.v;
            t[l] = r.t;
            if (want & LF_WANT_V)
                out[0][i + l] = r.v + r.c; /* c: what rounding dropped, see formulas.h */
            if (want & LF_WANT_GX)
                out[1][i + l] = k * r.gx;
            if (want & LF_WANT_REST)
                out[2][i + l] = k * r.gy, out[3][i + l] = k * r.gz, out[4][i + l] = k * r.hx;
            if (want & LF_WANT_BAD)
                out[0][i + l] = (T)r.bad;
            flag[l] |= want & LF_WANT_BAD ? -r.bad : r.doubt;
        }
        if (want & LF_WANT_SUM)
            NAME(elem_collect)(quick, paired && !(i & lanes), paired && i & lanes, v, t, term, factor, sum, product);
        if (want & LF_WANT_SUM && T_RUNS && __builtin_expect((begun + i + lanes) % T_RUN == 0, 0))
            NAME(elem_add_run)(quick, sum, product, acc + 2 * T_SUMS);
    }
    if (paired && n & lanes)
        NAME(elem_add)(quick, term, factor, sum, product);
    I any = 0;
    for (int l = 0; l < T_LANES; l++)
        any |= flag[l];
    *bad |= any < 0;
    if (want & LF_WANT_SUM)
        memcpy(acc, sum, sizeof sum);
    if (quick & LF_PRODUCT)
        memcpy(acc + T_SUMS, product, sizeof product);
    if (want & LF_WANT_SUM && T_RUNS)
        acc[T_ACC - 1] = (double)((begun + n) % T_RUN);
}

#define LF_STAMP(kind, inputs, want, name)                                                                                                           \
    static void NAME(kind##_##name)(const void *x, const void *y, const void *z, const T *p, ptrdiff_t n, T k, T *const *out, double *acc, I *bad)   \
    {                                                                                                                                                \
        NAME(loop)(NAME(lf_loss_##name), inputs, want, T_CODE, x, y, z, p, n, k, NULL, out, acc, bad);                                               \
    }
#define ELEM(name, inputs, params)                                                                                                                   \
    LF_STAMP(sum, inputs, LF_WANT_SUM, name)                                                                                                         \
    LF_STAMP(map, inputs, LF_WANT_V, name)                                                                                                           \
    LF_STAMP(grad, inputs, LF_WANT_SUM | LF_WANT_GX, name)                                                                                           \
    LF_STAMP(full, inputs, LF_WANT_V | LF_WANT_GX | LF_WANT_REST, name)                                                                              \
    LF_STAMP(check, inputs, LF_WANT_BAD, name)
#include "losses.def"
#undef ELEM
#undef LF_STAMP
#ifdef T_HALVES
typedef void (*NAME(HalfSum))(const void *x, const void *y, const void *z, const T *p, ptrdiff_t n, NAME(Pairs) pairs, double *acc, I *bad);

#define LF_STAMP(kind, inputs, dtype, name)                                                                                                          \
    static void NAME(kind##_##name)(const void *x, const void *y, const void *z, const T *p, ptrdiff_t n, NAME(Pairs) pairs, double *acc, I *bad)    \
    {                                                                                                                                                \
        if (NAME(elem_has_pairs)(NAME(lf_loss_##name)) && pairs)                                                                                     \
            NAME(loop)(NAME(lf_loss_##name), inputs, LF_WANT_SUM | LF_WANT_PAIRS, dtype, x, y, z, p, n, 1, pairs, NULL, acc, bad);                   \
        else                                                                                                                                         \
            NAME(loop)(NAME(lf_loss_##name), inputs, LF_WANT_SUM, dtype, x, y, z, p, n, 1, NULL, NULL, acc, bad);                                    \
    }
#define ELEM(name, inputs, params)                                                                                                                   \
    LF_STAMP(f16, inputs, LF_F16, name)                                                                                                              \
    LF_STAMP(bf16, inputs, LF_BF16, name)
#include "losses.def"
#undef ELEM
#undef LF_STAMP
#endif
#ifdef T_TABLES
/* A loss's pairs, if it has any, filled at first use. Two threads may do so at once, with the same bits. */
#define ELEM(name, inputs, params)                                                                                                                   \
    static NAME(Pairs) NAME(pairs_##name)(int dtype)                                                                                                 \
    {                                                                                                                                                \
        static T pairs[2][1 << 16][2];                                                                                                               \
        static int filled[2];                                                                                                                        \
        if (!NAME(elem_has_pairs)(NAME(lf_loss_##name)))                                                                                             \
            return NULL;                                                                                                                             \
        if (!__atomic_load_n(&filled[dtype], __ATOMIC_ACQUIRE)) {                                                                                    \
            NAME(elem_make_pairs)(NAME(lf_loss_##name), dtype, pairs[dtype]);                                                                        \
            __atomic_store_n(&filled[dtype], 1, __ATOMIC_RELEASE);                                                                                   \
        }                                                                                                                                            \
        return (NAME(Pairs))pairs[dtype];                                                                                                            \
    }
#include "losses.def"
#undef ELEM
#endif

static const NAME(Loop) NAME(elem_loops)[][LF_LOOPS] = {
#define ELEM(name, inputs, params) {NAME(sum_##name), NAME(map_##name), NAME(grad_##name), NAME(full_##name), NAME(check_##name)},
#include "losses.def"
#undef ELEM
};

#ifdef T_HALVES
static const NAME(HalfSum) NAME(elem_half_sums)[][2] = {
#define ELEM(name, inputs, params) {[LF_F16] = NAME(f16_##name), [LF_BF16] = NAME(bf16_##name)},
#include "losses.def"
#undef ELEM
};
#endif

#ifdef T_TABLES
static NAME(Pairs) (*const NAME(elem_pairs)[])(int dtype) = {
#define ELEM(name, inputs, params) NAME(pairs_##name),
#include "losses.def"
#undef ELEM
};
#endif

/* Whether a loop writes output q. */
static inline int NAME(elem_writes)(int kind, int q) { return kind == LF_FULL || (kind == LF_GRAD ? q == 1 : kind != LF_SUM && q == 0); }

/* The m elements of a short group, and for the rest of it the last of them again. */
static inline void NAME(elem_pad)(const T *from, I m, T *to)
{
    const T last = from[m - 1];
#pragma omp simd
    for (I l = 0; l < T_LANES; l++)
        to[l] = l < m ? from[l] : last;
}

/* Any number of elements. The last short group is padded with its last element, and its terms, which no sum over a group could tell from
 * the padding, come from LF_MAP. */
static void NAME(elem_run)(int loss, int kind, const T *const *in, const T *p, ptrdiff_t n, T k, T *const *out, double *acc, I *bad)
{
    const NAME(Loop) *loop = NAME(elem_loops)[loss];
    const ptrdiff_t whole = n / T_LANES * T_LANES;
    const int m = (int)(n - whole), padded = m > T_LANES / 2 ? T_LANES : T_LANES / 2;
    if (whole)
        loop[kind](in[0], in[1], in[2], p, whole, k, out, acc, bad);
    if (!m)
        return;
    if ((kind == LF_MAP || kind == LF_FULL) && n >= padded && out[0] != in[0] && out[1] != in[0]) { /* the last whole group, some of it again */
        const T *const last[LF_INPUTS] = {in[0] + n - padded, in[1] + n - padded, in[2] + n - padded};
        T *to[LF_OUTS];
        for (int q = 0; q < LF_OUTS; q++)
            to[q] = out[q] + n - padded;
        loop[kind](last[0], last[1], last[2], p, padded, k, to, acc, bad);
        return;
    }
    T room[LF_INPUTS][T_LANES], spill[LF_OUTS][T_LANES], *const to[LF_OUTS] = {spill[0], spill[1], spill[2], spill[3], spill[4]};
    const T *pad[LF_INPUTS];
    double unused[T_ACC] = {0};
    for (int q = 0; q < LF_INPUTS; q++) {
        pad[q] = q && in[q] == in[0] ? room[0] : room[q];
        if (pad[q] == room[q])
            NAME(elem_pad)(in[q] + whole, m, room[q]);
    }
    if (kind != LF_SUM)
        loop[kind](pad[0], pad[1], pad[2], p, kind == LF_GRAD ? T_LANES : padded, k, to, unused, bad);
    for (int q = 0; q < LF_OUTS; q++)
        if (NAME(elem_writes)(kind, q))
            memcpy(out[q] + whole, spill[q], m * sizeof(T));
    if (kind == LF_SUM || kind == LF_GRAD) {
        T v[T_LANES];
        loop[LF_MAP](pad[0], pad[1], pad[2], p, padded, k, to, unused, bad);
#pragma omp simd
        for (I l = 0; l < T_LANES; l++)
            v[l] = l < m ? spill[0][l] : 0;
#pragma omp simd
        for (int l = 0; l < T_SUMS; l++)
            acc[l] += T_TERMS(v, l);
    }
}

/* The job's numbers, and after them what rounding took from each. */
static void NAME(elem_params)(const LfElemJob *j, T *p)
{
    for (int q = 0; q < LF_PARAMS; q++) {
        p[q] = (T)j->param[q];
        p[LF_PARAMS + q] = (T)(j->param[q] - (double)p[q]);
    }
}

/* An array's elements i .. i + n in the order of the job's shape, from or to `buf`: whole rows together. */
static void NAME(elem_move)(const LfElemJob *j, const LfArray *a, ptrdiff_t i, ptrdiff_t n, T *buf, int put)
{
    ptrdiff_t index[LF_MAXDIM];
    const int last = j->ndim - 1;
    const ptrdiff_t row = j->shape[last], step = last ? a->stride[last - 1] : 0;
    char *p = a->data;
    for (int d = last; d >= 0; d--) {
        index[d] = d ? i % j->shape[d] : i;
        i /= j->shape[d];
        p += index[d] * a->stride[d];
    }
    while (n > 0) {
        const int whole = last && !index[last] && n >= row, d = last - whole; /* the dimension along which this goes on */
        const ptrdiff_t most = whole ? n / row : n, left = j->shape[d] - index[d], run = most < left ? most : left;
        const ptrdiff_t width = whole ? row : run, rows = whole ? run : 1;
        if (put)
            NAME(lf_store_rows)(p, a->dtype, a->stride[last], step, buf, width, rows, j->stream);
        else
            NAME(lf_load_rows)(buf, p, a->dtype, a->stride[last], step, width, rows);
        n -= width * rows;
        buf += width * rows;
        p += run * a->stride[d];
        index[d] += run;
        for (int e = d; e > 0 && index[e] == j->shape[e]; e--) {
            p += a->stride[e - 1] - index[e] * a->stride[e];
            index[e] = 0;
            index[e - 1]++;
        }
    }
}

/* Where elements i .. i + n lie one behind the other, their address; else NULL. */
static char *NAME(elem_run_at)(const LfElemJob *j, const LfArray *a, ptrdiff_t i, ptrdiff_t n)
{
    const int last = j->ndim - 1;
    if (a->stride[last] != lf_itemsize(a->dtype) || (last > 0 && n > j->shape[last] - i % j->shape[last] && !lf_elem_even(j, a)))
        return NULL;
    return a->data + lf_offset(j->shape, j->ndim, a->stride, i);
}

/* Where elements i .. i + n can be used in place, their address; else NULL. */
static T *NAME(elem_direct)(const LfElemJob *j, const LfArray *a, ptrdiff_t i, ptrdiff_t n)
{
    char *p = a->dtype == T_CODE ? NAME(elem_run_at)(j, a, i, n) : NULL;
    return (uintptr_t)p % sizeof(T) == 0 ? (T *)p : NULL;
}

static const T *NAME(elem_in)(const LfElemJob *j, const LfArray *a, ptrdiff_t i, ptrdiff_t n, T *buf)
{
    const T *p = NAME(elem_direct)(j, a, i, n);
    if (!p)
        NAME(elem_move)(j, a, i, n, buf, 0), p = buf;
    return p;
}

/* The inputs' elements i .. i + n; in place of one that the formula does not have, and so ignores, the first. */
static void NAME(elem_inputs)(const LfElemJob *j, ptrdiff_t i, ptrdiff_t n, T (*buf)[LF_CHUNK], const T **a)
{
    for (int q = 0; q < LF_INPUTS; q++)
        a[q] = j->in[q].data ? NAME(elem_in)(j, &j->in[q], i, n, buf[q]) : a[0];
}

/* The half format of all inputs of a job, where there are sums that read it; else T_CODE. */
static int NAME(elem_halves)(const LfElemJob *j)
{
#ifdef T_HALVES
    const int dtype = j->in[0].dtype;
    int every = dtype <= LF_BF16;
    for (int q = 1; q < LF_INPUTS; q++)
        every &= !j->in[q].data || j->in[q].dtype == dtype;
    return every ? dtype : T_CODE;
#else
    return T_CODE;
#endif
}

/* A sum's whole groups among elements i .. i + n, where the inputs are runs of one half format: how many elements that was. */
static ptrdiff_t NAME(elem_sum_halves)(const LfElemJob *j, int dtype, ptrdiff_t i, ptrdiff_t n, const T *p, double *acc, I *bad)
{
#ifdef T_HALVES
    const void *at[LF_INPUTS];
    for (int q = 0; q < LF_INPUTS; q++) {
        at[q] = NAME(elem_run_at)(j, &j->in[j->in[q].data ? q : 0], i, n);
        if (!at[q])
            return 0;
    }
    n -= n % T_LANES;
    NAME(elem_half_sums)[j->loss][dtype](at[0], at[1], at[2], p, n, j->pairs, acc, bad);
    return n;
#else
    return 0;
#endif
}

/* First element of i .. i + n outside the formula's domain, masked ones aside: 4 * index + argument, or -1. */
static __attribute__((noinline)) ptrdiff_t NAME(elem_find_bad)(const LfElemJob *j, const T *p, const T *where, ptrdiff_t i, ptrdiff_t n)
{
    T in[LF_INPUTS][LF_CHUNK], code[LF_CHUNK], *const out[LF_OUTS] = {code};
    double unused[T_ACC] = {0};
    for (ptrdiff_t c = 0; c < n; c += LF_CHUNK) {
        const ptrdiff_t m = n - c < LF_CHUNK ? n - c : LF_CHUNK;
        const T *a[LF_INPUTS];
        I bad = 0;
        NAME(elem_inputs)(j, i + c, m, in, a);
        NAME(elem_run)(j->loss, LF_CHECK, a, p, m, 1, out, unused, &bad);
        for (ptrdiff_t l = 0; bad && l < m; l++)
            if (code[l] != 0 && !(where && where[c + l] == 0))
                return 4 * (i + c + l) + ((int)code[l] - 1);
    }
    return -1;
}

/* What a chunk's values and gradients are multiplied by: weight, mask and upstream gradient, or NULL for all ones. */
typedef struct {
    T weight[LF_CHUNK], where[LF_CHUNK], upstream[LF_CHUNK];
    const T *w, *m, *u;
} NAME(Factors);

static void NAME(elem_factors)(const LfElemJob *j, ptrdiff_t i, ptrdiff_t n, NAME(Factors) * f)
{
    f->w = j->weight.data ? NAME(elem_in)(j, &j->weight, i, n, f->weight) : NULL;
    f->m = j->where.data ? NAME(elem_in)(j, &j->where, i, n, f->where) : NULL;
    f->u = j->upstream.data ? NAME(elem_in)(j, &j->upstream, i, n, f->upstream) : NULL;
}

/* a *= the factors named; masked elements become 0 whatever they hold. */
static void NAME(elem_scale)(T *a, ptrdiff_t n, const T *w, const T *m, const T *u)
{
    if (w)
#pragma omp simd
        for (ptrdiff_t l = 0; l < n; l++)
            a[l] *= w[l];
    if (u)
#pragma omp simd
        for (ptrdiff_t l = 0; l < n; l++)
            a[l] *= u[l];
    if (m)
#pragma omp simd
        for (ptrdiff_t l = 0; l < n; l++)
            a[l] = m[l] != 0 ? a[l] : 0;
}

static double NAME(elem_sum)(const T *a, ptrdiff_t n)
{
    double acc[T_SUMS] = {0}, runs[T_SUMS] = {0};
    ptrdiff_t i = 0;
    for (; i + T_SUMS <= n; i += T_SUMS) {
#pragma omp simd
        for (int l = 0; l < T_SUMS; l++)
            acc[l] += a[i + l];
        if (T_RUNS && (i + T_SUMS) % T_RUN == 0)
            NAME(elem_add_run)(0, acc, NULL, runs);
    }
    for (int l = 0; i < n; i++, l++)
        acc[l] += a[i];
    return T_RUNS ? lf_half_lane_sum(runs) + lf_half_lane_sum(acc) : lf_half_lane_sum(acc);
}

/* Sum of the weights that count, or how many elements do. */
static double NAME(elem_mass)(const LfElemJob *j, const NAME(Factors) * f, ptrdiff_t n)
{
    T a[LF_CHUNK];
    for (ptrdiff_t l = 0; l < n; l++)
        a[l] = (f->m && f->m[l] == 0) ? 0 : f->w && !j->count_mass ? f->w[l] : 1;
    return NAME(elem_sum)(a, n);
}

/* Whether every element of an array's rows can be used in place, by loops that read dtype. */
static int NAME(elem_in_place)(const LfElemJob *j, const LfArray *a, int dtype)
{
    uintptr_t at = (uintptr_t)a->data;
    for (int d = 0; d < j->ndim; d++)
        at |= (uintptr_t)a->stride[d];
    return a->dtype == dtype && a->stride[j->ndim - 1] == lf_itemsize(dtype) && (dtype != T_CODE || at % sizeof(T) == 0);
}

/* How a block is cut: into chunks, or, where all arrays of a job that writes no more than v or gx are used in place, into larger pieces; and, where
 * any array is in place but has gaps between its rows, at the ends of long ones. */
typedef struct {
    ptrdiff_t step; /* a power of two */
    int by_rows;
} NAME(Pieces);

static NAME(Pieces) NAME(elem_pieces)(const LfElemJob *j, int dtype, int small)
{
    const LfArray *const all[] = {&j->in[0], &j->in[1], &j->in[2], &j->out, &j->grad[0]};
    const ptrdiff_t row = j->shape[j->ndim - 1], least = j->sum ? 2 * LF_SUM_RUN : 512;
    int every = 1, any = 0;
    for (int q = 0; q < 5; q++)
        if (all[q]->data) {
            const int in_place = NAME(elem_in_place)(j, all[q], dtype);
            every &= in_place, any |= in_place && !lf_elem_even(j, all[q]);
        }
    const int by_rows = any && j->ndim > 1 && row >= least;
    const ptrdiff_t large = j->sum ? LF_ELEM_BLOCK : (ptrdiff_t)1 << 62;
    return (NAME(Pieces)){every && !small && (by_rows || j->ndim == 1) ? large : LF_CHUNK, by_rows}; /* no chunk's buffer holds more */
}

/* How many elements from i on are taken together. Where there is a sum, rows are cut at multiples of LF_SUM_RUN, so that its order is that of one
 * long row. */
static ptrdiff_t NAME(elem_piece)(const LfElemJob *j, NAME(Pieces) p, ptrdiff_t i, ptrdiff_t start, ptrdiff_t end)
{
    const ptrdiff_t row = j->shape[j->ndim - 1];
    ptrdiff_t n = p.step - ((i - start) & (p.step - 1));
    n = n < end - i ? n : end - i;
    if (p.by_rows && n > row - i % row) {
        const ptrdiff_t room = row - i % row, whole = j->sum ? room & -LF_SUM_RUN : room;
        n = whole ? whole : n < LF_SUM_RUN ? n : LF_SUM_RUN;
    }
    return n;
}

/* A chunk's values, and gradients if `full`, times the factors; the sum of the values. */
static double NAME(elem_weigh)(const LfElemJob *j, const NAME(Factors) * f, ptrdiff_t n, int full, T *const *out)
{
    NAME(elem_scale)(out[0], n, f->w, f->m, NULL);
    for (int q = 1; full && q < LF_OUTS; q++)
        if (q < 4 ? j->grad[q - 1].data : j->hess.data)
            NAME(elem_scale)(out[q], n, f->w, f->m, f->u);
    return j->sum ? NAME(elem_sum)(out[0], n) : 0;
}

/* The gradient by weight of a chunk: the unweighted values. */
static void NAME(elem_by_weight)(const LfElemJob *j, const NAME(Factors) * f, ptrdiff_t i, ptrdiff_t n, const T *v)
{
    T g[LF_CHUNK];
    for (ptrdiff_t l = 0; l < n; l++)
        g[l] = (T)j->scale * v[l] + (T)j->weight_offset;
    NAME(elem_scale)(g, n, NULL, f->m, f->u);
    NAME(elem_move)(j, &j->grad[3], i, n, g, 1);
}

/* The sum of elements start .. end from their own values, where a quick one need not be right. */
static __attribute__((noinline)) double NAME(elem_by_terms)(const LfElemJob *j, const T *p, ptrdiff_t start, ptrdiff_t end)
{
    T in[LF_INPUTS][LF_CHUNK], v[LF_CHUNK], *const out[LF_OUTS] = {v};
    double sum = 0, unused[T_ACC] = {0};
    I bad = 0;
    for (ptrdiff_t i = start; i < end; i += LF_CHUNK) {
        const ptrdiff_t n = end - i < LF_CHUNK ? end - i : LF_CHUNK;
        const T *a[LF_INPUTS];
        NAME(elem_inputs)(j, i, n, in, a);
        NAME(elem_run)(j->loss, LF_MAP, a, p, n, 1, out, unused, &bad);
        sum += NAME(elem_sum)(v, n);
    }
    return sum;
}

/* What a block's lanes come to. */
static double NAME(elem_total)(const LfElemJob *j, const T *p, ptrdiff_t start, ptrdiff_t end, double *acc)
{
    double *const runs = acc + (T_RUNS ? 2 * T_SUMS : 0), *const product = runs + T_SUMS;
    if (T_RUNS)
        NAME(elem_add_run)(LF_PRODUCT, acc, acc + T_SUMS, runs);
    double u[T_SUMS], sum = lf_half_lane_sum(runs);
    int any = 0;
    for (int l = 0; l < T_SUMS; l++)
        any |= product[l] != 0;
    if (any) {
#pragma omp simd
        for (int l = 0; l < T_SUMS; l++)
            u[l] = lf_log1p_f64(product[l]);
        sum += lf_half_lane_sum(u);
    }
    if (T_RUNS)
        sum += lf_half_lane_sum(acc);
    return sum - sum == 0 ? sum : NAME(elem_by_terms)(j, p, start, end);
}

/* The loop that does no more than a job asks for. */
static int NAME(elem_kind)(const LfElemJob *j, int factors)
{
    const int rest = j->grad[1].data || j->grad[2].data || j->grad[3].data || j->hess.data;
    if (rest || (j->grad[0].data && (factors || j->out.data)))
        return LF_FULL;
    if (j->out.data || (factors && j->sum))
        return LF_MAP;
    return j->grad[0].data ? LF_GRAD : j->sum ? LF_SUM : LF_CHECK;
}

static NAME(Pairs) NAME(elem_pairs_of)(const LfElemJob *j)
{
#ifdef T_TABLES
    const int dtype = NAME(elem_halves)(j), factors = j->weight.data || j->where.data || j->upstream.data;
    if (dtype != T_CODE && NAME(elem_kind)(j, factors) == LF_SUM)
        return NAME(elem_pairs)[j->loss](dtype);
#endif
    return NULL;
}

/* Where a loop writes elements i .. i + n: where they belong, if that can be done, else to `buf`. Whether that is where the first input x lies. */
static int NAME(elem_outputs)(const LfElemJob *j, ptrdiff_t i, ptrdiff_t n, const LfArray *const *dst, T (*buf)[LF_CHUNK], const T *x, T **out)
{
    int over = 0;
    for (int q = 0; q < LF_OUTS; q++) {
        T *direct = dst[q]->data && !j->stream ? NAME(elem_direct)(j, dst[q], i, n) : NULL;
        out[q] = direct ? direct : buf[q];
        over |= out[q] == x;
    }
    return over;
}

/* Whether a job's values, and each input that is not one number all along a row, can be used in place, and that gains: where not all is one
 * long row already, or a number is in it. */
static int NAME(elem_rowwise)(const LfElemJob *j)
{
    const LfArray *const all[] = {&j->out, &j->in[0], &j->in[1], &j->in[2]};
    const int last = j->ndim - 1;
    int every = !j->stream && j->shape[last] >= LF_LONG_ROW, even = 1, one = 0;
    for (int q = 0; q <= LF_INPUTS; q++)
        if (all[q]->data && q && all[q]->stride[last] == 0)
            one = 1;
        else if (all[q]->data)
            every &= NAME(elem_in_place)(j, all[q], T_CODE), even &= lf_elem_even(j, all[q]);
    return every && (!even || (one && last == 0));
}

/* A block's values row by row, without copies: mse_loss 'none' of slices (1000, 100) takes 25 us and not 44. */
LF_CALLED NAME(elem_by_rows)(const LfElemJob *j, const T *p, ptrdiff_t b)
{
    const ptrdiff_t start = lf_elem_start(j, b), end = lf_elem_end(j, b), row = j->shape[j->ndim - 1];
    T same[LF_INPUTS][LF_CHUNK];
    const char *filled[LF_INPUTS] = {NULL}; /* the number that `same` holds */
    double unused[T_ACC] = {0};
    ptrdiff_t first_bad = -1, n;
    for (ptrdiff_t i = start; i < end; i += n) {
        const ptrdiff_t r = i / row, c = i - r * row, room = row - c < LF_CHUNK ? row - c : LF_CHUNK;
        n = end - i < room ? end - i : room;
        const T *a[LF_INPUTS];
        for (int q = 0; q < LF_INPUTS; q++) {
            const LfArray *in = &j->in[q];
            const char *at = in->data ? lf_elem_at(j, in, r, c) : NULL;
            const int one = at && in->stride[j->ndim - 1] == 0;
            if (one && filled[q] != at)
                NAME(lf_load)(same[q], filled[q] = at, in->dtype, 0, row < LF_CHUNK ? row : LF_CHUNK);
            a[q] = one ? same[q] : at ? (const T *)at : a[0];
        }
        T *const to = (T *)lf_elem_at(j, &j->out, r, c), *const out[LF_OUTS] = {to, to};
        I bad = 0;
        NAME(elem_run)(j->loss, LF_MAP, a, p, n, 1, out, unused, &bad);
        if (bad && first_bad < 0 && to != a[0]) /* else the input is gone: its domain has been checked before */
            first_bad = NAME(elem_find_bad)(j, p, NULL, i, n);
    }
    j->bad[b % LF_PARTS] = first_bad;
}

static void NAME(elem_block)(const LfElemJob *j, ptrdiff_t b)
{
    const ptrdiff_t start = lf_elem_start(j, b), end = lf_elem_end(j, b);
    const int factors = j->weight.data || j->where.data || j->upstream.data;
    const int kind = NAME(elem_kind)(j, factors), full = kind == LF_FULL;
    const int dtype = kind == LF_SUM ? NAME(elem_halves)(j) : T_CODE;
    T p[2 * LF_PARAMS];
    NAME(elem_params)(j, p);
    if (kind == LF_MAP && !factors && NAME(elem_rowwise)(j)) {
        NAME(elem_by_rows)(j, p, b);
        return;
    }
    const NAME(Pieces) pieces =
        factors || end - start <= LF_SUM_RUN ? (NAME(Pieces)){LF_CHUNK, 0} : NAME(elem_pieces)(j, dtype, full || j->stream || kind == LF_CHECK);
    const T k = (T)j->scale;
    const LfArray *const dst[LF_OUTS] = {&j->out, &j->grad[0], &j->grad[1], &j->grad[2], &j->hess};
    T in[LF_INPUTS][LF_CHUNK], o[LF_OUTS][LF_CHUNK];
    NAME(Factors) f;
    double acc[T_ACC] = {0}, sum = 0, mass = 0;
    ptrdiff_t first_bad = -1, n;
    for (ptrdiff_t i = start; i < end; i += n) {
        n = NAME(elem_piece)(j, pieces, i, start, end);
        const T *a[LF_INPUTS];
        T *out[LF_OUTS];
        I bad = 0;
        const ptrdiff_t done = dtype != T_CODE ? NAME(elem_sum_halves)(j, dtype, i, n, p, acc, &bad) : 0;
        NAME(elem_inputs)(j, i + done, n - done, in, a);
        const int over = NAME(elem_outputs)(j, i, n, dst, o, a[0], out); /* the input is gone then: its domain has been checked before */
        if (factors)
            NAME(elem_factors)(j, i, n, &f);
        NAME(elem_run)(j->loss, kind, a, p, n - done, k, out, acc, &bad);
        if (full && !j->out.data && !factors) /* beside all else v and gx may be contracted otherwise: they are those of calls that ask for less */
            NAME(elem_run)(j->loss, j->grad[0].data ? LF_GRAD : LF_SUM, a, p, n, k, out, acc, &bad);
        if (bad && first_bad < 0 && !over)
            first_bad = NAME(elem_find_bad)(j, p, j->where.data ? f.m : NULL, i, n);
        if (j->grad[3].data)
            NAME(elem_by_weight)(j, &f, i, n, out[0]);
        if (factors && kind != LF_CHECK)
            sum += NAME(elem_weigh)(j, &f, n, full, out);
        if (j->mass)
            mass += NAME(elem_mass)(j, &f, n);
        for (int q = 0; q < LF_OUTS; q++)
            if (dst[q]->data && out[q] == o[q] && first_bad < 0)
                NAME(elem_move)(j, dst[q], i, n, o[q], 1);
    }
    if (j->stream)
        lf_store_fence();
    if (j->sum)
        j->sum[b % LF_PARTS] = factors ? sum : NAME(elem_total)(j, p, start, end, acc);
    if (j->mass)
        j->mass[b % LF_PARTS] = mass;
    j->bad[b % LF_PARTS] = first_bad;
}

/* Columns c .. c + n of rows r .. r + m to `to`, W apart. A row holds the `row` elements of the dimensions after dimension d. */
static void NAME(elem_rows)(const LfElemJob *j, const LfArray *a, int d, ptrdiff_t row, ptrdiff_t r, ptrdiff_t m, ptrdiff_t c, ptrdiff_t n, T *to,
                            ptrdiff_t W)
{
    const int last = j->ndim - 1;
    ptrdiff_t rows, columns;
    for (; m > 0; r += rows, m -= rows, to += rows * W) {
        const ptrdiff_t room = j->shape[d] - r % j->shape[d];
        rows = m < room ? m : room;
        for (ptrdiff_t k = 0; k < n; k += columns) {
            const ptrdiff_t left = j->shape[last] - (c + k) % j->shape[last];
            columns = n - k < left ? n - k : left;
            const char *src = a->data + lf_offset(j->shape, j->ndim, a->stride, r * row + c + k);
            NAME(lf_load_tile)(to + k, W, src, a->dtype, a->stride[last], a->stride[d], columns, rows);
        }
    }
}

/* An array's elements i .. i + n by tiles of many rows; returns where they begin. Of short rows the first and last are taken whole. Of long ones they
 * are there in part, so columns on either side of where they begin and end are of different rows. */
static const T *NAME(elem_pack)(const LfElemJob *j, const LfArray *a, int d, ptrdiff_t i, ptrdiff_t n, T *buf)
{
    const ptrdiff_t row = lf_elem_row(j, d), first = i / row, from = i % row, last = (i + n) / row, to = (i + n) % row;
    const ptrdiff_t cut[] = {0, from < to ? from : to, from < to ? to : from, row};
    if (row <= LF_SHORT_ROW) {
        NAME(elem_rows)(j, a, d, row, first, last + (to > 0) - first, 0, row, buf, row);
        return buf + from;
    }
    for (int q = 0; q < 3; q++) {
        const ptrdiff_t c = cut[q], r = first + (c < from), m = last + (c < to) - r;
        if (cut[q + 1] > c)
            NAME(elem_rows)(j, a, d, row, r, m, c, cut[q + 1] - c, buf + (r * row + c - i), row);
    }
    return buf;
}

/* A block's sum, if any, and its first bad element if `bad`. */
LF_CALLED NAME(elem_done)(const LfElemJob *j, const T *p, ptrdiff_t b, double *acc, I bad)
{
    const ptrdiff_t start = lf_elem_start(j, b), end = lf_elem_end(j, b);
    if (j->sum) {
        j->sum[b % LF_PARTS] = NAME(elem_total)(j, p, start, end, acc);
#ifdef LF_T_FLOAT
        elem_unless_finite(j, b);
#endif
    }
    j->bad[b % LF_PARTS] = bad ? NAME(elem_find_bad)(j, p, NULL, start, end - start) : -1;
}

/* Successive blocks that hold several rows each: their sums, or an output that can be written where it is. */
LF_CALLED NAME(elem_flat_strip)(const LfElemJob *j, const T *p, ptrdiff_t s)
{
    T buf[LF_INPUTS][LF_STRIP / sizeof(T) + 2 * LF_SHORT_ROW];
    const ptrdiff_t first = s * j->strip, last = j->blocks - first < j->strip ? j->blocks : first + j->strip;
    const ptrdiff_t start = lf_elem_start(j, first), end = lf_elem_end(j, last - 1);
    const int kind = j->sum ? LF_SUM : j->out.data ? LF_MAP : LF_GRAD;
    T *const to = kind == LF_SUM ? NULL : NAME(elem_direct)(j, kind == LF_MAP ? &j->out : &j->grad[0], start, end - start);
    const T *a[LF_INPUTS];
    for (int q = 0; q < LF_INPUTS; q++) {
        const LfArray *in = &j->in[q];
        const int d = j->near[q];
        a[q] = !in->data ? a[0] : d < 0 ? NAME(elem_in)(j, in, start, end - start, buf[q]) : NAME(elem_pack)(j, in, d, start, end - start, buf[q]);
    }
    for (ptrdiff_t b = first; b < last; b++) {
        const ptrdiff_t at = lf_elem_start(j, b) - start;
        const T *in[LF_INPUTS] = {a[0] + at, a[1] + at, a[2] + at};
        T *const out[LF_OUTS] = {to + at, to + at};
        double acc[T_ACC] = {0};
        I bad = 0;
        NAME(elem_run)(j->loss, kind, in, p, lf_elem_end(j, b) - start - at, (T)j->scale, out, acc, &bad);
        NAME(elem_done)(j, p, b, acc, bad);
    }
}

/* Sums of the blocks that lie at the same place in up to LF_STRIP_ROWS rows, which are whole periods: those rows side by side. */
LF_CALLED NAME(elem_tall_strip)(const LfElemJob *j, const T *p, ptrdiff_t s)
{
    enum { COLUMNS = 256, W = COLUMNS + 16 }; /* rows a power of two apart would meet in one set of the cache */
    T tile[LF_INPUTS][LF_STRIP_ROWS * W];
    const int d = j->tall;
    const ptrdiff_t row = lf_elem_row(j, d), groups = (j->shape[d] + LF_STRIP_ROWS - 1) / LF_STRIP_ROWS, per_row = row / j->period * j->runs;
    const ptrdiff_t k = s % per_row, g = s / per_row % groups, left = j->shape[d] - g * LF_STRIP_ROWS;
    const ptrdiff_t first = s / per_row / groups * j->shape[d] + g * LF_STRIP_ROWS, rows = left < LF_STRIP_ROWS ? left : LF_STRIP_ROWS;
    const ptrdiff_t start = lf_elem_start(j, first * per_row + k), end = lf_elem_end(j, first * per_row + k);
    double acc[LF_STRIP_ROWS][T_ACC] = {0};
    I bad[LF_STRIP_ROWS] = {0};
    for (ptrdiff_t i = start; i < end; i += COLUMNS) {
        const ptrdiff_t n = end - i < COLUMNS ? end - i : COLUMNS;
        for (int q = 0; q < LF_INPUTS; q++)
            if (j->near[q] == d)
                NAME(elem_rows)(j, &j->in[q], d, row, first, rows, i - first * row, n, tile[q], W);
        for (ptrdiff_t r = 0; r < rows; r++) {
            const T *a[LF_INPUTS];
            for (int q = 0; q < LF_INPUTS; q++) {
                const LfArray *in = &j->in[q];
                T *const to = tile[q] + r * W;
                a[q] = !in->data ? a[0] : j->near[q] == d ? to : NAME(elem_in)(j, in, i + r * row, n, to);
            }
            NAME(elem_run)(j->loss, LF_SUM, a, p, n, 1, NULL, acc[r], &bad[r]);
        }
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        NAME(elem_done)(j, p, (first + r) * per_row + k, acc[r], bad[r]);
}

static void NAME(elem_strip)(const LfElemJob *j, ptrdiff_t s)
{
    T p[2 * LF_PARAMS];
    NAME(elem_params)(j, p);
    j->tall < 0 ? NAME(elem_flat_strip)(j, p, s) : NAME(elem_tall_strip)(j, p, s);
}

/* A chunk's gradient by an argument, one of the arrays of `o`. */
static T *NAME(elem_by)(const LfElemJob *j, const T *p, ptrdiff_t i, ptrdiff_t n, T (*o)[LF_CHUNK])
{
    const int arg = j->fold_arg;
    T in[LF_INPUTS][LF_CHUNK], *const out[LF_OUTS] = {o[0], o[1], o[2], o[3], o[4]}, *g = o[arg == 3 ? 0 : arg + 1];
    const T *a[LF_INPUTS];
    NAME(Factors) f;
    double unused[T_ACC] = {0};
    I bad = 0;
    NAME(elem_inputs)(j, i, n, in, a);
    NAME(elem_factors)(j, i, n, &f);
    NAME(elem_run)(j->loss, arg ? LF_FULL : LF_GRAD, a, p, n, (T)j->scale, out, unused, &bad);
    for (ptrdiff_t l = 0; arg == 3 && l < n; l++)
        g[l] = (T)j->scale * g[l] + (T)j->weight_offset;
    NAME(elem_scale)(g, n, arg == 3 ? NULL : f.w, f.m, f.u);
    return g;
}

/* Runs no longer than LF_ELEM_PIECE are whole in one block; longer ones are cut into such pieces, added by the caller in order. */
LF_CALLED NAME(elem_fold_runs)(const LfElemJob *j, ptrdiff_t b)
{
    ptrdiff_t start, end;
    if (j->fold <= LF_ELEM_PIECE) {
        const ptrdiff_t step = LF_ELEM_PIECE / j->fold * j->fold;
        start = b * step, end = j->size - start < step ? j->size : start + step;
    } else {
        const ptrdiff_t pieces = (j->fold + LF_ELEM_PIECE - 1) / LF_ELEM_PIECE, run = b / pieces, piece = b % pieces;
        start = run * j->fold + piece * LF_ELEM_PIECE;
        end = (run + 1) * j->fold - start < LF_ELEM_PIECE ? (run + 1) * j->fold : start + LF_ELEM_PIECE;
    }
    double *folded = j->folded + (j->fold <= LF_ELEM_PIECE ? start / j->fold : b), sum = 0;
    ptrdiff_t left = j->fold <= LF_ELEM_PIECE ? j->fold : end - start;
    T p[2 * LF_PARAMS], o[LF_OUTS][LF_CHUNK];
    NAME(elem_params)(j, p);
    for (ptrdiff_t i = start; i < end; i += LF_CHUNK) {
        const ptrdiff_t n = end - i < LF_CHUNK ? end - i : LF_CHUNK;
        const T *g = NAME(elem_by)(j, p, i, n, o);
        for (ptrdiff_t l = 0; l < n;) {
            const ptrdiff_t run = n - l < left ? n - l : left;
            if (j->fold < T_SUMS)
                for (ptrdiff_t k = 0; k < run; k++)
                    sum += g[l + k];
            else
                sum += NAME(elem_sum)(g + l, run);
            l += run;
            if (!(left -= run)) {
                *folded++ = sum;
                sum = 0, left = j->fold;
            }
        }
    }
}

/* Columns, at most a chunk of them, of up to `fold_rows` rows. Several short rows are added side by side. */
LF_CALLED NAME(elem_fold_rows)(const LfElemJob *j, ptrdiff_t b)
{
    const ptrdiff_t row = j->inner, most = row < LF_CHUNK ? row : LF_CHUNK, strips = (row + most - 1) / most;
    const ptrdiff_t pieces = (j->fold + j->fold_rows - 1) / j->fold_rows, part = b / strips, first = part % pieces * j->fold_rows;
    const ptrdiff_t c = b % strips * most, width = row - c < most ? row - c : most;
    const ptrdiff_t rows = j->fold - first < j->fold_rows ? j->fold - first : j->fold_rows, all = rows * width;
    const ptrdiff_t side = strips == 1 && row < 64 ? 64 / row * row : width, step = strips == 1 ? LF_CHUNK / side * side : width;
    const ptrdiff_t start = (part / pieces * j->fold + first) * row + c;
    T p[2 * LF_PARAMS], o[LF_OUTS][LF_CHUNK];
    double sum[LF_CHUNK] = {0}, runs[LF_CHUNK] = {0};
    int added = 0;
    NAME(elem_params)(j, p);
    for (ptrdiff_t i = 0; i < all; i += step) {
        const ptrdiff_t n = all - i < step ? all - i : step;
        const T *g = NAME(elem_by)(j, p, start + (strips == 1 ? i : i / width * row), n, o);
        for (ptrdiff_t l = 0; l < n; l += side) {
            const ptrdiff_t m = n - l < side ? n - l : side;
#pragma omp simd
            for (ptrdiff_t k = 0; k < m; k++)
                sum[k] += g[l + k];
            if (++added % 16 == 0)
                lf_add_run(sum, runs, (int)side);
        }
    }
    for (ptrdiff_t k = 0; k < side; k++)
        sum[k] += runs[k];
    for (ptrdiff_t k = width; k < side; k++)
        sum[k % width] += sum[k];
    for (ptrdiff_t k = 0; k < width; k++)
        j->folded[(part / pieces * row + c + k) * pieces + part % pieces] = sum[k];
}

/* Gradient by a broadcast argument: the job's dimensions are ordered so that each run of `fold` elements, or rows of `inner`, share one element of
 * it, or one row. */
static void NAME(elem_fold)(const LfElemJob *j, ptrdiff_t b) { j->inner > 1 ? NAME(elem_fold_rows)(j, b) : NAME(elem_fold_runs)(j, b); }

#undef T_SUMS
#undef T_ACC
#undef T_RUN
#undef T_RUNS
#undef T_TERMS
#undef T_FACTOR
