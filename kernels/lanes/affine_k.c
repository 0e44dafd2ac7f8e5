/* q2_k, q4_k, q5_k: the search for AFFINE_WIDTH sub-blocks side by side, the codes in the order of the elements. */
#include "kernels/layout/affine_k.h"

#include "kernels/lanes/affine.h"
#include "kernels/lanes/weights.h"
#include "kernels/lanes/frame.h"
#include "kernels/lanes/positive.h"
#include "kernels/variants.h"

enum { BATCH = 8 /* super-blocks */, RUNS = AFFINE_K_RUNS * BATCH, BLOCK_BYTES = 256 * 4 };
_Static_assert(RUNS / 2 % AFFINE_WIDTH == 0, "a batch of any type is whole widths");
_Static_assert(2 * BATCH == POSITIVE_WIDTH, "the scales and the minima of a batch are searched together");

/* The results of the search, a slot for each sub-block of the batch. */
struct batch {
    float scales[RUNS], mins[RUNS], weights[RUNS];
    float inverse[RUNS], from[RUNS], lowest[RUNS], highest[RUNS];
};

/* Every lane: root mean square (0 without) + |x|. */
static inline void weights_plain(size_t n, bool with_rms, float x[][AFFINE_WIDTH], float ret[][AFFINE_WIDTH])
{
    for (size_t at = 0; at < AFFINE_WIDTH; at += LANES) {
        vf sum = vf_set1(0);
        for (size_t l = 0; with_rms && l < n; l++)
            sum = vf_add(sum, vf_mul(vf_load(&x[l][at]), vf_load(&x[l][at])));
        const vf rms = vf_sqrt(vf_div(sum, vf_set1((float)n)));
        for (size_t l = 0; l < n; l++)
            vf_store(&ret[l][at], vf_add(rms, vf_abs(vf_load(&x[l][at]))));
    }
}

/* Sub-blocks [@run, @run + AFFINE_WIDTH) of the batch, or the first half of these. @importance: NULL without. */
static bool search(const struct affine_k *k, const char *src, const char *importance, const float sigma2[RUNS],
                   size_t run, size_t n_pairs, struct batch *b)
{
    const size_t run_bytes = k->run * 4;
    _Alignas(64) float x[AFFINE_MAX_RUN][AFFINE_WIDTH], w[AFFINE_MAX_RUN][AFFINE_WIDTH];
    struct affine_fit found[2 * AFFINE_PAIRS];
    load_runs(x[0], AFFINE_WIDTH, src + run * run_bytes, run_bytes, k->run);
    if (importance) {
        load_runs(w[0], AFFINE_WIDTH, importance + run * run_bytes, run_bytes, k->run);
        weigh(k->run, AFFINE_WIDTH, x[0], w[0], sigma2 + run, b->weights + run);
    } else {
        weights_plain(k->run, k->rms, x, w);
    }
    if (!affine_search(k->run, k->n_max, x, w, importance ? &k->weighted.trials : &k->plain.trials, n_pairs, found))
        return false;
    for (size_t i = 0, at = run; i < 2 * n_pairs; i++, at += LANES) {
        vf_store(b->scales + at, found[i].scale);
        vf_store(b->mins + at, vf_neg(found[i].min));
        vf_store(b->inverse + at, found[i].inverse);
        vf_store(b->from + at, found[i].from);
        vf_store(b->lowest + at, found[i].lowest);
        vf_store(b->highest + at, found[i].highest);
    }
    return true;
}

/* With importance: share * mean square of its super-block for each sub-block. The sums go on side by side. */
static void mean_squares(const struct affine_k *k, const char *src, float ret[RUNS])
{
    const size_t runs = 256 / k->run;
    float sums[BATCH] = {0};
    for (size_t l = 0; l < 256; l++)
        for (size_t i = 0; i < BATCH; i++) {
            float x;
            memcpy(&x, src + i * BLOCK_BYTES + l * 4, sizeof x);
            sums[i] += x * x;
        }
    for (size_t i = 0; i < BATCH; i++)
        for (size_t j = 0; j < runs; j++)
            ret[runs * i + j] = k->share * sums[i] / 256;
}

static void levels_linear(const struct affine_k *k, const struct batch *b, size_t n, struct affine_levels ret[BATCH])
{
    const size_t runs = 256 / k->run;
    for (size_t i = 0; i < n; i++) {
        ret[i].d = affine_levels_linear(runs, k->n_levels, b->scales + runs * i, ret[i].scales);
        ret[i].dmin = affine_levels_linear(runs, k->n_levels, b->mins + runs * i, ret[i].mins);
    }
}

static bool levels_searched(const struct affine_k *k, const struct batch *b, size_t n, struct affine_levels ret[BATCH])
{
    const size_t runs = 256 / k->run;
    struct positive_runs r;
    for (size_t i = 0; i < BATCH; i++)
        for (size_t j = 0, at = i < n ? runs * i : 0; j < runs; j++, at++) {
            r.x[j][i] = b->scales[at];
            r.x[j][BATCH + i] = b->mins[at];
            r.w[j][i] = r.w[j][BATCH + i] = b->weights[at];
        }
    if (!positive_search(&r, runs, k->n_levels))
        return false;
    for (size_t i = 0; i < n; i++) {
        ret[i].d = r.scale[i];
        ret[i].dmin = r.scale[BATCH + i];
        for (size_t j = 0; j < runs; j++) {
            ret[i].scales[j] = (uint8_t)r.codes[j][i];
            ret[i].mins[j] = (uint8_t)r.codes[j][BATCH + i];
        }
    }
    return true;
}

/* Can the sub-block's quotients be rounded by vectors? */
static inline bool quotients_ordinary(float lowest, float highest, float step, float low)
{
    const float limit = step * 0x1p20f;
    return lowest + low > -limit && highest + low < limit;
}

static inline void encode_run(size_t n, const char *x, vf n_max, float step, float low, uint8_t *codes)
{
    for (size_t l = 0; l < n; l += LANES) {
        const vf quotient = vf_div(vf_add(vf_load(x + l * 4), vf_set1(low)), vf_set1(step));
        vi_store_bytes(codes + l, vi_of_vf(vf_clamp(vf_nearest(quotient), vf_set1(0), n_max)));
    }
}

static bool encode(const struct affine_k *k, const char *x, const struct batch *b, size_t block,
                   const struct affine_head *head, uint8_t codes[256])
{
    const vf n_max = vf_set1((float)k->n_max);
    for (size_t j = 0, run = 256 / k->run * block; j < 256 / k->run; j++, run++) {
        const char *from = x + j * k->run * 4;
        uint8_t *to = codes + j * k->run;
        const float step = head->steps[j], low = head->lows[j];
        if (step == 0)
            affine_encode(k->run, from, n_max, b->inverse[run], b->from[run], to);
        else if (quotients_ordinary(b->lowest[run], b->highest[run], step, low))
            encode_run(k->run, from, n_max, step, low, to);
        else
            return false;
    }
    return true;
}

/* @n super-blocks at @src, which holds BATCH of them. False: one of them is for the definition. */
static bool quantize_batch(const struct affine_k *k, char *dst, const char *src, const char *importance, size_t n)
{
    const size_t runs = 256 / k->run * n;
    struct batch b;
    struct affine_levels levels[BATCH];
    float sigma2[RUNS];
    if (importance)
        mean_squares(k, src, sigma2);
    for (size_t run = 0; run < runs; run += AFFINE_WIDTH)
        if (!search(k, src, importance, sigma2, run, runs - run > AFFINE_PAIR ? 2 : 1, &b))
            return false;
    if (!importance)
        levels_linear(k, &b, n, levels);
    else if (!levels_searched(k, &b, n, levels))
        return false;
    for (size_t i = 0; i < n; i++) {
        struct affine_head head;
        uint8_t codes[256];
        affine_head_of(k, &levels[i], importance ? k->weighted.cut : k->plain.cut, &head);
        if (!encode(k, src + i * BLOCK_BYTES, &b, i, &head, codes))
            return false;
        k->store(dst + i * k->block_bytes, &head, codes);
    }
    return true;
}

static bool encode_q2_k(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    (void)mean_square; /* the mean square of the block is what counts */
    return quantize_batch(&affine_q2_k, dst, src, importance, n);
}

static const struct frame frame_q2_k = {
    BATCH, 256, sizeof(struct block_q2_k), encode_q2_k, quantize_q2_k__scalar, quantize_weighted_q2_k__scalar};

void VARIANT(quantize_q2_k)(void *dst, const float *src, size_t n_elements)
{
    in_batches(&frame_q2_k, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_weighted_q2_k)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q2_k, dst, src, n_elements, importance, mean_square);
}

static bool encode_q4_k(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    (void)mean_square; /* the mean square of the block is what counts */
    return quantize_batch(&affine_q4_k, dst, src, importance, n);
}

static const struct frame frame_q4_k = {
    BATCH, 256, sizeof(struct block_q4_k), encode_q4_k, quantize_q4_k__scalar, quantize_weighted_q4_k__scalar};

void VARIANT(quantize_q4_k)(void *dst, const float *src, size_t n_elements)
{
    in_batches(&frame_q4_k, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_weighted_q4_k)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q4_k, dst, src, n_elements, importance, mean_square);
}

static bool encode_q5_k(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    (void)mean_square; /* the mean square of the block is what counts */
    return quantize_batch(&affine_q5_k, dst, src, importance, n);
}

static const struct frame frame_q5_k = {
    BATCH, 256, sizeof(struct block_q5_k), encode_q5_k, quantize_q5_k__scalar, quantize_weighted_q5_k__scalar};

void VARIANT(quantize_q5_k)(void *dst, const float *src, size_t n_elements)
{
    in_batches(&frame_q5_k, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_weighted_q5_k)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    in_batches(&frame_q5_k, dst, src, n_elements, importance, mean_square);
}
