/* GGUF files gone wrong: cut at every field, and every field lying. */
#include <stdio.h>
#include <string.h>

#include <quantd/error.h>

#include "tests/data/bad/bad_files.h"

/* Fields of the good file in order; each rule names one. */
enum field {
    MAGIC,
    VERSION,
    N_TENSORS,
    N_KV,
    KEY0_LENGTH,
    KEY0,
    KEY0_TYPE,
    KEY0_VALUE_LENGTH,
    KEY0_VALUE,
    KEY1_LENGTH,
    KEY1,
    KEY1_TYPE,
    KEY1_ITEM,
    KEY1_COUNT,
    KEY1_ITEMS,
    KEY2_LENGTH,
    KEY2,
    KEY2_TYPE,
    KEY2_VALUE,
    KEY3_LENGTH,
    KEY3,
    KEY3_TYPE,
    KEY3_ITEM,
    KEY3_COUNT,
    KEY3_STRING0_LENGTH,
    KEY3_STRING0,
    KEY3_STRING1_LENGTH,
    KEY3_STRING1,
    NAME0_LENGTH,
    NAME0,
    N_DIMS0,
    NE00,
    NE01,
    TYPE0,
    OFFSET0,
    NAME1_LENGTH,
    NAME1,
    N_DIMS1,
    NE10,
    TYPE1,
    OFFSET1,
    PADDING,
    DATA0,
    DATA1,
    END,
    N_FIELDS
};

static const char *const field_names[N_FIELDS] = {
    "magic",
    "version",
    "n_tensors",
    "n_kv",
    "key0_length",
    "key0",
    "key0_type",
    "key0_value_length",
    "key0_value",
    "key1_length",
    "key1",
    "key1_type",
    "key1_item",
    "key1_count",
    "key1_items",
    "key2_length",
    "key2",
    "key2_type",
    "key2_value",
    "key3_length",
    "key3",
    "key3_type",
    "key3_item",
    "key3_count",
    "key3_string0_length",
    "key3_string0",
    "key3_string1_length",
    "key3_string1",
    "name0_length",
    "name0",
    "n_dims0",
    "ne00",
    "ne01",
    "type0",
    "offset0",
    "name1_length",
    "name1",
    "n_dims1",
    "ne10",
    "type1",
    "offset1",
    "padding",
    "data0",
    "data1",
    "end",
};

struct built {
    struct buffer file;
    size_t at[N_FIELDS];
    enum field next;
};

static void start(struct built *b, enum field f)
{
    b->at[f] = b->file.n;
}

static void u32(struct built *b, enum field f, uint32_t v)
{
    start(b, f);
    buffer_put_u32(&b->file, v);
}

static void u64(struct built *b, enum field f, uint64_t v)
{
    start(b, f);
    buffer_put_u64(&b->file, v);
}

/* Length in field @f, text in the one after. */
static void text(struct built *b, enum field f, const char *t)
{
    u64(b, f, strlen(t));
    start(b, f + 1);
    buffer_put(&b->file, t, strlen(t));
}

static void build_meta(struct built *b)
{
    text(b, KEY0_LENGTH, "general.architecture");
    u32(b, KEY0_TYPE, 8);
    text(b, KEY0_VALUE_LENGTH, "test");
    text(b, KEY1_LENGTH, "test.numbers");
    u32(b, KEY1_TYPE, 9);
    u32(b, KEY1_ITEM, 5);
    u64(b, KEY1_COUNT, 3);
    start(b, KEY1_ITEMS);
    buffer_put_zeros(&b->file, 12);
    text(b, KEY2_LENGTH, "general.alignment");
    u32(b, KEY2_TYPE, 4);
    u32(b, KEY2_VALUE, 64);
    text(b, KEY3_LENGTH, "test.texts");
    u32(b, KEY3_TYPE, 9);
    u32(b, KEY3_ITEM, 8);
    u64(b, KEY3_COUNT, 2);
    text(b, KEY3_STRING0_LENGTH, "x");
    text(b, KEY3_STRING1_LENGTH, "yy");
}

static void build(struct built *b)
{
    start(b, MAGIC);
    buffer_put(&b->file, "GGUF", 4);
    u32(b, VERSION, 3);
    u64(b, N_TENSORS, 2);
    u64(b, N_KV, 4);
    build_meta(b);
    text(b, NAME0_LENGTH, "a.weight");
    u32(b, N_DIMS0, 2);
    u64(b, NE00, 32);
    u64(b, NE01, 2);
    u32(b, TYPE0, 8); /* q8_0: 68 bytes */
    u64(b, OFFSET0, 0);
    text(b, NAME1_LENGTH, "b.weight");
    u32(b, N_DIMS1, 1);
    u64(b, NE10, 5);
    u32(b, TYPE1, 0); /* f32: 20 bytes */
    u64(b, OFFSET1, 128);
    start(b, PADDING);
    buffer_put_zeros(&b->file, (64 - b->file.n % 64) % 64);
    start(b, DATA0);
    buffer_put_zeros(&b->file, 128);
    start(b, DATA1);
    buffer_put_zeros(&b->file, 20);
    start(b, END);
}

void good_gguf(struct buffer *dst)
{
    struct built b = {0};
    build(&b);
    buffer_put(dst, b.file.data, b.file.n);
    buffer_clear(&b.file);
}

/* A field overwritten by a little-endian number of @width bytes. */
struct lie {
    enum field field;
    unsigned width;
    uint64_t value;
    int code;
    const char *says;
};

#define MAX64 UINT64_MAX
#define BIT63 (UINT64_C(1) << 63)

static const struct lie lies[] = {
    {MAGIC, 4, 0x46554746, QD_E_CORRUPT, "not with \"GGUF\""},
    {MAGIC, 4, 0x47475546, QD_E_CORRUPT, "not with \"GGUF\""},
    {MAGIC, 4, 0, QD_E_CORRUPT, "not with \"GGUF\""},
    {VERSION, 4, 0, QD_E_CORRUPT, "version 0 does not exist"},
    {VERSION, 4, 1, QD_E_UNSUPPORTED, "GGUF version 1"},
    {VERSION, 4, 4, QD_E_UNSUPPORTED, "GGUF version 4"},
    {VERSION, 4, 0x03000000, QD_E_UNSUPPORTED, "big-endian"},
    {VERSION, 4, 0x02000000, QD_E_UNSUPPORTED, "big-endian"},
    {VERSION, 4, 0x00010000, QD_E_CORRUPT, "does not exist"},
    {VERSION, 4, 0xffffffff, QD_E_UNSUPPORTED, "GGUF version 4294967295"},
    {N_TENSORS, 8, BIT63, QD_E_CORRUPT, "9223372036854775808 tensors are claimed"},
    {N_TENSORS, 8, MAX64, QD_E_CORRUPT, "tensors are claimed"},
    {N_TENSORS, 8, UINT64_C(1) << 32, QD_E_CORRUPT, "tensors are claimed"},
    {N_TENSORS, 8, 1 << 20, QD_E_CORRUPT, "tensors are claimed"},
    {N_TENSORS, 8, 3, QD_E_CORRUPT, "tensor 2: the name is empty"},
    {N_KV, 8, BIT63, QD_E_CORRUPT, "metadata keys are claimed"},
    {N_KV, 8, MAX64, QD_E_CORRUPT, "metadata keys are claimed"},
    {N_KV, 8, 1 << 20, QD_E_CORRUPT, "metadata keys are claimed"},
    {N_KV, 8, 5, QD_E_CORRUPT, "the name has"},
    {N_KV, 8, 3, QD_E_CORRUPT, ""},
    {N_KV, 8, 0, QD_E_CORRUPT, ""},
    {KEY0_LENGTH, 8, 0, QD_E_CORRUPT, "the key is empty"},
    {KEY0_LENGTH, 8, MAX64, QD_E_CORRUPT, "the key has 18446744073709551615 bytes"},
    {KEY0_LENGTH, 8, BIT63, QD_E_CORRUPT, "the key has"},
    {KEY0_LENGTH, 8, MAX64 - 7, QD_E_CORRUPT, "the key has"},
    {KEY0_LENGTH, 8, 65536, QD_E_CORRUPT, "the key has"},
    {KEY0_LENGTH, 8, 19, QD_E_CORRUPT, "value type"},
    {KEY0, 1, 0, QD_E_CORRUPT, "the key holds a NUL byte"},
    {KEY0_TYPE, 4, 13, QD_E_CORRUPT, "value type 13 does not exist"},
    {KEY0_TYPE, 4, 0xffffffff, QD_E_CORRUPT, "value type 4294967295 does not exist"},
    {KEY0_TYPE, 4, 0x80000000, QD_E_CORRUPT, "value type 2147483648 does not exist"},
    {KEY0_TYPE, 4, 9, QD_E_CORRUPT, "array items are claimed"},
    {KEY0_VALUE_LENGTH, 8, MAX64, QD_E_CORRUPT, "string 0 has 18446744073709551615 bytes"},
    {KEY0_VALUE_LENGTH, 8, BIT63, QD_E_CORRUPT, "string 0 has"},
    {KEY0_VALUE_LENGTH, 8, 1 << 30, QD_E_CORRUPT, "string 0 has"},
    {KEY0_VALUE_LENGTH, 8, 1000, QD_E_CORRUPT, "string 0 has 1000 bytes"},
    {KEY1_ITEM, 4, 9, QD_E_UNSUPPORTED, "an array of arrays"},
    {KEY1_ITEM, 4, 13, QD_E_CORRUPT, "value type 13"},
    {KEY1_ITEM, 4, 0xffffffff, QD_E_CORRUPT, "value type 4294967295"},
    {KEY1_ITEM, 4, 8, QD_E_CORRUPT, ""},
    {KEY1_ITEM, 4, 12, QD_E_CORRUPT, ""},
    {KEY1_COUNT, 8, MAX64, QD_E_CORRUPT, "array items are claimed"},
    {KEY1_COUNT, 8, BIT63, QD_E_CORRUPT, "array items are claimed"},
    {KEY1_COUNT, 8, UINT64_C(1) << 62, QD_E_CORRUPT, "array items are claimed"},
    {KEY1_COUNT, 8, UINT64_C(0x4000000000000003), QD_E_CORRUPT, "array items are claimed"}, /* times 4 wraps to 12 */
    {KEY1_COUNT, 8, 1 << 20, QD_E_CORRUPT, "array items are claimed"},
    {KEY2_TYPE, 4, 5, QD_E_CORRUPT, "'general.alignment' has value type 5"},
    {KEY2_TYPE, 4, 6, QD_E_CORRUPT, "'general.alignment' has value type 6"},
    {KEY2_VALUE, 4, 0, QD_E_CORRUPT, "general.alignment is 0"},
    {KEY2_VALUE, 4, 3, QD_E_CORRUPT, "general.alignment is 3"},
    {KEY2_VALUE, 4, 48, QD_E_CORRUPT, "general.alignment is 48"},
    {KEY2_VALUE, 4, 0xffffffff, QD_E_CORRUPT, "general.alignment is 4294967295"},
    {KEY2_VALUE, 4, 32, QD_E_CORRUPT, "has offset 128, it must have 96"},
    {KEY2_VALUE, 4, 256, QD_E_CORRUPT, "has offset 128, it must have 256"},
    {KEY2_VALUE, 4, 0x80000000, QD_E_CORRUPT, "has offset 128, it must have 2147483648"},
    {KEY3_COUNT, 8, MAX64, QD_E_CORRUPT, "array items are claimed"},
    {KEY3_COUNT, 8, UINT64_C(1) << 60, QD_E_CORRUPT, "array items are claimed"}, /* times 16 wraps */
    {KEY3_COUNT, 8, UINT64_C(1) << 61, QD_E_CORRUPT, "array items are claimed"},
    {KEY3_STRING1_LENGTH, 8, MAX64, QD_E_CORRUPT, "string 1 has"},
    {KEY3_STRING1_LENGTH, 8, BIT63, QD_E_CORRUPT, "string 1 has"},
    {NAME0_LENGTH, 8, 0, QD_E_CORRUPT, "the name is empty"},
    {NAME0_LENGTH, 8, 64, QD_E_LIMIT, "the name has 64 bytes"},
    {NAME0_LENGTH, 8, 65, QD_E_LIMIT, "the name has 65 bytes"},
    {NAME0_LENGTH, 8, MAX64, QD_E_CORRUPT, "the name has"},
    {NAME0_LENGTH, 8, BIT63, QD_E_CORRUPT, "the name has"},
    {NAME0, 1, 0, QD_E_CORRUPT, "the name holds a NUL byte"},
    {NAME1, 1, 'a', QD_E_CORRUPT, "tensor 1 is called 'a.weight', as tensor 0 is"},
    {N_DIMS0, 4, 5, QD_E_CORRUPT, "has 5 dimensions"},
    {N_DIMS0, 4, 0xffffffff, QD_E_CORRUPT, "has 4294967295 dimensions"},
    {N_DIMS0, 4, 0x80000000, QD_E_CORRUPT, "dimensions"},
    {NE00, 8, 0, QD_E_CORRUPT, "has offset 128, it must have 0"},
    {NE00, 8, 33, QD_E_CORRUPT, "rows of 33 elements"},
    {NE00, 8, 31, QD_E_CORRUPT, "rows of 31 elements"},
    {NE00, 8, MAX64, QD_E_CORRUPT, "has -1 elements in dimension 0"},
    {NE00, 8, BIT63, QD_E_CORRUPT, "elements in dimension 0"},
    {NE00, 8, UINT64_C(1) << 62, QD_E_CORRUPT, "more elements than can be counted"}, /* times 2 is 2^63 */
    {NE00, 8, UINT64_C(0x7fffffffffffffe0), QD_E_CORRUPT, "more elements than can be counted"},
    {NE00, 8, UINT64_C(1) << 40, QD_E_CORRUPT, "has offset 128, it must have"},
    {NE01, 8, UINT64_C(1) << 59, QD_E_CORRUPT, "more elements than can be counted"},       /* times 32 wraps to 0 */
    {NE01, 8, (UINT64_C(1) << 59) + 2, QD_E_CORRUPT, "more elements than can be counted"}, /* wraps to 64 */
    {NE01, 8, MAX64, QD_E_CORRUPT, "has -1 elements in dimension 1"},
    {NE01, 8, UINT64_C(1) << 57, QD_E_CORRUPT, "it must have"}, /* 2^62 elements; bytes fit, the place does not */
    {NE01, 8, 4, QD_E_CORRUPT, "has offset 128, it must have 192"},
    {TYPE0, 4, 43, QD_E_UNSUPPORTED, "element type 43, which is unknown"},
    {TYPE0, 4, 0xffffffff, QD_E_UNSUPPORTED, "element type 4294967295, which is unknown"},
    {TYPE0, 4, 0x80000008, QD_E_UNSUPPORTED, "which is unknown"},
    {TYPE0, 4, 4, QD_E_UNSUPPORTED, "q4_2 (4)"},
    {TYPE0, 4, 5, QD_E_UNSUPPORTED, "q4_3 (5)"},
    {TYPE0, 4, 31, QD_E_UNSUPPORTED, "q4_0_4_4 (31)"},
    {TYPE0, 4, 32, QD_E_UNSUPPORTED, "q4_0_4_8 (32)"},
    {TYPE0, 4, 33, QD_E_UNSUPPORTED, "q4_0_8_8 (33)"},
    {TYPE0, 4, 36, QD_E_UNSUPPORTED, "iq4_nl_4_4 (36)"},
    {TYPE0, 4, 37, QD_E_UNSUPPORTED, "iq4_nl_4_8 (37)"},
    {TYPE0, 4, 38, QD_E_UNSUPPORTED, "iq4_nl_8_8 (38)"},
    {TYPE0, 4, 12, QD_E_CORRUPT, "no multiple of q4_k's 256"},
    {TYPE0, 4, 0, QD_E_CORRUPT, "it must have 256"},
    {OFFSET0, 8, 64, QD_E_CORRUPT, "has offset 64, it must have 0"},
    {OFFSET0, 8, MAX64, QD_E_CORRUPT, "has offset 18446744073709551615"},
    {OFFSET1, 8, 0, QD_E_CORRUPT, "has offset 0, it must have 128"},
    {OFFSET1, 8, 127, QD_E_CORRUPT, "has offset 127"},
    {OFFSET1, 8, 192, QD_E_CORRUPT, "has offset 192"},
    {OFFSET1, 8, MAX64, QD_E_CORRUPT, "has offset 18446744073709551615"},
    {OFFSET1, 8, MAX64 - 63, QD_E_CORRUPT, "has offset"},
    {NE10, 8, 6, QD_E_CORRUPT, "tensor 'b.weight' needs 24 bytes"},
    {NE10, 8, 1000000, QD_E_CORRUPT, "tensor 'b.weight' needs 4000000 bytes"},
    {NE10, 8, UINT64_C(1) << 60, QD_E_CORRUPT, "tensor 'b.weight' needs"},
    {NE10, 8, (UINT64_C(1) << 62) - 1, QD_E_CORRUPT, "ends beyond any file"},     /* padded end wraps */
    {NE10, 8, UINT64_C(1) << 62, QD_E_CORRUPT, "more bytes than can be counted"}, /* times 4 wraps to 0 */
    {TYPE1, 4, 28, QD_E_CORRUPT, "tensor 'b.weight' needs 40 bytes"},
};

static void use_bytes(struct bytes content, const char *rule, const char *what, size_t n, int code, const char *says,
                      bad_file_use *use, void *data)
{
    struct bad_file f = {.file_name = "x.gguf", .code = code, .says = says, .content = content};
    (void)snprintf(f.name, sizeof f.name, "gguf %s %s %zu", rule, what, n); /* cut at worst */
    use(&f, data);
}

static void cut_files(bad_file_use *use, void *data)
{
    struct built b = {0};
    build(&b);
    for (int f = VERSION; f < END; f++) {
        if (f == DATA0)
            continue; /* the same cut as at the end of the padding */
        bool in_data = f > PADDING;
        use_bytes((struct bytes){b.file.data, b.at[f]}, "cut before", field_names[f], b.at[f], QD_E_CORRUPT,
                  in_data ? "needs" : "'x.gguf': byte", use, data);
        if (b.at[f + 1] - b.at[f] > 1)
            use_bytes((struct bytes){b.file.data, b.at[f + 1] - 1}, "cut at the last byte of", field_names[f],
                      b.at[f + 1] - 1, QD_E_CORRUPT, f >= PADDING ? "needs" : "'x.gguf': byte", use, data);
    }
    for (size_t n = 1; n < 4; n++)
        use_bytes((struct bytes){b.file.data, n}, "cut in", "magic", n, QD_E_CORRUPT, "bytes are needed", use, data);
    use_bytes((struct bytes){0}, "cut before", "magic", 0, QD_E_CORRUPT, "is empty", use, data);
    buffer_clear(&b.file);
}

static void lying_files(bad_file_use *use, void *data)
{
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct built b = {0};
        build(&b);
        for (unsigned k = 0; k < lies[i].width; k++)
            b.file.data[b.at[lies[i].field] + k] = (uint8_t)(lies[i].value >> 8 * k);
        use_bytes(buffer_span(&b.file), "lie in", field_names[lies[i].field], i, lies[i].code, lies[i].says, use, data);
        buffer_clear(&b.file);
    }
}

/* The second key becomes the first one's twin: same length, same text. */
static void duplicate_key(bad_file_use *use, void *data)
{
    struct buffer file = {0};
    buffer_put(&file, "GGUF", 4);
    buffer_put_u32(&file, 3);
    buffer_put_u64(&file, 0);
    buffer_put_u64(&file, 2);
    for (int i = 0; i < 2; i++) {
        buffer_put_u64(&file, 3);
        buffer_put(&file, "a.b", 3);
        buffer_put_u32(&file, i == 0 ? 4 : 5);
        buffer_put_u32(&file, 7);
    }
    use_bytes(buffer_span(&file), "duplicate", "key", 0, QD_E_CORRUPT, "'a.b' stands twice: key 0 already", use, data);
    buffer_clear(&file);
}

/* The smallest header that claims a split, with value type @type for split.no. */
static void bad_split(uint32_t type, uint16_t no, int code, const char *says, bad_file_use *use, void *data)
{
    struct buffer file = {0};
    buffer_put(&file, "GGUF", 4);
    buffer_put_u32(&file, 3);
    buffer_put_u64(&file, 0);
    buffer_put_u64(&file, 2);
    buffer_put_u64(&file, 8);
    buffer_put(&file, "split.no", 8);
    buffer_put_u32(&file, type);
    buffer_put_u16(&file, no);
    buffer_put_u64(&file, 11);
    buffer_put(&file, "split.count", 11);
    buffer_put_u32(&file, 2);
    buffer_put_u16(&file, 2);
    use_bytes(buffer_span(&file), "split", "no", type * 10 + no, code, says, use, data);
    buffer_clear(&file);
}

void bad_gguf_files(bad_file_use *use, void *data)
{
    cut_files(use, data);
    lying_files(use, data);
    duplicate_key(use, data);
    bad_split(3, 0, QD_E_CORRUPT, "'split.no' has value type 3", use, data);
    bad_split(2, 1, QD_E_INVALID, "is part 2 of a model split into 2 files", use, data);
    bad_split(2, 0, QD_E_INVALID, "its name does not say so", use, data);
}
