#include "quant/format/protobuf.h"

enum {
    VARINT_BYTES_MAX = 10,
    FIELD_NUMBER_MAX = (1 << 29) - 1,
    GROUPS_MAX = 32, /* one within the other; nobody writes them today */
};

uint64_t pb_varint(struct stream *st)
{
    uint64_t v = 0;
    const uint64_t start = st->at;
    for (unsigned i = 0; i < VARINT_BYTES_MAX; i++) {
        const uint8_t byte = stream_u8(st);
        if (st->result)
            return 0;
        if (i == VARINT_BYTES_MAX - 1 && byte > 1)
            break;
        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80))
            return v;
    }
    (void)stream_fail(st, QD_E_CORRUPT, start, "a varint does not end within 64 bits"); /* sticks in the stream */
    return 0;
}

static bool take_tag(struct stream *st, struct pb_field *f)
{
    f->start = st->at;
    const uint64_t tag = pb_varint(st);
    f->number = (uint32_t)(tag >> 3);
    f->wire = (enum pb_wire)(tag & 7);
    if (!st->result && (tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_MAX))
        (void)stream_fail(st, QD_E_CORRUPT, f->start, "field number %llu does not exist",
                          (unsigned long long)(tag >> 3)); /* sticks in the stream */
    return !st->result;
}

/* What stands behind the tag, the content of PB_BYTES left out. */
static bool take_value(struct stream *st, struct pb_field *f)
{
    switch (f->wire) {
    case PB_VARINT:
        f->value = pb_varint(st);
        return !st->result;
    case PB_64:
        f->value = stream_u64(st);
        return !st->result;
    case PB_32:
        f->value = stream_u32(st);
        return !st->result;
    case PB_BYTES:
        f->bytes = pb_varint(st);
        f->at = st->at;
        if (!st->result && f->bytes > st->end - st->at)
            (void)stream_fail(st, QD_E_CORRUPT, f->start, "field %u has %llu bytes, %llu are left in its message",
                              f->number, (unsigned long long)f->bytes, (unsigned long long)(st->end - st->at));
        return !st->result;
    case PB_GROUP:
    case PB_GROUP_END:
        return true;
    }
    (void)stream_fail(st, QD_E_CORRUPT, f->start, "wire type %d does not exist", (int)f->wire);
    return false;
}

bool pb_next(struct stream *st, struct pb_field *ret)
{
    struct pb_field f = {0};
    if (st->result || st->at == st->end || !take_tag(st, &f) || !take_value(st, &f))
        return false;
    if (f.wire == PB_GROUP_END) {
        (void)stream_fail(st, QD_E_CORRUPT, f.start, "group %u ends and did not begin", f.number); /* sticks */
        return false;
    }
    *ret = f;
    return true;
}

static bool skip_group(struct stream *st, uint32_t number)
{
    uint32_t open[GROUPS_MAX] = {number};
    for (size_t depth = 1; depth > 0;) {
        struct pb_field f = {0};
        if (st->at == st->end)
            (void)stream_fail(st, QD_E_CORRUPT, st->at, "group %u does not end", open[depth - 1]); /* sticks */
        if (st->result || !take_tag(st, &f) || !take_value(st, &f))
            return false;
        if (f.wire == PB_BYTES && !stream_skip(st, f.bytes))
            return false;
        if (f.wire == PB_GROUP_END && f.number != open[--depth])
            (void)stream_fail(st, QD_E_CORRUPT, f.start, "group %u ends within group %u", f.number, open[depth]);
        if (f.wire == PB_GROUP && depth == GROUPS_MAX)
            (void)stream_fail(st, QD_E_LIMIT, f.start, "more than %d groups, one within the other", GROUPS_MAX);
        else if (f.wire == PB_GROUP)
            open[depth++] = f.number;
    }
    return !st->result;
}

bool pb_skip(struct stream *st, const struct pb_field *f)
{
    if (f->wire == PB_BYTES)
        return stream_skip(st, f->bytes);
    return f->wire == PB_GROUP ? skip_group(st, f->number) : !st->result;
}
