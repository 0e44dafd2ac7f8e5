#include "kernels/scalar/affine_k.h"

#include <math.h>

#include "kernels/variants.h"

/* What the search finds for the sub-blocks. */
struct fits {
    float scales[AFFINE_K_RUNS], mins[AFFINE_K_RUNS];
    float weights[AFFINE_K_RUNS]; /* with importance: sums of weights */
};

/* Without importance an element weighs its magnitude and, with most types, the root mean square of its sub-block. */
static void weights_plain(size_t n, bool with_rms, const float *x, float *ret)
{
    float sum = 0;
    for (size_t l = 0; with_rms && l < n; l++)
        sum += x[l] * x[l];
    const float rms = sqrtf(sum / (float)n);
    for (size_t l = 0; l < n; l++)
        ret[l] = rms + fabsf(x[l]);
}

static void search_plain(const struct affine_k *k, const float x[256], uint8_t codes[256], struct fits *ret)
{
    for (size_t j = 0, at = 0; at < 256; j++, at += k->run) {
        float weights[32];
        weights_plain(k->run, k->rms, x + at, weights);
        ret->scales[j] =
            search_affine((int)k->run, k->n_max, x + at, weights, &k->plain.trials, codes + at, &ret->mins[j]);
    }
}

static void search_weighted(const struct affine_k *k, const float x[256], const float importance[256],
                            uint8_t codes[256], struct fits *ret)
{
    const float sigma2 = k->share * sum_squares__scalar(0, x, 256) / 256;
    for (size_t j = 0, at = 0; at < 256; j++, at += k->run) {
        float weights[32], sum = 0;
        for (size_t l = 0; l < k->run; l++) {
            weights[l] = importance[at + l] * sqrtf(sigma2 + x[at + l] * x[at + l]);
            sum += weights[l];
        }
        ret->weights[j] = sum;
        ret->scales[j] =
            search_affine((int)k->run, k->n_max, x + at, weights, &k->weighted.trials, codes + at, &ret->mins[j]);
    }
}

/* The codes once more, now that the scales are what is stored. */
static void encode(const struct affine_k *k, const float x[256], const struct affine_head *head, uint8_t codes[256])
{
    for (size_t j = 0, at = 0; at < 256; j++, at += k->run)
        for (size_t l = at; l < at + k->run && head->steps[j] != 0; l++)
            codes[l] = (uint8_t)clamp_int(nearest_int((x[l] + head->lows[j]) / head->steps[j]), 0, k->n_max);
}

static void quantize_block(const struct affine_k *k, void *dst, const float x[256], const float *importance)
{
    const int n = 256 / (int)k->run;
    uint8_t codes[256];
    struct fits fits;
    struct affine_levels levels;
    struct affine_head head;
    if (importance) {
        search_weighted(k, x, importance, codes, &fits);
        levels.d = search_positive(n, k->n_levels, fits.scales, fits.weights, levels.scales);
        levels.dmin = search_positive(n, k->n_levels, fits.mins, fits.weights, levels.mins);
    } else {
        search_plain(k, x, codes, &fits);
        levels.d = affine_levels_linear((size_t)n, k->n_levels, fits.scales, levels.scales);
        levels.dmin = affine_levels_linear((size_t)n, k->n_levels, fits.mins, levels.mins);
    }
    affine_head_of(k, &levels, importance ? k->weighted.cut : k->plain.cut, &head);
    encode(k, x, &head, codes);
    k->store(dst, &head, codes);
}

void affine_k_quantize(const struct affine_k *k, void *dst, const float *src, size_t n_elements,
                       const float *importance)
{
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], w[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        if (importance)
            memcpy(w, (const char *)importance + i * sizeof w, sizeof w);
        quantize_block(k, (char *)dst + i * k->block_bytes, x, importance ? w : NULL);
    }
}
