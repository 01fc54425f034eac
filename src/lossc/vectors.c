#include "prelude.h"

#include "pack.h"

#define LF_T_DOUBLE
#include "real.h"
#include "vmath.h"
#include "spans.h"
#include "vectors.h"
#include "tiles.h"
#undef LF_T_DOUBLE

#define LF_T_FLOAT
#include "real.h"
#include "vmath.h"
#include "spans.h"
#include "tiles.h"

void LF_EXPORT(tile_block)(const LfTileJob *j, ptrdiff_t row) { j->wide ? tile_block_f64(j, row) : tile_block_f32(j, row); }
void LF_EXPORT(tile_grad)(const LfTileJob *j, ptrdiff_t row) { j->wide ? tile_grad_f64(j, row) : tile_grad_f32(j, row); }

void LF_EXPORT(vector_block)(const LfVectorJob *j, ptrdiff_t b)
{
    if (span_takes(j))
        j->wide ? span_block_f64(j, b) : span_block_f32(j, b);
    if (!span_takes(j) || span_overflows(j, b))
        vec_block(j, b);
}
