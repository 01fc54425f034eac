/* Between arrays of any dtype, stride and alignment and contiguous runs or tiles of T.
 *
 * A. Array elements are read and written through types of alignment 1 that may alias anything: misaligned views are no special case, and
 *    contiguous runs still become packed code.
 * B. lf_load and lf_store move runs. lf_load_tile and lf_store_tile move W positions x C classes to and from tile[c * W + l]; what they make
 *    fast is lanes contiguous (runs) and rows contiguous (transposition by blocks in registers).
 * C. Streaming goes past the caches in whole lines; lf_store_fence() orders those stores before whatever the thread publishes next. */
#ifndef LF_PACK_H
#define LF_PACK_H

#if defined __SSE2__
#include <immintrin.h>
#endif

#define LF_UNALIGNED(S) S __attribute__((aligned(1), may_alias))
typedef LF_UNALIGNED(float) lf_f32_u;
typedef LF_UNALIGNED(double) lf_f64_u;
typedef LF_UNALIGNED(int16_t) lf_i16_u;
typedef LF_UNALIGNED(int32_t) lf_i32_u;
typedef LF_UNALIGNED(int64_t) lf_i64_u;
typedef LF_UNALIGNED(uint16_t) lf_u16_u;
typedef LF_UNALIGNED(uint32_t) lf_u32_u;
typedef LF_UNALIGNED(uint64_t) lf_u64_u;
typedef LF_UNALIGNED(int8_t) lf_i8_u;
typedef LF_UNALIGNED(uint8_t) lf_u8_u;

#define LF_CHUNK 512     /* elements converted on the stack at a time */

#define LF_PART 64       /* rows and classes of the part of a tile that is transposed on the stack */

static inline ptrdiff_t lf_itemsize(int dtype)
{
    static const signed char size[] = { 2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1 };
    return size[dtype];
}

/* off[0], off[0] + step, off[0] + 2 step, ...? */
static inline int lf_evenly(const ptrdiff_t *off, ptrdiff_t step, ptrdiff_t n)
{
    int even = 1;
    for (ptrdiff_t l = 1; l < n; l++) even &= off[l] == off[0] + l * step;
    return even;
}

/* memcpy past the caches: whole 64-byte lines of dst are streamed, the ends before the first and after the last are stored. */
static void lf_stream_bytes(char *dst, const char *src, ptrdiff_t n)
{
#if defined __SSE2__
    ptrdiff_t head = (ptrdiff_t)(-(uintptr_t)dst & 63);
    head = head < n ? head : n;
    memcpy(dst, src, (size_t)head);
    ptrdiff_t i = head;
    for (; i + 64 <= n; i += 64) {
#if defined __AVX512F__
        _mm512_stream_si512((void *)(dst + i), _mm512_loadu_si512(src + i));
#elif defined __AVX__
        for (int k = 0; k < 64; k += 32)
            _mm256_stream_si256((void *)(dst + i + k), _mm256_loadu_si256((const void *)(src + i + k)));
#else
        for (int k = 0; k < 64; k += 16)
            _mm_stream_si128((void *)(dst + i + k), _mm_loadu_si128((const void *)(src + i + k)));
#endif
    }
    memcpy(dst + i, src + i, (size_t)(n - i));
#else
    memcpy(dst, src, (size_t)n);
#endif
}

static inline void lf_store_fence(void)
{
#if defined __SSE2__
    _mm_sfence();
#endif
}

/* double to float, inexact results to the neighbour with an odd mantissa: rounding that once more, to 16 bits, is rounding x once. */
static inline float lf_to_odd(double x)
{
    float f = (float)x;
    double back = f;
    uint32_t u = lf_float_bits(f), toward_zero = u - (__builtin_fabs(back) > __builtin_fabs(x));
    return back == x || x != x ? f : lf_bits_float(toward_zero | 1);
}

#endif

#ifdef LF_T_FLOAT
#define T_DTYPE LF_F32
#define T_UNALIGNED lf_f32_u
#define NARROW(x) (x)
#else
#define T_DTYPE LF_F64
#define T_UNALIGNED lf_f64_u
#define NARROW(x) lf_to_odd(x)
#endif

/* ---- runs --------------------------------------------------------------------------------------------------------------------------- */

#define LOAD_CASE(DTYPE, S, VALUE)                                                             \
    case DTYPE:                                                                                \
        if (stride == sizeof(S)) {                                                             \
            const S *p = (const void *)src;                                                    \
            _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) { S v = p[i]; dst[i] = (T)(VALUE); }            \
        } else                                                                                 \
            for (ptrdiff_t i = 0; i < n; i++) { S v = *(const S *)(const void *)(src + i * stride); dst[i] = (T)(VALUE); } \
        return;

/* dst[i] = the element at src + i stride, any dtype. */
static void NAME(lf_load)(T *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t n)
{
    if (dtype == T_DTYPE && stride == sizeof(T)) {
        memcpy(dst, src, (size_t)n * sizeof(T));
        return;
    }
    if (stride == 0 && n > 1) {
        NAME(lf_load)(dst, src, dtype, 1, 1);
        for (ptrdiff_t i = 1; i < n; i++) dst[i] = dst[0];
        return;
    }
    switch (dtype) {
    LOAD_CASE(LF_F16, lf_u16_u, lf_f16_to_f32(v))
    LOAD_CASE(LF_BF16, lf_u16_u, lf_bf16_to_f32(v))
    LOAD_CASE(LF_F32, lf_f32_u, v)
    LOAD_CASE(LF_F64, lf_f64_u, v)
    LOAD_CASE(LF_I8, lf_i8_u, v)
    LOAD_CASE(LF_I16, lf_i16_u, v)
    LOAD_CASE(LF_I32, lf_i32_u, v)
    LOAD_CASE(LF_I64, lf_i64_u, v)
    LOAD_CASE(LF_U8, lf_u8_u, v)
    LOAD_CASE(LF_U16, lf_u16_u, v)
    LOAD_CASE(LF_U32, lf_u32_u, v)
    LOAD_CASE(LF_U64, lf_u64_u, v)
    LOAD_CASE(LF_BOOL, lf_u8_u, v != 0)
    }
}

#define STORE_CASE(DTYPE, S, VALUE)                                                            \
    case DTYPE:                                                                                \
        if (stride == sizeof(S)) {                                                             \
            S *p = (void *)dst;                                                                \
            _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) { T v = src[i]; p[i] = (S)(VALUE); }            \
        } else                                                                                 \
            for (ptrdiff_t i = 0; i < n; i++) { T v = src[i]; *(S *)(void *)(dst + i * stride) = (S)(VALUE); }    \
        return;

/* The element at dst + i stride = src[i] rounded to a float dtype; stream: past the caches where contiguous. */
static void NAME(lf_store)(char *dst, int dtype, ptrdiff_t stride, const T *restrict src, ptrdiff_t n, int stream)
{
    if (stride == lf_itemsize(dtype) && dtype == T_DTYPE) {
        if (stream) lf_stream_bytes(dst, (const char *)src, n * stride);
        else memcpy(dst, src, (size_t)(n * stride));
        return;
    }
    if (stride == lf_itemsize(dtype) && stream) {
        double buffer[LF_CHUNK];
        for (ptrdiff_t i = 0; i < n; i += LF_CHUNK) {
            ptrdiff_t m = n - i < LF_CHUNK ? n - i : LF_CHUNK;
            NAME(lf_store)((char *)buffer, dtype, stride, src + i, m, 0);
            lf_stream_bytes(dst + i * stride, (const char *)buffer, m * stride);
        }
        return;
    }
    switch (dtype) {
    STORE_CASE(LF_F16, lf_u16_u, lf_f32_to_f16(NARROW(v)))
    STORE_CASE(LF_BF16, lf_u16_u, lf_f32_to_bf16(NARROW(v)))
    STORE_CASE(LF_F32, lf_f32_u, v)
    STORE_CASE(LF_F64, lf_f64_u, v)
    }
}

/* ---- transposition ------------------------------------------------------------------------------------------------------------------ */

#if defined __AVX__
#define VEC_BYTES 32
#else
#define VEC_BYTES 16
#endif
#define B (VEC_BYTES / ((ptrdiff_t)sizeof(T)))        /* blocks are B x B */
typedef T NAME(LfVec) __attribute__((vector_size(VEC_BYTES)));

/* v[i][j] <-> v[j][i], in the shuffles that are one instruction each: units of 1, 2 and 4 elements within 16-byte lanes, then the lanes. */
static inline void NAME(lf_flip)(NAME(LfVec) v[])
{
    NAME(LfVec) a[B];
#if defined LF_T_FLOAT && defined __AVX__
    for (int i = 0; i < 8; i += 2) {
        a[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            v[i + 2 * k] = __builtin_shufflevector(a[i + k], a[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            v[i + 2 * k + 1] = __builtin_shufflevector(a[i + k], a[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        a[i] = __builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        a[i + 4] = __builtin_shufflevector(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    memcpy(v, a, sizeof a);
#elif defined LF_T_FLOAT
    for (int i = 0; i < 4; i += 2) {
        a[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 4, 1, 5);
        a[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 6, 3, 7);
    }
    for (int k = 0; k < 2; k++) {
        v[2 * k] = __builtin_shufflevector(a[k], a[k + 2], 0, 1, 4, 5);
        v[2 * k + 1] = __builtin_shufflevector(a[k], a[k + 2], 2, 3, 6, 7);
    }
#elif defined __AVX__
    for (int i = 0; i < 4; i += 2) {
        a[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 4, 2, 6);
        a[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 5, 3, 7);
    }
    for (int k = 0; k < 2; k++) {
        v[k] = __builtin_shufflevector(a[k], a[k + 2], 0, 1, 4, 5);
        v[k + 2] = __builtin_shufflevector(a[k], a[k + 2], 2, 3, 6, 7);
    }
#else
    a[0] = __builtin_shufflevector(v[0], v[1], 0, 2);
    a[1] = __builtin_shufflevector(v[0], v[1], 1, 3);
    memcpy(v, a, sizeof a);
#endif
}

/* tile[c W + l] = the T at src + off[l] + c sizeof(T), for l < n and c < C.
 * The last blocks overlap the ones before them, so only n < B or C < B is left to the plain loop. */
static void NAME(lf_rows_to_tile)(T *restrict tile, ptrdiff_t W, const char *src, const ptrdiff_t *off, ptrdiff_t n, ptrdiff_t C)
{
    if (n < B || C < B) {
        for (ptrdiff_t c = 0; c < C; c++)
            for (ptrdiff_t l = 0; l < n; l++) tile[c * W + l] = *(const T_UNALIGNED *)(const void *)(src + off[l] + c * (ptrdiff_t)sizeof(T));
        return;
    }
    for (ptrdiff_t i = 0; i < n; i += B) {
        ptrdiff_t l = i + B < n ? i : n - B;
        for (ptrdiff_t j = 0; j < C; j += B) {
            ptrdiff_t c = j + B < C ? j : C - B;
            NAME(LfVec) v[B];
            for (int k = 0; k < B; k++) memcpy(&v[k], src + off[l + k] + c * (ptrdiff_t)sizeof(T), VEC_BYTES);
            NAME(lf_flip)(v);
            for (int k = 0; k < B; k++) memcpy(&tile[(c + k) * W + l], &v[k], VEC_BYTES);
        }
    }
}

/* The reverse. */
static void NAME(lf_tile_to_rows)(char *dst, const ptrdiff_t *off, const T *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C)
{
    if (n < B || C < B) {
        for (ptrdiff_t l = 0; l < n; l++)
            for (ptrdiff_t c = 0; c < C; c++) *(T_UNALIGNED *)(void *)(dst + off[l] + c * (ptrdiff_t)sizeof(T)) = tile[c * W + l];
        return;
    }
    for (ptrdiff_t i = 0; i < n; i += B) {
        ptrdiff_t l = i + B < n ? i : n - B;
        for (ptrdiff_t j = 0; j < C; j += B) {
            ptrdiff_t c = j + B < C ? j : C - B;
            NAME(LfVec) v[B];
            for (int k = 0; k < B; k++) memcpy(&v[k], &tile[(c + k) * W + l], VEC_BYTES);
            NAME(lf_flip)(v);
            for (int k = 0; k < B; k++) memcpy(dst + off[l + k] + c * (ptrdiff_t)sizeof(T), &v[k], VEC_BYTES);
        }
    }
}

/* ---- tiles -------------------------------------------------------------------------------------------------------------------------- */

/* tile[c W + l] = the element at src + off[l] + c cstride, any dtype. */
static void NAME(lf_load_tile)(T *restrict tile, const char *src, int dtype, const ptrdiff_t *off, ptrdiff_t cstride, ptrdiff_t W, ptrdiff_t C)
{
    ptrdiff_t item = lf_itemsize(dtype);
    if (lf_evenly(off, item, W)) {
        for (ptrdiff_t c = 0; c < C; c++) NAME(lf_load)(tile + c * W, src + off[0] + c * cstride, dtype, item, W);
    } else if (cstride == item && dtype == T_DTYPE) {
        NAME(lf_rows_to_tile)(tile, W, src, off, W, C);
    } else {
        int whole = cstride == item && C <= LF_PART && lf_evenly(off, C * item, W);      /* all rows are one run */
        T part[LF_PART * LF_PART];
        ptrdiff_t at[LF_PART];
        for (ptrdiff_t c = 0; c < C; c += LF_PART)
            for (ptrdiff_t l = 0; l < W; l += LF_PART) {
                ptrdiff_t m = C - c < LF_PART ? C - c : LF_PART, n = W - l < LF_PART ? W - l : LF_PART;
                for (ptrdiff_t k = 0; k < n; k++) {
                    at[k] = k * m * (ptrdiff_t)sizeof(T);
                    if (!whole) NAME(lf_load)(part + k * m, src + off[l + k] + c * cstride, dtype, cstride, m);
                }
                if (whole) NAME(lf_load)(part, src + off[l], dtype, item, n * m);
                NAME(lf_rows_to_tile)(tile + c * W + l, W, (const char *)part, at, n, m);
            }
    }
}

/* The element at dst + off[l] + c cstride = tile[c W + l], rounded to a float dtype. */
static void NAME(lf_store_tile)(char *dst, int dtype, const ptrdiff_t *off, ptrdiff_t cstride, const T *restrict tile, ptrdiff_t W, ptrdiff_t C,
                                int stream)
{
    ptrdiff_t item = lf_itemsize(dtype);
    if (lf_evenly(off, item, W)) {
        for (ptrdiff_t c = 0; c < C; c++) NAME(lf_store)(dst + off[0] + c * cstride, dtype, item, tile + c * W, W, stream);
    } else if (cstride == item && dtype == T_DTYPE && !stream) {
        NAME(lf_tile_to_rows)(dst, off, tile, W, W, C);
    } else {
        int whole = cstride == item && C <= LF_PART && lf_evenly(off, C * item, W);
        T part[LF_PART * LF_PART];
        ptrdiff_t at[LF_PART];
        for (ptrdiff_t c = 0; c < C; c += LF_PART)
            for (ptrdiff_t l = 0; l < W; l += LF_PART) {
                ptrdiff_t m = C - c < LF_PART ? C - c : LF_PART, n = W - l < LF_PART ? W - l : LF_PART;
                for (ptrdiff_t k = 0; k < n; k++) at[k] = k * m * (ptrdiff_t)sizeof(T);
                NAME(lf_tile_to_rows)((char *)part, at, tile + c * W + l, W, n, m);
                if (whole) NAME(lf_store)(dst + off[l], dtype, item, part, n * m, stream);
                else
                    for (ptrdiff_t k = 0; k < n; k++)
                        NAME(lf_store)(dst + off[l + k] + c * cstride, dtype, cstride, part + k * m, m, stream);
            }
    }
}

#undef T_DTYPE
#undef T_UNALIGNED
#undef NARROW
#undef LOAD_CASE
#undef STORE_CASE
#undef VEC_BYTES
#undef B
