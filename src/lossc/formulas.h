/* The elementwise losses, one stanza each: value, gradients by every float argument and second derivative by the input.
 *
 * A. LOSS(name) is a function of one element: x, y, z are the arrays of losses.def, p its numbers.  Fields left out are 0, and a loop that
 *    does not use a field does not compute it: a stanza costs what its caller asks for.
 *      v   the loss           gx, gy, gz   its derivatives by x, y, z           hx   d2v/dx2
 *      c   what rounding dropped from v, to first order.  A sum takes v (within 3 ulp away from cancellation, as its terms' errors average
 *          out); an element that is itself the result is v + c, within 1 ulp unless the stanza says otherwise.
 *      bad 1, 2 or 3 where x, y or z lies outside the domain and the call must raise.  NaN never does.
 * B. Branch-free: ?: on computed values, no libm (vmath.h).  exp, log and division are shared between value and gradients.
 * C. NaN in x, y or z gives NaN in v.  Comparisons are turned so that NaN takes the arm that keeps it.
 * D. Sub-gradients are torch's: 0 at the kink of |d|, the active side's at the edge of a clamp or hinge.
 * E. Contraction: a product p that c looks at is an operand of lf_product_error and therefore not fused away. */

typedef struct { T v, c, gx, gy, gz, hx; I bad; } NAME(VG);
#define VG NAME(VG)
#define LOSS(name) static inline VG NAME(lf_loss_##name)(T x, T y, T z, const T *p)

/* x - y and what rounding took from it (Knuth; exact for all finite x, y, no order needed). */
static inline NAME(LfPair) NAME(lf_minus)(T x, T y)
{
    T d = x - y, b = d - x;
    return (NAME(LfPair)){ d, (x - (d - b)) - (y + b) };
}

/* A correction is used where it is finite: v = inf or NaN stands. */
static inline T NAME(lf_finite)(T c)
{
    return ABS(c) <= T_MAX ? c : 0;
}

/* c a with 0 inf = 0: the limit where a probability multiplies a logarithm.  0 NaN stays NaN. */
static inline T NAME(lf_times)(T c, T a)
{
    return (c == 0) & (a == a) ? 0 : c * a;
}

/* sign(d) s, which is 0 at 0 and NaN at NaN. */
static inline T NAME(lf_signed)(T d, T s)
{
    return d > 0 ? s : d < 0 ? -s : d;
}

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

/* s = 1 / (1 + exp(-x)) and t = 1 - s = 1 / (1 + exp(x)), both to 2 ulp, with one division. */
typedef struct { T s, t; } NAME(LfLogistic);

static inline NAME(LfLogistic) NAME(lf_logistic)(T x)
{
    NAME(LfPair) e = NAME(lf_exp_pair)(ABS(x));
    T d = R(1.0) + e.hi, dlo = (R(1.0) - d) + e.hi + e.lo;
    T q = R(1.0) / d, large = q - q * dlo * q, small = e.hi * large + e.lo * large;
    return (NAME(LfLogistic)){ x < 0 ? small : large, x < 0 ? large : small };
}

/* ---- functions of x ----------------------------------------------------------------------------------------------------------------- */

LOSS(sigmoid)                          /* gx = s (1 - s) */
{
    NAME(LfLogistic) l = NAME(lf_logistic)(x);
    return (VG){ .v = NAME(lf_sigmoid)(x), .gx = l.s * l.t };
}

LOSS(logsigmoid)                       /* gx = 1 - s */
{
    return (VG){ .v = NAME(lf_logsigmoid)(x), .gx = NAME(lf_logistic)(x).t };
}

LOSS(softplus)                         /* gx = s */
{
    return (VG){ .v = NAME(lf_softplus)(x), .gx = NAME(lf_logistic)(x).s };
}

LOSS(exp)
{
    T e = NAME(lf_exp)(x);
    return (VG){ .v = e, .gx = e };
}

LOSS(log)
{
    return (VG){ .v = NAME(lf_log)(x), .gx = R(1.0) / x };
}

LOSS(log1p)
{
    return (VG){ .v = NAME(lf_log1p)(x), .gx = R(1.0) / (R(1.0) + x) };
}

LOSS(expm1)
{
    return (VG){ .v = NAME(lf_expm1)(x), .gx = NAME(lf_exp)(x) };
}

LOSS(lgamma)                           /* value only */
{
    return (VG){ .v = NAME(lf_lgamma)(x) };
}

/* ---- of the difference d = x - y ---------------------------------------------------------------------------------------------------- */

/* Squared error.  v = d^2,  gx = 2 d,  hx = 2. */
LOSS(mse)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T v = d.hi * d.hi, g = d.hi + d.hi;
    T c = g * d.lo + NAME(lf_product_error)(d.hi, d.hi, v);
    return (VG){ .v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g, .hx = 2 };
}

/* Absolute error.  v = |d|,  gx = sign(d). */
LOSS(l1)
{
    T d = x - y, g = NAME(lf_signed)(d, 1);
    return (VG){ .v = ABS(d), .gx = g, .gy = -g };
}

/* Huber.  a = |d|, q = min(a, delta):
 *   v  = q (a - q/2)       d^2/2 inside, delta (a - delta/2) outside: one expression, no branch
 *   gx = q sign(d),  hx = 1 inside, 0 outside.   delta = inf is d^2/2: as T_MAX, so that a = inf gives inf and not inf - inf. */
LOSS(huber)
{
    T delta = p[0] < T_MAX ? p[0] : T_MAX;
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T a = ABS(d.hi), q = a > delta ? delta : a, half = q / 2, h = a - half;
    T v = q * h, g = COPYSIGN(q, d.hi);
    T c = g * d.lo + (q * ((a - h) - half) + NAME(lf_product_error)(q, h, v));
    return (VG){ .v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g, .hx = a <= delta };
}

/* Smooth L1, Huber over beta.  a = |d|, q = min(a, beta), s = q/beta:
 *   v  = s (a - q/2)       d^2/(2 beta) inside, a - beta/2 outside
 *   gx = s sign(d),  hx = 1/beta inside, 0 outside.   beta = 0: l1.  beta = inf: 0. */
LOSS(smooth_l1)
{
    T beta = p[0], inverse = R(1.0) / beta;
    inverse = inverse < T_MAX ? inverse : T_MAX;           /* beta subnormal: 0 inverse = 0 */
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T a = ABS(d.hi), q = a > beta ? beta : a, s = a >= beta ? 1 : a * inverse, half = q / 2, h = a - half;
    T v = s * h, g = NAME(lf_signed)(d.hi, s), sb = s * beta;
    T slo = ((q - sb) - NAME(lf_product_error)(s, beta, sb)) * inverse;   /* q/beta - s */
    T c = g * d.lo + (s * ((a - h) - half) + (h * slo + NAME(lf_product_error)(s, h, v)));
    return (VG){ .v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g, .hx = a < beta ? inverse : 0 };
}

/* Quantile (pinball) loss of level q: Koenker & Bassett 1978; scikit-learn's mean_pinball_loss.  v = -q d for d < 0, (1 - q) d else.
 *   gx = -q or 1 - q, 0 at d = 0. */
LOSS(quantile)
{
    T q = p[0], over = R(1.0) - q, overlo = (R(1.0) - over) - q;
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T w = d.hi < 0 ? -q : over, v = w * d.hi;
    T c = w * d.lo + ((d.hi < 0 ? 0 : d.hi * overlo) + NAME(lf_product_error)(w, d.hi, v));
    T g = d.hi > 0 ? over : d.hi < 0 ? -q : d.hi;
    return (VG){ .v = v, .c = NAME(lf_finite)(c), .gx = g, .gy = -g };
}

/* (log cosh a) / a^2 in z = a^2 for 0 <= z <= 1; relative error 2^-29 (float), 2^-59. */
static inline T NAME(lf_log_cosh_core)(T z)
{
#ifdef LF_T_FLOAT
    T q = -2.56173031e-5f;
    q = q * z + 0.0001761986267f;
    q = q * z + -0.0006794099122f;
    q = q * z + 0.002161291898f;
    q = q * z + -0.006739799482f;
    q = q * z + 0.02222146449f;
    q = q * z + -0.08333329776f;
    q = q * z + 0.4999999997f;
#else
    T q = -2.276419808272795403e-9;
    q = q * z + 2.42680513677003834e-8;
    q = q * z + -1.306815732543496471e-7;
    q = q * z + 4.924539882543482216e-7;
    q = q * z + -1.528184821287565487e-6;
    q = q * z + 4.331402571628952187e-6;
    q = q * z + -0.00001191868762352282947;
    q = q * z + 0.0000327648994165365514;
    q = q * z + -0.00009098560965553689762;
    q = q * z + 0.000256579759209489571;
    q = q * z + -0.0007386028466072546359;
    q = q * z + 0.002186948843058454661;
    q = q * z + -0.006746031745439466709;
    q = q * z + 0.02222222222220471474;
    q = q * z + -0.08333333333333312813;
    q = q * z + 0.4999999999999999996;
#endif
    return q;
}

/* Log-cosh, Keras' LogCosh.  a = |d|:
 *   v  = log cosh d = a - log 2 + log(1 + exp(-2a))       below a = 1 an even polynomial: no cancellation near 0, no overflow
 *   gx = tanh d = -m / (2 + m) sign(d), m = exp(-2a) - 1
 *   hx = 1 / cosh^2 d = (2 e / (1 + e^2))^2, e = exp(-a) */
LOSS(log_cosh)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T a = ABS(d.hi), aa = a * a, inner = aa * NAME(lf_log_cosh_core)(aa);
    T outer = (a - T_LN2_HI) + (NAME(lf_log1pexpneg)(a + a) - T_LN2_LO);
    T m = NAME(lf_expm1)(-(a + a)), g = COPYSIGN(-m / (R(2.0) + m), d.hi);
    T e = NAME(lf_exp)(-a), u = (e + e) / (R(1.0) + e * e);
    return (VG){ .v = a < 1 ? inner : outer, .c = NAME(lf_finite)(g * d.lo), .gx = g, .gy = -g, .hx = u * u };
}

/* ---- hinges, y = +-1 ---------------------------------------------------------------------------------------------------------------- */

/* max(0, m + lo) as v + c */
static inline VG NAME(lf_hinge)(T m, T lo)
{
    T v = m < 0 ? 0 : m, exact = m + NAME(lf_finite)(lo);
    return (VG){ .v = v, .c = NAME(lf_finite)((exact < 0 ? 0 : exact) - v) };
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

/* Squared hinge, likewise.  v = max(0, m)^2;  gx = -2 m y, gy = -2 m x, hx = 2 y^2 where m >= 0. */
LOSS(squared_hinge)
{
    T xy = x * y;
    NAME(LfPair) m = NAME(lf_minus)(1, xy);
    VG h = NAME(lf_hinge)(m.hi, m.lo - NAME(lf_product_error)(x, y, xy));
    T v = h.v * h.v, c = 2 * h.v * h.c + NAME(lf_product_error)(h.v, h.v, v);
    return (VG){ .v = v, .c = NAME(lf_finite)(c), .gx = -2 * h.v * y, .gy = -2 * h.v * x, .hx = m.hi < 0 ? 0 : 2 * y * y };
}

/* Hinge embedding.  v = x for y = 1, max(0, margin - x) for y = -1; as torch, both are added for any other y. */
LOSS(hinge_embedding)
{
    T m = p[0] - x, apart = m < 0 ? 0 : m;
    T v = (y == 1 ? 0 : apart) + (y == -1 ? 0 : x);
    return (VG){ .v = y == y ? v : y, .gx = (T)(y != -1) - (T)((y != 1) & !(m < 0)) };
}

/* Margin ranking, x and y the inputs, z = +-1 the target.  v = max(0, m), m = margin - z d, d = x - y;  gx = -z, gz = -d where m >= 0. */
LOSS(margin_ranking)
{
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T zd = z * d.hi;
    NAME(LfPair) m = NAME(lf_minus)(p[0], zd);
    VG r = NAME(lf_hinge)(m.hi, m.lo - (z * d.lo + NAME(lf_product_error)(z, d.hi, zd)));
    r.gx = m.hi < 0 ? 0 : -z, r.gy = -r.gx, r.gz = m.hi < 0 ? 0 : -d.hi;
    return r;
}

/* ---- logistic ----------------------------------------------------------------------------------------------------------------------- */

/* Soft margin, y = +-1.  v = log(1 + exp(u)), u = -x y;  gx = -y s, gy = -x s, hx = y^2 s (1 - s), s = 1/(1 + exp(-u)). */
LOSS(soft_margin)
{
    T u = -x * y;
    NAME(LfLogistic) l = NAME(lf_logistic)(u);
    return (VG){ .v = NAME(lf_softplus)(u), .gx = -y * l.s, .gy = -x * l.s, .hx = y * y * (l.s * l.t) };
}

/* Binary cross entropy of probabilities.  A = max(log x, -100), B = max(log(1 - x), -100):
 *   v  = -(y A + (1 - y) B)
 *   gx = (x - y) / (x (1 - x))         the derivative of v where neither logarithm is clamped.  It is torch's up to x (1 - x) = 1e-12, where
 *                                      torch stops following it; where one is clamped (x = 0 or 1, x < 3.8e-44) it is torch's (x - y) / 1e-12.
 *   gy = B - A,   hx = y/x^2 + (1 - y)/(1 - x)^2 */
LOSS(bce)
{
    T k = R(1.0) - y, n = R(1.0) - x, a = NAME(lf_log)(x), b = NAME(lf_log1p)(-x);
    I clamped = (a < -100) | (b < -100);
    a = a < -100 ? -100 : a, b = b < -100 ? -100 : b;
    T w = clamped ? R(1e-12) : x * n;
    T ux = R(1.0) / x, un = R(1.0) / n;
    I bx = (x < 0) | (x > 1), by = (y < 0) | (y > 1);
    return (VG){ .v = -(y * a + k * b), .gx = (x - y) / w, .gy = b - a,
                 .hx = NAME(lf_times)(y, ux * ux) + NAME(lf_times)(k, un * un), .bad = bx ? 1 : by ? 2 : 0 };
}

/* Binary cross entropy with logits.  w = pos_weight, m = w y, k = 1 - y, a = |x|, L = log(1 + exp(-a)), s = 1/(1 + exp(-x)), t = 1 - s:
 *   v  = m softplus(-x) + k softplus(x) = (m + k) L + (x < 0 ? m : k) a      terms of one sign for 0 <= y <= 1, w >= 0
 *   gx = k s - m t,   hx = (m + k) s t
 *   gy = w softplus(-x) - softplus(x),   gz = y softplus(-x)
 * At x = +-inf the limits: a factor 0 makes the infinite term 0.   total = m + k, exactly 1 without weights. */
static inline VG NAME(lf_bce_logits)(T x, T y, T w, T m, T total)
{
    T k = R(1.0) - y, a = ABS(x), l = NAME(lf_log1pexpneg)(a);
    NAME(LfLogistic) e = NAME(lf_logistic)(x);
    return (VG){ .v = total * l + NAME(lf_times)(x < 0 ? m : k, a),
                 .gx = k * e.s - m * e.t,
                 .gy = (w - R(1.0)) * l + (x < 0 ? NAME(lf_times)(w, a) : -a),
                 .gz = NAME(lf_times)(y, x < 0 ? l + a : l),
                 .hx = total * (e.s * e.t) };
}

LOSS(bce_logits)
{
    return NAME(lf_bce_logits)(x, y, 1, y, 1);
}

LOSS(bce_logits_pos_weight)
{
    return NAME(lf_bce_logits)(x, y, z, z * y, z * y + (R(1.0) - y));
}

/* Sigmoid focal loss, Lin et al. 2017, as torchvision.  alpha, gamma; k = 1 - y, s = 1/(1 + exp(-x)), t = 1 - s:
 *   c  = y softplus(-x) + k softplus(x)      (cross entropy),   q = k s + y t      (1 - p_t)
 *   A  = alpha y + (1 - alpha) k, or y + k for alpha < 0
 *   v  = A q^gamma c
 * with r = q'/q = (k - y) s t / q,  c' = k s - y t,  c'' = (k + y) s t,  q'' = (k - y) s t (t - s):
 *   gx = A q^gamma (gamma r c + c')
 *   hx = A q^gamma (gamma c ((gamma - 1) r^2 + r (t - s)) + 2 gamma r c' + c'')
 *   gy = q^gamma (A' c + A (gamma c (t - s)/q - x))
 * q is kept from 0 in the denominators only: it underflows where c does. */
LOSS(sigmoid_focal)
{
    T gamma = p[1], one = p[0] < 0 ? 1 : p[0], zero = p[0] < 0 ? 1 : R(1.0) - p[0];
    VG ce = NAME(lf_bce_logits)(x, y, 1, y, 1);
    NAME(LfLogistic) l = NAME(lf_logistic)(x);
    T k = R(1.0) - y, q = k * l.s + y * l.t, st = l.s * l.t, ts = l.t - l.s;
    T weight = one * y + zero * k, power = NAME(lf_pow)(q, gamma), u = weight * power;
    T inverse = R(1.0) / (q < T_MIN ? T_MIN : q), r = (k - y) * st * inverse;
    T h = gamma * ce.v * r * ((gamma - R(1.0)) * r + ts) + (2 * gamma * r * ce.gx + ce.hx);
    return (VG){ .v = NAME(lf_times)(u, ce.v),
                 .gx = u * (gamma * NAME(lf_times)(r, ce.v) + ce.gx),
                 .gy = power * ((one - zero) * ce.v + weight * (gamma * ce.v * ts * inverse - x)),
                 .hx = u * h };
}

/* ---- divergences -------------------------------------------------------------------------------------------------------------------- */

/* Kullback-Leibler, x = log-probability, y = probability.  v = y (log y - x);  gx = -y,  gy = log y - x + 1.
 * y = 0 gives 0 even for x = -inf (and gy = 0 there, -inf for finite x); y < 0 gives NaN. */
LOSS(kl_div)
{
    T l = NAME(lf_log)(y);
    NAME(LfPair) d = NAME(lf_minus)(l, x);
    T v = y * d.hi, c = y * (d.lo + NAME(lf_log_rest)(y, l)) + NAME(lf_product_error)(y, d.hi, v);
    return (VG){ .v = (y == 0) & (x == x) ? 0 : v, .c = NAME(lf_finite)(c), .gx = -y,
                 .gy = (y == 0) & (x == -T_INF) ? 0 : d.hi + R(1.0) };
}

/* The same with y = log-probability.  v = e (y - x), e = exp(y);  gx = -e,  gy = e (y - x + 1).
 * y = -inf gives 0 even for x = -inf. */
LOSS(kl_div_log)
{
    T e = NAME(lf_exp)(y);
    NAME(LfPair) d = NAME(lf_minus)(y, x);
    I none = (y == -T_INF) & (x == x), never = (d.hi == T_INF);      /* never: also where e underflows */
    T v = e * d.hi, c = e * d.lo + (d.hi * NAME(lf_exp_rest)(y, e) + NAME(lf_product_error)(e, d.hi, v));
    return (VG){ .v = none ? 0 : never ? T_INF : v, .c = NAME(lf_finite)(c), .gx = -e,
                 .gy = none ? 0 : never ? T_INF : e * (d.hi + R(1.0)) };
}

/* f(u) = (1 + u) log(1 + u) + (1 - u) log(1 - u), 0 <= u <= 1, where g = 1 - u comes with relative accuracy.  Below 1/2 a series in u^2
 * (the terms cancel to u^2 + u^4/6 + ...), relative error 2^-28 (float), 2^-57. */
static inline T NAME(lf_js_core)(T u, T g)
{
    T z = u * u;
#ifdef LF_T_FLOAT
    T q = 0.02750286029f;
    q = q * z + 0.01831352596f;
    q = q * z + 0.03624965678f;
    q = q * z + 0.06663437575f;
    q = q * z + 0.1666673684f;
    q = q * z + 0.9999999976f;
#else
    T q = 0.01436880556774585154;
    q = q * z + -0.006739560728896578408;
    q = q * z + 0.009217619538886054471;
    q = q * z + 0.003845451086269576516;
    q = q * z + 0.006806780991781349737;
    q = q * z + 0.008298327091145985941;
    q = q * z + 0.01099207845147443842;
    q = q * z + 0.01515133625190937536;
    q = q * z + 0.02222222888565357397;
    q = q * z + 0.03571428556716923991;
    q = q * z + 0.06666666666834865149;
    q = q * z + 0.1666666666666591331;
    q = q * z + 1.000000000000000006;
#endif
    T near = z * q, far = (R(1.0) + u) * NAME(lf_log1p)(u) + NAME(lf_times)(g, NAME(lf_log)(g));
    return u < R(0.5) ? near : far;
}

/* Jensen-Shannon, x and y probabilities (Lin 1991).  M = max, n = min, s = x + y, u = (M - n)/s, 1 - u = 2n/s:
 *   v  = (x log(2x/s) + y log(2y/s)) / 2 = s f(u) / 4,   gx = log(2x/s) / 2,   gy = log(2y/s) / 2
 * 0 for x = y, also 0 = 0; log 2 (x + y)/2 where one is 0; negative x or y: NaN. */
LOSS(js_div)
{
    T s = x + y, d = ABS(x - y), n = x > y ? y : x;
    T inverse = s == 0 ? 0 : R(1.0) / s, u = d * inverse, g = 2 * n * inverse;
    T down = NAME(lf_log)(g), half = u < R(0.5) ? NAME(lf_log1p)(-u) : down, up = NAME(lf_log1p)(u);
    T v = s * NAME(lf_js_core)(u, g) / 4;
    return (VG){ .v = s == 0 ? 0 : v, .gx = (x < y ? half : up) / 2, .gy = (x < y ? up : half) / 2 };
}

/* Jensen-Shannon, x and y log-probabilities.  M = max, D = |x - y|, m = exp(-D) - 1, u = -m/(2 + m), 1 - u = 2 (1 + m)/(2 + m):
 *   v  = exp(M) (2 + m) f(u) / 4,   gx = exp(x) log(1 +- u) / 2,   gy likewise */
LOSS(js_div_log)
{
    T top = x > y ? x : y, d = x == y ? 0 : ABS(x - y), m = NAME(lf_expm1)(-d), e = NAME(lf_exp)(-d);
    T inverse = R(1.0) / (R(2.0) + m), u = -m * inverse, g = 2 * e * inverse;
    T large = NAME(lf_exp)(top), small = NAME(lf_exp)(x > y ? y : x);
    T down = u < R(0.5) ? NAME(lf_log1p)(-u) : NAME(lf_log)(g), up = NAME(lf_log1p)(u);
    T gl = large * up / 2, gs = NAME(lf_times)(small, down) / 2;
    return (VG){ .v = large * (R(2.0) + m) * NAME(lf_js_core)(u, g) / 4, .gx = x < y ? gs : gl, .gy = x < y ? gl : gs };
}

/* ---- likelihoods -------------------------------------------------------------------------------------------------------------------- */

/* Gaussian, z = var.  s = max(z, eps), d = x - y, q = d/s:
 *   v  = (log s + d^2/s)/2 + full log(2 pi)/2
 *   gx = q,  gz = (1 - d^2/s)/(2s)       the clamp passes the gradient, as torch's,   hx = 1/s
 * Ill-conditioned where log s < 0 nearly cancels d^2/s.  z = inf gives inf; z < 0 is bad. */
LOSS(gaussian_nll)
{
    const T log2pi_hi = R(0x1.d67f1cp+0), log2pi_lo = R(0x1.0c864p-25);
    T eps = p[1], s = z < eps ? eps : z, l = NAME(lf_log)(s), r = R(1.0) / s;
    NAME(LfPair) d = NAME(lf_minus)(x, y);
    T q = d.hi * r, t = d.hi * q, qs = q * s;
    T tlo = q * (((d.hi - qs) - NAME(lf_product_error)(q, s, qs)) + 2 * d.lo) + NAME(lf_product_error)(d.hi, q, t);
    NAME(LfPair) sum = NAME(lf_minus)(l, -t), all = NAME(lf_minus)(sum.hi, -p[0] * log2pi_hi);
    T c = all.lo + (sum.lo + (tlo + (NAME(lf_log_rest)(s, l) + p[0] * log2pi_lo)));
    return (VG){ .v = all.hi / 2, .c = NAME(lf_finite)(c / 2), .gx = q, .gy = -q, .gz = r * (R(1.0) - t) / 2, .hx = r,
                 .bad = z < 0 ? 3 : 0 };
}

/* Stirling's y log y - y + log(2 pi y)/2 for log(y!), where y > 1, else 0: value, error and derivative. */
static inline VG NAME(lf_stirling)(T y)
{
    T l = NAME(lf_log)(y), v = (y + R(0.5)) * l - (y - R(0.91893853320467274178));
    I on = y > 1;
    return (VG){ .v = on ? v : 0 * y, .gy = on ? l + R(0.5) / y : 0 };
}

/* Poisson, x the rate.  s = x + eps, l = log s:  v = x - y l,  gx = 1 - y/s,  gy = -l,  hx = y/s^2.
 * Ill-conditioned where x nearly equals y l.  y = 0 gives x; x < -eps NaN.  full adds Stirling's log y! where y > 1. */
static inline VG NAME(lf_poisson)(T x, T y, T eps)
{
    NAME(LfPair) s = NAME(lf_minus)(x, -eps);
    T l = NAME(lf_log)(s.hi), r = R(1.0) / s.hi, yl = NAME(lf_times)(y, l);
    NAME(LfPair) d = NAME(lf_minus)(x, yl);
    T c = d.lo - (NAME(lf_product_error)(y, l, yl) + y * (NAME(lf_log_rest)(s.hi, l) + s.lo * r));
    return (VG){ .v = d.hi, .c = NAME(lf_finite)(c), .gx = R(1.0) - y * r, .gy = -l, .hx = y * r * r };
}

/* Poisson, x the logarithm of the rate.  e = exp(x):  v = e - y x,  gx = e - y,  gy = -x,  hx = e.
 * Ill-conditioned where e nearly equals y x.  e = inf wins over y x = inf; y = 0 gives e. */
static inline VG NAME(lf_poisson_log)(T x, T y)
{
    T e = NAME(lf_exp)(x), yx = NAME(lf_times)(y, x);
    yx = (e > T_MAX) & (y == y) ? 0 : yx;
    NAME(LfPair) d = NAME(lf_minus)(e, yx);
    T c = d.lo + (NAME(lf_exp_rest)(x, e) - NAME(lf_product_error)(y, x, yx));
    return (VG){ .v = d.hi, .c = NAME(lf_finite)(c), .gx = e - y, .gy = -x, .hx = e };
}

LOSS(poisson_nll)
{
    return NAME(lf_poisson)(x, y, p[0]);
}

LOSS(poisson_nll_full)
{
    VG r = NAME(lf_poisson)(x, y, p[0]), s = NAME(lf_stirling)(y);
    r.v += s.v, r.gy += s.gy;
    return r;
}

LOSS(poisson_nll_log)
{
    return NAME(lf_poisson_log)(x, y);
}

LOSS(poisson_nll_log_full)
{
    VG r = NAME(lf_poisson_log)(x, y), s = NAME(lf_stirling)(y);
    r.v += s.v, r.gy += s.gy;
    return r;
}

/* Gamma, x the logarithm of the mean: scikit-learn's HalfGammaLoss, LightGBM's and XGBoost's gamma objective, constants dropped.
 * t = y exp(-x):  v = x + t,  gx = 1 - t,  gy = exp(-x),  hx = t. */
LOSS(gamma_nll_log)
{
    T e = NAME(lf_exp)(-x), t = NAME(lf_times)(y, e);
    NAME(LfPair) d = NAME(lf_minus)(x, -t);
    T c = d.lo + (y * NAME(lf_exp_rest)(-x, e) + NAME(lf_product_error)(y, e, t));
    return (VG){ .v = d.hi, .c = NAME(lf_finite)(c), .gx = R(1.0) - t, .gy = e, .hx = t, .bad = y < 0 ? 2 : 0 };
}

/* exp(k x): what the product's rounding drops goes into the result to first order. */
static inline T NAME(lf_exp_product)(T k, T x)
{
    T u = k * x, e = NAME(lf_exp)(u), lo = NAME(lf_finite)(NAME(lf_product_error)(k, x, u));
    return e > T_MAX ? e : e + e * lo;
}

/* Tweedie, x the logarithm of the mean: scikit-learn's HalfTweedieLoss, LightGBM's and XGBoost's tweedie objective, constants dropped.
 * power p, not 1 or 2; A = exp((1 - p) x), B = exp((2 - p) x):
 *   v  = B/(2 - p) - y A/(1 - p),  gx = B - y A,  gy = -A/(1 - p),  hx = (2 - p) B - (1 - p) y A
 * One sign for 1 < p < 2, y >= 0; elsewhere the terms may cancel.  y < 0 is bad for p > 0. */
LOSS(tweedie_nll_log)
{
    T p1 = R(1.0) - p[0], p2 = R(2.0) - p[0];
    T a = NAME(lf_exp_product)(p1, x), b = NAME(lf_exp_product)(p2, x), ya = NAME(lf_times)(y, a);
    return (VG){ .v = b / p2 - ya / p1, .gx = b - ya, .gy = -a / p1, .hx = p2 * b - p1 * ya, .bad = (p[0] > 0) & (y < 0) ? 2 : 0 };
}

/* r - log(1 + r), r > -1.  With s = r/(2 + r), log(1 + r) = 2 atanh(s) and r - 2s = r s:  s (r - 2 s^2 P(s^2)) near 0. */
static inline T NAME(lf_log1p_gap)(T r)
{
    T s = r / (R(2.0) + r), z = s * s;
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
    return (r >= R(-0.5)) & (r <= 1) ? s * (r - 2 * z * q) : r - NAME(lf_log1p)(r);
}

/* Unit deviances, x the mean, as scikit-learn's mean_poisson_deviance, mean_gamma_deviance, mean_tweedie_deviance. */

/* Poisson.  v = 2 (y log(y/x) - y + x) = 2 y (r - log(1 + r)), r = (x - y)/y;  gx = 2 (1 - y/x),  gy = 2 log(y/x),  hx = 2 y/x^2.
 * y = 0 gives 2x. */
LOSS(poisson_deviance)
{
    T ratio = y / x, d = 2 * (x - y);
    T v = 2 * y * NAME(lf_log1p_gap)((x - y) / y);
    return (VG){ .v = (y == 0) & (x == x) ? 2 * x : v, .gx = d / x, .gy = 2 * NAME(lf_log)(ratio), .hx = 2 * ratio / x,
                 .bad = x <= 0 ? 1 : y < 0 ? 2 : 0 };
}

/* Gamma.  r = (y - x)/x:  v = 2 (r - log(1 + r)),  gx = -2 r/x,  gy = 2 (1/x - 1/y),  hx = 2 (1 + 2r)/x^2. */
LOSS(gamma_deviance)
{
    T u = R(1.0) / x, d = y - x, r = d / x;
    return (VG){ .v = 2 * NAME(lf_log1p_gap)(r), .gx = -2 * r * u, .gy = 2 * d * u / y, .hx = (2 + 4 * r) * u * u,
                 .bad = x <= 0 ? 1 : y <= 0 ? 2 : 0 };
}

/* Tweedie of power p, not 0, 1 or 2.  a = x^(1-p):
 *   v  = 2 (max(y, 0)^(2-p) / ((1-p)(2-p)) - y a/(1-p) + x a/(2-p))
 *   gx = 2 a (1 - y/x),   gy = 2 (y^(1-p) - a)/(1-p),   hx = 2 (a/x) ((2-p) - (1-p) y/x ... )
 * The terms cancel to (x - y)^2 x^-p as y approaches x: relative error about 2^-22 (x/(x - y))^2. */
LOSS(tweedie_deviance)
{
    T p1 = R(1.0) - p[0], p2 = R(2.0) - p[0], c1 = 2 / p1, c2 = 2 / p2, u = R(1.0) / x;
    T a = NAME(lf_pow)(x, p1), yp = y < 0 ? 0 : y, b = NAME(lf_pow)(yp, p1);
    T yb = NAME(lf_times)(yp, b), d = x - y;
    I zero = p[0] > 0, above = p[0] >= 2;
    return (VG){ .v = c1 * (yb / p2 - y * a) + c2 * x * a, .gx = 2 * a * u * d, .gy = c1 * (b - a),
                 .hx = 2 * a * u * (R(1.0) - p[0] * d * u),
                 .bad = x <= 0 ? 1 : (zero & (y < 0)) | (above & (y <= 0)) ? 2 : 0 };
}
