#include "kernels/compute/view.h"

#include <inttypes.h>

#include "kernels/core/checked.h"
#include "kernels/core/error.h"
#include "kernels/cpu.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/packed.h"

/*
 * Offsets are those of codes kept unsigned (kernels/kernels.h, struct activation_tile). q4_k needs no sums and takes
 * those of q6_k, so that all types with blocks of 256 share activations: a model mixes them.
 */
static const struct activation_rule rules[QD_N_TYPES] = {
    [QD_TYPE_Q8_0] = {.block = 32, .unit = 32, .offset = 128},
    [QD_TYPE_Q4_0] = {.block = 32, .unit = 32, .offset = 8},
    [QD_TYPE_I8] = {.block = 32, .unit = 32, .offset = 128},
    [QD_TYPE_I4] = {.block = 32, .unit = 32, .offset = 8},
    [QD_TYPE_U4] = {.block = 32, .unit = 32, .offset = 8},
    [QD_TYPE_Q2_K] = {.block = 256, .unit = 16, .offset = 32},
    [QD_TYPE_Q3_K] = {.block = 256, .unit = 16, .offset = 32},
    [QD_TYPE_Q4_K] = {.block = 256, .unit = 16, .offset = 32},
    [QD_TYPE_Q5_K] = {.block = 256, .unit = 16, .offset = 32},
    [QD_TYPE_Q6_K] = {.block = 256, .unit = 16, .offset = 32},
};

static int never_packed(const struct qd_matrix *w, struct qd_error *err)
{
    return err_new(err, QD_E_INVALID, "weights of %" PRIu64 " rows of type %s are never packed as %s", w->n_rows,
                   qd_type_info(w->type)->name, qd_layout_info(w->layout)->name);
}

static int check_blocks(const struct qd_matrix *w, struct qd_error *err)
{
    const struct qd_type_info *type = qd_type_info(w->type);
    uint64_t n_bytes = qd_type_row_bytes(w->type, w->n_cols);
    if (w->scales || w->zero_points || w->block || w->order)
        return err_new(err, QD_E_INVALID, "weights of type %s have their scales within", type->name);
    if (!ops_native()->dequantize[w->type])
        return err_new(err, QD_E_INVALID, "weights of type %s: no kernel computes with them", type->name);
    if (!w->n_rows || !n_bytes || !checked_mul(n_bytes, w->n_rows, &n_bytes) || n_bytes > PTRDIFF_MAX)
        return err_new(err, QD_E_INVALID, "weights of %" PRIu64 " rows of %" PRIu64 " elements of type %s", w->n_rows,
                       w->n_cols, type->name);
    return w->layout == QD_LAYOUT_PORTABLE || layout_packs(w->layout, w->type, w->n_rows) ? 0 : never_packed(w, err);
}

static struct code_shape shape_of(const struct qd_matrix *w)
{
    return (struct code_shape){.type = w->type,
                               .by_columns = w->order == QD_ORDER_COLUMNS,
                               .n_rows = w->n_rows,
                               .n_cols = w->n_cols,
                               .block = w->block};
}

static int check_codes(const struct qd_matrix *w, struct qd_error *err)
{
    const char *type = qd_type_info(w->type)->name;
    const struct code_shape shape = shape_of(w);
    const char *flaw = codes_flaw(&shape);
    if (flaw)
        return err_new(err, QD_E_INVALID, "weights of %" PRIu64 " rows of %" PRIu64 " elements of type %s: %s",
                       w->n_rows, w->n_cols, type, flaw);
    if (w->order != QD_ORDER_ROWS && w->order != QD_ORDER_COLUMNS)
        return err_new(err, QD_E_INVALID, "weights in no known order");
    if (w->zero_points && w->type != QD_TYPE_U4)
        return err_new(err, QD_E_INVALID, "weights of type %s have no zero points, those of u4 have", type);
    return w->layout == QD_LAYOUT_PORTABLE || layout_packs_codes(w->layout, w->type, w->n_rows, codes_row(&shape))
               ? 0
               : never_packed(w, err);
}

static int check_matrix(const struct qd_matrix *w, struct qd_error *err)
{
    const bool has_type = qd_type_info(w->type) != NULL;
    if (!has_type || !qd_layout_info(w->layout))
        return err_new(err, QD_E_INVALID, "weights of no known %s", has_type ? "layout" : "type");
    return layout_is_codes(w->type) && w->scales ? check_codes(w, err) : check_blocks(w, err);
}

/* Where no vector kernel wants a layout the scalar ones take any. */
static enum qd_layout compute_layout(void)
{
    enum qd_layout native = layout_native(cpu_features());
    return native == QD_LAYOUT_PORTABLE ? QD_LAYOUT_R4K4P128 : native;
}

int matrix_view(const struct qd_matrix *w, struct matrix_view *ret, struct qd_error *err)
{
    int r = check_matrix(w, err);
    if (r < 0)
        return r;
    struct matrix_view v = {.data = w->data,
                            .type = w->type,
                            .kernel = w->type == QD_TYPE_I4 ? QD_TYPE_U4 : w->type,
                            .ops = ops_native(),
                            .activation = rules[w->type],
                            .packed = w->layout != QD_LAYOUT_PORTABLE,
                            .layout = w->layout,
                            .n_rows = w->n_rows,
                            .n_cols = w->n_cols,
                            .n_blocks = w->n_cols / qd_type_info(w->type)->block_elements,
                            .row_bytes = qd_type_row_bytes(w->type, w->n_cols),
                            .group_rows = 1,
                            .columns = 1};
    v.is_codes = layout_is_codes(w->type);
    if (v.is_codes) {
        v.codes = shape_of(w);
        v.scales = w->scales;
        v.zeros = w->zero_points;
        v.n_blocks = codes_n_blocks(&v.codes);
        v.row_bytes = v.n_blocks * packed_block_bytes(w->type);
        v.activation.offset = v.zeros ? 1 : v.activation.offset; /* sums to be multiplied with zero points */
    }
    if (v.activation.block) {
        v.layout = v.packed ? w->layout : compute_layout();
        v.group_rows = qd_layout_info(v.layout)->rows;
        v.columns = layout_columns(v.layout);
    }
    *ret = v;
    return 0;
}
