/* Elementwise losses: four loops, stamped out for every line of losses.def, and the block functions that feed them.
 *
 * Order: a chunk of LF_CHUNK elements is summed in T_LANES double lanes (32 for float, 16 for double), lane l taking elements l, l + T_LANES, ...; lanes are added
 *   pairwise, chunks and blocks in order. Terms are T, sums are double: for float a mean of 10^8 terms is within 1 ulp of the exact one.
 * Determinism: a chunk's bounds depend on the shape only, and every element goes through the same vector code wherever it lies (a short
 *   last group is padded): the same bits for any thread count and any layout.
 * Memory: contiguous arrays of T are used in place, everything else passes through a chunk on the stack.
 */

typedef NAME(VG) (*NAME(Formula))(T x, T y, T z, const T *p);
typedef void (*NAME(Loop))(const T *x, const T *y, const T *z, const T *p, ptrdiff_t n, T k, T *const *out, double *sum, I *bad);

/* The one loop. `want` is a constant wherever this is inlined, so each loop below holds only what it asks for. */
static inline __attribute__((always_inline)) void NAME(loop)(NAME(Formula) f, int want, const T *x, const T *y, const T *z, const T *param,
                                                             ptrdiff_t n, T k, T *const *out, double *sum, I *bad)
{
    const T p[LF_PARAMS] = {param[0], param[1], param[2], param[3]};
    double acc[T_LANES] = {0};
    I flag[T_LANES] = {0};
    T pad[3][T_LANES], spill[LF_OUTS][T_LANES];
    for (ptrdiff_t i = 0; i < n; i += T_LANES) {
        const I m = (I)(n - i < T_LANES ? n - i : T_LANES);
        const T *a = x + i, *b = y + i, *c = z + i;
        T *o[LF_OUTS];
        for (int q = 0; q < LF_OUTS; q++)
            o[q] = want >> q & 1 ? out[q] + i : NULL;
        if (m < T_LANES) {
            for (I l = 0; l < T_LANES; l++) {
                const I s = l < m ? l : m - 1;
                pad[0][l] = a[s], pad[1][l] = b[s], pad[2][l] = c[s];
            }
            a = pad[0], b = pad[1], c = pad[2];
            for (int q = 0; q < LF_OUTS; q++)
                o[q] = spill[q];
        }
#pragma omp simd
        for (I l = 0; l < T_LANES; l++) {
            const NAME(VG) r = f(a[l], b[l], c[l], p);
            if (want & LF_WANT_SUM)
                acc[l] += l < m ? (double)r.v : 0.0;
            if (want & LF_WANT_V)
                o[0][l] = r.v + r.c; /* c: what rounding dropped, see formulas.h */
            if (want & LF_WANT_GX)
                o[1][l] = k * r.gx;
            if (want & LF_WANT_REST)
                o[2][l] = k * r.gy, o[3][l] = k * r.gz, o[4][l] = k * r.hx;
            flag[l] |= r.bad;
        }
        if (m < T_LANES)
            for (int q = 0; q < LF_OUTS; q++)
                if (want >> q & 1)
                    memcpy(out[q] + i, spill[q], m * sizeof(T));
    }
    I any = 0;
    for (int l = 0; l < T_LANES; l++)
        any |= flag[l];
    *bad |= any;
    if (want & LF_WANT_SUM)
        *sum += T_SUM(acc);
}

#define LF_STAMP(kind, want, name)                                                                                                                   \
    static void NAME(kind##_##name)(const T *x, const T *y, const T *z, const T *p, ptrdiff_t n, T k, T *const *out, double *sum, I *bad)            \
    {                                                                                                                                                \
        NAME(loop)(NAME(lf_loss_##name), want, x, y, z, p, n, k, out, sum, bad);                                                                     \
    }
#define ELEM(name, inputs, params)                                                                                                                   \
    LF_STAMP(sum, LF_WANT_SUM, name)                                                                                                                 \
    LF_STAMP(map, LF_WANT_V, name)                                                                                                                   \
    LF_STAMP(grad, LF_WANT_SUM | LF_WANT_GX, name)                                                                                                   \
    LF_STAMP(full, LF_WANT_V | LF_WANT_GX | LF_WANT_REST, name)
#include "losses.def"
#undef ELEM
#undef LF_STAMP

static const struct {
    NAME(Formula) formula;
    NAME(Loop) sum, map, grad, full;
} NAME(elem)[] = {
#define ELEM(name, inputs, params) {NAME(lf_loss_##name), NAME(sum_##name), NAME(map_##name), NAME(grad_##name), NAME(full_##name)},
#include "losses.def"
#undef ELEM
};

/* An array's elements i .. i + n in the order of the job's shape, from or to `buf`. */
static void NAME(elem_move)(const LfElemJob *j, const LfArray *a, ptrdiff_t i, ptrdiff_t n, T *buf, int put)
{
    ptrdiff_t index[LF_MAXDIM];
    const int last = j->ndim - 1;
    char *p = a->data;
    for (int d = last; d >= 0; d--) {
        index[d] = d ? i % j->shape[d] : i;
        i /= j->shape[d];
        p += index[d] * a->stride[d];
    }
    for (;;) {
        const ptrdiff_t room = j->shape[last] - index[last], run = n < room ? n : room;
        if (put)
            NAME(lf_store)(p, a->dtype, a->stride[last], buf, run, j->stream);
        else
            NAME(lf_load)(buf, p, a->dtype, a->stride[last], run);
        if (!(n -= run))
            return;
        buf += run;
        p += run * a->stride[last];
        index[last] += run;
        for (int d = last; d > 0 && index[d] == j->shape[d]; d--) {
            p += a->stride[d - 1] - index[d] * a->stride[d];
            index[d] = 0;
            index[d - 1]++;
        }
    }
}

/* Where elements i .. i + n can be used in place, their address; else NULL. */
static T *NAME(elem_direct)(const LfElemJob *j, const LfArray *a, ptrdiff_t i)
{
    char *p = a->data + i * (ptrdiff_t)sizeof(T);
    return j->ndim == 1 && a->dtype == T_CODE && a->stride[0] == sizeof(T) && (uintptr_t)p % sizeof(T) == 0 ? (T *)p : NULL;
}

static const T *NAME(elem_in)(const LfElemJob *j, const LfArray *a, ptrdiff_t i, ptrdiff_t n, T *buf)
{
    const T *p = NAME(elem_direct)(j, a, i);
    if (!p)
        NAME(elem_move)(j, a, i, n, buf, 0), p = buf;
    return p;
}

/* The inputs' elements i .. i + n; in place of one that the formula does not have, and so ignores, the first. */
static void NAME(elem_inputs)(const LfElemJob *j, ptrdiff_t i, ptrdiff_t n, T (*buf)[LF_CHUNK], const T **a)
{
    for (int q = 0; q < LF_INPUTS; q++)
        a[q] = j->in[q].data ? NAME(elem_in)(j, &j->in[q], i, n, buf[q]) : a[0];
}

/* First element of a chunk outside a formula's domain, masked ones aside: 4 * index + argument, or -1. */
static ptrdiff_t NAME(elem_find_bad)(const LfElemJob *j, const T *const *in, const T *p, const T *where, ptrdiff_t i, ptrdiff_t n)
{
    for (ptrdiff_t l = 0; l < n; l++) {
        const I bad = NAME(elem)[j->loss].formula(in[0][l], in[1][l], in[2][l], p).bad;
        if (bad && !(where && where[l] == 0))
            return 4 * (i + l) + (bad - 1);
    }
    return -1;
}

/* What a chunk's values and gradients are multiplied by: weight, mask and upstream gradient, or NULL for all ones. */
typedef struct {
    T weight[LF_CHUNK], where[LF_CHUNK], upstream[LF_CHUNK];
    const T *w, *m, *u;
} NAME(Factors);

static void NAME(elem_factors)(const LfElemJob *j, ptrdiff_t i, ptrdiff_t n, NAME(Factors) * f)
{
    f->w = j->weight.data ? NAME(elem_in)(j, &j->weight, i, n, f->weight) : NULL;
    f->m = j->where.data ? NAME(elem_in)(j, &j->where, i, n, f->where) : NULL;
    f->u = j->upstream.data ? NAME(elem_in)(j, &j->upstream, i, n, f->upstream) : NULL;
}

/* a *= the factors named; masked elements become 0 whatever they hold. */
static void NAME(elem_scale)(T *a, ptrdiff_t n, const T *w, const T *m, const T *u)
{
    if (w)
#pragma omp simd
        for (ptrdiff_t l = 0; l < n; l++)
            a[l] *= w[l];
    if (u)
#pragma omp simd
        for (ptrdiff_t l = 0; l < n; l++)
            a[l] *= u[l];
    if (m)
#pragma omp simd
        for (ptrdiff_t l = 0; l < n; l++)
            a[l] = m[l] != 0 ? a[l] : 0;
}

static double NAME(elem_sum)(const T *a, ptrdiff_t n)
{
    double acc[T_LANES] = {0};
    ptrdiff_t i = 0;
    for (; i + T_LANES <= n; i += T_LANES)
#pragma omp simd
        for (int l = 0; l < T_LANES; l++)
            acc[l] += a[i + l];
    for (int l = 0; i < n; i++, l++)
        acc[l] += a[i];
    return T_SUM(acc);
}

/* Sum of the weights that count, or how many elements do. */
static double NAME(elem_mass)(const LfElemJob *j, const NAME(Factors) * f, ptrdiff_t n)
{
    T a[LF_CHUNK];
    for (ptrdiff_t l = 0; l < n; l++)
        a[l] = (f->m && f->m[l] == 0) ? 0 : f->w && !j->count_mass ? f->w[l] : 1;
    return NAME(elem_sum)(a, n);
}

static void NAME(elem_block)(const LfElemJob *j, ptrdiff_t b)
{
    const ptrdiff_t start = b * LF_ELEM_BLOCK, end = j->size - start < LF_ELEM_BLOCK ? j->size : start + LF_ELEM_BLOCK;
    const int factors = j->weight.data || j->where.data || j->upstream.data;
    const int rest = j->grad[1].data || j->grad[2].data || j->grad[3].data || j->hess.data;
    const int full = rest || (j->grad[0].data && (factors || j->out.data));
    const int map = !full && (j->out.data || (factors && j->sum));
    const T p[LF_PARAMS] = {(T)j->param[0], (T)j->param[1], (T)j->param[2], (T)j->param[3]};
    const T k = (T)j->scale;
    T in[LF_INPUTS][LF_CHUNK], o[LF_OUTS][LF_CHUNK];
    NAME(Factors) f;
    double sum = 0, mass = 0;
    ptrdiff_t first_bad = -1;
    for (ptrdiff_t i = start; i < end; i += LF_CHUNK) {
        const ptrdiff_t n = end - i < LF_CHUNK ? end - i : LF_CHUNK;
        const T *a[LF_INPUTS];
        NAME(elem_inputs)(j, i, n, in, a);
        const LfArray *const dst[LF_OUTS] = {&j->out, &j->grad[0], &j->grad[1], &j->grad[2], &j->hess};
        T *out[LF_OUTS];
        for (int q = 0; q < LF_OUTS; q++) {
            T *direct = dst[q]->data && !j->stream ? NAME(elem_direct)(j, dst[q], i) : NULL;
            out[q] = direct ? direct : o[q];
        }
        if (factors)
            NAME(elem_factors)(j, i, n, &f);
        const NAME(Loop) loop = full              ? NAME(elem)[j->loss].full
                                : map             ? NAME(elem)[j->loss].map
                                : j->grad[0].data ? NAME(elem)[j->loss].grad
                                                  : NAME(elem)[j->loss].sum;
        I bad = 0;
        loop(a[0], a[1], a[2], p, n, k, out, &sum, &bad);
        if (full && j->sum && !factors) /* beside all else v and gx may be contracted otherwise: they are those of the calls that ask for less */
            (j->grad[0].data ? NAME(elem)[j->loss].grad : NAME(elem)[j->loss].sum)(a[0], a[1], a[2], p, n, k, out, &sum, &bad);
        if (bad && first_bad < 0)
            first_bad = NAME(elem_find_bad)(j, a, p, j->where.data ? f.m : NULL, i, n);
        if (full || map) {
            if (j->grad[3].data) { /* by weight: the unweighted value */
                T gw[LF_CHUNK];
                for (ptrdiff_t l = 0; l < n; l++)
                    gw[l] = k * out[0][l] + (T)j->weight_offset;
                NAME(elem_scale)(gw, n, NULL, f.m, f.u);
                NAME(elem_move)(j, &j->grad[3], i, n, gw, 1);
            }
            if (factors) {
                NAME(elem_scale)(out[0], n, f.w, f.m, NULL);
                for (int q = 1; full && q < LF_OUTS; q++)
                    if (dst[q]->data)
                        NAME(elem_scale)(out[q], n, f.w, f.m, f.u);
            }
            if (j->sum && factors)
                sum += NAME(elem_sum)(out[0], n);
        }
        if (j->mass)
            mass += NAME(elem_mass)(j, &f, n);
        for (int q = 0; q < LF_OUTS; q++)
            if (dst[q]->data && out[q] == o[q])
                NAME(elem_move)(j, dst[q], i, n, o[q], 1);
    }
    if (j->stream)
        lf_store_fence();
    if (j->sum)
        j->sum[b] = sum;
    if (j->mass)
        j->mass[b] = mass;
    j->bad[b] = first_bad;
}

/* Gradient by a broadcast argument: the job's dimensions are ordered so that each run of `fold` elements shares one element of it. Runs
 * no longer than a block are whole in one block; longer ones are cut into pieces of a block, added by the caller in order. */
static void NAME(elem_fold)(const LfElemJob *j, int arg, ptrdiff_t b)
{
    ptrdiff_t start, end;
    if (j->fold <= LF_ELEM_BLOCK) {
        const ptrdiff_t step = LF_ELEM_BLOCK / j->fold * j->fold;
        start = b * step, end = j->size - start < step ? j->size : start + step;
    } else {
        const ptrdiff_t pieces = (j->fold + LF_ELEM_BLOCK - 1) / LF_ELEM_BLOCK, run = b / pieces, piece = b % pieces;
        start = run * j->fold + piece * LF_ELEM_BLOCK;
        end = (run + 1) * j->fold - start < LF_ELEM_BLOCK ? (run + 1) * j->fold : start + LF_ELEM_BLOCK;
    }
    double *folded = j->folded + (j->fold <= LF_ELEM_BLOCK ? start / j->fold : b), sum = 0;
    ptrdiff_t left = j->fold <= LF_ELEM_BLOCK ? j->fold : end - start;
    const T p[LF_PARAMS] = {(T)j->param[0], (T)j->param[1], (T)j->param[2], (T)j->param[3]};
    T in[LF_INPUTS][LF_CHUNK], o[LF_OUTS][LF_CHUNK], *const out[LF_OUTS] = {o[0], o[1], o[2], o[3], o[4]};
    NAME(Factors) f;
    I bad = 0;
    for (ptrdiff_t i = start; i < end; i += LF_CHUNK) {
        const ptrdiff_t n = end - i < LF_CHUNK ? end - i : LF_CHUNK;
        const T *a[LF_INPUTS];
        NAME(elem_inputs)(j, i, n, in, a);
        NAME(elem_factors)(j, i, n, &f);
        NAME(elem)[j->loss].full(a[0], a[1], a[2], p, n, (T)j->scale, out, &sum, &bad);
        T *g = o[arg + 1];
        if (arg == 3) {
            for (ptrdiff_t l = 0; l < n; l++)
                o[0][l] = (T)j->scale * o[0][l] + (T)j->weight_offset;
            g = o[0];
        }
        NAME(elem_scale)(g, n, arg == 3 ? NULL : f.w, f.m, f.u);
        for (ptrdiff_t l = 0; l < n;) {
            const ptrdiff_t run = n - l < left ? n - l : left;
            sum += NAME(elem_sum)(g + l, run);
            l += run;
            if (!(left -= run)) {
                *folded++ = sum;
                sum = 0, left = j->fold;
            }
        }
    }
}
