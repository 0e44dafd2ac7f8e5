/* q4_k: the search for WIDTH sub-blocks of 32 side by side, the codes in the order of the elements. */
#include "kernels/layout/q4_k.h"

#include "kernels/lanes/affine.h"
#include "kernels/variants.h"

enum {
    BATCH = 4 /* super-blocks: 32 sub-blocks, which every WIDTH divides */,
    RUNS = 8 * BATCH,
    RUN_BYTES = 32 * 4,
    BLOCK_BYTES = 8 * RUN_BYTES
};

static const struct affine_trials plain = {-1.0f, 0.1f, 20, false}, weighted = {-0.9f, 0.05f, 36, false};

/* The results of the search, a slot for each sub-block of the batch. */
struct batch {
    float scales[RUNS], mins[RUNS], weights[RUNS];
    float inverse[RUNS], from[RUNS], lowest[RUNS], highest[RUNS];
};

/* Every lane: root mean square + |x|. */
static inline void weights_plain(float x[32][WIDTH], float ret[32][WIDTH])
{
    for (size_t at = 0; at < WIDTH; at += LANES) {
        vf sum = vf_set1(0);
        for (size_t l = 0; l < 32; l++)
            sum = vf_add(sum, vf_mul(vf_load(&x[l][at]), vf_load(&x[l][at])));
        const vf rms = vf_sqrt(vf_div(sum, vf_set1(32)));
        for (size_t l = 0; l < 32; l++)
            vf_store(&ret[l][at], vf_add(rms, vf_abs(vf_load(&x[l][at]))));
    }
}

/* Every lane: importance * sqrt(sigma2 + x^2), in place of the importance, and the sum of these. */
static inline void weights_weighted(float x[32][WIDTH], const float sigma2[WIDTH], float w[32][WIDTH],
                                    float sums[WIDTH])
{
    for (size_t at = 0; at < WIDTH; at += LANES) {
        vf sum = vf_set1(0);
        for (size_t l = 0; l < 32; l++) {
            const vf v = vf_load(&x[l][at]);
            const vf weight = vf_mul(vf_load(&w[l][at]), vf_sqrt(vf_add(vf_load(sigma2 + at), vf_mul(v, v))));
            vf_store(&w[l][at], weight);
            sum = vf_add(sum, weight);
        }
        vf_store(sums + at, sum);
    }
}

/* Sub-blocks [run, run + WIDTH) of the batch. @importance: NULL without. */
static inline bool search(const char *src, const char *importance, const float sigma2[RUNS], size_t run,
                          struct batch *b)
{
    float x[32][WIDTH], w[32][WIDTH];
    struct affine_lanes found[VECTORS];
    load_columns(x, src + run * RUN_BYTES, RUN_BYTES, 32);
    if (importance) {
        load_columns(w, importance + run * RUN_BYTES, RUN_BYTES, 32);
        weights_weighted(x, sigma2 + run, w, b->weights + run);
    } else {
        weights_plain(x, w);
    }
    if (!affine_search(32, 15, x, w, importance ? &weighted : &plain, found))
        return false;
    EACH_VECTOR(k)
    {
        const size_t at = run + k * LANES;
        vf_store(b->scales + at, found[k].scale);
        vf_store(b->mins + at, vf_neg(found[k].min));
        vf_store(b->inverse + at, found[k].inverse);
        vf_store(b->from + at, found[k].from);
        vf_store(b->lowest + at, found[k].lowest);
        vf_store(b->highest + at, found[k].highest);
    }
    return true;
}

/* Can the sub-block's quotients be rounded by vectors? */
static inline bool quotients_ordinary(float lowest, float highest, float step, float low)
{
    const float limit = step * 0x1p20f;
    return lowest + low > -limit && highest + low < limit;
}

static inline void encode_run(const char *x, float step, float low, float inverse, float from, uint8_t codes[32])
{
    for (size_t l = 0; l < 32; l += LANES) {
        const vf v = vf_load(x + l * 4);
        const vf code =
            step != 0 ? vf_clamp(vf_nearest(vf_div(vf_add(v, vf_set1(low)), vf_set1(step))), vf_set1(0), vf_set1(15))
                      : affine_code(v, vf_set1(inverse), vf_set1(from), vf_set1(15));
        vi_store_bytes(codes + l, vi_of_vf(code));
    }
}

static inline bool encode(struct block_q4_k *dst, const char *x, const struct batch *b, size_t block,
                          bool with_importance)
{
    struct k4_head head;
    uint8_t codes[256];
    k4_head_of(b->scales + 8 * block, b->mins + 8 * block, with_importance ? b->weights + 8 * block : NULL, &head);
    for (size_t j = 0; j < 8; j++) {
        const size_t run = 8 * block + j;
        if (head.steps[j] != 0 && !quotients_ordinary(b->lowest[run], b->highest[run], head.steps[j], head.lows[j]))
            return false;
        encode_run(x + j * RUN_BYTES, head.steps[j], head.lows[j], b->inverse[run], b->from[run], codes + 32 * j);
    }
    dst->d = head.d;
    dst->dmin = head.dmin;
    memcpy(dst->scales, head.scales, sizeof dst->scales);
    pack_nibbles_256(dst->q, codes);
    return true;
}

/* @n super-blocks (1 or BATCH) at @src, which holds BATCH of them. False: one of them is for the definition. */
static inline bool quantize_batch(struct block_q4_k *dst, const char *src, const char *importance, size_t n)
{
    struct batch b;
    float sigma2[RUNS] = {0};
    for (size_t i = 0; importance && i < BATCH; i++) {
        const float mean2 = 2 * sum_squares__scalar(0, (const float *)(const void *)(src + i * BLOCK_BYTES), 256) / 256;
        for (size_t j = 0; j < 8; j++)
            sigma2[8 * i + j] = mean2;
    }
    for (size_t run = 0; run < RUNS; run += WIDTH)
        if (!search(src, importance, sigma2, run, &b))
            return false;
    for (size_t i = 0; i < n; i++)
        if (!encode(&dst[i], src + i * BLOCK_BYTES, &b, i, importance != NULL))
            return false;
    return true;
}

void VARIANT(quantize_q4_k)(void *dst, const float *src, size_t n_elements)
{
    struct block_q4_k *b = dst;
    const char *x = (const char *)src;
    char last[BATCH * BLOCK_BYTES];
    for (size_t n = n_elements / 256, now; n > 0; n -= now, b += now, x += now * BLOCK_BYTES) {
        now = n < BATCH ? n : BATCH;
        const char *batch = whole_batch(x, now, BATCH, BLOCK_BYTES, last);
        if (!quantize_batch(b, batch, NULL, now))
            quantize_q4_k__scalar(b, (const float *)(const void *)x, now * 256);
    }
}

void VARIANT(quantize_weighted_q4_k)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    struct block_q4_k *b = dst;
    const char *x = (const char *)src, *w = (const char *)importance;
    char last[BATCH * BLOCK_BYTES], last_w[BATCH * BLOCK_BYTES];
    for (size_t n = n_elements / 256, now; n > 0; n -= now, b += now, x += now * BLOCK_BYTES, w += now * BLOCK_BYTES) {
        now = n < BATCH ? n : BATCH;
        const char *batch = whole_batch(x, now, BATCH, BLOCK_BYTES, last);
        if (!quantize_batch(b, batch, whole_batch(w, now, BATCH, BLOCK_BYTES, last_w), now))
            quantize_weighted_q4_k__scalar(b, (const float *)(const void *)x, now * 256, (const float *)(const void *)w,
                                           mean_square);
    }
}
