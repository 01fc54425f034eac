#include "prelude.h"

#include "pack.h"

#define LF_T_DOUBLE
#include "real.h"
#include "vmath.h"
#include "rows.h"
#undef LF_T_DOUBLE

#define LF_T_FLOAT
#include "real.h"
#include "vmath.h"
#include "rows.h"

void LF_EXPORT(row_block)(const LfRowJob *j, ptrdiff_t b) { j->wide ? row_block_f64(j, b) : row_block_f32(j, b); }
void LF_EXPORT(row_piece)(const LfRowJob *j, ptrdiff_t i) { j->wide ? row_alone_f64(j, i) : row_alone_f32(j, i); }
void LF_EXPORT(label_block)(const LfRowJob *j, ptrdiff_t b) { j->wide ? label_block_f64(j, b) : label_block_f32(j, b); }
