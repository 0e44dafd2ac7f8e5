#include "kernels/scalar/search.h"

#include <math.h>

/* What does not count as zero (GROUP_MAX_EPS). */
static const float smallest = 1e-15f;

/* --- x ~ scale * code - min --- */

struct affine {
    float scale, min; /* min <= 0: the value of code 0 */
};

static void encode_affine(int n, int n_max, const float *x, float inverse, float min, uint8_t *codes)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)clamp_int(nearest_int(inverse * (x[i] - min)), 0, n_max);
}

static float affine_error(int n, const float *x, const float *weights, const uint8_t *codes, struct affine fit,
                          bool absolute)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        float diff = fit.scale * codes[i] + fit.min - x[i];
        diff = absolute ? fabsf(diff) : diff * diff;
        sum += weights[i] * diff;
    }
    return sum;
}

/* Weighted least squares for the scale and the minimum of given codes. False: the codes do not determine them. */
static bool fit_affine(int n, const float *x, const float *weights, const uint8_t *codes, float sum_w, float sum_x,
                       struct affine *ret)
{
    float sum_l = 0, sum_l2 = 0, sum_xl = 0;
    for (int i = 0; i < n; i++) {
        const float w = weights[i], l = codes[i];
        sum_l += w * l;
        sum_l2 += w * l * l;
        sum_xl += w * l * x[i];
    }
    const float determinant = sum_w * sum_l2 - sum_l * sum_l;
    if (!(determinant > 0))
        return false;
    ret->scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    ret->min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    if (ret->min > 0) {
        ret->min = 0;
        ret->scale = sum_xl / sum_l2;
    }
    return true;
}

/* The trials go on from the best minimum so far, as the field's do. */
float search_affine(int n, int n_max, const float *x, const float *weights, const struct affine_trials *trials,
                    uint8_t *codes, float *ret_min)
{
    float min = x[0], max = x[0], sum_w = weights[0], sum_x = sum_w * x[0];
    for (int i = 1; i < n; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
        sum_w += weights[i];
        sum_x += weights[i] * x[i];
    }
    min = min > 0 ? 0 : min;
    if (max <= min) {
        memset(codes, 0, (size_t)n);
        *ret_min = -min;
        return 0;
    }
    const float inverse = (float)n_max / (max - min);
    struct affine best = {.scale = 1 / inverse, .min = min};
    encode_affine(n, n_max, x, inverse, min, codes);
    float best_error = affine_error(n, x, weights, codes, best, trials->absolute);
    for (int i = 0; i <= trials->n_steps; i++) {
        const float tried_inverse = (trials->first + trials->step * (float)i + (float)n_max) / (max - best.min);
        uint8_t tried[32];
        struct affine fit;
        encode_affine(n, n_max, x, tried_inverse, best.min, tried);
        if (!fit_affine(n, x, weights, tried, sum_w, sum_x, &fit))
            continue;
        const float error = affine_error(n, x, weights, tried, fit, trials->absolute);
        if (error < best_error) {
            memcpy(codes, tried, (size_t)n);
            best_error = error;
            best = fit;
        }
    }
    *ret_min = -best.min;
    return best.scale;
}

/* --- x ~ scale * code, x >= 0 --- */

/*
 * x[i] < 0 has no business here, but a scale can be that by rounding, and then the field's bytes decide: @byte is
 * the code as its first pass sees it.
 */
static float positive_error(int n, int n_max, const float *x, const float *weights, float inverse, bool byte)
{
    const float scale = 1 / inverse;
    float sum = 0;
    for (int i = 0; i < n; i++) {
        const int l = nearest_int(inverse * x[i]), code = byte ? (uint8_t)l : l < n_max ? l : n_max;
        const float diff = x[i] - scale * (float)code;
        sum += weights[i] * diff * diff;
    }
    return sum;
}

/* The inverse scale of least error among nine around n_max / max. */
static float best_inverse(int n, int n_max, const float *x, const float *weights, float max)
{
    float best = (float)n_max / max;
    float least = positive_error(n, n_max, x, weights, best, true);
    for (int i = -4; i <= 4; i++) {
        if (i == 0)
            continue;
        const float inverse = (0.1f * (float)i + (float)n_max) / max;
        const float error = positive_error(n, n_max, x, weights, inverse, false);
        if (error < least) {
            least = error;
            best = inverse;
        }
    }
    return best;
}

/* One round of moving single codes where that brings the fit nearer; how many were moved. */
static int refine_positive(int n, int n_max, const float *x, const float *weights, uint8_t *codes, float *sum_lx,
                           float *sum_l2)
{
    int n_changed = 0;
    for (int i = 0; i < n; i++) {
        const float w = weights[i], old = codes[i];
        float lx = *sum_lx - w * x[i] * old;
        float l2 = *sum_l2 - w * old * old;
        if (!(lx > 0 && l2 > 0))
            continue;
        int code = nearest_int(x[i] * l2 / lx);
        code = code < n_max ? code : n_max;
        if (code == codes[i])
            continue;
        lx += w * x[i] * (float)code;
        l2 += w * (float)code * (float)code;
        if (lx * lx * *sum_l2 > *sum_lx * *sum_lx * l2) {
            codes[i] = (uint8_t)code;
            *sum_lx = lx;
            *sum_l2 = l2;
            n_changed++;
        }
    }
    return n_changed;
}

float search_positive(int n, int n_max, const float *x, const float *weights, uint8_t *codes)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = max > x[i] ? max : x[i];
    if (max < smallest) {
        memset(codes, 0, (size_t)n);
        return 0;
    }
    const float inverse = best_inverse(n, n_max, x, weights, max);
    float sum_lx = 0, sum_l2 = 0;
    for (int i = 0; i < n; i++) {
        const int l = nearest_int(inverse * x[i]), least = l < n_max ? l : n_max;
        const float code = (float)least;
        codes[i] = (uint8_t)least;
        sum_lx += weights[i] * x[i] * code;
        sum_l2 += weights[i] * code * code;
    }
    for (int round = 0; round < 5; round++)
        if (!refine_positive(n, n_max, x, weights, codes, &sum_lx, &sum_l2))
            break;
    return sum_l2 > 0 ? sum_lx / sum_l2 : 0;
}

/* --- x ~ scale * (code - n_max), codes 0 .. 2 * n_max - 1 --- */

/* The element of largest magnitude with its sign: the first of equals. */
static float extreme_of(int n, const float *x)
{
    float extreme = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    return extreme;
}

/* What least squares asks of the codes of an inverse scale: the best scale for them is lx / l2. */
struct symmetric_sums {
    float lx, l2;
};

static int symmetric_level(int n_max, float quotient)
{
    return clamp_int(nearest_int(quotient), -n_max, n_max - 1);
}

/* @n: a multiple of 16. Terms first, then their sums in order: compilers make vectors of the former. */
static struct symmetric_sums sums_of(int n, int n_max, const float *x, const float *weights, float inverse)
{
    struct symmetric_sums s = {0, 0};
    for (int first = 0; first < n; first += 16) {
        float lx[16], l2[16];
        for (int i = 0; i < 16; i++) {
            const float v = x[first + i], w = weights[first + i], l = (float)symmetric_level(n_max, inverse * v);
            lx[i] = w * v * l;
            l2[i] = w * l * l;
        }
        for (int i = 0; i < 16; i++) {
            s.lx += lx[i];
            s.l2 += l2[i];
        }
    }
    return s;
}

float search_symmetric(int n, int n_max, const float *x, const float *weights, uint8_t *codes)
{
    const float extreme = extreme_of(n, x);
    if (fabsf(extreme) < smallest) {
        memset(codes, 0, (size_t)n);
        return 0;
    }
    float inverse = (float)-n_max / extreme;
    struct symmetric_sums s = sums_of(n, n_max, x, weights, inverse);
    float scale = s.l2 != 0 ? s.lx / s.l2 : 0, best = scale * s.lx;
    for (int i = -9; i <= 9; i++) {
        const float tried = -((float)n_max + 0.1f * (float)i) / extreme;
        if (i == 0)
            continue;
        s = sums_of(n, n_max, x, weights, tried);
        if (s.l2 > 0 && s.lx * s.lx > best * s.l2) {
            scale = s.lx / s.l2;
            best = scale * s.lx;
            inverse = tried;
        }
    }
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(symmetric_level(n_max, inverse * x[i]) + n_max);
    return scale;
}

/* One round of moving single codes where that brings the fit nearer, elements weighing x^2; how many moved. */
static int move_levels(int n, int n_max, const float *x, int *levels, struct symmetric_sums *s)
{
    int n_moved = 0;
    for (int i = 0; i < n; i++) {
        const float w = x[i] * x[i], old = (float)levels[i];
        struct symmetric_sums tried = {s->lx - w * x[i] * old, s->l2 - w * old * old};
        if (!(tried.lx > 0))
            continue;
        const int level = symmetric_level(n_max, x[i] * tried.l2 / tried.lx);
        if (level == levels[i])
            continue;
        tried.lx += w * x[i] * (float)level;
        tried.l2 += w * (float)level * (float)level;
        if (tried.l2 > 0 && tried.lx * tried.lx * s->l2 > s->lx * s->lx * tried.l2) {
            levels[i] = level;
            *s = tried;
            n_moved++;
        }
    }
    return n_moved;
}

/* Where the extreme is positive every term of lx is at most 0, and so is lx without one of them: nothing moves. */
float search_moves(int n, int n_max, const float *x, uint8_t *codes)
{
    const float extreme = extreme_of(n, x), inverse = (float)-n_max / extreme;
    float weights[32];
    int levels[32];
    if (fabsf(extreme) < smallest) {
        memset(codes, 0, (size_t)n);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        weights[i] = x[i] * x[i];
        levels[i] = symmetric_level(n_max, inverse * x[i]);
    }
    struct symmetric_sums s = sums_of(n, n_max, x, weights, inverse);
    for (int round = 0; round < 5 && extreme < 0; round++)
        if (!move_levels(n, n_max, x, levels, &s))
            break;
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(levels[i] + n_max);
    return s.l2 > 0 ? s.lx / s.l2 : 0;
}
