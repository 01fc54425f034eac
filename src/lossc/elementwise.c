#include "prelude.h"

#include "pack.h"

#define LF_T_DOUBLE
#include "real.h"
#define T_CODE LF_F64
#define T_LANES (LF_LANES / 2) /* half the lanes of float, and half the code */
#include "vmath.h"
#include "formulas.h"
#include "elementwise.h"
#undef LF_T_DOUBLE
#undef T_CODE
#undef T_LANES

#define LF_T_FLOAT
#include "real.h"
#define T_CODE LF_F32
#define T_LANES LF_LANES
#if defined __F16C__
#define T_HALVES /* sums read halves as they are */
#endif
#include "vmath.h"
#include "formulas.h"
#include "elementwise.h"

void LF_EXPORT(elem_block)(const LfElemJob *j, ptrdiff_t b) { j->wide ? elem_block_f64(j, b) : elem_block_f32(j, b); }
void LF_EXPORT(elem_fold)(const LfElemJob *j, int arg, ptrdiff_t b) { j->wide ? elem_fold_f64(j, arg, b) : elem_fold_f32(j, arg, b); }
