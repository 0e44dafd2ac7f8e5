/* Input: a GGUF file. */
#include <string.h>

#include "quant/format/gguf_write.h"
#include "quant/format/meta_build.h"
#include "quant/packed.h"
#include "tests/data/bad/bad_files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/readers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(source_free) struct source *s = source_of_bytes((struct bytes){data, n_bytes}, "m-00001-of-00003.gguf");
    if (s)
        read_and_check(s);
    return 0;
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* The keys of a packed file, but for tensors every 32 bytes: a small one. */
static struct meta_table small_packed_meta(const struct model *m, struct arena *arena)
{
    struct meta_table packed;
    struct meta_build b = {.arena = arena};
    must(packed_meta(m, QD_LAYOUT_R4K4P128, arena, &packed, NULL) == 0);
    for (size_t i = 0; i < packed.n; i++) {
        if (strcmp(packed.entries[i].key, "general.alignment") == 0)
            meta_put_u32(&b, "", "general.alignment", 32);
        else
            meta_put_entry(&b, &packed.entries[i]);
    }
    must(!b.failed);
    return b.table;
}

/* Five rows of q8_0 and three floats, packed in groups of four rows. */
static void put_packed(struct buffer *dst)
{
    struct tensor tensors[] = {{.name = "a.weight", .type = QD_TYPE_Q8_0, .n_dims = 2, .shape = {32, 5, 1, 1}},
                               {.name = "b", .type = QD_TYPE_F32, .n_dims = 1, .shape = {3, 1, 1, 1}}};
    CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
    struct meta_build b = {.arena = arena};
    meta_put_text(&b, "", "general.architecture", "llama");
    const struct model m = {.architecture = "llama", .tensors = tensors, .n_tensors = 2, .meta = b.table};
    const struct meta_table meta = small_packed_meta(&m, arena);
    const struct gguf_tensor list[] = {
        {.name = "a.weight", .type = QD_TYPE_I8, .n_dims = 1, .shape = {5 * 34, 1, 1, 1}},
        {.name = "b", .type = QD_TYPE_I8, .n_dims = 1, .shape = {12, 1, 1, 1}, .offset = 192}};
    must(gguf_header(&meta, list, 2, 32, dst, NULL) == 0);
    buffer_put_zeros(dst, 192 + 12);
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer good = {0}, packed = {0};
    good_gguf(&good);
    use(buffer_span(&good), data);
    put_packed(&packed);
    use(buffer_span(&packed), data);
}

struct forward {
    fuzz_use *use;
    void *data;
};

static void forward_one(const struct bad_file *f, void *data)
{
    const struct forward *to = data;
    to->use(f->content, to->data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    bad_gguf_files(forward_one, &(struct forward){use, data});
}
