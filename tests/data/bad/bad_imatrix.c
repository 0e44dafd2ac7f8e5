/* Importance matrices gone wrong, in both forms: cut everywhere, and every field lying. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <quantd/error.h>

#include "quant/format/gguf_write.h"
#include "tests/data/bad/bad_files.h"

enum { N_TENSORS_MAX = 6, N_VALUES_MAX = 8 };

/* ---- GGUF: a description that a rule changes before it is written ---------------------------------- */

struct matrix_tensor {
    const char *name;
    enum qd_type type;
    uint64_t ne0, ne1;
    float values[N_VALUES_MAX];
};

struct matrix {
    const char *keys[3];
    enum meta_type chunk_type;
    struct matrix_tensor tensors[N_TENSORS_MAX];
    size_t n_tensors;
};

static const struct matrix good = {
    .keys = {"imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"},
    .chunk_type = META_U32,
    .tensors = {{"blk.0.attn_q.weight.in_sum2", QD_TYPE_F32, 4, 1, {1, 2, 3, 0}},
                {"blk.0.attn_q.weight.counts", QD_TYPE_F32, 1, 1, {3}},
                {"blk.0.ffn_up_exps.weight.in_sum2", QD_TYPE_F32, 2, 3, {1, 2, 0, 0, 5, 6}},
                {"blk.0.ffn_up_exps.weight.counts", QD_TYPE_F32, 1, 3, {1, 0, 2}}},
    .n_tensors = 4};

static size_t bytes_of(const struct matrix_tensor *t)
{
    return (size_t)(t->ne0 * t->ne1 * qd_type_info(t->type)->block_bytes);
}

static void write_gguf(const struct matrix *m, struct buffer *dst)
{
    static const uint32_t chunks = 7, chunk_size = 512;
    const struct bytes text = {(const uint8_t *)"texts/calibration.txt", 21};
    struct meta_entry entries[] = {
        {m->keys[0], {.type = META_ARRAY, .item = META_STRING, .n_items = 1, .data = &text}},
        {m->keys[1], {.type = m->chunk_type, .item = m->chunk_type, .n_items = 1, .data = &chunks}},
        {m->keys[2], {.type = META_U32, .item = META_U32, .n_items = 1, .data = &chunk_size}},
    };
    const struct meta_table meta = {entries, 3};
    struct gguf_tensor list[N_TENSORS_MAX];
    uint64_t at = 0;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct matrix_tensor *t = &m->tensors[i];
        list[i] = (struct gguf_tensor){t->name, t->type, 2, {t->ne0, t->ne1, 1, 1}, at};
        at += (bytes_of(t) + 31) / 32 * 32;
    }
    struct qd_error err;
    if (gguf_header(&meta, list, m->n_tensors, 32, dst, &err) < 0)
        return;
    for (size_t i = 0; i < m->n_tensors; i++) {
        buffer_put(dst, m->tensors[i].values, bytes_of(&m->tensors[i]));
        buffer_put_zeros(dst, (32 - bytes_of(&m->tensors[i]) % 32) % 32);
    }
}

void good_imatrix_gguf(struct buffer *dst)
{
    write_gguf(&good, dst);
}

struct rule {
    const char *name;
    size_t tensor;
    struct matrix_tensor becomes; /* what is zero stays */
    int code;
    const char *says;
};

static const struct rule rules[] = {
    {"nan", 0, {.values = {1, NAN, 3, 4}}, QD_E_CORRUPT, "'blk.0.attn_q.weight': value 1 is nan"},
    {"infinite", 0, {.values = {INFINITY, 1}}, QD_E_CORRUPT, "value 0 is inf"},
    {"negative", 0, {.values = {1, 1, -1}}, QD_E_CORRUPT, "value 2 is -1"},
    {"nan of an expert", 2, {.values = {1, 1, 1, 1, NAN}}, QD_E_CORRUPT, "'blk.0.ffn_up_exps.weight': value 0 is nan"},
    {"nan where nothing was seen", 2, {.values = {1, 1, NAN}}, QD_E_CORRUPT, "value 0 is nan"},
    {"count nan", 1, {.values = {NAN}}, QD_E_CORRUPT, "has a count of nan"},
    {"count negative", 1, {.values = {-2}}, QD_E_CORRUPT, "has a count of -2"},
    {"count infinite", 3, {.values = {1, INFINITY, 1}}, QD_E_CORRUPT, "has a count of inf"},
    {"count beyond 2^62", 3, {.values = {1, 1e30f, 1}}, QD_E_CORRUPT, "has a count of 1e+30"},
    {"counts that do not divide", 1, {.ne1 = 3, .values = {1, 1, 1}}, QD_E_CORRUPT, "4 sums in f32 and 3 counts"},
    {"sums in f16", 0, {.type = QD_TYPE_F16, .values = {1}}, QD_E_CORRUPT, "4 sums in f16"},
    {"counts in i32", 1, {.type = QD_TYPE_I32, .values = {1}}, QD_E_CORRUPT, "1 counts in i32"},
    {"no sums", 0, {.name = "blk.0.attn_q.weight.other"}, QD_E_CORRUPT, "has counts and no in_sum2"},
    {"no counts", 1, {.name = "blk.0.attn_q.weight.other"}, QD_E_CORRUPT, "has in_sum2 and no counts"},
    {"counts of another", 1, {.name = "blk.0.attn_k.weight.counts"}, QD_E_CORRUPT, "has counts and no in_sum2"},
    {"twice", 2, {.name = "blk.0.attn_q.weight.in_sum2"}, QD_E_CORRUPT, "is called 'blk.0.attn_q.weight.in_sum2'"},
    {"no name", 0, {.name = ".in_sum2"}, QD_E_CORRUPT, "'blk.0.attn_q.weight' has counts and no in_sum2"},
};

static void use_bytes(struct bytes content, const char *form, const char *rule, size_t n, int code, const char *says,
                      bad_file_use *use, void *data)
{
    struct bad_file f = {.file_name = "x.imatrix", .code = code, .says = says, .content = content};
    (void)snprintf(f.name, sizeof f.name, "imatrix %s %s %zu", form, rule, n); /* cut at worst */
    use(&f, data);
}

static void use_matrix(const struct matrix *m, const char *rule, int code, const char *says, bad_file_use *use,
                       void *data)
{
    CLEANUP(buffer_clear) struct buffer file = {0};
    write_gguf(m, &file);
    use_bytes(buffer_span(&file), "gguf", rule, 0, code, says, use, data);
}

static void broken_tensors(bad_file_use *use, void *data)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct matrix m = good;
        struct matrix_tensor *t = &m.tensors[rules[i].tensor];
        const struct matrix_tensor *b = &rules[i].becomes;
        t->name = b->name ? b->name : t->name;
        t->type = b->type ? b->type : t->type;
        t->ne1 = b->ne1 ? b->ne1 : t->ne1;
        if (!b->name)
            memcpy(t->values, b->values, sizeof t->values);
        use_matrix(&m, rules[i].name, rules[i].code, rules[i].says, use, data);
    }
}

static void broken_facts(bad_file_use *use, void *data)
{
    static const char *const says[] = {"'imatrix.datasets' is missing", "'imatrix.chunk_count' is missing",
                                       "'imatrix.chunk_size' is missing"};
    for (size_t i = 0; i < 3; i++) {
        struct matrix m = good;
        m.keys[i] = "general.other";
        use_matrix(&m, "without a key", QD_E_UNSUPPORTED, says[i], use, data);
    }
    struct matrix m = good;
    m.chunk_type = META_I32;
    use_matrix(&m, "chunks of i32", QD_E_UNSUPPORTED, "'imatrix.chunk_count' is of another type", use, data);
    m = good;
    m.n_tensors = 0;
    use_matrix(&m, "no entries", QD_E_CORRUPT, "without entries", use, data);
}

static void cut_gguf(bad_file_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer file = {0};
    good_imatrix_gguf(&file);
    size_t padding = 20; /* behind the last three counts of 4 bytes: a file may lack it */
    for (size_t n = 4; n < file.n - padding; n += 7)
        use_bytes((struct bytes){file.data, n}, "gguf", "cut to", n, QD_E_CORRUPT, "'x.imatrix': byte", use, data);
}

/* ---- the older form ------------------------------------------------------------------------------------ */

enum {
    DAT_N = 0,
    DAT_LENGTH = 4,
    DAT_NAME = 8,
    DAT_CALLS = 11,
    DAT_N_VALUES = 15,
    DAT_VALUE = 19,
    DAT_NAME1 = 31,
    DAT_CHUNKS = 46,
    DAT_TEXT_LENGTH = 50,
    DAT_TEXT = 54,
};

static void put_dat_entry(struct buffer *dst, const char *name, uint32_t calls, const float *values, uint32_t n)
{
    buffer_put_u32(dst, (uint32_t)strlen(name));
    buffer_put(dst, name, strlen(name));
    buffer_put_u32(dst, calls);
    buffer_put_u32(dst, n);
    buffer_put(dst, values, n * sizeof *values);
}

void good_imatrix_dat(struct buffer *dst)
{
    buffer_put_u32(dst, 2);
    put_dat_entry(dst, "a.w", 3, (const float[]){1, 2}, 2);
    put_dat_entry(dst, "b.w", 0, (const float[]){4}, 1);
    buffer_put_u32(dst, 5);
    buffer_put_u32(dst, 4);
    buffer_put(dst, "text", 4);
}

static void lying_dat(bad_file_use *use, void *data)
{
    static const struct {
        size_t at, width;
        uint32_t value;
        int code;
        const char *says;
    } lies[] = {
        {DAT_N, 4, 0, QD_E_UNSUPPORTED, "neither GGUF nor the older form"},
        {DAT_N, 4, 0xffffffff, QD_E_UNSUPPORTED, "neither GGUF nor the older form"},
        {DAT_N, 4, 0x7fffffff, QD_E_UNSUPPORTED, "neither GGUF nor the older form"},
        {DAT_N, 4, 1, QD_E_CORRUPT, "bytes of the text's name"},
        {DAT_N, 4, 3, QD_E_CORRUPT, "entry 2: "},
        {DAT_LENGTH, 4, 0, QD_E_CORRUPT, "the name is empty"},
        {DAT_LENGTH, 4, 0xffffffff, QD_E_CORRUPT, "-1 bytes of name"},
        {DAT_LENGTH, 4, 0x80000000, QD_E_CORRUPT, "-2147483648 bytes of name"},
        {DAT_LENGTH, 4, 1024, QD_E_CORRUPT, "1024 bytes of name; 1023 are allowed"},
        {DAT_LENGTH, 4, 1000, QD_E_CORRUPT, "bytes are needed"},
        {DAT_NAME, 1, 0, QD_E_CORRUPT, "a NUL byte"},
        {DAT_NAME1, 1, 'a', QD_E_CORRUPT, "'a.w' stands twice"},
        {DAT_CALLS, 4, 0xffffffff, QD_E_CORRUPT, "-1 calls"},
        {DAT_N_VALUES, 4, 0, QD_E_CORRUPT, "0 values"},
        {DAT_N_VALUES, 4, 0xffffffff, QD_E_CORRUPT, "-1 values"},
        {DAT_N_VALUES, 4, 0x40000002, QD_E_CORRUPT, "1073741826 values"}, /* times 4 wraps to 8 */
        {DAT_N_VALUES, 4, 10, QD_E_CORRUPT, "10 values, and 39 bytes follow"},
        {DAT_VALUE, 4, 0x7fc00000, QD_E_CORRUPT, "'a.w': value 0 is nan"},
        {DAT_VALUE, 4, 0x7f800000, QD_E_CORRUPT, "'a.w': value 0 is inf"},
        {DAT_VALUE, 4, 0xbf800000, QD_E_CORRUPT, "'a.w': value 0 is -1"},
        {DAT_CHUNKS, 4, 0xffffffff, QD_E_CORRUPT, "-1 chunks"},
        {DAT_TEXT_LENGTH, 4, 0xffffffff, QD_E_CORRUPT, "-1 bytes of the text's name"},
        {DAT_TEXT_LENGTH, 4, 5, QD_E_CORRUPT, "bytes are needed"},
        {DAT_TEXT_LENGTH, 4, 3, QD_E_CORRUPT, "1 bytes follow where the matrix ends"},
        {DAT_TEXT_LENGTH, 4, 65537, QD_E_CORRUPT, "65536 are allowed"},
        {DAT_TEXT, 1, 0, QD_E_CORRUPT, "a NUL byte"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        CLEANUP(buffer_clear) struct buffer file = {0};
        good_imatrix_dat(&file);
        memcpy(file.data + lies[i].at, &lies[i].value, lies[i].width);
        use_bytes(buffer_span(&file), "dat", "lie", i, lies[i].code, lies[i].says, use, data);
    }
}

static void cut_dat(bad_file_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer file = {0};
    good_imatrix_dat(&file);
    for (size_t n = 1; n < file.n; n++) {
        bool allowed = n == DAT_CHUNKS || n == DAT_TEXT_LENGTH; /* files of early 2024 end here */
        bool unknown = n < 4 || (file.data[0] > (n - 4) / 17);
        if (!allowed)
            use_bytes((struct bytes){file.data, n}, "dat", "cut to", n, unknown ? QD_E_UNSUPPORTED : QD_E_CORRUPT,
                      "'x.imatrix'", use, data);
    }
}

void bad_imatrix_files(bad_file_use *use, void *data)
{
    broken_tensors(use, data);
    broken_facts(use, data);
    cut_gguf(use, data);
    lying_dat(use, data);
    cut_dat(use, data);
}
