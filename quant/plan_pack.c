#include "quant/plan_pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "artifact/digest.h"
#include "kernels/layout/packed.h"
#include "quant/packed.h"
#include "quant/plan_build.h"

enum { REASON_BYTES = 96, BASE_BYTES = 1 << 12 };

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "plan");
}

static bool is_packed_in(const struct tensor *t, enum qd_layout layout)
{
    return t->n_elements && layout_packs(layout, t->type, t->shape[1]);
}

static int check_group(const struct tensor *t, enum qd_layout layout, struct qd_error *err)
{
    uint32_t n_rows = qd_layout_info(layout)->rows;
    uint64_t row_bytes = qd_type_row_bytes(t->type, t->shape[0]);
    if (row_bytes <= SHARD_BYTES / n_rows)
        return 0;
    int r = err_new(err, QD_E_LIMIT, "tensor '%s': %" PRIu32 " rows of %" PRIu64 " bytes are packed as one, at most %d",
                    t->name, n_rows, row_bytes, (int)SHARD_BYTES);
    return err_hint(err, r, "the portable file is all there is of a model with such rows");
}

static const char *reason_of(struct arena *arena, const struct tensor *t, enum qd_layout layout)
{
    const struct packed_field *fields;
    const uint64_t rows = qd_layout_info(layout)->rows, left = t->shape[1] % rows;
    char text[REASON_BYTES];
    if (is_packed_in(t, layout) && left)
        (void)snprintf(text, sizeof text, "packed by %" PRIu64 " rows, the last %" PRIu64 " as they are", rows, left);
    else if (is_packed_in(t, layout))
        (void)snprintf(text, sizeof text, "packed by %" PRIu64 " rows", rows);
    else if (packed_fields(t->type, &fields) == 0)
        (void)snprintf(text, sizeof text, "%s has no packed form", qd_type_info(t->type)->name);
    else
        (void)snprintf(text, sizeof text, "fewer than %" PRIu64 " rows", rows);
    return arena_text(arena, (struct bytes){(const uint8_t *)text, strlen(text)});
}

static int plan_one(struct plan *p, const struct tensor *t, enum qd_layout layout, struct plan_tensor *ret,
                    struct qd_error *err)
{
    bool packs = is_packed_in(t, layout);
    *ret = (struct plan_tensor){.source = t,
                                .type = t->type,
                                .layout = packs ? layout : QD_LAYOUT_PORTABLE,
                                .reason = reason_of(p->arena, t, layout)};
    if (!ret->reason)
        return no_memory(err);
    return packs ? check_group(t, layout, err) : 0;
}

/* Tensors in file order, all of them bytes of the source; @layout: of whichever side is packed. */
static int plan_all(struct plan *p, enum qd_layout layout, const struct meta_table *written, uint32_t alignment,
                    struct qd_error *err)
{
    uint64_t at = 0;
    p->n_tensors = p->model->n_tensors;
    p->tensors = arena_alloc(p->arena, p->n_tensors + 1, sizeof *p->tensors);
    if (!p->tensors)
        return no_memory(err);
    for (size_t i = 0; i < p->n_tensors; i++) {
        int r = plan_one(p, &p->model->tensors[i], layout, &p->tensors[i], err);
        if (r == 0)
            r = plan_place(p, &p->tensors[i], alignment, &at, err);
        if (r < 0)
            return r;
    }
    return plan_finish(p, written, alignment, at, err);
}

static struct plan *plan_for(const struct model *m)
{
    size_t a_tensor = sizeof(struct plan_tensor) + REASON_BYTES;
    return plan_new(m, BASE_BYTES + packed_arena_bytes(m) + (m->n_tensors + 1) * a_tensor);
}

int plan_pack(const struct model *m, enum qd_layout layout, const struct portable_table *portable, struct plan **ret,
              struct qd_error *err)
{
    if (packed_is(m))
        return packed_refuse(m, err);
    if (strcmp(m->format, "gguf") != 0) {
        int r = err_new(err, QD_E_UNSUPPORTED, "only GGUF files are packed, this is %s", m->format);
        return err_hint(err, r, "quantize it first, and pack the result");
    }
    CLEANUP(plan_free) struct plan *p = plan_for(m);
    if (!p)
        return no_memory(err);
    p->to = layout;
    p->meta = m->meta;
    p->portable = portable ? &portable->table : NULL;
    p->borrowed_bytes = portable ? arena_used(portable->arena) : 0;
    struct meta_table written;
    int r = packed_meta(m, layout, p->arena, &written, err);
    if (r == 0)
        r = plan_all(p, layout, &written, PLAN_ALIGNMENT, err);
    if (r < 0)
        return r;
    *ret = steal(&p);
    return 0;
}

int plan_unpack(const struct model *m, struct plan **ret, struct qd_error *err)
{
    if (!packed_is(m)) {
        int r = err_new(err, QD_E_UNSUPPORTED, "this is no packed file: its architecture is '%.64s'", m->architecture);
        return err_hint(err, r, "it can be used as it is");
    }
    CLEANUP(plan_free) struct plan *p = plan_for(m);
    struct packed *packed = p ? arena_alloc(p->arena, 1, sizeof *packed) : NULL;
    if (!packed)
        return no_memory(err);
    int r = packed_open(m, p->arena, packed, err);
    if (r < 0)
        return r;
    p->model = &packed->model;
    p->from = packed->layout;
    p->meta = packed->model.meta;
    r = plan_all(p, packed->layout, &p->meta, packed->alignment, err);
    if (r < 0)
        return r;
    *ret = steal(&p);
    return 0;
}
