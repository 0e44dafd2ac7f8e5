/* GGUF: what the writer writes, the reader reads; split models; the model of the outside world. */
#include <stdio.h>
#include <string.h>

#include "quant/format/gguf_write.h"
#include "kernels/core/name_set.h"
#include "tests/test.h"
#include "tests/unit/quant/files.h"

static const uint8_t numbers[8 * 3] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                       13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
static const uint8_t bools[3] = {1, 0, 1};
static struct bytes strings[3] = {{(const uint8_t *)"one", 3}, {(const uint8_t *)"", 0}, {(const uint8_t *)"a\0b", 3}};

/* An entry of every type, alone and as an array of three, and empty arrays. */
static size_t every_type(struct meta_entry dst[3 * META_N_TYPES], char keys[3 * META_N_TYPES][32])
{
    size_t n = 0;
    for (int type = 0; type < META_N_TYPES; type++) {
        if (type == META_ARRAY)
            continue;
        const void *data = type == META_STRING ? (const void *)strings : type == META_BOOL ? bools : numbers;
        for (int form = 0; form < 3; form++, n++) { /* alone, three, none */
            (void)snprintf(keys[n], sizeof keys[n], "test.type_%d.form_%d", type, form);
            dst[n].key = keys[n];
            dst[n].value = (struct meta_value){form ? META_ARRAY : (enum meta_type)type, (enum meta_type)type,
                                               form == 0   ? 1
                                               : form == 1 ? 3
                                                           : 0,
                                               data};
        }
    }
    return n;
}

static void assert_same_value(const struct meta_value *a, const struct meta_value *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->item, b->item);
    assert_int_equal(a->n_items, b->n_items);
    if (a->item != META_STRING) {
        assert_memory_equal(a->data, b->data, (size_t)a->n_items * meta_type_bytes(a->item));
        return;
    }
    const struct bytes *x = a->data, *y = b->data;
    for (uint64_t i = 0; i < a->n_items; i++) {
        assert_int_equal(x[i].n, y[i].n);
        assert_memory_equal(x[i].data, y[i].data, x[i].n);
    }
}

static void gguf__every_metadata_type__comes_back_as_written(void **state)
{
    (void)state;
    static char keys[3 * META_N_TYPES][32];
    static struct meta_entry entries[3 * META_N_TYPES];
    const struct meta_table table = {entries, every_type(entries, keys)};
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    assert_int_equal(gguf_header(&table, NULL, 0, 32, &file, &err), 0);
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(model_of_bytes(buffer_span(&file), "x.gguf", &m, &err), 0);
    assert_int_equal(m->meta.n, table.n);
    for (size_t i = 0; i < table.n; i++) {
        assert_string_equal(m->meta.entries[i].key, entries[i].key);
        assert_same_value(&m->meta.entries[i].value, &entries[i].value);
    }
    CLEANUP(buffer_clear) struct buffer again = {0};
    assert_int_equal(gguf_header(&m->meta, NULL, 0, 32, &again, &err), 0);
    assert_int_equal(again.n, file.n);
    assert_memory_equal(again.data, file.data, file.n);
}

enum { GGUF_TYPES = QD_TYPE_U8 /* the types behind have no id in the format */ };

/* A tensor of every type, one block row and two rows high, at planned offsets, with its data. */
static void every_tensor(uint32_t alignment, struct gguf_tensor dst[GGUF_TYPES], char names[GGUF_TYPES][16],
                         struct buffer *file)
{
    uint64_t offset = 0;
    for (int i = 0; i < GGUF_TYPES; i++) {
        const struct qd_type_info *t = qd_type_info((enum qd_type)i);
        (void)snprintf(names[i], sizeof names[i], "t.%s", t->name);
        dst[i] = (struct gguf_tensor){names[i], (enum qd_type)i, 2, {2 * t->block_elements, 2, 1, 1}, offset};
        offset += (4 * t->block_bytes + alignment - 1) / alignment * alignment;
    }
    const struct meta_entry entries[] = {
        {"general.architecture", {META_STRING, META_STRING, 1, &(struct bytes){(const uint8_t *)"test", 4}}},
        {"general.alignment", {META_U32, META_U32, 1, &alignment}},
    };
    struct qd_error err;
    assert_int_equal(
        gguf_header(&(struct meta_table){(struct meta_entry *)entries, 2}, dst, GGUF_TYPES, alignment, file, &err), 0);
    buffer_put_zeros(file, offset);
}

static void gguf__every_element_type_and_alignment__comes_back_in_place(void **state)
{
    (void)state;
    for (uint32_t alignment = 1; alignment <= 65536; alignment *= 4) {
        struct gguf_tensor tensors[GGUF_TYPES];
        char names[GGUF_TYPES][16];
        CLEANUP(buffer_clear) struct buffer file = {0};
        every_tensor(alignment, tensors, names, &file);
        struct qd_error err;
        CLEANUP(model_free) struct model *m = NULL;
        assert_int_equal(model_of_bytes(buffer_span(&file), "x.gguf", &m, &err), 0);
        assert_string_equal(m->architecture, "test");
        assert_int_equal(m->n_tensors, GGUF_TYPES);
        uint64_t data_start = m->tensors[0].offset;
        assert_int_equal(data_start % alignment, 0);
        for (int i = 0; i < GGUF_TYPES; i++) {
            const struct tensor *t = model_find(m, names[i]);
            assert_non_null(t);
            assert_int_equal(t->type, i);
            assert_int_equal(t->shape[0], tensors[i].shape[0]);
            assert_int_equal(t->shape[1], 2);
            assert_int_equal(t->shape[2], 1);
            assert_int_equal(t->bytes, 4 * qd_type_info((enum qd_type)i)->block_bytes);
            assert_int_equal(t->offset - data_start, tensors[i].offset);
        }
    }
}

/* One part of a split: @n_tensors f32 tensors of 8 elements called t<first>... */
static void write_part(const char *folder, const char *name, uint16_t no, uint16_t count, int32_t total, int first,
                       int n_tensors)
{
    const struct meta_entry entries[] = {
        {"split.no", {META_U16, META_U16, 1, &no}},
        {"general.architecture", {META_STRING, META_STRING, 1, &(struct bytes){(const uint8_t *)"llama", 5}}},
        {"split.count", {META_U16, META_U16, 1, &count}},
        {"split.tensors.count", {META_I32, META_I32, 1, &total}},
        {"split.origin", {META_U16, META_U16, 1, &count}},
    };
    struct gguf_tensor tensors[4];
    char names[4][16];
    for (int i = 0; i < n_tensors; i++) {
        (void)snprintf(names[i], sizeof names[i], "t%d", first + i);
        tensors[i] = (struct gguf_tensor){names[i], QD_TYPE_F32, 1, {8, 1, 1, 1}, (uint64_t)i * 32};
    }
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    assert_int_equal(
        gguf_header(&(struct meta_table){(struct meta_entry *)entries, 5}, tensors, (size_t)n_tensors, 32, &file, &err),
        0);
    buffer_put_zeros(&file, (size_t)n_tensors * 32);
    file_write(folder, name, buffer_span(&file));
}

static void gguf__split_model__is_read_as_one(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_part(folder, "m-00001-of-00003.gguf", 0, 3, 5, 0, 2);
    write_part(folder, "m-00002-of-00003.gguf", 1, 3, 5, 2, 2);
    write_part(folder, "m-00003-of-00003.gguf", 2, 3, 5, 4, 1);
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(model_open(folder, "m-00001-of-00003.gguf", &m, &s, &err), 0);
    assert_int_equal(m->n_tensors, 5);
    assert_int_equal(source_n_files(s), 3);
    assert_string_equal(source_name(s, model_find(m, "t4")->file), "m-00003-of-00003.gguf");
    assert_int_equal(m->meta.n, 2); /* the three keys of a split stay behind, no others */
    assert_non_null(meta_find(&m->meta, "split.origin"));
    assert_string_equal(m->architecture, "llama");
    folder_remove(folder);
}

static void gguf__split_model_gone_wrong__says_which_part(void **state)
{
    (void)state;
    static const struct {
        uint16_t no, count;
        int32_t total;
        const char *open, *says, *hint;
        int code;
    } cases[] = {
        {1, 2, 3, "m-00002-of-00002.gguf", "part 2 of a model split into 2", "m-00001-of-00002.gguf", QD_E_INVALID},
        {1, 2, 4, "m-00001-of-00002.gguf", "the parts hold 3 tensors", "", QD_E_CORRUPT},
        {0, 2, 3, "m-00001-of-00002.gguf", "says that it is part 1 of 2, its name part 2 of 2", "different models",
         QD_E_CORRUPT},
        {1, 3, 3, "m-00001-of-00002.gguf", "says that it is part 2 of 3", "", QD_E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char folder[TEST_PATH_MAX];
        folder_make(folder);
        write_part(folder, "m-00001-of-00002.gguf", 0, 2, cases[i].total, 0, 2);
        write_part(folder, "m-00002-of-00002.gguf", cases[i].no, cases[i].count, cases[i].total, 2, 1);
        struct qd_error err;
        struct model *m = NULL;
        assert_int_equal(model_open(folder, cases[i].open, &m, NULL, &err), cases[i].code);
        assert_non_null(strstr(err.message, cases[i].says));
        assert_non_null(strstr(err.hint, cases[i].hint));
        folder_remove(folder);
    }
}

static void gguf__missing_part__is_named(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_part(folder, "m-00001-of-00002.gguf", 0, 2, 3, 0, 2);
    struct qd_error err;
    struct model *m = NULL;
    assert_int_equal(model_open(folder, "m-00001-of-00002.gguf", &m, NULL, &err), QD_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "'m-00002-of-00002.gguf'"));
    folder_remove(folder);
}

static void gguf_header__name_beyond_the_formats_limit__is_refused(void **state)
{
    (void)state;
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    const struct gguf_tensor t = {name, QD_TYPE_F32, 1, {1, 1, 1, 1}, 0};
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    assert_int_equal(gguf_header(&(struct meta_table){0}, &t, 1, 32, &file, &err), QD_E_UNSUPPORTED);
}

static void model_read__budget_smaller_than_the_header__is_refused(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct gguf_tensor tensors[QD_N_TYPES];
    char names[QD_N_TYPES][16];
    every_tensor(32, tensors, names, &file);
    char folder[TEST_PATH_MAX], path[2 * TEST_PATH_MAX];
    folder_make(folder);
    file_write(folder, "x.gguf", buffer_span(&file));
    (void)snprintf(path, sizeof path, "%s/x.gguf", folder);
    struct qd_error err;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_open(path, &s, &err), 0);
    struct model *m = NULL;
    assert_int_equal(model_read(s, 2048, &m, &err), QD_E_LIMIT);
    assert_non_null(strstr(err.message, "more memory"));
    folder_remove(folder);
}

/* Slots looked at while @n names are added. */
static uint64_t probes_for(size_t n)
{
    char(*names)[32] = calloc(n, sizeof *names);
    assert_non_null(names);
    CLEANUP(name_set_clear) struct name_set s = {0};
    assert_int_equal(name_set_init(&s, 0), 0);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(names[i], sizeof names[i], "blk.%zu.w", i);
        size_t earlier;
        assert_int_equal(name_set_add(&s, names[i], i, &earlier), 0);
    }
    assert_int_equal(name_set_find(&s, names[n / 2]), (int64_t)(n / 2));
    uint64_t probes = s.probes;
    free(names);
    return probes;
}

static void name_set__twice_the_names__costs_about_twice_the_probes(void **state)
{
    (void)state;
    assert_true(probes_for(4000) < 4000 * 6); /* a bad hash fails here, before it costs minutes */
    uint64_t once = probes_for(100000), twice = probes_for(200000);
    assert_true(once < 100000 * 6); /* growing included */
    assert_true(twice < 3 * once);
}

static void gguf__hundred_thousand_tensors__are_read(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct gguf_tensor *tensors = calloc(N, sizeof *tensors);
    char(*names)[32] = calloc(N, sizeof *names);
    assert_true(tensors && names);
    for (size_t i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "t%zu", i);
        tensors[i] = (struct gguf_tensor){names[i], QD_TYPE_I8, 1, {1, 1, 1, 1}, i};
    }
    const uint32_t alignment = 1;
    const struct meta_entry entry = {"general.alignment", {META_U32, META_U32, 1, &alignment}};
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    assert_int_equal(
        gguf_header(&(struct meta_table){(struct meta_entry *)&entry, 1}, tensors, N, alignment, &file, &err), 0);
    buffer_put_zeros(&file, N);
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(model_of_bytes(buffer_span(&file), "x.gguf", &m, &err), 0);
    assert_int_equal(m->n_tensors, N);
    free(tensors);
    free(names);
}

static void model_read__bool_of_any_byte__becomes_one(void **state)
{
    (void)state;
    const uint8_t odd = 7;
    const struct meta_entry entry = {"a.bool", {META_BOOL, META_BOOL, 1, &odd}};
    CLEANUP(buffer_clear) struct buffer file = {0};
    struct qd_error err;
    assert_int_equal(gguf_header(&(struct meta_table){(struct meta_entry *)&entry, 1}, NULL, 0, 32, &file, &err), 0);
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(model_of_bytes(buffer_span(&file), "x.gguf", &m, &err), 0);
    assert_int_equal(*(const uint8_t *)m->meta.entries[0].value.data, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf__every_metadata_type__comes_back_as_written),
        cmocka_unit_test(gguf__every_element_type_and_alignment__comes_back_in_place),
        cmocka_unit_test(gguf__split_model__is_read_as_one),
        cmocka_unit_test(gguf__split_model_gone_wrong__says_which_part),
        cmocka_unit_test(gguf__missing_part__is_named),
        cmocka_unit_test(gguf_header__name_beyond_the_formats_limit__is_refused),
        cmocka_unit_test(model_read__budget_smaller_than_the_header__is_refused),
        cmocka_unit_test(name_set__twice_the_names__costs_about_twice_the_probes),
        cmocka_unit_test(gguf__hundred_thousand_tensors__are_read),
        cmocka_unit_test(model_read__bool_of_any_byte__becomes_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
