/* Viterbi alignment over the same lattice: sums become maxima of log-probabilities, in double, so the path is the optimum of double.
 *
 * Both directions run to the middle and keep their states before every group of 32 frames. From where they meet each goes back over its own
 * half: a group is computed again from its checkpoint, only for the 34 pairs from which the path can come, with every frame kept, and the
 * path is the argument of each maximum. No back-pointers: recomputation gives the same bits. Ties: stay, then the state before, then the skip.
 * States that cannot be on a best path, since a path found by a narrow search scores more than they do already, are dropped at both ends.
 * Emissions are log-probabilities less the frame's largest; see ctc_lattice.h for their order.
 */
#ifndef LF_CTC_ALIGN_H
#define LF_CTC_ALIGN_H

#define CTC_BEAM 32 /* pairs that the bound's search looks at */
#define CTC_NEVER ctc_splat(-INFINITY)

/* Advance `in` through block b; groups from `limit` on are not wanted. States are vectors B, L of each group. */
INLINE void ctc_best_block(const LfCtcSample *u, const int dir, const ptrdiff_t frames, ptrdiff_t b, const CtcState *in, CtcState *out,
                           CtcStored *store, ptrdiff_t limit)
{
    const double *q = u->q + b * u->columns * F, *pb = q + u->blank * F;
    V left[F];
    for (int k = 0; k < F; k++)
        left[k] = CTC_NEVER;
    ctc_range(u, dir, b, in, NULL, out);
    if (out->hi > limit)
        out->hi = limit;
    if (store)
        store->lo = out->lo * LANES, store->hi = out->hi * LANES;
    for (ptrdiff_t v = out->lo; v < out->hi; v++) {
        const ptrdiff_t i = v * LANES;
        const V *state = (const V *)in->m + 2 * v;
        V B = v < in->hi ? state[0] : CTC_NEVER, L = v < in->hi ? state[1] : CTC_NEVER, p[F];
        const V allow = ctc_select(*(const V *)(u->skip[dir] + i) > ctc_splat(0), -CTC_NEVER, CTC_NEVER);
        ctc_emissions(p, q, u->column[dir] + i);
#pragma GCC unroll 8
        for (ptrdiff_t k = 0; k < frames; k++) {
            const ptrdiff_t f = dir ? frames - 1 - k : k;
            const V ls = ctc_previous(left[k], L);
            left[k] = L;
            L = ctc_max(ctc_max(L, B), ctc_min(ls, allow)) + p[f];
            B = ctc_max(B, ls) + pb[f];
            if (store) {
                *(V *)(ctc_row(u, store, (int)f, 0, 0) + i) = B;
                *(V *)(ctc_row(u, store, (int)f, 1, 0) + i) = L;
            }
        }
        ((V *)out->m)[2 * v] = B, ((V *)out->m)[2 * v + 1] = L;
    }
}

static void ctc_best(const LfCtcSample *u, int dir, ptrdiff_t b, const CtcState *in, CtcState *out, CtcStored *store, ptrdiff_t limit)
{
    const ptrdiff_t frames = ctc_frames_in(u, b);
    if (frames < F || store)
        ctc_best_block(u, dir, frames, b, in, out, store, limit);
    else if (dir)
        ctc_best_block(u, 1, F, b, in, out, NULL, limit);
    else
        ctc_best_block(u, 0, F, b, in, out, NULL, limit);
}

static void ctc_best_start(CtcState *s)
{
    for (int i = 0; i < 2 * F; i++)
        s->m[i] = i ? -INFINITY : 0;
    s->lo = 0, s->hi = F / LANES;
}

INLINE double ctc_best_in(const CtcState *s, ptrdiff_t v)
{
    double best = -INFINITY;
    for (int l = 0; l < 2 * LANES; l++)
        best = s->m[2 * LANES * v + l] > best ? s->m[2 * LANES * v + l] : best;
    return best;
}

INLINE double ctc_best_of(const CtcState *s, ptrdiff_t i, int label)
{
    const ptrdiff_t v = i / LANES;
    return i < 0 || v < s->lo || v >= s->hi ? -INFINITY : s->m[(2 * v + label) * LANES + i % LANES];
}

/* A score that the best path reaches: that of the best path which stays near the best state of every block. -inf if that leads nowhere. */
static double ctc_best_bound(const LfCtcSample *u, CtcTrace *w)
{
    const ptrdiff_t groups = u->pairs / LANES, reach = CTC_BEAM / 2 / LANES;
    const CtcState *in = &w->again[1];
    ctc_best_start(&w->again[1]);
    for (ptrdiff_t b = 0; b < u->blocks; b++) {
        CtcState *out = &w->again[b & 1];
        ctc_best(u, 0, b, in, out, NULL, groups);
        ptrdiff_t at = out->lo;
        double best = -INFINITY;
        for (ptrdiff_t v = out->lo; v < out->hi; v++)
            if (ctc_best_in(out, v) > best)
                best = ctc_best_in(out, v), at = v;
        out->lo = out->lo < at - reach ? at - reach : out->lo;
        out->hi = out->hi > at + reach + 1 ? at + reach + 1 : out->hi;
        in = out;
    }
    const double blank = ctc_best_of(in, u->S, 0), label = ctc_best_of(in, u->S - 1, 1), best = blank > label ? blank : label;
    return best - 1e-9 * (1 - best); /* sums in another order differ by less */
}

/* The first half of a direction, from the start to where both meet. Emissions are at most 0: a state below the bound is on no best path. */
static void ctc_best_half(const LfCtcSample *u, int dir, int whole, CtcTrace *work)
{
    CtcTrace *w = &work[dir];
    const ptrdiff_t count = ctc_half_blocks(u, dir), groups = u->pairs / LANES;
    const double bound = w->bound = whole && dir ? work[0].bound : u->pairs > 2 * CTC_BEAM ? ctc_best_bound(u, w) : -INFINITY;
    CtcState *in = &w->checkpoint[0];
    ctc_best_start(in);
    for (ptrdiff_t j = 0; j < count; j++) {
        CtcState *out = (j + 1) % CTC_TRACE_GROUP == 0 ? &w->checkpoint[(j + 1) / CTC_TRACE_GROUP] : &w->half[j & 1];
        ctc_best(u, dir, ctc_block(u, dir, j), in, out, NULL, groups);
        while (out->lo < out->hi && ctc_best_in(out, out->lo) < bound)
            out->lo++;
        while (out->lo < out->hi && ctc_best_in(out, out->hi - 1) < bound)
            out->hi--;
        in = out;
    }
    w->end = *in;
}

/* The best score over all states where the directions meet, and for each direction the state it has there: pair and whether a label. */
static double ctc_best_meet(const LfCtcSample *u, const CtcState *a, const CtcState *b, ptrdiff_t pair[2], int label[2])
{
    double best = -INFINITY;
    for (ptrdiff_t i = a->lo * LANES; i <= u->S && i <= a->hi * LANES; i++)
        for (int to = 0; to < 2; to++) {
            const double y = to ? ctc_best_of(b, u->S - 1 - i, 1) : ctc_best_of(b, u->S - i, 0);
            for (int from = 0; from < 3; from++) { /* blank i, label i, label i - 1 */
                if ((to == 0 && from == 1) || (to == 1 && from == 2 && (i >= u->S || !(u->skip[0][i] > 0))))
                    continue;
                const double s = y + (from == 2 ? ctc_best_of(a, i - 1, 1) : ctc_best_of(a, i, from));
                if (!(s > best))
                    continue;
                best = s;
                pair[0] = from == 2 ? i - 1 : i, label[0] = from != 0;
                pair[1] = to ? u->S - 1 - i : u->S - i, label[1] = to;
            }
        }
    return best;
}

INLINE double ctc_kept(const LfCtcSample *u, const CtcStored *s, ptrdiff_t f, ptrdiff_t i, int label)
{
    return i < s->lo || i >= s->hi ? -INFINITY : ctc_row(u, s, (int)f, label, 0)[i];
}

/* The path of direction dir back from state (i, label) at the end of its half, as states 2 i + label of direction 0. */
static void ctc_trace(const LfCtcSample *u, int dir, CtcTrace *w, ptrdiff_t i, int label, int32_t *path)
{
    const ptrdiff_t count = ctc_half_blocks(u, dir);
    for (ptrdiff_t g = (count - 1) / CTC_TRACE_GROUP; count && g >= 0; g--) {
        const ptrdiff_t first = g * CTC_TRACE_GROUP, end = first + CTC_TRACE_GROUP < count ? first + CTC_TRACE_GROUP : count;
        const ptrdiff_t from = i - (end - first) * F - 1;
        CtcState start = w->checkpoint[g];
        const CtcState *in = &start;
        if (start.lo * LANES < from)
            start.lo = from / LANES;
        for (ptrdiff_t j = first; j < end; j++) {
            ctc_best(u, dir, ctc_block(u, dir, j), in, &w->again[j & 1], &w->slot[j - first], i / LANES + 1);
            in = &w->again[j & 1];
        }
        for (ptrdiff_t j = end - 1; j >= first; j--) {
            const ptrdiff_t b = ctc_block(u, dir, j), frames = ctc_frames_in(u, b);
            for (ptrdiff_t k = frames - 1; k >= 0; k--) {
                path[b * F + (dir ? frames - 1 - k : k)] = (int32_t)(dir ? 2 * (u->S - i) - label : 2 * i + label);
                double v[3]; /* before this frame: blank i, label i, label i - 1 */
                if (k == 0 && j == first) {
                    v[0] = ctc_best_of(&start, i, 0), v[1] = ctc_best_of(&start, i, 1), v[2] = ctc_best_of(&start, i - 1, 1);
                } else {
                    const CtcStored *s = &w->slot[k ? j - first : j - 1 - first];
                    const ptrdiff_t before = k ? frames : ctc_frames_in(u, ctc_block(u, dir, j - 1)), kk = k ? k - 1 : before - 1;
                    const ptrdiff_t f = dir ? before - 1 - kk : kk;
                    v[0] = ctc_kept(u, s, f, i, 0), v[1] = ctc_kept(u, s, f, i, 1), v[2] = ctc_kept(u, s, f, i - 1, 1);
                }
                if (!label) {
                    if (v[2] > v[0])
                        i--, label = 1;
                } else {
                    const int skips = u->skip[dir][i] > 0 && v[2] > v[1] && v[2] > v[0];
                    if (skips)
                        i--;
                    else
                        label = v[1] >= v[0];
                }
            }
        }
    }
}

#endif
