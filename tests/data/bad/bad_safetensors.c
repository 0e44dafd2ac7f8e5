/* safetensors files gone wrong, and files of other kinds under our names. */
#include <stdio.h>
#include <string.h>

#include <quantd/error.h>

#include "tests/data/bad/bad_files.h"

static const char good_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]}}  ";
enum { GOOD_DATA = 14 };

static void put_file(struct buffer *dst, uint64_t length, const char *header, size_t n_data)
{
    buffer_put_u64(dst, length);
    buffer_put(dst, header, strlen(header));
    buffer_put_zeros(dst, n_data);
}

void good_safetensors(struct buffer *dst)
{
    put_file(dst, strlen(good_header), good_header, GOOD_DATA);
}

static void use_bytes(struct bytes content, const char *rule, size_t n, int code, const char *says, bad_file_use *use,
                      void *data)
{
    struct bad_file f = {.file_name = "x.safetensors", .code = code, .says = says, .content = content};
    (void)snprintf(f.name, sizeof f.name, "safetensors %s %zu", rule, n); /* cut at worst */
    use(&f, data);
}

#define A(members) "{\"a\":{" members "}}"
#define F32_2      "\"dtype\":\"F32\",\"shape\":[2],"

static const struct {
    const char *header;
    size_t n_data;
    int code;
    const char *says;
} headers[] = {
    {"[]", 0, QD_E_CORRUPT, "does not start with '{'"},
    {" {}", 0, QD_E_CORRUPT, "does not start with '{'"},
    {"", 8, QD_E_CORRUPT, "does not start with '{'"},
    {"{", 0, QD_E_CORRUPT, "JSON"},
    {"{}x", 0, QD_E_CORRUPT, "something follows the end"},
    {"{}", 1, QD_E_CORRUPT, "tensors end at data byte 0, the file holds 1"},
    {"{}{}", 0, QD_E_CORRUPT, "something follows the end"},
    {"{,}", 0, QD_E_CORRUPT, "a text"},
    {"{\"a\"}", 0, QD_E_CORRUPT, "':' is expected"},
    {"{\"a\":}", 0, QD_E_CORRUPT, "an object {...} is expected"},
    {"{\"a\":[]}", 0, QD_E_CORRUPT, "an object {...} is expected"},
    {"{\"a\":null}", 0, QD_E_CORRUPT, "an object {...} is expected"},
    {"{\"a\":{},}", 0, QD_E_CORRUPT, "has no \"dtype\""},
    {A(F32_2 "\"data_offsets\":[0,8],"), 8, QD_E_CORRUPT, "a text"},
    {A(F32_2), 8, QD_E_CORRUPT, "a text"},
    {A("\"dtype\":\"F32\",\"shape\":[2]"), 8, QD_E_CORRUPT, "has no \"data_offsets\""},
    {A("\"dtype\":\"F32\",\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT, "has no \"shape\""},
    {A("\"shape\":[2],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT, "has no \"dtype\""},
    {A(F32_2 "\"data_offsets\":[]"), 8, QD_E_CORRUPT, "data_offsets must be two numbers"},
    {A(F32_2 "\"data_offsets\":[0]"), 8, QD_E_CORRUPT, "data_offsets must be two numbers"},
    {A(F32_2 "\"data_offsets\":[0,8,16]"), 8, QD_E_CORRUPT, "data_offsets must be two numbers"},
    {A(F32_2 "\"data_offsets\":[8,0]"), 8, QD_E_CORRUPT, "takes 8 bytes by its shape"},
    {A(F32_2 "\"data_offsets\":[0,4]"), 4, QD_E_CORRUPT, "takes 8 bytes by its shape"},
    {A(F32_2 "\"data_offsets\":[0,9]"), 9, QD_E_CORRUPT, "takes 8 bytes by its shape"},
    {A(F32_2 "\"data_offsets\":[8,16]"), 16, QD_E_CORRUPT, "a hole"},
    {A(F32_2 "\"data_offsets\":[1,9]"), 9, QD_E_CORRUPT, "a hole"},
    {A(F32_2 "\"data_offsets\":[0,8]"), 7, QD_E_CORRUPT, "ends at data byte 8, the file holds 7"},
    {A(F32_2 "\"data_offsets\":[0,8]"), 9, QD_E_CORRUPT, "tensors end at data byte 8, the file holds 9"},
    {A(F32_2 "\"data_offsets\":[-8,0]"), 8, QD_E_CORRUPT, "a whole number"},
    {A(F32_2 "\"data_offsets\":[0,8.0]"), 8, QD_E_CORRUPT, "a whole number"},
    {A(F32_2 "\"data_offsets\":[0,8e0]"), 8, QD_E_CORRUPT, "a whole number"},
    {A(F32_2 "\"data_offsets\":[0,08]"), 8, QD_E_CORRUPT, "a leading 0"},
    {A(F32_2 "\"data_offsets\":[0,\"8\"]"), 8, QD_E_CORRUPT, "a number is expected"},
    {A(F32_2 "\"data_offsets\":[18446744073709551608,18446744073709551616]"), 8, QD_E_CORRUPT, "beyond 2^64"},
    {A(F32_2 "\"data_offsets\":[18446744073709551607,18446744073709551615]"), 8, QD_E_CORRUPT, "a hole"},
    {A(F32_2 "\"data_offsets\":[0,99999999999999999999999999999999999999999999999999999999999999999999999999]"), 8,
     QD_E_CORRUPT, "too many digits"},
    {A("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0, QD_E_CORRUPT,
     "more elements than can be counted"},
    {A("\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,0]"), 0, QD_E_CORRUPT,
     "more elements than can be counted"},
    {A("\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]"), 0, QD_E_CORRUPT,
     "more bytes than can be counted"},
    {A("\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]"), 0, QD_E_CORRUPT,
     "more bytes than can be counted"},
    {A("\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]"), 8, QD_E_UNSUPPORTED,
     "more than 4 dimensions"},
    {A("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT, "a whole number"},
    {A("\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT, "an array [...] is expected"},
    {A("\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT, "a number is expected"},
    {A("\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT,
     "\"shape\" stands twice"},
    {A("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT,
     "\"dtype\" stands twice"},
    {A("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT,
     "\"data_offsets\" stands twice"},
    {A("\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, QD_E_UNSUPPORTED, "dtype 'f32', which is unknown"},
    {A("\"dtype\":\"\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, QD_E_UNSUPPORTED, "which is unknown"},
    {A("\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]"), 8, QD_E_CORRUPT, "a text"},
    {A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 2, QD_E_UNSUPPORTED,
     "'a' has dtype U8, which GGUF does not hold"},
    {A("\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]"), 2, QD_E_UNSUPPORTED, "'a' has dtype BOOL"},
    {A("\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]"), 2, QD_E_UNSUPPORTED, "'a' has dtype F8_E4M3"},
    {A("\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]"), 1, QD_E_UNSUPPORTED, "'a' has dtype F4"},
    {A("\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,8]"), 8, QD_E_UNSUPPORTED, "'a' has dtype C64"},
    {"{\"\":{" F32_2 "\"data_offsets\":[0,8]}}", 8, QD_E_LIMIT, "a name of 0 bytes"},
    {"{\"a\\u0000b\":{" F32_2 "\"data_offsets\":[0,8]}}", 8, QD_E_LIMIT, "a name of 3 bytes"},
    {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"a\":{" F32_2 "\"data_offsets\":[8,16]}}", 16, QD_E_CORRUPT,
     "'a' stands twice"},
    {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"\\u0061\":{" F32_2 "\"data_offsets\":[8,16]}}", 16, QD_E_CORRUPT,
     "'a' stands twice"},
    {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"b\":{" F32_2 "\"data_offsets\":[0,8]}}", 8, QD_E_CORRUPT,
     "they overlap"},
    {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"b\":{" F32_2 "\"data_offsets\":[4,12]}}", 12, QD_E_CORRUPT,
     "they overlap"},
    {"{\"a\":{" F32_2 "\"data_offsets\":[0,8]},\"b\":{" F32_2 "\"data_offsets\":[9,17]}}", 17, QD_E_CORRUPT, "a hole"},
    {"{\"__metadata__\":[]}", 0, QD_E_CORRUPT, "an object {...} is expected"},
    {"{\"__metadata__\":{\"a\":1}}", 0, QD_E_CORRUPT, "a text"},
    {"{\"__metadata__\":{\"a\":{}}}", 0, QD_E_CORRUPT, "a text"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, QD_E_CORRUPT, "stands twice"},
    {"{\"a\xff\":{}}", 0, QD_E_CORRUPT, "no UTF-8"},
    {"{\"a\xc0\xaf\":{}}", 0, QD_E_CORRUPT, "no UTF-8"},
    {"{\"a\xed\xa0\x80\":{}}", 0, QD_E_CORRUPT, "no UTF-8"},
    {"{\"a\xf4\x90\x80\x80\":{}}", 0, QD_E_CORRUPT, "no UTF-8"},
    {"{\"a\xe2\x82\":{}}", 0, QD_E_CORRUPT, "no UTF-8"},
    {"{\"a\n\":{}}", 0, QD_E_CORRUPT, "a control character"},
    {"{\"\\ud800\":{}}", 0, QD_E_CORRUPT, "half of a surrogate pair"},
    {"{\"\\udc00\\ud800\":{}}", 0, QD_E_CORRUPT, "half of a surrogate pair"},
    {"{\"\\ud800\\u0041\":{}}", 0, QD_E_CORRUPT, "half of a surrogate pair"},
    {"{\"\\u12g4\":{}}", 0, QD_E_CORRUPT, "four hex digits"},
    {"{\"\\x41\":{}}", 0, QD_E_CORRUPT, "an unknown escape"},
    {"{\"a\":{\"z\":tru}}", 0, QD_E_CORRUPT, "true, false or null"},
    {"{\"a\":{\"z\":1.}}", 0, QD_E_CORRUPT, "a digit is expected"},
    {"{\"a\":{\"z\":1e999}}", 0, QD_E_CORRUPT, "beyond what a double holds"},
    {"{\"a\":{\"z\":NaN}}", 0, QD_E_CORRUPT, "a value is expected"},
    {"{\"a\":{\"z\":+1}}", 0, QD_E_CORRUPT, "a value is expected"},
    {"{\"a\":{\"z\":[1 2]}}", 0, QD_E_CORRUPT, "',' or ']' is expected"},
    {"{\"a\":{\"z\":[1}}}", 0, QD_E_CORRUPT, "',' or ']' is expected"},
    {"{\"a\":{\"z\":{\"y\":1]}}", 0, QD_E_CORRUPT, "',' or '}' is expected"},
};

static void cut_files(bad_file_use *use, void *data)
{
    struct buffer file = {0};
    good_safetensors(&file);
    for (size_t n = 1; n < file.n; n += n < 8 ? 1 : 5)
        use_bytes((struct bytes){file.data, n}, "cut to", n, QD_E_CORRUPT, "'x.safetensors': byte", use, data);
    buffer_clear(&file);
}

static void lying_lengths(bad_file_use *use, void *data)
{
    static const struct {
        uint64_t length;
        int code;
        const char *says;
    } lengths[] = {
        {0, QD_E_CORRUPT, "JSON"},
        {1, QD_E_CORRUPT, "JSON"},
        {sizeof good_header - 4, QD_E_CORRUPT, "JSON"},
        {sizeof good_header - 1 + GOOD_DATA + 1, QD_E_CORRUPT, "the file has"},
        {sizeof good_header - 1 + GOOD_DATA, QD_E_CORRUPT, "something follows the end"},
        {100000000, QD_E_CORRUPT, "the file has"},
        {100000001, QD_E_LIMIT, "100000000 are allowed"},
        {UINT64_C(1) << 63, QD_E_LIMIT, "are allowed"},
        {UINT64_MAX, QD_E_LIMIT, "are allowed"},
        {UINT64_MAX - 7, QD_E_LIMIT, "are allowed"},
    };
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct buffer file = {0};
        put_file(&file, lengths[i].length, good_header, GOOD_DATA);
        use_bytes(buffer_span(&file), "length", i, lengths[i].code, lengths[i].says, use, data);
        buffer_clear(&file);
    }
}

/* A header of a million opening brackets: depth is counted, no stack is used. */
static void deep_file(bad_file_use *use, void *data)
{
    struct buffer header = {0}, file = {0};
    buffer_printf(&header, "{\"a\":{\"z\":");
    for (int i = 0; i < 1000000; i++)
        buffer_put_u8(&header, '[');
    buffer_put_u8(&header, 0);
    put_file(&file, header.n - 1, (const char *)header.data, 0);
    use_bytes(buffer_span(&file), "nested", 1000000, QD_E_LIMIT, "nested deeper than", use, data);
    buffer_clear(&header);
    buffer_clear(&file);
}

static void long_name(bad_file_use *use, void *data)
{
    struct buffer header = {0}, file = {0};
    buffer_printf(&header, "{\"%01024d\":{" F32_2 "\"data_offsets\":[0,8]}}", 0);
    put_file(&file, header.n, (const char *)header.data, 8);
    use_bytes(buffer_span(&file), "name of", 1024, QD_E_LIMIT, "a name of 1024 bytes", use, data);
    buffer_clear(&header);
    buffer_clear(&file);
}

void bad_safetensors_files(bad_file_use *use, void *data)
{
    cut_files(use, data);
    lying_lengths(use, data);
    deep_file(use, data);
    long_name(use, data);
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct buffer file = {0};
        put_file(&file, strlen(headers[i].header), headers[i].header, headers[i].n_data);
        use_bytes(buffer_span(&file), "header", i, headers[i].code, headers[i].says, use, data);
        buffer_clear(&file);
    }
}

void bad_foreign_files(bad_file_use *use, void *data)
{
    static const struct {
        const char *head;
        size_t n;
        const char *says;
    } kinds[] = {
#define HEAD(text) text, sizeof text - 1
        {HEAD("PK\x03\x04\x00\x00\x08\x08"), "a zip archive"},
        {HEAD("\x80\x02}q\x00X\x05\x00\x00\x00model"), "a Python pickle"},
        {HEAD("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94"), "a Python pickle"},
        {HEAD("tjgg\x03\x00\x00\x00"), "a GGML file of 2023"},
        {HEAD("\x93NUMPY\x01\x00v\x00"), "a NumPy array"},
        {HEAD("\x89HDF\r\n\x1a\n"), "an HDF5 file"},
        {HEAD("\x1c\x00\x00\x00TFL3"), "a TensorFlow Lite model"},
        {HEAD("\x1f\x8b\x08\x00\x00\x00\x00\x00"), "a gzip archive"},
        {HEAD("\x28\xb5\x2f\xfd\x04\x00\x00\x00"), "a zstd archive"},
        {HEAD("\x7f"
              "ELF\x02\x01\x01\x00"),
         "a program"},
        {HEAD("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a Git LFS pointer"},
        {HEAD("<!DOCTYPE html><html>"), "a web page"},
        {HEAD("<html><body>404</body>"), "a web page"},
    };
    static const char *const file_names[] = {"x.gguf", "x.safetensors", "x.bin"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (size_t k = 0; k < 3; k++) {
            struct buffer file = {0};
            buffer_put(&file, kinds[i].head, kinds[i].n);
            buffer_put_zeros(&file, 600);
            struct bad_file f = {.file_name = file_names[k],
                                 .code = QD_E_UNSUPPORTED,
                                 .says = kinds[i].says,
                                 .content = buffer_span(&file)};
            (void)snprintf(f.name, sizeof f.name, "%s called %s", kinds[i].says, file_names[k]); /* cut at worst */
            use(&f, data);
            buffer_clear(&file);
        }
    struct bad_file plain = {.name = "text called x.txt",
                             .file_name = "x.txt",
                             .code = QD_E_UNSUPPORTED,
                             .says = "neither GGUF nor safetensors",
                             .content = {(const uint8_t *)"hello", 5}};
    use(&plain, data);
}
