/* The elementwise losses, one stanza each: value, gradients by every float argument and second derivative by the input.
 *
 * A. LOSS(name) is a function of one element: x, y, z are the arrays of losses.def, p its numbers (a number as given, a double, is
 *    p[i] + p[LF_PARAMS + i]).  Fields left out are 0, and a loop that
 *    does not use a field does not compute it: a stanza costs what its caller asks for.
 *      v   the loss           gx, gy, gz   its derivatives by x, y, z           hx   d2v/dx2
 *      c   what rounding dropped from v, to first order.  A sum takes v (within a few ulp away from cancellation: its terms' errors
 *          average out); an element that is itself the result is v + c.
 *      quick   a constant, not 0 where sums take another way: s, or with LF_PRODUCT s + log(1 + t), 0 <= t <= 1, within a few ulp of v where that is
 *              finite; inf or NaN where v is not, and elsewhere at the price of a sum of v.  Only where `given` there are f_a, log(a) with
 *              LF_LOG_A or exp(a), a <= 0, with LF_EXP_A, and f_b, log(b) with LF_LOG_B or b/a with LF_RATIO, for which s is linear in both and
 *              a > 2^-62.  Logarithms are for s alone.
 *              With LF_PAIRS s is of y, z and two functions u and w of x alone, which where `given` is LF_PAIRS are in place of f_a and f_b: of a half
 *              they are looked up.  Of x that is bad u is negative, and x itself is not looked at.
 *      bad 1, 2 or 3 where x, y or z lies outside the domain and the call must raise.  NaN never does.
 *      doubt negative where bad may be set: all that the loops look at.  For NaN and -0 it may be negative without need, at the price of a look.
 * B. Accuracy of v + c: losses of + - * / alone 0.501 ulp, in float and double, cancellation or not; the others as the stanza says, the worst
 *    of 10^6 random elements in float, without FMA and with.  Derivatives: a few ulp where their terms do not cancel.
 * C. Branch-free: ?: on computed values, no libm (vmath.h).  exp, log and division are shared between value and gradients.
 * D. NaN in x, y or z gives NaN in v.  Comparisons are turned so that NaN takes the arm that keeps it.
 * E. Sub-gradients are torch's: 0 at the kink of |d|, the active side's at the edge of a clamp or hinge.
 * F. Contraction: a product p that c looks at is an operand of lf_product_error and therefore not fused away.  A product v whose error is
 *    lf_unfused is fused into v + c where there is an FMA. */

typedef struct {
    T v, c, gx, gy, gz, hx, s, t, a, b, u, w;
    I bad, doubt, quick;
} NAME(VG);
#define VG NAME(VG)
#define LOSS(name) static inline VG NAME(lf_loss_##name)(T x, T y, T z, const T *p, T f_a, T f_b, int given)

/* x - y and what rounding took from it (Knuth; exact for all finite x, y, no order needed). */
static inline NAME(LfPair) NAME(lf_minus)(T x, T y)
{
    T d = x - y, b = d - x;
    return (NAME(LfPair)){d, (x - (d - b)) - (y + b)};
}

/* k - the number i, a whole k: a pair of which hi is rounded once. */
static inline NAME(LfPair) NAME(lf_less)(T k, const T *p, int i)
{
    NAME(LfPair) d = NAME(lf_minus)(k, p[i]);
    T lo = d.lo - p[LF_PARAMS + i], hi = d.hi + lo;
    return (NAME(LfPair)){hi, (d.hi - hi) + lo};
}

/* a b - v, v = a b rounded; 0 where v + c is an FMA of a and b, which rounds but once. */
static inline T NAME(lf_unfused)(T a, T b, T v)
{
#if defined __FMA__ || defined __ARM_FEATURE_FMA
    return 0;
#else
    return NAME(lf_product_error)(a, b, v);
#endif
}

/* The code of a violated condition, in arithmetic: of a selection gcc 12 would make a conditional store, and no packed loop. */
static inline I NAME(lf_bad)(I x_is, I y_is) { return (-x_is & 1) | (-(y_is & ~x_is) & 2); }

/* A correction is used where it is finite: v = inf or NaN stands. */
static inline T NAME(lf_finite)(T c) { return ABS(c) <= T_MAX ? c : 0; }

/* c a with 0 inf = 0: the limit where a probability multiplies a logarithm.  0 NaN stays NaN. */
static inline T NAME(lf_times)(T c, T a)
{
    T b = ABS(a) > T_MAX ? 0 : a;
    return c * (c == 0 ? b : a);
}

/* -|x|; of ABS gcc makes two instructions. */
static inline T NAME(lf_negative)(T x) { return REAL(BITS(x) | (U)1 << (8 * sizeof(T) - 1)); }

/* sign(d) s, which is 0 at 0 and NaN at NaN. */
static inline T NAME(lf_signed)(T d, T s) { return d > 0 ? s : d < 0 ? -s : d; }

/* log(x) - l, l = lf_log(x): its rounding error. */
static inline T NAME(lf_log_rest)(T x, T l)
{
    NAME(LfPair) t = NAME(lf_log_pair)(x);
    return x >= T_MIN ? (t.hi - l) + t.lo : 0;
}

/* exp(x) - e, e = lf_exp(x): its rounding error, where e is normal. */
static inline T NAME(lf_exp_rest)(T x, T e)
{
    NAME(LfPair) t = NAME(lf_exp_pair)(-x);
    return (t.hi - e) + t.lo;
}

/* x^(y + ylo) - z, z = lf_pow(x, y): its rounding error, for normal x. */
static inline T NAME(lf_pow_rest)(T x, T y, T ylo, T z)
{
    NAME(LfPair) l = NAME(lf_log_pair)(x);
    T p = y * l.hi, plo = NAME(lf_product_error)(y, l.hi, p) + (y * l.lo + ylo * l.hi);
    NAME(LfPair) e = NAME(lf_exp_pair)(-p);
    return y == 0 ? 0 : ((e.hi - z) + e.lo) + e.hi * plo;
}

/* k d^2/s with its error, k a power of two, d and s pairs, from q, d/s within 2 ulp. */
static inline NAME(LfPair) NAME(lf_square_over)(T k, NAME(LfPair) d, NAME(LfPair) s, T q)
{
    T kq = k * q, v = d.hi * kq, qs = q * s.hi;
    T rest = ((d.hi - qs) - NAME(lf_product_error)(q, s.hi, qs)) - q * s.lo; /* d - q s */
    return (NAME(LfPair)){v, kq * (rest + 2 * d.lo) + NAME(lf_product_error)(d.hi, kq, v)};
}

/* log(1 + e) for a pair 0 <= e <= 1: in float half the work of lf_log1p_pair, hi within 1.5 ulp (polynomial: 2^-24.9), both together 0.6. */
static inline NAME(LfPair) NAME(lf_log1p_quick)(NAME(LfPair) e)
{
#ifdef LF_T_FLOAT
    T q = -0.004466211601f;
    q = q * e.hi + 0.02522405435f;
    q = q * e.hi + -0.06675772506f;
    q = q * e.hi + 0.1156184545f;
    q = q * e.hi + -0.1584756572f;
    q = q * e.hi + 0.1985410623f;
    q = q * e.hi + -0.2498652617f;
    q = q * e.hi + 0.3333284189f;
    q = q * e.hi + -0.4999999698f;
    T less = q * e.hi, hi = less * e.hi + e.hi;
    return (NAME(LfPair)){hi, (less * e.hi + (e.hi - hi)) + (e.lo - 0.5f * (e.hi * e.lo))}; /* 1 - e/2 for 1/(1 + e) */
#else
    T hi = NAME(lf_log1p_pair)((NAME(LfPair)){e.hi, 0});
    return (NAME(LfPair)){hi, NAME(lf_log1p_pair)(e) - hi};
#endif
}

/* s = 1 / (1 + exp(-x)) and t = 1 - s = 1 / (1 + exp(x)) with one division, both within 2 ulp, or 0.6 with their errors slo, tlo. */
typedef struct {
    T s, t, slo, tlo;
} NAME(LfLogistic);

static inline NAME(LfLogistic) NAME(lf_logistic)(T x)
{
    NAME(LfPair) e = NAME(lf_exp_pair)(ABS(x));
    T d = R(1.0) + e.hi, dlo = (R(1.0) - d) + e.hi + e.lo;
    T q = R(1.0) / d, a = q - q * dlo * q, ad = a * d;
    T alo = a * (((R(1.0) - ad) - NAME(lf_product_error)(a, d, ad)) - a * dlo);
    T ea = e.hi * a, b = ea + e.lo * a;
    T blo = ((ea - b) + e.lo * a) + (NAME(lf_product_error)(e.hi, a, ea) + e.hi * alo);
    return (NAME(LfLogistic)){x < 0 ? b : a, x < 0 ? a : b, x < 0 ? blo : alo, x < 0 ? alo : blo};
}

/* ---- functions of x ----------------------------------------------------------------------------------------------------------------- */

LOSS(sigmoid) /* gx = s (1 - s) */
{
    NAME(LfLogistic) l = NAME(lf_logistic)(x);
    return (VG){.v = NAME(lf_sigmoid)(x), .gx = l.s * l.t};
}

LOSS(logsigmoid) /* gx = 1 - s */ { return (VG){.v = NAME(lf_logsigmoid)(x), .gx = NAME(lf_logistic)(x).t}; }

LOSS(softplus) /* gx = s */ { return (VG){.v = NAME(lf_softplus)(x), .gx = NAME(lf_logistic)(x).s}; }

LOSS(exp)
{
    T e = NAME(lf_exp)(x);
    return (VG){.v = e, .gx = e};
}

LOSS(log) { return (VG){.v = NAME(lf_log)(x), .gx = R(1.0) / x}; }

LOSS(log1p) { return (VG){.v = NAME(lf_log1p)(x), .gx = R(1.0) / (R(1.0) + x)}; }

LOSS(expm1) { return (VG){.v = NAME(lf_expm1)(x), .gx = NAME(lf_exp)(x)}; }

/* ---- of the difference d = x - y ---------------------------------------------------------------------------------------------------- */

/* Squared error.  v = d^2,  gx = 2 d,  hx = 2. */
LOSS(mse)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T v = d.hi * d.hi, g = d.hi + d.hi, c = g * d.lo + NAME(lf_unfused)(d.hi, d.hi, v);
    return (VG){.v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g, .hx = 2};
}

/* Absolute error.  v = |d|,  gx = sign(d). */
LOSS(l1)
{
    T d = x - y, g = NAME(lf_signed)(d, 1);
    return (VG){.v = ABS(d), .gx = g, .gy = -g};
}

/* Huber.  a = |d|, q = min(a, delta):
 *   v  = q (a - q/2)       d^2/2 inside, delta (a - delta/2) outside: one expression, no branch
 *   gx = q sign(d),  hx = 1 inside, 0 outside.   delta = inf is d^2/2: as T_MAX, so that a = inf gives inf and not inf - inf. */
LOSS(huber)
{
    T delta = p[0] < T_MAX ? p[0] : T_MAX;
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T a = ABS(d.hi), q = a > delta ? delta : a, half = q / 2, h = a - half;
    T v = q * h, g = COPYSIGN(a > p[0] ? p[0] : a, d.hi);
    T c = COPYSIGN(q, d.hi) * d.lo + (q * ((a - h) - half) + NAME(lf_unfused)(q, h, v));
    return (VG){.v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g, .hx = a <= p[0]};
}

/* Smooth L1, Huber over beta.  a = |d|, q = min(a, beta), s = q/beta:
 *   v  = s (a - q/2)       d^2/(2 beta) inside, a - beta/2 outside
 *   gx = s sign(d),  hx = 1/beta inside, 0 outside.   beta = 0: l1.  beta = inf: 0. */
LOSS(smooth_l1)
{
    T beta = p[0], inverse = R(1.0) / beta, unit = inverse * beta;
    T inverselo = ((R(1.0) - unit) - NAME(lf_product_error)(inverse, beta, unit)) * inverse;
    inverse = inverse < T_MAX ? inverse : T_MAX; /* beta subnormal: 0 inverse = 0 */
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T a = ABS(d.hi), q = a > beta ? beta : a, s = a >= beta ? 1 : a * inverse, half = q / 2, h = a - half, v = s * h;
    T slo = a >= beta ? 0 : a * inverselo + NAME(lf_product_error)(a, inverse, s); /* q/beta - s */
    T g = NAME(lf_signed)(d.hi, s), c = COPYSIGN(s, d.hi) * d.lo + (s * ((a - h) - half) + (h * slo + NAME(lf_unfused)(s, h, v)));
    return (VG){.v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g, .hx = a < beta ? inverse : 0};
}

/* Quantile (pinball) loss of level q: Koenker & Bassett 1978; scikit-learn's mean_pinball_loss.  v = -q d for d < 0, (1 - q) d else.
 *   gx = -q or 1 - q, 0 at d = 0. */
LOSS(quantile)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y), over = NAME(lf_less)(1, p, 0);
    T w = d.hi < 0 ? -p[0] : over.hi, wlo = d.hi < 0 ? -p[LF_PARAMS] : over.lo, v = NAME(lf_times)(w, d.hi);
    T c = w * d.lo + (wlo * d.hi + NAME(lf_product_error)(w, d.hi, v));
    T g = d.hi > 0 ? over.hi : d.hi < 0 ? -p[0] : d.hi;
    return (VG){.v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g};
}

/* (log cosh a - a^2/2) / a^4 in z = a^2 for 0 <= z <= 1; relative error of (log cosh a)/a^2 2^-29 (float), 2^-59. */
static inline T NAME(lf_log_cosh_core)(T z)
{
#ifdef LF_T_FLOAT
    T q = -2.998387831e-5f;
    q = q * z + 0.0001909976761f;
    q = q * z + -0.0006989629096f;
    q = q * z + 0.002173963031f;
    q = q * z + -0.006743946679f;
    q = q * z + 0.02222209432f;
    q = q * z + -0.08333333203f;
#else
    T q = -2.689200329073261638e-9;
    q = q * z + 2.731842915536938423e-8;
    q = q * z + -1.40810835779221214e-7;
    q = q * z + 5.124147653921174999e-7;
    q = q * z + -1.554151574478036332e-6;
    q = q * z + 4.354871973700519319e-6;
    q = q * z + -0.00001193379231865767678;
    q = q * z + 0.00003277187856849980262;
    q = q * z + -0.00009098791431197686621;
    q = q * z + 0.0002565802940710079532;
    q = q * z + -0.0007386029311758630297;
    q = q * z + 0.002186948851716268026;
    q = q * z + -0.006746031745967792106;
    q = q * z + 0.02222222222222136932;
    q = q * z + -0.08333333333333333144;
#endif
    return q;
}

/* Log-cosh, Keras' LogCosh.  a = |d|:
 *   v  = log cosh d = a - log 2 + log(1 + exp(-2a))       below a = 1 an even polynomial: no cancellation near 0, no overflow
 *   gx = tanh d = -m / (2 + m) sign(d), m = exp(-2a) - 1
 *   hx = 1 / cosh^2 d = (2 e / (1 + e^2))^2, e = exp(-a)
 * 0.96 ulp. */
LOSS(log_cosh)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T a = ABS(d.hi), aa = a * a, half = aa / 2, more = aa * (aa * NAME(lf_log_cosh_core)(aa)), inner = half + more;
    T innerlo = ((half - inner) + more) + NAME(lf_product_error)(a, a, aa) / 2;
    NAME(LfPair) over = NAME(lf_minus)(a, T_LN2_HI), outer = NAME(lf_minus)(over.hi, T_LN2_LO - NAME(lf_log1pexpneg)(a + a));
    T m = NAME(lf_expm1)(-(a + a)), g = COPYSIGN(-m / (R(2.0) + m), d.hi);
    T e = NAME(lf_exp)(-a), u = (e + e) / (R(1.0) + e * e);
    T c = g * d.lo + (a < 1 ? innerlo : over.lo + outer.lo);
    return (VG){.v = a < 1 ? inner : outer.hi,
                .c = NAME(lf_finite)(c),
                .a = -(a + a),
                .s = a < 1 ? inner : over.hi - T_LN2_LO,
                .t = a < 1 ? 0 : f_a,
                .quick = LF_QUICK | LF_PRODUCT | LF_EXP_A,
                .gx = g,
                .gy = -g,
                .hx = u * u};
}

/* ---- hinges, y = +-1 ---------------------------------------------------------------------------------------------------------------- */

/* max(0, m + lo) as v + c */
static inline VG NAME(lf_hinge)(T m, T lo)
{
    T v = m < 0 ? 0 : m, exact = m + NAME(lf_finite)(lo);
    return (VG){.v = v, .c = NAME(lf_finite)((exact < 0 ? 0 : exact) - v)};
}

/* Hinge, Keras' and scikit-learn's.  v = max(0, m), m = 1 - x y;  gx = -y, gy = -x where m >= 0. */
LOSS(hinge)
{
    T xy = x * y;
    NAME(LfPair) m = NAME(lf_minus)(1, xy);
    VG r = NAME(lf_hinge)(m.hi, m.lo - NAME(lf_product_error)(x, y, xy));
    r.gx = m.hi < 0 ? 0 : -y, r.gy = m.hi < 0 ? 0 : -x;
    return r;
}

/* Squared hinge, likewise.  v = max(0, m)^2;  gx = -2 m y, gy = -2 m x, hx = 2 y^2 where m >= 0.  Of a y that is not +-1, m is x y's rounding near 0:
 * v is then known to 2^-50 only, and gx to 2^-25 y. */
LOSS(squared_hinge)
{
    T xy = x * y;
    NAME(LfPair) m = NAME(lf_minus)(1, xy);
    T h = m.hi < 0 ? 0 : m.hi, v = h * h;
    T c = 2 * h * (m.lo - NAME(lf_product_error)(x, y, xy)) + NAME(lf_product_error)(h, h, v);
    return (VG){.v = v, .c = NAME(lf_finite)(c), .gx = -2 * (h * y), .gy = -2 * NAME(lf_times)(h, x), .hx = m.hi < 0 ? 0 : 2 * y * y};
}

/* Hinge embedding.  v = x for y = 1, max(0, margin - x) for y = -1; as torch, both are added for any other y. */
LOSS(hinge_embedding)
{
    NAME(LfPair) m = NAME(lf_minus)(p[0], x);
    VG apart = NAME(lf_hinge)(m.hi, m.lo + p[LF_PARAMS]);
    T v = (y == 1 ? 0 : apart.v) + (y == -1 ? 0 : x);
    return (VG){.v = y == y ? v : y, .c = y == -1 ? apart.c : 0, .gx = (y == -1 ? 0 : R(1.0)) - (y == 1 ? 0 : m.hi < 0 ? 0 : R(1.0))};
}

/* Margin ranking, x and y the inputs, z = +-1 the target.  v = max(0, m), m = margin - z d, d = x - y;  gx = -z, gz = -d where m >= 0. */
LOSS(margin_ranking)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T zd = z * d.hi;
    NAME(LfPair) m = NAME(lf_minus)(p[0], zd);
    VG r = NAME(lf_hinge)(m.hi, (m.lo + p[LF_PARAMS]) - (z * d.lo + NAME(lf_product_error)(z, d.hi, zd)));
    r.gx = m.hi < 0 ? 0 : -z, r.gy = -r.gx, r.gz = m.hi < 0 ? 0 : -d.hi;
    return r;
}

/* ---- logistic ----------------------------------------------------------------------------------------------------------------------- */

/* Soft margin, y = +-1.  v = log(1 + exp(u)), u = -x y;  gx = -y s, gy = -x s, hx = y^2 s (1 - s), s = 1/(1 + exp(-u)).   1.11 ulp; of a y that is not
 * +-1 |u|/2 ulp more for u < 0, where x y is rounded. */
LOSS(soft_margin)
{
    T u = -x * y, e = given ? f_a : NAME(lf_exp_neg)(-ABS(u)), large = R(1.0) / (R(1.0) + e), small = e * large, s = u < 0 ? small : large;
    return (VG){.v = NAME(lf_softplus)(u),
                .a = NAME(lf_negative)(u),
                .s = NAME(lf_most)(u, 0),
                .t = f_a,
                .quick = LF_QUICK | LF_PRODUCT | LF_EXP_A,
                .gx = -y * s,
                .gy = NAME(lf_times)(s, -x),
                .hx = y * y * (large * small)};
}

/* Binary cross entropy of probabilities.  A = max(log x, -100), B = max(log(1 - x), -100):
 *   v  = -(y A + (1 - y) B)
 *   gx = (x - y) / (x (1 - x))         the derivative of v where neither logarithm is clamped: torch's for x (1 - x) >= 1e-12, and on where
 *                                      torch stops following it.  Where one is clamped (x = 0 or 1, x < 3.8e-44): torch's (x - y) / 1e-12.
 *   gy = B - A,   hx = y/x^2 + (1 - y)/(1 - x)^2
 * 1.59 ulp at x = 0.6377, y = 0.9203; with FMA 1.19 at x = 0.2998, y = 0.0251.  x or y outside [0, 1] is bad. */
LOSS(bce)
{
    T k = R(1.0) - y, n = R(1.0) - x;
    NAME(LfPair) a = NAME(lf_log_unit)(x), b = NAME(lf_log_complement)(x);
    T w = n == 0 ? R(1e-12) : x * n, ux = R(1.0) / x, un = R(1.0) / n;
    w = x < R(3.720075976020836e-44) ? R(1e-12) : w; /* exp(-100) */
    a.lo = a.hi < -100 ? 0 : a.lo, b.lo = n == 0 ? 0 : b.lo;
    T A = a.hi < -100 ? -100 : a.hi, B = n == 0 ? -100 : b.hi, kb = k * B;
    A += 0 * x; /* the NaN that logarithms of bits do not see */
    I bx = (x < 0) | (x > 1), by = (y < 0) | (y > 1);
    T c = y * a.lo + (k * b.lo + (((R(1.0) - k) - y) * B + NAME(lf_product_error)(k, B, kb)));
    T sa = NAME(lf_least)(-f_a, 100) + 0 * x, sb = NAME(lf_least)(((n - R(1.0)) + x) - f_b, 100);
    sa = given == LF_PAIRS ? f_a : sa, sb = given == LF_PAIRS ? f_b : sb;
    return (VG){.v = -y * A - kb,
                .c = -c,
                .a = x,
                .b = n,
                .s = y * sa + k * sb,
                .u = sa,
                .w = sb,
                .quick = LF_QUICK | LF_LOG_A | LF_LOG_B | LF_PAIRS,
                .gx = (x - y) / w,
                .gy = B - A,
                .hx = NAME(lf_times)(y, ux * ux) + NAME(lf_times)(k, un * un),
                .bad = NAME(lf_bad)(bx, by),
                .doubt = (I)((given == LF_PAIRS ? BITS(sa) : BITS(x) | BITS(n)) | BITS(y) | BITS(k))};
}

/* Binary cross entropy with logits.  w = pos_weight, m = w y, k = 1 - y, a = |x|, L = log(1 + exp(-a)), s = 1/(1 + exp(-x)), t = 1 - s:
 *   v  = m softplus(-x) + k softplus(x) = (m + k) L + (x < 0 ? m : k) a      terms of one sign for 0 <= y <= 1, w >= 0
 *   gx = k s - m t,   hx = (m + k) s t
 *   gy = w softplus(-x) - softplus(x),   gz = y softplus(-x)
 * At x = +-inf the limits: a factor 0 makes the infinite term 0.   Without weights m + k is 1 exactly.  v and the derivatives come from one
 * plain exp, whose subnormal results are 0; they are in c.
 * v + c: 1.87 ulp at x = 0.01948, y = 0, with FMA 1.57; with weights 2.31 and 1.94 for normal L; v: 2.4 and 3.8. */
static inline VG NAME(lf_bce_logits)(T x, T y, T w, T f_a, int given, int weighted)
{
    T k = R(1.0) - y, klo = (R(1.0) - k) - y, m = w * y, mlo = NAME(lf_product_error)(w, y, m);
    NAME(LfPair) mk = NAME(lf_minus)(m, -k);
    T total = weighted ? mk.hi : 1, totallo = weighted ? mk.lo + mlo + klo : 0;
    T a = ABS(x), f = x < 0 ? m : k, flo = x < 0 ? mlo : klo;
    NAME(LfPair) e = NAME(lf_exp_neg_pair)(-a), l = NAME(lf_log1p_quick)(e);
    T tl = total * l.hi, fa = f == 0 ? 0 : f * a;
    NAME(LfPair) v = NAME(lf_minus)(tl, -fa);
    T llo = total * (l.lo) + totallo * l.hi;
    T c = v.lo + (NAME(lf_product_error)(total, l.hi, tl) + NAME(lf_product_error)(f, a, fa) + llo + flo * a);
    T power = given ? f_a : e.hi, large = R(1.0) / (R(1.0) + power), small = power * large, s = x < 0 ? small : large, t = x < 0 ? large : small;
    T xy = x * y;
    return (VG){.v = v.hi,
                .c = NAME(lf_finite)(c),
                .a = NAME(lf_negative)(x),
                .s = NAME(lf_most)(x, 0) - xy - NAME(lf_unfused)(x, y, xy),
                .t = f_a,
                .quick = weighted ? 0 : LF_QUICK | LF_PRODUCT | LF_EXP_A,
                .gx = k * s - m * t,
                .gy = (w - R(1.0)) * l.hi + (x < 0 ? NAME(lf_times)(w, a) : -a),
                .gz = NAME(lf_times)(y, x < 0 ? l.hi + a : l.hi),
                .hx = total * (s * t)};
}

LOSS(bce_logits) { return NAME(lf_bce_logits)(x, y, 1, f_a, given, 0); }

LOSS(bce_logits_pos_weight) { return NAME(lf_bce_logits)(x, y, z, f_a, given, 1); }

/* The sign of x^gamma for x < 0: NaN unless gamma is whole. */
static inline T NAME(lf_power_sign)(T gamma)
{
    T g = gamma < 0x1p22 ? gamma : 0, half = R(0.5) * g, even = (half + T_MAGIC) - T_MAGIC == half ? 1 : -1;
    return (g + T_MAGIC) - T_MAGIC == g ? even : T_NAN;
}

/* Sigmoid focal loss, Lin et al. 2017, as torchvision.  alpha, gamma; k = 1 - y, s = 1/(1 + exp(-x)), t = 1 - s:
 *   c  = y softplus(-x) + k softplus(x)      (cross entropy),   q = k s + y t      (1 - p_t)
 *   A  = alpha y + (1 - alpha) k, or y + k for alpha < 0
 *   v  = A q^gamma c
 * with r = q'/q = (k - y) s t / q,  c' = k s - y t,  c'' = (k + y) s t,  q'' = (k - y) s t (t - s):
 *   gx = A q^gamma (gamma r c + c')
 *   hx = A q^gamma (gamma c ((gamma - 1) r^2 + r (t - s)) + 2 gamma r c' + c'')
 *   gy = q^gamma (A' c + A (gamma c (t - s)/q - x))
 * q is kept from 0 in the denominators only: it underflows where c does. y outside [0, 1] gives q < 0 for some x, where q^gamma is a number for whole
 * gamma only.
 * 1.74 ulp at x = -0.0293, y = 0, gamma = 2; hx may cancel. square: gamma is 2, and takes no power and no quotient. */
static inline VG NAME(lf_sigmoid_focal)(T x, T y, const T *p, int square)
{
    NAME(LfPair) other = NAME(lf_less)(1, p, 0);
    T gamma = square ? 2 : p[1], one = p[0] < 0 ? 1 : p[0], onelo = p[0] < 0 ? 0 : p[LF_PARAMS], zero = p[0] < 0 ? 1 : other.hi,
      zerolo = p[0] < 0 ? 0 : other.lo;
    VG ce = NAME(lf_bce_logits)(x, y, 1, 0, 0, 0);
    NAME(LfLogistic) l = NAME(lf_logistic)(x);
    T k = R(1.0) - y, klo = (R(1.0) - k) - y, ks = k * l.s, yt = y * l.t, st = l.s * l.t, ts = l.t - l.s;
    NAME(LfPair) q = NAME(lf_minus)(ks, -yt);
    T qlo = q.lo + (k * l.slo + y * l.tlo + NAME(lf_product_error)(k, l.s, ks) + NAME(lf_product_error)(y, l.t, yt) + klo * l.s);
    T oy = one * y, zk = zero * k;
    NAME(LfPair) weight = NAME(lf_minus)(oy, -zk);
    T weightlo = weight.lo + (NAME(lf_product_error)(one, y, oy) + NAME(lf_product_error)(zero, k, zk) + onelo * y + zerolo * k + zero * klo);
    T size = ABS(q.hi), sign = square || q.hi >= 0 ? 1 : NAME(lf_power_sign)(gamma), plain = square ? 0 : NAME(lf_pow)(size, gamma);
    T power = square ? q.hi * q.hi : sign * plain, u = weight.hi * power, v = NAME(lf_times)(u, ce.v);
    T slope = (k - y) * st, inverse = R(1.0) / (size < T_MIN ? T_MIN : q.hi), r = slope * inverse;
    T rest = square ? NAME(lf_product_error)(q.hi, q.hi, power) : sign * NAME(lf_pow_rest)(size, gamma, p[LF_PARAMS + 1], plain);
    T powerlo = rest + (square ? 2 * qlo * q.hi : gamma * qlo * inverse * power);
    T ulo = weight.hi * powerlo + (NAME(lf_product_error)(weight.hi, power, u) + weightlo * power);
    T c = ulo * ce.v + (u * ce.c + NAME(lf_product_error)(u, ce.v, v));
    T change = NAME(lf_times)(gamma * (square ? slope : r), ce.v);
    T h = change * ((gamma - R(1.0)) * r + ts) + (2 * gamma * r * ce.gx + ce.hx),
      h2 = change * (slope + q.hi * ts) + q.hi * (4 * slope * ce.gx + q.hi * ce.hx);
    T hy = (one - zero) * ce.v + weight.hi * (gamma * ce.v * ts * inverse - x),
      hy2 = (one - zero) * q.hi * ce.v + weight.hi * (2 * ce.v * ts - q.hi * x);
    return (VG){.v = v,
                .c = NAME(lf_finite)(c),
                .gx = square ? weight.hi * q.hi * (change + q.hi * ce.gx) : u * (change + ce.gx),
                .gy = power == 0 ? 0
                      : square   ? q.hi * hy2
                                 : power * hy,
                .hx = square ? weight.hi * h2 : u * h};
}

LOSS(sigmoid_focal) { return NAME(lf_sigmoid_focal)(x, y, p, 0); }

LOSS(sigmoid_focal_2) { return NAME(lf_sigmoid_focal)(x, y, p, 1); }

/* ---- divergences -------------------------------------------------------------------------------------------------------------------- */

/* Kullback-Leibler, x = log-probability, y = probability.  v = y (log y - x);  gx = -y,  gy = log y - x + 1.
 * y = 0 gives 0 even for x = -inf (and gy = 0 there, -inf for finite x); y < 0 gives NaN.
 * 2.9 ulp at x = -0.283, y = 0.768 while |log y - x| > |log y|/16: log y is known to 2^-29. */
LOSS(kl_div)
{
    T l = NAME(lf_log_positive)(y).hi;
    l = y < 0 ? T_NAN : l;
    l = y < T_INF ? l : y;
    NAME(LfPair) d = NAME(lf_minus)(l, x);
    T v = y * d.hi, c = y * (d.lo + NAME(lf_log_rest)(y, l)) + NAME(lf_product_error)(y, d.hi, v), none = x == x ? 0 : x;
    return (VG){.v = y == 0 ? none : v,
                .c = NAME(lf_finite)(c),
                .a = NAME(lf_raised)(y, REAL((U)1)),
                .s = y * (f_a - x),
                .quick = LF_QUICK | LF_LOG_A,
                .gx = -y,
                .gy = y == 0 ? (x == -T_INF ? 0 : -T_INF + none) : d.hi + R(1.0)};
}

/* The same with y = log-probability.  v = e (y - x), e = exp(y);  gx = -e,  gy = e (y - x + 1).
 * y = -inf gives 0 even for x = -inf.   0.73 ulp. */
LOSS(kl_div_log)
{
    T e = NAME(lf_exp)(y);
    NAME(LfPair) d = NAME(lf_minus)(y, x);
    I none = (y == -T_INF) & (x == x), never = (d.hi == T_INF); /* never: also where e underflows */
    T v = e * d.hi, c = e * d.lo + (d.hi * NAME(lf_exp_rest)(y, e) + NAME(lf_product_error)(e, d.hi, v));
    return (VG){.v = none ? 0 : never ? T_INF : v, .c = NAME(lf_finite)(c), .gx = -e, .gy = none ? 0 : never ? T_INF : e * (d.hi + R(1.0))};
}

/* (f(u) - u^2)/u^4 in z = u^2, 0 <= u <= 1/2, where f(u) = (1 + u) log(1 + u) + (1 - u) log(1 - u) = u^2 + u^4/6 + u^6/15 + ...;
 * relative error of f 2^-28 (float), 2^-57. */
static inline T NAME(lf_js_core)(T z)
{
#ifdef LF_T_FLOAT
    T q = 0.02049374011f;
    q = q * z + 0.0121325552f;
    q = q * z + 0.02263642426f;
    q = q * z + 0.03568928108f;
    q = q * z + 0.06666721027f;
    q = q * z + 0.1666666648f;
#else
    T q = 0.01255562606426750114;
    q = q * z + -0.006034086786688837803;
    q = q * z + 0.007925018150853354558;
    q = q * z + 0.003080812072903745567;
    q = q * z + 0.005501691737600029203;
    q = q * z + 0.006505108587431874427;
    q = q * z + 0.008336036141689670355;
    q = q * z + 0.01098885333530951804;
    q = q * z + 0.01515152102418965725;
    q = q * z + 0.0222222220925550342;
    q = q * z + 0.03571428571576827047;
    q = q * z + 0.06666666666666002615;
    q = q * z + 0.1666666666666666716;
#endif
    return q;
}

/* Jensen-Shannon, x and y probabilities (Lin 1991).  s = x + y, u = |x - y|/s, M = max, n = min:
 *   v  = (x log(2x/s) + y log(2y/s)) / 2 = s f(u)/4                  gx = log(2x/s)/2,   gy = log(2y/s)/2,   hx = y/(2 x s)
 * for u < 1/2 from f's series, t = (x - y)^2/s: (t + t u^2 (...))/4.  0 for x = y, also 0 = 0; (x + y)/2 log 2 where one is 0; negative x
 * or y: NaN.   0.86 ulp.  v(kx, ky) = k v(x, y): probabilities whose 1/s would overflow are scaled up. */
LOSS(js_div)
{
    I tiny = (x < y ? y : x) < T_TINY;
    T k = tiny ? 1 / T_TINY : 1, back = tiny ? T_TINY : 1;
    x *= k, y *= k;
    NAME(LfPair) d = NAME(lf_minus)(x, y), s = NAME(lf_minus)(x, -y);
    T large = x < y ? y : x, small = x < y ? x : y, r = R(1.0) / s.hi, q = d.hi * r;
    NAME(LfPair) t = NAME(lf_square_over)(1, d, s, q);
    T u = ABS(q), z2 = u * u, more = t.hi * (z2 * NAME(lf_js_core)(z2)), near = t.hi + more, nearlo = ((t.hi - near) + more) + t.lo;
    T a = 2 * large * r, b = 2 * small * r, la = NAME(lf_log)(a), lb = NAME(lf_log)(b), as = a * s.hi, bs = b * s.hi;
    T va = large * la, vb = b == 0 ? 0 : small * lb; /* 0 log 0, also where small/s underflows */
    NAME(LfPair) far = NAME(lf_minus)(va, -vb);
    /* log(2 large/s) - log(a) = arest/(2 large), likewise for small */
    T arest = ((2 * large - as) - NAME(lf_product_error)(a, s.hi, as)) - a * s.lo;
    T brest = ((2 * small - bs) - NAME(lf_product_error)(b, s.hi, bs)) - b * s.lo;
    T farlo = far.lo + (large * NAME(lf_log_rest)(a, la) + NAME(lf_product_error)(large, la, va)) + (arest + brest) / 2 +
              (small * NAME(lf_log_rest)(b, lb) + NAME(lf_product_error)(small, lb, vb));
    I close = u < R(0.5), none = (x == 0) & (y == 0);
    T up = NAME(lf_log1p)(u), down = close ? NAME(lf_log1p)(-u) : lb;
    up = none ? 0 : up, down = none ? 0 : down;
    return (VG){.v = back * (none    ? 0
                             : close ? near / 4
                                     : far.hi / 2),
                .c = back * NAME(lf_finite)(close ? nearlo / 4 : farlo / 2),
                .gx = (x < y ? down : up) / 2,
                .gy = (x < y ? up : down) / 2,
                .hx = none ? 0 : k * (y * r / (2 * x))};
}

/* What lf_loss_js_div_log's v lacks, in float; c = 0 in double.  With h = D/2 and G = exp((x + y)/2) it is G (h sinh h - cosh h log cosh h), for
 * h < 0.55 from the series h^2/2 (1 + h^4 Q(h^2)), relative error 2^-33; beyond, the terms as pairs. */
static inline T NAME(lf_js_log_rest)(T x, T y, I close, T v, T large, T small)
{
#ifdef LF_T_FLOAT
    NAME(LfPair) d = NAME(lf_minus)(x < y ? y : x, x < y ? x : y), middle = NAME(lf_minus)(x, -y), t = NAME(lf_exp_pair)(d.hi);
    T h = d.hi / 2, zz = h * h, q = -0.00016553576f;
    q = q * zz + 0.00072241464f;
    q = q * zz + -0.002776714f;
    q = q * zz + 0.013888849f;
    T half = zz / 2, more = half * (zz * zz * q), g = half + more;
    T glo = ((half - g) + more) + (NAME(lf_product_error)(h, h, zz) / 2 + h * d.lo / 2);
    T e = NAME(lf_exp)(middle.hi / 2), near = e * g;
    T nearlo = NAME(lf_product_error)(e, g, near) + (g * (NAME(lf_exp_rest)(middle.hi / 2, e) + e * middle.lo / 2) + e * glo);

    T w = R(1.0) + t.hi, wlo = ((R(1.0) - w) + t.hi) + (t.lo - t.hi * d.lo);
    NAME(LfPair) log = NAME(lf_log_pair)(w), l = NAME(lf_minus)(T_LN2_HI, log.hi), m = NAME(lf_minus)(l.hi, d.hi);
    T llo = l.lo + (T_LN2_LO - log.lo - wlo / w), mlo = m.lo + llo - d.lo, up = large * l.hi, down = small * m.hi;
    T uplo = NAME(lf_product_error)(large, l.hi, up) + (large * llo + l.hi * NAME(lf_exp_rest)(x < y ? y : x, large));
    T downlo = NAME(lf_product_error)(small, m.hi, down) + (small * mlo + m.hi * NAME(lf_exp_rest)(x < y ? x : y, small));
    NAME(LfPair) far = NAME(lf_minus)(up, -down);
    return NAME(lf_finite)(close ? (near - v) + nearlo : (far.hi / 2 - v) + (far.lo + uplo + downlo) / 2);
#else
    return 0;
#endif
}

/* Jensen-Shannon, x and y log-probabilities.  D = |x - y|, m = exp(-D) - 1, u = -m/(2 + m), M = max, L = log 2 - log(1 + exp(-D)):
 *   v  = exp(M) m^2/(2 + m) (1 + u^2 (...))/4 for u < 1/2,  (exp(M) L + exp(n) (L - D))/2 beyond
 *   gx = exp(x) log(1 +- u)/2,   hx = gx + exp(n)/(2 + m)/2
 * 1.4 ulp at x = -0.0775, y = x + 2^-19; v alone 7.3 at x = -0.233, y = -0.098. */
LOSS(js_div_log)
{
    T d = x == y ? 0 : ABS(x - y), m = NAME(lf_expm1)(-d), u = -m / (R(2.0) + m), z2 = u * u;
    T large = NAME(lf_exp)(x < y ? y : x), small = NAME(lf_exp)(x < y ? x : y);
    T l = (T_LN2_HI - NAME(lf_log1pexpneg)(d)) + T_LN2_LO;
    T near = large * (-m * u) * (R(1.0) + z2 * NAME(lf_js_core)(z2)) / 4;
    T far = (large * l + NAME(lf_times)(small, l - d)) / 2;
    I close = u < R(0.5);
    T up = large * NAME(lf_log1p)(u) / 2, down = NAME(lf_times)(small, close ? NAME(lf_log1p)(-u) : l - d) / 2;
    T v = close ? near : far, gx = x < y ? down : up;
    return (VG){
        .v = v, .c = NAME(lf_js_log_rest)(x, y, close, v, large, small), .gx = gx, .gy = x < y ? up : down, .hx = gx + small / (R(2.0) + m) / 2};
}

/* ---- likelihoods -------------------------------------------------------------------------------------------------------------------- */

#ifdef LF_T_FLOAT
#define LOG2PI_HI 0x1.d67f1cp+0f
#define LOG2PI_LO 0x1.0c97d6p-25f
#else
#define LOG2PI_HI 0x1.d67f1c864beb5p+0
#define LOG2PI_LO -0x1.65b5a1b7ff5dfp-54
#endif

/* Gaussian, z = var.  s = max(z, eps), d = x - y, q = d/s:
 *   v  = (log s + d^2/s)/2 + full log(2 pi)/2
 *   gx = q,  gz = (1 - d^2/s)/(2s)       the clamp passes the gradient, as torch's,   hx = 1/s
 * z = inf gives inf; z < 0 is bad.   1.75 ulp while |v| > |log s|/16: log s < 0 may cancel d^2/s, and is known to 2^-29.
 * A sum multiplies two s, which is exact but for what it makes up for while the product is normal: of a smaller eps it takes v. */
LOSS(gaussian_nll)
{
    T eps = p[1], s = z < eps ? eps : z, l = NAME(lf_log_positive)(s).hi;
    l = s == 0 ? -T_INF : l;
    l = s < T_INF ? l : s;
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T q = d.hi / s; /* and not by 1/s, which may overflow */
    NAME(LfPair) t = NAME(lf_square_over)(R(0.5), d, (NAME(LfPair)){s, 0}, q);
    NAME(LfPair) sum = NAME(lf_minus)(l / 2, -t.hi), all = NAME(lf_minus)(sum.hi, -p[0] * (LOG2PI_HI / 2));
    T c = all.lo + (sum.lo + (t.lo + (NAME(lf_log_rest)(s, l) + p[0] * LOG2PI_LO) / 2));
    return (VG){.v = all.hi,
                .c = NAME(lf_finite)(c),
                .a = NAME(lf_raised)(z, eps),
                .b = d.hi * d.hi,
                .s = R(0.5) * (f_a + f_b) + (eps < R(0x1p-62) ? T_NAN : p[0] * (LOG2PI_HI / 2)),
                .quick = LF_QUICK | LF_LOG_A | LF_RATIO,
                .gx = q,
                .gy = -q,
                .gz = (R(0.5) - t.hi) / s,
                .hx = R(1.0) / s,
                .bad = -(I)(z < 0) & 3,
                .doubt = (I)BITS(z)};
}

/* Stirling's y log y - y + log(2 pi y)/2 for log(y!), where y > 1, else 0: value, error and derivative. */
static inline VG NAME(lf_stirling)(T y)
{
    T l = NAME(lf_log)(y), h = y + R(0.5), hl = h * l, hlo = (y - h) + R(0.5); /* hlo: all of 1/2 for y beyond 2^23, or 2^52 */
    NAME(LfPair) b = NAME(lf_minus)(y, LOG2PI_HI / 2 + hlo * l), v = NAME(lf_minus)(hl, b.hi);
    T c = v.lo + (h * NAME(lf_log_rest)(y, l) + NAME(lf_product_error)(h, l, hl) - b.lo + LOG2PI_LO / 2);
    I on = y > 1;
    return (VG){.v = on ? v.hi : 0 * y, .c = on ? c : 0, .gy = on ? l + R(0.5) / y : 0};
}

static inline VG NAME(lf_add_stirling)(VG r, T y)
{
    VG s = NAME(lf_stirling)(y);
    NAME(LfPair) v = NAME(lf_minus)(r.v, -s.v);
    r.v = v.hi, r.s += s.v, r.c = NAME(lf_finite)(r.c + (s.c + v.lo)), r.gy += s.gy;
    return r;
}

/* Poisson, x the rate.  s = x + eps, l = log s:  v = x - y l,  gx = 1 - y/s,  gy = -l,  hx = y/s^2.
 * y = 0 gives x; x < -eps NaN.  3.5 ulp while |v| > |y l|/16: the terms may cancel, and l is known to 2^-29.
 * full adds Stirling's log y! where y > 1: 0.72 ulp, no cancellation. */
static inline VG NAME(lf_poisson)(T x, T y, T eps)
{
    NAME(LfPair) s = NAME(lf_minus)(x, -eps);
    T l = NAME(lf_log)(s.hi), r = y == 0 ? 0 : y / s.hi, yl = x > T_MAX ? 0 : NAME(lf_times)(y, l);
    NAME(LfPair) d = NAME(lf_minus)(x, yl);
    T c = d.lo - (NAME(lf_product_error)(y, l, yl) + y * (NAME(lf_log_rest)(s.hi, l) + s.lo / s.hi));
    return (VG){.v = d.hi, .c = NAME(lf_finite)(c), .gx = R(1.0) - r, .gy = -l, .hx = y == 0 ? 0 : r / s.hi};
}

/* Poisson, x the logarithm of the rate.  e = exp(x):  v = e - y x,  gx = e - y,  gy = -x,  hx = e.
 * e = inf wins over y x, unless y is inf; y = 0 gives e.  2.6 ulp while |v| > e/16: the terms may cancel, and e is known to 2^-28; full: 1.3 ulp. */
static inline VG NAME(lf_poisson_log)(T x, T y)
{
    T e = NAME(lf_exp_quick)(x), top = NAME(lf_exp_finite)(x), yx = y == 0 ? 0 : y * top;
    NAME(LfPair) d = NAME(lf_minus)(e, yx);
    T c = d.lo + (NAME(lf_exp_rest)(x, e) - NAME(lf_product_error)(y, top, yx));
    return (VG){.v = d.hi, .c = NAME(lf_finite)(c), .s = NAME(lf_exp_sum)(x) - y * x, .quick = LF_QUICK, .gx = e - y, .gy = -x, .hx = e};
}

LOSS(poisson_nll) { return NAME(lf_poisson)(x, y, p[0]); }

LOSS(poisson_nll_full) { return NAME(lf_add_stirling)(NAME(lf_poisson)(x, y, p[0]), y); }

LOSS(poisson_nll_log) { return NAME(lf_poisson_log)(x, y); }

LOSS(poisson_nll_log_full) { return NAME(lf_add_stirling)(NAME(lf_poisson_log)(x, y), y); }

/* Gamma, x the logarithm of the mean: scikit-learn's HalfGammaLoss, LightGBM's and XGBoost's gamma objective, constants dropped.
 * t = y exp(-x):  v = x + t,  gx = 1 - t,  gy = exp(-x),  hx = t.   t = inf wins over x = -inf.  y < 0 is bad.
 * 2 ulp while |v| > |x|/16: for x < 0 the terms may cancel, and t is known to 2^-28. */
LOSS(gamma_nll_log)
{
    T e = NAME(lf_exp)(-x), t = NAME(lf_exp_times)(y, -x);
    NAME(LfPair) d = NAME(lf_minus)(t > T_MAX ? 0 : x, -t), exact = NAME(lf_exp_pair)(x);
    T c = d.lo + (y * exact.lo + NAME(lf_product_error)(y, exact.hi, t));
    return (VG){.v = d.hi, .c = NAME(lf_finite)(c), .gx = R(1.0) - t, .gy = e, .hx = t, .bad = NAME(lf_bad)(0, y < 0), .doubt = (I)BITS(y)};
}

/* y exp(k x), k a pair, with its error; what the product's rounding drops is in hi too. */
static inline NAME(LfPair) NAME(lf_exp_product)(T y, NAME(LfPair) k, T x)
{
    T u = k.hi * x, t = NAME(lf_exp_times)(y, u), lo = NAME(lf_finite)(t * (NAME(lf_product_error)(k.hi, x, u) + k.lo * x)), hi = t + lo;
    NAME(LfPair) exact = NAME(lf_exp_pair)(-u);
    T rest = exact.hi < T_MIN ? 0 : y * exact.lo + NAME(lf_product_error)(y, exact.hi, t);
    return (NAME(LfPair)){hi, (t - hi) + lo + NAME(lf_finite)(rest)};
}

/* a/b - q, q = a/b rounded */
static inline T NAME(lf_quotient_error)(T a, T b, T q)
{
    T qb = q * b;
    return ((a - qb) - NAME(lf_product_error)(q, b, qb)) / b;
}

/* Tweedie, x the logarithm of the mean: scikit-learn's HalfTweedieLoss, LightGBM's and XGBoost's tweedie objective, constants dropped.
 * power p, not 1 or 2; A = exp((1 - p) x), B = exp((2 - p) x):
 *   v  = B/(2 - p) - y A/(1 - p),  gx = B - y A,  gy = -A/(1 - p),  hx = (2 - p) B - (1 - p) y A
 * One sign for 1 < p < 2, y >= 0: 0.67 ulp.  Elsewhere the terms, known to 2^-28, may cancel.  y < 0 is bad for p > 0. */
LOSS(tweedie_nll_log)
{
    NAME(LfPair) p1 = NAME(lf_less)(1, p, 0), p2 = NAME(lf_less)(2, p, 0);
    NAME(LfPair) ya = NAME(lf_exp_product)(y, p1, x), b = NAME(lf_exp_product)(1, p2, x);
    T order = NAME(lf_exponent)(NAME(lf_split)(ABS(y))) * T_LN2_HI; /* of log y, within 0.4: where both terms overflow the larger one wins */
    I larger = (x > order) & (ABS(y) <= T_MAX);
    ya.hi = (b.hi > T_MAX) & larger ? 0 : ya.hi;
    b.hi = (ABS(ya.hi) > T_MAX) & !larger ? 0 : b.hi;
    T va = ya.hi / p1.hi, vb = b.hi / p2.hi;
    NAME(LfPair) v = NAME(lf_minus)(vb, va);
    T alo = NAME(lf_quotient_error)(ya.hi, p1.hi, va) + (ya.lo - va * p1.lo) / p1.hi;
    T c = v.lo + (NAME(lf_quotient_error)(b.hi, p2.hi, vb) + (b.lo - vb * p2.lo) / p2.hi - alo);
    return (VG){.v = v.hi,
                .c = NAME(lf_finite)(c),
                .gx = b.hi - ya.hi,
                .gy = -NAME(lf_exp_product)(1, p1, x).hi / p1.hi,
                .hx = p2.hi * b.hi - p1.hi * ya.hi,
                .bad = NAME(lf_bad)(0, (p[0] > 0) & (y < 0)),
                .doubt = (I)BITS(y)};
}

/* (atanh(s)/s - 1)/s^2 in z = s^2 for |s| <= 1/3; relative error 2^-31 (float), 2^-58. */
static inline T NAME(lf_atanh_core)(T z)
{
#ifdef LF_T_FLOAT
    T q = 0.1039380843f;
    q = q * z + 0.08732351233f;
    q = q * z + 0.111323556f;
    q = q * z + 0.1428515286f;
    q = q * z + 0.2000000538f;
    q = q * z + 0.3333333333f;
#else
    T q = 0.07815288900461425223;
    q = q * z + 0.0374607189777538365;
    q = q * z + 0.05422589197440007411;
    q = q * z + 0.0586713953065159873;
    q = q * z + 0.06667589315724627918;
    q = q * z + 0.07692271982430274643;
    q = q * z + 0.09090909949981357191;
    q = q * z + 0.1111111109911838528;
    q = q * z + 0.1428571428580004965;
    q = q * z + 0.1999999999999976125;
    q = q * z + 0.3333333333333333344;
#endif
    return q;
}

/* x and y, not negative, times 2/scale, a power of two that brings a normal x to [1, 4); l + lo = log(y/x), and (y/x) drop what rounding takes
 * from y/x, for positive finite ones. */
typedef struct {
    T x, y, scale, l, lo, drop;
} NAME(LfRatio);

static inline NAME(LfRatio) NAME(lf_ratio)(T x, T y)
{
    const U field = BITS(T_INF);
    U u = BITS(x + T_MIN) & field, w = BITS(y + T_MIN) & field; /* of a subnormal number: T_MIN's */
    T k = REAL(field - u), X = x * k, Y = y * REAL(field - w), r = Y / X;
    U b = NAME(lf_split)(r);
    T e = NAME(lf_exponent)(b) + NAME(lf_exponent)(w - u), f = NAME(lf_fraction)(b), l = NAME(lf_log_sum)(e, f, 0);
    T drop = NAME(lf_quotient_error)(Y, X, r) / r;
    NAME(LfPair) exact = NAME(lf_log_exact)(e, f);
    return (NAME(LfRatio)){X, y * k, REAL(u), l, (exact.hi - l) + exact.lo + drop, drop};
}

/* log(y/x) at the ends too */
static inline T NAME(lf_ratio_log)(T x, T y, T l)
{
    T d = x - y;
    l = y == 0 ? -T_INF : l;
    return ABS(d) <= T_MAX ? l : -d;
}

/* d/x, d = x - y: 1 at x = inf */
static inline T NAME(lf_relative)(T d, T x) { return d > T_MAX ? 1 : d / x; }

/* Unit deviances, x the mean, as scikit-learn's mean_poisson_deviance, mean_gamma_deviance, mean_tweedie_deviance.
 * With d = x - y, s = d/(x + y), t = d^2/(x + y) and P = 1/3 + s^2/5 + s^4/7 + ..., log(x/y) = 2 (s + s^3 P), and for |s| <= 1/3 the
 * deviances are formed from t without cancellation, of x and y scaled so that nothing overflows. */

/* Poisson.  v = 2 (x - y + y log(y/x)) = 2 t (1 - s (1 - s) P);  gx = 2 d/x,  gy = 2 log(y/x),  hx = 2 y/x^2.   y = 0 gives 2x.
 * 1.4 ulp at x = 1.638, y = 3.065. */
LOSS(poisson_deviance)
{
    NAME(LfRatio) r = NAME(lf_ratio)(x, y);
    NAME(LfPair) D = NAME(lf_minus)(r.x, r.y), S = NAME(lf_minus)(r.x, -r.y), d = NAME(lf_minus)(x, y);
    T s = D.hi / S.hi, core = NAME(lf_atanh_core)(s * s);
    NAME(LfPair) t = NAME(lf_square_over)(1, D, S, s);
    T less = t.hi * (s * (R(1.0) - s) * core), near = t.hi - less, nearlo = ((t.hi - near) - less) + t.lo, yl = y * r.l;
    NAME(LfPair) far = NAME(lf_minus)(d.hi, -yl);
    T farlo = far.lo + d.lo + (y * r.lo + NAME(lf_product_error)(y, r.l, yl));
    I close = ABS(s) <= R(0.33), end = ABS(d.hi) > T_MAX;
    T v = close ? near * r.scale : 2 * far.hi;
    return (VG){.v = end ? T_INF : v,
                .c = NAME(lf_finite)(close ? nearlo * r.scale : 2 * farlo),
                .gx = 2 * NAME(lf_relative)(d.hi, x),
                .gy = close ? -4 * (s + s * (s * s * core)) : 2 * NAME(lf_ratio_log)(x, y, r.l),
                .hx = 2 * (y / x / x),
                .bad = NAME(lf_bad)(x <= 0, y < 0),
                .doubt = -NAME(lf_bad)(x <= 0, y < 0)};
}

/* Gamma.  r = y/x:  v = 2 (r - 1 - log r) = 2 t (1 + s (1 + s) P)/x;  gx = 2 d/x^2,  gy = -2 d/(x y),  hx = 2 (2r - 1)/x^2.
 * 1.13 ulp. */
LOSS(gamma_deviance)
{
    NAME(LfRatio) r = NAME(lf_ratio)(x, y);
    NAME(LfPair) D = NAME(lf_minus)(r.x, r.y), S = NAME(lf_minus)(r.x, -r.y);
    T s = D.hi / S.hi;
    NAME(LfPair) t = NAME(lf_square_over)(1, D, S, s);
    T more = t.hi * (s * (R(1.0) + s) * NAME(lf_atanh_core)(s * s)), sum = t.hi + more;
    I close = ABS(s) <= R(0.33);
    T q = (close ? sum : y) / (close ? r.x : x); /* one division for both */
    T nearlo = NAME(lf_quotient_error)(sum, r.x, q) + (((t.hi - sum) + more) + t.lo) / r.x;
    T l = x > T_MAX ? -T_INF : r.l, u = NAME(lf_relative)(x - y, x);
    NAME(LfPair) above = NAME(lf_minus)(q, 1), far = NAME(lf_minus)(above.hi, l);
    T farlo = far.lo + above.lo - r.lo + q * r.drop;
    return (VG){.v = 2 * (close ? q : far.hi),
                .c = NAME(lf_finite)(2 * (close ? nearlo : farlo)),
                .gx = 2 * (u / x),
                .gy = y > T_MAX ? 2 / x : -2 * (u / y),
                .hx = 2 * ((2 * (y / x) - 1) / x / x),
                .bad = NAME(lf_bad)(x <= 0, y <= 0),
                .doubt = -NAME(lf_bad)(x <= 0, y <= 0)};
}

/* Tweedie of power p, not 0, 1 or 2.  q = y/x, r = q - 1, a = x^(2-p), e_i = (q^(i-p) - 1)/(i-p) by expm1 of a multiple of log q:
 *   v  = 2 a (q e1 - e2),   gx = 2 a (1 - q)/x,   gy = 2 a e1/x,   hx = 2 a (1 + p r)/x^2
 * The terms cancel to a r^2 as y approaches x: for small r it is a r^2 times the binomial series' rest
 *   h = 1 + r (0-p)/3 (1 + r (-1-p)/4 (1 + r (-2-p)/5 (...))).
 * y < 0 is bad for p > 0, y = 0 for p >= 2.  x = inf gives inf for p < 2, NaN beyond.  In double, where what cancels before the series takes
 * over, 2/r, does not reach a float. */
LOSS(tweedie_deviance)
{
    const double X = x, Y = y, power = (double)p[0] + (double)p[LF_PARAMS], p1 = 1 - power, p2 = 2 - power, q = Y / X, r = (Y - X) / X;
    const double a = lf_pow_f64(X, p2), l = Y > 0 ? lf_log_f64(q) : Y <= 0 ? -INFINITY : Y;
    const double e1 = lf_expm1_f64(p1 * l) * (1 / p1), e2 = lf_expm1_f64(p2 * l) * (1 / p2), near = T_MANT == 23 ? 0x1p-7 : 0x1p-4;
    double h = 1;
    for (int k = T_MANT == 23 ? 6 : 15; k >= 3; k--)
        h = 1 + r * h * ((3.0 - k - power) * (1.0 / k));
    const double far = a * (lf_times_f64(q, e1) - e2), close = a * r * (r * h);
    const I bad = NAME(lf_bad)(x <= 0, ((p[0] > 0) & (y < 0)) | ((p[0] >= 2) & (y <= 0)));
    const double v = __builtin_fabs(r) < near ? close : 2 * far;
    return (VG){.v = (T)(Y - X == INFINITY || (X - Y == INFINITY && p2 > 0) ? INFINITY : v),
                .gx = (T)(-2 * a * r / X),
                .gy = (T)(2 * a * e1 / X),
                .hx = (T)(2 * a * (1 + power * r) / (X * X)),
                .bad = bad,
                .doubt = -bad};
}

/* Tweedie of power 3/2, which is algebraic.  h = (sqrt x + sqrt y)/2, t = d/(h sqrt x), d = x - y:
 *   v  = 4 (sqrt x - sqrt y)^2/sqrt x = t^2 sqrt x,   gx = 2 t h/x,   gy = -2 t/sqrt y,   hx = (3y - x)/x^2.5
 * v(kx, ky) = sqrt(k) v(x, y): a small x, whose h sqrt x may be subnormal, is scaled by k = f^2; a y that overflows then makes v do so, of any y.
 * 0.51 ulp. */
LOSS(tweedie_deviance_3_2)
{
    const T up = T_MANT == 23 ? R(0x1p20) : R(0x1p53);
    T f = x < 1 / (up * up * up * up * 64) ? up : 1, back = x < 1 / (up * up * up * up * 64) ? 1 / up : 1, X = x, Y = y;
    x *= f * f, y *= f * f;
    y = y > T_MAX ? T_MAX : y;
    T rx = SQRT(x), ry = SQRT(y), xx = rx * rx, yy = ry * ry;
    T rxlo = ((x - xx) - NAME(lf_product_error)(rx, rx, xx)) / (2 * rx), rylo = ((y - yy) - NAME(lf_product_error)(ry, ry, yy)) / (2 * ry);
    NAME(LfPair) d = NAME(lf_minus)(x, y), sum = NAME(lf_minus)(rx / 2, -ry / 2);
    T h = sum.hi, w = h * rx, t = d.hi / w, root = rx * back, u = t * root, v = t * u;
    T hlo = sum.lo + (rxlo + (y == 0 ? 0 : rylo)) / 2, wlo = NAME(lf_product_error)(h, rx, w) + (h * rxlo + hlo * rx);
    T tlo = NAME(lf_quotient_error)(d.hi, w, t) + (d.lo - t * wlo) / w;
    T ulo = NAME(lf_product_error)(t, root, u) + (t * (rxlo * back) + tlo * root);
    return (VG){.v = ABS(X - Y) > T_MAX ? T_INF : v,
                .c = NAME(lf_finite)(NAME(lf_product_error)(t, u, v) + (t * ulo + tlo * u)),
                .gx = 2 * t * (h * back) / X,
                .gy = -2 * t / (ry * back),
                .hx = (3 * Y - X) / X / X / root,
                .bad = NAME(lf_bad)(X <= 0, Y < 0),
                .doubt = -NAME(lf_bad)(X <= 0, Y < 0)};
}

#undef LOG2PI_HI
#undef LOG2PI_LO
