/* Products of bfloat16 matrices, on CPUs that multiply pairs of these (AVX512-BF16): twice as many products a cycle as of floats, and nothing to
 * convert. Intrinsics, since gcc knows no such operation: 200 GFlop/s on one core where NumPy's float32 BLAS makes 95.
 *
 * Products of two bfloat16 are exact; a sum is a float that takes them two at a time, in order. As the CPU has it, subnormal inputs and sums are 0. */
#include "lossc.h"

#include <immintrin.h>
#include <string.h>

#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)
enum { ROWS = 6, VECTORS = LF_BF16_PANEL / 16, PAIRS = 256 };

void lf_load_tile_f32_avx512(float *restrict, ptrdiff_t, const char *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t); /* pack.h */

/* Pair k of each row, rows `step` bytes apart, to panel[k]; of a last one, odd, only its first number. What is beyond the rows does not count. */
static void pack(uint32_t (*panel)[LF_BF16_PANEL], const char *w, ptrdiff_t step, ptrdiff_t columns, ptrdiff_t pairs, int odd)
{
    lf_load_tile_f32_avx512((float *)panel, LF_BF16_PANEL, w, LF_F32, step, 4, columns, pairs);
    for (ptrdiff_t c = 0; odd && c < columns; c++) {
        panel[pairs][c] = 0;
        memcpy(&panel[pairs][c], w + c * step + 4 * pairs, 2);
    }
}

/* ... of columns: rows 2 k and 2 k + 1 of w. */
static void pack_down(uint32_t (*panel)[LF_BF16_PANEL], const char *w, ptrdiff_t step, ptrdiff_t columns, ptrdiff_t pairs, int odd)
{
    typedef uint16_t __attribute__((aligned(1), may_alias)) Word;
    for (ptrdiff_t k = 0; k < pairs + odd; k++) {
        const Word *low = (const void *)(w + 2 * k * step), *high = (const void *)(w + (2 * k + (k < pairs)) * step);
        const uint32_t both = k < pairs ? 0xffffffff : 0xffff;
        for (ptrdiff_t c = 0; c < columns; c++)
            panel[k][c] = (low[c] | (uint32_t)high[c] << 16) & both;
    }
}

static inline __attribute__((always_inline)) void add(__m512 (*sum)[VECTORS], const uint32_t *panel, const char *const *h, ptrdiff_t k, int size)
{
    __m512bh w[VECTORS];
    EACH(v, VECTORS) w[v] = (__m512bh)_mm512_loadu_si512(panel + 16 * v);
    EACH(r, ROWS)
    {
        int32_t pair = 0;
        memcpy(&pair, h[r] + 4 * k, size);
        EACH(v, VECTORS) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)_mm512_set1_epi32(pair), w[v]);
    }
}

/* x += h w', or = where nothing is in x yet, for up to ROWS rows; `part` says which columns are in a panel's vectors. */
static void add_rows(float *const *x, const char *const *h, const uint32_t (*panel)[LF_BF16_PANEL], ptrdiff_t pairs, int odd, int fresh, int rows,
                     const __mmask16 *part)
{
    __m512 sum[ROWS][VECTORS];
    EACH(r, ROWS) EACH(v, VECTORS) sum[r][v] = _mm512_maskz_loadu_ps(fresh ? 0 : part[v], x[r] + 16 * v);
    for (ptrdiff_t k = 0; k < pairs; k++)
        add(sum, panel[k], h, k, 4);
    if (odd)
        add(sum, panel[pairs], h, pairs, 2);
    EACH(r, ROWS)
    if (r < rows)
        EACH(v, VECTORS) _mm512_mask_storeu_ps(x[r] + 16 * v, part[v], sum[r][v]);
}

void lf_bf16_panel(float *x, ptrdiff_t to, const char *h, ptrdiff_t from, const char *w, ptrdiff_t step, ptrdiff_t rows, ptrdiff_t columns,
                   ptrdiff_t n, int how)
{
    uint32_t panel[PAIRS][LF_BF16_PANEL] __attribute__((aligned(64)));
    __mmask16 part[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        part[v] = (__mmask16)(columns >= 16 * v + 16 ? 0xffff : columns <= 16 * v ? 0 : (1 << (columns - 16 * v)) - 1);
    for (ptrdiff_t done = 0; done < n || !done; done += 2 * PAIRS) {
        const ptrdiff_t left = n - done < 2 * PAIRS ? n - done : 2 * PAIRS;
        if (how & LF_BF16_DOWN)
            pack_down(panel, w + done * step, step, columns, left / 2, left & 1);
        else
            pack(panel, w + 2 * done, step, columns, left / 2, left & 1);
        for (ptrdiff_t i = 0; i < rows; i += ROWS) {
            float *xs[ROWS];
            const char *hs[ROWS];
            const int count = rows - i < ROWS ? (int)(rows - i) : ROWS;
            for (int r = 0; r < ROWS; r++) /* a missing row is the first once more */
                xs[r] = x + (i + (r < count ? r : 0)) * to, hs[r] = h + (i + (r < count ? r : 0)) * from + 2 * done;
            add_rows(xs, hs, panel, left / 2, left & 1, !done && !(how & LF_BF16_MORE), count, part);
        }
    }
}
