/* Before a CTC computation: sizes, checked labels, and what the recursion needs to know of each sample. Nothing here depends on the ISA. */
#include "lossc.h"

#include "ctc_plan.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_BYTES ((size_t)3 << 20)        /* a sample whose frames take no more than this keeps them all */
#define PRUNE_PAIRS 192                     /* fewer cost less than the bound that pruning needs */
#define CHECKPOINT_BYTES ((size_t)32 << 20) /* of one direction, as long as that is possible with groups of no more than 64 blocks */

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }
static ptrdiff_t quotient(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; } /* upwards */

/* What follows from the numbers of frames, labels and classes alone. */
static void sample_shape(const LfCtcJob *j, LfCtcSample *u, ptrdiff_t n)
{
    memset(u, 0, sizeof *u);
    u->steps = (ptrdiff_t)j->frames[n], u->S = (ptrdiff_t)j->lengths[n];
    u->pairs = (u->S + 1 + 7) / 8 * 8, u->width = u->pairs + 3 * CTC_MARGIN;
    u->blocks = (u->steps + LF_CTC_FRAMES - 1) / LF_CTC_FRAMES, u->half = u->blocks / 2;
    u->columns = (j->small || u->S >= j->C ? j->C : u->S + 1) + 1;
    u->group = 4;
    const size_t frame = (size_t)u->pairs * 2 * sizeof(double);
    u->keep = frame * (size_t)u->steps <= KEEP_BYTES;
    while (u->group < 64 && frame * 2 * (size_t)(u->blocks / 2 / u->group) > CHECKPOINT_BYTES)
        u->group *= 2;
}

/* The arrays of one sample. */
static void take_sample(CtcRegion *r, const LfCtcJob *j, LfCtcSample *u)
{
    const size_t pairs = (size_t)u->pairs, frames = (size_t)u->blocks * LF_CTC_FRAMES;
    for (int d = 0; d < 2; d++) {
        u->column[d] = ctc_take(r, pairs, sizeof(int32_t));
        u->skip[d] = ctc_take(r, pairs, sizeof(double));
        u->reach_b[d] = ctc_take(r, pairs, sizeof(int32_t));
        u->reach_l[d] = ctc_take(r, pairs, sizeof(int32_t));
        u->need_b[d] = ctc_take(r, pairs, sizeof(int32_t));
        u->need_l[d] = ctc_take(r, pairs, sizeof(int32_t));
    }
    u->classes = ctc_take(r, (size_t)u->columns, sizeof(int32_t));
    u->shift = ctc_take(r, frames, sizeof(double));
    u->offset = ctc_take(r, frames, sizeof(double));
    u->ratio = ctc_take(r, j->from_logits ? frames : 0, sizeof(double));
    u->rough = ctc_take(r, (size_t)u->blocks, 1);
    u->growth = u->pairs < PRUNE_PAIRS ? NULL : ctc_take(r, (size_t)u->blocks, sizeof(double));
    u->q = ctc_take(r, frames * sizeof(double), (size_t)u->columns);
}

/* What one long row of C classes is worked on in: for each run two numbers and its exponentials. */
size_t lf_ctc_row_bytes(ptrdiff_t C) { return (size_t)(C / LF_CTC_RUN + 1) * (LF_CTC_RUN + 2) * sizeof(double); }

/* Whether rows are to be read whole: of log-probabilities only labels count, which are gathered if that takes in less than the classes do; with
 * gradient, if it takes in half of them. The search of an alignment reads few rows. */
static int takes_rows(const LfCtcJob *j)
{
    double classes = (double)j->N * (double)j->C, columns = 0;
    for (ptrdiff_t n = 0; n < j->N; n++)
        columns += (double)j->lengths[n] + 1;
    return j->C <= LF_CTC_SMALL_C && (j->from_logits || j->path || classes <= columns * (j->g ? 2 : 1));
}

/* Sizes, from the shape, the lengths and from_logits. Returns 0 if they exceed the address space. */
int lf_ctc_measure(LfCtcJob *j)
{
    CtcRegion plan = {NULL, 0};
    size_t lattice = 0, one = 0; /* sizes of a sample */
    int huge = j->C >= INT32_MAX / LF_CTC_FRAMES;
    j->small = takes_rows(j);
    j->slabs = quotient(j->N, LF_CTC_SLAB);
    j->span = j->small || j->from_logits || !j->N ? 1 : quotient(LF_CTC_SPAN * j->slabs, j->N);
    j->row_tasks = j->slabs * quotient(j->steps, j->span * LF_CTC_FRAMES);
    ctc_take(&plan, (size_t)j->N, sizeof(LfCtcSample));
    ctc_take(&plan, (size_t)j->C, sizeof(int32_t));
    for (ptrdiff_t n = 0; n < j->N; n++) {
        if (n && j->frames[n] == j->frames[n - 1] && j->lengths[n] == j->lengths[n - 1]) {
            ctc_take(&plan, 1, one); /* as much as for the sample before */
            continue;
        }
        LfCtcSample u;
        CtcWork w;
        CtcTrace t;
        CtcRegion r = {NULL, 0}, arrays = r;
        if (j->lengths[n] >= INT32_MAX / 4 || j->frames[n] >= INT32_MAX - LF_CTC_FRAMES)
            huge = 1; /* bounds are int32_t, and frames are compared with them */
        sample_shape(j, &u, n);
        take_sample(&arrays, j, &u);
        ctc_take(&plan, 1, one = arrays.used);
        ctc_take(&r, 2, j->path ? sizeof(CtcTrace) : sizeof(CtcWork));
        for (int d = 0; d < 2; d++) {
            if (j->path)
                ctc_trace_layout(&r, &u, d, &t);
            else
                ctc_layout(&r, j, &u, d, &w);
        }
        lattice = max_size(lattice, r.used);
    }
    j->plan_bytes = plan.used, j->lattice_bytes = lattice;
    j->row_bytes = j->small ? 0 : lf_ctc_row_bytes(j->C);
    return plan.used < SIZE_MAX / 2 && lattice < SIZE_MAX / 2 && !huge;
}

/* Makes row tasks of all frames of a slab: four for each of `threads`, lest one has all long samples to itself in the end, or two where a slab would
 * hold but one. */
void lf_ctc_fuse(LfCtcJob *j, int threads)
{
    const ptrdiff_t pairs = j->N / 2, most = pairs < 4 * threads ? pairs : 4 * threads, tasks = most < 2 * threads ? 2 * threads : most;
    if (j->slabs < tasks)
        j->slabs = tasks < j->N ? tasks : j->N;
    j->span = quotient(j->steps, LF_CTC_FRAMES);
    j->row_tasks = j->slabs;
}

size_t lf_ctc_decode_bytes(const LfCtcDecode *j)
{
    CtcRegion r = {NULL, 0};
    CtcBeam b;
    double *row;
    if (j->width > 0)
        ctc_beam_layout(&r, j, &b, &row);
    else
        ctc_take(&r, (size_t)j->C, sizeof(double));
    return r.used;
}

/* The column of a class, a new one if need be. `seen` maps classes to columns once used, and is anything before: the column's class tells. */
static int32_t class_column(LfCtcSample *u, int32_t class, int32_t *seen, int32_t *used)
{
    const int32_t c = seen[class];
    if (c >= 0 && c < *used && u->classes[c] == class)
        return c;
    u->classes[*used] = class;
    return seen[class] = (*used)++;
}

/* Columns of the labels of direction 0, and the classes of columns. */
static void sample_columns(const LfCtcJob *j, LfCtcSample *u, const int32_t *label, int32_t *seen)
{
    int32_t used = 0;
    if (j->small) {
        memset(u->classes, 0, (size_t)u->columns * sizeof(int32_t));
        u->blank = j->blank, u->classes[j->blank] = 1;
        for (ptrdiff_t i = 0; i < u->S; i++)
            u->column[0][i] = label[i] * LF_CTC_FRAMES, u->classes[label[i]] = 1;
        used = (int32_t)j->C;
    } else {
        u->blank = class_column(u, (int32_t)j->blank, seen, &used);
        for (ptrdiff_t i = 0; i < u->S; i++)
            u->column[0][i] = class_column(u, label[i], seen, &used) * LF_CTC_FRAMES;
        u->columns = used + 1;
    }
    for (ptrdiff_t i = u->S; i < u->pairs; i++)
        u->column[0][i] = used * LF_CTC_FRAMES;
}

static void sample_bounds(LfCtcSample *u, const int32_t *label)
{
    const ptrdiff_t S = u->S;
    for (ptrdiff_t i = 0; i < u->pairs; i++)
        u->column[1][i] = u->column[0][i < S ? S - 1 - i : i];
    for (int d = 0; d < 2; d++) {
        int32_t frames = 0;
        for (ptrdiff_t i = 0; i < u->pairs; i++) {
            const int first = i == 0, in = i < S;
            const int repeat = in && !first && label[d ? S - 1 - i : i] == label[d ? S - i : i - 1];
            u->skip[d][i] = in && !first && !repeat;
            u->reach_b[d][i] = i > S ? INT32_MAX : first ? 0 : frames + 1;
            frames += in ? 1 + repeat : 0;
            u->reach_l[d][i] = in ? frames : INT32_MAX;
        }
        if (d == 0)
            u->status = u->steps < frames ? LF_CTC_INFEASIBLE : LF_CTC_READY;
    }
    /* what is needed to the end is what the other direction needs up to and including the same state, less that frame */
    for (int d = 0; d < 2; d++)
        for (ptrdiff_t i = 0; i < u->pairs; i++) {
            u->need_b[d][i] = i < S ? u->reach_b[1 - d][S - i] - 1 : 0;
            u->need_l[d][i] = i < S ? u->reach_l[1 - d][S - 1 - i] - 1 : 0;
        }
}

/* Copies and checks class ids of any integer dtype into j->labels: sample n, label s lies at src + at[n] + s step. Returns 0, or 1 with the first
 * bad one in *sample, *position and *value. */
int lf_ctc_labels(const LfCtcJob *j, const char *src, int dtype, const ptrdiff_t *at, ptrdiff_t step, ptrdiff_t *sample, ptrdiff_t *position,
                  int64_t *value)
{
    int32_t *out = j->labels;
    for (ptrdiff_t n = 0; n < j->N; n++)
        for (ptrdiff_t s = 0; s < (ptrdiff_t)j->lengths[n]; s++) {
            const char *p = src + at[n] + s * step;
            int64_t v = 0;
#define CTC_ID(code, type)                                                                                                                           \
    case code: {                                                                                                                                     \
        type id;                                                                                                                                     \
        memcpy(&id, p, sizeof id);                                                                                                                   \
        v = (int64_t)id;                                                                                                                             \
        break;                                                                                                                                       \
    }
            switch (dtype) {
                CTC_ID(LF_I8, int8_t)
                CTC_ID(LF_I16, int16_t)
                CTC_ID(LF_I32, int32_t)
                CTC_ID(LF_I64, int64_t)
                CTC_ID(LF_BOOL, uint8_t)
                CTC_ID(LF_U8, uint8_t)
                CTC_ID(LF_U16, uint16_t)
                CTC_ID(LF_U32, uint32_t)
                CTC_ID(LF_U64, uint64_t)
            }
#undef CTC_ID
            if (v < 0 || v >= j->C)
                return *sample = n, *position = s, *value = v, 1;
            *out++ = (int32_t)v;
        }
    return 0;
}

/* Lays out `memory`, plan_bytes long and 64-byte aligned. */
void lf_ctc_plan(LfCtcJob *j, char *memory)
{
    CtcRegion r = {memory, 0};
    j->sample = ctc_take(&r, (size_t)j->N, sizeof(LfCtcSample));
    int32_t *seen = ctc_take(&r, (size_t)j->C, sizeof(int32_t));
    const int32_t *label = j->labels;
    for (ptrdiff_t n = 0; n < j->N; n++) {
        LfCtcSample *u = &j->sample[n];
        sample_shape(j, u, n);
        take_sample(&r, j, u);
        sample_columns(j, u, label, seen);
        sample_bounds(u, label);
        u->labels = label, u->best = -INFINITY;
        label += u->S;
    }
}

/* ---- working memory ------------------------------------------------------------------------------------------------------------------- */

/* A block stays for the next call: the system would clear its pages anew, half the work of an alignment and of a long utterance. Smaller ones
 * the C library keeps by itself. At most one block stays, of at most KEPT_MOST, as long as calls need an eighth of it or more. */
#define KEPT_LEAST ((size_t)128 << 10)
#define KEPT_MOST ((size_t)96 << 20)
#define KEPT_CALLS 64 /* that may go by without such need */

/* Stands right before the memory, which is 64-byte aligned. */
typedef struct {
    void *start;
    size_t size;
} CtcBlock;

static _Atomic(CtcBlock *) kept;
static atomic_int idle;

/* Memory for one call, or NULL. */
void *lf_ctc_borrow(size_t size)
{
    CtcBlock *b = NULL;
    const int large = size >= KEPT_LEAST, stale = atomic_load(&kept) && atomic_fetch_add(&idle, 1) >= KEPT_CALLS;
    if (large || stale)
        b = atomic_exchange(&kept, NULL);
    if (large && (!b || size >= b->size / 8))
        atomic_store(&idle, 0);
    if (b && large && size <= b->size && (!stale || size >= b->size / 8))
        return b + 1;
    if (b)
        free(b->start);
    char *start = size < SIZE_MAX / 4 ? malloc(size + sizeof *b + 63) : NULL;
    if (!start)
        return NULL;
    b = (CtcBlock *)(((uintptr_t)start + sizeof *b + 63) & ~(uintptr_t)63) - 1;
    *b = (CtcBlock){start, size};
    return b + 1;
}

void lf_ctc_return(void *memory)
{
    CtcBlock *b = (CtcBlock *)memory - 1;
    if (b->size >= KEPT_LEAST && b->size <= KEPT_MOST)
        b = atomic_exchange(&kept, b);
    if (b)
        free(b->start);
}
