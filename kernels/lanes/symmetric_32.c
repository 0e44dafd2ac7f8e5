/* q4_0 and q5_0 with importance: the search for WIDTH blocks side by side. */
#include "kernels/layout/symmetric_32.h"

#include "kernels/lanes/frame.h"
#include "kernels/lanes/symmetric.h"
#include "kernels/lanes/weights.h"
#include "kernels/variants.h"

enum { RUN_BYTES = 32 * 4 };
_Static_assert(WIDTH *RUN_BYTES <= FRAME_ROOM, "a batch has room");

/* @n blocks at @src, which holds WIDTH of them. */
static inline bool quantize_batch(const struct symmetric_32 *k, char *dst, const char *src, const char *importance,
                                  float mean_square, size_t n)
{
    _Alignas(64) float x[32][WIDTH];
    _Alignas(64) float w[32][WIDTH];
    float sigma2[WIDTH], sums[WIDTH]; /* the sums are for others */
    float scale[WIDTH], inverse[WIDTH], extreme[WIDTH];
    struct symmetric_lanes found[VECTORS];
    EACH_VECTOR(v)
    vf_store(sigma2 + v * LANES, vf_set1(mean_square));
    load_columns(x, src, RUN_BYTES, 32);
    load_columns(w, importance, RUN_BYTES, 32);
    weigh(32, WIDTH, x[0], w[0], sigma2, sums);
    symmetric_search(32, k->n_max, x, w, found);
    EACH_VECTOR(v)
    {
        vf_store(scale + v * LANES, found[v].scale);
        vf_store(inverse + v * LANES, found[v].inverse);
        vf_store(extreme + v * LANES, found[v].extreme);
    }
    for (size_t i = 0; i < n; i++) {
        uint8_t codes[32];
        symmetric_encode_found(32, k->n_max, src + i * RUN_BYTES, inverse[i], extreme[i], codes);
        k->store(dst + i * k->block_bytes, scale[i], codes);
    }
    return true;
}

static bool encode_q4_0(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    return quantize_batch(&symmetric_q4_0, dst, src, importance, mean_square, n);
}

static bool encode_q5_0(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    return quantize_batch(&symmetric_q5_0, dst, src, importance, mean_square, n);
}

static const struct frame frame_q4_0 = {WIDTH, 32, sizeof(struct block_q4_0), encode_q4_0, NULL, NULL};
static const struct frame frame_q5_0 = {WIDTH, 32, sizeof(struct block_q5_0), encode_q5_0, NULL, NULL};

void VARIANT(quantize_weighted_q4_0)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q4_0, dst, src, n_elements, importance, mean_square);
}

void VARIANT(quantize_weighted_q5_0)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q5_0, dst, src, n_elements, importance, mean_square);
}
