/* Input: a table of tensors, or of metadata. What decodes must encode to the same bytes, and lie inside its payload. */
#include <stdlib.h>
#include <string.h>

#include "artifact/tables.h"
#include "tests/fuzz/fuzz.h"

enum { PAYLOAD_BYTES = 1 << 16, BUDGET = 4 << 20 };

static void must_be_same(const struct buffer *again, const uint8_t *data, size_t n_bytes)
{
    if (again->failed || again->n != n_bytes || memcmp(again->data, data, n_bytes) != 0)
        abort();
}

static void try_tensors(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(BUDGET);
    CLEANUP(buffer_clear) struct buffer again = {0};
    const uint64_t payload = PAYLOAD_BYTES;
    struct tensor_table t;
    struct qd_error err;
    if (!arena || tensor_table_decode((struct bytes){data, n_bytes}, &payload, 1, arena, &t, &err) < 0)
        return;
    for (size_t i = 0; i < t.n; i++)
        if (t.tensors[i].offset > PAYLOAD_BYTES || t.tensors[i].bytes > PAYLOAD_BYTES - t.tensors[i].offset)
            abort();
    (void)tensor_table_encode(&t, &again, &err); /* a refusal shows as different bytes */
    must_be_same(&again, data, n_bytes);
}

static void try_metadata(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(BUDGET);
    CLEANUP(buffer_clear) struct buffer again = {0};
    struct meta_table t;
    struct qd_error err;
    if (!arena || meta_table_decode((struct bytes){data, n_bytes}, arena, &t, &err) < 0)
        return;
    (void)meta_table_encode(&t, &again, &err); /* a refusal shows as different bytes */
    must_be_same(&again, data, n_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    try_tensors(data, n_bytes);
    try_metadata(data, n_bytes);
    return 0;
}

static void tensor_seed(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct tensor_entry t[] = {
        {.name = "a.weight",
         .type = QD_TYPE_Q8_0,
         .source_type = QD_TYPE_F16,
         .n_dims = 2,
         .shape = {64, 2},
         .offset = 4096,
         .bytes = 136,
         .reason = "matrix",
         .sqnr_db = 40},
        {.name = "b",
         .type = QD_TYPE_F32,
         .source_type = QD_TYPE_F32,
         .n_dims = 1,
         .shape = {300},
         .bytes = 1200,
         .reason = ""},
        {.name = "codes",
         .type = QD_TYPE_I8,
         .source_type = QD_TYPE_F32,
         .n_dims = 2,
         .shape = {300, 64},
         .bytes = 19200,
         .reason = "",
         .codes = {.by_columns = true, .n_rows = 300, .n_cols = 64, .scales = 1}},
    };
    if (tensor_table_encode(&(struct tensor_table){t, 3}, &raw, NULL) < 0)
        abort();
    use(buffer_span(&raw), data);
}

static void meta_seed(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    static const uint8_t numbers[8] = {1, 0, 0, 0, 2, 0, 0, 0}, yes = 1;
    struct bytes texts[] = {{(const uint8_t *)"<s>", 3}, {(const uint8_t *)"", 0}};
    struct meta_entry e[] = {
        {"name", {META_STRING, META_STRING, 1, texts}},
        {"flag", {META_BOOL, META_BOOL, 1, &yes}},
        {"ids", {META_ARRAY, META_U32, 2, numbers}},
        {"tokens", {META_ARRAY, META_STRING, 2, texts}},
    };
    if (meta_table_encode(&(struct meta_table){e, 4}, &raw, NULL) < 0)
        abort();
    use(buffer_span(&raw), data);
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    tensor_seed(use, data);
    meta_seed(use, data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    static const uint8_t lying_array[] = {0x82, 0xa6, 'f', 'o', 'r', 'm', 'a',  't',  1,    0xa7, 't',
                                          'e',  'n',  's', 'o', 'r', 's', 0xdd, 0xff, 0xff, 0xff, 0xff};
    use((struct bytes){lying_array, sizeof lying_array}, data);
}
