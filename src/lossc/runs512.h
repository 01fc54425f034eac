/* Float rows on AVX-512: the exponential by a table that a register holds, halves of long rows read as they lie. Intrinsics, since gcc vectorises
 * neither: 10.4 cycles for 16 floats in cache, 10.3 for bfloat16, 11.4 for float16, where the loops of runs.h take 15.6, 17.7 and 17.7. A whole loss
 * of small rows takes 0.95 of the time.
 *
 * e(x) = K 2^(n - N + SHIFT) exp(r), n = round(16 x log2 e) / 16, |r| <= ln2 / 32. K = 0x1.067aa2p+0 makes every K 2^(j/16) a float to within
 * 0.15 ulp; Ref.f takes it back. Below Ref.floor e is 0; it is never subnormal. Relative error of e: 1.21 2^-24, at 0x1.bfc766p+2 (of all floats;
 * tests/test_accuracy.py); lf_mend leaves 0.16 more, and four vectors are added in float (of small rows two) before all is added in double: 2 (1)
 * more at worst. With what lf_exp_lost and the last rounding drop, e is known to 2^-28.4.
 * Lanes: vector k of four holds elements 16 k .. 16 k + 15; of bfloat16 the even, or odd, of elements 32 (k / 2) .. 32 (k / 2) + 31. */

#define LF_LN2 0x1.62e43p-1f
#define LF_LN2_OFF 0x1.05c61p-29
#define LF_QUAD 64
#define LF_EACH4 _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++)

/* K 2^(j/16) without the exponent's bias, less j << 19: so that adding the bits of a number with 4 fraction bits, at the exponent's place, is
 * scaling */
static const int32_t lf_exp_table[16] = {0x00033d51,  0x00010ccc,  -0x0000e1de, -0x00028bc2, -0x0003edd5, -0x000504e9, -0x0005cdac, -0x000644a6,
                                         -0x00066638, -0x00062e9b, -0x000599db, -0x0004a3d9, -0x00034846, -0x000182a4, 0x0000b1c0,  0x000359cd};

static inline Ref_f32 run_ref_f32(float m)
{
    Ref_f32 ref = row_ref_f32(m);
    ref.magic -= 0x1.8p23f - 0x1.8p19f; /* four fraction bits */
    ref.floor += 0.75f;                 /* where e is still normal */
    ref.f *= 1 / 0x1.067aa2p+0;
    return ref;
}

/* What that lacks of each, relative to it. */
static const float lf_exp_lost[16] = {0.000e+00f,  -5.473e-09f, 1.434e-08f, -2.764e-09f, -6.343e-09f, 1.347e-12f, 1.654e-08f,  1.193e-08f,
                                      -1.534e-08f, 1.554e-08f,  1.033e-08f, 1.678e-08f,  -1.250e-08f, 2.478e-09f, -4.753e-10f, 7.046e-10f};

/* x = e(x), of `count` vectors, step by step so that their chains overlap; lo: what they lack, unless it is NULL. Plain: x >= floor or NaN, and n ln2
 * is one product by LF_LN2, so too large by n LF_LN2_OFF. */
static inline void lf_exp_table16(__m512 *x, int count, __m512 magic, __m512 floor, int plain, __m512 *lo)
{
    const __m512i table = _mm512_loadu_si512(lf_exp_table);
    __m512 t[4], n[4], r[4], c[4];
    __m512i scale[4];
    __mmask16 in[4];
#define LF_EACH _Pragma("GCC unroll 4") for (int k = 0; k < count; k++)
    LF_EACH in[k] = plain ? (__mmask16)-1 : _mm512_cmp_ps_mask(x[k], floor, _CMP_NLT_UQ); /* NaN too */
    LF_EACH t[k] = _mm512_fmadd_ps(x[k], _mm512_set1_ps(T_LOG2E), magic);
    LF_EACH n[k] = _mm512_sub_ps(t[k], magic);
    LF_EACH r[k] = _mm512_fnmadd_ps(n[k], _mm512_set1_ps(plain ? LF_LN2 : T_LN2_HI), x[k]);
    LF_EACH r[k] = plain ? r[k] : _mm512_fnmadd_ps(n[k], _mm512_set1_ps(T_LN2_LO), r[k]);
    LF_EACH scale[k] = _mm512_permutexvar_epi32(_mm512_castps_si512(t[k]), table);
    LF_EACH scale[k] = _mm512_add_epi32(scale[k], _mm512_slli_epi32(_mm512_castps_si512(t[k]), 19));
    LF_EACH c[k] = _mm512_fmadd_ps(r[k], _mm512_set1_ps(0x1.555762p-3f), _mm512_set1_ps(0x1.00022p-1f)); /* exp(r) - 1 - r = c r^2 + 2^-29 */
    LF_EACH r[k] = _mm512_fmadd_ps(_mm512_mul_ps(r[k], r[k]), c[k], r[k]);
    LF_EACH x[k] = _mm512_maskz_fmadd_ps(in[k], _mm512_castsi512_ps(scale[k]), r[k], _mm512_castsi512_ps(scale[k]));
    if (lo) {
        LF_EACH lo[k] = _mm512_sub_ps(_mm512_castsi512_ps(scale[k]), x[k]);
        LF_EACH lo[k] = _mm512_maskz_fmadd_ps(in[k], _mm512_castsi512_ps(scale[k]), r[k], lo[k]);
        LF_EACH lo[k] = _mm512_fmadd_ps(x[k], _mm512_permutexvar_ps(_mm512_castps_si512(t[k]), _mm512_loadu_ps(lf_exp_lost)), lo[k]);
    }
#undef LF_EACH
}

/* s += terms of a fine sum and what they lack: of two or four vectors, of which the last may be 0, the lower halves and the upper ones */
static inline void lf_add_fine(__m512d s[2], const __m512 *y, const __m512 *lo, int count)
{
#define LF_UPPER(v) _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))
#define LF_LOWER(v) _mm512_cvtps_pd(_mm512_castps512_ps256(v))
    const __m512 low = count == 2 ? _mm512_add_ps(lo[0], lo[1]) : _mm512_add_ps(_mm512_add_ps(lo[0], lo[1]), _mm512_add_ps(lo[2], lo[3]));
    __m512d a = _mm512_add_pd(LF_LOWER(y[0]), LF_LOWER(y[1])), b = _mm512_add_pd(LF_UPPER(y[0]), LF_UPPER(y[1]));
    if (count == 4) {
        a = _mm512_add_pd(a, _mm512_add_pd(LF_LOWER(y[2]), LF_LOWER(y[3])));
        b = _mm512_add_pd(b, _mm512_add_pd(LF_UPPER(y[2]), LF_UPPER(y[3])));
    }
    s[0] = _mm512_add_pd(s[0], _mm512_add_pd(a, LF_LOWER(low)));
    s[1] = _mm512_add_pd(s[1], _mm512_add_pd(b, LF_UPPER(low)));
#undef LF_UPPER
#undef LF_LOWER
}

static inline float run_exp_f32(float x, float magic, float floor)
{
    __m512 e = _mm512_set1_ps(x);
    lf_exp_table16(&e, 1, _mm512_set1_ps(magic), _mm512_set1_ps(floor), 0, NULL);
    return _mm512_cvtss_f32(e);
}

/* o = e(x) of a group's rows */
static inline void group_exp_f32(float *o, const float *x, const float *magic, const float *floor)
{
    __m512 e = _mm512_loadu_ps(x);
    lf_exp_table16(&e, 1, _mm512_loadu_ps(magic), _mm512_loadu_ps(floor), 0, NULL);
    _mm512_storeu_ps(o, e);
}

/* Four vectors from p; of the last, n < LF_QUAD, those elements and -inf. */
static inline void lf_read4(__m512 x[4], const char *p, int dtype, ptrdiff_t n)
{
    const uint64_t in = n < LF_QUAD ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;
    const __m512i low = _mm512_set1_epi16((short)(dtype == LF_BF16 ? 0xff80 : 0xfc00)), high = _mm512_set1_epi32(-65536);
    LF_EACH4
    {
        const __m512i two = _mm512_mask_loadu_epi16(low, (__mmask32)(in >> 32 * (k / 2)), p + 64 * (k / 2));
        const __m256i one = _mm256_mask_loadu_epi16(_mm512_castsi512_si256(low), (__mmask16)(in >> 16 * k), p + 32 * k);
        if (dtype == LF_BF16)
            x[k] = _mm512_castsi512_ps(k % 2 ? _mm512_and_si512(two, high) : _mm512_slli_epi32(two, 16));
        else if (dtype == LF_F16)
            x[k] = _mm512_cvtph_ps(one);
        else
            x[k] = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(in >> 16 * k), p + 64 * k);
    }
}

/* ... and back into place */
static inline void lf_keep4(float *e, const __m512 y[4], int dtype, ptrdiff_t n)
{
    const uint64_t in = n < LF_QUAD ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;
    const __m512i left = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
                  right = _mm512_add_epi32(left, _mm512_set1_epi32(8));
    LF_EACH4
    {
        const __m512 placed = _mm512_permutex2var_ps(y[k & 2], k % 2 ? right : left, y[k | 1]);
        _mm512_mask_storeu_ps(e + 16 * k, (__mmask16)(in >> 16 * k), dtype == LF_BF16 ? placed : y[k]);
    }
}

/* The least of 32 words. */
static inline uint16_t lf_least_word(__m512i x)
{
    const __m256i a = _mm256_min_epu16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    return (uint16_t)_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_min_epu16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1))));
}

/* Halves are sign and magnitude: the largest is the largest signed word, unless all are negative; then the one of least magnitude. It may be NaN.
 * Unless `negative`, that of a run of negative ones comes out as some other of them, or -inf. */
static inline Extent_f32 extent_words(const char *p, ptrdiff_t n, int dtype, int whole, int negative)
{
    const __m512i none = _mm512_set1_epi16((short)(dtype == LF_BF16 ? 0xff80 : 0xfc00));
    const __m512i rest = _mm512_mask_loadu_epi16(none, (__mmask32)(((uint64_t)1 << n % 32) - 1), p + n / 32 * 64);
    __m512i most = rest, least = rest, low = whole ? _mm512_setzero_si512() : _mm512_set1_epi32(-1);
    for (; n >= 32; n -= 32, p += 64) {
        const __m512i x = _mm512_loadu_si512(p);
        most = _mm512_max_epi16(most, x), least = negative ? _mm512_min_epu16(least, x) : least, low = whole ? _mm512_max_epu16(low, x) : low;
    }
    const uint16_t positive = 0x7fff ^ lf_least_word(_mm512_xor_si512(most, _mm512_set1_epi16(0x7fff)));
    const uint16_t max = positive < 0x8000 ? positive : lf_least_word(least), min = ~lf_least_word(~low);
    return dtype == LF_BF16 ? (Extent_f32){lf_bf16_to_f32(max), BITS(lf_bf16_to_f32(min))}
                            : (Extent_f32){lf_f16_to_f32(max), BITS(lf_f16_to_f32(min))};
}

static inline Extent_f32 run_extent_f32(const void *x, ptrdiff_t n, int dtype, int whole, float above)
{
    const char *p = x;
    if (dtype != LF_F32)
        return above > 0 ? extent_words(p, n, dtype, 1, 0) : extent_words(p, n, dtype, whole, 1);
    __m512 m[4], v[4];
    __m512i low = whole ? _mm512_setzero_si512() : _mm512_set1_epi32(-1);
    lf_read4(v, p + n / LF_QUAD * (4 * LF_QUAD), dtype, n % LF_QUAD);
    LF_EACH4 m[k] = _mm512_max_ps(v[k], _mm512_set1_ps(-INFINITY)); /* drops NaN; the sum brings it back */
#pragma GCC unroll 1
    for (; n >= LF_QUAD; n -= LF_QUAD, p += 4 * LF_QUAD) {
        LF_EACH4 v[k] = _mm512_loadu_ps(p + 64 * k);
        LF_EACH4 m[k] = _mm512_max_ps(v[k], m[k]), low = whole ? _mm512_max_epu32(low, _mm512_castps_si512(v[k])) : low;
    }
    return (Extent_f32){_mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(m[0], m[1]), _mm512_max_ps(m[2], m[3]))), _mm512_reduce_max_epu32(low)};
}

/* One step of a sum: LF_QUAD elements, or, unless it is plain, the last n. */
static inline void run_step_f32(const char *p, ptrdiff_t n, int dtype, ptrdiff_t ahead, Ref_f32 ref, int plain, int masked, float m, __m512d acc[2],
                                ptrdiff_t *count, float *keep)
{
    const int fine = masked == LF_FINE;
    __m512 x[4], y[4], lo[4];
    lf_read4(x, p, dtype, n);
    for (ptrdiff_t i = 0; i < n * lf_itemsize(dtype); i += 64)
        __builtin_prefetch(p + ahead + i); /* of the next runs, or nothing */
    if (n == LF_QUAD) {
        LF_EACH4 y[k] = x[k];
        lf_exp_table16(y, 4, _mm512_set1_ps(ref.magic), _mm512_set1_ps(ref.floor), plain, fine ? lo : NULL);
    } else
        LF_EACH4
        {
            y[k] = lo[k] = _mm512_setzero_ps();
            if (n > (dtype == LF_BF16 ? 32 * (k / 2) : 16 * k)) {
                y[k] = x[k];
                lf_exp_table16(y + k, 1, _mm512_set1_ps(ref.magic), _mm512_set1_ps(ref.floor), 0, fine ? lo + k : NULL);
            }
        }
    if (!plain && keep)
        lf_keep4(keep, y, dtype, n);
    if (masked) {
        __mmask16 same[4];
        LF_EACH4 same[k] = _mm512_cmp_ps_mask(x[k], _mm512_set1_ps(m), _CMP_EQ_OQ);
        if (__builtin_expect(same[0] | same[1] | same[2] | same[3], 0))
            LF_EACH4 *count += __builtin_popcount(same[k]), y[k] = _mm512_maskz_mov_ps(~same[k], y[k]), lo[k] = _mm512_maskz_mov_ps(~same[k], lo[k]);
    }
    if (fine) {
        lf_add_fine(acc, y, lo, 4);
        return;
    }
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(y[0], y[1]), _mm512_add_ps(y[2], y[3]));
    acc[0] = _mm512_add_pd(acc[0], _mm512_cvtps_pd(_mm512_castps512_ps256(sum)));
    acc[1] = _mm512_add_pd(acc[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(sum, 1)));
}

static inline double lf_run_sum(const char *p, ptrdiff_t n, int dtype, ptrdiff_t ahead, Ref_f32 ref, int plain, int masked, float m, double *count,
                                float *keep)
{
    __m512d acc[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    ptrdiff_t ties = 0;
    for (; n >= LF_QUAD; n -= LF_QUAD, p += LF_QUAD * lf_itemsize(dtype), keep += keep ? LF_QUAD : 0)
        run_step_f32(p, LF_QUAD, dtype, ahead, ref, plain, masked, m, acc, &ties, keep);
    if (n && !plain)
        run_step_f32(p, n, dtype, ahead, ref, plain, masked, m, acc, &ties, keep);
    *count += (double)ties;
    return _mm512_reduce_add_pd(_mm512_add_pd(acc[0], acc[1]));
}

/* A sum of plain e, each of which lacks the factor 1 + LF_LN2_OFF n, n = x log2 e, with that of terms 2^-5 as large as itself: of 1 to LF_RUN terms
 * those that count are 2^-10 to 1, and no more than 5 2^-29 remains. */
static inline double lf_mend(double sum, Ref_f32 ref)
{
    const double n = (double)((int64_t)(lf_bits_f64(sum) >> 52) - 1023 - 5) - (double)(ref.magic - (0x1.8p19f + T_BIAS));
    return sum * (1 + LF_LN2_OFF * n);
}

/* Sum of e(x) over a run of floats or halves; with `masked`, elements equal to m are left out and counted, and all e are kept, unless keep is NULL;
 * with LF_FINE the sum is fine. The whole LF_QUADs of a run with nothing below the floor are plain, in rows of several runs, of which no e are kept. */
static double run_sum_f32(const void *x, ptrdiff_t n, int dtype, ptrdiff_t ahead, Ref_f32 ref, int masked, float m, Extent_f32 extent, double *count,
                          float *keep)
{
    const int plain = ref.floor < 0 && extent.low <= BITS(ref.floor);
    const ptrdiff_t whole = plain ? n & -LF_QUAD : 0;
    const char *p = x, *rest = p + whole * lf_itemsize(dtype);
    const float mask = masked ? m : NAN;
    double sum = 0;
#define LF_CASE(code)                                                                                                                                \
    case code:                                                                                                                                       \
        if (masked == LF_FINE)                                                                                                                       \
            return lf_run_sum(p, n, code, ahead, ref, 0, LF_FINE, m, count, keep);                                                                   \
        if (whole)                                                                                                                                   \
            sum = masked ? lf_run_sum(p, whole, code, ahead, ref, 1, 1, m, count, NULL)                                                              \
                         : lf_run_sum(p, whole, code, ahead, ref, 1, 0, m, count, NULL);                                                             \
        sum = lf_mend(sum, ref);                                                                                                                     \
        return n == whole ? sum : sum + lf_run_sum(rest, n - whole, code, ahead, ref, 0, 1, mask, count, masked ? keep : NULL);
    switch (dtype) {
        LF_CASE(LF_F16)
        LF_CASE(LF_BF16)
    default:
        LF_CASE(LF_F32)
    }
#undef LF_CASE
}

/* o = e(x) pf k, with e given or taken of x; pf k may lie below a float's reach */
static void emit_scaled_f32(float *o, const float *x, const float *e, ptrdiff_t n, float magic, float floor, float pf, float k)
{
    for (ptrdiff_t i = 0; i < n; i += 16) {
        const __mmask16 in = n - i < 16 ? (__mmask16)((1 << (n - i)) - 1) : (__mmask16)-1;
        __m512 v = _mm512_maskz_loadu_ps(in, (e ? e : x) + i);
        if (!e)
            lf_exp_table16(&v, 1, _mm512_set1_ps(magic), _mm512_set1_ps(floor), 0, NULL);
        _mm512_mask_storeu_ps(o + i, in, _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(pf)), _mm512_set1_ps(k)));
    }
}

/* One step of group_stats: `count` classes, two or one. */
static inline void group_step(const float *x, ptrdiff_t ld, int count, __m512 top, __m512 magic, __m512 floor, int fine, __m512d s[2],
                              __m512i *others, float *e)
{
    __m512 y[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, lo[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, sum;
    __mmask16 other[2];
#define LF_EACH _Pragma("GCC unroll 2") for (int k = 0; k < count; k++)
    LF_EACH y[k] = _mm512_loadu_ps(x + k * ld);
    LF_EACH other[k] = _mm512_cmp_ps_mask(y[k], top, _CMP_NEQ_UQ);
    LF_EACH *others = _mm512_mask_sub_epi32(*others, other[k], *others, _mm512_set1_epi32(-1));
    lf_exp_table16(y, count, magic, floor, 0, fine ? lo : NULL);
    LF_EACH if (e) _mm512_storeu_ps(e + k * LF_W, y[k]);
    if (fine) {
        LF_EACH y[k] = _mm512_maskz_mov_ps(other[k], y[k]), lo[k] = _mm512_maskz_mov_ps(other[k], lo[k]);
        lf_add_fine(s, y, lo, 2);
        return;
    }
#undef LF_EACH
    sum = _mm512_maskz_mov_ps(other[0], y[0]);
    sum = count == 2 ? _mm512_mask_add_ps(sum, other[1], sum, y[1]) : sum;
    s[0] = _mm512_add_pd(s[0], _mm512_cvtps_pd(_mm512_castps512_ps256(sum)));
    s[1] = _mm512_add_pd(s[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(sum, 1)));
}

static inline void lf_group_stats_f32(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, float *e, int fine, double *S)
{
    const __m512 top = _mm512_loadu_ps(ref.top), magic = _mm512_loadu_ps(ref.magic), floor = _mm512_loadu_ps(ref.floor);
    __m512d s[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    __m512i others = _mm512_set1_epi32(1 - (int)classes); /* less all but one */
    for (ptrdiff_t c = 0; c < classes - 1; c += 2)
        group_step(x + c * ld, ld, 2, top, magic, floor, fine, s, &others, e ? e + c * LF_W : NULL);
    if (classes % 2)
        group_step(x + (classes - 1) * ld, ld, 1, top, magic, floor, fine, s, &others, e ? e + (classes - 1) * LF_W : NULL);
    for (int h = 0; h < 2; h++) {
        const __m512d count = _mm512_cvtepi32_pd(h ? _mm512_extracti32x8_epi32(others, 1) : _mm512_castsi512_si256(others));
        _mm512_storeu_pd(S + 8 * h, _mm512_fmsub_pd(s[h], _mm512_loadu_pd(ref.f + 8 * h), count));
    }
}

LF_CALLED group_stats_fine(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, float *e, double *S)
{
    lf_group_stats_f32(x, ld, classes, ref, e, 1, S);
}

static inline void group_stats_f32(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, float *e, int fine, double *S)
{
    fine ? group_stats_fine(x, ld, classes, ref, e, S) : lf_group_stats_f32(x, ld, classes, ref, e, 0, S);
}

/* lf_run_sum of a group's rows of a tile: `words`, in the order of bfloat16. */
static inline void lf_group_lanes(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, float *e, int words, int plain, int fine,
                                  double *sum, double *ties)
{
    const __m512 top = _mm512_loadu_ps(ref.top), magic = _mm512_loadu_ps(ref.magic), floor = _mm512_loadu_ps(ref.floor);
    __m512d part[5][2];
    __m512i same = _mm512_setzero_si512();
    for (int b = 0; b < 16; b++) {
        const int lane = lf_tree_lane(b);
        int k = 0;
        __m512d s[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
        for (ptrdiff_t q = 0; q < classes; q += LF_QUAD) {
            __m512 y[4], lo[4];
            LF_EACH4
            {
                const ptrdiff_t c = q + (words ? 32 * (k / 2) + 2 * lane + k % 2 : 16 * k + lane);
                y[k] = lo[k] = _mm512_setzero_ps();
                if (c < classes) {
                    y[k] = _mm512_loadu_ps(x + c * ld);
                    const __mmask16 other = _mm512_cmp_ps_mask(y[k], top, _CMP_NEQ_UQ);
                    same = _mm512_mask_sub_epi32(same, ~other, same, _mm512_set1_epi32(-1));
                    lf_exp_table16(y + k, 1, magic, floor, plain, fine ? lo + k : NULL);
                    if (e)
                        _mm512_storeu_ps(e + c * ld, y[k]);
                    y[k] = _mm512_maskz_mov_ps(other, y[k]), lo[k] = _mm512_maskz_mov_ps(other, lo[k]);
                }
            }
            if (fine) {
                lf_add_fine(s, y, lo, 4);
                continue;
            }
            const __m512 sum = _mm512_add_ps(_mm512_add_ps(y[0], y[1]), _mm512_add_ps(y[2], y[3]));
            s[0] = _mm512_add_pd(s[0], _mm512_cvtps_pd(_mm512_castps512_ps256(sum)));
            s[1] = _mm512_add_pd(s[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(sum, 1)));
        }
        for (; b >> k & 1; k++)
            s[0] = _mm512_add_pd(s[0], part[k][0]), s[1] = _mm512_add_pd(s[1], part[k][1]);
        part[k][0] = s[0], part[k][1] = s[1];
    }
    for (int h = 0; h < 2; h++) {
        _mm512_storeu_pd(sum + 8 * h, part[4][h]);
        _mm512_storeu_pd(ties + 8 * h, _mm512_cvtepi32_pd(h ? _mm512_extracti32x8_epi32(same, 1) : _mm512_castsi512_si256(same)));
    }
}

LF_CALLED group_lanes(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, float *e, int words, int plain, int fine, double *sum,
                      double *ties)
{
    if (fine)
        lf_group_lanes(x, ld, classes, ref, e, words, 0, 1, sum, ties);
    else if (plain)
        lf_group_lanes(x, ld, classes, ref, NULL, words, 1, 0, sum, ties);
    else
        lf_group_lanes(x, ld, classes, ref, e, words, 0, 0, sum, ties);
}

/* How run_sum reads a group's rows: 1 those of several runs that are plain, 2 as floats those of bfloat16 that are far, 0 others */
static void group_ways(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, int dtype, int several, int *way)
{
    const ptrdiff_t whole = several ? classes & (dtype == LF_F32 ? -LF_QUAD : -32) : 0;
    uint32_t low[LF_GROUP] = {0};
    for (ptrdiff_t c = 0; c < whole; c++)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            low[l] = BITS(x[c * ld + l]) > low[l] ? BITS(x[c * ld + l]) : low[l];
    for (int l = 0; l < LF_GROUP; l++) {
        const int far = row_far_f32(ref.m[l]), plain = several && !far && ref.floor[l] < 0 && low[l] <= BITS(ref.floor[l]);
        way[l] = plain ? 1 : far && dtype == LF_BF16 ? 2 : 0;
    }
}

/* run_sum of a run of a group's rows of a tile, to the bit, and how many elements are the maximum; e keeps the exponentials, or is NULL. `several`: of
 * rows of several runs. */
static void group_sums_f32(const float *x, ptrdiff_t ld, ptrdiff_t classes, Refs_f32 ref, float *e, int dtype, int several, int fine, double *sum,
                           double *ties)
{
    const ptrdiff_t whole = classes & -LF_QUAD;
    const int words = dtype == LF_BF16;
    double s[LF_GROUP], t[LF_GROUP], rest[LF_GROUP] = {0}, rest_ties[LF_GROUP] = {0};
    int way[LF_GROUP], ways = 0;
    group_ways(x, ld, classes, ref, dtype, several && !fine, way);
    for (int l = 0; l < LF_GROUP; l++)
        ways |= 1 << way[l];
    for (int w = 0; w < 3; w++) {
        if (!(ways >> w & 1))
            continue;
        if (w == 1) {
            group_lanes(x, ld, whole, ref, NULL, words, 1, 0, s, t);
            if (classes > whole)
                group_lanes(x + whole * ld, ld, classes - whole, ref, NULL, words, 0, 0, rest, rest_ties);
            for (int l = 0; l < LF_GROUP; l++)
                s[l] = lf_mend(s[l], (Ref_f32){.magic = ref.magic[l]});
        } else
            group_lanes(x, ld, classes, ref, ways >> (w + 1) ? NULL : e, words && w == 0, 0, fine, s, t); /* e may be x */
        for (int l = 0; l < LF_GROUP; l++)
            if (way[l] == w)
                sum[l] = w == 1 ? s[l] + rest[l] : s[l], ties[l] = w == 1 ? t[l] + rest_ties[l] : t[l];
    }
}
#undef LF_QUAD
#undef LF_EACH4
