#include <string.h>

#include "ipc/codec.h"
#include "ipc/fields.h"
#include "ipc/precheck.h"
#include "kernels/core/utf8.h"

/* The packet's copy and the objects of an open or its answer fit one, and one fits malloc's cache of small pieces. */
enum { ZONE_CHUNK_BYTES = 960 };

int unpack_object(struct bytes message, msgpack_zone *zone, msgpack_object *ret, struct qd_error *err)
{
    char *copy = msgpack_zone_malloc_no_align(zone, message.n + 1); /* one more: the last string is terminated too */
    if (!copy)
        return err_new(err, QD_E_NO_MEMORY, "message of %zu bytes", message.n);
    memcpy(copy, message.data, message.n);
    size_t at = 0;
    msgpack_unpack_return r = msgpack_unpack(copy, message.n, &at, zone, ret);
    if (r == MSGPACK_UNPACK_NOMEM_ERROR)
        return err_new(err, QD_E_NO_MEMORY, "message of %zu bytes", message.n);
    if (r != MSGPACK_UNPACK_SUCCESS)
        return err_new(err, QD_E_PROTOCOL, "message is not MessagePack");
    return 0;
}

int text_of_object(const msgpack_object *object, const char **ret, struct qd_error *err)
{
    if (object->type != MSGPACK_OBJECT_STR)
        return err_new(err, QD_E_PROTOCOL, "is not a string");
    const uint8_t *at = (const uint8_t *)object->via.str.ptr;
    size_t n = object->via.str.size;
    if (n > TEXT_BYTES_MAX)
        return err_new(err, QD_E_PROTOCOL, "has %zu bytes, at most %d", n, TEXT_BYTES_MAX);
    for (size_t i = 0, step; i < n; i += step) {
        step = utf8_sequence(at + i, n - i);
        if (step == 0 || at[i] == 0)
            return err_new(err, QD_E_PROTOCOL, "is not UTF-8 text");
    }
    /* The header of what follows is overwritten; the tree was built and nobody reads it again. */
    ((char *)(uintptr_t)object->via.str.ptr)[n] = '\0';
    *ret = object->via.str.ptr;
    return 0;
}

static int number_of_object(const msgpack_object *object, uint64_t max, uint64_t *ret, struct qd_error *err)
{
    if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return err_new(err, QD_E_PROTOCOL, "is not a non-negative integer");
    if (object->via.u64 > max)
        return err_new(err, QD_E_PROTOCOL, "is beyond its range");
    *ret = object->via.u64;
    return 0;
}

static int float_of_object(const msgpack_object *object, double *ret, struct qd_error *err)
{
    switch ((int)object->type) {
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        *ret = object->via.f64;
        return 0;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        *ret = (double)object->via.u64;
        return 0;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        *ret = (double)object->via.i64;
        return 0;
    default:
        return err_new(err, QD_E_PROTOCOL, "is not a number");
    }
}

static int list_of_object(const msgpack_object *object, const struct field *f, msgpack_zone *zone, void *msg,
                          struct qd_error *err)
{
    if (object->type != MSGPACK_OBJECT_ARRAY)
        return err_new(err, QD_E_PROTOCOL, "is not a list");
    size_t n = object->via.array.size;
    size_t item_bytes = shape_of(f->record)->struct_bytes;
    if (n > LIST_ITEMS_MAX)
        return err_new(err, QD_E_PROTOCOL, "has %zu items, at most %d", n, LIST_ITEMS_MAX);
    uint8_t *items = n ? msgpack_zone_malloc(zone, n * item_bytes) : NULL;
    if (n && !items)
        return err_new(err, QD_E_NO_MEMORY, "list of %zu items", n);
    for (size_t i = 0; i < n; i++) {
        int r = unpack_fields(&object->via.array.ptr[i], f->record, zone, items + i * item_bytes, err);
        if (r < 0)
            return err_in(err, r, "item %zu", i);
    }
    *(const void **)((uint8_t *)msg + f->offset) = items;
    *(size_t *)((uint8_t *)msg + f->beside) = n;
    return 0;
}

static int member_of_object(const msgpack_object *object, const struct field *f, msgpack_zone *zone, void *msg,
                            struct qd_error *err)
{
    void *member = (uint8_t *)msg + f->offset;
    uint64_t number = 0;
    int r = 0;
    switch (f->kind) {
    case FIELD_str:
        return text_of_object(object, member, err);
    case FIELD_bin:
        if (object->type != MSGPACK_OBJECT_BIN)
            return err_new(err, QD_E_PROTOCOL, "is not binary");
        *(struct bytes *)member = (struct bytes){(const uint8_t *)object->via.bin.ptr, object->via.bin.size};
        return 0;
    case FIELD_bool:
        if (object->type != MSGPACK_OBJECT_BOOLEAN)
            return err_new(err, QD_E_PROTOCOL, "is not true or false");
        *(bool *)member = object->via.boolean;
        return 0;
    case FIELD_u32:
        r = number_of_object(object, UINT32_MAX, &number, err);
        *(uint32_t *)member = (uint32_t)number;
        return r;
    case FIELD_u64:
        return number_of_object(object, UINT64_MAX, member, err);
    case FIELD_f64:
        return float_of_object(object, member, err);
    case FIELD_list:
        return list_of_object(object, f, zone, msg, err);
    }
    return r;
}

static bool key_is(const msgpack_object *object, const char *key)
{
    return object->type == MSGPACK_OBJECT_STR && strlen(key) == object->via.str.size &&
           memcmp(key, object->via.str.ptr, object->via.str.size) == 0;
}

/* The index of the field of that key, or n_fields: an unknown key, to be skipped. */
static size_t field_of_key(const struct message_shape *shape, const msgpack_object *key)
{
    size_t i = 0;
    while (i < shape->n_fields && !key_is(key, shape->fields[i].key))
        i++;
    return i;
}

static int unpack_pair(const msgpack_object_kv *pair, const struct message_shape *shape, msgpack_zone *zone,
                       uint64_t *seen, void *ret, struct qd_error *err)
{
    if (pair->key.type != MSGPACK_OBJECT_STR)
        return err_new(err, QD_E_PROTOCOL, "%s: a key is not a string", shape->name);
    size_t i = field_of_key(shape, &pair->key);
    if (i == shape->n_fields)
        return 0;
    const struct field *f = &shape->fields[i];
    if (*seen & (uint64_t)1 << i)
        return err_new(err, QD_E_PROTOCOL, "%s.%s comes twice", shape->name, f->key);
    if (pair->val.type == MSGPACK_OBJECT_NIL)
        return 0; /* as good as absent */
    *seen |= (uint64_t)1 << i;
    int r = member_of_object(&pair->val, f, zone, ret, err);
    if (r < 0)
        return err_in(err, r, "%s.%s", shape->name, f->key);
    if (f->has_flag)
        *(bool *)((uint8_t *)ret + f->beside) = true;
    return 0;
}

int unpack_fields(const msgpack_object *object, enum message type, msgpack_zone *zone, void *ret, struct qd_error *err)
{
    const struct message_shape *shape = shape_of(type);
    if (object->type != MSGPACK_OBJECT_MAP)
        return err_new(err, QD_E_PROTOCOL, "%s is not a map", shape->name);
    memset(ret, 0, shape->struct_bytes);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        int r = unpack_pair(&object->via.map.ptr[i], shape, zone, &seen, ret, err);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < shape->n_fields; i++)
        if (shape->fields[i].required && !(seen & (uint64_t)1 << i))
            return err_new(err, QD_E_PROTOCOL, "%s.%s is missing", shape->name, shape->fields[i].key);
    return 0;
}

/* ---- the envelope ------------------------------------------------------------------------------ */

static int take_id(const msgpack_object *object, struct incoming *in, struct qd_error *err)
{
    uint64_t id = 0;
    int r = number_of_object(object, UINT32_MAX, &id, err);
    if (r < 0)
        return err_in(err, r, "id");
    in->id = (uint32_t)id;
    return 0;
}

static int take_name(const msgpack_object *object, struct incoming *in, struct qd_error *err)
{
    if (object->type == MSGPACK_OBJECT_STR && object->via.str.size > NAME_BYTES_MAX)
        return err_new(err, QD_E_PROTOCOL, "name of %u bytes, at most %d", object->via.str.size, NAME_BYTES_MAX);
    int r = text_of_object(object, &in->name, err);
    return r < 0 ? err_in(err, r, "name") : 0;
}

static int take_request(const msgpack_object *part, struct incoming *in, struct qd_error *err)
{
    in->body = &part[3];
    int r = take_id(&part[1], in, err);
    return r < 0 ? r : take_name(&part[2], in, err);
}

static int take_reply(const msgpack_object *part, struct incoming *in, struct qd_error *err)
{
    in->body = &part[3];
    in->error = &part[2];
    in->failed = part[2].type != MSGPACK_OBJECT_NIL;
    return take_id(&part[1], in, err);
}

static int take_event(const msgpack_object *part, struct incoming *in, struct qd_error *err)
{
    in->body = &part[2];
    return take_name(&part[1], in, err);
}

static int take_envelope(const msgpack_object *whole, struct incoming *in, struct qd_error *err)
{
    static const struct {
        uint32_t n_parts;
        int (*take)(const msgpack_object *part, struct incoming *in, struct qd_error *err);
    } kinds[] = {
        [INCOMING_REQUEST] = {4, take_request},
        [INCOMING_REPLY] = {4, take_reply},
        [INCOMING_EVENT] = {3, take_event},
    };
    if (whole->type != MSGPACK_OBJECT_ARRAY || whole->via.array.size == 0)
        return err_new(err, QD_E_PROTOCOL, "message is not an array");
    const msgpack_object *part = whole->via.array.ptr;
    if (part[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || part[0].via.u64 > INCOMING_EVENT)
        return err_new(err, QD_E_PROTOCOL, "message is neither request, reply nor event");
    in->kind = (enum incoming_kind)part[0].via.u64;
    if (whole->via.array.size != kinds[in->kind].n_parts)
        return err_new(err, QD_E_PROTOCOL, "message has %u parts", whole->via.array.size);
    return kinds[in->kind].take(part, in, err);
}

int incoming_parse(struct bytes message, struct incoming *ret, struct qd_error *err)
{
    if (message.n > PACKET_BYTES_MAX)
        return err_new(err, QD_E_PROTOCOL, "message of %zu bytes, at most %d", message.n, PACKET_BYTES_MAX);
    int r = precheck(message, err);
    if (r < 0)
        return r;
    CLEANUP(incoming_clear) struct incoming in = {.name = "", .zone = msgpack_zone_new(ZONE_CHUNK_BYTES)};
    msgpack_object *whole = in.zone ? msgpack_zone_malloc(in.zone, sizeof *whole) : NULL;
    if (!whole)
        return err_new(err, QD_E_NO_MEMORY, "message of %zu bytes", message.n);
    r = unpack_object(message, in.zone, whole, err);
    if (r < 0)
        return r;
    r = take_envelope(whole, &in, err);
    if (r < 0)
        return r;
    *ret = in;
    in.zone = NULL;
    return 0;
}

void incoming_clear(struct incoming *in)
{
    if (in->zone)
        msgpack_zone_free(in->zone);
    *in = (struct incoming){.name = ""};
}

int incoming_decode(struct incoming *in, enum message type, void *ret, struct qd_error *err)
{
    union any_message decoded;
    int r = unpack_fields(in->body, type, in->zone, &decoded, err);
    if (r < 0)
        return r;
    memcpy(ret, &decoded, shape_of(type)->struct_bytes);
    return 0;
}

static const char *text_in_map(const msgpack_object *map, const char *key)
{
    const char *text = "";
    for (uint32_t i = 0; map->type == MSGPACK_OBJECT_MAP && i < map->via.map.size; i++)
        if (key_is(&map->via.map.ptr[i].key, key))
            (void)text_of_object(&map->via.map.ptr[i].val, &text, NULL); /* stays "" where it is none */
    return text;
}

int incoming_error(const struct incoming *in, struct qd_error *err)
{
    const char *message = text_in_map(in->error, "message");
    const char *hint = text_in_map(in->error, "hint");
    int code = qd_error_by_name(text_in_map(in->error, "code"));
    (void)err_new(err, code, "%s", message[0] ? message : "the peer gave no reason");
    return hint[0] ? err_hint(err, code, "%s", hint) : code;
}
