/* What every kernel file begins with. Each is compiled once per instruction set (-DLF_ISA=...) and includes its header twice: for double first,
 * since float rows are finished in double, then for float.
 *
 * Compiler contract (meson.build): -fno-math-errno -fno-trapping-math let gcc vectorise selections and square roots and give up only errno and
 * exception flags; -ffp-contract=fast uses FMA where there is one; never -ffast-math. NaN, infinities and signed zeros keep their meaning.
 */
#ifndef LF_PRELUDE_H
#define LF_PRELUDE_H

#include "lossc.h"

#include <math.h>
#include <string.h>

/* A call in a loop keeps gcc from vectorising it, so what is inline is always inlined. */
#define inline inline __attribute__((always_inline))

/* Where neither copies nor versions for constant arguments are worth their size. */
#define LF_CALLED static __attribute__((noinline, noclone)) void

#include "half.h"

#define LF_LANES 32             /* virtual lanes of every sum, whatever the vector width */
#define LF_RUN 1024             /* classes in hand in a long row */
#define LF_AHEAD 6144           /* bytes between a read of a huge row and its prefetch */
#define LF_PACK_AHEAD 1024      /* bytes between a run that is packed and its prefetch: arrays packed by turns enter a new page with each chunk */
#define LF_HALF_AHEAD 4096      /* bytes between a sum's read of halves and the prefetch into the second-level cache */
#define LF_GROUP 16             /* rows of a tile in hand */
#define LF_GROUP_ELEMENTS 32768 /* of the rows between whose passes the cache must hold them */
#define LF_ROOM 393216          /* bytes on the stack for exponentials and packed rows of such a group */
#define LF_SUM_RUN 128          /* long rows of a sum are cut at multiples of this many elements */
#define LF_ROWS_RUN 512         /* rows whose losses are summed apart from others */
#define LF_LONG_ROW 48          /* elements of rows that are worth a call each */
#define LF_SHORT_ROW 256        /* elements of rows of which more than needed may be packed */
#define LF_OUTS 5               /* v, gx, gy, gz, hx */
enum { LF_WANT_V = 1, LF_WANT_GX = 2, LF_WANT_REST = 28, LF_WANT_SUM = 32, LF_WANT_BAD = 64, LF_WANT_PAIRS = 128 };
enum { LF_QUICK = 1, LF_PRODUCT = 2, LF_LOG_A = 4, LF_LOG_B = 8, LF_EXP_A = 16, LF_RATIO = 32, LF_PAIRS = 64 };
enum { LF_SUM, LF_MAP, LF_GRAD, LF_FULL, LF_CHECK, LF_LOOPS };

#define LF_LN2_HI 0x1.62e42fefa38p-1
#define LF_LN2_LO 0x1.ef35793c7673p-45

static inline double lf_half_lane_sum(const double *a)
{
    double b[8], c[4], d[2];
#pragma omp simd
    for (int l = 0; l < 8; l++)
        b[l] = a[l] + a[l + 8];
#pragma omp simd
    for (int l = 0; l < 4; l++)
        c[l] = b[l] + b[l + 4];
#pragma omp simd
    for (int l = 0; l < 2; l++)
        d[l] = c[l] + c[l + 2];
    return d[0] + d[1];
}

static inline double lf_lane_sum(const double *lane)
{
    double a[LF_LANES / 2];
#pragma omp simd
    for (int l = 0; l < LF_LANES / 2; l++)
        a[l] = lane[l] + lane[l + LF_LANES / 2];
    return lf_half_lane_sum(a);
}

/* Sums of equal doubles drift: in lanes of 512 by up to 110 ulp, in runs of some 16, added up by these two, by 4. */

/* The lanes' sums of a run to those of earlier runs. What that rounds off is where the next run begins (Kahan), unless all is infinite. */
static inline void lf_add_run(double *sum, double *runs, int lanes)
{
#pragma omp simd
    for (int l = 0; l < lanes; l++) {
        const double all = runs[l] + sum[l], rest = sum[l] - (all - runs[l]);
        sum[l] = rest - rest == 0 ? rest : 0;
        runs[l] = all;
    }
}

/* One lane: the terms from the i-th on, n of them. The sum is then run + runs. */
typedef struct {
    double run, runs;
} LfSum;

static inline void lf_add(LfSum *s, const double *x, ptrdiff_t i, ptrdiff_t n)
{
    for (ptrdiff_t l = 0, end; l < n; l = end) {
        double run = s->run;
        end = l + 16 - (i + l) % 16;
        for (ptrdiff_t k = l; k < (end < n ? end : n); k++)
            run += x[k];
        s->run = run;
        if (end <= n)
            lf_add_run(&s->run, &s->runs, 1);
    }
}

/* n labels, step bytes apart at any address, as int64; an unsigned label beyond its range becomes -2, which is out of range too. */
static void lf_load_labels(int64_t *y, const char *src, int dtype, ptrdiff_t step, ptrdiff_t n)
{
#define LABELS(code, type, value)                                                                                                                    \
    case code:                                                                                                                                       \
        for (ptrdiff_t l = 0; l < n; l++) {                                                                                                          \
            type v;                                                                                                                                  \
            memcpy(&v, src + l * step, sizeof v);                                                                                                    \
            y[l] = value;                                                                                                                            \
        }                                                                                                                                            \
        break;
    if (dtype == LF_I64 && step == sizeof *y) {
        memcpy(y, src, (size_t)n * sizeof *y);
        return;
    }
    switch (dtype) {
        LABELS(LF_I8, int8_t, v)
        LABELS(LF_I16, int16_t, v)
        LABELS(LF_I32, int32_t, v)
        LABELS(LF_I64, int64_t, v)
        LABELS(LF_U8, uint8_t, v)
        LABELS(LF_U16, uint16_t, v)
        LABELS(LF_U32, uint32_t, v)
        LABELS(LF_U64, uint64_t, v > INT64_MAX ? -2 : (int64_t)v)
    }
#undef LABELS
}

#define LF_PASTE_(a, b, c) a##_##b##_##c
#define LF_PASTE(a, b, c) LF_PASTE_(a, b, c)
#define LF_EXPORT(name) LF_PASTE(lf, name, LF_ISA) /* lf_name_avx2 */

#endif
