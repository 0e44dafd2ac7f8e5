#include "ipc/precheck.h"

/* What an object's first byte announces: payload behind a length field of @length_bytes, or items. */
enum shape_kind { PLAIN, TEXT, ITEMS, PAIRS, REFUSED };

struct announced {
    enum shape_kind kind;
    unsigned length_bytes; /* of the length or count that follows, big-endian; 0: @fixed says it */
    unsigned fixed;
};

/* MessagePack's table of first bytes c0..df; those below and above are told apart by their high bits. */
static const struct announced announcements[32] = {
    [0x00] = {PLAIN, 0, 0},                                                       /* c0 nil */
    [0x01] = {REFUSED, 0, 0},                                                     /* c1 never used */
    [0x02] = {PLAIN, 0, 0},                                                       /* c2 false */
    [0x03] = {PLAIN, 0, 0},                                                       /* c3 true */
    [0x04] = {TEXT, 1, 0},                                                        /* c4 bin 8, 16, 32 */
    [0x05] = {TEXT, 2, 0},    [0x06] = {TEXT, 4, 0},    [0x07] = {REFUSED, 0, 0}, /* c7 ext 8, 16, 32 */
    [0x08] = {REFUSED, 0, 0}, [0x09] = {REFUSED, 0, 0}, [0x0a] = {PLAIN, 0, 4},   /* ca float 32, 64 */
    [0x0b] = {PLAIN, 0, 8},   [0x0c] = {PLAIN, 0, 1},                             /* cc uint 8, 16, 32, 64 */
    [0x0d] = {PLAIN, 0, 2},   [0x0e] = {PLAIN, 0, 4},   [0x0f] = {PLAIN, 0, 8},
    [0x10] = {PLAIN, 0, 1}, /* d0 int 8, 16, 32, 64 */
    [0x11] = {PLAIN, 0, 2},   [0x12] = {PLAIN, 0, 4},   [0x13] = {PLAIN, 0, 8},
    [0x14] = {REFUSED, 0, 0}, /* d4 fixext 1, 2, 4, 8, 16 */
    [0x15] = {REFUSED, 0, 0}, [0x16] = {REFUSED, 0, 0}, [0x17] = {REFUSED, 0, 0},
    [0x18] = {REFUSED, 0, 0}, [0x19] = {TEXT, 1, 0},                            /* d9 str 8, 16, 32 */
    [0x1a] = {TEXT, 2, 0},    [0x1b] = {TEXT, 4, 0},    [0x1c] = {ITEMS, 2, 0}, /* dc array 16, 32 */
    [0x1d] = {ITEMS, 4, 0},   [0x1e] = {PAIRS, 2, 0},                           /* de map 16, 32 */
    [0x1f] = {PAIRS, 4, 0},
};

static struct announced announced_by(uint8_t first)
{
    if (first < 0x80 || first >= 0xe0)
        return (struct announced){PLAIN, 0, 0}; /* small integers */
    if (first < 0x90)
        return (struct announced){PAIRS, 0, first & 0x0fu};
    if (first < 0xa0)
        return (struct announced){ITEMS, 0, first & 0x0fu};
    if (first < 0xc0)
        return (struct announced){TEXT, 0, first & 0x1fu};
    return announcements[first - 0xc0];
}

static uint64_t read_big_endian(struct cursor *c, unsigned n_bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n_bytes; i++)
        v = v << 8 | cursor_u8(c);
    return v;
}

/* Passes one header and its payload; @ret_items is how many objects follow inside of it. */
static int pass_header(struct cursor *c, uint64_t *ret_items, struct qd_error *err)
{
    struct announced a = announced_by(cursor_u8(c));
    uint64_t n = a.length_bytes ? read_big_endian(c, a.length_bytes) : a.fixed;
    if (a.kind == REFUSED)
        return err_new(err, QD_E_PROTOCOL, "message holds an extension type");
    if (a.kind == PLAIN || a.kind == TEXT)
        (void)cursor_take(c, n); /* a short message is seen below */
    uint64_t items = a.kind == ITEMS ? n : a.kind == PAIRS ? 2 * n : 0;
    if (c->failed || items > cursor_left(c))
        return err_new(err, QD_E_PROTOCOL, "message ends before its announced content");
    *ret_items = items;
    return 0;
}

int precheck_next(struct cursor *c, struct bytes *ret, struct qd_error *err)
{
    const uint8_t *start = c->at;
    uint64_t left[PRECHECK_DEPTH_MAX + 1] = {1}; /* objects still to come, by depth */
    unsigned depth = 0;
    for (unsigned n_objects = 0; depth > 0 || left[0] > 0; n_objects++) {
        if (n_objects >= PRECHECK_OBJECTS_MAX)
            return err_new(err, QD_E_PROTOCOL, "message holds more than %d objects", PRECHECK_OBJECTS_MAX);
        uint64_t items = 0;
        int r = pass_header(c, &items, err);
        if (r < 0)
            return r;
        left[depth]--;
        if (items > 0) {
            if (depth == PRECHECK_DEPTH_MAX)
                return err_new(err, QD_E_PROTOCOL, "message is nested deeper than %d", PRECHECK_DEPTH_MAX);
            left[++depth] = items;
        }
        while (depth > 0 && left[depth] == 0)
            depth--;
    }
    *ret = (struct bytes){.data = start, .n = (size_t)(c->at - start)};
    return 0;
}

int precheck(struct bytes message, struct qd_error *err)
{
    struct cursor c = cursor_over(message);
    struct bytes whole;
    int r = precheck_next(&c, &whole, err);
    if (r < 0)
        return r;
    if (cursor_left(&c) > 0)
        return err_new(err, QD_E_PROTOCOL, "message has %zu bytes behind its end", cursor_left(&c));
    return 0;
}
