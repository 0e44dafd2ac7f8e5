/* iq4_xs: the search for WIDTH sub-blocks of 32 side by side, the codes in the order of the elements. */
#include "kernels/lanes/frame.h"
#include "kernels/lanes/iq4.h"
#include "kernels/variants.h"

enum {
    BATCH = 4 /* super-blocks: 32 runs, which every WIDTH divides */,
    RUNS = 8 * BATCH,
    RUN_BYTES = 32 * 4,
    BLOCK_BYTES = 8 * RUN_BYTES
};

/* Twice the mean squares of the super-blocks, added up element by element; side by side, as each waits for its sum. */
static inline void mean_squares(const char *src, float ret[RUNS])
{
    float sums[BATCH] = {0};
    for (size_t l = 0; l < 256; l++)
        for (size_t i = 0; i < BATCH; i++) {
            float v;
            memcpy(&v, src + i * BLOCK_BYTES + l * sizeof v, sizeof v);
            sums[i] += v * v;
        }
    for (size_t run = 0; run < RUNS; run++)
        ret[run] = sums[run / 8] * (2.0f / 256);
}

static inline void encode_block(struct block_iq4_xs *b, const char *x, const float scales[8])
{
    struct iq4_xs_head head;
    iq4_xs_head_of(scales, &head);
    b->d = head.d;
    b->scales_high = head.scales_high;
    memcpy(b->scales_low, head.scales_low, sizeof b->scales_low);
    for (size_t j = 0; j < 8; j++)
        iq4_encode(x + j * RUN_BYTES, head.inverse[j], b->q + 16 * j);
}

static bool encode(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_iq4_xs *b = dst;
    float mean2[RUNS], scales[RUNS];
    (void)mean_square; /* the mean square of the super-block is what counts */
    if (importance)
        mean_squares(src, mean2);
    for (size_t run = 0; run < RUNS; run += WIDTH) {
        _Alignas(64) struct iq4_terms terms;
        _Alignas(64) float w[32][WIDTH];
        load_columns(terms.x, src + run * RUN_BYTES, RUN_BYTES, 32);
        if (importance)
            load_columns(w, importance + run * RUN_BYTES, RUN_BYTES, 32);
        iq4_weights(terms.x, importance ? mean2 + run : NULL, w);
        iq4_search(&terms, w, scales + run);
    }
    for (size_t i = 0; i < n; i++)
        encode_block(&b[i], src + i * BLOCK_BYTES, scales + 8 * i);
    return true;
}

static const struct frame frame = {BATCH, 256, sizeof(struct block_iq4_xs), encode, NULL, NULL};

void VARIANT(quantize_iq4_xs)(void *dst, const float *src, size_t n_elements)
{
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_weighted_iq4_xs)(void *dst, const float *src, size_t n_elements, const float *importance,
                                       float mean_square)
{
    in_batches(&frame, dst, src, n_elements, importance, mean_square);
}
