/* iq4_nl: WIDTH blocks side by side, a lane each. */
#include "kernels/lanes/frame.h"
#include "kernels/lanes/iq4.h"
#include "kernels/variants.h"

enum { RUN_BYTES = 32 * 4 };

/* Every lane: twice the mean square, added up element by element. */
static inline void mean_squares(float x[32][WIDTH], float ret[WIDTH])
{
    vf sum[VECTORS];
    EACH_VECTOR(k)
    sum[k] = vf_set1(0);
    for (size_t j = 0; j < 32; j++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[j][k * LANES]);
            sum[k] = vf_add(sum[k], vf_mul(v, v));
        }
    EACH_VECTOR(k)
    vf_store(ret + k * LANES, vf_mul(sum[k], vf_set1(2.0f / 32)));
}

static bool encode(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_iq4_nl *b = dst;
    _Alignas(64) struct iq4_terms terms;
    _Alignas(64) float w[32][WIDTH];
    float mean2[WIDTH], scales[WIDTH];
    (void)mean_square; /* the mean square of the block is what counts */
    load_columns(terms.x, src, RUN_BYTES, 32);
    if (importance) {
        load_columns(w, importance, RUN_BYTES, 32);
        mean_squares(terms.x, mean2);
    }
    iq4_weights(terms.x, importance ? mean2 : NULL, w);
    iq4_search(&terms, w, scales);
    for (size_t i = 0; i < n; i++) {
        b[i].d = iq4_f16(scales[i]);
        iq4_encode(src + i * RUN_BYTES, scales[i] != 0 ? 1 / scales[i] : 0, b[i].q);
    }
    return true;
}

static const struct frame frame = {WIDTH, 32, sizeof(struct block_iq4_nl), encode, NULL, NULL};

void VARIANT(quantize_iq4_nl)(void *dst, const float *src, size_t n_elements)
{
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_weighted_iq4_nl)(void *dst, const float *src, size_t n_elements, const float *importance,
                                       float mean_square)
{
    in_batches(&frame, dst, src, n_elements, importance, mean_square);
}
