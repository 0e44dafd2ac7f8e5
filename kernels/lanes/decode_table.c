/* Decoders of types whose 4-bit codes stand for the values of a table. */
#include "kernels/lanes/decode.h"
#include "kernels/layout/codebooks.h"

/* 16 bytes: low nibbles, then high nibbles */
static inline void decode_nibbles(float_at *x, const uint8_t q[16], vb values, vf scale)
{
    const vb both = vb_load(q);
    decode_scaled(x, vb_look_up(values, vb_field(both, 0, 15)), scale);
    decode_scaled(x + 16, vb_look_up(values, vb_field(both, 4, 15)), scale);
}

static inline void decode_iq4_nl(float_at *x, const struct block_iq4_nl *b)
{
    decode_nibbles(x, b->q, vb_load(codebook_iq4), vf_set1_f16(b->d));
}
DECODER_LANES(iq4_nl, 32)

/* Scales of 6 bits, less 32: nibbles in order, then their upper 2 bits. */
static inline void decode_iq4_xs(float_at *x, const struct block_iq4_xs *b)
{
    const vb values = vb_load(codebook_iq4);
    const float d = f32_of_f16(b->d);
    const uint32_t low = load_u32(b->scales_low), high = b->scales_high;
    UNROLLED
    for (int j = 0; j < 8; j++) {
        const int scale = (int)((low >> 4 * j & 15) | (high >> 2 * j & 3) << 4) - 32;
        decode_nibbles(x + 32 * j, b->q + 16 * j, values, vf_set1(d * (float)scale));
    }
}
DECODER_LANES(iq4_xs, 256)

static inline void decode_mxfp4(float_at *x, const struct block_mxfp4 *b)
{
    decode_nibbles(x, b->q, vb_load(codebook_e2m1), vf_set1(half_of_e8m0(b->e)));
}
DECODER_LANES(mxfp4, 32)

static inline void decode_nvfp4(float_at *x, const struct block_nvfp4 *b)
{
    const uint64_t mask = UINT64_C(0x0f0f0f0f0f0f0f0f);
    UNROLLED
    for (size_t s = 0; s < 4; s++) {
        const uint64_t q = load_u64(b->q + 8 * s);
        const vb codes = vb_of_u64(q & mask, q >> 4 & mask);
        decode_scaled(x + 16 * s, vb_look_up(vb_load(codebook_e2m1), codes), vf_set1(half_of_ue4m3(b->d[s])));
    }
}
DECODER_LANES(nvfp4, 64)
