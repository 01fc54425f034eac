/* Between arrays of any dtype, stride and alignment and contiguous runs or tiles of T.
 *
 * A. Array elements are read and written through types of alignment 1 that may alias anything: misaligned views are no special case, and
 *    contiguous runs still become packed code.
 * B. lf_load and lf_store move runs. lf_load_tile and lf_store_tile move n positions x C classes to and from tile[c * W + l]; what they make
 *    fast is lanes contiguous (runs) and rows contiguous (transposition by blocks in registers).
 * C. Streaming goes past the caches in whole lines; lf_store_fence() orders those stores before whatever the thread publishes next.
 * D. Compiled once per instruction set, in pack.c, and called: copies in each kernel's object were a tenth of the library. */
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

static inline ptrdiff_t lf_itemsize(int dtype)
{
    static const signed char size[] = {2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1};
    return size[dtype];
}

static inline ptrdiff_t lf_distance(ptrdiff_t stride) { return stride < 0 ? -stride : stride; }

/* Byte offset of element i, in C order of a shape. */
static __attribute__((noinline)) ptrdiff_t lf_far_offset(const ptrdiff_t *shape, int ndim, const ptrdiff_t *stride, ptrdiff_t i)
{
    ptrdiff_t off = 0;
    for (int d = ndim - 1; d > 0; d--) {
        off += i % shape[d] * stride[d];
        i /= shape[d];
    }
    return off + i * stride[0];
}

static inline ptrdiff_t lf_offset(const ptrdiff_t *shape, int ndim, const ptrdiff_t *stride, ptrdiff_t i)
{
    return ndim == 1 ? i * stride[0] : lf_far_offset(shape, ndim, stride, i);
}

static inline void lf_store_fence(void)
{
#if defined __SSE2__
    _mm_sfence();
#endif
}

/* Runs of halves to float and back. float16 by the processor's conversion: 2 to 5 times the integer form's speed up, 4 to 10 times down; same
 * results but for the quiet bit of a NaN. bfloat16: gcc's own loop loads twice what it widens; mse_loss of 10^7 takes 1.3 times as long with it.
 * Return how many elements were done, a multiple of 8; the plain loop takes the rest. */
static inline ptrdiff_t lf_half_run_to_f32(float *restrict dst, const char *src, int dtype, ptrdiff_t n)
{
    ptrdiff_t i = 0;
#if defined __AVX512F__
    for (; dtype == LF_F16 && i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(src + 2 * i))));
    const __m512i upper = _mm512_slli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 16);
    for (; dtype == LF_BF16 && i + 16 <= n; i += 16) { /* a permutation costs 1.3 cycles less than widening and a shift, mse_loss 6.5 to 5.2 */
        const __m512i x = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(src + 2 * i)));
        _mm512_storeu_si512(dst + i, _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, upper, x));
    }
#elif defined __F16C__ && defined __AVX2__
    for (; dtype == LF_F16 && i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(src + 2 * i))));
    for (; dtype == LF_BF16 && i + 8 <= n; i += 8)
        _mm256_storeu_si256((void *)(dst + i), _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(src + 2 * i))), 16));
#else
    (void)dst, (void)src, (void)dtype, (void)n;
#endif
    return i;
}

/* dst[i] = the element at src + i stride, any dtype. */
#define lf_load_f32 LF_EXPORT(load_f32)
#define lf_load_f64 LF_EXPORT(load_f64)
void lf_load_f32(float *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t n);
void lf_load_f64(double *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t n);

/* The element at dst + i stride = src[i] rounded to a float dtype; stream: past the caches where contiguous. */
#define lf_store_f32 LF_EXPORT(store_f32)
#define lf_store_f64 LF_EXPORT(store_f64)
void lf_store_f32(char *dst, int dtype, ptrdiff_t stride, const float *restrict src, ptrdiff_t n, int stream);
void lf_store_f64(char *dst, int dtype, ptrdiff_t stride, const double *restrict src, ptrdiff_t n, int stream);

/* dst[r n + i] = the element at src + r step + i stride, for i < n and r < rows; and back. */
#define lf_load_rows_f32 LF_EXPORT(load_rows_f32)
#define lf_load_rows_f64 LF_EXPORT(load_rows_f64)
void lf_load_rows_f32(float *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t step, ptrdiff_t n, ptrdiff_t rows);
void lf_load_rows_f64(double *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t step, ptrdiff_t n, ptrdiff_t rows);
#define lf_store_rows_f32 LF_EXPORT(store_rows_f32)
#define lf_store_rows_f64 LF_EXPORT(store_rows_f64)
void lf_store_rows_f32(char *dst, int dtype, ptrdiff_t stride, ptrdiff_t step, const float *restrict src, ptrdiff_t n, ptrdiff_t rows, int stream);
void lf_store_rows_f64(char *dst, int dtype, ptrdiff_t stride, ptrdiff_t step, const double *restrict src, ptrdiff_t n, ptrdiff_t rows, int stream);

/* tile[c W + l] = the element at src + l step + c cstride, any dtype, for l < n and c < C. */
#define lf_load_tile_f32 LF_EXPORT(load_tile_f32)
#define lf_load_tile_f64 LF_EXPORT(load_tile_f64)
void lf_load_tile_f32(float *restrict tile, ptrdiff_t W, const char *src, int dtype, ptrdiff_t step, ptrdiff_t cstride, ptrdiff_t n, ptrdiff_t C);
void lf_load_tile_f64(double *restrict tile, ptrdiff_t W, const char *src, int dtype, ptrdiff_t step, ptrdiff_t cstride, ptrdiff_t n, ptrdiff_t C);

/* The element at dst + l step + c cstride = tile[c W + l], rounded to a float dtype. */
#define lf_store_tile_f32 LF_EXPORT(store_tile_f32)
#define lf_store_tile_f64 LF_EXPORT(store_tile_f64)
void lf_store_tile_f32(char *dst, int dtype, ptrdiff_t step, ptrdiff_t cstride, const float *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C,
                       int stream);
void lf_store_tile_f64(char *dst, int dtype, ptrdiff_t step, ptrdiff_t cstride, const double *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C,
                       int stream);

/* tile[c W + l] = the T at src + l step + c sizeof(T), for l < n and c < C; and back. */
#define lf_rows_to_tile_f32 LF_EXPORT(rows_to_tile_f32)
#define lf_rows_to_tile_f64 LF_EXPORT(rows_to_tile_f64)
void lf_rows_to_tile_f32(float *restrict tile, ptrdiff_t W, const char *src, ptrdiff_t step, ptrdiff_t n, ptrdiff_t C);
void lf_rows_to_tile_f64(double *restrict tile, ptrdiff_t W, const char *src, ptrdiff_t step, ptrdiff_t n, ptrdiff_t C);
#define lf_tile_to_rows_f32 LF_EXPORT(tile_to_rows_f32)
#define lf_tile_to_rows_f64 LF_EXPORT(tile_to_rows_f64)
void lf_tile_to_rows_f32(char *dst, ptrdiff_t step, const float *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C);
void lf_tile_to_rows_f64(char *dst, ptrdiff_t step, const double *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C);

#endif
