/* Input: the text of a recipe. What parses must print as it stood, and its rules must compile and match. */
#include <stdlib.h>
#include <string.h>

#include "quant/recipe.h"
#include "quant/tensor_rules.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(1 << 16);
    CLEANUP(tensor_rules_free) struct tensor_rules *rules = NULL;
    char text[2 * RECIPE_TEXT_MAX] = "", again[RECIPE_TEXT_MAX];
    struct recipe r;
    struct qd_error err;
    if (!arena || n_bytes >= sizeof text)
        return 0;
    memcpy(text, data, n_bytes);
    if (recipe_parse(text, &r, &err) < 0)
        return 0;
    recipe_text(&r, again);
    if (strcmp(text, again) != 0 || recipe_encoder_revision(&r) == 0)
        abort();
    if (tensor_rules_compile(r.rules, arena, &rules, &err) < 0)
        abort();
    (void)tensor_rules_match(rules, "blk.0.ffn_down.weight");
    return 0;
}

static void use_text(const char *text, fuzz_use *use, void *data)
{
    use((struct bytes){(const uint8_t *)text, strlen(text)}, data);
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    use_text("scheme=q4_k_m pure=0 output=bf16 embedding=q4_0 leave_output=1 requantize=1 imatrix="
             "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff keep=ffn%20gate=50%25%09$ "
             "tensor=blk\\.[0-9]+\\.attn_(q|k)=q6_k",
             use, data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    static const char *const texts[] = {"scheme=q8_0 pure=1 keep=((((((((a+)+)+)+)+)+)+)+)+",
                                        "scheme=q8_0 pure=1 keep=a{1,32767}",
                                        "scheme=q8_0 pure=1 tensor==q8_0",
                                        "scheme=q8_0 pure=1 keep=%",
                                        "scheme=q8_0 pure=1 keep=%0",
                                        "=",
                                        " ",
                                        "scheme"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        use_text(texts[i], use, data);
}
