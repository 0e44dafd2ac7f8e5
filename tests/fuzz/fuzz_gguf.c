/* Input: a GGUF file. */
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

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer good = {0};
    good_gguf(&good);
    use(buffer_span(&good), data);
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
