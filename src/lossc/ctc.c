#include "prelude.h"

#include "pack.h"

#include "ctc_job.h"

#define LF_T_DOUBLE
#include "real.h"
#include "vmath.h"
#include "runs.h"
#include "ctc.h"
#include "ctc_decode.h"
#include "rnnt.h"
#undef LF_T_DOUBLE

#define LF_T_FLOAT
#include "real.h"
#include "vmath.h"
#include "runs.h"
#include "ctc.h"
#include "rnnt.h"

void LF_EXPORT(ctc_rows)(const LfCtcJob *j, ptrdiff_t task, char *scratch)
{
    const ptrdiff_t b = task / j->slabs * j->span, first = lf_ctc_slab(j, task % j->slabs), end = lf_ctc_slab(j, task % j->slabs + 1);
    if (j->small)
        for (ptrdiff_t i = 0; i < j->span; i++)
            ctc_short(j, b + i, first, end);
    else if (!j->from_logits)
        ctc_entries(j, b, first, end);
    else if (j->x_dtype == LF_F64)
        ctc_logits_f64(j, b, first, end, scratch);
    else
        ctc_logits_f32(j, b, first, end, scratch);
    if (j->stream)
        lf_store_fence();
}

void LF_EXPORT(ctc_half)(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory) { ctc_half(j, n, dir, memory); }
void LF_EXPORT(ctc_loss)(const LfCtcJob *j, ptrdiff_t n, char *memory) { ctc_loss(j, n, memory); }
void LF_EXPORT(ctc_rest)(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory) { ctc_rest(j, n, dir, memory); }
int LF_EXPORT(ctc_align_near)(const LfCtcJob *j, ptrdiff_t n, char *memory) { return ctc_align_near(j, n, memory); }
void LF_EXPORT(ctc_align_half)(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory) { ctc_align_half(j, n, dir, memory); }
void LF_EXPORT(ctc_greedy)(const LfCtcDecode *j, ptrdiff_t n, char *memory) { ctc_greedy(j, n, memory); }
void LF_EXPORT(ctc_beam)(const LfCtcDecode *j, ptrdiff_t n, char *memory) { ctc_beam(j, n, memory); }
void LF_EXPORT(ctc_align_rest)(const LfCtcJob *j, ptrdiff_t n, int dir, char *memory) { ctc_align_rest(j, n, dir, memory); }

void LF_EXPORT(rnnt_rows)(const LfRnntJob *j, ptrdiff_t task, char *scratch)
{
    j->row.x_dtype == LF_F64 ? rnnt_rows_f64(j, task, scratch) : rnnt_rows_f32(j, task, scratch);
}

void LF_EXPORT(rnnt_lattice)(const LfRnntJob *j, ptrdiff_t n) { rnnt_lattice(j, n); }

void LF_EXPORT(rnnt_gradient)(const LfRnntJob *j, ptrdiff_t task, char *scratch)
{
    j->row.x_dtype == LF_F64 ? rnnt_gradient_f64(j, task, scratch) : rnnt_gradient_f32(j, task, scratch);
}
