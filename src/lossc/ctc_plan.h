/* Where things lie in the memory of one sample's lattice: shared by ctc_plan.c, which computes its size, and ctc_lattice.h, which uses it. */
#ifndef LF_CTC_PLAN_H
#define LF_CTC_PLAN_H

#include "ctc_job.h"

#define CTC_MARGIN 8

/* States of all pairs after some frame: vectors B, L, eB, eL of each group of LANES pairs. Groups outside lo .. hi hold nothing. */
typedef struct {
    double *m;
    ptrdiff_t lo, hi;
} CtcState;

/* Frames of one block that the other direction has stored: rows of B and L for each frame, then rows of their exponents (for the first frame
 * only, if they hold for all). Pairs outside lo .. hi are 0; CTC_MARGIN before and twice as many after may be read. */
typedef struct {
    double *rows;
    ptrdiff_t lo, hi;
    int exact;
} CtcStored;

/* Where ctc_exact has a block's emissions as mantissas and exponents, and how it takes exponents where all paths are far below the
 * frames' factors, see ctc_far_emission(). unit 0: as they are. */
typedef struct {
    double *m;
    double unit, step;
} CtcSplit;

/* What one direction of one sample works in. */
typedef struct {
    CtcState half[2], rest[2], again[2]; /* each pair alternates; `again` recomputes the other direction's frames */
    CtcState end;                        /* of the first half: one of the above or a checkpoint */
    CtcState *checkpoint;                /* before each group of blocks */
    CtcStored *slot;                     /* keep: one for each block of the half; else one for each block of a group of the other's */
    double bound;                        /* of Z, from below: see ctc_bound() */
    uint8_t *hard;                       /* by block of the half: done by ctc_exact */
    double *column, *last;               /* sums of occupancies [column][frame]; occupancies by pair */
    CtcSplit split;
    double met, met_exponent; /* direction 0: Z from the states of both where they meet */
    double z, exponent;       /* and Z itself, where split.unit > 0 and those do not tell */
    double *states;           /* occupancies [frame][blank, label][pair] of a block, or NULL */
} CtcWork;

/* The same for an alignment. */
#define CTC_OCTET 8   /* pairs that are dropped together */
#define CTC_CHOICES 3 /* bits for each pair and frame: into the blank from the label before; into the label from the blank, by the skip */
#define CTC_REACH 2   /* octets on both sides of that of the best state which the search keeps */
typedef struct {
    uint8_t (*choice)[CTC_CHOICES][LF_CTC_FRAMES]; /* by block, `octets` for each, of which the first are those of octets lo .. hi */
    int32_t *lo, *hi;
    ptrdiff_t octets;
} CtcChoices;

typedef struct {
    CtcState state[2], end; /* the pair alternates; end: of the half */
    CtcChoices near, half;  /* of the search, direction 0 only */
} CtcTrace;

/* Blocks in the first half of a direction; they are numbered j in the order in which that direction reads them. */
static inline ptrdiff_t ctc_half_blocks(const LfCtcSample *u, int dir) { return dir ? u->blocks - u->half : u->half; }
static inline ptrdiff_t ctc_block(const LfCtcSample *u, int dir, ptrdiff_t j) { return dir ? u->blocks - 1 - j : j; }

/* Cuts aligned pieces off a region, or adds up their sizes if there is none. Sizes saturate. */
typedef struct {
    char *base;
    size_t used;
} CtcRegion;

static inline void *ctc_take(CtcRegion *r, size_t count, size_t size)
{
    size_t bytes, end;
    void *p = r->base ? r->base + r->used : NULL;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4 || __builtin_add_overflow(r->used, (bytes + 63) & ~(size_t)63, &end))
        end = SIZE_MAX / 2;
    r->used = end;
    return p;
}

static inline void ctc_take_state(CtcRegion *r, const LfCtcSample *u, CtcState *s) { s->m = ctc_take(r, (size_t)u->pairs * 4, sizeof(double)); }

/* Lays out direction dir; `u` needs no pointers for that. Without gradient only the states of the first half are there. */
static inline void ctc_layout(CtcRegion *r, const LfCtcJob *j, const LfCtcSample *u, int dir, CtcWork *w)
{
    const int gradient = j->g != NULL;
    const size_t count = (size_t)ctc_half_blocks(u, dir), columns = (size_t)u->columns * LF_CTC_FRAMES;
    const size_t groups = gradient && !u->keep ? (count + (size_t)u->group - 1) / (size_t)u->group + 1 : 1;
    const size_t slots = gradient ? u->keep ? count : (size_t)u->group : 0;
    const size_t slot_size = 4 * (size_t)u->width * LF_CTC_FRAMES;
    for (int i = 0; i < 2; i++)
        ctc_take_state(r, u, &w->half[i]);
    for (int i = 0; gradient && i < 2; i++) {
        ctc_take_state(r, u, &w->rest[i]);
        ctc_take_state(r, u, &w->again[i]);
    }
    w->hard = ctc_take(r, count + 1, 1);
    w->split.m = ctc_take(r, 2 * columns, sizeof(double));
    w->checkpoint = ctc_take(r, groups, sizeof *w->checkpoint);
    for (size_t g = 0; g < groups; g++) {
        double *m = ctc_take(r, (size_t)u->pairs * 4, sizeof(double));
        if (r->base)
            w->checkpoint[g].m = m;
    }
    w->column = ctc_take(r, gradient ? columns : 0, sizeof(double));
    w->last = ctc_take(r, gradient ? (size_t)u->pairs : 0, sizeof(double));
    w->states = gradient && j->states ? ctc_take(r, 2 * (size_t)u->pairs * LF_CTC_FRAMES, sizeof(double)) : NULL;
    w->slot = ctc_take(r, slots, sizeof *w->slot);
    for (size_t k = 0; k < slots; k++) {
        double *rows = ctc_take(r, slot_size, sizeof(double));
        if (r->base)
            w->slot[k].rows = rows;
    }
}

static inline void ctc_take_choices(CtcRegion *r, CtcChoices *c, ptrdiff_t blocks, ptrdiff_t octets)
{
    c->octets = octets;
    c->choice = ctc_take(r, (size_t)blocks, (size_t)octets * sizeof *c->choice);
    c->lo = ctc_take(r, (size_t)blocks, sizeof(int32_t));
    c->hi = ctc_take(r, (size_t)blocks, sizeof(int32_t));
}

static inline void ctc_trace_layout(CtcRegion *r, const LfCtcSample *u, int dir, CtcTrace *w)
{
    for (int i = 0; i < 2; i++)
        w->state[i].m = ctc_take(r, (size_t)u->pairs * 2, sizeof(double));
    ctc_take_choices(r, &w->near, dir ? 0 : u->blocks, 2 * CTC_REACH + 2);
    ctc_take_choices(r, &w->half, ctc_half_blocks(u, dir), u->pairs / CTC_OCTET);
}

/* A prefix in the beam: its mass by whether it ended in a blank, as logarithms, and what the next frame makes of that. */
typedef struct {
    int32_t node;
    double by_blank, by_label, total, next_blank, next_label;
} CtcPrefix;

typedef struct {
    double score;
    int32_t id;
} CtcRanked;

/* What a beam search works in. Node 0 of the trie is the empty prefix. */
typedef struct {
    CtcPrefix *prefix, *next;               /* the beam, best first; n of them */
    CtcRanked *rank, *best;                 /* classes of a frame, and candidates, best first */
    int32_t *entry, *extend;                /* of candidates: place in the beam, and class to add or -1 */
    int32_t *parent, *label, *slot, *table; /* by node: place in the beam or -1; hash table of nodes */
    size_t mask;
    int shift;
    int32_t nodes;
    ptrdiff_t n, width;
} CtcBeam;

static inline void ctc_beam_layout(CtcRegion *r, const LfCtcDecode *j, CtcBeam *b, double **row)
{
    const size_t width = (size_t)j->width, nodes = width * (size_t)j->steps + 1;
    size_t candidates = 2 * width;
    for (size_t k = 1; k <= width; k++)
        candidates += width / k + 1;
    b->width = j->width;
    for (b->shift = 60; b->shift > 1 && (size_t)1 << (64 - b->shift) < 2 * nodes; b->shift--) {
    }
    b->mask = ((size_t)1 << (64 - b->shift)) - 1;
    *row = ctc_take(r, (size_t)j->C, sizeof(double));
    b->prefix = ctc_take(r, width, sizeof(CtcPrefix)), b->next = ctc_take(r, width, sizeof(CtcPrefix));
    b->rank = ctc_take(r, width + 1, sizeof(CtcRanked)), b->best = ctc_take(r, width, sizeof(CtcRanked));
    b->entry = ctc_take(r, candidates, sizeof(int32_t)), b->extend = ctc_take(r, candidates, sizeof(int32_t));
    b->parent = ctc_take(r, nodes, sizeof(int32_t)), b->label = ctc_take(r, nodes, sizeof(int32_t)), b->slot = ctc_take(r, nodes, sizeof(int32_t));
    b->table = ctc_take(r, b->mask + 1, sizeof(int32_t));
}

#endif
