#include "artifact/tables.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "artifact/pack.h"
#include "tests/test.h"

enum { ARENA_BUDGET = 1 << 20 };

static struct tensor_entry tensor(const char *name, uint64_t cols, uint64_t rows, uint64_t offset)
{
    return (struct tensor_entry){
        .name = name,
        .type = QD_TYPE_Q8_0,
        .source_type = QD_TYPE_BF16,
        .n_dims = 2,
        .shape = {cols, rows},
        .offset = offset,
        .bytes = cols / 32 * 34 * rows,
        .reason = "matrix",
        .sqnr_db = 46.25,
        .rel_rmse = 0.005,
        .max_abs = 0.125,
    };
}

static int decode(struct bytes raw, uint64_t payload_bytes, struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
    struct tensor_table table;
    return tensor_table_decode(raw, &payload_bytes, 1, arena, &table, err);
}

static void encode_two(struct buffer *dst)
{
    struct tensor_entry t[] = {tensor("a.weight", 64, 3, 4096), tensor("b.weight", 32, 1, 8192)};
    t[1].sqnr_db = INFINITY;
    assert_int_equal(tensor_table_encode(&(struct tensor_table){t, 2}, dst, NULL), 0);
}

static void tensor_table__encode_decode_encode__gives_the_same_bytes(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer first = {0};
    CLEANUP(buffer_clear) struct buffer second = {0};
    CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
    struct tensor_table table;
    uint64_t payload = 8192 + 34;
    encode_two(&first);
    assert_int_equal(tensor_table_decode(buffer_span(&first), &payload, 1, arena, &table, NULL), 0);
    assert_int_equal(table.n, 2);
    assert_string_equal(table.tensors[0].name, "a.weight");
    assert_int_equal(table.tensors[0].shape[1], 3);
    assert_int_equal(table.tensors[1].offset, 8192);
    assert_true(isinf(table.tensors[1].sqnr_db));
    assert_int_equal(tensor_table_encode(&table, &second, NULL), 0);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.data, second.data, first.n);
}

static void tensor_table__tensor_beyond_its_file__is_refused(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    encode_two(&raw);
    struct qd_error err;
    assert_int_equal(decode(buffer_span(&raw), 8192 + 34, &err), 0);
    assert_int_equal(decode(buffer_span(&raw), 8192 + 33, &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "'b.weight'"));
    assert_int_equal(decode(buffer_span(&raw), 0, &err), QD_E_CORRUPT);

    CLEANUP(buffer_clear) struct buffer far = {0};
    struct tensor_entry t = tensor("far", 32, 1, UINT64_MAX - 16); /* offset + bytes wraps */
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &far, NULL), 0);
    assert_int_equal(decode(buffer_span(&far), UINT64_MAX, &err), QD_E_CORRUPT);

    t = tensor("other file", 32, 1, 0);
    t.file = 1;
    CLEANUP(buffer_clear) struct buffer other = {0};
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &other, NULL), 0);
    assert_int_equal(decode(buffer_span(&other), UINT64_MAX, &err), QD_E_CORRUPT);
}

static void tensor_table__every_prefix_and_byte_change__is_refused_or_canonical(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    encode_two(&raw);
    uint64_t payload = 1 << 20;
    for (size_t n = 0; n < raw.n; n++) {
        CLEANUP(free) uint8_t *cut = malloc(n ? n : 1);
        memcpy(cut, raw.data, n);
        assert_true(decode((struct bytes){cut, n}, payload, NULL) < 0);
    }
    for (size_t at = 0; at < raw.n; at++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            raw.data[at] ^= (uint8_t)flip;
            CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
            struct tensor_table table;
            if (tensor_table_decode(buffer_span(&raw), &payload, 1, arena, &table, NULL) == 0) {
                CLEANUP(buffer_clear) struct buffer again = {0};
                assert_int_equal(tensor_table_encode(&table, &again, NULL), 0);
                assert_int_equal(again.n, raw.n);
                assert_memory_equal(again.data, raw.data, raw.n);
            }
            raw.data[at] ^= (uint8_t)flip;
        }
    }
}

static void tensor_table__lying_counts__are_refused_before_they_cost_memory(void **state)
{
    (void)state;
    static const uint8_t heads[][5] = {
        {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdd, 0x00, 0x10, 0x00, 0x00}, {0xdc, 0xff, 0xff, 0, 0}};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        CLEANUP(buffer_clear) struct buffer raw = {0};
        pack_map(&raw, 2);
        pack_text(&raw, "format");
        pack_u64(&raw, 1);
        pack_text(&raw, "tensors");
        buffer_put(&raw, heads[i], sizeof heads[i]);
        assert_true(decode(buffer_span(&raw), 1 << 20, NULL) < 0);
        buffer_put_zeros(&raw, 70000);
        assert_true(decode(buffer_span(&raw), 1 << 20, NULL) < 0);
    }
}

static void tensor_table__same_name_twice__is_refused(void **state)
{
    (void)state;
    struct tensor_entry t[] = {tensor("a", 32, 1, 0), tensor("a", 32, 1, 64)};
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct qd_error err;
    assert_int_equal(tensor_table_encode(&(struct tensor_table){t, 2}, &raw, NULL), 0);
    assert_int_equal(decode(buffer_span(&raw), 4096, &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "twice"));
}

static void tensor_table_encode__sizes_that_do_not_follow_from_the_shape__are_refused(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct tensor_entry t = tensor("a", 32, 1, 0);
    t.bytes++;
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &raw, NULL), QD_E_INVALID);
    t = tensor("a", 33, 1, 0);
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &raw, NULL), QD_E_INVALID);
    t = tensor("a", 32, UINT64_MAX, 0);
    t.bytes = (uint64_t)0 - 34;
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &raw, NULL), QD_E_INVALID);
    t = tensor("a", 32, 1, 0);
    t.rel_rmse = NAN;
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &raw, NULL), QD_E_INVALID);
    t = tensor("", 32, 1, 0);
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, &raw, NULL), QD_E_INVALID);
}

/* A weight of 16 rows of 96 as MatMulNBits has it, blocks of 64 with zero points, and a [96][16] one by channel. */
static void make_codes(struct tensor_entry t[5])
{
    static const char *const names[] = {"w", "w.scale", "w.zero", "v", "v.scale"};
    static const struct {
        enum qd_type type;
        uint32_t n_dims;
        uint64_t shape[3], bytes;
    } as[] = {{QD_TYPE_U8, 3, {32, 2, 16}, 1024},
              {QD_TYPE_F32, 1, {32, 1, 1}, 128},
              {QD_TYPE_U8, 1, {16, 1, 1}, 16},
              {QD_TYPE_I8, 2, {16, 96, 1}, 1536},
              {QD_TYPE_F32, 1, {16, 1, 1}, 64}};
    for (size_t i = 0; i < 5; i++) {
        t[i] = tensor(names[i], 32, 1, 4096 * i);
        t[i].type = as[i].type;
        t[i].n_dims = as[i].n_dims;
        memcpy(t[i].shape, as[i].shape, sizeof as[i].shape);
        t[i].bytes = as[i].bytes;
    }
    t[0].codes = (struct code_entry){.n_rows = 16, .n_cols = 96, .block = 64, .scales = 1, .zero_points = 3};
    t[3].codes = (struct code_entry){.by_columns = true, .n_rows = 16, .n_cols = 96, .scales = 4};
}

static void tensor_table__codes_alone__are_there_again(void **state)
{
    (void)state;
    struct tensor_entry t[5];
    struct tensor_table table;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    CLEANUP(buffer_clear) struct buffer again = {0};
    CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
    const uint64_t payload = 1 << 20;
    make_codes(t);
    assert_int_equal(tensor_table_encode(&(struct tensor_table){t, 5}, &raw, NULL), 0);
    assert_int_equal(tensor_table_decode(buffer_span(&raw), &payload, 1, arena, &table, NULL), 0);
    assert_memory_equal(&table.tensors[0].codes, &t[0].codes, sizeof t[0].codes);
    assert_memory_equal(&table.tensors[3].codes, &t[3].codes, sizeof t[3].codes);
    assert_int_equal(table.tensors[1].codes.n_cols, 0);
    assert_int_equal(tensor_codes(&table.tensors[0]).type, QD_TYPE_U4);
    assert_int_equal(tensor_table_encode(&table, &again, NULL), 0);
    assert_int_equal(again.n, raw.n);
    assert_memory_equal(again.data, raw.data, raw.n);
}

static void tensor_table__codes_that_fit_nothing__are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t of;
        struct code_entry codes;
        const char *why;
    } bad[] = {
        {0, {.n_rows = 16, .n_cols = 96, .block = 64, .scales = 5, .zero_points = 3}, "scales"},
        {0, {.n_rows = 16, .n_cols = 96, .block = 64, .scales = 2, .zero_points = 3}, "scales"},
        {0, {.n_rows = 16, .n_cols = 96, .block = 64, .scales = 1, .zero_points = 6}, "zero points"},
        {0, {.n_rows = 16, .n_cols = 96, .block = 64, .scales = 1, .zero_points = 2}, "zero points"},
        {0, {.n_rows = 16, .n_cols = 96, .block = 48, .scales = 1, .zero_points = 3}, "type or shape"},
        {0, {.n_rows = 16, .n_cols = 96, .block = 32, .scales = 1, .zero_points = 3}, "bytes"},
        {0, {.n_rows = UINT64_MAX, .n_cols = 96, .block = 64, .scales = 1}, "overflows"},
        {0, {.n_rows = 16, .n_cols = UINT64_MAX, .block = 64, .scales = 1}, "overflows"},
        {1, {.n_rows = 8, .n_cols = 16, .scales = 1}, "type or shape"},
        {3, {.by_columns = true, .n_rows = 16, .n_cols = 96, .scales = 4, .zero_points = 3}, "zero points"},
        {3, {.by_columns = true, .n_rows = 32, .n_cols = 96, .scales = 1}, "bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CLEANUP(buffer_clear) struct buffer raw = {0};
        struct tensor_entry t[5];
        struct qd_error err;
        make_codes(t);
        t[bad[i].of].codes = bad[i].codes;
        assert_int_equal(tensor_table_encode(&(struct tensor_table){t, 5}, &raw, &err), QD_E_INVALID);
        assert_non_null(strstr(err.message, bad[i].why));
    }
}

static void tensor_table__beyond_the_arena__is_a_limit_not_a_crash(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    encode_two(&raw);
    uint64_t payload = 1 << 20;
    for (size_t budget = 0; budget < 1024; budget += 16) {
        CLEANUP(arena_free) struct arena *arena = arena_new(budget);
        struct tensor_table table;
        int r = tensor_table_decode(buffer_span(&raw), &payload, 1, arena, &table, NULL);
        assert_true(r == 0 || r == QD_E_LIMIT);
    }
}

static void tensor_table__hundred_thousand_tensors__decode_in_linear_time(void **state)
{
    (void)state;
    enum { N = 100000 };
    CLEANUP(free) struct tensor_entry *t = calloc(N, sizeof *t);
    CLEANUP(free) char(*names)[16] = calloc(N, sizeof *names);
    for (size_t i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "t%zu", i);
        t[i] = tensor(names[i], 32, 1, 0);
    }
    CLEANUP(buffer_clear) struct buffer raw = {0};
    assert_int_equal(tensor_table_encode(&(struct tensor_table){t, N}, &raw, NULL), 0);
    CLEANUP(arena_free) struct arena *arena = arena_new(256 << 20);
    struct tensor_table table;
    uint64_t payload = 4096;
    clock_t start = clock();
    assert_int_equal(tensor_table_decode(buffer_span(&raw), &payload, 1, arena, &table, NULL), 0);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 3); /* 0.03 s; quadratic would be minutes */
    assert_int_equal(table.n, N);
}

/* --- Metadata --- */

static struct bytes text(const char *s)
{
    return (struct bytes){(const uint8_t *)s, strlen(s)};
}

static void encode_meta_sample(struct buffer *dst)
{
    static const uint8_t u32[] = {4, 3, 2, 1}, f32s[] = {0, 0, 128, 63, 0, 0, 0, 64}, yes = 1;
    struct bytes name = text("tiny"), tokens[] = {text("<s>"), {(const uint8_t *)"a\0b", 3}, text("")};
    struct meta_entry e[] = {
        {"general.name", {META_STRING, META_STRING, 1, &name}},
        {"llama.block_count", {META_U32, META_U32, 1, u32}},
        {"tokenizer.ggml.add_bos_token", {META_BOOL, META_BOOL, 1, &yes}},
        {"tokenizer.ggml.tokens", {META_ARRAY, META_STRING, 3, tokens}},
        {"tokenizer.ggml.scores", {META_ARRAY, META_F32, 2, f32s}},
        {"empty", {META_ARRAY, META_I64, 0, NULL}},
        {"empty strings", {META_ARRAY, META_STRING, 0, NULL}},
    };
    assert_int_equal(meta_table_encode(&(struct meta_table){e, sizeof e / sizeof e[0]}, dst, NULL), 0);
}

static void meta_table__encode_decode_encode__gives_the_same_bytes(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer first = {0};
    CLEANUP(buffer_clear) struct buffer second = {0};
    CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
    struct meta_table table;
    encode_meta_sample(&first);
    assert_int_equal(meta_table_decode(buffer_span(&first), arena, &table, NULL), 0);
    const struct meta_value *tokens = meta_find(&table, "tokenizer.ggml.tokens");
    assert_non_null(tokens);
    assert_int_equal(tokens->n_items, 3);
    const struct bytes *token = tokens->data;
    assert_int_equal(token[1].n, 3);
    assert_memory_equal(token[1].data, "a\0b", 3);
    assert_null(meta_find(&table, "tokenizer"));
    assert_int_equal(meta_table_encode(&table, &second, NULL), 0);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.data, second.data, first.n);
}

static void meta_table__every_prefix_and_byte_change__is_refused_or_canonical(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    encode_meta_sample(&raw);
    for (size_t n = 0; n < raw.n; n++) {
        CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
        CLEANUP(free) uint8_t *cut = malloc(n ? n : 1);
        memcpy(cut, raw.data, n);
        struct meta_table table;
        assert_true(meta_table_decode((struct bytes){cut, n}, arena, &table, NULL) < 0);
    }
    for (size_t at = 0; at < raw.n; at++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            raw.data[at] ^= (uint8_t)flip;
            CLEANUP(arena_free) struct arena *arena = arena_new(ARENA_BUDGET);
            struct meta_table table;
            if (meta_table_decode(buffer_span(&raw), arena, &table, NULL) == 0) {
                CLEANUP(buffer_clear) struct buffer again = {0};
                assert_int_equal(meta_table_encode(&table, &again, NULL), 0);
                assert_int_equal(again.n, raw.n);
                assert_memory_equal(again.data, raw.data, raw.n);
            }
            raw.data[at] ^= (uint8_t)flip;
        }
    }
}

static void meta_table_encode__types_that_are_none__are_refused(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer raw = {0};
    uint8_t two = 2;
    struct meta_entry e = {"k", {META_ARRAY, META_ARRAY, 0, NULL}};
    assert_int_equal(meta_table_encode(&(struct meta_table){&e, 1}, &raw, NULL), QD_E_INVALID);
    e = (struct meta_entry){"k", {META_BOOL, META_BOOL, 1, &two}};
    assert_int_equal(meta_table_encode(&(struct meta_table){&e, 1}, &raw, NULL), QD_E_INVALID);
    e = (struct meta_entry){"k", {META_U8, META_U8, 2, &two}};
    assert_int_equal(meta_table_encode(&(struct meta_table){&e, 1}, &raw, NULL), QD_E_INVALID);
    e = (struct meta_entry){"", {META_U8, META_U8, 1, &two}};
    assert_int_equal(meta_table_encode(&(struct meta_table){&e, 1}, &raw, NULL), QD_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensor_table__encode_decode_encode__gives_the_same_bytes),
        cmocka_unit_test(tensor_table__tensor_beyond_its_file__is_refused),
        cmocka_unit_test(tensor_table__every_prefix_and_byte_change__is_refused_or_canonical),
        cmocka_unit_test(tensor_table__lying_counts__are_refused_before_they_cost_memory),
        cmocka_unit_test(tensor_table__same_name_twice__is_refused),
        cmocka_unit_test(tensor_table_encode__sizes_that_do_not_follow_from_the_shape__are_refused),
        cmocka_unit_test(tensor_table__codes_alone__are_there_again),
        cmocka_unit_test(tensor_table__codes_that_fit_nothing__are_refused),
        cmocka_unit_test(tensor_table__beyond_the_arena__is_a_limit_not_a_crash),
        cmocka_unit_test(tensor_table__hundred_thousand_tensors__decode_in_linear_time),
        cmocka_unit_test(meta_table__encode_decode_encode__gives_the_same_bytes),
        cmocka_unit_test(meta_table__every_prefix_and_byte_change__is_refused_or_canonical),
        cmocka_unit_test(meta_table_encode__types_that_are_none__are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
