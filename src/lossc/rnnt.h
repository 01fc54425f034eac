/* RNN-T (transducer) loss: logits (N, T, U + 1, V), a row of classes for each cell (t, u) of the lattice. A blank leads from (t, u) to (t + 1, u),
 * label u to (t, u + 1); every path ends with a blank in (T - 1, U).
 *
 * Every row is read once for its log-sum and the two entries that matter; masses are logarithms in double, kept by anti-diagonal d = t + u, so
 * that a diagonal is one vector loop over u. Cells outside the lattice hold -inf and need no conditions. The gradient's rows are read once more,
 * with maximum and sum known,
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

/* Cells from .. to of a diagonal: what comes over two transitions of log-probabilities pa, pb. */
static __attribute__((noinline)) void rnnt_advance(double *restrict to, const double *a, const double *pa, const double *b, const double *pb,
                                                   ptrdiff_t n)
{
#pragma omp simd
    for (ptrdiff_t u = 0; u < n; u++)
        to[u] = rnnt_add(a[u] + pa[u], b[u] + pb[u]);
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
        const ptrdiff_t from = d >= frames ? d - frames + 1 : 0, to = d < labels ? d : labels, at = d * w + 1 + from;
        rnnt_advance(beta + at, beta + at + w, blank + at, beta + at + w + 1, emit + at, to - from + 1);
    }
    j->loss[n] = -beta[rnnt_cell(j, 0, 0)];
    if (!j->g)
        return;
    for (ptrdiff_t i = 0; i < cells; i++)
        alpha[i] = -INFINITY;
    alpha[rnnt_cell(j, 0, 0)] = 0;
    for (ptrdiff_t d = 1; d < frames + labels; d++) {
        const ptrdiff_t from = d >= frames ? d - frames + 1 : 0, to = d < labels ? d : labels, at = d * w + 1 + from, last = at - w;
        rnnt_advance(alpha + at, alpha + last, blank + last, alpha + last - 1, emit + last - 1, to - from + 1);
    }
}

static inline double rnnt_entry(const LfRnntJob *j, const char *row, ptrdiff_t c)
{
    double v;
    if (j->row.x_dtype == LF_F32)
        return *(const lf_f32_u *)(const void *)(row + c * j->row.x_c);
    lf_load_f64(&v, row + c * j->row.x_c, j->row.x_dtype, 0, 1);
    return v;
}

/* Sums of rows, and entries of blank and label, become log-probabilities of cells at, at + width + 1, ... */
static void rnnt_normalise(const LfRnntJob *j, ptrdiff_t at, ptrdiff_t count, const double *M, const double *S, const double *blank,
                           const double *label)
{
    double *blank_lp = j->blank_lp + at, *label_lp = j->label_lp + at;
#pragma omp simd
    for (ptrdiff_t k = 0; k < count; k++) {
        const double delta = lf_log1p_f64(S[k]);
        blank_lp[k * (j->width + 1)] = (blank[k] - M[k]) - delta;
        label_lp[k * (j->width + 1)] = (label[k] - M[k]) - delta;
    }
    for (ptrdiff_t k = 0; j->g && k < count; k++)
        j->top[at + k * (j->width + 1)] = M[k], j->total[at + k * (j->width + 1)] = 1 + S[k];
}

/* Cells first .. first + count of a frame: the path's occupancy, its flow through the label, and the gradient's entries at the blank and the label,
 * flow through both aside if they are one class. */
#define RNNT_CELLS 64
typedef struct {
    double occupancy[RNNT_CELLS], by_label[RNNT_CELLS], blank[RNNT_CELLS], label[RNNT_CELLS];
} RnntCells;

static void rnnt_flow(const LfRnntJob *j, ptrdiff_t n, ptrdiff_t t, ptrdiff_t first, ptrdiff_t count, RnntCells *to)
{
    const ptrdiff_t cells = rnnt_cells(j), w = j->width, at = n * cells + rnnt_cell(j, t, first);
    const double *blank = j->blank_lp + at, *label = j->label_lp + at, *alpha = j->alpha + at, *beta = j->beta + at, z = -j->loss[n];
    const int logits = j->row.from_logits;
#pragma omp simd
    for (ptrdiff_t k = 0; k < count; k++) {
        const ptrdiff_t i = k * (w + 1);
        const double a = alpha[i] - z, p = lf_exp_f64(a + beta[i]), flow = lf_exp_f64(a + label[i] + beta[i + w + 1]);
        to->occupancy[k] = p, to->by_label[k] = flow;
        to->blank[k] = (logits ? p * lf_exp_f64(blank[i]) : 0) - lf_exp_f64(a + blank[i] + beta[i + w]);
        to->label[k] = (logits ? p * lf_exp_f64(label[i]) : 0) - flow;
    }
}

#endif

/* Frame t of sample n: log-probabilities of the blank and of the next label. Where they lead out of the lattice they count for nothing; but the
 * gradient by logits needs the blank's. */
static void NAME(rnnt_rows)(const LfRnntJob *j, ptrdiff_t task, char *scratch)
{
    const ptrdiff_t n = task / j->steps, t = task % j->steps, cells = (ptrdiff_t)j->lengths[n] + 1;
    const int32_t *y = j->row.labels + n * (j->width - 2);
    for (ptrdiff_t first = 0; t < j->frames[n] && first < cells; first += RNNT_CELLS) {
        const ptrdiff_t count = cells - first < RNNT_CELLS ? cells - first : RNNT_CELLS, at = n * rnnt_cells(j) + rnnt_cell(j, t, first);
        double M[RNNT_CELLS] = {0}, S[RNNT_CELLS] = {0}, blank[RNNT_CELLS], label[RNNT_CELLS];
        for (ptrdiff_t k = 0; k < count; k++) {
            const char *x = j->row.x + n * j->row.x_n + t * j->row.x_t + (first + k) * j->x_u;
            if (j->row.from_logits)
                NAME(ctc_long_row)(&j->row, x, NULL, 0, &M[k], &S[k], scratch);
            const int labelled = first + k < cells - 1, leads = !labelled || t + 1 < j->frames[n];
            blank[k] = leads || j->row.from_logits ? rnnt_entry(j, x, j->row.blank) : -INFINITY;
            label[k] = labelled ? rnnt_entry(j, x, y[first + k]) : -INFINITY;
        }
        rnnt_normalise(j, at, count, M, S, blank, label);
    }
}

/* row = softmax(x) * scale, x with maximum m and sum of exp(x - m). */
static void NAME(rnnt_softmax)(const LfCtcJob *j, const char *x, T *row, double m, double sum, double scale)
{
    const ptrdiff_t item = lf_itemsize(j->x_dtype);
    const int direct = j->x_dtype == T_CODE && j->x_c == item && (uintptr_t)x % sizeof(T) == 0, far = NAME(row_far)((T)m);
    const NAME(Ref) ref = NAME(run_ref)((T)m);
    const double k = scale / sum;
    const T *a = (const T *)(const void *)x;
    if (!direct)
        NAME(lf_load)(row, x, j->x_dtype, j->x_c, j->C), a = row;
    if (far) {
        for (ptrdiff_t c = 0; c < j->C; c++)
            row[c] = NAME(row_shift)(a[c], (T)m);
        a = row;
    }
    NAME(emit_scaled)(row, a, NULL, j->C, ref.magic, ref.floor, (T)ref.f, (T)k);
    if (sum < 32)
        NAME(ctc_refine)(j, x, row, j->C, m, sum, k);
}

static void NAME(rnnt_zero)(const LfCtcJob *j, char *row)
{
    static T zero[LF_CTC_RUN]; /* never written; a constant would take room in the file */
    for (ptrdiff_t c = 0; c < j->C; c += LF_CTC_RUN)
        NAME(lf_store)(row + c * j->g_c, j->g_dtype, j->g_c, zero, j->C - c < LF_CTC_RUN ? j->C - c : LF_CTC_RUN, j->stream);
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
    const ptrdiff_t n = task / j->steps, t = task % j->steps, C = j->row.C, cells = (ptrdiff_t)j->lengths[n] + 1;
    const double up = j->row.scale[n], factor = j->clamp > 0 ? 1 : up;
    const int32_t *y = j->row.labels + n * (j->width - 2);
    const double least = sizeof(T) == sizeof(double) ? 0 : 0x1p-151; /* less rounds to 0, and no entry is larger than the occupancy */
    T *row = (T *)(scratch + j->row.row_bytes);
    RnntCells cell;
    for (ptrdiff_t u = 0; u < j->width - 1; u++) {
        const char *x = j->row.x + n * j->row.x_n + t * j->row.x_t + u * j->x_u;
        char *g = j->g + n * j->row.g_n + t * j->row.g_t + u * j->g_u;
        const ptrdiff_t k = u % RNNT_CELLS, at = n * rnnt_cells(j) + rnnt_cell(j, t, u);
        const int in = t < j->frames[n] && u < cells && !(j->loss[n] == INFINITY), labelled = u < cells - 1;
        if (in && k == 0)
            rnnt_flow(j, n, t, u, cells - u < RNNT_CELLS ? cells - u : RNNT_CELLS, &cell);
        if (!in || cell.occupancy[k] == 0 || cell.occupancy[k] * fabs(factor) < least) {
            NAME(rnnt_zero)(&j->row, g);
            continue;
        }
        if (j->row.from_logits)
            NAME(rnnt_softmax)(&j->row, x, row, j->top[at], j->total[at], cell.occupancy[k] * factor);
        else
            memset(row, 0, (size_t)C * sizeof(T));
        if (labelled)
            row[y[u]] = (T)(cell.label[k] * factor);
        row[j->row.blank] = (T)((cell.blank[k] - (labelled && y[u] == j->row.blank ? cell.by_label[k] : 0)) * factor);
        if (j->clamp > 0)
            NAME(rnnt_clamp)(row, C, (T)j->clamp, (T)up);
        NAME(lf_store)(g, j->row.g_dtype, j->row.g_c, row, C, j->row.stream);
    }
    if (j->row.stream)
        lf_store_fence();
}
