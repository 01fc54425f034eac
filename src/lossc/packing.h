/* The functions of pack.h in one T. pack.c includes it for each. */

#ifdef LF_T_FLOAT
#define T_UNALIGNED lf_f32_u
#define NARROW(x) (x)
#else
#define T_UNALIGNED lf_f64_u
#define NARROW(x) lf_to_odd(x)
#endif

/* ---- runs --------------------------------------------------------------------------------------------------------------------------- */

#define LOAD_CASE(DTYPE, S, VALUE)                                                                                                                   \
    case DTYPE: {                                                                                                                                    \
        const S *p = (const void *)src;                                                                                                              \
        _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++)                                                                                        \
        {                                                                                                                                            \
            S v = p[i];                                                                                                                              \
            dst[i] = (T)(VALUE);                                                                                                                     \
        }                                                                                                                                            \
        return;                                                                                                                                      \
    }

void NAME(lf_load)(T *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t n)
{
    if (dtype == T_CODE && stride == sizeof(T)) {
        memcpy(dst, src, (size_t)n * sizeof(T));
        return;
    }
    if (stride == 0 && n > 1) {
        dtype == T_CODE ? (void)memcpy(dst, src, sizeof(T)) : NAME(lf_load)(dst, src, dtype, lf_itemsize(dtype), 1);
        const T v = dst[0];
#pragma omp simd
        for (ptrdiff_t i = 1; i < n; i++)
            dst[i] = v;
        return;
    }
    if (stride != lf_itemsize(dtype) && dtype == T_CODE) {
        lf_collect(dst, src, lf_itemsize(dtype), stride, n);
        return;
    }
    if (stride != lf_itemsize(dtype)) {
        double buffer[LF_BOUNCE];
        for (ptrdiff_t i = 0; i < n; i += LF_BOUNCE) {
            const ptrdiff_t m = n - i < LF_BOUNCE ? n - i : LF_BOUNCE;
            lf_collect(buffer, src + i * stride, lf_itemsize(dtype), stride, m);
            NAME(lf_load)(dst + i, (const char *)buffer, dtype, lf_itemsize(dtype), m);
        }
        return;
    }
#ifdef LF_T_FLOAT
    if (dtype == LF_F16 || dtype == LF_BF16) {
        ptrdiff_t done = lf_half_run_to_f32(dst, src, dtype, n);
        if (done >= 16 && done < n) /* the last of them with some before them again */
            done = n - 16 + lf_half_run_to_f32(dst + n - 16, src + 2 * (n - 16), dtype, 16);
        dst += done, src += 2 * done, n -= done;
    }
#endif
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

#define STORE_CASE(DTYPE, S, VALUE)                                                                                                                  \
    case DTYPE:                                                                                                                                      \
        if (stride == sizeof(S)) {                                                                                                                   \
            S *p = (void *)dst;                                                                                                                      \
            _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++)                                                                                    \
            {                                                                                                                                        \
                T v = src[i];                                                                                                                        \
                p[i] = (S)(VALUE);                                                                                                                   \
            }                                                                                                                                        \
        } else                                                                                                                                       \
            for (ptrdiff_t i = 0; i < n; i++) {                                                                                                      \
                T v = src[i];                                                                                                                        \
                *(S *)(void *)(dst + i * stride) = (S)(VALUE);                                                                                       \
            }                                                                                                                                        \
        return;

__attribute__((noinline, noclone)) void NAME(lf_store)(char *dst, int dtype, ptrdiff_t stride, const T *restrict src, ptrdiff_t n, int stream)
{
    if (stride == lf_itemsize(dtype) && dtype == T_CODE) {
        if (stream)
            lf_stream_bytes(dst, (const char *)src, n * stride);
        else
            memcpy(dst, src, (size_t)(n * stride));
        return;
    }
    if (stride == lf_itemsize(dtype) && stream) {
        double buffer[LF_BOUNCE];
        for (ptrdiff_t i = 0; i < n; i += LF_BOUNCE) {
            ptrdiff_t m = n - i < LF_BOUNCE ? n - i : LF_BOUNCE;
            NAME(lf_store)((char *)buffer, dtype, stride, src + i, m, 0);
            lf_stream_bytes(dst + i * stride, (const char *)buffer, m * stride);
        }
        return;
    }
#ifdef LF_T_FLOAT
    if (dtype == LF_F16 && stride == 2) {
        ptrdiff_t done = lf_f32_run_to_f16(dst, src, n);
        dst += 2 * done, src += done, n -= done;
    }
#endif
    switch (dtype) {
        STORE_CASE(LF_F16, lf_u16_u, lf_f32_to_f16(NARROW(v)))
        STORE_CASE(LF_BF16, lf_u16_u, lf_f32_to_bf16(NARROW(v)))
        STORE_CASE(LF_F32, lf_f32_u, v)
        STORE_CASE(LF_F64, lf_f64_u, v)
    }
}

/* Each of the numbers n times; what goes beyond is written over by the next, so that the last ones, of which none comes, are written one by one. */
static inline void NAME(lf_spread)(T *restrict dst, const T *number, ptrdiff_t n, ptrdiff_t numbers, const I width)
{
    const ptrdiff_t whole = (n + width - 1) & -(ptrdiff_t)width;
    for (ptrdiff_t r = 0; r < numbers; r++, dst += n) {
        const T v = number[r];
        if (whole <= (numbers - r) * n)
            for (ptrdiff_t i = 0; i < whole; i += width)
#pragma omp simd
                for (I l = 0; l < width; l++)
                    dst[i + l] = v;
        else
            for (ptrdiff_t i = 0; i < n; i++)
                dst[i] = v;
    }
}

/* Rows that are no runs of T. A function of its own, for its buffers. */
static __attribute__((noinline)) void NAME(lf_gather_rows)(T *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t step, ptrdiff_t n,
                                                           ptrdiff_t rows)
{
    const ptrdiff_t item = lf_itemsize(dtype), size = n * rows;
    if (stride == 0 && dtype == T_CODE && (rows == 1 || n >= 32))
        for (ptrdiff_t r = 0; r < rows; r++, src += step, dst += n) {
            const T v = *(const T_UNALIGNED *)(const void *)src;
#pragma omp simd
            for (ptrdiff_t i = 0; i < n; i++)
                dst[i] = v;
        }
    else if (rows == 1)
        NAME(lf_load)(dst, src, dtype, stride, n);
    else if (step == 0) { /* one row over and over */
        NAME(lf_load)(dst, src, dtype, stride, n);
        if (n >= 32)
            lf_copy_rows((char *)(dst + n), n * (ptrdiff_t)sizeof(T), (const char *)dst, 0, n * (ptrdiff_t)sizeof(T), rows - 1);
        for (ptrdiff_t done = n; n < 32 && done < size; done += done)
            memcpy(dst + done, dst, (size_t)(done < size - done ? done : size - done) * sizeof(T));
    } else if (stride == 0)
        for (ptrdiff_t r = 0, m; r < rows; r += m) {
            T number[LF_BOUNCE];
            m = rows - r < LF_BOUNCE ? rows - r : LF_BOUNCE;
            NAME(lf_load)(number, src + r * step, dtype, step, m);
            n > 8 ? NAME(lf_spread)(dst + r * n, number, n, m, 64 / sizeof(T)) : NAME(lf_spread)(dst + r * n, number, n, m, 16 / sizeof(T));
        }
    else if (lf_distance(step) < lf_distance(stride))
        NAME(lf_load_tile)(dst, n, src, dtype, stride, step, n, rows);
    else if (stride != item || n > LF_BOUNCE / 2)
        for (ptrdiff_t r = 0; r < rows; r++)
            NAME(lf_load)(dst + r * n, src + r * step, dtype, stride, n);
    else
        for (ptrdiff_t r = 0, m; r < rows; r += m) {
            double buffer[LF_BOUNCE];
            const ptrdiff_t group = LF_BOUNCE / n;
            m = rows - r < group ? rows - r : group;
            lf_copy_rows((char *)buffer, n * item, src + r * step, step, n * item, m);
            NAME(lf_load)(dst + r * n, (const char *)buffer, dtype, item, n * m);
        }
}

void NAME(lf_load_rows)(T *restrict dst, const char *src, int dtype, ptrdiff_t stride, ptrdiff_t step, ptrdiff_t n, ptrdiff_t rows)
{
    const ptrdiff_t item = sizeof(T);
    if (stride == item && dtype == T_CODE && (rows == 1 || lf_distance(step) >= item))
        lf_copy_rows((char *)dst, n * item, src, step, n * item, rows);
    else
        NAME(lf_gather_rows)(dst, src, dtype, stride, step, n, rows);
}

void NAME(lf_store_rows)(char *dst, int dtype, ptrdiff_t stride, ptrdiff_t step, const T *restrict src, ptrdiff_t n, ptrdiff_t rows, int stream)
{
    const ptrdiff_t item = lf_itemsize(dtype), group = rows > 1 ? LF_BOUNCE / n : 0;
    if (rows > 1 && lf_distance(step) < lf_distance(stride))
        NAME(lf_store_tile)(dst, dtype, stride, step, src, n, n, rows, stream);
    else if (stride != item || group < 2)
        for (ptrdiff_t r = 0; r < rows; r++)
            NAME(lf_store)(dst + r * step, dtype, stride, src + r * n, n, stream);
    else if (dtype == T_CODE)
        lf_copy_rows(dst, step, (const char *)src, n * item, n * item, rows);
    else
        for (ptrdiff_t r = 0, m; r < rows; r += m) {
            double buffer[LF_BOUNCE];
            m = rows - r < group ? rows - r : group;
            NAME(lf_store)((char *)buffer, dtype, item, src + r * n, n * m, 0);
            lf_copy_rows(dst + r * step, step, (const char *)buffer, n * item, n * item, m);
        }
}

/* ---- transposition ------------------------------------------------------------------------------------------------------------------ */

/* A block is SEG classes x B lanes. On the row side it consists of B segments of 16 bytes, SEG classes of one row each, held by SEG vectors of
 * SPAN segments; flipping segments in their place makes vector k hold class k of all lanes, which is how the tile has it.
 *
 *     vector k: row k, c..c+3 | row k + 4, c..c+3     <->     class c + k: lanes 0..3 | lanes 4..7           (float, SPAN = 2) */
#define SEG (16 / (ptrdiff_t)sizeof(T))
#if defined __AVX__
#define SPAN 2
#else
#define SPAN 1
#endif
#define B (SPAN * SEG)
typedef T NAME(LfSegment) __attribute__((vector_size(16), aligned(1), may_alias));
typedef T NAME(LfLanes) __attribute__((vector_size(16 * SPAN), aligned(1), may_alias));

/* __builtin_shufflevector(a, b, ...) in each segment. */
#define UP(i) ((i) < SEG ? (i) : (i) + (SPAN - 1) * SEG)
#if defined LF_T_FLOAT && SPAN == 2
#define SHUFFLE(a, b, i, j, k, m) __builtin_shufflevector(a, b, UP(i), UP(j), UP(k), UP(m), UP(i) + 4, UP(j) + 4, UP(k) + 4, UP(m) + 4)
#elif defined LF_T_FLOAT
#define SHUFFLE(a, b, i, j, k, m) __builtin_shufflevector(a, b, i, j, k, m)
#elif SPAN == 2
#define SHUFFLE(a, b, i, j) __builtin_shufflevector(a, b, UP(i), UP(j), UP(i) + 2, UP(j) + 2)
#else
#define SHUFFLE(a, b, i, j) __builtin_shufflevector(a, b, i, j)
#endif

static inline void NAME(lf_flip)(NAME(LfLanes) v[])
{
#ifdef LF_T_FLOAT
    NAME(LfLanes) a = SHUFFLE(v[0], v[1], 0, 4, 1, 5), b = SHUFFLE(v[0], v[1], 2, 6, 3, 7);
    NAME(LfLanes) c = SHUFFLE(v[2], v[3], 0, 4, 1, 5), d = SHUFFLE(v[2], v[3], 2, 6, 3, 7);
    v[0] = SHUFFLE(a, c, 0, 1, 4, 5);
    v[1] = SHUFFLE(a, c, 2, 3, 6, 7);
    v[2] = SHUFFLE(b, d, 0, 1, 4, 5);
    v[3] = SHUFFLE(b, d, 2, 3, 6, 7);
#else
    NAME(LfLanes) a = v[0];
    v[0] = SHUFFLE(a, v[1], 0, 2);
    v[1] = SHUFFLE(a, v[1], 1, 3);
#endif
}

/* The segments of rows 0, SEG, ... from src on. */
static inline NAME(LfLanes) NAME(lf_join)(const char *src, ptrdiff_t step)
{
    NAME(LfSegment) a = *(const NAME(LfSegment) *)(const void *)src;
#if SPAN == 1
    return a;
#else
    NAME(LfSegment) b = *(const NAME(LfSegment) *)(const void *)(src + SEG * step);
#ifdef LF_T_FLOAT
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#else
    return __builtin_shufflevector(a, b, 0, 1, 2, 3);
#endif
#endif
}

static inline void NAME(lf_part)(char *dst, ptrdiff_t step, NAME(LfLanes) v)
{
#if SPAN == 1
    *(NAME(LfSegment) *)(void *)dst = v;
#elif defined LF_T_FLOAT
    *(NAME(LfSegment) *)(void *)dst = __builtin_shufflevector(v, v, 0, 1, 2, 3);
    *(NAME(LfSegment) *)(void *)(dst + SEG * step) = __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    *(NAME(LfSegment) *)(void *)dst = __builtin_shufflevector(v, v, 0, 1);
    *(NAME(LfSegment) *)(void *)(dst + SEG * step) = __builtin_shufflevector(v, v, 2, 3);
#endif
}

#ifdef LF_T_FLOAT
/* Two or three classes: blocks of 2 classes x 4 lanes, the two floats of a row moving as one double. */
typedef float LfQuad __attribute__((vector_size(16), aligned(1), may_alias));
typedef double LfTwo __attribute__((vector_size(16)));

static void lf_pairs_to_tile(float *restrict tile, ptrdiff_t W, const char *src, ptrdiff_t step, ptrdiff_t n, ptrdiff_t C)
{
    for (ptrdiff_t i = 0; i < n; i += 4)
        for (ptrdiff_t c = 0; c <= C - 2; c++) {
            ptrdiff_t l = i + 4 < n ? i : n - 4;
            const lf_f64_u *p[4];
            _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++) p[k] = (const void *)(src + (l + k) * step + 4 * c);
            LfQuad a = (LfQuad)(LfTwo){*p[0], *p[1]}, b = (LfQuad)(LfTwo){*p[2], *p[3]};
            *(LfQuad *)(void *)(tile + c * W + l) = __builtin_shufflevector(a, b, 0, 2, 4, 6);
            *(LfQuad *)(void *)(tile + (c + 1) * W + l) = __builtin_shufflevector(a, b, 1, 3, 5, 7);
        }
}

static void lf_tile_to_pairs(char *dst, ptrdiff_t step, const float *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C)
{
    for (ptrdiff_t i = 0; i < n; i += 4)
        for (ptrdiff_t c = 0; c <= C - 2; c++) {
            ptrdiff_t l = i + 4 < n ? i : n - 4;
            LfQuad a = *(const LfQuad *)(const void *)(tile + c * W + l), b = *(const LfQuad *)(const void *)(tile + (c + 1) * W + l);
            LfTwo x = (LfTwo)__builtin_shufflevector(a, b, 0, 4, 1, 5), y = (LfTwo)__builtin_shufflevector(a, b, 2, 6, 3, 7);
            double pair[4] = {x[0], x[1], y[0], y[1]};
            _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++) * (lf_f64_u *)(void *)(dst + (l + k) * step + 4 * c) = pair[k];
        }
}
#endif

static inline void NAME(lf_block_to_tile)(T *restrict to, ptrdiff_t W, const char *p, ptrdiff_t step)
{
    NAME(LfLanes) v[SEG];
    _Pragma("GCC unroll 4") for (int k = 0; k < SEG; k++) v[k] = NAME(lf_join)(p + k * step, step);
    NAME(lf_flip)(v);
    _Pragma("GCC unroll 4") for (int k = 0; k < SEG; k++) * (NAME(LfLanes) *)(void *)(to + k * W) = v[k];
}

/* Even steps, since offsets would not fit into registers. The last blocks overlap the ones before them, so only few lanes or a single class are left
 * to the plain loop. Few classes at a time, whose lines of the tile then stay in the first-level cache: 20 lanes of 5000 take 0.114 ns each and not
 * 0.155. */
void NAME(lf_rows_to_tile)(T *restrict tile, ptrdiff_t W, const char *src, ptrdiff_t step, ptrdiff_t n, ptrdiff_t C)
{
#ifdef LF_T_FLOAT
    if (n >= 4 && (C == 2 || C == 3)) {
        lf_pairs_to_tile(tile, W, src, step, n, C);
        return;
    }
#endif
    if (n < B || C < SEG) {
        for (ptrdiff_t c = 0; c < C; c++)
            for (ptrdiff_t l = 0; l < n; l++)
                tile[c * W + l] = *(const T_UNALIGNED *)(const void *)(src + l * step + c * (ptrdiff_t)sizeof(T));
        return;
    }
    for (ptrdiff_t first = 0; first < C; first += LF_CLASSES) {
        const ptrdiff_t end = C - first < LF_CLASSES ? C : first + LF_CLASSES;
        for (ptrdiff_t i = 0; i < n; i += B) {
            const ptrdiff_t l = i + B < n ? i : n - B;
            for (ptrdiff_t j = first; j < end; j += SEG) {
                const ptrdiff_t c = j + SEG < C ? j : C - SEG;
                NAME(lf_block_to_tile)(tile + c * W + l, W, src + l * step + c * (ptrdiff_t)sizeof(T), step);
            }
        }
    }
}

void NAME(lf_tile_to_rows)(char *dst, ptrdiff_t step, const T *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C)
{
#ifdef LF_T_FLOAT
    if (n >= 4 && (C == 2 || C == 3)) {
        lf_tile_to_pairs(dst, step, tile, W, n, C);
        return;
    }
#endif
    if (n < B || C < SEG) {
        for (ptrdiff_t l = 0; l < n; l++)
            for (ptrdiff_t c = 0; c < C; c++)
                *(T_UNALIGNED *)(void *)(dst + l * step + c * (ptrdiff_t)sizeof(T)) = tile[c * W + l];
        return;
    }
    for (ptrdiff_t i = 0; i < n; i += B) {
        ptrdiff_t l = i + B < n ? i : n - B;
        for (ptrdiff_t j = 0; j < C; j += SEG) {
            ptrdiff_t c = j + SEG < C ? j : C - SEG;
            NAME(LfLanes) v[SEG];
            _Pragma("GCC unroll 4") for (int k = 0; k < SEG; k++) v[k] = *(const NAME(LfLanes) *)(const void *)(tile + (c + k) * W + l);
            NAME(lf_flip)(v);
            char *p = dst + l * step + c * (ptrdiff_t)sizeof(T);
            _Pragma("GCC unroll 4") for (int k = 0; k < SEG; k++) NAME(lf_part)(p + k * step, step, v[k]);
        }
    }
}

#ifdef LF_T_FLOAT
/* Rows of halves: two neighbours of a row move as one float, of which the first is the lower half, and part afterwards. */
static void lf_halves_to_tile(float *restrict tile, ptrdiff_t W, const char *src, int dtype, ptrdiff_t step, ptrdiff_t n, ptrdiff_t C)
{
    enum { LANES = 256, PAIRS = 16, APART = LANES + 16 }; /* not a power of two apart: those meet in one set of the cache */
    float part[PAIRS * APART];
    uint16_t half[2][LANES];
    for (ptrdiff_t l = 0; l < n; l += LANES)
        for (ptrdiff_t c = 0; c < C / 2; c += PAIRS) {
            const ptrdiff_t lanes = n - l < LANES ? n - l : LANES, pairs = C / 2 - c < PAIRS ? C / 2 - c : PAIRS;
            lf_rows_to_tile_f32(part, APART, src + l * step + 4 * c, step, lanes, pairs);
            for (ptrdiff_t k = 0; k < pairs; k++) {
                const lf_u32_u *both = (const void *)(part + k * APART);
                float *to = tile + 2 * (c + k) * W + l;
#pragma omp simd
                for (ptrdiff_t i = 0; i < lanes; i++)
                    half[0][i] = (uint16_t)both[i], half[1][i] = (uint16_t)(both[i] >> 16);
                for (int q = 0; q < 2; q++)
                    lf_load_f32(to + q * W, (const char *)half[q], dtype, 2, lanes);
            }
        }
    if (C % 2)
        lf_halves_to_tile(tile + (C - 2) * W, W, src + 2 * (C - 2), dtype, step, n, 2);
}
#endif

/* ---- tiles -------------------------------------------------------------------------------------------------------------------------- */

/* Lie the positions of a tile nearer to one another than its classes? Then it is moved class by class. */
#define CLASSWISE (n > 1 && lf_distance(step) <= lf_distance(cstride))

void NAME(lf_load_tile)(T *restrict tile, ptrdiff_t W, const char *src, int dtype, ptrdiff_t step, ptrdiff_t cstride, ptrdiff_t n, ptrdiff_t C)
{
    const ptrdiff_t item = lf_itemsize(dtype);
    if (CLASSWISE) {
        for (ptrdiff_t c = 0; c < C; c++) {
            if (c + LF_CLASSES_AHEAD < C)
                lf_fetch(src + (c + LF_CLASSES_AHEAD) * cstride, n * item, 0);
            NAME(lf_load)(tile + c * W, src + c * cstride, dtype, step, n);
        }
    } else if (cstride == item && dtype == T_CODE) {
        NAME(lf_rows_to_tile)(tile, W, src, step, n, C);
#ifdef LF_T_FLOAT
    } else if (cstride == item && dtype <= LF_BF16 && C >= 2 * SEG && (step != C * item || C > LF_SUBTILE)) {
        lf_halves_to_tile(tile, W, src, dtype, step, n, C);
#endif
    } else {
        const int whole = step == C * cstride && C <= LF_SUBTILE; /* all rows are one run */
        T part[LF_SUBTILE * LF_SUBTILE];
        for (ptrdiff_t c = 0; c < C; c += LF_SUBTILE)
            for (ptrdiff_t l = 0; l < n; l += LF_SUBTILE) {
                const ptrdiff_t m = C - c < LF_SUBTILE ? C - c : LF_SUBTILE, rows = n - l < LF_SUBTILE ? n - l : LF_SUBTILE;
                if (whole)
                    NAME(lf_load)(part, src + l * step, dtype, cstride, rows * m);
                for (ptrdiff_t k = 0; !whole && k < rows; k++)
                    NAME(lf_load)(part + k * m, src + (l + k) * step + c * cstride, dtype, cstride, m);
                NAME(lf_rows_to_tile)(tile + c * W + l, W, (const char *)part, m * (ptrdiff_t)sizeof(T), rows, m);
            }
    }
}

void NAME(lf_store_tile)(char *dst, int dtype, ptrdiff_t step, ptrdiff_t cstride, const T *restrict tile, ptrdiff_t W, ptrdiff_t n, ptrdiff_t C,
                         int stream)
{
    const ptrdiff_t item = lf_itemsize(dtype);
    if (CLASSWISE) {
        for (ptrdiff_t c = 0; c < C; c++) {
            char *p = dst + c * cstride;
            if (!stream && c + LF_CLASSES_AHEAD < C)
                lf_fetch(p + LF_CLASSES_AHEAD * cstride, n * item, 1);
            if (stream && c + 2 < C) { /* lines of which only a part is streamed are read first */
                __builtin_prefetch(p + 2 * cstride, 1);
                __builtin_prefetch(p + 2 * cstride + (n - 1) * step, 1);
            }
            NAME(lf_store)(p, dtype, step, tile + c * W, n, stream);
        }
    } else if (cstride == item && dtype == T_CODE && !stream) {
        NAME(lf_tile_to_rows)(dst, step, tile, W, n, C);
    } else {
        const int whole = step == C * cstride && C <= LF_SUBTILE;
        T part[LF_SUBTILE * LF_SUBTILE];
        for (ptrdiff_t c = 0; c < C; c += LF_SUBTILE)
            for (ptrdiff_t l = 0; l < n; l += LF_SUBTILE) {
                const ptrdiff_t m = C - c < LF_SUBTILE ? C - c : LF_SUBTILE, rows = n - l < LF_SUBTILE ? n - l : LF_SUBTILE;
                NAME(lf_tile_to_rows)((char *)part, m * (ptrdiff_t)sizeof(T), tile + c * W + l, W, rows, m);
                if (whole)
                    NAME(lf_store)(dst + l * step, dtype, cstride, part, rows * m, stream);
                for (ptrdiff_t k = 0; !whole && k < rows; k++)
                    NAME(lf_store)(dst + (l + k) * step + c * cstride, dtype, cstride, part + k * m, m, stream);
            }
    }
}
#undef CLASSWISE

#undef T_UNALIGNED
#undef NARROW
#undef LOAD_CASE
#undef STORE_CASE
#undef SEG
#undef SPAN
#undef B
#undef UP
#undef SHUFFLE
