/* CTC decoding: the best class of every frame, and prefix beam search. Scores are log-probabilities in double.
 *
 * Prefix beam search. A prefix's mass is split by whether its last frame was a blank; a frame adds to prefixes in the beam by staying, and by
 * their parents' mass if those are in the beam too, and makes new ones. Prefixes are nodes of a trie, found by a hash of (parent, class), so that
 * a prefix that fell out of the beam and comes back is the same node and meets its children there.
 * Which new prefixes to look at: beam entries i and classes r are both in descending order, and (i, r) has less mass than every (i', r') with
 * i' <= i, r' <= r, save where r' repeats the last class of i', which happens once for each i'. So at least (i + 1) r - 1 others come before it,
 * and unless (i + 1) r <= W it cannot be among the W that stay: about W log W candidates give the result of looking at all.
 */
#ifdef LF_T_DOUBLE

#include "ctc_plan.h"

/* Row t of sample n as doubles; returns its maximum, and in *lse what to subtract from its entries: NaN if one of them is. */
static double decode_row(const LfCtcDecode *j, ptrdiff_t n, ptrdiff_t t, double *row, double *lse)
{
    double top = -INFINITY, sum = 0;
    int nan = 0;
    lf_load_f64(row, j->x + n * j->x_n + t * j->x_t, j->x_dtype, j->x_c, j->C);
#pragma omp simd reduction(max : top) reduction(| : nan)
    for (ptrdiff_t c = 0; c < j->C; c++) {
        top = row[c] > top ? row[c] : top;
        nan |= row[c] != row[c];
    }
    if (j->from_logits) {
#pragma omp simd reduction(+ : sum)
        for (ptrdiff_t c = 0; c < j->C; c++)
            sum += lf_exp_neg_f64(row[c] - top);
        *lse = nan ? NAN : top + lf_log_f64(sum);
    } else {
        *lse = nan ? NAN : 0;
    }
    return top;
}

/* The first class whose entry is `top`; C if there is none. */
static ptrdiff_t decode_find(const double *row, ptrdiff_t C, double top)
{
    ptrdiff_t c = 0;
    for (; c + 2 * LF_LANES <= C; c += LF_LANES) { /* in short rows it does not pay */
        int any = 0;
#pragma omp simd reduction(| : any)
        for (int l = 0; l < LF_LANES; l++)
            any |= row[c + l] == top;
        if (any)
            break;
    }
    while (c < C && row[c] != top)
        c++;
    return c;
}

static void ctc_greedy(const LfCtcDecode *j, ptrdiff_t n, char *memory)
{
    double *row = (double *)memory, score = 0, lse;
    int32_t *out = j->labels + n * j->steps;
    ptrdiff_t last = j->blank, length = 0;
    for (ptrdiff_t t = 0; t < j->frames[n]; t++) {
        const double top = decode_row(j, n, t, row, &lse);
        ptrdiff_t c = decode_find(row, j->C, top);
        if (c == j->C)
            c = j->blank; /* a row of NaN */
        if (c != j->blank && c != last)
            out[length++] = (int32_t)c;
        last = c, score += top - lse;
    }
    j->lengths[n] = length, j->score[n] = score;
    for (ptrdiff_t t = length; t < j->steps; t++)
        out[t] = -1;
}

/* ---- the K largest of a sequence, in order: a heap whose root is the least --------------------------------------------------------- */

static inline int ranked_after(CtcRanked a, CtcRanked b) { return a.score < b.score || (a.score == b.score && a.id > b.id); }

static void ranked_sink(CtcRanked *heap, ptrdiff_t n, ptrdiff_t i)
{
    const CtcRanked v = heap[i];
    for (ptrdiff_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && ranked_after(heap[child + 1], heap[child]))
            child++;
        if (!ranked_after(heap[child], v))
            break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

static ptrdiff_t ranked_offer(CtcRanked *heap, ptrdiff_t n, ptrdiff_t most, CtcRanked v)
{
    if (n == most) {
        if (ranked_after(heap[0], v))
            heap[0] = v, ranked_sink(heap, n, 0);
        return n;
    }
    ptrdiff_t i = n;
    for (; i > 0 && ranked_after(v, heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = v;
    return n + 1;
}

static void ranked_sort(CtcRanked *heap, ptrdiff_t n)
{
    while (--n > 0) {
        const CtcRanked least = heap[0];
        heap[0] = heap[n], heap[n] = least;
        ranked_sink(heap, n, 0);
    }
}

/* ---- prefixes ---------------------------------------------------------------------------------------------------------------------- */

static inline size_t trie_start(const CtcBeam *b, int32_t node, int32_t label)
{
    return (size_t)(((uint64_t)(uint32_t)node << 32 | (uint32_t)label) * 0x9e3779b97f4a7c15u >> b->shift);
}

/* The child of a node, or -1; *at is its place in the table, or where it would go. */
static int32_t trie_find(const CtcBeam *b, int32_t node, int32_t label, size_t *at)
{
    size_t i = trie_start(b, node, label);
    for (; b->table[i] >= 0; i = (i + 1) & b->mask) {
        const int32_t child = b->table[i];
        if (b->parent[child] == node && b->label[child] == label)
            return *at = i, child;
    }
    return *at = i, -1;
}

static double log_add(double a, double b)
{
    const double high = a > b ? a : b, low = a > b ? b : a;
    return low == -INFINITY ? high : high + lf_log1p_f64(lf_exp_neg_f64(low - high));
}

/* What the prefixes in the beam have after a frame: by a blank, by their last class again, and by their parents. */
static void beam_stay(const LfCtcDecode *j, const CtcBeam *b, const double *row, double lse)
{
    for (ptrdiff_t k = 0; k < b->n; k++) {
        CtcPrefix *p = &b->prefix[k];
        const int32_t parent = b->parent[p->node], label = b->label[p->node], up = parent >= 0 ? b->slot[parent] : -1;
        p->next_blank = p->total + (row[j->blank] - lse);
        p->next_label = parent >= 0 ? p->by_label + (row[label] - lse) : -INFINITY;
        if (up >= 0) {
            const CtcPrefix *q = &b->prefix[up];
            p->next_label = log_add(p->next_label, (b->label[parent] == label ? q->by_blank : q->total) + (row[label] - lse));
        }
    }
}

/* Candidates: prefixes in the beam, then new ones as (entry, class); the best b->width of them, in order, to b->best. */
static ptrdiff_t beam_candidates(const LfCtcDecode *j, CtcBeam *b, const double *row, double lse)
{
    ptrdiff_t classes = 0, count = 0, kept = 0;
    size_t at;
    for (ptrdiff_t c = 0; c < j->C; c++)
        if (c != j->blank && row[c] > -INFINITY)
            classes = ranked_offer(b->rank, classes, b->width + 1, (CtcRanked){row[c], (int32_t)c});
    ranked_sort(b->rank, classes);
    for (ptrdiff_t k = 0; k < b->n; k++) {
        const double total = log_add(b->prefix[k].next_blank, b->prefix[k].next_label);
        b->entry[count] = (int32_t)k, b->extend[count] = -1;
        if (total > -INFINITY)
            kept = ranked_offer(b->best, kept, b->width, (CtcRanked){total, (int32_t)count});
        count++;
    }
    for (ptrdiff_t k = 0; k < b->n; k++)
        for (ptrdiff_t r = 0; r < classes && (k + 1) * r <= b->width; r++) {
            const CtcPrefix *p = &b->prefix[k];
            const int32_t c = b->rank[r].id, child = trie_find(b, p->node, c, &at);
            if (child >= 0 && b->slot[child] >= 0)
                continue;
            const double total = (p->node && b->label[p->node] == c ? p->by_blank : p->total) + (row[c] - lse);
            b->entry[count] = (int32_t)k, b->extend[count] = c;
            if (total > -INFINITY)
                kept = ranked_offer(b->best, kept, b->width, (CtcRanked){total, (int32_t)count});
            count++;
        }
    ranked_sort(b->best, kept);
    return kept;
}

static void beam_frame(const LfCtcDecode *j, CtcBeam *b, const double *row, double lse)
{
    beam_stay(j, b, row, lse);
    const ptrdiff_t kept = beam_candidates(j, b, row, lse);
    for (ptrdiff_t k = 0; k < b->n; k++)
        b->slot[b->prefix[k].node] = -1;
    for (ptrdiff_t k = 0; k < kept; k++) {
        const int32_t i = b->best[k].id, c = b->extend[i];
        const CtcPrefix *p = &b->prefix[b->entry[i]];
        CtcPrefix *q = &b->next[k];
        *q = (CtcPrefix){.node = p->node, .by_blank = p->next_blank, .by_label = p->next_label, .total = b->best[k].score};
        if (c >= 0) {
            size_t at;
            q->node = trie_find(b, p->node, c, &at), q->by_blank = -INFINITY, q->by_label = q->total;
            if (q->node < 0) {
                q->node = b->nodes++, b->table[at] = q->node;
                b->parent[q->node] = p->node, b->label[q->node] = c;
            }
        }
        b->slot[q->node] = (int32_t)k;
    }
    CtcPrefix *const last = b->prefix;
    b->prefix = b->next, b->next = last, b->n = kept;
}

static void ctc_beam(const LfCtcDecode *j, ptrdiff_t n, char *memory)
{
    CtcRegion region = {memory, 0};
    CtcBeam b;
    double lse, *row;
    int known = 1;
    ctc_beam_layout(&region, j, &b, &row);
    memset(b.table, 0xff, (b.mask + 1) * sizeof *b.table);
    b.parent[0] = b.label[0] = -1, b.slot[0] = 0, b.nodes = 1, b.n = 1;
    b.prefix[0] = (CtcPrefix){.by_label = -INFINITY};
    for (ptrdiff_t t = 0; t < j->frames[n] && known; t++) {
        decode_row(j, n, t, row, &lse);
        known = lse == lse;
        if (known)
            beam_frame(j, &b, row, lse);
    }
    for (ptrdiff_t k = 0; k < j->top; k++) {
        int32_t *out = j->labels + (n * j->top + k) * j->steps;
        ptrdiff_t length = 0, i;
        for (int32_t node = k < b.n ? b.prefix[k].node : 0; node; node = b.parent[node])
            length++;
        i = length;
        for (int32_t node = k < b.n ? b.prefix[k].node : 0; node; node = b.parent[node])
            out[--i] = b.label[node];
        for (i = length; i < j->steps; i++)
            out[i] = -1;
        j->lengths[n * j->top + k] = length, j->score[n * j->top + k] = !known ? NAN : k < b.n ? b.prefix[k].total : -INFINITY;
    }
}

#endif
