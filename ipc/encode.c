#include <string.h>

#include "ipc/codec.h"
#include "ipc/fields.h"
#include "kernels/core/utf8.h"

/* Envelope, its id and method, list headers that grow, the field `next`: what a page leaves free. */
enum { PAGE_SLACK_BYTES = 256 };

static int append(void *dst, const char *data, size_t n_bytes)
{
    struct buffer *b = dst;
    buffer_put(b, data, n_bytes);
    return b->failed ? -1 : 0;
}

msgpack_packer packer_into(struct buffer *dst)
{
    return (msgpack_packer){.data = dst, .callback = append};
}

void wire_key(msgpack_packer *pk, const char *key)
{
    size_t n = strlen(key);
    (void)msgpack_pack_str(pk, n); /* a failed append is seen in the buffer, at the end */
    (void)msgpack_pack_str_body(pk, key, n);
}

void wire_bool(msgpack_packer *pk, bool v)
{
    if (v)
        (void)msgpack_pack_true(pk);
    else
        (void)msgpack_pack_false(pk);
}

int wire_text(msgpack_packer *pk, const char *text, struct qd_error *err)
{
    size_t n = strlen(text);
    if (n > TEXT_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "text of %zu bytes, at most %d", n, TEXT_BYTES_MAX);
    (void)msgpack_pack_str(pk, n);
    for (size_t i = 0; i < n;) {
        size_t run = i;
        for (size_t step; run < n && (step = utf8_sequence((const uint8_t *)text + run, n - run)) > 0;)
            run += step;
        if (run > i)
            (void)msgpack_pack_str_body(pk, text + i, run - i);
        if (run < n)
            (void)msgpack_pack_str_body(pk, "?", 1);
        i = run + 1;
    }
    return 0;
}

static const void *member_of(const void *msg, size_t offset)
{
    return (const uint8_t *)msg + offset;
}

static bool is_present(const struct field *f, const void *msg)
{
    const void *member = member_of(msg, f->offset);
    if (f->required)
        return true;
    switch (f->kind) {
    case FIELD_str:
        return *(const char *const *)member != NULL;
    case FIELD_bin:
        return ((const struct bytes *)member)->data != NULL;
    case FIELD_bool:
        return *(const bool *)member;
    case FIELD_list:
        return true; /* an empty list is said: who reads the answer needs one shape only */
    case FIELD_u32:
    case FIELD_u64:
    case FIELD_f64:
        return *(const bool *)member_of(msg, f->beside);
    }
    return false;
}

static int pack_list(msgpack_packer *pk, const struct field *f, const void *msg, struct qd_error *err)
{
    const uint8_t *items = *(const uint8_t *const *)member_of(msg, f->offset);
    size_t n = *(const size_t *)member_of(msg, f->beside);
    size_t item_bytes = shape_of(f->record)->struct_bytes;
    if (n > LIST_ITEMS_MAX)
        return err_new(err, QD_E_LIMIT, "%zu items, at most %d", n, LIST_ITEMS_MAX);
    (void)msgpack_pack_array(pk, n);
    for (size_t i = 0; i < n; i++) {
        int r = wire_fields(pk, f->record, items + i * item_bytes, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What a failed append loses is seen in the buffer, at the end. */
static int pack_member(msgpack_packer *pk, const struct field *f, const void *msg, struct qd_error *err)
{
    const void *member = member_of(msg, f->offset);
    const char *text = NULL;
    const struct bytes *bin = member;
    switch (f->kind) {
    case FIELD_str:
        text = *(const char *const *)member;
        return wire_text(pk, text ? text : "", err);
    case FIELD_list:
        return pack_list(pk, f, msg, err);
    case FIELD_bin:
        (void)msgpack_pack_bin_with_body(pk, bin->n ? bin->data : (const void *)"", bin->n);
        return 0;
    case FIELD_bool:
        wire_bool(pk, *(const bool *)member);
        return 0;
    case FIELD_u32:
        (void)msgpack_pack_uint32(pk, *(const uint32_t *)member);
        return 0;
    case FIELD_u64:
        (void)msgpack_pack_uint64(pk, *(const uint64_t *)member);
        return 0;
    case FIELD_f64:
        (void)msgpack_pack_double(pk, *(const double *)member);
        return 0;
    }
    return err_new(err, QD_E_INTERNAL, "field of no kind");
}

int wire_fields(msgpack_packer *pk, enum message type, const void *msg, struct qd_error *err)
{
    const struct message_shape *shape = shape_of(type);
    size_t n = 0;
    for (size_t i = 0; i < shape->n_fields; i++)
        n += is_present(&shape->fields[i], msg);
    (void)msgpack_pack_map(pk, n);
    for (size_t i = 0; i < shape->n_fields; i++) {
        const struct field *f = &shape->fields[i];
        if (!is_present(f, msg))
            continue;
        wire_key(pk, f->key);
        int r = pack_member(pk, f, msg, err);
        if (r < 0)
            return err_in(err, r, "%s.%s", shape->name, f->key);
    }
    return 0;
}

int finish_message(struct buffer *dst, size_t start, int r, struct qd_error *err)
{
    if (r == 0 && dst->failed)
        r = err_new(err, QD_E_NO_MEMORY, "message of %zu bytes", dst->n - start);
    else if (r == 0 && dst->n - start > PACKET_BYTES_MAX)
        r = err_new(err, QD_E_LIMIT, "message of %zu bytes, at most %d", dst->n - start, PACKET_BYTES_MAX);
    if (r < 0) {
        dst->n = start;
        dst->failed = false;
    }
    return r;
}

void wire_start(msgpack_packer *pk, enum incoming_kind kind, uint32_t id)
{
    (void)msgpack_pack_array(pk, kind == INCOMING_EVENT ? 3 : 4);
    (void)msgpack_pack_uint8(pk, (uint8_t)kind);
    if (kind != INCOMING_EVENT)
        (void)msgpack_pack_uint32(pk, id);
}

int request_encode(struct buffer *dst, uint32_t id, const char *method, enum message type, const void *params,
                   struct qd_error *err)
{
    size_t start = dst->n;
    msgpack_packer pk = packer_into(dst);
    wire_start(&pk, INCOMING_REQUEST, id);
    wire_key(&pk, method);
    return finish_message(dst, start, wire_fields(&pk, type, params, err), err);
}

int reply_encode(struct buffer *dst, uint32_t id, enum message type, const void *result, struct qd_error *err)
{
    size_t start = dst->n;
    msgpack_packer pk = packer_into(dst);
    wire_start(&pk, INCOMING_REPLY, id);
    (void)msgpack_pack_nil(&pk);
    return finish_message(dst, start, wire_fields(&pk, type, result, err), err);
}

int event_encode(struct buffer *dst, const char *event, enum message type, const void *params, struct qd_error *err)
{
    size_t start = dst->n;
    msgpack_packer pk = packer_into(dst);
    wire_start(&pk, INCOMING_EVENT, 0);
    wire_key(&pk, event);
    return finish_message(dst, start, wire_fields(&pk, type, params, err), err);
}

int error_encode(struct buffer *dst, uint32_t id, const struct qd_error *why, struct qd_error *err)
{
    static const struct qd_error unknown = {.code = QD_E_INTERNAL, .message = "no reason was given"};
    if (!why || why->code == 0)
        why = &unknown;
    size_t start = dst->n;
    msgpack_packer pk = packer_into(dst);
    wire_start(&pk, INCOMING_REPLY, id);
    (void)msgpack_pack_map(&pk, why->hint[0] ? 3 : 2);
    wire_key(&pk, "code");
    wire_key(&pk, qd_error_name(why->code));
    wire_key(&pk, "message");
    int r = wire_text(&pk, why->message, err);
    if (r == 0 && why->hint[0]) {
        wire_key(&pk, "hint");
        r = wire_text(&pk, why->hint, err);
    }
    (void)msgpack_pack_nil(&pk);
    return finish_message(dst, start, r, err);
}

/* ---- pages ------------------------------------------------------------------------------------- */

static const struct field *list_of(const struct message_shape *shape)
{
    const struct field *found = NULL;
    for (size_t i = 0; i < shape->n_fields; i++)
        if (shape->fields[i].kind == FIELD_list)
            found = &shape->fields[i];
    return found;
}

static void set_next(const struct message_shape *shape, void *msg, uint32_t next)
{
    for (size_t i = 0; i < shape->n_fields; i++) {
        const struct field *f = &shape->fields[i];
        if (strcmp(f->key, "next") != 0)
            continue;
        *(bool *)((uint8_t *)msg + f->beside) = next > 0;
        *(uint32_t *)((uint8_t *)msg + f->offset) = next;
    }
}

static size_t packed_bytes(struct buffer *scratch, enum message type, const void *msg)
{
    scratch->n = 0;
    msgpack_packer pk = packer_into(scratch);
    int r = wire_fields(&pk, type, msg, NULL);
    return r < 0 || scratch->failed ? SIZE_MAX / 2 : scratch->n;
}

size_t message_page(enum message type, void *msg, uint32_t from, size_t total)
{
    const struct message_shape *shape = shape_of(type);
    const struct field *list = list_of(shape);
    size_t *n = (size_t *)((uint8_t *)msg + list->beside);
    const uint8_t *items = *(const uint8_t *const *)member_of(msg, list->offset);
    size_t offered = *n < LIST_ITEMS_MAX ? *n : LIST_ITEMS_MAX;
    size_t item_bytes = shape_of(list->record)->struct_bytes;

    CLEANUP(buffer_clear) struct buffer scratch = {0};
    *n = 0;
    size_t used = packed_bytes(&scratch, type, msg) + PAGE_SLACK_BYTES;
    size_t kept = 0;
    while (kept < offered) {
        used += packed_bytes(&scratch, list->record, items + kept * item_bytes);
        if (used > PACKET_BYTES_MAX)
            break;
        kept++;
    }
    *n = kept;
    size_t passed = kept == 0 && offered > 0 ? 1 : kept; /* one that never fits must not stop the reader */
    set_next(shape, msg, from + passed < total && passed > 0 ? (uint32_t)(from + passed) : 0);
    return kept;
}
