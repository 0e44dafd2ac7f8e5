/* Decoders of the K types: super-blocks of 256. */
#include "kernels/lanes/decode.h"
#include "kernels/layout/pack.h"

/* The types of 16 sub-blocks have them in four rows of 16 bytes: row r holds this one and 2, 4, 6 behind it. */
static inline size_t first_of_row(size_t r)
{
    return r / 2 * 8 + r % 2;
}

static inline void decode_q2_k(float_at *x, const struct block_q2_k *b)
{
    const vb both = vb_load(b->scales);
    float steps[16], lows[16];
    steps_of(vb_field(both, 0, 15), vf_set1_f16(b->d), steps);
    steps_of(vb_field(both, 4, 15), vf_set1_f16(b->dmin), lows);
    for (size_t r = 0; r < 4; r++) {
        const vb q = vb_load(b->q + 16 * r);
        UNROLLED
        for (int k = 0; k < 4; k++) {
            const size_t j = first_of_row(r) + 2 * (size_t)k;
            decode_less(x + 16 * j, vb_field(q, 2 * k, 3), vf_set1(steps[j]), vf_set1(lows[j]));
        }
    }
}
DECODER_LANES(q2_k, 256)

static inline void decode_q3_k(float_at *x, const struct block_q3_k *b)
{
    uint64_t scales[2];
    float steps[16];
    unpack_scales_q3(b->scales, scales);
    steps_of(vb_sub(vb_of_u64(scales[0], scales[1]), vb_set1(32)), vf_set1_f16(b->d), steps);
    UNROLLED
    for (size_t r = 0; r < 4; r++) {
        const vb q = vb_load(b->q + 16 * r), high = vb_load(b->high + 16 * (r % 2));
        UNROLLED
        for (int k = 0; k < 4; k++) {
            const size_t j = first_of_row(r) + 2 * (size_t)k;
            const vb third = vb_field(high, (int)(r / 2 * 4) + k - 2, 4);
            decode_scaled(x + 16 * j, vb_sub(vb_or(vb_field(q, 2 * k, 3), third), vb_set1(4)), vf_set1(steps[j]));
        }
    }
}
DECODER_LANES(q3_k, 256)

/* The steps and minima of 8 sub-blocks of 32. */
struct k4_steps {
    float steps[16], lows[16]; /* of the first, 0..7 count, of the second, 8..15 */
};

static inline void unpack_steps_k4(uint16_t d, uint16_t dmin, const uint8_t packed[12], struct k4_steps *ret)
{
    uint8_t scales[16];
    unpack_scales_k4(packed, scales, scales + 8);
    steps_of(vb_load(scales), vf_set1_f16(d), ret->steps);
    steps_of(vb_load(scales), vf_set1_f16(dmin), ret->lows);
}

static inline void decode_q4_k(float_at *x, const struct block_q4_k *b)
{
    struct k4_steps s;
    unpack_steps_k4(b->d, b->dmin, b->scales, &s);
    for (size_t i = 0; i < 8; i++) { /* rows of 16 bytes */
        const vb q = vb_load(b->q + 16 * i);
        const size_t j = i / 2 * 2;
        float_at *to = x + 64 * (i / 2) + 16 * (i % 2);
        decode_less(to, vb_field(q, 0, 15), vf_set1(s.steps[j]), vf_set1(s.lows[j + 8]));
        decode_less(to + 32, vb_field(q, 4, 15), vf_set1(s.steps[j + 1]), vf_set1(s.lows[j + 9]));
    }
}
DECODER_LANES(q4_k, 256)

static inline void decode_q5_k(float_at *x, const struct block_q5_k *b)
{
    struct k4_steps s;
    unpack_steps_k4(b->d, b->dmin, b->scales, &s);
    UNROLLED
    for (size_t i = 0; i < 8; i++) {
        const vb q = vb_load(b->q + 16 * i), high = vb_load(b->high + 16 * (i % 2));
        const int j = (int)(i / 2 * 2);
        float_at *to = x + 64 * (i / 2) + 16 * (i % 2);
        decode_less(to, vb_or(vb_field(q, 0, 15), vb_field(high, j - 4, 16)), vf_set1(s.steps[j]),
                    vf_set1(s.lows[j + 8]));
        decode_less(to + 32, vb_or(vb_field(q, 4, 15), vb_field(high, j - 3, 16)), vf_set1(s.steps[j + 1]),
                    vf_set1(s.lows[j + 9]));
    }
}
DECODER_LANES(q5_k, 256)

static inline void decode_q6_k(float_at *x, const struct block_q6_k *b)
{
    float steps[16];
    steps_of(vb_load(b->scales), vf_set1_f16(b->d), steps);
    for (size_t r = 0; r < 4; r++) { /* rows of 16 bytes of upper bits */
        const uint8_t *low = b->low + 64 * (r / 2) + 16 * (r % 2);
        const vb first = vb_load(low), second = vb_load(low + 32), high = vb_load(b->high + 16 * r);
        UNROLLED
        for (int k = 0; k < 4; k++) {
            const size_t j = first_of_row(r) + 2 * (size_t)k;
            const vb code = vb_or(vb_field(k % 2 ? second : first, k / 2 * 4, 15), vb_field(high, 2 * k - 4, 48));
            decode_scaled(x + 16 * j, vb_sub(code, vb_set1(32)), vf_set1(steps[j]));
        }
    }
}
DECODER_LANES(q6_k, 256)
