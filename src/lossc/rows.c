#include "prelude.h"

#include "pack.h"

#define LF_T_DOUBLE
#include "real.h"
#define T_CODE LF_F64
#define T_FAR 1024.0
#define T_SHIFT 512
#define T_UNSHIFT 0x1p-512
#include "vmath.h"
#include "rows.h"
#undef LF_T_DOUBLE
#undef T_CODE
#undef T_FAR
#undef T_SHIFT
#undef T_UNSHIFT

#define LF_T_FLOAT
#include "real.h"
#define T_CODE LF_F32
#define T_FAR 220.0f
#define T_SHIFT 64
#define T_UNSHIFT 0x1p-64
#include "vmath.h"
#include "rows.h"

void LF_EXPORT(row_block)(const LfRowJob *j, ptrdiff_t b) { j->wide ? row_block_f64(j, b) : row_block_f32(j, b); }
void LF_EXPORT(row_piece)(const LfRowJob *j, ptrdiff_t i) { j->wide ? row_alone_f64(j, i) : row_alone_f32(j, i); }
void LF_EXPORT(label_block)(const LfRowJob *j, ptrdiff_t b) { j->wide ? label_block_f64(j, b) : label_block_f32(j, b); }
