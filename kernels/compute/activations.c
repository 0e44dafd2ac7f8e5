#include "kernels/compute/activations.h"

#include <string.h>

#include "kernels/core/checked.h"
#include "kernels/core/error.h"

enum { CODES_BLOCK = 32, FLOAT_TASK_COLUMNS = 16, TILE_COLUMNS_MAX = 16 };

/* Bytes of the arrays, for one column. */
struct column_bytes {
    uint64_t q, scale, sums, pairs, x;
};

static struct column_bytes column_bytes(const struct matrix_view *v)
{
    const struct activation_rule *rule = &v->activation;
    const size_t n_codes = view_n_codes(v);
    if (!rule->block)
        return (struct column_bytes){.x = v->n_cols * sizeof(float)};
    return (struct column_bytes){.q = n_codes,
                                 .scale = n_codes / rule->block * sizeof(float),
                                 .sums = n_codes / rule->unit * sizeof(int32_t),
                                 .pairs = rule->block == 256 ? n_codes / CODES_BLOCK * sizeof(int16_t) : 0};
}

/* Adds an array of @n times @column bytes; its place is the sum before. */
static bool add_array(uint64_t *at, uint64_t column, size_t n)
{
    uint64_t bytes;
    return checked_mul(column, n, &bytes) && checked_add(*at, bytes, at) && checked_align(*at, COMPUTE_ALIGNMENT, at);
}

size_t activations_bytes(const struct matrix_view *v, size_t n)
{
    const struct column_bytes c = column_bytes(v);
    uint64_t at = 0;
    bool fits = checked_align(sizeof(struct qd_activations), COMPUTE_ALIGNMENT, &at) && add_array(&at, c.q, n) &&
                add_array(&at, c.scale, n) && add_array(&at, c.sums, n) && add_array(&at, c.pairs, n) &&
                add_array(&at, c.x, n);
    return fits && at <= PTRDIFF_MAX ? at : 0;
}

static void *take(uint8_t *memory, uint64_t *at, uint64_t column, size_t n)
{
    void *place = memory + *at;
    (void)add_array(at, column, n); /* activations_bytes has proved that it fits */
    return column ? place : NULL;
}

struct qd_activations *activations_place(const struct matrix_view *v, size_t n, void *memory)
{
    const struct column_bytes c = column_bytes(v);
    struct qd_activations *a = memory;
    uint64_t at = 0;
    (void)checked_align(sizeof *a, COMPUTE_ALIGNMENT, &at); /* a small number */
    *a = (struct qd_activations){
        .rule = v->activation, .n = n, .n_cols = v->n_cols, .n_codes = view_n_codes(v), .columns = v->columns};
    a->all.q = take(memory, &at, c.q, n);
    a->all.scale = take(memory, &at, c.scale, n);
    a->all.sums = take(memory, &at, c.sums, n);
    a->all.pairs = take(memory, &at, c.pairs, n);
    a->x = take(memory, &at, c.x, n);
    return a;
}

static size_t task_columns(const struct qd_activations *a)
{
    return a->rule.block ? a->columns : FLOAT_TASK_COLUMNS;
}

size_t activations_n_tasks(const struct qd_activations *a)
{
    return (a->n + task_columns(a) - 1) / task_columns(a);
}

/* Whole tiles as long as there are columns for them, then the largest power of two that is left. */
static size_t tile_width(const struct qd_activations *a, size_t first)
{
    size_t width = a->columns;
    while (width > a->n - first)
        width /= 2;
    return width;
}

struct activation_tile activations_tile(const struct qd_activations *a, size_t first, size_t *ret_width)
{
    *ret_width = tile_width(a, first);
    return (struct activation_tile){
        .q = a->all.q + first * a->n_codes,
        .scale = a->all.scale + first * (a->n_codes / a->rule.block),
        .sums = a->all.sums + first * (a->n_codes / a->rule.unit),
        .pairs = a->all.pairs ? a->all.pairs + first * (a->n_codes / CODES_BLOCK) : NULL,
    };
}

/* The blocks behind block @n (of 32) of a tile: what of each column is left, and zeros. */
static void fill_rest(const struct activation_tile *tile, const struct ops *ops, struct activation_source src,
                      size_t n_cols, size_t n)
{
    float rest[TILE_COLUMNS_MAX * CODES_BLOCK] = {0};
    struct activation_tile behind = {.q = tile->q + n * src.width * CODES_BLOCK,
                                     .scale = tile->scale + n * src.width,
                                     .sums = tile->sums + n * src.width};
    const size_t n_left = n_cols - n * CODES_BLOCK;
    for (size_t c = 0; c < src.width; c++)
        memcpy(rest + c * CODES_BLOCK, src.x + c * src.stride + n * CODES_BLOCK, n_left * sizeof *rest);
    src.x = rest;
    src.stride = CODES_BLOCK;
    src.n_blocks = 1;
    ops->activate_32(&behind, &src);
}

static void fill_zeros(const struct activation_tile *tile, size_t width, size_t first, size_t end)
{
    memset(tile->q + first * width * CODES_BLOCK, 0, (end - first) * width * CODES_BLOCK);
    memset(tile->scale + first * width, 0, (end - first) * width * sizeof *tile->scale);
    memset(tile->sums + first * width, 0, (end - first) * width * sizeof *tile->sums);
}

static void fill_tile(const struct qd_activations *a, const struct ops *ops, const float *x, size_t first,
                      size_t *ret_width)
{
    struct activation_tile tile = activations_tile(a, first, ret_width);
    const struct activation_source src = {.x = x + first * a->n_cols,
                                          .stride = a->n_cols,
                                          .width = *ret_width,
                                          .n_blocks = a->n_cols / a->rule.block,
                                          .offset = a->rule.offset,
                                          .unit = a->rule.unit};
    (a->rule.block == 256 ? ops->activate_256 : ops->activate_32)(&tile, &src);
    if (a->n_codes == a->n_cols)
        return;
    size_t done = src.n_blocks; /* of 32 */
    if (a->n_cols % CODES_BLOCK)
        fill_rest(&tile, ops, src, a->n_cols, done++);
    fill_zeros(&tile, *ret_width, done, a->n_codes / CODES_BLOCK);
}

void activations_fill(const struct qd_activations *a, const struct ops *ops, const float *x, size_t task)
{
    const size_t first = task * task_columns(a);
    const size_t end = first + task_columns(a) < a->n ? first + task_columns(a) : a->n;
    if (!a->rule.block)
        memcpy(a->x + first * a->n_cols, x + first * a->n_cols, (end - first) * a->n_cols * sizeof *x);
    else
        for (size_t c = first, width; c < end; c += width)
            fill_tile(a, ops, x, c, &width);
}

bool activations_fit(const struct qd_activations *a, const struct matrix_view *v)
{
    return a->n_cols == v->n_cols && a->n_codes == view_n_codes(v) && a->columns == v->columns &&
           a->rule.block == v->activation.block && a->rule.offset == v->activation.offset;
}
