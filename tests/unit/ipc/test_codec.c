#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "ipc/codec.h"
#include "ipc/records.h"
#include "ipc/value.h"
#include "tests/test.h"

enum { N_ITEMS = 3 };

/* Sample values: distinct by field and round, with the forms that are hard (empty, long, non-ASCII, extremes). */
static const char *const sample_texts[] = {"tiny", "",
                                           ("Gr\xc3\xb6\xc3\x9f"
                                            "e"),
                                           "\xf0\x9f\x94\xa7 a/b:c", "0123456789abcdef0123456789abcdef0"};
static const uint64_t sample_numbers[] = {
    0, 1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_MAX};
static const double sample_floats[] = {0.0, -1.5, 1e300, 42.25};
#define SAMPLE(table, i) table[(i) % (sizeof(table) / sizeof(table)[0])]

static void fill_message(enum message type, unsigned round, bool optionals, uint8_t *msg, uint8_t *lists);

static void fill_list(const struct field *f, unsigned round, uint8_t *msg, uint8_t *lists)
{
    size_t item_bytes = shape_of(f->record)->struct_bytes;
    for (unsigned i = 0; i < N_ITEMS; i++)
        fill_message(f->record, round + i, i % 2, lists + i * item_bytes, NULL);
    *(const void **)(void *)(msg + f->offset) = lists;
    *(size_t *)(void *)(msg + f->beside) = N_ITEMS;
}

static void fill_field(const struct field *f, unsigned round, uint8_t *msg, uint8_t *lists)
{
    void *member = msg + f->offset;
    switch (f->kind) {
    case FIELD_str:
        *(const char **)member = SAMPLE(sample_texts, round);
        break;
    case FIELD_u32:
        *(uint32_t *)member = (uint32_t)SAMPLE(sample_numbers, round);
        break;
    case FIELD_u64:
        *(uint64_t *)member = SAMPLE(sample_numbers, round);
        break;
    case FIELD_bool:
        *(bool *)member = !f->required || round % 2;
        break;
    case FIELD_f64:
        *(double *)member = SAMPLE(sample_floats, round);
        break;
    case FIELD_bin:
        *(struct bytes *)member = (struct bytes){(const uint8_t *)"\0\xff\x80", 3};
        break;
    case FIELD_list:
        fill_list(f, round, msg, lists);
        break;
    }
    if (f->has_flag)
        *(bool *)(msg + f->beside) = true;
}

static void fill_message(enum message type, unsigned round, bool optionals, uint8_t *msg, uint8_t *lists)
{
    const struct message_shape *shape = shape_of(type);
    memset(msg, 0, shape->struct_bytes);
    for (size_t i = 0; i < shape->n_fields; i++) {
        if (optionals || shape->fields[i].required)
            fill_field(&shape->fields[i], round + (unsigned)i, msg, lists);
        if (shape->fields[i].kind == FIELD_list && lists)
            lists += N_ITEMS * shape_of(shape->fields[i].record)->struct_bytes;
    }
}

static void assert_same(enum message type, const uint8_t *a, const uint8_t *b);

static void assert_same_field(const struct field *f, const uint8_t *a, const uint8_t *b)
{
    const void *x = a + f->offset, *y = b + f->offset;
    if (f->has_flag)
        assert_int_equal(*(a + f->beside), *(b + f->beside));
    switch (f->kind) {
    case FIELD_str: {
        const char *s = *(const char *const *)x, *t = *(const char *const *)y;
        assert_int_equal(!s, !t);
        if (s)
            assert_string_equal(s, t);
        break;
    }
    case FIELD_u32:
        assert_int_equal(*(const uint32_t *)x, *(const uint32_t *)y);
        break;
    case FIELD_u64:
        assert_true(*(const uint64_t *)x == *(const uint64_t *)y);
        break;
    case FIELD_bool:
        assert_int_equal(*(const bool *)x, *(const bool *)y);
        break;
    case FIELD_f64:
        assert_memory_equal(x, y, sizeof(double));
        break;
    case FIELD_bin: {
        const struct bytes *s = x, *t = y;
        assert_int_equal(s->n, t->n);
        if (s->n)
            assert_memory_equal(s->data, t->data, s->n);
        break;
    }
    case FIELD_list: {
        size_t n = *(const size_t *)(const void *)(a + f->beside);
        assert_int_equal(n, *(const size_t *)(const void *)(b + f->beside));
        size_t step = shape_of(f->record)->struct_bytes;
        for (size_t i = 0; i < n; i++)
            assert_same(f->record, *(const uint8_t *const *)x + i * step, *(const uint8_t *const *)y + i * step);
        break;
    }
    }
}

static void assert_same(enum message type, const uint8_t *a, const uint8_t *b)
{
    for (size_t i = 0; i < shape_of(type)->n_fields; i++)
        assert_same_field(&shape_of(type)->fields[i], a, b);
}

static void codec__every_message_with_every_field__comes_back_the_same(void **state)
{
    (void)state;
    static union any_message sent, lists[4 * N_ITEMS], got;
    for (int type = 0; type < N_MESSAGES; type++)
        for (unsigned round = 0; round < 24; round++) {
            CLEANUP(buffer_clear) struct buffer wire = {0};
            CLEANUP(incoming_clear) struct incoming in = {0};
            struct qd_error err;
            fill_message((enum message)type, round, round % 2, (uint8_t *)&sent, (uint8_t *)lists);
            assert_int_equal(reply_encode(&wire, round, (enum message)type, &sent, &err), 0);
            assert_int_equal(incoming_parse(buffer_span(&wire), &in, &err), 0);
            memset(wire.data, 0xee, wire.n); /* the copy is what counts */
            assert_int_equal(in.kind, INCOMING_REPLY);
            assert_int_equal(in.id, round);
            assert_int_equal(incoming_decode(&in, (enum message)type, &got, &err), 0);
            assert_same((enum message)type, (const uint8_t *)&sent, (const uint8_t *)&got);
        }
}

static void codec__every_required_field_left_out__is_missed_by_name(void **state)
{
    (void)state;
    static union any_message sent, lists[4 * N_ITEMS], got;
    for (int type = 0; type < N_MESSAGES; type++) {
        const struct message_shape *shape = shape_of((enum message)type);
        for (size_t i = 0; i < shape->n_fields; i++) {
            if (!shape->fields[i].required)
                continue;
            CLEANUP(buffer_clear) struct buffer wire = {0};
            CLEANUP(incoming_clear) struct incoming in = {0};
            struct qd_error err;
            fill_message((enum message)type, 0, true, (uint8_t *)&sent, (uint8_t *)lists);
            assert_int_equal(reply_encode(&wire, 1, (enum message)type, &sent, &err), 0);
            /* The key is renamed where it stands; the first occurrence may be a record's. */
            uint8_t *key = memmem(wire.data, wire.n, shape->fields[i].key, strlen(shape->fields[i].key));
            assert_non_null(key);
            *key = 'Z';
            assert_int_equal(incoming_parse(buffer_span(&wire), &in, &err), 0);
            assert_int_equal(incoming_decode(&in, (enum message)type, &got, &err), QD_E_PROTOCOL);
            assert_non_null(strstr(err.message, " is missing"));
        }
    }
}

static int decode_raw(const char *raw, size_t n, enum message type, void *ret, struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    int r = incoming_parse((struct bytes){(const uint8_t *)raw, n}, &in, err);
    return r < 0 ? r : incoming_decode(&in, type, ret, err);
}
#define DECODE(literal, name, ret, err) decode_raw(literal, sizeof(literal) - 1, INTO(name, ret), err)

static void codec__unknown_keys_of_any_kind__are_skipped(void **state)
{
    (void)state;
    struct msg_cancel got;
    struct qd_error err;
    assert_int_equal(DECODE("\x94\x00\x01\xa6"
                            "cancel\x83\xa1"
                            "x\x91\x81\x01\x02\xa3"
                            "job\x07\xa1"
                            "y\xc0",
                            cancel, &got, &err),
                     0);
    assert_int_equal(got.job, 7);
}

static void codec__faulty_bodies__are_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        size_t n;
        const char *reason;
    } faults[] = {
#define FAULT(raw, reason) {raw, sizeof(raw) - 1, reason}
        FAULT("\x94\x00\x01\xa6"
              "cancel\x82\xa3"
              "job\x07\xa3"
              "job\x07",
              "cancel.job comes twice"),
        FAULT("\x94\x00\x01\xa6"
              "cancel\x81\xa3"
              "job\xff",
              "cancel.job: is not a non-negative integer"),
        FAULT("\x94\x00\x01\xa6"
              "cancel\x81\xa3"
              "job\xcf\0\0\0\1\0\0\0\0",
              "cancel.job: is beyond its range"),
        FAULT("\x94\x00\x01\xa6"
              "cancel\x81\xa3"
              "job\xa1"
              "7",
              "cancel.job: is not a non-negative integer"),
        FAULT("\x94\x00\x01\xa6"
              "cancel\x81\xa3"
              "job\xc0",
              "cancel.job is missing"),
        FAULT("\x94\x00\x01\xa6"
              "cancel\x81\x01\x07",
              "cancel: a key is not a string"),
        FAULT("\x94\x00\x01\xa6"
              "cancel\x90",
              "cancel is not a map"),
        FAULT("\x94\x00\xff\xa6"
              "cancel\x80",
              "id: is not a non-negative integer"),
        FAULT("\x94\x00\x01\xa6"
              "can\0el\x80",
              "name: is not UTF-8 text"),
        FAULT("\x94\x03\x01\xa6"
              "cancel\x80",
              "message is neither request, reply nor event"),
        FAULT("\x93\x00\x01\xa6"
              "cancel",
              "message has 3 parts"),
        FAULT("\x80", "message is not an array"),
        FAULT("\x90", "message is not an array"),
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct msg_cancel got;
        struct qd_error err;
        assert_int_equal(decode_raw(faults[i].raw, faults[i].n, INTO(cancel, &got), &err), QD_E_PROTOCOL);
        assert_string_equal(err.message, faults[i].reason);
    }
}

static void codec__strings_that_are_no_text__are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\xff",  "\xc0\x80", "\xed\xa0\x80", "\xe0\x80\x80", "\xf4\x90\x80\x80", "\xf0\x80\x80\x80",
        "a\xc3", "\x80",     "\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char raw[64];
        struct msg_which got;
        struct qd_error err;
        int n = snprintf(raw, sizeof raw,
                         "%s\xa8"
                         "artifact%c%s",
                         "\x94\x01\x01\xc0\x81", (char)(0xa0 + strlen(bad[i])), bad[i]);
        assert_int_equal(decode_raw(raw, (size_t)n, INTO(which, &got), &err), QD_E_PROTOCOL);
        assert_string_equal(err.message, "which.artifact: is not UTF-8 text");
    }
}

static void codec__file_name_that_is_not_utf8__is_sent_with_question_marks(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer wire = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_which sent = {.artifact = "\xff"
                                         "a\xc3(\xc3\xa4\x80"},
                     got;
    assert_int_equal(request_encode(&wire, 1, "show", MESSAGE(which, &sent), NULL), 0);
    assert_int_equal(incoming_parse(buffer_span(&wire), &in, NULL), 0);
    assert_int_equal(incoming_decode(&in, INTO(which, &got), NULL), 0);
    assert_string_equal(got.artifact, "?a?(\xc3\xa4?");
}

static void codec__text_beyond_the_limit__is_not_sent(void **state)
{
    (void)state;
    static char text[TEXT_BYTES_MAX + 2];
    struct msg_which sent = {.artifact = text};
    struct qd_error err;
    CLEANUP(buffer_clear) struct buffer wire = {0};
    memset(text, 'x', TEXT_BYTES_MAX);
    assert_int_equal(request_encode(&wire, 1, "show", MESSAGE(which, &sent), &err), 0);
    text[TEXT_BYTES_MAX] = 'x';
    size_t before = wire.n;
    assert_int_equal(request_encode(&wire, 1, "show", MESSAGE(which, &sent), &err), QD_E_LIMIT);
    assert_int_equal(wire.n, before);
}

static void codec__error_reply__carries_code_message_and_hint(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer wire = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct qd_error why = {.code = QD_E_NO_SPACE, .message = "disk full", .hint = "quantctl prune"}, got;
    assert_int_equal(error_encode(&wire, 9, &why, NULL), 0);
    assert_int_equal(incoming_parse(buffer_span(&wire), &in, NULL), 0);
    assert_true(in.failed);
    assert_int_equal(in.id, 9);
    assert_int_equal(incoming_error(&in, &got), QD_E_NO_SPACE);
    assert_string_equal(got.message, "disk full");
    assert_string_equal(got.hint, "quantctl prune");
}

static void codec__longest_error__fits(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer wire = {0};
    struct qd_error why = {.code = QD_E_IO};
    memset(why.message, 'm', sizeof why.message - 1);
    memset(why.hint, 'h', sizeof why.hint - 1);
    assert_int_equal(error_encode(&wire, UINT32_MAX, &why, NULL), 0);
    assert_true(wire.n < PACKET_BYTES_MAX);
}

static void codec__error_that_is_no_map__still_is_an_error(void **state)
{
    (void)state;
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct qd_error got;
    assert_int_equal(incoming_parse((struct bytes){(const uint8_t *)"\x94\x01\x05\x07\xc0", 5}, &in, NULL), 0);
    assert_int_equal(incoming_error(&in, &got), QD_E_INTERNAL);
    assert_string_equal(got.message, "the peer gave no reason");
}

/* Reads all pages of @total models whose paths have @path_bytes; every item must come once, in order. */
static unsigned read_pages(size_t total, size_t path_bytes)
{
    static struct msg_model models[6000];
    static char path[TEXT_BYTES_MAX + 1];
    memset(path, 'p', path_bytes);
    path[path_bytes] = '\0';
    for (size_t i = 0; i < total; i++)
        models[i] = (struct msg_model){.name = "m", .path = path, .state = "ready", .bytes = i};
    unsigned pages = 0;
    for (uint32_t from = 0, more = 1; more; pages++) {
        CLEANUP(buffer_clear) struct buffer wire = {0};
        CLEANUP(incoming_clear) struct incoming in = {0};
        struct msg_model_list sent = {.models = models + from, .models_n = total - from}, got;
        size_t kept = message_page(MSG_model_list, &sent, from, total);
        assert_int_equal(reply_encode(&wire, UINT32_MAX, MESSAGE(model_list, &sent), NULL), 0);
        assert_int_equal(incoming_parse(buffer_span(&wire), &in, NULL), 0);
        assert_int_equal(incoming_decode(&in, INTO(model_list, &got), NULL), 0);
        assert_int_equal(got.models_n, kept);
        for (size_t i = 0; i < got.models_n; i++)
            assert_int_equal(got.models[i].bytes, from + i);
        assert_int_equal(got.has_next, from + kept < total);
        more = got.has_next;
        from = got.next;
    }
    return pages;
}

static void message_page__long_lists__are_cut_to_what_fits(void **state)
{
    (void)state;
    assert_int_equal(read_pages(0, 10), 1);
    assert_int_equal(read_pages(3, 10), 1);
    assert_int_equal(read_pages(100, 2000), 4);
    assert_int_equal(read_pages(31, TEXT_BYTES_MAX), 3);
    assert_in_range(read_pages(6000, 1), 3, 5);
}

/* A result whose list has no pages: what does not fit is left out, and the rest is told. */
static void message_page__result_without_pages__is_sent_with_what_fits(void **state)
{
    (void)state;
    static struct msg_problem problems[256];
    static char reason[512];
    CLEANUP(buffer_clear) struct buffer wire = {0};
    memset(reason, 'r', sizeof reason - 1);
    for (size_t i = 0; i < 256; i++)
        problems[i] = (struct msg_problem){.what = "m", .reason = reason};
    struct msg_verified sent = {.checked = 256, .problems = problems, .problems_n = 256};
    assert_true(reply_encode(&wire, 1, MESSAGE(verified, &sent), NULL) < 0);
    wire.n = 0;
    size_t kept = message_page(MSG_verified, &sent, 0, 256);
    assert_in_range(kept, 100, 255);
    assert_int_equal(reply_encode(&wire, 1, MESSAGE(verified, &sent), NULL), 0);
}

static void record_reader__plan_of_many_tensors__is_read_and_skipped(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer list = {0};
    enum { N = 70000 };
    assert_int_equal(records_begin(&list, N, NULL), 0);
    for (uint32_t i = 0; i < N; i++) {
        struct msg_tensor_plan t = {
            .name = "blk", .shape = "256", .from = "f16", .to = "q8_0", .offset = i, .bytes = 272, .reason = "rule"};
        assert_int_equal(record_encode(&list, MESSAGE(tensor_plan, &t), NULL), 0);
    }
    CLEANUP(record_reader_clear) struct record_reader r = {0};
    struct msg_tensor_plan got;
    assert_int_equal(record_reader_open(buffer_span(&list), &r, NULL), 0);
    assert_int_equal(record_skip(&r, 69000, NULL), 69000);
    for (uint32_t i = 69000; i < N; i++) {
        assert_int_equal(record_read(&r, INTO(tensor_plan, &got), NULL), 1);
        assert_int_equal(got.offset, i);
        assert_string_equal(got.to, "q8_0");
    }
    assert_int_equal(record_read(&r, INTO(tensor_plan, &got), NULL), 0);
    assert_int_equal(record_skip(&r, 5, NULL), 0);
}

static void record_reader__cut_list__fails_where_it_ends(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer list = {0};
    struct msg_tensor_plan t = {.name = "a", .shape = "1", .from = "f32", .to = "f32", .reason = "r"}, got;
    assert_int_equal(records_begin(&list, 2, NULL), 0);
    assert_int_equal(record_encode(&list, MESSAGE(tensor_plan, &t), NULL), 0);
    assert_int_equal(record_encode(&list, MESSAGE(tensor_plan, &t), NULL), 0);
    CLEANUP(record_reader_clear) struct record_reader r = {0};
    assert_int_equal(record_reader_open((struct bytes){list.data, list.n - 1}, &r, NULL), 0);
    assert_int_equal(record_read(&r, INTO(tensor_plan, &got), NULL), 1);
    assert_int_equal(record_read(&r, INTO(tensor_plan, &got), NULL), QD_E_PROTOCOL);
    struct record_reader none = {0};
    assert_int_equal(record_reader_open((struct bytes){(const uint8_t *)"\xdd\xff\xff\xff\xff", 5}, &none, NULL),
                     QD_E_PROTOCOL);
}

static void value__reply__is_shown_as_a_tree(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer wire = {0};
    struct incoming in = {0};
    struct msg_root root = {.path = "/m", .state = "watching", .models = 3};
    struct msg_model_list none = {.has_next = true, .next = 7};
    struct msg_status_report sent = {.version = "0.1",
                                     .state = "ready",
                                     .hardware = "x86_64",
                                     .cache = "/c",
                                     .pid = 4,
                                     .uptime_s = UINT64_MAX,
                                     .roots = &root,
                                     .roots_n = 1};
    (void)none;
    assert_int_equal(reply_encode(&wire, 1, MESSAGE(status_report, &sent), NULL), 0);
    assert_int_equal(incoming_parse(buffer_span(&wire), &in, NULL), 0);
    CLEANUP(value_free) struct value *tree = NULL;
    assert_int_equal(value_of_incoming(&in, &tree, NULL), 0);
    incoming_clear(&in); /* the tree stands alone */
    assert_int_equal(tree->kind, VALUE_MAP);
    assert_string_equal(tree->keys[0], "version");
    assert_string_equal(tree->items[0].text, "0.1");
    const struct value *roots = &tree->items[tree->n - 1];
    assert_int_equal(roots->kind, VALUE_ARRAY);
    assert_string_equal(roots->items[0].items[0].text, "/m");
    assert_int_equal(roots->items[0].items[2].u, 3);
}

static void value__params_without_a_struct__are_decoded_by_the_typed_side(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer wire = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    const struct param params[] = {{.key = "model", .kind = PARAM_STR, .text = "tiny"},
                                   {.key = "pure", .kind = PARAM_BOOL, .number = 1},
                                   {.key = "wait_ms", .kind = PARAM_U64, .number = 5}};
    struct msg_open got;
    assert_int_equal(request_encode_params(&wire, 2, "open", params, 3, NULL), 0);
    assert_int_equal(incoming_parse(buffer_span(&wire), &in, NULL), 0);
    assert_string_equal(in.name, "open");
    assert_int_equal(incoming_decode(&in, INTO(open, &got), NULL), 0);
    assert_string_equal(got.model, "tiny");
    assert_true(got.pure && got.has_wait_ms && got.wait_ms == 5 && !got.strict && !got.scheme);
}

/* 64 KiB packets of the worst forms: what they cost is bounded by the packet, not by what they announce. */
static void codec__hostile_headers__cost_no_memory(void **state)
{
    (void)state;
    static const char *const heads[] = {"\xdf\x08\x00\x00\x00", "\xdd\xff\xff\xff\xff",
                                        "\x94\x00\x01\xa4open\xdf\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff"};
    static char raw[PACKET_BYTES_MAX];
    struct rusage before, after;
    struct incoming in;
    struct qd_error err;
    assert_int_equal(incoming_parse((struct bytes){(const uint8_t *)raw, sizeof raw}, &in, &err), QD_E_PROTOCOL);
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    for (int round = 0; round < 1000; round++)
        for (size_t i = 0; i < 4; i++) {
            size_t n = strlen(heads[i]) ? strlen(heads[i]) : 5;
            memset(raw, round % 2 ? 0xdf : 0x00, sizeof raw);
            memcpy(raw, heads[i], i == 0 ? 5 : n);
            assert_int_equal(incoming_parse((struct bytes){(const uint8_t *)raw, sizeof raw}, &in, &err),
                             QD_E_PROTOCOL);
        }
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    assert_true(after.ru_maxrss - before.ru_maxrss < 4096); /* KiB */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codec__every_message_with_every_field__comes_back_the_same),
        cmocka_unit_test(codec__every_required_field_left_out__is_missed_by_name),
        cmocka_unit_test(codec__unknown_keys_of_any_kind__are_skipped),
        cmocka_unit_test(codec__faulty_bodies__are_refused_with_the_reason),
        cmocka_unit_test(codec__strings_that_are_no_text__are_refused),
        cmocka_unit_test(codec__file_name_that_is_not_utf8__is_sent_with_question_marks),
        cmocka_unit_test(codec__text_beyond_the_limit__is_not_sent),
        cmocka_unit_test(codec__error_reply__carries_code_message_and_hint),
        cmocka_unit_test(codec__longest_error__fits),
        cmocka_unit_test(codec__error_that_is_no_map__still_is_an_error),
        cmocka_unit_test(message_page__long_lists__are_cut_to_what_fits),
        cmocka_unit_test(message_page__result_without_pages__is_sent_with_what_fits),
        cmocka_unit_test(record_reader__plan_of_many_tensors__is_read_and_skipped),
        cmocka_unit_test(record_reader__cut_list__fails_where_it_ends),
        cmocka_unit_test(value__reply__is_shown_as_a_tree),
        cmocka_unit_test(value__params_without_a_struct__are_decoded_by_the_typed_side),
        cmocka_unit_test(codec__hostile_headers__cost_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
