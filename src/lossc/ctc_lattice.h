/* The CTC lattice: forward and backward recursion over the pairs (blank i, label i) of one sample. Always in double.
 *
 * Recursion (Graves et al. 2006), with B, L the probabilities of all paths that end in blank i, label i after a frame:
 *     B'[i] = (B[i] + L[i-1]) p(blank)        L'[i] = (L[i] + B[i] + skip[i] L[i-1]) p(label i)
 * from B[0] = 1 before the first frame. Direction 1 runs the same over reversed frames and reversed labels; where both meet,
 *     Z = sum over states of (the bracket of direction 0) x (the state of direction 1),
 * and continuing one direction into frames the other has stored, bracket x stored / Z is the occupancy of the state in that frame.
 *
 * Representation. A state is m 2^e: a double m >= 0 and an exponent e that is an integer held in a double, e = EMPTY where m = 0. That is
 * log space with the logarithm split into an exact integer and a mantissa: its range is unlimited, and rounding is relative to the probability,
 * not to its logarithm. No exp or log in the recursion. Emissions come divided by a factor common to a frame, which only shifts the result.
 * Integers are exact to 2^53; where Z itself is less than 2^-(2^51) see ctc_far_emission().
 *
 * Two ways through a block of 8 frames, from the same states to the same states:
 *  ctc_exact   aligns and renormalises in every frame. Always right; some 4 times slower.
 *  ctc_fast    chooses exponents at the start of the block, eL[i] >= eL[i-1] - SLOPE and so on, keeps them for 8 frames, and processes a
 *              vector of pairs through all 8 frames in registers. Nothing overflows: a value starts below 2, one step multiplies
 *              by at most 3 2^SLOPE, and 2 (3 2^SLOPE)^8 < 2^462. What underflow loses is below 2^-1022 at each operation, hence
 *              below 2^-1022 2^462 2^8 = 2^-552 at the end of the block; so if every state that can hold something ends the block
 *              above TINY = 2^-440, every relative error is below 2^-112. That is checked; if it fails the block is done by ctc_exact.
 *              No assumption on the data: exactness rests on the check.
 *              With occupancies, states of the second passes may lack what was pruned. There a state below TINY is accepted if even TINY
 *              in its place had an occupancy below 2^-80.
 *
 * Pruning (first passes): Z is at least the mass of the paths near the largest state, which ctc_bound() finds by a narrow search. In a frame a state
 * leads to the blank and two classes at most, so the sum of its continuations is below the product over the frames of the sum of the blank's and
 * the two largest emissions (`growth`). A vector of pairs at either end that even so adds less than 2^-100 Z is dropped, and a state below TINY
 * that would be dropped is accepted.
 *
 * Pruning (second passes): a vector of pairs at either end whose occupancies are all below 2^-90 is dropped; occupancy bounds every flow
 * through a state, so what is lost is below 2^-90 for each state dropped.
 *
 * Emissions q[block][column][8 frames]: eight frames of one column adjoin, so eight labels x eight frames are eight loads and a
 * transposition whatever the labels are, and occupancies go back the same way, summed by column without a scatter.
 * An emission below e^-700 is stored as its (negative) logarithm; such a block is rough and left to ctc_exact.
 */
#ifndef LF_CTC_LATTICE_H
#define LF_CTC_LATTICE_H

#include "ctc_plan.h"
#include "ctc_vector.h"

#define F LF_CTC_FRAMES
#define EMPTY -0x1p1020 /* exponent of 0: below all others, and differences are finite */
#define CTC_LOG2E 0x1.71547652b82fep+0
#define SLOPE 56.0
#define TINY 0x1p-440
#define TINY_BITS 440
#define PRUNED 100.0    /* first passes: a state that can add no more than 2^-PRUNED Z counts for nothing */
#define CTC_NEAR 16     /* pairs on both sides of the largest state that ctc_bound() looks at */
#define MAX_SCALE 480.0 /* of occupancies: (2^462) 2^480 is finite */

/* ---- states, stored frames, occupancies ----------------------------------------------------------------------------------------------- */

typedef struct {
    const CtcStored *stored;
    double scale, exponent; /* 1/Z = scale 2^-exponent */
    double *column;         /* [column][frame]: sum of occupancies */
    double *last;           /* by pair: occupancy in the last frame of the block */
    double *states;         /* [frame][blank, label][pair]: occupancies, or NULL; by ctc_exact only */
} CtcOccupancy;

INLINE double *ctc_row(const LfCtcSample *u, const CtcStored *s, int frame, int label, int exponent)
{
    return s->rows + ((exponent * F + frame) * 2 + label) * u->width + CTC_MARGIN;
}

/* A fresh slot of stored frames for pairs of groups lo .. hi: margins become empty. */
static void ctc_open_store(const LfCtcSample *u, CtcStored *s, ptrdiff_t lo, ptrdiff_t hi, int exact)
{
    s->lo = lo * LANES, s->hi = hi * LANES, s->exact = exact;
    for (int e = 0; e < 2; e++)
        for (int f = 0; f < (e && !exact ? 1 : F); f++)
            for (int l = 0; l < 2; l++) {
                double *row = ctc_row(u, s, f, l, e);
                const V fill = ctc_splat(e ? EMPTY : 0);
                for (int i = 0; i < CTC_MARGIN; i += LANES)
                    *(V *)(row + s->lo - CTC_MARGIN + i) = *(V *)(row + s->hi + i) = *(V *)(row + s->hi + CTC_MARGIN + i) = fill;
            }
}

/* Emissions of LANES labels in F frames. */
INLINE void ctc_emissions(V p[F], const double *q, const int32_t *column)
{
    for (int f = 0; f < F; f += LANES) {
        for (int l = 0; l < LANES; l++)
            p[f + l] = *(const V *)(q + (uint32_t)column[l] + f);
        ctc_transpose(p + f);
    }
}

/* Back: column sums of label occupancies. */
INLINE void ctc_collect(double *sum, V p[F], const int32_t *column)
{
    for (int f = 0; f < F; f += LANES) {
        ctc_transpose(p + f);
        for (int l = 0; l < LANES; l++)
            *(V *)(sum + (uint32_t)column[l] + f) += p[f + l];
    }
}

/* Which lanes can hold anything after n frames: reachable by then, and able to end in time. */
INLINE VI ctc_live(const int32_t *reach, const int32_t *need, ptrdiff_t n, ptrdiff_t steps)
{
    return ctc_at_most((const VH *)reach, n) & ctc_at_most((const VH *)need, steps - n);
}

INLINE int ctc_all_live(const LfCtcSample *u, int dir, ptrdiff_t i, ptrdiff_t n)
{
    return u->reach_l[dir][i + LANES - 1] <= n && u->need_b[dir][i] <= u->steps - n;
}

INLINE void ctc_load_state(const CtcState *s, ptrdiff_t v, V *B, V *L, V *eB, V *eL)
{
    if (v < s->hi) {
        const V *a = (const V *)s->m + 4 * v;
        *B = a[0], *L = a[1], *eB = a[2], *eL = a[3];
    } else {
        *B = *L = ctc_splat(0);
        *eB = *eL = ctc_splat(EMPTY);
    }
}

INLINE void ctc_save_state(const CtcState *s, ptrdiff_t v, V B, V L, V eB, V eL)
{
    V *a = (V *)s->m + 4 * v;
    a[0] = B, a[1] = L, a[2] = eB, a[3] = eL;
}

/* Frames read by direction dir before block b, and in it. */
INLINE ptrdiff_t ctc_frames_in(const LfCtcSample *u, ptrdiff_t b) { return u->steps - b * F < F ? u->steps - b * F : F; }
INLINE ptrdiff_t ctc_frames_before(const LfCtcSample *u, int dir, ptrdiff_t b) { return dir ? u->steps - b * F - ctc_frames_in(u, b) : b * F; }

/* Groups that can hold anything during block b; with `o`, that the other direction has stored as well. */
INLINE void ctc_range(const LfCtcSample *u, int dir, ptrdiff_t b, const CtcState *in, const CtcOccupancy *o, CtcState *out)
{
    const ptrdiff_t n = ctc_frames_before(u, dir, b), end = n + ctc_frames_in(u, b);
    ptrdiff_t lo = in->lo, hi = in->hi + F / LANES, groups = u->pairs / LANES;
    if (hi > groups)
        hi = groups;
    if (o) { /* group v meets stored pairs S - 1 - i and S - i, LANES v <= i < LANES (v + 1) */
        ptrdiff_t first = u->S - o->stored->hi - 1, last = u->S - o->stored->lo; /* pairs that matter, and the one that feeds them */
        if (first > 0 && lo < first / LANES)
            lo = first / LANES;
        if (hi > last / LANES + 1)
            hi = last < 0 ? 0 : last / LANES + 1;
    }
    while (lo < hi && u->need_l[dir][lo * LANES + LANES - 1] > u->steps - n)
        lo++;
    while (lo < hi && u->reach_b[dir][(hi - 1) * LANES] > end)
        hi--;
    out->lo = lo, out->hi = hi;
}

/* ---- a block, fast -------------------------------------------------------------------------------------------------------------------- */

/* The smallest exponents that normalise states of exponents oB, oL and fall by at most SLOPE from pair to pair; `left` holds those of the
 * labels of the group before. */
INLINE void ctc_slope(V oB, V oL, V left, V *eB, V *eL)
{
    *eL = ctc_slope_max(ctc_max(oL, oB - SLOPE), left, ctc_splat(EMPTY), SLOPE);
    *eB = ctc_max(oB, ctc_previous(left, *eL) - SLOPE);
}

/* Advance `in` through block b, eight frames, to `out`. With `store` all frames are kept, with `o` occupancies are made and added up; states below
 * 2^floor count for nothing. Returns whether the result is exact to rounding; if not, all of it is to be done again by ctc_exact. */
INLINE int ctc_fast_block(const LfCtcSample *u, const int dir, ptrdiff_t b, const CtcState *in, CtcState *out, CtcStored *store,
                          const CtcOccupancy *o, double floor)
{
    const ptrdiff_t n = ctc_frames_before(u, dir, b);
    const double *q = u->q + b * u->columns * F;
    const V zero = ctc_splat(0), empty = ctc_splat(EMPTY);
    V left[F], el = empty, blank[F];
    VI bad = (VI){0};
#pragma GCC unroll 8 /* lest gcc calls memset */
    for (int k = 0; k < F; k++)
        left[k] = zero;
#pragma GCC unroll 8
    for (int k = 0; k < F && o; k++)
        blank[k] = zero;
    const double *pb = q + u->blank * F;

    ctc_range(u, dir, b, in, o, out);
    if (store)
        ctc_open_store(u, store, out->lo, out->hi, 0);
    for (ptrdiff_t v = out->lo; v < out->hi; v++) {
        const ptrdiff_t i = v * LANES;
        V B, L, oB, oL, eB, eL;
        ctc_load_state(in, v, &B, &L, &oB, &oL);
        if (!ctc_all_live(u, dir, i, n)) {
            VI b_live = ctc_live(u->reach_b[dir] + i, u->need_b[dir] + i, n, u->steps);
            VI l_live = ctc_live(u->reach_l[dir] + i, u->need_l[dir] + i, n, u->steps);
            B = ctc_where(b_live, B), L = ctc_where(l_live, L);
        }
        /* exponents for this block */
        V xB = ctc_select(B > zero, ctc_exponent(B) + oB, empty), xL = ctc_select(L > zero, ctc_exponent(L) + oL, empty);
        ctc_slope(xB, xL, el, &eB, &eL);
        const V es = ctc_previous(el, eL);
        el = eL;
        B *= ctc_pow2(ctc_where(B > zero, oB - eB)), L *= ctc_pow2(ctc_where(L > zero, oL - eL));
        const V cB = ctc_pow2(es - eB), cLB = ctc_pow2(eB - eL), cLL = ctc_pow2(es - eL) * *(const V *)(u->skip[dir] + i);

        V p[F], sB = zero, sL = zero, last = zero;
        const double *rB = 0, *rL = 0;
        if (o) {
            rB = ctc_row(u, o->stored, 0, 0, 0) + u->S - i - (LANES - 1), rL = ctc_row(u, o->stored, 0, 1, 0) + u->S - 1 - i - (LANES - 1);
            V dB = eB + ctc_reversed(rB + 2 * F * u->width) - o->exponent, dL = eL + ctc_reversed(rL + 2 * F * u->width) - o->exponent;
            bad |= (dB > MAX_SCALE) | (dL > MAX_SCALE);
            sB = ctc_pow2(dB) * o->scale, sL = ctc_pow2(dL) * o->scale;
        }
        ctc_emissions(p, q, u->column[dir] + i);
#pragma GCC unroll 8
        for (int k = 0; k < F; k++) {
            const int f = dir ? F - 1 - k : k;
            const V ls = ctc_previous(left[k], L);
            left[k] = L;
            const V b0 = B;
            B = b0 + cB * ls, L = (L + cLB * b0) + cLL * ls;
            if (o) {
                const V tB = ctc_reversed(rB + 2 * f * u->width) * sB, tL = ctc_reversed(rL + 2 * f * u->width) * sL;
                const V gB = B * tB, gL = L * tL;
                blank[f] += gB;
                if (k == F - 1) {
                    last = gB + gL;
                    bad |= ((B < TINY) & (TINY * tB > 0x1p-80)) | ((L < TINY) & (TINY * tL > 0x1p-80));
                }
                B *= pb[f], L *= p[f];
                p[f] = gL;
            } else {
                B *= pb[f], L *= p[f];
            }
            if (store) {
                *(V *)(ctc_row(u, store, f, 0, 0) + i) = B;
                *(V *)(ctc_row(u, store, f, 1, 0) + i) = L;
            }
        }
        ctc_save_state(out, v, B, L, eB, eL);
        if (store) {
            *(V *)(ctc_row(u, store, 0, 0, 1) + i) = eB;
            *(V *)(ctc_row(u, store, 0, 1, 1) + i) = eL;
        }
        if (o) {
            ctc_collect(o->column, p, u->column[dir] + i);
            *(V *)(o->last + i) = last;
        } else {
            V lB = B, lL = L;
            if (!ctc_all_live(u, dir, i, n + F)) {
                lB = ctc_select(ctc_live(u->reach_b[dir] + i, u->need_b[dir] + i, n + F, u->steps), B, ctc_splat(1));
                lL = ctc_select(ctc_live(u->reach_l[dir] + i, u->need_l[dir] + i, n + F, u->steps), L, ctc_splat(1));
            }
            bad |= (~(lB >= TINY) & (eB > floor + TINY_BITS)) | (~(lL >= TINY) & (eL > floor + TINY_BITS));
        }
    }
    if (o)
        for (int f = 0; f < F; f++)
            o->column[u->blank * F + f] += ctc_sum(blank[f]);
    return !ctc_any(bad);
}

/* ---- a block, exact ------------------------------------------------------------------------------------------------------------------- */

/* An emission, whose logarithm is x, where even log2 Z is below -FAR. Sums of exponents must be exact for occupancies to be probabilities, so they
 * are counted in two digits of one double: the lower adds up exponents as they are, limited to +-FAR_LOW, and the number of paths; the upper, of
 * weight `step`, counts whole units, of which log2 Z has less than 2^50 / step. Entries that differ by less than a unit are equal here, and paths
 * that are equal so far are weighed by their lower digits. The units are those of the entry itself, whose distance x to the frame's factor has
 * lost the `offset` that lies between them: that is all its lower digit holds. */
#define FAR 0x1p51
#define FAR_LOW 4096.0
INLINE double ctc_far_emission(const CtcSplit *s, double x, double offset, double *e)
{
    const double between = fabs(offset) * CTC_LOG2E < FAR_LOW ? offset : 0, units = ceil((x + between) * CTC_LOG2E / s->unit);
    const double log2p = CTC_LOG2E * (units < 0 ? -between : x), low = log2p > -FAR_LOW ? log2p : -FAR_LOW, whole = floor(low);
    *e = (units < 0 ? units * s->step : 0) + whole;
    return lf_exp_f64((low - whole) * 0x1.62e42fefa39efp-1);
}

/* Emissions of a block as mantissas and exponents: m[column][frame], then e likewise. */
static void ctc_split(const LfCtcSample *u, ptrdiff_t b, const CtcSplit *split)
{
    double *m = split->m;
    const ptrdiff_t size = u->columns * F;
    const double *q = u->q + b * size;
    double *e = m + size;
    for (ptrdiff_t i = 0; i < size; i += LANES) {
        const V x = *(const V *)(q + i), zero = ctc_splat(0);
        *(V *)(m + i) = ctc_select(x > zero, ctc_mantissa(x), zero);
        *(V *)(e + i) = ctc_select(x > zero, ctc_exponent(x), ctc_splat(EMPTY));
    }
    if (u->rough[b])
        for (ptrdiff_t i = 0; i < size; i++)
            if (q[i] < 0 && split->unit > 0) {
                m[i] = ctc_far_emission(split, q[i], u->offset[b * F + i % F], &e[i]);
            } else if (q[i] < 0) { /* a logarithm; beyond 2^40 its fraction is below rounding */
                e[i] = floor(q[i] * CTC_LOG2E);
                m[i] = e[i] < -0x1p40 ? 1 : lf_exp_f64((q[i] - e[i] * LF_LN2_HI) - e[i] * LF_LN2_LO);
            }
}

INLINE void ctc_normalise(V *m, V *e)
{
    const VI some = *m > ctc_splat(0);
    *e = ctc_select(some, *e + ctc_exponent(*m), ctc_splat(EMPTY));
    *m = ctc_select(some, ctc_mantissa(*m), ctc_splat(0));
}

/* Both states of pairs become their brackets; ls 2^es: the label before. */
INLINE void ctc_bracket(V ls, V es, V skip, V *B, V *L, V *eB, V *eL)
{
    const V ek = ctc_select(skip > ctc_splat(0), es, ctc_splat(EMPTY)), xB = ctc_max(*eB, es), xL = ctc_max(ctc_max(*eL, *eB), ek);
    *L = (*L * ctc_pow2(*eL - xL) + *B * ctc_pow2(*eB - xL)) + skip * ls * ctc_pow2(ek - xL);
    *B = *B * ctc_pow2(*eB - xB) + ls * ctc_pow2(es - xB);
    *eB = xB, *eL = xL;
}

/* Advance as ctc_fast_block does, by any number of frames. */
static void ctc_exact(const LfCtcSample *u, int dir, ptrdiff_t b, const CtcState *in, CtcState *out, CtcStored *store, const CtcOccupancy *o,
                      const CtcSplit *split)
{
    const ptrdiff_t frames = ctc_frames_in(u, b), size = u->columns * F;
    const V zero = ctc_splat(0), empty = ctc_splat(EMPTY);
    V left[F], left_e[F], blank[F];
    for (int k = 0; k < F; k++)
        left[k] = blank[k] = zero, left_e[k] = empty;
    const double *pb = split->m + u->blank * F;

    ctc_split(u, b, split);
    ctc_range(u, dir, b, in, o, out);
    if (store)
        ctc_open_store(u, store, out->lo, out->hi, 1);
    for (ptrdiff_t v = out->lo; v < out->hi; v++) {
        const ptrdiff_t i = v * LANES;
        V B, L, eB, eL, p[F], e[F], g[F];
        ctc_load_state(in, v, &B, &L, &eB, &eL);
        ctc_normalise(&B, &eB);
        ctc_normalise(&L, &eL);
        ctc_emissions(p, split->m, u->column[dir] + i);
        ctc_emissions(e, split->m + size, u->column[dir] + i);
        const V skip = *(const V *)(u->skip[dir] + i);
        for (int f = 0; f < F; f++)
            g[f] = zero;
        for (ptrdiff_t k = 0; k < frames; k++) {
            const ptrdiff_t f = dir ? frames - 1 - k : k;
            const V ls = ctc_previous(left[k], L), es = ctc_previous(left_e[k], eL);
            left[k] = L, left_e[k] = eL;
            ctc_bracket(ls, es, skip, &B, &L, &eB, &eL);
            if (o) {
                const double *rB = ctc_row(u, o->stored, f, 0, 0) + u->S - i - (LANES - 1);
                const double *rL = ctc_row(u, o->stored, f, 1, 0) + u->S - 1 - i - (LANES - 1);
                const ptrdiff_t to_e = (o->stored->exact ? F : F - f) * 2 * u->width;
                const V dB = eB + ctc_reversed(rB + to_e) - o->exponent, dL = eL + ctc_reversed(rL + to_e) - o->exponent;
                const V tB = ctc_reversed(rB) * ctc_pow2(ctc_min(dB, ctc_splat(1022))); /* beyond that one of both is 0 */
                const V tL = ctc_reversed(rL) * ctc_pow2(ctc_min(dL, ctc_splat(1022)));
                const V gB = tB * (B * o->scale);
                g[f] = tL * (L * o->scale);
                blank[f] += gB;
                if (o->states) {
                    *(V *)(o->states + 2 * f * u->pairs + i) = gB;
                    *(V *)(o->states + (2 * f + 1) * u->pairs + i) = g[f];
                }
                if (k == frames - 1)
                    *(V *)(o->last + i) = gB + g[f];
            }
            B *= pb[f], L *= p[f];
            eB += pb[size + f], eL += e[f];
            ctc_normalise(&B, &eB);
            ctc_normalise(&L, &eL);
            if (store) {
                *(V *)(ctc_row(u, store, f, 0, 0) + i) = B;
                *(V *)(ctc_row(u, store, f, 1, 0) + i) = L;
                *(V *)(ctc_row(u, store, f, 0, 1) + i) = eB;
                *(V *)(ctc_row(u, store, f, 1, 1) + i) = eL;
            }
        }
        ctc_save_state(out, v, B, L, eB, eL);
        if (o)
            ctc_collect(o->column, g, u->column[dir] + i);
    }
    if (o)
        for (int f = 0; f < F; f++)
            o->column[u->blank * F + f] += ctc_sum(blank[f]);
}

/* The instances of ctc_fast_block. */
static int ctc_fast(const LfCtcSample *u, int dir, ptrdiff_t b, const CtcState *in, CtcState *out, CtcStored *store, const CtcOccupancy *o,
                    double floor)
{
    if (o)
        return dir ? ctc_fast_block(u, 1, b, in, out, NULL, o, 0) : ctc_fast_block(u, 0, b, in, out, NULL, o, 0);
    if (store)
        return dir ? ctc_fast_block(u, 1, b, in, out, store, NULL, floor) : ctc_fast_block(u, 0, b, in, out, store, NULL, floor);
    return dir ? ctc_fast_block(u, 1, b, in, out, NULL, NULL, floor) : ctc_fast_block(u, 0, b, in, out, NULL, NULL, floor);
}

/* ---- halves ---------------------------------------------------------------------------------------------------------------------------- */

/* Which way through the next block: after a block that had to be done again the next ones go straight to ctc_exact, 1, 3, 7, then 15 of them. */
typedef struct {
    int hold, span;
} CtcPace;

static int ctc_advance(const LfCtcSample *u, int dir, ptrdiff_t b, const CtcState *in, CtcState *out, CtcStored *store, const CtcOccupancy *o,
                       double floor, const CtcSplit *split, CtcPace *pace)
{
    const size_t size = (size_t)u->columns * F * sizeof(double);
    if (o)
        memset(o->column, 0, size);
    if (o && o->states)
        memset(o->states, 0, 2 * (size_t)u->pairs * F * sizeof(double));
    if (!u->rough[b] && ctc_frames_in(u, b) == F && !(o && (o->stored->exact || o->states))) {
        if (pace->hold > 0) {
            pace->hold--;
        } else if (ctc_fast(u, dir, b, in, out, store, o, floor)) {
            pace->span = 0;
            return 0;
        } else {
            pace->span = pace->span < 15 ? 2 * pace->span + 1 : 15;
            pace->hold = pace->span;
            if (o)
                memset(o->column, 0, size);
        }
    }
    ctc_exact(u, dir, b, in, out, store, o, split);
    return 1;
}

/* State i of kind 0 (blank) or 1 (label) as mantissa and exponent. */
INLINE double ctc_state_of(const CtcState *s, ptrdiff_t i, int label, double *e)
{
    const ptrdiff_t v = i / LANES, l = i % LANES;
    if (i < 0 || v < s->lo || v >= s->hi)
        return *e = EMPTY, 0;
    const double *a = s->m + 4 * LANES * v + l;
    *e = a[(2 + label) * LANES];
    return a[label * LANES];
}

/* Before the first frame all mass is in blank 0. */
static void ctc_start(CtcState *s)
{
    for (int v = 0; v < F / LANES; v++)
        ctc_save_state(s, v, ctc_splat(0), ctc_splat(0), ctc_splat(EMPTY), ctc_splat(EMPTY));
    s->m[0] = 1, s->m[2 * LANES] = 0;
    s->lo = 0, s->hi = F / LANES;
}

/* n with 2^n <= the largest state of group v < 2^(n+1). */
INLINE double ctc_top(const CtcState *s, ptrdiff_t v)
{
    V B, L, eB, eL;
    ctc_load_state(s, v, &B, &L, &eB, &eL);
    ctc_normalise(&B, &eB);
    ctc_normalise(&L, &eL);
    const V e = ctc_max(eB, eL);
    double top = EMPTY;
    for (int l = 0; l < LANES; l++)
        top = e[l] > top ? e[l] : top;
    return top;
}

/* States that ctc_fast cannot vouch for become 0, and groups far from that of the largest state are dropped. */
static void ctc_narrow(CtcState *s)
{
    const ptrdiff_t reach = CTC_NEAR / LANES;
    ptrdiff_t at = s->lo;
    double top = EMPTY;
    for (ptrdiff_t v = s->lo; v < s->hi; v++) {
        V *m = (V *)s->m + 4 * v;
        m[0] = ctc_where(m[0] >= TINY, m[0]), m[1] = ctc_where(m[1] >= TINY, m[1]);
        const double e = ctc_top(s, v);
        if (e > top)
            top = e, at = v;
    }
    s->lo = s->lo < at - reach ? at - reach : s->lo;
    s->hi = s->hi > at + reach + 1 ? at + reach + 1 : s->hi;
}

/* n with 2^n <= Z: the mass of the paths that stay near the largest state of every block. EMPTY if that leads nowhere. */
static double ctc_bound(const LfCtcSample *u, CtcWork *w)
{
    CtcState *in = &w->checkpoint[0];
    ctc_start(in);
    for (ptrdiff_t b = 0; b < u->blocks; b++) {
        CtcState *out = &w->half[b & 1];
        if (u->rough[b] || ctc_frames_in(u, b) < F)
            ctc_exact(u, 0, b, in, out, NULL, NULL, &w->split);
        else
            ctc_fast(u, 0, b, in, out, NULL, NULL, 0);
        ctc_narrow(out);
        in = out;
    }
    double e[2], blank = ctc_state_of(in, u->S, 0, &e[0]), label = ctc_state_of(in, u->S - 1, 1, &e[1]);
    V m = {blank, label}, exponent = {e[0], e[1]};
    ctc_normalise(&m, &exponent);
    return exponent[0] > exponent[1] ? exponent[0] : exponent[1];
}

/* Drop groups at either end whose states are all below 2^floor. */
static void ctc_clip(CtcState *s, double floor)
{
    while (s->lo < s->hi && ctc_top(s, s->lo) < floor)
        s->lo++;
    while (s->lo < s->hi && ctc_top(s, s->hi - 1) < floor)
        s->hi--;
}

/* The states of the pairs that those of group v meet, normalised: S - i in blank i, S - 1 - i in label i. */
INLINE void ctc_load_other(const LfCtcSample *u, const CtcState *s, ptrdiff_t v, V *B, V *L, V *eB, V *eL)
{
    const ptrdiff_t low = u->S - (v + 1) * LANES, first = (low + LANES) / LANES - 1;
    V m[4][2];
    for (int h = 0; h < 2; h++) {
        const ptrdiff_t w = first + h;
        for (int k = 0; k < 4; k++)
            m[k][h] = w >= s->lo && w < s->hi ? ((const V *)s->m)[4 * w + k] : ctc_splat(k < 2 ? 0 : EMPTY);
    }
    const double *at = (const double *)m + (low - first * LANES);
    *B = ctc_reversed(at + 1), *L = ctc_reversed(at + 2 * LANES);
    *eB = ctc_reversed(at + 4 * LANES + 1), *eL = ctc_reversed(at + 6 * LANES);
    ctc_normalise(B, eB);
    ctc_normalise(L, eL);
}

/* sum 2^top += m 2^e, m of the size of 1. */
INLINE void ctc_add(V *sum, V *top, V m, V e)
{
    const V x = ctc_max(*top, e);
    *sum = *sum * ctc_pow2(*top - x) + m * ctc_pow2(e - x);
    *top = x;
}

/* Z = m 2^e, m in [1, 2) or 0, from the states of both directions where they meet. */
static double ctc_meet(const LfCtcSample *u, const CtcState *a, const CtcState *b, double *exponent)
{
    V sum = ctc_splat(0), top = ctc_splat(EMPTY), left = sum, left_e = top;
    for (ptrdiff_t v = a->lo; v <= a->hi && v * LANES <= u->S; v++) {
        V B, L, eB, eL, yB, yL, tB, tL;
        ctc_load_state(a, v, &B, &L, &eB, &eL);
        ctc_normalise(&B, &eB);
        ctc_normalise(&L, &eL);
        ctc_load_other(u, b, v, &yB, &yL, &tB, &tL);
        const V ls = ctc_previous(left, L), es = ctc_previous(left_e, eL);
        left = L, left_e = eL;
        ctc_bracket(ls, es, *(const V *)(u->skip[0] + v * LANES), &B, &L, &eB, &eL);
        ctc_add(&sum, &top, B * yB, eB + tB);
        ctc_add(&sum, &top, L * yL, eL + tL);
    }
    const double most = ctc_largest(top), total = ctc_sum(sum * ctc_pow2(top - most));
    V m = ctc_splat(total), e = ctc_splat(most);
    ctc_normalise(&m, &e);
    *exponent = total > 0 ? e[0] : 0;
    return m[0];
}

/* Whether log2 Z can be below -FAR. */
static int ctc_may_be_far(const LfCtcSample *u)
{
    double total = 0;
    for (ptrdiff_t b = 0; b < u->blocks; b++) {
        const double *q = u->q + b * u->columns * F;
        double least = 0;
        for (ptrdiff_t i = 0; u->rough[b] && i < u->columns * F; i++)
            least = q[i] < least ? q[i] : least;
        total += F * least;
    }
    return total < -FAR / 2;
}

/* How far exponents are to be taken: by Z, from a pass over all frames whose exponents are rounded where they are far, which a logarithm is too. */
static void ctc_look_far(const LfCtcSample *u, CtcWork *w)
{
    CtcState *in = &w->checkpoint[0];
    CtcPace pace = {0, 0};
    w->split.unit = w->split.step = 0;
    if (!ctc_may_be_far(u))
        return;
    ctc_start(in);
    for (ptrdiff_t b = 0; b < u->blocks; b++) {
        CtcState *out = &w->half[b & 1];
        ctc_advance(u, 0, b, in, out, NULL, NULL, -INFINITY, &w->split, &pace);
        in = out;
    }
    ctc_start(&w->checkpoint[0]);
    w->z = ctc_meet(u, in, &w->checkpoint[0], &w->exponent);
    if (!(w->z > 0 && w->exponent < -FAR))
        return;
    w->split.step = 4 * FAR_LOW;
    while (w->split.step < 4 * FAR_LOW * (double)u->steps)
        w->split.step *= 2;
    w->split.unit = ctc_pow2(ctc_exponent(ctc_splat(-w->exponent)))[0] * (w->split.step * 0x1p-49);
}

/* The first half of a direction, from the start to where both meet; with `gradient` what the second halves need is kept. */
static void ctc_first_half(const LfCtcSample *u, int dir, int gradient, int whole, CtcWork *work)
{
    CtcWork *w = &work[dir];
    CtcPace pace = {0, 0};
    const ptrdiff_t count = ctc_half_blocks(u, dir);
    double floor = -INFINITY;
    if (whole && dir)
        w->split.unit = work[0].split.unit, w->split.step = work[0].split.step;
    else
        ctc_look_far(u, w);
    const int prunes = u->growth && !(w->split.unit > 0);
    if (prunes) {
        w->bound = whole && dir ? work[0].bound : ctc_bound(u, w);
        floor = w->bound > EMPTY ? w->bound - PRUNED : -INFINITY;
        for (ptrdiff_t b = 0; b < u->blocks; b++)
            floor -= u->growth[b];
    }
    CtcState *in = &w->checkpoint[0];
    ctc_start(in);
    for (ptrdiff_t j = 0; j < count; j++) {
        const int opens = gradient && !u->keep && (j + 1) % u->group == 0 && j + 1 < count;
        const ptrdiff_t b = ctc_block(u, dir, j);
        CtcState *out = opens ? &w->checkpoint[(j + 1) / u->group] : &w->half[j & 1];
        floor += prunes ? u->growth[b] : 0;
        w->hard[j] = (uint8_t)ctc_advance(u, dir, b, in, out, gradient && u->keep ? &w->slot[j] : NULL, NULL, floor, &w->split, &pace);
        if (prunes)
            ctc_clip(out, floor);
        in = out;
    }
    w->end = *in;
}

/* Frames of group g of the other direction's half, near the pairs that `state` of this direction holds: its mass cannot move further right
 * than one pair a frame, and what lies outside has no occupancy that counts. */
static void ctc_again(const LfCtcSample *u, int dir, ptrdiff_t g, const CtcState *state, const CtcWork *other, CtcWork *w)
{
    const ptrdiff_t count = ctc_half_blocks(u, 1 - dir), first = g * u->group, end = first + u->group < count ? first + u->group : count;
    const ptrdiff_t low = u->S - 1 - (state->hi * LANES + (end - first) * F), high = u->S - state->lo * LANES;
    CtcState clip = other->checkpoint[g];
    if (low > clip.lo * LANES)
        clip.lo = low / LANES;
    if (clip.hi > high / LANES + 1)
        clip.hi = high / LANES + 1;
    const CtcState *in = &clip;
    for (ptrdiff_t j = first; j < end; j++) {
        CtcState *out = &w->again[j & 1];
        const ptrdiff_t b = ctc_block(u, 1 - dir, j);
        if (other->hard[j])
            ctc_exact(u, 1 - dir, b, in, out, &w->slot[j - first], NULL, &w->split);
        else
            ctc_fast(u, 1 - dir, b, in, out, &w->slot[j - first], NULL, 0);
        in = out;
    }
}

/* Drop groups at either end whose pairs had occupancies below 2^-90 in the block's last frame. */
static void ctc_prune(CtcState *s, const double *last)
{
    while (s->lo < s->hi && !ctc_any(*(const V *)(last + s->lo * LANES) > 0x1p-90))
        s->lo++;
    while (s->lo < s->hi && !ctc_any(*(const V *)(last + (s->hi - 1) * LANES) > 0x1p-90))
        s->hi--;
}

/* The second half of a direction, where Z = z 2^e: for each block, occupancies by column and frame into w->column, and then emit(context, block). */
static void ctc_second_half(const LfCtcSample *u, int dir, double z, double e, CtcWork *w, const CtcWork *other, void (*emit)(void *, ptrdiff_t),
                            void *context)
{
    const CtcState *in = &w->end;
    CtcPace pace = {0, 0};
    for (ptrdiff_t j = ctc_half_blocks(u, 1 - dir) - 1; j >= 0; j--) {
        const ptrdiff_t b = ctc_block(u, 1 - dir, j);
        CtcState *out = &w->rest[j & 1];
        if (!u->keep && ((j + 1) % u->group == 0 || j == ctc_half_blocks(u, 1 - dir) - 1))
            ctc_again(u, dir, j / u->group, in, other, w);
        const CtcOccupancy o = {u->keep ? &other->slot[j] : &w->slot[j % u->group], 1 / z, e, w->column, w->last, w->states};
        ctc_advance(u, dir, b, in, out, NULL, &o, 0, &w->split, &pace);
        ctc_prune(out, w->last);
        emit(context, b);
        in = out;
    }
}

#endif
