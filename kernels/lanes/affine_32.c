/* q4_1 and q5_1 with importance: the search for AFFINE_WIDTH blocks side by side. */
#include "kernels/layout/affine_32.h"

#include "kernels/lanes/affine.h"
#include "kernels/lanes/weights.h"
#include "kernels/lanes/frame.h"
#include "kernels/variants.h"

enum { RUN_BYTES = 32 * 4 };
_Static_assert(AFFINE_WIDTH *RUN_BYTES <= FRAME_ROOM, "a batch has room");

/* The first @n of LANES blocks, whose fits are @f. */
static void store(const struct affine_32 *k, char *dst, const char *src, const struct affine_fit *f, size_t n)
{
    const vf n_max = vf_set1((float)k->n_max);
    float scale[LANES], min[LANES], inverse[LANES], from[LANES];
    vf_store(scale, f->scale);
    vf_store(min, f->min);
    vf_store(inverse, f->inverse);
    vf_store(from, f->from);
    for (size_t i = 0; i < n; i++) {
        uint8_t codes[32];
        affine_encode(32, src + i * RUN_BYTES, n_max, inverse[i], from[i], codes);
        k->store(dst + i * k->block_bytes, scale[i], min[i], codes);
    }
}

/* @n blocks at @src, which holds AFFINE_WIDTH of them. False: one of them is for the definition. */
static bool quantize_batch(const struct affine_32 *k, char *dst, const char *src, const char *importance,
                           float mean_square, size_t n)
{
    const size_t n_pairs = n > AFFINE_PAIR ? 2 : 1;
    _Alignas(64) float x[AFFINE_MAX_RUN][AFFINE_WIDTH], w[AFFINE_MAX_RUN][AFFINE_WIDTH];
    float sigma2[AFFINE_WIDTH], sums[AFFINE_WIDTH]; /* the sums are for others */
    struct affine_fit found[2 * AFFINE_PAIRS];
    for (size_t at = 0; at < AFFINE_WIDTH; at += LANES)
        vf_store(sigma2 + at, vf_set1(mean_square));
    load_runs(x[0], AFFINE_WIDTH, src, RUN_BYTES, 32);
    load_runs(w[0], AFFINE_WIDTH, importance, RUN_BYTES, 32);
    weigh(32, AFFINE_WIDTH, x[0], w[0], sigma2, sums);
    if (!affine_search(32, k->n_max, x, w, &affine_32_trials, n_pairs, found))
        return false;
    for (size_t i = 0, at = 0; at < n; i++, at += LANES)
        store(k, dst + at * k->block_bytes, src + at * RUN_BYTES, &found[i], n - at < LANES ? n - at : LANES);
    return true;
}

static bool encode_q4_1(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    return quantize_batch(&affine_q4_1, dst, src, importance, mean_square, n);
}

static bool encode_q5_1(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    return quantize_batch(&affine_q5_1, dst, src, importance, mean_square, n);
}

static const struct frame frame_q4_1 = {AFFINE_WIDTH, 32,   sizeof(struct block_q4_1),
                                        encode_q4_1,  NULL, quantize_weighted_q4_1__scalar};
static const struct frame frame_q5_1 = {AFFINE_WIDTH, 32,   sizeof(struct block_q5_1),
                                        encode_q5_1,  NULL, quantize_weighted_q5_1__scalar};

void VARIANT(quantize_weighted_q4_1)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q4_1, dst, src, n_elements, importance, mean_square);
}

void VARIANT(quantize_weighted_q5_1)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q5_1, dst, src, n_elements, importance, mean_square);
}
