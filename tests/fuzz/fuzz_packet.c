/*
 * Any packet at all, as a peer might send it: taken apart, decoded as every message, shown as a tree,
 * served. What decodes must encode, and decode again to the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "ipc/codec.h"
#include "ipc/handler.h"
#include "ipc/records.h"
#include "ipc/value.h"
#include "tests/fuzz/fuzz.h"

struct nobody {
    unsigned n_calls;
};
#define HANDLER_OWNER struct nobody
METHODS(HANDLER_DECLARE)
#define HANDLER_EMPTY(method, params, result, doc)                                                                    \
    int handle_##method(HANDLER_OWNER *owner, struct request *rq, const struct msg_##params *p, struct qd_error *err) \
    {                                                                                                                 \
        (void)rq;                                                                                                     \
        (void)p;                                                                                                      \
        (void)err;                                                                                                    \
        owner->n_calls++;                                                                                             \
        return 0;                                                                                                     \
    }
METHODS(HANDLER_EMPTY)
METHODS(HANDLER_THUNK)
static const struct handler handlers[] = {METHODS(HANDLER_ROW)};

static void must(bool held)
{
    if (!held)
        abort();
}

/* NaN has many forms, so bytes are compared, not doubles. */
static void round_trip(struct incoming *in, enum message type)
{
    union any_message first, second;
    CLEANUP(buffer_clear) struct buffer a = {0};
    CLEANUP(buffer_clear) struct buffer b = {0};
    CLEANUP(incoming_clear) struct incoming again = {0};
    if (incoming_decode(in, type, &first, NULL) < 0)
        return;
    if (reply_encode(&a, in->id, type, &first, NULL) < 0)
        return; /* shorter forms on the wire may have grown past a packet */
    must(incoming_parse(buffer_span(&a), &again, NULL) == 0);
    must(incoming_decode(&again, type, &second, NULL) == 0);
    must(reply_encode(&b, in->id, type, &second, NULL) == 0);
    must(a.n == b.n && memcmp(a.data, b.data, a.n) == 0);
}

static void read_records(struct bytes raw)
{
    CLEANUP(record_reader_clear) struct record_reader r = {0};
    struct msg_tensor_plan item;
    if (record_reader_open(raw, &r, NULL) < 0)
        return;
    while (record_read(&r, INTO(tensor_plan, &item), NULL) == 1)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct bytes raw = {data, n};
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(value_free) struct value *tree = NULL;
    struct qd_error err;
    read_records(raw);
    if (incoming_parse(raw, &in, &err) < 0)
        return 0;
    if (in.failed)
        must(incoming_error(&in, &err) < 0);
    for (int type = 0; type < N_MESSAGES; type++)
        round_trip(&in, (enum message)type);
    (void)value_of_incoming(&in, &tree, &err);

    CLEANUP(packet_clear) struct packet packet = {0};
    CLEANUP(buffer_clear) struct buffer reply = {0};
    struct nobody owner = {0};
    buffer_put(&packet.bytes, data, n);
    int r = request_serve(handlers, N_METHODS, &owner, &packet, &reply, &err);
    must(r < 0 ? in.kind != INCOMING_REQUEST : owner.n_calls == (r == 0));
    return 0;
}

/* ---- seeds: one of each kind, with every kind of field ---------------------------------------------------- */

static void use_and_clear(fuzz_use *use, void *data, struct buffer *wire)
{
    use(buffer_span(wire), data);
    buffer_clear(wire);
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer wire = {0};
    struct msg_open open_params = {
        .model = "tiny", .scheme = "q8_0", .pure = true, .has_wait_ms = true, .wait_ms = 70000};
    must(request_encode(&wire, 1, "open", MESSAGE(open, &open_params), NULL) == 0);
    use_and_clear(use, data, &wire);
    struct msg_model models[2] = {{.name = "a", .path = "/m/a", .state = "ready", .bytes = 1},
                                  {.name = "b", .path = "/m/b", .state = "bad", .problem = "p"}};
    struct msg_model_list list = {.models = models, .models_n = 2, .has_next = true, .next = 2};
    must(reply_encode(&wire, 2, MESSAGE(model_list, &list), NULL) == 0);
    use_and_clear(use, data, &wire);
    struct msg_welcome welcome = {.version = 1, .daemon = "quantd", .public_key = {(const uint8_t *)"0123", 4}};
    must(reply_encode(&wire, 3, MESSAGE(welcome, &welcome), NULL) == 0);
    use_and_clear(use, data, &wire);
    struct qd_error why = {.code = QD_E_NOT_FOUND, .message = "no model", .hint = "look"};
    must(error_encode(&wire, 4, &why, NULL) == 0);
    use_and_clear(use, data, &wire);
    struct msg_progress progress = {.id = 1,
                                    .model = "m",
                                    .scheme = "s",
                                    .state = "running",
                                    .done_bytes = 1ull << 40,
                                    .has_bytes_per_s = true,
                                    .bytes_per_s = 1e9};
    must(event_encode(&wire, "progress", MESSAGE(progress, &progress), NULL) == 0);
    use_and_clear(use, data, &wire);
    struct msg_tensor_plan plan = {.name = "t", .shape = "32", .from = "f16", .to = "q8_0", .bytes = 34, .reason = "r"};
    must(records_begin(&wire, 2, NULL) == 0);
    must(record_encode(&wire, MESSAGE(tensor_plan, &plan), NULL) == 0 &&
         record_encode(&wire, MESSAGE(tensor_plan, &plan), NULL) == 0);
    use_and_clear(use, data, &wire);
}

void fuzz_more(fuzz_use *use, void *data)
{
    static uint8_t nested[PACKET_BYTES_MAX];
    static const uint8_t firsts[] = {0x91, 0x81, 0xdd, 0xdf, 0xdc, 0xde, 0xc6, 0xdb, 0xff, 0x00};
    for (size_t i = 0; i < sizeof firsts; i++) {
        memset(nested, firsts[i], sizeof nested);
        use((struct bytes){nested, sizeof nested}, data);
    }
}
