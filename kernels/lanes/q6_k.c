/* q6_k: the search for WIDTH sub-blocks of 16 side by side, the codes in the order of the elements. */
#include "kernels/layout/symmetric.h"

#include "kernels/lanes/frame.h"
#include "kernels/lanes/symmetric.h"
#include "kernels/variants.h"

enum {
    BATCH = WIDTH > 16 ? WIDTH / 16 : 1 /* super-blocks */,
    RUNS = 16 * BATCH,
    RUN_BYTES = 16 * 4,
    BLOCK_BYTES = 16 * RUN_BYTES
};

/* The results of the search, a slot for each sub-block of the batch. */
struct batch {
    float scales[RUNS], inverse[RUNS], extreme[RUNS];
};

/* Sub-blocks [run, run + WIDTH) of the batch. Without importance an element weighs its square. */
static inline void search(const char *src, const char *importance, size_t run, struct batch *b)
{
    _Alignas(64) float x[16][WIDTH];
    _Alignas(64) float w[16][WIDTH];
    struct symmetric_lanes found[VECTORS];
    load_columns(x, src + run * RUN_BYTES, RUN_BYTES, 16);
    if (importance)
        load_columns(w, importance + run * RUN_BYTES, RUN_BYTES, 16);
    for (size_t l = 0; l < 16 && !importance; l++)
        for (size_t at = 0; at < WIDTH; at += LANES)
            vf_store(&w[l][at], vf_mul(vf_load(&x[l][at]), vf_load(&x[l][at])));
    symmetric_search(16, 32, x, w, found);
    EACH_VECTOR(k)
    {
        const size_t at = run + k * LANES;
        vf_store(b->scales + at, found[k].scale);
        vf_store(b->inverse + at, found[k].inverse);
        vf_store(b->extreme + at, found[k].extreme);
    }
}

static inline bool encode(struct block_q6_k *dst, const char *x, const struct batch *b, size_t block)
{
    struct k6_head head;
    uint8_t codes[256];
    unsigned zero;
    k6_head_of(b->scales + 16 * block, &head);
    if (head.zero) {
        memset(dst, 0, sizeof *dst);
        return true;
    }
    if (!symmetric_encode_256(32, x, head.steps, b->extreme + 16 * block, codes, &zero))
        return false;
    for (; zero; zero &= zero - 1) {
        const size_t j = (size_t)__builtin_ctz(zero), run = 16 * block + j;
        symmetric_encode_found(16, 32, x + j * RUN_BYTES, b->inverse[run], b->extreme[run], codes + 16 * j);
    }
    pack_sixes_256(dst->low, dst->high, codes);
    memcpy(dst->scales, head.scales, sizeof dst->scales);
    dst->d = head.d;
    return true;
}

static bool encode_batch(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_q6_k *blocks = dst;
    struct batch b;
    (void)mean_square; /* the importance alone counts */
    for (size_t run = 0; run < RUNS; run += WIDTH)
        search(src, importance, run, &b);
    for (size_t i = 0; i < n; i++)
        if (!encode(&blocks[i], src + i * BLOCK_BYTES, &b, i))
            return false;
    return true;
}

static const struct frame frame = {
    BATCH, 256, sizeof(struct block_q6_k), encode_batch, quantize_q6_k__scalar, quantize_weighted_q6_k__scalar};

void VARIANT(quantize_q6_k)(void *dst, const float *src, size_t n_elements)
{
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_weighted_q6_k)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame, dst, src, n_elements, importance, mean_square);
}
