/* lossc: the whole C contract of lossfast.
 *
 * Design
 * ------
 * A. C does arithmetic on what it is given: it never includes Python.h or omp.h, never allocates, locks or fails. Everything is checked
 *    before a job reaches this layer; what only the data can tell (a class index out of range, a probability outside [0, 1]) is reported
 *    in the job's `bad` array, one entry per block, so that the caller can raise for the lowest.
 * B. A job describes arrays by base pointer, dtype and byte strides. Kernels compute in `T`, float or double: halves, strides,
 *    broadcasting and misalignment are dealt with by pack.h, a cache-sized run at a time.
 * C. Work is cut into blocks whose number and extent depend on the shape only. A block's partial sums go to its own slot and are added in
 *    block order: the same bits for any number of threads, and for any memory layout.
 * D. elementwise.c, rows.c, vectors.c, ctc.c and pack.c are compiled once per instruction set; dispatch.c makes one table of block functions of
 *    each, and chooses.
 */
#ifndef LOSSC_H
#define LOSSC_H

#include <stddef.h>
#include <stdint.h>

enum { LF_F16, LF_BF16, LF_F32, LF_F64, LF_I8, LF_I16, LF_I32, LF_I64, LF_U8, LF_U16, LF_U32, LF_U64, LF_BOOL };

#define LF_MAXDIM 64 /* NumPy's own limit */
#define LF_INPUTS 3  /* arrays an elementwise loss differentiates by: x, y, z */
#define LF_PARAMS 4
#define LF_W 64       /* positions in one tile of the row kernels */
#define LF_SMALL_C 64 /* up to here rows are worked on side by side, one per vector lane */

typedef struct {
    char *data; /* NULL: absent */
    int dtype;
    ptrdiff_t stride[LF_MAXDIM];
} LfArray;

/* ---- elementwise losses ------------------------------------------------------------------------------------------------------------ */

#define LF_CHUNK 1024       /* elements in hand */
#define LF_ELEM_BLOCK 8192  /* elements of a block, at most */
#define LF_ELEM_SHARES 8    /* number of blocks: a multiple of this, to divide among threads */
#define LF_ELEM_PERIOD 4096 /* see LfElemJob */
#define LF_PARTS 32768      /* blocks whose parts are kept at a time, of 24 bytes: block b's are at b % LF_PARTS */
#define LF_ELEM_PIECE 16384 /* of a run that is summed into one element of a gradient */
#define LF_STRIP 131072     /* bytes of each input whose blocks are summed together */
#define LF_STRIP_ROWS 16    /* rows of each input whose blocks are summed side by side: a cache line of floats */
#define LF_LOOKUP 262144    /* elements of a sum from which on it looks functions up: the table takes 0.3 ms, once, mostly of new pages */

typedef struct {
    int loss, wide; /* id of losses.def; wide: compute in double */
    int ndim;
    ptrdiff_t shape[LF_MAXDIM], size; /* the broadcast shape, adjacent dimensions merged */
    /* Blocks have `block` elements, by shape alone, a multiple of 32; of a sum they begin anew every `period` elements, which is the smallest product
     * of last dimensions that is at least LF_ELEM_PERIOD, so that rows further apart hold blocks in the same columns. */
    ptrdiff_t block, period, runs, blocks; /* runs: blocks of a period */
    int tall;                              /* elem_strip: the dimension whose rows are taken side by side, or -1: */
    ptrdiff_t strip;                       /* so many blocks behind each other, 0: no strips */
    int near[LF_INPUTS];                   /* of a transposed input the dimension along which it steps least, else -1 */
    LfArray in[LF_INPUTS], weight, where, upstream;
    LfArray out, grad[LF_INPUTS + 1], hess; /* grad: by x, y, z and weight */
    double param[LF_PARAMS];
    double scale;         /* of the gradient: upstream scalar over the mean's denominator */
    int count_mass;       /* mass counts elements, not their weights */
    double weight_offset; /* added to the gradient by weight: a mean over weights has a denominator that depends on it */
    ptrdiff_t fold;       /* elem_fold: length of the runs over which the gradient by a broadcast argument is summed */
    ptrdiff_t inner;      /* elem_fold: if above 1, these are runs of rows of so many elements, of which each has a sum of its own; */
    ptrdiff_t fold_rows;  /* so many of them are summed in a piece */
    double *folded;       /* elem_fold: one partial sum per run, element of a row and piece */
    int fold_arg;         /* elem_fold: whose gradient, 3: the weight's, -1: the value */
    int stream;           /* outputs go past the caches, by chunks of which none is bad */
    double *sum, *mass;   /* per block: of w v, and of the weights that count (either may be NULL) */
    ptrdiff_t *bad;       /* per block: 4 * first offending element + argument number, or -1 */
    /* elem_prepare: two functions of the first input, a half, by its bits; or NULL */
    const float (*pairs)[2];
} LfElemJob;

/* ---- row losses: the softmax family ------------------------------------------------------------------------------------------------ */

enum { LF_LOGSUMEXP, LF_SOFTMAX, LF_LOG_SOFTMAX, LF_CE_INDEX, LF_CE_PROB, LF_NLL }; /* from LF_CE_INDEX on, losses, which are summed */

#define LF_PIECE 262144 /* classes of a huge row that are summed by themselves */

/* What is known of a piece: its maximum m, the sum of exp(x - m) over what is less, and how many are not; of target masses u the sum, and that of
 * u (m - x) */
typedef struct {
    double m, s, count, mass, dot;
} LfRowPiece;

typedef struct {
    int op, wide;
    int ndim; /* positions: everything but the class axis */
    ptrdiff_t shape[LF_MAXDIM], n;
    int cdim; /* class axis; more than one dimension for logsumexp over a tuple */
    ptrdiff_t cshape[LF_MAXDIM], c;
    ptrdiff_t rows;            /* positions in a block */
    ptrdiff_t span;            /* row_block takes so many blocks at once, with the same sums */
    LfArray x, t, out, gx, gt; /* strides of positions; t: labels or class probabilities */
    ptrdiff_t xc[LF_MAXDIM], tc[LF_MAXDIM], oc[LF_MAXDIM], gxc[LF_MAXDIM], gtc[LF_MAXDIM]; /* strides of classes */
    LfArray where, upstream; /* by position; softmax and log_softmax: upstream by element, in t */
    const void *weight;      /* class weights as T[c], or NULL */
    int64_t ignore_index;
    double smoothing, scale;
    double gamma; /* LF_CE_INDEX: focal loss's exponent; 0: cross entropy */
    int stream;
    double *sum, *mass;   /* per block: of losses, if there are any, and of the mean's denominator */
    ptrdiff_t share;      /* blocks that add to the same sums by class, one after another */
    double *gw, *gw_mass; /* per `share` blocks and class: derivative by the class weight of the sum of losses, and of the mass */
    ptrdiff_t *bad;       /* per block: first position with a label out of range, or -1 */
    LfRowPiece *piece;    /* what row_piece has left of every piece of every row, or NULL: row_block sums them up */
    int cut;              /* the second pass too is one of pieces: `block` of row_block counts them */
} LfRowJob;

/* ---- CTC ----------------------------------------------------------------------------------------------------------------------------- */

#include "ctc_job.h"

/* ---- losses between vectors, and tiles of logits ------------------------------------------------------------------------------------ */

#define LF_VECTORS 3
enum { LF_MULTI_MARGIN, LF_MULTILABEL_MARGIN, LF_FOCAL_HESSIAN, LF_CE_HESSIAN, LF_COSINE, LF_TRIPLET, LF_DICE, LF_WASSERSTEIN };

typedef struct {
    int op, wide, ndim;            /* wide: the result is double */
    ptrdiff_t shape[LF_MAXDIM], n; /* positions */
    int cdim;
    ptrdiff_t cshape[LF_MAXDIM], c;           /* what a vector runs over */
    ptrdiff_t rows;                           /* positions in a block */
    LfArray in[LF_VECTORS], grad[LF_VECTORS]; /* of the Hessians: grad[0] is the diagonal */
    ptrdiff_t inc[LF_VECTORS][LF_MAXDIM], gradc[LF_VECTORS][LF_MAXDIM];
    LfArray label; /* a class, -1 or 1 for each position; or a list of classes up to a -1 */
    ptrdiff_t labelc;
    LfArray out, where, upstream;
    const double *weight; /* of classes, or NULL */
    int ignores, labels_only;
    int64_t ignore_index;
    double param[LF_PARAMS], scale;
    double *sum, *mass;
    ptrdiff_t share;      /* and these */
    double *gw, *gw_mass; /* as in LfRowJob */
    ptrdiff_t *bad;       /* per block: first position with a bad label times c, plus its place in a list; or -1 */
} LfVectorJob;

/* Some columns of the logits of some rows, whose softmax over all columns is known by (m, s) once every tile has been seen. */
typedef struct {
    char *tile; /* T[rows][columns] */
    int wide, smoothed;
    ptrdiff_t columns, first; /* classes first .. first + columns */
    const void *bias;         /* T[columns], or NULL */
    const double *weight;     /* class weights of the columns, or NULL */
    const int64_t *label;     /* per row; -1: does not count */
    const void *target;       /* T[rows][columns], class probabilities in the labels' place: mix t + rest counts; or NULL */
    double mix, rest;
    double *m, *s, *xt, *dot, *mass;    /* per row: as in rows.h; the label's logit; sum of w x, where smoothed, or of w t' x; of w t' */
    const double *kmass, *kown, *keven; /* tile_grad, per row: factors of p, of the label, of every class weight or w t' */
} LfTileJob;

typedef struct {
    const char *isa;
    void (*elem_prepare)(LfElemJob *); /* before the blocks of a sum; fills a table of its own, with the same bits whoever does */
    void (*elem_block)(const LfElemJob *, ptrdiff_t block);
    void (*elem_strip)(const LfElemJob *, ptrdiff_t strip); /* sums of several blocks, of transposed inputs */
    void (*elem_fold)(const LfElemJob *, ptrdiff_t block);
    void (*row_block)(const LfRowJob *, ptrdiff_t block);
    void (*row_piece)(const LfRowJob *, ptrdiff_t piece);              /* of all rows' pieces, in order */
    void (*label_block)(const LfRowJob *, ptrdiff_t block);            /* checks labels and sums the mean's denominator */
    void (*ctc_rows)(const LfCtcJob *, ptrdiff_t task, char *scratch); /* in this order: ctc_job.h */
    void (*ctc_half)(const LfCtcJob *, ptrdiff_t n, int dir, char *memory);
    void (*ctc_loss)(const LfCtcJob *, ptrdiff_t n, char *memory);
    void (*ctc_rest)(const LfCtcJob *, ptrdiff_t n, int dir, char *memory);
    int (*ctc_align_near)(const LfCtcJob *, ptrdiff_t n, char *memory);
    void (*ctc_align_half)(const LfCtcJob *, ptrdiff_t n, int dir, char *memory);
    void (*ctc_align_rest)(const LfCtcJob *, ptrdiff_t n, int dir, char *memory);
    void (*ctc_greedy)(const LfCtcDecode *, ptrdiff_t n, char *memory);
    void (*ctc_beam)(const LfCtcDecode *, ptrdiff_t n, char *memory);
    void (*rnnt_rows)(const LfRnntJob *, ptrdiff_t task, char *scratch);
    void (*rnnt_lattice)(const LfRnntJob *, ptrdiff_t n);
    void (*rnnt_gradient)(const LfRnntJob *, ptrdiff_t task, char *scratch);
    void (*vector_block)(const LfVectorJob *, ptrdiff_t block);
    void (*tile_block)(const LfTileJob *, ptrdiff_t row); /* brings a row's m, s, xt, dot up to date */
    void (*tile_grad)(const LfTileJob *, ptrdiff_t row);  /* logits become their gradient */
    /* between arrays of any dtype and strides and tiles of float and double: pack.h */
    void (*load_tile_f32)(float *, ptrdiff_t, const char *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);
    void (*load_tile_f64)(double *, ptrdiff_t, const char *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);
    void (*store_tile_f32)(char *, int, ptrdiff_t, ptrdiff_t, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, int);
    void (*store_tile_f64)(char *, int, ptrdiff_t, ptrdiff_t, const double *, ptrdiff_t, ptrdiff_t, ptrdiff_t, int);
} LfKernels;

extern const char *const lf_loss_names[];
extern const int lf_loss_count, lf_loss_inputs[], lf_loss_params[];

int lf_isa_count(void); /* tables this machine can run, weakest first */
const LfKernels *lf_isa(int i);

/* x = h w', rows of n numbers of bfloat16: x[rows][columns], its rows `to` floats apart, those of h and w `from` and `step` bytes (bf16.c).
 * how: the product is added to x; w is w[n][columns]. */
#define LF_BF16_PANEL 64 /* columns at most */
enum { LF_BF16_MORE = 1, LF_BF16_DOWN = 2 };
typedef void LfBf16Panel(float *x, ptrdiff_t to, const char *h, ptrdiff_t from, const char *w, ptrdiff_t step, ptrdiff_t rows, ptrdiff_t columns,
                         ptrdiff_t n, int how);
LfBf16Panel *lf_bf16(const LfKernels *); /* beside these kernels; NULL where the CPU has no such products */

void lf_fork_init(void); /* see dispatch.c */
int lf_fork_serial(void);
void lf_share_modes(void);

#endif
