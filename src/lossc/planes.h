/* Rows of more than LF_SMALL_C classes whose positions lie nearer to one another than their classes, worked on side by side with the bits of rows that
 * do not: a run of classes at a time, of which x, the exponentials and the masses or upstream gradient lie in tiles. As many positions are taken as
 * fill two lines of a cache (span_of in rows.pxi), and each class is fetched shortly before it is moved (packing.h): with one line for each of 1000
 * classes, or all of them fetched at once, softmax of halves takes 1.5 times as long. Part of rows.h. */

typedef struct {
    T *x, *e, *u; /* e, u or NULL; e is x where nothing needs the logits once it is known */
    ptrdiff_t ld, run, width;
} NAME(Planes);

static NAME(Planes) NAME(planes_of)(const LfRowJob *j, T *room)
{
    const int soft = j->op == LF_SOFTMAX, u = lf_spreads(j) || (soft && j->gx.data);
    const int e = soft || j->gx.data, apart = u && e && !soft, other = j->gw || j->gt.data || j->op == LF_NLL; /* what planes_work does not do */
    const ptrdiff_t run = j->c < LF_RUN ? j->c : LF_RUN, most = T_ROOM / (1 + apart + u) / (run ? run : 1);
    const ptrdiff_t rows = j->rows * j->span;
    ptrdiff_t fit = LF_W;
    if (most < LF_W + LF_GROUP || rows <= 2 * LF_GROUP)
        fit = 2 * LF_GROUP;
    if (most < 2 * LF_GROUP || rows <= LF_GROUP)
        fit = LF_GROUP;
    const ptrdiff_t ld = fit < LF_W ? fit : fit + LF_GROUP; /* rows of a wide tile are not a power of two apart: those meet in one set of the cache */
    const int fits = !other && j->c > LF_SMALL_C && j->c <= LF_PIECE && most >= LF_GROUP && j->n >= LF_GROUP && rows >= LF_GROUP &&
                     lf_lies_across(j, &j->x, j->xc);
    T *last = apart ? room + run * ld : room;
    return (NAME(Planes)){room, e ? last : NULL, u ? last + run * ld : NULL, ld, run, fits ? fit : 0};
}

/* Tiles of the classes from c on, for the first pass, or again for the second. */
LF_CALLED NAME(planes_in)(const LfRowJob *j, const NAME(Rows) * r, NAME(Planes) p, ptrdiff_t c, ptrdiff_t n, int again)
{
    NAME(tile_in)(j, &j->x, j->xc, r->first, r->n, c, c + n, p.x, p.ld);
    for (ptrdiff_t at = 0; again && at < r->n; at += LF_GROUP) {
        NAME(tile_shift)(p.x + at, p.ld, n, r->m + at);
        for (ptrdiff_t k = 0; p.e && k < n; k++)
            NAME(group_exp)(p.e + k * p.ld + at, p.x + k * p.ld + at, r->magic + at, r->floor + at);
    }
    if (p.u && lf_spreads(j))
        NAME(tile_masses)(j, r, c, c + n, p.u, p.ld);
    else if (p.u && (again || j->c <= LF_RUN))
        NAME(tile_in)(j, &j->t, j->tc, r->first, r->n, c, c + n, p.u, p.ld);
}

/* A row's maximum rises, or, of none yet, begins. */
LF_CALLED NAME(planes_raise)(NAME(Rows) * r, ptrdiff_t l, T m, double count, int some)
{
    const double before = r->m[l], here = m;
    r->s[l] = some ? (r->s[l] + count) * lf_exp_f64(before - here) : 0;
    r->dot[l] += some && r->mass[l] != 0 ? r->mass[l] * (here - before) : 0;
    r->m[l] = m;
}

/* Adds row_stats of a group's rows, or group_rows: a run of them, from class c on. */
static void NAME(planes_group)(const LfRowJob *j, NAME(Rows) * r, ptrdiff_t at, NAME(Planes) p, ptrdiff_t c, ptrdiff_t n, double *count)
{
    double sum[LF_GROUP], ties[LF_GROUP];
    T m[LF_GROUP], term[LF_RUN * LF_GROUP], *x = p.x + at;
    const T *u = p.u ? p.u + at : NULL;
    NAME(tile_top)(x, p.ld, n, m);
    for (ptrdiff_t l = at; l < at + LF_GROUP; l++)
        if (!c || m[l - at] > r->m[l])
            NAME(planes_raise)(r, l, m[l - at], c ? count[l] : 0, c), count[l] = 0;
    NAME(group_ref)(r, at);
    NAME(tile_shift)(x, p.ld, n, r->m + at);
    for (ptrdiff_t l = at; j->op == LF_CE_INDEX && j->c <= LF_RUN && l < at + LF_GROUP; l++)
        r->xt[l] = r->label[l] < 0 ? 0 : p.x[r->label[l] * p.ld + l];
    NAME(group_sums)(x, p.ld, n, NAME(group_refs)(r, at), p.e && j->c <= LF_RUN ? p.e + at : NULL, LF_RAW(j->x.dtype), j->c > LF_RUN,
                     NAME(rows_fine)(j), sum, ties);
    if (j->c > LF_RUN)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            r->s[at + l] += r->f[at + l] * sum[l], count[at + l] += ties[l];
    else
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++)
            r->s[at + l] = r->f[at + l] * sum[l] + (ties[l] - 1);
    if (!lf_spreads(j))
        return;
    NAME(group_total)(u, p.ld, n, sum);
    for (int l = 0; l < LF_GROUP; l++)
        r->mass[at + l] += sum[l];
    if (j->op == LF_LOG_SOFTMAX)
        return;
    for (ptrdiff_t k = 0; k < n; k++)
#pragma omp simd
        for (int l = 0; l < LF_GROUP; l++) {
            const T v = x[k * p.ld + l], w = u[k * p.ld + l], d = v == -INFINITY ? INFINITY : r->top[at + l] - v;
            term[k * LF_GROUP + l] = w == 0 ? 0 : w * d;
        }
    NAME(group_total)(term, LF_GROUP, n, sum);
    for (int l = 0; l < LF_GROUP; l++)
        r->dot[at + l] += sum[l];
}

static void NAME(planes_stats)(const LfRowJob *j, NAME(Rows) * r, NAME(Planes) p)
{
    double count[LF_W];
    memset(r->mass, 0, sizeof r->mass), memset(r->dot, 0, sizeof r->dot);
    for (ptrdiff_t c = 0; c < j->c; c += p.run) {
        const ptrdiff_t n = j->c - c < p.run ? j->c - c : p.run;
        NAME(planes_in)(j, r, p, c, n, 0);
        for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
            NAME(planes_group)(j, r, at, p, c, n, count);
    }
    for (ptrdiff_t l = 0; j->c > LF_RUN && l < r->n; l++)
        r->s[l] += count[l] - 1;
    if (j->op != LF_CE_INDEX)
        return;
    for (ptrdiff_t l = 0; j->c > LF_RUN && l < LF_W; l++) {
        T buf[1];
        r->xt[l] = r->label[l] < 0 ? 0 : *NAME(row_logits)(j, r, l, r->label[l], 1, r->m[l], buf);
    }
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        NAME(group_exp)(r->et + at, r->xt + at, r->magic + at, r->floor + at);
}

/* Adds sum g p of a run. */
static void NAME(planes_dot)(const NAME(Rows) * r, NAME(Planes) p, ptrdiff_t n, double *dot)
{
    T term[LF_RUN * LF_GROUP];
    double sum[LF_GROUP];
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP) {
        for (ptrdiff_t k = 0; k < n; k++)
#pragma omp simd
            for (int l = 0; l < LF_GROUP; l++)
                term[k * LF_GROUP + l] = p.e[k * p.ld + at + l] * r->pf[at + l] * p.u[k * p.ld + at + l];
        NAME(group_total)(term, LF_GROUP, n, sum);
        for (int l = 0; l < LF_GROUP; l++)
            dot[at + l] += sum[l];
    }
}

/* Of a run from class c on, softmax in place of e, log_softmax of x, and the gradient of u, or of e if there is no u. */
static void NAME(planes_emit)(const LfRowJob *j, const NAME(Rows) * r, NAME(Planes) p, ptrdiff_t c, ptrdiff_t n, const T *dot)
{
    const int log = j->op == LF_LOG_SOFTMAX, soft = j->op == LF_SOFTMAX;
    T factor[LF_W], sure[LF_W], *g = p.u ? p.u : p.e;
    for (ptrdiff_t l = 0; l < LF_W; l++)
        factor[l] = soft ? 1 : r->kmass[l], sure[l] = soft && r->q[l] < T_EPS / 4 ? (T)0.5 : 2; /* what is 1 but for rounding */
    for (ptrdiff_t at = 0; at < r->n; at += LF_GROUP)
        for (ptrdiff_t k = 0; k < n; k++) {
            T *x = p.x + k * p.ld + at, *e = p.e ? p.e + k * p.ld + at : NULL, *u = p.u ? p.u + k * p.ld + at : NULL;
            if (u && soft)
                NAME(emit_softmax_grad)(u, e, u, LF_GROUP, r->pf + at, dot + at, 1);
            else if (u && e)
                NAME(emit_grad_spread)(u, x, e, u, LF_GROUP, r, at, r->pf + at, 1);
            if (log)
                NAME(emit_log_softmax)(x, x, LF_GROUP, r->top + at, r->tdelta + at, 1);
            else if (soft || !u)
#pragma omp simd
                for (int l = 0; l < LF_GROUP; l++) {
                    const T v = e[l] * r->pf[at + l] * factor[at + l];
                    e[l] = soft & (v > sure[at + l]) ? 1 : v;
                }
        }
    for (ptrdiff_t l = 0; !soft && !log && l < r->n; l++)
        if (r->label[l] < 0)
            for (ptrdiff_t k = 0; k < n; k++)
                g[k * p.ld + l] = 0;
        else if (j->op == LF_CE_INDEX && r->label[l] >= c && r->label[l] < c + n)
            g[(r->label[l] - c) * p.ld + l] = r->patch[l];
    if (soft || log)
        NAME(tile_out)(j, &j->out, j->oc, r->first, r->n, c, c + n, log ? p.x : p.e, p.ld);
    if (j->gx.data)
        NAME(tile_out)(j, &j->gx, j->gxc, r->first, r->n, c, c + n, g, p.ld);
}

LF_CALLED NAME(planes_work)(const LfRowJob *j, NAME(Rows) * r, T *room)
{
    const int second = lf_second(j), again = j->c > LF_RUN;
    const NAME(Planes) p = NAME(planes_of)(j, room);
    double sum[LF_W] = {0};
    T dot[LF_W];
    NAME(planes_stats)(j, r, p);
    NAME(rows_finish)(j, r);
    NAME(rows_near)(j, r);
    if (second)
        NAME(rows_coefficients)(j, r);
    for (int pass = j->op == LF_SOFTMAX && p.u ? 0 : 1; pass < 2 && second; pass++) {
        for (ptrdiff_t l = 0; l < LF_W; l++)
            dot[l] = (T)sum[l];
        for (ptrdiff_t c = 0; c < j->c; c += p.run) {
            const ptrdiff_t n = j->c - c < p.run ? j->c - c : p.run;
            if (again)
                NAME(planes_in)(j, r, p, c, n, 1);
            if (pass == 0)
                NAME(planes_dot)(r, p, n, sum);
            else
                NAME(planes_emit)(j, r, p, c, n, dot);
        }
    }
    NAME(rows_out)(j, r);
}
