/* rows_work on packed copies of the arrays whose classes do not follow one another. Read as they lie, each line of the cache would be fetched for each
 * of the rows that share it, and for each pass: 8 times as slow over three planes of 10000 classes, 3 times for the softmax of 512 rows of 400 into a
 * transposed array, 1.3 times for every second half. What planes.h takes is not packed. Part of rows.h. */

/* Those of x, t, out, gx and gt that are packed, by bits, and how many elements each has room for beside exponentials that are kept. */
typedef struct {
    int arrays;
    ptrdiff_t part;
} NAME(Apart);

static NAME(Apart) NAME(rows_apart)(const LfRowJob *j)
{
    const int whole = lf_gives_rows(j), spread = whole || j->op == LF_CE_PROB;
    const LfArray *const array[] = {&j->x, &j->t, &j->out, &j->gx, &j->gt};
    const ptrdiff_t *const stride[] = {j->xc, j->tc, j->oc, j->gxc, j->gtc};
    const int rows[] = {1, spread, whole, 1, 1};
    int apart = 0;
    for (int k = 0; k < 5; k++)
        if (rows[k] && array[k]->data && (j->cdim > 1 || stride[k][0] != lf_itemsize(array[k]->dtype)))
            apart |= 1 << k;
    const ptrdiff_t share = (T_ROOM - LF_W * LF_LANES) / ((j->c <= LF_RUN) + __builtin_popcount(apart) + !apart);
    const ptrdiff_t part = share < LF_GROUP_ELEMENTS ? share : LF_GROUP_ELEMENTS;
    const int worth = apart != 1 << 1 && j->c <= part; /* labels' probabilities alone are not */
    return (NAME(Apart)){worth ? apart : 0, part};
}

/* Rows in hand, from where they lie to packed ones of a dtype, or back. */
LF_CALLED NAME(rows_pack)(const LfRowJob *j, const NAME(Rows) * r, const LfArray *a, const ptrdiff_t *stride, char *packed, int dtype, int back)
{
    LfRuns w;
    const ptrdiff_t item = lf_itemsize(dtype), length = j->c * item, step = a->stride[j->ndim - 1];
    T part[LF_SMALL_C * LF_W];
    for (lf_runs(j, a, r->first, r->n, &w); w.n; lf_next_run(j, a, &w)) {
        const int tiles = w.n >= 4 && lf_lies_across(j, a, stride);
        const ptrdiff_t rows = tiles ? w.n : 1, width = tiles ? LF_SMALL_C : LF_SMALL_C * LF_W;
        for (ptrdiff_t l = 0; l < w.n; l += rows)
            for (ptrdiff_t c = 0; c < j->c; c += width) {
                const ptrdiff_t n = j->c - c < width ? j->c - c : width, off = w.off + l * step;
                char *p = packed + (w.at + l) * length + c * item, *q = a->data + off + c * stride[0];
                if (tiles && back) {
                    NAME(lf_load_tile)(part, LF_W, p, dtype, length, item, rows, n);
                    NAME(lf_store_tile)(q, a->dtype, step, stride[0], part, LF_W, rows, n, j->stream);
                } else if (tiles) {
                    NAME(lf_load_tile)(part, LF_W, q, a->dtype, step, stride[0], rows, n);
                    NAME(lf_store_tile)(p, dtype, length, item, part, LF_W, rows, n, 0);
                } else if (back) {
                    NAME(lf_load)(part, p, dtype, item, n);
                    NAME(row_move)(j, a, stride, off, c, n, part, 1);
                } else {
                    NAME(row_move)(j, a, stride, off, c, n, part, 0);
                    NAME(lf_store)(p, dtype, item, part, n, 0);
                }
            }
    }
}

LF_CALLED NAME(rows_work_apart)(const LfRowJob *j, NAME(Rows) * r, NAME(Apart) apart, T *room, LfRowBlock *b)
{
    LfRowJob near = *j;
    const LfArray *from[] = {&j->x, &j->t, &j->out, &j->gx, &j->gt};
    LfArray *to[] = {&near.x, &near.t, &near.out, &near.gx, &near.gt};
    const ptrdiff_t *stride[] = {j->xc, j->tc, j->oc, j->gxc, j->gtc};
    ptrdiff_t *step[] = {near.xc, near.tc, near.oc, near.gxc, near.gtc};
    ptrdiff_t *off[] = {r->off_x, r->off_t, r->off_out, r->off_gx, r->off_gt};
    T *packed = room + T_ROOM;
    near.cdim = 1, near.cshape[0] = j->c, near.stream = 0;
    for (int k = 0; k < 5; k++) {
        if (!(apart.arrays >> k & 1))
            continue;
        packed -= apart.part;
        to[k]->data = (char *)packed, to[k]->dtype = from[k]->dtype <= T_CODE ? from[k]->dtype : T_CODE; /* of at most a T's size */
        step[k][0] = lf_itemsize(to[k]->dtype);
        to[k]->stride[j->ndim - 1] = 0; /* where a packed row lies is in off alone */
        for (ptrdiff_t l = 0; l < r->n; l++)
            off[k][l] = l * j->c * step[k][0];
        if (k < 2)
            NAME(rows_pack)(j, r, from[k], stride[k], to[k]->data, to[k]->dtype, 0);
    }
    NAME(rows_work)(&near, r, room, b);
    for (int k = 2; k < 5; k++)
        if (apart.arrays >> k & 1)
            NAME(rows_pack)(j, r, from[k], stride[k], to[k]->data, to[k]->dtype, 1);
}
