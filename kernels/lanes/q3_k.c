/* q3_k: the searches for sub-blocks of 16 side by side, the codes in the order of the elements. */
#include "kernels/layout/symmetric.h"

#include "kernels/lanes/moves.h"
#include "kernels/lanes/symmetric.h"
#include "kernels/lanes/weights.h"
#include "kernels/variants.h"

enum {
    RUN_BYTES = 16 * 4,
    BLOCK_BYTES = 16 * RUN_BYTES,
    BATCH = MOVES_RUNS / 16 /* super-blocks that are looked at together */,
    WIDTH_BLOCKS = WIDTH > 16 ? WIDTH / 16 : 1 /* and that have their sums made side by side */
};
_Static_assert(BATCH % WIDTH_BLOCKS == 0, "runs of a batch");

/* A super-block from the scales of its sub-blocks. False: it is for the definition. */
static inline bool encode(struct block_q3_k *dst, const char *x, const float scales[16], const float extreme[16])
{
    struct k3_head head;
    uint8_t codes[256];
    unsigned zero;
    k3_head_of(scales, &head);
    if (!symmetric_encode_256(4, x, head.steps, extreme, codes, &zero))
        return false;
    for (; zero; zero &= zero - 1) { /* the codes of the search; the scale is known */
        const size_t j = (size_t)__builtin_ctz(zero);
        float run[16];
        memcpy(run, x + j * RUN_BYTES, sizeof run);
        (void)search_moves(16, 4, run, codes + 16 * j);
    }
    k3_store(dst, &head, codes);
    return true;
}

/* @n super-blocks, BATCH at most. */
static void quantize_batch(struct block_q3_k *dst, const char *src, size_t n)
{
    struct moves m;
    float scales[MOVES_RUNS];
    for (size_t i = 0; i < n; i += WIDTH_BLOCKS) {
        const size_t now = n - i < WIDTH_BLOCKS ? n - i : WIDTH_BLOCKS;
        char last[WIDTH_BLOCKS * BLOCK_BYTES];
        const char *blocks = whole_batch(src + i * BLOCK_BYTES, now, WIDTH_BLOCKS, BLOCK_BYTES, last);
        for (size_t run = 0; run < 16 * WIDTH_BLOCKS; run += WIDTH) {
            _Alignas(64) float x[16][WIDTH];
            load_columns(x, blocks + run * RUN_BYTES, RUN_BYTES, 16);
            moves_begin(4, x, 16 * i + run, &m);
        }
    }
    moves_search(4, src, 16 * n, &m, scales);
    for (size_t i = 0; i < n; i++) {
        const char *x = src + i * BLOCK_BYTES;
        if (!encode(&dst[i], x, scales + 16 * i, m.extreme + 16 * i))
            quantize_q3_k__scalar(&dst[i], (const float *)(const void *)x, 256);
    }
}

void VARIANT(quantize_q3_k)(void *dst, const float *src, size_t n_elements)
{
    struct block_q3_k *b = dst;
    for (size_t n = n_elements / 256, i = 0, now; i < n; i += now) {
        now = n - i < BATCH ? n - i : BATCH;
        quantize_batch(b + i, (const char *)src + i * BLOCK_BYTES, now);
    }
}

/* --- with importance --- */

/* Super-blocks whose own scales are searched side by side: one a lane. */
struct weighted {
    _Alignas(64) float scales[WIDTH][16], inverse[WIDTH][16], extreme[WIDTH][16], weights[WIDTH][16];
    float d[WIDTH], d_inverse[WIDTH], d_extreme[WIDTH];
};

/* The sub-blocks of WIDTH_BLOCKS super-blocks, the first of which is @block. */
static inline void search_runs(const char *src, const char *importance, const float squares[WIDTH], size_t block,
                               struct weighted *b)
{
    for (size_t run = 0; run < 16 * WIDTH_BLOCKS; run += WIDTH) {
        _Alignas(64) float x[16][WIDTH];
        _Alignas(64) float w[16][WIDTH];
        float sigma2[WIDTH];
        struct symmetric_lanes found[VECTORS];
        float *const scales = b->scales[block] + run, *const inverse = b->inverse[block] + run;
        for (size_t i = 0; i < WIDTH; i++)
            sigma2[i] = 2 * squares[block + (run + i) / 16] / 256;
        load_columns(x, src + run * RUN_BYTES, RUN_BYTES, 16);
        load_columns(w, importance + run * RUN_BYTES, RUN_BYTES, 16);
        weigh(16, WIDTH, x[0], w[0], sigma2, b->weights[block] + run);
        symmetric_search(16, 4, x, w, found);
        EACH_VECTOR(k)
        {
            vf_store(scales + k * LANES, found[k].scale);
            vf_store(inverse + k * LANES, found[k].inverse);
            vf_store(b->extreme[block] + run + k * LANES, found[k].extreme);
        }
    }
}

/* The scales of the super-blocks' scales. */
static inline void search_scales(struct weighted *b)
{
    _Alignas(64) float x[16][WIDTH];
    _Alignas(64) float w[16][WIDTH];
    struct symmetric_lanes found[VECTORS];
    load_columns(x, b->scales, sizeof b->scales[0], 16);
    load_columns(w, b->weights, sizeof b->weights[0], 16);
    symmetric_search(16, 32, x, w, found);
    EACH_VECTOR(k)
    {
        vf_store(b->d + k * LANES, found[k].scale);
        vf_store(b->d_inverse + k * LANES, found[k].inverse);
        vf_store(b->d_extreme + k * LANES, found[k].extreme);
    }
}

/* Sums beyond f32 make scales that vectors would not round as the definition does. */
static inline bool scales_ordinary(const float scales[16])
{
    bool all = true;
    for (size_t j = 0; j < 16; j += LANES)
        all = all && vm_all(vf_lt(vf_abs(vf_load(scales + j)), vf_set1(1e37f)));
    return all;
}

static inline bool encode_weighted(struct block_q3_k *dst, const char *x, const struct weighted *b, size_t i)
{
    struct k3_head head = {.d = f16_of_scale(b->d[i])};
    uint8_t codes[256];
    unsigned zero;
    if (!scales_ordinary(b->scales[i]))
        return false;
    symmetric_encode_found(16, 32, (const char *)b->scales[i], b->d_inverse[i], b->d_extreme[i], head.scales);
    k3_steps(&head);
    if (!symmetric_encode_256(4, x, head.steps, b->extreme[i], codes, &zero))
        return false;
    for (; zero; zero &= zero - 1) {
        const size_t j = (size_t)__builtin_ctz(zero);
        symmetric_encode_found(16, 4, x + j * RUN_BYTES, b->inverse[i][j], b->extreme[i][j], codes + 16 * j);
    }
    k3_store(dst, &head, codes);
    return true;
}

/* @n super-blocks, WIDTH at most. */
static void quantize_weighted(struct block_q3_k *dst, const char *src, const char *importance, size_t n)
{
    struct weighted b;
    float squares[WIDTH];
    char last[WIDTH_BLOCKS * BLOCK_BYTES], last_w[WIDTH_BLOCKS * BLOCK_BYTES];
    memset(b.scales, 0, sizeof b.scales);
    memset(b.weights, 0, sizeof b.weights);
    squares_256(src, n, squares);
    for (size_t i = 0; i < n; i += WIDTH_BLOCKS) {
        const size_t now = n - i < WIDTH_BLOCKS ? n - i : WIDTH_BLOCKS, at = i * BLOCK_BYTES;
        search_runs(whole_batch(src + at, now, WIDTH_BLOCKS, BLOCK_BYTES, last),
                    whole_batch(importance + at, now, WIDTH_BLOCKS, BLOCK_BYTES, last_w), squares, i, &b);
    }
    search_scales(&b);
    for (size_t i = 0; i < n; i++) {
        const float *x = (const float *)(const void *)(src + i * BLOCK_BYTES);
        if (!encode_weighted(&dst[i], src + i * BLOCK_BYTES, &b, i))
            quantize_weighted_q3_k__scalar(&dst[i], x, 256, (const float *)(const void *)(importance + i * BLOCK_BYTES),
                                           0);
    }
}

void VARIANT(quantize_weighted_q3_k)(void *dst, const float *src, size_t n_elements, const float *importance,
                                     float mean_square)
{
    struct block_q3_k *b = dst;
    (void)mean_square; /* the mean square of the block is what counts */
    for (size_t n = n_elements / 256, i = 0, now; i < n; i += now) {
        now = n - i < WIDTH ? n - i : WIDTH;
        quantize_weighted(b + i, (const char *)src + i * BLOCK_BYTES, (const char *)importance + i * BLOCK_BYTES, now);
    }
}
