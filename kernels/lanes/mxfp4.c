/* mxfp4: LANES blocks side by side for their largest magnitudes, then one after the other. */
#include "kernels/lanes/mxfp4.h"

#include "kernels/lanes/frame.h"
#include "kernels/variants.h"

enum { RUN_BYTES = 32 * 4, HIGHEST = 252 /* exponent up to which 12 * d is finite */ };

static inline vf magnitude_of_block(const char *x)
{
    vf largest = vf_abs(vf_load(x));
    for (size_t j = LANES; j < 32; j += LANES)
        largest = vf_max(largest, vf_abs(vf_load(x + 4 * j)));
    return largest;
}

static inline void encode_block(struct block_mxfp4 *b, const char *x, float scale)
{
    for (size_t j = 0; j < 16; j += LANES) {
        const vi low = mxfp4_code(vf_load(x + 4 * j), vf_set1(scale));
        const vi high = mxfp4_code(vf_load(x + 4 * j + 64), vf_set1(scale));
        vi_store_bytes(b->q + j, vi_or(low, vi_shift_left(high, 4)));
    }
}

static bool encode(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_mxfp4 *b = dst;
    vf magnitudes[LANES];
    float largest[LANES];
    (void)importance, (void)mean_square; /* they make no difference */
    for (size_t i = 0; i < LANES; i++)
        magnitudes[i] = magnitude_of_block(src + i * RUN_BYTES);
    vf_store(largest, vf_largest_of_each(magnitudes));
    for (size_t i = 0; i < n; i++) {
        const uint8_t e = mxfp4_exponent(largest[i]);
        /* 1 / d is no number, or the largest values are none. Of exponents that wrapped around all codes are 0. */
        if (largest[i] > 0 && (e == 0 || e == HIGHEST + 1))
            return false;
        b[i].e = e;
        encode_block(&b[i], src + i * RUN_BYTES, largest[i] > 0 ? f32_of_bits((uint32_t)(255 - e) << 23) : 0);
    }
    return true;
}

void VARIANT(quantize_mxfp4)(void *dst, const float *src, size_t n_elements)
{
    static const struct frame frame = {LANES, 32, sizeof(struct block_mxfp4), encode, quantize_mxfp4__scalar, NULL};
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}
