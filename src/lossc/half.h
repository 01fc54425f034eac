/* float16 and bfloat16 to and from float, by integer arithmetic that vectorises on every ISA; exact upwards for all 65536 values,
 * rounded to nearest even downwards; a NaN stays a NaN and keeps its upper payload bits. Right whatever FTZ and DAZ say, upwards. */
#ifndef LF_HALF_H
#define LF_HALF_H

#include <stdint.h>

static inline uint32_t lf_float_bits(float x)
{
    union {
        float x;
        uint32_t u;
    } b = {.x = x};
    return b.u;
}

static inline float lf_bits_float(uint32_t u)
{
    union {
        uint32_t u;
        float x;
    } b = {.u = u};
    return b.x;
}

static inline float lf_bf16_to_f32(uint16_t h) { return lf_bits_float((uint32_t)h << 16); }

static inline uint16_t lf_f32_to_bf16(float x)
{
    uint32_t u = lf_float_bits(x);
    uint32_t rounded = u + 0x7fff + (u >> 16 & 1), nan = u | 0x400000;
    return (uint16_t)((int32_t)(u & 0x7fffffff) > 0x7f800000 ? nan >> 16 : rounded >> 16);
}

static inline float lf_f16_to_f32(uint16_t h)
{
    const int32_t rebias = (127 - 15) << 23;
    int32_t w = (h & 0x7fff) << 13;                                            /* exponent and mantissa in float's places */
    int32_t normal = w + rebias + (w >= 31 << 23 ? rebias : 0);                /* inf and NaN: to exponent 255 */
    float tiny = lf_bits_float((uint32_t)(w + rebias + (1 << 23))) - 0x1p-14f; /* subnormal: 2^-14 (1 + m) - 2^-14, exact */
    uint32_t u = w < 1 << 23 ? lf_float_bits(tiny) : (uint32_t)normal;
    return lf_bits_float(u | (uint32_t)(h & 0x8000) << 16);
}

static inline uint16_t lf_f32_to_f16(float x)
{
    uint32_t u = lf_float_bits(x);
    int32_t a = (int32_t)(u & 0x7fffffff);
    int32_t normal = (a + ((15 - 127) * (1 << 23) + 0xfff) + (a >> 13 & 1)) >> 13;          /* a carry into the exponent is right, up to inf */
    int32_t tiny = (int32_t)lf_float_bits(lf_bits_float((uint32_t)a) + 0.5f) - (126 << 23); /* the addition rounds to steps of 2^-24 */
    int32_t h = a < 113 << 23 ? tiny : normal;
    h = a >= 143 << 23 ? 0x7c00 : h; /* from 2^16 on */
    h = a > 255 << 23 ? 0x7e00 | (a >> 13 & 0x1ff) : h;
    return (uint16_t)(h | (int32_t)(u >> 16 & 0x8000));
}

#endif
