/* Cells of one tensor from source bytes to the output file: decode, check, encode, decode, measure. */
#include "quant/run_worker.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/io.h"
#include "kernels/layout/packed.h"

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int put(struct worker *w, const void *data, size_t n, uint64_t offset, struct qd_error *err)
{
    int r = pwrite_whole(w->run->options->out_fd, data, n, offset);
    if (w->dirty_begin == w->dirty_end)
        w->dirty_begin = offset;
    w->dirty_begin = least(w->dirty_begin, offset);
    w->dirty_end = w->dirty_end > offset + n ? w->dirty_end : offset + n;
    return r < 0 ? err_sys(err, -r, "write the output at byte %" PRIu64, offset) : 0;
}

/* "[3, 17]": the element's coordinates, as its shape counts them (row element first). */
static void coordinates(const struct tensor *t, uint64_t element, char *dst, size_t n)
{
    size_t at = (size_t)snprintf(dst, n, "[");
    uint32_t n_dims = t->n_dims ? t->n_dims : 1;
    for (uint32_t d = 0; d < n_dims && at < n; d++) {
        at += (size_t)snprintf(dst + at, n - at, "%s%" PRIu64, d ? ", " : "", element % t->shape[d]);
        element /= t->shape[d];
    }
    if (at < n)
        (void)snprintf(dst + at, n - at, "]"); /* for people */
}

static int refuse_nonfinite(const struct job_tensor *t, uint64_t element, float value, struct qd_error *err)
{
    char where[128];
    coordinates(t->planned->source, element, where, sizeof where);
    int r = err_new(err, QD_E_UNSUPPORTED, "tensor '%s', element %" PRIu64 " %s: %s cannot be %s", t->name, element,
                    where, isnan(value) ? "NaN" : "infinity", t->work == WORK_COPY ? "kept" : "quantized");
    return err_hint(err, r, "the model is damaged or its training diverged; get a sound copy");
}

static int refuse_overflow(const struct job_tensor *t, uint64_t element, float value, struct qd_error *err)
{
    char where[128];
    const char *type = qd_type_info(t->planned->type)->name;
    coordinates(t->planned->source, element, where, sizeof where);
    int r = err_new(err, QD_E_UNSUPPORTED, "tensor '%s', element %" PRIu64 " %s: %g is beyond what %s can hold",
                    t->name, element, where, (double)value, type);
    return err_hint(err, r, "use scheme bf16, which has the range of f32");
}

/* All lanes finite: no decoded value was NaN or infinite (squares of finite floats do not overflow a double). */
static bool noise_finite(const struct error_sums *sums)
{
    double sum = 0;
    for (int i = 0; i < 16; i++)
        sum += sums->noise[i];
    return isfinite(sum);
}

/* What overflows is a block's scale: of the block that holds element @at, the element farthest from zero. */
static size_t extreme_of_block(const float *x, size_t n, size_t at, size_t block)
{
    size_t first = at < n ? at / block * block : 0, extreme = first;
    for (size_t i = first; i < first + block && i < n; i++)
        if (fabsf(x[i]) > fabsf(x[extreme]))
            extreme = i;
    return extreme;
}

/* The values of @n source elements: in place where they are aligned f32, else decoded to w->x. */
static const float *decode(struct worker *w, const struct job_tensor *t, const uint8_t *src, size_t n)
{
    enum qd_type type = t->planned->source->type;
    if (type == QD_TYPE_F32 && (uintptr_t)src % sizeof(float) == 0)
        return (const float *)(const void *)src;
    w->run->options->ops->dequantize[type](w->x, src, n);
    return w->x;
}

/* @n elements of blocks of @type. */
static size_t bytes_of(enum qd_type type, size_t n)
{
    return n / qd_type_info(type)->block_elements * qd_type_info(type)->block_bytes;
}

/* The importance of elements of one row, from @element on. */
static const float *importance_at(const struct plan_tensor *pt, uint64_t element)
{
    const struct tensor *t = pt->source;
    uint64_t columns = t->shape[0], matrix = element / columns / (t->n_dims > 1 ? t->shape[1] : 1);
    return pt->importance + matrix * columns + element % columns;
}

static void encode(struct worker *w, const struct job_tensor *t, uint64_t element, const float *x, size_t n,
                   float mean_square, uint8_t *dst)
{
    const struct ops *ops = w->run->options->ops;
    enum qd_type type = t->planned->type;
    if (t->planned->importance && ops->quantize_weighted[type])
        ops->quantize_weighted[type](dst, x, n, importance_at(t->planned, element), mean_square);
    else
        ops->quantize[type](dst, x, n);
}

/* At most CHUNK_ELEMENTS elements, the first of which is number @element of the tensor. */
static int encode_chunk(struct worker *w, const struct job_tensor *t, uint64_t element, const uint8_t *src, size_t n,
                        float mean_square, uint8_t *dst, struct error_sums *sums, struct qd_error *err)
{
    const struct ops *ops = w->run->options->ops;
    enum qd_type type = t->planned->type;
    const float *x = decode(w, t, src, n);
    size_t bad = ops->find_nonfinite(x, n);
    if (bad < n)
        return refuse_nonfinite(t, element + bad, x[bad], err);

    encode(w, t, element, x, n, mean_square, dst);
    ops->dequantize[type](w->y, dst, n);
    ops->measure(sums, x, w->y, n);
    if (noise_finite(sums))
        return 0;
    bad = extreme_of_block(x, n, ops->find_nonfinite(w->y, n), qd_type_info(type)->block_elements);
    return refuse_overflow(t, element + bad, x[bad], err);
}

/* Of the row that begins at @src: a cell, so all of it is there. */
static float row_mean_square(struct worker *w, const struct job_tensor *t, const uint8_t *src)
{
    float sum = 0;
    for (uint64_t done = 0, now; done < t->cell_elements; done += now) {
        now = least(CHUNK_ELEMENTS, t->cell_elements - done);
        sum = w->run->options->ops->sum_squares(sum, decode(w, t, src, (size_t)now), (size_t)now);
        src += bytes_of(t->planned->source->type, (size_t)now);
    }
    return sum / (float)t->cell_elements;
}

/* Elements of the next chunk of [element, end): whole cells of blocks; within a row where that has importance. */
static size_t chunk_of(const struct job_tensor *t, uint64_t element, uint64_t end)
{
    uint64_t most = CHUNK_ELEMENTS;
    if (t->planned->importance) {
        uint64_t columns = t->planned->source->shape[0];
        most = least(most, columns - element % columns);
    }
    return (size_t)least(most, end - element);
}

/* Cells [first, first + n) that are neighbours in the output. */
static int encode_run(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t n, const uint8_t *src,
                      struct error_sums *sums, struct qd_error *err)
{
    uint64_t element = first * t->cell_elements, end = element + n * t->cell_elements, at = layout_output(t, first);
    size_t filled = 0;
    float mean_square = 0;
    while (element < end) {
        size_t now = chunk_of(t, element, end);
        if (t->by_row && element % t->cell_elements == 0)
            mean_square = row_mean_square(w, t, src);
        int r = encode_chunk(w, t, element, src, now, mean_square, w->out + filled, sums, err);
        if (r < 0)
            return r;
        element += now;
        src += bytes_of(t->planned->source->type, now);
        filled += bytes_of(t->planned->type, now);
        if (element < end && filled + CHUNK_ELEMENTS * sizeof(float) <= OUT_BYTES)
            continue;
        r = put(w, w->out, filled, at, err);
        if (r < 0)
            return r;
        at += filled;
        filled = 0;
    }
    return 0;
}

static int move_run(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t n, const uint8_t *src,
                    struct qd_error *err)
{
    return put(w, src, (size_t)(n * t->cell_source_bytes), layout_output(t, first), err);
}

/* A copy of cells [first, first + n), none of which is NaN or infinite. */
static int copy_run(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t n, const uint8_t *src,
                    struct qd_error *err)
{
    const uint8_t *at = src;
    uint64_t element = first * t->cell_elements, end = element + n * t->cell_elements;
    while (element < end) {
        size_t now = (size_t)least(CHUNK_ELEMENTS, end - element);
        const float *x = decode(w, t, at, now);
        size_t bad = w->run->options->ops->find_nonfinite(x, now);
        if (bad < now)
            return refuse_nonfinite(t, element + bad, x[bad], err);
        element += now;
        at += bytes_of(t->planned->source->type, now);
    }
    return move_run(w, t, first, n, src, err);
}

/* A group of rows, or the rows that are left of a matrix. */
static void turn_cell(const struct worker *w, const struct job_tensor *t, size_t n_bytes, uint8_t *dst,
                      const uint8_t *src)
{
    const struct ops *ops = w->run->options->ops;
    const enum qd_layout layout = t->planned->layout;
    const enum qd_type type = t->planned->type;
    const size_t n_blocks = (size_t)t->planned->source->shape[0] / qd_type_info(type)->block_elements;
    if (n_bytes < t->cell_source_bytes)
        memcpy(dst, src, n_bytes);
    else if (t->work == WORK_PACK)
        layout_pack_group(ops, layout, type, dst, src, n_blocks);
    else
        layout_unpack_group(ops, layout, type, dst, src, n_blocks);
}

static int turn_run(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t n, const uint8_t *src,
                    struct qd_error *err)
{
    uint64_t at = layout_output(t, first);
    size_t filled = 0;
    for (uint64_t cell = first; cell < first + n; cell++) {
        size_t n_bytes = (size_t)cell_size(t, cell);
        turn_cell(w, t, n_bytes, w->out + filled, src);
        src += n_bytes;
        filled += n_bytes;
        if (cell + 1 < first + n && filled + t->cell_bytes <= w->out_bytes)
            continue;
        int r = put(w, w->out, filled, at, err);
        if (r < 0)
            return r;
        at += filled;
        filled = 0;
    }
    return 0;
}

/* Cells [first, first + n) that are neighbours in the output. */
static int write_run(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t n, const uint8_t *src,
                     struct error_sums *lanes, struct qd_error *err)
{
    switch (t->work) {
    case WORK_ENCODE:
        return encode_run(w, t, first, n, src, lanes, err);
    case WORK_COPY:
        return copy_run(w, t, first, n, src, err);
    case WORK_MOVE:
        return move_run(w, t, first, n, src, err);
    case WORK_PACK:
    case WORK_UNPACK:
        return turn_run(w, t, first, n, src, err);
    }
    return err_new(err, QD_E_INTERNAL, "tensor '%s': no work", t->name);
}

int cells_write(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t end, const uint8_t *src,
                struct error_total *sum, struct qd_error *err)
{
    struct error_sums lanes = {0};
    while (first < end) {
        uint64_t in_row = t->cells_in_row - first % t->cells_in_row;
        uint64_t n = least(end - first, in_row);
        int r = write_run(w, t, first, n, src, &lanes, err);
        if (r < 0)
            return r;
        first += n;
        src += n * t->cell_source_bytes;
    }
    *sum = error_fold(&lanes);
    return 0;
}
