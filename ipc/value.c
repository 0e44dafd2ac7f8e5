#include "ipc/value.h"

#include <string.h>

#include "ipc/fields.h"

enum { VALUE_CHUNK_BYTES = 4096 };

struct tree {
    struct value root;  /* first: the tree is freed by its root */
    msgpack_zone *zone; /* owned; everything below the root */
};

static const char *copy_text(msgpack_zone *zone, const char *text, size_t n)
{
    char *copy = msgpack_zone_malloc_no_align(zone, n + 1);
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

static const char *hex_text(msgpack_zone *zone, const char *bin, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char *text = msgpack_zone_malloc_no_align(zone, 2 * n + 1);
    for (size_t i = 0; text && i < n; i++) {
        text[2 * i] = digits[(uint8_t)bin[i] >> 4];
        text[2 * i + 1] = digits[bin[i] & 0x0f];
    }
    if (text)
        text[2 * n] = '\0';
    return text;
}

static int fill(msgpack_zone *zone, const msgpack_object *object, struct value *dst, struct qd_error *err);

static int fill_string(msgpack_zone *zone, const msgpack_object *object, struct value *dst, struct qd_error *err)
{
    const char *text = NULL;
    dst->kind = VALUE_STRING;
    if (object->type == MSGPACK_OBJECT_BIN) {
        dst->n = 2 * (size_t)object->via.bin.size;
        dst->text = hex_text(zone, object->via.bin.ptr, object->via.bin.size);
    } else {
        int r = text_of_object(object, &text, err);
        if (r < 0)
            return r;
        dst->n = object->via.str.size;
        dst->text = copy_text(zone, text, dst->n);
    }
    return dst->text ? 0 : err_new(err, QD_E_NO_MEMORY, "answer of the daemon");
}

static int fill_array(msgpack_zone *zone, const msgpack_object *object, struct value *dst, struct qd_error *err)
{
    size_t n = object->via.array.size;
    struct value *items = msgpack_zone_malloc(zone, (n + 1) * sizeof *items);
    if (!items)
        return err_new(err, QD_E_NO_MEMORY, "answer of the daemon");
    *dst = (struct value){.kind = VALUE_ARRAY, .n = n, .items = items};
    for (size_t i = 0; i < n; i++) {
        int r = fill(zone, &object->via.array.ptr[i], &items[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_map(msgpack_zone *zone, const msgpack_object *object, struct value *dst, struct qd_error *err)
{
    size_t n = object->via.map.size;
    struct value *items = msgpack_zone_malloc(zone, (n + 1) * sizeof *items);
    const char **keys = msgpack_zone_malloc(zone, (n + 1) * sizeof *keys);
    if (!items || !keys)
        return err_new(err, QD_E_NO_MEMORY, "answer of the daemon");
    *dst = (struct value){.kind = VALUE_MAP, .n = n, .items = items, .keys = keys};
    for (size_t i = 0; i < n; i++) {
        const msgpack_object_kv *pair = &object->via.map.ptr[i];
        struct value key;
        int r = pair->key.type == MSGPACK_OBJECT_STR ? fill_string(zone, &pair->key, &key, err)
                                                     : err_new(err, QD_E_PROTOCOL, "a key is not a string");
        if (r == 0)
            r = fill(zone, &pair->val, &items[i], err);
        if (r < 0)
            return r;
        keys[i] = key.text;
    }
    return 0;
}

/* Recursion is bounded: precheck has refused what is nested deeper than PRECHECK_DEPTH_MAX. */
static int fill(msgpack_zone *zone, const msgpack_object *object, struct value *dst, struct qd_error *err)
{
    switch ((int)object->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        *dst = (struct value){.kind = VALUE_BOOL, .b = object->via.boolean};
        return 0;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        *dst = (struct value){.kind = VALUE_UINT, .u = object->via.u64};
        return 0;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        *dst = (struct value){.kind = VALUE_INT, .i = object->via.i64};
        return 0;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        *dst = (struct value){.kind = VALUE_NUMBER, .f = object->via.f64};
        return 0;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN:
        return fill_string(zone, object, dst, err);
    case MSGPACK_OBJECT_ARRAY:
        return fill_array(zone, object, dst, err);
    case MSGPACK_OBJECT_MAP:
        return fill_map(zone, object, dst, err);
    default:
        *dst = (struct value){.kind = VALUE_NIL};
        return 0;
    }
}

int value_of_incoming(const struct incoming *in, struct value **ret, struct qd_error *err)
{
    struct tree *tree = calloc(1, sizeof *tree);
    if (!tree)
        return err_new(err, QD_E_NO_MEMORY, "answer of the daemon");
    CLEANUP(value_free) struct value *root = &tree->root;
    tree->zone = msgpack_zone_new(VALUE_CHUNK_BYTES);
    if (!tree->zone)
        return err_new(err, QD_E_NO_MEMORY, "answer of the daemon");
    int r = fill(tree->zone, in->body, &tree->root, err);
    if (r < 0)
        return err_in(err, r, "answer of the daemon");
    *ret = steal(&root);
    return 0;
}

struct value *value_free(struct value *root)
{
    struct tree *tree = (struct tree *)(void *)root;
    if (tree && tree->zone)
        msgpack_zone_free(tree->zone);
    free(tree);
    return NULL;
}

static int pack_param(msgpack_packer *pk, const struct param *p, struct qd_error *err)
{
    wire_key(pk, p->key);
    switch (p->kind) {
    case PARAM_STR:
        return wire_text(pk, p->text ? p->text : "", err);
    case PARAM_U64:
        (void)msgpack_pack_uint64(pk, p->number); /* a failed append is seen in the buffer, at the end */
        return 0;
    case PARAM_BOOL:
        wire_bool(pk, p->number != 0);
        return 0;
    }
    return err_new(err, QD_E_INVALID, "parameter '%s' is of no kind", p->key);
}

int request_encode_params(struct buffer *dst, uint32_t id, const char *method, const struct param *params, size_t n,
                          struct qd_error *err)
{
    size_t start = dst->n;
    msgpack_packer pk = packer_into(dst);
    wire_start(&pk, INCOMING_REQUEST, id);
    wire_key(&pk, method);
    (void)msgpack_pack_map(&pk, n);
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = pack_param(&pk, &params[i], err);
    return finish_message(dst, start, r, err);
}
