/* Decoders of types whose 4-bit codes stand for the values of a table. (docs/formats/blocks.md) */
#include "kernels/layout/codebooks.h"
#include "kernels/scalar/decode.h"

/* x = scale * value: low nibbles, then high nibbles */
static inline void decode_nibbles(float_at *restrict x, const uint8_t *restrict q, int n_bytes, const int8_t values[16],
                                  float scale)
{
    float scaled[16];
    for (int i = 0; i < 16; i++)
        scaled[i] = scale * values[i];
    for (int j = 0; j < n_bytes; j++) {
        x[j] = scaled[q[j] & 15];
        x[j + n_bytes] = scaled[q[j] >> 4];
    }
}

static inline void decode_iq4_nl(float_at *restrict x, const struct block_iq4_nl *restrict b)
{
    decode_nibbles(x, b->q, 16, codebook_iq4, f32_of_f16(b->d));
}
DECODER_SCALAR(iq4_nl, 32)

static inline void decode_iq4_xs(float_at *restrict x, const struct block_iq4_xs *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 8; j++) {
        const int scale = (b->scales_low[j / 2] >> j % 2 * 4 & 15) + (b->scales_high >> 2 * j & 3) * 16 - 32;
        decode_nibbles(x + 32 * j, b->q + 16 * j, 16, codebook_iq4, d * (float)scale);
    }
}
DECODER_SCALAR(iq4_xs, 256)

static inline void decode_mxfp4(float_at *restrict x, const struct block_mxfp4 *restrict b)
{
    decode_nibbles(x, b->q, 16, codebook_e2m1, half_of_e8m0(b->e));
}
DECODER_SCALAR(mxfp4, 32)

static inline void decode_nvfp4(float_at *restrict x, const struct block_nvfp4 *restrict b)
{
    for (int s = 0; s < 4; s++)
        decode_nibbles(x + 16 * s, b->q + 8 * s, 8, codebook_e2m1, half_of_ue4m3(b->d[s]));
}
DECODER_SCALAR(nvfp4, 64)
