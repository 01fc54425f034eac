/* Cross entropy over logits that exist one tile at a time: rows gather their softmax tile by tile, then each tile becomes its gradient. */

static void NAME(tile_bias)(const LfTileJob *j, T *x)
{
    const T *bias = j->bias;
    if (bias)
#pragma omp simd
        for (ptrdiff_t c = 0; c < j->columns; c++)
            x[c] += bias[c];
}

/* The label's place in the tile, or -1. */
static ptrdiff_t NAME(tile_label)(const LfTileJob *j, ptrdiff_t row)
{
    const int64_t y = j->label[row] - j->first;
    return j->label[row] >= 0 && y >= 0 && y < j->columns ? (ptrdiff_t)y : -1;
}

/* LF_LANES columns from x on, the missing ones -inf. */
static inline const T *NAME(tile_lanes)(const LfTileJob *j, const T *x, ptrdiff_t c, T *pad)
{
    if (j->columns - c >= LF_LANES)
        return x + c;
    for (ptrdiff_t l = 0; l < LF_LANES; l++)
        pad[l] = l < j->columns - c ? x[c + l] : -INFINITY;
    return pad;
}

/* w t' of column c */
static inline double NAME(tile_mixed)(const LfTileJob *j, const T *target, ptrdiff_t c)
{
    return (j->weight ? j->weight[c] : 1) * ((double)target[c] * j->mix + j->rest);
}

/* Adds a row's w t' and w t' x. */
static void NAME(tile_target)(const LfTileJob *j, ptrdiff_t row, const T *x)
{
    const T *target = (const T *)j->target + row * j->columns;
    double dot[LF_LANES] = {0}, mass[LF_LANES] = {0};
    for (ptrdiff_t c = 0; c < j->columns; c += LF_LANES)
        for (ptrdiff_t l = 0; l < LF_LANES && c + l < j->columns; l++) {
            const double f = NAME(tile_mixed)(j, target, c + l);
            dot[l] += f == 0 ? 0 : f * (double)x[c + l], mass[l] += f;
        }
    j->dot[row] += lf_lane_sum(dot), j->mass[row] += lf_lane_sum(mass);
}

/* Brings a row's (m, s) up to date: s + 1 is the sum of all exp(x - m) so far, 0 at the start. */
static void NAME(tile_block)(const LfTileJob *j, ptrdiff_t row)
{
    T *x = (T *)j->tile + row * j->columns, lane[LF_LANES], pad[LF_LANES], e[LF_LANES];
    const ptrdiff_t label = NAME(tile_label)(j, row);
    double acc[LF_LANES] = {0}, ties = 0, dot[LF_LANES] = {0};
    if (j->label[row] < 0)
        return;
    NAME(tile_bias)(j, x);
    for (int l = 0; l < LF_LANES; l++)
        lane[l] = -INFINITY;
    for (ptrdiff_t c = 0; c < j->columns; c += LF_LANES) {
        const T *a = NAME(tile_lanes)(j, x, c, pad);
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++)
            lane[l] = a[l] > lane[l] ? a[l] : lane[l];
    }
    T top = lane[0];
    for (int l = 1; l < LF_LANES; l++)
        top = lane[l] > top ? lane[l] : top;
    const double before = j->m[row], m = top > before ? top : before;
    const T shift = (T)m;
    I equal[LF_LANES] = {0};
    for (ptrdiff_t c = 0; c < j->columns; c += LF_LANES) {
        const T *a = NAME(tile_lanes)(j, x, c, pad);
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++)
            e[l] = NAME(lf_exp)(a[l] - shift);
#pragma omp simd
        for (int l = 0; l < LF_LANES; l++) { /* by bits: a selection would leave the loops scalar */
            const I other = -(I)(a[l] != shift);
            acc[l] += (double)REAL(BITS(e[l]) & (U)other);
            equal[l] += 1 + other;
        }
    }
    for (int l = 0; l < LF_LANES; l++)
        ties += (double)equal[l];
    for (ptrdiff_t c = 0; j->smoothed && c < j->columns; c += LF_LANES)
        for (ptrdiff_t l = 0; l < LF_LANES && c + l < j->columns; l++) {
            const double w = j->weight ? j->weight[c + l] : 1;
            dot[l] += w == 0 ? 0 : w * (double)x[c + l];
        }
    if (j->target)
        NAME(tile_target)(j, row, x);
    const double seen = before == m ? 0 : j->s[row] == -1 ? 0 : (j->s[row] + 1) * lf_exp_f64(before - m);
    j->s[row] = before == m ? j->s[row] + (ties + lf_lane_sum(acc)) : (ties - 1) + (seen + lf_lane_sum(acc));
    j->m[row] = m;
    j->dot[row] += lf_lane_sum(dot);
    if (label >= 0)
        j->xt[row] = x[label];
}

/* Logits to kmass p - kown [label] - keven w, or to kmass p - keven w t'. */
static void NAME(tile_grad)(const LfTileJob *j, ptrdiff_t row)
{
    T *x = (T *)j->tile + row * j->columns;
    const ptrdiff_t label = NAME(tile_label)(j, row);
    const double s = j->s[row], mass = j->kmass[row], own = j->kown[row], even = j->smoothed ? j->keven[row] : 0;
    if (j->label[row] < 0) {
        memset(x, 0, j->columns * sizeof(T));
        return;
    }
    NAME(tile_bias)(j, x);
    const double xl = label < 0 ? 0 : (double)x[label], u = label < 0 ? 0 : own + even * (j->weight ? j->weight[label] : 1);
    const T m = (T)j->m[row], scale = (T)(mass / (1 + s));
#pragma omp simd
    for (ptrdiff_t c = 0; c < j->columns; c++)
        x[c] = scale * NAME(lf_exp)(x[c] - m);
    for (ptrdiff_t c = 0; even != 0 && c < j->columns; c++)
        x[c] -= (T)(even * (j->weight ? j->weight[c] : 1));
    if (label >= 0) /* without cancellation where the label has nearly all the probability */
        x[label] = (T)(xl == j->m[row] && s < 1 ? (mass - u) - mass * (s / (1 + s)) : mass * (lf_exp_f64(xl - j->m[row]) / (1 + s)) - u);
    if (j->target) {
        const T *target = (const T *)j->target + row * j->columns;
        for (ptrdiff_t c = 0; c < j->columns; c++)
            x[c] = (T)((double)x[c] - j->keven[row] * NAME(tile_mixed)(j, target, c));
    }
}
