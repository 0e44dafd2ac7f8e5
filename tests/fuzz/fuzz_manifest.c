/* Input: a manifest. What decodes must encode to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "artifact/manifest.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(1 << 20);
    CLEANUP(buffer_clear) struct buffer again = {0};
    struct manifest m;
    struct qd_error err;
    if (!arena || manifest_decode((struct bytes){data, n_bytes}, arena, &m, &err) < 0)
        return 0;
    if (manifest_encode(&m, &again, &err) < 0 || again.n != n_bytes || memcmp(again.data, data, n_bytes) != 0)
        abort();
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct manifest_file files[] = {
        {.role = MANIFEST_PAYLOAD, .name = "model.gguf", .bytes = 70000, .has_verity = true},
        {.role = MANIFEST_TENSORS, .name = "tensors", .bytes = 300}};
    struct manifest m = {.format = MANIFEST_FORMAT,
                         .files = files,
                         .model = "m",
                         .scheme = "q8_0",
                         .recipe = "scheme=q8_0",
                         .layout = "portable",
                         .features = "",
                         .encoder_revision = 1,
                         .n_files = 2,
                         .quality = {.worst = "w"},
                         .created = 1700000000};
    if (manifest_encode(&m, &raw, NULL) < 0)
        abort();
    use(buffer_span(&raw), data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    static const uint8_t lying_map[] = {0xdf, 0xff, 0xff, 0xff, 0xff};
    use((struct bytes){lying_map, sizeof lying_map}, data);
}
