/* Vectors of as many doubles as the target has in a register, for ctc_lattice.h: GNU C vectors, whose arithmetic and constant shuffles are one
 * instruction each. GNU C has no maximum of vectors, and gcc 12 does not make one of a compare and a selection, hence the three intrinsics. */
#ifndef LF_CTC_VECTOR_H
#define LF_CTC_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined __SSE2__
#include <immintrin.h>
#endif

#if defined __AVX512F__
#define LANES 8
#elif defined __AVX__
#define LANES 4
#else
#define LANES 2
#endif
#define CTC_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VI){__VA_ARGS__})

typedef double V __attribute__((vector_size(8 * LANES), may_alias));
typedef double VU __attribute__((vector_size(8 * LANES), may_alias, aligned(1)));
typedef float VF __attribute__((vector_size(4 * LANES), may_alias, aligned(1)));
typedef int64_t VI __attribute__((vector_size(8 * LANES), may_alias));
typedef int32_t VH __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));

#define INLINE static inline __attribute__((always_inline))

INLINE V ctc_splat(double x) { return x - (V){0}; }
INLINE V ctc_select(VI mask, V a, V b) { return (V)((mask & (VI)a) | (~mask & (VI)b)); }
INLINE V ctc_where(VI mask, V a) { return (V)(mask & (VI)a); }

#if defined __AVX512F__
INLINE V ctc_max(V a, V b) { return (V)_mm512_max_pd((__m512d)a, (__m512d)b); }
INLINE V ctc_min(V a, V b) { return (V)_mm512_min_pd((__m512d)a, (__m512d)b); }
#elif defined __AVX__
INLINE V ctc_max(V a, V b) { return (V)_mm256_max_pd((__m256d)a, (__m256d)b); }
INLINE V ctc_min(V a, V b) { return (V)_mm256_min_pd((__m256d)a, (__m256d)b); }
#elif defined __SSE2__
INLINE V ctc_max(V a, V b) { return (V)_mm_max_pd((__m128d)a, (__m128d)b); }
INLINE V ctc_min(V a, V b) { return (V)_mm_min_pd((__m128d)a, (__m128d)b); }
#else
INLINE V ctc_max(V a, V b) { return ctc_select(a > b, a, b); }
INLINE V ctc_min(V a, V b) { return ctc_select(a < b, a, b); }
#endif

#if defined __AVX512F__ /* gcc 12 converts halves and joins them */
INLINE V ctc_widen(const VF *a) { return (V)_mm512_cvtps_pd((__m256)*a); }
INLINE VI ctc_at_most(const VH *a, ptrdiff_t x) { return (VI)_mm512_cvtepi32_epi64((__m256i)(*a <= (int32_t)x)); }
#else
INLINE V ctc_widen(const VF *a) { return __builtin_convertvector(*a, V); }
INLINE VI ctc_at_most(const VH *a, ptrdiff_t x) { return __builtin_convertvector(*a, V) <= (double)x; }
#endif

/* Lanes of a moved up by n, behind the last n of `left`. */
#if LANES == 8
#define CTC_MOVED(left, a, n) ((V)_mm512_alignr_epi64((__m512i)(a), (__m512i)(left), 8 - (n))) /* gcc 12 takes a slower one, with an index */
#elif LANES == 4
#define CTC_MOVED(left, a, n) ((n) == 1 ? CTC_SHUFFLE(left, a, 3, 4, 5, 6) : CTC_SHUFFLE(left, a, 2, 3, 4, 5))
#else
#define CTC_MOVED(left, a, n) CTC_SHUFFLE(left, a, 1, 2)
#endif

INLINE V ctc_previous(V left, V a) { return CTC_MOVED(left, a, 1); }

/* The vector at p, last lane first. */
INLINE V ctc_reversed(const double *p)
{
    const V a = (V) * (const VU *)p;
#if LANES == 8
    return CTC_SHUFFLE(a, a, 7, 6, 5, 4, 3, 2, 1, 0);
#elif LANES == 4
    return CTC_SHUFFLE(a, a, 3, 2, 1, 0);
#else
    return CTC_SHUFFLE(a, a, 1, 0);
#endif
}

/* a[l] becomes the largest of a[l], a[l-1] - s, a[l-2] - 2 s, ... and left[last] - (l + 1) s, for integers; `empty` is below all. */
INLINE V ctc_slope_max(V a, V left, V empty, double s)
{
#if LANES == 8
    const V slope = {0, s, 2 * s, 3 * s, 4 * s, 5 * s, 6 * s, 7 * s}, last = CTC_SHUFFLE(left, left, 7, 7, 7, 7, 7, 7, 7, 7);
#elif LANES == 4
    const V slope = {0, s, 2 * s, 3 * s}, last = CTC_SHUFFLE(left, left, 3, 3, 3, 3);
#else
    const V slope = {0, s}, last = CTC_SHUFFLE(left, left, 1, 1);
#endif
    a += slope;
    a = ctc_max(a, CTC_MOVED(empty, a, 1));
#if LANES >= 4
    a = ctc_max(a, CTC_MOVED(empty, a, 2));
#endif
#if LANES == 8
    a = ctc_max(a, CTC_MOVED(empty, a, 4));
#endif
    return ctc_max(a, last - s) - slope;
}

/* Sum of all lanes, pairwise. */
INLINE double ctc_sum(V a)
{
    double s[LANES];
    memcpy(s, &a, sizeof s);
    for (int h = LANES / 2; h; h /= 2)
        for (int l = 0; l < h; l++)
            s[l] += s[l + h];
    return s[0];
}

/* The largest of all lanes. */
INLINE double ctc_largest(V a)
{
#if LANES == 8
    a = ctc_max(a, CTC_SHUFFLE(a, a, 4, 5, 6, 7, 0, 1, 2, 3));
    a = ctc_max(a, CTC_SHUFFLE(a, a, 2, 3, 0, 1, 6, 7, 4, 5));
    a = ctc_max(a, CTC_SHUFFLE(a, a, 1, 0, 3, 2, 5, 4, 7, 6));
#elif LANES == 4
    a = ctc_max(a, CTC_SHUFFLE(a, a, 2, 3, 0, 1));
    a = ctc_max(a, CTC_SHUFFLE(a, a, 1, 0, 3, 2));
#else
    a = ctc_max(a, CTC_SHUFFLE(a, a, 1, 0));
#endif
    return a[0];
}

INLINE int ctc_any(VI mask)
{
    int64_t any = 0;
    for (int l = 0; l < LANES; l++)
        any |= mask[l];
    return any != 0;
}

/* 2^d for an integer d <= 1022; 2^-1022 below that. */
INLINE V ctc_pow2(V d) { return (V)((VI)(ctc_max(d, ctc_splat(-1022)) + (0x1.8p52 + 1023)) << 52); }

/* Integer n with 2^n <= m < 2^(n+1), m > 0 normal. */
INLINE V ctc_exponent(V m) { return (V)(((VI)m >> 52) | (VI)ctc_splat(0x1p52)) - (0x1p52 + 1023); }

/* m / 2^n for that n. */
INLINE V ctc_mantissa(V m) { return (V)(((VI)m & 0xfffffffffffff) | (VI)ctc_splat(1)); }

/* a[i][j] <-> a[j][i]. */
#define CTC_STAGE(h, LO, HI)                                                                                                                         \
    for (int i = 0; i < LANES; i++)                                                                                                                  \
        if (!(i & h)) {                                                                                                                              \
            const V lo = CTC_SHUFFLE(a[i], a[i + h], LO), hi = CTC_SHUFFLE(a[i], a[i + h], HI);                                                      \
            a[i] = lo, a[i + h] = hi;                                                                                                                \
        }
#define CTC_LIST(...) __VA_ARGS__

INLINE void ctc_transpose(V a[LANES])
{
#if LANES == 8
    CTC_STAGE(1, CTC_LIST(0, 8, 2, 10, 4, 12, 6, 14), CTC_LIST(1, 9, 3, 11, 5, 13, 7, 15))
    CTC_STAGE(2, CTC_LIST(0, 1, 4, 5, 8, 9, 12, 13), CTC_LIST(2, 3, 6, 7, 10, 11, 14, 15))
    CTC_STAGE(4, CTC_LIST(0, 1, 4, 5, 8, 9, 12, 13), CTC_LIST(2, 3, 6, 7, 10, 11, 14, 15))
#elif LANES == 4
    CTC_STAGE(1, CTC_LIST(0, 4, 2, 6), CTC_LIST(1, 5, 3, 7))
    CTC_STAGE(2, CTC_LIST(0, 1, 4, 5), CTC_LIST(2, 3, 6, 7))
#else
    CTC_STAGE(1, CTC_LIST(0, 2), CTC_LIST(1, 3))
#endif
}

#undef CTC_STAGE
#undef CTC_LIST

#endif
