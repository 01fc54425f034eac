/* RNN-T (transducer) loss: logits (N, T, U + 1, V), a row of classes for each cell (t, u) of the lattice. A blank leads from (t, u) to (t + 1, u),
 * label u to (t, u + 1); every path ends with a blank in (T - 1, U).
 *
 * Every row is read once for its log-sum and the two entries that matter; masses are logarithms in double, kept by anti-diagonal d = t + u, so
 * that a diagonal is one vector loop over u. Cells outside the lattice hold -inf and need no conditions. The gradient's rows are read once more, with maximum and sum known,
 *     gradient[t, u, k] = softmax * occupancy - (occupancy of the transition by k)
 * and written once; rows whose occupancy is too small for the result are not even read. */

#ifdef LF_T_DOUBLE

/* Where cell (t, u) of sample n lies in its arrays of diagonals. */
static inline ptrdiff_t rnnt_cell(const LfRnntJob *j, ptrdiff_t t, ptrdiff_t u) { return (t + u) * j->width + u + 1; }
static inline ptrdiff_t rnnt_cells(const LfRnntJob *j) { return (j->steps + j->width) * j->width; }

static inline double rnnt_add(double a, double b)
{
    const double high = a > b ? a : b, low = a > b ? b : a, d = low == -INFINITY ? -800 : low - high;
    return high + lf_log1p_f64(lf_exp_neg_f64(d));
}

/* alpha and beta of sample n, and its loss. */
static void rnnt_lattice(const LfRnntJob *j, ptrdiff_t n)
{
    const ptrdiff_t frames = (ptrdiff_t)j->frames[n], labels = (ptrdiff_t)j->lengths[n], w = j->width, cells = rnnt_cells(j);
    const double *blank = j->blank_lp + n * cells, *emit = j->label_lp + n * cells;
    double *alpha = j->alpha + n * cells, *beta = j->beta + n * cells;
    for (ptrdiff_t i = 0; i < cells; i++)
        beta[i] = -INFINITY;
    beta[rnnt_cell(j, frames, labels)] = 0;
    for (ptrdiff_t d = frames + labels - 1; d >= 0; d--) {
        const ptrdiff_t from = d >= frames ? d - frames + 1 : 0, to = d < labels ? d : labels;
        const double *pb = blank + d * w + 1, *pl = emit + d * w + 1, *next = beta + (d + 1) * w + 1;
        double *b = beta + d * w + 1;
#pragma omp simd
        for (ptrdiff_t u = from; u <= to; u++)
            b[u] = rnnt_add(next[u] + pb[u], next[u + 1] + pl[u]);
    }
    j->loss[n] = -beta[rnnt_cell(j, 0, 0)];
    if (!j->g)
        return;
    for (ptrdiff_t i = 0; i < cells; i++)
        alpha[i] = -INFINITY;
    alpha[rnnt_cell(j, 0, 0)] = 0;
    for (ptrdiff_t d = 1; d < frames + labels; d++) {
        const ptrdiff_t from = d >= frames ? d - frames + 1 : 0, to = d < labels ? d : labels;
        const double *last = alpha + (d - 1) * w + 1, *pb = blank + (d - 1) * w + 1, *pl = emit + (d - 1) * w + 1;
        double *a = alpha + d * w + 1;
#pragma omp simd
        for (ptrdiff_t u = from; u <= to; u++)
            a[u] = rnnt_add(last[u] + pb[u], last[u - 1] + pl[u - 1]);
    }
}

static double rnnt_entry(const LfRnntJob *j, const char *row, ptrdiff_t c)
{
    double v;
    lf_load_f64(&v, row + c * j->row.x_c, j->row.x_dtype, 0, 1);
    return v;
}

static void rnnt_zero(const LfRnntJob *j, char *row)
{
    const double zero[LF_CTC_RUN] = {0};
    for (ptrdiff_t c = 0; c < j->row.C; c += LF_CTC_RUN)
        lf_store_f64(row + c * j->row.g_c, j->row.g_dtype, j->row.g_c, zero, j->row.C - c < LF_CTC_RUN ? j->row.C - c : LF_CTC_RUN, j->row.stream);
}

#endif

/* Frame t of sample n: log-probabilities of the blank and of the next label. */
static void NAME(rnnt_rows)(const LfRnntJob *j, ptrdiff_t task, char *scratch)
{
    const ptrdiff_t n = task / j->steps, t = task % j->steps, labels = (ptrdiff_t)j->lengths[n];
    double *blank = j->blank_lp + n * rnnt_cells(j), *label = j->label_lp + n * rnnt_cells(j);
    if (t >= j->frames[n])
        return;
    for (ptrdiff_t u = 0; u <= labels; u++) {
        const char *x = j->row.x + n * j->row.x_n + t * j->row.x_t + u * j->x_u;
        double M = 0, S = 0;
        if (j->row.from_logits)
            NAME(ctc_long_row)(&j->row, x, NULL, 0, &M, &S, scratch);
        const double delta = lf_log1p_f64(S);
        const ptrdiff_t at = rnnt_cell(j, t, u);
        if (j->g)
            j->top[n * rnnt_cells(j) + at] = M, j->total[n * rnnt_cells(j) + at] = 1 + S;
        blank[at] = (rnnt_entry(j, x, j->row.blank) - M) - delta;
        label[at] = u < labels ? (rnnt_entry(j, x, j->row.labels[n * (j->width - 2) + u]) - M) - delta : -INFINITY;
    }
}

/* row = softmax(x) * scale, x with maximum m and sum of exp(x - m). */
static void NAME(rnnt_softmax)(const LfCtcJob *j, const char *x, T *row, double m, double sum, double scale)
{
    const ptrdiff_t item = lf_itemsize(j->x_dtype);
    const int direct = j->x_dtype == T_CODE && j->x_c == item && (uintptr_t)x % sizeof(T) == 0, far = NAME(row_far)((T)m);
    const NAME(Ref) ref = NAME(row_ref)((T)m);
    const double k = scale / sum;
    const T f = (T)(ref.f / T_UNSHIFT * k);
    const T *a = (const T *)(const void *)x;
    if (!direct)
        NAME(lf_load)(row, x, j->x_dtype, j->x_c, j->C), a = row;
    if (far) {
        for (ptrdiff_t c = 0; c < j->C; c++)
            row[c] = NAME(row_shift)(a[c], (T)m);
        a = row;
    }
#pragma omp simd
    for (ptrdiff_t c = 0; c < j->C; c++)
        row[c] = NAME(row_exp)(a[c], ref.magic, ref.floor) * (T)T_UNSHIFT * f;
    if (sum < 32)
        NAME(ctc_refine)(j, x, row, j->C, m, sum, k);
}

static void NAME(rnnt_clamp)(T *row, ptrdiff_t C, T bound, T up)
{
#pragma omp simd
    for (ptrdiff_t c = 0; c < C; c++) {
        const T v = row[c] > bound ? bound : row[c] < -bound ? -bound : row[c];
        row[c] = v * up;
    }
}

/* Gradient of frame t of sample n. Rows are put together in scratch: entries written over streamed ones would be fetched again. */
static void NAME(rnnt_gradient)(const LfRnntJob *j, ptrdiff_t task, char *scratch)
{
    const ptrdiff_t n = task / j->steps, t = task % j->steps, labels = (ptrdiff_t)j->lengths[n], cells = rnnt_cells(j), C = j->row.C;
    const double *blank = j->blank_lp + n * cells, *label = j->label_lp + n * cells;
    const double *alpha = j->alpha + n * cells, *beta = j->beta + n * cells, z = -j->loss[n], up = j->row.scale[n];
    const double factor = j->clamp > 0 ? 1 : up;
    T *row = (T *)(scratch + j->row.row_bytes);
    for (ptrdiff_t u = 0; u < j->width - 1; u++) {
        const char *x = j->row.x + n * j->row.x_n + t * j->row.x_t + u * j->x_u;
        char *g = j->g + n * j->row.g_n + t * j->row.g_t + u * j->g_u;
        const ptrdiff_t at = rnnt_cell(j, t, u), down = at + j->width, y = u < labels ? j->row.labels[n * (j->width - 2) + u] : j->row.blank;
        const double mass = t < j->frames[n] && u <= labels && z > -INFINITY ? alpha[at] + beta[at] - z : z != z ? NAN : -INFINITY;
        if (mass < -800 || t >= j->frames[n] || u > labels) {
            rnnt_zero(j, g);
            continue;
        }
        const double occupancy = lf_exp_f64(mass), by_blank = lf_exp_f64(alpha[at] + blank[at] + beta[down] - z);
        const double by_label = u < labels ? lf_exp_f64(alpha[at] + label[at] + beta[down + 1] - z) : 0;
        const double softmax = j->row.from_logits ? occupancy : 0;
        if (j->row.from_logits)
            NAME(rnnt_softmax)(&j->row, x, row, j->top[n * cells + at], j->total[n * cells + at], occupancy * factor);
        else
            memset(row, 0, (size_t)C * sizeof(T));
        if (u < labels)
            row[y] = (T)((softmax * lf_exp_f64(label[at]) - by_label) * factor);
        row[j->row.blank] = (T)((softmax * lf_exp_f64(blank[at]) - by_blank - (y == j->row.blank ? by_label : 0)) * factor);
        if (j->clamp > 0)
            NAME(rnnt_clamp)(row, C, (T)j->clamp, (T)up);
        NAME(lf_store)(g, j->row.g_dtype, j->row.g_c, row, C, j->row.stream);
    }
    if (j->row.stream)
        lf_store_fence();
}
