#include "prelude.h"

#include "pack.h"

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

static inline ptrdiff_t lf_f32_run_to_f16(char *dst, const float *restrict src, ptrdiff_t n)
{
    ptrdiff_t i = 0;
#if defined __F16C__
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(dst + 2 * i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    (void)dst, (void)src, (void)n;
#endif
    return i;
}

/* double to float, inexact results to the neighbour with an odd mantissa: rounding that once more, to 16 bits, is rounding x once. */
static inline float lf_to_odd(double x)
{
    float f = (float)x;
    double back = f;
    uint32_t u = lf_float_bits(f), toward_zero = u - (__builtin_fabs(back) > __builtin_fabs(x));
    return back == x || x != x ? f : lf_bits_float(toward_zero | 1);
}

/* Elements `stride` bytes apart to where they lie one behind the other: backwards and every second one in packed code. */
#define COLLECT(S)                                                                                                                                   \
    case sizeof(S): {                                                                                                                                \
        const S *p = (const void *)src;                                                                                                              \
        S *to = dst;                                                                                                                                 \
        if (stride == -(ptrdiff_t)sizeof(S))                                                                                                         \
            _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) to[i] = p[-i];                                                                     \
        else if (stride == 2 * sizeof(S))                                                                                                            \
            _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) to[i] = p[2 * i];                                                                  \
        else                                                                                                                                         \
            for (ptrdiff_t i = 0; i < n; i++)                                                                                                        \
                to[i] = *(const S *)(const void *)(src + i * stride);                                                                                \
        return;                                                                                                                                      \
    }

static __attribute__((noinline)) void lf_collect(void *restrict dst, const char *src, ptrdiff_t size, ptrdiff_t stride, ptrdiff_t n)
{
    switch (size) {
        COLLECT(lf_u8_u)
        COLLECT(lf_u16_u)
        COLLECT(lf_u32_u)
        COLLECT(lf_u64_u)
    }
}
#undef COLLECT

typedef LF_UNALIGNED(char) LfBytes16 __attribute__((vector_size(16)));
typedef LF_UNALIGNED(char) LfBytes32 __attribute__((vector_size(32)));
typedef LF_UNALIGNED(char) LfBytes64 __attribute__((vector_size(64)));

/* Rows of `bytes` each, `from` bytes apart, to rows `to` bytes apart: short ones by two moves, which overlap. */
#define MOVE(S, at) (*(S *)(void *)(dst + (at)) = *(const S *)(const void *)(src + (at)))
#define MOVES(S)                                                                                                                                     \
    for (; rows > 0; rows--, dst += to, src += from) {                                                                                               \
        __builtin_prefetch(src + LF_PACK_AHEAD);                                                                                                     \
        MOVE(S, 0);                                                                                                                                  \
        MOVE(S, bytes - (ptrdiff_t)sizeof(S));                                                                                                       \
    }

static __attribute__((noinline)) void lf_copy_rows(char *restrict dst, ptrdiff_t to, const char *restrict src, ptrdiff_t from, ptrdiff_t bytes,
                                                   ptrdiff_t rows)
{
    if (bytes <= 2)
        MOVES(lf_u8_u)
    else if (bytes <= 4)
        MOVES(lf_u16_u)
    else if (bytes <= 8)
        MOVES(lf_u32_u)
    else if (bytes <= 16)
        MOVES(lf_u64_u)
    else if (bytes <= 32)
        MOVES(LfBytes16)
    else if (bytes <= 64)
        MOVES(LfBytes32)
    else
        for (; rows > 0; rows--, dst += to, src += from)
            for (ptrdiff_t i = 0; i < bytes; i += 64) {
                const ptrdiff_t at = i + 64 <= bytes ? i : bytes - 64;
                __builtin_prefetch(src + at + LF_PACK_AHEAD);
                MOVE(LfBytes64, at);
            }
}
#undef MOVES
#undef MOVE

/* The lines of a run, before it is read or written. */
static inline void lf_fetch(const char *p, ptrdiff_t bytes, int write)
{
    for (ptrdiff_t i = -(ptrdiff_t)((uintptr_t)p & 63); i < bytes; i += 64)
        write ? __builtin_prefetch(p + i, 1) : __builtin_prefetch(p + i);
}

#define LF_CLASSES_AHEAD 24 /* of a tile that is moved class by class: a page or more apart, which no processor fetches by itself */
#define LF_CLASSES 256      /* of a tile between whose rows the cache must hold them */
#define LF_BOUNCE 512       /* elements on the stack between a conversion and a streaming store */
#define LF_SUBTILE 64       /* rows and classes of the part of a tile that is transposed on the stack */

#define LF_T_DOUBLE
#include "real.h"
#include "packing.h"
#undef LF_T_DOUBLE

#define LF_T_FLOAT
#include "real.h"
#include "packing.h"
