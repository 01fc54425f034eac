/* Functions of one T, branch-free, so that a `#pragma omp simd` loop that calls them becomes packed code on every ISA.
 *
 * A. No libm, no tables, no integers wider than T; all selections are ?: on computed values.
 * B. exp cuts x = n ln2 + r, |r| <= 0.35, and the logarithms x = 2^e (1 + f), -0.293 <= f <= 0.414. Both keep what rounding drops (r's or the
 *    sum's low part) where a caller needs it: that is what holds softplus and sigmoid, two functions deep, near 1 ulp.
 * C. The sums (a - h) + f recover the rounding error of h = a + f exactly for |a| >= |f| or a = 0 (Dekker). Products in them are exact
 *    (T_LN2_HI is short, scales are powers of two), so contraction to FMA changes nothing there.
 * D. NaN in gives NaN out. Subnormal results and arguments are right unless the caller has set FTZ or DAZ.
 * E. "Max error" is in ulp of the exact result, and comes from every float with 2^-26 <= |x| < 2^8 and each 97th of the others, with FMA | without
 *    it, and for double from 10^7 random arguments; subnormal results are within 0.75 of the smallest. tests/test_vmath.py
 *    recomputes it (not for pow, where each 97th float and random arguments are all that was tried). */

/* ---- exp ---------------------------------------------------------------------------------------------------------------------------- */

/* exp(r) = 1 + r + r^2 E(r) for |r| <= 0.3467: E, minimax with weight r^2 + 0.003; approximation error below 2^-28 (float), 2^-57 of exp(r). */
static inline T NAME(lf_exp_curve)(T r)
{
#ifdef LF_T_FLOAT
    T e = 0x1.6d65c4p-10f;
    e = e * r + 0x1.12375p-7f;
    e = e * r + 0x1.5554d2p-5f;
    e = e * r + 0x1.555496p-3f;
    e = e * r + 0.5f;
#else
    T e = 0x1.af6d81d57046bp-26;
    e = e * r + 0x1.28acd36980079p-22;
    e = e * r + 0x1.71ddefaecb375p-19;
    e = e * r + 0x1.a0199ab6b07dbp-16;
    e = e * r + 0x1.a01a01b379420p-13;
    e = e * r + 0x1.6c16c183e397cp-10;
    e = e * r + 0x1.111111110ecf8p-7;
    e = e * r + 0x1.5555555550a40p-5;
    e = e * r + 0x1.555555555555bp-3;
    e = e * r + 0x1.0000000000009p-1;
#endif
    return e;
}

static inline T NAME(lf_exp_tail)(T r) /* exp(r) - 1 - r */ { return r * r * NAME(lf_exp_curve)(r); }

#ifdef LF_T_FLOAT
#define EXP_HI 89.0f            /* exp overflows from 88.73 on */
#define EXP_LAST 0x1.62e42ep+6f /* the last x of a finite exp */
#define EXP_LO -104.0f          /* exp rounds to 0 below -103.98 */
#define EXP_NORMAL -87.3365f    /* exp is a normal number from -87.33654 on */
#else
#define EXP_HI 710.0
#define EXP_LAST 0x1.62e42fefa39efp+9
#define EXP_LO -746.0
#define EXP_NORMAL -708.396
#endif

/* x = n ln2 + r + rlo, for EXP_LO <= x <= EXP_HI; k holds n + 2 T_BIAS in its low bits. */
typedef struct {
    T n, r, rlo;
    U k;
} NAME(LfReduced);

static inline NAME(LfReduced) NAME(lf_reduce)(T x)
{
    const T magic = T_MAGIC + 2 * T_BIAS; /* so that halves of k are biased exponents */
    T s = x * T_LOG2E + magic;
    T n = s - magic;
    T a = x - n * T_LN2_HI; /* exact: the product is, and cancels x to a few bits */
    T b = n * T_LN2_LO;
    T r = a - b;
    return (NAME(LfReduced)){.n = n, .r = r, .rlo = (a - r) - b, .k = BITS(s)};
}

/* y 2^n in two steps, each by a normal power of two: one rounding, also where the result is subnormal; overflows to inf. */
static inline T NAME(lf_scale)(T y, U k)
{
    U h = k >> 1;
    return y * REAL(h << T_MANT) * REAL((k - h) << T_MANT);
}

/* exp(x), all reals: 0 below -103.98 (double: -745.14), inf from 88.73 (709.79) on.
 * Max error: float 1.04 at -0x1.76642ep+2 | 1.01 at 0x1.da7be2p+5; double 1.0. */
static inline T NAME(lf_exp)(T x)
{
    x = x > EXP_HI ? EXP_HI : x;
    x = x < EXP_LO ? EXP_LO : x;
    NAME(LfReduced) d = NAME(lf_reduce)(x);
    return NAME(lf_scale)(R(1.0) + (d.r + NAME(lf_exp_tail)(d.r)), d.k);
}

/* y exp(x), where exp(x) alone may overflow or vanish: as lf_exp.  0 at y = 0, whatever x.
 * y comes nearer to 1 first, which is exact, and x is cut where the result overflows or vanishes for every y on that side of 1. */
static inline T NAME(lf_exp_times)(T y, T x)
{
    const int shift = T_MANT == 23 ? 100 : 128, span = T_MANT == 23 ? 300 : 2205;
    const T below = T_MANT == 23 ? 195 : 1457, above = T_MANT == 23 ? 90 : 711;
    I large = ABS(y) >= 1;
    T top = large ? above : below, c = x > top ? top : x;
    c = c < top - span ? top - span : c;
    NAME(LfReduced) d = NAME(lf_reduce)(c);
    U k = d.k + (U)(large ? shift : -shift), h = k >> 1;
    T near = y * (large ? REAL((U)(T_BIAS - shift) << T_MANT) : REAL((U)(T_BIAS + shift) << T_MANT));
    return (R(1.0) + (d.r + NAME(lf_exp_tail)(d.r))) * REAL(h << T_MANT) * near * REAL((k - h) << T_MANT);
}

typedef struct {
    T hi, lo;
} NAME(LfPair);

/* The larger, or smaller, of numbers of which no two are negative; of NaN and a number either.  By their bits, where the ISA compares such: of a
 * comparison of T gcc makes, on AVX-512, two instructions, one of which keeps a multiplication waiting. */
static inline T NAME(lf_most)(T a, T b)
{
#if defined LF_T_FLOAT || defined __AVX2__ || !defined __SSE2__
    const I i = (I)BITS(a), j = (I)BITS(b), most = i > j ? i : j;
    return REAL((U)most);
#else
    return a > b ? a : b;
#endif
}

static inline T NAME(lf_least)(T a, T b)
{
#if defined LF_T_FLOAT || defined __AVX2__ || !defined __SSE2__
    const I i = (I)BITS(a), j = (I)BITS(b), least = i < j ? i : j;
    return REAL((U)least);
#else
    return a < b ? a : b;
#endif
}

/* a, or least > 0 where 0 <= a < least: NaN and what has the sign bit stay. */
static inline T NAME(lf_raised)(T a, T least)
{
    const U i = BITS(a), j = BITS(least);
    return REAL(i > j ? i : j);
}

/* exp(x) = power (1 + p): power is 2^n, 0 for n <= -T_BIAS, inf for n > T_BIAS; k holds n + T_BIAS in its low bits.  p is NaN for x not finite and may
 * be NaN or inf far beyond exp's reach. */
typedef struct {
    T power, p;
    U k;
} NAME(LfExp);

static inline NAME(LfExp) NAME(lf_exp_parts)(T x)
{
    const T magic = T_MAGIC + T_BIAS;
    T s = x * T_LOG2E + magic, n = s - magic, r = (x - n * T_LN2_HI) - n * T_LN2_LO;
    T within = NAME(lf_least)(NAME(lf_most)(s, T_MAGIC), T_MAGIC + (2 * T_BIAS + 1));
    return (NAME(LfExp)){REAL(BITS(within) << T_MANT), r + NAME(lf_exp_tail)(r), BITS(s)};
}

/* exp(x) for sums, cheapest: 0 below -87.68 (double: -708.7), inf or NaN from 88.37 (709.4) on and for x not finite or large; else max error as
 * lf_exp. */
static inline T NAME(lf_exp_sum)(T x)
{
    NAME(LfExp) d = NAME(lf_exp_parts)(x);
    return d.power + d.power * d.p;
}

/* exp(x) for x <= 0, cheaper.  hi: 0 below EXP_NORMAL, where exp(x) would be subnormal; max error as lf_exp.  Both together within 0.5 ulp: lo
 * is what 1 + p drops, or all of a subnormal result. */
static inline NAME(LfPair) NAME(lf_exp_neg_pair)(T x)
{
    NAME(LfExp) d = NAME(lf_exp_parts)(x);
    T y = R(1.0) + d.p, low = y * REAL((d.k + 64) << T_MANT) * R(0x1p-64);
    low = x < EXP_LO ? 0 : low;
    return (NAME(LfPair)){x < EXP_NORMAL ? 0 : d.power + d.power * d.p, x < EXP_NORMAL ? low : ((R(1.0) - y) + d.p) * d.power};
}

static inline T NAME(lf_exp_neg)(T x) { return NAME(lf_exp_neg_pair)(x).hi; }

/* exp(x), all reals, cheaper: 0 below EXP_NORMAL + ln2.  Max error: as lf_exp. */
static inline T NAME(lf_exp_quick)(T x)
{
    NAME(LfExp) d = NAME(lf_exp_parts)(x);
    T half = REAL((d.k - 1) << T_MANT), e = half + half * d.p; /* 2^(n-1), for n = 128 as well */
    T y = x < EXP_NORMAL + R(0.6931472) ? 0 : e + e;
    return x > EXP_HI ? T_INF : y;
}

/* x, or 1 where exp(x) is infinite */
static inline T NAME(lf_exp_finite)(T x) { return x > EXP_LAST ? 1 : x; }

/* exp(-a) as hi + lo, hi within an ulp and the sum some 2^-3 of one, for a >= 0; for a < 0 down to exp's overflow, NaN or inf beyond. */
static inline NAME(LfPair) NAME(lf_exp_pair)(T a)
{
    T x = -a;
    x = x < EXP_LO ? EXP_LO : x;
    NAME(LfReduced) d = NAME(lf_reduce)(x);
    T q = d.rlo + NAME(lf_exp_tail)(d.r), p = d.r + q, plo = (d.r - p) + q;
    T y = R(1.0) + p, ylo = ((R(1.0) - y) + p) + plo;
    return (NAME(LfPair)){NAME(lf_scale)(y, d.k), NAME(lf_scale)(ylo, d.k)};
}

/* exp(x) - 1, all reals; relative accuracy near 0.
 * Max error: float 1.09 at 0x1.632bb2p-2 | 1.23 at 0x1.6338cp-2; double 1.17.
 * 2^n (1 + p) - 1 = 2 (s p + (s - 1/2)) with s = 2^(n-1), which does not overflow for n = 128; r, the large part of p, goes in first. */
static inline T NAME(lf_expm1)(T x)
{
    T c = x > EXP_HI ? EXP_HI : x;
    c = c < -R(2.0) * T_MANT ? -R(2.0) * T_MANT : c; /* -1 from there on */
    NAME(LfReduced) d = NAME(lf_reduce)(c);
    T s = REAL((d.k - T_BIAS - 1) << T_MANT);
    T a = s - R(0.5), b = s * d.r, h = a + b;
    T y = h + (((a - h) + b) + s * (d.rlo + NAME(lf_exp_tail)(d.r)));
    return ABS(x) < T_EPS / 4 ? x : y + y; /* s r may lose bits of a subnormal x */
}

/* ---- log ---------------------------------------------------------------------------------------------------------------------------- */

#ifdef LF_T_FLOAT
#define SQRT_HALF 0x3f3504f3u
#else
#define SQRT_HALF 0x3fe6a09e667f3bcdu
#endif
#define MANT_MASK (((U)1 << T_MANT) - 1)

/* log(1 + f) - f for SQRT_HALF - 1 <= f <= 2 SQRT_HALF - 1.
 * float:  f^2 (f P(f) - 1/2), P minimax; approximation error below 2^-29.6 of f.
 * double: s (f^2/2 + S(s^2)) - f^2/2 with s = f / (2 + f), since log(1 + f) = 2 atanh(s); S below 2^-58 of s. */
static inline T NAME(lf_log_tail)(T f)
{
#ifdef LF_T_FLOAT
    T p = 0x1.18fccp-4f;
    p = p * f + -0x1.e0cbb6p-4f;
    p = p * f + 0x1.e61a5p-4f;
    p = p * f + -0x1.fb987ep-4f;
    p = p * f + 0x1.233e12p-3f;
    p = p * f + -0x1.5560fp-3f;
    p = p * f + 0x1.99a47ep-3f;
    p = p * f + -0x1.fffff4p-3f;
    p = p * f + 0x1.555548p-2f;
    return f * f * (f * p - 0.5f);
#else
    T s = f / (2.0 + f), z = s * s, h = 0.5 * f * f;
    T p = 0x1.2f02c39de78a3p-3;
    p = p * z + 0x1.39a1f5c293e50p-3;
    p = p * z + 0x1.74663d3a30b8fp-3;
    p = p * z + 0x1.c71c520bc3938p-3;
    p = p * z + 0x1.24924941fb614p-2;
    p = p * z + 0x1.999999997fb7cp-2;
    p = p * z + 0x1.5555555555593p-1;
    return s * (h + z * p) - h;
#endif
}

/* e ln2 + log(1 + f + flo) */
static inline T NAME(lf_log_sum)(T e, T f, T flo)
{
    T a = e * T_LN2_HI, h = a + f;
    return h + (((a - h) + f) + (e * T_LN2_LO + (NAME(lf_log_tail)(f) + flo)));
}

/* u > 0, normal, as (1 + f) 2^e, SQRT_HALF <= 1 + f < 2 SQRT_HALF: upper bits e, signed. */
static inline U NAME(lf_split)(T u) { return BITS(u) - SQRT_HALF; }

static inline T NAME(lf_exponent)(U split) /* e */
{
#ifdef LF_T_FLOAT
    return (T)((I)split >> T_MANT);
#else /* few ISAs convert int64: through the mantissa of 2^T_MANT */
    const T one = (T)((U)1 << T_MANT);
    return REAL(((split + ((U)(2 * T_BIAS) << T_MANT)) >> T_MANT) | BITS(one)) - (one + 2 * T_BIAS);
#endif
}

static inline T NAME(lf_fraction)(U split) /* f */ { return REAL((split & MANT_MASK) + SQRT_HALF) - R(1.0); }

/* e ln2 + log(1 + f) as hi + lo, hi within 1.4 ulp, both together within 0.5: for losses. */
static inline NAME(LfPair) NAME(lf_log_parts)(T e, T f)
{
    T rest = e * T_LN2_LO + NAME(lf_log_tail)(f), s = f + rest, a = e * T_LN2_HI, hi = a + s;
    return (NAME(LfPair)){hi, ((a - hi) + s) + ((f - s) + rest)};
}

#define BEYOND (T_MANT + 1) /* 2^BEYOND times a subnormal number is normal */

/* log(x) for 0 <= x < 1: 0 counts as 2^-150 (double: 2^-1076). */
static inline NAME(LfPair) NAME(lf_log_unit)(T x)
{
    U b = NAME(lf_split)(x * ((U)1 << BEYOND) + 0) - ((U)BEYOND << T_MANT); /* + 0: -0 is 0 */
    return NAME(lf_log_parts)(NAME(lf_exponent)(b), NAME(lf_fraction)(b));
}

/* log(x) for 0 < x < inf: finite for any other x. */
static inline NAME(LfPair) NAME(lf_log_positive)(T x)
{
    T u = x < T_MIN ? x * ((U)1 << BEYOND) : x;
    U b = BITS(u) - (x < T_MIN ? SQRT_HALF + ((U)BEYOND << T_MANT) : SQRT_HALF);
    return NAME(lf_log_parts)(NAME(lf_exponent)(b), NAME(lf_fraction)(b));
}

/* log(1 - x) for 0 <= x < 1, as lf_log1p, where for such x both differences are exact; finite at 1. */
static inline NAME(LfPair) NAME(lf_log_complement)(T x)
{
    U b = NAME(lf_split)(R(1.0) - x), e = b & ~MANT_MASK;
    T v = REAL(BITS(x) - e), t = REAL(((U)T_BIAS << T_MANT) - e);
    return NAME(lf_log_parts)(NAME(lf_exponent)(b), (t - R(1.0)) - v);
}

/* log(x): -inf at 0, NaN below.
 * Max error: float 0.89 at 0x1.66719p-1 | 0.90 at 0x1.6680b4p-1; double 0.86. */
static inline T NAME(lf_log)(T x)
{
    T u = x < T_MIN ? x * ((U)1 << BEYOND) : x;
    U b = BITS(u) - (x < T_MIN ? SQRT_HALF + ((U)BEYOND << T_MANT) : SQRT_HALF);
    T y = NAME(lf_log_sum)(NAME(lf_exponent)(b), NAME(lf_fraction)(b), 0);
    y = x == 0 ? -T_INF : y;
    y = x < 0 ? T_NAN : y;
    return x < T_INF ? y : x;
}

/* log(1 + x): -inf at -1, NaN below; relative accuracy near 0 (but +0 for -0).
 * Max error: float 0.99 at 0x1.b2c9aap-2 | 1.00 at 0x1.c4c802p-2; double 0.84.
 * e is that of u = fl(1 + x), and 2^-e (1 + x) - 1 = v + (t - 1), v = 2^-e x, t = 2^-e. The sum is exact, its terms being within a factor 2
 * (Sterbenz) or t = 1, except for sqrt2 - 1 < x < 1/2 and where t - 1 rounds: there |t - 1| > |v|, and flo is what it dropped. */
static inline T NAME(lf_log1p)(T x)
{
    U b = NAME(lf_split)(R(1.0) + x), e = b & ~MANT_MASK;
    T v = REAL(BITS(x) - e);               /* 2^-e x; e = 0 where x is small enough to be subnormal */
    T t = REAL(((U)T_BIAS << T_MANT) - e); /* 2^-e */
    t = x > 4 / T_EPS ? 0 : t;             /* lost against 1, and not a normal number for the largest x */
    T a = t - R(1.0), f = a + v, flo = (a - f) + v;
    T y = NAME(lf_log_sum)(NAME(lf_exponent)(b), f, flo);
    y = x == -1 ? -T_INF : y;
    y = x < -1 ? T_NAN : y;
    return x < T_INF ? y : x;
}

/* log(1 + t) for a pair 0 <= t <= 1: above sqrt2 - 1 it is ln2 + log(1 + (t - 1)/2), what t - 1 drops going into flo. */
static inline T NAME(lf_log1p_pair)(NAME(LfPair) t)
{
    T big = t.hi > R(0.4140625) ? R(1.0) : 0;
    T a = R(0.5) * t.hi, g = a - R(0.5), glo = (R(-0.5) - g) + a;
    T f = big > 0 ? g : t.hi;
    T flo = big > 0 ? glo + R(0.5) * t.lo : t.lo;
    return NAME(lf_log_sum)(big, f, flo);
}

/* ---- compositions of exp and log ---------------------------------------------------------------------------------------------------- */

/* log(1 + exp(-a)) for a >= 0; max error as lf_softplus. */
static inline T NAME(lf_log1pexpneg)(T a) { return NAME(lf_log1p_pair)(NAME(lf_exp_pair)(a)); }

/* log(1 + exp(x)), all reals; relative accuracy for very negative x, where it is exp(x).
 * Max error: float 1.13 at 0x1.a07596p-2 | 1.17 at -0x1.c3ed9p-1; double 1.13. */
static inline T NAME(lf_softplus)(T x) { return (x > 0 ? x : 0) + NAME(lf_log1pexpneg)(ABS(x)); }

/* log(1 / (1 + exp(-x))), all reals; max error as lf_softplus, at -x. */
static inline T NAME(lf_logsigmoid)(T x) { return -NAME(lf_softplus)(-x); }

/* 1 / (1 + exp(-x)), all reals: t / (1 + t) for x < 0 and 1 / (1 + t) else, with t = exp(-|x|).
 * Max error: float 1.17 at -0x1.03aa7ap+4 | 1.19 at -0x1.03a88cp+4; double 1.07.
 * d + dlo = 1 + t, n + nlo the numerator; the quotient q of the large parts is corrected to first order by (nlo - q dlo) / d. */
static inline T NAME(lf_sigmoid)(T x)
{
    NAME(LfPair) t = NAME(lf_exp_pair)(ABS(x));
    T d = R(1.0) + t.hi, dlo = (R(1.0) - d) + t.hi + t.lo;
    T n = x < 0 ? t.hi : R(1.0), nlo = x < 0 ? t.lo : 0;
    T q = n / d;
    T inv = x < 0 ? R(1.0) - q : q; /* 1 / d, nearly */
    return q + (nlo - q * dlo) * inv;
}

/* ---- pow ---------------------------------------------------------------------------------------------------------------------------- */

/* a b = p + the result, exactly (p = fl(a b); Dekker's split where there is no FMA: |a|, |b| below T_MAX / 2^(T_MANT/2 + 1)). */
static inline T NAME(lf_product_error)(T a, T b, T p)
{
#if defined __FMA__ || defined __ARM_FEATURE_FMA
#ifdef LF_T_FLOAT
    return __builtin_fmaf(a, b, -p);
#else
    return __builtin_fma(a, b, -p);
#endif
#else
    const T split = (T)((U)1 << (T_MANT / 2 + 1)) + R(1.0);
    T ca = split * a, cb = split * b;
    T ah = ca - (ca - a), bh = cb - (cb - b), al = a - ah, bl = b - bh;
    return ((ah * bh - p) + ah * bl + al * bh) + al * bl;
#endif
}

/* e ln2 + log(1 + f) as a pair: as in lf_log_sum, with -f^2/2 carried exactly and the rest, below 0.03, in one T. */
static inline NAME(LfPair) NAME(lf_log_exact)(T e, T f)
{
    T g = R(0.5) * f, q = f * g, qlo = NAME(lf_product_error)(f, g, q);
    T a = e * T_LN2_HI, h = a + f, s = h - q;
    T rest = NAME(lf_log_tail)(f) + q;
    T lo = ((a - h) + f) + (((h - s) - q) - qlo) + (e * T_LN2_LO + rest);
    T hi = s + lo;
    return (NAME(LfPair)){hi, (s - hi) + lo};
}

/* log(x) as a pair, for normal x > 0. */
static inline NAME(LfPair) NAME(lf_log_pair)(T x)
{
    U b = NAME(lf_split)(x);
    return NAME(lf_log_exact)(NAME(lf_exponent)(b), NAME(lf_fraction)(b));
}

/* x^y for x >= 0: exp(p + plo) with p + plo = y log(x). x^0 = 1; 0^y = 0, or inf for y < 0; NaN for 1^inf.
 * Max error, 2.5 10^6 random arguments: 1.1 for |y log x| <= 1, 3.6 for <= 10, 30 for <= 100, in float and double alike; 195 in double beyond. */
static inline T NAME(lf_pow)(T x, T y)
{
    NAME(LfPair) l = NAME(lf_log_pair)(x);
    int32_t plain = x >= T_MIN && x < T_INF;
    T hi = plain ? l.hi : NAME(lf_log)(x);
    T p = y * hi;
    T plo = NAME(lf_product_error)(y, hi, p) + y * l.lo;
    plo = plain && ABS(p) < -2 * EXP_LO ? plo : 0;
    T c = p > EXP_HI ? EXP_HI : p;
    c = c < EXP_LO ? EXP_LO : c;
    NAME(LfReduced) d = NAME(lf_reduce)(c);
    T r = d.r + (d.rlo + plo);
    T z = NAME(lf_scale)(R(1.0) + (r + NAME(lf_exp_tail)(r)), d.k);
    return y == 0 ? R(1.0) : z;
}

#undef EXP_HI
#undef EXP_LAST
#undef EXP_LO
#undef EXP_NORMAL
#undef SQRT_HALF
#undef BEYOND
#undef MANT_MASK
