/* All arithmetic, compiled once per instruction set (-DLF_ISA=...): double first, since float rows are finished in double, then float.
 *
 * Compiler contract (meson.build): -fno-math-errno -fno-trapping-math let gcc vectorise selections and square roots and give up only errno and
 * exception flags; -ffp-contract=fast uses FMA where there is one; never -ffast-math. NaN, infinities and signed zeros keep their meaning.
 */
#include "lossc.h"

#include <math.h>
#include <string.h>

#include "half.h"

#define LF_LANES 32             /* virtual lanes of every sum, whatever the vector width */
#define LF_CHUNK 2048           /* elements in hand in an elementwise loss */
#define LF_RUN 1024             /* classes in hand in a long row */
#define LF_GROUP 16             /* rows of a tile in hand */
#define LF_GROUP_ELEMENTS 65536 /* of the rows between whose passes the cache must hold */
#define LF_OUTS 5               /* v, gx, gy, gz, hx */
#define LF_MASKED INT64_MIN     /* label of a position that `where` excludes */
enum { LF_WANT_V = 1, LF_WANT_GX = 2, LF_WANT_REST = 28, LF_WANT_SUM = 32 };

#define LF_LN2_HI 0x1.62e42fefa38p-1
#define LF_LN2_LO 0x1.ef35793c7673p-45

static double lf_lane_sum(const double *lane)
{
    double a[LF_LANES];
    memcpy(a, lane, sizeof a);
    for (int h = LF_LANES / 2; h; h /= 2)
        for (int l = 0; l < h; l++)
            a[l] += a[l + h];
    return a[0];
}

/* Labels at any address as int64; an unsigned label beyond its range becomes -2, which is out of range too. */
static void lf_load_labels(int64_t *y, const char *src, int dtype, const ptrdiff_t *off, ptrdiff_t n)
{
#define LABELS(code, type, value)                                                                                                           \
    case code:                                                                                                                              \
        for (ptrdiff_t l = 0; l < n; l++) {                                                                                                 \
            type v;                                                                                                                         \
            memcpy(&v, src + off[l], sizeof v);                                                                                             \
            y[l] = value;                                                                                                                   \
        }                                                                                                                                   \
        break;
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

#define LF_T_DOUBLE
#include "real.h"
#define T_CODE LF_F64
#define T_FAR 1024.0
#define T_ROW_LIMIT 0x1p50
#define T_SHIFT 512
#define T_UNSHIFT 0x1p-512
#include "vmath.h"
#include "pack.h"
#include "formulas.h"
#include "elementwise.h"
#include "rows.h"
#undef LF_T_DOUBLE
#undef T_CODE
#undef T_FAR
#undef T_ROW_LIMIT
#undef T_SHIFT
#undef T_UNSHIFT

#define LF_T_FLOAT
#include "real.h"
#define T_CODE LF_F32
#define T_FAR 512.0f
#define T_ROW_LIMIT 0x1p20f
#define T_SHIFT 64
#define T_UNSHIFT 0x1p-64
#include "vmath.h"
#include "pack.h"
#include "formulas.h"
#include "elementwise.h"
#include "rows.h"
#undef LF_T_FLOAT

static void elem_block(const LfElemJob *j, ptrdiff_t b) { j->wide ? elem_block_f64(j, b) : elem_block_f32(j, b); }
static void elem_fold(const LfElemJob *j, int arg, ptrdiff_t b) { j->wide ? elem_fold_f64(j, arg, b) : elem_fold_f32(j, arg, b); }
static void row_block(const LfRowJob *j, ptrdiff_t b) { j->wide ? row_block_f64(j, b) : row_block_f32(j, b); }
static void label_block(const LfRowJob *j, ptrdiff_t b) { j->wide ? label_block_f64(j, b) : label_block_f32(j, b); }

#define LF_STRING_(x) #x
#define LF_STRING(x) LF_STRING_(x)
#define LF_PASTE_(a, b) a##b
#define LF_PASTE(a, b) LF_PASTE_(a, b)
const LfKernels LF_PASTE(lf_kernels_, LF_ISA) = {
    .isa = LF_STRING(LF_ISA), .elem_block = elem_block, .elem_fold = elem_fold, .row_block = row_block, .label_block = label_block};
