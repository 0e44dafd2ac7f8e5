/*
 * Products lie within the bound of docs/formats/compute.md of the exact ones: every type that has a rule of its own,
 * and some that are decoded, over all kinds of data. Says how much of the bound was used at most.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quantd/matmul.h>

#include "kernels/compute/view.h"
#include "kernels/kernels.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/codes.h"
#include "kernels/layout/pack.h"
#include "kernels/layout/packed.h"
#include "kernels/scalar/half.h"
#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"

enum { ROWS = 19 /* whole groups of every layout, and some that are left */, COLUMNS_MAX = 5, ELEMENTS_MAX = 4096 };

/* A weight is the sum of its parts: main + offset, each exact. */
struct part {
    double main, offset;
};

static struct {
    uint8_t weights[ROWS * ELEMENTS_MAX * 4], zeros[ROWS * ELEMENTS_MAX / 32];
    float scales[ROWS * ELEMENTS_MAX / 32]; /* of codes alone, as zeros */
    struct part parts[ELEMENTS_MAX];
    float decoded[ELEMENTS_MAX], x[COLUMNS_MAX * ELEMENTS_MAX], y[COLUMNS_MAX * ROWS];
    int8_t q[ELEMENTS_MAX];
    float scale[ELEMENTS_MAX / 32];
    int32_t sums[ELEMENTS_MAX / 16];
    int16_t pairs[ELEMENTS_MAX / 32];
    double activations[ELEMENTS_MAX];
} bed_of;

/* ---- exact weights ------------------------------------------------------------------------------------------- */

typedef void parts_fn(const uint8_t *row, size_t n, struct part *dst);

static void parts_q2_k(const uint8_t *row, size_t n, struct part *dst)
{
    for (size_t i = 0; i < n; i++) {
        struct block_q2_k b;
        memcpy(&b, row + i / 256 * sizeof b, sizeof b);
        const size_t e = i % 256, k = e / 16;
        const int code = b.q[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3;
        dst[i] = (struct part){(double)f32_of_f16(b.d) * (b.scales[k] & 15) * code,
                               -(double)f32_of_f16(b.dmin) * (b.scales[k] >> 4)};
    }
}

static struct part affine_part(const uint8_t packed[12], uint16_t d, uint16_t dmin, size_t k, int code)
{
    uint8_t scales[8], mins[8];
    unpack_scales_k4(packed, scales, mins);
    return (struct part){(double)f32_of_f16(d) * scales[k] * code, -(double)f32_of_f16(dmin) * mins[k]};
}

static void parts_q4_k(const uint8_t *row, size_t n, struct part *dst)
{
    for (size_t i = 0; i < n; i++) {
        struct block_q4_k b;
        memcpy(&b, row + i / 256 * sizeof b, sizeof b);
        const size_t e = i % 256, k = e / 32;
        dst[i] = affine_part(b.scales, b.d, b.dmin, k, b.q[e / 64 * 32 + e % 32] >> (k % 2 * 4) & 15);
    }
}

static void parts_q5_k(const uint8_t *row, size_t n, struct part *dst)
{
    for (size_t i = 0; i < n; i++) {
        struct block_q5_k b;
        memcpy(&b, row + i / 256 * sizeof b, sizeof b);
        const size_t e = i % 256, k = e / 32;
        const int low = b.q[e / 64 * 32 + e % 32] >> (k % 2 * 4) & 15, high = b.high[e % 32] >> k & 1;
        dst[i] = affine_part(b.scales, b.d, b.dmin, k, high << 4 | low);
    }
}

static void parts_q6_k(const uint8_t *row, size_t n, struct part *dst)
{
    for (size_t i = 0; i < n; i++) {
        struct block_q6_k b;
        memcpy(&b, row + i / 256 * sizeof b, sizeof b);
        const size_t e = i % 256, h = e / 128, l = e % 128;
        const int low = b.low[64 * h + l % 64] >> (l / 64 * 4) & 15, high = b.high[32 * h + l % 32] >> (l / 32 * 2) & 3;
        dst[i] = (struct part){.main = (double)f32_of_f16(b.d) * b.scales[e / 16] * ((high << 4 | low) - 32)};
    }
}

static void parts_decoded(enum qd_type type, const uint8_t *row, size_t n, struct part *dst)
{
    ops_for(0)->dequantize[type](bed_of.decoded, row, n); /* exact, or what the product is defined by */
    for (size_t i = 0; i < n; i++)
        dst[i] = (struct part){.main = (double)bed_of.decoded[i]};
}

/* Codes alone, in order rows: scale * (code - zero point), exact in double. */
static void parts_of_codes(const struct qd_matrix *w, size_t r, struct part *dst)
{
    const struct code_shape s = {.type = w->type, .n_rows = w->n_rows, .n_cols = w->n_cols, .block = w->block};
    for (size_t k = 0; k < s.n_cols; k++) {
        const size_t i = s.block ? k / s.block : 0;
        const int zero = w->zero_points ? codes_zero(&s, w->zero_points, r, i, 1) : w->type == QD_TYPE_U4 ? 8 : 0;
        dst[k] =
            (struct part){.main = (double)codes_scale(&s, w->scales, r, i, 1) * (codes_at(&s, w->data, r, k) - zero)};
    }
}

/* docs/formats/compute.md, "The bound": a term meets at most n_cols / per + more roundings. */
static const struct rule {
    enum qd_type type;
    parts_fn *parts; /* NULL: as it is decoded, or codes alone */
    size_t per, more;
    size_t block; /* of codes alone */
    bool has_zeros;
} rules[] = {
    {QD_TYPE_Q8_0, NULL, 32, 0},
    {QD_TYPE_Q4_0, NULL, 32, 0},
    {QD_TYPE_Q2_K, parts_q2_k, 128, 1},
    {QD_TYPE_Q3_K, NULL, 256, 1},
    {QD_TYPE_Q4_K, parts_q4_k, 128, 5},
    {QD_TYPE_Q5_K, parts_q5_k, 128, 7},
    {QD_TYPE_Q6_K, parts_q6_k, 256, 15},
    {QD_TYPE_F32, NULL, 64, 6},
    {QD_TYPE_F16, NULL, 64, 6},
    {QD_TYPE_Q5_1, NULL, 64, 6},
    {QD_TYPE_IQ4_NL, NULL, 64, 6},
    {QD_TYPE_I8, NULL, 32, 1},
    {QD_TYPE_I8, NULL, 32, 1, .block = 64},
    {QD_TYPE_I4, NULL, 32, 1, .block = 32},
    {QD_TYPE_U4, NULL, 32, 1, .block = 128},
    {QD_TYPE_U4, NULL, 32, 1, .block = 64, .has_zeros = true},
};

static struct qd_matrix matrix_of(const struct rule *rule, size_t n)
{
    struct qd_matrix w = {.data = bed_of.weights, .n_rows = ROWS, .n_cols = n, .type = rule->type};
    if (layout_is_codes(rule->type)) {
        w.scales = bed_of.scales;
        w.zero_points = rule->has_zeros ? bed_of.zeros : NULL;
        w.block = rule->block;
    }
    return w;
}

static void find_parts(const struct rule *rule, const struct qd_matrix *w, size_t r)
{
    const size_t n = w->n_cols;
    const uint8_t *row = (const uint8_t *)w->data + r * qd_type_row_bytes(w->type, n);
    if (layout_is_codes(w->type))
        parts_of_codes(w, r, bed_of.parts);
    else if (rule->parts)
        rule->parts(row, n, bed_of.parts);
    else
        parts_decoded(rule->type, row, n, bed_of.parts);
}

/* ---- exact activations, rounded to 8 bits ----------------------------------------------------------------------- */

static void find_activations(const struct activation_rule *rule, const float *x, size_t n)
{
    if (rule->block) {
        struct activation_tile tile = {bed_of.q, bed_of.scale, bed_of.sums, rule->block == 256 ? bed_of.pairs : NULL};
        const struct activation_source src = {
            .x = x, .stride = n, .width = 1, .n_blocks = n / rule->block, .offset = rule->offset, .unit = rule->unit};
        (rule->block == 256 ? ops_for(0)->activate_256 : ops_for(0)->activate_32)(&tile, &src);
    }
    for (size_t i = 0; i < n; i++)
        bed_of.activations[i] = rule->block ? (double)bed_of.scale[i / rule->block] * bed_of.q[i] : (double)x[i];
}

/* ---- trials ---------------------------------------------------------------------------------------------------- */

struct use {
    double most; /* of the bound, by any product so far */
    size_t n;
};

/* One product against the exact sum of the parts. */
static bool is_within(const struct rule *rule, size_t n, float y, struct use *use)
{
    double exact = 0, magnitude = 0;
    for (size_t i = 0; i < n; i++) {
        exact += (bed_of.parts[i].main + bed_of.parts[i].offset) * bed_of.activations[i];
        magnitude += (fabs(bed_of.parts[i].main) + fabs(bed_of.parts[i].offset)) * fabs(bed_of.activations[i]);
    }
    if (!(magnitude < 1e37)) /* near overflow nothing is promised; infinite scales end here, too */
        return true;
    const double c = (double)((n + rule->per - 1) / rule->per + rule->more);
    const double ours = magnitude * 0x1p-45, underflow = (double)n * 0x1p-130;
    const double bound = c * 0x1p-24 / (1 - c * 0x1p-24) * magnitude + underflow + ours;
    const double error = fabs((double)y - exact);
    use->most = bound > 0 && error / bound > use->most && magnitude > 1e-30 ? error / bound : use->most;
    use->n++;
    return error <= bound;
}

static bool try_product(const struct rule *rule, size_t n, size_t n_columns, struct use *use)
{
    static _Alignas(64) uint8_t scratch[4 << 20];
    const struct qd_matrix w = matrix_of(rule, n);
    struct matrix_view v;
    struct qd_error err;
    if (matrix_view(&w, &v, &err) < 0 ||
        qd_matmul(&w, bed_of.x, n_columns, bed_of.y, NULL, scratch, sizeof scratch, &err) < 0) {
        printf("# %s\n", err.message);
        return false;
    }
    for (size_t c = 0; c < n_columns; c++) {
        find_activations(&v.activation, bed_of.x + c * n, n);
        for (size_t r = 0; r < ROWS; r++) {
            find_parts(rule, &w, r);
            if (!is_within(rule, n, bed_of.y[c * ROWS + r], use)) {
                printf("# row %zu, column %zu, rows of %zu: %g\n", r, c, n, (double)bed_of.y[c * ROWS + r]);
                return false;
            }
        }
    }
    return true;
}

/* Any codes, scales of a kind; those near overflow are brought down: with a code of 0 they would be NaN. */
static void make_codes(enum qd_type type, size_t n, size_t kind, uint64_t seed)
{
    data_fill_blocks(bed_of.weights, ROWS * n / qd_type_info(type)->block_elements, type, 1, seed);
    data_fill_blocks(bed_of.zeros, sizeof bed_of.zeros, QD_TYPE_I8, 1, seed + 1);
    data_fill(kind, bed_of.scales, COUNT(bed_of.scales), seed);
    for (size_t i = 0; i < COUNT(bed_of.scales); i++)
        if (fabsf(bed_of.scales[i]) > 0x1p64f)
            bed_of.scales[i] *= 0x1p-64f;
}

static void make_weights(enum qd_type type, size_t n, size_t kind, uint64_t seed)
{
    const size_t block = qd_type_info(type)->block_elements, row_bytes = qd_type_row_bytes(type, n);
    if (layout_is_codes(type)) {
        make_codes(type, n, kind, seed);
        return;
    }
    if (seed % 2) {
        data_fill_blocks(bed_of.weights, ROWS * n / block, type, 1, seed);
        return;
    }
    for (size_t r = 0; r < ROWS; r++) {
        data_fill(kind, bed_of.decoded, n, seed + r);
        ops_for(0)->quantize[type](bed_of.weights + r * row_bytes, bed_of.decoded, n);
    }
}

static void check_type(const struct rule *rule, bool brief)
{
    static const size_t lengths[] = {256, 512, 1792, 4096};
    struct use use = {0};
    bool ok = true;
    uint64_t seed = 1;
    for (size_t l = 0; l < COUNT(lengths); l++)
        for (int kind = 0; kind < DATA_N_KINDS; kind++, seed += brief ? 3 : 1) {
            make_weights(rule->type, lengths[l], (size_t)(kind * 5 + 3) % DATA_N_KINDS, seed);
            for (size_t c = 0; c < COLUMNS_MAX; c++)
                data_fill(kind, bed_of.x + c * lengths[l], lengths[l], seed + 100 * c);
            if (!brief || seed % 2)
                ok = try_product(rule, lengths[l], 1 + seed % COLUMNS_MAX, &use) && ok;
        }
    char block[64] = "";
    if (rule->block)
        (void)snprintf(block, sizeof block, ", blocks of %zu%s", rule->block, rule->has_zeros ? ", zero points" : "");
    report(ok, "%s%s: %zu products, the worst at %.2f of the bound", qd_type_info(rule->type)->name, block, use.n,
           use.most);
}

/* Weights that are zero, each the difference of equal parts; their products are not, since the parts are rounded. */
static void check_cancelled(const struct rule *rule)
{
    static const uint8_t scales[8] = {15, 15, 15, 15, 15, 15, 15, 15}, mins[8] = {60, 60, 60, 60, 60, 60, 60, 60};
    struct use use = {0};
    bool ok = true;
    for (uint16_t d = 0x2000; d < 0x2400; d += 4) { /* f16 of 9 bits, so that half as much again is f16, too */
        struct block_q4_k b = {.d = d, .dmin = f16_of_f32(1.5f * f32_of_f16(d))};
        memset(b.q, 0x66, sizeof b.q); /* 15 * 6 = 60 * 1.5 */
        pack_scales_k4(b.scales, scales, mins);
        for (size_t i = 0; i < ROWS * 2; i++)
            memcpy(bed_of.weights + i * sizeof b, &b, sizeof b);
        data_fill(DATA_gaussian, bed_of.x, 512, d);
        ok = try_product(rule, 512, 1, &use) && ok;
    }
    report(ok && use.most > 0, "q4_k that cancels: %zu products, the worst at %.2f of the bound", use.n, use.most);
}

int main(int argc, char **argv)
{
    const struct check_options o = check_begin(argc, argv);
    for (const struct rule *rule = rules; rule < rules + COUNT(rules); rule++) {
        check_type(rule, o.brief);
        if (rule->type == QD_TYPE_Q4_K)
            check_cancelled(rule);
    }
    return report_end();
}
