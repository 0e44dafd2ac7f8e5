/*
 * Activations: kernels/scalar/activate.c over vectors. Blocks of 32 that follow each other in a column go LANES at a
 * time, a lane each from the moment that a number stands for a block: its largest magnitude, its scale, its sums.
 */
#include "kernels/variants.h"

#include <math.h>

#include "kernels/lanes/vec.h"
#include "kernels/layout/blocks.h"

enum { FLOAT = sizeof(float), HALF = BLOCK_32 / 2, SUBS = BLOCK_256 / BLOCK_32 };
enum { RUN_256 = (int)LANES < (int)SUBS ? (int)SUBS : (int)LANES };

#define UNROLLED _Pragma("GCC unroll 4")

/* Where a run of blocks of 32 comes from and goes to. */
struct run {
    const char *x; /* floats at any address */
    size_t b, c, n;
};

/* Blocks [b, end) of column @c, at most @most of them. */
static inline struct run run_of(const struct activation_source *src, size_t b, size_t end, size_t c, size_t most)
{
    return (struct run){.x = (const char *)(src->x + c * src->stride + b * BLOCK_32),
                        .b = b,
                        .c = c,
                        .n = end - b < most ? end - b : most};
}

/* Lane by lane the largest bits of |x|, which order as magnitudes do: NaN above Inf above all numbers. */
static inline vi magnitudes(const char *x, size_t n)
{
    vi m = vi_set1(0);
    UNROLLED
    for (size_t j = 0; j < n; j += LANES)
        m = vi_max(m, vi_bits(vf_abs(vf_load(x + j * FLOAT))));
    return m;
}

static inline bool all_finite(vi magnitude)
{
    return vm_all(vf_lt(vf_bits(magnitude), vf_set1(INFINITY)));
}

/* Lane i: sum of all lanes of v[i]. */
static inline vi sum_of_each(vf v[LANES])
{
    transpose(v);
    vi sum = vi_bits(v[0]);
    for (size_t i = 1; i < LANES; i++)
        sum = vi_add(sum, vi_bits(v[i]));
    return sum;
}

/* 16 codes; returns a vector whose lanes add up to their sum. */
static inline vi make_codes(int8_t *q, const char *x, vf inverse)
{
    vi sum = vi_set1(0);
    UNROLLED
    for (size_t j = 0; j < HALF; j += LANES) {
        const vi v = vi_min(vi_of_vf(vf_mul(vf_load(x + j * FLOAT), inverse)), vi_set1(127));
        vi_store_bytes(q + j, v);
        sum = vi_add(sum, v);
    }
    return sum;
}

/* Codes of a run; in each lane the sums of a block's halves. Lanes beyond the run hold nothing. */
static inline void make_run(struct activation_tile *t, const struct activation_source *src, const struct run *r,
                            const float inverse[LANES], vi ret_halves[2])
{
    vf first[LANES], last[LANES];
    for (size_t i = 0; i < r->n; i++) {
        int8_t *q = t->q + ((r->b + i) * src->width + r->c) * BLOCK_32;
        const char *x = r->x + i * BLOCK_32 * FLOAT;
        first[i] = vf_bits(make_codes(q, x, vf_set1(inverse[i])));
        last[i] = vf_bits(make_codes(q + HALF, x + HALF * FLOAT, vf_set1(inverse[i])));
    }
    for (size_t i = r->n; i < LANES; i++)
        first[i] = last[i] = vf_set1(0);
    ret_halves[0] = sum_of_each(first);
    ret_halves[1] = sum_of_each(last);
}

/* Sums of the units of a run: minus the offset times the sum of codes. */
static inline void store_sums(struct activation_tile *t, const struct activation_source *src, const struct run *r,
                              const vi halves[2])
{
    const size_t units = BLOCK_32 / src->unit;
    int32_t first[LANES], last[LANES];
    vi_store(first, units == 1 ? vi_add(halves[0], halves[1]) : halves[0]);
    vi_store(last, halves[1]);
    int32_t *sums = t->sums + r->b * units * src->width + r->c;
    for (size_t i = 0; i < r->n; i++) {
        sums[i * units * src->width] = -src->offset * first[i];
        if (units == 2)
            sums[(2 * i + 1) * src->width] = -src->offset * last[i];
    }
}

/* --- blocks of 32 --- */

static inline bool activate_run_32(struct activation_tile *t, const struct activation_source *src, const struct run *r)
{
    vf m[LANES];
    vi all = vi_set1(0), halves[2];
    for (size_t i = 0; i < r->n; i++) {
        const vi magnitude = magnitudes(r->x + i * BLOCK_32 * FLOAT, BLOCK_32);
        all = vi_max(all, magnitude);
        m[i] = vf_bits(magnitude);
    }
    for (size_t i = r->n; i < LANES; i++)
        m[i] = vf_set1(0);
    if (!all_finite(all))
        return false;
    const vf largest = vf_largest_of_each(m), quotient = vf_div(vf_set1(127), largest);
    float inverse[LANES], scale[LANES];
    uint16_t half[LANES];
    vf_store(inverse, vf_select(vf_lt(quotient, vf_set1(INFINITY)), quotient, vf_set1(0)));
    vf_store_f16(half, vf_div(largest, vf_set1(127)));
    vf_store(scale, vf_load_f16(half));
    for (size_t i = 0; i < r->n; i++)
        t->scale[(r->b + i) * src->width + r->c] = scale[i];
    make_run(t, src, r, inverse, halves);
    store_sums(t, src, r, halves);
    return true;
}

/* A tile with NaN or Inf is left to the definition. */
void VARIANT(activate_32)(struct activation_tile *dst, const struct activation_source *src)
{
    bool finite = true;
    for (size_t c = 0; c < src->width; c++)
        for (size_t b = 0; b < src->n_blocks; b += LANES) {
            const struct run r = run_of(src, b, src->n_blocks, c, LANES);
            finite &= activate_run_32(dst, src, &r);
        }
    if (!finite)
        activate_32__scalar(dst, src);
}

/* --- blocks of 256 --- */

/* The first of 256 x whose magnitude is @largest. */
static inline float first_of_magnitude(const char *x, float largest)
{
    for (size_t j = 0; j < BLOCK_256; j += LANES) {
        const unsigned found = vm_bits(vf_eq(vf_abs(vf_load(x + j * FLOAT)), vf_set1(largest)));
        if (found) {
            float first;
            memcpy(&first, x + (j + (size_t)__builtin_ctz(found)) * FLOAT, sizeof first);
            return first;
        }
    }
    return 0; /* not reached: one of them is the largest */
}

/* What 256 x are multiplied by to become codes; false where one is NaN or Inf. */
static inline bool inverse_256(const char *x, float *ret)
{
    const vi m = magnitudes(x, BLOCK_256);
    if (!all_finite(m))
        return false;
    const float largest = vf_largest(vf_bits(m));
    *ret = 127.0f / largest < INFINITY ? -127.0f / first_of_magnitude(x, largest) : 0;
    return true;
}

static inline void store_pairs(struct activation_tile *t, const struct activation_source *src, const struct run *r,
                               vi whole)
{
    int32_t sums[LANES];
    vi_store(sums, whole);
    for (size_t i = 0; i < r->n; i++) {
        const size_t b = r->b + i;
        t->pairs[(b / SUBS * src->width + r->c) * SUBS + b % SUBS] = (int16_t)sums[i];
    }
}

static inline bool activate_run_256(struct activation_tile *t, const struct activation_source *src, const struct run *r)
{
    float inverse[RUN_256];
    for (size_t i = 0; i < r->n; i += SUBS) {
        if (!inverse_256(r->x + i * BLOCK_32 * FLOAT, &inverse[i]))
            return false;
        t->scale[(r->b + i) / SUBS * src->width + r->c] = inverse[i] != 0 ? 1.0f / inverse[i] : 0;
        for (size_t j = 1; j < SUBS; j++)
            inverse[i + j] = inverse[i];
    }
    for (size_t i = 0; i < r->n; i += LANES) {
        const struct run part = run_of(src, r->b + i, r->b + r->n, r->c, LANES);
        vi halves[2];
        make_run(t, src, &part, inverse + i, halves);
        store_sums(t, src, &part, halves);
        store_pairs(t, src, &part, vi_add(halves[0], halves[1]));
    }
    return true;
}

void VARIANT(activate_256)(struct activation_tile *dst, const struct activation_source *src)
{
    bool finite = true;
    for (size_t c = 0; c < src->width; c++)
        for (size_t b = 0; b < src->n_blocks * SUBS; b += RUN_256) {
            const struct run r = run_of(src, b, src->n_blocks * SUBS, c, RUN_256);
            finite &= activate_run_256(dst, src, &r);
        }
    if (!finite)
        activate_256__scalar(dst, src);
}
