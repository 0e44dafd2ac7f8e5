#include "kernels/layout/mxfp4.h"

#include <math.h>

#include "kernels/layout/pack.h"
#include "kernels/scalar/ends.h"
#include "kernels/variants.h"

/*
 * The first of the 16 values that is nearest to each element. Of those with the other sign none is nearer than 0, and
 * code 8, the other zero, is no nearer than code 0. Of the others the errors fall up to the nearest and do not fall
 * behind it, so how often they fall is its number. All elements for one value after the other: that is vector code.
 */
static void codes_of(const float x[32], float d, uint8_t codes[32])
{
    float last[32];
    int32_t nearest[32] = {0};
    for (int j = 0; j < 32; j++)
        last[j] = fabsf(x[j]);
    for (int code = 1; code < 8; code++) {
        const float value = codebook_e2m1[code] * d; /* Inf beyond f32: no element is near it */
        for (int j = 0; j < 32; j++) {
            const float error = fabsf(value - fabsf(x[j]));
            nearest[j] += error < last[j];
            last[j] = error;
        }
    }
    for (int j = 0; j < 32; j++)
        codes[j] = (uint8_t)(nearest[j] + (nearest[j] != 0 && x[j] < 0 ? 8 : 0));
}

void quantize_mxfp4__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_mxfp4 *b = dst;
    for (size_t i = 0; i < n_elements / 32; i++) {
        float x[32];
        uint8_t codes[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        b[i].e = mxfp4_exponent(largest_of(32, x));
        codes_of(x, half_of_e8m0(b[i].e), codes);
        pack_nibbles_32(b[i].q, codes);
    }
}
