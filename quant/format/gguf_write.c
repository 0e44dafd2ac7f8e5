/*
 * The GGUF v3 writer. One form for one content: entries in the order given, no slack, so that the
 * same plan always makes the same bytes.
 */
#include "quant/format/gguf_write.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/limits.h"

static void put_text(struct buffer *dst, struct bytes text)
{
    buffer_put_u64(dst, text.n);
    buffer_put(dst, text.data, text.n);
}

static void put_name(struct buffer *dst, const char *name)
{
    put_text(dst, (struct bytes){(const uint8_t *)name, strlen(name)});
}

static void put_items(struct buffer *dst, enum meta_type type, uint64_t n, const void *data)
{
    if (type == META_STRING)
        for (uint64_t i = 0; i < n; i++)
            put_text(dst, ((const struct bytes *)data)[i]);
    else
        buffer_put(dst, data, (size_t)n * meta_type_bytes(type));
}

static int put_entry(struct buffer *dst, const struct meta_entry *e, struct qd_error *err)
{
    const struct meta_value *v = &e->value;
    bool array = v->type == META_ARRAY;
    enum meta_type item = array ? v->item : v->type;
    size_t n_key = strlen(e->key);
    if (n_key == 0 || n_key > LIMIT_KEY_BYTES)
        return err_new(err, QD_E_INVALID, "a metadata key of %zu bytes cannot be written", n_key);
    if ((unsigned)item >= META_N_TYPES || item == META_ARRAY || (!array && v->n_items != 1))
        return err_new(err, QD_E_INVALID, "metadata '%s' has no type that GGUF can hold", e->key);
    put_name(dst, e->key);
    buffer_put_u32(dst, v->type);
    if (array) {
        buffer_put_u32(dst, item);
        buffer_put_u64(dst, v->n_items);
    }
    put_items(dst, item, v->n_items, v->data);
    return 0;
}

static int put_info(struct buffer *dst, const struct gguf_tensor *t, uint32_t alignment, struct qd_error *err)
{
    const struct qd_type_info *type = qd_type_info(t->type);
    size_t n_name = strlen(t->name);
    if (n_name == 0 || n_name > LIMIT_GGUF_NAME_BYTES) {
        int r = err_new(err, QD_E_UNSUPPORTED, "tensor '%s': its name has %zu bytes, GGUF allows %d", t->name, n_name,
                        LIMIT_GGUF_NAME_BYTES);
        return err_hint(err, r, "the architecture's names are not mapped to GGUF's shorter ones yet");
    }
    if (!type || t->n_dims > MODEL_DIMS_MAX || t->offset % alignment)
        return err_new(err, QD_E_INTERNAL, "tensor '%s' is planned wrongly", t->name);
    put_name(dst, t->name);
    buffer_put_u32(dst, t->n_dims);
    for (uint32_t d = 0; d < t->n_dims; d++)
        buffer_put_u64(dst, t->shape[d]);
    buffer_put_u32(dst, (uint32_t)type->ggml_id);
    buffer_put_u64(dst, t->offset);
    return 0;
}

int gguf_header(const struct meta_table *meta, const struct gguf_tensor *tensors, size_t n_tensors, uint32_t alignment,
                struct buffer *dst, struct qd_error *err)
{
    if (!is_power_of_two(alignment))
        return err_new(err, QD_E_INTERNAL, "alignment %" PRIu32 " is no power of two", alignment);
    size_t start = dst->n;
    buffer_put(dst, "GGUF", 4);
    buffer_put_u32(dst, 3);
    buffer_put_u64(dst, n_tensors);
    buffer_put_u64(dst, meta->n);
    int r = 0;
    for (size_t i = 0; i < meta->n && r == 0; i++)
        r = put_entry(dst, &meta->entries[i], err);
    for (size_t i = 0; i < n_tensors && r == 0; i++)
        r = put_info(dst, &tensors[i], alignment, err);
    if (r < 0)
        return r;
    uint64_t end;
    if (!checked_align(dst->n - start, alignment, &end))
        return err_new(err, QD_E_INTERNAL, "a header of %zu bytes", dst->n - start);
    buffer_put_zeros(dst, (size_t)end - (dst->n - start));
    return dst->failed ? err_new(err, QD_E_NO_MEMORY, "a GGUF header") : 0;
}
