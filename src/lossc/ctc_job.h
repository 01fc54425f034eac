/* CTC: what a call is, and where everything lies. Part of lossc.h.
 *
 * The caller fills the first part of LfCtcJob, has lf_ctc_measure() compute sizes, provides the memory, has lf_ctc_labels() copy and check the
 * class ids and lf_ctc_plan() lay everything out. Then, in this order, each line a parallel loop over independent tasks:
 *     ctc_rows(job, i, scratch)     i < row_tasks; scratch: row_bytes for each thread
 *     ctc_half(job, n, d, memory)   n < N, d < 2: forward (0) and backward (1) half of the lattice
 *     ctc_rest(job, n, d, memory)   the other halves, with the gradient; without gradient this is not called
 *     ctc_loss(job, n, memory)
 * Where a thread does all of a sample, and tasks need not be finer, lf_ctc_fuse() has each row task read all frames of a slab of samples, for the same
 * thread to go on with: what one core has written takes long to come to another. And for alignments (path != NULL), in place of all but the rows:
 *     ctc_align_near(job, n, memory)      before the rows if job->small; returns whether sample n is done
 *     ctc_align_half(job, n, d, memory)   then   ctc_align_rest(job, n, d, memory)
 * `memory` is lattice_bytes long, one for each n; a single thread may do all of one sample and use the same memory for the next.
 * Results depend on the job only, not on who does which task.
 */
#ifndef LF_CTC_JOB_H
#define LF_CTC_JOB_H

#include <stddef.h>
#include <stdint.h>

#define LF_CTC_FRAMES 8    /* in a block: frames between two renormalisations, and the unit of storage */
#define LF_CTC_SMALL_C 128 /* up to here whole rows may be kept as probabilities, beyond the columns of labels only */
#define LF_CTC_SLAB 64     /* samples, at most, in a task that reads rows */
#define LF_CTC_SPAN 8      /* blocks of samples, at least, in a task that reads entries of labels only */
#define LF_CTC_RUN 1024    /* classes in hand in a long row */

enum { LF_CTC_READY, LF_CTC_INFEASIBLE, LF_CTC_ALIGNED };

/* One sample. A pair is a blank and the label after it: pair i of S + 1, the last without label. Columns are classes (whole rows) or the distinct
 * classes of the labels, then one of probability 0 that padding refers to. Index d is the direction: 1 reads time and labels backward. */
typedef struct {
    ptrdiff_t steps, S;     /* frames, labels */
    ptrdiff_t pairs, width; /* S + 1 rounded up; a row of stored pairs with its margins */
    ptrdiff_t blocks, half, columns, blank;
    int status;
    const int32_t *labels;
    double best;                      /* alignment: a score that is reached */
    int read;                         /* alignment: its rows have been, by the search */
    int32_t *column[2];               /* of label i, times 8: where its emissions start in a block */
    double *skip[2];                  /* 1 where label i - 1 may be followed by label i without a blank, else 0 */
    int32_t *reach_b[2], *reach_l[2]; /* frames needed to be in blank or label i */
    int32_t *need_b[2], *need_l[2];   /* frames needed from there to the end */
    int32_t *classes;                 /* of columns, blank first; whole rows: 1 for blank and labels, by class */
    double *q;                        /* emissions [block][column][frame]: see ctc_lattice.h */
    double *shift;                    /* by frame: -log of the factor that was taken out of the emissions; 0 from there to the end of the block */
    double *offset;                   /* by frame: what was subtracted from its entries */
    double *ratio;                    /* by frame: probability = emission * ratio (from logits) */
    uint8_t *rough;                   /* by block: an emission is 0, too small for a double, or NaN */
    double *growth;                   /* by block: log2 of what a path's continuations through it amount to at most; or NULL: no pruning */
    ptrdiff_t group;                  /* blocks between two checkpoints */
    ptrdiff_t groups;
    int keep; /* the first passes store every frame: no checkpoints needed */
} LfCtcSample;

typedef struct {
    const char *x; /* logits or log-probabilities */
    char *g;       /* gradient, or NULL; with `states` the occupancies of the 2 S + 1 states, g_c from state to state */
    int x_dtype, g_dtype;
    ptrdiff_t x_t, x_n, x_c, g_t, g_n, g_c; /* byte strides of frame, sample, class */
    ptrdiff_t steps, N, C, blank;           /* steps: frames of the arrays */
    int from_logits, states;
    int stream;                      /* the gradient goes past the caches */
    int whole;                       /* one thread does all of a sample, direction 0 first: direction 1 may use what that has found */
    const int64_t *frames, *lengths; /* per sample: frames and labels that count */
    const double *scale;             /* per sample: factor of its gradient */
    double *loss;                    /* per sample */
    int32_t *labels;                 /* all samples' ids, one after the other */
    int32_t *path;                   /* alignment: state 2 i (blank i) or 2 i + 1 (label i) of each frame, [N][steps]; -1 where there is none */
    double *score;                   /* with it: log-probabilities along the path, [N][steps] */

    /* from here on: lf_ctc_measure() and lf_ctc_plan() */
    int small;             /* rows are read whole, see takes_rows() */
    ptrdiff_t slabs, span; /* a row task takes one of so many shares of the samples, and so many blocks */
    ptrdiff_t row_tasks;
    size_t plan_bytes, lattice_bytes, row_bytes;
    LfCtcSample *sample;
} LfCtcJob;

/* Decoding: ctc_greedy(job, n, memory) or ctc_beam(job, n, memory) for n < N; memory: lf_ctc_decode_bytes() for each thread. */
typedef struct {
    const char *x;
    int x_dtype;
    ptrdiff_t x_t, x_n, x_c, steps, N, C, blank;
    int from_logits;
    ptrdiff_t width, top; /* beam search (width > 0): prefixes kept, and how many of them are wanted */
    const int64_t *frames;
    int32_t *labels;  /* [N][top][steps], -1 beyond the length */
    int64_t *lengths; /* [N][top] */
    double *score;    /* log-probabilities: [N][top] */
} LfCtcDecode;

/* RNN-T: rnnt_rows(job, i, scratch) for i < N steps, rnnt_lattice(job, n) for n < N, rnnt_gradient(job, i, scratch) for i < N steps; scratch:
 * row.row_bytes, then a row of doubles, for each thread. Arrays are doubles, (steps + width) width for each sample. */
typedef struct {
    LfCtcJob row; /* x, g, their strides but that of u, C, blank, from_logits, stream, scale; labels [N][width - 2] */
    char *g;      /* gradient, or NULL */
    ptrdiff_t x_u, g_u;
    ptrdiff_t steps, N, width; /* width: labels + 2 */
    const int64_t *frames, *lengths;
    double clamp; /* of gradients, if positive */
    double *blank_lp, *label_lp, *beta, *alpha;
    double *top, *total; /* with gradient: maximum of the row, and sum of exp(x - maximum) */
    double *loss;
} LfRnntJob;

/* The first sample of slab s. */
static inline ptrdiff_t lf_ctc_slab(const LfCtcJob *j, ptrdiff_t s) { return (j->N * s + j->slabs - 1) / j->slabs; }

size_t lf_ctc_row_bytes(ptrdiff_t C);
size_t lf_ctc_decode_bytes(const LfCtcDecode *j);
int lf_ctc_measure(LfCtcJob *j);
void lf_ctc_fuse(LfCtcJob *j, int threads);
int lf_ctc_labels(const LfCtcJob *j, const char *src, int dtype, const ptrdiff_t *at, ptrdiff_t step, ptrdiff_t *sample, ptrdiff_t *position,
                  int64_t *value);
void lf_ctc_plan(LfCtcJob *j, char *memory);
void *lf_ctc_borrow(size_t size);
void lf_ctc_return(void *memory);

#endif
