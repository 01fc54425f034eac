/* The arithmetic type of one pass.  No include guard: a kernel file defines LF_T_FLOAT, includes this and the headers written in T, undefines
 * it, then the same with LF_T_DOUBLE; included with neither, this header undefines all it has defined.
 * Literals are written R(0.5), so that float code holds no double. */
#undef T
#undef I
#undef U
#undef R
#undef NAME
#undef T_CODE
#undef T_MANT
#undef T_BIAS
#undef T_EPS
#undef T_MIN
#undef T_TINY
#undef T_MAX
#undef T_INF
#undef T_NAN
#undef T_LOG2E
#undef T_LN2_HI
#undef T_LN2_LO
#undef T_MAGIC
#undef BITS
#undef REAL
#undef ABS
#undef SQRT
#undef COPYSIGN

#if defined LF_T_FLOAT && defined LF_T_DOUBLE
#error "define one of LF_T_FLOAT and LF_T_DOUBLE"

#elif defined LF_T_FLOAT
#define T float
#define I int32_t
#define U uint32_t
#define R(x) x##f
#define NAME(x) x##_f32
#define T_CODE LF_F32
#define T_MANT 23
#define T_BIAS 127
#define T_EPS 0x1p-23f
#define T_MIN 0x1p-126f /* smallest normal */
#define T_TINY 0x1p-60f /* 1/T_TINY times a subnormal is normal */
#define T_MAX 0x1.fffffep127f
#define T_INF __builtin_inff()
#define T_NAN __builtin_nanf("")
#define T_LN2_HI 0x1.62e4p-1f /* 15 bits: n T_LN2_HI is exact for |n| < 2^9, with FMA or without */
#define T_LN2_LO 0x1.7f7d1cp-20f
#define ABS(x) __builtin_fabsf(x)
#define SQRT(x) __builtin_sqrtf(x)
#define COPYSIGN(x, s) __builtin_copysignf(x, s)

#elif defined LF_T_DOUBLE
#define T double
#define I int64_t
#define U uint64_t
#define R(x) x
#define NAME(x) x##_f64
#define T_CODE LF_F64
#define T_MANT 52
#define T_BIAS 1023
#define T_EPS 0x1p-52
#define T_MIN 0x1p-1022
#define T_TINY 0x1p-500
#define T_MAX 0x1.fffffffffffffp1023
#define T_INF __builtin_inf()
#define T_NAN __builtin_nan("")
#define T_LN2_HI 0x1.62e42fefa38p-1 /* 42 bits: n T_LN2_HI is exact for |n| < 2^11 */
#define T_LN2_LO 0x1.ef35793c7673p-45
#define ABS(x) __builtin_fabs(x)
#define SQRT(x) __builtin_sqrt(x)
#define COPYSIGN(x, s) __builtin_copysign(x, s)
#endif

#if defined LF_T_FLOAT || defined LF_T_DOUBLE
#define T_LOG2E R(0x1.71547652b82fep+0)
#define T_MAGIC (R(1.5) * ((U)1 << T_MANT)) /* x + T_MAGIC rounds |x| < 2^(T_MANT - 1) to an integer, found in the low bits */
#define BITS(x) NAME(lf_bits)(x)
#define REAL(u) NAME(lf_real)(u)

static inline U NAME(lf_bits)(T x)
{
    union {
        T x;
        U u;
    } b = {.x = x};
    return b.u;
}

static inline T NAME(lf_real)(U u)
{
    union {
        U u;
        T x;
    } b = {.u = u};
    return b.x;
}
#endif
