/* Viterbi alignment over the same lattice: sums become maxima of log-probabilities, in double, so the path is the optimum of double.
 *
 * Each maximum leaves a bit that tells which side it took: three bits for each pair and frame, along which the path is followed back. Ties: stay,
 * then the state before, then the skip. Emissions are log-probabilities less the largest of the frame's labels, so at most 0: what goes through a
 * state scores no more than the state does.
 *  - ctc_search() goes forward through all frames near the best state, and keeps the best score of any state it drops. If its path scores
 *    more, no other does, and that is all.
 *  - Otherwise both directions run to the middle, each from its end, and drop only what already scores less than that path. From where they
 *    meet best each follows its half back.
 * Which way is taken is the same on every ISA: states are dropped by octets of pairs. See ctc_lattice.h for the order of emissions.
 */
#ifndef LF_CTC_ALIGN_H
#define LF_CTC_ALIGN_H

#define CTC_NEVER ctc_splat(-INFINITY)
#define CTC_NARROW 64 /* pairs from which a search is worth its while */
#define CTC_LATER 4.0
#define CTC_BEHIND 100.0
#define CTC_PARTS (CTC_OCTET / LANES) /* groups in an octet */

/* Bit l: whether a[l] > b[l]. */
INLINE unsigned ctc_above(V a, V b)
{
#if defined __AVX512F__
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ);
#elif defined __AVX__
    return (unsigned)_mm256_movemask_pd((__m256d)(a > b));
#elif defined __SSE2__
    return (unsigned)_mm_movemask_pd((__m128d)(a > b));
#else
    unsigned bits = 0;
    for (int l = 0; l < LANES; l++)
        bits |= (unsigned)(a[l] > b[l]) << l;
    return bits;
#endif
}

/* One octet's bits of a frame, of which `part` comes now. */
INLINE void ctc_mark(uint8_t *to, int part, unsigned bits) { *to = (uint8_t)(part ? *to | bits << part * LANES : bits); }

/* Advance `in` through block b with emissions q. States are vectors B, L of each group, groups are whole octets. */
INLINE void ctc_best_block(const LfCtcSample *u, const int dir, const ptrdiff_t frames, ptrdiff_t b, const double *q, const CtcState *in,
                           CtcState *out, uint8_t (*choice)[CTC_CHOICES][F])
{
    const double *pb = q + u->blank * F;
    V left[F];
    for (int k = 0; k < F; k++)
        left[k] = CTC_NEVER;
    ctc_range(u, dir, b, in, NULL, out);
    out->lo = out->lo / CTC_PARTS * CTC_PARTS;
    out->hi = (out->hi + CTC_PARTS - 1) / CTC_PARTS * CTC_PARTS;
    for (ptrdiff_t v = out->lo; v < out->hi; v++) {
        const ptrdiff_t i = v * LANES;
        const int part = (int)(v % CTC_PARTS);
        uint8_t (*to)[F] = choice[(v - out->lo) / CTC_PARTS];
        const V *state = (const V *)in->m + 2 * v;
        V B = v < in->hi ? state[0] : CTC_NEVER, L = v < in->hi ? state[1] : CTC_NEVER, p[F];
        const V allow = ctc_select(*(const V *)(u->skip[dir] + i) > ctc_splat(0), -CTC_NEVER, CTC_NEVER);
        ctc_emissions(p, q, u->column[dir] + i);
#pragma GCC unroll 8
        for (ptrdiff_t k = 0; k < frames; k++) {
            const ptrdiff_t f = dir ? frames - 1 - k : k;
            const V before = ctc_previous(left[k], L), skip = ctc_min(before, allow), here = ctc_max(L, B);
            left[k] = L;
            ctc_mark(&to[0][k], part, ctc_above(before, B));
            ctc_mark(&to[1][k], part, ctc_above(B, L));
            ctc_mark(&to[2][k], part, ctc_above(skip, here));
            L = ctc_max(here, skip) + p[f];
            B = ctc_max(B, before) + pb[f];
        }
        ((V *)out->m)[2 * v] = B, ((V *)out->m)[2 * v + 1] = L;
    }
}

/* The same as block j of a direction, whose choices are kept. */
static void ctc_best(const LfCtcSample *u, int dir, ptrdiff_t j, const double *q, const CtcState *in, CtcState *out, CtcChoices *c)
{
    const ptrdiff_t b = ctc_block(u, dir, j), frames = ctc_frames_in(u, b);
    uint8_t (*choice)[CTC_CHOICES][F] = c->choice + j * c->octets;
    if (frames < F)
        ctc_best_block(u, dir, frames, b, q, in, out, choice);
    else if (dir)
        ctc_best_block(u, 1, F, b, q, in, out, choice);
    else
        ctc_best_block(u, 0, F, b, q, in, out, choice);
    c->lo[j] = (int32_t)(out->lo / CTC_PARTS), c->hi[j] = (int32_t)(out->hi / CTC_PARTS);
}

static CtcState *ctc_best_start(CtcState *s)
{
    for (int i = 0; i < 2 * CTC_OCTET; i++)
        s->m[i] = i ? -INFINITY : 0;
    s->lo = 0, s->hi = CTC_PARTS;
    return s;
}

/* The best score in the octet of groups v .. v + CTC_PARTS. */
INLINE double ctc_best_in(const CtcState *s, ptrdiff_t v)
{
    const V *state = (const V *)s->m + 2 * v;
    V best = CTC_NEVER;
    for (int i = 0; i < 2 * CTC_PARTS; i++)
        best = ctc_max(state[i], best);
    return ctc_largest(best);
}

INLINE double ctc_best_of(const CtcState *s, ptrdiff_t i, int label)
{
    const ptrdiff_t v = i / LANES;
    return i < 0 || v < s->lo || v >= s->hi ? -INFINITY : s->m[(2 * v + label) * LANES + i % LANES];
}

/* Drop octets at either end in which all score less than `floor`; returns the best score dropped. */
static double ctc_best_clip(CtcState *s, double floor)
{
    double dropped = -INFINITY, best;
    for (; s->lo < s->hi && (best = ctc_best_in(s, s->lo)) < floor; s->lo += CTC_PARTS)
        dropped = best > dropped ? best : dropped;
    for (; s->lo < s->hi && (best = ctc_best_in(s, s->hi - CTC_PARTS)) < floor; s->hi -= CTC_PARTS)
        dropped = best > dropped ? best : dropped;
    return dropped;
}

/* Drop octets that are far from that of the best state, or score less than `later` times as much and CTC_BEHIND; returns as ctc_best_clip does. */
static double ctc_best_near(CtcState *s, double later)
{
    const ptrdiff_t octets = (s->hi - s->lo) / CTC_PARTS;
    double best[2 * CTC_REACH + 2], dropped = -INFINITY;
    ptrdiff_t at = 0, lo = 0, hi = octets;
    for (ptrdiff_t o = 0; o < octets; o++) {
        best[o] = ctc_best_in(s, s->lo + o * CTC_PARTS);
        at = best[o] > best[at] ? o : at;
    }
    const double floor = octets ? later * best[at] - CTC_BEHIND : 0;
    for (; lo < hi && (lo < at - CTC_REACH || best[lo] < floor); lo++)
        dropped = best[lo] > dropped ? best[lo] : dropped;
    for (; lo < hi && (hi - 1 > at + CTC_REACH || best[hi - 1] < floor); hi--)
        dropped = best[hi - 1] > dropped ? best[hi - 1] : dropped;
    s->hi = s->lo + hi * CTC_PARTS, s->lo += lo * CTC_PARTS;
    return dropped;
}

/* Back from `state`, 2 i + label, at the end of block count - 1 of a direction: states of direction 0 into path. */
static void ctc_trace(const LfCtcSample *u, int dir, const CtcChoices *c, ptrdiff_t count, ptrdiff_t state, int32_t *path)
{
    for (ptrdiff_t j = count - 1; j >= 0; j--) {
        const ptrdiff_t b = ctc_block(u, dir, j), frames = ctc_frames_in(u, b), lo = c->lo[j], hi = c->hi[j];
        const uint8_t (*choice)[CTC_CHOICES][F] = (const uint8_t (*)[CTC_CHOICES][F])c->choice + j * c->octets;
        for (ptrdiff_t k = frames - 1; k >= 0; k--) {
            const ptrdiff_t octet = state >> 4, l = state >> 1 & 7;
            path[b * F + (dir ? frames - 1 - k : k)] = (int32_t)(dir ? 2 * u->S - state : state);
            if (octet >= hi)
                continue; /* NaN led here */
            const uint8_t (*at)[F] = choice[octet - lo];
            const unsigned before = at[0][k] >> l & 1u, blank = at[1][k] >> l & 1u, skip = at[2][k] >> l & 1u;
            state -= state & 1 ? skip ? 2 : blank : before;
        }
    }
}

/* The best score over all states where the directions meet, and for each direction the state it has there. */
static double ctc_best_meet(const LfCtcSample *u, const CtcState *a, const CtcState *b, ptrdiff_t state[2])
{
    double best = -INFINITY;
    for (ptrdiff_t i = a->lo * LANES; i <= u->S && i <= a->hi * LANES; i++)
        for (int to = 0; to < 2; to++) {
            const double y = to ? ctc_best_of(b, u->S - 1 - i, 1) : ctc_best_of(b, u->S - i, 0);
            for (int from = 0; from < 3; from++) { /* blank i, label i, label i - 1 */
                if ((to == 0 && from == 1) || (to == 1 && from == 2 && (i >= u->S || !(u->skip[0][i] > 0))))
                    continue;
                const double s = y + (from == 2 ? ctc_best_of(a, i - 1, 1) : ctc_best_of(a, i, from));
                if (s > best)
                    best = s, state[0] = 2 * i + (from == 1) - (from == 2), state[1] = 2 * (u->S - i) - to;
            }
        }
    return best;
}

/* A half of a direction, from the start to where both meet, without states that score less than `bound`, which a path does. */
static void ctc_best_half(const LfCtcSample *u, int dir, double bound, CtcTrace *w)
{
    const ptrdiff_t count = ctc_half_blocks(u, dir);
    CtcState *in = ctc_best_start(&w->state[0]);
    for (ptrdiff_t j = 0; j < count; j++) {
        CtcState *out = &w->state[(j + 1) % 2];
        ctc_best(u, dir, j, u->q + ctc_block(u, dir, j) * u->columns * F, in, out, &w->half);
        ctc_best_clip(out, bound);
        in = out;
    }
    w->end = *in;
}

/* Less than what any order of adding up makes of `best`. */
INLINE double ctc_certain(double best) { return best - 1e-9 * (1 - best); }

/* The forward search. Sets u->best to a score that the best path reaches, and the state in which it ends. Returns whether it is the best. */
static int ctc_search(const LfCtcJob *j, LfCtcSample *u, ptrdiff_t n, CtcTrace *w, ptrdiff_t *state)
{
    CtcState *in = ctc_best_start(&w->state[0]);
    double dropped = -INFINITY;
    for (ptrdiff_t b = 0; b < u->blocks; b++) {
        CtcState *out = &w->state[(b + 1) % 2];
        ctc_best(u, 0, b, ctc_block_emissions(j, u, n, b), in, out, &w->near);
        const double d = ctc_best_near(out, CTC_LATER * (double)u->blocks / (double)(b + 1));
        dropped = d > dropped ? d : dropped;
        in = out;
    }
    const double blank = ctc_best_of(in, u->S, 0), label = ctc_best_of(in, u->S - 1, 1), best = blank > label ? blank : label;
    *state = 2 * u->S - !(blank > label);
    u->best = best;
    return ctc_certain(best) > dropped;
}

#endif
