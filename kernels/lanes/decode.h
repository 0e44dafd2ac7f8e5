/*
 * What all decoders come down to: 16 bytes, signed, times a scale. Every lane has the definition's product (and
 * difference): a sign moved from the product to the byte, or a power of two from the byte to the scale, gives the same
 * bits.
 */
#ifndef QUANTD_KERNELS_LANES_DECODE_H
#define QUANTD_KERNELS_LANES_DECODE_H

#include "kernels/lanes/vec.h"
#include "kernels/layout/decode.h"

#define DECODER_LANES(type, n) DECODER(VARIANT(dequantize_##type), type, n)

/* For short loops whose counter is a shift. */
#define UNROLLED _Pragma("GCC unroll 8")

/* x[0..15] = values * scale */
static inline void decode_scaled(float_at *x, vb values, vf scale)
{
    vf v[16 / LANES];
    vf_of_bytes(values, v);
    UNROLLED
    for (size_t i = 0; i < 16 / LANES; i++)
        vf_store(x + i * LANES, vf_mul(v[i], scale));
}

/* x[0..15] = codes * scale + offset */
static inline void decode_affine(float_at *x, vb codes, vf scale, vf offset)
{
    vf v[16 / LANES];
    vf_of_bytes(codes, v);
    UNROLLED
    for (size_t i = 0; i < 16 / LANES; i++)
        vf_store(x + i * LANES, vf_add(vf_mul(v[i], scale), offset));
}

/* x[0..15] = codes * scale - low */
static inline void decode_less(float_at *x, vb codes, vf scale, vf low)
{
    vf v[16 / LANES];
    vf_of_bytes(codes, v);
    UNROLLED
    for (size_t i = 0; i < 16 / LANES; i++)
        vf_store(x + i * LANES, vf_sub(vf_mul(v[i], scale), low));
}

/* ret[0..15] = scales * d: the steps of sub-blocks */
static inline void steps_of(vb scales, vf d, float ret[16])
{
    decode_scaled((float_at *)ret, scales, d);
}

#endif
